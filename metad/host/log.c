/* The log actor: takes appends of all groups, writes what waits as one batch, makes it durable by one fdatasync,
 * answers. Byte map: log_format.h. Rules: README.md of this folder.
 *
 * Happy path: LOG_APPEND joins the queue -> no write under way: a batch takes the queue (up to about 1 MiB), is laid
 * out as records in sectors, DISK_WRITE -> DISK_SYNC -> one reply an append. What arrives meanwhile is the next batch.
 * Segments are allocated one ahead. When nothing waits for 100 ms an empty block is written that says what is synced.
 *
 * Failure: a failed write or fsync halts the node; an fsync is never retried, because the kernel may have dropped the
 * pages. A full disk halts it only when the segments at hand cannot take the next batch, before that is written. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "log_internal.h"
#include "proto/message.h"

struct log *log_create(const struct log_params *params)
{
    CHECK(params->segment_bytes >= 16 * LOG_BLOCK_BYTES && params->segment_bytes % LOG_BLOCK_BYTES == 0);
    struct log *log = mem_alloc(sizeof *log);
    log->directory = params->directory;
    log->segment_bytes = params->segment_bytes;
    log->scan.file_count = params->file_count;
    log->scan.files = mem_alloc(params->file_count * sizeof *log->scan.files);
    for (uint32_t i = 0; i < params->file_count; i++) {
        const struct file_info *info = &params->files[i];
        CHECK(info->file.number > log->last_file);
        log->scan.files[i].segment.file = log->last_file = info->file.number;
        log->scan.files[i].segment.bytes = info->bytes / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
    }
    return log;
}

static void log_append_free(struct log_append *append)
{
    for (uint32_t i = 0; i < append->count; i++) {
        slice_drop(&append->entries[i].data);
    }
    free(append->entries);
    append->entries = NULL;
    append->count = 0;
}

static void log_appends_clear(struct log_appends *list)
{
    for (unsigned long i = 0; i < list->count; i++) {
        log_append_free(&list->items[i]);
    }
    list->count = 0;
}

void log_destroy(struct log *log)
{
    if (log == NULL) {
        return;
    }
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        log_group_deinit(&log->groups[i]);
    }
    log_appends_clear(&log->queue);
    log_appends_clear(&log->flight);
    free(log->queue.items);
    free(log->flight.items);
    log_scan_deinit(log);
    log_read_deinit(log);
    free(log->opens);
    free(log->segments);
    free(log);
}

struct log_status log_status(const struct log *log)
{
    struct log_status status = log->status;
    const struct log_segment *current = log_current(log);
    status.append_position = current != NULL ? (uint64_t)current->number << 32 | log->position : 0;
    status.segments = (uint32_t)log->segment_count;
    return status;
}

void log_halt(struct log *log, struct effects *fx, enum err err, const char *format, ...)
{
    char reason[160];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    log->state = LOG_HALTED;
    fx_halt(fx, err, "%s", reason);
}

/* ---- batches ---- */

static uint64_t log_segment_record_bytes(const struct log *log)
{
    uint64_t bytes = LOG_RECORD_HEADER_BYTES + 4;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        bytes += log->groups[i].known ? LOG_SEGMENT_GROUP_BYTES + log->groups[i].run_count * 16 : 0;
    }
    return bytes;
}

/* PEERS of groups that have news, or (a segment begins) of all. */
static uint64_t log_peers_bound(const struct log *log)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        if (log->groups[i].peer_count > 0 || log->groups[i].peers_due) {
            bytes += LOG_RECORD_HEADER_BYTES + 4 + (uint64_t)log->groups[i].peer_count * LOG_PEER_BYTES;
        }
    }
    return bytes;
}

static void log_peers_write(struct log *log, struct log_builder *b, bool all)
{
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        struct log_group *group = &log->groups[i];
        if (!group->peers_due && !(all && group->peer_count > 0)) {
            continue;
        }
        struct writer w = {0};
        log_peers_put(group->peers, group->peer_count, &w);
        struct log_record record = {.type = LOG_RECORD_PEERS, .group = i};
        log_builder_put(b, &record, w.data, (uint32_t)w.bytes);
        writer_deinit(&w);
        group->peers_due = false;
    }
}

