/* Processes, results over pipes, and the shortened trace (campaign.h). */
#include "campaign.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/slice.h"

#define JOBS_MOST     64u
#define EXPLAIN_LINES 40u
#define EXPLAIN_NOTES 60u
#define LINE_BYTES    256u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RUNS_A_PROCESS 1u /* a leak is reported at the exit: it is to name its run */
#else
#define RUNS_A_PROCESS 16u
#endif

/* One run of a campaign. */
struct run {
    uint64_t seed, crash_at;
};

struct job {
    pid_t pid;
    int fd;
    struct run runs[RUNS_A_PROCESS];
    unsigned count;
};

struct result run_here(const struct options *options, uint64_t seed, uint64_t crash_at)
{
    uint64_t live_before = slice_live_bytes();
    struct world *world = world_create(seed, options->trace);
    world->crash_at = crash_at;
    world->sync_lies = options->sync_lies;
    if (options->scenario != NULL) {
        options->scenario->run(world);
    } else {
        scenario_run_plan(world, &options->plan);
    }
    struct result result = {.seed = seed,
                            .crash_at = crash_at,
                            .hash = world->trace.hash,
                            .events = world->event_number,
                            .effects = world->effect_number,
                            .operations = world->operations,
                            .faults = world->faults,
                            .virtual_ns = world->now_ns,
                            .failed = world->failed};
    for (unsigned i = 0; i < world->node_count; i++) {
        result.crashes += world->nodes[i]->crashes;
    }
    memcpy(result.finding, world->finding, sizeof result.finding);
    memcpy(result.node, world->finding_node, sizeof result.node);
    world_destroy(world);
    uint64_t live_after = slice_live_bytes();
    if (!result.failed && live_after != live_before) {
        result.failed = true;
        snprintf(result.finding, sizeof result.finding, "%" PRIu64 " B of buffers are held by nobody at the end",
                 live_after - live_before);
    }
    return result;
}

/* ---- processes ---- */

enum { SOILED_BLOCKS = 512, SOILED_BYTES = 8192 };

/* `perturb` moves the heap about and leaves its bytes in memory that is given out again, so that what depends on
 * addresses or on fresh memory differs between two processes. */
static void *heap_prepare(int perturb)
{
    if (perturb == 0) {
        return NULL;
    }
    void *blocks[SOILED_BLOCKS];
    for (size_t bytes = 16; bytes <= SOILED_BYTES; bytes += bytes / 4) {
        for (size_t i = 0; i < SOILED_BLOCKS; i++) {
            blocks[i] = mem_alloc(bytes);
            memset(blocks[i], perturb, bytes);
        }
        for (size_t i = 0; i < SOILED_BLOCKS; i++) {
            free(blocks[i]);
        }
    }
    return mem_alloc((size_t)perturb * 4099);
}

static _Noreturn void job_child(const struct options *options, const struct job *job, int perturb, int fd)
{
    void *volatile moved = heap_prepare(perturb);
    bool failed = false;
    for (unsigned i = 0; i < job->count; i++) {
        struct result result = run_here(options, job->runs[i].seed, job->runs[i].crash_at);
        bool told = write(fd, &result, sizeof result) == (ssize_t)sizeof result;
        if (result.failed || !told) { /* what comes next runs elsewhere */
            failed = true;
            break;
        }
    }
    free(moved);
    fflush(stdout);
    exit(failed ? 1 : 0);
}

static void job_start(const struct options *options, struct job *job, int perturb)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    fflush(stdout);
    job->pid = fork();
    CHECK(job->pid >= 0);
    if (job->pid == 0) {
        close(fds[0]);
        job_child(options, job, perturb, fds[1]);
    }
    close(fds[1]);
    job->fd = fds[0];
}

static bool result_read(int fd, struct result *ret_result)
{
    size_t got = 0;
    while (got < sizeof *ret_result) {
        ssize_t n = read(fd, (char *)ret_result + got, sizeof *ret_result - got);
        if (n <= 0) {
            return false;
        }
        got += (size_t)n;
    }
    return true;
}

