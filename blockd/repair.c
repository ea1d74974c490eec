/* Repair: a store that returns fills what its slots lack (R-A11). Stands beside the way of a byte: it asks the other
 * stores of each placement group in which this store owns a slot for their lists, merges them by key, and makes a task
 * (repair_task.c) of each chunk and code whose shard for that slot is not here. Pulled, never pushed.
 *
 * A pass is due when the store has registered, when the map is new, half a minute after one that left something
 * missing, and when a read finds a shard rotten. Memory is bounded: a page a source, a chunk a task. Killing it costs
 * the tasks under way: what it has stored is stored, and the next pass starts from what lacks then.
 * How it fails: a source that does not answer is left out until the next pass; what cannot be made from the rest counts
 * as missing; a disk that takes no more ends the pass; sources that contradict each other are refused and counted
 * corrupt. */
#include "repair.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "proto/manifest.h"

struct repair *repair_create(void)
{
    return mem_alloc(sizeof(struct repair));
}

static void scope_end(struct repair *repair)
{
    for (uint32_t i = 0; i < repair->scope.source_count; i++) {
        slice_drop(&repair->scope.sources[i].page);
    }
    repair->scope = (struct repair_scope){0};
}

void repair_destroy(struct repair *repair)
{
    scope_end(repair);
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        repair_task_free(&repair->tasks[i]);
    }
    free(repair);
}

struct store_repair store_repair_state(const struct store *store)
{
    return store->repair->done;
}

/* ---- when ---- */

static void pass_due(struct repair *repair, uint64_t at_ns)
{
    if (repair->due_ns == 0 || at_ns < repair->due_ns) {
        repair->due_ns = at_ns;
        repair->woken = true;
    }
}

void repair_hear(struct store *store, uint64_t now_ns)
{
    struct repair *repair = store->repair;
    const struct admission *admission = &store->admission;
    if (admission->store == 0 || admission->map == NULL ||
        (repair->map_epoch == admission_epoch(admission) && repair->store == admission->store &&
         repair->incarnation == admission->incarnation)) {
        return;
    }
    repair->map_epoch = admission_epoch(admission);
    repair->store = admission->store;
    repair->incarnation = admission->incarnation;
    repair->whole_due = true;
    pass_due(repair, now_ns + REPAIR_DELAY_NS);
}

void repair_note_rot(struct store *store, const struct shard_key *key)
{
    struct repair *repair = store->repair;
    if (repair->rot_count < REPAIR_ROT_MAX) {
        repair->rot[repair->rot_count++] = *key;
    } else {
        repair->whole_due = true;
    }
    pass_due(repair, 1);
}

/* ---- scopes ---- */

static const Cairn__MapStore *map_store_find(const Cairn__ClusterMap *map, uint32_t store)
{
    for (size_t i = 0; i < map->n_stores; i++) {
        if (map->stores[i]->store == store) {
            return map->stores[i];
        }
    }
    return NULL;
}

/* Adds a store of the group that is up and not this one, once. */
static void scope_add_source(const struct store *store, struct repair_scope *scope, uint32_t number)
{
    const Cairn__ClusterMap *map = store->admission.map;
    const Cairn__MapStore *self = map_store_find(map, store->admission.store);
    const Cairn__MapStore *other = number == 0 ? NULL : map_store_find(map, number);
    if (self == NULL || other == NULL || other == self || other->state != 0 ||
        scope->source_count == REPAIR_SOURCES_MAX) {
        return;
    }
    struct address address = other->node == self->node
                                 ? address_local(ACTOR_STORE, other->position)
                                 : address_node(ROLE_BLOCKD, other->node, ACTOR_STORE, other->position);
    for (uint32_t i = 0; i < scope->source_count; i++) {
        if (memcmp(&scope->sources[i].address, &address, sizeof address) == 0) {
            return;
        }
    }
    scope->sources[scope->source_count++].address = address;
}

