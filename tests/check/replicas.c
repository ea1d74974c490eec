/* Replicas, pair by pair (replicas.h). */
#include "replicas.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"

struct pair {
    struct slice key, value;
    enum err err;
};

static void pair_drop(struct pair *pair)
{
    slice_drop(&pair->key);
    slice_drop(&pair->value);
}

/* The first pair behind `key` (from the beginning when it is empty); NOT_FOUND at the end of the prefix. */
static struct pair pair_next(const struct replica *replica, struct slice key)
{
    struct pair pair = {0};
    struct slice found = {0};
    struct writer from = {0};
    writer_put(&from, replica->prefix, REPLICA_PREFIX_BYTES);
    writer_put(&from, key.data, key.bytes);
    pair.err = kv_next(replica->view, from.data, from.bytes, true, &found, &pair.value);
    writer_deinit(&from);
    bool inside = pair.err == ERR_OK && found.bytes > REPLICA_PREFIX_BYTES &&
                  memcmp(found.data, replica->prefix, REPLICA_PREFIX_BYTES) == 0;
    if (inside) {
        pair.key = slice_copy(found.data + REPLICA_PREFIX_BYTES, found.bytes - REPLICA_PREFIX_BYTES);
    } else {
        pair.err = pair.err == ERR_OK ? ERR_NOT_FOUND : pair.err;
        slice_drop(&pair.value);
    }
    slice_drop(&found);
    return pair;
}

static void differ(const struct pair *a, const struct pair *b, unsigned replica, struct report *report)
{
    const struct slice key = a->err == ERR_OK ? a->key : b->key;
    char text[65] = "";
    uint32_t bytes = key.bytes < 32 ? key.bytes : 32;
    hex_encode(key.data, bytes, text);
    const char *what = a->err != ERR_OK               ? "has more"
                       : b->err != ERR_OK             ? "has fewer"
                       : !slice_equal(a->key, b->key) ? "has other keys"
                                                      : "has another value";
    report_find(report, "replicas: number %u %s, at key %s (%c)", replica + 1, what, text,
                key.bytes > 0 && key.data[0] >= ' ' && key.data[0] < 127 ? key.data[0] : '?');
}

static void compare(const struct replica *one, const struct replica *other, unsigned replica, struct report *report)
{
    struct slice key = {0};
    for (bool more = true; more;) {
        struct pair a = pair_next(one, key), b = pair_next(other, key);
        bool same = a.err == b.err && slice_equal(a.key, b.key) && slice_equal(a.value, b.value);
        more = same && a.err == ERR_OK;
        report->looked += more;
        if (!same) {
            differ(&a, &b, replica, report);
        }
        slice_drop(&key);
        key = slice_ref(a.key);
        pair_drop(&a);
        pair_drop(&b);
    }
    slice_drop(&key);
}

/* SHA-256 chained over the pairs. */
static struct sha256 digest_of(const struct replica *replica)
{
    struct sha256 digest = {0};
    struct slice key = {0};
    for (bool more = true; more;) {
        struct pair pair = pair_next(replica, key);
        more = pair.err == ERR_OK;
        if (more) {
            struct writer w = {0};
            writer_put(&w, digest.bytes, sizeof digest.bytes);
            writer_u32(&w, pair.key.bytes);
            writer_put(&w, pair.key.data, pair.key.bytes);
            writer_put(&w, pair.value.data, pair.value.bytes);
            digest = sha256(w.data, w.bytes);
            writer_deinit(&w);
        }
        slice_drop(&key);
        key = slice_ref(pair.key);
        pair_drop(&pair);
    }
    slice_drop(&key);
    return digest;
}

void replicas_check(const struct replica *replicas, unsigned count, struct report *report, struct sha256 *ret_digest)
{
    CHECK(count >= 1);
    report->checker = "replicas";
    for (unsigned i = 1; i < count; i++) {
        compare(&replicas[0], &replicas[i], i, report);
    }
    *ret_digest = digest_of(&replicas[0]);
}
