/* UPLOAD_COMPLETE: the one commit that makes a version: base compared, entry, sums, event; the session ends (R-A2, P1,
 * P2).
 *
 * The leader compares the session's store set with the newest map it knows (R-B2): receipts of a store that was
 * replaced, wiped or rolled back since count for nothing, and the upload must be staged anew. */
#include "base/check.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "metad/namespace/session.h"

#define REAP_INLINE 512u

static bool map_has_store(const Cairn__ClusterMap *map, uint64_t store, uint64_t incarnation)
{
    for (size_t i = 0; i < map->n_stores; i++) {
        if (map->stores[i]->store == store) {
            return map->stores[i]->incarnation == incarnation;
        }
    }
    return false;
}

enum err upload_complete_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    const Cairn__UploadCompleteRequest *request = prepare->request;
    Cairn__SessionRecord *session = NULL;
    enum err err =
        session_get(prepare->state, request->head->ns, request->session, prepare->user->user, arena, &session);
    extra_set_down(prepare->keyring, arena, extra);
    if (err == ERR_SESSION_CLOSED) {
        return ERR_OK; /* apply decides: a repeat finds its first answer */
    }
    extra->bytes = err == ERR_OK ? session->n_store_set : 0; /* what was compared: apply refuses another set */
    for (size_t i = 0; err == ERR_OK && i + 1 < session->n_store_set; i += 2) {
        if (!map_has_store(prepare->keyring->map, session->store_set[i], session->store_set[i + 1])) {
            prepare->text = "a store that took chunks of this upload was replaced meanwhile: upload again";
            err = ERR_UNRESOLVED;
        }
    }
    return err;
}

/* What the session counted on when it was staged, less what went down since (R-B3). A file without chunks loses nothing
 * with any store: it counts as an inline one does. */
static uint32_t complete_safe_losses(const Cairn__SessionRecord *session, const Cairn__UploadExtra *extra)
{
    if (session->entries == 0) {
        return INLINE_SAFE_LOSSES;
    }
    uint32_t lost = 0;
    for (size_t i = 0; i < session->n_counted; i++) {
        for (size_t j = 0; j < extra->n_down; j++) {
            lost += session->counted[i] == extra->down[j];
        }
    }
    return session->safe_losses > lost ? session->safe_losses - lost : 0;
}

static void complete_commit(struct apply *apply, const Cairn__UploadCompleteRequest *request, struct place *place,
                            const Cairn__SessionRecord *session, uint32_t safe_losses, struct answer *answer)
{
    Cairn__Entry entry = CAIRN__ENTRY__INIT;
    entry.name = session->name;
    entry.bytes = session->bytes;
    entry.mode = request->mode;
    entry.mtime_ns = request->mtime_ns;
    entry.safe_losses = safe_losses;
    Cairn__EntryRecord record = CAIRN__ENTRY_RECORD__INIT;
    record.manifest = session->entries > 0 ? session->session : 0;
    record.chunk_count = session->entries;
    version_commit(apply, place, &record, &entry);
    session_close(apply->state, place->ns->ns, session);
    if (!session_reap(apply->state, place->ns->ns, session->session, apply->arena, REAP_INLINE)) {
        struct key key = key_begin(apply->state->group, 'R');
        key_u64(&key, place->ns->ns);
        key_u64(&key, session->session);
        state_put_bytes(apply->state, &key, "", 0);
    }
    Cairn__UploadCompleteReply reply = CAIRN__UPLOAD_COMPLETE_REPLY__INIT;
    reply.version = entry.version;
    reply.sequence = entry.sequence;
    reply.safe_losses = entry.safe_losses;
    reply.file = entry.file;
    answer_set(answer, &reply);
}

enum err upload_complete_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__UploadCompleteRequest *request = apply->request;
    Cairn__SessionRecord *session = NULL;
    enum err err =
        session_get(apply->state, request->head->ns, request->session, apply->user->user, apply->arena, &session);
    if (err != ERR_OK) {
        return err;
    }
    void *unpacked = NULL;
    struct slice packed = slice_borrow(apply->command->extra.data, apply->command->extra.len);
    err = proto_unpack(&cairn__upload_extra__descriptor, packed, apply->arena, &unpacked);
    const Cairn__UploadExtra *extra = unpacked;
    if (err != ERR_OK || session->bytes != request->bytes || session->n_store_set != extra->bytes) {
        return ERR_UNRESOLVED;
    }
    uint32_t safe_losses = complete_safe_losses(session, extra);
    if (safe_losses < 1) {
        return ERR_UNRESOLVED;
    }
    struct place place = {0};
    err = place_find(apply->state, request->head->ns, session->parent, &session->name, apply->arena, &place);
    if (err != ERR_OK) {
        return err;
    }
    err = base_check(place.entry, session->base_version, session->any_base);
    if (err == ERR_OK) {
        complete_commit(apply, request, &place, session, safe_losses, answer);
    }
    place_deinit(&place);
    return err;
}
