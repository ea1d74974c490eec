/* The store's client and its model (store_driver.h). Content of a shard is a function of its number, so that nothing is
 * kept but what was asked and what was receipted. */
#include "store_driver.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/seal.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { CALLS = 24, CALL_TIMEOUT_S = 6, TIMER_NEXT = 1, GENERATIONS = 4 };

enum call_kind { CALL_NONE, CALL_PUT, CALL_PUT_OTHER, CALL_GET, CALL_GET_ABSENT, CALL_INVENTORY };

struct call {
    enum call_kind kind;
    uint64_t stream, started_ns;
    uint32_t shard, ns, generation;
    uint32_t offset, bytes;
    bool sure; /* the shard was receipted for this namespace when it was asked */
};

struct model { /* of one shard */
    struct shard_key key;
    uint32_t sealed_bytes, shard_bytes;
    uint32_t asked, receipted; /* bit sets of namespaces */
    uint32_t unread;           /* of the verification: namespaces still to be read for */
};

struct driver {
    struct driver_params params;
    struct model *shards;
    unsigned long shard_count, shard_capacity;
    struct call calls[CALLS];
    uint64_t stream;
    uint8_t capabilities[DRIVER_NAMESPACES][GENERATIONS][CAPABILITY_BYTES];
    bool verifying;
    uint64_t receipts, reads;
};

struct driver *driver_create(const struct driver_params *params)
{
    struct driver *driver = mem_alloc(sizeof *driver);
    driver->params = *params;
    for (uint32_t ns = 0; ns < DRIVER_NAMESPACES; ns++) {
        for (uint32_t generation = 0; generation < GENERATIONS; generation++) {
            struct capability capability = {
                .cluster = params->cluster,
                .cluster_incarnation = params->cluster_incarnation,
                .realm = DRIVER_REALM,
                .writer = 1,
                .ns = ns + 1,
                .ns_incarnation = 1,
                .session = generation + 1,
                .generation = generation + 1,
                .operations = CAPABILITY_PUT | CAPABILITY_GET,
                .budget_bytes = 1ull << 40,
                .expiry_tick = 1000000,
                .key_id = 1,
            };
            capability_sign(&capability, params->signing_seed, driver->capabilities[ns][generation]);
        }
    }
    return driver;
}

void driver_destroy(struct driver *driver)
{
    free(driver->shards);
    free(driver);
}

/* The bytes of shard `number` from `offset` on; `other` gives another content of the same length. */
static void content_fill(uint32_t number, bool other, uint32_t shard_bytes, uint8_t *ret)
{
    struct rng rng = rng_of(number, other ? 2 : 1);
    for (uint32_t at = 0; at < shard_bytes; at += 8) {
        uint64_t word = rng_next(&rng);
        memcpy(ret + at, &word, shard_bytes - at < 8 ? shard_bytes - at : 8);
    }
}

static struct slice content_of(const struct driver *driver, uint32_t number, bool other)
{
    uint32_t bytes = driver->shards[number].shard_bytes;
    struct slice content = slice_alloc(bytes);
    content_fill(number, other, bytes, content.data);
    return content;
}

/* The checksum vector as a writer makes it: a row for each index; the rows of the others are of zeros. */
static struct slice checks_of(const struct driver *driver, uint32_t number, struct slice content)
{
    const struct model *shard = &driver->shards[number];
    struct slice all[LIMIT_SHARDS];
    unsigned count = shard->key.k + shard->key.m;
    for (unsigned i = 0; i < count; i++) {
        all[i] = slice_alloc(content.bytes);
        memset(all[i].data, 0, content.bytes);
    }
    memcpy(all[shard->key.index].data, content.data, content.bytes);
    struct slice checks = shard_checks_of(all, count);
    for (unsigned i = 0; i < count; i++) {
        slice_drop(&all[i]);
    }
    return checks;
}

static uint32_t shard_make(struct driver *driver)
{
    struct rng *rng = &driver->params.world->rng_scenario;
    struct model shard = {.key = {.realm = DRIVER_REALM, .writer = 1, .k = DRIVER_K, .m = DRIVER_M}};
    for (unsigned i = 0; i < sizeof shard.key.chunk.bytes; i++) {
        shard.key.chunk.bytes[i] = (uint8_t)rng_next(rng);
    }
    memset(shard.key.encoding.bytes, 7, sizeof shard.key.encoding.bytes);
    shard.key.index = (uint8_t)rng_below(rng, DRIVER_K + DRIVER_M);
    uint32_t most = rng_chance(rng, 100000) ? driver->params.shard_bytes_max : 4000;
    shard.sealed_bytes = (uint32_t)rng_between(rng, SEAL_HEADER_BYTES + SEAL_TAG_BYTES, most);
    shard.shard_bytes = code_shard_bytes(shard.sealed_bytes, shard.key.k);
    driver->shards = mem_grow(driver->shards, &driver->shard_capacity, driver->shard_count + 1, sizeof *driver->shards);
    driver->shards[driver->shard_count++] = shard;
    return (uint32_t)driver->shard_count - 1;
}

