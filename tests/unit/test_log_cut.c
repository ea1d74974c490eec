/* The node's log when it is cut: segments that nobody needs are used again or removed, a restart finds the rest, and a
 * crash at any effect loses nothing that was answered. `LOG_SEEDS=n` runs more seeds. */
#include "../log_lab.h"

static uint32_t lab_files(const struct lab *lab)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < FILES; i++) {
        count += lab->files[i] != NULL;
    }
    return count;
}

/* One group fills many segments and gives up what is behind: the disk holds a few files for ever. */
static void test_segments_are_used_again(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    uint32_t restarts = 0, most = 0;
    for (uint64_t i = 1; i <= 400; i++) {
        lab_append(lab, 2, i, 1 + i / 50, 1, 3000, i == 1 || i % 50 == 0 ? 1 + i / 50 : 0, 0);
        lab_run(lab);
        assert_non_null(lab_reply(lab, lab->stream));
        if (i > 10) {
            lab_cut(lab, 2, i - 10, 1 + (i - 10) / 50);
            lab_run(lab);
        }
        most = lab_files(lab) > most ? lab_files(lab) : most;
        if (i % 37 == 0) {
            lab_restart(lab);
            assert_false(lab->halted);
            restarts++;
            struct opened opened = lab_opened(lab, 2);
            assert_true(opened.last == i && opened.base <= i - 10 && opened.base + 40 > i);
            assert_int_equal(opened.base_term, 1 + opened.base / 50);
            for (uint64_t e = opened.base + 1; e <= i; e++) {
                assert_int_equal(lab_check_entries(lab, 2, e, 1, 1 + e / 50, 3000), 1);
            }
            assert_int_equal(lab_check_entries(lab, 2, opened.base, 1, 1, 3000), 0); /* not behind the base */
        }
    }
    assert_true(most <= 6 && restarts == 10);
    assert_true(log_status(lab->log).append_position >> 32 > 20); /* segments, in so few files */
    assert_int_equal(lab->pinned, 0);
    lab_close(lab);
}

/* A group that keeps the oldest of many segments is told; what another group gave up goes only then. */
static void test_pinned(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    lab_append(lab, 1, 1, 1, 1, 100, 1, 0);
    lab_run(lab);
    for (uint64_t i = 1; i <= 150; i++) {
        lab_append(lab, 2, i, 1, 1, 3000, i == 1, 0);
        lab_run(lab);
        if (i > 5) {
            lab_cut(lab, 2, i - 5, 1);
        }
        lab_run(lab);
    }
    assert_int_equal(lab->pinned, 1u << 1);
    assert_int_equal(lab->pinned_to, 1); /* more segments than are kept for who lags */
    uint32_t segments = log_status(lab->log).segments, removed = lab->removed;
    assert_true(segments > 7);
    lab_cut(lab, 1, 1, 1);
    lab_run(lab);
    assert_true(log_status(lab->log).segments <= 2);
    assert_int_equal(lab->removed, removed + segments - log_status(lab->log).segments - 2);
    lab_restart(lab);
    assert_false(lab->halted);
    struct opened opened = lab_opened(lab, 1);
    assert_true(opened.base == 1 && opened.last == 1 && opened.term == 1 && opened.last_term == 1);
    lab_append(lab, 1, 2, 1, 1, 10, 0, 0);
    lab_run(lab);
    assert_int_equal(lab_check_entries(lab, 1, 2, 1, 1, 10), 1);
    lab_close(lab);
}

static void test_reset(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    lab_append(lab, 3, 1, 2, 20, 500, 2, 1);
    lab_append(lab, 4, 1, 2, 5, 500, 2, 1);
    lab_run(lab);
    lab->no_syncs = true;
    lab_append(lab, 3, 21, 2, 1, 50, 0, 0);
    uint64_t before = lab->stream;
    lab_reset(lab, 3, 77, 1000, 5);
    uint64_t reset = lab->stream;
    lab_append(lab, 3, 1001, 6, 2, 60, 6, 2);
    lab_run(lab);
    assert_null(lab_reply(lab, before));
    assert_null(lab_reply(lab, reset));
    lab->no_syncs = false;
    lab_run(lab);
    assert_non_null(lab_reply(lab, before));
    struct reply *reply = lab_reply(lab, reset);
    assert_true(reply != NULL && reply->type == MESSAGE_LOG_RESET && get_u64(reply->header.data) == 77);
    for (int again = 0; again < 2; again++) {
        struct opened opened = lab_opened(lab, 3);
        assert_true(opened.base == 1000 && opened.base_term == 5 && opened.last == 1002 && opened.last_term == 6);
        assert_true(opened.term == 6 && opened.vote == 2);
        assert_int_equal(lab_check_entries(lab, 3, 1001, 5, 6, 60), 2);
        assert_int_equal(lab_check_entries(lab, 3, 20, 1, 2, 500), 0);
        assert_int_equal(lab_opened(lab, 4).last, 5);
        lab_restart(lab);
        assert_false(lab->halted);
    }
    lab_close(lab);
}

