/* The client's core against scripted peers (client_world.h): uploads, downloads, and each way they meet trouble. */
#include "client_world.h"

/* ---- tests ---- */

static void test_put_and_get(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    for (uint32_t store = 1; store <= K + M; store++) {
        assert_int_equal(shards_on(w, store, K), 3);
    }
    assert_int_equal(shards_on(w, 7, K) + shards_on(w, 8, K), 0);
    get_whole(w);
    world_end(w);
}

static void test_feed(void **state)
{
    (void)state;
    struct world *w = world_make();
    struct client_op *op = put_op(1, 0);
    op->put.source = CLIENT_SOURCE_FEED;
    run(w, op);
    assert_int_equal(op->err, ERR_OK);
    assert_int_equal(op->put.stored_bytes, FILE_BYTES);
    client_op_destroy(op);
    get_whole(w);
    world_end(w);
}

static void test_equal_chunks_are_sent_once(void **state)
{
    (void)state;
    struct world *w = world_make();
    memcpy(w->file + CHUNK_BYTES, w->file, CHUNK_BYTES);
    put_whole(w);
    assert_int_equal(w->receipts, 2 * (K + M));
    get_whole(w);
    world_end(w);
}

static void test_dead_store_is_replaced(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->dead[1] = true;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    assert_int_equal(shards_on(w, 7, K) + shards_on(w, 8, K), 3);
    get_whole(w);
    world_end(w);
}

static void test_silent_store_is_replaced(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->silent[3] = true;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    assert_true(w->now_ns < 1000000000ull + 6 * 1000000000ull); /* waited for once, not once a chunk */
    get_whole(w);
    world_end(w);
}

static void test_one_dead_without_standins(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->standins = 0;
    w->dead[2] = true;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M - 1)); /* k+1 receipts are enough */
    get_whole(w);
    world_end(w);
}

static void test_two_dead_fall_back_to_copies(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->standins = 0;
    w->dead[5] = w->dead[6] = true;
    put_whole(w);
    for (uint32_t store = 1; store <= M + 1; store++) {
        assert_int_equal(shards_on(w, store, 1), 3);
    }
    assert_int_equal(w->receipts, 3 * (M + 1));
    /* A reader takes the copies even when the shards of the first try are of no use. */
    for (unsigned i = 0; i < 256; i++) {
        if (w->shards[i].used && w->shards[i].key.k == K) {
            w->shards[i].store = 99;
        }
    }
    get_whole(w);
    world_end(w);
}

static void test_too_few_stores(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->standins = 0;
    for (uint32_t store = 2; store <= STORES; store++) {
        w->dead[store] = true;
    }
    struct client_op *op = run(w, put_op(1, FILE_BYTES));
    assert_int_equal(op->err, ERR_UNAVAILABLE);
    assert_int_equal(w->completes, 0);
    assert_true(w->now_ns > 30 * 1000000000ull);
    client_op_destroy(op);
    world_end(w);
}

static void test_get_with_two_lost(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    shards_lose(w, 1);
    w->dead[3] = true;
    get_whole(w);
    world_end(w);
}

static void test_get_with_wrong_bytes(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    w->wrong_bytes[2] = w->wrong_bytes[4] = true;
    get_whole(w);
    world_end(w);
}

static void test_get_of_what_is_lost(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    shards_lose(w, 1);
    shards_lose(w, 2);
    shards_lose(w, 3);
    struct client_op *op = client_op_create(CLIENT_GET, 2, "home");
    op->get.name_bytes = 1;
    op->get.name[0] = 'f';
    run(w, op);
    assert_int_equal(op->err, ERR_CORRUPT); /* every store has spoken */
    assert_int_equal(w->out_bytes, 0);
    client_op_destroy(op);
    world_end(w);
}

/* A map that names no stores for a pool says nothing about what is lost. */
static void test_get_before_stores_are_known(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    w->unplaced = true;
    uint32_t maps = w->maps;
    while (w->maps == maps) {
        assert_true(turn(w));
    }
    struct client_op *op = client_op_create(CLIENT_GET, 2, "home");
    op->get.name_bytes = 1;
    op->get.name[0] = 'f';
    run(w, op);
    assert_int_equal(op->err, ERR_UNAVAILABLE);
    client_op_destroy(op);
    world_end(w);
}

static void test_redirect(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->leader = 3;
    put_whole(w);
    assert_true(w->redirects > 0 && w->redirects <= 2); /* one a group: the leader is remembered */
    world_end(w);
}

