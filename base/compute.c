/* The table of pure functions that leave a loop's thread. Both interpreters call compute_run: workers on the real
 * system, the simulator in place. What cannot be done is said in job->err; a wrong job never stops the process, for its
 * lengths and shards come from peers. */
#include "compute.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "code.h"
#include "compress.h"
#include "hash.h"
#include "seal.h"

struct compute_job *compute_job_create(enum compute_op op)
{
    struct compute_job *job = mem_alloc(sizeof *job);
    job->op = op;
    return job;
}

void compute_job_destroy(struct compute_job *job)
{
    if (job == NULL) {
        return;
    }
    for (unsigned i = 0; i < LIMIT_SHARDS + 1; i++) {
        slice_drop(&job->in[i]);
        slice_drop(&job->out[i]);
    }
    OPENSSL_cleanse(job->seal.kc, sizeof job->seal.kc);
    free(job);
}

/* The length of the next piece of `a` and `b` behind it; 0 when that is not certain yet. */
static uint32_t cut_piece(const struct compute_job *job, struct cut_part a, struct cut_part b)
{
    if (job->cut.min_bytes > 0) {
        return cut_next_apart(&job->cut, a, b, job->last);
    }
    size_t left = a.bytes + b.bytes;
    return left < job->cut_bytes ? (uint32_t)left : job->cut_bytes;
}

/* The next `bytes` of both inputs as one: joined in out[0] when they lie in both. */
static struct slice cut_take(struct compute_job *job, uint32_t bytes)
{
    uint32_t first = job->in[0].bytes, at = job->consumed;
    if (at >= first) {
        return slice_borrow(job->in[1].data + (at - first), bytes);
    }
    if (at + bytes <= first) {
        return slice_borrow(job->in[0].data + at, bytes);
    }
    CHECK(job->out[0].bytes == 0);
    job->out[0] = slice_alloc(bytes);
    memcpy(job->out[0].data, job->in[0].data + at, first - at);
    memcpy(job->out[0].data + (first - at), job->in[1].data, bytes - (first - at));
    return slice_borrow(job->out[0].data, bytes);
}

static enum err chunk_cut_hash(struct compute_job *job)
{
    uint32_t first = job->in[0].bytes;
    uint64_t total = (uint64_t)first + job->in[1].bytes;
    bool by_content = job->cut.min_bytes > 0;
    if (by_content ? !cut_params_valid(&job->cut) : job->cut_bytes == 0 || job->cut_bytes > LIMIT_CHUNK_BYTES) {
        return ERR_INVALID;
    }
    if (total > LIMIT_COMPUTE_INPUT_BYTES || (!by_content && total > (uint64_t)job->cut_bytes * COMPUTE_CUTS)) {
        return ERR_TOO_LARGE;
    }
    struct slice pieces[COMPUTE_CUTS];
    job->count = 0;
    job->consumed = 0;
    while (job->count < COMPUTE_CUTS && job->consumed < total) {
        struct cut_part a = {0}, b = {job->in[1].data, job->in[1].bytes};
        if (job->consumed < first) {
            a = (struct cut_part){job->in[0].data + job->consumed, first - job->consumed};
        } else {
            b = (struct cut_part){b.data + (job->consumed - first), b.bytes - (job->consumed - first)};
        }
        uint32_t bytes = a.bytes > 0 ? cut_piece(job, a, b) : cut_piece(job, b, a);
        if (bytes == 0) {
            break;
        }
        pieces[job->count] = cut_take(job, bytes);
        job->lengths[job->count++] = bytes;
        job->consumed += bytes;
    }
    CHECK(job->consumed <= total);
    sha256_many(pieces, job->count, job->hashes);
    return ERR_OK;
}

/* Seals into the buffer that is then cut into data shards in place: of a chunk that does not compress the only copy is
 * the encryption itself. */
