/* The operator (members.h): a table of steps, one request to the cluster each.
 *
 *   REST    nothing is under way
 *   MAP     MAP_GET, as the command does when it starts: whom to ask
 *   NAME    adding only: ADMIN_NODE, joining
 *   CHECK   removing only: ADMIN_MEMBERS to each group, whether it would refuse
 *   GROUPS  ADMIN_MEMBERS to each group until it is done
 *   STATE   ADMIN_NODE, in use or gone; then REST
 *
 * The command may be killed anywhere; run again it begins with MAP. */
#include "members.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "client/client.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { TIMER_NEXT = 1 };
enum { LEAST_VOTERS = 3, MOST_VOTERS = 5 };
enum { STATE_JOINING = 1, STATE_GONE = 2 }; /* MapNode.state; 0: in use */
#define LEADER_CUT_PPM 40000
#define STEP_BUDGET_NS (5 * SECOND)
#define AGAIN_NS       (100 * MILLISECOND)

enum step { STEP_REST, STEP_MAP, STEP_NAME, STEP_CHECK, STEP_GROUPS, STEP_STATE };

struct members {
    struct cluster *c;
    enum step step;
    bool adds;
    uint32_t target; /* index into c->metads */
    uint32_t group;
    bool begun;          /* a group may have been changed */
    uint64_t ids, asked; /* id of the request under way; 0: none */
    uint64_t keys;
    uint32_t changes;
    bool stopped;
};

struct members *members_create(struct cluster *cluster)
{
    struct members *members = mem_alloc(sizeof *members);
    members->c = cluster;
    members->keys = 1 + (WORKLOAD_CLIENTS + 1) * 20000ull; /* of the device, behind those of the workload */
    return members;
}

void members_destroy(struct members *members)
{
    free(members);
}

static struct rng *rng_of_operator(const struct members *members)
{
    return &members->c->world->rng_scenario;
}

/* ---- what is changed ---- */

/* A metad by what it is; one that fits of several, or PLAN_METADS. */
static uint32_t draw_metad(struct members *members, enum metad_state state)
{
    struct cluster *c = members->c;
    uint32_t fits[PLAN_METADS], count = 0;
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metad_states[i] == state) {
            fits[count++] = i;
        }
    }
    return count > 0 ? fits[rng_below(rng_of_operator(members), count)] : PLAN_METADS;
}

static bool change_draw(struct members *members)
{
    uint32_t voters = cluster_metads_in_use(members->c);
    uint32_t spare = draw_metad(members, METAD_SPARE), used = draw_metad(members, METAD_IN_USE);
    bool may_add = spare < PLAN_METADS && voters < MOST_VOTERS;
    bool may_remove = voters > LEAST_VOTERS;
    if (!may_add && !may_remove) {
        return false;
    }
    members->adds = may_add && (!may_remove || rng_chance(rng_of_operator(members), 500000));
    members->target = members->adds ? spare : used;
    members->step = STEP_MAP;
    members->begun = false;
    world_note(members->c->world, "operator: %s metad %u", members->adds ? "adds" : "removes",
               members->c->metads[members->target]->id);
    return true;
}

static void change_over(struct members *members)
{
    struct cluster *c = members->c;
    members->step = STEP_REST;
    members->changes++;
    c->metad_states[members->target] = members->adds ? METAD_IN_USE : METAD_GONE;
    world_note(c->world, "operator: metad %u is %s", c->metads[members->target]->id, members->adds ? "in use" : "gone");
    if (!members->adds && rng_chance(rng_of_operator(members), 500000)) { /* some stay, and must disturb nobody */
        c->metad_states[members->target] = METAD_OFF;
        node_crash(c->metads[members->target], CRASH_KILL);
    }
}

/* The configuration it starts with names those that are in use now. */
static void spare_start(struct members *members)
{
    struct cluster *c = members->c;
    struct node *node = c->metads[members->target];
    uint32_t count = 0;
    if (c->metad_states[members->target] != METAD_SPARE) {
        return;
    }
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metad_states[i] == METAD_IN_USE || i == members->target) {
            c->peers[members->target][count++] = c->metads[i]->id;
        }
    }
    c->metad_states[members->target] = METAD_JOINING;
    node_start(node);
}

/* ---- asking ---- */

