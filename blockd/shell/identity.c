/* Whose directory is it? DIR/store names the cluster, the node and the store itself (a random uuid and incarnation that
 * every record carries). A directory put under another node, copied into another cluster, or one that lost this file
 * while it holds segments is refused before a byte is written. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "config.h"
#include "proto/version.h"

#define IDENTITY_BYTES      512
#define IDENTITY_PATH_BYTES (CONFIG_STRING_BYTES + 32)

__attribute__((format(printf, 3, 4))) static enum err refuse(enum err err, char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, BLOCKD_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return err;
}

static bool holds_segments(const char *dir)
{
    char path[IDENTITY_PATH_BYTES];
    snprintf(path, sizeof path, "%s/segments", dir);
    DIR *listing = opendir(path);
    bool any = false;
    if (listing != NULL) {
        for (struct dirent *entry = readdir(listing); entry != NULL && !any; entry = readdir(listing)) {
            any = entry->d_name[0] != '.';
        }
        closedir(listing);
    }
    return any;
}

bool write_durably(const char *dir, const char *path, const void *text, size_t bytes)
{
    char fresh[IDENTITY_PATH_BYTES + 8];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    bool good = write(fd, text, bytes) == (ssize_t)bytes && fsync(fd) == 0;
    good = close(fd) == 0 && good && rename(fresh, path) == 0;
    fd = good ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    good = fd >= 0 && fsync(fd) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return good;
}

static enum err identity_make(const struct blockd_config *config, const char *dir, const char *path,
                              struct store_identity *ret_identity, char *ret_text)
{
    if (holds_segments(dir)) {
        return refuse(ERR_NOT_OURS, ret_text,
                      "%s: is missing though the directory holds segments; restore it, or set the directory aside",
                      path);
    }
    struct store_identity identity = {0};
    if (getrandom(&identity.uuid, sizeof identity.uuid, 0) != sizeof identity.uuid ||
        getrandom(&identity.incarnation, sizeof identity.incarnation, 0) != sizeof identity.incarnation) {
        return refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
    }
    identity.incarnation = (identity.incarnation >> 2) | 1; /* fits the signed numbers of the file, never 0 */
    char text[IDENTITY_BYTES], uuid_hex[33], cluster_hex[33];
    hex_encode(&identity.uuid, sizeof identity.uuid, uuid_hex);
    hex_encode(&config->cluster, sizeof config->cluster, cluster_hex);
    int bytes = snprintf(text, sizeof text,
                         "format = %d\ncluster = \"%s\"\nnode = %u\nuuid = \"%s\"\n"
                         "incarnation = %llu\n",
                         FORMAT_STORE, cluster_hex, config->node, uuid_hex, (unsigned long long)identity.incarnation);
    CHECK(bytes > 0 && (size_t)bytes < sizeof text);
    if (!write_durably(dir, path, text, (size_t)bytes)) {
        return refuse(errno == ENOSPC ? ERR_DISK_FULL : ERR_IO, ret_text, "%s: cannot be written: %s", path,
                      strerror(errno));
    }
    *ret_identity = identity;
    return ERR_OK;
}

enum err store_identity_open(const struct blockd_config *config, const char *dir, struct store_identity *ret_identity,
                             char *ret_text)
{
    char path[IDENTITY_PATH_BYTES], reason[CONFIG_TEXT_BYTES] = "";
    snprintf(path, sizeof path, "%s/store", dir);
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        return identity_make(config, dir, path, ret_identity, ret_text);
    }
    char *cluster = NULL, *uuid = NULL;
    int64_t node = 0, incarnation = 0, format = 1;
    const struct config_key keys[] = {
        {"format", CONFIG_INTEGER, false, &format, 1, INT64_MAX},
        {"cluster", CONFIG_STRING, true, &cluster, 0, 0},
        {"node", CONFIG_INTEGER, true, &node, 1, UINT32_MAX},
        {"uuid", CONFIG_STRING, true, &uuid, 0, 0},
        {"incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    struct store_identity identity = {0};
    struct cluster_id found;
    enum err err = config_read(path, keys, count, reason);
    if (err != ERR_OK || !hex_decode(cluster, sizeof found, &found) ||
        !hex_decode(uuid, sizeof identity.uuid, &identity.uuid)) {
        err = refuse(ERR_NOT_OURS, ret_text, "%s: is damaged (%s); restore it, or set the directory aside", path,
                     err != ERR_OK ? reason : "not hexadecimal");
    } else if (format > FORMAT_STORE) {
        err = refuse(ERR_UNSUPPORTED, ret_text,
                     "%s: the directory is of format %lld, this program reads up to %d; start the newer program", path,
                     (long long)format, FORMAT_STORE);
    } else if (memcmp(&found, &config->cluster, sizeof found) != 0 || node != config->node) {
        err = refuse(ERR_NOT_OURS, ret_text, "%s: the directory is of blockd:%lld in cluster %s; name this node's own",
                     path, (long long)node, cluster);
    } else {
        identity.incarnation = (uint64_t)incarnation;
        *ret_identity = identity;
    }
    config_free(keys, count);
    return err;
}

/* ---- the cluster's incarnation ---- */

uint64_t store_incarnation_read(const char *dir)
{
    char path[IDENTITY_PATH_BYTES], reason[CONFIG_TEXT_BYTES];
    int64_t incarnation = 0;
    const struct config_key keys[] = {{"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX}};
    snprintf(path, sizeof path, "%s/incarnation", dir);
    return config_read(path, keys, 1, reason) == ERR_OK ? (uint64_t)incarnation : 0;
}

enum err store_incarnation_write(const char *dir, uint64_t incarnation)
{
    char path[IDENTITY_PATH_BYTES], text[64];
    snprintf(path, sizeof path, "%s/incarnation", dir);
    int bytes = snprintf(text, sizeof text, "cluster_incarnation = %llu\n", (unsigned long long)incarnation);
    bool written = write_durably(dir, path, text, (size_t)bytes);
    return written ? ERR_OK : errno == ENOSPC ? ERR_DISK_FULL : ERR_IO;
}
