/* The inside of one Raft instance, shared by the files of this folder and by nothing else.
 *
 *   raft.c       creates, dispatches an event, settles a step into its update
 *   election.c   roles, terms, pre-vote, votes, check-quorum
 *   replicate.c  append and its answers, the window per follower, commit
 *   read.c       heartbeat rounds and ReadIndex
 *   entries.c    the log: terms of all entries, bodies of the recent ones, bodies read back
 *   update.c     what a step hands to the host, and what waits for durability */
#ifndef CAIRN_RAFT_INTERNAL_H
#define CAIRN_RAFT_INTERNAL_H

#include "base/check.h"
#include "raft.h"

#define RAFT_MESSAGE_BYTES     (1u << 20)  /* entries of one append */
#define RAFT_MESSAGE_ENTRIES   256u        /* entries of one append */
#define RAFT_DELIVER_BYTES     (4u << 20)  /* committed entries of one update */
#define RAFT_DELIVER_ENTRIES   1024u       /* committed entries of one update */
#define RAFT_UNCOMMITTED_BYTES (16u << 20) /* a leader holding more answers BUSY */
#define RAFT_LOAD_ENTRIES      256u        /* entries of one load */
#define RAFT_INFLIGHT          128u        /* appends in flight per follower */
#define RAFT_READS             65536u      /* reads that wait; more are BUSY */

/* The log. Terms are known for all of 1..last; bodies for [first_cached, last] and for the window read back. */
struct raft_log {
    uint64_t last;
    uint64_t written;      /* handed to the host to persist */
    uint64_t persisted;    /* durable, <= written */
    uint64_t first_cached; /* last + 1: none */
    uint64_t cached_bytes;
    struct raft_entry *ring; /* entry `index` at index % ring_size (a power of two) */
    uint64_t ring_size;
    struct raft_term_run *runs;
    unsigned long run_count, run_capacity;
    struct raft_entry *window;
    uint64_t window_first;
    uint32_t window_count;
};

void raft_log_init(struct raft_log *log, const struct raft_term_run *runs, uint32_t run_count, uint64_t last);
void raft_log_deinit(struct raft_log *log);
/* Term of an entry, index 0..last; 0 of index 0. */
uint64_t raft_log_term(const struct raft_log *log, uint64_t index);
/* The largest index <= `index` (and <= last) whose term is <= `term`. */
uint64_t raft_log_skip(const struct raft_log *log, uint64_t index, uint64_t term);
/* Appends entry last + 1, whose term is not below the last one's. Takes a reference on its data. */
void raft_log_append(struct raft_log *log, const struct raft_entry *entry);
/* Removes entries from `from` on. */
void raft_log_cut(struct raft_log *log, uint64_t from);
/* The entry when its body is in memory, else NULL. Borrowed. */
const struct raft_entry *raft_log_find(const struct raft_log *log, uint64_t index);
/* Drops bodies of entries <= upto from the cache until it holds at most `bytes`. */
void raft_log_evict(struct raft_log *log, uint64_t upto, uint64_t bytes);
/* Replaces the window by entries read back; those that are no more part of the log are left out. */
void raft_log_window_set(struct raft_log *log, uint64_t first, const struct raft_entry *entries, uint32_t count);
void raft_log_window_drop(struct raft_log *log);

struct raft_inflight {
    uint64_t last;
    uint32_t bytes;
};

enum raft_vote { RAFT_VOTE_UNKNOWN, RAFT_VOTE_GRANTED, RAFT_VOTE_REJECTED };

/* What this node knows of one member. Everything but node and vote is the leader's. */
struct raft_peer {
    uint32_t node;
    enum raft_vote vote;
    uint64_t match, next;
    uint64_t round;  /* highest heartbeat round it acknowledged */
    uint64_t ticked; /* its match at the last heartbeat tick */
    bool probing;    /* one append at a time until one is accepted */
    bool paused;     /* probing and one is out */
    bool active;     /* answered since the last check-quorum */
    bool poke;       /* a heartbeat tick passed since the last look for lost appends */
    bool wants_load; /* the next entry is neither in the cache nor in the window */
    uint32_t inflight_head, inflight_count;
    uint64_t inflight_bytes;
    struct raft_inflight inflight[RAFT_INFLIGHT];
};

