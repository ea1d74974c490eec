/* Erasure coding over ISA-L. Up: the sealed chunk is cut in place into k data shards, one new buffer takes the parity.
 * Down and in repair: any k shards give the others. Copies are the code (1, m): every shard is the same bytes, so they
 * share one buffer. Lengths that do not fit or fewer than k shards are CORRUPT; that the bytes are right is for CRCs
 * before and the seal behind.
 * Source: Bloemer et al., An XOR-Based Erasure-Resilient Coding Scheme, 1995 (Cauchy matrices: every square part
 * inverts). */
#include "code.h"

#include <isa-l/erasure_code.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "hash.h"

#define CODE_ALIGN        64u
#define CODE_TABLE_BYTES  32u /* of ISA-L, for each coefficient */
#define CODE_PAIRS        64u /* most k * m there is: k + m <= 16 */
#define CODE_CACHED       4u
#define CHECKS_HEAD_BYTES 4u
_Static_assert(LIMIT_SHARDS / 2 * (LIMIT_SHARDS / 2) <= CODE_PAIRS, "tables hold any code");

/* The generator of a code, and ISA-L's tables for its parity rows. */
struct generator {
    uint8_t k, m;
    uint8_t rows[LIMIT_SHARDS * LIMIT_SHARDS]; /* (k + m) rows of k; the first k are the identity */
    uint8_t tables[CODE_TABLE_BYTES * CODE_PAIRS];
};

bool code_valid(unsigned k, unsigned m)
{
    return k >= 1 && k <= LIMIT_SHARDS && m <= LIMIT_SHARDS - k;
}

uint32_t code_shard_bytes(uint32_t sealed_bytes, unsigned k)
{
    CHECK(k >= 1 && k <= LIMIT_SHARDS);
    uint64_t part = ((uint64_t)sealed_bytes + k - 1) / k;
    uint64_t bytes = (part + CODE_ALIGN - 1) / CODE_ALIGN * CODE_ALIGN;
    CHECK(bytes <= UINT32_MAX);
    return (uint32_t)bytes;
}

/* A cluster uses one or two codes: a handful of slots for each thread, replaced in turn. */
static const struct generator *generator_of(unsigned k, unsigned m)
{
    static _Thread_local struct generator cache[CODE_CACHED];
    static _Thread_local unsigned turn;
    for (unsigned i = 0; i < CODE_CACHED; i++) {
        if (cache[i].k == k && cache[i].m == m) {
            return &cache[i];
        }
    }
    struct generator *generator = &cache[turn++ % CODE_CACHED];
    generator->k = (uint8_t)k;
    generator->m = (uint8_t)m;
    gf_gen_cauchy1_matrix(generator->rows, (int)(k + m), (int)k);
    if (m > 0) {
        ec_init_tables((int)k, (int)m, generator->rows + k * k, generator->tables);
    }
    return generator;
}

void code_encode(struct slice sealed, unsigned k, unsigned m, struct slice *ret_shards)
{
    CHECK(code_valid(k, m));
    uint32_t shard_bytes = code_shard_bytes(sealed.bytes, k);
    CHECK(slice_capacity(sealed) >= (size_t)k * shard_bytes);
    struct slice whole = sealed;
    whole.bytes = k * shard_bytes;
    uint8_t *in[LIMIT_SHARDS];
    for (unsigned i = 0; i < k; i++) {
        ret_shards[i] = slice_sub(whole, (size_t)i * shard_bytes, shard_bytes);
        in[i] = ret_shards[i].data;
    }
    if (k == 1 || shard_bytes == 0) {
        for (unsigned i = k; i < k + m; i++) {
            ret_shards[i] = slice_ref(ret_shards[0]);
        }
        return;
    }
    struct slice parity = slice_alloc((size_t)m * shard_bytes);
    uint8_t *out[LIMIT_SHARDS];
    for (unsigned i = 0; i < m; i++) {
        ret_shards[k + i] = slice_sub(parity, (size_t)i * shard_bytes, shard_bytes);
        out[i] = ret_shards[k + i].data;
    }
    slice_drop(&parity);
    if (m > 0) {
        const struct generator *generator = generator_of(k, m);
        /* ISA-L takes its tables without const and only reads them. */
        ec_encode_data((int)shard_bytes, (int)k, (int)m, (unsigned char *)(uintptr_t)generator->tables, in, out);
    }
}

