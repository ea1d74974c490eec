/* cairn-sim: runs scenarios under seeds and says how to replay what fails.
 *
 *   cairn-sim --list
 *   cairn-sim --scenario NAME --seed N [--trace] [--crash-at K] [--twice]
 *   cairn-sim --scenario NAME --seeds A..B [--jobs J] [--twice]
 *   cairn-sim --scenario NAME --seeds-of TEXT --count N [--jobs J]       (N seeds that the text decides: a commit's)
 *   cairn-sim --scenario NAME --seed N --crash-every STEP [--jobs J]     (one run for each STEP-th effect of seed N)
 *
 * NAME is a scenario in code, a file of --scenarios DIR without its .toml, or a path. --ledger FILE appends a line for
 * the campaign, with the commit of --commit ID. --plant-sync-lies makes all disks lie about syncs, --must-fail turns
 * the exit code round: together they show that the checkers see what they are for.
 *
 * Exit code: 0 all passed, 1 a seed failed (its replay line and a shortened trace are printed), 2 usage. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "campaign.h"

static int usage(void)
{
    fprintf(stderr, "usage: cairn-sim --list | --scenario NAME (--seed N | --seeds A..B | --seeds-of TEXT --count N) "
                    "[--jobs J] [--trace] [--twice] [--crash-at K | --crash-every STEP] [--ledger FILE --commit ID] "
                    "[--scenarios DIR]\n");
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

/* FNV-1a, cut to numbers that are easily typed. */
static uint64_t seed_of_text(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    for (const char *at = text; *at != '\0'; at++) {
        hash = (hash ^ (uint8_t)*at) * 0x100000001b3ull;
    }
    return 1000000 + (hash ^ hash >> 32) % 1000000000;
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

static bool option_flag(const char *name, struct options *ret)
{
    struct {
        const char *name;
        bool *flag;
    } flags[] = {{"--list", &ret->list},
                 {"--trace", &ret->trace},
                 {"--twice", &ret->twice},
                 {"--plant-sync-lies", &ret->sync_lies},
                 {"--must-fail", &ret->must_fail}};
    for (unsigned i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        if (strcmp(name, flags[i].name) == 0) {
            *flags[i].flag = true;
            return true;
        }
    }
    return false;
}

static bool option_text(const char *name, const char *value, struct options *ret, const char **ret_seeds_of)
{
    struct {
        const char *name;
        const char **text;
    } texts[] = {{"--scenario", &ret->name},
                 {"--scenarios", &ret->dir},
                 {"--ledger", &ret->ledger},
                 {"--commit", &ret->commit},
                 {"--seeds-of", ret_seeds_of}};
    for (unsigned i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return true;
        }
    }
    return false;
}

static bool options_read(int argc, char **argv, struct options *ret)
{
    uint64_t jobs = 1, count = 0;
    const char *seeds_of = NULL;
    bool good = true;
    for (int i = 1; i < argc && good; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (option_flag(name, ret)) {
            continue;
        }
        i++;
        if (option_text(name, value, ret, &seeds_of)) {
            good = value[0] != '\0';
        } else if (strcmp(name, "--seed") == 0) {
            good = option_number(value, &ret->first) && ret->first > 0;
            ret->last = ret->first;
        } else if (strcmp(name, "--seeds") == 0) {
            good = option_range(value, ret);
        } else if (strcmp(name, "--count") == 0) {
            good = option_number(value, &count) && count > 0;
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
    if (seeds_of != NULL && count > 0) {
        ret->first = seed_of_text(seeds_of);
        ret->last = ret->first + count - 1;
    }
    ret->jobs = (unsigned)jobs;
    bool seeded = ret->last > 0 && (ret->crash_every == 0 || ret->first == ret->last);
    return good && (ret->list || (seeded && scenario_take(ret)));
}

static int list(const struct options *options)
{
    for (unsigned i = 0; scenarios[i] != NULL; i++) {
        printf("%-12s %s\n", scenarios[i]->name, scenarios[i]->about);
    }
    struct dirent **files = NULL;
    int count = scandir(options->dir, &files, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char *end = strstr(files[i]->d_name, ".toml");
        if (end != NULL) {
            struct plan plan;
            char text[PLAN_TEXT];
            *end = '\0';
            bool good = plan_read(options->dir, files[i]->d_name, &plan, text);
            printf("%-12s %s\n", files[i]->d_name, good ? plan.about : text);
        }
        free(files[i]);
    }
    free(files);
    return count < 0 ? 1 : 0;
}

static int run_one(const struct options *options)
{
    struct result result = run_here(options, options->first, options->crash_at);
    struct totals totals = {0};
    run_report(options, &result, &totals);
    printf("%s seed %" PRIu64 ": %s, trace %016" PRIx64 ", %" PRIu64 " steps, %" PRIu64 " effects, %" PRIu64
           " crashes, %" PRIu64 " operations, %" PRIu64 " faults, %.1f s of virtual time\n",
           options->name, options->first, result.failed ? "failed" : "passed", result.hash, result.events,
           result.effects, result.crashes, result.operations, result.faults, (double)result.virtual_ns / 1e9);
    return result.failed ? 1 : 0;
}

/* date, commit, scenario, seeds, runs, operations, faults, simulated hours, findings */
static bool ledger_append(const struct options *options, const struct totals *totals)
{
    FILE *file = fopen(options->ledger, "a");
    if (file == NULL) {
        perror(options->ledger);
        return false;
    }
    char date[32];
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    fprintf(file, "%s\t%s\t%s\t%" PRIu64 "..%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%" PRIu64 "\t%.1f\t%" PRIu64 "\n",
            date, options->commit != NULL ? options->commit : "?", options->name, options->first, options->last,
            totals->runs, totals->operations, totals->faults, (double)totals->virtual_ns / 3.6e12, totals->failed);
    return fclose(file) == 0;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int run_campaign(const struct options *options)
{
    struct totals totals = {0};
    double began = seconds_now();
    if (options->twice) {
        campaign_run_twice(options, &totals);
    } else {
        campaign_run(options, &totals);
    }
    double took = seconds_now() - began, virtual = (double)totals.virtual_ns / 1e9;
    printf("%s: %" PRIu64 " runs, %" PRIu64 " failed, %" PRIu64 " steps, %" PRIu64 " effects, %" PRIu64
           " crashes, %" PRIu64 " operations, %" PRIu64
           " faults, %.0f s of virtual time in %.1f s: %.0f runs a minute, "
           "%.0f times real time\n",
           options->name, totals.runs, totals.failed, totals.events, totals.effects, totals.crashes, totals.operations,
           totals.faults, virtual, took, (double)totals.runs * 60 / took, virtual / took);
    bool kept = options->ledger == NULL || ledger_append(options, &totals);
    return (totals.failed != 0) != options->must_fail || !kept ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options options = {.dir = SIM_SCENARIOS};
    if (!options_read(argc, argv, &options)) {
        return usage();
    }
    if (options.list) {
        return list(&options);
    }
    bool one = options.first == options.last && !options.twice && options.crash_every == 0;
    return one && options.ledger == NULL ? run_one(&options) : run_campaign(&options);
}
