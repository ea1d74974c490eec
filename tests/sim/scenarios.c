/* The table of scenarios. */
#include <stddef.h>

#include "scenario.h"

extern const struct scenario scenario_log;

const struct scenario *const scenarios[] = {&scenario_log, NULL};
