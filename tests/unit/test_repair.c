/* Repair and the messages it rests on: six store actors, each on its own disk in memory, joined by a seeded net that
 * delivers in any order. A store that was away comes back without what it missed and must have it afterwards, by its
 * own index and disk. */
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

static unsigned net_index(const struct world *w)
{
    for (unsigned i = 0; i < STORES; i++) {
        if (net_now->stores[i] == w) {
            return i;
        }
    }
    fail();
    return 0;
}

static void net_post(unsigned to, struct event event, struct compute_job *job)
{
    assert_true(net_now->queued < QUEUE);
    net_now->queue[net_now->queued++] = (struct parcel){to, event, job};
}

static void net_send(struct world *w, const struct effect *effect)
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

static bool net_take(struct world *w, struct effect *effect)
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

static void parcel_drop(struct parcel *parcel)
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
static bool net_turn(struct net *net)
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
static void net_run(struct net *net, uint64_t ns)
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
static unsigned owner_of(unsigned pg, unsigned slot)
{
    return (slot + pg) % STORES;
}

/* Tells every store that is there a new map. */
static void net_tell(struct net *net)
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

static struct net *net_create(uint64_t seed)
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

static void net_destroy(struct net *net)
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

static struct chunk chunk_make(struct net *net, uint64_t number, unsigned k, unsigned m, uint32_t sealed_bytes)
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

static void chunk_free(struct chunk *chunk)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        shard_free(&chunk->shards[i]);
    }
}

/* Puts shard `index` into store `at` for a namespace. */
static void put_at(struct net *net, struct chunk *chunk, unsigned index, unsigned at, uint64_t ns, uint64_t generation)
{
    struct shard *shard = &chunk->shards[index];
    shard->store = at + 1;
    shard->capability = world_capability(net->stores[at], ns, generation);
    assert_int_equal(world_put_now(net->stores[at], shard), ERR_OK);
}

/* Puts all shards into the stores of their slots that are there. */
static void put_all(struct net *net, struct chunk *chunk, uint64_t ns)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        unsigned at = owner_of(chunk->pg, i);
        if (!net->away[at]) {
            put_at(net, chunk, i, at, ns, 1);
        }
    }
}

static enum err get_at(struct net *net, struct chunk *chunk, unsigned index, unsigned at, uint64_t ns)
{
    chunk->shards[index].capability = world_capability(net->stores[at], ns, 1);
    return world_get_now(net->stores[at], &chunk->shards[index]);
}

static uint64_t rebuilt_at(const struct net *net, unsigned at)
{
    return store_repair_state(net->stores[at]->store).rebuilt;
}

/* The index of the chunk's code that store `at` is to have, or LIMIT_SHARDS. */
static unsigned slot_of(const struct chunk *chunk, unsigned at)
{
    for (unsigned i = 0; i < chunk->k + chunk->m; i++) {
        if (owner_of(chunk->pg, i) == at) {
            return i;
        }
    }
    return LIMIT_SHARDS;
}

/* A mixture of codes and sizes; every third chunk has a second holder. */
static void chunks_put(struct net *net, struct chunk *chunks, uint64_t first)
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

static unsigned chunks_found(struct net *net, struct chunk *chunks, unsigned at)
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

/* ---- tests ---- */

static void test_returns_empty(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct net *net = net_create(seed);
        struct chunk chunks[CHUNKS];
        net->away[2] = true;
        net_tell(net);
        chunks_put(net, chunks, seed * 100);
        net_run(net, 5 * WORLD_SECOND);
        assert_int_equal(rebuilt_at(net, 3), 0); /* who was there lacks nothing */
        net->away[2] = false;
        net_tell(net);
        net_run(net, 20 * WORLD_SECOND);
        unsigned found = chunks_found(net, chunks, 2);
        assert_true(found >= CHUNKS / 2);
        assert_int_equal(rebuilt_at(net, 2), found);
        assert_int_equal(net->stores[2]->report.counters.rebuilt, found);
        assert_int_equal(store_repair_state(net->stores[2]->store).missing, 0);
        assert_int_equal(store_repair_state(net->stores[2]->store).refused, 0);

        /* What was rebuilt is durable with all its holders: also for an index made anew from the segments. */
        struct sha256 digest = store_index_digest(&net->stores[2]->view);
        struct sha256 again = world_rebuilt_digest(net->stores[2]);
        assert_memory_equal(&digest, &again, sizeof digest);
        unsigned pulls = net->pulls;
        net_tell(net);
        net_run(net, 10 * WORLD_SECOND);
        assert_int_equal(chunks_found(net, chunks, 2), found);
        assert_int_equal(net->pulls, pulls); /* nothing is done twice */
        for (unsigned i = 0; i < CHUNKS; i++) {
            chunk_free(&chunks[i]);
        }
        net_destroy(net);
    }
}

