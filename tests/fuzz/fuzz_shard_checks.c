/* shard_checks_valid and shard_checks_match, and code_join over shards of any length.
 * Input: u8 count, u8 index, u32 shard bytes, u8 k, u32 sealed bytes, then the packed vector, whose bytes serve as
 * shards too. */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "fuzz.h"

#define FUZZ_FIXED_BYTES 11u

static void join_some(const uint8_t *data, uint32_t bytes, unsigned count, unsigned k, uint32_t sealed_bytes)
{
    struct slice shards[LIMIT_SHARDS] = {0};
    for (unsigned i = 0; i < count; i++) {
        /* mostly of one length, some absent, some shorter */
        uint32_t own = i < bytes && data[i] % 5 == 0 ? 0 : i < bytes && data[i] % 5 == 1 ? bytes / 2 : bytes;
        shards[i] = slice_borrow(data, own);
    }
    struct slice sealed = {0};
    if (code_join(shards, k, count - k, sealed_bytes, &sealed) == ERR_OK) {
        CHECK(sealed.bytes == sealed_bytes);
    }
    slice_drop(&sealed);
    enum err err = code_rebuild(shards, k, count - k, UINT32_MAX);
    for (unsigned i = 0; i < count; i++) {
        CHECK(err != ERR_OK || shards[i].bytes == bytes || shards[i].bytes == bytes / 2);
        slice_drop(&shards[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < FUZZ_FIXED_BYTES || bytes > 1u << 20) {
        return 0;
    }
    unsigned count = data[0];
    unsigned index = data[1];
    uint32_t shard_bytes = get_u32(data + 2);
    unsigned k = data[6];
    struct slice checks = slice_borrow(data + FUZZ_FIXED_BYTES, bytes - FUZZ_FIXED_BYTES);
    if (shard_checks_valid(checks, count, shard_bytes)) {
        CHECK(count >= 1 && count <= LIMIT_SHARDS && checks.bytes == shard_checks_bytes(count, shard_bytes));
    }
    /* the vector as a shard of itself: its CRC can hardly be in it, but every bound is walked */
    (void)shard_checks_match(checks, count, index, checks);
    if (k <= count && code_valid(k, count - k)) {
        join_some(checks.data, checks.bytes, count, k, get_u32(data + 7));
    }
    return 0;
}
