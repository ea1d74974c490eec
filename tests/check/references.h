/* The checker of references (P6, R-D3): they are the manifests, exactly.
 *
 * What it verifies
 *   chunks     a chunk counts the places in live pages that name it, and the pins of sessions; every chunk a page names
 *              has a record
 *   pages      a page counts the links that name it, and is gone when none does
 *   manifests  the links of a manifest follow each other from entry 0 without a gap; those of a version are as many
 *              entries as it has
 *   owners     every link belongs to a version, current or past, or to a session that is open or not yet reaped; every
 *              pin to such a session
 *
 * What it does not
 *   whether stores hold what is referenced (versions.h reads it); releases, which nobody sends yet. */
#ifndef CAIRN_CHECK_REFERENCES_H
#define CAIRN_CHECK_REFERENCES_H

#include "report.h"
#include "state.h"

void references_check(const struct state_dump *dump, struct report *report);

#endif
