/* Chunks, pages and sessions of a namespace: what the upload operations share. */
#ifndef CAIRN_METAD_NAMESPACE_CHUNKS_H
#define CAIRN_METAD_NAMESPACE_CHUNKS_H

#include "base/ids.h"
#include "metad/machine.h"
#include "proto/token.h"

/* A chunk as entries, references and holders name it (R-A5). */
struct chunk_ref {
    struct chunk_id chunk;
    uint32_t writer;
    struct encoding encoding;
};
#define CHUNK_REF_BYTES (32 + 4 + 16)
void chunk_ref_encode(const struct chunk_ref *ref, uint8_t *data);
void chunk_ref_decode(const uint8_t *data, struct chunk_ref *ret_ref);

struct key key_chunk(struct prefix group, uint64_t ns, const struct chunk_ref *ref);
/* The session's pin on a chunk; its mark that a chunk was called missing; what receipts of one code have shown. */
struct key key_session_pin(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_ref *ref);
struct key key_session_missing(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_id *chunk);
struct key key_session_receipt(struct prefix group, uint64_t ns, uint64_t session, const struct chunk_ref *ref,
                               uint8_t k, uint8_t m);

/* Answers an ask (R-A2): pins what this writer's live chunks hold, marks the rest missing. Appends ASK_ANSWER_BYTES per
 * chunk with an empty key. */
enum err session_ask(struct apply *apply, uint64_t ns, uint64_t session, uint32_t writer,
                     const Cairn__UploadExtra *extra, struct writer *ret_body);
/* Takes verified receipts into the session's records; its (store, incarnation) set grows in `session`. */
enum err session_take_receipts(struct apply *apply, uint64_t ns, Cairn__SessionRecord *session,
                               ProtobufCBinaryData receipts);
/* True when a chunk is pinned by the session or its receipts suffice for one code; then its record exists and is
 * pinned. ret_safe_losses: stores that may vanish (R-B3). */
bool session_resolve(struct apply *apply, uint64_t ns, Cairn__SessionRecord *session, const struct chunk_ref *ref,
                     uint32_t plain_bytes, const Cairn__UploadExtra *extra, uint32_t *ret_safe_losses);
/* Counts one more page list that names `page`; a new page counts one more live page at each chunk (R-D3). */
void page_ref(struct apply *apply, uint64_t ns, const Cairn__UploadExtra *extra, uint32_t entries,
              uint32_t safe_losses);
/* Drops up to `limit` of the session's pins, marks and receipt records; true when none is left. */
bool session_reap(struct state *state, uint64_t ns, uint64_t session, struct proto_arena *arena, unsigned limit);

/* Leader only: the stores that are down in the newest map it knows, into the command (R-B3). */
void extra_set_down(const struct keyring *keyring, struct proto_arena *arena, Cairn__UploadExtra *extra);
/* Leader only: asks -> chunk ids (R-F5) appended to `ret`; INVALID on a chunk length of 0 or over the limit. */
enum err asks_compute(const struct keyring *keyring, const uint8_t *asks, uint32_t count, uint32_t chunk_limit,
                      struct writer *ret);
/* What a capability says beside its namespace. */
struct capability_grant {
    struct sha256 bearer; /* of the key that only he who may use it can show (R-F8) */
    uint32_t writer;
    uint64_t session; /* 0: reading */
    uint64_t generation;
    uint32_t operations; /* enum capability_operations */
};
/* Leader only: signs it and returns its CAPABILITY_BYTES in `ret`. */
void capability_issue(const struct keyring *keyring, const struct bootstrap *bootstrap,
                      const Cairn__NamespaceRecord *ns, const struct capability_grant *grant, uint8_t *ret);
/* For which upload one is wanted. */
struct upload_grant {
    uint64_t ns, session, generation;
};
/* Leader only: what must lie in no log is added to the answer of a start or a stage: a fresh capability to its header
 * (`reply`, unpacked into `arena`, with its field `capability`) and the keys of missing chunks to its body (R-C2). */
MUST_CHECK enum err upload_answer_finish(struct finish *finish, const struct upload_grant *upload, void *reply,
                                         ProtobufCBinaryData *capability, struct answer *answer,
                                         struct proto_arena *arena);
/* Keys for values at rest of a namespace, from the realm key. `use` names what: "page", "inline". */
void rest_key_derive(const struct keyring *keyring, uint64_t ns, const char *use, uint8_t ret_key[32]);

#endif
