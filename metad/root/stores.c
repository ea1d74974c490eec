/* Stores as the root group sees them: registration is a commit; heartbeats renew what the leader holds in memory, and a
 * store that falls silent or returns becomes a commit when root_due says so. */
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "proto/token.h"

static Cairn__MapStore *map_find_store(const Cairn__ClusterMap *map, ProtobufCBinaryData uuid)
{
    for (size_t i = 0; i < map->n_stores; i++) {
        if (map->stores[i]->uuid.len == uuid.len && memcmp(map->stores[i]->uuid.data, uuid.data, uuid.len) == 0) {
            return map->stores[i];
        }
    }
    return NULL;
}

/* Appends to a repeated field held as (count, array of pointers). */
static void *list_append(struct proto_arena *arena, void *items, size_t count, void *item)
{
    void **grown = proto_arena_take(arena, (count + 1) * sizeof *grown);
    if (count > 0) {
        memcpy(grown, items, count * sizeof *grown);
    }
    grown[count] = item;
    return grown;
}

/* The node's address and failure domains, as it says them now; true when they are news. */
static bool map_set_node(Cairn__ClusterMap *map, const Cairn__StoreRegisterRequest *request, struct proto_arena *arena)
{
    Cairn__MapNode *node = NULL;
    for (size_t i = 0; i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_BLOCKD && map->nodes[i]->id == request->node) {
            node = map->nodes[i];
        }
    }
    bool same = node != NULL && strcmp(node->address, request->address) == 0 &&
                strcmp(node->host, request->host) == 0 && strcmp(node->rack, request->rack) == 0;
    if (same) {
        return false;
    }
    if (node == NULL) {
        node = PROTO_TAKE(Cairn__MapNode, arena);
        *node = (Cairn__MapNode)CAIRN__MAP_NODE__INIT;
        node->role = ROLE_BLOCKD;
        node->id = request->node;
        map->nodes = list_append(arena, map->nodes, map->n_nodes, node);
        map->n_nodes++;
    }
    node->address = request->address;
    node->host = request->host;
    node->rack = request->rack;
    return true;
}

static Cairn__MapStore *map_add_store(Cairn__ClusterMap *map, const Cairn__StoreRegisterRequest *request,
                                      struct proto_arena *arena)
{
    Cairn__MapStore *store = PROTO_TAKE(Cairn__MapStore, arena);
    *store = (Cairn__MapStore)CAIRN__MAP_STORE__INIT;
    store->uuid = request->uuid;
    for (size_t i = 0; i < map->n_stores; i++) {
        store->store = map->stores[i]->store > store->store ? map->stores[i]->store : store->store;
    }
    store->store++;
    map->stores = list_append(arena, map->stores, map->n_stores, store);
    map->n_stores++;
    return store;
}

#define STORE_TEXT_BYTES 255u
#define STORES_PER_NODE  64u

/* What a block server may say of itself: bounded, so that a stolen one cannot swell the map for all; and of its own
 * stores only: a store's uuid and incarnation stand in the map, its receipt key is for the node that the map seats it
 * on. */
static enum err register_check(const Cairn__ClusterMap *map, const Cairn__StoreRegisterRequest *request)
{
    if (request->uuid.len != 16 || request->incarnation == 0 || request->node == 0 ||
        request->position >= STORES_PER_NODE || strlen(request->address) > STORE_TEXT_BYTES ||
        strlen(request->host) > STORE_TEXT_BYTES || strlen(request->rack) > STORE_TEXT_BYTES) {
        return ERR_INVALID;
    }
    const Cairn__MapStore *store = map_find_store(map, request->uuid);
    if (store != NULL) {
        return store->node == request->node ? ERR_OK : ERR_DENIED;
    }
    size_t own = 0;
    for (size_t i = 0; i < map->n_stores; i++) {
        own += map->stores[i]->node == request->node;
    }
    return map->n_stores < LIMIT_STORES && own < STORES_PER_NODE ? ERR_OK : ERR_TOO_LARGE;
}

