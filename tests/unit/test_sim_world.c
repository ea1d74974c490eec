/* The simulator's own test: the world keeps the promises of base/effect.h and takes away exactly what a crash may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/sim/world.h"

static struct file_ref file_one = {FILE_LOG, 1};

/* ---- disk ---- */

static enum err finish(struct disk *disk, struct disk_op *op, struct slice *ret_data)
{
    struct slice data = {0};
    enum err err = disk_finish(disk, op, &data);
    if (ret_data != NULL) {
        *ret_data = data;
    } else {
        slice_drop(&data);
    }
    return err;
}

static struct disk_op *begin(struct disk *disk, struct effects *fx)
{
    assert_int_equal(fx->count, 1);
    fx->count = 0;
    return disk_begin(disk, &fx->items[0]);
}

static struct disk_op *begin_write(struct disk *disk, struct effects *fx, uint64_t offset, uint8_t fill, size_t bytes)
{
    struct slice data = slice_alloc(bytes);
    memset(data.data, fill, bytes);
    fx_disk_write(fx, 0, file_one, offset, data);
    return begin(disk, fx);
}

static void alloc_file(struct disk *disk, struct effects *fx, uint64_t bytes)
{
    fx_disk_alloc(fx, 0, file_one, bytes);
    assert_int_equal(finish(disk, begin(disk, fx), NULL), ERR_OK);
}

static void sync_file(struct disk *disk, struct effects *fx)
{
    fx_disk_sync(fx, 0, file_one);
    assert_int_equal(finish(disk, begin(disk, fx), NULL), ERR_OK);
}

static struct slice read_file(struct disk *disk, struct effects *fx, uint64_t bytes)
{
    struct slice data;
    fx_disk_read(fx, 0, file_one, 0, bytes);
    assert_int_equal(finish(disk, begin(disk, fx), &data), ERR_OK);
    return data;
}

static void test_disk_reads_what_is_written(void **state)
{
    (void)state;
    struct disk *disk = disk_create(rng_of(1, 1));
    struct effects fx = {0};
    alloc_file(disk, &fx, 8192);
    assert_int_equal(finish(disk, begin_write(disk, &fx, 4096, 7, 4096), NULL), ERR_OK);
    struct slice data = read_file(disk, &fx, 16384);
    assert_int_equal(data.bytes, 8192); /* short at the end */
    assert_int_equal(data.data[4095], 0);
    assert_int_equal(data.data[4096], 7);
    assert_int_equal(data.data[8191], 7);
    slice_drop(&data);
    disk_destroy(disk);
    effects_deinit(&fx);
}

/* Unsynced sectors: each old or new, both seen, none torn within. */
static void test_disk_power_draws_sectors(void **state)
{
    (void)state;
    unsigned seen_old = 0, seen_new = 0, seen_mixed = 0;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct disk *disk = disk_create(rng_of(seed, 1));
        struct effects fx = {0};
        alloc_file(disk, &fx, 4096);
        assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 1, 4096), NULL), ERR_OK);
        sync_file(disk, &fx);
        assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 2, 4096), NULL), ERR_OK);
        disk_crash(disk, true);
        struct slice data = read_file(disk, &fx, 4096);
        unsigned news = 0;
        for (unsigned s = 0; s < 8; s++) {
            for (unsigned i = 1; i < DISK_SECTOR_BYTES; i++) {
                assert_int_equal(data.data[s * DISK_SECTOR_BYTES + i], data.data[s * DISK_SECTOR_BYTES]);
            }
            news += data.data[s * DISK_SECTOR_BYTES] == 2;
            assert_true(data.data[s * DISK_SECTOR_BYTES] == 2 || data.data[s * DISK_SECTOR_BYTES] == 1);
        }
        seen_old += 8 - news;
        seen_new += news;
        seen_mixed += news > 0 && news < 8;
        slice_drop(&data);
        disk_destroy(disk);
        effects_deinit(&fx);
    }
    assert_true(seen_old > 100 && seen_new > 100 && seen_mixed > 32);
}

