/* Cutting by content: the cuts follow from the bytes alone, never change from version to version, and come back into
 * step behind a change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/compute.h"
#include "base/cut.h"
#include "base/hash.h"
#include "base/limits.h"

static const struct cut_params usual = {256u << 10, 1u << 20, 4u << 20};
static const struct cut_params small = {64, 256, 1024};

static uint64_t random_next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static uint8_t *stream_make(size_t bytes, uint64_t seed)
{
    uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(random_next(&seed) >> 20);
    }
    return data;
}

/* The definition in cut.h, word by word: no lanes, a fresh fingerprint at each end. */
static uint32_t reference_next(const struct cut_params *params, const uint8_t *data, size_t bytes)
{
    for (size_t end = params->min_bytes; end <= bytes; end++) {
        uint64_t print = 0;
        for (unsigned i = 0; i < 64; i++) {
            print += cut_gear()[data[end - 64 + i]] << (63 - i);
        }
        uint64_t below = end < params->avg_bytes ? UINT64_MAX / (4 * (uint64_t)params->avg_bytes)
                                                 : UINT64_MAX / (params->avg_bytes / 4);
        if (print < below || end == params->max_bytes) {
            return (uint32_t)end;
        }
    }
    return (uint32_t)bytes;
}

/* All ends of a stream; returns their number. */
static unsigned cuts_of(const struct cut_params *params, const uint8_t *data, size_t bytes, size_t *ret_ends,
                        unsigned capacity)
{
    unsigned count = 0;
    for (size_t at = 0; at < bytes;) {
        uint32_t length = cut_next(params, data + at, bytes - at, true);
        assert_in_range(length, 1, params->max_bytes);
        assert_true(length >= params->min_bytes || at + length == bytes);
        at += length;
        assert_true(count < capacity);
        ret_ends[count++] = at;
    }
    return count;
}

static struct sha256 ends_digest(const size_t *ends, unsigned count)
{
    struct writer w = {0};
    for (unsigned i = 0; i < count; i++) {
        writer_u64(&w, ends[i]);
    }
    struct sha256 sha = sha256(w.data, w.bytes);
    writer_deinit(&w);
    return sha;
}

static void expect_sha(struct sha256 sha, const char *wanted)
{
    char text[65];
    hex_encode(sha.bytes, 32, text);
    assert_string_equal(text, wanted);
}

/* If this fails, stored files would be cut in new places: the change is wrong, not the numbers here. */
static void table_and_cuts_are_pinned(void **state)
{
    (void)state;
    struct writer w = {0};
    for (unsigned i = 0; i < 256; i++) {
        writer_u64(&w, cut_gear()[i]);
    }
    expect_sha(sha256(w.data, w.bytes), "4303e41624a698936cb31d2399eeca7e7b270bff2fea32a6dea11df13cbc9dd8");
    writer_deinit(&w);
    const size_t bytes = 24u << 20;
    uint8_t *data = stream_make(bytes, 1);
    static size_t ends[1u << 17];
    unsigned count = cuts_of(&usual, data, bytes, ends, 1u << 17);
    const size_t wanted[] = {1239400, 2400564, 3538000, 4936443, 5411120, 7433337, 8675521, 9883648};
    assert_true(count > sizeof wanted / sizeof wanted[0]);
    for (unsigned i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        assert_int_equal(ends[i], wanted[i]);
    }
    expect_sha(ends_digest(ends, count), "4a24c4acc3ce4c1e8192aeae0fd4231ba44f8b3782d8e679d7f4410d83b083f1");
    count = cuts_of(&small, data, 1u << 20, ends, 1u << 17);
    expect_sha(ends_digest(ends, count), "48aa711509cd34046b448d3a8f55b0b43784652297f70e9e3bb090ebbca789c1");
    free(data);
}

static void cuts_are_those_of_the_definition(void **state)
{
    (void)state;
    const struct cut_params params[] = {{64, 256, 1024},   {64, 64, 64},        {64, 64, 5000},
                                        {100, 1000, 1001}, {256, 20000, 40000}, {3000, 5000, 60000}};
    const size_t bytes = 300000;
    uint8_t *data = stream_make(bytes, 7);
    memset(data + 100000, 0, 10000); /* nothing to cut by */
    for (unsigned p = 0; p < sizeof params / sizeof params[0]; p++) {
        assert_true(cut_params_valid(&params[p]));
        for (size_t at = 0; at < bytes;) {
            uint32_t length = cut_next(&params[p], data + at, bytes - at, true);
            assert_int_equal(length, reference_next(&params[p], data + at, bytes - at));
            at += length;
        }
    }
    free(data);
}

