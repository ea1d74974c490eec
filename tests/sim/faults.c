/* Faults by the weights of a plan. One row of `rows` each: it happens to nodes it draws itself; what lasts ends after a
 * time drawn from the plan, or with faults_heal. Bytes are corrupted on one block server of a seed only: what P1
 * promises is the loss of `safe_losses` stores, and those may be down at the same time in other ways. */
#include <string.h>

#include "base/check.h"
#include "cluster.h"

#define LIVE_ROT_SECTORS 32u
#define LIVE_ROT_BLOCK   4096u /* each write of a log begins on one */
#define LIVE_ROT_BEHIND  8u    /* entries in the log and not applied */
#define LIVE_ROT_TRIES   300u  /* 10 ms apart */
#define LOST_TRIES       300u  /* likewise */

static struct rng *rng_of_faults(struct cluster *c)
{
    return &c->world->rng_scenario;
}

/* The first that is in use. */
static uint32_t first_metad(const struct cluster *c)
{
    uint32_t first = 0;
    while (c->metad_states[first] != METAD_IN_USE) {
        first++;
    }
    return first;
}

static struct node *any_metad(struct cluster *c)
{
    struct node *node = c->metads[rng_below(rng_of_faults(c), c->metad_count)];
    return cluster_metad_lives(c, node->id - 1) ? node : c->metads[first_metad(c)];
}

static struct node *any_blockd(struct cluster *c)
{
    return c->blockds[rng_below(rng_of_faults(c), c->plan->blockds)];
}

static struct node *any_server(struct cluster *c)
{
    return c->world->nodes[rng_below(rng_of_faults(c), c->plan->metads + c->plan->blockds)];
}

static void lasts(struct cluster *c, world_call *end, uint64_t argument)
{
    uint64_t after = rng_between(rng_of_faults(c), c->plan->lasts_min_ns, c->plan->lasts_max_ns);
    world_at(c->world, c->world->now_ns + after, end, c, argument);
}

/* ---- nodes ---- */

static void crash_soon(struct cluster *c, struct node *node, enum crash_mode mode)
{
    if (node->role == ROLE_METAD && stale_shelters(c)) {
        return;
    }
    node_crash_after(node, 1 + rng_below(rng_of_faults(c), 80), mode);
}

static void metad_kill(struct cluster *c)
{
    crash_soon(c, any_metad(c), CRASH_KILL);
}
static void metad_power(struct cluster *c)
{
    crash_soon(c, any_metad(c), CRASH_POWER);
}
/* Killed, and then without power while it starts again: what it read back may have been in a cache only. */
static void metad_twice(struct cluster *c)
{
    struct node *node = any_metad(c);
    c->twice[node->slot] = stale_shelters(c) ? TWICE_NO : TWICE_WANTED;
}
static void blockd_kill(struct cluster *c)
{
    crash_soon(c, any_blockd(c), CRASH_KILL);
}
static void blockd_power(struct cluster *c)
{
    crash_soon(c, any_blockd(c), CRASH_POWER);
}
/* Killed, and for so long that the map calls its stores down; two at a time at most. */
static void blockd_away(struct cluster *c)
{
    struct node *node = any_blockd(c);
    unsigned absent = 0;
    for (unsigned i = 0; i < c->plan->blockds; i++) {
        absent += !c->blockds[i]->up || c->away_ns[i] > 0;
    }
    if (node->up && absent < 2) {
        c->away_ns[node->id - 1] = rng_between(rng_of_faults(c), 10, 40) * SECOND;
        crash_soon(c, node, CRASH_KILL);
    }
}
static void client_kill(struct cluster *c)
{
    crash_soon(c, c->clients[rng_below(rng_of_faults(c), c->plan->workload.clients)], CRASH_KILL);
}

/* All servers at one moment, or each before one of its next effects. */
static void all_power(struct cluster *c)
{
    bool at_once = rng_chance(rng_of_faults(c), 500000);
    for (uint32_t i = c->plan->metads; i < c->metad_count; i++) {
        if (cluster_metad_lives(c, i)) {
            node_crash_after(c->metads[i], 1 + rng_below(rng_of_faults(c), 80), CRASH_POWER);
        }
    }
    for (unsigned i = 0; i < c->plan->metads + c->plan->blockds; i++) {
        if (at_once && !(i < c->plan->metads && stale_shelters(c))) {
            node_crash(c->world->nodes[i], CRASH_POWER);
        } else if (!at_once) {
            crash_soon(c, c->world->nodes[i], CRASH_POWER);
        }
    }
}

