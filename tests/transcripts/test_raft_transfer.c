/* Transcripts of the transfer of leadership (3.10): who may be asked, when the word goes, what waits, what is given up.
 */
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

static void test_transfer_takes_no_election_timeout(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 1);
    assert_int_equal(net_transfer(net, 1, 3), ERR_OK);
    assert_true(net_traced(net, "1>3 TIMEOUT_NOW t2"));
    assert_int_equal(net_propose(net, 1, 8), ERR_BUSY);
    net_settle(net, 0); /* not one tick */
    assert_true(net_traced(net, "3: leader t3 leader 3"));
    assert_false(net_traced(net, "PRE_VOTE"));
    assert_true(status_of(net, 3).ready);
    assert_int_equal(status_of(net, 1).role, RAFT_FOLLOWER);
    net_close(net);
}

/* Proposals taken before the transfer are committed; the word goes when the other has them. */
static void test_transfer_waits_until_it_has_all(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 2);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    uint64_t last = status_of(net, 1).last;
    (void)net_lose(net, 1, 3, 0);
    assert_int_equal(net_transfer(net, 1, 3), ERR_OK);
    assert_false(net_traced(net, "TIMEOUT_NOW"));
    net_settle(net, 0);
    assert_false(net_traced(net, "TIMEOUT_NOW"));
    net_tick(net, 1);
    net_settle(net, 0);
    assert_true(net_traced(net, "1>3 TIMEOUT_NOW t2"));
    assert_int_equal(status_of(net, 3).role, RAFT_LEADER);
    assert_true(net->committed_last > last && net->nodes[2].applied > last);
    net_close(net);
}

static void test_transfer_is_given_up(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 3);
    assert_int_equal(net_transfer(net, 1, 3), ERR_OK);
    net_settle(net, 1u << 2);
    for (int i = 0; i < 9; i++) {
        net_tick(net, 1);
        net_settle(net, 1u << 2);
    }
    assert_int_equal(net_propose(net, 1, 8), ERR_BUSY);
    net_tick(net, 1);
    net_settle(net, 1u << 2);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    net_settle(net, 1u << 2);
    assert_int_equal(net->committed_last, status_of(net, 1).last);
    net_close(net);
}

static void test_transfer_repeats_a_lost_word(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 4);
    assert_int_equal(net_transfer(net, 1, 2), ERR_OK);
    assert_int_equal(net_lose(net, 1, 2, RAFT_TIMEOUT_NOW), 1);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_tick(net, 1);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 2).role, RAFT_LEADER);
    net_close(net);
}

static void test_transfer_refusals(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 5);
    struct raft_config config = net_config("1 2 3 4l");
    assert_int_equal(net_change(net, 1, &config), ERR_OK);
    net_settle(net, 0);
    assert_int_equal(net_transfer(net, 2, 3), ERR_NOT_LEADER);
    assert_int_equal(net_transfer(net, 1, 1), ERR_INVALID);
    assert_int_equal(net_transfer(net, 1, 4), ERR_INVALID); /* a learner */
    assert_int_equal(net_transfer(net, 1, 7), ERR_INVALID);
    assert_int_equal(net_transfer(net, 1, 2), ERR_OK);
    assert_int_equal(net_transfer(net, 1, 3), ERR_CHANGE_PENDING);
    assert_int_equal(net_change(net, 1, &config), ERR_CHANGE_PENDING);
    net_close(net);
}

static void test_transfer_to_the_best(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 6);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    net_settle(net, 1u << 1); /* 2 lacks it */
    assert_int_equal(net_transfer(net, 1, 0), ERR_OK);
    assert_int_equal(status_of(net, 1).transfer, 3);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 3).role, RAFT_LEADER);
    net_close(net);
}

static void test_who_is_told_must_be_able(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 7);
    struct raft_message now = {.kind = RAFT_TIMEOUT_NOW, .from = 1, .to = 3, .term = 1};
    net_message_step(net, &now); /* of an old term */
    now.from = 2;
    now.term = 2;
    net_message_step(net, &now); /* of one that does not lead */
    now.from = 1;
    now.to = 4;
    net_message_step(net, &now); /* no member */
    assert_true(status_of(net, 3).role == RAFT_FOLLOWER && status_of(net, 3).term == 2);
    assert_int_equal(status_of(net, 4).role, RAFT_FOLLOWER);
    struct raft_message ask = {
        .kind = RAFT_VOTE, .from = 3, .to = 2, .term = 3, .log_index = status_of(net, 3).last, .log_term = 2};
    net_message_step(net, &ask);
    assert_int_equal(status_of(net, 2).term, 2); /* beside a live leader: ignored */
    ask.context = 1;
    net_message_step(net, &ask);
    assert_int_equal(status_of(net, 2).vote, 3); /* whose leader asked for it: answered */
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transfer_takes_no_election_timeout),
        cmocka_unit_test(test_transfer_waits_until_it_has_all),
        cmocka_unit_test(test_transfer_is_given_up),
        cmocka_unit_test(test_transfer_repeats_a_lost_word),
        cmocka_unit_test(test_transfer_refusals),
        cmocka_unit_test(test_transfer_to_the_best),
        cmocka_unit_test(test_who_is_told_must_be_able),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
