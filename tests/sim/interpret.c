/* What each effect does in the world, and the trace line of every effect and event. */
#include <inttypes.h>
#include <stdio.h>

#include "base/check.h"
#include "base/compute.h"
#include "base/hash.h"
#include "inside.h"
#include "proto/message.h"

void effect_drop(struct effect *effect)
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
    default:
        break;
    }
}

static void execute_timer(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct world *world = node->world;
    unsigned long at = 0;
    while (at < actor->timer_count && actor->timers[at].id != effect->timer.id) {
        at++;
    }
    if (effect->timer.deadline_ns == 0) {
        if (at < actor->timer_count) {
            actor->timers[at] = actor->timers[--actor->timer_count];
        }
        return;
    }
    uint64_t due = node_clock_back(node, effect->timer.deadline_ns);
    due = due > world->now_ns ? due : world->now_ns;
    due += rng_below(&world->rng, 1 + MILLISECOND);
    if (rng_chance(&world->rng, world->knobs.timer_late_ppm)) {
        due += rng_below(&world->rng, world->knobs.timer_late_max_ns + 1);
    }
    struct item *item = world_item(world, due, ITEM_TIMER, node);
    item->actor = (unsigned)(actor - node->actors);
    item->timer.id = effect->timer.id;
    item->timer.generation = item->sequence;
    actor->timers = mem_grow(actor->timers, &actor->timer_capacity, at + 1, sizeof *actor->timers);
    actor->timers[at] = (struct world_timer){effect->timer.id, item->sequence};
    actor->timer_count = at == actor->timer_count ? at + 1 : actor->timer_count;
}

static void execute_disk(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct world *world = node->world;
    const struct world_knobs *knobs = &world->knobs;
    CHECK(actor->dir >= 0);
    uint64_t after = rng_between(&world->rng, knobs->disk_min_ns, knobs->disk_max_ns);
    if (rng_chance(&world->rng, knobs->disk_slow_ppm)) {
        after += rng_below(&world->rng, knobs->disk_slow_max_ns + 1);
    }
    const struct disk_knobs *own = disk_knobs(node->disks[actor->dir]);
    if (own->extra_ns > 0) {
        after += rng_below(&world->rng, own->extra_ns);
    }
    uint64_t begins = own->hung_until_ns > world->now_ns ? own->hung_until_ns : world->now_ns;
    struct item *item = world_item(world, begins + after, ITEM_DISK, node);
    item->actor = (unsigned)(actor - node->actors);
    item->disk.token = effect->disk.token;
    item->disk.dir = actor->dir;
    item->disk.op = disk_begin(node->disks[actor->dir], effect);
}

static void execute_flush(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct world *world = node->world;
    CHECK(actor->dir >= 0);
    uint64_t after = rng_between(&world->rng, world->knobs.flush_min_ns, world->knobs.flush_max_ns);
    uint64_t extra_ns = sim_kv_knobs(node->kvs[actor->dir])->extra_ns;
    after += extra_ns > 0 ? rng_below(&world->rng, extra_ns) : 0;
    struct item *item = world_item(world, world->now_ns + after, ITEM_FLUSH, node);
    item->actor = (unsigned)(actor - node->actors);
    item->kv.token = effect->kv.token;
    item->kv.dir = actor->dir;
    item->kv.flush = sim_kv_flush(node->kvs[actor->dir]);
}

static void execute_scan(struct node *node, struct actor *actor, struct effect *effect)
{
    struct world *world = node->world;
    CHECK(actor->dir >= 0);
    struct sim_kv *kv = node->kvs[actor->dir];
    uint64_t owner = (uint64_t)actor->kind << 32 | actor->index;
    if (effect->scan.bytes == 0) {
        sim_kv_unpin(kv, owner, effect->scan.pin);
        return;
    }
    uint64_t after = rng_between(&world->rng, world->knobs.disk_min_ns, world->knobs.disk_max_ns);
    struct item *item = world_item(world, world->now_ns + after, ITEM_SCAN, node);
    item->actor = (unsigned)(actor - node->actors);
    item->scan.token = effect->scan.token;
    item->scan.pairs =
        sim_kv_scan(kv, owner, effect->scan.pin, effect->scan.from, effect->scan.end, effect->scan.bytes);
    effect_drop(effect);
}

/* The real function runs at once; its answer comes in any order. */
static void execute_compute(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct world *world = node->world;
    uint64_t after = rng_between(&world->rng, world->knobs.compute_min_ns, world->knobs.compute_max_ns);
    compute_run(effect->compute.job);
    struct item *item = world_item(world, world->now_ns + after, ITEM_COMPUTE, node);
    item->actor = (unsigned)(actor - node->actors);
    item->compute.token = effect->compute.token;
    item->compute.job = effect->compute.job;
}

