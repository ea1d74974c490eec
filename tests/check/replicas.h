/* The checker of replicas (P10, R-E6): those that have applied the same hold the same.
 *
 * What it verifies
 *   pairs   each pair of keys (behind the prefix) and values of every replica against the first, in order of keys
 *   digest  the one over all pairs that it returns names that state
 *
 * What it does not
 *   that they have applied the same (the caller waits for it), or that what they hold is right (references.h,
 *   tree.h). */
#ifndef CAIRN_CHECK_REPLICAS_H
#define CAIRN_CHECK_REPLICAS_H

#include "base/ids.h"
#include "base/kv.h"
#include "report.h"

#define REPLICA_PREFIX_BYTES 8

/* A group's state on a node: what lies under a prefix, which need not be the same on all (R-F9). */
struct replica {
    struct kv_view *view; /* borrowed */
    uint8_t prefix[REPLICA_PREFIX_BYTES];
};
void replicas_check(const struct replica *replicas, unsigned count, struct report *report, struct sha256 *ret_digest);

#endif
