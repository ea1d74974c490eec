/* The bytes of an upload: read in pieces of the workspace's largest chunk, ahead of need, and cut into chunks by their
 * content (base/cut.h), or into chunks of one length where the workspace has no cutting parameters. It stands between
 * the person's file and the ring of chunks.
 *
 * Happy path: piece after piece goes to a worker, together with the tail that the last one left behind its last certain
 * cut; out come hashed chunks, which are parts of the pieces' buffers, but for the one that spans tail and piece. Where
 * a chunk ends is known only when the one before is cut: one job of a file is under way at a time, while sealing and
 * sending go on beside it.
 *
 * How it fails: a file that is shorter than it was ends in FILE_CHANGED. A full window stops reading. A tail keeps its
 * piece charged and cannot become a chunk before the next piece is there; so an upload that has nothing but a tail may
 * overdraw the window by one piece, and many uploads at once cannot starve each other. */
#include <stdlib.h>

#include "put.h"

uint32_t put_piece_bytes(const struct client *c, const struct op_slot *slot)
{
    return c->workspaces[slot->workspace].cut.max_bytes;
}

static void piece_drop(struct client *c, struct put_piece **piece)
{
    struct put_piece *p = *piece;
    *piece = NULL;
    if (p == NULL || --p->refs > 0) {
        return;
    }
    window_give(c, p->charge);
    slice_drop(&p->data);
    free(p);
}

static struct put_piece *piece_ref(struct put_piece *piece)
{
    CHECK(piece->refs > 0);
    piece->refs++;
    return piece;
}

void put_uncharge(struct client *c, struct put_chunk *chunk)
{
    piece_drop(c, &chunk->pieces[0]);
    piece_drop(c, &chunk->pieces[1]);
}

void put_cut_clear(struct client *c, struct put *put)
{
    for (; put->piece_first < put->piece_next; put->piece_first++) {
        piece_drop(c, &put->pieces[put->piece_first % PUT_READS]);
    }
    slice_drop(&put->tail);
    piece_drop(c, &put->tail_piece);
}

bool put_cut_idle(const struct put *put)
{
    return !put->cutting && put->piece_first == put->piece_next;
}

bool put_cut_over(const struct put *put)
{
    return put->eof && put_cut_idle(put) && put->tail.bytes == 0;
}

/* ---- reading ---- */

static void put_read(struct client *c, struct op_slot *slot, uint32_t bytes, struct effects *fx)
{
    struct put *put = slot->put;
    uint64_t offset = put->read_next, index = put->piece_next++;
    struct put_piece *piece = mem_alloc(sizeof *piece);
    piece->refs = 1;
    piece->bytes = bytes;
    piece->charge = (uint64_t)bytes * PUT_WINDOW_COST;
    put->pieces[index % PUT_READS] = piece;
    put->read_next += bytes;
    if (slot->op->put.source == CLIENT_SOURCE_FILE) {
        struct file_ref file = {.kind = FILE_USER, .number = slot->op->put.file};
        fx_disk_read(fx, token_of(c, slot, index), file, offset, bytes);
        return;
    }
    uint8_t header[16];
    put_u64(header, offset);
    put_u64(header + 8, bytes);
    client_post(fx, MESSAGE_CLIENT_WANT, slot->op->id, header, sizeof header, (struct slice){0});
}

/* A stream is read one piece at a time. */
static void put_read_pump(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    const struct client_put *op = &slot->op->put;
    bool stream = op->source == CLIENT_SOURCE_FEED;
    uint32_t most = stream ? 1 : PUT_READS;
    while (!put->eof && put->piece_next - put->piece_first < most && put->next - put->first < PUT_CHUNKS) {
        uint32_t bytes = put_piece_bytes(c, slot);
        if (!stream && op->bytes - put->read_next < bytes) {
            bytes = (uint32_t)(op->bytes - put->read_next);
        }
        bool pressed = put->tail.bytes > 0 && put_cut_idle(put);
        if (!window_take(c, (uint64_t)bytes * PUT_WINDOW_COST, pressed)) {
            return;
        }
        put_read(c, slot, bytes, fx);
        put->eof = !stream && put->read_next == op->bytes;
    }
}

void put_on_read(struct client *c, struct op_slot *slot, uint64_t index, enum err err, struct slice data,
                 struct effects *fx)
{
    struct put *put = slot->put;
    bool known = index >= put->piece_first && index < put->piece_next;
    struct put_piece *piece = known ? put->pieces[index % PUT_READS] : NULL;
    if (piece == NULL || piece->read) {
        return; /* a shell that answers twice */
    }
    bool stream = slot->op->put.source == CLIENT_SOURCE_FEED;
    if (err != ERR_OK || data.bytes > piece->bytes) {
        client_op_finish(c, slot, err == ERR_OK ? ERR_INVALID : err, "reading the file", fx);
        return;
    }
    if (!stream && data.bytes < piece->bytes) {
        client_op_finish(c, slot, ERR_FILE_CHANGED, "the file became shorter while it was read", fx);
        return;
    }
    put->eof = put->eof || data.bytes < piece->bytes;
    put->read_bytes += data.bytes;
    piece->read = true;
    uint64_t charge = (uint64_t)data.bytes * PUT_WINDOW_COST;
    window_give(c, piece->charge - charge);
    piece->charge = charge;
    piece->bytes = data.bytes;
    piece->data = slice_ref(data);
    bool small = index == 0 && put->eof && put->piece_next == 1 && put->read_bytes <= LIMIT_INLINE_BYTES;
    if (small) {
        put->small = slice_ref(data);
    }
    if (small || data.bytes == 0) {
        CHECK(index + 1 == put->piece_next);
        put->piece_next--;
        piece_drop(c, &put->pieces[index % PUT_READS]);
    }
    put_pump(c, slot, fx);
}

