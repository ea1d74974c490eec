/* Boot of a store: from the position the index has reached (or from the first segment, when it is rebuilt) every block
 * is looked at in order. A good header is a record; a bad one is stepped over by 4096 bytes until the next good one.
 *
 * Records up to the highest mark seen were durable (R-E2): they are applied in order, and a sequence missing among them
 * is rot, counted, unless a LOST record names it. What lies above the mark is doubtful: its payload is read and
 * checked, the segments are synced, and what is whole is applied; the rest is simply missing, and written down as lost
 * with the first batch. Appends go on behind the last header found.
 *
 *   SCAN --(end of the last segment)--> VERIFY --(all doubtful payloads read)--> SYNC --> open
 *
 * It fails with HALT: the index is of another directory or ahead of the segments, or a segment cannot be synced. A view
 * that says WOULD_BLOCK is asked again a little later. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "store.h"

#define RECOVER_WINDOW_BYTES STORE_READ_BYTES
#define RECOVER_RETRY_NS     (10ull * 1000000)
#define RECOVER_APPLY_MAX    1024u /* records applied in one step */

/* Something found by the scan and not applied yet: a record, or a run of sequences without one. */
struct pending {
    bool hole;
    bool bad; /* its payload does not match */
    uint64_t first, last;
    struct record record;
    struct slice tail; /* keeps record.tail */
};

enum recover_phase { RECOVER_BEGIN, RECOVER_SCAN, RECOVER_VERIFY, RECOVER_SYNC, RECOVER_DONE };

struct recovery {
    enum recover_phase phase;
    struct file_info *files;
    uint32_t file_count;
    bool rebuild;
    uint64_t operation; /* of the read or sync under way */
    uint32_t syncs_pending;

    uint32_t file; /* position of the scan */
    uint64_t offset;
    struct slice window; /* of files[file], from window_offset */
    uint64_t window_offset;
    bool isolate; /* a read failed: go on block by block until one is good */

    uint64_t salt, previous, mark;
    uint32_t tail_segment;
    uint64_t tail_offset;
    struct pending *pending;
    unsigned long pending_capacity, pending_count, pending_first;
    struct sequence_range *lost;
    unsigned long lost_capacity, lost_count;

    unsigned long verify; /* index in pending */
    uint32_t verify_offset;

    struct index_position position; /* up to what was applied */
    bool position_stays;            /* something before the next record is to be recorded as lost first */
    struct kv_batch *batch;
};

struct recovery *recover_create(const struct store_params *params)
{
    struct recovery *r = mem_alloc(sizeof *r);
    r->files = mem_alloc(params->file_count * sizeof *r->files);
    for (uint32_t i = 0; i < params->file_count; i++) {
        CHECK(params->files[i].file.kind == FILE_SEGMENT && params->files[i].file.number > 0);
        CHECK(i == 0 || params->files[i].file.number > params->files[i - 1].file.number);
        r->files[i] = params->files[i];
        r->files[i].bytes = r->files[i].bytes / 4096 * 4096;
    }
    r->file_count = params->file_count;
    r->rebuild = params->rebuild_index;
    return r;
}

void recover_destroy(struct recovery *r)
{
    if (r == NULL) {
        return;
    }
    for (unsigned long i = r->pending_first; i < r->pending_count; i++) {
        slice_drop(&r->pending[i].tail);
    }
    if (r->batch != NULL) {
        kv_batch_destroy(r->batch);
    }
    slice_drop(&r->window);
    free(r->pending);
    free(r->lost);
    free(r->files);
    free(r);
}

static bool recover_is_lost(const struct recovery *r, uint64_t sequence)
{
    for (unsigned long i = 0; i < r->lost_count; i++) {
        if (sequence >= r->lost[i].first && sequence <= r->lost[i].last) {
            return true;
        }
    }
    return false;
}

/* ---- applying ---- */

