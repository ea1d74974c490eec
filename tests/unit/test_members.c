/* What a group does with its members: whose frames it takes by the configuration in force, whether a majority has room,
 * handing over leadership and draining. This node is 1 of 1, 2, 3; the others are what the test says. */
#include "peer_node.h"
#include "metad/group.h"
#include "metad/members.h"
#include "metad/root/root.h"

#define GROUP 1u

static struct raft_status status_of(struct node *node)
{
    return group_status(node->groups[GROUP]);
}

/* Node 2 acknowledges everything. */
static void follow(struct node *node, uint32_t group)
{
    struct raft_status now = group_status(node->groups[group]);
    Cairn__RaftMessage ack = message_of(RAFT_APPEND_REPLY, now.term);
    ack.log_index = now.last;
    assert_int_equal(peer_says(node, group, 2, ack), ERR_OK);
}

/* Of three members a majority must have room: what each says of its disk counts, and what no member says does not. */
static void test_room(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct group *group = node.groups[GROUP];
    assert_true(members_have_room(group));
    members_note_room(group, 3, false);
    members_note_room(group, 7, false);
    assert_true(members_have_room(group));
    node.short_of_room = true;
    assert_false(members_have_room(group));
    members_note_room(group, 3, true);
    assert_true(members_have_room(group));
    members_note_room(group, 2, false);
    members_note_room(group, 3, false);
    node.short_of_room = false;
    assert_false(members_have_room(group));
    for (uint32_t other = 10; other < 60; other++) { /* those who are no members do not crowd out who is */
        members_note_room(group, other, false);
    }
    assert_false(members_have_room(group));
    members_note_room(group, 2, true);
    assert_true(members_have_room(group));
    node_deinit(&node);
}

/* Beyond the configuration: requests of a term that is not behind, for a member that was away while the others were
 * exchanged knows none of them; answers never; pre-votes always, so that removed servers are told so. */
static void test_frames(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct group *group = node.groups[GROUP];
    Cairn__RaftMessage beat = message_of(RAFT_HEARTBEAT, 2), vote = message_of(RAFT_PRE_VOTE, 9);
    assert_int_equal(peer_says(&node, GROUP, 4, message_of(RAFT_HEARTBEAT_REPLY, 2)), ERR_NOT_MEMBER);
    uint32_t speaker = 0;
    const char *address = NULL;
    assert_false(group_speaker(group, &speaker, &address));
    beat.address = (char *)(uintptr_t) "10.0.0.4:7100";
    assert_int_equal(peer_says(&node, GROUP, 4, beat), ERR_OK); /* it may lead by a configuration that is on its way */
    assert_true(group_speaker(group, &speaker, &address));      /* no map has it: this is how it can be answered */
    assert_int_equal(speaker, 4);
    assert_string_equal(address, "10.0.0.4:7100");
    assert_false(group_speaker(group, &speaker, &address));
    beat.address = (char *)(uintptr_t) "no address";
    assert_int_equal(peer_says(&node, GROUP, 4, beat), ERR_OK);
    assert_false(group_speaker(group, &speaker, &address));
    assert_int_equal(status_of(&node).leader, 4);
    assert_int_equal(peer_says(&node, GROUP, 4, message_of(RAFT_HEARTBEAT, 1)), ERR_NOT_MEMBER); /* an old term */
    assert_int_equal(peer_says(&node, GROUP, 3, message_of(RAFT_HEARTBEAT, 3)), ERR_OK);
    assert_int_equal(peer_says(&node, GROUP, 4, message_of(RAFT_HEARTBEAT, 3)), ERR_NOT_MEMBER); /* 3 leads that term */
    uint64_t refused = group->refused[ERR_NOT_MEMBER];
    assert_int_equal(peer_says(&node, GROUP, 4, vote), ERR_OK);
    assert_int_equal(group->refused[ERR_NOT_MEMBER], refused + 1);
    assert_int_equal(status_of(&node).term, 3);
    node_deinit(&node);
}

static enum err ask_transfer(struct node *node, uint32_t to)
{
    Cairn__RequestHead head;
    Cairn__AdminTransferRequest request = CAIRN__ADMIN_TRANSFER_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.head->ns = 0;
    request.node = to;
    return node_ask(node, 0, DEVICE_ROOT, MESSAGE_ADMIN_TRANSFER, &request, (struct slice){0});
}

