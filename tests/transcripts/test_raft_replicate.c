/* Transcripts of replication: conflicts, commit, what is durable when, lost and doubled messages, followers far behind.
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

static uint32_t traced_count(const struct net *net, const char *text)
{
    uint32_t count = 0;
    for (const char *at = net->trace + net->mark; (at = strstr(at, text)) != NULL; at++) {
        count++;
    }
    return count;
}

static int bag_find(const struct net *net, uint32_t from, uint32_t to, uint8_t kind)
{
    for (uint32_t i = 0; i < net->bag_count; i++) {
        const struct raft_message *m = &net->bag[i];
        if (m->from == from && m->to == to && m->kind == kind) {
            return (int)i;
        }
    }
    return -1;
}

static struct net *led_by_one(uint32_t count, uint64_t seed)
{
    struct net *net = net_open(count, seed);
    net_start_all(net);
    net_elect(net, 1, 0);
    assert_true(status_of(net, 1).ready);
    net_mark(net);
    return net;
}

static void propose_many(struct net *net, uint32_t node, uint32_t count, uint32_t bytes, uint32_t cut)
{
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(net_propose(net, node, bytes), ERR_OK);
        if (i % 16 == 0) {
            net_settle(net, cut);
        }
    }
    net_settle(net, cut);
}

/* Ticks `node` and delivers, so that what was lost is found. */
static void some_ticks(struct net *net, uint32_t node, int ticks, uint32_t cut)
{
    for (int i = 0; i < ticks; i++) {
        net_tick(net, node);
        net_settle(net, cut);
    }
}

/* Lets all but those in `cut` forget their leader, then elects `node`. */
static void elect_instead(struct net *net, uint32_t node, uint32_t cut)
{
    for (int i = 0; i < 200 && status_of(net, node).role != RAFT_LEADER; i++) {
        for (uint32_t other = 1; other <= net->count; other++) {
            /* the others age, but not so far that they ask themselves */
            if (other != node && !(cut >> (other - 1) & 1) && net->nodes[other - 1].raft != NULL && i < 10) {
                net_tick(net, other);
                (void)net_lose(net, other, 0, RAFT_HEARTBEAT);
            }
        }
        if (i >= 10) {
            net_tick(net, node);
        }
        net_settle(net, cut);
    }
    assert_int_equal(status_of(net, node).role, RAFT_LEADER);
}

static void test_acknowledged_when_durable(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 1);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    assert_true(net_traced(net, "1>2 APPEND t2 at 2/2 n1"));
    net_deliver(net, (uint32_t)bag_find(net, 1, 2, RAFT_APPEND));
    assert_false(net_traced(net, "2>1 APPEND_REPLY"));
    net_persist(net, 2);
    assert_true(net_traced(net, "2>1 APPEND_REPLY t2 at 3/0"));
    net_deliver(net, (uint32_t)bag_find(net, 2, 1, RAFT_APPEND_REPLY));
    assert_int_equal(status_of(net, 1).commit, 2); /* the leader's own copy is not durable: one of three */
    net_persist(net, 1);
    assert_int_equal(status_of(net, 1).commit, 3);
    assert_true(net_traced(net, "1: applies 3/2"));
    net_close(net);
}

/* Committed by the others, not durable here: not applied here, for the machine must not be ahead of its log. */
static void test_applied_when_durable_here(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 2);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    while (net->bag_count > 0) {
        net_deliver(net, 0);
        net_persist(net, 2);
        net_persist(net, 3);
    }
    assert_int_equal(status_of(net, 1).commit, 3);
    assert_int_equal(status_of(net, 1).applied, 2);
    net_persist(net, 1);
    assert_int_equal(status_of(net, 1).applied, 3);
    net_close(net);
}

static void test_conflict_is_cut(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 3);
    propose_many(net, 1, 5, 8, 6u); /* 1 is alone: nobody has these */
    assert_int_equal(status_of(net, 1).last, 7);
    assert_int_equal(status_of(net, 1).commit, 2);
    elect_instead(net, 2, 1u << 0);
    propose_many(net, 2, 2, 8, 1u << 0);
    net_mark(net);
    some_ticks(net, 2, 3, 0);
    assert_true(net_traced(net, "1: cuts from 3"));
    assert_true(net_traced(net, "1: follower t3 leader 2"));
    assert_int_equal(status_of(net, 1).last, status_of(net, 2).last);
    assert_int_equal(status_of(net, 1).applied, status_of(net, 2).applied);
    net_close(net);
}

