/* Directories that go back (stale.h). A look each 100 ms moves the one that is hurt from phase to phase. */
#include "stale.h"

#include <stdio.h>

#include "base/check.h"
#include "cluster.h"

#define LOOK_NS 100000000ull
enum { WELL_LOOKS = 12 }; /* longer than a follower waits that hears nothing */
enum { HEARD_LOOKS = 8 }; /* and so many before its end everybody heard how far each was */
enum { DOWN_LOOKS = 4 };  /* longer than an acknowledgement travels */
#define AHEAD_NS (3 * SECOND)
#define APART_NS (1500 * MILLISECOND) /* longer than it waits for a leader before it speaks to the others */

static bool enabled(const struct cluster *c)
{
    return c->plan->weights[FAULT_STALE_COPY] + c->plan->weights[FAULT_EMPTIED] > 0;
}

static struct node *metad_of(struct cluster *c, uint32_t i)
{
    return c->metads[i];
}

static struct group *group_of(struct cluster *c, uint32_t i, uint32_t g)
{
    struct actor *actor = node_actor(metad_of(c, i), ACTOR_GROUP, g);
    return actor != NULL && group_status(actor->self).term > 0 ? actor->self : NULL;
}

/* A group has one leader for all of those that count: who hears nothing yet, over a connection whose other end does not
 * know that it broke, follows nobody. */
static bool all_follow_one(struct cluster *c, uint32_t g)
{
    uint32_t leader = 0;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        const struct group *group = group_of(c, i, g);
        if (c->stale.phase != STALE_NONE && metad_of(c, i) == c->stale.node) {
            continue;
        }
        struct raft_status status = group != NULL ? group_status(group) : (struct raft_status){0};
        bool settled = status.role == RAFT_FOLLOWER || status.role == RAFT_LEADER;
        uint32_t followed = settled ? status.leader : 0;
        leader = leader == 0 ? followed : leader;
        if (followed == 0 || followed != leader) {
            return false;
        }
    }
    return true;
}

/* The metads but the one that is hurt and down are up, none is about to crash, and all that are up hear each other. */
static bool others_are_well(struct cluster *c)
{
    const struct world *world = c->world;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        const struct node *a = metad_of(c, i);
        if (c->stale.phase == STALE_DOWN && a == c->stale.node) {
            continue;
        }
        if (!a->up || a->crash_countdown > 0 || c->twice[a->slot] != TWICE_NO) {
            return false;
        }
        for (uint32_t j = 0; j < c->plan->metads; j++) {
            const struct node *b = metad_of(c, j);
            if (world->blocked[a->slot][b->slot] || world->lag_ns[a->slot][b->slot] > 0) {
                return false;
            }
        }
    }
    bool well = true;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        well = well && all_follow_one(c, g);
    }
    return well;
}

/* For all the others the node has no vote in the group, by a committed change. */
static bool has_no_vote(struct cluster *c, uint32_t g)
{
    uint32_t id = c->stale.node->id;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        const struct group *group = group_of(c, i, g);
        if (i + 1 == id) {
            continue;
        }
        struct raft_status status = group != NULL ? group_status(group) : (struct raft_status){0};
        bool committed = status.config.index > 0 && status.config.index <= status.commit;
        if (!committed || (raft_config_roles(&status.config.config, id) & (RAFT_VOTER | RAFT_OUTGOING)) != 0) {
            return false;
        }
    }
    return true;
}

/* All know it as a voter that is not stale, and it has what any of them knows to be committed. */
static bool is_whole(struct cluster *c, uint32_t g)
{
    uint32_t id = c->stale.node->id;
    struct group *own = group_of(c, id - 1, g);
    if (own == NULL || group_health(own).lost || group_health(own).hole != 0) {
        return false;
    }
    uint64_t applied = group_status(own).applied;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        const struct group *group = group_of(c, i, g);
        struct raft_status status = group != NULL ? group_status(group) : (struct raft_status){0};
        const struct raft_config *config = &status.config.config;
        if (group == NULL || raft_config_is_joint(config) || raft_config_roles(config, id) != RAFT_VOTER ||
            status.config.index > status.commit || applied < status.commit || group_health(group).stale == id) {
            return false;
        }
    }
    return true;
}

static bool in_all_groups(struct cluster *c, bool (*is)(struct cluster *, uint32_t),
                          bool (* or)(struct cluster *, uint32_t))
{
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        if (!is(c, g) && ! or (c, g)) {
            return false;
        }
    }
    return true;
}

static void end_cut(struct world *world, void *context, uint64_t argument)
{
    (void)context;
    (void)argument;
    world_heal(world);
}

