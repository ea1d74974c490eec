/* The simulated network. A connection is made by the first SEND from one node to another and carries requests one way
 * and their answers back, in order. It breaks when either end goes, when the network between them is cut, or by chance;
 * what is under way is lost from some point on in each direction, and each end learns of it in its own time. A request
 * is admitted by message_admit before an actor sees it, as the runtime does.
 *
 * Bodies and headers are copied at the send: the other side gets buffers of its own, aligned as the runtime's are. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "inside.h"
#include "proto/message.h"

static struct conn *conn_find(struct world *world, uint64_t id)
{
    for (unsigned long i = 0; i < world->conn_count; i++) {
        if (world->conns[i]->id == id) {
            return world->conns[i];
        }
    }
    return NULL;
}

static bool side_is(const struct conn_side *side, const struct node *node)
{
    return side->open && side->node == node && side->boot == node->boot && node->up;
}

static void conn_forget_closed(struct world *world)
{
    unsigned long kept = 0;
    for (unsigned long i = 0; i < world->conn_count; i++) {
        if (world->conns[i]->side[0].open || world->conns[i]->side[1].open) {
            world->conns[kept++] = world->conns[i];
        } else {
            free(world->conns[i]);
        }
    }
    world->conn_count = kept;
}

void net_deinit(struct world *world)
{
    for (unsigned long i = 0; i < world->conn_count; i++) {
        free(world->conns[i]);
    }
    free(world->conns);
}

/* The end of the connection reaches side `side` at a time after all that still arrives there. */
static void conn_tell(struct world *world, struct conn *conn, unsigned side, uint64_t at_ns)
{
    struct conn_side *own = &conn->side[side];
    if (!own->open || !own->node->up || own->boot != own->node->boot) {
        own->open = false;
        return;
    }
    struct item *item = world_item(world, at_ns, ITEM_CLOSED, own->node);
    const struct node *peer = conn->side[1 - side].node;
    item->closed.conn = conn->id;
    item->closed.side = side;
    item->closed.err = ERR_CLOSED;
    item->closed.peer = (struct address){.role = (uint8_t)peer->role, .node = peer->id, .conn = conn->id};
}

/* quick: both ends hear soon, as after a reset; else each after up to some seconds, as by time-out. */
static void conn_break(struct world *world, struct conn *conn, bool quick)
{
    if (conn->broken) {
        return;
    }
    conn->broken = true;
    for (unsigned side = 0; side < 2; side++) {
        conn->side[side].cut_ns = world->now_ns + rng_below(&world->rng_net, 2 * MILLISECOND);
        uint64_t after = quick ? rng_below(&world->rng_net, 20 * MILLISECOND)
                               : rng_between(&world->rng_net, 100 * MILLISECOND, 5 * SECOND);
        conn_tell(world, conn, side, conn->side[side].cut_ns + after);
    }
}

void net_node_down(struct node *node, enum crash_mode mode)
{
    struct world *world = node->world;
    for (unsigned long i = 0; i < world->conn_count; i++) {
        struct conn *conn = world->conns[i];
        for (unsigned side = 0; side < 2; side++) {
            if (side_is(&conn->side[side], node)) {
                conn->side[side].open = false;
                conn_break(world, conn, mode == CRASH_KILL || rng_chance(&world->rng_net, 500000));
            }
        }
    }
    conn_forget_closed(world);
}

static struct conn *conn_make(struct node *from, struct node *to)
{
    struct world *world = from->world;
    struct conn *conn = mem_alloc(sizeof *conn);
    conn->id = ++world->conn_sequence;
    conn->side[0] = (struct conn_side){.node = from, .boot = from->boot, .open = true};
    conn->side[1] = (struct conn_side){.node = to, .boot = to->boot, .open = to->up};
    world->conns = mem_grow(world->conns, &world->conn_capacity, world->conn_count + 1, sizeof(struct conn *));
    world->conns[world->conn_count++] = conn;
    if (!to->up) { /* refused, or no answer at all */
        conn_break(world, conn, rng_chance(&world->rng_net, 700000));
    }
    return conn;
}

