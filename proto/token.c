/* Capabilities and receipts, byte by byte. A capability goes metad -> client -> block server and says what the client
 * may do there; a receipt goes block server -> client -> metad and says what the server now holds durably. Neither is
 * believed before its signature: peek is for finding the key to check it with. */
#include "token.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/sign.h"

#define CAPABILITY_CONTEXT "cairn capability"
#define RECEIPT_CONTEXT    "cairn receipt"
_Static_assert(CAPABILITY_BYTES == 228 && RECEIPT_BYTES == 167, "tokens have one length on the wire");

/* A cursor that writes into a buffer of known length. */
struct packer {
    uint8_t *at;
};
static void pack_bytes(struct packer *p, const void *data, size_t bytes)
{
    memcpy(p->at, data, bytes);
    p->at += bytes;
}
static void pack_u32(struct packer *p, uint32_t v)
{
    put_u32(p->at, v);
    p->at += 4;
}
static void pack_u64(struct packer *p, uint64_t v)
{
    put_u64(p->at, v);
    p->at += 8;
}

static void capability_pack(const struct capability *c, uint8_t ret[CAPABILITY_FIELD_BYTES])
{
    struct packer p = {ret};
    pack_bytes(&p, c->cluster.uuid.bytes, 16);
    pack_u64(&p, c->cluster_incarnation);
    pack_u64(&p, c->realm);
    pack_u32(&p, c->writer);
    pack_u64(&p, c->ns);
    pack_u64(&p, c->ns_incarnation);
    pack_u64(&p, c->session);
    pack_u64(&p, c->generation);
    pack_u32(&p, c->operations);
    pack_u64(&p, c->budget_bytes);
    pack_bytes(&p, c->id_list.bytes, 32);
    pack_u64(&p, c->expiry_tick);
    pack_u64(&p, c->capability_epoch);
    pack_bytes(&p, c->bearer.bytes, 32);
    pack_u32(&p, c->key_id);
    CHECK(p.at == ret + CAPABILITY_FIELD_BYTES);
}

enum err capability_peek(const uint8_t *data, size_t bytes, struct capability *ret_capability)
{
    if (bytes != CAPABILITY_BYTES) {
        return ERR_BAD_CAPABILITY;
    }
    struct reader r = reader_of(data, CAPABILITY_FIELD_BYTES);
    struct capability c = {0};
    reader_get(&r, c.cluster.uuid.bytes, 16);
    c.cluster_incarnation = reader_u64(&r);
    c.realm = reader_u64(&r);
    c.writer = reader_u32(&r);
    c.ns = reader_u64(&r);
    c.ns_incarnation = reader_u64(&r);
    c.session = reader_u64(&r);
    c.generation = reader_u64(&r);
    c.operations = reader_u32(&r);
    c.budget_bytes = reader_u64(&r);
    reader_get(&r, c.id_list.bytes, 32);
    c.expiry_tick = reader_u64(&r);
    c.capability_epoch = reader_u64(&r);
    reader_get(&r, c.bearer.bytes, 32);
    c.key_id = reader_u32(&r);
    CHECK(!r.failed && r.left == 0);
    *ret_capability = c;
    return ERR_OK;
}

/* What is signed: context, then fields. `ret` has room for both. */
static size_t signed_text(const char *context, const uint8_t *fields, size_t bytes, uint8_t *ret)
{
    size_t context_bytes = strlen(context);
    memcpy(ret, context, context_bytes);
    memcpy(ret + context_bytes, fields, bytes);
    return context_bytes + bytes;
}

void capability_sign(const struct capability *capability, const uint8_t seed[32], uint8_t ret[CAPABILITY_BYTES])
{
    uint8_t text[sizeof CAPABILITY_CONTEXT + CAPABILITY_FIELD_BYTES];
    capability_pack(capability, ret);
    size_t bytes = signed_text(CAPABILITY_CONTEXT, ret, CAPABILITY_FIELD_BYTES, text);
    sign_make(seed, text, bytes, ret + CAPABILITY_FIELD_BYTES);
}

enum err capability_verify(const uint8_t *data, size_t bytes, const uint8_t public_key[32],
                           struct capability *ret_capability)
{
    struct capability capability;
    enum err err = capability_peek(data, bytes, &capability);
    if (err != ERR_OK) {
        return err;
    }
    uint8_t text[sizeof CAPABILITY_CONTEXT + CAPABILITY_FIELD_BYTES];
    size_t text_bytes = signed_text(CAPABILITY_CONTEXT, data, CAPABILITY_FIELD_BYTES, text);
    if (!sign_verify(public_key, text, text_bytes, data + CAPABILITY_FIELD_BYTES)) {
        return ERR_BAD_CAPABILITY;
    }
    *ret_capability = capability;
    return ERR_OK;
}

