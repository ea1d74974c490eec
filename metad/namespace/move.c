/* MOVE: renames an entry or hangs it into another folder, in one commit. A folder takes its subtree's sums along; it
 * cannot be moved below itself, because the walk from the target folder to the root must not meet it. */
#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

/* CYCLE when `folder` stands on the way from `at` to the root. */
static enum err move_check_cycle(struct state *state, Cairn__NamespaceRecord *ns, uint64_t folder, uint64_t at,
                                 struct proto_arena *arena)
{
    for (uint32_t depth = 0; at != 0; depth++) {
        if (at == folder) {
            return ERR_CYCLE;
        }
        if (depth > LIMIT_PATH_DEPTH) {
            return ERR_TOO_LARGE;
        }
        Cairn__FolderRecord *record = NULL;
        enum err err = folder_get(state, ns, at, arena, &at, &record);
        if (err != ERR_OK) {
            return err;
        }
        at = record->parent;
    }
    return ERR_OK;
}

static enum err move_check(struct apply *apply, const Cairn__MoveRequest *request, struct place *from, struct place *to)
{
    if (from->entry == NULL) {
        return ERR_NOT_FOUND;
    }
    const Cairn__Entry *entry = from->entry->entry;
    if (to->entry != NULL && to->entry->entry->file != entry->file) {
        if (to->entry->entry->kind == ENTRY_FOLDER || entry->kind == ENTRY_FOLDER) {
            return ERR_EXISTS;
        }
        if (!request->replace) {
            return ERR_EXISTS;
        }
    }
    return entry->kind == ENTRY_FOLDER ? move_check_cycle(apply->state, from->ns, entry->file, to->parent, apply->arena)
                                       : ERR_OK;
}

/* The subtree below a moved folder leaves the sums of the old ancestors and joins those of the new. */
static enum err move_subtree(struct apply *apply, Cairn__NamespaceRecord *ns, const Cairn__Entry *entry,
                             const struct place *to)
{
    Cairn__FolderRecord *folder = NULL;
    uint64_t id = 0;
    enum err err = folder_get(apply->state, ns, entry->file, apply->arena, &id, &folder);
    if (err != ERR_OK) {
        return err;
    }
    folder_sums_add(apply->state, ns, entry->parent, folder, true, apply->arena);
    folder_sums_add(apply->state, ns, to->parent, folder, false, apply->arena);
    folder->parent = to->parent;
    folder->key = (ProtobufCBinaryData){.len = to->name_key.bytes, .data = to->name_key.data};
    records_folder_put(apply->state, ns->ns, entry->file, folder);
    return ERR_OK;
}

static enum err move_commit(struct apply *apply, const Cairn__MoveRequest *request, struct place *from,
                            struct place *to, struct answer *answer)
{
    Cairn__NamespaceRecord *ns = from->ns;
    Cairn__Entry entry = *from->entry->entry;
    uint64_t from_parent = entry.parent;
    if (entry.kind == ENTRY_FOLDER) {
        enum err err = move_subtree(apply, ns, from->entry->entry, to);
        if (err != ERR_OK) {
            return err;
        }
    }
    entry.parent = to->parent;
    entry.name = request->to_name;
    entry.sequence = feed_add(apply, ns, CHANGE_MOVE, &entry, from_parent, &from->entry->entry->name);
    Cairn__EntryRecord record = *from->entry;
    record.entry = &entry;
    entry_remove(apply->state, ns, from->name_key, from->entry, entry.sequence, apply->arena);
    bool replaces = to->entry != NULL && to->entry->entry->file != entry.file;
    entry_put(apply->state, ns, to->name_key, &record, replaces ? to->entry : NULL, apply->arena);
    namespace_put(apply->state, ns);
    Cairn__MoveReply reply = CAIRN__MOVE_REPLY__INIT;
    reply.file = entry.file;
    reply.sequence = entry.sequence;
    answer_set(answer, &reply);
    return ERR_OK;
}

enum err move_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__MoveRequest *request = apply->request;
    struct place from = {0};
    struct place to = {0};
    enum err err = place_find(apply->state, request->head->ns, request->parent, &request->name, apply->arena, &from);
    if (err == ERR_OK) {
        err = place_find(apply->state, request->head->ns, request->to_parent, &request->to_name, apply->arena, &to);
    }
    if (err == ERR_OK) {
        err = move_check(apply, request, &from, &to);
    }
    if (err == ERR_OK) {
        err = move_commit(apply, request, &from, &to, answer);
    }
    place_deinit(&from);
    place_deinit(&to);
    return err;
}
