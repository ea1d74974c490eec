/* What a replica of the namespace's group holds, for the checkers of tests/check: references are the manifests, sums
 * and history are the tree's.
 *
 * What it does not verify
 *   records of other kinds than state.h has, the answers kept for repeats among them: they are passed over; what is
 *   sealed in pages and entries; where stores hold chunks; other groups' states; that replicas are the same
 *   (check/replicas.h). */
#ifndef CAIRN_SIM_CHECK_STATE_H
#define CAIRN_SIM_CHECK_STATE_H

#include "base/kv.h"
#include "check/state.h"
#include "world.h"

/* Reads all keys under a (group, view). CORRUPT when one does not decode. */
MUST_CHECK enum err state_dump_read(struct kv_view *view, const uint8_t prefix[8], struct state_dump *dump);
/* Lets references and tree judge it; what they find is a finding of the world. */
void state_check(struct world *world, struct kv_view *view, const uint8_t prefix[8]);

#endif
