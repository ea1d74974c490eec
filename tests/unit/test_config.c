/* The configuration reader against Python's tomllib on generated documents, a table of refusals, and what a caller's
 * variables hold after success and after failure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/config.h"

#define ORACLE_DOCUMENTS 400

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void dump_hex(FILE *out, const char *string)
{
    for (const unsigned char *c = (const unsigned char *)string; *c; c++) {
        fprintf(out, "%02x", *c);
    }
}

/* One entry in the oracle's form; a new string. */
static char *dump_entry(const struct config_entry *entry)
{
    char *line = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&line, &bytes);
    assert_non_null(out);
    const struct config_value *value = &entry->value;
    static const char letters[] = {'s', 'i', 'b', 'S', 'I'};
    fprintf(out, "%s %c", entry->name, letters[value->type]);
    switch (value->type) {
    case CONFIG_STRING:
        fputc(' ', out);
        dump_hex(out, value->string);
        break;
    case CONFIG_INTEGER:
        fprintf(out, " %lld", (long long)value->integer);
        break;
    case CONFIG_BOOL:
        fprintf(out, " %d", value->boolean);
        break;
    case CONFIG_STRINGS:
        for (uint32_t i = 0; i < value->strings.count; i++) {
            fputc(' ', out);
            dump_hex(out, value->strings.items[i]);
        }
        break;
    case CONFIG_INTEGERS:
        for (uint32_t i = 0; i < value->integers.count; i++) {
            fprintf(out, " %lld", (long long)value->integers.items[i]);
        }
        break;
    }
    fclose(out);
    return line;
}

/* Our lines, sorted, against the oracle's, read from the stream. */
static void compare_with_oracle(const struct config_document *document, FILE *stream, unsigned long lines)
{
    assert_int_equal(document->count, lines);
    char **ours = mem_alloc((lines + 1) * sizeof(char *));
    for (unsigned long i = 0; i < lines; i++) {
        ours[i] = dump_entry(&document->entries[i]);
    }
    qsort(ours, lines, sizeof ours[0], compare_lines);
    char *line = NULL;
    size_t capacity = 0;
    for (unsigned long i = 0; i < lines; i++) {
        ssize_t length = getline(&line, &capacity, stream);
        assert_true(length > 0);
        line[length - 1] = 0;
        assert_string_equal(ours[i], line);
        free(ours[i]);
    }
    free(line);
    free(ours);
}

static void skip_lines(FILE *stream, unsigned long lines)
{
    while (lines > 0) {
        int c = fgetc(stream);
        assert_int_not_equal(c, EOF);
        lines -= c == '\n';
    }
}

struct oracle_counts {
    unsigned subsets, mutants_accepted, mutants_refused;
};

/* One record of config_oracle.py whose head line is `head`. */
static void check_record(FILE *stream, const char *head, struct oracle_counts *counts)
{
    char kind[16];
    unsigned long bytes, lines = 0;
    assert_int_equal(sscanf(head, "D %15s %lu", kind, &bytes), 2);
    char *data = mem_alloc(bytes + 1);
    assert_int_equal(fread(data, 1, bytes, stream), bytes);
    char verdict[64];
    assert_non_null(fgets(verdict, sizeof verdict, stream));
    bool oracle_accepts = verdict[0] == 'E';
    if (oracle_accepts) {
        assert_int_equal(sscanf(verdict, "E %lu", &lines), 1);
    }
    bool subset = strcmp(kind, "subset") == 0;
    struct config_document document;
    char text[CONFIG_TEXT_BYTES];
    enum err err = config_parse(data, bytes, &document, text);
    if (err == ERR_OK) {
        if (!oracle_accepts) {
            fail_msg("accepted what tomllib refuses:\n%s", data);
        }
        compare_with_oracle(&document, stream, lines);
        config_document_deinit(&document);
        counts->subsets += subset;
        counts->mutants_accepted += !subset;
    } else {
        if (subset) {
            fail_msg("refused (%s):\n%s", text, data);
        }
        assert_int_equal(strncmp(text, "line ", 5), 0);
        skip_lines(stream, lines);
        counts->mutants_refused++;
    }
    free(data);
}

