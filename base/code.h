/* Erasure coding of a sealed chunk: Reed-Solomon over GF(2^8), Cauchy matrix (ISA-L gf_gen_cauchy1_matrix), and copies,
 * code (1, m), through the same calls (R-F2).
 *
 * Shards are contiguous pieces of the sealed chunk: data shard i holds bytes [i * S, (i+1) * S) with S =
 * shard_bytes(sealed, k) = ceil(sealed / k) rounded up to 64 B, zero padded. For (1, m) every shard equals the sealed
 * chunk, padded.
 *
 * struct shard_checks is the vector every record of the chunk repeats: per shard one CRC32C per 64 KiB piece. Packed:
 * u8 shards, u8 zero, u16 pieces per shard, then shards * pieces u32, shard by shard. */
#ifndef CAIRN_BASE_CODE_H
#define CAIRN_BASE_CODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "limits.h"
#include "slice.h"

#define CODE_CRC_PIECE_BYTES (64u << 10)

/* 1 <= k, 1 <= m (0 allowed for none), k + m <= LIMIT_SHARDS. */
bool code_valid(unsigned k, unsigned m);
uint32_t code_shard_bytes(uint32_t sealed_bytes, unsigned k);

/* Splits and encodes: `sealed` has capacity for k * shard_bytes and zeros behind its bytes. Data shards are sub-slices
 * of it, parity shards of one new buffer. ret_shards has k + m; the caller drops them. */
void code_encode(struct slice sealed, unsigned k, unsigned m, struct slice *ret_shards);
/* shards[i] empty = absent. Fills the absent ones named in `want` (bit i) with new slices. CORRUPT with fewer than k
 * present or with lengths that do not agree. */
MUST_CHECK enum err code_rebuild(struct slice *shards, unsigned k, unsigned m, uint32_t want);
/* Joins the k data shards (rebuilding what lacks) into one new slice of sealed_bytes. */
MUST_CHECK enum err code_join(const struct slice *shards, unsigned k, unsigned m, uint32_t sealed_bytes,
                              struct slice *ret_sealed);

/* Number of CRC pieces of a shard, packed size of the vector, and the vector of all shards. */
uint32_t shard_check_pieces(uint32_t shard_bytes);
size_t shard_checks_bytes(unsigned shards, uint32_t shard_bytes);
struct slice shard_checks_of(const struct slice *shards, unsigned count);
/* True when `checks` is a well-formed vector for `count` shards of `shard_bytes`, and `shard` matches row `index`. */
bool shard_checks_match(struct slice checks, unsigned count, unsigned index, struct slice shard);
bool shard_checks_valid(struct slice checks, unsigned count, uint32_t shard_bytes);

#endif
