/* The frame's fixed part: what stands between a socket and a message. The shell reads 32 bytes, frame_decode bounds
 * both lengths before anything is allocated, the header follows, frame_check guards both; then the body goes where it
 * is wanted. Any failure closes the connection: after a bad length there is no telling where the next frame begins. */
#include "frame.h"

#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

#define FRAME_CRC_OFFSET 28u
_Static_assert(FRAME_CRC_OFFSET + 4 == FRAME_FIXED_BYTES, "the CRC ends the fixed part");

static uint32_t frame_crc(const uint8_t *fixed, const uint8_t *header, uint32_t header_bytes)
{
    return crc32c(crc32c(0, fixed, FRAME_CRC_OFFSET), header, header_bytes);
}

void frame_encode(const struct frame *frame, const uint8_t *header, uint8_t ret[FRAME_FIXED_BYTES])
{
    put_u32(ret, FRAME_MAGIC);
    ret[4] = FRAME_VERSION;
    ret[5] = frame->flags;
    put_u16(ret + 6, frame->type);
    put_u64(ret + 8, frame->stream);
    put_u32(ret + 16, frame->target);
    put_u32(ret + 20, frame->header_bytes);
    put_u32(ret + 24, frame->body_bytes);
    put_u32(ret + FRAME_CRC_OFFSET, frame_crc(ret, header, frame->header_bytes));
}

enum err frame_decode(const uint8_t fixed[FRAME_FIXED_BYTES], uint32_t limit_header, uint32_t limit_body,
                      struct frame *ret_frame)
{
    if (get_u32(fixed) != FRAME_MAGIC) {
        return ERR_BAD_FRAME;
    }
    if (fixed[4] != FRAME_VERSION) {
        return ERR_BAD_VERSION;
    }
    uint32_t header_bytes = get_u32(fixed + 20);
    uint32_t body_bytes = get_u32(fixed + 24);
    if (header_bytes > limit_header || body_bytes > limit_body) {
        return ERR_TOO_LARGE;
    }
    *ret_frame = (struct frame){.flags = fixed[5],
                                .type = get_u16(fixed + 6),
                                .stream = get_u64(fixed + 8),
                                .target = get_u32(fixed + 16),
                                .header_bytes = header_bytes,
                                .body_bytes = body_bytes,
                                .crc = get_u32(fixed + FRAME_CRC_OFFSET)};
    return ERR_OK;
}

enum err frame_check(const uint8_t fixed[FRAME_FIXED_BYTES], const uint8_t *header, uint32_t header_bytes)
{
    bool good = header_bytes == get_u32(fixed + 20) &&
                frame_crc(fixed, header, header_bytes) == get_u32(fixed + FRAME_CRC_OFFSET);
    return good ? ERR_OK : ERR_BAD_FRAME;
}
