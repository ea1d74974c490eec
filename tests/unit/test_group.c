/* The namespace machine and the root group through their actors: each operation, each refusal, restart and idempotency.
 */
#include "group_node.h"
#include "metad/group.h"
#include "metad/machine.h"

static enum err mkdir_at(struct node *node, uint64_t parent, const char *name, uint64_t *ret_file)
{
    Cairn__RequestHead head;
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = parent;
    request.name = text_bytes(name);
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_MKDIR, &request, (struct slice){0});
    if (err == ERR_OK && ret_file != NULL) {
        *ret_file = ((Cairn__MkdirReply *)node_reply(node, &cairn__mkdir_reply__descriptor))->file;
    }
    return err;
}

static enum err put_small_at(struct node *node, uint64_t parent, const char *name, uint64_t base, const char *text)
{
    Cairn__RequestHead head;
    Cairn__PutSmallRequest request = CAIRN__PUT_SMALL_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = parent;
    request.name = text_bytes(name);
    request.base_version = base;
    request.mode = 0644;
    return node_ask(node, 1, DEVICE_ROOT, MESSAGE_PUT_SMALL, &request, slice_borrow(text, strlen(text)));
}

static enum err move_to(struct node *node, uint64_t parent, const char *name, uint64_t to_parent, const char *to_name)
{
    Cairn__RequestHead head;
    Cairn__MoveRequest request = CAIRN__MOVE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = parent;
    request.name = text_bytes(name);
    request.to_parent = to_parent;
    request.to_name = text_bytes(to_name);
    return node_ask(node, 1, DEVICE_ROOT, MESSAGE_MOVE, &request, (struct slice){0});
}

static enum err remove_at(struct node *node, uint64_t parent, const char *name, bool recursive)
{
    Cairn__RequestHead head;
    Cairn__RemoveRequest request = CAIRN__REMOVE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = parent;
    request.name = text_bytes(name);
    request.recursive = recursive;
    return node_ask(node, 1, DEVICE_ROOT, MESSAGE_REMOVE, &request, (struct slice){0});
}

static Cairn__ListReply *list_of(struct node *node, uint64_t folder, uint32_t limit, ProtobufCBinaryData after)
{
    Cairn__RequestHead head;
    Cairn__ListRequest request = CAIRN__LIST_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.folder = folder;
    request.limit = limit;
    request.after = after;
    assert_int_equal(node_ask(node, 1, DEVICE_ROOT, MESSAGE_LIST, &request, (struct slice){0}), ERR_OK);
    return node_reply(node, &cairn__list_reply__descriptor);
}

static Cairn__ChangesReply *changes_after(struct node *node, uint64_t after, uint32_t limit)
{
    Cairn__RequestHead head;
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.after = after;
    request.limit = limit;
    assert_int_equal(node_ask(node, 1, DEVICE_ROOT, MESSAGE_CHANGES, &request, (struct slice){0}), ERR_OK);
    return node_reply(node, &cairn__changes_reply__descriptor);
}

