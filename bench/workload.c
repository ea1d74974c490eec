/* What is measured, a line of JSON each:
 *
 *   rest        resident memory of a metadata node and of a block server, the largest of each, before anything
 *   put         a file of incompressible bytes nobody has; fails when a chunk of it was there
 *   get         the same file back; with --file into a file whose bytes are then compared
 *   put-again   the same file under another name; fails unless no chunk was sent
 *   insert      one byte put before a file the cluster has, over a number of seeds
 *   small       many small files in one folder; get-small gets them back
 *   rest-after  as rest, after all this
 *
 * mb_s is 10^6 bytes a second; cpu_s counts the client's process from its start to its end, and the cluster's
 * processes meanwhile (whatever they do). */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

struct run {
    const struct bench_options *options;
    const struct bench_cluster *cluster;
    bool ok;
};

static void fail(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void fail(struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("cairn-bench: FAILED: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    run->ok = false;
}

static bool wanted(const struct run *run, const char *name)
{
    const char *only = run->options->only;
    if (only == NULL) {
        return true;
    }
    size_t n = strlen(name);
    for (const char *at = only; (at = strstr(at, name)) != NULL; at += n) {
        bool begins = at == only || at[-1] == ',', ends = at[n] == '\0' || at[n] == ',';
        if (begins && ends) {
            return true;
        }
    }
    return false;
}

/* One job, and its line. */
static bool measure(struct run *run, const char *workload, bool upload, const char *local, const char *remote,
                    struct bench_result *ret_result)
{
    struct bench_job job = {
        .config = run->cluster->config,
        .upload = upload,
        .local = local,
        .remote = remote,
        .threads = run->options->threads,
    };
    double before = cluster_cpu_s(run->cluster);
    if (!child_run(&job, ret_result)) {
        run->ok = false;
        return false;
    }
    double cluster_s = cluster_cpu_s(run->cluster) - before;
    const struct cairn_moved *moved = &ret_result->moved;
    double seconds = ret_result->seconds > 1e-9 ? ret_result->seconds : 1e-9;
    printf("{\"workload\":\"%s\",\"files\":%llu,\"bytes\":%llu,\"seconds\":%.3f,\"mb_s\":%.1f,\"files_s\":%.0f,"
           "\"client_cpu_s\":%.2f,\"cluster_cpu_s\":%.2f,\"client_rss_bytes\":%llu,\"chunks\":%llu,"
           "\"chunks_present\":%llu,\"bytes_sent\":%llu,\"wire_bytes\":%llu}\n",
           workload, (unsigned long long)moved->files, (unsigned long long)moved->bytes, seconds,
           (double)moved->bytes / seconds / 1e6, (double)moved->files / seconds, ret_result->cpu_s, cluster_s,
           (unsigned long long)ret_result->rss_bytes, (unsigned long long)moved->chunks,
           (unsigned long long)moved->chunks_present, (unsigned long long)moved->bytes_sent,
           (unsigned long long)moved->wire_bytes);
    fflush(stdout);
    if (moved->failed > 0) {
        fail(run, "%s: %llu files failed", workload, (unsigned long long)moved->failed);
    }
    return true;
}

static bool measure_unique(struct run *run, const char *workload, const char *local, const char *remote)
{
    struct bench_result result;
    if (!measure(run, workload, true, local, remote, &result)) {
        return false;
    }
    if (result.moved.chunks_present > 0) {
        fail(run, "%s: %llu chunks of bytes nobody has were there", workload,
             (unsigned long long)result.moved.chunks_present);
    }
    return true;
}

static void rest(struct run *run, const char *workload)
{
    if (wanted(run, "rest") && run->cluster->count > 0) {
        printf("{\"workload\":\"%s\",\"metad_rss_bytes\":%llu,\"blockd_rss_bytes\":%llu}\n", workload,
               (unsigned long long)cluster_rss_bytes(run->cluster, true),
               (unsigned long long)cluster_rss_bytes(run->cluster, false));
        fflush(stdout);
    }
}

/* ---- one large file ---- */

static void get_back(struct run *run, const char *remote, uint64_t seed)
{
    char path[BENCH_PATH + 16];
    struct bench_result result;
    snprintf(path, sizeof path, "%s/get.bin", run->options->dir);
    bool to_file = run->options->to_file;
    if (measure(run, "get", false, to_file ? path : NULL, remote, &result)) {
        if (result.moved.bytes != run->options->bytes) {
            fail(run, "get: %llu bytes came back", (unsigned long long)result.moved.bytes);
        }
        if (to_file && !generate_same(path, seed, run->options->bytes)) {
            fail(run, "get: other bytes came back");
        }
    }
    unlink(path);
}

static void put_again(struct run *run, const char *local, const char *remote)
{
    struct bench_result result;
    if (measure(run, "put-again", true, local, remote, &result) &&
        (result.moved.bytes_sent > 0 || result.moved.chunks_present != result.moved.chunks)) {
        fail(run, "put-again: %llu bytes were sent, %llu of %llu chunks were there",
             (unsigned long long)result.moved.bytes_sent, (unsigned long long)result.moved.chunks_present,
             (unsigned long long)result.moved.chunks);
    }
}

static void large(struct run *run, uint64_t seed)
{
    char path[BENCH_PATH + 16], remote[128];
    snprintf(path, sizeof path, "%s/put.bin", run->options->dir);
    snprintf(remote, sizeof remote, ":/bench/large-%llu", (unsigned long long)seed);
    if (!generate_file(path, seed, run->options->bytes, 0)) {
        run->ok = false;
    } else if (measure_unique(run, "put", path, remote)) {
        if (wanted(run, "get")) {
            get_back(run, remote, seed);
        }
        if (wanted(run, "put-again")) {
            snprintf(remote, sizeof remote, ":/bench/again-%llu", (unsigned long long)seed);
            put_again(run, path, remote);
        }
    }
    unlink(path);
}

/* ---- one byte before ---- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static bool insert_one(struct run *run, uint64_t seed, const char *path, uint64_t *ret_sent)
{
    char remote[128];
    struct bench_result result;
    snprintf(remote, sizeof remote, ":/bench/insert-%llu", (unsigned long long)seed);
    if (!generate_file(path, seed, run->options->insert_bytes, 0) ||
        !measure_unique(run, "insert-before", path, remote) ||
        !generate_file(path, seed, run->options->insert_bytes, 1) ||
        !measure(run, "insert-after", true, path, remote, &result)) {
        run->ok = false;
        return false;
    }
    *ret_sent = result.moved.bytes_sent;
    return true;
}

static void insert(struct run *run, uint64_t seed)
{
    char path[BENCH_PATH + 16];
    uint32_t seeds = run->options->insert_seeds, done = 0;
    uint64_t *sent = calloc(seeds, sizeof *sent);
    snprintf(path, sizeof path, "%s/insert.bin", run->options->dir);
    while (sent != NULL && done < seeds && insert_one(run, seed + done, path, &sent[done])) {
        done++;
    }
    unlink(path);
    if (done > 0) {
        qsort(sent, done, sizeof *sent, compare_numbers);
        printf("{\"workload\":\"insert\",\"bytes\":%llu,\"seeds\":%u,\"bytes_sent_median\":%llu,"
               "\"bytes_sent_max\":%llu}\n",
               (unsigned long long)run->options->insert_bytes, (unsigned)done, (unsigned long long)sent[done / 2],
               (unsigned long long)sent[done - 1]);
        fflush(stdout);
    }
    free(sent);
}

/* ---- many small files ---- */

static void small(struct run *run, uint64_t seed)
{
    char path[BENCH_PATH + 16], back[BENCH_PATH + 16], remote[128];
    struct bench_result result;
    const struct bench_options *options = run->options;
    snprintf(path, sizeof path, "%s/small", options->dir);
    snprintf(back, sizeof back, "%s/small-back", options->dir);
    snprintf(remote, sizeof remote, ":/bench/small-%llu", (unsigned long long)seed);
    if (!generate_tree(path, seed, options->small_files, options->small_bytes)) {
        run->ok = false;
    } else if (measure_unique(run, "small", path, remote) && wanted(run, "get-small")) {
        if (measure(run, "get-small", false, back, remote, &result) && result.moved.files != options->small_files) {
            fail(run, "get-small: %llu files came back", (unsigned long long)result.moved.files);
        }
        for (uint32_t i = 0; run->ok && i < options->small_files; i++) {
            char name[BENCH_PATH + 32];
            snprintf(name, sizeof name, "%s/%05u", back, (unsigned)i);
            if (!generate_same(name, seed + i, options->small_bytes)) {
                fail(run, "get-small: %s is not what was put", name);
            }
        }
        remove_tree(back);
    }
    remove_tree(path);
}

bool workloads_run(const struct bench_options *options, const struct bench_cluster *cluster)
{
    struct run run = {.options = options, .cluster = cluster, .ok = true};
    rest(&run, "rest");
    for (uint32_t i = 0; i < options->repeat; i++) {
        uint64_t seed = options->seed + ((uint64_t)i << 32);
        if (wanted(&run, "put") || wanted(&run, "get") || wanted(&run, "put-again")) {
            large(&run, seed);
        }
        if (wanted(&run, "small") || wanted(&run, "get-small")) {
            small(&run, seed + (1u << 20));
        }
        if (wanted(&run, "insert")) {
            insert(&run, seed + (2u << 20));
        }
    }
    rest(&run, "rest-after");
    return run.ok;
}
