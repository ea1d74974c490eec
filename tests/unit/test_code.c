/* Erasure coding against a plain reference over GF(2^8) / x^8+x^4+x^3+x^2+1, and every erasure pattern of 4+2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/code.h"
#include "base/hash.h"

static uint8_t reference_mul(uint8_t a, uint8_t b)
{
    unsigned product = 0;
    for (unsigned i = 0; i < 8; i++) {
        product ^= (b >> i & 1) ? (unsigned)a << i : 0;
    }
    for (int i = 14; i >= 8; i--) {
        product ^= (product >> i & 1) ? 0x11du << (i - 8) : 0;
    }
    return (uint8_t)product;
}

static uint8_t reference_inverse(uint8_t a)
{
    for (unsigned b = 1; b < 256; b++) {
        if (reference_mul(a, (uint8_t)b) == 1) {
            return (uint8_t)b;
        }
    }
    return 0;
}

/* Row i (parity, i >= k) of the Cauchy generator: 1 / (i xor j). */
static void reference_parity(const uint8_t *data, uint32_t shard_bytes, unsigned k, unsigned i, uint8_t *ret)
{
    memset(ret, 0, shard_bytes);
    for (unsigned j = 0; j < k; j++) {
        uint8_t factor = reference_inverse((uint8_t)(i ^ j));
        uint8_t products[256];
        for (unsigned v = 0; v < 256; v++) {
            products[v] = reference_mul(factor, (uint8_t)v);
        }
        for (uint32_t n = 0; n < shard_bytes; n++) {
            ret[n] ^= products[data[(size_t)j * shard_bytes + n]];
        }
    }
}

static struct slice sealed_make(uint32_t bytes, unsigned k)
{
    uint32_t padded = k * code_shard_bytes(bytes, k);
    struct slice sealed = slice_alloc(padded);
    uint64_t random = bytes * 31u + k;
    for (uint32_t i = 0; i < padded; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        sealed.data[i] = i < bytes ? (uint8_t)(random >> 56) : 0;
    }
    sealed.bytes = bytes;
    return sealed;
}

static void drop_all(struct slice *slices, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        slice_drop(&slices[i]);
    }
}

static const uint8_t codes[][2] = {{4, 2}, {1, 2},  {1, 0},  {2, 1},  {3, 0}, {6, 3},
                                   {8, 8}, {10, 4}, {1, 15}, {15, 1}, {16, 0}};
#define CODES (sizeof codes / sizeof codes[0])

static void parity_equals_the_reference(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    for (unsigned c = 0; c < CODES; c++) {
        unsigned k = codes[c][0];
        unsigned m = codes[c][1];
        const uint32_t sizes[] = {1, k > 1 ? k - 1 : 1, k, k + 1, 63, 64, 65, 64 * k, 64 * k + 1, 5000, 131072 + 48};
        for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct slice sealed = sealed_make(sizes[i], k);
            struct slice shards[LIMIT_SHARDS] = {0};
            uint32_t shard_bytes = code_shard_bytes(sizes[i], k);
            assert_true(shard_bytes % 64 == 0 && (uint64_t)shard_bytes * k >= sizes[i]);
            assert_true((uint64_t)shard_bytes * k < sizes[i] + 64u * k);
            code_encode(sealed, k, m, shards);
            uint8_t *wanted = malloc(shard_bytes);
            assert_non_null(wanted);
            for (unsigned s = 0; s < k + m; s++) {
                assert_int_equal(shards[s].bytes, shard_bytes);
                if (s < k) {
                    assert_ptr_equal(shards[s].data, sealed.data + (size_t)s * shard_bytes); /* in place */
                } else if (k == 1) {
                    assert_memory_equal(shards[s].data, sealed.data, shard_bytes);
                } else {
                    reference_parity(sealed.data, shard_bytes, k, s, wanted);
                    assert_memory_equal(shards[s].data, wanted, shard_bytes);
                }
            }
            free(wanted);
            drop_all(shards, k + m);
            slice_drop(&sealed);
        }
    }
    assert_true(slice_live_bytes() == live);
}

/* Takes the shards in `lost` away and asks for them back, and for the whole chunk. */
static void lose_and_regain(const struct slice *all, struct slice sealed, unsigned k, unsigned m, uint32_t lost)
{
    struct slice shards[LIMIT_SHARDS] = {0};
    struct slice joined = {0};
    for (unsigned i = 0; i < k + m; i++) {
        shards[i] = lost >> i & 1 ? (struct slice){0} : slice_ref(all[i]);
    }
    enum err wanted = (unsigned)__builtin_popcount(lost) <= m ? ERR_OK : ERR_CORRUPT;
    assert_int_equal(code_join(shards, k, m, sealed.bytes, &joined), wanted);
    if (wanted == ERR_OK) {
        assert_true(slice_equal(joined, sealed));
    } else {
        assert_int_equal(joined.bytes, 0);
    }
    slice_drop(&joined);
    /* half of the lost ones first: what is not wanted stays away */
    uint32_t some = lost & 0x5555;
    assert_int_equal(code_rebuild(shards, k, m, some), wanted);
    for (unsigned i = 0; i < k + m; i++) {
        bool there = (lost >> i & 1) == 0 || (wanted == ERR_OK && (some >> i & 1) != 0);
        assert_int_equal(shards[i].bytes, there ? all[i].bytes : 0);
    }
    assert_int_equal(code_rebuild(shards, k, m, UINT32_MAX), wanted);
    for (unsigned i = 0; wanted == ERR_OK && i < k + m; i++) {
        assert_true(slice_equal(shards[i], all[i]));
    }
    drop_all(shards, k + m);
}