/* A size that surely holds the NAMES of a batch that takes `count` from the queue. */
static uint64_t log_names_bound(const struct log *log, unsigned long count)
{
    bool changes[LIMIT_GROUPS] = {0};
    uint64_t bytes = LOG_RECORD_HEADER_BYTES + LOG_NAMES_BYTES;
    for (unsigned long i = 0; i < count; i++) {
        changes[log->queue.items[i].group] = true;
        bytes += (uint64_t)log->queue.items[i].count * 16;
    }
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        if (changes[i] || log->groups[i].before.touched) {
            bytes += LOG_NAMES_GROUP_BYTES + (log->groups[i].run_count + 1) * 16;
        }
    }
    return bytes;
}

/* How many appends the next batch takes, and a size that surely holds them with a segment's first records and NAMES. */
static unsigned long log_batch_choose(const struct log *log, uint64_t *ret_bound)
{
    uint64_t bytes = 2 * log_segment_record_bytes(log);
    unsigned long count = 0;
    while (count < log->queue.count && (count == 0 || bytes + log->queue.items[count].bytes <= LOG_BATCH_BYTES)) {
        bytes += log->queue.items[count].bytes;
        count++;
    }
    *ret_bound = log_blocks_bound(bytes + log_names_bound(log, count) + log_peers_bound(log), 4);
    return count;
}

/* All groups as they stand before this segment, so that older ones can be given up; twice, in two sectors (R-E1). */
static void log_segment_put(const struct log *log, struct log_builder *b)
{
    struct writer w = {0};
    writer_u32(&w, 0);
    uint32_t count = 0;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        const struct log_group *group = &log->groups[i];
        if (group->known) {
            writer_u32(&w, i);
            writer_u64(&w, group->term);
            writer_u32(&w, group->vote);
            writer_u64(&w, group->base);
            writer_u64(&w, group->base_term);
            writer_u64(&w, group->last);
            log_runs_put(group, &w);
            count++;
        }
    }
    put_u32(w.data, count);
    struct log_record record = {.type = LOG_RECORD_SEGMENT};
    log_builder_put(b, &record, w.data, (uint32_t)w.bytes);
    log_builder_break(b);
    log_builder_put(b, &record, w.data, (uint32_t)w.bytes);
    writer_deinit(&w);
}

/* u32 run count and the runs from `from` on. */
static void log_names_runs_put(const struct log_group *group, uint64_t from, struct writer *w)
{
    uint64_t count_at = w->bytes;
    uint32_t count = 0;
    writer_u32(w, 0);
    for (unsigned long i = 0; i < group->run_count; i++) {
        uint64_t end = i + 1 < group->run_count ? group->runs[i + 1].first : group->last + 1;
        if (end > from) {
            writer_u64(w, group->runs[i].first > from ? group->runs[i].first : from);
            writer_u64(w, group->runs[i].term);
            count++;
        }
    }
    put_u32(w->data + count_at, count);
}

/* What this write and the one before it changed, in sectors of its own: a damaged one loses no name (R-E1). */
static void log_names_put(const struct log *log, struct log_builder *b)
{
    struct writer w = {0};
    uint32_t count = 0;
    writer_u64(&w, log->previous);
    writer_u32(&w, 0);
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        const struct log_group *group = &log->groups[i];
        if (!group->now.touched && !group->before.touched) {
            continue;
        }
        uint64_t now = group->now.touched ? group->now.from : UINT64_MAX;
        uint64_t before = group->before.touched ? group->before.from : UINT64_MAX;
        uint64_t from = now < before ? now : before;
        from = from > group->last ? group->last + 1 : from > group->base ? from : group->base + 1;
        writer_u32(&w, i);
        writer_u64(&w, group->term);
        writer_u32(&w, group->vote);
        writer_u64(&w, group->base);
        writer_u64(&w, group->base_term);
        writer_u64(&w, from);
        writer_u64(&w, group->last);
        log_names_runs_put(group, from, &w);
        count++;
    }
    put_u32(w.data + 8, count);
    struct log_record record = {.type = LOG_RECORD_NAMES};
    log_builder_break(b);
    log_builder_put(b, &record, w.data, (uint32_t)w.bytes);
    writer_deinit(&w);
}

static void log_hard_put(const struct log *log, struct log_builder *b, uint32_t number)
{
    const struct log_group *group = &log->groups[number];
    struct log_record record = {.type = LOG_RECORD_HARD_STATE,
                                .group = number,
                                .term = group->term,
                                .vote = group->vote,
                                .previous_index = group->last,
                                .previous_term = log_group_term(group, group->last)};
    log_builder_put(b, &record, NULL, 0);
}