/* Group 0 leads and has its keys. */
static void lead_with_keys(struct node *node)
{
    lead(node, 0);
    for (int i = 0; i < 100 && !node->groups[0]->keyring.present; i++) {
        follow(node, 0);
        node_ticks(node, 1);
    }
    assert_true(node->groups[0]->keyring.present);
}

/* While leadership moves nothing is proposed; what came meanwhile is answered once it has moved, or goes on when it
 * did not. */
static void test_transfer(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    lead_with_keys(&node);
    assert_int_equal(ask_transfer(&node, 9), ERR_NOT_FOUND);
    assert_int_equal(ask_transfer(&node, 1), ERR_OK); /* it leads already */
    assert_int_equal(group_status(node.groups[0]).transfer, 0);
    follow(&node, 0);
    assert_int_equal(ask_transfer(&node, 2), ERR_OK);
    assert_int_equal(group_status(node.groups[0]).transfer, 2);
    assert_int_equal(ask_transfer(&node, 2), ERR_CHANGE_PENDING);

    uint64_t last = group_status(node.groups[0]).last;
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    uint8_t uuid[16] = {1};
    request.node = request.incarnation = 1;
    request.uuid = (ProtobufCBinaryData){sizeof uuid, uuid};
    request.address = request.host = request.rack = (char *)"x";
    node_answer_drop(&node);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = ROLE_BLOCKD, .node = 1, .conn = 9},
                                     .peer = {ROLE_BLOCKD, 1},
                                     .type = MESSAGE_STORE_REGISTER,
                                     .stream = ++node.stream,
                                     .header = proto_pack(&request)};
    node_step(&node, 0, event);
    slice_drop(&event.message.header);
    assert_int_equal(group_status(node.groups[0]).last, last); /* it waits */
    assert_false(node.answered);
    assert_int_equal(node.groups[0]->flight_count, 0);
    struct raft_status now = group_status(node.groups[0]);
    assert_int_equal(peer_says(&node, 0, 2, message_of(RAFT_HEARTBEAT, now.term + 1)), ERR_NOT_LEADER);
    assert_int_equal(group_status(node.groups[0]).leader, 2);
    node_deinit(&node);
}

static enum err ask_change(struct node *node, uint32_t add, uint32_t remove, bool check)
{
    Cairn__RequestHead head;
    Cairn__AdminMembersRequest request = CAIRN__ADMIN_MEMBERS_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.head->ns = 0;
    request.add = add;
    request.remove = remove;
    request.check = check;
    return node_ask(node, 0, DEVICE_ROOT, MESSAGE_ADMIN_MEMBERS, &request, (struct slice){0});
}

static enum err ask_members(struct node *node, uint32_t add, uint32_t remove)
{
    return ask_change(node, add, remove, false);
}

static bool members_done(struct node *node)
{
    return ((Cairn__AdminMembersReply *)node_reply(node, &cairn__admin_members_reply__descriptor))->done;
}

/* One answer of another node, as if it had everything. */
static void acknowledge(struct node *node, uint32_t from)
{
    struct raft_status now = group_status(node->groups[0]);
    Cairn__RaftMessage ack = message_of(RAFT_APPEND_REPLY, now.term);
    ack.log_index = now.last;
    assert_int_equal(peer_says(node, 0, from, ack), ERR_OK);
}

static uint8_t roles_of(struct node *node, uint32_t other)
{
    struct raft_status now = group_status(node->groups[0]);
    return raft_config_roles(&now.config.config, other);
}

/* Refused: what is no change, an unknown node, before the leader has committed in its term, the last quorum. */
static void test_change_refused(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    lead(&node, 0);
    assert_false(group_status(node.groups[0]).ready);
    assert_int_equal(ask_members(&node, 0, 3), ERR_TERM_TOO_YOUNG);
    lead_with_keys(&node);
    follow(&node, 0);
    uint64_t config = group_status(node.groups[0]).config.index;
    assert_int_equal(ask_members(&node, 0, 0), ERR_INVALID);
    assert_int_equal(ask_members(&node, 4, 3), ERR_INVALID);
    assert_int_equal(ask_members(&node, 4, 0), ERR_NOT_READY);   /* the map does not know it */
    assert_int_equal(ask_members(&node, 0, 2), ERR_LAST_QUORUM); /* 3 is silent: 1 of 2 would be left */
    assert_int_equal(group_status(node.groups[0]).config.index, config);
    assert_int_equal(ask_members(&node, 2, 0), ERR_OK); /* it is a voter: nothing begins */
    assert_true(members_done(&node));
    assert_int_equal(ask_members(&node, 0, 9), ERR_OK);
    assert_true(members_done(&node));
    assert_int_equal(ask_change(&node, 0, 2, true), ERR_LAST_QUORUM);
    assert_int_equal(ask_change(&node, 0, 3, true), ERR_OK); /* it could, and is not begun */
    assert_false(members_done(&node));
    assert_int_equal(group_status(node.groups[0]).config.index, config);
    node_deinit(&node);
}

