/* The world of test_client.c: scripted peers of the client's core, an interpreter of its effects, fixtures. One leading
 * metad of three, up to eight stores, a clock that jumps to the next timer. The peers are as simple as the protocol
 * allows: they keep shards and manifest entries and count. */
#ifndef CAIRN_TESTS_UNIT_CLIENT_WORLD_H
#define CAIRN_TESTS_UNIT_CLIENT_WORLD_H

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
#include "base/compute.h"
#include "base/hash.h"
#include "client/client.h"
#include "proto/cairn.pb-c.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/token.h"

#define K           4u
#define M           2u
#define STORES      8u
#define CHUNK_BYTES (256u << 10)
#ifndef FILE_BYTES
#define FILE_BYTES (2 * CHUNK_BYTES + 100000u)
#endif
#define SHARDS        8192u
#define ENTRIES       2048u
#define SESSION       70u
#define SESSION_OF(w) (SESSION + ((w)->one_session ? 0 : (w)->starts))

struct shard {
    bool used;
    uint32_t store;
    struct shard_key key;
    uint32_t sealed_bytes;
    struct slice data;
};

struct world {
    struct client *client;
    struct effects fx;
    uint64_t now_ns, random;
    uint64_t timer_ids[512], timer_at[512];
    uint32_t timer_count;
    struct event *events; /* ring, in order */
    unsigned long head, count, capacity;
    /* the script */
    uint32_t leader; /* the metad that answers */
    uint32_t mute;   /* a metad that takes requests and never answers */
    uint32_t standins;
    bool unready;            /* the leader answers nothing but questions for the map */
    bool unplaced;           /* a newer map names no stores for the pool */
    bool dead[STORES + 1];   /* refuse connections */
    bool silent[STORES + 1]; /* take requests and never answer */
    bool wrong_bytes[STORES + 1];
    bool not_owner[STORES + 1];
    uint32_t small_losses;               /* so many answers to PUT_SMALL are lost */
    uint32_t sessions_closed;            /* so many stages are answered SESSION_CLOSED */
    uint32_t puts_refused, gets_refused; /* so many are answered `refusal` */
    enum err refusal;
    enum err confirm;
    struct cut_params cut; /* what the workspace says; none: fixed cutting by CHUNK_BYTES */
    bool knows;            /* chunks whose shards are there are answered as present */
    uint32_t file_bytes;   /* of `file`, as a stream has them; 0: all */
    bool one_session;      /* of all uploads at once; entries are not kept */
    uint32_t unresolved;   /* so many stages with entries name one that does not resolve */
    bool forge;            /* a store answers before the metad does */
    /* what happened */
    uint8_t file[FILE_BYTES];
    struct shard shards[SHARDS];
    struct manifest_entry entries[ENTRIES];
    uint32_t entry_count, receipts, starts, stages, completes, smalls, redirects, asks, maps, pages;
    struct sha256 page_hashes[ENTRIES]; /* of the staged pages */
    uint32_t page_count;
    uint64_t keys_first, keys_next; /* the last block of idempotency numbers given, and what comes behind it */
    uint32_t keys_count, keys_wanted;
    uint64_t small_keys[8];
    struct slice small_headers[8];
    uint64_t complete_bytes;
    uint8_t out[FILE_BYTES];
    uint64_t out_bytes;
    struct client_op *done;
};

static const uint8_t realm_secret[32] = {1}, realm_key[32] = {2}, receipt_key[32] = {3};

/* ---- events ---- */

static void push(struct world *w, struct event event)
{
    w->events = mem_grow(w->events, &w->capacity, w->count + 1, sizeof *w->events);
    w->events[w->count++] = event;
}

static struct event message_event(uint8_t role, uint32_t id, uint16_t type, uint8_t flags, uint64_t stream,
                                  struct slice header, struct slice body)
{
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){
        .peer = {role, id}, .type = type, .flags = flags, .stream = stream, .header = header, .body = body};
    event.message.from.role = role;
    event.message.from.node = id;
    return event;
}

static void reply(struct world *w, const struct effect *request, const void *message, struct slice body)
{
    push(w, message_event(request->send.to.role, request->send.to.node, request->send.type, MESSAGE_REPLY,
                          request->send.stream, proto_pack(message), body));
}

