/* The checker of the change feed (P3): is it the fold of the mutations, without gaps, each once, in order?
 *
 * What it verifies
 *   pages         a page read at cursor C holds C+1, C+2, ... up to at most the newest sequence it names, and is empty
 *                 only at the end; it never hands out a cursor's past
 *   one feed      every reader at every time, whatever its cursor, sees the same event under a sequence
 *   fold          each event fits the tree that all events before it make: what is created was free, what is updated,
 *                 removed or moved was there, with the same identity
 *   acknowledged  each acknowledged mutation is the event of its sequence, with its name, kind, identity and version
 *   exactly once  every other event is one of the operations of unknown outcome, each of them at most once, and not
 *                 before it was invoked: nothing is done twice, and nothing that nobody asked for
 *   state         each list page at sequence S shows exactly the fold up to S, over its range of names; each get and
 *                 stat that names its entry's sequence shows what the event of that sequence made
 *
 * What it does not
 *   events nobody read: `complete` demands that the feed was read up to the last acknowledged sequence; sums and
 *   digests of folders; histories that do not begin with the namespace (`starts_empty` false) are folded from what is
 *   seen on, and strangers' mutations are not findings there. */
#ifndef CAIRN_CHECK_FEED_H
#define CAIRN_CHECK_FEED_H

#include "history.h"
#include "report.h"

struct feed_options {
    bool starts_empty; /* the history has every mutation since the namespace was made */
    bool complete;     /* the feed was read to its end after the last mutation */
};

void feed_check(struct history *history, const struct feed_options *options, struct report *report);

#endif
