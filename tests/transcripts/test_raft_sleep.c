/* Transcripts of sleep (raft/sleep.c): who falls asleep, what wakes, and that a lost leader is still replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../raft_net.h"

enum { SLEEP_TICKS = 20, NODES = 3 };

static bool asleep(struct net *net, uint32_t node)
{
    return raft_is_asleep(net->nodes[node - 1].raft);
}

static void ticks(struct net *net, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t node = 1; node <= net->count; node++) {
            if (net->nodes[node - 1].raft != NULL) {
                net_tick(net, node);
            }
        }
        net_settle(net, 0);
    }
}

/* A group led by node 1 that has just fallen asleep. */
static struct net *sleeping(uint64_t seed)
{
    struct net *net = net_open(NODES, seed);
    net->params.sleep_ticks = SLEEP_TICKS;
    net_start_all(net);
    net_elect(net, 1, 0);
    ticks(net, SLEEP_TICKS / 2);
    assert_false(asleep(net, 1) || asleep(net, 2) || asleep(net, 3));
    ticks(net, SLEEP_TICKS);
    assert_true(asleep(net, 1) && asleep(net, 2) && asleep(net, 3));
    net_mark(net);
    return net;
}

static void test_idle_group_sleeps_and_says_nothing(void **state)
{
    (void)state;
    struct net *net = sleeping(1);
    uint64_t elections = net->elections;
    ticks(net, 500);
    assert_false(net_traced(net, "HEARTBEAT"));
    assert_false(net_traced(net, "VOTE"));
    assert_int_equal(net->elections, elections);
    net_close(net);
}

static void test_proposal_wakes_and_commits(void **state)
{
    (void)state;
    struct net *net = sleeping(2);
    uint64_t before = net->committed_last;
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    assert_false(asleep(net, 1));
    net_settle(net, 0);
    assert_int_equal(net->committed_last, before + 1);
    ticks(net, 3);
    for (uint32_t node = 1; node <= NODES; node++) {
        assert_int_equal(net->nodes[node - 1].applied, before + 1);
    }
    ticks(net, 2 * SLEEP_TICKS);
    assert_true(asleep(net, 1) && asleep(net, 2) && asleep(net, 3));
    net_close(net);
}

/* A sleeping leader is not believed on its word: a read still asks a majority. */
static void test_read_wakes_and_asks_a_majority(void **state)
{
    (void)state;
    struct net *net = sleeping(3);
    uint32_t read = net_read_ask(net, 1);
    assert_false(net->reads[read].done);
    net_settle(net, 0);
    assert_true(net->reads[read].done);
    assert_int_equal(net->reads[read].err, ERR_OK);
    net_close(net);
}

/* With a member missing nobody sleeps: who is awake would notice the next loss. */
static void test_leader_stays_awake_while_one_is_missing(void **state)
{
    (void)state;
    struct net *net = net_open(NODES, 4);
    net->params.sleep_ticks = SLEEP_TICKS;
    net_start_all(net);
    net_elect(net, 1, 0);
    ticks(net, 2);
    net_crash(net, 3, 0);
    ticks(net, 3 * SLEEP_TICKS);
    assert_false(asleep(net, 1));
    assert_int_equal(raft_status(net->nodes[0].raft).role, RAFT_LEADER);
    net_close(net);
}

/* The leader's connection closes: the others wake, and elect after an election timeout. */
static void test_lost_leader_is_replaced(void **state)
{
    (void)state;
    struct net *net = sleeping(5);
    net_crash(net, 1, 0);
    net_step(net, 2, (struct raft_event){.kind = RAFT_EVENT_PEER_CLOSED, .peer = 1});
    assert_false(asleep(net, 2));
    ticks(net, 60);
    assert_true(raft_status(net->nodes[1].raft).role == RAFT_LEADER ||
                raft_status(net->nodes[2].raft).role == RAFT_LEADER);
    net_close(net);
}

/* One that is woken alone hears from its leader again before it disturbs anybody. */
static void test_woken_follower_wakes_its_leader(void **state)
{
    (void)state;
    struct net *net = sleeping(6);
    net_step(net, 2, (struct raft_event){.kind = RAFT_EVENT_WAKE});
    assert_false(asleep(net, 2));
    uint64_t term = raft_status(net->nodes[0].raft).term;
    ticks(net, 200);
    assert_int_equal(raft_status(net->nodes[0].raft).role, RAFT_LEADER);
    assert_int_equal(raft_status(net->nodes[0].raft).term, term);
    assert_true(asleep(net, 1) && asleep(net, 2) && asleep(net, 3));
    net_close(net);
}

/* A leader of a later term takes a sleeper along, whatever its heartbeat says. */
static void test_later_term_is_followed(void **state)
{
    (void)state;
    struct net *net = sleeping(7);
    struct raft_message m = {.kind = RAFT_HEARTBEAT, .from = 2, .to = 3, .term = 9, .sleep = true, .commit = 0};
    net_step(net, 3, (struct raft_event){.kind = RAFT_EVENT_MESSAGE, .message = &m});
    assert_false(asleep(net, 3));
    assert_int_equal(raft_status(net->nodes[2].raft).term, 9);
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_idle_group_sleeps_and_says_nothing),
        cmocka_unit_test(test_proposal_wakes_and_commits),
        cmocka_unit_test(test_read_wakes_and_asks_a_majority),
        cmocka_unit_test(test_leader_stays_awake_while_one_is_missing),
        cmocka_unit_test(test_lost_leader_is_replaced),
        cmocka_unit_test(test_woken_follower_wakes_its_leader),
        cmocka_unit_test(test_later_term_is_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
