/* The node's log under random crashes: one directory, many power cuts, each of which keeps any subset of the sectors
 * that were not synced. `LOG_SEEDS=n` runs more seeds. */
#include "../log_lab.h"

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

/* What is in doubt, and only that, another member has; it is brought from there. */
static void model_heal(struct lab *lab, const struct model *m, uint32_t group, uint32_t *healed)
{
    for (struct opened o = lab_opened(lab, group); o.holes > 0; o = lab_opened(lab, group)) {
        assert_true(o.doubts == o.holes && o.first_hole <= m->last && o.first_hole_term == m->terms[o.first_hole]);
        lab_heal(lab, group, o.first_hole, o.first_hole_term, m->bytes[o.first_hole]);
        (*healed)++;
    }
}

static bool model_matches(struct lab *lab, const struct model *m, uint32_t group)
{
    struct opened opened = lab_opened(lab, group);
    assert_false(opened.unsure);
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

static void crash_run(uint64_t seed, uint32_t *torn, uint32_t *whole, uint32_t *healed)
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
        model_heal(lab, &models[group], group, healed);
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
    uint32_t torn = 0, whole = 0, healed = 0;
    const char *more = getenv("LOG_SEEDS");
    uint64_t seeds = more ? strtoull(more, NULL, 10) : 10;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        crash_run(seed, &torn, &whole, &healed);
    }
    assert_true(torn > seeds * 5 && whole > seeds * 5 && healed > seeds * 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_random_crashes, no_leaks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
