/* LOG_READ: finds the places of the entries asked for, reads the blocks that hold them (as many entries as lie within
 * one MiB of the first, at least one), checks every sector and record, and answers them packed. Only durable entries
 * are read, so that a write under way is never mistaken for damage.
 * What was asked beyond is read ahead (L19): a step's effects leave when it ends, so without, the disk would wait for
 * the group to apply what it has and the group for the disk. Such a read is of use to the next LOG_READ as far as the
 * places it read are still those of the entries asked for; it is judged only then, as if it had been made for it.
 * How it fails: an entry that does not check, or a disk that does not give it, is a hole from now on, as if the start
 * had found it (R-E1): the group hears LOG_ROTTEN and has it fetched. A disk that reads nothing any more shows where it
 * is written to. */
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
    for (uint32_t i = 0; i < LOG_AHEADS; i++) {
        if (log->held[i] != NULL) {
            log_read_free(log->held[i]);
        }
    }
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
    count = count < LOG_READ_ENTRIES ? count : LOG_READ_ENTRIES;
    struct log_place place = log_group_place(group, read->first);
    read->segment = place.segment;
    read->offset = place.offset / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
    read->places = mem_alloc(count * sizeof *read->places);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count && read->first + i <= group->readable; i++) {
        place = log_group_place(group, read->first + i);
        if (log_place_is_hole(place)) {
            break;
        }
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

static void log_rotten_tell(const struct log *log, uint32_t number, uint64_t index, struct effects *fx)
{
    struct writer w = {0};
    writer_u32(&w, number);
    writer_u64(&w, index);
    writer_u64(&w, log_group_term(&log->groups[number], index));
    fx_send(fx, address_local(ACTOR_GROUP, number), MESSAGE_LOG_ROTTEN, 0, writer_take(&w), (struct slice){0});
    writer_deinit(&w);
}

/* The entry `at` of the read is damaged: a hole, unless it was cut, or written anew, since the read began. */
static void log_read_rotten(struct log *log, const struct log_read *read, uint32_t at, struct effects *fx)
{
    struct log_group *group = &log->groups[read->group];
    uint64_t index = read->first + at;
    struct log_place place = read->places[at];
    bool there = index > group->base && index <= group->last;
    struct log_place now = there ? log_group_place(group, index) : (struct log_place){0};
    if (now.segment == place.segment && now.offset == place.offset && now.bytes == place.bytes) {
        log_group_place_set(
            group, index,
            (struct log_place){.segment = place.segment, .offset = LOG_HOLE_ROT, .bytes = LOG_HOLE_BYTES});
        log_rotten_tell(log, read->group, index, fx);
    }
}

static void log_read_part(const struct log *log, const struct log_read *read, uint32_t slot, struct effects *fx)
{
    uint64_t left = read->bytes - read->done;
    CHECK(left > 0);
    fx_disk_read(fx, log_token_make(LOG_TOKEN_READ, slot), log_file(log_segment_find(log, read->segment)->file),
                 read->offset + read->done, left < LOG_READ_BYTES ? left : LOG_READ_BYTES);
}

/* LOG_FETCH of one entry by its name: what a member is told that lacks it (log.h). */
static enum log_verdict log_fetch_verdict(const struct log *log, const struct log_group *group, uint64_t index,
                                          uint64_t term)
{
    if (log->state != LOG_OPEN || group->unsure) {
        return LOG_UNTOLD;
    }
    if (index <= group->base && group->base > 0) {
        return LOG_BEHIND;
    }
    if (index > group->last && index <= group->accepted) {
        return LOG_UNTOLD; /* on its way: a leader will count it beside what the asker once acknowledged */
    }
    if (index == 0 || index > group->last || log_group_term(group, index) != term) {
        return LOG_NONE;
    }
    struct log_place place = log_group_place(group, index);
    if (log_place_is_hole(place)) {
        static const enum log_verdict verdicts[] = {
            [LOG_HOLE_ROT] = LOG_LACKS, [LOG_HOLE_DOUBT] = LOG_DOUBTS, [LOG_HOLE_TORN] = LOG_TORN};
        return verdicts[place.offset];
    }
    return index <= group->readable ? LOG_HAS : LOG_UNTOLD;
}

static void log_fetch_refuse(const struct message *m, enum log_verdict verdict, struct effects *fx)
{
    uint8_t header[9] = {(uint8_t)verdict};
    fx_reply(fx, m, slice_copy(header, sizeof header), (struct slice){0});
}

/* One record out of the blocks read. False when anything does not check. */
static bool log_read_entry(const struct log *log, const struct log_read *read, uint32_t at, struct raft_entry *ret,
                           uint64_t *ret_previous_term)
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
    bool entry = record.type == LOG_RECORD_ENTRY || record.type == LOG_RECORD_HEALED;
    if (!entry || record.group != read->group || record.index != read->first + at || record.bytes != place.bytes) {
        return false;
    }
    struct slice data = slice_alloc(record.bytes);
    uint32_t crc = 0;
    if (!log_cursor_read(&c, data.data, record.bytes, &crc) || crc != record.body_crc) {
        slice_drop(&data);
        return false;
    }
    *ret_previous_term = record.previous_term;
    *ret = (struct raft_entry){.index = record.index, .term = record.term, .type = record.entry, .data = data};
    return true;
}