static void refuse(struct world *w, const struct effect *request, enum err err, uint32_t leader)
{
    push(w,
         message_event(request->send.to.role, request->send.to.node, request->send.type, MESSAGE_REPLY | MESSAGE_ERROR,
                       request->send.stream, error_reply_encode(err, "", leader), (struct slice){0}));
}

static void closed(struct world *w, struct address to, enum err err)
{
    struct event event = {.kind = EVENT_CLOSED};
    event.peer.peer = to;
    event.peer.err = err;
    push(w, event);
}

static void local(struct world *w, uint16_t type, uint64_t stream, struct slice header, struct slice body)
{
    push(w, message_event(ROLE_LOCAL, 0, type, 0, stream, header, body));
}

/* ---- the metad ---- */

static void answer_map(struct world *w, const struct effect *request)
{
    Cairn__ClusterMap map = CAIRN__CLUSTER_MAP__INIT;
    Cairn__MapStore stores[STORES], *store_list[STORES];
    Cairn__MapPool pool = CAIRN__MAP_POOL__INIT, *pools = &pool;
    Cairn__MapGroup groups[2] = {CAIRN__MAP_GROUP__INIT, CAIRN__MAP_GROUP__INIT}, *group_list[2] = {groups, groups + 1};
    uint32_t slots[K + M], standins[2 * (K + M)];
    for (uint32_t i = 0; i < STORES; i++) {
        cairn__map_store__init(&stores[i]);
        stores[i].store = i + 1;
        stores[i].node = i + 1;
        stores[i].incarnation = 5;
        store_list[i] = &stores[i];
    }
    for (uint32_t s = 0; s < K + M; s++) {
        slots[s] = s + 1;
        standins[w->standins * s] = 7;
        if (w->standins == 2) {
            standins[2 * s + 1] = 8;
        }
    }
    pool.pool = 1;
    pool.k = K;
    pool.m = M;
    pool.n_slots = w->unplaced ? 0 : K + M;
    pool.slots = slots;
    pool.standin_count = w->standins;
    pool.n_standins = w->unplaced ? 0 : w->standins * (K + M);
    pool.standins = standins;
    groups[1].group = 1;
    map.epoch = w->unplaced ? 5 : 4;
    map.n_stores = STORES;
    map.stores = store_list;
    map.n_pools = 1;
    map.pools = &pools;
    map.n_groups = 2;
    map.groups = group_list;
    Cairn__MapGetReply answer = CAIRN__MAP_GET_REPLY__INIT;
    answer.map = &map;
    answer.epoch = map.epoch;
    reply(w, request, &answer, (struct slice){0});
}

static void answer_known(const struct world *w, struct ask_answer *answer)
{
    for (uint32_t i = 0; w->knows && i < SHARDS && w->shards[i].used; i++) {
        const struct shard_key *key = &w->shards[i].key;
        if (memcmp(&key->chunk, &answer->chunk, sizeof key->chunk) == 0) {
            answer->missing = false;
            answer->writer = key->writer;
            answer->encoding = key->encoding;
            answer->sealed_bytes = w->shards[i].sealed_bytes;
            memset(answer->kc, 0, sizeof answer->kc);
        }
    }
}

static struct slice answer_asks(struct world *w, const uint8_t *asks, uint32_t count)
{
    struct writer out = {0};
    w->asks += count;
    for (uint32_t i = 0; i < count; i++) {
        struct ask_entry ask;
        struct ask_answer answer = {.missing = true};
        assert_int_equal(ask_entry_decode(asks + i * ASK_ENTRY_BYTES, ASK_ENTRY_BYTES, &ask), ERR_OK);
        answer.chunk = chunk_id_of(realm_secret, ask.sha);
        chunk_key_of(realm_key, answer.chunk, answer.kc);
        answer_known(w, &answer);
        ask_answer_encode(&answer, writer_reserve(&out, ASK_ANSWER_BYTES));
    }
    struct slice body = writer_take(&out);
    writer_deinit(&out);
    return body;
}

