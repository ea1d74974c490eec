/* One chunk of a download: k of its shards, found and opened.
 *
 * Happy path: the code follows from the plain length (R-F2), the owners of slots 0..k-1 have the data shards, OPEN
 * verifies. How it fails: a shard that does not come is replaced by another of the code; when the owners do not
 * suffice, all stores of the placement group are asked for their inventory and any code of which k indexes exist is
 * taken (R-F3), the copies of a fallback among them. A chunk that does not open is tried with other sets of k shards,
 * so one store that sends wrong bytes does not spoil it. When nothing helps it waits and begins anew until the budget
 * is spent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "get.h"

void get_chunk_free(struct client *c, struct get_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        slice_drop(&chunk->sources[i].data);
    }
    slice_drop(&chunk->plain);
    window_give(c, chunk->charge);
    free(chunk);
}

static void source_add(struct get_chunk *chunk, uint32_t store, uint8_t k, uint8_t m, uint8_t index)
{
    if (store != 0 && chunk->source_count < GET_SOURCES) {
        chunk->sources[chunk->source_count++] = (struct source){.store = store, .k = k, .m = m, .index = index};
    }
}

static void sources_clear(struct get_chunk *chunk)
{
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        slice_drop(&chunk->sources[i].data);
    }
    chunk->source_count = 0;
    chunk->combination = 0;
}

/* Tries again after a pause, or ends the operation, and with it the chunk, when the budget is spent. */
static void chunk_wait(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx)
{
    uint64_t budget = slot->op->budget_ns > 0 ? slot->op->budget_ns : c->params.budget_ns;
    if (chunk->waiting_since_ns == 0) {
        chunk->waiting_since_ns = c->now_ns;
    }
    if (c->now_ns >= chunk->waiting_since_ns + budget) {
        char text[CLIENT_TEXT_BYTES], id[17];
        hex_encode(chunk->manifest.chunk.bytes, 8, id);
        const char *why = !chunk->inventoried     ? "which stores have them is not known here"
                          : chunk->unanswered > 0 ? "stores that may have them do not answer"
                                                  : "every store was asked";
        snprintf(text, sizeof text, "chunk %s at offset %llu: too few shards; %s; last: %s", id,
                 (unsigned long long)chunk->offset, why, err_text(chunk->last));
        bool lost = chunk->inventoried && chunk->unanswered == 0;
        client_op_finish(c, slot, lost ? ERR_CORRUPT : ERR_UNAVAILABLE, text, fx);
        return;
    }
    chunk->state = GET_WAITING;
    place_forgive(c);
    route_want_map(c, true, fx);
    if (chunk->expired) {
        get_want_capability(c, slot, fx);
    }
    get_arm_timer(c, slot, fx);
}

void get_chunk_begin(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx)
{
    const Cairn__MapPool *pool = route_pool(c, slot->get->pool);
    sources_clear(chunk);
    chunk->state = GET_FETCHING;
    chunk->inventoried = false;
    chunk->expired = false;
    chunk->unanswered = 0;
    chunk->combinations = 0;
    if (pool == NULL || pool->n_slots == 0) {
        chunk_wait(c, slot, chunk, fx);
        return;
    }
    bool copies = chunk->manifest.entry.plain_bytes <= c->workspaces[slot->workspace].copy_bytes;
    chunk->k = copies ? 1 : (uint8_t)pool->k;
    chunk->m = (uint8_t)pool->m;
    uint32_t count = chunk->k + chunk->m;
    uint32_t pg = place_pg(pool, &chunk->manifest.chunk);
    uint32_t begin = copies ? chunk->manifest.chunk.bytes[31] % count : 0; /* copies share the load */
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (begin + i) % count;
        source_add(chunk, place_candidate(pool, pg, index, 0), chunk->k, chunk->m, (uint8_t)index);
    }
    get_chunk_go(c, slot, chunk, fx);
}

/* ---- fetching ---- */

static bool source_of_code(const struct get_chunk *chunk, const struct source *source)
{
    return source->k == chunk->k && source->m == chunk->m;
}

/* Indexes of the present code in one of the states of the bit set `states`. */
static uint32_t chunk_mask(const struct get_chunk *chunk, uint32_t states)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        const struct source *source = &chunk->sources[i];
        if (source_of_code(chunk, source) && (states >> source->state & 1) != 0) {
            mask |= 1u << source->index;
        }
    }
    return mask;
}

