/* Scenario `log`: three metads, each with the real log actor and two Raft groups on it. Proposals and reads all the
 * time; nodes killed and cut off from power at any effect, all at once too; links cut, connections reset, and in some
 * seeds messages lost, doubled and reordered. Then everything heals: within a bound each group must lead, commit and
 * have all nodes apply the same.
 *
 * What is looked at: check_raft.h, check_log.h. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "check_log.h"
#include "check_raft.h"
#include "group_host.h"
#include "late.h"
#include "metad/host/log.h"
#include "scenario.h"

enum { METADS = 3, GROUPS = 2 };

struct log_scenario {
    struct world *world;
    struct raft_check *raft;
    struct log_check *log;
    struct host_watch watch;
    struct node *nodes[METADS];
    uint64_t cache_bytes;
    uint32_t segment_bytes;
    uint64_t propose_every_ns, fault_every_ns;
    bool calm;  /* faults are over */
    bool lates; /* leaders hear late; nodes lose power while they start */
    struct late late;
    enum twice twice[METADS];
    bool rots;               /* sectors of logs do, while their node is down */
    unsigned victim;         /* whose; in the end one more */
    uint32_t flips[METADS];  /* sectors spoiled */
    uint64_t unsure[METADS]; /* the boot in which the log could not tell what was promised */
};

static void log_actor_destroy(void *self)
{
    log_destroy(self);
}

static void metad_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    struct log_scenario *s = context;
    struct log_params params = {.segment_bytes = s->segment_bytes};
    struct file_info *files = NULL;
    memset(params.directory.bytes, (int)node->id, sizeof params.directory.bytes);
    disk_list(node->disks[0], FILE_LOG, &files, &params.file_count);
    params.files = files;
    world_actor_add(node, ACTOR_LOG, 0, log_step, log_actor_destroy, log_create(&params), 0);
    free(files);
    for (uint32_t g = 0; g < GROUPS; g++) {
        struct host_params host = {.group = g,
                                   .self = node->id,
                                   .members = {1, 2, 3},
                                   .member_count = METADS,
                                   .tick_ns = 50 * MILLISECOND,
                                   .cache_bytes = s->cache_bytes,
                                   .kv = sim_kv_view(node->kvs[0]),
                                   .watch = &s->watch};
        world_actor_add(node, ACTOR_GROUP, g, host_step, host_destroy, host_create(&host), 0);
    }
}

static void on_opened(void *context, uint32_t node, uint32_t group, uint64_t applied)
{
    raft_check_opened(((struct log_scenario *)context)->raft, node, group, applied);
}

static void on_applied(void *context, uint32_t node, uint32_t group, const struct raft_entry *entry)
{
    raft_check_applied(((struct log_scenario *)context)->raft, node, group, entry);
}

static void on_acknowledged(void *context, uint32_t group, uint64_t proposal, uint64_t index)
{
    raft_check_acknowledged(((struct log_scenario *)context)->raft, group, proposal, index);
}

static void on_read(void *context, uint32_t group, uint64_t read, uint64_t index)
{
    raft_check_read_answered(((struct log_scenario *)context)->raft, group, read, index);
}

static void on_unsure(void *context, uint32_t node, uint32_t group)
{
    struct log_scenario *s = context;
    /* one bad sector never takes a name or a vote (R-E1) */
    WORLD_REQUIRE(s->world, s->flips[node - 1] > 1, "node %u group %u is unsure after %u flipped sectors", node, group,
                  s->flips[node - 1]);
    s->unsure[node - 1] = s->nodes[node - 1]->boot;
}

static void on_effect(struct world *world, struct node *node, struct actor *actor, const struct effect *effect,
                      void *context)
{
    (void)world;
    struct log_scenario *s = context;
    twice_effect(&s->twice[node->slot], node, actor, effect);
    if (effect->kind == EFFECT_SEND) {
        metad_check_send(s->raft, s->log, node, actor, effect);
    }
}

static void on_step(struct world *world, struct node *node, struct actor *actor, void *context)
{
    (void)world;
    struct raft_status status;
    if (actor->kind == ACTOR_GROUP && host_status(actor->self, &status)) {
        struct log_scenario *s = context;
        raft_check_status(s->raft, node, actor->index, &status);
        if (status.role == RAFT_LEADER) {
            log_check_commit(s->log, actor->index, &status.config.config, &status.config.config, status.commit);
        }
    }
}

