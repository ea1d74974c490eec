/* The contents of a workload's files: bytes that are functions of a number, so that models keep numbers only. */
#ifndef CAIRN_SIM_CONTENTS_H
#define CAIRN_SIM_CONTENTS_H

#include <stdbool.h>
#include <stdint.h>

struct contents;
struct contents *contents_create(void);
void contents_destroy(struct contents *contents);

/* A new content's number, from 1 on. shared: all but its last 8 bytes are those of every other shared content, so that
 * the cluster has its chunks already. */
uint64_t contents_add(struct contents *contents, uint64_t bytes, bool shared);
/* How many there are: numbers 1 .. count. */
uint64_t contents_count(const struct contents *contents);
uint64_t contents_bytes(const struct contents *contents, uint64_t content);
/* Bytes [offset, offset + bytes). */
void contents_read(const struct contents *contents, uint64_t content, uint64_t offset, uint64_t bytes, uint8_t *ret);
/* A 64-bit name of bytes, never 0; equal bytes have equal names. */
uint64_t contents_name(const void *data, uint64_t bytes);

#endif
