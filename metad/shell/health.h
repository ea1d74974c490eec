/* What the node's log says of a group's log, once each time it changes. */
#ifndef CAIRN_METAD_SHELL_HEALTH_H
#define CAIRN_METAD_SHELL_HEALTH_H

#include "metad/metad.h"

/* `told`: what was said last; zeroed before the first call. On the group's own loop. */
void health_tell(struct group_health *told, uint32_t number, const struct group *group);

#endif
