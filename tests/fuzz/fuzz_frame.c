/* frame_decode and frame_check. Input: the fixed part, then header bytes. What passes encodes back to the same bytes.
 */
#include <string.h>

#include "base/check.h"
#include "base/limits.h"
#include "fuzz.h"
#include "proto/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < FRAME_FIXED_BYTES) {
        return 0;
    }
    const uint8_t *header = data + FRAME_FIXED_BYTES;
    size_t left = bytes - FRAME_FIXED_BYTES;
    struct frame frame;
    if (frame_decode(data, LIMIT_FRAME_UNAUTH_BYTES, 0, &frame) == ERR_OK) {
        CHECK(frame.header_bytes <= LIMIT_FRAME_UNAUTH_BYTES && frame.body_bytes == 0);
    }
    if (frame_decode(data, LIMIT_FRAME_HEADER_BYTES, LIMIT_FRAME_BODY_BYTES, &frame) != ERR_OK) {
        return 0;
    }
    CHECK(frame.header_bytes <= LIMIT_FRAME_HEADER_BYTES && frame.body_bytes <= LIMIT_FRAME_BODY_BYTES);
    if (frame.header_bytes <= left && frame_check(data, header, frame.header_bytes) == ERR_OK) {
        uint8_t again[FRAME_FIXED_BYTES];
        frame_encode(&frame, header, again);
        CHECK(memcmp(again, data, sizeof again) == 0);
    }
    return 0;
}
