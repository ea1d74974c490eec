/* How whole the chunks are: what a namespace references against what the stores list. Both come in order of (chunk,
 * writer, encoding), so one merge over a page of references and a page of each store's list suffices, whatever there
 * is in all. A store that does not answer has nothing, for this count.
 *
 * A chunk is as whole as its best code: (k, m) lacks what is not there of its k + m indexes, and so do fallback copies
 * (1, m). Where nothing is there at all, the code that the reference names is what lacks. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "proto/manifest.h"
#include "proto/token.h"

#define NAME_BYTES   (32u + 4u + 16u) /* chunk, writer (big-endian), encoding: what both lists are ordered by */
#define NAME_AT      8u               /* in a packed shard key */
#define CODES_MAX    16u              /* codes of one chunk that are told apart */
#define REFERENCE_KM (NAME_BYTES)     /* offset of k, m in a reference */

/* Where one store's list stands. */
struct lister {
    uint32_t store;
    bool ended;
    struct slice page;
    uint32_t at;
    uint8_t next[SHARD_KEY_BYTES];
    bool more;
};

struct counter {
    struct cairn *c;
    struct lister *listers;
    uint32_t lister_count;
    uint8_t capability[CAPABILITY_BYTES];
    uint64_t realm;
    uint8_t k, m; /* of the pool */
    struct cairn_missing *missing;
};

/* Which indexes of each code of one chunk were seen. */
struct codes {
    uint8_t k[CODES_MAX], m[CODES_MAX];
    uint32_t indexes[CODES_MAX];
    uint32_t count;
};

/* The next page of a store; a store that does not give one has ended. */
static void lister_fetch(struct counter *counter, struct lister *lister)
{
    Cairn__StoreListRequest request = CAIRN__STORE_LIST_REQUEST__INIT;
    request.capability = (ProtobufCBinaryData){sizeof counter->capability, counter->capability};
    request.realm = counter->realm;
    if (lister->more) {
        request.after = (ProtobufCBinaryData){sizeof lister->next, lister->next};
    }
    slice_drop(&lister->page);
    lister->at = 0;
    struct api_call call = {
        .type = MESSAGE_STORE_LIST,
        .route = CLIENT_ROUTE_STORE,
        .store = lister->store,
        .workspace = counter->c->config.workspace,
        .request = &request,
        .reply = &cairn__store_list_reply__descriptor,
        .ret_body = &lister->page,
    };
    struct proto_arena arena = {0};
    Cairn__StoreListReply *reply = NULL;
    bool good = api_call(counter->c, &call, "list", &arena, (void **)&reply, NULL) == 0 &&
                lister->page.bytes % STORE_LIST_BYTES == 0 &&
                (reply->next.len == 0 || reply->next.len == sizeof lister->next);
    bool goes_on = good && reply->next.len != 0 &&
                   (!lister->more || memcmp(reply->next.data, lister->next, sizeof lister->next) > 0);
    if (!good) {
        slice_drop(&lister->page);
        counter->missing->stores_silent++;
    }
    lister->ended = !goes_on;
    lister->more = goes_on;
    if (goes_on) {
        memcpy(lister->next, reply->next.data, sizeof lister->next);
    }
    proto_arena_deinit(&arena);
}

static const uint8_t *lister_row(struct counter *counter, struct lister *lister)
{
    while (lister->at >= lister->page.bytes && !lister->ended) {
        lister_fetch(counter, lister);
    }
    return lister->at < lister->page.bytes ? lister->page.data + lister->at : NULL;
}

static void codes_add(struct codes *codes, uint8_t k, uint8_t m, unsigned index)
{
    uint32_t at = 0;
    while (at < codes->count && (codes->k[at] != k || codes->m[at] != m)) {
        at++;
    }
    if (k == 0 || k + m > LIMIT_SHARDS || index > (unsigned)k + m || at == CODES_MAX) {
        return;
    }
    if (at == codes->count) {
        codes->k[at] = k;
        codes->m[at] = m;
        codes->indexes[at] = 0;
        codes->count++;
    }
    if (index < (unsigned)k + m) {
        codes->indexes[at] |= 1u << index;
    }
}

/* Takes the rows of one chunk off a list that stands at it or before. */
static void lister_take(struct counter *counter, struct lister *lister, const uint8_t name[NAME_BYTES],
                        struct codes *codes)
{
    for (;;) {
        const uint8_t *row = lister_row(counter, lister);
        int order = row == NULL ? 1 : memcmp(row + NAME_AT, name, NAME_BYTES);
        if (order > 0) {
            return;
        }
        if (order == 0) {
            struct shard_key key;
            shard_key_decode(row, &key);
            codes_add(codes, key.k, key.m, key.index);
        }
        lister->at += STORE_LIST_BYTES;
    }
}

