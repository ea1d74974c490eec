/* Questions to the root group: the map, and what an operator asks. */
#include <stdio.h>

#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/root/root.h"

#define STATUS_TEXT_BYTES 128u

static enum err root_query_record(struct query *query, Cairn__RootRecord **ret)
{
    enum err err = root_record_get(query->state, query->arena, ret);
    return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
}

enum err map_get_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__MapGetRequest *request = message;
    Cairn__RootRecord *record = NULL;
    enum err err = root_query_record(query, &record);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__MapGetReply reply = CAIRN__MAP_GET_REPLY__INIT;
    reply.epoch = record->map->epoch;
    reply.tick = record->map->tick;
    reply.map = request->epoch < record->map->epoch ? record->map : NULL;
    answer_set(answer, &reply);
    return ERR_OK;
}

/* What an operator chose that is not safe, or did once. */
static void status_not_default(const Cairn__ClusterMap *map, struct proto_arena *arena, Cairn__AdminStatusReply *reply)
{
    if (!incarnation_is_newer(map->cluster_incarnation, INCARNATION_FIRST)) {
        return;
    }
    char *text = proto_arena_take(arena, STATUS_TEXT_BYTES);
    snprintf(text, STATUS_TEXT_BYTES, "recovered from a lost majority (--unsafe-lose-majority): incarnation %llu",
             (unsigned long long)map->cluster_incarnation);
    reply->not_default = proto_arena_take(arena, sizeof *reply->not_default);
    reply->not_default[reply->n_not_default++] = text;
}

enum err admin_status_query(struct query *query, const void *message, struct answer *answer)
{
    (void)message;
    Cairn__RootRecord *record = NULL;
    enum err err = root_query_record(query, &record);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__AdminStatusReply reply = CAIRN__ADMIN_STATUS_REPLY__INIT;
    for (size_t i = 0; i < record->map->n_stores; i++) {
        *(record->map->stores[i]->state == STORE_UP ? &reply.stores_up : &reply.stores_down) += 1;
    }
    reply.map_epoch = record->map->epoch;
    reply.tick = record->map->tick;
    status_not_default(record->map, query->arena, &reply);
    answer_set(answer, &reply);
    return ERR_OK;
}

enum err admin_stores_query(struct query *query, const void *message, struct answer *answer)
{
    (void)message;
    Cairn__RootRecord *record = NULL;
    enum err err = root_query_record(query, &record);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__AdminStoresReply reply = CAIRN__ADMIN_STORES_REPLY__INIT;
    size_t count = record->map->n_stores;
    reply.n_stores = reply.n_counters = count;
    reply.n_known = record->n_known;
    reply.known = record->known;
    reply.stores = record->map->stores;
    reply.counters = proto_arena_take(query->arena, (count + 1) * sizeof *reply.counters);
    for (size_t i = 0; i < count; i++) {
        reply.counters[i] = PROTO_TAKE(Cairn__StoreCounters, query->arena);
        *reply.counters[i] = (Cairn__StoreCounters)CAIRN__STORE_COUNTERS__INIT;
        for (unsigned long j = 0; j < query->root->count; j++) {
            const struct store_health *health = &query->root->stores[j];
            if (health->store == reply.stores[i]->store) {
                *reply.counters[i] = health->counters;
                reply.stores[i]->used_bytes = health->used_bytes;
                reply.stores[i]->capacity_bytes = health->capacity_bytes;
            }
        }
    }
    answer_set(answer, &reply);
    return ERR_OK;
}

/* The reasons that were met, of ERR_LIMIT counts. */
static Cairn__Refusals **refusals_of(const uint64_t *refused, struct proto_arena *arena, size_t *ret_count)
{
    Cairn__Refusals **rows = proto_arena_take(arena, ERR_LIMIT * sizeof *rows);
    *ret_count = 0;
    for (uint32_t code = 0; code < ERR_LIMIT; code++) {
        if (refused[code] > 0) {
            Cairn__Refusals *row = PROTO_TAKE(Cairn__Refusals, arena);
            *row = (Cairn__Refusals)CAIRN__REFUSALS__INIT;
            row->code = code;
            row->count = refused[code];
            rows[(*ret_count)++] = row;
        }
    }
    return rows;
}

enum err admin_nodes_query(struct query *query, const void *message, struct answer *answer)
{
    (void)message;
    Cairn__RootRecord *record = NULL;
    enum err err = root_query_record(query, &record);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__AdminNodesReply reply = CAIRN__ADMIN_NODES_REPLY__INIT;
    reply.n_nodes = record->map->n_nodes;
    reply.nodes = proto_arena_take(query->arena, (reply.n_nodes + 1) * sizeof *reply.nodes);
    for (size_t i = 0; i < reply.n_nodes; i++) {
        Cairn__AdminNode *node = PROTO_TAKE(Cairn__AdminNode, query->arena);
        *node = (Cairn__AdminNode)CAIRN__ADMIN_NODE__INIT;
        node->node = record->map->nodes[i];
        const struct node_health *health = root_node_find(query->root, node->node->id);
        if (health != NULL) {
            node->refusals = refusals_of(health->refused, query->arena, &node->n_refusals);
        }
        reply.nodes[i] = node;
    }
    answer_set(answer, &reply);
    return ERR_OK;
}

enum err admin_group_query(struct query *query, const void *message, struct answer *answer)
{
    (void)message;
    const struct raft_status *raft = &query->raft;
    Cairn__AdminGroupReply reply = CAIRN__ADMIN_GROUP_REPLY__INIT;
    reply.group = query->state->group.group;
    reply.leader = raft->leader;
    reply.term = raft->term;
    reply.commit = raft->commit;
    reply.applied = raft->applied;
    reply.last = raft->last;
    reply.holes = query->holes;
    reply.mended = query->mended;
    reply.rot_behind = query->rot_behind;
    reply.digests = query->digests;
    reply.digest_at = query->digest_at;
    const struct raft_config *config = &raft->config.config;
    reply.refusals = refusals_of(query->refused, query->arena, &reply.n_refusals);
    if (query->counters != NULL) {
        reply.log_syncs = query->counters->log_syncs;
        reply.log_entries = query->counters->log_entries;
        reply.node_refusals = refusals_of(query->counters->refused, query->arena, &reply.n_node_refusals);
    }
    reply.leads = raft->role == RAFT_LEADER;
    reply.removed = raft->removed;
    reply.config_index = raft->config.index;
    reply.n_members = raft->role == RAFT_LEADER ? config->count : 0;
    reply.members = proto_arena_take(query->arena, (reply.n_members + 1) * sizeof *reply.members);
    for (size_t i = 0; i < reply.n_members; i++) {
        Cairn__AdminMember *member = PROTO_TAKE(Cairn__AdminMember, query->arena);
        *member = (Cairn__AdminMember)CAIRN__ADMIN_MEMBER__INIT;
        member->node = config->members[i].node;
        member->match = raft->match[i];
        member->lag = raft->last > raft->match[i] ? raft->last - raft->match[i] : 0;
        member->in_flight = raft->in_flight[i];
        member->roles = config->members[i].roles;
        member->answers = raft->answers[i];
        member->stale = query->stale[i];
        member->lost = query->lost[i];
        reply.members[i] = member;
    }
    answer_set(answer, &reply);
    return ERR_OK;
}