static void rot(struct log_scenario *s, unsigned which)
{
    struct file_ref file;
    uint64_t offset = 0;
    if (disk_rot(s->nodes[which]->disks[0], &file, &offset)) {
        s->flips[which]++;
        s->world->faults++;
        world_note(s->world, "rot: metad:%u file %u offset %llu", which + 1, file.number, (unsigned long long)offset);
    }
}

static void call_start(struct world *world, void *context, uint64_t slot)
{
    struct log_scenario *s = context;
    if (!world->nodes[slot]->up) {
        if (s->rots && !s->calm && slot == s->victim && rng_chance(&world->rng_scenario, 500000)) {
            rot(s, s->victim);
        }
        node_start(world->nodes[slot]);
    }
}

static void on_down(struct world *world, struct node *node, void *context)
{
    world_at(world, world->now_ns + rng_between(&world->rng_scenario, MILLISECOND, 3 * SECOND), call_start, context,
             node->slot);
}

static bool leads(struct node *node, uint32_t group)
{
    struct actor *actor = node_actor(node, ACTOR_GROUP, group);
    struct raft_status status;
    return actor != NULL && host_status(actor->self, &status) && status.role == RAFT_LEADER;
}

static struct slice proposal_make(struct world *world)
{
    struct rng *rng = &world->rng_scenario;
    uint64_t bytes = 16 + rng_below(rng, rng_chance(rng, 30000) ? 200000 : 600);
    struct slice data = slice_alloc(bytes);
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = rng_next(rng);
        memcpy(data.data + i, &word, bytes - i < 8 ? bytes - i : 8);
    }
    return data;
}

static void propose(struct log_scenario *s, struct node *node, uint32_t group)
{
    struct slice data = proposal_make(s->world);
    uint64_t id = raft_check_propose(s->raft, group, data);
    world_post(node, ACTOR_GROUP, group, HOST_PROPOSE, id, (struct slice){0}, data);
}

static void call_propose(struct world *world, void *context, uint64_t argument)
{
    struct log_scenario *s = context;
    struct rng *rng = &world->rng_scenario;
    uint32_t group = (uint32_t)rng_below(rng, GROUPS);
    for (unsigned i = 0; i < METADS; i++) {
        if (!leads(s->nodes[i], group)) {
            continue;
        }
        if (rng_chance(rng, 200000)) {
            world_post(s->nodes[i], ACTOR_GROUP, group, HOST_READ, raft_check_read_asked(s->raft, group),
                       (struct slice){0}, (struct slice){0});
        } else {
            propose(s, s->nodes[i], group);
        }
    }
    if (!s->calm) {
        world_at(world, world->now_ns + rng_below(rng, 2 * s->propose_every_ns), call_propose, s, argument);
    }
}

static enum crash_mode any_mode(struct rng *rng)
{
    return rng_chance(rng, 500000) ? CRASH_POWER : CRASH_KILL;
}

static void call_cut_heal(struct world *world, void *context, uint64_t argument)
{
    (void)context;
    (void)argument;
    world_heal(world);
}

static void late_fault(struct log_scenario *s)
{
    struct rng *rng = &s->world->rng_scenario;
    unsigned leader = (unsigned)rng_below(rng, METADS), count = 0;
    uint32_t group = (uint32_t)rng_below(rng, GROUPS);
    struct node *others[METADS];
    if (rng_chance(rng, 500000)) {
        s->twice[leader] = TWICE_WANTED;
        return;
    }
    for (unsigned i = 0; i < METADS; i++) {
        leader = leads(s->nodes[i], group) ? i : leader;
    }
    for (unsigned i = 0; i < METADS; i++) {
        if (i != leader) {
            others[count++] = s->nodes[i];
        }
    }
    late_begin(&s->late, s->world, s->nodes[leader], others, count, 1500 * MILLISECOND);
}

