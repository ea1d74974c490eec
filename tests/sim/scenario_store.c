/* Scenario `store`: one blockd with one real store, an agent double that tells it a fixed map and key, and a device
 * that puts and gets (store_driver.h). The node is killed and cut off from power at any effect; on some restarts its
 * index is gone and must be rebuilt. At the end every receipted shard is read back, the index is dropped, rebuilt,
 * compared by digest and everything read again, and once more after a last power cut. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/sign.h"
#include "blockd/blockd.h"
#include "blockd/report.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "scenario.h"
#include "store_driver.h"

enum { PG_BITS = 3, POOL = 1, AGENT_TIMER = 1 };

/* Tells the store its state each second, as blockd's agent does after a heartbeat. */
struct agent_double {
    struct store_scenario *scenario;
    bool ready; /* the store's last report */
    uint64_t last_record;
};

struct store_scenario {
    struct world *world;
    struct node *blockd, *device;
    struct driver *driver;
    struct driver_params params;
    struct slice map;
    uint32_t segment_bytes;
    bool rebuild, calm;
    uint64_t fault_every_ns;
    struct agent_double agent;
};

static struct slice map_make(const struct driver_params *params)
{
    uint8_t public_key[32];
    uint32_t slots[(1 << PG_BITS) * (DRIVER_K + DRIVER_M)], standins[(1 << PG_BITS) * (DRIVER_K + DRIVER_M)];
    for (unsigned i = 0; i < sizeof slots / sizeof slots[0]; i++) {
        slots[i] = 1 + i % (DRIVER_K + DRIVER_M);
        standins[i] = DRIVER_STORE;
    }
    sign_public_key(params->signing_seed, public_key);
    Cairn__ClusterMap map = CAIRN__CLUSTER_MAP__INIT;
    Cairn__MapPool pool = CAIRN__MAP_POOL__INIT, *pools = &pool;
    Cairn__MapKey key = CAIRN__MAP_KEY__INIT, *keys = &key;
    map.cluster.data = (uint8_t *)params->cluster.uuid.bytes;
    map.cluster.len = 16;
    map.cluster_incarnation = params->cluster_incarnation;
    map.epoch = 1;
    map.tick = 1;
    pool.pool = POOL;
    pool.k = DRIVER_K;
    pool.m = DRIVER_M;
    pool.pg_bits = PG_BITS;
    pool.slots = slots;
    pool.n_slots = sizeof slots / sizeof slots[0];
    pool.standin_count = 1;
    pool.standins = standins;
    pool.n_standins = pool.n_slots;
    key.key_id = 1;
    key.public_key.data = public_key;
    key.public_key.len = sizeof public_key;
    map.pools = &pools;
    map.n_pools = 1;
    map.keys = &keys;
    map.n_keys = 1;
    return proto_pack(&map);
}

static void agent_double_step(void *self, const struct event *event, struct effects *fx)
{
    struct agent_double *agent = self;
    struct store_scenario *s = agent->scenario;
    if (event->kind == EVENT_TIMER) {
        struct store_state state = {
            .store = DRIVER_STORE, .incarnation = s->params.store_incarnation, .tick = 1, .map = s->map};
        memcpy(state.receipt_key, s->params.receipt_key, sizeof state.receipt_key);
        fx_send(fx, address_local(ACTOR_STORE, 0), MESSAGE_STORE_STATE, 0, store_state_encode(&state),
                (struct slice){0});
        fx_timer(fx, AGENT_TIMER, event->now_ns + SECOND);
    } else if (event->kind == EVENT_MESSAGE && event->message.type == MESSAGE_STORE_REPORT) {
        struct store_report report;
        enum err err = store_report_decode(event->message.header, &report);
        CHECK(err == ERR_OK);
        WORLD_REQUIRE(s->world, !report.ready || report.last_record >= agent->last_record,
                      "the store's last durable record falls from %lu to %lu", (unsigned long)agent->last_record,
                      (unsigned long)report.last_record);
        agent->ready = report.ready;
        agent->last_record = report.ready ? report.last_record : agent->last_record;
    }
}

static void store_actor_destroy(void *self)
{
    store_destroy(self);
}

static void blockd_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct store_scenario *s = context;
    struct store_params params = {
        .cluster = s->params.cluster,
        .cluster_incarnation = s->params.cluster_incarnation,
        .incarnation = s->params.store_incarnation,
        .capacity_bytes = 1ull << 30,
        .segment_bytes = s->segment_bytes,
        .kv = sim_kv_view(node->kvs[0]),
        .rebuild_index = s->rebuild,
    };
    memset(params.uuid.bytes, 9, sizeof params.uuid.bytes);
    struct file_info *files = NULL;
    disk_list(node->disks[0], FILE_SEGMENT, &files, &params.file_count);
    params.files = files;
    s->agent.ready = false;
    world_actor_add(node, ACTOR_STORE, 0, store_step, store_actor_destroy, store_create(&params), 0);
    world_actor_add(node, ACTOR_AGENT, 0, agent_double_step, NULL, &s->agent, -1);
    free(files);
    s->rebuild = false;
}

static void device_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct store_scenario *s = context;
    world_actor_add(node, ACTOR_CLIENT, 0, driver_step, NULL, s->driver, -1);
}