/* The first k shards that are there, in `ret_from`. CORRUPT when fewer are, or when lengths differ from shard_bytes. */
static enum err shards_choose(const struct slice *shards, unsigned k, unsigned m, uint32_t shard_bytes,
                              uint8_t ret_from[LIMIT_SHARDS])
{
    unsigned count = 0;
    for (unsigned i = 0; i < k + m; i++) {
        if (shards[i].bytes == 0) {
            continue;
        }
        if (shards[i].bytes != shard_bytes) {
            return ERR_CORRUPT;
        }
        if (count < k) {
            ret_from[count++] = (uint8_t)i;
        }
    }
    return count == k ? ERR_OK : ERR_CORRUPT;
}

/* Computes the shards `to[0..count)` from the k shards `from`, into out[]. k >= 2. */
static void shards_compute(const struct slice *shards, unsigned k, unsigned m, const uint8_t *from, const uint8_t *to,
                           unsigned count, uint8_t **out)
{
    const struct generator *generator = generator_of(k, m);
    uint8_t part[LIMIT_SHARDS * LIMIT_SHARDS];
    uint8_t inverse[LIMIT_SHARDS * LIMIT_SHARDS];
    uint8_t rows[LIMIT_SHARDS * LIMIT_SHARDS] = {0};
    uint8_t tables[CODE_TABLE_BYTES * LIMIT_SHARDS * LIMIT_SHARDS];
    uint8_t *in[LIMIT_SHARDS];
    for (unsigned i = 0; i < k; i++) {
        memcpy(part + i * k, generator->rows + from[i] * k, k);
        in[i] = shards[from[i]].data;
    }
    CHECK(gf_invert_matrix(part, inverse, (int)k) == 0);
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < k; j++) {
            for (unsigned l = 0; l < k; l++) {
                rows[i * k + j] ^= gf_mul(generator->rows[to[i] * k + l], inverse[l * k + j]);
            }
        }
    }
    ec_init_tables((int)k, (int)count, rows, tables);
    ec_encode_data((int)shards[from[0]].bytes, (int)k, (int)count, tables, in, out);
}

enum err code_rebuild(struct slice *shards, unsigned k, unsigned m, uint32_t want)
{
    CHECK(code_valid(k, m));
    uint32_t shard_bytes = 0;
    for (unsigned i = 0; i < k + m && shard_bytes == 0; i++) {
        shard_bytes = shards[i].bytes;
    }
    uint8_t from[LIMIT_SHARDS];
    enum err err = shards_choose(shards, k, m, shard_bytes, from);
    if (err != ERR_OK) {
        return err;
    }
    uint8_t to[LIMIT_SHARDS];
    uint8_t *out[LIMIT_SHARDS];
    struct slice made[LIMIT_SHARDS] = {0};
    unsigned count = 0;
    for (unsigned i = 0; i < k + m; i++) {
        if (shards[i].bytes == 0 && (want >> i & 1) != 0) {
            made[i] = k == 1 ? slice_ref(shards[from[0]]) : slice_alloc(shard_bytes);
            to[count] = (uint8_t)i;
            out[count++] = made[i].data;
        }
    }
    if (count > 0 && k > 1) {
        shards_compute(shards, k, m, from, to, count, out);
    }
    for (unsigned i = 0; i < count; i++) {
        shards[to[i]] = made[to[i]];
    }
    return ERR_OK;
}