/* A reader that has the file in pieces of any size finds the cuts of one that has it whole. */
static void any_split_gives_the_same_cuts(void **state)
{
    (void)state;
    const struct cut_params params[] = {{64, 256, 1024}, {4096, 16384, 65536}};
    const size_t bytes = 1u << 20;
    uint8_t *data = stream_make(bytes, 3);
    static size_t ends[1u << 15];
    uint64_t seed = 99;
    for (unsigned p = 0; p < 2; p++) {
        unsigned count = cuts_of(&params[p], data, bytes, ends, 1u << 15);
        for (unsigned round = 0; round < 20; round++) {
            size_t at = 0, have = 0;
            unsigned n = 0;
            uint64_t most = 1 + random_next(&seed) % (2 * params[p].max_bytes);
            most = round == 0 && p == 0 ? 3 : most < params[p].min_bytes / 2 ? params[p].min_bytes / 2 : most;
            bool more = true; /* read on only when what is there does not tell */
            while (at < bytes) {
                have += more ? random_next(&seed) % (most + 1) : 0;
                have = have < bytes ? have : bytes;
                uint8_t *part = malloc(have > at ? have - at : 1); /* its own memory: a byte read too far is seen */
                memcpy(part, data + at, have - at);
                uint32_t length = cut_next(&params[p], part, have - at, have == bytes);
                free(part);
                assert_true(length > 0 || have - at < params[p].max_bytes);
                more = length == 0;
                if (length > 0) {
                    at += length;
                    assert_int_equal(at, ends[n++]);
                }
            }
            assert_int_equal(n, count);
        }
    }
    free(data);
}

static void lengths_keep_their_bounds(void **state)
{
    (void)state;
    const size_t bytes = 4u << 20;
    uint8_t *data = stream_make(bytes, 11);
    static size_t ends[1u << 17];
    unsigned count = cuts_of(&small, data, bytes, ends, 1u << 17); /* asserts the bounds */
    size_t mean = bytes / count;
    assert_in_range(mean, small.avg_bytes * 3 / 4, small.avg_bytes * 3 / 2);
    /* One byte over and over has one fingerprint: it cuts at each length a threshold begins at, or nowhere. */
    for (unsigned value = 0; value < 256; value++) {
        uint64_t print = 0 - cut_gear()[value];
        uint32_t wanted = print < UINT64_MAX / 1024 ? 64 : print < UINT64_MAX / 64 ? 256 : 1024;
        memset(data, (int)value, 5000);
        assert_int_equal(cut_next(&small, data, 5000, false), wanted);
        assert_true(print >= UINT64_MAX / (usual.avg_bytes / 4)); /* and by default nowhere */
    }
    memset(data, 0, 5000);
    assert_int_equal(cut_next(&small, data, 1023, false), 0);
    assert_int_equal(cut_next(&small, data, 1023, true), 1023);
    assert_int_equal(cut_next(&small, data, 63, true), 63);
    assert_int_equal(cut_next(&small, data, 63, false), 0);
    assert_int_equal(cut_next(&small, data, 1, true), 1);
    assert_int_equal(cut_next(&small, "", 0, true), 0);
    assert_int_equal(cut_next(&small, "", 0, false), 0);
    free(data);
}

static void params_are_checked(void **state)
{
    (void)state;
    const struct cut_params wrong[] = {
        {0, 0, 0}, {63, 256, 1024}, {512, 256, 1024}, {64, 2048, 1024}, {64, 256, LIMIT_CHUNK_BYTES + 1}};
    assert_true(cut_params_valid(&usual) && cut_params_valid(&small));
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_false(cut_params_valid(&wrong[i]));
    }
}

