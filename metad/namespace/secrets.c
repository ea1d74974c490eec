/* What only a leader with open keys computes: chunk ids and keys, capabilities, keys for values at rest (R-C2, R-F5,
 * R-F6). */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/namespace/chunks.h"
#include "metad/root/root.h"
#include "proto/manifest.h"

#define CAPABILITY_TICKS  30u           /* five minutes of cluster time */
#define CAPABILITY_BUDGET (64ull << 30) /* body bytes a store takes under one */

enum err asks_compute(const struct keyring *keyring, const uint8_t *asks, uint32_t count, uint32_t chunk_limit,
                      struct writer *ret)
{
    CHECK(keyring->present);
    for (uint32_t i = 0; i < count; i++) {
        struct ask_entry ask;
        enum err err = ask_entry_decode(asks + (size_t)i * ASK_ENTRY_BYTES, ASK_ENTRY_BYTES, &ask);
        if (err != ERR_OK || ask.plain_bytes > chunk_limit) {
            return ERR_INVALID;
        }
        struct chunk_id chunk = chunk_id_of(keyring->realm_secret, ask.sha);
        writer_put(ret, chunk.bytes, sizeof chunk.bytes);
        writer_u32(ret, ask.plain_bytes);
    }
    return ERR_OK;
}

void extra_set_down(const struct keyring *keyring, struct proto_arena *arena, Cairn__UploadExtra *extra)
{
    CHECK(keyring->map != NULL && extra->n_down == 0);
    extra->down = proto_arena_take(arena, (keyring->map->n_stores + 1) * sizeof *extra->down);
    for (size_t i = 0; i < keyring->map->n_stores; i++) {
        if (keyring->map->stores[i]->state != STORE_UP) {
            extra->down[extra->n_down++] = keyring->map->stores[i]->store;
        }
    }
}

/* Puts a copy of an answer body with the keys of missing chunks in its place (R-C2). */
static enum err answers_add_keys(const struct keyring *keyring, struct slice *body)
{
    struct slice keyed = slice_copy(body->data, body->bytes);
    for (size_t i = 0; i + ASK_ANSWER_BYTES <= keyed.bytes; i += ASK_ANSWER_BYTES) {
        struct ask_answer answer;
        enum err err = ask_answer_decode(keyed.data + i, ASK_ANSWER_BYTES, &answer);
        if (err != ERR_OK) {
            slice_drop(&keyed);
            return ERR_CORRUPT;
        }
        if (answer.missing) {
            chunk_key_of(keyring->realm_key, answer.chunk, answer.kc);
            ask_answer_encode(&answer, keyed.data + i);
        }
    }
    slice_drop(body);
    *body = keyed;
    return ERR_OK;
}

void capability_issue(const struct keyring *keyring, const struct bootstrap *bootstrap,
                      const Cairn__NamespaceRecord *ns, const struct capability_grant *grant, uint8_t *ret)
{
    CHECK(keyring->present && keyring->map != NULL);
    struct capability capability = {
        .cluster = bootstrap->cluster,
        .cluster_incarnation = bootstrap->cluster_incarnation,
        .realm = ns->realm,
        .writer = grant->writer,
        .ns = ns->ns,
        .ns_incarnation = ns->incarnation,
        .session = grant->session,
        .generation = grant->generation,
        .operations = grant->operations,
        .budget_bytes = CAPABILITY_BUDGET,
        .expiry_tick = keyring->map->tick + CAPABILITY_TICKS,
        .capability_epoch = keyring->map->capability_epoch,
        .bearer = grant->bearer,
        .key_id = keyring->signing_key_id,
    };
    capability_sign(&capability, keyring->signing_seed, ret);
}

enum err upload_answer_finish(struct finish *finish, const struct upload_grant *upload, void *reply,
                              ProtobufCBinaryData *capability, struct answer *answer, struct proto_arena *arena)
{
    Cairn__NamespaceRecord *ns = NULL;
    uint8_t token[CAPABILITY_BYTES];
    enum err err = namespace_get(finish->state, upload->ns, arena, &ns);
    if (err != ERR_OK) {
        return err;
    }
    const struct capability_grant grant = {.bearer = finish->bearer,
                                           .writer = finish->writer,
                                           .session = upload->session,
                                           .generation = upload->generation,
                                           .operations = CAPABILITY_PUT | CAPABILITY_GET};
    capability_issue(finish->keyring, finish->bootstrap, ns, &grant, token);
    *capability = (ProtobufCBinaryData){sizeof token, token};
    slice_drop(&answer->header);
    answer->header = proto_pack(reply);
    *capability = (ProtobufCBinaryData){0};
    return answers_add_keys(finish->keyring, &answer->body);
}

void rest_key_derive(const struct keyring *keyring, uint64_t ns, const char *use, uint8_t ret_key[32])
{
    uint8_t info[64];
    size_t use_bytes = strlen(use);
    CHECK(use_bytes <= 16);
    memcpy(info, "cairn rest ", 11);
    memcpy(info + 11, use, use_bytes);
    put_u64(info + 11 + use_bytes, ns);
    hkdf_sha256(keyring->realm_key, 32, info, 19 + use_bytes, ret_key, 32);
}
