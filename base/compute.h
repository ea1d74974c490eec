/* COMPUTE: pure functions that are too long for a loop's thread. A core fills a job and emits it; the answer comes back
 * through the inbox as COMPUTE_DONE, wherever it ran. compute_run is the table; workers and the simulator call it. */
#ifndef CAIRN_BASE_COMPUTE_H
#define CAIRN_BASE_COMPUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "cut.h"
#include "err.h"
#include "ids.h"
#include "limits.h"
#include "slice.h"

#define COMPUTE_CUTS (LIMIT_COMPUTE_INPUT_BYTES / (256u << 10)) /* chunks of one CUT_HASH */

enum compute_op {
    /* in[0] plain bytes, up to LIMIT_COMPUTE_INPUT_BYTES -> hashes[n], lengths[n], count, consumed.
     * cut.min_bytes 0: pieces of `cut_bytes`, the last one shorter; all is consumed, and TOO_LARGE if that takes more
     * than COMPUTE_CUTS pieces. Else cut by content (cut.h): in[0] starts at a cut; `last` says that the file ends with
     * it. What stands behind the last cut that is certain, or behind COMPUTE_CUTS chunks, is not consumed: the next job
     * starts with it. Without `last` and with less than cut.max_bytes nothing may be consumed.
     * in[1] holds bytes that follow those of in[0], or none; the two count as one input. The chunk that lies in both
     * is joined in out[0]; the others lie where they are. */
    COMPUTE_CHUNK_CUT_HASH,
    /* in[0] plain chunk, seal.chunk, seal.kc, k, m -> out[0..k+m-1] shards (padded), seal.encoding, sealed_bytes
     * (of the payload, compressed if that pays),
     * crc vectors: out[k+m] = packed shard_checks (code.h) for all indexes */
    COMPUTE_CHUNK_SEAL,
    /* in[i] shard i or empty (k of them present), k, m, sealed_bytes, seal.kc/chunk/sha/plain_bytes -> out[0] plain
     * chunk. err CORRUPT when it does not decode to the chunk named. */
    COMPUTE_CHUNK_OPEN,
    /* in[] as OPEN, `want` a bit set of indexes -> out[i] for each wanted */
    COMPUTE_SHARD_REBUILD,
};

struct compute_seal {
    struct chunk_id chunk;
    struct sha256 sha; /* of the plain chunk */
    uint8_t kc[32];    /* the chunk's key (R-C1) */
    struct encoding encoding;
    uint32_t plain_bytes;
    uint32_t sealed_bytes;
};

struct compute_job {
    enum compute_op op;
    enum err err;
    uint8_t priority; /* 0 first, 2 last */
    uint8_t k, m;
    uint32_t want;
    uint32_t cut_bytes;
    struct cut_params cut;
    bool last;
    uint32_t count;    /* chunks cut */
    uint32_t consumed; /* bytes they have together */
    struct compute_seal seal;
    struct sha256 hashes[COMPUTE_CUTS];
    uint32_t lengths[COMPUTE_CUTS];
    struct slice in[LIMIT_SHARDS + 1];
    struct slice out[LIMIT_SHARDS + 1];
};

struct compute_job *compute_job_create(enum compute_op op);
/* Drops all slices and frees. */
void compute_job_destroy(struct compute_job *job);
/* Runs it on the calling thread; sets err. Pure: no global state but library contexts per thread. */
void compute_run(struct compute_job *job);

#endif