/* Makes the scope of one group of a pool, for the slot this store has there; false when it has none. */
static bool scope_begin(struct store *store, const Cairn__MapPool *pool, uint32_t pg, const struct shard_key *only)
{
    struct repair_scope *scope = &store->repair->scope;
    CHECK(!scope->active && repair_task_count(store->repair) == 0);
    uint32_t slots = pool->k + pool->m;
    const uint32_t *owners = pool->slots + (size_t)pg * slots;
    unsigned slot = 0;
    while (slot < slots && owners[slot] != store->admission.store) {
        slot++;
    }
    if (only != NULL) {
        slot = only->index;
    }
    if (slot >= slots) {
        return false;
    }
    *scope = (struct repair_scope){.active = true,
                                   .only = only != NULL,
                                   .k = pool->k,
                                   .m = pool->m,
                                   .bits = pool->pg_bits,
                                   .pg = pg,
                                   .slot = slot};
    if (only != NULL) {
        scope->key = *only;
    }
    for (uint32_t i = 0; i < slots; i++) {
        scope_add_source(store, scope, owners[i]);
    }
    for (size_t i = 0; i < (size_t)slots * pool->standin_count; i++) {
        scope_add_source(store, scope, pool->standins[(size_t)pg * slots * pool->standin_count + i]);
    }
    return true;
}

/* The pool whose codes the shard is of, and which seats this store for it. */
static bool scope_begin_rotten(struct store *store, const struct shard_key *key)
{
    const Cairn__ClusterMap *map = store->admission.map;
    for (size_t i = 0; i < map->n_pools; i++) {
        const Cairn__MapPool *pool = map->pools[i];
        bool code = (key->k == pool->k || key->k == 1) && key->m == pool->m;
        if (code && scope_begin(store, pool, map_pg_of(&key->chunk, pool->pg_bits), key)) {
            return true;
        }
    }
    return false;
}

/* Goes to the next scope; false when the pass is through. */
static bool scope_next(struct store *store)
{
    struct repair *repair = store->repair;
    const Cairn__ClusterMap *map = store->admission.map;
    while (repair->rot_count > 0) {
        struct shard_key key = repair->rot[--repair->rot_count];
        if (scope_begin_rotten(store, &key)) {
            return true;
        }
    }
    while (repair->whole && repair->pool < map->n_pools) {
        const Cairn__MapPool *pool = map->pools[repair->pool];
        if (repair->pg >= 1u << pool->pg_bits) {
            repair->pool++;
            repair->pg = 0;
        } else if (scope_begin(store, pool, repair->pg++, NULL)) {
            return true;
        }
    }
    return false;
}

/* ---- lists ---- */

static void source_fail(struct store *store, uint32_t at)
{
    struct repair_source *source = &store->repair->scope.sources[at];
    if (!source->failed) {
        source->failed = source->ended = true;
        source->stream = 0;
        slice_drop(&source->page);
        source->at = 0;
        store->repair->missing++; /* what it alone has is not known */
        repair_task_source_failed(store->repair, at);
    }
    store->repair->woken = true;
}

static void source_ask(struct store *store, struct repair_source *source, uint64_t now_ns, struct effects *fx)
{
    struct repair *repair = store->repair;
    const struct repair_scope *scope = &repair->scope;
    Cairn__StoreListRequest request = CAIRN__STORE_LIST_REQUEST__INIT;
    static const uint8_t start[SHARD_KEY_BYTES];
    uint8_t key[SHARD_KEY_BYTES];
    request.pg = scope->pg;
    request.pg_bits = scope->bits;
    request.limit = REPAIR_PAGE_ROWS;
    if (scope->only) {
        shard_key_encode(&scope->key, key);
        memset(key + INDEX_CODE_BYTES - 2, 0, SHARD_KEY_BYTES - INDEX_CODE_BYTES + 2); /* before the chunk's codes */
        request.realm = scope->key.realm;
        request.after = (ProtobufCBinaryData){sizeof key, key};
        request.limit = 4 * LIMIT_SHARDS;
    } else if (memcmp(source->next, start, sizeof start) != 0) {
        request.after = (ProtobufCBinaryData){sizeof source->next, source->next};
    }
    source->stream = ++repair->streams;
    source->deadline_ns = now_ns + REPAIR_REQUEST_NS;
    fx_send(fx, source->address, MESSAGE_STORE_LIST, source->stream, proto_pack(&request), (struct slice){0});
}

