/* libcairn: a Cairn cluster for programs. All functions are synchronous and may be called by any thread; the library
 * runs its own thread behind them, and as many calls at once as callers make.
 *
 * Remote paths are "WORKSPACE:/path/to/thing"; ":/path" is in the configuration's own workspace. Names are UTF-8.
 *
 * A function that can fail returns 0 or a code (cairn_error_name, cairn_exit_code) and fills in `error`, which may be
 * NULL. Mutations are retried under one idempotency number until an answer comes or the timeout has passed: after
 * CAIRN's retriable codes (exit code 7) a mutation may or may not have happened. */
#ifndef CAIRN_H
#define CAIRN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CAIRN_NAME_BYTES 256
#define CAIRN_PATH_BYTES 4096
#define CAIRN_TEXT_BYTES 512

/* What went wrong: text for people, that names what failed where and, where there is one, the next step. */
struct cairn_error {
    int code;
    char text[CAIRN_TEXT_BYTES];
};
const char *cairn_error_name(int code);
const char *cairn_error_text(int code);
int cairn_exit_code(int code);

struct cairn; /* a connection to a cluster */

struct cairn_options {
    const char *config_file;  /* client.toml; NULL: the environment's CAIRN_CONFIG */
    const char *history_file; /* NULL: none. A JSON line per operation at invoke and at completion is appended */
    double timeout_seconds;   /* of each step that is retried; 0: 30 */
};
int cairn_open(const struct cairn_options *options, struct cairn **ret_cairn, struct cairn_error *error);
/* No call may be under way. NULL is nothing to do. */
void cairn_close(struct cairn *cairn);
/* The configuration's workspace. */
const char *cairn_workspace(const struct cairn *cairn);
/* Frames of this handle's calls so far, both ways, headers included (TLS and hello are not). */
uint64_t cairn_wire_bytes(struct cairn *cairn);

/* ---- the tree ---- */

enum cairn_kind { CAIRN_FILE = 1, CAIRN_FOLDER = 2, CAIRN_SYMLINK = 3 };

struct cairn_entry {
    uint64_t id, parent, version, bytes, sequence;
    enum cairn_kind kind;
    uint32_t mode; /* permission bits */
    int64_t mtime_ns;
    uint32_t safe_losses; /* of a file, at completion */
    char name[CAIRN_NAME_BYTES];
    char target[CAIRN_PATH_BYTES]; /* of a symlink */
};

int cairn_stat(struct cairn *cairn, const char *path, struct cairn_entry *ret_entry, struct cairn_error *error);
/* Calls `each` for every entry of a folder, in order of names. A non-zero answer ends the listing and is returned. */
typedef int cairn_entry_fn(void *context, const struct cairn_entry *entry);
int cairn_list(struct cairn *cairn, const char *path, cairn_entry_fn *each, void *context, struct cairn_error *error);
/* Makes a folder; with `parents` the missing ones above it too, and one that exists is no error. */
int cairn_mkdir(struct cairn *cairn, const char *path, bool parents, struct cairn_error *error);
int cairn_symlink(struct cairn *cairn, const char *target, const char *path, struct cairn_error *error);
/* Moves `from` to `to`, or into it where it is a folder. `replace` lets a file take the place of a file. */
int cairn_move(struct cairn *cairn, const char *from, const char *to, bool replace, struct cairn_error *error);
int cairn_remove(struct cairn *cairn, const char *path, bool recursive, struct cairn_error *error);

struct cairn_change {
    uint64_t sequence;
    const char *kind; /* create, update, remove, move */
    struct cairn_entry entry;
    uint64_t from_parent; /* of a move */
    char from_name[CAIRN_NAME_BYTES];
    int64_t wall_ns;
    uint64_t incarnation; /* of the namespace: with the sequence, a cursor behind this change */
};
struct cairn_cursor {
    uint64_t incarnation; /* 0: whatever it is */
    uint64_t sequence;    /* the last one seen */
};
typedef int cairn_change_fn(void *context, const struct cairn_change *change);
/* Calls `each` for every change behind the cursor and moves the cursor on. */
int cairn_changes(struct cairn *cairn, const char *workspace, struct cairn_cursor *cursor, cairn_change_fn *each,
                  void *context, struct cairn_error *error);

/* ---- contents ---- */

