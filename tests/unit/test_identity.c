/* Which log speaks (R-E3): a member that comes back with less than was heard of it, or with another directory, counts
 * for nothing until it has no vote by a committed configuration. This node is 1 of 1, 2, 3. */
#include "group_node.h"
#include "metad/group.h"

#define GROUP 1u

static void start(struct node *node)
{
    *node = (struct node){.view.ops = &node_kv_ops, .db = kv_batch_create(), .now_ns = 1};
    node->bootstrap = (struct bootstrap){.cluster_incarnation = 1,
                                         .members = {1, 2, 3},
                                         .member_count = 3,
                                         .stores = 6,
                                         .workspace = "home",
                                         .pool = "rs-4-2",
                                         .chunk_bytes = LIMIT_CHUNK_BYTES,
                                         .device = 1};
    memset(node->cluster_key, 7, 32);
    node_start(node);
}

static enum err hear(struct node *node, uint8_t directory, uint64_t boot, uint64_t found, uint64_t position)
{
    uint8_t uuid[16];
    memset(uuid, directory, sizeof uuid);
    node_answer_drop(node);
    Cairn__LogIdentity log = CAIRN__LOG_IDENTITY__INIT;
    log.directory = (ProtobufCBinaryData){sizeof uuid, uuid};
    log.boot = boot;
    log.boot_position = found;
    log.position = position;
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = RAFT_PRE_VOTE;
    message.group = GROUP;
    message.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    message.cluster_incarnation = 1;
    message.from = 2;
    message.term = 9;
    message.log = &log;
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = ROLE_METAD, .node = 2, .conn = 9},
                                     .peer = {ROLE_METAD, 2},
                                     .type = MESSAGE_RAFT,
                                     .stream = ++node->stream,
                                     .header = proto_pack(&message)};
    node_step(node, GROUP, event);
    slice_drop(&event.message.header);
    node_drain(node);
    uint32_t leader = 0;
    return node->answered ? error_reply_decode(node->header, &leader) : ERR_OK;
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
    assert_int_equal(hear(&node, 5, 73, 50, 50), ERR_OK);         /* the right directory was put back */
    assert_int_equal(hear(&node, 6, 74, 99, 99), ERR_STALE_PEER); /* an empty one that grew */
    assert_int_equal(group_health(node.groups[GROUP]).stale, 2);
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
    identity_config(node.groups[GROUP], &config);
    assert_int_equal(hear(&node, 6, 71, 1, 1), ERR_OK);
    assert_false(identity_is_stale(node.groups[GROUP], 2));
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_than_was_heard),
        cmocka_unit_test(test_rejoins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
