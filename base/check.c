/* Broken invariants and small memory: both end the process, loudly. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void report_to_stderr(const char *file, int line, const char *function, const char *condition)
{
    fprintf(stderr, "{\"level\":\"fatal\",\"code\":\"INTERNAL\",\"text\":\"%s:%d: in %s: broken: ", file, line,
            function);
    for (const char *c = condition; *c; c++) {
        fprintf(stderr, *c == '"' || *c == '\\' ? "\\%c" : "%c", *c);
    }
    fputs("\"}\n", stderr);
    fflush(stderr);
}

static void (*report_failure)(const char *, int, const char *, const char *) = report_to_stderr;

void check_report_set(void (*report)(const char *file, int line, const char *function, const char *condition))
{
    report_failure = report;
}

_Noreturn void check_failed(const char *file, int line, const char *function, const char *condition)
{
    report_failure(file, line, function, condition);
    abort();
}

#define MEM_SMALL 1024u

void *mem_alloc(unsigned long bytes)
{
    if (bytes > MEM_SMALL) {
        void *fresh = calloc(1, bytes); /* pages that come from the kernel are clear */
        CHECK(fresh != NULL);
        return fresh;
    }
    void *memory = malloc(bytes ? bytes : 1); /* calloc passes by what malloc keeps for the thread */
    CHECK(memory != NULL);
    return memset(memory, 0, bytes);
}

void *mem_grow(void *items, unsigned long *capacity, unsigned long count, unsigned long item_bytes)
{
    CHECK(item_bytes > 0);
    if (count <= *capacity) {
        return items;
    }
    unsigned long grown = *capacity ? *capacity * 2 : item_bytes < 8 ? 64 / item_bytes : 8;
    if (grown < count) {
        grown = count;
    }
    CHECK(grown < (1ul << 40) / item_bytes);
    char *memory = realloc(items, grown * item_bytes);
    CHECK(memory != NULL);
    memset(memory + *capacity * item_bytes, 0, (grown - *capacity) * item_bytes);
    *capacity = grown;
    return memory;
}
