/* The world (world.h): nodes, their starts and crashes, actors' turns and the run loop. What effects do is in
 * interpret.c, what messages do in net.c. */
#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/compute.h"
#include "base/limits.h"
#include "inside.h"
#include "io/runtime.h"

enum { RNG_WORLD = 1, RNG_NET, RNG_ACTOR, RNG_SCENARIO, RNG_DISK = 1000, RNG_KV = 2000 };

static const struct world_knobs knobs_default = {
    .turn_min_ns = MICROSECOND,
    .turn_max_ns = 30 * MICROSECOND,
    .stall_ppm = 100,
    .stall_max_ns = 200 * MILLISECOND,
    .net_min_ns = 50 * MICROSECOND,
    .net_max_ns = 2 * MILLISECOND,
    .net_slow_ppm = 1000,
    .net_slow_max_ns = 300 * MILLISECOND,
    .disk_min_ns = 20 * MICROSECOND,
    .disk_max_ns = 3 * MILLISECOND,
    .disk_slow_ppm = 2000,
    .disk_slow_max_ns = 500 * MILLISECOND,
    .flush_min_ns = MILLISECOND,
    .flush_max_ns = 100 * MILLISECOND,
    .compute_min_ns = 10 * MICROSECOND,
    .compute_max_ns = 10 * MILLISECOND,
    .timer_late_ppm = 10000,
    .timer_late_max_ns = 300 * MILLISECOND,
};

struct world *world_create(uint64_t seed, bool print)
{
    struct world *world = mem_alloc(sizeof *world);
    world->seed = seed;
    world->now_ns = SECOND;
    world->wall_offset_ns = 1700000000ull * SECOND;
    world->knobs = knobs_default;
    world->event_limit = 20000000;
    trace_init(&world->trace, print);
    world->rng = rng_of(seed, RNG_WORLD);
    world->rng_net = rng_of(seed, RNG_NET);
    world->rng_actor = rng_of(seed, RNG_ACTOR);
    world->rng_scenario = rng_of(seed, RNG_SCENARIO);
    return world;
}

struct node *world_node_add(struct world *world, enum role role, uint32_t id, unsigned dirs, node_boot *boot,
                            void *context)
{
    CHECK(world->node_count < WORLD_NODES && dirs <= WORLD_NODE_DIRS);
    CHECK(world_node_find(world, role, id) == NULL);
    struct node *node = mem_alloc(sizeof *node);
    *node = (struct node){.world = world, .role = role, .id = id, .slot = world->node_count, .start = boot};
    node->context = context;
    node->principal = id;
    node->dirs = dirs;
    for (unsigned i = 0; i < dirs; i++) {
        uint64_t label = (uint64_t)node->slot * WORLD_NODE_DIRS + i;
        node->disks[i] = disk_create(rng_of(world->seed, RNG_DISK + label));
        disk_knobs(node->disks[i])->sync_lies = world->sync_lies;
        node->kvs[i] = sim_kv_create(rng_of(world->seed, RNG_KV + label));
    }
    world->nodes[world->node_count++] = node;
    return node;
}

struct node *world_node_find(struct world *world, enum role role, uint32_t id)
{
    for (unsigned i = 0; i < world->node_count; i++) {
        if (world->nodes[i]->role == role && world->nodes[i]->id == id) {
            return world->nodes[i];
        }
    }
    return NULL;
}

static void actor_boot(struct node *node, struct actor *actor)
{
    struct event event = {.kind = EVENT_TIMER, .timer.id = RUNTIME_TIMER_BOOT};
    actor_push(node, actor, &event);
}

void world_actor_add(struct node *node, enum actor_kind kind, uint32_t index, actor_step *step, void (*destroy)(void *),
                     void *self, int dir)
{
    CHECK(node->actor_count < WORLD_NODE_ACTORS && dir < (int)node->dirs);
    CHECK(node_actor(node, kind, index) == NULL);
    struct actor *actor = &node->actors[node->actor_count++];
    *actor = (struct actor){.kind = kind, .index = index, .step = step, .destroy = destroy, .self = self, .dir = dir};
    actor_boot(node, actor);
}

struct actor *node_actor(struct node *node, enum actor_kind kind, uint32_t index)
{
    for (unsigned i = 0; i < node->actor_count; i++) {
        if (node->actors[i].kind == kind && node->actors[i].index == index) {
            return &node->actors[i];
        }
    }
    return NULL;
}

uint64_t node_clock(const struct node *node, uint64_t world_ns)
{
    return (uint64_t)((__uint128_t)world_ns * (uint64_t)(1000000 + node->clock_ppm) / 1000000);
}