static void test_two_return_killed_on_the_way(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct net *net = net_create(seed);
        struct chunk chunks[CHUNKS];
        net->away[1] = net->away[4] = true;
        net_tell(net);
        chunks_put(net, chunks, seed * 100);
        net->away[1] = net->away[4] = false;
        net_tell(net);
        for (unsigned i = 0; i < 150 + 40 * seed && net_turn(net); i++) {}
        net_run(net, WORLD_SECOND + WORLD_SECOND / 1000);
        for (unsigned i = 0; i < 30 * seed; i++) {
            net_turn(net);
        }
        world_crash(net->stores[1], seed % 2 == 0);
        for (unsigned i = 0; i < net->queued; i++) {
            if (net->queue[i].to == 1) {
                parcel_drop(&net->queue[i]);
                net->queue[i--] = net->queue[--net->queued];
            }
        }
        world_boot(net->stores[1]);
        net_run(net, WORLD_SECOND);
        net_tell(net);
        net_run(net, 60 * WORLD_SECOND);
        assert_true(chunks_found(net, chunks, 1) >= CHUNKS / 2);
        assert_true(chunks_found(net, chunks, 4) >= CHUNKS / 2);
        for (unsigned i = 0; i < CHUNKS; i++) {
            chunk_free(&chunks[i]);
        }
        net_destroy(net);
    }
}

static void test_stand_in_has_it(void **state)
{
    (void)state;
    struct net *net = net_create(31);
    struct chunk chunk = chunk_make(net, 7, K, M, 200000);
    unsigned owner = owner_of(chunk.pg, 1), standin = (owner + 2) % STORES;
    net->away[owner] = true;
    net_tell(net);
    put_at(net, &chunk, 1, standin, 1, 3); /* and no other shard anywhere: it cannot be rebuilt */
    net->away[owner] = false;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 1, owner, 1), ERR_OK);
    assert_int_equal(net->pulls, 1);
    assert_int_equal(rebuilt_at(net, owner), 1);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_never_two_of_one_chunk(void **state)
{
    (void)state;
    struct net *net = net_create(32);
    struct chunk chunk = chunk_make(net, 8, K, M, 90000), copies = chunk_make(net, 8, 1, M, 90000);
    /* The owner of slot 2 stands in for slot 1, whose shard it has; the owner of slot 2 lacks its own. */
    unsigned owner = owner_of(chunk.pg, 2);
    net->away[owner] = true;
    put_all(net, &chunk, 1);
    put_all(net, &copies, 1);
    net->away[owner] = false;
    put_at(net, &chunk, 1, owner, 1, 1);
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 1, owner, 1), ERR_OK);
    assert_int_equal(get_at(net, &chunk, 2, owner, 1), ERR_NOT_HERE);
    assert_int_equal(get_at(net, &copies, 2, owner, 1), ERR_OK); /* another code is another matter */
    assert_int_equal(store_repair_state(net->stores[owner]->store).missing, 0);
    chunk_free(&chunk);
    chunk_free(&copies);
    net_destroy(net);
}

/* Changes the row of `index` in the vector that the shards from `first` to `last` are put with. */
static void checks_spoil(struct chunk *chunk, unsigned index, unsigned first, unsigned last)
{
    struct slice checks = slice_copy(chunk->shards[0].checks.data, chunk->shards[0].checks.bytes);
    uint32_t pieces = shard_check_pieces(chunk->shards[0].bytes.bytes);
    checks.data[4 + (size_t)4 * index * pieces] ^= 1;
    for (unsigned i = first; i <= last; i++) {
        if (i != index) {
            slice_drop(&chunk->shards[i].checks);
            chunk->shards[i].checks = slice_ref(checks);
        }
    }
    slice_drop(&checks);
}

