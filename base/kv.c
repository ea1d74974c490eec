/* Write batch and overlay. The batch is a skip list ordered like memcmp, one entry a key; the overlay merges it over a
 * view, so that a mutation reads what earlier ones of the same batch wrote. Heights come from a generator of the
 * batch's own, seeded alike each time: the same calls build the same list. A node is one allocation with its key and a
 * value that is not large: a batch of many small pairs costs an allocation each. Source: Pugh, Skip Lists, 1990. */
#include "kv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define BATCH_LEVELS    16
#define NODE_VALUE_MOST 512 /* a larger value has a buffer of its own */

struct batch_node {
    struct kv_entry entry; /* borrowed from behind the links, but for a value with a buffer */
    uint32_t value_room;   /* bytes behind the key */
    uint32_t height;
    struct batch_node *next[]; /* as many as the node is high; the key; room for a value */
};

struct kv_batch {
    size_t count;
    uint64_t bytes; /* of keys and values */
    uint64_t random;
    unsigned levels; /* in use */
    struct batch_node *heads[BATCH_LEVELS];
};

struct kv_batch *kv_batch_create(void)
{
    struct kv_batch *batch = mem_alloc(sizeof *batch);
    batch->random = 0x9e3779b97f4a7c15u;
    return batch;
}

static void node_destroy(struct batch_node *node)
{
    slice_drop(&node->entry.value);
    free(node);
}

void kv_batch_destroy(struct kv_batch *batch)
{
    if (batch == NULL) {
        return;
    }
    for (struct batch_node *node = batch->heads[0]; node != NULL;) {
        struct batch_node *next = node->next[0];
        node_destroy(node);
        node = next;
    }
    free(batch);
}

/* A quarter of the nodes of each level reach the next one. */
static unsigned batch_height(struct kv_batch *batch)
{
    batch->random ^= batch->random << 13;
    batch->random ^= batch->random >> 7;
    batch->random ^= batch->random << 17;
    uint64_t bits = batch->random;
    unsigned height = 1;
    while (height < BATCH_LEVELS && (bits & 3) == 0) {
        height++;
        bits >>= 2;
    }
    return height;
}

/* Walks to the last node with key < `key` (<=: when `equal`), NULL when there is none. ret_links, unless NULL, gets at
 * each level the pointer that leads past it. */
static struct batch_node *batch_seek(const struct kv_batch *batch, const void *key, size_t key_bytes, bool equal,
                                     struct batch_node ***ret_links)
{
    struct batch_node *at = NULL;
    for (unsigned level = batch->levels; level-- > 0;) {
        struct batch_node *const *links = at != NULL ? at->next : batch->heads;
        for (;;) {
            struct batch_node *next = links[level];
            if (next == NULL) {
                break;
            }
            int order = kv_key_compare(next->entry.key.data, next->entry.key.bytes, key, key_bytes);
            if (order > 0 || (order == 0 && !equal)) {
                break;
            }
            at = next;
            links = at->next;
        }
        if (ret_links != NULL) {
            ret_links[level] = (struct batch_node **)(uintptr_t)&links[level];
        }
    }
    return at;
}

static struct batch_node *node_after(const struct kv_batch *batch, struct batch_node *at)
{
    return at != NULL ? at->next[0] : batch->heads[0];
}

static struct batch_node *node_create(struct kv_batch *batch, const void *key, size_t key_bytes, size_t value_bytes)
{
    unsigned height = batch_height(batch);
    size_t room = value_bytes <= NODE_VALUE_MOST ? value_bytes : 0;
    struct batch_node *node = mem_alloc(sizeof *node + height * sizeof node->next[0] + key_bytes + room);
    uint8_t *at = (uint8_t *)(node->next + height);
    if (key_bytes > 0) {
        memcpy(at, key, key_bytes);
    }
    node->entry.key = slice_borrow(at, key_bytes);
    node->height = height;
    node->value_room = (uint32_t)room;
    return node;
}

/* Links the node in where batch_seek came by. */
static void node_link(struct kv_batch *batch, struct batch_node *node, struct batch_node ***links)
{
    for (; batch->levels < node->height; batch->levels++) {
        links[batch->levels] = &batch->heads[batch->levels];
    }
    for (unsigned level = 0; level < node->height; level++) {
        node->next[level] = *links[level];
        *links[level] = node;
    }
    batch->count++;
    batch->bytes += (uint64_t)node->entry.key.bytes + node->entry.value.bytes;
}

