/* Upload of one file: keeps a ring of chunks that put_cut.c reads and cuts, put_stage.c asks about and put_chunk.c
 * stores. It stands between the person's file and both planes.
 *
 * Happy path: read, cut, ask, seal, send the shards, stage receipts and entries, ask the shell whether the file is
 * still the one it was, complete. A file of up to LIMIT_INLINE_BYTES goes inline in one round trip.
 *
 * How it fails: a session that is closed, and chunks the group no longer finds held, begin the file anew, after a pause
 * and with a new map, three times and as long as the budget lasts. A source that changed ends in FILE_CHANGED before
 * anything is committed; a chunk without enough stores ends in UNAVAILABLE when the budget is spent. Memory is bounded
 * by the client's window: a piece is charged before it is read and until the shards of its chunks are stored. */
#include "put.h"

#include <stdlib.h>
#include <string.h>

#define RESTART_FIRST_NS  (250 * MILLISECOND_NS)
#define RESTART_DOUBLINGS 5u /* up to 8 s */
#define RESTART_MAP_WAITS 4u

static void put_chunk_drop_bulk(struct put_chunk *chunk)
{
    slice_drop(&chunk->plain);
    slice_drop(&chunk->checks);
    for (uint32_t i = 0; i < LIMIT_SHARDS; i++) {
        slice_drop(&chunk->shards[i]);
    }
}

void put_chunk_free(struct client *c, struct put_chunk *chunk)
{
    put_uncharge(c, chunk);
    put_chunk_drop_bulk(chunk);
    free(chunk->receipts);
    free(chunk);
}

static void put_chunks_clear(struct client *c, struct put *put)
{
    for (; put->first < put->next; put->first++) {
        put_chunk_free(c, put->chunks[put->first % PUT_CHUNKS]);
        put->chunks[put->first % PUT_CHUNKS] = NULL;
    }
    put->first = put->next = 0;
}

void put_destroy(struct client *c, struct op_slot *slot)
{
    struct put *put = slot->put;
    if (put == NULL) {
        return;
    }
    put_chunks_clear(c, put);
    put_cut_clear(c, put);
    slice_drop(&put->small);
    slice_drop(&put->capability);
    free(put->seen);
    free(put);
    slot->put = NULL;
}

/* The row of a hash, or the free one where it belongs. */
static struct seen *seen_row(struct seen *rows, uint32_t count, const struct sha256 *sha)
{
    uint32_t i = get_u32(sha->bytes) % count;
    while (rows[i].used && memcmp(&rows[i].sha, sha, sizeof *sha) != 0) {
        i = (i + 1) % count;
    }
    return &rows[i];
}

/* Twice the rows: most files have few chunks. */
static void seen_grow(struct put *put)
{
    uint32_t count = put->seen_rows > 0 ? 2 * put->seen_rows : PUT_SEEN_FIRST;
    struct seen *rows = mem_alloc(count * sizeof *rows);
    for (uint32_t i = 0; i < put->seen_rows; i++) {
        if (put->seen[i].used) {
            *seen_row(rows, count, &put->seen[i].sha) = put->seen[i];
        }
    }
    free(put->seen);
    put->seen = rows;
    put->seen_rows = count;
}

struct seen *put_seen(struct put *put, const struct sha256 *sha)
{
    if (2 * put->seen_count >= put->seen_rows && put->seen_count < PUT_SEEN) {
        seen_grow(put);
    }
    struct seen *row = seen_row(put->seen, put->seen_rows, sha);
    if (!row->used) {
        if (put->seen_count == PUT_SEEN) {
            return NULL;
        }
        put->seen_count++;
        *row = (struct seen){.used = true, .sha = *sha};
    }
    return row;
}