/* ---- asking ---- */

static struct address store_address(void)
{
    return address_node(ROLE_BLOCKD, 1, ACTOR_STORE, 0);
}

static void ask_put(struct driver *driver, struct call *call, struct effects *fx)
{
    struct model *shard = &driver->shards[call->shard];
    uint8_t packed[SHARD_KEY_BYTES];
    struct slice body = content_of(driver, call->shard, call->kind == CALL_PUT_OTHER);
    struct slice checks = checks_of(driver, call->shard, body);
    shard_key_encode(&shard->key, packed);
    Cairn__ShardPutRequest request = CAIRN__SHARD_PUT_REQUEST__INIT;
    request.capability.data = driver->capabilities[call->ns][call->generation];
    request.capability.len = CAPABILITY_BYTES;
    request.shard.data = packed;
    request.shard.len = sizeof packed;
    request.sealed_bytes = shard->sealed_bytes;
    request.checks.data = checks.data;
    request.checks.len = checks.bytes;
    request.plain_bytes = shard->sealed_bytes - SEAL_HEADER_BYTES - SEAL_TAG_BYTES;
    request.slot = shard->key.index;
    request.map_epoch = 1;
    request.store = DRIVER_STORE;
    request.store_incarnation = driver->params.store_incarnation;
    fx_send(fx, store_address(), MESSAGE_SHARD_PUT, call->stream, proto_pack(&request), body);
    slice_drop(&checks);
    if (call->kind == CALL_PUT) {
        shard->asked |= 1u << call->ns;
    }
}

static void ask_get(struct driver *driver, const struct call *call, struct effects *fx)
{
    const struct model *shard = &driver->shards[call->shard];
    uint8_t packed[SHARD_KEY_BYTES];
    shard_key_encode(&shard->key, packed);
    Cairn__ShardGetRequest request = CAIRN__SHARD_GET_REQUEST__INIT;
    request.capability.data = driver->capabilities[call->ns][call->generation];
    request.capability.len = CAPABILITY_BYTES;
    request.shard.data = packed;
    request.shard.len = sizeof packed;
    request.offset = call->offset;
    request.bytes = call->bytes;
    fx_send(fx, store_address(), MESSAGE_SHARD_GET, call->stream, proto_pack(&request), (struct slice){0});
}

static void ask_inventory(struct driver *driver, const struct call *call, struct effects *fx)
{
    struct model *shard = &driver->shards[call->shard];
    Cairn__InventoryRequest request = CAIRN__INVENTORY_REQUEST__INIT;
    request.capability.data = driver->capabilities[call->ns][call->generation];
    request.capability.len = CAPABILITY_BYTES;
    request.realm = shard->key.realm;
    request.chunk.data = shard->key.chunk.bytes;
    request.chunk.len = sizeof shard->key.chunk.bytes;
    request.writer = shard->key.writer;
    request.encoding.data = shard->key.encoding.bytes;
    request.encoding.len = sizeof shard->key.encoding.bytes;
    fx_send(fx, store_address(), MESSAGE_INVENTORY, call->stream, proto_pack(&request), (struct slice){0});
}

static void ask(struct driver *driver, struct call *call, uint64_t now_ns, struct effects *fx)
{
    const struct model *shard = &driver->shards[call->shard];
    call->stream = ++driver->stream;
    call->started_ns = now_ns;
    call->sure = shard->receipted >> call->ns & 1;
    if (call->kind == CALL_PUT || call->kind == CALL_PUT_OTHER) {
        ask_put(driver, call, fx);
    } else if (call->kind == CALL_INVENTORY) {
        ask_inventory(driver, call, fx);
    } else {
        ask_get(driver, call, fx);
    }
}

static struct call *call_free(struct driver *driver, uint64_t now_ns)
{
    struct call *free_call = NULL;
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &driver->calls[i];
        if (call->kind != CALL_NONE && now_ns - call->started_ns > CALL_TIMEOUT_S * SECOND) {
            *call = (struct call){0};
        }
        free_call = call->kind == CALL_NONE ? call : free_call;
    }
    return free_call;
}

