/* Little-endian integers in byte buffers, and a cursor that writes or reads packed structs with bounds checked.
 * All packed formats of Cairn are little-endian, but for key-value keys, which are big-endian so that they sort. */
#ifndef CAIRN_BASE_BYTES_H
#define CAIRN_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "slice.h"

static inline void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void put_u32(uint8_t *p, uint32_t v)
{
    put_u16(p, (uint16_t)v);
    put_u16(p + 2, (uint16_t)(v >> 16));
}
static inline void put_u64(uint8_t *p, uint64_t v)
{
    put_u32(p, (uint32_t)v);
    put_u32(p + 4, (uint32_t)(v >> 32));
}
static inline uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)get_u16(p) | (uint32_t)get_u16(p + 2) << 16;
}
static inline uint64_t get_u64(const uint8_t *p)
{
    return (uint64_t)get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}
static inline void put_be32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static inline void put_be64(uint8_t *p, uint64_t v)
{
    put_be32(p, (uint32_t)(v >> 32));
    put_be32(p + 4, (uint32_t)v);
}
static inline uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t get_be64(const uint8_t *p)
{
    return (uint64_t)get_be32(p) << 32 | get_be32(p + 4);
}

/* A growing byte buffer. Zero-initialised is empty; writer_deinit frees. */
struct writer {
    uint8_t *data;
    size_t bytes;
    size_t capacity;
};
void writer_deinit(struct writer *w);
/* Appends `bytes` uninitialised bytes and returns them (valid until the next append). */
uint8_t *writer_reserve(struct writer *w, size_t bytes);
void writer_put(struct writer *w, const void *data, size_t bytes);
void writer_u8(struct writer *w, uint8_t v);
void writer_u16(struct writer *w, uint16_t v);
void writer_u32(struct writer *w, uint32_t v);
void writer_u64(struct writer *w, uint64_t v);
void writer_be32(struct writer *w, uint32_t v);
void writer_be64(struct writer *w, uint64_t v);
/* Copies what was written into a slice and empties the writer (its memory stays for reuse). */
struct slice writer_take(struct writer *w);

/* A reading cursor. Reading past the end sets `failed` and yields zeros: check `failed` once at the end. */
struct reader {
    const uint8_t *data;
    size_t left;
    bool failed;
};
static inline struct reader reader_of(const void *data, size_t bytes)
{
    return (struct reader){data, bytes, false};
}
/* The next `bytes` bytes, or NULL and `failed`. Borrowed from the underlying buffer. */
const uint8_t *reader_take(struct reader *r, size_t bytes);
/* Copies the next `bytes` to `ret`, or zeros it and sets `failed`. */
void reader_get(struct reader *r, void *ret, size_t bytes);
uint8_t reader_u8(struct reader *r);
uint16_t reader_u16(struct reader *r);
uint32_t reader_u32(struct reader *r);
uint64_t reader_u64(struct reader *r);

/* Lower-case hexadecimal of `bytes`; `ret` holds 2 * bytes + 1. */
void hex_encode(const void *data, size_t bytes, char *ret);
/* Reads exactly 2 * bytes hexadecimal digits; false if it is anything else. */
bool hex_decode(const char *text, size_t bytes, void *ret);

#endif
