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

/* ---- the list ---- */

void effects_drop(struct effect *effect)
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
        actor_kv_perform(actor, effect);
        break;
    case EFFECT_COMPUTE:
        effects_compute(actor, effect);
        break;
    case EFFECT_HALT:
        runtime_halt(actor->runtime, effect->halt.err, "%s", effect->halt.reason);
        break;
    }
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
