/* A loop: one thread, one uv loop, the inboxes of its actors. Every event of an actor passes here.
 *
 * Happy path of a turn (uv_prepare, so just before the loop would sleep): take the tasks other threads posted, step
 * actors until their inboxes are empty or the turn's budget is spent, performing each step's effects right behind it;
 * then flush the sockets and submit the ring once, and write what was committed to databases while those are under way.
 * An actor whose database refuses its writes is set aside, with its inbox, until they are taken; the others go on. What
 * is left over keeps the loop from sleeping (uv_idle). An actor that is always ready gets a batch at a time, in turn
 * with the others. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "io/internal.h"

#define TURN_STEPS    1024u /* steps in one turn, before sockets and disks get their turn */
#define ACTOR_STEPS   64u   /* steps of one actor before the next one's turn */
#define HELD_RETRY_MS 2u

static _Thread_local struct loop *loop_of_thread;

struct loop *loop_current(void)
{
    return loop_of_thread;
}

uint64_t clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static uint64_t clock_wall_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t loop_random(struct loop *loop)
{
    if (loop->random_left == 0) {
        size_t done = 0;
        while (done < sizeof loop->random) {
            ssize_t got = getrandom((char *)loop->random + done, sizeof loop->random - done, 0);
            CHECK(got > 0 || errno == EINTR);
            done += got > 0 ? (size_t)got : 0;
        }
        loop->random_left = sizeof loop->random / sizeof loop->random[0];
    }
    uint64_t value = loop->random[--loop->random_left];
    loop->random[loop->random_left] = 0;
    return value;
}

/* ---- tasks ---- */

void task_queue_init(struct task_queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
}

void task_queue_push(struct task_queue *queue, struct task *task)
{
    task->next = NULL;
    *queue->tail = task;
    queue->tail = &task->next;
}

struct task *task_queue_pop(struct task_queue *queue)
{
    struct task *task = queue->head;
    if (task != NULL) {
        queue->head = task->next;
        if (queue->head == NULL) {
            queue->tail = &queue->head;
        }
    }
    return task;
}

void loop_wake(struct loop *loop)
{
    uint64_t one = 1;
    ssize_t written = write(loop->wake_fd, &one, sizeof one);
    (void)written; /* EAGAIN: it is awake already */
}

void loop_post(struct loop *loop, struct task *task)
{
    pthread_mutex_lock(&loop->lock);
    bool gone = loop->gone;
    if (!gone) {
        task_queue_push(&loop->posted, task);
    }
    pthread_mutex_unlock(&loop->lock);
    if (gone) {
        task->run(loop, task, true);
    } else if (!atomic_exchange(&loop->woken, true)) {
        loop_wake(loop);
    }
}

static void loop_take_tasks(struct loop *loop)
{
    struct task_queue taken;
    task_queue_init(&taken);
    pthread_mutex_lock(&loop->lock);
    if (loop->posted.head != NULL) {
        taken = loop->posted;
        task_queue_init(&loop->posted);
    }
    pthread_mutex_unlock(&loop->lock);
    for (struct task *task = taken.head; task != NULL;) {
        struct task *next = task->next;
        task->run(loop, task, loop->gone);
        task = next;
    }
}

/* ---- inboxes ---- */

struct inbox_event *inbox_event_create(struct runtime_actor *actor, enum event_kind kind)
{
    struct inbox_event *event = mem_alloc(sizeof *event);
    event->actor = actor;
    event->event.kind = kind;
    return event;
}

static void inbox_event_destroy(struct inbox_event *event)
{
    switch (event->event.kind) {
    case EVENT_MESSAGE:
        slice_drop(&event->event.message.header);
        slice_drop(&event->event.message.body);
        break;
    case EVENT_DISK_DONE:
        slice_drop(&event->event.disk.data);
        break;
    case EVENT_COMPUTE_DONE:
        compute_job_destroy(event->event.compute.job);
        break;
    case EVENT_KV_DONE:
        slice_drop(&event->event.kv.data);
        break;
    case EVENT_ROOM:
    case EVENT_CLOSED:
    case EVENT_TIMER:
        break;
    }
    free(event);
}

static void loop_make_ready(struct loop *loop, struct runtime_actor *actor)
{
    actor->ready = true;
    actor->ready_next = NULL;
    *loop->ready_tail = actor;
    loop->ready_tail = &actor->ready_next;
}

