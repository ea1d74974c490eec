/* record_decode of a store's segment. Input: u8 mode, then a header block, short ones zero-filled. Mode 0: the block as
 * it is; 1: with place, identity and checksum made right, to reach what stands behind them. A record that is taken has
 * its tail inside the block, and its holds can be read. */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "blockd/segment.h"
#include "fuzz.h"

static void repair(uint8_t *block, const struct directory_identity *identity)
{
    put_u32(block, 0x31525343u);
    block[9] = 1;
    put_u32(block + 12, 3);
    put_u64(block + 16, 8192);
    memcpy(block + 40, identity->uuid.bytes, sizeof identity->uuid.bytes);
    put_u64(block + 56, identity->incarnation);
    put_u32(block + 4, crc32c(0, block + 8, RECORD_HEADER_BYTES - 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0 || bytes > 1 + RECORD_HEADER_BYTES) {
        return 0;
    }
    struct directory_identity identity = {.incarnation = 5};
    memcpy(identity.uuid.bytes, fuzz_secret, sizeof identity.uuid.bytes);
    uint8_t block[RECORD_HEADER_BYTES] = {0};
    memcpy(block, data + 1, bytes - 1);
    if (data[0] == 1) {
        repair(block, &identity);
    }
    struct record record;
    if (record_decode(block, &identity, 3, 8192, &record) != ERR_OK) {
        return 0;
    }
    CHECK(record.tail >= block && record.tail_bytes <= RECORD_TAIL_MAX);
    CHECK(record.tail + record.tail_bytes <= block + sizeof block);
    CHECK(record.sequence > record.mark);
    if (record.type == RECORD_SHARD) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < record_hold_count(&record); i++) {
            struct hold hold = record_hold(&record, i);
            sum += hold.ns ^ hold.generation ^ hold.session;
        }
        static volatile uint64_t sink;
        sink = sum;
        (void)sink;
        CHECK(record_checks_bytes(&record) + record_hold_count(&record) * RECORD_HOLD_BYTES == record.tail_bytes);
    }
    return 0;
}