enum err code_join(const struct slice *shards, unsigned k, unsigned m, uint32_t sealed_bytes, struct slice *ret_sealed)
{
    CHECK(code_valid(k, m));
    if (sealed_bytes == 0 || sealed_bytes > LIMIT_SEALED_BYTES) {
        return ERR_CORRUPT;
    }
    uint32_t shard_bytes = code_shard_bytes(sealed_bytes, k);
    uint8_t from[LIMIT_SHARDS];
    enum err err = shards_choose(shards, k, m, shard_bytes, from);
    if (err != ERR_OK) {
        return err;
    }
    if (k == 1) {
        *ret_sealed = slice_sub(shards[from[0]], 0, sealed_bytes);
        return ERR_OK;
    }
    struct slice sealed = slice_alloc((size_t)k * shard_bytes);
    uint8_t to[LIMIT_SHARDS];
    uint8_t *out[LIMIT_SHARDS];
    unsigned count = 0;
    for (unsigned i = 0; i < k; i++) {
        uint8_t *place = sealed.data + (size_t)i * shard_bytes;
        if (shards[i].bytes > 0) {
            memcpy(place, shards[i].data, shard_bytes);
        } else {
            to[count] = (uint8_t)i;
            out[count++] = place;
        }
    }
    if (count > 0) {
        shards_compute(shards, k, m, from, to, count, out);
    }
    sealed.bytes = sealed_bytes;
    *ret_sealed = sealed;
    return ERR_OK;
}

uint32_t shard_check_pieces(uint32_t shard_bytes)
{
    return (uint32_t)(((uint64_t)shard_bytes + CODE_CRC_PIECE_BYTES - 1) / CODE_CRC_PIECE_BYTES);
}

size_t shard_checks_bytes(unsigned shards, uint32_t shard_bytes)
{
    return CHECKS_HEAD_BYTES + (size_t)shards * shard_check_pieces(shard_bytes) * 4;
}

static uint32_t piece_crc(struct slice shard, uint32_t piece)
{
    uint32_t offset = piece * CODE_CRC_PIECE_BYTES;
    uint32_t left = shard.bytes - offset;
    return crc32c(0, shard.data + offset, left < CODE_CRC_PIECE_BYTES ? left : CODE_CRC_PIECE_BYTES);
}

struct slice shard_checks_of(const struct slice *shards, unsigned count)
{
    CHECK(count >= 1 && count <= LIMIT_SHARDS);
    uint32_t shard_bytes = shards[0].bytes;
    uint32_t pieces = shard_check_pieces(shard_bytes);
    CHECK(pieces <= UINT16_MAX);
    struct slice checks = slice_alloc(shard_checks_bytes(count, shard_bytes));
    checks.data[0] = (uint8_t)count;
    checks.data[1] = 0;
    put_u16(checks.data + 2, (uint16_t)pieces);
    uint8_t *at = checks.data + CHECKS_HEAD_BYTES;
    for (unsigned i = 0; i < count; i++) {
        CHECK(shards[i].bytes == shard_bytes);
        if (i > 0 && shards[i].data == shards[i - 1].data) { /* a copy in the same buffer */
            memcpy(at, at - (size_t)pieces * 4, (size_t)pieces * 4);
            at += (size_t)pieces * 4;
            continue;
        }
        for (uint32_t j = 0; j < pieces; j++, at += 4) {
            put_u32(at, piece_crc(shards[i], j));
        }
    }
    return checks;
}

bool shard_checks_valid(struct slice checks, unsigned count, uint32_t shard_bytes)
{
    return count >= 1 && count <= LIMIT_SHARDS && checks.bytes >= CHECKS_HEAD_BYTES && checks.data[0] == count &&
           checks.data[1] == 0 && get_u16(checks.data + 2) == shard_check_pieces(shard_bytes) &&
           checks.bytes == shard_checks_bytes(count, shard_bytes);
}

bool shard_checks_match(struct slice checks, unsigned count, unsigned index, struct slice shard)
{
    if (index >= count || !shard_checks_valid(checks, count, shard.bytes)) {
        return false;
    }
    uint32_t pieces = shard_check_pieces(shard.bytes);
    const uint8_t *at = checks.data + CHECKS_HEAD_BYTES + (size_t)index * pieces * 4;
    for (uint32_t i = 0; i < pieces; i++) {
        if (get_u32(at + (size_t)i * 4) != piece_crc(shard, i)) {
            return false;
        }
    }
    return true;
}
