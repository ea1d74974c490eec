/* The frame: one framing for every plane (DESIGN.md section 5).
 *
 *     0  u32  magic "CRN1" (0x314e5243 little-endian)
 *     4  u8   protocol version (FRAME_VERSION)
 *     5  u8   flags (enum message_flags)
 *     6  u16  type (messages.def)
 *     8  u64  stream: actor slot of the sender << 48 | its number of the request
 *    16  u32  target: index of the receiving actor (group number, store position)
 *    20  u32  header bytes
 *    24  u32  body bytes
 *    28  u32  CRC32C of bytes 0..27 and of the protobuf header
 *    32       protobuf header, then the raw body
 * The body has checksums of its own where they matter; TLS authenticates all. Lengths are checked against LIMIT_FRAME_*
 * before a byte is allocated. */
#ifndef CAIRN_PROTO_FRAME_H
#define CAIRN_PROTO_FRAME_H

#include <stdint.h>

#include "base/effect.h"
#include "base/err.h"

#define FRAME_MAGIC       0x314e5243u
#define FRAME_VERSION     1
#define FRAME_FIXED_BYTES 32u

struct frame {
    uint8_t flags;
    uint16_t type;
    uint64_t stream;
    uint32_t target;
    uint32_t header_bytes;
    uint32_t body_bytes;
    uint32_t crc;
};

/* Writes the fixed part for `frame` with the CRC over it and `header`. */
void frame_encode(const struct frame *frame, const uint8_t *header, uint8_t ret[FRAME_FIXED_BYTES]);
/* Reads and checks the fixed part but for the CRC: BAD_FRAME (magic), BAD_VERSION, TOO_LARGE (header + body over
 * `limit_header`, `limit_body`). ret_frame untouched on failure. */
MUST_CHECK enum err frame_decode(const uint8_t fixed[FRAME_FIXED_BYTES], uint32_t limit_header, uint32_t limit_body,
                                 struct frame *ret_frame);
/* BAD_FRAME unless the CRC of fixed part and header is the one the frame carries. */
MUST_CHECK enum err frame_check(const uint8_t fixed[FRAME_FIXED_BYTES], const uint8_t *header, uint32_t header_bytes);

#endif
