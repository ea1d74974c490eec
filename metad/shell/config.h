/* What a metadata node is told at its start: its configuration file, the cluster's bootstrap file and the cluster key,
 * read and checked together before anything is opened. Keys of the files: config.c. */
#ifndef CAIRN_METAD_SHELL_CONFIG_H
#define CAIRN_METAD_SHELL_CONFIG_H

#include <stdint.h>

#include "base/config.h"
#include "metad/metad.h"

#define METAD_TEXT_BYTES  1024
#define METAD_HOST_BYTES  64
#define METAD_ENTRIES_MAX 1000000

struct metad_peer {
    uint32_t node;
    uint16_t port;
    char host[METAD_HOST_BYTES];
};

struct metad_config {
    uint32_t node;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    char host[METAD_HOST_BYTES]; /* listen */
    uint16_t port;
    char advertise[METAD_HOST_BYTES + 8]; /* HOST:PORT where others reach it */
    uint32_t groups;
    uint32_t loops, workers; /* threads: of the network and the groups; of compute */
    uint32_t drain_seconds;
    uint32_t flush_entries, keep_entries;         /* 0: the usual (metad.h) */
    uint32_t max_connections;                     /* 0: the runtime's own limit */
    struct metad_peer metads[LIMIT_RAFT_MEMBERS]; /* this node among them */
    uint32_t metad_count;
    char *ca, *cert, *key, *log, *data;
    struct bootstrap bootstrap;
    uint8_t cluster_key[32];
};

/* Takes "HOST:PORT" apart; false when it is anything else. */
bool metad_address_parse(const char *text, char ret_host[METAD_HOST_BYTES], uint16_t *ret_port);
/* CONFIG with the file and the next step in ret_text (METAD_TEXT_BYTES). */
MUST_CHECK enum err metad_config_read(const char *path, struct metad_config *ret_config, char *ret_text);
/* CONFIG, with the key's name, when `fresh` (read from `path`) differs from `old` in what cannot change while the node
 * runs: all but ca, cert, key, log, metads' addresses and max_connections. */
MUST_CHECK enum err metad_config_fixed(const struct metad_config *old, const struct metad_config *fresh,
                                       const char *path, char *ret_text);
/* Frees the strings and wipes the key. */
void metad_config_deinit(struct metad_config *config);

/* The identity of a data directory, DIR/directory: made at the first start, checked at each later one. NOT_OURS when it
 * belongs to another node or cluster, or when data lie there without it. DIR must be locked by the caller. */
MUST_CHECK enum err metad_directory_identity(const struct metad_config *config, struct uuid *ret_uuid, char *ret_text);
/* Writes down durably, in DIR/boots, that a process with a new random number begins, and returns the last ones of the
 * directory, this one at the end (R-E3). Count 0: the disk is full and nothing is remembered. */
MUST_CHECK enum err metad_directory_boot(const char *dir, uint64_t ret_boots[LIMIT_LOG_BOOTS], uint32_t *ret_count,
                                         char *ret_text);
/* The incarnation of the cluster that DIR/directory names; 0 where there is none to read. */
uint64_t metad_directory_incarnation(const char *dir);

/* A recovery from a lost majority (recover.c) leaves DIR/recovery while it is under way: false where there is none,
 * else the incarnation it goes to; 0 when that cannot be read. */
bool metad_recovery_begun(const char *dir, uint64_t *ret_incarnation);
MUST_CHECK enum err metad_recovery_begin(const char *dir, uint64_t incarnation, char *ret_text);
/* DIR/directory is of that incarnation from now on, DIR/recovery is gone. */
MUST_CHECK enum err metad_recovery_end(const struct metad_config *config, const struct uuid *uuid, uint64_t incarnation,
                                       char *ret_text);

#endif
