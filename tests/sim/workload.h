/* The workload of the `cluster` scenario: one actor (ACTOR_API) beside a real client core on a device. It uploads,
 * overwrites, reads, removes and lists files under names of its own and keeps the model of what it was told:
 *   acknowledged   a name holds what the last acknowledged mutation gave it, or what one whose outcome is unknown (the
 *                  client died, or gave up) may have given it since; nothing else, and never nothing
 *   whole          a file that is read is one of those, byte for byte
 *   safe           an acknowledged file can lose a store (safe_losses >= 1)
 * The model outlives the client's crashes. */
#ifndef CAIRN_SIM_WORKLOAD_H
#define CAIRN_SIM_WORKLOAD_H

#include "world.h"

struct workload_params {
    uint32_t client; /* number, for the names */
    uint32_t chunk_bytes;
    uint64_t every_ns;    /* mean pause between operations */
    uint32_t most_chunks; /* of a file */
};

struct workload;
struct workload *workload_create(struct world *world, const struct workload_params *params);
void workload_destroy(struct workload *workload);
actor_step workload_step;

/* The node the client runs on, for the files it uploads from. */
void workload_node(struct workload *workload, struct node *node);
/* No more random operations. */
void workload_stop(struct workload *workload);
bool workload_idle(const struct workload *workload);
/* Once stopped and idle: reads every name that may hold something. */
void workload_verify(struct workload *workload);
bool workload_verified(const struct workload *workload);
/* What LIST of the root shows of this workload's names is what it may be; `shown` has one byte a name. */
bool workload_name_of(const struct workload *workload, const void *name, size_t bytes, uint32_t *ret_file);
uint64_t workload_acknowledged(const struct workload *workload);
uint64_t workload_reads(const struct workload *workload);

#endif