static void inbox_arrive(struct loop *loop, struct task *task, bool drop)
{
    struct inbox_event *event = (struct inbox_event *)task;
    struct runtime_actor *actor = event->actor;
    CHECK(actor->loop == loop);
    if (drop) {
        inbox_event_destroy(event);
        return;
    }
    event->next = NULL;
    *actor->tail = event;
    actor->tail = &event->next;
    if (!actor->ready) {
        loop_make_ready(loop, actor);
    }
}

void inbox_post(struct inbox_event *event)
{
    struct runtime_actor *actor = event->actor;
    if (event->event.kind == EVENT_MESSAGE) {
        event->bytes = (uint64_t)event->event.message.header.bytes + event->event.message.body.bytes;
        atomic_fetch_add_explicit(&actor->inbox_events, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&actor->inbox_bytes, event->bytes, memory_order_relaxed);
    }
    event->task.run = inbox_arrive;
    if (actor->loop == loop_of_thread) {
        inbox_arrive(actor->loop, &event->task, false);
    } else {
        loop_post(actor->loop, &event->task);
    }
}

bool inbox_full(const struct runtime_actor *actor)
{
    return atomic_load_explicit(&actor->inbox_events, memory_order_relaxed) >= LIMIT_INBOX_EVENTS ||
           atomic_load_explicit(&actor->inbox_bytes, memory_order_relaxed) >= INBOX_BYTES;
}

void inbox_post_closed(struct runtime_actor *actor, struct address peer, enum err err)
{
    struct inbox_event *event = inbox_event_create(actor, EVENT_CLOSED);
    event->event.peer.peer = peer;
    event->event.peer.err = err;
    inbox_post(event);
}

/* ---- turns ---- */

/* `last`: of the actor's steps in this turn. */
static void loop_step(struct loop *loop, struct runtime_actor *actor, bool last)
{
    CHECK(loop->stepping == NULL && loop->effects.count == 0);
    struct inbox_event *event = actor->head;
    actor->head = event->next;
    if (actor->head == NULL) {
        actor->tail = &actor->head;
    }
    if (event->event.kind == EVENT_MESSAGE) {
        atomic_fetch_sub_explicit(&actor->inbox_events, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&actor->inbox_bytes, event->bytes, memory_order_relaxed);
    }
    event->event.more = actor->head != NULL && !last;
    event->event.now_ns = clock_now_ns();
    event->event.wall_ns = clock_wall_ns();
    event->event.random = loop_random(loop);
    loop->stepping = actor;
    actor->step(actor->actor, &event->event, &loop->effects);
    loop->stepping = NULL;
    effects_perform(actor, &loop->effects);
    inbox_event_destroy(event);
}

static void loop_try_held(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    struct runtime_actor *actor = loop->held;
    loop->held = NULL;
    while (actor != NULL) {
        struct runtime_actor *next = actor->ready_next;
        loop_make_ready(loop, actor);
        actor = next;
    }
}

/* It is in no list. */
static void loop_hold(struct loop *loop, struct runtime_actor *actor)
{
    actor->ready = true;
    actor->ready_next = loop->held;
    loop->held = actor;
    uv_timer_start(&loop->held_timer, loop_try_held, HELD_RETRY_MS, 0);
}

void loop_settle(struct loop *loop)
{
    while (loop->unsettled != NULL) {
        struct runtime_actor *actor = loop->unsettled;
        loop->unsettled = actor->unsettled_next;
        actor->unsettled = false;
        if (!actor_kv_settle(actor) && !actor->ready) {
            loop_hold(loop, actor);
        }
    }
}

/* Steps an actor until its inbox is empty, its share of the turn is used, or its database refuses a write: how many
 * steps. It stays `ready` (in one of the loop's lists) unless its inbox is empty. */
static unsigned loop_run_actor(struct loop *loop, struct runtime_actor *actor)
{
    struct runtime *runtime = loop->runtime;
    unsigned steps = 0;
    bool free_to_go = !actor->refused || actor_kv_settle(actor);
    while (free_to_go && steps < ACTOR_STEPS && actor->head != NULL && !atomic_load(&runtime->stopping)) {
        steps++;
        loop_step(loop, actor, steps == ACTOR_STEPS);
        free_to_go = !actor->refused;
    }
    if (!free_to_go) {
        loop_hold(loop, actor);
    } else if (actor->head != NULL) {
        loop_make_ready(loop, actor);
    } else {
        actor->ready = false;
    }
    return steps;
}

