/* A group takes a snapshot in (R-E4): pieces, what is refused, the switch, what waits for the flush, what a crash
 * leaves. The sending side and everything together run in the simulator. */
#include "peer_node.h"
#include "metad/group.h"

#define FROM  2u
#define TERM  5u
#define INDEX 50u

/* One member of three, told by node 2 that it leads. */
static void follower_init(struct node *node)
{
    node_make(node, 3);
    node_start(node);
}

static void send_to_group(struct node *node, uint16_t type, const void *header, struct slice body)
{
    node_answer_drop(node);
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = ROLE_METAD, .node = FROM, .conn = 9},
                                     .peer = {.role = ROLE_METAD, .id = FROM},
                                     .type = type,
                                     .target = 1,
                                     .stream = ++node->stream,
                                     .header = proto_pack(header),
                                     .body = body};
    node_step(node, 1, event);
    slice_drop(&event.message.header);
    node_drain(node);
}

static void follow(struct node *node)
{
    Cairn__RaftMessage beat = CAIRN__RAFT_MESSAGE__INIT;
    beat.kind = RAFT_HEARTBEAT;
    beat.group = 1;
    beat.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    beat.cluster_incarnation = 1;
    beat.from = FROM;
    beat.term = TERM;
    beat.context = 1;
    send_to_group(node, MESSAGE_RAFT, &beat, (struct slice){0});
    assert_int_equal(group_status(node->groups[1]).leader, FROM);
}

struct piece {
    uint64_t id, number;
    struct slice body;
    uint32_t checksum;
    bool last;
};

/* The answer: BAD_PROTO and the like, or OK with the reply in ret. Nothing is answered: ret->next is UINT64_MAX. */
static enum err send_piece(struct node *node, const struct piece *piece, Cairn__SnapshotReply *ret)
{
    Cairn__SnapshotPiece wire = CAIRN__SNAPSHOT_PIECE__INIT;
    wire.group = 1;
    wire.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    wire.cluster_incarnation = 1;
    wire.from = FROM;
    wire.term = TERM;
    wire.id = piece->id;
    wire.index = INDEX;
    wire.index_term = 4;
    wire.view = 3;
    wire.piece = piece->number;
    wire.checksum = piece->checksum;
    wire.last = piece->last;
    send_to_group(node, MESSAGE_SNAPSHOT, &wire, piece->body);
    ret->next = UINT64_MAX;
    if (!node->answered) {
        return ERR_OK;
    }
    if (node->flags & MESSAGE_ERROR) {
        uint32_t leader = 0;
        return error_reply_decode(node->header, &leader);
    }
    const Cairn__SnapshotReply *reply = node_reply(node, &cairn__snapshot_reply__descriptor);
    *ret = *reply;
    return ERR_OK;
}

static struct slice pairs_make(uint32_t view, const char *letter)
{
    struct writer pairs = {0}, at = {0};
    struct key key = key_begin((struct prefix){1, view}, letter[0]);
    if (letter[0] == 'a') {
        writer_u64(&at, INDEX);
        writer_u64(&at, 4);
        writer_u64(&at, 0);
        writer_u64(&at, 0);
        writer_u64(&at, 0);
    } else if (letter[0] == 'c') {
        struct raft_config config = {.members = {{1, RAFT_VOTER}, {2, RAFT_VOTER}, {3, RAFT_VOTER}}, .count = 3};
        struct slice encoded = raft_config_encode(&config);
        writer_u64(&at, INDEX - 10);
        writer_put(&at, encoded.data, encoded.bytes);
        slice_drop(&encoded);
    } else {
        writer_put(&at, "value", 5);
    }
    kv_pair_put(&pairs, slice_borrow(key.bytes, key.count), slice_borrow(at.data, at.bytes));
    struct slice packed = writer_take(&pairs);
    writer_deinit(&at);
    writer_deinit(&pairs);
    return packed;
}

static bool db_has(struct node *node, uint32_t view, char letter)
{
    struct key key = key_begin((struct prefix){1, view}, letter);
    struct slice value = {0};
    bool has = node_kv_get(&node->view, key.bytes, key.count, &value) == ERR_OK;
    slice_drop(&value);
    return has;
}

