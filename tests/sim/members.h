/* The operator of a simulated cluster: adds and removes metadata nodes while clients work, as `cairn admin node` does:
 * the change is named to the root group, then asked of each group's leader until it is so, then written into the map.
 * It crashes now and then and goes on where it stood. Between changes a group has 3 to 5 voters; numbers that are gone
 * are never used again. */
#ifndef CAIRN_SIM_MEMBERS_H
#define CAIRN_SIM_MEMBERS_H

#include "cluster.h"

struct members;
struct members *members_create(struct cluster *cluster);
void members_destroy(struct members *members);
actor_step members_step;
/* Ends the change that is under way and begins no other. */
void members_stop(struct members *members);
bool members_idle(const struct members *members);
/* How many changes were brought to their end. */
uint32_t members_changes(const struct members *members);
/* Each group's leader has the members that the operator left, all voters, in one settled configuration. */
bool members_agree(const struct members *members);

#endif
