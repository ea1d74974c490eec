/* The inside of the log actor, shared by log*.c and by nothing else.
 *
 *   log.c          dispatch, appends, batches, segments
 *   log_index.c    per group: where its entries lie, their terms, its hard state
 *   log_read.c     entries read back
 *   log_recover.c  the scan at start
 *   log_format.c   bytes */
#ifndef CAIRN_METAD_HOST_LOG_INTERNAL_H
#define CAIRN_METAD_HOST_LOG_INTERNAL_H

#include "base/check.h"
#include "base/limits.h"
#include "log.h"
#include "log_format.h"

#define LOG_BATCH_BYTES   (1u << 20) /* a batch takes appends until it holds so much */
#define LOG_READ_BYTES    (1u << 20) /* one DISK_READ */
#define LOG_MARK_IDLE_NS  100000000ull
#define LOG_ALLOC_WAIT_NS 1000000000ull

enum log_timer { LOG_TIMER_BOOT = 0, LOG_TIMER_MARK = 1, LOG_TIMER_ALLOC = 2 };

/* Tokens of disk effects: kind in the upper byte, below it the slot of a read. */
enum log_token {
    LOG_TOKEN_WRITE = 1,
    LOG_TOKEN_SYNC,
    LOG_TOKEN_ALLOC,
    LOG_TOKEN_SCAN,
    LOG_TOKEN_BOOT_SYNC,
    LOG_TOKEN_READ
};
static inline uint64_t log_token_make(enum log_token kind, uint32_t slot)
{
    return (uint64_t)kind << 56 | slot;
}

/* Where an entry's record begins, and the bytes of its data. */
struct log_place {
    uint32_t segment, offset, bytes;
};

struct log_group {
    bool known;
    uint64_t term;
    uint32_t vote;
    uint64_t accepted;        /* last entry behind all appends taken, written or not */
    uint64_t last;            /* last entry laid out in a write */
    uint64_t readable;        /* last entry that is durable under its index */
    struct log_place *places; /* [0] is index 1 */
    unsigned long place_capacity;
    struct raft_term_run *runs;
    unsigned long run_count, run_capacity;
};

uint64_t log_group_term(const struct log_group *group, uint64_t index);
/* Entry `index` (1..last+1, CHECKed) lies there now; what was behind it is cut. */
void log_group_put(struct log_group *group, uint64_t index, uint64_t term, struct log_place place);
void log_group_deinit(struct log_group *group);
/* The packed answer to LOG_OPEN. */
struct slice log_group_opened(const struct log_group *group);

/* An append that waits, or whose batch is being written. */
struct log_append {
    struct address from;
    uint64_t stream, number, term;
    uint32_t group, vote;
    bool hard_changed;
    struct raft_entry *entries;
    uint32_t count;
    uint64_t bytes; /* of its records */
};
struct log_appends {
    struct log_append *items;
    unsigned long count, capacity;
};

struct log_open {
    struct address from;
    uint64_t stream;
    uint32_t group;
};

struct log_read {
    struct address from;
    uint64_t stream;
    uint32_t group, count;
    uint64_t first;
    struct log_place *places;
    uint32_t segment;
    uint64_t offset, bytes, done; /* range of the file, blocks */
    struct slice buffer;
};

enum log_scan_mode {
    LOG_SCAN_WALK,     /* write after write along the chain */
    LOG_SCAN_NEXT,     /* nothing begins here: does the next segment go on? */
    LOG_SCAN_EVIDENCE, /* the chain ended: does anything later say that more was synced? */
};
struct log_scan {
    enum log_scan_mode mode;
    uint32_t file;        /* position in params.files */
    uint64_t at;          /* offset in it: the next write, or sectors to look at */
    struct writer buffer; /* bytes of the file from buffer_at on */
    uint64_t buffer_at;
    uint32_t stop_file; /* where the chain ended */
    uint64_t stop_at;
    bool bad; /* a sector behind the stop that does not check */
    uint32_t bad_segment;
    uint64_t bad_at;
    uint64_t highest; /* sequence seen anywhere */
    bool named;       /* an entry was read: */
    uint32_t last_group;
    uint64_t last_index;
    bool suspect; /* the damaged entry's own header was read */
};

enum log_state { LOG_IDLE, LOG_SCANNING, LOG_SYNCING, LOG_OPEN, LOG_HALTED };
enum log_next { LOG_NEXT_NONE, LOG_NEXT_ALLOCATING, LOG_NEXT_READY, LOG_NEXT_FAILED };

struct log {
    struct uuid directory;
    uint32_t segment_bytes;
    struct file_info *files;
    uint32_t file_count;
    enum log_state state;
    struct log_scan scan;
    struct log_group groups[LIMIT_GROUPS];

    uint32_t segment;         /* being written; 0: none yet */
    uint64_t bytes, position; /* its size; where the next write begins */
    enum log_next next;
    uint64_t next_bytes;

    uint64_t sequence; /* of the last write laid out or found: the chain */
    uint64_t highest;  /* none at or below is used again */
    uint64_t synced;   /* last write known durable */
    bool unmarked;     /* the last write holds records and no later write says that it was synced */

    struct log_appends queue, flight;
    bool writing;
    struct log_open *opens;
    unsigned long open_count, open_capacity;
    struct log_read **reads; /* slots, NULL: free */
    unsigned long read_capacity;
    struct log_status status;
};

static inline struct file_ref log_file(uint32_t segment)
{
    return (struct file_ref){.kind = FILE_LOG, .number = segment};
}

/* Emits HALT and stops answering. */
void log_halt(struct log *log, struct effects *fx, enum err err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The scan is over and what it found is durable: answers and writes may go. */
void log_ready(struct log *log, uint64_t now_ns, struct effects *fx);

void log_scan_start(struct log *log, uint64_t now_ns, struct effects *fx);
void log_scan_done(struct log *log, const struct event *event, struct effects *fx);
void log_scan_deinit(struct log *log);

void log_read_start(struct log *log, const struct message *m, struct effects *fx);
void log_read_done(struct log *log, const struct event *event, struct effects *fx);
void log_read_deinit(struct log *log);

#endif
