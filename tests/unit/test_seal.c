/* Sealing: what goes in comes out, twice the same, and nothing that differs in a bit opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "base/bytes.h"
#include "base/compute.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/seal.h"

struct sample {
    struct sha256 sha;
    struct chunk_id chunk;
    uint8_t kc[32];
    struct encoding encoding;
    uint32_t plain_bytes;
    uint32_t sealed_bytes;
    uint8_t *plain;
    uint8_t *sealed;
};

static struct sample sample_make(uint32_t bytes)
{
    struct sample s = {.plain_bytes = bytes, .sealed_bytes = seal_bytes(bytes)};
    static const uint8_t secret[32] = {9};
    s.plain = malloc(bytes + 1);
    s.sealed = malloc(s.sealed_bytes);
    assert_true(s.plain != NULL && s.sealed != NULL);
    uint64_t random = bytes + 1;
    for (uint32_t i = 0; i < bytes; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        s.plain[i] = (uint8_t)(random >> 56);
    }
    s.sha = sha256(s.plain, bytes);
    s.chunk = chunk_id_of(secret, s.sha);
    chunk_key_of(secret, s.chunk, s.kc);
    seal_chunk(&s.chunk, s.kc, &s.sha, s.plain, bytes, s.sealed, &s.encoding);
    return s;
}

static void sample_free(struct sample *s)
{
    free(s->plain);
    free(s->sealed);
}

static enum err sample_open(const struct sample *s)
{
    struct slice plain = {0};
    enum err err =
        unseal_chunk(&s->chunk, s->kc, &s->sha, &s->encoding, s->plain_bytes, s->sealed, s->sealed_bytes, &plain);
    assert_true(err == ERR_OK || plain.buf == NULL);
    if (err == ERR_OK) {
        assert_int_equal(plain.bytes, s->plain_bytes);
        assert_true(plain.bytes == 0 || memcmp(plain.data, s->plain, plain.bytes) == 0);
    }
    slice_drop(&plain);
    return err;
}

static const uint32_t sizes[] = {0,
                                 1,
                                 15,
                                 16,
                                 4096,
                                 SEAL_FRAME_BYTES - 1,
                                 SEAL_FRAME_BYTES,
                                 SEAL_FRAME_BYTES + 1,
                                 5 * SEAL_FRAME_BYTES + 77,
                                 LIMIT_CHUNK_BYTES};

static void lengths_are_as_the_format_says(void **state)
{
    (void)state;
    assert_int_equal(seal_bytes(0), 32 + 16);
    assert_int_equal(seal_bytes(1), 32 + 1 + 16);
    assert_int_equal(seal_bytes(SEAL_FRAME_BYTES), 32 + SEAL_FRAME_BYTES + 16);
    assert_int_equal(seal_bytes(SEAL_FRAME_BYTES + 1), 32 + SEAL_FRAME_BYTES + 1 + 32);
    assert_int_equal(seal_bytes(LIMIT_CHUNK_BYTES), 32 + LIMIT_CHUNK_BYTES + 64 * 16);
    assert_true(seal_bytes(LIMIT_CHUNK_BYTES) <= LIMIT_SEALED_BYTES);
    assert_true(seal_bytes(UINT32_MAX) == UINT32_MAX);
}

static void round_trip_and_determinism(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sample s = sample_make(sizes[i]);
        struct sample again = sample_make(sizes[i]);
        assert_int_equal(sample_open(&s), ERR_OK);
        assert_memory_equal(s.sealed, again.sealed, s.sealed_bytes);
        assert_memory_equal(s.encoding.bytes, again.encoding.bytes, 16);
        assert_memory_equal(s.sealed + 16, s.encoding.bytes, 16);
        assert_memory_equal(s.sealed, "CSL1", 4);
        sample_free(&s);
        sample_free(&again);
    }
    assert_true(slice_live_bytes() == live);
}

/* The format read a second time from its description: header, key, nonce and associated data of the second frame. */
static void encoding_is_the_one_described(void **state)
{
    (void)state;
    const uint32_t bytes = SEAL_FRAME_BYTES + 100;
    struct sample s = sample_make(bytes);
    uint8_t text[33];
    text[0] = SEAL_PLAIN;
    memcpy(text + 1, s.sha.bytes, 32);
    struct sha256 mac = hmac_sha256(s.kc, 32, text, sizeof text);
    assert_memory_equal(s.encoding.bytes, mac.bytes, 16);
    assert_int_equal(get_u32(s.sealed + 8), bytes);
    assert_int_equal(get_u32(s.sealed + 12), bytes);
    uint8_t info[26] = "cairn seal";
    uint8_t key[32];
    memcpy(info + 10, mac.bytes, 16);
    hkdf_sha256(s.kc, 32, info, sizeof info, key, sizeof key);
    uint8_t aad[42] = {0};
    memcpy(aad, s.chunk.bytes, 32);
    aad[33] = 2; /* frames */
    aad[37] = 1; /* the last one */
    put_u32(aad + 38, bytes);
    const uint8_t nonce[12] = {1};
    uint8_t *frame = s.sealed + 32 + SEAL_FRAME_BYTES + 16;
    uint8_t plain[100];
    int written = 0;
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_DecryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(context, NULL, &written, aad, sizeof aad), 1);
    assert_int_equal(EVP_DecryptUpdate(context, plain, &written, frame, 100), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, 16, frame + 100), 1);
    assert_int_equal(EVP_DecryptFinal_ex(context, plain, &written), 1);
    assert_memory_equal(plain, s.plain + SEAL_FRAME_BYTES, 100);
    EVP_CIPHER_CTX_free(context);
    sample_free(&s);
}

