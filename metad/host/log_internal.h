/* The inside of the log actor, shared by log*.c and by nothing else.
 *
 *   log.c          dispatch, appends, batches
 *   log_segment.c  segments and the files that hold them
 *   log_index.c    per group: where its entries lie, their terms, its hard state
 *   log_read.c     entries read back
 *   log_probe.c    which file holds which segment, at start
 *   log_recover.c  the scan at start: which writes there are, and which are damaged
 *   log_replay.c   what a write says, taken into the groups
 *   log_format.c   bytes */
#ifndef CAIRN_METAD_HOST_LOG_INTERNAL_H
#define CAIRN_METAD_HOST_LOG_INTERNAL_H

#include "base/check.h"
#include "base/limits.h"
#include "log.h"
#include "log_format.h"

#define LOG_BATCH_BYTES   (1u << 20)  /* a batch takes appends until it holds so much */
#define LOG_READ_BYTES    (1u << 20)  /* one DISK_READ */
#define LOG_PROBE_BYTES   (64u << 10) /* one of those that only ask what a file holds */
#define LOG_MARK_IDLE_NS  100000000ull
#define LOG_ALLOC_WAIT_NS 1000000000ull
#define LOG_SPARES        2u /* files kept for coming segments; more are removed */
#define LOG_SEGMENTS_KEPT 8u /* no more are kept for members that lag, once what lies in them is flushed */
#define LOG_SEGMENTS_MANY 4u /* with more than so many segments, groups that pin the oldest are told */

enum log_timer { LOG_TIMER_BOOT = 0, LOG_TIMER_MARK = 1, LOG_TIMER_ALLOC = 2 };

/* Tokens of disk effects: kind in the upper byte, below it the slot of a read. */
enum log_token {
    LOG_TOKEN_WRITE = 1,
    LOG_TOKEN_SYNC,
    LOG_TOKEN_ALLOC,
    LOG_TOKEN_SCAN,
    LOG_TOKEN_BOOT_SYNC,
    LOG_TOKEN_READ,
    LOG_TOKEN_REMOVE
};
static inline uint64_t log_token_make(enum log_token kind, uint32_t slot)
{
    return (uint64_t)kind << 56 | slot;
}

/* Where an entry's record begins, and the bytes of its data. Segment 0, in the scan at start only: named, but in a
 * segment that is gone. LOG_HOLE_BYTES: named, but its bytes are damaged; the segment is the one they lay in, the
 * offset an enum log_hole (log.h). */
struct log_place {
    uint32_t segment, offset, bytes;
};
#define LOG_HOLE_BYTES UINT32_MAX
static inline bool log_place_is_hole(struct log_place place)
{
    return place.bytes == LOG_HOLE_BYTES;
}

/* What a write changed of a group: entries from `from` on (UINT64_MAX: none), its hard state, its base. */
struct log_touch {
    bool touched;
    uint64_t from;
};

struct log_config {
    uint64_t index;
    struct slice data;
};

struct log_group {
    bool known;
    bool unsure;                  /* names or vote were lost: the group must not serve here */
    struct log_touch now, before; /* by the write being laid out or read; by the one before it */
    uint64_t term;
    uint32_t vote;
    uint64_t base, base_term; /* entries begin behind it */
    uint64_t accepted;        /* last entry behind all appends taken, written or not */
    uint64_t last;            /* last entry laid out in a write */
    uint64_t readable;        /* last entry that is durable under its index */
    struct log_place *places; /* [0] is index base + 1 */
    unsigned long place_capacity;
    struct raft_term_run *runs; /* the first begins at base + 1 */
    unsigned long run_count, run_capacity;
    struct log_peer peers[RAFT_MEMBERS_MAX]; /* R-E3 */
    uint32_t peer_count;
    bool peers_due;             /* the next write says them */
    struct log_config *configs; /* CONFIG entries, ascending */
    unsigned long config_count, config_capacity;
};

/* Term of an entry, base..last. */
uint64_t log_group_term(const struct log_group *group, uint64_t index);
/* Of an entry, base + 1..last. */
struct log_place log_group_place(const struct log_group *group, uint64_t index);
/* Entry `index` (base + 1..last + 1, CHECKed) lies there now; what was behind it is cut. */
void log_group_put(struct log_group *group, uint64_t index, uint64_t term, struct log_place place);
/* The last entry put is a configuration; takes a reference on its data. */
void log_group_config(struct log_group *group, uint64_t index, struct slice data);
/* The same for an entry of base + 1..last; those at other indexes stay. */
void log_group_config_insert(struct log_group *group, uint64_t index, struct slice data);
/* Forgets entries behind `index` (base..last). */
void log_group_truncate(struct log_group *group, uint64_t index);
void log_group_place_set(struct log_group *group, uint64_t index, struct log_place place);
/* The write changes the group: from entry `from` on, or (UINT64_MAX) no entry. */
void log_group_touch(struct log_group *group, uint64_t from);
/* Forgets entries up to `index` (base + 1..last). */
void log_group_cut(struct log_group *group, uint64_t index);
/* Forgets all entries; the log goes on behind `index`. */
void log_group_reset(struct log_group *group, uint64_t index, uint64_t term);
/* The oldest segment that holds an entry; UINT32_MAX: none does. */
uint32_t log_group_needs(const struct log_group *group);
/* The last entry that lies in a segment below `segment`; 0: none does. */
uint64_t log_group_below(const struct log_group *group, uint32_t segment);
void log_group_deinit(struct log_group *group);
/* u32 run count, per run u64 first, u64 term. */
void log_runs_put(const struct log_group *group, struct writer *w);
/* The packed answer to LOG_OPEN. */
struct slice log_group_opened(const struct log_group *group, uint64_t position);

