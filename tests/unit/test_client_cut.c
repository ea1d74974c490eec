/* Uploads that are cut by content, against the scripted peers of client_world.h: where chunks and pages end, what an
 * edit sends, how a small window and many uploads get on, and how an upload begins anew. */
#define FILE_BYTES (1200000u)
#include "client_world.h"

#include "base/cut.h"

static const struct cut_params params = {.min_bytes = 256, .avg_bytes = 1024, .max_bytes = 4096};

static struct world *cutting_world(void)
{
    struct world *w = world_make();
    w->cut = params;
    w->knows = true;
    return w;
}

static struct client_op *put_file(struct world *w, uint64_t id, enum client_source source, uint32_t bytes)
{
    struct client_op *op = put_op(id, bytes);
    op->put.source = source;
    w->file_bytes = bytes;
    run(w, op);
    assert_int_equal(op->err, ERR_OK);
    assert_int_equal(w->complete_bytes, bytes);
    return op;
}

/* The staged entries are those of the cutter over the whole file. */
static void check_entries(const struct world *w, uint32_t bytes)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < w->entry_count; i++) {
        uint32_t length = cut_next(&params, w->file + at, bytes - at, true);
        struct sha256 sha = sha256(w->file + at, length);
        assert_int_equal(w->entries[i].plain_bytes, length);
        assert_memory_equal(w->entries[i].sha.bytes, sha.bytes, sizeof sha);
        at += length;
    }
    assert_int_equal(at, bytes);
}

static void test_cut_by_content(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    struct client_op *op = put_file(w, 1, CLIENT_SOURCE_FILE, FILE_BYTES);
    assert_true(w->entry_count > 600 && w->entry_count < ENTRIES);
    assert_int_equal(op->counts.chunks, w->entry_count);
    check_entries(w, FILE_BYTES);
    uint32_t at = 0;
    for (uint32_t i = 0, run = 1, pages = 0; i < w->entry_count; i++, run++, at++) {
        bool border = w->entries[i].sha.bytes[31] == 0 || run == LIMIT_PAGE_ENTRIES || i + 1 == w->entry_count;
        pages += border;
        run = border ? 0 : run;
        assert_true(i + 1 < w->entry_count || pages == w->page_count);
    }
    client_op_destroy(op);
    get_whole(w);
    world_end(w);
}

/* Lengths around pieces and cuts; a stream has the chunks of a file. */
static void test_streams_and_edges(void **state)
{
    (void)state;
    const uint32_t lengths[] = {4097, 8191, 8192, 8193, 4096 * 25, 4096 * 25 + 1, 100001, FILE_BYTES};
    struct world *w = cutting_world();
    uint64_t id = 1;
    for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        client_op_destroy(put_file(w, id++, CLIENT_SOURCE_FILE, lengths[i]));
        check_entries(w, lengths[i]);
        struct client_op *op = put_file(w, id++, CLIENT_SOURCE_FEED, lengths[i]);
        check_entries(w, lengths[i]);
        assert_int_equal(op->counts.shards_sent, 0);
        assert_int_equal(op->counts.chunks_present, op->counts.chunks);
        client_op_destroy(op);
    }
    world_end(w);
}

static uint32_t pages_in_common(const struct sha256 *before, uint32_t count, const struct world *w)
{
    uint32_t common = 0;
    for (uint32_t i = 0; i < w->page_count; i++) {
        bool found = false;
        for (uint32_t n = 0; n < count; n++) {
            found = found || memcmp(&before[n], &w->page_hashes[i], sizeof before[n]) == 0;
        }
        common += found;
    }
    return common;
}

static void test_edits_send_little(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    const uint32_t bytes = FILE_BYTES - 1;
    client_op_destroy(put_file(w, 1, CLIENT_SOURCE_FILE, bytes));
    for (unsigned edit = 0; edit < 2; edit++) {
        struct sha256 pages[64];
        uint32_t count = w->page_count;
        assert_true(count >= 3 && count <= 64);
        memcpy(pages, w->page_hashes, count * sizeof pages[0]);
        if (edit == 0) {
            memmove(w->file + 1, w->file, bytes);
        } else {
            w->file[bytes / 2] ^= 1;
        }
        struct client_op *op = put_file(w, 2 + edit, CLIENT_SOURCE_FILE, bytes + 1);
        check_entries(w, bytes + 1);
        assert_true(op->counts.chunks - op->counts.chunks_present <= 3);
        assert_true(op->counts.bytes_sent > 0 && op->counts.bytes_sent <= 3 * 3 * (params.max_bytes + 4096u));
        assert_true(pages_in_common(pages, count, w) + 1 >= w->page_count);
        client_op_destroy(op);
    }
    get_whole(w);
    world_end(w);
}

