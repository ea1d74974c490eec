/* What a write says, taken into the groups by the scan at start. A write all of whose sectors are there is replayed
 * record by record, as it was laid out. Of a damaged one the names come first: its own NAMES record, or that of the
 * next write, says which entries (index, term), votes and bases stood behind it. An entry whose bytes cannot be read is
 * then a hole under its name, which the group fills from another member (R-E1, R-E2); what is left of the records is
 * put in its place.
 *
 * One damaged sector never takes a name: it holds NAMES or records, never both. Where both are gone and the next
 * write's as well, every group is unsure until the next segment begins with the names of all. */
#include <stdlib.h>

#include "base/hash.h"
#include "log_internal.h"

void log_touches_shift(struct log *log)
{
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        struct log_group *group = &log->groups[i];
        group->before = group->now;
        group->now = (struct log_touch){0};
    }
}

void log_replay_unsure(struct log *log)
{
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        log->groups[i].unsure = true;
    }
}

void log_replay_settle(struct log *log, uint64_t synced)
{
    struct log_scan *scan = &log->scan;
    if (scan->fresh == 0) {
        return;
    }
    uint32_t doubt = scan->fresh_older ? LOG_HOLE_TORN : LOG_HOLE_DOUBT;
    uint32_t hole = synced >= scan->fresh ? LOG_HOLE_ROT : doubt;
    scan->fresh = 0;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        struct log_group *group = &log->groups[i];
        for (uint64_t n = group->base + 1; n <= group->last; n++) {
            struct log_place place = log_group_place(group, n);
            if (log_place_is_hole(place) && place.offset == LOG_HOLE_FRESH) {
                place.offset = hole;
                log_group_place_set(group, n, place);
            }
        }
    }
}

/* ---- names ---- */

/* One group of a SEGMENT or a NAMES record. `from`: entries below it are as they were (SEGMENT: base + 1). */
struct log_stand {
    uint32_t number, vote, run_count;
    uint64_t term, base, base_term, from, last;
    struct reader runs;
};

static bool log_stand_read(struct reader *r, bool names, struct log_stand *ret)
{
    ret->number = reader_u32(r);
    ret->term = reader_u64(r);
    ret->vote = reader_u32(r);
    ret->base = reader_u64(r);
    ret->base_term = reader_u64(r);
    ret->from = names ? reader_u64(r) : ret->base + 1;
    ret->last = reader_u64(r);
    ret->run_count = reader_u32(r);
    ret->runs = *r;
    return reader_take(r, (size_t)ret->run_count * 16) != NULL && ret->number < LIMIT_GROUPS &&
           ret->last >= ret->base && ret->from > ret->base && (ret->run_count > 0) == (ret->last >= ret->from);
}

/* Names entry `index` what the record says; one of that name keeps its place, others and those behind go. */
static void log_stand_name(struct log_group *group, uint64_t index, uint64_t term, struct log_place place)
{
    if (index <= group->last && log_group_term(group, index) == term) {
        return;
    }
    if (index <= group->last) {
        log_group_truncate(group, index - 1);
    }
    log_group_put(group, index, term, place);
}

/* Makes the group what the record says; `place` is that of entries not known before. False: it does not fit. */
static bool log_stand_apply(struct log_group *group, struct log_stand *stand, struct log_place place)
{
    group->known = true;
    group->term = stand->term;
    group->vote = stand->vote;
    if (stand->base > group->base) {
        bool holds = stand->base <= group->last && log_group_term(group, stand->base) == stand->base_term;
        if (holds) {
            log_group_cut(group, stand->base);
        } else {
            log_group_reset(group, stand->base, stand->base_term);
        }
    }
    uint64_t index = stand->from;
    if (index > group->last + 1 || (stand->run_count > 0 && reader_u64(&stand->runs) != index)) {
        return false;
    }
    for (uint32_t i = 0; i < stand->run_count; i++) {
        uint64_t term = reader_u64(&stand->runs);
        uint64_t end = i + 1 < stand->run_count ? reader_u64(&stand->runs) : stand->last + 1;
        if (term == 0 || end <= index || end > stand->last + 1) {
            return false;
        }
        for (; index < end; index++) {
            if (index > group->base) {
                log_stand_name(group, index, term, place);
            }
        }
    }
    if (group->last > stand->last) {
        log_group_truncate(group, stand->last);
    }
    return true;
}

