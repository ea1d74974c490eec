/* The table of scenarios. */
#include <stddef.h>

#include "scenario.h"

extern const struct scenario scenario_log, scenario_store, scenario_cluster;

const struct scenario *const scenarios[] = {&scenario_log, &scenario_store, &scenario_cluster, NULL};
