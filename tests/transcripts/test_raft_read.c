/* Transcripts of ReadIndex: what a read waits for, and which answers to heartbeats say nothing about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../raft_net.h"

static struct raft_status status_of(struct net *net, uint32_t node)
{
    return raft_status(net->nodes[node - 1].raft);
}

static uint32_t bag_holds(const struct net *net, uint32_t from, uint32_t to, uint8_t kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < net->bag_count; i++) {
        const struct raft_message *m = &net->bag[i];
        count += (from == 0 || m->from == from) && (to == 0 || m->to == to) && m->kind == kind;
    }
    return count;
}

/* Three nodes, 1 leads and is ready, nothing under way. */
static struct net *led_by_one(uint64_t seed)
{
    struct net *net = net_open(3, seed);
    net_start_all(net);
    net_elect(net, 1, 0);
    assert_true(status_of(net, 1).ready);
    net_mark(net);
    return net;
}

static void test_read(void **state)
{
    (void)state;
    struct net *net = led_by_one(1);
    uint32_t read = net_read_ask(net, 1);
    assert_false(net->reads[read].done);
    assert_int_equal(bag_holds(net, 1, 0, RAFT_HEARTBEAT), 2); /* at once, not at the next tick */
    net_settle(net, 1u << 2);                                  /* one answer makes a majority */
    assert_true(net->reads[read].done && net->reads[read].err == ERR_OK && net->reads[read].index == 2);
    net_close(net);
}

static void test_read_elsewhere(void **state)
{
    (void)state;
    struct net *net = led_by_one(2);
    uint32_t read = net_read_ask(net, 2);
    assert_true(net->reads[read].done && net->reads[read].err == ERR_NOT_LEADER);
    net_close(net);
}

static void test_read_before_the_noop_is_held(void **state)
{
    (void)state;
    struct net *net = net_open(3, 3);
    net_start_all(net);
    for (int i = 0; i < 60 && status_of(net, 1).role != RAFT_LEADER; i++) {
        net_tick(net, 1);
        (void)net_lose(net, 0, 0, RAFT_APPEND);
        while (net->bag_count > 0 && status_of(net, 1).role != RAFT_LEADER) {
            net_deliver(net, 0);
            while (net_persist(net, 1) || net_persist(net, 2) || net_persist(net, 3)) {}
        }
    }
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    (void)net_lose(net, 0, 0, RAFT_APPEND);
    uint32_t read = net_read_ask(net, 1);
    while (net->bag_count > 0) { /* its heartbeats are answered by all, but no append arrives */
        net_deliver(net, 0);
        (void)net_lose(net, 0, 0, RAFT_APPEND);
    }
    assert_false(status_of(net, 1).ready);
    assert_false(net->reads[read].done);
    net_tick(net, 1);
    net_settle(net, 0); /* lost appends are found and sent again */
    net_tick(net, 1);
    net_settle(net, 0);
    assert_true(status_of(net, 1).ready);
    assert_true(net->reads[read].done && net->reads[read].err == ERR_OK && net->reads[read].index == 2);
    net_close(net);
}

static void test_late_answers_say_nothing(void **state)
{
    (void)state;
    struct net *net = led_by_one(4);
    net_tick(net, 1); /* a round goes out before the read */
    while (bag_holds(net, 1, 0, RAFT_HEARTBEAT) > 0) {
        net_deliver(net, 0);
    }
    assert_int_equal(bag_holds(net, 0, 1, RAFT_HEARTBEAT_REPLY), 2);
    uint32_t read = net_read_ask(net, 1);
    net_deliver(net, 0); /* the answers of the older round arrive after the read */
    net_deliver(net, 0);
    assert_false(net->reads[read].done);
    assert_int_equal(bag_holds(net, 1, 0, RAFT_HEARTBEAT), 2); /* a round of its own */
    net_deliver(net, 0);
    net_deliver(net, net->bag_count - 1);
    assert_true(net->reads[read].done && net->reads[read].err == ERR_OK);
    net_close(net);
}

