/* What is read ahead of a group that takes in its log (L19): it saves the wait and changes nothing that is given. */
#include "../log_lab.h"

enum { GROUP = 4, ENTRIES = 700, BYTES = 600, LONE = 300 };

static void ask(struct lab *lab, uint32_t group, uint64_t first, uint32_t count)
{
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, first);
    writer_u32(&w, count);
    lab_message(lab, MESSAGE_LOG_READ, &w, (struct slice){0});
}

/* How many entries the answer to an ask has, all of `term` from `first` on; UINT32_MAX: it did not come. */
static uint32_t answered(struct lab *lab, uint64_t stream, uint64_t first, uint64_t term)
{
    const struct reply *reply = lab_reply(lab, stream);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (reply == NULL) {
        return UINT32_MAX;
    }
    assert_int_equal(raft_entries_decode(reply->body, &entries, &count), ERR_OK);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(entries[i].index == first + i && entries[i].term == term);
        assert_int_equal(entries[i].data.data[0], pattern(first + i, term, 0));
        slice_drop(&entries[i].data);
    }
    free(entries);
    return count;
}

static uint32_t reads_waiting(const struct lab *lab)
{
    uint32_t count = 0;
    for (unsigned long i = 0; i < lab->waiting_count; i++) {
        count += lab->waiting[i].kind == EFFECT_DISK_READ;
    }
    return count;
}

/* Carries out the read that waits as number `n`, and nothing else. */
static void read_let(struct lab *lab, uint32_t n, bool fails)
{
    unsigned long i = 0;
    for (;; i++) {
        assert_true(i < lab->waiting_count);
        if (lab->waiting[i].kind == EFFECT_DISK_READ && n-- == 0) {
            break;
        }
    }
    struct effect e = lab->waiting[i];
    lab->waiting_count--;
    memmove(&lab->waiting[i], &lab->waiting[i + 1], (lab->waiting_count - i) * sizeof e);
    lab->read_fails = fails;
    lab_read(lab, &e);
    lab->read_fails = false;
}

/* ret_lone: where the write of one entry, LONE, begins. */
static struct lab *lab_filled(uint32_t segment_bytes, uint64_t *ret_lone)
{
    struct lab *lab = lab_open(segment_bytes);
    static const uint32_t firsts[] = {1, 100, 200, LONE, LONE + 1, 400, 500, 600, ENTRIES + 1};
    for (uint32_t i = 0; firsts[i] <= ENTRIES; i++) {
        lab_append(lab, GROUP, firsts[i], 1, firsts[i + 1] - firsts[i], BYTES, 1, 0);
        lab_run(lab);
        *ret_lone = firsts[i] == LONE ? lab->last_write_at : *ret_lone;
    }
    return lab;
}

/* While the group takes in one part, the next one is read; each is read once, and there is none behind the last. */
static void test_the_next_is_read_meanwhile(void **state)
{
    (void)state;
    uint64_t lone = 0;
    struct lab *lab = lab_filled(16u << 20, &lone);
    uint64_t first = 1;
    uint32_t asks = 0;
    for (; first <= ENTRIES; asks++) {
        ask(lab, GROUP, first, (uint32_t)(ENTRIES - first + 1));
        bool more = first + 256 <= ENTRIES;
        assert_int_equal(reads_waiting(lab), asks == 0 ? 1 + more : more); /* after the first all come from memory */
        lab_run(lab);
        uint32_t count = answered(lab, lab->stream, first, 1);
        assert_true(count > 0 && count <= 256);
        first += count;
    }
    assert_int_equal(asks, 3);
    assert_int_equal(lab->reads, 3);
    lab_close(lab);
}

/* Fewer asked than were read ahead, and asked before the disk gave it. */
static void test_asked_while_it_is_out(void **state)
{
    (void)state;
    uint64_t lone = 0;
    struct lab *lab = lab_filled(16u << 20, &lone);
    ask(lab, GROUP, 1, ENTRIES);
    uint64_t one = lab->stream;
    assert_int_equal(reads_waiting(lab), 2);
    ask(lab, GROUP, 257, 10);
    uint64_t two = lab->stream;
    assert_int_equal(reads_waiting(lab), 2);
    read_let(lab, 1, false); /* the disk answers in its own order */
    lab_run(lab);
    assert_int_equal(answered(lab, one, 1, 1), 256);
    assert_int_equal(answered(lab, two, 257, 1), 10);
    lab_close(lab);
}

/* What was read ahead is cut and written anew before it is asked for: the new entries are given. */
static void test_written_anew_meanwhile(void **state)
{
    (void)state;
    for (int done = 0; done < 2; done++) {
        uint64_t lone = 0;
        struct lab *lab = lab_filled(16u << 20, &lone);
        ask(lab, GROUP, 1, ENTRIES);
        if (done) {
            lab_run(lab); /* kept */
        } else {
            read_let(lab, 0, false); /* the other one is out */
        }
        lab_append(lab, GROUP, 300, 2, 20, BYTES, 2, 0);
        lab_run(lab);
        ask(lab, GROUP, 257, 100);
        lab_run(lab);
        assert_int_equal(answered(lab, lab->stream, 257, 1), 43); /* up to the cut: those places stand */
        assert_int_equal(lab_check_entries(lab, GROUP, 300, 100, 2, BYTES), 20);
        lab_append(lab, GROUP, 200, 3, 70, BYTES, 3, 0);
        lab_run(lab);
        assert_int_equal(lab_check_entries(lab, GROUP, 257, 100, 3, BYTES), 13);
        assert_int_equal(lab->rotten, 0);
        lab_close(lab);
    }
}