static void every_flipped_bit_is_corrupt(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const uint32_t some[] = {0, 1, 300, SEAL_FRAME_BYTES + 1};
    for (unsigned i = 0; i < 4; i++) {
        struct sample s = sample_make(some[i]);
        /* all bits of the header and of the tags at the end, a sample of the others */
        uint32_t step = s.sealed_bytes > 1000 ? 4099 : 1;
        for (uint32_t bit = 0; bit < s.sealed_bytes * 8;) {
            s.sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(sample_open(&s), ERR_CORRUPT);
            s.sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bool dense = bit < SEAL_HEADER_BYTES * 8 || bit + step >= (s.sealed_bytes - 18) * 8;
            bit += dense ? 1 : step;
        }
        assert_int_equal(sample_open(&s), ERR_OK);
        sample_free(&s);
    }
    assert_true(slice_live_bytes() == live);
}

static void every_argument_is_bound(void **state)
{
    (void)state;
    struct sample s = sample_make(70000);
    struct sample t = s;
    t.chunk.bytes[31] ^= 1;
    assert_int_equal(sample_open(&t), ERR_CORRUPT);
    t = s;
    t.kc[0] ^= 0x80;
    assert_int_equal(sample_open(&t), ERR_CORRUPT);
    t = s;
    t.sha.bytes[7] ^= 1;
    assert_int_equal(sample_open(&t), ERR_CORRUPT);
    t = s;
    t.encoding.bytes[15] ^= 1;
    assert_int_equal(sample_open(&t), ERR_CORRUPT);
    t = s;
    t.plain_bytes--;
    assert_int_equal(sample_open(&t), ERR_CORRUPT);
    for (uint32_t bytes = 0; bytes < s.sealed_bytes; bytes += bytes < 100 ? 1 : 997) {
        t = s;
        t.sealed_bytes = bytes;
        assert_int_equal(sample_open(&t), ERR_CORRUPT);
    }
    sample_free(&s);
}

/* Frames are bound to their place: exchanged, repeated or cut off at a frame's end, they do not open. */
static void frames_keep_their_place(void **state)
{
    (void)state;
    const uint32_t frame_bytes = SEAL_FRAME_BYTES + SEAL_TAG_BYTES;
    struct sample s = sample_make(3 * SEAL_FRAME_BYTES);
    uint8_t *first = s.sealed + SEAL_HEADER_BYTES;
    uint8_t *kept = malloc(frame_bytes);
    assert_non_null(kept);
    memcpy(kept, first, frame_bytes);
    memcpy(first, first + frame_bytes, frame_bytes);
    assert_int_equal(sample_open(&s), ERR_CORRUPT); /* repeated */
    memcpy(first + frame_bytes, kept, frame_bytes);
    assert_int_equal(sample_open(&s), ERR_CORRUPT); /* exchanged */
    memcpy(first + frame_bytes, first, frame_bytes);
    memcpy(first, kept, frame_bytes);
    assert_int_equal(sample_open(&s), ERR_OK);
    struct sample cut = s; /* a consistent shorter header */
    cut.plain_bytes = 2 * SEAL_FRAME_BYTES;
    cut.sealed_bytes = seal_bytes(cut.plain_bytes);
    put_u32(s.sealed + 8, cut.plain_bytes);
    put_u32(s.sealed + 12, cut.plain_bytes);
    assert_int_equal(sample_open(&cut), ERR_CORRUPT);
    free(kept);
    sample_free(&s);
}

