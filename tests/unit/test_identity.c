/* Which log speaks (R-E3): a member that comes back with less than was heard of it, or with another directory, counts
 * for nothing until it has no vote by a committed configuration. This node is 1 of 1, 2, 3. */
#include "peer_node.h"
#include "metad/group.h"

#define GROUP 1u

/* A frame of a later term than any here. */
static enum err frame(struct node *node, uint32_t from, const Cairn__RaftMessage *message)
{
    Cairn__RaftMessage copy = *message;
    copy.term = 9;
    return peer_says(node, GROUP, from, copy);
}

static Cairn__LogIdentity identity(uint8_t uuid[16], uint8_t directory, uint64_t boot, uint64_t found,
                                   uint64_t position)
{
    Cairn__LogIdentity log = CAIRN__LOG_IDENTITY__INIT;
    memset(uuid, directory, 16);
    log.directory = (ProtobufCBinaryData){16, uuid};
    log.boot = boot;
    log.boot_position = found;
    log.position = position;
    return log;
}

/* Member 2 speaks. */
static enum err hear(struct node *node, uint8_t directory, uint64_t boot, uint64_t found, uint64_t position)
{
    uint8_t uuid[16];
    Cairn__LogIdentity log = identity(uuid, directory, boot, found, position);
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = RAFT_PRE_VOTE;
    message.log = &log;
    return frame(node, 2, &message);
}

/* The same, and lists the `count` processes of its directory; none: it is a kind of frame that does not. */
static enum err hear_listed(struct node *node, uint64_t boot, uint64_t found, uint64_t *boots, size_t count)
{
    uint8_t uuid[16];
    Cairn__LogIdentity log = identity(uuid, 5, boot, found, found);
    log.lists = true;
    log.boots = boots;
    log.n_boots = count;
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = count > 0 ? RAFT_PRE_VOTE : RAFT_APPEND_REPLY;
    message.log = &log;
    return frame(node, 2, &message);
}

/* Member 3 leads, and tells what it knows of member 2 under the configuration `at`. */
static enum err relay(struct node *node, uint64_t at, uint8_t directory, uint64_t boot, uint64_t found,
                      uint64_t position)
{
    uint8_t own[16], uuid[16];
    Cairn__LogIdentity log = identity(own, 9, 33, 0, 7);
    Cairn__LogIdentity known = identity(uuid, directory, boot, found, position), *list = &known;
    known.node = 2;
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = RAFT_HEARTBEAT;
    message.log = &log;
    message.n_known = 1;
    message.known = &list;
    message.known_at = at + 1;
    return frame(node, 3, &message);
}

static void test_less_than_was_heard(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 10), ERR_OK);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(hear(&node, 5, 71, 40, 40), ERR_OK);         /* it came back with all */
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_STALE_PEER); /* a late frame judges nobody */
    assert_int_equal(hear(&node, 5, 71, 40, 50), ERR_OK);
    assert_int_equal(hear(&node, 5, 72, 49, 49), ERR_STALE_PEER);
    assert_int_equal(hear(&node, 5, 72, 49, 90), ERR_STALE_PEER); /* what it writes since does not help */
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    assert_int_equal(hear(&node, 5, 73, 90, 90), ERR_STALE_PEER); /* nor does it when it starts again */
    assert_int_equal(hear(&node, 6, 74, 99, 99), ERR_STALE_PEER); /* an empty one that grew */
    assert_int_equal(group_health(node.groups[GROUP]).stale, 2);
    node_deinit(&node);
}

