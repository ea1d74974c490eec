/* A whole cluster in a world: metads (log, root group, one namespace group each), block servers with a store each and
 * devices with a client core and a workload each; every actor is the daemons' own. Nodes that go down come back. */
#ifndef CAIRN_SIM_CLUSTER_H
#define CAIRN_SIM_CLUSTER_H

#include "check_log.h"
#include "check_raft.h"
#include "metad/metad.h"
#include "plan.h"

#define CLUSTER_GROUPS 2u

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
    bool rebuild[PLAN_BLOCKDS];                        /* the index is gone at the next start */
    bool disk_hurt[WORLD_NODES];                       /* its disk failed or was full: it may halt */
    bool log_rotted;     /* a sector of one metad's log flipped: once a seed, two at once may take a name */
    struct node *victim; /* the block server whose disk may corrupt bytes: one a seed */
    uint32_t faults;     /* happened so far */
    bool calm;           /* no more of them */
};

/* Draws what the plan leaves open and starts all nodes. */
void cluster_init(struct cluster *cluster, struct world *world, const struct plan *plan);
void cluster_deinit(struct cluster *cluster);

/* Plans the first fault and, from each, the next. */
void faults_begin(struct cluster *cluster);
/* All that lasts is over at once. */
void faults_heal(struct cluster *cluster);
/* The metad whose log may rot, and a flipped sector in a metad's log; it is down then. */
struct node *faults_log_victim(const struct cluster *cluster);
void faults_log_rot(struct cluster *cluster, struct node *metad);

#endif
