/* What the files of the client's core share. See client.h for the outside, README.md for the rules. */
#ifndef CAIRN_CLIENT_INTERNAL_H
#define CAIRN_CLIENT_INTERNAL_H

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/compute.h"
#include "base/cut.h"
#include "client.h"
#include "proto/cairn.pb-c.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/token.h"

#define SECOND_NS            1000000000ull
#define MILLISECOND_NS       1000000ull
#define BACKOFF_FIRST_NS     (100 * MILLISECOND_NS)
#define BACKOFF_LAST_NS      (30 * SECOND_NS)
#define ATTEMPT_UNHEARD_NS   (1 * SECOND_NS) /* of a metadata node that never answered this client */
#define ATTEMPT_FIRST_NS     (3 * SECOND_NS)
#define ATTEMPT_LAST_NS      (15 * SECOND_NS)
#define BUDGET_NS            (30 * SECOND_NS)
#define STORE_IDLE_NS        (4 * SECOND_NS)
#define STORE_LONGEST_NS     (30 * SECOND_NS)
#define STORE_DEAD_NS        (5 * SECOND_NS)
#define STORE_DEAD_MAX_NS    (60 * SECOND_NS)
#define CHUNK_WAIT_NS        (500 * MILLISECOND_NS)
#define MAP_MIN_AGE_NS       (300 * MILLISECOND_NS)
#define MAP_MAX_AGE_NS       (30 * SECOND_NS)
#define WINDOW_BYTES         (96ull << 20)
#define WINDOW_RESERVE_BYTES (2ull * LIMIT_CHUNK_BYTES)
#define REQUEST_BITS         12
#define REQUESTS             (1u << REQUEST_BITS)
#define WORKSPACES           16u
#define REFUSALS             32u
#define RESTARTS             3u
#define REDIRECTS            4u
#define NODE_GONE            2u /* MapNode.state */

/* ---- requests (call.c) ---- */

/* What a request is for; decides who hears of its end. */
enum owner_kind {
    OWNER_MAP,
    OWNER_RESOLVE,   /* index: workspace */
    OWNER_CALL,      /* op */
    OWNER_PUT,       /* op: start, stage, complete or put-small */
    OWNER_PUT_SHARD, /* op, entry: chunk, index: shard */
    OWNER_GET,       /* op: a manifest page */
    OWNER_GET_SHARD, /* op, entry: chunk, index: source */
    OWNER_GET_INVENTORY,
};
struct owner {
    enum owner_kind kind;
    uint32_t op;  /* slot */
    uint32_t gen; /* of the slot: a restart makes older answers void */
    uint32_t index;
    uint64_t entry;
};

enum request_state { REQUEST_FREE, REQUEST_KEY, REQUEST_SENT, REQUEST_BACKOFF };

/* One request and its attempts. A new attempt has a new stream and the same bytes. */
struct request {
    enum request_state state;
    struct owner owner;
    uint16_t type;
    uint64_t stream; /* counter << REQUEST_BITS | slot; also the timer's id */
    bool mutation;
    bool fixed;     /* a named node: no redirect, no rotation */
    uint32_t store; /* number in the map; 0: to a metad */
    uint32_t group;
    uint64_t ns;
    struct address to;
    struct slice rest; /* REQUEST_KEY: the header without its head */
    struct slice header, body;
    uint32_t attempts, redirects, refusals;
    uint64_t sent_ns, started_ns, deadline_ns;
    enum err last;
    char text[CLIENT_TEXT_BYTES];
};

/* The end of a request as its owner sees it: the reply's slices are borrowed for the step. */
struct outcome {
    enum err err;
    const char *text;
    struct slice header, body;
    uint32_t store;
};

/* ---- map and placement ---- */

struct workspace {
    char name[CLIENT_WORKSPACE_BYTES];
    enum { WORKSPACE_FREE, WORKSPACE_ASKED, WORKSPACE_KNOWN } state;
    uint32_t group_index; /* which group of the map was asked */
    uint32_t group;       /* that resolved it */
    enum err refusal;     /* the kindest answer so far */
    uint64_t ns, root, realm;
    uint32_t pool;
    struct cut_params cut; /* min_bytes 0: chunks of max_bytes each */
    uint32_t copy_bytes;   /* chunks up to this are kept as copies */
};

