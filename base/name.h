/* Names of entries: valid UTF-8, 1 to 255 bytes, no '/' and no NUL, not "." or ".."; kept as given, compared under NFC.
 */
#ifndef CAIRN_BASE_NAME_H
#define CAIRN_BASE_NAME_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "slice.h"

/* Whether the bytes are valid UTF-8. */
bool name_is_utf8(const void *text, size_t bytes);
/* OK or ILLEGAL_NAME. */
MUST_CHECK enum err name_check(const void *name, size_t bytes);
/* The comparison key: the NFC form of a name (a new slice, at most 3 * 255 bytes). ILLEGAL_NAME where name_check says
 * so. */
MUST_CHECK enum err name_key(const void *name, size_t bytes, struct slice *ret_key);

#endif
