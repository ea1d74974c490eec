/* The bytes of a log segment. Little-endian throughout.
 *
 * Segments are numbered from 1 in the order they are written; a file is used again for a later segment once nobody
 * needs what it holds. Which segment a file holds is what its newest sectors say.
 *
 * A segment file is a row of 512-byte sectors, 8 to a block. Each write begins on a fresh block and fills whole blocks,
 * so that no sector that was synced is ever written again; all its sectors are valid ones, the last may carry no
 * payload.
 *
 *   sector   0 u32 crc        CRC-32C of the place (directory uuid, u32 file, u32 sector) and of bytes 4..511
 *            4 u32 magic      "CLG3"; "CLG2" is read as well
 *            8 u64 sequence   of the write; grows, with gaps after a torn tail was cut
 *           16 u64 previous   sequence of the write before: the chain that recovery follows
 *           24 u64 synced     highest sequence known durable when this write was issued (R-E2)
 *           32 u32 first      sector number where the write begins
 *           36 u32 sectors    of the write
 *           40 u16 used       bytes of payload
 *           42 u16 record     offset in the payload where the first record begins; 0xffff: none begins here
 *           44 u32 segment    of the log, that the file held when this was written
 *           48 u32 oldest     segment that was needed then: files of earlier ones are free
 *           52     payload    460 bytes
 *
 *   record   a row of bytes over the payloads of one write; a sector it leaves towards the next is full
 *            0 u32 crc        CRC-32C of bytes 4..55
 *            4 u8  type       enum log_record_type; HEALED: an entry written anew in its place, cuts nothing
 *            5 u8  entry      enum raft_entry_type of an ENTRY
 *            6 u16 zero
 *            8 u32 group
 *           12 u32 bytes      of the body
 *           16 u64 index      ENTRY: its index; RESET: the group's log goes on behind it; HARD_STATE: 0
 *           24 u64 term       ENTRY: its term; RESET: the term of `index`; HARD_STATE: the node's term in the group
 *           32 u64 previous index, term of the entry before;
 *           40 u64 previous term    HARD_STATE: of the group's last entry (R-E1)
 *           48 u32 body crc
 *           52 u32 vote       HARD_STATE
 *           56     body       ENTRY: the entry's data
 *
 *   NAMES, the last record of each write, begins in a sector of its own (R-E1). What it says of the write and of the
 * one before it names all that either of them changed: a damaged write is so known by its own NAMES, a lost one by its
 *   successor's. Body: u64 before (sequence of the write before the previous one), u32 count, per group u32 group, u64
 *   term, u32 vote, u64 base index, u64 base term, u64 from, u64 last index, u32 run count, per run u64 first, u64
 * term. Nothing behind base and below `from` was changed; the runs cover from (or base + 1) .. last.
 *
 *   PEERS, of a group: what it knows of other members' logs (log.h); again behind the first records of each segment.
 *
 *   SEGMENT, the first record of a segment and twice there, in two sectors, has the body: u32 count, per group u32
 * group, u64 term, u32 vote, u64 base index, u64 base term, u64 last index, u32 run count, per run u64 first, u64 term:
 * all groups and the names of all their entries behind base, as they stand before the segment. A reader may so begin
 * with any segment. */
#ifndef CAIRN_METAD_HOST_LOG_FORMAT_H
#define CAIRN_METAD_HOST_LOG_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/ids.h"
#include "base/slice.h"

#define LOG_SECTOR_BYTES        512u
#define LOG_SECTOR_HEADER_BYTES 52u
#define LOG_PAYLOAD_BYTES       (LOG_SECTOR_BYTES - LOG_SECTOR_HEADER_BYTES)
#define LOG_BLOCK_BYTES         4096u
#define LOG_BLOCK_SECTORS       (LOG_BLOCK_BYTES / LOG_SECTOR_BYTES)
#define LOG_RECORD_HEADER_BYTES 56u
#define LOG_SEGMENT_GROUP_BYTES 44u /* one group in the body of a SEGMENT record, without its runs */
#define LOG_NAMES_BYTES         12u /* of a NAMES record's body before its groups */
#define LOG_NAMES_GROUP_BYTES   52u /* one group there, without its runs */
#define LOG_NO_RECORD           0xffffu

