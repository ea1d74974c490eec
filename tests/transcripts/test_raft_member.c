/* Transcripts of changes of members: joint consensus, learners, what is refused, what is rolled back, who leaves. */
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

static uint32_t cut_of(uint32_t a, uint32_t b)
{
    return (a ? 1u << (a - 1) : 0) | (b ? 1u << (b - 1) : 0);
}

static struct net *led_by_one(uint32_t count, uint32_t voters, uint64_t seed)
{
    struct net *net = net_open_some(count, voters, seed);
    net_start_all(net);
    net_elect(net, 1, 0);
    assert_true(status_of(net, 1).ready);
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

static enum err change(struct net *net, uint32_t node, const char *members)
{
    struct raft_config config = net_config(members);
    return net_change(net, node, &config);
}

/* The members become these, all of them. */
static void change_and_settle(struct net *net, const char *members)
{
    assert_int_equal(change(net, 1, members), ERR_OK);
    net_settle(net, 0);
    ticks(net, 1, 3, 0);
    assert_true(net_config_is(net, 1, members));
}

/* What is now in the bag between these nodes is delivered, once; the receivers write. */
static void deliver_between(struct net *net, uint32_t a, uint32_t b)
{
    for (uint32_t left = net->bag_count, i = 0; left > 0; left--) {
        const struct raft_message *m = &net->bag[i];
        if ((m->from == a && m->to == b) || (m->from == b && m->to == a)) {
            net_deliver(net, i);
            while (net_persist(net, a) || net_persist(net, b)) {}
        } else {
            i++;
        }
    }
}

static void test_learner_is_promoted_when_caught_up(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    net_settle(net, 0);
    assert_int_equal(change(net, 1, "1 2 3 4p"), ERR_OK);
    assert_true(net_config_is(net, 1, "1vo 2vo 3vo 4p")); /* in force where it is appended */
    net_settle(net, cut_of(4, 0));
    assert_true(
        net_config_is(net, 1, "1 2 3 4p")); /* committed without the learner, and not promoted: it has nothing */
    ticks(net, 1, 5, cut_of(4, 0));
    assert_true(net_config_is(net, 1, "1 2 3 4p"));
    ticks(net, 1, 5, 0);
    for (uint32_t node = 1; node <= 4; node++) {
        assert_true(net_config_is(net, node, "1 2 3 4"));
        assert_int_equal(net->nodes[node - 1].applied, net->committed_last);
    }
    net_close(net);
}

/* Its directory is gone; a new process begins with nothing. */
static void emptied(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    net_crash(net, node, 0);
    net_log_reset(&self->disk, 0, 0);
    net_log_reset(&self->view, 0, 0);
    self->hard = (struct raft_hard_state){0};
    self->applied = self->flushed = 0;
    net_start(net, node);
}

/* R17: a learner that had acknowledged everything and lost it is not promoted for what its former log held. */
static void test_emptied_learner_is_not_promoted_for_what_it_lost(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 13);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    change_and_settle(net, "1 2 3 4l");
    assert_int_equal(net->nodes[3].disk.last, net->committed_last);
    emptied(net, 4);
    net_step(net, 1, (struct raft_event){.kind = RAFT_EVENT_PEER_FORGOT, .peer = 4});
    assert_int_equal(change(net, 1, "1 2 3 4"), ERR_NOT_CAUGHT_UP);
    assert_int_equal(change(net, 1, "1 2 3 4p"), ERR_OK);
    net_settle(net, cut_of(4, 0));
    ticks(net, 1, 5, cut_of(4, 0));
    assert_true(net_config_is(net, 1, "1 2 3 4p"));
    ticks(net, 1, 5, 0);
    assert_true(net_config_is(net, 4, "1 2 3 4"));
    assert_int_equal(net->nodes[3].disk.last, net->committed_last);
    assert_int_equal(net->nodes[3].applied, net->committed_last);
    net_close(net);
}

static void test_learner_counts_nowhere(void **state)
{
    (void)state;
    struct net *net = led_by_one(5, 3, 2);
    change_and_settle(net, "1 2 3 4l 5l");
    uint64_t commit = status_of(net, 1).commit;
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    uint32_t read = net_read_ask(net, 1);
    net_settle(net, cut_of(2, 3)); /* 1, 4 and 5: three of five, one voter */
    assert_int_equal(status_of(net, 1).commit, commit);
    assert_false(net->reads[read].done);
    ticks(net, 1, 20, cut_of(2, 3));
    assert_int_equal(status_of(net, 1).role, RAFT_FOLLOWER); /* nor for check-quorum */
    ticks(net, 4, 50, 0);
    assert_false(net_traced(net, "4>1 PRE_VOTE"));
    net_close(net);
}

