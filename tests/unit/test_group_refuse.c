/* Raft frames that a group must not take: each is refused with its own code and counted, and log, term and vote are as
 * they were. Every row is one change to a frame that is taken, as the last test shows. */
#include "group_node.h"
#include "metad/group.h"

#define MEMBERS 3
#define LEADER  2u /* says that it leads; this node is 1 */

struct frame {
    Cairn__RaftMessage message;
    struct principal peer;
    struct raft_entry entry;
    uint32_t entry_count;
    const char *garbage; /* instead of the header, or of the body when `garbage_body` */
    bool garbage_body;
    uint8_t cluster[16];
};

struct row {
    const char *what;
    void (*change)(struct frame *frame);
    enum err expected;
};

static void start(struct node *node)
{
    node_make(node, MEMBERS);
    node->bootstrap.cluster_incarnation = 5;
    memset(node->bootstrap.cluster.uuid.bytes, 0xc1, 16);
    node_start(node);
    assert_int_equal(node->logs[0].count, 1);
}

/* An APPEND of one entry behind the bootstrap entry, which a follower takes. */
static void frame_init(struct frame *frame)
{
    *frame = (struct frame){.peer = {.role = ROLE_METAD, .id = LEADER}, .entry_count = 1};
    frame->message = (Cairn__RaftMessage)CAIRN__RAFT_MESSAGE__INIT;
    memset(frame->cluster, 0xc1, 16);
    frame->message.cluster = (ProtobufCBinaryData){16, frame->cluster};
    frame->message.cluster_incarnation = 5;
    frame->message.kind = RAFT_APPEND;
    frame->message.from = LEADER;
    frame->message.term = 2;
    frame->message.log_index = frame->message.log_term = 1;
    frame->entry = (struct raft_entry){.index = 2, .term = 2, .type = RAFT_ENTRY_NOOP};
}

/* Sends it; OK when it was not answered with a refusal (what Raft says goes to the peer, not on the connection). */
static enum err frame_send(struct node *node, struct frame *frame)
{
    node_answer_drop(node);
    struct slice body = {0};
    if (frame->garbage_body) {
        body = slice_copy(frame->garbage, strlen(frame->garbage));
    } else if (frame->entry_count > 0) {
        raft_entries_encode(&frame->entry, frame->entry_count, &body);
    }
    struct slice header = frame->garbage != NULL && !frame->garbage_body
                              ? slice_copy(frame->garbage, strlen(frame->garbage))
                              : proto_pack(&frame->message);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = frame->peer.role, .node = frame->peer.id, .conn = 9},
                                     .peer = frame->peer,
                                     .type = MESSAGE_RAFT,
                                     .stream = ++node->stream,
                                     .header = header,
                                     .body = body};
    node_step(node, 0, event);
    slice_drop(&event.message.header);
    slice_drop(&event.message.body);
    node_drain(node);
    uint32_t leader = 0;
    return node->answered ? error_reply_decode(node->header, &leader) : ERR_OK;
}

static void wrong_group(struct frame *f)
{
    f->message.group = 1;
}
static void group_of_nobody(struct frame *f)
{
    f->message.group = UINT32_MAX;
}
static void wrong_cluster(struct frame *f)
{
    f->cluster[0] ^= 1;
}
static void short_cluster(struct frame *f)
{
    f->message.cluster.len = 15;
}
static void old_incarnation(struct frame *f)
{
    f->message.cluster_incarnation = 4;
}
static void answer_of_stranger(struct frame *f)
{
    f->message.from = f->peer.id = 4;
    f->message.kind = RAFT_APPEND_REPLY;
    f->entry_count = 0;
}
static void lent_name(struct frame *f)
{
    f->message.from = 3;
}
static void own_name(struct frame *f)
{
    f->message.from = f->peer.id = 1;
}
static void unknown_kind(struct frame *f)
{
    f->message.kind = 99;
}
static void kind_zero(struct frame *f)
{
    f->message.kind = 0;
}
static void vote_with_entries(struct frame *f)
{
    f->message.kind = RAFT_VOTE;
}
static void index_gap(struct frame *f)
{
    f->entry.index = 9;
}
static void index_back(struct frame *f)
{
    f->entry.index = 1;
}
static void index_huge(struct frame *f)
{
    f->message.log_index = UINT64_MAX - 1;
    f->entry.index = UINT64_MAX;
}
static void commit_huge(struct frame *f)
{
    f->message.commit = UINT64_MAX;
}
static void term_zero(struct frame *f)
{
    f->message.term = 0;
}
static void term_huge(struct frame *f)
{
    f->message.term = UINT64_MAX;
}
static void term_of_entry_zero(struct frame *f)
{
    f->entry.term = 0;
}
static void term_of_entry_later(struct frame *f)
{
    f->entry.term = 3;
}
static void term_of_entry_falls(struct frame *f)
{
    f->message.term = f->message.log_term = 4;
}
static void previous_later(struct frame *f)
{
    f->message.log_term = 3;
    f->entry_count = 0;
}
static void nothing_with_term(struct frame *f)
{
    f->message.log_index = 0;
    f->entry.index = 1;
}
static void garbage_header(struct frame *f)
{
    f->garbage = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
}
static void garbage_body(struct frame *f)
{
    f->garbage = "these are no packed entries";
    f->garbage_body = true;
}

