/* Reading a block server's configuration. What people wrote is checked here, with the file's name and what to change,
 * so that the server itself starts from checked values. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "io/runtime.h"

#define BLOCKD_CAPACITY_MIN    (64ll << 20)
#define BLOCKD_CONNECTIONS_MIN 16 /* metadata nodes and other block servers must get in */

__attribute__((format(printf, 2, 3))) static enum err refuse(char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, BLOCKD_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return ERR_CONFIG;
}

bool blockd_address_parse(const char *text, char ret_host[BLOCKD_HOST_BYTES], uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon == text || (size_t)(colon - text) >= BLOCKD_HOST_BYTES || colon[1] < '0' ||
        colon[1] > '9') {
        return false;
    }
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != 0 || port > 65535) {
        return false;
    }
    memcpy(ret_host, text, (size_t)(colon - text));
    ret_host[colon - text] = 0;
    *ret_port = (uint16_t)port;
    return true;
}

/* "NODE@HOST:PORT". */
static bool parse_peer(const char *text, struct blockd_peer *ret_peer)
{
    char *at;
    unsigned long node = strtoul(text, &at, 10);
    if (*text < '0' || *text > '9' || *at != '@' || node < 1 || node > UINT32_MAX) {
        return false;
    }
    ret_peer->node = (uint32_t)node;
    return blockd_address_parse(at + 1, ret_peer->host, &ret_peer->port) && ret_peer->port != 0;
}

static enum err take_metads(const char *path, const struct config_strings *metads, struct blockd_config *config,
                            char *ret_text)
{
    if (metads->count < 1 || metads->count > LIMIT_RAFT_MEMBERS) {
        return refuse(ret_text, "%s: 'metads' must name 1 to %d nodes", path, LIMIT_RAFT_MEMBERS);
    }
    for (uint32_t i = 0; i < metads->count; i++) {
        struct blockd_peer *peer = &config->metads[i];
        if (!parse_peer(metads->items[i], peer)) {
            return refuse(ret_text, "%s: '%s' in 'metads' is not NODE@HOST:PORT", path, metads->items[i]);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (config->metads[j].node == peer->node) {
                return refuse(ret_text, "%s: node %u stands twice in 'metads'", path, peer->node);
            }
        }
    }
    config->metad_count = metads->count;
    return ERR_OK;
}

static enum err check_stores(const char *path, const struct config_strings *stores, char *ret_text)
{
    if (stores->count < 1 || stores->count > BLOCKD_STORES_MAX) {
        return refuse(ret_text, "%s: 'stores' must name 1 to %u directories", path, BLOCKD_STORES_MAX);
    }
    for (uint32_t i = 0; i < stores->count; i++) {
        if (stores->items[i][0] != '/') {
            return refuse(ret_text, "%s: '%s' in 'stores' is not an absolute path", path, stores->items[i]);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(stores->items[i], stores->items[j]) == 0) {
                return refuse(ret_text, "%s: '%s' stands twice in 'stores'", path, stores->items[i]);
            }
        }
    }
    return ERR_OK;
}

/* Strings of the file that are parsed and not kept. */
struct config_passing {
    char *role, *cluster, *listen, *advertise;
    struct config_strings metads;
};

static enum err take_config(const char *path, const struct config_passing *passing, struct blockd_config *config,
                            char *ret_text)
{
    if (strcmp(passing->role, "blockd") != 0) {
        return refuse(ret_text, "%s: role is '%s'; this program takes a file with role = \"blockd\"", path,
                      passing->role);
    }
    if (!hex_decode(passing->cluster, sizeof config->cluster, &config->cluster)) {
        return refuse(ret_text, "%s: 'cluster' must be 32 hexadecimal digits", path);
    }
    if (!blockd_address_parse(passing->listen, config->listen_host, &config->listen_port)) {
        return refuse(ret_text, "%s: 'listen' must be HOST:PORT", path);
    }
    if (passing->advertise != NULL) {
        char host[BLOCKD_HOST_BYTES];
        uint16_t port = 0;
        if (!blockd_address_parse(passing->advertise, host, &port) || port == 0) {
            return refuse(ret_text, "%s: 'advertise' must be HOST:PORT, where others reach this server", path);
        }
        snprintf(config->advertise, sizeof config->advertise, "%s:%u", host, port);
    }
    enum err err = take_metads(path, &passing->metads, config, ret_text);
    return err == ERR_OK ? check_stores(path, &config->stores, ret_text) : err;
}

