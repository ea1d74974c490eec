/* The history: one JSON line per operation at invoke and one at completion, appended with one write each, so that
 * several processes can share a file. Checkers read it (DESIGN.md section 9).
 *
 *   {"id":N,"process":P,"op":"put","phase":"invoke","ns":T,"args":{...}}
 *   {"id":N,"process":P,"op":"put","phase":"complete","ns":T,"outcome":"ok|fail|unknown","error":"NAME","results":{...}}
 *
 * "unknown": a mutation whose answer never came; it may have happened. ns is CLOCK_MONOTONIC of the machine. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

int api_history_open(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

void api_json_string(const char *text, char *ret, size_t bytes)
{
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    CHECK(bytes > 16);
    ret[n++] = '"';
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0' && n + 8 < bytes; p++) {
        if (*p == '"' || *p == '\\') {
            ret[n++] = '\\';
            ret[n++] = (char)*p;
        } else if (*p < 0x20) {
            memcpy(ret + n, "\\u00", 4);
            ret[n + 4] = digits[*p >> 4];
            ret[n + 5] = digits[*p & 15];
            n += 6;
        } else {
            ret[n++] = (char)*p;
        }
    }
    ret[n++] = '"';
    ret[n] = '\0';
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void history_write(struct cairn *c, const char *line, int bytes, size_t capacity)
{
    if (bytes < 0 || (size_t)bytes >= capacity) {
        fprintf(stderr, "cairn: a line is too long for the history and is left out\n");
        return;
    }
    ssize_t wrote = write(c->history_fd, line, (size_t)bytes);
    if (wrote != bytes) {
        fprintf(stderr, "cairn: the history is incomplete: %s\n", wrote < 0 ? strerror(errno) : "short write");
    }
}

uint64_t api_history_invoke(struct cairn *c, const char *op, const char *args)
{
    if (c->history_fd < 0) {
        return 0;
    }
    pthread_mutex_lock(&c->lock);
    uint64_t number = ++c->history_next;
    pthread_mutex_unlock(&c->lock);
    char line[20000];
    int bytes = snprintf(line, sizeof line,
                         "{\"id\":%" PRIu64 ",\"process\":%ld,\"op\":\"%s\",\"phase\":\"invoke\",\"ns\":%" PRIu64
                         ",\"args\":%s}\n",
                         number, (long)getpid(), op, monotonic_ns(), args);
    history_write(c, line, bytes, sizeof line);
    return number;
}

void api_history_complete(struct cairn *c, uint64_t number, const char *op, bool mutation, enum err err,
                          const char *results)
{
    if (c->history_fd < 0) {
        return;
    }
    bool unknown =
        mutation && (err_class(err) == ERR_CLASS_RETRY || err_class(err) == ERR_CLASS_REDIRECT || err == ERR_INTERNAL);
    const char *outcome = err == ERR_OK ? "ok" : unknown ? "unknown" : "fail";
    char line[20000];
    int bytes = snprintf(line, sizeof line,
                         "{\"id\":%" PRIu64 ",\"process\":%ld,\"op\":\"%s\",\"phase\":\"complete\",\"ns\":%" PRIu64
                         ",\"outcome\":\"%s\",\"error\":\"%s\",\"results\":%s}\n",
                         number, (long)getpid(), op, monotonic_ns(), outcome, err_name(err), results);
    history_write(c, line, bytes, sizeof line);
}
