/* PUT_SMALL: a file of up to LIMIT_INLINE_BYTES in one round trip; its content is sealed at rest by the leader (R-F5).
 */
#include <string.h>

#include "base/check.h"
#include "base/seal.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "metad/namespace/session.h"

enum err put_small_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    const Cairn__PutSmallRequest *request = prepare->request;
    if (prepare->body.bytes > LIMIT_INLINE_BYTES) {
        return ERR_TOO_LARGE;
    }
    uint8_t key[32];
    rest_key_derive(prepare->keyring, request->head->ns, "inline", key);
    struct slice sealed = value_seal(key, NULL, 0, prepare->body.data, prepare->body.bytes);
    extra->sealed.data = proto_arena_take(arena, sealed.bytes);
    extra->sealed.len = sealed.bytes;
    memcpy(extra->sealed.data, sealed.data, sealed.bytes);
    extra->bytes = prepare->body.bytes;
    slice_drop(&sealed);
    return ERR_OK;
}

static void put_small_commit(struct apply *apply, const Cairn__PutSmallRequest *request,
                             const Cairn__UploadExtra *extra, struct place *place, struct answer *answer)
{
    Cairn__Entry entry = CAIRN__ENTRY__INIT;
    entry.name = request->name;
    entry.bytes = extra->bytes;
    entry.mode = request->mode;
    entry.mtime_ns = request->mtime_ns;
    entry.safe_losses = INLINE_SAFE_LOSSES;
    Cairn__EntryRecord record = CAIRN__ENTRY_RECORD__INIT;
    record.inline_sealed = extra->sealed;
    version_commit(apply, place, &record, &entry);
    Cairn__UploadCompleteReply reply = CAIRN__UPLOAD_COMPLETE_REPLY__INIT;
    reply.version = entry.version;
    reply.sequence = entry.sequence;
    reply.safe_losses = entry.safe_losses;
    reply.file = entry.file;
    answer_set(answer, &reply);
}

enum err put_small_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__PutSmallRequest *request = apply->request;
    void *extra = NULL;
    struct slice packed = slice_borrow(apply->command->extra.data, apply->command->extra.len);
    enum err err = proto_unpack(&cairn__upload_extra__descriptor, packed, apply->arena, &extra);
    struct place place = {0};
    if (err == ERR_OK) {
        err = place_find(apply->state, request->head->ns, request->parent, &request->name, apply->arena, &place);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = base_check(place.entry, request->base_version, request->any_base);
    if (err == ERR_OK) {
        put_small_commit(apply, request, extra, &place, answer);
    }
    place_deinit(&place);
    return err;
}
