/* A small world for one store actor: a disk in memory with unsynced writes and crashes, an index with flush points, and
 * an inbox whose completions come in a seeded order. Used by test_store.c and test_store_crash.c.
 *
 * The disk keeps two images of each segment: what was written and what a sync made durable. A crash keeps, sector by
 * sector of 512 bytes, one or the other. The index returns to some state between the last flush that completed and the
 * last that was asked for. */
#ifndef CAIRN_TESTS_STORE_WORLD_H
#define CAIRN_TESTS_STORE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/sign.h"
#include "blockd/admission.h"
#include "blockd/blockd.h"
#include "blockd/report.h"
#include "blockd/segment.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/token.h"

#define WORLD_FILES   256
#define WORLD_REPLIES 1024
#define WORLD_STORE   3u
#define WORLD_REALM   11u
#define WORLD_WRITER  5u
#define WORLD_SECOND  1000000000ull

struct world_file {
    uint8_t *written, *durable;
    uint64_t bytes;
    uint32_t *write_number; /* per sector: the write that completed last */
};

struct world_op {
    struct effect effect;
    uint32_t writes; /* of a sync: writes completed when it was emitted */
    size_t commits;  /* of a flush */
};

struct reply {
    bool used;
    uint16_t type;
    uint8_t flags;
    uint64_t stream;
    struct slice header, body;
};

struct world {
    uint64_t seed, now_ns;
    struct world_file files[WORLD_FILES];
    uint32_t writes;
    struct kv_view view;
    struct kv_batch *live;
    struct kv_batch **commits;
    unsigned long commit_capacity, commit_count, flush_done, flush_asked;
    struct world_op *ops;
    unsigned long op_capacity, op_count;
    uint64_t timers[5]; /* by id; 0: off */
    bool started[5];
    struct effects fx;
    struct store *store;
    uint32_t segment_bytes;
    uint64_t capacity_bytes, incarnation;
    struct reply replies[WORLD_REPLIES];
    uint64_t streams;
    struct store_report report;
    uint32_t syncs, disk_writes;
    unsigned steps;
    enum err halted;
    /* faults */
    bool fail_writes, fail_syncs, fail_reads;
    bool short_of_room;
    enum err fail_allocs;
    unsigned block_percent;                               /* of index reads */
    bool fifo;                                            /* completions in order of emission */
    bool (*take)(struct world *w, struct effect *effect); /* NULL, or: takes an effect that is not the disk's */
    /* identity */
    struct cluster_id cluster;
    uint8_t signing_seed[32], receipt_key[32];
};

static inline uint64_t world_random(struct world *w)
{
    w->seed += 0x9e3779b97f4a7c15u;
    uint64_t z = w->seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* ---- the index ---- */

static inline struct world *world_of(struct kv_view *view)
{
    return (struct world *)((char *)view - offsetof(struct world, view));
}

static inline enum err world_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct world *w = world_of(view);
    if (w->block_percent > 0 && world_random(w) % 100 < w->block_percent) {
        return ERR_WOULD_BLOCK;
    }
    const struct kv_entry *entry = kv_batch_find(w->live, key, key_bytes);
    if (entry == NULL || entry->deleted) {
        return ERR_NOT_FOUND;
    }
    *ret_value = slice_copy(entry->value.data, entry->value.bytes);
    return ERR_OK;
}

static inline enum err world_next(struct kv_view *view, const void *from, size_t from_bytes, bool after,
                                  struct slice *ret_key, struct slice *ret_value)
{
    struct world *w = world_of(view);
    const struct kv_entry *entry = kv_batch_next(w->live, from, from_bytes, after);
    while (entry != NULL && entry->deleted) {
        entry = kv_batch_next(w->live, entry->key.data, entry->key.bytes, true);
    }
    if (entry == NULL) {
        return ERR_NOT_FOUND;
    }
    *ret_key = slice_copy(entry->key.data, entry->key.bytes);
    *ret_value = slice_copy(entry->value.data, entry->value.bytes);
    return ERR_OK;
}

static inline enum err world_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                                  struct slice *ret_value)
{
    (void)view, (void)before, (void)before_bytes, (void)ret_key, (void)ret_value;
    return ERR_NOT_FOUND;
}

