/* The node's log over a disk in memory: what was answered is there after any crash, a torn tail is cut, rot is not. */
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
    bool halted;
    enum err halt_err;
    char halt_reason[160];
    bool no_writes, no_syncs, full, sync_fails, write_fails, scan_done;
    uint64_t now, stream, mark_at, syncs, writes;
    uint64_t last_write_file, last_write_at, last_write_bytes;
};

static void lab_step(struct lab *lab, struct event event)
{
    event.now_ns = lab->now += 1000;
    log_step(lab->log, &event, &lab->fx);
    for (unsigned long i = 0; i < lab->fx.count; i++) {
        lab->waiting = mem_grow(lab->waiting, &lab->waiting_capacity, lab->waiting_count + 1, sizeof *lab->waiting);
        lab->waiting[lab->waiting_count++] = lab->fx.items[i];
    }
    lab->fx.count = 0;
}

static void lab_disk_done(struct lab *lab, const struct effect *e, enum err err, struct slice data)
{
    struct event event = {.kind = EVENT_DISK_DONE};
    event.disk.token = e->disk.token;
    event.disk.err = err;
    event.disk.data = data;
    lab_step(lab, event);
}

static void lab_alloc(struct lab *lab, struct effect *e)
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

static void lab_write(struct lab *lab, struct effect *e)
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

static void lab_read(struct lab *lab, struct effect *e)
{
    uint32_t at = e->disk.file.number - 1;
    assert_true(e->disk.bytes <= 1 << 20 && e->disk.offset <= lab->bytes[at]);
    uint64_t left = lab->bytes[at] - e->disk.offset;
    struct slice data = slice_copy(lab->files[at] + e->disk.offset, left < e->disk.bytes ? left : e->disk.bytes);
    lab_disk_done(lab, e, ERR_OK, data);
    slice_drop(&data);
}

static void lab_send(struct lab *lab, struct effect *e)
{
    assert_int_equal(e->send.flags, MESSAGE_REPLY);
    lab->replies = mem_grow(lab->replies, &lab->reply_capacity, lab->reply_count + 1, sizeof *lab->replies);
    lab->replies[lab->reply_count++] = (struct reply){e->send.type, e->send.stream, e->send.header, e->send.body};
}

/* Carries out the oldest effect that may go; false when none is left. */
static bool lab_run_one(struct lab *lab)
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

static void lab_run(struct lab *lab)
{
    while (lab_run_one(lab)) {}
}

static void lab_start(struct lab *lab)
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

static void lab_forget(struct lab *lab)
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

static void lab_stop(struct lab *lab)
{
    lab_forget(lab);
    log_destroy(lab->log);
    lab->log = NULL;
}

static void lab_restart(struct lab *lab)
{
    lab_stop(lab);
    lab->no_writes = lab->no_syncs = false;
    lab_start(lab);
}

static struct lab *lab_open(uint32_t segment_bytes)
{
    struct lab *lab = mem_alloc(sizeof *lab);
    memset(lab->directory.bytes, 0x5a, 16);
    lab->segment_bytes = segment_bytes;
    lab_start(lab);
    return lab;
}

static void lab_close(struct lab *lab)
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
static struct image image_take(const struct lab *lab)
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
static void image_put(struct lab *lab, const struct image *image)
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
static void image_free(struct image *image)
{
    for (uint32_t i = 0; i < FILES; i++) {
        free(image->files[i]);
    }
}

/* ---- requests ---- */

static void lab_message(struct lab *lab, uint16_t type, struct writer *header, struct slice body)
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

static uint8_t pattern(uint64_t index, uint64_t term, uint32_t at)
{
    return (uint8_t)(index * 31 + term * 7 + at * 13 + (at >> 8));
}

static struct raft_entry entry_make(uint64_t index, uint64_t term, uint32_t bytes)
{
    struct raft_entry entry = {.index = index, .term = term, .type = RAFT_ENTRY_COMMANDS, .data = slice_alloc(bytes)};
    for (uint32_t i = 0; i < bytes; i++) {
        entry.data.data[i] = pattern(index, term, i);
    }
    return entry;
}

