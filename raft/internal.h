/* The inside of one Raft instance, shared by the files of this folder and by nothing else.
 *
 *   raft.c       creates, dispatches an event, settles a step into its update
 *   election.c   roles, terms, pre-vote, votes, check-quorum
 *   replicate.c  append and its answers, the window per follower, commit
 *   read.c       heartbeat rounds and ReadIndex
 *   config.c     configurations: packed form, the list of the log's, majorities
 *   member.c     changes of members (4), transfer of leadership (3.10)
 *   snapshot.c   the log's beginning moves: cut here, a snapshot for a follower, a snapshot installed (5)
 *   entries.c    the log: terms of all entries, bodies of the recent ones, bodies read back
 *   heal.c       damaged entries: votes go on, leading and acknowledging wait
 *   sleep.c      idle groups that count no ticks
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
#define RAFT_LOAD_ENTRIES      65536u      /* entries asked of one load; the host gives what it may of them */
#define RAFT_INFLIGHT          128u        /* appends in flight per follower */
#define RAFT_READS             65536u      /* reads that wait; more are BUSY */
#define RAFT_CAUGHT_UP         256u        /* a learner so few entries behind the commit index may become a voter */
#define RAFT_NOBODY            UINT32_MAX

/* The log: entries base + 1 .. last. Terms are known for all of them and for the base; bodies for [first_cached, last]
 * and for the window read back. */
struct raft_log {
    uint64_t base, base_term; /* what it begins behind: 0, 0 or an entry that a snapshot holds */
    uint64_t last;
    uint64_t written;                   /* handed to the host to persist */
    uint64_t durable;                   /* by name, <= written */
    uint64_t hole;                      /* first entry whose bytes are damaged, 0 none */
    uint64_t persisted;                 /* durable and below the hole */
    uint64_t rotten_first, rotten_last; /* applied entries among which some cannot be read back; 0 none */
    uint64_t first_cached;              /* last + 1: none */
    uint64_t cached_bytes;
    struct raft_entry *ring; /* entry `index` at index % ring_size (a power of two) */
    uint64_t ring_size;
    struct raft_term_run *runs;
    unsigned long run_count, run_capacity;
    struct raft_entry *window;
    uint64_t window_first;
    uint32_t window_count;
};

void raft_log_init(struct raft_log *log, const struct raft_start *start);
void raft_log_deinit(struct raft_log *log);
/* Term of an entry, index base..last; 0 of index 0. */
uint64_t raft_log_term(const struct raft_log *log, uint64_t index);
/* The largest index <= `index` (and <= last) whose term is <= `term`; anything below base when it lies there. */
uint64_t raft_log_skip(const struct raft_log *log, uint64_t index, uint64_t term);
/* Appends entry last + 1, whose term is not below the last one's. Takes a reference on its data. */
void raft_log_append(struct raft_log *log, const struct raft_entry *entry);
/* Removes entries from `from` on. */
void raft_log_cut(struct raft_log *log, uint64_t from);
/* Entries up to `index` are durable by name; 0: no more than known. */
void raft_log_durable(struct raft_log *log, uint64_t index);
/* Forgets entries up to `index`, persisted: the log begins behind it. */
void raft_log_compact(struct raft_log *log, uint64_t index);
/* Drops all; the log is empty behind (index, term). */
void raft_log_reset(struct raft_log *log, uint64_t index, uint64_t term);
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

/* What this node knows of one member. Everything but node, roles and vote is the leader's. */
struct raft_peer {
    uint32_t node;
    uint8_t roles; /* enum raft_member_role */
    enum raft_vote vote;
    uint64_t match, next;
    uint64_t round;        /* highest heartbeat round it acknowledged */
    uint64_t ticked;       /* its match at the last heartbeat tick */
    bool probing;          /* one append at a time until one is accepted */
    bool paused;           /* probing and one is out */
    bool active;           /* answered since the last check-quorum */
    uint32_t silent_ticks; /* since its last answer; above an election timeout it counts as silent */
    bool asleep;           /* said so, in answer to a heartbeat */
    bool poke;             /* a heartbeat tick passed since the last look for lost appends */
    bool wants_load;       /* the next entry is neither in the cache nor in the window */
    bool snapshotting;     /* the host brings it a snapshot: no appends meanwhile */
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
    uint32_t self; /* position in peers; RAFT_NOBODY: not a member */
    struct raft_peer peers[RAFT_MEMBERS_MAX];
    uint32_t peer_count;
    struct raft_config_at
        *configs; /* ascending; [0] is committed, the last one is in force; the peers are its members */
    unsigned long config_count, config_capacity;
    uint64_t removed_at; /* a committed configuration leaves this node out: it asks for no votes before one behind it */

