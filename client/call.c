/* Requests and their retries. A request to a group goes to the node that was last seen leading; NOT_LEADER redirects
 * it, silence and broken connections send it round the others, overload waits: full jitter between nothing and 100 ms *
 * 2^attempt, at most 30 s, until the budget of time is spent; then the reason told is what a leader answered last, and
 * "no leader" only where nobody named one. Each attempt carries the same bytes and so the same
 * idempotency number (R-D6): a mutation whose answer was lost is answered again, never done twice. A request to a store
 * is tried once (its owner knows a better place than the same store), but for BUSY.
 *
 * The stream number finds the request, the certificate behind the connection must be that of the node asked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "proto/frame.h"

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool call_room(const struct client *c, uint32_t requests)
{
    return c->request_free_count >= requests + 64;
}

static uint32_t request_slot(const struct client *c, const struct request *r)
{
    return (uint32_t)(r - c->requests);
}

static void request_free(struct client *c, struct request *r)
{
    CHECK(r->state != REQUEST_FREE);
    if (r->store != 0 && r->store < c->store_rows_count) {
        c->health[r->store].probing = false;
    }
    slice_drop(&r->rest);
    slice_drop(&r->header);
    slice_drop(&r->body);
    r->state = REQUEST_FREE;
    r->stream = 0;
    c->request_free[c->request_free_count++] = request_slot(c, r);
}

static struct client_counts *request_counts(struct client *c, const struct request *r)
{
    if (r->owner.kind == OWNER_MAP || r->owner.kind == OWNER_RESOLVE) {
        return NULL;
    }
    struct op_slot *slot = client_slot_of(c, &r->owner);
    return slot == NULL ? NULL : &slot->op->counts;
}

static void request_finish(struct client *c, struct request *r, enum err err, const struct message *reply,
                           struct effects *fx)
{
    if (r->state != REQUEST_KEY) {
        fx_timer(fx, r->stream, 0);
    }
    struct owner owner = r->owner;
    char text[CLIENT_TEXT_BYTES];
    memcpy(text, r->text, sizeof text);
    struct outcome outcome = {.err = err, .text = text, .store = r->store};
    if (reply != NULL && err == ERR_OK) {
        outcome.header = reply->header;
        outcome.body = reply->body;
    }
    request_free(c, r);
    client_request_done(c, &owner, &outcome, fx);
}

/* ---- sending ---- */

static uint32_t metad_after(const struct client *c, uint32_t node)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metads[i] == node) {
            return c->metads[(i + 1) % c->metad_count];
        }
    }
    return c->metads[0];
}

static bool metad_known(const struct client *c, uint32_t node)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metads[i] == node) {
            return true;
        }
    }
    return false;
}

static bool metad_heard(const struct client *c, uint32_t node)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metads[i] == node) {
            return (c->heard >> i & 1) != 0;
        }
    }
    return false;
}

static void metad_note(struct client *c, uint32_t node)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        c->heard |= c->metads[i] == node ? 1ull << i : 0;
    }
}

static void request_send(struct client *c, struct request *r, struct effects *fx)
{
    CHECK(r->header.bytes > 0 || r->store == 0);
    r->stream = c->stream_next++ << REQUEST_BITS | request_slot(c, r);
    CHECK(r->stream < 1ull << 48);
    r->state = REQUEST_SENT;
    r->sent_ns = c->now_ns;
    uint64_t patience = c->params.store_idle_ns;
    if (r->store == 0) {
        uint64_t first_ns = r->attempts == 0 && !metad_heard(c, r->to.node) ? ATTEMPT_UNHEARD_NS : ATTEMPT_FIRST_NS;
        patience = min_u64(first_ns << (r->attempts > 4 ? 4 : r->attempts), ATTEMPT_LAST_NS);
    }
    uint64_t left = r->deadline_ns > c->now_ns ? r->deadline_ns - c->now_ns : 1;
    struct client_counts *counts = request_counts(c, r);
    if (counts != NULL) {
        counts->wire_bytes += FRAME_FIXED_BYTES + r->header.bytes + r->body.bytes;
        counts->retries += r->attempts > 0;
        if (r->type == MESSAGE_SHARD_PUT) {
            counts->shards_sent++;
            counts->bytes_sent += r->body.bytes;
        }
    }
    fx_send(fx, r->to, r->type, r->stream, slice_ref(r->header), slice_ref(r->body));
    fx_timer(fx, r->stream, c->now_ns + min_u64(patience, left));
}

