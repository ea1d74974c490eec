/* LIST: a range scan over the entries of a folder, in order of their NFC names, with a page token. */
#include <string.h>

#include "base/check.h"
#include "metad/namespace/operations.h"

struct listing {
    Cairn__Entry *entries[LIMIT_LIST_ENTRIES];
    size_t count, bytes;
    struct slice next;
};

static enum err listing_fill(struct query *query, const struct key *prefix, struct slice *at, bool after,
                             uint32_t limit, struct listing *listing)
{
    while (true) {
        struct slice key = {0};
        struct slice value = {0};
        enum err err = kv_next(&query->state->kv->view, at->data, at->bytes, after, &key, &value);
        bool inside = err == ERR_OK && key.bytes > prefix->count && memcmp(key.data, prefix->bytes, prefix->count) == 0;
        if (!inside || listing->count == limit || listing->bytes > LIMIT_REPLY_BYTES / 2) {
            if (inside) {
                listing->next = slice_ref(*at);
            }
            slice_drop(&key);
            slice_drop(&value);
            return err == ERR_NOT_FOUND ? ERR_OK : err;
        }
        void *record = NULL;
        err = proto_unpack(&cairn__entry_record__descriptor, value, query->arena, &record);
        listing->bytes += value.bytes;
        slice_drop(&value);
        if (err != ERR_OK || ((Cairn__EntryRecord *)record)->entry == NULL) {
            slice_drop(&key);
            return ERR_CORRUPT;
        }
        listing->entries[listing->count++] = ((Cairn__EntryRecord *)record)->entry;
        slice_drop(at);
        *at = key;
        after = true;
    }
}

enum err list_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__ListRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    Cairn__FolderRecord *folder = NULL;
    uint64_t id = 0;
    enum err err = namespace_get(query->state, request->head->ns, query->arena, &ns);
    if (err == ERR_OK) {
        err = folder_get_live(query->state, ns, request->folder, query->arena, &id, &folder);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (request->after.len > 3 * LIMIT_NAME_BYTES) {
        return ERR_INVALID;
    }
    struct key prefix = key_entry(query->state->group, ns->ns, id, (struct slice){0});
    struct key from = prefix;
    key_bytes(&from, request->after.data, request->after.len);
    uint32_t limit = request->limit == 0 || request->limit > LIMIT_LIST_ENTRIES ? LIMIT_LIST_ENTRIES : request->limit;
    struct listing listing = {.count = 0};
    struct slice at = slice_copy(from.bytes, from.count);
    err = listing_fill(query, &prefix, &at, request->after.len > 0, limit, &listing);
    if (err == ERR_OK) {
        Cairn__ListReply reply = CAIRN__LIST_REPLY__INIT;
        reply.n_entries = listing.count;
        reply.entries = listing.entries;
        reply.sequence = ns->sequence;
        if (listing.next.bytes > prefix.count) {
            reply.next = (ProtobufCBinaryData){listing.next.bytes - prefix.count, listing.next.data + prefix.count};
        }
        answer_set(answer, &reply);
    }
    slice_drop(&at);
    slice_drop(&listing.next);
    return err;
}