static void source_take(struct store *store, uint32_t at, const struct message *message)
{
    struct repair_source *source = &store->repair->scope.sources[at];
    struct proto_arena arena = {0};
    Cairn__StoreListReply *reply = NULL;
    source->stream = 0;
    enum err err = (message->flags & MESSAGE_ERROR) != 0 ? ERR_IO : ERR_OK;
    if (err == ERR_OK) {
        err = proto_unpack(&cairn__store_list_reply__descriptor, message->header, &arena, (void **)&reply);
    }
    if (err == ERR_OK &&
        (message->body.bytes % STORE_LIST_BYTES != 0 || (reply->next.len != 0 && reply->next.len != SHARD_KEY_BYTES) ||
         (reply->next.len != 0 && memcmp(reply->next.data, source->next, SHARD_KEY_BYTES) <= 0))) {
        err = ERR_BAD_PROTO;
    }
    if (err != ERR_OK) {
        source_fail(store, at);
    } else {
        source->page = slice_ref(message->body);
        source->at = 0;
        source->ended = reply->next.len == 0 || store->repair->scope.only;
        if (!source->ended) {
            memcpy(source->next, reply->next.data, SHARD_KEY_BYTES);
        }
    }
    proto_arena_deinit(&arena);
}

/* The next row of a source, or NULL. */
static const uint8_t *source_row(const struct repair_source *source)
{
    return source->at < source->page.bytes ? source->page.data + source->at : NULL;
}

/* Asks for the pages that are due; true when none is under way. */
static bool scope_fill(struct store *store, uint64_t now_ns, struct effects *fx)
{
    bool full = true;
    for (uint32_t i = 0; i < store->repair->scope.source_count; i++) {
        struct repair_source *source = &store->repair->scope.sources[i];
        if (source_row(source) == NULL && !source->ended && source->stream == 0) {
            slice_drop(&source->page);
            source->at = 0;
            source_ask(store, source, now_ns, fx);
        }
        full = full && source->stream == 0;
    }
    return full;
}

/* Takes the rows of the least chunk and code off the pages: where each index is. False when there is none. */
static bool scope_merge(struct repair_scope *scope, struct shard_key *ret_key, uint32_t ret_from[LIMIT_SHARDS])
{
    const uint8_t *least = NULL;
    for (uint32_t i = 0; i < scope->source_count; i++) {
        const uint8_t *row = source_row(&scope->sources[i]);
        if (row != NULL && (least == NULL || memcmp(row, least, INDEX_CODE_BYTES) < 0)) {
            least = row;
        }
    }
    if (least == NULL) {
        return false;
    }
    shard_key_decode(least, ret_key);
    memset(ret_from, 0, LIMIT_SHARDS * sizeof *ret_from);
    for (uint32_t i = 0; i < scope->source_count; i++) {
        struct repair_source *source = &scope->sources[i];
        const uint8_t *row = source_row(source);
        if (row != NULL && memcmp(row, least, INDEX_CODE_BYTES) == 0) {
            if (row[SHARD_KEY_BYTES - 1] < LIMIT_SHARDS) {
                ret_from[row[SHARD_KEY_BYTES - 1]] |= 1u << i;
            }
            source->at += STORE_LIST_BYTES;
        }
    }
    return true;
}

/* ---- what lacks ---- */