static Cairn__StoreRegisterReply *register_store(struct node *node, uint32_t number)
{
    uint8_t uuid[16] = {(uint8_t)number, 1};
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    char host[16];
    snprintf(host, sizeof host, "host%u", number);
    request.node = number;
    request.uuid = (ProtobufCBinaryData){16, uuid};
    request.incarnation = 100 + number;
    request.address = "127.0.0.1:1";
    request.host = host;
    request.rack = "";
    struct principal peer = {.role = ROLE_BLOCKD, .id = number};
    assert_int_equal(node_ask(node, 0, peer, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_OK);
    return node_reply(node, &cairn__store_register_reply__descriptor);
}

static void test_tree(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    uint64_t a = 0;
    uint64_t b = 0;
    assert_int_equal(mkdir_at(&node, 0, "a", &a), ERR_OK);
    assert_int_equal(mkdir_at(&node, a, "b", &b), ERR_OK);
    assert_int_equal(mkdir_at(&node, 0, "a", NULL), ERR_EXISTS);
    assert_int_equal(put_small_at(&node, b, "f", 0, "hello"), ERR_OK);
    assert_int_equal(put_small_at(&node, b, "f", 0, "again"), ERR_EXISTS);
    assert_int_equal(put_small_at(&node, b, "f", 70000, "again"), ERR_CONFLICT);
    Cairn__Entry *present = list_of(&node, b, 0, (ProtobufCBinaryData){0})->entries[0];
    assert_int_equal(put_small_at(&node, b, "f", present->version, "again!"), ERR_OK);
    /* a name that comes back is another version: a stale base never fits it */
    uint64_t stale = list_of(&node, b, 0, (ProtobufCBinaryData){0})->entries[0]->version;
    assert_int_equal(remove_at(&node, b, "f", false), ERR_OK);
    assert_int_equal(put_small_at(&node, b, "f", 0, "other!"), ERR_OK);
    assert_int_equal(put_small_at(&node, b, "f", stale, "lost"), ERR_CONFLICT);
    assert_int_equal(put_small_at(&node, 999, "f", 0, "x"), ERR_NOT_FOUND);
    /* a folder cannot be moved into itself, nor over another */
    assert_int_equal(move_to(&node, 0, "a", b, "c"), ERR_CYCLE);
    assert_int_equal(move_to(&node, 0, "a", a, "c"), ERR_CYCLE);
    assert_int_equal(mkdir_at(&node, 0, "z", NULL), ERR_OK);
    assert_int_equal(move_to(&node, 0, "z", 0, "a"), ERR_EXISTS);
    assert_int_equal(move_to(&node, a, "b", 0, "moved"), ERR_OK);
    Cairn__ListReply *root = list_of(&node, 0, 0, (ProtobufCBinaryData){0});
    assert_int_equal(root->n_entries, 3);
    assert_memory_equal(root->entries[0]->name.data, "a", 1);
    assert_memory_equal(root->entries[1]->name.data, "moved", 5);
    assert_int_equal(list_of(&node, b, 0, (ProtobufCBinaryData){0})->entries[0]->bytes, 6);
    /* removal: a folder with contents only when told; what hung below it is gone with it */
    uint64_t deep = 0;
    assert_int_equal(mkdir_at(&node, b, "deep", &deep), ERR_OK);
    assert_int_equal(remove_at(&node, 0, "moved", false), ERR_NOT_EMPTY);
    assert_int_equal(remove_at(&node, 0, "moved", true), ERR_OK);
    assert_int_equal(put_small_at(&node, deep, "ghost", 0, "x"), ERR_NOT_FOUND);
    assert_int_equal(remove_at(&node, 0, "moved", true), ERR_NOT_FOUND);
    assert_int_equal(list_of(&node, 0, 0, (ProtobufCBinaryData){0})->n_entries, 2);
    node_deinit(&node);
}

/* Two deep chains, one moved below the other, made a folder whose ancestors are more than a walk takes: it once halted
 * the group on every replica. It is refused, nothing breaks, and the chain can be moved back. */
static void test_depth(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    uint64_t a = 0;
    uint64_t b = 0;
    for (int i = 0; i < 126; i++) {
        assert_int_equal(mkdir_at(&node, a, "a", &a), ERR_OK);
        assert_int_equal(mkdir_at(&node, b, "b", &b), ERR_OK);
    }
    assert_int_equal(move_to(&node, 0, "a", b, "a"), ERR_OK);
    assert_int_equal(mkdir_at(&node, a, "deeper", NULL), ERR_TOO_LARGE);
    assert_int_equal(put_small_at(&node, a, "f", 0, "x"), ERR_TOO_LARGE);
    assert_int_equal(move_to(&node, b, "a", 0, "a"), ERR_OK);
    assert_int_equal(put_small_at(&node, a, "f", 0, "x"), ERR_OK);
    assert_int_equal(node.halted, ERR_OK);
    node_deinit(&node);
}

/* Events carry whole entries, symlinks' targets included: a page of the feed stays within a frame all the same. */
static void test_feed_page_fits_a_frame(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    char target[LIMIT_PATH_BYTES + 1];
    memset(target, 't', LIMIT_PATH_BYTES);
    target[LIMIT_PATH_BYTES] = 0;
    char name[16];
    for (int i = 0; i < 300; i++) {
        Cairn__RequestHead head;
        Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
        request.head = node_head(&node, &head);
        snprintf(name, sizeof name, "n%03d", i);
        request.name = text_bytes(name);
        request.target = text_bytes(target);
        assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_MKDIR, &request, (struct slice){0}), ERR_OK);
    }
    uint64_t after = 0;
    while (after < 300) {
        Cairn__ChangesReply *page = changes_after(&node, after, 0);
        assert_true(node.header.bytes <= LIMIT_FRAME_HEADER_BYTES && page->n_changes > 0);
        assert_int_equal(page->changes[0]->sequence, after + 1);
        after = page->changes[page->n_changes - 1]->sequence;
    }
    node_deinit(&node);
}

