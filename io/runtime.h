/* The runtime: the interpreter of effects on the real system. It owns the threads, sockets, TLS, rings, databases and
 * workers of a process; actors are added to a loop before runtime_run and live there for ever.
 *
 *   loop threads      one uv loop each: sockets, TLS, timers, inboxes; its own io_uring for its actors' disks
 *   compute workers   run compute_run
 *   key-value helper  runs flushes
 *
 * Threads: all functions before runtime_run are called by one thread; afterwards only the ones that say "any thread".
 * Between loops a message goes through the target's locked inbox queue and a uv_async wake-up. */
#ifndef CAIRN_IO_RUNTIME_H
#define CAIRN_IO_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/effect.h"
#include "base/err.h"
#include "base/ids.h"
#include "base/kv.h"

struct runtime;
struct runtime_kv;

/* Identity and TLS of this process. Paths of PEM files; the role and id must stand in the certificate's common name. */
struct runtime_config {
    enum role role;
    uint32_t id;
    const char *ca_file, *cert_file, *key_file;
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    unsigned loops;           /* >= 1 */
    unsigned network_loops;   /* accepted connections live on the first so many; 0: on all */
    unsigned workers;         /* >= 1 */
    const char *log_file;     /* NULL: stderr */
    unsigned max_connections; /* accepted ones at a time; 0: RUNTIME_CONNECTIONS_MAX */
};
#define RUNTIME_CONNECTIONS_MAX 16384u
#define RUNTIME_THREADS_MAX     32 /* of loops for the network, and of compute workers, in a configuration */
/* Threads for which a configuration says nothing (0): a quarter of the cores for loops, the rest for workers, one of
 * each at least. */
unsigned runtime_loops_default(void);
unsigned runtime_workers_default(unsigned loops);

/* Makes it; on failure the text of what is wrong, naming the file and the next step, is in `ret_text` (size 256). */
MUST_CHECK enum err runtime_create(const struct runtime_config *config, struct runtime **ret_runtime, char *ret_text);
void runtime_destroy(struct runtime *runtime);

/* Listens on host:port (port 0: free one); the bound port in ret_port. IN_USE when the port is taken. */
MUST_CHECK enum err runtime_listen(struct runtime *runtime, const char *host, uint16_t port, uint16_t *ret_port);
/* Where a node is reached, as a person said (set) and as the cluster says (learn): address.c. Any thread; each replaces
 * the last of its kind. Connections are made on the first SEND to the node. */
void runtime_set_address(struct runtime *runtime, enum role role, uint32_t node, const char *host, uint16_t port);
void runtime_learn_address(struct runtime *runtime, enum role role, uint32_t node, const char *host, uint16_t port);

/* A file that remembers where nodes are (peers.c). Reads at most `most`; nothing when there is none. Written when it is
 * another; failure is no matter. Any thread. */
struct runtime_peer {
    uint32_t node;
    uint16_t port;
    char host[256];
};
uint32_t runtime_peers_read(const char *path, struct runtime_peer *ret_peers, uint32_t most);
void runtime_peers_write(const char *path, const struct runtime_peer *peers, uint32_t count);
/* Takes "NODE@HOST:PORT" apart. */
bool runtime_peer_parse(const char *text, struct runtime_peer *ret_peer);

/* A data directory: takes an exclusive lock on DIR/lock (IN_USE), makes DIR, log/ and segments/ as needed with mode
 * 0700; files are 0600. Lists the files of `kind` in ascending order into a new array the caller frees. */
MUST_CHECK enum err runtime_directory_open(const char *dir, int *ret_lock_fd, char *ret_text);
MUST_CHECK enum err runtime_directory_list(const char *dir, enum file_kind kind, struct file_info **ret_files,
                                           uint32_t *ret_count);

/* A RocksDB at DIR/kv without WAL. Cores read through runtime_kv_view on the owning loop. CORRUPT: what stands there is
 * damaged. */
MUST_CHECK enum err runtime_kv_open(struct runtime *runtime, const char *dir, struct runtime_kv **ret_kv,
                                    char *ret_text);
