/* The world of a simulation: the second interpreter of base/effect.h, under a seed. It stands where io/runtime.c stands
 * in a daemon, and runs the very same archives.
 *
 * A world has nodes; a node has data directories (a disk and a key-value store each) and, while it is up, actors, made
 * by its boot function at every start from what its directories hold. Everything that happens is an item on one heap
 * ordered by virtual time: an actor's turn, a message's arrival, a completion, a timer, a call of the scenario. An
 * actor's inbox is in order; between actors the seed chooses.
 *
 * Each effect that is executed has a number: the crash points. A crash just before effect K loses K and the rest of its
 * step's list, and everything of the process but what its disks and databases keep. */
#ifndef CAIRN_SIM_WORLD_H
#define CAIRN_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/effect.h"
#include "base/kv.h"
#include "disk.h"
#include "kv.h"
#include "rng.h"
#include "trace.h"

#define MICROSECOND        1000ull
#define MILLISECOND        1000000ull
#define SECOND             1000000000ull
#define WORLD_NODE_DIRS    8
#define WORLD_NODE_ACTORS  32
#define WORLD_NODES        64
#define WORLD_PROBES       8
#define WORLD_FINDING_TEXT 512

struct world;
struct node;

/* Chances are parts of a million, per event they name. */
struct world_knobs {
    uint64_t turn_min_ns, turn_max_ns; /* from an event's arrival to the actor's turn */
    uint32_t stall_ppm;                /* a turn that comes late, by up to stall_max_ns */
    uint64_t stall_max_ns;
    uint64_t net_min_ns, net_max_ns; /* of a message */
    uint32_t net_slow_ppm;           /* a message that takes up to net_slow_max_ns */
    uint64_t net_slow_max_ns;
    uint32_t net_reset_ppm;     /* a send that breaks its connection */
    uint32_t net_lose_ppm;      /* a message lost without a word; not TCP: for protocols that must bear it */
    uint32_t net_duplicate_ppm; /* likewise */
    uint32_t net_reorder_ppm;   /* likewise */
    uint64_t disk_min_ns, disk_max_ns;
    uint32_t disk_slow_ppm;
    uint64_t disk_slow_max_ns;
    uint64_t flush_min_ns, flush_max_ns; /* of a key-value store */
    uint64_t compute_min_ns, compute_max_ns;
    uint32_t timer_late_ppm;
    uint64_t timer_late_max_ns;
    uint32_t wall_jump_ppm; /* per event: the wall clock jumps by up to a day either way */
};

enum crash_mode {
    CRASH_KILL, /* the process ends: what was written stays written, unsynced */
    CRASH_POWER /* the machine ends: unsynced sectors are drawn */
};

struct actor {
    enum actor_kind kind;
    uint32_t index;
    actor_step *step;
    void (*destroy)(void *);
    void *self;
    int dir; /* whose disk and database its effects go to; -1 none */
    struct event *inbox;
    unsigned long inbox_head, inbox_count, inbox_capacity;
    bool turn_is_set; /* a turn of it is on the heap */
    struct world_timer {
        uint64_t id, generation; /* of the item on the heap that counts; a timer set again voids the one before */
    } * timers;
    unsigned long timer_count, timer_capacity;
};

/* Makes the node's actors (world_actor_add) at each start. */
typedef void node_boot(struct world *world, struct node *node, void *context);

struct node {
    struct world *world;
    enum role role;
    uint32_t id;
    uint32_t principal; /* number in its certificate: id, unless several processes share one */
    struct sha256 key;  /* of the key in its certificate; zero where nobody asks */
    unsigned slot;      /* position in the world */
    bool up;
    bool halted; /* by an EFFECT_HALT, until it is started again */
    enum err halt_err;
    uint64_t boot;           /* counts the starts */
    int32_t clock_ppm;       /* its monotonic clock runs so much faster than the world's, or slower */
    uint64_t wall_offset_ns; /* of its wall clock, beside the world's; wraps */
    node_boot *start;
    void *context;
    unsigned dirs;
    struct disk *disks[WORLD_NODE_DIRS];
    struct sim_kv *kvs[WORLD_NODE_DIRS];
    struct actor actors[WORLD_NODE_ACTORS];
    unsigned actor_count;
    uint64_t crash_countdown; /* of its own effects; 0: no crash is planned */
    enum crash_mode crash_mode;
    uint64_t crashes;
};

/* Runs after each step, before its effects are executed: what invariants look at. */
typedef void world_probe(struct world *world, struct node *node, struct actor *actor, void *context);
/* After a step, each effect before it is executed. */
typedef void world_effect_probe(struct world *world, struct node *node, struct actor *actor,
                                const struct effect *effect, void *context);
typedef void world_call(struct world *world, void *context, uint64_t argument);

