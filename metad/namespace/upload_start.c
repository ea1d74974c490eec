/* UPLOAD_START: opens a session for a file and answers its first ask (R-A2, R-F4). The ask is a commit: what is present
 * is pinned, what is missing is recorded, the namespace's generation rises. The capability and the chunk keys are added
 * by the leader that answers; they lie in no log. */
#include "base/check.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "metad/namespace/session.h"
#include "proto/manifest.h"

enum err upload_start_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    if (prepare->body.bytes % ASK_ENTRY_BYTES != 0 || prepare->body.bytes / ASK_ENTRY_BYTES > LIMIT_ASK_CHUNKS) {
        return ERR_INVALID;
    }
    const Cairn__UploadStartRequest *request = prepare->request;
    if (session_count(prepare->state, request->head->ns, prepare->device->device) >= LIMIT_OPEN_SESSIONS) {
        prepare->text = "this device has too many uploads open; let some end, or wait an hour until they expire";
        return ERR_BUSY; /* not in apply: an answer is kept under its number, and this one does not last */
    }
    extra_set_down(prepare->keyring, arena, extra);
    struct writer asks = {0};
    uint32_t count = prepare->body.bytes / ASK_ENTRY_BYTES;
    enum err err = asks_compute(prepare->keyring, prepare->body.data, count, LIMIT_CHUNK_BYTES, &asks);
    if (err == ERR_OK && asks.bytes > 0) {
        extra->asks.data = proto_arena_take(arena, asks.bytes);
        extra->asks.len = asks.bytes;
        memcpy(extra->asks.data, asks.data, asks.bytes);
    }
    writer_deinit(&asks);
    return err;
}

static enum err start_commit(struct apply *apply, const Cairn__UploadStartRequest *request, struct place *place,
                             const Cairn__UploadExtra *extra, struct answer *answer)
{
    Cairn__NamespaceRecord *ns = place->ns;
    Cairn__SessionRecord session = CAIRN__SESSION_RECORD__INIT;
    ns->generation++;
    session.session = ns->next_id++;
    session.device = apply->command->device;
    session.user = apply->user->user;
    session.parent = place->parent;
    session.name = request->name;
    session.base_version = request->base_version;
    session.any_base = request->any_base;
    session.generation = ns->generation;
    session.touched_tick = apply->command->tick;
    session.writer = apply->user->writer;
    session.safe_losses = UINT32_MAX;
    session_open(apply->state, ns->ns, &session);
    struct writer body = {0};
    enum err err = session_ask(apply, ns->ns, session.session, session.writer, extra, &body);
    namespace_put(apply->state, ns);
    Cairn__UploadStartReply reply = CAIRN__UPLOAD_START_REPLY__INIT;
    reply.session = session.session;
    reply.generation = session.generation;
    reply.writer = session.writer;
    reply.pool = ns->pool;
    answer_set(answer, &reply);
    answer->body = writer_take(&body);
    writer_deinit(&body);
    return err;
}

enum err upload_start_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__UploadStartRequest *request = apply->request;
    void *extra = NULL;
    struct slice packed = slice_borrow(apply->command->extra.data, apply->command->extra.len);
    enum err err = proto_unpack(&cairn__upload_extra__descriptor, packed, apply->arena, &extra);
    if (err != ERR_OK) {
        return ERR_INVALID;
    }
    struct place place = {0};
    err = place_find(apply->state, request->head->ns, request->parent, &request->name, apply->arena, &place);
    if (err != ERR_OK) {
        return err;
    }
    err = base_check(place.entry, request->base_version, request->any_base);
    if (err == ERR_OK) {
        err = start_commit(apply, request, &place, extra, answer);
    }
    place_deinit(&place);
    return err;
}

enum err upload_start_finish(struct finish *finish, struct answer *answer)
{
    const Cairn__UploadStartRequest *request = finish->request;
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err = proto_unpack(&cairn__upload_start_reply__descriptor, answer->header, &arena, &message);
    if (err == ERR_OK) {
        Cairn__UploadStartReply *reply = message;
        const struct upload_grant grant = {request->head->ns, reply->session, reply->generation};
        err = upload_answer_finish(finish, &grant, reply, &reply->capability, answer, &arena);
    }
    proto_arena_deinit(&arena);
    return err;
}
