/* The agent: one a block server. It registers each store with group 0's leader once the store has recovered, sends its
 * heartbeats, keeps the newest map, and hands map, cluster time and receipt key to the stores (R-F7).
 *
 * Per store, one request is under way at most:
 *   SILENT --(store reports ready)--> REGISTERING --(reply)--> REGISTERED --(each second)--> heartbeat under way -->
 * ... It fails by asking again: NOT_LEADER names the leader to ask next, at once; no answer, a closed connection or any
 * retryable error goes to the next metadata node after a back-off with full jitter; an answer that says the
 * registration is not known (any error of the caller's class) registers again. The back-off grows to the pause between
 * heartbeats and no further: a store that asks costs no more than one that is well, and a new leader hears of it long
 * before it would call it down. A store that hears nothing keeps serving by its last map (R-C7). */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/limits.h"
#include "blockd.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "report.h"

#define AGENT_REQUEST_NS     (3ull * 1000000000) /* no answer by then: another node is asked */
#define AGENT_BACKOFF_MIN_NS (100ull * 1000000)
#define NODE_GONE            2u /* MapNode.state */

enum link_state { LINK_SILENT, LINK_REGISTERING, LINK_REGISTERED };

/* What the agent knows of one store. */
struct link {
    enum link_state state;
    struct store_report report;
    uint64_t submissions, submitted; /* of its disk, as the shell counts them */
    uint64_t stream;                 /* of the request under way; 0: none */
    uint32_t asked;                  /* the metadata node it went to */
    uint32_t attempts;
    bool redirected; /* since the last pause: two nodes that name each other are met by the next one */
    uint32_t store;  /* number in the map */
    uint64_t incarnation;
    uint8_t receipt_key[32];
    uint64_t map_epoch;        /* of the map it was handed */
    uint64_t recovered_record; /* the last durable one at the start: what the first registration tells (R-B2) */
    bool registered;           /* since the start */
    uint64_t changes;          /* of what it is told, ticks left out */
    bool recalled;             /* from the disk, and not told yet */
};

struct agent {
    uint32_t node;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    char *address, *host, *rack;
    uint32_t first_metads[LIMIT_METADS_KNOWN]; /* that the configuration names */
    uint32_t first_metad_count;
    uint32_t metads[LIMIT_METADS_KNOWN]; /* those, less who is gone by the map, and the map's */
    uint32_t metad_count;
    uint32_t leader; /* metadata node to ask */
    uint64_t heartbeat_ns;
    uint64_t streams;
    uint64_t tick;
    uint64_t map_epoch;
    bool seated;      /* the map has placed its pools: before, it is asked for ten times as often */
    struct slice map; /* packed ClusterMap; empty until heard */
    uint64_t refused[ERR_LIMIT];
    uint32_t link_count;
    struct link *links;
};

static void agent_add_metad(struct agent *agent, const Cairn__ClusterMap *map, uint32_t node)
{
    for (uint32_t i = 0; i < agent->metad_count; i++) {
        if (agent->metads[i] == node) {
            return;
        }
    }
    for (size_t i = 0; map != NULL && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->id == node && map->nodes[i]->state == NODE_GONE) {
            return;
        }
    }
    if (agent->metad_count < LIMIT_METADS_KNOWN) {
        agent->metads[agent->metad_count++] = node;
    }
}

/* Whom to ask: who the configuration names and who the map does; not who is gone, unless nobody else is left. */
static void agent_set_metads(struct agent *agent, const Cairn__ClusterMap *map)
{
    agent->metad_count = 0;
    for (uint32_t i = 0; i < agent->first_metad_count; i++) {
        agent_add_metad(agent, map, agent->first_metads[i]);
    }
    for (size_t i = 0; map != NULL && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->address[0] != '\0') {
            agent_add_metad(agent, map, map->nodes[i]->id);
        }
    }
    if (agent->metad_count == 0) {
        agent_set_metads(agent, NULL);
    }
}

