/* Batch and overlay against a naive model: a table of all keys, scanned from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/kv.h"
#include "base/slice.h"

#define KEYS 60

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 20) % bound);
}

/* Key n of the universe, in key order; lengths differ, and some keys are prefixes of others. Returns its length. */
static size_t key_make(unsigned n, uint8_t ret[8])
{
    memset(ret, 0, 8);
    ret[0] = (uint8_t)(n / 4 * 17); /* over 0x7f too: bytes compare unsigned */
    ret[1] = (uint8_t)(n % 4);
    return n == 0 ? 0 : 1 + (n % 4 != 0) + (n % 4 == 3);
}

/* A plain array of values (0 = absent) with the view's interface. */
struct model {
    struct kv_view view;
    uint32_t values[KEYS];
    enum err fail; /* answers this instead, when set */
};

static int model_compare(const uint8_t *a, size_t a_bytes, const void *b, size_t b_bytes)
{
    size_t common = a_bytes < b_bytes ? a_bytes : b_bytes;
    int order = common > 0 ? memcmp(a, b, common) : 0;
    return order ? order : (int)a_bytes - (int)b_bytes;
}

static enum err model_answer(const struct model *model, int n, struct slice *ret_key, struct slice *ret_value)
{
    if (n < 0 || n >= KEYS) {
        return ERR_NOT_FOUND;
    }
    uint8_t key[8];
    size_t bytes = key_make((unsigned)n, key);
    *ret_key = slice_copy(key, bytes);
    *ret_value = slice_copy(&model->values[n], 4);
    return ERR_OK;
}

static enum err model_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    const struct model *model = (const struct model *)view;
    uint8_t own[8];
    for (unsigned n = 0; n < KEYS && !model->fail; n++) {
        if (model->values[n] && model_compare(own, key_make(n, own), key, key_bytes) == 0) {
            *ret_value = slice_copy(&model->values[n], 4);
            return ERR_OK;
        }
    }
    return model->fail ? model->fail : ERR_NOT_FOUND;
}

static enum err model_next(struct kv_view *view, const void *from, size_t from_bytes, bool after, struct slice *ret_key,
                           struct slice *ret_value)
{
    const struct model *model = (const struct model *)view;
    uint8_t own[8];
    for (int n = 0; n < KEYS && !model->fail; n++) {
        size_t bytes = key_make((unsigned)n, own);
        int order = model_compare(own, bytes, from, from_bytes);
        if (model->values[n] && (after ? order > 0 : order >= 0)) {
            return model_answer(model, n, ret_key, ret_value);
        }
    }
    return model->fail ? model->fail : ERR_NOT_FOUND;
}

static enum err model_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                           struct slice *ret_value)
{
    const struct model *model = (const struct model *)view;
    uint8_t own[8];
    for (int n = KEYS - 1; n >= 0 && !model->fail; n--) {
        size_t bytes = key_make((unsigned)n, own);
        if (model->values[n] && model_compare(own, bytes, before, before_bytes) < 0) {
            return model_answer(model, n, ret_key, ret_value);
        }
    }
    return model->fail ? model->fail : ERR_NOT_FOUND;
}

static const struct kv_view_ops model_ops = {.get = model_get, .next = model_next, .prev = model_prev};

static void expect_same(enum err got, struct slice *key, struct slice *value, enum err wanted, struct slice *wanted_key,
                        struct slice *wanted_value)
{
    assert_int_equal(got, wanted);
    assert_true(slice_equal(*key, *wanted_key));
    assert_true(slice_equal(*value, *wanted_value));
    slice_drop(key);
    slice_drop(value);
    slice_drop(wanted_key);
    slice_drop(wanted_value);
}

/* Asks both views the same question about key n (which may be absent), in all ways there are. */
static void compare_views(struct kv_view *view, struct kv_view *truth, unsigned n)
{
    uint8_t key[8];
    size_t bytes = key_make(n, key);
    struct slice a[2] = {0};
    struct slice b[2] = {0};
    enum err got = kv_get(view, key, bytes, &a[1]);
    enum err wanted = kv_get(truth, key, bytes, &b[1]);
    expect_same(got, &a[0], &a[1], wanted, &b[0], &b[1]);
    for (int after = 0; after < 2; after++) {
        got = kv_next(view, key, bytes, after, &a[0], &a[1]);
        wanted = kv_next(truth, key, bytes, after, &b[0], &b[1]);
        expect_same(got, &a[0], &a[1], wanted, &b[0], &b[1]);
    }
    got = kv_prev(view, key, bytes, &a[0], &a[1]);
    wanted = kv_prev(truth, key, bytes, &b[0], &b[1]);
    expect_same(got, &a[0], &a[1], wanted, &b[0], &b[1]);
}