enum err store_register_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__StoreRegisterRequest *request = apply->request;
    Cairn__RootRecord *record = NULL;
    enum err err = root_record_get(apply->state, apply->arena, &record);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
    }
    Cairn__ClusterMap *map = record->map;
    err = register_check(map, request);
    if (err != ERR_OK) {
        return err;
    }
    bool changed = map_set_node(map, request, apply->arena);
    Cairn__MapStore *store = map_find_store(map, request->uuid);
    if (store == NULL) {
        store = map_add_store(map, request, apply->arena);
        changed = true;
    }
    uint64_t incarnation = store->incarnation;
    bool news = known_register(record, request, apply->command->random, store, apply->arena);
    changed |= store->node != request->node || store->position != request->position ||
               store->incarnation != incarnation || store->state != STORE_UP;
    store->node = request->node;
    store->position = request->position;
    store->capacity_bytes = request->capacity_bytes;
    store->state = STORE_UP;
    changed |= placement_compute(map, apply->bootstrap->stores, apply->arena);
    if (cairn__cluster_map__get_packed_size(map) > ROOT_MAP_BYTES) {
        return ERR_TOO_LARGE;
    }
    map->epoch += changed;
    if (changed || news) {
        struct key key = key_root(apply->state->group);
        state_put(apply->state, &key, record);
    }
    Cairn__StoreRegisterReply reply = CAIRN__STORE_REGISTER_REPLY__INIT;
    reply.store = store->store;
    reply.incarnation = store->incarnation;
    answer_set(answer, &reply);
    return ERR_OK;
}

enum err store_register_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    (void)extra;
    Cairn__RootRecord *record = NULL;
    enum err err = root_record_get(prepare->state, arena, &record);
    if (err == ERR_OK) {
        err = known_register_prepare(prepare->root, record, prepare->request);
    }
    return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
}

enum err store_register_finish(struct finish *finish, struct answer *answer)
{
    struct proto_arena arena = {0};
    void *message = NULL;
    Cairn__RootRecord *record = NULL;
    enum err err = proto_unpack(&cairn__store_register_reply__descriptor, answer->header, &arena, &message);
    if (err == ERR_OK) {
        err = root_record_get(finish->state, &arena, &record);
    }
    if (err == ERR_OK) {
        Cairn__StoreRegisterReply *reply = message;
        uint8_t key[32];
        receipt_key_derive(finish->keyring->receipt_master, reply->store, reply->incarnation, key);
        reply->receipt_key = (ProtobufCBinaryData){sizeof key, key};
        reply->map = record->map;
        slice_drop(&answer->header);
        answer->header = proto_pack(reply);
        explicit_bzero(key, sizeof key);
    }
    proto_arena_deinit(&arena);
    return err;
}

static struct store_health *health_find(struct root *root, uint32_t store, uint64_t now_ns)
{
    for (unsigned long i = 0; i < root->count; i++) {
        if (root->stores[i].store == store) {
            return &root->stores[i];
        }
    }
    root->stores = mem_grow(root->stores, &root->capacity, root->count + 1, sizeof *root->stores);
    struct store_health *health = &root->stores[root->count++];
    *health = (struct store_health){.store = store, .heard_ns = now_ns};
    health->counters = (Cairn__StoreCounters)CAIRN__STORE_COUNTERS__INIT;
    return health;
}

const struct node_health *root_node_find(const struct root *root, uint32_t node)
{
    for (unsigned long i = 0; i < root->node_count; i++) {
        if (root->nodes[i].node == node) {
            return &root->nodes[i];
        }
    }
    return NULL;
}

