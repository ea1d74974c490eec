/* Hashes and key derivation over OpenSSL (fetched once, contexts per thread), and CRC32C over ISA-L. All pure. */
#ifndef CAIRN_BASE_HASH_H
#define CAIRN_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ids.h"
#include "slice.h"

/* CRC-32C (Castagnoli, initial and final inversion as in iSCSI) of `data`, continuing `crc` (0 to begin). */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

struct sha256 sha256(const void *data, size_t bytes);
/* The same of `count` messages into ret[0..count): side by side where the processor can (SHA-NI), which takes less time
 * than one after the other. */
void sha256_many(const struct slice *in, unsigned count, struct sha256 *ret);
/* HMAC-SHA-256. */
struct sha256 hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t bytes);
/* HKDF-SHA-256 (RFC 5869), empty salt: `info` names the use. ret_bytes <= 255 * 32. */
void hkdf_sha256(const void *key, size_t key_bytes, const void *info, size_t info_bytes, void *ret, size_t ret_bytes);
/* Compares in constant time. */
bool secret_equal(const void *a, const void *b, size_t bytes);

/* Chunk id and chunk key (R-C1): HMAC(realm secret, sha), HKDF(realm key, "cairn chunk" || chunk id). */
struct chunk_id chunk_id_of(const uint8_t realm_secret[32], struct sha256 sha);
void chunk_key_of(const uint8_t realm_key[32], struct chunk_id chunk, uint8_t ret_kc[32]);

#endif