static void every_erasure_of_4_2(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const uint32_t sizes[] = {1, 3, 4, 5, 64, 257, 65536 + 48};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct slice sealed = sealed_make(sizes[i], 4);
        struct slice all[6] = {0};
        code_encode(sealed, 4, 2, all);
        for (uint32_t lost = 0; lost < 64; lost++) {
            lose_and_regain(all, sealed, 4, 2, lost);
        }
        drop_all(all, 6);
        slice_drop(&sealed);
    }
    assert_true(slice_live_bytes() == live);
}

static void erasures_of_other_codes(void **state)
{
    (void)state;
    for (unsigned c = 0; c < CODES; c++) {
        unsigned k = codes[c][0];
        unsigned m = codes[c][1];
        struct slice sealed = sealed_make(3000, k);
        struct slice all[LIMIT_SHARDS] = {0};
        code_encode(sealed, k, m, all);
        for (uint32_t pattern = 0; pattern < 300; pattern++) {
            uint32_t lost = (k + m <= 8 ? pattern : pattern * 2654435761u >> 9) & ((1u << (k + m)) - 1);
            lose_and_regain(all, sealed, k, m, lost);
        }
        drop_all(all, k + m);
        slice_drop(&sealed);
    }
}

static void wrong_lengths_are_corrupt(void **state)
{
    (void)state;
    struct slice sealed = sealed_make(1000, 4);
    struct slice shards[6] = {0};
    struct slice joined = {0};
    code_encode(sealed, 4, 2, shards);
    assert_int_equal(code_join(shards, 4, 2, 0, &joined), ERR_CORRUPT);
    assert_int_equal(code_join(shards, 4, 2, 1025, &joined), ERR_CORRUPT); /* another shard length */
    assert_int_equal(code_join(shards, 4, 2, UINT32_MAX, &joined), ERR_CORRUPT);
    shards[5].bytes -= 64;
    assert_int_equal(code_join(shards, 4, 2, 1000, &joined), ERR_CORRUPT);
    assert_int_equal(code_rebuild(shards, 4, 2, 1), ERR_CORRUPT);
    shards[5].bytes += 64;
    drop_all(shards, 6);
    assert_int_equal(code_rebuild(shards, 4, 2, 1), ERR_CORRUPT); /* nothing at all */
    slice_drop(&sealed);
}

static void codes_are_bounded(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 40; k++) {
        for (unsigned m = 0; m < 40; m++) {
            assert_int_equal(code_valid(k, m), k >= 1 && k + m <= LIMIT_SHARDS);
        }
    }
    assert_false(code_valid(1, UINT32_MAX));
}

static void checks_find_damage_where_it_is(void **state)
{
    (void)state;
    struct slice sealed = sealed_make(4 * (CODE_CRC_PIECE_BYTES + 64), 4); /* two pieces a shard, the second of 64 B */
    struct slice shards[6] = {0};
    code_encode(sealed, 4, 2, shards);
    struct slice checks = shard_checks_of(shards, 6);
    assert_int_equal(checks.bytes, 4 + 6 * 2 * 4);
    assert_int_equal(checks.data[0], 6);
    assert_int_equal(get_u16(checks.data + 2), 2);
    assert_int_equal(get_u32(checks.data + 4), crc32c(0, shards[0].data, CODE_CRC_PIECE_BYTES));
    assert_int_equal(get_u32(checks.data + 8), crc32c(0, shards[0].data + CODE_CRC_PIECE_BYTES, 64));
    assert_true(shard_checks_valid(checks, 6, shards[0].bytes));
    for (unsigned i = 0; i < 6; i++) {
        assert_true(shard_checks_match(checks, 6, i, shards[i]));
        assert_false(shard_checks_match(checks, 6, (i + 1) % 6, shards[i])); /* one shard is not another */
        const uint32_t places[] = {0, CODE_CRC_PIECE_BYTES - 1, CODE_CRC_PIECE_BYTES, shards[i].bytes - 1};
        for (unsigned j = 0; j < 4; j++) {
            shards[i].data[places[j]] ^= 1;
            assert_false(shard_checks_match(checks, 6, i, shards[i]));
            shards[i].data[places[j]] ^= 1;
        }
    }
    assert_false(shard_checks_match(checks, 6, 6, shards[0]));
    assert_false(shard_checks_valid(checks, 5, shards[0].bytes));
    assert_false(shard_checks_valid(checks, 6, CODE_CRC_PIECE_BYTES));
    for (unsigned bytes = 0; bytes < checks.bytes; bytes++) {
        assert_false(shard_checks_valid(slice_borrow(checks.data, bytes), 6, shards[0].bytes));
    }
    checks.data[1] = 1;
    assert_false(shard_checks_valid(checks, 6, shards[0].bytes));
    assert_false(shard_checks_valid((struct slice){0}, 0, 0));
    slice_drop(&checks);
    drop_all(shards, 6);
    slice_drop(&sealed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity_equals_the_reference), cmocka_unit_test(every_erasure_of_4_2),
        cmocka_unit_test(erasures_of_other_codes),     cmocka_unit_test(wrong_lengths_are_corrupt),
        cmocka_unit_test(codes_are_bounded),           cmocka_unit_test(checks_find_damage_where_it_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
