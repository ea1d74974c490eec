/* Refcounted buffers: one allocation holds the header page and, 4096-aligned behind it, the bytes. */
#include "slice.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define SLICE_ALIGN        4096u
#define SLICE_SMALL_OFFSET 64u

struct buf {
    _Atomic uint32_t refs;
    uint32_t capacity;
    uint8_t *data;
};

static _Atomic uint64_t live_bytes;

struct slice slice_alloc(size_t bytes)
{
    CHECK(bytes < UINT32_MAX / 2);
    if (bytes == 0) {
        return (struct slice){0};
    }
    bool aligned = bytes >= SLICE_ALIGN;
    size_t capacity = aligned ? (bytes + SLICE_ALIGN - 1) / SLICE_ALIGN * SLICE_ALIGN : (bytes + 63) / 64 * 64;
    struct buf *buf;
    if (aligned) {
        buf = mem_alloc(sizeof *buf);
        buf->data = aligned_alloc(SLICE_ALIGN, capacity);
        CHECK(buf->data != NULL);
    } else {
        buf = aligned_alloc(64, SLICE_SMALL_OFFSET + capacity);
        CHECK(buf != NULL);
        buf->data = (uint8_t *)buf + SLICE_SMALL_OFFSET;
    }
    buf->capacity = (uint32_t)capacity;
    atomic_init(&buf->refs, 1);
    memset(buf->data + bytes, 0, capacity - bytes);
    atomic_fetch_add_explicit(&live_bytes, capacity, memory_order_relaxed);
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
        uint32_t before = atomic_fetch_add_explicit(&slice.buf->refs, 1, memory_order_relaxed);
        CHECK(before > 0 && before < UINT32_MAX);
    }
    return slice;
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
    uint32_t before = atomic_fetch_sub_explicit(&buf->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before > 1) {
        return;
    }
    atomic_fetch_sub_explicit(&live_bytes, buf->capacity, memory_order_relaxed);
    if (buf->data != (uint8_t *)buf + SLICE_SMALL_OFFSET) {
        free(buf->data);
    }
    free(buf);
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
