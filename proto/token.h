/* Capabilities and receipts: what a client carries between the planes (PROTOCOLS.md B2, F8). Packed little-endian.
 *
 * Capability: the fields below in order, then the 64-byte Ed25519 signature over "cairn capability" || fields.
 * Receipt:    the fields below in order, then a 32-byte HMAC-SHA-256 under the store's receipt key over "cairn receipt"
 * || fields. */
#ifndef CAIRN_PROTO_TOKEN_H
#define CAIRN_PROTO_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/slice.h"

enum capability_operations { CAPABILITY_PUT = 1, CAPABILITY_GET = 2 };

struct capability {
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    uint64_t realm;
    uint32_t writer;
    uint64_t ns;
    uint64_t ns_incarnation;
    uint64_t session;          /* 0: reading */
    uint64_t generation;       /* of the ask it answers */
    uint32_t operations;       /* enum capability_operations */
    uint64_t budget_bytes;     /* a store takes at most so many body bytes under it */
    struct sha256 id_list;     /* all zero: the whole namespace (R-C3) */
    uint64_t expiry_tick;      /* cluster time, ticks of 10 s */
    uint64_t capability_epoch; /* the realm's at signing */
    struct sha256 bearer;      /* SHA-256 of the DER public key of the bearer's certificate */
    uint32_t key_id;
};
#define CAPABILITY_FIELD_BYTES (16 + 8 + 8 + 4 + 8 + 8 + 8 + 8 + 4 + 8 + 32 + 8 + 8 + 32 + 4)
#define CAPABILITY_BYTES       (CAPABILITY_FIELD_BYTES + 64)

void capability_sign(const struct capability *capability, const uint8_t seed[32], uint8_t ret[CAPABILITY_BYTES]);
/* BAD_CAPABILITY unless `bytes` is right and the signature verifies under `public_key`. Does not look at expiry or
 * scope. */
MUST_CHECK enum err capability_verify(const uint8_t *data, size_t bytes, const uint8_t public_key[32],
                                      struct capability *ret_capability);
/* Reads the fields without believing them (to find key_id). */
MUST_CHECK enum err capability_peek(const uint8_t *data, size_t bytes, struct capability *ret_capability);

struct receipt {
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    uint32_t store; /* store number in the map */
    uint64_t store_incarnation;
    struct shard_key shard; /* realm, chunk, writer, encoding, k, m, index */
    uint32_t sealed_bytes;
    uint64_t ns;
    uint64_t ns_incarnation;
    uint64_t session;
    uint64_t generation;
};
#define RECEIPT_FIELD_BYTES (16 + 8 + 4 + 8 + SHARD_KEY_BYTES + 4 + 8 + 8 + 8 + 8)
#define RECEIPT_BYTES       (RECEIPT_FIELD_BYTES + 32)

/* The key of a store's incarnation: HKDF(receipt master, "cairn receipt key" || store u32 || incarnation u64). */
void receipt_key_derive(const uint8_t master[32], uint32_t store, uint64_t store_incarnation, uint8_t ret_key[32]);
void receipt_sign(const struct receipt *receipt, const uint8_t key[32], uint8_t ret[RECEIPT_BYTES]);
/* Reads the fields without believing them; INVALID on a wrong length. */
MUST_CHECK enum err receipt_peek(const uint8_t *data, size_t bytes, struct receipt *ret_receipt);
/* BAD_RECEIPT unless the MAC verifies under `key`. */
MUST_CHECK enum err receipt_verify(const uint8_t *data, size_t bytes, const uint8_t key[32],
                                   struct receipt *ret_receipt);

/* What the key of a host that joins signs: "cairn join" || cluster || token u32 || role u32 || SHA-256 of the public
 * key
 * || address. */
struct slice join_statement(const struct cluster_id *cluster, uint32_t token, uint32_t role, const void *public_key,
                            size_t public_key_bytes, const char *address);

#endif