enum log_record_type {
    LOG_RECORD_ENTRY = 1,
    LOG_RECORD_HARD_STATE = 2,
    LOG_RECORD_SEGMENT = 3,
    LOG_RECORD_RESET = 4,
    LOG_RECORD_NAMES = 5,
    LOG_RECORD_HEALED = 6,
    LOG_RECORD_PEERS = 7
};

/* Where a write lies: its directory, the segment and the file that holds it; the oldest segment needed. */
struct log_where {
    struct uuid directory;
    uint32_t segment, file, oldest;
};

struct log_sector {
    uint64_t sequence, previous, synced;
    uint32_t first, sectors, segment, oldest;
    uint16_t used, record;
    bool old; /* written by a program that wrote no NAMES */
};

struct log_record {
    uint8_t type, entry;
    uint32_t group, bytes;
    uint64_t index, term;
    uint64_t previous_index, previous_term;
    uint32_t body_crc, vote;
};

/* Completes the 512 bytes at `sector`, whose payload is in place. */
void log_sector_encode(const struct log_sector *s, const struct uuid *directory, uint32_t file, uint32_t number,
                       uint8_t *sector);
/* False when these are not the bytes this log wrote to this very place, for this segment or an earlier one. */
bool log_sector_decode(const uint8_t *sector, const struct uuid *directory, uint32_t file, uint32_t number,
                       struct log_sector *ret_sector);

/* What a sector claims: to pass over one that is of no interest without its checksum. */
uint64_t log_sector_sequence(const uint8_t *sector);

/* Packs a header; body_crc is the caller's. */
void log_record_encode(const struct log_record *record, uint8_t *data);
/* False when the header's checksum or form is wrong. */
bool log_record_decode(const uint8_t *data, struct log_record *ret_record);

/* Bytes of whole blocks that surely hold `records` records of `bytes` bytes together, headers included. */
uint64_t log_blocks_bound(uint64_t bytes, uint32_t records);
/* Sector number behind the last one that a record of `bytes` (header included) at file offset `offset` touches. */
uint64_t log_record_end_sector(uint64_t offset, uint64_t bytes);

/* Builds one write. */
struct log_builder {
    struct slice data;
    uint32_t sector;           /* the one being filled, from 0 */
    uint16_t used;             /* of its payload */
    uint32_t base;             /* byte offset in the file of the write */
    uint16_t *useds, *records; /* per sector, what the headers will say */
};
void log_builder_init(struct log_builder *b, uint64_t bound, uint32_t base);
/* Appends a record; its header's bytes and body_crc are set here. Returns its offset in the file. */
uint32_t log_builder_put(struct log_builder *b, struct log_record *record, const void *body, uint32_t bytes);
/* The next record begins in a fresh sector. */
void log_builder_break(struct log_builder *b);
/* Pads to whole blocks, writes all sector headers and gives the write's bytes; the builder is empty afterwards. */
struct slice log_builder_finish(struct log_builder *b, const struct log_where *where, uint64_t sequence,
                                uint64_t previous, uint64_t synced);

/* Reads the payload stream of consecutive sectors; each sector is checked when it is entered. */
struct log_cursor {
    const uint8_t *sectors;
    uint32_t count;
    struct log_where where;
    uint32_t first;  /* number of sectors[0] in the segment */
    uint32_t at;     /* sector, from 0 */
    uint32_t offset; /* in its payload */
    uint32_t used;   /* of its payload */
    bool failed;     /* a sector is not valid: number first + at */
    bool checked;    /* the caller has seen the checksums of all */
};
/* Begins at payload offset `offset` of sector `at`. */
void log_cursor_init(struct log_cursor *c, const uint8_t *sectors, uint32_t count, const struct log_where *where,
                     uint32_t first, uint32_t at, uint32_t offset);
/* From the beginning of sectors each of which has been decoded. */
void log_cursor_init_checked(struct log_cursor *c, const uint8_t *sectors, uint32_t count,
                             const struct log_where *where, uint32_t first);
/* True when nothing is left; else the cursor stands on a byte. */
bool log_cursor_end(struct log_cursor *c);
/* Offset in the file of the next byte. */
uint64_t log_cursor_offset(const struct log_cursor *c);
/* Copies the next bytes (to NULL: passes them), adding them to *crc. False at the end or at a bad sector. */
bool log_cursor_read(struct log_cursor *c, void *ret, uint32_t bytes, uint32_t *crc);

#endif
