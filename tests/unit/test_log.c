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

/* A, acknowledged; B, written but not synced when the power goes: any subset of B's sectors may be there, or rot has
 * hit one. B is cut, or its names are known and what is damaged of it is in doubt (R-E2). */
static void torn_tail_try(struct lab *lab, uint64_t damage, bool flipped, uint32_t *cut, uint32_t *doubted)
{
    struct opened opened = {0};
    for (int again = 0; again < 2; again++) { /* a second crash before anything is written: the same */
        lab_restart(lab);
        assert_false(lab->halted);
        opened = lab_opened(lab, 1);
        bool whole = opened.last == 20;
        assert_true(!opened.unsure && opened.holes == opened.doubts && (whole || opened.holes == 0));
        assert_true(opened.last == (whole ? 20 : 8) && opened.term == (whole ? 2 : 1) &&
                    opened.vote == (whole ? 3 : 1));
    }
    *cut += opened.last == 8;
    *doubted += opened.holes > 0;
    uint64_t first = opened.holes > 0 ? opened.first_hole : opened.last + 1;
    if (opened.holes > 0) {
        assert_int_equal(lab_fetch(lab, 1, first, 2), flipped ? LOG_DOUBTS : LOG_TORN);
        assert_true(lab_check_entries(lab, 1, first, 1, 2, 900) == 0);
    }
    if (opened.holes > 0 && damage % 2 == 0) { /* another member has them */
        while (lab_opened(lab, 1).holes > 0) {
            lab_heal(lab, 1, lab_opened(lab, 1).first_hole, 2, 900);
        }
        first = 21;
    } else if (opened.holes > 0) { /* nobody has */
        lab_trim(lab, 1, first);
    }
    lab_append(lab, 1, first, 3, 2, 50, 3, 0); /* it goes on, with a shorter write than the torn one */
    lab_run(lab);
    lab_restart(lab);
    assert_false(lab->halted);
    opened = lab_opened(lab, 1);
    assert_true(opened.last == first + 1 && opened.last_term == 3 && opened.term == 3 && opened.holes == 0);
    for (uint64_t i = 9; i < first; i++) {
        assert_int_equal(lab_check_entries(lab, 1, i, 1, 2, 900), 1);
    }
    assert_int_equal(lab_check_entries(lab, 1, first, 2, 3, 50), 2);
    assert_int_equal(lab_check_entries(lab, 1, 1, 8, 1, 700), 8);
}

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
    uint32_t cut = 0, doubted = 0;
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
        bool flipped = damage >= 2 * sectors && damage < 3 * sectors;
        torn_tail_try(lab, damage, flipped, &cut, &doubted);
    }
    assert_true(cut > 20 && doubted > 40);
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
    memset(lab->files[0] + at + 512, 0, (sectors - 1) * 512); /* torn: the first sector alone arrived */
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
        assert_true(opened.last == 3 || (kept > sectors / 2 && opened.last == 13 && opened.last_term == 2));
    }
    image_free(&before);
    image_free(&after);
    lab_close(lab);
}

/* Twelve writes of three groups over several segments, all of them marked as synced. */
static struct lab *rot_lab(uint64_t *ret_mark_file, uint64_t *ret_mark_at)
{
    struct lab *lab = lab_open(64u << 10);
    for (uint32_t i = 0; i < 12; i++) {
        lab_append(lab, i % 3, 1 + i / 3 * 4, 1 + i, 4, 1500, 1 + i, 1 + i);
        lab_run(lab);
    }
    lab_mark(lab);
    *ret_mark_file = lab->last_write_file;
    *ret_mark_at = lab->last_write_at;
    assert_true(*ret_mark_file >= 1); /* more than one segment */
    return lab;
}

