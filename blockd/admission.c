/* Admission: capabilities, cluster time and seats. A put passes here before a byte of it is kept, a get before a byte
 * is read. Everything in a token or a map came over a wire and is answered, never asserted. A token is verified once
 * (Ed25519) and then known by its SHA-256; a key that left the map takes its tokens with it. */
#include "admission.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"
#include "report.h"

void admission_init(struct admission *admission, struct cluster_id cluster, uint64_t cluster_incarnation)
{
    *admission = (struct admission){.cluster = cluster, .cluster_incarnation = cluster_incarnation};
    admission->tokens = mem_alloc(ADMISSION_SETS * ADMISSION_WAYS * sizeof *admission->tokens);
}

void admission_deinit(struct admission *admission)
{
    proto_arena_deinit(&admission->arena);
    free(admission->tokens);
    *admission = (struct admission){0};
}

uint64_t admission_epoch(const struct admission *admission)
{
    return admission->map ? admission->map->epoch : 0;
}

static bool pool_valid(const Cairn__MapPool *pool)
{
    uint64_t slots = (uint64_t)pool->k + pool->m;
    if (pool->k < 1 || slots > LIMIT_SHARDS || pool->pg_bits > 12 || pool->standin_count > LIMIT_SHARDS) {
        return false;
    }
    uint64_t seats = (1ull << pool->pg_bits) * slots;
    return pool->n_slots == seats && pool->n_standins == seats * pool->standin_count;
}