/* The bug of the single-server algorithm (Ongaro, raft-dev, July 2015): a leader changes members before it committed in
 * its own term, beside a change of an earlier leader that it does not know. Here each is refused until it has. */
static void test_change_waits_for_a_commit_in_the_term(void **state)
{
    (void)state;
    struct net *net = net_open(3, 3);
    net_start_all(net);
    for (int i = 0; i < 25 && status_of(net, 1).role == RAFT_FOLLOWER; i++) {
        net_tick(net, 1);
    }
    for (int i = 0; i < 100 && status_of(net, 1).role != RAFT_LEADER; i++) {
        while (net_persist(net, 1) || net_persist(net, 2)) {}
        (void)net_lose(net, 0, 3, 0);
        if (net->bag_count > 0) {
            net_deliver(net, 0);
        }
    }
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    assert_int_equal(change(net, 1, "1 2"), ERR_TERM_TOO_YOUNG);
    assert_true(net_config_is(net, 1, "1 2 3"));
    net_settle(net, 0);
    assert_int_equal(change(net, 1, "1 2"), ERR_OK);
    net_close(net);
}

static void test_one_change_at_a_time(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 4);
    assert_int_equal(change(net, 2, "1 2"), ERR_NOT_LEADER);
    assert_int_equal(change(net, 1, "1 2 3 4l"), ERR_OK);
    assert_int_equal(change(net, 1, "1 2"), ERR_CHANGE_PENDING);
    net_settle(net, 0);
    assert_int_equal(change(net, 1, "1 2"), ERR_OK);
    assert_int_equal(net_transfer(net, 1, 2), ERR_OK);
    net_close(net);
}

static void test_what_is_no_configuration_is_refused(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 3, 5);
    assert_int_equal(change(net, 1, "4l"), ERR_INVALID); /* nobody votes */
    assert_int_equal(change(net, 1, "1o 2 3"), ERR_INVALID);
    assert_int_equal(change(net, 1, "2 1"), ERR_INVALID);
    assert_int_equal(change(net, 1, "1 2 3p"), ERR_INVALID); /* a voter learns again and is to be promoted at once */
    assert_int_equal(change(net, 1, "1 2 3 4"), ERR_NOT_CAUGHT_UP);
    assert_int_equal(change(net, 1, "1 2 3 4l"), ERR_OK);
    net_settle(net, cut_of(4, 0));
    assert_int_equal(change(net, 1, "1 2 3 4"), ERR_NOT_CAUGHT_UP);
    ticks(net, 1, 3, 0);
    assert_int_equal(change(net, 1, "1 2 3 4"), ERR_OK);
    net_close(net);
}

/* While joint, a commit and a read need a majority of the voters that come and one of those that go. */
static void test_joint_needs_both_majorities(void **state)
{
    (void)state;
    for (int side = 0; side < 2; side++) {
        struct net *net = led_by_one(5, 3, 6);
        uint32_t cut = side == 0 ? cut_of(2, 3) : cut_of(4, 5);
        change_and_settle(net, "1 2 3 4l 5l");
        assert_int_equal(change(net, 1, "1 4 5"), ERR_OK);
        uint64_t commit = status_of(net, 1).commit;
        uint32_t read = net_read_ask(net, 1);
        net_settle(net, cut);
        assert_true(net_config_is(net, 1, "1vo 2o 3o 4 5"));
        assert_int_equal(status_of(net, 1).commit, commit);
        assert_false(net->reads[read].done);
        ticks(net, 1, 20, cut); /* check-quorum: both as well */
        assert_int_equal(status_of(net, 1).role, RAFT_FOLLOWER);
        net_mark(net);
        ticks(net, 1, 60, cut); /* and elections */
        assert_true(net_traced(net, "1: pre-candidate"));
        assert_false(net_traced(net, "1: leader"));
        for (uint32_t node = 2; node <= 5; node++) { /* they know of no leader, so that it is 1 who asks */
            net_crash(net, node, 0);
            net_start(net, node);
        }
        ticks(net, 1, 60, 0);
        assert_true(net_config_is(net, 1, "1 4 5") && net_config_is(net, 4, "1 4 5"));
        net_close(net);
    }
}

static void test_change_is_rolled_back_with_the_log(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 7);
    assert_int_equal(change(net, 1, "1 2"), ERR_OK);
    net_settle(net, cut_of(2, 3)); /* nobody has it; in force at 1 all the same */
    assert_true(net_config_is(net, 1, "1vo 2vo 3o"));
    for (int i = 0; i < 60 && status_of(net, 2).role != RAFT_LEADER; i++) {
        net_tick(net, 2);
        net_tick(net, 3);
        net_settle(net, cut_of(1, 0));
    }
    uint32_t leader = status_of(net, 2).role == RAFT_LEADER ? 2 : 3;
    assert_int_equal(net_propose(net, leader, 8), ERR_OK);
    ticks(net, leader, 5, 0);
    assert_true(net->rollbacks > 0);
    assert_true(net_config_is(net, 1, "1 2 3"));
    assert_int_equal(status_of(net, 1).config.index, 0);
    net_close(net);
}

