/* The checker of what an acknowledgement says of stores (P1, R-B2, R-B3), fed by what nodes send.
 *
 * What it verifies
 *   receipts     a store's receipt answers a put, and names the very shard and store that the put named
 *   safe_losses  it answers a client that asked, and is no more than the receipts shown for each chunk of the file bear
 *                out, in one code, on distinct stores; a store that has been down for long bears out nothing. Only
 *                receipts that a store has given count, byte for byte. A chunk that was answered as present counts by
 *                what was ever shown for it.
 *
 * What it does not
 *   that a store still holds what it gave a receipt for, or is the incarnation that gave it (the reads at the end tell:
 *   check/versions.h); that a receipt is of the session that shows it; that safe_losses is as high as it could be; that
 *   the entries staged are the file, whole; files that came inline; acknowledgements and receipts on a connection that
 *   both ends have forgotten. */
#ifndef CAIRN_SIM_CHECK_SAFE_H
#define CAIRN_SIM_CHECK_SAFE_H

#include "world.h"

struct safe_check;
/* In `forged_percent` of the stages that show receipts one of them is not what the store gave (safe_forge). */
struct safe_check *safe_check_create(struct world *world, uint32_t forged_percent);
void safe_check_destroy(struct safe_check *check);
/* A message between nodes is about to be sent. */
void safe_check_send(struct safe_check *check, struct node *node, const struct effect *effect);
/* A block server went down, or comes back. */
void safe_check_node(struct safe_check *check, const struct node *node, bool up);
/* How many acknowledgements were looked at. */
uint64_t safe_check_acknowledgements(const struct safe_check *check);

/* The world's tamper: what a client that lies sends. The same bytes are always spoiled alike. */
void safe_forge(void *check, const struct node *from, struct message *message);

#endif
