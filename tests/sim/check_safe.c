/* What an acknowledgement says of stores (check_safe.h). */
#include "check_safe.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "inside.h"
#include "proto/cairn.pb-c.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/token.h"

enum { CODES = 4, STORES = 64 };
#define LONG_DOWN_NS (20 * SECOND) /* by then every map calls it down */

/* 64-bit names to numbers. */
struct table {
    uint64_t *keys; /* 0: free */
    uint32_t *values;
    unsigned long count, capacity;
};

/* What receipts show of one chunk: a row a code, the store of each index. */
struct shown {
    uint8_t k[CODES], m[CODES];
    uint64_t stores[CODES][LIMIT_SHARDS]; /* each that gave a receipt for the index, by its bit */
    unsigned codes;
};

struct upload {
    uint32_t *chunks; /* into `shown` */
    unsigned long count, capacity;
};

struct safe_check {
    struct world *world;
    uint32_t forged_percent;
    struct table receipts; /* given by stores */
    struct table chunks, uploads;
    struct table asked; /* (client, stream) of an UPLOAD_COMPLETE: its upload */
    struct table puts;  /* (client, stream) of a SHARD_PUT: the name of its shard and store */
    struct shown *shown;
    unsigned long shown_count, shown_capacity;
    struct upload *list;
    unsigned long list_count, list_capacity;
    unsigned slot_of[STORES + 1];  /* of the node behind a store of the map */
    uint64_t down_ns[WORLD_NODES]; /* since when; 0: it is up */
    uint64_t acknowledgements;
};

static uint64_t name_of(const void *data, size_t bytes, uint64_t seed)
{
    uint64_t x = seed + 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < bytes; i++) {
        x = (x ^ ((const uint8_t *)data)[i]) * 0x100000001b3ull;
        x ^= x >> 29;
    }
    return x | 1;
}

/* ---- tables ---- */

static uint32_t *table_find(const struct table *table, uint64_t key)
{
    for (unsigned long i = key >> 8; table->capacity > 0; i++) {
        unsigned long at = i & (table->capacity - 1);
        if (table->keys[at] == key) {
            return &table->values[at];
        }
        if (table->keys[at] == 0) {
            break;
        }
    }
    return NULL;
}

static void table_add(struct table *table, uint64_t key, uint32_t value)
{
    unsigned long at = (key >> 8) & (table->capacity - 1);
    while (table->keys[at] != 0) {
        at = (at + 1) & (table->capacity - 1);
    }
    table->keys[at] = key;
    table->values[at] = value;
    table->count++;
}

static void table_put(struct table *table, uint64_t key, uint32_t value)
{
    uint32_t *found = table_find(table, key);
    if (found != NULL) {
        *found = value;
        return;
    }
    if (2 * (table->count + 1) > table->capacity) {
        struct table old = *table;
        table->capacity = old.capacity > 0 ? 2 * old.capacity : 1024;
        table->keys = mem_alloc(table->capacity * sizeof *table->keys);
        table->values = mem_alloc(table->capacity * sizeof *table->values);
        table->count = 0;
        for (unsigned long i = 0; i < old.capacity; i++) {
            if (old.keys[i] != 0) {
                table_add(table, old.keys[i], old.values[i]);
            }
        }
        free(old.keys);
        free(old.values);
    }
    table_add(table, key, value);
}

static void table_deinit(struct table *table)
{
    free(table->keys);
    free(table->values);
}

struct safe_check *safe_check_create(struct world *world, uint32_t forged_percent)
{
    struct safe_check *check = mem_alloc(sizeof *check);
    check->world = world;
    check->forged_percent = forged_percent;
    return check;
}

void safe_check_destroy(struct safe_check *check)
{
    for (unsigned long i = 0; i < check->list_count; i++) {
        free(check->list[i].chunks);
    }
    free(check->list);
    free(check->shown);
    table_deinit(&check->receipts);
    table_deinit(&check->chunks);
    table_deinit(&check->uploads);
    table_deinit(&check->asked);
    table_deinit(&check->puts);
    free(check);
}