/* Builds the header, head first: protobuf lets the parts of a message be joined end to end. */
static void request_build(struct client *c, struct request *r, uint64_t key)
{
    Cairn__RequestHead head = CAIRN__REQUEST_HEAD__INIT;
    head.key = key;
    head.trace = c->stream_next;
    head.user = c->params.user;
    head.ns = r->ns;
    struct slice packed = proto_pack(&head);
    CHECK(packed.bytes < 128);
    struct writer w = {0};
    writer_u8(&w, 1 << 3 | 2); /* field 1, length-delimited */
    writer_u8(&w, (uint8_t)packed.bytes);
    writer_put(&w, packed.data, packed.bytes);
    writer_put(&w, r->rest.data, r->rest.bytes);
    r->header = writer_take(&w);
    writer_deinit(&w);
    slice_drop(&packed);
    slice_drop(&r->rest);
}

/* Gives a mutation its number and sends it, or leaves it until there are numbers. */
static void request_begin(struct client *c, struct request *r, struct effects *fx)
{
    uint64_t key = 0;
    if (r->mutation && !keys_take(c, &key, fx)) {
        r->state = REQUEST_KEY;
        return;
    }
    request_build(c, r, key);
    request_send(c, r, fx);
}

static struct request *request_create(struct client *c, struct owner owner, uint16_t type, struct slice body)
{
    CHECK(c->request_free_count > 0);
    struct request *r = &c->requests[c->request_free[--c->request_free_count]];
    CHECK(r->state == REQUEST_FREE);
    c->requests_high = request_slot(c, r) >= c->requests_high ? request_slot(c, r) + 1 : c->requests_high;
    uint64_t budget = c->params.budget_ns;
    if (owner.kind != OWNER_MAP && owner.kind != OWNER_RESOLVE && c->slots[owner.op].op->budget_ns > 0) {
        budget = c->slots[owner.op].op->budget_ns;
    }
    *r = (struct request){.state = REQUEST_KEY, .owner = owner, .type = type, .body = body};
    r->started_ns = c->now_ns;
    r->deadline_ns = c->now_ns + budget;
    return r;
}

void call_group(struct client *c, struct owner owner, uint16_t type, uint32_t group, uint64_t ns, bool mutation,
                struct slice rest, struct slice body, struct effects *fx)
{
    CHECK(group < LIMIT_GROUPS);
    struct request *r = request_create(c, owner, type, body);
    if (c->leaders[group] == 0) {
        c->leaders[group] = c->metads[client_random(c) % c->metad_count]; /* not all clients the same one */
    }
    r->to = address_node(ROLE_METAD, c->leaders[group], ACTOR_GROUP, group);
    r->group = group;
    r->ns = ns;
    r->mutation = mutation;
    r->rest = rest;
    request_begin(c, r, fx);
}

void call_node(struct client *c, struct owner owner, uint16_t type, uint32_t group, uint32_t node, struct slice rest,
               struct effects *fx)
{
    struct request *r = request_create(c, owner, type, (struct slice){0});
    r->to = address_node(ROLE_METAD, node, ACTOR_GROUP, group);
    r->group = group;
    r->fixed = true;
    r->rest = rest;
    request_begin(c, r, fx);
}

bool call_store(struct client *c, struct owner owner, uint16_t type, uint32_t store, struct slice header,
                struct slice body, struct effects *fx)
{
    const Cairn__MapStore *row = route_store(c, store);
    if (row == NULL) {
        slice_drop(&header);
        slice_drop(&body);
        return false;
    }
    struct request *r = request_create(c, owner, type, body);
    r->to = address_node(ROLE_BLOCKD, row->node, ACTOR_STORE, row->position);
    r->store = store;
    r->header = header;
    r->deadline_ns = c->now_ns + STORE_LONGEST_NS;
    place_try(c, store);
    request_send(c, r, fx);
    return true;
}

/* ---- endings and retries ---- */

static void request_backoff(struct client *c, struct request *r, uint64_t first_ns, struct effects *fx)
{
    uint64_t most = min_u64(first_ns << (r->attempts > 12 ? 12 : r->attempts), BACKOFF_LAST_NS);
    r->attempts++;
    r->state = REQUEST_BACKOFF;
    uint64_t wake = c->now_ns + 1 + client_random(c) % most;
    fx_timer(fx, r->stream, min_u64(wake, r->deadline_ns));
}

static bool request_spent(const struct client *c, const struct request *r)
{
    return c->now_ns >= r->deadline_ns;
}

/* A leader is not where it was, or does not answer: the members may be others. */
static void members_in_doubt(struct client *c, const struct request *r, struct effects *fx)
{
    if (c->map != NULL && !r->fixed && r->owner.kind != OWNER_MAP) {
        route_want_map(c, true, fx);
    }
}

