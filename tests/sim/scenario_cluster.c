/* Scenario `cluster`: three metads (log, root group, one namespace group each), six blockds with a store each, one to
 * three clients; every actor is the daemons' own. Clients upload, overwrite, read, remove and list small files; any
 * node is killed or loses power at any effect, all at once too; links are cut, connections reset. Then everything
 * heals: each operation must end, each acknowledged file is read back byte for byte, the replicas of each group must
 * hold the same bytes, and after a last power cut of the whole cluster all is read again.
 *
 * What is looked at meanwhile: check_raft.h, check_log.h, workload.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "blockd/blockd.h"
#include "check_log.h"
#include "check_raft.h"
#include "client/client.h"
#include "metad/host/log.h"
#include "metad/metad.h"
#include "proto/message.h"
#include "scenario.h"
#include "workload.h"

enum { METADS = 3, BLOCKDS = 6, CLIENTS = 3, GROUPS = 2, DEVICE = 1 };

struct cluster {
    struct world *world;
    struct raft_check *raft;
    struct log_check *log;
    struct bootstrap bootstrap;
    struct node *metads[METADS], *blockds[BLOCKDS], *clients[CLIENTS];
    struct workload *workloads[CLIENTS];
    unsigned client_count;
    uint32_t log_segment_bytes, store_segment_bytes;
    uint64_t fault_every_ns;
    bool rebuild[BLOCKDS];
    bool calm;
};

/* ---- nodes ---- */

static void log_end(void *self)
{
    log_destroy(self);
}
static void group_end(void *self)
{
    group_destroy(self);
}
static void store_end(void *self)
{
    store_destroy(self);
}
static void agent_end(void *self)
{
    agent_destroy(self);
}
static void client_end(void *self)
{
    client_destroy(self);
}

static void metad_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    struct log_params log = {.segment_bytes = c->log_segment_bytes};
    struct file_info *files = NULL;
    memset(log.directory.bytes, (int)node->id, sizeof log.directory.bytes);
    disk_list(node->disks[0], FILE_LOG, &files, &log.file_count);
    log.files = files;
    world_actor_add(node, ACTOR_LOG, 0, log_step, log_end, log_create(&log), 0);
    free(files);
    for (uint32_t g = 0; g < GROUPS; g++) {
        struct group_params group = {.group = g,
                                     .self = node->id,
                                     .bootstrap = &c->bootstrap,
                                     .kv = sim_kv_view(node->kvs[0]),
                                     .group_count = GROUPS,
                                     .tick_ns = 50 * MILLISECOND};
        memset(group.cluster_key, 0x33, sizeof group.cluster_key);
        world_actor_add(node, ACTOR_GROUP, g, group_step, group_end, group_create(&group), 0);
    }
}

static void blockd_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    char address[32], host[32];
    struct store_params store = {.cluster = c->bootstrap.cluster,
                                 .cluster_incarnation = c->bootstrap.cluster_incarnation,
                                 .incarnation = 1000 + node->id,
                                 .capacity_bytes = 1ull << 30,
                                 .segment_bytes = c->store_segment_bytes,
                                 .kv = sim_kv_view(node->kvs[0]),
                                 .rebuild_index = c->rebuild[node->id - 1]};
    struct file_info *files = NULL;
    memset(store.uuid.bytes, 0x40 + (int)node->id, sizeof store.uuid.bytes);
    disk_list(node->disks[0], FILE_SEGMENT, &files, &store.file_count);
    store.files = files;
    world_actor_add(node, ACTOR_STORE, 0, store_step, store_end, store_create(&store), 0);
    free(files);
    c->rebuild[node->id - 1] = false;
    snprintf(address, sizeof address, "10.0.0.%u:7000", node->id);
    snprintf(host, sizeof host, "host-%u", node->id);
    struct agent_params agent = {.node = node->id,
                                 .cluster = c->bootstrap.cluster,
                                 .cluster_incarnation = c->bootstrap.cluster_incarnation,
                                 .address = address,
                                 .host = host,
                                 .rack = "rack-1",
                                 .store_count = 1,
                                 .metads = {1, 2, 3},
                                 .metad_count = METADS,
                                 .heartbeat_ns = SECOND};
    world_actor_add(node, ACTOR_AGENT, 0, agent_step, agent_end, agent_create(&agent), -1);
}

