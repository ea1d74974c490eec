/* The journey of one missing chunk: sealed under its key, cut into shards, sent to the stores of its placement group,
 * until enough receipts are there. It stands between the file and the block plane.
 *
 * Happy path: SEALING, SENDING to the k+m owners, DONE with k+m receipts. A chunk of up to the workspace's copy_bytes
 * is kept as m+1 copies, code (1, m) (R-F2).
 *
 * How it fails: a store that does not take its shard is replaced by the slot's stand-ins (R-B4). With k+1 receipts of
 * the code the chunk is good. With fewer stores than that it is opened again and written as m+1 copies in slots 0..m;
 * of these two suffice. With fewer still it waits and tries all stores again until the budget is spent: UNAVAILABLE. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "put.h"

static const Cairn__MapPool *chunk_pool(const struct client *c, const struct op_slot *slot)
{
    const Cairn__MapPool *pool = route_pool(c, c->workspaces[slot->workspace].pool);
    return pool != NULL && pool->n_slots > 0 ? pool : NULL;
}

/* Tries again after a pause, or ends the operation, and with it the chunk, when the budget is spent. */
static void chunk_wait(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    uint64_t budget = slot->op->budget_ns > 0 ? slot->op->budget_ns : c->params.budget_ns;
    if (chunk->waiting_since_ns == 0) {
        chunk->waiting_since_ns = c->now_ns;
    }
    if (c->now_ns >= chunk->waiting_since_ns + budget) {
        char text[CLIENT_TEXT_BYTES];
        snprintf(text, sizeof text, "a chunk found too few stores that take it; last: %s",
                 chunk->last == ERR_OK ? "none of its stores is up" : err_text(chunk->last));
        client_op_finish(c, slot, chunk->last == ERR_DISK_FULL ? ERR_DISK_FULL : ERR_UNAVAILABLE, text, fx);
        return;
    }
    chunk->state = CHUNK_WAITING;
    route_want_map(c, true, fx);
    put_arm_timer(c, slot, fx);
}

/* ---- sealing ---- */

/* Receipts that make the chunk good: one more than its code needs to be read. */
static uint32_t chunk_needed(const struct put_chunk *chunk)
{
    return chunk->m == 0 ? chunk->k : chunk->k + 1u;
}

static bool chunk_seats(const struct client *c, const Cairn__MapPool *pool, const struct put_chunk *chunk)
{
    uint32_t stores[LIMIT_SHARDS] = {0};
    uint32_t pg = place_pg(pool, &chunk->chunk);
    return place_assign(c, pool, pg, chunk->k + chunk->m, &chunk->refusals, stores) >= chunk_needed(chunk);
}

void put_chunk_seal(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    const Cairn__MapPool *pool = chunk_pool(c, slot);
    CHECK(chunk->plain.bytes > 0 && !chunk->sealed);
    if (pool == NULL) {
        chunk_wait(c, slot, chunk, fx);
        return;
    }
    bool copies = chunk->fallback || chunk->plain_bytes <= c->workspaces[slot->workspace].copy_bytes;
    chunk->k = copies ? 1 : (uint8_t)pool->k;
    chunk->m = (uint8_t)pool->m;
    if (!copies && !chunk_seats(c, pool, chunk)) {
        chunk->k = 1;
        chunk->fallback = true;
    }
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_SEAL);
    job->priority = 1;
    job->k = chunk->k;
    job->m = chunk->m;
    job->in[0] = slice_ref(chunk->plain);
    job->seal.chunk = chunk->chunk;
    job->seal.sha = chunk->sha;
    job->seal.plain_bytes = chunk->plain_bytes;
    memcpy(job->seal.kc, chunk->kc, sizeof chunk->kc);
    chunk->state = CHUNK_SEALING;
    fx_compute(fx, token_of(c, slot, chunk->entry), job);
}

