/* A simulated key-value store: what RocksDB without its log is to a core. Commits are visible at once and durable with
 * the next flush. A crash (of the process or of the power: the memory is gone either way) returns to any state between
 * the last completed and the last requested flush, in whole batches; with `spontaneous`, to any up to the newest
 * commit, as a store does that flushes when its memory is full. */
#ifndef CAIRN_SIM_KV_H
#define CAIRN_SIM_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "base/kv.h"
#include "rng.h"

struct sim_kv;

struct kv_knobs {
    uint32_t would_block_ppm; /* a read answers WOULD_BLOCK */
    bool spontaneous;
};

struct sim_kv *sim_kv_create(struct rng rng);
void sim_kv_destroy(struct sim_kv *kv);
struct kv_knobs *sim_kv_knobs(struct sim_kv *kv);
struct kv_view *sim_kv_view(struct sim_kv *kv);
/* Applies a batch, given. */
void sim_kv_commit(struct sim_kv *kv, struct kv_batch *batch);
/* Asks for a flush of all commits so far; the returned number goes to sim_kv_flushed when it is done. */
uint64_t sim_kv_flush(struct sim_kv *kv);
void sim_kv_flushed(struct sim_kv *kv, uint64_t flush);
void sim_kv_crash(struct sim_kv *kv);
/* What a key holds in the state of the last completed flush, which no crash takes back; a reference, empty where it
 * holds nothing. */
struct slice sim_kv_flushed_get(const struct sim_kv *kv, const void *key, size_t key_bytes);
/* Packed pairs (base/kv.h) of [from, end) in the state that `owner` pinned under `pin`: now, when it was not. At most
 * `bytes` of them, at least one; a new slice, empty at the end. A crash ends all pins. */
struct slice sim_kv_scan(struct sim_kv *kv, uint64_t owner, uint64_t pin, struct slice from, struct slice end,
                         uint64_t bytes);
void sim_kv_unpin(struct sim_kv *kv, uint64_t owner, uint64_t pin);
/* Forgets everything, as a dropped database. */
void sim_kv_drop(struct sim_kv *kv);
/* All of it as a backup would read it after a crash; and back in the place of what is there. A copy NULL: nothing. */
struct sim_kv_copy;
struct sim_kv_copy *sim_kv_copy_take(const struct sim_kv *kv);
void sim_kv_copy_put(struct sim_kv *kv, const struct sim_kv_copy *copy);
void sim_kv_copy_free(struct sim_kv_copy *copy);
/* Commits that are not durable for certain. */
uint32_t sim_kv_unflushed(const struct sim_kv *kv);

#endif
