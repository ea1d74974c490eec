/* Runs the effects of one step: each kind goes to the file that knows how. Stands between a core and everything real.
 * Order: list order. A HALT ends the list: what stands behind it is dropped. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/internal.h"
#include "proto/message.h"

/* ---- local messages ---- */

static void effects_send_local(struct runtime_actor *sender, struct effect *effect)
{
    struct runtime *runtime = sender->runtime;
    struct address to = effect->send.to;
    struct runtime_actor *actor = runtime_actor_find(runtime, to.actor, to.index);
    uint8_t flags = effect->send.flags;
    struct address from = address_local(sender->kind, sender->index);
    if (actor == NULL || (!(flags & MESSAGE_REPLY) && inbox_full(actor))) {
        slice_drop(&effect->send.header);
        slice_drop(&effect->send.body);
        if (flags & MESSAGE_REPLY) {
            return;
        }
        enum err err = actor == NULL ? ERR_WRONG_GROUP : ERR_BUSY;
        from = address_local(to.actor, to.index);
        effect->send.header = error_reply_encode(err, err_text(err), 0);
        flags = MESSAGE_REPLY | MESSAGE_ERROR;
        actor = sender;
    }
    struct inbox_event *event = inbox_event_create(actor, EVENT_MESSAGE);
    event->event.message = (struct message){
        .from = from,
        .peer = {.role = ROLE_LOCAL, .id = runtime->config.id},
        .type = effect->send.type,
        .flags = flags,
        .target = actor->index,
        .stream = effect->send.stream,
        .header = effect->send.header,
        .body = effect->send.body,
    };
    inbox_post(event);
}

/* ---- compute ---- */

struct compute_work {
    struct job job;
    struct runtime_actor *actor;
    uint64_t token;
    struct compute_job *compute;
};

static void compute_done(struct runtime_actor *actor, uint64_t token, struct compute_job *compute)
{
    struct inbox_event *event = inbox_event_create(actor, EVENT_COMPUTE_DONE);
    event->event.compute.token = token;
    event->event.compute.job = compute;
    inbox_post(event);
}

static void compute_work_run(struct job *job, bool drop)
{
    struct compute_work *work = (struct compute_work *)job;
    if (drop) {
        compute_job_destroy(work->compute);
    } else {
        compute_run(work->compute);
        compute_done(work->actor, work->token, work->compute);
    }
    free(work);
}

static void effects_compute(struct runtime_actor *actor, const struct effect *effect)
{
    struct compute_job *compute = effect->compute.job;
    uint64_t input_bytes = 0;
    for (unsigned i = 0; i < sizeof compute->in / sizeof compute->in[0]; i++) {
        input_bytes += compute->in[i].bytes;
    }
    if (input_bytes < COMPUTE_PLACE_BYTES) {
        compute_run(compute);
        compute_done(actor, effect->compute.token, compute);
        return;
    }
    struct compute_work *work = mem_alloc(sizeof *work);
    work->job.run = compute_work_run;
    work->job.priority = compute->priority <= 2 ? compute->priority : 2;
    work->actor = actor;
    work->token = effect->compute.token;
    work->compute = compute;
    pool_post(actor->runtime->workers, &work->job);
}

/* ---- key-value ---- */

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

static void effects_kv_flush(struct runtime_actor *actor, const struct effect *effect)
{
    CHECK(actor->kv != NULL);
    struct flush_work *work = mem_alloc(sizeof *work);
    work->job.run = flush_work_run;
    work->job.priority = 1;
    work->actor = actor;
    work->token = effect->kv.token;
    pool_post(actor->runtime->flushers, &work->job);
}

/* False when it is not taken now. */
static bool effects_kv_commit(struct runtime_actor *actor, const struct effect *effect)
{
    char text[256];
    CHECK(actor->kv != NULL);
    enum err err = runtime_kv_commit(actor->kv, effect->kv.batch, text);
    if (err == ERR_WOULD_BLOCK) {
        return false;
    }
    kv_batch_destroy(effect->kv.batch);
    if (err != ERR_OK) {
        runtime_kv_failed(actor->runtime, err, "commit", text);
    }
    return true;
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

static void effects_kv_scan(struct runtime_actor *actor, const struct effect *effect)
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

/* ---- a database that refuses writes for now ---- */

#define HELD_LOG_NS 1000000000ull

static bool effects_kv(struct runtime_actor *actor, const struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_KV_COMMIT:
        return effects_kv_commit(actor, effect);
    case EFFECT_KV_FLUSH:
        effects_kv_flush(actor, effect);
        return true;
    default:
        CHECK(effect->kind == EFFECT_KV_SCAN);
        effects_kv_scan(actor, effect);
        return true;
    }
}

