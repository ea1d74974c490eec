/* Refcounted buffers. Under a page one allocation holds the count and the bytes; from a page on the bytes have an
 * aligned one of their own. Those freed go to a pool: fresh memory costs a page fault every 4 KiB, which is more than
 * it costs to encrypt them, and an aligned allocation splits and joins the heap's chunks each time. The pool is bounded
 * (LIMIT_POOL_BYTES) and shared by all threads, for a buffer is often freed on another one than that which made it. */
#include "slice.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/single_threaded.h>

#include "check.h"
#include "limits.h"

#define SLICE_ALIGN        4096u
#define SLICE_SMALL_OFFSET 32u

/* Sizes of the pool: each number of pages up to 64 KiB; from there eight for each power of two, so that at most an
 * eighth is lost to rounding. */
#define POOL_FINE_BYTES   (64u << 10)
#define POOL_FINE_CLASSES (POOL_FINE_BYTES / SLICE_ALIGN)
#define POOL_MOST_BYTES   (32u << 20)
#define POOL_CLASSES      (POOL_FINE_CLASSES + 72u)
#define POOL_LARGER       3u /* a buffer so many classes larger is taken, rather than fresh memory */

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_OFF 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(POOL_OFF)
static const bool pool_on = false; /* a sanitizer is to see each buffer end */
#else
static const bool pool_on = true;
#endif

struct buf {
    _Atomic uint32_t refs;
    uint32_t capacity; /* bytes the slice may use */
    uint32_t room;     /* bytes there are: of its class in the pool */
    uint8_t *data;
    struct buf *next; /* in the pool */
};

static _Atomic uint64_t live_bytes;

/* A process of one thread (the simulator's) need not lock the bus for each count. */
static uint32_t refs_add(_Atomic uint32_t *refs, uint32_t change)
{
    if (__libc_single_threaded) {
        uint32_t before = atomic_load_explicit(refs, memory_order_relaxed);
        atomic_store_explicit(refs, before + change, memory_order_relaxed);
        return before;
    }
    return atomic_fetch_add_explicit(refs, change, change == 1 ? memory_order_relaxed : memory_order_acq_rel);
}