/* ---- a segment whose first write is torn ---- */

#define HEADLESS_ENTRY 3000u

/* Appends until a write begins a new segment. Returns that write's last entry. */
static uint64_t fill_segment(struct lab *lab, uint64_t last)
{
    uint64_t begun = log_status(lab->log).append_position >> 32;
    while (log_status(lab->log).append_position >> 32 == begun) {
        lab_append(lab, 2, ++last, 1, 1, HEADLESS_ENTRY, 0, 0);
        lab_run(lab);
    }
    assert_int_equal(lab->last_write_at, 0);
    return last;
}

/* The first write of a segment says how all groups stand. One that lost sectors in a power cut can not: the segment is
 * readable only behind the one before it, which stays as long, though nobody needs an entry of that. `lost`: sectors
 * that hold nothing, from the first on; ret_sectors: of that write. */
static void headless_run(uint64_t lost, uint64_t *ret_sectors)
{
    struct lab *lab = lab_open(64u << 10);
    lab_append(lab, 1, 1, 7, 1, 100, 7, 3); /* nothing but first writes tells its vote from now on */
    lab_append(lab, 2, 1, 1, 1, HEADLESS_ENTRY, 1, 0);
    lab_run(lab);
    uint64_t last = 1;
    for (uint32_t i = 0; i < 4; i++) { /* more than are kept as files: what is given up is gone */
        last = fill_segment(lab, last);
    }
    *ret_sectors = lab->last_write_bytes / 512;
    memset(lab->files[lab->last_write_file], 0, lost * 512);
    lab_restart(lab);
    struct opened opened = lab_opened(lab, 2);
    assert_true(!lab->halted && !opened.unsure && opened.holes <= 1 && opened.last >= last - 1);
    last = opened.last;
    if (opened.holes > 0) {
        assert_true(opened.doubts == 1 && opened.first_hole == last);
        lab_heal(lab, 2, last, 1, HEADLESS_ENTRY);
    }
    for (uint64_t first = ++last; last < first + 3; last++) {
        lab_append(lab, 2, last, 1, 1, HEADLESS_ENTRY, 0, 0);
        lab_run(lab);
    }
    lab_cut(lab, 1, 1, 7);
    lab_cut(lab, 2, last - 2, 1); /* behind all of the segments before */
    lab_append(lab, 2, last, 1, 1, HEADLESS_ENTRY, 0, 0);
    lab_run(lab);
    for (int again = 0; again < 2; again++) {
        lab_restart(lab);
        assert_false(lab->halted);
        opened = lab_opened(lab, 1);
        assert_true(!opened.unsure && opened.term == 7 && opened.vote == 3 && opened.last == 1);
        opened = lab_opened(lab, 2);
        assert_true(!opened.unsure && opened.last == last && opened.holes == 0);
    }
    last = fill_segment(lab, last);
    lab_cut(lab, 1, 1, 7);
    lab_cut(lab, 2, last - 1, 1); /* behind all of this one, too */
    lab_run(lab);
    assert_int_equal(log_status(lab->log).segments, 1);
    lab_restart(lab);
    opened = lab_opened(lab, 1);
    assert_true(!lab->halted && !opened.unsure && opened.term == 7 && opened.vote == 3 && opened.last == 1);
    lab_close(lab);
}

static void test_first_write_torn(void **state)
{
    (void)state;
    uint64_t sectors = 1;
    for (uint64_t lost = 1; lost <= sectors; lost++) {
        headless_run(lost, &sectors);
    }
    assert_true(sectors >= 8);
}

static void append_config(struct lab *lab, uint32_t group, uint64_t index, uint64_t term, const char *text)
{
    struct raft_entry entry = {
        .index = index, .term = term, .type = RAFT_ENTRY_CONFIG, .data = slice_copy(text, strlen(text))};
    struct slice body;
    raft_entries_encode(&entry, 1, &body);
    struct writer w = {0};
    writer_u32(&w, group);
    writer_u64(&w, index);
    writer_u8(&w, 0);
    writer_u64(&w, 0);
    writer_u32(&w, 0);
    lab_message(lab, MESSAGE_LOG_APPEND, &w, body);
    slice_drop(&entry.data);
    lab_run(lab);
}

