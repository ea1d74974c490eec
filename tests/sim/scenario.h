/* A scenario: a cluster, its faults, its workload and its checkers over one world. Two are code (the log alone, a store
 * alone); the others are files (plan.h). */
#ifndef CAIRN_SIM_SCENARIO_H
#define CAIRN_SIM_SCENARIO_H

#include "plan.h"
#include "world.h"

struct scenario {
    const char *name;
    const char *about;
    /* Builds the cluster in `world`, runs it to the end of its script and destroys what is its own; what is wrong is a
     * finding of the world. Draws what it needs from world->rng_scenario. */
    void (*run)(struct world *world);
};

extern const struct scenario *const scenarios[]; /* those in code; ends with NULL */

/* Likewise, of a plan. */
void scenario_run_plan(struct world *world, const struct plan *plan);

#endif
