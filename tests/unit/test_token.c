/* Capabilities and receipts: every field comes back, every flipped bit is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/sign.h"
#include "proto/token.h"

static const uint8_t seed[32] = {7, 1, 2, 3};

/* Values in which no two bytes of neighbouring fields agree, so that a field in the wrong place shows. */
static struct capability capability_sample(void)
{
    struct capability c = {.cluster_incarnation = 0x1112131415161718,
                           .realm = 0x2122232425262728,
                           .writer = 0x31323334,
                           .ns = 0x4142434445464748,
                           .ns_incarnation = 0x5152535455565758,
                           .session = 0x6162636465666768,
                           .generation = 0x7172737475767778,
                           .operations = CAPABILITY_PUT | CAPABILITY_GET,
                           .budget_bytes = 0x8182838485868788,
                           .expiry_tick = 0x9192939495969798,
                           .capability_epoch = 0xa1a2a3a4a5a6a7a8,
                           .key_id = 0xb1b2b3b4};
    memset(c.cluster.uuid.bytes, 0xc1, 16);
    memset(c.id_list.bytes, 0xd1, 32);
    memset(c.bearer.bytes, 0xe1, 32);
    return c;
}

static struct receipt receipt_sample(void)
{
    struct receipt r = {.cluster_incarnation = 0x1112131415161718,
                        .store = 0x21222324,
                        .store_incarnation = 0x3132333435363738,
                        .sealed_bytes = 0x41424344,
                        .ns = 0x5152535455565758,
                        .ns_incarnation = 0x6162636465666768,
                        .session = 0x7172737475767778,
                        .generation = 0x8182838485868788};
    r.shard = (struct shard_key){.realm = 0x9192939495969798, .writer = 0xa1a2a3a4, .k = 4, .m = 2, .index = 5};
    memset(r.shard.chunk.bytes, 0xb1, 32);
    memset(r.shard.encoding.bytes, 0xc1, 16);
    memset(r.cluster.uuid.bytes, 0xd1, 16);
    return r;
}

static void capability_round_trip(void **state)
{
    (void)state;
    struct capability c = capability_sample();
    struct capability back;
    uint8_t public_key[32];
    uint8_t data[CAPABILITY_BYTES];
    sign_public_key(seed, public_key);
    capability_sign(&c, seed, data);
    assert_int_equal(capability_verify(data, sizeof data, public_key, &back), ERR_OK);
    assert_memory_equal(back.cluster.uuid.bytes, c.cluster.uuid.bytes, 16);
    assert_true(back.cluster_incarnation == c.cluster_incarnation && back.realm == c.realm && back.writer == c.writer);
    assert_true(back.ns == c.ns && back.ns_incarnation == c.ns_incarnation && back.session == c.session);
    assert_true(back.generation == c.generation && back.operations == c.operations);
    assert_true(back.budget_bytes == c.budget_bytes && back.expiry_tick == c.expiry_tick);
    assert_true(back.capability_epoch == c.capability_epoch && back.key_id == c.key_id);
    assert_memory_equal(back.id_list.bytes, c.id_list.bytes, 32);
    assert_memory_equal(back.bearer.bytes, c.bearer.bytes, 32);
    struct capability peeked;
    assert_int_equal(capability_peek(data, sizeof data, &peeked), ERR_OK);
    assert_true(peeked.key_id == c.key_id);
    /* first and last field stand where the header says */
    assert_int_equal(data[0], 0xc1);
    assert_int_equal(get_u32(data + CAPABILITY_FIELD_BYTES - 4), 0xb1b2b3b4);
}

static void capability_with_a_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct capability c = capability_sample();
    struct capability back = {.key_id = 1};
    uint8_t public_key[32];
    uint8_t data[CAPABILITY_BYTES];
    sign_public_key(seed, public_key);
    capability_sign(&c, seed, data);
    for (unsigned i = 0; i < sizeof data; i++) {
        uint8_t flip = (uint8_t)(1u << i % 8);
        data[i] ^= flip;
        assert_int_equal(capability_verify(data, sizeof data, public_key, &back), ERR_BAD_CAPABILITY);
        data[i] ^= flip;
    }
    for (size_t bytes = 0; bytes < sizeof data; bytes++) {
        assert_int_equal(capability_verify(data, bytes, public_key, &back), ERR_BAD_CAPABILITY);
        assert_int_equal(capability_peek(data, bytes, &back), ERR_BAD_CAPABILITY);
    }
    public_key[0] ^= 1;
    assert_int_equal(capability_verify(data, sizeof data, public_key, &back), ERR_BAD_CAPABILITY);
    assert_int_equal(back.key_id, 1); /* untouched on failure */
}

