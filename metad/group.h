/* A group actor from the inside: shared by group.c (boot, Raft), requests.c (what peers ask) and apply.c (what is
 * committed). */
#ifndef CAIRN_METAD_GROUP_H
#define CAIRN_METAD_GROUP_H

#include "metad/host/holes.h"
#include "metad/machine.h"
#include "metad/metad.h"
#include "metad/root/root.h"

/* Commands of one Raft entry: a command is u32 bytes, then the packed Command. */
#define ENTRY_COMMANDS_BYTES (256u << 10) /* an entry takes no further command past this */
#define FLIGHTS_MAX          8u           /* entries proposed and not yet applied */

#define SNAPSHOT_MENDS_NS  30000000000ull /* no piece of one that mends takes so long: then another is asked */
#define SNAPSHOT_SILENT_NS 35000000000ull /* nor one of a leader's: it has given up by then */
#define SNAPSHOTS_OUT      2u             /* sent at a time */
#define TOKEN_FLUSH        (1ull << 56)   /* KV_DONE of a flush, of a scan for a snapshot: with the number below */
#define TOKEN_SCAN         (2ull << 56)

enum group_phase {
    GROUP_STARTING,
    GROUP_OPENING,
    GROUP_BOOTING,
    GROUP_RESETTING,
    GROUP_RUNNING,
    GROUP_RECOVERING,
    GROUP_UNSURE, /* the log cannot tell what this node promised: it takes no part (R-E1) */
    GROUP_HALTED
};

/* Where a group's machine stands: lies in the same batch as what it counts, so that it travels with it. */
struct standing {
    uint64_t applied, term;                 /* the last entry applied */
    uint64_t digest;                        /* rolling, of what was applied (R-E6) */
    uint64_t checkpoint, checkpoint_digest; /* the digest at the last multiple of DIGEST_ENTRIES */
    struct raft_config_at config;           /* in force at `applied` */
};
#define DIGEST_ENTRIES 256u

/* A snapshot under way to a follower: one piece is out at a time. */
struct snapshot_out {
    uint32_t peer; /* 0: free */
    uint64_t id, pin, stream;
    uint64_t index, index_term;
    uint64_t piece; /* number of the one that is read or out */
    uint32_t view, checksum;
    struct slice from; /* where the next scan begins */
    struct slice body; /* of the piece that is out */
    bool scanning, last;
    bool ending; /* over; the scan that is out ends it */
    bool mends;  /* the peer asked for it, not Raft */
    uint64_t sent_ns;
    uint32_t tries;
};
/* One that comes in. */
struct snapshot_in {
    uint32_t from; /* 0: none */
    uint64_t id, index, index_term, next;
    uint32_t view, their_view, checksum;
    uint64_t flush; /* switched: durable once this flush is done */
    bool flush_asked, mends;
    uint64_t by_ns;               /* when it is given up: nothing comes any more */
    struct raft_config_at config; /* switched: in force at index */
    struct message answer;        /* whom to tell; its slices are not kept */
};

/* Who is to be brought one. */
struct snapshot_want {
    uint32_t peer;
    bool mends;
};

#define FETCHES_MAX 8u
/* A member that waits for an entry it lacks. */
struct fetching {
    struct message asker; /* its slices are not kept */
    uint64_t stream;      /* of the LOG_FETCH that is out, 0: free */
    bool snapshot;
};
/* A log with holes being mended (host/heal.c). */
struct heal {
    struct holes holes;
    bool lost;         /* the database holds less than the log begins behind (R-E5) */
    uint64_t again_ns; /* when members are asked again */
    struct {
        uint32_t node;
        uint64_t stream;
    } asked[2 * RAFT_MEMBERS_MAX];
    uint32_t asked_count;
    uint32_t behind;         /* who holds it in a snapshot, 0 nobody known */
    uint32_t snapshot_from;  /* who was asked for that */
    uint64_t snapshot_by_ns; /* when it is asked again */
    uint64_t writing;        /* number of the LOG_HEAL that is out, 0 none */
    struct raft_entry entry; /* in it; owns its data */
    uint64_t number, mended;
    uint64_t restored;                    /* a lost state came back at this index, 0: it did not */
    uint64_t rot_behind, rot_last;        /* damaged entries that nobody needs, and the last of them */
    struct fetching fetches[FETCHES_MAX]; /* for others */
};

/* Another member's log, as it is known here (host/identity.c). */
struct identity {
    struct log_peer peer;
    uint64_t found; /* the position that this process began with; at most the one told, where only the log knows */
    uint64_t boot_before; /* of the process before the present one: its last frames may come late */
    bool stale;           /* the present one came back with less than it had acknowledged */
    bool told_of;         /* the present one was told of by a leader: whom it follows is not known yet */
    bool lost;            /* it says that its state is (R-E5) */
};

