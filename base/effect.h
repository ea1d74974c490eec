/* The one vocabulary between cores and the world (ARCHITECTURE.md). A core is an actor: only
 *     x_step(struct x *, const struct event *, struct effects *)
 * touches it, on the one thread that owns it; it performs no I/O and reads no clock. Two interpreters run effects:
 * io/runtime.c on the real system, tests/sim/world.c under a seed. The list of kinds is closed; a new kind is a design
 * change.
 *
 * Order: effects of one step start in list order; nothing else is ordered. What must come after waits for the
 * completion. step never runs inside step: completions go through the inbox.
 *
 * Ownership: a slice put into an effect is given to the interpreter (it drops it at completion). A slice in an event is
 * borrowed for the step; a core that keeps it takes slice_ref. A compute job is given with the effect and comes back
 * borrowed with COMPUTE_DONE: the interpreter frees it (slices included) after the step; keep what you need by
 * slice_ref. */
#ifndef CAIRN_BASE_EFFECT_H
#define CAIRN_BASE_EFFECT_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "ids.h"
#include "slice.h"

struct kv_batch;    /* kv.h */
struct compute_job; /* compute.h */

/* The role in a certificate (`metad:3`, `blockd:7`, `device:1`). Bits, so that a table row can name several. */
enum role {
    ROLE_NONE = 0,
    ROLE_METAD = 1,
    ROLE_BLOCKD = 2,
    ROLE_DEVICE = 4,
    ROLE_GATEWAY = 8,
    ROLE_LOCAL = 16, /* another actor of this process */
    ROLE_JOIN = 32   /* the bearer of a one-time token: may ask for a certificate and nothing else */
};

enum actor_kind {
    ACTOR_NONE,
    ACTOR_LOG,    /* metad: the shared write-ahead log; index 0 */
    ACTOR_GROUP,  /* metad: a Raft group with its machine; index = group number */
    ACTOR_AGENT,  /* blockd: registration, heartbeats, the map and keys it knows; index 0 */
    ACTOR_STORE,  /* blockd: one store; index = position on this node, from 0 */
    ACTOR_CLIENT, /* client: routes, calls, transfers; index 0 */
    ACTOR_API,    /* client: the shell that waits for answers of ACTOR_CLIENT; metad: a recovery (shell/recover.c); 0 */
    ACTOR_KINDS
};

/* Where a message goes. conn != 0: an answer (or a push) on that very connection, whatever else says.
 * role ROLE_LOCAL: an actor of this process. Else node `node` of `role`: its address is known to the interpreter
 * (configuration, or net_set_address by the shell); a connection is made when there is none. */
struct address {
    uint8_t role;  /* enum role, one bit */
    uint8_t actor; /* enum actor_kind */
    uint16_t reserved;
    uint32_t node;   /* node number within the role, from 1 */
    uint32_t index;  /* which actor of that kind: the group number, the store's position */
    uint32_t sender; /* answers: the slot of the actor that asked, as frames carry it; cores leave it alone */
    uint64_t conn;
};

/* Who is at the other end, as the peer's certificate says. Local messages carry ROLE_LOCAL and no key. */
struct principal {
    uint8_t role;      /* enum role, one bit */
    uint32_t id;       /* node or device number of the certificate */
    struct sha256 key; /* of its public key (DER SubjectPublicKeyInfo), whose private half the peer has shown to hold */
};

enum message_flags {
    MESSAGE_REPLY = 1, /* answers the request with the same stream */
    MESSAGE_ERROR = 2, /* a reply whose header is an ErrorReply (proto/cairn.proto) */
};

struct message {
    struct address from; /* send the answer there, with the request's stream and MESSAGE_REPLY */
    struct principal peer;
    uint16_t type; /* proto/messages.def */
    uint8_t flags;
    uint32_t target;     /* index of the actor it is for */
    uint64_t stream;     /* the requester's number of the request, < 2^48, never reused by it; echoed */
    struct slice header; /* protobuf, or packed for the types that say so */
    struct slice body;   /* raw */
};

/* Names a file of a node's data directory. Interpreters map it to a path: (kind, number) -> e.g. "log/00000007.seg". */
enum file_kind {
    FILE_LOG,     /* metad: log/%08x.log */
    FILE_SEGMENT, /* blockd: segments/%08x.seg */
    FILE_USER,    /* client: files of people, opened by the shell (io/runtime.h runtime_open_user_file) */
};
struct file_ref {
    uint32_t kind;
    uint32_t number;
};
/* A file that exists when the actor is made, as the shell lists them (ascending numbers). */
struct file_info {
    struct file_ref file;
    uint64_t bytes;
};

enum event_kind {
    EVENT_MESSAGE,
    EVENT_ROOM,   /* a connection that had refused bytes takes some again */
    EVENT_CLOSED, /* the connection to a peer this actor has sent to or heard from is gone (or could not be made) */
    EVENT_TIMER,
    EVENT_DISK_DONE,
    EVENT_KV_DONE,
    EVENT_COMPUTE_DONE,
};