static void answer_stage(struct world *w, const struct effect *request, const Cairn__UploadStageRequest *stage)
{
    const uint8_t *data = request->send.body.data;
    assert_int_equal(stage->session, SESSION_OF(w));
    assert_int_equal(request->send.body.bytes, stage->receipts * RECEIPT_BYTES + stage->entries * MANIFEST_ENTRY_BYTES +
                                                   stage->asks * ASK_ENTRY_BYTES);
    if (w->sessions_closed > 0) {
        w->sessions_closed--;
        refuse(w, request, ERR_SESSION_CLOSED, 0);
        return;
    }
    for (uint32_t i = 0; i < stage->receipts; i++, data += RECEIPT_BYTES) {
        struct receipt receipt;
        assert_int_equal(receipt_verify(data, RECEIPT_BYTES, receipt_key, &receipt), ERR_OK);
        w->receipts++;
    }
    if (stage->entries > 0 && !w->one_session) {
        assert_true(w->page_count < ENTRIES && stage->entries <= LIMIT_PAGE_ENTRIES);
        assert_int_equal(stage->first_entry, w->entry_count);
        w->page_hashes[w->page_count++] = sha256(data, stage->entries * MANIFEST_ENTRY_BYTES);
    }
    for (uint32_t i = 0; i < stage->entries && !w->one_session; i++, data += MANIFEST_ENTRY_BYTES) {
        assert_true(stage->first_entry + i < ENTRIES);
        assert_int_equal(manifest_entry_decode(data, MANIFEST_ENTRY_BYTES, &w->entries[stage->first_entry + i]), 0);
        w->entry_count = (uint32_t)stage->first_entry + i + 1;
    }
    data = request->send.body.data + request->send.body.bytes - stage->asks * ASK_ENTRY_BYTES;
    Cairn__UploadStageReply answer = CAIRN__UPLOAD_STAGE_REPLY__INIT;
    answer.generation = 9;
    answer.entries = w->entry_count;
    uint64_t unresolved[1] = {stage->first_entry};
    if (w->unresolved > 0 && stage->entries > 0) {
        w->unresolved--;
        answer.n_unresolved = 1;
        answer.unresolved = unresolved;
    }
    reply(w, request, &answer, answer_asks(w, data, stage->asks));
}

static void answer_manifest(struct world *w, const struct effect *request, const Cairn__ManifestRequest *ask)
{
    struct writer out = {0};
    Cairn__Entry entry = CAIRN__ENTRY__INIT;
    Cairn__ManifestReply answer = CAIRN__MANIFEST_REPLY__INIT;
    entry.version = 1;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        struct manifest_read read = {.entry = w->entries[i]};
        entry.bytes += read.entry.plain_bytes;
        if (i < ask->first_entry || i >= ask->first_entry + LIMIT_PAGE_ENTRIES) {
            continue;
        }
        answer.count++;
        read.chunk = chunk_id_of(realm_secret, read.entry.sha);
        chunk_key_of(realm_key, read.chunk, read.kc);
        manifest_read_encode(&read, writer_reserve(&out, MANIFEST_READ_BYTES));
    }
    answer.entry = &entry;
    answer.entries = w->entry_count;
    answer.first_entry = ask->first_entry;
    answer.pool = 1;
    answer.realm = 6;
    reply(w, request, &answer, writer_take(&out));
    writer_deinit(&out);
}

static void answer_small(struct world *w, const struct effect *request, const Cairn__RequestHead *head)
{
    Cairn__UploadCompleteReply answer = CAIRN__UPLOAD_COMPLETE_REPLY__INIT;
    w->small_keys[w->smalls] = head->key;
    w->small_headers[w->smalls++] = slice_ref(request->send.header);
    if (w->small_losses > 0) {
        w->small_losses--;
        closed(w, request->send.to, ERR_CLOSED);
        return;
    }
    answer.version = 3;
    reply(w, request, &answer, (struct slice){0});
}

