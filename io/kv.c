/* RocksDB behind base/kv.h. Stands under apply and the store's index: reads on the owning loop, commits on it, flushes
 * on a helper. No WAL: what a flush has not covered is rebuilt from the log in front of it.
 *
 * A full disk: RocksDB does not survive one (a flush that fails may end in an assertion of its own), so it never meets
 * one. Below the reserve room() is false and cores refuse what can be refused; the reserve covers what is under way and
 * a compaction. Below the floor no flush begins: one that is asked for waits, a commit that would cause one is
 * DISK_FULL, and the database is left as it is at the end. A disk that somebody else fills in the midst of a flush is
 * not covered.
 *
 * A write that RocksDB would make wait, because flushes or compaction are behind, is not waited for (no_slowdown): the
 * commit is WOULD_BLOCK, and the actor is held until it is taken (actor_kv.c).
 *
 * Happy path: what the actor has committed and is not written yet is read first. Behind it a get is a pinned get and
 * one copy; next and prev run over an iterator kept per loop and thrown away at the
 * next commit, so a scan costs a step per pair. How it fails: any RocksDB error is KV_FAILED, or CORRUPT where it
 * speaks of damaged or missing bytes, and ends the process; a read error does so here, because a core that went on
 * would answer from half a database. Of a corrupt one the shell is told first (runtime_hooks.corrupt). */
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "io/internal.h"

/* A write buffer is a skip list that is searched for each pair written: a small one stays in the CPU's caches, and its
 * flush is short. As much of them waits for flushes as three of 16 MiB would hold. */
#define KV_WRITE_BUFFER_BYTES ((size_t)4 << 20)
#define KV_WRITE_BUFFERS      12
/* Files of level 0, each a write buffer: so many are compacted into the next level; so many slow writes down; so many
 * stop them. In bytes what RocksDB has by default with its buffers of 16 MiB. */
#define KV_FILES_COMPACTED 16
#define KV_FILES_SLOW      80
#define KV_FILES_STOP      144
#define KV_FILE_BYTES      ((uint64_t)16 << 20) /* of the other levels */
#define KV_CACHE_BYTES     ((size_t)16 << 20)
#define KV_OPEN_FILES      512
#define KV_BLOOM_BITS      10
#define KV_BUFFER_BLOOM    0.02 /* of a write buffer: 30 bits a key of small records; most that is asked is new */
/* What a compaction takes at most: its level 0 files and as much of the next level. */
#define KV_LEVEL_BYTES      ((uint64_t)64 << 20)
#define KV_COMPACTION_BYTES (2 * KV_LEVEL_BYTES)
/* What flushes and compactions write goes to the disk past the page cache, so many bytes at a time and no more before
 * those are there: a log's sync beside them waits for one portion, not for 16 MiB that the cache lets go at once. */
#define KV_PORTION_BYTES ((uint64_t)32 << 10)
/* Free space below which no flush begins: what all write buffers hold, and some. */
#define KV_FLOOR_BYTES ((uint64_t)64 << 20)
/* Free space below which there is no room: a twentieth of the file system, but within these bounds. */
#define KV_RESERVE_LEAST_BYTES (2 * KV_COMPACTION_BYTES)
#define KV_RESERVE_MOST_BYTES  ((uint64_t)1 << 30)
#define KV_ROOM_NS             100000000ull /* how long an answer stands */
#define KV_FLUSH_WAIT_NS       50000000ull

/* An iterator and the state of the database it shows. */
struct kv_cursor {
    rocksdb_iterator_t *iterator;
    uint64_t commits;
};

/* A state of the database that an actor reads from piece by piece, and the iterator that stands behind the last one. */
struct kv_pin {
    struct kv_pin *next;
    const struct runtime_actor *actor;
    uint64_t number;
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *options;
    rocksdb_iterator_t *iterator;
};

struct runtime_kv {
    struct kv_view view;   /* first: what actors read */
    struct kv_view stored; /* what RocksDB holds */
    struct runtime *runtime;
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *read_options;
    rocksdb_writeoptions_t *write_options;
    rocksdb_flushoptions_t *flush_options;
    rocksdb_cache_t *cache;
    char *path; /* the data directory */
    struct runtime_kv *next_left;
    _Atomic uint64_t room_until_ns; /* `room` stands until then */
    _Atomic bool room;
    _Atomic uint64_t commits;
    pthread_mutex_t pins_lock;
    struct kv_pin *pins;
    struct kv_cursor cursors[LOOPS_MAX + 1]; /* the last one: a thread that is no loop's, before the run */
};

