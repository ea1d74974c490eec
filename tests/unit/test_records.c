/* Records kept unpacked for a step, against the state read and written directly: what is stored is the same to the
 * byte, what is not put is not stored, and nothing outlives the step or the view. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "metad/records.h"

/* A database that holds one batch, counts reads and fails when told. */
struct database {
    struct kv_view view;
    struct kv_batch *pairs;
    unsigned gets;
    enum err fail;
};

static enum err database_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct database *database = (struct database *)view;
    database->gets++;
    if (database->fail != ERR_OK) {
        return database->fail;
    }
    const struct kv_entry *entry = kv_batch_find(database->pairs, key, key_bytes);
    if (entry == NULL || entry->deleted) {
        return ERR_NOT_FOUND;
    }
    *ret_value = slice_keep(entry->value);
    return ERR_OK;
}

static const struct kv_view_ops database_ops = {.get = database_get};

struct world {
    struct database database;
    struct kv_overlay overlay;
    struct state state;
    struct proto_arena arena; /* of a command */
};

static void step_begin(struct world *world)
{
    kv_overlay_init(&world->overlay, kv_batch_create(), &world->database.view);
    world->state.kv = &world->overlay;
    world->database.gets = 0;
}

/* What the step wrote goes into the database. */
static void step_end(struct world *world)
{
    records_settle(&world->state);
    struct kv_batch *batch = world->overlay.batch;
    for (const struct kv_entry *entry = kv_batch_next(batch, NULL, 0, false); entry != NULL;
         entry = kv_entry_next(entry)) {
        if (entry->deleted) {
            kv_batch_delete(world->database.pairs, entry->key.data, entry->key.bytes);
        } else {
            kv_batch_put(world->database.pairs, entry->key.data, entry->key.bytes, entry->value.data,
                         entry->value.bytes);
        }
    }
    kv_batch_destroy(batch);
    proto_arena_deinit(&world->arena);
}

static void world_make(struct world *world)
{
    *world = (struct world){.database = {.view = {.ops = &database_ops}, .pairs = kv_batch_create()},
                            .state = {.group = {.group = 1, .view = 1}}};
    step_begin(world);
}

static void world_free(struct world *world)
{
    step_end(world);
    records_deinit(&world->state);
    kv_batch_destroy(world->database.pairs);
}

static Cairn__FolderRecord folder_make(uint64_t lanes[4], uint64_t entries, const char *name)
{
    Cairn__FolderRecord folder = CAIRN__FOLDER_RECORD__INIT;
    folder.parent = 7;
    folder.entries = entries;
    folder.key = (ProtobufCBinaryData){strlen(name), (uint8_t *)(uintptr_t)name};
    folder.n_digest = 4;
    folder.digest = lanes;
    return folder;
}

static Cairn__NamespaceRecord namespace_make(uint64_t ns, uint64_t sequence, char *workspace)
{
    Cairn__NamespaceRecord record = CAIRN__NAMESPACE_RECORD__INIT;
    record.ns = ns;
    record.sequence = sequence;
    record.workspace = workspace;
    return record;
}

static void assert_stored(struct world *world, const struct key *key, const void *record)
{
    struct slice packed = proto_pack(record);
    const struct kv_entry *entry = kv_batch_find(world->database.pairs, key->bytes, key->count);
    assert_non_null(entry);
    assert_false(entry->deleted);
    assert_int_equal(entry->value.bytes, packed.bytes);
    assert_memory_equal(entry->value.data, packed.data, packed.bytes);
    slice_drop(&packed);
}

static uint64_t folder_entries(struct world *world, uint64_t folder)
{
    Cairn__FolderRecord *record = NULL;
    enum err err = records_folder(&world->state, 1, folder, &world->arena, &record);
    return err == ERR_OK ? record->entries : err == ERR_NOT_FOUND ? UINT64_MAX : UINT64_MAX - 1;
}

static void folder_set(struct world *world, uint64_t folder, uint64_t entries)
{
    uint64_t lanes[4] = {folder, 2, 3, 4};
    Cairn__FolderRecord record = folder_make(lanes, entries, "name");
    records_folder_put(&world->state, 1, folder, &record);
}

static void test_stored_as_put(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    char workspace[] = "home", name[] = "folder";
    uint64_t lanes[4] = {1, 2, 3, UINT64_MAX};
    Cairn__NamespaceRecord ns = namespace_make(1, 5, workspace);
    Cairn__FolderRecord folder = folder_make(lanes, 9, name);
    records_namespace_put(&world.state, &ns);
    records_folder_put(&world.state, 1, 3, &folder);
    memset(workspace, 'x', 4); /* what was put is copied */
    memset(name, 'x', 6);
    lanes[0] = 77;
    step_end(&world);
    memcpy(workspace, "home", 4);
    memcpy(name, "folder", 6);
    lanes[0] = 1;
    struct key key = key_namespace(world.state.group, 1);
    assert_stored(&world, &key, &ns);
    key = key_folder(world.state.group, 1, 3);
    assert_stored(&world, &key, &folder);
    step_begin(&world);
    world_free(&world);
}

