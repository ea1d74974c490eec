/* Sealing: what stands between a plain chunk and the bytes a block server sees (PROTOCOLS.md C1), and small sealed
 * values for the metadata plane.
 *
 * Sealed chunk, little-endian:
 *     0   u32  magic "CSL1"
 *     4   u8   codec: 0 plain, 1 zstd
 *     5   u8   zero, u16 zero
 *     8   u32  plain bytes (of the chunk)
 *    12   u32  payload bytes (after the codec)
 *    16   16 B encoding s = HMAC(Kc, codec || SHA-256(payload))[0..16)
 *    32        frames of 64 KiB of payload, each ciphertext followed by its 16-byte GCM tag; an empty payload has one
 * empty frame Frame n: AES-256-GCM under HKDF(Kc, "cairn seal" || s), nonce = n as 12 bytes little-endian, associated
 * data = chunk id || codec || frame count u32 || last flag u8 || plain bytes u32. */
#ifndef CAIRN_BASE_SEAL_H
#define CAIRN_BASE_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "ids.h"
#include "slice.h"

#define SEAL_HEADER_BYTES 32u
#define SEAL_FRAME_BYTES  (64u << 10)
#define SEAL_TAG_BYTES    16u

enum seal_codec { SEAL_PLAIN = 0, SEAL_ZSTD = 1 };

/* Length of the sealed form of a payload (UINT32_MAX where it would not fit). */
uint32_t seal_bytes(uint32_t payload_bytes);
/* Seals `plain` (its SHA-256 is `sha`; trusted, for an uncompressed payload it is the payload's hash) with codec
 * SEAL_PLAIN into `ret`, which has seal_bytes(plain_bytes) bytes. Deterministic. */
void seal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha, const void *plain,
                uint32_t plain_bytes, uint8_t *ret, struct encoding *ret_encoding);
/* The same for any codec: seals `payload` as it is (compress.h made it from plain_bytes bytes; never made again from
 * them by one who checks a sealed chunk). `payload_sha` is its SHA-256 and trusted. `ret` has
 * seal_bytes(payload.bytes). */
void seal_payload(const struct chunk_id *chunk, const uint8_t kc[32], enum seal_codec codec,
                  const struct sha256 *payload_sha, struct slice payload, uint32_t plain_bytes, uint8_t *ret,
                  struct encoding *ret_encoding);
/* Opens and authenticates a sealed chunk: CORRUPT unless the header, every tag, the encoding, the plain length and the
 * plain hash `sha` all match. `ret_plain` is a new slice. */
MUST_CHECK enum err unseal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha,
                                 const struct encoding *encoding, uint32_t plain_bytes, const void *sealed,
                                 uint32_t sealed_bytes, struct slice *ret_plain);
/* The same for a sealed chunk that lies in `count` parts one behind the other (its data shards; padding behind
 * sealed_bytes is not looked at). Only frames that cross from part to part are copied. The parts together have
 * sealed_bytes or more. */
MUST_CHECK enum err unseal_parts(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha,
                                 const struct encoding *encoding, uint32_t plain_bytes, const struct slice *parts,
                                 unsigned count, uint32_t sealed_bytes, struct slice *ret_plain);

/* Small values at rest (manifest pages, inline content, wrapped keys): a synthetic-IV AEAD. s = HMAC(key,
 * u64 aad bytes || aad || plain)[0..16), AES-256-GCM under HKDF(key, "cairn value" || s), nonce 0. Output: s,
 * ciphertext, tag: VALUE_SEAL_BYTES longer. Equal values under equal keys and aad seal equally; no key and nonce ever
 * meet two texts. */
#define VALUE_SEAL_BYTES 32u
struct slice value_seal(const uint8_t key[32], const void *aad, size_t aad_bytes, const void *plain, size_t bytes);
MUST_CHECK enum err value_unseal(const uint8_t key[32], const void *aad, size_t aad_bytes, const void *sealed,
                                 size_t bytes, struct slice *ret_plain);

#endif
