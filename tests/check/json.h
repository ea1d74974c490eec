/* JSON, as much as one line of a history needs: objects, arrays, strings, numbers, booleans; 32 deep. Numbers are kept
 * as 64-bit integers: signed ones wrap. */
#ifndef CAIRN_CHECK_JSON_H
#define CAIRN_CHECK_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    uint64_t number; /* also 0 or 1 of a bool */
    char *text;      /* of a string, NUL-terminated */
    char *name;      /* as a member of an object */
    struct json *first, *next;
};

/* The value that `text` holds, and nothing behind it; NULL when it is none. */
struct json *json_parse(const char *text);
void json_destroy(struct json *json);
/* The member of an object, or NULL; also when `object` is NULL. */
const struct json *json_member(const struct json *object, const char *name);
/* Its number, or 0; its text, or NULL; its truth. */
uint64_t json_number(const struct json *object, const char *name);
const char *json_text(const struct json *object, const char *name);
bool json_bool(const struct json *object, const char *name);

#endif