static void execute_halt(struct node *node, const struct effect *effect)
{
    struct world *world = node->world;
    bool allowed =
        world->halt_allowed != NULL && world->halt_allowed(world, node, effect->halt.err, effect->halt.reason);
    WORLD_REQUIRE(world, allowed, "node %d:%u halts with %s: %s", node->role, node->id, err_name(effect->halt.err),
                  effect->halt.reason);
    node->halted = true;
    node->halt_err = effect->halt.err;
    node_crash(node, CRASH_KILL);
}

void effect_execute(struct node *node, struct actor *actor, struct effect *effect)
{
    switch (effect->kind) {
    case EFFECT_SEND:
        net_send(node, actor, effect);
        break;
    case EFFECT_TIMER:
        execute_timer(node, actor, effect);
        break;
    case EFFECT_DISK_WRITE:
    case EFFECT_DISK_SYNC:
    case EFFECT_DISK_READ:
    case EFFECT_DISK_ALLOC:
    case EFFECT_DISK_DISCARD:
        execute_disk(node, actor, effect);
        break;
    case EFFECT_KV_COMMIT:
        CHECK(actor->dir >= 0);
        sim_kv_commit(node->kvs[actor->dir], effect->kv.batch);
        break;
    case EFFECT_KV_FLUSH:
        execute_flush(node, actor, effect);
        break;
    case EFFECT_KV_SCAN:
        execute_scan(node, actor, effect);
        break;
    case EFFECT_COMPUTE:
        execute_compute(node, actor, effect);
        break;
    case EFFECT_HALT:
        execute_halt(node, effect);
        break;
    }
}

static const char *actor_name(enum actor_kind kind)
{
    static const char *const names[ACTOR_KINDS] = {"none", "log", "group", "agent", "store", "client", "api"};
    return kind < ACTOR_KINDS ? names[kind] : "?";
}

const char *node_role_name(const struct node *node)
{
    enum role role = node->role;
    return role == ROLE_METAD ? "metad" : role == ROLE_BLOCKD ? "blockd" : role == ROLE_DEVICE ? "device" : "other";
}

static void trace_head(struct node *node, struct actor *actor, uint64_t number, const char *mark)
{
    printf("%12.6f %s:%u %s/%u %s%" PRIu64 " ", (double)node->world->now_ns / 1e9, node_role_name(node), node->id,
           actor_name(actor->kind), actor->index, mark, number);
}

static const char *type_name(uint16_t type)
{
    const struct message_row *row = message_row_find(type);
    return row == NULL ? "?" : row->name;
}

static void trace_event_print(struct node *node, struct actor *actor, const struct event *event)
{
    trace_head(node, actor, node->world->event_number, "<");
    const struct message *m = &event->message;
    switch (event->kind) {
    case EVENT_MESSAGE:
        printf("MESSAGE %s%s%s stream %" PRIu64 " from %d:%u header %u body %u\n", type_name(m->type),
               m->flags & MESSAGE_REPLY ? " reply" : "", m->flags & MESSAGE_ERROR ? " error" : "", m->stream,
               m->from.role, m->from.node, m->header.bytes, m->body.bytes);
        break;
    case EVENT_ROOM:
    case EVENT_CLOSED:
        printf("%s %d:%u\n", event->kind == EVENT_ROOM ? "ROOM" : "CLOSED", event->peer.peer.role,
               event->peer.peer.node);
        break;
    case EVENT_TIMER:
        printf("TIMER %" PRIu64 "\n", event->timer.id);
        break;
    case EVENT_DISK_DONE:
        printf("DISK_DONE token %" PRIu64 " %s %u B\n", event->disk.token, err_name(event->disk.err),
               event->disk.data.bytes);
        break;
    case EVENT_KV_DONE:
        printf("KV_DONE token %" PRIu64 " %s\n", event->kv.token, err_name(event->kv.err));
        break;
    case EVENT_COMPUTE_DONE:
        printf("COMPUTE_DONE token %" PRIu64 " op %d %s\n", event->compute.token, event->compute.job->op,
               err_name(event->compute.job->err));
        break;
    }
}

/* Bodies and blocks, the bulk of a run: a CRC of them tells two runs apart as well. */
static void trace_data(struct trace *trace, struct slice data)
{
    trace_word(trace, (uint64_t)data.bytes << 32 | crc32c(0, data.data, data.bytes));
}