/* Appends `count` entries of `bytes` from `first` on; term_hard != 0: a hard state with it. Does not run the disk. */
static void lab_append(struct lab *lab, uint32_t group, uint64_t first, uint64_t term, uint32_t count, uint32_t bytes,
                       uint64_t term_hard, uint32_t vote)
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

static struct reply *lab_reply(struct lab *lab, uint64_t stream)
{
    for (unsigned long i = 0; i < lab->reply_count; i++) {
        if (lab->replies[i].stream == stream) {
            return &lab->replies[i];
        }
    }
    return NULL;
}

struct opened {
    uint64_t term, last, last_term;
    uint32_t vote, runs;
};
static struct opened lab_opened(struct lab *lab, uint32_t group)
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
    opened.runs = reader_u32(&r);
    for (uint32_t i = 0; i < opened.runs; i++) {
        (void)reader_u64(&r);
        opened.last_term = reader_u64(&r);
    }
    assert_true(!r.failed && r.left == 0);
    return opened;
}

/* Reads entries first.. and checks their bytes; returns how many came. */
static uint32_t lab_check_entries(struct lab *lab, uint32_t group, uint64_t first, uint32_t count, uint64_t term,
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

static void lab_mark(struct lab *lab)
{
    assert_true(lab->mark_at > 0);
    lab->now = lab->mark_at;
    struct event event = {.kind = EVENT_TIMER};
    event.timer.id = 1;
    lab_step(lab, event);
    lab_run(lab);
}

/* ---- tests ---- */

static void test_round_trip(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    struct opened opened = lab_opened(lab, 3);
    assert_true(opened.term == 0 && opened.last == 0 && opened.runs == 0 && opened.vote == 0);
    lab_append(lab, 3, 1, 1, 1, 100, 1, 0);
    lab_run(lab);
    lab_append(lab, 3, 2, 4, 20, 333, 4, 2);
    lab_run(lab);
    struct reply *reply = lab_reply(lab, lab->stream);
    assert_non_null(reply);
    assert_int_equal(get_u64(reply->header.data), 22);
    lab_append(lab, 7, 1, 1, 1, 0, 1, 0);
    lab_run(lab);
    for (int again = 0; again < 3; again++) {
        opened = lab_opened(lab, 3);
        assert_true(opened.term == 4 && opened.vote == 2 && opened.last == 21 && opened.runs == 2);
        assert_int_equal(lab_check_entries(lab, 3, 1, 1, 1, 100), 1);
        assert_int_equal(lab_check_entries(lab, 3, 2, 100, 4, 333), 20);
        assert_int_equal(lab_check_entries(lab, 7, 1, 1, 1, 0), 1);
        assert_int_equal(lab_check_entries(lab, 7, 2, 1, 1, 0), 0); /* there is none */
        lab_restart(lab);
        assert_false(lab->halted);
    }
    lab_close(lab);
}

static void test_reply_waits_for_sync(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab->no_syncs = true;
    lab_append(lab, 0, 1, 1, 1, 10, 1, 0);
    uint64_t first = lab->stream;
    lab_run(lab);
    assert_null(lab_reply(lab, first));
    uint64_t writes = lab->writes;
    for (uint32_t i = 2; i < 50; i++) {
        lab_append(lab, 0, i, 1, 1, 10, 0, 0);
    }
    lab_run(lab);
    assert_int_equal(lab->writes, writes); /* one write in flight */
    assert_null(lab_reply(lab, first));
    lab->no_syncs = false;
    uint64_t syncs = lab->syncs;
    lab_run(lab);
    assert_int_equal(lab->syncs, syncs + 2); /* the first, and one for the 48 that met meanwhile */
    for (uint64_t stream = first; stream <= lab->stream; stream++) {
        assert_non_null(lab_reply(lab, stream));
    }
    lab_close(lab);
}

/* A, acknowledged; B, written but not synced when the power goes: any subset of B's sectors may be there. */
static void test_torn_tail(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 1, 8, 700, 1, 1);
    lab_run(lab);
    struct image before = image_take(lab);
    lab->no_syncs = true;
    lab_append(lab, 1, 9, 2, 12, 900, 2, 3);
    lab_run(lab);
    struct image after = image_take(lab);
    uint64_t at = lab->last_write_at, sectors = lab->last_write_bytes / 512;
    assert_true(sectors >= 24);
    lab->no_syncs = false;
    for (uint64_t damage = 0; damage <= 3 * sectors; damage++) {
        image_put(lab, &after);
        uint64_t which = damage % sectors;
        if (damage < sectors) { /* the first `which` sectors only */
            memcpy(lab->files[0] + at + which * 512, before.files[0] + at + which * 512, (sectors - which) * 512);
        } else if (damage < 2 * sectors) { /* all but one */
            memcpy(lab->files[0] + at + which * 512, before.files[0] + at + which * 512, 512);
        } else if (damage < 3 * sectors) { /* a bit flipped in one */
            lab->files[0][at + which * 512 + which * 7 % 512] ^= 4;
        }
        bool whole = damage == 3 * sectors;
        for (int again = 0; again < 2; again++) { /* a second crash before anything is written: the same */
            lab_restart(lab);
            assert_false(lab->halted);
            struct opened opened = lab_opened(lab, 1);
            assert_int_equal(opened.last, whole ? 20 : 8);
            assert_int_equal(opened.term, whole ? 2 : 1);
            assert_int_equal(opened.vote, whole ? 3 : 1);
        }
        if (!whole) { /* it goes on behind the cut, with a shorter write than the torn one */
            lab_append(lab, 1, 9, 3, 2, 50, 3, 0);
            lab_run(lab);
            lab_restart(lab);
            assert_false(lab->halted);
            struct opened opened = lab_opened(lab, 1);
            assert_true(opened.last == 10 && opened.last_term == 3 && opened.term == 3);
            assert_int_equal(lab_check_entries(lab, 1, 9, 2, 3, 50), 2);
        }
        assert_int_equal(lab_check_entries(lab, 1, 1, 8, 1, 700), 8);
    }
    image_free(&before);
    image_free(&after);
    lab_close(lab);
}