static void cut_for_a_while(struct cluster *c, struct node *a, struct node *b)
{
    world_cut(c->world, a, b, true);
    world_at(c->world, c->world->now_ns + rng_between(&c->world->rng_scenario, APART_NS, 2 * APART_NS), end_cut, c, 0);
}

/* It comes back to one of the others alone, in half of the cases: the two would be a majority. */
static void cut_one_other(struct cluster *c)
{
    struct rng *rng = &c->world->rng_scenario;
    struct node *other = metad_of(c, (uint32_t)rng_below(rng, c->plan->metads));
    if (rng_chance(rng, 500000) || other == c->stale.node) {
        return;
    }
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        if (metad_of(c, i) != other) {
            world_cut(c->world, other, metad_of(c, i), true);
        }
    }
    world_at(c->world, c->world->now_ns + rng_between(rng, SECOND, 4 * SECOND), end_cut, c, 0);
}

/* Who has what the two lack is with neither of them. */
static void cut_the_rest(struct cluster *c)
{
    const struct stale *stale = &c->stale;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        struct node *other = metad_of(c, i);
        if (other != stale->node && other != stale->behind) {
            world_cut(c->world, other, stale->node, true);
            world_cut(c->world, other, stale->behind, true);
        }
    }
    world_at(c->world, c->world->now_ns + rng_between(&c->world->rng_scenario, SECOND, 4 * SECOND), end_cut, c, 0);
}

static void put_back(struct cluster *c)
{
    struct stale *stale = &c->stale;
    struct node *node = stale->node;
    const struct stale_backup none = {0}, *from = stale->emptied ? &none : &stale->backups[node->id - 1];
    disk_copy_put(node->disks[0], from->disk);
    sim_kv_copy_put(node->kvs[0], from->kv);
    log_check_put_back(c->log, node->id, from->log);
    raft_check_forget(c->raft, node->id);
    if (stale->emptied) {
        stale->directories[node->id - 1]++;
        stale->emptied_count++;
        c->boots[node->id - 1].count = 0;
    } else {
        stale->directories[node->id - 1] = from->directory;
        c->boots[node->id - 1] = from->boots;
        stale->put_back++;
    }
    world_note(c->world, "directory of metad:%u is %s", node->id, stale->emptied ? "empty" : "an older copy");
    stale->phase = STALE_BACK;
    stale->well = 0;
    node_start(node);
    if (stale->apart_from != NULL) {
        cut_for_a_while(c, node, stale->apart_from);
    } else if (stale->behind != NULL) {
        cut_the_rest(c);
    } else {
        cut_one_other(c);
    }
}

/* ---- what one of the others does not hear of ---- */

static struct raft_status status_of(struct cluster *c, const struct node *node, uint32_t g)
{
    const struct group *group = group_of(c, node->id - 1, g);
    return group != NULL ? group_status(group) : (struct raft_status){0};
}

static void note_entries(struct cluster *c)
{
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
            c->stale.heard[i][g] = status_of(c, metad_of(c, i), g).last;
        }
    }
}

static bool leads_nothing(struct cluster *c, const struct node *node)
{
    bool none = true;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        none = none && status_of(c, node, g).role == RAFT_FOLLOWER;
    }
    return none;
}

/* One of the others, that leads nothing, hears nothing from now on. */
static bool ahead_begin(struct cluster *c)
{
    struct stale *stale = &c->stale;
    struct rng *rng = &c->world->rng_scenario;
    struct node *behind = metad_of(c, (uint32_t)rng_below(rng, c->plan->metads));
    if (rng_chance(rng, 300000) || behind == stale->node || !leads_nothing(c, behind)) {
        return false;
    }
    stale->behind = behind;
    stale->ahead_until_ns = c->world->now_ns + AHEAD_NS;
    bool kept = true;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        struct raft_status status = status_of(c, behind, g);
        stale->behind_last[g] = status.last;
        kept = kept && status.applied > stale->heard[behind->id - 1][g];
    }
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        if (metad_of(c, i) != behind) {
            world_cut(c->world, behind, metad_of(c, i), true);
        }
    }
    bool crashes = kept && rng_chance(rng, 700000);
    if (crashes) {
        node_crash(behind, rng_chance(rng, 500000) ? CRASH_POWER : CRASH_KILL);
    }
    world_note(c->world, "metad:%u hears nothing%s", behind->id, crashes ? ", and crashed" : "");
    return true;
}

/* What a leader may have counted the node for. */
static void note_counted(struct cluster *c)
{
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
            struct raft_status status = status_of(c, metad_of(c, i), g);
            bool counts = status.role == RAFT_LEADER && metad_of(c, i) != c->stale.node;
            c->stale.counted[i][g] = counts ? status.last : 0;
        }
    }
}

