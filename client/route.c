/* The map, the workspaces and the leaders: who is to be asked for what. The map comes from group 0 and is checked
 * before it is believed: what place.c indexes later must be there. It is fetched when there is none, when a server says
 * that it is stale, when a request does not reach its leader, and every 30 s, also while nothing runs: by then at least
 * one metadata node that it names is still there (metad/README.md rule 18). A workspace's name is resolved once per
 * process. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

const Cairn__MapPool *route_pool(const struct client *c, uint32_t pool)
{
    for (size_t i = 0; c->map != NULL && i < c->map->n_pools; i++) {
        if (c->map->pools[i]->pool == pool) {
            return c->map->pools[i];
        }
    }
    return NULL;
}

const Cairn__MapStore *route_store(const struct client *c, uint32_t store)
{
    return store == 0 || store >= c->store_rows_count ? NULL : c->store_rows[store];
}

uint32_t route_group_of(const struct client *c, uint64_t ns)
{
    for (size_t i = 0; i < c->map->n_namespaces; i++) {
        if (c->map->namespaces[i]->ns == ns && c->map->namespaces[i]->group < LIMIT_GROUPS) {
            return c->map->namespaces[i]->group;
        }
    }
    for (uint32_t i = 0; i < WORKSPACES; i++) {
        if (c->workspaces[i].state == WORKSPACE_KNOWN && c->workspaces[i].ns == ns) {
            return c->workspaces[i].group;
        }
    }
    return 0;
}

/* ---- the map ---- */

void route_want_map(struct client *c, bool newer, struct effects *fx)
{
    bool fresh = c->map != NULL && c->now_ns < c->map_fetched_ns + (newer ? MAP_MIN_AGE_NS : MAP_MAX_AGE_NS);
    if (c->map_asked || fresh || !call_room(c, 1)) {
        return;
    }
    c->map_asked = true;
    Cairn__MapGetRequest request = CAIRN__MAP_GET_REQUEST__INIT;
    request.epoch = c->map == NULL ? 0 : c->map->epoch;
    call_group(c, (struct owner){.kind = OWNER_MAP}, MESSAGE_MAP_GET, 0, 0, false, proto_pack(&request),
               (struct slice){0}, fx);
}

static bool pool_valid(const Cairn__MapPool *pool)
{
    if (!code_valid(pool->k, pool->m) || pool->pg_bits > 12 || pool->standin_count > LIMIT_SHARDS) {
        return false;
    }
    size_t rows = ((size_t)1 << pool->pg_bits) * (pool->k + pool->m);
    bool unplaced = pool->n_slots == 0 && pool->n_standins == 0; /* stores have not registered yet */
    return unplaced || (pool->n_slots == rows && pool->n_standins == rows * pool->standin_count);
}