static void test_wrong_vectors(void **state)
{
    (void)state;
    for (unsigned all = 0; all < 2; all++) {
        struct net *net = net_create(40 + all);
        struct chunk chunk = chunk_make(net, 9, K, M, 90000), good = chunk_make(net, 10, K, M, 90000);
        unsigned owner = owner_of(chunk.pg, 0);
        /* One source contradicts the others; or all agree on a row that the rebuilt shard does not match. */
        checks_spoil(&chunk, all ? 0 : 5, all ? 1 : 2, all ? 5 : 2);
        net->away[owner] = true;
        net_tell(net);
        put_all(net, &chunk, 1);
        put_all(net, &good, 1);
        net->away[owner] = false;
        net_tell(net);
        net_run(net, 10 * WORLD_SECOND);
        assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_NOT_HERE);
        unsigned slot = slot_of(&good, owner);
        assert_int_equal(get_at(net, &good, slot, owner, 1), ERR_OK);
        assert_int_equal(store_repair_state(net->stores[owner]->store).refused, 1);
        assert_int_equal(store_repair_state(net->stores[owner]->store).rebuilt, 1);
        assert_int_equal(net->stores[owner]->report.counters.corrupt, 1);
        chunk_free(&chunk);
        chunk_free(&good);
        net_destroy(net);
    }
}

static void test_changed_on_the_way(void **state)
{
    (void)state;
    struct net *net = net_create(50);
    struct chunk chunk = chunk_make(net, 11, K, M, 300000);
    unsigned owner = owner_of(chunk.pg, 3);
    net->away[owner] = true;
    net_tell(net);
    put_all(net, &chunk, 1);
    net->away[owner] = false;
    net->tamper = true;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 3, owner, 1), ERR_NOT_HERE);
    assert_int_equal(store_repair_state(net->stores[owner]->store).missing, 1);
    net->tamper = false;
    net_run(net, 40 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 3, owner, 1), ERR_OK);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_silent_sources(void **state)
{
    (void)state;
    struct net *net = net_create(60);
    struct chunk chunk = chunk_make(net, 12, K, M, 300000);
    unsigned owner = owner_of(chunk.pg, 0);
    net->away[owner] = true;
    net_tell(net);
    put_all(net, &chunk, 1);
    net->away[owner] = false;
    net->silent[owner_of(chunk.pg, 1)] = net->silent[owner_of(chunk.pg, 2)] = true; /* three others: one too few */
    net_tell(net);
    net_run(net, 25 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_NOT_HERE);
    assert_true(store_repair_state(net->stores[owner]->store).missing > 0);
    net->silent[owner_of(chunk.pg, 1)] = false;
    net_run(net, 80 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_OK);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_disk_takes_nothing(void **state)
{
    (void)state;
    struct net *net = net_create(65);
    struct chunk chunks[CHUNKS];
    net->away[3] = true;
    net_tell(net);
    chunks_put(net, chunks, 700);
    net->away[3] = false;
    net->stores[3]->fail_writes = true;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(rebuilt_at(net, 3), 0);
    assert_true(store_repair_state(net->stores[3]->store).missing > 0);
    assert_true(net->pulls <= 4 * K); /* what was under way, and no more */
    net_run(net, 30 * WORLD_SECOND);  /* the next pass */
    assert_true(net->pulls <= 2 * 4 * K);
    net->stores[3]->fail_writes = false; /* a disk that failed so often is read only until the next start */
    store_destroy(net->stores[3]->store);
    world_ops_clear(net->stores[3], false);
    world_boot(net->stores[3]);
    net_run(net, WORLD_SECOND);
    net_tell(net);
    net_run(net, 40 * WORLD_SECOND);
    assert_true(chunks_found(net, chunks, 3) >= CHUNKS / 2);
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunk_free(&chunks[i]);
    }
    net_destroy(net);
}

/* A store without room refuses its shards, which the others take all the same; nothing in the map tells of it. With
 * room again it gets them by itself. */