/* The new value may be a part of the old one. */
static void node_set(struct batch_node *node, const void *value, size_t bytes, bool deleted)
{
    struct slice before = node->entry.value;
    if (bytes <= node->value_room) {
        uint8_t *at = node->entry.key.data + node->entry.key.bytes;
        if (bytes > 0) {
            memmove(at, value, bytes);
        }
        node->entry.value = slice_borrow(at, bytes);
    } else {
        node->entry.value = slice_copy(value, bytes);
    }
    node->entry.deleted = deleted;
    slice_drop(&before);
}

static bool node_holds(const struct batch_node *node, const void *key, size_t key_bytes)
{
    return node != NULL && kv_key_compare(node->entry.key.data, node->entry.key.bytes, key, key_bytes) == 0;
}

static void batch_set(struct kv_batch *batch, const void *key, size_t key_bytes, const void *value, size_t value_bytes,
                      bool deleted)
{
    CHECK(key_bytes <= KV_KEY_BYTES);
    struct batch_node **links[BATCH_LEVELS];
    struct batch_node *node = node_after(batch, batch_seek(batch, key, key_bytes, false, links));
    if (node_holds(node, key, key_bytes)) {
        batch->bytes -= node->entry.value.bytes;
        node_set(node, value, value_bytes, deleted);
        batch->bytes += value_bytes;
    } else {
        node = node_create(batch, key, key_bytes, value_bytes);
        node_set(node, value, value_bytes, deleted);
        node_link(batch, node, links);
    }
}

void kv_batch_put(struct kv_batch *batch, const void *key, size_t key_bytes, const void *value, size_t value_bytes)
{
    batch_set(batch, key, key_bytes, value, value_bytes, false);
}

void kv_batch_delete(struct kv_batch *batch, const void *key, size_t key_bytes)
{
    batch_set(batch, key, key_bytes, NULL, 0, true);
}

/* The node takes the place of one with its key. */
static void batch_take(struct kv_batch *batch, struct batch_node *node)
{
    struct batch_node **links[BATCH_LEVELS];
    struct slice key = node->entry.key;
    struct batch_node *old = node_after(batch, batch_seek(batch, key.data, key.bytes, false, links));
    if (node_holds(old, key.data, key.bytes)) {
        for (unsigned level = 0; level < old->height; level++) {
            *links[level] = old->next[level];
        }
        batch->count--;
        batch->bytes -= (uint64_t)old->entry.key.bytes + old->entry.value.bytes;
        node_destroy(old);
    }
    node_link(batch, node, links);
}

void kv_batch_merge(struct kv_batch *batch, struct kv_batch *from)
{
    CHECK(batch != from);
    for (struct batch_node *node = from->heads[0]; node != NULL;) {
        struct batch_node *next = node->next[0];
        batch_take(batch, node);
        node = next;
    }
    free(from);
}

uint64_t kv_batch_bytes(const struct kv_batch *batch)
{
    return batch->bytes;
}

size_t kv_batch_count(const struct kv_batch *batch)
{
    return batch->count;
}

const struct kv_entry *kv_batch_find(const struct kv_batch *batch, const void *key, size_t key_bytes)
{
    const struct kv_entry *entry = kv_batch_next(batch, key, key_bytes, false);
    return entry != NULL && kv_key_compare(entry->key.data, entry->key.bytes, key, key_bytes) == 0 ? entry : NULL;
}

const struct kv_entry *kv_batch_next(const struct kv_batch *batch, const void *from, size_t from_bytes, bool after)
{
    const struct batch_node *node = node_after(batch, batch_seek(batch, from, from_bytes, after, NULL));
    return node != NULL ? &node->entry : NULL;
}

const struct kv_entry *kv_batch_prev(const struct kv_batch *batch, const void *before, size_t before_bytes)
{
    const struct batch_node *node = batch_seek(batch, before, before_bytes, false, NULL);
    return node != NULL ? &node->entry : NULL;
}

const struct kv_entry *kv_entry_next(const struct kv_entry *entry)
{
    static_assert(offsetof(struct batch_node, entry) == 0, "an entry is the beginning of its node");
    const struct batch_node *next = ((const struct batch_node *)(const void *)entry)->next[0];
    return next != NULL ? &next->entry : NULL;
}

enum err kv_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    CHECK(key_bytes <= KV_KEY_BYTES);
    return view->ops->get(view, key, key_bytes, ret_value);
}

enum err kv_next(struct kv_view *view, const void *from, size_t from_bytes, bool after, struct slice *ret_key,
                 struct slice *ret_value)
{
    CHECK(from_bytes <= KV_KEY_BYTES);
    return view->ops->next(view, from, from_bytes, after, ret_key, ret_value);
}

enum err kv_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                 struct slice *ret_value)
{
    CHECK(before_bytes <= KV_KEY_BYTES);
    return view->ops->prev(view, before, before_bytes, ret_key, ret_value);
}

