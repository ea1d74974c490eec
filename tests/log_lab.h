/* The node's log over a disk in memory. Effects wait until lab_run carries them out; writes or syncs can be held back,
 * and the bytes of the disk changed, between a stop and a start. */
#ifndef CAIRN_TESTS_LOG_LAB_H
#define CAIRN_TESTS_LOG_LAB_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "metad/host/log.h"
#include "metad/host/log_format.h"
#include "proto/message.h"

#define FILES         128
#define SEGMENT_BYTES (128u << 10)

/* ---- a disk and a log upon it ---- */

struct reply {
    uint16_t type;
    uint64_t stream;
    struct slice header, body;
};
struct lab {
    struct uuid directory;
    uint32_t segment_bytes;
    uint8_t *files[FILES]; /* [n] is segment n + 1 */
    uint64_t bytes[FILES];
    struct log *log;
    struct effects fx;
    struct effect *waiting; /* effects not carried out */
    unsigned long waiting_count, waiting_capacity;
    struct reply *replies;
    unsigned long reply_count, reply_capacity;
    uint32_t pinned; /* groups told, as bits */
    uint64_t pinned_to;
    uint64_t rotten; /* index of the last entry of which a read said so */
    bool more;       /* what it is told is not the last of what has come */
    bool halted;
    enum err halt_err;
    char halt_reason[160];
    bool no_writes, no_syncs, full, read_fails, sync_fails, write_fails, scan_done;
    uint64_t now, stream, mark_at, syncs, writes, reads, removed;
    uint64_t last_write_file, last_write_at, last_write_bytes;
};

static inline void lab_step(struct lab *lab, struct event event)
{
    event.now_ns = lab->now += 1000;
    event.more = lab->more;
    log_step(lab->log, &event, &lab->fx);
    for (unsigned long i = 0; i < lab->fx.count; i++) {
        lab->waiting = mem_grow(lab->waiting, &lab->waiting_capacity, lab->waiting_count + 1, sizeof *lab->waiting);
        lab->waiting[lab->waiting_count++] = lab->fx.items[i];
    }
    lab->fx.count = 0;
}

static inline void lab_disk_done(struct lab *lab, const struct effect *e, enum err err, struct slice data)
{
    struct event event = {.kind = EVENT_DISK_DONE};
    event.disk.token = e->disk.token;
    event.disk.err = err;
    event.disk.data = data;
    lab_step(lab, event);
}

static inline void lab_alloc(struct lab *lab, struct effect *e)
{
    uint32_t at = e->disk.file.number - 1;
    assert_true(at < FILES);
    if (!lab->full && e->disk.bytes > lab->bytes[at]) {
        lab->files[at] = realloc(lab->files[at], e->disk.bytes);
        memset(lab->files[at] + lab->bytes[at], 0, e->disk.bytes - lab->bytes[at]);
        lab->bytes[at] = e->disk.bytes;
    }
    lab_disk_done(lab, e, lab->full ? ERR_DISK_FULL : ERR_OK, (struct slice){0});
}

static inline void lab_remove(struct lab *lab, struct effect *e)
{
    uint32_t at = e->disk.file.number - 1;
    assert_true(e->disk.bytes == UINT64_MAX && lab->files[at] != NULL);
    free(lab->files[at]);
    lab->files[at] = NULL;
    lab->bytes[at] = 0;
    lab->removed++;
    lab_disk_done(lab, e, ERR_OK, (struct slice){0});
}

static inline void lab_write(struct lab *lab, struct effect *e)
{
    uint32_t at = e->disk.file.number - 1;
    assert_true(e->disk.offset + e->disk.bytes <= lab->bytes[at]);
    memcpy(lab->files[at] + e->disk.offset, e->disk.data.data, e->disk.bytes);
    slice_drop(&e->disk.data);
    lab->last_write_file = at;
    lab->last_write_at = e->disk.offset;
    lab->last_write_bytes = e->disk.bytes;
    lab->writes++;
    lab_disk_done(lab, e, lab->write_fails ? ERR_IO : ERR_OK, (struct slice){0});
}

static inline void lab_read(struct lab *lab, struct effect *e)
{
    uint32_t at = e->disk.file.number - 1;
    lab->reads++;
    assert_true(e->disk.bytes <= 1 << 20 && e->disk.offset <= lab->bytes[at]);
    uint64_t left = lab->bytes[at] - e->disk.offset;
    struct slice data = slice_copy(lab->files[at] + e->disk.offset, left < e->disk.bytes ? left : e->disk.bytes);
    lab_disk_done(lab, e, lab->read_fails ? ERR_IO : ERR_OK, lab->read_fails ? (struct slice){0} : data);
    slice_drop(&data);
}