/* A command of the middle of a load sees what the one before put; one that was refused leaves nothing. */
static void test_changed_only_when_put(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    folder_set(&world, 3, 10);
    step_end(&world);
    step_begin(&world);
    Cairn__FolderRecord *folder = NULL;
    assert_int_equal(records_folder(&world.state, 1, 3, &world.arena, &folder), ERR_OK);
    folder->entries = 11;
    folder->digest[0] = 99;
    assert_int_equal(records_folder(&world.state, 1, 3, &world.arena, &folder), ERR_OK);
    assert_int_equal(folder->entries, 10);
    assert_int_equal(folder->digest[0], 3);
    records_settle(&world.state);
    assert_int_equal(kv_batch_count(world.overlay.batch), 0);
    assert_int_equal(records_folder(&world.state, 1, 3, &world.arena, &folder), ERR_OK);
    folder->entries = 12;
    records_folder_put(&world.state, 1, 3, folder);
    assert_int_equal(folder_entries(&world, 3), 12);
    assert_int_equal(kv_batch_count(world.overlay.batch), 0); /* not before the step ends */
    step_end(&world);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 12);
    world_free(&world);
}

static void test_read_once_a_step(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    folder_set(&world, 3, 1);
    Cairn__NamespaceRecord ns = namespace_make(1, 5, "home"), *read = NULL;
    records_namespace_put(&world.state, &ns);
    step_end(&world);
    step_begin(&world);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(folder_entries(&world, 3), 1);
        assert_int_equal(records_namespace(&world.state, 1, &world.arena, &read), ERR_OK);
        assert_string_equal(read->workspace, "home");
    }
    assert_int_equal(world.database.gets, 2);
    step_end(&world);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 1);
    assert_int_equal(world.database.gets, 1); /* nothing is kept behind the step */
    world_free(&world);
}

static void test_deleted_and_made_again(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    folder_set(&world, 3, 1);
    folder_set(&world, 4, 1);
    step_end(&world);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 1);
    records_folder_delete(&world.state, 1, 3);
    records_folder_delete(&world.state, 1, 4); /* unread */
    assert_int_equal(folder_entries(&world, 3), UINT64_MAX);
    assert_int_equal(folder_entries(&world, 4), UINT64_MAX);
    folder_set(&world, 3, 2);
    folder_set(&world, 5, 3);
    records_folder_delete(&world.state, 1, 5);
    assert_int_equal(folder_entries(&world, 3), 2);
    step_end(&world);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 2);
    assert_int_equal(folder_entries(&world, 4), UINT64_MAX);
    assert_int_equal(folder_entries(&world, 5), UINT64_MAX);
    world_free(&world);
}

/* A snapshot switches in the middle of a step (R-E4): what was put is the old view's, what is read the new one's. */
static void test_view_switched(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    world.state.group.view = 2;
    folder_set(&world, 3, 20);
    step_end(&world);
    world.state.group.view = 1;
    step_begin(&world);
    folder_set(&world, 3, 10);
    assert_int_equal(folder_entries(&world, 3), 10);
    records_settle(&world.state);
    assert_int_equal(folder_entries(&world, 3), 10); /* read only: needs no settling */
    world.state.group.view = 2;
    assert_int_equal(folder_entries(&world, 3), 20);
    step_end(&world);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 20);
    records_settle(&world.state);
    world.state.group.view = 1;
    assert_int_equal(folder_entries(&world, 3), 10);
    world_free(&world);
}

static void test_read_fails(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    folder_set(&world, 3, 10);
    Cairn__NamespaceRecord ns = namespace_make(1, 5, "home"), *read = NULL;
    records_namespace_put(&world.state, &ns);
    step_end(&world);
    step_begin(&world);
    world.database.fail = ERR_KV_FAILED;
    assert_int_equal(folder_entries(&world, 3), UINT64_MAX - 1);
    assert_int_equal(records_namespace(&world.state, 1, &world.arena, &read), ERR_CORRUPT);
    world.database.fail = ERR_OK;
    assert_int_equal(folder_entries(&world, 3), 10);
    assert_int_equal(records_namespace(&world.state, 1, &world.arena, &read), ERR_OK);
    struct key key = key_folder(world.state.group, 1, 4);
    state_put_bytes(&world.state, &key, "\xff\xff", 2);
    assert_int_equal(folder_entries(&world, 4), UINT64_MAX - 1);
    uint64_t lanes[4] = {0};
    Cairn__FolderRecord folder = folder_make(lanes, 1, "three lanes");
    folder.n_digest = 3;
    state_put(&world.state, &key, &folder);
    assert_int_equal(folder_entries(&world, 4), UINT64_MAX - 1);
    world_free(&world);
}

