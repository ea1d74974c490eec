/* What an operator asks: groups, status, stores, nodes. Questions to the root group's leader, but for groups: each
 * metadata node that the map names is asked, leader or not; a leader says who the members are. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

#define MEMBER_BUDGET_NS 2000000000ull

static int call_root(struct cairn *c, uint16_t type, const void *request, const ProtobufCMessageDescriptor *descriptor,
                     const char *what, struct proto_arena *arena, void **ret_reply, struct cairn_error *error)
{
    struct api_call call = {.type = type, .route = CLIENT_ROUTE_ROOT, .request = request, .reply = descriptor};
    return api_call(c, &call, what, arena, ret_reply, error);
}

int api_map_get(struct cairn *c, struct proto_arena *arena, Cairn__ClusterMap **ret_map, struct cairn_error *error)
{
    Cairn__MapGetRequest request = CAIRN__MAP_GET_REQUEST__INIT;
    Cairn__MapGetReply *reply = NULL;
    int result = call_root(c, MESSAGE_MAP_GET, &request, &cairn__map_get_reply__descriptor, "the map", arena,
                           (void **)&reply, error);
    if (result == 0 && reply->map == NULL) {
        return api_fail(error, ERR_NOT_READY, "the cluster has no map yet");
    }
    *ret_map = result == 0 ? reply->map : NULL;
    if (result == 0) {
        api_learn_addresses(c, reply->map);
    }
    return result;
}

static uint32_t refusals_take(Cairn__Refusals *const *rows, size_t count, struct cairn_refusals *ret_rows)
{
    uint32_t taken = 0;
    for (size_t i = 0; i < count && taken < CAIRN_REFUSALS_MAX; i++) {
        ret_rows[taken++] = (struct cairn_refusals){err_name((enum err)rows[i]->code), rows[i]->count};
    }
    return taken;
}

static bool member_ask(struct cairn *c, uint32_t group, uint32_t node, struct proto_arena *arena,
                       Cairn__AdminGroupReply **ret_reply)
{
    Cairn__AdminGroupRequest request = CAIRN__ADMIN_GROUP_REQUEST__INIT;
    struct api_call call = {
        .type = MESSAGE_ADMIN_GROUP,
        .route = CLIENT_ROUTE_NODE,
        .group = group,
        .node = node,
        .budget_ns = MEMBER_BUDGET_NS,
        .request = &request,
        .reply = &cairn__admin_group_reply__descriptor,
    };
    return api_call(c, &call, "group", arena, (void **)ret_reply, NULL) == 0;
}

/* The leader's words decide who the members are and how far each is. */
static void group_take_leader(struct cairn_group *group, uint32_t node, const Cairn__AdminGroupReply *reply)
{
    group->leader = node;
    group->commit = reply->commit;
    group->applied = reply->applied;
    group->config_index = reply->config_index;
    for (uint32_t j = 0; j < group->member_count; j++) {
        group->members[j].roles = 0;
    }
    for (size_t i = 0; i < reply->n_members; i++) {
        const Cairn__AdminMember *from = reply->members[i];
        uint32_t j = 0;
        while (j < group->member_count && group->members[j].node != from->node) {
            j++;
        }
        if (j == CAIRN_MEMBERS_MAX) {
            continue;
        }
        struct cairn_group_member *member = &group->members[j];
        group->member_count += j == group->member_count;
        member->node = from->node;
        member->match = from->match;
        member->lag = from->lag;
        member->in_flight = from->in_flight;
        member->roles = from->roles;
        member->stale = from->stale;
        member->lost = from->lost;
    }
}