static inline bool world_room(struct kv_view *view)
{
    return !world_of(view)->short_of_room;
}

static const struct kv_view_ops world_view_ops = {
    .get = world_get, .next = world_next, .prev = world_prev, .room = world_room};

static inline void world_merge(struct kv_batch *into, const struct kv_batch *batch)
{
    for (const struct kv_entry *e = kv_batch_next(batch, "", 0, false); e != NULL;
         e = kv_batch_next(batch, e->key.data, e->key.bytes, true)) {
        if (e->deleted) {
            kv_batch_delete(into, e->key.data, e->key.bytes);
        } else {
            kv_batch_put(into, e->key.data, e->key.bytes, e->value.data, e->value.bytes);
        }
    }
}

/* Drops all but the first `count` commits. */
static inline void world_index_cut(struct world *w, unsigned long count)
{
    kv_batch_destroy(w->live);
    w->live = kv_batch_create();
    for (unsigned long i = 0; i < w->commit_count; i++) {
        if (i < count) {
            world_merge(w->live, w->commits[i]);
        } else {
            kv_batch_destroy(w->commits[i]);
        }
    }
    w->commit_count = count;
    w->flush_done = w->flush_asked = count;
}

/* ---- effects ---- */

static inline void world_start(struct world *w)
{
    struct file_info files[WORLD_FILES];
    uint32_t count = 0;
    for (uint32_t i = 1; i < WORLD_FILES; i++) {
        if (w->files[i].bytes > 0) {
            files[count++] = (struct file_info){{FILE_SEGMENT, i}, w->files[i].bytes};
        }
    }
    struct store_params params = {
        .position = 0,
        .cluster = w->cluster,
        .cluster_incarnation = 1,
        .uuid = {{'d', 'i', 'r'}},
        .incarnation = w->incarnation,
        .capacity_bytes = w->capacity_bytes,
        .segment_bytes = w->segment_bytes,
        .files = files,
        .file_count = count,
        .kv = &w->view,
        .rebuild_index = w->commit_count == 0,
    };
    w->store = store_create(&params);
    w->report = (struct store_report){0};
}

static inline void world_take_send(struct world *w, struct effect *effect)
{
    if (effect->send.type == MESSAGE_STORE_REPORT && (effect->send.flags & MESSAGE_REPLY) == 0) {
        assert_int_equal(store_report_decode(effect->send.header, &w->report), ERR_OK);
        slice_drop(&effect->send.header);
        return;
    }
    assert_true(effect->send.flags & MESSAGE_REPLY);
    struct reply *reply = &w->replies[effect->send.stream % WORLD_REPLIES];
    assert_false(reply->used); /* one answer a request */
    *reply = (struct reply){
        true, effect->send.type, effect->send.flags, effect->send.stream, effect->send.header, effect->send.body};
}

static inline void world_step(struct world *w, struct event *event)
{
    event->now_ns = w->now_ns;
    event->random = world_random(w);
    w->steps++;
    store_step(w->store, event, &w->fx);
    for (unsigned long i = 0; i < w->fx.count; i++) {
        struct effect *effect = &w->fx.items[i];
        if (w->take != NULL && w->take(w, effect)) {
            continue;
        }
        switch (effect->kind) {
        case EFFECT_SEND:
            world_take_send(w, effect);
            break;
        case EFFECT_TIMER:
            w->started[effect->timer.id] = true;
            w->timers[effect->timer.id] = effect->timer.deadline_ns;
            break;
        case EFFECT_KV_COMMIT:
            world_merge(w->live, effect->kv.batch);
            w->commits = mem_grow(w->commits, &w->commit_capacity, w->commit_count + 1, sizeof *w->commits);
            w->commits[w->commit_count++] = effect->kv.batch;
            break;
        case EFFECT_HALT:
            w->halted = effect->halt.err;
            break;
        default:
            w->ops = mem_grow(w->ops, &w->op_capacity, w->op_count + 1, sizeof *w->ops);
            w->ops[w->op_count++] = (struct world_op){*effect, w->writes, w->commit_count};
            if (effect->kind == EFFECT_KV_FLUSH) {
                w->flush_asked = w->commit_count;
            }
        }
    }
    w->fx.count = 0;
}