/* An update that asked for persistence, and the last entry durable once it is answered. */
struct raft_pending {
    uint64_t number, last;
};
/* A message that leaves once update `number` is durable; 0: the update of this very step. */
struct raft_held {
    uint64_t number;
    struct raft_message message;
};
struct raft_pending_read {
    uint64_t read_id;
    uint64_t index; /* 0: the no-op of the term is not committed */
    uint64_t round; /* the heartbeat round that confirms it */
};

struct raft {
    struct raft_params params;
    uint32_t self; /* position in peers */
    struct raft_peer peers[LIMIT_RAFT_MEMBERS];

    uint64_t term;
    uint32_t vote, leader;
    enum raft_role role;
    uint64_t random;
    uint32_t election_elapsed, election_timeout, heartbeat_elapsed;

    struct raft_log log;
    uint64_t commit, applied;
    uint64_t uncommitted_bytes; /* leader: bodies behind the commit index */
    uint64_t load_first;        /* a load is out when load_count > 0 */
    uint32_t load_count, load_turn;

    bool hard_changed;
    uint64_t number, persisted_number, hard_number;
    struct raft_pending *pending;
    unsigned long pending_count, pending_capacity;
    struct raft_held *held;
    unsigned long held_count, held_capacity;

    uint64_t round; /* heartbeat rounds sent so far; never reset */
    struct raft_pending_read *reads;
    unsigned long read_count, read_capacity;

    struct raft_update update; /* scalars; the arrays are below until the step ends */
    struct raft_message *out_messages;
    unsigned long out_message_count, out_message_capacity;
    struct raft_entry *out_append, *out_committed;
    unsigned long out_append_count, out_append_capacity, out_committed_count, out_committed_capacity;
    struct raft_read *out_reads;
    unsigned long out_read_count, out_read_capacity;
};

/* election.c */
void raft_election_tick(struct raft *raft);
void raft_become_follower(struct raft *raft, uint64_t term, uint32_t leader);
void raft_on_pre_vote(struct raft *raft, const struct raft_message *m);
void raft_on_pre_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
void raft_on_vote(struct raft *raft, const struct raft_message *m);
void raft_on_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
/* Counts the own vote once it is durable. */
void raft_election_persisted(struct raft *raft);
/* A live leader was heard within the election timeout (or is this node). */
bool raft_leader_is_live(const struct raft *raft);

/* replicate.c */
void raft_lead(struct raft *raft);
void raft_propose(struct raft *raft, struct slice data);
void raft_on_append(struct raft *raft, const struct raft_message *m);
void raft_on_append_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
/* Sends every follower what its window allows. */
void raft_replicate(struct raft *raft);
/* Looks for appends that were lost, on the answer to a heartbeat. */
void raft_replicate_poke(struct raft *raft, struct raft_peer *peer);
void raft_peer_closed(struct raft *raft, struct raft_peer *peer);
/* Leader: commits what a majority holds durably and is of the current term (3.6.2). */
void raft_commit_by_counting(struct raft *raft);
/* Follower: learns the leader's commit index, for entries known to match. */
void raft_commit_learn(struct raft *raft, uint64_t commit);

/* read.c */
void raft_read_request(struct raft *raft, uint64_t read_id);
void raft_read_fail_all(struct raft *raft);
void raft_read_settle(struct raft *raft);
void raft_heartbeat_round(struct raft *raft);
void raft_on_heartbeat(struct raft *raft, const struct raft_message *m);
void raft_on_heartbeat_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
bool raft_is_ready(const struct raft *raft);

/* update.c */
void raft_update_begin(struct raft *raft);
void raft_update_end(struct raft *raft, struct raft_update *ret_update);
void raft_update_deinit(struct raft *raft);
/* Queues a message; entries (borrowed, referenced) as given. `from` and `term` are filled in where zero. */
void raft_send(struct raft *raft, struct raft_message message);
/* The same once everything asked so far, this step included, is durable. Without entries. */
void raft_send_durable(struct raft *raft, struct raft_message message);
void raft_held_drop(struct raft *raft);
void raft_persisted(struct raft *raft, uint64_t number);
/* After a cut: nothing from `from` on counts as durable, even when an older append is answered later. */
void raft_persist_cut(struct raft *raft, uint64_t from);
void raft_answer_read(struct raft *raft, uint64_t read_id, uint64_t index, enum err err);

/* raft.c */
uint32_t raft_majority(const struct raft *raft);
/* The largest value that a majority of values (one a member) has reached. */
uint64_t raft_quorum(const struct raft *raft, const uint64_t *values);
uint32_t raft_random(struct raft *raft, uint32_t bound);

#endif
