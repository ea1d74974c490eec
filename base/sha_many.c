/* SHA-256 of several messages at once. The instructions of SHA-NI take four cycles and each waits for the one before,
 * so one message leaves most of the unit idle: LANES messages go through it side by side. A lane that is done with its
 * message takes the next one; towards the end fewer lanes run. Where a byte goes: chunks of CUT_HASH, the hash that
 * names them. Without SHA-NI OpenSSL hashes one after the other, with the same result. Nothing here can fail.
 * Sources: FIPS 180-4; Intel SHA Extensions, 2013. */
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "hash.h"

static void many_plain(const struct slice *in, unsigned count, struct sha256 *ret)
{
    for (unsigned i = 0; i < count; i++) {
        ret[i] = sha256(in[i].data, in[i].bytes);
    }
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define LANES       3u
#define BLOCK_BYTES 64u
#define SHA_NI      __attribute__((target("sha,sse4.1,ssse3")))

static const uint32_t round_keys[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

/* One message on its way: its whole blocks, then its padded end. */
struct lane {
    __m128i abef, cdgh; /* the state, in the order the instructions want */
    const uint8_t *at;
    size_t blocks; /* left at `at` */
    unsigned message;
    unsigned tail_blocks; /* 0 once the end is under way */
    uint8_t tail[2 * BLOCK_BYTES];
};

/* `blocks` blocks of each of `lanes` lanes. Inlined with `lanes` constant. */
SHA_NI static inline __attribute__((always_inline)) void lanes_hash(struct lane *const *lane, unsigned lanes,
                                                                    size_t blocks)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    __m128i abef[LANES], cdgh[LANES], w[LANES][4];
    for (; blocks > 0; blocks--) {
#pragma GCC unroll 3
        for (unsigned l = 0; l < lanes; l++) {
            abef[l] = lane[l]->abef;
            cdgh[l] = lane[l]->cdgh;
        }
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++) {
            const __m128i keys = _mm_load_si128((const __m128i *)(const void *)(round_keys + (size_t)4 * i));
#pragma GCC unroll 3
            for (unsigned l = 0; l < lanes; l++) {
                __m128i *v = w[l];
                if (i < 4) {
                    v[i] = _mm_loadu_si128((const __m128i *)(const void *)(lane[l]->at + (size_t)16 * i));
                    v[i] = _mm_shuffle_epi8(v[i], swap);
                } else { /* the four words before last, last, ... are v[i & 3], v[(i + 1) & 3], ... */
                    __m128i sum = _mm_sha256msg1_epu32(v[i & 3], v[(i + 1) & 3]);
                    sum = _mm_add_epi32(sum, _mm_alignr_epi8(v[(i + 3) & 3], v[(i + 2) & 3], 4));
                    v[i & 3] = _mm_sha256msg2_epu32(sum, v[(i + 3) & 3]);
                }
                __m128i words = _mm_add_epi32(v[i & 3], keys);
                cdgh[l] = _mm_sha256rnds2_epu32(cdgh[l], abef[l], words);
                abef[l] = _mm_sha256rnds2_epu32(abef[l], cdgh[l], _mm_shuffle_epi32(words, 0x0e));
            }
        }
#pragma GCC unroll 3
        for (unsigned l = 0; l < lanes; l++) {
            lane[l]->abef = _mm_add_epi32(lane[l]->abef, abef[l]);
            lane[l]->cdgh = _mm_add_epi32(lane[l]->cdgh, cdgh[l]);
            lane[l]->at += BLOCK_BYTES;
        }
    }
}

SHA_NI static void lanes_run(struct lane *const *lane, unsigned lanes, size_t blocks)
{
    _Static_assert(LANES == 3, "one case each");
    switch (lanes) {
    case 1:
        lanes_hash(lane, 1, blocks);
        break;
    case 2:
        lanes_hash(lane, 2, blocks);
        break;
    default:
        CHECK(lanes == 3);
        lanes_hash(lane, 3, blocks);
    }
}

static void lane_begin(struct lane *lane, const struct slice *in, unsigned message)
{
    size_t rest = in[message].bytes % BLOCK_BYTES;
    lane->message = message;
    lane->at = in[message].data;
    lane->blocks = in[message].bytes / BLOCK_BYTES;
    lane->tail_blocks = rest < BLOCK_BYTES - 8 ? 1 : 2;
    memset(lane->tail, 0, sizeof lane->tail);
    if (rest > 0) {
        memcpy(lane->tail, in[message].data + in[message].bytes - rest, rest);
    }
    lane->tail[rest] = 0x80;
    put_be64(lane->tail + lane->tail_blocks * BLOCK_BYTES - 8, (uint64_t)in[message].bytes * 8);
    lane->abef = _mm_set_epi32(0x6a09e667, (int)0xbb67ae85, 0x510e527f, (int)0x9b05688c);
    lane->cdgh = _mm_set_epi32(0x3c6ef372, (int)0xa54ff53a, 0x1f83d9ab, 0x5be0cd19);
}

/* After its blocks are done: on to the padded end (true), or the hash is there (false). */
static bool lane_goes_on(struct lane *lane, struct sha256 *ret)
{
    if (lane->tail_blocks > 0) {
        lane->at = lane->tail;
        lane->blocks = lane->tail_blocks;
        lane->tail_blocks = 0;
        return true;
    }
    uint32_t abef[4], cdgh[4]; /* last letter first */
    memcpy(abef, &lane->abef, sizeof abef);
    memcpy(cdgh, &lane->cdgh, sizeof cdgh);
    const uint32_t words[8] = {abef[3], abef[2], cdgh[3], cdgh[2], abef[1], abef[0], cdgh[1], cdgh[0]};
    for (unsigned i = 0; i < 8; i++) {
        put_be32(ret[lane->message].bytes + 4 * i, words[i]);
    }
    return false;
}

static void many_ni(const struct slice *in, unsigned count, struct sha256 *ret)
{
    struct lane lanes[LANES];
    struct lane *active[LANES];
    unsigned busy = 0;
    unsigned next = 0;
    for (; busy < LANES && next < count; busy++) {
        active[busy] = &lanes[busy];
        lane_begin(active[busy], in, next++);
    }
    while (busy > 0) {
        size_t blocks = active[0]->blocks;
        for (unsigned i = 1; i < busy; i++) {
            blocks = active[i]->blocks < blocks ? active[i]->blocks : blocks;
        }
        lanes_run(active, busy, blocks);
        for (unsigned i = 0; i < busy;) {
            active[i]->blocks -= blocks;
            if (active[i]->blocks > 0 || lane_goes_on(active[i], ret)) {
                i++;
            } else if (next < count) {
                lane_begin(active[i++], in, next++);
            } else {
                active[i] = active[--busy];
            }
        }
    }
    CHECK(next == count);
}

static bool has_sha_ni(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") &&
           __builtin_cpu_supports("ssse3");
}

void sha256_many(const struct slice *in, unsigned count, struct sha256 *ret)
{
    static _Thread_local int known; /* cpuid is slow in a virtual machine: asked once for each thread */
    if (known == 0) {
        known = has_sha_ni() ? 1 : -1;
    }
    if (known > 0 && count > 1) {
        many_ni(in, count, ret);
    } else {
        many_plain(in, count, ret);
    }
}
#else
void sha256_many(const struct slice *in, unsigned count, struct sha256 *ret)
{
    many_plain(in, count, ret);
}
#endif
