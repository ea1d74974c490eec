/* The simulated key-value store (kv.h): two sorted arrays, what is visible and what is durable, and between them the
 * batches that are not flushed. */
#include "kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct pair {
    struct slice key, value;
};

struct map {
    struct pair *pairs; /* ascending by key */
    unsigned long count, capacity;
};

struct sim_kv {
    struct kv_view view; /* first: a view is its store */
    struct rng rng;
    struct kv_knobs knobs;
    struct map visible, durable;
    struct kv_batch **batches; /* committed, not in `durable` */
    unsigned long batch_count, batch_capacity;
    uint64_t first;     /* number of batches[0]; commits count from 0 */
    uint64_t requested; /* commits that a requested flush covers */
};

static int key_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    size_t shorter = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = shorter ? memcmp(a, b, shorter) : 0;
    return order ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

/* First position with key >= `key` (> when after). */
static unsigned long map_seek(const struct map *map, const void *key, size_t bytes, bool after)
{
    unsigned long low = 0, high = map->count;
    while (low < high) {
        unsigned long mid = low + (high - low) / 2;
        int order = key_compare(map->pairs[mid].key.data, map->pairs[mid].key.bytes, key, bytes);
        if (order < 0 || (after && order == 0)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static bool map_has(const struct map *map, unsigned long at, const void *key, size_t bytes)
{
    return at < map->count && key_compare(map->pairs[at].key.data, map->pairs[at].key.bytes, key, bytes) == 0;
}

static void map_remove(struct map *map, unsigned long at)
{
    slice_drop(&map->pairs[at].key);
    slice_drop(&map->pairs[at].value);
    memmove(&map->pairs[at], &map->pairs[at + 1], (map->count - at - 1) * sizeof *map->pairs);
    map->count--;
}

static void map_put(struct map *map, const struct kv_entry *entry)
{
    unsigned long at = map_seek(map, entry->key.data, entry->key.bytes, false);
    if (map_has(map, at, entry->key.data, entry->key.bytes)) {
        slice_drop(&map->pairs[at].value);
        map->pairs[at].value = slice_copy(entry->value.data, entry->value.bytes);
        return;
    }
    map->pairs = mem_grow(map->pairs, &map->capacity, map->count + 1, sizeof *map->pairs);
    memmove(&map->pairs[at + 1], &map->pairs[at], (map->count - at) * sizeof *map->pairs);
    map->pairs[at] =
        (struct pair){slice_copy(entry->key.data, entry->key.bytes), slice_copy(entry->value.data, entry->value.bytes)};
    map->count++;
}

static void map_apply(struct map *map, const struct kv_batch *batch)
{
    const struct kv_entry *entry = kv_batch_next(batch, "", 0, false);
    while (entry != NULL) {
        if (entry->deleted) {
            unsigned long at = map_seek(map, entry->key.data, entry->key.bytes, false);
            if (map_has(map, at, entry->key.data, entry->key.bytes)) {
                map_remove(map, at);
            }
        } else {
            map_put(map, entry);
        }
        entry = kv_batch_next(batch, entry->key.data, entry->key.bytes, true);
    }
}

static void map_clear(struct map *map)
{
    for (unsigned long i = 0; i < map->count; i++) {
        slice_drop(&map->pairs[i].key);
        slice_drop(&map->pairs[i].value);
    }
    free(map->pairs);
    *map = (struct map){0};
}

static bool kv_blocks(struct sim_kv *kv)
{
    return rng_chance(&kv->rng, kv->knobs.would_block_ppm);
}

static enum err view_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct sim_kv *kv = (struct sim_kv *)view;
    if (kv_blocks(kv)) {
        return ERR_WOULD_BLOCK;
    }
    unsigned long at = map_seek(&kv->visible, key, key_bytes, false);
    if (!map_has(&kv->visible, at, key, key_bytes)) {
        return ERR_NOT_FOUND;
    }
    *ret_value = slice_copy(kv->visible.pairs[at].value.data, kv->visible.pairs[at].value.bytes);
    return ERR_OK;
}

static void pair_out(const struct pair *pair, struct slice *ret_key, struct slice *ret_value)
{
    *ret_key = slice_copy(pair->key.data, pair->key.bytes);
    *ret_value = slice_copy(pair->value.data, pair->value.bytes);
}

static enum err view_next(struct kv_view *view, const void *from, size_t from_bytes, bool after, struct slice *ret_key,
                          struct slice *ret_value)
{
    struct sim_kv *kv = (struct sim_kv *)view;
    if (kv_blocks(kv)) {
        return ERR_WOULD_BLOCK;
    }
    unsigned long at = map_seek(&kv->visible, from, from_bytes, after);
    if (at == kv->visible.count) {
        return ERR_NOT_FOUND;
    }
    pair_out(&kv->visible.pairs[at], ret_key, ret_value);
    return ERR_OK;
}

static enum err view_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                          struct slice *ret_value)
{
    struct sim_kv *kv = (struct sim_kv *)view;
    if (kv_blocks(kv)) {
        return ERR_WOULD_BLOCK;
    }
    unsigned long at = map_seek(&kv->visible, before, before_bytes, false);
    if (at == 0) {
        return ERR_NOT_FOUND;
    }
    pair_out(&kv->visible.pairs[at - 1], ret_key, ret_value);
    return ERR_OK;
}

static const struct kv_view_ops sim_kv_ops = {view_get, view_next, view_prev};

struct sim_kv *sim_kv_create(struct rng rng)
{
    struct sim_kv *kv = mem_alloc(sizeof *kv);
    kv->view.ops = &sim_kv_ops;
    kv->rng = rng;
    return kv;
}

static void kv_forget_batches(struct sim_kv *kv)
{
    for (unsigned long i = 0; i < kv->batch_count; i++) {
        kv_batch_destroy(kv->batches[i]);
    }
    kv->first += kv->batch_count;
    kv->batch_count = 0;
}

void sim_kv_destroy(struct sim_kv *kv)
{
    kv_forget_batches(kv);
    free(kv->batches);
    map_clear(&kv->visible);
    map_clear(&kv->durable);
    free(kv);
}

struct kv_knobs *sim_kv_knobs(struct sim_kv *kv)
{
    return &kv->knobs;
}

struct kv_view *sim_kv_view(struct sim_kv *kv)
{
    return &kv->view;
}

void sim_kv_commit(struct sim_kv *kv, struct kv_batch *batch)
{
    map_apply(&kv->visible, batch);
    kv->batches = mem_grow(kv->batches, &kv->batch_capacity, kv->batch_count + 1, sizeof *kv->batches);
    kv->batches[kv->batch_count++] = batch;
}

uint64_t sim_kv_flush(struct sim_kv *kv)
{
    kv->requested = kv->first + kv->batch_count;
    return kv->requested;
}

void sim_kv_flushed(struct sim_kv *kv, uint64_t flush)
{
    CHECK(flush <= kv->first + kv->batch_count);
    unsigned long done = 0;
    for (; kv->first < flush; kv->first++, done++) {
        map_apply(&kv->durable, kv->batches[done]);
        kv_batch_destroy(kv->batches[done]);
    }
    if (done > 0) {
        memmove(kv->batches, kv->batches + done, (kv->batch_count - done) * sizeof *kv->batches);
        kv->batch_count -= done;
    }
}

void sim_kv_crash(struct sim_kv *kv)
{
    uint64_t newest = kv->knobs.spontaneous ? kv->first + kv->batch_count : kv->requested;
    uint64_t to = newest > kv->first ? rng_between(&kv->rng, kv->first, newest) : kv->first;
    sim_kv_flushed(kv, to);
    kv_forget_batches(kv);
    kv->requested = kv->first;
    map_clear(&kv->visible);
    kv->visible.pairs = mem_grow(NULL, &kv->visible.capacity, kv->durable.count + 1, sizeof *kv->visible.pairs);
    for (unsigned long i = 0; i < kv->durable.count; i++) {
        pair_out(&kv->durable.pairs[i], &kv->visible.pairs[i].key, &kv->visible.pairs[i].value);
    }
    kv->visible.count = kv->durable.count;
}

void sim_kv_drop(struct sim_kv *kv)
{
    kv_forget_batches(kv);
    kv->requested = kv->first;
    map_clear(&kv->visible);
    map_clear(&kv->durable);
}

uint32_t sim_kv_unflushed(const struct sim_kv *kv)
{
    return (uint32_t)kv->batch_count;
}