/* A sync covers the writes that had finished when it began, and no others. */
static void test_disk_sync_covers_finished_writes_only(void **state)
{
    (void)state;
    unsigned lost = 0;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct disk *disk = disk_create(rng_of(seed, 1));
        struct effects fx = {0};
        alloc_file(disk, &fx, 8192);
        assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 1, 4096), NULL), ERR_OK);
        struct disk_op *late = begin_write(disk, &fx, 4096, 2, 4096);
        fx_disk_sync(&fx, 0, file_one);
        struct disk_op *sync = begin(disk, &fx);
        assert_int_equal(finish(disk, late, NULL), ERR_OK);
        assert_int_equal(finish(disk, sync, NULL), ERR_OK);
        assert_true(disk_unsynced(disk) > 0);
        disk_crash(disk, true);
        struct slice data = read_file(disk, &fx, 8192);
        for (unsigned i = 0; i < 4096; i++) {
            assert_int_equal(data.data[i], 1);
        }
        for (unsigned i = 4096; i < 8192; i++) {
            lost += data.data[i] == 0;
        }
        slice_drop(&data);
        disk_destroy(disk);
        effects_deinit(&fx);
    }
    assert_true(lost > 4096);
}

/* A killed process leaves what it wrote in the cache, unsynced: the next power cut may still take it. */
static void test_disk_kill_keeps_written_unsynced(void **state)
{
    (void)state;
    struct disk *disk = disk_create(rng_of(3, 1));
    struct effects fx = {0};
    alloc_file(disk, &fx, 4096);
    assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 9, 4096), NULL), ERR_OK);
    disk_crash(disk, false);
    struct slice data = read_file(disk, &fx, 4096);
    for (unsigned i = 0; i < 4096; i++) {
        assert_int_equal(data.data[i], 9);
    }
    slice_drop(&data);
    assert_int_equal(disk_unsynced(disk), 8);
    disk_crash(disk, true);
    assert_int_equal(disk_unsynced(disk), 0);
    disk_destroy(disk);
    effects_deinit(&fx);
}

/* A file is there for certain once its ALLOC finished, and gone for certain once its removal did. */
static void test_disk_files_come_and_go(void **state)
{
    (void)state;
    unsigned half = 0;
    for (uint64_t seed = 0; seed < 64; seed++) {
        struct disk *disk = disk_create(rng_of(seed, 1));
        struct effects fx = {0};
        struct file_info *files;
        uint32_t count;
        fx_disk_alloc(&fx, 0, file_one, 4096);
        (void)begin(disk, &fx);
        disk_crash(disk, true);
        disk_list(disk, FILE_LOG, &files, &count);
        half += count == 1;
        free(files);
        alloc_file(disk, &fx, 4096);
        disk_crash(disk, true);
        disk_list(disk, FILE_LOG, &files, &count);
        assert_int_equal(count, 1);
        assert_int_equal(files[0].bytes, 4096);
        free(files);
        fx_disk_discard(&fx, 0, file_one, 0, UINT64_MAX);
        assert_int_equal(finish(disk, begin(disk, &fx), NULL), ERR_OK);
        disk_crash(disk, true);
        disk_list(disk, FILE_LOG, &files, &count);
        assert_int_equal(count, 0);
        free(files);
        disk_destroy(disk);
        effects_deinit(&fx);
    }
    assert_true(half > 8 && half < 56);
}

static void test_disk_faults_by_knob(void **state)
{
    (void)state;
    struct disk *disk = disk_create(rng_of(3, 1));
    struct effects fx = {0};
    disk_knobs(disk)->capacity_bytes = 8192;
    fx_disk_alloc(&fx, 0, file_one, 16384);
    assert_int_equal(finish(disk, begin(disk, &fx), NULL), ERR_DISK_FULL);
    alloc_file(disk, &fx, 8192);
    disk_knobs(disk)->write_fail_ppm = 1000000;
    assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 9, 4096), NULL), ERR_IO);
    disk_knobs(disk)->write_fail_ppm = 0;
    assert_int_equal(finish(disk, begin_write(disk, &fx, 0, 9, 4096), NULL), ERR_OK);
    struct file_ref rotten;
    uint64_t offset;
    assert_false(disk_rot(disk, &rotten, &offset)); /* nothing durable there yet */
    sync_file(disk, &fx);
    assert_true(disk_rot(disk, &rotten, &offset));
    struct slice data = read_file(disk, &fx, 8192);
    for (unsigned i = 0; i < 4096; i++) {
        assert_true((data.data[i] != 9) == (i == offset));
    }
    slice_drop(&data);
    disk_destroy(disk);
    effects_deinit(&fx);
}

/* ---- key-value ---- */

static void commit_number(struct sim_kv *kv, uint8_t number)
{
    struct kv_batch *batch = kv_batch_create();
    uint8_t key[2] = {'n', number};
    kv_batch_put(batch, key, 2, &number, 1);
    kv_batch_put(batch, "last", 4, &number, 1);
    sim_kv_commit(kv, batch);
}