/* A chunk by its encoding, which names its sealed bytes (R-C1). */
static uint32_t chunk_of(struct safe_check *check, const struct encoding *encoding)
{
    uint64_t name = name_of(encoding->bytes, sizeof encoding->bytes, 1);
    uint32_t *found = table_find(&check->chunks, name);
    if (found != NULL) {
        return *found;
    }
    check->shown = mem_grow(check->shown, &check->shown_capacity, check->shown_count + 1, sizeof *check->shown);
    check->shown[check->shown_count] = (struct shown){0};
    table_put(&check->chunks, name, (uint32_t)check->shown_count);
    return (uint32_t)check->shown_count++;
}

static uint32_t upload_of(struct safe_check *check, uint64_t session)
{
    uint64_t name = name_of(&session, sizeof session, 2);
    uint32_t *found = table_find(&check->uploads, name);
    if (found != NULL) {
        return *found;
    }
    check->list = mem_grow(check->list, &check->list_capacity, check->list_count + 1, sizeof *check->list);
    check->list[check->list_count] = (struct upload){0};
    table_put(&check->uploads, name, (uint32_t)check->list_count);
    return (uint32_t)check->list_count++;
}

/* A request of a client: its streams are its own, and begin anew when it does. */
static uint64_t request_name(const struct node *client, uint64_t boot, uint64_t stream)
{
    uint64_t parts[3] = {client->slot, boot, stream};
    return name_of(parts, sizeof parts, 3);
}

/* ---- receipts ---- */

static void receipt_show(struct safe_check *check, const struct receipt *receipt)
{
    uint32_t chunk = chunk_of(check, &receipt->shard.encoding);
    struct shown *shown = &check->shown[chunk];
    unsigned at = 0;
    while (at < shown->codes && (shown->k[at] != receipt->shard.k || shown->m[at] != receipt->shard.m)) {
        at++;
    }
    CHECK(at < CODES && receipt->shard.index < LIMIT_SHARDS);
    shown->codes = at == shown->codes ? at + 1 : shown->codes;
    shown->k[at] = receipt->shard.k;
    shown->m[at] = receipt->shard.m;
    shown->stores[at][receipt->shard.index] |= 1ull << (receipt->store - 1);
}

/* Which receipt of how many the client spoils; `count`: none. */
static uint32_t forged_of(const struct safe_check *check, const uint8_t *data, size_t bytes, uint32_t count)
{
    uint64_t draw = name_of(data, bytes, check->world->seed) >> 16;
    return count > 0 && draw % 100 < check->forged_percent ? (uint32_t)(draw / 100 % count) : count;
}

static Cairn__UploadStageRequest *stage_of(struct slice header, struct proto_arena *arena)
{
    void *request = NULL;
    enum err err = proto_unpack(&cairn__upload_stage_request__descriptor, header, arena, &request);
    CHECK(err == ERR_OK);
    return request;
}

void safe_forge(void *context, const struct node *from, struct message *message)
{
    struct proto_arena arena = {0};
    const struct safe_check *check = context;
    if (from->role != ROLE_DEVICE || message->type != MESSAGE_UPLOAD_STAGE) {
        return;
    }
    uint32_t count = stage_of(message->header, &arena)->receipts;
    uint32_t which = forged_of(check, message->body.data, message->body.bytes, count);
    if (which < count) {
        message->body.data[(which + 1ul) * RECEIPT_BYTES - 1] ^= 1; /* of its MAC */
    }
    proto_arena_deinit(&arena);
}

