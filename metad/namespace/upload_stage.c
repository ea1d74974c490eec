/* UPLOAD_STAGE: receipts, a run of manifest entries (one page), and further asks, in one commit (R-A2, R-D3, R-F4).
 *
 * The leader verifies the receipts' MACs and seals the page; apply checks that the session is open, records what
 * receipts show, resolves each chunk of the page (pinned by the session, or receipted in one code) and takes the page
 * only when all are. What is unresolved is listed by entry number and the client stages that page again. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/seal.h"
#include "metad/namespace/chunks.h"
#include "metad/namespace/operations.h"
#include "metad/namespace/session.h"
#include "proto/manifest.h"

#define UNRESOLVED_MAX 1000u

/* R-B2: each field names this cluster, this namespace, this session; the MAC is the store's. */
static enum err stage_check_receipt(struct prepare *prepare, const Cairn__UploadStageRequest *request,
                                    uint64_t ns_incarnation, const uint8_t *data)
{
    struct receipt receipt;
    uint8_t key[32];
    enum err err = receipt_peek(data, RECEIPT_BYTES, &receipt);
    if (err != ERR_OK) {
        return ERR_BAD_RECEIPT;
    }
    receipt_key_derive(prepare->keyring->receipt_master, receipt.store, receipt.store_incarnation, key);
    err = receipt_verify(data, RECEIPT_BYTES, key, &receipt);
    const struct bootstrap *bootstrap = prepare->bootstrap;
    bool ours = err == ERR_OK && memcmp(&receipt.cluster, &bootstrap->cluster, sizeof receipt.cluster) == 0 &&
                receipt.cluster_incarnation == bootstrap->cluster_incarnation && receipt.ns == request->head->ns &&
                receipt.session == request->session && receipt.shard.realm == prepare->keyring->realm &&
                receipt.ns_incarnation == ns_incarnation && receipt.shard.writer == prepare->user->writer;
    const struct shard_key *shard = &receipt.shard;
    bool sane = ours && shard->k >= 1 && shard->m >= 1 && shard->k + shard->m <= LIMIT_SHARDS &&
                shard->index < shard->k + shard->m && receipt.sealed_bytes > 0 &&
                receipt.sealed_bytes <= LIMIT_SEALED_BYTES;
    return sane ? ERR_OK : ERR_BAD_RECEIPT;
}

static ProtobufCBinaryData arena_copy(struct proto_arena *arena, const void *data, size_t bytes)
{
    ProtobufCBinaryData copy = {.len = bytes, .data = bytes ? proto_arena_take(arena, bytes) : NULL};
    if (bytes > 0) {
        memcpy(copy.data, data, bytes);
    }
    return copy;
}

/* The page: what is secret of each entry (hash, plain length) sealed under the namespace's page key; ids in the open.
 */
static enum err stage_make_page(struct prepare *prepare, uint64_t ns, const uint8_t *entries, uint32_t count,
                                Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    uint8_t *refs = proto_arena_take(arena, (size_t)count * CHUNK_REF_BYTES);
    uint8_t *plain = proto_arena_take(arena, (size_t)count * 36);
    uint8_t *sizes = proto_arena_take(arena, (size_t)count * 4);
    for (uint32_t i = 0; i < count; i++) {
        struct manifest_entry entry;
        enum err err = manifest_entry_decode(entries + (size_t)i * MANIFEST_ENTRY_BYTES, MANIFEST_ENTRY_BYTES, &entry);
        if (err != ERR_OK) {
            return ERR_INVALID;
        }
        struct chunk_ref ref = {chunk_id_of(prepare->keyring->realm_secret, entry.sha), entry.writer, entry.encoding};
        chunk_ref_encode(&ref, refs + (size_t)i * CHUNK_REF_BYTES);
        memcpy(plain + (size_t)i * 36, entry.sha.bytes, 32);
        put_u32(plain + (size_t)i * 36 + 32, entry.plain_bytes);
        put_u32(sizes + (size_t)i * 4, entry.plain_bytes);
        extra->bytes += entry.plain_bytes;
    }
    uint8_t key[32];
    rest_key_derive(prepare->keyring, ns, "page", key);
    struct sha256 page = hmac_sha256(key, sizeof key, entries, (size_t)count * MANIFEST_ENTRY_BYTES);
    struct slice sealed = value_seal(key, page.bytes, sizeof page.bytes, plain, (size_t)count * 36);
    extra->page = arena_copy(arena, page.bytes, sizeof page.bytes);
    extra->sealed = arena_copy(arena, sealed.data, sealed.bytes);
    extra->refs = (ProtobufCBinaryData){(size_t)count * CHUNK_REF_BYTES, refs};
    extra->plain_sizes = (ProtobufCBinaryData){(size_t)count * 4, sizes};
    slice_drop(&sealed);
    return ERR_OK;
}