static int kv_last(struct sim_kv *kv)
{
    struct slice value;
    enum err err = kv_get(sim_kv_view(kv), "last", 4, &value);
    if (err == ERR_NOT_FOUND) {
        return 0;
    }
    assert_int_equal(err, ERR_OK);
    int last = value.data[0];
    slice_drop(&value);
    return last;
}

/* After a crash: whole batches, at least those of the last completed flush, at most those of the last requested one. */
static void test_kv_crash_returns_to_a_state_between_flushes(void **state)
{
    (void)state;
    bool seen[16] = {0};
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct sim_kv *kv = sim_kv_create(rng_of(seed, 1));
        for (uint8_t n = 1; n <= 3; n++) {
            commit_number(kv, n);
        }
        sim_kv_flushed(kv, sim_kv_flush(kv));
        for (uint8_t n = 4; n <= 6; n++) {
            commit_number(kv, n);
        }
        (void)sim_kv_flush(kv);
        for (uint8_t n = 7; n <= 9; n++) {
            commit_number(kv, n);
        }
        assert_int_equal(kv_last(kv), 9);
        assert_int_equal(sim_kv_unflushed(kv), 6);
        sim_kv_crash(kv);
        int last = kv_last(kv);
        assert_true(last >= 3 && last <= 6);
        seen[last] = true;
        for (int n = 1; n <= 9; n++) {
            uint8_t key[2] = {'n', (uint8_t)n};
            struct slice value = {0};
            enum err err = kv_get(sim_kv_view(kv), key, 2, &value);
            assert_int_equal(err, n <= last ? ERR_OK : ERR_NOT_FOUND);
            slice_drop(&value);
        }
        sim_kv_crash(kv); /* twice is once */
        assert_int_equal(kv_last(kv), last);
        sim_kv_destroy(kv);
    }
    assert_true(seen[3] && seen[4] && seen[5] && seen[6]);
}

static void test_kv_view_orders_keys(void **state)
{
    (void)state;
    struct sim_kv *kv = sim_kv_create(rng_of(1, 1));
    struct kv_batch *batch = kv_batch_create();
    kv_batch_put(batch, "b", 1, "2", 1);
    kv_batch_put(batch, "a", 1, "1", 1);
    kv_batch_put(batch, "ab", 2, "3", 1);
    sim_kv_commit(kv, batch);
    batch = kv_batch_create();
    kv_batch_delete(batch, "b", 1);
    kv_batch_delete(batch, "zz", 2);
    sim_kv_commit(kv, batch);
    struct slice key, value;
    assert_int_equal(kv_next(sim_kv_view(kv), "", 0, false, &key, &value), ERR_OK);
    assert_memory_equal(key.data, "a", 1);
    slice_drop(&key);
    slice_drop(&value);
    assert_int_equal(kv_next(sim_kv_view(kv), "a", 1, true, &key, &value), ERR_OK);
    assert_int_equal(key.bytes, 2);
    slice_drop(&key);
    slice_drop(&value);
    assert_int_equal(kv_next(sim_kv_view(kv), "ab", 2, true, &key, &value), ERR_NOT_FOUND);
    assert_int_equal(kv_prev(sim_kv_view(kv), "ab", 2, &key, &value), ERR_OK);
    assert_int_equal(key.bytes, 1);
    slice_drop(&key);
    slice_drop(&value);
    assert_int_equal(kv_prev(sim_kv_view(kv), "a", 1, &key, &value), ERR_NOT_FOUND);
    sim_kv_destroy(kv);
}

/* Pairs of one scan from `from`, in a pinned state. */
static int scan_count(struct sim_kv *kv, uint64_t pin, const char *from, uint64_t bytes)
{
    struct slice pairs = sim_kv_scan(kv, 7, pin, slice_borrow(from, 1), slice_borrow("x", 1), bytes);
    struct reader reader = reader_of(pairs.data, pairs.bytes);
    int count = 0;
    for (; reader.left > 0; count++) {
        struct slice key, value;
        assert_int_equal(kv_pair_get(&reader, &key, &value), ERR_OK);
    }
    slice_drop(&pairs);
    return count;
}

