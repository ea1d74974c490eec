/* Configuration: from a document (config_parse.c) to the variables of the program that declared its keys. First all
 * entries are checked against the declaration, then all are handed over, so that a failure touches nothing. */
#include "config.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static const char *const type_texts[] = {"a \"string\"", "a whole number", "true or false", "an array of \"strings\"",
                                         "an array of whole numbers"};

__attribute__((format(printf, 2, 3))) static enum err refuse(char *ret_text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(ret_text, CONFIG_TEXT_BYTES, format, arguments);
    va_end(arguments);
    return ERR_CONFIG;
}

/* Levenshtein distance of two names shorter than CONFIG_NAME_BYTES. */
static unsigned name_distance(const char *a, const char *b)
{
    unsigned row[CONFIG_NAME_BYTES + 1];
    size_t a_bytes = strlen(a), b_bytes = strlen(b);
    CHECK(a_bytes < CONFIG_NAME_BYTES && b_bytes < CONFIG_NAME_BYTES);
    for (unsigned j = 0; j <= b_bytes; j++) {
        row[j] = j;
    }
    for (unsigned i = 1; i <= a_bytes; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b_bytes; j++) {
            unsigned above = row[j];
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            unsigned best = above + 1 < row[j - 1] + 1 ? above + 1 : row[j - 1] + 1;
            row[j] = change < best ? change : best;
            diagonal = above;
        }
    }
    return row[b_bytes];
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* Distance that forgives a table left out or put in. */
static unsigned name_likeness(const char *a, const char *b)
{
    unsigned whole = name_distance(a, b);
    unsigned part = name_distance(last_part(a), last_part(b)) + 1;
    return part < whole ? part : whole;
}

static enum err refuse_unknown(const char *file, const struct config_entry *entry, const struct config_key *keys,
                               size_t count, char *ret_text)
{
    const char *nearest = NULL;
    unsigned nearest_distance = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned distance = name_likeness(entry->name, keys[i].name);
        if (!nearest || distance < nearest_distance) {
            nearest = keys[i].name;
            nearest_distance = distance;
        }
    }
    if (nearest && nearest_distance <= 1 + strlen(nearest) / 2) {
        return refuse(ret_text, "%s: line %u: unknown key '%s'; did you mean '%s'?", file, entry->line, entry->name,
                      nearest);
    }
    return refuse(ret_text, "%s: line %u: unknown key '%s'; remove it", file, entry->line, entry->name);
}