enum err upload_stage_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    const Cairn__UploadStageRequest *request = prepare->request;
    struct reader body = reader_of(prepare->body.data, prepare->body.bytes);
    if (request->receipts > LIMIT_PAGE_ENTRIES * LIMIT_SHARDS || request->entries > LIMIT_PAGE_ENTRIES ||
        request->asks > LIMIT_ASK_CHUNKS) {
        return ERR_TOO_LARGE;
    }
    const uint8_t *receipts = reader_take(&body, (size_t)request->receipts * RECEIPT_BYTES);
    const uint8_t *entries = reader_take(&body, (size_t)request->entries * MANIFEST_ENTRY_BYTES);
    const uint8_t *asks = reader_take(&body, (size_t)request->asks * ASK_ENTRY_BYTES);
    if (body.failed || body.left != 0) {
        return ERR_INVALID;
    }
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = namespace_get(prepare->state, request->head->ns, arena, &ns);
    for (uint32_t i = 0; i < request->receipts && err == ERR_OK; i++) {
        err = stage_check_receipt(prepare, request, ns->incarnation, receipts + (size_t)i * RECEIPT_BYTES);
    }
    if (err != ERR_OK) {
        return err;
    }
    extra_set_down(prepare->keyring, arena, extra);
    extra->receipts = arena_copy(arena, receipts, (size_t)request->receipts * RECEIPT_BYTES);
    if (request->entries > 0) {
        err = stage_make_page(prepare, request->head->ns, entries, request->entries, extra, arena);
    }
    struct writer ids = {0};
    if (err == ERR_OK) {
        err = asks_compute(prepare->keyring, asks, request->asks, LIMIT_CHUNK_BYTES, &ids);
    }
    if (err == ERR_OK) {
        extra->asks = arena_copy(arena, ids.data, ids.bytes);
    }
    writer_deinit(&ids);
    return err;
}

/* Lists the entries of the page that nothing shows durable; the least safe_losses of the others. */
static size_t stage_resolve(struct apply *apply, const Cairn__UploadStageRequest *request,
                            Cairn__SessionRecord *session, const Cairn__UploadExtra *extra, uint64_t *unresolved,
                            uint32_t *ret_safe)
{
    size_t missing = 0;
    uint32_t least = UINT32_MAX;
    for (uint32_t i = 0; i < request->entries; i++) {
        struct chunk_ref ref;
        uint32_t safe = 0;
        chunk_ref_decode(extra->refs.data + (size_t)i * CHUNK_REF_BYTES, &ref);
        uint32_t plain_bytes = get_u32(extra->plain_sizes.data + (size_t)i * 4);
        if (session_resolve(apply, request->head->ns, session, &ref, plain_bytes, extra, &safe)) {
            least = safe < least ? safe : least;
        } else if (missing < UNRESOLVED_MAX) {
            unresolved[missing++] = request->first_entry + i;
        }
    }
    *ret_safe = least;
    return missing;
}

/* Where the page stands: new, a repeat of what is linked there, or somewhere it cannot stand.
 * Asked before anything is written. */
enum stage_place { STAGE_NEW, STAGE_REPEAT, STAGE_MISPLACED };

