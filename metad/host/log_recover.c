/* The scan at start. Follows the chain of writes (each names its predecessor) from the first segment on, checks every
 * sector and record, and rebuilds the index. Where the chain ends, it reads on to the end of the last file for
 * evidence: a sector that says a write behind the end was synced. With it the damage is rot in acknowledged bytes:
 * HALT, and nothing is cut (R-E1, R-E2). Without it, what lies behind the end was never known to be durable: it is a
 * torn tail, and the next write begins there, under a sequence that was never used.
 *
 * What was found is synced before anybody is told: bytes read back may still be in a cache only. */
#include <stdlib.h>

#include "log_internal.h"

void log_scan_deinit(struct log *log)
{
    writer_deinit(&log->scan.buffer);
    free(log->scan.files);
}

/* ---- the file being read ---- */

/* The file being read, NULL behind the last one. */
static const struct log_segment *log_scan_file(const struct log *log)
{
    return log->scan.file < log->scan.file_count ? &log->scan.files[log->scan.file].segment : NULL;
}

static uint64_t log_scan_left(const struct log *log)
{
    return log_scan_file(log)->bytes - log->scan.at;
}

/* Goes to another place; what is buffered is forgotten. */
static void log_scan_seek(struct log_scan *scan, enum log_scan_mode mode, uint32_t file, uint64_t at)
{
    scan->mode = mode;
    scan->file = file;
    scan->at = scan->buffer_at = at;
    scan->buffer.bytes = 0;
}

/* The next `bytes` bytes of the file, or NULL after asking the disk for more. */
static const uint8_t *log_scan_need(struct log *log, uint64_t bytes, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    uint64_t have = scan->buffer_at + scan->buffer.bytes - scan->at;
    CHECK(bytes <= log_scan_left(log));
    if (have >= bytes) {
        return scan->buffer.data + (scan->at - scan->buffer_at);
    }
    if (scan->at > scan->buffer_at) {
        memmove(scan->buffer.data, scan->buffer.data + (scan->at - scan->buffer_at), have);
        scan->buffer.bytes = have;
        scan->buffer_at = scan->at;
    }
    uint64_t from = scan->buffer_at + have, left = log_scan_file(log)->bytes - from;
    fx_disk_read(fx, log_token_make(LOG_TOKEN_SCAN, 0), log_file(log_scan_file(log)->file), from,
                 left < LOG_READ_BYTES ? left : LOG_READ_BYTES);
    return NULL;
}

/* ---- records ---- */

static bool log_scan_entry(struct log *log, const struct log_record *record, uint32_t segment, uint64_t offset)
{
    struct log_group *group = &log->groups[record->group];
    bool sound = record->index > group->base && record->index <= group->last + 1 && record->term > 0 &&
                 record->previous_index == record->index - 1 && record->bytes <= LIMIT_ENTRY_BYTES &&
                 record->previous_term == log_group_term(group, record->index - 1) &&
                 record->term >= record->previous_term;
    if (!sound) {
        return false;
    }
    struct log_place place = {.segment = segment, .offset = (uint32_t)offset, .bytes = record->bytes};
    log_group_put(group, record->index, record->term, place);
    log->scan.named = true;
    log->scan.last_group = record->group;
    log->scan.last_index = record->index;
    return true;
}

static bool log_scan_hard(struct log *log, const struct log_record *record)
{
    struct log_group *group = &log->groups[record->group];
    if (record->term < group->term || record->bytes != 0) {
        return false;
    }
    group->known = true;
    group->term = record->term;
    group->vote = record->vote;
    return true;
}

static bool log_scan_reset(struct log *log, const struct log_record *record)
{
    if (record->bytes != 0) {
        return false;
    }
    log_group_reset(&log->groups[record->group], record->index, record->term);
    return true;
}

/* One group of a SEGMENT record. */
struct log_stand {
    uint32_t number, vote, run_count;
    uint64_t term, base, base_term, last;
    struct reader runs;
};

static bool log_stand_read(struct reader *r, struct log_stand *ret)
{
    ret->number = reader_u32(r);
    ret->term = reader_u64(r);
    ret->vote = reader_u32(r);
    ret->base = reader_u64(r);
    ret->base_term = reader_u64(r);
    ret->last = reader_u64(r);
    ret->run_count = reader_u32(r);
    ret->runs = *r;
    return reader_take(r, (size_t)ret->run_count * 16) != NULL && ret->number < LIMIT_GROUPS &&
           ret->last >= ret->base && (ret->run_count > 0) == (ret->last > ret->base);
}

