/* What the operations of a group are written against: keys, records, the context of an apply and of a query, and the
 * table of operations. One operation is one file (decode, check, apply, event) and one row of the table in
 * operations.c; the dispatcher knows none by name.
 *
 * An operation that changes something has up to three parts:
 *   prepare  on the leader, before it proposes: checks what needs a key and computes ids and sealed bytes into
 *            Command.extra (R-F5)
 *   apply    on every replica, in log order, deterministic: reads through the overlay, writes the batch, gives the
 *            answer
 *   finish   on the leader that answers: adds what must not lie in a log or an answer record (chunk keys, a fresh
 *            capability)
 * A query has one: a pure function of (view, request), run after a ReadIndex. */
#ifndef CAIRN_METAD_MACHINE_H
#define CAIRN_METAD_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/effect.h"
#include "base/ids.h"
#include "base/kv.h"
#include "metad/metad.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

struct root;
struct group;

#define REALM_FIRST     1u
#define NAMESPACE_FIRST 1u
#define USER_ROOT       1u
#define WRITER_ROOT     1u
#define POOL_FIRST      1u
#define ENTRY_FILE      1u
#define ENTRY_FOLDER    2u
#define ENTRY_SYMLINK   3u
#define CHANGE_CREATE   1u
#define CHANGE_UPDATE   2u
#define CHANGE_REMOVE   3u
#define CHANGE_MOVE     4u

/* Idempotency answers kept per device: numbers within so many of the device's highest (R-D6). */
#define ANSWER_WINDOW 262144u

/* ---- keys: (group u32, view u32) prefix, a letter, then big-endian fields (R-F9) ---- */

/* Where a group's state lies: its view is another after a snapshot was installed beside it (R-E4). */
struct prefix {
    uint32_t group, view;
};
struct key {
    uint8_t bytes[KV_KEY_BYTES];
    size_t count;
};
/* Begins a key of `group`'s state with `letter`. */
struct key key_begin(struct prefix group, char letter);
void key_u64(struct key *key, uint64_t v);
void key_u32(struct key *key, uint32_t v);
void key_u8(struct key *key, uint8_t v);
void key_bytes(struct key *key, const void *data, size_t bytes);

/* ---- reading records ---- */

/* A group's state as one step sees it: an overlay over the node's database. */
struct state {
    struct prefix group;
    struct kv_overlay *kv;
    struct answers *answers; /* answers.c: read from the state, for speed; NULL: nothing yet */
    struct records *records; /* records.c: of this step; NULL: nothing yet */
};
/* Reads and unpacks the record under `key` into the arena; NOT_FOUND; any other failure is CORRUPT. */
MUST_CHECK enum err state_get(struct state *state, const struct key *key, const ProtobufCMessageDescriptor *descriptor,
                              struct proto_arena *arena, void *ret_record);
bool state_has(struct state *state, const struct key *key);
void state_put(struct state *state, const struct key *key, const void *record);
void state_put_bytes(struct state *state, const struct key *key, const void *data, size_t bytes);
void state_delete(struct state *state, const struct key *key);

/* ---- what the leader knows beside its state ---- */

/* From the root group's replica on this node (ROOT_STATE): the map and the open keys (R-F6). */
struct keyring {
    bool present;
    uint64_t realm;
    uint8_t realm_key[32], realm_secret[32], receipt_master[32], signing_seed[32];
    uint32_t signing_key_id;
    struct slice authority_key, authority; /* empty: not with the cluster */
    struct slice map_bytes;                /* packed ClusterMap */
    Cairn__ClusterMap *map;                /* unpacked from it; NULL before the first */
    struct proto_arena map_arena;
};

/* ---- contexts ---- */

struct answer {
    enum err err;
    const char *text; /* static, or NULL */
    struct slice header, body;
};