/* The group is as the scan found it, but for entries that were given up since: at either end. */
static bool log_stand_check(struct log_group *group, struct log_stand *stand)
{
    if (group->term != stand->term || group->vote != stand->vote || group->last < stand->last ||
        group->base > stand->base || log_group_term(group, stand->base) != stand->base_term) {
        return false;
    }
    if (group->last > stand->last) {
        log_group_truncate(group, stand->last);
    }
    if (stand->base > group->base) {
        log_group_cut(group, stand->base);
    }
    bool same = true;
    for (uint32_t i = 0; i < stand->run_count && same; i++) {
        uint64_t first = reader_u64(&stand->runs), term = reader_u64(&stand->runs);
        same = first > group->base && first <= group->last && log_group_term(group, first) == term;
    }
    return same;
}

/* The names of the entries at a segment's start. At the first segment there is, those behind base are known by name
 * only: what is not found later is in segments that were given up. */
static bool log_replay_segment(struct log *log, struct reader r, uint32_t segment)
{
    struct log_scan *scan = &log->scan;
    uint32_t count = reader_u32(&r), known = 0;
    bool listed[LIMIT_GROUPS] = {0};
    for (uint32_t i = 0; i < count; i++) {
        struct log_stand stand;
        if (!log_stand_read(&r, false, &stand)) {
            return false;
        }
        struct log_group *group = &log->groups[stand.number];
        struct log_place place = {0};
        if (scan->started) {
            place = (struct log_place){.segment = segment, .offset = LOG_HOLE_ROT, .bytes = LOG_HOLE_BYTES};
        } else if (!listed[stand.number]) {
            log_group_reset(group, stand.base, stand.base_term);
        }
        listed[stand.number] = true;
        bool apply = !scan->started || scan->damaged;
        group->unsure = false;
        if (!(apply ? log_stand_apply(group, &stand, place) : log_stand_check(group, &stand))) {
            return false;
        }
    }
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        log->groups[i].unsure = false;
        known += log->groups[i].known;
    }
    return !r.failed && r.left == 0 && (count == known || scan->damaged);
}

/* Holes left by names that a damaged write, or the one before it, held. */
static bool log_replay_names(struct log *log, struct reader r, bool apply, uint32_t segment)
{
    (void)reader_u64(&r);
    uint32_t count = reader_u32(&r);
    struct log_place hole = {.segment = segment, .offset = LOG_HOLE_FRESH, .bytes = LOG_HOLE_BYTES};
    for (uint32_t i = 0; i < count; i++) {
        struct log_stand stand;
        if (!log_stand_read(&r, true, &stand)) {
            return false;
        }
        struct log_group *group = &log->groups[stand.number];
        if (group->unsure) {
            group->term = stand.term > group->term ? stand.term : group->term;
            continue;
        }
        bool fits = apply ? log_stand_apply(group, &stand, hole) : log_stand_check(group, &stand);
        if (!fits && !log->scan.damaged) {
            return false;
        }
        group->unsure = !fits;
        log_group_touch(group, stand.from <= stand.last ? stand.from : UINT64_MAX);
    }
    return !r.failed && r.left == 0;
}

/* ---- records in order ---- */

static bool log_replay_entry(struct log *log, const struct log_record *record, struct log_place place)
{
    struct log_group *group = &log->groups[record->group];
    bool sound = record->index > group->base && record->index <= group->last + 1 && record->term > 0 &&
                 record->previous_index == record->index - 1 && record->bytes <= LIMIT_ENTRY_BYTES &&
                 record->previous_term == log_group_term(group, record->index - 1) &&
                 record->term >= record->previous_term;
    if (sound) {
        log_group_put(group, record->index, record->term, place);
    }
    return sound;
}