/* ---- the network ---- */

static void end_cuts(struct world *world, void *context, uint64_t argument)
{
    (void)context;
    (void)argument;
    world_heal(world);
}

/* From most of the others. */
static void cut_off(struct cluster *c, const struct node *node, bool from, bool to)
{
    struct world *world = c->world;
    for (unsigned i = 0; i < world->node_count; i++) {
        if (world->nodes[i] == node || rng_chance(rng_of_faults(c), 250000)) {
            continue;
        }
        if (from) {
            world_block(world, node, world->nodes[i]);
        }
        if (to) {
            world_block(world, world->nodes[i], node);
        }
    }
    lasts(c, end_cuts, 0);
}

static void cut_node(struct cluster *c)
{
    cut_off(c, c->world->nodes[rng_below(rng_of_faults(c), c->world->node_count)], true, true);
}

/* A metad that leads a group now; any when none does. */
static struct node *leader(struct cluster *c)
{
    uint32_t group = (uint32_t)rng_below(rng_of_faults(c), CLUSTER_GROUPS);
    for (uint32_t i = 0; i < c->metad_count; i++) {
        struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, group);
        if (actor != NULL && group_status(actor->self).role == RAFT_LEADER) {
            return c->metads[i];
        }
    }
    return any_metad(c);
}

static void cut_leader(struct cluster *c)
{
    cut_off(c, leader(c), true, true);
}

static void cut_one_way(struct cluster *c)
{
    bool from = rng_chance(rng_of_faults(c), 500000);
    struct node *node = rng_chance(rng_of_faults(c), 500000) ? leader(c) : any_server(c);
    cut_off(c, node, from, !from);
}

/* Two metads do not see each other, the third sees both; clients and block servers fall to one side or see both. */
static void cut_bridge(struct cluster *c)
{
    if (c->plan->metads < 3) {
        return;
    }
    struct node *a = leader(c), *b = a;
    while (b == a) {
        b = any_metad(c);
    }
    world_cut(c->world, a, b, true);
    for (unsigned i = c->plan->metads; i < c->world->node_count; i++) {
        uint64_t side = rng_below(rng_of_faults(c), 3);
        if (side < 2) {
            world_cut(c->world, c->world->nodes[i], side == 0 ? a : b, true);
        }
    }
    lasts(c, end_cuts, 0);
}

/* Longer than a client waits for a node that it heard before it asks another. */
#define LATE_NS (5 * SECOND)

static void late_leader(struct cluster *c)
{
    struct node *others[PLAN_METADS];
    unsigned count = 0;
    struct node *node = leader(c);
    for (unsigned i = 0; i < c->metad_count; i++) {
        if (c->metads[i] != node) {
            others[count++] = c->metads[i];
        }
    }
    late_begin(&c->late, c->world, node, others, count, LATE_NS);
}

/* ---- disks ---- */

static void end_disk(struct world *world, void *context, uint64_t slot)
{
    (void)context;
    disk_knobs_mend(disk_knobs(world->nodes[slot]->disks[0]));
}

static void slow_disk(struct cluster *c)
{
    struct node *node = any_server(c);
    disk_knobs(node->disks[0])->extra_ns = rng_between(rng_of_faults(c), 5, 200) * MILLISECOND;
    lasts(c, end_disk, node->slot);
}

/* Nothing it was asked ends before it comes back. */
static void hung_disk(struct cluster *c)
{
    struct node *node = any_server(c);
    uint64_t until = rng_between(rng_of_faults(c), c->plan->lasts_min_ns, c->plan->lasts_max_ns);
    disk_knobs(node->disks[0])->hung_until_ns = c->world->now_ns + until;
}

static void full_disk(struct cluster *c)
{
    struct node *node = any_blockd(c);
    c->disk_hurt[node->slot] = true;
    disk_knobs(node->disks[0])->capacity_bytes = 1 + disk_used_bytes(node->disks[0]);
    lasts(c, end_disk, node->slot);
}

