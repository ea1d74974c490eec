/* The table of scenarios in code. */
#include <stddef.h>

#include "scenario.h"

extern const struct scenario scenario_log, scenario_log_rot, scenario_log_late, scenario_store;

const struct scenario *const scenarios[] = {&scenario_log, &scenario_log_rot, &scenario_log_late, &scenario_store,
                                            NULL};
