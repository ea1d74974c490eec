/* cairn-sim: runs scenarios under seeds and says how to replay what fails.
 *
 *   cairn-sim --list
 *   cairn-sim --scenario NAME --seed N [--trace] [--crash-at K] [--twice]
 *   cairn-sim --scenario NAME --seeds A..B [--jobs J] [--twice]
 *   cairn-sim --scenario NAME --seed N --crash-every STEP [--jobs J]     (one run for each STEP-th effect of seed N)
 *
 * --plant-sync-lies makes all disks lie about syncs, --must-fail turns the exit code round: together they show that the
 * checkers see what they are for.
 *
 * Exit code: 0 all passed, 1 a seed failed (its replay line is printed), 2 usage. Each run is a process of its own, so
 * that a broken CHECK in a core is one failed seed. */
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/slice.h"
#include "scenario.h"

struct options {
    const char *name;                /* of the scenario */
    const char *dir;                 /* of the files of scenarios */
    const struct scenario *scenario; /* in code; NULL: of a file */
    struct plan plan;
    uint64_t first, last;
    uint64_t crash_at, crash_every;
    unsigned jobs;
    bool trace, twice, list;
    bool sync_lies, must_fail;
};

/* What one run tells its parent. */
struct result {
    uint64_t seed, crash_at;
    uint64_t hash, events, effects, crashes, virtual_ns;
    bool failed;
    char finding[WORLD_FINDING_TEXT];
};

struct totals {
    uint64_t runs, failed, events, effects, crashes, virtual_ns;
};

static struct result run_here(const struct options *options, uint64_t seed, uint64_t crash_at)
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
    struct result result = {.seed = seed, .crash_at = crash_at};
    result.hash = world->trace.hash;
    result.events = world->event_number;
    result.effects = world->effect_number;
    result.virtual_ns = world->now_ns;
    for (unsigned i = 0; i < world->node_count; i++) {
        result.crashes += world->nodes[i]->crashes;
    }
    result.failed = world->failed;
    memcpy(result.finding, world->finding, sizeof result.finding);
    world_destroy(world);
    uint64_t live_after = slice_live_bytes();
    if (!result.failed && live_after != live_before) {
        result.failed = true;
        snprintf(result.finding, sizeof result.finding, "%" PRIu64 " B of buffers are held by nobody at the end",
                 live_after - live_before);
    }
    return result;
}

/* A run in a child process; its pipe's reading end in ret_fd. `perturb` moves the heap about, so that what depends on
 * addresses or on fresh memory differs between two runs. */
static pid_t run_start(const struct options *options, uint64_t seed, uint64_t crash_at, int perturb, int *ret_fd)
{
    int fds[2];
    CHECK(pipe(fds) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        close(fds[1]);
        *ret_fd = fds[0];
        return pid;
    }
    close(fds[0]);
    void *volatile moved = NULL;
    if (perturb != 0) {
        mallopt(M_PERTURB, perturb);
        moved = malloc((size_t)perturb * 4099);
    }
    struct result result = run_here(options, seed, crash_at);
    free(moved);
    fflush(stdout);
    ssize_t written = write(fds[1], &result, sizeof result);
    exit(written == (ssize_t)sizeof result && !result.failed ? 0 : 1);
}

