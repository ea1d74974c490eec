/* Raft entries <-> packed bytes: u64 index, u64 term, u8 type, u32 bytes, bytes. The body of RAFT messages between
 * nodes and of LOG_APPEND and LOG_READ inside one. Bytes from a peer are checked here; what the entries mean is Raft's
 * affair. */
#include <stdlib.h>

#include "base/bytes.h"
#include "base/check.h"
#include "log.h"

#define ENTRY_HEADER_BYTES 21u

void raft_entries_encode(const struct raft_entry *entries, uint32_t count, struct slice *ret_body)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        bytes += ENTRY_HEADER_BYTES + (uint64_t)entries[i].data.bytes;
    }
    struct slice body = slice_alloc(bytes);
    uint8_t *p = body.data;
    for (uint32_t i = 0; i < count; i++) {
        put_u64(p, entries[i].index);
        put_u64(p + 8, entries[i].term);
        p[16] = entries[i].type;
        put_u32(p + 17, entries[i].data.bytes);
        p += ENTRY_HEADER_BYTES;
        if (entries[i].data.bytes > 0) {
            memcpy(p, entries[i].data.data, entries[i].data.bytes);
        }
        p += entries[i].data.bytes;
    }
    CHECK(bytes == 0 || p == body.data + bytes);
    *ret_body = body;
}

/* Counts the entries of a well-formed body. */
static enum err entries_count(struct slice body, uint32_t *ret_count)
{
    struct reader r = reader_of(body.data, body.bytes);
    uint32_t count = 0;
    while (r.left > 0 && !r.failed) {
        (void)reader_u64(&r);
        (void)reader_u64(&r);
        uint8_t type = reader_u8(&r);
        uint32_t bytes = reader_u32(&r);
        if (type < RAFT_ENTRY_BOOT || type > RAFT_ENTRY_CONFIG || bytes > LIMIT_ENTRY_BYTES) {
            return ERR_BAD_PROTO;
        }
        (void)reader_take(&r, bytes);
        count++;
    }
    if (r.failed) {
        return ERR_BAD_PROTO;
    }
    *ret_count = count;
    return ERR_OK;
}

enum err raft_entries_decode(struct slice body, struct raft_entry **ret_entries, uint32_t *ret_count)
{
    uint32_t count = 0;
    enum err err = entries_count(body, &count);
    if (err != ERR_OK) {
        return err;
    }
    struct raft_entry *entries = count > 0 ? mem_alloc(count * sizeof *entries) : NULL;
    struct reader r = reader_of(body.data, body.bytes);
    for (uint32_t i = 0; i < count; i++) {
        entries[i].index = reader_u64(&r);
        entries[i].term = reader_u64(&r);
        entries[i].type = reader_u8(&r);
        uint32_t bytes = reader_u32(&r);
        size_t offset = body.bytes - r.left;
        (void)reader_take(&r, bytes);
        entries[i].data = slice_sub(body, offset, bytes);
    }
    CHECK(!r.failed && r.left == 0);
    *ret_entries = entries;
    *ret_count = count;
    return ERR_OK;
}