static void fault(struct log_scenario *s)
{
    struct world *world = s->world;
    struct rng *rng = &world->rng_scenario;
    unsigned kind = (unsigned)rng_below(rng, 10), one = (unsigned)rng_below(rng, METADS);
    if (kind < 5) {
        node_crash_after(s->nodes[one], 1 + rng_below(rng, 60), any_mode(rng));
    } else if (kind < 6) {
        for (unsigned i = 0; i < METADS; i++) {
            node_crash(s->nodes[i], CRASH_POWER);
        }
    } else if (kind < 7) {
        for (unsigned i = 0; i < METADS; i++) {
            node_crash_after(s->nodes[i], 1 + rng_below(rng, 60), CRASH_POWER);
        }
    } else {
        for (unsigned i = 0; i < METADS; i++) {
            if (i != one && (kind < 9 || rng_chance(rng, 500000))) {
                world_cut(world, s->nodes[one], s->nodes[i], true);
            }
        }
        world_at(world, world->now_ns + rng_between(rng, 100 * MILLISECOND, 4 * SECOND), call_cut_heal, s, 0);
    }
}

static void call_fault(struct world *world, void *context, uint64_t argument)
{
    struct log_scenario *s = context;
    if (!s->calm) {
        (s->lates && rng_chance(&world->rng_scenario, 700000) ? late_fault : fault)(s);
        world_at(world, world->now_ns + rng_below(&world->rng_scenario, 2 * s->fault_every_ns), call_fault, s,
                 argument);
    }
}

static void draw_knobs(struct log_scenario *s)
{
    struct world *world = s->world;
    struct rng *rng = &world->rng_scenario;
    s->cache_bytes = rng_chance(rng, 500000) ? 4096 : 1 << 20;
    s->segment_bytes = rng_chance(rng, 500000) ? 256 << 10 : 1 << 20;
    s->propose_every_ns = rng_between(rng, 2, 30) * MILLISECOND;
    s->fault_every_ns = rng_between(rng, 300, 3000) * MILLISECOND;
    world->knobs.net_reset_ppm = (uint32_t)rng_below(rng, 3) * 2000;
    world->knobs.wall_jump_ppm = 1000;
    if (rng_chance(rng, 400000)) {
        world->knobs.net_lose_ppm = 20000;
        world->knobs.net_duplicate_ppm = 20000;
        world->knobs.net_reorder_ppm = 100000;
    }
    for (unsigned i = 0; i < METADS; i++) {
        sim_kv_knobs(s->nodes[i]->kvs[0])->spontaneous = rng_chance(rng, 500000);
    }
}

static void heal(struct log_scenario *s)
{
    struct world *world = s->world;
    s->calm = true;
    memset(s->twice, 0, sizeof s->twice);
    late_end(&s->late);
    world_heal(world);
    world->knobs.net_reset_ppm = world->knobs.net_lose_ppm = world->knobs.net_duplicate_ppm = 0;
    world->knobs.net_reorder_ppm = 0;
    world->crash_at = 0;
    for (unsigned i = 0; i < METADS; i++) {
        s->nodes[i]->crash_countdown = 0;
    }
}

/* Every node is up, each group has one leader, and all have applied the same. */
static bool settled(struct log_scenario *s)
{
    for (uint32_t g = 0; g < GROUPS; g++) {
        unsigned leaders = 0;
        for (unsigned i = 0; i < METADS; i++) {
            leaders += leads(s->nodes[i], g);
            if (s->nodes[i]->up && s->unsure[i] == s->nodes[i]->boot) {
                continue; /* the others must do without it */
            }
            if (!s->nodes[i]->up ||
                raft_check_node_applied(s->raft, s->nodes[i]->id, g) != raft_check_committed(s->raft, g)) {
                return false;
            }
        }
        if (leaders != 1) {
            return false;
        }
    }
    return true;
}

/* How the groups stand, for who reads a finding. */
static void note_standing(struct log_scenario *s)
{
    for (unsigned i = 0; i < METADS; i++) {
        for (uint32_t g = 0; g < GROUPS; g++) {
            struct actor *actor = node_actor(s->nodes[i], ACTOR_GROUP, g);
            struct raft_status status = {0};
            bool runs = actor != NULL && host_status(actor->self, &status);
            world_note(s->world, "metad:%u group %u: %s role %d term %llu last %llu commit %llu hole %llu", i + 1, g,
                       runs ? "runs" : "does not run", (int)status.role, (unsigned long long)status.term,
                       (unsigned long long)status.last, (unsigned long long)status.commit,
                       (unsigned long long)status.hole);
        }
    }
}

