/* `cairn-bench log`: the node's log alone. One actor appends entries of one group, then the log is opened again as
 * after a crash: how long until it has read and checked every record and says what it holds. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "bench.h"
#include "io/runtime.h"
#include "metad/host/log.h"
#include "proto/message.h"

static const char log_usage[] = "usage: cairn-bench log [OPTION...]\n\n"
                                "Prints one JSON object: records appended and read back at start, a second.\n"
                                "  --records N   (2000000)\n"
                                "  --bytes N     of a record's data (256)\n"
                                "  --batch N     records of one append (1000)\n"
                                "  --dir DIR     where the log lies (the environment's TMPDIR, or /tmp)\n";

struct log_options {
    uint32_t records, bytes, batch;
    const char *dir;
};

/* The group that appends, or only asks. */
struct feeder {
    struct runtime *runtime;
    const struct log_options *options;
    bool append;
    uint64_t begin_ns, end_ns, last, number;
    struct slice data;
};

static void feeder_send(struct effects *fx, uint16_t type, struct writer *header, struct slice body)
{
    fx_send(fx, address_local(ACTOR_LOG, 0), type, 0, writer_take(header), body);
    writer_deinit(header);
}

static void feeder_append(struct feeder *feeder, struct effects *fx)
{
    uint64_t left = feeder->options->records - feeder->last;
    uint32_t count = left < feeder->options->batch ? (uint32_t)left : feeder->options->batch;
    struct raft_entry *entries = mem_alloc(count * sizeof *entries);
    struct writer header = {0};
    struct slice body = {0};
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = (struct raft_entry){++feeder->last, 1, RAFT_ENTRY_COMMANDS, feeder->data};
    }
    raft_entries_encode(entries, count, &body);
    writer_u32(&header, 0);
    writer_u64(&header, ++feeder->number);
    writer_u8(&header, feeder->number == 1);
    writer_u64(&header, 1);
    writer_u32(&header, 0);
    feeder_send(fx, MESSAGE_LOG_APPEND, &header, body);
    free(entries);
}

static void feeder_step(void *actor, const struct event *event, struct effects *fx)
{
    struct feeder *feeder = actor;
    if (event->kind == EVENT_TIMER) {
        struct writer header = {0};
        feeder->begin_ns = event->now_ns;
        writer_u32(&header, 0);
        feeder_send(fx, MESSAGE_LOG_OPEN, &header, (struct slice){0});
        return;
    }
    CHECK(event->kind == EVENT_MESSAGE && !(event->message.flags & MESSAGE_ERROR));
    if (event->message.type == MESSAGE_LOG_PINNED) {
        return; /* nothing is flushed here: the log stays whole */
    }
    if (event->message.type == MESSAGE_LOG_OPEN) {
        struct reader reader = reader_of(event->message.header.data, event->message.header.bytes);
        reader_take(&reader, 12);
        uint64_t last = reader_u64(&reader);
        CHECK(last == (feeder->append ? 0 : feeder->options->records));
    }
    if (feeder->append && feeder->last < feeder->options->records) {
        feeder_append(feeder, fx);
    } else {
        feeder->end_ns = event->now_ns;
        runtime_stop(feeder->runtime);
    }
}

/* One life of the log; live: its seconds from the first step to the end. */
struct life {
    const struct log_options *options;
    const char *cluster_dir;
    bool append;
};