bool kv_room(struct kv_view *view)
{
    return view->ops->room == NULL || view->ops->room(view);
}

static struct kv_overlay *overlay_of(struct kv_view *view)
{
    return (struct kv_overlay *)((char *)view - offsetof(struct kv_overlay, view));
}

static enum err overlay_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct kv_overlay *overlay = overlay_of(view);
    const struct kv_entry *entry = kv_batch_find(overlay->batch, key, key_bytes);
    if (entry == NULL) {
        return kv_get(overlay->under, key, key_bytes, ret_value);
    }
    if (entry->deleted) {
        return ERR_NOT_FOUND;
    }
    *ret_value = slice_keep(entry->value);
    return ERR_OK;
}

static enum err entry_give(const struct kv_entry *entry, struct slice *ret_key, struct slice *ret_value)
{
    *ret_key = slice_keep(entry->key);
    *ret_value = slice_keep(entry->value);
    return ERR_OK;
}

/* Merges in either direction. Both sides stand at their nearest pair beyond the cursor; the nearer one wins, the batch
 * when equal; a deletion moves the cursor onto its key. The pair below is fetched again only when a deletion hid it. */
static enum err overlay_merge(struct kv_overlay *overlay, bool forward, const void *from, size_t from_bytes, bool after,
                              struct slice *ret_key, struct slice *ret_value)
{
    struct slice key = {0};
    struct slice value = {0};
    bool fetch = true;
    enum err err = ERR_OK;
    const struct kv_entry *entry = forward ? kv_batch_next(overlay->batch, from, from_bytes, after)
                                           : kv_batch_prev(overlay->batch, from, from_bytes);
    for (;;) {
        if (fetch) {
            err = forward ? kv_next(overlay->under, from, from_bytes, after, &key, &value)
                          : kv_prev(overlay->under, from, from_bytes, &key, &value);
            if (err != ERR_OK && err != ERR_NOT_FOUND) {
                return err;
            }
            fetch = false;
        }
        int order = -1; /* the batch's is nearer */
        if (entry == NULL) {
            order = 1;
        } else if (err == ERR_OK) {
            order = kv_key_compare(entry->key.data, entry->key.bytes, key.data, key.bytes);
            order = forward ? order : -order;
        }
        if (order > 0) {
            if (err == ERR_OK) {
                *ret_key = key;
                *ret_value = value;
            }
            return err;
        }
        if (order == 0 || !entry->deleted) { /* what lies below is hidden, or not the nearest */
            slice_drop(&key);
            slice_drop(&value);
            fetch = true;
        }
        if (!entry->deleted) {
            return entry_give(entry, ret_key, ret_value);
        }
        from = entry->key.data;
        from_bytes = entry->key.bytes;
        after = true;
        entry = forward ? kv_entry_next(entry) : kv_batch_prev(overlay->batch, from, from_bytes);
    }
}

static enum err overlay_next(struct kv_view *view, const void *from, size_t from_bytes, bool after,
                             struct slice *ret_key, struct slice *ret_value)
{
    return overlay_merge(overlay_of(view), true, from, from_bytes, after, ret_key, ret_value);
}

static enum err overlay_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                             struct slice *ret_value)
{
    return overlay_merge(overlay_of(view), false, before, before_bytes, false, ret_key, ret_value);
}

void kv_overlay_init(struct kv_overlay *overlay, struct kv_batch *batch, struct kv_view *under)
{
    static const struct kv_view_ops ops = {.get = overlay_get, .next = overlay_next, .prev = overlay_prev};
    CHECK(batch != NULL && under != NULL && under != &overlay->view);
    *overlay = (struct kv_overlay){.view = {.ops = &ops}, .batch = batch, .under = under};
}

/* ---- packed pairs ---- */

void kv_pair_put(struct writer *writer, struct slice key, struct slice value)
{
    writer_u32(writer, (uint32_t)key.bytes);
    writer_u32(writer, (uint32_t)value.bytes);
    writer_put(writer, key.data, key.bytes);
    writer_put(writer, value.data, value.bytes);
}

enum err kv_pair_get(struct reader *reader, struct slice *ret_key, struct slice *ret_value)
{
    uint32_t key_bytes = reader_u32(reader), value_bytes = reader_u32(reader);
    if (reader->failed || key_bytes > KV_KEY_BYTES) {
        return ERR_BAD_PROTO;
    }
    const uint8_t *key = reader_take(reader, key_bytes), *value = reader_take(reader, value_bytes);
    if (reader->failed) {
        return ERR_BAD_PROTO;
    }
    *ret_key = slice_borrow(key, key_bytes);
    *ret_value = slice_borrow(value, value_bytes);
    return ERR_OK;
}