static void client_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    struct client_params params = {.cluster = c->bootstrap.cluster,
                                   .cluster_incarnation = c->bootstrap.cluster_incarnation,
                                   .metads = {1, 2, 3},
                                   .metad_count = METADS};
    world_actor_add(node, ACTOR_CLIENT, 0, client_step, client_end, client_create(&params), 0);
    world_actor_add(node, ACTOR_API, 0, workload_step, NULL, c->workloads[node->id - 1], -1);
}

/* An operation that was under way between shell and core when the client died. */
static void on_lost(struct world *world, const struct message *message)
{
    (void)world;
    if (message->type == MESSAGE_CLIENT_OP || message->type == MESSAGE_CLIENT_DONE) {
        client_op_destroy(client_op_decode(message->header));
    }
}

static void on_effect(struct world *world, struct node *node, struct actor *actor, const struct effect *effect,
                      void *context)
{
    (void)world;
    struct cluster *c = context;
    if (effect->kind == EFFECT_SEND && node->role == ROLE_METAD) {
        raft_check_send(c->raft, node, effect);
        log_check_send(c->log, node, actor, effect);
    }
}

static void cluster_make(struct cluster *c)
{
    struct world *world = c->world;
    for (uint32_t i = 0; i < METADS; i++) {
        c->metads[i] = world_node_add(world, ROLE_METAD, i + 1, 1, metad_boot, c);
    }
    for (uint32_t i = 0; i < BLOCKDS; i++) {
        c->blockds[i] = world_node_add(world, ROLE_BLOCKD, i + 1, 1, blockd_boot, c);
    }
    for (uint32_t i = 0; i < c->client_count; i++) {
        c->clients[i] = world_node_add(world, ROLE_DEVICE, i + 1, 1, client_boot, c);
        c->clients[i]->principal = DEVICE;
        workload_node(c->workloads[i], c->clients[i]);
    }
    for (unsigned i = 0; i < world->node_count; i++) {
        for (unsigned d = 0; d < world->nodes[i]->dirs; d++) {
            sim_kv_knobs(world->nodes[i]->kvs[d])->spontaneous = rng_chance(&world->rng_scenario, 500000);
        }
        node_start(world->nodes[i]);
    }
}

/* ---- faults ---- */

static void call_start(struct world *world, void *context, uint64_t slot)
{
    struct cluster *c = context;
    struct node *node = world->nodes[slot];
    if (node->up) {
        return;
    }
    if (node->role == ROLE_BLOCKD && rng_chance(&world->rng_scenario, 100000)) {
        sim_kv_drop(node->kvs[0]);
        c->rebuild[node->id - 1] = true;
    }
    node_start(node);
}

static void on_down(struct world *world, struct node *node, void *context)
{
    world_at(world, world->now_ns + rng_between(&world->rng_scenario, MILLISECOND, 5 * SECOND), call_start, context,
             node->slot);
}

static void call_heal(struct world *world, void *context, uint64_t argument)
{
    (void)context;
    (void)argument;
    world_heal(world);
}

static enum crash_mode any_mode(struct rng *rng)
{
    return rng_chance(rng, 500000) ? CRASH_POWER : CRASH_KILL;
}

static void cut_links(struct cluster *c)
{
    struct world *world = c->world;
    struct rng *rng = &world->rng_scenario;
    struct node *node = world->nodes[rng_below(rng, world->node_count)];
    for (unsigned i = 0; i < world->node_count; i++) {
        if (world->nodes[i] != node && rng_chance(rng, 700000)) {
            world_cut(world, node, world->nodes[i], true);
        }
    }
    world_at(world, world->now_ns + rng_between(rng, 100 * MILLISECOND, 8 * SECOND), call_heal, c, 0);
}

static void fault(struct cluster *c)
{
    struct world *world = c->world;
    struct rng *rng = &world->rng_scenario;
    unsigned kind = (unsigned)rng_below(rng, 100);
    if (kind < 30) {
        node_crash_after(c->metads[rng_below(rng, METADS)], 1 + rng_below(rng, 100), any_mode(rng));
    } else if (kind < 60) {
        node_crash_after(c->blockds[rng_below(rng, BLOCKDS)], 1 + rng_below(rng, 60), any_mode(rng));
    } else if (kind < 70) {
        node_crash_after(c->clients[rng_below(rng, c->client_count)], 1 + rng_below(rng, 60), CRASH_KILL);
    } else if (kind < 77) {
        for (unsigned i = 0; i < METADS + BLOCKDS; i++) {
            node_crash(world->nodes[i], CRASH_POWER);
        }
    } else if (kind < 84) {
        for (unsigned i = 0; i < METADS + BLOCKDS; i++) {
            node_crash_after(world->nodes[i], 1 + rng_below(rng, 60), CRASH_POWER);
        }
    } else {
        cut_links(c);
    }
}