/* Behind a cut the torn write's sectors lie about; tearing the next write at the same place must not mix the two. */
static void test_torn_twice(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 1, 3, 100, 1, 0);
    lab_run(lab);
    lab->no_syncs = true;
    lab_append(lab, 1, 4, 1, 10, 900, 0, 0);
    lab_run(lab);
    uint64_t at = lab->last_write_at, sectors = lab->last_write_bytes / 512;
    memset(lab->files[0] + at, 0, 512); /* torn: the first sector did not arrive */
    lab_restart(lab);
    assert_int_equal(lab_opened(lab, 1).last, 3);
    struct image before = image_take(lab);
    lab->no_syncs = true;
    lab_append(lab, 1, 4, 2, 10, 900, 2, 0);
    lab_run(lab);
    assert_int_equal(lab->last_write_at, at);
    struct image after = image_take(lab);
    for (uint64_t kept = 0; kept <= sectors; kept++) {
        image_put(lab, &after);
        memcpy(lab->files[0] + at + kept * 512, before.files[0] + at + kept * 512, (sectors - kept) * 512);
        lab_restart(lab);
        assert_false(lab->halted);
        struct opened opened = lab_opened(lab, 1);
        assert_true(opened.last == 3 || (kept == sectors && opened.last == 13));
    }
    image_free(&before);
    image_free(&after);
    lab_close(lab);
}