/* What stands on the disk is not what was written there: a checksum, a form, a file; to a reader also a sector that
 * cannot be read. A disk that does not write is no damage. */
static enum err kv_error_kind(const char *error, bool reading)
{
    bool gone = strstr(error, "No such file or directory") != NULL || strstr(error, "Input/output error") != NULL;
    return strncmp(error, "Corruption", 10) == 0 || (reading && gone) ? ERR_CORRUPT : ERR_KV_FAILED;
}

static enum err kv_fail(char *error, bool reading, char *ret_text)
{
    enum err err = kv_error_kind(error, reading);
    snprintf(ret_text, 256, "%.240s", error);
    rocksdb_free(error);
    return err;
}

void runtime_kv_failed(struct runtime *runtime, enum err err, const char *what, const char *text)
{
    if (err == ERR_CORRUPT && runtime->hooks.corrupt != NULL) {
        runtime->hooks.corrupt(runtime->hooks.context, text);
    }
    runtime_halt(runtime, err, "%s of the database: %s", what, text);
}

static bool kv_is_stall(const char *error)
{
    return strstr(error, "Write stall") != NULL;
}

static struct runtime_kv *kv_of_stored(struct kv_view *stored)
{
    return (struct runtime_kv *)(void *)((char *)stored - offsetof(struct runtime_kv, stored));
}

static enum err kv_read_fail(struct runtime_kv *kv, char *error)
{
    char text[256];
    enum err err = kv_fail(error, true, text);
    runtime_kv_failed(kv->runtime, err, "read", text);
    return err;
}

void runtime_kv_thread(void)
{
    rocksdb_set_perf_level(rocksdb_disable);
}

/* ---- room ---- */

/* Free space of the file system that holds `path`; ample when it cannot be told, for then it shows where it is used. */
static uint64_t kv_free_bytes(const char *path, uint64_t *ret_size)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0) {
        *ret_size = 0;
        return UINT64_MAX;
    }
    *ret_size = (uint64_t)fs.f_blocks * fs.f_frsize;
    return (uint64_t)fs.f_bavail * fs.f_frsize;
}

static bool kv_under_floor(const struct runtime_kv *kv)
{
    uint64_t size = 0;
    return kv_free_bytes(kv->path, &size) < KV_FLOOR_BYTES;
}

/* Whether the next commit may fill the write buffer, which makes RocksDB flush it. */
static bool kv_flush_near(struct runtime_kv *kv)
{
    uint64_t bytes = 0;
    rocksdb_property_int(kv->db, "rocksdb.cur-size-active-mem-table", &bytes);
    return bytes >= KV_WRITE_BUFFER_BYTES / 2;
}

static enum err kv_full(const struct runtime_kv *kv, char *ret_text)
{
    snprintf(ret_text, 256, "the disk of %.150s is full; make room and start the node again", kv->path);
    return ERR_DISK_FULL;
}

/* ---- the view ---- */

static enum err kv_stored_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct runtime_kv *kv = kv_of_stored(view);
    char *error = NULL;
    rocksdb_pinnableslice_t *pinned = rocksdb_get_pinned(kv->db, kv->read_options, key, key_bytes, &error);
    if (error != NULL) {
        return kv_read_fail(kv, error);
    }
    if (pinned == NULL) {
        return ERR_NOT_FOUND;
    }
    size_t bytes = 0;
    const char *value = rocksdb_pinnableslice_value(pinned, &bytes);
    *ret_value = slice_copy(value, bytes);
    rocksdb_pinnableslice_destroy(pinned);
    return ERR_OK;
}

