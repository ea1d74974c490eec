/* A runtime on a thread of its own with one or more probes: actors that record what they are told, echo requests, and
 * run closures of the test. Waits end on an event; their deadline only turns a hang into a failure. */
#ifndef CAIRN_TESTS_PROBE_H
#define CAIRN_TESTS_PROBE_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"
#include "base/compute.h"
#include "base/effect.h"
#include "certs.h"
#include "io/runtime.h"

#define PROBE_EVENTS  256
#define PROBE_DO_TYPE 0xfff0 /* a posted closure */
#define PROBE_HANG_S  60

struct probe;
typedef void probe_fn(struct probe *probe, void *argument, struct effects *fx);
struct probe_closure {
    probe_fn *run;
    void *argument;
};

struct probe {
    struct runtime *runtime;
    enum actor_kind kind;
    uint32_t index;
    bool echo; /* requests are answered with what they hold */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct event events[PROBE_EVENTS]; /* but TIMER 0 and closures; slices kept */
    unsigned count;
    _Atomic unsigned echoed;
    bool booted;
};

static inline void probe_record(struct probe *probe, const struct event *event)
{
    pthread_mutex_lock(&probe->lock);
    CHECK(probe->count < PROBE_EVENTS);
    struct event *kept = &probe->events[probe->count++];
    *kept = *event;
    if (event->kind == EVENT_MESSAGE) {
        slice_ref(event->message.header);
        slice_ref(event->message.body);
    } else if (event->kind == EVENT_DISK_DONE) {
        slice_ref(event->disk.data);
    } else if (event->kind == EVENT_KV_DONE) {
        slice_ref(event->kv.data);
    } else if (event->kind == EVENT_COMPUTE_DONE) {
        kept->compute.job = compute_job_create(event->compute.job->op);
        *kept->compute.job = *event->compute.job;
        for (unsigned i = 0; i < sizeof kept->compute.job->in / sizeof kept->compute.job->in[0]; i++) {
            slice_ref(kept->compute.job->in[i]);
            slice_ref(kept->compute.job->out[i]);
        }
    }
    pthread_cond_broadcast(&probe->changed);
    pthread_mutex_unlock(&probe->lock);
}

static inline void probe_step(void *actor, const struct event *event, struct effects *fx)
{
    struct probe *probe = actor;
    CHECK(event->now_ns > 0 && event->wall_ns > 0);
    CHECK(probe->booted || event->kind == EVENT_TIMER); /* the boot comes first */
    if (event->kind == EVENT_TIMER && event->timer.id == RUNTIME_TIMER_BOOT) {
        CHECK(!probe->booted);
        probe->booted = true;
    } else if (event->kind == EVENT_MESSAGE && event->message.type == PROBE_DO_TYPE &&
               event->message.peer.role == ROLE_LOCAL) {
        const struct probe_closure *closure = (const struct probe_closure *)event->message.header.data;
        closure->run(probe, closure->argument, fx);
    } else if (event->kind == EVENT_MESSAGE && probe->echo && !(event->message.flags & MESSAGE_REPLY)) {
        probe->echoed++;
        fx_reply(fx, &event->message, slice_ref(event->message.header), slice_ref(event->message.body));
    } else {
        probe_record(probe, event);
    }
}

/* Runs `run` inside the actor's step. */
static inline void probe_do(struct probe *probe, probe_fn *run, void *argument)
{
    struct probe_closure closure = {run, argument};
    runtime_post(probe->runtime, address_local(probe->kind, probe->index), PROBE_DO_TYPE, 0,
                 slice_copy(&closure, sizeof closure), (struct slice){0});
}

/* Waits until the probe has recorded `count` events; false if it hangs. */
static inline bool probe_wait(struct probe *probe, unsigned count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PROBE_HANG_S;
    int rc = 0;
    pthread_mutex_lock(&probe->lock);
    while (probe->count < count && rc == 0) {
        rc = pthread_cond_timedwait(&probe->changed, &probe->lock, &until);
    }
    pthread_mutex_unlock(&probe->lock);
    return rc == 0;
}

static inline void probe_forget(struct probe *probe)
{
    pthread_mutex_lock(&probe->lock);
    for (unsigned i = 0; i < probe->count; i++) {
        struct event *event = &probe->events[i];
        if (event->kind == EVENT_MESSAGE) {
            slice_drop(&event->message.header);
            slice_drop(&event->message.body);
        } else if (event->kind == EVENT_DISK_DONE) {
            slice_drop(&event->disk.data);
        } else if (event->kind == EVENT_KV_DONE) {
            slice_drop(&event->kv.data);
        } else if (event->kind == EVENT_COMPUTE_DONE) {
            compute_job_destroy(event->compute.job);
        }
    }
    probe->count = 0;
    pthread_mutex_unlock(&probe->lock);
}

static inline void probe_add(struct probe *probe, struct runtime *runtime, unsigned loop, enum actor_kind kind,
                             uint32_t index, const char *dir, struct runtime_kv *kv)
{
    *probe = (struct probe){.runtime = runtime, .kind = kind, .index = index};
    pthread_mutex_init(&probe->lock, NULL);
    pthread_cond_init(&probe->changed, NULL);
    runtime_add_actor(runtime, loop, kind, index, probe_step, probe, dir, kv);
}

/* ---- a runtime on a thread ---- */

struct station {
    struct runtime *runtime;
    pthread_t thread;
    int exit_code;
};

static inline struct runtime_config station_config(const struct certs *certs, const char *name, enum role role,
                                                   uint32_t id, const char *log_file)
{
    return (struct runtime_config){
        .role = role,
        .id = id,
        .ca_file = certs_file(certs, "ca", "crt"),
        .cert_file = certs_file(certs, name, "crt"),
        .key_file = certs_file(certs, name, "key"),
        .cluster = {.uuid = {.bytes = {1, 2, 3}}},
        .cluster_incarnation = 1,
        .loops = 1,
        .workers = 1,
        .log_file = log_file,
    };
}

/* A runtime of blockd:2 over a data directory, with its database; not started. */
static inline void station_open(struct station *station, const struct certs *certs, const char *dir, int *ret_lock,
                                struct runtime_kv **ret_kv)
{
    char text[256] = "";
    struct runtime_config config = station_config(certs, "blockd:2", ROLE_BLOCKD, 2, certs_file(certs, "node", "log"));
    CHECK(runtime_directory_open(dir, ret_lock, text) == ERR_OK);
    CHECK(runtime_create(&config, &station->runtime, text) == ERR_OK);
    CHECK(runtime_kv_open(station->runtime, dir, ret_kv, text) == ERR_OK);
}

/* One that has ended. */
static inline void station_close(struct station *station, int lock, struct runtime_kv *kv)
{
    runtime_kv_close(kv);
    runtime_destroy(station->runtime);
    close(lock);
}

static inline void *station_main(void *argument)
{
    struct station *station = argument;
    station->exit_code = runtime_run(station->runtime, 0);
    return NULL;
}

static inline void station_start(struct station *station)
{
    int rc = pthread_create(&station->thread, NULL, station_main, station);
    CHECK(rc == 0);
}

/* Stops it and returns its exit code; the runtime stays to be destroyed. */
static inline int station_stop(struct station *station)
{
    runtime_stop(station->runtime);
    pthread_join(station->thread, NULL);
    return station->exit_code;
}

#endif
