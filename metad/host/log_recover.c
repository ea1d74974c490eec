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
}

/* ---- the file being read ---- */

static const struct file_info *log_scan_file(const struct log *log)
{
    return log->scan.file < log->file_count ? &log->files[log->scan.file] : NULL;
}

static uint64_t log_scan_file_bytes(const struct log *log)
{
    return log_scan_file(log)->bytes / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
}

static uint64_t log_scan_left(const struct log *log)
{
    return log_scan_file_bytes(log) - log->scan.at;
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
    uint64_t from = scan->buffer_at + have, left = log_scan_file_bytes(log) - from;
    fx_disk_read(fx, log_token_make(LOG_TOKEN_SCAN, 0), log_scan_file(log)->file, from,
                 left < LOG_READ_BYTES ? left : LOG_READ_BYTES);
    return NULL;
}

/* ---- records ---- */

static bool log_scan_entry(struct log *log, const struct log_record *record, uint32_t segment, uint64_t offset)
{
    struct log_group *group = &log->groups[record->group];
    bool sound = record->index >= 1 && record->index <= group->last + 1 && record->term > 0 &&
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

/* The groups at a segment's start must stand as the scan found them. */
static bool log_scan_segment(const struct log *log, const uint8_t *body, uint32_t bytes)
{
    struct reader r = reader_of(body, bytes);
    uint32_t count = reader_u32(&r), known = 0;
    for (uint32_t i = 0; i < count && !r.failed; i++) {
        uint32_t number = reader_u32(&r);
        uint64_t term = reader_u64(&r);
        uint32_t vote = reader_u32(&r);
        uint64_t last = reader_u64(&r), last_term = reader_u64(&r);
        if (number >= LIMIT_GROUPS) {
            return false;
        }
        const struct log_group *group = &log->groups[number];
        if (group->term != term || group->vote != vote || group->last != last ||
            log_group_term(group, last) != last_term) {
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
    uint8_t *body = record.type == LOG_RECORD_SEGMENT ? mem_alloc(record.bytes) : NULL;
    uint32_t crc = 0;
    bool good = log_cursor_read(c, body, record.bytes, &crc) && crc == record.body_crc;
    if (good && record.type == LOG_RECORD_ENTRY) {
        good = log_scan_entry(log, &record, segment, offset);
    } else if (good && record.type == LOG_RECORD_HARD_STATE) {
        good = log_scan_hard(log, &record);
    } else if (good) {
        good = record.type == LOG_RECORD_SEGMENT && log_scan_segment(log, body, record.bytes);
    }
    free(body);
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
        if (log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, log_scan_file(log)->file.number, first + i,
                              &s) &&
            s.first == first && s.previous == log->sequence && s.sectors <= log_scan_left(log) / LOG_SECTOR_BYTES) {
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
        if (!log_sector_decode(data + (uint64_t)i * LOG_SECTOR_BYTES, &log->directory, log_scan_file(log)->file.number,
                               first + i, &s) ||
            s.sequence != sequence || s.first != first || s.sectors != sectors) {
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
    uint32_t segment = log_scan_file(log)->file.number;
    struct log_cursor c;
    log_cursor_init(&c, data, sectors, &log->directory, segment, (uint32_t)(scan->at / LOG_SECTOR_BYTES), 0, 0);
    bool records = false;
    while (!log_cursor_end(&c)) {
        if (!log_scan_record(log, &c, segment)) {
            return false;
        }
        records = true;
    }
    log->sequence = sequence;
    log->highest = sequence > log->highest ? sequence : log->highest;
    log->unmarked = records;
    log->segment = segment;
    log->bytes = log_scan_file_bytes(log);
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
    log_cursor_init(&c, data, good, &log->directory, log_scan_file(log)->file.number,
                    (uint32_t)(scan->at / LOG_SECTOR_BYTES), 0, 0);
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
    uint32_t segment = scan->bad ? scan->bad_segment : log->files[scan->stop_file].file.number;
    unsigned long long offset = scan->bad ? scan->bad_at : scan->stop_at;
    if (scan->named) {
        log_halt(log, fx, ERR_CORRUPT,
                 "log/%08x.log: acknowledged bytes are damaged at offset %llu, %s group %u index %llu", segment, offset,
                 scan->suspect ? "in" : "after", scan->last_group, (unsigned long long)scan->last_index);
    } else {
        log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: acknowledged bytes are damaged at offset %llu", segment, offset);
    }
}

static void log_scan_finish(struct log *log, uint64_t now_ns, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    log->highest = scan->highest > log->highest ? scan->highest : log->highest;
    writer_deinit(&scan->buffer);
    if (log->segment == 0) {
        log->segment = log->file_count > 0 ? log->files[0].file.number - 1 : 0;
        log_ready(log, now_ns, fx);
        return;
    }
    log->state = LOG_SYNCING;
    fx_disk_sync(fx, log_token_make(LOG_TOKEN_BOOT_SYNC, 0), log_file(log->segment));
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
    uint32_t segment = log_scan_file(log)->file.number;
    uint32_t first = (uint32_t)(scan->at / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < LOG_BLOCK_SECTORS; i++) {
        struct log_sector s;
        if (!log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, segment, first + i, &s)) {
            if (!sector_is_empty(data + i * LOG_SECTOR_BYTES)) {
                log_scan_bad(scan, segment, (uint64_t)(first + i) * LOG_SECTOR_BYTES);
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
    if (scan->mode == LOG_SCAN_WALK && scan->file + 1 < log->file_count) {
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

static enum log_scan_turn log_scan_walk_turn(struct log *log, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    if (log_scan_file(log) == NULL || log_scan_left(log) == 0) {
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
        log_scan_bad(scan, log_scan_file(log)->file.number, scan->at + (uint64_t)bad * LOG_SECTOR_BYTES);
        return log_scan_leave(log);
    }
    if (!log_scan_take(log, data, sectors, sequence)) {
        log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: the write at offset %llu holds a record that does not check",
                 log_scan_file(log)->file.number, (unsigned long long)scan->at);
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
        turn =
            log->scan.mode == LOG_SCAN_EVIDENCE ? log_scan_evidence_turn(log, now_ns, fx) : log_scan_walk_turn(log, fx);
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
    const struct file_info *file = log_scan_file(log);
    if (event->disk.err != ERR_OK || event->disk.data.bytes == 0 || event->disk.data.bytes % LOG_BLOCK_BYTES != 0) {
        enum err err = event->disk.err != ERR_OK ? event->disk.err : ERR_IO;
        log_halt(log, fx, err, "log/%08x.log: cannot read at offset %llu: %s", file->file.number,
                 (unsigned long long)(scan->buffer_at + scan->buffer.bytes), err_text(err));
        return;
    }
    writer_put(&scan->buffer, event->disk.data.data, event->disk.data.bytes);
    log_scan_advance(log, event->now_ns, fx);
}
