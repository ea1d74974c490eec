/* The process's log: JSON lines with time, level, code, node and text, to stderr or the file the configuration names.
 * One write per line, so lines of several threads do not mix. Secrets never go through here. */
#ifndef CAIRN_IO_LOG_H
#define CAIRN_IO_LOG_H

#include "base/err.h"

enum level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_FATAL };

/* Writes one line. Any thread. A line is at most 1 KiB of text; the rest is cut. `err` ERR_OK: no code of interest. */
void io_log(enum level level, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Where lines of this process go from now on (borrowed descriptor; -1: stderr), and which node they name. */
void io_log_set(int fd, const char *node);
/* The node named by lines of the calling thread; NULL: the process's. Borrowed for as long as the thread logs. */
void io_log_set_thread(const char *node);

#endif