/* The members may be exchanged while nothing runs: the map is fetched all the same. */
static void test_map_is_fetched_when_idle(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    uint32_t maps = w->maps;
    uint64_t idle_ns = w->now_ns;
    while (w->maps < maps + 3) {
        assert_true(turn(w));
    }
    assert_in_range(w->now_ns - idle_ns, 60000000000ull, 91000000000ull);
    world_end(w);
}

/* Nobody leads where the leader was: who came is asked for at once. */
static void test_map_is_fetched_in_doubt(void **state)
{
    (void)state;
    struct world *w = world_make();
    put_whole(w);
    uint32_t maps = w->maps;
    w->now_ns += 1000000000;
    w->leader = 2;
    struct client_op *op = run(w, put_op(2, 100));
    assert_int_equal(op->err, ERR_OK);
    client_op_destroy(op);
    assert_true(w->maps > maps);
    world_end(w);
}

/* A node that hangs is no reason to wait long for a first answer: another one knows who leads. */
static void test_mute_metad_is_left_soon(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->mute = 1;
    w->leader = 3;
    uint64_t begin_ns = w->now_ns;
    put_whole(w);
    assert_true(w->redirects > 0);
    assert_true(w->now_ns - begin_ns < 2500000000ull);
    world_end(w);
}

/* What the leader says is the reason in the end, and not that the others do not lead. */
static void test_leader_that_is_not_ready(void **state)
{
    (void)state;
    for (uint64_t seconds = 1; seconds <= 20; seconds++) {
        struct world *w = world_make();
        put_whole(w);
        w->unready = true;
        struct client_op *op = put_op(2, 100);
        op->budget_ns = seconds * 1000000000;
        run(w, op);
        assert_int_equal(op->err, ERR_NOT_READY);
        assert_non_null(strstr(op->text, "metad:1"));
        client_op_destroy(op);
        world_end(w);
    }
}

static void test_retry_has_the_same_bytes(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->small_losses = 2;
    struct client_op *op = put_op(1, 100);
    /* The others lead nothing: each lost answer sends the request round. */
    run(w, op);
    assert_int_equal(op->err, ERR_OK);
    assert_int_equal(op->put.version, 3);
    assert_int_equal(w->smalls, 3);
    assert_int_equal(w->small_keys[0], 100);
    assert_true(slice_equal(w->small_headers[0], w->small_headers[1]));
    assert_true(slice_equal(w->small_headers[0], w->small_headers[2]));
    client_op_destroy(op);
    op = run(w, put_op(2, 100));
    assert_int_equal(w->small_keys[3], 101); /* another operation, another number */
    client_op_destroy(op);
    world_end(w);
}

/* A number that lay in an old block would be TOO_OLD once others of the device have gone on. */
static void test_numbers_are_fresh(void **state)
{
    (void)state;
    struct world *w = world_make();
    client_op_destroy(run(w, put_op(1, 100)));
    assert_int_equal(w->small_keys[0], 100);
    assert_int_equal(w->keys_wanted, 1);
    assert_int_equal(w->keys_count, CLIENT_KEYS_FIRST); /* who does one thing takes few */
    w->keys_next = 500000;                              /* other processes of the device */
    w->now_ns += CLIENT_KEYS_AGE_NS + 1;
    client_op_destroy(run(w, put_op(2, 100)));
    assert_int_equal(w->small_keys[1], 500000);
    assert_int_equal(w->keys_count, 2 * CLIENT_KEYS_FIRST);
    world_end(w);
}

static void test_numbers_come_in_growing_blocks(void **state)
{
    (void)state;
    struct world *w = world_make();
    for (unsigned i = 0; i < 8; i++) {
        client_op_destroy(run(w, put_op(i + 1, 100)));
        assert_int_equal(w->small_keys[i], 100 + i);
    }
    assert_int_equal(w->keys_wanted, 2); /* with half of the first left */
    assert_int_equal(w->keys_count, 2 * CLIENT_KEYS_FIRST);
    world_end(w);
}

static void test_session_closed_begins_anew(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->sessions_closed = 1;
    put_whole(w);
    assert_int_equal(w->starts, 2);
    get_whole(w);
    world_end(w);
}