/* Short of disk space: mutations of people are refused, reads and the stores' registrations are not; then it goes on.
 * For three members: test_members.c. */
static void test_short_of_room(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(put_small_at(&node, 0, "before", 0, "x"), ERR_OK);
    node.short_of_room = true;
    assert_int_equal(put_small_at(&node, 0, "f", 0, "x"), ERR_DISK_FULL);
    assert_int_equal(mkdir_at(&node, 0, "d", NULL), ERR_DISK_FULL);
    assert_int_equal(list_of(&node, 0, 0, (ProtobufCBinaryData){0})->n_entries, 1);
    assert_int_equal(register_store(&node, 1)->store, 1);
    node.short_of_room = false;
    assert_int_equal(put_small_at(&node, 0, "f", 0, "x"), ERR_OK);

    node_deinit(&node);
}

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

static void test_names(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    static const char *const illegal[] = {"", ".", "..", "a/b", "\xff\xfe", "\xc3"};
    for (size_t i = 0; i < sizeof illegal / sizeof illegal[0]; i++) {
        assert_int_equal(mkdir_at(&node, 0, illegal[i], NULL), ERR_ILLEGAL_NAME);
    }
    char long_name[257];
    memset(long_name, 'n', 256);
    long_name[256] = 0;
    assert_int_equal(mkdir_at(&node, 0, long_name, NULL), ERR_ILLEGAL_NAME);
    long_name[255] = 0;
    assert_int_equal(mkdir_at(&node, 0, long_name, NULL), ERR_OK);
    /* "e with acute", composed and decomposed, is one name, kept as first given */
    assert_int_equal(mkdir_at(&node, 0, "\xc3\xa9", NULL), ERR_OK);
    assert_int_equal(mkdir_at(&node, 0, "e\xcc\x81", NULL), ERR_EXISTS);
    node_deinit(&node);
}

static void test_list_pages(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    char name[16];
    for (int i = 0; i < 25; i++) {
        snprintf(name, sizeof name, "n%02d", i);
        assert_int_equal(put_small_at(&node, 0, name, 0, "x"), ERR_OK);
    }
    ProtobufCBinaryData after = {0};
    int seen = 0;
    do {
        Cairn__ListReply *page = list_of(&node, 0, 10, after);
        for (size_t i = 0; i < page->n_entries; i++) {
            snprintf(name, sizeof name, "n%02d", seen++);
            assert_memory_equal(page->entries[i]->name.data, name, 3);
        }
        after = page->next;
    } while (after.len > 0);
    assert_int_equal(seen, 25);
    node_deinit(&node);
}

static void test_changes_are_gap_free_after_restart(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    char name[16];
    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof name, "n%02d", i);
        assert_int_equal(put_small_at(&node, 0, name, 0, "x"), ERR_OK);
    }
    /* a restart that lost the whole key-value store applies the log again */
    node_stop(&node);
    kv_batch_destroy(node.db);
    node.db = kv_batch_create();
    node_start(&node);
    assert_int_equal(remove_at(&node, 0, "n00", false), ERR_OK);
    uint64_t after = 0;
    while (true) {
        Cairn__ChangesReply *page = changes_after(&node, after, 7);
        if (page->n_changes == 0) {
            break;
        }
        for (size_t i = 0; i < page->n_changes; i++) {
            assert_int_equal(page->changes[i]->sequence, ++after);
        }
    }
    assert_int_equal(after, 31);
    Cairn__RequestHead head;
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.head = node_head(&node, &head);
    request.after = 32;
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_CHANGES, &request, (struct slice){0}), ERR_CURSOR_EXPIRED);
    node_deinit(&node);
}

