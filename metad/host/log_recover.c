/* The scan at start. Follows the chain of writes (each names its predecessor) from the first segment on, checks every
 * sector, and rebuilds the index (log_replay.c). Damage does not end the chain (R-E1): where no whole write begins, the
 * rest of the file and the next segment are looked through for what goes on behind the gap. A damaged write is read for
 * what is left of it; whether it was synced, its successor says (R-E2).
 *
 * The last write, damaged, is doubtful. If its names can be read it stays, and its damaged entries are holes in doubt.
 * If not, and every bad sector holds something older, it is a write that was cut short: nothing of it counts, and the
 * next write begins there, under a sequence that was never used. Otherwise all groups are unsure.
 *
 * At the end everything that is no part of the chain is looked through for a sector that says more was synced: then
 * whole segments are gone, and the node halts.
 *
 * What was found is synced before anybody is told: bytes read back may still be in a cache only. */
#include <stdlib.h>

#include "log_internal.h"

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

/* Asks for what comes behind the buffer, as far as it is not asked for yet. Two reads are out where all of a file is
 * looked at: a step's reads leave when it ends, so with one the disk would wait for the step and the step for the disk.
 */
static void log_scan_read(struct log *log, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    const struct log_segment *file = log_scan_file(log);
    bool probe = scan->mode == LOG_SCAN_PROBE;
    uint64_t most = probe ? LOG_PROBE_BYTES : LOG_READ_BYTES, from = scan->buffer_at + scan->buffer.bytes;
    for (uint32_t i = 0; i < (probe ? 1 : LOG_SCAN_READS) && from < file->bytes; i++) {
        uint32_t slot = (scan->read_next + i) % LOG_SCAN_READS;
        struct log_scan_read *read = &scan->reads[slot];
        if (read->bytes == 0) {
            read->bytes = file->bytes - from < most ? file->bytes - from : most;
            fx_disk_read(fx, log_token_make(LOG_TOKEN_SCAN, scan->read_number * LOG_SCAN_READS + slot),
                         log_file(file->file), from, read->bytes);
        }
        from += read->bytes;
    }
}

/* What is out does not count any more. */
static void log_scan_forget(struct log_scan *scan)
{
    for (uint32_t i = 0; i < LOG_SCAN_READS; i++) {
        slice_drop(&scan->reads[i].data);
        scan->reads[i] = (struct log_scan_read){0};
    }
    scan->read_number++;
}

void log_scan_deinit(struct log *log)
{
    log_scan_forget(&log->scan);
    writer_deinit(&log->scan.buffer);
    slice_drop(&log->scan.pending.data);
    free(log->scan.files);
}

/* Goes to another place; what is buffered is forgotten, and what is being read, too. */
static void log_scan_seek(struct log_scan *scan, enum log_scan_mode mode, uint32_t file, uint64_t at)
{
    uint64_t end = scan->buffer_at + scan->buffer.bytes;
    bool there = file == scan->file && at >= scan->buffer_at && at <= end;
    scan->mode = mode;
    scan->file = file;
    scan->at = at;
    if (!there) {
        scan->buffer_at = at;
        scan->buffer.bytes = 0;
        log_scan_forget(scan);
    }
}

/* The next `bytes` bytes of the file, or NULL when the disk has to give more. */
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
    log_scan_read(log, fx);
    return NULL;
}

/* ---- writes ---- */

/* The newest write, newer than *ret, that begins at `data` and continues the chain: one that was cut short and cut away
 * has the next one at its place. False: none is seen to. */
