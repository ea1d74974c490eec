/* What the files of io/ share: the runtime, its loops and actors, and how work crosses threads. Private to io/.
 *
 *   task    one thing to be done on a loop's thread; posted under the loop's lock, run at the start of its next turn
 *   inbox   FIFO of events of one actor, touched only by the thread of its loop
 *   turn    (uv_prepare) tasks, inboxes with the effects of every step, sockets flushed, one submission of the ring
 *   pool    threads that run jobs off the loops: compute workers, and helpers for what blocks (flush, fallocate, pread)
 */
#ifndef CAIRN_IO_INTERNAL_H
#define CAIRN_IO_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <uv.h>

#include "base/compute.h"
#include "base/effect.h"
#include "base/limits.h"
#include "io/log.h"
#include "io/runtime.h"

#define LOOPS_MAX           96u            /* a thread a store, and RUNTIME_THREADS_MAX */
#define INBOX_BYTES         (256ull << 20) /* bulk bytes an actor's inbox holds before requests are answered BUSY */
#define ACTORS_MAX          65535u         /* a slot is 16 bits of the stream; 0 is nobody */
#define ACTOR_INDEX_MAX     65536u
#define COMPUTE_PLACE_BYTES (32u << 10) /* a smaller job runs at once on the loop */

struct loop;
struct runtime_actor;
struct timers;
struct disk;
struct net;

/* ---- tasks ---- */

struct task {
    struct task *next;
    /* Runs on the loop's thread and frees the task; `drop`: the loop is gone, only free what is held. */
    void (*run)(struct loop *loop, struct task *task, bool drop);
};
struct task_queue {
    struct task *head;
    struct task **tail;
};
void task_queue_init(struct task_queue *queue);
void task_queue_push(struct task_queue *queue, struct task *task);
struct task *task_queue_pop(struct task_queue *queue);

/* ---- pools (workers.c) ---- */

struct job {
    struct job *next;
    unsigned priority; /* 0 first .. 2 last */
    /* Runs on a pool thread; posts its own completion. `drop`: the pool stops, only free what is held. */
    void (*run)(struct job *job, bool drop);
};
struct pool;
struct pool *pool_create(unsigned threads, const char *node);
void pool_post(struct pool *pool, struct job *job);
void pool_destroy(struct pool *pool);

/* ---- actors ---- */

struct inbox_event {
    struct task task;
    struct inbox_event *next;
    struct runtime_actor *actor;
    uint64_t bytes;
    struct event event;
};

struct runtime_actor {
    struct runtime *runtime;
    struct loop *loop;
    enum actor_kind kind;
    uint32_t index;
    uint16_t slot;
    actor_step *step;
    void *actor;
    char *dir;
    struct runtime_kv *kv;
    struct inbox_event *head, **tail;
    struct runtime_actor *ready_next;
    bool ready;
    struct kv_batch *pending; /* committed and not yet in the database (actor_kv.c); NULL: nothing */
    struct effect *held;      /* flushes and scans behind it */
    unsigned long held_count, held_capacity;
    bool refused; /* the database does not take it now: meanwhile the actor takes no step */
    uint64_t refused_since_ns;
    bool unsettled; /* in the loop's list */
    struct runtime_actor *unsettled_next;
    _Atomic uint64_t inbox_events, inbox_bytes;
    struct disk_files *files; /* disk.c */
    _Atomic uint64_t disk_submissions, disk_submitted, disk_syncs;
    uint64_t disk_last_submission;
};

/* A new event for the actor, zeroed but for its kind. */
struct inbox_event *inbox_event_create(struct runtime_actor *actor, enum event_kind kind);
/* Puts it into the actor's inbox, from any thread. Given. */
void inbox_post(struct inbox_event *event);
/* True when the actor takes no more requests for now. Any thread. */
bool inbox_full(const struct runtime_actor *actor);
/* Frees what is left in an actor's inbox when its loop is gone. */
void inbox_clear(struct runtime_actor *actor);
/* Tells an actor that a peer is gone. */
void inbox_post_closed(struct runtime_actor *actor, struct address peer, enum err err);

/* ---- loops ---- */

