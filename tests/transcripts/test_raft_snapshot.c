/* Transcripts of the log's beginning: cut behind what is durable elsewhere, snapshots asked for, installed, ignored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../raft_net.h"

static struct raft_status status_of(struct net *net, uint32_t node)
{
    return raft_status(net->nodes[node - 1].raft);
}

static struct net *led_by_one(uint32_t count, uint32_t voters, uint64_t seed)
{
    struct net *net = net_open_some(count, voters, seed);
    net_start_all(net);
    net_elect(net, 1, 0);
    net_tick(net, 1);
    net_settle(net, 0);
    assert_true(status_of(net, 1).ready);
    net_mark(net);
    return net;
}

static void propose_many(struct net *net, uint32_t node, uint32_t count, uint32_t cut)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(net_propose(net, node, 8), ERR_OK);
        net_settle(net, cut);
    }
}

static void ticks(struct net *net, uint32_t node, int count, uint32_t cut)
{
    for (int i = 0; i < count; i++) {
        net_tick(net, node);
        net_settle(net, cut);
    }
}

/* Delivers everything but snapshots. */
static void settle_messages(struct net *net)
{
    struct net_snapshot kept[NET_NODES * NET_NODES];
    uint32_t count = net->snapshot_count;
    memcpy(kept, net->snapshots, sizeof kept);
    net->snapshot_count = 0;
    for (int i = 0; i < 200; i++) {
        for (uint32_t node = 1; node <= net->count; node++) {
            while (net_persist(net, node) || net_load(net, node, 256)) {}
        }
        if (net->bag_count == 0) {
            break;
        }
        net_deliver(net, 0);
    }
    for (uint32_t i = 0; i < count; i++) {
        net->snapshots[net->snapshot_count++] = kept[i];
    }
}

/* 3 was away while the others went on and cut their logs. */
static struct net *three_is_behind(uint64_t seed)
{
    struct net *net = led_by_one(3, 3, seed);
    propose_many(net, 1, 30, 1u << 2);
    net_compact_all(net, 1);
    assert_int_equal(status_of(net, 1).base, status_of(net, 1).applied);
    net_mark(net);
    return net;
}

/* 1 finds out what 3 lacks. */
static void ask_for_snapshot(struct net *net)
{
    for (int i = 0; i < 3 && net->snapshot_count == 0; i++) {
        net_tick(net, 1);
        settle_messages(net);
    }
    assert_int_equal(net->snapshot_count, 1);
}

static void test_follower_behind_the_log_gets_a_snapshot(void **state)
{
    (void)state;
    struct net *net = three_is_behind(1);
    uint64_t at = status_of(net, 1).applied;
    ask_for_snapshot(net);
    assert_true(net->snapshots[0].to == 3 && net->snapshots[0].index == at);
    net_mark(net);
    for (int i = 0; i < 5; i++) { /* the group serves meanwhile, 3 gets heartbeats and no appends */
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
        net_tick(net, 1);
        settle_messages(net);
    }
    assert_int_equal(net->committed_last, at + 5);
    assert_true(net_traced(net, "1>3 HEARTBEAT t2"));
    assert_false(net_traced(net, "1>3 APPEND"));
    assert_int_equal(net->snapshot_count, 1); /* asked once */
    net_snapshot_end(net, 0, true);
    assert_true(net_traced(net, "3: installs 32/2\n") && net_traced(net, "3: resets to 32/2"));
    assert_int_equal(status_of(net, 3).commit, at);
    net_settle(net, 0);
    assert_true(net_traced(net, "1>3 APPEND t2 at 32/2"));
    ticks(net, 1, 2, 0);
    assert_int_equal(net->nodes[2].applied, net->committed_last);
    net_close(net);
}

static void test_lost_snapshot_is_asked_for_again(void **state)
{
    (void)state;
    struct net *net = three_is_behind(2);
    ask_for_snapshot(net);
    net_snapshot_end(net, 0, false);
    assert_int_equal(net->snapshot_count, 0); /* not before it answers */
    net_tick(net, 1);
    settle_messages(net);
    assert_int_equal(net->snapshot_count, 1);
    net_settle(net, 0);
    ticks(net, 1, 2, 0);
    assert_int_equal(net->nodes[2].applied, net->committed_last);
    net_close(net);
}

static void install(struct net *net, uint32_t node, uint64_t index, uint64_t term)
{
    struct raft_config config = net_config("1 2 3");
    net_step(net, node,
             (struct raft_event){.kind = RAFT_EVENT_INSTALLED, .index = index, .term = term, .config = &config});
}

