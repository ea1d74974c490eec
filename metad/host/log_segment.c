/* Segments and the files that hold them. The segment being written is followed by one that is allocated ahead. A
 * segment in which nobody needs an entry is given up from the oldest on; its file is kept for a coming segment, so that
 * writes land in blocks the file system has long laid out, or removed when enough are kept. */
#include <stdlib.h>

#include "log_internal.h"
#include "proto/message.h"

const struct log_segment *log_segment_find(const struct log *log, uint32_t number)
{
    CHECK(log->segment_count > 0 && number >= log->segments[0].number);
    CHECK(number - log->segments[0].number < log->segment_count);
    return &log->segments[number - log->segments[0].number];
}

void log_segment_add(struct log *log, struct log_segment segment)
{
    CHECK(log->segment_count == 0 || segment.number == log_current(log)->number + 1);
    log->segments = mem_grow(log->segments, &log->segment_capacity, log->segment_count + 1, sizeof segment);
    log->segments[log->segment_count++] = segment;
    if (segment.number > log->last_segment) {
        log->last_segment = segment.number;
    }
}

void log_next_allocate(struct log *log, uint64_t bytes, struct effects *fx)
{
    struct log_segment *next = &log->next_segment;
    CHECK(log->next != LOG_NEXT_ALLOCATING && bytes % LOG_BLOCK_BYTES == 0);
    if (next->file == 0 && log->spare_count > 0) {
        *next = log->spares[--log->spare_count];
    } else if (next->file == 0) {
        next->file = ++log->last_file;
    }
    log->next = LOG_NEXT_ALLOCATING;
    next->number = log->last_segment + 1;
    next->bytes = bytes > log->segment_bytes ? bytes : log->segment_bytes;
    fx_disk_alloc(fx, log_token_make(LOG_TOKEN_ALLOC, 0), log_file(next->file), next->bytes);
}

void log_alloc_done(struct log *log, const struct event *event, struct effects *fx)
{
    CHECK(log->next == LOG_NEXT_ALLOCATING);
    if (event->disk.err == ERR_OK) {
        log->next = LOG_NEXT_READY;
    } else if (event->disk.err == ERR_DISK_FULL) {
        log->next = LOG_NEXT_FAILED;
        fx_timer(fx, LOG_TIMER_ALLOC, event->now_ns + LOG_ALLOC_WAIT_NS);
    } else {
        log_halt(log, fx, event->disk.err, "log/%08x.log: cannot be made: %s", log->next_segment.file,
                 err_text(event->disk.err));
    }
}

bool log_room_get(struct log *log, uint64_t bytes, struct effects *fx)
{
    const struct log_segment *current = log_current(log);
    if (current != NULL && log->position + bytes <= current->bytes) {
        return true;
    }
    if (log->next == LOG_NEXT_FAILED) {
        log_halt(log, fx, ERR_DISK_FULL,
                 "the disk of the metadata directory is full: no room for log/%08x.log (%llu bytes)",
                 log->next_segment.file, (unsigned long long)log->next_segment.bytes);
        return false;
    }
    if (log->next == LOG_NEXT_READY && log->next_segment.bytes >= bytes) {
        log_segment_add(log, log->next_segment);
        log->position = 0;
        log->next = LOG_NEXT_NONE;
        log->next_segment = (struct log_segment){0};
        log->release_due = true;
        log_next_allocate(log, log->segment_bytes, fx);
        return true;
    }
    if (log->next != LOG_NEXT_ALLOCATING) {
        log_next_allocate(log, bytes, fx); /* none yet, or too small for a large entry */
    }
    return false;
}

void log_file_free(struct log *log, struct log_segment segment, struct effects *fx)
{
    if (log->spare_count < LOG_SPARES && segment.bytes <= log->segment_bytes) {
        log->spares[log->spare_count++] = segment;
    } else {
        fx_disk_discard(fx, log_token_make(LOG_TOKEN_REMOVE, segment.file), log_file(segment.file), 0, UINT64_MAX);
    }
}

/* Groups without which the oldest segment could go are asked to flush and cut. */
static void log_pinned_tell(const struct log *log, const uint32_t *needs, struct effects *fx)
{
    bool most = log->segment_count > LOG_SEGMENTS_KEPT;
    uint32_t kept = most ? log->segments[log->segment_count - LOG_SEGMENTS_KEPT].number : 0;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        if (needs[i] == log->segments[0].number) {
            struct writer w = {0};
            writer_u32(&w, i);
            writer_u64(&w, log_group_below(&log->groups[i], kept));
            fx_send(fx, address_local(ACTOR_GROUP, i), MESSAGE_LOG_PINNED, 0, writer_take(&w), (struct slice){0});
            writer_deinit(&w);
        }
    }
}

/* The oldest segment that a group or a read needs. */
static uint32_t log_oldest_needed(const struct log *log, uint32_t *ret_needs)
{
    uint32_t oldest = log_current(log)->number;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        ret_needs[i] = log_group_needs(&log->groups[i]);
        oldest = ret_needs[i] < oldest ? ret_needs[i] : oldest;
    }
    for (unsigned long i = 0; i < log->read_capacity; i++) {
        if (log->reads[i] != NULL && log->reads[i]->segment < oldest) {
            oldest = log->reads[i]->segment;
        }
    }
    while (oldest > log->segments[0].number && log_segment_find(log, oldest)->headless) {
        oldest--;
    }
    return oldest;
}

void log_release(struct log *log, struct effects *fx)
{
    if (log->writing || !log->release_due || log->segment_count < 2) {
        return;
    }
    log->release_due = false;
    uint32_t needs[LIMIT_GROUPS];
    uint32_t oldest = log_oldest_needed(log, needs);
    unsigned long gone = 0;
    while (log->segments[gone].number < oldest) {
        log_file_free(log, log->segments[gone], fx);
        gone++;
    }
    log->segment_count -= gone;
    memmove(log->segments, log->segments + gone, log->segment_count * sizeof *log->segments);
    if (log->segment_count > LOG_SEGMENTS_MANY) {
        log_pinned_tell(log, needs, fx);
    }
}