void receipt_key_derive(const uint8_t master[32], uint32_t store, uint64_t store_incarnation, uint8_t ret_key[32])
{
    static const char use[] = "cairn receipt key";
    uint8_t info[sizeof use - 1 + 12];
    memcpy(info, use, sizeof use - 1);
    put_u32(info + sizeof use - 1, store);
    put_u64(info + sizeof use - 1 + 4, store_incarnation);
    hkdf_sha256(master, 32, info, sizeof info, ret_key, 32);
}

static void receipt_pack(const struct receipt *receipt, uint8_t ret[RECEIPT_FIELD_BYTES])
{
    struct packer p = {ret};
    pack_bytes(&p, receipt->cluster.uuid.bytes, 16);
    pack_u64(&p, receipt->cluster_incarnation);
    pack_u32(&p, receipt->store);
    pack_u64(&p, receipt->store_incarnation);
    shard_key_encode(&receipt->shard, p.at);
    p.at += SHARD_KEY_BYTES;
    pack_u32(&p, receipt->sealed_bytes);
    pack_u64(&p, receipt->ns);
    pack_u64(&p, receipt->ns_incarnation);
    pack_u64(&p, receipt->session);
    pack_u64(&p, receipt->generation);
    CHECK(p.at == ret + RECEIPT_FIELD_BYTES);
}

static struct sha256 receipt_mac(const uint8_t *fields, const uint8_t key[32])
{
    uint8_t text[sizeof RECEIPT_CONTEXT + RECEIPT_FIELD_BYTES];
    size_t bytes = signed_text(RECEIPT_CONTEXT, fields, RECEIPT_FIELD_BYTES, text);
    return hmac_sha256(key, 32, text, bytes);
}

void receipt_sign(const struct receipt *receipt, const uint8_t key[32], uint8_t ret[RECEIPT_BYTES])
{
    receipt_pack(receipt, ret);
    struct sha256 mac = receipt_mac(ret, key);
    memcpy(ret + RECEIPT_FIELD_BYTES, mac.bytes, sizeof mac.bytes);
}

enum err receipt_peek(const uint8_t *data, size_t bytes, struct receipt *ret_receipt)
{
    if (bytes != RECEIPT_BYTES) {
        return ERR_INVALID;
    }
    struct reader r = reader_of(data, RECEIPT_FIELD_BYTES);
    struct receipt receipt = {0};
    reader_get(&r, receipt.cluster.uuid.bytes, 16);
    receipt.cluster_incarnation = reader_u64(&r);
    receipt.store = reader_u32(&r);
    receipt.store_incarnation = reader_u64(&r);
    const uint8_t *shard = reader_take(&r, SHARD_KEY_BYTES);
    CHECK(shard != NULL);
    shard_key_decode(shard, &receipt.shard);
    receipt.sealed_bytes = reader_u32(&r);
    receipt.ns = reader_u64(&r);
    receipt.ns_incarnation = reader_u64(&r);
    receipt.session = reader_u64(&r);
    receipt.generation = reader_u64(&r);
    CHECK(!r.failed && r.left == 0);
    *ret_receipt = receipt;
    return ERR_OK;
}

enum err receipt_verify(const uint8_t *data, size_t bytes, const uint8_t key[32], struct receipt *ret_receipt)
{
    struct receipt receipt;
    if (receipt_peek(data, bytes, &receipt) != ERR_OK) {
        return ERR_BAD_RECEIPT;
    }
    struct sha256 mac = receipt_mac(data, key);
    if (!secret_equal(mac.bytes, data + RECEIPT_FIELD_BYTES, sizeof mac.bytes)) {
        return ERR_BAD_RECEIPT;
    }
    *ret_receipt = receipt;
    return ERR_OK;
}

struct slice join_statement(const struct cluster_id *cluster, uint32_t token, uint32_t role, const void *public_key,
                            size_t public_key_bytes, const char *address)
{
    struct writer w = {0};
    struct sha256 digest = sha256(public_key, public_key_bytes);
    writer_put(&w, "cairn join", strlen("cairn join"));
    writer_put(&w, cluster, sizeof *cluster);
    writer_u32(&w, token);
    writer_u32(&w, role);
    writer_put(&w, &digest, sizeof digest);
    writer_put(&w, address, strlen(address));
    struct slice statement = writer_take(&w);
    writer_deinit(&w);
    return statement;
}