static bool log_scan_begins(const struct log *log, const uint8_t *data, uint32_t sectors, struct log_write *ret)
{
    const struct log_scan *scan = &log->scan;
    uint32_t first = (uint32_t)(scan->at / LOG_SECTOR_BYTES);
    bool found = false;
    for (uint32_t i = 0; i < sectors; i++) {
        const uint8_t *sector = data + (uint64_t)i * LOG_SECTOR_BYTES;
        struct log_sector s;
        if (log_sector_sequence(sector) > ret->sequence &&
            log_sector_decode(sector, &log->directory, log_scan_file(log)->file, first + i, &s) &&
            s.segment == log_scan_file(log)->number && s.first == first &&
            (!scan->started || s.previous == log->sequence) && s.sectors <= log_scan_left(log) / LOG_SECTOR_BYTES) {
            *ret = (struct log_write){s.sequence, s.previous, s.synced, s.first, s.sectors, s.old};
            found = true;
        }
    }
    return found;
}

/* The write is part of the chain. */
static void log_scan_passed(struct log *log, const struct log_write *w)
{
    struct log_scan *scan = &log->scan;
    const struct log_segment *file = log_scan_file(log);
    if (log->segment_count == 0 || log_current(log)->number != file->number) {
        log_segment_add(log, *file);
    }
    scan->started = true;
    log->previous = log->sequence;
    log->sequence = w->sequence;
    log->highest = w->sequence > log->highest ? w->sequence : log->highest;
    log->unmarked = true;
    scan->at += (uint64_t)w->sectors * LOG_SECTOR_BYTES;
    log->position = scan->at;
    log_touches_shift(log);
}

/* Keeps a damaged write until the next one has named what it changed. */
static void log_scan_keep(struct log *log, const struct log_write *w, struct slice data, bool older)
{
    log->scan.pending = (struct log_pending){.waits = true,
                                             .sequence = w->sequence,
                                             .before = log->sequence,
                                             .synced = w->synced,
                                             .data = data,
                                             .first = w->first,
                                             .sectors = w->sectors,
                                             .segment = log_scan_file(log)->number,
                                             .older = older,
                                             .sequence_back = log->sequence,
                                             .previous_back = log->previous,
                                             .position_back = log->position,
                                             .segment_count_back = log->segment_count,
                                             .last_segment_back = log->last_segment};
}

/* Takes in the write at the cursor, whole or damaged. False: halted. */
static bool log_scan_take(struct log *log, const struct log_write *w, const uint8_t *data, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    const struct log_segment *segment = log_scan_file(log);
    bool waited = scan->pending.waits;
    uint64_t before = log->sequence;
    struct slice copy = slice_copy(data, (uint64_t)w->sectors * LOG_SECTOR_BYTES);
    bool older = false;
    uint32_t bad = log_write_sift(log, w, segment, copy.data, &older);
    log_replay_settle(log, w->synced);
    if (bad == 0 && !waited) {
        bool good = log_replay_whole(log, w, segment, copy.data);
        slice_drop(&copy);
        if (!good) {
            log_halt(log, fx, ERR_CORRUPT, "log/%08x.log: the write at offset %llu holds a record that does not check",
                     segment->file, (unsigned long long)scan->at);
            return false;
        }
    } else if (log_replay_damaged(log, w, segment, copy.data, bad)) {
        slice_drop(&scan->pending.data);
        slice_drop(&copy);
        scan->fresh_older = (bad == 0 || older) && (!waited || scan->pending.older);
        if (bad == 0) { /* what is missing was in the one before */
            scan->fresh = before;
            log_replay_settle(log, w->synced);
        }
    } else {
        slice_drop(&scan->pending.data);
        log_scan_keep(log, w, copy, older);
    }
    unsigned long count = log->segment_count;
    log_scan_passed(log, w);
    if (log->segment_count > count) {
        log->segments[count].headless = bad > 0 || w->first > 0;
    }
    scan->tail_damaged = bad > 0;
    scan->tail_synced = before;
    return true;
}

/* ---- behind a gap ---- */