/* Waits for a job's results; ret_results has `count` rows. Returns how many runs it made: fewer when one of them ended
 * the process, or failed. */
static unsigned job_finish(struct job *job, struct result *ret_results)
{
    unsigned made = 0;
    bool failed = false;
    while (made < job->count && !failed && result_read(job->fd, &ret_results[made])) {
        failed = ret_results[made++].failed;
    }
    close(job->fd);
    int status = 0;
    CHECK(waitpid(job->pid, &status, 0) == job->pid);
    if (made < job->count && !failed) {
        struct result *result = &ret_results[made];
        *result = (struct result){.seed = job->runs[made].seed, .crash_at = job->runs[made].crash_at, .failed = true};
        snprintf(result->finding, sizeof result->finding, "the run ended by %s %d: a broken CHECK stands above",
                 WIFSIGNALED(status) ? "signal" : "exit code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        made++;
    } else if (!failed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        struct result *result = &ret_results[made - 1];
        result->failed = true;
        snprintf(result->finding, sizeof result->finding, "the run failed at its exit: a leak, by its report above");
    }
    return made;
}

void run_report(const struct options *options, const struct result *result, struct totals *totals)
{
    totals->runs++;
    totals->events += result->events;
    totals->effects += result->effects;
    totals->crashes += result->crashes;
    totals->operations += result->operations;
    totals->faults += result->faults;
    totals->virtual_ns += result->virtual_ns;
    if (!result->failed) {
        return;
    }
    totals->failed++;
    printf("FAILED %s: %s\n  replay: cairn-sim --scenario %s --seed %" PRIu64, options->name, result->finding,
           options->name, result->seed);
    if (result->crash_at != 0) {
        printf(" --crash-at %" PRIu64, result->crash_at);
    }
    printf("%s --trace\n", options->sync_lies ? " --plant-sync-lies" : "");
    fflush(stdout);
    if (!options->must_fail && totals->failed <= 3) {
        campaign_explain(options, result);
    }
}

/* ---- campaigns ---- */

struct schedule {
    const struct options *options;
    struct run *runs; /* all of them, in order */
    unsigned long count, capacity, next;
};

static void schedule_make(struct schedule *schedule)
{
    const struct options *options = schedule->options;
    uint64_t step = options->crash_every;
    uint64_t effects = step > 0 ? run_here(options, options->first, 0).effects : 0;
    for (uint64_t seed = options->first; seed <= options->last; seed++) {
        for (uint64_t at = step ? step : options->crash_at; at <= (step ? effects : options->crash_at);
             at += step ? step : 1) {
            schedule->runs = mem_grow(schedule->runs, &schedule->capacity, schedule->count + 1, sizeof *schedule->runs);
            schedule->runs[schedule->count++] = (struct run){seed, at};
        }
    }
}

/* A batch, smaller when few runs are left for the jobs. */
static void schedule_take(struct schedule *schedule, struct job *job)
{
    unsigned long left = schedule->count - schedule->next, fair = left / schedule->options->jobs / 2 + 1;
    job->count = (unsigned)(fair < RUNS_A_PROCESS ? fair : RUNS_A_PROCESS);
    memcpy(job->runs, schedule->runs + schedule->next, job->count * sizeof job->runs[0]);
    schedule->next += job->count;
}

/* Reports the job's runs; those it did not come to go into a job of their own. */
static void job_report(const struct options *options, struct job *job, struct totals *totals)
{
    struct result results[RUNS_A_PROCESS];
    for (;;) {
        unsigned made = job_finish(job, results);
        for (unsigned i = 0; i < made; i++) {
            run_report(options, &results[i], totals);
        }
        if (made == job->count) {
            return;
        }
        job->count -= made;
        memmove(job->runs, job->runs + made, job->count * sizeof job->runs[0]);
        job_start(options, job, 0);
    }
}

void campaign_run(const struct options *options, struct totals *totals)
{
    struct schedule schedule = {.options = options};
    struct job jobs[JOBS_MOST];
    unsigned count = 0;
    schedule_make(&schedule);
    CHECK(options->jobs <= JOBS_MOST);
    while (schedule.next < schedule.count || count > 0) {
        while (count < options->jobs && schedule.next < schedule.count) {
            schedule_take(&schedule, &jobs[count]);
            job_start(options, &jobs[count++], 0);
        }
        job_report(options, &jobs[0], totals);
        memmove(jobs, jobs + 1, --count * sizeof *jobs);
    }
    free(schedule.runs);
}

void campaign_run_twice(const struct options *options, struct totals *totals)
{
    for (uint64_t seed = options->first; seed <= options->last; seed++) {
        struct job jobs[2];
        struct result results[2];
        for (int i = 0; i < 2; i++) {
            jobs[i] = (struct job){.runs = {{seed, options->crash_at}}, .count = 1};
            job_start(options, &jobs[i], i ? 0xa5 : 0x11);
        }
        for (int i = 0; i < 2; i++) {
            job_finish(&jobs[i], &results[i]);
        }
        struct result *a = &results[0], *b = &results[1];
        if (!a->failed && (a->hash != b->hash || a->events != b->events)) {
            a->failed = true;
            snprintf(a->finding, sizeof a->finding,
                     "two runs differ: trace %016" PRIx64 " after %" PRIu64 " steps, %016" PRIx64 " after %" PRIu64,
                     a->hash, a->events, b->hash, b->events);
        }
        run_report(options, a, totals);
    }
}

/* ---- the shortened trace ---- */

struct tail { /* the last lines of a kind */
    char lines[EXPLAIN_NOTES][LINE_BYTES];
    unsigned long count, most;
};

static void tail_add(struct tail *tail, const char *line)
{
    snprintf(tail->lines[tail->count++ % tail->most], LINE_BYTES, "%.*s", (int)LINE_BYTES - 1, line);
}

static void tail_print(const struct tail *tail)
{
    unsigned long first = tail->count > tail->most ? tail->count - tail->most : 0;
    for (unsigned long i = first; i < tail->count; i++) {
        printf("    %s\n", tail->lines[i % tail->most]);
    }
}

static bool line_is_note(const char *line)
{
    return strstr(line, " -- ") != NULL || strstr(line, " node ") != NULL;
}

static void explain_read(FILE *trace, const char *node, struct tail *notes, struct tail *events)
{
    char line[4096];
    while (fgets(line, sizeof line, trace) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        bool tick = strstr(line, " TIMER ") != NULL;
        if (line_is_note(line)) {
            tail_add(notes, line);
        } else if (!tick && (node[0] == '\0' || strstr(line, node) != NULL)) {
            tail_add(events, line);
        }
    }
}

void campaign_explain(const struct options *options, const struct result *result)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        CHECK(dup2(fds[1], STDOUT_FILENO) >= 0 && dup2(fds[1], STDERR_FILENO) >= 0);
        setvbuf(stdout, NULL, _IOLBF, 0);
        struct options traced = *options;
        traced.trace = true;
        (void)run_here(&traced, result->seed, result->crash_at);
        exit(0);
    }
    close(fds[1]);
    FILE *trace = fdopen(fds[0], "r");
    CHECK(trace != NULL);
    struct tail *notes = mem_alloc(sizeof *notes), *events = mem_alloc(sizeof *events);
    notes->most = EXPLAIN_NOTES;
    events->most = EXPLAIN_LINES;
    explain_read(trace, result->node, notes, events);
    fclose(trace);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    printf("  what happened to nodes:\n");
    tail_print(notes);
    printf("  last of %s:\n", result->node[0] != '\0' ? result->node : "all nodes");
    tail_print(events);
    free(notes);
    free(events);
    fflush(stdout);
}