/* An append whose write is under way is cut; its late completion makes nothing durable. */
static void test_cut_while_writing(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 4);
    struct raft_entry one = {.index = 3, .term = 2, .type = RAFT_ENTRY_NOOP};
    struct raft_entry other = {.index = 3, .term = 7, .type = RAFT_ENTRY_NOOP};
    struct raft_message append = {
        .kind = RAFT_APPEND, .from = 1, .to = 3, .term = 2, .log_index = 2, .log_term = 2, .entries = &one, .count = 1};
    net_message_step(net, &append);
    append.from = 2;
    append.term = 7;
    append.entries = &other;
    net_message_step(net, &append);
    assert_true(net_traced(net, "3: cuts from 3"));
    net_persist(net, 3); /* the write of 3/2 */
    assert_false(net_traced(net, "3>1 APPEND_REPLY t2 at 3/0"));
    assert_false(net_traced(net, "3>2 APPEND_REPLY t7 at 3/0"));
    net_persist(net, 3);
    assert_true(net_traced(net, "3>2 APPEND_REPLY t7 at 3/0"));
    net_close(net);
}

/* Elects `node` by all that hear it, and loses what it sends as a leader. */
static void elect_bare(struct net *net, uint32_t node)
{
    for (int i = 0; i < 20; i++) { /* the others forget their leader, and do not get to ask */
        for (uint32_t other = 1; other <= net->count; other++) {
            if (other != node && net->nodes[other - 1].raft != NULL) {
                net_tick(net, other);
            }
        }
        (void)net_lose(net, 0, 0, 0);
    }
    for (int i = 0; i < 100 && status_of(net, node).role != RAFT_LEADER; i++) {
        net_tick(net, node);
        while (net->bag_count > 0 && status_of(net, node).role != RAFT_LEADER) {
            net_deliver(net, 0);
            for (uint32_t each = 1; each <= net->count && status_of(net, node).role != RAFT_LEADER; each++) {
                while (net->nodes[each - 1].raft != NULL && status_of(net, node).role != RAFT_LEADER &&
                       net_persist(net, each)) {}
            }
        }
    }
    assert_int_equal(status_of(net, node).role, RAFT_LEADER);
    (void)net_lose(net, 0, 0, 0);
}

/* Figure 8: an entry of an old term on a majority is not committed by counting, only below one of the own term. */
static void test_figure_eight(void **state)
{
    (void)state;
    struct net *net = net_open(5, 5);
    net_start_all(net);
    net_elect(net, 1, 0);
    (void)net_propose(net, 1, 8);
    net_settle(net, 0x1c); /* (a) 3/2 reaches 2 only */
    assert_int_equal(net->nodes[1].disk.last, 3);
    net_crash(net, 1, 9);
    elect_bare(net, 5); /* (b) 5 leads term 3 by 3 and 4, and writes 3/3 */
    while (net_persist(net, 5)) {}
    assert_int_equal(net->nodes[4].disk.entries[2].term, 3);
    net_crash(net, 5, 0);
    (void)net_lose(net, 0, 0, 0);
    net_start(net, 1);
    elect_bare(net, 1); /* (c) 1 leads again; then its copy of 3/2 reaches 3, and not the no-op of its term */
    uint64_t term = status_of(net, 1).term, last = status_of(net, 1).last;
    assert_true(term > 3 && last == 4);
    while (net_persist(net, 1)) {}
    (void)net_lose(net, 0, 0, 0);
    struct raft_entry old = net_entry_make(net, net->nodes[0].disk.entries[2], 3);
    struct raft_message append = {.kind = RAFT_APPEND, .from = 1, .term = term, .log_index = 2, .log_term = 2};
    append.entries = &old;
    append.count = 1;
    for (append.to = 2; append.to <= 3; append.to++) {
        net_message_step(net, &append);
        while (net_persist(net, append.to)) {}
        net_deliver(net, (uint32_t)bag_find(net, append.to, 1, RAFT_APPEND_REPLY));
    }
    (void)net_lose(net, 0, 0, RAFT_APPEND);
    assert_int_equal(net->nodes[2].disk.last, 3);
    assert_int_equal(net->nodes[2].disk.entries[2].term, 2);
    assert_int_equal(status_of(net, 1).match[1], 3); /* 1, 2 and 3 hold it durably: a majority of five */
    assert_int_equal(status_of(net, 1).match[2], 3);
    assert_true(status_of(net, 1).commit < 3);
    some_ticks(net, 1, 4, 0x18); /* (e) with the no-op behind it, it is */
    assert_int_equal(status_of(net, 1).commit, 4);
    slice_drop(&old.data);
    net_close(net);
}