static void log_reset_put(struct log *log, struct log_builder *b, const struct log_append *append)
{
    struct log_record record = {
        .type = LOG_RECORD_RESET, .group = append->group, .index = append->index, .term = append->index_term};
    log_builder_put(b, &record, NULL, 0);
    log_group_reset(&log->groups[append->group], append->index, append->index_term);
    log->release_due = true;
}

static struct log_place log_entry_put(struct log *log, struct log_builder *b, enum log_record_type type,
                                      uint32_t number, const struct raft_entry *entry)
{
    struct log_record record = {.type = (uint8_t)type,
                                .entry = entry->type,
                                .group = number,
                                .index = entry->index,
                                .term = entry->term,
                                .previous_index = entry->index - 1,
                                .previous_term = log_group_term(&log->groups[number], entry->index - 1)};
    uint32_t offset = log_builder_put(b, &record, entry->data.data, entry->data.bytes);
    log->status.records++;
    return (struct log_place){.segment = log_current(log)->number, .offset = offset, .bytes = entry->data.bytes};
}

/* The name is the log's and its bytes are damaged. */
static bool log_group_lacks(const struct log_group *group, const struct raft_entry *entry)
{
    return entry->index > group->base && entry->index <= group->last &&
           log_group_term(group, entry->index) == entry->term &&
           log_place_is_hole(log_group_place(group, entry->index));
}

/* A damaged entry is written anew; what stands behind it stays (R-E1). */
static void log_heal_put(struct log *log, struct log_builder *b, struct log_append *append)
{
    if (log_group_lacks(&log->groups[append->group], &append->entries[0])) {
        append->healed = log_entry_put(log, b, LOG_RECORD_HEALED, append->group, &append->entries[0]);
    }
}

static void log_append_put(struct log *log, struct log_builder *b, struct log_append *append)
{
    struct log_group *group = &log->groups[append->group];
    if (append->kind == LOG_RESETS) {
        log_reset_put(log, b, append);
        return;
    }
    if (append->kind == LOG_HEALS) {
        log_heal_put(log, b, append);
        return;
    }
    if (append->kind == LOG_TRIMS) {
        log_group_truncate(group, append->index - 1); /* the names behind this batch say so */
        return;
    }
    if (append->hard_changed) {
        CHECK(append->term >= group->term);
        group->known = true;
        group->term = append->term;
        group->vote = append->vote;
        log_group_touch(group, UINT64_MAX);
        log_hard_put(log, b, append->group);
    }
    for (uint32_t i = 0; i < append->count; i++) {
        const struct raft_entry *entry = &append->entries[i];
        CHECK(entry->index > group->base && entry->index <= group->last + 1);
        struct log_place place = log_entry_put(log, b, LOG_RECORD_ENTRY, append->group, entry);
        log_group_put(group, entry->index, entry->term, place);
        if (entry->type == RAFT_ENTRY_CONFIG) {
            log_group_config(group, entry->index, entry->data);
        }
    }
}

static void log_batch_write(struct log *log, struct log_builder *b, struct effects *fx)
{
    uint64_t previous = log->sequence;
    log->highest++;
    log->previous = previous;
    log->sequence = log->highest;
    CHECK(log->sequence > previous && log->synced <= previous); /* below: that write is doubtful (R-E2) */
    const struct log_segment *current = log_current(log);
    struct log_where where = log_where(log, current);
    struct slice data = log_builder_finish(b, &where, log->sequence, previous, log->synced);
    CHECK(log->position + data.bytes <= current->bytes);
    fx_disk_write(fx, log_token_make(LOG_TOKEN_WRITE, 0), log_file(current->file), log->position, data);
    log->position += data.bytes;
    log->status.bytes += data.bytes;
    log->writing = true;
}

/* Moves the first `count` appends from the queue into the batch. */
static void log_batch_take(struct log *log, unsigned long count)
{
    CHECK(log->flight.count == 0 && count <= log->queue.count);
    struct log_append *items = mem_grow(log->flight.items, &log->flight.capacity, count, sizeof *items);
    log->flight.items = items;
    if (count > 0) {
        memcpy(items, log->queue.items, count * sizeof *items);
        memmove(log->queue.items, log->queue.items + count, (log->queue.count - count) * sizeof *items);
    }
    log->flight.count = count;
    log->queue.count -= count;
}

