/* An actor and its database: commits, flushes and scans in the order of its effects. Stands between a step and kv.c.
 *
 * Happy path: a commit is not written at once. It joins what the actor has pending, which its reads see first (kv.c),
 * and goes to the database at the end of the turn, when messages and disk operations of the turn are under way: they do
 * not wait for it, and what commits of one turn wrote twice is written once. A flush or a scan is preceded by what is
 * pending.
 *
 * A database whose flushes or compaction are behind refuses writes: the actor takes no step until what it has pending
 * is taken; flushes and scans wait behind it. How it fails: any other error of a commit is a HALT (kv.c). */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/internal.h"

#define PENDING_BYTES  ((uint64_t)1 << 20) /* more is written at once */
#define REFUSED_LOG_NS 1000000000ull

/* ---- flushes and scans ---- */

struct flush_work {
    struct job job;
    struct runtime_actor *actor;
    uint64_t token;
};

static void flush_work_run(struct job *job, bool drop)
{
    struct flush_work *work = (struct flush_work *)job;
    char text[256];
    if (!drop) {
        enum err err = runtime_kv_flush(work->actor->kv, text);
        if (err != ERR_OK && !atomic_load(&work->actor->runtime->stopping)) {
            runtime_kv_failed(work->actor->runtime, err, "flush", text);
        }
        struct inbox_event *event = inbox_event_create(work->actor, EVENT_KV_DONE);
        event->event.kv.token = work->token;
        event->event.kv.err = err;
        inbox_post(event);
    }
    free(work);
}

static void actor_kv_flush(struct runtime_actor *actor, const struct effect *effect)
{
    CHECK(actor->kv != NULL);
    struct flush_work *work = mem_alloc(sizeof *work);
    work->job.run = flush_work_run;
    work->job.priority = 1;
    work->actor = actor;
    work->token = effect->kv.token;
    pool_post(actor->runtime->flushers, &work->job);
}

struct scan_work {
    struct job job;
    struct runtime_actor *actor;
    struct kv_pin *pin;
    uint64_t token, bytes;
    struct slice from, end;
};

static void scan_work_run(struct job *job, bool drop)
{
    struct scan_work *work = (struct scan_work *)job;
    char text[256];
    if (!drop) {
        struct slice pairs = {0};
        enum err err = runtime_kv_scan(work->actor->kv, work->pin, work->from, work->end, work->bytes, &pairs, text);
        if (err != ERR_OK) {
            runtime_kv_failed(work->actor->runtime, err, "scan", text);
        }
        struct inbox_event *event = inbox_event_create(work->actor, EVENT_KV_DONE);
        event->event.kv.token = work->token;
        event->event.kv.err = err;
        event->event.kv.data = pairs;
        inbox_post(event);
    }
    slice_drop(&work->from);
    slice_drop(&work->end);
    free(work);
}

static void actor_kv_scan(struct runtime_actor *actor, const struct effect *effect)
{
    CHECK(actor->kv != NULL);
    if (effect->scan.bytes == 0) {
        runtime_kv_unpin(actor->kv, actor, effect->scan.pin);
        return;
    }
    struct scan_work *work = mem_alloc(sizeof *work);
    *work = (struct scan_work){.job.run = scan_work_run,
                               .job.priority = 2,
                               .actor = actor,
                               .pin = runtime_kv_pin(actor->kv, actor, effect->scan.pin),
                               .token = effect->scan.token,
                               .bytes = effect->scan.bytes,
                               .from = effect->scan.from,
                               .end = effect->scan.end};
    pool_post(actor->runtime->flushers, &work->job);
}

/* ---- commits ---- */

struct kv_batch *actor_kv_pending(const struct runtime_kv *kv)
{
    const struct loop *loop = loop_current();
    const struct runtime_actor *actor = loop != NULL ? loop->stepping : NULL;
    return actor != NULL && actor->kv == kv ? actor->pending : NULL;
}

/* Writes what is pending. False when it is not taken now. */
static bool actor_kv_write(struct runtime_actor *actor)
{
    char text[256];
    if (actor->pending == NULL) {
        return true;
    }
    enum err err = runtime_kv_commit(actor->kv, actor->pending, text);
    if (err == ERR_WOULD_BLOCK) {
        return false;
    }
    kv_batch_destroy(actor->pending);
    actor->pending = NULL;
    if (err != ERR_OK) {
        runtime_kv_failed(actor->runtime, err, "commit", text);
    }
    return true;
}

static void actor_kv_add(struct runtime_actor *actor, struct kv_batch *batch)
{
    struct loop *loop = actor->loop;
    if (actor->pending != NULL) {
        kv_batch_merge(actor->pending, batch);
    } else {
        actor->pending = batch;
    }
    if (!actor->unsettled) {
        actor->unsettled = true;
        actor->unsettled_next = loop->unsettled;
        loop->unsettled = actor;
    }
    if (kv_batch_bytes(actor->pending) >= PENDING_BYTES) {
        actor_kv_settle(actor);
    }
}

static void actor_kv_refused(struct runtime_actor *actor)
{
    if (!actor->refused) {
        actor->refused = true;
        actor->refused_since_ns = clock_now_ns();
    }
}

static void actor_kv_accepted(struct runtime_actor *actor)
{
    if (!actor->refused) {
        return;
    }
    actor->refused = false;
    uint64_t ns = clock_now_ns() - actor->refused_since_ns;
    if (ns >= REFUSED_LOG_NS) {
        io_log(LOG_WARN, ERR_BUSY, "the database took no writes for %llu ms; its disk or its compaction is behind",
               (unsigned long long)(ns / 1000000));
    }
}

static void actor_kv_begin(struct runtime_actor *actor, const struct effect *effect)
{
    if (effect->kind == EFFECT_KV_FLUSH) {
        actor_kv_flush(actor, effect);
    } else {
        CHECK(effect->kind == EFFECT_KV_SCAN);
        actor_kv_scan(actor, effect);
    }
}

bool actor_kv_settle(struct runtime_actor *actor)
{
    if (!actor_kv_write(actor)) {
        actor_kv_refused(actor);
        return false;
    }
    for (unsigned long i = 0; i < actor->held_count; i++) {
        actor_kv_begin(actor, &actor->held[i]);
    }
    actor->held_count = 0;
    actor_kv_accepted(actor);
    return true;
}

void actor_kv_perform(struct runtime_actor *actor, const struct effect *effect)
{
    CHECK(actor->kv != NULL);
    if (effect->kind == EFFECT_KV_COMMIT) {
        actor_kv_add(actor, effect->kv.batch);
        return;
    }
    actor->held = mem_grow(actor->held, &actor->held_capacity, actor->held_count + 1, sizeof *actor->held);
    actor->held[actor->held_count++] = *effect;
    loop_settle(actor->loop); /* a flush is of the database, and of what others of this loop wrote to it */
    actor_kv_settle(actor);
}

void actor_kv_release(struct runtime_actor *actor)
{
    kv_batch_destroy(actor->pending);
    for (unsigned long i = 0; i < actor->held_count; i++) {
        effects_drop(&actor->held[i]);
    }
    free(actor->held);
}