static void test_reset_and_cut_meanwhile(void **state)
{
    (void)state;
    uint64_t lone = 0;
    struct lab *lab = lab_filled(SEGMENT_BYTES, &lone); /* many segments */
    ask(lab, GROUP, 1, ENTRIES);
    lab_run(lab);
    uint32_t count = answered(lab, lab->stream, 1, 1);
    uint64_t next = 1 + count;
    assert_true(count > 0 && next < 300);
    lab_cut(lab, GROUP, 600, 1);
    for (uint32_t i = 0; i < 20; i++) { /* the segment that was read ahead of goes, and its file is used again */
        lab_append(lab, 7, i + 1, 1, 1, 60000, 1, 0);
        lab_run(lab);
    }
    assert_true(lab->removed > 0);
    ask(lab, GROUP, next, 10);
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream, next, 1), 0);
    assert_int_equal(lab_check_entries(lab, GROUP, 601, 10, 1, BYTES), 10);
    lab_reset(lab, GROUP, 9, next - 1, 4);
    lab_append(lab, GROUP, next, 4, 5, BYTES, 4, 0);
    lab_run(lab);
    assert_int_equal(lab_check_entries(lab, GROUP, next, 10, 4, BYTES), 5);
    assert_int_equal(lab->rotten, 0);
    lab_close(lab);
}

/* Damage in the second part is met when that is asked for, at the very entry. */
static void test_damage_in_the_second_part(void **state)
{
    (void)state;
    uint64_t lone = 0;
    struct lab *lab = lab_filled(16u << 20, &lone);
    lab->files[0][lone + 300] ^= 4;
    ask(lab, GROUP, 1, ENTRIES);
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream, 1, 1), 256);
    assert_int_equal(lab->rotten, 0); /* nobody asked for it */
    ask(lab, GROUP, 257, ENTRIES - 256);
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream, 257, 1), 43);
    assert_int_equal(lab->rotten, 300);
    ask(lab, GROUP, 300, ENTRIES - 299);
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream, 300, 1), 0);
    lab_heal(lab, GROUP, 300, 1, BYTES);
    lab_run(lab);
    assert_int_equal(lab_check_entries(lab, GROUP, 300, 10, 1, BYTES), 1); /* it lies elsewhere now */
    assert_int_equal(lab_check_entries(lab, GROUP, 301, 10, 1, BYTES), 9); /* as many as the ask before wanted */
    lab_close(lab);
}

/* A disk that did not give what nobody asked for is asked again, and believed only then. */
static void test_a_read_ahead_that_fails(void **state)
{
    (void)state;
    uint64_t lone = 0;
    struct lab *lab = lab_filled(16u << 20, &lone);
    ask(lab, GROUP, 1, ENTRIES);
    assert_int_equal(reads_waiting(lab), 2);
    read_let(lab, 1, true);
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream, 1, 1), 256);
    assert_int_equal(lab->rotten, 0);
    ask(lab, GROUP, 257, ENTRIES - 256);
    assert_int_equal(reads_waiting(lab), 2);
    read_let(lab, 0, false);
    assert_int_equal(reads_waiting(lab), 1);
    ask(lab, GROUP, 513, ENTRIES - 512);
    read_let(lab, 0, true); /* somebody waits for this one */
    lab_run(lab);
    assert_int_equal(answered(lab, lab->stream - 1, 257, 1), 256);
    assert_int_equal(answered(lab, lab->stream, 513, 1), 0);
    assert_int_equal(lab->rotten, 513);
    lab_close(lab);
}

/* Many groups at once: few are read ahead of, all get what they ask for. */
static void test_bounded(void **state)
{
    (void)state;
    enum { GROUPS = 9 };
    struct lab *lab = lab_open(16u << 20);
    for (uint32_t group = 0; group < GROUPS; group++) {
        lab_append(lab, group, 1, 1, ENTRIES, 20, 1, 0);
        lab_run(lab);
    }
    uint64_t first[GROUPS], streams[GROUPS], live = slice_live_bytes();
    for (uint32_t group = 0; group < GROUPS; group++) {
        first[group] = 1;
    }
    while (first[0] <= ENTRIES) {
        for (uint32_t group = 0; group < GROUPS; group++) {
            ask(lab, group, first[group], (uint32_t)(ENTRIES - first[group] + 1));
            streams[group] = lab->stream;
        }
        assert_true(reads_waiting(lab) <= GROUPS + 4);
        lab_run(lab);
        for (uint32_t group = 0; group < GROUPS; group++) {
            uint32_t count = answered(lab, streams[group], first[group], 1);
            assert_int_equal(count, answered(lab, streams[0], first[0], 1));
            first[group] += group > 0 ? count : 0;
        }
        first[0] = first[1];
    }
    assert_int_equal(first[0], ENTRIES + 1);
    assert_true(slice_live_bytes() >= live);
    lab_close(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_next_is_read_meanwhile, no_leaks),
        cmocka_unit_test_teardown(test_asked_while_it_is_out, no_leaks),
        cmocka_unit_test_teardown(test_written_anew_meanwhile, no_leaks),
        cmocka_unit_test_teardown(test_reset_and_cut_meanwhile, no_leaks),
        cmocka_unit_test_teardown(test_damage_in_the_second_part, no_leaks),
        cmocka_unit_test_teardown(test_a_read_ahead_that_fails, no_leaks),
        cmocka_unit_test_teardown(test_bounded, no_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
