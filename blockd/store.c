/* The store actor: one directory, one disk, one index, one thread. This file dispatches events, keeps what the agent
 * tells, reports to it each second, and answers errors; the work is in put.c, commit.c, serve.c and recover.c.
 *
 * Happy path of a shard: SHARD_PUT -> checks -> record in an open segment -> sync -> index -> receipt. SHARD_GET ->
 * index
 * -> DISK_READ -> checksums -> body. It fails by code: nothing that comes from a disk or a wire stops the process, but
 * an index that cannot be trusted or a disk that fails during recovery does (HALT). */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct store *store_create(const struct store_params *params)
{
    CHECK(params->segment_bytes >= 2 * RECORD_HEADER_BYTES && params->segment_bytes % 4096 == 0);
    CHECK(params->kv != NULL && params->capacity_bytes >= params->segment_bytes);
    struct store *store = mem_alloc(sizeof *store);
    store->position = params->position;
    store->identity = (struct directory_identity){params->uuid, params->incarnation};
    store->capacity_bytes = params->capacity_bytes;
    store->segment_bytes = params->segment_bytes;
    store->kv = params->kv;
    store->recovery = recover_create(params);
    store->repair = repair_create();
    admission_init(&store->admission, params->cluster, params->cluster_incarnation);
    return store;
}

void store_destroy(struct store *store)
{
    commit_deinit(store);
    serve_deinit(store);
    recover_destroy(store->recovery);
    repair_destroy(store->repair);
    admission_deinit(&store->admission);
    free(store->lost);
    free(store);
}

uint64_t store_used_bytes(const struct store *store)
{
    return store->segment == 0 ? 0 : (store->segment - 1ull) * store->segment_bytes + store->offset;
}

uint64_t store_mark(const struct store *store)
{
    if (store->lost_count > 0 && store->lost[0].first <= store->durable_sequence) {
        return store->lost[0].first - 1;
    }
    return store->durable_sequence;
}

void store_lost_add(struct store *store, uint64_t first, uint64_t last)
{
    CHECK(first <= last);
    if (store->lost_count > 0) {
        struct sequence_range *before = &store->lost[store->lost_count - 1];
        CHECK(before->last < first);
        if (before->last + 1 == first && store->lost_count > store->lost_in_flight) {
            before->last = last;
            return;
        }
    }
    store->lost = mem_grow(store->lost, &store->lost_capacity, store->lost_count + 1ul, sizeof *store->lost);
    store->lost[store->lost_count++] = (struct sequence_range){first, last};
}

const uint64_t *store_refused(const struct store *store)
{
    return store->refused;
}

void store_answer_error(struct store *store, const struct requester *to, enum err err, const char *text,
                        struct effects *fx)
{
    CHECK(err != ERR_OK && err < ERR_LIMIT);
    store->counters.refused++;
    store->refused[err]++;
    fx_answer(fx, to->from, to->type, to->stream, MESSAGE_REPLY | MESSAGE_ERROR,
              error_reply_encode(err, text ? text : err_text(err), 0), (struct slice){0});
}

static void store_report(struct store *store, struct effects *fx)
{
    struct store_report report = {
        .position = store->position,
        .ready = store->open,
        .uuid = store->identity.uuid,
        .incarnation = store->identity.incarnation,
        .last_record = store->durable_sequence,
        .used_bytes = store_used_bytes(store),
        .capacity_bytes = store->capacity_bytes,
        .map_epoch = admission_epoch(&store->admission),
        .counters = store->counters,
    };
    fx_send(fx, address_local(ACTOR_AGENT, 0), MESSAGE_STORE_REPORT, 0, store_report_encode(&report),
            (struct slice){0});
}

void store_opened(struct store *store, uint64_t now_ns, struct effects *fx)
{
    CHECK(!store->open && store->salt != 0);
    store->open = true;
    store->last_flush_ns = now_ns;
    commit_alloc(store, fx);
    commit_lost(store, fx);
    store_report(store, fx);
    fx_timer(fx, STORE_TIMER_TICK, now_ns + STORE_TICK_NS);
}

