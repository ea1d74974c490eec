/* What the parts of cairn-bench share: main.c options and order, workload.c what is measured, cluster.c the cluster
 * and what its processes use, child.c one workload in a process of its own, generate.c files nobody has seen, raft.c
 * with raft_host.c consensus alone, log.c a node's log alone. */
#ifndef CAIRN_BENCH_H
#define CAIRN_BENCH_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cairn.h"

#define BENCH_PROCESSES 128
#define BENCH_PATH      (PATH_MAX + 64)

struct bench_process {
    bool metad;
    pid_t pid;
};

struct bench_cluster {
    char config[BENCH_PATH]; /* client.toml */
    char dir[BENCH_PATH];    /* its folder: where `cairn dev` keeps the cluster */
    char cairn[BENCH_PATH];  /* the program beside this one */
    bool ours;               /* made here, and removed at the end */
    struct bench_process processes[BENCH_PROCESSES];
    unsigned count; /* 0: not on this machine */
};

/* false: said why on stderr. */
bool cluster_make(struct bench_cluster *cluster, const char *work_dir);
bool cluster_use(struct bench_cluster *cluster, const char *config);
/* Takes down and removes what cluster_make made. */
void cluster_end(struct bench_cluster *cluster);
/* Runs `run` beside a cluster whose processes have ended: for its certificates and addresses. The exit code. */
int cluster_borrow(const char *dir, bool (*run)(const void *options, struct bench_cluster *cluster),
                   const void *options);
/* CPU seconds of all its processes so far. */
double cluster_cpu_s(const struct bench_cluster *cluster);
/* Largest resident memory now of a process of one role; 0: there is none. */
uint64_t cluster_rss_bytes(const struct bench_cluster *cluster, bool metad);

/* What a workload did, as its process tells it. */
struct bench_result {
    int code;       /* of the library */
    double seconds; /* of the call alone */
    struct cairn_moved moved;
    char text[CAIRN_TEXT_BYTES];
    double cpu_s; /* of the process, from its start to its end */
    uint64_t rss_bytes;
};
struct bench_job {
    const char *config;
    bool upload;
    const char *local; /* of a get: NULL throws the bytes away */
    const char *remote;
    unsigned threads;
};
/* `work` in a process of its own; its result comes back, and what the process used. false: it failed. */
bool child_apart(bool (*work)(const void *context, void *result), const void *context, void *ret_result, size_t bytes,
                 double *ret_cpu_s, uint64_t *ret_rss_bytes);
/* Runs one put or get in a process of its own. false: said why. */
bool child_run(const struct bench_job *job, struct bench_result *ret_result);

/* Incompressible bytes that are a function of the seed. The file is on the disk when this returns. `front` bytes of
 * another seed come before. */
bool generate_file(const char *path, uint64_t seed, uint64_t bytes, uint64_t front);
bool generate_tree(const char *path, uint64_t seed, uint32_t files, uint64_t bytes);
/* A folder and all in it. */
void remove_tree(const char *path);
/* Bytes of the file `path` are those of the seed. */
bool generate_same(const char *path, uint64_t seed, uint64_t bytes);
double bench_now_s(void);

struct bench_options {
    uint64_t bytes, insert_bytes, small_bytes;
    uint32_t insert_seeds, small_files, threads, repeat;
    uint64_t seed;
    bool to_file; /* get into a file, not into nothing */
    const char *dir;
    const char *only; /* comma separated names; NULL: all */
};
/* Runs what is asked for and prints a line each; false when something failed. */
bool workloads_run(const struct bench_options *options, const struct bench_cluster *cluster);

/* A number from 1 to 2^30, with a suffix K, M, G of 1024. */
bool bench_number(const char *text, uint32_t *ret_number);
/* TMPDIR of the environment, or /tmp. */
const char *bench_tmp(void);

/* `cairn-bench raft` and `cairn-bench log`: their exit codes. */
int raft_main(int argc, char **argv);
int log_main(int argc, char **argv);

#endif
