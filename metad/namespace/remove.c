/* REMOVE: takes an entry away in O(depth); it stays in the history. A folder goes with its subtree as one sum (its
 * entries stay under the folder's id, which no live entry leads to any more). */
#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

static enum err remove_check(struct apply *apply, const Cairn__RemoveRequest *request, const struct place *place,
                             Cairn__FolderRecord **ret_folder)
{
    if (place->entry == NULL) {
        return ERR_NOT_FOUND;
    }
    const Cairn__Entry *entry = place->entry->entry;
    if (request->version != 0 && request->version != entry->version) {
        return ERR_CONFLICT;
    }
    if (entry->kind != ENTRY_FOLDER) {
        return ERR_OK;
    }
    uint64_t id = 0;
    enum err err = folder_get(apply->state, place->ns, entry->file, apply->arena, &id, ret_folder);
    if (err != ERR_OK) {
        return ERR_CORRUPT;
    }
    return (*ret_folder)->entries > 0 && !request->recursive ? ERR_NOT_EMPTY : ERR_OK;
}

enum err remove_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__RemoveRequest *request = apply->request;
    struct place place = {0};
    enum err err = place_find(apply->state, request->head->ns, request->parent, &request->name, apply->arena, &place);
    if (err != ERR_OK) {
        return err;
    }
    Cairn__FolderRecord *folder = NULL;
    err = remove_check(apply, request, &place, &folder);
    if (err == ERR_OK) {
        const Cairn__Entry *entry = place.entry->entry;
        uint64_t sequence = feed_add(apply, place.ns, CHANGE_REMOVE, entry, 0, NULL);
        if (folder != NULL) {
            folder_sums_add(apply->state, place.ns, entry->parent, folder, true, apply->arena);
            records_folder_delete(apply->state, place.ns->ns, entry->file);
        }
        entry_remove(apply->state, place.ns, place.name_key, place.entry, sequence, apply->arena);
        namespace_put(apply->state, place.ns);
        Cairn__RemoveReply reply = CAIRN__REMOVE_REPLY__INIT;
        reply.sequence = sequence;
        answer_set(answer, &reply);
    }
    place_deinit(&place);
    return err;
}
