/* A scenario of a cluster as a small file: workload x faults x size, `scenarios/NAME.toml`, read with base/config. What
 * a file does not name has the default that stands in plan.c. README.md lists the keys. */
#ifndef CAIRN_SIM_PLAN_H
#define CAIRN_SIM_PLAN_H

#include "workload.h"

#define PLAN_METADS  9u
#define PLAN_BLOCKDS 12u
#define PLAN_POOLS   8u
#define PLAN_TEXT    256u

/* What can go wrong; one row each in faults.c. */
enum fault_kind {
    FAULT_METAD_KILL,
    FAULT_METAD_POWER,
    FAULT_BLOCKD_KILL,
    FAULT_BLOCKD_POWER,
    FAULT_CLIENT_KILL,
    FAULT_ALL_POWER,
    FAULT_CUT_NODE,
    FAULT_CUT_LEADER,
    FAULT_CUT_ONE_WAY,
    FAULT_CUT_BRIDGE,
    FAULT_SLOW_DISK,
    FAULT_HUNG_DISK,
    FAULT_FULL_DISK,
    FAULT_FAILING_DISK,
    FAULT_ROT,
    FAULT_STALE_SECTORS,
    FAULT_MISDIRECTED,
    FAULT_CLOCK_JUMP,
    FAULT_LOG_ROT,
    FAULT_BLOCKD_AWAY,
    FAULT_LATE_LEADER,
    FAULT_METAD_TWICE,
    FAULT_DATABASE_LOST,
    FAULT_STALE_COPY,
    FAULT_EMPTIED,
    FAULT_LOG_ROT_LIVE,
    FAULT_SLOW_FLUSH,
    FAULT_KINDS,
};

struct plan {
    char name[64];
    char about[PLAN_TEXT];
    /* the cluster; of ranges and lists each seed draws one */
    uint32_t metads, blockds;
    uint32_t forged_percent; /* of uploads' stages with receipts: one is not what the store gave */
    uint32_t spares;         /* metads beside them that an operator adds and takes away (members.h); 0: no operator */
    char pools[PLAN_POOLS][32];
    uint32_t pool_count;
    uint32_t chunk_bytes[8], chunk_count;
    uint32_t coded_percent; /* of the seeds code all chunks; in the others those up to 64 KiB are copies */
    uint32_t tick_ms;
    uint32_t clock_ppm;          /* clocks run faster or slower by up to this */
    uint32_t reset_ppm;          /* sends that break their connection */
    uint32_t drop_index_percent; /* of the restarts of a block server find its index gone */
    struct workload_params workload;
    /* the faults */
    uint32_t fault_count;
    uint64_t fault_min_ns, fault_max_ns;     /* from one to the next */
    uint64_t lasts_min_ns, lasts_max_ns;     /* of those that last */
    uint64_t restart_min_ns, restart_max_ns; /* of a node that went down */
    uint32_t weights[FAULT_KINDS];
    uint64_t most_ns; /* of virtual time for workload and faults; they are cut short then */
    uint64_t steps;   /* more of them is a finding */
};

/* The plan of a file: `name` is one of the folder `dir`, or a path when it has a '/'. False with the reason, PLAN_TEXT
 * bytes. */
bool plan_read(const char *dir, const char *name, struct plan *ret_plan, char *ret_text);
/* "metad_kill", ... */
const char *fault_name(enum fault_kind kind);

#endif