/* Runs until `settled`, at most `bound_ns`. */
static bool settle(struct log_scenario *s, uint64_t bound_ns)
{
    uint64_t end = s->world->now_ns + bound_ns;
    while (s->world->now_ns < end) {
        if (!world_run_until(s->world, s->world->now_ns + 100 * MILLISECOND)) {
            return false;
        }
        if (settled(s)) {
            return true;
        }
    }
    note_standing(s);
    return false;
}

/* Everything is on all three disks; the power goes, and one sector flips on two of them. */
static void two_of_three_rot(struct log_scenario *s)
{
    struct world *world = s->world;
    if (!world_run_until(world, world->now_ns + SECOND)) {
        return;
    }
    for (unsigned i = 0; i < METADS; i++) {
        node_crash(s->nodes[i], CRASH_POWER);
    }
    rot(s, s->victim);
    rot(s, (s->victim + 1) % METADS);
    WORLD_REQUIRE(world, settle(s, 60 * SECOND), "no progress: two of three logs have a flipped sector");
}

/* ---- an entry rots on all that have it ---- */

enum { LONE_BYTES = 3000, LONE_BYTE = 0xc5, LONE_FOUND = 400 }; /* all bytes of it are one, so that a sector is found */

#define LONE_NS (5 * SECOND) /* both are up for two of them, and ask each other */

struct lone { /* the entry's place on the disk of a node */
    struct file_ref file;
    uint64_t offset;
};

/* Two of three commit a proposal within a bound. */
static bool lone_propose(struct log_scenario *s, uint32_t group, unsigned third, struct slice data)
{
    struct world *world = s->world;
    uint64_t before = raft_check_acknowledgements(s->raft, group), end = world->now_ns + 20 * SECOND;
    while (!world->failed && world->now_ns < end && raft_check_acknowledgements(s->raft, group) == before) {
        for (unsigned i = 0; i < METADS && data.data != NULL; i++) {
            if (i != third && leads(s->nodes[i], group)) {
                uint64_t id = raft_check_propose(s->raft, group, data);
                world_post(s->nodes[i], ACTOR_GROUP, group, HOST_PROPOSE, id, (struct slice){0}, data);
                data = (struct slice){0};
            }
        }
        if (!world_run_until(world, world->now_ns + 50 * MILLISECOND)) {
            break;
        }
    }
    slice_drop(&data);
    return !world->failed && raft_check_acknowledgements(s->raft, group) > before;
}

/* The entry is committed while the third hears nothing, and then another one: what is written behind it says that it
 * was synced (R-E2). */
static bool lone_commit(struct log_scenario *s, uint32_t group, unsigned third)
{
    for (unsigned i = 0; i < METADS; i++) {
        if (i != third) {
            world_cut(s->world, s->nodes[i], s->nodes[third], true);
        }
    }
    struct slice data = slice_alloc(LONE_BYTES);
    memset(data.data, LONE_BYTE, LONE_BYTES);
    return lone_propose(s, group, third, data) && lone_propose(s, group, third, proposal_make(s->world));
}

/* A sector that nothing else is in: the entry's name stands before it. */
static bool lone_find(struct log_scenario *s, unsigned third, struct lone *ret_lones)
{
    uint8_t data[LONE_FOUND];
    bool found = true;
    memset(data, LONE_BYTE, sizeof data);
    for (unsigned i = 0; i < METADS; i++) {
        found = found && (i == third || disk_find_bytes(s->nodes[i]->disks[0], data, sizeof data, &ret_lones[i].file,
                                                        &ret_lones[i].offset));
    }
    return found;
}

/* The two lose power, and a bit of the entry flips, or flips back, on both. */
static void lone_flip(struct log_scenario *s, unsigned third, const struct lone *lones)
{
    for (unsigned i = 0; i < METADS; i++) {
        if (i != third) {
            node_crash(s->nodes[i], CRASH_POWER);
            disk_flip(s->nodes[i]->disks[0], lones[i].file, lones[i].offset);
            s->flips[i]++;
        }
    }
}

