/* Transcripts of logs with holes (R-E1, R-E2): who lacks an entry by rot votes by its last one, and neither leads nor
 * acknowledges past it until it is healed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../raft_net.h"

static struct raft_status status_of(struct net *net, uint32_t node)
{
    return raft_status(net->nodes[node - 1].raft);
}

/* 1 led, all hold entries 1..12 of term 1 and 2; then all went down. Nothing is applied durably. */
static struct net *twelve_entries(uint32_t count, uint64_t seed)
{
    struct net *net = net_open(count, seed);
    net_start_all(net);
    net_elect(net, 1, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
        net_settle(net, 0);
    }
    for (int i = 0; i < 4; i++) {
        net_tick(net, 1);
        net_settle(net, 0);
    }
    for (uint32_t node = 1; node <= count; node++) {
        assert_int_equal(status_of(net, node).last, 12);
        net_crash(net, node, 0);
    }
    net_mark(net);
    return net;
}

static void ticks(struct net *net, uint32_t node, int count, uint32_t cut)
{
    for (int i = 0; i < count; i++) {
        net_tick(net, node);
        net_settle(net, cut);
    }
}

static void test_a_hole_does_not_campaign(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 1);
    net->nodes[0].hole = 5;
    net_start_all(net);
    ticks(net, 1, 100, 0);
    assert_true(status_of(net, 1).role == RAFT_FOLLOWER && status_of(net, 1).term == 2);
    assert_true(net_heal(net, 1));
    ticks(net, 1, 30, 0);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_close(net);
}

static void test_a_hole_votes_by_its_last_entry(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 2);
    net->nodes[0].hole = 5;
    net->nodes[1].disk.last = net->nodes[1].view.last = 11; /* it never had the last one */
    net_start(net, 1);
    net_start(net, 2);
    ticks(net, 2, 60, 0); /* 1 refuses: it has promised entry 12 */
    assert_true(status_of(net, 2).role != RAFT_LEADER && status_of(net, 1).vote == 1);
    net_start(net, 3);
    ticks(net, 3, 30, 0);
    assert_int_equal(status_of(net, 3).role, RAFT_LEADER);
    net_close(net);
}

static void test_one_flipped_sector_on_two_of_three(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 3);
    net->nodes[0].hole = 5;
    net->nodes[1].hole = 12;
    net_start(net, 1);
    net_start(net, 2); /* 3 stays away: both that are there lack something, and every byte is there */
    ticks(net, 1, 40, 0);
    ticks(net, 2, 40, 0);
    assert_true(status_of(net, 1).role == RAFT_FOLLOWER && status_of(net, 2).role == RAFT_FOLLOWER);
    assert_true(net_heal(net, 1) && net_heal(net, 2));
    ticks(net, 1, 30, 0);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    ticks(net, 1, 6, 0);
    assert_true(status_of(net, 1).commit >= 13 && status_of(net, 2).applied >= 12);
    net_close(net);
}

static void test_nothing_past_a_hole_is_acknowledged(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 4);
    net->nodes[2].hole = 7;
    net_start(net, 1);
    net_start(net, 3);
    net_elect(net, 1, 0);
    ticks(net, 1, 9, 0);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER); /* its vote and its heartbeats count */
    assert_true(status_of(net, 1).commit < 7 && status_of(net, 3).applied < 7);
    assert_int_equal(status_of(net, 1).match[2], 6);
    assert_true(net_heal(net, 3));
    ticks(net, 1, 9, 0);
    assert_true(status_of(net, 1).commit >= 13 && status_of(net, 3).applied >= 12);
    net_close(net);
}

/* The damaged entry is a configuration: it is in force once it is known. */
static void test_a_configuration_in_a_hole(void **state)
{
    (void)state;
    struct net *net = net_open_some(4, 3, 5);
    net_start_all(net);
    net_elect(net, 1, 0);
    ticks(net, 1, 4, 0);
    struct raft_config target = net_config("1v 2v 3v 4l");
    assert_int_equal(net_change(net, 1, &target), ERR_OK);
    net_settle(net, 0);
    ticks(net, 1, 6, 0);
    uint64_t at = status_of(net, 3).config.index;
    assert_true(at > 2 && net_config_is(net, 3, "1v 2v 3v 4l"));
    net_crash(net, 3, 0);
    net->nodes[2].flushed = at - 1 < net->nodes[2].flushed ? net->nodes[2].flushed : 0;
    net->nodes[2].hole = at;
    net_start(net, 3);
    assert_false(net_config_is(net, 3, "1v 2v 3v 4l"));
    assert_true(net_heal(net, 3));
    assert_true(net_config_is(net, 3, "1v 2v 3v 4l"));
    assert_int_equal(status_of(net, 3).config.index, at);
    net_close(net);
}