static enum stage_place stage_find_place(struct apply *apply, const Cairn__UploadStageRequest *request,
                                         const Cairn__SessionRecord *session, const Cairn__UploadExtra *extra)
{
    struct key key = key_page_link(apply->state->group, request->head->ns, session->session, request->first_entry);
    Cairn__PageLink *present = NULL;
    enum err err = state_get(apply->state, &key, &cairn__page_link__descriptor, apply->arena, &present);
    if (err == ERR_OK) {
        bool same = present->page.len == extra->page.len && memcmp(present->page.data, extra->page.data, 32) == 0;
        return same ? STAGE_REPEAT : STAGE_MISPLACED;
    }
    return request->first_entry == session->entries ? STAGE_NEW : STAGE_MISPLACED;
}

/* Hangs the page into the session's list. */
static void stage_link(struct apply *apply, const Cairn__UploadStageRequest *request, Cairn__SessionRecord *session,
                       const Cairn__UploadExtra *extra, uint32_t safe_losses)
{
    page_ref(apply, request->head->ns, extra, request->entries, safe_losses);
    Cairn__PageLink link = CAIRN__PAGE_LINK__INIT;
    link.page = extra->page;
    link.entries = request->entries;
    link.bytes = extra->bytes;
    struct key key = key_page_link(apply->state->group, request->head->ns, session->session, request->first_entry);
    state_put(apply->state, &key, &link);
    session->entries += request->entries;
    session->bytes += extra->bytes;
    session->safe_losses = safe_losses < session->safe_losses ? safe_losses : session->safe_losses;
}

static enum err stage_commit(struct apply *apply, const Cairn__UploadStageRequest *request,
                             const Cairn__UploadExtra *extra, Cairn__NamespaceRecord *ns, Cairn__SessionRecord *session,
                             struct answer *answer)
{
    Cairn__UploadStageReply reply = CAIRN__UPLOAD_STAGE_REPLY__INIT;
    struct writer body = {0};
    enum stage_place place = request->entries > 0 ? stage_find_place(apply, request, session, extra) : STAGE_REPEAT;
    enum err err =
        place == STAGE_MISPLACED ? ERR_CONFLICT : session_take_receipts(apply, ns->ns, session, extra->receipts);
    if (err == ERR_OK && place == STAGE_NEW) {
        uint32_t safe = 0;
        reply.unresolved = proto_arena_take(apply->arena, UNRESOLVED_MAX * sizeof *reply.unresolved);
        reply.n_unresolved = stage_resolve(apply, request, session, extra, reply.unresolved, &safe);
        if (reply.n_unresolved == 0) {
            stage_link(apply, request, session, extra, safe);
        }
    }
    if (err == ERR_OK) {
        if (request->asks > 0) {
            session->generation = ++ns->generation;
        }
        err = session_ask(apply, ns->ns, session->session, session->writer, extra, &body);
        session_touch(apply->state, ns->ns, session, apply->command->tick);
        namespace_put(apply->state, ns);
        reply.generation = session->generation;
        reply.entries = session->entries;
        answer_set(answer, &reply);
        answer->body = writer_take(&body);
    }
    writer_deinit(&body);
    return err;
}

enum err upload_stage_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__UploadStageRequest *request = apply->request;
    void *extra = NULL;
    Cairn__NamespaceRecord *ns = NULL;
    Cairn__SessionRecord *session = NULL;
    struct slice packed = slice_borrow(apply->command->extra.data, apply->command->extra.len);
    enum err err = proto_unpack(&cairn__upload_extra__descriptor, packed, apply->arena, &extra);
    if (err == ERR_OK) {
        err = namespace_get(apply->state, request->head->ns, apply->arena, &ns);
    }
    if (err == ERR_OK) {
        err = session_get(apply->state, ns->ns, request->session, apply->user->user, apply->arena, &session);
    }
    return err == ERR_OK ? stage_commit(apply, request, extra, ns, session, answer) : err;
}

enum err upload_stage_finish(struct finish *finish, struct answer *answer)
{
    const Cairn__UploadStageRequest *request = finish->request;
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err = proto_unpack(&cairn__upload_stage_reply__descriptor, answer->header, &arena, &message);
    if (err == ERR_OK) {
        Cairn__UploadStageReply *reply = message;
        const struct upload_grant grant = {request->head->ns, request->session, reply->generation};
        err = upload_answer_finish(finish, &grant, reply, &reply->capability, answer, &arena);
    }
    proto_arena_deinit(&arena);
    return err;
}