/* Applies one record to the batch; WOULD_BLOCK or a failure of the view leaves it to be tried again. */
static enum err recover_apply(struct store *store, struct recovery *r, const struct pending *pending)
{
    const struct record *record = &pending->record;
    struct kv_overlay overlay;
    kv_overlay_init(&overlay, r->batch, store->kv);
    struct index_entry entry = {0};
    enum err err = index_get(&overlay.view, &record->key, &entry);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    bool before = err == ERR_OK;
    if (index_apply(record, &entry, before)) {
        uint8_t key[INDEX_KEY_BYTES];
        struct writer w = {0};
        if (record->type == RECORD_SHARD) {
            index_key(INDEX_PREFIX_ROT, &record->key, key);
            kv_batch_delete(r->batch, key, sizeof key);
        }
        index_key(INDEX_PREFIX_SHARD, &record->key, key);
        index_entry_encode(&entry, &w);
        kv_batch_put(r->batch, key, sizeof key, w.data, w.bytes);
        writer_deinit(&w);
        r->position.shards += before ? 0 : 1;
    }
    index_entry_deinit(&entry);
    return ERR_OK;
}

static void recover_advance(struct recovery *r, const struct record *record)
{
    if (!r->position_stays) {
        r->position.segment = record->segment;
        r->position.offset = record->offset + record_bytes(record->payload_bytes);
        r->position.sequence = record->sequence;
    }
}

/* Settles what is pending up to sequence `upto`: records are applied, holes below the mark counted as rot, what is bad
 * or missing above it remembered as lost. */
static enum err recover_settle(struct store *store, struct recovery *r, uint64_t upto)
{
    for (unsigned applied = 0; r->pending_first < r->pending_count && applied < RECOVER_APPLY_MAX; applied++) {
        struct pending *pending = &r->pending[r->pending_first];
        if (pending->last > upto) {
            return ERR_OK;
        }
        bool doubtful = r->phase != RECOVER_SCAN;
        if (pending->hole || pending->bad) {
            if (doubtful && !(recover_is_lost(r, pending->first) && recover_is_lost(r, pending->last))) {
                store_lost_add(store, pending->first, pending->last);
                r->position_stays = true;
            }
            for (uint64_t s = pending->first; !doubtful && s <= pending->last; s++) {
                store->counters.corrupt += recover_is_lost(r, s) ? 0 : 1;
            }
        } else {
            if (pending->record.type != RECORD_LOST && !recover_is_lost(r, pending->first)) {
                enum err err = recover_apply(store, r, pending);
                if (err != ERR_OK) {
                    return err;
                }
            }
            recover_advance(r, &pending->record);
        }
        slice_drop(&pending->tail);
        r->pending_first++;
    }
    if (r->pending_first < r->pending_count) {
        return r->pending[r->pending_first].last > upto ? ERR_OK : ERR_BUSY;
    }
    r->pending_first = r->pending_count = 0;
    return ERR_OK;
}

/* Emits what the step applied, with the position it brings the index to. */
static void recover_commit(struct store *store, struct recovery *r, struct effects *fx)
{
    if (kv_batch_count(r->batch) > 0 || r->phase == RECOVER_DONE) {
        r->position.mark = r->mark < r->position.sequence ? r->mark : r->position.sequence;
        r->position.salt = r->salt;
        index_position_put(r->batch, &r->position);
        fx_kv_commit(fx, r->batch);
        store->dirty = true;
        r->batch = kv_batch_create();
    }
}

/* ---- scanning ---- */

static struct pending *recover_push(struct recovery *r)
{
    if (r->pending_first > RECOVER_APPLY_MAX) {
        r->pending_count -= r->pending_first;
        memmove(r->pending, r->pending + r->pending_first, r->pending_count * sizeof *r->pending);
        r->pending_first = 0;
    }
    r->pending = mem_grow(r->pending, &r->pending_capacity, r->pending_count + 1, sizeof *r->pending);
    struct pending *pending = &r->pending[r->pending_count++];
    *pending = (struct pending){0};
    return pending;
}