/* Every sector that a later write says was synced: a flipped bit halts, and names the segment. */
static void test_rot_halts(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    for (uint32_t i = 0; i < 12; i++) {
        lab_append(lab, i % 3, 1 + i / 3 * 4, 1 + i, 4, 1500, 1 + i, 1);
        lab_run(lab);
    }
    lab_mark(lab);
    uint64_t mark_file = lab->last_write_file, mark_at = lab->last_write_at;
    assert_true(mark_file >= 1); /* more than one segment */
    struct image good = image_take(lab);
    uint32_t tried = 0, named = 0;
    for (uint64_t file = 0; file <= mark_file; file++) {
        for (uint64_t at = 0; at < lab->bytes[file] && (file < mark_file || at < mark_at); at += 512) {
            if (get_u32(good.files[file] + at + 4) == 0) {
                continue; /* the unused end of a segment */
            }
            image_put(lab, &good);
            lab->files[file][at + at / 512 * 11 % 512] ^= 0x20;
            lab_restart(lab);
            char name[32];
            snprintf(name, sizeof name, "log/%08x.log", (unsigned)file + 1);
            assert_true(lab->halted);
            assert_int_equal(lab->halt_err, ERR_CORRUPT);
            named += strstr(lab->halt_reason, name) != NULL && strstr(lab->halt_reason, "group") != NULL;
            tried++;
        }
    }
    assert_true(tried > 150 && named > tried * 9 / 10);
    image_put(lab, &good);
    lab_restart(lab);
    assert_false(lab->halted);
    assert_int_equal(lab_check_entries(lab, 2, 5, 4, 6, 1500), 4);
    image_free(&good);
    lab_close(lab);
}

/* Without a mark behind it the last write is doubtful and is cut; the mark of an idle log makes the same damage rot. */
static void test_mark_narrows_the_doubtful(void **state)
{
    (void)state;
    for (int marked = 0; marked < 2; marked++) {
        struct lab *lab = lab_open(SEGMENT_BYTES);
        lab_append(lab, 1, 1, 1, 3, 100, 1, 0);
        lab_run(lab);
        lab_append(lab, 1, 4, 1, 3, 100, 0, 0);
        lab_run(lab);
        uint64_t at = lab->last_write_at;
        if (marked) {
            lab_mark(lab);
            assert_true(lab->last_write_bytes == 4096 && lab->last_write_at > at);
        }
        lab->files[0][at + 100] ^= 1;
        lab_restart(lab);
        assert_int_equal(lab->halted, marked);
        if (!marked) {
            assert_int_equal(lab_opened(lab, 1).last, 3);
        }
        lab_close(lab);
    }
}

static void test_other_directory_is_stale(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 1, 30, 500, 1, 2);
    lab_run(lab);
    lab_mark(lab);
    lab->directory.bytes[3] ^= 1;
    lab_restart(lab);
    assert_false(lab->halted);
    assert_int_equal(lab_opened(lab, 1).last, 0);
    lab_append(lab, 1, 1, 7, 1, 10, 7, 0); /* a shorter log over the stale one */
    lab_run(lab);
    lab_restart(lab);
    assert_false(lab->halted);
    struct opened opened = lab_opened(lab, 1);
    assert_true(opened.last == 1 && opened.last_term == 7);
    lab_close(lab);
}

static void test_suffix_cut(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 5, 1, 1, 10, 64, 1, 0);
    lab_append(lab, 6, 1, 1, 10, 64, 1, 0);
    lab_run(lab);
    lab_append(lab, 5, 4, 2, 3, 32, 2, 0);
    lab_run(lab);
    lab_append(lab, 5, 7, 3, 1, 16, 3, 0);
    lab_append(lab, 5, 5, 4, 1, 8, 4, 0); /* queued in one batch: the later wins */
    lab_run(lab);
    for (int again = 0; again < 2; again++) {
        struct opened opened = lab_opened(lab, 5);
        assert_true(opened.last == 5 && opened.last_term == 4 && opened.runs == 3);
        assert_int_equal(lab_check_entries(lab, 5, 1, 3, 1, 64), 3);
        assert_int_equal(lab_check_entries(lab, 5, 4, 1, 2, 32), 1);
        assert_int_equal(lab_check_entries(lab, 5, 5, 9, 4, 8), 1);
        assert_int_equal(lab_check_entries(lab, 6, 1, 10, 1, 64), 10);
        lab_restart(lab);
        assert_false(lab->halted);
    }
    lab_close(lab);
}

