/* The simulated key-value store (kv.h): a treap of what is visible, and for each commit that is not durable what it
 * replaced, so that a crash steps back from the newest state. A node's priority is a hash of its key: the tree's shape
 * depends on nothing else. Source: Seidel, Aragon, Randomized search trees, 1996. */
#include "kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

struct pair {
    uint64_t refs; /* of the tree and of changes */
    struct slice key, value;
};

struct tree_node {
    struct tree_node *left, *right;
    struct pair *pair;
    uint32_t priority, key_bytes;
    uint8_t key[]; /* here too, so that a search touches one place a level */
};

/* One key of one commit; a side is NULL where the key was or became absent. */
struct change {
    uint64_t commit;
    struct pair *before, *after;
};

/* The range of a pinned state, in order. */
struct kv_pin {
    struct kv_pin *next;
    uint64_t owner, number;
    struct pair **pairs;
    unsigned long count, capacity;
};

struct sim_kv {
    struct kv_view view; /* first: a view is its store */
    struct rng rng;
    struct kv_knobs knobs;
    struct tree_node *visible;
    struct change *changes; /* of commits [flushed, committed), in order */
    unsigned long change_count, change_capacity;
    uint64_t flushed;   /* commits that are durable; they count from 0 */
    uint64_t requested; /* commits that a requested flush covers */
    uint64_t committed;
    struct kv_pin *pins;
};

static int node_compare(const struct tree_node *node, const void *key, size_t bytes)
{
    return kv_key_compare(node->key, node->key_bytes, key, bytes);
}

static struct pair *pair_ref(struct pair *pair)
{
    if (pair != NULL) {
        pair->refs++;
    }
    return pair;
}

static void pair_drop(struct pair *pair)
{
    if (pair == NULL || --pair->refs > 0) {
        return;
    }
    slice_drop(&pair->key);
    slice_drop(&pair->value);
    free(pair);
}

/* The pair with the least key >= `key` (> when after), or NULL. */
static struct pair *tree_next(const struct tree_node *node, const void *key, size_t bytes, bool after)
{
    struct pair *found = NULL;
    while (node != NULL) {
        int order = node_compare(node, key, bytes);
        if (order == 0 && !after) {
            return node->pair;
        }
        if (order > 0) {
            found = node->pair;
        }
        node = order > 0 ? node->left : node->right;
    }
    return found;
}

/* The pair with the greatest key < `key`, or NULL. */
static struct pair *tree_prev(const struct tree_node *node, const void *key, size_t bytes)
{
    struct pair *found = NULL;
    while (node != NULL) {
        bool below = node_compare(node, key, bytes) < 0;
        found = below ? node->pair : found;
        node = below ? node->right : node->left;
    }
    return found;
}

/* Parts a tree at `key`, which it has not. */
static void tree_split(struct tree_node *node, struct slice key, struct tree_node **left, struct tree_node **right)
{
    while (node != NULL) {
        if (node_compare(node, key.data, key.bytes) < 0) {
            *left = node;
            left = &node->right;
            node = node->right;
        } else {
            *right = node;
            right = &node->left;
            node = node->left;
        }
    }
    *left = *right = NULL;
}

/* All keys of `left` are less than those of `right`. */
static void tree_join(struct tree_node **at, struct tree_node *left, struct tree_node *right)
{
    while (left != NULL && right != NULL) {
        if (left->priority >= right->priority) {
            *at = left;
            at = &left->right;
            left = left->right;
        } else {
            *at = right;
            at = &right->left;
            right = right->left;
        }
    }
    *at = left != NULL ? left : right;
}

/* Puts `pair` (given; NULL: nothing) under `key` and returns what was there (given). */
static struct pair *tree_set(struct tree_node **root, struct slice key, struct pair *pair)
{
    uint32_t priority = crc32c(0x5eed, key.data, key.bytes) * 0x9e3779b1u;
    struct tree_node **at = root;
    while (*at != NULL && (*at)->priority >= priority) {
        int order = node_compare(*at, key.data, key.bytes);
        if (order == 0) {
            break;
        }
        at = order > 0 ? &(*at)->left : &(*at)->right;
    }
    struct tree_node *node = *at;
    if (node != NULL && node->priority >= priority) { /* it is the key's */
        struct pair *before = node->pair;
        if (pair == NULL) {
            tree_join(at, node->left, node->right);
            free(node);
        } else {
            node->pair = pair;
        }
        return before;
    }
    if (pair != NULL) {
        struct tree_node *fresh = mem_alloc(sizeof *fresh + key.bytes);
        fresh->priority = priority;
        fresh->pair = pair;
        fresh->key_bytes = key.bytes;
        memcpy(fresh->key, key.data, key.bytes);
        tree_split(node, key, &fresh->left, &fresh->right);
        *at = fresh;
    }
    return NULL;
}

