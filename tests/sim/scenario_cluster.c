/* A scenario of a cluster (plan.h): it is built and serves, is hurt while clients work, heals; then each operation must
 * end, every name is read and every folder listed, the feed followed to its end, the replicas of each group must hold
 * the same bytes, and after a last power cut of all everything is read again. Meanwhile: check_raft.h, check_log.h,
 * model.h; at the end the checkers of tests/check judge the history. */
#include <stdlib.h>

#include "base/check.h"
#include "cluster.h"
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

static bool replicas_level(struct cluster *c)
{
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        uint64_t applied = 0;
        for (unsigned i = 0; i < c->plan->metads; i++) {
            struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, g);
            struct raft_status status = actor != NULL ? group_status(actor->self) : (struct raft_status){0};
            applied = i == 0 ? status.applied : applied;
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

/* The pair behind `last` (empty: the first) under a prefix; the key without it. False behind the last. */
static bool pair_next(struct kv_view *kv, const uint8_t prefix[8], struct slice last, struct slice *ret_key,
                      struct slice *ret_value)
{
    uint8_t from[8 + KV_KEY_BYTES];
    struct slice key = {0};
    memcpy(from, prefix, 8);
    if (last.bytes > 0) {
        memcpy(from + 8, last.data, last.bytes);
    }
    enum err err = kv_next(kv, from, 8 + last.bytes, true, &key, ret_value);
    bool found = err == ERR_OK && key.bytes > 8 && memcmp(key.data, prefix, 8) == 0;
    *ret_key = found ? slice_copy(key.data + 8, key.bytes - 8) : (struct slice){0};
    slice_drop(&key);
    return found;
}

/* The replicas of a group hold the same pairs: apply is deterministic, and a snapshot holds everything. */
static void compare_group(struct cluster *c, unsigned other, uint32_t group)
{
    struct kv_view *a = sim_kv_view(c->metads[0]->kvs[0]), *b = sim_kv_view(c->metads[other]->kvs[0]);
    uint8_t prefix_a[8], prefix_b[8];
    group_prefix(a, group, prefix_a);
    group_prefix(b, group, prefix_b);
    struct slice key = {0};
    for (bool more = true; more && !c->world->failed;) {
        struct slice key_a = {0}, key_b = {0}, value_a = {0}, value_b = {0};
        more = pair_next(a, prefix_a, key, &key_a, &value_a);
        bool more_b = pair_next(b, prefix_b, key, &key_b, &value_b);
        bool same = more == more_b && (!more || (slice_equal(key_a, key_b) && slice_equal(value_a, value_b)));
        WORLD_REQUIRE(c->world, same, "metads 1 and %u have applied the same in group %u and differ at key %.*s...",
                      other + 1, group, key_a.bytes > 1 ? 1 : 0, key_a.bytes > 1 ? (const char *)key_a.data : "");
        slice_drop(&key);
        key = key_a;
        slice_drop(&key_b);
        slice_drop(&value_a);
        slice_drop(&value_b);
    }
    slice_drop(&key);
}

static void compare_replicas(struct cluster *c)
{
    for (unsigned i = 1; i < c->plan->metads; i++) {
        for (uint32_t group = 0; group < CLUSTER_GROUPS; group++) {
            compare_group(c, i, group);
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
    unsigned servers = c->plan->metads + c->plan->blockds;
    world->node_down = NULL;
    for (unsigned i = 0; i < servers && !world->failed; i++) {
        node_crash(world->nodes[i], CRASH_POWER);
    }
    for (unsigned i = 0; i < servers && !world->failed; i++) {
        node_start(world->nodes[i]);
    }
}

static void finale(struct cluster *c)
{
    struct world *world = c->world;
    world_note(world, "the end of faults and operations");
    faults_heal(c);
    workload_stop(c->workload);
    if (!world_run_until(world, world->now_ns + c->plan->restart_max_ns)) {
        return;
    }
    bool idle = run_until(c, all_idle, 300 * SECOND);
    WORLD_REQUIRE(world, idle, "an operation has not ended 300 s after the last fault");
    verify(c, "after the last fault");
    bool level = !world->failed && run_until(c, replicas_level, 60 * SECOND);
    WORLD_REQUIRE(world, level, "the replicas do not apply the same in a healed cluster");
    if (!world->failed) {
        compare_replicas(c);
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
    world_note(world, "%lu operations, %lu acknowledged, %lu read, %lu refused, %lu unknown",
               (unsigned long)counts.begun, (unsigned long)counts.acknowledged, (unsigned long)counts.reads,
               (unsigned long)counts.refused, (unsigned long)counts.unknown);
    world_end(world);
    cluster_deinit(&c);
}
