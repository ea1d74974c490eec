/* Files, the database, timers, compute jobs, files of people, directories and HALT on the real system, through one
 * actor. With CAIRN_NO_URING the disks run on helpers: the tests run both ways. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/hash.h"
#include "probe.h"

#define FILE_BYTES (1u << 20)

struct field {
    struct certs certs;
    char dir[128];
    int lock;
    struct station station;
    struct runtime_kv *kv;
    struct probe probe;
};

static void field_open(struct field *field)
{
    station_open(&field->station, &field->certs, field->dir, &field->lock, &field->kv);
    probe_add(&field->probe, field->station.runtime, 0, ACTOR_STORE, 0, field->dir, field->kv);
    station_start(&field->station);
}

static void field_close(struct field *field, int exit_code)
{
    assert_int_equal(station_stop(&field->station), exit_code);
    probe_forget(&field->probe);
    station_close(&field->station, field->lock, field->kv);
    assert_int_equal(slice_live_bytes(), 0);
}

static int setup(void **state)
{
    struct field *field = calloc(1, sizeof *field);
    certs_init(&field->certs);
    certs_issue(&field->certs, "ca", "blockd:2", 0);
    snprintf(field->dir, sizeof field->dir, "%s/data", field->certs.dir);
    field_open(field);
    *state = field;
    return 0;
}

static int setup_no_ring(void **state)
{
    setenv("CAIRN_NO_URING", "1", 1);
    int rc = setup(state);
    struct field *field = *state;
    runtime_post(field->station.runtime, address_local(ACTOR_AGENT, 0), 1, 0, (struct slice){0}, (struct slice){0});
    return rc;
}

static int teardown(void **state)
{
    struct field *field = *state;
    field_close(field, 0);
    certs_deinit(&field->certs);
    free(field);
    unsetenv("CAIRN_NO_URING");
    return 0;
}

/* ---- disk ---- */

struct disk_call {
    enum effect_kind kind;
    struct file_ref file;
    uint64_t token, offset, bytes;
    uint8_t fill;
};

static void disk_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    const struct disk_call *call = argument;
    if (call->kind == EFFECT_DISK_WRITE) {
        struct slice data = slice_alloc(call->bytes);
        memset(data.data, call->fill, data.bytes);
        fx_disk_write(fx, call->token, call->file, call->offset, data);
    } else if (call->kind == EFFECT_DISK_READ) {
        fx_disk_read(fx, call->token, call->file, call->offset, call->bytes);
    } else if (call->kind == EFFECT_DISK_SYNC) {
        fx_disk_sync(fx, call->token, call->file);
    } else if (call->kind == EFFECT_DISK_ALLOC) {
        fx_disk_alloc(fx, call->token, call->file, call->bytes);
    } else {
        fx_disk_discard(fx, call->token, call->file, call->offset, call->bytes);
    }
}

/* Runs one call and returns its completion, the only event the probe then has. */
static const struct event *disk_call(struct field *field, struct disk_call call)
{
    static uint64_t token;
    probe_forget(&field->probe);
    call.token = ++token;
    probe_do(&field->probe, disk_run, &call);
    assert_true(probe_wait(&field->probe, 1));
    const struct event *event = &field->probe.events[0];
    assert_int_equal(event->kind, EVENT_DISK_DONE);
    assert_true(event->disk.token == token);
    return event;
}

static void expect_filled(struct slice data, uint32_t from, uint32_t bytes, uint8_t fill)
{
    assert_true(from + bytes <= data.bytes);
    for (uint32_t i = 0; i < bytes; i++) {
        assert_int_equal(data.data[from + i], fill);
    }
}