static void draw_range(struct rng *rng, uint32_t shard_bytes, struct call *call)
{
    if (rng_chance(rng, 500000)) {
        call->offset = (uint32_t)rng_below(rng, shard_bytes);
        call->bytes = (uint32_t)rng_between(rng, 1, shard_bytes - call->offset);
    }
}

/* A random call; NULL when there is nothing to do. */
static struct call *draw_call(struct driver *driver, uint64_t now_ns)
{
    struct rng *rng = &driver->params.world->rng_scenario;
    struct call *call = call_free(driver, now_ns);
    if (call == NULL) {
        return NULL;
    }
    *call = (struct call){.ns = (uint32_t)rng_below(rng, DRIVER_NAMESPACES),
                          .generation = (uint32_t)rng_below(rng, GENERATIONS)};
    unsigned kind = (unsigned)rng_below(rng, 100);
    if (kind < 45 || driver->shard_count == 0) {
        call->kind = CALL_PUT;
        call->shard = shard_make(driver);
        return call;
    }
    call->shard = (uint32_t)rng_below(rng, driver->shard_count);
    struct model *shard = &driver->shards[call->shard];
    if (kind < 60) {
        call->kind = CALL_PUT;
    } else if (kind < 65 && shard->receipted != 0) {
        call->kind = CALL_PUT_OTHER;
    } else if (kind < 70) {
        call->kind = CALL_INVENTORY;
    } else if (shard->asked >> call->ns & 1) {
        call->kind = CALL_GET;
        draw_range(rng, shard->shard_bytes, call);
    } else {
        call->kind = CALL_GET_ABSENT;
    }
    return call;
}

/* The next read of the verification; NULL when all are under way or done. */
static struct call *next_unread(struct driver *driver, uint64_t now_ns)
{
    struct call *call = call_free(driver, now_ns);
    for (unsigned long i = 0; call != NULL && i < driver->shard_count; i++) {
        for (uint32_t ns = 0; ns < DRIVER_NAMESPACES; ns++) {
            bool busy = false;
            for (unsigned c = 0; c < CALLS; c++) {
                busy = busy ||
                       (driver->calls[c].kind == CALL_GET && driver->calls[c].shard == i && driver->calls[c].ns == ns);
            }
            if (driver->shards[i].unread >> ns & 1 && !busy) {
                *call = (struct call){.kind = CALL_GET, .shard = (uint32_t)i, .ns = ns};
                return call;
            }
        }
    }
    return NULL;
}

/* ---- hearing ---- */

static void hear_receipt(struct driver *driver, const struct call *call, const struct message *m)
{
    struct world *world = driver->params.world;
    struct model *shard = &driver->shards[call->shard];
    struct proto_arena arena = {0};
    Cairn__ShardPutReply *reply = NULL;
    struct receipt receipt = {0};
    enum err err = proto_unpack(&cairn__shard_put_reply__descriptor, m->header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        err = receipt_verify(reply->receipt.data, reply->receipt.len, driver->params.receipt_key, &receipt);
    }
    WORLD_REQUIRE(world, err == ERR_OK, "shard %u: the receipt does not verify: %s", call->shard, err_name(err));
    uint8_t a[SHARD_KEY_BYTES], b[SHARD_KEY_BYTES];
    shard_key_encode(&receipt.shard, a);
    shard_key_encode(&shard->key, b);
    WORLD_REQUIRE(world,
                  memcmp(a, b, sizeof a) == 0 && receipt.store == DRIVER_STORE && receipt.ns == call->ns + 1 &&
                      receipt.session == call->generation + 1 && receipt.sealed_bytes == shard->sealed_bytes,
                  "shard %u: the receipt names something else", call->shard);
    WORLD_REQUIRE(world, call->kind == CALL_PUT, "shard %u: other bytes got a receipt under a held name", call->shard);
    shard->receipted |= 1u << call->ns;
    driver->receipts++;
    proto_arena_deinit(&arena);
}

static void hear_bytes(struct driver *driver, const struct call *call, const struct message *m)
{
    struct world *world = driver->params.world;
    struct model *shard = &driver->shards[call->shard];
    WORLD_REQUIRE(world, call->kind == CALL_GET, "shard %u is read by namespace %u, which never put it", call->shard,
                  call->ns + 1);
    struct slice content = content_of(driver, call->shard, false);
    uint32_t bytes = call->bytes ? call->bytes : shard->shard_bytes;
    bool same = m->body.bytes == bytes && memcmp(m->body.data, content.data + call->offset, bytes) == 0;
    WORLD_REQUIRE(world, same, "shard %u reads back as other bytes", call->shard);
    slice_drop(&content);
    driver->reads++;
    if (driver->verifying && call->bytes == 0) {
        shard->unread &= ~(1u << call->ns);
    }
}

