/* What the files of the public API share. One struct cairn is a runtime on its own thread with two actors: the core
 * (ACTOR_CLIENT) and the mailman (ACTOR_API, session.c), which hands what the core says to the thread that waits for
 * it.
 *
 * Rules: 1. All I/O on people's files but DISK_READ is done by the caller's thread. 2. A client_op belongs to the core
 * from api_post to CLIENT_DONE. 3. A call waits on its own queue; no lock is held while it waits or works. */
#ifndef CAIRN_CLIENT_SHELL_API_H
#define CAIRN_CLIENT_SHELL_API_H

#include <pthread.h>

#include "base/bytes.h"
#include "base/check.h"
#include "client/client.h"
#include "client/include/cairn.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

#define API_TEXT_BYTES CAIRN_TEXT_BYTES

#define API_PATH_BYTES        4352u
#define API_METADS_REMEMBERED (CLIENT_METADS - LIMIT_RAFT_MEMBERS)
/* MapNode.state */
#define API_NODE_IN_USE  0u
#define API_NODE_JOINING 1u
#define API_NODE_GONE    2u

/* client.toml, and the metadata nodes that the last map named. */
struct api_config {
    enum role role; /* DEVICE; JOIN for the bearer of a token */
    uint32_t device;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    char *ca, *cert, *key, *keys;
    char workspace[CLIENT_WORKSPACE_BYTES];
    struct runtime_peer metads[LIMIT_RAFT_MEMBERS]; /* that the file names */
    uint32_t metad_count;
    struct runtime_peer remembered[API_METADS_REMEMBERED]; /* of the last map */
    uint32_t remembered_count;
};
MUST_CHECK enum err api_config_read(const char *path, struct api_config *ret_config, char *ret_text);
void api_config_deinit(struct api_config *config);
/* The file beside the idempotency numbers that remembers the metadata nodes of the last map. */
void api_metads_path(const struct api_config *config, char ret_path[API_PATH_BYTES]);

/* Takes the next `count` idempotency numbers of the device from its file (R-F10): they are ret_first and on. */
MUST_CHECK enum err api_keys_take(const char *path, uint32_t count, uint64_t *ret_first, char *ret_text);

/* What the core said to one waiting call. */
struct api_item {
    struct api_item *next;
    uint16_t type; /* CLIENT_DONE, _WANT, _CONFIRM, _DATA, _PROGRESS; 0: the runtime has ended */
    uint64_t a, b;
    struct slice body;
    struct client_op *op;
};
struct api_waiter {
    struct api_waiter *next;
    uint64_t id;
    pthread_cond_t cond;
    struct api_item *head, **tail;
};

struct cairn {
    struct api_config config;
    struct runtime *runtime;
    struct client *core;
    pthread_t thread;
    bool started;
    uint64_t budget_ns;
    pthread_mutex_t lock; /* all below */
    bool stopped;
    uint64_t next_id;
    struct api_waiter *waiters;
    struct client_counts totals;
    int history_fd;
    uint64_t history_next;
};

