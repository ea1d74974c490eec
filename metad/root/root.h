/* The root group's machine (R-D10): the cluster map, the wrapped keys, where namespaces live. Nothing hot. */
#ifndef CAIRN_METAD_ROOT_ROOT_H
#define CAIRN_METAD_ROOT_ROOT_H

#include "metad/machine.h"

/* A silent store is down after so long; what an up store's heartbeat renews. */
#define STORE_SILENT_NS (5ull * 1000000000)
#define TICK_NS         (10ull * 1000000000)
#define STORE_UP        0u
#define ROOT_MAP_BYTES  (LIMIT_FRAME_HEADER_BYTES - (64u << 10)) /* a map travels in one header */
#define NODE_IN_USE     0u                                       /* MapNode.state */
#define NODE_JOINING    1u /* known by name, member of no group yet or not of all */
#define NODE_GONE       2u /* removed; its number is never used again */
#define STORE_DOWN      1u

/* What the leader of the root group knows of a store and does not commit. */
struct store_health {
    uint32_t store;
    bool up; /* in the map, when last looked at: one that registers has STORE_SILENT_NS to send its first heartbeat */
    uint64_t heard_ns;
    uint64_t incarnation, last_record; /* the highest that this incarnation told */
    bool rolled_back;                  /* it told less since: what is known is to be committed at once */
    uint64_t used_bytes, capacity_bytes;
    Cairn__StoreCounters counters;
};

/* What it knows of a block server. */
struct node_health {
    uint32_t node;
    uint64_t refused[ERR_LIMIT]; /* since that node's start, by reason */
};

struct root {
    struct store_health *stores;
    unsigned long count, capacity;
    struct node_health *nodes;
    unsigned long node_count, node_capacity;
    uint64_t next_tick_ns;
    uint64_t led_since_ns; /* 0: not leading */
};

void root_deinit(struct root *root);
/* What is known of a block server, or NULL. */
const struct node_health *root_node_find(const struct root *root, uint32_t node);

/* The record under (0, m); NOT_FOUND before the first. */
/* Of group 0. */
struct key key_root(struct prefix group);
MUST_CHECK enum err root_record_get(struct state *state, struct proto_arena *arena, Cairn__RootRecord **ret);
/* First record: fresh keys from the cluster key, the bootstrap's and the event's random bits, wrapped by the cluster
 * key. */
void root_init_make(const struct bootstrap *bootstrap, const uint8_t cluster_key[32], uint64_t random,
                    struct proto_arena *arena, Cairn__RootRecord *ret_record);
/* Opens the keys of a record. CORRUPT when the cluster key is not the one that wrapped them. */
MUST_CHECK enum err root_keys_open(const Cairn__RootRecord *record, const uint8_t cluster_key[32],
                                   Cairn__RootState *ret_state, struct proto_arena *arena);
/* Applies a RootCommand. */
enum err root_command_apply(struct apply *apply, const Cairn__RootCommand *command);
/* STORE_REGISTER on every replica. */
enum err store_register_apply(struct apply *apply, struct answer *answer);
/* At the leader's door. */
enum err store_register_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err store_register_finish(struct finish *finish, struct answer *answer);
/* STORE_HEARTBEAT on the leader. */
enum err store_heartbeat(struct group *group, const struct message *message, const void *request,
                         struct proto_arena *arena, struct answer *answer);
/* What the leader should propose now (a tick, stores that fell silent or came back); false: nothing. */
bool root_due(struct root *root, struct state *state, uint64_t now_ns, struct proto_arena *arena,
              Cairn__RootCommand *ret);

/* known.c: the most that each store said to be durable (R-B2). */
/* At a registration, on every replica: the store's incarnation in the map, a new one when it came back below what is
 * known. True when the record changed. */
bool known_register(Cairn__RootRecord *record, const Cairn__StoreRegisterRequest *request, uint64_t random,
                    Cairn__MapStore *store, struct proto_arena *arena);
/* Takes over what the leader heard. */
void known_raise(Cairn__RootRecord *record, const Cairn__RootCommand *command);
/* A heartbeat on the leader; false when it tells less than one before: it has to register again. */
bool known_heard(struct store_health *health, uint64_t incarnation, uint64_t last_record);
/* Puts into the command what has risen; true when that cannot wait for a tick. */
bool known_due(const struct root *root, const Cairn__RootRecord *record, bool tick, struct proto_arena *arena,
               Cairn__RootCommand *ret);
/* A registration at the leader's door. NOT_READY while it tells less than was heard and that is not committed yet. */
MUST_CHECK enum err known_register_prepare(struct root *root, const Cairn__RootRecord *record,
                                           const Cairn__StoreRegisterRequest *request);

/* Metadata nodes (nodes.c). The row of one in the map, or NULL. */
Cairn__MapNode *map_find_metad(const Cairn__ClusterMap *map, uint32_t node);
/* It has been in use for so long that all who fetch the map have its address; so have the first ones. */
bool map_metad_is_heard(const Cairn__ClusterMap *map, uint32_t node);
bool node_address_is_sound(const char *address);
/* Takes a metadata node's address into the map. NOT_FOUND: nobody named it, or it is gone. */
MUST_CHECK enum err root_node_register(struct apply *apply, Cairn__ClusterMap *map,
                                       const Cairn__NodeRegisterRequest *request, bool *ret_changed);
enum err node_register_apply(struct apply *apply, struct answer *answer);
enum err admin_node_apply(struct apply *apply, struct answer *answer);
/* Writes the record with a new epoch; TOO_LARGE when its map would not travel in one frame. */
MUST_CHECK enum err root_map_put(struct apply *apply, Cairn__RootRecord *record);
/* The row of a metadata node; a new one, joining, where there is none (NULL: too many). */
Cairn__MapNode *map_take_metad(Cairn__ClusterMap *map, uint32_t node, struct proto_arena *arena);

/* The map of a new incarnation: this metadata node alone, all others gone (R-A10). */
MUST_CHECK enum err root_recover(struct apply *apply, uint64_t incarnation, uint32_t node);

/* Tokens (join.c). */
/* Nothing that a token gave a number to before takes another's: what was given and is not known here is left out. */
void joins_forget(struct apply *apply, Cairn__RootRecord *record);
enum err admin_token_apply(struct apply *apply, struct answer *answer);
enum err admin_token_finish(struct finish *finish, struct answer *answer);
enum err node_join_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err node_join_apply(struct apply *apply, struct answer *answer);
enum err node_join_finish(struct finish *finish, struct answer *answer);

/* Seats stores in the placement groups of every pool that has none yet, and stand-ins (placement.c). True when the map
 * changed. */
bool placement_compute(Cairn__ClusterMap *map, uint32_t stores_needed, struct proto_arena *arena);

#endif