struct world {
    uint64_t seed;
    uint64_t now_ns;
    uint64_t wall_offset_ns;
    struct world_knobs knobs;
    bool sync_lies; /* planted: all disks lie (disk_knobs) */
    struct trace trace;
    struct rng rng, rng_net, rng_actor, rng_scenario;
    struct node *nodes[WORLD_NODES];
    unsigned node_count;
    bool blocked[WORLD_NODES][WORLD_NODES]; /* from, to: the network carries nothing that way */
    struct item **heap;
    unsigned long heap_count, heap_capacity;
    struct item *spare_items; /* that have happened, linked, for the next ones */
    struct effects effects;   /* of the step under way; its memory serves all steps */
    uint64_t item_sequence;
    struct conn **conns;
    unsigned long conn_count, conn_capacity;
    uint64_t conn_sequence;
    uint64_t effect_number; /* effects executed so far */
    uint64_t crash_at;      /* --crash-at; 0 none */
    uint64_t event_number;  /* steps so far */
    uint64_t event_limit;   /* more of them is a finding; 0 none */
    struct {
        world_probe *probe;
        void *context;
    } probes[WORLD_PROBES];
    unsigned probe_count;
    world_effect_probe *effect_probe;
    void *effect_context;
    bool (*halt_allowed)(struct world *world, struct node *node, enum err err, const char *reason);
    /* Called when a node has crashed or halted, whatever the cause: the scenario plans its restart. */
    void (*node_down)(struct world *world, struct node *node, void *context);
    void *node_down_context;
    /* A local message is lost with its process: for those that carry what somebody must free. */
    void (*message_lost)(struct world *world, const struct message *message);
    /* What a node that lies makes of a message it sends; the bytes are the receiver's. */
    void (*tamper)(void *context, const struct node *from, struct message *message);
    void *tamper_context;
    uint64_t lag_ns[WORLD_NODES][WORLD_NODES]; /* from, to: added to each message's delay */
    uint64_t operations, faults;               /* for the report: the scenario counts them */
    bool failed;
    char finding[WORLD_FINDING_TEXT];
    struct node *stepping; /* whose event it is just now; NULL: the scenario's */
    char finding_node[32]; /* as the trace names it */
};

struct world *world_create(uint64_t seed, bool print);
/* Destroys actors and everything else. */
void world_destroy(struct world *world);
/* Ends all actors at once; for scenarios whose own objects the actors use. */
void world_end(struct world *world);

/* A node that is down until node_start. */
struct node *world_node_add(struct world *world, enum role role, uint32_t id, unsigned dirs, node_boot *boot,
                            void *context);
struct node *world_node_find(struct world *world, enum role role, uint32_t id);
/* From within a node_boot. The actor's first event is TIMER with id 0. `destroy` may be NULL. */
void world_actor_add(struct node *node, enum actor_kind kind, uint32_t index, actor_step *step, void (*destroy)(void *),
                     void *self, int dir);
/* The actor, or NULL when the node is down or has none such. */
struct actor *node_actor(struct node *node, enum actor_kind kind, uint32_t index);
/* The node's own monotonic clock at a time of the world, and back. */
uint64_t node_clock(const struct node *node, uint64_t world_ns);
uint64_t node_clock_back(const struct node *node, uint64_t node_ns);

void node_start(struct node *node);
/* Nothing when it is down already. */
void node_crash(struct node *node, enum crash_mode mode);
/* Crashes it just before it executes its `effects`-th effect from now (1: the next one). */
void node_crash_after(struct node *node, uint64_t effects, enum crash_mode mode);

/* Runs a function of the scenario at a time. */
void world_at(struct world *world, uint64_t at_ns, world_call *call, void *context, uint64_t argument);
void world_probe_add(struct world *world, world_probe *probe, void *context);
/* Runs to a time, or until a finding: false then. */
bool world_run_until(struct world *world, uint64_t until_ns);
/* Puts a message into a local actor's inbox as io/runtime.h runtime_post does. Slices are given. */
void world_post(struct node *node, enum actor_kind kind, uint32_t index, uint16_t type, uint64_t stream,
                struct slice header, struct slice body);

/* Cuts the network between two nodes both ways, or joins it again; world_heal joins all. */
void world_cut(struct world *world, struct node *a, struct node *b, bool cut);
void world_heal(struct world *world);
/* Messages of one direction come so much later, in order; until world_heal. */
void world_lag(struct world *world, const struct node *from, const struct node *to, uint64_t lag_ns);
/* One way only. */
void world_block(struct world *world, const struct node *from, const struct node *to);

/* A line of the trace that is no event and not hashed. */
void world_note(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Records what is wrong (the first stands) and stops the run. */
void world_finding(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define WORLD_REQUIRE(world, condition, ...)                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            world_finding(world, __VA_ARGS__);                                                                         \
        }                                                                                                              \
    } while (0)

#endif