static void test_disk(void **state)
{
    struct field *field = *state;
    struct file_ref file = {FILE_SEGMENT, 0x2a};
    struct stat info;
    char path[256];
    const struct event *done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .bytes = 4096});
    assert_int_equal(done->disk.err, ERR_NOT_FOUND);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_ALLOC, file, .bytes = FILE_BYTES});
    assert_int_equal(done->disk.err, ERR_OK);
    snprintf(path, sizeof path, "%s/segments/0000002a.seg", field->dir);
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_size, FILE_BYTES);
    assert_int_equal(info.st_mode & 0777, 0600);

    done = disk_call(field, (struct disk_call){EFFECT_DISK_WRITE, file, .offset = 8192, .bytes = 5000, .fill = 7});
    assert_int_equal(done->disk.err, ERR_OK);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_SYNC, file, .bytes = 0});
    assert_int_equal(done->disk.err, ERR_OK);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .offset = 4096, .bytes = 16384});
    assert_int_equal(done->disk.err, ERR_OK);
    assert_int_equal(done->disk.data.bytes, 16384);
    expect_filled(done->disk.data, 0, 4096, 0);
    expect_filled(done->disk.data, 4096, 5000, 7);
    expect_filled(done->disk.data, 9096, 16384 - 9096, 0); /* padding of the write, then untouched room */

    done = disk_call(field, (struct disk_call){EFFECT_DISK_DISCARD, file, .offset = 8192, .bytes = 4096});
    assert_int_equal(done->disk.err, ERR_OK);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .offset = 8192, .bytes = 8192});
    expect_filled(done->disk.data, 0, 4096, 0);
    expect_filled(done->disk.data, 4096, 904, 7);

    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .offset = FILE_BYTES - 4096, .bytes = 16384});
    assert_int_equal(done->disk.err, ERR_OK);
    assert_int_equal(done->disk.data.bytes, 4096); /* short at the end of the file */
    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .offset = FILE_BYTES, .bytes = 4096});
    assert_int_equal(done->disk.err, ERR_OK);
    assert_int_equal(done->disk.data.bytes, 0);

    struct file_info *files = NULL;
    uint32_t count = 0;
    assert_int_equal(runtime_directory_list(field->dir, FILE_SEGMENT, &files, &count), ERR_OK);
    assert_int_equal(count, 1);
    assert_int_equal(files[0].file.number, 0x2a);
    assert_int_equal(files[0].bytes, FILE_BYTES);
    free(files);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_DISCARD, file, .bytes = UINT64_MAX});
    assert_int_equal(done->disk.err, ERR_OK);
    assert_int_equal(stat(path, &info), -1);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .bytes = 4096});
    assert_int_equal(done->disk.err, ERR_NOT_FOUND);

    done = disk_call(field, (struct disk_call){EFFECT_DISK_ALLOC, file, .bytes = 1ull << 60});
    assert_int_not_equal(done->disk.err, ERR_OK);
    assert_int_equal(stat(path, &info), -1); /* a failed reservation leaves nothing */
}

#define STORM 3000u

static void storm_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    (void)argument;
    for (uint32_t i = 0; i < STORM; i++) {
        struct slice data = slice_alloc(4096);
        memset(data.data, (int)(i % 251), 4096);
        fx_disk_write(fx, i, (struct file_ref){FILE_LOG, 1}, (uint64_t)(i % 256) * 4096, data);
    }
}

static void storm_step(void *actor, const struct event *event, struct effects *fx)
{
    struct probe *probe = actor;
    if (event->kind == EVENT_DISK_DONE) {
        CHECK(event->disk.err == ERR_OK && event->disk.token < STORM);
        pthread_mutex_lock(&probe->lock);
        probe->echoed++;
        probe->count = probe->echoed == STORM;
        pthread_cond_broadcast(&probe->changed);
        pthread_mutex_unlock(&probe->lock);
    } else {
        probe_step(actor, event, fx);
    }
}

/* More operations at once than the ring holds: all complete, in few submissions. */
static void test_disk_storm(void **state)
{
    struct field *field = *state;
    char text[256], dir[160];
    struct station station = {0};
    struct probe probe = {.kind = ACTOR_LOG};
    int lock;
    snprintf(dir, sizeof dir, "%s/storm", field->certs.dir);
    struct runtime_config config =
        station_config(&field->certs, "blockd:2", ROLE_BLOCKD, 2, certs_file(&field->certs, "node", "log"));
    assert_int_equal(runtime_directory_open(dir, &lock, text), ERR_OK);
    assert_int_equal(runtime_create(&config, &station.runtime, text), ERR_OK);
    probe.runtime = station.runtime;
    pthread_mutex_init(&probe.lock, NULL);
    pthread_cond_init(&probe.changed, NULL);
    runtime_add_actor(station.runtime, 0, ACTOR_LOG, 0, storm_step, &probe, dir, NULL);
    snprintf(dir, sizeof dir, "%s/storm/log/00000001.log", field->certs.dir);
    FILE *file = fopen(dir, "w");
    assert_non_null(file);
    fclose(file);
    station_start(&station);
    probe_do(&probe, storm_run, NULL);
    assert_true(probe_wait(&probe, 1));
    struct runtime_disk_counters counters = runtime_disk_counters(station.runtime, ACTOR_LOG, 0);
    if (counters.submitted > 0) { /* a ring it is */
        assert_true(counters.submitted >= STORM);
        assert_true(counters.submissions < STORM / 4);
    }
    assert_int_equal(station_stop(&station), 0);
    runtime_destroy(station.runtime);
    close(lock);
}