uint64_t node_clock_back(const struct node *node, uint64_t node_ns)
{
    uint64_t rate = (uint64_t)(1000000 + node->clock_ppm);
    return (uint64_t)(((__uint128_t)node_ns * 1000000 + rate - 1) / rate);
}

void node_start(struct node *node)
{
    CHECK(!node->up && node->actor_count == 0);
    node->up = true;
    node->halted = false;
    node->boot++;
    trace_word(&node->world->trace, 0xb007000000000000ull | (uint64_t)node->slot << 32 | node->boot);
    if (node->world->trace.print) {
        printf("%12.6f node %d:%u starts (boot %lu)\n", (double)node->world->now_ns / 1e9, node->role, node->id,
               (unsigned long)node->boot);
    }
    node->start(node->world, node, node->context);
}

void event_drop(struct event *event)
{
    switch (event->kind) {
    case EVENT_MESSAGE:
        slice_drop(&event->message.header);
        slice_drop(&event->message.body);
        break;
    case EVENT_DISK_DONE:
        slice_drop(&event->disk.data);
        break;
    case EVENT_KV_DONE:
        slice_drop(&event->kv.data);
        break;
    case EVENT_COMPUTE_DONE:
        compute_job_destroy(event->compute.job);
        break;
    default:
        break;
    }
}

static void actor_end(struct world *world, struct actor *actor)
{
    for (; actor->inbox_count > 0; actor->inbox_count--) {
        struct event *event = &actor->inbox[actor->inbox_head];
        if (event->kind == EVENT_MESSAGE && event->message.peer.role == ROLE_LOCAL && world->message_lost != NULL) {
            world->message_lost(world, &event->message);
        }
        event_drop(event);
        actor->inbox_head = (actor->inbox_head + 1) % actor->inbox_capacity;
    }
    if (actor->destroy != NULL) {
        actor->destroy(actor->self);
    }
    free(actor->inbox);
    free(actor->timers);
    *actor = (struct actor){0};
}

static void node_end(struct node *node, enum crash_mode mode)
{
    node->up = false;
    node->crash_countdown = 0;
    for (unsigned i = 0; i < node->actor_count; i++) {
        actor_end(node->world, &node->actors[i]);
    }
    node->actor_count = 0;
    for (unsigned i = 0; i < node->dirs; i++) {
        disk_crash(node->disks[i], mode == CRASH_POWER);
        sim_kv_crash(node->kvs[i]);
    }
}

void node_crash(struct node *node, enum crash_mode mode)
{
    struct world *world = node->world;
    if (!node->up) {
        return;
    }
    node->crashes++;
    trace_word(&world->trace, 0xdead000000000000ull | (uint64_t)node->slot << 32 | mode);
    if (world->trace.print) {
        printf("%12.6f node %d:%u %s before effect %lu\n", (double)world->now_ns / 1e9, node->role, node->id,
               mode == CRASH_POWER ? "loses power" : "is killed", (unsigned long)world->effect_number + 1);
    }
    net_node_down(node, mode);
    node_end(node, mode);
    if (world->node_down != NULL) {
        world->node_down(world, node, world->node_down_context);
    }
}

void node_crash_after(struct node *node, uint64_t effects, enum crash_mode mode)
{
    CHECK(effects > 0);
    node->crash_countdown = effects;
    node->crash_mode = mode;
}

void actor_push(struct node *node, struct actor *actor, const struct event *event)
{
    struct world *world = node->world;
    if (actor->inbox_count == actor->inbox_capacity) {
        unsigned long capacity = actor->inbox_capacity ? actor->inbox_capacity * 2 : 16;
        struct event *inbox = mem_alloc(capacity * sizeof *inbox);
        for (unsigned long i = 0; i < actor->inbox_count; i++) {
            inbox[i] = actor->inbox[(actor->inbox_head + i) % actor->inbox_capacity];
        }
        free(actor->inbox);
        actor->inbox = inbox;
        actor->inbox_head = 0;
        actor->inbox_capacity = capacity;
    }
    actor->inbox[(actor->inbox_head + actor->inbox_count++) % actor->inbox_capacity] = *event;
    WORLD_REQUIRE(world, actor->inbox_count <= LIMIT_INBOX_EVENTS, "inbox of actor %d/%u on node %d:%u overflows",
                  actor->kind, actor->index, node->role, node->id);
    if (!actor->turn_is_set) {
        const struct world_knobs *knobs = &world->knobs;
        uint64_t after = rng_between(&world->rng, knobs->turn_min_ns, knobs->turn_max_ns);
        if (rng_chance(&world->rng, knobs->stall_ppm)) {
            after += rng_below(&world->rng, knobs->stall_max_ns + 1);
        }
        actor->turn_is_set = true;
        world_item(world, world->now_ns + after, ITEM_TURN, node)->actor = (unsigned)(actor - node->actors);
    }
}