void trace_event(struct node *node, struct actor *actor, const struct event *event)
{
    struct trace *trace = &node->world->trace;
    trace_word(trace, node->world->now_ns);
    trace_word(trace, (uint64_t)node->slot << 32 | (uint64_t)(actor - node->actors) << 8 | event->kind);
    switch (event->kind) {
    case EVENT_MESSAGE:
        trace_word(trace, event->message.stream << 16 | event->message.type);
        if (event->message.type != MESSAGE_CLIENT_OP && event->message.type != MESSAGE_CLIENT_DONE) { /* a pointer */
            trace_bytes(trace, event->message.header.data, event->message.header.bytes);
        }
        trace_data(trace, event->message.body);
        break;
    case EVENT_ROOM:
    case EVENT_CLOSED:
        trace_word(trace, (uint64_t)event->peer.peer.role << 32 | event->peer.peer.node);
        break;
    case EVENT_TIMER:
        trace_word(trace, event->timer.id);
        break;
    case EVENT_DISK_DONE:
        trace_word(trace, event->disk.token ^ (uint64_t)event->disk.err << 56);
        /* The beginning is enough: what was written is in the trace, what is made of it will be. */
        trace_bytes(trace, event->disk.data.data, event->disk.data.bytes < 512 ? event->disk.data.bytes : 512);
        break;
    case EVENT_KV_DONE:
        trace_word(trace, event->kv.token);
        trace_bytes(trace, event->kv.data.data, event->kv.data.bytes);
        break;
    case EVENT_COMPUTE_DONE:
        trace_word(trace, event->compute.token ^ (uint64_t)event->compute.job->err << 56);
        break;
    }
    if (trace->print) {
        trace_event_print(node, actor, event);
    }
}

static void trace_effect_print(struct node *node, struct actor *actor, const struct effect *effect)
{
    static const char *const disk_names[] = {"DISK_WRITE", "DISK_SYNC", "DISK_READ", "DISK_ALLOC", "DISK_DISCARD"};
    trace_head(node, actor, node->world->effect_number, ">");
    switch (effect->kind) {
    case EFFECT_SEND:
        printf("SEND %s%s%s stream %" PRIu64 " to %d:%u/%u conn %" PRIu64 " header %u body %u\n",
               type_name(effect->send.type), effect->send.flags & MESSAGE_REPLY ? " reply" : "",
               effect->send.flags & MESSAGE_ERROR ? " error" : "", effect->send.stream, effect->send.to.role,
               effect->send.to.node, effect->send.to.index, effect->send.to.conn, effect->send.header.bytes,
               effect->send.body.bytes);
        break;
    case EFFECT_TIMER:
        printf("TIMER %" PRIu64 " at %.6f\n", effect->timer.id, (double)effect->timer.deadline_ns / 1e9);
        break;
    case EFFECT_DISK_WRITE:
    case EFFECT_DISK_SYNC:
    case EFFECT_DISK_READ:
    case EFFECT_DISK_ALLOC:
    case EFFECT_DISK_DISCARD:
        printf("%s token %" PRIu64 " file %u/%u at %" PRIu64 " bytes %" PRIu64 "\n",
               disk_names[effect->kind - EFFECT_DISK_WRITE], effect->disk.token, effect->disk.file.kind,
               effect->disk.file.number, effect->disk.offset, effect->disk.bytes);
        break;
    case EFFECT_KV_COMMIT:
        printf("KV_COMMIT %zu entries\n", kv_batch_count(effect->kv.batch));
        break;
    case EFFECT_KV_FLUSH:
        printf("KV_FLUSH token %" PRIu64 "\n", effect->kv.token);
        break;
    case EFFECT_KV_SCAN:
        printf("KV_SCAN token %" PRIu64 " pin %" PRIu64 " bytes %" PRIu64 "\n", effect->scan.token, effect->scan.pin,
               effect->scan.bytes);
        break;
    case EFFECT_COMPUTE:
        printf("COMPUTE token %" PRIu64 " op %d\n", effect->compute.token, effect->compute.job->op);
        break;
    case EFFECT_HALT:
        printf("HALT %s: %s\n", err_name(effect->halt.err), effect->halt.reason);
        break;
    }
}

void trace_effect(struct node *node, struct actor *actor, const struct effect *effect)
{
    struct trace *trace = &node->world->trace;
    trace_word(trace, node->world->effect_number << 8 | effect->kind);
    switch (effect->kind) {
    case EFFECT_SEND:
        trace_word(trace, effect->send.stream << 16 | effect->send.type);
        trace_word(trace, (uint64_t)effect->send.to.role << 32 | effect->send.to.node);
        break;
    case EFFECT_TIMER:
        trace_word(trace, effect->timer.id);
        trace_word(trace, effect->timer.deadline_ns);
        break;
    case EFFECT_DISK_WRITE:
        trace_word(trace, effect->disk.offset);
        trace_data(trace, effect->disk.data);
        break;
    case EFFECT_DISK_SYNC:
    case EFFECT_DISK_READ:
    case EFFECT_DISK_ALLOC:
    case EFFECT_DISK_DISCARD:
        trace_word(trace, effect->disk.offset ^ effect->disk.token << 32);
        break;
    default:
        break;
    }
    if (trace->print) {
        trace_effect_print(node, actor, effect);
    }
}