/* What calls of this handle have moved. */
struct cairn_moved {
    uint64_t files, folders, symlinks, failed;
    uint64_t bytes;          /* of file contents */
    uint64_t chunks;         /* of these files */
    uint64_t chunks_present; /* not sent: the cluster, or the file itself, had them */
    uint64_t bytes_sent;     /* bodies to block servers, parity included */
    uint64_t wire_bytes;     /* frames of the contents both ways, headers included */
    uint32_t safe_losses;    /* least of the files put; UINT32_MAX when there was none */
};

struct cairn_progress {
    uint64_t files, bytes; /* finished files; bytes of all files so far */
    uint64_t files_known, bytes_known;
    const char *path; /* the one that moved */
};
/* Called by threads of the library, one at a time. */
typedef void cairn_progress_fn(void *context, const struct cairn_progress *progress);
/* Called for each file of a tree that failed; the others go on. One at a time. */
typedef void cairn_failure_fn(void *context, const char *path, const struct cairn_error *error);

struct cairn_transfer {
    cairn_progress_fn *progress;
    cairn_failure_fn *failure;
    void *context;
    unsigned threads; /* files of a tree at once; 0: 16 */
};

/* A file, or a folder with all in it (its contents go into `remote`). A file goes to `remote`, or into it where that is
 * a folder or ends in '/'. Missing parent folders are made. `transfer` may be NULL. `*ret_moved` is added to. */
int cairn_put(struct cairn *cairn, const char *local, const char *remote, const struct cairn_transfer *transfer,
              struct cairn_moved *ret_moved, struct cairn_error *error);
/* The same the other way. Each file appears whole or not at all: a temporary name, synced, renamed. */
int cairn_get(struct cairn *cairn, const char *remote, const char *local, const struct cairn_transfer *transfer,
              struct cairn_moved *ret_moved, struct cairn_error *error);

/* Reads up to `bytes`; fewer only at the end; negative: -errno. */
typedef int64_t cairn_read_fn(void *context, void *data, size_t bytes);
/* Takes all `bytes`; 0 or -errno. */
typedef int cairn_write_fn(void *context, const void *data, size_t bytes);
int cairn_put_stream(struct cairn *cairn, cairn_read_fn *read, void *context, const char *remote,
                     struct cairn_moved *ret_moved, struct cairn_error *error);
int cairn_get_stream(struct cairn *cairn, const char *remote, cairn_write_fn *write, void *context,
                     struct cairn_moved *ret_moved, struct cairn_error *error);

/* ---- administration ---- */

/* How often a node refused something since its start, for this reason ("WRONG_CLUSTER"). */
struct cairn_refusals {
    const char *reason; /* static */
    uint64_t count;
};
#define CAIRN_REFUSALS_MAX 128

#define CAIRN_MEMBERS_MAX 32
/* Bits of a member's roles. While members change, voters that come and that go stand side by side. */
#define CAIRN_VOTER    1u
#define CAIRN_OUTGOING 2u
#define CAIRN_LEARNER  4u /* receives everything, counts nowhere */
#define CAIRN_PROMOTE  8u /* a learner that will be a voter once it is caught up */
struct cairn_group_member {
    uint32_t node;
    bool answered, removed;
    uint32_t roles; /* by the leader; 0 when there is none */
    uint64_t match, lag;
    uint32_t in_flight;              /* appends the leader sent it that are not answered */
    uint64_t term, commit, applied;  /* as the member itself says */
    uint64_t log_syncs, log_entries; /* of its node's log since the start: entries made durable, by so many fsyncs */
    uint64_t holes, mended;      /* damaged entries of its log: that wait for another member's, written anew since */
    uint64_t rot_behind;         /* damaged entries found at its start that nobody needs any more */
    uint64_t digests, digest_at; /* leaders' digests of what was applied that were equal to its own, since its start; up
                                    to which entry, by the last of them */
    bool stale;                  /* came back with less than it had acknowledged; the leader says so */
    bool lost;                   /* its database was damaged: its state is fetched; the leader says so */
    uint32_t refusal_count;      /* what the group refused there */
    struct cairn_refusals refusals[CAIRN_REFUSALS_MAX];
};
struct cairn_group {
    uint32_t group, leader; /* metad number, 0 none */
    uint64_t term, commit, applied;
    uint64_t config_index; /* of the entry that holds its members */
    uint32_t member_count;
    struct cairn_group_member members[CAIRN_MEMBERS_MAX];
};
typedef int cairn_group_fn(void *context, const struct cairn_group *group);
int cairn_admin_groups(struct cairn *cairn, cairn_group_fn *each, void *context, struct cairn_error *error);

