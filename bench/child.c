/* One workload in a process of its own, so that its peak memory and CPU are its own and nothing is warm. The process
 * tells its result through a pipe; the parent adds what the system says of it at its end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static int nothing_write(void *context, const void *data, size_t bytes)
{
    (void)context;
    (void)data;
    (void)bytes;
    return 0;
}

static bool job_do(const void *context, void *ret_result)
{
    const struct bench_job *job = context;
    struct bench_result *result = ret_result;
    struct cairn *cairn = NULL;
    struct cairn_error error = {0};
    struct cairn_options options = {.config_file = job->config};
    struct cairn_transfer transfer = {.threads = job->threads};
    result->moved.safe_losses = UINT32_MAX;
    result->code = cairn_open(&options, &cairn, &error);
    if (result->code == 0) {
        double begin = bench_now_s();
        if (job->upload) {
            result->code = cairn_put(cairn, job->local, job->remote, &transfer, &result->moved, &error);
        } else if (job->local != NULL) {
            result->code = cairn_get(cairn, job->remote, job->local, &transfer, &result->moved, &error);
        } else {
            result->code = cairn_get_stream(cairn, job->remote, nothing_write, NULL, &result->moved, &error);
        }
        result->seconds = bench_now_s() - begin;
        result->moved.wire_bytes = cairn_wire_bytes(cairn);
        cairn_close(cairn);
    }
    snprintf(result->text, sizeof result->text, "%s", error.text);
    return true;
}

static bool read_all(int fd, void *data, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = read(fd, (char *)data + done, bytes - done);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

bool child_apart(bool (*work)(const void *context, void *result), const void *context, void *ret_result, size_t bytes,
                 double *ret_cpu_s, uint64_t *ret_rss_bytes)
{
    int ends[2], status = 0;
    struct rusage usage;
    if (pipe(ends) != 0) {
        perror("cairn-bench: pipe");
        return false;
    }
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        bool done = work(context, ret_result) && write(ends[1], ret_result, bytes) == (ssize_t)bytes;
        _exit(done ? 0 : 1);
    }
    close(ends[1]);
    bool told = pid > 0 && read_all(ends[0], ret_result, bytes);
    close(ends[0]);
    if (pid < 0 || wait4(pid, &status, 0, &usage) != pid || !told) {
        return false;
    }
    *ret_cpu_s = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 + (double)usage.ru_stime.tv_sec +
                 (double)usage.ru_stime.tv_usec / 1e6;
    *ret_rss_bytes = (uint64_t)usage.ru_maxrss << 10;
    return true;
}

bool child_run(const struct bench_job *job, struct bench_result *ret_result)
{
    double cpu_s;
    uint64_t rss_bytes;
    memset(ret_result, 0, sizeof *ret_result);
    if (!child_apart(job_do, job, ret_result, sizeof *ret_result, &cpu_s, &rss_bytes)) {
        fprintf(stderr, "cairn-bench: %s: the process of the workload ended before it was through\n", job->remote);
        return false;
    }
    if (ret_result->code != 0) {
        fprintf(stderr, "cairn-bench: %s: %s (%s)\n", job->remote, ret_result->text,
                cairn_error_name(ret_result->code));
        return false;
    }
    ret_result->cpu_s = cpu_s;
    ret_result->rss_bytes = rss_bytes;
    return true;
}
