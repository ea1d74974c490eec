/* The node's log over a disk in memory: what was answered is there after any crash, a torn tail is cut, rot is not. */
#include "../log_lab.h"

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
        cmocka_unit_test_teardown(test_entries_decode_refuses, no_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
