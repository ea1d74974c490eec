/* Group commit: from a decided put to its receipt. The header block and small bodies are copied into the commit buffer,
 * large bodies go to the disk from the very slice they were received in. Puts that arrive while a batch is closed are
 * written as they come and share the next sync: the sync is submitted when every write of its batch completed at full
 * length, and only when it is done the index is committed and the receipts go out (R-A4).
 *
 * A failed write or sync closes its segment for good; it is never retried. Everybody waiting is answered IO, the
 * sequences are remembered as lost and written down in a LOST record in the next segment before anything else, so that
 * a later scan neither calls them rot nor finds what was never acknowledged. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "store.h"

/* ---- room ---- */

void commit_alloc(struct store *store, struct effects *fx)
{
    uint64_t segments = store->segment + 1ull;
    if (store->ahead_ready || store->ahead_pending) {
        return;
    }
    if (segments > 1 && segments * store->segment_bytes > store->capacity_bytes) {
        store->alloc_err = ERR_DISK_FULL;
        return;
    }
    store->ahead_pending = true;
    fx_disk_alloc(fx, store_token_make(TOKEN_ALLOC, segments), segment_file(store->segment + 1), store->segment_bytes);
}

void commit_allocated(struct store *store, const struct event *event, struct effects *fx)
{
    CHECK(store->ahead_pending && store_token_number(event->disk.token) == store->segment + 1ull);
    store->ahead_pending = false;
    store->ahead_ready = event->disk.err == ERR_OK;
    store->alloc_err = event->disk.err;
    store->alloc_retry_ns = event->now_ns + STORE_TICK_NS;
    if (store->ahead_ready) {
        commit_lost(store, fx);
    }
    if (store->held_first != NULL) {
        fx_timer(fx, STORE_TIMER_WAKE, event->now_ns);
    }
}

/* What the LOST records that are due will take. */
static uint64_t lost_record_bytes(const struct store *store)
{
    uint64_t due = store->lost_count > store->lost_in_flight ? store->lost_count : 0;
    return (due + RECORD_LOST_MAX - 1) / RECORD_LOST_MAX * RECORD_HEADER_BYTES;
}

enum err commit_room(struct store *store, uint64_t bytes, struct effects *fx)
{
    if (bytes + lost_record_bytes(store) > store->segment_bytes) {
        return ERR_TOO_LARGE;
    }
    uint64_t limit = store->capacity_bytes / 100 * (100 - STORE_RESERVE_PERCENT);
    if (bytes > RECORD_HEADER_BYTES && (store_used_bytes(store) + bytes > limit || !kv_room(store->kv))) {
        return ERR_DISK_FULL;
    }
    uint64_t needed = bytes + lost_record_bytes(store);
    if (!store->segment_closed && store->offset + needed <= store->segment_bytes) {
        return ERR_OK;
    }
    if (store->ahead_ready) {
        store->segment++;
        store->offset = 0;
        store->segment_closed = false;
        store->ahead_ready = false;
        commit_alloc(store, fx);
        return ERR_OK;
    }
    if (store->alloc_err != ERR_OK) {
        return store->alloc_err;
    }
    return ERR_WOULD_BLOCK;
}

/* ---- puts in flight, by chunk and code ---- */

static struct put **inflight_head(const struct store *store, const struct shard_key *key)
{
    uint32_t hash = get_u32(key->chunk.bytes + 8) ^ key->writer ^ get_u32(key->encoding.bytes);
    return (struct put **)&store->inflight[hash % STORE_INFLIGHT_HEADS];
}