static void test_changed_file_is_not_committed(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->confirm = ERR_FILE_CHANGED;
    struct client_op *op = run(w, put_op(1, FILE_BYTES));
    assert_int_equal(op->err, ERR_FILE_CHANGED);
    assert_int_equal(w->completes, 0);
    client_op_destroy(op);
    op = run(w, put_op(2, 100));
    assert_int_equal(op->err, ERR_FILE_CHANGED);
    assert_int_equal(w->smalls, 0);
    client_op_destroy(op);
    world_end(w);
}

static void test_answer_of_another_is_ignored(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->forge = true;
    put_whole(w);
    world_end(w);
}

static void test_expired_capability_is_asked_for_again(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->puts_refused = 4;
    w->refusal = ERR_EXPIRED;
    put_whole(w);
    assert_int_equal(w->starts, 1);
    assert_true(w->asks > 3);
    assert_int_equal(w->receipts, 3 * (K + M));
    uint32_t before = w->pages;
    w->gets_refused = 3;
    get_whole(w);
    assert_true(w->pages >= before + 2);
    world_end(w);
}

static void test_store_that_is_no_owner(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->not_owner[4] = true;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    assert_int_equal(shards_on(w, 4, K), 0);
    assert_int_equal(shards_on(w, 7, K) + shards_on(w, 8, K), 3);
    assert_true(w->maps >= 2); /* the map was fetched again */
    get_whole(w);
    world_end(w);
}

/* It has not heard of the newest map yet. */
static void test_store_that_is_behind(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->puts_refused = 2;
    w->refusal = ERR_NOT_OWNER;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    assert_int_equal(shards_on(w, 7, K) + shards_on(w, 8, K), 0);
    world_end(w);
}

static void test_busy_store_is_waited_for(void **state)
{
    (void)state;
    struct world *w = world_make();
    w->puts_refused = 9;
    w->refusal = ERR_BUSY;
    put_whole(w);
    assert_int_equal(w->receipts, 3 * (K + M));
    assert_int_equal(shards_on(w, 7, K) + shards_on(w, 8, K), 0);
    world_end(w);
}

static void test_cancel(void **state)
{
    (void)state;
    struct world *w = world_make();
    struct client_op *op = put_op(1, FILE_BYTES);
    local(w, MESSAGE_CLIENT_OP, 1, client_op_encode(op), (struct slice){0});
    while (!w->shards[0].used) { /* in the midst of it */
        assert_true(turn(w));
    }
    assert_null(w->done);
    local(w, MESSAGE_CLIENT_CANCEL, 1, (struct slice){0}, (struct slice){0});
    for (int i = 0; i < 1000 && w->done == NULL; i++) {
        assert_true(turn(w));
    }
    assert_ptr_equal(w->done, op);
    assert_int_equal(op->err, ERR_CANCELLED);
    client_op_destroy(op);
    while (w->head < w->count) { /* late answers of what was under way */
        assert_true(turn(w));
    }
    put_whole(w);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_and_get),
        cmocka_unit_test(test_feed),
        cmocka_unit_test(test_equal_chunks_are_sent_once),
        cmocka_unit_test(test_dead_store_is_replaced),
        cmocka_unit_test(test_silent_store_is_replaced),
        cmocka_unit_test(test_one_dead_without_standins),
        cmocka_unit_test(test_two_dead_fall_back_to_copies),
        cmocka_unit_test(test_too_few_stores),
        cmocka_unit_test(test_get_with_two_lost),
        cmocka_unit_test(test_get_with_wrong_bytes),
        cmocka_unit_test(test_get_of_what_is_lost),
        cmocka_unit_test(test_get_before_stores_are_known),
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_map_is_fetched_when_idle),
        cmocka_unit_test(test_map_is_fetched_in_doubt),
        cmocka_unit_test(test_mute_metad_is_left_soon),
        cmocka_unit_test(test_leader_that_is_not_ready),
        cmocka_unit_test(test_retry_has_the_same_bytes),
        cmocka_unit_test(test_numbers_are_fresh),
        cmocka_unit_test(test_numbers_come_in_growing_blocks),
        cmocka_unit_test(test_session_closed_begins_anew),
        cmocka_unit_test(test_changed_file_is_not_committed),
        cmocka_unit_test(test_answer_of_another_is_ignored),
        cmocka_unit_test(test_expired_capability_is_asked_for_again),
        cmocka_unit_test(test_store_that_is_no_owner),
        cmocka_unit_test(test_store_that_is_behind),
        cmocka_unit_test(test_busy_store_is_waited_for),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