struct agent *agent_create(const struct agent_params *params)
{
    CHECK(params->metad_count >= 1 && params->metad_count <= LIMIT_METADS_KNOWN && params->store_count >= 1);
    struct agent *agent = mem_alloc(sizeof *agent);
    agent->node = params->node;
    agent->cluster = params->cluster;
    agent->cluster_incarnation = params->cluster_incarnation;
    agent->address = strdup(params->address);
    agent->host = strdup(params->host);
    agent->rack = strdup(params->rack);
    memcpy(agent->first_metads, params->metads, params->metad_count * sizeof *agent->first_metads);
    agent->first_metad_count = params->metad_count;
    agent_set_metads(agent, NULL);
    agent->leader = params->metads[params->node % params->metad_count];
    agent->heartbeat_ns = params->heartbeat_ns;
    agent->link_count = params->store_count;
    agent->links = mem_alloc(params->store_count * sizeof *agent->links);
    return agent;
}

void agent_destroy(struct agent *agent)
{
    slice_drop(&agent->map);
    free(agent->links);
    free(agent->address);
    free(agent->host);
    free(agent->rack);
    free(agent);
}

void agent_note_disk(struct agent *agent, uint32_t position, uint64_t submissions, uint64_t submitted)
{
    CHECK(position < agent->link_count);
    agent->links[position].submissions = submissions;
    agent->links[position].submitted = submitted;
}

void agent_note_refused(struct agent *agent, const uint64_t *refused)
{
    memcpy(agent->refused, refused, sizeof agent->refused);
}

struct slice agent_map(const struct agent *agent, uint64_t *ret_epoch)
{
    *ret_epoch = agent->map_epoch;
    return agent->map;
}

/* Timer of a store: its next request, or the end of waiting for an answer. Id 0 is the boot of the actor. */
static uint64_t link_timer(const struct agent *agent, const struct link *link)
{
    return 1 + (uint64_t)(link - agent->links);
}

/* ---- requests ---- */

static void agent_ask(struct agent *agent, struct link *link, uint16_t type, struct slice header, uint64_t now_ns,
                      struct effects *fx)
{
    link->stream = ++agent->streams;
    link->asked = agent->leader;
    fx_send(fx, address_node(ROLE_METAD, agent->leader, ACTOR_GROUP, 0), type, link->stream, header, (struct slice){0});
    fx_timer(fx, link_timer(agent, link), now_ns + AGENT_REQUEST_NS);
}

static void link_register(struct agent *agent, struct link *link, uint64_t now_ns, struct effects *fx)
{
    const struct store_report *report = &link->report;
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    request.node = agent->node;
    request.position = report->position;
    request.uuid.data = (uint8_t *)report->uuid.bytes;
    request.uuid.len = sizeof report->uuid.bytes;
    request.incarnation = report->incarnation;
    request.capacity_bytes = report->capacity_bytes;
    request.address = agent->address;
    request.host = agent->host;
    request.rack = agent->rack;
    /* what came since then, by repair, must not hide that the disk was an older one */
    request.last_record = link->registered ? report->last_record : link->recovered_record;
    link->state = LINK_REGISTERING;
    agent_ask(agent, link, MESSAGE_STORE_REGISTER, proto_pack(&request), now_ns, fx);
}