/* Writes what waits, unless a write is under way. `mark`: an empty block will do. */
static void log_batch_start(struct log *log, bool mark, struct effects *fx)
{
    if (log->state != LOG_OPEN || log->writing || (log->queue.count == 0 && !mark && !log->peers_now)) {
        return;
    }
    uint64_t bound = 0;
    unsigned long count = log_batch_choose(log, &bound);
    if (!log_room_get(log, bound, fx)) {
        return;
    }
    log_batch_take(log, count);
    struct log_builder b;
    log_builder_init(&b, bound, (uint32_t)log->position);
    if (log->position == 0) {
        log_segment_put(log, &b);
    }
    log_peers_write(log, &b, log->position == 0);
    log->peers_now = false;
    for (unsigned long i = 0; i < count; i++) {
        log_append_put(log, &b, &log->flight.items[i]);
    }
    log_names_put(log, &b);
    log_touches_shift(log);
    log->unmarked = count > 0;
    log_batch_write(log, &b, fx);
}

/* A healed entry can be read once it is durable. */
static void log_heal_synced(struct log *log, const struct log_append *append)
{
    struct log_group *group = &log->groups[append->group];
    if (append->kind == LOG_HEALS && append->healed.segment != 0 && log_group_lacks(group, &append->entries[0])) {
        log_group_place_set(group, append->entries[0].index, append->healed);
        if (append->entries[0].type == RAFT_ENTRY_CONFIG) {
            log_group_config_insert(group, append->entries[0].index, append->entries[0].data);
        }
        log->status.healed++;
    }
}

static void log_batch_synced(struct log *log, uint64_t now_ns, struct effects *fx)
{
    log->writing = false;
    log->synced = log->sequence;
    log->status.syncs++;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        log->groups[i].readable = log->groups[i].last;
    }
    for (unsigned long i = 0; i < log->flight.count; i++) {
        const struct log_append *append = &log->flight.items[i];
        log_heal_synced(log, append);
        if (append->kind == LOG_TRIMS) {
            continue;
        }
        uint8_t number[16];
        put_u64(number, append->number);
        put_u64(number + 8, log->synced);
        fx_answer(fx, append->from, append->type, append->stream, MESSAGE_REPLY,
                  slice_copy(number, append->kind == LOG_APPENDS ? 16 : 8), (struct slice){0});
    }
    log_appends_clear(&log->flight);
    log_release(log, fx);
    if (log->queue.count == 0 && log->unmarked) {
        fx_timer(fx, LOG_TIMER_MARK, now_ns + LOG_MARK_IDLE_NS);
    }
}

/* ---- messages ---- */

static void log_on_open(struct log *log, const struct message *m, struct effects *fx)
{
    CHECK(m->header.bytes == 4 && get_u32(m->header.data) < LIMIT_GROUPS);
    uint32_t group = get_u32(m->header.data);
    if (log->state == LOG_OPEN) {
        fx_reply(fx, m, log_group_opened(&log->groups[group], log->opened_position), (struct slice){0});
        return;
    }
    log->opens = mem_grow(log->opens, &log->open_capacity, log->open_count + 1, sizeof *log->opens);
    log->opens[log->open_count++] = (struct log_open){.from = m->from, .stream = m->stream, .group = group};
}

static void log_enqueue(struct log *log, struct log_append append)
{
    log->queue.items = mem_grow(log->queue.items, &log->queue.capacity, log->queue.count + 1, sizeof append);
    log->queue.items[log->queue.count++] = append;
}

static void log_on_append(struct log *log, const struct message *m)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    struct log_append append = {.from = m->from, .stream = m->stream, .type = m->type};
    append.group = reader_u32(&r);
    append.number = reader_u64(&r);
    append.hard_changed = reader_u8(&r) != 0;
    append.term = reader_u64(&r);
    append.vote = reader_u32(&r);
    CHECK(!r.failed && r.left == 0 && append.group < LIMIT_GROUPS);
    CHECK(log->state == LOG_OPEN); /* a group appends after its LOG_OPEN was answered */
    enum err err = raft_entries_decode(m->body, &append.entries, &append.count);
    CHECK(err == ERR_OK);
    append.bytes = append.hard_changed ? 2 * LOG_RECORD_HEADER_BYTES : 0;
    struct log_group *group = &log->groups[append.group];
    for (uint32_t i = 0; i < append.count; i++) {
        const struct raft_entry *entry = &append.entries[i];
        CHECK(entry->index >= 1 && entry->term > 0);
        CHECK(i == 0 ? entry->index <= group->accepted + 1 : entry->index == entry[-1].index + 1);
        group->accepted = entry->index;
        append.bytes += LOG_RECORD_HEADER_BYTES + (uint64_t)entry->data.bytes;
    }
    log_enqueue(log, append);
}