/* At the first segment there is: entries behind base are known by name; those not found later are in segments that
 * were given up. */
static bool log_stand_take(struct log *log, struct log_stand *stand)
{
    struct log_group *group = &log->groups[stand->number];
    group->term = stand->term;
    group->vote = stand->vote;
    log_group_reset(group, stand->base, stand->base_term);
    uint64_t index = stand->base + 1;
    (void)reader_u64(&stand->runs);
    for (uint32_t i = 0; i < stand->run_count; i++) {
        uint64_t term = reader_u64(&stand->runs);
        uint64_t end = i + 1 < stand->run_count ? reader_u64(&stand->runs) : stand->last + 1;
        if (term == 0 || end <= index || end > stand->last + 1) {
            return false;
        }
        for (; index < end; index++) {
            log_group_put(group, index, term, (struct log_place){0});
        }
    }
    return true;
}

/* Later on it must be as the scan found it; its base may have risen. */
static bool log_stand_check(struct log *log, struct log_stand *stand)
{
    struct log_group *group = &log->groups[stand->number];
    if (group->term != stand->term || group->vote != stand->vote || group->last != stand->last ||
        group->base > stand->base || log_group_term(group, stand->base) != stand->base_term) {
        return false;
    }
    if (stand->base > group->base) {
        log_group_cut(group, stand->base);
    }
    bool same = group->run_count == stand->run_count;
    for (uint32_t i = 0; i < stand->run_count && same; i++) {
        same = reader_u64(&stand->runs) == group->runs[i].first && reader_u64(&stand->runs) == group->runs[i].term;
    }
    return same;
}

/* The groups at a segment's start must stand as the scan found them. */
static bool log_scan_segment(struct log *log, const uint8_t *body, uint32_t bytes)
{
    struct reader r = reader_of(body, bytes);
    uint32_t count = reader_u32(&r), known = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct log_stand stand;
        if (!log_stand_read(&r, &stand) ||
            !(log->scan.started ? log_stand_check(log, &stand) : log_stand_take(log, &stand))) {
            return false;
        }
    }
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        known += log->groups[i].known;
    }
    return !r.failed && r.left == 0 && count == known;
}

/* Reads one record at the cursor and takes it in. False when it does not check. */
static bool log_scan_record(struct log *log, struct log_cursor *c, uint32_t segment)
{
    uint64_t offset = log_cursor_offset(c);
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    struct log_record record;
    if (!log_cursor_read(c, header, sizeof header, NULL) || !log_record_decode(header, &record) ||
        record.group >= LIMIT_GROUPS || record.bytes > c->count * LOG_PAYLOAD_BYTES) {
        return false;
    }
    bool config = record.type == LOG_RECORD_ENTRY && record.entry == RAFT_ENTRY_CONFIG;
    bool keep = record.type == LOG_RECORD_SEGMENT || config;
    struct slice body = keep ? slice_alloc(record.bytes) : (struct slice){0};
    uint32_t crc = 0;
    bool good = log_cursor_read(c, body.data, record.bytes, &crc) && crc == record.body_crc;
    if (good && record.type == LOG_RECORD_ENTRY) {
        good = log_scan_entry(log, &record, segment, offset);
    } else if (good && record.type == LOG_RECORD_HARD_STATE) {
        good = log_scan_hard(log, &record);
    } else if (good && record.type == LOG_RECORD_RESET) {
        good = log_scan_reset(log, &record);
    } else if (good) {
        good = record.type == LOG_RECORD_SEGMENT && log_scan_segment(log, body.data, record.bytes);
    }
    if (good && config) {
        log_group_config(&log->groups[record.group], record.index, body);
    }
    slice_drop(&body);
    return good;
}

/* ---- writes ---- */

