/* Inside of the store actor, shared by its files: store.c (dispatch, state, report), put.c (checks of a put), commit.c
 * (group commit and segments), serve.c (get, inventory), recover.c (boot). Everything here is touched by store_step
 * alone.
 *
 * States of a put:   received -> held (another put of its chunk is under way, or no segment has room yet) -> received
 *                    received -> in a batch -> durable, indexed, answered
 *                    received or in a batch -> refused, answered
 * States of a batch: open (takes puts, writes them as they come) -> closed (its writes complete) -> syncing -> finished
 *                    any of them -> failed
 * At most one batch is closed or syncing, and one open. */
#ifndef CAIRN_BLOCKD_STORE_H
#define CAIRN_BLOCKD_STORE_H

#include "admission.h"
#include "base/effect.h"
#include "base/kv.h"
#include "blockd.h"
#include "report.h"
#include "segment.h"
#include "shard_index.h"

#define STORE_PUTS_MAX        4096u          /* puts held or in batches */
#define STORE_PUT_BYTES_MAX   (128ull << 20) /* their bodies */
#define STORE_READS_MAX       512u           /* gets under way */
#define STORE_READ_BYTES_MAX  (128ull << 20)
#define STORE_READ_BYTES      (1u << 20) /* one DISK_READ; a tail of up to 64 KiB rides along */
#define STORE_READ_TAIL_BYTES (64u << 10)
#define STORE_COPY_BYTES      (64u << 10)   /* bodies below are copied into the commit buffer */
#define STORE_BUFFER_BYTES    (256u << 10)  /* the commit buffer is written when it reaches this */
#define STORE_FLUSH_BYTES     (64ull << 20) /* index flush after so many bytes of records */
#define STORE_IDLE_FLUSH_NS   (10ull * 1000000000)
#define STORE_TICK_NS         (1ull * 1000000000)
#define STORE_FAILURES_MAX    8u /* batches that failed in a row: then the disk is read only */
#define STORE_RESERVE_PERCENT 5u
#define STORE_INFLIGHT_HEADS  1024u

enum store_timer {
    STORE_TIMER_BOOT = 0,
    STORE_TIMER_TICK = 1,
    STORE_TIMER_WAKE = 2,
    STORE_TIMER_RECOVER = 3,
    STORE_TIMER_REPAIR = 4
};

/* Disk tokens: kind << 56 | number. */
enum store_token { TOKEN_WRITE = 1, TOKEN_SYNC, TOKEN_ALLOC, TOKEN_READ, TOKEN_RECOVER, TOKEN_FLUSH };
static inline uint64_t store_token_make(enum store_token kind, uint64_t number)
{
    return (uint64_t)kind << 56 | number;
}
static inline enum store_token store_token_kind(uint64_t token)
{
    return (enum store_token)(token >> 56);
}
static inline uint64_t store_token_number(uint64_t token)
{
    return token & ((1ull << 56) - 1);
}

/* Where an answer goes. */
struct requester {
    struct address from;
    uint16_t type;
    uint64_t stream;
};

struct put {
    struct put *next;  /* in the held queue, or in its batch */
    struct put *chain; /* in the table of puts in batches */
    bool internal;     /* a LOST record of our own: nobody to answer */
    struct requester requester;
    struct shard_key key;
    uint32_t sealed_bytes, plain_bytes, shard_bytes;
    struct slice body, checks;
    struct hold hold;
    struct slice tail;    /* of a rebuilt shard: checks and further holds; else empty, and the tail is the checks */
    uint64_t task;        /* of repair, whose end is repair_stored; 0: a request's */
    struct sha256 token;  /* digest of its capability */
    uint64_t incarnation; /* of the store, as the request named it */
    /* once it is in a batch */
    enum record_type type;
    struct index_entry entry; /* of its key, before and then after */
    bool present;
    uint32_t segment;
    uint64_t offset, sequence;
};

struct batch {
    uint64_t id;
    struct put *first, *last;
    uint32_t writes_pending, syncs_pending;
    uint32_t first_segment, last_segment; /* ascending without gaps */
    uint64_t end_offset;                  /* in last_segment, behind its last record */
    uint64_t first_sequence, last_sequence;
    uint64_t bytes;
    bool syncing;
};

struct sequence_range {
    uint64_t first, last;
};

struct read {
    struct read *next;
    uint64_t id;
    struct requester requester;
    struct shard_key key;
    struct index_entry entry;
    uint32_t offset, bytes;                 /* asked */
    uint32_t aligned_offset, aligned_bytes; /* read: 64 KiB pieces, whole */
    struct slice data;
    uint32_t pending;
    bool failed;
    bool pull; /* SHARD_PULL: answered with vector and holders */
};

struct recovery;
struct repair;

struct store {
    uint32_t position;
    struct directory_identity identity;
    uint64_t capacity_bytes;
    uint32_t segment_bytes;
    struct kv_view *kv;
    bool open; /* recovered */
    struct recovery *recovery;
    struct admission admission;

    uint64_t salt;
    uint32_t segment; /* being appended to; 0: none was ever opened. The one allocated ahead is segment + 1 */
    uint64_t offset;
    bool segment_closed; /* a write or sync of it failed, or there is none: appends wait for the next */
    bool ahead_ready, ahead_pending;
    enum err alloc_err; /* of the last DISK_ALLOC */
    uint64_t alloc_retry_ns;
    uint64_t next_sequence, durable_sequence;
    struct sequence_range *lost; /* not yet in a durable LOST record, ascending */
    unsigned long lost_capacity;
    uint32_t lost_count, lost_in_flight;
    unsigned failures;