static void link_heartbeat(struct agent *agent, struct link *link, uint64_t now_ns, struct effects *fx)
{
    const struct store_report *report = &link->report;
    Cairn__StoreCounters counters = CAIRN__STORE_COUNTERS__INIT;
    counters.submissions = link->submissions;
    counters.submitted = link->submitted;
    counters.syncs = report->counters.syncs;
    counters.synced_shards = report->counters.synced_shards;
    counters.synced_bytes = report->counters.synced_bytes;
    counters.shards = report->counters.shards;
    counters.refused = report->counters.refused;
    counters.corrupt = report->counters.corrupt;
    counters.rebuilt = report->counters.rebuilt;
    Cairn__StoreHeartbeatRequest request = CAIRN__STORE_HEARTBEAT_REQUEST__INIT;
    request.store = link->store;
    request.incarnation = link->incarnation;
    request.last_record = report->last_record;
    request.used_bytes = report->used_bytes;
    request.capacity_bytes = report->capacity_bytes;
    request.map_epoch = agent->map_epoch;
    request.counters = &counters;
    Cairn__Refusals rows[ERR_LIMIT], *pointers[ERR_LIMIT];
    request.refusals = pointers;
    for (uint32_t code = 0; code < ERR_LIMIT; code++) {
        if (agent->refused[code] > 0) {
            Cairn__Refusals *row = &rows[request.n_refusals];
            *row = (Cairn__Refusals)CAIRN__REFUSALS__INIT;
            row->code = code;
            row->count = agent->refused[code];
            pointers[request.n_refusals++] = row;
        }
    }
    agent_ask(agent, link, MESSAGE_STORE_HEARTBEAT, proto_pack(&request), now_ns, fx);
}

static void link_next(struct agent *agent, struct link *link, uint64_t now_ns, struct effects *fx)
{
    CHECK(link->stream == 0);
    if (link->state == LINK_REGISTERED) {
        link_heartbeat(agent, link, now_ns, fx);
    } else if (link->report.ready) {
        link_register(agent, link, now_ns, fx);
    }
}

/* Tries again after a back-off with full jitter. */
static void link_back_off(struct agent *agent, struct link *link, const struct event *event, struct effects *fx)
{
    uint32_t doublings = link->attempts < 6 ? link->attempts : 6;
    uint64_t most = AGENT_BACKOFF_MIN_NS << doublings;
    if (most > agent->heartbeat_ns) {
        most = agent->heartbeat_ns;
    }
    link->attempts++;
    link->redirected = false;
    link->stream = 0;
    fx_timer(fx, link_timer(agent, link), event->now_ns + AGENT_BACKOFF_MIN_NS / 10 + event->random % most);
}

/* The node asked is of no use now: the next in the list, unless another answer has moved the leader meanwhile. */
static void agent_rotate(struct agent *agent, uint32_t asked)
{
    if (agent->leader != asked) {
        return;
    }
    uint32_t at = 0;
    while (at < agent->metad_count && agent->metads[at] != asked) {
        at++;
    }
    agent->leader = agent->metads[at < agent->metad_count ? (at + 1) % agent->metad_count : 0];
}

/* ---- answers ---- */

/* Keeps a newer map of this cluster. */
static void agent_take_map(struct agent *agent, const Cairn__ClusterMap *map)
{
    if (map == NULL || map->cluster.len != sizeof agent->cluster ||
        memcmp(map->cluster.data, &agent->cluster, sizeof agent->cluster) != 0 ||
        map->cluster_incarnation != agent->cluster_incarnation ||
        (map->epoch <= agent->map_epoch && agent->map.bytes > 0)) {
        return;
    }
    slice_drop(&agent->map);
    agent_set_metads(agent, map);
    agent->map = proto_pack(map);
    agent->map_epoch = map->epoch;
    for (uint32_t i = 0; i < agent->link_count; i++) {
        agent->links[i].changes += agent->links[i].store != 0;
    }
    agent->seated = map->n_pools > 0 && map->pools[0]->n_slots > 0;
}

/* Tells the store what it may now believe; the map only when it is newer than what it was told. */
static void link_tell(struct agent *agent, struct link *link, struct effects *fx)
{
    struct store_state state = {.store = link->store, .incarnation = link->incarnation, .tick = agent->tick};
    memcpy(state.receipt_key, link->receipt_key, sizeof state.receipt_key);
    if (link->map_epoch != agent->map_epoch && agent->map.bytes > 0) {
        state.map = agent->map;
        link->map_epoch = agent->map_epoch;
    }
    uint32_t position = (uint32_t)(link - agent->links);
    fx_send(fx, address_local(ACTOR_STORE, position), MESSAGE_STORE_STATE, 0, store_state_encode(&state),
            (struct slice){0});
}

