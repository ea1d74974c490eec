/* A metad whose directory goes back, log and database, to what a backup copied at an earlier moment while the node was
 * down, or to nothing (R-E3). One node at a time, until it is a voter again that holds what is committed: between, no
 * other directory is touched.
 *
 * What identity.c names as not recognised is kept out: before the node goes down, and again before its directory is put
 * back, all the others have been up and connected for a while, so that they heard how far it was; and until the leader
 * has taken its vote, nobody loses what it heard with its process (stale_shelters). What it acknowledged is durable
 * with the leader that counted it, too, before it is put back: else its loss loses what is committed.
 *
 * Often (COUNTEREXAMPLES E3) one of the others hears nothing for a while, and the rest commits without it. Then the one
 * that goes back meets it alone: the two lack what was acknowledged, and must not be a majority. Who hears nothing may
 * crash meanwhile, if its log holds what it had heard.
 *
 * Or the one that goes back had one process more, that the leader of a group never heard: it reached only the others,
 * as it does when it comes back with its old directory. Then the leader has to take their word. What that process heard
 * and promised was nothing of a majority, as long as all have the leader that they had. */
#ifndef CAIRN_SIM_STALE_H
#define CAIRN_SIM_STALE_H

#include "base/limits.h"
#include "check_log.h"
#include "plan.h"

struct cluster;

enum stale_phase {
    STALE_NONE,
    STALE_AHEAD,   /* one of the others hears nothing, and the rest goes on without it */
    STALE_DOWN,    /* it is down, its directory what it was */
    STALE_APART,   /* it runs once more before it goes back, and does not reach a leader */
    STALE_BACK,    /* put back, and it may be counted by who does not know yet */
    STALE_LEARNER, /* it has no vote, or never lacked anything */
};

/* Of a directory: the processes it had. */
struct boots {
    uint64_t list[LIMIT_LOG_BOOTS];
    uint32_t count;
};

struct stale_backup {
    struct disk_copy *disk; /* NULL: none was taken */
    struct sim_kv_copy *kv;
    struct log_copy *log; /* what the checker knew of it */
    uint8_t directory;
    struct boots boots;
};

struct stale {
    enum stale_phase phase;
    struct node *node;
    bool emptied;                   /* else an older copy */
    uint32_t well;                  /* looks in a row at which the others were up and connected */
    uint64_t heard[PLAN_METADS][2]; /* last entry of each, by group, so long before the fault that all heard of it */
    struct node *behind;            /* who hears nothing; NULL: all do */
    uint64_t behind_last[2];        /* its last entry, by group */
    uint64_t ahead_until_ns;
    uint64_t counted[PLAN_METADS][2]; /* the last entry of who led the group when the node went down; 0: did not lead */
    uint32_t down_looks;
    bool apart_due;                /* it is to run once more */
    struct node *apart_from;       /* whom it does not reach then, nor when it comes back; NULL: it reaches all */
    struct node *apart_leaders[2]; /* who led each group when it began to, and in which term */
    uint64_t apart_terms[2], apart_until_ns;
    uint8_t directories[PLAN_METADS]; /* an emptied directory is another one */
    struct stale_backup backups[PLAN_METADS];
    uint32_t put_back, emptied_count, ahead_count, apart_count;
};

void stale_begin(struct cluster *c);
void stale_deinit(struct cluster *c);
/* The fault; false where none can be now. */
bool stale_hurt(struct cluster *c, struct node *metad, bool emptied);
/* A node went down: a backup may copy it. */
void stale_down(struct cluster *c, struct node *node);
/* Its directory is about to be another one: nobody starts it. */
bool stale_holds(const struct cluster *c, const struct node *node);
/* No metad may lose its process now. */
bool stale_shelters(const struct cluster *c);
/* No fault any more: who is down with its directory as it was starts. */
void stale_heal(struct cluster *c);
/* How each group stands on each metad, for who reads a finding. */
void stale_note(struct cluster *c);
/* Nobody is hurt: all are voters again. */
bool stale_is_over(struct cluster *c);

#endif