static void ask(struct members *members, uint16_t type, enum client_route route, bool mutation, const void *request,
                struct effects *fx)
{
    struct client_op *op = client_op_create(CLIENT_CALL, ++members->ids, "main");
    op->budget_ns = STEP_BUDGET_NS;
    op->call.type = type;
    op->call.route = route;
    op->call.group = members->group;
    op->call.mutation = mutation;
    op->call.request = proto_pack(request);
    members->asked = op->id;
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_OP, op->id, client_op_encode(op), (struct slice){0});
}

static void ask_node(struct members *members, uint32_t state, struct effects *fx)
{
    Cairn__AdminNodeRequest request = CAIRN__ADMIN_NODE_REQUEST__INIT;
    request.node = members->c->metads[members->target]->id;
    request.state = state;
    request.address = state == STATE_JOINING ? members->c->addresses[members->target] : (char *)(uintptr_t) "";
    ask(members, MESSAGE_ADMIN_NODE, CLIENT_ROUTE_ROOT, true, &request, fx);
}

static void ask_members(struct members *members, struct effects *fx)
{
    Cairn__AdminMembersRequest request = CAIRN__ADMIN_MEMBERS_REQUEST__INIT;
    *(members->adds ? &request.add : &request.remove) = members->c->metads[members->target]->id;
    request.check = members->step == STEP_CHECK;
    ask(members, MESSAGE_ADMIN_MEMBERS, CLIENT_ROUTE_GROUP, false, &request, fx);
}

static void rest(struct members *members, uint64_t now_ns, struct effects *fx)
{
    uint64_t pause_ns =
        members->step == STEP_REST ? rng_between(rng_of_operator(members), 200, 2500) * MILLISECOND : AGAIN_NS;
    fx_timer(fx, TIMER_NEXT, now_ns + pause_ns);
}

static void end_cut(struct world *world, void *context, uint64_t argument)
{
    (void)context;
    (void)argument;
    world_heal(world);
}

/* Who leads the group hears no other metad any more, just when it is asked: what it appends for the operator is cut
 * again, and the next leader is asked while its term is young. */
static void leader_cut(struct members *members)
{
    struct cluster *c = members->c;
    for (uint32_t i = 0; i < c->metad_count; i++) {
        struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, members->group);
        if (actor == NULL || group_status(actor->self).role != RAFT_LEADER) {
            continue;
        }
        for (uint32_t j = 0; j < c->metad_count; j++) {
            world_cut(c->world, c->metads[i], c->metads[j], i != j);
        }
        world_note(c->world, "operator: metad %u, which it asks, is cut off", c->metads[i]->id);
        world_at(c->world, c->world->now_ns + rng_between(rng_of_operator(members), 1, 3) * SECOND, end_cut, c, 0);
        return;
    }
}

static void go_on(struct members *members, uint64_t now_ns, struct effects *fx)
{
    if (members->step == STEP_REST && (members->stopped || !change_draw(members))) {
        rest(members, now_ns, fx);
        return;
    }
    if (rng_chance(rng_of_operator(members), 20000)) { /* the command is killed; another one goes on */
        node_crash_after(members->c->operator, 1 + rng_below(rng_of_operator(members), 6), CRASH_KILL);
    }
    if (members->step == STEP_MAP) {
        Cairn__MapGetRequest request = CAIRN__MAP_GET_REQUEST__INIT;
        ask(members, MESSAGE_MAP_GET, CLIENT_ROUTE_ROOT, false, &request, fx);
    } else if (members->step == STEP_NAME) {
        ask_node(members, STATE_JOINING, fx);
    } else if (members->step == STEP_GROUPS || members->step == STEP_CHECK) {
        bool asks = members->step == STEP_GROUPS && !members->stopped && !members->c->calm;
        if (asks && rng_chance(rng_of_operator(members), LEADER_CUT_PPM)) {
            leader_cut(members);
        }
        ask_members(members, fx);
    } else {
        ask_node(members, members->adds ? 0 : STATE_GONE, fx);
    }
}

/* ---- answers ---- */

/* Try again: no leader, no quorum, another change, a majority that must come back first. */
static bool is_for_later(enum err err)
{
    enum err_class class = err_class(err);
    return class == ERR_CLASS_RETRY || class == ERR_CLASS_REDIRECT || err == ERR_LAST_QUORUM;
}

/* Group 0 comes first and goes last. */
static void groups_begin(struct members *members)
{
    members->step = STEP_GROUPS;
    members->begun = true;
    members->group = members->adds ? 0 : CLUSTER_GROUPS - 1;
}

