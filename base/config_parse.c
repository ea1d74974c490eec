/* The grammar of configuration files (config.h): bytes to a list of (name, line, value). One cursor walks the text;
 * the first thing it does not accept ends the walk with the line and the reason. Nothing here knows a key. */
#include "config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

struct parser {
    const char *at, *end;
    uint32_t line;
    char table[CONFIG_NAME_BYTES]; /* present table, "" at the top */
    char (*tables)[CONFIG_NAME_BYTES];
    unsigned long table_count, table_capacity;
    struct config_document *document;
    char *text;
};

__attribute__((format(printf, 2, 3))) static enum err refuse(struct parser *p, const char *format, ...)
{
    int used = snprintf(p->text, CONFIG_TEXT_BYTES, "line %u: ", p->line);
    CHECK(used > 0 && used < (int)CONFIG_TEXT_BYTES);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(p->text + used, CONFIG_TEXT_BYTES - (size_t)used, format, arguments);
    va_end(arguments);
    return ERR_CONFIG;
}

/* The next byte, or -1 at the end. */
static int peek(const struct parser *p)
{
    return p->at < p->end ? (unsigned char)*p->at : -1;
}

static bool is_bare(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(int c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void skip_blanks(struct parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t') {
        p->at++;
    }
}

/* Length of the UTF-8 sequence at the cursor, 0 when it is not well formed (RFC 3629: shortest form, no surrogates). */
static size_t utf8_length(const struct parser *p)
{
    const unsigned char *s = (const unsigned char *)p->at;
    size_t left = (size_t)(p->end - p->at);
    size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (length == 0 || length > left) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool outside = (s[0] == 0xed && s[1] >= 0xa0) || (s[0] == 0xf4 && s[1] >= 0x90);
    return length > 1 && (overlong || outside) ? 0 : length;
}

/* A comment, up to but without the end of its line. */
static enum err skip_comment(struct parser *p)
{
    CHECK(peek(p) == '#');
    while (peek(p) != -1 && peek(p) != '\n') {
        int c = peek(p);
        bool line_end = c == '\r' && p->at + 1 < p->end && p->at[1] == '\n';
        if (line_end) {
            return ERR_OK;
        }
        size_t length = utf8_length(p);
        if (length == 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            return refuse(p, "byte 0x%02x cannot stand in a comment", (unsigned)c);
        }
        p->at += length;
    }
    return ERR_OK;
}

/* One line end, LF or CRLF. */
static bool take_line_end(struct parser *p)
{
    if (peek(p) == '\r' && p->at + 1 < p->end && p->at[1] == '\n') {
        p->at++;
    }
    if (peek(p) != '\n') {
        return false;
    }
    p->at++;
    p->line++;
    return true;
}

/* Blanks, an optional comment, then the end of the line or of the file. */
static enum err finish_line(struct parser *p)
{
    skip_blanks(p);
    if (peek(p) == '#') {
        enum err err = skip_comment(p);
        if (err != ERR_OK) {
            return err;
        }
    }
    if (peek(p) == -1 || take_line_end(p)) {
        return ERR_OK;
    }
    return refuse(p, "expected the end of the line, found byte 0x%02x", (unsigned)peek(p));
}

/* Blanks, comments and line ends, as they may stand between the items of an array. */
static enum err skip_space(struct parser *p)
{
    for (;;) {
        skip_blanks(p);
        if (peek(p) == '#') {
            enum err err = skip_comment(p);
            if (err != ERR_OK) {
                return err;
            }
        }
        if (!take_line_end(p)) {
            return ERR_OK;
        }
    }
}

static size_t utf8_put(uint32_t code, char *ret)
{
    if (code < 0x80) {
        ret[0] = (char)code;
        return 1;
    }
    size_t tail = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    ret[0] = (char)(lead[tail] | code >> (6 * tail));
    for (size_t i = 1; i <= tail; i++) {
        ret[i] = (char)(0x80 | (code >> (6 * (tail - i)) & 0x3f));
    }
    return tail + 1;
}

/* What follows a backslash, appended to `out` (room for 4 bytes). */
static enum err parse_escape(struct parser *p, char *out, size_t *used)
{
    static const char names[] = "btnfr\"\\", values[] = "\b\t\n\f\r\"\\";
    int c = peek(p);
    const char *found = c > 0 ? strchr(names, c) : NULL;
    if (found) {
        out[(*used)++] = values[found - names];
        p->at++;
        return ERR_OK;
    }
    if (c != 'u' && c != 'U') {
        return refuse(p, "unknown escape in a string; known are \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX");
    }
    p->at++;
    uint32_t code = 0;
    for (int digits = c == 'u' ? 4 : 8; digits > 0; digits--, p->at++) {
        int value = peek(p) == -1 ? -1 : hex_value(peek(p));
        if (value < 0) {
            return refuse(p, "\\%c takes %d hexadecimal digits", c, c == 'u' ? 4 : 8);
        }
        code = code << 4 | (uint32_t)value;
    }
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        return refuse(p, "U+%04X cannot stand in a string", (unsigned)code);
    }
    *used += utf8_put(code, out + *used);
    return ERR_OK;
}