static void drop_index(struct store_scenario *s)
{
    CHECK(!s->blockd->up);
    sim_kv_drop(s->blockd->kvs[0]);
    s->rebuild = true;
}

static void call_start(struct world *world, void *context, uint64_t slot)
{
    struct store_scenario *s = context;
    struct node *node = world->nodes[slot];
    if (!node->up) {
        if (node == s->blockd && rng_chance(&world->rng_scenario, 150000)) {
            drop_index(s);
        }
        node_start(node);
    }
}

static void on_down(struct world *world, struct node *node, void *context)
{
    world_at(world, world->now_ns + rng_between(&world->rng_scenario, MILLISECOND, SECOND), call_start, context,
             node->slot);
}

static void call_fault(struct world *world, void *context, uint64_t argument)
{
    struct store_scenario *s = context;
    struct rng *rng = &world->rng_scenario;
    if (!s->calm) {
        node_crash_after(s->blockd, 1 + rng_below(rng, 80), rng_chance(rng, 600000) ? CRASH_POWER : CRASH_KILL);
        world_at(world, world->now_ns + rng_below(rng, 2 * s->fault_every_ns), call_fault, s, argument);
    }
}

/* Reads back all that is receipted. */
static bool verify(struct store_scenario *s, const char *when)
{
    struct world *world = s->world;
    uint64_t end = world->now_ns + 120 * SECOND;
    driver_verify(s->driver);
    while (!driver_verified(s->driver) && world->now_ns < end) {
        if (!world_run_until(world, world->now_ns + 100 * MILLISECOND)) {
            return false;
        }
    }
    WORLD_REQUIRE(world, driver_verified(s->driver), "%s: not every receipted shard could be read", when);
    return !world->failed;
}

static bool run_until_ready(struct store_scenario *s)
{
    for (int i = 0; i < 300 && !s->agent.ready; i++) {
        if (!world_run_until(s->world, s->world->now_ns + 100 * MILLISECOND)) {
            return false;
        }
    }
    WORLD_REQUIRE(s->world, s->agent.ready, "the store does not come up within 30 s");
    return !s->world->failed;
}

static void finale(struct store_scenario *s)
{
    struct world *world = s->world;
    s->calm = true;
    world->crash_at = 0;
    s->blockd->crash_countdown = 0;
    world->knobs.net_reset_ppm = 0;
    if (!world_run_until(world, world->now_ns + 2 * SECOND) || !run_until_ready(s) ||
        !verify(s, "after the last fault") || !world_run_until(world, world->now_ns + 12 * SECOND)) {
        return;
    }
    struct sha256 before = store_index_digest(sim_kv_view(s->blockd->kvs[0]));
    world->node_down = NULL;
    node_crash(s->blockd, CRASH_POWER);
    drop_index(s);
    node_start(s->blockd);
    if (!run_until_ready(s)) {
        return;
    }
    struct sha256 after = store_index_digest(sim_kv_view(s->blockd->kvs[0]));
    WORLD_REQUIRE(world, memcmp(&before, &after, sizeof before) == 0, "the rebuilt index differs from the one dropped");
    if (!verify(s, "after the rebuild")) {
        return;
    }
    node_crash(s->blockd, CRASH_POWER);
    node_start(s->blockd);
    if (run_until_ready(s)) {
        verify(s, "after the last power cut");
    }
}

static void draw_params(struct store_scenario *s)
{
    struct rng *rng = &s->world->rng_scenario;
    s->params = (struct driver_params){.world = s->world, .cluster_incarnation = 1, .store_incarnation = 77};
    memset(s->params.cluster.uuid.bytes, 5, 16);
    memset(s->params.receipt_key, 6, 32);
    memset(s->params.signing_seed, 8, 32);
    s->segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    s->params.shard_bytes_max = s->segment_bytes / 2;
    s->params.every_ns = rng_between(rng, 2, 40) * MILLISECOND;
    s->fault_every_ns = rng_between(rng, 200, 3000) * MILLISECOND;
    s->world->knobs.net_reset_ppm = (uint32_t)rng_below(rng, 3) * 3000;
    s->world->knobs.wall_jump_ppm = 1000;
}

static void store_run(struct world *world)
{
    struct store_scenario s = {.world = world};
    draw_params(&s);
    s.agent.scenario = &s;
    s.map = map_make(&s.params);
    s.driver = driver_create(&s.params);
    s.blockd = world_node_add(world, ROLE_BLOCKD, 1, 1, blockd_boot, &s);
    s.device = world_node_add(world, ROLE_DEVICE, 1, 0, device_boot, &s);
    sim_kv_knobs(s.blockd->kvs[0])->spontaneous = rng_chance(&world->rng_scenario, 500000);
    world->node_down = on_down;
    world->node_down_context = &s;
    node_start(s.blockd);
    node_start(s.device);
    world_at(world, world->now_ns + SECOND, call_fault, &s, 0);
    if (world_run_until(world, world->now_ns + 15 * SECOND)) {
        finale(&s);
    }
    WORLD_REQUIRE(world, driver_receipts(s.driver) > 0, "not one shard was receipted: the scenario tests nothing");
    driver_destroy(s.driver);
    slice_drop(&s.map);
}

const struct scenario scenario_store = {
    .name = "store",
    .about = "1 blockd with 1 store: puts and gets, crashes at any effect, lost index; receipted shards stay",
    .run = store_run,
};