static void members_checked(struct members *members)
{
    if (++members->group == CLUSTER_GROUPS) {
        groups_begin(members);
    }
}

static void members_heard(struct members *members, struct slice reply)
{
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err = proto_unpack(&cairn__admin_members_reply__descriptor, reply, &arena, &message);
    CHECK(err == ERR_OK);
    const Cairn__AdminMembersReply *answer = message;
    bool last = members->group == (members->adds ? CLUSTER_GROUPS - 1 : 0);
    if (answer->done && last) {
        members->step = STEP_STATE;
    } else if (answer->done) {
        members->group += members->adds ? 1 : UINT32_MAX;
    }
    proto_arena_deinit(&arena);
}

static void answered(struct members *members, const struct client_op *op)
{
    members->asked = 0;
    WORLD_REQUIRE(members->c->world, op->err == ERR_OK || is_for_later(op->err), "the operator is refused: %s: %s",
                  err_name(op->err), op->text);
    if (op->err != ERR_OK) {
        bool gives_up = members->step == STEP_CHECK && !members->begun && rng_chance(rng_of_operator(members), 250000);
        members->step = gives_up ? STEP_REST : members->step;
        return;
    }
    if (members->step == STEP_GROUPS) {
        members_heard(members, op->call.reply);
    } else if (members->step == STEP_CHECK) {
        members_checked(members);
    } else if (members->step == STEP_MAP) {
        members->step = members->adds ? STEP_NAME : STEP_CHECK;
        members->group = 0;
    } else if (members->step == STEP_NAME) {
        spare_start(members);
        groups_begin(members);
    } else {
        change_over(members);
    }
}

static void give_keys(struct members *members, uint32_t count, struct effects *fx)
{
    uint8_t header[16];
    put_u64(header, members->keys);
    members->keys += count;
    put_u64(header + 8, members->keys);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_KEYS, 0, slice_copy(header, sizeof header),
            (struct slice){0});
}

void members_step(void *self, const struct event *event, struct effects *fx)
{
    struct members *members = self;
    if (event->kind == EVENT_TIMER && event->timer.id == RUNTIME_TIMER_BOOT) {
        members->asked = 0; /* what was under way may have happened or not */
        members->step = members->step == STEP_REST ? STEP_REST : STEP_MAP;
        rest(members, event->now_ns, fx);
    } else if (event->kind == EVENT_TIMER && members->asked == 0) {
        go_on(members, event->now_ns, fx);
    } else if (event->kind == EVENT_MESSAGE && event->message.type == MESSAGE_CLIENT_KEYS_WANTED) {
        give_keys(members, get_u32(event->message.header.data), fx);
    } else if (event->kind == EVENT_MESSAGE && event->message.type == MESSAGE_CLIENT_DONE) {
        struct client_op *op = client_op_decode(event->message.header);
        if (op->id == members->asked) {
            answered(members, op);
            rest(members, event->now_ns, fx);
        }
        client_op_destroy(op);
    }
}

/* ---- the end ---- */

void members_stop(struct members *members)
{
    members->stopped = true;
}

bool members_idle(const struct members *members)
{
    return members->stopped && members->step == STEP_REST;
}

uint32_t members_changes(const struct members *members)
{
    return members->changes;
}

static bool group_agrees(const struct cluster *c, uint32_t group)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        struct actor *actor = node_actor(c->metads[i], ACTOR_GROUP, group);
        struct raft_status status = actor != NULL ? group_status(actor->self) : (struct raft_status){0};
        if (status.role != RAFT_LEADER || status.config.index > status.commit) {
            continue;
        }
        const struct raft_config *config = &status.config.config;
        uint32_t voters = 0;
        for (uint32_t j = 0; j < c->metad_count; j++) {
            bool used = c->metad_states[j] == METAD_IN_USE;
            uint8_t roles = raft_config_roles(config, c->metads[j]->id);
            voters += used && roles == RAFT_VOTER;
        }
        return voters == config->count && voters == cluster_metads_in_use(c);
    }
    return false;
}

bool members_agree(const struct members *members)
{
    bool agree = true;
    for (uint32_t g = 0; g < CLUSTER_GROUPS; g++) {
        agree = agree && group_agrees(members->c, g);
    }
    return agree;
}