/* The calling thread's iterator, showing all commits so far. */
static rocksdb_iterator_t *kv_cursor_get(struct runtime_kv *kv, bool *ret_fresh)
{
    struct loop *loop = loop_current();
    struct kv_cursor *cursor = &kv->cursors[loop != NULL ? loop->index : LOOPS_MAX];
    uint64_t commits = atomic_load_explicit(&kv->commits, memory_order_acquire);
    *ret_fresh = cursor->iterator == NULL || cursor->commits != commits;
    if (*ret_fresh) {
        if (cursor->iterator != NULL) {
            rocksdb_iter_destroy(cursor->iterator);
        }
        cursor->iterator = rocksdb_create_iterator(kv->db, kv->read_options);
        cursor->commits = commits;
    }
    return cursor->iterator;
}

static bool kv_cursor_at(const rocksdb_iterator_t *iterator, const void *key, size_t key_bytes)
{
    size_t bytes = 0;
    const char *at = rocksdb_iter_valid(iterator) ? rocksdb_iter_key(iterator, &bytes) : NULL;
    return at != NULL && bytes == key_bytes && memcmp(at, key, bytes) == 0;
}

static enum err kv_cursor_take(struct runtime_kv *kv, rocksdb_iterator_t *iterator, struct slice *ret_key,
                               struct slice *ret_value)
{
    if (!rocksdb_iter_valid(iterator)) {
        char *error = NULL;
        rocksdb_iter_get_error(iterator, &error);
        return error != NULL ? kv_read_fail(kv, error) : ERR_NOT_FOUND;
    }
    size_t key_bytes = 0, value_bytes = 0;
    const char *key = rocksdb_iter_key(iterator, &key_bytes);
    const char *value = rocksdb_iter_value(iterator, &value_bytes);
    *ret_key = slice_copy(key, key_bytes);
    *ret_value = slice_copy(value, value_bytes);
    return ERR_OK;
}

static enum err kv_stored_next(struct kv_view *view, const void *from, size_t from_bytes, bool after,
                               struct slice *ret_key, struct slice *ret_value)
{
    struct runtime_kv *kv = kv_of_stored(view);
    bool fresh;
    rocksdb_iterator_t *iterator = kv_cursor_get(kv, &fresh);
    if (fresh || !kv_cursor_at(iterator, from, from_bytes)) {
        rocksdb_iter_seek(iterator, from, from_bytes);
    }
    if (after && kv_cursor_at(iterator, from, from_bytes)) {
        rocksdb_iter_next(iterator);
    }
    return kv_cursor_take(kv, iterator, ret_key, ret_value);
}

static enum err kv_stored_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                               struct slice *ret_value)
{
    struct runtime_kv *kv = kv_of_stored(view);
    bool fresh;
    rocksdb_iterator_t *iterator = kv_cursor_get(kv, &fresh);
    if (fresh || !kv_cursor_at(iterator, before, before_bytes)) {
        rocksdb_iter_seek_for_prev(iterator, before, before_bytes);
    }
    if (kv_cursor_at(iterator, before, before_bytes)) {
        rocksdb_iter_prev(iterator);
    }
    return kv_cursor_take(kv, iterator, ret_key, ret_value);
}

static bool kv_room_now(const struct runtime_kv *kv)
{
    uint64_t size = 0;
    uint64_t free_bytes = kv_free_bytes(kv->path, &size);
    uint64_t reserve = size / 20;
    reserve = reserve < KV_RESERVE_LEAST_BYTES  ? KV_RESERVE_LEAST_BYTES
              : reserve > KV_RESERVE_MOST_BYTES ? KV_RESERVE_MOST_BYTES
                                                : reserve;
    return free_bytes >= reserve;
}

static bool kv_view_room(struct kv_view *view)
{
    struct runtime_kv *kv = (struct runtime_kv *)view;
    uint64_t now_ns = clock_now_ns();
    if (now_ns >= atomic_load_explicit(&kv->room_until_ns, memory_order_relaxed)) {
        bool room = kv_room_now(kv);
        if (room != atomic_exchange(&kv->room, room)) {
            io_log(room ? LOG_INFO : LOG_WARN, room ? ERR_OK : ERR_DISK_FULL, "%s: %s", kv->path,
                   room ? "the disk has room again" : "the disk is short of space; make room");
        }
        atomic_store_explicit(&kv->room_until_ns, now_ns + KV_ROOM_NS, memory_order_relaxed);
    }
    return atomic_load_explicit(&kv->room, memory_order_relaxed);
}

