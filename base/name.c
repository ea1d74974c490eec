/* Names of entries, over utf8proc. */
#include "name.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "limits.h"

bool name_is_utf8(const void *text, size_t bytes)
{
    const utf8proc_uint8_t *at = text;
    for (utf8proc_ssize_t left = (utf8proc_ssize_t)bytes; left > 0;) {
        utf8proc_int32_t point = 0;
        utf8proc_ssize_t step = utf8proc_iterate(at, left, &point);
        if (step <= 0) {
            return false;
        }
        at += step;
        left -= step;
    }
    return true;
}

static bool name_is_ascii(const void *name, size_t bytes)
{
    uint8_t all = 0;
    for (size_t i = 0; i < bytes; i++) {
        all |= ((const uint8_t *)name)[i];
    }
    return all < 0x80;
}

enum err name_check(const void *name, size_t bytes)
{
    const utf8proc_uint8_t *at = name;
    if (bytes == 0 || bytes > LIMIT_NAME_BYTES || memchr(name, '/', bytes) != NULL || memchr(name, 0, bytes) != NULL) {
        return ERR_ILLEGAL_NAME;
    }
    if ((bytes == 1 && at[0] == '.') || (bytes == 2 && at[0] == '.' && at[1] == '.')) {
        return ERR_ILLEGAL_NAME;
    }
    return name_is_ascii(name, bytes) || name_is_utf8(name, bytes) ? ERR_OK : ERR_ILLEGAL_NAME;
}

enum err name_key(const void *name, size_t bytes, struct slice *ret_key)
{
    enum err err = name_check(name, bytes);
    if (err != ERR_OK) {
        return err;
    }
    if (name_is_ascii(name, bytes)) { /* its own NFC */
        *ret_key = slice_copy(name, bytes);
        return ERR_OK;
    }
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t form_bytes =
        utf8proc_map(name, (utf8proc_ssize_t)bytes, &form, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (form_bytes <= 0) {
        free(form);
        return ERR_ILLEGAL_NAME;
    }
    *ret_key = slice_copy(form, (size_t)form_bytes);
    free(form);
    return ERR_OK;
}
