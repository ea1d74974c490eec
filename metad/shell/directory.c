/* Whose data directory is it? DIR/directory names the node, its cluster and the directory itself (a random uuid that
 * the log's records carry), so that a directory put under another node, copied into another cluster, or swapped for
 * some folder of a person is refused before a byte is written. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "config.h"
#include "proto/version.h"

#define IDENTITY_BYTES 512

__attribute__((format(printf, 3, 4))) static enum err refuse(enum err err, char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, METAD_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return err;
}

/* Whether the log or the database holds anything. */
static bool holds_data(const char *dir, const char *sub)
{
    char path[CONFIG_STRING_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", dir, sub);
    DIR *listing = opendir(path);
    bool any = false;
    if (listing) {
        for (struct dirent *entry = readdir(listing); entry && !any; entry = readdir(listing)) {
            any = entry->d_name[0] != '.';
        }
        closedir(listing);
    }
    return any;
}

static bool write_synced(const char *path, const char *text, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    bool whole = write(fd, text, bytes) == (ssize_t)bytes && fsync(fd) == 0;
    return close(fd) == 0 && whole;
}

static bool sync_directory(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool synced = fsync(fd) == 0;
    close(fd);
    return synced;
}

static enum err write_identity(const struct metad_config *config, const char *path, const struct uuid *uuid,
                               char *ret_text)
{
    char fresh[CONFIG_STRING_BYTES + 64], text[IDENTITY_BYTES], uuid_hex[33], cluster_hex[33];
    hex_encode(uuid, sizeof *uuid, uuid_hex);
    hex_encode(&config->cluster, sizeof config->cluster, cluster_hex);
    int bytes =
        snprintf(text, sizeof text,
                 "format = %d\nrole = \"metad\"\nnode = %u\ncluster = \"%s\"\ncluster_incarnation = %llu\n"
                 "uuid = \"%s\"\n",
                 FORMAT_METAD, config->node, cluster_hex, (unsigned long long)config->cluster_incarnation, uuid_hex);
    CHECK(bytes > 0 && (size_t)bytes < sizeof text);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (!write_synced(fresh, text, (size_t)bytes) || rename(fresh, path) != 0 || !sync_directory(config->data)) {
        return refuse(errno == ENOSPC ? ERR_DISK_FULL : ERR_IO, ret_text, "%s: cannot be written: %s", path,
                      strerror(errno));
    }
    return ERR_OK;
}

static enum err make_identity(const struct metad_config *config, const char *path, struct uuid *ret_uuid,
                              char *ret_text)
{
    if (holds_data(config->data, "kv") || holds_data(config->data, "log")) {
        return refuse(ERR_NOT_OURS, ret_text,
                      "%s: is missing though the directory holds data; restore it, or set the directory aside", path);
    }
    struct uuid uuid;
    if (getrandom(&uuid, sizeof uuid, 0) != sizeof uuid) {
        return refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
    }
    enum err err = write_identity(config, path, &uuid, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    *ret_uuid = uuid;
    return ERR_OK;
}

enum err metad_directory_identity(const struct metad_config *config, struct uuid *ret_uuid, char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32], reason[CONFIG_TEXT_BYTES];
    snprintf(path, sizeof path, "%s/directory", config->data);
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        return make_identity(config, path, ret_uuid, ret_text);
    }
    char *role = NULL, *cluster = NULL, *uuid = NULL;
    int64_t node = 0, incarnation = 0, format = 1;
    const struct config_key keys[] = {
        {"format", CONFIG_INTEGER, false, &format, 1, INT64_MAX},
        {"role", CONFIG_STRING, true, &role, 0, 0},
        {"node", CONFIG_INTEGER, true, &node, 1, UINT32_MAX},
        {"cluster", CONFIG_STRING, true, &cluster, 0, 0},
        {"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
        {"uuid", CONFIG_STRING, true, &uuid, 0, 0},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    enum err err = config_read(path, keys, count, reason);
    struct cluster_id found;
    if (err != ERR_OK || !hex_decode(cluster, sizeof found, &found) || !hex_decode(uuid, sizeof *ret_uuid, ret_uuid)) {
        err = refuse(ERR_NOT_OURS, ret_text, "%s: is damaged (%s); restore it, or set the directory aside", path,
                     err != ERR_OK ? reason : "not hexadecimal");
    } else if (format > FORMAT_METAD) {
        err = refuse(ERR_UNSUPPORTED, ret_text,
                     "%s: the directory is of format %lld, this program reads up to %d; start the newer program", path,
                     (long long)format, FORMAT_METAD);
    } else if (strcmp(role, "metad") != 0 || node != config->node ||
               memcmp(&found, &config->cluster, sizeof found) != 0 ||
               incarnation != (int64_t)config->cluster_incarnation) {
        err =
            refuse(ERR_NOT_OURS, ret_text, "%s: the directory is of %s:%lld in cluster %s; name this node's own 'data'",
                   path, role, (long long)node, cluster);
    } else if (format < FORMAT_METAD) { /* what is written from now on, an older program does not read */
        err = write_identity(config, path, ret_uuid, ret_text);
    }
    config_free(keys, count);
    return err;
}
