/* A group whose log has holes (R-E1, R-E2): what it asks of the others, what it writes, when it cuts, what it refuses,
 * and what it answers to who asks. This node is 1 of 1, 2, 3; the others are what the test says. The log is one of six
 * entries, and the database holds nothing durably. */
#include "group_node.h"
#include "metad/group.h"

#define GROUP 1u

static void log_fill(struct node_log *log, uint64_t count)
{
    log->hard = (struct raft_hard_state){.term = 2, .vote = 1};
    log->entries = mem_grow(log->entries, &log->capacity, count, sizeof *log->entries);
    for (uint64_t i = 1; i <= count; i++) {
        log->entries[i - 1] = (struct raft_entry){.index = i,
                                                  .term = i == 1 ? 1 : 2,
                                                  .type = i == 1 ? RAFT_ENTRY_BOOT : RAFT_ENTRY_NOOP,
                                                  .data = slice_alloc(0)};
    }
    log->count = count;
}

static void start(struct node *node, uint32_t members)
{
    node_make(node, members);
    log_fill(&node->logs[GROUP], 6);
}

/* Only this group runs. */
static void group_run(struct node *node)
{
    static const uint32_t peers[] = {1, 2, 3, 0};
    struct group_params params = {.group = GROUP,
                                  .self = 1,
                                  .bootstrap = &node->bootstrap,
                                  .kv = &node->view,
                                  .group_count = NODE_GROUPS,
                                  .tick_ns = 50000000,
                                  .peers = peers};
    node->groups[GROUP] = group_create(&params);
    node_step(node, GROUP, (struct event){.kind = EVENT_TIMER, .timer.id = 0});
    node_drain(node);
}

static void tick(struct node *node, int count)
{
    for (int i = 0; i < count; i++) {
        node->now_ns += 50000000;
        node_step(node, GROUP, (struct event){.kind = EVENT_TIMER, .timer.id = 1});
        node_drain(node);
    }
}

static void end(struct node *node)
{
    node_answer_drop(node);
    slice_drop(&node->told);
    proto_arena_deinit(&node->arena);
    group_destroy(node->groups[GROUP]);
    node_log_drop(&node->logs[GROUP]);
    free(node->logs[GROUP].entries);
    kv_batch_destroy(node->db);
    free(node->inbox);
}

static struct raft_status status_of(struct node *node)
{
    return group_status(node->groups[GROUP]);
}

static void step_message(struct node *node, struct message message)
{
    struct event event = {.kind = EVENT_MESSAGE, .message = message};
    node_step(node, GROUP, event);
    slice_drop(&event.message.header);
    slice_drop(&event.message.body);
    node_drain(node);
}

/* `from` answers what it was asked last. */
static void answer(struct node *node, uint32_t from, uint32_t verdict, const struct raft_entry *entry)
{
    const struct heal *heal = &node->groups[GROUP]->heal;
    Cairn__EntryFetchReply reply = CAIRN__ENTRY_FETCH_REPLY__INIT;
    uint64_t stream = 0;
    for (uint32_t i = 0; i < heal->asked_count; i++) {
        stream = heal->asked[i].node == from ? heal->asked[i].stream : stream;
    }
    assert_int_not_equal(stream, 0); /* it was asked */
    struct slice body = {0};
    if (entry != NULL) {
        raft_entries_encode(entry, 1, &body);
    }
    reply.verdict = verdict;
    step_message(node, (struct message){.from = {.role = ROLE_METAD, .node = from, .conn = 9},
                                        .peer = {ROLE_METAD, from},
                                        .type = MESSAGE_ENTRY_FETCH,
                                        .flags = MESSAGE_REPLY,
                                        .stream = stream,
                                        .header = proto_pack(&reply),
                                        .body = body});
}

static void test_fetched(void **state)
{
    (void)state;
    struct node node;
    start(&node, 3);
    node.logs[GROUP].hole = 4;
    group_run(&node);
    assert_true(status_of(&node).hole == 4 && status_of(&node).last == 6 && status_of(&node).vote == 1);
    tick(&node, 1);
    assert_int_equal(node.groups[GROUP]->heal.asked_count, 2);
    answer(&node, 2, LOG_LACKS, NULL);
    struct raft_entry other = {.index = 4, .term = 1, .type = RAFT_ENTRY_NOOP}, right = {4, 2, RAFT_ENTRY_NOOP, {0}};
    answer(&node, 3, LOG_HAS, &other); /* not of that name */
    assert_true(status_of(&node).hole == 4 && node.logs[GROUP].heals == 0);
    assert_int_equal(node.groups[GROUP]->refused[ERR_IMPOSSIBLE], 1);
    tick(&node, 11); /* asked again */
    answer(&node, 3, LOG_HAS, &right);
    assert_true(status_of(&node).hole == 0 && node.logs[GROUP].heals == 1);
    end(&node);
}