static uint32_t bits(uint32_t mask)
{
    return (uint32_t)__builtin_popcount(mask);
}

#define STATE_BIT(state) (1u << (state))

static void source_fetch(struct client *c, struct op_slot *slot, struct get_chunk *chunk, uint32_t i,
                         struct effects *fx)
{
    struct source *source = &chunk->sources[i];
    uint8_t key[SHARD_KEY_BYTES];
    struct shard_key shard = {
        .realm = slot->get->realm,
        .chunk = chunk->manifest.chunk,
        .writer = chunk->manifest.entry.writer,
        .encoding = chunk->manifest.entry.encoding,
        .k = source->k,
        .m = source->m,
        .index = source->index,
    };
    shard_key_encode(&shard, key);
    Cairn__ShardGetRequest request = CAIRN__SHARD_GET_REQUEST__INIT;
    request.capability.data = slot->get->capability.data;
    request.capability.len = slot->get->capability.bytes;
    request.shard = (ProtobufCBinaryData){.len = sizeof key, .data = key};
    struct owner owner = {
        .kind = OWNER_GET_SHARD,
        .op = (uint32_t)(slot - c->slots),
        .gen = slot->gen,
        .entry = chunk->entry,
        .index = i,
    };
    if (call_store(c, owner, MESSAGE_SHARD_GET, source->store, proto_pack(&request), (struct slice){0}, fx)) {
        source->state = SOURCE_FLYING;
        chunk->flights++;
    } else {
        source->state = SOURCE_FAILED;
        chunk->unanswered++;
    }
}

/* The next source of the code whose index is neither here nor under way: one of a store that seems alive, else any. */
static uint32_t source_next(const struct client *c, const struct get_chunk *chunk)
{
    uint32_t taken = chunk_mask(chunk, STATE_BIT(SOURCE_FLYING) | STATE_BIT(SOURCE_HERE));
    uint32_t any = chunk->source_count;
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        const struct source *source = &chunk->sources[i];
        if (!source_of_code(chunk, source) || source->state != SOURCE_UNTRIED || (taken >> source->index & 1) != 0) {
            continue;
        }
        if (place_usable(c, source->store)) {
            return i;
        }
        any = any == chunk->source_count ? i : any;
    }
    return any;
}

/* The set of k present indexes after `combination` in numerical order, whose shards agree in length. 0: no more. */
static uint32_t combination_next(const struct get_chunk *chunk)
{
    uint32_t here = chunk_mask(chunk, STATE_BIT(SOURCE_HERE));
    for (uint32_t mask = chunk->combination + 1; mask <= here; mask++) {
        if ((mask & ~here) != 0 || bits(mask) != chunk->k) {
            continue;
        }
        uint32_t sealed_bytes = 0;
        bool agree = true;
        for (uint32_t i = 0; i < chunk->source_count; i++) {
            const struct source *source = &chunk->sources[i];
            bool in = source_of_code(chunk, source) && source->state == SOURCE_HERE && (mask >> source->index & 1) != 0;
            agree = agree && (!in || sealed_bytes == 0 || sealed_bytes == source->sealed_bytes);
            sealed_bytes = in ? source->sealed_bytes : sealed_bytes;
        }
        if (agree) {
            return mask;
        }
    }
    return 0;
}

static void chunk_open(struct client *c, struct op_slot *slot, struct get_chunk *chunk, uint32_t mask,
                       struct effects *fx)
{
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_OPEN);
    job->k = chunk->k;
    job->m = chunk->m;
    job->seal.chunk = chunk->manifest.chunk;
    job->seal.sha = chunk->manifest.entry.sha;
    job->seal.encoding = chunk->manifest.entry.encoding;
    job->seal.plain_bytes = chunk->manifest.entry.plain_bytes;
    memcpy(job->seal.kc, chunk->manifest.kc, sizeof job->seal.kc);
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        const struct source *source = &chunk->sources[i];
        bool in = source_of_code(chunk, source) && source->state == SOURCE_HERE && (mask >> source->index & 1) != 0;
        if (in && job->in[source->index].bytes == 0) {
            job->in[source->index] = slice_ref(source->data);
            job->seal.sealed_bytes = source->sealed_bytes;
        }
    }
    chunk->combination = mask;
    chunk->combinations++;
    chunk->state = GET_OPENING;
    fx_compute(fx, token_of(c, slot, chunk->entry), job);
}