/* A flush or a scan must see the commits before it: all wait in order. */
static void effects_kv_in_order(struct runtime_actor *actor, const struct effect *effect)
{
    if (actor->held_count == 0 && effects_kv(actor, effect)) {
        return;
    }
    if (actor->held_count == 0) {
        actor->held_since_ns = clock_now_ns();
    }
    actor->held = mem_grow(actor->held, &actor->held_capacity, actor->held_count + 1, sizeof *actor->held);
    actor->held[actor->held_count++] = *effect;
}

bool effects_resume(struct runtime_actor *actor)
{
    unsigned long done = 0;
    while (done < actor->held_count && effects_kv(actor, &actor->held[done])) {
        done++;
    }
    actor->held_count -= done;
    if (done > 0) {
        memmove(actor->held, actor->held + done, actor->held_count * sizeof *actor->held);
    }
    uint64_t held_ns = clock_now_ns() - actor->held_since_ns;
    if (actor->held_count == 0 && held_ns >= HELD_LOG_NS) {
        io_log(LOG_WARN, ERR_BUSY, "the database took no writes for %llu ms; its disk or its compaction is behind",
               (unsigned long long)(held_ns / 1000000));
    }
    return actor->held_count == 0;
}

/* ---- the list ---- */

static void effects_drop(struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_SEND:
        slice_drop(&effect->send.header);
        slice_drop(&effect->send.body);
        break;
    case EFFECT_DISK_WRITE:
        slice_drop(&effect->disk.data);
        break;
    case EFFECT_KV_COMMIT:
        kv_batch_destroy(effect->kv.batch);
        break;
    case EFFECT_KV_SCAN:
        slice_drop(&effect->scan.from);
        slice_drop(&effect->scan.end);
        break;
    case EFFECT_COMPUTE:
        compute_job_destroy(effect->compute.job);
        break;
    case EFFECT_TIMER:
    case EFFECT_DISK_SYNC:
    case EFFECT_DISK_READ:
    case EFFECT_DISK_ALLOC:
    case EFFECT_DISK_DISCARD:
    case EFFECT_KV_FLUSH:
    case EFFECT_HALT:
        break;
    }
}

static void effects_perform_one(struct runtime_actor *actor, struct effect *effect)
{
    struct loop *loop = actor->loop;
    switch (effect->kind) {
    case EFFECT_SEND:
        if (effect->send.to.conn == 0 && effect->send.to.role == ROLE_LOCAL) {
            effects_send_local(actor, effect);
        } else {
            net_send(loop->net, actor, effect);
        }
        break;
    case EFFECT_TIMER:
        timers_set(loop->timers, actor, effect->timer.id, effect->timer.deadline_ns);
        break;
    case EFFECT_DISK_WRITE:
    case EFFECT_DISK_SYNC:
    case EFFECT_DISK_READ:
    case EFFECT_DISK_ALLOC:
    case EFFECT_DISK_DISCARD:
        disk_perform(loop->disk, actor, effect);
        break;
    case EFFECT_KV_COMMIT:
    case EFFECT_KV_FLUSH:
    case EFFECT_KV_SCAN:
        effects_kv_in_order(actor, effect);
        break;
    case EFFECT_COMPUTE:
        effects_compute(actor, effect);
        break;
    case EFFECT_HALT:
        runtime_halt(actor->runtime, effect->halt.err, "%s", effect->halt.reason);
        break;
    }
}

void effects_release(struct runtime_actor *actor)
{
    for (unsigned long i = 0; i < actor->held_count; i++) {
        effects_drop(&actor->held[i]);
    }
    free(actor->held);
}

void effects_perform(struct runtime_actor *actor, struct effects *fx)
{
    bool stopped = atomic_load(&actor->runtime->halted); /* by a read of this very step: nothing of it may leave */
    for (unsigned long i = 0; i < fx->count; i++) {
        if (stopped) {
            effects_drop(&fx->items[i]);
            continue;
        }
        effects_perform_one(actor, &fx->items[i]);
        stopped = atomic_load(&actor->runtime->halted);
    }
    fx->count = 0;
}
