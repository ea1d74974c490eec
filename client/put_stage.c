/* The messages of an upload to the namespace's group: start, stage, complete, put-small (R-F4). One is under way at a
 * time; what gathers meanwhile goes with the next, so that a large file needs few commits and a small one few round
 * trips. An ask names hashed chunks; a stage carries receipts of chunks that are done, the leading entries up to the
 * end of their manifest page, and the next ask.
 *
 * How it fails: a session that is closed, receipts that no longer count (a disk was replaced, R-B2) and entries that do
 * not resolve begin the file anew in a new session; all else ends the operation with the peer's words. */
#include <stdlib.h>
#include <string.h>

#include "put.h"

/* ---- requests ---- */

/* Marks up to PUT_ASKS hashed chunks as asked and writes them. */
static uint32_t asks_write(struct put *put, struct writer *w)
{
    uint32_t asks = 0;
    for (uint64_t entry = put->first; entry < put->next && asks < PUT_ASKS; entry++) {
        struct put_chunk *chunk = put_chunk_at(put, entry);
        if (chunk->state == CHUNK_HASHED) {
            struct ask_entry ask = {.sha = chunk->sha, .plain_bytes = chunk->plain_bytes};
            ask_entry_encode(&ask, writer_reserve(w, ASK_ENTRY_BYTES));
            chunk->state = CHUNK_ASKED;
            asks++;
        }
    }
    return asks;
}

static uint32_t chunk_receipt_bytes(const struct put_chunk *chunk)
{
    bool waits = chunk->state == CHUNK_DONE && chunk->receipts != NULL && !chunk->staged;
    return waits ? chunk->receipt_count * RECEIPT_BYTES : 0;
}

/* Receipts of chunks that are done, up to PUT_STAGE_BYTES, in the chunks' order. */
static uint32_t receipts_write(struct put *put, struct writer *w)
{
    uint32_t receipts = 0;
    for (uint64_t entry = put->first; entry < put->next; entry++) {
        struct put_chunk *chunk = put_chunk_at(put, entry);
        uint32_t bytes = chunk_receipt_bytes(chunk);
        if (bytes == 0) {
            continue;
        }
        if (receipts * RECEIPT_BYTES + bytes > PUT_STAGE_BYTES) {
            break;
        }
        for (uint32_t shard = 0; shard < LIMIT_SHARDS; shard++) {
            if (chunk->shard_states[shard] == SHARD_DONE) {
                writer_put(w, chunk->receipts + (size_t)shard * RECEIPT_BYTES, RECEIPT_BYTES);
                receipts++;
            }
        }
        chunk->staged = true;
    }
    return receipts;
}

static void entries_write(struct put *put, uint32_t run, struct writer *w)
{
    for (uint32_t i = 0; i < run; i++) {
        const struct put_chunk *chunk = put_chunk_at(put, put->first + i);
        CHECK(chunk->state == CHUNK_DONE);
        struct manifest_entry entry = {
            .sha = chunk->sha,
            .plain_bytes = chunk->plain_bytes,
            .writer = chunk->writer,
            .encoding = chunk->encoding,
        };
        manifest_entry_encode(&entry, writer_reserve(w, MANIFEST_ENTRY_BYTES));
    }
}

static void put_call(struct client *c, struct op_slot *slot, enum put_flight flight, uint16_t type, struct slice rest,
                     struct slice body, struct effects *fx)
{
    CHECK(slot->put->flight == PUT_IDLE);
    slot->put->flight = flight;
    uint64_t ns = c->workspaces[slot->workspace].ns;
    call_group(c, put_owner(c, slot, OWNER_PUT), type, route_group_of(c, ns), ns, true, rest, body, fx);
}

static void put_send_start(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct client_put *op = &slot->op->put;
    struct writer w = {0};
    (void)asks_write(slot->put, &w);
    Cairn__UploadStartRequest request = CAIRN__UPLOAD_START_REQUEST__INIT;
    request.parent = op->parent;
    request.name = (ProtobufCBinaryData){.len = op->name_bytes, .data = op->name};
    request.base_version = op->base_version;
    request.any_base = op->any_base;
    request.bytes = op->source == CLIENT_SOURCE_FILE ? op->bytes : 0;
    struct slice body = writer_take(&w);
    writer_deinit(&w);
    put_call(c, slot, PUT_STARTING, MESSAGE_UPLOAD_START, proto_pack(&request), body, fx);
}

