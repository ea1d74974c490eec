/* Questions to the root group: the map, and what an operator asks. */
#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/root/root.h"

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
    const struct raft_config *config = &raft->config.config;
    reply.n_members = raft->role == RAFT_LEADER ? config->count : 0;
    reply.members = proto_arena_take(query->arena, (reply.n_members + 1) * sizeof *reply.members);
    for (size_t i = 0; i < reply.n_members; i++) {
        Cairn__AdminMember *member = PROTO_TAKE(Cairn__AdminMember, query->arena);
        *member = (Cairn__AdminMember)CAIRN__ADMIN_MEMBER__INIT;
        member->node = config->members[i].node;
        member->match = raft->match[i];
        member->lag = raft->last > raft->match[i] ? raft->last - raft->match[i] : 0;
        reply.members[i] = member;
    }
    answer_set(answer, &reply);
    return ERR_OK;
}