static void test_snapshot_not_ahead_is_ignored(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 3);
    propose_many(net, 1, 10, 0);
    ticks(net, 1, 2, 0);
    struct raft_status before = status_of(net, 2);
    assert_int_equal(before.applied, 12);
    install(net, 2, 12, 2);
    install(net, 2, 5, 2);
    struct raft_status after = status_of(net, 2);
    assert_true(after.base == before.base && after.last == before.last && after.applied == before.applied);
    assert_int_equal(net->nodes[1].update.number, 0);
    net_close(net);
}

/* The log holds the snapshot's last entry: what lies behind it stays, and may have been acknowledged. */
static void test_snapshot_keeps_what_is_behind_it(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 4);
    propose_many(net, 1, 10, 0); /* a follower learns the commit index later */
    struct raft_status status = status_of(net, 2);
    assert_true(status.last == 12 && status.applied < 12);
    net_mark(net);
    assert_true(net_install(net, 2, 11, 2) || status.applied >= 11);
    assert_false(net_traced(net, "2: resets"));
    assert_true(status_of(net, 2).last == 12 && status_of(net, 2).base == 0);
    assert_int_equal(status_of(net, 2).applied, 11);
    ticks(net, 1, 2, 0);
    assert_int_equal(net->nodes[1].applied, net->committed_last);
    net_close(net);
}

/* What a deposed leader holds above the commit index conflicts with the snapshot, and goes. */
static void test_snapshot_replaces_a_conflicting_log(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 5);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    net_settle(net, 6u);
    for (int i = 0; i < 60 && status_of(net, 2).role != RAFT_LEADER; i++) {
        net_tick(net, 2);
        net_tick(net, 3);
        net_settle(net, 1u);
        if (status_of(net, 3).role == RAFT_LEADER) {
            (void)net_transfer(net, 3, 2);
            net_settle(net, 1u);
        }
    }
    propose_many(net, 2, 20, 1u);
    net_compact_all(net, 2);
    assert_true(status_of(net, 1).last > status_of(net, 2).last);
    net_mark(net);
    ticks(net, 2, 5, 0);
    assert_true(net_traced(net, "1: installs") && net_traced(net, "1: resets"));
    assert_int_equal(status_of(net, 1).last, status_of(net, 2).last);
    assert_int_equal(net->nodes[0].applied, net->committed_last);
    net_close(net);
}

/* The machine was switched to the snapshot, the log was not: the start makes good for it (R-E4). */
static void test_crash_between_install_and_reset(void **state)
{
    (void)state;
    struct net *net = three_is_behind(6);
    ask_for_snapshot(net);
    net_snapshot_end(net, 0, true);
    assert_true(net->nodes[2].write_count > 0); /* the reset */
    net_crash(net, 3, 0);
    net_start(net, 3);
    assert_true(status_of(net, 3).base == 32 && status_of(net, 3).last == 32 && status_of(net, 3).applied == 32);
    propose_many(net, 1, 3, 0);
    ticks(net, 1, 3, 0);
    assert_int_equal(net->nodes[2].applied, net->committed_last);
    net_close(net);
}

/* Delivers everything, with the disk of 3 standing still. */
static void settle_without_disk_of_three(struct net *net)
{
    for (int i = 0; i < 200 && net->bag_count > 0; i++) {
        net_deliver(net, 0);
        while (net_persist(net, 1) || net_persist(net, 2)) {}
    }
}

/* Who loses its machine votes by its log (R-E5): so the log must hold what the snapshot brought before it is
 * acknowledged, however durable the machine is. */
static void test_nothing_is_acknowledged_before_the_reset(void **state)
{
    (void)state;
    struct net *net = three_is_behind(10);
    ask_for_snapshot(net);
    uint64_t at = status_of(net, 1).applied;
    net_crash(net, 2, 0);
    net_snapshot_end(net, 0, true);
    assert_int_equal(net->nodes[2].write_count, 1); /* the reset */
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    for (int i = 0; i < 3; i++) {
        net_tick(net, 1);
        settle_without_disk_of_three(net);
    }
    assert_true(net_traced(net, "1>3 APPEND t2 at 32/2"));
    assert_false(net_traced(net, "3>1 APPEND_REPLY t2 at"));
    assert_true(status_of(net, 1).commit == at && status_of(net, 3).last == at + 1);
    net_settle(net, 0);
    assert_true(net_traced(net, "3>1 APPEND_REPLY t2 at 32/0"));
    assert_int_equal(status_of(net, 1).commit, at + 1);
    net_crash(net, 3, 0);
    net->nodes[2].flushed = 0; /* its machine is lost */
    net_start(net, 3);
    assert_true(status_of(net, 3).lost && status_of(net, 3).last == at + 1);
    net_close(net);
}