struct prepare {
    struct state *state;
    struct root *root;
    const struct keyring *keyring;
    const struct bootstrap *bootstrap;
    Cairn__DeviceRecord *device;
    Cairn__UserRecord *user;
    const void *request; /* unpacked */
    struct slice body;
    uint64_t random;
    const char *text; /* of a refusal */
};

struct apply {
    struct state *state;
    const struct bootstrap *bootstrap;
    const Cairn__Command *command;
    const void *request;
    struct proto_arena *arena; /* of this command */
    struct feed *feed;         /* of this batch */
    const Cairn__UserRecord *user;
};

struct finish {
    struct state *state;
    const struct keyring *keyring;
    const struct bootstrap *bootstrap;
    const uint8_t *cluster_key;
    uint32_t group_count;
    uint64_t wall_ns;
    struct sha256 bearer; /* of the key that the asking peer has shown to hold */
    uint32_t device;
    uint32_t writer;
    struct slice request_body;
    const void *request;
};

struct query {
    struct state *state;
    const struct keyring *keyring;
    const struct bootstrap *bootstrap;
    const Cairn__UserRecord *user;
    uint32_t device;
    struct sha256 bearer; /* of its key, as shown */
    struct proto_arena *arena;
    struct raft_status raft;
    struct root *root;                    /* group 0 on its leader */
    const uint64_t *refused;              /* by the group: ERR_LIMIT counts */
    uint64_t holes, mended, rot_behind;   /* damaged entries of this node's log (host/heal.c) */
    uint64_t digests, digest_at;          /* compared and equal (R-E6) */
    bool stale[RAFT_MEMBERS_MAX];         /* per member of the configuration in force (host/identity.c) */
    bool lost[RAFT_MEMBERS_MAX];          /* likewise: its state is fetched */
    const struct node_counters *counters; /* NULL: none */
};

/* ---- events of one batch ---- */

/* Events gather while a batch is applied and are written as one packed value (R-D4). */
struct feed {
    struct writer packed; /* a FeedBatch of what gathered */
    uint32_t count;
    uint64_t ns, sequence; /* of the last one */
};
/* Gives the namespace its next sequence and records the event; returns the sequence. Entries are copied. */
uint64_t feed_add(struct apply *apply, Cairn__NamespaceRecord *ns, uint32_t kind, const Cairn__Entry *entry,
                  uint64_t from_parent, const ProtobufCBinaryData *from_name);
/* Writes what gathered, and empties the feed. */
void feed_flush(struct state *state, struct feed *feed);

/* ---- the table ---- */

enum operation_kind {
    OPERATION_MUTATION, /* a command of the log */
    OPERATION_QUERY,    /* a ReadIndex, then a pure function */
    OPERATION_LEADER,   /* answered by the leader at once: from memory, or by an event of its Raft instance */
    OPERATION_REPLICA,  /* answered by any replica, at once */
};