static void metad(struct world *w, const struct effect *request)
{
    static const struct {
        uint16_t type;
        const ProtobufCMessageDescriptor *descriptor;
    } rows[] = {
        {MESSAGE_MAP_GET, &cairn__map_get_request__descriptor},
        {MESSAGE_RESOLVE, &cairn__resolve_request__descriptor},
        {MESSAGE_UPLOAD_START, &cairn__upload_start_request__descriptor},
        {MESSAGE_UPLOAD_STAGE, &cairn__upload_stage_request__descriptor},
        {MESSAGE_UPLOAD_COMPLETE, &cairn__upload_complete_request__descriptor},
        {MESSAGE_PUT_SMALL, &cairn__put_small_request__descriptor},
        {MESSAGE_MANIFEST, &cairn__manifest_request__descriptor},
    };
    if (request->send.to.node == w->mute) {
        return;
    }
    if (request->send.to.node != w->leader) {
        w->redirects++;
        refuse(w, request, ERR_NOT_LEADER, w->leader);
        return;
    }
    if (w->unready && request->send.type != MESSAGE_MAP_GET) {
        refuse(w, request, ERR_NOT_READY, 0);
        return;
    }
    unsigned row = 0;
    while (rows[row].type != request->send.type) {
        assert_true(++row < sizeof rows / sizeof rows[0]);
    }
    struct proto_arena arena = {0};
    void *message = NULL;
    assert_int_equal(proto_unpack(rows[row].descriptor, request->send.header, &arena, &message), ERR_OK);
    if (w->forge) {
        w->forge = false; /* a block server answers in the metad's stead: must be ignored */
        Cairn__MapGetReply nothing = CAIRN__MAP_GET_REPLY__INIT;
        push(w, message_event(ROLE_BLOCKD, w->leader, request->send.type, MESSAGE_REPLY, request->send.stream,
                              proto_pack(&nothing), (struct slice){0}));
    }
    switch (request->send.type) {
    case MESSAGE_MAP_GET:
        w->maps++;
        answer_map(w, request);
        break;
    case MESSAGE_RESOLVE: {
        Cairn__ResolveReply answer = CAIRN__RESOLVE_REPLY__INIT;
        answer.ns = 11;
        answer.pool = 1;
        answer.realm = 6;
        answer.chunk_bytes = w->cut.max_bytes > 0 ? w->cut.max_bytes : CHUNK_BYTES;
        answer.cut_min_bytes = w->cut.min_bytes;
        answer.cut_avg_bytes = w->cut.avg_bytes;
        reply(w, request, &answer, (struct slice){0});
        break;
    }
    case MESSAGE_UPLOAD_START: {
        Cairn__UploadStartReply answer = CAIRN__UPLOAD_START_REPLY__INIT;
        w->starts++;
        w->entry_count = 0;
        w->page_count = 0;
        w->receipts = 0;
        answer.session = SESSION_OF(w);
        answer.writer = 2;
        answer.capability = (ProtobufCBinaryData){.len = 3, .data = (uint8_t *)"cap"};
        reply(w, request, &answer, answer_asks(w, request->send.body.data, request->send.body.bytes / ASK_ENTRY_BYTES));
        break;
    }
    case MESSAGE_UPLOAD_STAGE:
        w->stages++;
        answer_stage(w, request, message);
        break;
    case MESSAGE_UPLOAD_COMPLETE: {
        Cairn__UploadCompleteReply answer = CAIRN__UPLOAD_COMPLETE_REPLY__INIT;
        w->completes++;
        w->complete_bytes = ((Cairn__UploadCompleteRequest *)message)->bytes;
        answer.version = 1;
        answer.safe_losses = 2;
        reply(w, request, &answer, (struct slice){0});
        break;
    }
    case MESSAGE_PUT_SMALL:
        answer_small(w, request, ((Cairn__PutSmallRequest *)message)->head);
        break;
    case MESSAGE_MANIFEST:
        w->pages++;
        answer_manifest(w, request, message);
        break;
    }
    proto_arena_deinit(&arena);
}

/* ---- the stores ---- */