/* No answer from this node: the next one, at once until each was asked, then after a pause. */
static void group_unanswered(struct client *c, struct request *r, enum err err, struct effects *fx)
{
    members_in_doubt(c, r, fx);
    r->last = err;
    bool refused = err_class(err) == ERR_CLASS_CALLER || err_class(err) == ERR_CLASS_FATAL;
    r->refusals = refused ? r->refusals + 1 : 0;
    bool hopeless = r->refusals >= c->metad_count;
    if (r->text[0] == '\0' || refused) {
        snprintf(r->text, sizeof r->text, "metad:%u: %s", (unsigned)r->to.node, err_text(err));
    }
    if (r->fixed || hopeless || request_spent(c, r)) {
        request_finish(c, r, err, NULL, fx);
        return;
    }
    fx_timer(fx, r->stream, 0);
    if (c->leaders[r->group] == r->to.node) {
        c->leaders[r->group] = metad_after(c, r->to.node);
    }
    r->to.node = c->leaders[r->group];
    if (r->attempts + 1 < c->metad_count) {
        r->attempts++;
        request_send(c, r, fx);
    } else {
        request_backoff(c, r, BACKOFF_FIRST_NS, fx);
    }
}

static void group_redirected(struct client *c, struct request *r, uint32_t leader, struct effects *fx)
{
    bool useful = leader != 0 && leader != r->to.node;
    members_in_doubt(c, r, fx);
    if (!useful || r->last == ERR_OK) { /* who names a leader does not gainsay what that one answered */
        r->last = ERR_NO_QUORUM;
        snprintf(r->text, sizeof r->text, "group %u has no leader", (unsigned)r->group);
    }
    fx_timer(fx, r->stream, 0);
    if (request_spent(c, r)) {
        request_finish(c, r, ERR_NO_QUORUM, NULL, fx);
        return;
    }
    if (leader != 0 && !metad_known(c, leader) && c->metad_count < LIMIT_METADS_KNOWN) {
        c->metads[c->metad_count++] = leader; /* newer than the map; the shell has taken its address */
    }
    useful = useful && metad_known(c, leader);
    c->leaders[r->group] = useful ? leader : metad_after(c, r->to.node);
    r->to.node = c->leaders[r->group];
    if (useful && r->redirects < REDIRECTS) {
        r->redirects++;
        request_send(c, r, fx);
    } else {
        r->redirects = 0;
        request_backoff(c, r, BACKOFF_FIRST_NS, fx);
    }
}

/* An error reply of a metadata node. */
static void group_refused(struct client *c, struct request *r, enum err err, uint32_t leader, struct effects *fx)
{
    if (err == ERR_NOT_LEADER && !r->fixed) {
        group_redirected(c, r, leader, fx);
        return;
    }
    bool again = err_class(err) == ERR_CLASS_RETRY || err == ERR_STALE_MAP || err == ERR_WRONG_GROUP;
    if (err == ERR_STALE_MAP || err == ERR_WRONG_GROUP) {
        route_want_map(c, true, fx);
    }
    if (r->owner.kind == OWNER_RESOLVE && err == ERR_WRONG_GROUP) {
        again = false; /* route.c asks the next group */
    }
    r->last = err;
    if (!again || err == ERR_FILE_CHANGED || r->fixed || request_spent(c, r)) {
        request_finish(c, r, err, NULL, fx);
        return;
    }
    if (err == ERR_NO_QUORUM || err == ERR_NOT_READY) {
        c->leaders[r->group] = metad_after(c, r->to.node);
        r->to.node = c->leaders[r->group];
    }
    request_backoff(c, r, BACKOFF_FIRST_NS, fx);
}

static void store_unanswered(struct client *c, struct request *r, enum err err, struct effects *fx)
{
    place_failed(c, r->store);
    snprintf(r->text, sizeof r->text, "blockd:%u: %s", (unsigned)r->to.node, err_text(err));
    request_finish(c, r, err, NULL, fx);
}

#define MAP_SPREAD_NS (2500ull * 1000000)

static void store_refused(struct client *c, struct request *r, enum err err, struct effects *fx)
{
    if (err == ERR_NOT_OWNER || err == ERR_STALE_MAP) {
        route_want_map(c, true, fx);
    }
    /* A store hears of a new map with its next heartbeat: one that is not seated yet will be in a moment. */
    bool behind = err == ERR_NOT_OWNER && c->now_ns < r->started_ns + MAP_SPREAD_NS;
    bool again = behind || err == ERR_BUSY || err == ERR_NOT_READY;
    if (again && c->now_ns < r->started_ns + c->params.store_idle_ns) {
        request_backoff(c, r, BACKOFF_FIRST_NS / 2, fx);
        return;
    }
    request_finish(c, r, err, NULL, fx);
}

