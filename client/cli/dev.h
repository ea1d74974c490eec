/* `cairn dev`: a whole cluster on this machine, in one directory. What its parts share.
 *
 *   DIR/dev.lock       held by the command that changes the cluster; its presence makes the directory ours
 *   DIR/dev.toml       what was chosen once: identity, counts, ports (written last: then the cluster exists)
 *   DIR/ca.crt ca.key  the authority; cluster.key, bootstrap.toml for the metadata nodes
 *   DIR/client.toml    for people, with client.crt, client.key (device:1)
 *   DIR/NAME/          one node: node.toml, node.crt, node.key, log, pid, data/ or store1/ ...
 *
 * Parts: dev.c the command, dev_files.c the directory and what is in it, dev_certs.c keys and certificates,
 * document.c configuration files being written, dev_ps.c processes, dev_wait.c when the cluster serves. */
#ifndef CAIRN_CLIENT_CLI_DEV_H
#define CAIRN_CLIENT_CLI_DEV_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/limits.h"
#include "base/slice.h"

#define DEV_METADS     LIMIT_RAFT_MEMBERS
#define DEV_BLOCKDS    64
#define DEV_STORES     16 /* of one block server */
#define DEV_NODES      (DEV_METADS + DEV_BLOCKDS)
#define DEV_TEXT_BYTES 1024
#define DEV_PATH_BYTES (PATH_MAX + 64)

enum dev_role { DEV_METAD, DEV_BLOCKD };

struct dev_cluster {
    char dir[PATH_MAX]; /* absolute */
    int lock_fd;        /* -1: not held */
    struct uuid uuid;
    uint64_t incarnation;
    uint32_t metads, blockds, stores, racks;
    uint32_t port; /* 0: any free ones */
    char pool[32];
    char workspace[64];
    uint16_t ports[DEV_NODES]; /* metads, then blockds */
    uint64_t capacity_bytes;   /* of one store */
};

struct dev_node {
    enum dev_role role;
    uint32_t number; /* from 1 */
    uint16_t port;
    char name[16]; /* "metad1" */
    char dir[DEV_PATH_BYTES];
};

/* How a node's process stands. */
struct dev_process {
    pid_t pid; /* 0: none recorded */
    bool alive;
};

/* The node at `index` of all, metads first; by name: NOT_FOUND. */
uint32_t dev_node_count(const struct dev_cluster *cluster);
struct dev_node dev_node_at(const struct dev_cluster *cluster, uint32_t index);
MUST_CHECK enum err dev_node_find(const struct dev_cluster *cluster, const char *name, struct dev_node *ret_node);

/* Every ret_text below has DEV_TEXT_BYTES and says what is wrong and what to do. */

/* Writes the text and returns `err`. */
MUST_CHECK enum err dev_refuse(enum err err, char *ret_text, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Takes DIR/dev.lock for this process; makes DIR (0700) when `create`. NOT_OURS for a directory with other things in
 * it, IN_USE while another command changes it, NOT_FOUND when there is none. */
MUST_CHECK enum err dev_directory_lock(struct dev_cluster *cluster, const char *dir, bool create, char *ret_text);
/* Reads DIR/dev.toml. NOT_FOUND when no cluster was made there. */
MUST_CHECK enum err dev_cluster_load(struct dev_cluster *cluster, const char *dir, char *ret_text);
/* Makes all files of a new cluster from the counts, pool and port in `cluster`; fills in the rest. */
MUST_CHECK enum err dev_cluster_make(struct dev_cluster *cluster, char *ret_text);
/* Writes a file whole or not at all, synced. */
MUST_CHECK enum err dev_file_write(const char *path, const void *data, size_t bytes, mode_t mode, char *ret_text);

/* Ports on 127.0.0.1 that nobody uses now and that the system hands to no outgoing connection. */
MUST_CHECK enum err dev_ports_pick(uint16_t *ret_ports, uint32_t count, uint32_t first, char *ret_text);

/* The authority: makes it, writes dir/ca.crt and, with `keep_key`, dir/ca.key (0600). */
struct authority;
MUST_CHECK enum err dev_authority_create(const char *dir, bool keep_key, struct authority **ret_authority,
                                         char *ret_text);
/* Writes dir/BASE.crt and dir/BASE.key (0600) for `common_name` at `host`; SHA-256 of the public key's DER form in
 * ret_bearer, which may be NULL. */
MUST_CHECK enum err dev_certificate_make(struct authority *authority, const char *dir, const char *base,
                                         const char *common_name, const char *host, struct sha256 *ret_bearer,
                                         char *ret_text);
MUST_CHECK enum err dev_pem_write(const char *dir, const char *name, const char *label, struct slice der, mode_t mode,
                                  char *ret_text);
uint64_t dev_wall_ns(void);

/* Makes dir/cluster.key from fresh random bytes, and dir/bootstrap.toml of a new cluster with members 1..metads; the
 * authority goes into it, its key wrapped by the cluster key. */
struct dev_bootstrap {
    struct uuid cluster;
    uint64_t incarnation;
    uint32_t metads, stores;
    const char *pool, *workspace;
    struct sha256 bearer;
};
MUST_CHECK enum err dev_bootstrap_make(const char *dir, const struct dev_bootstrap *bootstrap,
                                       const struct authority *authority, char *ret_text);

/* Processes. A pid is ours only while its start time and the machine's boot are those recorded. */
struct dev_process dev_process_of(const struct dev_node *node);
/* The daemon's program, which stands beside this one. */
MUST_CHECK enum err dev_binary_find(enum dev_role role, char ret_path[DEV_PATH_BYTES], char *ret_text);
/* Starts the node detached from this terminal; its output goes to DIR/NAME/log. */
MUST_CHECK enum err dev_process_start(const struct dev_node *node, char *ret_text);
/* Sends the signal to the node's process, if it is alive, and waits until it is gone: TIMEOUT after `wait_ms`. */
MUST_CHECK enum err dev_process_stop(const struct dev_node *node, int signal, int wait_ms, char *ret_text);
/* Sends the signal and does not wait. */
void dev_process_signal(const struct dev_node *node, int signal);

/* Waiting. `log_offset` per node: where in its log this run begins, UINT64_MAX for one that ran before. */
uint64_t dev_log_bytes(const struct dev_node *node);
/* Each node with an offset listens. TIMEOUT, or UNAVAILABLE when one ends first; its last lines go to stderr. */
MUST_CHECK enum err dev_wait_listening(const struct dev_cluster *cluster, const uint64_t *log_offset, int wait_ms,
                                       char *ret_text);
/* The same, and the cluster answers a client. */
MUST_CHECK enum err dev_wait_serving(const struct dev_cluster *cluster, const uint64_t *log_offset, int wait_ms,
                                     char *ret_text);
/* The last lines of a node's log from `offset`, to stderr. */
void dev_log_tail(const struct dev_node *node, uint64_t offset);

/* Prints `text` as a JSON string with its quotes. */
void dev_print_json_string(FILE *out, const char *text);

#endif
