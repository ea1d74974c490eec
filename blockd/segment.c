/* Records of segments, encoded and decoded. Encoding trusts its caller (CHECK); decoding trusts nothing: the block
 * comes from a disk that may tear, lose, misdirect or rot it, and every such block is answered with CORRUPT. Byte map:
 * segment.h. */
#include "segment.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/hash.h"

#define RECORD_MAGIC   0x31525343u
#define RECORD_VERSION 1
#define RECORD_KEY_AT  88u
#define RECORD_HOLD_AT 152u

_Static_assert(RECORD_KEY_AT + SHARD_KEY_BYTES + 1 == RECORD_HOLD_AT, "the key's room is its packed size");
_Static_assert(RECORD_LOST_MAX * 16 <= RECORD_TAIL_MAX, "lost ranges fit a header block");

uint32_t record_checks_bytes(const struct record *record)
{
    CHECK(record->type == RECORD_SHARD);
    return (uint32_t)shard_checks_bytes(record->key.k + record->key.m, record->payload_bytes);
}

uint32_t record_hold_count(const struct record *record)
{
    return (record->tail_bytes - record_checks_bytes(record)) / RECORD_HOLD_BYTES;
}

struct hold record_hold(const struct record *record, uint32_t at)
{
    CHECK(at < record_hold_count(record));
    const uint8_t *p = record->tail + record_checks_bytes(record) + (size_t)at * RECORD_HOLD_BYTES;
    return (struct hold){get_u64(p), get_u64(p + 8), get_u64(p + 16), get_u64(p + 24)};
}

void record_hold_encode(const struct hold *hold, uint8_t ret[RECORD_HOLD_BYTES])
{
    put_u64(ret, hold->ns);
    put_u64(ret + 8, hold->ns_incarnation);
    put_u64(ret + 16, hold->generation);
    put_u64(ret + 24, hold->session);
}

uint64_t record_bytes(uint32_t payload_bytes)
{
    return RECORD_HEADER_BYTES + ((uint64_t)payload_bytes + 4095) / 4096 * 4096;
}

void record_encode(const struct record *record, const struct directory_identity *identity, uint8_t *ret_block)
{
    CHECK(record->offset % 4096 == 0 && record->segment > 0);
    CHECK(record->sequence > record->mark && record->tail_bytes <= RECORD_TAIL_MAX);
    uint8_t *p = ret_block;
    memset(p, 0, RECORD_HEADER_BYTES);
    put_u32(p, RECORD_MAGIC);
    p[8] = (uint8_t)record->type;
    p[9] = RECORD_VERSION;
    put_u32(p + 12, record->segment);
    put_u64(p + 16, record->offset);
    put_u64(p + 24, record->sequence);
    put_u64(p + 32, record->mark);
    memcpy(p + 40, identity->uuid.bytes, sizeof identity->uuid.bytes);
    put_u64(p + 56, identity->incarnation);
    put_u64(p + 64, record->salt);
    put_u32(p + 72, record->payload_bytes);
    put_u32(p + 76, record->sealed_bytes);
    put_u32(p + 80, record->plain_bytes);
    put_u32(p + 84, record->tail_bytes);
    if (record->type != RECORD_LOST) {
        shard_key_encode(&record->key, p + RECORD_KEY_AT);
    }
    put_u64(p + RECORD_HOLD_AT, record->hold.ns);
    put_u64(p + RECORD_HOLD_AT + 8, record->hold.ns_incarnation);
    put_u64(p + RECORD_HOLD_AT + 16, record->hold.generation);
    put_u64(p + RECORD_HOLD_AT + 24, record->hold.session);
    if (record->tail_bytes > 0) {
        memcpy(p + RECORD_TAIL_OFFSET, record->tail, record->tail_bytes);
    }
    put_u32(p + 4, crc32c(0, p + 8, RECORD_HEADER_BYTES - 8));
}

static bool record_form_valid(const struct record *record)
{
    const struct shard_key *key = &record->key;
    switch (record->type) {
    case RECORD_SHARD:
        return code_valid(key->k, key->m) && key->index < key->k + key->m && record->sealed_bytes > 0 &&
               record->sealed_bytes <= LIMIT_SEALED_BYTES &&
               record->payload_bytes == code_shard_bytes(record->sealed_bytes, key->k) &&
               record->tail_bytes >= record_checks_bytes(record) &&
               (record->tail_bytes - record_checks_bytes(record)) % RECORD_HOLD_BYTES == 0 &&
               shard_checks_valid(slice_borrow(record->tail, record_checks_bytes(record)), key->k + key->m,
                                  record->payload_bytes);
    case RECORD_HOLDER:
        return record->payload_bytes == 0 && record->tail_bytes == 0;
    case RECORD_LOST:
        return record->payload_bytes == 0 && record->tail_bytes % 16 == 0;
    }
    return false;
}

enum err record_decode(const uint8_t *block, const struct directory_identity *identity, uint32_t segment,
                       uint64_t offset, struct record *ret_record)
{
    if (get_u32(block) != RECORD_MAGIC || get_u32(block + 4) != crc32c(0, block + 8, RECORD_HEADER_BYTES - 8)) {
        return ERR_CORRUPT;
    }
    if (block[9] != RECORD_VERSION || get_u32(block + 12) != segment || get_u64(block + 16) != offset ||
        memcmp(block + 40, identity->uuid.bytes, sizeof identity->uuid.bytes) != 0 ||
        get_u64(block + 56) != identity->incarnation) {
        return ERR_CORRUPT;
    }
    struct record record = {
        .type = (enum record_type)block[8],
        .segment = segment,
        .offset = offset,
        .sequence = get_u64(block + 24),
        .mark = get_u64(block + 32),
        .salt = get_u64(block + 64),
        .payload_bytes = get_u32(block + 72),
        .sealed_bytes = get_u32(block + 76),
        .plain_bytes = get_u32(block + 80),
        .tail = block + RECORD_TAIL_OFFSET,
        .tail_bytes = get_u32(block + 84),
        .hold = {get_u64(block + RECORD_HOLD_AT), get_u64(block + RECORD_HOLD_AT + 8),
                 get_u64(block + RECORD_HOLD_AT + 16), get_u64(block + RECORD_HOLD_AT + 24)},
    };
    shard_key_decode(block + RECORD_KEY_AT, &record.key);
    if (record.tail_bytes > RECORD_TAIL_MAX || record.sequence <= record.mark || !record_form_valid(&record)) {
        return ERR_CORRUPT;
    }
    *ret_record = record;
    return ERR_OK;
}
