/* The history: one JSON line per operation at invoke and one at completion, appended with one write each, so that
 * several processes can share a file. Checkers read it (DESIGN.md section 9).
 *
 *   {"id":N,"process":P,"op":"put","phase":"invoke","ns":T,"args":{...}}
 *   {"id":N,"process":P,"op":"put","phase":"complete","ns":T,"outcome":"ok|fail|unknown","error":"NAME","results":{...}}
 *
 * "unknown": a mutation whose answer never came; it may have happened. ns is CLOCK_MONOTONIC of the machine. What
 * stands in args and results of each operation: tests/check/history_read.c, which takes them apart. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
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

/* One write a line, so that processes can share the file. */
static void history_write(struct cairn *c, struct writer *line)
{
    writer_put(line, "}\n", 2);
    ssize_t wrote = write(c->history_fd, line->data, line->bytes);
    if (wrote != (ssize_t)line->bytes) {
        fprintf(stderr, "cairn: the history is incomplete: %s\n", wrote < 0 ? strerror(errno) : "short write");
    }
    writer_deinit(line);
}

bool api_history_kept(const struct cairn *c)
{
    return c->history_fd >= 0;
}

void api_json_add(struct writer *json, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    CHECK(bytes >= 0 && (size_t)bytes < sizeof text);
    writer_put(json, text, (size_t)bytes);
}

void api_json_add_string(struct writer *json, const char *name, const char *value)
{
    size_t bytes = 6 * strlen(value) + 32;
    char *quoted = mem_alloc(bytes);
    api_json_string(value, quoted, bytes);
    api_json_add(json, "%s\"%s\":", json->bytes > 0 && json->data[json->bytes - 1] != '{' ? "," : "", name);
    writer_put(json, quoted, strlen(quoted));
    free(quoted);
}

void api_json_add_content(struct writer *json, uint64_t content)
{
    if (content != 0) {
        api_json_add(json, ",\"content\":\"%016" PRIx64 "\"", content);
    }
}

uint64_t api_content_begin(void)
{
    return 0xcbf29ce484222325ull;
}

/* FNV-1a over 64 bits: it tells the files of a test from each other, and no more is asked of it. */
uint64_t api_content_add(uint64_t content, const void *data, size_t bytes)
{
    for (const uint8_t *p = data, *end = p + bytes; p < end; p++) {
        content = (content ^ *p) * 0x100000001b3ull;
    }
    return content != 0 ? content : 1;
}

uint64_t api_history_invoke(struct cairn *c, const char *op, struct writer *args)
{
    uint64_t number = 0;
    if (api_history_kept(c)) {
        pthread_mutex_lock(&c->lock);
        number = ++c->history_next;
        pthread_mutex_unlock(&c->lock);
        struct writer line = {0};
        api_json_add(&line,
                     "{\"id\":%" PRIu64 ",\"process\":%ld,\"op\":\"%s\",\"phase\":\"invoke\",\"ns\":%" PRIu64
                     ",\"args\":",
                     number, (long)getpid(), op, monotonic_ns());
        writer_put(&line, args->data, args->bytes);
        history_write(c, &line);
    }
    writer_deinit(args);
    return number;
}

void api_history_complete(struct cairn *c, uint64_t number, const char *op, bool mutation, enum err err,
                          struct writer *results)
{
    bool open = err_class(err) == ERR_CLASS_RETRY || err_class(err) == ERR_CLASS_REDIRECT || err == ERR_INTERNAL;
    const char *outcome = err == ERR_OK ? "ok" : mutation && open ? "unknown" : "fail";
    if (api_history_kept(c)) {
        struct writer line = {0};
        api_json_add(&line,
                     "{\"id\":%" PRIu64 ",\"process\":%ld,\"op\":\"%s\",\"phase\":\"complete\",\"ns\":%" PRIu64
                     ",\"outcome\":\"%s\",\"error\":\"%s\",\"results\":",
                     number, (long)getpid(), op, monotonic_ns(), outcome, err_name(err));
        if (results->bytes > 0) {
            writer_put(&line, results->data, results->bytes);
        } else {
            writer_put(&line, "{}", 2);
        }
        history_write(c, &line);
    }
    writer_deinit(results);
}