static void test_idempotency(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(mkdir_at(&node, 0, "once", NULL), ERR_OK);
    uint64_t sequence = changes_after(&node, 0, 0)->last;
    node.key -= 2; /* the key of the mkdir again */
    assert_int_equal(mkdir_at(&node, 0, "once", NULL), ERR_OK);
    node.key--;
    assert_int_equal(mkdir_at(&node, 0, "other", NULL), ERR_KEY_REUSED);
    node.key += 10;
    assert_int_equal(changes_after(&node, 0, 0)->last, sequence);
    /* a refusal is remembered too */
    assert_int_equal(mkdir_at(&node, 0, "once", NULL), ERR_EXISTS);
    node.key--;
    assert_int_equal(remove_at(&node, 0, "once", false), ERR_KEY_REUSED);
    /* a key far below the highest is too old */
    node.key += 1000000;
    assert_int_equal(mkdir_at(&node, 0, "high", NULL), ERR_OK);
    node.key = 5000;
    assert_int_equal(mkdir_at(&node, 0, "low", NULL), ERR_TOO_OLD);
    node_deinit(&node);
}

/* A second user with a device of his own and no rights at all, written as an account service would. */
static void add_second_user(struct node *node)
{
    Cairn__UserRecord user = CAIRN__USER_RECORD__INIT;
    user.user = 2;
    user.name = "second";
    user.writer = 2;
    struct key key = key_user((struct prefix){1, 1}, user.user);
    struct slice packed = proto_pack(&user);
    kv_batch_put(node->db, key.bytes, key.count, packed.data, packed.bytes);
    slice_drop(&packed);
    Cairn__DeviceRecord device = CAIRN__DEVICE_RECORD__INIT;
    device.device = 2;
    device.user = 2;
    key = key_device((struct prefix){1, 1}, device.device);
    packed = proto_pack(&device);
    kv_batch_put(node->db, key.bytes, key.count, packed.data, packed.bytes);
    slice_drop(&packed);
}

/* Every operation on a namespace, asked by a device that the group does not know, by a user without rights, or for a
 * namespace that is not there: refused alike, whatever ids the request guesses. */