    uint64_t term;
    uint32_t vote, leader;
    enum raft_role role;
    uint64_t random;
    uint32_t election_elapsed, election_timeout, heartbeat_elapsed;
    uint32_t idle_ticks; /* leader */
    bool asleep;
    uint32_t transfer, transfer_elapsed; /* leader: whom it hands over to, 0 nobody */
    bool transfer_told;

    struct raft_log log;
    uint64_t commit, applied;
    bool lost;                  /* the machine holds nothing yet: applied is the log's base all the same */
    uint64_t uncommitted_bytes; /* leader: bodies behind the commit index */
    uint64_t load_first;        /* a load is out when load_count > 0 */
    uint32_t load_count, load_turn;

    bool hard_changed, reset;
    uint64_t number, persisted_number, hard_number;
    uint64_t install_number; /* by which the log itself has what the last installed snapshot holds */
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
    uint32_t out_snapshots[RAFT_MEMBERS_MAX];
    uint32_t out_snapshot_count;
};

/* config.c */
const struct raft_config_at *raft_config(const struct raft *raft);
/* A configuration that names nobody twice and gives each a sensible role. */
bool raft_config_is_sound(const struct raft_config *config);
/* Puts a configuration in force at `index`, behind all others. */
void raft_config_push(struct raft *raft, uint64_t index, const struct raft_config *config);
/* The log is cut from `from` on: configurations there are rolled back. */
void raft_config_cut(struct raft *raft, uint64_t from);
/* A configuration known only now, at an index of the log. */
void raft_config_insert(struct raft *raft, uint64_t index, const struct raft_config *config);
/* A snapshot at `index`: what it holds replaces the configurations up to there, all of them when the log is reset. */
void raft_config_install(struct raft *raft, uint64_t index, const struct raft_config_at *config, bool reset);
/* Forgets configurations older than the newest committed one. */
void raft_config_committed(struct raft *raft);
/* The newest committed configuration leaves this node out: its index; else 0. */
uint64_t raft_config_leaves_out(const struct raft *raft, uint32_t node);
static inline bool raft_peer_votes(const struct raft_peer *peer)
{
    return (peer->roles & (RAFT_VOTER | RAFT_OUTGOING)) != 0;
}
/* Leader: it answered within an election timeout. */
static inline bool raft_peer_answers(const struct raft *raft, const struct raft_peer *peer)
{
    return peer->silent_ticks <= raft->params.election_ticks;
}
/* This node has a vote in the configuration in force. */
bool raft_self_votes(const struct raft *raft);
/* It has one there or in an earlier one that may still be what the group goes by: until the newer one is known to be
 * committed this node's log may be the only one that can win (4.2.2). */
bool raft_self_may_lead(const struct raft *raft);
/* The member, other than this node; NULL. */
struct raft_peer *raft_peer_find(struct raft *raft, uint32_t node);
/* The largest value that a majority of voters has reached; while joint the smaller of both majorities' (4.3). Values
 * are one a member. */
uint64_t raft_quorum(const struct raft *raft, const uint64_t *values);
/* A majority of either half has a value of 1: nothing can be decided against them. */
bool raft_quorum_is_blocked(const struct raft *raft, const uint64_t *values);

/* member.c */
void raft_config_request(struct raft *raft, const struct raft_config *target);
void raft_transfer_request(struct raft *raft, uint32_t node);
void raft_transfer_tick(struct raft *raft);
/* Leader, at the end of a step: leaves a joint configuration, promotes learners, resigns, hands over. */
void raft_member_settle(struct raft *raft);

