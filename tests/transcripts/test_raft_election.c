/* Transcripts of elections: who asks, who grants, what has to be durable before a word leaves, who must not disturb
 * whom. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../raft_net.h"

static struct raft_status status_of(struct net *net, uint32_t node)
{
    return raft_status(net->nodes[node - 1].raft);
}

static void step_message(struct net *net, struct raft_message m)
{
    net_message_step(net, &m);
}

/* Ticks a node until it asks for pre-votes; nothing is delivered. */
static void until_pre_candidate(struct net *net, uint32_t node)
{
    for (int i = 0; i < 25 && status_of(net, node).role != RAFT_PRE_CANDIDATE; i++) {
        net_tick(net, node);
    }
    assert_int_equal(status_of(net, node).role, RAFT_PRE_CANDIDATE);
}

/* Delivers all messages in the bag now, once. */
static void deliver_round(struct net *net)
{
    for (uint32_t left = net->bag_count; left > 0; left--) {
        net_deliver(net, 0);
    }
}

static void test_election(void **state)
{
    (void)state;
    struct net *net = net_open(3, 1);
    net_start_all(net);
    until_pre_candidate(net, 1);
    assert_true(net_traced(net, "1>2 PRE_VOTE t2 at 1/1"));
    assert_int_equal(status_of(net, 1).term, 1); /* 9.6: the term is not taken yet */
    deliver_round(net);
    assert_true(net_traced(net, "2>1 PRE_VOTE_REPLY t2 at"));
    assert_int_equal(net->nodes[1].hard.term, 1); /* and the voter promised nothing */
    deliver_round(net);
    assert_true(net_traced(net, "1: candidate t2 leader 0"));
    assert_false(net_traced(net, "1>2 VOTE t2")); /* its own vote is not durable */
    net_persist(net, 1);
    assert_true(net_traced(net, "1>2 VOTE t2 at 1/1"));
    deliver_round(net);
    assert_false(net_traced(net, "2>1 VOTE_REPLY")); /* nor is theirs */
    net_persist(net, 2);
    assert_true(net_traced(net, "2>1 VOTE_REPLY t2 at"));
    deliver_round(net);
    assert_true(net_traced(net, "1: leader t2 leader 1"));
    assert_false(status_of(net, 1).ready);
    net_settle(net, 0);
    assert_true(status_of(net, 1).ready);
    assert_true(net_traced(net, "1: applies 1/1\n1: applies 2/2")); /* the boot entry, then the no-op */
    net_tick(net, 1);
    net_settle(net, 0);
    assert_true(net_traced(net, "3: follower t2 leader 1") && net_traced(net, "3: applies 2/2"));
    net_close(net);
}

static void test_pre_vote_does_not_disturb(void **state)
{
    (void)state;
    struct net *net = net_open(3, 2);
    net_start_all(net);
    net_elect(net, 1, 0);
    for (int i = 0; i < 100; i++) { /* 3 is alone; 1 and 2 go on */
        net_tick(net, 3);
        net_tick(net, 1);
        net_settle(net, 1u << 2);
        net_tick(net, 2);
        net_settle(net, 1u << 2);
    }
    assert_int_equal(status_of(net, 3).term, 2);
    assert_true(net_traced(net, "3: pre-candidate t2"));
    assert_int_equal(status_of(net, 3).last, status_of(net, 1).last); /* its log is no reason to refuse */
    net_mark(net);
    for (int i = 0; i < 25 && !net_traced(net, "3>2 PRE_VOTE"); i++) {
        net_tick(net, 3);
    }
    deliver_round(net);
    assert_true(net_traced(net, "2>3 PRE_VOTE_REPLY t2 reject") && net_traced(net, "1>3 PRE_VOTE_REPLY t2 reject"));
    net_tick(net, 1);
    net_settle(net, 0);
    net_tick(net, 1);
    net_settle(net, 0);
    assert_true(status_of(net, 1).role == RAFT_LEADER && status_of(net, 1).term == 2);
    assert_int_equal(status_of(net, 3).commit, status_of(net, 1).commit);
    net_close(net);
}

/* Ticks of a node whose leader says nothing any more until it asks for pre-votes. */
static unsigned patience(struct net *net, uint32_t node)
{
    unsigned ticks = 0;
    net_mark(net);
    for (; status_of(net, node).role == RAFT_FOLLOWER; ticks++) {
        net_tick(net, node);
    }
    return ticks;
}

