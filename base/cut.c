/* Finds the end of a chunk (FastCDC). First step of a byte's way up: file bytes -> cut_next -> plain chunk -> sha256.
 * The first min bytes are skipped. Behind them the fingerprint is computed for LANES places at once: each addition
 * waits for the one before, but a fingerprint knows only the 64 bytes before it, so the lanes run side by side through
 * neighbouring parts of the buffer. The lane of the lowest place wins. Nothing here can fail. */
#include "cut.h"

#include <pthread.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "hash.h"
#include "limits.h"

#define LANES      3u
#define LANE_BYTES 1024u

static pthread_once_t gear_once = PTHREAD_ONCE_INIT;
static uint64_t gear_table[256];

static void gear_make(void)
{
    uint8_t text[13] = "cairn gear 1";
    for (unsigned i = 0; i < 256; i++) {
        text[12] = (uint8_t)i;
        struct sha256 sha = sha256(text, sizeof text);
        gear_table[i] = get_u64(sha.bytes);
    }
}

const uint64_t *cut_gear(void)
{
    CHECK(pthread_once(&gear_once, gear_make) == 0);
    return gear_table;
}

bool cut_params_valid(const struct cut_params *params)
{
    return params->min_bytes >= CUT_WINDOW_BYTES && params->min_bytes <= params->avg_bytes &&
           params->avg_bytes <= params->max_bytes && params->max_bytes <= LIMIT_CHUNK_BYTES;
}

/* The fingerprint before byte `at` without its oldest byte, which the next one shifts out. */
static uint64_t gear_before(const uint64_t *gear, const uint8_t *at)
{
    uint64_t print = 0;
    for (const uint8_t *from = at - (CUT_WINDOW_BYTES - 1); from < at; from++) {
        print = (print << 1) + gear[*from];
    }
    return print;
}

/* The first end in (from, to] with a fingerprint below `threshold`, or 0. One byte after the other. */
static size_t scan_plain(const uint64_t *gear, const uint8_t *data, size_t from, size_t to, uint64_t threshold)
{
    uint64_t print = gear_before(gear, data + from);
    for (size_t i = from; i < to; i++) {
        print = (print << 1) + gear[data[i]];
        if (print < threshold) {
            return i + 1;
        }
    }
    return 0;
}

/* The same for LANES * LANE_BYTES bytes behind `from`: lane n has the n-th part. Stops at the first hit of any lane and
 * then looks through the parts of the lanes before it. */
static size_t scan_lanes(const uint64_t *gear, const uint8_t *data, size_t from, uint64_t threshold)
{
    _Static_assert(LANES == 3, "the loop below names its lanes");
    const uint8_t *a = data + from;
    const uint8_t *b = a + LANE_BYTES;
    const uint8_t *c = b + LANE_BYTES;
    uint64_t print_a = gear_before(gear, a);
    uint64_t print_b = gear_before(gear, b);
    uint64_t print_c = gear_before(gear, c);
#pragma GCC unroll 4
    for (size_t i = 0; i < LANE_BYTES; i++) {
        print_a = (print_a << 1) + gear[a[i]];
        print_b = (print_b << 1) + gear[b[i]];
        print_c = (print_c << 1) + gear[c[i]];
        if (__builtin_expect(print_a < threshold, 0)) {
            return from + i + 1;
        }
        if (__builtin_expect(print_b < threshold, 0)) {
            return scan_plain(gear, data, from + i + 1, from + LANE_BYTES + i + 1, threshold);
        }
        if (__builtin_expect(print_c < threshold, 0)) {
            return scan_plain(gear, data, from + i + 1, from + 2 * LANE_BYTES + i + 1, threshold);
        }
    }
    return 0;
}

static size_t scan(const uint64_t *gear, const uint8_t *data, size_t from, size_t to, uint64_t threshold)
{
    while (to - from >= (size_t)LANES * LANE_BYTES) {
        size_t end = scan_lanes(gear, data, from, threshold);
        if (end != 0) {
            return end;
        }
        from += (size_t)LANES * LANE_BYTES;
    }
    return to > from ? scan_plain(gear, data, from, to, threshold) : 0;
}

/* scan over `a` and then `b`, whose bytes stand apart. */
static size_t scan_apart(const uint64_t *gear, struct cut_part a, struct cut_part b, size_t from, size_t to,
                         uint64_t threshold)
{
    size_t end = 0;
    if (from < a.bytes) {
        size_t until = to < a.bytes ? to : a.bytes;
        end = scan(gear, a.data, from, until, threshold);
        from = until;
    }
    size_t apart = a.bytes + CUT_WINDOW_BYTES - 1; /* behind it a fingerprint lies in `b` alone */
    if (end == 0 && from < to && from < apart) {
        uint8_t bridge[2 * (CUT_WINDOW_BYTES - 1)];
        size_t until = to < apart ? to : apart;
        size_t before = a.bytes < CUT_WINDOW_BYTES - 1 ? a.bytes : CUT_WINDOW_BYTES - 1;
        size_t base = a.bytes - before;
        memcpy(bridge, a.data + base, before);
        memcpy(bridge + before, b.data, until - a.bytes);
        end = scan_plain(gear, bridge, from - base, until - base, threshold);
        end = end == 0 ? 0 : end + base;
        from = until;
    }
    if (end == 0 && from < to) {
        end = scan(gear, b.data, from - a.bytes, to - a.bytes, threshold);
        end = end == 0 ? 0 : end + a.bytes;
    }
    return end;
}

uint32_t cut_next_apart(const struct cut_params *params, struct cut_part a, struct cut_part b, bool last)
{
    CHECK(cut_params_valid(params));
    const uint64_t *gear = cut_gear();
    size_t bytes = a.bytes + b.bytes;
    size_t most = bytes < params->max_bytes ? bytes : params->max_bytes;
    size_t end = 0;
    if (most >= params->min_bytes) {
        /* Ends min to avg - 1 must pass the hard threshold, ends avg to max the easy one. */
        size_t middle = most < params->avg_bytes ? most : params->avg_bytes - 1;
        uint64_t hard = UINT64_MAX / ((uint64_t)params->avg_bytes << CUT_LEVEL);
        uint64_t easy = UINT64_MAX / (params->avg_bytes >> CUT_LEVEL);
        size_t from = params->min_bytes - 1;
        end = middle > from ? scan_apart(gear, a, b, from, middle, hard) : 0;
        end = end == 0 ? scan_apart(gear, a, b, middle, most, easy) : end;
    }
    if (end == 0 && (last || bytes >= params->max_bytes)) {
        end = most;
    }
    CHECK(end <= most && (end >= params->min_bytes || end == 0 || last));
    return (uint32_t)end;
}

uint32_t cut_next(const struct cut_params *params, const void *data, size_t bytes, bool last)
{
    return cut_next_apart(params, (struct cut_part){data, bytes}, (struct cut_part){0}, last);
}