/* Sectors of the write that begins at the block `data` and continues the chain; 0 when none is seen to. */
static uint32_t log_scan_begins(const struct log *log, const uint8_t *data, uint64_t *ret_sequence)
{
    const struct log_scan *scan = &log->scan;
    uint32_t first = (uint32_t)(scan->at / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < LOG_BLOCK_SECTORS; i++) {
        struct log_sector s;
        if (log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, log_scan_file(log)->file, first + i, &s) &&
            s.segment == log_scan_file(log)->number && s.first == first &&
            (!scan->started || s.previous == log->sequence) && s.sectors <= log_scan_left(log) / LOG_SECTOR_BYTES) {
            *ret_sequence = s.sequence;
            return s.sectors;
        }
    }
    return 0;
}

/* True when all sectors of the write are there. */
static bool log_scan_whole(const struct log *log, const uint8_t *data, uint32_t sectors, uint64_t sequence,
                           uint32_t *ret_bad)
{
    uint32_t first = (uint32_t)(log->scan.at / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < sectors; i++) {
        struct log_sector s;
        if (!log_sector_decode(data + (uint64_t)i * LOG_SECTOR_BYTES, &log->directory, log_scan_file(log)->file,
                               first + i, &s) ||
            s.segment != log_scan_file(log)->number || s.sequence != sequence || s.first != first ||
            s.sectors != sectors) {
            *ret_bad = i;
            return false;
        }
    }
    return true;
}

/* Takes in a whole write. False when a record does not check, though its sectors do. */
static bool log_scan_take(struct log *log, const uint8_t *data, uint32_t sectors, uint64_t sequence)
{
    struct log_scan *scan = &log->scan;
    const struct log_segment *file = log_scan_file(log);
    struct log_where where = log_where(log, file);
    struct log_cursor c;
    log_cursor_init(&c, data, sectors, &where, (uint32_t)(scan->at / LOG_SECTOR_BYTES), 0, 0);
    bool records = false;
    while (!log_cursor_end(&c)) {
        if (!log_scan_record(log, &c, file->number)) {
            return false;
        }
        records = true;
    }
    scan->started = true;
    log->sequence = sequence;
    log->highest = sequence > log->highest ? sequence : log->highest;
    log->unmarked = records;
    if (log->segment_count == 0 || log_current(log)->number != file->number) {
        log_segment_add(log, *file);
    }
    scan->at += (uint64_t)sectors * LOG_SECTOR_BYTES;
    log->position = scan->at;
    return true;
}

/* A write is damaged: reads what is whole of it, for the name of what it held. The index is given up if it is rot; if
 * it is a torn tail nothing of it counts, so nothing is taken in. */
static void log_scan_name(struct log *log, const uint8_t *data, uint32_t good)
{
    struct log_scan *scan = &log->scan;
    struct log_cursor c;
    struct log_where where = log_where(log, log_scan_file(log));
    log_cursor_init(&c, data, good, &where, (uint32_t)(scan->at / LOG_SECTOR_BYTES), 0, 0);
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    struct log_record record;
    while (!scan->suspect && !log_cursor_end(&c) && log_cursor_read(&c, header, sizeof header, NULL) &&
           log_record_decode(header, &record)) {
        bool whole = log_cursor_read(&c, NULL, record.bytes, NULL);
        if (record.type == LOG_RECORD_ENTRY) {
            scan->named = true;
            scan->suspect = !whole;
            scan->last_group = record.group;
            scan->last_index = record.index;
        }
    }
}

/* ---- the end of the chain ---- */

static void log_scan_stop(struct log_scan *scan, uint32_t file, uint64_t at)
{
    scan->stop_file = file;
    scan->stop_at = at;
}

/* Keeps the first damaged place, for the message. */
static void log_scan_bad(struct log_scan *scan, uint32_t segment, uint64_t at)
{
    if (!scan->bad) {
        scan->bad = true;
        scan->bad_segment = segment;
        scan->bad_at = at;
    }
}

static void log_scan_rot(struct log *log, struct effects *fx)
{
    const struct log_scan *scan = &log->scan;
    uint32_t segment = scan->bad ? scan->bad_segment : scan->files[scan->stop_file].segment.file;
    unsigned long long offset = scan->bad ? scan->bad_at : scan->stop_at;
    if (scan->named) {
        log_halt(log, fx, ERR_CORRUPT,
                 "log/%08x.log: acknowledged bytes are damaged at offset %llu, %s group %u index %llu", segment, offset,
                 scan->suspect ? "in" : "after", scan->last_group, (unsigned long long)scan->last_index);
    } else {
        log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: acknowledged bytes are damaged at offset %llu", segment, offset);
    }
}