static enum err link_registered(struct agent *agent, struct link *link, struct slice header)
{
    struct proto_arena arena = {0};
    Cairn__StoreRegisterReply *reply = NULL;
    enum err err = proto_unpack(&cairn__store_register_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK && (reply->store == 0 || reply->receipt_key.len != sizeof link->receipt_key)) {
        err = ERR_BAD_PROTO;
    }
    if (err == ERR_OK) {
        link->state = LINK_REGISTERED;
        link->changes += link->store != reply->store || link->incarnation != reply->incarnation;
        link->store = reply->store;
        link->incarnation = reply->incarnation;
        memcpy(link->receipt_key, reply->receipt_key.data, sizeof link->receipt_key);
        agent_take_map(agent, reply->map);
        if (reply->map != NULL && reply->map->tick > agent->tick) {
            agent->tick = reply->map->tick;
        }
    }
    proto_arena_deinit(&arena);
    return err;
}

/* ---- what a store is told, kept over a restart ---- */

uint64_t agent_standing_changes(const struct agent *agent, uint32_t position)
{
    CHECK(position < agent->link_count);
    return agent->links[position].changes;
}

struct slice agent_standing(const struct agent *agent, uint32_t position)
{
    CHECK(position < agent->link_count);
    const struct link *link = &agent->links[position];
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    struct slice packed = {0};
    if (link->changes > 0 &&
        proto_unpack(&cairn__cluster_map__descriptor, agent->map, &arena, (void **)&map) == ERR_OK) {
        Cairn__StoreRegisterReply standing = CAIRN__STORE_REGISTER_REPLY__INIT;
        map->tick = agent->tick;
        standing.store = link->store;
        standing.incarnation = link->incarnation;
        standing.receipt_key = (ProtobufCBinaryData){sizeof link->receipt_key, (uint8_t *)link->receipt_key};
        standing.map = map;
        packed = proto_pack(&standing);
    }
    proto_arena_deinit(&arena);
    return packed;
}

enum err agent_recall(struct agent *agent, uint32_t position, struct slice standing)
{
    CHECK(position < agent->link_count && agent->links[position].state == LINK_SILENT);
    struct link *link = &agent->links[position];
    enum err err = link_registered(agent, link, standing);
    link->state = LINK_SILENT;
    link->changes = 0;
    if (err == ERR_OK && agent->map.bytes == 0) {
        err = ERR_WRONG_CLUSTER;
    }
    link->recalled = err == ERR_OK;
    return err;
}

/* A store that has recovered: what was kept of its standing holds until the root group says more. Not another's: the
 * map has to seat this very directory under that number. */
static void link_recall(struct agent *agent, struct link *link, struct effects *fx)
{
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    bool own = false;
    if (proto_unpack(&cairn__cluster_map__descriptor, agent->map, &arena, (void **)&map) == ERR_OK) {
        for (size_t i = 0; i < map->n_stores; i++) {
            const Cairn__MapStore *store = map->stores[i];
            own |= store->store == link->store && store->node == agent->node &&
                   store->uuid.len == sizeof link->report.uuid &&
                   memcmp(store->uuid.data, link->report.uuid.bytes, store->uuid.len) == 0;
        }
    }
    proto_arena_deinit(&arena);
    if (own) {
        link_tell(agent, link, fx);
    }
}

/* ---- answers to heartbeats, refusals ---- */

static enum err link_heard(struct agent *agent, struct slice header)
{
    struct proto_arena arena = {0};
    Cairn__StoreHeartbeatReply *reply = NULL;
    enum err err = proto_unpack(&cairn__store_heartbeat_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        agent_take_map(agent, reply->map);
        if (reply->tick > agent->tick) {
            agent->tick = reply->tick;
        }
    }
    proto_arena_deinit(&arena);
    return err;
}

