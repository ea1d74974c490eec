/* Keys and certificates as files, for clusters made on this machine: the authority (base/authority.h), and what it
 * issues to nodes and the first device. A private key is written before its certificate, readable by its owner only. */
#include <stdio.h>
#include <time.h>

#include "base/authority.h"
#include "base/check.h"
#include "base/hash.h"
#include "dev.h"

uint64_t dev_wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

enum err dev_pem_write(const char *dir, const char *name, const char *label, struct slice der, mode_t mode,
                       char *ret_text)
{
    char path[DEV_PATH_BYTES];
    struct slice text = pem_encode(label, der);
    enum err err = snprintf(path, sizeof path, "%s/%s", dir, name) < (int)sizeof path
                       ? dev_file_write(path, text.data, text.bytes, mode, ret_text)
                       : dev_refuse(ERR_TOO_LARGE, ret_text, "%s: the path is too long", dir);
    slice_wipe(&text);
    return err;
}

/* dir/BASE.key, then dir/BASE.crt. */
static enum err write_pair(const char *dir, const char *base, struct slice key, struct slice certificate,
                           char *ret_text)
{
    char name[64];
    snprintf(name, sizeof name, "%.50s.key", base);
    enum err err = dev_pem_write(dir, name, "PRIVATE KEY", key, 0600, ret_text);
    if (err == ERR_OK) {
        snprintf(name, sizeof name, "%.50s.crt", base);
        err = dev_pem_write(dir, name, "CERTIFICATE", certificate, 0644, ret_text);
    }
    return err;
}

enum err dev_authority_create(const char *dir, bool keep_key, struct authority **ret_authority, char *ret_text)
{
    struct authority *authority = NULL;
    struct slice key = {0}, certificate = {0};
    if (authority_create(dev_wall_ns(), &authority) != ERR_OK) {
        return dev_refuse(ERR_INTERNAL, ret_text, "cannot make the cluster's authority");
    }
    enum err err = authority_certificate(authority, &certificate);
    if (err == ERR_OK && keep_key) {
        err = authority_key(authority, &key);
    }
    if (err != ERR_OK) {
        err = dev_refuse(err, ret_text, "cannot encode the cluster's authority");
    } else {
        err = keep_key ? write_pair(dir, "ca", key, certificate, ret_text)
                       : dev_pem_write(dir, "ca.crt", "CERTIFICATE", certificate, 0644, ret_text);
    }
    slice_wipe(&key);
    slice_drop(&certificate);
    if (err != ERR_OK) {
        authority_destroy(authority);
        return err;
    }
    *ret_authority = authority;
    return ERR_OK;
}

enum err dev_certificate_make(struct authority *authority, const char *dir, const char *base, const char *common_name,
                              const char *host, struct sha256 *ret_bearer, char *ret_text)
{
    struct slice private_key = {0}, public_key = {0}, certificate = {0};
    enum err err = identity_create(&private_key, &public_key);
    if (err == ERR_OK) {
        err =
            authority_issue(authority, public_key, common_name, host, dev_wall_ns(), CERTIFICATE_SECONDS, &certificate);
    }
    if (err != ERR_OK) {
        err = dev_refuse(err, ret_text, "cannot make a certificate for %s at %s", common_name, host);
    } else {
        err = write_pair(dir, base, private_key, certificate, ret_text);
    }
    if (err == ERR_OK && ret_bearer != NULL) {
        *ret_bearer = sha256(public_key.data, public_key.bytes);
    }
    slice_wipe(&private_key);
    slice_drop(&public_key);
    slice_drop(&certificate);
    return err;
}