static bool log_replay_hard(struct log *log, const struct log_record *record)
{
    struct log_group *group = &log->groups[record->group];
    if (record->term < group->term || record->bytes != 0) {
        return false;
    }
    group->known = true;
    group->term = record->term;
    group->vote = record->vote;
    log_group_touch(group, UINT64_MAX);
    return true;
}

static bool log_replay_reset(struct log *log, const struct log_record *record)
{
    if (record->bytes != 0) {
        return false;
    }
    log_group_reset(&log->groups[record->group], record->index, record->term);
    return true;
}

static bool log_replay_peers(struct log *log, uint32_t number, struct reader body)
{
    struct log_group *group = &log->groups[number];
    return log_peers_read(&body, group->peers, &group->peer_count) && body.left == 0;
}

/* Puts an entry into the place of its name, where only the name is known. */
static void log_replay_fill(struct log *log, const struct log_record *record, struct slice body, struct log_place place)
{
    struct log_group *group = &log->groups[record->group];
    bool named = record->index > group->base && record->index <= group->last &&
                 log_group_term(group, record->index) == record->term;
    struct log_place known = named ? log_group_place(group, record->index) : (struct log_place){0};
    if (!named || (!log_place_is_hole(known) && known.segment != 0)) {
        return;
    }
    log_group_place_set(group, record->index, place);
    if (record->entry == RAFT_ENTRY_CONFIG) {
        log_group_config_insert(group, record->index, body);
    }
}

/* One record read from the sectors of a write. */
struct log_found_record {
    struct log_record record;
    struct slice body; /* of types that need it */
    struct log_place place;
    bool whole; /* the body is there and checks */
};

static bool log_record_keeps_body(const struct log_record *record)
{
    bool entry = record->type == LOG_RECORD_ENTRY || record->type == LOG_RECORD_HEALED;
    return record->type == LOG_RECORD_SEGMENT || record->type == LOG_RECORD_NAMES || record->type == LOG_RECORD_PEERS ||
           (entry && record->entry == RAFT_ENTRY_CONFIG);
}

/* Reads the record at the cursor. False when its header does not check. The caller drops the body. */
static bool log_found_read(struct log_cursor *c, uint32_t segment, struct log_found_record *ret)
{
    uint64_t offset = log_cursor_offset(c);
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    struct log_record record;
    if (!log_cursor_read(c, header, sizeof header, NULL) || !log_record_decode(header, &record) ||
        record.group >= LIMIT_GROUPS || record.bytes > c->count * LOG_PAYLOAD_BYTES) {
        return false;
    }
    struct slice body = log_record_keeps_body(&record) ? slice_alloc(record.bytes) : (struct slice){0};
    uint32_t crc = 0;
    bool whole = log_cursor_read(c, body.data, record.bytes, &crc) && crc == record.body_crc;
    *ret = (struct log_found_record){
        .record = record,
        .body = body,
        .place = {.segment = segment, .offset = (uint32_t)offset, .bytes = record.bytes},
        .whole = whole,
    };
    return true;
}

static bool log_replay_record(struct log *log, const struct log_found_record *found, uint32_t segment)
{
    const struct log_record *record = &found->record;
    struct reader body = reader_of(found->body.data, found->body.bytes);
    bool good = false;
    switch ((enum log_record_type)record->type) {
    case LOG_RECORD_ENTRY:
        good = log_replay_entry(log, record, found->place);
        if (good && record->entry == RAFT_ENTRY_CONFIG) {
            log_group_config(&log->groups[record->group], record->index, found->body);
        }
        break;
    case LOG_RECORD_HARD_STATE:
        good = log_replay_hard(log, record);
        break;
    case LOG_RECORD_RESET:
        good = log_replay_reset(log, record);
        break;
    case LOG_RECORD_SEGMENT:
        good = log_replay_segment(log, body, segment);
        break;
    case LOG_RECORD_NAMES:
        good = log_replay_names(log, body, false, segment);
        break;
    case LOG_RECORD_PEERS:
        good = log_replay_peers(log, record->group, body);
        break;
    case LOG_RECORD_HEALED:
        log_replay_fill(log, record, found->body, found->place);
        good = true;
        break;
    }
    return good;
}

