/* MKDIR: makes a folder, or a symlink when a target is given. One commit: entry, folder record, sums, event. */
#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

static uint32_t folder_depth(struct state *state, Cairn__NamespaceRecord *ns, uint64_t folder,
                             struct proto_arena *arena)
{
    uint32_t depth = 0;
    while (folder != 0 && depth <= LIMIT_PATH_DEPTH) {
        Cairn__FolderRecord *record = NULL;
        if (folder_get(state, ns, folder, arena, &folder, &record) != ERR_OK) {
            return LIMIT_PATH_DEPTH + 1;
        }
        folder = record->parent;
        depth++;
    }
    return depth;
}

static enum err mkdir_existing(const Cairn__MkdirRequest *request, const struct place *place, struct answer *answer)
{
    const Cairn__Entry *entry = place->entry->entry;
    if (!request->exist_ok || entry->kind != ENTRY_FOLDER || request->target.len > 0) {
        return ERR_EXISTS;
    }
    Cairn__MkdirReply reply = CAIRN__MKDIR_REPLY__INIT;
    reply.file = entry->file;
    reply.sequence = entry->sequence;
    reply.existed = true;
    answer_set(answer, &reply);
    return ERR_OK;
}

static void mkdir_commit(struct apply *apply, const Cairn__MkdirRequest *request, struct place *place,
                         struct answer *answer)
{
    Cairn__NamespaceRecord *ns = place->ns;
    Cairn__Entry entry = CAIRN__ENTRY__INIT;
    entry.file = ns->next_id++;
    entry.kind = request->target.len > 0 ? ENTRY_SYMLINK : ENTRY_FOLDER;
    entry.name = request->name;
    entry.parent = place->parent;
    entry.mode = request->mode & 07777;
    entry.mtime_ns = request->mtime_ns;
    entry.target = request->target;
    entry.version = entry.kind == ENTRY_SYMLINK ? ns->next_id++ : 0;
    entry.sequence = feed_add(apply, ns, CHANGE_CREATE, &entry, 0, NULL);
    Cairn__EntryRecord record = CAIRN__ENTRY_RECORD__INIT;
    record.entry = &entry;
    if (entry.kind == ENTRY_FOLDER) {
        uint64_t lanes[4] = {0};
        Cairn__FolderRecord folder = CAIRN__FOLDER_RECORD__INIT;
        folder.parent = place->parent;
        folder.key = (ProtobufCBinaryData){.len = place->name_key.bytes, .data = place->name_key.data};
        folder.n_digest = 4;
        folder.digest = lanes;
        records_folder_put(apply->state, ns->ns, entry.file, &folder);
    }
    entry_put(apply->state, ns, place->name_key, &record, NULL, apply->arena);
    namespace_put(apply->state, ns);
    Cairn__MkdirReply reply = CAIRN__MKDIR_REPLY__INIT;
    reply.file = entry.file;
    reply.sequence = entry.sequence;
    answer_set(answer, &reply);
}

enum err mkdir_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__MkdirRequest *request = apply->request;
    if (request->target.len > LIMIT_PATH_BYTES) {
        return ERR_TOO_LARGE;
    }
    struct place place = {0};
    enum err err = place_find(apply->state, request->head->ns, request->parent, &request->name, apply->arena, &place);
    if (err != ERR_OK) {
        return err;
    }
    if (place.entry != NULL) {
        err = mkdir_existing(request, &place, answer);
    } else if (folder_depth(apply->state, place.ns, place.parent, apply->arena) >= LIMIT_PATH_DEPTH) {
        err = ERR_TOO_LARGE;
    } else {
        mkdir_commit(apply, request, &place, answer);
    }
    place_deinit(&place);
    return err;
}