enum log_append_kind {
    LOG_APPENDS,
    LOG_RESETS, /* the group's log is emptied, and goes on behind (index, index_term) */
    LOG_HEALS,  /* entries[0] is written anew in its place */
    LOG_TRIMS,  /* entries from `index` on, all doubtful, were never part of the group's log */
};
/* What waits, or whose batch is being written. */
struct log_append {
    uint8_t kind; /* enum log_append_kind */
    uint64_t index, index_term;
    struct log_place healed; /* where: in force once it is durable; segment 0: nowhere */
    uint16_t type;           /* of the message, for the answer */
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
    uint16_t type; /* LOG_READ or LOG_FETCH */
    uint32_t group, count;
    uint64_t first;
    struct log_place *places;
    uint32_t segment;
    uint64_t offset, bytes, done; /* range of the file, blocks */
    struct slice buffer;
    bool ahead; /* nobody has asked for it yet */
};
#define LOG_READ_ENTRIES 256u
#define LOG_AHEADS       4u /* reads ahead that are out, and that are kept until they are asked for */

/* A segment and the file that holds it. */
struct log_segment {
    uint32_t number, file;
    uint64_t bytes;
    bool headless; /* its first write, which says how all groups stand, is not whole: readable only behind the one
                      before */
};

/* A file found at start, and the newest segment its sectors name. */
struct log_found {
    struct log_segment segment; /* number 0: none */
    uint64_t sequence;          /* highest seen in the block that told */
    uint32_t oldest;            /* the same sector's */
};
enum log_scan_mode {
    LOG_SCAN_PROBE,    /* which segment does the file hold? */
    LOG_SCAN_WALK,     /* write after write along the chain */
    LOG_SCAN_AHEAD,    /* nothing whole begins here: is there more of the chain behind? */
    LOG_SCAN_EVIDENCE, /* the chain ended: does anything elsewhere say that more was synced? */
};
/* A write as a sector of it names it. sequence 0: none. */
struct log_write {
    uint64_t sequence, previous, synced;
    uint32_t first, sectors;
    bool old;
};
/* A damaged write whose own NAMES cannot be read: what it changed, the next one says. */
struct log_pending {
    bool waits;
    bool lost;                         /* no sector of it is left, and it may be more than one */
    uint64_t sequence, before, synced; /* lost: before is the last one that was read */
    struct slice data;                 /* its sectors, bad ones zeroed */
    uint32_t first, sectors, segment;
    bool older; /* every bad sector holds something older: as a write that was cut short */
    /* as it stood before, if there is no next one */
    uint64_t sequence_back, previous_back, position_back;
    unsigned long segment_count_back;
    uint32_t last_segment_back;
};
#define LOG_SCAN_READS 2u
struct log_scan_read {
    uint64_t bytes;    /* 0: not out */
    struct slice data; /* came before the one that it follows */
};
struct log_scan {
    enum log_scan_mode mode;
    struct log_found *files; /* once probed: the segments of the log, ascending, then what holds none of it */
    uint32_t file_count, live_count;
    bool started;         /* a write of the chain was found */
    uint32_t file;        /* position in files */
    uint64_t at;          /* offset in it: the next write, or sectors to look at */
    struct writer buffer; /* bytes of the file from buffer_at on */
    uint64_t buffer_at;
    struct log_scan_read reads[LOG_SCAN_READS]; /* of what comes behind the buffer */
    uint32_t read_next;                         /* the one whose bytes come first */
    uint32_t read_number;                       /* of the reads that still count */
    uint64_t ahead_from;                        /* where the chain was left */
    bool ahead_next;                            /* the present file was looked through: the next one may go on */
    struct log_write ahead;                     /* found there: begins here or goes on behind a gap */
    uint32_t stop_file;                         /* where the chain ended */
    uint64_t stop_at;
    struct log_pending pending;
    bool damaged;         /* somewhere behind the beginning */
    uint64_t fresh;       /* the write that left LOG_HOLE_FRESH, 0 none */
    bool fresh_older;     /* every bad sector of it holds something older */
    bool tail_damaged;    /* the last write, which stays */
    uint64_t tail_synced; /* the write before it */
    uint64_t highest;     /* sequence seen anywhere */
};

enum log_state { LOG_IDLE, LOG_SCANNING, LOG_SYNCING, LOG_OPEN, LOG_HALTED };
enum log_next { LOG_NEXT_NONE, LOG_NEXT_ALLOCATING, LOG_NEXT_READY, LOG_NEXT_FAILED };

