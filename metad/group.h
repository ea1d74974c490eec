/* A group actor from the inside: shared by group.c (boot, Raft), requests.c (what peers ask) and apply.c (what is
 * committed). */
#ifndef CAIRN_METAD_GROUP_H
#define CAIRN_METAD_GROUP_H

#include "metad/machine.h"
#include "metad/metad.h"
#include "metad/root/root.h"

/* Commands of one Raft entry: a command is u32 bytes, then the packed Command. */
#define ENTRY_COMMANDS_BYTES (256u << 10) /* an entry takes no further command past this */
#define FLIGHTS_MAX          8u           /* entries proposed and not yet applied */

enum group_phase { GROUP_STARTING, GROUP_OPENING, GROUP_BOOTING, GROUP_RUNNING, GROUP_HALTED };

/* Who waits for a command's answer. type 0: nobody (the group's own command). */
struct waiter {
    struct address from;
    uint16_t type;
    uint64_t stream;
    struct slice header; /* of the request, for finish */
    uint32_t device, writer;
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
    uint64_t applied;
    uint64_t ready_term, ready_index; /* leading: the term, and what was committed when its no-op was */
    uint64_t flushed_applied, flush_number;
    bool flushing;
    uint64_t applied_since_flush;
    uint64_t persist_number; /* of the last append sent to the log */

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
    struct root root;     /* group 0 */
    bool root_share_due;  /* group 0: an inbox was full, ROOT_STATE goes again */
    bool own_command_out; /* one command of the group's own at a time */
    uint64_t maintain_at_ns;

    /* this step */
    const struct event *event;
    struct effects *fx;
    struct kv_batch *batch;
    struct kv_overlay overlay;
    struct state state;
    struct feed feed;
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
enum { COMMAND_ROOT = 1000, COMMAND_MAINTAIN = 1001 };

/* apply.c */
void group_apply(struct group *group, const struct raft_entry *entry);
void group_answer(struct group *group, const struct waiter *waiter, struct answer *answer);

/* group.c */
void group_raft(struct group *group, const struct raft_event *event);
void group_halt(struct group *group, enum err err, const char *what);
/* Leads, and has applied all that earlier leaders acknowledged: only then does its state speak for the group. */
bool group_is_ready(struct group *group);
/* Group 0: opens the keys of the present record and hands them to itself and to the other groups of this node. */
void group_share_root(struct group *group);
void keyring_take(struct keyring *keyring, const Cairn__RootState *state);
void keyring_deinit(struct keyring *keyring);

/* namespace/maintain.c */
bool maintain_due(struct state *state, uint64_t ns, uint64_t tick, struct proto_arena *arena);
enum err maintain_apply(struct apply *apply);

/* host/raft_wire.c */
void raft_wire_send(struct group *group, const struct raft_message *message);
MUST_CHECK enum err raft_wire_decode(struct group *group, const struct message *frame,
                                     struct raft_message *ret_message);

#endif