/* `whole`: the disk gave all of it. */
static void log_read_answer(struct log *log, const struct log_read *read, bool whole, struct effects *fx)
{
    struct raft_entry *entries = mem_alloc(read->count * sizeof *entries);
    uint32_t good = 0;
    uint64_t previous_term = 0;
    while (whole && good < read->count && log_read_entry(log, read, good, &entries[good], &previous_term)) {
        good++;
    }
    if (good < read->count) {
        log_read_rotten(log, read, good, fx);
    }
    bool fetch = read->type == MESSAGE_LOG_FETCH;
    struct slice body = {0};
    if (good > 0) {
        raft_entries_encode(entries, good, &body);
    }
    uint8_t fetched[9] = {good > 0 ? LOG_HAS : LOG_LACKS};
    put_u64(fetched + 1, previous_term);
    fx_answer(fx, read->from, read->type, read->stream, MESSAGE_REPLY,
              fetch ? slice_copy(fetched, sizeof fetched) : (struct slice){0}, body);
    for (uint32_t i = 0; i < good; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

/* ---- a read begins ---- */

static void log_read_begin(struct log *log, struct log_read *read, uint32_t count, struct effects *fx)
{
    log_read_choose(&log->groups[read->group], read, count);
    read->buffer = slice_alloc(read->bytes);
    uint32_t slot = log_read_slot(log);
    log->reads[slot] = read;
    log_read_part(log, read, slot, fx);
}

/* How many entries of a read made ahead are still what the log holds under their indexes: a place that was synced is
 * never written again. */
static uint32_t log_ahead_good(const struct log_group *group, const struct log_read *read, uint32_t count)
{
    uint32_t good = 0;
    while (good < count && good < read->count && read->first + good <= group->readable) {
        struct log_place was = read->places[good], now = log_group_place(group, read->first + good);
        if (was.segment != now.segment || was.offset != now.offset || was.bytes != now.bytes) {
            break;
        }
        good++;
    }
    return good;
}

static void log_read_asked(struct log_read *read, const struct message *m, uint32_t count)
{
    read->from = m->from;
    read->stream = m->stream;
    read->type = m->type;
    read->count = count;
    read->ahead = false;
}

/* Answers from a read made ahead, or leaves the answer to one that is out. How many entries; 0: there is none. */
static uint32_t log_ahead_take(struct log *log, const struct message *m, const struct log_read *asked,
                               struct effects *fx)
{
    const struct log_group *group = &log->groups[asked->group];
    for (uint32_t i = 0; i < LOG_AHEADS; i++) {
        struct log_read *read = log->held[i];
        if (read == NULL || read->group != asked->group || read->first != asked->first) {
            continue;
        }
        uint32_t good = log_ahead_good(group, read, asked->count);
        log->held[i] = NULL;
        if (good > 0) {
            log_read_asked(read, m, good);
            log_read_answer(log, read, true, fx);
        }
        log_read_free(read);
        return good;
    }
    for (unsigned long i = 0; i < log->read_capacity; i++) {
        struct log_read *read = log->reads[i];
        if (read != NULL && read->ahead && read->group == asked->group && read->first == asked->first) {
            uint32_t good = log_ahead_good(group, read, asked->count);
            if (good > 0) {
                log_read_asked(read, m, good);
            }
            return good;
        }
    }
    return 0;
}

/* Reads what the group will ask for next: one a group, and few of all. */
static void log_ahead_start(struct log *log, struct log_read next, struct effects *fx)
{
    uint32_t out = 0;
    bool there = log_place_is_hole(log_group_place(&log->groups[next.group], next.first));
    for (unsigned long i = 0; i < log->read_capacity; i++) {
        const struct log_read *read = log->reads[i];
        out += read != NULL && read->ahead;
        there = there || (read != NULL && read->ahead && read->group == next.group);
    }
    for (uint32_t i = 0; i < LOG_AHEADS; i++) {
        const struct log_read *read = log->held[i];
        there = there || (read != NULL && read->group == next.group && read->first == next.first);
    }
    if (there || out == LOG_AHEADS) {
        return;
    }
    struct log_read *read = mem_alloc(sizeof *read);
    *read = (struct log_read){.group = next.group, .first = next.first, .type = MESSAGE_LOG_READ, .ahead = true};
    log_read_begin(log, read, next.count, fx);
}

/* Kept until it is asked for, or others take its room. */
static void log_ahead_hold(struct log *log, struct log_read *read)
{
    uint32_t at = log->held_next;
    for (uint32_t i = 0; i < LOG_AHEADS; i++) {
        at = log->held[i] == NULL ? i : at;
    }
    if (log->held[at] != NULL) {
        log_read_free(log->held[at]);
        log->held_next = (at + 1) % LOG_AHEADS;
    }
    log->held[at] = read;
}

void log_read_start(struct log *log, const struct message *m, struct effects *fx)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    uint32_t number = reader_u32(&r), count = 1;
    uint64_t first = reader_u64(&r), term = 0;
    bool fetch = m->type == MESSAGE_LOG_FETCH;
    if (fetch) {
        term = reader_u64(&r);
    } else {
        count = reader_u32(&r);
    }
    CHECK(!r.failed && r.left == 0 && number < LIMIT_GROUPS); /* from a group of this process */
    const struct log_group *group = &log->groups[number];
    enum log_verdict verdict = fetch ? log_fetch_verdict(log, group, first, term) : LOG_HAS;
    if (verdict != LOG_HAS) {
        log_fetch_refuse(m, verdict, fx);
        return;
    }
    bool there = log->state == LOG_OPEN && first > group->base && count > 0 && first <= group->readable;
    bool hole = there && log_place_is_hole(log_group_place(group, first));
    if (hole) {
        log_rotten_tell(log, number, first, fx); /* the group did not know it yet */
    }
    if (!there || hole) {
        fx_reply(fx, m, (struct slice){0}, (struct slice){0});
        return;
    }
    if (count > group->readable - first + 1) {
        count = (uint32_t)(group->readable - first + 1);
    }
    struct log_read asked = {.group = number, .first = first, .count = count};
    uint32_t given = fetch ? 0 : log_ahead_take(log, m, &asked, fx);
    if (given == 0) {
        struct log_read *read = mem_alloc(sizeof *read);
        *read =
            (struct log_read){.from = m->from, .stream = m->stream, .type = m->type, .group = number, .first = first};
        log_read_begin(log, read, count, fx);
        given = read->count;
    }
    if (given < count) {
        log_ahead_start(log, (struct log_read){.group = number, .first = first + given, .count = count - given}, fx);
    }
}

void log_read_done(struct log *log, const struct event *event, struct effects *fx)
{
    uint32_t slot = (uint32_t)event->disk.token;
    CHECK(slot < log->read_capacity && log->reads[slot] != NULL);
    struct log_read *read = log->reads[slot];
    uint64_t left = read->bytes - read->done;
    uint64_t asked = left < LOG_READ_BYTES ? left : LOG_READ_BYTES;
    bool given = event->disk.err == ERR_OK && event->disk.data.bytes == asked;
    if (given) {
        memcpy(read->buffer.data + read->done, event->disk.data.data, asked);
        read->done += asked;
    }
    if (given && read->done < read->bytes) {
        log_read_part(log, read, slot, fx);
        return;
    }
    log->reads[slot] = NULL;
    if (read->ahead && given) {
        log_ahead_hold(log, read);
        return;
    }
    if (!read->ahead) {
        log_read_answer(log, read, given, fx);
    }
    log_read_free(read);
}
