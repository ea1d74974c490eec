/* The runtime of a process: configuration, actors, loops' threads, start and stop. Stands around everything else of
 * io/; no byte passes here but those of runtime_post.
 *
 * Happy path: create (certificate read, loops and pools made), actors added, run; a HALT or runtime_stop ends every
 * loop, run joins the threads and returns the exit code; destroy frees. Failure to create is answered with a text. */
#include "io/runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "io/internal.h"
#include "io/tls.h"

#define HELPER_THREADS 2u /* fallocate, unlink, reads of people's files */
#define FLUSH_THREADS  1u /* RocksDB flushes one at a time anyway; a long one must not hold up a log's next file */

/* ---- making it ---- */

static void runtime_prepare_process(void)
{
    signal(SIGPIPE, SIG_IGN);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    /* The pool of slices keeps bulk buffers for their next use; what it gives up goes back to the system. In the heap
     * such sizes leave holes, which grow for as long as a transfer lasts. */
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
}

static void runtime_copy_config(struct runtime *runtime, const struct runtime_config *config)
{
    runtime->config = *config;
    runtime->config.ca_file = runtime->config.cert_file = runtime->config.key_file = runtime->config.log_file = NULL;
    runtime->loop_count = config->loops < LOOPS_MAX ? config->loops : LOOPS_MAX;
    snprintf(runtime->node, sizeof runtime->node, "%s:%u", tls_role_name(config->role), config->id);
}