/* A round answered long ago, or an answer that names a round never sent, confirms no read. */
static void test_old_and_invented_rounds(void **state)
{
    (void)state;
    struct net *net = led_by_one(5);
    uint32_t first = net_read_ask(net, 1);
    struct raft_message old = {.kind = RAFT_HEARTBEAT_REPLY, .from = 2, .to = 1, .term = 2};
    old.context = net->bag[0].context;
    assert_true(old.context > 0);
    net_settle(net, 0);
    assert_true(net->reads[first].done);
    uint32_t second = net_read_ask(net, 1);
    (void)net_lose(net, 0, 0, 0);
    net_message_step(net, &old);
    assert_false(net->reads[second].done);
    old.context += 1000;
    net_message_step(net, &old);
    assert_false(net->reads[second].done);
    old.context -= 999; /* the round that was sent for it */
    net_message_step(net, &old);
    assert_true(net->reads[second].done);
    net_close(net);
}

static void test_stale_leader_reads_nothing(void **state)
{
    (void)state;
    struct net *net = led_by_one(6);
    for (int i = 0; i < 12; i++) { /* 1 is cut off; 2 and 3 stop hearing it */
        net_tick(net, 2);
        net_tick(net, 3);
        net_settle(net, 1u << 0);
    }
    net_elect(net, 2, 1u << 0);
    for (int i = 0; i < 40 && status_of(net, 2).role != RAFT_LEADER && status_of(net, 3).role != RAFT_LEADER; i++) {
        net_tick(net, 2);
        net_settle(net, 1u << 0);
    }
    uint32_t leader = status_of(net, 2).role == RAFT_LEADER ? 2 : 3;
    assert_int_equal(net_propose(net, leader, 8), ERR_OK);
    net_settle(net, 1u << 0);
    assert_true(net->committed_last > status_of(net, 1).commit);
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER); /* it believes so still */
    uint32_t read = net_read_ask(net, 1);
    net_settle(net, 1u << 0);
    assert_false(net->reads[read].done);
    net_tick(net, 1);
    net_settle(net, 0); /* reached again: the others' term ends it */
    assert_true(net->reads[read].done && net->reads[read].err == ERR_NOT_LEADER);
    assert_int_equal(status_of(net, 1).role, RAFT_FOLLOWER);
    net_close(net);
}

static void test_reads_fail_with_check_quorum(void **state)
{
    (void)state;
    struct net *net = led_by_one(7);
    uint32_t read = net_read_ask(net, 1);
    for (int i = 0; i < 20; i++) {
        net_tick(net, 1);
        net_settle(net, 1u << 0);
    }
    assert_true(net->reads[read].done && net->reads[read].err == ERR_NOT_LEADER);
    net_close(net);
}

static void test_reads_share_rounds(void **state)
{
    (void)state;
    struct net *net = led_by_one(8);
    for (int i = 0; i < 100; i++) {
        (void)net_read_ask(net, 1);
    }
    assert_int_equal(bag_holds(net, 1, 0, RAFT_HEARTBEAT), 2); /* the first read's round */
    net_settle(net, 0);
    assert_int_equal(net->reads_ok, 100);
    uint32_t rounds = 0;
    for (const char *at = net->trace + net->mark; (at = strstr(at, "1>2 HEARTBEAT ")) != NULL; at++) {
        rounds++;
    }
    assert_int_equal(rounds, 2); /* and one for the 99 others */
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_read_elsewhere),
        cmocka_unit_test(test_read_before_the_noop_is_held),
        cmocka_unit_test(test_late_answers_say_nothing),
        cmocka_unit_test(test_old_and_invented_rounds),
        cmocka_unit_test(test_stale_leader_reads_nothing),
        cmocka_unit_test(test_reads_fail_with_check_quorum),
        cmocka_unit_test(test_reads_share_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
