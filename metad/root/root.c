/* The root group's record: the map that all follow and the keys that the leaders of groups open (R-F6, R-D10).
 *
 * One value under (0, m) holds both; a few KiB that change when a store registers, falls silent or returns, and once
 * per tick of cluster time (R-C7). Heartbeats are answered from memory and commit nothing. */
#include "metad/root/root.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/authority.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/seal.h"
#include "base/sign.h"

#define KEY_ID_FIRST 1u

void root_deinit(struct root *root)
{
    free(root->stores);
    free(root->nodes);
    *root = (struct root){0};
}

struct key key_root(struct prefix group)
{
    CHECK(group.group == 0);
    return key_begin(group, 'm');
}

enum err root_record_get(struct state *state, struct proto_arena *arena, Cairn__RootRecord **ret)
{
    struct key key = key_root(state->group);
    enum err err = state_get(state, &key, &cairn__root_record__descriptor, arena, ret);
    if (err == ERR_OK && (*ret)->map == NULL) {
        return ERR_CORRUPT;
    }
    return err;
}

static void root_record_put(struct state *state, const Cairn__RootRecord *record)
{
    struct key key = key_root(state->group);
    state_put(state, &key, record);
}

/* ---- keys ---- */

static ProtobufCBinaryData wrap(const uint8_t cluster_key[32], const char *use, const uint8_t secret[32],
                                struct proto_arena *arena)
{
    struct slice sealed = value_seal(cluster_key, use, strlen(use), secret, 32);
    ProtobufCBinaryData copy = {sealed.bytes, proto_arena_take(arena, sealed.bytes)};
    memcpy(copy.data, sealed.data, sealed.bytes);
    slice_drop(&sealed);
    return copy;
}

static void secret_make(const struct bootstrap *bootstrap, const uint8_t cluster_key[32], uint64_t random,
                        const char *use, uint8_t ret[32])
{
    uint8_t info[32 + 8 + 32];
    size_t use_bytes = strlen(use);
    CHECK(use_bytes <= 32);
    memcpy(info, bootstrap->random, 32);
    put_u64(info + 32, random);
    memcpy(info + 40, use, use_bytes);
    hkdf_sha256(cluster_key, 32, info, 40 + use_bytes, ret, 32);
}

static ProtobufCBinaryData secret_wrapped(const struct bootstrap *bootstrap, const uint8_t cluster_key[32],
                                          uint64_t random, const char *use, struct proto_arena *arena,
                                          uint8_t ret_secret[32])
{
    secret_make(bootstrap, cluster_key, random, use, ret_secret);
    return wrap(cluster_key, use, ret_secret, arena);
}

/* "rs-K-M" or "rep-N"; the pool was checked when the bootstrap was read. */
static void pool_parse(const char *name, uint32_t *ret_k, uint32_t *ret_m)
{
    unsigned k = 0;
    unsigned m = 0;
    if (sscanf(name, "rs-%u-%u", &k, &m) != 2) {
        k = 1;
        int fields = sscanf(name, "rep-%u", &m);
        CHECK(fields == 1 && m >= 1);
        m--;
    }
    CHECK(k >= 1 && k + m <= LIMIT_SHARDS);
    *ret_k = k;
    *ret_m = m;
}

static Cairn__ClusterMap *map_make(const struct bootstrap *bootstrap, const uint8_t public_key[32],
                                   struct proto_arena *arena)
{
    Cairn__ClusterMap *map = PROTO_TAKE(Cairn__ClusterMap, arena);
    *map = (Cairn__ClusterMap)CAIRN__CLUSTER_MAP__INIT;
    map->cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)bootstrap->cluster.uuid.bytes};
    map->cluster_incarnation = bootstrap->cluster_incarnation;
    map->epoch = 1;
    map->capability_epoch = 1;
    Cairn__MapPool *pool = PROTO_TAKE(Cairn__MapPool, arena);
    *pool = (Cairn__MapPool)CAIRN__MAP_POOL__INIT;
    pool->pool = POOL_FIRST;
    pool->name = (char *)(uintptr_t)bootstrap->pool;
    pool->pg_bits = bootstrap->pg_bits;
    pool_parse(bootstrap->pool, &pool->k, &pool->m);
    map->n_pools = 1;
    map->pools = proto_arena_take(arena, sizeof *map->pools);
    map->pools[0] = pool;
    Cairn__MapNamespace *ns = PROTO_TAKE(Cairn__MapNamespace, arena);
    *ns = (Cairn__MapNamespace)CAIRN__MAP_NAMESPACE__INIT;
    ns->ns = NAMESPACE_FIRST;
    ns->group = 1;
    ns->realm = REALM_FIRST;
    ns->pool = POOL_FIRST;
    map->n_namespaces = 1;
    map->namespaces = proto_arena_take(arena, sizeof *map->namespaces);
    map->namespaces[0] = ns;
    map->n_groups = 2;
    map->groups = proto_arena_take(arena, map->n_groups * sizeof *map->groups);
    for (uint32_t i = 0; i < map->n_groups; i++) {
        Cairn__MapGroup *group = PROTO_TAKE(Cairn__MapGroup, arena);
        *group = (Cairn__MapGroup)CAIRN__MAP_GROUP__INIT;
        group->group = i;
        group->n_members = bootstrap->member_count;
        group->members = (uint32_t *)(uintptr_t)bootstrap->members;
        map->groups[i] = group;
    }
    Cairn__MapKey *key = PROTO_TAKE(Cairn__MapKey, arena);
    *key = (Cairn__MapKey)CAIRN__MAP_KEY__INIT;
    key->key_id = KEY_ID_FIRST;
    key->public_key = (ProtobufCBinaryData){32, proto_arena_take(arena, 32)};
    memcpy(key->public_key.data, public_key, 32);
    map->n_keys = 1;
    map->keys = proto_arena_take(arena, sizeof *map->keys);
    map->keys[0] = key;
    return map;
}

