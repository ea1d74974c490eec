/* A replica's state as records (check_state.h). Keys: metad/machine.h, proto/cairn.proto. */
#include "check_state.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "check/references.h"
#include "check/tree.h"
#include "metad/machine.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { PREFIX = 9, REF_BYTES = 52 }; /* group, view, letter; a reference */

/* One pair: what stands behind the prefix and the namespace, and the value. */
struct row {
    struct state_dump *dump;
    const uint8_t *key; /* behind the namespace */
    size_t key_bytes;
    struct slice value;
    struct proto_arena *arena;
};

static enum err unpack(const struct row *row, const ProtobufCMessageDescriptor *descriptor, void *ret)
{
    void *message = NULL;
    enum err err = proto_unpack(descriptor, row->value, row->arena, &message);
    memcpy(ret, &message, sizeof message);
    return err;
}

static char *text_of(const void *data, size_t bytes)
{
    char *text = strndup(data != NULL ? data : "", bytes);
    CHECK(text != NULL);
    return text;
}

static char *hex_of(const void *data, size_t bytes)
{
    char *text = mem_alloc(2 * bytes + 1);
    hex_encode(data, bytes, text);
    return text;
}

static struct state_record *add(struct state_dump *dump, enum state_kind kind, char *name, char *other)
{
    struct state_record *record = state_add(dump, kind, name, other);
    free(name);
    free(other);
    return record;
}

static enum err row_namespace(const struct row *row)
{
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = unpack(row, &cairn__namespace_record__descriptor, &ns);
    if (err == ERR_OK) {
        struct state_record *record = add(row->dump, STATE_NAMESPACE, NULL, NULL);
        record->id = ns->root;
        record->count = ns->entries;
        record->bytes = ns->bytes;
    }
    return err;
}

static enum err row_folder(const struct row *row)
{
    Cairn__FolderRecord *folder = NULL;
    enum err err = unpack(row, &cairn__folder_record__descriptor, &folder);
    if (err == ERR_OK && (row->key_bytes != 8 || folder->n_digest != 4)) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        struct state_record *record = add(row->dump, STATE_FOLDER, NULL, NULL);
        record->id = get_be64(row->key);
        record->parent = folder->parent;
        record->count = folder->entries;
        record->bytes = folder->bytes;
        memcpy(record->digest, folder->digest, sizeof record->digest);
    }
    return err;
}

/* A live entry, or one of the history: there the key says where and when, and an empty record is a removal. */
static enum err row_entry(const struct row *row, bool past)
{
    Cairn__EntryRecord *entry = NULL;
    enum err err = unpack(row, &cairn__entry_record__descriptor, &entry);
    if (err != ERR_OK || (!past && entry->entry == NULL) || row->key_bytes < (past ? 17u : 8u)) {
        return ERR_CORRUPT;
    }
    size_t name_bytes = row->key_bytes - (past ? 17 : 8);
    struct state_record *record =
        add(row->dump, past ? STATE_PAST : STATE_ENTRY, text_of(row->key + 8, name_bytes), NULL);
    record->parent = get_be64(row->key);
    record->manifest = entry->manifest;
    record->count = entry->chunk_count;
    if (past) {
        record->sequence = UINT64_MAX - get_be64(row->key + row->key_bytes - 8);
        return ERR_OK;
    }
    record->type = entry->entry->kind;
    record->id = entry->entry->file;
    record->version = entry->entry->version;
    record->bytes = entry->entry->bytes;
    record->sequence = entry->entry->sequence;
    return ERR_OK;
}

static enum err row_events(const struct row *row)
{
    Cairn__FeedBatch *batch = NULL;
    enum err err = unpack(row, &cairn__feed_batch__descriptor, &batch);
    for (size_t i = 0; err == ERR_OK && i < batch->n_changes; i++) {
        const Cairn__Change *change = batch->changes[i];
        bool moved = change->kind == CHANGE_MOVE;
        struct state_record *record =
            add(row->dump, STATE_EVENT, text_of(change->entry->name.data, change->entry->name.len),
                moved ? text_of(change->from_name.data, change->from_name.len) : NULL);
        record->sequence = change->sequence;
        record->type = change->kind;
        record->parent = change->entry->parent;
        record->id = change->from_parent;
    }
    return err;
}