/* All pieces, up to the last one; nothing is durable yet. `letter`: what is in it beside where it stands. */
static void send_all(struct node *node, uint64_t id, const char *letter)
{
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    struct slice first = pairs_make(3, letter), second = pairs_make(3, "a");
    uint32_t sum = crc32c(0, first.data, first.bytes), sums = crc32c(sum, second.data, second.bytes);
    assert_int_equal(send_piece(node, &(struct piece){id, 0, first, sum, false}, &reply), ERR_OK);
    assert_int_equal(reply.next, 1);
    assert_int_equal(send_piece(node, &(struct piece){id, 0, first, sum, false}, &reply), ERR_OK);
    assert_int_equal(reply.next, 1); /* sent again: taken once */
    assert_int_equal(send_piece(node, &(struct piece){id, 1, second, sums, false}, &reply), ERR_OK);
    assert_int_equal(reply.next, 2);
    assert_int_equal(group_status(node->groups[1]).applied < INDEX, true);
    assert_int_equal(send_piece(node, &(struct piece){id, 2, (struct slice){0}, sums, true}, &reply), ERR_OK);
    assert_false(node->answered); /* not before it is durable */
    slice_drop(&first);
    slice_drop(&second);
}

static void flush_done(struct node *node)
{
    assert_true(node->flush[1] != 0);
    node_step(node, 1, (struct event){.kind = EVENT_KV_DONE, .kv.token = node->flush[1]});
    node_drain(node);
}

static void test_snapshot_is_installed_behind_a_flush(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    follow(&node);
    send_all(&node, 9, "Z");
    assert_int_equal(node.logs[1].resets, 0);
    assert_true(group_status(node.groups[1]).applied < INDEX); /* Raft knows nothing of it */
    flush_done(&node);
    assert_true(node.answered && !(node.flags & MESSAGE_ERROR));
    const Cairn__SnapshotReply *reply = node_reply(&node, &cairn__snapshot_reply__descriptor);
    assert_int_equal(reply->installed, 1);
    assert_true(node.logs[1].resets == 1 && node.logs[1].base == INDEX && node.logs[1].base_term == 4);
    struct raft_status status = group_status(node.groups[1]);
    assert_true(status.applied == INDEX && status.base == INDEX && status.commit == INDEX);
    assert_true(db_has(&node, 2, 'Z') && db_has(&node, 2, 'a') && !db_has(&node, 0, 'r'));
    node_ticks(&node, 2); /* nothing is left of the old view */
    assert_false(db_has(&node, 1, 'a'));
    assert_int_equal(node.halted, ERR_OK);
    node_deinit(&node);
}

/* The switch is durable, the log's reset is not: the next start does that before anything else. */
static void test_crash_between_switch_and_reset(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    follow(&node);
    node.logs[1].mute = true;
    send_all(&node, 9, "Z");
    flush_done(&node);
    assert_true(node.logs[1].resets == 1 && node.logs[1].base == 0 && db_has(&node, 0, 'r'));
    node_stop(&node);
    node.logs[1].mute = false;
    node_answer_drop(&node);
    node_start(&node);
    assert_true(node.logs[1].resets == 2 && node.logs[1].base == INDEX);
    assert_int_equal(group_status(node.groups[1]).applied, INDEX);
    assert_false(db_has(&node, 0, 'r'));
    assert_int_equal(node.halted, ERR_OK);
    node_deinit(&node);
}

/* Members changed since: what was heard of them before judges nobody from the switch on, and stays in the log until the
 * state behind it is durable. */
static void test_who_was_heard_before_is_forgotten(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    follow(&node);
    struct group *group = node.groups[1];
    group->identities[0] = (struct identity){.peer = {.node = 3, .boot = 70, .position = 40}, .stale = true};
    group->identity_count = 1;
    group->identities_due = group->identities_new = true;
    node_ticks(&node, 1);
    assert_int_equal(node.logs[1].peer_count, 1);
    send_all(&node, 9, "c");
    assert_int_equal(group->at.config.index, INDEX - 10);
    assert_false(identity_is_stale(group, 3));
    group->identities_new = true; /* as if another was heard for the first time */
    node_ticks(&node, 1);
    assert_int_equal(node.logs[1].peer_count, 1);
    flush_done(&node);
    node_ticks(&node, 1);
    assert_int_equal(node.logs[1].peer_count, 0);
    assert_int_equal(node.halted, ERR_OK);
    node_deinit(&node);
}

