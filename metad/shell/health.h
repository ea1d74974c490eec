/* What the node's log says of its groups and of the cluster's stores, once each time it changes. */
#ifndef CAIRN_METAD_SHELL_HEALTH_H
#define CAIRN_METAD_SHELL_HEALTH_H

#include "metad/metad.h"
#include "proto/cairn.pb-c.h"

/* `told`: what was said last; zeroed before the first call. On the group's own loop. */
void health_tell(struct group_health *told, uint32_t number, const struct group *group);

/* The states of stores in the map, as told; zeroed before the first call. */
struct stores_told {
    uint8_t *states; /* by the store's number, from 1; own */
    unsigned long count, capacity;
};
/* A newer map is here. */
void health_tell_stores(struct stores_told *told, const Cairn__ClusterMap *map);
void stores_told_deinit(struct stores_told *told);

#endif
