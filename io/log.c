/* JSON log lines. Stands beside everything; happy path: format into a stack buffer, one write(2). A failing write is
 * ignored: there is nowhere left to say so. A fatal line also goes to stderr, when that is not the log itself: whoever
 * started the process by hand sees why it ended. */
#include "io/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/name.h"

#define LOG_TEXT_BYTES 1024
#define LOG_LINE_BYTES (LOG_TEXT_BYTES * 6 + 512)

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static bool log_stderr_differs;
static char log_node[48] = "-";
static _Thread_local const char *log_thread_node;

static void log_check_failed(const char *file, int line, const char *function, const char *condition)
{
    io_log(LOG_FATAL, ERR_INTERNAL, "%s:%d: in %s: broken: %s", file, line, function, condition);
}

static bool same_file(int a, int b)
{
    struct stat first, second;
    return fstat(a, &first) == 0 && fstat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

void io_log_set(int fd, const char *node)
{
    pthread_mutex_lock(&log_lock);
    log_fd = fd;
    log_stderr_differs = fd >= 0 && !same_file(fd, STDERR_FILENO);
    snprintf(log_node, sizeof log_node, "%s", node);
    pthread_mutex_unlock(&log_lock);
    check_report_set(log_check_failed);
}

void io_log_set_thread(const char *node)
{
    log_thread_node = node;
}

/* Appends `text` as the inside of a JSON string. UTF-8 stays as it is; where it is none, all above ASCII is \u00xx. */
static void log_escape(const char *text, char *ret, size_t capacity)
{
    bool utf8 = name_is_utf8(text, strlen(text));
    size_t used = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p && used + 8 < capacity; p++) {
        if (*p == '"' || *p == '\\') {
            ret[used++] = '\\';
            ret[used++] = (char)*p;
        } else if (*p < 0x20 || *p == 0x7f || (*p > 0x7f && !utf8)) {
            used += (size_t)snprintf(ret + used, capacity - used, "\\u%04x", *p);
        } else {
            ret[used++] = (char)*p;
        }
    }
    ret[used] = 0;
}

static void log_line(enum level level, enum err err, const char *request, const char *format, va_list args)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "fatal"};
    char text[LOG_TEXT_BYTES], escaped[LOG_TEXT_BYTES * 6], line[LOG_LINE_BYTES], when[40], asked[96] = "";
    vsnprintf(text, sizeof text, format, args);
    log_escape(text, escaped, sizeof escaped);
    if (request != NULL) {
        snprintf(asked, sizeof asked, "\"request\":\"%.70s\",", request);
    }
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &utc);

    pthread_mutex_lock(&log_lock);
    int bytes =
        snprintf(line, sizeof line,
                 "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"code\":\"%s\",\"node\":\"%s\",%s\"text\":\"%s\"}\n", when,
                 now.tv_nsec / 1000000, names[level], err_name(err), log_thread_node ? log_thread_node : log_node,
                 asked, escaped);
    if (bytes > 0 && (size_t)bytes < sizeof line) {
        ssize_t written = write(log_fd >= 0 ? log_fd : STDERR_FILENO, line, (size_t)bytes);
        if (level == LOG_FATAL && log_stderr_differs) {
            written = write(STDERR_FILENO, line, (size_t)bytes);
        }
        (void)written;
    }
    pthread_mutex_unlock(&log_lock);
}

void io_log(enum level level, enum err err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(level, err, NULL, format, args);
    va_end(args);
}

void io_log_request(enum level level, enum err err, const char *request, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(level, err, request, format, args);
    va_end(args);
}