/* Reads code, leader and text of an ErrorReply; a malformed one is BAD_PROTO. */
static enum err error_read(struct request *r, struct slice header, uint32_t *ret_leader)
{
    struct proto_arena arena = {0};
    Cairn__ErrorReply *reply = NULL;
    enum err err = proto_unpack(&cairn__error_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        err = reply->code == ERR_OK ? ERR_BAD_PROTO : (enum err)reply->code;
        *ret_leader = reply->leader;
        if (err != ERR_NOT_LEADER || r->fixed) { /* else group_redirected knows what is worth telling */
            snprintf(r->text, sizeof r->text, "%s:%u: %s", r->store == 0 ? "metad" : "blockd", (unsigned)r->to.node,
                     reply->text != NULL && reply->text[0] != '\0' ? reply->text : err_text(err));
        }
    }
    proto_arena_deinit(&arena);
    return err;
}

void call_on_reply(struct client *c, const struct message *message, struct effects *fx)
{
    struct request *r = &c->requests[message->stream & (REQUESTS - 1)];
    if (r->state != REQUEST_SENT || r->stream != message->stream || r->type != message->type) {
        return; /* of an attempt that was given up */
    }
    if (message->peer.role != r->to.role || message->peer.id != r->to.node) {
        return; /* an answer from one who was not asked */
    }
    struct client_counts *counts = request_counts(c, r);
    if (counts != NULL) {
        counts->wire_bytes += FRAME_FIXED_BYTES + message->header.bytes + message->body.bytes;
    }
    if (r->store != 0) {
        place_heard(c, r->store);
    } else {
        metad_note(c, r->to.node);
    }
    if ((message->flags & MESSAGE_ERROR) == 0) {
        request_finish(c, r, ERR_OK, message, fx);
        return;
    }
    uint32_t leader = 0;
    enum err err = error_read(r, message->header, &leader);
    if (r->store != 0) {
        store_refused(c, r, err, fx);
    } else {
        group_refused(c, r, err, leader, fx);
    }
}

void call_on_closed(struct client *c, struct address peer, enum err err, struct effects *fx)
{
    uint64_t until = c->stream_next << REQUEST_BITS; /* requests made on the way are not of that connection */
    for (uint32_t i = 0; i < c->requests_high; i++) {
        struct request *r = &c->requests[i];
        if (r->state != REQUEST_SENT || r->stream >= until || r->to.role != peer.role || r->to.node != peer.node) {
            continue;
        }
        if (r->store != 0) {
            store_unanswered(c, r, err == ERR_OK ? ERR_CLOSED : err, fx);
        } else {
            group_unanswered(c, r, err == ERR_OK ? ERR_CLOSED : err, fx);
        }
    }
}

/* A store that has answered somebody within the idle time is slow, not dead: wait on. */
static void store_timeout(struct client *c, struct request *r, struct effects *fx)
{
    uint64_t heard = r->store < c->store_rows_count ? c->health[r->store].heard_ns : 0;
    uint64_t alive = heard > r->sent_ns ? heard : r->sent_ns;
    uint64_t until = min_u64(alive + c->params.store_idle_ns, r->deadline_ns);
    if (c->now_ns < until) {
        fx_timer(fx, r->stream, until);
        return;
    }
    store_unanswered(c, r, ERR_TIMEOUT, fx);
}

void call_on_timer(struct client *c, uint64_t id, struct effects *fx)
{
    struct request *r = &c->requests[id & (REQUESTS - 1)];
    if (r->state == REQUEST_FREE || r->state == REQUEST_KEY || r->stream != id) {
        return;
    }
    if (r->state == REQUEST_SENT && r->store != 0) {
        store_timeout(c, r, fx);
    } else if (r->state == REQUEST_SENT) {
        group_unanswered(c, r, ERR_TIMEOUT, fx);
    } else if (request_spent(c, r)) {
        request_finish(c, r, r->last == ERR_OK ? ERR_TIMEOUT : r->last, NULL, fx);
    } else {
        request_send(c, r, fx);
    }
}

void call_on_keys(struct client *c, struct effects *fx)
{
    for (uint32_t i = 0; i < c->requests_high; i++) {
        if (c->requests[i].state == REQUEST_KEY) {
            request_begin(c, &c->requests[i], fx);
        }
    }
}

void call_cancel_op(struct client *c, uint32_t slot, struct effects *fx)
{
    for (uint32_t i = 0; i < c->requests_high; i++) {
        struct request *r = &c->requests[i];
        bool mine = r->owner.kind != OWNER_MAP && r->owner.kind != OWNER_RESOLVE && r->owner.op == slot;
        if (r->state == REQUEST_FREE || !mine) {
            continue;
        }
        if (r->state != REQUEST_KEY) {
            fx_timer(fx, r->stream, 0);
        }
        request_free(c, r);
    }
}

void call_deinit(struct client *c)
{
    for (uint32_t i = 0; i < c->requests_high; i++) {
        if (c->requests[i].state != REQUEST_FREE) {
            request_free(c, &c->requests[i]);
        }
    }
}
