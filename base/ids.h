/* Ids: each a one-member struct, so that the compiler stops a mix-up. */
#ifndef CAIRN_BASE_IDS_H
#define CAIRN_BASE_IDS_H

#include <stdbool.h>
#include <stdint.h>

struct sha256 {
    uint8_t bytes[32];
}; /* of plain chunk bytes, or of anything else */
struct chunk_id {
    uint8_t bytes[32];
}; /* HMAC-SHA-256(realm secret, sha256 of the plain bytes) */
struct encoding {
    uint8_t bytes[16];
}; /* names the exact sealed bytes of a chunk (R-C1) */
struct uuid {
    uint8_t bytes[16];
};
struct cluster_id {
    struct uuid uuid;
}; /* made once by `dev up` or `cluster init` */

/* Incarnations of a cluster: the upper half counts recoveries from a lost majority, the lower half tells apart two that
 * began from the same state; 1 at first (R-A10). */
#define INCARNATION_FIRST 1u
static inline bool incarnation_is_newer(uint64_t a, uint64_t b)
{
    return (a >> 32) > (b >> 32);
}
static inline uint64_t incarnation_next(uint64_t incarnation, uint32_t random)
{
    return ((incarnation >> 32) + 1) << 32 | random;
}

/* R-F1. The same 63 bytes in record, index, put, receipt and digest. */
struct shard_key {
    uint64_t realm;
    struct chunk_id chunk;
    uint32_t writer; /* a member's number in its realm */
    struct encoding encoding;
    uint8_t k, m;  /* the code; (1, m) for copies */
    uint8_t index; /* 0 .. k+m-1 */
};
#define SHARD_KEY_BYTES (8 + 32 + 4 + 16 + 3)

/* Packs big-endian (so that keys sort by realm, then chunk) and back. `data` has SHARD_KEY_BYTES. */
void shard_key_encode(const struct shard_key *key, uint8_t *data);
void shard_key_decode(const uint8_t *data, struct shard_key *ret_key);

#endif