/* Entries that were only named were in segments that nobody needed any more. */
static void log_scan_bases(struct log *log)
{
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        struct log_group *group = &log->groups[i];
        uint64_t gone = group->base;
        while (gone < group->last && log_group_place(group, gone + 1).segment == 0) {
            gone++;
        }
        if (gone > group->base) {
            log_group_cut(group, gone);
        }
    }
}

/* Files that hold nothing of the log found. */
static void log_scan_spare(struct log *log, struct effects *fx)
{
    const struct log_scan *scan = &log->scan;
    for (uint32_t i = 0; i < scan->file_count; i++) {
        bool held = false;
        for (unsigned long n = 0; n < log->segment_count; n++) {
            held = held || log->segments[n].file == scan->files[i].segment.file;
        }
        if (!held) {
            log_file_free(log, scan->files[i].segment, fx);
        }
    }
}

static void log_scan_finish(struct log *log, uint64_t now_ns, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    log->highest = scan->highest > log->highest ? scan->highest : log->highest;
    writer_deinit(&scan->buffer);
    log_scan_bases(log);
    log_scan_spare(log, fx);
    if (log->segment_count == 0) {
        log_ready(log, now_ns, fx);
        return;
    }
    log->state = LOG_SYNCING;
    fx_disk_sync(fx, log_token_make(LOG_TOKEN_BOOT_SYNC, 0), log_file(log_current(log)->file));
}

/* Never written: the unused end of a segment is no damage worth naming. */
static bool sector_is_empty(const uint8_t *sector)
{
    return sector[0] == 0 && memcmp(sector, sector + 1, LOG_SECTOR_BYTES - 1) == 0;
}

/* One block behind the end. True when it proves rot. */
static bool log_scan_evidence(struct log *log, const uint8_t *data)
{
    struct log_scan *scan = &log->scan;
    uint32_t file = log_scan_file(log)->file;
    uint32_t first = (uint32_t)(scan->at / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < LOG_BLOCK_SECTORS; i++) {
        struct log_sector s;
        if (!log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, file, first + i, &s)) {
            if (!sector_is_empty(data + i * LOG_SECTOR_BYTES)) {
                log_scan_bad(scan, file, (uint64_t)(first + i) * LOG_SECTOR_BYTES);
            }
            continue;
        }
        scan->highest = s.sequence > scan->highest ? s.sequence : scan->highest;
        if (s.synced > log->sequence) {
            return true;
        }
    }
    scan->at += LOG_BLOCK_BYTES;
    return false;
}

/* ---- advance ---- */

enum log_scan_turn { LOG_SCAN_AGAIN, LOG_SCAN_WAIT, LOG_SCAN_OVER };

static enum log_scan_turn log_scan_evidence_turn(struct log *log, uint64_t now_ns, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    if (log_scan_file(log) == NULL) {
        log_scan_finish(log, now_ns, fx);
        return LOG_SCAN_OVER;
    }
    if (log_scan_left(log) == 0) {
        log_scan_seek(scan, LOG_SCAN_EVIDENCE, scan->file + 1, 0);
        return LOG_SCAN_AGAIN;
    }
    const uint8_t *data = log_scan_need(log, LOG_BLOCK_BYTES, fx);
    if (data == NULL) {
        return LOG_SCAN_WAIT;
    }
    if (log_scan_evidence(log, data)) {
        log_scan_rot(log, fx);
        return LOG_SCAN_OVER;
    }
    return LOG_SCAN_AGAIN;
}

/* Nothing whole that continues the chain begins here: the next segment is asked once, then the evidence. What is torn
 * here may be a write that was cut before the log went on in the next segment; had it been synced, what stands there
 * would name it as its predecessor. */
static enum log_scan_turn log_scan_leave(struct log *log)
{
    struct log_scan *scan = &log->scan;
    if (scan->mode == LOG_SCAN_WALK && scan->started && scan->file + 1 < scan->live_count) {
        log_scan_stop(scan, scan->file, scan->at);
        log_scan_seek(scan, LOG_SCAN_NEXT, scan->file + 1, 0);
    } else {
        if (scan->mode == LOG_SCAN_WALK) {
            log_scan_stop(scan, scan->file, scan->at);
        }
        log_scan_seek(scan, LOG_SCAN_EVIDENCE, scan->stop_file, scan->stop_at);
    }
    return LOG_SCAN_AGAIN;
}

