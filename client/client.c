/* The client's core, its root: takes operations from the shell, sends each event to the file that owns the noun, and
 * gives finished operations back. It stands first and last in the way of a byte: a file enters as CLIENT_OP and the
 * acknowledgement leaves as CLIENT_DONE. An operation waits here until the map and its workspace are known; whatever
 * fails ends in client_op_finish with one code and one text. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct client_op *client_op_create(enum client_op_kind kind, uint64_t id, const char *workspace)
{
    CHECK(id < 1ull << 48);
    struct client_op *op = mem_alloc(sizeof *op);
    op->kind = kind;
    op->id = id;
    if (workspace != NULL) {
        strncpy(op->workspace, workspace, sizeof op->workspace - 1);
    }
    return op;
}

void client_op_destroy(struct client_op *op)
{
    slice_drop(&op->call.request);
    slice_drop(&op->call.reply);
    slice_drop(&op->call.reply_body);
    slice_drop(&op->get.manifest);
    free(op);
}

struct slice client_op_encode(struct client_op *op)
{
    return slice_copy(&op, sizeof op);
}

struct client_op *client_op_decode(struct slice header)
{
    struct client_op *op;
    CHECK(header.bytes == sizeof op);
    memcpy(&op, header.data, sizeof op);
    return op;
}

struct client *client_create(const struct client_params *params)
{
    CHECK(params->metad_count > 0 && params->metad_count <= CLIENT_METADS);
    struct client *c = mem_alloc(sizeof *c);
    c->params = *params;
    c->params.budget_ns = params->budget_ns == 0 ? BUDGET_NS : params->budget_ns;
    c->params.window_bytes = params->window_bytes == 0 ? WINDOW_BYTES : params->window_bytes;
    c->params.store_idle_ns = params->store_idle_ns == 0 ? STORE_IDLE_NS : params->store_idle_ns;
    c->stream_next = 1;
    route_set_metads(c, NULL);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        c->request_free[i] = REQUESTS - 1 - i;
    }
    c->request_free_count = REQUESTS;
    return c;
}

void client_destroy(struct client *c)
{
    for (uint32_t i = 0; i < CLIENT_OPS; i++) {
        struct op_slot *slot = &c->slots[i];
        put_destroy(c, slot);
        get_destroy(c, slot);
        if (slot->op != NULL) {
            client_op_destroy(slot->op);
        }
    }
    call_deinit(c);
    route_deinit(c);
    free(c);
}

uint64_t client_random(struct client *c)
{
    c->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    uint64_t z = c->random;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

void client_post(struct effects *fx, uint16_t type, uint64_t id, const void *header, size_t header_bytes,
                 struct slice body)
{
    fx_send(fx, address_local(ACTOR_API, 0), type, id, slice_copy(header, header_bytes), body);
}

bool window_take(struct client *c, uint64_t bytes, bool pressed)
{
    uint64_t room = c->params.window_bytes;
    if (pressed) {
        room = (room > WINDOW_RESERVE_BYTES ? room : WINDOW_RESERVE_BYTES) + WINDOW_RESERVE_BYTES;
    }
    if (c->window_used > 0 && c->window_used + bytes > room) {
        return false;
    }
    c->window_used += bytes;
    return true;
}

void window_give(struct client *c, uint64_t bytes)
{
    CHECK(c->window_used >= bytes);
    c->window_used -= bytes;
    c->wake = true;
}

/* slot 10 bits << 53 | generation 21 bits << 32 | entry 32 bits; bit 63 is left to OP_TIMER. */
uint64_t token_of(const struct client *c, const struct op_slot *slot, uint64_t entry)
{
    CHECK(entry <= UINT32_MAX);
    return (uint64_t)(slot - c->slots) << 53 | (uint64_t)(slot->gen & 0x1fffff) << 32 | entry;
}

struct op_slot *token_slot(struct client *c, uint64_t token, uint64_t *ret_entry)
{
    token &= ~OP_TIMER;
    struct op_slot *slot = &c->slots[token >> 53];
    *ret_entry = token & UINT32_MAX;
    bool live = slot->state == SLOT_RUNNING && (slot->gen & 0x1fffff) == (token >> 32 & 0x1fffff);
    return live ? slot : NULL;
}

struct op_slot *client_slot_of(struct client *c, const struct owner *owner)
{
    CHECK(owner->op < CLIENT_OPS);
    struct op_slot *slot = &c->slots[owner->op];
    return slot->state == SLOT_RUNNING && slot->gen == owner->gen ? slot : NULL;
}