bool log_replay_whole(struct log *log, const struct log_write *w, const struct log_segment *segment,
                      const uint8_t *data)
{
    struct log_where where = log_where(log, segment);
    struct log_cursor c;
    log_cursor_init_checked(&c, data, w->sectors, &where, w->first);
    while (!log_cursor_end(&c)) {
        struct log_found_record found;
        if (!log_found_read(&c, segment->number, &found)) {
            return false;
        }
        bool unsure = log->groups[found.record.group].unsure && found.record.type != LOG_RECORD_SEGMENT &&
                      found.record.type != LOG_RECORD_NAMES;
        bool good = found.whole && (unsure || log_replay_record(log, &found, segment->number));
        slice_drop(&found.body);
        if (!good) {
            return false;
        }
    }
    return !c.failed;
}

/* ---- damaged writes ---- */

/* Never written: the unused end of a segment. */
static bool sector_is_empty(const uint8_t *sector)
{
    return sector[0] == 0 && memcmp(sector, sector + 1, LOG_SECTOR_BYTES - 1) == 0;
}

uint32_t log_write_sift(const struct log *log, const struct log_write *w, const struct log_segment *segment,
                        uint8_t *data, bool *ret_older)
{
    uint32_t bad = 0;
    bool older = true;
    for (uint32_t i = 0; i < w->sectors; i++) {
        uint8_t *sector = data + (uint64_t)i * LOG_SECTOR_BYTES;
        struct log_sector s = {0};
        bool decodes = log_sector_decode(sector, &log->directory, segment->file, w->first + i, &s);
        if (decodes && s.segment == segment->number && s.sequence == w->sequence && s.first == w->first &&
            s.sectors == w->sectors) {
            continue;
        }
        bad++;
        older = older && (decodes ? s.sequence < w->sequence : sector_is_empty(sector));
        memset(sector, 0, LOG_SECTOR_BYTES);
    }
    *ret_older = older;
    return bad;
}

/* Goes on at the next sector in which a record begins, behind the one that failed. */
static bool log_cursor_resync(struct log_cursor *c, const struct log_where *where)
{
    for (uint32_t at = c->at + 1; at < c->count; at++) {
        struct log_sector s;
        if (log_sector_decode(c->sectors + (uint64_t)at * LOG_SECTOR_BYTES, &where->directory, where->file,
                              c->first + at, &s) &&
            s.record != LOG_NO_RECORD) {
            log_cursor_init(c, c->sectors, c->count, where, c->first, at, s.record);
            return true;
        }
    }
    return false;
}

/* The next record of a damaged write that is whole; false: there is none. */
static bool log_found_next(struct log_cursor *c, const struct log_where *where, struct log_found_record *ret)
{
    for (;;) {
        if (log_cursor_end(c)) {
            if (!c->failed || !log_cursor_resync(c, where)) {
                return false;
            }
            continue;
        }
        bool read = log_found_read(c, where->segment, ret);
        if (read && ret->whole) {
            return true;
        }
        if (read) {
            slice_drop(&ret->body);
        }
        if (!log_cursor_resync(c, where)) {
            return false;
        }
    }
}

struct log_part { /* what is left of a write */
    const uint8_t *data;
    uint32_t first, sectors;
    struct log_where where;
};