static void check_configs(struct lab *lab, uint32_t group, const char *texts)
{
    struct opened opened = lab_opened(lab, group);
    struct reply *reply = lab_reply(lab, lab->stream);
    struct reader r = reader_of(reply->header.data, reply->header.bytes);
    (void)reader_take(&r, 8 + 4 + 8 + 8 + 8 + 4 + 16 * opened.runs + 4);
    char found[64] = "";
    for (uint32_t i = 0; i < opened.configs; i++) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%llu=", (unsigned long long)reader_u64(&r));
        uint32_t bytes = reader_u32(&r);
        strncat(found, (const char *)reader_take(&r, bytes), bytes);
    }
    assert_string_equal(found, texts);
}

/* LOG_OPEN hands over the configurations that are part of the log, whatever replaced or cut others. */
static void test_configurations(void **state)
{
    (void)state;
    struct lab *lab = lab_open(64u << 10);
    lab_append(lab, 1, 1, 1, 3, 10, 1, 0);
    append_config(lab, 1, 4, 1, "a");
    append_config(lab, 1, 5, 1, "b");
    append_config(lab, 1, 6, 1, "c");
    for (int again = 0; again < 2; again++) {
        check_configs(lab, 1, "4=a5=b6=c");
        lab_restart(lab);
    }
    lab_append(lab, 1, 6, 2, 2, 10, 2, 0);
    lab_run(lab);
    lab_cut(lab, 1, 4, 1);
    check_configs(lab, 1, "5=b");
    lab_reset(lab, 1, 9, 50, 2);
    lab_run(lab);
    check_configs(lab, 1, "");
    lab_restart(lab);
    check_configs(lab, 1, "");
    lab_close(lab);
}

/* ---- crashes ---- */

#define GROUPS 3u
#define STATES 400u

/* A group's log as it stood after one of its requests. */
struct stand {
    uint64_t base, base_term, last, term;
    uint64_t terms[2000];
    uint64_t stream; /* of the request */
};
struct history {
    struct stand stands[STATES];
    uint32_t count, acknowledged;
};