static void test_room_again(void **state)
{
    (void)state;
    struct net *net = net_create(66);
    struct chunk chunks[CHUNKS];
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunks[i] = chunk_make(net, 800 + i, K, M, 70001);
    }
    net->stores[3]->short_of_room = true;
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned slot = slot_of(&chunks[i], 3);
        for (unsigned j = 0; j < K + M; j++) {
            if (j != slot) {
                put_at(net, &chunks[i], j, owner_of(chunks[i].pg, j), 1, 1);
            } else {
                chunks[i].shards[j].store = 4;
                chunks[i].shards[j].capability = world_capability(net->stores[3], 1, 1);
                assert_int_equal(world_put_now(net->stores[3], &chunks[i].shards[j]), ERR_DISK_FULL);
            }
        }
    }
    net_run(net, 40 * WORLD_SECOND);
    assert_int_equal(rebuilt_at(net, 3), 0);
    net->stores[3]->short_of_room = false;
    net_run(net, 40 * WORLD_SECOND);
    unsigned found = 0;
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned slot = slot_of(&chunks[i], 3);
        if (slot < K + M) {
            assert_int_equal(get_at(net, &chunks[i], slot, 3, 1), ERR_OK);
            found++;
        }
        chunk_free(&chunks[i]);
    }
    assert_true(found > 0);
    assert_int_equal(rebuilt_at(net, 3), found);
    net_destroy(net);
}

static void test_rot_is_healed(void **state)
{
    (void)state;
    struct net *net = net_create(70);
    struct chunk chunk = chunk_make(net, 13, K, M, 400000), other = chunk_make(net, 14, K, M, 400000);
    put_all(net, &chunk, 1);
    put_all(net, &chunk, 2);
    put_all(net, &other, 1);
    unsigned owner = owner_of(chunk.pg, 4);
    struct world_file *file = &net->stores[owner]->files[1];
    const struct slice shard = chunk.shards[4].bytes;
    uint64_t at = 0;
    while (at < file->bytes && memcmp(file->written + at, shard.data, 4096) != 0) {
        at += 4096;
    }
    assert_true(at < file->bytes);
    file->written[at + 70000] ^= 4;
    file->durable[at + 70000] ^= 4;
    unsigned lists = net->lists;
    assert_int_equal(get_at(net, &chunk, 4, owner, 1), ERR_CORRUPT);
    net_run(net, 5 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 4, owner, 1), ERR_OK);
    assert_int_equal(get_at(net, &chunk, 4, owner, 2), ERR_OK);
    assert_int_equal(net->stores[owner]->report.counters.corrupt, 1);
    assert_int_equal(rebuilt_at(net, owner), 1);
    assert_true(net->lists - lists <= STORES - 1); /* one chunk's lists, not a pass over all */
    chunk_free(&chunk);
    chunk_free(&other);
    net_destroy(net);
}

/* ---- STORE_LIST ---- */

static uint32_t list_rows(struct world *w, uint64_t ns, uint32_t pg, uint32_t bits, uint32_t limit, enum role role,
                          enum err *ret_err)
{
    uint8_t token[CAPABILITY_BYTES], after[SHARD_KEY_BYTES], last[SHARD_KEY_BYTES] = {0};
    struct capability capability = world_capability(w, ns, 1);
    capability_sign(&capability, w->signing_seed, token);
    uint32_t rows = 0;
    for (bool more = false;;) {
        Cairn__StoreListRequest request = CAIRN__STORE_LIST_REQUEST__INIT;
        request.capability = (ProtobufCBinaryData){role == ROLE_BLOCKD ? 0 : sizeof token, token};
        request.realm = role == ROLE_BLOCKD ? 0 : WORLD_REALM;
        request.pg = pg;
        request.pg_bits = bits;
        request.limit = limit;
        request.after = (ProtobufCBinaryData){more ? sizeof after : 0, after};
        uint64_t stream = world_send(w, MESSAGE_STORE_LIST, &request, (struct slice){0}, role);
        struct reply *answer = world_reply(w, stream);
        *ret_err = reply_err(answer);
        if (*ret_err != ERR_OK) {
            return 0;
        }
        struct proto_arena arena = {0};
        Cairn__StoreListReply *reply = NULL;
        assert_int_equal(proto_unpack(&cairn__store_list_reply__descriptor, answer->header, &arena, (void **)&reply),
                         ERR_OK);
        assert_int_equal(answer->body.bytes, reply->count * STORE_LIST_BYTES);
        assert_true(limit == 0 || reply->count <= limit);
        for (uint32_t i = 0; i < reply->count; i++) {
            const uint8_t *row = answer->body.data + (size_t)i * STORE_LIST_BYTES;
            assert_true(memcmp(row, last, SHARD_KEY_BYTES) > 0);
            memcpy(last, row, SHARD_KEY_BYTES);
            assert_true(bits == 0 || (uint32_t)row[8] >> (8 - bits) == pg);
            rows++;
        }
        more = reply->next.len != 0;
        if (more) {
            memcpy(after, reply->next.data, sizeof after);
        }
        proto_arena_deinit(&arena);
        if (!more) {
            return rows;
        }
    }
}

