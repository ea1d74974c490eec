/* The store loses power at every effect boundary of a workload, keeps some of its unsynced sectors, comes back and does
 * it again. After each recovery: every shard with a receipt is readable by every namespace with a receipt, nothing that
 * was not acknowledged is served wrong, no synced record is called rot, and an index rebuilt from the segments is equal
 * to the recovered one. A failing case prints the line that replays it. */
#include <stdio.h>

#include "store_world.h"

#define PUTS   60
#define WINDOW 7
#define ROUNDS 3

/* One put of the workload; what the client knows about it. */
struct job {
    struct shard shard;
    uint64_t stream;
    bool sent, done, acked;
};

struct run {
    struct world *w;
    struct job jobs[PUTS * ROUNDS];
    unsigned count, first; /* jobs; first of this round */
};

static void run_prepare(struct run *run, unsigned round)
{
    static const uint32_t sizes[] = {48, 3000, 5000, 20000, 65000, 90000, 120000, 200000};
    struct world *w = run->w;
    run->first = run->count;
    for (unsigned i = 0; i < PUTS; i++) {
        struct job *job = &run->jobs[run->count++];
        *job = (struct job){0};
        uint64_t pick = world_random(w);
        if (i % 4 == 3) { /* another namespace puts what is there, or on its way */
            const struct job *earlier = &run->jobs[pick % (run->count - 1)];
            job->shard = earlier->shard;
            job->shard.bytes = slice_ref(job->shard.bytes);
            job->shard.checks = slice_ref(job->shard.checks);
            job->shard.capability = world_capability(w, 2 + pick % 3, 1 + run->count);
        } else {
            job->shard = shard_make(w, 1000 * round + i, 1, 2, 2 * (pick % 2), sizes[pick % 8]);
        }
    }
}

static void run_collect(struct run *run)
{
    for (unsigned i = run->first; i < run->count; i++) {
        struct job *job = &run->jobs[i];
        struct reply *reply = job->sent && !job->done ? world_reply(run->w, job->stream) : NULL;
        if (reply != NULL) {
            job->done = true;
            job->acked = reply_err(reply) == ERR_OK;
        }
    }
}

/* Sends the round's puts, WINDOW at a time, and turns the world at most `turns` times; returns how often it did. */
static unsigned run_work(struct run *run, unsigned turns, uint64_t fault)
{
    unsigned done = 0;
    while (done < turns && run->w->halted == ERR_OK) {
        unsigned waiting = 0, left = 0;
        run_collect(run);
        for (unsigned i = run->first; i < run->count; i++) {
            struct job *job = &run->jobs[i];
            waiting += job->sent && !job->done;
            left += !job->done;
            if (!job->sent && waiting < WINDOW) {
                job->sent = true;
                job->stream = world_put(run->w, &job->shard);
                waiting++;
            }
        }
        run->w->fail_syncs = fault != 0 && done % fault == fault - 1;
        run->w->fail_writes = fault != 0 && done % (2 * fault) == fault / 2;
        if (!world_turn(run->w) && left == 0) {
            break;
        }
        done++;
        if (done % 40 == 0) {
            run->w->now_ns += 11 * WORLD_SECOND; /* an idle moment flushes the index */
        }
    }
    run->w->fail_syncs = run->w->fail_writes = false;
    run_collect(run);
    return done;
}

static void run_boot(struct run *run)
{
    run->w->block_percent = 15;
    world_boot(run->w);
    world_run(run->w, 5 * WORLD_SECOND);
    run->w->block_percent = 0;
    if (run->w->halted != ERR_OK || !run->w->report.ready) {
        fail_msg("recovery stopped: %s", err_name(run->w->halted));
    }
    world_tell(run->w, 4, 100, 5);
    world_run(run->w, 0);
}

static void run_check(struct run *run)
{
    for (unsigned i = 0; i < run->count; i++) {
        struct job *job = &run->jobs[i];
        enum err err = world_get_now(run->w, &job->shard);
        if (job->acked ? err != ERR_OK : err != ERR_OK && err != ERR_NOT_HERE) {
            fail_msg("put %u (%sreceipted) reads %s", i, job->acked ? "" : "not ", err_name(err));
        }
    }
    world_replies_clear(run->w);
}

/* A workload cut at `cut` turns, ROUNDS times over. Returns the turns the first round took. */
static unsigned run_case(uint64_t seed, unsigned cut, uint64_t fault)
{
    struct run *run = calloc(1, sizeof *run);
    struct world *w = run->w = world_create(seed);
    w->segment_bytes = 512u << 10;
    run_boot(run);
    unsigned first_turns = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        run_prepare(run, round);
        unsigned turns = run_work(run, round == 0 ? cut : 1 + world_random(w) % 120, fault);
        first_turns = round == 0 ? turns : first_turns;
        world_replies_clear(w);
        world_crash(w, world_random(w) % 2 == 0);
        for (unsigned again = world_random(w) % 3; again > 0; again--) { /* and once more while it comes back */
            world_boot(w);
            for (unsigned n = world_random(w) % 30; n > 0 && world_turn(w); n--) {}
            world_crash(w, world_random(w) % 2 == 0);
        }
        run_boot(run);
        run_check(run);
        struct sha256 recovered = store_index_digest(&w->view);
        uint64_t shards = w->report.counters.shards;
        if (round % 2 == 1) {
            struct sha256 rebuilt = world_rebuilt_digest(w);
            assert_memory_equal(&recovered, &rebuilt, sizeof recovered);
            assert_int_equal(shards, w->report.counters.shards);
            world_tell(w, 4, 100, 5);
            run_check(run);
        }
        assert_int_equal(w->report.counters.corrupt, 0);
    }
    for (unsigned i = 0; i < run->count; i++) {
        shard_free(&run->jobs[i].shard);
    }
    world_destroy(w);
    free(run);
    assert_int_equal(slice_live_bytes(), 0);
    return first_turns;
}

static void run_cases(uint64_t fault, unsigned stride)
{
    const char *replay = getenv("STORE_CRASH"); /* seed,cut */
    unsigned long long seed = 0;
    unsigned cut = 0;
    if (replay != NULL && sscanf(replay, "%llu,%u", &seed, &cut) == 2) {
        run_case(seed, cut, fault);
        return;
    }
    unsigned turns = run_case(1, 100000, fault);
    assert_in_range(turns, 40, 1000);
    for (cut = 0; cut <= turns; cut += stride) {
        fprintf(stderr, "STORE_CRASH=%u,%u\r", cut + 1, cut);
        run_case(cut + 1, cut, fault);
    }
}

static void test_crash_everywhere(void **state)
{
    (void)state;
    run_cases(0, 1);
}

/* The same while the disk fails a write or a sync now and then. */
static void test_crash_and_failures(void **state)
{
    (void)state;
    run_cases(11, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_everywhere),
        cmocka_unit_test(test_crash_and_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
