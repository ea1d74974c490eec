/* Raft (Ongaro's dissertation), pure: no clock, no disk, no network, no allocation of bulk. The host feeds it one event
 * at a time and carries out the update it returns, in the order named at struct raft_update. Many instances live in a
 * process.
 *
 * What is here: leader election with pre-vote (9.6) and check-quorum (6.2), log replication with batching and a window
 * per follower (10.2), a no-op at the start of each term, commit only of entries of the current term by counting
 * (3.6.2), ReadIndex (6.4), membership by joint consensus with learners (4), transfer of leadership (3.10), a log that
 * is cut behind snapshots (5). Time is counted in ticks that the host gives; randomness comes with each event. */
#ifndef CAIRN_RAFT_RAFT_H
#define CAIRN_RAFT_RAFT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/slice.h"

struct raft;

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };
enum raft_entry_type {
    RAFT_ENTRY_BOOT = 1,
    RAFT_ENTRY_NOOP = 2,
    RAFT_ENTRY_COMMANDS = 3,
    RAFT_ENTRY_CONFIG = 4, /* data: a packed raft_config, effective where it is appended (4.1) */
};

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
    RAFT_TIMEOUT_NOW, /* the leader asks this voter to take over (3.10) */
};
struct raft_message {
    uint8_t kind;
    uint32_t from, to; /* node numbers */
    uint64_t term;
    uint64_t log_index, log_term; /* APPEND: previous entry; VOTE: last entry; APPEND_REPLY: last index that matches */
    uint64_t commit;
    uint64_t context; /* HEARTBEAT and its reply: number of the heartbeat round, for ReadIndex. VOTE: 1 when the leader
                         asked for it */
    bool reject;
    bool sleep; /* HEARTBEAT: nothing is to be done, sleep; its reply: asleep (sleep.c) */
    uint64_t hint,
        hint_term; /* rejected APPEND (log_index: the previous entry it named): where the follower's log may match.
                      rejected PRE_VOTE: index of the newest committed configuration when it leaves the asker out */
    struct raft_entry *entries;
    uint32_t count;
};

struct raft_hard_state {
    uint64_t term;
    uint32_t vote; /* 0 none */
};

/* The members of a group. A voter counts for commits, elections and reads; in a joint configuration (any RAFT_OUTGOING)
 * the voters coming and the voters going count as two groups, and both majorities are needed. A learner receives
 * everything and counts nowhere. */
enum raft_member_role {
    RAFT_VOTER = 1,
    RAFT_OUTGOING = 2, /* a voter of the configuration that a joint one leaves */
    RAFT_LEARNER = 4,
    RAFT_PROMOTE = 8, /* a learner that the leader makes a voter once it is caught up */
};
#define RAFT_MEMBERS_MAX (2 * LIMIT_RAFT_MEMBERS)
struct raft_member {
    uint32_t node;
    uint8_t
        roles; /* enum raft_member_role: VOTER, OUTGOING, VOTER|OUTGOING, LEARNER, LEARNER|PROMOTE, LEARNER|OUTGOING */
};
struct raft_config {
    struct raft_member members[RAFT_MEMBERS_MAX]; /* ascending by node */
    uint32_t count;                               /* 0: this node was not told yet, and waits for a leader */
};
struct raft_config_at {
    uint64_t index; /* of the entry that holds it; 0: the one the group began with */
    struct raft_config config;
};
/* The data of a CONFIG entry: u8 count, then u32 node, u8 roles each. A new slice. */
struct slice raft_config_encode(const struct raft_config *config);
/* BAD_PROTO unless it is a well-formed configuration with at least one voter. */
MUST_CHECK enum err raft_config_decode(struct slice data, struct raft_config *ret_config);
/* Roles of a node, 0 when it is no member. */
uint8_t raft_config_roles(const struct raft_config *config, uint32_t node);
bool raft_config_is_joint(const struct raft_config *config);

