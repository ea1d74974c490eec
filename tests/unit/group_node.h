/* A metadata node of one member for unit tests: groups 0 and 1 stepped against a log that is durable at once and a
 * key-value map in memory. Requests are encoded as clients do; answers come back decoded. For what only several nodes
 * show: tests/sim. */
#ifndef CAIRN_TESTS_UNIT_GROUP_NODE_H
#define CAIRN_TESTS_UNIT_GROUP_NODE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "metad/host/log.h"
#include "metad/metad.h"
#include "proto/cairn.pb-c.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/token.h"

#define NODE_GROUPS 2

struct node_log {
    struct raft_entry *entries;
    unsigned long count, capacity;
    struct raft_hard_state hard;
    uint64_t base, base_term; /* it begins behind; entries up to there are holes */
    uint32_t resets;
    bool unsure;
    uint64_t hole; /* a damaged entry, 0 none */
    uint8_t hole_kind;
    uint32_t heals; /* entries written anew */
    uint64_t position;
    struct log_peer peers[RAFT_MEMBERS_MAX];
    uint32_t peer_count;
    bool peers_now; /* they did not wait for an append */
    uint64_t cut;   /* the last LOG_CUT */
    bool mute;      /* a reset is not answered, as if power failed before it was durable */
};

struct node {
    struct bootstrap bootstrap;
    uint8_t cluster_key[32];
    struct kv_view view;
    bool short_of_room;
    struct kv_batch *db;
    struct group *groups[NODE_GROUPS];
    struct node_log logs[NODE_GROUPS];
    uint64_t now_ns;
    /* messages waiting for local groups */
    struct effect *inbox;
    unsigned long inbox_head, inbox_count, inbox_capacity;
    uint32_t inbox_group[4096];
    /* the last answer to a request */
    bool answered;
    uint8_t flags;
    struct slice header, body;
    struct slice told;  /* the header of the last frame to a peer */
    struct slice piece; /* the header of the last piece of a snapshot to a peer */
    uint64_t piece_stream;
    struct slice scan_from; /* of the last scan that was asked for */
    uint64_t scan_token;
    uint64_t stream, key;
    struct proto_arena arena;
    enum err halted;
    uint64_t flush[NODE_GROUPS]; /* token of the last flush asked for; the test answers it */
    bool more;                   /* what groups are told is not the last of what has come */
    bool recovering;             /* groups that are made from now on do not run */
};

static enum err node_kv_get(struct kv_view *view, const void *key, size_t bytes, struct slice *ret)
{
    struct node *node = (struct node *)((char *)view - offsetof(struct node, view));
    const struct kv_entry *entry = kv_batch_find(node->db, key, bytes);
    if (entry == NULL || entry->deleted) {
        return ERR_NOT_FOUND;
    }
    *ret = slice_keep(entry->value);
    return ERR_OK;
}

static enum err node_kv_found(const struct kv_entry *entry, struct slice *ret_key, struct slice *ret_value)
{
    if (entry == NULL) {
        return ERR_NOT_FOUND;
    }
    *ret_key = slice_keep(entry->key);
    *ret_value = slice_keep(entry->value);
    return ERR_OK;
}

static enum err node_kv_next(struct kv_view *view, const void *from, size_t bytes, bool after, struct slice *ret_key,
                             struct slice *ret_value)
{
    struct node *node = (struct node *)((char *)view - offsetof(struct node, view));
    const struct kv_entry *entry = kv_batch_next(node->db, from, bytes, after);
    while (entry != NULL && entry->deleted) {
        entry = kv_batch_next(node->db, entry->key.data, entry->key.bytes, true);
    }
    return node_kv_found(entry, ret_key, ret_value);
}

static enum err node_kv_prev(struct kv_view *view, const void *before, size_t bytes, struct slice *ret_key,
                             struct slice *ret_value)
{
    struct node *node = (struct node *)((char *)view - offsetof(struct node, view));
    const struct kv_entry *entry = kv_batch_prev(node->db, before, bytes);
    while (entry != NULL && entry->deleted) {
        entry = kv_batch_prev(node->db, entry->key.data, entry->key.bytes);
    }
    return node_kv_found(entry, ret_key, ret_value);
}

static bool node_kv_room(struct kv_view *view)
{
    return !((struct node *)((char *)view - offsetof(struct node, view)))->short_of_room;
}

static const struct kv_view_ops node_kv_ops = {
    .get = node_kv_get, .next = node_kv_next, .prev = node_kv_prev, .room = node_kv_room};

