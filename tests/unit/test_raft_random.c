/* Raft under a seeded network and seeded crashes: messages are delayed, reordered, lost and doubled, writes, loads and
 * snapshots complete late or not, nodes lose what was not durable, members come and go, leadership is handed over, logs
 * are cut. The harness checks its invariants N1-N9 after each step; a run must also get work done once the network is
 * whole again, and whoever is no member then disturbs nobody. A failing seed is in the broken check's last line of
 * output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <signal.h>
#include <unistd.h>

#include "../raft_net.h"

static char replay[80];

/* What went on in a run. */
struct totals {
    uint64_t cuts, loads, elections, reads, committed, installs, resets, rollbacks, changes, transfers;
};

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

static uint64_t healed, rotted;

/* One entry of one node at a time rots while it is down. */
static void random_rot(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    bool any = self->disk.last <= self->flushed || pick(net, 3) != 0;
    for (uint32_t i = 0; i < net->count; i++) {
        any = any || net->nodes[i].hole != 0;
    }
    uint64_t hole = any ? 0 : self->flushed + 1 + pick(net, (uint32_t)(self->disk.last - self->flushed));
    bool alone = net->count > net->first.count; /* a group of one voter has nobody to heal it: only what another has */
    for (uint32_t i = 0; i < net->count && hole != 0; i++) {
        alone = alone && (i + 1 == node || net_log_term(&net->nodes[i].disk, hole) != net_log_term(&self->disk, hole));
    }
    if (hole != 0 && !alone) {
        self->hole = hole;
        rotted++;
    }
}

/* The machine becomes durable up to somewhere. */
static void random_flush(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    if (!self->lost && self->applied > self->flushed) {
        self->flushed += pick(net, (uint32_t)(self->applied - self->flushed) + 1);
    }
}

static uint64_t lost, restored;

/* The machine of one node at a time is gone while it is down; another has applied what its log begins behind. */
static void random_lose(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    bool any = self->disk.base == 0 || pick(net, 3) != 0, elsewhere = false;
    for (uint32_t i = 1; i <= net->count; i++) {
        const struct net_node *other = &net->nodes[i - 1];
        any = any || other->flushed < other->disk.base;
        elsewhere = elsewhere || (i != node && other->flushed >= self->disk.base);
    }
    if (!any && elsewhere) {
        self->flushed = 0;
        lost++;
    }
}

static void random_crash(struct net *net)
{
    uint32_t node = 1 + pick(net, net->count);
    struct net_node *self = &net->nodes[node - 1];
    if (self->raft == NULL) {
        net_start(net, node);
    } else {
        random_flush(net, node);
        net_crash(net, node, pick(net, (uint32_t)self->write_count + 1));
        random_rot(net, node);
        random_lose(net, node);
        if (pick(net, 2) == 0) {
            net_start(net, node);
        }
    }
}

static uint64_t given_up;

/* A running node meets rot in its log. */
static void random_meet_rot(struct net *net)
{
    uint32_t node = 1 + pick(net, net->count);
    struct net_node *self = &net->nodes[node - 1];
    bool any = self->raft == NULL || self->rotten != 0 || self->lost || self->disk.last <= self->disk.base;
    for (uint32_t i = 0; i < net->count; i++) {
        any = any || net->nodes[i].hole != 0;
    }
    uint64_t index = any ? 0 : self->disk.base + 1 + pick(net, (uint32_t)(self->disk.last - self->disk.base));
    bool alone = index > self->applied && net->count > net->first.count;
    for (uint32_t i = 0; i < net->count && index != 0; i++) {
        alone = alone && (i + 1 == node || index <= net->nodes[i].disk.base ||
                          net_log_term(&net->nodes[i].disk, index) != net_log_term(&self->disk, index));
    }
    bool stands = index != 0 && index <= self->view.last && self->view.base == self->disk.base &&
                  net_log_term(&self->view, index) == net_log_term(&self->disk, index);
    if (stands && !alone) {
        net_rot(net, node, index);
    }
}

static void random_heal(struct net *net)
{
    for (uint32_t node = 1; node <= net->count; node++) {
        struct net_node *self = &net->nodes[node - 1];
        if (self->raft != NULL && self->rotten != 0 && pick(net, 40) == 0) {
            given_up += net_give_up(net, node);
        }
        if (self->raft != NULL && self->lost && pick(net, 40) == 0) {
            restored += net_restore(net, node);
        } else if (self->raft != NULL && self->hole != 0 && pick(net, 40) == 0) {
            healed += net_heal(net, node);
        }
    }
}

