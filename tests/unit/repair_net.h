/* Six store actors, each on its own disk in memory, joined by a seeded net that delivers in any order; and chunks to
 * put on them. */
#ifndef CAIRN_TESTS_REPAIR_NET_H
#define CAIRN_TESTS_REPAIR_NET_H

#include "base/compute.h"
#include "proto/manifest.h"
#include "store_world.h"

#define STORES   6u
#define K        4u
#define M        2u
#define QUEUE    4096u
#define CHUNKS   12u
#define PG_BITS  1u
#define STANDINS 2u

struct parcel {
    unsigned to;
    struct event event;
    struct compute_job *job;
};

struct net {
    uint64_t seed, now_ns;
    struct world *stores[STORES];
    bool away[STORES];   /* the map says so, and nobody answers */
    bool silent[STORES]; /* nobody answers, though the map calls it up */
    struct parcel queue[QUEUE];
    unsigned queued;
    uint64_t epoch;
    unsigned pulls, lists;
    bool tamper; /* pulled shards have a byte changed on the way */
};

static struct net *net_now; /* the hook of a world has no other way */

static inline unsigned net_index(const struct world *w)
{
    for (unsigned i = 0; i < STORES; i++) {
        if (net_now->stores[i] == w) {
            return i;
        }
    }
    fail();
    return 0;
}

static inline void net_post(unsigned to, struct event event, struct compute_job *job)
{
    assert_true(net_now->queued < QUEUE);
    net_now->queue[net_now->queued++] = (struct parcel){to, event, job};
}

static inline void net_send(struct world *w, const struct effect *effect)
{
    unsigned from = net_index(w), to = effect->send.to.node - 1;
    struct event event = {.kind = EVENT_MESSAGE};
    bool reply = (effect->send.flags & MESSAGE_REPLY) != 0;
    assert_true(to < STORES && to != from);
    if (net_now->away[to] || net_now->silent[to]) {
        struct slice header = effect->send.header, body = effect->send.body;
        slice_drop(&header);
        slice_drop(&body);
        if (!net_now->silent[to]) {
            event.kind = EVENT_CLOSED;
            event.peer.peer = effect->send.to;
            event.peer.err = ERR_CLOSED;
            net_post(from, event, NULL);
        }
        return;
    }
    net_now->pulls += !reply && effect->send.type == MESSAGE_SHARD_PULL;
    net_now->lists += !reply && effect->send.type == MESSAGE_STORE_LIST;
    event.message = (struct message){
        .from = {.role = ROLE_BLOCKD, .node = from + 1},
        .peer = {.role = ROLE_BLOCKD, .id = from + 1},
        .type = effect->send.type,
        .flags = effect->send.flags,
        .stream = effect->send.stream,
        .header = effect->send.header,
        .body = effect->send.body,
    };
    if (reply && net_now->tamper && effect->send.type == MESSAGE_SHARD_PULL && effect->send.body.bytes > 0) {
        event.message.body = slice_copy(effect->send.body.data, effect->send.body.bytes);
        event.message.body.data[world_random(w) % event.message.body.bytes] ^= 1;
        struct slice body = effect->send.body;
        slice_drop(&body);
    }
    net_post(to, event, NULL);
}

static inline bool net_take(struct world *w, struct effect *effect)
{
    if (effect->kind == EFFECT_COMPUTE) {
        compute_run(effect->compute.job);
        struct event event = {.kind = EVENT_COMPUTE_DONE};
        event.compute.token = effect->compute.token;
        event.compute.job = effect->compute.job;
        net_post(net_index(w), event, effect->compute.job);
        return true;
    }
    if (effect->kind == EFFECT_SEND && effect->send.to.role == ROLE_BLOCKD && effect->send.to.conn == 0) {
        net_send(w, effect);
        return true;
    }
    return false;
}

static inline void parcel_drop(struct parcel *parcel)
{
    if (parcel->event.kind == EVENT_MESSAGE) {
        slice_drop(&parcel->event.message.header);
        slice_drop(&parcel->event.message.body);
    }
    if (parcel->job != NULL) {
        compute_job_destroy(parcel->job);
    }
}

/* Delivers one parcel or completes one thing of one store; false when nothing is under way. */
static inline bool net_turn(struct net *net)
{
    unsigned first = (unsigned)(world_random(net->stores[0]) % (STORES + 1));
    for (unsigned i = 0; i <= STORES; i++) {
        unsigned at = (first + i) % (STORES + 1);
        if (at < STORES) {
            if (!net->away[at] && world_turn(net->stores[at])) {
                return true;
            }
        } else if (net->queued > 0) {
            unsigned pick = (unsigned)(world_random(net->stores[0]) % net->queued);
            struct parcel parcel = net->queue[pick];
            net->queue[pick] = net->queue[--net->queued];
            if (!net->away[parcel.to]) {
                world_step(net->stores[parcel.to], &parcel.event);
            }
            parcel_drop(&parcel);
            return true;
        }
    }
    return false;
}

