/* Reading a metadata node's configuration. Everything that could be wrong with what people wrote is found here, with
 * the file's name and what to change, so that the node itself starts from checked values. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "io/runtime.h"

#define METAD_PG_BITS_MAX     12
#define METAD_CONNECTIONS_MIN 16 /* the other nodes must get in */

__attribute__((format(printf, 2, 3))) static enum err refuse(char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, METAD_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return ERR_CONFIG;
}

/* "HOST:PORT". */
bool metad_address_parse(const char *text, char ret_host[METAD_HOST_BYTES], uint16_t *ret_port)
{
    const char *colon = strrchr(text, ':');
    if (!colon || colon == text || (size_t)(colon - text) >= METAD_HOST_BYTES || colon[1] < '0' || colon[1] > '9') {
        return false;
    }
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end || port > 65535) {
        return false;
    }
    memcpy(ret_host, text, (size_t)(colon - text));
    ret_host[colon - text] = 0;
    *ret_port = (uint16_t)port;
    return true;
}

/* "NODE@HOST:PORT". */
static bool parse_peer(const char *text, struct metad_peer *ret_peer)
{
    char *at;
    unsigned long node = strtoul(text, &at, 10);
    if (*text < '0' || *text > '9' || *at != '@' || node < 1 || node > UINT32_MAX) {
        return false;
    }
    ret_peer->node = (uint32_t)node;
    return metad_address_parse(at + 1, ret_peer->host, &ret_peer->port) && ret_peer->port != 0;
}

static enum err take_peers(const char *path, const struct config_strings *metads, struct metad_config *config,
                           char *ret_text)
{
    if (metads->count < 1 || metads->count > LIMIT_RAFT_MEMBERS) {
        return refuse(ret_text, "%s: 'metads' must name 1 to %d nodes", path, LIMIT_RAFT_MEMBERS);
    }
    bool self = false;
    for (uint32_t i = 0; i < metads->count; i++) {
        struct metad_peer *peer = &config->metads[i];
        if (!parse_peer(metads->items[i], peer)) {
            return refuse(ret_text, "%s: '%s' in 'metads' is not NODE@HOST:PORT", path, metads->items[i]);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (config->metads[j].node == peer->node) {
                return refuse(ret_text, "%s: node %u stands twice in 'metads'", path, peer->node);
            }
        }
        self = self || peer->node == config->node;
    }
    config->metad_count = metads->count;
    if (!self) {
        return refuse(ret_text, "%s: 'metads' lacks this node, %u; add it", path, config->node);
    }
    return ERR_OK;
}

/* Shape of the pool's name; what it means is the root group's business. */
static bool is_pool(const char *pool)
{
    unsigned k = 0, m = 0;
    int end = 0;
    if (sscanf(pool, "rs-%2u-%2u%n", &k, &m, &end) == 2 && !pool[end]) {
        return k >= 1 && m >= 1 && k + m <= LIMIT_SHARDS;
    }
    return sscanf(pool, "rep-%2u%n", &k, &end) == 1 && !pool[end] && k >= 1 && k <= LIMIT_SHARDS;
}

static enum err take_members(const char *path, const struct config_integers *members, struct bootstrap *bootstrap,
                             char *ret_text)
{
    if (members->count < 1 || members->count > LIMIT_RAFT_MEMBERS) {
        return refuse(ret_text, "%s: 'members' must name 1 to %d nodes", path, LIMIT_RAFT_MEMBERS);
    }
    for (uint32_t i = 0; i < members->count; i++) {
        bootstrap->members[i] = (uint32_t)members->items[i];
        for (uint32_t j = 0; j < i; j++) {
            if (members->items[j] == members->items[i]) {
                return refuse(ret_text, "%s: node %u stands twice in 'members'", path, bootstrap->members[i]);
            }
        }
    }
    bootstrap->member_count = members->count;
    return ERR_OK;
}

struct bootstrap_strings {
    char *cluster, *random, *workspace, *pool, *bearer, *authority_sealed, *authority;
};