static bool counted_is_durable(struct cluster *c)
{
    bool durable = true;
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
            durable = durable && log_check_holds(c->log, i + 1, g, c->stale.counted[i][g]);
        }
    }
    return durable;
}

static void go_down(struct cluster *c)
{
    c->stale.phase = STALE_DOWN;
    c->stale.down_looks = c->stale.well = 0;
    note_counted(c);
    node_crash(c->stale.node, rng_chance(&c->world->rng_scenario, 500000) ? CRASH_POWER : CRASH_KILL);
}

/* Something is committed that it lacks. */
static bool is_ahead(struct cluster *c)
{
    const struct stale *stale = &c->stale;
    bool ahead = false;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        ahead = ahead || status_of(c, stale->node, g).commit > stale->behind_last[g];
    }
    return ahead && stale->behind->up && stale->node->up;
}

static void ahead_look(struct cluster *c)
{
    struct stale *stale = &c->stale;
    if (is_ahead(c)) {
        stale->ahead_count++;
        go_down(c);
    } else if (c->world->now_ns >= stale->ahead_until_ns) {
        world_heal(c->world);
        stale->phase = STALE_NONE;
    }
}

/* It stays down for a moment: what it acknowledged last is counted. */
static void ahead_down_look(struct cluster *c)
{
    if (++c->stale.down_looks >= DOWN_LOOKS && counted_is_durable(c)) {
        world_heal(c->world);
        put_back(c);
    }
}

/* ---- a process that a leader does not hear ---- */

static void backup_free(struct stale_backup *backup)
{
    disk_copy_free(backup->disk);
    sim_kv_copy_free(backup->kv);
    log_copy_free(backup->log);
    *backup = (struct stale_backup){0};
}

static void backup_take(struct cluster *c, struct node *node)
{
    struct stale_backup *backup = &c->stale.backups[node->id - 1];
    backup_free(backup);
    *backup = (struct stale_backup){.disk = disk_copy_take(node->disks[0]),
                                    .kv = sim_kv_copy_take(node->kvs[0]),
                                    .log = log_check_copy(c->log, node->id),
                                    .directory = c->stale.directories[node->id - 1],
                                    .boots = c->boots[node->id - 1]};
}

static struct node *leader_of(struct cluster *c, uint32_t g, uint64_t *ret_term)
{
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        struct raft_status status = status_of(c, metad_of(c, i), g);
        if (status.role == RAFT_LEADER) {
            *ret_term = status.term;
            return metad_of(c, i);
        }
    }
    return NULL;
}

/* Its directory as it is now is the one that comes back: whoever does not hear of the process that begins here sees
 * nothing missing. */
static void apart_begin(struct cluster *c)
{
    struct stale *stale = &c->stale;
    uint32_t group = (uint32_t)rng_below(&c->world->rng_scenario, CLUSTER_GROUPS);
    backup_take(c, stale->node);
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        stale->apart_leaders[g] = leader_of(c, g, &stale->apart_terms[g]);
    }
    stale->apart_due = false;
    stale->apart_from = stale->apart_leaders[group];
    stale->apart_until_ns = c->world->now_ns + APART_NS;
    stale->phase = STALE_APART;
    if (stale->apart_from != NULL) {
        world_cut(c->world, stale->node, stale->apart_from, true);
        world_note(c->world, "metad:%u does not reach metad:%u", stale->node->id, stale->apart_from->id);
    }
    node_start(stale->node);
}

/* Nobody was elected since: no vote and no acknowledgement of that process made a majority that this leader was not in.
 */
static bool leaders_are_the_same(struct cluster *c)
{
    bool same = true;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        uint64_t term = 0;
        const struct node *leader = leader_of(c, g, &term);
        same = same && leader != NULL && leader == c->stale.apart_leaders[g] && term == c->stale.apart_terms[g];
    }
    return same;
}

/* It keeps the directory that it has. */
static void spare(struct cluster *c)
{
    c->stale.phase = STALE_NONE;
    if (!c->stale.node->up) {
        node_start(c->stale.node);
    }
}

static void apart_look(struct cluster *c)
{
    if (c->world->now_ns < c->stale.apart_until_ns) {
        return;
    }
    world_heal(c->world);
    if (leaders_are_the_same(c)) {
        go_down(c);
    } else {
        spare(c);
    }
}

/* It is down, the others are well, and what it acknowledged is durable with them. */
static void down_over(struct cluster *c)
{
    struct stale *stale = &c->stale;
    if (stale->apart_due) {
        apart_begin(c);
    } else if (stale->apart_from != NULL && !leaders_are_the_same(c)) {
        spare(c);
    } else {
        stale->apart_count += stale->apart_from != NULL;
        put_back(c);
    }
}