/* An entry that two of three have committed cannot be read on either, and the third lacks it. Nobody may take it for
 * one that was never there: its bytes can be read again later (a bad cable, a controller), and must then be what they
 * were. */
static void lone_entry_rots(struct log_scenario *s)
{
    struct world *world = s->world;
    uint32_t group = (uint32_t)rng_below(&world->rng_scenario, GROUPS);
    unsigned third = (unsigned)rng_below(&world->rng_scenario, METADS);
    struct lone lones[METADS];
    bool rots = lone_commit(s, group, third) && lone_find(s, third, lones);
    if (rots) {
        lone_flip(s, third, lones);
    }
    world_heal(world);
    if (!rots || !world_run_until(world, world->now_ns + LONE_NS)) {
        return;
    }
    lone_flip(s, third, lones);
    WORLD_REQUIRE(world, settle(s, 60 * SECOND), "no progress: an entry that could not be read can be read again");
}

static void finale(struct log_scenario *s)
{
    struct world *world = s->world;
    heal(s);
    WORLD_REQUIRE(world, settle(s, 60 * SECOND), "no progress: the groups have not settled 60 s after the last fault");
    if (s->rots && !world->failed) {
        two_of_three_rot(s);
    }
    if (s->rots && !world->failed && rng_chance(&world->rng_scenario, 300000)) {
        lone_entry_rots(s);
    }
    uint64_t before[GROUPS];
    for (uint32_t g = 0; g < GROUPS && !world->failed; g++) {
        before[g] = raft_check_acknowledgements(s->raft, g);
        for (unsigned i = 0; i < METADS; i++) {
            if (leads(s->nodes[i], g)) {
                propose(s, s->nodes[i], g);
            }
        }
    }
    if (world->failed || !world_run_until(world, world->now_ns + 5 * SECOND)) {
        return;
    }
    for (uint32_t g = 0; g < GROUPS; g++) {
        WORLD_REQUIRE(world, raft_check_acknowledgements(s->raft, g) > before[g],
                      "no progress: group %u does not commit in a healed cluster", g);
    }
    WORLD_REQUIRE(world, settle(s, 20 * SECOND), "the nodes do not apply the same in a healed cluster");
}

static void log_run_with(struct world *world, bool rots, bool lates)
{
    struct log_scenario s = {
        .world = world, .rots = rots, .lates = lates, .raft = raft_check_create(world), .log = log_check_create(world)};
    s.watch = (struct host_watch){&s, on_applied, on_opened, on_unsure, on_acknowledged, on_read};
    for (unsigned i = 0; i < METADS; i++) {
        s.nodes[i] = world_node_add(world, ROLE_METAD, i + 1, 1, metad_boot, &s);
    }
    draw_knobs(&s);
    if (rots) {
        s.victim = (unsigned)rng_below(&world->rng_scenario, METADS);
    }
    world->effect_probe = on_effect;
    world->effect_context = &s;
    world_probe_add(world, on_step, &s);
    world->node_down = on_down;
    world->node_down_context = &s;
    for (unsigned i = 0; i < METADS; i++) {
        node_start(s.nodes[i]);
    }
    world_at(world, world->now_ns, call_propose, &s, 0);
    world_at(world, world->now_ns + 2 * SECOND, call_fault, &s, 0);
    if (world_run_until(world, world->now_ns + 20 * SECOND)) {
        finale(&s);
    }
    raft_check_destroy(s.raft);
    log_check_destroy(s.log);
}

static void log_run(struct world *world)
{
    log_run_with(world, false, false);
}

static void log_rot_run(struct world *world)
{
    log_run_with(world, true, false);
}

static void log_late_run(struct world *world)
{
    log_run_with(world, false, true);
}

const struct scenario scenario_log = {
    .name = "log",
    .about = "3 metads, log and Raft: crashes, power cuts, partitions; then all acknowledged must be there",
    .run = log_run,
};

const struct scenario scenario_log_rot = {
    .name = "log_rot",
    .about = "the same; sectors of one log flip while its node is down, in the end of two of three at once",
    .run = log_rot_run,
};

const struct scenario scenario_log_late = {
    .name = "log_late",
    .about = "the same; leaders hear answers late and are deposed without a word, nodes lose power while they start",
    .run = log_late_run,
};
