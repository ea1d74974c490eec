/* The authority of a development cluster: a P-256 key and a self-signed certificate, and the certificates it signs.
 * The common name carries the role and the number ("metad:3"), which is what peers check; the address is 127.0.0.1.
 * Happy path: dev_authority_create, dev_certificate_make for each node and the first device, dev_authority_destroy. */
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdlib.h>

#include "base/check.h"
#include "dev.h"

#define DEV_CERTIFICATE_DAYS 3650
#define DEV_CLOCK_SLACK_S    3600

struct dev_authority {
    EVP_PKEY *key;
    X509 *certificate;
};

static enum err refuse_openssl(const char *what, char *ret_text)
{
    char reason[256];
    ERR_error_string_n(ERR_get_error(), reason, sizeof reason);
    snprintf(ret_text, DEV_TEXT_BYTES, "%s: %s", what, reason);
    return ERR_INTERNAL;
}

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    if (!extension) {
        return false;
    }
    bool added = X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

static bool set_serial(X509 *certificate)
{
    uint8_t serial[16];
    if (RAND_bytes(serial, sizeof serial) != 1) {
        return false;
    }
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40);
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return set;
}

/* A certificate of `key` without extensions or signature; NULL on failure. */
static X509 *certificate_begin(EVP_PKEY *key, const char *common_name, const X509_NAME *issuer)
{
    X509 *certificate = X509_new();
    if (!certificate) {
        return NULL;
    }
    X509_NAME *subject = X509_get_subject_name(certificate);
    bool made =
        X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
        X509_gmtime_adj(X509_getm_notBefore(certificate), -DEV_CLOCK_SLACK_S) &&
        X509_gmtime_adj(X509_getm_notAfter(certificate), DEV_CERTIFICATE_DAYS * 86400l) &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
        X509_set_issuer_name(certificate, issuer ? issuer : subject) == 1 && X509_set_pubkey(certificate, key) == 1;
    if (!made) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

static enum err write_bio(BIO *bio, const char *dir, const char *base, const char *suffix, mode_t mode, char *ret_text)
{
    char path[DEV_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s.%s", dir, base, suffix);
    char *data = NULL;
    long bytes = BIO_get_mem_data(bio, &data);
    CHECK(bytes > 0);
    return dev_file_write(path, data, (size_t)bytes, mode, ret_text);
}

/* dir/BASE.key, then dir/BASE.crt. */
static enum err write_pair(const char *dir, const char *base, EVP_PKEY *key, X509 *certificate, char *ret_text)
{
    BIO *key_bio = BIO_new(BIO_s_secmem()), *certificate_bio = BIO_new(BIO_s_mem());
    enum err err;
    if (!key_bio || !certificate_bio || PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) != 1 ||
        PEM_write_bio_X509(certificate_bio, certificate) != 1) {
        err = refuse_openssl("cannot encode a certificate", ret_text);
    } else {
        err = write_bio(key_bio, dir, base, "key", 0600, ret_text);
        if (err == ERR_OK) {
            err = write_bio(certificate_bio, dir, base, "crt", 0644, ret_text);
        }
    }
    BIO_free(key_bio);
    BIO_free(certificate_bio);
    return err;
}

static bool authority_fill(struct dev_authority *authority)
{
    authority->key = EVP_EC_gen("P-256");
    if (!authority->key) {
        return false;
    }
    authority->certificate = certificate_begin(authority->key, "cairn authority", NULL);
    X509 *certificate = authority->certificate;
    return certificate &&
           add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           add_extension(certificate, certificate, NID_subject_key_identifier, "hash") &&
           X509_sign(certificate, authority->key, EVP_sha256()) > 0;
}

enum err dev_authority_create(const char *dir, struct dev_authority **ret_authority, char *ret_text)
{
    struct dev_authority *authority = mem_alloc(sizeof *authority);
    enum err err = ERR_OK;
    if (!authority_fill(authority)) {
        err = refuse_openssl("cannot make the cluster's authority", ret_text);
    } else {
        err = write_pair(dir, "ca", authority->key, authority->certificate, ret_text);
    }
    if (err != ERR_OK) {
        dev_authority_destroy(authority);
        return err;
    }
    *ret_authority = authority;
    return ERR_OK;
}

void dev_authority_destroy(struct dev_authority *authority)
{
    EVP_PKEY_free(authority->key);
    X509_free(authority->certificate);
    free(authority);
}

static X509 *leaf_make(const struct dev_authority *authority, EVP_PKEY *key, const char *common_name)
{
    X509 *leaf = certificate_begin(key, common_name, X509_get_subject_name(authority->certificate));
    if (!leaf) {
        return NULL;
    }
    bool made = add_extension(leaf, authority->certificate, NID_basic_constraints, "critical,CA:FALSE") &&
                add_extension(leaf, authority->certificate, NID_key_usage, "critical,digitalSignature") &&
                add_extension(leaf, authority->certificate, NID_ext_key_usage, "serverAuth,clientAuth") &&
                add_extension(leaf, authority->certificate, NID_subject_alt_name, "IP:127.0.0.1") &&
                add_extension(leaf, authority->certificate, NID_authority_key_identifier, "keyid") &&
                X509_sign(leaf, authority->key, EVP_sha256()) > 0;
    if (!made) {
        X509_free(leaf);
        return NULL;
    }
    return leaf;
}

enum err dev_certificate_make(struct dev_authority *authority, const char *dir, const char *base,
                              const char *common_name, struct sha256 *ret_bearer, char *ret_text)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *leaf = key ? leaf_make(authority, key, common_name) : NULL;
    enum err err = ERR_OK;
    if (!leaf) {
        err = refuse_openssl("cannot make a certificate", ret_text);
    } else {
        err = write_pair(dir, base, key, leaf, ret_text);
    }
    unsigned char *der = NULL;
    int bytes = err == ERR_OK && ret_bearer ? i2d_PUBKEY(key, &der) : 0;
    if (bytes > 0) {
        unsigned int digest_bytes = 0;
        struct sha256 bearer;
        if (EVP_Digest(der, (size_t)bytes, bearer.bytes, &digest_bytes, EVP_sha256(), NULL) == 1) {
            CHECK(digest_bytes == sizeof bearer.bytes);
            *ret_bearer = bearer;
        } else {
            err = refuse_openssl("cannot hash a public key", ret_text);
        }
    } else if (err == ERR_OK && ret_bearer) {
        err = refuse_openssl("cannot encode a public key", ret_text);
    }
    OPENSSL_free(der);
    X509_free(leaf);
    EVP_PKEY_free(key);
    return err;
}
