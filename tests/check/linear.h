/* The checker of linearizability (P2): do the answers that concurrent clients got fit one order of all operations, in
 * which each takes effect at one moment between its invocation and its completion?
 *
 * What it verifies
 *   cells      for each (folder, name): puts with their base version, gets, stats, removes, makings of folders, moves
 *              and every list page that covers the name (what it shows there, or that it shows nothing), by the search
 *              of Wing and Gong with Lowe's memory of configurations. Linearizability is local, so cells are searched
 *              one by one; cells between which an entry was moved are searched together. An operation of unknown
 *              outcome takes effect at any moment after its invocation, or never. What is compared: kind, file id,
 *              version, sequence and content. Acknowledged mutations of one search take effect in order of their
 *              sequence numbers (P3 promises no less), which keeps the search short.
 *   sequences  no two acknowledged mutations share one; one that completed before another was invoked has the lower one
 *   pages      a list page is one moment: it names sequence S, which is neither older than what was acknowledged before
 *              the page was asked for nor newer than what was invoked after it was answered; it shows the acknowledged
 *              mutations up to S and nothing of those behind it, over all its names at once
 *
 * What it does not
 *   that a refusal other than NOT_FOUND, EXISTS, CONFLICT, IS_A_FOLDER was right; that several pages are of one moment
 *   (not promised); what lies below a folder that may have been removed (NOT_FOUND is always accepted there); the path
 *   by which a name was reached; that bytes never read are there (versions.h); mutations nobody recorded (feed.h finds
 *   them). */
#ifndef CAIRN_CHECK_LINEAR_H
#define CAIRN_CHECK_LINEAR_H

#include "history.h"
#include "report.h"

#define LINEAR_BOUND 2000000u /* configurations a search may visit before it is undecided */

struct linear_options {
    bool starts_empty; /* the first operation found an empty namespace; else anything may have been there */
    uint64_t bound;    /* 0: LINEAR_BOUND */
};

void linear_check(struct history *history, const struct linear_options *options, struct report *report);

#endif