static void capability_signature_has_its_context(void **state)
{
    (void)state;
    struct capability c = capability_sample();
    struct capability back;
    uint8_t public_key[32];
    uint8_t data[CAPABILITY_BYTES];
    sign_public_key(seed, public_key);
    capability_sign(&c, seed, data);
    sign_make(seed, data, CAPABILITY_FIELD_BYTES, data + CAPABILITY_FIELD_BYTES); /* the fields alone */
    assert_int_equal(capability_verify(data, sizeof data, public_key, &back), ERR_BAD_CAPABILITY);
}

static void receipt_round_trip(void **state)
{
    (void)state;
    struct receipt r = receipt_sample();
    struct receipt back;
    uint8_t key[32];
    uint8_t data[RECEIPT_BYTES];
    receipt_key_derive(seed, r.store, r.store_incarnation, key);
    receipt_sign(&r, key, data);
    assert_int_equal(receipt_verify(data, sizeof data, key, &back), ERR_OK);
    assert_memory_equal(back.cluster.uuid.bytes, r.cluster.uuid.bytes, 16);
    assert_true(back.cluster_incarnation == r.cluster_incarnation && back.store == r.store);
    assert_true(back.store_incarnation == r.store_incarnation && back.sealed_bytes == r.sealed_bytes);
    assert_true(back.ns == r.ns && back.ns_incarnation == r.ns_incarnation && back.session == r.session);
    assert_true(back.generation == r.generation);
    uint8_t shard[2][SHARD_KEY_BYTES];
    shard_key_encode(&r.shard, shard[0]);
    shard_key_encode(&back.shard, shard[1]);
    assert_memory_equal(shard[0], shard[1], SHARD_KEY_BYTES);
    /* the shard key stands in the receipt as everywhere else */
    assert_memory_equal(data + 36, shard[0], SHARD_KEY_BYTES);
    struct receipt peeked;
    assert_int_equal(receipt_peek(data, sizeof data, &peeked), ERR_OK);
    assert_true(peeked.store == r.store && peeked.store_incarnation == r.store_incarnation);
}

static void receipt_with_a_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct receipt r = receipt_sample();
    struct receipt back = {.store = 1};
    uint8_t key[32];
    uint8_t data[RECEIPT_BYTES];
    receipt_key_derive(seed, r.store, r.store_incarnation, key);
    receipt_sign(&r, key, data);
    for (unsigned bit = 0; bit < 8 * sizeof data; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(receipt_verify(data, sizeof data, key, &back), ERR_BAD_RECEIPT);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bytes = 0; bytes < sizeof data; bytes++) {
        assert_int_equal(receipt_verify(data, bytes, key, &back), ERR_BAD_RECEIPT);
        assert_int_equal(receipt_peek(data, bytes, &back), ERR_INVALID);
    }
    assert_int_equal(back.store, 1);
}

static void receipt_keys_are_of_one_incarnation(void **state)
{
    (void)state;
    struct receipt r = receipt_sample();
    struct receipt back;
    uint8_t key[32];
    uint8_t other[32];
    uint8_t data[RECEIPT_BYTES];
    receipt_key_derive(seed, r.store, r.store_incarnation, key);
    receipt_sign(&r, key, data);
    receipt_key_derive(seed, r.store, r.store_incarnation + 1, other);
    assert_int_equal(receipt_verify(data, sizeof data, other, &back), ERR_BAD_RECEIPT);
    receipt_key_derive(seed, r.store + 1, r.store_incarnation, other);
    assert_int_equal(receipt_verify(data, sizeof data, other, &back), ERR_BAD_RECEIPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capability_round_trip),
        cmocka_unit_test(capability_with_a_flipped_bit_is_refused),
        cmocka_unit_test(capability_signature_has_its_context),
        cmocka_unit_test(receipt_round_trip),
        cmocka_unit_test(receipt_with_a_flipped_bit_is_refused),
        cmocka_unit_test(receipt_keys_are_of_one_incarnation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