/* What this client knows of a store's health. */
struct store_health {
    uint32_t failures;
    uint64_t dead_until_ns;
    bool probing;
    uint64_t heard_ns;
};

/* Stores that refused a chunk: not tried again for it until the map changes. */
struct refusals {
    uint32_t stores[REFUSALS];
    uint32_t count;
};

/* ---- operations ---- */

enum slot_state { SLOT_FREE, SLOT_WAITING /* for the map or the workspace */, SLOT_RUNNING };
struct put;
struct get;
struct op_slot {
    enum slot_state state;
    uint32_t gen;
    struct client_op *op;
    uint32_t workspace; /* index */
    struct put *put;
    struct get *get;
};

/* Idempotency numbers (keys.c). */
struct key_block {
    uint64_t next, end; /* [next, end) are left */
    uint32_t count;     /* when it came */
    uint64_t since_ns;
};
struct client_keys {
    struct key_block block, spare; /* in use; the one behind it */
    uint32_t asked;                /* size of the last one asked for */
    bool wanted;                   /* asked for, not yet here */
};

struct client {
    struct client_params params;
    uint64_t now_ns;
    uint64_t random;
    uint64_t stream_next;
    struct client_keys keys;

    struct request requests[REQUESTS];
    uint32_t request_free[REQUESTS];
    uint32_t request_free_count;
    uint32_t requests_high; /* those ever in use lie below */

    struct proto_arena map_arena;
    Cairn__ClusterMap *map; /* NULL: none yet */
    bool map_asked, map_ready;
    uint64_t map_fetched_ns;
    unsigned long store_rows_count;
    Cairn__MapStore **store_rows; /* by store number; NULL: none */
    struct store_health *health;
    uint32_t leaders[LIMIT_GROUPS];      /* metad number, 0 unknown */
    uint32_t metads[LIMIT_METADS_KNOWN]; /* of the parameters, less who is gone by the map, and the map's */
    uint32_t metad_count;
    uint64_t heard; /* bit i: metads[i] has answered */
    struct workspace workspaces[WORKSPACES];

    struct op_slot slots[CLIENT_OPS];
    uint32_t slots_high; /* slots in use lie below */
    uint32_t pump_next;
    uint64_t window_used;
    bool wake; /* something other operations wait for has changed in this step */
};

/* client.c */
uint64_t client_random(struct client *c);
void client_post(struct effects *fx, uint16_t type, uint64_t id, const void *header, size_t header_bytes,
                 struct slice body);
struct op_slot *client_slot_of(struct client *c, const struct owner *owner);
/* Ends an operation: cancels its requests and gives the op back. `text` may be NULL. */
void client_op_finish(struct client *c, struct op_slot *slot, enum err err, const char *text, struct effects *fx);
void client_request_done(struct client *c, const struct owner *owner, const struct outcome *outcome,
                         struct effects *fx);
/* Room in the window of bulk bytes. `pressed`: WINDOW_RESERVE_BYTES more, for one who must have it to give room. */
bool window_take(struct client *c, uint64_t bytes, bool pressed);
void window_give(struct client *c, uint64_t bytes);
/* Tokens of disk and compute effects, and timers of operations, name slot, generation and chunk. */
uint64_t token_of(const struct client *c, const struct op_slot *slot, uint64_t entry);
struct op_slot *token_slot(struct client *c, uint64_t token, uint64_t *ret_entry);
#define OP_TIMER  (1ull << 63)
#define MAP_TIMER (1ull << 62)

/* call.c: all give their slices. */
void call_group(struct client *c, struct owner owner, uint16_t type, uint32_t group, uint64_t ns, bool mutation,
                struct slice rest, struct slice body, struct effects *fx);
void call_node(struct client *c, struct owner owner, uint16_t type, uint32_t group, uint32_t node, struct slice rest,
               struct effects *fx);
/* False, with the slices dropped, when the store is not in the map. */
bool call_store(struct client *c, struct owner owner, uint16_t type, uint32_t store, struct slice header,
                struct slice body, struct effects *fx);
void call_cancel_op(struct client *c, uint32_t slot, struct effects *fx);
bool call_room(const struct client *c, uint32_t requests);
void call_on_reply(struct client *c, const struct message *message, struct effects *fx);
void call_on_closed(struct client *c, struct address peer, enum err err, struct effects *fx);
void call_on_timer(struct client *c, uint64_t id, struct effects *fx);
void call_on_keys(struct client *c, struct effects *fx);

