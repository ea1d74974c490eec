/* Content-defined cutting: where a file's chunks end follows from the bytes around each end alone, so that an insertion
 * moves no cut but those near it and all clients find the same chunks in the same bytes.
 *
 * A chunk of min to max bytes ends behind its first byte at which the gear fingerprint of the 64 bytes before falls
 * below a threshold: (2^64 - 1) / (4 * avg) while it is shorter than avg, (2^64 - 1) / (avg / 4) from there on
 * (normalised chunking, level 2; divisions round down), at max anyhow. The fingerprint of bytes b[0..64) is the sum of
 * gear[b[i]] << (63 - i) mod 2^64; gear[b] is the first 8 bytes, little-endian, of SHA-256("cairn gear 1" || b). None
 * of this may ever change: a namespace keeps its parameters, and another table or threshold would store each file a
 * second time. tests/unit/test_cut.c pins them. Source: Xia et al., FastCDC, USENIX ATC 2016. */
#ifndef CAIRN_BASE_CUT_H
#define CAIRN_BASE_CUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUT_WINDOW_BYTES 64u
#define CUT_LEVEL        2u /* of normalisation: thresholds are avg * 4 and avg / 4 */

/* What a namespace keeps; by default 256 KiB, 1 MiB, 4 MiB. */
struct cut_params {
    uint32_t min_bytes;
    uint32_t avg_bytes;
    uint32_t max_bytes;
};

/* CUT_WINDOW_BYTES <= min <= avg <= max <= LIMIT_CHUNK_BYTES. */
bool cut_params_valid(const struct cut_params *params);
/* Length of the first chunk of `data`, which starts at the file's start or at a cut; 0 when more bytes are needed to
 * tell (never with max_bytes of them or more). `last`: the file ends with these bytes; then 0 only for none.
 * `params` are valid. */
uint32_t cut_next(const struct cut_params *params, const void *data, size_t bytes, bool last);
/* The same for bytes that stand in two places, `b` behind `a`. */
struct cut_part {
    const uint8_t *data;
    size_t bytes;
};
uint32_t cut_next_apart(const struct cut_params *params, struct cut_part a, struct cut_part b, bool last);
/* The gear table (256 entries), the same in every process. */
const uint64_t *cut_gear(void);

#endif