static void a_wrong_hash_at_sealing_does_not_open(void **state)
{
    (void)state;
    struct sample s = sample_make(1000);
    s.sha.bytes[0] ^= 1;
    seal_chunk(&s.chunk, s.kc, &s.sha, s.plain, s.plain_bytes, s.sealed, &s.encoding);
    assert_int_equal(sample_open(&s), ERR_CORRUPT);
    sample_free(&s);
}

static void values_round_trip(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    uint8_t key[32] = {3};
    uint8_t text[5000];
    for (unsigned i = 0; i < sizeof text; i++) {
        text[i] = (uint8_t)(i * 7);
    }
    const size_t lengths[] = {0, 1, 16, 4096, sizeof text};
    for (unsigned i = 0; i < 5; i++) {
        struct slice sealed = value_seal(key, "aad", 3, text, lengths[i]);
        struct slice again = value_seal(key, "aad", 3, text, lengths[i]);
        struct slice plain = {0};
        assert_int_equal(sealed.bytes, lengths[i] + VALUE_SEAL_BYTES);
        assert_true(slice_equal(sealed, again));
        assert_int_equal(value_unseal(key, "aad", 3, sealed.data, sealed.bytes, &plain), ERR_OK);
        assert_int_equal(plain.bytes, lengths[i]);
        assert_true(lengths[i] == 0 || memcmp(plain.data, text, lengths[i]) == 0);
        slice_drop(&plain);
        assert_int_equal(value_unseal(key, "aae", 3, sealed.data, sealed.bytes, &plain), ERR_CORRUPT);
        assert_int_equal(value_unseal(key, "aad", 2, sealed.data, sealed.bytes, &plain), ERR_CORRUPT);
        assert_int_equal(value_unseal(key, "", 0, sealed.data, sealed.bytes, &plain), ERR_CORRUPT);
        for (uint32_t bit = 0; bit<sealed.bytes * 8; bit += sealed.bytes> 100 ? 101 : 1) {
            sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(value_unseal(key, "aad", 3, sealed.data, sealed.bytes, &plain), ERR_CORRUPT);
            sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        for (uint32_t bytes = 0; bytes < sealed.bytes; bytes += 1 + bytes / 40) {
            assert_int_equal(value_unseal(key, "aad", 3, sealed.data, bytes, &plain), ERR_CORRUPT);
        }
        assert_true(plain.buf == NULL);
        slice_drop(&sealed);
        slice_drop(&again);
    }
    assert_true(slice_live_bytes() == live);
}

/* Two texts whose concatenation with the associated data agrees must not share the synthetic IV, and with it key and
 * nonce. */
static void values_do_not_share_a_nonce(void **state)
{
    (void)state;
    const uint8_t key[32] = {4};
    struct slice a = value_seal(key, "ab", 2, "cd", 2);
    struct slice b = value_seal(key, "abc", 3, "d", 1);
    assert_memory_not_equal(a.data, b.data, 16);
    slice_drop(&a);
    slice_drop(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_as_the_format_says),
        cmocka_unit_test(round_trip_and_determinism),
        cmocka_unit_test(encoding_is_the_one_described),
        cmocka_unit_test(every_flipped_bit_is_corrupt),
        cmocka_unit_test(every_argument_is_bound),
        cmocka_unit_test(frames_keep_their_place),
        cmocka_unit_test(a_wrong_hash_at_sealing_does_not_open),
        cmocka_unit_test(values_round_trip),
        cmocka_unit_test(values_do_not_share_a_nonce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