void client_op_finish(struct client *c, struct op_slot *slot, enum err err, const char *text, struct effects *fx)
{
    CHECK(slot->state != SLOT_FREE && slot->op != NULL);
    struct client_op *op = slot->op;
    call_cancel_op(c, (uint32_t)(slot - c->slots), fx);
    fx_timer(fx, OP_TIMER | token_of(c, slot, 0), 0);
    put_destroy(c, slot);
    get_destroy(c, slot);
    slot->op = NULL;
    slot->state = SLOT_FREE;
    slot->gen++;
    op->err = err;
    op->text[0] = '\0';
    if (err != ERR_OK && text != NULL) {
        strncpy(op->text, text, sizeof op->text - 1);
    }
    fx_send(fx, address_local(ACTOR_API, 0), MESSAGE_CLIENT_DONE, op->id, client_op_encode(op), (struct slice){0});
}

/* Starts an operation once what it needs is known. */
static void op_try(struct client *c, struct op_slot *slot, struct effects *fx)
{
    CHECK(slot->state == SLOT_WAITING);
    struct client_op *op = slot->op;
    bool map = op->kind == CLIENT_CALL && op->call.route == CLIENT_ROUTE_STORE; /* comes with the workspace */
    if (op->kind != CLIENT_CALL || op->call.route == CLIENT_ROUTE_NAMESPACE || map) {
        enum err err = ERR_OK;
        if (!route_workspace(c, op->workspace, &slot->workspace, &err, fx)) {
            if (err != ERR_OK) {
                client_op_finish(c, slot, err, "too many workspaces in one process", fx);
            }
            return;
        }
    }
    slot->state = SLOT_RUNNING;
    switch (op->kind) {
    case CLIENT_CALL:
        tree_start(c, slot, fx);
        break;
    case CLIENT_PUT:
        put_start(c, slot, fx);
        break;
    case CLIENT_GET:
        get_start(c, slot, fx);
        break;
    }
}

/* Goes on with every operation: after the map, a workspace, or room in the window. */
static void client_wake(struct client *c, struct effects *fx)
{
    uint32_t high = c->slots_high;
    for (uint32_t i = 0; i < high; i++) {
        struct op_slot *slot = &c->slots[(c->pump_next + i) % high];
        if (slot->state == SLOT_WAITING) {
            op_try(c, slot, fx);
        } else if (slot->state == SLOT_RUNNING && slot->put != NULL) {
            put_pump(c, slot, fx);
        } else if (slot->state == SLOT_RUNNING && slot->get != NULL) {
            get_pump(c, slot, fx);
        }
    }
    c->pump_next = high == 0 ? 0 : (c->pump_next + 1) % high;
}

static void on_op(struct client *c, const struct message *message, struct effects *fx)
{
    struct client_op *op = client_op_decode(message->header);
    for (uint32_t i = 0; i < CLIENT_OPS; i++) {
        struct op_slot *slot = &c->slots[i];
        if (slot->state == SLOT_FREE) {
            slot->state = SLOT_WAITING;
            slot->op = op;
            op->counts = (struct client_counts){0};
            c->slots_high = i >= c->slots_high ? i + 1 : c->slots_high;
            op_try(c, slot, fx);
            return;
        }
    }
    op->err = ERR_BUSY;
    fx_send(fx, address_local(ACTOR_API, 0), MESSAGE_CLIENT_DONE, op->id, client_op_encode(op), (struct slice){0});
}

static struct op_slot *slot_by_id(struct client *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->slots_high; i++) {
        if (c->slots[i].state != SLOT_FREE && c->slots[i].op->id == id) {
            return &c->slots[i];
        }
    }
    return NULL;
}

/* Messages of the shell about an operation; one that has ended meanwhile is past caring. */
static void on_shell(struct client *c, const struct message *message, struct effects *fx)
{
    struct op_slot *slot = slot_by_id(c, message->stream);
    struct reader r = reader_of(message->header.data, message->header.bytes);
    if (slot == NULL) {
        return;
    }
    if (message->type == MESSAGE_CLIENT_CANCEL) {
        client_op_finish(c, slot, ERR_CANCELLED, NULL, fx);
    } else if (message->type == MESSAGE_CLIENT_FEED && slot->put != NULL) {
        uint64_t index = reader_u64(&r) / c->workspaces[slot->workspace].cut.max_bytes;
        put_on_read(c, slot, index, (enum err)reader_u32(&r), message->body, fx);
    } else if (message->type == MESSAGE_CLIENT_CONFIRMED && slot->put != NULL) {
        put_on_confirmed(c, slot, (enum err)reader_u32(&r), fx);
    } else if (message->type == MESSAGE_CLIENT_ACK && slot->get != NULL) {
        get_on_ack(c, slot, reader_u64(&r), fx);
    }
}