static const struct kv_view_ops kv_stored_ops = {
    .get = kv_stored_get,
    .next = kv_stored_next,
    .prev = kv_stored_prev,
};

/* Where the actor that is being stepped reads: below what it has pending, if anything. */
static struct kv_view *kv_view_under(struct kv_view *view, struct kv_overlay *overlay)
{
    struct runtime_kv *kv = (struct runtime_kv *)view;
    struct kv_batch *pending = actor_kv_pending(kv);
    if (pending == NULL) {
        return &kv->stored;
    }
    kv_overlay_init(overlay, pending, &kv->stored);
    return &overlay->view;
}

static enum err kv_view_get(struct kv_view *view, const void *key, size_t key_bytes, struct slice *ret_value)
{
    struct kv_overlay overlay;
    return kv_get(kv_view_under(view, &overlay), key, key_bytes, ret_value);
}

static enum err kv_view_next(struct kv_view *view, const void *from, size_t from_bytes, bool after,
                             struct slice *ret_key, struct slice *ret_value)
{
    struct kv_overlay overlay;
    return kv_next(kv_view_under(view, &overlay), from, from_bytes, after, ret_key, ret_value);
}

static enum err kv_view_prev(struct kv_view *view, const void *before, size_t before_bytes, struct slice *ret_key,
                             struct slice *ret_value)
{
    struct kv_overlay overlay;
    return kv_prev(kv_view_under(view, &overlay), before, before_bytes, ret_key, ret_value);
}

static const struct kv_view_ops kv_view_ops = {
    .get = kv_view_get,
    .next = kv_view_next,
    .prev = kv_view_prev,
    .room = kv_view_room,
};

struct kv_view *runtime_kv_view(struct runtime_kv *kv)
{
    return &kv->view;
}

/* ---- commits ---- */

enum err runtime_kv_commit(struct runtime_kv *kv, struct kv_batch *batch, char *ret_text)
{
    if (kv_batch_count(batch) == 0) {
        return ERR_OK;
    }
    if (kv_under_floor(kv) && kv_flush_near(kv)) {
        return kv_full(kv, ret_text);
    }
    rocksdb_writebatch_t *write = rocksdb_writebatch_create();
    const struct kv_entry *entry = kv_batch_next(batch, NULL, 0, false);
    while (entry != NULL) {
        const char *key = (const char *)entry->key.data;
        if (entry->deleted) {
            rocksdb_writebatch_delete(write, key, entry->key.bytes);
        } else {
            rocksdb_writebatch_put(write, key, entry->key.bytes, (const char *)entry->value.data, entry->value.bytes);
        }
        entry = kv_entry_next(entry);
    }
    char *error = NULL;
    rocksdb_write(kv->db, kv->write_options, write, &error);
    rocksdb_writebatch_destroy(write);
    if (error != NULL && kv_is_stall(error)) {
        rocksdb_free(error);
        return ERR_WOULD_BLOCK;
    }
    atomic_fetch_add_explicit(&kv->commits, 1, memory_order_release);
    return error != NULL ? kv_fail(error, false, ret_text) : ERR_OK;
}

enum err runtime_kv_flush(struct runtime_kv *kv, char *ret_text)
{
    while (kv_under_floor(kv)) {
        struct timespec pause = {.tv_nsec = KV_FLUSH_WAIT_NS};
        if (atomic_load(&kv->runtime->stopping)) {
            return kv_full(kv, ret_text);
        }
        nanosleep(&pause, NULL);
    }
    char *error = NULL;
    rocksdb_flush(kv->db, kv->flush_options, &error);
    return error != NULL ? kv_fail(error, false, ret_text) : ERR_OK;
}

/* ---- pinned states ---- */

