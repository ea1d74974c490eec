/* Chunk references of a namespace: who pins what, what receipts have shown, and what a page counts (R-A2, R-A5, R-D3).
 *
 * A chunk's record counts the live pages that name it and the sessions that pin it; both keep it from release. A
 * session's pins and receipt records lie under the session and are reaped behind its end. */
#include "metad/namespace/chunks.h"

#include <string.h>

#include "base/check.h"
#include "base/code.h"
#include "base/hash.h"
#include "proto/manifest.h"

void chunk_ref_encode(const struct chunk_ref *ref, uint8_t *data)
{
    memcpy(data, ref->chunk.bytes, 32);
    put_u32(data + 32, ref->writer);
    memcpy(data + 36, ref->encoding.bytes, 16);
}

void chunk_ref_decode(const uint8_t *data, struct chunk_ref *ret_ref)
{
    memcpy(ret_ref->chunk.bytes, data, 32);
    ret_ref->writer = get_u32(data + 32);
    memcpy(ret_ref->encoding.bytes, data + 36, 16);
}

static void key_ref(struct key *key, const struct chunk_ref *ref)
{
    key_bytes(key, ref->chunk.bytes, sizeof ref->chunk.bytes);
    key_u32(key, ref->writer);
    key_bytes(key, ref->encoding.bytes, sizeof ref->encoding.bytes);
}

struct key key_chunk(struct prefix group, uint64_t ns, const struct chunk_ref *ref)
{
    struct key key = key_begin(group, 'C');
    key_u64(&key, ns);
    key_ref(&key, ref);
    return key;
}

static struct key key_session_part(struct prefix group, uint64_t ns, uint64_t session, char part)
{
    struct key key = key_begin(group, 's');
    key_u64(&key, ns);
    key_u64(&key, session);
    if (part != 0) {
        key_u8(&key, (uint8_t)part);
    }
    return key;
}

struct key key_session_pin(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_ref *ref)
{
    struct key key = key_session_part(group, ns, session, 'c');
    key_ref(&key, ref);
    return key;
}

struct key key_session_missing(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_id *chunk)
{
    struct key key = key_session_part(group, ns, session, 'm');
    key_bytes(&key, chunk->bytes, sizeof chunk->bytes);
    return key;
}

struct key key_session_receipt(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_ref *ref,
                               uint8_t k, uint8_t m)
{
    struct key key = key_session_part(group, ns, session, 'r');
    key_ref(&key, ref);
    key_u8(&key, k);
    key_u8(&key, m);
    return key;
}

static enum err chunk_get(struct state *state, uint64_t ns, const struct chunk_ref *ref, struct proto_arena *arena,
                          Cairn__ChunkRecord **ret)
{
    struct key key = key_chunk(state->group, ns, ref);
    return state_get(state, &key, &cairn__chunk_record__descriptor, arena, ret);
}

static void chunk_put(struct state *state, uint64_t ns, const struct chunk_ref *ref, const Cairn__ChunkRecord *record)
{
    struct key key = key_chunk(state->group, ns, ref);
    state_put(state, &key, record);
}

/* Pins an existing chunk for the session, once. */
static void session_pin(struct state *state, uint64_t ns, uint64_t session, const struct chunk_ref *ref,
                        Cairn__ChunkRecord *record)
{
    struct key key = key_session_pin(state->group, ns, session, ref);
    if (state_has(state, &key)) {
        return;
    }
    record->pins++;
    chunk_put(state, ns, ref, record);
    state_put_bytes(state, &key, "", 0);
}

/* Stores may vanish of those that a chunk's receipts named and that were not down when the command was proposed (R-B3):
 * under 1 the chunk answers as missing and whoever still has it heals it (R-A8). */
static uint32_t chunk_safe_losses(const Cairn__ChunkRecord *record, const Cairn__UploadExtra *extra)
{
    uint32_t live = 0;
    for (size_t i = 0; i < record->n_stores; i++) {
        bool up = record->stores[i] != 0;
        for (size_t j = 0; up && j < extra->n_down; j++) {
            up = extra->down[j] != record->stores[i];
        }
        live += up;
    }
    return live > record->k ? live - record->k : 0;
}