/* Nobody else has the doubtful entry: it goes, and what is behind it. A leader's other entry mends as well. */
static void test_a_doubtful_tail_is_cut(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 6);
    for (uint32_t i = 0; i < 2; i++) {
        net->nodes[i].disk.last = net->nodes[i].view.last = 10;
    }
    net->nodes[2].hole = 11;
    net->committed_last = net->committed_last > 10 ? 10 : net->committed_last;
    net_start(net, 3);
    net_start(net, 1);
    assert_false(net_heal(net, 3)); /* 2 was not asked */
    net_start(net, 2);
    assert_true(net_heal(net, 3));
    assert_int_equal(status_of(net, 3).last, 10);
    ticks(net, 3, 30, 0);
    assert_int_equal(status_of(net, 3).role, RAFT_LEADER);
    net_crash(net, 3, 0);
    net_close(net);

    net = twelve_entries(3, 7);
    for (uint32_t i = 0; i < 2; i++) {
        net->nodes[i].disk.last = net->nodes[i].view.last = 10;
    }
    net->nodes[2].hole = 11;
    net->committed_last = net->committed_last > 10 ? 10 : net->committed_last;
    net_start_all(net);
    net_elect(net, 1, 1u << 2);
    ticks(net, 1, 12, 0);
    assert_true(status_of(net, 3).hole == 0 && status_of(net, 3).commit >= 11);
    net_close(net);
}

/* What fills the hole is in a snapshot only; the leader's comes by itself. */
static void test_a_snapshot_over_a_hole(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 8);
    net_start(net, 1);
    net_start(net, 2);
    net_elect(net, 1, 0);
    ticks(net, 1, 6, 0);
    net_compact_all(net, 1);
    net_compact_all(net, 2);
    net->nodes[2].hole = 4;
    net_start(net, 3);
    ticks(net, 1, 9, 0);
    assert_true(status_of(net, 3).hole == 0 && net->nodes[2].applied >= 12);
    net_close(net);
}

/* Nobody may lead: who has the longest log has a hole in it, and what fills that is in a follower's snapshot. */
static void test_a_followers_snapshot_over_a_hole(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 9);
    net->nodes[1].disk.last = net->nodes[1].view.last = 11; /* 12 is on a majority, 1 and 3 */
    net->nodes[1].flushed = 9;
    net_start(net, 2);
    net_compact(net, 2, 9);
    net->nodes[2].hole = 4;
    net_start(net, 3);
    assert_true(status_of(net, 2).base == 9 && status_of(net, 3).hole == 4);
    ticks(net, 2, 60, 0);
    ticks(net, 3, 60, 0);
    assert_true(status_of(net, 2).role != RAFT_LEADER && status_of(net, 3).role == RAFT_FOLLOWER);
    assert_true(net_heal(net, 3) && status_of(net, 3).hole == 0);
    ticks(net, 3, 90, 0);
    assert_int_equal(status_of(net, 3).role, RAFT_LEADER);
    net_close(net);
}

/* R-E5: a machine that was lost behind a log that was cut. The node votes and acknowledges; it does not lead, and
 * delivers nothing before it has a snapshot. */
static void test_a_lost_machine_acknowledges_and_does_not_lead(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 7);
    for (uint32_t node = 1; node <= 3; node++) {
        net->nodes[node - 1].flushed = 12;
        net_start(net, node);
        net_compact(net, node, 8);
        net_crash(net, node, 0);
    }
    net->nodes[0].flushed = net->nodes[1].flushed = 0; /* of two of three */
    net_start_all(net);
    assert_true(status_of(net, 1).lost && status_of(net, 2).lost && !status_of(net, 3).lost);
    ticks(net, 1, 60, 0);
    ticks(net, 2, 60, 0);
    assert_true(status_of(net, 1).role == RAFT_FOLLOWER && status_of(net, 2).role == RAFT_FOLLOWER);
    assert_int_equal(status_of(net, 1).term, 2);
    ticks(net, 3, 30, 0);
    assert_true(status_of(net, 3).role == RAFT_LEADER && status_of(net, 3).ready); /* by their votes and answers */
    assert_int_equal(net_propose(net, 3, 8), ERR_OK);
    net_settle(net, 0);
    ticks(net, 3, 2, 0);
    assert_int_equal(status_of(net, 1).commit, 14);
    assert_int_equal(status_of(net, 1).applied, 8);
    assert_true(net_restore(net, 1) && net_restore(net, 2));
    net_settle(net, 0);
    assert_true(net_config_is(net, 1, "1 2 3"));
    assert_int_equal(net->nodes[0].applied, 14);
    ticks(net, 2, 10, 1u << 2); /* it hears 3 no more */
    ticks(net, 1, 60, 1u << 2);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_close(net);
}

/* The two whose machines are lost have the longest logs, so nobody may lead; the third has all that it needs, and does
 * not know how far it is committed. They say so. */