static void failing_disk(struct cluster *c)
{
    struct node *node = c->victim;
    struct disk_knobs *knobs = disk_knobs(node->disks[0]);
    c->disk_hurt[node->slot] = true;
    knobs->write_fail_ppm = (uint32_t)rng_below(rng_of_faults(c), 200000);
    knobs->read_fail_ppm = (uint32_t)rng_below(rng_of_faults(c), 200000);
    knobs->sync_fail_ppm = (uint32_t)rng_below(rng_of_faults(c), 200000);
    lasts(c, end_disk, node->slot);
}

static void rot(struct cluster *c)
{
    for (uint64_t bits = rng_between(rng_of_faults(c), 1, 10); bits > 0; bits--) {
        struct file_ref file;
        uint64_t offset;
        disk_rot(c->victim->disks[0], &file, &offset);
    }
}

static void stale_sectors(struct cluster *c)
{
    disk_knobs(c->victim->disks[0])->lost_write_ppm = 100000;
    lasts(c, end_disk, c->victim->slot);
}

static void misdirected(struct cluster *c)
{
    disk_knobs(c->victim->disks[0])->misdirected_ppm = 100000;
    lasts(c, end_disk, c->victim->slot);
}

/* While the node is down; a log that reads what rotted under it halts. */
void faults_log_rot(struct cluster *c, struct node *metad)
{
    struct file_ref file;
    uint64_t offset = 0;
    if (metad->up) {
        node_crash(metad, rng_chance(rng_of_faults(c), 500000) ? CRASH_POWER : CRASH_KILL);
    }
    if (disk_rot(metad->disks[0], &file, &offset)) {
        world_note(c->world, "rot: metad:%u log file %u offset %llu", metad->id, file.number,
                   (unsigned long long)offset);
    }
}

struct node *faults_log_victim(const struct cluster *c)
{
    return c->metads[c->victim->id % c->plan->metads];
}

static void log_rot(struct cluster *c)
{
    struct node *metad = faults_log_victim(c);
    if (!c->log_rotted) {
        c->log_rotted = true;
        faults_log_rot(c, metad);
    } else {
        crash_soon(c, metad, CRASH_POWER);
    }
}

/* Every member is up and has its state: one may lose it. */
static bool databases_are_whole(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        for (uint32_t g = 0; g < CLUSTER_GROUPS && c->metad_states[i] == METAD_IN_USE; g++) {
            const struct actor *actor = c->metads[i]->up ? node_actor(c->metads[i], ACTOR_GROUP, g) : NULL;
            if (actor == NULL || group_status(actor->self).term == 0 || group_health(actor->self).lost) {
                return false;
            }
        }
    }
    return true;
}

/* Who leads the group, if that is another one and the node's log has all that it has. */
static struct node *led_by(struct cluster *c, uint32_t g, const struct node *node, uint64_t last)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        const struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, g);
        struct raft_status status = actor != NULL ? group_status(actor->self) : (struct raft_status){0};
        if (status.role == RAFT_LEADER && c->metads[i] != node && last >= status.last) {
            return c->metads[i];
        }
    }
    return NULL;
}

/* The state is not back yet and the log is level: the leader dies, so that this node would be elected. */
static void lost_wait(struct world *world, void *context, uint64_t argument)
{
    struct cluster *c = context;
    struct node *metad = c->metads[argument % PLAN_METADS], *leader = NULL;
    for (uint32_t g = 0; g < CLUSTER_GROUPS && leader == NULL; g++) {
        const struct actor *actor = node_actor(metad, ACTOR_GROUP, g);
        if (actor != NULL && group_health(actor->self).lost) {
            leader = led_by(c, g, metad, group_status(actor->self).last);
        }
    }
    if (c->calm) {
        return;
    }
    if (leader != NULL) {
        node_crash(leader, CRASH_KILL);
    } else if (argument >= PLAN_METADS) {
        world_at(world, world->now_ns + 10 * MILLISECOND, lost_wait, c, argument - PLAN_METADS);
    }
}