static void note_stage(struct safe_check *check, const struct effect *effect)
{
    struct proto_arena arena = {0};
    const Cairn__UploadStageRequest *request = stage_of(effect->send.header, &arena);
    const uint8_t *data = effect->send.body.data;
    uint32_t forged = forged_of(check, data, effect->send.body.bytes, request->receipts);
    uint32_t upload = upload_of(check, request->session);
    for (uint32_t i = 0; i < request->receipts; i++, data += RECEIPT_BYTES) {
        struct receipt receipt;
        bool given = i != forged && table_find(&check->receipts, name_of(data, RECEIPT_BYTES, 4)) != NULL;
        if (given && receipt_peek(data, RECEIPT_BYTES, &receipt) == ERR_OK) {
            receipt_show(check, &receipt);
        }
    }
    for (uint32_t i = 0; i < request->entries; i++, data += MANIFEST_ENTRY_BYTES) {
        struct manifest_entry entry;
        enum err err = manifest_entry_decode(data, MANIFEST_ENTRY_BYTES, &entry);
        CHECK(err == ERR_OK);
        struct upload *to = &check->list[upload];
        uint64_t number = request->first_entry + i; /* staged again, it replaces what was staged before */
        if (number > to->count) {
            break; /* behind a gap: it is refused */
        }
        to->count = number == to->count ? number + 1 : to->count;
        to->chunks = mem_grow(to->chunks, &to->capacity, to->count, sizeof *to->chunks);
        to->chunks[number] = chunk_of(check, &entry.encoding);
    }
    proto_arena_deinit(&arena);
}

/* The client's side of a connection of this server's; NULL: both ends have forgotten it. */
static const struct conn_side *client_behind(const struct safe_check *check, const struct effect *effect)
{
    const struct world *world = check->world;
    for (unsigned long i = 0; i < world->conn_count; i++) {
        if (world->conns[i]->id == effect->send.to.conn) {
            return &world->conns[i]->side[0];
        }
    }
    return NULL;
}

/* What the request was that a server answers; NULL: nobody made one. */
static const uint32_t *request_find(const struct table *requests, const struct conn_side *client,
                                    const struct effect *effect)
{
    return table_find(requests, request_name(client->node, client->boot, effect->send.stream));
}

/* A packed shard key, and the store of the map it is for. */
static uint32_t put_name(const void *shard, size_t bytes, uint32_t store)
{
    return (uint32_t)name_of(shard, bytes, (uint64_t)store << 32 | 5);
}

static void note_put(struct safe_check *check, const struct node *client, const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__ShardPutRequest *request = NULL;
    enum err err = proto_unpack(&cairn__shard_put_request__descriptor, effect->send.header, &arena, (void **)&request);
    CHECK(err == ERR_OK);
    uint32_t name = put_name(request->shard.data, request->shard.len, request->store);
    table_put(&check->puts, request_name(client, client->boot, effect->send.stream), name);
    proto_arena_deinit(&arena);
}

static void note_receipt(struct safe_check *check, const struct node *node, const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__ShardPutReply *reply = NULL;
    struct receipt receipt;
    const struct conn_side *client = client_behind(check, effect);
    enum err err = proto_unpack(&cairn__shard_put_reply__descriptor, effect->send.header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        err = receipt_peek(reply->receipt.data, reply->receipt.len, &receipt);
    }
    WORLD_REQUIRE(check->world, err == ERR_OK && receipt.store > 0 && receipt.store <= STORES,
                  "store on blockd %u: its receipt does not decode", node->id);
    if (!check->world->failed) {
        uint8_t shard[SHARD_KEY_BYTES];
        shard_key_encode(&receipt.shard, shard);
        const uint32_t *asked = client != NULL ? request_find(&check->puts, client, effect) : NULL;
        bool same = asked != NULL && *asked == put_name(shard, sizeof shard, receipt.store);
        WORLD_REQUIRE(check->world, client == NULL || same,
                      "store on blockd %u: its receipt names another shard than it was sent, index %u of store %u",
                      node->id, receipt.shard.index, receipt.store);
        table_put(&check->receipts, name_of(reply->receipt.data, reply->receipt.len, 4), 0);
        check->slot_of[receipt.store] = node->slot;
    }
    proto_arena_deinit(&arena);
}

/* ---- acknowledgements ---- */

static void note_complete(struct safe_check *check, const struct node *client, const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__UploadCompleteRequest *request = NULL;
    enum err err =
        proto_unpack(&cairn__upload_complete_request__descriptor, effect->send.header, &arena, (void **)&request);
    CHECK(err == ERR_OK);
    table_put(&check->asked, request_name(client, client->boot, effect->send.stream),
              upload_of(check, request->session));
    proto_arena_deinit(&arena);
}

