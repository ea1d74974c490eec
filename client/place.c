/* Which store takes which shard. The map names an owner and stand-ins for each slot of a placement group (R-B4); this
 * file matches the slots of a chunk with stores that seem alive, no store twice, and remembers which stores failed so
 * that later chunks do not wait for them again. A dead store is tried again by one request after a pause that doubles.
 */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

uint32_t place_pg(const Cairn__MapPool *pool, const struct chunk_id *chunk)
{
    CHECK(pool->pg_bits <= 12);
    return pool->pg_bits == 0 ? 0 : get_be32(chunk->bytes) >> (32 - pool->pg_bits);
}

uint32_t place_candidate(const Cairn__MapPool *pool, uint32_t pg, uint32_t slot, uint32_t i)
{
    size_t row = (size_t)pg * (pool->k + pool->m) + slot;
    CHECK(row < pool->n_slots && i <= pool->standin_count);
    return i == 0 ? pool->slots[row] : pool->standins[row * pool->standin_count + i - 1];
}

bool place_usable(const struct client *c, uint32_t store)
{
    const Cairn__MapStore *row = route_store(c, store);
    if (row == NULL || row->state != 0) {
        return false;
    }
    const struct store_health *health = &c->health[store];
    return health->failures == 0 || (c->now_ns >= health->dead_until_ns && !health->probing);
}

void place_try(struct client *c, uint32_t store)
{
    CHECK(store < c->store_rows_count);
    struct store_health *health = &c->health[store];
    if (health->failures > 0) {
        health->probing = true;
    }
}

void place_heard(struct client *c, uint32_t store)
{
    if (store < c->store_rows_count) {
        c->health[store] = (struct store_health){.heard_ns = c->now_ns};
    }
}

void place_failed(struct client *c, uint32_t store)
{
    if (store >= c->store_rows_count) {
        return;
    }
    struct store_health *health = &c->health[store];
    if (health->failures > 0 && !health->probing) {
        return; /* one of many requests that met the same end */
    }
    uint64_t pause = STORE_DEAD_NS << (health->failures > 4 ? 4 : health->failures);
    health->failures++;
    health->probing = false;
    health->dead_until_ns = c->now_ns + (pause < STORE_DEAD_MAX_NS ? pause : STORE_DEAD_MAX_NS);
}

void place_forgive(struct client *c)
{
    for (unsigned long i = 0; i < c->store_rows_count; i++) {
        c->health[i].dead_until_ns = 0;
        c->health[i].probing = false;
    }
}

void refusals_add(struct refusals *refusals, uint32_t store)
{
    if (refusals->count < REFUSALS) {
        refusals->stores[refusals->count++] = store;
    }
}

static bool refused(const struct refusals *refusals, uint32_t store)
{
    for (uint32_t i = 0; i < refusals->count; i++) {
        if (refusals->stores[i] == store) {
            return true;
        }
    }
    return false;
}

struct matching {
    const struct client *c;
    const Cairn__MapPool *pool;
    uint32_t pg, count;
    const struct refusals *refusals;
    uint32_t *stores;
    bool fixed[LIMIT_SHARDS]; /* given before: not moved */
    uint32_t tried[LIMIT_SHARDS * 8];
    uint32_t tried_count;
};

static bool matching_usable(const struct matching *m, uint32_t store)
{
    return store != 0 && place_usable(m->c, store) && !refused(m->refusals, store);
}

static uint32_t matching_slot_of(const struct matching *m, uint32_t store)
{
    for (uint32_t slot = 0; slot < m->count; slot++) {
        if (m->stores[slot] == store) {
            return slot;
        }
    }
    return m->count;
}

static bool matching_seen(struct matching *m, uint32_t store)
{
    for (uint32_t i = 0; i < m->tried_count; i++) {
        if (m->tried[i] == store) {
            return true;
        }
    }
    if (m->tried_count == sizeof m->tried / sizeof m->tried[0]) {
        return true;
    }
    m->tried[m->tried_count++] = store;
    return false;
}

/* Kuhn's augmenting path: gives `slot` a store, moving others to other candidates of theirs. Depth is bounded by the
 * stores tried. */
static bool matching_augment(struct matching *m, uint32_t slot)
{
    for (uint32_t i = 0; i <= m->pool->standin_count; i++) {
        uint32_t store = place_candidate(m->pool, m->pg, slot, i);
        if (!matching_usable(m, store) || matching_seen(m, store)) {
            continue;
        }
        uint32_t other = matching_slot_of(m, store);
        if (other == m->count || (!m->fixed[other] && matching_augment(m, other))) {
            m->stores[slot] = store;
            return true;
        }
    }
    return false;
}

uint32_t place_assign(const struct client *c, const Cairn__MapPool *pool, uint32_t pg, uint32_t count,
                      const struct refusals *refusals, uint32_t *stores)
{
    CHECK(count <= pool->k + pool->m && count <= LIMIT_SHARDS);
    struct matching m = {.c = c, .pool = pool, .pg = pg, .count = count, .refusals = refusals, .stores = stores};
    uint32_t assigned = 0;
    for (uint32_t slot = 0; slot < count; slot++) {
        m.fixed[slot] = stores[slot] != 0;
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        uint32_t owner = place_candidate(pool, pg, slot, 0);
        if (stores[slot] == 0 && matching_usable(&m, owner) && matching_slot_of(&m, owner) == count) {
            stores[slot] = owner;
        }
    }
    for (uint32_t slot = 0; slot < count; slot++) {
        if (stores[slot] == 0) {
            m.tried_count = 0;
            (void)matching_augment(&m, slot);
        }
        assigned += stores[slot] != 0;
    }
    return assigned;
}