/* The shards as copies of the code (1, m): back to the plain chunk first. */
static void chunk_fall_back(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_OPEN);
    job->priority = 1;
    job->k = chunk->k;
    job->m = chunk->m;
    job->seal.chunk = chunk->chunk;
    job->seal.sha = chunk->sha;
    job->seal.encoding = chunk->encoding;
    job->seal.plain_bytes = chunk->plain_bytes;
    job->seal.sealed_bytes = chunk->sealed_bytes;
    memcpy(job->seal.kc, chunk->kc, sizeof chunk->kc);
    for (uint32_t i = 0; i < chunk->k; i++) {
        job->in[i] = slice_ref(chunk->shards[i]);
    }
    for (uint32_t i = 0; i < LIMIT_SHARDS; i++) {
        slice_drop(&chunk->shards[i]);
        chunk->stores[i] = 0;
        chunk->shard_states[i] = SHARD_IDLE;
    }
    slice_drop(&chunk->checks);
    chunk->receipt_count = 0;
    chunk->sealed = false;
    chunk->fallback = true;
    chunk->state = CHUNK_OPENING;
    fx_compute(fx, token_of(c, slot, chunk->entry), job);
}

void put_chunk_on_compute(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct compute_job *job,
                          struct effects *fx)
{
    if (chunk->state == CHUNK_OPENING) {
        chunk->plain = slice_ref(job->out[0]);
        put_chunk_seal(c, slot, chunk, fx);
        return;
    }
    CHECK(chunk->state == CHUNK_SEALING && job->op == COMPUTE_CHUNK_SEAL);
    uint32_t count = chunk->k + chunk->m;
    for (uint32_t i = 0; i < count; i++) {
        chunk->shards[i] = slice_ref(job->out[i]);
    }
    chunk->checks = slice_ref(job->out[count]);
    chunk->encoding = job->seal.encoding;
    chunk->sealed_bytes = job->seal.sealed_bytes;
    chunk->sealed = true;
    free(chunk->receipts);
    chunk->receipts = mem_alloc((size_t)count * RECEIPT_BYTES);
    slice_drop(&chunk->plain);
    chunk->state = CHUNK_SENDING;
    put_chunk_send(c, slot, chunk, fx);
}

/* ---- sending ---- */

static struct shard_key chunk_shard_key(const struct client *c, const struct op_slot *slot,
                                        const struct put_chunk *chunk, uint32_t index)
{
    return (struct shard_key){
        .realm = c->workspaces[slot->workspace].realm,
        .chunk = chunk->chunk,
        .writer = chunk->writer,
        .encoding = chunk->encoding,
        .k = chunk->k,
        .m = chunk->m,
        .index = (uint8_t)index,
    };
}

static void shard_send(struct client *c, struct op_slot *slot, struct put_chunk *chunk, uint32_t index,
                       struct effects *fx)
{
    const Cairn__MapStore *store = route_store(c, chunk->stores[index]);
    CHECK(store != NULL && chunk->shard_states[index] == SHARD_IDLE);
    uint8_t key[SHARD_KEY_BYTES];
    struct shard_key shard = chunk_shard_key(c, slot, chunk, index);
    shard_key_encode(&shard, key);
    Cairn__ShardPutRequest request = CAIRN__SHARD_PUT_REQUEST__INIT;
    request.capability.data = slot->put->capability.data;
    request.capability.len = slot->put->capability.bytes;
    request.shard = (ProtobufCBinaryData){.len = sizeof key, .data = key};
    request.sealed_bytes = chunk->sealed_bytes;
    request.checks = (ProtobufCBinaryData){.len = chunk->checks.bytes, .data = chunk->checks.data};
    request.plain_bytes = chunk->plain_bytes;
    request.slot = index;
    request.map_epoch = c->map->epoch;
    request.store = store->store;
    request.store_incarnation = store->incarnation;
    struct owner owner = put_owner(c, slot, OWNER_PUT_SHARD);
    owner.entry = chunk->entry;
    owner.index = index;
    chunk->shard_states[index] = SHARD_FLYING;
    bool sent = call_store(c, owner, MESSAGE_SHARD_PUT, store->store, proto_pack(&request),
                           slice_ref(chunk->shards[index]), fx);
    CHECK(sent);
}

/* No shard is under way and none can be: is what there is enough? */
static void chunk_settle(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    if (chunk->expired) {
        chunk->expired = false;
        chunk->state = CHUNK_HASHED; /* asked again: the answer brings a new capability */
        c->wake = true;
    } else if (chunk->receipt_count >= chunk_needed(chunk)) {
        put_chunk_done(c, slot, chunk, fx);
        c->wake = true;
    } else if (chunk->k > 1) {
        chunk_fall_back(c, slot, chunk, fx);
    } else {
        chunk_wait(c, slot, chunk, fx);
    }
}

