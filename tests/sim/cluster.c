/* Nodes and their boots (cluster.h). */
#include "cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "blockd/blockd.h"
#include "check_cut.h"
#include "client/client.h"
#include "members.h"
#include "metad/host/log.h"
#include "proto/message.h"

enum { DEVICE = 1 };

#define SLOW_FLUSH_NS (2 * SECOND)

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

/* As the shell writes it down before a process says anything. */
static void boots_add(struct boots *boots, const struct node *node)
{
    if (boots->count == LIMIT_LOG_BOOTS) {
        boots->count--;
        memmove(&boots->list[0], &boots->list[1], boots->count * sizeof boots->list[0]);
    }
    boots->list[boots->count++] = (uint64_t)node->id << 32 | node->boot;
}

static void metad_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    boots_add(&c->boots[node->id - 1], node);
    struct log_params log = {.segment_bytes = c->log_segment_bytes};
    struct file_info *files = NULL;
    memset(log.directory.bytes, (int)node->id, sizeof log.directory.bytes);
    log.directory.bytes[0] ^= c->stale.directories[node->id - 1];
    disk_list(node->disks[0], FILE_LOG, &files, &log.file_count);
    log.files = files;
    world_actor_add(node, ACTOR_LOG, 0, log_step, log_end, log_create(&log), 0);
    free(files);
    static const uint32_t peers[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 0};
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        struct group_params group = {.group = g,
                                     .self = node->id,
                                     .directory = log.directory,
                                     .bootstrap = &c->bootstrap,
                                     .kv = sim_kv_view(node->kvs[0]),
                                     .group_count = CLUSTER_GROUPS,
                                     .tick_ns = c->plan->tick_ms * MILLISECOND,
                                     .peers = peers,
                                     .flush_entries = c->flush_entries,
                                     .keep_entries = c->keep_entries,
                                     .piece_bytes = c->piece_bytes,
                                     .cache_bytes = c->cache_bytes,
                                     .boots = c->boots[node->id - 1].list,
                                     .boot_count = c->boots[node->id - 1].count};
        if (c->plan->spares > 0) {
            group.address = c->addresses[node->id - 1];
            group.peers = c->peers[node->id - 1];
        }
        memset(group.cluster_key, 0x33, sizeof group.cluster_key);
        world_actor_add(node, ACTOR_GROUP, g, group_step, group_end, group_create(&group), 0);
    }
}

/* Whom a server or client asks when it starts: those of its configuration, which names the first ones, and those that
 * its shell remembers of the last map. */
static uint32_t metads_known(const struct cluster *c, uint32_t *ret_metads)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (i < c->plan->metads || c->metad_states[i] == METAD_IN_USE) {
            ret_metads[count++] = i + 1;
        }
    }
    return count;
}

static void store_boot(struct cluster *c, struct node *node)
{
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
}

static void blockd_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    char address[32], host[32];
    store_boot(c, node);
    snprintf(address, sizeof address, "10.0.0.%u:7000", node->id);
    snprintf(host, sizeof host, "host-%u", node->id);
    struct agent_params agent = {.node = node->id,
                                 .cluster = c->bootstrap.cluster,
                                 .cluster_incarnation = c->bootstrap.cluster_incarnation,
                                 .address = address,
                                 .host = host,
                                 .rack = "rack-1",
                                 .store_count = 1,
                                 .heartbeat_ns = SECOND};
    agent.metad_count = metads_known(c, agent.metads);
    world_actor_add(node, ACTOR_AGENT, 0, agent_step, agent_end, agent_create(&agent), -1);
}

static void client_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    struct client_params params = {.cluster = c->bootstrap.cluster,
                                   .cluster_incarnation = c->bootstrap.cluster_incarnation};
    params.metad_count = metads_known(c, params.metads);
    world_actor_add(node, ACTOR_CLIENT, 0, client_step, client_end, client_create(&params), 0);
    world_actor_add(node, ACTOR_API, 0, workload_step, NULL, workload_client_of(c->workload, node->id), -1);
}

static void operator_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct cluster *c = context;
    struct client_params params = {.cluster = c->bootstrap.cluster,
                                   .cluster_incarnation = c->bootstrap.cluster_incarnation};
    params.metad_count = metads_known(c, params.metads);
    world_actor_add(node, ACTOR_CLIENT, 0, client_step, client_end, client_create(&params), 0);
    world_actor_add(node, ACTOR_API, 0, members_step, NULL, c->members, -1);
}

/* ---- what the world tells ---- */

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
    struct cluster *c = context;
    twice_effect(&c->twice[node->slot], node, actor, effect);
    if (effect->kind == EFFECT_SEND && effect->send.to.role != ROLE_LOCAL) {
        safe_check_send(c->safe, node, effect);
    }
    if (effect->kind == EFFECT_SEND && node->role == ROLE_METAD) {
        metad_check_send(c->raft, c->log, node, actor, effect);
        cut_check_send(world, node, actor, effect);
    }
}

