/* STAT: walks a path by entries and answers with the entry, or with how far the path exists. */
#include "base/check.h"
#include "metad/namespace/operations.h"

/* The root folder as an entry of its own. */
static void stat_root(const Cairn__NamespaceRecord *ns, Cairn__Entry *ret_entry)
{
    ret_entry->file = ns->root;
    ret_entry->kind = ENTRY_FOLDER;
    ret_entry->mode = 0755;
    ret_entry->bytes = ns->bytes;
    ret_entry->sequence = ns->sequence;
}

/* The folder a walk begins at, alive, as an entry. */
static enum err stat_folder(struct query *query, const Cairn__NamespaceRecord *ns, uint64_t parent, Cairn__Entry *root,
                            Cairn__Entry **ret_entry, uint64_t *ret_folder)
{
    Cairn__FolderRecord *folder = NULL;
    enum err err = folder_get_live(query->state, ns, parent, query->arena, ret_folder, &folder);
    if (err != ERR_OK) {
        return err;
    }
    if (*ret_folder == ns->root) {
        stat_root(ns, root);
        *ret_entry = root;
        return ERR_OK;
    }
    Cairn__EntryRecord *record = NULL;
    err = entry_get(query->state, ns->ns, folder->parent, &folder->key, query->arena, NULL, &record);
    if (err == ERR_OK) {
        *ret_entry = record->entry;
    }
    return err;
}

enum err stat_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__StatRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = namespace_get(query->state, request->head->ns, query->arena, &ns);
    if (err != ERR_OK) {
        return err;
    }
    if (request->n_path > LIMIT_PATH_DEPTH) {
        return ERR_TOO_LARGE;
    }
    Cairn__StatReply reply = CAIRN__STAT_REPLY__INIT;
    Cairn__Entry root = CAIRN__ENTRY__INIT;
    Cairn__Entry *at = &root;
    uint64_t folder = 0;
    err = stat_folder(query, ns, request->parent, &root, &at, &folder);
    if (err != ERR_OK) {
        return err;
    }
    reply.deepest = folder;
    size_t depth = 0;
    for (; depth < request->n_path; depth++) {
        Cairn__EntryRecord *record = NULL;
        err = entry_get(query->state, ns->ns, folder, &request->path[depth], query->arena, NULL, &record);
        if (err != ERR_OK) {
            break;
        }
        at = record->entry;
        if (at->kind != ENTRY_FOLDER) {
            depth++;
            break;
        }
        folder = at->file;
        reply.deepest = folder;
    }
    if (err != ERR_OK && err != ERR_NOT_FOUND) {
        return err;
    }
    if (err == ERR_OK && depth < request->n_path) {
        return ERR_NOT_A_FOLDER;
    }
    reply.depth = (uint32_t)depth;
    reply.entry = depth == request->n_path ? at : NULL;
    answer_set(answer, &reply);
    return ERR_OK;
}