/* "...": a new string. */
static enum err parse_string(struct parser *p, char **ret_string)
{
    CHECK(peek(p) == '"');
    if (p->end - p->at >= 3 && memcmp(p->at, "\"\"\"", 3) == 0) {
        return refuse(p, "strings of several lines are not supported; write \\n in a \"string\"");
    }
    p->at++;
    char out[CONFIG_STRING_BYTES + 8];
    size_t used = 0;
    while (peek(p) != '"') {
        int c = peek(p);
        enum err err = ERR_OK;
        if (c == -1 || c == '\n' || c == '\r') {
            return refuse(p, "a string lacks its closing quote");
        }
        if (used >= CONFIG_STRING_BYTES) {
            return refuse(p, "a string is longer than %u bytes", CONFIG_STRING_BYTES);
        }
        size_t length = utf8_length(p);
        if (length == 0 || (c < 0x20 && c != '\t') || c == 0x7f) {
            return refuse(p, "byte 0x%02x cannot stand in a string", (unsigned)c);
        }
        if (c == '\\') {
            p->at++;
            err = parse_escape(p, out, &used);
        } else {
            memcpy(out + used, p->at, length);
            used += length;
            p->at += length;
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    p->at++;
    CHECK(used < sizeof out);
    *ret_string = mem_alloc(used + 1);
    memcpy(*ret_string, out, used);
    return ERR_OK;
}

/* Digits of `base` with single underscores between them, as a magnitude of at most 2^63. */
static enum err parse_digits(struct parser *p, unsigned base, uint64_t *ret_magnitude)
{
    uint64_t magnitude = 0;
    bool digit_before = false;
    for (;; p->at++) {
        int c = peek(p);
        int value = c == -1 ? -1 : hex_value(c);
        if (c == '_' && digit_before) {
            digit_before = false;
            continue;
        }
        if (value < 0 || (unsigned)value >= base) {
            break;
        }
        if (magnitude > ((1ull << 63) - (unsigned)value) / base) {
            return refuse(p, "a number does not fit in 64 bits");
        }
        magnitude = magnitude * base + (unsigned)value;
        digit_before = true;
    }
    if (!digit_before || is_bare(peek(p)) || peek(p) == '.' || peek(p) == ':' || peek(p) == '+') {
        return refuse(p, "not a whole number (fractions, dates and times are not supported)");
    }
    *ret_magnitude = magnitude;
    return ERR_OK;
}

static enum err parse_integer(struct parser *p, int64_t *ret_integer)
{
    bool sign = peek(p) == '-' || peek(p) == '+';
    bool negative = peek(p) == '-';
    p->at += sign;
    unsigned base = 10;
    if (peek(p) == '0' && p->at + 1 < p->end) {
        if (!sign && p->at[1] == 'x') {
            base = 16;
            p->at += 2;
        } else if (is_digit((unsigned char)p->at[1]) || p->at[1] == '_') {
            return refuse(p, "a number cannot begin with 0");
        }
    }
    uint64_t magnitude = 0;
    enum err err = parse_digits(p, base, &magnitude);
    if (err != ERR_OK) {
        return err;
    }
    if (!negative && magnitude == 1ull << 63) {
        return refuse(p, "a number does not fit in 64 bits");
    }
    *ret_integer = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return ERR_OK;
}

static enum err parse_bool(struct parser *p, bool *ret_boolean)
{
    const char *begin = p->at;
    while (is_bare(peek(p))) {
        p->at++;
    }
    size_t length = (size_t)(p->at - begin);
    if (length == 4 && memcmp(begin, "true", 4) == 0) {
        *ret_boolean = true;
        return ERR_OK;
    }
    if (length == 5 && memcmp(begin, "false", 5) == 0) {
        *ret_boolean = false;
        return ERR_OK;
    }
    return refuse(p, "expected \"string\", a whole number, true, false or [ ... ]");
}

/* One item, appended to the array in `value`, whose type the first item decides. */
static enum err parse_item(struct parser *p, struct config_value *value, unsigned long *capacity)
{
    bool string = peek(p) == '"';
    uint32_t count = value->strings.count + value->integers.count;
    if (count == 0) {
        value->type = string ? CONFIG_STRINGS : CONFIG_INTEGERS;
    }
    if (string != (value->type == CONFIG_STRINGS)) {
        return refuse(p, "the items of an array must be all strings or all whole numbers");
    }
    if (count >= CONFIG_ITEMS) {
        return refuse(p, "an array holds more than %u items", CONFIG_ITEMS);
    }
    enum err err;
    if (string) {
        value->strings.items = mem_grow(value->strings.items, capacity, count + 1, sizeof(char *));
        err = parse_string(p, &value->strings.items[count]);
        value->strings.count += err == ERR_OK;
        return err;
    }
    if (!is_digit(peek(p)) && peek(p) != '-' && peek(p) != '+') {
        return refuse(p, "an array holds strings or whole numbers only");
    }
    value->integers.items = mem_grow(value->integers.items, capacity, count + 1, sizeof(int64_t));
    err = parse_integer(p, &value->integers.items[count]);
    value->integers.count += err == ERR_OK;
    return err;
}

static enum err parse_array(struct parser *p, struct config_value *value)
{
    CHECK(peek(p) == '[');
    p->at++;
    value->type = CONFIG_STRINGS;
    unsigned long capacity = 0;
    for (;;) {
        enum err err = skip_space(p);
        if (err != ERR_OK) {
            return err;
        }
        if (peek(p) == ']') {
            break;
        }
        err = parse_item(p, value, &capacity);
        if (err != ERR_OK) {
            return err;
        }
        err = skip_space(p);
        if (err != ERR_OK) {
            return err;
        }
        if (peek(p) == ',') {
            p->at++;
        } else if (peek(p) != ']') {
            return refuse(p, "expected ',' or ']' in an array");
        }
    }
    p->at++;
    return ERR_OK;
}

static enum err parse_value(struct parser *p, struct config_value *value)
{
    int c = peek(p);
    if (c == '"') {
        value->type = CONFIG_STRING;
        return parse_string(p, &value->string);
    }
    if (c == '[') {
        return parse_array(p, value);
    }
    if (c == '\'') {
        return refuse(p, "'...' strings are not supported; use \"...\"");
    }
    if (is_digit(c) || c == '-' || c == '+') {
        value->type = CONFIG_INTEGER;
        return parse_integer(p, &value->integer);
    }
    value->type = CONFIG_BOOL;
    return parse_bool(p, &value->boolean);
}

/* Appends a bare name to `name`, which holds `used` bytes. */
static enum err parse_name(struct parser *p, char *name, size_t *used)
{
    size_t before = *used;
    while (is_bare(peek(p))) {
        if (*used + 1 >= CONFIG_NAME_BYTES) {
            return refuse(p, "a name is longer than %u bytes", CONFIG_NAME_BYTES - 1);
        }
        name[(*used)++] = *p->at++;
    }
    name[*used] = 0;
    if (*used == before) {
        return refuse(p, "expected a name of letters, digits, '_' and '-'");
    }
    return ERR_OK;
}

static bool begins_with_table(const char *name, const char *table)
{
    size_t length = strlen(table);
    return strncmp(name, table, length) == 0 && name[length] == '.';
}

/* [a.b]: becomes the present table. */
static enum err parse_table(struct parser *p)
{
    CHECK(peek(p) == '[');
    p->at++;
    if (peek(p) == '[') {
        return refuse(p, "arrays of tables are not supported");
    }
    char name[CONFIG_NAME_BYTES];
    size_t used = 0;
    for (;;) {
        skip_blanks(p);
        enum err err = parse_name(p, name, &used);
        if (err != ERR_OK) {
            return err;
        }
        skip_blanks(p);
        if (peek(p) != '.') {
            break;
        }
        p->at++;
        if (used + 2 >= CONFIG_NAME_BYTES) {
            return refuse(p, "a name is longer than %u bytes", CONFIG_NAME_BYTES - 1);
        }
        name[used++] = '.';
    }
    if (peek(p) != ']') {
        return refuse(p, "expected ']' after the name of a table");
    }
    p->at++;
    for (unsigned long i = 0; i < p->table_count; i++) {
        if (strcmp(p->tables[i], name) == 0) {
            return refuse(p, "table [%s] is given twice", name);
        }
    }
    for (unsigned long i = 0; i < p->document->count; i++) {
        const char *entry = p->document->entries[i].name;
        if (strcmp(entry, name) == 0 || begins_with_table(name, entry)) {
            return refuse(p, "'%s' is a value, not a table", entry);
        }
    }
    if (p->table_count >= CONFIG_ENTRIES) {
        return refuse(p, "more than %u tables", CONFIG_ENTRIES);
    }
    p->tables = mem_grow(p->tables, &p->table_capacity, p->table_count + 1, CONFIG_NAME_BYTES);
    memcpy(p->tables[p->table_count++], name, CONFIG_NAME_BYTES);
    memcpy(p->table, name, CONFIG_NAME_BYTES);
    return ERR_OK;
}

/* Whether "table.key" is free; the text says why not. */
static enum err check_name(struct parser *p, const char *name)
{
    for (unsigned long i = 0; i < p->document->count; i++) {
        if (strcmp(p->document->entries[i].name, name) == 0) {
            return refuse(p, "'%s' is given twice, first in line %u", name, p->document->entries[i].line);
        }
    }
    for (unsigned long i = 0; i < p->table_count; i++) {
        if (strcmp(p->tables[i], name) == 0 || begins_with_table(p->tables[i], name)) {
            return refuse(p, "'%s' is a table, not a value", name);
        }
    }
    if (p->document->count >= CONFIG_ENTRIES) {
        return refuse(p, "more than %u keys", CONFIG_ENTRIES);
    }
    return ERR_OK;
}

/* key = value. The entry is in the document before its value is whole, so that deinit frees a half-read array. */
static enum err parse_pair(struct parser *p)
{
    char name[CONFIG_NAME_BYTES] = {0};
    size_t used = strlen(p->table);
    memcpy(name, p->table, used);
    if (used > 0) {
        if (used + 2 >= CONFIG_NAME_BYTES) {
            return refuse(p, "a name is longer than %u bytes", CONFIG_NAME_BYTES - 1);
        }
        name[used++] = '.';
    }
    if (peek(p) == '"' || peek(p) == '\'') {
        return refuse(p, "quoted keys are not supported");
    }
    enum err err = parse_name(p, name, &used);
    if (err != ERR_OK) {
        return err;
    }
    skip_blanks(p);
    if (peek(p) == '.') {
        return refuse(p, "dotted keys are not supported; use a [table]");
    }
    if (peek(p) != '=') {
        return refuse(p, "expected '=' after '%s'", name);
    }
    p->at++;
    skip_blanks(p);
    err = check_name(p, name);
    if (err != ERR_OK) {
        return err;
    }
    struct config_document *document = p->document;
    document->entries =
        mem_grow(document->entries, &document->capacity, document->count + 1, sizeof document->entries[0]);
    struct config_entry *entry = &document->entries[document->count++];
    memset(entry, 0, sizeof *entry);
    memcpy(entry->name, name, sizeof name);
    entry->line = p->line;
    return parse_value(p, &entry->value);
}

static enum err parse_document(struct parser *p)
{
    while (peek(p) != -1) {
        skip_blanks(p);
        int c = peek(p);
        enum err err = ERR_OK;
        if (c == '[') {
            err = parse_table(p);
        } else if (c != -1 && c != '#' && c != '\n' && c != '\r') {
            err = parse_pair(p);
        }
        if (err == ERR_OK) {
            err = finish_line(p);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

enum err config_parse(const char *text, size_t bytes, struct config_document *ret_document, char *ret_text)
{
    struct config_document document = {0};
    struct parser parser = {.at = text, .end = text + bytes, .line = 1, .document = &document, .text = ret_text};
    enum err err;
    if (bytes > CONFIG_FILE_BYTES) {
        err = refuse(&parser, "more than %u bytes", CONFIG_FILE_BYTES);
    } else {
        err = parse_document(&parser);
    }
    free(parser.tables);
    if (err != ERR_OK) {
        config_document_deinit(&document);
        return err;
    }
    *ret_document = document;
    return ERR_OK;
}

static void value_deinit(struct config_value *value)
{
    free(value->string);
    for (uint32_t i = 0; i < value->strings.count; i++) {
        free(value->strings.items[i]);
    }
    free(value->strings.items);
    free(value->integers.items);
}

void config_document_deinit(struct config_document *document)
{
    for (unsigned long i = 0; i < document->count; i++) {
        value_deinit(&document->entries[i].value);
    }
    free(document->entries);
    *document = (struct config_document){0};
}