static void test_segments_and_large_entries(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    uint64_t next = 1;
    for (; next <= 60; next++) {
        lab_append(lab, 2, next, 1, 1, 20000, next == 1, 0);
        lab_run(lab);
    }
    assert_true(lab->last_write_file >= 8);
    lab_append(lab, 9, 1, 1, 1, LIMIT_ENTRY_BYTES, 1, 0); /* larger than a segment: gets a segment of its size */
    lab_append(lab, 9, 2, 1, 2, 600000, 1, 0);
    lab_run(lab);
    assert_non_null(lab_reply(lab, lab->stream));
    for (int again = 0; again < 2; again++) {
        assert_int_equal(lab_opened(lab, 2).last, 60);
        for (uint64_t i = 1; i <= 60;) {
            uint32_t got = lab_check_entries(lab, 2, i, 100, 1, 20000);
            assert_true(got >= 1);
            i += got;
        }
        assert_int_equal(lab_check_entries(lab, 9, 1, 3, 1, LIMIT_ENTRY_BYTES), 1); /* at least one, at most 1 MiB */
        assert_int_equal(lab_check_entries(lab, 9, 2, 2, 1, 600000), 1);
        lab_restart(lab);
        assert_false(lab->halted);
    }
    lab_close(lab);
}

static void test_rot_found_by_read(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 4, 1, 1, 5, 1000, 1, 0);
    lab_run(lab);
    lab->files[0][lab->last_write_at + 4 * 512 + 200] ^= 1;
    struct writer w = {0};
    writer_u32(&w, 4);
    writer_u64(&w, 1);
    writer_u32(&w, 5);
    lab_message(lab, MESSAGE_LOG_READ, &w, (struct slice){0});
    lab_run(lab);
    assert_true(lab->halted && lab->halt_err == ERR_CORRUPT);
    assert_non_null(strstr(lab->halt_reason, "group 4 index"));
    assert_null(lab_reply(lab, lab->stream));
    lab_close(lab);
}

static void test_failed_sync_is_not_retried(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab->sync_fails = true;
    lab_append(lab, 1, 1, 1, 1, 10, 1, 0);
    uint64_t syncs = lab->syncs;
    lab_run(lab);
    assert_true(lab->halted && lab->halt_err == ERR_IO && strstr(lab->halt_reason, "fsync") != NULL);
    assert_null(lab_reply(lab, lab->stream));
    lab_append(lab, 1, 2, 1, 1, 10, 1, 0);
    lab_run(lab);
    assert_int_equal(lab->syncs, syncs + 1);
    lab_close(lab);
}

static void test_full_disk(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 1, 1, 1000, 1, 0);
    lab_run(lab);
    lab->full = true;
    uint64_t last = 1;
    for (uint64_t i = 2; i < 1000 && !lab->halted; i++) {
        lab_append(lab, 1, i, 1, 1, 1000, 0, 0);
        lab_run(lab);
        last = lab_reply(lab, lab->stream) != NULL ? i : last;
    }
    assert_true(lab->halted && lab->halt_err == ERR_DISK_FULL && last > 30);
    lab->full = false;
    lab_restart(lab);
    assert_false(lab->halted);
    assert_int_equal(lab_opened(lab, 1).last, last); /* all that was answered, and no more */
    lab_append(lab, 1, last + 1, 1, 1, 1000, 0, 0);
    lab_run(lab);
    assert_non_null(lab_reply(lab, lab->stream));
    lab_close(lab);
}