/* Who waits for a command's answer. type 0: nobody (the group's own command). */
struct waiter {
    struct address from;
    uint16_t type;
    uint64_t stream;
    struct slice header; /* of the request, for finish */
    uint32_t device, writer;
    struct sha256 bearer; /* of the key that the asking peer has shown to hold */
};
struct proposal {
    struct slice command;
    struct waiter waiter;
};
struct flight {
    uint64_t index, term;
    struct waiter *waiters;
    uint32_t count;
};
struct reading {
    struct message message; /* owns its slices */
};

struct group {
    struct group_params params;
    enum group_phase phase;
    struct raft *raft;
    uint64_t boot_random;
    uint32_t view, view_next;          /* of the key prefix; the highest that was ever begun */
    bool leftover;                     /* there may be keys of other views */
    bool reset_due;                    /* a snapshot was switched to, the log not reset yet */
    uint64_t reset_number;             /* of the LOG_RESET that is out */
    struct raft_hard_state start_hard; /* GROUP_RESETTING */
    struct standing at;
    uint64_t ready_term, ready_index; /* leading: the term, and what was committed when its no-op was */
    uint64_t flush_number;
    uint64_t flushing, flushing_applied, flushed_applied; /* number of the flush that is out, 0 none; what it covers */
    struct snapshot_out out[SNAPSHOTS_OUT];
    struct snapshot_in in;
    struct snapshot_want wanted[2 * RAFT_MEMBERS_MAX];
    uint32_t wanted_count;
    struct heal heal;
    struct identity identities[RAFT_MEMBERS_MAX];
    uint32_t identity_count;
    bool identities_due;                    /* the log does not know them yet, */
    bool identities_new;                    /* nor a process, directory or configuration: that waits for no append */
    uint64_t boot, boot_position, position; /* this process; what of its log it found, what is durable now */
    bool told_stale;                        /* another member says so of this node */
    uint64_t demote_at_ns;                  /* leader: not before */
    uint64_t snapshot_number;               /* streams and pins */
    uint64_t digests, digest_at;            /* a leader's, equal to this node's; up to which entry the last one was */
    uint64_t digest_told;                   /* leading: the last checkpoint proposed for comparison */
    uint64_t applied_since_flush, applied_bytes_since_flush;
    struct {
        uint64_t last;      /* of the log when the group started */
        uint64_t mutations; /* applied of it since */
        uint64_t begin_ns, end_ns;
    } reapply;
    bool flush_due;            /* the log asks for it */
    uint64_t pinned;           /* up to there the log keeps no entries for members that lag */
    uint64_t load_first;       /* of the read that is out */
    uint64_t persist_number;   /* of the last append sent to the log */
    uint64_t persisted_number; /* of the last one it has answered */

    struct proposal *queue; /* waits for an entry: [head, tail) */
    unsigned long queue_head, queue_tail, queue_capacity;
    uint64_t waiting_bytes; /* commands queued and reads waiting */
    struct flight flights[FLIGHTS_MAX];
    uint32_t flight_first, flight_count;

    struct reading *reads; /* waits for a ReadIndex to be asked */
    unsigned long read_count, read_capacity;
    struct reading *reads_out; /* waits for the answer of read_id */
    unsigned long read_out_count, read_out_capacity;
    uint64_t read_id;
    uint64_t read_index; /* answered: once applied is that far; 0 not yet */

    uint64_t refused[ERR_LIMIT]; /* frames of peers and requests, by reason, since the start */

    struct keyring keyring;
    struct root root;                         /* group 0 */
    bool root_share_due;                      /* group 0: an inbox was full, ROOT_STATE goes again */
    bool own_command_out;                     /* one command of the group's own at a time */
    uint32_t short_of_room[RAFT_MEMBERS_MAX]; /* nodes that said last that their disk is short; 0: free */
    uint64_t register_stream;                 /* of NODE_REGISTER */
    uint32_t speaker;                         /* a server that the map does not have and that was heard; 0: none */
    char speaker_address[256];
    bool draining, drained; /* this node is about to end: it hands over what it leads */
    uint32_t drain_tries;
    uint64_t keyless_since_ns; /* leads without keys; 0: not so */
    uint64_t maintain_at_ns;
    bool ticks_slowly;
    struct group_recovery recovery;

    /* this step */
    const struct event *event;
    struct effects *fx;
    struct kv_batch *batch;
    struct kv_overlay overlay;
    bool standing_due; /* something was applied since standing_put */
    struct state state;
    struct feed feed;
    struct proto_arena arena; /* of the command that is applied */
};