/* ---- cutting ---- */

static void put_cut(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    bool more = put->piece_first < put->piece_next;
    struct put_piece *piece = more ? put->pieces[put->piece_first % PUT_READS] : NULL;
    bool ready = more ? piece->read : put->eof && put->tail.bytes > 0;
    if (put->cutting || !ready || put->next - put->first + COMPUTE_CUTS > PUT_CHUNKS) {
        return;
    }
    const struct workspace *w = &c->workspaces[slot->workspace];
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
    job->priority = 1;
    job->cut = w->cut;
    job->cut_bytes = w->cut.max_bytes;
    job->last = put->eof && put->piece_next - put->piece_first <= 1;
    if (put->tail.bytes > 0) {
        job->in[0] = slice_ref(put->tail);
    }
    if (more) {
        job->in[put->tail.bytes > 0] = slice_ref(piece->data);
    }
    put->cutting = true;
    fx_compute(fx, token_of(c, slot, PUT_CUT_ENTRY), job);
}

/* Chunk i of a job, which begins at byte `at` of its input. */
static void put_cut_chunk(struct client *c, struct op_slot *slot, const struct compute_job *job, uint32_t i,
                          uint32_t at, struct put_piece *const sources[2], struct effects *fx)
{
    struct put *put = slot->put;
    uint32_t bytes = job->lengths[i], first = job->in[0].bytes;
    struct put_chunk *chunk = mem_alloc(sizeof *chunk);
    if (at >= first) {
        chunk->plain = slice_sub(job->in[1], at - first, bytes);
    } else if (at + bytes <= first) {
        chunk->plain = slice_sub(job->in[0], at, bytes);
    } else {
        chunk->plain = slice_ref(job->out[0]);
    }
    CHECK(chunk->plain.bytes == bytes);
    if (at < first) {
        chunk->pieces[0] = piece_ref(sources[0]);
    }
    if (at + bytes > first) {
        chunk->pieces[1] = piece_ref(sources[1]);
    }
    chunk->entry = put->next++;
    chunk->plain_bytes = bytes;
    chunk->sha = job->hashes[i];
    CHECK(put->next - put->first <= PUT_CHUNKS);
    put->chunks[chunk->entry % PUT_CHUNKS] = chunk;
    slot->op->counts.chunks++;
    put_hashed(c, slot, chunk, fx);
}

/* What a job did not consume is the next one's beginning. */
static void put_cut_keep(struct client *c, struct put *put, const struct compute_job *job, bool had_tail)
{
    uint32_t first = job->in[0].bytes;
    struct slice rest = {0};
    if (had_tail && job->consumed < first) { /* stopped by the number of chunks, before the piece */
        rest = slice_sub(put->tail, job->consumed, first - job->consumed);
        slice_drop(&put->tail);
        put->tail = rest;
        return;
    }
    slice_drop(&put->tail);
    piece_drop(c, &put->tail_piece);
    struct slice input = had_tail ? job->in[1] : job->in[0];
    uint32_t at = had_tail ? job->consumed - first : job->consumed;
    if (input.bytes == 0) {
        return; /* the file's last tail */
    }
    struct put_piece **head = &put->pieces[put->piece_first++ % PUT_READS];
    slice_drop(&(*head)->data);
    if (at < input.bytes) {
        put->tail = slice_sub(input, at, input.bytes - at);
        put->tail_piece = *head;
        *head = NULL;
    } else {
        piece_drop(c, head);
    }
}

void put_cut_on_compute(struct client *c, struct op_slot *slot, struct compute_job *job, struct effects *fx)
{
    struct put *put = slot->put;
    CHECK(put->cutting && job->count > 0);
    put->cutting = false;
    bool had_tail = put->tail.bytes > 0;
    struct put_piece *head = put->piece_first < put->piece_next ? put->pieces[put->piece_first % PUT_READS] : NULL;
    struct put_piece *const sources[2] = {had_tail ? put->tail_piece : head, had_tail ? head : NULL};
    uint32_t at = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        put_cut_chunk(c, slot, job, i, at, sources, fx);
        at += job->lengths[i];
    }
    CHECK(at == job->consumed);
    put_cut_keep(c, put, job, had_tail);
}

void put_cut_pump(struct client *c, struct op_slot *slot, struct effects *fx)
{
    put_read_pump(c, slot, fx);
    put_cut(c, slot, fx);
}