/* heal.c */
void raft_healed(struct raft *raft, const struct raft_event *event);
void raft_trimmed(struct raft *raft, uint64_t index);
void raft_rotten(struct raft *raft, uint64_t index, uint64_t term);
/* Whole: this node could send every entry, and has a machine that could speak for the group. */
static inline bool raft_is_whole(const struct raft *raft)
{
    return raft->log.hole == 0 && !raft->lost;
}
/* The last entry that may be acknowledged up to `match`. */
uint64_t raft_match_sound(const struct raft *raft, uint64_t match);

/* snapshot.c */
void raft_compacted(struct raft *raft, uint64_t index);
void raft_installed(struct raft *raft, const struct raft_event *event);
void raft_snapshot_done(struct raft *raft, struct raft_peer *peer, bool ok, uint64_t index);
/* The peer's next entry is behind the log's beginning: asks the host, once. True when so. */
bool raft_snapshot_wanted(struct raft *raft, struct raft_peer *peer);

/* election.c */
void raft_election_tick(struct raft *raft);
void raft_become_follower(struct raft *raft, uint64_t term, uint32_t leader);
void raft_on_pre_vote(struct raft *raft, const struct raft_message *m);
void raft_on_pre_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
void raft_on_vote(struct raft *raft, const struct raft_message *m);
void raft_on_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
void raft_on_timeout_now(struct raft *raft, const struct raft_message *m);
/* Counts the own vote once it is durable. */
void raft_election_persisted(struct raft *raft);
/* A live leader was heard within the election timeout (or is this node). */
bool raft_leader_is_live(const struct raft *raft);
/* Follower: the connection with its leader closed. */
void raft_leader_closed(struct raft *raft);

/* replicate.c */
void raft_lead(struct raft *raft);
void raft_propose(struct raft *raft, struct slice data);
/* Appends an entry to a leader's log. */
void raft_lead_append(struct raft *raft, uint8_t type, struct slice data);
/* Follows the peer anew from entry `next` on, one append at a time. */
void raft_peer_probe(struct raft_peer *peer, uint64_t next);
/* Commits up to `commit`, above the commit index. */
void raft_commit_to(struct raft *raft, uint64_t commit);
void raft_on_append(struct raft *raft, const struct raft_message *m);
void raft_on_append_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
/* Sends every follower what its window allows. */
void raft_replicate(struct raft *raft);
/* Looks for appends that were lost, on the answer to a heartbeat. */
void raft_replicate_poke(struct raft *raft, struct raft_peer *peer);
void raft_peer_forgot(struct raft *raft, struct raft_peer *peer);
void raft_peer_closed(struct raft *raft, struct raft_peer *peer);
/* Leader: commits what a majority holds durably and is of the current term (3.6.2). */
void raft_commit_by_counting(struct raft *raft);
/* Follower: learns the leader's commit index, for entries known to match. */
void raft_commit_learn(struct raft *raft, uint64_t commit);
/* The entry of this name is committed, if the log holds it; a leader counts for itself. */
void raft_commit_told(struct raft *raft, uint64_t index, uint64_t term);

/* read.c */
void raft_read_request(struct raft *raft, uint64_t read_id);
void raft_read_fail_all(struct raft *raft);
void raft_read_settle(struct raft *raft);
void raft_heartbeat_round(struct raft *raft);
void raft_on_heartbeat(struct raft *raft, const struct raft_message *m);
void raft_on_heartbeat_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer);
bool raft_is_ready(const struct raft *raft);

/* sleep.c */
void raft_wake(struct raft *raft);
bool raft_event_wakes(const struct raft_event *event);
/* Leader: idle long enough to say so in heartbeats. */
bool raft_wants_sleep(const struct raft *raft);
/* A tick passed awake. */
void raft_sleep_tick(struct raft *raft);
/* Follower: takes a heartbeat's word; true when it sleeps. */
bool raft_sleep_follow(struct raft *raft, const struct raft_message *m);
/* Leader: a follower sleeps, or does not. */
void raft_sleep_answered(struct raft *raft, struct raft_peer *peer, bool asleep);

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
uint32_t raft_random(struct raft *raft, uint32_t bound);

#endif