static void put_send_stage(struct client *c, struct op_slot *slot, uint32_t run, struct effects *fx)
{
    struct put *put = slot->put;
    struct writer w = {0};
    Cairn__UploadStageRequest request = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    request.session = put->session;
    request.receipts = receipts_write(put, &w);
    request.first_entry = put->first;
    request.entries = run;
    entries_write(put, run, &w);
    request.asks = asks_write(put, &w);
    put->flight_entries = run;
    struct slice body = writer_take(&w);
    writer_deinit(&w);
    put_call(c, slot, PUT_STAGING, MESSAGE_UPLOAD_STAGE, proto_pack(&request), body, fx);
}

void put_send_complete(struct client *c, struct op_slot *slot, struct effects *fx)
{
    Cairn__UploadCompleteRequest request = CAIRN__UPLOAD_COMPLETE_REQUEST__INIT;
    request.session = slot->put->session;
    request.bytes = slot->put->read_bytes;
    request.mode = slot->op->put.mode;
    request.mtime_ns = slot->op->put.mtime_ns;
    put_call(c, slot, PUT_ENDING, MESSAGE_UPLOAD_COMPLETE, proto_pack(&request), (struct slice){0}, fx);
}

void put_send_small(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct client_put *op = &slot->op->put;
    Cairn__PutSmallRequest request = CAIRN__PUT_SMALL_REQUEST__INIT;
    request.parent = op->parent;
    request.name = (ProtobufCBinaryData){.len = op->name_bytes, .data = op->name};
    request.base_version = op->base_version;
    request.any_base = op->any_base;
    request.mode = op->mode;
    request.mtime_ns = op->mtime_ns;
    put_call(c, slot, PUT_ENDING, MESSAGE_PUT_SMALL, proto_pack(&request), slice_ref(slot->put->small), fx);
}

/* The next manifest page: from the first entry to the first border, or to the file's end; 0 while not all of it is
 * done. Borders follow from the hashes, so that versions of a file share their pages (R-D3). */
static uint32_t page_run(struct put *put)
{
    for (uint32_t run = 0; put->first + run < put->next; run++) {
        const struct put_chunk *chunk = put_chunk_at(put, put->first + run);
        if (chunk->state != CHUNK_DONE) {
            return 0;
        }
        bool border = (chunk->sha.bytes[31] & PUT_PAGE_MASK) == 0 || run + 1 == LIMIT_PAGE_ENTRIES;
        if (border || (put_cut_over(put) && put->first + run + 1 == put->next)) {
            return run + 1;
        }
    }
    return 0;
}

/* Receipts are sent ahead of their page, with whatever goes; the entries follow when no receipt of theirs is left. */
void put_stage_pump(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct put *put = slot->put;
    if (put->flight != PUT_IDLE || !call_room(c, 1)) {
        return;
    }
    uint32_t asks = 0, run = page_run(put), run_bytes = 0, receipt_bytes = 0;
    for (uint64_t entry = put->first; entry < put->next; entry++) {
        struct put_chunk *chunk = put_chunk_at(put, entry);
        asks += chunk->state == CHUNK_HASHED;
        receipt_bytes += chunk_receipt_bytes(chunk);
        run_bytes = entry < put->first + run ? receipt_bytes : run_bytes;
    }
    if (put->session == 0) {
        if (asks >= PUT_START_ASKS || (asks > 0 && put_cut_idle(put))) {
            put_send_start(c, slot, fx);
        }
        return;
    }
    bool page = run > 0;
    run = run_bytes > PUT_STAGE_BYTES ? 0 : run;
    if (asks > 0 || page || receipt_bytes >= PUT_STAGE_BYTES / 2) {
        put_send_stage(c, slot, run, fx);
    }
}

/* ---- replies ---- */