static inline struct world_file *world_file(struct world *w, const struct effect *effect)
{
    assert_true(effect->disk.file.kind == FILE_SEGMENT && effect->disk.file.number < WORLD_FILES);
    return &w->files[effect->disk.file.number];
}

static inline void world_sectors_write(struct world *w, struct world_file *file, const struct effect *effect, bool some)
{
    assert_true(effect->disk.offset + effect->disk.bytes <= file->bytes);
    for (uint64_t at = 0; at < effect->disk.bytes; at += 512) {
        if (!some || world_random(w) % 2 == 0) {
            memcpy(file->written + effect->disk.offset + at, effect->disk.data.data + at, 512);
            file->write_number[(effect->disk.offset + at) / 512] = w->writes;
        }
    }
}

static inline enum err world_disk(struct world *w, struct world_op *op, struct event *event)
{
    struct effect *effect = &op->effect;
    struct world_file *file = world_file(w, effect);
    switch (effect->kind) {
    case EFFECT_DISK_WRITE:
        w->writes++;
        w->disk_writes++;
        world_sectors_write(w, file, effect, w->fail_writes);
        return w->fail_writes ? ERR_IO : ERR_OK;
    case EFFECT_DISK_SYNC:
        if (w->fail_syncs) {
            return ERR_IO;
        }
        w->syncs++;
        for (uint64_t at = 0; at < file->bytes; at += 512) {
            if (file->write_number[at / 512] <= op->writes) {
                memcpy(file->durable + at, file->written + at, 512);
            }
        }
        return ERR_OK;
    case EFFECT_DISK_READ:
        if (w->fail_reads) {
            return ERR_IO;
        }
        if (effect->disk.offset < file->bytes) {
            uint64_t left = file->bytes - effect->disk.offset;
            event->disk.data =
                slice_copy(file->written + effect->disk.offset, left < effect->disk.bytes ? left : effect->disk.bytes);
        }
        return ERR_OK;
    case EFFECT_DISK_ALLOC:
        if (w->fail_allocs != ERR_OK) {
            return w->fail_allocs;
        }
        if (file->bytes == 0) {
            file->bytes = effect->disk.bytes;
            file->written = calloc(1, file->bytes);
            file->durable = calloc(1, file->bytes);
            file->write_number = calloc(file->bytes / 512, sizeof *file->write_number);
        }
        return ERR_OK;
    default:
        fail();
        return ERR_INTERNAL;
    }
}

/* Completes one thing the store waits for; false when there is none. */
static inline bool world_turn(struct world *w)
{
    if (w->halted != ERR_OK) {
        return false;
    }
    for (uint64_t id = 0; id < 5; id++) {
        if (w->started[id] && w->timers[id] <= w->now_ns) {
            w->started[id] = false;
            world_step(w, &(struct event){.kind = EVENT_TIMER, .timer.id = id});
            return true;
        }
    }
    if (w->op_count == 0) {
        return false;
    }
    unsigned long at = w->fifo ? 0 : world_random(w) % w->op_count;
    struct world_op op = w->ops[at];
    memmove(w->ops + at, w->ops + at + 1, (w->op_count - at - 1) * sizeof *w->ops);
    w->op_count--;
    struct event event = {.kind = EVENT_DISK_DONE};
    if (op.effect.kind == EFFECT_KV_FLUSH) {
        event.kind = EVENT_KV_DONE;
        event.kv.token = op.effect.kv.token;
        if (op.commits > w->flush_done) {
            w->flush_done = op.commits;
        }
    } else {
        event.disk.token = op.effect.disk.token;
        event.disk.err = world_disk(w, &op, &event);
    }
    world_step(w, &event);
    if (op.effect.kind != EFFECT_KV_FLUSH) {
        slice_drop(&op.effect.disk.data);
        slice_drop(&event.disk.data);
    }
    return true;
}