static void store_put(struct world *w, const struct effect *request, uint32_t store, struct proto_arena *arena)
{
    Cairn__ShardPutRequest *put = NULL;
    assert_int_equal(proto_unpack(&cairn__shard_put_request__descriptor, request->send.header, arena, (void **)&put),
                     0);
    struct receipt receipt = {.store = store, .store_incarnation = 5, .session = SESSION_OF(w)};
    uint8_t packed[RECEIPT_BYTES];
    assert_int_equal(put->shard.len, SHARD_KEY_BYTES);
    shard_key_decode(put->shard.data, &receipt.shard);
    receipt.sealed_bytes = put->sealed_bytes;
    assert_true(shard_checks_match(slice_borrow(put->checks.data, put->checks.len), receipt.shard.k + receipt.shard.m,
                                   receipt.shard.index, request->send.body));
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *at = &w->shards[i];
        /* R-B4: never two shards of one chunk and code on one store. */
        assert_false(at->used && at->store == store && at->key.k == receipt.shard.k &&
                     at->key.index != receipt.shard.index &&
                     memcmp(&at->key.chunk, &receipt.shard.chunk, sizeof at->key.chunk) == 0);
        if (!at->used) {
            *at = (struct shard){true, store, receipt.shard, put->sealed_bytes, slice_ref(request->send.body)};
            break;
        }
    }
    receipt_sign(&receipt, receipt_key, packed);
    Cairn__ShardPutReply answer = CAIRN__SHARD_PUT_REPLY__INIT;
    answer.receipt = (ProtobufCBinaryData){.len = sizeof packed, .data = packed};
    reply(w, request, &answer, (struct slice){0});
}

static void store_get(struct world *w, const struct effect *request, uint32_t store, struct proto_arena *arena)
{
    Cairn__ShardGetRequest *get = NULL;
    assert_int_equal(proto_unpack(&cairn__shard_get_request__descriptor, request->send.header, arena, (void **)&get),
                     0);
    struct shard_key key;
    shard_key_decode(get->shard.data, &key);
    for (unsigned i = 0; i < SHARDS && w->shards[i].used; i++) {
        struct shard *at = &w->shards[i];
        if (at->store == store && at->key.index == key.index && at->key.k == key.k &&
            memcmp(&at->key.chunk, &key.chunk, sizeof key.chunk) == 0) {
            Cairn__ShardGetReply answer = CAIRN__SHARD_GET_REPLY__INIT;
            answer.sealed_bytes = at->sealed_bytes;
            struct slice body = slice_copy(at->data.data, at->data.bytes);
            body.data[100] ^= w->wrong_bytes[store] ? 1 : 0;
            reply(w, request, &answer, body);
            return;
        }
    }
    refuse(w, request, ERR_NOT_HERE, 0);
}

static void store_inventory(struct world *w, const struct effect *request, uint32_t store, struct proto_arena *arena)
{
    Cairn__InventoryRequest *ask = NULL;
    assert_int_equal(proto_unpack(&cairn__inventory_request__descriptor, request->send.header, arena, (void **)&ask),
                     0);
    Cairn__InventoryShard shards[8], *list[8];
    Cairn__InventoryReply answer = CAIRN__INVENTORY_REPLY__INIT;
    answer.shards = list;
    for (unsigned i = 0; i < SHARDS && w->shards[i].used; i++) {
        struct shard *at = &w->shards[i];
        if (at->store == store && memcmp(&at->key.chunk, ask->chunk.data, 32) == 0) {
            assert_true(answer.n_shards < 8);
            cairn__inventory_shard__init(&shards[answer.n_shards]);
            shards[answer.n_shards].k = at->key.k;
            shards[answer.n_shards].m = at->key.m;
            shards[answer.n_shards].index = at->key.index;
            list[answer.n_shards] = &shards[answer.n_shards];
            answer.n_shards++;
        }
    }
    reply(w, request, &answer, (struct slice){0});
}

static void blockd(struct world *w, const struct effect *request)
{
    uint32_t store = request->send.to.node;
    struct proto_arena arena = {0};
    assert_true(store >= 1 && store <= STORES);
    if (w->silent[store]) {
        return;
    }
    if (w->dead[store]) {
        closed(w, request->send.to, ERR_UNREACHABLE);
        return;
    }
    uint32_t *refusals = request->send.type == MESSAGE_SHARD_PUT ? &w->puts_refused : &w->gets_refused;
    if (*refusals > 0) {
        (*refusals)--;
        refuse(w, request, w->refusal, 0);
        return;
    }
    if (request->send.type == MESSAGE_SHARD_PUT && w->not_owner[store]) {
        refuse(w, request, ERR_NOT_OWNER, 0);
    } else if (request->send.type == MESSAGE_SHARD_PUT) {
        store_put(w, request, store, &arena);
    } else if (request->send.type == MESSAGE_SHARD_GET) {
        store_get(w, request, store, &arena);
    } else {
        assert_int_equal(request->send.type, MESSAGE_INVENTORY);
        store_inventory(w, request, store, &arena);
    }
    proto_arena_deinit(&arena);
}