/* Lets `ns` of time pass. */
static inline void net_run(struct net *net, uint64_t ns)
{
    uint64_t end = net->now_ns + ns;
    for (;;) {
        while (net_turn(net)) {}
        uint64_t next = UINT64_MAX;
        for (unsigned i = 0; i < STORES; i++) {
            for (unsigned id = 0; id < 5 && !net->away[i]; id++) {
                if (net->stores[i]->started[id] && net->stores[i]->timers[id] < next) {
                    next = net->stores[i]->timers[id];
                }
            }
        }
        net->now_ns = next > end ? end : next;
        for (unsigned i = 0; i < STORES; i++) {
            net->stores[i]->now_ns = net->now_ns;
        }
        if (next > end) {
            return;
        }
    }
}

/* The store that owns the slot in the group: stores stand in order, turned by the group. */
static inline unsigned owner_of(unsigned pg, unsigned slot)
{
    return (slot + pg) % STORES;
}

/* Tells every store that is there a new map. */
static inline void net_tell(struct net *net)
{
    uint8_t public_key[32];
    sign_public_key(net->stores[0]->signing_seed, public_key);
    Cairn__MapKey key = CAIRN__MAP_KEY__INIT, *keys[] = {&key};
    key.key_id = 9;
    key.public_key = (ProtobufCBinaryData){sizeof public_key, public_key};
    uint32_t slots[2 * (K + M)], standins[2 * (K + M) * STANDINS];
    for (unsigned i = 0; i < 2 * (K + M); i++) {
        slots[i] = 1 + owner_of(i / (K + M), i % (K + M));
        for (unsigned j = 0; j < STANDINS; j++) {
            standins[i * STANDINS + j] = 1 + (slots[i] + j) % STORES;
        }
    }
    Cairn__MapStore rows[STORES], *stores[STORES];
    for (unsigned i = 0; i < STORES; i++) {
        rows[i] = (Cairn__MapStore)CAIRN__MAP_STORE__INIT;
        rows[i].store = rows[i].node = i + 1;
        rows[i].state = net->away[i];
        stores[i] = &rows[i];
    }
    Cairn__MapPool pool = CAIRN__MAP_POOL__INIT, *pools[] = {&pool};
    pool.pool = 1;
    pool.k = K;
    pool.m = M;
    pool.pg_bits = PG_BITS;
    pool.slots = slots;
    pool.n_slots = sizeof slots / sizeof slots[0];
    pool.standin_count = STANDINS;
    pool.standins = standins;
    pool.n_standins = sizeof standins / sizeof standins[0];
    Cairn__ClusterMap map = CAIRN__CLUSTER_MAP__INIT;
    map.cluster = (ProtobufCBinaryData){16, net->stores[0]->cluster.uuid.bytes};
    map.cluster_incarnation = 1;
    map.epoch = ++net->epoch;
    map.tick = 100;
    map.keys = keys;
    map.n_keys = 1;
    map.pools = pools;
    map.n_pools = 1;
    map.stores = stores;
    map.n_stores = STORES;
    map.capability_epoch = 5;
    struct slice packed = proto_pack(&map);
    for (unsigned i = 0; i < STORES; i++) {
        struct store_state state = {.store = i + 1, .incarnation = 7, .tick = 100, .map = packed};
        memcpy(state.receipt_key, net->stores[i]->receipt_key, 32);
        struct event event = {.kind = EVENT_MESSAGE};
        event.message.type = MESSAGE_STORE_STATE;
        event.message.peer.role = ROLE_LOCAL;
        event.message.header = store_state_encode(&state);
        if (!net->away[i]) {
            world_step(net->stores[i], &event);
        }
        slice_drop(&event.message.header);
    }
    slice_drop(&packed);
}

static inline struct net *net_create(uint64_t seed)
{
    struct net *net = net_now = calloc(1, sizeof *net);
    net->now_ns = WORLD_SECOND;
    for (unsigned i = 0; i < STORES; i++) {
        net->stores[i] = world_create(seed * STORES + i);
        net->stores[i]->take = net_take;
        net->stores[i]->segment_bytes = 2u << 20;
        world_boot(net->stores[i]);
    }
    net_run(net, WORLD_SECOND);
    net_tell(net);
    net_run(net, 5 * WORLD_SECOND);
    return net;
}