/* Who may have acknowledged it must be no majority: 2 and 3 have none, or what stood there was older. */
static void trimmed(uint32_t second, uint32_t third, bool cut)
{
    struct node node;
    start(&node, 3);
    node.logs[GROUP].hole = 5;
    node.logs[GROUP].hole_kind = LOG_HOLE_DOUBT;
    group_run(&node);
    tick(&node, 1);
    answer(&node, 2, second, NULL);
    assert_int_equal(status_of(&node).last, 6); /* 3 was not heard */
    answer(&node, 3, third, NULL);
    assert_true(cut ? status_of(&node).last == 4 && status_of(&node).hole == 0 && node.logs[GROUP].count == 4
                    : status_of(&node).last == 6 && status_of(&node).hole == 5);
    end(&node);
}

static void test_trimmed(void **state)
{
    (void)state;
    trimmed(LOG_NONE, LOG_NONE, true);
    trimmed(LOG_NONE, LOG_TORN, true);
    trimmed(LOG_NONE, LOG_LACKS, false);
    trimmed(LOG_DOUBTS, LOG_NONE, false);
    trimmed(LOG_NONE, LOG_UNTOLD, false);
}

/* A group of one voter cuts where only older bytes stand, never where it may have acknowledged. */
static void test_alone(void **state)
{
    (void)state;
    for (int torn = 0; torn < 2; torn++) {
        struct node node;
        start(&node, 1);
        node.logs[GROUP].hole = 6;
        node.logs[GROUP].hole_kind = torn ? LOG_HOLE_TORN : LOG_HOLE_DOUBT;
        group_run(&node);
        tick(&node, 60);
        assert_int_equal(status_of(&node).role, torn ? RAFT_LEADER : RAFT_FOLLOWER);
        assert_true(torn ? status_of(&node).last >= 6 && status_of(&node).term == 3 : status_of(&node).hole == 6);
        end(&node);
    }
}

static void test_unsure(void **state)
{
    (void)state;
    struct node node;
    start(&node, 3);
    node.logs[GROUP].unsure = true;
    group_run(&node);
    tick(&node, 60);
    Cairn__AdminGroupRequest request = CAIRN__ADMIN_GROUP_REQUEST__INIT;
    step_message(&node, (struct message){.from = {.role = ROLE_DEVICE, .node = 1, .conn = 9},
                                         .peer = DEVICE_ROOT,
                                         .type = MESSAGE_ADMIN_GROUP,
                                         .stream = 1,
                                         .header = proto_pack(&request)});
    uint32_t leader = 0;
    assert_true(node.answered && status_of(&node).term == 0); /* neither votes nor leads */
    assert_int_equal(error_reply_decode(node.header, &leader), ERR_NOT_READY);
    assert_true(group_health(node.groups[GROUP]).unsure);
    end(&node);
}

/* What the database holds needs no entry: the log begins behind the last such hole. */
static void test_behind_applied(void **state)
{
    (void)state;
    struct node node;
    start(&node, 3);
    group_run(&node);
    Cairn__RaftMessage beat = CAIRN__RAFT_MESSAGE__INIT;
    beat.kind = RAFT_APPEND;
    beat.group = GROUP;
    beat.cluster = (ProtobufCBinaryData){16, node.bootstrap.cluster.uuid.bytes};
    beat.cluster_incarnation = 1;
    beat.from = 2;
    beat.term = beat.log_term = 2;
    beat.log_index = 6;
    beat.commit = 5;
    step_message(&node, (struct message){.from = {.role = ROLE_METAD, .node = 2, .conn = 9},
                                         .peer = {ROLE_METAD, 2},
                                         .type = MESSAGE_RAFT,
                                         .stream = 1,
                                         .header = proto_pack(&beat)});
    assert_int_equal(status_of(&node).applied, 5);
    group_destroy(node.groups[GROUP]);
    node.logs[GROUP].hole = 3;
    group_run(&node);
    assert_true(status_of(&node).hole == 0 && status_of(&node).base == 3 && node.logs[GROUP].cut == 3);
    assert_int_equal(group_health(node.groups[GROUP]).rot_behind, 1);
    end(&node);
}

