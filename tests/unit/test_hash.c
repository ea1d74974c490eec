/* Hashes, derivation, signatures and CRC against published vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/ids.h"
#include "base/sign.h"

static void expect_hex(const void *data, size_t bytes, const char *hex)
{
    char text[513];
    assert_true(bytes <= 256);
    hex_encode(data, bytes, text);
    assert_string_equal(text, hex);
}

static void crc_matches_rfc3720(void **state)
{
    (void)state;
    uint8_t data[32] = {0};
    assert_int_equal(crc32c(0, "", 0), 0);
    assert_int_equal(crc32c(0, "123456789", 9), 0xE3069283u);
    assert_int_equal(crc32c(0, data, sizeof data), 0x8A9136AAu);
    memset(data, 0xff, sizeof data);
    assert_int_equal(crc32c(0, data, sizeof data), 0x62A8AB43u);
    for (uint8_t i = 0; i < 32; i++) {
        data[i] = i;
    }
    assert_int_equal(crc32c(0, data, sizeof data), 0x46DD794Eu);
}

static void crc_continues(void **state)
{
    (void)state;
    uint8_t data[1000];
    for (unsigned i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 31 + 7);
    }
    uint32_t whole = crc32c(0, data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut += 13) {
        assert_int_equal(crc32c(crc32c(0, data, cut), data + cut, sizeof data - cut), whole);
    }
}

static void sha256_matches_nist(void **state)
{
    (void)state;
    struct sha256 sha = sha256("", 0);
    expect_hex(sha.bytes, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha = sha256("abc", 3);
    expect_hex(sha.bytes, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha = sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    expect_hex(sha.bytes, 32, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    assert_non_null(million);
    memset(million, 'a', 1000000);
    sha = sha256(million, 1000000);
    free(million);
    expect_hex(sha.bytes, 32, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void hmac_matches_rfc4231(void **state)
{
    (void)state;
    uint8_t key[131];
    memset(key, 0x0b, 20);
    struct sha256 mac = hmac_sha256(key, 20, "Hi There", 8);
    expect_hex(mac.bytes, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    mac = hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28);
    expect_hex(mac.bytes, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, 131);
    const char *text = "Test Using Larger Than Block-Size Key - Hash Key First";
    mac = hmac_sha256(key, 131, text, strlen(text));
    expect_hex(mac.bytes, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    /* an empty key must not mean the key of last time */
    mac = hmac_sha256("", 0, "", 0);
    expect_hex(mac.bytes, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void hkdf_matches_rfc5869(void **state)
{
    (void)state;
    /* A.3: no salt, no info */
    uint8_t key[22];
    uint8_t out[82];
    memset(key, 0x0b, sizeof key);
    hkdf_sha256(key, sizeof key, "", 0, out, 42);
    expect_hex(out, 42, "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
    /* a shorter output is a prefix of a longer one, also across blocks */
    uint8_t longer[82];
    hkdf_sha256(key, sizeof key, "x", 1, longer, sizeof longer);
    for (size_t bytes = 0; bytes <= sizeof out; bytes++) {
        memset(out, 0xee, sizeof out);
        hkdf_sha256(key, sizeof key, "x", 1, out, bytes);
        assert_memory_equal(out, longer, bytes);
        assert_true(bytes == sizeof out || out[bytes] == 0xee);
    }
}

static void chunk_names_depend_on_every_input(void **state)
{
    (void)state;
    uint8_t secret[32] = {1};
    struct sha256 sha = sha256("abc", 3);
    struct chunk_id chunk = chunk_id_of(secret, sha);
    struct sha256 mac = hmac_sha256(secret, 32, sha.bytes, 32);
    assert_memory_equal(chunk.bytes, mac.bytes, 32);
    uint8_t kc[32];
    uint8_t other[32];
    chunk_key_of(secret, chunk, kc);
    secret[31] ^= 1;
    chunk_key_of(secret, chunk, other);
    assert_memory_not_equal(kc, other, 32);
    secret[31] ^= 1;
    chunk.bytes[5] ^= 1;
    chunk_key_of(secret, chunk, other);
    assert_memory_not_equal(kc, other, 32);
}

static void secret_equal_is_equality(void **state)
{
    (void)state;
    uint8_t a[32] = {0};
    uint8_t b[32] = {0};
    assert_true(secret_equal(a, b, 32));
    b[31] = 1;
    assert_false(secret_equal(a, b, 32));
    assert_true(secret_equal(a, b, 31));
}

static void ed25519_matches_rfc8032(void **state)
{
    (void)state;
    /* 7.1 test 3 */
    uint8_t seed[32];
    uint8_t public_key[32];
    uint8_t signature[64];
    const uint8_t text[2] = {0xaf, 0x82};
    assert_true(hex_decode("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", 32, seed));
    sign_public_key(seed, public_key);
    expect_hex(public_key, 32, "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025");
    sign_make(seed, text, 2, signature);
    expect_hex(signature, 64,
               "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
               "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a");
    assert_true(sign_verify(public_key, text, 2, signature));
    assert_false(sign_verify(public_key, text, 1, signature));
    for (unsigned i = 0; i < 64; i++) {
        signature[i] ^= 0x10;
        assert_false(sign_verify(public_key, text, 2, signature));
        signature[i] ^= 0x10;
    }
    memset(public_key, 0xff, 32);
    assert_false(sign_verify(public_key, text, 2, signature));
}

static void *hash_on_thread(void *ret)
{
    *(struct sha256 *)ret = hmac_sha256("k", 1, "abc", 3);
    return NULL;
}

static void threads_have_contexts_of_their_own(void **state)
{
    (void)state;
    pthread_t threads[4];
    struct sha256 macs[4];
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hash_on_thread, &macs[i]), 0);
    }
    struct sha256 own = hmac_sha256("k", 1, "abc", 3);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_memory_equal(macs[i].bytes, own.bytes, 32);
    }
}