/* OK: the shard lacks here and no other of its code is here. NOT_FOUND: nothing is to be done. */
static enum err shard_lacks(struct store *store, const struct shard_key *key)
{
    struct index_entry entry = {0};
    enum err err = index_get(store->kv, key, &entry);
    index_entry_deinit(&entry);
    if (err == ERR_OK) {
        return serve_is_rotten(store, key) ? ERR_OK : ERR_NOT_FOUND;
    }
    if (err != ERR_NOT_FOUND) {
        return err;
    }
    uint8_t packed[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_SHARD, key, packed);
    struct slice other = {0}, value = {0};
    err = kv_next(store->kv, packed, 1 + INDEX_CODE_BYTES, false, &other, &value);
    bool here = err == ERR_OK && other.bytes == sizeof packed && memcmp(other.data, packed, 1 + INDEX_CODE_BYTES) == 0;
    slice_drop(&other);
    slice_drop(&value);
    if (err == ERR_OK || err == ERR_NOT_FOUND) {
        return here ? ERR_NOT_FOUND : ERR_OK; /* never two shards of one chunk (R-B4) */
    }
    return err;
}

/* Looks at one chunk in one code: makes a task of it when this store's shard lacks. */
static void scope_consider(struct store *store, struct shard_key key, const uint32_t from[LIMIT_SHARDS])
{
    struct repair *repair = store->repair;
    const struct repair_scope *scope = &repair->scope;
    bool code = (key.k == scope->k || key.k == 1) && key.m == scope->m && code_valid(key.k, key.m);
    key.index = (uint8_t)scope->slot;
    if (!code || scope->slot >= (unsigned)key.k + key.m || commit_in_flight(store, &key)) {
        return;
    }
    if (scope->only) {
        uint8_t mine[SHARD_KEY_BYTES], theirs[SHARD_KEY_BYTES];
        shard_key_encode(&scope->key, mine);
        shard_key_encode(&key, theirs);
        if (memcmp(mine, theirs, sizeof mine) != 0) {
            return;
        }
    }
    enum err err = shard_lacks(store, &key);
    if (err == ERR_NOT_FOUND) {
        return;
    }
    unsigned indexes = 0;
    for (unsigned i = 0; i < (unsigned)key.k + key.m; i++) {
        indexes += from[i] != 0 && i != scope->slot;
    }
    if (err != ERR_OK || (from[scope->slot] == 0 && indexes < key.k)) {
        repair->missing++;
        return;
    }
    repair_task_start(store, &key, from);
}

/* ---- running ---- */

static void pass_end(struct store *store, uint64_t now_ns)
{
    struct repair *repair = store->repair;
    repair->running = false;
    repair->done.passes++;
    repair->done.missing = repair->missing;
    if (repair->missing > 0) {
        repair->whole_due = true;
        pass_due(repair, now_ns + REPAIR_RETRY_NS);
    }
}

static void pass_begin(struct store *store)
{
    struct repair *repair = store->repair;
    CHECK(!repair->scope.active);
    repair->running = true;
    repair->due_ns = 0;
    repair->whole = repair->whole_due;
    repair->whole_due = false;
    repair->pool = 0;
    repair->pg = 0;
    repair->missing = 0;
    repair->stopped = false;
}

/* Goes on as far as it can without waiting. */
static void pass_step(struct store *store, uint64_t now_ns, struct effects *fx)
{
    struct repair *repair = store->repair;
    for (unsigned groups = 0; repair->running; groups++) {
        if (groups == REPAIR_GROUPS_MAX) {
            repair->woken = true;
            return;
        }
        if (repair->stopped) {
            if (repair_task_count(repair) == 0) {
                scope_end(repair);
                pass_end(store, now_ns);
            }
            return;
        }
        if (!repair->scope.active && !scope_next(store)) {
            pass_end(store, now_ns);
            return;
        }
        if (!scope_fill(store, now_ns, fx) || repair_task_count(repair) == REPAIR_TASKS_MAX) {
            return;
        }
        struct shard_key key;
        uint32_t from[LIMIT_SHARDS];
        if (scope_merge(&repair->scope, &key, from)) {
            scope_consider(store, key, from);
        } else if (repair_task_count(repair) == 0) {
            scope_end(repair);
        } else {
            return;
        }
    }
}