/* More folders than are kept: the rest is read and written directly. */
static void test_full(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    uint32_t count = RECORDS_FOLDERS + 100;
    for (int round = 1; round <= 3; round++) {
        for (uint32_t i = 1; i <= count; i++) {
            assert_int_equal(folder_entries(&world, i), round == 1 ? UINT64_MAX : i * (round - 1u));
            folder_set(&world, i, (uint64_t)i * (uint64_t)round);
            assert_int_equal(folder_entries(&world, i), i * (unsigned)round);
        }
        assert_true(records_are_full(&world.state));
        records_folder_delete(&world.state, 1, count);
        assert_int_equal(folder_entries(&world, count), UINT64_MAX);
        folder_set(&world, count, (uint64_t)count * (uint64_t)round);
        step_end(&world);
        step_begin(&world);
        assert_false(records_are_full(&world.state));
    }
    world_free(&world);
}

/* What a newer release wrote into a record goes through a change of it. */
static void test_unknown_fields_stay(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    static const uint8_t later[] = {0xf8, 0x07, 0x2a}; /* field 127: 42 */
    uint64_t lanes[4] = {1, 2, 3, 4};
    Cairn__FolderRecord made = folder_make(lanes, 10, "name"), *folder = NULL;
    struct slice packed = proto_pack(&made);
    struct writer value = {0};
    writer_put(&value, packed.data, packed.bytes);
    writer_put(&value, later, sizeof later);
    struct key key = key_folder(world.state.group, 1, 3);
    state_put_bytes(&world.state, &key, value.data, value.bytes);
    step_end(&world);
    step_begin(&world);
    assert_int_equal(records_folder(&world.state, 1, 3, &world.arena, &folder), ERR_OK);
    folder->entries = 11;
    records_folder_put(&world.state, 1, 3, folder);
    step_end(&world);
    const struct kv_entry *entry = kv_batch_find(world.database.pairs, key.bytes, key.count);
    assert_int_equal(entry->value.bytes, value.bytes);
    assert_memory_equal(entry->value.data + value.bytes - sizeof later, later, sizeof later);
    step_begin(&world);
    assert_int_equal(folder_entries(&world, 3), 11);
    slice_drop(&packed);
    writer_deinit(&value);
    world_free(&world);
}

static void test_other_namespaces_and_users(void **unused)
{
    (void)unused;
    struct world world;
    world_make(&world);
    Cairn__NamespaceRecord first = namespace_make(1, 5, "home"), second = namespace_make(2, 6, "work"), *read = NULL;
    records_namespace_put(&world.state, &first);
    records_namespace_put(&world.state, &second);
    Cairn__UserRecord user = CAIRN__USER_RECORD__INIT;
    for (user.user = 1; user.user <= 2; user.user++) {
        struct key key = key_user(world.state.group, user.user);
        user.writer = (uint32_t)user.user + 10;
        state_put(&world.state, &key, &user);
    }
    for (uint64_t ns = 1; ns <= 2; ns++) {
        const Cairn__UserRecord *found = NULL;
        assert_int_equal(records_namespace(&world.state, ns, &world.arena, &read), ERR_OK);
        assert_int_equal(read->sequence, 4 + ns);
        read->sequence += 10;
        records_namespace_put(&world.state, read);
        assert_int_equal(records_user(&world.state, ns, &world.arena, &found), ERR_OK);
        assert_int_equal(found->writer, ns + 10);
    }
    const Cairn__UserRecord *found = NULL;
    assert_int_equal(records_namespace(&world.state, 3, &world.arena, &read), ERR_NOT_FOUND);
    assert_int_equal(records_user(&world.state, 3, &world.arena, &found), ERR_NOT_FOUND);
    step_end(&world);
    first.sequence = 15;
    second.sequence = 16;
    struct key key = key_namespace(world.state.group, 1);
    assert_stored(&world, &key, &first);
    key = key_namespace(world.state.group, 2);
    assert_stored(&world, &key, &second);
    step_begin(&world);
    world_free(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stored_as_put),
        cmocka_unit_test(test_changed_only_when_put),
        cmocka_unit_test(test_read_once_a_step),
        cmocka_unit_test(test_deleted_and_made_again),
        cmocka_unit_test(test_view_switched),
        cmocka_unit_test(test_read_fails),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_unknown_fields_stay),
        cmocka_unit_test(test_other_namespaces_and_users),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