static void test_kv_scan_reads_one_state(void **state)
{
    (void)state;
    struct sim_kv *kv = sim_kv_create(rng_of(1, 1));
    for (uint8_t n = 1; n <= 3; n++) {
        commit_number(kv, n); /* "last" and 'n' with the number */
    }
    assert_int_equal(scan_count(kv, 1, "a", 1 << 20), 4);
    commit_number(kv, 4);
    assert_int_equal(scan_count(kv, 1, "a", 1 << 20), 4);
    assert_int_equal(scan_count(kv, 1, "n", 1 << 20), 3);
    assert_int_equal(scan_count(kv, 1, "n", 1), 1);
    assert_int_equal(scan_count(kv, 2, "a", 1 << 20), 5);
    sim_kv_unpin(kv, 7, 1);
    assert_int_equal(scan_count(kv, 1, "a", 1 << 20), 5);
    sim_kv_crash(kv);
    assert_true(scan_count(kv, 1, "a", 1 << 20) < 5);
    sim_kv_destroy(kv);
}

/* ---- the world ---- */

/* Answers each MAP_GET with its stream in the header; counts what it hears. A device asks by timer. */
struct talker {
    bool asks;
    uint64_t asked, answered, refused, closed, wrong_order, last_answer;
    uint64_t target_role, target;
};

static void talker_step(void *self, const struct event *event, struct effects *fx)
{
    struct talker *t = self;
    if (event->kind == EVENT_CLOSED) {
        t->closed++;
    } else if (event->kind == EVENT_TIMER && t->asks) {
        struct address to = address_node((enum role)t->target_role, (uint32_t)t->target, ACTOR_GROUP, 0);
        t->asked++;
        struct slice body = slice_alloc(5000);
        memset(body.data, (int)t->asked, body.bytes);
        fx_send(fx, to, t->asked % 10 == 0 ? 10 /* RAFT: not for a device */ : 40 /* MAP_GET */, t->asked,
                slice_copy("ask", 3), body);
        fx_timer(fx, 1, event->now_ns + MILLISECOND);
    } else if (event->kind == EVENT_MESSAGE && event->message.flags & MESSAGE_ERROR) {
        t->refused++;
    } else if (event->kind == EVENT_MESSAGE && event->message.flags & MESSAGE_REPLY) {
        t->wrong_order += event->message.stream <= t->last_answer;
        t->last_answer = event->message.stream;
        t->answered++;
        assert_int_equal(event->message.peer.role, ROLE_METAD);
        assert_int_equal(event->message.peer.id, 1);
    } else if (event->kind == EVENT_MESSAGE) {
        assert_int_equal(event->message.peer.role, ROLE_DEVICE);
        assert_int_equal(event->message.body.bytes, 5000);
        assert_int_equal((uintptr_t)event->message.body.data % 4096, 0);
        fx_reply(fx, &event->message, slice_copy("answer", 6), (struct slice){0});
    }
}

static void talker_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    bool asks = node->role == ROLE_DEVICE;
    world_actor_add(node, asks ? ACTOR_CLIENT : ACTOR_GROUP, 0, talker_step, NULL, context, -1);
}

static uint64_t talk(uint64_t seed, uint64_t crash_at, uint32_t reset_ppm, struct talker *asker, uint64_t *ret_crashes)
{
    struct talker server = {0};
    *asker = (struct talker){.asks = true, .target_role = ROLE_METAD, .target = 1};
    struct world *world = world_create(seed, false);
    world->crash_at = crash_at;
    world->knobs.net_reset_ppm = reset_ppm;
    struct node *metad = world_node_add(world, ROLE_METAD, 1, 0, talker_boot, &server);
    struct node *device = world_node_add(world, ROLE_DEVICE, 1, 0, talker_boot, asker);
    node_start(metad);
    node_start(device);
    assert_true(world_run_until(world, 5 * SECOND));
    uint64_t hash = world->trace.hash;
    *ret_crashes = metad->crashes * 10 + device->crashes;
    world_destroy(world);
    return hash;
}

static void test_world_routes_requests_and_answers(void **state)
{
    (void)state;
    struct talker asker;
    uint64_t crashes;
    talk(1, 0, 0, &asker, &crashes);
    assert_true(asker.asked > 1000);
    assert_int_equal(crashes, 0);
    assert_true(asker.refused >= asker.asked / 10 - 3 && asker.refused <= asker.asked / 10);
    assert_true(asker.answered + asker.refused + 1000 > asker.asked);
    assert_true(asker.answered > 800);
    assert_int_equal(asker.wrong_order, 0);
    assert_int_equal(asker.closed, 0);
    talk(1, 0, 10000, &asker, &crashes);
    assert_true(asker.closed > 3);
    assert_true(asker.answered > 500 && asker.answered + asker.refused < asker.asked);
}