struct kv_pin *runtime_kv_pin(struct runtime_kv *kv, const struct runtime_actor *actor, uint64_t number)
{
    pthread_mutex_lock(&kv->pins_lock);
    struct kv_pin *pin = kv->pins;
    while (pin != NULL && (pin->actor != actor || pin->number != number)) {
        pin = pin->next;
    }
    if (pin == NULL) {
        pin = mem_alloc(sizeof *pin);
        pin->actor = actor;
        pin->number = number;
        pin->snapshot = rocksdb_create_snapshot(kv->db);
        pin->options = rocksdb_readoptions_create();
        rocksdb_readoptions_set_snapshot(pin->options, pin->snapshot);
        rocksdb_readoptions_set_fill_cache(pin->options, 0); /* one passage must not push out what requests read */
        pin->iterator = rocksdb_create_iterator(kv->db, pin->options);
        pin->next = kv->pins;
        kv->pins = pin;
    }
    pthread_mutex_unlock(&kv->pins_lock);
    return pin;
}

static void kv_pin_destroy(struct runtime_kv *kv, struct kv_pin *pin)
{
    rocksdb_iter_destroy(pin->iterator);
    rocksdb_readoptions_destroy(pin->options);
    rocksdb_release_snapshot(kv->db, pin->snapshot);
    free(pin);
}

void runtime_kv_unpin(struct runtime_kv *kv, const struct runtime_actor *actor, uint64_t number)
{
    pthread_mutex_lock(&kv->pins_lock);
    struct kv_pin **at = &kv->pins;
    while (*at != NULL && ((*at)->actor != actor || (*at)->number != number)) {
        at = &(*at)->next;
    }
    struct kv_pin *pin = *at;
    if (pin != NULL) {
        *at = pin->next;
        kv_pin_destroy(kv, pin);
    }
    pthread_mutex_unlock(&kv->pins_lock);
}

enum err runtime_kv_scan(struct runtime_kv *kv, struct kv_pin *pin, struct slice from, struct slice end, uint64_t bytes,
                         struct slice *ret_pairs, char *ret_text)
{
    (void)kv;
    rocksdb_iterator_t *iterator = pin->iterator;
    struct writer pairs = {0};
    if (!kv_cursor_at(iterator, from.data, from.bytes)) {
        rocksdb_iter_seek(iterator, (const char *)from.data, from.bytes);
    }
    for (; rocksdb_iter_valid(iterator); rocksdb_iter_next(iterator)) {
        size_t key_bytes, value_bytes;
        const char *key = rocksdb_iter_key(iterator, &key_bytes);
        const char *value = rocksdb_iter_value(iterator, &value_bytes);
        size_t shorter = key_bytes < end.bytes ? key_bytes : end.bytes;
        int order = memcmp(key, end.data, shorter);
        bool behind = order > 0 || (order == 0 && key_bytes >= end.bytes);
        if (behind || (pairs.bytes > 0 && pairs.bytes + KV_PAIR_HEADER_BYTES + key_bytes + value_bytes > bytes)) {
            break;
        }
        kv_pair_put(&pairs, slice_borrow(key, key_bytes), slice_borrow(value, value_bytes));
    }
    char *error = NULL;
    rocksdb_iter_get_error(iterator, &error);
    if (error == NULL && pairs.bytes > 0) {
        *ret_pairs = writer_take(&pairs);
    }
    writer_deinit(&pairs);
    return error != NULL ? kv_fail(error, true, ret_text) : ERR_OK;
}

/* ---- life ---- */

/* Compactions of the whole process give way to its loops when there are too few CPUs for both. */
static void kv_compactions_yield(void)
{
    rocksdb_env_t *env = rocksdb_create_default_env();
    rocksdb_env_lower_thread_pool_cpu_priority(env);
    rocksdb_env_destroy(env);
}

