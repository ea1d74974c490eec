/* Raft under a seeded network and seeded crashes: messages are delayed, reordered, lost and doubled, writes and loads
 * complete late, nodes lose what was not durable. The harness checks its invariants N1-N7 after each step; a run must
 * also get work done once the network is whole again. A failing seed is in the broken check's last line of output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <unistd.h>

#include "../raft_net.h"

static char replay[80];

static void random_aborted(int number)
{
    (void)number;
    ssize_t written = write(STDERR_FILENO, replay, strlen(replay));
    _exit(written > 0 ? 134 : 135);
}

static uint32_t pick(struct net *net, uint32_t bound)
{
    return (uint32_t)(net_random(net) % bound);
}

static bool random_crosses(const struct net *net, uint32_t at, uint32_t side)
{
    const struct raft_message *m = &net->bag[at];
    return (side >> (m->from - 1) & 1) != (side >> (m->to - 1) & 1);
}

static void random_network(struct net *net, uint32_t side)
{
    if (net->bag_count == 0) {
        return;
    }
    uint32_t what = pick(net, 100);
    /* mostly near the oldest, sometimes anything: reordering without starvation */
    uint32_t at = pick(net, pick(net, 4) == 0 || net->bag_count < 4 ? net->bag_count : 4);
    if (random_crosses(net, at, side)) {
        return;
    }
    if (what < 4) {
        net_drop(net, at);
    } else if (what < 8) {
        struct raft_message copy = net_message_copy(&net->bag[at]);
        net_message_step(net, &copy);
        net_message_drop(&copy);
    } else {
        net_deliver(net, at);
    }
}

static void random_crash(struct net *net)
{
    uint32_t node = 1 + pick(net, net->count);
    struct net_node *self = &net->nodes[node - 1];
    if (self->raft == NULL) {
        net_start(net, node);
    } else {
        self->flushed += self->applied > self->flushed ? pick(net, (uint32_t)(self->applied - self->flushed) + 1) : 0;
        net_crash(net, node, pick(net, (uint32_t)self->write_count + 1));
        if (pick(net, 2) == 0) {
            net_start(net, node);
        }
    }
}

static void random_node(struct net *net)
{
    uint32_t node = 1 + pick(net, net->count);
    if (net->nodes[node - 1].raft == NULL) {
        return;
    }
    uint32_t what = pick(net, 100);
    if (what < 25) {
        (void)net_persist(net, node);
    } else if (what < 37) {
        (void)net_load(net, node, 1 + pick(net, 20));
    } else if (what < 55) {
        net_tick(net, node);
    } else if (what < 80) {
        bool leads = raft_status(net->nodes[node - 1].raft).role == RAFT_LEADER;
        enum err err = net_propose(net, node, 8 + pick(net, 64));
        CHECK((err == ERR_NOT_LEADER) == !leads);
    } else if (what < 90) {
        (void)net_read_ask(net, node);
    } else if (what < 92) {
        uint32_t peer = 1 + pick(net, net->count);
        net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_PEER_CLOSED, .peer = peer});
    } else if (net->nodes[node - 1].update.more) {
        net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_CONTINUE});
    }
}

/* Between the two sides of a partition nothing passes; what is under way waits (late) or is lost. */
static void random_partition(struct net *net, uint32_t side, bool late)
{
    for (uint32_t i = 0; i < net->bag_count;) {
        const struct raft_message *m = &net->bag[i];
        bool crosses = (side >> (m->from - 1) & 1) != (side >> (m->to - 1) & 1);
        if (crosses && !(late && pick(net, 64) != 0)) {
            net_drop(net, i);
        } else {
            i++;
        }
    }
}