/* The first whole record of a type; the caller drops the body. */
static bool log_part_find(const struct log_part *part, enum log_record_type type, struct slice *ret_body)
{
    struct log_cursor c;
    struct log_found_record found;
    log_cursor_init(&c, part->data, part->sectors, &part->where, part->first, 0, 0);
    while (log_found_next(&c, &part->where, &found)) {
        if (found.record.type == type) {
            *ret_body = found.body;
            return true;
        }
        slice_drop(&found.body);
    }
    return false;
}

/* Puts the entries that are left into the places of their names. */
static void log_part_fill(struct log *log, const struct log_part *part)
{
    struct log_cursor c;
    struct log_found_record found;
    log_cursor_init(&c, part->data, part->sectors, &part->where, part->first, 0, 0);
    while (log_found_next(&c, &part->where, &found)) {
        if (found.record.type == LOG_RECORD_ENTRY || found.record.type == LOG_RECORD_HEALED) {
            log_replay_fill(log, &found.record, found.body, found.place);
        } else if (found.record.type == LOG_RECORD_PEERS) {
            (void)!log_replay_peers(log, found.record.group, reader_of(found.body.data, found.body.bytes));
        }
        slice_drop(&found.body);
    }
}

/* All records are there: what is missing is NAMES. One that does not fit what is known makes its group unsure. */
static void log_part_replay(struct log *log, const struct log_part *part)
{
    struct log_cursor c;
    struct log_found_record found;
    log_cursor_init(&c, part->data, part->sectors, &part->where, part->first, 0, 0);
    while (log_found_next(&c, &part->where, &found)) {
        struct log_group *group = &log->groups[found.record.group];
        bool record = found.record.type != LOG_RECORD_SEGMENT && found.record.type != LOG_RECORD_NAMES;
        if (record && !group->unsure && !log_replay_record(log, &found, part->where.segment)) {
            group->unsure = true;
        }
        slice_drop(&found.body);
    }
}

/* Whether these names tell what the write that waits for them changed. */
static bool log_pending_is_named(const struct log_pending *pending, const struct log_write *w, struct slice names)
{
    return w->previous == pending->sequence && names.bytes >= 8 && get_u64(names.data) == pending->before;
}

static void log_pending_fill(struct log *log)
{
    struct log_pending *pending = &log->scan.pending;
    for (unsigned long i = 0; i < log->scan.live_count && !pending->lost; i++) {
        const struct log_segment *segment = &log->scan.files[i].segment;
        if (segment->number == pending->segment) {
            struct log_part part = {pending->data.data, pending->first, pending->sectors, log_where(log, segment)};
            log_part_fill(log, &part);
        }
    }
}

bool log_replay_damaged(struct log *log, const struct log_write *w, const struct log_segment *segment,
                        const uint8_t *data, uint32_t bad)
{
    struct log_scan *scan = &log->scan;
    struct log_part part = {data, w->first, w->sectors, log_where(log, segment)};
    struct slice names = {0}, stands = {0};
    scan->damaged = true;
    bool all = log_part_find(&part, LOG_RECORD_SEGMENT, &stands) &&
               log_replay_segment(log, reader_of(stands.data, stands.bytes), segment->number);
    bool named = log_part_find(&part, LOG_RECORD_NAMES, &names);
    bool told = !scan->pending.waits || (named && log_pending_is_named(&scan->pending, w, names));
    if (!all && (!told || !scan->started)) {
        log_replay_unsure(log);
    }
    if (named && !log_replay_names(log, reader_of(names.data, names.bytes), true, segment->number)) {
        log_replay_unsure(log);
    }
    if (scan->pending.waits && (all || named)) {
        log_pending_fill(log);
    }
    slice_drop(&names);
    slice_drop(&stands);
    scan->pending.waits = false;
    if (named) {
        log_part_fill(log, &part);
    } else if (bad == 0 || (bad == 1 && !w->old)) {
        log_part_replay(log, &part);
    } else {
        return false;
    }
    scan->fresh = w->sequence;
    return true;
}
