/* LOG_READ: finds the places of the entries asked for, reads the blocks that hold them (as many entries as lie within
 * one MiB of the first, at least one), checks every sector and record, and answers them packed. Only durable entries
 * are read, so that a write under way is never mistaken for damage. What does not check halts the node, by name. */
#include <stdlib.h>

#include "log_internal.h"
#include "proto/message.h"

static void log_read_free(struct log_read *read)
{
    slice_drop(&read->buffer);
    free(read->places);
    free(read);
}

void log_read_deinit(struct log *log)
{
    for (unsigned long i = 0; i < log->read_capacity; i++) {
        if (log->reads[i] != NULL) {
            log_read_free(log->reads[i]);
        }
    }
    free(log->reads);
}

static uint32_t log_read_slot(struct log *log)
{
    for (unsigned long i = 0; i < log->read_capacity; i++) {
        if (log->reads[i] == NULL) {
            return (uint32_t)i;
        }
    }
    unsigned long slot = log->read_capacity;
    log->reads = mem_grow(log->reads, &log->read_capacity, slot + 1, sizeof(struct log_read *));
    return (uint32_t)slot;
}

/* Chooses the entries and the range of blocks that holds them. */
static void log_read_choose(const struct log_group *group, struct log_read *read, uint32_t count)
{
    struct log_place place = log_group_place(group, read->first);
    read->segment = place.segment;
    read->offset = place.offset / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
    read->places = mem_alloc(count * sizeof *read->places);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count && read->first + i <= group->readable; i++) {
        place = log_group_place(group, read->first + i);
        uint64_t end =
            log_record_end_sector(place.offset, LOG_RECORD_HEADER_BYTES + (uint64_t)place.bytes) * LOG_SECTOR_BYTES;
        bytes += place.bytes;
        bool far = place.segment != read->segment || place.offset < read->offset ||
                   end > read->offset + LOG_READ_BYTES || bytes > LOG_READ_BYTES;
        if (i > 0 && far) {
            break;
        }
        read->places[i] = place;
        read->count = i + 1;
        uint64_t range = (end + LOG_BLOCK_BYTES - 1) / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES - read->offset;
        read->bytes = range > read->bytes ? range : read->bytes;
    }
    CHECK(read->count > 0);
}

static void log_read_part(const struct log *log, const struct log_read *read, uint32_t slot, struct effects *fx)
{
    uint64_t left = read->bytes - read->done;
    CHECK(left > 0);
    fx_disk_read(fx, log_token_make(LOG_TOKEN_READ, slot), log_file(log_segment_find(log, read->segment)->file),
                 read->offset + read->done, left < LOG_READ_BYTES ? left : LOG_READ_BYTES);
}

void log_read_start(struct log *log, const struct message *m, struct effects *fx)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    uint32_t number = reader_u32(&r);
    uint64_t first = reader_u64(&r);
    uint32_t count = reader_u32(&r);
    CHECK(!r.failed && r.left == 0 && number < LIMIT_GROUPS); /* from a group of this process */
    const struct log_group *group = &log->groups[number];
    if (log->state != LOG_OPEN || first <= group->base || count == 0 || first > group->readable) {
        fx_reply(fx, m, (struct slice){0}, (struct slice){0});
        return;
    }
    if (count > group->readable - first + 1) {
        count = (uint32_t)(group->readable - first + 1);
    }
    struct log_read *read = mem_alloc(sizeof *read);
    *read = (struct log_read){.from = m->from, .stream = m->stream, .group = number, .first = first};
    log_read_choose(group, read, count);
    read->buffer = slice_alloc(read->bytes);
    uint32_t slot = log_read_slot(log);
    log->reads[slot] = read;
    log_read_part(log, read, slot, fx);
}

/* One record out of the blocks read. False when anything does not check. */
static bool log_read_entry(const struct log *log, const struct log_read *read, uint32_t at, struct raft_entry *ret)
{
    struct log_place place = read->places[at];
    uint64_t relative = place.offset - read->offset;
    struct log_where where = log_where(log, log_segment_find(log, read->segment));
    struct log_cursor c;
    log_cursor_init(&c, read->buffer.data, (uint32_t)(read->bytes / LOG_SECTOR_BYTES), &where,
                    (uint32_t)(read->offset / LOG_SECTOR_BYTES), (uint32_t)(relative / LOG_SECTOR_BYTES),
                    (uint32_t)(relative % LOG_SECTOR_BYTES) - LOG_SECTOR_HEADER_BYTES);
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    struct log_record record;
    if (!log_cursor_read(&c, header, sizeof header, NULL) || !log_record_decode(header, &record)) {
        return false;
    }
    if (record.type != LOG_RECORD_ENTRY || record.group != read->group || record.index != read->first + at ||
        record.bytes != place.bytes) {
        return false;
    }
    struct slice data = slice_alloc(record.bytes);
    uint32_t crc = 0;
    if (!log_cursor_read(&c, data.data, record.bytes, &crc) || crc != record.body_crc) {
        slice_drop(&data);
        return false;
    }
    *ret = (struct raft_entry){.index = record.index, .term = record.term, .type = record.entry, .data = data};
    return true;
}

static void log_read_answer(struct log *log, const struct log_read *read, struct effects *fx)
{
    struct raft_entry *entries = mem_alloc(read->count * sizeof *entries);
    uint32_t good = 0;
    while (good < read->count && log_read_entry(log, read, good, &entries[good])) {
        good++;
    }
    if (good < read->count) {
        log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: group %u index %llu at offset %u fails its checksum",
                 log_segment_find(log, read->segment)->file, read->group, (unsigned long long)(read->first + good),
                 read->places[good].offset);
    } else {
        struct slice body;
        raft_entries_encode(entries, good, &body);
        fx_answer(fx, read->from, MESSAGE_LOG_READ, read->stream, MESSAGE_REPLY, (struct slice){0}, body);
    }
    for (uint32_t i = 0; i < good; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

void log_read_done(struct log *log, const struct event *event, struct effects *fx)
{
    uint32_t slot = (uint32_t)event->disk.token;
    CHECK(slot < log->read_capacity && log->reads[slot] != NULL);
    struct log_read *read = log->reads[slot];
    uint64_t left = read->bytes - read->done;
    uint64_t asked = left < LOG_READ_BYTES ? left : LOG_READ_BYTES;
    if (event->disk.err != ERR_OK || event->disk.data.bytes != asked) {
        log_halt(log, fx, event->disk.err != ERR_OK ? event->disk.err : ERR_CORRUPT,
                 "log/%08x.log: cannot read %llu bytes at offset %llu", log_segment_find(log, read->segment)->file,
                 (unsigned long long)asked, (unsigned long long)(read->offset + read->done));
        return;
    }
    memcpy(read->buffer.data + read->done, event->disk.data.data, asked);
    read->done += asked;
    if (read->done < read->bytes) {
        log_read_part(log, read, slot, fx);
        return;
    }
    log->reads[slot] = NULL;
    log_read_answer(log, read, fx);
    log_read_free(read);
}