static void test_agrees_with_tomllib(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "python3 unit/config_oracle.py 20240 %d", ORACLE_DOCUMENTS);
    FILE *stream = popen(command, "r");
    assert_non_null(stream);
    char head[256];
    struct oracle_counts counts = {0};
    bool any = false;
    while (fgets(head, sizeof head, stream)) {
        if (strncmp(head, "SKIP", 4) == 0) {
            printf("skipped: %s", head + 5);
            pclose(stream);
            skip();
        }
        any = true;
        check_record(stream, head, &counts);
    }
    int status = pclose(stream);
    if (!any && WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        printf("skipped: python3 is not installed\n");
        skip();
    }
    assert_int_equal(status, 0);
    assert_int_equal(counts.subsets, ORACLE_DOCUMENTS);
    assert_int_equal(counts.mutants_accepted + counts.mutants_refused, ORACLE_DOCUMENTS);
    assert_true(counts.mutants_refused > 20 && counts.mutants_accepted > 20);
}

struct refusal {
    const char *text, *part;
};

static const struct refusal refusals[] = {
    {"a", "line 1: expected '=' after 'a'"},
    {"\n\na = ", "line 3: expected \"string\""},
    {"a = 1 b = 2", "expected the end of the line"},
    {"a = \"x", "closing quote"},
    {"a = \"x\ny\"", "closing quote"},
    {"a = \"\\q\"", "unknown escape"},
    {"a = \"\\ud800\"", "U+D800"},
    {"a = \"\\u0000\"", "U+0000"},
    {"a = \"\\U00110000\"", "U+110000"},
    {"a = \"\\u12\"", "4 hexadecimal digits"},
    {"a = \"\x01\"", "byte 0x01"},
    {"a = \"\xff\"", "byte 0xff"},
    {"a = \"\xed\xa0\x80\"", "byte 0xed"},
    {"a = 'x'", "use \"...\""},
    {"a = \"\"\"x\"\"\"", "several lines"},
    {"a = 01", "begin with 0"},
    {"a = 1__0", "whole number"},
    {"a = 1_", "whole number"},
    {"a = 1.5", "whole number"},
    {"a = 1e5", "whole number"},
    {"a = 1979-05-27", "whole number"},
    {"a = 9223372036854775808", "64 bits"},
    {"a = -9223372036854775809", "64 bits"},
    {"a = 0x8000000000000000", "64 bits"},
    {"a = inf", "expected \"string\""},
    {"a = True", "expected \"string\""},
    {"a = {}", "expected \"string\""},
    {"a = [1, \"b\"]", "all strings or all whole numbers"},
    {"a = [[1]]", "strings or whole numbers only"},
    {"a = [true]", "strings or whole numbers only"},
    {"a = [1 2]", "expected ',' or ']'"},
    {"a = [1,,2]", "strings or whole numbers only"},
    {"a = [1,\n\n", "line 3: "},
    {"a = 1\na = 2", "line 2: 'a' is given twice, first in line 1"},
    {"[t]\n[t]", "line 2: table [t] is given twice"},
    {"a = 1\n[a]", "'a' is a value"},
    {"a = 1\n[a.b]", "'a' is a value"},
    {"[t.a]\n[t]\na = 1", "'t.a' is a table"},
    {"[[t]]", "arrays of tables"},
    {"[t", "expected ']'"},
    {"[]", "expected a name"},
    {"[t.]", "expected a name"},
    {"a.b = 1", "dotted keys"},
    {"\"a\" = 1", "quoted keys"},
    {"= 1", "expected a name"},
    {"# \x01", "byte 0x01"},
    {"a = 1\r", "end of the line"},
    {"\xef\xbb\xbf"
     "a = 1",
     "expected a name"},
};

static void test_refusals_name_line_and_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        struct config_document document;
        char text[CONFIG_TEXT_BYTES] = "";
        enum err err = config_parse(refusals[i].text, strlen(refusals[i].text), &document, text);
        if (err != ERR_CONFIG || !strstr(text, refusals[i].part)) {
            fail_msg("%s\nerr %d, text '%s', expected '%s'", refusals[i].text, err, text, refusals[i].part);
        }
    }
}

/* `count` times `item` between head and tail; must be refused with `part`. */
static void check_too_much(const char *head, const char *item, unsigned count, const char *tail, const char *part)
{
    size_t bytes = strlen(head) + strlen(item) * count + strlen(tail);
    char *text = mem_alloc(bytes + 1), *end = stpcpy(text, head), reason[CONFIG_TEXT_BYTES];
    for (unsigned i = 0; i < count; i++) {
        end = stpcpy(end, item);
    }
    stpcpy(end, tail);
    struct config_document document;
    assert_int_equal(config_parse(text, bytes, &document, reason), ERR_CONFIG);
    assert_non_null(strstr(reason, part));
    free(text);
}