static uint64_t stores_up(const struct safe_check *check)
{
    uint64_t up = 0;
    for (uint32_t store = 1; store <= STORES; store++) {
        uint64_t down_ns = check->down_ns[check->slot_of[store]];
        up |= down_ns == 0 || check->world->now_ns < down_ns + LONG_DOWN_NS ? 1ull << (store - 1) : 0;
    }
    return up;
}

/* Finds a store for an index that nobody has, or whose index can have another one (Kuhn, 1955). */
static bool index_place(const uint64_t *stores, uint64_t up, unsigned index, uint64_t *tried, unsigned *index_of)
{
    for (uint32_t store = 1; store <= STORES; store++) {
        if ((stores[index] & up & ~*tried & 1ull << (store - 1)) == 0) {
            continue;
        }
        *tried |= 1ull << (store - 1);
        if (index_of[store] == 0 || index_place(stores, up, index_of[store] - 1, tried, index_of)) {
            index_of[store] = index + 1;
            return true;
        }
    }
    return false;
}

/* How many stores may vanish of those that hold this chunk, by its best code. */
static uint32_t chunk_safe(const struct safe_check *check, const struct shown *shown)
{
    uint32_t best = 0;
    uint64_t up = stores_up(check);
    for (unsigned c = 0; c < shown->codes; c++) {
        uint32_t live = 0;
        unsigned index_of[STORES + 1] = {0};
        for (unsigned i = 0; i < (unsigned)shown->k[c] + shown->m[c]; i++) {
            uint64_t tried = 0;
            live += index_place(shown->stores[c], up, i, &tried, index_of);
        }
        best = live > shown->k[c] + best ? live - shown->k[c] : best;
    }
    return best;
}

static void check_acknowledged(struct safe_check *check, const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__UploadCompleteReply *reply = NULL;
    const struct conn_side *client = client_behind(check, effect);
    const uint32_t *asked = client != NULL ? request_find(&check->asked, client, effect) : NULL;
    WORLD_REQUIRE(check->world, client == NULL || asked != NULL,
                  "safe_losses: an upload is acknowledged that nobody asked to complete");
    enum err err =
        proto_unpack(&cairn__upload_complete_reply__descriptor, effect->send.header, &arena, (void **)&reply);
    CHECK(err == ERR_OK);
    uint32_t least = UINT32_MAX;
    for (unsigned long i = 0; asked != NULL && i < check->list[*asked].count; i++) {
        uint32_t safe = chunk_safe(check, &check->shown[check->list[*asked].chunks[i]]);
        least = safe < least ? safe : least;
    }
    check->acknowledgements += least != UINT32_MAX;
    WORLD_REQUIRE(check->world, reply->safe_losses <= least,
                  "safe_losses: a version is acknowledged with %u, and the receipts shown for it bear out %u",
                  reply->safe_losses, least);
    proto_arena_deinit(&arena);
}

void safe_check_send(struct safe_check *check, struct node *node, const struct effect *effect)
{
    bool reply = (effect->send.flags & MESSAGE_REPLY) != 0;
    if ((effect->send.flags & MESSAGE_ERROR) != 0) {
        return;
    }
    if (node->role == ROLE_DEVICE && !reply && effect->send.to.role == ROLE_METAD) {
        if (effect->send.type == MESSAGE_UPLOAD_STAGE) {
            note_stage(check, effect);
        } else if (effect->send.type == MESSAGE_UPLOAD_COMPLETE) {
            note_complete(check, node, effect);
        }
    } else if (node->role == ROLE_DEVICE && !reply && effect->send.type == MESSAGE_SHARD_PUT) {
        note_put(check, node, effect);
    } else if (node->role == ROLE_BLOCKD && reply && effect->send.type == MESSAGE_SHARD_PUT) {
        note_receipt(check, node, effect);
    } else if (node->role == ROLE_METAD && reply && effect->send.type == MESSAGE_UPLOAD_COMPLETE) {
        check_acknowledged(check, effect);
    }
}

void safe_check_node(struct safe_check *check, const struct node *node, bool up)
{
    check->down_ns[node->slot] = up ? 0 : check->world->now_ns;
}

uint64_t safe_check_acknowledgements(const struct safe_check *check)
{
    return check->acknowledgements;
}