/* The log's own append of the snapshot's last entry hangs in the disk. */
static void test_nothing_is_acknowledged_before_the_append(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 11);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    uint64_t at = status_of(net, 1).last;
    settle_without_disk_of_three(net);
    assert_true(status_of(net, 1).commit == at && status_of(net, 3).last == at && net->nodes[2].write_count == 1);
    net_mark(net);
    assert_true(net_install(net, 3, at, 2));
    assert_true(!net_traced(net, "3: resets") && status_of(net, 3).applied == at);
    for (int i = 0; i < 3; i++) {
        net_tick(net, 1);
        settle_without_disk_of_three(net);
    }
    assert_false(net_traced(net, "3>1 APPEND_REPLY"));
    assert_true(net_persist(net, 3));
    assert_true(net_traced(net, "3>1 APPEND_REPLY t2 at"));
    net_close(net);
}

static void test_cut_log_starts_again_and_leads(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 7);
    propose_many(net, 1, 10, 0);
    net->nodes[0].flushed = 9;
    net_compact(net, 1, 7);
    assert_int_equal(status_of(net, 1).base, 7);
    propose_many(net, 1, 2, 0);
    net_crash(net, 1, 0);
    net_start(net, 1);
    assert_true(status_of(net, 1).base == 7 && status_of(net, 1).applied == 9 && status_of(net, 1).last == 14);
    net_crash(net, 2, 0);
    net_crash(net, 3, 0);
    net_start(net, 2);
    net_start(net, 3);
    net_elect(net, 1, 0);
    assert_true(status_of(net, 1).ready);
    assert_int_equal(net->nodes[0].applied, net->committed_last);
    net_close(net);
}

/* A member that joins after the log was cut learns the members from the snapshot. */
static void test_snapshot_brings_the_members(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 8);
    struct raft_config config = net_config("1 2 3 4l");
    assert_int_equal(net_change(net, 1, &config), ERR_OK);
    net_settle(net, 1u << 3);
    propose_many(net, 1, 10, 1u << 3);
    net_compact_all(net, 1);
    ticks(net, 1, 4, 0);
    assert_true(net_traced(net, "4: installs"));
    assert_true(net_config_is(net, 4, "1 2 3 4l"));
    assert_int_equal(net->nodes[3].applied, net->committed_last);
    net_crash(net, 4, 0);
    net_start(net, 4);
    assert_true(net_config_is(net, 4, "1 2 3 4l"));
    net_close(net);
}

/* The term that came with a snapshot was lost with the crash: the node goes on in the snapshot's, without a vote. */
static void test_term_is_never_below_the_snapshots(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 9);
    propose_many(net, 1, 10, 1u << 2);
    struct net_node *three = &net->nodes[2];
    net_crash(net, 3, 0);
    three->hard = (struct raft_hard_state){.term = 1, .vote = 3};
    three->flushed = 12;
    net_start(net, 3);
    assert_true(status_of(net, 3).term == 2 && status_of(net, 3).vote == 0);
    net_step(net, 3, (struct raft_event){.kind = RAFT_EVENT_CONTINUE});
    assert_true(three->update.number != 0 && three->update.hard_changed);
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_follower_behind_the_log_gets_a_snapshot),
        cmocka_unit_test(test_lost_snapshot_is_asked_for_again),
        cmocka_unit_test(test_snapshot_not_ahead_is_ignored),
        cmocka_unit_test(test_snapshot_keeps_what_is_behind_it),
        cmocka_unit_test(test_snapshot_replaces_a_conflicting_log),
        cmocka_unit_test(test_crash_between_install_and_reset),
        cmocka_unit_test(test_nothing_is_acknowledged_before_the_reset),
        cmocka_unit_test(test_nothing_is_acknowledged_before_the_append),
        cmocka_unit_test(test_cut_log_starts_again_and_leads),
        cmocka_unit_test(test_snapshot_brings_the_members),
        cmocka_unit_test(test_term_is_never_below_the_snapshots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