static void on_step(struct world *world, struct node *node, struct actor *actor, void *context)
{
    (void)world;
    struct cluster *c = context;
    if (actor->kind != ACTOR_GROUP) {
        return;
    }
    struct raft_status status = group_status(actor->self), *before = &c->before[node->id - 1][actor->index];
    raft_check_status(c->raft, node, actor->index, &status);
    log_check_agree(c->log, node->id, actor->index, status.base, status.applied);
    /* Who may change its mind within a step counts by the members before or by those after; and what was committed
     * under members of before need not be durable on a majority of those that come. */
    bool same = c->before_boot[node->id - 1][actor->index] == node->boot;
    bool risen = same && before->role == RAFT_LEADER && status.commit > before->commit;
    bool steady = status.config.index == 0 && c->stale.put_back + c->stale.emptied_count == 0;
    if (status.role == RAFT_LEADER && (steady || risen)) {
        log_check_commit(c->log, actor->index, risen ? &before->config.config : &status.config.config,
                         &status.config.config, status.commit);
    }
    if (same && before->role == RAFT_LEADER && status.role == RAFT_LEADER && before->term == status.term &&
        status.config.index > before->config.index) {
        log_check_config(c->log, actor->index, &before->config.config, &status);
    }
    *before = status;
    c->before_boot[node->id - 1][actor->index] = node->boot;
}

static void call_start(struct world *world, void *context, uint64_t slot)
{
    struct cluster *c = context;
    struct node *node = world->nodes[slot];
    if (node->up || stale_holds(c, node) || (node->role == ROLE_METAD && !cluster_metad_lives(c, node->id - 1))) {
        return;
    }
    if (node->role == ROLE_BLOCKD && rng_chance(&world->rng_scenario, c->plan->drop_index_percent * 10000)) {
        sim_kv_drop(node->kvs[0]);
        c->rebuild[node->id - 1] = true;
    }
    safe_check_node(c->safe, node, true);
    node_start(node);
}

static void on_down(struct world *world, struct node *node, void *context)
{
    struct cluster *c = context;
    uint64_t after = rng_between(&world->rng_scenario, c->plan->restart_min_ns, c->plan->restart_max_ns);
    safe_check_node(c->safe, node, false);
    stale_down(c, node);
    if (node->role == ROLE_BLOCKD) {
        after += c->away_ns[node->id - 1];
        c->away_ns[node->id - 1] = 0;
    }
    world_at(world, world->now_ns + after, call_start, context, node->slot);
}

/* A node may give up when its disk failed it, and only then. */
static bool on_halt(struct world *world, struct node *node, enum err err, const char *reason)
{
    (void)reason;
    const struct cluster *c = world->node_down_context;
    return c->disk_hurt[node->slot] && (err == ERR_IO || err == ERR_DISK_FULL || err == ERR_CORRUPT);
}

/* ---- making one ---- */

static void draw_bootstrap(struct cluster *c)
{
    struct rng *rng = &c->world->rng_scenario;
    struct bootstrap *b = &c->bootstrap;
    const struct plan *plan = c->plan;
    memset(b->cluster.uuid.bytes, 0x11, 16);
    b->cluster_incarnation = 1;
    b->member_count = plan->metads;
    for (uint32_t i = 0; i < plan->metads; i++) {
        b->members[i] = i + 1;
    }
    memset(b->random, 0x22, sizeof b->random);
    snprintf(b->workspace, sizeof b->workspace, "main");
    snprintf(b->pool, sizeof b->pool, "%s", plan->pools[rng_below(rng, plan->pool_count)]);
    b->stores = plan->blockds;
    b->chunk_bytes = plan->chunk_bytes[rng_below(rng, plan->chunk_count)];
    b->copy_bytes = rng_chance(rng, plan->coded_percent * 10000) ? 1 : 0;
    b->pg_bits = (uint32_t)rng_between(rng, 0, 4);
    b->device = DEVICE;
    memset(b->bearer.bytes, DEVICE, sizeof b->bearer.bytes);
}