/* Deals the answers out to the asked chunks, which stand in the order they were asked in. */
static enum err answers_read(struct client *c, struct op_slot *slot, struct slice body, struct effects *fx)
{
    struct put *put = slot->put;
    uint32_t gen = slot->gen;
    struct reader r = reader_of(body.data, body.bytes);
    for (uint64_t entry = put->first; entry < put->next; entry++) {
        struct put_chunk *chunk = put_chunk_at(put, entry);
        if (chunk->state != CHUNK_ASKED) {
            continue;
        }
        const uint8_t *data = reader_take(&r, ASK_ANSWER_BYTES);
        struct ask_answer answer;
        if (data == NULL || ask_answer_decode(data, ASK_ANSWER_BYTES, &answer) != ERR_OK) {
            return ERR_BAD_PROTO;
        }
        chunk->chunk = answer.chunk;
        if (!answer.missing) {
            chunk->writer = answer.writer;
            chunk->encoding = answer.encoding;
            free(chunk->receipts);
            chunk->receipts = NULL;
            slot->op->counts.chunks_present++;
            put_chunk_done(c, slot, chunk, fx);
            continue;
        }
        chunk->writer = put->writer;
        memcpy(chunk->kc, answer.kc, sizeof chunk->kc);
        if (chunk->sealed) {
            chunk->state = CHUNK_SENDING;
            put_chunk_send(c, slot, chunk, fx);
        } else {
            put_chunk_seal(c, slot, chunk, fx);
        }
        if (slot->gen != gen) {
            return ERR_OK; /* ended on the way */
        }
    }
    return r.left == 0 ? ERR_OK : ERR_BAD_PROTO;
}

static void capability_keep(struct put *put, ProtobufCBinaryData data)
{
    if (data.len > 0) {
        slice_drop(&put->capability);
        put->capability = slice_copy(data.data, data.len);
    }
}

static void put_on_start(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    struct put *put = slot->put;
    struct proto_arena arena = {0};
    Cairn__UploadStartReply *reply = NULL;
    enum err err = proto_unpack(&cairn__upload_start_reply__descriptor, outcome->header, &arena, (void **)&reply);
    if (err == ERR_OK && (reply->session == 0 || reply->capability.len == 0)) {
        err = ERR_BAD_PROTO;
    }
    if (err == ERR_OK) {
        put->session = reply->session;
        put->generation = reply->generation;
        put->writer = reply->writer;
        capability_keep(put, reply->capability);
        err = answers_read(c, slot, outcome->body, fx);
    }
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        client_op_finish(c, slot, err, "the answer to the start of an upload", fx);
    }
}

static void put_on_stage(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    struct put *put = slot->put;
    struct proto_arena arena = {0};
    Cairn__UploadStageReply *reply = NULL;
    enum err err = proto_unpack(&cairn__upload_stage_reply__descriptor, outcome->header, &arena, (void **)&reply);
    if (err == ERR_OK && reply->n_unresolved > 0) {
        proto_arena_deinit(&arena);
        put_restart(c, slot, ERR_UNRESOLVED, "chunks of the upload are no longer held", fx);
        return;
    }
    if (err == ERR_OK) {
        for (uint32_t i = 0; i < put->flight_entries; i++, put->first++) {
            put_chunk_free(c, put->chunks[put->first % PUT_CHUNKS]);
            put->chunks[put->first % PUT_CHUNKS] = NULL;
        }
        put->generation = reply->generation;
        capability_keep(put, reply->capability);
        err = answers_read(c, slot, outcome->body, fx);
    }
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        client_op_finish(c, slot, err, "the answer to a stage of an upload", fx);
    }
}

static void put_on_complete(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    struct client_put *op = &slot->op->put;
    struct proto_arena arena = {0};
    Cairn__UploadCompleteReply *reply = NULL;
    enum err err = proto_unpack(&cairn__upload_complete_reply__descriptor, outcome->header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        op->version = reply->version;
        op->sequence = reply->sequence;
        op->file_id = reply->file;
        op->safe_losses = reply->safe_losses;
        op->stored_bytes = slot->put->read_bytes;
    }
    proto_arena_deinit(&arena);
    client_op_finish(c, slot, err, "the answer to the end of an upload", fx);
}

void put_on_reply(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    enum put_flight flight = slot->put->flight;
    CHECK(flight != PUT_IDLE);
    slot->put->flight = PUT_IDLE;
    c->wake = true;
    enum err err = outcome->err;
    if (err != ERR_OK) {
        bool anew = err == ERR_SESSION_CLOSED || err == ERR_UNRESOLVED || err == ERR_BAD_RECEIPT || err == ERR_EXPIRED;
        if (anew && slot->put->session != 0) {
            put_restart(c, slot, err, outcome->text, fx);
        } else {
            client_op_finish(c, slot, err, outcome->text, fx);
        }
        return;
    }
    switch (flight) {
    case PUT_STARTING:
        put_on_start(c, slot, outcome, fx);
        break;
    case PUT_STAGING:
        put_on_stage(c, slot, outcome, fx);
        break;
    case PUT_ENDING:
        put_on_complete(c, slot, outcome, fx);
        break;
    case PUT_IDLE:
        break;
    }
}