struct event {
    enum event_kind kind;
    bool more;        /* another event waits for this actor and is next: what is cheaper for many may wait for it */
    uint64_t now_ns;  /* monotonic */
    uint64_t wall_ns; /* label only: no safety, no order, no expiry rests on it (P12) */
    uint64_t random;  /* 64 fresh random bits; cryptographically strong in production */
    union {
        struct message message;
        struct {
            struct address peer;
            enum err err;
        } peer; /* ROOM, CLOSED */
        struct {
            uint64_t id;
        } timer;
        struct {
            uint64_t token;
            enum err err;
            struct slice data;
        } disk; /* data: of a DISK_READ; short at end of file */
        struct {
            uint64_t token;
            enum err err;
            struct slice data;
        } kv; /* of a KV_FLUSH; of a KV_SCAN with its packed pairs (kv.h), none at the end */
        struct {
            uint64_t token;
            struct compute_job *job;
        } compute; /* job->err tells */
    };
};

enum effect_kind {
    EFFECT_SEND,
    EFFECT_TIMER,        /* (id, deadline_ns monotonic; 0 = off). One deadline per id and actor; fires once */
    EFFECT_DISK_WRITE,   /* offset and slice capacity 4096-aligned: bytes are rounded up to 4096 with the slice's zero
                            padding */
    EFFECT_DISK_SYNC,    /* fdatasync; covers the writes completed before it was emitted */
    EFFECT_DISK_READ,    /* offset and bytes 4096-aligned but for FILE_USER */
    EFFECT_DISK_ALLOC,   /* creates the file if need be, reserves `bytes`, syncs file and directory */
    EFFECT_DISK_DISCARD, /* punches a hole; bytes == UINT64_MAX: removes the file and syncs the directory */
    EFFECT_KV_COMMIT, /* applies the batch (given); visible to this actor's next step; durable after a later KV_FLUSH */
    EFFECT_KV_FLUSH,  /* KV_DONE when all earlier commits of this actor's database are durable */
    EFFECT_KV_SCAN,   /* reads a range off the thread, from a state that stays the same from scan to scan */
    EFFECT_COMPUTE,
    EFFECT_HALT, /* this process cannot go on; `reason` says why */
};

struct effect {
    enum effect_kind kind;
    union {
        struct {
            struct address to;
            uint16_t type;
            uint8_t flags;
            uint32_t target;
            uint64_t stream;
            struct slice header, body;
        } send;
        struct {
            uint64_t id;
            uint64_t deadline_ns;
        } timer;
        struct {
            uint64_t token;
            struct file_ref file;
            uint64_t offset;
            uint64_t bytes;
            struct slice data;
        } disk;
        struct {
            uint64_t token;
            struct kv_batch *batch;
        } kv;
        struct {
            uint64_t token;
            uint64_t pin;
            struct slice from, end;
            uint64_t bytes; /* 0: gives the pin up */
        } scan;
        struct {
            uint64_t token;
            struct compute_job *job;
        } compute;
        struct {
            enum err err;
            char reason[160];
        } halt;
    };
};

/* What one step emitted. The interpreter passes an empty list and empties it after the step. */
struct effects {
    struct effect *items;
    unsigned long count, capacity;
};

void effects_deinit(struct effects *fx);

/* Emitters. Slices, batches and jobs are given. */
void fx_send(struct effects *fx, struct address to, uint16_t type, uint64_t stream, struct slice header,
             struct slice body);
/* Answers `request` with the same type and stream. */
void fx_reply(struct effects *fx, const struct message *request, struct slice header, struct slice body);
/* Answers at an address kept from a request (its from, type and stream). flags: MESSAGE_REPLY, with MESSAGE_ERROR if
 * so. */
void fx_answer(struct effects *fx, struct address to, uint16_t type, uint64_t stream, uint8_t flags,
               struct slice header, struct slice body);
void fx_timer(struct effects *fx, uint64_t id, uint64_t deadline_ns);
void fx_disk_write(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, struct slice data);
void fx_disk_sync(struct effects *fx, uint64_t token, struct file_ref file);
void fx_disk_read(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, uint64_t bytes);
void fx_disk_alloc(struct effects *fx, uint64_t token, struct file_ref file, uint64_t bytes);
void fx_disk_discard(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, uint64_t bytes);
void fx_kv_commit(struct effects *fx, struct kv_batch *batch);
void fx_kv_flush(struct effects *fx, uint64_t token);
/* Reads pairs with key >= `from` and < `end` (given) in order: as many as fit into `bytes` (> 0), at least one; KV_DONE
 * has them. The state is that of the actor's first scan under `pin` (> 0), all its earlier commits included, until it
 * gives the pin up; `end` is the same for all scans of a pin. One scan of a pin is out at a time. */
void fx_kv_scan(struct effects *fx, uint64_t token, uint64_t pin, struct slice from, struct slice end, uint64_t bytes);
/* Gives the pin up; of no effect when there is none. No scan of it may be out. */
void fx_kv_unpin(struct effects *fx, uint64_t pin);
void fx_compute(struct effects *fx, uint64_t token, struct compute_job *job);
void fx_halt(struct effects *fx, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The step function of any actor, as interpreters hold it. */
typedef void actor_step(void *actor, const struct event *event, struct effects *fx);

/* Address of an actor in this process. */
static inline struct address address_local(enum actor_kind actor, uint32_t index)
{
    return (struct address){.role = ROLE_LOCAL, .actor = (uint8_t)actor, .index = index};
}

static inline struct address address_node(enum role role, uint32_t node, enum actor_kind actor, uint32_t index)
{
    return (struct address){.role = (uint8_t)role, .actor = (uint8_t)actor, .node = node, .index = index};
}

#endif