static void shard_key_packs_in_key_order(void **state)
{
    (void)state;
    struct shard_key key = {.realm = 0x0102030405060708, .writer = 0x0a0b0c0d, .k = 4, .m = 2, .index = 5};
    memset(key.chunk.bytes, 0xcc, 32);
    memset(key.encoding.bytes, 0xee, 16);
    uint8_t low[SHARD_KEY_BYTES];
    uint8_t high[SHARD_KEY_BYTES];
    shard_key_encode(&key, low);
    expect_hex(low, SHARD_KEY_BYTES,
               "0102030405060708"
               "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
               "0a0b0c0d"
               "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
               "040205");
    struct shard_key back;
    memset(&back, 0, sizeof back);
    shard_key_decode(low, &back);
    assert_true(back.realm == key.realm && back.writer == key.writer && back.k == 4 && back.m == 2 && back.index == 5);
    assert_memory_equal(back.chunk.bytes, key.chunk.bytes, 32);
    assert_memory_equal(back.encoding.bytes, key.encoding.bytes, 16);
    key.writer = 0x0b000000;
    shard_key_encode(&key, high);
    assert_true(memcmp(low, high, SHARD_KEY_BYTES) < 0);
}

/* Several messages at once hash as one by one: any number of them, of any lengths around the block's. */
static void sha256_many_is_sha256_of_each(void **state)
{
    (void)state;
    enum { MOST = 13 };
    static uint8_t data[100000];
    uint64_t random = 3;
    for (unsigned i = 0; i < sizeof data; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        data[i] = (uint8_t)(random >> 56);
    }
    for (unsigned round = 0; round < 2000; round++) {
        struct slice in[MOST];
        struct sha256 out[MOST + 1];
        unsigned count = round % (MOST + 1);
        memset(out, 0xee, sizeof out);
        for (unsigned i = 0; i < count; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint32_t bytes = (uint32_t)(random >> 33) % (random >> 60 == 0 ? sizeof data : 200);
            uint32_t offset = (uint32_t)(random >> 40) % (uint32_t)(sizeof data - bytes);
            in[i] = bytes == 0 ? (struct slice){0} : slice_borrow(data + offset, bytes);
        }
        sha256_many(in, count, out);
        for (unsigned i = 0; i < count; i++) {
            struct sha256 wanted = sha256(in[i].data, in[i].bytes);
            assert_memory_equal(out[i].bytes, wanted.bytes, 32);
        }
        assert_int_equal(out[count].bytes[0], 0xee);
    }
    for (uint32_t bytes = 0; bytes < 300; bytes++) { /* every length, in each lane */
        struct slice in[] = {slice_borrow(data, bytes), slice_borrow(data + 1, 299 - bytes), slice_borrow(data, 64)};
        struct sha256 out[3];
        sha256_many(in, 3, out);
        for (unsigned i = 0; i < 3; i++) {
            struct sha256 wanted = sha256(in[i].data, in[i].bytes);
            assert_memory_equal(out[i].bytes, wanted.bytes, 32);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc_matches_rfc3720),
        cmocka_unit_test(crc_continues),
        cmocka_unit_test(sha256_many_is_sha256_of_each),
        cmocka_unit_test(sha256_matches_nist),
        cmocka_unit_test(hmac_matches_rfc4231),
        cmocka_unit_test(hkdf_matches_rfc5869),
        cmocka_unit_test(chunk_names_depend_on_every_input),
        cmocka_unit_test(secret_equal_is_equality),
        cmocka_unit_test(ed25519_matches_rfc8032),
        cmocka_unit_test(threads_have_contexts_of_their_own),
        cmocka_unit_test(shard_key_packs_in_key_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