static void test_pieces_that_do_not_fit(void **state)
{
    (void)state;
    struct node node;
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    struct slice good = pairs_make(3, "Z"), other_view = pairs_make(4, "Z");
    uint32_t sum = crc32c(0, good.data, good.bytes);
    struct piece piece = {9, 0, good, sum, false};
    follower_init(&node);
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_NOT_READY); /* it follows nobody yet: it is sent again */
    follow(&node);
    piece.number = 1;
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_CONFLICT); /* the first was never seen */
    piece = (struct piece){9, 0, good, sum + 1, false};
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_BAD_PROTO);
    piece = (struct piece){9, 0, other_view, crc32c(0, other_view.data, other_view.bytes), false};
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_BAD_PROTO);
    piece = (struct piece){10, 0, good, sum, false};
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_OK);
    piece = (struct piece){10, 1, (struct slice){0}, sum, true};
    assert_int_equal(send_piece(&node, &piece, &reply), ERR_BAD_PROTO); /* it ends, and does not say where it stands */
    assert_true(node.flush[1] == 0 && !db_has(&node, 0, 'v'));
    send_all(&node, 11, "Z"); /* and from the beginning it goes */
    flush_done(&node);
    assert_int_equal(group_status(node.groups[1]).applied, INDEX);
    slice_drop(&good);
    slice_drop(&other_view);
    node_deinit(&node);
}

static struct kv_batch *db_copy(struct node *node)
{
    struct kv_batch *copy = kv_batch_create();
    for (const struct kv_entry *e = kv_batch_next(node->db, "", 0, false); e != NULL;
         e = kv_batch_next(node->db, e->key.data, e->key.bytes, true)) {
        if (!e->deleted) {
            kv_batch_put(copy, e->key.data, e->key.bytes, e->value.data, e->value.bytes);
        }
    }
    return copy;
}

/* The process dies, its database has what it had when `db` was taken. */
static void restart_with(struct node *node, struct kv_batch *db)
{
    node_stop(node);
    kv_batch_destroy(node->db);
    node->db = db;
    node_answer_drop(node);
    node_start(node);
}

/* A crash takes the second of two pieces: the third is answered with where the first one ended. */
static void test_goes_on_after_a_crash(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    follow(&node);
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    struct slice first = pairs_make(3, "Z"), second = pairs_make(3, "a");
    uint32_t sum = crc32c(0, first.data, first.bytes), sums = crc32c(sum, second.data, second.bytes);
    struct piece last = {9, 2, (struct slice){0}, sums, true};
    assert_int_equal(send_piece(&node, &(struct piece){9, 0, first, sum, false}, &reply), ERR_OK);
    struct kv_batch *durable = db_copy(&node);
    assert_int_equal(send_piece(&node, &(struct piece){9, 1, second, sums, false}, &reply), ERR_OK);
    restart_with(&node, durable);
    assert_int_equal(send_piece(&node, &last, &reply), ERR_NOT_READY); /* it has not heard of its leader */
    follow(&node);
    struct key behind = key_begin((struct prefix){1, 3}, 'Z');
    assert_int_equal(send_piece(&node, &last, &reply), ERR_OK);
    assert_true(reply.next == 1 && !reply.installed && reply.checksum == sum && reply.after.len == behind.count);
    assert_memory_equal(reply.after.data, behind.bytes, behind.count);
    assert_int_equal(send_piece(&node, &(struct piece){9, 1, second, sums, false}, &reply), ERR_OK);
    assert_int_equal(reply.next, 2);
    assert_int_equal(send_piece(&node, &last, &reply), ERR_OK);
    flush_done(&node);
    assert_true(group_status(node.groups[1]).applied == INDEX);
    assert_true(db_has(&node, 2, 'Z') && db_has(&node, 2, 'a') && !db_has(&node, 2, 0));
    slice_drop(&first);
    slice_drop(&second);
    node_deinit(&node);
}

/* What it has of a snapshot goes when nothing more of it comes; the first key of all is the one that says how far it
 * is, so that another release, which deletes what it does not know, leaves nothing to go on from. */
static void test_is_given_up_in_silence(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    follow(&node);
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    struct slice first = pairs_make(3, "Z");
    uint32_t sum = crc32c(0, first.data, first.bytes);
    struct piece next = {9, 1, first, crc32c(sum, first.data, first.bytes), false};
    assert_int_equal(send_piece(&node, &(struct piece){9, 0, first, sum, false}, &reply), ERR_OK);
    assert_true(db_has(&node, 2, 'Z') && db_has(&node, 2, 0));
    struct kv_batch *durable = db_copy(&node);
    struct key record = key_begin((struct prefix){1, 2}, 0);
    kv_batch_delete(durable, record.bytes, record.count);
    restart_with(&node, durable);
    follow(&node);
    assert_int_equal(send_piece(&node, &next, &reply), ERR_CONFLICT);
    assert_false(db_has(&node, 2, 'Z'));
    assert_int_equal(send_piece(&node, &(struct piece){9, 0, first, sum, false}, &reply), ERR_OK);
    assert_true(db_has(&node, 3, 'Z') || db_has(&node, 2, 'Z'));
    node.now_ns += SNAPSHOT_SILENT_NS;
    follow(&node);
    node_ticks(&node, 2);
    assert_false(db_has(&node, 3, 'Z') || db_has(&node, 2, 'Z'));
    slice_drop(&first);
    node_deinit(&node);
}