static void test_restart_loads(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 6);
    propose_many(net, 1, 600, 8, 0);
    some_ticks(net, 1, 2, 0);
    assert_int_equal(status_of(net, 2).applied, 602);
    net->nodes[1].flushed = 100; /* the machine kept 100 of them */
    net_crash(net, 2, 0);
    net_start(net, 2);
    net_mark(net);
    some_ticks(net, 1, 2, 0);
    assert_true(net_traced(net, "2: loads 101 n256") && net_traced(net, "2: loads 357 n"));
    assert_true(net_traced(net, "2: applies 101/2") && net_traced(net, "2: applies 602/2"));
    assert_false(net_traced(net, "2: applies 100/2"));
    assert_int_equal(status_of(net, 2).applied, 602);
    net_close(net);
}

static void test_far_behind(void **state)
{
    (void)state;
    struct net *net = net_open(3, 7);
    net->params.cache_bytes = 4096;
    net_start_all(net);
    net_elect(net, 1, 0);
    propose_many(net, 1, 2000, 32, 1u << 2);
    net_mark(net);
    for (int i = 0; i < 6; i++) {
        some_ticks(net, 1, 1, 0);
    }
    assert_true(net_traced(net, "1: loads "));
    assert_int_equal(status_of(net, 3).applied, 2002);
    assert_true(traced_count(net, "3>1 APPEND_REPLY t2 reject") <= 2);
    net_close(net);
}

/* A log that differs over hundreds of entries and several terms is found to agree within a few messages. */
static void test_rejections_skip_terms(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 8);
    propose_many(net, 1, 300, 8, 6u);
    elect_instead(net, 2, 1u << 0);
    propose_many(net, 2, 300, 8, 1u << 0);
    net_mark(net);
    some_ticks(net, 2, 3, 0);
    assert_int_equal(status_of(net, 1).applied, status_of(net, 2).applied);
    assert_true(traced_count(net, "1>2 APPEND_REPLY t3 reject") <= 3);
    net_close(net);
}

static void test_lost_doubled_reordered(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 9);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    while (net_persist(net, 1)) {}
    assert_true(net->bag_count >= 40);              /* pipelined: one append a proposal and follower */
    (void)net_lose(net, 1, 3, RAFT_APPEND);         /* 3 gets none */
    for (uint32_t i = net->bag_count; i > 0; i--) { /* 2 gets them last first, each twice */
        struct raft_message copy = net_message_copy(&net->bag[i - 1]);
        net_message_step(net, &copy);
        net_message_drop(&copy);
        net_deliver(net, i - 1);
    }
    some_ticks(net, 1, 4, 0);
    for (uint32_t node = 1; node <= 3; node++) {
        assert_int_equal(status_of(net, node).applied, 22);
    }
    net_close(net);
}

static void test_window(void **state)
{
    (void)state;
    struct net *net = net_open(3, 10);
    net->params.window_entries = 4;
    net_start_all(net);
    net_elect(net, 1, 0);
    net_mark(net);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    }
    assert_int_equal(traced_count(net, "1>2 APPEND"), 4);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 1).commit, 22);
    net_close(net);

    net = net_open(3, 11);
    net->params.window_bytes = 3000;
    net_start_all(net);
    net_elect(net, 1, 0);
    net_mark(net);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(net_propose(net, 1, 1000), ERR_OK);
    }
    assert_int_equal(traced_count(net, "1>2 APPEND"), 3);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 1).commit, 22);
    net_close(net);
}