static void node_commit(struct node *node, struct kv_batch *batch)
{
    for (const struct kv_entry *e = kv_batch_next(batch, "", 0, false); e != NULL;
         e = kv_batch_next(batch, e->key.data, e->key.bytes, true)) {
        if (e->deleted) {
            kv_batch_delete(node->db, e->key.data, e->key.bytes);
        } else {
            kv_batch_put(node->db, e->key.data, e->key.bytes, e->value.data, e->value.bytes);
        }
    }
    kv_batch_destroy(batch);
}

static void node_push(struct node *node, uint32_t group, uint16_t type, uint8_t flags, struct slice header,
                      struct slice body)
{
    node->inbox = mem_grow(node->inbox, &node->inbox_capacity, node->inbox_count + 1, sizeof *node->inbox);
    assert_true(node->inbox_count < 4096);
    node->inbox_group[node->inbox_count] = group;
    node->inbox[node->inbox_count++] =
        (struct effect){.kind = EFFECT_SEND, .send = {.type = type, .flags = flags, .header = header, .body = body}};
}

static void node_log_drop(struct node_log *log)
{
    for (unsigned long i = log->base; i < log->count; i++) {
        slice_drop(&log->entries[i].data);
    }
    log->count = log->base;
}

/* Entries from `from` on go. */
static void node_log_cut(struct node_log *log, uint64_t from)
{
    for (unsigned long i = from - 1; i < log->count; i++) {
        slice_drop(&log->entries[i].data);
    }
    log->count = from - 1;
}

static void node_log_send(struct node *node, uint32_t group, const struct effect *effect)
{
    struct node_log *log = &node->logs[group];
    struct reader reader = reader_of(effect->send.header.data, effect->send.header.bytes);
    assert_int_equal(reader_u32(&reader), group);
    struct writer reply = {0};
    struct slice body = {0};
    if (effect->send.type == MESSAGE_LOG_OPEN) {
        writer_u64(&reply, log->hard.term);
        writer_u32(&reply, log->hard.vote);
        writer_u64(&reply, log->count);
        writer_u64(&reply, log->base);
        writer_u64(&reply, log->base_term);
        uint32_t runs = 0;
        for (unsigned long i = log->base; i < log->count; i++) {
            runs += i == log->base || log->entries[i].term != log->entries[i - 1].term;
        }
        writer_u32(&reply, runs);
        for (unsigned long i = log->base; i < log->count; i++) {
            if (i == log->base || log->entries[i].term != log->entries[i - 1].term) {
                writer_u64(&reply, log->entries[i].index);
                writer_u64(&reply, log->entries[i].term);
            }
        }
        uint32_t configs = 0;
        for (unsigned long i = log->base; i < log->count; i++) {
            configs += log->entries[i].type == RAFT_ENTRY_CONFIG;
        }
        writer_u32(&reply, configs);
        for (unsigned long i = log->base; i < log->count; i++) {
            if (log->entries[i].type == RAFT_ENTRY_CONFIG) {
                writer_u64(&reply, log->entries[i].index);
                writer_u32(&reply, (uint32_t)log->entries[i].data.bytes);
                writer_put(&reply, log->entries[i].data.data, log->entries[i].data.bytes);
            }
        }
        writer_u8(&reply, log->unsure);
        writer_u32(&reply, log->hole != 0);
        if (log->hole != 0) {
            writer_u64(&reply, log->hole);
            writer_u64(&reply, log->entries[log->hole - 1].term);
            writer_u8(&reply, log->hole_kind);
        }
        writer_u64(&reply, log->position);
        log_peers_put(log->peers, log->peer_count, &reply);
    } else if (effect->send.type == MESSAGE_LOG_APPEND) {
        uint64_t number = reader_u64(&reader);
        if (reader_u8(&reader)) {
            log->hard.term = reader_u64(&reader);
            log->hard.vote = reader_u32(&reader);
        }
        struct raft_entry *entries = NULL;
        uint32_t count = 0;
        if (effect->send.body.bytes > 0) {
            assert_int_equal(raft_entries_decode(effect->send.body, &entries, &count), ERR_OK);
        }
        for (uint32_t i = 0; i < count; i++) {
            log->entries = mem_grow(log->entries, &log->capacity, entries[i].index, sizeof *log->entries);
            log->entries[entries[i].index - 1] = entries[i];
            log->count = entries[i].index;
        }
        free(entries);
        writer_u64(&reply, number);
        writer_u64(&reply, ++log->position);
    } else if (effect->send.type == MESSAGE_LOG_RESET) {
        uint64_t number = reader_u64(&reader);
        log->resets++;
        if (log->mute) {
            return;
        }
        node_log_drop(log);
        log->base = reader_u64(&reader);
        log->base_term = reader_u64(&reader);
        log->entries = mem_grow(log->entries, &log->capacity, log->base, sizeof *log->entries);
        memset(log->entries, 0, log->base * sizeof *log->entries);
        log->count = log->base;
        writer_u64(&reply, number);
    } else if (effect->send.type == MESSAGE_LOG_CUT) {
        log->cut = reader_u64(&reader);
        return;
    } else if (effect->send.type == MESSAGE_LOG_PEERS) {
        log->peers_now = reader_u8(&reader) != 0;
        assert_true(log_peers_read(&reader, log->peers, &log->peer_count));
        return;
    } else if (effect->send.type == MESSAGE_LOG_HEAL) {
        writer_u64(&reply, reader_u64(&reader));
        log->heals++;
        log->hole = 0;
    } else if (effect->send.type == MESSAGE_LOG_TRIM) {
        node_log_cut(log, reader_u64(&reader));
        log->hole = 0;
        return;
    } else if (effect->send.type == MESSAGE_LOG_FETCH) {
        uint64_t index = reader_u64(&reader), term = reader_u64(&reader);
        bool has = index > log->base && index <= log->count && log->entries[index - 1].term == term;
        writer_u8(&reply, has ? LOG_HAS : LOG_NONE);
        if (has) {
            raft_entries_encode(log->entries + index - 1, 1, &body);
        }
    } else {
        uint64_t first = reader_u64(&reader);
        uint32_t count = reader_u32(&reader);
        raft_entries_encode(log->entries + first - 1, count, &body);
    }
    node_push(node, group, effect->send.type, MESSAGE_REPLY, writer_take(&reply), body);
    node->inbox[node->inbox_count - 1].send.stream = effect->send.stream;
    writer_deinit(&reply);
}

