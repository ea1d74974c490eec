/* client.toml and the file of idempotency numbers. Both stand before everything else a client does: who I am, whom I
 * trust, where the cluster is, and which numbers nobody of this device has used (R-F10). */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api.h"
#include "base/config.h"

struct raw_config {
    char *role, *cluster, *ca, *cert, *key, *user, *workspace, *keys;
    int64_t node, incarnation;
    struct config_strings metads;
};

/* Moves what was read into `config`; NULL, or what is wrong. */
static const char *config_take(struct raw_config *raw, struct api_config *config)
{
    if (strcmp(raw->role, "device") != 0 && strcmp(raw->role, "join") != 0) {
        return "role must be \"device\"";
    }
    config->role = strcmp(raw->role, "join") == 0 ? ROLE_JOIN : ROLE_DEVICE;
    if (!hex_decode(raw->cluster, sizeof config->cluster, &config->cluster)) {
        return "cluster must be 32 hexadecimal digits";
    }
    if (raw->metads.count == 0 || raw->metads.count > LIMIT_RAFT_MEMBERS) {
        return "metads must name 1 to 9 metadata nodes";
    }
    for (uint32_t i = 0; i < raw->metads.count; i++) {
        if (!runtime_peer_parse(raw->metads.items[i], &config->metads[i])) {
            return "metads must hold strings like \"1@127.0.0.1:7001\"";
        }
    }
    if (raw->workspace != NULL && strlen(raw->workspace) >= sizeof config->workspace) {
        return "workspace is too long";
    }
    config->metad_count = raw->metads.count;
    config->device = (uint32_t)raw->node;
    config->cluster_incarnation = (uint64_t)raw->incarnation;
    strcpy(config->workspace, raw->workspace == NULL ? "home" : raw->workspace);
    char **from[] = {&raw->ca, &raw->cert, &raw->key, &raw->keys};
    char **to[] = {&config->ca, &config->cert, &config->key, &config->keys};
    for (unsigned i = 0; i < 4; i++) {
        *to[i] = *from[i];
        *from[i] = NULL;
    }
    return NULL;
}

void api_metads_path(const struct api_config *config, char ret_path[API_PATH_BYTES])
{
    snprintf(ret_path, API_PATH_BYTES, "%s.metads", config->keys);
}

/* The metadata nodes of the last map: those of the file may be long gone. */
static void config_remembered(struct api_config *config)
{
    char path[API_PATH_BYTES];
    api_metads_path(config, path);
    config->remembered_count = runtime_peers_read(path, config->remembered, API_METADS_REMEMBERED);
}

enum err api_config_read(const char *path, struct api_config *ret_config, char *ret_text)
{
    struct raw_config raw = {0};
    const struct config_key keys[] = {
        {"role", CONFIG_STRING, true, &raw.role, 0, 0},
        {"node", CONFIG_INTEGER, true, &raw.node, 1, UINT32_MAX},
        {"cluster", CONFIG_STRING, true, &raw.cluster, 0, 0},
        {"cluster_incarnation", CONFIG_INTEGER, true, &raw.incarnation, 0, INT64_MAX},
        {"ca", CONFIG_STRING, true, &raw.ca, 0, 0},
        {"cert", CONFIG_STRING, true, &raw.cert, 0, 0},
        {"key", CONFIG_STRING, true, &raw.key, 0, 0},
        {"user", CONFIG_STRING, false, &raw.user, 0, 0},
        {"workspace", CONFIG_STRING, false, &raw.workspace, 0, 0},
        {"metads", CONFIG_STRINGS, true, &raw.metads, 0, 0},
        {"keys", CONFIG_STRING, true, &raw.keys, 0, 0},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    struct api_config config = {0};
    enum err err = config_read(path, keys, count, ret_text);
    const char *wrong = err == ERR_OK ? config_take(&raw, &config) : NULL;
    config_free(keys, count);
    if (wrong != NULL) {
        snprintf(ret_text, CONFIG_TEXT_BYTES, "%s: %s", path, wrong);
        return ERR_CONFIG;
    }
    if (err == ERR_OK) {
        config_remembered(&config);
        *ret_config = config;
    }
    return err;
}

void api_config_deinit(struct api_config *config)
{
    free(config->ca);
    free(config->cert);
    free(config->key);
    free(config->keys);
    *config = (struct api_config){0};
}

/* ---- idempotency numbers ---- */

/* The file holds the next free number: 20 decimal digits and a newline, always written whole. */
#define KEYS_BYTES 21

static enum err keys_advance(int fd, uint32_t count, uint64_t *ret_first, const char **ret_wrong)
{
    char text[KEYS_BYTES + 1] = {0};
    uint64_t first = 1;
    ssize_t got = pread(fd, text, sizeof text, 0);
    if (got < 0) {
        *ret_wrong = strerror(errno);
        return ERR_IO;
    }
    if (got > 0) {
        char *end = NULL;
        first = strtoull(text, &end, 10);
        if (got > KEYS_BYTES || end == text || *end != '\n' || first == 0) {
            *ret_wrong = "does not hold a number; restore it, or take a new device";
            return ERR_CORRUPT;
        }
    }
    snprintf(text, sizeof text, "%020" PRIu64 "\n", first + count);
    if (pwrite(fd, text, KEYS_BYTES, 0) != KEYS_BYTES || fdatasync(fd) != 0) {
        *ret_wrong = strerror(errno);
        return errno == ENOSPC ? ERR_NO_ROOM : ERR_IO;
    }
    *ret_first = first;
    return ERR_OK;
}

enum err api_keys_take(const char *path, uint32_t count, uint64_t *ret_first, char *ret_text)
{
    const char *wrong = NULL;
    uint64_t first = 0;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        snprintf(ret_text, API_TEXT_BYTES, "%s: %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return ERR_IO;
    }
    enum err err = keys_advance(fd, count, &first, &wrong);
    close(fd);
    if (err != ERR_OK) {
        snprintf(ret_text, API_TEXT_BYTES, "%s: %s", path, wrong);
        return err;
    }
    *ret_first = first;
    return ERR_OK;
}