static void test_closed_peer_is_probed_again(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 12);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    (void)net_lose(net, 1, 3, 0);
    net_step(net, 1, (struct raft_event){.kind = RAFT_EVENT_PEER_CLOSED, .peer = 3});
    assert_int_equal(bag_find(net, 1, 3, RAFT_APPEND), -1); /* no hot loop towards a dead node */
    some_ticks(net, 1, 2, 0);
    assert_int_equal(status_of(net, 3).applied, 3);
    net_close(net);
}

static void test_proposals_refused(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 13);
    assert_int_equal(net_propose(net, 2, 8), ERR_NOT_LEADER);
    assert_int_equal(net_propose(net, 1, LIMIT_ENTRY_BYTES + 1), ERR_TOO_LARGE);
    assert_int_equal(status_of(net, 1).last, 2);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(net_propose(net, 1, LIMIT_ENTRY_BYTES), ERR_OK);
    }
    assert_int_equal(net_propose(net, 1, 8), ERR_BUSY);
    net_settle(net, 0);
    assert_int_equal(status_of(net, 1).commit, 18);
    assert_int_equal(net_propose(net, 1, 8), ERR_OK);
    net_close(net);
}

static void test_delivery_is_bounded(void **state)
{
    (void)state;
    struct net *net = led_by_one(1, 14);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(net_propose(net, 1, LIMIT_ENTRY_BYTES), ERR_OK);
    }
    while (net->nodes[0].write_count > 1) {
        (void)net_disk_take(&net->nodes[0]);
    }
    net_persist(net, 1); /* all six at once */
    assert_int_equal(status_of(net, 1).commit, 8);
    assert_int_equal(net->nodes[0].applied, 6); /* 4 MiB */
    assert_true(net->nodes[0].update.more);
    net_step(net, 1, (struct raft_event){.kind = RAFT_EVENT_CONTINUE});
    assert_int_equal(net->nodes[0].applied, 8);
    assert_false(net->nodes[0].update.more);
    net_close(net);
}

static void test_senseless_messages_change_nothing(void **state)
{
    (void)state;
    struct net *net = led_by_one(3, 15);
    struct raft_status before = status_of(net, 2);
    struct raft_entry entries[2] = {{.index = 5, .term = 2, .type = 2}, {.index = 9, .term = 2, .type = 2}};
    struct raft_message m = {.kind = RAFT_APPEND, .from = 1, .to = 2, .term = 2, .log_index = 2, .log_term = 2};
    m.entries = entries;
    m.count = 2;
    net_message_step(net, &m); /* a gap */
    entries[0].index = 3;
    entries[1].index = 4;
    entries[1].term = 99;
    net_message_step(net, &m); /* an entry from the future */
    entries[1].term = 1;
    net_message_step(net, &m); /* a term that falls */
    m.from = 77;
    net_message_step(net, &m); /* a stranger */
    m.from = 1;
    m.kind = 99;
    net_message_step(net, &m);
    m = (struct raft_message){.kind = RAFT_APPEND_REPLY, .from = 2, .to = 1, .term = 2, .log_index = 1ull << 60};
    net_message_step(net, &m); /* an acknowledgement of what does not exist */
    m = (struct raft_message){.kind = RAFT_HEARTBEAT, .from = 1, .to = 2, .term = 2, .commit = 1ull << 60};
    net_message_step(net, &m);
    struct raft_status after = status_of(net, 2);
    assert_true(after.last == before.last && after.commit == before.commit && after.term == before.term);
    assert_int_equal(status_of(net, 1).commit, 2);
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acknowledged_when_durable),
        cmocka_unit_test(test_applied_when_durable_here),
        cmocka_unit_test(test_conflict_is_cut),
        cmocka_unit_test(test_cut_while_writing),
        cmocka_unit_test(test_figure_eight),
        cmocka_unit_test(test_restart_loads),
        cmocka_unit_test(test_far_behind),
        cmocka_unit_test(test_rejections_skip_terms),
        cmocka_unit_test(test_lost_doubled_reordered),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_closed_peer_is_probed_again),
        cmocka_unit_test(test_proposals_refused),
        cmocka_unit_test(test_delivery_is_bounded),
        cmocka_unit_test(test_senseless_messages_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