static void tree_clear(struct tree_node *node)
{
    while (node != NULL) {
        struct tree_node *right = node->right;
        tree_clear(node->left);
        pair_drop(node->pair);
        free(node);
        node = right;
    }
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
    const struct pair *pair = tree_next(kv->visible, key, key_bytes, false);
    if (pair == NULL || kv_key_compare(pair->key.data, pair->key.bytes, key, key_bytes) != 0) {
        return ERR_NOT_FOUND;
    }
    *ret_value = slice_ref(pair->value);
    return ERR_OK;
}

static enum err pair_give(const struct pair *pair, struct slice *ret_key, struct slice *ret_value)
{
    if (pair == NULL) {
        return ERR_NOT_FOUND;
    }
    *ret_key = slice_ref(pair->key);
    *ret_value = slice_ref(pair->value);
    return ERR_OK;
}

static enum err view_next(struct kv_view *view, const void *from, size_t from_bytes, bool after, struct slice *ret_key,
                          struct slice *ret_value)
{
    struct sim_kv *kv = (struct sim_kv *)view;
    return kv_blocks(kv) ? ERR_WOULD_BLOCK
                         : pair_give(tree_next(kv->visible, from, from_bytes, after), ret_key, ret_value);
}

static enum err view_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                          struct slice *ret_value)
{
    struct sim_kv *kv = (struct sim_kv *)view;
    return kv_blocks(kv) ? ERR_WOULD_BLOCK
                         : pair_give(tree_prev(kv->visible, before, before_bytes), ret_key, ret_value);
}

static const struct kv_view_ops sim_kv_ops = {.get = view_get, .next = view_next, .prev = view_prev};

struct sim_kv *sim_kv_create(struct rng rng)
{
    struct sim_kv *kv = mem_alloc(sizeof *kv);
    kv->view.ops = &sim_kv_ops;
    kv->rng = rng;
    return kv;
}

/* Forgets the first `count` changes: they are durable, or undone. */
static void kv_forget(struct sim_kv *kv, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        pair_drop(kv->changes[i].before);
        pair_drop(kv->changes[i].after);
    }
    if (count > 0) {
        memmove(kv->changes, kv->changes + count, (kv->change_count - count) * sizeof *kv->changes);
        kv->change_count -= count;
    }
}

static void kv_pin_remove(struct kv_pin **at)
{
    struct kv_pin *pin = *at;
    *at = pin->next;
    for (unsigned long i = 0; i < pin->count; i++) {
        pair_drop(pin->pairs[i]);
    }
    free(pin->pairs);
    free(pin);
}

static void kv_pins_end(struct sim_kv *kv)
{
    while (kv->pins != NULL) {
        kv_pin_remove(&kv->pins);
    }
}

static struct kv_pin **kv_pin_find(struct sim_kv *kv, uint64_t owner, uint64_t number)
{
    struct kv_pin **at = &kv->pins;
    while (*at != NULL && ((*at)->owner != owner || (*at)->number != number)) {
        at = &(*at)->next;
    }
    return at;
}

void sim_kv_unpin(struct sim_kv *kv, uint64_t owner, uint64_t pin)
{
    struct kv_pin **at = kv_pin_find(kv, owner, pin);
    if (*at != NULL) {
        kv_pin_remove(at);
    }
}

static struct kv_pin *kv_pin_make(struct sim_kv *kv, uint64_t owner, uint64_t number, struct slice from,
                                  struct slice end)
{
    struct kv_pin *pin = mem_alloc(sizeof *pin);
    *pin = (struct kv_pin){.next = kv->pins, .owner = owner, .number = number};
    kv->pins = pin;
    struct pair *pair = tree_next(kv->visible, from.data, from.bytes, false);
    while (pair != NULL && kv_key_compare(pair->key.data, pair->key.bytes, end.data, end.bytes) < 0) {
        pin->pairs = mem_grow(pin->pairs, &pin->capacity, pin->count + 1, sizeof(struct pair *));
        pin->pairs[pin->count++] = pair_ref(pair);
        pair = tree_next(kv->visible, pair->key.data, pair->key.bytes, true);
    }
    return pin;
}

struct slice sim_kv_scan(struct sim_kv *kv, uint64_t owner, uint64_t pin_number, struct slice from, struct slice end,
                         uint64_t bytes)
{
    struct kv_pin *pin = *kv_pin_find(kv, owner, pin_number);
    struct writer pairs = {0};
    if (pin == NULL) {
        pin = kv_pin_make(kv, owner, pin_number, from, end);
    }
    for (unsigned long i = 0; i < pin->count; i++) {
        const struct pair *pair = pin->pairs[i];
        if (kv_key_compare(pair->key.data, pair->key.bytes, from.data, from.bytes) < 0) {
            continue;
        }
        if (pairs.bytes > 0 && pairs.bytes + KV_PAIR_HEADER_BYTES + pair->key.bytes + pair->value.bytes > bytes) {
            break;
        }
        kv_pair_put(&pairs, pair->key, pair->value);
    }
    struct slice packed = pairs.bytes > 0 ? writer_take(&pairs) : (struct slice){0};
    writer_deinit(&pairs);
    return packed;
}