/* A copy that holds all that was heard of the member, and not the process that was heard (seed 8041 of `stale`). */
static void test_process_that_is_missing(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear_listed(&node, 70, 10, (uint64_t[]){69, 70}, 2), ERR_OK);
    assert_int_equal(hear_listed(&node, 71, 10, (uint64_t[]){69, 70, 71}, 3), ERR_OK);
    assert_int_equal(hear_listed(&node, 72, 10, NULL, 0), ERR_NOT_READY); /* not judged by half of what it says */
    assert_false(identity_is_stale(node.groups[GROUP], 2));
    assert_int_equal(hear_listed(&node, 72, 10, (uint64_t[]){69, 70, 72}, 3), ERR_STALE_PEER);
    assert_int_equal(hear_listed(&node, 72, 11, NULL, 0), ERR_STALE_PEER);
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* One that remembers as many as it can may have forgotten the one that was heard: positions decide. */
static void test_process_that_is_forgotten(void **state)
{
    (void)state;
    struct node node;
    uint64_t boots[LIMIT_LOG_BOOTS];
    for (uint32_t i = 0; i < LIMIT_LOG_BOOTS; i++) {
        boots[i] = 100 + i;
    }
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 10), ERR_OK);
    assert_int_equal(hear_listed(&node, 100 + LIMIT_LOG_BOOTS - 1, 10, boots, LIMIT_LOG_BOOTS), ERR_OK);
    node_deinit(&node);
}

/* What a leader tells says nothing of the processes before: the member itself does. */
static void test_process_that_was_told_of(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear_listed(&node, 70, 10, (uint64_t[]){69, 70}, 2), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 71, 10, 20), ERR_OK);
    assert_false(identity_is_stale(node.groups[GROUP], 2));
    assert_int_equal(hear_listed(&node, 71, 10, NULL, 0), ERR_NOT_READY);
    assert_int_equal(hear_listed(&node, 71, 10, (uint64_t[]){69, 71}, 2), ERR_STALE_PEER);
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* A committed configuration in which it has no vote: it is believed anew. */
static void test_rejoins(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(hear(&node, 6, 71, 1, 1), ERR_STALE_PEER);
    struct raft_config config = {.members = {{1, RAFT_VOTER}, {2, RAFT_LEARNER}, {3, RAFT_VOTER}}, .count = 3};
    node.groups[GROUP]->at.config = (struct raft_config_at){.index = 1, .config = config};
    identity_config(node.groups[GROUP], 1, &config);
    assert_int_equal(hear(&node, 6, 71, 1, 1), ERR_OK);
    assert_false(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* Behind a restart an older configuration is applied again, in which it was a learner: what was heard under the one
 * that came later is held to, and its row stays. */
static void test_heard_under_a_later_configuration(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct raft_config voter = {.members = {{1, RAFT_VOTER}, {2, RAFT_VOTER}, {3, RAFT_VOTER}}, .count = 3};
    struct raft_config learner = {.members = {{1, RAFT_VOTER}, {2, RAFT_LEARNER}, {3, RAFT_VOTER}}, .count = 3};
    node.groups[GROUP]->at.config = (struct raft_config_at){.index = 9, .config = voter};
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    node.groups[GROUP]->at.config = (struct raft_config_at){.index = 7, .config = learner};
    identity_config(node.groups[GROUP], 7, &learner);
    assert_int_equal(hear(&node, 5, 71, 30, 30), ERR_STALE_PEER);
    node_deinit(&node);
}

/* It was put back, lost its vote and has it again: of what was known before nothing comes back with the row (seed 1 of
 * `stale`). */
static void test_rejoins_and_is_told_of(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(relay(&node, 0, 5, 70, 10, 40), ERR_OK);
    struct raft_config config = {.members = {{1, RAFT_VOTER}, {2, RAFT_LEARNER}, {3, RAFT_VOTER}}, .count = 3};
    identity_config(node.groups[GROUP], 1, &config);
    assert_int_equal(relay(&node, 0, 5, 71, 12, 20), ERR_OK);
    assert_int_equal(hear(&node, 5, 71, 12, 21), ERR_OK);
    assert_false(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* A stale member that leads was elected by others, for whom it has its vote again: its word as a leader is followed,
 * and its vote, and requests for ours, stay refused (seed 11 of `stale`). */
static void test_stale_leader_is_followed(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(hear(&node, 6, 71, 1, 1), ERR_STALE_PEER);
    uint8_t uuid[16];
    Cairn__LogIdentity log = identity(uuid, 6, 71, 1, 2);
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = RAFT_HEARTBEAT;
    message.log = &log;
    assert_int_equal(frame(&node, 2, &message), ERR_OK);
    message.kind = RAFT_HEARTBEAT_REPLY;
    assert_int_equal(frame(&node, 2, &message), ERR_STALE_PEER);
    message.kind = RAFT_VOTE_REPLY;
    assert_int_equal(frame(&node, 2, &message), ERR_STALE_PEER);
    assert_int_equal(hear(&node, 6, 71, 1, 2), ERR_STALE_PEER);
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* What a leader tells of another is judged like what that one says itself, and clears nobody. */
static void test_relay_is_judged(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 71, 20, 60), ERR_OK); /* an older copy was put back, and has grown since */
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    assert_int_equal(hear(&node, 5, 71, 20, 61), ERR_STALE_PEER);
    assert_int_equal(relay(&node, 0, 5, 72, 70, 80), ERR_OK); /* the leader never heard of the 40 */
    assert_true(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

/* The process that was heard is the one that lacks what the leader heard before it. */
static void test_relay_of_an_older_process(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 71, 20, 22), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 70, 10, 15), ERR_OK); /* which it found */
    assert_int_equal(hear(&node, 5, 71, 20, 23), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 70, 10, 40), ERR_OK); /* which it did not */
    assert_int_equal(hear(&node, 5, 71, 20, 24), ERR_STALE_PEER);
    assert_int_equal(hear(&node, 5, 73, 39, 39), ERR_STALE_PEER);
    assert_int_equal(hear(&node, 5, 74, 40, 40), ERR_STALE_PEER); /* no process clears it: it has to rejoin */
    node_deinit(&node);
}

static void test_relay_is_learned(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(relay(&node, 0, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 71, 40, 50), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 71, 40, 60), ERR_OK);
    assert_int_equal(relay(&node, 7, 5, 71, 40, 99), ERR_OK); /* of another configuration: another's vote */
    assert_int_equal(hear(&node, 5, 72, 60, 60), ERR_OK);
    assert_int_equal(relay(&node, 0, 6, 73, 70, 70), ERR_OK);
    assert_int_equal(hear(&node, 5, 74, 60, 61), ERR_STALE_PEER); /* which of the two directories it is nobody knows */
    node_deinit(&node);
}

