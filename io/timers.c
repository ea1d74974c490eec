/* Timers of a loop's actors: one deadline per (actor, id), a binary heap by deadline, one uv_timer for the nearest.
 * Happy path: set puts it into the heap and the table; when due it leaves both and its event goes to the inbox. Setting
 * it anew moves it, deadline 0 removes it. */
#include <stdlib.h>

#include "base/check.h"
#include "io/internal.h"

struct timer {
    struct timer *next; /* in its bucket */
    struct runtime_actor *actor;
    uint64_t id;
    uint64_t deadline_ns;
    unsigned long place; /* in the heap */
};

struct timers {
    struct loop *loop;
    uv_timer_t uv;
    struct timer **heap;
    unsigned long count, capacity;
    struct timer **buckets;
    unsigned long bucket_count; /* a power of two */
    uint64_t armed_ns;          /* 0: not armed */
};

static unsigned long timers_bucket(unsigned long buckets, const struct runtime_actor *actor, uint64_t id)
{
    uint64_t hash = (id + ((uint64_t)actor->slot << 48)) * 0x9e3779b97f4a7c15ull;
    return (unsigned long)(hash >> 32) & (buckets - 1);
}

static void timers_place(struct timers *timers, struct timer *timer, unsigned long place)
{
    timers->heap[place] = timer;
    timer->place = place;
}

static void timers_rise(struct timers *timers, struct timer *timer, unsigned long place)
{
    while (place > 0 && timers->heap[(place - 1) / 2]->deadline_ns > timer->deadline_ns) {
        timers_place(timers, timers->heap[(place - 1) / 2], place);
        place = (place - 1) / 2;
    }
    timers_place(timers, timer, place);
}

static void timers_sink(struct timers *timers, struct timer *timer, unsigned long place)
{
    for (;;) {
        unsigned long child = place * 2 + 1;
        if (child >= timers->count) {
            break;
        }
        if (child + 1 < timers->count && timers->heap[child + 1]->deadline_ns < timers->heap[child]->deadline_ns) {
            child++;
        }
        if (timers->heap[child]->deadline_ns >= timer->deadline_ns) {
            break;
        }
        timers_place(timers, timers->heap[child], place);
        place = child;
    }
    timers_place(timers, timer, place);
}

static void timers_heap_remove(struct timers *timers, struct timer *timer)
{
    CHECK(timer->place < timers->count && timers->heap[timer->place] == timer);
    struct timer *last = timers->heap[--timers->count];
    if (last == timer) {
        return;
    }
    unsigned long place = timer->place;
    if (place > 0 && timers->heap[(place - 1) / 2]->deadline_ns > last->deadline_ns) {
        timers_rise(timers, last, place);
    } else {
        timers_sink(timers, last, place);
    }
}

static void timers_grow_buckets(struct timers *timers)
{
    unsigned long grown = timers->bucket_count ? timers->bucket_count * 2 : 64;
    struct timer **buckets = mem_alloc(grown * sizeof(struct timer *));
    for (unsigned long i = 0; i < timers->bucket_count; i++) {
        while (timers->buckets[i] != NULL) {
            struct timer *timer = timers->buckets[i];
            timers->buckets[i] = timer->next;
            unsigned long bucket = timers_bucket(grown, timer->actor, timer->id);
            timer->next = buckets[bucket];
            buckets[bucket] = timer;
        }
    }
    free(timers->buckets);
    timers->buckets = buckets;
    timers->bucket_count = grown;
}

/* The link that points at the timer, or at the NULL where it would be. */
static struct timer **timers_find(struct timers *timers, const struct runtime_actor *actor, uint64_t id)
{
    struct timer **link = &timers->buckets[timers_bucket(timers->bucket_count, actor, id)];
    while (*link != NULL && ((*link)->actor != actor || (*link)->id != id)) {
        link = &(*link)->next;
    }
    return link;
}

static void timers_fire(uv_timer_t *handle)
{
    struct timers *timers = handle->data;
    timers->armed_ns = 0;
    uint64_t now = clock_now_ns();
    while (timers->count > 0 && timers->heap[0]->deadline_ns <= now) {
        struct timer *timer = timers->heap[0];
        struct timer **link = timers_find(timers, timer->actor, timer->id);
        CHECK(*link == timer);
        *link = timer->next;
        timers_heap_remove(timers, timer);
        struct inbox_event *event = inbox_event_create(timer->actor, EVENT_TIMER);
        event->event.timer.id = timer->id;
        inbox_post(event);
        free(timer);
    }
}

struct timers *timers_create(struct loop *loop)
{
    struct timers *timers = mem_alloc(sizeof *timers);
    timers->loop = loop;
    timers_grow_buckets(timers);
    uv_timer_init(&loop->uv, &timers->uv);
    timers->uv.data = timers;
    return timers;
}

void timers_set(struct timers *timers, struct runtime_actor *actor, uint64_t id, uint64_t deadline_ns)
{
    struct timer **link = timers_find(timers, actor, id);
    struct timer *timer = *link;
    if (timer != NULL) {
        timers_heap_remove(timers, timer);
        if (deadline_ns == 0) {
            *link = timer->next;
            free(timer);
            return;
        }
    } else if (deadline_ns == 0) {
        return;
    } else {
        timer = mem_alloc(sizeof *timer);
        *timer = (struct timer){.actor = actor, .id = id};
        *link = timer;
    }
    timer->deadline_ns = deadline_ns;
    timers->heap = mem_grow(timers->heap, &timers->capacity, timers->count + 1, sizeof(struct timer *));
    timers_rise(timers, timer, timers->count++);
    if (timers->count > timers->bucket_count) {
        timers_grow_buckets(timers);
    }
}

void timers_arm(struct timers *timers)
{
    uint64_t deadline = timers->count > 0 ? timers->heap[0]->deadline_ns : 0;
    if (deadline == timers->armed_ns) {
        return;
    }
    timers->armed_ns = deadline;
    if (deadline == 0) {
        uv_timer_stop(&timers->uv);
        return;
    }
    uv_update_time(&timers->loop->uv);
    uint64_t now = clock_now_ns();
    uint64_t wait_ms = deadline > now ? (deadline - now + 999999) / 1000000 : 0;
    uv_timer_start(&timers->uv, timers_fire, wait_ms, 0);
}

void timers_close(struct timers *timers)
{
    uv_close((uv_handle_t *)&timers->uv, NULL);
}

void timers_destroy(struct timers *timers)
{
    for (unsigned long i = 0; i < timers->count; i++) {
        free(timers->heap[i]);
    }
    free(timers->heap);
    free(timers->buckets);
    free(timers);
}
