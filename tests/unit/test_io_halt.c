/* A step during which its runtime halts, as when a read in it meets damage: nothing that the step says may leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/kv.h"
#include "probe.h"

struct field {
    struct certs certs;
    int lock;
    struct station station;
    struct runtime_kv *kv;
    struct probe writer;
};

static int setup(void **state)
{
    struct field *field = calloc(1, sizeof *field);
    char dir[128];
    certs_init(&field->certs);
    certs_issue(&field->certs, "ca", "blockd:2", 0);
    snprintf(dir, sizeof dir, "%s/data", field->certs.dir);
    station_open(&field->station, &field->certs, dir, &field->lock, &field->kv);
    probe_add(&field->writer, field->station.runtime, 0, ACTOR_STORE, 0, dir, field->kv);
    station_start(&field->station);
    *state = field;
    return 0;
}

static void put(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    struct kv_batch *batch = kv_batch_create();
    kv_batch_put(batch, argument, strlen(argument), "1", 1);
    fx_kv_commit(fx, batch);
    fx_kv_flush(fx, 1);
}

static void halt_and_put(struct probe *probe, void *argument, struct effects *fx)
{
    runtime_halt(probe->runtime, ERR_CORRUPT, "a read of this step met damage");
    put(probe, argument, fx);
}

static bool holds(const struct field *field, const char *key)
{
    struct slice value = {0};
    enum err err = kv_get(runtime_kv_view(field->kv), key, strlen(key), &value);
    slice_drop(&value);
    return err == ERR_OK;
}

static void test_nothing_leaves(void **state)
{
    struct field *field = *state;
    probe_do(&field->writer, put, "before");
    assert_true(probe_wait(&field->writer, 1));
    probe_do(&field->writer, halt_and_put, "after");
    pthread_join(field->station.thread, NULL);
    assert_int_not_equal(field->station.exit_code, 0);
    assert_true(holds(field, "before"));
    assert_false(holds(field, "after"));
}

static int teardown(void **state)
{
    struct field *field = *state;
    probe_forget(&field->writer);
    station_close(&field->station, field->lock, field->kv);
    certs_deinit(&field->certs);
    free(field);
    return slice_live_bytes() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_nothing_leaves, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
