/* A configuration file being written. */
#ifndef CAIRN_CLIENT_CLI_DOCUMENT_H
#define CAIRN_CLIENT_CLI_DOCUMENT_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

#define DOCUMENT_BYTES (64u << 10)

struct document {
    char text[DOCUMENT_BYTES];
    size_t bytes;
};

/* All CHECK that it fits. */
void document_add(struct document *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A string with its quotes. */
void document_quoted(struct document *d, const char *string);
/* key = "value" */
void document_string(struct document *d, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* key = "hexadecimal digits" */
void document_hex(struct document *d, const char *key, const void *data, size_t bytes);
/* Writes it as dir/name, whole or not at all; ret_text as in dev.h. */
MUST_CHECK enum err document_write(const struct document *d, const char *dir, const char *name, mode_t mode,
                                   char *ret_text);

#endif