bool commit_in_flight(const struct store *store, const struct shard_key *key)
{
    uint8_t mine[SHARD_KEY_BYTES], other[SHARD_KEY_BYTES];
    shard_key_encode(key, mine);
    for (struct put *put = *inflight_head(store, key); put != NULL; put = put->chain) {
        shard_key_encode(&put->key, other);
        if (memcmp(mine, other, INDEX_CODE_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static void inflight_remove(struct store *store, const struct put *put)
{
    struct put **at = inflight_head(store, &put->key);
    while (*at != put) {
        CHECK(*at != NULL);
        at = &(*at)->chain;
    }
    *at = put->chain;
}

/* ---- writing ---- */

static void batch_write(struct store *store, struct batch *batch, uint32_t segment, uint64_t offset, struct slice data,
                        struct effects *fx)
{
    batch->writes_pending++;
    fx_disk_write(fx, store_token_make(TOKEN_WRITE, batch->id), segment_file(segment), offset, data);
    (void)store;
}

static void buffer_flush(struct store *store, struct effects *fx)
{
    if (store->buffer.bytes > 0) {
        CHECK(store->accepting != NULL);
        batch_write(store, store->accepting, store->buffer_segment, store->buffer_offset, store->buffer, fx);
        store->buffer = (struct slice){0};
    }
}

/* Room for `bytes` (a multiple of 4096) at the end of the commit buffer, which continues the segment at the tail. */
static uint8_t *buffer_reserve(struct store *store, uint32_t bytes, struct effects *fx)
{
    uint64_t end = store->buffer_offset + store->buffer.bytes;
    if (store->buffer.bytes > 0 && (store->buffer_segment != store->segment || end != store->offset ||
                                    store->buffer.bytes + bytes > STORE_BUFFER_BYTES)) {
        buffer_flush(store, fx);
    }
    uint32_t used = store->buffer.bytes;
    if (used == 0) {
        store->buffer = slice_alloc(bytes);
        store->buffer_segment = store->segment;
        store->buffer_offset = store->offset;
    } else if (used + bytes > slice_capacity(store->buffer)) {
        struct slice grown = slice_alloc(STORE_BUFFER_BYTES);
        memcpy(grown.data, store->buffer.data, used);
        slice_drop(&store->buffer);
        store->buffer = grown;
    }
    store->buffer.bytes = used + bytes;
    return store->buffer.data + used;
}

static struct record put_record(const struct store *store, const struct put *put)
{
    struct slice tail = put->tail.bytes > 0 ? put->tail : put->checks;
    return (struct record){
        .type = put->type,
        .segment = put->segment,
        .offset = put->offset,
        .sequence = put->sequence,
        .mark = store_mark(store),
        .salt = store->salt,
        .payload_bytes = put->type == RECORD_SHARD ? put->shard_bytes : 0,
        .sealed_bytes = put->sealed_bytes,
        .plain_bytes = put->plain_bytes,
        .key = put->key,
        .hold = put->hold,
        .tail = put->type == RECORD_HOLDER ? NULL : tail.data,
        .tail_bytes = put->type == RECORD_HOLDER ? 0 : tail.bytes,
    };
}

/* Appends the put's record at the tail of the segment: into the buffer, and a large body by a write of its own. */
static void put_append(struct store *store, struct batch *batch, struct put *put, struct effects *fx)
{
    struct record record = put_record(store, put);
    uint32_t padded = (uint32_t)(record_bytes(record.payload_bytes) - RECORD_HEADER_BYTES);
    bool direct = record.payload_bytes >= STORE_COPY_BYTES && (uintptr_t)put->body.data % 4096 == 0 &&
                  slice_capacity(put->body) >= padded;
    uint8_t *block = buffer_reserve(store, RECORD_HEADER_BYTES + (direct ? 0 : padded), fx);
    record_encode(&record, &store->identity, block);
    if (direct) {
        buffer_flush(store, fx);
        batch_write(store, batch, put->segment, put->offset + RECORD_HEADER_BYTES, slice_ref(put->body), fx);
    } else if (padded > 0) {
        memcpy(block + RECORD_HEADER_BYTES, put->body.data, record.payload_bytes);
        memset(block + RECORD_HEADER_BYTES + record.payload_bytes, 0, padded - record.payload_bytes);
    }
    store->offset += RECORD_HEADER_BYTES + padded;
}

static void batch_sync(struct store *store, struct batch *batch, struct effects *fx)
{
    CHECK(batch->writes_pending == 0 && !batch->syncing);
    batch->syncing = true;
    for (uint32_t segment = batch->first_segment; segment <= batch->last_segment; segment++) {
        batch->syncs_pending++;
        store->counters.syncs++;
        fx_disk_sync(fx, store_token_make(TOKEN_SYNC, batch->id), segment_file(segment));
    }
}

static void batch_close(struct store *store, struct effects *fx)
{
    CHECK(store->closed == NULL && store->accepting != NULL);
    buffer_flush(store, fx);
    store->closed = store->accepting;
    store->accepting = NULL;
    if (store->closed->writes_pending == 0) {
        batch_sync(store, store->closed, fx);
    }
}

static void batch_append(struct store *store, struct put *put, struct effects *fx)
{
    struct batch *batch = store->accepting;
    if (batch == NULL) {
        batch = store->accepting = mem_alloc(sizeof *batch);
        batch->id = ++store->batch_ids;
        batch->first_segment = store->segment;
        batch->first_sequence = store->next_sequence;
    }
    put->next = NULL;
    if (batch->last != NULL) {
        batch->last->next = put;
    } else {
        batch->first = put;
    }
    batch->last = put;
    put->segment = store->segment;
    put->offset = store->offset;
    put->sequence = store->next_sequence++;
    uint64_t begin = store->offset;
    put_append(store, batch, put, fx);
    batch->bytes += store->offset - begin;
    batch->last_segment = store->segment;
    batch->end_offset = store->offset;
    batch->last_sequence = put->sequence;
}

static void batch_append_lost_record(struct store *store, uint32_t first, uint32_t count, struct effects *fx)
{
    struct writer w = {0};
    for (uint32_t i = first; i < first + count; i++) {
        writer_u64(&w, store->lost[i].first);
        writer_u64(&w, store->lost[i].last);
    }
    struct put *put = mem_alloc(sizeof *put);
    put->internal = true;
    put->type = RECORD_LOST;
    put->checks = writer_take(&w);
    writer_deinit(&w);
    store->put_count++;
    batch_append(store, put, fx);
}

/* LOST records of all ranges, when some wait for one. Room was checked. */
static void batch_append_lost(struct store *store, struct effects *fx)
{
    if (store->lost_count == store->lost_in_flight) {
        return;
    }
    for (uint32_t first = 0; first < store->lost_count; first += RECORD_LOST_MAX) {
        uint32_t left = store->lost_count - first;
        batch_append_lost_record(store, first, left < RECORD_LOST_MAX ? left : RECORD_LOST_MAX, fx);
    }
    store->lost_in_flight = store->lost_count;
}

void commit_lost(struct store *store, struct effects *fx)
{
    if (store->lost_count > store->lost_in_flight && commit_room(store, 0, fx) == ERR_OK) {
        batch_append_lost(store, fx);
        if (store->closed == NULL) {
            batch_close(store, fx);
        }
    }
}

void commit_add(struct store *store, struct put *put, struct effects *fx)
{
    CHECK(!store->segment_closed && put->type != RECORD_LOST);
    batch_append_lost(store, fx);
    batch_append(store, put, fx);
    struct put **head = inflight_head(store, &put->key);
    put->chain = *head;
    *head = put;
    if (store->closed == NULL) {
        batch_close(store, fx);
    }
}

/* ---- ends of a batch ---- */

static void put_index(struct store *store, struct put *put, struct kv_batch *kv, struct writer *w)
{
    struct record record = put_record(store, put);
    uint8_t key[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_ROT, &put->key, key);
    if (put->type == RECORD_SHARD) {
        store->counters.shards += put->present ? 0 : 1;
        store->counters.synced_shards++;
        store->counters.synced_bytes += put->shard_bytes;
        if (put->present) {
            kv_batch_delete(kv, key, sizeof key);
        }
    }
    bool present = index_apply(&record, &put->entry, put->present);
    CHECK(present);
    index_key(INDEX_PREFIX_SHARD, &put->key, key);
    w->bytes = 0;
    index_entry_encode(&put->entry, w);
    kv_batch_put(kv, key, sizeof key, w->data, w->bytes);
}

/* Drops the ranges that the LOST record of the batch made durable. */
static void lost_recorded(struct store *store)
{
    CHECK(store->lost_in_flight <= store->lost_count);
    store->lost_count -= store->lost_in_flight;
    memmove(store->lost, store->lost + store->lost_in_flight, store->lost_count * sizeof *store->lost);
    store->lost_in_flight = 0;
}

static void batch_finish(struct store *store, struct batch *batch, uint64_t now_ns, struct effects *fx)
{
    CHECK(batch == store->closed && batch->last_sequence > store->durable_sequence);
    store->durable_sequence = batch->last_sequence;
    store->failures = 0;
    struct kv_batch *kv = kv_batch_create();
    struct writer w = {0};
    bool lost = false;
    for (struct put *put = batch->first; put != NULL; put = put->next) {
        if (put->type == RECORD_LOST) {
            lost = true;
        } else {
            put_index(store, put, kv, &w);
            inflight_remove(store, put);
        }
    }
    writer_deinit(&w);
    if (lost) {
        lost_recorded(store);
    }
    struct index_position position = {
        .identity = store->identity,
        .segment = batch->last_segment,
        .offset = batch->end_offset,
        .sequence = batch->last_sequence,
        .mark = store_mark(store),
        .salt = store->salt,
        .shards = store->counters.shards,
    };
    index_position_put(kv, &position);
    fx_kv_commit(fx, kv);
    for (struct put *put = batch->first, *next; put != NULL; put = next) {
        next = put->next;
        if (put->internal) {
            put_end(store, put);
        } else {
            put_answer_receipt(store, put, fx);
        }
    }
    store->dirty = true;
    store->unflushed_bytes += batch->bytes;
    free(batch);
    store->closed = NULL;
    if (store->unflushed_bytes >= STORE_FLUSH_BYTES) {
        commit_flush_index(store, now_ns, fx);
    }
}

static void batch_fail(struct store *store, struct batch *batch, struct effects *fx)
{
    for (struct put *put = batch->first, *next; put != NULL; put = next) {
        next = put->next;
        if (!put->internal) {
            inflight_remove(store, put);
            put_answer_error(store, put, ERR_IO, "the disk failed while the shard was written", fx);
        }
        put_end(store, put);
    }
    free(batch);
}

static void commit_fail(struct store *store, struct effects *fx)
{
    uint64_t first = store->closed ? store->closed->first_sequence : store->accepting->first_sequence;
    store->lost_in_flight = 0;
    store->failures++;
    store->segment_closed = true;
    store_lost_add(store, first, store->next_sequence - 1);
    slice_drop(&store->buffer);
    struct batch *batches[] = {store->closed, store->accepting};
    store->closed = store->accepting = NULL;
    for (unsigned i = 0; i < 2; i++) {
        if (batches[i] != NULL) {
            batch_fail(store, batches[i], fx);
        }
    }
    if (store->failures < STORE_FAILURES_MAX) {
        commit_alloc(store, fx);
        commit_lost(store, fx);
    }
}

static void commit_wake(struct store *store, uint64_t now_ns, struct effects *fx)
{
    if (store->held_first != NULL) {
        fx_timer(fx, STORE_TIMER_WAKE, now_ns);
    }
}

static struct batch *batch_find(const struct store *store, uint64_t token)
{
    uint64_t id = store_token_number(token);
    if (store->closed != NULL && store->closed->id == id) {
        return store->closed;
    }
    if (store->accepting != NULL && store->accepting->id == id) {
        return store->accepting;
    }
    return NULL; /* of a batch that failed */
}

void commit_written(struct store *store, const struct event *event, struct effects *fx)
{
    struct batch *batch = batch_find(store, event->disk.token);
    if (batch == NULL) {
        return;
    }
    CHECK(batch->writes_pending > 0 && !batch->syncing);
    batch->writes_pending--;
    if (event->disk.err != ERR_OK) {
        commit_fail(store, fx);
        commit_wake(store, event->now_ns, fx);
    } else if (batch == store->closed && batch->writes_pending == 0) {
        batch_sync(store, batch, fx);
    }
}

void commit_synced(struct store *store, const struct event *event, struct effects *fx)
{
    struct batch *batch = batch_find(store, event->disk.token);
    if (batch == NULL) {
        return;
    }
    CHECK(batch == store->closed && batch->syncs_pending > 0);
    batch->syncs_pending--;
    if (event->disk.err != ERR_OK) {
        commit_fail(store, fx);
    } else if (batch->syncs_pending == 0) {
        batch_finish(store, batch, event->now_ns, fx);
        if (store->accepting != NULL) {
            batch_close(store, fx);
        }
    }
    commit_wake(store, event->now_ns, fx);
}

void commit_flush_index(struct store *store, uint64_t now_ns, struct effects *fx)
{
    if (store->dirty && !store->flushing) {
        store->flushing = true;
        store->dirty = false;
        store->unflushed_bytes = 0;
        store->last_flush_ns = now_ns;
        fx_kv_flush(fx, store_token_make(TOKEN_FLUSH, 0));
    }
}

void commit_deinit(struct store *store)
{
    struct put *lists[] = {store->held_first, store->closed ? store->closed->first : NULL,
                           store->accepting ? store->accepting->first : NULL};
    for (unsigned i = 0; i < 3; i++) {
        for (struct put *put = lists[i], *next; put != NULL; put = next) {
            next = put->next;
            put_end(store, put);
        }
    }
    free(store->closed);
    free(store->accepting);
    slice_drop(&store->buffer);
}
