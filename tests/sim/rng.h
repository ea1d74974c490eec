/* Randomness of a simulation: xoshiro256** seeded by splitmix64. All chance in a run comes from here, so that a seed is
 * a run. Streams with different labels of one seed are independent: a change in one part moves the others little. */
#ifndef CAIRN_SIM_RNG_H
#define CAIRN_SIM_RNG_H

#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};

struct rng rng_of(uint64_t seed, uint64_t label);
uint64_t rng_next(struct rng *rng);
/* Uniform in [0, below), below > 0. */
uint64_t rng_below(struct rng *rng, uint64_t below);
/* Uniform in [low, high]. */
uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high);
/* True with probability ppm / 1,000,000. */
bool rng_chance(struct rng *rng, uint32_t ppm);

#endif
