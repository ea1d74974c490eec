/* Raft (Ongaro's dissertation), pure: no clock, no disk, no network, no allocation of bulk. The host feeds it one event
 * at a time and carries out the update it returns, in the order named at struct raft_update. Many instances live in a
 * process.
 *
 * What is here: leader election with pre-vote (9.6) and check-quorum (6.2), log replication with batching and a window
 * per follower (10.2), a no-op at the start of each term, commit only of entries of the current term by counting
 * (3.6.2), ReadIndex (6.4). Time is counted in ticks that the host gives; randomness comes with each event. */
#ifndef CAIRN_RAFT_RAFT_H
#define CAIRN_RAFT_RAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/slice.h"

struct raft;

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };
enum raft_entry_type { RAFT_ENTRY_BOOT = 1, RAFT_ENTRY_NOOP = 2, RAFT_ENTRY_COMMANDS = 3 };

struct raft_entry {
    uint64_t index, term;
    uint8_t type; /* enum raft_entry_type */
    struct slice data;
};

enum raft_message_kind {
    RAFT_PRE_VOTE = 1,
    RAFT_PRE_VOTE_REPLY,
    RAFT_VOTE,
    RAFT_VOTE_REPLY,
    RAFT_APPEND,
    RAFT_APPEND_REPLY,
    RAFT_HEARTBEAT,
    RAFT_HEARTBEAT_REPLY,
};
struct raft_message {
    uint8_t kind;
    uint32_t from, to; /* node numbers */
    uint64_t term;
    uint64_t log_index, log_term; /* APPEND: previous entry; VOTE: last entry; APPEND_REPLY: last index that matches */
    uint64_t commit;
    uint64_t context; /* HEARTBEAT and its reply: number of the heartbeat round, for ReadIndex */
    bool reject;
    uint64_t hint,
        hint_term; /* rejected APPEND (log_index: the previous entry it named): where the follower's log may match */
    struct raft_entry *entries;
    uint32_t count;
};

struct raft_hard_state {
    uint64_t term;
    uint32_t vote; /* 0 none */
};

struct raft_params {
    uint32_t group, self;
    uint32_t members[LIMIT_RAFT_MEMBERS];
    uint32_t member_count;
    uint32_t election_ticks;  /* e.g. 10: an election timeout is uniform in [election, 2 * election) */
    uint32_t heartbeat_ticks; /* e.g. 1 */
    uint32_t window_entries;  /* appends in flight per follower */
    uint32_t window_bytes;
    uint64_t cache_bytes; /* entries kept in memory behind the commit index for followers that lag */
};

/* Terms of the log as the host found it on disk, run-length: entries from `first` on have `term`. */
struct raft_term_run {
    uint64_t first, term;
};

/* Makes an instance from what is durable: hard state and entries 1..last (their terms as runs), all of which the host
 * can read back. `applied` <= last: what the machine holds already; those entries are not delivered again, and are
 * committed. */
struct raft *raft_create(const struct raft_params *params, struct raft_hard_state hard,
                         const struct raft_term_run *runs, uint32_t run_count, uint64_t last_index, uint64_t applied,
                         uint64_t random);
void raft_destroy(struct raft *raft);

enum raft_event_kind {
    RAFT_EVENT_TICK,        /* one tick passed */
    RAFT_EVENT_MESSAGE,     /* from a peer; the host has checked group, cluster and membership */
    RAFT_EVENT_PROPOSE,     /* one entry's data (borrowed; it takes a ref). Update says its index, or NOT_LEADER, BUSY,
                               TOO_LARGE */
    RAFT_EVENT_READ,        /* a ReadIndex under `read_id` (never reused by the host) */
    RAFT_EVENT_PERSISTED,   /* everything asked by updates up to number `persisted` is on stable storage */
    RAFT_EVENT_LOADED,      /* entries the update asked to load, in order, from `load_first` */
    RAFT_EVENT_PEER_CLOSED, /* the connection to `peer` broke: what was in flight may be lost */
    RAFT_EVENT_CONTINUE,    /* nothing happened: the host asks for the rest after an update that said `more` */
};
struct raft_event {
    enum raft_event_kind kind;
    uint64_t random;
    const struct raft_message *message;
    struct slice data;
    uint64_t read_id;
    uint64_t persisted;
    const struct raft_entry *loaded;
    uint32_t loaded_count;
    uint64_t load_first;
    uint32_t peer;
};

struct raft_read {
    uint64_t read_id;
    uint64_t index;
    enum err err; /* OK: answer once applied >= index; NOT_LEADER */
};

/* Delivered entries are durable here as well as committed: what a machine holds is never ahead of its own log.
 *
 * What the host must do, in this order: persist hard state and entries together under `number` (one append, one fsync;
 * tell PERSISTED afterwards); send `messages` at once (raft itself holds back the ones that need persistence until
 * PERSISTED); apply `committed` in order; answer reads; load what is asked. Everything is borrowed until the next
 * raft_step. */
struct raft_update {
    uint64_t number; /* 0: nothing to persist */
    bool hard_changed;
    struct raft_hard_state hard;
    const struct raft_entry *append;
    uint32_t append_count; /* append[0].index <= last: cuts what is there from that index */
    const struct raft_message *messages;
    uint32_t message_count;
    const struct raft_entry *committed;
    uint32_t committed_count;
    const struct raft_read *reads;
    uint32_t read_count;
    uint64_t load_first;
    uint32_t load_count; /* entries to read back from the log; 0 none. One load is out at a time */
    enum err propose_err;
    uint64_t propose_index, propose_term;
    bool role_changed; /* role, term or the known leader is another than after the last step */
    bool more;         /* committed entries are left over: step RAFT_EVENT_CONTINUE once these are applied */
};

void raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *ret_update);

/* Present state, for status and tests. */
struct raft_status {
    enum raft_role role;
    uint64_t term, last, commit, applied; /* applied: delivered in `committed` */
    uint32_t leader;                      /* 0 unknown */
    uint32_t vote;
    bool ready;                             /* leader whose no-op is committed: reads and membership may go */
    uint64_t match[LIMIT_RAFT_MEMBERS];     /* leader: per member, in params order */
    uint32_t in_flight[LIMIT_RAFT_MEMBERS]; /* leader: appends sent to it and not answered */
};
struct raft_status raft_status(const struct raft *raft);

#endif