static void call_fault(struct world *world, void *context, uint64_t argument)
{
    struct cluster *c = context;
    if (!c->calm) {
        fault(c);
        world_at(world, world->now_ns + rng_below(&world->rng_scenario, 2 * c->fault_every_ns), call_fault, c,
                 argument);
    }
}

/* ---- the end ---- */

/* Runs until `done`, at most `bound_ns`. */
static bool run_until(struct cluster *c, bool (*done)(struct cluster *), uint64_t bound_ns)
{
    uint64_t end = c->world->now_ns + bound_ns;
    while (!done(c) && c->world->now_ns < end) {
        if (!world_run_until(c->world, c->world->now_ns + 50 * MILLISECOND)) {
            return false;
        }
    }
    return done(c);
}

static bool all_idle(struct cluster *c)
{
    bool idle = true;
    for (unsigned i = 0; i < c->client_count; i++) {
        idle = idle && workload_idle(c->workloads[i]);
    }
    return idle;
}

static bool all_verified(struct cluster *c)
{
    bool all = true;
    for (unsigned i = 0; i < c->client_count; i++) {
        all = all && workload_verified(c->workloads[i]);
    }
    return all;
}

static bool replicas_level(struct cluster *c)
{
    for (uint32_t g = 0; g < GROUPS; g++) {
        uint64_t applied[METADS];
        for (unsigned i = 0; i < METADS; i++) {
            struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, g);
            if (actor == NULL) {
                return false;
            }
            struct raft_status status = group_status(actor->self);
            applied[i] = status.applied;
            if (status.applied == 0 || status.applied != status.last || applied[i] != applied[0]) {
                return false;
            }
        }
    }
    return true;
}

/* The replicas of the groups hold the same pairs: apply is deterministic. */
static void compare_replicas(struct cluster *c)
{
    struct world *world = c->world;
    for (unsigned i = 1; i < METADS; i++) {
        struct kv_view *a = sim_kv_view(c->metads[0]->kvs[0]), *b = sim_kv_view(c->metads[i]->kvs[0]);
        struct slice key = {0};
        enum err err = ERR_OK;
        for (bool after = false; err == ERR_OK && !world->failed; after = true) {
            struct slice key_a = {0}, key_b = {0}, value_a = {0}, value_b = {0};
            err = kv_next(a, key.data, key.bytes, after, &key_a, &value_a);
            enum err err_b = kv_next(b, key.data, key.bytes, after, &key_b, &value_b);
            bool same = err == err_b && slice_equal(key_a, key_b) && slice_equal(value_a, value_b);
            WORLD_REQUIRE(world, same, "metads 1 and %u have applied the same and differ at key %.*s...", i + 1,
                          key_a.bytes > 9 ? 1 : 0, key_a.bytes > 9 ? (const char *)key_a.data + 8 : "");
            slice_drop(&key);
            key = key_a;
            slice_drop(&key_b);
            slice_drop(&value_a);
            slice_drop(&value_b);
        }
        slice_drop(&key);
    }
}

static void verify(struct cluster *c, const char *when)
{
    if (c->world->failed) {
        return;
    }
    for (unsigned i = 0; i < c->client_count; i++) {
        workload_verify(c->workloads[i]);
    }
    bool done = run_until(c, all_verified, 300 * SECOND);
    WORLD_REQUIRE(c->world, done, "%s: not all files could be read within 300 s", when);
}

/* In a quarter of the seeds bits rot on one store: every file has a copy or enough shards elsewhere. */
static void rot_one_store(struct cluster *c)
{
    struct rng *rng = &c->world->rng_scenario;
    if (c->world->failed || !rng_chance(rng, 250000)) {
        return;
    }
    struct node *node = c->blockds[rng_below(rng, BLOCKDS)];
    for (uint64_t bits = rng_between(rng, 1, 20); bits > 0; bits--) {
        struct file_ref file;
        uint64_t offset;
        disk_rot(node->disks[0], &file, &offset);
    }
}