/* requests.c */
void group_request(struct group *group, const struct message *message);
/* Sends an answer (err OK) or its refusal; a header over the frame's limit is refused TOO_LARGE, never sent. Takes
 * refs. */
void group_deliver(struct group *group, const struct message *request, const struct answer *answer);
void group_refuse(struct group *group, const struct message *request, enum err err, const char *text);
/* Makes entries of what waits while there is room; asks a ReadIndex for what reads wait. */
void group_pump(struct group *group);
void group_answer_reads(struct group *group);
/* Leadership is gone (or the term is another): whoever waits tries elsewhere. */
void group_drop_waiting(struct group *group, bool drop_flights);
void waiter_deinit(struct waiter *waiter);
/* Proposes a command of the group's own. */
void group_propose_own(struct group *group, uint16_t op, struct slice extra);
enum { COMMAND_ROOT = 1000, COMMAND_MAINTAIN = 1001, COMMAND_DIGEST = 1002, COMMAND_RECOVER = 1003 };

/* apply.c */
void group_apply(struct group *group, const struct raft_entry *entry);
/* What was applied and is only in memory yet goes into the batch: records put, where the machine stands. At the end of
 * a step, and before the view changes. */
void group_settle(struct group *group);
void group_answer(struct group *group, const struct waiter *waiter, struct answer *answer);

/* standing.c */
/* Reads view, standing and a reset that is due; what is not there yet is as at the first start. */
MUST_CHECK enum err standing_load(struct group *group);
MUST_CHECK enum err standing_read(struct group *group, struct standing *ret_standing);
void standing_put(struct group *group);
void standing_config(struct group *group, uint64_t index, const struct raft_config *config);
/* Counts an applied entry into the digest. */
void standing_digest(struct group *group, uint64_t value);
/* From now on the state lies under `view`; durable with the next flush. The log is to be reset to (index, term). */
/* What is received stands behind this key, as the sender has it: written in the batch of its pairs. */
void standing_received(struct group *group, struct slice last);
/* False when a restart finds nothing under that view to go on from. The caller drops the key. */
bool standing_received_read(struct group *group, uint32_t view, struct snapshot_in *ret_in, struct slice *ret_last);
void standing_switch(struct group *group, uint32_t view, uint64_t index, uint64_t term);
bool standing_reset_wanted(struct group *group, uint64_t *ret_index, uint64_t *ret_term);
void standing_reset_done(struct group *group);
/* Deletes some keys of views that are neither in force nor being received. */
void standing_clean(struct group *group);

/* host/snapshot_send.c */
/* `mends`: the peer asked for it; else Raft did. */
void snapshot_wanted(struct group *group, uint32_t peer, bool mends);
/* At the end of a step, behind its commit: starts what is wanted. */
void snapshot_send_start(struct group *group);
void snapshot_send_scanned(struct group *group, uint64_t pin, struct slice pairs);
void snapshot_send_answered(struct group *group, const struct message *message);
void snapshot_send_tick(struct group *group);
/* Gives up what is under way to a member that was found to be another than it was. */
void snapshot_send_forget(struct group *group, uint32_t peer);
/* No more leader: gives all up but what mends. */
void snapshot_send_end(struct group *group);
void snapshot_send_deinit(struct group *group);
/* The least index a snapshot under way stands at; UINT64_MAX: none is. */
uint64_t snapshot_send_floor(const struct group *group);

/* host/snapshot_receive.c */
void snapshot_receive(struct group *group, const struct message *message);
void snapshot_receive_flushed(struct group *group, uint64_t flush);
/* Gives up one whose sender is not followed any more. */
void snapshot_receive_tick(struct group *group);

/* host/identity.c */
/* What the log kept, from the end of a LOG_OPEN's answer. False: malformed. */
MUST_CHECK bool identity_open(struct group *group, struct reader *reader);
/* This node's own, for a message to a member. */
void identity_put(const struct group *group, Cairn__LogIdentity *ret, bool whole);
/* A member says which log speaks (NULL: it does not know how to). STALE_PEER: nothing it says counts (R-E3). */
MUST_CHECK enum err identity_hear(struct group *group, uint32_t node, const Cairn__LogIdentity *told);
/* What a leader tells of the others: at most RAFT_MEMBERS_MAX; and what a follower makes of it. */
void identity_relay(const struct group *group, Cairn__LogIdentity *ret, Cairn__LogIdentity **ret_list,
                    size_t *ret_count);
void identity_learn(struct group *group, const Cairn__RaftMessage *wire);
/* The voters that are stale for this node, at most RAFT_MEMBERS_MAX: a follower tells its leader; and what that one
 * makes of it. */