static void test_a_lost_machine_says_what_is_committed(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 8);
    for (uint32_t node = 1; node <= 2; node++) {
        net->nodes[node - 1].flushed = 12;
        net_start(net, node);
        net_compact(net, node, 8);
        net_crash(net, node, 0);
        net->nodes[node - 1].flushed = 0;
    }
    net->nodes[2].disk.last = net->nodes[2].view.last = 11;
    net_start_all(net);
    for (uint32_t node = 1; node <= 3; node++) {
        ticks(net, node, 60, 0);
        assert_int_equal(status_of(net, node).role, RAFT_FOLLOWER);
    }
    assert_int_equal(status_of(net, 3).applied, 0);
    net_step(net, 3, (struct raft_event){.kind = RAFT_EVENT_COMMITTED, .index = 8, .term = 1}); /* of another term */
    assert_int_equal(status_of(net, 3).commit, 0);
    assert_false(net_restore(net, 1)); /* 3 reads its entries first */
    assert_int_equal(status_of(net, 3).commit, 8);
    while (net_load(net, 3, 100)) {}
    assert_int_equal(net->nodes[2].applied, 8);
    assert_true(net_restore(net, 1));
    ticks(net, 1, 60, 0);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_close(net);
}

/* Rot that a running leader meets when it reads for a follower: what it has applied it gives up, behind a flush, and
 * leads on; who needs the entry gets a snapshot. Until then it does not ask its log for it over and over. */
static void test_rot_met_by_a_leader(void **state)
{
    (void)state;
    struct net *net = net_open(3, 9);
    net->params.cache_bytes = 1;
    net_start_all(net);
    net_elect(net, 1, 1u << 2);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
        net_settle(net, 1u << 2);
    }
    ticks(net, 1, 3, 1u << 2);
    assert_true(status_of(net, 1).applied == 12 && status_of(net, 3).last == 1);
    net_rot(net, 1, 6);
    for (int i = 0; i < 40 && status_of(net, 3).last < 5; i++) {
        ticks(net, 1, 1, 0);
    }
    ticks(net, 1, 20, 0);
    assert_true(status_of(net, 3).last == 5 && net->nodes[0].load_count == 0 && net->installs == 0);
    assert_true(status_of(net, 1).role == RAFT_LEADER && status_of(net, 1).hole == 0);
    assert_true(net_give_up(net, 1));
    ticks(net, 1, 10, 0);
    assert_int_equal(net->installs, 1);
    assert_int_equal(net->nodes[2].applied, 12);
    net_close(net);
}

/* Met by one that has not applied it: a hole like at the start, and no leader. */
static void test_rot_met_before_it_is_applied(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 10);
    net_start_all(net);
    net_step(net, 2, (struct raft_event){.kind = RAFT_EVENT_ROTTEN, .index = 7, .term = 1}); /* not of that name */
    assert_int_equal(status_of(net, 2).hole, 0);
    net_rot(net, 2, 7);
    assert_int_equal(status_of(net, 2).hole, 7);
    ticks(net, 2, 60, 0);
    assert_int_equal(status_of(net, 2).role, RAFT_FOLLOWER);
    ticks(net, 1, 30, 0);
    assert_true(status_of(net, 1).role == RAFT_LEADER && net->nodes[1].applied < 7);
    assert_true(net_heal(net, 2));
    ticks(net, 1, 3, 0);
    assert_int_equal(net->nodes[1].applied, net->committed_last);
    net_close(net);
}

/* A leader that is still reading what it has to apply. */
static void test_rot_deposes_a_leader_that_has_not_applied_it(void **state)
{
    (void)state;
    struct net *net = twelve_entries(3, 11);
    net_start_all(net);
    for (int i = 0; i < 60 && status_of(net, 1).role != RAFT_LEADER; i++) { /* nothing is read meanwhile */
        net_tick(net, 1);
        while (net->bag_count > 0) {
            net_deliver(net, 0);
            for (uint32_t node = 1; node <= 3; node++) {
                while (net_persist(net, node)) {}
            }
        }
    }
    assert_true(status_of(net, 1).role == RAFT_LEADER && net->nodes[0].applied == 0);
    net_rot(net, 1, 7);
    assert_true(status_of(net, 1).role == RAFT_FOLLOWER && status_of(net, 1).hole == 7);
    assert_true(net_heal(net, 1));
    net_settle(net, 0);
    assert_true(net->nodes[0].applied >= 12);
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rot_met_by_a_leader),
        cmocka_unit_test(test_rot_met_before_it_is_applied),
        cmocka_unit_test(test_rot_deposes_a_leader_that_has_not_applied_it),
        cmocka_unit_test(test_a_lost_machine_acknowledges_and_does_not_lead),
        cmocka_unit_test(test_a_lost_machine_says_what_is_committed),
        cmocka_unit_test(test_a_hole_does_not_campaign),
        cmocka_unit_test(test_a_hole_votes_by_its_last_entry),
        cmocka_unit_test(test_one_flipped_sector_on_two_of_three),
        cmocka_unit_test(test_nothing_past_a_hole_is_acknowledged),
        cmocka_unit_test(test_a_configuration_in_a_hole),
        cmocka_unit_test(test_a_doubtful_tail_is_cut),
        cmocka_unit_test(test_a_snapshot_over_a_hole),
        cmocka_unit_test(test_a_followers_snapshot_over_a_hole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