static void live_add(uint64_t change)
{
    if (__libc_single_threaded) {
        uint64_t before = atomic_load_explicit(&live_bytes, memory_order_relaxed);
        atomic_store_explicit(&live_bytes, before + change, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(&live_bytes, change, memory_order_relaxed);
    }
}

static struct {
    pthread_mutex_t lock;
    struct buf *free[POOL_CLASSES];
    size_t bytes;
    unsigned hand; /* the class that is emptied next, so that sizes nobody asks for any more go away */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The class of a capacity, and how many bytes its buffers have. */
static unsigned pool_class(size_t bytes, size_t *ret_bytes)
{
    CHECK(bytes > 0 && bytes <= POOL_MOST_BYTES);
    if (bytes <= POOL_FINE_BYTES) {
        size_t pages = (bytes + SLICE_ALIGN - 1) / SLICE_ALIGN;
        *ret_bytes = pages * SLICE_ALIGN;
        return (unsigned)pages - 1;
    }
    unsigned log = 63 - (unsigned)__builtin_clzll((unsigned long long)bytes - 1);
    size_t step = (size_t)1 << (log - 3);
    size_t steps = (bytes + step - 1) / step; /* 9 to 16 */
    *ret_bytes = steps * step;
    unsigned class = POOL_FINE_CLASSES + (log - 16) * 8 + (unsigned)steps - 9;
    CHECK(class < POOL_CLASSES && *ret_bytes % SLICE_ALIGN == 0);
    return class;
}

static bool pool_takes(size_t capacity)
{
    return pool_on && capacity >= SLICE_ALIGN && capacity <= POOL_MOST_BYTES;
}

static void buf_free(struct buf *buf)
{
    if (buf->data != (uint8_t *)buf + SLICE_SMALL_OFFSET) {
        free(buf->data);
    }
    free(buf);
}

/* A buffer with aligned bytes of its own, used before if the pool has one. */
static struct buf *buf_make_aligned(size_t capacity)
{
    size_t bytes = capacity;
    struct buf *buf = NULL;
    if (pool_takes(capacity)) {
        unsigned class = pool_class(capacity, &bytes);
        unsigned last = class + POOL_LARGER < POOL_CLASSES ? class + POOL_LARGER : POOL_CLASSES - 1;
        CHECK(pthread_mutex_lock(&pool.lock) == 0);
        while (class < last && pool.free[class] == NULL) {
            class ++;
        }
        buf = pool.free[class];
        if (buf != NULL) {
            pool.free[class] = buf->next;
            pool.bytes -= buf->room;
        }
        CHECK(pthread_mutex_unlock(&pool.lock) == 0);
    }
    if (buf == NULL) {
        buf = mem_alloc(sizeof *buf);
        buf->data = aligned_alloc(SLICE_ALIGN, bytes);
        buf->room = (uint32_t)bytes;
        CHECK(buf->data != NULL);
    }
    return buf;
}

/* Keeps a buffer for later. Returns those (linked) that had to make room for it. */
static struct buf *pool_keep(struct buf *buf)
{
    struct buf *surplus = NULL;
    size_t bytes;
    unsigned class = pool_class(buf->room, &bytes);
    CHECK(bytes == buf->room);
    CHECK(pthread_mutex_lock(&pool.lock) == 0);
    while (pool.bytes + bytes > LIMIT_POOL_BYTES) {
        struct buf *old = pool.free[pool.hand];
        if (old == NULL) {
            pool.hand = (pool.hand + 1) % POOL_CLASSES;
            continue;
        }
        pool.free[pool.hand] = old->next;
        pool.bytes -= old->room;
        old->next = surplus;
        surplus = old;
    }
    buf->next = pool.free[class];
    pool.free[class] = buf;
    pool.bytes += bytes;
    CHECK(pthread_mutex_unlock(&pool.lock) == 0);
    return surplus;
}

struct slice slice_alloc(size_t bytes)
{
    CHECK(bytes < UINT32_MAX / 2);
    if (bytes == 0) {
        return (struct slice){0};
    }
    bool aligned = bytes > SLICE_ALIGN - 64; /* else the rounding would make it a page */
    size_t capacity = aligned ? (bytes + SLICE_ALIGN - 1) / SLICE_ALIGN * SLICE_ALIGN : (bytes + 63) / 64 * 64;
    struct buf *buf;
    if (aligned) {
        buf = buf_make_aligned(capacity);
    } else {
        buf = malloc(SLICE_SMALL_OFFSET + capacity);
        CHECK(buf != NULL);
        buf->data = (uint8_t *)buf + SLICE_SMALL_OFFSET;
    }
    buf->capacity = (uint32_t)capacity;
    atomic_init(&buf->refs, 1);
    memset(buf->data + bytes, 0, capacity - bytes);
    live_add(capacity);
    return (struct slice){.buf = buf, .data = buf->data, .bytes = (uint32_t)bytes};
}

struct slice slice_copy(const void *data, size_t bytes)
{
    struct slice slice = slice_alloc(bytes);
    if (bytes > 0) {
        memcpy(slice.data, data, bytes);
    }
    return slice;
}

struct slice slice_borrow(const void *data, size_t bytes)
{
    CHECK(bytes < UINT32_MAX / 2);
    return (struct slice){.buf = NULL, .data = (uint8_t *)(uintptr_t)data, .bytes = (uint32_t)bytes};
}

struct slice slice_ref(struct slice slice)
{
    if (slice.buf != NULL) {
        uint32_t before = refs_add(&slice.buf->refs, 1);
        CHECK(before > 0 && before < UINT32_MAX);
    }
    return slice;
}

struct slice slice_keep(struct slice slice)
{
    return slice.buf != NULL ? slice_ref(slice) : slice_copy(slice.data, slice.bytes);
}

struct slice slice_sub(struct slice slice, size_t offset, size_t bytes)
{
    CHECK(offset <= slice.bytes && bytes <= slice.bytes - offset);
    struct slice sub = slice_ref(slice);
    sub.data += offset;
    sub.bytes = (uint32_t)bytes;
    return sub;
}

void slice_drop(struct slice *slice)
{
    struct buf *buf = slice->buf;
    *slice = (struct slice){0};
    if (buf == NULL) {
        return;
    }
    uint32_t before = refs_add(&buf->refs, UINT32_MAX);
    CHECK(before > 0);
    if (before > 1) {
        return;
    }
    live_add(-(uint64_t)buf->capacity);
    buf->next = NULL;
    struct buf *surplus = pool_takes(buf->capacity) ? pool_keep(buf) : buf;
    while (surplus != NULL) {
        struct buf *next = surplus->next;
        buf_free(surplus);
        surplus = next;
    }
}

bool slice_equal(struct slice a, struct slice b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

size_t slice_capacity(struct slice slice)
{
    if (slice.buf == NULL) {
        return slice.bytes;
    }
    return slice.buf->capacity - (size_t)(slice.data - slice.buf->data);
}

uint64_t slice_live_bytes(void)
{
    return atomic_load_explicit(&live_bytes, memory_order_relaxed);
}