/* A stretch of trouble under a partition into `side` (bits of node - 1; 0: none) and the others. */
static void random_stretch(struct net *net, uint32_t steps, uint32_t side, uint32_t crash_permille)
{
    bool late = pick(net, 2) == 0;
    for (uint32_t i = 0; i < steps; i++) {
        if (side != 0 && (!late || i % 64 == 0)) {
            random_partition(net, side, late);
        }
        if (pick(net, 1000) < crash_permille) {
            random_crash(net);
        } else if (pick(net, 2) == 0) {
            random_network(net, side);
        } else {
            random_node(net);
        }
    }
}

/* With all nodes up and a whole network every node applies everything, within a bounded number of ticks. */
static void random_recover(struct net *net)
{
    for (uint32_t node = 1; node <= net->count; node++) {
        if (net->nodes[node - 1].raft == NULL) {
            net_start(net, node);
        }
    }
    uint64_t before = net->committed_last;
    bool proposed = false;
    for (uint32_t tick = 0; tick < 400; tick++) {
        for (uint32_t node = 1; node <= net->count; node++) {
            net_tick(net, node);
            net_settle(net, 0);
            if (!proposed && raft_status(net->nodes[node - 1].raft).ready) {
                proposed = net_propose(net, node, 16) == ERR_OK;
            }
        }
    }
    CHECK(proposed && net->committed_last > before);
    for (uint32_t node = 1; node <= net->count; node++) {
        CHECK(net->nodes[node - 1].applied == net->committed_last);
    }
    for (uint32_t i = 0; i < net->read_count; i++) {
        CHECK(net->reads[i].done);
    }
}

static void random_run(uint32_t count, uint64_t seed, uint64_t *totals)
{
    snprintf(replay, sizeof replay, "replay: RAFT_SEED=%llu test_raft_random (%u nodes)\n", (unsigned long long)seed,
             count);
    signal(SIGABRT, random_aborted);
    struct net *net = net_open(count, seed);
    net->quiet = true;
    net->params.cache_bytes = 600;
    net->params.election_ticks = 2 + pick(net, 6);
    net->params.window_entries = 1 + pick(net, 12);
    net->params.window_bytes = 200 + pick(net, 400);
    net_start_all(net);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t side = pick(net, 3) != 0 ? pick(net, 1u << count) : 0;
        random_stretch(net, 2500, side, round % 3 == 0 ? 0 : 6);
    }
    random_recover(net);
    totals[0] += net->truncations;
    totals[1] += net->loads;
    totals[2] += net->elections;
    totals[3] += net->reads_ok;
    totals[4] += net->committed_last;
    net_close(net);
}

static void random_seeds(uint32_t count, uint64_t first, uint64_t seeds)
{
    uint64_t totals[5] = {0}, live = slice_live_bytes();
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        random_run(count, seed, totals);
        assert_int_equal(slice_live_bytes(), live);
    }
    print_message("%u nodes: %llu cuts, %llu loads, %llu elections, %llu reads, %llu committed\n", count,
                  (unsigned long long)totals[0], (unsigned long long)totals[1], (unsigned long long)totals[2],
                  (unsigned long long)totals[3], (unsigned long long)totals[4]);
    /* the trouble was real: each of the hard paths ran */
    assert_true(totals[0] > 0 && totals[1] > seeds && totals[2] > seeds && totals[3] > 0 && totals[4] > seeds * 10);
}

/* RAFT_SEED replays one seed; RAFT_SEEDS asks for more of them than the usual. */
static void random_ask(uint32_t count, uint64_t first, uint64_t seeds)
{
    const char *seed = getenv("RAFT_SEED"), *more = getenv("RAFT_SEEDS");
    if (seed != NULL) {
        uint64_t totals[5] = {0};
        random_run(count, strtoull(seed, NULL, 10), totals);
    } else {
        random_seeds(count, first, more != NULL ? strtoull(more, NULL, 10) : seeds);
    }
}

static void test_three(void **state)
{
    (void)state;
    random_ask(3, 1000, 150);
}

static void test_five(void **state)
{
    (void)state;
    random_ask(5, 5000, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_three), cmocka_unit_test(test_five)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