struct loop {
    struct runtime *runtime;
    unsigned index;
    pthread_t thread;
    uv_loop_t uv;
    uv_poll_t wake;
    int wake_fd;
    _Atomic bool woken; /* wake_fd has been written since it was read */
    uv_prepare_t prepare;
    uv_idle_t idle;
    pthread_mutex_t lock;
    struct task_queue posted; /* under lock */
    bool gone;                /* under lock: tasks are dropped */
    struct runtime_actor *ready, **ready_tail;
    struct runtime_actor *held;      /* actors whose database refuses what they have pending */
    struct runtime_actor *unsettled; /* actors with writes pending */
    uv_timer_t held_timer;
    struct effects effects;
    struct runtime_actor *stepping;
    uint64_t random[256];
    unsigned random_left;
    struct timers *timers;
    struct disk *disk;
    struct net *net;
    _Atomic uint64_t unfinished; /* while draining: net_unfinished, as of its last look */
};

/* The loop whose thread this is, or NULL. */
struct loop *loop_current(void);
void loop_init(struct loop *loop, struct runtime *runtime, unsigned index);
void loop_deinit(struct loop *loop);
/* Runs until the runtime stops, then closes everything of it. */
void loop_run(struct loop *loop);
void loop_post(struct loop *loop, struct task *task);
/* Writes what its actors have pending; those whose database refuses it are set aside. */
void loop_settle(struct loop *loop);
/* Rouses it. Any thread, any signal handler. */
void loop_wake(struct loop *loop);
uint64_t loop_random(struct loop *loop);
uint64_t clock_now_ns(void);

/* ---- the runtime ---- */

/* Where a node may be (address.c). */
enum { ADDRESS_GIVEN, ADDRESS_LEARNED, ADDRESS_KINDS };
struct node_address {
    uint16_t port; /* 0: none */
    char host[256];
};
struct node_addresses {
    uint8_t role;
    uint32_t id;
    struct node_address at[ADDRESS_KINDS];
    unsigned newest;  /* which of them is the later news */
    uint64_t changes; /* of `newest` and what it is */
};

/* What one connection's owner tried last; zeroed at first. */
struct address_try {
    unsigned kind;
    uint64_t changes;
};
/* The address to try; false when none is known. After an attempt that failed the caller turns attempt->kind over. */
bool address_find(struct runtime *runtime, struct principal who, struct address_try *attempt,
                  struct node_address *ret_address);

struct runtime {
    struct runtime_config config;
    char node[48];
    int log_fd;
    struct tls *tls;
    struct loop *loops;
    unsigned loop_count;
    struct runtime_actor **actors; /* slot - 1; fixed once running */
    unsigned long actor_count, actor_capacity;
    struct runtime_actor **by_kind[ACTOR_KINDS];
    unsigned long by_kind_capacity[ACTOR_KINDS];
    struct pool *workers, *helpers, *flushers;
    pthread_mutex_t lock; /* addresses, user files */
    struct node_addresses *addresses;
    unsigned long address_count, address_capacity;
    struct user_file *user_files;
    unsigned long user_file_count, user_file_capacity;
    uint32_t user_file_last;
    int *listeners;
    unsigned long listener_count, listener_capacity;
    bool running;
    struct signals *signals; /* while it runs with signals handled */
    struct drain *drain;     /* once an end was asked for */
    _Atomic bool refusing;   /* requests that come now are refused with CLOSED */
    struct runtime_hooks hooks;
    _Atomic bool stopping;
    _Atomic int exit_code;
    _Atomic bool halted;
    _Atomic uint64_t refused_frames, refused_connections, accepted_connections;
    _Atomic uint64_t refused[ERR_LIMIT];           /* by reason */
    _Atomic unsigned connections, connections_max; /* accepted ones, open now */
};

/* The actor, or NULL. Any thread once running. */
struct runtime_actor *runtime_actor_find(struct runtime *runtime, enum actor_kind kind, uint32_t index);
struct runtime_actor *runtime_actor_of_slot(struct runtime *runtime, uint16_t slot);
/* Says why and stops every loop with the exit code of `err`. The first one counts. Any thread. */