struct log {
    struct uuid directory;
    uint32_t segment_bytes;
    enum log_state state;
    struct log_scan scan;
    struct log_group groups[LIMIT_GROUPS];

    struct log_segment *segments; /* ascending without gaps; the last one is being written */
    unsigned long segment_count, segment_capacity;
    uint64_t position; /* where the next write begins */
    enum log_next next;
    struct log_segment next_segment; /* number: that it will have */
    struct log_segment spares[LOG_SPARES];
    uint32_t spare_count;
    uint32_t last_file, last_segment; /* highest number ever used */
    bool release_due;                 /* a segment may have become free */

    uint64_t sequence;        /* of the last write laid out or found: the chain */
    uint64_t previous;        /* of the one before it */
    uint64_t highest;         /* none at or below is used again */
    uint64_t synced;          /* last write known durable */
    uint64_t opened_position; /* sequence of the last write that the scan found */
    bool unmarked;            /* the last write holds records and no later write says that it was synced */
    bool peers_now;           /* a write is to begin for what a group knows of others */

    struct log_appends queue, flight;
    bool writing;
    struct log_open *opens;
    unsigned long open_count, open_capacity;
    struct log_read **reads; /* slots, NULL: free */
    unsigned long read_capacity;
    struct log_read *held[LOG_AHEADS]; /* read ahead and not asked for yet, NULL: none */
    uint32_t held_next;                /* the one that makes room */
    struct log_status status;
};

static inline struct file_ref log_file(uint32_t file)
{
    return (struct file_ref){.kind = FILE_LOG, .number = file};
}

/* The segment being written, or NULL. */
static inline const struct log_segment *log_current(const struct log *log)
{
    return log->segment_count > 0 ? &log->segments[log->segment_count - 1] : NULL;
}
/* A segment of the log (CHECKed). */
const struct log_segment *log_segment_find(const struct log *log, uint32_t number);
/* Another segment at the end, in `file`. */
void log_segment_add(struct log *log, struct log_segment segment);
static inline struct log_where log_where(const struct log *log, const struct log_segment *segment)
{
    return (struct log_where){.directory = log->directory,
                              .segment = segment->number,
                              .file = segment->file,
                              .oldest = log->segment_count > 0 ? log->segments[0].number : segment->number};
}
/* Starts to make room for the segment after the present one, of at least `bytes`. */
void log_next_allocate(struct log *log, uint64_t bytes, struct effects *fx);
/* Makes room for a write of `bytes`. False: wait (or halted). */
bool log_room_get(struct log *log, uint64_t bytes, struct effects *fx);
/* A file that holds nothing needed: kept for later or removed. */
void log_file_free(struct log *log, struct log_segment segment, struct effects *fx);
/* Gives up the oldest segments that nobody needs, unless a write is under way: the log in memory is ahead of the
 * durable one then. */
void log_release(struct log *log, struct effects *fx);
void log_alloc_done(struct log *log, const struct event *event, struct effects *fx);

/* Emits HALT and stops answering. */
void log_halt(struct log *log, struct effects *fx, enum err err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* The scan is over and what it found is durable: answers and writes may go. */
void log_ready(struct log *log, uint64_t now_ns, struct effects *fx);

/* log_replay.c */
/* Sector by sector: which are those of this write? Zeroes the others in `data`; how many, and whether all of them held
 * something older. */
uint32_t log_write_sift(const struct log *log, const struct log_write *w, const struct log_segment *segment,
                        uint8_t *data, bool *ret_older);
/* Takes in a write all of whose sectors are there. False when a record does not check. */
bool log_replay_whole(struct log *log, const struct log_write *w, const struct log_segment *segment,
                      const uint8_t *data);
/* Takes in what is left of a damaged write (`bad` sectors of it are zeroed), or a whole one behind damage. False: what
 * it changed only the next write can tell. */
bool log_replay_damaged(struct log *log, const struct log_write *w, const struct log_segment *segment,
                        const uint8_t *data, uint32_t bad);
/* The next write says what became of the one before: synced, or doubtful. */
void log_replay_settle(struct log *log, uint64_t synced);
/* Names and votes of all groups are in doubt until a segment's first record says them. */
void log_replay_unsure(struct log *log);
/* The write laid out or read is over: the next one begins. */
void log_touches_shift(struct log *log);

/* log_probe.c: looks at the block at scan.at for the segment of scan.file. True: it is known, or there is none. */
bool log_probe_block(struct log *log, const uint8_t *data);
/* Orders the files. */
void log_probe_order(struct log_scan *scan);

void log_scan_start(struct log *log, uint64_t now_ns, struct effects *fx);
void log_scan_done(struct log *log, uint32_t number, const struct event *event, struct effects *fx);
void log_scan_deinit(struct log *log);

void log_read_start(struct log *log, const struct message *m, struct effects *fx);
void log_read_done(struct log *log, const struct event *event, struct effects *fx);
void log_read_deinit(struct log *log);

#endif
