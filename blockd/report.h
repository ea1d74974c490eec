/* What agent and stores tell each other inside a blockd, packed little-endian.
 *
 * STORE_STATE, agent to store:  u32 store number, u64 incarnation, 32 B receipt key, u64 tick, then a ClusterMap
 *                               (protobuf; none: the map is as it was).
 * STORE_REPORT, store to agent: u32 position, u8 ready, 16 B uuid, u64 incarnation, u64 last durable record,
 *                               u64 used bytes, u64 capacity bytes, u64 map epoch, then the counters as u64:
 * submissions, submitted, syncs, synced shards, synced bytes, shards, refused, corrupt, rebuilt. */
#ifndef CAIRN_BLOCKD_REPORT_H
#define CAIRN_BLOCKD_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/slice.h"

struct store_state {
    uint32_t store;
    uint64_t incarnation;
    uint8_t receipt_key[32];
    uint64_t tick;
    struct slice map; /* borrowed from the header that was decoded */
};

struct store_counters {
    uint64_t submissions, submitted, syncs, synced_shards, synced_bytes, shards, refused, corrupt, rebuilt;
};

struct store_report {
    uint32_t position;
    bool ready; /* recovered: last_record and used_bytes are true */
    struct uuid uuid;
    uint64_t incarnation;
    uint64_t last_record;
    uint64_t used_bytes;
    uint64_t capacity_bytes;
    uint64_t map_epoch;
    struct store_counters counters;
};

struct slice store_state_encode(const struct store_state *state);
/* INVALID when it is too short. */
MUST_CHECK enum err store_state_decode(struct slice header, struct store_state *ret_state);
struct slice store_report_encode(const struct store_report *report);
MUST_CHECK enum err store_report_decode(struct slice header, struct store_report *ret_report);

#endif
