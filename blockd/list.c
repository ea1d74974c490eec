/* STORE_LIST: what a store holds of one placement group, page by page, in key order. Stands beside the way of a byte:
 * repair compares these lists with what it has (repair.c), an operator with what is referenced.
 *
 * A placement group is a range of chunk ids in each realm, so the scan leaps from the group's end in one realm to its
 * begin in the next. A page ends at the request's limit or after LIST_SCAN_MAX pairs, whatever was found, so that a
 * list never holds the disk's thread for long; `next` says where to go on. A shard that failed its checks is not
 * listed. To a device only what its capability's namespace holds is listed (R-F3), to block servers all. */
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "proto/manifest.h"
#include "store.h"

#define LIST_SCAN_MAX 2048u /* pairs looked at for one page */
#define LIST_PAGE_MAX ((512u << 10) / STORE_LIST_BYTES)
#define LIST_BITS_MAX 12u
#define LIST_REALM_AT 1u /* in an index key */
#define LIST_CHUNK_AT 9u

struct list {
    uint64_t ns;    /* 0: all are listed */
    uint64_t realm; /* 0: every realm */
    uint32_t pg, bits;
    uint32_t limit;
    struct slice at; /* index key to go on from */
    bool after;
    bool more;
    struct writer rows;
};

/* Goes on at the begin of the placement group in `realm`. */
static void list_seek(struct list *list, uint64_t realm)
{
    uint8_t key[LIST_CHUNK_AT + 4] = {INDEX_PREFIX_SHARD};
    put_be64(key + LIST_REALM_AT, realm);
    put_be32(key + LIST_CHUNK_AT, list->bits == 0 ? 0 : list->pg << (32 - list->bits));
    slice_drop(&list->at);
    list->at = slice_copy(key, sizeof key);
    list->after = false;
}

/* Takes one pair of the index; false when the list ends before it. */
static bool list_take(struct store *store, struct list *list, struct slice key, struct slice value)
{
    if (key.bytes != INDEX_KEY_BYTES || key.data[0] != INDEX_PREFIX_SHARD) {
        return false;
    }
    uint64_t realm = get_be64(key.data + LIST_REALM_AT);
    if (list->realm != 0 && realm != list->realm) {
        return false;
    }
    uint32_t pg = list->bits == 0 ? 0 : get_be32(key.data + LIST_CHUNK_AT) >> (32 - list->bits);
    if (pg < list->pg) {
        list_seek(list, realm);
        return true;
    }
    if (pg > list->pg) {
        if (list->realm != 0 || realm == UINT64_MAX) {
            return false;
        }
        list_seek(list, realm + 1);
        return true;
    }
    struct index_entry entry = {0};
    struct shard_key shard;
    shard_key_decode(key.data + 1, &shard);
    if (index_entry_decode(value, &entry) == ERR_OK) {
        if ((list->ns == 0 || index_holds(&entry, list->ns)) && !serve_is_rotten(store, &shard)) {
            writer_put(&list->rows, key.data + 1, SHARD_KEY_BYTES);
            writer_u32(&list->rows, entry.sealed_bytes);
            writer_u32(&list->rows, entry.plain_bytes);
        }
        index_entry_deinit(&entry);
    }
    slice_drop(&list->at);
    list->at = slice_ref(key);
    list->after = true;
    return true;
}

static enum err list_fill(struct store *store, struct list *list)
{
    list->more = true;
    for (uint32_t seen = 0; seen < LIST_SCAN_MAX && list->rows.bytes < (size_t)list->limit * STORE_LIST_BYTES; seen++) {
        struct slice key = {0}, value = {0};
        enum err err = kv_next(store->kv, list->at.data, list->at.bytes, list->after, &key, &value);
        if (err == ERR_WOULD_BLOCK && seen > 0) {
            return ERR_OK; /* what there is, and go on */
        }
        if (err != ERR_OK && err != ERR_NOT_FOUND) {
            return err == ERR_WOULD_BLOCK ? ERR_BUSY : ERR_KV_FAILED;
        }
        list->more = err == ERR_OK && list_take(store, list, key, value);
        slice_drop(&key);
        slice_drop(&value);
        if (!list->more) {
            return ERR_OK;
        }
    }
    return ERR_OK;
}

static enum err list_check(struct store *store, const struct event *event, const Cairn__StoreListRequest *request,
                           struct list *list, const char **ret_text)
{
    if (request->pg_bits > LIST_BITS_MAX || request->pg >> request->pg_bits != 0 ||
        (request->after.len != 0 && request->after.len != SHARD_KEY_BYTES)) {
        *ret_text = "the placement group or the place to go on from is malformed";
        return ERR_INVALID;
    }
    list->realm = request->realm;
    list->pg = request->pg;
    list->bits = request->pg_bits;
    list->limit = request->limit == 0 || request->limit > LIST_PAGE_MAX ? LIST_PAGE_MAX : request->limit;
    if ((event->message.peer.role & (ROLE_BLOCKD | ROLE_LOCAL)) != 0) {
        return ERR_OK;
    }
    struct admission_token *token = NULL;
    enum err err = admission_check(&store->admission, request->capability, &event->message.peer, CAPABILITY_GET,
                                   event->now_ns, &token, ret_text);
    if (err == ERR_OK && token->capability.realm != request->realm) {
        *ret_text = "the capability is for another realm";
        err = ERR_BAD_CAPABILITY;
    }
    if (err == ERR_OK) {
        list->ns = token->capability.ns;
    }
    return err;
}

static void list_answer(struct store *store, const struct event *event, struct list *list, struct effects *fx)
{
    Cairn__StoreListReply reply = CAIRN__STORE_LIST_REPLY__INIT;
    uint8_t next[SHARD_KEY_BYTES] = {0};
    if (list->more) {
        /* A place between two shards, after a leap to another realm, stands one before the first key behind it. */
        CHECK(list->at.bytes <= INDEX_KEY_BYTES);
        memcpy(next, list->at.data + 1, list->at.bytes - 1);
        reply.next = (ProtobufCBinaryData){sizeof next, next};
    }
    reply.count = (uint32_t)(list->rows.bytes / STORE_LIST_BYTES);
    reply.store = store->admission.store;
    fx_reply(fx, &event->message, proto_pack(&reply), writer_take(&list->rows));
}

void list_receive(struct store *store, const struct event *event, struct effects *fx)
{
    struct requester requester = requester_of(&event->message);
    struct proto_arena arena = {0};
    Cairn__StoreListRequest *request = NULL;
    struct list list = {0};
    const char *text = NULL;
    enum err err =
        proto_unpack(&cairn__store_list_request__descriptor, event->message.header, &arena, (void **)&request);
    if (err == ERR_OK) {
        err = list_check(store, event, request, &list, &text);
    }
    if (err == ERR_OK) {
        if (request->after.len == 0) {
            list_seek(&list, request->realm);
        } else {
            uint8_t key[INDEX_KEY_BYTES] = {INDEX_PREFIX_SHARD};
            memcpy(key + 1, request->after.data, SHARD_KEY_BYTES);
            list.at = slice_copy(key, sizeof key);
            list.after = true;
        }
        err = list_fill(store, &list);
    }
    if (err == ERR_OK) {
        list_answer(store, event, &list, fx);
    } else {
        store_answer_error(store, &requester, err, text, fx);
    }
    slice_drop(&list.at);
    writer_deinit(&list.rows);
    proto_arena_deinit(&arena);
}
