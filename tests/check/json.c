/* JSON (json.h): a recursive descent over one NUL-terminated line. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

enum { DEPTH = 32 };

struct parser {
    const char *at;
    bool failed;
};

static struct json *parse_value(struct parser *p, int depth);

static void skip_space(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\r' || *p->at == '\n') {
        p->at++;
    }
}

static bool take(struct parser *p, const char *text)
{
    size_t bytes = strlen(text);
    skip_space(p);
    if (strncmp(p->at, text, bytes) != 0) {
        return false;
    }
    p->at += bytes;
    return true;
}

/* \uXXXX below 0x80 only: the writer keeps everything else as UTF-8. */
static char parse_unicode(struct parser *p)
{
    char digits[5] = "";
    strncpy(digits, p->at, 4);
    char *end = NULL;
    unsigned long value = strtoul(digits, &end, 16);
    if (end != digits + 4 || value == 0 || value >= 0x80) {
        p->failed = true;
        return '?';
    }
    p->at += 4;
    return (char)value;
}

static char parse_escape(struct parser *p)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = *p->at;
    if (c == '\0') {
        p->failed = true;
        return '?';
    }
    p->at++;
    if (c == 'u') {
        return parse_unicode(p);
    }
    const char *found = strchr(from, c);
    p->failed = p->failed || found == NULL;
    return found != NULL ? to[found - from] : '?';
}

static char *parse_string(struct parser *p)
{
    size_t bytes = 0;
    char *text = mem_alloc(strlen(p->at) + 1);
    while (*p->at != '"' && !p->failed) {
        if (*p->at == '\0') {
            p->failed = true;
        } else if (*p->at == '\\') {
            p->at++;
            text[bytes++] = parse_escape(p);
        } else {
            text[bytes++] = *p->at++;
        }
    }
    p->at += p->failed ? 0 : 1;
    return text;
}

static void parse_members(struct parser *p, struct json *json, bool object, int depth)
{
    struct json **last = &json->first;
    const char *end = object ? "}" : "]";
    if (take(p, end)) {
        return;
    }
    do {
        char *name = NULL;
        if (object) {
            p->failed = p->failed || !take(p, "\"");
            name = p->failed ? NULL : parse_string(p);
            p->failed = p->failed || !take(p, ":");
        }
        *last = p->failed ? NULL : parse_value(p, depth + 1);
        if (*last == NULL) {
            free(name);
            p->failed = true;
            return;
        }
        (*last)->name = name;
        last = &(*last)->next;
    } while (take(p, ","));
    p->failed = p->failed || !take(p, end);
}

static bool parse_number(struct parser *p, uint64_t *ret_number)
{
    char *end = NULL;
    if (*p->at == '-') {
        *ret_number = (uint64_t)strtoll(p->at, &end, 10);
    } else {
        *ret_number = strtoull(p->at, &end, 10);
    }
    if (end == p->at) {
        return false;
    }
    p->at = end;
    return true;
}

static struct json *parse_value(struct parser *p, int depth)
{
    struct json *json = mem_alloc(sizeof *json);
    skip_space(p);
    p->failed = p->failed || depth > DEPTH;
    if (p->failed) {
        free(json);
        return NULL;
    }
    if (take(p, "{")) {
        json->type = JSON_OBJECT;
        parse_members(p, json, true, depth);
    } else if (take(p, "[")) {
        json->type = JSON_ARRAY;
        parse_members(p, json, false, depth);
    } else if (take(p, "\"")) {
        json->type = JSON_STRING;
        json->text = parse_string(p);
    } else if (take(p, "true")) {
        json->type = JSON_BOOL;
        json->number = 1;
    } else if (take(p, "false")) {
        json->type = JSON_BOOL;
    } else if (!take(p, "null")) {
        json->type = JSON_NUMBER;
        p->failed = p->failed || !parse_number(p, &json->number);
    }
    return json;
}

struct json *json_parse(const char *text)
{
    struct parser p = {.at = text};
    struct json *json = parse_value(&p, 0);
    skip_space(&p);
    if (json != NULL && (p.failed || *p.at != '\0')) {
        json_destroy(json);
        json = NULL;
    }
    return json;
}

void json_destroy(struct json *json)
{
    while (json != NULL) {
        struct json *next = json->next;
        json_destroy(json->first);
        free(json->text);
        free(json->name);
        free(json);
        json = next;
    }
}

const struct json *json_member(const struct json *object, const char *name)
{
    const struct json *at = object != NULL && object->type == JSON_OBJECT ? object->first : NULL;
    while (at != NULL && strcmp(at->name, name) != 0) {
        at = at->next;
    }
    return at;
}

uint64_t json_number(const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    return member != NULL && member->type == JSON_NUMBER ? member->number : 0;
}

const char *json_text(const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    return member != NULL && member->type == JSON_STRING ? member->text : NULL;
}

bool json_bool(const struct json *object, const char *name)
{
    const struct json *member = json_member(object, name);
    return member != NULL && member->type == JSON_BOOL && member->number != 0;
}