static void node_effects(struct node *node, uint32_t group, struct effects *fx)
{
    for (unsigned long i = 0; i < fx->count; i++) {
        struct effect *effect = &fx->items[i];
        if (effect->kind == EFFECT_SEND && effect->send.to.conn != 0) {
            assert_false(node->answered);
            node->answered = true;
            node->flags = effect->send.flags;
            node->header = effect->send.header;
            node->body = effect->send.body;
            continue;
        }
        if (effect->kind == EFFECT_SEND && effect->send.to.actor == ACTOR_LOG) {
            node_log_send(node, group, effect);
        } else if (effect->kind == EFFECT_SEND && effect->send.to.role == ROLE_METAD) {
            slice_drop(&node->told);
            node->told = slice_ref(effect->send.header);
            if (effect->send.type == MESSAGE_SNAPSHOT) {
                slice_drop(&node->piece);
                node->piece = slice_ref(effect->send.header);
                node->piece_stream = effect->send.stream;
            }
        } else if (effect->kind == EFFECT_SEND && effect->send.to.role == ROLE_LOCAL) {
            node_push(node, effect->send.to.index, effect->send.type, 0, slice_ref(effect->send.header),
                      (struct slice){0});
        } else if (effect->kind == EFFECT_KV_COMMIT) {
            node_commit(node, effect->kv.batch);
        } else if (effect->kind == EFFECT_KV_FLUSH) {
            node->flush[group] = effect->kv.token;
        } else if (effect->kind == EFFECT_KV_SCAN) {
            slice_drop(&node->scan_from);
            node->scan_from = effect->scan.from;
            node->scan_token = effect->scan.token;
            slice_drop(&effect->scan.end);
        } else if (effect->kind == EFFECT_HALT) {
            node->halted = effect->halt.err;
        }
        if (effect->kind == EFFECT_SEND) {
            slice_drop(&effect->send.header);
            slice_drop(&effect->send.body);
        }
    }
    fx->count = 0;
}

static void node_step(struct node *node, uint32_t group, struct event event)
{
    struct effects fx = {0};
    event.more = node->more;
    event.now_ns = node->now_ns;
    event.wall_ns = node->now_ns;
    event.random = node->now_ns * 0x9e3779b97f4a7c15u;
    group_step(node->groups[group], &event, &fx);
    node_effects(node, group, &fx);
    effects_deinit(&fx);
}

static void node_drain(struct node *node)
{
    while (node->inbox_head < node->inbox_count) {
        struct effect effect = node->inbox[node->inbox_head];
        uint32_t group = node->inbox_group[node->inbox_head++];
        struct event event = {.kind = EVENT_MESSAGE};
        event.message = (struct message){.from = address_local(ACTOR_LOG, 0),
                                         .peer.role = ROLE_LOCAL,
                                         .type = effect.send.type,
                                         .flags = effect.send.flags,
                                         .stream = effect.send.stream,
                                         .header = effect.send.header,
                                         .body = effect.send.body};
        node_step(node, group, event);
        slice_drop(&effect.send.header);
        slice_drop(&effect.send.body);
    }
    node->inbox_head = node->inbox_count = 0;
}

