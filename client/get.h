/* One download, shared by get.c (pages, order, delivery) and get_chunk.c (one chunk). States of a chunk:
 *
 *   FETCHING  -> OPENING (k shards) | ASKING (the owners do not suffice) | WAITING
 *   ASKING    -> FETCHING (with what the inventories named)
 *   OPENING   -> READY | FETCHING (it did not open: other shards)
 *   WAITING   -> FETCHING (all anew)
 *   READY     -> gone, when delivered in its turn */
#ifndef CAIRN_CLIENT_GET_H
#define CAIRN_CLIENT_GET_H

#include "internal.h"

#define GET_CHUNKS       64u /* chunks of one download under way */
#define GET_SOURCES      96u /* shards of one chunk that are known somewhere */
#define GET_COMBINATIONS 64u /* sets of k shards that are tried on a chunk that does not open */
#define GET_WINDOW_COST  2u

enum get_chunk_state { GET_FETCHING, GET_ASKING, GET_OPENING, GET_WAITING, GET_READY };

/* A shard that may be on a store. */
enum source_state { SOURCE_UNTRIED, SOURCE_FLYING, SOURCE_HERE, SOURCE_FAILED };
struct source {
    enum source_state state;
    uint32_t store;
    uint8_t k, m, index;
    uint32_t sealed_bytes; /* as the store says */
    struct slice data;
};

struct get_chunk {
    enum get_chunk_state state;
    uint64_t entry, offset, charge;
    struct manifest_read manifest;
    uint8_t k, m; /* the code that is being tried */
    struct source sources[GET_SOURCES];
    uint32_t source_count;
    bool inventoried; /* every store of its placement group was asked what it has */
    bool expired;
    uint32_t flights; /* shards or inventories under way */
    uint32_t unanswered;
    uint32_t combination; /* mask of the indexes last tried; 0 none */
    uint32_t combinations;
    uint64_t waiting_since_ns;
    enum err last;
    struct slice plain;
};

struct get {
    bool begun, asking; /* a page is asked for */
    bool refresh;       /* for its capability only */
    uint64_t version;
    uint64_t bytes; /* of the file */
    uint64_t entries;
    struct slice capability;
    uint64_t refreshed_ns; /* when a capability was last asked for again */
    uint32_t pool;
    uint64_t realm;
    struct manifest_read *page;
    uint64_t page_first;
    uint32_t page_count;
    struct get_chunk *chunks[GET_CHUNKS]; /* ring by entry: those in [first, next) */
    uint64_t first, next;
    uint64_t offset_next;      /* of chunk `next` */
    uint64_t unacked, charged; /* delivered bytes not yet consumed; window they hold */
    uint64_t delivered;
    bool timer;
};

static inline struct get_chunk *get_chunk_at(struct get *get, uint64_t entry)
{
    return entry >= get->first && entry < get->next ? get->chunks[entry % GET_CHUNKS] : NULL;
}

/* get.c */
void get_arm_timer(struct client *c, struct op_slot *slot, struct effects *fx);
/* A store said that the capability has expired: asks for the page again. */
void get_want_capability(struct client *c, struct op_slot *slot, struct effects *fx);

/* get_chunk.c */
void get_chunk_begin(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx);
void get_chunk_go(struct client *c, struct op_slot *slot, struct get_chunk *chunk, struct effects *fx);
void get_chunk_free(struct client *c, struct get_chunk *chunk);

#endif