/* All names and votes are known; what is damaged is told and can be written anew, for good. */
static void rot_heals(struct lab *lab, uint32_t *holes)
{
    for (uint32_t group = 0; group < 3; group++) {
        struct opened opened = lab_opened(lab, group);
        uint64_t term = 10 + group;
        assert_true(!opened.unsure && opened.term == term && opened.vote == term && opened.last == 16);
        assert_true(opened.last_term == term && opened.doubts == 0 && opened.runs == 4 && opened.base == 0);
        *holes += opened.holes;
        for (; opened.holes > 0; opened = lab_opened(lab, group)) {
            uint64_t index = opened.first_hole;
            assert_int_equal(opened.first_hole_term, 1 + (index - 1) / 4 * 3 + group);
            assert_int_equal(lab_fetch(lab, group, index, opened.first_hole_term), LOG_LACKS);
            lab_heal(lab, group, index, opened.first_hole_term, 1500);
            assert_int_equal(lab_fetch(lab, group, index, opened.first_hole_term), LOG_HAS);
        }
    }
    lab_restart(lab);
    assert_false(lab->halted);
    for (uint32_t group = 0; group < 3; group++) {
        assert_int_equal(lab_opened(lab, group).holes, 0);
        for (uint64_t i = 1; i <= 16; i++) {
            assert_int_equal(lab_check_entries(lab, group, i, 1, 1 + (i - 1) / 4 * 3 + group, 1500), 1);
        }
    }
}

/* Every sector that a later write says was synced, and every block: rot in it cuts nothing, names what is lost and is
 * healed (R-E1). */
static void test_rot_heals(void **state)
{
    (void)state;
    uint64_t mark_file = 0, mark_at = 0;
    struct lab *lab = rot_lab(&mark_file, &mark_at);
    struct image good = image_take(lab);
    uint32_t tried = 0, holes = 0;
    for (uint32_t bytes = 512; bytes <= 4096; bytes *= 8) {
        for (uint64_t file = 0; file <= mark_file; file++) {
            for (uint64_t at = 0; at < good.bytes[file] && (file < mark_file || at < mark_at); at += bytes) {
                if (get_u32(good.files[file] + at + 4) == 0) {
                    continue; /* the unused end of a segment */
                }
                image_put(lab, &good);
                for (uint64_t n = at; n < at + bytes; n += 512) {
                    lab->files[file][n + n / 512 * 11 % 512] ^= 0x20;
                }
                lab_restart(lab);
                assert_false(lab->halted);
                if (bytes > 512 && lab_opened(lab, 0).unsure) {
                    assert_true(at ==
                                0); /* both copies of a segment's first record: whoever stands there is not told */
                    continue;
                }
                rot_heals(lab, &holes);
                tried++;
            }
        }
    }
    assert_true(tried > 170 && holes > tried / 2);
    image_free(&good);
    lab_close(lab);
}

/* The last write, all of its sectors there but one that rotted: in doubt until a later write says that it was synced.
 */
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
        for (int again = 0; again < 3; again++) { /* writes that come after it do not make it certain */
            lab_restart(lab);
            assert_false(lab->halted);
            struct opened opened = lab_opened(lab, 1);
            assert_true(opened.last == 6 && opened.holes == 3 && opened.doubts == (marked ? 0 : 3));
            assert_int_equal(lab_fetch(lab, 1, 4, 1), marked ? LOG_LACKS : LOG_DOUBTS);
            lab_append(lab, 2, 1 + (uint64_t)again, 1, 1, 10, again == 0, 0);
            lab_run(lab);
        }
        lab_close(lab);
    }
}

/* A block of the only segment is gone with both copies of all names, and no later write tells: nobody serves. */
static void test_lost_names_are_said(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 1, 1, 1, 1, 100, 1, 2);
    lab_run(lab);
    lab_append(lab, 1, 2, 1, 1, 100, 0, 0);
    lab_run(lab);
    uint64_t at = lab->last_write_at;
    for (uint64_t n = at; n < at + 4096; n += 512) {
        lab->files[0][n + 50] ^= n < at + 4096 - 512; /* one sector says that there was a write */
    }
    lab_restart(lab);
    assert_false(lab->halted);
    assert_true(lab_opened(lab, 1).unsure && lab_opened(lab, 9).unsure);
    assert_int_equal(lab_fetch(lab, 1, 2, 1), LOG_UNTOLD);
    lab_close(lab);
}

