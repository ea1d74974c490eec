/* zstd for sealed payloads (codec SEAL_ZSTD): compression where it pays, expansion that believes no length. */
#ifndef CAIRN_BASE_COMPRESS_H
#define CAIRN_BASE_COMPRESS_H

#include <stdint.h>

#include "err.h"
#include "slice.h"

/* One zstd frame of level 1, at least a sixteenth shorter than `plain`, in a new slice; empty when it would not be:
 * samples find that out at a small part of the cost. */
struct slice compress_if_pays(const void *plain, uint32_t plain_bytes);
/* The plain bytes of a payload, in a new slice. CORRUPT unless it is one zstd frame, naming plain_bytes and expanding
 * to exactly them; plain_bytes <= LIMIT_CHUNK_BYTES is all that is ever allocated. */
MUST_CHECK enum err compress_expand(const void *payload, uint32_t payload_bytes, uint32_t plain_bytes,
                                    struct slice *ret_plain);

#endif