static uint64_t random_next(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint32_t entry_bytes(uint64_t index, uint64_t term)
{
    return (uint32_t)((index * 977 + term * 131) % 2500);
}

static void history_append(struct lab *lab, struct history *h, uint32_t group, uint64_t *random)
{
    struct stand next = h->stands[h->count - 1];
    bool over = next.last > next.base + 3 && random_next(random) % 6 == 0;
    uint64_t first = over ? next.last - random_next(random) % 3 : next.last + 1;
    bool new_term = over || next.last == 0 || random_next(random) % 8 == 0;
    next.term += new_term;
    uint64_t count = 1 + random_next(random) % 4;
    for (uint64_t i = 0; i < count; i++) { /* entries of one request differ in size: one request each */
        next.last = first + i;
        next.terms[next.last % 2000] = next.term;
        lab_append(lab, group, next.last, next.term, 1, entry_bytes(next.last, next.term),
                   new_term && i == 0 ? next.term : 0, 1);
        next.stream = lab->stream;
        assert_true(h->count < STATES);
        h->stands[h->count++] = next;
    }
}

static void history_step(struct lab *lab, struct history *h, uint32_t group, uint64_t *random)
{
    struct stand *now = &h->stands[h->count - 1];
    struct stand *safe = &h->stands[h->acknowledged];
    uint64_t kind = random_next(random) % 20;
    if (kind == 0 && now->last > 0) {
        struct stand next = *now;
        next.base = next.last = now->last + 5;
        next.base_term = now->term;
        lab_reset(lab, group, 1, next.base, next.base_term);
        next.stream = lab->stream;
        h->stands[h->count++] = next;
    } else if (kind < 8 && safe->last > safe->base + 5 && h->acknowledged + 1 == h->count) {
        uint64_t index = safe->last - random_next(random) % 4;
        lab_cut(lab, group, index, safe->terms[index % 2000]);
        safe->base_term = safe->terms[index % 2000];
        safe->base = index;
    } else {
        history_append(lab, h, group, random);
    }
}

static void history_acknowledge(struct lab *lab, struct history *h)
{
    while (h->acknowledged + 1 < h->count && lab_reply(lab, h->stands[h->acknowledged + 1].stream) != NULL) {
        h->acknowledged++;
    }
}

/* The write that was not synced keeps any subset of its sectors. */
static void tear(struct lab *lab, const struct image *before, uint64_t *random)
{
    uint64_t file = lab->last_write_file, style = random_next(random) % 4;
    for (uint64_t at = lab->last_write_at; at < lab->last_write_at + lab->last_write_bytes; at += 512) {
        bool keep = style == 0 ? true : style == 1 ? false : random_next(random) % (style == 2 ? 2 : 16) != 0;
        if (!keep && at < before->bytes[file]) {
            memcpy(lab->files[file] + at, before->files[file] + at, 512);
        } else if (!keep) {
            memset(lab->files[file] + at, 0, 512);
        }
    }
}

static bool history_is(struct lab *lab, uint32_t group, const struct opened *opened, const struct stand *stand)
{
    if (opened->last != stand->last || opened->base > stand->base || opened->term != stand->term) {
        return false;
    }
    for (uint64_t i = opened->base + 1; i <= stand->last; i++) {
        if (i <= stand->base) {
            continue; /* cut: it may be there again */
        }
        uint64_t term = stand->terms[i % 2000];
        if (lab_check_entries(lab, group, i, 1, term, entry_bytes(i, term)) != 1) {
            return false;
        }
    }
    return true;
}

/* What is in doubt is brought from another member. */
static void history_heal(struct lab *lab, uint32_t group)
{
    for (struct opened o = lab_opened(lab, group); o.holes > 0; o = lab_opened(lab, group)) {
        assert_int_equal(o.doubts, o.holes);
        lab_heal(lab, group, o.first_hole, o.first_hole_term, entry_bytes(o.first_hole, o.first_hole_term));
    }
}

/* After a restart: some state between what was answered and what was asked; from there it goes on. */
static void history_match(struct lab *lab, struct history *h, uint32_t group, uint64_t seed)
{
    history_heal(lab, group);
    struct opened opened = lab_opened(lab, group);
    assert_false(opened.unsure);
    uint32_t found = h->count;
    for (uint32_t i = h->acknowledged; i < h->count && found == h->count; i++) {
        const struct stand *s = &h->stands[i];
        bool term =
            s->last == s->base ? opened.last_term == s->base_term : opened.last_term == s->terms[s->last % 2000];
        if (s->last == opened.last && (s->last == 0 || term) && s->term == opened.term && opened.base <= s->base) {
            found = i;
        }
    }
    if (found == h->count || !history_is(lab, group, &opened, &h->stands[found])) {
        fail_msg("seed %llu: group %u opens with base %llu last %llu term %llu", (unsigned long long)seed, group,
                 (unsigned long long)opened.base, (unsigned long long)opened.last, (unsigned long long)opened.term);
    }
    h->stands[0] = h->stands[found];
    h->count = 1;
    h->acknowledged = 0;
}

static void crash_run(uint64_t seed, uint32_t *crashes, uint64_t *segments)
{
    uint64_t random = seed;
    struct lab *lab = lab_open(64u << 10);
    struct history *histories = calloc(GROUPS, sizeof *histories);
    for (uint32_t g = 0; g < GROUPS; g++) {
        histories[g].count = 1;
    }
    for (uint32_t round = 0; round < 60; round++) {
        for (uint64_t n = 1 + random_next(&random) % 12; n > 0; n--) {
            uint32_t group = (uint32_t)(random_next(&random) % GROUPS);
            history_step(lab, &histories[group], group, &random);
            if (random_next(&random) % 3 != 0) {
                lab_run(lab);
                for (uint32_t g = 0; g < GROUPS; g++) {
                    history_acknowledge(lab, &histories[g]);
                }
            }
        }
        struct image before = {0};
        bool torn = false;
        for (uint64_t boundary = random_next(&random) % 8; boundary > 0; boundary--) { /* crashes before this effect */
            uint64_t writes = lab->writes, syncs = lab->syncs;
            struct image now = image_take(lab);
            lab_run_one(lab);
            if (lab->writes > writes) {
                image_free(&before);
                before = now;
                torn = true;
            } else {
                image_free(&now);
            }
            torn = torn && lab->syncs == syncs;
        }
        for (uint32_t g = 0; g < GROUPS; g++) {
            history_acknowledge(lab, &histories[g]);
        }
        if (torn) {
            tear(lab, &before, &random);
        }
        image_free(&before);
        lab_restart(lab);
        if (lab->halted) {
            fail_msg("seed %llu round %u: %s", (unsigned long long)seed, round, lab->halt_reason);
        }
        for (uint32_t g = 0; g < GROUPS; g++) {
            history_match(lab, &histories[g], g, seed);
        }
        (*crashes)++;
    }
    *segments += log_status(lab->log).append_position >> 32;
    assert_true(lab_files(lab) < 20);
    free(histories);
    lab_close(lab);
}

static void test_crash_at_any_effect(void **state)
{
    (void)state;
    const char *more = getenv("LOG_SEEDS");
    uint64_t seeds = more ? strtoull(more, NULL, 10) : 20, segments = 0;
    uint32_t crashes = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        crash_run(seed, &crashes, &segments);
    }
    assert_true(crashes == seeds * 60 && segments > seeds * 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_segments_are_used_again, no_leaks),
        cmocka_unit_test_teardown(test_pinned, no_leaks),
        cmocka_unit_test_teardown(test_reset, no_leaks),
        cmocka_unit_test_teardown(test_first_write_torn, no_leaks),
        cmocka_unit_test_teardown(test_configurations, no_leaks),
        cmocka_unit_test_teardown(test_crash_at_any_effect, no_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