/* One byte in front of 64 MiB: but for a few chunks at the front all are found again. */
static void an_insertion_changes_few_chunks(void **state)
{
    (void)state;
    const size_t bytes = 64u << 20;
    uint8_t *data = stream_make(bytes + 1, 5);
    size_t before[256], after[256];
    unsigned count = cuts_of(&usual, data + 1, bytes, before, 256);
    unsigned shifted = cuts_of(&usual, data, bytes + 1, after, 256);
    unsigned same = 0;
    for (unsigned i = 0, j = 0; i < count && j < shifted;) {
        size_t a = before[i] + 1;
        same += a == after[j];
        i += a <= after[j];
        j += after[j] <= a;
    }
    assert_true(count > 40);
    assert_true(same + 4 >= count && same + 4 >= shifted);
    free(data);
}

/* CUT_HASH over a file in jobs, each beginning where the one before stopped. */
static void jobs_cut_a_whole_file(void **state)
{
    (void)state;
    const struct {
        struct cut_params params;
        uint32_t bytes, job_bytes;
    } cases[] = {{usual, 20u << 20, LIMIT_COMPUTE_INPUT_BYTES}, {usual, 9u << 20, 5u << 20}, {small, 100000, 40000}};
    static size_t ends[4096];
    for (unsigned c = 0; c < 3; c++) {
        uint32_t bytes = cases[c].bytes;
        uint8_t *data = stream_make(bytes, c);
        unsigned count = cuts_of(&cases[c].params, data, bytes, ends, 4096);
        unsigned n = 0;
        for (uint32_t at = 0; at < bytes;) {
            struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
            uint32_t left = bytes - at;
            job->in[0] = slice_borrow(data + at, left < cases[c].job_bytes ? left : cases[c].job_bytes);
            job->cut = cases[c].params;
            job->last = left <= cases[c].job_bytes;
            compute_run(job);
            assert_int_equal(job->err, ERR_OK);
            assert_true(job->consumed > 0 && job->count <= COMPUTE_CUTS);
            uint32_t sum = 0;
            for (unsigned i = 0; i < job->count; i++) {
                struct sha256 sha = sha256(data + at + sum, job->lengths[i]);
                assert_memory_equal(sha.bytes, job->hashes[i].bytes, 32);
                sum += job->lengths[i];
                assert_int_equal(at + sum, ends[n++]);
            }
            assert_int_equal(sum, job->consumed);
            assert_true(!job->last || job->count == COMPUTE_CUTS || job->consumed == left);
            at += sum;
            compute_job_destroy(job);
        }
        assert_int_equal(n, count);
        free(data);
    }
}

static void jobs_at_the_edges(void **state)
{
    (void)state;
    uint8_t *data = calloc(1, LIMIT_COMPUTE_INPUT_BYTES + 1);
    struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
    job->cut = (struct cut_params){256u << 10, 256u << 10, 256u << 10};
    job->in[0] = slice_borrow(data, LIMIT_COMPUTE_INPUT_BYTES); /* the most chunks a job can have */
    compute_run(job);
    assert_true(job->err == ERR_OK && job->count == COMPUTE_CUTS && job->consumed == LIMIT_COMPUTE_INPUT_BYTES);
    job->in[0] = slice_borrow(data, LIMIT_COMPUTE_INPUT_BYTES + 1);
    compute_run(job);
    assert_int_equal(job->err, ERR_TOO_LARGE);
    job->in[0] = (struct slice){0};
    job->last = true;
    compute_run(job);
    assert_true(job->err == ERR_OK && job->count == 0 && job->consumed == 0);
    job->in[0] = slice_borrow(data, 1000);
    job->last = false;
    compute_run(job);
    assert_true(job->err == ERR_OK && job->count == 0 && job->consumed == 0);
    job->cut.min_bytes = 1;
    compute_run(job);
    assert_int_equal(job->err, ERR_INVALID);
    job->cut.min_bytes = 0;
    job->cut_bytes = 300;
    compute_run(job);
    assert_true(job->err == ERR_OK && job->count == 4 && job->consumed == 1000 && job->lengths[3] == 100);
    compute_job_destroy(job);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_and_cuts_are_pinned),
        cmocka_unit_test(cuts_are_those_of_the_definition),
        cmocka_unit_test(any_split_gives_the_same_cuts),
        cmocka_unit_test(lengths_keep_their_bounds),
        cmocka_unit_test(params_are_checked),
        cmocka_unit_test(an_insertion_changes_few_chunks),
        cmocka_unit_test(jobs_cut_a_whole_file),
        cmocka_unit_test(jobs_at_the_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
