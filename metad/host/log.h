/* The node's write-ahead log: one actor (ACTOR_LOG), one sequence of segment files, shared by all groups of the node.
 * Stands between raft and the disk. Everything that waits is written by one batch of writes and made durable by one
 * fdatasync.
 *
 * The groups speak to it by local messages whose header is the packed struct named below and whose body is packed
 * entries:
 *
 *   LOG_OPEN    header: u32 group
 *               reply:  u64 term, u32 vote, u64 last index, u64 base index, u64 base term (entries begin behind it; 0,
 * 0 at first), u32 run count, then per run u64 first, u64 term, then u32 count and per CONFIG entry of the log u64
 * index, u32 bytes, bytes; u8 unsure (names or vote are lost: the group must not serve here), then u32 count and per
 * hole u64 index, u64 term, u8 enum log_hole: entries that are named and whose bytes are damaged; u64
 * position: of the last write found; peers, as LOG_PEERS gave them last. Answered once the
 * scan at start has finished; a group asks before anything else. What was cut may be there again.
 *
 *   LOG_APPEND  header: u32 group, u64 number, u8 hard_changed, u64 term, u32 vote; body: packed entries, may be none
 *               reply:  u64 number, when durable, u64 position: of the last durable write of the node's log (R-E3).
 * Replies to one group come in order. entries[0].index may be at or below the last one: what is there from that index
 * on is cut.
 *
 *   LOG_RESET   header: u32 group, u64 number, u64 index, u64 term
 *               reply:  u64 number, when durable; in order with those of appends. All entries of the group are dropped,
 *                       its log goes on behind `index`, whose term is `term`. Term and vote stay.
 *
 *   LOG_CUT     header: u32 group, u64 index, u64 term; no reply. Entries up to index, whose term is `term`, are not
 *                       needed any more: what they did is behind a durable flush.
 *
 *   LOG_PINNED  from the log to a group; header: u32 group, u64 index. Its entries keep the oldest of many segments:
 *                       flush, and cut. Those up to `index` (0: none) keep more than may be kept for members that lag.
 *
 *   LOG_READ    header: u32 group, u64 first, u32 count
 *               reply:  body: packed entries, fewer than asked when over 1 MiB or 256 of them or up to a hole; none
 * only when `first` is a hole, behind what is durable, or not behind the base. What was asked beyond that is read
 * meanwhile, for the next one.
 *
 *   LOG_ROTTEN  from the log to a group; header: u32 group, u64 index, u64 term. A read found the entry's bytes
 *                       damaged: it is a hole (LOG_HOLE_ROT) from now on. Comes before the answer to the read, again
 *                       with each read that begins there.
 *
 *   LOG_HEAL    header: u32 group, u64 number; body: one packed entry, whose name is that of a hole
 *               reply:  u64 number, when durable. Entries behind it stay.
 *
 *   LOG_TRIM    header: u32 group, u64 index; no reply. Entries from index on, the first of them a hole, are not the
 *                       group's (R-E2). Durable with what comes after.
 *
 *   LOG_PEERS   header: u32 group, u8 now, then peers; no reply. What the group knows of other members' logs (R-E3):
 * durable with the next write, whosever it is; now: with one that begins as soon as no other is under way.
 *
 *   LOG_FETCH   header: u32 group, u64 index, u64 term
 *               reply:  u8 enum log_verdict, u64 term of the entry before; body: the packed entry when LOG_HAS.
 *
 * Peers: u32 count, per peer u32 node, 16 bytes directory, u64 boot, u64 position, u64 config.
 * Packed entry, the same as in the RAFT frame's body: u64 index, u64 term, u8 type, u32 bytes, bytes.
 *
 * Disk format (R-E1, R-E2): byte map at the head of log_format.h; recovery: log_recover.c; rules: README.md. */
#ifndef CAIRN_METAD_HOST_LOG_H
#define CAIRN_METAD_HOST_LOG_H

#include "base/effect.h"
#include "base/ids.h"
#include "raft/raft.h"

struct log;

/* Why an entry's bytes are not there. */
enum log_hole {
    LOG_HOLE_ROT,   /* it was durable here (R-E1) */
    LOG_HOLE_DOUBT, /* it may never have been (R-E2) */
    LOG_HOLE_TORN,  /* the same, and where it should stand there is only what is older */
    LOG_HOLE_FRESH, /* in the scan at start: which of these, the next write says */
};

/* What a node's log says of an entry by its name (group, index, term). */
enum log_verdict {
    LOG_HAS = 1, /* durably */
    LOG_NONE,    /* it has none of that name */
    LOG_LACKS,   /* it had it, and its bytes are damaged */
    LOG_DOUBTS,  /* the same, but it may never have been durable */
    LOG_TORN,    /* it was writing it; only older bytes stand there: it was never durable */
    LOG_BEHIND,  /* in its snapshot */
    LOG_UNTOLD,  /* not now */
    LOG_VERDICTS
};

/* What is known of another member's log (R-E3). */
struct log_peer {
    uint32_t node;
    struct uuid directory;
    uint64_t boot;     /* random, of the process that was heard last */
    uint64_t position; /* the highest durable one that it told */
    uint64_t
        config; /* index of the committed configuration under which it was heard last; 0: of the first, or not known */
};
#define LOG_PEER_BYTES     44u
#define LOG_PEER_OLD_BYTES 36u /* without the configuration, as it was written first */
struct writer;
struct reader;
void log_peers_put(const struct log_peer *peers, uint32_t count, struct writer *w);
/* At most RAFT_MEMBERS_MAX. False: malformed. */
MUST_CHECK bool log_peers_read(struct reader *r, struct log_peer *ret_peers, uint32_t *ret_count);

struct log_params {
    struct uuid directory;         /* the data directory's uuid: a record of another one is stale */
    uint32_t segment_bytes;        /* LIMIT_LOG_SEGMENT_BYTES; less in simulation */
    const struct file_info *files; /* FILE_LOG files found, ascending */
    uint32_t file_count;
};

struct log *log_create(const struct log_params *params);
void log_destroy(struct log *log);
actor_step log_step; /* actor: struct log */

/* Entries <-> packed bytes; shared with the RAFT message body. Decoded data are sub-slices of `body`. */
void raft_entries_encode(const struct raft_entry *entries, uint32_t count, struct slice *ret_body);
/* BAD_PROTO on anything malformed. The caller frees *ret_entries and drops each data. */
MUST_CHECK enum err raft_entries_decode(struct slice body, struct raft_entry **ret_entries, uint32_t *ret_count);

struct log_status {
    uint64_t syncs, records, bytes, append_position;
    uint64_t healed; /* entries written anew */
    uint32_t segments;
};
struct log_status log_status(const struct log *log);

#endif
