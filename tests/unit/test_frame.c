/* The fixed part of a frame: its layout, its limits, and that any damage is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "proto/frame.h"

static const struct frame sample = {.flags = MESSAGE_REPLY,
                                    .type = 0x0102,
                                    .stream = 0x0003000000000007u,
                                    .target = 0x0a0b0c0d,
                                    .header_bytes = 5,
                                    .body_bytes = 0x00345678};

static void layout_is_fixed(void **state)
{
    (void)state;
    uint8_t fixed[FRAME_FIXED_BYTES];
    char text[2 * FRAME_FIXED_BYTES + 1];
    frame_encode(&sample, (const uint8_t *)"hello", fixed);
    hex_encode(fixed, 28, text);
    assert_string_equal(text, "43524e31"
                              "01"
                              "01"
                              "0201"
                              "0700000000000300"
                              "0d0c0b0a"
                              "05000000"
                              "78563400");
}

static void round_trip(void **state)
{
    (void)state;
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame back;
    frame_encode(&sample, (const uint8_t *)"hello", fixed);
    assert_int_equal(frame_decode(fixed, LIMIT_FRAME_HEADER_BYTES, LIMIT_FRAME_BODY_BYTES, &back), ERR_OK);
    assert_int_equal(back.flags, sample.flags);
    assert_int_equal(back.type, sample.type);
    assert_true(back.stream == sample.stream);
    assert_int_equal(back.target, sample.target);
    assert_int_equal(back.header_bytes, 5);
    assert_int_equal(back.body_bytes, sample.body_bytes);
    assert_int_equal(frame_check(fixed, (const uint8_t *)"hello", 5), ERR_OK);
    assert_int_equal(frame_check(fixed, (const uint8_t *)"hellp", 5), ERR_BAD_FRAME);
    assert_int_equal(frame_check(fixed, (const uint8_t *)"hello", 4), ERR_BAD_FRAME);
}

static void empty_frames_pass(void **state)
{
    (void)state;
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame back;
    frame_encode(&(struct frame){.type = 1}, NULL, fixed);
    assert_int_equal(frame_decode(fixed, 0, 0, &back), ERR_OK);
    assert_int_equal(frame_check(fixed, NULL, 0), ERR_OK);
}

static void every_flipped_bit_is_refused(void **state)
{
    (void)state;
    uint8_t fixed[FRAME_FIXED_BYTES];
    uint8_t header[5];
    memcpy(header, "hello", 5);
    frame_encode(&sample, header, fixed);
    for (unsigned bit = 0; bit < 8 * (FRAME_FIXED_BYTES + 5); bit++) {
        uint8_t *at = bit / 8 < FRAME_FIXED_BYTES ? &fixed[bit / 8] : &header[bit / 8 - FRAME_FIXED_BYTES];
        *at ^= (uint8_t)(1u << bit % 8);
        struct frame back;
        enum err err = frame_decode(fixed, UINT32_MAX, UINT32_MAX, &back);
        if (err == ERR_OK) {
            err = frame_check(fixed, header, 5);
        }
        assert_int_equal(err, bit / 8 == 4 ? ERR_BAD_VERSION : ERR_BAD_FRAME);
        *at ^= (uint8_t)(1u << bit % 8);
    }
}

static void lengths_are_bounded(void **state)
{
    (void)state;
    const uint32_t limits[][2] = {{LIMIT_FRAME_HEADER_BYTES, LIMIT_FRAME_BODY_BYTES}, {LIMIT_FRAME_UNAUTH_BYTES, 0}};
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned over = 0; over < 4; over++) {
            uint8_t fixed[FRAME_FIXED_BYTES] = {0};
            struct frame back = {.type = 0xdead};
            put_u32(fixed, FRAME_MAGIC);
            fixed[4] = FRAME_VERSION;
            put_u32(fixed + 20, limits[i][0] + (over & 1));
            put_u32(fixed + 24, limits[i][1] + (over >> 1));
            enum err err = frame_decode(fixed, limits[i][0], limits[i][1], &back);
            assert_int_equal(err, over ? ERR_TOO_LARGE : ERR_OK);
            assert_int_equal(back.type, over ? 0xdead : 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_fixed),     cmocka_unit_test(round_trip),
        cmocka_unit_test(empty_frames_pass),   cmocka_unit_test(every_flipped_bit_is_refused),
        cmocka_unit_test(lengths_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
