/* What each store said to be durable, and the store that comes back below it (R-B2).
 *
 * A disk put back from an older image, or one that lied about a sync, has the same uuid and the same receipt key as
 * before, and lacks shards that it gave receipts for. Heartbeats carry the number of the store's last durable record;
 * the leader remembers the highest and commits it with each tick. A store that registers with less gets a new
 * incarnation in the map: `complete` then takes none of its older receipts, and its repair begins anew.
 *
 * What is not seen: records between the last committed tick and a change of leader. */
#include <string.h>

#include "base/check.h"
#include "metad/root/root.h"

static Cairn__StoreKnown *known_find(const Cairn__RootRecord *record, uint32_t store)
{
    for (size_t i = 0; i < record->n_known; i++) {
        if (record->known[i]->store == store) {
            return record->known[i];
        }
    }
    return NULL;
}

static Cairn__StoreKnown *known_add(Cairn__RootRecord *record, uint32_t store, struct proto_arena *arena)
{
    Cairn__StoreKnown *known = PROTO_TAKE(Cairn__StoreKnown, arena);
    *known = (Cairn__StoreKnown)CAIRN__STORE_KNOWN__INIT;
    known->store = store;
    Cairn__StoreKnown **grown = proto_arena_take(arena, (record->n_known + 1) * sizeof(Cairn__StoreKnown *));
    if (record->n_known > 0) {
        memcpy(grown, record->known, record->n_known * sizeof(Cairn__StoreKnown *));
    }
    grown[record->n_known++] = known;
    record->known = grown;
    return known;
}

bool known_register(Cairn__RootRecord *record, const Cairn__StoreRegisterRequest *request, uint64_t random,
                    Cairn__MapStore *store, struct proto_arena *arena)
{
    Cairn__StoreKnown *known = known_find(record, store->store);
    uint64_t before = known != NULL ? known->last_record : 0;
    if (known == NULL) {
        known = known_add(record, store->store, arena);
        store->incarnation = request->incarnation;
    } else if (known->directory_incarnation != request->incarnation || request->last_record < known->last_record) {
        uint64_t fresh = (random >> 2) | 1;
        store->incarnation = fresh != store->incarnation ? fresh : fresh + 2;
        known->rollbacks++;
    } else if (request->last_record == before) {
        return false;
    }
    known->incarnation = store->incarnation;
    known->directory_incarnation = request->incarnation;
    known->last_record = request->last_record;
    return true;
}

void known_raise(Cairn__RootRecord *record, const Cairn__RootCommand *command)
{
    for (size_t i = 0; i < command->n_known; i++) {
        const Cairn__StoreKnown *told = command->known[i];
        Cairn__StoreKnown *known = known_find(record, told->store);
        if (known != NULL && known->incarnation == told->incarnation && known->last_record < told->last_record) {
            known->last_record = told->last_record;
        }
    }
}

bool known_heard(struct store_health *health, uint64_t incarnation, uint64_t last_record)
{
    if (health->incarnation != incarnation) {
        health->incarnation = incarnation;
        health->last_record = 0;
        health->rolled_back = false;
    }
    if (last_record < health->last_record) {
        health->rolled_back = true;
        return false;
    }
    health->last_record = last_record;
    health->rolled_back = false;
    return true;
}

bool known_due(const struct root *root, const Cairn__RootRecord *record, bool tick, struct proto_arena *arena,
               Cairn__RootCommand *ret)
{
    bool due = false;
    ret->known = proto_arena_take(arena, (root->count + 1) * sizeof *ret->known);
    for (unsigned long i = 0; i < root->count; i++) {
        const struct store_health *health = &root->stores[i];
        const Cairn__StoreKnown *known = known_find(record, health->store);
        if ((!tick && !health->rolled_back) || known == NULL || known->incarnation != health->incarnation ||
            known->last_record >= health->last_record) {
            continue;
        }
        Cairn__StoreKnown *told = PROTO_TAKE(Cairn__StoreKnown, arena);
        *told = (Cairn__StoreKnown)CAIRN__STORE_KNOWN__INIT;
        told->store = health->store;
        told->incarnation = health->incarnation;
        told->last_record = health->last_record;
        ret->known[ret->n_known++] = told;
        due |= health->rolled_back;
    }
    return due;
}

enum err known_register_prepare(struct root *root, const Cairn__RootRecord *record,
                                const Cairn__StoreRegisterRequest *request)
{
    const Cairn__ClusterMap *map = record->map;
    for (size_t i = 0; i < map->n_stores; i++) {
        const Cairn__MapStore *store = map->stores[i];
        if (store->uuid.len != request->uuid.len ||
            memcmp(store->uuid.data, request->uuid.data, store->uuid.len) != 0) {
            continue;
        }
        for (unsigned long j = 0; j < root->count; j++) {
            struct store_health *health = &root->stores[j];
            const Cairn__StoreKnown *known = known_find(record, store->store);
            if (health->store == store->store && health->incarnation == store->incarnation && known != NULL &&
                request->last_record < health->last_record && known->last_record < health->last_record) {
                health->rolled_back = true; /* root_due commits what is known; then it is asked again */
                return ERR_NOT_READY;
            }
        }
    }
    return ERR_OK;
}
