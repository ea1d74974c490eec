/* A database that refuses writes, because its flushes are behind: the actor that writes is held with its inbox, in
 * order, and nothing else of its loop waits. The flushes are made to be behind by another database of this process: the
 * flush thread is shared, and that one's comparator blocks in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <rocksdb/c.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "base/kv.h"
#include "probe.h"

#define COMMITS     40u /* more than there are write buffers */
#define VALUE_BYTES (1u << 20)
#define VALUES      6u /* of a commit: more than a write buffer */

/* ---- what blocks the flush thread ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t foreground;
    bool closed, met; /* the gate; somebody stands before it */
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_comparator_t *comparator;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void gate_set(bool closed)
{
    pthread_mutex_lock(&gate.lock);
    gate.closed = closed;
    pthread_cond_broadcast(&gate.changed);
    pthread_mutex_unlock(&gate.lock);
}

static int gate_compare(void *state, const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    (void)state;
    pthread_mutex_lock(&gate.lock);
    while (gate.closed && !pthread_equal(pthread_self(), gate.foreground)) {
        gate.met = true;
        pthread_cond_broadcast(&gate.changed);
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    pthread_mutex_unlock(&gate.lock);
    int order = memcmp(a, b, a_bytes < b_bytes ? a_bytes : b_bytes);
    return order != 0 ? order : (a_bytes > b_bytes) - (a_bytes < b_bytes);
}

static void gate_nothing(void *state)
{
    (void)state;
}

static const char *gate_name(void *state)
{
    (void)state;
    return "gate";
}

/* Opens the other database and has its flush stand before the gate. */
static void gate_close(const char *dir)
{
    char *error = NULL;
    gate.foreground = pthread_self();
    gate.met = false;
    gate.options = rocksdb_options_create();
    gate.comparator = rocksdb_comparator_create(NULL, gate_nothing, gate_compare, gate_name);
    rocksdb_options_set_create_if_missing(gate.options, 1);
    rocksdb_options_set_comparator(gate.options, gate.comparator);
    gate.db = rocksdb_open(gate.options, dir, &error);
    assert_null(error);
    rocksdb_writeoptions_t *write = rocksdb_writeoptions_create();
    rocksdb_put(gate.db, write, "a", 1, "1", 1, &error);
    rocksdb_put(gate.db, write, "b", 1, "2", 1, &error);
    assert_null(error);
    rocksdb_writeoptions_destroy(write);
    gate_set(true);
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(flush, 0);
    rocksdb_flush(gate.db, flush, &error);
    assert_null(error);
    rocksdb_flushoptions_destroy(flush);
    pthread_mutex_lock(&gate.lock);
    while (!gate.met) {
        pthread_cond_wait(&gate.changed, &gate.lock);
    }
    pthread_mutex_unlock(&gate.lock);
}

static void gate_free(void)
{
    gate_set(false);
    rocksdb_close(gate.db);
    rocksdb_options_destroy(gate.options);
    rocksdb_comparator_destroy(gate.comparator);
}

/* ---- the scene ---- */

struct field {
    struct certs certs;
    int lock;
    struct station station;
    struct runtime_kv *kv;
    struct probe writer, other; /* of one loop */
    _Atomic uint32_t written;
    bool stopped;
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
    probe_add(&field->other, field->station.runtime, 0, ACTOR_AGENT, 0, NULL, NULL);
    snprintf(dir, sizeof dir, "%s/gate", field->certs.dir);
    gate_close(dir);
    station_start(&field->station);
    *state = field;
    return 0;
}

static void write_one(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    struct field *field = argument;
    uint32_t number = field->written++;
    struct kv_batch *batch = kv_batch_create();
    struct slice value = slice_alloc(VALUE_BYTES);
    memset(value.data, (int)number, value.bytes);
    for (uint32_t i = 0; i < VALUES; i++) {
        uint32_t key[2] = {number, i};
        kv_batch_put(batch, key, sizeof key, value.data, value.bytes);
    }
    slice_drop(&value);
    kv_batch_put(batch, "last", 4, &number, sizeof number);
    fx_kv_commit(fx, batch);
    if (number == COMMITS - 1) {
        fx_kv_flush(fx, 5);
    }
}

static void tell(struct probe *probe, void *argument, struct effects *fx)
{
    struct field *field = argument;
    (void)probe;
    fx_send(fx, address_local(ACTOR_AGENT, 0), 7, field->written, (struct slice){0}, (struct slice){0});
}

/* Commits until the database refuses; then the other actor of that loop says how many were taken. */
static void write_until_held(struct field *field)
{
    for (uint32_t i = 0; i < COMMITS; i++) {
        probe_do(&field->writer, write_one, field);
    }
    probe_do(&field->other, tell, field);
    assert_true(probe_wait(&field->other, 1)); /* the loop is not blocked */
    uint64_t written = field->other.events[0].message.stream;
    assert_in_range(written, 2, COMMITS - 1);
    assert_int_equal(field->writer.count, 0);
}

static void look(struct probe *probe, void *argument, struct effects *fx)
{
    struct field *field = argument;
    (void)probe;
    struct slice value = {0};
    uint32_t last = 0, whole = 0;
    CHECK(kv_get(runtime_kv_view(field->kv), "last", 4, &value) == ERR_OK && value.bytes == sizeof last);
    memcpy(&last, value.data, sizeof last);
    slice_drop(&value);
    for (uint32_t i = 0; i < COMMITS * VALUES; i++) {
        uint32_t key[2] = {i / VALUES, i % VALUES};
        whole += kv_get(runtime_kv_view(field->kv), key, sizeof key, &value) == ERR_OK && value.bytes == VALUE_BYTES &&
                 value.data[VALUE_BYTES - 1] == i / VALUES;
        slice_drop(&value);
    }
    fx_send(fx, address_local(ACTOR_AGENT, 0), 8, (uint64_t)last << 32 | whole, (struct slice){0}, (struct slice){0});
}

static void test_held_and_taken_in_order(void **state)
{
    struct field *field = *state;
    write_until_held(field);
    gate_free();
    assert_true(probe_wait(&field->writer, 1)); /* the flush behind all commits */
    assert_int_equal(field->writer.events[0].kind, EVENT_KV_DONE);
    assert_int_equal(field->writer.events[0].kv.token, 5);
    probe_do(&field->writer, look, field);
    assert_true(probe_wait(&field->other, 2));
    assert_int_equal(field->other.events[1].message.stream, (uint64_t)(COMMITS - 1) << 32 | COMMITS * VALUES);
}

static void test_stopped_while_held(void **state)
{
    struct field *field = *state;
    write_until_held(field);
    assert_int_equal(station_stop(&field->station), 0);
    field->stopped = true;
    gate_free();
}

static int teardown(void **state)
{
    struct field *field = *state;
    gate_set(false); /* RocksDB's threads are joined at the exit */
    if (!field->stopped) {
        station_stop(&field->station);
    }
    probe_forget(&field->writer);
    probe_forget(&field->other);
    station_close(&field->station, field->lock, field->kv);
    certs_deinit(&field->certs);
    free(field);
    return slice_live_bytes() == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_held_and_taken_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stopped_while_held, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
