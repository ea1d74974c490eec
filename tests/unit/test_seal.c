/* Sealing: what goes in comes out, twice the same, and nothing that differs in a bit opens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <zstd.h>

#include "base/bytes.h"
#include "base/compress.h"
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

/* Words in some order: compresses to about a third. */
static uint8_t *text_make(uint32_t bytes)
{
    static const char *words[] = {"block ", "store ", "chunk ", "shard ", "group ", "entry ", "a ", "the ", "\n", "0x"};
    uint8_t *text = malloc(bytes + 16);
    assert_non_null(text);
    uint64_t random = bytes;
    for (uint32_t at = 0; at < bytes;) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const char *word = words[(random >> 40) % 10];
        memcpy(text + at, word, strlen(word));
        at += (uint32_t)strlen(word);
    }
    return text;
}

/* A sample whose sealed form holds `payload`, believed. */
static struct sample payload_sample(uint8_t *plain, uint32_t plain_bytes, struct slice payload)
{
    struct sample s = {.plain = plain, .plain_bytes = plain_bytes, .sealed_bytes = seal_bytes(payload.bytes)};
    static const uint8_t secret[32] = {9};
    s.sealed = malloc(s.sealed_bytes);
    assert_non_null(s.sealed);
    s.sha = sha256(plain, plain_bytes);
    s.chunk = chunk_id_of(secret, s.sha);
    chunk_key_of(secret, s.chunk, s.kc);
    struct sha256 payload_sha = sha256(payload.data, payload.bytes);
    seal_payload(&s.chunk, s.kc, SEAL_ZSTD, &payload_sha, payload, plain_bytes, s.sealed, &s.encoding);
    return s;
}

static struct sample text_sample(uint32_t bytes)
{
    uint8_t *text = text_make(bytes);
    struct slice payload = compress_if_pays(text, bytes);
    assert_in_range(payload.bytes, 1, bytes - bytes / 16);
    struct sample s = payload_sample(text, bytes, payload);
    slice_drop(&payload);
    return s;
}

static void compressed_round_trip(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const uint32_t some[] = {200, 4096, SEAL_FRAME_BYTES, 128u << 10, (128u << 10) + 1, 1000003, LIMIT_CHUNK_BYTES};
    for (unsigned i = 0; i < sizeof some / sizeof some[0]; i++) {
        struct sample s = text_sample(some[i]);
        struct sample again = text_sample(some[i]);
        assert_int_equal(sample_open(&s), ERR_OK);
        assert_int_equal(s.sealed[4], SEAL_ZSTD);
        assert_true(s.sealed_bytes < seal_bytes(some[i]));
        assert_int_equal(s.sealed_bytes, again.sealed_bytes);
        assert_memory_equal(s.sealed, again.sealed, s.sealed_bytes); /* equal payloads seal equally */
        sample_free(&s);
        sample_free(&again);
    }
    assert_true(slice_live_bytes() == live);
}

static void what_does_not_pay_stays_plain(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct sample s = sample_make(sizes[i]);
        struct slice payload = compress_if_pays(s.plain, sizes[i]);
        assert_true(payload.bytes == 0 && payload.buf == NULL);
        if (sizes[i] > 4096) { /* some of it repeats, but not enough */
            memset(s.plain, 0, sizes[i] / 20);
            payload = compress_if_pays(s.plain, sizes[i]);
            assert_int_equal(payload.bytes, 0);
        }
        sample_free(&s);
    }
    assert_true(slice_live_bytes() == live);
}