static const struct config_key *find_key(const struct config_key *keys, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static bool is_empty_array(const struct config_value *value)
{
    return value->type == CONFIG_STRINGS && value->strings.count == 0;
}

static enum err check_bounds(const char *file, const struct config_entry *entry, const struct config_key *key,
                             int64_t integer, char *ret_text)
{
    if ((key->min == 0 && key->max == 0) || (integer >= key->min && integer <= key->max)) {
        return ERR_OK;
    }
    return refuse(ret_text, "%s: line %u: '%s' must be %lld to %lld", file, entry->line, entry->name,
                  (long long)key->min, (long long)key->max);
}

static enum err check_entry(const char *file, const struct config_entry *entry, const struct config_key *keys,
                            size_t count, char *ret_text)
{
    const struct config_key *key = find_key(keys, count, entry->name);
    if (!key) {
        return refuse_unknown(file, entry, keys, count, ret_text);
    }
    const struct config_value *value = &entry->value;
    if (value->type != key->type && !(key->type == CONFIG_INTEGERS && is_empty_array(value))) {
        return refuse(ret_text, "%s: line %u: '%s' must be %s", file, entry->line, entry->name, type_texts[key->type]);
    }
    enum err err = ERR_OK;
    if (value->type == CONFIG_INTEGER) {
        err = check_bounds(file, entry, key, value->integer, ret_text);
    }
    for (uint32_t i = 0; err == ERR_OK && i < value->integers.count; i++) {
        err = check_bounds(file, entry, key, value->integers.items[i], ret_text);
    }
    return err;
}

static enum err check_required(const char *file, const struct config_document *document, const struct config_key *keys,
                               size_t count, char *ret_text)
{
    for (size_t i = 0; i < count; i++) {
        bool found = !keys[i].required;
        for (unsigned long j = 0; !found && j < document->count; j++) {
            found = strcmp(document->entries[j].name, keys[i].name) == 0;
        }
        if (!found) {
            return refuse(ret_text, "%s: '%s' is missing; add a line '%s = ...' (%s)", file, keys[i].name, keys[i].name,
                          type_texts[keys[i].type]);
        }
    }
    return ERR_OK;
}

static void key_free(const struct config_key *key)
{
    if (key->type == CONFIG_STRING) {
        char **string = key->pointer;
        free(*string);
        *string = NULL;
    } else if (key->type == CONFIG_STRINGS) {
        struct config_strings *strings = key->pointer;
        for (uint32_t i = 0; i < strings->count; i++) {
            free(strings->items[i]);
        }
        free(strings->items);
        *strings = (struct config_strings){0};
    } else if (key->type == CONFIG_INTEGERS) {
        struct config_integers *integers = key->pointer;
        free(integers->items);
        *integers = (struct config_integers){0};
    }
}

/* Moves the value out of the document into the variable; what the variable held is freed. */
static void give_value(const struct config_key *key, struct config_value *value)
{
    CHECK(key->pointer != NULL);
    key_free(key);
    switch (key->type) {
    case CONFIG_STRING:
        *(char **)key->pointer = value->string;
        value->string = NULL;
        break;
    case CONFIG_INTEGER:
        *(int64_t *)key->pointer = value->integer;
        break;
    case CONFIG_BOOL:
        *(bool *)key->pointer = value->boolean;
        break;
    case CONFIG_STRINGS:
        *(struct config_strings *)key->pointer = value->strings;
        value->strings = (struct config_strings){0};
        break;
    case CONFIG_INTEGERS:
        *(struct config_integers *)key->pointer = value->integers;
        value->integers = (struct config_integers){0};
        break;
    }
}

enum err config_read_text(const char *name, const char *text, size_t bytes, const struct config_key *keys, size_t count,
                          char *ret_text)
{
    struct config_document document;
    char reason[CONFIG_TEXT_BYTES];
    enum err err = config_parse(text, bytes, &document, reason);
    if (err != ERR_OK) {
        return refuse(ret_text, "%s: %s", name, reason);
    }
    for (unsigned long i = 0; err == ERR_OK && i < document.count; i++) {
        err = check_entry(name, &document.entries[i], keys, count, ret_text);
    }
    if (err == ERR_OK) {
        err = check_required(name, &document, keys, count, ret_text);
    }
    for (unsigned long i = 0; err == ERR_OK && i < document.count; i++) {
        const struct config_key *key = find_key(keys, count, document.entries[i].name);
        CHECK(key != NULL);
        give_value(key, &document.entries[i].value);
    }
    config_document_deinit(&document);
    return err;
}

enum err config_read(const char *path, const struct config_key *keys, size_t count, char *ret_text)
{
    FILE *file = fopen(path, "rbe");
    if (!file) {
        return refuse(ret_text, "%s: cannot be read: %s", path, strerror(errno));
    }
    char *text = mem_alloc(CONFIG_FILE_BYTES + 1);
    size_t bytes = fread(text, 1, CONFIG_FILE_BYTES + 1, file);
    enum err err;
    if (ferror(file)) {
        err = refuse(ret_text, "%s: cannot be read: %s", path, strerror(errno));
    } else {
        err = config_read_text(path, text, bytes, keys, count, ret_text);
    }
    fclose(file);
    free(text);
    return err;
}

void config_free(const struct config_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        key_free(&keys[i]);
    }
}