static enum err chunk_seal(struct compute_job *job)
{
    struct slice plain = job->in[0];
    if (plain.bytes > LIMIT_CHUNK_BYTES) {
        return ERR_TOO_LARGE;
    }
    struct compute_seal *seal = &job->seal;
    struct slice payload = compress_if_pays(plain.data, plain.bytes);
    enum seal_codec codec = payload.bytes > 0 ? SEAL_ZSTD : SEAL_PLAIN;
    struct sha256 payload_sha = codec == SEAL_ZSTD ? sha256(payload.data, payload.bytes) : seal->sha;
    if (codec == SEAL_PLAIN) {
        payload = slice_ref(plain);
    }
    seal->plain_bytes = plain.bytes;
    seal->sealed_bytes = seal_bytes(payload.bytes);
    uint32_t padded_bytes = job->k * code_shard_bytes(seal->sealed_bytes, job->k);
    struct slice sealed = slice_alloc(padded_bytes);
    seal_payload(&seal->chunk, seal->kc, codec, &payload_sha, payload, plain.bytes, sealed.data, &seal->encoding);
    slice_drop(&payload);
    memset(sealed.data + seal->sealed_bytes, 0, padded_bytes - seal->sealed_bytes);
    sealed.bytes = seal->sealed_bytes;
    code_encode(sealed, job->k, job->m, job->out);
    job->out[job->k + job->m] = shard_checks_of(job->out, job->k + job->m);
    slice_drop(&sealed);
    return ERR_OK;
}

/* Whether the data shards are all there, so that the sealed chunk can be read where it lies. */
static bool data_shards_whole(const struct compute_job *job)
{
    uint32_t sealed_bytes = job->seal.sealed_bytes;
    if (sealed_bytes == 0 || sealed_bytes > LIMIT_SEALED_BYTES) {
        return false;
    }
    bool whole = true;
    for (unsigned i = 0; i < job->k; i++) {
        whole = whole && job->in[i].bytes == code_shard_bytes(sealed_bytes, job->k);
    }
    return whole;
}

static enum err chunk_open(struct compute_job *job)
{
    const struct compute_seal *seal = &job->seal;
    if (data_shards_whole(job)) {
        return unseal_parts(&seal->chunk, seal->kc, &seal->sha, &seal->encoding, seal->plain_bytes, job->in, job->k,
                            seal->sealed_bytes, &job->out[0]);
    }
    struct slice sealed = {0};
    enum err err = code_join(job->in, job->k, job->m, seal->sealed_bytes, &sealed);
    if (err == ERR_OK) {
        err = unseal_chunk(&seal->chunk, seal->kc, &seal->sha, &seal->encoding, seal->plain_bytes, sealed.data,
                           sealed.bytes, &job->out[0]);
    }
    slice_drop(&sealed);
    return err;
}

static enum err shard_rebuild(struct compute_job *job)
{
    unsigned shards = job->k + job->m;
    struct slice all[LIMIT_SHARDS] = {0};
    for (unsigned i = 0; i < shards; i++) {
        all[i] = slice_ref(job->in[i]);
    }
    enum err err = code_rebuild(all, job->k, job->m, job->want);
    for (unsigned i = 0; i < shards; i++) {
        if (err == ERR_OK && (job->want >> i & 1) != 0) {
            job->out[i] = all[i];
        } else {
            slice_drop(&all[i]);
        }
    }
    return err;
}

static enum err compute_run_op(struct compute_job *job)
{
    if (job->op != COMPUTE_CHUNK_CUT_HASH && !code_valid(job->k, job->m)) {
        return ERR_INVALID;
    }
    for (unsigned i = 0; i < LIMIT_SHARDS + 1; i++) {
        CHECK(job->out[i].bytes == 0); /* a job runs once */
    }
    switch (job->op) {
    case COMPUTE_CHUNK_CUT_HASH:
        return chunk_cut_hash(job);
    case COMPUTE_CHUNK_SEAL:
        return chunk_seal(job);
    case COMPUTE_CHUNK_OPEN:
        return chunk_open(job);
    case COMPUTE_SHARD_REBUILD:
        return shard_rebuild(job);
    }
    return ERR_INVALID;
}

void compute_run(struct compute_job *job)
{
    job->err = compute_run_op(job);
}