static void hear_inventory(struct driver *driver, const struct call *call, const struct message *m)
{
    const struct model *shard = &driver->shards[call->shard];
    struct proto_arena arena = {0};
    Cairn__InventoryReply *reply = NULL;
    enum err err = proto_unpack(&cairn__inventory_reply__descriptor, m->header, &arena, (void **)&reply);
    bool listed = err == ERR_OK && reply->n_shards == 1 && reply->shards[0]->index == shard->key.index &&
                  reply->shards[0]->sealed_bytes == shard->sealed_bytes;
    bool empty = err == ERR_OK && reply->n_shards == 0;
    WORLD_REQUIRE(driver->params.world, listed || (empty && !call->sure), "shard %u: the inventory does not list it",
                  call->shard);
    proto_arena_deinit(&arena);
}

static void hear_error(struct driver *driver, const struct call *call, const struct message *m)
{
    uint32_t leader = 0;
    enum err err = error_reply_decode(m->header, &leader);
    bool allowed = err_class(err) == ERR_CLASS_RETRY;
    if (call->kind == CALL_PUT_OTHER) {
        allowed = allowed || err == ERR_CONFLICT;
    } else if (call->kind == CALL_GET) {
        allowed = allowed || (err == ERR_NOT_HERE && !call->sure);
    } else if (call->kind == CALL_GET_ABSENT) {
        allowed = allowed || err == ERR_NOT_HERE;
    }
    WORLD_REQUIRE(driver->params.world, allowed, "shard %u (%u B, %s): %s is answered by %s", call->shard,
                  driver->shards[call->shard].shard_bytes, call->sure ? "receipted" : "not receipted",
                  call->kind == CALL_PUT || call->kind == CALL_PUT_OTHER ? "a put" : "a get", err_name(err));
}

static void hear(struct driver *driver, const struct message *m)
{
    for (unsigned i = 0; i < CALLS; i++) {
        struct call call = driver->calls[i];
        if (call.kind == CALL_NONE || call.stream != m->stream) {
            continue;
        }
        driver->calls[i] = (struct call){0};
        if (m->flags & MESSAGE_ERROR) {
            hear_error(driver, &call, m);
        } else if (m->type == MESSAGE_SHARD_PUT) {
            hear_receipt(driver, &call, m);
        } else if (m->type == MESSAGE_SHARD_GET) {
            hear_bytes(driver, &call, m);
        } else if (m->type == MESSAGE_INVENTORY) {
            hear_inventory(driver, &call, m);
        }
        return;
    }
}

static void driver_next(struct driver *driver, uint64_t now_ns, struct effects *fx)
{
    struct rng *rng = &driver->params.world->rng_scenario;
    unsigned burst = driver->verifying ? CALLS : rng_chance(rng, 100000) ? 12 : 1;
    for (unsigned i = 0; i < burst; i++) {
        struct call *call = driver->verifying ? next_unread(driver, now_ns) : draw_call(driver, now_ns);
        if (call != NULL) {
            ask(driver, call, now_ns, fx);
        }
    }
    uint64_t every = driver->verifying ? 20 * MILLISECOND : driver->params.every_ns;
    fx_timer(fx, TIMER_NEXT, now_ns + rng_below(rng, 2 * every) + 1);
}

void driver_step(void *self, const struct event *event, struct effects *fx)
{
    struct driver *driver = self;
    if (event->kind == EVENT_TIMER) {
        if (event->timer.id == RUNTIME_TIMER_BOOT) {
            memset(driver->calls, 0, sizeof driver->calls);
        }
        driver_next(driver, event->now_ns, fx);
    } else if (event->kind == EVENT_MESSAGE && event->message.flags & MESSAGE_REPLY) {
        hear(driver, &event->message);
    } else if (event->kind == EVENT_CLOSED) {
        memset(driver->calls, 0, sizeof driver->calls);
    }
}

void driver_verify(struct driver *driver)
{
    driver->verifying = true;
    for (unsigned long i = 0; i < driver->shard_count; i++) {
        driver->shards[i].unread = driver->shards[i].receipted;
    }
}

bool driver_verified(const struct driver *driver)
{
    for (unsigned long i = 0; i < driver->shard_count; i++) {
        if (driver->shards[i].unread != 0) {
            return false;
        }
    }
    return true;
}

uint64_t driver_receipts(const struct driver *driver)
{
    return driver->receipts;
}

uint64_t driver_reads(const struct driver *driver)
{
    return driver->reads;
}