/* The kernel takes half of a write (here: the process's file size limit) and refuses the rest: an error, not success.
 */
static void test_disk_short_write(void **state)
{
    struct field *field = *state;
    struct file_ref file = {FILE_LOG, 3};
    struct rlimit old, limit;
    assert_int_equal(disk_call(field, (struct disk_call){EFFECT_DISK_ALLOC, file, .bytes = 4096})->disk.err, ERR_OK);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 64 << 10;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    struct disk_call call = {EFFECT_DISK_WRITE, file, .offset = 56 << 10, .bytes = 16 << 10, .fill = 9};
    enum err err = disk_call(field, call)->disk.err;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(err, ERR_IO);
    const struct event *done =
        disk_call(field, (struct disk_call){EFFECT_DISK_READ, file, .offset = 56 << 10, .bytes = 16 << 10});
    assert_int_equal(done->disk.data.bytes, 8 << 10); /* the half that went in */
    expect_filled(done->disk.data, 0, 8 << 10, 9);
    call.fill = 4;
    assert_int_equal(disk_call(field, call)->disk.err, ERR_OK);
}

/* Stopping with operations under way: the buffers outlive them. */
static void test_disk_stop_midway(void **state)
{
    struct field *field = *state;
    struct disk_call call = {EFFECT_DISK_ALLOC, {FILE_LOG, 1}, .bytes = FILE_BYTES};
    assert_int_equal(disk_call(field, call)->disk.err, ERR_OK);
    probe_do(&field->probe, storm_run, NULL);
    runtime_stop(field->station.runtime);
}

/* ---- key-value ---- */

static void commit_run(struct probe *probe, void *argument, struct effects *fx)
{
    struct field *field = argument;
    struct kv_batch *batch = kv_batch_create();
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "key%03d", i);
        kv_batch_put(batch, key, 6, &i, sizeof i);
    }
    fx_kv_commit(fx, batch);
    batch = kv_batch_create();
    kv_batch_delete(batch, "key050", 6);
    kv_batch_put(batch, "empty", 5, NULL, 0);
    fx_kv_commit(fx, batch);
    fx_kv_flush(fx, 77);
    (void)probe;
    (void)field;
}

static void read_run(struct probe *probe, void *argument, struct effects *fx)
{
    struct field *field = argument;
    struct kv_view *view = runtime_kv_view(field->kv);
    struct slice key = {0}, value = {0};
    char from[8] = "key";
    size_t from_bytes = 3;
    int seen = 0;
    for (; kv_next(view, from, from_bytes, true, &key, &value) == ERR_OK; seen++) {
        int number;
        CHECK(value.bytes == sizeof number && key.bytes == 6);
        memcpy(&number, value.data, sizeof number);
        CHECK(number == seen + (seen >= 50));
        memcpy(from, key.data, 6);
        from_bytes = 6;
        slice_drop(&key);
        slice_drop(&value);
    }
    CHECK(seen == 99);
    CHECK(kv_get(view, "key050", 6, &value) == ERR_NOT_FOUND);
    CHECK(kv_get(view, "empty", 5, &value) == ERR_OK && value.bytes == 0);
    CHECK(kv_next(view, "key050", 6, false, &key, &value) == ERR_OK && memcmp(key.data, "key051", 6) == 0);
    slice_drop(&key);
    slice_drop(&value);
    CHECK(kv_prev(view, "key051", 6, &key, &value) == ERR_OK && memcmp(key.data, "key049", 6) == 0);
    slice_drop(&key);
    slice_drop(&value);
    CHECK(kv_prev(view, "zzz", 3, &key, &value) == ERR_OK && memcmp(key.data, "key099", 6) == 0);
    slice_drop(&key);
    slice_drop(&value);
    CHECK(kv_prev(view, "empty", 5, &key, &value) == ERR_NOT_FOUND);
    CHECK(kv_next(view, "key099", 6, true, &key, &value) == ERR_NOT_FOUND);
    fx_timer(fx, 5, 1); /* says that it ran */
    (void)probe;
}