static void test_hard_state_stands_twice(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 5, 1, 10, 5, 3);
    lab_run(lab);
    uint32_t copies = 0;
    for (uint64_t at = 0; at < lab->last_write_bytes; at += 512) {
        struct log_sector s;
        const uint8_t *sector = lab->files[0] + lab->last_write_at + at;
        assert_true(log_sector_decode(sector, &lab->directory, 1, (uint32_t)((lab->last_write_at + at) / 512), &s));
        bool here = false;
        for (uint32_t i = 0; i + LOG_RECORD_HEADER_BYTES <= s.used; i++) {
            struct log_record record;
            here = here || (log_record_decode(sector + LOG_SECTOR_HEADER_BYTES + i, &record) &&
                            record.type == LOG_RECORD_HARD_STATE && record.term == 5 && record.vote == 3);
        }
        copies += here;
    }
    assert_int_equal(copies, 2); /* in two sectors */
    lab_close(lab);
}

/* ---- random crashes ---- */

#define MODEL_GROUPS  3u
#define MODEL_ENTRIES 600u

/* What a group's log must hold. */
struct model {
    uint64_t last, term;
    uint64_t terms[MODEL_ENTRIES + 1];
    uint32_t bytes[MODEL_ENTRIES + 1];
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

/* Appends something sensible, sometimes over a suffix, to the log and to the model. */
static void model_append(struct lab *lab, struct model *m, uint32_t group, uint64_t *random)
{
    bool cut = m->last > 3 && random_next(random) % 4 == 0;
    uint64_t first = cut ? m->last - random_next(random) % 3 : m->last + 1;
    bool new_term = cut || m->last == 0 || random_next(random) % 5 == 0;
    m->term += new_term;
    uint32_t count = (uint32_t)(random_next(random) % 4) + (m->last == 0);
    uint32_t bytes = (uint32_t)(random_next(random) % (random_next(random) % 8 == 0 ? 30000 : 600));
    if (count == 0) {
        first = m->last + 1;
    }
    lab_append(lab, group, first, m->term, count, bytes, new_term ? m->term : 0, 1);
    for (uint32_t i = 0; i < count; i++) {
        m->terms[first + i] = m->term;
        m->bytes[first + i] = bytes;
        m->last = first + i;
    }
}

static bool model_matches(struct lab *lab, const struct model *m, uint32_t group)
{
    struct opened opened = lab_opened(lab, group);
    if (opened.last != m->last || opened.term != m->term || opened.last_term != m->terms[m->last]) {
        return false;
    }
    for (uint64_t i = 1; i <= m->last; i++) {
        assert_int_equal(lab_check_entries(lab, group, i, 1, m->terms[i], m->bytes[i]), 1);
    }
    return true;
}

/* The last write keeps any subset of its sectors; the rest is what was there before. */
static void tear(struct lab *lab, const struct image *before, uint64_t *random)
{
    uint64_t style = random_next(random) % 4;
    for (uint64_t at = lab->last_write_at; at < lab->last_write_at + lab->last_write_bytes; at += 512) {
        bool keep = style == 0 ? true : style == 1 ? false : random_next(random) % (style == 2 ? 2 : 16) != 0;
        uint64_t file = lab->last_write_file;
        if (!keep && at < before->bytes[file]) {
            memcpy(lab->files[file] + at, before->files[file] + at, 512);
        } else if (!keep) {
            memset(lab->files[file] + at, 0, 512); /* allocated meanwhile */
        }
    }
}

static void crash_run(uint64_t seed, uint32_t *torn, uint32_t *whole)
{
    uint64_t random = seed;
    struct lab *lab = lab_open(64u << 10);
    struct model models[MODEL_GROUPS] = {0};
    for (uint32_t round = 0; round < 40; round++) {
        for (uint64_t n = random_next(&random) % 5; n > 0; n--) {
            uint32_t group = (uint32_t)(random_next(&random) % MODEL_GROUPS);
            model_append(lab, &models[group], group, &random);
            if (random_next(&random) % 2 == 0) {
                lab_run(lab);
            }
        }
        lab_run(lab);
        if (lab->mark_at > 0 && random_next(&random) % 3 == 0) {
            lab_mark(lab);
        }
        struct image before = image_take(lab);
        uint32_t group = (uint32_t)(random_next(&random) % MODEL_GROUPS);
        struct model acknowledged = models[group];
        uint64_t writes = lab->writes;
        lab->no_syncs = true;
        model_append(lab, &models[group], group, &random);
        lab_run(lab);
        if (lab->writes > writes) {
            tear(lab, &before, &random);
        }
        image_free(&before);
        lab_restart(lab);
        if (lab->halted) {
            fail_msg("seed %llu round %u: %s", (unsigned long long)seed, round, lab->halt_reason);
        }
        if (model_matches(lab, &models[group], group)) {
            (*whole)++;
        } else {
            models[group] = acknowledged;
            (*torn)++;
        }
        for (uint32_t i = 0; i < MODEL_GROUPS; i++) {
            if (!model_matches(lab, &models[i], i)) {
                fail_msg("seed %llu round %u: group %u differs", (unsigned long long)seed, round, i);
            }
        }
    }
    lab_close(lab);
}

/* Many crashes of one directory: what was answered is always there, what was not is there wholly or not at all. */
static void test_random_crashes(void **state)
{
    (void)state;
    uint32_t torn = 0, whole = 0;
    const char *more = getenv("LOG_SEEDS");
    uint64_t seeds = more ? strtoull(more, NULL, 10) : 20;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        crash_run(seed, &torn, &whole);
    }
    assert_true(torn > seeds * 5 && whole > seeds * 5);
}