static void effect_lose(struct node *node, struct effect *effect)
{
    if (effect->kind == EFFECT_SEND && effect->send.to.role == ROLE_LOCAL && node->world->message_lost != NULL) {
        struct message message = {.type = effect->send.type, .header = effect->send.header};
        node->world->message_lost(node->world, &message);
    }
    effect_drop(effect);
}

/* Executes what a step emitted. A crash in the middle loses the rest. */
static void effects_execute(struct node *node, struct actor *actor, struct effects *fx)
{
    struct world *world = node->world;
    uint64_t boot = node->boot;
    for (unsigned long i = 0; i < fx->count; i++) {
        uint64_t number = world->effect_number + 1;
        bool planned = node->up && node->boot == boot && node->crash_countdown > 0 && --node->crash_countdown == 0;
        if (node->up && node->boot == boot && (planned || number == world->crash_at)) {
            enum crash_mode mode = planned ? node->crash_mode : number % 2 == 0 ? CRASH_POWER : CRASH_KILL;
            world->crash_at = number == world->crash_at ? 0 : world->crash_at;
            node_crash(node, mode);
        }
        if (!node->up || node->boot != boot) {
            effect_lose(node, &fx->items[i]);
            continue;
        }
        world->effect_number = number;
        trace_effect(node, actor, &fx->items[i]);
        if (world->effect_probe != NULL) {
            world->effect_probe(world, node, actor, &fx->items[i], world->effect_context);
        }
        effect_execute(node, actor, &fx->items[i]);
    }
    fx->count = 0;
}

static void world_wall_jump(struct world *world)
{
    if (rng_chance(&world->rng, world->knobs.wall_jump_ppm)) {
        uint64_t day = 86400 * SECOND;
        world->wall_offset_ns += rng_below(&world->rng, 2 * day) - day;
    }
}

static void actor_turn(struct node *node, struct actor *actor)
{
    struct world *world = node->world;
    CHECK(actor->inbox_count > 0 && actor->turn_is_set);
    struct event event = actor->inbox[actor->inbox_head];
    actor->inbox_head = (actor->inbox_head + 1) % actor->inbox_capacity;
    actor->inbox_count--;
    actor->turn_is_set = false;
    world_wall_jump(world);
    event.more = actor->inbox_count > 0;
    event.now_ns = node_clock(node, world->now_ns);
    event.wall_ns = world->wall_offset_ns + node->wall_offset_ns + world->now_ns;
    event.random = rng_next(&world->rng_actor);
    world->event_number++;
    trace_event(node, actor, &event);
    struct effects *fx = &world->effects;
    CHECK(fx->count == 0);
    actor->step(actor->self, &event, fx);
    event_drop(&event);
    for (unsigned i = 0; i < world->probe_count; i++) {
        world->probes[i].probe(world, node, actor, world->probes[i].context);
    }
    uint64_t boot = node->boot;
    effects_execute(node, actor, fx);
    if (node->up && node->boot == boot && actor->inbox_count > 0 && !actor->turn_is_set) {
        uint64_t after = rng_between(&world->rng, world->knobs.turn_min_ns, world->knobs.turn_max_ns);
        actor->turn_is_set = true;
        world_item(world, world->now_ns + after, ITEM_TURN, node)->actor = (unsigned)(actor - node->actors);
    }
}

static void timer_due(struct node *node, struct actor *actor, uint64_t id, uint64_t generation)
{
    for (unsigned long i = 0; i < actor->timer_count; i++) {
        if (actor->timers[i].id == id && actor->timers[i].generation == generation) {
            actor->timers[i] = actor->timers[--actor->timer_count];
            struct event event = {.kind = EVENT_TIMER, .timer.id = id};
            actor_push(node, actor, &event);
            return;
        }
    }
}

static void disk_due(struct node *node, struct item *item)
{
    struct event event = {.kind = EVENT_DISK_DONE, .disk.token = item->disk.token};
    event.disk.err = disk_finish(node->disks[item->disk.dir], item->disk.op, &event.disk.data);
    actor_push(node, &node->actors[item->actor], &event);
}

static void flush_due(struct node *node, struct item *item)
{
    sim_kv_flushed(node->kvs[item->kv.dir], item->kv.flush);
    struct event event = {.kind = EVENT_KV_DONE, .kv.token = item->kv.token};
    actor_push(node, &node->actors[item->actor], &event);
}

static void scan_due(struct node *node, struct item *item)
{
    struct event event = {.kind = EVENT_KV_DONE, .kv.token = item->scan.token, .kv.data = item->scan.pairs};
    item->scan.pairs = (struct slice){0};
    actor_push(node, &node->actors[item->actor], &event);
}