/* A metad's database is damaged: its shell sets it aside, and starts with an empty one (R-E5). */
static void database_lost(struct cluster *c)
{
    struct node *metad = any_metad(c);
    bool member = c->metad_states[metad->id - 1] == METAD_IN_USE;
    if (member && databases_are_whole(c) && !stale_shelters(c)) {
        node_crash(metad, rng_chance(rng_of_faults(c), 500000) ? CRASH_POWER : CRASH_KILL);
        sim_kv_drop(metad->kvs[0]);
        world_note(c->world, "database of metad:%u lost", metad->id);
        if (rng_chance(rng_of_faults(c), 500000)) {
            world_at(c->world, c->world->now_ns, lost_wait, c, LOST_TRIES * PLAN_METADS + metad->id - 1);
        }
    } else {
        crash_soon(c, metad, CRASH_KILL);
    }
}

/* A metad's directory is put back from an older copy, or emptied (stale.h). */
static void directory_back(struct cluster *c, bool emptied)
{
    struct node *metad = any_metad(c);
    if (!stale_hurt(c, metad, emptied) && c->stale.backups[metad->id - 1].disk == NULL) {
        crash_soon(c, metad, CRASH_KILL); /* a backup comes of it */
    }
}

static void stale_copy(struct cluster *c)
{
    directory_back(c, false);
}

static void emptied(struct cluster *c)
{
    directory_back(c, true);
}

/* A sector of one metad's log flips under the running process, near the end: what lags, or starts, will read it. */
static void live_rot_flip(struct cluster *c)
{
    struct node *metad = faults_log_victim(c);
    struct file_ref file;
    uint64_t offset = 0;
    /* where a write begins there is an entry; many of the sectors behind carry nothing */
    uint32_t align = rng_chance(rng_of_faults(c), 700000) ? LIVE_ROT_BLOCK : DISK_SECTOR_BYTES;
    if (metad->up && disk_rot_newest(metad->disks[0], LIVE_ROT_SECTORS, align, &file, &offset)) {
        world_note(c->world, "rot: metad:%u, running, log file %u offset %llu", metad->id, file.number,
                   (unsigned long long)offset);
    } else {
        crash_soon(c, any_metad(c), CRASH_KILL);
    }
}

/* When it has entries to apply, which it will read back, or at last. */
static void live_rot_wait(struct world *world, void *context, uint64_t tries)
{
    struct cluster *c = context;
    struct node *metad = faults_log_victim(c);
    bool behind = false;
    for (uint32_t g = 0; g < CLUSTER_GROUPS && metad->up; g++) {
        const struct actor *actor = node_actor(metad, ACTOR_GROUP, g);
        struct raft_status status = actor != NULL ? group_status(actor->self) : (struct raft_status){0};
        behind = behind || status.applied + LIVE_ROT_BEHIND < status.last;
    }
    if (behind || tries == 0) {
        live_rot_flip(c);
    } else {
        world_at(world, world->now_ns + 10 * MILLISECOND, live_rot_wait, c, tries - 1);
    }
}

static void slow_for_a_while(struct cluster *c, struct node *node)
{
    disk_knobs(node->disks[0])->extra_ns = rng_between(rng_of_faults(c), 5, 60) * MILLISECOND;
    lasts(c, end_disk, node->slot);
}

static bool leads_any(struct node *metad)
{
    bool any = false;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        const struct actor *actor = node_actor(metad, ACTOR_GROUP, g);
        any = any || (actor != NULL && group_status(actor->self).role == RAFT_LEADER);
    }
    return any;
}

static void live_rot_heal(struct world *world, void *context, uint64_t argument)
{
    (void)argument;
    live_rot_flip(context);
    world_heal(world);
}

/* Another one does not hear the leader for a moment: what was written meanwhile is read back for that one. */
static void live_rot_lag(struct cluster *c, struct node *metad)
{
    struct rng *rng = rng_of_faults(c);
    struct node *other = metad;
    while (other == metad) {
        other = c->metads[rng_below(rng, c->plan->metads)];
    }
    world_cut(c->world, metad, other, true);
    world_at(c->world, c->world->now_ns + rng_between(rng, 200, 800) * MILLISECOND, live_rot_heal, c, 0);
}

/* Mostly it dies before, and its disk is slow for a while: what it applies again, and what it acknowledges, waits. Or
 * all die, and the others are slow: then it may lead before it has applied what it holds. */