size_t identity_report(const struct group *group, uint32_t *ret_nodes);
void identity_reported(struct group *group, const Cairn__RaftMessage *wire);
bool identity_is_stale(const struct group *group, uint32_t node);
/* A member says with each frame whether its state was lost. */
void identity_note_lost(struct group *group, uint32_t node, bool lost);
bool identity_is_lost(const struct group *group, uint32_t node);
/* What was learned goes into the log, with the append that follows. */
void identity_tell_log(struct group *group);
/* A configuration is committed: who is no voter in it begins anew. */
void identity_config(struct group *group, uint64_t index, const struct raft_config *config);
/* A snapshot is switched to: configurations were passed over. */
void identity_forget(struct group *group);
/* What is new goes into the log. Leader: a stale voter is made a learner, to be promoted when it has caught up. */
void identity_tick(struct group *group);

/* host/heal.c */
/* The damaged entries that the log names at the start. False: malformed. */
MUST_CHECK bool heal_open(struct group *group, struct reader *reader);
/* What Raft is to know of them; those at or below the applied index are given up. `runs` are the start's. */
void heal_start(struct group *group, struct raft_start *start, struct raft_term_run *runs);
/* The database holds less than the log begins behind (R-E5): the group votes and acknowledges by its log, and its state
 * is fetched from another member. */
void heal_start_lost(struct group *group, struct raft_start *start);
void heal_deinit(struct group *group);
/* LOG_ROTTEN: a read found an entry damaged. */
void heal_rotten(struct group *group, struct slice header);
/* Raft cut or dropped the log from `from` on. */
void heal_cut(struct group *group, uint64_t from);
/* A snapshot holds all entries up to `index`, and is the group's state. */
void heal_passed(struct group *group, uint64_t index);
void heal_tick(struct group *group);
/* Messages: a member asks, the log says what it has, a member answers, the log has written. */
void heal_asked(struct group *group, const struct message *message);
void heal_fetched(struct group *group, const struct message *message);
void heal_answered(struct group *group, const struct message *message);
void heal_written(struct group *group, uint64_t number);
/* The log's inbox was full. */
void heal_bounced(struct group *group, const struct message *message);

/* group.c */
/* To the node's log; takes the header and the body. */
void group_log_send(struct group *group, uint16_t type, uint64_t stream, struct writer *header, struct slice body);
/* The log gives up entries up to `index`, whose term is `term`. */
void group_log_cut(struct group *group, uint64_t index, uint64_t term);
/* Steps Raft and carries out what it says. What it said to a proposal, a change or a transfer. */
enum err group_raft(struct group *group, const struct raft_event *event);
void group_halt(struct group *group, enum err err, const char *what);
/* Leads, and has applied all that earlier leaders acknowledged: only then does its state speak for the group. */
bool group_is_ready(struct group *group);
/* Asks the log to write entries; answered with `number`. */
void group_log_append(struct group *group, uint64_t number, bool hard_changed, struct raft_hard_state hard,
                      const struct raft_entry *entries, uint32_t count);

/* Asks the log to drop all it has of the group and to begin behind (index, term); answered with `number`. */
void group_log_reset(struct group *group, uint64_t number, uint64_t index, uint64_t term);

/* start.c */
/* The answer to LOG_OPEN. */
void group_log_opened(struct group *group, struct slice header);
/* Makes Raft; `start` says what the log holds. */
void group_start_raft(struct group *group, struct raft_start *start);

/* keyring.c */
/* Group 0: opens the keys of the present record and hands them to itself and to the other groups of this node. */
void group_share_root(struct group *group);
/* ROOT_STATE: group 0 hands them over. */
void group_root_state(struct group *group, struct slice header);
void keyring_take(struct keyring *keyring, const Cairn__RootState *state);
void keyring_deinit(struct keyring *keyring);

/* upkeep.c */
void group_tick(struct group *group);

/* recover.c */
/* What lies here, before anything is written. `unsure`: the log cannot tell what was promised. */
void recover_look(struct group *group, const struct raft_start *start, bool unsure);
/* GROUP_RECOVER: u64 incarnation. */
void recover_begin(struct group *group, struct slice header);
void recover_appended(struct group *group);
/* COMMAND_RECOVER. */
enum err recover_apply(struct apply *apply);

/* namespace/maintain.c */
bool maintain_due(struct state *state, uint64_t ns, uint64_t tick, struct proto_arena *arena);
enum err maintain_apply(struct apply *apply);

/* host/raft_wire.c */
void raft_wire_send(struct group *group, const struct raft_message *message);
MUST_CHECK enum err raft_wire_decode(struct group *group, const struct message *frame,
                                     struct raft_message *ret_message);

#endif