static void test_strangers_are_refused_alike(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(mkdir_at(&node, 0, "secret", NULL), ERR_OK);
    Cairn__RequestHead head;
    Cairn__MkdirRequest mkdir_request = CAIRN__MKDIR_REQUEST__INIT;
    Cairn__MoveRequest move_request = CAIRN__MOVE_REQUEST__INIT;
    Cairn__RemoveRequest remove_request = CAIRN__REMOVE_REQUEST__INIT;
    Cairn__PutSmallRequest small_request = CAIRN__PUT_SMALL_REQUEST__INIT;
    Cairn__UploadStartRequest start_request = CAIRN__UPLOAD_START_REQUEST__INIT;
    Cairn__UploadStageRequest stage_request = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    Cairn__UploadCompleteRequest complete_request = CAIRN__UPLOAD_COMPLETE_REQUEST__INIT;
    Cairn__ListRequest list_request = CAIRN__LIST_REQUEST__INIT;
    Cairn__StatRequest stat_request = CAIRN__STAT_REQUEST__INIT;
    Cairn__ManifestRequest manifest_request = CAIRN__MANIFEST_REQUEST__INIT;
    Cairn__ChangesRequest changes_request = CAIRN__CHANGES_REQUEST__INIT;
    Cairn__ResolveRequest resolve_request = CAIRN__RESOLVE_REQUEST__INIT;
    resolve_request.workspace = "home";
    mkdir_request.name = move_request.name = remove_request.name = small_request.name = start_request.name =
        manifest_request.name = text_bytes("secret");
    move_request.to_name = text_bytes("x");
    mkdir_request.head = move_request.head = remove_request.head = small_request.head = start_request.head =
        stage_request.head = complete_request.head = list_request.head = stat_request.head = manifest_request.head =
            changes_request.head = resolve_request.head = &head;
    const struct {
        uint16_t type;
        const void *request;
    } rows[] = {
        {MESSAGE_MKDIR, &mkdir_request},
        {MESSAGE_MOVE, &move_request},
        {MESSAGE_REMOVE, &remove_request},
        {MESSAGE_PUT_SMALL, &small_request},
        {MESSAGE_UPLOAD_START, &start_request},
        {MESSAGE_UPLOAD_STAGE, &stage_request},
        {MESSAGE_UPLOAD_COMPLETE, &complete_request},
        {MESSAGE_LIST, &list_request},
        {MESSAGE_STAT, &stat_request},
        {MESSAGE_MANIFEST, &manifest_request},
        {MESSAGE_CHANGES, &changes_request},
        {MESSAGE_RESOLVE, &resolve_request},
    };
    add_second_user(&node);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (uint64_t guess = 0; guess < 8; guess++) {
            node_head(&node, &head)->ns = guess % 4;
            mkdir_request.parent = move_request.parent = remove_request.parent = small_request.parent =
                start_request.parent = list_request.folder = stat_request.parent = manifest_request.parent = guess;
            stage_request.session = complete_request.session = guess;
            for (uint32_t device = 2; device <= 77; device += 75) {
                struct principal stranger = {.role = ROLE_DEVICE, .id = device};
                enum err err = node_ask(&node, 1, stranger, rows[i].type, rows[i].request, (struct slice){0});
                assert_int_equal(err, ERR_DENIED);
            }
        }
        node_head(&node, &head)->ns = NAMESPACE_FIRST;
        struct principal impostor = {.role = ROLE_DEVICE, .id = 1, .key = {{1}}}; /* the number, another key (R-F8) */
        assert_int_equal(node_ask(&node, 1, impostor, rows[i].type, rows[i].request, (struct slice){0}), ERR_DENIED);
        if (rows[i].type != MESSAGE_RESOLVE) {
            node_head(&node, &head)->ns = 99;
            enum err err = node_ask(&node, 1, DEVICE_ROOT, rows[i].type, rows[i].request, (struct slice){0});
            assert_int_equal(err, ERR_DENIED);
        }
    }
    assert_int_equal(list_of(&node, 0, 0, (ProtobufCBinaryData){0})->n_entries, 1);
    node_deinit(&node);
}

/* ---- uploads: the test is the stores ---- */

struct upload {
    uint64_t session;
    uint64_t generation;
    struct ask_answer answer;
    uint8_t body[4096];
    size_t body_bytes;
};

static enum err upload_begin(struct node *node, const char *name, const struct ask_entry *ask, struct upload *ret)
{
    Cairn__RequestHead head;
    Cairn__UploadStartRequest request = CAIRN__UPLOAD_START_REQUEST__INIT;
    uint8_t asked[ASK_ENTRY_BYTES];
    request.head = node_head(node, &head);
    request.name = text_bytes(name);
    request.any_base = true;
    ask_entry_encode(ask, asked);
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_START, &request, slice_borrow(asked, sizeof asked));
    if (err == ERR_OK) {
        Cairn__UploadStartReply *reply = node_reply(node, &cairn__upload_start_reply__descriptor);
        *ret = (struct upload){.session = reply->session, .generation = reply->generation};
        assert_int_equal(reply->capability.len, CAPABILITY_BYTES);
        assert_int_equal(ask_answer_decode(node->body.data, node->body.bytes, &ret->answer), ERR_OK);
    }
    return err;
}

static void upload_add_receipt(struct upload *upload, const Cairn__StoreRegisterReply *store, uint8_t k, uint8_t m,
                               uint8_t index, struct encoding encoding)
{
    struct receipt receipt = {
        .cluster_incarnation = 1,
        .store = store->store,
        .store_incarnation = store->incarnation,
        .shard = {.realm = 1,
                  .chunk = upload->answer.chunk,
                  .writer = 1,
                  .encoding = encoding,
                  .k = k,
                  .m = m,
                  .index = index},
        .sealed_bytes = 100000,
        .ns = 1,
        .ns_incarnation = 1,
        .session = upload->session,
        .generation = upload->generation,
    };
    receipt_sign(&receipt, store->receipt_key.data, upload->body + upload->body_bytes);
    upload->body_bytes += RECEIPT_BYTES;
}

