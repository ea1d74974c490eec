/* Whose data directory is it? DIR/directory names the node, its cluster and the directory itself (a random uuid that
 * the log's records carry), so that a directory put under another node, copied into another cluster, or swapped for
 * some folder of a person is refused before a byte is written. It names the cluster's incarnation too: the one a
 * recovery led to counts, whatever the configuration was written with. */
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
#include "base/ids.h"
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

/* path.new, synced, renamed, the directory synced. */
static enum err write_durably(const char *dir, const char *path, const char *text, char *ret_text)
{
    char fresh[CONFIG_STRING_BYTES + 64];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (!write_synced(fresh, text, strlen(text)) || rename(fresh, path) != 0 || !sync_directory(dir)) {
        return refuse(errno == ENOSPC ? ERR_DISK_FULL : ERR_IO, ret_text, "%s: cannot be written: %s", path,
                      strerror(errno));
    }
    return ERR_OK;
}

static enum err identity_write(const struct metad_config *config, uint64_t incarnation, const struct uuid *uuid,
                               char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32], text[IDENTITY_BYTES], uuid_hex[33], cluster_hex[33];
    hex_encode(uuid, sizeof *uuid, uuid_hex);
    hex_encode(&config->cluster, sizeof config->cluster, cluster_hex);
    int bytes = snprintf(text, sizeof text,
                         "format = %d\nrole = \"metad\"\nnode = %u\ncluster = \"%s\"\ncluster_incarnation = %llu\n"
                         "uuid = \"%s\"\n",
                         FORMAT_METAD, config->node, cluster_hex, (unsigned long long)incarnation, uuid_hex);
    CHECK(bytes > 0 && (size_t)bytes < sizeof text);
    snprintf(path, sizeof path, "%s/directory", config->data);
    return write_durably(config->data, path, text, ret_text);
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
    enum err err = identity_write(config, config->cluster_incarnation, &uuid, ret_text);
    if (err == ERR_OK) {
        *ret_uuid = uuid;
    }
    return err;
}

struct identity {
    char *role, *cluster, *uuid;
    int64_t node, incarnation, format;
};

static void identity_deinit(struct identity *identity)
{
    free(identity->role);
    free(identity->cluster);
    free(identity->uuid);
}

static enum err identity_read(const char *path, struct identity *ret, char *ret_reason)
{
    struct identity identity = {.format = 1};
    const struct config_key keys[] = {
        {"format", CONFIG_INTEGER, false, &identity.format, 1, INT64_MAX},
        {"role", CONFIG_STRING, true, &identity.role, 0, 0},
        {"node", CONFIG_INTEGER, true, &identity.node, 1, UINT32_MAX},
        {"cluster", CONFIG_STRING, true, &identity.cluster, 0, 0},
        {"cluster_incarnation", CONFIG_INTEGER, true, &identity.incarnation, 1, INT64_MAX},
        {"uuid", CONFIG_STRING, true, &identity.uuid, 0, 0},
    };
    enum err err = config_read(path, keys, sizeof keys / sizeof keys[0], ret_reason);
    *ret = identity;
    return err;
}

uint64_t metad_directory_incarnation(const char *dir)
{
    char path[CONFIG_STRING_BYTES + 32], reason[CONFIG_TEXT_BYTES];
    struct identity identity;
    snprintf(path, sizeof path, "%s/directory", dir);
    enum err err = identity_read(path, &identity, reason);
    identity_deinit(&identity);
    return err == ERR_OK ? (uint64_t)identity.incarnation : 0;
}

/* Is what was read this node's? */
static enum err identity_check(const struct metad_config *config, const char *path, const struct identity *identity,
                               char *ret_text)
{
    struct cluster_id found;
    uint64_t incarnation = (uint64_t)identity->incarnation;
    bool decoded = hex_decode(identity->cluster, sizeof found, &found);
    if (identity->format > FORMAT_METAD) {
        return refuse(ERR_UNSUPPORTED, ret_text,
                      "%s: the directory is of format %lld, this program reads up to %d; start the newer program", path,
                      (long long)identity->format, FORMAT_METAD);
    }
    bool ours = decoded && strcmp(identity->role, "metad") == 0 && identity->node == config->node &&
                memcmp(&found, &config->cluster, sizeof found) == 0;
    if (ours && incarnation_is_newer(config->cluster_incarnation, incarnation)) {
        return refuse(
            ERR_OLD_INCARNATION, ret_text,
            "%s: the directory is of incarnation %llu of the cluster, before a recovery; set it aside and let "
            "this host join anew",
            path, (unsigned long long)incarnation);
    }
    if (!ours || incarnation != config->cluster_incarnation) {
        return refuse(ERR_NOT_OURS, ret_text,
                      "%s: the directory is of %s:%lld in cluster %s; name this node's own 'data'", path,
                      identity->role, (long long)identity->node, identity->cluster);
    }
    return ERR_OK;
}

