/* xoshiro256** (Blackman, Vigna) seeded by splitmix64. */
#include "rng.h"

#include "base/check.h"

static uint64_t splitmix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

struct rng rng_of(uint64_t seed, uint64_t label)
{
    uint64_t state = seed;
    state = splitmix(&state) ^ label * 0xd6e8feb86659fd93ull;
    struct rng rng;
    for (int i = 0; i < 4; i++) {
        rng.s[i] = splitmix(&state);
    }
    return rng;
}

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t *s = rng->s;
    uint64_t result = rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t rng_below(struct rng *rng, uint64_t below)
{
    CHECK(below > 0);
    return rng_next(rng) % below;
}

uint64_t rng_between(struct rng *rng, uint64_t low, uint64_t high)
{
    CHECK(low <= high);
    return low + (high - low == UINT64_MAX ? rng_next(rng) : rng_below(rng, high - low + 1));
}

bool rng_chance(struct rng *rng, uint32_t ppm)
{
    return ppm > 0 && rng_below(rng, 1000000) < ppm;
}