/* One block: a later sector of the write that begins at ahead_from, or one of a write behind it. True: found. */
static bool log_scan_ahead(struct log *log, const uint8_t *data)
{
    struct log_scan *scan = &log->scan;
    const struct log_segment *segment = log_scan_file(log);
    uint32_t number = (uint32_t)(scan->at / LOG_SECTOR_BYTES), from = (uint32_t)(scan->ahead_from / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < LOG_BLOCK_SECTORS; i++) {
        struct log_sector s;
        if (!log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, segment->file, number + i, &s) ||
            s.segment != segment->number || s.first < from || s.sequence <= log->sequence ||
            s.sequence <= scan->ahead.sequence || s.sectors > segment->bytes / LOG_SECTOR_BYTES - s.first) {
            continue;
        }
        scan->ahead = (struct log_write){s.sequence, s.previous, s.synced, s.first, s.sectors, s.old};
        bool begins_here = s.first == from && (s.previous == log->sequence || !scan->started);
        if (!begins_here) {
            return true;
        }
    }
    scan->at += LOG_BLOCK_BYTES;
    uint64_t end = ((uint64_t)scan->ahead.first + scan->ahead.sectors) * LOG_SECTOR_BYTES;
    return scan->ahead.sequence != 0 && scan->at >= end;
}

/* Writes are lost between the chain and the one found. */
static void log_scan_gap(struct log *log)
{
    struct log_scan *scan = &log->scan;
    if (scan->pending.waits) {
        log_replay_unsure(log);
        slice_drop(&scan->pending.data);
    }
    scan->damaged = true;
    scan->pending = (struct log_pending){
        .waits = true, .lost = true, .sequence = scan->ahead.previous, .before = log->sequence, .older = false};
    log->previous = log->sequence;
    log->sequence = scan->ahead.previous;
    log->highest = log->sequence > log->highest ? log->sequence : log->highest;
}

/* ---- the end of the chain ---- */

/* The last write is damaged and there is no next one to name what it held. */
static void log_scan_tail(struct log *log)
{
    struct log_pending *pending = &log->scan.pending;
    if (!pending->waits) {
        return;
    }
    pending->waits = false;
    slice_drop(&pending->data);
    if (!pending->older) {
        log_replay_unsure(log);
        return;
    }
    log->scan.highest = log->sequence > log->scan.highest ? log->sequence : log->scan.highest;
    log->sequence = pending->sequence_back;
    log->previous = pending->previous_back;
    log->position = pending->position_back;
    log->segment_count = pending->segment_count_back;
    log->last_segment = pending->last_segment_back;
    log->scan.tail_damaged = false;
}

