/* A scenario of a cluster (plan.h): it is built and serves, is hurt while clients work, heals; then each operation must
 * end, every name is read and every folder listed, the feed followed to its end, the replicas of each group must hold
 * the same bytes, and after a last power cut of all everything is read again. Meanwhile: check_raft.h, check_log.h,
 * model.h; at the end the checkers of tests/check judge the history. */
#include <stdlib.h>

#include "base/check.h"
#include "check/replicas.h"
#include "check_state.h"
#include "cluster.h"
#include "members.h"
#include "scenario.h"

/* Runs until `done`, at most `bound_ns`. */
static bool run_until(struct cluster *c, bool (*done)(struct cluster *), uint64_t bound_ns)
{
    uint64_t end = c->world->now_ns + bound_ns;
    while (!done(c) && c->world->now_ns < end) {
        if (!world_run_until(c->world, c->world->now_ns + 20 * MILLISECOND)) {
            return false;
        }
    }
    return done(c);
}

static bool script_over(struct cluster *c)
{
    return workload_over(c->workload) && c->faults == c->plan->fault_count;
}

static bool all_idle(struct cluster *c)
{
    return workload_idle(c->workload);
}

static bool all_verified(struct cluster *c)
{
    return workload_verified(c->workload);
}

static bool members_settled(struct cluster *c)
{
    return c->members == NULL || (members_idle(c->members) && members_agree(c->members));
}

static bool replicas_level(struct cluster *c)
{
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        uint64_t applied = 0;
        for (unsigned i = 0; i < c->metad_count; i++) {
            if (c->metad_states[i] != METAD_IN_USE) {
                continue;
            }
            struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, g);
            struct raft_status status = actor != NULL ? group_status(actor->self) : (struct raft_status){0};
            applied = applied == 0 ? status.applied : applied;
            if (status.applied == 0 || status.applied != status.last || status.applied != applied) {
                return false;
            }
        }
    }
    return true;
}

/* Where the state of a group lies: 8 bytes of (group, view), the view being another after a snapshot. */
static void group_prefix(struct kv_view *kv, uint32_t group, uint8_t ret_prefix[8])
{
    uint8_t key[9] = {0};
    struct slice value = {0};
    put_be32(key, group);
    key[8] = 'v';
    uint32_t view = kv_get(kv, key, sizeof key, &value) == ERR_OK ? get_u32(value.data) : 1;
    put_be32(ret_prefix, group);
    put_be32(ret_prefix + 4, view);
    slice_drop(&value);
}

/* Apply is deterministic, and a snapshot holds everything: the replicas hold the same pairs; and these fit each other.
 */
static void check_replicas(struct cluster *c)
{
    struct world *world = c->world;
    struct sha256 digest;
    for (uint32_t g = 0; g < CLUSTER_GROUPS && !world->failed; g++) {
        struct replica replicas[PLAN_METADS];
        struct report report = {0};
        unsigned count = 0;
        for (unsigned i = 0; i < c->metad_count; i++) {
            if (c->metad_states[i] == METAD_IN_USE) {
                replicas[count].view = sim_kv_view(c->metads[i]->kvs[0]);
                group_prefix(replicas[count].view, g, replicas[count].prefix);
                count++;
            }
        }
        replicas_check(replicas, count, &report, &digest);
        WORLD_REQUIRE(world, report.findings == 0, "%s", report.text);
        if (g == 1 && !world->failed) {
            state_check(world, replicas[0].view, replicas[0].prefix);
        }
    }
}

static void verify(struct cluster *c, const char *when)
{
    if (c->world->failed) {
        return;
    }
    world_note(c->world, "%s: all is read", when);
    workload_verify(c->workload);
    bool done = run_until(c, all_verified, 300 * SECOND);
    WORLD_REQUIRE(c->world, done, "%s: not all could be read within 300 s", when);
}

