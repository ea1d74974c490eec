/* The tree of a namespace: entries by (parent, NFC name), folders with the sums over their subtrees (R-D2), and the
 * history range into which a replaced or removed entry moves (R-D1). Every change of an entry goes through entry_put or
 * entry_remove, so that sums and history cannot be forgotten. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/name.h"
#include "metad/records.h"

struct key key_namespace(struct prefix group, uint64_t ns)
{
    struct key key = key_begin(group, 'N');
    key_u64(&key, ns);
    return key;
}

struct key key_entry(struct prefix group, uint64_t ns, uint64_t parent, struct slice name_key)
{
    struct key key = key_begin(group, 'E');
    key_u64(&key, ns);
    key_u64(&key, parent);
    key_bytes(&key, name_key.data, name_key.bytes);
    return key;
}

struct key key_folder(struct prefix group, uint64_t ns, uint64_t folder)
{
    struct key key = key_begin(group, 'F');
    key_u64(&key, ns);
    key_u64(&key, folder);
    return key;
}

/* (parent, name, descending sequence): the newest history of a name stands first. */
static struct key key_history(struct prefix group, uint64_t ns, uint64_t parent, struct slice name_key,
                              uint64_t sequence)
{
    struct key key = key_begin(group, 'H');
    key_u64(&key, ns);
    key_u64(&key, parent);
    key_bytes(&key, name_key.data, name_key.bytes);
    key_u8(&key, 0);
    key_u64(&key, UINT64_MAX - sequence);
    return key;
}

enum err namespace_get(struct state *state, uint64_t ns, struct proto_arena *arena, Cairn__NamespaceRecord **ret)
{
    enum err err = records_namespace(state, ns, arena, ret);
    return err == ERR_NOT_FOUND ? ERR_DENIED : err;
}

void namespace_put(struct state *state, const Cairn__NamespaceRecord *ns)
{
    records_namespace_put(state, ns);
}

enum err folder_get(struct state *state, const Cairn__NamespaceRecord *ns, uint64_t id, struct proto_arena *arena,
                    uint64_t *ret_id, Cairn__FolderRecord **ret)
{
    uint64_t folder = id == 0 ? ns->root : id;
    enum err err = records_folder(state, ns->ns, folder, arena, ret);
    if (err == ERR_OK) {
        *ret_id = folder;
    }
    return err;
}

enum err folder_get_live(struct state *state, const Cairn__NamespaceRecord *ns, uint64_t id, struct proto_arena *arena,
                         uint64_t *ret_id, Cairn__FolderRecord **ret)
{
    Cairn__FolderRecord *folder = NULL;
    uint64_t folder_id = 0;
    enum err err = folder_get(state, ns, id, arena, &folder_id, &folder);
    uint64_t at = err == ERR_OK ? folder->parent : 0;
    for (int depth = 0; err == ERR_OK && at != 0; depth++) {
        Cairn__FolderRecord *above = NULL;
        /* a deep folder moved into a deep one is a person's doing, no rot: it can be moved back from above */
        err = depth > LIMIT_PATH_DEPTH ? ERR_TOO_LARGE : folder_get(state, ns, at, arena, &at, &above);
        at = err == ERR_OK ? above->parent : 0;
    }
    if (err != ERR_OK) {
        return err;
    }
    *ret_id = folder_id;
    *ret = folder;
    return ERR_OK;
}

enum err entry_get(struct state *state, uint64_t ns, uint64_t parent, const ProtobufCBinaryData *name,
                   struct proto_arena *arena, struct slice *ret_key, Cairn__EntryRecord **ret)
{
    struct slice name_form = {0};
    enum err err = name_key(name->data, name->len, &name_form);
    if (err != ERR_OK) {
        return err;
    }
    struct key key = key_entry(state->group, ns, parent, name_form);
    Cairn__EntryRecord *record = NULL;
    err = state_get(state, &key, &cairn__entry_record__descriptor, arena, &record);
    if (err == ERR_OK && record->entry == NULL) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        *ret = record;
    }
    if (ret_key != NULL && (err == ERR_OK || err == ERR_NOT_FOUND)) {
        *ret_key = name_form;
    } else {
        slice_drop(&name_form);
    }
    return err;
}