/* Asks for other members: whatever is refused must be refused by name. */
static void random_change(struct net *net, uint32_t node)
{
    static const uint8_t roles[] = {RAFT_VOTER, RAFT_VOTER, RAFT_LEARNER, RAFT_LEARNER | RAFT_PROMOTE};
    struct raft_status status = raft_status(net->nodes[node - 1].raft);
    struct raft_config target = {0};
    uint32_t chosen = pick(net, net->count), also = pick(net, 3) == 0 ? pick(net, net->count) : chosen;
    for (uint32_t i = 0; i < net->count; i++) {
        uint8_t role = raft_config_roles(&status.config.config, i + 1);
        role = role & RAFT_VOTER ? RAFT_VOTER : role & (uint8_t)~RAFT_OUTGOING;
        if (i == chosen || i == also) {
            role = role == 0 || pick(net, 2) == 0 ? roles[pick(net, 4)] : 0;
        }
        if (role != 0) {
            target.members[target.count++] = (struct raft_member){.node = i + 1, .roles = role};
        }
    }
    enum err err = net_change(net, node, &target);
    if (status.role != RAFT_LEADER) {
        CHECK(err == ERR_NOT_LEADER);
    } else if (!status.ready) {
        CHECK(err == ERR_TERM_TOO_YOUNG);
    } else if (status.config.index > status.commit || raft_config_is_joint(&status.config.config)) {
        CHECK(err == ERR_CHANGE_PENDING);
    } else {
        CHECK(err == ERR_OK || err == ERR_INVALID || err == ERR_NOT_CAUGHT_UP ||
              (err == ERR_CHANGE_PENDING && status.transfer != 0));
    }
}

/* The machine becomes durable up to somewhere; what that covers may leave the log. */
static void random_compact(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    random_flush(net, node);
    uint64_t most = self->flushed < self->disk.last ? self->flushed : self->disk.last;
    if (most > self->disk.base) {
        net_compact(net, node, self->disk.base + 1 + pick(net, (uint32_t)(most - self->disk.base)));
    }
}

static void random_member(struct net *net)
{
    uint32_t node = 1 + pick(net, net->count);
    if (net->nodes[node - 1].raft == NULL) {
        return;
    }
    uint32_t what = pick(net, 10);
    if (what < 4) {
        random_change(net, node);
    } else if (what < 5) {
        (void)net_transfer(net, node, pick(net, net->count + 1));
    } else if (what < 7) {
        random_compact(net, node);
    } else if (net->snapshot_count > 0) {
        net_snapshot_end(net, pick(net, net->snapshot_count), pick(net, 4) != 0);
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
        CHECK(err != ERR_BUSY || raft_status(net->nodes[node - 1].raft).transfer != 0);
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
        random_heal(net);
        if (pick(net, 1000) < crash_permille) {
            random_crash(net);
        } else if (pick(net, 1000) == 0) {
            random_meet_rot(net);
        } else if (net->count > net->first.count && pick(net, 12) == 0) {
            random_member(net);
        } else if (pick(net, 2) == 0) {
            random_network(net, side);
        } else {
            random_node(net);
        }
    }
}

static void random_ticks(struct net *net, uint32_t ticks, bool *proposed)
{
    for (uint32_t tick = 0; tick < ticks; tick++) {
        random_heal(net);
        for (uint32_t node = 1; node <= net->count; node++) {
            net_tick(net, node);
            net_settle(net, 0);
            if (!*proposed && raft_status(net->nodes[node - 1].raft).ready) {
                *proposed = net_propose(net, node, 16) == ERR_OK;
            }
        }
    }
}

/* The members of a settled group applied everything; the leader is one of them, and stays. */
static void random_settled(struct net *net)
{
    uint32_t leader = 0;
    for (uint32_t node = 1; node <= net->count; node++) {
        if (raft_status(net->nodes[node - 1].raft).ready) {
            CHECK(leader == 0);
            leader = node;
        }
    }
    CHECK(leader != 0);
    struct raft_status status = raft_status(net->nodes[leader - 1].raft);
    CHECK(!raft_config_is_joint(&status.config.config) && status.config.index <= status.commit);
    for (uint32_t i = 0; i < status.config.config.count; i++) {
        const struct raft_member *member = &status.config.config.members[i];
        CHECK(net->nodes[member->node - 1].applied == net->committed_last);
        CHECK(!(member->roles & RAFT_PROMOTE));
    }
    uint64_t elections = net->elections;
    bool proposed = true;
    random_ticks(net, 100, &proposed);
    CHECK(net->elections == elections); /* removed nodes disturb nobody */
    CHECK(raft_status(net->nodes[leader - 1].raft).role == RAFT_LEADER);
}

