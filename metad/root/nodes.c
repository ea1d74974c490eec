/* Metadata nodes as the root group sees them: a row of the map each, with its address and whether it is in use. A node
 * of the first ones registers by itself; any other is named by an operator first (ADMIN_NODE), and then says where it
 * is. A number that is gone is never used again: what an old server of that name may still say must not count. */
#include <string.h>

#include "base/check.h"
#include "metad/root/root.h"

#define NODE_TEXT_BYTES  255u
#define NODES_MAX        256u /* metadata nodes a map ever names */
#define NODE_HEARD_TICKS 6u   /* a minute: open clients fetch the map twice in it */
#define RECOVERY_EPOCHS  (1ull << 32)

Cairn__MapNode *map_find_metad(const Cairn__ClusterMap *map, uint32_t node)
{
    for (size_t i = 0; i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->id == node) {
            return map->nodes[i];
        }
    }
    return NULL;
}

bool map_metad_is_heard(const Cairn__ClusterMap *map, uint32_t node)
{
    const Cairn__MapNode *row = map_find_metad(map, node);
    bool first = row == NULL || (row->since == 0 && row->state == NODE_IN_USE);
    return first || (row->state == NODE_IN_USE && map->tick >= row->since + NODE_HEARD_TICKS);
}

bool node_address_is_sound(const char *address)
{
    const char *colon = strrchr(address, ':');
    size_t digits = colon != NULL ? strspn(colon + 1, "0123456789") : 0;
    return colon != NULL && colon != address && digits >= 1 && digits <= 5 && colon[1 + digits] == '\0' &&
           strlen(address) <= NODE_TEXT_BYTES;
}

static Cairn__MapNode *map_add_metad(Cairn__ClusterMap *map, uint32_t node, struct proto_arena *arena)
{
    size_t count = 0;
    for (size_t i = 0; i < map->n_nodes; i++) {
        count += map->nodes[i]->role == ROLE_METAD;
    }
    if (count >= NODES_MAX) {
        return NULL;
    }
    Cairn__MapNode *row = PROTO_TAKE(Cairn__MapNode, arena);
    *row = (Cairn__MapNode)CAIRN__MAP_NODE__INIT;
    row->role = ROLE_METAD;
    row->id = node;
    Cairn__MapNode **grown = proto_arena_take(arena, (map->n_nodes + 1) * sizeof *grown);
    if (map->n_nodes > 0) {
        memcpy(grown, map->nodes, map->n_nodes * sizeof *grown);
    }
    grown[map->n_nodes++] = row;
    map->nodes = grown;
    return row;
}

Cairn__MapNode *map_take_metad(Cairn__ClusterMap *map, uint32_t node, struct proto_arena *arena)
{
    Cairn__MapNode *row = map_find_metad(map, node);
    if (row == NULL) {
        row = map_add_metad(map, node, arena);
        if (row != NULL) {
            row->state = NODE_JOINING;
        }
    }
    return row;
}

static bool is_first_member(const struct bootstrap *bootstrap, uint32_t node)
{
    bool found = false;
    for (uint32_t i = 0; i < bootstrap->member_count; i++) {
        found = found || bootstrap->members[i] == node;
    }
    return found;
}

enum err root_node_register(struct apply *apply, Cairn__ClusterMap *map, const Cairn__NodeRegisterRequest *request,
                            bool *ret_changed)
{
    Cairn__MapNode *row = map_find_metad(map, request->node);
    if (!node_address_is_sound(request->address)) {
        return ERR_INVALID;
    }
    if (row == NULL && is_first_member(apply->bootstrap, request->node)) {
        row = map_add_metad(map, request->node, apply->arena);
    }
    if (row == NULL || row->state == NODE_GONE) {
        return ERR_NOT_FOUND;
    }
    if (strcmp(row->address, request->address) != 0) {
        row->address = request->address;
        *ret_changed = true;
    }
    return ERR_OK;
}

enum err root_map_put(struct apply *apply, Cairn__RootRecord *record)
{
    if (cairn__cluster_map__get_packed_size(record->map) > ROOT_MAP_BYTES) {
        return ERR_TOO_LARGE;
    }
    record->map->epoch++;
    struct key key = key_root(apply->state->group);
    state_put(apply->state, &key, record);
    return ERR_OK;
}

enum err node_register_apply(struct apply *apply, struct answer *answer)
{
    Cairn__RootRecord *record = NULL;
    bool changed = false;
    enum err err = root_record_get(apply->state, apply->arena, &record);
    if (err == ERR_OK) {
        err = root_node_register(apply, record->map, apply->request, &changed);
    }
    if (err == ERR_OK && changed) {
        err = root_map_put(apply, record);
    }
    if (err == ERR_OK) {
        Cairn__NodeRegisterReply reply = CAIRN__NODE_REGISTER_REPLY__INIT;
        reply.map_epoch = record->map->epoch;
        answer_set(answer, &reply);
    }
    return err == ERR_NOT_FOUND && record == NULL ? ERR_NOT_READY : err;
}