static void draw_world(struct cluster *c)
{
    struct world *world = c->world;
    struct rng *rng = &world->rng_scenario;
    c->log_segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    c->store_segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    if (rng_chance(rng, 700000)) { /* logs are cut early, so that who was away for long needs snapshots */
        c->flush_entries = (uint32_t)rng_between(rng, 4, 60);
        c->keep_entries = (uint32_t)rng_between(rng, 1, 30);
        c->piece_bytes = (uint32_t)rng_between(rng, 512, 8192);
    }
    const uint32_t *weights = c->plan->weights;
    bool slow = weights[FAULT_LOG_ROT_LIVE] + weights[FAULT_DATABASE_LOST] > 0 && rng_chance(rng, 700000);
    if (slow) { /* much happens before the log may go, or a state is back */
        world->knobs.flush_max_ns = SLOW_FLUSH_NS;
    }
    if (weights[FAULT_LOG_ROT_LIVE] > 0) { /* what was written is read back, and mostly a flush is under way */
        c->cache_bytes = 1;
        c->flush_entries = slow ? (uint32_t)rng_between(rng, 4, 20) : c->flush_entries;
    }
    world->knobs.net_reset_ppm = (uint32_t)rng_below(rng, c->plan->reset_ppm + 1);
    world->event_limit = c->plan->steps;
    world->effect_probe = on_effect;
    world->effect_context = c;
    world_probe_add(world, on_step, c);
    world->node_down = on_down;
    world->node_down_context = c;
    world->message_lost = on_lost;
    world->halt_allowed = on_halt;
}

/* The metads that are not in use yet, and the operator. */
static void spares_make(struct cluster *c)
{
    c->metad_count = c->plan->metads + c->plan->spares;
    for (uint32_t i = 0; i < c->metad_count; i++) {
        snprintf(c->addresses[i], sizeof c->addresses[i], "10.1.0.%u:7100", i + 1);
        c->metad_states[i] = i < c->plan->metads ? METAD_IN_USE : METAD_SPARE;
        for (uint32_t j = 0; j < c->plan->metads; j++) {
            c->peers[i][j] = i < c->plan->metads ? j + 1 : 0;
        }
        if (i >= c->plan->metads) {
            c->metads[i] = world_node_add(c->world, ROLE_METAD, i + 1, 1, metad_boot, c);
        }
    }
    if (c->plan->spares > 0) {
        c->members = members_create(c);
        c->operator= world_node_add(c->world, ROLE_DEVICE, c->plan->workload.clients + 1, 1, operator_boot, c);
        c->operator->principal = DEVICE;
        c->operator->key = c->bootstrap.bearer;
    }
}

static void nodes_make(struct cluster *c)
{
    struct world *world = c->world;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        c->metads[i] = world_node_add(world, ROLE_METAD, i + 1, 1, metad_boot, c);
    }
    for (uint32_t i = 0; i < c->plan->blockds; i++) {
        c->blockds[i] = world_node_add(world, ROLE_BLOCKD, i + 1, 1, blockd_boot, c);
    }
    for (uint32_t i = 0; i < c->plan->workload.clients; i++) {
        c->clients[i] = world_node_add(world, ROLE_DEVICE, i + 1, 1, client_boot, c);
        c->clients[i]->principal = DEVICE;
        c->clients[i]->key = c->bootstrap.bearer;
        workload_node(workload_client_of(c->workload, i + 1), c->clients[i]);
    }
    spares_make(c);
    for (unsigned i = 0; i < world->node_count; i++) {
        struct node *node = world->nodes[i];
        uint64_t either = rng_below(&world->rng_scenario, 2ull * c->plan->clock_ppm + 1);
        node->clock_ppm = (int32_t)either - (int32_t)c->plan->clock_ppm;
        sim_kv_knobs(node->kvs[0])->spontaneous = rng_chance(&world->rng_scenario, 500000);
        if (node->role != ROLE_METAD || c->metad_states[node->id - 1] != METAD_SPARE) {
            node_start(node);
        }
    }
}

uint32_t cluster_metads_in_use(const struct cluster *c)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->metad_count; i++) {
        count += c->metad_states[i] == METAD_IN_USE;
    }
    return count;
}

bool cluster_metad_lives(const struct cluster *c, uint32_t index)
{
    return c->metad_states[index] != METAD_SPARE && c->metad_states[index] != METAD_OFF;
}

void cluster_init(struct cluster *c, struct world *world, const struct plan *plan)
{
    *c = (struct cluster){.world = world, .plan = plan};
    c->raft = raft_check_create(world);
    c->log = log_check_create(world);
    c->safe = safe_check_create(world, plan->forged_percent);
    if (plan->forged_percent > 0) {
        world->tamper = safe_forge;
        world->tamper_context = c->safe;
    }
    draw_bootstrap(c);
    draw_world(c);
    struct workload_params params = plan->workload;
    params.chunk_bytes = c->bootstrap.chunk_bytes;
    c->workload = workload_create(world, &params);
    nodes_make(c);
    c->victim = c->blockds[rng_below(&world->rng_scenario, plan->blockds)];
    stale_begin(c);
}

void cluster_deinit(struct cluster *c)
{
    if (c->members != NULL) {
        members_destroy(c->members);
    }
    workload_destroy(c->workload);
    stale_deinit(c);
    raft_check_destroy(c->raft);
    log_check_destroy(c->log);
    safe_check_destroy(c->safe);
}