    struct batch *closed, *accepting;
    uint64_t batch_ids;
    struct slice buffer; /* records not yet written, of the accepting batch */
    uint32_t buffer_segment;
    uint64_t buffer_offset;
    struct put *inflight[STORE_INFLIGHT_HEADS];
    struct put *held_first, *held_last;
    uint32_t put_count;
    uint64_t put_bytes;

    uint64_t unflushed_bytes, last_flush_ns;
    bool flushing, dirty;

    struct read *reads;
    uint32_t read_count;
    uint64_t read_ids, read_bytes;
    struct store_counters counters;
    uint64_t refused[ERR_LIMIT]; /* requests, by reason */
    struct repair *repair;
};

/* store.c */
void store_answer_error(struct store *store, const struct requester *to, enum err err, const char *text,
                        struct effects *fx);
static inline struct requester requester_of(const struct message *message)
{
    return (struct requester){message->from, message->type, message->stream};
}
static inline struct file_ref segment_file(uint32_t segment)
{
    return (struct file_ref){FILE_SEGMENT, segment};
}
/* Recovery is through: the tail, the sequences and the salt are set. */
void store_opened(struct store *store, uint64_t now_ns, struct effects *fx);
uint64_t store_used_bytes(const struct store *store);
/* Highest sequence up to which every record is durable or recorded as lost. */
uint64_t store_mark(const struct store *store);
/* Records [first, last] never became durable; first is above what was added before. */
void store_lost_add(struct store *store, uint64_t first, uint64_t last);

/* put.c */
void put_receive(struct store *store, const struct event *event, struct effects *fx);
/* Runs the held puts again. */
void put_wake(struct store *store, struct effects *fx);
/* Answers with a receipt (R-B2): the shard and this hold are durable. Frees the put. */
void put_answer_receipt(struct store *store, struct put *put, struct effects *fx);
void put_answer_error(struct store *store, struct put *put, enum err err, const char *text, struct effects *fx);
void put_end(struct store *store, struct put *put);
/* A shard that repair has made, or one more hold of it. All is borrowed; the end is told by repair_stored, in this step
 * or a later one. */
struct put_rebuilt {
    struct shard_key key;
    uint32_t sealed_bytes, plain_bytes;
    struct slice body, checks;
    const struct hold *holds; /* at least one; as many as a record takes are written with the shard */
    uint32_t hold_count;
    uint64_t task;
};
void put_rebuilt(struct store *store, const struct put_rebuilt *rebuilt, struct effects *fx);

/* commit.c */
/* OK when a record of `bytes` can be appended now (rolls to the next segment if need be); WOULD_BLOCK: when a segment
 * is allocated; DISK_FULL, IO: not. */
MUST_CHECK enum err commit_room(struct store *store, uint64_t bytes, struct effects *fx);
/* Gives a decided put to the accepting batch. Needs room. */
void commit_add(struct store *store, struct put *put, struct effects *fx);
/* Writes a LOST record when ranges wait for one and there is room. */
void commit_lost(struct store *store, struct effects *fx);
/* True when a put of the same chunk in the same code is in a batch. */
bool commit_in_flight(const struct store *store, const struct shard_key *key);
void commit_written(struct store *store, const struct event *event, struct effects *fx);
void commit_synced(struct store *store, const struct event *event, struct effects *fx);
void commit_alloc(struct store *store, struct effects *fx);
void commit_allocated(struct store *store, const struct event *event, struct effects *fx);
void commit_flush_index(struct store *store, uint64_t now_ns, struct effects *fx);
void commit_deinit(struct store *store);

/* serve.c */
void serve_get(struct store *store, const struct event *event, struct effects *fx);
void serve_read_done(struct store *store, const struct event *event, struct effects *fx);
void serve_inventory(struct store *store, const struct event *event, struct effects *fx);
void serve_pull(struct store *store, const struct event *event, struct effects *fx);
void serve_deinit(struct store *store);
/* True when the bytes, which begin at `offset` of shard `index` (a multiple of 64 KiB), match the vector of checks
 * piece for piece. */
bool serve_pieces_match(struct slice checks, unsigned index, uint32_t shard_bytes, uint32_t offset, struct slice bytes);
bool serve_is_rotten(struct store *store, const struct shard_key *key);

/* list.c */
void list_receive(struct store *store, const struct event *event, struct effects *fx);

/* repair.c */
struct repair *repair_create(void);
void repair_destroy(struct repair *repair);
/* The map or the registration is new: a pass is due. */
void repair_hear(struct store *store, uint64_t now_ns);
/* A shard that was here is not any more. */
void repair_note_rot(struct store *store, const struct shard_key *key);
void repair_answered(struct store *store, const struct event *event);
void repair_closed(struct store *store, const struct event *event);
void repair_computed(struct store *store, const struct event *event);
void repair_stored(struct store *store, uint64_t task, enum err err);
void repair_timer(struct store *store, const struct event *event, struct effects *fx);
/* At the end of each step: repair goes on in a step of its own when something happened to it. */
void repair_settle(struct store *store, uint64_t now_ns, struct effects *fx);

/* recover.c */
struct recovery *recover_create(const struct store_params *params);
void recover_destroy(struct recovery *recovery);
void recover_start(struct store *store, const struct event *event, struct effects *fx);
/* DISK_DONE of a TOKEN_RECOVER, or the retry timer. Calls store_opened when it is through. */
void recover_step(struct store *store, const struct event *event, struct effects *fx);

#endif