static void test_entries_decode_refuses(void **state)
{
    (void)state;
    struct raft_entry entry = entry_make(7, 2, 40);
    struct slice body;
    raft_entries_encode(&entry, 1, &body);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    for (uint32_t bytes = 1; bytes < body.bytes; bytes++) {
        struct slice part = slice_sub(body, 0, bytes);
        assert_int_equal(raft_entries_decode(part, &entries, &count), ERR_BAD_PROTO);
        slice_drop(&part);
    }
    body.data[16] = 9; /* no such type */
    assert_int_equal(raft_entries_decode(body, &entries, &count), ERR_BAD_PROTO);
    body.data[16] = RAFT_ENTRY_COMMANDS;
    put_u32(body.data + 17, 0xffffffffu);
    assert_int_equal(raft_entries_decode(body, &entries, &count), ERR_BAD_PROTO);
    assert_null(entries);
    slice_drop(&body);
    slice_drop(&entry.data);
}

static int no_leaks(void **state)
{
    (void)state;
    assert_int_equal(slice_live_bytes(), 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_round_trip, no_leaks),
        cmocka_unit_test_teardown(test_reply_waits_for_sync, no_leaks),
        cmocka_unit_test_teardown(test_torn_tail, no_leaks),
        cmocka_unit_test_teardown(test_torn_twice, no_leaks),
        cmocka_unit_test_teardown(test_rot_halts, no_leaks),
        cmocka_unit_test_teardown(test_mark_narrows_the_doubtful, no_leaks),
        cmocka_unit_test_teardown(test_other_directory_is_stale, no_leaks),
        cmocka_unit_test_teardown(test_suffix_cut, no_leaks),
        cmocka_unit_test_teardown(test_segments_and_large_entries, no_leaks),
        cmocka_unit_test_teardown(test_rot_found_by_read, no_leaks),
        cmocka_unit_test_teardown(test_failed_sync_is_not_retried, no_leaks),
        cmocka_unit_test_teardown(test_full_disk, no_leaks),
        cmocka_unit_test_teardown(test_hard_state_stands_twice, no_leaks),
        cmocka_unit_test_teardown(test_random_crashes, no_leaks),
        cmocka_unit_test_teardown(test_entries_decode_refuses, no_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