static void recover_take(struct recovery *r, const struct record *record)
{
    if (record->sequence > r->previous + 1) {
        struct pending *hole = recover_push(r);
        hole->hole = true;
        hole->first = r->previous + 1;
        hole->last = record->sequence - 1;
    }
    struct pending *pending = recover_push(r);
    pending->first = pending->last = record->sequence;
    pending->record = *record;
    pending->tail = slice_copy(record->tail, record->tail_bytes);
    pending->record.tail = pending->tail.data;
    for (uint32_t at = 0; record->type == RECORD_LOST && at < record->tail_bytes; at += 16) {
        r->lost = mem_grow(r->lost, &r->lost_capacity, r->lost_count + 1, sizeof *r->lost);
        r->lost[r->lost_count++] = (struct sequence_range){get_u64(record->tail + at), get_u64(record->tail + at + 8)};
    }
    r->previous = record->sequence;
    if (record->mark > r->mark) {
        r->mark = record->mark;
    }
    r->tail_segment = record->segment;
    r->tail_offset = record->offset + record_bytes(record->payload_bytes);
}

/* Looks at the block at the scan's position, which the window covers, and moves on. */
static void recover_scan_block(struct store *store, struct recovery *r)
{
    const struct file_info *file = &r->files[r->file];
    struct record record;
    enum err err = record_decode(r->window.data + (r->offset - r->window_offset), &store->identity, file->file.number,
                                 r->offset, &record);
    if (err == ERR_OK && r->salt == 0) {
        r->salt = record.salt;
    }
    if (err != ERR_OK || record.salt != r->salt || record.sequence <= r->previous ||
        r->offset + record_bytes(record.payload_bytes) > file->bytes) {
        r->offset += RECORD_HEADER_BYTES;
        return;
    }
    recover_take(r, &record);
    r->offset += record_bytes(record.payload_bytes);
}

static void recover_read(struct store *store, struct recovery *r, uint32_t segment, uint64_t offset, uint64_t bytes,
                         struct effects *fx)
{
    (void)store;
    fx_disk_read(fx, store_token_make(TOKEN_RECOVER, ++r->operation), segment_file(segment), offset, bytes);
}

/* Scans what the window holds and asks for the next one. True when every segment was seen. */
static bool recover_scan(struct store *store, struct recovery *r, struct effects *fx)
{
    for (;;) {
        if (r->file >= r->file_count) {
            return true;
        }
        if (r->offset >= r->files[r->file].bytes) {
            r->file++;
            r->offset = 0;
            slice_drop(&r->window);
            continue;
        }
        bool covered =
            r->offset >= r->window_offset && r->offset + RECORD_HEADER_BYTES <= r->window_offset + r->window.bytes;
        if (!covered) {
            slice_drop(&r->window);
            uint64_t left = r->files[r->file].bytes - r->offset;
            uint64_t most = r->isolate ? RECORD_HEADER_BYTES : RECOVER_WINDOW_BYTES;
            recover_read(store, r, r->files[r->file].file.number, r->offset, left < most ? left : most, fx);
            return false;
        }
        recover_scan_block(store, r);
    }
}

static void recover_window_done(struct recovery *r, const struct event *event)
{
    if (event->disk.err == ERR_OK && event->disk.data.bytes >= RECORD_HEADER_BYTES) {
        r->window = slice_ref(event->disk.data);
        r->window_offset = r->offset;
        r->isolate = false;
    } else if (event->disk.err == ERR_OK) {
        r->offset = r->files[r->file].bytes; /* the file is shorter than it was listed */
    } else if (r->isolate) {
        r->offset += RECORD_HEADER_BYTES; /* this very block cannot be read */
    } else {
        r->isolate = true;
    }
}

/* ---- verifying what is doubtful ---- */

