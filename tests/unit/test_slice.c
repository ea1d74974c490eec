/* Slices: alignment, padding, references, and that what is dropped is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/slice.h"

static void empty_slices_own_nothing(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice slice = slice_alloc(0);
    assert_true(slice.buf == NULL && slice.bytes == 0);
    struct slice again = slice_ref(slice);
    slice_drop(&slice);
    slice_drop(&again);
    slice_drop(&again);
    slice = slice_copy(NULL, 0);
    assert_int_equal(slice.bytes, 0);
    assert_true(slice_equal(slice, again));
    assert_true(slice_live_bytes() == live);
}

static void big_buffers_are_aligned_and_padded(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const size_t sizes[] = {1, 63, 64, 65, 4095, 4096, 4097, 65536, 100000, 1 << 20};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct slice slice = slice_alloc(sizes[i]);
        size_t capacity = slice_capacity(slice);
        assert_int_equal(slice.bytes, sizes[i]);
        assert_true(capacity >= sizes[i]);
        if (sizes[i] >= 4096) {
            assert_int_equal((uintptr_t)slice.data % 4096, 0);
            assert_int_equal(capacity % 4096, 0);
        }
        memset(slice.data, 0xab, sizes[i]);
        for (size_t at = sizes[i]; at < capacity; at++) {
            assert_int_equal(slice.data[at], 0);
        }
        assert_true(slice_live_bytes() == live + capacity);
        slice_drop(&slice);
        assert_true(slice.buf == NULL && slice.data == NULL && slice.bytes == 0);
        assert_true(slice_live_bytes() == live);
    }
}

static void the_last_reference_frees(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice slice = slice_copy("0123456789", 10);
    struct slice part = slice_sub(slice, 3, 4);
    struct slice none = slice_sub(slice, 10, 0);
    struct slice second = slice_ref(part);
    slice_drop(&slice);
    slice_drop(&part);
    assert_true(slice_live_bytes() > live);
    assert_int_equal(second.bytes, 4);
    assert_memory_equal(second.data, "3456", 4);
    assert_int_equal(slice_capacity(second), 64 - 3);
    assert_int_equal(none.bytes, 0);
    slice_drop(&none);
    slice_drop(&second);
    assert_true(slice_live_bytes() == live);
}

static void borrowed_bytes_stay_the_owner_s(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    const char text[] = "borrowed";
    struct slice slice = slice_borrow(text, 8);
    struct slice part = slice_sub(slice, 2, 3);
    assert_ptr_equal(part.data, text + 2);
    assert_int_equal(slice_capacity(part), 3);
    slice_drop(&slice);
    slice_drop(&part);
    assert_true(slice_live_bytes() == live);
}

static void equality_is_of_bytes(void **state)
{
    (void)state;
    struct slice a = slice_copy("same", 4);
    struct slice b = slice_borrow("same", 4);
    assert_true(slice_equal(a, b));
    assert_false(slice_equal(a, slice_borrow("some", 4)));
    assert_false(slice_equal(a, slice_borrow("sam", 3)));
    slice_drop(&a);
}

/* Buffers come back from the pool with their own length and clean padding, whatever they held, and the pool never grows
 * past its bound (more bytes pass through it here than it may keep). */
static void reused_buffers_are_as_good_as_new(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice held[40];
    uint64_t random = 1;
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 40; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            size_t bytes = (round % 2 ? 60000 : 4096) + (size_t)(random >> 33) % (round % 2 ? 5000000 : 150000);
            held[i] = slice_alloc(bytes);
            size_t capacity = slice_capacity(held[i]);
            assert_int_equal(held[i].bytes, bytes);
            assert_int_equal((uintptr_t)held[i].data % 4096, 0);
            assert_true(capacity % 4096 == 0 && capacity >= bytes && capacity < bytes + 4096);
            for (size_t at = bytes; at < capacity; at++) {
                assert_int_equal(held[i].data[at], 0);
            }
            held[i].data[0] = (uint8_t)i;
            memset(held[i].data + bytes - 100, (int)i, capacity - bytes + 100);
        }
        for (unsigned i = 0; i < 40; i++) { /* no two share memory */
            assert_int_equal(held[i].data[0], i);
            assert_int_equal(held[i].data[held[i].bytes - 1], i);
            slice_drop(&held[i]);
        }
    }
    assert_true(slice_live_bytes() == live);
}

/* A transfer's buffers differ a little in size each time. One that the pool has and is somewhat larger is taken, or the
 * pool would fill with sizes that nobody asks for again while fresh memory is faulted in. */
static void a_somewhat_larger_buffer_is_taken(void **state)
{
    (void)state;
#ifndef __SANITIZE_ADDRESS__
    struct slice first = slice_alloc(1300000);
    uint8_t *data = first.data;
    slice_drop(&first);
    struct slice smaller = slice_alloc(1100000), again;
    assert_ptr_equal(smaller.data, data);
    slice_drop(&smaller);
    again = slice_alloc(1300000); /* it is still as large as it was */
    assert_ptr_equal(again.data, data);
    slice_drop(&again);
    struct slice small = slice_alloc(70000); /* not one that is far too large */
    assert_ptr_not_equal(small.data, data);
    slice_drop(&small);
#endif
}

static void *take_and_drop(void *argument)
{
    struct slice slice = *(struct slice *)argument;
    for (unsigned i = 0; i < 20000; i++) {
        struct slice mine = slice_sub(slice, i % 100, 10);
        slice_drop(&mine);
        mine = slice_alloc(70000 + i % 7 * 10000);
        mine.data[i % 70000] = 1;
        slice_drop(&mine);
    }
    return NULL;
}

static void references_count_across_threads(void **state)
{
    (void)state;
    uint64_t live = slice_live_bytes();
    struct slice slice = slice_alloc(8192);
    pthread_t threads[3];
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_drop, &slice), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(slice_live_bytes() == live + 8192);
    slice_drop(&slice);
    assert_true(slice_live_bytes() == live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reused_buffers_are_as_good_as_new),  cmocka_unit_test(empty_slices_own_nothing),
        cmocka_unit_test(big_buffers_are_aligned_and_padded), cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(borrowed_bytes_stay_the_owner_s),    cmocka_unit_test(equality_is_of_bytes),
        cmocka_unit_test(references_count_across_threads),    cmocka_unit_test(a_somewhat_larger_buffer_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