/* ---- inventory ---- */

static bool store_listed(const uint32_t *stores, uint32_t count, uint32_t store)
{
    for (uint32_t i = 0; i < count; i++) {
        if (stores[i] == store) {
            return true;
        }
    }
    return false;
}

static void inventory_ask(struct client *c, struct op_slot *slot, struct get_chunk *chunk, uint32_t store,
                          struct effects *fx)
{
    Cairn__InventoryRequest request = CAIRN__INVENTORY_REQUEST__INIT;
    request.capability.data = slot->get->capability.data;
    request.capability.len = slot->get->capability.bytes;
    request.realm = slot->get->realm;
    request.chunk = (ProtobufCBinaryData){.len = 32, .data = chunk->manifest.chunk.bytes};
    request.writer = chunk->manifest.entry.writer;
    request.encoding = (ProtobufCBinaryData){.len = 16, .data = chunk->manifest.entry.encoding.bytes};
    struct owner owner = {
        .kind = OWNER_GET_INVENTORY,
        .op = (uint32_t)(slot - c->slots),
        .gen = slot->gen,
        .entry = chunk->entry,
        .index = store,
    };
    if (call_store(c, owner, MESSAGE_INVENTORY, store, proto_pack(&request), (struct slice){0}, fx)) {
        chunk->flights++;
    } else {
        chunk->unanswered++;
    }
}

/* Asks every store of the placement group. */
static void chunk_inventory(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx)
{
    const Cairn__MapPool *pool = route_pool(c, slot->get->pool);
    if (pool == NULL || pool->n_slots == 0 || !call_room(c, GET_SOURCES)) {
        chunk_wait(c, slot, chunk, fx);
        return;
    }
    uint32_t pg = place_pg(pool, &chunk->manifest.chunk);
    uint32_t stores[GET_SOURCES];
    uint32_t count = 0;
    for (uint32_t s = 0; s < pool->k + pool->m; s++) {
        for (uint32_t i = 0; i <= pool->standin_count; i++) {
            uint32_t store = place_candidate(pool, pg, s, i);
            if (store != 0 && count < GET_SOURCES && !store_listed(stores, count, store)) {
                stores[count++] = store;
            }
        }
    }
    sources_clear(chunk);
    chunk->state = GET_ASKING;
    chunk->inventoried = count > 0;
    chunk->unanswered = 0;
    for (uint32_t i = 0; i < count; i++) {
        inventory_ask(c, slot, chunk, stores[i], fx);
    }
    if (chunk->flights == 0) {
        chunk_wait(c, slot, chunk, fx);
    }
}

/* Takes a code of which k indexes may be had and one of them is still to be fetched; false when there is none. */
static bool chunk_choose_code(const struct client *c, struct get_chunk *chunk)
{
    const uint8_t k = chunk->k, m = chunk->m;
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        chunk->k = chunk->sources[i].k;
        chunk->m = chunk->sources[i].m;
        uint32_t mask = chunk_mask(chunk, STATE_BIT(SOURCE_UNTRIED) | STATE_BIT(SOURCE_HERE));
        if (bits(mask) >= chunk->k && source_next(c, chunk) < chunk->source_count) {
            chunk->combination = chunk->k == k && chunk->m == m ? chunk->combination : 0;
            return true;
        }
    }
    return false;
}

/* Does what is next for a chunk that is FETCHING: opens it, fetches more, looks elsewhere or waits. */
void get_chunk_go(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx)
{
    CHECK(chunk->state == GET_FETCHING);
    uint32_t mask = chunk->combinations < GET_COMBINATIONS ? combination_next(chunk) : 0;
    if (mask != 0) {
        chunk_open(c, slot, chunk, mask, fx);
        return;
    }
    if (!call_room(c, LIMIT_SHARDS)) {
        if (chunk->flights == 0) {
            chunk_wait(c, slot, chunk, fx);
        }
        return;
    }
    /* One more than is there for a chunk that had k and did not open. */
    uint32_t here = bits(chunk_mask(chunk, STATE_BIT(SOURCE_HERE)));
    uint32_t want = here >= chunk->k ? here + 1 : chunk->k;
    while (!chunk->expired && here + bits(chunk_mask(chunk, STATE_BIT(SOURCE_FLYING))) < want) {
        uint32_t i = source_next(c, chunk);
        if (i == chunk->source_count) {
            break;
        }
        source_fetch(c, slot, chunk, i, fx);
    }
    if (chunk->flights > 0) {
        return;
    }
    if (chunk->expired) {
        chunk_wait(c, slot, chunk, fx);
    } else if (chunk_choose_code(c, chunk)) {
        get_chunk_go(c, slot, chunk, fx);
    } else if (!chunk->inventoried) {
        chunk_inventory(c, slot, chunk, fx);
    } else {
        chunk_wait(c, slot, chunk, fx);
    }
}

