/* The simulator's checker of what a metad gives up, over hand-made histories of three nodes and two groups: a good one,
 * and bad ones that differ from a good one in their last call. Keys and values are those of metad/standing.c. */
#include "sim_check.h"

#include "base/bytes.h"
#include "metad/machine.h"
#include "tests/sim/check_cut.h"

static struct sim_kv *database(struct lab *lab, uint32_t node)
{
    return lab->nodes[node]->kvs[0];
}

/* Commits one key of a group; takes the value. */
static void commits(struct lab *lab, uint32_t node, struct prefix prefix, char letter, struct writer *value)
{
    struct kv_batch *batch = kv_batch_create();
    struct key key = key_begin(prefix, letter);
    kv_batch_put(batch, key.bytes, key.count, value->data, value->bytes);
    sim_kv_commit(database(lab, node), batch);
    writer_deinit(value);
}

/* What lies under a view is the state behind an entry: it was applied, or came with a snapshot. */
static void applies(struct lab *lab, uint32_t node, uint32_t group, uint32_t view, uint64_t index)
{
    struct writer w = {0};
    writer_u64(&w, index);
    writer_u64(&w, 2); /* its term */
    writer_u64(&w, 0x5eed);
    writer_u64(&w, 0);
    writer_u64(&w, 0);
    commits(lab, node, (struct prefix){group, view}, 'a', &w);
}

static void switches(struct lab *lab, uint32_t node, uint32_t group, uint32_t view)
{
    struct writer w = {0};
    writer_u32(&w, view);
    commits(lab, node, (struct prefix){group, 0}, 'v', &w);
}

static uint64_t flush_asks(struct lab *lab, uint32_t node)
{
    return sim_kv_flush(database(lab, node));
}

static void flush_ends(struct lab *lab, uint32_t node, uint64_t flush)
{
    sim_kv_flushed(database(lab, node), flush);
}

static void flushes(struct lab *lab, uint32_t node)
{
    flush_ends(lab, node, flush_asks(lab, node));
}

/* Applied up to an entry, and flushed. */
static void stands(struct lab *lab, uint32_t node, uint32_t group, uint64_t index)
{
    applies(lab, node, group, 1, index);
    flushes(lab, node);
}

/* A group says something to its log; the last `lacks` bytes of the header are missing. */
static void says(struct lab *lab, uint32_t node, uint32_t group, uint16_t type, uint64_t index, uint32_t lacks)
{
    struct writer w = {0};
    struct actor actor = {.kind = ACTOR_GROUP, .index = group};
    writer_u32(&w, group);
    if (type == MESSAGE_LOG_RESET) {
        writer_u64(&w, 77); /* its number */
    }
    writer_u64(&w, index);
    writer_u64(&w, 2);
    w.bytes -= lacks;
    struct effect effect = lab_local(ACTOR_LOG, 0, type, &w, (struct slice){0});
    cut_check_send(lab->world, lab->nodes[node], &actor, &effect);
    lab_forget(&effect);
}

static void cuts(struct lab *lab, uint32_t node, uint32_t group, uint64_t index)
{
    says(lab, node, group, MESSAGE_LOG_CUT, index, 0);
}

static void resets(struct lab *lab, uint32_t node, uint32_t group, uint64_t index)
{
    says(lab, node, group, MESSAGE_LOG_RESET, index, 0);
}

/* What is no cut of a group, whatever its header says. */
static void says_other_things(struct lab *lab)
{
    struct writer w = {0};
    struct actor group = {.kind = ACTOR_GROUP}, log = {.kind = ACTOR_LOG};
    writer_u32(&w, 0);
    writer_u64(&w, 1000);
    writer_u64(&w, 2);
    struct effect effect = lab_local(ACTOR_LOG, 0, MESSAGE_LOG_TRIM, &w, (struct slice){0});
    cut_check_send(lab->world, lab->nodes[1], &group, &effect);
    effect.send.type = MESSAGE_LOG_CUT;
    cut_check_send(lab->world, lab->nodes[1], &log, &effect);
    effect.send.to = address_node(ROLE_METAD, 2, ACTOR_GROUP, 0);
    cut_check_send(lab->world, lab->nodes[1], &group, &effect);
    lab_forget(&effect);
    says(lab, 1, 0, MESSAGE_LOG_APPEND, 1000, 0);
    says(lab, 1, 0, MESSAGE_LOG_READ, 1000, 0);
}