static enum err ask_node(struct node *node, uint32_t state)
{
    Cairn__RequestHead head;
    Cairn__AdminNodeRequest request = CAIRN__ADMIN_NODE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.head->ns = 0;
    request.node = 4;
    request.state = state;
    request.address = (char *)(uintptr_t) "10.0.0.4:7100";
    return node_ask(node, 0, DEVICE_ROOT, MESSAGE_ADMIN_NODE, &request, (struct slice){0});
}

/* Members are exchanged no faster than the map is heard: who knew only nodes that are gone would find nobody. */
static void test_heard(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(ask_node(&node, NODE_JOINING), ERR_OK);
    assert_int_equal(ask_node(&node, NODE_IN_USE), ERR_OK);
    struct group *group = node.groups[0];
    Cairn__MapNode *row = map_find_metad(group->keyring.map, 4);
    assert_int_equal(row->since, group->keyring.map->tick + 1);
    assert_int_equal(ask_node(&node, NODE_IN_USE), ERR_OK);
    assert_int_equal(map_find_metad(group->keyring.map, 4)->since, group->keyring.map->tick + 1);
    node_deinit(&node);

    start(&node);
    lead_with_keys(&node);
    follow(&node, 0);
    group = node.groups[0];
    Cairn__MapNode young[2] = {CAIRN__MAP_NODE__INIT, CAIRN__MAP_NODE__INIT}, *rows[2] = {young, young + 1};
    for (uint32_t i = 0; i < 2; i++) {
        young[i].role = ROLE_METAD;
        young[i].id = 1 + i;
        young[i].since = group->keyring.map->tick + 1;
    }
    group->keyring.map->nodes = rows;
    group->keyring.map->n_nodes = 2;
    assert_int_equal(ask_change(&node, 0, 3, true), ERR_NOT_READY);
    assert_int_equal(ask_members(&node, 0, 3), ERR_NOT_READY);
    assert_int_equal(roles_of(&node, 3), RAFT_VOTER);
    group->keyring.map->tick += 6;
    assert_int_equal(ask_change(&node, 0, 3, true), ERR_NOT_READY); /* a tick may be all but over when it begins */
    group->keyring.map->tick += 1;
    assert_int_equal(ask_change(&node, 0, 3, true), ERR_OK);
    young[0].since = young[1].since = 0; /* two of the first */
    group->keyring.map->tick = 0;
    assert_int_equal(ask_change(&node, 0, 3, true), ERR_OK);
    node_deinit(&node);
}