static void peers_tell(struct lab *lab, uint32_t group, bool now, const struct log_peer *peer)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u8(&w, now);
    log_peers_put(peer, 1, &w);
    lab_message(lab, MESSAGE_LOG_PEERS, &w, (struct slice){0});
}

/* Appends that come together are one write, whatever comes last. */
static void test_together(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    uint64_t writes = lab->writes;
    lab->more = true;
    lab_append(lab, 1, 1, 1, 1, 100, 1, 0);
    lab_append(lab, 2, 1, 1, 1, 100, 1, 0);
    assert_int_equal(lab->waiting_count, 0);
    lab->more = false;
    struct writer w = {0};
    lab_message(lab, MESSAGE_LOG_FETCH + 100, &w, (struct slice){0}); /* of no use to it */
    lab_run(lab);
    assert_int_equal(lab->writes, writes + 1);
    lab_restart(lab);
    assert_true(lab_opened(lab, 1).last == 1 && lab_opened(lab, 2).last == 1);
    lab_close(lab);
}

/* What may not wait for an append has a write of its own; what comes while that is under way has the next one. */
static void test_peers_are_written_now(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    struct log_peer peer = {.node = 2, .boot = 7, .position = 40};
    lab_append(lab, 1, 1, 1, 1, 100, 1, 0);
    lab_append(lab, 2, 1, 1, 1, 100, 1, 0);
    lab_run(lab);
    lab_mark(lab);
    uint64_t writes = lab->writes;
    peers_tell(lab, 1, false, &peer);
    lab_run(lab);
    assert_int_equal(lab->writes, writes);
    peer.boot = 8;
    peers_tell(lab, 1, true, &peer);
    peer.boot = 9;
    peers_tell(lab, 2, true, &peer);
    lab_run(lab);
    assert_int_equal(lab->writes, writes + 2);
    lab_restart(lab);
    assert_true(lab_opened(lab, 1).peer_count == 1 && lab_opened(lab, 1).peers[0].boot == 8);
    assert_true(lab_opened(lab, 2).peer_count == 1 && lab_opened(lab, 2).peers[0].boot == 9);
    lab_close(lab);
}

/* What a group knows of other logs is durable with the next write, whosever it is, and in the segments behind it. */
static void test_peers_are_kept(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    struct log_peer peer = {.node = 2, .boot = 7, .position = 40};
    lab_append(lab, 1, 1, 1, 1, 100, 1, 0);
    lab_run(lab);
    uint64_t writes = lab->writes;
    peers_tell(lab, 1, false, &peer);
    lab_run(lab);
    assert_true(lab->writes <= writes + 1); /* none of its own: the mark of the append before */
    for (uint64_t i = 1; i <= 40; i++) {
        lab_append(lab, 2, i, 1, 1, 6000, i == 1, 0);
        lab_run(lab);
        if (i == 39) {
            lab_cut(lab, 2, 38, 1);
        }
    }
    lab_restart(lab);
    struct opened opened = lab_opened(lab, 1);
    assert_true(opened.peer_count == 1 && opened.peers[0].node == 2 && opened.peers[0].position == 40);
    assert_int_equal(lab_opened(lab, 2).peer_count, 0);
    uint64_t position = opened.position;
    lab_append(lab, 1, 2, 1, 1, 10, 0, 0);
    lab_run(lab);
    lab_restart(lab);
    assert_true(lab_opened(lab, 1).position > position);
    lab_close(lab);
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
    uint32_t before = lab_check_entries(lab, 4, 1, 5, 1, 1000);
    uint64_t hole = lab->rotten;
    assert_true(hole > 0 && before == hole - 1); /* up to the damage */
    lab->rotten = 0;
    assert_int_equal(lab_check_entries(lab, 4, hole, 5, 1, 1000), 0);
    assert_int_equal(lab->rotten, hole); /* said again to who reads there */
    assert_int_equal(lab_fetch(lab, 4, hole, 1), LOG_LACKS);
    assert_int_equal(lab_fetch(lab, 4, hole + 1, 1), LOG_HAS);
    lab_heal(lab, 4, hole, 1, 1000);
    lab_run(lab);
    for (int i = 0; i < 2; i++) {
        for (uint64_t index = 1; index <= 5; index++) {
            assert_int_equal(lab_check_entries(lab, 4, index, 1, 1, 1000), 1);
        }
        lab_restart(lab);
        assert_false(lab->halted);
        assert_int_equal(lab_opened(lab, 4).holes, 0); /* the one written anew counts */
    }
    lab_close(lab);
}

