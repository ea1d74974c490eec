/* What the node's log says of its groups' logs, once each time it changes. */
#ifndef CAIRN_METAD_SHELL_HEALTH_H
#define CAIRN_METAD_SHELL_HEALTH_H

#include "metad/metad.h"

struct health_told {
    struct group_health last[LIMIT_GROUPS];
};
void health_tell(struct health_told *told, struct group *const *groups, uint32_t count);

#endif