/* ---- the sender ---- */

/* What the database gives for the scan that is out. */
static void scanned(struct node *node, struct slice pairs)
{
    assert_true(node->scan_token != 0);
    struct event event = {.kind = EVENT_KV_DONE, .kv.token = node->scan_token, .kv.data = pairs};
    node->scan_token = 0;
    node_step(node, 1, event);
    node_drain(node);
}

static void piece_answered(struct node *node, const Cairn__SnapshotReply *reply, enum err err)
{
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = ROLE_METAD, .node = 2, .conn = 9},
                                     .peer = {.role = ROLE_METAD, .id = 2},
                                     .type = MESSAGE_SNAPSHOT,
                                     .flags = MESSAGE_REPLY | (err != ERR_OK ? MESSAGE_ERROR : 0),
                                     .target = 1,
                                     .stream = node->piece_stream,
                                     .header = err != ERR_OK ? error_reply_encode(err, NULL, 0) : proto_pack(reply)};
    node_step(node, 1, event);
    slice_drop(&event.message.header);
    node_drain(node);
}

/* It is at this piece, whose checksum is this. */
static void assert_piece(struct node *node, uint64_t number, uint32_t checksum)
{
    void *piece = NULL;
    assert_int_equal(proto_unpack(&cairn__snapshot_piece__descriptor, node->piece, &node->arena, &piece), ERR_OK);
    assert_int_equal(((Cairn__SnapshotPiece *)piece)->piece, number);
    assert_int_equal(((Cairn__SnapshotPiece *)piece)->checksum, checksum);
}

static void test_sender_goes_back(void **state)
{
    (void)state;
    struct node node;
    follower_init(&node);
    lead(&node, 1);
    struct group *group = node.groups[1];
    struct slice first = pairs_make(1, "Z"), second = pairs_make(1, "a");
    uint32_t sum = crc32c(0, first.data, first.bytes), sums = crc32c(sum, second.data, second.bytes);
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    snapshot_wanted(group, 2, false);
    node_ticks(&node, 1);
    scanned(&node, first);
    reply.next = 1;
    piece_answered(&node, &reply, ERR_OK);
    scanned(&node, second);
    assert_piece(&node, 1, sums);
    reply.next = 2;
    piece_answered(&node, &reply, ERR_OK);
    scanned(&node, (struct slice){0}); /* the last */
    assert_piece(&node, 2, sums);
    uint64_t stream = node.piece_stream;
    piece_answered(&node, NULL, ERR_NOT_READY);
    assert_int_equal(node.scan_token, 0);
    node.now_ns += 3000000000u;
    node_ticks(&node, 1);
    assert_true(node.piece_stream != stream);
    assert_piece(&node, 2, sums); /* again */
    struct key key = key_begin((struct prefix){1, 1}, 'Z');
    reply.next = 1;
    reply.checksum = sum;
    reply.after = (ProtobufCBinaryData){key.count, key.bytes};
    piece_answered(&node, &reply, ERR_OK);
    assert_true(node.scan_from.bytes == key.count + 1u && node.scan_from.data[key.count] == 0);
    assert_memory_equal(node.scan_from.data, key.bytes, key.count);
    scanned(&node, second);
    assert_piece(&node, 1, sums);
    key.bytes[7] = 9; /* a key of no view of this node */
    reply.after.data = key.bytes;
    piece_answered(&node, &reply, ERR_OK);
    assert_int_equal(group->out[0].peer, 0);
    slice_drop(&first);
    slice_drop(&second);
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot_is_installed_behind_a_flush),
        cmocka_unit_test(test_crash_between_switch_and_reset),
        cmocka_unit_test(test_who_was_heard_before_is_forgotten),
        cmocka_unit_test(test_pieces_that_do_not_fit),
        cmocka_unit_test(test_goes_on_after_a_crash),
        cmocka_unit_test(test_is_given_up_in_silence),
        cmocka_unit_test(test_sender_goes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