/* The connection and the sender's side for an address; NULL: the answer has nowhere to go. */
static struct conn *conn_for(struct node *from, const struct address *to, unsigned *ret_side)
{
    struct world *world = from->world;
    if (to->conn != 0) {
        struct conn *conn = conn_find(world, to->conn);
        for (unsigned side = 0; conn != NULL && side < 2; side++) {
            if (side_is(&conn->side[side], from)) {
                *ret_side = side;
                return conn;
            }
        }
        return NULL;
    }
    struct node *target = world_node_find(world, to->role, to->node);
    if (target == NULL || target == from) {
        return NULL;
    }
    *ret_side = 0;
    for (unsigned long i = 0; i < world->conn_count; i++) {
        struct conn *conn = world->conns[i];
        if (side_is(&conn->side[0], from) && conn->side[1].node == target) {
            return conn;
        }
    }
    return conn_make(from, target);
}

static uint64_t net_delay(struct world *world)
{
    const struct world_knobs *knobs = &world->knobs;
    uint64_t after = rng_between(&world->rng_net, knobs->net_min_ns, knobs->net_max_ns);
    if (rng_chance(&world->rng_net, knobs->net_slow_ppm)) {
        after += rng_below(&world->rng_net, knobs->net_slow_max_ns + 1);
    }
    return after;
}

static struct slice copy_of(struct slice slice)
{
    return slice_copy(slice.data, slice.bytes);
}

/* Puts one copy of the message under way to the other side. */
static void net_carry(struct world *world, struct conn *conn, unsigned side, const struct message *message,
                      const struct address *to, bool in_order)
{
    const struct node *near = conn->side[side].node;
    struct conn_side *far = &conn->side[1 - side];
    uint64_t at = world->now_ns + net_delay(world) + world->lag_ns[near->slot][far->node->slot];
    if (in_order) {
        at = at > far->arrived_ns ? at : far->arrived_ns + 1;
        far->arrived_ns = at;
    }
    struct item *item = world_item(world, at, ITEM_MESSAGE, far->node);
    item->boot = far->boot;
    item->net.conn = conn->id;
    item->net.side = 1 - side;
    item->net.message = *message;
    item->net.message.header = copy_of(message->header);
    item->net.message.body = copy_of(message->body);
    item->net.to = *to;
    if (world->tamper != NULL) {
        world->tamper(world->tamper_context, near, &item->net.message);
    }
}

static void net_send_remote(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct world *world = node->world;
    const struct world_knobs *knobs = &world->knobs;
    unsigned side = 0;
    struct conn *conn = conn_for(node, &effect->send.to, &side);
    if (conn == NULL) {
        return;
    }
    conn->side[side].actors |= 1ull << (actor - node->actors);
    struct node *far = conn->side[1 - side].node;
    if (!conn->broken && world->blocked[node->slot][far->slot]) {
        conn_break(world, conn, false);
    }
    if (rng_chance(&world->rng_net, knobs->net_reset_ppm)) {
        conn_break(world, conn, true);
    }
    bool lost = rng_chance(&world->rng_net, knobs->net_lose_ppm);
    bool twice = rng_chance(&world->rng_net, knobs->net_duplicate_ppm);
    bool in_order = !rng_chance(&world->rng_net, knobs->net_reorder_ppm);
    if (conn->broken || lost) {
        return;
    }
    struct message message = {
        .from = {.role = (uint8_t)node->role,
                 .actor = (uint8_t)actor->kind,
                 .node = node->principal,
                 .index = actor->index,
                 .sender = (uint32_t)(actor - node->actors),
                 .conn = conn->id},
        .peer = {.role = (uint8_t)node->role, .id = node->principal, .key = node->key},
        .type = effect->send.type,
        .flags = effect->send.flags,
        .target = effect->send.target,
        .stream = effect->send.stream,
        .header = effect->send.header,
        .body = effect->send.body,
    };
    net_carry(world, conn, side, &message, &effect->send.to, in_order);
    if (twice) {
        net_carry(world, conn, side, &message, &effect->send.to, false);
    }
}

static void net_send_local(struct node *node, struct actor *actor, struct effect *effect)
{
    struct actor *target = node_actor(node, effect->send.to.actor, effect->send.to.index);
    if (target == NULL) {
        effect_drop(effect);
        return;
    }
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){
        .from = address_local(actor->kind, actor->index),
        .peer = {.role = ROLE_LOCAL, .id = node->id},
        .type = effect->send.type,
        .flags = effect->send.flags,
        .target = effect->send.target,
        .stream = effect->send.stream,
        .header = effect->send.header,
        .body = effect->send.body,
    };
    actor_push(node, target, &event);
}

void net_send(struct node *node, struct actor *actor, struct effect *effect)
{
    if (effect->send.to.conn == 0 && effect->send.to.role == ROLE_LOCAL) {
        net_send_local(node, actor, effect);
        return;
    }
    net_send_remote(node, actor, effect);
    effect_drop(effect);
}

