/* The client's core: routes, calls with retries, uploads and downloads. One actor (ACTOR_CLIENT, index 0) between the
 * shell (ACTOR_API, index 0: the public API, or a workload of the simulator) and the cluster. It does no I/O.
 *
 * Shell and core speak by local messages; stream = op->id in all that concern one operation.
 *
 *   to the core      CLIENT_OP         header: a pointer to a struct client_op, given to the core until CLIENT_DONE
 *                    CLIENT_FEED       answers CLIENT_WANT; header u64 offset, u32 err; body: the bytes, short at the
 * end CLIENT_CONFIRMED  answers CLIENT_CONFIRM; header u32 err (OK or FILE_CHANGED) CLIENT_ACK        header u64: bytes
 * of CLIENT_DATA that were consumed CLIENT_CANCEL     ends the operation; CLIENT_DONE follows with CANCELLED
 *                    CLIENT_MAP_READY  addresses of the last CLIENT_MAP are known to the interpreter
 *                    CLIENT_KEYS       header u64 first, u64 end: more idempotency numbers [first, end)
 *   to the shell     CLIENT_DONE       header: the pointer, given back, with the results
 *                    CLIENT_WANT       header u64 offset, u64 bytes: the next piece of a streamed upload is wanted
 *                    CLIENT_CONFIRM    all is read: did the source change meanwhile? (only when op->put.confirm)
 *                    CLIENT_DATA       header u64 offset, u64 file bytes; body: the next bytes of a download, in order
 *                    CLIENT_PROGRESS   header u64: bytes of the upload that are safely stored so far
 *                    CLIENT_MAP        header: a packed MapGetReply whose node addresses are to be made known
 *                    CLIENT_KEYS_WANTED  header u32 count: so many idempotency numbers, please */
#ifndef CAIRN_CLIENT_CLIENT_H
#define CAIRN_CLIENT_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/effect.h"
#include "base/err.h"
#include "base/ids.h"
#include "base/limits.h"

#define CLIENT_OPS             1024u /* operations at once; more are answered BUSY */
#define CLIENT_METADS          LIMIT_METADS_KNOWN
#define CLIENT_WORKSPACE_BYTES 64u
#define CLIENT_TEXT_BYTES      192u
#define CLIENT_KEYS_FIRST      16u                  /* idempotency numbers of the first block */
#define CLIENT_KEYS_MOST       1024u                /* of later ones */
#define CLIENT_KEYS_AGE_NS     (10ull * 1000000000) /* older blocks are not begun from */

enum client_op_kind {
    CLIENT_CALL, /* one request to a metadata node: everything but file contents */
    CLIENT_PUT,  /* upload one file */
    CLIENT_GET,  /* download one file */
};

enum client_route {
    CLIENT_ROUTE_ROOT,      /* leader of group 0 */
    CLIENT_ROUTE_NAMESPACE, /* leader of the workspace's group */
    CLIENT_ROUTE_GROUP,     /* leader of group `group` */
    CLIENT_ROUTE_NODE,      /* metad `node`, group `group`, leader or not */
    CLIENT_ROUTE_STORE,     /* store `store` of the map; the request is sent as it is, without a head */
};

struct client_call {
    uint16_t type; /* messages.def */
    enum client_route route;
    uint32_t node, group, store;
    bool mutation;        /* takes an idempotency number */
    struct slice request; /* given: the packed request without its field `head`, which the core adds */
    struct slice reply, reply_body;
};

enum client_source { CLIENT_SOURCE_FILE, CLIENT_SOURCE_FEED };

struct client_put {
    enum client_source source;
    uint32_t file;  /* SOURCE_FILE: number of the FILE_USER */
    uint64_t bytes; /* SOURCE_FILE: its size; SOURCE_FEED: ignored */
    bool confirm;
    uint64_t parent; /* 0: the root */
    uint8_t name[LIMIT_NAME_BYTES];
    uint32_t name_bytes;
    uint64_t base_version;
    bool any_base;
    uint32_t mode;
    int64_t mtime_ns;
    /* results */
    uint64_t version, sequence, file_id, stored_bytes;
    uint32_t safe_losses;
};

struct client_get {
    uint64_t parent;
    uint8_t name[LIMIT_NAME_BYTES];
    uint32_t name_bytes;
    uint64_t version; /* 0: current */
    /* results */
    struct slice manifest; /* packed ManifestReply of the first page: the entry */
};

/* What an operation moved. */
struct client_counts {
    uint64_t chunks;         /* of the file */
    uint64_t chunks_present; /* not sent, the cluster had them */
    uint64_t shards_sent;
    uint64_t bytes_sent; /* bodies to block servers, parity and repetitions included */
    uint64_t wire_bytes; /* frames both ways, headers included; TLS and hello are not */
    uint64_t retries;
};

struct client_op {
    enum client_op_kind kind;
    uint64_t id;                            /* < 2^48, unlike that of any other operation under way */
    void *cookie;                           /* the shell's own */
    char workspace[CLIENT_WORKSPACE_BYTES]; /* not used by ROUTE_ROOT and ROUTE_NODE */
    uint64_t budget_ns;                     /* how long one step of it is retried; 0: that of the parameters */
    struct client_call call;
    struct client_put put;
    struct client_get get;
    /* results */
    enum err err;
    char text[CLIENT_TEXT_BYTES]; /* what the failing peer said, or what failed where */
    struct client_counts counts;
};

struct client_op *client_op_create(enum client_op_kind kind, uint64_t id, const char *workspace);
/* Drops its slices and frees it. */
void client_op_destroy(struct client_op *op);
/* The header of CLIENT_OP and CLIENT_DONE: a pointer, and back. */
struct slice client_op_encode(struct client_op *op);
struct client_op *client_op_decode(struct slice header);

struct client_params {
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    uint32_t metads[CLIENT_METADS];
    uint32_t metad_count;
    uint64_t user;          /* 0: the device's own */
    bool map_handshake;     /* wait for CLIENT_MAP_READY before stores are spoken to */
    uint64_t budget_ns;     /* 0: 30 s */
    uint64_t window_bytes;  /* bulk bytes under way, all operations together; 0: 96 MiB */
    uint64_t store_idle_ns; /* a store silent for so long is taken for dead; 0: 4 s */
};

struct client;
struct client *client_create(const struct client_params *params);
/* Destroys operations that are under way, too: their op structs are freed. */
void client_destroy(struct client *client);
actor_step client_step;

#endif
