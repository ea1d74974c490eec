/* REFERENCES: every chunk that a namespace references, page by page: what an operator compares with the stores' lists
 * to find each chunk whole or not. Chunks that nothing live names any more (pages and pins both 0) are left out. */
#include <string.h>

#include "base/check.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "proto/manifest.h"

#define REFERENCES_MAX (LIMIT_REPLY_BYTES / 2 / REFERENCE_BYTES)

static void reference_put(struct writer *body, const uint8_t *ref, const Cairn__ChunkRecord *chunk)
{
    writer_put(body, ref, 32);
    writer_u32(body, get_be32(ref + 32));
    writer_put(body, ref + 36, 16);
    writer_u8(body, (uint8_t)chunk->k);
    writer_u8(body, (uint8_t)chunk->m);
    writer_u32(body, chunk->plain_bytes);
    writer_u32(body, chunk->sealed_bytes);
}

/* Appends up to `limit` chunks behind `at`; `at` becomes the last key seen. True when there are more. */
static enum err references_fill(struct query *query, const struct key *prefix, struct slice *at, uint32_t limit,
                                struct writer *body, bool *ret_more)
{
    *ret_more = false;
    for (uint32_t seen = 0;; seen++) {
        struct slice key = {0};
        struct slice value = {0};
        enum err err = kv_next(&query->state->kv->view, at->data, at->bytes, true, &key, &value);
        bool inside = err == ERR_OK && key.bytes == prefix->count + CHUNK_REF_BYTES &&
                      memcmp(key.data, prefix->bytes, prefix->count) == 0;
        *ret_more = inside && seen == limit;
        void *chunk = NULL;
        if (inside && seen < limit) {
            err = proto_unpack(&cairn__chunk_record__descriptor, value, query->arena, &chunk);
        }
        slice_drop(&value);
        if (!inside || seen == limit || err != ERR_OK) {
            slice_drop(&key);
            return inside || err == ERR_NOT_FOUND ? (inside ? err : ERR_OK) : err;
        }
        const Cairn__ChunkRecord *record = chunk;
        if (record->pages + record->pins > 0) {
            reference_put(body, key.data + prefix->count, record);
        }
        slice_drop(at);
        *at = key;
    }
}

enum err references_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__ReferencesRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = namespace_get(query->state, request->head->ns, query->arena, &ns);
    if (err != ERR_OK) {
        return err;
    }
    if (request->after.len != 0 && request->after.len != CHUNK_REF_BYTES) {
        return ERR_INVALID;
    }
    struct key prefix = key_begin(query->state->group, 'C');
    key_u64(&prefix, ns->ns);
    struct key from = prefix;
    key_bytes(&from, request->after.data, request->after.len);
    uint32_t limit = request->limit == 0 || request->limit > REFERENCES_MAX ? REFERENCES_MAX : request->limit;
    struct slice at = slice_copy(from.bytes, from.count);
    struct writer body = {0};
    bool more = false;
    err = references_fill(query, &prefix, &at, limit, &body, &more);
    if (err == ERR_OK) {
        uint8_t token[CAPABILITY_BYTES];
        const struct capability_grant grant = {.bearer = query->bearer,
                                               .writer = query->user->writer,
                                               .generation = ns->generation,
                                               .operations = CAPABILITY_GET};
        capability_issue(query->keyring, query->bootstrap, ns, &grant, token);
        Cairn__ReferencesReply reply = CAIRN__REFERENCES_REPLY__INIT;
        reply.count = (uint32_t)(body.bytes / REFERENCE_BYTES);
        reply.capability = (ProtobufCBinaryData){sizeof token, token};
        reply.realm = ns->realm;
        reply.pool = ns->pool;
        if (more) {
            reply.next = (ProtobufCBinaryData){at.bytes - prefix.count, at.data + prefix.count};
        }
        answer_set(answer, &reply);
        answer->body = writer_take(&body);
    }
    writer_deinit(&body);
    slice_drop(&at);
    return err;
}
