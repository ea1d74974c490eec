/* The checker of a namespace's tree (P10, P11): the sums of folders and the history are what the entries and events
 * make them.
 *
 * What it verifies
 *   sums     each folder that hangs in the tree carries the number, the bytes and the digest (R-D2) of all entries
 *            below it, and the namespace those of its root
 *   history  each event's entry is the live one or stands in the history under its sequence, and so does each removal:
 *            a folder can be listed as of any of them (R-D1)
 *
 * What it does not
 *   the contents of past entries; folders that were removed with what lies below them. */
#ifndef CAIRN_CHECK_TREE_H
#define CAIRN_CHECK_TREE_H

#include "report.h"
#include "state.h"

void tree_check(const struct state_dump *dump, struct report *report);

#endif
