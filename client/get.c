/* Download of one file: manifest pages from the namespace's group, chunks fetched side by side (get_chunk.c), their
 * plain bytes handed to the shell in order. It stands between both planes and the person's file.
 *
 * Happy path: page, chunks, CLIENT_DATA for each in turn, CLIENT_ACK for what was consumed, next page, done. Inline
 * content comes with the first page.
 *
 * How it fails: an expired capability is renewed by asking for the page again (of the same version); a chunk that
 * cannot be had ends the operation: UNAVAILABLE while a store that may have it is silent, CORRUPT when all have spoken.
 * Bytes reach the shell only after the chunk's hash has been checked (P4). */
#include "get.h"

#include <stdlib.h>
#include <string.h>

static void get_chunks_clear(struct client *c, struct get *get)
{
    for (; get->first < get->next; get->first++) {
        get_chunk_free(c, get->chunks[get->first % GET_CHUNKS]);
        get->chunks[get->first % GET_CHUNKS] = NULL;
    }
}

void get_destroy(struct client *c, struct op_slot *slot)
{
    struct get *get = slot->get;
    if (get == NULL) {
        return;
    }
    get_chunks_clear(c, get);
    window_give(c, get->charged);
    slice_drop(&get->capability);
    free(get->page);
    free(get);
    slot->get = NULL;
}

void get_arm_timer(struct client *c, struct op_slot *slot, struct effects *fx)
{
    if (!slot->get->timer) {
        slot->get->timer = true;
        fx_timer(fx, OP_TIMER | token_of(c, slot, 0), c->now_ns + CHUNK_WAIT_NS + client_random(c) % CHUNK_WAIT_NS);
    }
}

/* ---- pages ---- */

static void get_ask_page(struct client *c, struct op_slot *slot, uint64_t first_entry, struct effects *fx)
{
    struct client_get *op = &slot->op->get;
    Cairn__ManifestRequest request = CAIRN__MANIFEST_REQUEST__INIT;
    request.parent = op->parent;
    request.name = (ProtobufCBinaryData){.len = op->name_bytes, .data = op->name};
    request.version = slot->get->version;
    request.first_entry = first_entry;
    slot->get->asking = true;
    uint64_t ns = c->workspaces[slot->workspace].ns;
    struct owner owner = {.kind = OWNER_GET, .op = (uint32_t)(slot - c->slots), .gen = slot->gen};
    call_group(c, owner, MESSAGE_MANIFEST, route_group_of(c, ns), ns, false, proto_pack(&request), (struct slice){0},
               fx);
}

void get_want_capability(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct get *get = slot->get;
    if (!get->asking && call_room(c, 1) && c->now_ns >= get->refreshed_ns + BACKOFF_FIRST_NS) {
        get->refreshed_ns = c->now_ns;
        get->refresh = true;
        get_ask_page(c, slot, get->page_first, fx);
    }
}

void get_start(struct client *c, struct op_slot *slot, struct effects *fx)
{
    CHECK(slot->get == NULL);
    slot->get = mem_alloc(sizeof *slot->get);
    slot->get->version = slot->op->get.version;
    if (!call_room(c, 1)) {
        client_op_finish(c, slot, ERR_BUSY, "too many requests at once", fx);
        return;
    }
    get_ask_page(c, slot, 0, fx);
}

static void get_deliver(struct client *c, struct op_slot *slot, uint64_t offset, struct slice data, struct effects *fx)
{
    struct get *get = slot->get;
    uint8_t header[16];
    (void)c;
    put_u64(header, offset);
    put_u64(header + 8, get->bytes);
    get->unacked += data.bytes;
    get->delivered += data.bytes;
    client_post(fx, MESSAGE_CLIENT_DATA, slot->op->id, header, sizeof header, data);
}

/* The first page: what file this is. */
static enum err get_begin(struct client *c, struct op_slot *slot, const Cairn__ManifestReply *reply,
                          const struct outcome *outcome, struct effects *fx)
{
    struct get *get = slot->get;
    if (reply->entry == NULL) {
        return ERR_BAD_PROTO;
    }
    get->begun = true;
    get->version = reply->entry->version;
    get->bytes = reply->entry->bytes;
    get->entries = reply->inline_content ? 0 : reply->entries;
    slot->op->get.manifest = slice_ref(outcome->header);
    slot->op->counts.chunks = get->entries;
    if (reply->inline_content) {
        if (outcome->body.bytes != get->bytes) {
            return ERR_BAD_PROTO;
        }
        if (outcome->body.bytes > 0) {
            get_deliver(c, slot, 0, slice_ref(outcome->body), fx);
        }
    }
    return ERR_OK;
}

static enum err get_page(struct get *get, const Cairn__ManifestReply *reply, struct slice body)
{
    bool sane = reply->count <= LIMIT_PAGE_ENTRIES && body.bytes == (uint64_t)reply->count * MANIFEST_READ_BYTES &&
                reply->entries == get->entries && (reply->count > 0 || get->entries == 0);
    uint64_t want = get->refresh ? get->page_first : get->page_first + get->page_count;
    if (!sane || reply->first_entry != want || reply->first_entry + reply->count > get->entries) {
        return ERR_BAD_PROTO;
    }
    struct manifest_read *page = mem_alloc((reply->count + 1ul) * sizeof *page);
    for (uint32_t i = 0; i < reply->count; i++) {
        if (manifest_read_decode(body.data + i * MANIFEST_READ_BYTES, MANIFEST_READ_BYTES, &page[i]) != ERR_OK) {
            free(page);
            return ERR_BAD_PROTO;
        }
    }
    free(get->page);
    get->page = page;
    get->page_first = reply->first_entry;
    get->page_count = reply->count;
    return ERR_OK;
}