/* The groups' members as the map shows them follow what is complete. */
static void map_groups_set(Cairn__ClusterMap *map, uint32_t node, bool member, struct proto_arena *arena)
{
    for (size_t i = 0; i < map->n_groups; i++) {
        Cairn__MapGroup *group = map->groups[i];
        uint32_t *members = proto_arena_take(arena, (group->n_members + 1) * sizeof *members);
        size_t count = 0;
        for (size_t j = 0; j < group->n_members; j++) {
            if (group->members[j] != node) {
                members[count++] = group->members[j];
            }
        }
        if (member) {
            members[count++] = node;
        }
        group->members = members;
        group->n_members = count;
    }
}

/* The row that the request speaks of, made if need be. */
static enum err node_row(struct apply *apply, Cairn__ClusterMap *map, const Cairn__AdminNodeRequest *request,
                         Cairn__MapNode **ret_row)
{
    Cairn__MapNode *row = map_find_metad(map, request->node);
    bool named = request->address[0] != '\0';
    if (request->node == 0 || request->state > NODE_GONE || (named && !node_address_is_sound(request->address))) {
        return ERR_INVALID;
    }
    bool first = request->state == NODE_GONE && is_first_member(apply->bootstrap, request->node);
    if (row == NULL && !first && (request->state != NODE_JOINING || !named)) {
        return ERR_NOT_FOUND;
    }
    if (row != NULL && row->state == NODE_GONE && request->state != NODE_GONE) {
        return ERR_EXISTS;
    }
    *ret_row = map_take_metad(map, request->node, apply->arena);
    return *ret_row != NULL ? ERR_OK : ERR_TOO_LARGE;
}

enum err admin_node_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__AdminNodeRequest *request = apply->request;
    Cairn__RootRecord *record = NULL;
    Cairn__MapNode *row = NULL;
    enum err err = root_record_get(apply->state, apply->arena, &record);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
    }
    err = node_row(apply, record->map, request, &row);
    if (err != ERR_OK) {
        return err;
    }
    if (request->address[0] != '\0') {
        row->address = request->address;
    }
    if (request->state != NODE_JOINING) { /* one that is in use stays so when it is added again */
        bool comes = row->state == NODE_JOINING && request->state == NODE_IN_USE;
        row->since = comes ? record->map->tick + 1 : row->since;
        row->state = request->state;
        map_groups_set(record->map, request->node, request->state == NODE_IN_USE, apply->arena);
    }
    Cairn__AdminNodeReply reply = CAIRN__ADMIN_NODE_REPLY__INIT;
    reply.node = row;
    answer_set(answer, &reply);
    return root_map_put(apply, record);
}

/* A row that says that the number is not to be used again. */
static enum err map_set_gone(Cairn__ClusterMap *map, uint32_t node, struct proto_arena *arena)
{
    Cairn__MapNode *row = map_take_metad(map, node, arena);
    if (row == NULL) {
        return ERR_TOO_LARGE;
    }
    row->state = NODE_GONE;
    return ERR_OK;
}

enum err root_recover(struct apply *apply, uint64_t incarnation, uint32_t node)
{
    Cairn__RootRecord *record = NULL;
    enum err err = root_record_get(apply->state, apply->arena, &record);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_OK : err; /* its first leader had not made it: there is nothing yet */
    }
    Cairn__ClusterMap *map = record->map;
    for (uint32_t i = 0; i < apply->bootstrap->member_count && err == ERR_OK; i++) {
        err = map_set_gone(map, apply->bootstrap->members[i], apply->arena);
    }
    for (size_t i = 0; i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD) {
            map->nodes[i]->state = map->nodes[i]->id == node ? NODE_IN_USE : NODE_GONE;
        }
    }
    Cairn__MapNode *row = map_take_metad(map, node, apply->arena);
    if (err != ERR_OK || row == NULL) {
        return ERR_TOO_LARGE;
    }
    row->state = NODE_IN_USE;
    for (size_t i = 0; i < map->n_groups; i++) {
        map->groups[i]->n_members = 0;
    }
    map_groups_set(map, node, true, apply->arena);
    joins_forget(apply, record);
    map->cluster_incarnation = incarnation;
    map->epoch += RECOVERY_EPOCHS; /* above any that the lost nodes may have given out */
    return root_map_put(apply, record);
}