static bool map_valid(const Cairn__ClusterMap *map)
{
    for (size_t i = 0; i < map->n_pools; i++) {
        if (!pool_valid(map->pools[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < map->n_stores; i++) {
        if (map->stores[i]->store == 0 || map->stores[i]->store > LIMIT_STORES) {
            return false;
        }
    }
    return true;
}

static void metad_add(struct client *c, const Cairn__ClusterMap *map, uint32_t node)
{
    for (uint32_t i = 0; i < c->metad_count; i++) {
        if (c->metads[i] == node) {
            return;
        }
    }
    for (size_t i = 0; map != NULL && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->id == node && map->nodes[i]->state == NODE_GONE) {
            return;
        }
    }
    if (c->metad_count < LIMIT_METADS_KNOWN) {
        c->metads[c->metad_count++] = node;
    }
}

void route_set_metads(struct client *c, const Cairn__ClusterMap *map)
{
    uint32_t before[LIMIT_METADS_KNOWN], count = c->metad_count;
    uint64_t heard = c->heard;
    memcpy(before, c->metads, sizeof before);
    c->metad_count = 0;
    c->heard = 0;
    for (uint32_t i = 0; i < c->params.metad_count; i++) {
        metad_add(c, map, c->params.metads[i]);
    }
    for (size_t i = 0; map != NULL && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->address[0] != '\0') {
            metad_add(c, map, map->nodes[i]->id);
        }
    }
    if (c->metad_count == 0) {
        route_set_metads(c, NULL);
        return;
    }
    for (uint32_t i = 0; i < c->metad_count; i++) {
        for (uint32_t j = 0; j < count; j++) {
            c->heard |= before[j] == c->metads[i] && (heard >> j & 1) != 0 ? 1ull << i : 0;
        }
    }
}

static void map_index(struct client *c)
{
    unsigned long count = c->store_rows_count;
    for (size_t i = 0; i < c->map->n_stores; i++) {
        count = c->map->stores[i]->store >= count ? c->map->stores[i]->store + 1 : count;
    }
    struct store_health *health = mem_alloc((count + 1) * sizeof *health);
    if (c->health != NULL) {
        memcpy(health, c->health, c->store_rows_count * sizeof *health);
    }
    free(c->health);
    free(c->store_rows);
    c->health = health;
    c->store_rows = mem_alloc((count + 1) * sizeof(Cairn__MapStore *));
    c->store_rows_count = count;
    for (size_t i = 0; i < c->map->n_stores; i++) {
        c->store_rows[c->map->stores[i]->store] = c->map->stores[i];
    }
}

/* Operations that wait for the map or a workspace cannot go on. `name` NULL: all of them. */
static void waiting_fail(struct client *c, const char *name, enum err err, const char *text, struct effects *fx)
{
    for (uint32_t i = 0; i < c->slots_high; i++) {
        struct op_slot *slot = &c->slots[i];
        if (slot->state != SLOT_WAITING) {
            continue;
        }
        bool route = slot->op->kind == CLIENT_CALL && slot->op->call.route != CLIENT_ROUTE_NAMESPACE &&
                     slot->op->call.route != CLIENT_ROUTE_STORE;
        if (!route && (name == NULL || strcmp(name, slot->op->workspace) == 0)) {
            client_op_finish(c, slot, err, text, fx);
        }
    }
}

enum err route_take_map(struct client *c, struct slice header, struct effects *fx)
{
    struct proto_arena arena = {0};
    Cairn__MapGetReply *reply = NULL;
    enum err err = proto_unpack(&cairn__map_get_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK && reply->map != NULL && !map_valid(reply->map)) {
        err = ERR_BAD_PROTO;
    }
    if (err != ERR_OK) {
        proto_arena_deinit(&arena);
        return err;
    }
    c->map_fetched_ns = c->now_ns;
    c->wake = true;
    fx_timer(fx, MAP_TIMER, c->now_ns + MAP_MAX_AGE_NS);
    bool newer = reply->map != NULL && (c->map == NULL || reply->map->epoch > c->map->epoch);
    if (!newer) {
        proto_arena_deinit(&arena);
        return ERR_OK;
    }
    proto_arena_deinit(&c->map_arena);
    c->map_arena = arena;
    c->map = reply->map;
    route_set_metads(c, c->map);
    map_index(c);
    if (c->params.map_handshake) {
        fx_send(fx, address_local(ACTOR_API, 0), MESSAGE_CLIENT_MAP, 0, slice_ref(header), (struct slice){0});
    } else {
        c->map_ready = true;
    }
    return ERR_OK;
}

void route_on_map(struct client *c, const struct outcome *outcome, struct effects *fx)
{
    c->map_asked = false;
    enum err err = outcome->err == ERR_OK ? route_take_map(c, outcome->header, fx) : outcome->err;
    if (err != ERR_OK && c->map == NULL) {
        waiting_fail(c, NULL, err, outcome->text, fx);
    }
}

void route_on_timer(struct client *c, struct effects *fx)
{
    route_want_map(c, false, fx);
    fx_timer(fx, MAP_TIMER, c->now_ns + MAP_MAX_AGE_NS);
}

/* ---- workspaces ---- */

/* The i-th group to ask for a workspace: those with namespaces first, group 0 last. */
static bool group_nth(const struct client *c, uint32_t i, uint32_t *ret_group)
{
    uint32_t n = 0;
    for (size_t g = 0; g < c->map->n_groups; g++) {
        uint32_t group = c->map->groups[g]->group;
        if (group != 0 && group < LIMIT_GROUPS && n++ == i) {
            *ret_group = group;
            return true;
        }
    }
    *ret_group = 0;
    return n == i;
}

static void resolve_ask(struct client *c, uint32_t index, struct effects *fx)
{
    struct workspace *w = &c->workspaces[index];
    uint32_t group;
    if (!group_nth(c, w->group_index, &group)) {
        char text[CLIENT_TEXT_BYTES] = "no workspace of that name: ";
        strncat(text, w->name, sizeof text - strlen(text) - 1);
        w->state = WORKSPACE_FREE;
        waiting_fail(c, w->name, w->refusal == ERR_OK ? ERR_NOT_FOUND : w->refusal, text, fx);
        return;
    }
    w->group = group;
    Cairn__ResolveRequest request = CAIRN__RESOLVE_REQUEST__INIT;
    request.workspace = w->name;
    call_group(c, (struct owner){.kind = OWNER_RESOLVE, .index = index}, MESSAGE_RESOLVE, group, 0, false,
               proto_pack(&request), (struct slice){0}, fx);
}

void route_on_resolve(struct client *c, uint32_t index, const struct outcome *outcome, struct effects *fx)
{
    struct workspace *w = &c->workspaces[index];
    CHECK(index < WORKSPACES && w->state == WORKSPACE_ASKED);
    enum err err = outcome->err;
    bool elsewhere = err == ERR_NOT_FOUND || err == ERR_DENIED || err == ERR_WRONG_GROUP || err == ERR_UNSUPPORTED;
    if (elsewhere) {
        w->refusal = err == ERR_DENIED ? err : w->refusal;
        w->group_index++;
        resolve_ask(c, index, fx);
        return;
    }
    struct proto_arena arena = {0};
    Cairn__ResolveReply *reply = NULL;
    if (err == ERR_OK) {
        err = proto_unpack(&cairn__resolve_reply__descriptor, outcome->header, &arena, (void **)&reply);
    }
    if (err == ERR_OK && (reply->chunk_bytes == 0 || reply->chunk_bytes > LIMIT_CHUNK_BYTES)) {
        err = ERR_BAD_PROTO;
    }
    if (err != ERR_OK) {
        w->state = WORKSPACE_FREE;
        waiting_fail(c, w->name, err, outcome->text, fx);
    } else {
        w->ns = reply->ns;
        w->root = reply->root;
        w->realm = reply->realm;
        w->pool = reply->pool;
        w->cut = (struct cut_params){reply->cut_min_bytes, reply->cut_avg_bytes, reply->chunk_bytes};
        if (!cut_params_valid(&w->cut)) {
            w->cut.min_bytes = 0; /* chunks too small to be cut by content are cut by length, by every client */
        }
        w->copy_bytes = reply->copy_bytes > 0 ? reply->copy_bytes : LIMIT_COPY_CHUNK_BYTES;
        w->state = WORKSPACE_KNOWN;
        c->wake = true;
    }
    proto_arena_deinit(&arena);
}

/* The row of a name, a free one taken for it, or WORKSPACES. */
static uint32_t workspace_row(struct client *c, const char *name)
{
    uint32_t free_row = WORKSPACES;
    for (uint32_t i = 0; i < WORKSPACES; i++) {
        if (c->workspaces[i].state == WORKSPACE_FREE) {
            free_row = free_row == WORKSPACES ? i : free_row;
        } else if (strcmp(c->workspaces[i].name, name) == 0) {
            return i;
        }
    }
    return free_row;
}

bool route_workspace(struct client *c, const char *name, uint32_t *ret_index, enum err *ret_err, struct effects *fx)
{
    if (c->map == NULL || !c->map_ready) {
        route_want_map(c, true, fx);
        return false;
    }
    route_want_map(c, false, fx);
    uint32_t index = workspace_row(c, name);
    if (index == WORKSPACES || !call_room(c, 1)) {
        *ret_err = ERR_BUSY;
        return false;
    }
    struct workspace *w = &c->workspaces[index];
    if (w->state == WORKSPACE_FREE) {
        *w = (struct workspace){.state = WORKSPACE_ASKED};
        strncpy(w->name, name, sizeof w->name - 1);
        resolve_ask(c, index, fx);
    }
    *ret_index = index;
    return w->state == WORKSPACE_KNOWN;
}

void route_deinit(struct client *c)
{
    proto_arena_deinit(&c->map_arena);
    free(c->store_rows);
    free(c->health);
}