static void log_on_reset(struct log *log, const struct message *m)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    struct log_append append = {.from = m->from, .stream = m->stream, .type = m->type, .kind = LOG_RESETS};
    append.group = reader_u32(&r);
    append.number = reader_u64(&r);
    append.index = reader_u64(&r);
    append.index_term = reader_u64(&r);
    CHECK(!r.failed && r.left == 0 && append.group < LIMIT_GROUPS && log->state == LOG_OPEN);
    append.bytes = LOG_RECORD_HEADER_BYTES;
    log->groups[append.group].accepted = append.index;
    log_enqueue(log, append);
}

static void log_on_heal(struct log *log, const struct message *m)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    struct log_append append = {.from = m->from, .stream = m->stream, .type = m->type, .kind = LOG_HEALS};
    append.group = reader_u32(&r);
    append.number = reader_u64(&r);
    CHECK(!r.failed && r.left == 0 && append.group < LIMIT_GROUPS && log->state == LOG_OPEN);
    enum err err = raft_entries_decode(m->body, &append.entries, &append.count);
    CHECK(err == ERR_OK && append.count == 1);
    append.bytes = LOG_RECORD_HEADER_BYTES + (uint64_t)append.entries[0].data.bytes;
    log_enqueue(log, append);
}

static void log_on_trim(struct log *log, const struct message *m)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    struct log_append append = {.from = m->from, .stream = m->stream, .type = m->type, .kind = LOG_TRIMS};
    append.group = reader_u32(&r);
    append.index = reader_u64(&r);
    CHECK(!r.failed && r.left == 0 && append.group < LIMIT_GROUPS && log->state == LOG_OPEN);
    CHECK(append.index > log->groups[append.group].base && append.index <= log->groups[append.group].accepted);
    log->groups[append.group].accepted = append.index - 1;
    log_enqueue(log, append);
}

/* The next write says them; `now`: it is not waited for. */
static void log_on_peers(struct log *log, const struct message *m)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    uint32_t number = reader_u32(&r);
    bool now = reader_u8(&r) != 0;
    CHECK(!r.failed && number < LIMIT_GROUPS && log->state == LOG_OPEN);
    struct log_group *group = &log->groups[number];
    bool read = log_peers_read(&r, group->peers, &group->peer_count);
    CHECK(read && r.left == 0);
    group->peers_due = true;
    log->peers_now |= now;
}

/* What a group gives up is durable elsewhere; that it did need not be. */
static void log_on_cut(struct log *log, const struct message *m, struct effects *fx)
{
    struct reader r = reader_of(m->header.data, m->header.bytes);
    uint32_t number = reader_u32(&r);
    uint64_t index = reader_u64(&r), term = reader_u64(&r);
    CHECK(!r.failed && r.left == 0 && number < LIMIT_GROUPS && log->state == LOG_OPEN);
    struct log_group *group = &log->groups[number];
    if (index <= group->base || index > group->readable) {
        return; /* given up before, or its reset is under way */
    }
    CHECK(log_group_term(group, index) == term);
    log_group_cut(group, index);
    log->release_due = true;
    log_release(log, fx);
}

void log_ready(struct log *log, uint64_t now_ns, struct effects *fx)
{
    CHECK(log->state == LOG_SCANNING || log->state == LOG_SYNCING);
    log->state = LOG_OPEN;
    log->opened_position = log->sequence;
    log->synced = log->scan.tail_damaged ? log->scan.tail_synced : log->sequence;
    for (uint32_t i = 0; i < LIMIT_GROUPS; i++) {
        log->groups[i].readable = log->groups[i].accepted = log->groups[i].last;
    }
    log_next_allocate(log, log->segment_bytes, fx);
    for (unsigned long i = 0; i < log->open_count; i++) {
        const struct log_open *open = &log->opens[i];
        fx_answer(fx, open->from, MESSAGE_LOG_OPEN, open->stream, MESSAGE_REPLY,
                  log_group_opened(&log->groups[open->group], log->opened_position), (struct slice){0});
    }
    log->open_count = 0;
    if (log->unmarked) {
        fx_timer(fx, LOG_TIMER_MARK, now_ns + LOG_MARK_IDLE_NS);
    }
}

