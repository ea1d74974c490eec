/* The index of a store: what the key-value store keeps for each shard. It is a cache of the segments: index_apply is
 * the one function that turns a record into an entry, for a put and for recovery alike, so a rebuilt index is equal.
 *
 * Keys: 's' + packed shard key: an entry. 'c' + packed shard key: the shard failed its checksum (empty value).
 *       'p': how far the entries reach (struct index_position).
 * Entry, little-endian:
 *     0   u8   version 1, u8 zero, u16 bytes of the CRC vector
 *     4   u32  segment
 *     8   u64  offset of the record's header block
 *    16   u64  sequence of that record
 *    24   u32  shard bytes, u32 sealed bytes, u32 plain bytes
 *    36   u32  holders
 *    40        CRC vector of all shards (base/code.h)
 *              per holder, ascending by namespace: u64 namespace, hold {u64 incarnation, u64 generation, u64 session},
 *              release {u64 incarnation, u64 generation}
 * Position: 16 B directory uuid, u64 its incarnation, u32 segment, u32 zero, u64 offset, u64 sequence, u64 mark, u64
 * salt, u64 shards. */
#ifndef CAIRN_BLOCKD_SHARD_INDEX_H
#define CAIRN_BLOCKD_SHARD_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/ids.h"
#include "base/kv.h"
#include "segment.h"

#define INDEX_KEY_BYTES    (1 + SHARD_KEY_BYTES)
#define INDEX_CODE_BYTES   (SHARD_KEY_BYTES - 1) /* all but the index: one chunk in one code */
#define INDEX_CHUNK_BYTES  (SHARD_KEY_BYTES - 3) /* realm, chunk, writer, encoding */
#define INDEX_HOLDERS_MAX  4096u                 /* namespaces that hold one shard */
#define INDEX_PREFIX_SHARD 's'
#define INDEX_PREFIX_ROT   'c'
#define INDEX_KEY_POSITION "p"

/* R-A6: the highest hold and the highest release of one namespace. */
struct holder {
    uint64_t ns;
    uint64_t hold_incarnation, hold_generation, hold_session;
    uint64_t release_incarnation, release_generation;
};

struct index_entry {
    uint32_t segment;
    uint64_t offset;
    uint64_t sequence;
    uint32_t shard_bytes, sealed_bytes, plain_bytes;
    struct slice checks;
    struct holder *holders; /* ascending by ns; owned */
    uint32_t holder_count;
};

struct index_position {
    struct directory_identity identity;
    uint32_t segment;
    uint64_t offset;   /* where the next record begins */
    uint64_t sequence; /* of the last record applied */
    uint64_t mark;
    uint64_t salt;
    uint64_t shards; /* entries in the index */
};

void index_key(uint8_t prefix, const struct shard_key *key, uint8_t ret[INDEX_KEY_BYTES]);
void index_entry_deinit(struct index_entry *entry);
void index_entry_encode(const struct index_entry *entry, struct writer *ret);
/* CORRUPT when it is not an entry. */
MUST_CHECK enum err index_entry_decode(struct slice value, struct index_entry *ret_entry);
/* Reads the entry of a shard: NOT_FOUND, WOULD_BLOCK, or what the view says. */
MUST_CHECK enum err index_get(struct kv_view *kv, const struct shard_key *key, struct index_entry *ret_entry);

/* True when the namespace's hold is above its release. */
bool index_holds(const struct index_entry *entry, uint64_t ns);
/* True when applying a record with this hold would change nothing. */
bool index_hold_known(const struct index_entry *entry, const struct hold *hold);
/* Applies a SHARD or HOLDER record to the entry of its key; `present` says whether there is one. Returns whether there
 * is one afterwards: a HOLDER without its shard does nothing. */
bool index_apply(const struct record *record, struct index_entry *entry, bool present);

void index_position_put(struct kv_batch *batch, const struct index_position *position);
/* NOT_FOUND when the index is empty. */
MUST_CHECK enum err index_position_get(struct kv_view *kv, struct index_position *ret_position);

#endif
