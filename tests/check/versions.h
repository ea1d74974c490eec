/* The checker of durability (P1, P4): no acknowledged version is lost, and its bytes are the ones that were stored.
 *
 * What it verifies
 *   numbers    a version number is acknowledged once, and whoever reads that version at any time gets the bytes that
 *              were acknowledged under it; two reads of one version get the same
 *   safety     a version is acknowledged only when it can lose a store (safe_losses >= 1)
 *   the end    what the acknowledged mutations, in order of sequence, leave under each name is what every read invoked
 *              after the last mutation of that name shows, whole; a name with mutations of unknown outcome may hold
 *              theirs instead. `complete` demands such a read for each name that was ever acknowledged
 *   ends well  a read after the last mutation must not end in CORRUPT, NOT_HERE or any other error but NOT_FOUND and
 *              those that a fault explains (codes to retry)
 *
 * What it does not
 *   versions that were replaced (nothing reads them yet); chunks that no read touched (references.h); below a folder
 *   that was removed recursively nothing is expected. */
#ifndef CAIRN_CHECK_VERSIONS_H
#define CAIRN_CHECK_VERSIONS_H

#include "history.h"
#include "report.h"

struct versions_options {
    bool complete; /* every name that was acknowledged was read after its last mutation */
};

void versions_check(struct history *history, const struct versions_options *options, struct report *report);

#endif