void entry_sums(const Cairn__Entry *entry, Cairn__FolderRecord *ret_sums, uint64_t lanes[4])
{
    uint8_t packed[8 + LIMIT_NAME_BYTES + 8];
    CHECK(entry->name.len <= LIMIT_NAME_BYTES);
    put_u64(packed, entry->parent);
    memcpy(packed + 8, entry->name.data, entry->name.len);
    put_u64(packed + 8 + entry->name.len, entry->version);
    struct sha256 digest = sha256(packed, 16 + entry->name.len);
    for (int i = 0; i < 4; i++) {
        lanes[i] = get_u64(digest.bytes + 8 * i);
    }
    *ret_sums = (Cairn__FolderRecord)CAIRN__FOLDER_RECORD__INIT;
    ret_sums->entries = 1;
    ret_sums->bytes = entry->bytes;
    ret_sums->n_digest = 4;
    ret_sums->digest = lanes;
}

void folder_sums_add(struct state *state, Cairn__NamespaceRecord *ns, uint64_t parent, const Cairn__FolderRecord *sums,
                     bool subtract, struct proto_arena *arena)
{
    CHECK(sums->n_digest == 4);
    uint64_t at = parent;
    for (int depth = 0; at != 0; depth++) {
        CHECK(depth <= LIMIT_PATH_DEPTH + 1);
        Cairn__FolderRecord *folder = NULL;
        uint64_t id = 0;
        enum err err = folder_get(state, ns, at, arena, &id, &folder);
        CHECK(err == ERR_OK);
        CHECK(!subtract || (folder->entries >= sums->entries && folder->bytes >= sums->bytes));
        folder->entries = subtract ? folder->entries - sums->entries : folder->entries + sums->entries;
        folder->bytes = subtract ? folder->bytes - sums->bytes : folder->bytes + sums->bytes;
        for (int i = 0; i < 4; i++) {
            folder->digest[i] = subtract ? folder->digest[i] - sums->digest[i] : folder->digest[i] + sums->digest[i];
        }
        records_folder_put(state, ns->ns, at, folder);
        at = folder->parent;
    }
    ns->entries = subtract ? ns->entries - sums->entries : ns->entries + sums->entries;
    ns->bytes = subtract ? ns->bytes - sums->bytes : ns->bytes + sums->bytes;
}

static void history_put(struct state *state, const Cairn__NamespaceRecord *ns, struct slice name_key_,
                        const Cairn__EntryRecord *old)
{
    struct key key = key_history(state->group, ns->ns, old->entry->parent, name_key_, old->entry->sequence);
    state_put(state, &key, old);
}

void entry_put(struct state *state, Cairn__NamespaceRecord *ns, struct slice name_key_, Cairn__EntryRecord *record,
               const Cairn__EntryRecord *old, struct proto_arena *arena)
{
    CHECK(record->entry != NULL && record->entry->parent != 0);
    uint64_t lanes[4];
    Cairn__FolderRecord sums;
    if (old != NULL) {
        CHECK(old->entry->parent == record->entry->parent);
        entry_sums(old->entry, &sums, lanes);
        folder_sums_add(state, ns, old->entry->parent, &sums, true, arena);
        history_put(state, ns, name_key_, old);
    }
    entry_sums(record->entry, &sums, lanes);
    folder_sums_add(state, ns, record->entry->parent, &sums, false, arena);
    struct key key = key_entry(state->group, ns->ns, record->entry->parent, name_key_);
    state_put(state, &key, record);
}

void entry_remove(struct state *state, Cairn__NamespaceRecord *ns, struct slice name_key_,
                  const Cairn__EntryRecord *old, uint64_t sequence, struct proto_arena *arena)
{
    CHECK(old->entry->sequence < sequence);
    uint64_t lanes[4];
    Cairn__FolderRecord sums;
    entry_sums(old->entry, &sums, lanes);
    folder_sums_add(state, ns, old->entry->parent, &sums, true, arena);
    history_put(state, ns, name_key_, old);
    struct key key = key_entry(state->group, ns->ns, old->entry->parent, name_key_);
    state_delete(state, &key);
    /* the removal itself is a line of the history: an empty record at its sequence ends the entry before it */
    Cairn__EntryRecord gone = CAIRN__ENTRY_RECORD__INIT;
    key = key_history(state->group, ns->ns, old->entry->parent, name_key_, sequence);
    state_put(state, &key, &gone);
}

enum err place_find(struct state *state, uint64_t ns, uint64_t parent, const ProtobufCBinaryData *name,
                    struct proto_arena *arena, struct place *ret_place)
{
    struct place place = {0};
    enum err err = namespace_get(state, ns, arena, &place.ns);
    if (err == ERR_OK) {
        err = folder_get_live(state, place.ns, parent, arena, &place.parent, &place.folder);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = entry_get(state, ns, place.parent, name, arena, &place.name_key, &place.entry);
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    *ret_place = place;
    return ERR_OK;
}

void place_deinit(struct place *place)
{
    slice_drop(&place->name_key);
}