/* With all nodes up and a whole network every member applies everything, within a bounded number of ticks. */
static void random_recover(struct net *net)
{
    for (uint32_t node = 1; node <= net->count; node++) {
        if (net->nodes[node - 1].raft == NULL) {
            net_start(net, node);
        }
    }
    uint64_t before = net->committed_last;
    bool proposed = false;
    random_ticks(net, 400, &proposed);
    CHECK(proposed && net->committed_last > before);
    random_settled(net);
    for (uint32_t i = 0; i < net->read_count; i++) {
        CHECK(net->reads[i].done);
    }
}

static void random_run(uint32_t count, uint32_t voters, uint64_t seed, struct totals *totals)
{
    snprintf(replay, sizeof replay, "replay: RAFT_SEED=%llu test_raft_random (%u nodes, %u voters)\n",
             (unsigned long long)seed, count, voters);
    signal(SIGABRT, random_aborted);
    struct net *net = net_open_some(count, voters, seed);
    net->quiet = true;
    net->params.cache_bytes = 600;
    net->params.election_ticks = 2 + pick(net, 6);
    net->params.window_entries = 1 + pick(net, 12);
    net->params.window_bytes = 200 + pick(net, 400);
    net->params.sleep_ticks = pick(net, 2) * (1 + pick(net, 8));
    net_start_all(net);
    for (uint32_t round = 0; round < 6; round++) {
        uint32_t side = pick(net, 3) != 0 ? pick(net, 1u << count) : 0;
        random_stretch(net, 2500, side, round % 3 == 0 ? 0 : 6);
    }
    random_recover(net);
    totals->cuts += net->truncations;
    totals->loads += net->loads;
    totals->elections += net->elections;
    totals->reads += net->reads_ok;
    totals->committed += net->committed_last;
    totals->installs += net->installs;
    totals->resets += net->resets;
    totals->rollbacks += net->rollbacks;
    totals->changes += net->changes;
    totals->transfers += net->transfers;
    net_close(net);
}

static struct totals random_seeds(uint32_t count, uint32_t voters, uint64_t first, uint64_t seeds)
{
    struct totals totals = {0};
    uint64_t live = slice_live_bytes();
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        random_run(count, voters, seed, &totals);
        assert_int_equal(slice_live_bytes(), live);
    }
    print_message("%u nodes: %lu cuts, %lu loads, %lu elections, %lu reads, %lu committed, %lu installs, %lu resets, "
                  "%lu rolled back, %lu changes, %lu transfers\n",
                  count, totals.cuts, totals.loads, totals.elections, totals.reads, totals.committed, totals.installs,
                  totals.resets, totals.rollbacks, totals.changes, totals.transfers);
    /* the trouble was real: each of the hard paths ran */
    assert_true(totals.cuts > 0 && totals.loads > seeds && totals.elections > seeds && totals.reads > 0);
    assert_true(totals.committed > seeds * 10 && rotted > 0 && healed > 0 && given_up > 0);
    return totals;
}

/* RAFT_SEED replays one seed; RAFT_SEEDS asks for more of them than the usual. */
static struct totals random_ask(uint32_t count, uint32_t voters, uint64_t first, uint64_t seeds)
{
    const char *seed = getenv("RAFT_SEED"), *more = getenv("RAFT_SEEDS");
    struct totals totals = {0};
    if (seed != NULL) {
        random_run(count, voters, strtoull(seed, NULL, 10), &totals);
        return totals;
    }
    return random_seeds(count, voters, first, more != NULL ? strtoull(more, NULL, 10) : seeds);
}

static void test_three(void **state)
{
    (void)state;
    random_ask(3, 3, 1000, 150);
}

static void test_five(void **state)
{
    (void)state;
    random_ask(5, 5, 5000, 100);
}

static void test_members(void **state)
{
    (void)state;
    struct totals t = random_ask(6, 3, 9000, 200);
    if (getenv("RAFT_SEED") == NULL) {
        assert_true(t.installs > 0 && t.resets > 0 && t.rollbacks > 0 && t.changes > 0 && t.transfers > 0);
        print_message("%lu machines lost, %lu brought back\n", lost, restored);
        assert_true(lost > 100 && restored > 100);
    }
}

static void test_members_of_two(void **state)
{
    (void)state;
    random_ask(4, 2, 20000, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three),
        cmocka_unit_test(test_five),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_members_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
