/* Byte cursors: the writer grows, the reader never runs past its end. */
#include "bytes.h"

#include <stdlib.h>

#include "check.h"

void writer_deinit(struct writer *w)
{
    free(w->data);
    *w = (struct writer){0};
}

uint8_t *writer_reserve(struct writer *w, size_t bytes)
{
    unsigned long capacity = w->capacity;
    w->data = mem_grow(w->data, &capacity, w->bytes + bytes, 1);
    w->capacity = capacity;
    uint8_t *at = w->data + w->bytes;
    w->bytes += bytes;
    return at;
}

void writer_put(struct writer *w, const void *data, size_t bytes)
{
    uint8_t *at = writer_reserve(w, bytes);
    if (bytes > 0) {
        memcpy(at, data, bytes);
    }
}

void writer_u8(struct writer *w, uint8_t v)
{
    *writer_reserve(w, 1) = v;
}
void writer_u16(struct writer *w, uint16_t v)
{
    put_u16(writer_reserve(w, 2), v);
}
void writer_u32(struct writer *w, uint32_t v)
{
    put_u32(writer_reserve(w, 4), v);
}
void writer_u64(struct writer *w, uint64_t v)
{
    put_u64(writer_reserve(w, 8), v);
}
void writer_be32(struct writer *w, uint32_t v)
{
    put_be32(writer_reserve(w, 4), v);
}
void writer_be64(struct writer *w, uint64_t v)
{
    put_be64(writer_reserve(w, 8), v);
}

struct slice writer_take(struct writer *w)
{
    struct slice slice = slice_copy(w->data, w->bytes);
    w->bytes = 0;
    return slice;
}

const uint8_t *reader_take(struct reader *r, size_t bytes)
{
    if (r->failed || bytes > r->left) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *at = r->data;
    r->data += bytes;
    r->left -= bytes;
    return at;
}

void reader_get(struct reader *r, void *ret, size_t bytes)
{
    const uint8_t *at = reader_take(r, bytes);
    if (at == NULL) {
        memset(ret, 0, bytes);
    } else if (bytes > 0) {
        memcpy(ret, at, bytes);
    }
}

uint8_t reader_u8(struct reader *r)
{
    const uint8_t *at = reader_take(r, 1);
    return at ? *at : 0;
}

uint16_t reader_u16(struct reader *r)
{
    const uint8_t *at = reader_take(r, 2);
    return at ? get_u16(at) : 0;
}

uint32_t reader_u32(struct reader *r)
{
    const uint8_t *at = reader_take(r, 4);
    return at ? get_u32(at) : 0;
}

uint64_t reader_u64(struct reader *r)
{
    const uint8_t *at = reader_take(r, 8);
    return at ? get_u64(at) : 0;
}

void hex_encode(const void *data, size_t bytes, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *in = data;
    for (size_t i = 0; i < bytes; i++) {
        ret[2 * i] = digits[in[i] >> 4];
        ret[2 * i + 1] = digits[in[i] & 15];
    }
    ret[2 * bytes] = 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return -1;
}

bool hex_decode(const char *text, size_t bytes, void *ret)
{
    uint8_t *out = ret;
    for (size_t i = 0; i < bytes; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * bytes] == 0;
}