static enum err ask_for(struct node *node, uint32_t from, uint64_t index, uint64_t term, bool lost,
                        uint32_t *ret_verdict)
{
    Cairn__EntryFetch fetch = CAIRN__ENTRY_FETCH__INIT;
    node_answer_drop(node);
    fetch.group = GROUP;
    fetch.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    fetch.cluster_incarnation = 1;
    fetch.from = from;
    fetch.index = index;
    fetch.index_term = term;
    fetch.lost = lost;
    step_message(node, (struct message){.from = {.role = ROLE_METAD, .node = from, .conn = 9},
                                        .peer = {ROLE_METAD, from},
                                        .type = MESSAGE_ENTRY_FETCH,
                                        .stream = ++node->stream,
                                        .header = proto_pack(&fetch)});
    assert_true(node->answered);
    uint32_t leader = 0;
    if ((node->flags & MESSAGE_ERROR) != 0) {
        return error_reply_decode(node->header, &leader);
    }
    *ret_verdict = ((Cairn__EntryFetchReply *)node_reply(node, &cairn__entry_fetch_reply__descriptor))->verdict;
    return ERR_OK;
}

static enum err ask(struct node *node, uint32_t from, uint64_t index, uint64_t term, uint32_t *ret_verdict)
{
    return ask_for(node, from, index, term, false, ret_verdict);
}

static void test_asked(void **state)
{
    (void)state;
    struct node node;
    uint32_t verdict = 0;
    start(&node, 3);
    group_run(&node);
    assert_int_equal(ask(&node, 2, 4, 2, &verdict), ERR_OK);
    assert_int_equal(verdict, LOG_HAS);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    assert_int_equal(raft_entries_decode(node.body, &entries, &count), ERR_OK);
    assert_true(count == 1 && entries[0].index == 4 && entries[0].term == 2);
    slice_drop(&entries[0].data);
    free(entries);
    assert_int_equal(ask(&node, 2, 4, 1, &verdict), ERR_OK);
    assert_int_equal(verdict, LOG_NONE);
    assert_int_equal(ask(&node, 7, 4, 2, &verdict), ERR_NOT_MEMBER);
    assert_int_equal(ask(&node, 2, 0, 2, &verdict), ERR_INVALID);
    end(&node);
}

/* Who lost its state names what its log begins behind: so much is committed, and what is applied that far can help. */
static void test_asked_for_a_state(void **state)
{
    (void)state;
    struct node node;
    uint32_t verdict = 0;
    start(&node, 3);
    group_run(&node);
    assert_int_equal(status_of(&node).applied, 0);
    assert_int_equal(ask_for(&node, 2, 5, 1, true, &verdict), ERR_OK); /* of another term: not of this log */
    assert_true(verdict == LOG_UNTOLD && status_of(&node).commit == 0);
    (void)ask_for(&node, 2, 5, 2, true, &verdict); /* its entries have to be read first */
    assert_int_equal(ask_for(&node, 2, 5, 2, true, &verdict), ERR_OK);
    assert_true(verdict == LOG_BEHIND && status_of(&node).applied == 5);
    assert_int_equal(ask_for(&node, 7, 5, 2, true, &verdict), ERR_NOT_MEMBER);
    end(&node);
}

/* The database holds nothing, the log begins behind entry 4 (R-E5). */
static void start_lost(struct node *node)
{
    start(node, 3);
    struct node_log *log = &node->logs[GROUP];
    for (uint32_t i = 0; i < 4; i++) {
        slice_drop(&log->entries[i].data);
    }
    log->base = 4;
    log->base_term = 2;
    group_run(node);
}

static void append(struct node *node, uint64_t commit)
{
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    struct raft_entry entry = {.index = 7, .term = 3, .type = RAFT_ENTRY_NOOP};
    struct slice body = {0};
    raft_entries_encode(&entry, 1, &body);
    message.kind = RAFT_APPEND;
    message.group = GROUP;
    message.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    message.cluster_incarnation = 1;
    message.from = 2;
    message.term = 3;
    message.log_index = 6;
    message.log_term = 2;
    message.commit = commit;
    step_message(node, (struct message){.from = {.role = ROLE_METAD, .node = 2, .conn = 9},
                                        .peer = {ROLE_METAD, 2},
                                        .type = MESSAGE_RAFT,
                                        .stream = ++node->stream,
                                        .header = proto_pack(&message),
                                        .body = body});
}