void sim_kv_destroy(struct sim_kv *kv)
{
    kv_pins_end(kv);
    kv_forget(kv, kv->change_count);
    free(kv->changes);
    tree_clear(kv->visible);
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

static void kv_change(struct sim_kv *kv, const struct kv_entry *entry)
{
    struct pair *pair = NULL;
    if (!entry->deleted) {
        pair = mem_alloc(sizeof *pair);
        *pair = (struct pair){.refs = 1, .key = slice_keep(entry->key), .value = slice_keep(entry->value)};
    }
    struct pair *before = tree_set(&kv->visible, entry->key, pair_ref(pair));
    if (before == NULL && pair == NULL) {
        return;
    }
    kv->changes = mem_grow(kv->changes, &kv->change_capacity, kv->change_count + 1, sizeof *kv->changes);
    kv->changes[kv->change_count++] = (struct change){kv->committed, before, pair};
}

void sim_kv_commit(struct sim_kv *kv, struct kv_batch *batch)
{
    for (const struct kv_entry *entry = kv_batch_next(batch, "", 0, false); entry != NULL;
         entry = kv_entry_next(entry)) {
        kv_change(kv, entry);
    }
    kv->committed++;
    kv_batch_destroy(batch);
}

uint64_t sim_kv_flush(struct sim_kv *kv)
{
    kv->requested = kv->committed;
    return kv->requested;
}

void sim_kv_flushed(struct sim_kv *kv, uint64_t flush)
{
    CHECK(flush <= kv->committed);
    if (flush <= kv->flushed) {
        return;
    }
    unsigned long done = 0;
    while (done < kv->change_count && kv->changes[done].commit < flush) {
        done++;
    }
    kv_forget(kv, done);
    kv->flushed = flush;
}

struct slice sim_kv_flushed_get(const struct sim_kv *kv, const void *key, size_t key_bytes)
{
    const struct pair *pair = tree_next(kv->visible, key, key_bytes, false);
    bool found = pair != NULL && kv_key_compare(pair->key.data, pair->key.bytes, key, key_bytes) == 0;
    pair = found ? pair : NULL;
    for (unsigned long i = kv->change_count; i-- > 0;) { /* back to what the oldest of them replaced */
        const struct change *change = &kv->changes[i];
        struct slice changed = change->after != NULL ? change->after->key : change->before->key;
        bool same = kv_key_compare(changed.data, changed.bytes, key, key_bytes) == 0;
        pair = same ? change->before : pair;
    }
    return pair != NULL ? slice_ref(pair->value) : (struct slice){0};
}

/* The newest change goes out of the tree again. */
static void kv_undo(struct sim_kv *kv)
{
    struct change *change = &kv->changes[--kv->change_count];
    struct slice key = change->after != NULL ? change->after->key : change->before->key;
    pair_drop(tree_set(&kv->visible, key, pair_ref(change->before)));
    pair_drop(change->before);
    pair_drop(change->after);
}

void sim_kv_crash(struct sim_kv *kv)
{
    kv_pins_end(kv);
    uint64_t newest = kv->knobs.spontaneous ? kv->committed : kv->requested;
    uint64_t to = newest > kv->flushed ? rng_between(&kv->rng, kv->flushed, newest) : kv->flushed;
    while (kv->change_count > 0 && kv->changes[kv->change_count - 1].commit >= to) {
        kv_undo(kv);
    }
    kv_forget(kv, kv->change_count);
    kv->flushed = kv->requested = kv->committed;
}

void sim_kv_drop(struct sim_kv *kv)
{
    kv_pins_end(kv);
    kv_forget(kv, kv->change_count);
    tree_clear(kv->visible);
    kv->visible = NULL;
    kv->flushed = kv->requested = kv->committed;
}

struct sim_kv_copy {
    struct pair **pairs;
    unsigned long count, capacity;
};

struct sim_kv_copy *sim_kv_copy_take(const struct sim_kv *kv)
{
    CHECK(kv->change_count == 0);
    struct sim_kv_copy *copy = mem_alloc(sizeof *copy);
    for (struct pair *pair = tree_next(kv->visible, "", 0, false); pair != NULL;
         pair = tree_next(kv->visible, pair->key.data, pair->key.bytes, true)) {
        copy->pairs = mem_grow(copy->pairs, &copy->capacity, copy->count + 1, sizeof(struct pair *));
        copy->pairs[copy->count++] = pair_ref(pair);
    }
    return copy;
}

void sim_kv_copy_put(struct sim_kv *kv, const struct sim_kv_copy *copy)
{
    sim_kv_drop(kv);
    for (unsigned long i = 0; copy != NULL && i < copy->count; i++) {
        struct pair *before = tree_set(&kv->visible, copy->pairs[i]->key, pair_ref(copy->pairs[i]));
        CHECK(before == NULL);
    }
}

void sim_kv_copy_free(struct sim_kv_copy *copy)
{
    for (unsigned long i = 0; copy != NULL && i < copy->count; i++) {
        pair_drop(copy->pairs[i]);
    }
    if (copy != NULL) {
        free(copy->pairs);
    }
    free(copy);
}

uint32_t sim_kv_unflushed(const struct sim_kv *kv)
{
    return (uint32_t)(kv->committed - kv->flushed);
}
