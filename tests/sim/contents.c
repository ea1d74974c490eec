/* Contents by number (contents.h): word i of a content is a hash of (number, i). */
#include "contents.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "trace.h"

#define NUMBER_SHARED 0x7777u

struct content {
    uint64_t bytes;
    bool shared;
};

struct contents {
    struct content *items; /* by number */
    unsigned long count, capacity;
};

struct contents *contents_create(void)
{
    struct contents *contents = mem_alloc(sizeof *contents);
    contents->items = mem_grow(NULL, &contents->capacity, 1, sizeof *contents->items);
    contents->count = 1;
    return contents;
}

void contents_destroy(struct contents *contents)
{
    free(contents->items);
    free(contents);
}

uint64_t contents_add(struct contents *contents, uint64_t bytes, bool shared)
{
    contents->items = mem_grow(contents->items, &contents->capacity, contents->count + 1, sizeof *contents->items);
    contents->items[contents->count] = (struct content){bytes, shared};
    return contents->count++;
}

uint64_t contents_count(const struct contents *contents)
{
    return contents->count - 1;
}

uint64_t contents_bytes(const struct contents *contents, uint64_t content)
{
    CHECK(content > 0 && content < contents->count);
    return contents->items[content].bytes;
}

static uint64_t content_word(uint64_t number, uint64_t at)
{
    uint64_t z = (number << 24 ^ at) * 0x9fb21c651e98df25ull;
    z = (z ^ z >> 31) * 0x94d049bb133111ebull;
    return z ^ z >> 29;
}

/* Bytes [from, to) of the endless content of a number. */
static void words_read(uint64_t number, uint64_t from, uint64_t to, uint8_t *ret)
{
    while (from < to) {
        uint64_t word = content_word(number, from / 8), within = from % 8;
        uint64_t bytes = to - from < 8 - within ? to - from : 8 - within;
        memcpy(ret, (const uint8_t *)&word + within, bytes);
        ret += bytes;
        from += bytes;
    }
}

void contents_read(const struct contents *contents, uint64_t content, uint64_t offset, uint64_t bytes, uint8_t *ret)
{
    uint64_t all = contents_bytes(contents, content), end = offset + bytes;
    CHECK(end <= all);
    uint64_t own = contents->items[content].shared ? (all > 8 ? all - 8 : 0) : 0; /* its own bytes begin there */
    own = own < offset ? offset : own > end ? end : own;
    words_read(NUMBER_SHARED, offset, own, ret);
    words_read(content << 16, own, end, ret + (own - offset));
}

uint64_t contents_name(const void *data, uint64_t bytes)
{
    struct trace trace;
    trace_init(&trace, false);
    trace_bytes(&trace, data, bytes);
    return trace.hash != 0 ? trace.hash : 1;
}