/* One piece of a state at `index`, from member 3: its standing, or the last one, without pairs. */
static enum err piece(struct node *node, uint64_t index, uint64_t number)
{
    Cairn__SnapshotPiece wire = CAIRN__SNAPSHOT_PIECE__INIT;
    struct key key = key_begin((struct prefix){GROUP, 3}, 'a');
    struct writer pairs = {0}, at = {0};
    writer_u64(&at, index);
    writer_u64(&at, 2);
    for (int i = 0; i < 3; i++) {
        writer_u64(&at, 0);
    }
    kv_pair_put(&pairs, slice_borrow(key.bytes, key.count), slice_borrow(at.data, at.bytes));
    struct slice body = writer_take(&pairs);
    wire.group = GROUP;
    wire.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    wire.cluster_incarnation = 1;
    wire.from = 3;
    wire.term = 3;
    wire.id = 77 + index;
    wire.index = index;
    wire.index_term = 2;
    wire.view = 3;
    wire.piece = number;
    wire.checksum = crc32c(0, body.data, body.bytes);
    wire.last = number == 1;
    wire.mends = true;
    if (wire.last) {
        slice_drop(&body);
    }
    node_answer_drop(node);
    step_message(node, (struct message){.from = {.role = ROLE_METAD, .node = 3, .conn = 9},
                                        .peer = {ROLE_METAD, 3},
                                        .type = MESSAGE_SNAPSHOT,
                                        .stream = ++node->stream,
                                        .header = proto_pack(&wire),
                                        .body = body});
    writer_deinit(&at);
    writer_deinit(&pairs);
    uint32_t leader = 0;
    return node->answered && (node->flags & MESSAGE_ERROR) ? error_reply_decode(node->header, &leader) : ERR_OK;
}

static void test_a_lost_state_is_fetched(void **state)
{
    (void)state;
    struct node node;
    start_lost(&node);
    assert_true(node.halted == ERR_OK && status_of(&node).lost && status_of(&node).vote == 1);
    tick(&node, 60);
    assert_true(status_of(&node).role == RAFT_FOLLOWER && status_of(&node).term == 2); /* it asks for no votes */
    append(&node, 7);
    assert_true(node.logs[GROUP].count == 7 && status_of(&node).commit == 7); /* but follows, and acknowledges */
    assert_true(status_of(&node).applied == 4 && node.groups[GROUP]->at.applied == 0);
    assert_int_equal(node.groups[GROUP]->heal.asked_count, 2);
    answer(&node, 2, LOG_UNTOLD, NULL);
    answer(&node, 3, LOG_BEHIND, NULL);
    assert_int_equal(piece(&node, 6, 0), ERR_CONFLICT); /* not asked for */
    tick(&node, 11);
    assert_int_equal(node.groups[GROUP]->heal.snapshot_from, 3);
    assert_int_equal(piece(&node, 3, 0), ERR_CONFLICT); /* the log begins behind it */
    assert_int_equal(piece(&node, 6, 0), ERR_OK);
    assert_int_equal(piece(&node, 6, 1), ERR_OK);
    assert_true(status_of(&node).lost); /* not before it is durable */
    node_step(&node, GROUP, (struct event){.kind = EVENT_KV_DONE, .kv.token = node.flush[GROUP]});
    node_drain(&node);
    assert_true(!status_of(&node).lost && node.logs[GROUP].resets == 0);
    assert_int_equal(status_of(&node).applied, 7);
    assert_int_equal(group_health(node.groups[GROUP]).restored, 6);
    tick(&node, 60);
    assert_int_not_equal(status_of(&node).role, RAFT_FOLLOWER); /* whole again */
    end(&node);
}

/* Who has lost its own helps nobody; started again it still waits. */
static void test_a_lost_state_is_given_to_nobody(void **state)
{
    (void)state;
    struct node node;
    uint32_t verdict = 0;
    start_lost(&node);
    group_destroy(node.groups[GROUP]);
    group_run(&node);
    assert_true(status_of(&node).lost);
    assert_int_equal(ask_for(&node, 2, 4, 2, true, &verdict), ERR_OK);
    assert_int_equal(verdict, LOG_UNTOLD);
    assert_int_equal(ask(&node, 2, 5, 2, &verdict), ERR_OK); /* the log is another matter */
    assert_int_equal(verdict, LOG_HAS);
    assert_int_equal(ask(&node, 7, 5, 2, &verdict), ERR_NOT_MEMBER);
    assert_true(group_health(node.groups[GROUP]).lost);
    end(&node);
}