static void overlay_equals_model(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    for (unsigned round = 0; round < 200; round++) {
        struct model under = {.view = {.ops = &model_ops}};
        struct model truth = {.view = {.ops = &model_ops}};
        for (unsigned n = 0; n < KEYS; n++) {
            truth.values[n] = under.values[n] = random_below(2) ? 1 + random_below(1000) : 0;
        }
        struct kv_batch *batch = kv_batch_create();
        struct kv_overlay overlay;
        kv_overlay_init(&overlay, batch, &under.view);
        /* some rounds delete nearly everything, some nearly nothing */
        uint32_t deletes = round % 10;
        for (unsigned op = 0; op < 120; op++) {
            unsigned n = random_below(KEYS);
            uint8_t key[8];
            size_t bytes = key_make(n, key);
            if (random_below(10) < deletes) {
                kv_batch_delete(batch, key, bytes);
                truth.values[n] = 0;
            } else {
                truth.values[n] = 1 + random_below(1000);
                kv_batch_put(batch, key, bytes, &truth.values[n], 4);
            }
            compare_views(&overlay.view, &truth.view, random_below(KEYS));
        }
        for (unsigned n = 0; n < KEYS; n++) {
            compare_views(&overlay.view, &truth.view, n);
        }
        kv_batch_destroy(batch);
    }
    assert_true(slice_live_bytes() == live);
}

static void overlay_passes_errors_on(void **state)
{
    (void)state;
    struct model under = {.view = {.ops = &model_ops}, .fail = ERR_WOULD_BLOCK};
    struct kv_batch *batch = kv_batch_create();
    struct kv_overlay overlay;
    struct slice key = {0};
    struct slice value = {0};
    kv_overlay_init(&overlay, batch, &under.view);
    kv_batch_put(batch, "a", 1, "v", 1);
    assert_int_equal(kv_get(&overlay.view, "b", 1, &value), ERR_WOULD_BLOCK);
    assert_int_equal(kv_next(&overlay.view, "", 0, false, &key, &value), ERR_WOULD_BLOCK);
    assert_int_equal(kv_prev(&overlay.view, "b", 1, &key, &value), ERR_WOULD_BLOCK);
    assert_true(key.bytes == 0 && value.bytes == 0);
    /* what the batch holds needs no view */
    assert_int_equal(kv_get(&overlay.view, "a", 1, &value), ERR_OK);
    slice_drop(&value);
    kv_batch_destroy(batch);
}

static void overlays_stack(void **state)
{
    (void)state;
    struct model under = {.view = {.ops = &model_ops}};
    struct kv_batch *lower = kv_batch_create();
    struct kv_batch *upper = kv_batch_create();
    struct kv_overlay below;
    struct kv_overlay above;
    struct slice key = {0};
    struct slice value = {0};
    kv_overlay_init(&below, lower, &under.view);
    kv_overlay_init(&above, upper, &below.view);
    kv_batch_put(lower, "a", 1, "1", 1);
    kv_batch_put(lower, "b", 1, "2", 1);
    kv_batch_delete(upper, "a", 1);
    assert_int_equal(kv_next(&above.view, "", 0, false, &key, &value), ERR_OK);
    assert_true(key.bytes == 1 && key.data[0] == 'b' && value.data[0] == '2');
    slice_drop(&key);
    slice_drop(&value);
    assert_int_equal(kv_get(&above.view, "a", 1, &value), ERR_NOT_FOUND);
    kv_batch_destroy(upper);
    kv_batch_destroy(lower);
}