/* Runs until nothing is under way; lets up to `ns` of time pass for timers. */
static inline void world_run(struct world *w, uint64_t ns)
{
    uint64_t end = w->now_ns + ns;
    for (;;) {
        while (world_turn(w)) {}
        uint64_t next = UINT64_MAX;
        for (unsigned id = 0; id < 5; id++) {
            if (w->started[id] && w->timers[id] < next) {
                next = w->timers[id];
            }
        }
        if (w->halted != ERR_OK || next > end) {
            w->now_ns = end;
            return;
        }
        w->now_ns = next;
    }
}

static inline void world_boot(struct world *w)
{
    world_start(w);
    world_step(w, &(struct event){.kind = EVENT_TIMER, .timer.id = 0});
}

static inline void world_ops_clear(struct world *w, bool crash)
{
    for (unsigned long i = 0; i < w->op_count; i++) {
        struct effect *effect = &w->ops[i].effect;
        if (effect->kind == EFFECT_DISK_WRITE && crash) {
            world_sectors_write(w, world_file(w, effect), effect, true);
        }
        if (effect->kind != EFFECT_KV_FLUSH) {
            slice_drop(&effect->disk.data);
        }
    }
    w->op_count = 0;
    memset(w->started, 0, sizeof w->started);
}

/* The process ends: writes under way land in part, the index goes back to a flush point. With `power` off too, unsynced
 * sectors survive or not; without, they are read back after the start and may still be lost later. */
static inline void world_crash(struct world *w, bool power)
{
    store_destroy(w->store);
    w->writes++;
    world_ops_clear(w, true);
    for (uint32_t i = 0; power && i < WORLD_FILES; i++) {
        struct world_file *file = &w->files[i];
        for (uint64_t at = 0; at < file->bytes; at += 512) {
            if (world_random(w) % 2 == 0) {
                memcpy(file->written + at, file->durable + at, 512);
            } else {
                memcpy(file->durable + at, file->written + at, 512);
            }
        }
    }
    unsigned long span = w->flush_asked - w->flush_done;
    world_index_cut(w, w->flush_done + (span > 0 ? world_random(w) % (span + 1) : 0));
    w->halted = ERR_OK;
}

static inline void world_replies_clear(struct world *w)
{
    for (unsigned i = 0; i < WORLD_REPLIES; i++) {
        slice_drop(&w->replies[i].header);
        slice_drop(&w->replies[i].body);
        w->replies[i] = (struct reply){0};
    }
}

static inline struct world *world_create(uint64_t seed)
{
    struct world *w = calloc(1, sizeof *w);
    w->seed = seed;
    w->now_ns = WORLD_SECOND;
    w->view.ops = &world_view_ops;
    w->live = kv_batch_create();
    w->segment_bytes = 1u << 20;
    w->capacity_bytes = 64u << 20;
    w->incarnation = 77;
    memset(w->cluster.uuid.bytes, 0xc1, 16);
    memset(w->signing_seed, 0x51, 32);
    memset(w->receipt_key, 0x52, 32);
    return w;
}

static inline void world_destroy(struct world *w)
{
    if (w->store != NULL) {
        store_destroy(w->store);
    }
    world_ops_clear(w, false);
    world_replies_clear(w);
    world_index_cut(w, 0);
    kv_batch_destroy(w->live);
    free(w->commits);
    free(w->ops);
    effects_deinit(&w->fx);
    for (uint32_t i = 0; i < WORLD_FILES; i++) {
        free(w->files[i].written);
        free(w->files[i].durable);
        free(w->files[i].write_number);
    }
    free(w);
}

/* ---- requests ---- */

/* Tells the store who it is: store WORLD_STORE, owner of the even slots, stand-in of slot 1, of a pool 4+2 with 2 PGs.
 */