/* ---- dispatch ---- */

static void log_on_disk(struct log *log, const struct event *event, struct effects *fx)
{
    enum err err = event->disk.err;
    switch ((enum log_token)(event->disk.token >> 56)) {
    case LOG_TOKEN_WRITE:
        if (err != ERR_OK) {
            log_halt(log, fx, err, "log/%08x.log: write failed: %s", log_current(log)->file, err_text(err));
            break;
        }
        fx_disk_sync(fx, log_token_make(LOG_TOKEN_SYNC, 0), log_file(log_current(log)->file));
        break;
    case LOG_TOKEN_SYNC:
    case LOG_TOKEN_BOOT_SYNC:
        if (err != ERR_OK) {
            log_halt(log, fx, err, "log/%08x.log: fsync failed, not retried: %s", log_current(log)->file,
                     err_text(err));
        } else if (log->state == LOG_SYNCING) {
            log_ready(log, event->now_ns, fx);
        } else {
            log_batch_synced(log, event->now_ns, fx);
        }
        break;
    case LOG_TOKEN_ALLOC:
        log_alloc_done(log, event, fx);
        break;
    case LOG_TOKEN_SCAN:
        log_scan_done(log, (uint32_t)event->disk.token, event, fx);
        break;
    case LOG_TOKEN_READ:
        log_read_done(log, event, fx);
        log_release(log, fx);
        break;
    case LOG_TOKEN_REMOVE:
        if (err != ERR_OK) {
            log_halt(log, fx, err, "log/%08x.log: cannot be removed: %s", (uint32_t)event->disk.token, err_text(err));
        }
        break;
    }
}

static void log_on_timer(struct log *log, const struct event *event, struct effects *fx)
{
    uint64_t id = event->timer.id;
    if (id == LOG_TIMER_BOOT && log->state == LOG_IDLE) {
        log_scan_start(log, event->now_ns, fx);
    } else if (id == LOG_TIMER_MARK) {
        log_batch_start(log, log->unmarked, fx);
    } else if (id == LOG_TIMER_ALLOC && log->next == LOG_NEXT_FAILED) {
        log->next = LOG_NEXT_NONE;
        log_next_allocate(log, log->next_segment.bytes, fx);
    }
}

static void log_on_message(struct log *log, const struct message *m, struct effects *fx)
{
    if (m->flags & MESSAGE_REPLY) {
        return;
    }
    switch (m->type) {
    case MESSAGE_LOG_OPEN:
        log_on_open(log, m, fx);
        break;
    case MESSAGE_LOG_APPEND:
        log_on_append(log, m);
        break;
    case MESSAGE_LOG_RESET:
        log_on_reset(log, m);
        break;
    case MESSAGE_LOG_CUT:
        log_on_cut(log, m, fx);
        break;
    case MESSAGE_LOG_HEAL:
        log_on_heal(log, m);
        break;
    case MESSAGE_LOG_TRIM:
        log_on_trim(log, m);
        break;
    case MESSAGE_LOG_PEERS:
        log_on_peers(log, m);
        break;
    case MESSAGE_LOG_READ:
    case MESSAGE_LOG_FETCH:
        log_read_start(log, m, fx);
        break;
    default:
        break;
    }
}

void log_step(void *actor, const struct event *event, struct effects *fx)
{
    struct log *log = actor;
    if (log->state == LOG_HALTED) {
        return;
    }
    switch (event->kind) {
    case EVENT_MESSAGE:
        log_on_message(log, &event->message, fx);
        break;
    case EVENT_TIMER:
        log_on_timer(log, event, fx);
        break;
    case EVENT_DISK_DONE:
        log_on_disk(log, event, fx);
        break;
    default:
        break;
    }
    if (!event->more) { /* appends that came together are written together */
        log_batch_start(log, false, fx);
    }
    CHECK(log->synced <= log->sequence && log->sequence <= log->highest);
}