static inline void net_destroy(struct net *net)
{
    for (unsigned i = 0; i < net->queued; i++) {
        parcel_drop(&net->queue[i]);
    }
    for (unsigned i = 0; i < STORES; i++) {
        world_destroy(net->stores[i]);
    }
    free(net);
}

/* ---- chunks ---- */

/* A real chunk of a code: all its shards, as one client would put them. */
struct chunk {
    struct shard shards[LIMIT_SHARDS];
    unsigned k, m, pg;
};

static inline struct chunk chunk_make(struct net *net, uint64_t number, unsigned k, unsigned m, uint32_t sealed_bytes)
{
    struct chunk chunk = {.k = k, .m = m};
    uint32_t padded = k * code_shard_bytes(sealed_bytes, k);
    struct slice sealed = slice_alloc(padded), shards[LIMIT_SHARDS];
    memset(sealed.data, 0, padded);
    for (uint32_t at = 0; at < sealed_bytes; at++) {
        sealed.data[at] = (uint8_t)((at * 2654435761u + number * 40503u) >> 13);
    }
    sealed.bytes = sealed_bytes;
    code_encode(sealed, k, m, shards);
    slice_drop(&sealed);
    struct slice checks = shard_checks_of(shards, k + m);
    for (unsigned i = 0; i < k + m; i++) {
        struct shard shard = shard_make(net->stores[0], number, k, m, i, sealed_bytes);
        shard_free(&shard);
        shard.bytes = slice_copy(shards[i].data, shards[i].bytes);
        shard.checks = slice_ref(checks);
        chunk.pg = map_pg_of(&shard.key.chunk, PG_BITS);
        chunk.shards[i] = shard;
        slice_drop(&shards[i]);
    }
    slice_drop(&checks);
    return chunk;
}

static inline void chunk_free(struct chunk *chunk)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        shard_free(&chunk->shards[i]);
    }
}

/* Puts shard `index` into store `at` for a namespace. */
static inline void put_at(struct net *net, struct chunk *chunk, unsigned index, unsigned at, uint64_t ns,
                          uint64_t generation)
{
    struct shard *shard = &chunk->shards[index];
    shard->store = at + 1;
    shard->capability = world_capability(net->stores[at], ns, generation);
    assert_int_equal(world_put_now(net->stores[at], shard), ERR_OK);
}

/* Puts all shards into the stores of their slots that are there. */
static inline void put_all(struct net *net, struct chunk *chunk, uint64_t ns)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        unsigned at = owner_of(chunk->pg, i);
        if (!net->away[at]) {
            put_at(net, chunk, i, at, ns, 1);
        }
    }
}

static inline enum err get_at(struct net *net, struct chunk *chunk, unsigned index, unsigned at, uint64_t ns)
{
    chunk->shards[index].capability = world_capability(net->stores[at], ns, 1);
    return world_get_now(net->stores[at], &chunk->shards[index]);
}

static inline uint64_t rebuilt_at(const struct net *net, unsigned at)
{
    return store_repair_state(net->stores[at]->store).rebuilt;
}

/* The index of the chunk's code that store `at` is to have, or LIMIT_SHARDS. */
static inline unsigned slot_of(const struct chunk *chunk, unsigned at)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        if (owner_of(chunk->pg, i) == at) {
            return i;
        }
    }
    return LIMIT_SHARDS;
}

/* A mixture of codes and sizes; every third chunk has a second holder. */
static inline void chunks_put(struct net *net, struct chunk *chunks, uint64_t first)
{
    static const uint32_t sizes[] = {100, 5000, 65536, 70001, 300000, 600000};
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned k = i % 4 == 3 ? 1 : K;
        chunks[i] = chunk_make(net, first + i, k, M, sizes[i % 6]);
        put_all(net, &chunks[i], 1);
        if (i % 3 == 0) {
            put_all(net, &chunks[i], 2);
        }
    }
}

static inline unsigned chunks_found(struct net *net, struct chunk *chunks, unsigned at)
{
    unsigned found = 0;
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned slot = slot_of(&chunks[i], at);
        if (slot == LIMIT_SHARDS) {
            continue;
        }
        assert_int_equal(get_at(net, &chunks[i], slot, at, 1), ERR_OK);
        assert_int_equal(get_at(net, &chunks[i], slot, at, 2), i % 3 == 0 ? ERR_OK : ERR_NOT_HERE);
        found++;
    }
    return found;
}

#endif