static void finale(struct cluster *c)
{
    struct world *world = c->world;
    c->calm = true;
    world->crash_at = 0;
    world->knobs.net_reset_ppm = 0;
    world_heal(world);
    for (unsigned i = 0; i < world->node_count; i++) {
        world->nodes[i]->crash_at_effect = 0;
    }
    for (unsigned i = 0; i < c->client_count; i++) {
        workload_stop(c->workloads[i]);
    }
    if (!world_run_until(world, world->now_ns + 6 * SECOND)) {
        return;
    }
    bool idle = run_until(c, all_idle, 300 * SECOND);
    WORLD_REQUIRE(world, idle, "an operation has not ended 300 s after the last fault");
    rot_one_store(c);
    verify(c, "after the last fault");
    if (world->failed) {
        return;
    }
    bool level = run_until(c, replicas_level, 60 * SECOND);
    WORLD_REQUIRE(world, level, "the replicas do not apply the same in a healed cluster");
    if (!world->failed) {
        compare_replicas(c);
    }
    world->node_down = NULL;
    for (unsigned i = 0; i < METADS + BLOCKDS && !world->failed; i++) {
        node_crash(world->nodes[i], CRASH_POWER);
    }
    for (unsigned i = 0; i < METADS + BLOCKDS && !world->failed; i++) {
        node_start(world->nodes[i]);
    }
    verify(c, "after the last power cut");
}

static void draw_params(struct cluster *c)
{
    static const char *const pools[] = {"rs-4-2", "rs-2-1", "rs-3-2", "rep-3"};
    struct world *world = c->world;
    struct rng *rng = &world->rng_scenario;
    struct bootstrap *b = &c->bootstrap;
    bool big = rng_chance(rng, 250000); /* chunks that are coded; smaller ones are kept as copies */
    memset(b->cluster.uuid.bytes, 0x11, 16);
    b->cluster_incarnation = 1;
    b->member_count = METADS;
    for (uint32_t i = 0; i < METADS; i++) {
        b->members[i] = i + 1;
    }
    memset(b->random, 0x22, sizeof b->random);
    snprintf(b->workspace, sizeof b->workspace, "main");
    snprintf(b->pool, sizeof b->pool, "%s", pools[rng_below(rng, sizeof pools / sizeof pools[0])]);
    b->stores = BLOCKDS;
    b->chunk_bytes = big ? 72 << 10 : 256u << rng_below(rng, 3);
    b->pg_bits = (uint32_t)rng_between(rng, 0, 4);
    b->device = DEVICE;
    c->log_segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    c->store_segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    c->fault_every_ns = rng_between(rng, 500, 6000) * MILLISECOND;
    world->knobs.net_reset_ppm = (uint32_t)rng_below(rng, 3) * 500;
    world->knobs.wall_jump_ppm = 1000;
    c->client_count = (unsigned)rng_between(rng, 1, CLIENTS);
    for (unsigned i = 0; i < c->client_count; i++) {
        struct workload_params params = {.client = i + 1,
                                         .chunk_bytes = b->chunk_bytes,
                                         .every_ns = rng_between(rng, 10, 400) * MILLISECOND,
                                         .most_chunks = big ? 4 : 12};
        c->workloads[i] = workload_create(world, &params);
    }
}

static void cluster_run(struct world *world)
{
    struct cluster c = {.world = world, .raft = raft_check_create(world), .log = log_check_create(world)};
    draw_params(&c);
    world->effect_probe = on_effect;
    world->effect_context = &c;
    world->node_down = on_down;
    world->node_down_context = &c;
    world->message_lost = on_lost;
    cluster_make(&c);
    world_at(world, world->now_ns + 5 * SECOND, call_fault, &c, 0);
    if (world_run_until(world, world->now_ns + 40 * SECOND)) {
        finale(&c);
    }
    uint64_t acknowledged = 0, reads = 0;
    for (unsigned i = 0; i < c.client_count; i++) {
        acknowledged += workload_acknowledged(c.workloads[i]);
        reads += workload_reads(c.workloads[i]);
    }
    WORLD_REQUIRE(world, acknowledged > 0 && reads > 0, "nothing was acknowledged or read: the scenario tests nothing");
    world_end(world);
    for (unsigned i = 0; i < c.client_count; i++) {
        workload_destroy(c.workloads[i]);
    }
    raft_check_destroy(c.raft);
    log_check_destroy(c.log);
}

const struct scenario scenario_cluster = {
    .name = "cluster",
    .about = "3 metads, 6 blockds, 1-3 clients, all real: crashes, power cuts, partitions; acknowledged files stay",
    .run = cluster_run,
};