static void last_power_cut(struct cluster *c)
{
    struct world *world = c->world;
    world->node_down = NULL;
    for (unsigned i = 0; i < world->node_count && !world->failed; i++) {
        if (world->nodes[i]->role != ROLE_DEVICE) {
            node_crash(world->nodes[i], CRASH_POWER);
        }
    }
    for (unsigned i = 0; i < c->plan->metads && c->log_rotted && !world->failed; i++) {
        if (c->metads[i] != faults_log_victim(c)) {
            faults_log_rot(c, c->metads[i]); /* all three hold all: one flipped sector on two of them stops nobody */
        }
    }
    for (unsigned i = 0; i < world->node_count && !world->failed; i++) {
        struct node *node = world->nodes[i];
        if (node->role == ROLE_BLOCKD || (node->role == ROLE_METAD && cluster_metad_lives(c, node->id - 1))) {
            node_start(node);
        }
    }
}

/* All metads that had their directory put back have their vote again. */
static void check_stale(struct cluster *c)
{
    if (c->plan->weights[FAULT_STALE_COPY] + c->plan->weights[FAULT_EMPTIED] == 0 || c->world->failed) {
        return;
    }
    bool over = run_until(c, stale_is_over, 60 * SECOND);
    if (!over) {
        stale_note(c);
    }
    WORLD_REQUIRE(c->world, over, "a metad whose directory was put back is no voter with all entries within 60 s");
    world_note(c->world,
               "%u directories put back, %u emptied, %u of them met who lacks what they lack, %u had a process that a "
               "leader did not hear",
               c->stale.put_back, c->stale.emptied_count, c->stale.ahead_count, c->stale.apart_count);
}

static void finale(struct cluster *c)
{
    struct world *world = c->world;
    world_note(world, "the end of faults and operations");
    faults_heal(c);
    workload_stop(c->workload);
    if (c->members != NULL) {
        members_stop(c->members);
    }
    if (!world_run_until(world, world->now_ns + c->plan->restart_max_ns)) {
        return;
    }
    bool idle = run_until(c, all_idle, 300 * SECOND);
    WORLD_REQUIRE(world, idle, "an operation has not ended 300 s after the last fault");
    if (c->members != NULL && !world->failed) {
        bool settled = run_until(c, members_settled, 300 * SECOND);
        WORLD_REQUIRE(world, settled, "a change of members has not ended 300 s after the last fault");
        WORLD_REQUIRE(world, members_changes(c->members) > 0, "no member was changed: the scenario tests nothing");
        world_note(world, "%u changes of members", members_changes(c->members));
    }
    verify(c, "after the last fault");
    check_stale(c);
    bool level = !world->failed && run_until(c, replicas_level, 60 * SECOND);
    WORLD_REQUIRE(world, level, "the replicas do not apply the same in a healed cluster");
    if (!world->failed) {
        check_replicas(c);
    }
    last_power_cut(c);
    verify(c, "after the last power cut");
    if (!world->failed) {
        workload_judge(c->workload);
    }
}

void scenario_run_plan(struct world *world, const struct plan *plan)
{
    struct cluster c;
    cluster_init(&c, world, plan);
    if (world_run_until(world, world->now_ns + 2 * SECOND)) {
        faults_begin(&c);
        run_until(&c, script_over, plan->most_ns);
        if (!world->failed) {
            finale(&c);
        }
    }
    struct workload_counts counts = workload_counts(c.workload);
    world->operations = counts.begun;
    WORLD_REQUIRE(world, counts.acknowledged > 0 && counts.reads > 0,
                  "nothing was acknowledged or read: the scenario tests nothing");
    WORLD_REQUIRE(world, safe_check_acknowledgements(c.safe) > 0,
                  "no version with chunks was acknowledged: the scenario tests nothing");
    world_note(world, "%lu operations, %lu acknowledged, %lu read, %lu refused, %lu unknown",
               (unsigned long)counts.begun, (unsigned long)counts.acknowledged, (unsigned long)counts.reads,
               (unsigned long)counts.refused, (unsigned long)counts.unknown);
    world_end(world);
    cluster_deinit(&c);
}