static inline void lab_send(struct lab *lab, struct effect *e)
{
    if (e->send.type == MESSAGE_LOG_PINNED) {
        lab->pinned |= 1u << get_u32(e->send.header.data);
        lab->pinned_to = get_u64(e->send.header.data + 4);
        slice_drop(&e->send.header);
        return;
    }
    if (e->send.type == MESSAGE_LOG_ROTTEN) {
        assert_int_equal(e->send.to.actor, ACTOR_GROUP);
        lab->rotten = get_u64(e->send.header.data + 4);
        slice_drop(&e->send.header);
        return;
    }
    assert_int_equal(e->send.flags, MESSAGE_REPLY);
    lab->replies = mem_grow(lab->replies, &lab->reply_capacity, lab->reply_count + 1, sizeof *lab->replies);
    lab->replies[lab->reply_count++] = (struct reply){e->send.type, e->send.stream, e->send.header, e->send.body};
}

/* Carries out the oldest effect that may go; false when none is left. */
static inline bool lab_run_one(struct lab *lab)
{
    for (unsigned long i = 0; i < lab->waiting_count; i++) {
        struct effect e = lab->waiting[i];
        if ((e.kind == EFFECT_DISK_WRITE && lab->no_writes) || (e.kind == EFFECT_DISK_SYNC && lab->no_syncs)) {
            continue;
        }
        lab->waiting_count--;
        memmove(&lab->waiting[i], &lab->waiting[i + 1], (lab->waiting_count - i) * sizeof e);
        switch (e.kind) {
        case EFFECT_SEND:
            lab_send(lab, &e);
            break;
        case EFFECT_TIMER:
            lab->mark_at = e.timer.id == 1 ? e.timer.deadline_ns : lab->mark_at;
            break;
        case EFFECT_DISK_WRITE:
            lab_write(lab, &e);
            break;
        case EFFECT_DISK_SYNC:
            lab->syncs++;
            lab_disk_done(lab, &e, lab->sync_fails ? ERR_IO : ERR_OK, (struct slice){0});
            break;
        case EFFECT_DISK_READ:
            lab_read(lab, &e);
            break;
        case EFFECT_DISK_ALLOC:
            lab_alloc(lab, &e);
            break;
        case EFFECT_DISK_DISCARD:
            lab_remove(lab, &e);
            break;
        case EFFECT_HALT:
            lab->halted = true;
            lab->halt_err = e.halt.err;
            memcpy(lab->halt_reason, e.halt.reason, sizeof lab->halt_reason);
            break;
        default:
            fail_msg("unexpected effect %d", e.kind);
        }
        return true;
    }
    return false;
}

static inline void lab_run(struct lab *lab)
{
    while (lab_run_one(lab)) {}
}

static inline void lab_start(struct lab *lab)
{
    struct file_info files[FILES];
    uint32_t count = 0;
    for (uint32_t i = 0; i < FILES; i++) {
        if (lab->files[i] != NULL) {
            files[count++] = (struct file_info){.file = {FILE_LOG, i + 1}, .bytes = lab->bytes[i]};
        }
    }
    struct log_params params = {
        .directory = lab->directory, .segment_bytes = lab->segment_bytes, .files = files, .file_count = count};
    lab->log = log_create(&params);
    lab->halted = false;
    lab->mark_at = 0;
    lab_step(lab, (struct event){.kind = EVENT_TIMER});
    lab_run(lab);
}

static inline void lab_forget(struct lab *lab)
{
    for (unsigned long i = 0; i < lab->waiting_count; i++) {
        struct effect *e = &lab->waiting[i];
        if (e->kind == EFFECT_DISK_WRITE) {
            slice_drop(&e->disk.data);
        } else if (e->kind == EFFECT_SEND) {
            slice_drop(&e->send.header);
            slice_drop(&e->send.body);
        }
    }
    lab->waiting_count = 0;
    for (unsigned long i = 0; i < lab->reply_count; i++) {
        slice_drop(&lab->replies[i].header);
        slice_drop(&lab->replies[i].body);
    }
    lab->reply_count = 0;
}

static inline void lab_stop(struct lab *lab)
{
    lab_forget(lab);
    log_destroy(lab->log);
    lab->log = NULL;
}

static inline void lab_restart(struct lab *lab)
{
    lab_stop(lab);
    lab->no_writes = lab->no_syncs = false;
    lab_start(lab);
}

static inline struct lab *lab_open(uint32_t segment_bytes)
{
    struct lab *lab = mem_alloc(sizeof *lab);
    memset(lab->directory.bytes, 0x5a, 16);
    lab->segment_bytes = segment_bytes;
    lab_start(lab);
    return lab;
}

