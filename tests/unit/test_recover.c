/* Recovery of a group from a lost majority: what lies here is looked at, nothing is written before it is asked for, and
 * the node goes on alone in a new incarnation, with all its log held, committed or not. */
#include "base/ids.h"
#include "group_node.h"
#include "metad/group.h"

#define NEW_INCARNATION (1ull << 32 | 77)

static const struct principal root_device = {.role = ROLE_DEVICE, .id = 1};

static enum err make_folder(struct node *node, const char *name)
{
    Cairn__RequestHead head;
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = 1;
    request.name = text_bytes(name);
    return node_ask(node, 1, root_device, MESSAGE_MKDIR, &request, (struct slice){0});
}

static const Cairn__ChangesReply *changes(struct node *node, uint64_t incarnation, enum err wanted)
{
    Cairn__RequestHead head;
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.incarnation = incarnation;
    assert_int_equal(node_ask(node, 1, root_device, MESSAGE_CHANGES, &request, (struct slice){0}), wanted);
    return wanted == ERR_OK ? node_reply(node, &cairn__changes_reply__descriptor) : NULL;
}

static const Cairn__ClusterMap *map_of(struct node *node)
{
    Cairn__RequestHead head;
    Cairn__MapGetRequest request = CAIRN__MAP_GET_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.head->ns = 0;
    assert_int_equal(node_ask(node, 0, root_device, MESSAGE_MAP_GET, &request, (struct slice){0}), ERR_OK);
    const Cairn__MapGetReply *reply = node_reply(node, &cairn__map_get_reply__descriptor);
    assert_non_null(reply->map);
    return reply->map;
}

/* The log's end says that the members are these, and nobody but this node is left. */
static void log_put_config(struct node *node, uint32_t group, const uint32_t *members, uint32_t count)
{
    struct node_log *log = &node->logs[group];
    struct raft_config config = {.count = count};
    for (uint32_t i = 0; i < count; i++) {
        config.members[i] = (struct raft_member){.node = members[i], .roles = RAFT_VOTER};
    }
    log->entries = mem_grow(log->entries, &log->capacity, log->count + 1, sizeof *log->entries);
    log->entries[log->count] = (struct raft_entry){.index = log->count + 1,
                                                   .term = log->hard.term,
                                                   .type = RAFT_ENTRY_CONFIG,
                                                   .data = raft_config_encode(&config)};
    log->count++;
}

static void restart(struct node *node, bool recovering)
{
    node_stop(node);
    node->recovering = recovering;
    node_start(node);
}

static void recover(struct node *node, uint64_t incarnation)
{
    uint8_t packed[8];
    put_u64(packed, incarnation);
    for (uint32_t g = 0; g < NODE_GROUPS; g++) {
        struct event event = {.kind = EVENT_MESSAGE};
        event.message = (struct message){.from = address_local(ACTOR_API, 0),
                                         .peer.role = ROLE_LOCAL,
                                         .type = MESSAGE_GROUP_RECOVER,
                                         .header = slice_copy(packed, sizeof packed)};
        assert_false(group_recovery(node->groups[g])->done);
        node_step(node, g, event);
        slice_drop(&event.message.header);
        node_drain(node);
        assert_true(group_recovery(node->groups[g])->done);
    }
    node->bootstrap.cluster_incarnation = incarnation;
}

static void lose_majority(struct node *node)
{
    static const uint32_t members[] = {1, 2, 3};
    node_init(node);
    assert_int_equal(make_folder(node, "kept"), ERR_OK);
    for (uint32_t g = 0; g < NODE_GROUPS; g++) {
        log_put_config(node, g, members, 3);
    }
    restart(node, false);
    node_ticks(node, 200);
    assert_int_not_equal(group_status(node->groups[1]).role, RAFT_LEADER);
}

