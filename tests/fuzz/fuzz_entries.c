/* raft_entries_decode. Input: a body as a peer sends it. What is taken encodes back to the same bytes, and its data lie
 * inside the body. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/limits.h"
#include "fuzz.h"
#include "metad/host/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes > LIMIT_FRAME_BODY_BYTES) {
        return 0;
    }
    struct slice body = slice_copy(data, bytes);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (raft_entries_decode(body, &entries, &count) == ERR_OK) {
        struct slice again;
        CHECK((count == 0) == (bytes == 0));
        for (uint32_t i = 0; i < count; i++) {
            CHECK(entries[i].data.bytes <= LIMIT_ENTRY_BYTES);
        }
        raft_entries_encode(entries, count, &again);
        CHECK(slice_equal(body, again));
        slice_drop(&again);
        for (uint32_t i = 0; i < count; i++) {
            slice_drop(&entries[i].data);
        }
        free(entries);
    } else {
        CHECK(entries == NULL && count == 0);
    }
    slice_drop(&body);
    return 0;
}