/* A live chunk of this writer with this id, whichever encoding (R-C4: only what the member wrote himself). */
static bool chunk_find(struct apply *apply, uint64_t ns, const struct chunk_id *chunk, uint32_t writer,
                       const Cairn__UploadExtra *extra, struct chunk_ref *ret_ref, Cairn__ChunkRecord **ret_record)
{
    struct key prefix = key_begin(apply->state->group, 'C');
    key_u64(&prefix, ns);
    key_bytes(&prefix, chunk->bytes, sizeof chunk->bytes);
    key_u32(&prefix, writer);
    struct slice at = slice_copy(prefix.bytes, prefix.count);
    bool found = false;
    for (bool after = false; !found; after = true) {
        struct slice key = {0};
        struct slice value = {0};
        enum err err = kv_next(&apply->state->kv->view, at.data, at.bytes, after, &key, &value);
        slice_drop(&at);
        at = key;
        bool inside =
            err == ERR_OK && key.bytes == prefix.count + 16 && memcmp(key.data, prefix.bytes, prefix.count) == 0;
        void *record = NULL;
        if (inside && proto_unpack(&cairn__chunk_record__descriptor, value, apply->arena, &record) == ERR_OK) {
            Cairn__ChunkRecord *chunk_record = record;
            found = chunk_record->pages + chunk_record->pins > 0 && chunk_safe_losses(chunk_record, extra) >= 1;
            *ret_ref = (struct chunk_ref){.chunk = *chunk, .writer = writer};
            memcpy(ret_ref->encoding.bytes, key.data + prefix.count, 16);
            *ret_record = chunk_record;
        }
        slice_drop(&value);
        if (!inside) {
            break;
        }
    }
    slice_drop(&at);
    return found;
}

enum err session_ask(struct apply *apply, uint64_t ns, uint64_t session, uint32_t writer,
                     const Cairn__UploadExtra *extra, struct writer *ret_body)
{
    ProtobufCBinaryData asks = extra->asks;
    CHECK(asks.len % 36 == 0);
    for (size_t i = 0; i < asks.len; i += 36) {
        struct ask_answer answer = {.missing = true};
        memcpy(answer.chunk.bytes, asks.data + i, 32);
        struct chunk_ref ref = {.writer = writer};
        Cairn__ChunkRecord *record = NULL;
        if (chunk_find(apply, ns, &answer.chunk, writer, extra, &ref, &record)) {
            session_pin(apply->state, ns, session, &ref, record);
            answer.missing = false;
            answer.writer = writer;
            answer.encoding = ref.encoding;
            answer.sealed_bytes = record->sealed_bytes;
        } else {
            struct key key = key_session_missing(apply->state->group, ns, session, &answer.chunk);
            state_put_bytes(apply->state, &key, "", 0);
        }
        ask_answer_encode(&answer, writer_reserve(ret_body, ASK_ANSWER_BYTES));
    }
    return ERR_OK;
}

/* ---- receipts ---- */

static void session_add_store(Cairn__SessionRecord *session, struct proto_arena *arena, uint64_t store,
                              uint64_t incarnation)
{
    for (size_t i = 0; i + 1 < session->n_store_set; i += 2) {
        if (session->store_set[i] == store && session->store_set[i + 1] == incarnation) {
            return;
        }
    }
    uint64_t *grown = proto_arena_take(arena, (session->n_store_set + 2) * sizeof *grown);
    if (session->n_store_set > 0) {
        memcpy(grown, session->store_set, session->n_store_set * sizeof *grown);
    }
    grown[session->n_store_set] = store;
    grown[session->n_store_set + 1] = incarnation;
    session->store_set = grown;
    session->n_store_set += 2;
}

/* Adds (index, store) unless the index or the store stands there already: distinct indexes on distinct stores count. */
static void receipt_record_add(Cairn__ReceiptRecord *record, struct proto_arena *arena, uint32_t index, uint32_t store)
{
    for (size_t i = 0; i < record->n_indexes; i++) {
        if (record->indexes[i] == index || record->stores[i] == store) {
            return;
        }
    }
    size_t count = record->n_indexes + 1;
    uint32_t *indexes = proto_arena_take(arena, count * sizeof *indexes);
    uint32_t *stores = proto_arena_take(arena, count * sizeof *stores);
    for (size_t i = 0; i + 1 < count; i++) {
        indexes[i] = record->indexes[i];
        stores[i] = record->stores[i];
    }
    indexes[count - 1] = index;
    stores[count - 1] = store;
    record->indexes = indexes;
    record->stores = stores;
    record->n_indexes = record->n_stores = count;
}

