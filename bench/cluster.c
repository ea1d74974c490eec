/* The cluster that is measured: one of `cairn dev`, made here or named by its client.toml, and what /proc says of its
 * processes. A cluster that `cairn dev ps` does not know can be measured too, without figures of its processes. */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char **environ;

static bool find_cairn(struct bench_cluster *cluster)
{
    char self[PATH_MAX];
    ssize_t bytes = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = NULL;
    if (bytes > 0) {
        self[bytes] = '\0';
        slash = strrchr(self, '/');
    }
    if (slash == NULL) {
        return false;
    }
    snprintf(cluster->cairn, sizeof cluster->cairn, "%.*s/cairn", (int)(slash - self), self);
    return access(cluster->cairn, X_OK) == 0;
}

/* `cairn dev VERB --dir DIR --json`, its output in `ret_text`. The exit code, or -1. */
static int dev_run(const struct bench_cluster *cluster, const char *verb, char *ret_text, size_t text_bytes)
{
    char dir[BENCH_PATH], name[] = "cairn", dev[] = "dev", flag[] = "--dir", json[] = "--json", what[16];
    snprintf(dir, sizeof dir, "%s", cluster->dir);
    snprintf(what, sizeof what, "%s", verb);
    char *args[] = {name, dev, what, flag, dir, json, NULL};
    int ends[2], status = 0;
    pid_t pid;
    if (pipe(ends) != 0) {
        return -1;
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    posix_spawn_file_actions_addclose(&actions, ends[1]);
    bool started = posix_spawn(&pid, cluster->cairn, &actions, NULL, args, environ) == 0;
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    size_t done = 0;
    while (started && done + 1 < text_bytes) {
        ssize_t n = read(ends[0], ret_text + done, text_bytes - 1 - done);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            break;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    ret_text[done] = '\0';
    close(ends[0]);
    bool ended = started && waitpid(pid, &status, 0) == pid && WIFEXITED(status);
    return ended ? WEXITSTATUS(status) : -1;
}

/* Lines of `dev ps --json`. */
static void processes_read(struct bench_cluster *cluster)
{
    static char text[64 << 10];
    cluster->count = 0;
    if (dev_run(cluster, "ps", text, sizeof text) != 0) {
        return;
    }
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && cluster->count < BENCH_PROCESSES;) {
        const char *pid = strstr(line, "\"pid\":");
        if (pid != NULL && strstr(line, "\"alive\":true") != NULL) {
            cluster->processes[cluster->count++] = (struct bench_process){
                .metad = strstr(line, "\"role\":\"metad\"") != NULL,
                .pid = (pid_t)strtol(pid + 6, NULL, 10),
            };
        }
    }
}

bool cluster_make(struct bench_cluster *cluster, const char *work_dir)
{
    char text[4096];
    if (!find_cairn(cluster)) {
        fprintf(stderr, "cairn-bench: the program cairn is not beside this one\n");
        return false;
    }
    snprintf(cluster->dir, sizeof cluster->dir, "%.*s/cluster", PATH_MAX, work_dir);
    snprintf(cluster->config, sizeof cluster->config, "%.*s/cluster/client.toml", PATH_MAX, work_dir);
    cluster->ours = true;
    if (dev_run(cluster, "up", text, sizeof text) != 0) {
        fprintf(stderr, "cairn-bench: no cluster in %s\n", cluster->dir);
        return false;
    }
    processes_read(cluster);
    return true;
}

bool cluster_use(struct bench_cluster *cluster, const char *config)
{
    if (access(config, R_OK) != 0) {
        fprintf(stderr, "cairn-bench: %s: %m\n", config);
        return false;
    }
    snprintf(cluster->config, sizeof cluster->config, "%s", config);
    const char *slash = strrchr(config, '/');
    snprintf(cluster->dir, sizeof cluster->dir, "%.*s", slash == NULL ? 1 : (int)(slash - config),
             slash == NULL ? "." : config);
    char marker[BENCH_PATH + 16];
    snprintf(marker, sizeof marker, "%s/dev.toml", cluster->dir);
    if (access(marker, R_OK) == 0 && find_cairn(cluster)) {
        processes_read(cluster);
    }
    return true;
}

void cluster_end(struct bench_cluster *cluster)
{
    char text[4096];
    if (cluster->ours && dev_run(cluster, "down", text, sizeof text) == 0) {
        remove_tree(cluster->dir);
    }
}

int cluster_borrow(const char *dir, bool (*run)(const void *options, struct bench_cluster *cluster),
                   const void *options)
{
    static struct bench_cluster cluster;
    char work[BENCH_PATH], text[4096];
    snprintf(work, sizeof work, "%s/cairn-bench-XXXXXX", dir);
    if (mkdtemp(work) == NULL) {
        fprintf(stderr, "cairn-bench: %s: %m\n", work);
        return 1;
    }
    bool ok = cluster_make(&cluster, work) && dev_run(&cluster, "down", text, sizeof text) == 0;
    cluster.count = 0;
    ok = ok && run(options, &cluster);
    cluster_end(&cluster);
    if (rmdir(work) != 0) {
        fprintf(stderr, "cairn-bench: %s: %m\n", work);
    }
    return ok ? 0 : 1;
}

/* utime and stime are the 12th and 13th field after the name in brackets. */
static double process_cpu_s(pid_t pid)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    size_t bytes = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[bytes] = '\0';
    const char *end = strrchr(text, ')');
    if (end != NULL) {
        (void)sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    }
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

double cluster_cpu_s(const struct bench_cluster *cluster)
{
    double seconds = 0;
    for (unsigned i = 0; i < cluster->count; i++) {
        seconds += process_cpu_s(cluster->processes[i].pid);
    }
    return seconds;
}

static uint64_t process_rss_bytes(pid_t pid)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "VmRSS: %llu", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return (uint64_t)kib << 10;
}

uint64_t cluster_rss_bytes(const struct bench_cluster *cluster, bool metad)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < cluster->count; i++) {
        uint64_t bytes = cluster->processes[i].metad == metad ? process_rss_bytes(cluster->processes[i].pid) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}
