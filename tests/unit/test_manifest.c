/* The packed chunk descriptions: what is encoded comes back, and every wrong length or field is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "proto/manifest.h"

static void fill(void *data, size_t bytes, uint8_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)data)[i] = (uint8_t)(seed + 7 * i);
    }
}

static void test_ask_entry(void **state)
{
    (void)state;
    struct ask_entry in = {.plain_bytes = 0x123456}, out = {0};
    uint8_t data[ASK_ENTRY_BYTES];
    fill(&in.sha, sizeof in.sha, 3);
    ask_entry_encode(&in, data);
    assert_int_equal(ask_entry_decode(data, sizeof data, &out), ERR_OK);
    assert_memory_equal(&in.sha, &out.sha, sizeof in.sha);
    assert_int_equal(out.plain_bytes, 0x123456);
    assert_int_equal(ask_entry_decode(data, sizeof data - 1, &out), ERR_INVALID);
    put_u32(data + 32, 0);
    assert_int_equal(ask_entry_decode(data, sizeof data, &out), ERR_INVALID);
    put_u32(data + 32, LIMIT_CHUNK_BYTES + 1);
    assert_int_equal(ask_entry_decode(data, sizeof data, &out), ERR_INVALID);
    assert_int_equal(out.plain_bytes, 0x123456); /* untouched */
}

static void test_ask_answer(void **state)
{
    (void)state;
    struct ask_answer in = {.missing = true, .writer = 9, .sealed_bytes = 5}, out;
    uint8_t data[ASK_ANSWER_BYTES];
    fill(&in.chunk, sizeof in.chunk, 1);
    fill(in.kc, sizeof in.kc, 2);
    fill(&in.encoding, sizeof in.encoding, 5);
    ask_answer_encode(&in, data);
    assert_int_equal(ask_answer_decode(data, sizeof data, &out), ERR_OK);
    assert_true(out.missing);
    assert_memory_equal(&out.chunk, &in.chunk, sizeof in.chunk);
    assert_memory_equal(out.kc, in.kc, sizeof in.kc);
    assert_int_equal(out.writer, 0); /* zero when missing */
    in.missing = false;
    ask_answer_encode(&in, data);
    assert_int_equal(ask_answer_decode(data, sizeof data, &out), ERR_OK);
    static const uint8_t zero[32];
    assert_false(out.missing);
    assert_memory_equal(out.kc, zero, sizeof zero); /* no key for what is not to be uploaded */
    assert_int_equal(out.writer, 9);
    assert_memory_equal(&out.encoding, &in.encoding, sizeof in.encoding);
    assert_int_equal(out.sealed_bytes, 5);
    data[0] = 2;
    assert_int_equal(ask_answer_decode(data, sizeof data, &out), ERR_INVALID);
    data[0] = 0;
    put_u32(data + 85, LIMIT_SEALED_BYTES + 1);
    assert_int_equal(ask_answer_decode(data, sizeof data, &out), ERR_INVALID);
}

static void test_manifest_read(void **state)
{
    (void)state;
    struct manifest_read in = {.entry = {.plain_bytes = 77, .writer = 12}}, out;
    uint8_t data[MANIFEST_READ_BYTES];
    fill(&in.entry.sha, sizeof in.entry.sha, 11);
    fill(&in.entry.encoding, sizeof in.entry.encoding, 12);
    fill(&in.chunk, sizeof in.chunk, 13);
    fill(in.kc, sizeof in.kc, 14);
    manifest_read_encode(&in, data);
    assert_int_equal(manifest_read_decode(data, sizeof data, &out), ERR_OK);
    assert_memory_equal(&out, &in, sizeof in);
    struct manifest_entry entry;
    assert_int_equal(manifest_entry_decode(data, MANIFEST_ENTRY_BYTES, &entry), ERR_OK);
    assert_memory_equal(&entry, &in.entry, sizeof entry);
    data[120] = 1;
    assert_int_equal(manifest_read_decode(data, sizeof data, &out), ERR_INVALID);
    data[120] = 0;
    assert_int_equal(manifest_read_decode(data, sizeof data + 1, &out), ERR_INVALID);
    put_u32(data + 32, 0);
    assert_int_equal(manifest_read_decode(data, sizeof data, &out), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ask_entry),
        cmocka_unit_test(test_ask_answer),
        cmocka_unit_test(test_manifest_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