static void test_restart_with_a_change_not_committed(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3, 8);
    assert_int_equal(change(net, 1, "1 2"), ERR_OK);
    deliver_between(net, 1, 2); /* 2 holds it durably; commit was not told */
    (void)net_lose(net, 0, 0, 0);
    net_crash(net, 2, 0);
    net_start(net, 2);
    assert_true(net_config_is(net, 2, "1vo 2vo 3o"));
    net_crash(net, 1, 0);
    net_start(net, 1);
    assert_true(net_config_is(net, 1, "1vo 2vo 3o"));
    for (int i = 0; i < 60; i++) { /* the next leader brings it to its end */
        ticks(net, 1, 1, 0);
        ticks(net, 2, 1, 0);
    }
    assert_true(net_config_is(net, 1, "1 2") && net_config_is(net, 2, "1 2"));
    net_close(net);
}

/* A leader that is no voter of the configuration it appended does not count itself, and goes once it is committed. */
static void test_removed_leader(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 4, 9);
    assert_int_equal(change(net, 1, "2 3 4"), ERR_OK);
    while (net_config_is(net, 1, "1o 2vo 3vo 4vo")) { /* until the joint one is committed, but no further */
        net_persist(net, 1);
        deliver_between(net, 1, 2);
        if (net_config_is(net, 1, "1o 2vo 3vo 4vo")) {
            deliver_between(net, 1, 3);
        }
    }
    assert_true(net_config_is(net, 1, "2 3 4"));
    uint64_t index = status_of(net, 1).config.index;
    net_persist(net, 1);
    (void)net_lose(net, 1, 3, 0);
    deliver_between(net, 1, 2);
    assert_true(net->nodes[0].disk.last >= index && net->nodes[1].disk.last >= index);
    assert_true(status_of(net, 1).commit < index); /* durable on 1 and 2, which is one of three */
    assert_int_equal(status_of(net, 1).role, RAFT_LEADER);
    net_mark(net);
    ticks(net, 1, 3, cut_of(4, 0));
    assert_true(net_traced(net, "1: follower") && net_traced(net, "TIMEOUT_NOW"));
    assert_int_equal(status_of(net, 1).commit, index);
    assert_true(status_of(net, 2).role == RAFT_LEADER || status_of(net, 3).role == RAFT_LEADER); /* without waiting */
    ticks(net, 1, 60, cut_of(4, 0));
    assert_false(net_traced(net, "1: pre-candidate"));
    net_close(net);
}

/* It was promoted and its log does not say so yet: whoever is asked for a vote answers. */
static void test_voter_that_does_not_know_it_votes(void **state)
{
    (void)state;
    struct net *net = led_by_one(5, 3, 10);
    assert_int_equal(status_of(net, 5).config.config.count, 0);
    struct raft_message ask = {.kind = RAFT_PRE_VOTE, .from = 2, .to = 5, .term = 7, .log_index = 9, .log_term = 2};
    step_message(net, ask);
    assert_true(net_traced(net, "5>2 PRE_VOTE_REPLY t7 at"));
    ask.kind = RAFT_VOTE;
    step_message(net, ask);
    net_persist(net, 5);
    assert_true(net_traced(net, "5>2 VOTE_REPLY t7 at"));
    change_and_settle(net, "1 2 3 4l");
    for (int i = 0; i < 12; i++) { /* its leader is gone */
        net_tick(net, 4);
    }
    ask = (struct raft_message){
        .kind = RAFT_VOTE, .from = 3, .to = 4, .term = 9, .log_index = status_of(net, 4).last, .log_term = 2};
    step_message(net, ask);
    net_persist(net, 4);
    assert_true(net_traced(net, "4>3 VOTE_REPLY t9 at"));
    net_close(net);
}

