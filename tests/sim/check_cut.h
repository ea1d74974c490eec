/* The checker of what a metad gives up (R-E4), fed by what its groups ask their log: entries are cut off, or all of
 * them dropped for a snapshot, only up to where the state lies durably in the database. A crash may take the rest of
 * that back, and then nobody has what was cut but the others, if they still do. What is durable is read from the
 * database as a flush has left it, in the format of metad/standing.c.
 *
 * What it does not verify
 *   the term that a cut or a reset names; that the state behind the entry is the right one (check/replicas.h) and all
 *   of it is there; that enough is kept for members that lag, or that anything is ever cut; what a group trims, and
 *   what the log drops unasked (check_log.h sees what it opens with). */
#ifndef CAIRN_SIM_CHECK_CUT_H
#define CAIRN_SIM_CHECK_CUT_H

#include "world.h"

/* A metad's group is about to send a message. */
void cut_check_send(struct world *world, const struct node *node, const struct actor *actor,
                    const struct effect *effect);

#endif