static inline void world_tell(struct world *w, uint64_t epoch, uint64_t tick, uint64_t capability_epoch)
{
    uint8_t public_key[32];
    sign_public_key(w->signing_seed, public_key);
    Cairn__MapKey key = CAIRN__MAP_KEY__INIT, *keys[] = {&key};
    key.key_id = 9;
    key.public_key.data = public_key;
    key.public_key.len = sizeof public_key;
    uint32_t slots[12], standins[12] = {0};
    for (unsigned i = 0; i < 12; i++) {
        slots[i] = i % 2 == 0 ? WORLD_STORE : 1;
    }
    standins[1] = standins[7] = WORLD_STORE;
    Cairn__MapPool pool = CAIRN__MAP_POOL__INIT, *pools[] = {&pool};
    pool.pool = 1;
    pool.k = 4;
    pool.m = 2;
    pool.pg_bits = 1;
    pool.slots = slots;
    pool.n_slots = 12;
    pool.standin_count = 1;
    pool.standins = standins;
    pool.n_standins = 12;
    Cairn__ClusterMap map = CAIRN__CLUSTER_MAP__INIT;
    map.cluster.data = w->cluster.uuid.bytes;
    map.cluster.len = 16;
    map.cluster_incarnation = 1;
    map.epoch = epoch;
    map.tick = tick;
    map.keys = keys;
    map.n_keys = 1;
    map.pools = pools;
    map.n_pools = 1;
    map.capability_epoch = capability_epoch;
    struct slice packed = proto_pack(&map);
    struct store_state state = {.store = WORLD_STORE, .incarnation = 7, .tick = tick, .map = packed};
    memcpy(state.receipt_key, w->receipt_key, 32);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message.type = MESSAGE_STORE_STATE;
    event.message.peer.role = ROLE_LOCAL;
    event.message.header = store_state_encode(&state);
    world_step(w, &event);
    slice_drop(&event.message.header);
    slice_drop(&packed);
}

static inline struct capability world_capability(const struct world *w, uint64_t ns, uint64_t generation)
{
    return (struct capability){
        .cluster = w->cluster,
        .cluster_incarnation = 1,
        .realm = WORLD_REALM,
        .writer = WORLD_WRITER,
        .ns = ns,
        .ns_incarnation = 1,
        .session = 40 + generation,
        .generation = generation,
        .operations = CAPABILITY_PUT | CAPABILITY_GET,
        .budget_bytes = 1u << 30,
        .expiry_tick = 1000,
        .capability_epoch = 5,
        .key_id = 9,
    };
}

/* A shard as a client would put it, and the capability it shows. */
struct shard {
    struct shard_key key;
    uint32_t sealed_bytes, plain_bytes;
    struct slice bytes, checks;
    uint32_t store, slot;
    uint64_t store_incarnation;
    struct capability capability;
    uint64_t signing;                    /* flips a byte of the signature when set */
    struct capability signed_capability; /* what `token` was made of: signing is slow */
    uint8_t token[CAPABILITY_BYTES];
};

static inline struct shard shard_make(struct world *w, uint64_t number, unsigned k, unsigned m, unsigned index,
                                      uint32_t sealed_bytes)
{
    struct shard shard = {.sealed_bytes = sealed_bytes, .plain_bytes = sealed_bytes - 48, .store = WORLD_STORE};
    shard.key = (struct shard_key){.realm = WORLD_REALM, .writer = WORLD_WRITER, .k = k, .m = m, .index = index};
    struct sha256 name = sha256(&number, sizeof number);
    memcpy(shard.key.chunk.bytes, name.bytes, 32);
    memcpy(shard.key.encoding.bytes, name.bytes + 7, 16);
    struct slice all[LIMIT_SHARDS];
    uint32_t bytes = code_shard_bytes(sealed_bytes, k);
    for (unsigned i = 0; i < k + m; i++) {
        all[i] = slice_alloc(bytes);
        uint64_t x = number * 1000 + i;
        for (uint32_t at = 0; at < bytes; at += 8) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            memcpy(all[i].data + at, &x, bytes - at < 8 ? bytes - at : 8);
        }
    }
    shard.checks = shard_checks_of(all, k + m);
    shard.bytes = slice_ref(all[index]);
    for (unsigned i = 0; i < k + m; i++) {
        slice_drop(&all[i]);
    }
    shard.slot = index;
    shard.store_incarnation = 7;
    shard.capability = world_capability(w, 1, 1);
    return shard;
}

static inline void shard_free(struct shard *shard)
{
    slice_drop(&shard->bytes);
    slice_drop(&shard->checks);
}