static enum err take_strings(const char *path, const struct bootstrap_strings *strings, struct bootstrap *bootstrap,
                             char *ret_text)
{
    if (!hex_decode(strings->cluster, 16, &bootstrap->cluster)) {
        return refuse(ret_text, "%s: 'cluster' must be 32 hexadecimal digits", path);
    }
    if (!hex_decode(strings->random, sizeof bootstrap->random, bootstrap->random)) {
        return refuse(ret_text, "%s: 'random' must be 64 hexadecimal digits", path);
    }
    if (!hex_decode(strings->bearer, sizeof bootstrap->bearer, &bootstrap->bearer)) {
        return refuse(ret_text, "%s: 'bearer' must be 64 hexadecimal digits", path);
    }
    size_t workspace_bytes = strlen(strings->workspace);
    if (workspace_bytes == 0 || workspace_bytes >= sizeof bootstrap->workspace) {
        return refuse(ret_text, "%s: 'workspace' must have 1 to %zu bytes", path, sizeof bootstrap->workspace - 1);
    }
    memcpy(bootstrap->workspace, strings->workspace, workspace_bytes + 1);
    if (strlen(strings->pool) >= sizeof bootstrap->pool || !is_pool(strings->pool)) {
        return refuse(ret_text, "%s: 'pool' must be rs-K-M or rep-N with at most %d shards", path, LIMIT_SHARDS);
    }
    strcpy(bootstrap->pool, strings->pool);
    return ERR_OK;
}

/* Bytes of any length in hexadecimal; none when there is no text. */
static bool hex_take(const char *text, uint8_t *ret_data, uint32_t *ret_bytes)
{
    size_t digits = text != NULL ? strlen(text) : 0;
    *ret_bytes = (uint32_t)(digits / 2);
    return digits % 2 == 0 && digits / 2 <= LIMIT_AUTHORITY_BYTES &&
           (digits == 0 || hex_decode(text, digits / 2, ret_data));
}

static enum err take_authority(const char *path, const struct bootstrap_strings *strings, struct bootstrap *bootstrap,
                               char *ret_text)
{
    if (!hex_take(strings->authority_sealed, bootstrap->authority_sealed, &bootstrap->authority_sealed_bytes) ||
        !hex_take(strings->authority, bootstrap->authority, &bootstrap->authority_bytes) ||
        (bootstrap->authority_bytes == 0) != (bootstrap->authority_sealed_bytes == 0)) {
        return refuse(ret_text, "%s: 'authority_sealed' and 'authority' must be hexadecimal digits, both or none",
                      path);
    }
    return ERR_OK;
}

