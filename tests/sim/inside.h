/* What world.c, interpret.c and net.c share and scenarios do not see: the heap's items and the connections. */
#ifndef CAIRN_SIM_INSIDE_H
#define CAIRN_SIM_INSIDE_H

#include "world.h"

enum item_kind {
    ITEM_TURN,
    ITEM_MESSAGE,
    ITEM_CLOSED,
    ITEM_TIMER,
    ITEM_DISK,
    ITEM_FLUSH,
    ITEM_SCAN,
    ITEM_COMPUTE,
    ITEM_CALL
};

struct item {
    uint64_t at_ns, sequence;
    enum item_kind kind;
    union {
        struct node *node; /* NULL: ITEM_CALL */
        struct item *next; /* of those that are spare */
    };
    uint64_t boot; /* of the node; an item for an earlier boot is void */
    unsigned actor;
    union {
        struct {
            uint64_t conn;
            unsigned side; /* receiving */
            struct message message;
            struct address to;
        } net;
        struct {
            uint64_t conn;
            unsigned side;
            struct address peer;
            enum err err;
            bool alone; /* no connection: only `actor` hears of it */
        } closed;
        struct {
            uint64_t id, generation;
        } timer;
        struct {
            uint64_t token;
            struct disk_op *op;
            int dir;
        } disk;
        struct {
            uint64_t token, flush;
            int dir;
        } kv;
        struct {
            uint64_t token;
            struct slice pairs;
        } scan;
        struct {
            uint64_t token;
            struct compute_job *job;
        } compute;
        struct {
            world_call *call;
            void *context;
            uint64_t argument;
        } call;
    };
};

/* A connection: side 0 made it. A side learns of its end some time after it broke. */
struct conn {
    uint64_t id;
    bool broken;
    struct conn_side {
        struct node *node;
        uint64_t boot;
        bool open;           /* it has not learnt of the end */
        uint64_t arrived_ns; /* latest arrival planned at this side: TCP keeps order */
        uint64_t cut_ns;     /* broken: what would arrive later is lost */
        uint64_t actors;     /* bit set: actors of this side that used it */
    } side[2];
};

/* Takes an item of `kind` on the heap at a time; fill in the rest of what is returned. */
struct item *world_item(struct world *world, uint64_t at_ns, enum item_kind kind, struct node *node);
struct item *heap_pop(struct world *world);
/* An item has happened, and what it carried is gone. */
void item_spare(struct world *world, struct item *item);
void items_deinit(struct world *world);
/* Puts an event (slices given) into an actor's inbox. */
void actor_push(struct node *node, struct actor *actor, const struct event *event);
void event_drop(struct event *event);

/* Executes one effect; takes what it carries. */
void effect_execute(struct node *node, struct actor *actor, struct effect *effect);
/* Frees what an effect carries. */
void effect_drop(struct effect *effect);
const char *node_role_name(const struct node *node);
void trace_event(struct node *node, struct actor *actor, const struct event *event);
void trace_effect(struct node *node, struct actor *actor, const struct effect *effect);

void net_send(struct node *node, struct actor *actor, struct effect *effect);
void net_deliver(struct world *world, struct item *item);
void net_closed(struct world *world, struct item *item);
/* The node has gone: its connections break. */
void net_node_down(struct node *node, enum crash_mode mode);
void net_deinit(struct world *world);

#endif