/* The interpreter's own answer to a request no actor may see. */
static void net_refuse(struct world *world, struct conn *conn, unsigned side, const struct message *request,
                       enum err err)
{
    struct node *node = conn->side[side].node;
    struct message message = {
        .from = {.role = (uint8_t)node->role, .node = node->id, .conn = conn->id},
        .peer = {.role = (uint8_t)node->role, .id = node->id},
        .type = request->type,
        .flags = MESSAGE_REPLY | MESSAGE_ERROR,
        .stream = request->stream,
        .header = error_reply_encode(err, err_text(err), 0),
    };
    struct address to = request->from;
    net_carry(world, conn, side, &message, &to, true);
    slice_drop(&message.header);
}

/* The actor a message is for; NULL and the reason. */
static struct actor *net_target(struct node *node, const struct message *message, const struct address *to,
                                enum err *ret_err)
{
    *ret_err = ERR_OK;
    if (message->flags & MESSAGE_REPLY) {
        return to->sender < node->actor_count ? &node->actors[to->sender] : NULL;
    }
    *ret_err = message_admit(message->type, message->peer.role);
    if (*ret_err != ERR_OK) {
        return NULL;
    }
    const struct message_row *row = message_row_find(message->type);
    struct actor *target = node_actor(node, row->actor, message->target);
    *ret_err = target == NULL ? ERR_WRONG_GROUP : ERR_OK;
    return target;
}

void net_deliver(struct world *world, struct item *item)
{
    struct conn *conn = conn_find(world, item->net.conn);
    struct node *node = item->node;
    if (conn == NULL || !side_is(&conn->side[item->net.side], node)) {
        return;
    }
    struct conn_side *side = &conn->side[item->net.side];
    if (conn->broken && item->at_ns > side->cut_ns) {
        return;
    }
    if (!conn->broken && world->blocked[conn->side[1 - item->net.side].node->slot][node->slot]) {
        conn_break(world, conn, false);
        return;
    }
    enum err err = ERR_OK;
    struct actor *target = net_target(node, &item->net.message, &item->net.to, &err);
    if (target == NULL) {
        if (err != ERR_OK && !conn->broken) {
            net_refuse(world, conn, item->net.side, &item->net.message, err);
        }
        return;
    }
    side->actors |= 1ull << (target - node->actors);
    struct event event = {.kind = EVENT_MESSAGE, .message = item->net.message};
    item->net.message.header = item->net.message.body = (struct slice){0};
    actor_push(node, target, &event);
}

void net_closed(struct world *world, struct item *item)
{
    struct conn *conn = conn_find(world, item->closed.conn);
    if (conn == NULL || !side_is(&conn->side[item->closed.side], item->node)) {
        return;
    }
    struct conn_side *side = &conn->side[item->closed.side];
    struct node *node = item->node;
    side->open = false;
    for (unsigned i = 0; i < node->actor_count; i++) {
        if (side->actors >> i & 1) {
            struct event event = {.kind = EVENT_CLOSED};
            event.peer.peer = item->closed.peer;
            event.peer.err = item->closed.err;
            actor_push(node, &node->actors[i], &event);
        }
    }
    conn_forget_closed(world);
}

void world_cut(struct world *world, struct node *a, struct node *b, bool cut)
{
    world->blocked[a->slot][b->slot] = world->blocked[b->slot][a->slot] = cut;
}

void world_block(struct world *world, const struct node *from, const struct node *to)
{
    world->blocked[from->slot][to->slot] = true;
}

void world_lag(struct world *world, const struct node *from, const struct node *to, uint64_t lag_ns)
{
    world->lag_ns[from->slot][to->slot] = lag_ns;
}

void world_heal(struct world *world)
{
    memset(world->lag_ns, 0, sizeof world->lag_ns);
    memset(world->blocked, 0, sizeof world->blocked);
}

void world_post(struct node *node, enum actor_kind kind, uint32_t index, uint16_t type, uint64_t stream,
                struct slice header, struct slice body)
{
    struct actor *target = node_actor(node, kind, index);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){
        .from = address_local(ACTOR_API, 0),
        .peer = {.role = ROLE_LOCAL, .id = node->id},
        .type = type,
        .target = index,
        .stream = stream,
        .header = header,
        .body = body,
    };
    if (target == NULL) {
        event_drop(&event);
        return;
    }
    actor_push(node, target, &event);
}