static void node_ticks(struct node *node, int count)
{
    for (int i = 0; i < count; i++) {
        node->now_ns += 50000000;
        for (uint32_t g = 0; g < NODE_GROUPS; g++) {
            node_step(node, g, (struct event){.kind = EVENT_TIMER, .timer.id = 1});
            node_drain(node);
        }
    }
}

static void node_start(struct node *node)
{
    for (uint32_t g = 0; g < NODE_GROUPS; g++) {
        struct group_params params = {.group = g,
                                      .self = 1,
                                      .bootstrap = &node->bootstrap,
                                      .kv = &node->view,
                                      .group_count = NODE_GROUPS,
                                      .tick_ns = 50000000,
                                      .recovering = node->recovering};
        memcpy(params.cluster_key, node->cluster_key, 32);
        node->groups[g] = group_create(&params);
    }
    for (uint32_t g = 0; g < NODE_GROUPS; g++) { /* groups speak to each other from their first step */
        node_step(node, g, (struct event){.kind = EVENT_TIMER, .timer.id = 0});
        node_drain(node);
    }
    node_ticks(node, 80);
}

static inline void node_stop(struct node *node)
{
    for (uint32_t g = 0; g < NODE_GROUPS; g++) {
        group_destroy(node->groups[g]);
    }
}

/* What a cluster of `members` metadata nodes, 1.., begins with; nothing runs yet. */
static inline void node_make(struct node *node, uint32_t members)
{
    *node = (struct node){.view.ops = &node_kv_ops, .db = kv_batch_create(), .now_ns = 1};
    node->bootstrap = (struct bootstrap){.cluster_incarnation = 1,
                                         .member_count = members,
                                         .stores = 6,
                                         .workspace = "home",
                                         .pool = "rs-4-2",
                                         .chunk_bytes = LIMIT_CHUNK_BYTES,
                                         .pg_bits = 3,
                                         .device = 1};
    for (uint32_t i = 0; i < members; i++) {
        node->bootstrap.members[i] = i + 1;
    }
    memset(node->cluster_key, 7, 32);
}

static inline void node_init(struct node *node)
{
    node_make(node, 1);
    node_start(node);
}

static void node_answer_drop(struct node *node)
{
    slice_drop(&node->header);
    slice_drop(&node->body);
    node->answered = false;
}

static inline void node_deinit(struct node *node)
{
    node_answer_drop(node);
    slice_drop(&node->told);
    slice_drop(&node->piece);
    slice_drop(&node->scan_from);
    proto_arena_deinit(&node->arena);
    node_stop(node);
    for (int g = 0; g < NODE_GROUPS; g++) {
        node_log_drop(&node->logs[g]);
        free(node->logs[g].entries);
    }
    kv_batch_destroy(node->db);
    free(node->inbox);
}

/* Sends one request as (role, id). */
static inline void node_tell(struct node *node, uint32_t group, struct principal peer, uint16_t type,
                             const void *request, struct slice body)
{
    node_answer_drop(node);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = peer.role, .node = peer.id, .conn = 9},
                                     .peer = peer,
                                     .type = type,
                                     .target = group,
                                     .stream = ++node->stream,
                                     .header = proto_pack(request),
                                     .body = body};
    node_step(node, group, event);
    slice_drop(&event.message.header);
    node_drain(node);
}

/* Sends a request and steps until it is answered: its error code; the reply in node->header and body. */
static inline enum err node_ask(struct node *node, uint32_t group, struct principal peer, uint16_t type,
                                const void *request, struct slice body)
{
    node_tell(node, group, peer, type, request, body);
    for (int i = 0; i < 40 && !node->answered; i++) {
        node_ticks(node, 1);
    }
    assert_true(node->answered);
    if ((node->flags & MESSAGE_ERROR) == 0) {
        return ERR_OK;
    }
    uint32_t leader = 0;
    return error_reply_decode(node->header, &leader);
}

#define DEVICE_ROOT ((struct principal){.role = ROLE_DEVICE, .id = 1})
/* The reply unpacked; lives until node_deinit. */
static inline void *node_reply(struct node *node, const ProtobufCMessageDescriptor *descriptor)
{
    void *reply = NULL;
    assert_int_equal(proto_unpack(descriptor, node->header, &node->arena, &reply), ERR_OK);
    return reply;
}

static inline ProtobufCBinaryData text_bytes(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)(uintptr_t)text};
}

/* A RequestHead for namespace 1 with a fresh key, in `head`. */
static inline Cairn__RequestHead *node_head(struct node *node, Cairn__RequestHead *head)
{
    *head = (Cairn__RequestHead)CAIRN__REQUEST_HEAD__INIT;
    head->ns = 1;
    head->key = ++node->key;
    return head;
}

#endif