static void log_rot_live(struct cluster *c)
{
    struct node *metad = faults_log_victim(c);
    struct rng *rng = rng_of_faults(c);
    if (rng_chance(rng, 250000)) {
        live_rot_flip(c);
        return;
    }
    if (leads_any(metad) && rng_chance(rng, 800000)) {
        live_rot_lag(c, metad);
        return;
    }
    bool all = rng_chance(rng, 400000);
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        struct node *node = c->metads[i];
        if (all) {
            node_crash(node, CRASH_KILL);
        } else if (node == metad) {
            crash_soon(c, node, CRASH_KILL);
        }
        if ((node == metad) != all) {
            slow_for_a_while(c, node);
        }
    }
    world_at(c->world, c->world->now_ns + 10 * MILLISECOND, live_rot_wait, c, LIVE_ROT_TRIES);
}

/* ---- clocks ---- */

static void clock_jump(struct cluster *c)
{
    struct node *node = c->world->nodes[rng_below(rng_of_faults(c), c->world->node_count)];
    node->wall_offset_ns += rng_below(rng_of_faults(c), 2 * 86400 * SECOND) - 86400 * SECOND;
}

static void (*const rows[FAULT_KINDS])(struct cluster *) = {
    [FAULT_METAD_KILL] = metad_kill,
    [FAULT_METAD_POWER] = metad_power,
    [FAULT_BLOCKD_KILL] = blockd_kill,
    [FAULT_BLOCKD_POWER] = blockd_power,
    [FAULT_CLIENT_KILL] = client_kill,
    [FAULT_ALL_POWER] = all_power,
    [FAULT_CUT_NODE] = cut_node,
    [FAULT_CUT_LEADER] = cut_leader,
    [FAULT_CUT_ONE_WAY] = cut_one_way,
    [FAULT_CUT_BRIDGE] = cut_bridge,
    [FAULT_SLOW_DISK] = slow_disk,
    [FAULT_HUNG_DISK] = hung_disk,
    [FAULT_FULL_DISK] = full_disk,
    [FAULT_FAILING_DISK] = failing_disk,
    [FAULT_ROT] = rot,
    [FAULT_STALE_SECTORS] = stale_sectors,
    [FAULT_MISDIRECTED] = misdirected,
    [FAULT_CLOCK_JUMP] = clock_jump,
    [FAULT_LOG_ROT] = log_rot,
    [FAULT_BLOCKD_AWAY] = blockd_away,
    [FAULT_LATE_LEADER] = late_leader,
    [FAULT_METAD_TWICE] = metad_twice,
    [FAULT_DATABASE_LOST] = database_lost,
    [FAULT_STALE_COPY] = stale_copy,
    [FAULT_EMPTIED] = emptied,
    [FAULT_LOG_ROT_LIVE] = log_rot_live,
};

static enum fault_kind draw_kind(struct cluster *c)
{
    uint64_t sum = 0;
    for (int kind = 0; kind < FAULT_KINDS; kind++) {
        sum += c->plan->weights[kind];
    }
    CHECK(sum > 0);
    uint64_t at = rng_below(rng_of_faults(c), sum);
    int kind = 0;
    while (at >= c->plan->weights[kind]) {
        at -= c->plan->weights[kind++];
    }
    return (enum fault_kind)kind;
}

static void call_fault(struct world *world, void *context, uint64_t argument)
{
    (void)argument;
    struct cluster *c = context;
    if (c->calm || c->faults == c->plan->fault_count) {
        return;
    }
    enum fault_kind kind = draw_kind(c);
    world_note(world, "fault %u: %s", c->faults + 1, fault_name(kind));
    rows[kind](c);
    c->faults++;
    world->faults++;
    world_at(world, world->now_ns + rng_between(rng_of_faults(c), c->plan->fault_min_ns, c->plan->fault_max_ns),
             call_fault, c, 0);
}

void faults_begin(struct cluster *c)
{
    uint64_t after = rng_between(rng_of_faults(c), c->plan->fault_min_ns, c->plan->fault_max_ns);
    world_at(c->world, c->world->now_ns + after, call_fault, c, 0);
}

void faults_heal(struct cluster *c)
{
    struct world *world = c->world;
    c->calm = true;
    late_end(&c->late);
    stale_heal(c);
    memset(c->twice, 0, sizeof c->twice);
    world->crash_at = 0;
    world->knobs.net_reset_ppm = 0;
    world_heal(world);
    for (unsigned i = 0; i < world->node_count; i++) {
        world->nodes[i]->crash_countdown = 0;
        disk_knobs_mend(disk_knobs(world->nodes[i]->disks[0]));
    }
}
