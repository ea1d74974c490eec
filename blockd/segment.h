/* The on-disk record of a store: one 4096-byte header block, then the payload padded to 4096. Records lie one behind
 * the other in append-only segment files; the index is a cache of them (R-A4).
 *
 * Header block, little-endian (the shard key big-endian, as everywhere):
 *     0   u32  magic "CSR1"
 *     4   u32  CRC32C of bytes 8..4095
 *     8   u8   type (enum record_type), u8 version 1, u16 zero
 *    12   u32  segment number
 *    16   u64  offset of this block in the segment
 *    24   u64  sequence: number of the record in this directory, from 1
 *    32   u64  mark: every record up to this sequence was durable, or recorded as lost, when this one was written
 * (R-E2) 40   16 B uuid of the directory 56   u64  incarnation of the directory 64   u64  salt: random bits of the
 * directory that no client knows, so that no payload can pass for a record 72   u32  payload bytes, unpadded (SHARD:
 * the shard's bytes; else 0) 76   u32  sealed bytes of the chunk 80   u32  plain bytes of the chunk 84   u32  tail
 * bytes 88   63 B packed shard key, u8 zero 152   u64  namespace, u64 its incarnation, u64 generation, u64 session of
 * the hold 184   u64  zero 192        tail: SHARD: the packed vector of CRCs of all shards (base/code.h), then the
 * further holds of a rebuilt shard, each u64 namespace, u64 its incarnation, u64 generation, u64 session, so that a
 * shard never comes to be without its holders; LOST: pairs u64 first, u64 last of sequences that never became durable;
 * then zeros The checksum covers the record's place and number, so stale and misdirected blocks are found. */
#ifndef CAIRN_BLOCKD_SEGMENT_H
#define CAIRN_BLOCKD_SEGMENT_H

#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"

#define RECORD_HEADER_BYTES 4096u
#define RECORD_TAIL_OFFSET  192u
#define RECORD_TAIL_MAX     (RECORD_HEADER_BYTES - RECORD_TAIL_OFFSET)
#define RECORD_LOST_MAX     128u
#define RECORD_HOLD_BYTES   32u

enum record_type {
    RECORD_SHARD = 1,  /* a shard and its first holder */
    RECORD_HOLDER = 2, /* one more hold on a shard that is here (R-A5) */
    RECORD_LOST = 3,   /* sequences that were never acknowledged: found again, they are not applied */
};

/* Who asked for a shard to be kept, as the capability named it (R-A1, R-A6). */
struct hold {
    uint64_t ns;
    uint64_t ns_incarnation;
    uint64_t generation;
    uint64_t session;
};

struct record {
    enum record_type type;
    uint32_t segment;
    uint64_t offset;
    uint64_t sequence;
    uint64_t mark;
    uint64_t salt;
    uint32_t payload_bytes;
    uint32_t sealed_bytes;
    uint32_t plain_bytes;
    struct shard_key key;
    struct hold hold;
    const uint8_t *tail; /* borrowed: from the caller, or from the block that was decoded */
    uint32_t tail_bytes;
};

/* What a directory's records must carry. */
struct directory_identity {
    struct uuid uuid;
    uint64_t incarnation;
};

/* Bytes of the CRC vector at the head of a SHARD's tail, the count of further holds behind it, and each of them. */
uint32_t record_checks_bytes(const struct record *record);
uint32_t record_hold_count(const struct record *record);
struct hold record_hold(const struct record *record, uint32_t at);
void record_hold_encode(const struct hold *hold, uint8_t ret[RECORD_HOLD_BYTES]);

/* Bytes a record takes in its segment. */
uint64_t record_bytes(uint32_t payload_bytes);
/* Writes the whole header block. */
void record_encode(const struct record *record, const struct directory_identity *identity, uint8_t *ret_block);
/* CORRUPT unless the block is a whole, well-formed header of this directory at this very place. */
MUST_CHECK enum err record_decode(const uint8_t *block, const struct directory_identity *identity, uint32_t segment,
                                  uint64_t offset, struct record *ret_record);

#endif
