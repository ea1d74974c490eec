/* The block server's cores: the agent (one a node: registers stores, heartbeats, keeps the newest map and keys) and the
 * store (one a disk: segments, index, shards, receipts). Only messages join them.
 *
 * A store keeps shards in append-only segment files and an index in the key-value view it is given (namespaced by no
 * prefix: one database a store). See blockd/README.md for the format and rules. */
#ifndef CAIRN_BLOCKD_BLOCKD_H
#define CAIRN_BLOCKD_BLOCKD_H

#include "base/effect.h"
#include "base/ids.h"
#include "base/kv.h"
#include "base/limits.h"

struct store_params {
    uint32_t position; /* store actor index on this node */
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    struct uuid uuid;     /* made with the directory */
    uint64_t incarnation; /* made with the directory */
    uint64_t capacity_bytes;
    uint32_t segment_bytes;        /* LIMIT_STORE_SEGMENT_BYTES; less in simulation */
    const struct file_info *files; /* FILE_SEGMENT files found, ascending */
    uint32_t file_count;
    struct kv_view *kv; /* borrowed */
    bool rebuild_index; /* the index was dropped: scan everything */
};
struct store;
struct store *store_create(const struct store_params *params);
void store_destroy(struct store *store);
actor_step store_step;

/* Requests refused since the start, by reason: ERR_LIMIT counts. On the store's thread. */
const uint64_t *store_refused(const struct store *store);

/* What repair has done (repair.h), for the log. On the store's thread. */
struct store_repair {
    uint64_t passes;  /* ended */
    uint64_t rebuilt; /* shards stored since the start */
    uint64_t missing; /* of the last pass: shards that could not be made yet */
    uint64_t refused; /* since the start: shards whose sources contradict each other */
};
struct store_repair store_repair_state(const struct store *store);

/* Digest over the index (SHA-256 over its sorted pairs but for bookkeeping keys): equal before and after a rebuild.
 * All zero when the index cannot be read. */
struct sha256 store_index_digest(struct kv_view *kv);

struct agent_params {
    uint32_t node;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    const char *address, *host, *rack; /* borrowed */
    uint32_t store_count;
    uint32_t metads[LIMIT_METADS_KNOWN];
    uint32_t metad_count;
    uint64_t heartbeat_ns; /* 1 s */
};
struct agent;
struct agent *agent_create(const struct agent_params *params);
void agent_destroy(struct agent *agent);
/* What the shell counts of a store's disk, for the next heartbeat. On the agent's thread. */
void agent_note_disk(struct agent *agent, uint32_t position, uint64_t submissions, uint64_t submitted);
/* What the whole node refused so far, by reason (ERR_LIMIT counts), for the next heartbeat. On the agent's thread. */
void agent_note_refused(struct agent *agent, const uint64_t *refused);
/* The newest map, packed (borrowed until the next step; empty: none yet), and its epoch. On the agent's thread. */
struct slice agent_map(const struct agent *agent, uint64_t *ret_epoch);
/* What a store is to the cluster (R-F7): number, incarnation, receipt key, map and tick, packed; it holds the key, so
 * it is a secret. Empty before the first registration. The caller drops the slice. agent_standing_changes counts how
 * often it has changed, ticks left out: 0 before the first. */
struct slice agent_standing(const struct agent *agent, uint32_t position);
uint64_t agent_standing_changes(const struct agent *agent, uint32_t position);
/* Before the first step: what agent_standing said before the server ended, so that the store serves before the root
 * group answers. BAD_PROTO or WRONG_CLUSTER when it is not that; then nothing is believed. */
MUST_CHECK enum err agent_recall(struct agent *agent, uint32_t position, struct slice standing);
actor_step agent_step;

#endif