/* Asks one node what it knows of the group; the freshest leader's words win. */
static void group_ask(struct cairn *c, struct cairn_group *group, struct cairn_group_member *member)
{
    struct proto_arena arena = {0};
    Cairn__AdminGroupReply *reply = NULL;
    member->answered = member_ask(c, group->group, member->node, &arena, &reply);
    if (member->answered) {
        member->term = reply->term;
        member->commit = reply->commit;
        member->applied = reply->applied;
        member->removed = reply->removed;
        member->log_syncs = reply->log_syncs;
        member->log_entries = reply->log_entries;
        member->holes = reply->holes;
        member->mended = reply->mended;
        member->rot_behind = reply->rot_behind;
        member->digests = reply->digests;
        member->digest_at = reply->digest_at;
        member->refusal_count = refusals_take(reply->refusals, reply->n_refusals, member->refusals);
        if (member->match == 0) {
            member->match = reply->last;
        }
        if (reply->leads && reply->term >= group->term) {
            group_take_leader(group, member->node, reply);
        } else if (group->leader == 0) {
            group->commit = reply->commit > group->commit ? reply->commit : group->commit;
            group->applied = reply->applied > group->applied ? reply->applied : group->applied;
        }
        group->term = reply->term > group->term ? reply->term : group->term;
    }
    proto_arena_deinit(&arena);
}

/* Without a leader all that were asked are shown, but who says that it was removed. */
static void group_drop_strangers(struct cairn_group *group)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < group->member_count; i++) {
        bool member = group->leader != 0 ? group->members[i].roles != 0 : !group->members[i].removed;
        if (member) {
            group->members[kept++] = group->members[i];
        }
    }
    group->member_count = kept;
}

uint32_t api_metads(const struct cairn *c, const Cairn__ClusterMap *map, uint32_t *ret_nodes)
{
    uint32_t count = 0;
    for (size_t i = 0; i < map->n_nodes && count < CAIRN_MEMBERS_MAX; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->state != API_NODE_GONE) {
            ret_nodes[count++] = map->nodes[i]->id;
        }
    }
    for (uint32_t i = 0; i < c->config.metad_count && count < CAIRN_MEMBERS_MAX; i++) {
        bool known = false;
        for (size_t j = 0; j < map->n_nodes; j++) {
            known = known || (map->nodes[j]->role == ROLE_METAD && map->nodes[j]->id == c->config.metads[i].node);
        }
        if (!known) {
            ret_nodes[count++] = c->config.metads[i].node;
        }
    }
    return count;
}

int cairn_admin_groups(struct cairn *c, cairn_group_fn *each, void *context, struct cairn_error *error)
{
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    uint32_t nodes[CAIRN_MEMBERS_MAX], count = 0;
    int result = api_map_get(c, &arena, &map, error);
    if (result == 0) {
        count = api_metads(c, map, nodes);
    }
    struct cairn_group *group = mem_alloc(sizeof *group);
    for (size_t i = 0; result == 0 && i < map->n_groups; i++) {
        *group = (struct cairn_group){.group = map->groups[i]->group, .member_count = count};
        for (uint32_t j = 0; j < count; j++) {
            group->members[j].node = nodes[j];
        }
        for (uint32_t j = 0; j < count; j++) {
            group_ask(c, group, &group->members[j]);
        }
        group_drop_strangers(group);
        result = each(context, group);
    }
    free(group);
    proto_arena_deinit(&arena);
    return result;
}

int cairn_admin_status(struct cairn *c, struct cairn_status *status, struct cairn_error *error)
{
    Cairn__AdminStatusRequest request = CAIRN__ADMIN_STATUS_REQUEST__INIT;
    Cairn__AdminStatusReply *reply = NULL;
    Cairn__ClusterMap *map = NULL;
    struct proto_arena arena = {0}, map_arena = {0};
    int result = call_root(c, MESSAGE_ADMIN_STATUS, &request, &cairn__admin_status_reply__descriptor, "status", &arena,
                           (void **)&reply, error);
    if (result == 0) {
        result = api_map_get(c, &map_arena, &map, error);
    }
    if (result == 0) {
        *status = (struct cairn_status){
            .nodes = (uint32_t)map->n_nodes,
            .stores_up = reply->stores_up,
            .stores_down = reply->stores_down,
            .map_epoch = reply->map_epoch,
            .tick = reply->tick,
        };
        for (size_t i = 0; i < reply->n_not_default && i < 16; i++) {
            snprintf(status->not_default[status->not_default_count++], sizeof status->not_default[0], "%s",
                     reply->not_default[i]);
        }
    }
    proto_arena_deinit(&arena);
    proto_arena_deinit(&map_arena);
    return result;
}