/* -1 when none is named: stderr. */
static enum err runtime_open_log(const struct runtime_config *config, int *ret_fd, char *ret_text)
{
    *ret_fd = -1;
    if (config->log_file == NULL) {
        return ERR_OK;
    }
    *ret_fd = open(config->log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (*ret_fd < 0) {
        snprintf(ret_text, 256, "log file %.150s: %s; name a file this user may write", config->log_file,
                 strerror(errno));
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static void runtime_set_limits(struct runtime *runtime, const struct runtime_config *config)
{
    bool given = config->max_connections > 0 && config->max_connections < RUNTIME_CONNECTIONS_MAX;
    atomic_store(&runtime->connections_max, given ? config->max_connections : RUNTIME_CONNECTIONS_MAX);
}

unsigned runtime_loops_default(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores >= 8 ? (unsigned)cores / 4 : 1;
}

unsigned runtime_workers_default(unsigned loops)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores > (long)loops + 1 ? (unsigned)cores - loops : 1;
}

enum err runtime_create(const struct runtime_config *config, struct runtime **ret_runtime, char *ret_text)
{
    CHECK(config->loops >= 1 && config->workers >= 1);
    runtime_prepare_process();
    struct runtime *runtime = mem_alloc(sizeof *runtime);
    runtime_copy_config(runtime, config);
    enum err err = runtime_open_log(config, &runtime->log_fd, ret_text);
    if (err != ERR_OK) {
        free(runtime);
        return err;
    }
    err = tls_create(config, &runtime->tls, ret_text);
    if (err != ERR_OK) {
        if (runtime->log_fd >= 0) {
            close(runtime->log_fd);
        }
        free(runtime);
        return err;
    }
    io_log_set(runtime->log_fd, runtime->node);
    runtime_set_limits(runtime, config);
    pthread_mutex_init(&runtime->lock, NULL);
    runtime->loops = mem_alloc(runtime->loop_count * sizeof *runtime->loops);
    for (unsigned i = 0; i < runtime->loop_count; i++) {
        loop_init(&runtime->loops[i], runtime, i);
    }
    runtime->workers = pool_create(config->workers, runtime->node);
    runtime->helpers = pool_create(HELPER_THREADS, runtime->node);
    runtime->flushers = pool_create(FLUSH_THREADS, runtime->node);
    *ret_runtime = runtime;
    return ERR_OK;
}

static void runtime_stop_pools(struct runtime *runtime)
{
    pool_destroy(runtime->workers);
    pool_destroy(runtime->helpers);
    pool_destroy(runtime->flushers);
    runtime->workers = runtime->helpers = runtime->flushers = NULL;
}

void runtime_destroy(struct runtime *runtime)
{
    if (runtime == NULL) {
        return;
    }
    CHECK(!runtime->running);
    runtime_stop_pools(runtime);
    for (unsigned i = 0; i < runtime->loop_count; i++) {
        loop_deinit(&runtime->loops[i]);
    }
    for (unsigned long i = 0; i < runtime->actor_count; i++) {
        struct runtime_actor *actor = runtime->actors[i];
        inbox_clear(actor);
        actor_kv_release(actor);
        disk_files_destroy(actor->files);
        free(actor->dir);
        free(actor);
    }
    for (unsigned kind = 0; kind < ACTOR_KINDS; kind++) {
        free(runtime->by_kind[kind]);
    }
    for (unsigned long i = 0; i < runtime->listener_count; i++) {
        close(runtime->listeners[i]);
    }
    user_files_destroy(runtime);
    tls_destroy(runtime->tls);
    io_log_set(-1, runtime->node);
    if (runtime->log_fd >= 0) {
        close(runtime->log_fd);
    }
    pthread_mutex_destroy(&runtime->lock);
    free(runtime->listeners);
    free(runtime->addresses);
    free(runtime->actors);
    free(runtime->loops);
    free(runtime);
}

enum err runtime_reload(struct runtime *runtime, const struct runtime_config *config, char *ret_text)
{
    int log_fd = -1;
    enum err err = runtime_open_log(config, &log_fd, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    err = tls_reload(runtime->tls, config, ret_text);
    if (err != ERR_OK) {
        if (log_fd >= 0) {
            close(log_fd);
        }
        return err;
    }
    int old_fd = runtime->log_fd;
    runtime->log_fd = log_fd;
    io_log_set(log_fd, runtime->node);
    if (old_fd >= 0) {
        close(old_fd);
    }
    runtime_set_limits(runtime, config);
    return ERR_OK;
}

void runtime_set_hooks(struct runtime *runtime, const struct runtime_hooks *hooks)
{
    CHECK(!runtime->running);
    runtime->hooks = *hooks;
}

/* ---- actors ---- */

void runtime_add_actor(struct runtime *runtime, unsigned loop, enum actor_kind kind, uint32_t index, actor_step *step,
                       void *actor, const char *dir, struct runtime_kv *kv)
{
    CHECK(!runtime->running && kind > ACTOR_NONE && kind < ACTOR_KINDS && index < ACTOR_INDEX_MAX);
    CHECK(runtime_actor_find(runtime, kind, index) == NULL && runtime->actor_count < ACTORS_MAX);
    struct runtime_actor *added = mem_alloc(sizeof *added);
    added->runtime = runtime;
    added->loop = &runtime->loops[loop % runtime->loop_count];
    added->kind = kind;
    added->index = index;
    added->step = step;
    added->actor = actor;
    added->dir = dir ? strdup(dir) : NULL;
    added->kv = kv;
    added->tail = &added->head;
    runtime->actors =
        mem_grow(runtime->actors, &runtime->actor_capacity, runtime->actor_count + 1, sizeof(struct runtime_actor *));
    runtime->actors[runtime->actor_count++] = added;
    added->slot = (uint16_t)runtime->actor_count;
    runtime->by_kind[kind] = mem_grow(runtime->by_kind[kind], &runtime->by_kind_capacity[kind],
                                      (unsigned long)index + 1, sizeof(struct runtime_actor *));
    runtime->by_kind[kind][index] = added;
    struct inbox_event *boot = inbox_event_create(added, EVENT_TIMER);
    boot->event.timer.id = RUNTIME_TIMER_BOOT;
    inbox_post(boot);
}

struct runtime_actor *runtime_actor_find(struct runtime *runtime, enum actor_kind kind, uint32_t index)
{
    if (kind >= ACTOR_KINDS || index >= runtime->by_kind_capacity[kind]) {
        return NULL;
    }
    return runtime->by_kind[kind][index];
}

struct runtime_actor *runtime_actor_of_slot(struct runtime *runtime, uint16_t slot)
{
    return slot >= 1 && slot <= runtime->actor_count ? runtime->actors[slot - 1] : NULL;
}

void runtime_post(struct runtime *runtime, struct address to, uint16_t type, uint64_t stream, struct slice header,
                  struct slice body)
{
    struct runtime_actor *actor = runtime_actor_find(runtime, to.actor, to.index);
    if (actor == NULL) {
        io_log(LOG_WARN, ERR_WRONG_GROUP, "a message of type %u was posted to actor %u/%u, which does not exist", type,
               to.actor, to.index);
        slice_drop(&header);
        slice_drop(&body);
        return;
    }
    struct inbox_event *event = inbox_event_create(actor, EVENT_MESSAGE);
    event->event.message = (struct message){
        .from = address_local(ACTOR_NONE, 0),
        .peer = {.role = ROLE_LOCAL, .id = runtime->config.id},
        .type = type,
        .target = to.index,
        .stream = stream,
        .header = header,
        .body = body,
    };
    inbox_post(event);
}

struct runtime_disk_counters runtime_disk_counters(struct runtime *runtime, enum actor_kind kind, uint32_t index)
{
    struct runtime_actor *actor = runtime_actor_find(runtime, kind, index);
    if (actor == NULL) {
        return (struct runtime_disk_counters){0};
    }
    return (struct runtime_disk_counters){
        .submissions = atomic_load(&actor->disk_submissions),
        .submitted = atomic_load(&actor->disk_submitted),
        .syncs = atomic_load(&actor->disk_syncs),
    };
}

struct runtime_net_counters runtime_net_counters(struct runtime *runtime)
{
    return (struct runtime_net_counters){
        .accepted_connections = atomic_load(&runtime->accepted_connections),
        .refused_connections = atomic_load(&runtime->refused_connections),
        .refused_frames = atomic_load(&runtime->refused_frames),
    };
}

void runtime_note_refused(struct runtime *runtime, enum err reason)
{
    CHECK(reason > ERR_OK && reason < ERR_LIMIT);
    atomic_fetch_add(&runtime->refused[reason], 1);
}

uint64_t runtime_refused(struct runtime *runtime, enum err reason)
{
    CHECK(reason < ERR_LIMIT);
    return atomic_load(&runtime->refused[reason]);
}

/* ---- running it ---- */

void runtime_stop(struct runtime *runtime)
{
    atomic_store(&runtime->stopping, true);
    for (unsigned i = 0; i < runtime->loop_count; i++) {
        loop_wake(&runtime->loops[i]);
    }
}

void runtime_halt(struct runtime *runtime, enum err err, const char *format, ...)
{
    char reason[512];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    if (!atomic_exchange(&runtime->halted, true)) {
        io_log(LOG_FATAL, err, "%s", reason);
        atomic_store(&runtime->exit_code, err_exit_code(err));
    }
    runtime_stop(runtime);
}

static void *runtime_loop_main(void *argument)
{
    loop_run(argument);
    return NULL;
}

int runtime_run(struct runtime *runtime, int handle_signals)
{
    CHECK(!runtime->running && runtime->workers != NULL);
    runtime->running = true;
    struct signals *signals = handle_signals ? signals_create(runtime) : NULL;
    runtime->signals = signals;
    for (unsigned i = 1; i < runtime->loop_count; i++) {
        int rc = pthread_create(&runtime->loops[i].thread, NULL, runtime_loop_main, &runtime->loops[i]);
        CHECK(rc == 0);
    }
    loop_run(&runtime->loops[0]);
    for (unsigned i = 1; i < runtime->loop_count; i++) {
        pthread_join(runtime->loops[i].thread, NULL);
    }
    runtime_stop_pools(runtime);
    runtime->signals = NULL;
    signals_destroy(signals);
    drain_destroy(runtime);
    runtime->running = false;
    return atomic_load(&runtime->exit_code);
}
