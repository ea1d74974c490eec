/* JSON log lines. Stands beside everything; happy path: format into a stack buffer, one write(2). A failing write is
 * ignored: there is nowhere left to say so. */
#include "io/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOG_TEXT_BYTES 1024

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static char log_node[48] = "-";
static _Thread_local const char *log_thread_node;

void io_log_set(int fd, const char *node)
{
    pthread_mutex_lock(&log_lock);
    log_fd = fd;
    snprintf(log_node, sizeof log_node, "%s", node);
    pthread_mutex_unlock(&log_lock);
}

void io_log_set_thread(const char *node)
{
    log_thread_node = node;
}

/* Escapes `text` as the inside of a JSON string; control bytes and bytes over 0x7e become \u00xx. */
static void log_escape(const char *text, char *ret, size_t capacity)
{
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p && used + 8 < capacity; p++) {
        if (*p == '"' || *p == '\\') {
            ret[used++] = '\\';
            ret[used++] = (char)*p;
        } else if (*p < 0x20 || *p > 0x7e) {
            used += (size_t)snprintf(ret + used, capacity - used, "\\u%04x", *p);
        } else {
            ret[used++] = (char)*p;
        }
    }
    ret[used] = 0;
}

void io_log(enum level level, enum err err, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "fatal"};
    char text[LOG_TEXT_BYTES], escaped[LOG_TEXT_BYTES * 2], line[LOG_TEXT_BYTES * 2 + 256], when[40];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    log_escape(text, escaped, sizeof escaped);

    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);

    pthread_mutex_lock(&log_lock);
    int bytes = snprintf(line, sizeof line,
                         "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"code\":\"%s\",\"node\":\"%s\",\"%s\":\"%s\"}\n",
                         when, now.tv_nsec / 1000000, names[level], err_name(err),
                         log_thread_node ? log_thread_node : log_node, level == LOG_FATAL ? "reason" : "text", escaped);
    if (bytes > 0) {
        ssize_t written = write(log_fd >= 0 ? log_fd : STDERR_FILENO, line, (size_t)bytes);
        (void)written;
    }
    pthread_mutex_unlock(&log_lock);
}