static uint32_t shards_in(const struct put_chunk *chunk, enum shard_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < (uint32_t)chunk->k + chunk->m; i++) {
        count += chunk->shard_states[i] == state;
    }
    return count;
}

/* Sends what is idle where a store can be found for it. Without a map or room it waits for the answers under way first:
 * they come to a chunk that is SENDING. */
void put_chunk_send(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    CHECK(chunk->state == CHUNK_SENDING && chunk->sealed);
    const Cairn__MapPool *pool = chunk_pool(c, slot);
    uint32_t count = chunk->k + chunk->m;
    uint32_t idle = chunk->expired ? 0 : shards_in(chunk, SHARD_IDLE);
    if (idle > 0 && (pool == NULL || pool->k + pool->m < count || !call_room(c, idle))) {
        if (shards_in(chunk, SHARD_FLYING) == 0) {
            chunk_wait(c, slot, chunk, fx);
        }
        return;
    }
    if (idle > 0) {
        (void)place_assign(c, pool, place_pg(pool, &chunk->chunk), count, &chunk->refusals, chunk->stores);
    }
    for (uint32_t i = 0; idle > 0 && i < count; i++) {
        if (chunk->shard_states[i] == SHARD_IDLE && chunk->stores[i] != 0) {
            shard_send(c, slot, chunk, i, fx);
        }
    }
    if (shards_in(chunk, SHARD_FLYING) == 0) {
        chunk_settle(c, slot, chunk, fx);
    }
}

void put_chunk_retry(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    CHECK(chunk->state == CHUNK_WAITING);
    chunk->refusals.count = 0;
    if (!chunk->sealed) {
        put_chunk_seal(c, slot, chunk, fx);
        return;
    }
    chunk->state = CHUNK_SENDING;
    put_chunk_send(c, slot, chunk, fx);
}

/* ---- receipts ---- */

/* The store's proof, when it is of this very shard; BAD_RECEIPT otherwise. Its MAC is the metadata plane's to check. */
static enum err receipt_keep(struct client *c, struct op_slot *slot, struct put_chunk *chunk, uint32_t index,
                             struct slice header)
{
    struct proto_arena arena = {0};
    Cairn__ShardPutReply *reply = NULL;
    enum err err = proto_unpack(&cairn__shard_put_reply__descriptor, header, &arena, (void **)&reply);
    struct receipt receipt;
    if (err == ERR_OK) {
        err = receipt_peek(reply->receipt.data, reply->receipt.len, &receipt);
    }
    if (err == ERR_OK) {
        uint8_t want[SHARD_KEY_BYTES], got[SHARD_KEY_BYTES];
        struct shard_key key = chunk_shard_key(c, slot, chunk, index);
        shard_key_encode(&key, want);
        shard_key_encode(&receipt.shard, got);
        bool mine = memcmp(want, got, sizeof want) == 0 && receipt.store == chunk->stores[index] &&
                    receipt.session == slot->put->session && receipt.sealed_bytes == chunk->sealed_bytes;
        err = mine ? ERR_OK : ERR_BAD_RECEIPT;
    }
    if (err == ERR_OK) {
        memcpy(chunk->receipts + (size_t)index * RECEIPT_BYTES, reply->receipt.data, RECEIPT_BYTES);
    }
    proto_arena_deinit(&arena);
    return err;
}

void put_on_shard(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                  struct effects *fx)
{
    struct put_chunk *chunk = put_chunk_at(slot->put, owner->entry);
    uint32_t index = owner->index;
    CHECK(chunk != NULL && chunk->state == CHUNK_SENDING && chunk->shard_states[index] == SHARD_FLYING);
    enum err err = outcome->err;
    if (err == ERR_OK) {
        err = receipt_keep(c, slot, chunk, index, outcome->header);
    }
    if (err == ERR_OK) {
        chunk->shard_states[index] = SHARD_DONE;
        chunk->receipt_count++;
    } else {
        chunk->shard_states[index] = SHARD_IDLE;
        chunk->stores[index] = 0;
        chunk->last = err;
        bool expired = err == ERR_EXPIRED || err == ERR_BAD_CAPABILITY || err == ERR_SESSION_CLOSED;
        if (expired && (chunk->expired || chunk->reasks < PUT_REASKS)) {
            chunk->reasks += !chunk->expired;
            chunk->expired = true;
        } else {
            refusals_add(&chunk->refusals, outcome->store);
        }
    }
    put_chunk_send(c, slot, chunk, fx);
}