static void test_list(void **state)
{
    (void)state;
    struct net *net = net_create(80);
    struct chunk chunks[CHUNKS];
    chunks_put(net, chunks, 500);
    struct chunk foreign = chunk_make(net, 900, K, M, 5000);
    struct world *w = net->stores[0];
    unsigned slot = slot_of(&foreign, 0);
    struct shard *shard = &foreign.shards[slot];
    shard->key.realm = WORLD_REALM + 5;
    shard->store = 1;
    shard->capability = world_capability(w, 1, 1);
    shard->capability.realm = WORLD_REALM + 5;
    assert_int_equal(world_put_now(w, shard), ERR_OK);
    unsigned mine[3] = {0}, second = 0;
    for (unsigned i = 0; i < CHUNKS; i++) {
        bool here = slot_of(&chunks[i], 0) < LIMIT_SHARDS;
        mine[chunks[i].pg] += here;
        mine[2] += here;
        second += here && i % 3 == 0;
    }
    enum err err;
    for (uint32_t limit = 0; limit < 4; limit++) {
        assert_int_equal(list_rows(w, 1, 0, 0, limit, ROLE_BLOCKD, &err), mine[2] + 1);
        for (uint32_t pg = 0; pg < 2; pg++) {
            assert_int_equal(list_rows(w, 1, pg, 1, limit, ROLE_BLOCKD, &err), mine[pg] + (pg == foreign.pg));
            assert_int_equal(list_rows(w, 1, pg, 1, limit, ROLE_DEVICE, &err), mine[pg]);
        }
        assert_int_equal(list_rows(w, 2, 0, 0, limit, ROLE_DEVICE, &err), second);
        assert_int_equal(list_rows(w, 3, 0, 0, limit, ROLE_DEVICE, &err), 0);
        assert_int_equal(err, ERR_OK);
    }
    list_rows(w, 1, 2, 1, 0, ROLE_BLOCKD, &err); /* there are two groups of one bit */
    assert_int_equal(err, ERR_INVALID);
    list_rows(w, 1, 0, 33, 0, ROLE_BLOCKD, &err);
    assert_int_equal(err, ERR_INVALID);
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunk_free(&chunks[i]);
    }
    chunk_free(&foreign);
    net_destroy(net);
}

static void test_pull_is_for_block_servers(void **state)
{
    (void)state;
    struct net *net = net_create(81);
    struct chunk chunk = chunk_make(net, 15, K, M, 5000);
    put_all(net, &chunk, 1);
    struct world *w = net->stores[owner_of(chunk.pg, 0)];
    uint8_t key[SHARD_KEY_BYTES];
    shard_key_encode(&chunk.shards[0].key, key);
    Cairn__ShardPullRequest request = CAIRN__SHARD_PULL_REQUEST__INIT;
    request.shard = (ProtobufCBinaryData){sizeof key, key};
    uint64_t stream = world_send(w, MESSAGE_SHARD_PULL, &request, (struct slice){0}, ROLE_DEVICE);
    assert_int_equal(world_finish(w, stream), ERR_WRONG_ROLE);
    chunk_free(&chunk);
    net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_returns_empty),
        cmocka_unit_test(test_two_return_killed_on_the_way),
        cmocka_unit_test(test_stand_in_has_it),
        cmocka_unit_test(test_never_two_of_one_chunk),
        cmocka_unit_test(test_wrong_vectors),
        cmocka_unit_test(test_changed_on_the_way),
        cmocka_unit_test(test_silent_sources),
        cmocka_unit_test(test_disk_takes_nothing),
        cmocka_unit_test(test_room_again),
        cmocka_unit_test(test_rot_is_healed),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_pull_is_for_block_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