void put_start(struct client *c, struct op_slot *slot, struct effects *fx)
{
    CHECK(slot->put == NULL);
    struct client_put *op = &slot->op->put;
    slot->put = mem_alloc(sizeof *slot->put);
    if (op->source == CLIENT_SOURCE_FILE && op->bytes == 0) {
        slot->put->eof = true;
    }
    put_pump(c, slot, fx);
}

/* The code of an upload that cannot be begun anew: what stands in the way may be better another time. */
static enum err restart_end(enum err err)
{
    return err == ERR_UNRESOLVED || err == ERR_BAD_RECEIPT ? ERR_UNAVAILABLE : err;
}

/* Full jitter, from hundreds of milliseconds to seconds: what closed the session may still be there. */
static void restart_pause(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    uint32_t doublings = put->restarts < RESTART_DOUBLINGS ? put->restarts : RESTART_DOUBLINGS;
    put->phase = PUT_PAUSING;
    put->timer = true;
    route_want_map(c, true, fx);
    fx_timer(fx, OP_TIMER | token_of(c, slot, 0), c->now_ns + 1 + client_random(c) % (RESTART_FIRST_NS << doublings));
}

void put_restart(struct client *c, struct op_slot *slot, enum err err, const char *text, struct effects *fx)
{
    const struct put *put = slot->put;
    uint64_t budget = slot->op->budget_ns > 0 ? slot->op->budget_ns : c->params.budget_ns;
    uint64_t first_ns = put->restarts == 0 ? c->now_ns : put->restart_first_ns;
    bool spent = put->restarts >= RESTARTS && c->now_ns >= first_ns + budget;
    if (spent || slot->op->put.source == CLIENT_SOURCE_FEED) {
        client_op_finish(c, slot, restart_end(err), text, fx);
        return;
    }
    uint32_t restarts = put->restarts + 1;
    call_cancel_op(c, (uint32_t)(slot - c->slots), fx);
    fx_timer(fx, OP_TIMER | token_of(c, slot, 0), 0);
    put_destroy(c, slot);
    slot->gen++;
    slot->op->counts.chunks = 0;
    slot->op->counts.chunks_present = 0;
    slot->put = mem_alloc(sizeof *slot->put);
    slot->put->restarts = restarts;
    slot->put->restart_first_ns = first_ns;
    slot->put->restarted_ns = c->now_ns;
    restart_pause(c, slot, fx);
}

/* Goes on with a map that is newer than what went wrong, or with the old one when none can be had. */
static void restart_go(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    if (c->map_fetched_ns <= put->restarted_ns && put->map_waits < RESTART_MAP_WAITS) {
        put->map_waits++;
        route_want_map(c, true, fx);
        put_arm_timer(c, slot, fx);
        return;
    }
    put->phase = PUT_READING;
    c->wake = true;
}

void put_arm_timer(struct client *c, struct op_slot *slot, struct effects *fx)
{
    if (!slot->put->timer) {
        slot->put->timer = true;
        fx_timer(fx, OP_TIMER | token_of(c, slot, 0), c->now_ns + CHUNK_WAIT_NS + client_random(c) % CHUNK_WAIT_NS);
    }
}

/* ---- chunks ---- */

void put_hashed(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    struct seen *seen = put_seen(slot->put, &chunk->sha);
    bool first = seen == NULL || (!seen->done && seen->writer == 0);
    if (first) {
        if (seen != NULL) {
            seen->writer = UINT32_MAX; /* under way */
        }
        chunk->state = CHUNK_HASHED;
        return;
    }
    slice_drop(&chunk->plain);
    slot->op->counts.chunks_present++;
    chunk->state = CHUNK_TWIN;
    if (seen->done) {
        chunk->writer = seen->writer;
        chunk->encoding = seen->encoding;
        put_chunk_done(c, slot, chunk, fx);
        return;
    }
    put_uncharge(c, chunk);
}