static void loop_idle(uv_idle_t *idle)
{
    (void)idle;
}

static void loop_turn(uv_prepare_t *prepare)
{
    struct loop *loop = prepare->data;
    struct runtime *runtime = loop->runtime;
    loop_take_tasks(loop);
    for (unsigned steps = 0; loop->ready != NULL && steps < TURN_STEPS && !atomic_load(&runtime->stopping);) {
        struct runtime_actor *actor = loop->ready;
        loop->ready = actor->ready_next;
        if (loop->ready == NULL) {
            loop->ready_tail = &loop->ready;
        }
        steps += loop_run_actor(loop, actor);
    }
    net_flush(loop->net);
    disk_submit(loop->disk);
    timers_arm(loop->timers);
    loop_settle(loop);
    if (atomic_load(&runtime->stopping)) {
        uv_stop(&loop->uv);
    }
    if (loop->ready != NULL) {
        uv_idle_start(&loop->idle, loop_idle);
    } else {
        uv_idle_stop(&loop->idle);
    }
}

static void loop_woken(uv_poll_t *poll, int status, int events)
{
    struct loop *loop = poll->data;
    (void)status;
    (void)events;
    uint64_t count;
    ssize_t got = read(loop->wake_fd, &count, sizeof count);
    (void)got;
    atomic_store(&loop->woken, false);
}

/* ---- life ---- */

void loop_init(struct loop *loop, struct runtime *runtime, unsigned index)
{
    loop->runtime = runtime;
    loop->index = index;
    pthread_mutex_init(&loop->lock, NULL);
    task_queue_init(&loop->posted);
    loop->ready_tail = &loop->ready;
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(loop->wake_fd >= 0);
    int rc = uv_loop_init(&loop->uv);
    CHECK(rc == 0);
    uv_poll_init(&loop->uv, &loop->wake, loop->wake_fd);
    loop->wake.data = loop;
    uv_prepare_init(&loop->uv, &loop->prepare);
    loop->prepare.data = loop;
    uv_idle_init(&loop->uv, &loop->idle);
    uv_timer_init(&loop->uv, &loop->held_timer);
    loop->held_timer.data = loop;
    loop->timers = timers_create(loop);
    loop->net = net_create(loop);
}

/* Closes every handle; from now on tasks are dropped. */
static void loop_close(struct loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    bool gone = loop->gone;
    loop->gone = true;
    pthread_mutex_unlock(&loop->lock);
    if (gone) {
        return;
    }
    loop_take_tasks(loop);
    net_close(loop->net);
    if (loop->disk != NULL) {
        disk_close(loop->disk);
    }
    timers_close(loop->timers);
    if (loop->index == 0 && loop->runtime->signals != NULL) {
        signals_close(loop->runtime->signals);
    }
    if (loop->index == 0) {
        drain_close(loop->runtime);
    }
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->prepare, NULL);
    uv_close((uv_handle_t *)&loop->idle, NULL);
    uv_close((uv_handle_t *)&loop->held_timer, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    int rc = uv_loop_close(&loop->uv);
    CHECK(rc == 0);
}

void loop_run(struct loop *loop)
{
    loop_of_thread = loop;
    io_log_set_thread(loop->runtime->node);
    runtime_kv_thread();
    loop->disk = disk_create(loop);
    uv_poll_start(&loop->wake, UV_READABLE, loop_woken);
    uv_prepare_start(&loop->prepare, loop_turn);
    net_start(loop->net);
    if (!atomic_load(&loop->runtime->stopping)) {
        uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    uv_prepare_stop(&loop->prepare);
    loop_close(loop);
    loop_of_thread = NULL;
    io_log_set_thread(NULL);
}

void loop_deinit(struct loop *loop)
{
    loop_close(loop);
    net_destroy(loop->net);
    timers_destroy(loop->timers);
    if (loop->disk != NULL) {
        disk_destroy(loop->disk);
    }
    effects_deinit(&loop->effects);
    close(loop->wake_fd);
    pthread_mutex_destroy(&loop->lock);
}

void inbox_clear(struct runtime_actor *actor)
{
    while (actor->head != NULL) {
        struct inbox_event *event = actor->head;
        actor->head = event->next;
        inbox_event_destroy(event);
    }
    actor->tail = &actor->head;
}