static inline void lab_close(struct lab *lab)
{
    lab_stop(lab);
    for (uint32_t i = 0; i < FILES; i++) {
        free(lab->files[i]);
    }
    free(lab->waiting);
    free(lab->replies);
    effects_deinit(&lab->fx);
    free(lab);
}

/* The bytes of the disk as they are, for trying many kinds of damage on the same state. */
struct image {
    uint8_t *files[FILES];
    uint64_t bytes[FILES];
};
static inline struct image image_take(const struct lab *lab)
{
    struct image image = {0};
    for (uint32_t i = 0; i < FILES; i++) {
        image.bytes[i] = lab->bytes[i];
        image.files[i] = lab->files[i] ? malloc(lab->bytes[i]) : NULL;
        if (lab->files[i]) {
            memcpy(image.files[i], lab->files[i], lab->bytes[i]);
        }
    }
    return image;
}
static inline void image_put(struct lab *lab, const struct image *image)
{
    for (uint32_t i = 0; i < FILES; i++) {
        free(lab->files[i]);
        lab->files[i] = image->files[i] ? malloc(image->bytes[i]) : NULL;
        lab->bytes[i] = image->bytes[i];
        if (image->files[i]) {
            memcpy(lab->files[i], image->files[i], image->bytes[i]);
        }
    }
}
static inline void image_free(struct image *image)
{
    for (uint32_t i = 0; i < FILES; i++) {
        free(image->files[i]);
    }
}

/* ---- requests ---- */

static inline void lab_message(struct lab *lab, uint16_t type, struct writer *header, struct slice body)
{
    struct event event = {.kind = EVENT_MESSAGE};
    event.message.from = address_local(ACTOR_GROUP, 0);
    event.message.type = type;
    event.message.stream = ++lab->stream;
    event.message.header = writer_take(header);
    event.message.body = body;
    lab_step(lab, event);
    slice_drop(&event.message.header);
    slice_drop(&event.message.body);
    writer_deinit(header);
}

static inline uint8_t pattern(uint64_t index, uint64_t term, uint32_t at)
{
    return (uint8_t)(index * 31 + term * 7 + at * 13 + (at >> 8));
}

static inline struct raft_entry entry_make(uint64_t index, uint64_t term, uint32_t bytes)
{
    struct raft_entry entry = {.index = index, .term = term, .type = RAFT_ENTRY_COMMANDS, .data = slice_alloc(bytes)};
    for (uint32_t i = 0; i < bytes; i++) {
        entry.data.data[i] = pattern(index, term, i);
    }
    return entry;
}

/* Appends `count` entries of `bytes` from `first` on; term_hard != 0: a hard state with it. Does not run the disk. */
static inline void lab_append(struct lab *lab, uint32_t group, uint64_t first, uint64_t term, uint32_t count,
                              uint32_t bytes, uint64_t term_hard, uint32_t vote)
{
    struct raft_entry *entries = mem_alloc((count + 1) * sizeof *entries);
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = entry_make(first + i, term, bytes);
    }
    struct slice body;
    raft_entries_encode(entries, count, &body);
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, first + count); /* any number: it is echoed */
    writer_u8(&w, term_hard != 0);
    writer_u64(&w, term_hard);
    writer_u32(&w, vote);
    lab_message(lab, MESSAGE_LOG_APPEND, &w, body);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

static inline void lab_cut(struct lab *lab, uint32_t group, uint64_t index, uint64_t term)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, index);
    writer_u64(&w, term);
    lab_message(lab, MESSAGE_LOG_CUT, &w, (struct slice){0});
}

static inline void lab_reset(struct lab *lab, uint32_t group, uint64_t number, uint64_t index, uint64_t term)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, number);
    writer_u64(&w, index);
    writer_u64(&w, term);
    lab_message(lab, MESSAGE_LOG_RESET, &w, (struct slice){0});
}

static inline struct reply *lab_reply(struct lab *lab, uint64_t stream)
{
    for (unsigned long i = 0; i < lab->reply_count; i++) {
        if (lab->replies[i].stream == stream) {
            return &lab->replies[i];
        }
    }
    return NULL;
}