static void test_limits(void **state)
{
    (void)state;
    check_too_much("", "a", CONFIG_NAME_BYTES, " = 1", "a name is longer");
    check_too_much("[", "a.", CONFIG_NAME_BYTES / 2, "a]", "a name is longer");
    check_too_much("a = \"", "x", CONFIG_STRING_BYTES + 1, "\"", "a string is longer");
    check_too_much("a = [", "1,", CONFIG_ITEMS + 1, "]", "more than 4096 items");
    check_too_much("", "#\n", CONFIG_FILE_BYTES / 2 + 1, "", "more than 262144 bytes");
}

struct values {
    char *listen;
    int64_t node, groups;
    bool quiet;
    struct config_strings metads;
    struct config_integers members;
};

#define VALUE_KEYS(v)                                                                                                  \
    {                                                                                                                  \
        {"listen", CONFIG_STRING, true, &(v).listen, 0, 0}, {"node", CONFIG_INTEGER, true, &(v).node, 1, 65535},       \
            {"groups", CONFIG_INTEGER, false, &(v).groups, 1, 256}, {"quiet", CONFIG_BOOL, false, &(v).quiet, 0, 0},   \
            {"metads", CONFIG_STRINGS, false, &(v).metads, 0, 0},                                                      \
        {                                                                                                              \
            "raft.members", CONFIG_INTEGERS, false, &(v).members, 1, 9                                                 \
        }                                                                                                              \
    }
#define VALUE_KEY_COUNT 6

static enum err read_values(struct values *v, const char *text, char *ret_text)
{
    struct config_key keys[] = VALUE_KEYS(*v);
    return config_read_text("x.toml", text, strlen(text), keys, VALUE_KEY_COUNT, ret_text);
}

static void test_values_arrive(void **state)
{
    (void)state;
    struct values v = {.groups = 2};
    struct config_key keys[] = VALUE_KEYS(v);
    char text[CONFIG_TEXT_BYTES];
    assert_int_equal(read_values(&v,
                                 "node = 3\nlisten = \"127.0.0.1:7\"\nquiet = true\nmetads = [\"1@a\", \"2@b\"]\n"
                                 "[raft]\nmembers = [1, 2, 3]\n",
                                 text),
                     ERR_OK);
    assert_string_equal(v.listen, "127.0.0.1:7");
    assert_int_equal(v.node, 3);
    assert_int_equal(v.groups, 2);
    assert_true(v.quiet);
    assert_int_equal(v.metads.count, 2);
    assert_string_equal(v.metads.items[1], "2@b");
    assert_int_equal(v.members.count, 3);
    assert_int_equal(v.members.items[2], 3);
    assert_int_equal(read_values(&v, "node = 4\nlisten = \"\"\n[raft]\nmembers = []\n", text), ERR_OK);
    assert_string_equal(v.listen, "");
    assert_int_equal(v.members.count, 0);
    config_free(keys, VALUE_KEY_COUNT);
    assert_null(v.listen);
}

static void test_failures_touch_nothing(void **state)
{
    (void)state;
    static const struct refusal cases[] = {
        {"node = 1\nlistn = \"x\"", "x.toml: line 2: unknown key 'listn'; did you mean 'listen'?"},
        {"members = [1]\n", "did you mean 'raft.members'?"},
        {"zzzzzzzzzzzz = 1", "unknown key 'zzzzzzzzzzzz'; remove it"},
        {"listen = 5\nnode = 1", "line 1: 'listen' must be a \"string\""},
        {"listen = \"x\"", "'node' is missing"},
        {"listen = \"x\"\nnode = 0", "line 2: 'node' must be 1 to 65535"},
        {"listen = \"x\"\nnode = 1\n[raft]\nmembers = [1, 10]", "line 4: 'raft.members' must be 1 to 9"},
        {"listen = \"x\"\nnode = [1]", "'node' must be a whole number"},
        {"listen = \"x\"\nnode = 1\n!", "x.toml: line 3: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct values v = {.node = 77};
        char text[CONFIG_TEXT_BYTES] = "";
        enum err err = read_values(&v, cases[i].text, text);
        if (err != ERR_CONFIG || !strstr(text, cases[i].part)) {
            fail_msg("%s\nerr %d, text '%s', expected '%s'", cases[i].text, err, text, cases[i].part);
        }
        assert_null(v.listen);
        assert_int_equal(v.node, 77);
    }
}

static void test_file_that_is_not_there(void **state)
{
    (void)state;
    char text[CONFIG_TEXT_BYTES] = "";
    assert_int_equal(config_read("unit/no such file.toml", NULL, 0, text), ERR_CONFIG);
    assert_non_null(strstr(text, "unit/no such file.toml: cannot be read: No such file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_tomllib),
        cmocka_unit_test(test_refusals_name_line_and_reason),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_values_arrive),
        cmocka_unit_test(test_failures_touch_nothing),
        cmocka_unit_test(test_file_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