static void look(struct cluster *c)
{
    struct stale *stale = &c->stale;
    if (stale->phase == STALE_AHEAD || stale->phase == STALE_APART) {
        (stale->phase == STALE_AHEAD ? ahead_look : apart_look)(c);
        return;
    }
    if (stale->phase == STALE_DOWN && stale->behind != NULL) {
        ahead_down_look(c);
        return;
    }
    stale->well = others_are_well(c) ? stale->well + 1 : 0;
    if (stale->well == HEARD_LOOKS) {
        note_entries(c);
    }
    bool well = stale->well >= WELL_LOOKS;
    if (stale->phase == STALE_DOWN && well && counted_is_durable(c)) {
        down_over(c);
    } else if (stale->phase == STALE_BACK && well && in_all_groups(c, has_no_vote, is_whole)) {
        world_note(c->world, "metad:%u counts in no majority that it must not", stale->node->id);
        stale->phase = STALE_LEARNER;
    } else if (stale->phase == STALE_LEARNER && well && in_all_groups(c, is_whole, is_whole)) {
        world_note(c->world, "metad:%u is whole again", stale->node->id);
        stale->phase = STALE_NONE;
    }
}

static void call_look(struct world *world, void *context, uint64_t argument)
{
    look(context);
    world_at(world, world->now_ns + LOOK_NS, call_look, context, argument);
}

void stale_begin(struct cluster *c)
{
    if (enabled(c)) {
        world_at(c->world, c->world->now_ns + LOOK_NS, call_look, c, 0);
    }
}

void stale_deinit(struct cluster *c)
{
    for (uint32_t i = 0; i < PLAN_METADS; i++) {
        backup_free(&c->stale.backups[i]);
    }
}

bool stale_hurt(struct cluster *c, struct node *metad, bool emptied)
{
    struct stale *stale = &c->stale;
    if (stale->phase != STALE_NONE || stale->well < WELL_LOOKS ||
        (!emptied && stale->backups[metad->id - 1].disk == NULL)) {
        return false;
    }
    stale->node = metad;
    stale->emptied = emptied;
    stale->behind = stale->apart_from = NULL;
    stale->apart_due = false;
    if (ahead_begin(c)) {
        stale->phase = STALE_AHEAD;
        stale->well = 0;
        return true;
    }
    stale->apart_due = !emptied && rng_chance(&c->world->rng_scenario, 400000);
    go_down(c);
    return true;
}

void stale_down(struct cluster *c, struct node *node)
{
    if (!enabled(c) || node->role != ROLE_METAD) {
        return;
    }
    bool hurt = c->stale.phase != STALE_NONE && c->stale.node == node;
    bool none = c->stale.backups[node->id - 1].disk == NULL;
    if (!hurt && (none || rng_chance(&c->world->rng_scenario, 400000))) {
        backup_take(c, node);
    }
}

bool stale_holds(const struct cluster *c, const struct node *node)
{
    return c->stale.phase == STALE_DOWN && c->stale.node == node;
}

bool stale_shelters(const struct cluster *c)
{
    enum stale_phase phase = c->stale.phase;
    return phase == STALE_AHEAD || phase == STALE_DOWN || phase == STALE_APART || phase == STALE_BACK;
}

void stale_heal(struct cluster *c)
{
    if (c->stale.phase == STALE_AHEAD) {
        c->stale.phase = STALE_NONE;
    } else if (c->stale.phase == STALE_DOWN || c->stale.phase == STALE_APART) {
        spare(c);
    }
}

void stale_note(struct cluster *c)
{
    for (uint32_t i = 0; i < c->plan->metads; i++) {
        for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
            const struct group *group = group_of(c, i, g);
            struct raft_status status = group != NULL ? group_status(group) : (struct raft_status){0};
            struct group_health health = group != NULL ? group_health(group) : (struct group_health){0};
            char roles[160] = ""; /* with what the leader knows that each has */
            for (uint32_t m = 0, at = 0; m < status.config.config.count && at < sizeof roles; m++) {
                const struct raft_member *member = &status.config.config.members[m];
                at += (uint32_t)snprintf(roles + at, sizeof roles - at, " %u:%x@%llu", member->node, member->roles,
                                         (unsigned long long)status.match[m]);
            }
            world_note(c->world,
                       "metad:%u group %u: role %d term %llu last %llu commit %llu applied %llu stale %u told %d lost "
                       "%d hole %llu members at %llu:%s",
                       i + 1, g, (int)status.role, (unsigned long long)status.term, (unsigned long long)status.last,
                       (unsigned long long)status.commit, (unsigned long long)status.applied, health.stale,
                       health.told_stale, health.lost, (unsigned long long)health.hole,
                       (unsigned long long)status.config.index, roles);
        }
    }
}

bool stale_is_over(struct cluster *c)
{
    return c->stale.phase == STALE_NONE;
}