static bool live(const void *context, void *ret_seconds)
{
    const struct life *life = context;
    const struct log_options *options = life->options;
    const char *cluster_dir = life->cluster_dir;
    char ca[BENCH_PATH + 64], cert[BENCH_PATH + 64], key[BENCH_PATH + 64], text[256] = "", dir[BENCH_PATH + 64];
    snprintf(ca, sizeof ca, "%s/ca.crt", cluster_dir);
    snprintf(cert, sizeof cert, "%s/metad1/node.crt", cluster_dir);
    snprintf(key, sizeof key, "%s/metad1/node.key", cluster_dir);
    snprintf(dir, sizeof dir, "%s/metad1/bench", cluster_dir);
    struct feeder feeder = {.options = options, .append = life->append};
    struct runtime_config config = {
        .role = ROLE_METAD, .id = 1, .ca_file = ca, .cert_file = cert, .key_file = key, .loops = 1, .workers = 1};
    struct log_params params = {.segment_bytes = LIMIT_LOG_SEGMENT_BYTES};
    struct file_info *files = NULL;
    int lock = -1;
    enum err err = runtime_create(&config, &feeder.runtime, text);
    if (err == ERR_OK) {
        err = runtime_directory_open(dir, &lock, text);
    }
    if (err == ERR_OK) {
        err = runtime_directory_list(dir, FILE_LOG, &files, &params.file_count);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "cairn-bench: %s (%s)\n", text, err_name(err));
        return false;
    }
    params.files = files;
    memset(params.directory.bytes, 1, sizeof params.directory.bytes);
    feeder.data = slice_alloc(options->bytes);
    memset(feeder.data.data, 0x5a, options->bytes);
    struct log *log = log_create(&params);
    runtime_add_actor(feeder.runtime, 0, ACTOR_LOG, 0, log_step, log, dir, NULL);
    runtime_add_actor(feeder.runtime, 0, ACTOR_GROUP, 0, feeder_step, &feeder, NULL, NULL);
    int code = runtime_run(feeder.runtime, 0);
    runtime_destroy(feeder.runtime);
    log_destroy(log);
    slice_drop(&feeder.data);
    free(files);
    close(lock);
    *(double *)ret_seconds = (double)(feeder.end_ns - feeder.begin_ns) / 1e9;
    return code == 0;
}

static bool run(const void *context, struct bench_cluster *cluster)
{
    const struct log_options *options = context;
    double append_s, append_cpu_s, scan_s, scan_cpu_s;
    uint64_t rss_bytes;
    struct life life = {options, cluster->dir, true};
    bool ok = child_apart(live, &life, &append_s, sizeof append_s, &append_cpu_s, &rss_bytes);
    life.append = false;
    if (!ok || !child_apart(live, &life, &scan_s, sizeof scan_s, &scan_cpu_s, &rss_bytes)) {
        fprintf(stderr, "cairn-bench: the run on the log failed\n");
        return false;
    }
    printf(
        "{\"workload\":\"log\",\"records\":%u,\"bytes\":%u,\"batch\":%u,\"append_s\":%.3f,\"append_per_second\":%.0f,"
        "\"append_cpu_s\":%.2f,\"scan_s\":%.3f,\"scan_per_second\":%.0f,\"scan_cpu_s\":%.2f}\n",
        options->records, options->bytes, options->batch, append_s, options->records / append_s, append_cpu_s, scan_s,
        options->records / scan_s, scan_cpu_s);
    return true;
}

static bool options_take(int argc, char **argv, struct log_options *options)
{
    enum { RECORDS = 1, BYTES, BATCH, DIR };
    static const struct option longs[] = {{"records", required_argument, NULL, RECORDS},
                                          {"bytes", required_argument, NULL, BYTES},
                                          {"batch", required_argument, NULL, BATCH},
                                          {"dir", required_argument, NULL, DIR},
                                          {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        bool right = false;
        if (option == RECORDS) {
            right = bench_number(optarg, &options->records);
        } else if (option == BYTES) {
            right = bench_number(optarg, &options->bytes);
        } else if (option == BATCH) {
            right = bench_number(optarg, &options->batch) && options->batch <= 4096;
        } else if (option == DIR) {
            options->dir = optarg;
            right = true;
        }
        if (!right) {
            return false;
        }
    }
    return optind == argc && (uint64_t)options->batch * options->bytes <= 1u << 20;
}

int log_main(int argc, char **argv)
{
    struct log_options options = {.records = 2000000, .bytes = 256, .batch = 1000, .dir = bench_tmp()};
    if (!options_take(argc, argv, &options)) {
        fputs(log_usage, stderr);
        return 2;
    }
    return cluster_borrow(options.dir, run, &options);
}