static void test_world_same_seed_same_trace(void **state)
{
    (void)state;
    struct talker asker;
    uint64_t crashes, hash = talk(7, 0, 5000, &asker, &crashes);
    void *junk[10];
    for (int i = 0; i < 10; i++) {
        junk[i] = malloc(1000 + i * 777);
    }
    assert_true(talk(7, 0, 5000, &asker, &crashes) == hash);
    assert_true(talk(8, 0, 5000, &asker, &crashes) != hash);
    for (int i = 0; i < 10; i++) {
        free(junk[i]);
    }
}

static void test_world_crash_point_hits_its_effect(void **state)
{
    (void)state;
    struct talker asker;
    uint64_t crashes;
    talk(7, 1, 0, &asker, &crashes); /* the first effect is the device's first ask */
    assert_int_equal(crashes, 1);
    assert_int_equal(asker.answered, 0);
    talk(7, 3, 0, &asker, &crashes);
    assert_int_equal(crashes == 1 || crashes == 10, 1);
}

/* Timers: a new deadline voids the old one, 0 puts it off; local messages are in order. */
struct clockwork {
    unsigned one, two, heard;
    uint64_t one_at, last_stream;
};

static void clockwork_step(void *self, const struct event *event, struct effects *fx)
{
    struct clockwork *c = self;
    if (event->kind == EVENT_MESSAGE) {
        assert_true(event->message.stream > c->last_stream);
        assert_int_equal(event->message.peer.role, ROLE_LOCAL);
        c->last_stream = event->message.stream;
        c->heard++;
    } else if (event->timer.id == 0) {
        fx_timer(fx, 1, event->now_ns + 10 * MILLISECOND);
        fx_timer(fx, 2, event->now_ns + 10 * MILLISECOND);
        fx_timer(fx, 1, event->now_ns + 20 * MILLISECOND);
        fx_timer(fx, 2, 0);
        for (uint64_t i = 1; i <= 100; i++) {
            fx_send(fx, address_local(ACTOR_LOG, 0), 20, i, (struct slice){0}, (struct slice){0});
        }
    } else if (event->timer.id == 1) {
        c->one++;
        c->one_at = event->now_ns;
    } else {
        c->two++;
    }
}

static void clockwork_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    world_actor_add(node, ACTOR_LOG, 0, clockwork_step, NULL, context, -1);
}

static void test_world_timers_and_local_messages(void **state)
{
    (void)state;
    struct clockwork c = {0};
    struct world *world = world_create(5, false);
    node_start(world_node_add(world, ROLE_METAD, 1, 0, clockwork_boot, &c));
    assert_true(world_run_until(world, 2 * SECOND));
    assert_int_equal(c.one, 1);
    assert_int_equal(c.two, 0);
    assert_int_equal(c.heard, 100);
    assert_true(c.one_at >= SECOND + 20 * MILLISECOND);
    world_destroy(world);
}

static void halting_step(void *self, const struct event *event, struct effects *fx)
{
    (void)self;
    (void)event;
    fx_halt(fx, ERR_CORRUPT, "tired");
}

static void halting_boot(struct world *world, struct node *node, void *context)
{
    (void)world;
    world_actor_add(node, ACTOR_LOG, 0, halting_step, NULL, context, -1);
}

static void test_world_halt_is_a_finding(void **state)
{
    (void)state;
    struct world *world = world_create(5, false);
    struct node *node = world_node_add(world, ROLE_METAD, 1, 0, halting_boot, NULL);
    node_start(node);
    assert_false(world_run_until(world, 2 * SECOND));
    assert_non_null(strstr(world->finding, "tired"));
    assert_true(node->halted && !node->up);
    world_destroy(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_reads_what_is_written),
        cmocka_unit_test(test_disk_power_draws_sectors),
        cmocka_unit_test(test_disk_sync_covers_finished_writes_only),
        cmocka_unit_test(test_disk_kill_keeps_written_unsynced),
        cmocka_unit_test(test_disk_files_come_and_go),
        cmocka_unit_test(test_disk_faults_by_knob),
        cmocka_unit_test(test_kv_crash_returns_to_a_state_between_flushes),
        cmocka_unit_test(test_kv_view_orders_keys),
        cmocka_unit_test(test_kv_scan_reads_one_state),
        cmocka_unit_test(test_world_routes_requests_and_answers),
        cmocka_unit_test(test_world_same_seed_same_trace),
        cmocka_unit_test(test_world_crash_point_hits_its_effect),
        cmocka_unit_test(test_world_timers_and_local_messages),
        cmocka_unit_test(test_world_halt_is_a_finding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
