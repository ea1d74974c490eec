/* unseal_chunk and value_unseal. Input: u8 mode, u32 place, then bytes.
 * Mode 0: the bytes as a sealed chunk, believing the header's lengths and encoding, so that the frames are reached.
 * Mode 1: the bytes as a plain chunk, sealed here: it opens, and with the bit at `place` flipped it does not.
 * Mode 2: the bytes as a sealed value. Mode 3: as a plain value, like mode 1.
 * Mode 4: the bytes as a zstd payload of `place` plain bytes, sealed here: what expands is only what it names.
 * Mode 5: like mode 1, compressed if that pays. */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/compress.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/seal.h"
#include "fuzz.h"

static void open_as_chunk(const uint8_t *data, uint32_t bytes)
{
    struct chunk_id chunk = {{1}};
    struct sha256 sha = sha256("", 0);
    struct encoding encoding = {{0}};
    struct slice plain = {0};
    uint32_t plain_bytes = bytes >= SEAL_HEADER_BYTES ? get_u32(data + 8) : 0;
    if (bytes >= SEAL_HEADER_BYTES) {
        memcpy(encoding.bytes, data + 16, sizeof encoding.bytes);
    }
    if (unseal_chunk(&chunk, fuzz_secret, &sha, &encoding, plain_bytes, data, bytes, &plain) == ERR_OK) {
        CHECK(plain.bytes == 0); /* the hash above is that of nothing */
    }
    slice_drop(&plain);
}

static void expand_payload(const uint8_t *data, uint32_t bytes, uint32_t place)
{
    struct slice payload = slice_borrow(data, bytes);
    struct slice plain = {0};
    uint32_t plain_bytes = place % (LIMIT_CHUNK_BYTES + 1);
    enum err err = compress_expand(data, bytes, plain_bytes, &plain);
    CHECK(err == ERR_CORRUPT || (err == ERR_OK && plain.bytes == plain_bytes && plain_bytes > 0));
    struct chunk_id chunk = {{1}};
    struct sha256 payload_sha = sha256(data, bytes);
    struct sha256 sha = sha256(plain.data, plain.bytes);
    struct encoding encoding;
    struct slice again = {0};
    struct slice sealed = slice_alloc(seal_bytes(bytes));
    seal_payload(&chunk, fuzz_secret, SEAL_ZSTD, &payload_sha, payload, plain_bytes, sealed.data, &encoding);
    CHECK(unseal_chunk(&chunk, fuzz_secret, &sha, &encoding, plain_bytes, sealed.data, sealed.bytes, &again) == err);
    CHECK(slice_equal(plain, again));
    slice_drop(&again);
    slice_drop(&plain);
    slice_drop(&sealed);
}

static void seal_open_flip(const uint8_t *data, uint32_t bytes, uint32_t place, bool compress)
{
    struct sha256 sha = sha256(data, bytes);
    struct chunk_id chunk = chunk_id_of(fuzz_secret, sha);
    struct encoding encoding;
    struct slice plain = {0};
    struct slice payload = compress ? compress_if_pays(data, bytes) : (struct slice){0};
    struct slice sealed = slice_alloc(seal_bytes(payload.bytes > 0 ? payload.bytes : bytes));
    if (payload.bytes > 0) {
        struct sha256 payload_sha = sha256(payload.data, payload.bytes);
        seal_payload(&chunk, fuzz_secret, SEAL_ZSTD, &payload_sha, payload, bytes, sealed.data, &encoding);
    } else {
        seal_chunk(&chunk, fuzz_secret, &sha, data, bytes, sealed.data, &encoding);
    }
    slice_drop(&payload);
    enum err err = unseal_chunk(&chunk, fuzz_secret, &sha, &encoding, bytes, sealed.data, sealed.bytes, &plain);
    CHECK(err == ERR_OK && slice_equal(plain, slice_borrow(data, bytes)));
    slice_drop(&plain);
    place %= sealed.bytes * 8;
    sealed.data[place / 8] ^= (uint8_t)(1u << place % 8);
    err = unseal_chunk(&chunk, fuzz_secret, &sha, &encoding, bytes, sealed.data, sealed.bytes, &plain);
    CHECK(err == ERR_CORRUPT);
    slice_drop(&sealed);
}

static void value_open_flip(const uint8_t *data, uint32_t bytes, uint32_t place)
{
    struct slice plain = {0};
    struct slice sealed = value_seal(fuzz_secret, &place, sizeof place, data, bytes);
    enum err err = value_unseal(fuzz_secret, &place, sizeof place, sealed.data, sealed.bytes, &plain);
    CHECK(err == ERR_OK && slice_equal(plain, slice_borrow(data, bytes)));
    slice_drop(&plain);
    uint32_t bit = place % (sealed.bytes * 8);
    sealed.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    err = value_unseal(fuzz_secret, &place, sizeof place, sealed.data, sealed.bytes, &plain);
    CHECK(err == ERR_CORRUPT);
    slice_drop(&sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < 5 || bytes - 5 > LIMIT_CHUNK_BYTES) {
        return 0;
    }
    uint32_t place = get_u32(data + 1);
    const uint8_t *rest = data + 5;
    uint32_t left = (uint32_t)(bytes - 5);
    struct slice plain = {0};
    switch (data[0] % 6) {
    case 0:
        open_as_chunk(rest, left);
        break;
    case 1:
        seal_open_flip(rest, left, place, false);
        break;
    case 2:
        if (value_unseal(fuzz_secret, "", 0, rest, left, &plain) == ERR_OK) {
            CHECK(plain.bytes + VALUE_SEAL_BYTES == left);
        }
        slice_drop(&plain);
        break;
    case 3:
        value_open_flip(rest, left, place);
        break;
    case 4:
        expand_payload(rest, left, place);
        break;
    default:
        seal_open_flip(rest, left, place, true);
    }
    return 0;
}