/* What this node answered to the last heartbeat. */
static Cairn__RaftMessage *answer_of(struct node *node)
{
    void *unpacked = NULL;
    assert_int_equal(proto_unpack(&cairn__raft_message__descriptor, node->told, &node->arena, &unpacked), ERR_OK);
    return unpacked;
}

/* A follower's answers to heartbeats name whom it found stale, until that one has rejoined. */
static void test_leader_is_told(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(relay(&node, 0, 5, 70, 10, 40), ERR_OK);
    assert_int_equal(answer_of(&node)->kind, RAFT_HEARTBEAT_REPLY);
    assert_int_equal(answer_of(&node)->n_stale, 0);
    assert_int_equal(hear(&node, 6, 71, 1, 1), ERR_STALE_PEER);
    assert_int_equal(relay(&node, 0, 6, 71, 1, 2), ERR_OK); /* the leader knows of the new process alone */
    const Cairn__RaftMessage *answer = answer_of(&node);
    assert_true(answer->n_stale == 1 && answer->stale[0] == 2 && answer->known_at == 1);
    struct raft_config config = {.members = {{1, RAFT_VOTER}, {2, RAFT_LEARNER}, {3, RAFT_VOTER}}, .count = 3};
    node.groups[GROUP]->at.config = (struct raft_config_at){.index = 1, .config = config};
    identity_config(node.groups[GROUP], 1, &config);
    assert_int_equal(relay(&node, 1, 6, 71, 1, 2), ERR_OK);
    assert_int_equal(answer_of(&node)->n_stale, 0);
    node_deinit(&node);
}

