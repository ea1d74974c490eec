/* Runs of scenarios under seeds, in processes of their own: a broken CHECK in a core ends one run and not the campaign.
 * A process makes several runs after each other, for a fresh one spends a tenth of its time on fresh memory; no run
 * depends on what the process did before. */
#ifndef CAIRN_SIM_CAMPAIGN_H
#define CAIRN_SIM_CAMPAIGN_H

#include "scenario.h"

struct options {
    const char *name;                /* of the scenario */
    const char *dir;                 /* of the files of scenarios */
    const struct scenario *scenario; /* in code; NULL: of a file */
    struct plan plan;
    uint64_t first, last; /* seeds */
    uint64_t crash_at, crash_every;
    unsigned jobs;
    bool trace, twice, list;
    bool sync_lies, must_fail;
    const char *ledger, *commit;
};

/* What one run tells. */
struct result {
    uint64_t seed, crash_at;
    uint64_t hash, events, effects, crashes, operations, faults, virtual_ns;
    bool failed;
    char finding[WORLD_FINDING_TEXT];
    char node[32]; /* whose step it was, as the trace names it; "" none's */
};

struct totals {
    uint64_t runs, failed, events, effects, crashes, operations, faults, virtual_ns;
};

/* In this very process. */
struct result run_here(const struct options *options, uint64_t seed, uint64_t crash_at);
/* Counts a result; of a failed one prints what was found and the line that replays it. */
void run_report(const struct options *options, const struct result *result, struct totals *totals);

/* All seeds, or all crash points of one, `jobs` processes at a time, reported in order. */
void campaign_run(const struct options *options, struct totals *totals);
/* Each seed in two processes with different heaps: their traces must agree. */
void campaign_run_twice(const struct options *options, struct totals *totals);

/* Runs a failed seed again and prints the shortened trace: nodes that come and go, faults, and the last lines that
 * concern the node whose step found it (of all when nobody's did). */
void campaign_explain(const struct options *options, const struct result *result);

#endif
