/* Inside of repair, shared by repair.c (passes and lists) and repair_task.c (one shard from its pulls to the disk).
 *
 * Repair belongs to its store's actor and runs in timer events of its own (STORE_TIMER_REPAIR): answers only note what
 * came and wake it. So it sees the index as of the step before, like a put that arrives.
 *
 * States of a pass: idle -(due)-> a scope at a time -> idle, due again when something was missing
 * Of a scope:       one placement group, or one shard that was found rotten. Pages of each source are merged by key;
 *                   each chunk and code of which this store's shard lacks becomes a task; it ends when lists and tasks
 *                   have
 * Of a task:        pulling -> rebuilding -> storing -> (one more hold) storing -> stored
 *                   pulling -> storing, when a stand-in has the very shard
 *                   any of them -> missing (another pass will do), refused (its sources contradict each other) */
#ifndef CAIRN_BLOCKD_REPAIR_H
#define CAIRN_BLOCKD_REPAIR_H

#include "base/limits.h"
#include "store.h"

#define REPAIR_SOURCES_MAX 32u
#define REPAIR_TASKS_MAX   4u /* each with k shards at most: one chunk's bytes */
#define REPAIR_PAGE_ROWS   1024u
#define REPAIR_GROUPS_MAX  256u /* chunks looked at in one step */
#define REPAIR_ROT_MAX     64u  /* rotten shards remembered; more make a whole pass due */
#define REPAIR_HOLDERS_MAX INDEX_HOLDERS_MAX
#define REPAIR_REQUEST_NS  (10ull * 1000000000)
#define REPAIR_RETRY_NS    (30ull * 1000000000)
#define REPAIR_DELAY_NS    (1ull * 1000000000) /* of a pass behind a new map: maps come in bursts */

/* Another store of the placement group. */
struct repair_source {
    struct address address;
    bool failed;                  /* did not answer: nothing more is asked of it in this scope */
    bool ended;                   /* its list has been asked to the end */
    uint64_t stream, deadline_ns; /* of the STORE_LIST under way; 0: none */
    struct slice page;
    uint32_t at; /* the next row's offset in the page */
    uint8_t next[SHARD_KEY_BYTES];
};

struct repair_pull {
    uint64_t stream, deadline_ns; /* under way; 0: none */
    uint32_t source;
    struct slice shard; /* here and checked */
};

enum repair_task_state { TASK_FREE, TASK_PULLING, TASK_REBUILDING, TASK_STORING };

struct repair_task {
    enum repair_task_state state;
    uint64_t id;
    struct shard_key key;        /* of the shard that lacks */
    uint32_t from[LIMIT_SHARDS]; /* by index: bit set of the sources that have it */
    struct repair_pull pulls[LIMIT_SHARDS];
    uint32_t sealed_bytes, plain_bytes;
    struct slice checks; /* as all pulls agree */
    struct hold *holds;  /* ascending by namespace: the maximum over the pulls */
    unsigned long hold_count, hold_capacity;
    struct slice shard; /* rebuilt, or pulled as it is */
    bool woken;         /* to be looked at */
    enum err err;       /* of what was waited for */
};

struct repair_scope {
    bool active;
    bool only; /* one chunk and code: that of `key` */
    struct shard_key key;
    uint32_t k, m, bits, pg; /* of the pool */
    unsigned slot;           /* the index this store is to have */
    struct repair_source sources[REPAIR_SOURCES_MAX];
    uint32_t source_count;
};

struct repair {
    bool running, woken;
    uint64_t due_ns; /* the next pass; 0: none */
    uint64_t map_epoch, incarnation;
    uint32_t store; /* as which the last pass was started */
    size_t pool;    /* where the pass stands: in the map's pools, and in its groups */
    uint32_t pg;
    bool whole; /* the pass goes over all groups; else over rotten shards only */
    bool whole_due;
    bool owed;    /* a put was refused by the disk: what others took lacks here */
    bool stopped; /* nothing can be stored now: the pass ends early */
    struct repair_scope scope;
    struct repair_task tasks[REPAIR_TASKS_MAX];
    uint64_t streams, task_ids;
    struct shard_key rot[REPAIR_ROT_MAX];
    uint32_t rot_count;
    uint64_t missing; /* of this pass */
    struct store_repair done;
};

/* repair_task.c */
/* Starts rebuilding; `from` as in the task. There is a free one. */
void repair_task_start(struct store *store, const struct shard_key *key, const uint32_t *from);
uint32_t repair_task_count(const struct repair *repair);
void repair_task_step(struct store *store, struct repair_task *task, uint64_t now_ns, struct effects *fx);
/* The answer to a SHARD_PULL; false when no task waits for it. */
bool repair_task_answered(struct store *store, const struct message *message);
/* Gives up what waits for this source. */
void repair_task_source_failed(struct repair *repair, uint32_t source);
void repair_task_free(struct repair_task *task);

#endif