int cairn_admin_stores(struct cairn *c, cairn_store_fn *each, void *context, struct cairn_error *error)
{
    Cairn__AdminStoresRequest request = CAIRN__ADMIN_STORES_REQUEST__INIT;
    Cairn__AdminStoresReply *reply = NULL;
    struct proto_arena arena = {0};
    int result = call_root(c, MESSAGE_ADMIN_STORES, &request, &cairn__admin_stores_reply__descriptor, "stores", &arena,
                           (void **)&reply, error);
    for (size_t i = 0; result == 0 && i < reply->n_stores; i++) {
        const Cairn__MapStore *from = reply->stores[i];
        struct cairn_store store = {
            .store = from->store,
            .node = from->node,
            .position = from->position,
            .up = from->state == 0,
            .capacity_bytes = from->capacity_bytes,
            .used_bytes = from->used_bytes,
            .incarnation = from->incarnation,
        };
        for (size_t k = 0; k < reply->n_known; k++) {
            store.rollbacks = reply->known[k]->store == from->store ? reply->known[k]->rollbacks : store.rollbacks;
        }
        if (i < reply->n_counters) {
            const Cairn__StoreCounters *counters = reply->counters[i];
            store.submissions = counters->submissions;
            store.submitted = counters->submitted;
            store.syncs = counters->syncs;
            store.synced_shards = counters->synced_shards;
            store.synced_bytes = counters->synced_bytes;
            store.shards = counters->shards;
            store.refused = counters->refused;
            store.corrupt = counters->corrupt;
            store.rebuilt = counters->rebuilt;
        }
        result = each(context, &store);
    }
    proto_arena_deinit(&arena);
    return result;
}

static int metad_tell(struct cairn *c, const Cairn__MapNode *from, cairn_node_fn *each, void *context)
{
    static const char *const states[] = {"in use", "joining", "gone"};
    struct cairn_node node = {.role = "metad", .id = from->id, .state = states[from->state <= 2 ? from->state : 0]};
    struct proto_arena arena = {0};
    Cairn__AdminGroupReply *own = NULL;
    snprintf(node.address, sizeof node.address, "%s", from->address);
    node.answered = from->state != API_NODE_GONE && member_ask(c, 0, from->id, &arena, &own);
    if (node.answered) {
        node.refusal_count = refusals_take(own->node_refusals, own->n_node_refusals, node.refusals);
    }
    int result = each(context, &node);
    proto_arena_deinit(&arena);
    return result;
}

int cairn_admin_nodes(struct cairn *c, cairn_node_fn *each, void *context, struct cairn_error *error)
{
    Cairn__AdminNodesRequest request = CAIRN__ADMIN_NODES_REQUEST__INIT;
    Cairn__AdminNodesReply *reply = NULL;
    struct proto_arena arena = {0};
    int result = call_root(c, MESSAGE_ADMIN_NODES, &request, &cairn__admin_nodes_reply__descriptor, "nodes", &arena,
                           (void **)&reply, error);
    for (size_t i = 0; result == 0 && i < reply->n_nodes; i++) {
        const Cairn__MapNode *from = reply->nodes[i]->node;
        if (from != NULL && from->role == ROLE_METAD) {
            result = metad_tell(c, from, each, context);
        }
    }
    for (size_t i = 0; result == 0 && i < reply->n_nodes; i++) {
        const Cairn__MapNode *from = reply->nodes[i]->node;
        if (from == NULL || from->role != ROLE_BLOCKD) {
            continue;
        }
        struct cairn_node node = {.role = "blockd", .id = from->id, .state = "in use", .answered = true};
        snprintf(node.address, sizeof node.address, "%s", from->address);
        snprintf(node.host, sizeof node.host, "%s", from->host);
        snprintf(node.rack, sizeof node.rack, "%s", from->rack);
        node.refusal_count = refusals_take(reply->nodes[i]->refusals, reply->nodes[i]->n_refusals, node.refusals);
        result = each(context, &node);
    }
    proto_arena_deinit(&arena);
    return result;
}
