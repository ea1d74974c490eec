/* Effect lists: emitters append, interpreters consume. */
#include "effect.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static struct effect *effects_push(struct effects *fx, enum effect_kind kind)
{
    fx->items = mem_grow(fx->items, &fx->capacity, fx->count + 1, sizeof *fx->items);
    struct effect *effect = &fx->items[fx->count++];
    *effect = (struct effect){.kind = kind};
    return effect;
}

void effects_deinit(struct effects *fx)
{
    CHECK(fx->count == 0);
    free(fx->items);
    *fx = (struct effects){0};
}

void fx_answer(struct effects *fx, struct address to, uint16_t type, uint64_t stream, uint8_t flags,
               struct slice header, struct slice body)
{
    CHECK(stream < 1ull << 48);
    struct effect *effect = effects_push(fx, EFFECT_SEND);
    effect->send.to = to;
    effect->send.type = type;
    effect->send.flags = flags;
    effect->send.target = to.index;
    effect->send.stream = stream;
    effect->send.header = header;
    effect->send.body = body;
}

void fx_send(struct effects *fx, struct address to, uint16_t type, uint64_t stream, struct slice header,
             struct slice body)
{
    fx_answer(fx, to, type, stream, 0, header, body);
}

void fx_reply(struct effects *fx, const struct message *request, struct slice header, struct slice body)
{
    fx_answer(fx, request->from, request->type, request->stream, MESSAGE_REPLY, header, body);
}

void fx_timer(struct effects *fx, uint64_t id, uint64_t deadline_ns)
{
    struct effect *effect = effects_push(fx, EFFECT_TIMER);
    effect->timer.id = id;
    effect->timer.deadline_ns = deadline_ns;
}

static struct effect *effects_push_disk(struct effects *fx, enum effect_kind kind, uint64_t token, struct file_ref file,
                                        uint64_t offset, uint64_t bytes)
{
    struct effect *effect = effects_push(fx, kind);
    effect->disk.token = token;
    effect->disk.file = file;
    effect->disk.offset = offset;
    effect->disk.bytes = bytes;
    return effect;
}

void fx_disk_write(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, struct slice data)
{
    CHECK(data.bytes > 0 && offset % 4096 == 0);
    uint64_t rounded = ((uint64_t)data.bytes + 4095) / 4096 * 4096;
    CHECK(slice_capacity(data) >= rounded && (uintptr_t)data.data % 4096 == 0);
    effects_push_disk(fx, EFFECT_DISK_WRITE, token, file, offset, rounded)->disk.data = data;
}

void fx_disk_sync(struct effects *fx, uint64_t token, struct file_ref file)
{
    effects_push_disk(fx, EFFECT_DISK_SYNC, token, file, 0, 0);
}

void fx_disk_read(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, uint64_t bytes)
{
    CHECK(bytes > 0);
    CHECK(file.kind == FILE_USER || (offset % 4096 == 0 && bytes % 4096 == 0));
    effects_push_disk(fx, EFFECT_DISK_READ, token, file, offset, bytes);
}

void fx_disk_alloc(struct effects *fx, uint64_t token, struct file_ref file, uint64_t bytes)
{
    effects_push_disk(fx, EFFECT_DISK_ALLOC, token, file, 0, bytes);
}

void fx_disk_discard(struct effects *fx, uint64_t token, struct file_ref file, uint64_t offset, uint64_t bytes)
{
    effects_push_disk(fx, EFFECT_DISK_DISCARD, token, file, offset, bytes);
}

void fx_kv_commit(struct effects *fx, struct kv_batch *batch)
{
    CHECK(batch != NULL);
    effects_push(fx, EFFECT_KV_COMMIT)->kv.batch = batch;
}

void fx_kv_flush(struct effects *fx, uint64_t token)
{
    effects_push(fx, EFFECT_KV_FLUSH)->kv.token = token;
}

void fx_kv_scan(struct effects *fx, uint64_t token, uint64_t pin, struct slice from, struct slice end, uint64_t bytes)
{
    CHECK(pin > 0 && bytes > 0);
    struct effect *effect = effects_push(fx, EFFECT_KV_SCAN);
    effect->scan.token = token;
    effect->scan.pin = pin;
    effect->scan.from = from;
    effect->scan.end = end;
    effect->scan.bytes = bytes;
}

void fx_kv_unpin(struct effects *fx, uint64_t pin)
{
    effects_push(fx, EFFECT_KV_SCAN)->scan.pin = pin;
}

void fx_compute(struct effects *fx, uint64_t token, struct compute_job *job)
{
    CHECK(job != NULL);
    struct effect *effect = effects_push(fx, EFFECT_COMPUTE);
    effect->compute.token = token;
    effect->compute.job = job;
}

void fx_halt(struct effects *fx, enum err err, const char *format, ...)
{
    struct effect *effect = effects_push(fx, EFFECT_HALT);
    effect->halt.err = err;
    va_list args;
    va_start(args, format);
    vsnprintf(effect->halt.reason, sizeof effect->halt.reason, format, args);
    va_end(args);
}