enum err session_take_receipts(struct apply *apply, uint64_t ns, Cairn__SessionRecord *session,
                               ProtobufCBinaryData receipts)
{
    for (size_t i = 0; i + RECEIPT_BYTES <= receipts.len; i += RECEIPT_BYTES) {
        struct receipt receipt;
        enum err err = receipt_peek(receipts.data + i, RECEIPT_BYTES, &receipt);
        if (err != ERR_OK || receipt.session != session->session || receipt.generation > session->generation) {
            return ERR_BAD_RECEIPT;
        }
        struct chunk_ref ref = {receipt.shard.chunk, receipt.shard.writer, receipt.shard.encoding};
        struct key key =
            key_session_receipt(apply->state->group, ns, session->session, &ref, receipt.shard.k, receipt.shard.m);
        Cairn__ReceiptRecord empty = CAIRN__RECEIPT_RECORD__INIT;
        Cairn__ReceiptRecord *record = &empty;
        err = state_get(apply->state, &key, &cairn__receipt_record__descriptor, apply->arena, &record);
        if (err != ERR_OK && err != ERR_NOT_FOUND) {
            return err;
        }
        record->sealed_bytes = receipt.sealed_bytes;
        receipt_record_add(record, apply->arena, receipt.shard.index, receipt.store);
        state_put(apply->state, &key, record);
        session_add_store(session, apply->arena, receipt.store, receipt.store_incarnation);
    }
    return ERR_OK;
}

/* A chunk's record as one receipt record shows it: which store holds which index of that code. */
static void chunk_from_receipts(const Cairn__ReceiptRecord *receipts, uint32_t k, uint32_t m, struct proto_arena *arena,
                                Cairn__ChunkRecord *ret_chunk)
{
    ret_chunk->sealed_bytes = receipts->sealed_bytes;
    ret_chunk->k = k;
    ret_chunk->m = m;
    ret_chunk->n_stores = k + m;
    ret_chunk->stores = proto_arena_take(arena, (k + m) * sizeof *ret_chunk->stores);
    for (size_t i = 0; i < receipts->n_indexes; i++) {
        if (receipts->indexes[i] < k + m) {
            ret_chunk->stores[receipts->indexes[i]] = receipts->stores[i];
        }
    }
}

/* The best code that receipts of this session show for a chunk: k shards and at least one more on distinct stores
 * (R-B3). */
static bool receipts_suffice(struct apply *apply, uint64_t ns, uint64_t session, const struct chunk_ref *ref,
                             const Cairn__UploadExtra *extra, Cairn__ChunkRecord *ret_chunk)
{
    struct key prefix = key_session_part(apply->state->group, ns, session, 'r');
    key_ref(&prefix, ref);
    struct slice at = slice_copy(prefix.bytes, prefix.count);
    uint32_t best = 0;
    for (bool after = false;; after = true) {
        struct slice key = {0};
        struct slice value = {0};
        enum err err = kv_next(&apply->state->kv->view, at.data, at.bytes, after, &key, &value);
        slice_drop(&at);
        at = key;
        bool inside =
            err == ERR_OK && key.bytes == prefix.count + 2 && memcmp(key.data, prefix.bytes, prefix.count) == 0;
        void *message = NULL;
        if (inside && proto_unpack(&cairn__receipt_record__descriptor, value, apply->arena, &message) == ERR_OK) {
            Cairn__ChunkRecord shown = CAIRN__CHUNK_RECORD__INIT;
            chunk_from_receipts(message, key.data[prefix.count], key.data[prefix.count + 1], apply->arena, &shown);
            uint32_t safe = chunk_safe_losses(&shown, extra);
            if (safe > best) {
                best = safe;
                *ret_chunk = shown;
            }
        }
        slice_drop(&value);
        if (!inside) {
            break;
        }
    }
    slice_drop(&at);
    return best >= 1;
}

/* Remembers the live stores of a chunk: complete takes those off that went down since (R-B3). */
static void session_count_stores(struct apply *apply, Cairn__SessionRecord *session, const Cairn__ChunkRecord *chunk,
                                 const Cairn__UploadExtra *extra)
{
    for (size_t i = 0; i < chunk->n_stores; i++) {
        bool skip = chunk->stores[i] == 0;
        for (size_t j = 0; !skip && j < extra->n_down; j++) {
            skip = extra->down[j] == chunk->stores[i];
        }
        for (size_t j = 0; !skip && j < session->n_counted; j++) {
            skip = session->counted[j] == chunk->stores[i];
        }
        if (!skip) {
            uint32_t *grown = proto_arena_take(apply->arena, (session->n_counted + 1) * sizeof *grown);
            if (session->n_counted > 0) {
                memcpy(grown, session->counted, session->n_counted * sizeof *grown);
            }
            grown[session->n_counted++] = chunk->stores[i];
            session->counted = grown;
        }
    }
}