/* Voter 2 follows this leader, and says so of member 3 under the configuration `at`. */
static enum err report(struct node *node, uint64_t at, uint64_t term, uint32_t *nodes, size_t count)
{
    uint8_t uuid[16];
    Cairn__LogIdentity log = identity(uuid, 5, 70, 10, 40);
    Cairn__RaftMessage message = message_of(RAFT_HEARTBEAT_REPLY, term);
    message.log = &log;
    message.stale = nodes;
    message.n_stale = count;
    message.known_at = at + 1;
    return peer_says(node, GROUP, 2, message);
}

/* A leader takes a follower's word for it, under the same configuration and of its own term, and writes it down: who
 * was never heard here, or was believed, is judged by nobody else (seed 21046 of `stale` at d162592). */
static void test_leader_believes_a_follower(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    lead(&node, GROUP);
    struct group *group = node.groups[GROUP];
    uint64_t term = group_status(group).term;
    assert_int_equal(report(&node, 0, term, (uint32_t[]){1, 4}, 2), ERR_OK); /* itself, and no member */
    assert_int_equal(report(&node, 7, term, (uint32_t[]){3}, 1), ERR_OK);
    assert_int_equal(report(&node, 0, term - 1, (uint32_t[]){3}, 1), ERR_OK);
    struct raft_config_at voters = group->at.config; /* a learner's memory may be that of an older copy */
    group->at.config.config.members[1].roles = RAFT_LEARNER;
    assert_int_equal(report(&node, 0, term, (uint32_t[]){3}, 1), ERR_OK);
    group->at.config = voters;
    assert_int_equal(group_health(group).stale, 0);
    assert_int_equal(report(&node, 0, term, (uint32_t[]){3}, 1), ERR_OK);
    assert_int_equal(group_health(group).stale, 3);
    Cairn__LogIdentity log = identity((uint8_t[16]){0}, 6, 80, 0, 3);
    Cairn__RaftMessage reply = message_of(RAFT_APPEND_REPLY, term);
    reply.log = &log;
    assert_int_equal(peer_says(&node, GROUP, 3, reply), ERR_STALE_PEER);
    node.logs[GROUP].peer_count = 0;
    node_ticks(&node, 1);
    assert_int_equal(node.logs[GROUP].peer_count, 2);
    node_stop(&node);
    node_start(&node); /* it is not believed by the next process either */
    assert_int_equal(peer_says(&node, GROUP, 3, reply), ERR_STALE_PEER);
    node_deinit(&node);
}

/* A process heard for the first time goes into the log at the next tick, though the group appends nothing. */
static void test_new_process_is_written_down(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    assert_int_equal(hear(&node, 5, 70, 10, 40), ERR_OK);
    node_ticks(&node, 1);
    assert_true(node.logs[GROUP].peers_now && node.logs[GROUP].peer_count == 1);
    assert_int_equal(node.logs[GROUP].peers[0].boot, 70);
    assert_int_equal(hear(&node, 5, 70, 10, 41), ERR_OK); /* a position alone waits */
    node_ticks(&node, 1);
    assert_int_equal(node.logs[GROUP].peers[0].position, 40);
    assert_int_equal(hear(&node, 5, 71, 41, 41), ERR_OK);
    node_ticks(&node, 1);
    assert_int_equal(node.logs[GROUP].peers[0].boot, 71);
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_than_was_heard),
        cmocka_unit_test(test_process_that_is_missing),
        cmocka_unit_test(test_process_that_is_forgotten),
        cmocka_unit_test(test_process_that_was_told_of),
        cmocka_unit_test(test_relay_is_judged),
        cmocka_unit_test(test_relay_of_an_older_process),
        cmocka_unit_test(test_relay_is_learned),
        cmocka_unit_test(test_heard_under_a_later_configuration),
        cmocka_unit_test(test_rejoins),
        cmocka_unit_test(test_stale_leader_is_followed),
        cmocka_unit_test(test_rejoins_and_is_told_of),
        cmocka_unit_test(test_leader_is_told),
        cmocka_unit_test(test_leader_believes_a_follower),
        cmocka_unit_test(test_new_process_is_written_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
