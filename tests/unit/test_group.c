/* The namespace machine and the root group through their actors: each operation, each refusal, restart and idempotency.
 */
#include "group_upload.h"
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

/* A batch under its sequence without the event of that sequence: an error, not a search without end. */
static void test_feed_that_lacks_an_event(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(put_small_at(&node, 0, "one", 0, "x"), ERR_OK);
    assert_int_equal(put_small_at(&node, 0, "two", 0, "x"), ERR_OK);
    Cairn__RequestHead head;
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.head = node_head(&node, &head);
    uint64_t last = changes_after(&node, 0, 0)->last;
    struct key key = key_begin((struct prefix){.group = 1, .view = 1}, 'V');
    key_u64(&key, head.ns);
    key_u64(&key, last);
    struct slice value = {0};
    assert_int_equal(kv_get(&node.view, key.bytes, key.count, &value), ERR_OK);
    slice_drop(&value);
    kv_batch_put(node.db, key.bytes, key.count, "", 0);
    assert_int_equal(node_ask(&node, 1, DEVICE_ROOT, MESSAGE_CHANGES, &request, (struct slice){0}), ERR_CORRUPT);
    node_deinit(&node);
}

/* Mutations that come together are one entry: none is proposed while another event has come, whatever that is. */
static void test_together(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    assert_int_equal(put_small_at(&node, 0, "a", 0, "x"), ERR_OK);
    unsigned long entries = node.logs[1].count;
    Cairn__RequestHead head;
    Cairn__RemoveRequest request = CAIRN__REMOVE_REQUEST__INIT;
    request.head = node_head(&node, &head);
    request.name = text_bytes("a");
    node.more = true;
    node_tell(&node, 1, DEVICE_ROOT, MESSAGE_REMOVE, &request, (struct slice){0});
    assert_int_equal(node.logs[1].count, entries);
    assert_false(node.answered);
    node.more = false;
    node_step(&node, 1, (struct event){.kind = EVENT_ROOM});
    node_drain(&node);
    assert_int_equal(node.logs[1].count, entries + 1);
    assert_true(node.answered);
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
    node_stop(&node); /* what is remembered in memory is what the database says */
    node_start(&node);
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
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_list_pages),
        cmocka_unit_test(test_changes_are_gap_free_after_restart),
        cmocka_unit_test(test_feed_that_lacks_an_event),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_idempotency),
        cmocka_unit_test(test_strangers_are_refused_alike),
        cmocka_unit_test(test_small_content_is_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