static const struct row rows[] = {
    {"another group", wrong_group, ERR_WRONG_GROUP},
    {"a group nobody has", group_of_nobody, ERR_WRONG_GROUP},
    {"another cluster", wrong_cluster, ERR_WRONG_CLUSTER},
    {"half a cluster id", short_cluster, ERR_WRONG_CLUSTER},
    {"an old incarnation", old_incarnation, ERR_WRONG_CLUSTER},
    {"an answer of who is no member", answer_of_stranger, ERR_NOT_MEMBER},
    {"a member under another's name", lent_name, ERR_NOT_MEMBER},
    {"this node itself", own_name, ERR_NOT_MEMBER},
    {"an unknown kind", unknown_kind, ERR_UNKNOWN_TYPE},
    {"no kind", kind_zero, ERR_UNKNOWN_TYPE},
    {"a vote with entries", vote_with_entries, ERR_BAD_PROTO},
    {"entries behind a gap", index_gap, ERR_IMPOSSIBLE},
    {"an entry at its previous one", index_back, ERR_IMPOSSIBLE},
    {"an index beyond all", index_huge, ERR_IMPOSSIBLE},
    {"a commit index beyond all", commit_huge, ERR_IMPOSSIBLE},
    {"no term", term_zero, ERR_IMPOSSIBLE},
    {"a term beyond all", term_huge, ERR_IMPOSSIBLE},
    {"an entry without term", term_of_entry_zero, ERR_IMPOSSIBLE},
    {"an entry of a later term than its leader", term_of_entry_later, ERR_IMPOSSIBLE},
    {"a term that falls", term_of_entry_falls, ERR_IMPOSSIBLE},
    {"a previous entry of a later term", previous_later, ERR_IMPOSSIBLE},
    {"a term of nothing", nothing_with_term, ERR_IMPOSSIBLE},
    {"a header of garbage", garbage_header, ERR_BAD_PROTO},
    {"a body of garbage", garbage_body, ERR_BAD_PROTO},
};

static uint64_t counted(const struct node *node, enum err reason)
{
    return node->groups[0]->refused[reason];
}

static void test_rows(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct frame frame;
        struct raft_hard_state hard = node.logs[0].hard;
        uint64_t before = counted(&node, rows[i].expected);
        frame_init(&frame);
        rows[i].change(&frame);
        enum err err = frame_send(&node, &frame);
        if (err != rows[i].expected) {
            fail_msg("%s: %s, not %s", rows[i].what, err_name(err), err_name(rows[i].expected));
        }
        assert_int_equal(counted(&node, rows[i].expected), before + 1);
        assert_int_equal(node.logs[0].count, 1);
        assert_int_equal(node.logs[0].hard.term, hard.term);
        assert_int_equal(node.logs[0].hard.vote, hard.vote);
        assert_int_equal(node.halted, ERR_OK);
    }
    node_deinit(&node);
}

static void test_sound(void **state)
{
    (void)state;
    struct node node;
    struct frame frame;
    start(&node);
    frame_init(&frame);
    assert_int_equal(frame_send(&node, &frame), ERR_OK);
    assert_int_equal(node.logs[0].count, 2);
    assert_int_equal(node.logs[0].entries[1].term, 2);
    assert_int_equal(node.logs[0].hard.term, 2);
    assert_int_equal(group_status(node.groups[0]).leader, LEADER);
    node_deinit(&node);
}

/* A member that says it has what its leader never had. */
static void test_impossible_answer(void **state)
{
    (void)state;
    struct node node;
    struct frame frame;
    start(&node);
    for (int kind = RAFT_PRE_VOTE_REPLY; kind <= RAFT_VOTE_REPLY; kind += 2) {
        for (int i = 0; i < 100 && group_status(node.groups[0]).role != RAFT_LEADER; i++) {
            struct raft_status now = group_status(node.groups[0]);
            frame_init(&frame);
            frame.entry_count = 0;
            frame.message.log_index = frame.message.log_term = 0;
            frame.message.kind = now.role == RAFT_PRE_CANDIDATE ? RAFT_PRE_VOTE_REPLY : RAFT_VOTE_REPLY;
            frame.message.term = now.role == RAFT_PRE_CANDIDATE ? now.term + 1 : now.term;
            assert_int_equal(frame_send(&node, &frame), ERR_OK);
            node_ticks(&node, 1);
        }
    }
    struct raft_status leads = group_status(node.groups[0]);
    assert_int_equal(leads.role, RAFT_LEADER);
    frame_init(&frame);
    frame.entry_count = 0;
    frame.message.kind = RAFT_APPEND_REPLY;
    frame.message.term = leads.term;
    frame.message.log_term = 0;
    frame.message.log_index = leads.last + 1;
    assert_int_equal(frame_send(&node, &frame), ERR_IMPOSSIBLE);
    assert_int_equal(group_status(node.groups[0]).commit, leads.commit);
    frame.message.log_index = leads.last;
    assert_int_equal(frame_send(&node, &frame), ERR_OK);
    assert_int_equal(group_status(node.groups[0]).commit, leads.last);
    node_deinit(&node);
}

/* A command that no entry holds is refused before it is proposed. */
static void test_too_large(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    static char target[LIMIT_ENTRY_BYTES - 64];
    memset(target, 't', sizeof target);
    Cairn__RequestHead head;
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    request.head = node_head(&node, &head);
    request.name = text_bytes("link");
    request.target = (ProtobufCBinaryData){sizeof target, (uint8_t *)target};
    uint64_t last = group_status(node.groups[1]).last;
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_MKDIR, &request, (struct slice){0}), ERR_TOO_LARGE);
    assert_int_equal(group_status(node.groups[1]).last, last);
    request.target.len = 100;
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_MKDIR, &request, (struct slice){0}), ERR_OK);
    assert_int_equal(group_status(node.groups[1]).last, last + 1);
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_sound),
        cmocka_unit_test(test_impossible_answer),
        cmocka_unit_test(test_too_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