static enum err row_page(const struct row *row)
{
    Cairn__PageRecord *page = NULL;
    enum err err = unpack(row, &cairn__page_record__descriptor, &page);
    if (err == ERR_OK) {
        struct state_record *record = add(row->dump, STATE_PAGE, hex_of(row->key, row->key_bytes), NULL);
        record->count = page->versions;
        for (size_t i = 0; i + REF_BYTES <= page->refs.len; i += REF_BYTES) {
            uint8_t ref[REF_BYTES]; /* as in keys: the writer big-endian */
            memcpy(ref, page->refs.data + i, REF_BYTES);
            put_be32(ref + 32, get_u32(page->refs.data + i + 32));
            char *name = hex_of(ref, REF_BYTES);
            state_add_ref(record, name);
            free(name);
        }
    }
    return err;
}

static enum err row_link(const struct row *row)
{
    Cairn__PageLink *link = NULL;
    enum err err = unpack(row, &cairn__page_link__descriptor, &link);
    if (err == ERR_OK && row->key_bytes == 16) {
        struct state_record *record = add(row->dump, STATE_LINK, NULL, hex_of(link->page.data, link->page.len));
        record->manifest = get_be64(row->key);
        record->sequence = get_be64(row->key + 8);
        record->count = link->entries;
    }
    return err;
}

static enum err row_chunk(const struct row *row)
{
    Cairn__ChunkRecord *chunk = NULL;
    enum err err = unpack(row, &cairn__chunk_record__descriptor, &chunk);
    if (err == ERR_OK) {
        struct state_record *record = add(row->dump, STATE_CHUNK, hex_of(row->key, row->key_bytes), NULL);
        record->count = chunk->pages;
        record->pins = chunk->pins;
    }
    return err;
}

static enum err row_take(const struct row *row, char letter)
{
    switch (letter) {
    case 'N':
        return row_namespace(row);
    case 'F':
        return row_folder(row);
    case 'E':
        return row_entry(row, false);
    case 'H':
        return row_entry(row, true);
    case 'V':
        return row_events(row);
    case 'P':
        return row_page(row);
    case 'p':
        return row_link(row);
    case 'C':
        return row_chunk(row);
    case 'S': /* open */
    case 'R': /* ended, not reaped */
        if (row->key_bytes == 8) {
            add(row->dump, STATE_SESSION, NULL, NULL)->id = get_be64(row->key);
        }
        return ERR_OK;
    case 's': /* session, part, reference: 'c' is a pin */
        if (row->key_bytes == 9 + REF_BYTES && row->key[8] == 'c') {
            add(row->dump, STATE_PIN, NULL, hex_of(row->key + 9, REF_BYTES))->id = get_be64(row->key);
        }
        return ERR_OK;
    default:
        return ERR_OK;
    }
}

enum err state_dump_read(struct kv_view *view, const uint8_t prefix[8], struct state_dump *dump)
{
    struct slice at = slice_copy(prefix, 8);
    enum err err = ERR_OK;
    for (bool inside = true; inside && err == ERR_OK;) {
        struct slice key = {0}, value = {0};
        struct proto_arena arena = {0};
        inside = kv_next(view, at.data, at.bytes, true, &key, &value) == ERR_OK && memcmp(key.data, prefix, 8) == 0;
        if (inside && key.bytes >= PREFIX + 8) {
            struct row row = {dump, key.data + PREFIX + 8, key.bytes - PREFIX - 8, value, &arena};
            err = row_take(&row, (char)key.data[8]);
        }
        proto_arena_deinit(&arena);
        slice_drop(&value);
        slice_drop(&at);
        at = key;
    }
    slice_drop(&at);
    return err;
}

void state_check(struct world *world, struct kv_view *view, const uint8_t prefix[8])
{
    struct state_dump dump = {0};
    struct report references = {0}, tree = {0};
    enum err err = state_dump_read(view, prefix, &dump);
    WORLD_REQUIRE(world, err == ERR_OK, "references: a record does not decode");
    references_check(&dump, &references);
    tree_check(&dump, &tree);
    WORLD_REQUIRE(world, references.findings == 0, "%s", references.text);
    WORLD_REQUIRE(world, tree.findings == 0, "%s", tree.text);
    state_dump_deinit(&dump);
}