/* Looks at the next block of the file for its segment; then all files are put in order. */
static enum log_scan_turn log_scan_probe_turn(struct log *log, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    if (log_scan_file(log) == NULL) {
        log_probe_order(scan);
        log_scan_seek(scan, LOG_SCAN_WALK, 0, 0);
        return LOG_SCAN_AGAIN;
    }
    if (log_scan_left(log) == 0) {
        log_scan_seek(scan, LOG_SCAN_PROBE, scan->file + 1, 0);
        return LOG_SCAN_AGAIN;
    }
    const uint8_t *data = log_scan_need(log, LOG_BLOCK_BYTES, fx);
    if (data == NULL) {
        return LOG_SCAN_WAIT;
    }
    if (log_probe_block(log, data)) {
        log_scan_seek(scan, LOG_SCAN_PROBE, scan->file + 1, 0);
    } else {
        scan->at += LOG_BLOCK_BYTES;
    }
    return LOG_SCAN_AGAIN;
}

static enum log_scan_turn log_scan_walk_turn(struct log *log, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    if (scan->file >= scan->live_count || log_scan_left(log) == 0) {
        return log_scan_leave(log);
    }
    const uint8_t *data = log_scan_need(log, LOG_BLOCK_BYTES, fx);
    if (data == NULL) {
        return LOG_SCAN_WAIT;
    }
    uint64_t sequence = 0;
    uint32_t sectors = log_scan_begins(log, data, &sequence);
    if (sectors == 0) {
        return log_scan_leave(log);
    }
    data = log_scan_need(log, (uint64_t)sectors * LOG_SECTOR_BYTES, fx);
    if (data == NULL) {
        return LOG_SCAN_WAIT;
    }
    uint32_t bad = 0;
    if (!log_scan_whole(log, data, sectors, sequence, &bad)) {
        log_scan_name(log, data, bad);
        log_scan_bad(scan, log_scan_file(log)->file, scan->at + (uint64_t)bad * LOG_SECTOR_BYTES);
        return log_scan_leave(log);
    }
    if (!log_scan_take(log, data, sectors, sequence)) {
        log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: the write at offset %llu holds a record that does not check",
                 log_scan_file(log)->file, (unsigned long long)scan->at);
        return LOG_SCAN_OVER;
    }
    scan->mode = LOG_SCAN_WALK;
    scan->bad = scan->suspect = false; /* what was damaged before was cut long ago */
    return LOG_SCAN_AGAIN;
}

static void log_scan_advance(struct log *log, uint64_t now_ns, struct effects *fx)
{
    enum log_scan_turn turn = LOG_SCAN_AGAIN;
    while (turn == LOG_SCAN_AGAIN) {
        switch (log->scan.mode) {
        case LOG_SCAN_PROBE:
            turn = log_scan_probe_turn(log, fx);
            break;
        case LOG_SCAN_WALK:
        case LOG_SCAN_NEXT:
            turn = log_scan_walk_turn(log, fx);
            break;
        case LOG_SCAN_EVIDENCE:
            turn = log_scan_evidence_turn(log, now_ns, fx);
            break;
        }
    }
}

void log_scan_start(struct log *log, uint64_t now_ns, struct effects *fx)
{
    CHECK(log->state == LOG_IDLE);
    log->state = LOG_SCANNING;
    log_scan_advance(log, now_ns, fx);
}

void log_scan_done(struct log *log, const struct event *event, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    CHECK(log->state == LOG_SCANNING);
    const struct log_segment *file = log_scan_file(log);
    if (event->disk.err != ERR_OK || event->disk.data.bytes == 0 || event->disk.data.bytes % LOG_BLOCK_BYTES != 0) {
        enum err err = event->disk.err != ERR_OK ? event->disk.err : ERR_IO;
        log_halt(log, fx, err, "log/%08x.log: cannot read at offset %llu: %s", file->file,
                 (unsigned long long)(scan->buffer_at + scan->buffer.bytes), err_text(err));
        return;
    }
    writer_put(&scan->buffer, event->disk.data.data, event->disk.data.bytes);
    log_scan_advance(log, event->now_ns, fx);
}