static void closed(struct net *net, uint32_t node, uint32_t peer)
{
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_PEER_CLOSED, .peer = peer});
}

/* A leader whose connection closed has a heartbeat's time to be heard again; then its follower loses patience within an
 * election timeout less than it has for one that falls silent, and grants what others in its place ask. */
static void test_closed_leader_is_soon_replaced(void **state)
{
    (void)state;
    unsigned least = 100, most = 0;
    for (uint64_t seed = 100; seed < 200; seed++) {
        struct net *net = net_open(3, seed);
        net_start_all(net);
        net_elect(net, 1, 0);
        net_tick(net, 1);
        net_settle(net, 0);
        net_crash(net, 1, 0);
        closed(net, 2, 1);
        closed(net, 3, 1);
        unsigned ticks = patience(net, 2);
        least = ticks < least ? ticks : least;
        most = ticks > most ? ticks : most;
        net_tick(net, 3);
        deliver_round(net);
        assert_true(net_traced(net, "3>2 PRE_VOTE_REPLY t3 at"));
        net_close(net);
    }
    assert_in_range(least, 1, 3);
    assert_in_range(most, 9, 11);
}

/* The other one closed, or the leader is heard again: nothing was lost, and an election timeout is what it was. */
static void test_closed_and_heard_again(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 120; seed++) {
        struct net *net = net_open(3, seed);
        net_start_all(net);
        net_elect(net, 1, 0);
        closed(net, 2, 1);
        net_tick(net, 1);
        net_settle(net, 0);
        closed(net, 2, 3);
        assert_in_range(patience(net, 2), 10, 20);
        deliver_round(net);
        deliver_round(net);
        assert_true(net_traced(net, "3>2 PRE_VOTE_REPLY t2 reject"));
        assert_true(status_of(net, 1).role == RAFT_LEADER && status_of(net, 1).term == 2);
        net_close(net);
    }
}

/* A vote at a higher term reaches a follower that hears its leader: it neither votes nor takes the term (4.2.3). */
static void test_vote_beside_live_leader_is_ignored(void **state)
{
    (void)state;
    struct net *net = net_open(3, 3);
    net_start_all(net);
    net_elect(net, 1, 0);
    net_mark(net);
    step_message(
        net, (struct raft_message){.kind = RAFT_VOTE, .from = 3, .to = 2, .term = 9, .log_index = 100, .log_term = 8});
    assert_false(net_traced(net, "2>3"));
    assert_true(status_of(net, 2).term == 2 && status_of(net, 2).leader == 1);
    net_close(net);
}

static void test_check_quorum(void **state)
{
    (void)state;
    struct net *net = net_open(3, 4);
    net_start_all(net);
    net_elect(net, 1, 0);
    net_tick(net, 1);
    net_settle(net, 0);
    net_mark(net);
    for (int i = 0; i < 20; i++) {
        net_tick(net, 1);
        net_settle(net, 1u << 0);
    }
    assert_true(net_traced(net, "1: follower t2 leader 0"));
    net_close(net);
}

static void test_check_quorum_is_content_with_a_majority(void **state)
{
    (void)state;
    struct net *net = net_open(3, 5);
    net_start_all(net);
    net_elect(net, 1, 0);
    for (int i = 0; i < 100; i++) {
        net_tick(net, 1);
        net_settle(net, 1u << 2);
    }
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_close(net);
}

static void test_split_vote(void **state)
{
    (void)state;
    struct net *net = net_open(4, 6);
    net_start_all(net);
    until_pre_candidate(net, 1);
    until_pre_candidate(net, 2);
    deliver_round(net); /* pre-votes are granted to both: they bind nobody */
    deliver_round(net);
    assert_true(net_traced(net, "1: candidate t2") && net_traced(net, "2: candidate t2"));
    net_persist(net, 1);
    net_persist(net, 2);
    (void)net_lose(net, 1, 4, RAFT_VOTE);
    (void)net_lose(net, 2, 3, RAFT_VOTE);
    net_settle(net, 0);
    assert_true(status_of(net, 3).vote == 1 && status_of(net, 4).vote == 2);
    assert_int_equal(net->elections, 0); /* two votes each of four */
    net_mark(net);
    for (int i = 0; i < 60 && net->elections == 0; i++) {
        net_tick(net, 1);
        net_tick(net, 2);
        net_settle(net, 0);
    }
    assert_int_equal(net->elections, 1);
    assert_true(net_traced(net, "leader t3") || net_traced(net, "leader t4"));
    net_close(net);
}