static void compute_due(struct node *node, struct item *item)
{
    struct event event = {
        .kind = EVENT_COMPUTE_DONE, .compute.token = item->compute.token, .compute.job = item->compute.job};
    item->compute.job = NULL;
    actor_push(node, &node->actors[item->actor], &event);
}

/* Frees what an item carries that was not handed on. */
static void item_end(struct world *world, struct item *item)
{
    if (item->kind == ITEM_MESSAGE) {
        slice_drop(&item->net.message.header);
        slice_drop(&item->net.message.body);
    } else if (item->kind == ITEM_COMPUTE && item->compute.job != NULL) {
        compute_job_destroy(item->compute.job);
    } else if (item->kind == ITEM_SCAN) {
        slice_drop(&item->scan.pairs);
    }
    item_spare(world, item);
}

static void item_happen(struct world *world, struct item *item)
{
    struct node *node = item->node;
    if (node != NULL && item->kind != ITEM_MESSAGE && (!node->up || node->boot != item->boot)) {
        return; /* of a process that is no more; disk operations ended with it */
    }
    switch (item->kind) {
    case ITEM_TURN:
        actor_turn(node, &node->actors[item->actor]);
        break;
    case ITEM_MESSAGE:
        net_deliver(world, item);
        break;
    case ITEM_CLOSED:
        net_closed(world, item);
        break;
    case ITEM_TIMER:
        timer_due(node, &node->actors[item->actor], item->timer.id, item->timer.generation);
        break;
    case ITEM_DISK:
        disk_due(node, item);
        break;
    case ITEM_FLUSH:
        flush_due(node, item);
        break;
    case ITEM_SCAN:
        scan_due(node, item);
        break;
    case ITEM_COMPUTE:
        compute_due(node, item);
        break;
    case ITEM_CALL:
        item->call.call(world, item->call.context, item->call.argument);
        break;
    }
}

bool world_run_until(struct world *world, uint64_t until_ns)
{
    CHECK(until_ns >= world->now_ns);
    while (!world->failed && world->heap_count > 0 && world->heap[0]->at_ns <= until_ns) {
        struct item *item = heap_pop(world);
        CHECK(item->at_ns >= world->now_ns);
        world->now_ns = item->at_ns;
        world->stepping = item->node;
        item_happen(world, item);
        world->stepping = NULL;
        item_end(world, item);
        WORLD_REQUIRE(world, world->event_limit == 0 || world->event_number <= world->event_limit,
                      "more than %lu steps: it spins", (unsigned long)world->event_limit);
    }
    if (!world->failed) {
        world->now_ns = until_ns;
    }
    return !world->failed;
}

void world_at(struct world *world, uint64_t at_ns, world_call *call, void *context, uint64_t argument)
{
    struct item *item = world_item(world, at_ns, ITEM_CALL, NULL);
    item->call.call = call;
    item->call.context = context;
    item->call.argument = argument;
}

void world_probe_add(struct world *world, world_probe *probe, void *context)
{
    CHECK(world->probe_count < WORLD_PROBES);
    world->probes[world->probe_count].probe = probe;
    world->probes[world->probe_count++].context = context;
}

void world_finding(struct world *world, const char *format, ...)
{
    if (world->failed) {
        return;
    }
    world->failed = true;
    va_list args;
    va_start(args, format);
    vsnprintf(world->finding, sizeof world->finding, format, args);
    va_end(args);
    if (world->stepping != NULL) {
        snprintf(world->finding_node, sizeof world->finding_node, "%s:%u", node_role_name(world->stepping),
                 world->stepping->id);
    }
}

void world_note(struct world *world, const char *format, ...)
{
    if (!world->trace.print) {
        return;
    }
    va_list args;
    va_start(args, format);
    printf("%12.6f -- ", (double)world->now_ns / 1e9);
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

void world_end(struct world *world)
{
    for (unsigned i = 0; i < world->node_count; i++) {
        struct node *node = world->nodes[i];
        for (unsigned a = 0; a < node->actor_count; a++) {
            actor_end(world, &node->actors[a]);
        }
        node->actor_count = 0;
        node->up = false;
    }
}

void world_destroy(struct world *world)
{
    world_end(world);
    while (world->heap_count > 0) {
        item_end(world, heap_pop(world));
    }
    for (unsigned i = 0; i < world->node_count; i++) {
        struct node *node = world->nodes[i];
        for (unsigned d = 0; d < node->dirs; d++) {
            disk_destroy(node->disks[d]);
            sim_kv_destroy(node->kvs[d]);
        }
        free(node);
    }
    net_deinit(world);
    items_deinit(world);
    effects_deinit(&world->effects);
    free(world->heap);
    free(world);
}