/* A read that the disk refuses is damage of what it was for; the entry was cut meanwhile: of nothing. */
static void test_a_read_that_fails(void **state)
{
    (void)state;
    struct lab *lab = lab_open(SEGMENT_BYTES);
    lab_append(lab, 4, 1, 1, 5, 1000, 1, 0);
    lab_run(lab);
    lab->read_fails = true;
    assert_int_equal(lab_check_entries(lab, 4, 2, 3, 1, 1000), 0);
    assert_int_equal(lab->rotten, 2);
    lab->rotten = 0;
    struct writer w = {0};
    writer_u32(&w, 4);
    writer_u64(&w, 3);
    writer_u32(&w, 1);
    lab_message(lab, MESSAGE_LOG_READ, &w, (struct slice){0}); /* is out */
    lab_append(lab, 4, 3, 2, 1, 10, 0, 0);
    lab_run(lab);
    assert_int_equal(lab->rotten, 0);
    lab->read_fails = false;
    assert_int_equal(lab_fetch(lab, 4, 3, 2), LOG_HAS);
    assert_false(lab->halted);
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
    uint64_t at = lab->last_write_at;
    struct image good = image_take(lab);
    for (uint64_t sector = 0; sector < 8; sector++) {
        image_put(lab, &good);
        lab->files[0][at + sector * 512 + 77] ^= 1;
        lab_restart(lab);
        struct opened opened = lab_opened(lab, 1);
        assert_true(!lab->halted && !opened.unsure && opened.term == 5 && opened.vote == 3 && opened.last == 1);
    }
    image_free(&good);
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
        cmocka_unit_test_teardown(test_rot_heals, no_leaks),
        cmocka_unit_test_teardown(test_lost_names_are_said, no_leaks),
        cmocka_unit_test_teardown(test_mark_narrows_the_doubtful, no_leaks),
        cmocka_unit_test_teardown(test_other_directory_is_stale, no_leaks),
        cmocka_unit_test_teardown(test_peers_are_kept, no_leaks),
        cmocka_unit_test_teardown(test_together, no_leaks),
        cmocka_unit_test_teardown(test_peers_are_written_now, no_leaks),
        cmocka_unit_test_teardown(test_suffix_cut, no_leaks),
        cmocka_unit_test_teardown(test_segments_and_large_entries, no_leaks),
        cmocka_unit_test_teardown(test_rot_found_by_read, no_leaks),
        cmocka_unit_test_teardown(test_a_read_that_fails, no_leaks),
        cmocka_unit_test_teardown(test_failed_sync_is_not_retried, no_leaks),
        cmocka_unit_test_teardown(test_full_disk, no_leaks),
        cmocka_unit_test_teardown(test_hard_state_stands_twice, no_leaks),
        cmocka_unit_test_teardown(test_entries_decode_refuses, no_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