/* Asks for the next doubtful payload; true when there is none left. */
static bool recover_verify(struct store *store, struct recovery *r, struct effects *fx)
{
    while (r->verify < r->pending_count) {
        struct pending *pending = &r->pending[r->verify];
        const struct record *record = &pending->record;
        bool skip = pending->hole || pending->bad || record->type != RECORD_SHARD ||
                    recover_is_lost(r, pending->first) || r->verify_offset >= record->payload_bytes;
        if (!skip) {
            uint64_t left = (record->payload_bytes - r->verify_offset + 4095ull) / 4096 * 4096;
            recover_read(store, r, record->segment, record->offset + RECORD_HEADER_BYTES + r->verify_offset,
                         left < STORE_READ_BYTES ? left : STORE_READ_BYTES, fx);
            return false;
        }
        r->verify++;
        r->verify_offset = 0;
    }
    return true;
}

static void recover_verify_done(struct recovery *r, const struct event *event)
{
    struct pending *pending = &r->pending[r->verify];
    const struct record *record = &pending->record;
    uint32_t left = record->payload_bytes - r->verify_offset;
    uint32_t bytes = left < STORE_READ_BYTES ? left : STORE_READ_BYTES;
    if (event->disk.err != ERR_OK || event->disk.data.bytes < bytes) {
        pending->bad = true;
        return;
    }
    struct slice part = slice_borrow(event->disk.data.data, bytes);
    pending->bad = !serve_pieces_match(pending->tail, record->key.index, record->payload_bytes, r->verify_offset, part);
    r->verify_offset += bytes;
}

/* ---- the phases ---- */

static enum err recover_begin(struct store *store, struct recovery *r, const char **ret_text)
{
    struct index_position *position = &r->position;
    enum err err = r->rebuild ? ERR_NOT_FOUND : index_position_get(store->kv, position);
    if (err == ERR_NOT_FOUND) {
        *position = (struct index_position){.identity = store->identity};
        position->segment = r->file_count > 0 ? r->files[0].file.number : 0;
        err = ERR_OK;
    }
    if (err != ERR_OK) {
        *ret_text = "the index cannot be read";
        return err;
    }
    if (memcmp(&position->identity.uuid, &store->identity.uuid, sizeof store->identity.uuid) != 0 ||
        position->identity.incarnation != store->identity.incarnation) {
        *ret_text = "the index is of another directory";
        return ERR_NOT_OURS;
    }
    while (r->file < r->file_count && r->files[r->file].file.number < position->segment) {
        r->file++;
    }
    if (position->segment > 0 && (r->file >= r->file_count || r->files[r->file].file.number != position->segment ||
                                  r->files[r->file].bytes < position->offset)) {
        *ret_text = "the index is ahead of the segments: rebuild it";
        return ERR_CORRUPT;
    }
    r->offset = r->tail_offset = position->offset;
    r->tail_segment = position->segment;
    r->salt = position->salt;
    r->previous = position->sequence;
    r->mark = position->mark;
    r->phase = RECOVER_SCAN;
    return ERR_OK;
}

static void recover_finish(struct store *store, struct recovery *r, const struct event *event, struct effects *fx)
{
    r->phase = RECOVER_DONE;
    if (r->salt == 0) {
        r->salt = event->random | 1;
    }
    if (!r->position_stays) {
        r->position.segment = r->tail_segment;
        r->position.offset = r->tail_offset;
        r->position.sequence = r->previous;
        r->mark = r->previous;
    }
    store->segment = r->tail_segment;
    store->offset = r->tail_offset;
    store->salt = r->salt;
    store->next_sequence = r->previous + 1;
    store->durable_sequence = r->previous;
    store->counters.shards = r->position.shards;
    if (store->segment > 0 && store->offset == 0) {
        store->segment--; /* perhaps its allocation was cut short: it is allocated again */
        store->segment_closed = true;
    } else {
        store->segment_closed = store->segment == 0;
    }
    recover_commit(store, r, fx);
    recover_destroy(r);
    store->recovery = NULL;
    store_opened(store, event->now_ns, fx);
}