static void every_flipped_bit_of_a_compressed_one_is_corrupt(void **state)
{
    (void)state;
    const uint32_t some[] = {300, 400000};
    for (unsigned i = 0; i < 2; i++) {
        struct sample s = text_sample(some[i]);
        uint32_t step = s.sealed_bytes > 1000 ? 4099 : 1;
        for (uint32_t bit = 0; bit < s.sealed_bytes * 8; bit += bit < SEAL_HEADER_BYTES * 8 ? 1 : step) {
            s.sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(sample_open(&s), ERR_CORRUPT);
            s.sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        struct sample t = s;
        t.sha.bytes[0] ^= 1;
        assert_int_equal(sample_open(&t), ERR_CORRUPT);
        t = s;
        t.plain_bytes++;
        assert_int_equal(sample_open(&t), ERR_CORRUPT);
        assert_int_equal(sample_open(&s), ERR_OK);
        sample_free(&s);
    }
}

/* Authentic seals of payloads that say something else than the chunk: no length of theirs is obeyed. */
static void bombs_and_wrong_lengths_are_refused(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const size_t huge = 64u << 20;
    uint8_t *zeros = calloc(1, huge);
    struct slice bomb = slice_alloc(ZSTD_compressBound(huge));
    bomb.bytes = (uint32_t)ZSTD_compress(bomb.data, bomb.bytes, zeros, huge, 1);
    assert_in_range(bomb.bytes, 1, LIMIT_CHUNK_BYTES);
    const uint32_t claims[] = {1, 1000, LIMIT_CHUNK_BYTES};
    struct slice plain = {0};
    for (unsigned i = 0; i < 3; i++) {
        struct sample s = payload_sample(zeros, claims[i], bomb);
        assert_int_equal(sample_open(&s), ERR_CORRUPT);
        free(s.sealed);
    }
    assert_int_equal(compress_expand(bomb.data, bomb.bytes, (uint32_t)huge, &plain), ERR_CORRUPT);
    /* a frame that does not name its length, and one that lies about it */
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    bomb.bytes = (uint32_t)ZSTD_compress2(context, bomb.data, slice_capacity(bomb), zeros, 5000);
    ZSTD_freeCCtx(context);
    assert_int_equal(compress_expand(bomb.data, bomb.bytes, 5000, &plain), ERR_CORRUPT);
    bomb.bytes = (uint32_t)ZSTD_compress(bomb.data, slice_capacity(bomb), zeros, 5000, 1);
    assert_int_equal(compress_expand(bomb.data, bomb.bytes, 5000, &plain), ERR_OK);
    slice_drop(&plain);
    assert_int_equal(compress_expand(bomb.data, bomb.bytes, 4999, &plain), ERR_CORRUPT);
    assert_int_equal(compress_expand(bomb.data, bomb.bytes - 1, 5000, &plain), ERR_CORRUPT);
    assert_int_equal(get_u16(bomb.data + 5), 5000 - 256); /* the length field of this small frame */
    for (uint16_t lie = 1000; lie < 9000; lie += 1000) {
        put_u16(bomb.data + 5, (uint16_t)(lie - 256));
        assert_int_equal(compress_expand(bomb.data, bomb.bytes, lie, &plain), lie == 5000 ? ERR_OK : ERR_CORRUPT);
        slice_drop(&plain);
    }
    put_u16(bomb.data + 5, 5000 - 256);
    memcpy(bomb.data + bomb.bytes, bomb.data, bomb.bytes); /* a second frame behind it */
    assert_int_equal(compress_expand(bomb.data, 2 * bomb.bytes, 5000, &plain), ERR_CORRUPT);
    assert_int_equal(compress_expand(bomb.data, 2 * bomb.bytes, 10000, &plain), ERR_CORRUPT);
    assert_true(plain.buf == NULL);
    slice_drop(&bomb);
    free(zeros);
    assert_true(slice_live_bytes() == live);
}

/* Wherever the sealed bytes are parted, they open as in one piece. */
static void parts_open_like_the_whole(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct sample samples[] = {sample_make(200000), sample_make(5), text_sample(900000)};
    for (unsigned n = 0; n < 3; n++) {
        struct sample *s = &samples[n];
        for (unsigned count = 1; count <= 16; count += n == 1 ? 1 : 3) {
            struct slice parts[16];
            uint32_t part_bytes = s->sealed_bytes / count + 1;
            uint32_t at = 0;
            for (unsigned i = 0; i < count; i++) {
                uint32_t left = s->sealed_bytes - at;
                parts[i] = slice_borrow(s->sealed + at, left < part_bytes ? left : part_bytes);
                at += parts[i].bytes;
            }
            struct slice plain = {0};
            assert_int_equal(unseal_parts(&s->chunk, s->kc, &s->sha, &s->encoding, s->plain_bytes, parts, count,
                                          s->sealed_bytes, &plain),
                             ERR_OK);
            assert_true(slice_equal(plain, slice_borrow(s->plain, s->plain_bytes)));
            slice_drop(&plain);
            s->sealed[s->sealed_bytes - 20] ^= 1;
            assert_int_equal(unseal_parts(&s->chunk, s->kc, &s->sha, &s->encoding, s->plain_bytes, parts, count,
                                          s->sealed_bytes, &plain),
                             ERR_CORRUPT);
            s->sealed[s->sealed_bytes - 20] ^= 1;
        }
        sample_free(s);
    }
    assert_true(slice_live_bytes() == live);
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
        cmocka_unit_test(compressed_round_trip),
        cmocka_unit_test(what_does_not_pay_stays_plain),
        cmocka_unit_test(every_flipped_bit_of_a_compressed_one_is_corrupt),
        cmocka_unit_test(bombs_and_wrong_lengths_are_refused),
        cmocka_unit_test(parts_open_like_the_whole),
        cmocka_unit_test(values_round_trip),
        cmocka_unit_test(values_do_not_share_a_nonce),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
