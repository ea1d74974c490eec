/* Slices: refcounted views of pool buffers. Bulk bytes travel from the socket to the disk as one slice and are never
 * copied on the way (ARCHITECTURE.md, Bytes).
 *
 * A slice names bytes and owns one reference on its buffer (or none, when empty). Copying the struct moves the
 * reference; slice_ref makes a second one. Buffers of 4 KiB and more are 4096-byte aligned and their capacity is a
 * multiple of 4096, so O_DIRECT may write the padding behind the bytes. References are atomic: a slice may be dropped
 * on another thread than the one that made it. */
#ifndef CAIRN_BASE_SLICE_H
#define CAIRN_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf;

struct slice {
    struct buf *buf; /* NULL: empty, or borrowed bytes that outlive the slice (slice_borrow) */
    uint8_t *data;
    uint32_t bytes;
};

/* A new buffer of `bytes` (0 gives an empty slice). Contents are not initialised but for the alignment padding, which
 * is zero. */
struct slice slice_alloc(size_t bytes);
/* A new buffer holding a copy of `data`. */
struct slice slice_copy(const void *data, size_t bytes);
/* Borrowed bytes; the caller keeps them alive for as long as any slice of them exists. */
struct slice slice_borrow(const void *data, size_t bytes);
/* A second reference. */
struct slice slice_ref(struct slice slice);
/* Bytes that stay whatever becomes of the slice: a second reference, or a copy where they are borrowed. */
struct slice slice_keep(struct slice slice);
/* A new reference to part of a slice: offset + bytes <= slice.bytes. */
struct slice slice_sub(struct slice slice, size_t offset, size_t bytes);
/* Gives up the reference and empties the slice. */
void slice_drop(struct slice *slice);
/* True when bytes equal. */
bool slice_equal(struct slice a, struct slice b);
/* Bytes the buffer has from slice.data on (>= slice.bytes); padding up to it may be read and written by the sole owner.
 */
size_t slice_capacity(struct slice slice);
/* Bytes in live buffers of this process: what tests compare before and after. */
uint64_t slice_live_bytes(void);

#endif
