/* CHANGES: the feed after a cursor, in order and without gaps (P3). Events lie packed by batch under their last
 * sequence, so the first batch that can hold sequence `after + 1` is the first key at or behind it. */
#include <string.h>

#include "base/check.h"
#include "metad/namespace/operations.h"

struct changes_page {
    Cairn__Change *changes[LIMIT_FEED_EVENTS];
    size_t count, bytes, limit;
    uint64_t after;
    bool full;
};

/* Takes what of a batch stands behind the cursor. CORRUPT on a gap: the feed is exact or it is nothing. */
static enum err changes_take(struct changes_page *page, const Cairn__FeedBatch *batch)
{
    for (size_t i = 0; i < batch->n_changes && page->count < page->limit; i++) {
        Cairn__Change *change = batch->changes[i];
        if (change->sequence <= page->after) {
            continue;
        }
        if (change->sequence != page->after + 1) {
            return ERR_CORRUPT;
        }
        size_t bytes = cairn__change__get_packed_size(change) + 8;
        if (page->count > 0 && page->bytes + bytes > LIMIT_REPLY_BYTES / 2) {
            page->full = true;
            return ERR_OK;
        }
        page->bytes += bytes;
        page->after = change->sequence;
        page->changes[page->count++] = change;
    }
    return ERR_OK;
}

static enum err changes_fill(struct query *query, const Cairn__NamespaceRecord *ns, struct changes_page *page)
{
    while (page->after < ns->sequence && page->count < page->limit && !page->full) {
        struct key key = key_begin(query->state->group, 'V');
        key_u64(&key, ns->ns);
        struct key from = key;
        key_u64(&from, page->after + 1);
        struct slice found = {0};
        struct slice value = {0};
        uint64_t before = page->after;
        enum err err = kv_next(&query->state->kv->view, from.bytes, from.count, false, &found, &value);
        bool inside = err == ERR_OK && found.bytes == from.count && memcmp(found.data, key.bytes, key.count) == 0;
        void *batch = NULL;
        err = inside ? proto_unpack(&cairn__feed_batch__descriptor, value, query->arena, &batch) : ERR_CORRUPT;
        slice_drop(&found);
        slice_drop(&value);
        if (err == ERR_OK) {
            err = changes_take(page, batch);
        }
        bool none = page->after == before && !page->full; /* the batch ends before its key: looked at for ever */
        if (err != ERR_OK || none) {
            return ERR_CORRUPT;
        }
    }
    return ERR_OK;
}

enum err changes_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__ChangesRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = namespace_get(query->state, request->head->ns, query->arena, &ns);
    if (err != ERR_OK) {
        return err;
    }
    bool other_past = request->incarnation != 0 && request->incarnation != ns->incarnation;
    if (other_past || request->after > ns->sequence) {
        answer->text = "the cursor is of another incarnation: list, then follow from the sequence the listing names";
        return ERR_CURSOR_EXPIRED;
    }
    struct changes_page page = {.after = request->after};
    page.limit = request->limit == 0 || request->limit > LIMIT_FEED_EVENTS ? LIMIT_FEED_EVENTS : request->limit;
    err = changes_fill(query, ns, &page);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__ChangesReply reply = CAIRN__CHANGES_REPLY__INIT;
    reply.n_changes = page.count;
    reply.changes = page.changes;
    reply.incarnation = ns->incarnation;
    reply.last = ns->sequence;
    answer_set(answer, &reply);
    return ERR_OK;
}