static void requests_expire(struct store *store, uint64_t now_ns)
{
    struct repair *repair = store->repair;
    for (uint32_t i = 0; i < repair->scope.source_count; i++) {
        const struct repair_source *source = &repair->scope.sources[i];
        if (source->stream != 0 && source->deadline_ns <= now_ns) {
            source_fail(store, i);
        }
    }
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        for (unsigned j = 0; repair->tasks[i].state == TASK_PULLING && j < LIMIT_SHARDS; j++) {
            const struct repair_pull *pull = &repair->tasks[i].pulls[j];
            if (pull->stream != 0 && pull->deadline_ns <= now_ns) {
                source_fail(store, pull->source);
            }
        }
    }
}

/* The earliest time at which something must be looked at; 0: none. */
static uint64_t repair_deadline(const struct repair *repair)
{
    uint64_t least = repair->running || repair->due_ns == 0 ? UINT64_MAX : repair->due_ns;
    for (uint32_t i = 0; i < repair->scope.source_count; i++) {
        const struct repair_source *source = &repair->scope.sources[i];
        if (source->stream != 0 && source->deadline_ns < least) {
            least = source->deadline_ns;
        }
    }
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        for (unsigned j = 0; repair->tasks[i].state == TASK_PULLING && j < LIMIT_SHARDS; j++) {
            const struct repair_pull *pull = &repair->tasks[i].pulls[j];
            if (pull->stream != 0 && pull->deadline_ns < least) {
                least = pull->deadline_ns;
            }
        }
    }
    return least == UINT64_MAX ? 0 : least;
}

void repair_timer(struct store *store, const struct event *event, struct effects *fx)
{
    struct repair *repair = store->repair;
    if (!store->open) {
        return; /* store_opened wakes it */
    }
    requests_expire(store, event->now_ns);
    if (!repair->running && repair->due_ns != 0 && repair->due_ns <= event->now_ns && store->admission.map != NULL) {
        pass_begin(store);
    }
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        repair_task_step(store, &repair->tasks[i], event->now_ns, fx);
    }
    pass_step(store, event->now_ns, fx);
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        repair_task_step(store, &repair->tasks[i], event->now_ns, fx);
    }
    uint64_t deadline = repair_deadline(repair);
    if (!repair->woken && deadline != 0) {
        fx_timer(fx, STORE_TIMER_REPAIR, deadline);
    }
}

void repair_settle(struct store *store, uint64_t now_ns, struct effects *fx)
{
    struct repair *repair = store->repair;
    if (repair->owed) {
        repair->owed = false;
        repair->whole_due = true;
        repair->woken = true;
        pass_due(repair, now_ns + REPAIR_RETRY_NS);
    }
    if (repair->woken && store->open) {
        repair->woken = false;
        bool busy = repair->running || repair->due_ns == 0 || repair->due_ns <= now_ns;
        fx_timer(fx, STORE_TIMER_REPAIR, busy ? now_ns : repair->due_ns);
    }
}

/* ---- events ---- */

void repair_answered(struct store *store, const struct event *event)
{
    const struct message *message = &event->message;
    struct repair_scope *scope = &store->repair->scope;
    store->repair->woken = true;
    if (message->type == MESSAGE_SHARD_PULL && repair_task_answered(store, message)) {
        return;
    }
    for (uint32_t i = 0; message->type == MESSAGE_STORE_LIST && i < scope->source_count; i++) {
        if (scope->sources[i].stream != 0 && scope->sources[i].stream == message->stream) {
            source_take(store, i, message);
            return;
        }
    }
}

void repair_closed(struct store *store, const struct event *event)
{
    const struct address *peer = &event->peer.peer;
    struct repair_scope *scope = &store->repair->scope;
    for (uint32_t i = 0; peer->role == ROLE_BLOCKD && i < scope->source_count; i++) {
        const struct address *address = &scope->sources[i].address;
        if (address->role == ROLE_BLOCKD && address->node == peer->node) {
            source_fail(store, i);
        }
    }
}