/* Node 1 cuts behind flushes, gets a snapshot up to entry 20 under view 2, switches to it and empties its log. */
static void good(struct lab *lab)
{
    cuts(lab, 1, 0, 0); /* nothing */
    stands(lab, 1, 0, 9);
    applies(lab, 1, 1, 1, 4);
    cuts(lab, 1, 0, 9);
    cuts(lab, 1, 0, 6);
    flushes(lab, 1);
    cuts(lab, 1, 1, 4);
    applies(lab, 1, 0, 2, 20);
    flushes(lab, 1);
    cuts(lab, 1, 0, 9);
    switches(lab, 1, 0, 2);
    flushes(lab, 1);
    resets(lab, 1, 0, 20);
    applies(lab, 1, 0, 2, 22);
    cuts(lab, 1, 0, 20);
    lab_restart(lab, 1); /* 22 is gone again */
    resets(lab, 1, 0, 20);
    cuts(lab, 1, 1, 3);
    says_other_things(lab);
}

static void cuts_with_nothing_there(struct lab *lab)
{
    lab_turn(lab);
    cuts(lab, 1, 0, 1);
}

static void cuts_what_is_not_flushed(struct lab *lab)
{
    applies(lab, 1, 0, 1, 9);
    lab_turn(lab);
    cuts(lab, 1, 0, 9);
}

static void cuts_while_the_flush_runs(struct lab *lab)
{
    stands(lab, 1, 0, 5);
    applies(lab, 1, 0, 1, 9);
    flush_asks(lab, 1);
    cuts(lab, 1, 0, 5);
    lab_turn(lab);
    cuts(lab, 1, 0, 9);
}

static void cuts_one_too_far(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    cuts(lab, 1, 0, 10);
}

/* Committed after the flush was asked for and before it was complete. */
static void cuts_what_came_behind_the_flush(struct lab *lab)
{
    applies(lab, 1, 0, 1, 9);
    uint64_t flush = flush_asks(lab, 1);
    applies(lab, 1, 0, 1, 12);
    flush_ends(lab, 1, flush);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    cuts(lab, 1, 0, 12);
}

/* Two flushes are asked for, and the first is complete. */
static void takes_one_flush_for_another(struct lab *lab)
{
    applies(lab, 1, 0, 1, 9);
    uint64_t flush = flush_asks(lab, 1);
    applies(lab, 1, 0, 1, 12);
    flush_asks(lab, 1);
    flush_ends(lab, 1, flush);
    lab_turn(lab);
    cuts(lab, 1, 0, 12);
}

static void cuts_by_the_other_group(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    stands(lab, 1, 1, 3);
    cuts(lab, 1, 1, 3);
    lab_turn(lab);
    cuts(lab, 1, 1, 9);
}

static void cuts_by_another_node(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    stands(lab, 2, 0, 5);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    cuts(lab, 2, 0, 9);
}

/* A snapshot has arrived under view 2, and view 1 is in force. */
static void cuts_by_a_view_to_come(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    applies(lab, 1, 0, 2, 20);
    flushes(lab, 1);
    lab_turn(lab);
    cuts(lab, 1, 0, 20);
}

static void cuts_by_the_view_that_was_left(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    applies(lab, 1, 0, 2, 7);
    switches(lab, 1, 0, 2);
    flushes(lab, 1);
    cuts(lab, 1, 0, 7);
    lab_turn(lab);
    cuts(lab, 1, 0, 9);
}

/* The other group has switched to a view of that number, this one has not. */
static void cuts_by_the_other_groups_view(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    applies(lab, 1, 0, 2, 20);
    applies(lab, 1, 1, 2, 20);
    switches(lab, 1, 1, 2);
    flushes(lab, 1);
    cuts(lab, 1, 1, 20);
    lab_turn(lab);
    cuts(lab, 1, 0, 20);
}

static void cuts_what_a_crash_took_back(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    applies(lab, 1, 0, 1, 12);
    lab_restart(lab, 1);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    cuts(lab, 1, 0, 12);
}

static void cuts_behind_a_dropped_database(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    cuts(lab, 1, 0, 9);
    sim_kv_drop(database(lab, 1));
    lab_turn(lab);
    cuts(lab, 1, 0, 9);
}

static void cuts_behind_an_older_directory(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    struct sim_kv_copy *copy = sim_kv_copy_take(database(lab, 1));
    stands(lab, 1, 0, 12);
    cuts(lab, 1, 0, 12);
    sim_kv_copy_put(database(lab, 1), copy);
    sim_kv_copy_free(copy);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    cuts(lab, 1, 0, 12);
}

/* The snapshot is there durably, the switch to it is not. */
static void receives(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    applies(lab, 1, 0, 2, 20);
    flushes(lab, 1);
    switches(lab, 1, 0, 2);
}

static void resets_before_the_switch_is_flushed(struct lab *lab)
{
    receives(lab);
    lab_turn(lab);
    resets(lab, 1, 0, 20);
}