static void test_removed_node_falls_silent(void **state)
{
    (void)state;
    struct net *net = led_by_one(4, 4, 11);
    assert_int_equal(change(net, 1, "1 2 3"), ERR_OK);
    net_settle(net, cut_of(4, 0)); /* 4 hears nothing of it */
    assert_true(net_config_is(net, 1, "1 2 3") && net_config_is(net, 4, "1 2 3 4"));
    ticks(net, 1, 1, cut_of(4, 0));
    for (int i = 0; i < 25 && status_of(net, 4).role != RAFT_PRE_CANDIDATE; i++) {
        net_tick(net, 4);
    }
    net_settle(net, 0); /* it asks, and is told */
    assert_int_equal(status_of(net, 4).role, RAFT_FOLLOWER);
    assert_true(status_of(net, 1).role == RAFT_LEADER && status_of(net, 1).term == 2);
    net_mark(net);
    ticks(net, 4, 100, 0);
    assert_false(net_traced(net, "4>"));
    assert_int_equal(change(net, 1, "1 2 3 4p"), ERR_OK); /* taken in again, it may ask again */
    net_settle(net, 0);
    ticks(net, 1, 5, 0);
    assert_true(net_config_is(net, 4, "1 2 3 4"));
    net_mark(net);
    for (int i = 0; i < 25; i++) {
        net_tick(net, 4);
    }
    assert_true(net_traced(net, "4>1 PRE_VOTE"));
    net_close(net);
}

/* The one that leaves holds the entry that says so, and the one that stays does not: none but the leaving one can win,
 * so it must ask although it has no vote itself (4.2.2). test_raft_random found two nodes that waited for ever. */
static void test_leaving_voter_with_the_longer_log(void **state)
{
    (void)state;
    struct net *net = led_by_one(2, 2, 12);
    assert_int_equal(change(net, 1, "1l 2"), ERR_OK);
    while (net_config_is(net, 1, "1lo 2vo")) {
        net_persist(net, 1);
        deliver_between(net, 1, 2);
    }
    assert_true(net_config_is(net, 1, "1l 2"));
    (void)net_lose(net, 0, 0, 0);
    net_persist(net, 1);
    net_crash(net, 1, 1);
    net_start(net, 1);
    assert_true(net_config_is(net, 1, "1l 2") && net_config_is(net, 2, "1lo 2vo"));
    for (int i = 0; i < 100; i++) {
        net_tick(net, 2);
        net_tick(net, 1);
        net_settle(net, 0);
    }
    assert_int_equal(status_of(net, 2).role, RAFT_LEADER);
    assert_true(net_config_is(net, 2, "1l 2"));
    net_close(net);
}

static void test_stranger_cannot_answer(void **state)
{
    (void)state;
    struct net *net = led_by_one(5, 3, 13);
    uint64_t commit = status_of(net, 1).commit;
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    uint64_t last = status_of(net, 1).last;
    (void)net_lose(net, 0, 0, 0);
    net_persist(net, 1);
    for (uint32_t node = 4; node <= 5; node++) {
        struct raft_message ack = {.kind = RAFT_APPEND_REPLY, .from = node, .to = 1, .term = 2, .log_index = last};
        net_message_step(net, &ack);
        ack.term = 9;
        net_message_step(net, &ack);
    }
    assert_int_equal(status_of(net, 1).commit, commit);
    assert_int_equal(status_of(net, 1).term, 2);
    net_close(net);
}

static void test_packed_form(void **state)
{
    (void)state;
    struct raft_config config = net_config("1 2o 3vo 4l 5p 70000lo"), back;
    struct slice data = raft_config_encode(&config);
    assert_int_equal(raft_config_decode(data, &back), ERR_OK);
    assert_memory_equal(&config, &back, sizeof config);
    for (uint32_t bytes = 0; bytes < data.bytes; bytes++) {
        struct slice part = slice_sub(data, 0, bytes);
        assert_int_equal(raft_config_decode(part, &back), ERR_BAD_PROTO);
        slice_drop(&part);
    }
    data.data[5] = RAFT_VOTER | RAFT_LEARNER;
    assert_int_equal(raft_config_decode(data, &back), ERR_BAD_PROTO);
    slice_drop(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learner_is_promoted_when_caught_up),
        cmocka_unit_test(test_emptied_learner_is_not_promoted_for_what_it_lost),
        cmocka_unit_test(test_learner_counts_nowhere),
        cmocka_unit_test(test_change_waits_for_a_commit_in_the_term),
        cmocka_unit_test(test_one_change_at_a_time),
        cmocka_unit_test(test_what_is_no_configuration_is_refused),
        cmocka_unit_test(test_joint_needs_both_majorities),
        cmocka_unit_test(test_change_is_rolled_back_with_the_log),
        cmocka_unit_test(test_restart_with_a_change_not_committed),
        cmocka_unit_test(test_removed_leader),
        cmocka_unit_test(test_voter_that_does_not_know_it_votes),
        cmocka_unit_test(test_removed_node_falls_silent),
        cmocka_unit_test(test_leaving_voter_with_the_longer_log),
        cmocka_unit_test(test_stranger_cannot_answer),
        cmocka_unit_test(test_packed_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