/* Syncs the segments of doubtful records, so that what is found whole stays so. True when there are none. */
static bool recover_sync(struct recovery *r, struct effects *fx)
{
    uint32_t first = 0;
    for (unsigned long i = r->pending_first; first == 0 && i < r->pending_count; i++) {
        first = r->pending[i].hole ? 0 : r->pending[i].record.segment;
    }
    r->operation++;
    for (uint32_t i = 0; first > 0 && i < r->file_count; i++) {
        if (r->files[i].file.number >= first && r->files[i].file.number <= r->tail_segment) {
            r->syncs_pending++;
            fx_disk_sync(fx, store_token_make(TOKEN_RECOVER, r->operation), r->files[i].file);
        }
    }
    return r->syncs_pending == 0;
}

/* Goes on from wherever it stands until it waits for something. */
static enum err recover_run(struct store *store, struct recovery *r, const struct event *event, struct effects *fx,
                            const char **ret_text)
{
    enum err err = ERR_OK;
    if (r->phase == RECOVER_BEGIN) {
        err = recover_begin(store, r, ret_text);
    }
    if (err == ERR_OK && r->phase == RECOVER_SCAN) {
        *ret_text = "the index cannot be read";
        err = recover_settle(store, r, r->mark);
        if (err == ERR_OK && recover_scan(store, r, fx)) {
            err = recover_settle(store, r, r->mark);
            if (err == ERR_OK) {
                r->phase = RECOVER_VERIFY;
                r->verify = r->pending_first;
            }
        }
    }
    if (err == ERR_OK && r->phase == RECOVER_VERIFY && recover_verify(store, r, fx)) {
        r->phase = RECOVER_SYNC;
        if (!recover_sync(r, fx)) {
            return ERR_OK;
        }
    }
    if (err == ERR_OK && r->phase == RECOVER_SYNC && r->syncs_pending == 0) {
        *ret_text = "the index cannot be read";
        err = recover_settle(store, r, UINT64_MAX);
        if (err == ERR_OK) {
            recover_finish(store, r, event, fx);
        }
    }
    return err;
}

/* Takes the completion; false when the event is a late one. */
static enum err recover_disk_done(struct recovery *r, const struct event *event, const char **ret_text)
{
    CHECK(store_token_number(event->disk.token) == r->operation);
    if (r->phase == RECOVER_SCAN) {
        recover_window_done(r, event);
    } else if (r->phase == RECOVER_VERIFY) {
        recover_verify_done(r, event);
    } else {
        CHECK(r->phase == RECOVER_SYNC && r->syncs_pending > 0);
        r->syncs_pending--;
        *ret_text = "a segment cannot be synced";
        return event->disk.err;
    }
    return ERR_OK;
}

void recover_start(struct store *store, const struct event *event, struct effects *fx)
{
    CHECK(store->recovery != NULL && store->recovery->batch == NULL);
    store->recovery->batch = kv_batch_create();
    recover_step(store, event, fx);
}

void recover_step(struct store *store, const struct event *event, struct effects *fx)
{
    struct recovery *r = store->recovery;
    if (r == NULL) {
        return;
    }
    const char *text = "";
    enum err err = event->kind == EVENT_DISK_DONE ? recover_disk_done(r, event, &text) : ERR_OK;
    if (err == ERR_OK) {
        err = recover_run(store, r, event, fx, &text);
    }
    if (store->recovery != NULL) {
        recover_commit(store, r, fx);
    }
    if (err == ERR_WOULD_BLOCK || err == ERR_BUSY) {
        fx_timer(fx, STORE_TIMER_RECOVER, event->now_ns + (err == ERR_BUSY ? 0 : RECOVER_RETRY_NS));
    } else if (err != ERR_OK) {
        fx_halt(fx, err, "store %u: %s", store->position, text);
    }
}