/* Counts a refusal. Any thread. */
void runtime_note_refused(struct runtime *runtime, enum err reason);

/* signals.c, on loop 0's thread */
struct signals *signals_create(struct runtime *runtime);
void signals_close(struct signals *signals); /* its handles; before the loop is closed */
void signals_destroy(struct signals *signals);

/* drain.c, on loop 0's thread: an end in order has been asked for. */
void drain_signalled(struct runtime *runtime, int number);
void drain_close(struct runtime *runtime); /* its timer; before the loop is closed */
void drain_destroy(struct runtime *runtime);

/* effects.c: runs the effects of the step `actor` just took and empties the list. */
void effects_perform(struct runtime_actor *actor, struct effects *fx);
void effects_drop(struct effect *effect);

/* actor_kv.c, on the loop's thread */
/* Takes a KV effect of the actor. */
void actor_kv_perform(struct runtime_actor *actor, const struct effect *effect);
/* Writes what is pending, and begins what waits behind it. False while the database refuses it. */
bool actor_kv_settle(struct runtime_actor *actor);
/* What the actor that is being stepped wrote to this database and reads before it; NULL: nothing. Borrowed. */
struct kv_batch *actor_kv_pending(const struct runtime_kv *kv);
/* Frees what is pending and held. */
void actor_kv_release(struct runtime_actor *actor);

/* timers.c */
struct timers *timers_create(struct loop *loop);
void timers_set(struct timers *timers, struct runtime_actor *actor, uint64_t id, uint64_t deadline_ns);
/* Arms the uv timer for the nearest deadline; once per turn. */
void timers_arm(struct timers *timers);
void timers_close(struct timers *timers);
void timers_destroy(struct timers *timers);

/* disk.c, on the loop's thread */
struct disk *disk_create(struct loop *loop);
void disk_perform(struct disk *disk, struct runtime_actor *actor, struct effect *effect);
void disk_submit(struct disk *disk);
void disk_close(struct disk *disk);
void disk_destroy(struct disk *disk);
void disk_files_destroy(struct disk_files *files);

/* kv.c */
/* RocksDB counts each comparison of keys for the thread unless told not to: a twelfth of what a commit costs. */
void runtime_kv_thread(void);
/* WOULD_BLOCK: not taken, flushes are behind; ask again. */
MUST_CHECK enum err runtime_kv_commit(struct runtime_kv *kv, struct kv_batch *batch, char *ret_text);
MUST_CHECK enum err runtime_kv_flush(struct runtime_kv *kv, char *ret_text);
/* The state that `actor` pinned under `number`, pinned now when it was not. Loop thread. */
struct kv_pin;
struct kv_pin *runtime_kv_pin(struct runtime_kv *kv, const struct runtime_actor *actor, uint64_t number);
void runtime_kv_unpin(struct runtime_kv *kv, const struct runtime_actor *actor, uint64_t number);
/* The database failed at `what`: the shell is told of damage, and the process halts. Any thread. */
void runtime_kv_failed(struct runtime *runtime, enum err err, const char *what, const char *text);
/* Packed pairs of [from, end), as many as fit into `bytes`, at least one. Any thread, one a pin at a time. */
MUST_CHECK enum err runtime_kv_scan(struct runtime_kv *kv, struct kv_pin *pin, struct slice from, struct slice end,
                                    uint64_t bytes, struct slice *ret_pairs, char *ret_text);

/* user_file.c: reads on a helper; answers with DISK_DONE. */
void user_file_read(struct runtime_actor *actor, const struct effect *effect);
void user_files_destroy(struct runtime *runtime);

/* net.c, on the loop's thread */
struct net *net_create(struct loop *loop);
/* Starts to accept (loop 0). */
void net_start(struct net *net);
/* Takes header and body of the SEND. */
void net_send(struct net *net, struct runtime_actor *sender, struct effect *effect);
void net_flush(struct net *net);
/* Accepts no connection any more (loop 0). */
void net_stop_listening(struct net *net);
/* Requests that were taken and not answered, and answers not yet given to the socket. */
uint64_t net_unfinished(const struct net *net);
void net_close(struct net *net);
void net_destroy(struct net *net);

#endif