static void test_vote_survives_a_crash_only_when_told(void **state)
{
    (void)state;
    struct net *net = net_open(3, 7);
    net_start_all(net);
    struct raft_message ask = {.kind = RAFT_VOTE, .from = 1, .to = 2, .term = 5, .log_index = 1, .log_term = 1};
    step_message(net, ask);
    net_crash(net, 2, 0); /* before the vote is durable: nobody heard of it */
    assert_false(net_traced(net, "2>1 VOTE_REPLY"));
    net_start(net, 2);
    ask.from = 3;
    step_message(net, ask);
    net_persist(net, 2);
    assert_true(net_traced(net, "2>3 VOTE_REPLY t5 at"));
    net_crash(net, 2, 0);
    net_start(net, 2);
    ask.from = 1;
    step_message(net, ask);
    assert_true(net_traced(net, "2>1 VOTE_REPLY t5 reject"));
    ask.from = 3; /* the same candidate again gets the same answer */
    net_mark(net);
    step_message(net, ask);
    assert_true(net_traced(net, "2>3 VOTE_REPLY t5 at"));
    net_close(net);
}

static void test_shorter_log_gets_no_vote(void **state)
{
    (void)state;
    struct net *net = net_open(3, 8);
    net_start_all(net);
    net_elect(net, 1, 1u << 2); /* 3 misses the no-op */
    net_crash(net, 1, 0);
    net_crash(net, 2, 0);
    net_start(net, 2);
    net_mark(net);
    struct raft_message ask = {.kind = RAFT_PRE_VOTE, .from = 3, .to = 2, .term = 7, .log_index = 1, .log_term = 1};
    step_message(net, ask);
    assert_true(net_traced(net, "2>3 PRE_VOTE_REPLY t2 reject"));
    ask.kind = RAFT_VOTE;
    step_message(net, ask);
    assert_true(net_traced(net, "2>3 VOTE_REPLY t7 reject")); /* it takes the term, and keeps its vote */
    assert_true(status_of(net, 2).term == 7 && status_of(net, 2).vote == 0);
    ask.log_index = 2; /* as long, but of an older term: no */
    step_message(net, ask);
    assert_int_equal(status_of(net, 2).vote, 0);
    ask.log_term = 2;
    step_message(net, ask);
    assert_int_equal(status_of(net, 2).vote, 3);
    net_close(net);
}

static void test_single_member(void **state)
{
    (void)state;
    struct net *net = net_open(1, 9);
    net_start_all(net);
    for (int i = 0; i < 25; i++) {
        net_tick(net, 1);
    }
    assert_int_equal(status_of(net, 1).role, RAFT_CANDIDATE); /* waits for its own disk */
    while (status_of(net, 1).role != RAFT_LEADER) {
        assert_true(net_persist(net, 1));
    }
    assert_int_equal(status_of(net, 1).commit, 0);
    uint32_t read = net_read_ask(net, 1);
    assert_false(net->reads[read].done);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 1).commit, 2);
    assert_true(net->reads[read].done && net->reads[read].index == 2);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    assert_int_equal(status_of(net, 1).commit, 2);
    net_persist(net, 1);
    assert_int_equal(status_of(net, 1).commit, 3);
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_election),
        cmocka_unit_test(test_pre_vote_does_not_disturb),
        cmocka_unit_test(test_closed_leader_is_soon_replaced),
        cmocka_unit_test(test_closed_and_heard_again),
        cmocka_unit_test(test_vote_beside_live_leader_is_ignored),
        cmocka_unit_test(test_check_quorum),
        cmocka_unit_test(test_check_quorum_is_content_with_a_majority),
        cmocka_unit_test(test_split_vote),
        cmocka_unit_test(test_vote_survives_a_crash_only_when_told),
        cmocka_unit_test(test_shorter_log_gets_no_vote),
        cmocka_unit_test(test_single_member),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
