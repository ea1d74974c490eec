/* Configuration files being written: strict TOML as base/config.h reads it. */
#include "document.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "dev.h"

void document_add(struct document *d, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(d->text + d->bytes, sizeof d->text - d->bytes, format, arguments);
    va_end(arguments);
    CHECK(bytes >= 0 && (size_t)bytes < sizeof d->text - d->bytes);
    d->bytes += (size_t)bytes;
}

void document_quoted(struct document *d, const char *string)
{
    document_add(d, "\"");
    for (const char *c = string; *c; c++) {
        if (*c == '"' || *c == '\\') {
            document_add(d, "\\%c", *c);
        } else if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            document_add(d, "\\u%04x", (unsigned)*c);
        } else {
            document_add(d, "%c", *c);
        }
    }
    document_add(d, "\"");
}

void document_string(struct document *d, const char *key, const char *format, ...)
{
    char value[DEV_PATH_BYTES + 64];
    va_list arguments;
    va_start(arguments, format);
    int bytes = vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    CHECK(bytes >= 0 && (size_t)bytes < sizeof value);
    document_add(d, "%s = ", key);
    document_quoted(d, value);
    document_add(d, "\n");
}

void document_hex(struct document *d, const char *key, const void *data, size_t bytes)
{
    char *hex = mem_alloc(2 * bytes + 1);
    hex_encode(data, bytes, hex);
    document_add(d, "%s = \"%s\"\n", key, hex);
    explicit_bzero(hex, 2 * bytes);
    free(hex);
}

enum err document_write(const struct document *d, const char *dir, const char *name, mode_t mode, char *ret_text)
{
    char path[DEV_PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return dev_file_write(path, d->text, d->bytes, mode, ret_text);
}