struct opened {
    uint64_t term, last, last_term, base, base_term;
    uint32_t vote, runs, configs, holes, doubts;
    uint64_t position;
    struct log_peer peers[RAFT_MEMBERS_MAX];
    uint32_t peer_count;
    uint64_t first_hole, first_hole_term;
    bool unsure;
};
static inline struct opened lab_opened(struct lab *lab, uint32_t group)
{
    struct writer w = {0};
    writer_u32(&w, group);
    lab_message(lab, MESSAGE_LOG_OPEN, &w, (struct slice){0});
    lab_run(lab);
    struct reply *reply = lab_reply(lab, lab->stream);
    assert_non_null(reply);
    struct reader r = reader_of(reply->header.data, reply->header.bytes);
    struct opened opened = {.term = reader_u64(&r)};
    opened.vote = reader_u32(&r);
    opened.last = reader_u64(&r);
    opened.base = reader_u64(&r);
    opened.last_term = opened.base_term = reader_u64(&r);
    opened.runs = reader_u32(&r);
    for (uint32_t i = 0; i < opened.runs; i++) {
        uint64_t first = reader_u64(&r);
        assert_true(i > 0 || first == opened.base + 1);
        opened.last_term = reader_u64(&r);
    }
    opened.configs = reader_u32(&r);
    for (uint32_t i = 0; i < opened.configs; i++) {
        assert_true(reader_u64(&r) > opened.base);
        assert_non_null(reader_take(&r, reader_u32(&r)));
    }
    opened.unsure = reader_u8(&r) != 0;
    opened.holes = reader_u32(&r);
    for (uint32_t i = 0; i < opened.holes; i++) {
        uint64_t index = reader_u64(&r), term = reader_u64(&r);
        opened.first_hole = i == 0 ? index : opened.first_hole;
        opened.first_hole_term = i == 0 ? term : opened.first_hole_term;
        opened.doubts += reader_u8(&r) != LOG_HOLE_ROT;
    }
    opened.position = reader_u64(&r);
    assert_true(log_peers_read(&r, opened.peers, &opened.peer_count));
    assert_true(!r.failed && r.left == 0);
    return opened;
}

/* Writes a damaged entry anew. */
static inline void lab_heal(struct lab *lab, uint32_t group, uint64_t index, uint64_t term, uint32_t bytes)
{
    struct raft_entry entry = entry_make(index, term, bytes);
    struct slice body;
    raft_entries_encode(&entry, 1, &body);
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, 1000 + index);
    lab_message(lab, MESSAGE_LOG_HEAL, &w, body);
    slice_drop(&entry.data);
    lab_run(lab);
}

/* Doubtful entries from `index` on are given up. */
static inline void lab_trim(struct lab *lab, uint32_t group, uint64_t index)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, index);
    lab_message(lab, MESSAGE_LOG_TRIM, &w, (struct slice){0});
    lab_run(lab);
}

/* What the log says of an entry by its name. */
static inline uint8_t lab_fetch(struct lab *lab, uint32_t group, uint64_t index, uint64_t term)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, index);
    writer_u64(&w, term);
    lab_message(lab, MESSAGE_LOG_FETCH, &w, (struct slice){0});
    lab_run(lab);
    struct reply *reply = lab_reply(lab, lab->stream);
    assert_non_null(reply);
    assert_true(reply->header.bytes == 9 && (reply->body.bytes > 0) == (reply->header.data[0] == LOG_HAS));
    return reply->header.data[0];
}

/* Reads entries first.. and checks their bytes; returns how many came. */
static inline uint32_t lab_check_entries(struct lab *lab, uint32_t group, uint64_t first, uint32_t count, uint64_t term,
                                         uint32_t bytes)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, first);
    writer_u32(&w, count);
    lab_message(lab, MESSAGE_LOG_READ, &w, (struct slice){0});
    lab_run(lab);
    struct reply *reply = lab_reply(lab, lab->stream);
    assert_non_null(reply);
    struct raft_entry *entries = NULL;
    uint32_t got = 0;
    assert_int_equal(raft_entries_decode(reply->body, &entries, &got), ERR_OK);
    for (uint32_t i = 0; i < got; i++) {
        assert_true(entries[i].index == first + i && entries[i].term == term && entries[i].data.bytes == bytes);
        for (uint32_t j = 0; j < bytes; j++) {
            if (entries[i].data.data[j] != pattern(first + i, term, j)) {
                fail_msg("entry %llu differs at byte %u", (unsigned long long)(first + i), j);
            }
        }
        slice_drop(&entries[i].data);
    }
    free(entries);
    return got;
}

static inline void lab_mark(struct lab *lab)
{
    assert_true(lab->mark_at > 0);
    lab->now = lab->mark_at;
    struct event event = {.kind = EVENT_TIMER};
    event.timer.id = 1;
    lab_step(lab, event);
    lab_run(lab);
}

static inline int no_leaks(void **state)
{
    (void)state;
    assert_int_equal(slice_live_bytes(), 0);
    return 0;
}

#endif