void get_on_manifest(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    struct get *get = slot->get;
    struct proto_arena arena = {0};
    Cairn__ManifestReply *reply = NULL;
    enum err err = outcome->err;
    const char *text = outcome->text;
    get->asking = false;
    if (err == ERR_OK) {
        text = "the manifest";
        err = proto_unpack(&cairn__manifest_reply__descriptor, outcome->header, &arena, (void **)&reply);
    }
    if (err == ERR_OK && !get->begun) {
        err = get_begin(c, slot, reply, outcome, fx);
    }
    if (err == ERR_OK && !reply->inline_content) {
        err = get_page(get, reply, outcome->body);
        slice_drop(&get->capability);
        get->capability = slice_copy(reply->capability.data, reply->capability.len);
        get->pool = reply->pool;
        get->realm = reply->realm;
    }
    get->refresh = false;
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        client_op_finish(c, slot, err, text, fx);
        return;
    }
    get_on_timer(c, slot, fx); /* chunks that waited for a capability go on */
}

/* ---- chunks in order ---- */

static void get_deliver_ready(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct get *get = slot->get;
    struct get_chunk *chunk = get_chunk_at(get, get->first);
    while (chunk != NULL && chunk->state == GET_READY) {
        struct slice plain = chunk->plain;
        chunk->plain = (struct slice){0};
        get->charged += chunk->charge; /* held until the shell has consumed the bytes */
        chunk->charge = 0;
        get_deliver(c, slot, chunk->offset, plain, fx);
        get->chunks[get->first % GET_CHUNKS] = NULL;
        get_chunk_free(c, chunk);
        get->first++;
        chunk = get_chunk_at(get, get->first);
    }
}

static void get_begin_chunks(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct get *get = slot->get;
    uint32_t gen = slot->gen;
    while (get->next < get->page_first + get->page_count && get->next - get->first < GET_CHUNKS) {
        const struct manifest_read *manifest = &get->page[get->next - get->page_first];
        uint64_t charge = (uint64_t)manifest->entry.plain_bytes * GET_WINDOW_COST;
        if (!call_room(c, LIMIT_SHARDS) || !window_take(c, charge, false)) {
            return;
        }
        struct get_chunk *chunk = mem_alloc(sizeof *chunk);
        chunk->entry = get->next++;
        chunk->offset = get->offset_next;
        chunk->charge = charge;
        chunk->manifest = *manifest;
        get->offset_next += manifest->entry.plain_bytes;
        get->chunks[chunk->entry % GET_CHUNKS] = chunk;
        get_chunk_begin(c, slot, chunk, fx);
        if (slot->gen != gen) {
            return;
        }
    }
}

void get_pump(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct get *get = slot->get;
    if (!get->begun) {
        return;
    }
    uint32_t gen = slot->gen;
    get_deliver_ready(c, slot, fx);
    get_begin_chunks(c, slot, fx);
    if (slot->gen != gen) {
        return;
    }
    uint64_t page_end = get->page_first + get->page_count;
    if (get->next == page_end && page_end < get->entries && !get->asking && call_room(c, 1)) {
        get_ask_page(c, slot, page_end, fx);
    }
    if (get->first == get->entries && get->unacked == 0) {
        bool whole = get->delivered == get->bytes;
        client_op_finish(c, slot, whole ? ERR_OK : ERR_CORRUPT, "the chunks do not add up to the file's size", fx);
    }
}

void get_on_ack(struct client *c, struct op_slot *slot, uint64_t bytes, struct effects *fx)
{
    struct get *get = slot->get;
    (void)fx;
    CHECK(bytes <= get->unacked);
    uint64_t charge = bytes * GET_WINDOW_COST;
    charge = charge > get->charged ? get->charged : charge; /* inline bytes were never charged */
    get->unacked -= bytes;
    get->charged -= charge;
    window_give(c, charge);
    c->wake = true;
}

void get_on_compute(struct client *c, struct op_slot *slot, uint64_t entry, struct compute_job *job, struct effects *fx)
{
    struct get_chunk *chunk = get_chunk_at(slot->get, entry);
    CHECK(chunk != NULL && chunk->state == GET_OPENING);
    c->wake = true;
    if (job->err != ERR_OK) {
        chunk->last = job->err;
        chunk->state = GET_FETCHING;
        get_chunk_go(c, slot, chunk, fx);
        return;
    }
    chunk->plain = slice_ref(job->out[0]);
    chunk->state = GET_READY;
    for (uint32_t i = 0; i < chunk->source_count; i++) {
        slice_drop(&chunk->sources[i].data);
    }
}

void get_on_timer(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct get *get = slot->get;
    uint32_t gen = slot->gen;
    get->timer = false;
    c->wake = true;
    for (uint64_t entry = get->first; slot->gen == gen && entry < get->next; entry++) {
        struct get_chunk *chunk = get_chunk_at(get, entry);
        if (chunk->state == GET_WAITING) {
            get_chunk_begin(c, slot, chunk, fx);
        }
    }
}
