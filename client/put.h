/* One upload, shared by put.c (the file), put_cut.c (its bytes, read and cut into chunks), put_stage.c (messages to the
 * namespace's group) and put_chunk.c (the journey of one chunk). A chunk begins when it is cut. Its states and what may
 * follow:
 *
 *   HASHED   -> TWIN, at once
 *   HASHED   -> ASKED
 *   ASKED    -> DONE (present) | SEALING | SENDING (asked again for a new capability)
 *   TWIN     -> DONE, when the chunk with the same hash is
 *   SEALING  -> SENDING
 *   SENDING  -> DONE | OPENING (too few stores for the code) | HASHED (capability expired) | WAITING
 *   OPENING  -> SEALING (as copies)
 *   WAITING  -> SENDING
 *   DONE     -> gone, when staged */
#ifndef CAIRN_CLIENT_PUT_H
#define CAIRN_CLIENT_PUT_H

#include "internal.h"

#define PUT_CHUNKS      1536u /* chunks of one upload in memory, most of them done and waiting for their page's end */
#define PUT_ASKS        64u   /* asked chunks a message */
#define PUT_PAGE_MASK   0xffu /* a page ends behind an entry whose hash ends with these bits zero: mean 256 */
#define PUT_STAGE_BYTES (384u << 10) /* receipts a message: a group takes bodies of half a Raft entry */
#define PUT_START_ASKS  4u           /* hashed chunks that start a session while more are on their way */
#define PUT_READS       4u           /* pieces read ahead */
#define PUT_SEEN        65536u       /* hashes of one file remembered, to send equal chunks once */
#define PUT_SEEN_FIRST  64u          /* rows of the table at first */
#define PUT_REASKS      4u
#define PUT_WINDOW_COST 2u         /* window bytes per plain byte: the piece, then its chunks' shards with parity */
#define PUT_CUT_ENTRY   UINT32_MAX /* names the cutting where a token names a chunk */
_Static_assert(PUT_CHUNKS >= LIMIT_PAGE_ENTRIES + COMPUTE_CUTS, "a page and what a job cuts fit");

/* So many bytes of the file, read at once. It holds its part of the window until all chunks with bytes of it are done:
 * a chunk not yet sealed keeps all of the piece's buffer. */
struct put_piece {
    uint32_t refs;
    bool read;
    uint32_t bytes;
    uint64_t charge;
    struct slice data;
};

enum chunk_state {
    CHUNK_HASHED,
    CHUNK_ASKED,
    CHUNK_TWIN,
    CHUNK_SEALING,
    CHUNK_SENDING,
    CHUNK_OPENING,
    CHUNK_WAITING,
    CHUNK_DONE,
};
enum shard_state { SHARD_IDLE, SHARD_FLYING, SHARD_DONE };

struct put_chunk {
    enum chunk_state state;
    uint64_t entry;
    struct put_piece *pieces[2]; /* where its bytes come from; NULL: none */
    bool staged;                 /* its receipts are */
    struct slice plain;
    uint32_t plain_bytes;
    struct sha256 sha;
    struct chunk_id chunk;
    uint8_t kc[32];
    uint32_t writer;
    struct encoding encoding;
    uint32_t sealed_bytes;
    uint8_t k, m;
    bool sealed; /* shards are there */
    bool expired, fallback;
    uint32_t reasks;
    uint64_t waiting_since_ns;
    enum err last;
    struct refusals refusals;
    uint32_t stores[LIMIT_SHARDS]; /* 0: none */
    enum shard_state shard_states[LIMIT_SHARDS];
    struct slice shards[LIMIT_SHARDS];
    struct slice checks;
    uint8_t *receipts; /* of the shards that are DONE, RECEIPT_BYTES each by index */
    uint32_t receipt_count;
};

/* A hash of this file and what became of it. */
struct seen {
    bool used, done;
    struct sha256 sha;
    uint32_t writer;
    struct encoding encoding;
};

enum put_phase { PUT_READING, PUT_SMALL_CONFIRM, PUT_SMALL, PUT_CONFIRM, PUT_COMPLETE, PUT_PAUSING };
/* The one request to the group that may be under way. */
enum put_flight { PUT_IDLE, PUT_STARTING, PUT_STAGING, PUT_ENDING };

struct put {
    enum put_phase phase;
    enum put_flight flight;
    uint64_t read_next, read_bytes;      /* offset of the next read; bytes read so far */
    bool eof;                            /* all is read or being read */
    struct put_piece *pieces[PUT_READS]; /* ring: those in [piece_first, piece_next) are read or being read */
    uint64_t piece_first, piece_next;
    bool cutting;
    struct slice tail; /* read, and behind the last certain cut */
    struct put_piece *tail_piece;
    struct put_chunk *chunks[PUT_CHUNKS]; /* ring by entry: those in [first, next) */
    uint64_t first, next;
    struct slice small;
    uint64_t session, generation;
    struct slice capability;
    uint32_t writer;
    uint32_t flight_entries; /* of the stage under way */
    uint32_t restarts, map_waits;
    uint64_t restarted_ns, restart_first_ns;
    uint64_t done_bytes;
    bool timer;
    struct seen *seen; /* open addressing, at most half full */
    uint32_t seen_count, seen_rows;
};

static inline struct put_chunk *put_chunk_at(struct put *put, uint64_t entry)
{
    return entry >= put->first && entry < put->next ? put->chunks[entry % PUT_CHUNKS] : NULL;
}
static inline struct owner put_owner(struct client *c, struct op_slot *slot, enum owner_kind kind)
{
    return (struct owner){.kind = kind, .op = (uint32_t)(slot - c->slots), .gen = slot->gen};
}

/* put_cut.c */
uint32_t put_piece_bytes(const struct client *c, const struct op_slot *slot);
/* Reads ahead and cuts what is there, as far as ring, window and source allow. */
void put_cut_pump(struct client *c, struct op_slot *slot, struct effects *fx);
void put_cut_on_compute(struct client *c, struct op_slot *slot, struct compute_job *job, struct effects *fx);
/* Nothing is being read or cut: what is in the ring is all there will be until something is done. */
bool put_cut_idle(const struct put *put);
/* The whole file is in chunks. */
bool put_cut_over(const struct put *put);
void put_cut_clear(struct client *c, struct put *put);
void put_uncharge(struct client *c, struct put_chunk *chunk);

/* put.c */
void put_chunk_free(struct client *c, struct put_chunk *chunk);
/* A new chunk of the file: to be asked about, or equal to an earlier one, which is stored once. */
void put_hashed(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx);
void put_chunk_done(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx);
/* Begins the file anew in a new session, after a pause; ends the operation when that cannot be, or when the budget is
 * spent: with `err`, or UNAVAILABLE where `err` says that stores went away. */
void put_restart(struct client *c, struct op_slot *slot, enum err err, const char *text, struct effects *fx);
void put_arm_timer(struct client *c, struct op_slot *slot, struct effects *fx);
/* The remembered hash: found, or a new row, or NULL when the table is full. */
struct seen *put_seen(struct put *put, const struct sha256 *sha);

/* put_stage.c */
void put_stage_pump(struct client *c, struct op_slot *slot, struct effects *fx);
void put_send_small(struct client *c, struct op_slot *slot, struct effects *fx);
void put_send_complete(struct client *c, struct op_slot *slot, struct effects *fx);

/* put_chunk.c */
void put_chunk_seal(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx);
void put_chunk_send(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx);
void put_chunk_on_compute(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct compute_job *job,
                          struct effects *fx);
void put_chunk_retry(struct client *c, struct op_slot *slot, struct put_chunk *chunk, struct effects *fx);

#endif
