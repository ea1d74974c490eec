/* Uploads and stores through the group actors: sessions and their limits, receipts, what counts as resolved, what a
 * store may say of itself, and stores that come back with less than they had. */
#include "group_upload.h"
#include "metad/group.h"
#include "metad/machine.h"

/* A block server speaks for its own stores: the receipt key of another's, and its heartbeat, are not for it. */
static void test_stores_of_others(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    Cairn__StoreRegisterReply *victim = register_store(&node, 1);
    uint8_t uuid[16] = {1, 1};
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    request.node = 2;
    request.uuid = (ProtobufCBinaryData){16, uuid};
    request.incarnation = victim->incarnation;
    request.address = request.host = request.rack = "";
    struct principal thief = {.role = ROLE_BLOCKD, .id = 2};
    assert_int_equal(node_ask(&node, 0, thief, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_DENIED);
    request.node = 1;
    assert_int_equal(node_ask(&node, 0, thief, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_WRONG_ROLE);
    Cairn__StoreHeartbeatRequest beat = CAIRN__STORE_HEARTBEAT_REQUEST__INIT;
    beat.store = victim->store;
    beat.incarnation = victim->incarnation;
    assert_int_equal(node_ask(&node, 0, thief, MESSAGE_STORE_HEARTBEAT, &beat, (struct slice){0}), ERR_NOT_FOUND);
    char *address = calloc(1, 1001);
    memset(address, 'a', 1000);
    request.node = 2;
    uuid[0] = 9;
    request.address = address;
    assert_int_equal(node_ask(&node, 0, thief, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_INVALID);
    free(address);
    node_deinit(&node);
}

static void test_upload(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    Cairn__StoreRegisterReply *stores[6];
    for (uint32_t i = 0; i < 6; i++) {
        stores[i] = register_store(&node, i + 1);
        assert_int_equal(stores[i]->receipt_key.len, 32);
    }
    struct ask_entry ask = {.plain_bytes = 99000};
    ask.sha = sha256("chunk", 5);
    struct upload upload;
    assert_int_equal(upload_begin(&node, "big", &ask, &upload), ERR_OK);
    assert_true(upload.answer.missing);
    struct encoding encoding = {{5}};
    struct manifest_entry entry = {.sha = ask.sha, .plain_bytes = ask.plain_bytes, .writer = 1, .encoding = encoding};
    size_t unresolved = 0;
    /* four shards are no redundancy: not resolved; complete is refused */
    for (uint8_t i = 0; i < 4; i++) {
        upload_add_receipt(&upload, stores[i], 4, 2, i, encoding);
    }
    assert_int_equal(upload_stage(&node, &upload, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 1);
    uint32_t safe = 0;
    assert_int_equal(upload_end(&node, &upload, 99000, &safe), ERR_UNRESOLVED);
    /* the same index on another store, and the same store with another index, count for nothing */
    upload.body_bytes = 0;
    upload_add_receipt(&upload, stores[4], 4, 2, 3, encoding);
    upload_add_receipt(&upload, stores[0], 4, 2, 5, encoding);
    assert_int_equal(upload_stage(&node, &upload, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 1);
    upload.body_bytes = 0;
    upload_add_receipt(&upload, stores[4], 4, 2, 4, encoding);
    upload_add_receipt(&upload, stores[5], 4, 2, 5, encoding);
    assert_int_equal(upload_stage(&node, &upload, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 0);
    assert_int_equal(upload_end(&node, &upload, 99000, &safe), ERR_OK);
    assert_int_equal(safe, 2);
    /* the session is over */
    assert_int_equal(upload_end(&node, &upload, 99000, &safe), ERR_SESSION_CLOSED);
    /* again: present, nothing to send */
    struct upload again;
    assert_int_equal(upload_begin(&node, "copy", &ask, &again), ERR_OK);
    assert_false(again.answer.missing);
    assert_memory_equal(again.answer.encoding.bytes, encoding.bytes, 16);
    assert_int_equal(upload_stage(&node, &again, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 0);
    assert_int_equal(upload_end(&node, &again, 99000, &safe), ERR_OK);
    assert_int_equal(safe, 2);
    Cairn__RequestHead head;
    Cairn__ManifestRequest request = CAIRN__MANIFEST_REQUEST__INIT;
    request.head = node_head(&node, &head);
    request.name = text_bytes("big");
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_MANIFEST, &request, (struct slice){0}), ERR_OK);
    struct manifest_read read;
    assert_int_equal(manifest_read_decode(node.body.data, node.body.bytes, &read), ERR_OK);
    assert_memory_equal(read.entry.sha.bytes, ask.sha.bytes, 32);
    assert_memory_equal(read.kc, upload.answer.kc, 32);
    node_deinit(&node);
}

/* A device may have so many uploads open; one that ends makes room for one. */
static void test_open_sessions_are_limited(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    struct ask_entry ask = {.plain_bytes = 99000};
    ask.sha = sha256("chunk", 5);
    struct upload upload;
    Cairn__RequestHead head;
    Cairn__UploadStartRequest request = CAIRN__UPLOAD_START_REQUEST__INIT;
    request.name = text_bytes("empty");
    request.any_base = true;
    uint64_t last = 0;
    for (uint32_t i = 0; i < LIMIT_OPEN_SESSIONS; i++) {
        request.head = node_head(&node, &head);
        assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_START, &request, (struct slice){0}), ERR_OK);
        last = ((Cairn__UploadStartReply *)node_reply(&node, &cairn__upload_start_reply__descriptor))->session;
    }
    assert_int_equal(upload_begin(&node, "one-more", &ask, &upload), ERR_BUSY);
    assert_int_equal(put_small_at(&node, 0, "small", 0, "x"), ERR_OK);
    uint32_t safe = 0;
    struct upload empty = {.session = last};
    assert_int_equal(upload_end(&node, &empty, 0, &safe), ERR_OK);
    assert_int_equal(upload_begin(&node, "one-more", &ask, &upload), ERR_OK);
    assert_int_equal(upload_begin(&node, "two-more", &ask, &upload), ERR_BUSY);
    node_deinit(&node);
}

static enum err stage_nothing(struct node *node, uint64_t session)
{
    Cairn__RequestHead head;
    Cairn__UploadStageRequest request = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.session = session;
    return node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_STAGE, &request, (struct slice){0});
}

static void ticks_of_cluster_time(struct node *node, uint64_t count)
{
    node_ticks(node, (int)(count * 200)); /* 10 s of 50 ms each */
}

/* Sessions that are staged to do not hide idle ones behind them: more than any scan looks at are kept busy. What is
 * idle is expired, and makes room under the limit. */
static void test_idle_sessions_expire_behind_busy_ones(void **state)
{
    (void)state;
    enum { BUSY = 300, IDLE = 100 };
    struct node node;
    node_init(&node);
    uint64_t sessions[BUSY + IDLE];
    Cairn__RequestHead head;
    Cairn__UploadStartRequest request = CAIRN__UPLOAD_START_REQUEST__INIT;
    request.name = text_bytes("f");
    request.any_base = true;
    for (int i = 0; i < BUSY + IDLE; i++) {
        request.head = node_head(&node, &head);
        assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_START, &request, (struct slice){0}), ERR_OK);
        sessions[i] = ((Cairn__UploadStartReply *)node_reply(&node, &cairn__upload_start_reply__descriptor))->session;
    }
    ticks_of_cluster_time(&node, 200);
    for (int i = 0; i < BUSY; i++) {
        assert_int_equal(stage_nothing(&node, sessions[i]), ERR_OK);
    }
    ticks_of_cluster_time(&node, 200);
    for (int i = 0; i < BUSY + IDLE; i++) {
        assert_int_equal(stage_nothing(&node, sessions[i]), i < BUSY ? ERR_OK : ERR_SESSION_CLOSED);
    }
    assert_int_equal(node.halted, ERR_OK);
    node_deinit(&node);
}

