/* cairn-bench: how fast a cluster takes and gives, from outside, by the public library. It makes a cluster of
 * `cairn dev` in a folder of its own and removes it, or measures the one that is named. See README.md. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "bench.h"

static const char usage[] =
    "usage: cairn-bench [--dev | --config FILE] [OPTION...]\n"
    "       cairn-bench raft [OPTION...]      consensus alone\n"
    "       cairn-bench log [OPTION...]       a node's log alone\n\n"
    "Prints one JSON object a line; exit code 1 when a workload failed or was not what it must be.\n"
    "  --dev              a cluster made for this and removed afterwards (the default)\n"
    "  --config FILE      the client.toml of a cluster that runs\n"
    "  --dir DIR          where files and the cluster are made (the environment's TMPDIR, or /tmp)\n"
    "  --only NAME,...    of: rest put get put-again insert small get-small (put goes before get)\n"
    "  --bytes N          of the large file (2G; suffixes K, M, G of 1024)\n"
    "  --file             get into a file, synced, and compare it, instead of into nothing\n"
    "  --small-files N    (10000)     --small-bytes N   (4K)     --threads N  files at once (16)\n"
    "  --insert-bytes N   (1G)        --insert-seeds N  (5)\n"
    "  --repeat N         everything so often (1)\n"
    "  --seed N           of the files (another one each time)\n";

static bool parse_bytes(const char *text, uint64_t *ret_bytes)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    const char *units = "KMG", *unit = *end == '\0' ? NULL : strchr(units, *end);
    if (end == text || (*end != '\0' && (unit == NULL || end[1] != '\0'))) {
        return false;
    }
    unsigned shift = unit == NULL ? 0 : 10 * (unsigned)(unit - units + 1);
    if (value > (UINT64_MAX >> shift)) {
        return false;
    }
    *ret_bytes = (uint64_t)value << shift;
    return true;
}

bool bench_number(const char *text, uint32_t *ret_number)
{
    uint64_t number;
    if (!parse_bytes(text, &number) || number == 0 || number > 1u << 30) {
        return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

enum { DEV = 1, CONFIG, DIR, ONLY, BYTES, TO_FILE, FILES, FILE_BYTES, THREADS, INSERT, SEEDS, REPEAT, SEED, HELP };
static const struct option long_options[] = {
    {"dev", no_argument, NULL, DEV},
    {"config", required_argument, NULL, CONFIG},
    {"dir", required_argument, NULL, DIR},
    {"only", required_argument, NULL, ONLY},
    {"bytes", required_argument, NULL, BYTES},
    {"file", no_argument, NULL, TO_FILE},
    {"small-files", required_argument, NULL, FILES},
    {"small-bytes", required_argument, NULL, FILE_BYTES},
    {"threads", required_argument, NULL, THREADS},
    {"insert-bytes", required_argument, NULL, INSERT},
    {"insert-seeds", required_argument, NULL, SEEDS},
    {"repeat", required_argument, NULL, REPEAT},
    {"seed", required_argument, NULL, SEED},
    {"json", no_argument, NULL, DEV},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

static bool option_take(int option, struct bench_options *options, const char **ret_config)
{
    switch (option) {
    case DEV:
        return true;
    case CONFIG:
        *ret_config = optarg;
        return true;
    case DIR:
        options->dir = optarg;
        return true;
    case ONLY:
        options->only = optarg;
        return true;
    case BYTES:
        return parse_bytes(optarg, &options->bytes) && options->bytes > 0;
    case TO_FILE:
        options->to_file = true;
        return true;
    case FILES:
        return bench_number(optarg, &options->small_files);
    case FILE_BYTES:
        return parse_bytes(optarg, &options->small_bytes) && options->small_bytes > 0;
    case THREADS:
        return bench_number(optarg, &options->threads);
    case INSERT:
        return parse_bytes(optarg, &options->insert_bytes) && options->insert_bytes > 0;
    case SEEDS:
        return bench_number(optarg, &options->insert_seeds);
    case REPEAT:
        return bench_number(optarg, &options->repeat);
    case SEED:
        return parse_bytes(optarg, &options->seed);
    default:
        return false;
    }
}

static int run(struct bench_options *options, const char *config)
{
    char work[BENCH_PATH];
    static struct bench_cluster cluster;
    snprintf(work, sizeof work, "%s/cairn-bench-XXXXXX", options->dir);
    if (mkdtemp(work) == NULL) {
        fprintf(stderr, "cairn-bench: %s: %m\n", work);
        return 1;
    }
    options->dir = work;
    bool ok = config != NULL ? cluster_use(&cluster, config) : cluster_make(&cluster, work);
    ok = ok && workloads_run(options, &cluster);
    cluster_end(&cluster);
    if (rmdir(work) != 0) {
        fprintf(stderr, "cairn-bench: %s: %m\n", work);
    }
    return ok ? 0 : 1;
}

const char *bench_tmp(void)
{
    const char *tmp = getenv("TMPDIR");
    return tmp != NULL && tmp[0] != '\0' ? tmp : "/tmp";
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "raft") == 0) {
        return raft_main(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "log") == 0) {
        return log_main(argc - 1, argv + 1);
    }
    const char *config = NULL;
    struct bench_options options = {
        .bytes = 2ull << 30,
        .insert_bytes = 1ull << 30,
        .small_bytes = 4096,
        .insert_seeds = 5,
        .small_files = 10000,
        .repeat = 1,
        .dir = bench_tmp(),
    };
    if (getrandom(&options.seed, sizeof options.seed, 0) != (ssize_t)sizeof options.seed) {
        return 1;
    }
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;) {
        if (option == HELP) {
            fputs(usage, stdout);
            return 0;
        }
        if (!option_take(option, &options, &config)) {
            fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fputs(usage, stderr);
        return 2;
    }
    return run(&options, config);
}