/* ---- the shell ---- */

static void shell(struct world *w, const struct effect *effect)
{
    uint64_t id = effect->send.stream;
    const struct slice header = effect->send.header, body = effect->send.body;
    uint8_t answer[16];
    if (effect->send.type == MESSAGE_CLIENT_KEYS_WANTED) {
        w->keys_count = get_u32(header.data);
        w->keys_wanted++;
        w->keys_first = w->keys_next;
        w->keys_next += w->keys_count;
        put_u64(answer, w->keys_first);
        put_u64(answer + 8, w->keys_next);
        local(w, MESSAGE_CLIENT_KEYS, 0, slice_copy(answer, 16), (struct slice){0});
    } else if (effect->send.type == MESSAGE_CLIENT_DONE) {
        w->done = client_op_decode(header);
    } else if (effect->send.type == MESSAGE_CLIENT_CONFIRM) {
        put_u32(answer, w->confirm);
        local(w, MESSAGE_CLIENT_CONFIRMED, id, slice_copy(answer, 4), (struct slice){0});
    } else if (effect->send.type == MESSAGE_CLIENT_DATA) {
        assert_int_equal(get_u64(header.data), w->out_bytes); /* in order */
        assert_true(w->out_bytes + body.bytes <= FILE_BYTES);
        memcpy(w->out + w->out_bytes, body.data, body.bytes);
        w->out_bytes += body.bytes;
        put_u64(answer, body.bytes);
        local(w, MESSAGE_CLIENT_ACK, id, slice_copy(answer, 8), (struct slice){0});
    } else if (effect->send.type == MESSAGE_CLIENT_WANT) {
        uint64_t offset = get_u64(header.data), bytes = get_u64(header.data + 8);
        uint64_t left = (w->file_bytes > 0 ? w->file_bytes : FILE_BYTES) - offset;
        put_u64(answer, offset);
        put_u32(answer + 8, ERR_OK);
        local(w, MESSAGE_CLIENT_FEED, id, slice_copy(answer, 12),
              slice_copy(w->file + offset, bytes < left ? bytes : left));
    }
}

/* ---- the interpreter ---- */

static void timer_set(struct world *w, uint64_t id, uint64_t at)
{
    for (uint32_t i = 0; i < w->timer_count; i++) {
        if (w->timer_ids[i] == id) {
            w->timer_ids[i] = w->timer_ids[--w->timer_count];
            w->timer_at[i] = w->timer_at[w->timer_count];
            break;
        }
    }
    if (at != 0) {
        assert_true(w->timer_count < 512);
        w->timer_ids[w->timer_count] = id;
        w->timer_at[w->timer_count++] = at;
    }
}

static void perform(struct world *w, struct effect *effect)
{
    struct event event = {0};
    switch (effect->kind) {
    case EFFECT_SEND:
        if (effect->send.to.role == ROLE_LOCAL) {
            shell(w, effect);
        } else if (effect->send.to.role == ROLE_METAD) {
            metad(w, effect);
        } else {
            blockd(w, effect);
        }
        slice_drop(&effect->send.header);
        slice_drop(&effect->send.body);
        break;
    case EFFECT_TIMER:
        timer_set(w, effect->timer.id, effect->timer.deadline_ns);
        break;
    case EFFECT_DISK_READ:
        event.kind = EVENT_DISK_DONE;
        event.disk.token = effect->disk.token;
        assert_true(effect->disk.offset + effect->disk.bytes <= FILE_BYTES);
        event.disk.data = slice_copy(w->file + effect->disk.offset, effect->disk.bytes);
        push(w, event);
        break;
    case EFFECT_COMPUTE:
        event.kind = EVENT_COMPUTE_DONE;
        event.compute.token = effect->compute.token;
        event.compute.job = effect->compute.job;
        compute_run(effect->compute.job);
        push(w, event);
        break;
    default:
        fail_msg("an effect the client has no use for: %d", effect->kind);
    }
}

