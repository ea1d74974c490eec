/* Placement: which store owns which slot of which placement group, and who stands in (R-B4). A table, computed when
 * enough stores have registered, by weight-free rendezvous hashing: for each placement group the stores are ordered by
 * a hash of (group, store); the slots are filled in that order, never two slots of a group on one host while other
 * hosts have none. A slot's stand-ins are the free stores in that order, then the owners of the other slots from the
 * next one on: an owner takes a stranded copy only where it holds no shard of that chunk, which the store itself
 * refuses. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/root/root.h"

#define PLACEMENT_STANDINS 8u

struct candidate {
    uint64_t rank;
    const Cairn__MapStore *store;
    const char *host;
    bool seated;
};

static const char *store_host(const Cairn__ClusterMap *map, const Cairn__MapStore *store)
{
    for (size_t i = 0; i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_BLOCKD && map->nodes[i]->id == store->node) {
            return map->nodes[i]->host;
        }
    }
    return "";
}

static uint64_t placement_rank(uint32_t pool, uint32_t pg, uint32_t store)
{
    uint8_t packed[12];
    put_u32(packed, pool);
    put_u32(packed + 4, pg);
    put_u32(packed + 8, store);
    struct sha256 digest = sha256(packed, sizeof packed);
    return get_u64(digest.bytes);
}

static void candidates_order(const Cairn__ClusterMap *map, uint32_t pool, uint32_t pg, struct candidate *order)
{
    for (size_t i = 0; i < map->n_stores; i++) {
        struct candidate candidate = {.rank = placement_rank(pool, pg, map->stores[i]->store), .store = map->stores[i]};
        candidate.host = store_host(map, candidate.store);
        size_t at = i;
        for (; at > 0 && order[at - 1].rank > candidate.rank; at--) {
            order[at] = order[at - 1];
        }
        order[at] = candidate;
    }
}

static bool host_seated(const struct candidate *order, size_t count, const char *host)
{
    for (size_t i = 0; i < count; i++) {
        if (order[i].seated && strcmp(order[i].host, host) == 0) {
            return true;
        }
    }
    return false;
}

/* Fills the slots of one group: first one store a host, then whatever is left. */
static void slots_fill(struct candidate *order, size_t count, uint32_t *slots, uint32_t width)
{
    uint32_t filled = 0;
    for (int spread = 1; spread >= 0; spread--) {
        for (size_t i = 0; i < count && filled < width; i++) {
            if (!order[i].seated && (!spread || !host_seated(order, count, order[i].host))) {
                order[i].seated = true;
                slots[filled++] = order[i].store->store;
            }
        }
    }
}

static void standins_fill(const struct candidate *order, size_t count, const uint32_t *slots, uint32_t width,
                          uint32_t slot, uint32_t *standins)
{
    uint32_t filled = 0;
    for (size_t i = 0; i < count && filled < PLACEMENT_STANDINS; i++) {
        if (!order[i].seated) {
            standins[filled++] = order[i].store->store;
        }
    }
    for (uint32_t i = 1; i < width && filled < PLACEMENT_STANDINS; i++) {
        uint32_t owner = slots[(slot + width - i) % width];
        if (owner != 0) {
            standins[filled++] = owner;
        }
    }
}

static void pool_place(const Cairn__ClusterMap *map, Cairn__MapPool *pool, struct proto_arena *arena)
{
    uint32_t width = pool->k + pool->m;
    size_t pgs = (size_t)1 << pool->pg_bits;
    pool->standin_count = PLACEMENT_STANDINS;
    pool->n_slots = pgs * width;
    pool->slots = proto_arena_take(arena, pool->n_slots * sizeof *pool->slots);
    pool->n_standins = pgs * width * PLACEMENT_STANDINS;
    pool->standins = proto_arena_take(arena, pool->n_standins * sizeof *pool->standins);
    for (uint32_t pg = 0; pg < pgs; pg++) {
        struct candidate *order = proto_arena_take(arena, map->n_stores * sizeof *order);
        uint32_t *slots = pool->slots + (size_t)pg * width;
        candidates_order(map, pool->pool, pg, order);
        slots_fill(order, map->n_stores, slots, width);
        for (uint32_t slot = 0; slot < width; slot++) {
            uint32_t *standins = pool->standins + ((size_t)pg * width + slot) * PLACEMENT_STANDINS;
            standins_fill(order, map->n_stores, slots, width, slot, standins);
        }
    }
}

bool placement_compute(Cairn__ClusterMap *map, uint32_t stores_needed, struct proto_arena *arena)
{
    if (map->n_stores < stores_needed || map->n_stores == 0) {
        return false;
    }
    CHECK(map->n_stores <= LIMIT_STORES);
    bool changed = false;
    for (size_t i = 0; i < map->n_pools; i++) {
        Cairn__MapPool *pool = map->pools[i];
        CHECK(pool->k >= 1 && pool->k + pool->m <= LIMIT_SHARDS && (1u << pool->pg_bits) <= LIMIT_PGS);
        if (pool->n_slots == 0) {
            pool_place(map, pool, arena);
            changed = true;
        }
    }
    return changed;
}
