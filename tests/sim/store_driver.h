/* The client of the `store` scenario: an actor on a device that puts and gets shards at one store at random, and the
 * model of what the store must hold. What it checks:
 *   receipts    a receipt verifies and names what was put
 *   durability  a shard with a receipt is read back byte for byte by whom the receipt is for, after any crash
 *   honesty     a shard without a receipt is right or absent; another content under a held name is refused */
#ifndef CAIRN_SIM_STORE_DRIVER_H
#define CAIRN_SIM_STORE_DRIVER_H

#include "base/effect.h"
#include "base/ids.h"
#include "proto/token.h"
#include "world.h"

enum { DRIVER_NAMESPACES = 3, DRIVER_STORE = 1, DRIVER_K = 2, DRIVER_M = 1, DRIVER_REALM = 1 };

struct driver_params {
    struct world *world;
    struct cluster_id cluster;
    uint64_t cluster_incarnation, store_incarnation;
    uint8_t receipt_key[32];
    uint8_t signing_seed[32];
    uint32_t shard_bytes_max;
    uint64_t every_ns; /* mean time between operations */
};

struct driver;
struct driver *driver_create(const struct driver_params *params);
void driver_destroy(struct driver *driver);
actor_step driver_step;

/* Stops random operations; every receipted shard is read once more. True when all have been. */
void driver_verify(struct driver *driver);
bool driver_verified(const struct driver *driver);
uint64_t driver_receipts(const struct driver *driver);
uint64_t driver_reads(const struct driver *driver);

#endif