static void on_local(struct client *c, const struct message *message, struct effects *fx)
{
    struct reader r = reader_of(message->header.data, message->header.bytes);
    switch (message->type) {
    case MESSAGE_CLIENT_OP:
        on_op(c, message, fx);
        break;
    case MESSAGE_CLIENT_MAP_READY:
        c->map_ready = true;
        c->wake = true;
        break;
    case MESSAGE_CLIENT_KEYS:
        CHECK(r.left == 16);
        uint64_t first = reader_u64(&r);
        keys_hear(c, first, reader_u64(&r));
        call_on_keys(c, fx);
        break;
    default:
        on_shell(c, message, fx);
        break;
    }
}

void client_request_done(struct client *c, const struct owner *owner, const struct outcome *outcome, struct effects *fx)
{
    if (owner->kind == OWNER_MAP) {
        route_on_map(c, outcome, fx);
        return;
    }
    if (owner->kind == OWNER_RESOLVE) {
        route_on_resolve(c, owner->index, outcome, fx);
        return;
    }
    struct op_slot *slot = client_slot_of(c, owner);
    if (slot == NULL) {
        return;
    }
    switch (owner->kind) {
    case OWNER_CALL:
        tree_on_done(c, slot, outcome, fx);
        break;
    case OWNER_PUT:
        put_on_reply(c, slot, outcome, fx);
        break;
    case OWNER_PUT_SHARD:
        put_on_shard(c, slot, owner, outcome, fx);
        break;
    case OWNER_GET:
        get_on_manifest(c, slot, outcome, fx);
        break;
    case OWNER_GET_SHARD:
        get_on_shard(c, slot, owner, outcome, fx);
        break;
    case OWNER_GET_INVENTORY:
        get_on_inventory(c, slot, owner, outcome, fx);
        break;
    case OWNER_MAP:
    case OWNER_RESOLVE:
        break;
    }
}

static void on_timer(struct client *c, uint64_t id, struct effects *fx)
{
    if (id == MAP_TIMER) {
        route_on_timer(c, fx);
        return;
    }
    if ((id & OP_TIMER) == 0) {
        call_on_timer(c, id, fx);
        return;
    }
    uint64_t entry;
    struct op_slot *slot = token_slot(c, id, &entry);
    if (slot != NULL && slot->put != NULL) {
        put_on_timer(c, slot, fx);
    } else if (slot != NULL && slot->get != NULL) {
        get_on_timer(c, slot, fx);
    }
}

static void on_completion(struct client *c, const struct event *event, struct effects *fx)
{
    uint64_t entry;
    uint64_t token = event->kind == EVENT_DISK_DONE ? event->disk.token : event->compute.token;
    struct op_slot *slot = token_slot(c, token, &entry);
    if (slot == NULL) {
        return; /* of an operation that has ended or begun anew: the interpreter drops its slices */
    }
    if (event->kind == EVENT_DISK_DONE) {
        CHECK(slot->put != NULL);
        put_on_read(c, slot, entry, event->disk.err, event->disk.data, fx);
    } else if (slot->put != NULL) {
        put_on_compute(c, slot, entry, event->compute.job, fx);
    } else {
        CHECK(slot->get != NULL);
        get_on_compute(c, slot, entry, event->compute.job, fx);
    }
}

void client_step(void *actor, const struct event *event, struct effects *fx)
{
    struct client *c = actor;
    c->now_ns = event->now_ns;
    c->random = event->random;
    switch (event->kind) {
    case EVENT_MESSAGE:
        if (event->message.flags & MESSAGE_REPLY) {
            call_on_reply(c, &event->message, fx);
        } else if (event->message.peer.role == ROLE_LOCAL) {
            on_local(c, &event->message, fx);
        }
        break;
    case EVENT_CLOSED:
        call_on_closed(c, event->peer.peer, event->peer.err, fx);
        break;
    case EVENT_TIMER:
        on_timer(c, event->timer.id, fx);
        break;
    case EVENT_DISK_DONE:
    case EVENT_COMPUTE_DONE:
        on_completion(c, event, fx);
        break;
    case EVENT_ROOM:
    case EVENT_KV_DONE:
        break;
    }
    while (c->wake) {
        c->wake = false;
        client_wake(c, fx);
    }
}