static void test_kv(void **state)
{
    struct field *field = *state;
    probe_do(&field->probe, commit_run, field);
    probe_do(&field->probe, read_run, field); /* the next step sees the commits */
    assert_true(probe_wait(&field->probe, 2));
    for (int i = 0; i < 2; i++) {
        const struct event *event = &field->probe.events[i];
        assert_true(event->kind == EVENT_TIMER || event->kind == EVENT_KV_DONE);
        assert_true(event->kind == EVENT_TIMER || (event->kv.token == 77 && event->kv.err == ERR_OK));
    }
    field_close(field, 0);
    field_open(field);
    probe_do(&field->probe, read_run, field);
    assert_true(probe_wait(&field->probe, 1));
    field_close(field, 0);
    assert_int_equal(runtime_kv_drop(field->dir), ERR_OK);
    field_open(field);
    struct slice value = {0};
    assert_int_equal(kv_get(runtime_kv_view(field->kv), "key001", 6, &value), ERR_NOT_FOUND);
}

struct scan_call {
    const char *from;
    uint64_t pin, bytes;
};

static void scan_run(struct probe *probe, void *argument, struct effects *fx)
{
    const struct scan_call *call = argument;
    (void)probe;
    fx_kv_scan(fx, call->pin, call->pin, slice_copy(call->from, strlen(call->from)), slice_copy("key060", 6),
               call->bytes);
}

static void change_run(struct probe *probe, void *argument, struct effects *fx)
{
    struct kv_batch *batch = kv_batch_create();
    (void)probe;
    (void)argument;
    kv_batch_delete(batch, "key010", 6);
    kv_batch_put(batch, "key0505", 7, "new", 3);
    fx_kv_commit(fx, batch);
}

static void unpin_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    fx_kv_unpin(fx, *(const uint64_t *)argument);
}

/* Keys of one answer, and whether "key010" and "key0505" are among them. */
static int scan_wait(struct field *field, const struct scan_call *call, char *ret_last, bool *ret_old, bool *ret_new)
{
    int count = 0;
    probe_do(&field->probe, scan_run, (void *)(uintptr_t)call);
    assert_true(probe_wait(&field->probe, 1));
    const struct event *event = &field->probe.events[0];
    assert_true(event->kind == EVENT_KV_DONE && event->kv.token == call->pin && event->kv.err == ERR_OK);
    struct reader reader = reader_of(event->kv.data.data, event->kv.data.bytes);
    while (reader.left > 0) {
        struct slice key, value;
        assert_int_equal(kv_pair_get(&reader, &key, &value), ERR_OK);
        *ret_old |= slice_equal(key, slice_borrow("key010", 6));
        *ret_new |= slice_equal(key, slice_borrow("key0505", 7));
        snprintf(ret_last, 16, "%.*s", (int)key.bytes, (const char *)key.data);
        count++;
    }
    probe_forget(&field->probe);
    return count;
}

/* Scans of one pin show one state, whatever is committed meanwhile; a fresh pin shows what is. */
static void test_kv_scan(void **state)
{
    struct field *field = *state;
    char last[16] = "";
    bool old = false, new = false;
    uint64_t pin = 1;
    probe_do(&field->probe, commit_run, field);
    assert_true(probe_wait(&field->probe, 1));
    probe_forget(&field->probe);
    struct scan_call call = {"key000", pin, 10 * (KV_PAIR_HEADER_BYTES + 6 + sizeof(int))};
    assert_int_equal(scan_wait(field, &call, last, &old, &new), 10);
    assert_string_equal(last, "key009");
    probe_do(&field->probe, change_run, NULL);
    call = (struct scan_call){"key010", pin, 1 << 20};
    assert_int_equal(scan_wait(field, &call, last, &old, &new), 49); /* 10..59, 50 is deleted */
    assert_true(old && !new);
    assert_string_equal(last, "key059");
    call = (struct scan_call){"key0590", pin, 1};
    assert_int_equal(scan_wait(field, &call, last, &old, &new), 0);
    call = (struct scan_call){"key000", pin, 1}; /* one pair at least */
    assert_int_equal(scan_wait(field, &call, last, &old, &new), 1);
    probe_do(&field->probe, unpin_run, &pin);
    old = false;
    call = (struct scan_call){"key000", pin, 1 << 20}; /* the number again, another state */
    assert_int_equal(scan_wait(field, &call, last, &old, &new), 59);
    assert_true(!old && new);
}

/* ---- timers ---- */

