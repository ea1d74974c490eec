/* A whole cluster in a world: metads (log, root group, one namespace group each), block servers with a store each and
 * devices with a client core and a workload each; every actor is the daemons' own. Nodes that go down come back. */
#ifndef CAIRN_SIM_CLUSTER_H
#define CAIRN_SIM_CLUSTER_H

#include "check_log.h"
#include "check_raft.h"
#include "check_safe.h"
#include "late.h"
#include "metad/metad.h"
#include "plan.h"
#include "raft/raft.h"
#include "stale.h"

#define CLUSTER_GROUPS 2u

enum metad_state {
    METAD_IN_USE,
    METAD_SPARE,   /* not begun */
    METAD_JOINING, /* runs, and is being added */
    METAD_GONE,    /* removed; it goes on running, as nobody has told it to end */
    METAD_OFF,     /* removed, and does not run any more */
};

struct members;

struct cluster {
    struct world *world;
    const struct plan *plan;
    struct raft_check *raft;
    struct log_check *log;
    struct bootstrap bootstrap;
    struct workload *workload;
    struct node *metads[PLAN_METADS], *blockds[PLAN_BLOCKDS], *clients[WORKLOAD_CLIENTS];
    uint32_t log_segment_bytes, store_segment_bytes;
    uint32_t flush_entries, keep_entries, piece_bytes; /* of a group; 0: the usual */
    uint32_t cache_bytes;                              /* likewise */
    struct safe_check *safe;
    struct late late;
    struct stale stale;
    struct boots boots[PLAN_METADS]; /* what each metad's directory remembers */
    enum twice twice[WORLD_NODES];
    uint64_t away_ns[PLAN_BLOCKDS]; /* a block server's next start comes so much later */
    bool rebuild[PLAN_BLOCKDS];     /* the index is gone at the next start */
    bool disk_hurt[WORLD_NODES];    /* its disk failed or was full: it may halt */
    bool log_rotted;                /* a sector of one metad's log flipped: once a seed, two at once may take a name */
    struct node *victim;            /* the block server whose disk may corrupt bytes: one a seed */
    uint32_t metad_count;           /* with spares */
    enum metad_state metad_states[PLAN_METADS];
    uint32_t peers[PLAN_METADS][PLAN_METADS + 1]; /* metads that the configuration of each names; ends with 0 */
    char addresses[PLAN_METADS][32];
    struct raft_status before[PLAN_METADS][CLUSTER_GROUPS]; /* as the last step left it */
    uint64_t before_boot[PLAN_METADS][CLUSTER_GROUPS];
    struct node *operator; /* NULL: no spares */
    struct members *members;
    uint32_t faults; /* happened so far */
    bool calm;       /* no more of them */
};

/* Draws what the plan leaves open and starts all nodes. */
void cluster_init(struct cluster *cluster, struct world *world, const struct plan *plan);
void cluster_deinit(struct cluster *cluster);

/* Metads that the cluster should have. */
uint32_t cluster_metads_in_use(const struct cluster *cluster);
/* This one runs, or will again. */
bool cluster_metad_lives(const struct cluster *cluster, uint32_t index);

/* Plans the first fault and, from each, the next. */
void faults_begin(struct cluster *cluster);
/* All that lasts is over at once. */
void faults_heal(struct cluster *cluster);
/* The metad whose log may rot, and a flipped sector in a metad's log; it is down then. */
struct node *faults_log_victim(const struct cluster *cluster);
void faults_log_rot(struct cluster *cluster, struct node *metad);

#endif