static void log_scan_rot(struct log *log, struct effects *fx)
{
    const struct log_scan *scan = &log->scan;
    log_halt(log, fx, ERR_CORRUPT,
             "log/%08x.log: more was synced than is found behind offset %llu: segments are gone; set the directory "
             "aside and rejoin",
             scan->files[scan->stop_file].segment.file, (unsigned long long)scan->stop_at);
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

/* The first write behind a start names everything: what the last one before changed may have been read in part. */
static void log_scan_touch_all(struct log *log)
{
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        struct log_group *group = &log->groups[i];
        group->now = (struct log_touch){0};
        group->before = (struct log_touch){.touched = group->known, .from = group->base + 1};
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
    log_scan_forget(scan); /* nothing is awaited any more */
    log_replay_settle(log, 0);
    writer_deinit(&scan->buffer);
    log_scan_bases(log);
    log_scan_touch_all(log);
    log_scan_spare(log, fx);
    if (log->segment_count == 0) {
        log_ready(log, now_ns, fx);
        return;
    }
    log->state = LOG_SYNCING;
    fx_disk_sync(fx, log_token_make(LOG_TOKEN_BOOT_SYNC, 0), log_file(log_current(log)->file));
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

/* No write that continues the chain begins here: the rest of the file is looked through, then the next segment. */
static enum log_scan_turn log_scan_leave(struct log *log)
{
    struct log_scan *scan = &log->scan;
    if (!scan->ahead_next) {
        scan->stop_file = scan->file;
        scan->stop_at = scan->at;
    }
    scan->ahead = (struct log_write){0};
    scan->ahead_from = scan->at;
    if (scan->file >= scan->live_count) {
        log_scan_tail(log);
        log_scan_seek(scan, LOG_SCAN_EVIDENCE, scan->stop_file, scan->stop_at);
    } else {
        log_scan_seek(scan, LOG_SCAN_AHEAD, scan->file, scan->at);
    }
    return LOG_SCAN_AGAIN;
}

static enum log_scan_turn log_scan_ahead_turn(struct log *log, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    bool found = false;
    while (!found && log_scan_left(log) > 0) {
        const uint8_t *data = log_scan_need(log, LOG_BLOCK_BYTES, fx);
        if (data == NULL) {
            return LOG_SCAN_WAIT;
        }
        found = log_scan_ahead(log, data);
    }
    if (scan->ahead.sequence != 0) {
        bool begins = scan->ahead.first == scan->ahead_from / LOG_SECTOR_BYTES &&
                      (scan->ahead.previous == log->sequence || !scan->started);
        if (!begins) {
            log_scan_gap(log);
        }
        scan->ahead_next = false;
        log_scan_seek(scan, LOG_SCAN_WALK, scan->file, (uint64_t)scan->ahead.first * LOG_SECTOR_BYTES);
    } else if (!scan->ahead_next && scan->file + 1 < scan->live_count) {
        scan->ahead_next = true; /* what is torn here may have been cut before the log went on there */
        log_scan_seek(scan, LOG_SCAN_WALK, scan->file + 1, 0);
    } else {
        log_scan_tail(log);
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
    struct log_write w = scan->ahead;
    if (w.sequence == 0) {
        const uint8_t *block = log_scan_need(log, LOG_BLOCK_BYTES, fx);
        if (block == NULL) {
            return LOG_SCAN_WAIT;
        }
        if (!log_scan_begins(log, block, LOG_BLOCK_SECTORS, &w)) {
            return log_scan_leave(log);
        }
    }
    const uint8_t *data = NULL;
    do {
        data = log_scan_need(log, (uint64_t)w.sectors * LOG_SECTOR_BYTES, fx);
        if (data == NULL) {
            return LOG_SCAN_WAIT;
        }
    } while (log_scan_begins(log, data, w.sectors, &w));
    scan->ahead = (struct log_write){0};
    scan->ahead_next = false;
    return log_scan_take(log, &w, data, fx) ? LOG_SCAN_AGAIN : LOG_SCAN_OVER;
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
            turn = log_scan_walk_turn(log, fx);
            break;
        case LOG_SCAN_AHEAD:
            turn = log_scan_ahead_turn(log, fx);
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

void log_scan_done(struct log *log, uint32_t number, const struct event *event, struct effects *fx)
{
    struct log_scan *scan = &log->scan;
    if (number / LOG_SCAN_READS != scan->read_number) {
        return; /* read ahead, and the scan went elsewhere */
    }
    struct log_scan_read *read = &scan->reads[number % LOG_SCAN_READS];
    CHECK(log->state == LOG_SCANNING && read->bytes > 0 && read->data.data == NULL);
    if (event->disk.err != ERR_OK || event->disk.data.bytes != read->bytes) {
        enum err err = event->disk.err != ERR_OK ? event->disk.err : ERR_IO;
        log_halt(log, fx, err, "log/%08x.log: cannot read at offset %llu: %s", log_scan_file(log)->file,
                 (unsigned long long)(scan->buffer_at + scan->buffer.bytes), err_text(err));
        return;
    }
    read->data = slice_ref(event->disk.data);
    for (read = &scan->reads[scan->read_next]; read->data.data != NULL; read = &scan->reads[scan->read_next]) {
        writer_put(&scan->buffer, read->data.data, read->data.bytes);
        slice_drop(&read->data);
        *read = (struct log_scan_read){0};
        scan->read_next = (scan->read_next + 1) % LOG_SCAN_READS;
    }
    if (scan->mode != LOG_SCAN_PROBE) {
        log_scan_read(log, fx);
    }
    log_scan_advance(log, event->now_ns, fx);
}