struct kv_view *runtime_kv_view(struct runtime_kv *kv);
/* Removes a database that is to be rebuilt (before it is opened). */
MUST_CHECK enum err runtime_kv_drop(const char *dir);
void runtime_kv_close(struct runtime_kv *kv);

/* Registers an actor: `dir` is where its FILE_LOG or FILE_SEGMENT files live (NULL: none), `kv` its database (NULL:
 * none). Its first event is a TIMER with id 0 (RUNTIME_TIMER_BOOT): start there. */
#define RUNTIME_TIMER_BOOT 0
void runtime_add_actor(struct runtime *runtime, unsigned loop, enum actor_kind kind, uint32_t index, actor_step *step,
                       void *actor, const char *dir, struct runtime_kv *kv);

/* Opens a file of a person for DISK_READ (FILE_USER, number) by actors; reads run as pread on a worker. Any thread. */
MUST_CHECK enum err runtime_user_file_open(struct runtime *runtime, const char *path, uint32_t *ret_number);
void runtime_user_file_close(struct runtime *runtime, uint32_t number);

/* What a daemon's shell does at signals (on loop 0's thread) and at news. */
struct runtime_hooks {
    void *context;
    void (*reload)(void *context); /* SIGHUP */
    /* SIGTERM and SIGINT, the first one: `drain` (NULL: nothing) is called once, then `drained` until it is true; then
     * requests are refused with CLOSED, and once all accepted ones are answered the process ends, after `drain_ns`
     * whatever is left. drain_ns 0, and a second signal: at once. */
    void (*drain)(void *context);
    bool (*drained)(void *context);
    uint64_t drain_ns;
    /* A metadata node of this cluster is of a newer incarnation (base/ids.h); NULL: nothing. Any loop's thread, any
     * number of times. */
    void (*newer)(void *context, uint32_t node, uint64_t incarnation);
    /* Bytes of the database are damaged, as `text` says. Any thread, any number of times. NULL, or when it returns: the
     * process halts. */
    void (*corrupt)(void *context, const char *text);
};
/* Before runtime_run; the struct is copied. Without it SIGHUP does nothing, and an end is at once. */
void runtime_set_hooks(struct runtime *runtime, const struct runtime_hooks *hooks);
/* Certificates, log file and limits of `config` from now on: the files are read anew, what is open stays. On failure
 * nothing has changed; ret_text (size 256) says why, or what the certificate is now. Role, id, cluster, loops and
 * workers stay. Loop 0's thread. */
MUST_CHECK enum err runtime_reload(struct runtime *runtime, const struct runtime_config *config, char *ret_text);

/* Runs loop 0 on the calling thread and the others on theirs until runtime_stop (any thread, signal-safe) or a HALT.
 * Returns the exit code: 0, or that of the HALT's error. SIGTERM and SIGINT stop it when `handle_signals`. */
int runtime_run(struct runtime *runtime, int handle_signals);
void runtime_stop(struct runtime *runtime);
/* A HALT that no actor asked for: the reason is logged, the exit code is that of the error. Any thread. */
void runtime_halt(struct runtime *runtime, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts a message into a local actor's inbox, as if an actor had sent it. Any thread; slices are given. How a shell
 * (the client's API, an admin hook) talks to its actors. */
void runtime_post(struct runtime *runtime, struct address to, uint16_t type, uint64_t stream, struct slice header,
                  struct slice body);

/* Counters of one actor's disk use since the start: io_uring submissions and entries. Any thread. */
struct runtime_disk_counters {
    uint64_t submissions, submitted, syncs;
};
struct runtime_disk_counters runtime_disk_counters(struct runtime *runtime, enum actor_kind kind, uint32_t index);

/* Counters of the process's connections since the start. Any thread. */
struct runtime_net_counters {
    uint64_t accepted_connections; /* hello accepted */
    uint64_t refused_connections;  /* closed by us for what the peer is or sent */
    uint64_t refused_frames;       /* requests answered with an error before any actor saw them */
};
struct runtime_net_counters runtime_net_counters(struct runtime *runtime);
/* Of the refused ones, how many for this reason. Any thread. */
uint64_t runtime_refused(struct runtime *runtime, enum err reason);

#endif
