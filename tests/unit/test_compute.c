/* The job table: cut, seal, open with any shards lost, rebuild; and jobs that cannot be done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/code.h"
#include "base/compute.h"
#include "base/hash.h"
#include "base/seal.h"

static struct slice plain_make(uint32_t bytes)
{
    struct slice plain = slice_alloc(bytes);
    uint64_t random = bytes;
    for (uint32_t i = 0; i < bytes; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        plain.data[i] = (uint8_t)(random >> 56);
    }
    return plain;
}

static struct compute_job *seal_job(struct slice plain, unsigned k, unsigned m)
{
    static const uint8_t secret[32] = {5};
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_SEAL);
    job->k = (uint8_t)k;
    job->m = (uint8_t)m;
    job->in[0] = slice_ref(plain);
    job->seal.sha = sha256(plain.data, plain.bytes);
    job->seal.chunk = chunk_id_of(secret, job->seal.sha);
    chunk_key_of(secret, job->seal.chunk, job->seal.kc);
    compute_run(job);
    return job;
}

/* A job that reads what `sealed` made, without the shards in `lost`. */
static struct compute_job *read_job(enum compute_op op, const struct compute_job *sealed, uint32_t lost)
{
    struct compute_job *job = compute_job_create(op);
    job->k = sealed->k;
    job->m = sealed->m;
    job->seal = sealed->seal;
    for (unsigned i = 0; i < (unsigned)sealed->k + sealed->m; i++) {
        job->in[i] = lost >> i & 1 ? (struct slice){0} : slice_ref(sealed->out[i]);
    }
    return job;
}

static void seal_then_open(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const uint32_t sizes[] = {0, 1, 3, 4, 5, 65535, 65536, 65537, LIMIT_CHUNK_BYTES};
    const uint8_t codes[][2] = {{4, 2}, {1, 2}, {2, 1}};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (unsigned c = 0; c < 3; c++) {
            unsigned k = codes[c][0];
            unsigned m = codes[c][1];
            struct slice plain = plain_make(sizes[i]);
            struct compute_job *sealed = seal_job(plain, k, m);
            assert_int_equal(sealed->err, ERR_OK);
            assert_int_equal(sealed->seal.plain_bytes, sizes[i]);
            assert_int_equal(sealed->seal.sealed_bytes, seal_bytes(sizes[i]));
            uint32_t shard_bytes = code_shard_bytes(sealed->seal.sealed_bytes, k);
            for (unsigned s = 0; s < k + m; s++) {
                assert_int_equal(sealed->out[s].bytes, shard_bytes);
                assert_true(shard_checks_match(sealed->out[k + m], k + m, s, sealed->out[s]));
            }
            for (uint32_t lost = 0; lost<1u << (k + m); lost += sizes[i]> 100000 ? 5 : 1) {
                bool enough = (unsigned)__builtin_popcount(lost) <= m;
                struct compute_job *opened = read_job(COMPUTE_CHUNK_OPEN, sealed, lost);
                compute_run(opened);
                assert_int_equal(opened->err, enough ? ERR_OK : ERR_CORRUPT);
                assert_true(enough ? slice_equal(opened->out[0], plain) : opened->out[0].bytes == 0);
                compute_job_destroy(opened);
            }
            compute_job_destroy(sealed);
            slice_drop(&plain);
        }
    }
    assert_true(slice_live_bytes() == live);
}

static void what_compresses_is_sealed_shorter(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice plain = plain_make(3000000);
    for (uint32_t i = 0; i < plain.bytes; i++) {
        plain.data[i] %= 16; /* four bits in each byte */
    }
    struct compute_job *sealed = seal_job(plain, 4, 2);
    assert_int_equal(sealed->err, ERR_OK);
    assert_int_equal(sealed->seal.plain_bytes, plain.bytes);
    assert_in_range(sealed->seal.sealed_bytes, plain.bytes / 2, plain.bytes / 8 * 5);
    assert_int_equal(sealed->out[0].bytes, code_shard_bytes(sealed->seal.sealed_bytes, 4));
    for (uint32_t lost = 0; lost < 64; lost++) {
        bool enough = __builtin_popcount(lost) <= 2;
        struct compute_job *opened = read_job(COMPUTE_CHUNK_OPEN, sealed, lost);
        compute_run(opened);
        assert_int_equal(opened->err, enough ? ERR_OK : ERR_CORRUPT);
        assert_true(enough ? slice_equal(opened->out[0], plain) : opened->out[0].bytes == 0);
        compute_job_destroy(opened);
    }
    compute_job_destroy(sealed);
    slice_drop(&plain);
    assert_true(slice_live_bytes() == live);
}