int api_fail(struct cairn_error *error, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- session.c ---- */
/* Where the nodes of a map are, from now on; its metadata nodes are remembered for the next time. */
void api_learn_addresses(struct cairn *c, const Cairn__ClusterMap *map);
uint64_t api_id(struct cairn *c);
/* Registers a waiter for the operation and gives the op to the core. */
void api_post(struct cairn *c, struct api_waiter *waiter, struct client_op *op);
/* The next thing the core says; the caller frees it with api_item_free. */
struct api_item *api_wait(struct cairn *c, struct api_waiter *waiter);
void api_item_free(struct api_item *item);
/* Ends a waiter after CLIENT_DONE and adds the counts of its op to the handle's. */
void api_finish(struct cairn *c, struct api_waiter *waiter, const struct client_op *op);
void api_tell(struct cairn *c, uint16_t type, uint64_t id, const void *header, size_t header_bytes, struct slice body);

/* ---- tree.c ---- */
struct api_call {
    uint16_t type;
    enum client_route route;
    bool mutation;
    uint32_t group, node, store;
    uint64_t budget_ns;
    const char *workspace;
    const void *request; /* protobuf without head */
    const ProtobufCMessageDescriptor *reply;
    struct slice *ret_body; /* NULL: the reply's body is dropped; else the caller drops it */
};
/* One request; the reply unpacked into `arena`, which the caller deinits. `what` names it in the error's text. */
MUST_CHECK int api_call(struct cairn *c, const struct api_call *call, const char *what, struct proto_arena *arena,
                        void **ret_reply, struct cairn_error *error);

/* A remote path, taken apart. */
struct api_path {
    char workspace[CLIENT_WORKSPACE_BYTES];
    char *text; /* as given */
    char *copy;
    uint32_t depth;
    bool slash; /* ends in '/' */
    const char *components[LIMIT_PATH_DEPTH];
};
MUST_CHECK int api_path_parse(struct cairn *c, const char *text, struct api_path *ret_path, struct cairn_error *error);
void api_path_deinit(struct api_path *path);

/* Where a path leads. Found: `entry` is it. Else `depth` components exist and lead to the folder `deepest`. */
struct api_place {
    bool found;
    struct cairn_entry entry;
    uint32_t depth;
    uint64_t deepest;
};
MUST_CHECK int api_locate(struct cairn *c, const struct api_path *path, uint32_t components,
                          struct api_place *ret_place, struct cairn_error *error);
/* The folder that `components` lead to, made where it is missing. */
MUST_CHECK int api_folder(struct cairn *c, const struct api_path *path, uint32_t components, uint64_t *ret_folder,
                          struct cairn_error *error);
MUST_CHECK int api_mkdir_in(struct cairn *c, const char *workspace, uint64_t parent, const char *name, uint32_t mode,
                            int64_t mtime_ns, const char *target, uint64_t *ret_file, struct cairn_error *error);
/* Lists by folder id. */
MUST_CHECK int api_list(struct cairn *c, const char *workspace, uint64_t folder, const char *what, cairn_entry_fn *each,
                        void *context, struct cairn_error *error);

/* ---- file.c ---- */
struct api_target {
    const char *workspace;
    uint64_t parent;
    const char *name;
    const char *what; /* the path as people know it */
};
typedef void api_bytes_fn(void *context, uint64_t bytes);
MUST_CHECK int api_put_file(struct cairn *c, const char *local, const struct api_target *target, api_bytes_fn *progress,
                            void *context, struct cairn_moved *moved, struct cairn_error *error);
MUST_CHECK int api_put_feed(struct cairn *c, cairn_read_fn *read, void *read_context, const struct api_target *target,
                            struct cairn_moved *moved, struct cairn_error *error);
MUST_CHECK int api_get_feed(struct cairn *c, const struct api_target *source, cairn_write_fn *write,
                            void *write_context, struct cairn_moved *moved, struct cairn_entry *ret_entry,
                            struct cairn_error *error);
MUST_CHECK int api_get_file(struct cairn *c, const struct api_target *source, const char *local, api_bytes_fn *progress,
                            void *context, struct cairn_moved *moved, struct cairn_error *error);
void api_entry_read(const Cairn__Entry *from, struct cairn_entry *ret_entry);

/* ---- admin.c ---- */
/* Numbers of the metadata nodes that are not gone, by the map and by the configuration; at most CAIRN_MEMBERS_MAX. */
uint32_t api_metads(const struct cairn *c, const Cairn__ClusterMap *map, uint32_t *ret_nodes);
/* The map as the root group has it now; borrowed from the arena. */
MUST_CHECK int api_map_get(struct cairn *c, struct proto_arena *arena, Cairn__ClusterMap **ret_map,
                           struct cairn_error *error);

/* ---- history.c ---- */
/* Opens the file for appending; -1 and errno. */
int api_history_open(const char *path);
bool api_history_kept(const struct cairn *c);
/* A JSON line at invoke; returns the operation's number in the history, 0 when none is kept. `args` is a JSON object,
 * which is taken (the writer is empty afterwards); so are `results`, where nothing is {}. */
uint64_t api_history_invoke(struct cairn *c, const char *op, struct writer *args);
void api_history_complete(struct cairn *c, uint64_t number, const char *op, bool mutation, enum err err,
                          struct writer *results);
/* Appends text of at most 511 bytes; a member with a string of any length (with a comma before all but the first); a
 * member "content", none for 0. */
void api_json_add(struct writer *json, const char *format, ...) __attribute__((format(printf, 2, 3)));
void api_json_add_string(struct writer *json, const char *name, const char *value);
void api_json_add_content(struct writer *json, uint64_t content);
/* A 64-bit name of a file's bytes, for histories only. */
uint64_t api_content_begin(void);
uint64_t api_content_add(uint64_t content, const void *data, size_t bytes);
/* Writes `text` as a JSON string, cut to what fits. */
void api_json_string(const char *text, char *ret, size_t bytes);

#endif