enum err blockd_config_read(const char *path, struct blockd_config *ret_config, char *ret_text)
{
    struct blockd_config config = {0};
    struct config_passing passing = {0};
    int64_t node = 0, incarnation = 0, capacity_bytes = 0, max_connections = 0, drain_seconds = DRAIN_SECONDS;
    int64_t loops = 0, workers = 0;
    const struct config_key keys[] = {
        {"ca", CONFIG_STRING, true, &config.ca, 0, 0},
        {"cert", CONFIG_STRING, true, &config.cert, 0, 0},
        {"key", CONFIG_STRING, true, &config.key, 0, 0},
        {"log", CONFIG_STRING, false, &config.log, 0, 0},
        {"host", CONFIG_STRING, true, &config.host, 0, 0},
        {"rack", CONFIG_STRING, true, &config.rack, 0, 0},
        {"stores", CONFIG_STRINGS, true, &config.stores, 0, 0},
        {"node", CONFIG_INTEGER, true, &node, 1, UINT32_MAX},
        {"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
        {"capacity_bytes", CONFIG_INTEGER, true, &capacity_bytes, BLOCKD_CAPACITY_MIN, INT64_MAX},
        {"max_connections", CONFIG_INTEGER, false, &max_connections, BLOCKD_CONNECTIONS_MIN, RUNTIME_CONNECTIONS_MAX},
        {"loops", CONFIG_INTEGER, false, &loops, 1, RUNTIME_THREADS_MAX},
        {"workers", CONFIG_INTEGER, false, &workers, 1, RUNTIME_THREADS_MAX},
        {"drain_seconds", CONFIG_INTEGER, false, &drain_seconds, 0, LIMIT_DRAIN_SECONDS},
        {"role", CONFIG_STRING, true, &passing.role, 0, 0},
        {"cluster", CONFIG_STRING, true, &passing.cluster, 0, 0},
        {"listen", CONFIG_STRING, true, &passing.listen, 0, 0},
        {"advertise", CONFIG_STRING, false, &passing.advertise, 0, 0},
        {"metads", CONFIG_STRINGS, true, &passing.metads, 0, 0},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    enum err err = config_read(path, keys, count, ret_text);
    if (err == ERR_OK) {
        config.node = (uint32_t)node;
        config.cluster_incarnation = (uint64_t)incarnation;
        config.capacity_bytes = (uint64_t)capacity_bytes;
        config.max_connections = (uint32_t)max_connections;
        config.drain_seconds = (uint32_t)drain_seconds;
        config.loops = loops > 0 ? (uint32_t)loops : runtime_loops_default();
        config.workers = workers > 0 ? (uint32_t)workers : runtime_workers_default(config.loops);
        err = take_config(path, &passing, &config, ret_text);
    }
    config_free(keys + count - 5, 5); /* what passes; the rest is the caller's, or freed with it */
    if (err != ERR_OK) {
        blockd_config_deinit(&config);
        return err;
    }
    for (uint32_t i = 0; i < config.stores.count; i++) {
        uint64_t kept = store_incarnation_read(config.stores.items[i]);
        if (incarnation_is_newer(kept, config.cluster_incarnation)) {
            config.cluster_incarnation = kept;
        }
    }
    *ret_config = config;
    return ERR_OK;
}

static bool same_metads(const struct blockd_config *a, const struct blockd_config *b)
{
    bool same = a->metad_count == b->metad_count;
    for (uint32_t i = 0; same && i < a->metad_count; i++) {
        same = a->metads[i].node == b->metads[i].node;
    }
    return same;
}

static bool same_stores(const struct config_strings *a, const struct config_strings *b)
{
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++) {
        same = strcmp(a->items[i], b->items[i]) == 0;
    }
    return same;
}

enum err blockd_config_fixed(const struct blockd_config *old, const struct blockd_config *fresh, const char *path,
                             char *ret_text)
{
    const struct {
        const char *key;
        bool same;
    } rows[] = {
        {"node", old->node == fresh->node},
        {"cluster", memcmp(&old->cluster, &fresh->cluster, sizeof old->cluster) == 0},
        {"cluster_incarnation", old->cluster_incarnation == fresh->cluster_incarnation},
        {"listen", strcmp(old->listen_host, fresh->listen_host) == 0 && old->listen_port == fresh->listen_port},
        {"advertise", strcmp(old->advertise, fresh->advertise) == 0},
        {"host", strcmp(old->host, fresh->host) == 0},
        {"rack", strcmp(old->rack, fresh->rack) == 0},
        {"stores", same_stores(&old->stores, &fresh->stores)},
        {"loops", old->loops == fresh->loops},
        {"workers", old->workers == fresh->workers},
        {"drain_seconds", old->drain_seconds == fresh->drain_seconds},
        {"capacity_bytes", old->capacity_bytes == fresh->capacity_bytes},
        {"metads", same_metads(old, fresh)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].same) {
            return refuse(ret_text, "%s: '%s' is another than at the start; restart the server for that", path,
                          rows[i].key);
        }
    }
    return ERR_OK;
}

void blockd_config_deinit(struct blockd_config *config)
{
    const struct config_key kept[] = {
        {"ca", CONFIG_STRING, true, &config->ca, 0, 0},          {"cert", CONFIG_STRING, true, &config->cert, 0, 0},
        {"key", CONFIG_STRING, true, &config->key, 0, 0},        {"log", CONFIG_STRING, false, &config->log, 0, 0},
        {"host", CONFIG_STRING, true, &config->host, 0, 0},      {"rack", CONFIG_STRING, true, &config->rack, 0, 0},
        {"stores", CONFIG_STRINGS, true, &config->stores, 0, 0},
    };
    config_free(kept, sizeof kept / sizeof kept[0]);
}