/* The group's leader hands over to metad `node` (0: the voter that is furthest and answers); returns once it leads.
 * Nothing that was acknowledged is lost, and what is under way is asked again by itself. */
int cairn_admin_transfer(struct cairn *cairn, uint32_t group, uint32_t node, uint32_t *ret_node,
                         struct cairn_error *error);

/* Metadata node `node` becomes a voter of all groups (`address`: HOST:PORT where it is reached, NULL: the cluster
 * knows), or a member of none. Both may take a while and say how it goes; called again after any failure they go on. */
typedef void cairn_change_told_fn(void *context, const char *what);
int cairn_admin_node_add(struct cairn *cairn, uint32_t node, const char *address, cairn_change_told_fn *tell,
                         void *context, struct cairn_error *error);
int cairn_admin_node_remove(struct cairn *cairn, uint32_t node, cairn_change_told_fn *tell, void *context,
                            struct cairn_error *error);

/* What passes between the programs of an operator and the cluster when a node joins: packed messages of
 * proto/cairn.proto. `data` is given to the caller, who frees it. */
struct cairn_packed {
    void *data;
    size_t bytes;
};
/* A one-time token for a node (role "metad" or "blockd"), good for `seconds`; `public_key` is that of the token's own
 * key (SubjectPublicKeyInfo). The answer: a packed AdminTokenReply. */
int cairn_admin_token(struct cairn *cairn, const char *role, uint64_t seconds, const void *public_key, size_t bytes,
                      struct cairn_packed *ret_reply, struct cairn_error *error);
/* For the bearer of a token, whose configuration has role = "join": the certificate of a node with this key, which
 * others will reach at `address`; `private_key` (PKCS#8) signs that it is the bearer's and goes nowhere. Asked again
 * with the same key it answers the same. A packed NodeJoinReply. */
int cairn_node_join(struct cairn *cairn, const char *role, const void *private_key, size_t bytes, const char *address,
                    struct cairn_packed *ret_reply, struct cairn_error *error);

struct cairn_status {
    uint32_t nodes, stores_up, stores_down;
    uint64_t map_epoch, tick;
    uint32_t not_default_count;
    char not_default[16][128];
};
int cairn_admin_status(struct cairn *cairn, struct cairn_status *ret_status, struct cairn_error *error);

/* Chunks that the default workspace references, by how many shards of their best code lack on the stores that answer
 * now: chunks[0] are whole, as one code with all its shards is there. Reads the lists of all stores. */
#define CAIRN_MISSING_MAX 16
struct cairn_missing {
    uint64_t chunks[CAIRN_MISSING_MAX + 1];
    uint32_t stores_silent; /* that the map says are up and that did not answer to the end */
};
int cairn_admin_missing(struct cairn *cairn, struct cairn_missing *ret_missing, struct cairn_error *error);

struct cairn_store {
    uint32_t store, node, position;
    bool up;
    uint64_t capacity_bytes, used_bytes;
    uint64_t incarnation; /* a new one each time the disk comes back with less than it had */
    uint32_t rollbacks;   /* how often it did */
    uint64_t submissions, submitted, syncs, synced_shards, synced_bytes, shards, refused, corrupt, rebuilt;
};
typedef int cairn_store_fn(void *context, const struct cairn_store *store);
int cairn_admin_stores(struct cairn *cairn, cairn_store_fn *each, void *context, struct cairn_error *error);

struct cairn_node {
    const char *role; /* metad, blockd */
    uint32_t id;
    char address[256], host[256], rack[256];
    const char *state;      /* in use, joining, gone */
    bool answered;          /* what it refused is known */
    uint32_t refusal_count; /* of its connections, and of its stores' requests */
    struct cairn_refusals refusals[CAIRN_REFUSALS_MAX];
};
typedef int cairn_node_fn(void *context, const struct cairn_node *node);
int cairn_admin_nodes(struct cairn *cairn, cairn_node_fn *each, void *context, struct cairn_error *error);

#ifdef __cplusplus
}
#endif

#endif