static void link_refused(struct agent *agent, struct link *link, const struct event *event, struct effects *fx)
{
    uint32_t leader = 0;
    enum err err = error_reply_decode(event->message.header, &leader);
    if (err == ERR_NOT_LEADER && leader != 0 && leader != link->asked) {
        agent->leader = leader;
        if (!link->redirected) {
            link->redirected = true;
            link->stream = 0;
            link_next(agent, link, event->now_ns, fx);
            return;
        }
    } else if (err == ERR_NOT_LEADER || err_class(err) != ERR_CLASS_CALLER) {
        agent_rotate(agent, link->asked);
    } else {
        link->state = LINK_SILENT; /* the registration is not known: again */
    }
    link_back_off(agent, link, event, fx);
}

static void agent_answered(struct agent *agent, const struct event *event, struct effects *fx)
{
    const struct message *message = &event->message;
    struct link *link = NULL;
    for (uint32_t i = 0; i < agent->link_count; i++) {
        if (agent->links[i].stream == message->stream) {
            link = &agent->links[i];
        }
    }
    if (message->stream == 0 || link == NULL || message->peer.role != ROLE_METAD) {
        return; /* late, or nobody we asked */
    }
    if ((message->flags & MESSAGE_ERROR) != 0) {
        link_refused(agent, link, event, fx);
        return;
    }
    enum err err = link->state == LINK_REGISTERED ? link_heard(agent, message->header)
                                                  : link_registered(agent, link, message->header);
    if (err != ERR_OK) {
        agent_rotate(agent, link->asked);
        link_back_off(agent, link, event, fx);
        return;
    }
    link->stream = 0;
    link->attempts = 0;
    link->redirected = false;
    link->registered = true;
    link_tell(agent, link, fx);
    uint64_t pause_ns = agent->seated ? agent->heartbeat_ns : agent->heartbeat_ns / 10;
    fx_timer(fx, link_timer(agent, link), event->now_ns + pause_ns);
}

static void agent_reported(struct agent *agent, const struct event *event, struct effects *fx)
{
    struct store_report report;
    enum err err = store_report_decode(event->message.header, &report);
    if (err != ERR_OK || report.position >= agent->link_count || event->message.peer.role != ROLE_LOCAL) {
        return;
    }
    struct link *link = &agent->links[report.position];
    bool first = !link->report.ready && report.ready;
    link->report = report;
    if (first) {
        CHECK(link->state == LINK_SILENT && link->stream == 0);
        link->recovered_record = report.last_record;
        if (link->recalled) {
            link_recall(agent, link, fx);
        }
        link_next(agent, link, event->now_ns, fx);
    }
}

/* ---- events ---- */

static void agent_timer(struct agent *agent, const struct event *event, struct effects *fx)
{
    if (event->timer.id == 0 || event->timer.id > agent->link_count) {
        return;
    }
    struct link *link = &agent->links[event->timer.id - 1];
    if (link->stream != 0) {
        agent_rotate(agent, link->asked); /* no answer in time */
        link_back_off(agent, link, event, fx);
    } else {
        link_next(agent, link, event->now_ns, fx);
    }
}

static void agent_closed(struct agent *agent, const struct event *event, struct effects *fx)
{
    if (event->peer.peer.role != ROLE_METAD) {
        return;
    }
    for (uint32_t i = 0; i < agent->link_count; i++) {
        struct link *link = &agent->links[i];
        if (link->stream != 0 && link->asked == event->peer.peer.node) {
            agent_rotate(agent, link->asked);
            link_back_off(agent, link, event, fx);
        }
    }
}

void agent_step(void *actor, const struct event *event, struct effects *fx)
{
    struct agent *agent = actor;
    switch (event->kind) {
    case EVENT_MESSAGE:
        if ((event->message.flags & MESSAGE_REPLY) != 0) {
            agent_answered(agent, event, fx);
        } else if (event->message.type == MESSAGE_STORE_REPORT) {
            agent_reported(agent, event, fx);
        }
        break;
    case EVENT_TIMER:
        agent_timer(agent, event, fx);
        break;
    case EVENT_CLOSED:
        agent_closed(agent, event, fx);
        break;
    case EVENT_ROOM:
    case EVENT_DISK_DONE:
    case EVENT_KV_DONE:
    case EVENT_COMPUTE_DONE:
        break;
    }
}
