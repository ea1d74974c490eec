/* The process's log, one JSON object a line, to stderr or the file the configuration names:
 *
 *   {"time":"2026-11-24T08:40:00.123Z","level":"warn","code":"WRONG_GROUP","node":"metad:2","request":"device:1/77",
 *    "text":"..."}
 *
 *   time     UTC, a label           code  a name of base/err.def; OK: no code of interest
 *   level    debug info warn error fatal
 *   node     role:number; "-" before the configuration was read
 *   request  only where the line speaks of one: who asked, and the number it gave its request
 *
 * One write per line, so lines of several threads do not mix. Secrets never go through here. Everything a daemon says
 * is such a line; a fatal one goes to stderr too. */
#ifndef CAIRN_IO_LOG_H
#define CAIRN_IO_LOG_H

#include "base/err.h"

enum level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL };

/* Writes one line. Any thread. A line is at most 1 KiB of text; the rest is cut. */
void io_log(enum level level, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The same about a request. */
void io_log_request(enum level level, enum err err, const char *request, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Where lines of this process go from now on (borrowed descriptor; -1: stderr), and which node they name. Broken
 * invariants (base/check.h) become lines too. */
void io_log_set(int fd, const char *node);
/* The node named by lines of the calling thread; NULL: the process's. Borrowed for as long as the thread logs. */
void io_log_set_thread(const char *node);

#endif