static struct result run_finish(pid_t pid, int fd, uint64_t seed, uint64_t crash_at)
{
    struct result result = {0};
    size_t got = 0;
    while (got < sizeof result) {
        ssize_t n = read(fd, (char *)&result + got, sizeof result - got);
        if (n <= 0) {
            break;
        }
        got += (size_t)n;
    }
    close(fd);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    if (got < sizeof result) {
        result = (struct result){.seed = seed, .crash_at = crash_at, .failed = true};
        snprintf(result.finding, sizeof result.finding, "the run ended by %s %d: a broken CHECK stands above",
                 WIFSIGNALED(status) ? "signal" : "exit code",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    } else if (!result.failed && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
        result.failed = true;
        snprintf(result.finding, sizeof result.finding, "the run failed at its exit: a leak, by its report above");
    }
    return result;
}

static void report(const struct options *options, const struct result *result, struct totals *totals)
{
    totals->runs++;
    totals->events += result->events;
    totals->effects += result->effects;
    totals->crashes += result->crashes;
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
}

struct job {
    pid_t pid;
    int fd;
    uint64_t seed, crash_at;
};

static struct result job_wait(struct job *jobs, unsigned *count)
{
    struct job job = jobs[0];
    memmove(jobs, jobs + 1, (*count - 1) * sizeof *jobs);
    (*count)--;
    return run_finish(job.pid, job.fd, job.seed, job.crash_at);
}

/* Runs (seed, crash point) pairs, `jobs` at a time, in order. */
static void run_all(const struct options *options, uint64_t effects, struct totals *totals)
{
    struct job jobs[64];
    unsigned count = 0;
    uint64_t step = options->crash_every;
    for (uint64_t seed = options->first; seed <= options->last; seed++) {
        for (uint64_t at = step ? step : options->crash_at; at <= (step ? effects : options->crash_at);
             at += step ? step : 1) {
            while (count >= options->jobs) {
                struct result result = job_wait(jobs, &count);
                report(options, &result, totals);
            }
            struct job *job = &jobs[count++];
            *job = (struct job){.seed = seed, .crash_at = at};
            job->pid = run_start(options, seed, at, 0, &job->fd);
        }
    }
    while (count > 0) {
        struct result result = job_wait(jobs, &count);
        report(options, &result, totals);
    }
}

/* Each seed in two processes with different heaps: their traces must agree. */
static void run_twice(const struct options *options, struct totals *totals)
{
    for (uint64_t seed = options->first; seed <= options->last; seed++) {
        int fds[2];
        pid_t pids[2];
        for (int i = 0; i < 2; i++) {
            pids[i] = run_start(options, seed, options->crash_at, i ? 0xa5 : 0x11, &fds[i]);
        }
        struct result a = run_finish(pids[0], fds[0], seed, options->crash_at);
        struct result b = run_finish(pids[1], fds[1], seed, options->crash_at);
        if (!a.failed && (a.hash != b.hash || a.events != b.events)) {
            a.failed = true;
            snprintf(a.finding, sizeof a.finding,
                     "two runs differ: trace %016" PRIx64 " after %" PRIu64 " steps, %016" PRIx64 " after %" PRIu64,
                     a.hash, a.events, b.hash, b.events);
        }
        report(options, &a, totals);
    }
}

static int usage(void)
{
    fprintf(stderr,
            "usage: cairn-sim --list | --scenario NAME (--seed N | --seeds A..B) [--jobs J] [--trace] [--twice] "
            "[--crash-at K | --crash-every STEP]\n");
    return 2;
}

static bool option_number(const char *text, uint64_t *ret_value)
{
    char *end = NULL;
    *ret_value = strtoull(text, &end, 10);
    return end != text && *end == '\0';
}

static bool option_range(const char *text, struct options *options)
{
    return sscanf(text, "%" SCNu64 "..%" SCNu64, &options->first, &options->last) == 2 &&
           options->first <= options->last;
}

static const struct scenario *scenario_find(const char *name)
{
    for (unsigned i = 0; scenarios[i] != NULL; i++) {
        if (strcmp(scenarios[i]->name, name) == 0) {
            return scenarios[i];
        }
    }
    return NULL;
}

/* One in code, or of a file. */
static bool scenario_take(struct options *options)
{
    char text[PLAN_TEXT] = "";
    if (options->name == NULL) {
        return false;
    }
    options->scenario = scenario_find(options->name);
    bool good = options->scenario != NULL || plan_read(options->dir, options->name, &options->plan, text);
    if (!good) {
        fprintf(stderr, "%s\n", text);
    }
    return good;
}

static bool options_read(int argc, char **argv, struct options *ret)
{
    uint64_t jobs = 1;
    bool seeded = false, good = true;
    for (int i = 1; i < argc && good; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool flag = true;
        if (strcmp(name, "--list") == 0) {
            ret->list = true;
        } else if (strcmp(name, "--trace") == 0) {
            ret->trace = true;
        } else if (strcmp(name, "--twice") == 0) {
            ret->twice = true;
        } else if (strcmp(name, "--plant-sync-lies") == 0) {
            ret->sync_lies = true;
        } else if (strcmp(name, "--must-fail") == 0) {
            ret->must_fail = true;
        } else {
            flag = false;
            i++;
        }
        if (flag) {
            continue;
        }
        if (strcmp(name, "--scenario") == 0) {
            ret->name = value;
        } else if (strcmp(name, "--scenarios") == 0) {
            ret->dir = value;
        } else if (strcmp(name, "--seed") == 0) {
            good = seeded = option_number(value, &ret->first);
            ret->last = ret->first;
        } else if (strcmp(name, "--seeds") == 0) {
            good = seeded = option_range(value, ret);
        } else if (strcmp(name, "--crash-at") == 0) {
            good = option_number(value, &ret->crash_at);
        } else if (strcmp(name, "--crash-every") == 0) {
            good = option_number(value, &ret->crash_every);
        } else if (strcmp(name, "--jobs") == 0) {
            good = option_number(value, &jobs) && jobs >= 1 && jobs <= 64;
        } else {
            good = false;
        }
    }
    ret->jobs = (unsigned)jobs;
    return good && (ret->list || (scenario_take(ret) && seeded && (ret->crash_every == 0 || ret->first == ret->last)));
}

static int run_one(const struct options *options)
{
    struct result result = run_here(options, options->first, options->crash_at);
    struct totals totals = {0};
    report(options, &result, &totals);
    printf("%s seed %" PRIu64 ": %s, trace %016" PRIx64 ", %" PRIu64 " steps, %" PRIu64 " effects, %" PRIu64
           " crashes, %.1f s of virtual time\n",
           options->name, options->first, result.failed ? "failed" : "passed", result.hash, result.events,
           result.effects, result.crashes, (double)result.virtual_ns / 1e9);
    return result.failed ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options options = {.dir = SIM_SCENARIOS};
    if (!options_read(argc, argv, &options)) {
        return usage();
    }
    if (options.list) {
        for (unsigned i = 0; scenarios[i] != NULL; i++) {
            printf("%-10s %s\n", scenarios[i]->name, scenarios[i]->about);
        }
        return 0;
    }
    if (options.first == options.last && !options.twice && options.crash_every == 0) {
        return run_one(&options);
    }
    struct totals totals = {0};
    if (options.twice) {
        run_twice(&options, &totals);
    } else {
        uint64_t effects = options.crash_every ? run_here(&options, options.first, 0).effects : 0;
        run_all(&options, effects, &totals);
    }
    printf("%s: %" PRIu64 " runs, %" PRIu64 " failed, %" PRIu64 " steps, %" PRIu64 " effects, %" PRIu64
           " crashes, %.0f s of virtual time\n",
           options.name, totals.runs, totals.failed, totals.events, totals.effects, totals.crashes,
           (double)totals.virtual_ns / 1e9);
    return (totals.failed != 0) != options.must_fail ? 1 : 0;
}