struct operation {
    uint16_t type;
    enum operation_kind kind;
    bool root; /* of group 0; else of namespace groups */
    bool any_group;
    const ProtobufCMessageDescriptor *request;
    enum err (*prepare)(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
    enum err (*apply)(struct apply *apply, struct answer *ret_answer);
    enum err (*finish)(struct finish *finish, struct answer *answer);
    enum err (*query)(struct query *query, const void *request, struct answer *ret_answer);
    enum err (*lead)(struct group *group, const struct message *message, const void *request, struct proto_arena *arena,
                     struct answer *ret_answer);
    size_t body_limit;
};

const struct operation *operation_find(uint16_t type);
/* A mutation of a device: done once, under its idempotency key. Nodes' are such that a repeat changes nothing. */
bool operation_is_keyed(const struct operation *operation);

/* One function decides. OK with the device's and the user's record (in the arena), or DENIED: unknown and forbidden
 * answer alike. `ns` 0 where the operation names none. */
MUST_CHECK enum err authorize(struct state *state, struct principal peer, enum right right, uint64_t ns,
                              struct proto_arena *arena, Cairn__DeviceRecord **ret_device,
                              Cairn__UserRecord **ret_user);

/* ---- shared by namespace operations (namespace/tree.c, namespace/chunks.c) ---- */

struct key key_namespace(struct prefix group, uint64_t ns);
struct key key_entry(struct prefix group, uint64_t ns, uint64_t parent, struct slice name_key);
struct key key_folder(struct prefix group, uint64_t ns, uint64_t folder);
struct key key_session(struct prefix group, uint64_t ns, uint64_t session);
struct key key_page(struct prefix group, uint64_t ns, const void *page);
struct key key_page_link(struct prefix group, uint64_t ns, uint64_t manifest, uint64_t first_entry);
struct key key_user(struct prefix group, uint64_t user);
struct key key_device(struct prefix group, uint32_t device);

MUST_CHECK enum err namespace_get(struct state *state, uint64_t ns, struct proto_arena *arena,
                                  Cairn__NamespaceRecord **ret);
/* Folder `id`, 0 meaning the root: its id and record; NOT_FOUND; NOT_A_FOLDER is not told apart (ids of files are in no
 * folder key). */
MUST_CHECK enum err folder_get(struct state *state, const Cairn__NamespaceRecord *ns, uint64_t id,
                               struct proto_arena *arena, uint64_t *ret_id, Cairn__FolderRecord **ret);
/* folder_get for a folder that a walk to the root proves alive: a folder removed above it makes it NOT_FOUND. */
MUST_CHECK enum err folder_get_live(struct state *state, const Cairn__NamespaceRecord *ns, uint64_t id,
                                    struct proto_arena *arena, uint64_t *ret_id, Cairn__FolderRecord **ret);
/* The entry `name` of folder `parent`; ILLEGAL_NAME, NOT_FOUND. ret_key may be NULL. */
MUST_CHECK enum err entry_get(struct state *state, uint64_t ns, uint64_t parent, const ProtobufCBinaryData *name,
                              struct proto_arena *arena, struct slice *ret_key, Cairn__EntryRecord **ret);
/* Writes `record` as the live entry and the sums of its ancestors; `old` (NULL: none) is what it replaces, kept in the
 * history range. */
void entry_put(struct state *state, Cairn__NamespaceRecord *ns, struct slice name_key, Cairn__EntryRecord *record,
               const Cairn__EntryRecord *old, struct proto_arena *arena);
/* Takes the live entry away and keeps it in the history range. */
void entry_remove(struct state *state, Cairn__NamespaceRecord *ns, struct slice name_key, const Cairn__EntryRecord *old,
                  uint64_t sequence, struct proto_arena *arena);
/* Adds (or subtracts) a whole subtree's sums along the ancestors of `parent`: moves. */
void folder_sums_add(struct state *state, Cairn__NamespaceRecord *ns, uint64_t parent, const Cairn__FolderRecord *sums,
                     bool subtract, struct proto_arena *arena);
void namespace_put(struct state *state, const Cairn__NamespaceRecord *ns);
/* Sums of one entry as a FolderRecord with `digest` lanes pointing at `lanes` (4). */
void entry_sums(const Cairn__Entry *entry, Cairn__FolderRecord *ret_sums, uint64_t lanes[4]);

/* Finds the device's folder for an operation on (parent, name): namespace, folder, name key and the present entry
 * (NULL: none). */
struct place {
    Cairn__NamespaceRecord *ns;
    Cairn__FolderRecord *folder;
    uint64_t parent;
    struct slice name_key; /* dropped by place_deinit */
    Cairn__EntryRecord *entry;
};
MUST_CHECK enum err place_find(struct state *state, uint64_t ns, uint64_t parent, const ProtobufCBinaryData *name,
                               struct proto_arena *arena, struct place *ret_place);
void place_deinit(struct place *place);

/* Packs a reply message into the answer. */
void answer_set(struct answer *answer, const void *message);

#define PROTO_TAKE(type, arena) ((type *)proto_arena_take((arena), sizeof(type)))
#endif