/* Added: learner, caught up, joint, voter; others are refused meanwhile, and asking again says how it stands. */
static void test_change_add(void **state)
{
    (void)state;
    static const uint32_t peers[] = {1, 2, 3, 4, 5, 0};
    struct node node;
    start(&node);
    lead_with_keys(&node);
    node.groups[0]->params.peers = peers;
    follow(&node, 0);
    assert_int_equal(ask_members(&node, 4, 0), ERR_OK);
    assert_false(members_done(&node));
    assert_int_equal(roles_of(&node, 4), RAFT_LEARNER | RAFT_PROMOTE);
    assert_int_equal(ask_members(&node, 5, 0), ERR_CHANGE_PENDING); /* joint, not even committed */
    follow(&node, 0);
    assert_int_equal(ask_members(&node, 5, 0), ERR_CHANGE_PENDING); /* what comes behind it is not */
    follow(&node, 0);
    assert_int_equal(ask_members(&node, 5, 0), ERR_CHANGE_PENDING); /* committed, but not caught up */
    assert_int_equal(ask_members(&node, 0, 3), ERR_CHANGE_PENDING);
    assert_int_equal(ask_members(&node, 4, 0), ERR_OK);
    assert_false(members_done(&node));
    acknowledge(&node, 4);
    struct raft_status joint = group_status(node.groups[0]);
    assert_true(raft_config_is_joint(&joint.config.config));
    assert_int_equal(ask_members(&node, 4, 0), ERR_OK);
    assert_false(members_done(&node));
    for (int i = 0; i < 4; i++) {
        follow(&node, 0);
        acknowledge(&node, 4);
    }
    assert_int_equal(roles_of(&node, 4), RAFT_VOTER);
    assert_int_equal(ask_members(&node, 4, 0), ERR_OK);
    assert_true(members_done(&node));
    assert_int_equal(ask_members(&node, 0, 3), ERR_OK); /* 1, 2 and 4 answer */
    for (int i = 0; i < 4; i++) {
        follow(&node, 0);
        acknowledge(&node, 4);
    }
    assert_int_equal(roles_of(&node, 3), 0);
    assert_int_equal(ask_members(&node, 0, 3), ERR_OK);
    assert_true(members_done(&node));
    node_deinit(&node);
}

/* Group 1 is led here, and group 0, which has the keys, hears no leader: somebody else may serve it. */
static void test_keyless(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct group *group = node.groups[GROUP];
    lead(&node, GROUP);
    follow(&node, GROUP);
    assert_false(group->keyring.present);
    for (int i = 0; i < 100 && status_of(&node).transfer == 0; i++) {
        assert_int_equal(status_of(&node).role, RAFT_LEADER);
        follow(&node, GROUP);
        node_ticks(&node, 1);
    }
    assert_int_equal(status_of(&node).transfer, 2);
    node_deinit(&node);
}

/* Draining: handed over to who answers; drained once another leads; no leadership is taken while it drains. */
static void test_drain(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct group *group = node.groups[0];
    lead_with_keys(&node);
    follow(&node, 0);
    struct event drain = {.kind = EVENT_MESSAGE};
    drain.message = (struct message){.peer.role = ROLE_LOCAL, .type = MESSAGE_GROUP_DRAIN};
    assert_false(group_is_drained(group));
    node_step(&node, 0, drain);
    assert_int_equal(group_status(group).transfer, 2);
    assert_false(group_is_drained(group));
    uint64_t term = group_status(group).term + 1;
    assert_int_equal(peer_says(&node, 0, 2, message_of(RAFT_HEARTBEAT, term)), ERR_OK);
    assert_true(group_is_drained(group));
    assert_int_equal(peer_says(&node, 0, 2, message_of(RAFT_TIMEOUT_NOW, term)), ERR_OK);
    node_ticks(&node, 200);
    assert_int_equal(group_status(group).role, RAFT_FOLLOWER);
    assert_int_equal(group_status(group).term, term);
    node_deinit(&node);
}

/* Nobody takes over: after a few tries it is drained all the same, and goes on serving while it lasts. */
static void test_drain_alone(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct group *group = node.groups[0];
    lead_with_keys(&node);
    struct event drain = {.kind = EVENT_MESSAGE};
    drain.message = (struct message){.peer.role = ROLE_LOCAL, .type = MESSAGE_GROUP_DRAIN};
    node_step(&node, 0, drain);
    for (int i = 0; i < 200 && !group_is_drained(group); i++) {
        struct raft_status now = group_status(group);
        Cairn__RaftMessage beat = message_of(RAFT_HEARTBEAT_REPLY, now.term); /* it lives, and does not campaign */
        assert_int_equal(peer_says(&node, 0, 2, beat), ERR_OK);
        node_ticks(&node, 1);
    }
    assert_true(group_is_drained(group));
    assert_int_equal(group_status(group).role, RAFT_LEADER);
    node_deinit(&node);
    node_init(&node); /* one member: nobody to hand over to */
    node_step(&node, 0, drain);
    assert_true(group_is_drained(node.groups[0]));
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),       cmocka_unit_test(test_frames),      cmocka_unit_test(test_transfer),
        cmocka_unit_test(test_drain),      cmocka_unit_test(test_drain_alone), cmocka_unit_test(test_change_refused),
        cmocka_unit_test(test_change_add), cmocka_unit_test(test_keyless),     cmocka_unit_test(test_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