bool session_resolve(struct apply *apply, uint64_t ns, Cairn__SessionRecord *session, const struct chunk_ref *ref,
                     uint32_t plain_bytes, const Cairn__UploadExtra *extra, uint32_t *ret_safe_losses)
{
    Cairn__ChunkRecord *record = NULL;
    enum err err = chunk_get(apply->state, ns, ref, apply->arena, &record);
    struct key pin = key_session_pin(apply->state->group, ns, session->session, ref);
    bool pinned = err == ERR_OK && state_has(apply->state, &pin);
    uint32_t held = err == ERR_OK ? chunk_safe_losses(record, extra) : 0;
    Cairn__ChunkRecord shown = CAIRN__CHUNK_RECORD__INIT;
    if (receipts_suffice(apply, ns, session->session, ref, extra, &shown) && chunk_safe_losses(&shown, extra) >= held) {
        shown.plain_bytes = plain_bytes;
        shown.pages = err == ERR_OK ? record->pages : 0;
        shown.pins = err == ERR_OK ? record->pins : 0;
        chunk_put(apply->state, ns, ref, &shown);
        session_pin(apply->state, ns, session->session, ref, &shown);
        session_count_stores(apply, session, &shown, extra);
        *ret_safe_losses = chunk_safe_losses(&shown, extra);
        return true;
    }
    if (!pinned || held < 1) {
        return false;
    }
    session_count_stores(apply, session, record, extra);
    *ret_safe_losses = held;
    return true;
}

/* ---- pages ---- */

struct key key_page(struct prefix group, uint64_t ns, const void *page)
{
    struct key key = key_begin(group, 'P');
    key_u64(&key, ns);
    key_bytes(&key, page, 32);
    return key;
}

struct key key_page_link(struct prefix group, uint64_t ns, uint64_t manifest, uint64_t first_entry)
{
    struct key key = key_begin(group, 'p');
    key_u64(&key, ns);
    key_u64(&key, manifest);
    key_u64(&key, first_entry);
    return key;
}

void page_ref(struct apply *apply, uint64_t ns, const Cairn__UploadExtra *extra, uint32_t entries, uint32_t safe_losses)
{
    struct key key = key_page(apply->state->group, ns, extra->page.data);
    Cairn__PageRecord *page = NULL;
    enum err err = state_get(apply->state, &key, &cairn__page_record__descriptor, apply->arena, &page);
    if (err == ERR_OK) {
        page->versions++;
        state_put(apply->state, &key, page);
        return;
    }
    CHECK(err == ERR_NOT_FOUND);
    Cairn__PageRecord made = CAIRN__PAGE_RECORD__INIT;
    made.versions = 1;
    made.entries = entries;
    made.bytes = extra->bytes;
    made.refs = extra->refs;
    made.sealed = extra->sealed;
    made.safe_losses = safe_losses;
    state_put(apply->state, &key, &made);
    for (size_t i = 0; i < extra->refs.len; i += CHUNK_REF_BYTES) {
        struct chunk_ref ref;
        Cairn__ChunkRecord *chunk = NULL;
        chunk_ref_decode(extra->refs.data + i, &ref);
        err = chunk_get(apply->state, ns, &ref, apply->arena, &chunk);
        CHECK(err == ERR_OK);
        chunk->pages++;
        chunk_put(apply->state, ns, &ref, chunk);
    }
}

/* Deletes one key of a session, which is `prefix_bytes` and a part; a chunk it held loses that pin. */
static void session_key_reap(struct state *state, uint64_t ns, struct slice key, size_t prefix_bytes,
                             struct proto_arena *arena)
{
    if (key.data[prefix_bytes] == 'c' && key.bytes == prefix_bytes + 1 + CHUNK_REF_BYTES) {
        const uint8_t *at = key.data + prefix_bytes + 1;
        struct chunk_ref ref = {.writer = get_be32(at + 32)};
        memcpy(ref.chunk.bytes, at, 32);
        memcpy(ref.encoding.bytes, at + 36, 16);
        Cairn__ChunkRecord *chunk = NULL;
        enum err err = chunk_get(state, ns, &ref, arena, &chunk);
        CHECK(err == ERR_OK && chunk->pins > 0);
        chunk->pins--;
        chunk_put(state, ns, &ref, chunk);
    }
    kv_batch_delete(state->kv->batch, key.data, key.bytes);
}

bool session_reap(struct state *state, uint64_t ns, uint64_t session, struct proto_arena *arena, unsigned limit)
{
    struct key prefix = key_session_part(state->group, ns, session, 0);
    struct slice at = slice_copy(prefix.bytes, prefix.count); /* moves on: what lies behind it is deleted */
    bool over = false;
    for (unsigned i = 0; i < limit && !over; i++) {
        struct slice found = {0};
        struct slice value = {0};
        enum err err = kv_next(&state->kv->view, at.data, at.bytes, i > 0, &found, &value);
        slice_drop(&value);
        slice_drop(&at);
        at = found;
        over = err != ERR_OK || found.bytes <= prefix.count || memcmp(found.data, prefix.bytes, prefix.count) != 0;
        if (!over) {
            session_key_reap(state, ns, found, prefix.count, arena);
        }
    }
    slice_drop(&at);
    return over;
}
