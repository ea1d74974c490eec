/* MANIFEST: what a reader needs to fetch a version: its inline bytes, or per chunk hash, id, key, writer and encoding,
 * and a capability to read (R-C2, R-F3: no locations). Pages are unsealed here, on a leader that holds the keys. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/seal.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "proto/manifest.h"

#define MANIFEST_ENTRIES_MAX LIMIT_PAGE_ENTRIES /* one answer; readers refuse more */
_Static_assert(MANIFEST_ENTRIES_MAX *MANIFEST_READ_BYTES <= LIMIT_REPLY_BYTES, "an answer is one page of a query");

static enum err manifest_open_inline(struct query *query, const Cairn__NamespaceRecord *ns,
                                     const Cairn__EntryRecord *record, struct answer *answer)
{
    uint8_t key[32];
    rest_key_derive(query->keyring, ns->ns, "inline", key);
    return value_unseal(key, NULL, 0, record->inline_sealed.data, record->inline_sealed.len, &answer->body);
}

/* Appends the entries of one page from number `skip` on. */
static enum err manifest_open_page(struct query *query, const Cairn__NamespaceRecord *ns, const Cairn__PageLink *link,
                                   uint32_t skip, struct writer *out)
{
    Cairn__PageRecord *page = NULL;
    struct key key = key_page(query->state->group, ns->ns, link->page.data);
    enum err err = state_get(query->state, &key, &cairn__page_record__descriptor, query->arena, &page);
    if (err != ERR_OK || page->refs.len != (size_t)page->entries * CHUNK_REF_BYTES || page->entries != link->entries) {
        return ERR_CORRUPT;
    }
    uint8_t rest_key[32];
    struct slice plain = {0};
    rest_key_derive(query->keyring, ns->ns, "page", rest_key);
    err = value_unseal(rest_key, link->page.data, link->page.len, page->sealed.data, page->sealed.len, &plain);
    if (err != ERR_OK || plain.bytes != (size_t)page->entries * 36) {
        slice_drop(&plain);
        return ERR_CORRUPT;
    }
    for (uint32_t i = skip; i < page->entries && out->bytes / MANIFEST_READ_BYTES < MANIFEST_ENTRIES_MAX; i++) {
        struct manifest_read read = {.entry.plain_bytes = get_u32(plain.data + (size_t)i * 36 + 32)};
        struct chunk_ref ref;
        chunk_ref_decode(page->refs.data + (size_t)i * CHUNK_REF_BYTES, &ref);
        memcpy(read.entry.sha.bytes, plain.data + (size_t)i * 36, 32);
        read.entry.writer = ref.writer;
        read.entry.encoding = ref.encoding;
        read.chunk = ref.chunk;
        chunk_key_of(query->keyring->realm_key, ref.chunk, read.kc);
        manifest_read_encode(&read, writer_reserve(out, MANIFEST_READ_BYTES));
    }
    slice_drop(&plain);
    return ERR_OK;
}

/* The link that holds entry `at`: the last one that begins at or before it. */
static enum err manifest_find_link(struct query *query, const Cairn__NamespaceRecord *ns, uint64_t manifest,
                                   uint64_t at, uint64_t *ret_first, Cairn__PageLink **ret_link)
{
    struct key before = key_page_link(query->state->group, ns->ns, manifest, at + 1);
    struct slice key = {0};
    struct slice value = {0};
    enum err err = kv_prev(&query->state->kv->view, before.bytes, before.count, &key, &value);
    bool inside = err == ERR_OK && key.bytes == before.count && memcmp(key.data, before.bytes, before.count - 8) == 0;
    void *link = NULL;
    err = inside ? proto_unpack(&cairn__page_link__descriptor, value, query->arena, &link) : ERR_CORRUPT;
    if (err == ERR_OK) {
        *ret_first = get_be64(key.data + key.bytes - 8);
        *ret_link = link;
        err = at - *ret_first < (*ret_link)->entries && (*ret_link)->page.len == 32 ? ERR_OK : ERR_CORRUPT;
    }
    slice_drop(&key);
    slice_drop(&value);
    return err;
}

static enum err manifest_open_chunks(struct query *query, const Cairn__NamespaceRecord *ns,
                                     const Cairn__EntryRecord *record, uint64_t first_entry, struct writer *out)
{
    for (uint64_t at = first_entry; at < record->chunk_count;) {
        uint64_t first = 0;
        Cairn__PageLink *link = NULL;
        enum err err = manifest_find_link(query, ns, record->manifest, at, &first, &link);
        size_t before = out->bytes;
        if (err == ERR_OK) {
            err = manifest_open_page(query, ns, link, (uint32_t)(at - first), out);
        }
        if (err != ERR_OK) {
            return err;
        }
        if (out->bytes == before) {
            break;
        }
        at += (out->bytes - before) / MANIFEST_READ_BYTES;
    }
    return ERR_OK;
}

enum err manifest_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__ManifestRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    Cairn__FolderRecord *folder = NULL;
    Cairn__EntryRecord *record = NULL;
    uint64_t parent = 0;
    enum err err = namespace_get(query->state, request->head->ns, query->arena, &ns);
    if (err == ERR_OK) {
        err = folder_get_live(query->state, ns, request->parent, query->arena, &parent, &folder);
    }
    if (err == ERR_OK) {
        err = entry_get(query->state, ns->ns, parent, &request->name, query->arena, NULL, &record);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (record->entry->kind == ENTRY_FOLDER) {
        return ERR_IS_A_FOLDER;
    }
    if (request->version != 0 && request->version != record->entry->version) {
        return ERR_CONFLICT;
    }
    Cairn__ManifestReply reply = CAIRN__MANIFEST_REPLY__INIT;
    reply.entry = record->entry;
    reply.inline_content = record->inline_sealed.len > 0;
    reply.entries = record->chunk_count;
    reply.first_entry = request->first_entry;
    reply.pool = ns->pool;
    reply.realm = ns->realm;
    struct writer out = {0};
    err = reply.inline_content ? manifest_open_inline(query, ns, record, answer)
                               : manifest_open_chunks(query, ns, record, request->first_entry, &out);
    if (err == ERR_OK) {
        uint8_t token[CAPABILITY_BYTES];
        const struct capability_grant grant = {.bearer = query->bearer,
                                               .writer = query->user->writer,
                                               .generation = ns->generation,
                                               .operations = CAPABILITY_GET};
        capability_issue(query->keyring, query->bootstrap, ns, &grant, token);
        reply.capability = (ProtobufCBinaryData){sizeof token, token};
        reply.count = (uint32_t)(out.bytes / MANIFEST_READ_BYTES);
        answer_set(answer, &reply);
        if (out.bytes > 0) {
            answer->body = writer_take(&out);
        }
    }
    writer_deinit(&out);
    return err;
}
