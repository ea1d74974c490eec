/* A scenario: a cluster, its faults, its workload and its checkers over one world. */
#ifndef CAIRN_SIM_SCENARIO_H
#define CAIRN_SIM_SCENARIO_H

#include "world.h"

struct scenario {
    const char *name;
    const char *about;
    /* Builds the cluster in `world`, runs it to the end of its script and destroys what is its own; what is wrong is a
     * finding of the world. Draws what it needs from world->rng_scenario. */
    void (*run)(struct world *world);
};

extern const struct scenario *const scenarios[]; /* ends with NULL */

#endif