/* R-B3, R-A8: what is acknowledged counts the stores that are up now; a chunk that one more loss would destroy answers
 * as missing, although it was stored whole once. */
static void test_endangered_chunks_are_missing(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    Cairn__StoreRegisterReply *stores[6];
    for (uint32_t i = 0; i < 6; i++) {
        stores[i] = register_store(&node, i + 1);
    }
    struct ask_entry ask = {.plain_bytes = 99000};
    struct encoding encoding = {{5}};
    struct manifest_entry entry = {.sha = ask.sha, .plain_bytes = ask.plain_bytes, .writer = 1, .encoding = encoding};
    struct upload upload;
    size_t unresolved = 0;
    uint32_t safe = 0;
    assert_int_equal(upload_begin(&node, "f", &ask, &upload), ERR_OK);
    for (uint8_t i = 0; i < 6; i++) {
        upload_add_receipt(&upload, stores[i], 4, 2, i, encoding);
    }
    assert_int_equal(upload_stage(&node, &upload, &entry, &unresolved), ERR_OK);
    assert_int_equal(upload_end(&node, &upload, 99000, &safe), ERR_OK);
    assert_int_equal(safe, 2);
    for (int second = 0; second < 8; second++) { /* one store falls silent: five shards are left */
        for (uint32_t i = 1; i < 6; i++) {
            heartbeat(&node, stores[i], i + 1);
        }
        node_ticks(&node, 20);
    }
    struct upload again;
    assert_int_equal(upload_begin(&node, "g", &ask, &again), ERR_OK);
    assert_false(again.answer.missing);
    assert_int_equal(upload_stage(&node, &again, &entry, &unresolved), ERR_OK);
    assert_int_equal(upload_end(&node, &again, 99000, &safe), ERR_OK);
    assert_int_equal(safe, 1);
    struct upload late;
    assert_int_equal(upload_begin(&node, "late", &ask, &late), ERR_OK);
    assert_int_equal(upload_stage(&node, &late, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 0);
    for (int second = 0; second < 8; second++) { /* a second one: no redundancy is left */
        for (uint32_t i = 2; i < 6; i++) {
            heartbeat(&node, stores[i], i + 1);
        }
        node_ticks(&node, 20);
    }
    /* staged with five up, completed with four: what was counted on is gone, and the version is refused */
    assert_int_equal(upload_end(&node, &late, 99000, &safe), ERR_UNRESOLVED);
    struct upload third;
    assert_int_equal(upload_begin(&node, "h", &ask, &third), ERR_OK);
    assert_true(third.answer.missing);
    assert_int_equal(upload_stage(&node, &third, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 1);
    /* three copies on the stores that are up heal it */
    third.body_bytes = 0;
    for (uint8_t i = 0; i < 3; i++) {
        upload_add_receipt(&third, stores[i + 2], 1, 2, i, encoding);
    }
    assert_int_equal(upload_stage(&node, &third, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 0);
    assert_int_equal(upload_end(&node, &third, 99000, &safe), ERR_OK);
    assert_int_equal(safe, 2);
    node_deinit(&node);
}

/* A flipped bit in any byte of a receipt is refused. */
static void test_receipts_are_checked(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    Cairn__StoreRegisterReply *store = register_store(&node, 1);
    struct ask_entry ask = {.plain_bytes = 99000};
    struct upload upload;
    assert_int_equal(upload_begin(&node, "big", &ask, &upload), ERR_OK);
    struct encoding encoding = {{5}};
    struct manifest_entry entry = {.sha = ask.sha, .plain_bytes = ask.plain_bytes, .writer = 1, .encoding = encoding};
    size_t unresolved = 0;
    for (size_t at = 0; at < RECEIPT_BYTES; at++) {
        upload.body_bytes = 0;
        upload_add_receipt(&upload, store, 4, 2, 0, encoding);
        upload.body[at] ^= (uint8_t)(1u << (at % 8));
        assert_int_equal(upload_stage(&node, &upload, &entry, &unresolved), ERR_BAD_RECEIPT);
    }
    /* a good one, of another session */
    struct upload other;
    assert_int_equal(upload_begin(&node, "other", &ask, &other), ERR_OK);
    upload.body_bytes = 0;
    upload_add_receipt(&upload, store, 4, 2, 0, encoding);
    memcpy(other.body, upload.body, upload.body_bytes);
    other.body_bytes = upload.body_bytes;
    assert_int_equal(upload_stage(&node, &other, &entry, &unresolved), ERR_BAD_RECEIPT);
    node_deinit(&node);
}

static enum err beat_at(struct node *node, const Cairn__StoreRegisterReply *store, uint32_t number,
                        uint64_t last_record)
{
    Cairn__StoreHeartbeatRequest request = CAIRN__STORE_HEARTBEAT_REQUEST__INIT;
    request.store = store->store;
    request.incarnation = store->incarnation;
    request.last_record = last_record;
    struct principal peer = {.role = ROLE_BLOCKD, .id = number};
    return node_ask(node, 0, peer, MESSAGE_STORE_HEARTBEAT, &request, (struct slice){0});
}

static void all_beat(struct node *node, Cairn__StoreRegisterReply *const *stores, uint64_t last_record)
{
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(beat_at(node, stores[i], i + 1, last_record), ERR_OK);
    }
}

/* Six stores at record 50 have taken a chunk of an upload that is staged and not completed. */
static void staged_at_record_50(struct node *node, Cairn__StoreRegisterReply **ret_stores, struct upload *ret_upload)
{
    for (uint32_t i = 0; i < 6; i++) {
        ret_stores[i] = register_store_at(node, i + 1, 10);
        assert_int_equal(ret_stores[i]->incarnation, 101 + i); /* of its directory */
    }
    all_beat(node, ret_stores, 50);
    struct ask_entry ask = {.plain_bytes = 99000};
    struct encoding encoding = {{5}};
    struct manifest_entry entry = {.sha = ask.sha, .plain_bytes = ask.plain_bytes, .writer = 1, .encoding = encoding};
    size_t unresolved = 1;
    assert_int_equal(upload_begin(node, "f", &ask, ret_upload), ERR_OK);
    for (uint8_t i = 0; i < 6; i++) {
        upload_add_receipt(ret_upload, ret_stores[i], 4, 2, i, encoding);
    }
    assert_int_equal(upload_stage(node, ret_upload, &entry, &unresolved), ERR_OK);
    assert_int_equal(unresolved, 0);
}

/* R-B2: a store comes back as an image of an hour ago. Its receipts of that hour are good MACs for shards it lacks. */
static void rolled_back(bool leader_forgets)
{
    struct node node;
    node_init(&node);
    Cairn__StoreRegisterReply *stores[6];
    struct upload upload;
    staged_at_record_50(&node, stores, &upload);
    if (leader_forgets) { /* what was heard is committed with the next tick, and the node starts anew */
        for (int second = 0; second < 12; second++) {
            all_beat(&node, stores, 50);
            node_ticks(&node, 20);
        }
        node_stop(&node);
        node_start(&node);
        node_ticks(&node, 40);
    } else {
        assert_int_equal(beat_at(&node, stores[2], 3, 49), ERR_NOT_FOUND); /* it has to register */
    }
    uint8_t uuid[16] = {3, 1};
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    request.node = 3;
    request.uuid = (ProtobufCBinaryData){16, uuid};
    request.incarnation = 103;
    request.last_record = 49;
    request.address = request.host = request.rack = "";
    struct principal peer = {.role = ROLE_BLOCKD, .id = 3};
    if (!leader_forgets) { /* not before all replicas know what it had */
        assert_int_equal(node_ask(&node, 0, peer, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_NOT_READY);
        node_ticks(&node, 2);
    }
    assert_int_equal(node_ask(&node, 0, peer, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_OK);
    Cairn__StoreRegisterReply *fresh = node_reply(&node, &cairn__store_register_reply__descriptor);
    uint64_t incarnation = fresh->incarnation;
    assert_int_equal(fresh->store, stores[2]->store);
    assert_int_not_equal(incarnation, stores[2]->incarnation);
    assert_memory_not_equal(fresh->receipt_key.data, stores[2]->receipt_key.data, 32);
    uint32_t safe = 0;
    assert_int_equal(upload_end(&node, &upload, 99000, &safe), ERR_UNRESOLVED);
    /* it keeps that incarnation: while it grows, and at its next start */
    request.last_record = 60;
    assert_int_equal(beat_at(&node, fresh, 3, 60), ERR_OK);
    assert_int_equal(node_ask(&node, 0, peer, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_OK);
    fresh = node_reply(&node, &cairn__store_register_reply__descriptor);
    assert_int_equal(fresh->incarnation, incarnation);
    /* and another that starts as it ended keeps its own */
    assert_int_equal(register_store_at(&node, 1, 50)->incarnation, 101);
    node_deinit(&node);
}

static void test_rolled_back_store(void **state)
{
    (void)state;
    rolled_back(false);
}

static void test_rolled_back_store_and_a_new_leader(void **state)
{
    (void)state;
    rolled_back(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stores_of_others),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_open_sessions_are_limited),
        cmocka_unit_test(test_idle_sessions_expire_behind_busy_ones),
        cmocka_unit_test(test_endangered_chunks_are_missing),
        cmocka_unit_test(test_receipts_are_checked),
        cmocka_unit_test(test_rolled_back_store),
        cmocka_unit_test(test_rolled_back_store_and_a_new_leader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