static void timers_run(struct probe *probe, void *argument, struct effects *fx)
{
    uint64_t now = *(uint64_t *)argument;
    (void)probe;
    for (uint64_t i = 0; i < 100; i++) {
        fx_timer(fx, 1000 + i, now + 3600ull * 1000000000);
    }
    fx_timer(fx, 3, now + 30 * 1000000);
    fx_timer(fx, 1, now + 10 * 1000000);
    fx_timer(fx, 2, now + 20 * 1000000);
    fx_timer(fx, 4, now + 1 * 1000000);
    fx_timer(fx, 4, 0); /* off */
    fx_timer(fx, 5, now + 3600ull * 1000000000);
    fx_timer(fx, 5, now + 25 * 1000000); /* moved nearer */
    fx_timer(fx, 6, 1);                  /* long past: at once */
    fx_timer(fx, 7, 0);                  /* was never on */
    for (uint64_t i = 0; i < 100; i++) {
        fx_timer(fx, 1000 + i, 0);
    }
}

static void test_timers(void **state)
{
    struct field *field = *state;
    static const uint64_t order[] = {6, 1, 2, 5, 3}, after_ms[] = {0, 10, 20, 25, 30};
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    uint64_t now = (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
    probe_do(&field->probe, timers_run, &now);
    assert_true(probe_wait(&field->probe, 5));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(field->probe.events[i].kind, EVENT_TIMER);
        assert_int_equal(field->probe.events[i].timer.id, order[i]);
        assert_true(field->probe.events[i].now_ns >= now + after_ms[i] * 1000000);
    }
    assert_int_equal(field->probe.count, 5);
}

/* ---- compute ---- */

static void compute_run_jobs(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    (void)argument;
    for (uint64_t i = 0; i < 2; i++) {
        struct compute_job *job = compute_job_create(COMPUTE_CHUNK_CUT_HASH);
        job->in[0] = slice_alloc(i == 0 ? 1000 : 1 << 20);
        memset(job->in[0].data, 'x', job->in[0].bytes);
        job->cut_bytes = 1 << 20;
        job->priority = (uint8_t)i;
        fx_compute(fx, 10 + i, job);
    }
}

static void test_compute(void **state)
{
    struct field *field = *state;
    probe_do(&field->probe, compute_run_jobs, NULL);
    assert_true(probe_wait(&field->probe, 2));
    unsigned tokens = 0;
    for (int i = 0; i < 2; i++) {
        const struct event *event = &field->probe.events[i];
        assert_int_equal(event->kind, EVENT_COMPUTE_DONE);
        assert_int_equal(event->compute.job->err, ERR_OK);
        assert_int_equal(event->compute.job->count, 1);
        struct slice in = event->compute.job->in[0];
        struct sha256 sha = sha256(in.data, in.bytes);
        assert_memory_equal(&sha, &event->compute.job->hashes[0], sizeof sha);
        tokens |= 1u << (event->compute.token - 10);
    }
    assert_int_equal(tokens, 3);
}

/* ---- files of people ---- */

static void test_user_file(void **state)
{
    struct field *field = *state;
    uint32_t number = 0, other = 0;
    const char *path = certs_file(&field->certs, "holiday", "txt");
    assert_int_equal(runtime_user_file_open(field->station.runtime, path, &number), ERR_NOT_FOUND);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("0123456789", file);
    fclose(file);
    assert_int_equal(runtime_user_file_open(field->station.runtime, path, &number), ERR_OK);
    struct file_ref ref = {FILE_USER, number};
    const struct event *done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, ref, .offset = 3, .bytes = 100});
    assert_int_equal(done->disk.err, ERR_OK);
    assert_int_equal(done->disk.data.bytes, 7);
    assert_memory_equal(done->disk.data.data, "3456789", 7);
    runtime_user_file_close(field->station.runtime, number);
    done = disk_call(field, (struct disk_call){EFFECT_DISK_READ, ref, .offset = 0, .bytes = 1});
    assert_int_equal(done->disk.err, ERR_NOT_FOUND);
    assert_int_equal(runtime_user_file_open(field->station.runtime, path, &other), ERR_OK);
    assert_int_not_equal(other, number); /* left open: the runtime closes it */
}

/* ---- directories ---- */