/* The node's own words about what it refused; codes beyond the table are dropped. */
static void node_note_refusals(struct root *root, uint32_t node, const Cairn__StoreHeartbeatRequest *request)
{
    unsigned long at = 0;
    while (at < root->node_count && root->nodes[at].node != node) {
        at++;
    }
    if (at == root->node_count) {
        root->nodes = mem_grow(root->nodes, &root->node_capacity, root->node_count + 1, sizeof *root->nodes);
        root->nodes[root->node_count++].node = node;
    }
    memset(root->nodes[at].refused, 0, sizeof root->nodes[at].refused);
    for (size_t i = 0; i < request->n_refusals; i++) {
        if (request->refusals[i]->code < ERR_LIMIT) {
            root->nodes[at].refused[request->refusals[i]->code] = request->refusals[i]->count;
        }
    }
}

enum err store_heartbeat(struct group *group, const struct message *message, const void *unpacked,
                         struct proto_arena *arena, struct answer *answer)
{
    const Cairn__StoreHeartbeatRequest *request = unpacked;
    struct root *root = &group->root;
    uint32_t node = message->peer.id;
    uint64_t now_ns = group->event->now_ns;
    Cairn__RootRecord *record = NULL;
    enum err err = root_record_get(&group->state, arena, &record);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
    }
    const Cairn__MapStore *store = NULL;
    for (size_t i = 0; i < record->map->n_stores; i++) {
        if (record->map->stores[i]->store == request->store) {
            store = record->map->stores[i];
        }
    }
    if (store == NULL || store->node != node || store->incarnation != request->incarnation) {
        return ERR_NOT_FOUND;
    }
    struct store_health *health = health_find(root, request->store, now_ns);
    health->heard_ns = now_ns;
    if (!known_heard(health, store->incarnation, request->last_record)) {
        return ERR_NOT_FOUND;
    }
    health->used_bytes = request->used_bytes;
    health->capacity_bytes = request->capacity_bytes;
    if (request->counters != NULL) {
        health->counters = *request->counters;
        health->counters.base.unknown_fields = NULL;
        health->counters.base.n_unknown_fields = 0;
    }
    node_note_refusals(root, node, request);
    Cairn__StoreHeartbeatReply reply = CAIRN__STORE_HEARTBEAT_REPLY__INIT;
    reply.map_epoch = record->map->epoch;
    reply.tick = record->map->tick;
    reply.map = request->map_epoch < record->map->epoch ? record->map : NULL;
    answer_set(answer, &reply);
    return ERR_OK;
}

bool root_due(struct root *root, struct state *state, uint64_t now_ns, struct proto_arena *arena,
              Cairn__RootCommand *ret)
{
    Cairn__RootRecord *record = NULL;
    if (root->led_since_ns == 0 || root_record_get(state, arena, &record) != ERR_OK) {
        return false;
    }
    const Cairn__ClusterMap *map = record->map;
    ret->down = proto_arena_take(arena, (map->n_stores + 1) * sizeof *ret->down);
    ret->up = proto_arena_take(arena, (map->n_stores + 1) * sizeof *ret->up);
    for (size_t i = 0; i < map->n_stores; i++) {
        struct store_health *health = health_find(root, map->stores[i]->store, root->led_since_ns);
        bool up = map->stores[i]->state == STORE_UP;
        if (up && !health->up) {
            health->heard_ns = now_ns;
        }
        health->up = up;
        bool silent = now_ns > health->heard_ns + STORE_SILENT_NS;
        if (silent && up) {
            ret->down[ret->n_down++] = map->stores[i]->store;
        }
        if (!silent && !up && health->heard_ns > root->led_since_ns) {
            ret->up[ret->n_up++] = map->stores[i]->store;
        }
    }
    if (now_ns >= root->next_tick_ns) {
        ret->tick = root->next_tick_ns != 0;
        root->next_tick_ns = now_ns + TICK_NS;
    }
    bool rolled_back = known_due(root, record, ret->tick, arena, ret);
    return ret->tick || ret->n_down > 0 || ret->n_up > 0 || rolled_back;
}