static void rotten(struct node *node, uint64_t index, uint64_t term)
{
    struct writer header = {0};
    writer_u32(&header, GROUP);
    writer_u64(&header, index);
    writer_u64(&header, term);
    step_message(node, (struct message){.from = address_local(ACTOR_LOG, 0),
                                        .peer.role = ROLE_LOCAL,
                                        .type = MESSAGE_LOG_ROTTEN,
                                        .header = writer_take(&header)});
    writer_deinit(&header);
}

/* Rot that a read met while the node runs: a hole, fetched like one of the start; nobody starts anything anew. */
static void test_rot_met_before_it_is_applied(void **state)
{
    (void)state;
    struct node node;
    start(&node, 3);
    group_run(&node);
    rotten(&node, 5, 1); /* overwritten since: another's name */
    assert_int_equal(status_of(&node).hole, 0);
    rotten(&node, 5, 2);
    rotten(&node, 5, 2);
    assert_true(status_of(&node).hole == 5 && node.groups[GROUP]->heal.asked_count == 2);
    struct raft_entry right = {5, 2, RAFT_ENTRY_NOOP, {0}}, lower = {4, 2, RAFT_ENTRY_NOOP, {0}};
    rotten(&node, 4, 2); /* and one before it */
    assert_int_equal(status_of(&node).hole, 4);
    answer(&node, 3, LOG_HAS, &lower);
    assert_int_equal(status_of(&node).hole, 5);
    answer(&node, 2, LOG_HAS, &right);
    assert_true(status_of(&node).hole == 0 && node.logs[GROUP].heals == 2 && node.halted == ERR_OK);
    end(&node);
}

/* What was applied needs no entry: the log is given up to there, behind a flush. */
static void test_rot_met_behind_applied(void **state)
{
    (void)state;
    struct node node;
    uint32_t verdict = 0;
    start(&node, 3);
    group_run(&node);
    (void)ask_for(&node, 2, 5, 2, true, &verdict); /* 5 is committed */
    assert_int_equal(status_of(&node).applied, 5);
    rotten(&node, 3, 2);
    assert_true(status_of(&node).hole == 0 && node.logs[GROUP].cut == 0);
    tick(&node, 1);
    assert_int_not_equal(node.flush[GROUP], 0);
    node_step(&node, GROUP, (struct event){.kind = EVENT_KV_DONE, .kv.token = node.flush[GROUP]});
    node_drain(&node);
    assert_true(node.logs[GROUP].cut == 3 && status_of(&node).base == 3);
    assert_int_equal(group_health(node.groups[GROUP]).rot_behind, 1);
    end(&node);
}

/* Few entries may be many bytes: what the log wants to be rid of goes behind a flush, however few are left. */
static void test_pinned(void **state)
{
    (void)state;
    struct node node;
    uint32_t verdict = 0;
    start(&node, 3);
    group_run(&node);
    (void)ask_for(&node, 2, 5, 2, true, &verdict); /* 5 is committed */
    struct writer header = {0};
    writer_u32(&header, GROUP);
    writer_u64(&header, 4);
    step_message(&node, (struct message){.from = address_local(ACTOR_LOG, 0),
                                         .peer.role = ROLE_LOCAL,
                                         .type = MESSAGE_LOG_PINNED,
                                         .header = writer_take(&header)});
    writer_deinit(&header);
    assert_int_equal(node.logs[GROUP].cut, 0);
    node_step(&node, GROUP, (struct event){.kind = EVENT_KV_DONE, .kv.token = node.flush[GROUP]});
    node_drain(&node);
    assert_true(node.logs[GROUP].cut == 4 && status_of(&node).base == 4);
    end(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pinned),
        cmocka_unit_test(test_rot_met_before_it_is_applied),
        cmocka_unit_test(test_rot_met_behind_applied),
        cmocka_unit_test(test_asked_for_a_state),
        cmocka_unit_test(test_a_lost_state_is_fetched),
        cmocka_unit_test(test_a_lost_state_is_given_to_nobody),
        cmocka_unit_test(test_fetched),
        cmocka_unit_test(test_trimmed),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_unsure),
        cmocka_unit_test(test_behind_applied),
        cmocka_unit_test(test_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