static void batch_is_ordered_and_last_wins(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct kv_batch *batch = kv_batch_create();
    assert_null(kv_batch_next(batch, "", 0, false));
    assert_null(kv_batch_prev(batch, "\xff", 1));
    const unsigned count = 5000;
    for (unsigned i = 0; i < count; i++) {
        uint8_t key[4];
        put_be32(key, i * 2654435761u);
        kv_batch_put(batch, key, 4, &i, 4);
    }
    assert_int_equal(kv_batch_count(batch), count);
    const struct kv_entry *entry = kv_batch_next(batch, "", 0, false);
    const struct kv_entry *before = NULL;
    unsigned seen = 0;
    for (; entry != NULL; entry = kv_batch_next(batch, entry->key.data, entry->key.bytes, true)) {
        assert_true(before == NULL || memcmp(before->key.data, entry->key.data, 4) < 0);
        assert_ptr_equal(kv_batch_prev(batch, entry->key.data, entry->key.bytes), before);
        assert_ptr_equal(kv_batch_find(batch, entry->key.data, 4), entry);
        assert_ptr_equal(kv_batch_next(batch, entry->key.data, 4, false), entry);
        before = entry;
        seen++;
    }
    assert_int_equal(seen, count);
    kv_batch_put(batch, "k", 1, "old", 3);
    kv_batch_delete(batch, "k", 1);
    assert_true(kv_batch_find(batch, "k", 1)->deleted);
    assert_int_equal(kv_batch_find(batch, "k", 1)->value.bytes, 0);
    kv_batch_put(batch, "k", 1, "newer", 5);
    /* a value may be put back from the entry it stands in */
    entry = kv_batch_find(batch, "k", 1);
    kv_batch_put(batch, "k", 1, entry->value.data + 1, 3);
    entry = kv_batch_find(batch, "k", 1);
    assert_false(entry->deleted);
    assert_int_equal(entry->value.bytes, 3);
    assert_memory_equal(entry->value.data, "ewe", 3);
    assert_int_equal(kv_batch_count(batch), count + 1);
    kv_batch_destroy(batch);
    kv_batch_destroy(NULL);
    assert_true(slice_live_bytes() == live);
}

/* A batch that took another one in equals one that was given both's writes in order; sizes on both sides of what a node
 * holds itself. */
static void batch_takes_another_in(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes(), random = 1;
    static uint8_t value[2000];
    for (unsigned round = 0; round < 300; round++) {
        struct kv_batch *batches[3] = {kv_batch_create(), kv_batch_create(), kv_batch_create()};
        for (unsigned i = 0; i < 80; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint8_t key = (random >> 40) % 48;
            size_t bytes = (random >> 48) % (round % 3 == 0 ? 2000 : 40);
            struct kv_batch *both[] = {batches[i < 40 ? 0 : 1], batches[2]};
            memset(value, (int)i, sizeof value);
            for (unsigned k = 0; k < 2; k++) {
                if (random >> 60 < 4) {
                    kv_batch_delete(both[k], &key, 1);
                } else {
                    kv_batch_put(both[k], &key, 1, value, bytes);
                }
            }
        }
        kv_batch_merge(batches[0], batches[1]);
        assert_int_equal(kv_batch_count(batches[0]), kv_batch_count(batches[2]));
        assert_int_equal(kv_batch_bytes(batches[0]), kv_batch_bytes(batches[2]));
        uint64_t bytes = 0;
        const struct kv_entry *a = kv_batch_next(batches[0], "", 0, false);
        const struct kv_entry *b = kv_batch_next(batches[2], "", 0, false);
        for (; a != NULL && b != NULL; a = kv_entry_next(a), b = kv_entry_next(b)) {
            assert_true(slice_equal(a->key, b->key) && slice_equal(a->value, b->value) && a->deleted == b->deleted);
            assert_ptr_equal(kv_batch_find(batches[0], a->key.data, a->key.bytes), a);
            bytes += (uint64_t)a->key.bytes + a->value.bytes;
        }
        assert_true(a == NULL && b == NULL);
        assert_int_equal(bytes, kv_batch_bytes(batches[0]));
        kv_batch_destroy(batches[0]);
        kv_batch_destroy(batches[2]);
    }
    assert_true(slice_live_bytes() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlay_equals_model),   cmocka_unit_test(overlay_passes_errors_on),
        cmocka_unit_test(overlays_stack),         cmocka_unit_test(batch_is_ordered_and_last_wins),
        cmocka_unit_test(batch_takes_another_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
