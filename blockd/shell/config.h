/* What a block server is told at its start: its configuration file, read and checked before anything is opened; and the
 * identity of each store's directory. Keys of the file: config.c. */
#ifndef CAIRN_BLOCKD_SHELL_CONFIG_H
#define CAIRN_BLOCKD_SHELL_CONFIG_H

#include <stdint.h>

#include "base/config.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/slice.h"

#define BLOCKD_TEXT_BYTES 1024
#define BLOCKD_HOST_BYTES 64
#define BLOCKD_STORES_MAX 64u

struct blockd_peer {
    uint32_t node;
    uint16_t port;
    char host[BLOCKD_HOST_BYTES];
};

struct blockd_config {
    uint32_t node;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    char listen_host[BLOCKD_HOST_BYTES];
    uint16_t listen_port;
    char advertise[BLOCKD_HOST_BYTES + 8]; /* HOST:PORT where others reach it; empty: as it listens */
    char *host, *rack;                     /* failure domains */
    char *ca, *cert, *key, *log;
    struct blockd_peer metads[LIMIT_RAFT_MEMBERS];
    uint32_t metad_count;
    struct config_strings stores; /* a directory each */
    uint64_t capacity_bytes;      /* of each store */
    uint32_t loops, workers;      /* threads: of the network beside one a store; of compute */
    uint32_t drain_seconds;
    uint32_t max_connections; /* 0: the runtime's own limit */
};

/* Takes "HOST:PORT" apart; false when it is anything else. */
bool blockd_address_parse(const char *text, char ret_host[BLOCKD_HOST_BYTES], uint16_t *ret_port);

/* CONFIG with the file and the next step in ret_text (BLOCKD_TEXT_BYTES). */
MUST_CHECK enum err blockd_config_read(const char *path, struct blockd_config *ret_config, char *ret_text);
/* CONFIG, with the key's name, when `fresh` (read from `path`) differs from `old` in what cannot change while the
 * server runs: all but ca, cert, key, log, metads' addresses and max_connections. */
MUST_CHECK enum err blockd_config_fixed(const struct blockd_config *old, const struct blockd_config *fresh,
                                        const char *path, char *ret_text);
void blockd_config_deinit(struct blockd_config *config);

/* Who a store's directory is: a random uuid and incarnation, made at the first start in DIR/store (0600), checked at
 * each later one. */
struct store_identity {
    struct uuid uuid;
    uint64_t incarnation;
};
/* NOT_OURS when DIR belongs to another cluster or node, or holds segments without the file. DIR is locked by the
 * caller. */
MUST_CHECK enum err store_identity_open(const struct blockd_config *config, const char *dir,
                                        struct store_identity *ret_identity, char *ret_text);

/* DIR/incarnation: the cluster's, as a metadata node said after a recovery (R-A10); 0: none was kept, that of the
 * configuration holds. */
uint64_t store_incarnation_read(const char *dir);
MUST_CHECK enum err store_incarnation_write(const char *dir, uint64_t incarnation);

/* Writes path.new (0600), syncs it, renames it to path and syncs the directory; false with errno set. */
bool write_durably(const char *dir, const char *path, const void *bytes, size_t count);

/* What the cluster told a store, kept in DIR/standing (0600; it holds the receipt key, R-F7). */
/* NOT_FOUND when there is none; CORRUPT when it is not whole. The caller drops the slice. */
MUST_CHECK enum err standing_read(const char *dir, struct slice *ret_standing);
MUST_CHECK enum err standing_write(const char *dir, struct slice standing);

#endif