static void kv_options_init(struct runtime_kv *kv)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    kv->cache = rocksdb_cache_create_lru(KV_CACHE_BYTES);
    rocksdb_block_based_options_set_block_cache(table, kv->cache);
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(KV_BLOOM_BITS));
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);

    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_write_buffer_size(options, KV_WRITE_BUFFER_BYTES);
    rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, KV_BUFFER_BLOOM);
    rocksdb_options_set_memtable_whole_key_filtering(options, 1);
    rocksdb_options_set_max_write_buffer_number(options, KV_WRITE_BUFFERS);
    rocksdb_options_set_level0_file_num_compaction_trigger(options, KV_FILES_COMPACTED);
    rocksdb_options_set_level0_slowdown_writes_trigger(options, KV_FILES_SLOW);
    rocksdb_options_set_level0_stop_writes_trigger(options, KV_FILES_STOP);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_target_file_size_base(options, KV_FILE_BYTES);
    rocksdb_options_set_max_bytes_for_level_base(options, KV_LEVEL_BYTES);
    rocksdb_options_set_max_compaction_bytes(options, KV_COMPACTION_BYTES);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
    rocksdb_options_set_use_direct_io_for_flush_and_compaction(options, 1);
    rocksdb_options_set_writable_file_max_buffer_size(options, KV_PORTION_BYTES);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_max_open_files(options, KV_OPEN_FILES);
    rocksdb_options_set_info_log_level(options, 3 /* errors */);
    rocksdb_options_set_keep_log_file_num(options, 2);
    kv->options = options;
    kv->read_options = rocksdb_readoptions_create();
    kv->write_options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(kv->write_options, 1);
    rocksdb_writeoptions_set_no_slowdown(kv->write_options, 1);
    kv->flush_options = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(kv->flush_options, 1);
}

static void kv_free(struct runtime_kv *kv)
{
    rocksdb_flushoptions_destroy(kv->flush_options);
    rocksdb_writeoptions_destroy(kv->write_options);
    rocksdb_readoptions_destroy(kv->read_options);
    rocksdb_options_destroy(kv->options);
    rocksdb_cache_destroy(kv->cache);
    free(kv->path);
    free(kv);
}

enum err runtime_kv_open(struct runtime *runtime, const char *dir, struct runtime_kv **ret_kv, char *ret_text)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/kv", dir);
    struct runtime_kv *kv = mem_alloc(sizeof *kv);
    kv->view.ops = &kv_view_ops;
    kv->stored.ops = &kv_stored_ops;
    kv->runtime = runtime;
    pthread_mutex_init(&kv->pins_lock, NULL);
    kv->path = strdup(dir);
    CHECK(kv->path != NULL);
    atomic_store(&kv->room, true);
    kv_compactions_yield();
    kv_options_init(kv);
    if (kv_under_floor(kv)) {
        enum err err = kv_full(kv, ret_text);
        kv_free(kv);
        return err;
    }
    char *error = NULL;
    kv->db = rocksdb_open(kv->options, path, &error);
    if (error != NULL) {
        bool rebuilt = runtime->config.role == ROLE_BLOCKD;
        enum err err = kv_error_kind(error, true);
        snprintf(ret_text, 256, "database %.80s: %.120s%s", path, error,
                 rebuilt ? "; if it is damaged, remove it: it is rebuilt" : "");
        rocksdb_free(error);
        kv_free(kv);
        return err;
    }
    *ret_kv = kv;
    return ERR_OK;
}

static struct runtime_kv *kv_left; /* databases that were left open */

void runtime_kv_close(struct runtime_kv *kv)
{
    if (kv == NULL) {
        return;
    }
    while (kv->pins != NULL) {
        struct kv_pin *pin = kv->pins;
        kv->pins = pin->next;
        kv_pin_destroy(kv, pin);
    }
    pthread_mutex_destroy(&kv->pins_lock);
    for (unsigned i = 0; i <= LOOPS_MAX; i++) {
        if (kv->cursors[i].iterator != NULL) {
            rocksdb_iter_destroy(kv->cursors[i].iterator);
        }
    }
    if (kv_under_floor(kv)) {
        kv->next_left = kv_left;
        kv_left = kv; /* closing would flush; what is not flushed is in the log */
        return;
    }
    rocksdb_close(kv->db);
    kv_free(kv);
}

enum err runtime_kv_drop(const char *dir)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/kv", dir);
    if (access(path, F_OK) < 0) {
        return errno == ENOENT ? ERR_OK : ERR_IO;
    }
    rocksdb_options_t *options = rocksdb_options_create();
    char *error = NULL;
    rocksdb_destroy_db(options, path, &error);
    rocksdb_options_destroy(options);
    if (error != NULL) {
        io_log(LOG_ERROR, ERR_KV_FAILED, "remove database %s: %s", path, error);
        rocksdb_free(error);
        return ERR_KV_FAILED;
    }
    return rmdir(path) < 0 && errno != ENOENT ? ERR_IO : ERR_OK;
}