static inline uint64_t world_send(struct world *w, uint16_t type, const void *request, struct slice body,
                                  enum role role)
{
    struct event event = {.kind = EVENT_MESSAGE};
    event.message.type = type;
    event.message.stream = ++w->streams;
    event.message.from = (struct address){.role = role, .conn = 1};
    event.message.peer.role = role;
    event.message.header = proto_pack(request);
    event.message.body = body;
    world_step(w, &event);
    slice_drop(&event.message.header);
    return w->streams;
}

static inline void world_token(struct world *w, struct shard *shard, uint8_t ret[CAPABILITY_BYTES])
{
    if (memcmp(&shard->signed_capability, &shard->capability, sizeof shard->capability) != 0) {
        shard->signed_capability = shard->capability;
        capability_sign(&shard->capability, w->signing_seed, shard->token);
    }
    memcpy(ret, shard->token, sizeof shard->token);
    ret[CAPABILITY_BYTES - 1] ^= (uint8_t)shard->signing;
}

static inline uint64_t world_put(struct world *w, struct shard *shard)
{
    uint8_t token[CAPABILITY_BYTES], key[SHARD_KEY_BYTES];
    world_token(w, shard, token);
    shard_key_encode(&shard->key, key);
    Cairn__ShardPutRequest request = CAIRN__SHARD_PUT_REQUEST__INIT;
    request.capability.data = token;
    request.capability.len = sizeof token;
    request.shard.data = key;
    request.shard.len = sizeof key;
    request.sealed_bytes = shard->sealed_bytes;
    request.plain_bytes = shard->plain_bytes;
    request.checks.data = shard->checks.data;
    request.checks.len = shard->checks.bytes;
    request.slot = shard->slot;
    request.store = shard->store;
    request.store_incarnation = shard->store_incarnation;
    return world_send(w, MESSAGE_SHARD_PUT, &request, shard->bytes, ROLE_DEVICE);
}

static inline uint64_t world_get_range(struct world *w, struct shard *shard, uint32_t offset, uint32_t bytes)
{
    uint8_t token[CAPABILITY_BYTES], key[SHARD_KEY_BYTES];
    world_token(w, shard, token);
    shard_key_encode(&shard->key, key);
    Cairn__ShardGetRequest request = CAIRN__SHARD_GET_REQUEST__INIT;
    request.capability.data = token;
    request.capability.len = sizeof token;
    request.shard.data = key;
    request.shard.len = sizeof key;
    request.offset = offset;
    request.bytes = bytes;
    return world_send(w, MESSAGE_SHARD_GET, &request, (struct slice){0}, ROLE_DEVICE);
}

static inline struct reply *world_reply(struct world *w, uint64_t stream)
{
    struct reply *reply = &w->replies[stream % WORLD_REPLIES];
    return reply->used && reply->stream == stream ? reply : NULL;
}

static inline enum err reply_err(const struct reply *reply)
{
    assert_non_null(reply);
    uint32_t leader;
    return reply->flags & MESSAGE_ERROR ? error_reply_decode(reply->header, &leader) : ERR_OK;
}

/* Runs until the request is answered and returns the code. */
static inline enum err world_finish(struct world *w, uint64_t stream)
{
    while (world_reply(w, stream) == NULL && world_turn(w)) {}
    return reply_err(world_reply(w, stream));
}

static inline enum err world_put_now(struct world *w, struct shard *shard)
{
    return world_finish(w, world_put(w, shard));
}

static inline enum err world_get_now(struct world *w, struct shard *shard)
{
    uint64_t stream = world_get_range(w, shard, 0, 0);
    enum err err = world_finish(w, stream);
    if (err == ERR_OK) {
        assert_true(slice_equal(world_reply(w, stream)->body, shard->bytes));
    }
    return err;
}

/* The digest of the index as a rebuild from the segments makes it. The store is stopped by then. */
static inline struct sha256 world_rebuilt_digest(struct world *w)
{
    store_destroy(w->store);
    world_ops_clear(w, false);
    world_index_cut(w, 0);
    world_boot(w);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->halted, ERR_OK);
    assert_true(w->report.ready);
    return store_index_digest(&w->view);
}

#endif
