/* Configuration files: a strict subset of TOML 1.0, read by our own reader, because Debian has no C library for it.
 * Stands at the start of each program and nowhere else in the way of a byte.
 *
 * What is accepted (everything accepted means the same to any TOML 1.0 reader):
 *   [table] and [table.sub]                   bare names; a key under it is known as "table.sub.key"
 *   key = "basic string with \n \u00e9"       no NUL; at most CONFIG_STRING_BYTES
 *   key = -12_000 or 0xff                     64-bit signed
 *   key = true
 *   key = ["a", "b"] or [1, 2]                one type; may span lines; trailing comma allowed
 *   # comment
 * Refused, each with line number and reason: other kinds of strings, floats, dates, dotted or quoted keys, inline and
 * arrays of tables, a key or table given twice, a key nobody declared (with the nearest known one as a suggestion).
 *
 * Happy path: the caller declares its keys as a table and calls config_read; the values are in its variables. On
 * failure nothing of the caller's is touched and the text says what to change. */
#ifndef CAIRN_BASE_CONFIG_H
#define CAIRN_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define CONFIG_FILE_BYTES   (256u << 10)
#define CONFIG_STRING_BYTES 4096u
#define CONFIG_NAME_BYTES   64u /* of "table.key", with its end */
#define CONFIG_ENTRIES      1024u
#define CONFIG_ITEMS        4096u /* of one array */
#define CONFIG_TEXT_BYTES   256u  /* of a ret_text */

enum config_type { CONFIG_STRING, CONFIG_INTEGER, CONFIG_BOOL, CONFIG_STRINGS, CONFIG_INTEGERS };

struct config_strings {
    char **items;
    uint32_t count;
};
struct config_integers {
    int64_t *items;
    uint32_t count;
};

/* One key a program knows. `pointer` is, by type: char ** (a new string), int64_t *, bool *, struct config_strings *,
 * struct config_integers *. A key that is absent leaves it alone: that is the default. config_free frees strings and
 * arrays, so a default of those types is NULL or made with malloc. */
struct config_key {
    const char *name; /* "listen" or "table.key" */
    enum config_type type;
    bool required;
    void *pointer;
    int64_t min, max; /* of an integer and of each integer in an array; both 0: any */
};

/* Reads the file into the variables of `keys`. CONFIG with the file, line and reason in ret_text (CONFIG_TEXT_BYTES).
 */
MUST_CHECK enum err config_read(const char *path, const struct config_key *keys, size_t count, char *ret_text);
/* The same from memory; `name` stands for the file in texts. */
MUST_CHECK enum err config_read_text(const char *name, const char *text, size_t bytes, const struct config_key *keys,
                                     size_t count, char *ret_text);
/* Frees what the keys' pointers own and sets them to NULL or empty. */
void config_free(const struct config_key *keys, size_t count);

/* The layer below, for tests and tools: a document as read, before anybody says which keys are known. */
struct config_value {
    enum config_type type; /* an empty array is CONFIG_STRINGS */
    int64_t integer;
    bool boolean;
    char *string;
    struct config_strings strings;
    struct config_integers integers;
};
struct config_entry {
    char name[CONFIG_NAME_BYTES];
    uint32_t line;
    struct config_value value;
};
struct config_document {
    struct config_entry *entries;
    unsigned long count, capacity;
};
/* CONFIG with "line N: reason" in ret_text. The caller gives it back to config_document_deinit. */
MUST_CHECK enum err config_parse(const char *text, size_t bytes, struct config_document *ret_document, char *ret_text);
void config_document_deinit(struct config_document *document);

#endif