static void reference_count(struct counter *counter, const uint8_t *reference)
{
    uint8_t name[NAME_BYTES];
    memcpy(name, reference, NAME_BYTES);
    put_be32(name + 32, get_u32(reference + 32));
    uint8_t k = reference[REFERENCE_KM], m = reference[REFERENCE_KM + 1];
    struct codes codes = {0};
    codes_add(&codes, k != 0 ? k : counter->k, k != 0 ? m : counter->m,
              (unsigned)(k != 0 ? k + m : counter->k + counter->m));
    for (uint32_t i = 0; i < counter->lister_count; i++) {
        lister_take(counter, &counter->listers[i], name, &codes);
    }
    unsigned least = CAIRN_MISSING_MAX;
    for (uint32_t i = 0; i < codes.count; i++) {
        unsigned lack = (unsigned)codes.k[i] + codes.m[i] - (unsigned)__builtin_popcount(codes.indexes[i]);
        least = lack < least ? lack : least;
    }
    counter->missing->chunks[least]++;
}

/* Cursors for all stores that are up. */
static void counter_stores(struct counter *counter, const Cairn__ClusterMap *map)
{
    counter->listers = mem_alloc((map->n_stores + 1) * sizeof *counter->listers);
    for (size_t i = 0; i < map->n_stores; i++) {
        if (map->stores[i]->state == 0) {
            counter->listers[counter->lister_count++].store = map->stores[i]->store;
        }
    }
}

static void counter_pool(struct counter *counter, const Cairn__ClusterMap *map, uint32_t pool)
{
    for (size_t i = 0; i < map->n_pools; i++) {
        if (map->pools[i]->pool == pool) {
            counter->k = (uint8_t)map->pools[i]->k;
            counter->m = (uint8_t)map->pools[i]->m;
        }
    }
}

/* One page of references; `after` (new slice, empty at the end) is where the next begins. */
static int references_page(struct counter *counter, const Cairn__ClusterMap *map, struct slice *after,
                           struct cairn_error *error)
{
    Cairn__ReferencesRequest request = CAIRN__REFERENCES_REQUEST__INIT;
    request.after = (ProtobufCBinaryData){after->bytes, after->data};
    struct slice body = {0};
    struct api_call call = {
        .type = MESSAGE_REFERENCES,
        .route = CLIENT_ROUTE_NAMESPACE,
        .workspace = counter->c->config.workspace,
        .request = &request,
        .reply = &cairn__references_reply__descriptor,
        .ret_body = &body,
    };
    struct proto_arena arena = {0};
    Cairn__ReferencesReply *reply = NULL;
    int result = api_call(counter->c, &call, "references", &arena, (void **)&reply, error);
    if (result == 0 && (body.bytes % REFERENCE_BYTES != 0 || reply->capability.len != sizeof counter->capability)) {
        result = api_fail(error, ERR_BAD_PROTO, "references: the answer is malformed");
    }
    slice_drop(after);
    if (result == 0) {
        memcpy(counter->capability, reply->capability.data, sizeof counter->capability);
        counter->realm = reply->realm;
        counter_pool(counter, map, reply->pool);
        for (uint32_t at = 0; at < body.bytes; at += REFERENCE_BYTES) {
            reference_count(counter, body.data + at);
        }
        *after = slice_copy(reply->next.data, reply->next.len);
    }
    slice_drop(&body);
    proto_arena_deinit(&arena);
    return result;
}

int cairn_admin_missing(struct cairn *c, struct cairn_missing *missing, struct cairn_error *error)
{
    Cairn__ClusterMap *map = NULL;
    struct proto_arena arena = {0};
    *missing = (struct cairn_missing){0};
    struct counter counter = {.c = c, .missing = missing};
    int result = api_map_get(c, &arena, &map, error);
    if (result == 0) {
        struct slice after = {0};
        counter_stores(&counter, map);
        do {
            result = references_page(&counter, map, &after, error);
        } while (result == 0 && after.bytes > 0);
        slice_drop(&after);
    }
    for (uint32_t i = 0; i < counter.lister_count; i++) {
        slice_drop(&counter.listers[i].page);
    }
    free(counter.listers);
    proto_arena_deinit(&arena);
    return result;
}
