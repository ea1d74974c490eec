/* Ordered key-value: a read view, a write batch, and an overlay whose reads see the batch being built.
 * Production: RocksDB without its WAL (io/kv.c). Simulation: a map with flush points (tests/sim/). A core never knows
 * which.
 *
 * Values come back as slices the caller drops. Keys are byte strings, compared like memcmp, shorter first. */
#ifndef CAIRN_BASE_KV_H
#define CAIRN_BASE_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "err.h"
#include "slice.h"

#define KV_KEY_BYTES 1024 /* longest key */

/* Order of two keys, like memcmp, shorter first: below, equal to or above zero. Keys are short and alike at the front:
 * eight bytes at a time, without a call. */
static inline int kv_key_compare(const void *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    const uint8_t *x = a, *y = b;
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes, i = 0;
    for (; i + 8 <= common; i += 8) {
        uint64_t p = get_be64(x + i), q = get_be64(y + i);
        if (p != q) {
            return p < q ? -1 : 1;
        }
    }
    for (; i < common; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

struct kv_view;

/* The only function pointers a core holds. */
struct kv_view_ops {
    /* ERR_OK with the value, ERR_NOT_FOUND, ERR_WOULD_BLOCK (cache-only tier), or a fatal error. */
    enum err (*get)(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value);
    /* The first pair with key >= `from` (>: when `after`). Key and value are new slices. ERR_NOT_FOUND at the end. */
    enum err (*next)(struct kv_view *view, const void *from, size_t from_bytes, bool after, struct slice *ret_key,
                     struct slice *ret_value);
    /* The last pair with key < `before`. */
    enum err (*prev)(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                     struct slice *ret_value);
    /* False: the disk under it is short of space, and commits that can be refused should be. NULL: always room. */
    bool (*room)(struct kv_view *view);
};
struct kv_view {
    const struct kv_view_ops *ops;
};

MUST_CHECK enum err kv_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value);
MUST_CHECK enum err kv_next(struct kv_view *view, const void *from, size_t from_bytes, bool after,
                            struct slice *ret_key, struct slice *ret_value);
MUST_CHECK enum err kv_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                            struct slice *ret_value);

bool kv_room(struct kv_view *view);

/* A batch of puts and deletes, ordered by key, one entry a key (the last wins). */
struct kv_batch;
struct kv_entry {
    struct slice key;
    struct slice value;
    bool deleted;
};
struct kv_batch *kv_batch_create(void);
void kv_batch_destroy(struct kv_batch *batch);
void kv_batch_put(struct kv_batch *batch, const void *key, size_t key_bytes, const void *value, size_t value_bytes);
void kv_batch_delete(struct kv_batch *batch, const void *key, size_t key_bytes);
/* Moves the entries of `from` (given) into the batch, where they win over those that are there. */
void kv_batch_merge(struct kv_batch *batch, struct kv_batch *from);
size_t kv_batch_count(const struct kv_batch *batch);
/* Of all keys and values. */
uint64_t kv_batch_bytes(const struct kv_batch *batch);
/* The entry of `key`, or NULL. Borrowed until the next change of the batch. */
const struct kv_entry *kv_batch_find(const struct kv_batch *batch, const void *key, size_t key_bytes);
/* The first entry with key >= from (> when `after`), or NULL; the last with key < before, or NULL. Borrowed likewise.
 */
const struct kv_entry *kv_batch_next(const struct kv_batch *batch, const void *from, size_t from_bytes, bool after);
const struct kv_entry *kv_batch_prev(const struct kv_batch *batch, const void *before, size_t before_bytes);
/* The entry after one of a batch, or NULL: a walk without searching. */
const struct kv_entry *kv_entry_next(const struct kv_entry *entry);

/* Packed pairs: u32 key bytes, u32 value bytes, key, value, one after the other. What KV_SCAN gives. */
#define KV_PAIR_HEADER_BYTES 8
void kv_pair_put(struct writer *writer, struct slice key, struct slice value);
/* The next pair, borrowed from what is read. BAD_PROTO when it is malformed or its key longer than KV_KEY_BYTES. */
MUST_CHECK enum err kv_pair_get(struct reader *reader, struct slice *ret_key, struct slice *ret_value);

/* A view that reads the batch first and `under` behind it. Both are borrowed and must outlive it. */
struct kv_overlay {
    struct kv_view view;
    struct kv_batch *batch;
    struct kv_view *under;
};
void kv_overlay_init(struct kv_overlay *overlay, struct kv_batch *batch, struct kv_view *under);

#endif