static enum err upload_stage(struct node *node, struct upload *upload, const struct manifest_entry *entry,
                             size_t *ret_unresolved)
{
    Cairn__RequestHead head;
    Cairn__UploadStageRequest request = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.session = upload->session;
    request.receipts = (uint32_t)(upload->body_bytes / RECEIPT_BYTES);
    request.entries = 1;
    manifest_entry_encode(entry, upload->body + upload->body_bytes);
    struct slice body = slice_borrow(upload->body, upload->body_bytes + MANIFEST_ENTRY_BYTES);
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_STAGE, &request, body);
    if (err == ERR_OK) {
        *ret_unresolved =
            ((Cairn__UploadStageReply *)node_reply(node, &cairn__upload_stage_reply__descriptor))->n_unresolved;
    }
    return err;
}

static enum err upload_end(struct node *node, const struct upload *upload, uint64_t bytes, uint32_t *ret_safe)
{
    Cairn__RequestHead head;
    Cairn__UploadCompleteRequest request = CAIRN__UPLOAD_COMPLETE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.session = upload->session;
    request.bytes = bytes;
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_COMPLETE, &request, (struct slice){0});
    if (err == ERR_OK) {
        *ret_safe =
            ((Cairn__UploadCompleteReply *)node_reply(node, &cairn__upload_complete_reply__descriptor))->safe_losses;
    }
    return err;
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

static void heartbeat(struct node *node, const Cairn__StoreRegisterReply *store, uint32_t number)
{
    Cairn__StoreHeartbeatRequest request = CAIRN__STORE_HEARTBEAT_REQUEST__INIT;
    request.store = store->store;
    request.incarnation = store->incarnation;
    struct principal peer = {.role = ROLE_BLOCKD, .id = number};
    assert_int_equal(node_ask(node, 0, peer, MESSAGE_STORE_HEARTBEAT, &request, (struct slice){0}), ERR_OK);
}

/* R-B3, R-A8: what is acknowledged counts the stores that are up now; a chunk that one more loss would destroy answers
 * as missing, although it was stored whole once. */
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

static void test_small_content_is_sealed(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    const char *plain = "planted plain text, long enough to be found";
    assert_int_equal(put_small_at(&node, 0, "f", 0, plain), ERR_OK);
    Cairn__RequestHead head;
    Cairn__ManifestRequest request = CAIRN__MANIFEST_REQUEST__INIT;
    request.head = node_head(&node, &head);
    request.name = text_bytes("f");
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_MANIFEST, &request, (struct slice){0}), ERR_OK);
    assert_int_equal(node.body.bytes, strlen(plain));
    assert_memory_equal(node.body.data, plain, strlen(plain));
    for (const struct kv_entry *e = kv_batch_next(node.db, "", 0, false); e != NULL;
         e = kv_batch_next(node.db, e->key.data, e->key.bytes, true)) {
        assert_null(memmem(e->value.data, e->value.bytes, plain, 16));
    }
    for (unsigned long i = 0; i < node.logs[1].count; i++) {
        assert_null(memmem(node.logs[1].entries[i].data.data, node.logs[1].entries[i].data.bytes, plain, 16));
    }
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_feed_page_fits_a_frame),
        cmocka_unit_test(test_short_of_room),
        cmocka_unit_test(test_stores_of_others),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_list_pages),
        cmocka_unit_test(test_changes_are_gap_free_after_restart),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_strangers_are_refused_alike),
        cmocka_unit_test(test_upload),
        cmocka_unit_test(test_open_sessions_are_limited),
        cmocka_unit_test(test_idle_sessions_expire_behind_busy_ones),
        cmocka_unit_test(test_endangered_chunks_are_missing),
        cmocka_unit_test(test_receipts_are_checked),
        cmocka_unit_test(test_small_content_is_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