static void resets_while_the_flush_runs(struct lab *lab)
{
    receives(lab);
    flush_asks(lab, 1);
    lab_turn(lab);
    resets(lab, 1, 0, 20);
}

static void resets_past_the_snapshot(struct lab *lab)
{
    receives(lab);
    flushes(lab, 1);
    resets(lab, 1, 0, 20);
    lab_turn(lab);
    resets(lab, 1, 0, 21);
}

static void resets_to_a_switch_that_a_crash_took_back(struct lab *lab)
{
    receives(lab);
    lab_restart(lab, 1);
    cuts(lab, 1, 0, 9);
    lab_turn(lab);
    resets(lab, 1, 0, 20);
}

/* View 2 is in force, and what came under it is not there. */
static void resets_to_an_empty_view(struct lab *lab)
{
    stands(lab, 1, 0, 20);
    switches(lab, 1, 0, 2);
    flushes(lab, 1);
    lab_turn(lab);
    resets(lab, 1, 0, 20);
}

static void resets_behind_a_dropped_database(struct lab *lab)
{
    receives(lab);
    flushes(lab, 1);
    resets(lab, 1, 0, 20);
    sim_kv_drop(database(lab, 1));
    lab_turn(lab);
    resets(lab, 1, 0, 20);
}

static void cuts_without_an_index(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    lab_turn(lab);
    says(lab, 1, 0, MESSAGE_LOG_CUT, 9, 16);
}

static void cuts_without_a_whole_term(struct lab *lab)
{
    stands(lab, 1, 0, 9);
    lab_turn(lab);
    says(lab, 1, 0, MESSAGE_LOG_CUT, 9, 1);
}

static void resets_without_a_term(struct lab *lab)
{
    receives(lab);
    flushes(lab, 1);
    lab_turn(lab);
    says(lab, 1, 0, MESSAGE_LOG_RESET, 20, 8);
}

static void test_histories(void **state)
{
    (void)state;
    static const struct bad_history bad[] = {
        {"a cut with nothing there", cuts_with_nothing_there, "up to entry 1, and its database has 0"},
        {"a cut of what was never flushed", cuts_what_is_not_flushed, "up to entry 9, and its database has 0"},
        {"a cut while the flush runs", cuts_while_the_flush_runs, "up to entry 9, and its database has 5"},
        {"a cut one entry too far", cuts_one_too_far, "up to entry 10, and its database has 9"},
        {"a cut of what came behind the flush", cuts_what_came_behind_the_flush,
         "up to entry 12, and its database has 9"},
        {"one flush taken for another", takes_one_flush_for_another, "up to entry 12, and its database has 9"},
        {"a cut by the other group's state", cuts_by_the_other_group,
         "node 1 group 1 gives up its log up to entry 9, and its database has 3"},
        {"a cut by another node's state", cuts_by_another_node,
         "node 2 group 0 gives up its log up to entry 9, and its database has 5"},
        {"a cut by a view to come", cuts_by_a_view_to_come, "up to entry 20, and its database has 9"},
        {"a cut by the view that was left", cuts_by_the_view_that_was_left, "up to entry 9, and its database has 7"},
        {"a cut by the other group's view", cuts_by_the_other_groups_view, "up to entry 20, and its database has 9"},
        {"a cut of what a crash took back", cuts_what_a_crash_took_back, "up to entry 12, and its database has 9"},
        {"a cut behind a dropped database", cuts_behind_a_dropped_database, "up to entry 9, and its database has 0"},
        {"a cut behind an older directory", cuts_behind_an_older_directory, "up to entry 12, and its database has 9"},
        {"a reset before the switch is flushed", resets_before_the_switch_is_flushed,
         "up to entry 20, and its database has 9"},
        {"a reset while the flush runs", resets_while_the_flush_runs, "up to entry 20, and its database has 9"},
        {"a reset past the snapshot", resets_past_the_snapshot, "up to entry 21, and its database has 20"},
        {"a reset to a switch that a crash took back", resets_to_a_switch_that_a_crash_took_back,
         "up to entry 20, and its database has 9"},
        {"a reset to an empty view", resets_to_an_empty_view, "up to entry 20, and its database has 0"},
        {"a reset behind a dropped database", resets_behind_a_dropped_database,
         "up to entry 20, and its database has 0"},
        {"a cut without an index", cuts_without_an_index, "gives up its log"},
        {"a cut without a whole term", cuts_without_a_whole_term, "gives up its log"},
        {"a reset without a term", resets_without_a_term, "gives up its log"},
    };
    lab_judge(good, bad, sizeof bad / sizeof *bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
