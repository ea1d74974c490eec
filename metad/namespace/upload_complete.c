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
    (void)extra;
    const Cairn__UploadCompleteRequest *request = prepare->request;
    Cairn__SessionRecord *session = NULL;
    enum err err =
        session_get(prepare->state, request->head->ns, request->session, prepare->user->user, arena, &session);
    if (err == ERR_SESSION_CLOSED) {
        return ERR_OK; /* apply decides: a repeat finds its first answer */
    }
    for (size_t i = 0; err == ERR_OK && i + 1 < session->n_store_set; i += 2) {
        if (!map_has_store(prepare->keyring->map, session->store_set[i], session->store_set[i + 1])) {
            prepare->text = "a store that took chunks of this upload was replaced meanwhile: upload again";
            err = ERR_UNRESOLVED;
        }
    }
    return err;
}

static void complete_commit(struct apply *apply, const Cairn__UploadCompleteRequest *request, struct place *place,
                            const Cairn__SessionRecord *session, struct answer *answer)
{
    Cairn__Entry entry = CAIRN__ENTRY__INIT;
    entry.name = session->name;
    entry.bytes = session->bytes;
    entry.mode = request->mode;
    entry.mtime_ns = request->mtime_ns;
    entry.safe_losses = session->safe_losses;
    Cairn__EntryRecord record = CAIRN__ENTRY_RECORD__INIT;
    record.manifest = session->entries > 0 ? session->session : 0;
    record.chunk_count = session->entries;
    version_commit(apply, place, &record, &entry);
    struct key key = key_session(apply->state->group, place->ns->ns, session->session);
    state_delete(apply->state, &key);
    if (!session_reap(apply->state, place->ns->ns, session->session, apply->arena, REAP_INLINE)) {
        key = key_begin(apply->state->group, 'R');
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
    if (session->bytes != request->bytes) {
        return ERR_UNRESOLVED;
    }
    if (session->entries > 0 && session->safe_losses < 1) {
        return ERR_UNAVAILABLE;
    }
    struct place place = {0};
    err = place_find(apply->state, request->head->ns, session->parent, &session->name, apply->arena, &place);
    if (err != ERR_OK) {
        return err;
    }
    err = base_check(place.entry, session->base_version, session->any_base);
    if (err == ERR_OK) {
        complete_commit(apply, request, &place, session, answer);
    }
    place_deinit(&place);
    return err;
}