static bool map_valid(const struct admission *admission, const Cairn__ClusterMap *map)
{
    if (map->cluster.len != 16 || memcmp(map->cluster.data, admission->cluster.uuid.bytes, 16) != 0 ||
        map->cluster_incarnation != admission->cluster_incarnation) {
        return false;
    }
    for (size_t i = 0; i < map->n_pools; i++) {
        if (!pool_valid(map->pools[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < map->n_keys; i++) {
        if (map->keys[i]->public_key.len != 32) {
            return false;
        }
    }
    return true;
}

enum err admission_hear(struct admission *admission, struct slice header, uint64_t now_ns)
{
    struct store_state state;
    enum err err = store_state_decode(header, &state);
    if (err != ERR_OK) {
        return err;
    }
    if (state.map.bytes > 0) {
        struct proto_arena arena = {0};
        Cairn__ClusterMap *map = NULL;
        err = proto_unpack(&cairn__cluster_map__descriptor, state.map, &arena, (void **)&map);
        if (err == ERR_OK && !map_valid(admission, map)) {
            err = ERR_INVALID;
        }
        if (err != ERR_OK || map->epoch < admission_epoch(admission)) {
            proto_arena_deinit(&arena);
        } else {
            proto_arena_deinit(&admission->arena);
            admission->arena = arena;
            admission->map = map;
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    admission->store = state.store;
    admission->incarnation = state.incarnation;
    memcpy(admission->receipt_key, state.receipt_key, sizeof admission->receipt_key);
    if (state.tick >= admission->tick) {
        admission->tick = state.tick;
        admission->tick_heard_ns = now_ns;
    }
    return ERR_OK;
}

uint64_t admission_tick(const struct admission *admission, uint64_t now_ns)
{
    CHECK(now_ns >= admission->tick_heard_ns);
    return admission->tick + (now_ns - admission->tick_heard_ns) / TICK_NS;
}

/* The public key of `key_id` in the map, or NULL. */
static const uint8_t *map_key_find(const struct admission *admission, uint32_t key_id)
{
    for (size_t i = 0; admission->map != NULL && i < admission->map->n_keys; i++) {
        if (admission->map->keys[i]->key_id == key_id) {
            return admission->map->keys[i]->public_key.data;
        }
    }
    return NULL;
}

static struct admission_token *token_set(struct admission *admission, const struct sha256 *digest)
{
    return &admission->tokens[digest->bytes[0] % ADMISSION_SETS * ADMISSION_WAYS];
}

static struct admission_token *token_find(struct admission *admission, const struct sha256 *digest)
{
    struct admission_token *set = token_set(admission, digest);
    for (unsigned way = 0; way < ADMISSION_WAYS; way++) {
        if (set[way].used && memcmp(&set[way].digest, digest, sizeof *digest) == 0) {
            return &set[way];
        }
    }
    return NULL;
}

static struct admission_token *token_evict(struct admission *admission, const struct sha256 *digest)
{
    struct admission_token *set = token_set(admission, digest), *oldest = set;
    for (unsigned way = 0; way < ADMISSION_WAYS; way++) {
        if (!set[way].used) {
            return &set[way];
        }
        if (set[way].last_use < oldest->last_use) {
            oldest = &set[way];
        }
    }
    return oldest;
}

/* The token of these bytes, from the table or verified now under the map's key. */
static enum err token_verify(struct admission *admission, const uint8_t *data, size_t bytes,
                             struct admission_token **ret_token)
{
    struct capability capability;
    enum err err = capability_peek(data, bytes, &capability);
    if (err != ERR_OK) {
        return ERR_BAD_CAPABILITY;
    }
    const uint8_t *public_key = map_key_find(admission, capability.key_id);
    if (public_key == NULL) {
        return ERR_BAD_CAPABILITY;
    }
    struct sha256 digest = sha256(data, bytes);
    struct admission_token *token = token_find(admission, &digest);
    if (token == NULL || memcmp(token->public_key, public_key, 32) != 0) {
        err = capability_verify(data, bytes, public_key, &capability);
        if (err != ERR_OK) {
            return ERR_BAD_CAPABILITY;
        }
        token = token_evict(admission, &digest);
        *token = (struct admission_token){.used = true, .digest = digest, .capability = capability};
        memcpy(token->public_key, public_key, 32);
    }
    token->last_use = ++admission->uses;
    *ret_token = token;
    return ERR_OK;
}

enum err admission_check(struct admission *admission, ProtobufCBinaryData data, const struct principal *peer,
                         enum capability_operations operation, uint64_t now_ns, struct admission_token **ret_token,
                         const char **ret_text)
{
    struct admission_token *token = NULL;
    if (admission->map == NULL || admission->store == 0) {
        *ret_text = "the store is not registered yet";
        return ERR_NOT_READY;
    }
    if (token_verify(admission, data.data, data.len, &token) != ERR_OK) {
        *ret_text = "the capability does not verify under a key of the map";
        return ERR_BAD_CAPABILITY;
    }
    const struct capability *capability = &token->capability;
    if (memcmp(&capability->cluster, &admission->cluster, sizeof admission->cluster) != 0 ||
        capability->cluster_incarnation != admission->cluster_incarnation) {
        *ret_text = "the capability is of another cluster or incarnation";
        return ERR_WRONG_CLUSTER;
    }
    if (memcmp(&capability->bearer, &peer->key, sizeof peer->key) != 0) { /* R-F8 */
        *ret_text = "the capability is another bearer's";
        return ERR_BAD_CAPABILITY;
    }
    if ((capability->operations & (uint32_t)operation) == 0) {
        *ret_text = "the capability does not allow this operation";
        return ERR_BAD_CAPABILITY;
    }
    if (admission_tick(admission, now_ns) > capability->expiry_tick) {
        *ret_text = "the capability has expired";
        return ERR_EXPIRED;
    }
    if (capability->capability_epoch < admission->map->capability_epoch) {
        *ret_text = "the capability was revoked";
        return ERR_EXPIRED;
    }
    static const struct sha256 whole;
    if (memcmp(&capability->id_list, &whole, sizeof whole) != 0) {
        *ret_text = "capabilities over an id list are not served";
        return ERR_UNSUPPORTED;
    }
    *ret_token = token;
    return ERR_OK;
}

enum err admission_charge(struct admission *admission, const struct sha256 *digest, uint64_t bytes)
{
    struct admission_token *token = token_find(admission, digest);
    if (token == NULL) {
        return ERR_OK; /* evicted since it was checked: its count is gone too */
    }
    CHECK(token->spent_bytes <= token->capability.budget_bytes);
    if (bytes > token->capability.budget_bytes - token->spent_bytes) {
        return ERR_BAD_CAPABILITY;
    }
    token->spent_bytes += bytes;
    return ERR_OK;
}

uint32_t map_pg_of(const struct chunk_id *chunk, uint32_t pg_bits)
{
    CHECK(pg_bits <= 32);
    return pg_bits == 0 ? 0 : get_be32(chunk->bytes) >> (32 - pg_bits);
}

static bool pool_seats(const Cairn__MapPool *pool, uint32_t store, const struct chunk_id *chunk, unsigned index)
{
    uint32_t slots = pool->k + pool->m;
    if (index >= slots) {
        return false;
    }
    size_t seat = (size_t)map_pg_of(chunk, pool->pg_bits) * slots + index;
    CHECK(seat < pool->n_slots);
    if (pool->slots[seat] == store) {
        return true;
    }
    for (size_t i = 0; i < pool->standin_count; i++) {
        if (pool->standins[seat * pool->standin_count + i] == store) {
            return true;
        }
    }
    return false;
}

bool admission_seated(const struct admission *admission, uint64_t ns, const struct chunk_id *chunk, unsigned index)
{
    const Cairn__ClusterMap *map = admission->map;
    if (map == NULL || admission->store == 0) {
        return false;
    }
    uint32_t pool = 0; /* 0: the namespace is younger than the map; any pool that seats this store will do */
    for (size_t i = 0; i < map->n_namespaces; i++) {
        if (map->namespaces[i]->ns == ns) {
            pool = map->namespaces[i]->pool;
        }
    }
    for (size_t i = 0; i < map->n_pools; i++) {
        if ((pool == 0 || map->pools[i]->pool == pool) && pool_seats(map->pools[i], admission->store, chunk, index)) {
            return true;
        }
    }
    return false;
}