static enum err read_bootstrap(const char *path, struct bootstrap *ret_bootstrap, char *ret_text)
{
    struct bootstrap_strings strings = {0};
    struct config_integers members = {0};
    int64_t incarnation = 0, stores = 0, chunk_bytes = LIMIT_CHUNK_BYTES, copy_bytes = 0, pg_bits = 6, device = 0;
    const struct config_key keys[] = {
        {"cluster", CONFIG_STRING, true, &strings.cluster, 0, 0},
        {"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
        {"members", CONFIG_INTEGERS, true, &members, 1, UINT32_MAX},
        {"random", CONFIG_STRING, true, &strings.random, 0, 0},
        {"workspace", CONFIG_STRING, true, &strings.workspace, 0, 0},
        {"pool", CONFIG_STRING, true, &strings.pool, 0, 0},
        {"stores", CONFIG_INTEGER, true, &stores, 1, LIMIT_STORES},
        {"chunk_bytes", CONFIG_INTEGER, false, &chunk_bytes, 4096, LIMIT_CHUNK_BYTES},
        {"copy_bytes", CONFIG_INTEGER, false, &copy_bytes, 1, LIMIT_CHUNK_BYTES},
        {"pg_bits", CONFIG_INTEGER, false, &pg_bits, 1, METAD_PG_BITS_MAX},
        {"device", CONFIG_INTEGER, true, &device, 1, UINT32_MAX},
        {"bearer", CONFIG_STRING, true, &strings.bearer, 0, 0},
        {"authority_sealed", CONFIG_STRING, false, &strings.authority_sealed, 0, 0},
        {"authority", CONFIG_STRING, false, &strings.authority, 0, 0},
    };
    const size_t count = sizeof keys / sizeof keys[0];
    struct bootstrap bootstrap = {0};
    enum err err = config_read(path, keys, count, ret_text);
    if (err == ERR_OK) {
        err = take_strings(path, &strings, &bootstrap, ret_text);
    }
    if (err == ERR_OK) {
        err = take_authority(path, &strings, &bootstrap, ret_text);
    }
    if (err == ERR_OK) {
        err = take_members(path, &members, &bootstrap, ret_text);
    }
    config_free(keys, count);
    if (err != ERR_OK) {
        return err;
    }
    bootstrap.cluster_incarnation = (uint64_t)incarnation;
    bootstrap.stores = (uint32_t)stores;
    bootstrap.chunk_bytes = (uint32_t)chunk_bytes;
    bootstrap.copy_bytes = (uint32_t)copy_bytes;
    bootstrap.pg_bits = (uint32_t)pg_bits;
    bootstrap.device = (uint32_t)device;
    *ret_bootstrap = bootstrap;
    return ERR_OK;
}

/* 32 raw bytes that nobody but the owner may read. */
static enum err read_cluster_key(const char *path, uint8_t ret_key[32], char *ret_text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat info;
    if (fd < 0 || fstat(fd, &info) != 0) {
        enum err err = refuse(ret_text, "%s: cannot be read: %s; 'cluster_key' must name the cluster's key", path,
                              strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return err;
    }
    uint8_t key[33];
    ssize_t bytes = read(fd, key, sizeof key);
    close(fd);
    if (info.st_mode & 077) {
        return refuse(ret_text, "%s: others may read it; run 'chmod 600 %s'", path, path);
    }
    if (bytes != 32) {
        return refuse(ret_text, "%s: is not a cluster key of 32 bytes; restore it from the backup", path);
    }
    memcpy(ret_key, key, 32);
    explicit_bzero(key, sizeof key);
    return ERR_OK;
}

/* The two files must speak of one cluster. Their nodes may differ: the bootstrap names the first members, for good. */
static enum err check_together(const char *path, const char *bootstrap_path, const struct metad_config *config,
                               char *ret_text)
{
    const struct bootstrap *bootstrap = &config->bootstrap;
    if (memcmp(&bootstrap->cluster, &config->cluster, sizeof config->cluster) != 0 ||
        bootstrap->cluster_incarnation != config->cluster_incarnation) {
        return refuse(ret_text, "%s: is of another cluster or incarnation than %s", bootstrap_path, path);
    }
    return ERR_OK;
}

struct config_paths {
    char *role, *cluster, *listen, *advertise, *cluster_key, *bootstrap;
    struct config_strings metads;
};

/* Where others reach it; unless said, as 'metads' says. */
static enum err take_advertise(const char *path, const char *advertise, struct metad_config *config, char *ret_text)
{
    char host[METAD_HOST_BYTES];
    uint16_t port = 0;
    for (uint32_t i = 0; i < config->metad_count; i++) {
        const struct metad_peer *peer = &config->metads[i];
        if (peer->node == config->node) {
            snprintf(config->advertise, sizeof config->advertise, "%s:%u", peer->host, peer->port);
        }
    }
    if (advertise == NULL) {
        return ERR_OK;
    }
    if (!metad_address_parse(advertise, host, &port) || port == 0) {
        return refuse(ret_text, "%s: 'advertise' must be HOST:PORT, where others reach this node", path);
    }
    snprintf(config->advertise, sizeof config->advertise, "%s:%u", host, port);
    return ERR_OK;
}

static enum err take_config(const char *path, const struct config_paths *paths, struct metad_config *config,
                            char *ret_text)
{
    if (strcmp(paths->role, "metad") != 0) {
        return refuse(ret_text, "%s: role is '%s'; this program takes a file with role = \"metad\"", path, paths->role);
    }
    if (!hex_decode(paths->cluster, sizeof config->cluster, &config->cluster)) {
        return refuse(ret_text, "%s: 'cluster' must be 32 hexadecimal digits", path);
    }
    if (!metad_address_parse(paths->listen, config->host, &config->port)) {
        return refuse(ret_text, "%s: 'listen' must be HOST:PORT", path);
    }
    enum err err = take_peers(path, &paths->metads, config, ret_text);
    if (err == ERR_OK) {
        err = take_advertise(path, paths->advertise, config, ret_text);
    }
    if (err == ERR_OK) {
        err = read_bootstrap(paths->bootstrap, &config->bootstrap, ret_text);
    }
    if (err == ERR_OK) {
        err = check_together(path, paths->bootstrap, config, ret_text);
    }
    if (err == ERR_OK) {
        err = read_cluster_key(paths->cluster_key, config->cluster_key, ret_text);
    }
    return err;
}

enum err metad_config_read(const char *path, struct metad_config *ret_config, char *ret_text)
{
    struct metad_config config = {0};
    struct config_paths paths = {0};
    int64_t node = 0, incarnation = 0, groups = 2, max_connections = 0, drain_seconds = DRAIN_SECONDS;
    int64_t loops = 0, workers = 0, flush_entries = 0, keep_entries = 0;
    const struct config_key kept[] = {
        {"ca", CONFIG_STRING, true, &config.ca, 0, 0},     {"cert", CONFIG_STRING, true, &config.cert, 0, 0},
        {"key", CONFIG_STRING, true, &config.key, 0, 0},   {"log", CONFIG_STRING, false, &config.log, 0, 0},
        {"data", CONFIG_STRING, true, &config.data, 0, 0},
    };
    const struct config_key passing[] = {
        {"role", CONFIG_STRING, true, &paths.role, 0, 0},
        {"cluster", CONFIG_STRING, true, &paths.cluster, 0, 0},
        {"listen", CONFIG_STRING, true, &paths.listen, 0, 0},
        {"advertise", CONFIG_STRING, false, &paths.advertise, 0, 0},
        {"cluster_key", CONFIG_STRING, true, &paths.cluster_key, 0, 0},
        {"bootstrap", CONFIG_STRING, true, &paths.bootstrap, 0, 0},
        {"metads", CONFIG_STRINGS, true, &paths.metads, 0, 0},
        {"node", CONFIG_INTEGER, true, &node, 1, UINT32_MAX},
        {"cluster_incarnation", CONFIG_INTEGER, true, &incarnation, 1, INT64_MAX},
        {"groups", CONFIG_INTEGER, false, &groups, 1, LIMIT_GROUPS},
        {"loops", CONFIG_INTEGER, false, &loops, 1, RUNTIME_THREADS_MAX},
        {"workers", CONFIG_INTEGER, false, &workers, 1, RUNTIME_THREADS_MAX},
        {"max_connections", CONFIG_INTEGER, false, &max_connections, METAD_CONNECTIONS_MIN, RUNTIME_CONNECTIONS_MAX},
        {"drain_seconds", CONFIG_INTEGER, false, &drain_seconds, 0, LIMIT_DRAIN_SECONDS},
        {"flush_entries", CONFIG_INTEGER, false, &flush_entries, 1, METAD_ENTRIES_MAX},
        {"keep_entries", CONFIG_INTEGER, false, &keep_entries, 1, METAD_ENTRIES_MAX},
    };
    enum { KEPT = sizeof kept / sizeof kept[0], PASSING = sizeof passing / sizeof passing[0] };
    struct config_key keys[KEPT + PASSING];
    memcpy(keys, kept, sizeof kept);
    memcpy(keys + KEPT, passing, sizeof passing);
    enum err err = config_read(path, keys, KEPT + PASSING, ret_text);
    if (err == ERR_OK) {
        config.node = (uint32_t)node;
        config.cluster_incarnation = (uint64_t)incarnation;
        config.groups = (uint32_t)groups;
        config.max_connections = (uint32_t)max_connections;
        config.drain_seconds = (uint32_t)drain_seconds;
        config.flush_entries = (uint32_t)flush_entries;
        config.keep_entries = (uint32_t)keep_entries;
        config.loops = loops > 0 ? (uint32_t)loops : runtime_loops_default();
        config.workers = workers > 0 ? (uint32_t)workers : runtime_workers_default(config.loops);
        err = take_config(path, &paths, &config, ret_text);
    }
    config_free(passing, PASSING);
    if (err != ERR_OK) {
        metad_config_deinit(&config);
        return err;
    }
    uint64_t recovered = metad_directory_incarnation(config.data);
    if (incarnation_is_newer(recovered, config.cluster_incarnation)) {
        config.cluster_incarnation = config.bootstrap.cluster_incarnation = recovered;
    }
    *ret_config = config;
    return ERR_OK;
}

enum err metad_config_fixed(const struct metad_config *old, const struct metad_config *fresh, const char *path,
                            char *ret_text)
{
    const struct {
        const char *key;
        bool same;
    } rows[] = {
        {"node", old->node == fresh->node},
        {"cluster", memcmp(&old->cluster, &fresh->cluster, sizeof old->cluster) == 0},
        {"cluster_incarnation", old->cluster_incarnation == fresh->cluster_incarnation},
        {"listen", strcmp(old->host, fresh->host) == 0 && old->port == fresh->port},
        {"advertise", strcmp(old->advertise, fresh->advertise) == 0},
        {"data", strcmp(old->data, fresh->data) == 0},
        {"groups", old->groups == fresh->groups},
        {"loops", old->loops == fresh->loops},
        {"workers", old->workers == fresh->workers},
        {"drain_seconds", old->drain_seconds == fresh->drain_seconds},
        {"flush_entries", old->flush_entries == fresh->flush_entries},
        {"keep_entries", old->keep_entries == fresh->keep_entries},
        {"cluster_key", memcmp(old->cluster_key, fresh->cluster_key, sizeof old->cluster_key) == 0},
        {"bootstrap", memcmp(&old->bootstrap, &fresh->bootstrap, sizeof old->bootstrap) == 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!rows[i].same) {
            return refuse(ret_text, "%s: '%s' is another than at the start; restart the node for that", path,
                          rows[i].key);
        }
    }
    return ERR_OK;
}

void metad_config_deinit(struct metad_config *config)
{
    free(config->ca);
    free(config->cert);
    free(config->key);
    free(config->log);
    free(config->data);
    explicit_bzero(config, sizeof *config);
}