/* Parameters too small to cut by: pieces of one length. */
static void test_small_chunks_are_fixed(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    w->cut = (struct cut_params){.min_bytes = 63, .avg_bytes = 255, .max_bytes = 1020};
    client_op_destroy(put_file(w, 1, CLIENT_SOURCE_FILE, 102000));
    assert_int_equal(w->entry_count, 100);
    world_end(w);
}

/* More chunks in a piece than one job may cut. */
static void test_many_chunks_a_piece(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    w->cut = (struct cut_params){.min_bytes = 64, .avg_bytes = 1024, .max_bytes = 256u << 10};
    client_op_destroy(put_file(w, 1, CLIENT_SOURCE_FILE, FILE_BYTES));
    assert_true(w->entry_count > 600);
    get_whole(w);
    world_end(w);
}

/* Tails fill the window between many uploads at once; each must get its next piece all the same. */
static void test_tails_do_not_starve(void **state)
{
    (void)state;
    const unsigned uploads = 24;
    struct world *w = cutting_world();
    client_destroy(w->client);
    struct client_params small = {.metads = {1, 2, 3}, .metad_count = 3};
    small.window_bytes = 12ull << 20;
    w->client = client_create(&small);
    w->cut = (struct cut_params){.min_bytes = 128u << 10, .avg_bytes = 256u << 10, .max_bytes = 512u << 10};
    w->one_session = true;
    struct client_op *ops[32];
    for (unsigned i = 0; i < uploads; i++) {
        ops[i] = put_op(1 + i, FILE_BYTES);
        local(w, MESSAGE_CLIENT_OP, ops[i]->id, client_op_encode(ops[i]), (struct slice){0});
    }
    unsigned done = 0;
    for (int i = 0; i < 200000 && done < uploads; i++) {
        assert_true(turn(w));
        if (w->done != NULL) {
            assert_int_equal(w->done->err, ERR_OK);
            client_op_destroy(w->done);
            w->done = NULL;
            done++;
        }
    }
    assert_int_equal(done, uploads);
    world_end(w);
}

static void test_no_window_at_all(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    client_destroy(w->client);
    struct client_params small = {.metads = {1, 2, 3}, .metad_count = 3};
    small.window_bytes = 1;
    w->client = client_create(&small);
    client_op_destroy(put_file(w, 1, CLIENT_SOURCE_FILE, FILE_BYTES));
    check_entries(w, FILE_BYTES);
    get_whole(w);
    world_end(w);
}

/* ---- beginning anew ---- */

static void test_unresolved_begins_anew_with_a_new_map(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    w->unresolved = 5;
    uint64_t begin = w->now_ns;
    client_op_destroy(put_file(w, 1, CLIENT_SOURCE_FILE, 50000));
    assert_int_equal(w->starts, 6);
    assert_true(w->maps >= w->starts); /* one before the first, and one more before each other */
    assert_true(w->now_ns - begin > 1000000000);
    check_entries(w, 50000);
    world_end(w);
}

static void test_unresolved_for_good_is_unavailable(void **state)
{
    (void)state;
    struct world *w = cutting_world();
    w->unresolved = UINT32_MAX;
    struct client_op *op = put_op(1, 50000);
    op->budget_ns = 20000000000ull;
    uint64_t begin = w->now_ns;
    run(w, op);
    assert_int_equal(op->err, ERR_UNAVAILABLE);
    assert_string_equal(op->text, "chunks of the upload are no longer held");
    assert_true(w->now_ns - begin >= op->budget_ns && w->now_ns - begin < op->budget_ns + 20000000000ull);
    assert_true(w->starts > 5 && w->starts < 40);
    assert_int_equal(w->completes, 0);
    client_op_destroy(op);
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut_by_content),
        cmocka_unit_test(test_streams_and_edges),
        cmocka_unit_test(test_edits_send_little),
        cmocka_unit_test(test_small_chunks_are_fixed),
        cmocka_unit_test(test_many_chunks_a_piece),
        cmocka_unit_test(test_tails_do_not_starve),
        cmocka_unit_test(test_no_window_at_all),
        cmocka_unit_test(test_unresolved_begins_anew_with_a_new_map),
        cmocka_unit_test(test_unresolved_for_good_is_unavailable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
