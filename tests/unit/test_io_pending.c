/* What an actor committed and the database has not been given yet: its next steps, which are of the same turn here,
 * read it in every way there is, merged with what is stored; a flush holds it. Against a model, and after a new start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/kv.h"
#include "probe.h"

#define KEYS   24u
#define STEPS  40u /* of a turn */
#define ROUNDS 60u

struct field {
    struct certs certs;
    int lock;
    struct station station;
    struct runtime_kv *kv;
    struct probe probe;
    char dir[128];
    uint64_t random;
    struct kv_batch *model; /* holds no deletions */
    uint32_t steps, rounds;
};

static void open_database(struct field *field)
{
    station_open(&field->station, &field->certs, field->dir, &field->lock, &field->kv);
    probe_add(&field->probe, field->station.runtime, 0, ACTOR_STORE, 0, field->dir, field->kv);
    station_start(&field->station);
}

static void close_database(struct field *field)
{
    assert_int_equal(station_stop(&field->station), 0);
    probe_forget(&field->probe);
    station_close(&field->station, field->lock, field->kv);
    field->probe = (struct probe){0};
}

static int setup(void **state)
{
    struct field *field = calloc(1, sizeof *field);
    certs_init(&field->certs);
    certs_issue(&field->certs, "ca", "blockd:2", 0);
    snprintf(field->dir, sizeof field->dir, "%s/data", field->certs.dir);
    field->random = 7;
    field->model = kv_batch_create();
    open_database(field);
    *state = field;
    return 0;
}

static uint32_t draw(struct field *field, uint32_t below)
{
    field->random = field->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(field->random >> 33) % below;
}

/* The model without deletions, as a view would give it. */
static const struct kv_entry *model_at(const struct field *field, const char *key, bool forward)
{
    const struct kv_entry *entry =
        forward ? kv_batch_next(field->model, key, 3, false) : kv_batch_prev(field->model, key, 3);
    while (entry != NULL && entry->deleted) {
        entry = forward ? kv_entry_next(entry) : kv_batch_prev(field->model, entry->key.data, entry->key.bytes);
    }
    return entry;
}

static void same(enum err err, struct slice *key, struct slice *value, const struct kv_entry *want)
{
    CHECK(err == (want != NULL ? ERR_OK : ERR_NOT_FOUND));
    CHECK(want == NULL || (slice_equal(*key, want->key) && slice_equal(*value, want->value)));
    slice_drop(key);
    slice_drop(value);
}

static void compare(const struct field *field)
{
    struct kv_view *view = runtime_kv_view(field->kv);
    for (unsigned i = 0; i < KEYS; i++) {
        char name[8];
        snprintf(name, sizeof name, "k%02u", i);
        const struct kv_entry *want = kv_batch_find(field->model, name, 3);
        struct slice key = slice_copy(name, 3), value = {0};
        enum err err = kv_get(view, name, 3, &value);
        same(err, &key, &value, want != NULL && !want->deleted ? want : NULL);
        err = kv_next(view, name, 3, false, &key, &value);
        same(err, &key, &value, model_at(field, name, true));
        err = kv_prev(view, name, 3, &key, &value);
        same(err, &key, &value, model_at(field, name, false));
    }
}

/* Looks, writes, and sends itself the next step; the last one of a turn flushes. */
static void step(struct probe *probe, void *argument, struct effects *fx)
{
    struct field *field = argument;
    compare(field);
    struct kv_batch *batch = kv_batch_create();
    static uint8_t bytes[3000];
    for (uint32_t writes = draw(field, 4); writes > 0; writes--) {
        char name[8];
        snprintf(name, sizeof name, "k%02u", draw(field, KEYS));
        memset(bytes, (int)draw(field, 256), sizeof bytes);
        uint32_t count = draw(field, draw(field, 8) == 0 ? sizeof bytes : 50);
        if (draw(field, 3) == 0) {
            kv_batch_delete(batch, name, 3);
            kv_batch_delete(field->model, name, 3);
        } else {
            kv_batch_put(batch, name, 3, bytes, count);
            kv_batch_put(field->model, name, 3, bytes, count);
        }
    }
    fx_kv_commit(fx, batch);
    if (++field->steps % STEPS == 0) {
        fx_kv_flush(fx, ++field->rounds);
        return;
    }
    struct probe_closure next = {step, field};
    fx_send(fx, address_local(probe->kind, probe->index), PROBE_DO_TYPE, 0, slice_copy(&next, sizeof next),
            (struct slice){0});
}

static void test_read_before_written(void **state)
{
    struct field *field = *state;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        probe_do(&field->probe, step, field);
        assert_true(probe_wait(&field->probe, round));
        assert_int_equal(field->probe.events[round - 1].kv.token, round);
        compare(field); /* from another thread: all is in the database */
    }
    close_database(field);
    open_database(field);
    compare(field);
}

static int teardown(void **state)
{
    struct field *field = *state;
    close_database(field);
    kv_batch_destroy(field->model);
    certs_deinit(&field->certs);
    free(field);
    return slice_live_bytes() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read_before_written, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