void root_init_make(const struct bootstrap *bootstrap, const uint8_t cluster_key[32], uint64_t random,
                    struct proto_arena *arena, Cairn__RootRecord *ret_record)
{
    uint8_t secret[32];
    uint8_t public_key[32];
    *ret_record = (Cairn__RootRecord)CAIRN__ROOT_RECORD__INIT;
    Cairn__RealmKeys *realm = PROTO_TAKE(Cairn__RealmKeys, arena);
    *realm = (Cairn__RealmKeys)CAIRN__REALM_KEYS__INIT;
    realm->realm = REALM_FIRST;
    realm->key_sealed = secret_wrapped(bootstrap, cluster_key, random, "realm key", arena, secret);
    realm->secret_sealed = secret_wrapped(bootstrap, cluster_key, random, "realm secret", arena, secret);
    ret_record->n_realms = 1;
    ret_record->realms = proto_arena_take(arena, sizeof *ret_record->realms);
    ret_record->realms[0] = realm;
    ret_record->receipt_master_sealed = secret_wrapped(bootstrap, cluster_key, random, "receipt master", arena, secret);
    ret_record->signing_seed_sealed = secret_wrapped(bootstrap, cluster_key, random, "signing seed", arena, secret);
    ret_record->signing_key_id = KEY_ID_FIRST;
    ret_record->authority_sealed =
        (ProtobufCBinaryData){bootstrap->authority_sealed_bytes, (uint8_t *)(uintptr_t)bootstrap->authority_sealed};
    ret_record->authority =
        (ProtobufCBinaryData){bootstrap->authority_bytes, (uint8_t *)(uintptr_t)bootstrap->authority};
    sign_public_key(secret, public_key);
    ret_record->map = map_make(bootstrap, public_key, arena);
    explicit_bzero(secret, sizeof secret);
}

static enum err unwrap_any(const uint8_t cluster_key[32], const char *use, ProtobufCBinaryData sealed,
                           struct proto_arena *arena, ProtobufCBinaryData *ret)
{
    struct slice plain = {0};
    enum err err = value_unseal(cluster_key, use, strlen(use), sealed.data, sealed.len, &plain);
    if (err == ERR_OK) {
        *ret = (ProtobufCBinaryData){plain.bytes, proto_arena_take(arena, plain.bytes)};
        memcpy(ret->data, plain.data, plain.bytes);
    }
    slice_wipe(&plain);
    return err;
}

static enum err unwrap(const uint8_t cluster_key[32], const char *use, ProtobufCBinaryData sealed,
                       struct proto_arena *arena, ProtobufCBinaryData *ret)
{
    ProtobufCBinaryData secret = {0};
    enum err err = unwrap_any(cluster_key, use, sealed, arena, &secret);
    if (err == ERR_OK && secret.len != 32) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        *ret = secret;
    }
    return err;
}

enum err root_keys_open(const Cairn__RootRecord *record, const uint8_t cluster_key[32], Cairn__RootState *ret_state,
                        struct proto_arena *arena)
{
    if (record->n_realms < 1) {
        return ERR_CORRUPT;
    }
    Cairn__RootState state = CAIRN__ROOT_STATE__INIT;
    state.map = record->map;
    state.realm = record->realms[0]->realm;
    state.signing_key_id = record->signing_key_id;
    enum err err = unwrap(cluster_key, "realm key", record->realms[0]->key_sealed, arena, &state.realm_key);
    if (err == ERR_OK) {
        err = unwrap(cluster_key, "realm secret", record->realms[0]->secret_sealed, arena, &state.realm_secret);
    }
    if (err == ERR_OK) {
        err = unwrap(cluster_key, "receipt master", record->receipt_master_sealed, arena, &state.receipt_master);
    }
    if (err == ERR_OK) {
        err = unwrap(cluster_key, "signing seed", record->signing_seed_sealed, arena, &state.signing_seed);
    }
    if (err == ERR_OK && record->authority_sealed.len > 0) {
        err = unwrap_any(cluster_key, AUTHORITY_USE, record->authority_sealed, arena, &state.authority_key);
        state.authority = record->authority;
    }
    if (err == ERR_OK) {
        *ret_state = state;
    }
    return err;
}

/* ---- commands ---- */

static bool stores_set_state(Cairn__ClusterMap *map, const uint32_t *stores, size_t count, uint32_t store_state)
{
    bool changed = false;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < map->n_stores; j++) {
            if (map->stores[j]->store == stores[i] && map->stores[j]->state != store_state) {
                map->stores[j]->state = store_state;
                changed = true;
            }
        }
    }
    return changed;
}

enum err root_command_apply(struct apply *apply, const Cairn__RootCommand *command)
{
    Cairn__RootRecord *record = NULL;
    enum err err = root_record_get(apply->state, apply->arena, &record);
    if (err == ERR_NOT_FOUND) {
        if (command->init != NULL) {
            root_record_put(apply->state, command->init);
        }
        return ERR_OK;
    }
    if (err != ERR_OK) {
        return err;
    }
    if (command->tick) {
        record->map->tick++;
    }
    bool changed = stores_set_state(record->map, command->down, command->n_down, STORE_DOWN);
    if (command->node != NULL && root_node_register(apply, record->map, command->node, &changed) != ERR_OK) {
        return ERR_OK; /* gone meanwhile; nothing else rides with it */
    }
    changed |= stores_set_state(record->map, command->up, command->n_up, STORE_UP);
    if (changed) {
        record->map->epoch++;
    }
    known_raise(record, command);
    root_record_put(apply->state, record);
    return ERR_OK;
}