static void step(struct world *w, struct event event)
{
    event.now_ns = w->now_ns;
    event.random = w->random += 0x9e3779b97f4a7c15ull;
    client_step(w->client, &event, &w->fx);
    if (event.kind == EVENT_MESSAGE) {
        slice_drop(&event.message.header);
        slice_drop(&event.message.body);
    } else if (event.kind == EVENT_DISK_DONE) {
        slice_drop(&event.disk.data);
    } else if (event.kind == EVENT_COMPUTE_DONE) {
        compute_job_destroy(event.compute.job);
    }
    for (unsigned long i = 0; i < w->fx.count; i++) {
        perform(w, &w->fx.items[i]);
    }
    w->fx.count = 0;
}

static bool turn(struct world *w)
{
    if (w->head < w->count) {
        step(w, w->events[w->head++]);
        return true;
    }
    w->head = w->count = 0;
    uint32_t first = 0;
    for (uint32_t i = 1; i < w->timer_count; i++) {
        first = w->timer_at[i] < w->timer_at[first] ? i : first;
    }
    if (w->timer_count == 0) {
        return false;
    }
    struct event event = {.kind = EVENT_TIMER, .timer.id = w->timer_ids[first]};
    w->now_ns = w->timer_at[first] > w->now_ns ? w->timer_at[first] : w->now_ns;
    timer_set(w, event.timer.id, 0);
    step(w, event);
    return true;
}

static struct client_op *run(struct world *w, struct client_op *op)
{
    w->done = NULL;
    local(w, MESSAGE_CLIENT_OP, op->id, client_op_encode(op), (struct slice){0});
    for (int i = 0; i < 200000 && w->done == NULL; i++) {
        assert_true(turn(w));
    }
    assert_ptr_equal(w->done, op);
    return op;
}

/* ---- fixtures ---- */

static uint64_t live_before;

static struct world *world_make(void)
{
    live_before = slice_live_bytes();
    struct world *w = mem_alloc(sizeof *w);
    w->now_ns = 1000000000;
    w->leader = 1;
    w->standins = 2;
    w->keys_next = 100;
    struct client_params params = {.metads = {1, 2, 3}, .metad_count = 3};
    w->client = client_create(&params);
    uint64_t x = 88172645463325252ull;
    for (uint32_t i = 0; i < FILE_BYTES; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        w->file[i] = (uint8_t)x;
    }
    return w;
}

static void world_end(struct world *w)
{
    client_destroy(w->client);
    for (; w->head < w->count; w->head++) {
        struct event *event = &w->events[w->head];
        if (event->kind == EVENT_MESSAGE) {
            slice_drop(&event->message.header);
            slice_drop(&event->message.body);
        }
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        slice_drop(&w->shards[i].data);
    }
    for (unsigned i = 0; i < 8; i++) {
        slice_drop(&w->small_headers[i]);
    }
    effects_deinit(&w->fx);
    free(w->events);
    free(w);
    assert_int_equal(slice_live_bytes(), live_before);
}

static struct client_op *put_op(uint64_t id, uint64_t bytes)
{
    struct client_op *op = client_op_create(CLIENT_PUT, id, "home");
    op->put.bytes = bytes;
    op->put.confirm = true;
    op->put.name_bytes = 1;
    op->put.name[0] = 'f';
    op->put.any_base = true;
    return op;
}

static inline void put_whole(struct world *w)
{
    struct client_op *op = run(w, put_op(1, FILE_BYTES));
    assert_int_equal(op->err, ERR_OK);
    assert_int_equal(op->counts.chunks, 3);
    assert_int_equal(w->entry_count, 3);
    assert_int_equal(w->completes, 1);
    assert_int_equal(w->complete_bytes, FILE_BYTES);
    client_op_destroy(op);
}

static inline void get_whole(struct world *w)
{
    struct client_op *op = client_op_create(CLIENT_GET, 2, "home");
    op->get.name_bytes = 1;
    op->get.name[0] = 'f';
    run(w, op);
    assert_int_equal(op->err, ERR_OK);
    assert_int_equal(w->out_bytes, FILE_BYTES);
    assert_memory_equal(w->out, w->file, FILE_BYTES);
    client_op_destroy(op);
}

static inline uint32_t shards_on(const struct world *w, uint32_t store, uint8_t k)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        count += w->shards[i].used && w->shards[i].store == store && w->shards[i].key.k == k;
    }
    return count;
}

static inline void shards_lose(struct world *w, uint32_t store)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        if (w->shards[i].used && w->shards[i].store == store) {
            w->shards[i].store = 99;
        }
    }
}

#endif