struct raft_params {
    uint32_t group, self;
    uint32_t election_ticks;  /* e.g. 10: an election timeout is uniform in [election, 2 * election) */
    uint32_t heartbeat_ticks; /* e.g. 1 */
    uint32_t sleep_ticks;     /* a leader idle for so long puts its group to sleep; 0: never */
    uint32_t window_entries;  /* appends in flight per follower */
    uint32_t window_bytes;
    uint64_t cache_bytes; /* entries kept in memory behind the commit index for followers that lag */
};

/* Terms of the log as the host found it on disk, run-length: entries from `first` on have `term`. */
struct raft_term_run {
    uint64_t first, term;
};

/* What is durable when an instance is made. */
struct raft_start {
    struct raft_hard_state hard;
    uint64_t base_index, base_term;   /* the log begins behind this entry; 0, 0: at entry 1 */
    const struct raft_term_run *runs; /* of entries base_index + 1 .. last, which the host can read back below `hole` */
    uint32_t run_count;
    uint64_t last;
    uint64_t hole;                /* first entry > applied whose name stands but whose bytes are damaged; 0 none */
    uint64_t applied;             /* base_index..last: what the machine holds; committed, and not delivered again */
    bool lost;                    /* the machine holds less than the log's beginning: applied is base_index all the
                                     same, and nothing is delivered before INSTALLED (R-E5) */
    struct raft_config_at config; /* in force at `applied`; count 0: not known */
    const struct raft_config_at *configs; /* CONFIG entries of the log behind `applied`, ascending */
    uint32_t config_count;
    uint64_t random;
};
/* Makes an instance. The first step's update may ask to persist a term; that step must not be INSTALLED. */
struct raft *raft_create(const struct raft_params *params, const struct raft_start *start);
void raft_destroy(struct raft *raft);

enum raft_event_kind {
    RAFT_EVENT_TICK,        /* one tick passed */
    RAFT_EVENT_MESSAGE,     /* from a peer; the host has checked group, cluster and membership */
    RAFT_EVENT_PROPOSE,     /* one entry's data (borrowed; it takes a ref). Update says its index, or NOT_LEADER, BUSY,
                               TOO_LARGE */
    RAFT_EVENT_READ,        /* a ReadIndex under `read_id` (never reused by the host) */
    RAFT_EVENT_PERSISTED,   /* everything asked by updates up to number `persisted` is on stable storage */
    RAFT_EVENT_LOADED,      /* entries the update asked to load, in order, from `load_first` */
    RAFT_EVENT_PEER_FORGOT, /* `peer` came back with less than it had acknowledged: nothing it said before counts */
    RAFT_EVENT_PEER_CLOSED, /* a connection with `peer` broke: what was in flight may be lost, a leader may be dead */
    RAFT_EVENT_CONTINUE,    /* nothing happened: the host asks for the rest after an update that said `more` */
    RAFT_EVENT_CONFIG,      /* asks for the members in `config` (roles VOTER, LEARNER, LEARNER|PROMOTE). Update says its
                               index, or NOT_LEADER, INVALID, TERM_TOO_YOUNG, CHANGE_PENDING, NOT_CAUGHT_UP */
    RAFT_EVENT_TRANSFER,    /* asks voter `peer` (0: the one whose log is longest) to lead. Update says NOT_LEADER,
                               INVALID, CHANGE_PENDING; proposals are BUSY until it leads or an election timeout passed */
    RAFT_EVENT_COMPACTED,   /* the host gives up entries up to `index` <= applied: they are never loaded again */
    RAFT_EVENT_SNAPSHOT_DONE, /* what an update's `snapshots` asked for `peer` ended: `ok`, then it durably holds the
                                 state at `index`; else it is asked again when the peer answers */
    RAFT_EVENT_HEALED,        /* `loaded` (the damaged entry, durable again; none: it is held by a snapshot) fills a
                                 hole; the next one is at `index`, 0 none */
    RAFT_EVENT_ROTTEN,        /* a read found the bytes of the entry (`index`, `term`) damaged: behind `applied` it is a
                                 hole; at or below it nothing there is loaded until COMPACTED has passed it */
    RAFT_EVENT_COMMITTED,     /* a member whose log begins behind (`index`, `term`) says so: it is committed. Of no
                                 effect on a leader, and where the log does not hold it */
    RAFT_EVENT_TRIMMED,       /* raft_may_trim: from `index`, the first hole, on the log is cut */
    RAFT_EVENT_WAKE,          /* somebody wants something of the group: it does not sleep on */
    RAFT_EVENT_INSTALLED, /* the machine durably holds the state at (`index`, `term`), `config` in force there: of no
                             effect at or below applied (below it, where the machine was lost). `term` is not above the
                             instance's own */
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
    const struct raft_config *config; /* CONFIG, INSTALLED */
    uint64_t config_index;            /* INSTALLED: of the entry that holds it */
    uint64_t index, term;             /* COMPACTED, SNAPSHOT_DONE, INSTALLED, HEALED, TRIMMED, COMMITTED, ROTTEN */
    bool ok;                          /* SNAPSHOT_DONE */
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
    bool reset; /* under `number`, alone: the log drops all it has and goes on behind (reset_index, reset_term) */
    uint64_t reset_index, reset_term;
    const struct raft_message *messages;
    uint32_t message_count;
    const struct raft_entry *committed;
    uint32_t committed_count;
    const struct raft_read *reads;
    uint32_t read_count;
    const uint32_t *snapshots; /* peers that lack entries this log no longer has: the host brings them a snapshot at or
                                  behind the log's beginning and answers each with SNAPSHOT_DONE */
    uint32_t snapshot_count;
    uint64_t load_first;
    uint32_t load_count; /* entries to read back from the log; 0 none. One load is out at a time; the host gives fewer
                            where they are many, and is asked for the next ones then */
    enum err propose_err;
    uint64_t propose_index, propose_term;
    bool role_changed; /* role, term or the known leader is another than after the last step */
    bool more;         /* committed entries are left over: step RAFT_EVENT_CONTINUE once these are applied */
};

void raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *ret_update);

/* What another voter said of the first hole: not that it has it, nor that it is on its way to the disk there. */
struct raft_heard {
    uint32_t node;
    bool may_have; /* it had it, and may have acknowledged it */
};
/* The first hole was never committed and never will be: all other voters, of all configurations that may be in force,
 * were heard, and those that may have acknowledged it (`self_may`: this node) are no majority. All of them, because a
 * leader among them could still count what this node once acknowledged. */
bool raft_may_trim(const struct raft *raft, bool self_may, const struct raft_heard *heard, uint32_t count);

/* The group sleeps here: ticks have no effect until something else happens. */
bool raft_is_asleep(const struct raft *raft);

/* What each step of a machine asks, without all of raft_status. */
enum raft_role raft_role(const struct raft *raft);

/* The configuration in force, or a committed one it may fall back on, has this node. */
bool raft_names(const struct raft *raft, uint32_t node);

/* Present state, for status and tests. */
struct raft_status {
    enum raft_role role;
    uint64_t term, base, base_term, last, commit,
        applied;     /* base: the log begins behind it; applied: delivered in `committed` */
    uint32_t leader; /* 0 unknown */
    uint32_t vote;
    uint64_t hole;                /* first damaged entry, 0 none: votes by its last entry, does not lead */
    bool lost;                    /* waits for a snapshot at or behind base: votes and acknowledges, does not lead */
    bool ready;                   /* leader whose no-op is committed: reads and membership may go */
    uint32_t transfer;            /* leader: whom it hands over to, 0 nobody */
    struct raft_config_at config; /* in force: the newest of the log, committed or not */
    uint64_t config_committed;    /* index of the newest configuration known to be committed */
    bool removed;                 /* a committed configuration leaves this node out, and its log holds none behind it */
    uint64_t match[RAFT_MEMBERS_MAX];     /* leader: per member of `config` */
    bool answers[RAFT_MEMBERS_MAX];       /* leader: it answered within an election timeout; itself does */
    uint32_t in_flight[RAFT_MEMBERS_MAX]; /* leader: appends sent to it and not answered */
};
struct raft_status raft_status(const struct raft *raft);

#endif