/* keys.c */
/* The next idempotency number; false: none is here, CLIENT_KEYS was asked for. */
bool keys_take(struct client *c, uint64_t *ret_key, struct effects *fx);
void keys_hear(struct client *c, uint64_t first, uint64_t end);
void call_deinit(struct client *c);

/* route.c */
void route_want_map(struct client *c, bool newer, struct effects *fx);
/* Takes a MAP_GET reply, if its map is newer. BAD_PROTO, also for a map that does not hold together. */
MUST_CHECK enum err route_take_map(struct client *c, struct slice header, struct effects *fx);
void route_on_map(struct client *c, const struct outcome *outcome, struct effects *fx);
void route_on_timer(struct client *c, struct effects *fx);
void route_on_resolve(struct client *c, uint32_t index, const struct outcome *outcome, struct effects *fx);
/* Starts what lacks; true when the workspace is known and stores may be spoken to. `*ret_index` is its index. */
bool route_workspace(struct client *c, const char *name, uint32_t *ret_index, enum err *ret_err, struct effects *fx);
uint32_t route_group_of(const struct client *c, uint64_t ns);
const Cairn__MapPool *route_pool(const struct client *c, uint32_t pool);
const Cairn__MapStore *route_store(const struct client *c, uint32_t store);
/* Whom to ask: who the parameters name and who the map does (NULL: none yet); not who is gone, unless nobody is left.
 */
void route_set_metads(struct client *c, const Cairn__ClusterMap *map);
void route_deinit(struct client *c);

/* place.c */
uint32_t place_pg(const Cairn__MapPool *pool, const struct chunk_id *chunk);
/* The i-th store that may hold slot `slot`: 0 the owner, then the stand-ins; 0 for none. */
uint32_t place_candidate(const Cairn__MapPool *pool, uint32_t pg, uint32_t slot, uint32_t i);
bool place_usable(const struct client *c, uint32_t store);
/* Gives stores to slots 0..count-1 where stores[i] is 0 (others are kept): owners first, then stand-ins, no store
 * twice. Returns how many slots have one. */
uint32_t place_assign(const struct client *c, const Cairn__MapPool *pool, uint32_t pg, uint32_t count,
                      const struct refusals *refusals, uint32_t *stores);
void place_try(struct client *c, uint32_t store);
void place_heard(struct client *c, uint32_t store);
void place_failed(struct client *c, uint32_t store);
void place_forgive(struct client *c);
void refusals_add(struct refusals *refusals, uint32_t store);

/* tree.c */
void tree_start(struct client *c, struct op_slot *slot, struct effects *fx);
void tree_on_done(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx);

/* put.c and put_cut.c */
void put_start(struct client *c, struct op_slot *slot, struct effects *fx);
void put_pump(struct client *c, struct op_slot *slot, struct effects *fx);
void put_on_read(struct client *c, struct op_slot *slot, uint64_t index, enum err err, struct slice data,
                 struct effects *fx);
void put_on_compute(struct client *c, struct op_slot *slot, uint64_t entry, struct compute_job *job,
                    struct effects *fx);
void put_on_confirmed(struct client *c, struct op_slot *slot, enum err err, struct effects *fx);
void put_on_reply(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx);
void put_on_shard(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                  struct effects *fx);
void put_on_timer(struct client *c, struct op_slot *slot, struct effects *fx);
void put_destroy(struct client *c, struct op_slot *slot);

/* get.c */
void get_start(struct client *c, struct op_slot *slot, struct effects *fx);
void get_pump(struct client *c, struct op_slot *slot, struct effects *fx);
void get_on_manifest(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx);
void get_on_shard(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                  struct effects *fx);
void get_on_inventory(struct client *c, struct op_slot *slot, const struct owner *owner, const struct outcome *outcome,
                      struct effects *fx);
void get_on_compute(struct client *c, struct op_slot *slot, uint64_t entry, struct compute_job *job,
                    struct effects *fx);
void get_on_ack(struct client *c, struct op_slot *slot, uint64_t bytes, struct effects *fx);
void get_on_timer(struct client *c, struct op_slot *slot, struct effects *fx);
void get_destroy(struct client *c, struct op_slot *slot);

#endif