static void store_tick(struct store *store, uint64_t now_ns, struct effects *fx)
{
    if (!store->ahead_ready && store->alloc_err != ERR_OK && now_ns >= store->alloc_retry_ns) {
        commit_alloc(store, fx);
    }
    bool idle = store->closed == NULL && store->accepting == NULL;
    if (idle && now_ns - store->last_flush_ns >= STORE_IDLE_FLUSH_NS) {
        commit_flush_index(store, now_ns, fx);
    }
    store_report(store, fx);
    fx_timer(fx, STORE_TIMER_TICK, now_ns + STORE_TICK_NS);
}

static void store_timer(struct store *store, const struct event *event, struct effects *fx)
{
    switch ((enum store_timer)event->timer.id) {
    case STORE_TIMER_BOOT:
        recover_start(store, event, fx);
        break;
    case STORE_TIMER_RECOVER:
        recover_step(store, event, fx);
        break;
    case STORE_TIMER_TICK:
        store_tick(store, event->now_ns, fx);
        break;
    case STORE_TIMER_WAKE:
        put_wake(store, fx);
        break;
    case STORE_TIMER_REPAIR:
        repair_timer(store, event, fx);
        break;
    }
}

static void store_message(struct store *store, const struct event *event, struct effects *fx)
{
    const struct message *message = &event->message;
    struct requester requester = requester_of(message);
    if ((message->flags & MESSAGE_REPLY) != 0) {
        repair_answered(store, event);
        return;
    }
    if (message->type == MESSAGE_STORE_STATE && message->peer.role == ROLE_LOCAL) {
        enum err err = admission_hear(&store->admission, message->header, event->now_ns);
        if (err != ERR_OK) {
            store->counters.refused++;
        }
        repair_hear(store, event->now_ns);
        return;
    }
    if (!store->open) {
        store_answer_error(store, &requester, ERR_NOT_READY, NULL, fx);
        return;
    }
    switch (message->type) {
    case MESSAGE_SHARD_PUT:
        put_receive(store, event, fx);
        break;
    case MESSAGE_SHARD_GET:
        serve_get(store, event, fx);
        break;
    case MESSAGE_INVENTORY:
        serve_inventory(store, event, fx);
        break;
    case MESSAGE_STORE_LIST:
        list_receive(store, event, fx);
        break;
    case MESSAGE_SHARD_PULL:
        serve_pull(store, event, fx);
        break;
    default:
        store_answer_error(store, &requester, ERR_UNKNOWN_TYPE, NULL, fx);
    }
}

static void store_disk_done(struct store *store, const struct event *event, struct effects *fx)
{
    switch (store_token_kind(event->disk.token)) {
    case TOKEN_WRITE:
        commit_written(store, event, fx);
        break;
    case TOKEN_SYNC:
        commit_synced(store, event, fx);
        break;
    case TOKEN_ALLOC:
        commit_allocated(store, event, fx);
        break;
    case TOKEN_READ:
        serve_read_done(store, event, fx);
        break;
    case TOKEN_RECOVER:
        recover_step(store, event, fx);
        break;
    case TOKEN_FLUSH:
        break;
    }
}

void store_step(void *actor, const struct event *event, struct effects *fx)
{
    struct store *store = actor;
    switch (event->kind) {
    case EVENT_MESSAGE:
        store_message(store, event, fx);
        break;
    case EVENT_TIMER:
        store_timer(store, event, fx);
        break;
    case EVENT_DISK_DONE:
        store_disk_done(store, event, fx);
        break;
    case EVENT_KV_DONE:
        CHECK(store->flushing);
        store->flushing = false;
        if (event->kv.err != ERR_OK) {
            fx_halt(fx, event->kv.err, "store %u: the index cannot be flushed", store->position);
        }
        break;
    case EVENT_CLOSED:
        repair_closed(store, event);
        break;
    case EVENT_COMPUTE_DONE:
        repair_computed(store, event);
        break;
    case EVENT_ROOM:
        break;
    }
    repair_settle(store, event->now_ns, fx);
}
