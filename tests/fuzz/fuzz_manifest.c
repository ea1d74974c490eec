/* The decoders of proto/manifest.h. Input: any bytes, given to each. What is taken encodes back to the same bytes;
 * what is refused has a wrong length or a field out of range. */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "fuzz.h"
#include "proto/manifest.h"

static void plain_check(uint32_t plain_bytes)
{
    CHECK(plain_bytes > 0 && plain_bytes <= LIMIT_CHUNK_BYTES);
}

static void asks(const uint8_t *data, size_t bytes)
{
    struct ask_entry ask;
    uint8_t again[ASK_ANSWER_BYTES];
    if (ask_entry_decode(data, bytes, &ask) == ERR_OK) {
        plain_check(ask.plain_bytes);
        ask_entry_encode(&ask, again);
        CHECK(bytes == ASK_ENTRY_BYTES && memcmp(again, data, bytes) == 0);
    }
    struct ask_answer answer, twice;
    if (ask_answer_decode(data, bytes, &answer) == ERR_OK) {
        CHECK(bytes == ASK_ANSWER_BYTES && answer.sealed_bytes <= LIMIT_SEALED_BYTES);
        ask_answer_encode(&answer, again); /* drops what its kind does not have */
        CHECK(ask_answer_decode(again, sizeof again, &twice) == ERR_OK && twice.missing == answer.missing);
        CHECK(memcmp(&twice.chunk, &answer.chunk, sizeof twice.chunk) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct manifest_entry entry;
    struct manifest_read read;
    uint8_t again[MANIFEST_READ_BYTES];
    asks(data, bytes);
    if (manifest_entry_decode(data, bytes, &entry) == ERR_OK) {
        plain_check(entry.plain_bytes);
        manifest_entry_encode(&entry, again);
        CHECK(bytes == MANIFEST_ENTRY_BYTES && memcmp(again, data, bytes) == 0);
    }
    if (manifest_read_decode(data, bytes, &read) == ERR_OK) {
        plain_check(read.entry.plain_bytes);
        manifest_read_encode(&read, again);
        CHECK(bytes == MANIFEST_READ_BYTES && memcmp(again, data, bytes - 4) == 0);
    }
    return 0;
}
