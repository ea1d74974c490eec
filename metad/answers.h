/* What a device's mutations were answered (R-D6): kept under the device and its key, in the batch of the mutation
 * itself, for the newest ANSWER_WINDOW keys. A repeat gets the first answer; the same key with another request is
 * KEY_REUSED; one below the window is TOO_OLD. */
#ifndef CAIRN_METAD_ANSWERS_H
#define CAIRN_METAD_ANSWERS_H

#include "metad/machine.h"

/* A repeat: fills the first answer, or refuses. True when the command must not run. */
bool answer_remembered(struct apply *apply, struct answer *answer);
/* Keeps it, a refusal too. */
void answer_remember(struct apply *apply, const struct answer *answer);
/* Frees what is kept in memory; the state has all of it. */
void answers_forget(struct state *state);

#endif