static void test_directory(void **state)
{
    struct field *field = *state;
    char text[256] = "", dir[160];
    int lock = -1;
    struct stat info;
    assert_int_equal(runtime_directory_open(field->dir, &lock, text), ERR_IN_USE);
    assert_non_null(strstr(text, "stop that process"));
    assert_int_equal(runtime_directory_open(field->certs.dir, &lock, text), ERR_NOT_OURS);
    assert_non_null(strstr(text, "name an empty directory"));
    assert_int_equal(lock, -1);
    snprintf(dir, sizeof dir, "%s/lock", field->certs.dir);
    assert_int_not_equal(access(dir, F_OK), 0); /* nothing was put there */
    snprintf(dir, sizeof dir, "%s/fresh", field->certs.dir);
    assert_int_equal(runtime_directory_open(dir, &lock, text), ERR_OK);
    assert_int_equal(stat(dir, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    close(lock);
    assert_int_equal(runtime_directory_open(dir, &lock, text), ERR_OK); /* again, once it is let go */
    close(lock);
    strcat(dir, "/nothing/here");
    assert_int_equal(runtime_directory_open(dir, &lock, text), ERR_IO);
}

/* ---- halt ---- */

static void halt_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    (void)argument;
    fx_halt(fx, ERR_CORRUPT, "record %d is \"torn\"", 5);
    fx_send(fx, address_local(ACTOR_STORE, 0), 1, 1, slice_copy("never", 5), (struct slice){0});
}

static void test_halt(void **state)
{
    struct field *field = *state;
    probe_do(&field->probe, halt_run, NULL);
    pthread_join(field->station.thread, NULL);
    assert_int_equal(field->station.exit_code, err_exit_code(ERR_CORRUPT));
    assert_int_equal(field->probe.count, 0);
    char line[1024] = "", last[1024] = "";
    FILE *file = fopen(certs_file(&field->certs, "node", "log"), "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        strcpy(last, line);
    }
    fclose(file);
    assert_non_null(strstr(last, "\"level\":\"fatal\",\"code\":\"CORRUPT\",\"node\":\"blockd:2\""));
    assert_non_null(strstr(last, "\"text\":\"record 5 is \\\"torn\\\"\"}"));
    probe_forget(&field->probe);
    station_close(&field->station, field->lock, field->kv);
    field_open(field);
}

/* ---- local messages ---- */

static void local_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)argument;
    probe->echo = true;
    fx_send(fx, address_local(ACTOR_STORE, 0), 35, 8, slice_copy("self", 4), (struct slice){0});
    fx_send(fx, address_local(ACTOR_STORE, 9), 35, 9, slice_copy("nobody", 6), (struct slice){0});
}

static void test_local(void **state)
{
    struct field *field = *state;
    probe_do(&field->probe, local_run, NULL);
    assert_true(probe_wait(&field->probe, 2));
    unsigned streams = 0;
    for (int i = 0; i < 2; i++) {
        const struct message *message = &field->probe.events[i].message;
        assert_int_equal(message->peer.role, ROLE_LOCAL);
        assert_int_equal(message->from.actor, ACTOR_STORE);
        assert_int_equal(message->from.index, message->stream == 8 ? 0 : 9);
        assert_int_equal(message->flags, message->stream == 8 ? MESSAGE_REPLY : MESSAGE_REPLY | MESSAGE_ERROR);
        streams |= 1u << message->stream;
    }
    assert_int_equal(streams, 1u << 8 | 1u << 9);
}

enum { MANY = 100 };

static void many_send(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe, (void)argument;
    for (int i = 0; i < MANY; i++) {
        fx_send(fx, address_local(ACTOR_STORE, 0), 35, 1 + (uint64_t)i, (struct slice){0}, (struct slice){0});
    }
}

/* An event says that another follows, but for the last of its actor and the last of its actor's turn. */
static void test_more(void **state)
{
    struct field *field = *state;
    probe_do(&field->probe, many_send, NULL);
    assert_true(probe_wait(&field->probe, MANY));
    unsigned ends = 0;
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(field->probe.events[i].message.stream, 1 + i);
        ends += !field->probe.events[i].more;
    }
    assert_int_equal(ends, 2);
    assert_false(field->probe.events[MANY - 1].more);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_disk),
        {"test_disk_on_helpers", test_disk, setup_no_ring, teardown, NULL},
        CASE(test_disk_short_write),
        {"test_disk_short_write_on_helpers", test_disk_short_write, setup_no_ring, teardown, NULL},
        CASE(test_disk_storm),
        {"test_disk_storm_on_helpers", test_disk_storm, setup_no_ring, teardown, NULL},
        CASE(test_disk_stop_midway),
        CASE(test_kv),
        CASE(test_kv_scan),
        CASE(test_timers),
        CASE(test_compute),
        CASE(test_user_file),
        CASE(test_directory),
        CASE(test_halt),
        CASE(test_local),
        CASE(test_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