enum err metad_directory_identity(const struct metad_config *config, struct uuid *ret_uuid, char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32], reason[CONFIG_TEXT_BYTES];
    snprintf(path, sizeof path, "%s/directory", config->data);
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        return make_identity(config, path, ret_uuid, ret_text);
    }
    struct identity identity;
    struct uuid uuid;
    enum err err = identity_read(path, &identity, reason);
    if (err != ERR_OK || !hex_decode(identity.uuid, sizeof uuid, &uuid)) {
        err = refuse(ERR_NOT_OURS, ret_text, "%s: is damaged (%s); restore it, or set the directory aside", path,
                     err != ERR_OK ? reason : "not hexadecimal");
    } else {
        err = identity_check(config, path, &identity, ret_text);
    }
    if (err == ERR_OK && identity.format < FORMAT_METAD) {
        /* what is written from now on, an older program does not read */
        err = identity_write(config, (uint64_t)identity.incarnation, &uuid, ret_text);
    }
    if (err == ERR_OK) {
        *ret_uuid = uuid;
    }
    identity_deinit(&identity);
    return err;
}

/* ---- the processes it had ---- */

/* DIR/boots: the numbers of the last processes, a line each, oldest first. What is no such line is passed over: a
 * directory that remembers less is believed by its positions (host/identity.c). */
static uint32_t boots_read(const char *path, uint64_t ret_boots[LIMIT_LOG_BOOTS])
{
    uint32_t count = 0;
    char line[64];
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *end = NULL;
        uint64_t boot = strtoull(line, &end, 16);
        if (end == line || *end != '\n' || boot == 0) {
            continue;
        }
        if (count == LIMIT_LOG_BOOTS) {
            memmove(&ret_boots[0], &ret_boots[1], --count * sizeof ret_boots[0]);
        }
        ret_boots[count++] = boot;
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

enum err metad_directory_boot(const char *dir, uint64_t ret_boots[LIMIT_LOG_BOOTS], uint32_t *ret_count, char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32], text[LIMIT_LOG_BOOTS * 20];
    uint64_t boot = 0;
    snprintf(path, sizeof path, "%s/boots", dir);
    uint32_t count = boots_read(path, ret_boots);
    while (boot == 0) {
        if (getrandom(&boot, sizeof boot, 0) != sizeof boot) {
            return refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
        }
    }
    if (count == LIMIT_LOG_BOOTS) {
        memmove(&ret_boots[0], &ret_boots[1], --count * sizeof ret_boots[0]);
    }
    ret_boots[count++] = boot;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "%016llx\n", (unsigned long long)ret_boots[i]);
    }
    CHECK(at < sizeof text);
    enum err err = write_durably(dir, path, text, ret_text);
    *ret_count = err == ERR_OK ? count : 0;
    if (err == ERR_DISK_FULL && (unlink(path) == 0 || errno == ENOENT) && sync_directory(dir)) {
        return ERR_OK; /* nothing is remembered, and nothing said, until there is room at a start */
    }
    return err;
}

/* ---- a recovery under way ---- */

static void recovery_path(const char *dir, char ret_path[CONFIG_STRING_BYTES + 32])
{
    snprintf(ret_path, CONFIG_STRING_BYTES + 32, "%s/recovery", dir);
}

bool metad_recovery_begun(const char *dir, uint64_t *ret_incarnation)
{
    char path[CONFIG_STRING_BYTES + 32], reason[CONFIG_TEXT_BYTES];
    int64_t incarnation = 0;
    const struct config_key keys[] = {{"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX}};
    recovery_path(dir, path);
    *ret_incarnation = config_read(path, keys, 1, reason) == ERR_OK ? (uint64_t)incarnation : 0;
    return access(path, F_OK) == 0 || errno != ENOENT;
}

enum err metad_recovery_begin(const char *dir, uint64_t incarnation, char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32], text[64];
    recovery_path(dir, path);
    snprintf(text, sizeof text, "cluster_incarnation = %llu\n", (unsigned long long)incarnation);
    return write_durably(dir, path, text, ret_text);
}

enum err metad_recovery_end(const struct metad_config *config, const struct uuid *uuid, uint64_t incarnation,
                            char *ret_text)
{
    char path[CONFIG_STRING_BYTES + 32];
    recovery_path(config->data, path);
    enum err err = identity_write(config, incarnation, uuid, ret_text);
    if (err == ERR_OK && (unlink(path) != 0 || !sync_directory(config->data))) {
        err = refuse(ERR_IO, ret_text, "%s: cannot be removed: %s", path, strerror(errno));
    }
    return err;
}
