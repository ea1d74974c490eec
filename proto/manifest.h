/* The packed structs that describe chunks in the raw bodies of upload and manifest messages (cairn.proto, "body:").
 * All little-endian, without padding.
 *
 *   ask entry       0  32 B SHA-256    32 u32 plain bytes
 *   ask answer      0  u8 1 = missing, 0 = present    1  32 B chunk id   33  32 B Kc (zero when present)
 *                  65  u32 writer  69  16 B encoding   85  u32 sealed bytes (these three zero when missing)
 *   manifest entry  0  32 B SHA-256    32  u32 plain bytes  36 u32 writer  40 16 B encoding
 *   manifest read   a manifest entry, then 56 32 B chunk id   88 32 B Kc  120 u32 zero
 *
 * Decoders take (bytes, length) from a peer: INVALID on a wrong length or a field out of range; the result is untouched
 * then. A plain length is out of range when it is 0 or over LIMIT_CHUNK_BYTES (PROTOCOLS C5). */
#ifndef CAIRN_PROTO_MANIFEST_H
#define CAIRN_PROTO_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"

#define ASK_ENTRY_BYTES      (32u + 4u)
#define ASK_ANSWER_BYTES     (1u + 32u + 32u + 4u + 16u + 4u)
#define MANIFEST_ENTRY_BYTES (32u + 4u + 4u + 16u)
#define MANIFEST_READ_BYTES  (MANIFEST_ENTRY_BYTES + 32u + 32u + 4u)
#define REFERENCE_BYTES      (32u + 4u + 16u + 2u + 4u + 4u) /* of a REFERENCES reply (cairn.proto) */
#define STORE_LIST_BYTES     (63u + 4u + 4u)                 /* of a STORE_LIST reply */

struct ask_entry {
    struct sha256 sha;
    uint32_t plain_bytes;
};

struct ask_answer {
    bool missing; /* to be uploaded under kc; else `writer` and `encoding` name what is there */
    struct chunk_id chunk;
    uint8_t kc[32];
    uint32_t writer;
    struct encoding encoding;
    uint32_t sealed_bytes;
};

struct manifest_entry {
    struct sha256 sha;
    uint32_t plain_bytes;
    uint32_t writer;
    struct encoding encoding;
};

struct manifest_read {
    struct manifest_entry entry;
    struct chunk_id chunk;
    uint8_t kc[32];
};

void ask_entry_encode(const struct ask_entry *entry, uint8_t ret[ASK_ENTRY_BYTES]);
MUST_CHECK enum err ask_entry_decode(const uint8_t *data, size_t bytes, struct ask_entry *ret_entry);

void ask_answer_encode(const struct ask_answer *answer, uint8_t ret[ASK_ANSWER_BYTES]);
MUST_CHECK enum err ask_answer_decode(const uint8_t *data, size_t bytes, struct ask_answer *ret_answer);

void manifest_entry_encode(const struct manifest_entry *entry, uint8_t ret[MANIFEST_ENTRY_BYTES]);
MUST_CHECK enum err manifest_entry_decode(const uint8_t *data, size_t bytes, struct manifest_entry *ret_entry);

void manifest_read_encode(const struct manifest_read *entry, uint8_t ret[MANIFEST_READ_BYTES]);
MUST_CHECK enum err manifest_read_decode(const uint8_t *data, size_t bytes, struct manifest_read *ret_entry);

#endif