void put_chunk_done(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx)
{
    struct put *put = slot->put;
    bool twin = chunk->state == CHUNK_TWIN;
    chunk->state = CHUNK_DONE;
    put_chunk_drop_bulk(chunk);
    put_uncharge(c, chunk);
    put->done_bytes += chunk->plain_bytes;
    uint8_t header[8];
    put_u64(header, put->done_bytes);
    client_post(fx, MESSAGE_CLIENT_PROGRESS, slot->op->id, header, sizeof header, (struct slice){0});
    struct seen *seen = twin ? NULL : put_seen(put, &chunk->sha);
    if (seen == NULL) {
        return;
    }
    seen->done = true;
    seen->writer = chunk->writer;
    seen->encoding = chunk->encoding;
    for (uint64_t entry = put->first; entry < put->next; entry++) {
        struct put_chunk *other = put_chunk_at(put, entry);
        if (other->state == CHUNK_TWIN && memcmp(&other->sha, &chunk->sha, sizeof chunk->sha) == 0) {
            other->writer = chunk->writer;
            other->encoding = chunk->encoding;
            put_chunk_done(c, slot, other, fx);
        }
    }
}

void put_on_compute(struct client *c, struct op_slot *slot, uint64_t entry, struct compute_job *job, struct effects *fx)
{
    if (job->err != ERR_OK) {
        client_op_finish(c, slot, job->err, "preparing a chunk", fx);
        return;
    }
    if (entry == PUT_CUT_ENTRY) {
        put_cut_on_compute(c, slot, job, fx);
    } else {
        struct put_chunk *chunk = put_chunk_at(slot->put, entry);
        CHECK(chunk != NULL);
        put_chunk_on_compute(c, slot, chunk, job, fx);
    }
    c->wake = true;
}

/* ---- the end ---- */

static void put_confirm(struct client *c, struct op_slot *slot, enum put_phase phase, struct effects *fx)
{
    slot->put->phase = phase;
    if (slot->op->put.confirm) {
        client_post(fx, MESSAGE_CLIENT_CONFIRM, slot->op->id, NULL, 0, (struct slice){0});
    } else {
        put_on_confirmed(c, slot, ERR_OK, fx);
    }
}

void put_on_confirmed(struct client *c, struct op_slot *slot, enum err err, struct effects *fx)
{
    struct put *put = slot->put;
    if (err != ERR_OK) {
        client_op_finish(c, slot, err, "the file changed while it was read", fx);
        return;
    }
    if (put->phase == PUT_SMALL_CONFIRM) {
        put->phase = PUT_SMALL;
        put_send_small(c, slot, fx);
    } else if (put->phase == PUT_CONFIRM) {
        put->phase = PUT_COMPLETE;
        put_send_complete(c, slot, fx);
    }
}

void put_pump(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    if (put->phase != PUT_READING) {
        return;
    }
    put_cut_pump(c, slot, fx);
    bool all_cut = put_cut_over(put);
    if (all_cut && put->read_bytes <= LIMIT_INLINE_BYTES && put->next == 0) {
        put_confirm(c, slot, PUT_SMALL_CONFIRM, fx);
        return;
    }
    uint32_t gen = slot->gen;
    put_stage_pump(c, slot, fx);
    if (slot->gen == gen && all_cut && put->first == put->next && put->flight == PUT_IDLE) {
        put_confirm(c, slot, PUT_CONFIRM, fx);
    }
}

void put_on_timer(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    put->timer = false;
    if (put->phase == PUT_PAUSING) {
        restart_go(c, slot, fx);
        return;
    }
    place_forgive(c);
    route_want_map(c, true, fx);
    uint32_t gen = slot->gen; /* a chunk whose time is up ends the operation */
    for (uint64_t entry = put->first; slot->gen == gen && entry < put->next; entry++) {
        struct put_chunk *chunk = put_chunk_at(put, entry);
        if (chunk->state == CHUNK_WAITING) {
            put_chunk_retry(c, slot, chunk, fx);
        }
    }
    c->wake = true;
}
