/* The metadata node's cores: a group actor (Raft with its machine) over the shared log and the node's key-value store.
 * See metad/README.md for the way of a request. */
#ifndef CAIRN_METAD_METAD_H
#define CAIRN_METAD_METAD_H

#include "base/effect.h"
#include "base/ids.h"
#include "base/kv.h"
#include "raft/raft.h"

/* What `dev up` or `cluster init` writes into each metad's directory and what entry 1 of each group repeats (R-F9). */
struct bootstrap {
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    uint32_t members[LIMIT_RAFT_MEMBERS];
    uint32_t member_count;
    uint8_t random[32];
    char workspace[64];   /* made at the start */
    char pool[32];        /* rs-K-M or rep-N */
    uint32_t stores;      /* the first placement waits for so many */
    uint32_t chunk_bytes; /* largest chunk, LIMIT_CHUNK_BYTES; less in simulation. Smallest 1/16, mean 1/4 of it */
    uint32_t copy_bytes;  /* chunks up to this are kept as copies (R-F2); 0: LIMIT_COPY_CHUNK_BYTES */
    uint32_t pg_bits;
    uint32_t device;      /* root user's first device */
    struct sha256 bearer; /* SHA-256 of its public key (DER SubjectPublicKeyInfo) */
    /* The authority: its key wrapped by the cluster key, its certificate. 0 bytes: certificates are made elsewhere. */
    uint8_t authority_sealed[LIMIT_AUTHORITY_BYTES], authority[LIMIT_AUTHORITY_BYTES];
    uint32_t authority_sealed_bytes, authority_bytes;
};

/* What the node counts beside its groups; kept by the shell, one a loop, on that loop. */
struct node_counters {
    uint64_t refused[ERR_LIMIT]; /* before any group saw it, by reason */
    uint64_t log_syncs, log_entries;
};

struct group_params {
    uint32_t group;        /* 0: root */
    uint32_t self;         /* this node */
    struct uuid directory; /* of this node's data */
    const uint64_t *boots; /* numbers of the last processes that this directory had, in order, and of this one (random),
                              durable before anything is said; borrowed, outlives the group; at most LIMIT_LOG_BOOTS */
    uint32_t boot_count;   /* 0: nothing is known, not even this one's; 1: none is remembered before this one */
    const struct bootstrap *bootstrap; /* borrowed, outlives the group */
    uint8_t cluster_key[32];
    struct kv_view *kv;                   /* the node's database, borrowed */
    uint32_t group_count;                 /* groups on this node: 0 .. count-1 */
    uint64_t tick_ns;                     /* Raft tick, e.g. 50 ms */
    uint32_t flush_entries;               /* applied since the last flush, the next one is due; 0: the usual */
    uint32_t keep_entries;                /* behind a flush that stay in the log for followers that lag; 0: the usual */
    uint32_t piece_bytes;                 /* of a snapshot; 0: the usual */
    uint32_t cache_bytes;                 /* of entries kept in memory behind the commit index; 0: the usual */
    const struct node_counters *counters; /* borrowed, outlives the group; NULL: none */
    const char *address;                  /* where others reach this node, borrowed; NULL: it does not say */
    bool recovering;                      /* does not run: GROUP_RECOVER may come (recover.c) */
    const uint32_t *peers;                /* metadata nodes that the configuration names, borrowed; ends with 0. A node
                                             that knows no members yet hears them only. NULL: none */
};

struct group;
struct group *group_create(const struct group_params *params);
void group_destroy(struct group *group);
actor_step group_step;
struct raft_status group_status(const struct group *group);
/* How the group's log is on this node (R-E1). */
struct group_health {
    bool unsure;          /* what it promised is lost: it takes no part */
    uint64_t holes, hole; /* damaged entries that another member must give, and the first of them */
    uint64_t mended;      /* since the start */
    uint64_t rot_behind;  /* damaged, and needed by nobody */
    bool lost;            /* the database holds less than the log begins behind: a snapshot is fetched (R-E5) */
    uint64_t restored;    /* state that was lost and came back as a snapshot, since the start: its index; 0 none */
    bool told_stale;      /* another member says that this node came back with less than it had acknowledged */
    uint32_t stale;       /* a member of which this node says so, 0 none */
    uint64_t term;
    uint32_t leader; /* of the term, 0 unknown */
    /* After the start: mutations of the log that the database did not hold, and the time from the first of them to the
     * last. 0 until all are applied. */
    uint64_t reapplied, reapply_ns;
};
struct group_health group_health(const struct group *group);
/* The newest map this group knows, packed (borrowed until the next step; empty: none yet), and its epoch. */
struct slice group_map(const struct group *group, uint64_t *ret_epoch);
/* A server that spoke since the last call and that the map here does not have, and where it says it is reached: the
 * interpreter learns it, so that it can be answered. The address is the group's until the next step. */
bool group_speaker(struct group *group, uint32_t *ret_node, const char **ret_address);
/* After GROUP_DRAIN: it leads no more, or nobody can take over. */
bool group_is_drained(const struct group *group);

/* Of a group made with `recovering`: what it holds, once it was looked at. */
struct group_recovery {
    bool looked, done;         /* done: GROUP_RECOVER is durable */
    const char *wrong;         /* why it cannot be recovered here; NULL: it can */
    uint64_t last, term;       /* the log's last entry */
    uint64_t applied;          /* known to be committed, at least */
    struct raft_config config; /* the newest of the log */
};
const struct group_recovery *group_recovery(const struct group *group);

#endif