/* ---- replies ---- */

static bool err_of_capability(enum err err)
{
    return err == ERR_EXPIRED || err == ERR_BAD_CAPABILITY;
}

static bool err_of_silence(enum err err)
{
    return err != ERR_NOT_HERE && err != ERR_NOT_FOUND && err != ERR_CORRUPT;
}

/* Checks lengths against each other; what the bytes are, OPEN tells. */
static enum err shard_keep(struct source *source, const struct outcome *outcome)
{
    struct proto_arena arena = {0};
    Cairn__ShardGetReply *reply = NULL;
    enum err err = proto_unpack(&cairn__shard_get_reply__descriptor, outcome->header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        bool sane = reply->sealed_bytes > 0 && reply->sealed_bytes <= LIMIT_SEALED_BYTES &&
                    outcome->body.bytes == code_shard_bytes(reply->sealed_bytes, source->k);
        err = sane ? ERR_OK : ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        source->sealed_bytes = reply->sealed_bytes;
        source->data = slice_ref(outcome->body);
        source->state = SOURCE_HERE;
    }
    proto_arena_deinit(&arena);
    return err;
}

void get_on_shard(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                  struct effects *fx)
{
    struct get_chunk *chunk = get_chunk_at(slot->get, owner->entry);
    if (chunk == NULL || owner->index >= chunk->source_count || chunk->sources[owner->index].state != SOURCE_FLYING) {
        return; /* of a chunk that was opened without it */
    }
    struct source *source = &chunk->sources[owner->index];
    CHECK(chunk->flights > 0);
    chunk->flights--;
    enum err err = outcome->err == ERR_OK ? shard_keep(source, outcome) : outcome->err;
    if (err != ERR_OK) {
        source->state = SOURCE_FAILED;
        chunk->last = err;
        chunk->expired = chunk->expired || err_of_capability(err);
        chunk->unanswered += err_of_silence(err);
    }
    if (chunk->state == GET_FETCHING) {
        get_chunk_go(c, slot, chunk, fx);
    }
}

/* A chunk whose every inventory has come goes on with what they named. */
void get_on_inventory(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                      struct effects *fx)
{
    struct get_chunk *chunk = get_chunk_at(slot->get, owner->entry);
    CHECK(chunk != NULL && chunk->state == GET_ASKING && chunk->flights > 0);
    chunk->flights--;
    struct proto_arena arena = {0};
    Cairn__InventoryReply *reply = NULL;
    enum err err = outcome->err;
    if (err == ERR_OK) {
        err = proto_unpack(&cairn__inventory_reply__descriptor, outcome->header, &arena, (void **)&reply);
    }
    for (size_t i = 0; err == ERR_OK && i < reply->n_shards; i++) {
        const Cairn__InventoryShard *shard = reply->shards[i];
        if (code_valid(shard->k, shard->m) && shard->index < shard->k + shard->m) {
            source_add(chunk, owner->index, (uint8_t)shard->k, (uint8_t)shard->m, (uint8_t)shard->index);
        }
    }
    proto_arena_deinit(&arena);
    chunk->expired = chunk->expired || err_of_capability(err);
    chunk->unanswered += err != ERR_OK && err_of_silence(err);
    if (chunk->flights > 0) {
        return;
    }
    chunk->state = GET_FETCHING;
    chunk->combinations = 0;
    if (!chunk->expired && chunk_choose_code(c, chunk)) {
        get_chunk_go(c, slot, chunk, fx);
        return;
    }
    chunk_wait(c, slot, chunk, fx);
}