static void open_refuses_what_is_not_the_chunk(void **state)
{
    (void)state;
    struct slice plain = plain_make(200000);
    struct compute_job *sealed = seal_job(plain, 4, 2);
    for (unsigned shard = 0; shard < 4; shard++) { /* rot in a shard that is used */
        sealed->out[shard].data[33] ^= 1;
        struct compute_job *job = read_job(COMPUTE_CHUNK_OPEN, sealed, 0);
        compute_run(job);
        assert_int_equal(job->err, ERR_CORRUPT);
        compute_job_destroy(job);
        sealed->out[shard].data[33] ^= 1;
    }
    /* shards of two encodings never decode to something */
    struct slice other_plain = plain_make(200001);
    other_plain.bytes = 200000;
    struct compute_job *other = seal_job(other_plain, 4, 2);
    struct compute_job *job = read_job(COMPUTE_CHUNK_OPEN, sealed, 1);
    slice_drop(&job->in[5]);
    job->in[5] = slice_ref(other->out[5]);
    slice_drop(&job->in[4]);
    compute_run(job);
    assert_int_equal(job->err, ERR_CORRUPT);
    compute_job_destroy(job);
    job = read_job(COMPUTE_CHUNK_OPEN, sealed, 0);
    job->seal.sealed_bytes = UINT32_MAX;
    compute_run(job);
    assert_int_equal(job->err, ERR_CORRUPT);
    compute_job_destroy(job);
    compute_job_destroy(other);
    compute_job_destroy(sealed);
    slice_drop(&other_plain);
    slice_drop(&plain);
}

static void rebuild_gives_what_was_wanted(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice plain = plain_make(100000);
    struct compute_job *sealed = seal_job(plain, 4, 2);
    for (uint32_t lost = 0; lost < 64; lost++) {
        for (uint32_t want = 0; want < 64; want += 7) {
            struct compute_job *job = read_job(COMPUTE_SHARD_REBUILD, sealed, lost);
            job->want = want;
            compute_run(job);
            bool enough = __builtin_popcount(lost) <= 2;
            assert_int_equal(job->err, enough ? ERR_OK : ERR_CORRUPT);
            for (unsigned i = 0; i < 6; i++) {
                bool wanted = enough && (want >> i & 1) != 0;
                assert_true(wanted ? slice_equal(job->out[i], sealed->out[i]) : job->out[i].bytes == 0);
            }
            compute_job_destroy(job);
        }
    }
    compute_job_destroy(sealed);
    slice_drop(&plain);
    assert_true(slice_live_bytes() == live);
}

static void cut_hashes_each_piece(void **state)
{
    (void)state;
    const uint32_t cut = 256u << 10;
    const uint32_t sizes[] = {0, 1, cut - 1, cut, cut + 1, LIMIT_CHUNK_BYTES};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
        job->in[0] = plain_make(sizes[i]);
        job->cut_bytes = cut;
        compute_run(job);
        assert_int_equal(job->err, ERR_OK);
        assert_int_equal(job->count, (sizes[i] + cut - 1) / cut);
        uint32_t offset = 0;
        for (unsigned n = 0; n < job->count; n++) {
            assert_true(job->lengths[n] == cut || n + 1 == job->count);
            struct sha256 wanted = sha256(job->in[0].data + offset, job->lengths[n]);
            assert_memory_equal(job->hashes[n].bytes, wanted.bytes, 32);
            offset += job->lengths[n];
        }
        assert_int_equal(offset, sizes[i]);
        compute_job_destroy(job);
    }
}

static void impossible_jobs_are_answered(void **state)
{
    (void)state;
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
    job->in[0] = plain_make(100);
    compute_run(job);
    assert_int_equal(job->err, ERR_INVALID); /* no cut length */
    job->cut_bytes = 1;
    compute_run(job);
    assert_int_equal(job->err, ERR_TOO_LARGE); /* more pieces than there is room for */
    compute_job_destroy(job);
    const enum compute_op ops[] = {COMPUTE_CHUNK_SEAL, COMPUTE_CHUNK_OPEN, COMPUTE_SHARD_REBUILD};
    const uint8_t codes[][2] = {{0, 0}, {0, 2}, {17, 0}, {15, 2}, {255, 255}};
    for (unsigned o = 0; o < 3; o++) {
        for (unsigned c = 0; c < 5; c++) {
            job = compute_job_create(ops[o]);
            job->k = codes[c][0];
            job->m = codes[c][1];
            job->in[0] = plain_make(100);
            compute_run(job);
            assert_int_equal(job->err, ERR_INVALID);
            compute_job_destroy(job);
        }
    }
    job = compute_job_create(COMPUTE_CHUNK_SEAL);
    job->k = 4;
    job->m = 2;
    job->in[0] = slice_alloc(LIMIT_CHUNK_BYTES + 1);
    compute_run(job);
    assert_int_equal(job->err, ERR_TOO_LARGE);
    compute_job_destroy(job);
    compute_job_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seal_then_open),
        cmocka_unit_test(what_compresses_is_sealed_shorter),
        cmocka_unit_test(open_refuses_what_is_not_the_chunk),
        cmocka_unit_test(rebuild_gives_what_was_wanted),
        cmocka_unit_test(cut_hashes_each_piece),
        cmocka_unit_test(impossible_jobs_are_answered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