static void test_goes_on_alone(void **state)
{
    (void)state;
    struct node node;
    lose_majority(&node);
    uint64_t last = node.logs[1].count;
    restart(&node, true);
    node_ticks(&node, 200);
    assert_int_equal(node.logs[1].count, last); /* looking writes nothing */
    for (uint32_t g = 0; g < NODE_GROUPS; g++) {
        const struct group_recovery *here = group_recovery(node.groups[g]);
        assert_true(here->looked && here->wrong == NULL);
        assert_int_equal(here->last, node.logs[g].count);
        assert_int_equal(here->config.count, 3);
    }
    recover(&node, NEW_INCARNATION);
    assert_int_equal(node.logs[1].count, last + 2);
    restart(&node, false);
    assert_int_equal(group_status(node.groups[1]).role, RAFT_LEADER);
    const Cairn__ChangesReply *feed = changes(&node, 0, ERR_OK);
    assert_int_equal(feed->n_changes, 1);
    assert_true(feed->incarnation == NEW_INCARNATION);
    changes(&node, 1, ERR_CURSOR_EXPIRED); /* of the past that was lost (P3) */
    changes(&node, NEW_INCARNATION, ERR_OK);
    assert_int_equal(make_folder(&node, "kept"), ERR_EXISTS);
    assert_int_equal(make_folder(&node, "more"), ERR_OK);
    const Cairn__ClusterMap *map = map_of(&node);
    assert_true(map->cluster_incarnation == NEW_INCARNATION);
    assert_true(map->epoch > 1ull << 32); /* above all that the others may have given out */
    for (size_t i = 0; i < map->n_groups; i++) {
        assert_int_equal(map->groups[i]->n_members, 1);
        assert_int_equal(map->groups[i]->members[0], 1);
    }
    assert_int_equal(map_find_metad(map, 1)->state, NODE_IN_USE);
    node_deinit(&node);
}

/* A command that was killed is run again; a later loss is a later incarnation. */
static void test_again(void **state)
{
    (void)state;
    struct node node;
    lose_majority(&node);
    restart(&node, true);
    recover(&node, NEW_INCARNATION);
    restart(&node, true);
    recover(&node, NEW_INCARNATION);
    restart(&node, false);
    assert_true(changes(&node, 0, ERR_OK)->incarnation == NEW_INCARNATION);
    restart(&node, true);
    uint64_t later = incarnation_next(NEW_INCARNATION, 5);
    assert_true(incarnation_is_newer(later, NEW_INCARNATION) && !incarnation_is_newer(NEW_INCARNATION, later));
    assert_false(incarnation_is_newer(NEW_INCARNATION + 1, NEW_INCARNATION)); /* of two that part, neither is newer */
    recover(&node, later);
    restart(&node, false);
    assert_true(changes(&node, 0, ERR_OK)->incarnation == later);
    assert_true(map_of(&node)->cluster_incarnation == later);
    node_deinit(&node);
}

static void test_not_here(void **state)
{
    (void)state;
    static const uint32_t others[] = {2, 3};
    struct node node;
    node_init(&node);
    log_put_config(&node, 0, others, 2);
    restart(&node, true);
    assert_non_null(strstr(group_recovery(node.groups[0])->wrong, "removed"));
    assert_null(group_recovery(node.groups[1])->wrong);
    node_deinit(&node);
    node = (struct node){.view.ops = &node_kv_ops, .db = kv_batch_create(), .now_ns = 1, .recovering = true};
    node.bootstrap = (struct bootstrap){.members = {2}, .member_count = 1};
    node_start(&node);
    assert_non_null(strstr(group_recovery(node.groups[0])->wrong, "never held"));
    assert_int_equal(node.logs[0].count, 0);
    node_deinit(&node);
}

/* A damaged entry that is not applied can come from another member alone: nothing is recovered without it. */
static void test_refuses_a_damaged_entry(void **state)
{
    (void)state;
    struct node node;
    lose_majority(&node);
    uint64_t count = node.logs[1].count;
    assert_true(group_status(node.groups[1]).applied < count);
    node.logs[1].hole = count;
    restart(&node, true);
    assert_non_null(strstr(group_recovery(node.groups[1])->wrong, "is damaged"));
    assert_null(group_recovery(node.groups[0])->wrong);
    assert_int_equal(node.logs[1].count, count); /* nothing was written */
    node.logs[1].hole = 0;
    restart(&node, true);
    assert_null(group_recovery(node.groups[1])->wrong);
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_a_damaged_entry),
        cmocka_unit_test(test_goes_on_alone),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_not_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
