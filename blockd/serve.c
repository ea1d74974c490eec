/* SHARD_GET, SHARD_PULL and INVENTORY. A get finds the shard in the index, reads the 64 KiB pieces its range touches in
 * DISK_READs of at most 1 MiB, checks each piece against the vector of checks before a byte leaves, and answers with
 * one slice. A shard that fails its checks is marked, counted and answered CORRUPT, and no longer listed. Reading is
 * for namespaces that hold the shard now (R-F3); to others the store does not have it. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/hash.h"
#include "store.h"

bool serve_pieces_match(struct slice checks, unsigned index, uint32_t shard_bytes, uint32_t offset, struct slice bytes)
{
    uint32_t pieces = shard_check_pieces(shard_bytes);
    CHECK(offset % CODE_CRC_PIECE_BYTES == 0 && offset + (uint64_t)bytes.bytes <= shard_bytes);
    for (uint32_t at = 0; at < bytes.bytes; at += CODE_CRC_PIECE_BYTES) {
        uint32_t piece = (offset + at) / CODE_CRC_PIECE_BYTES;
        uint32_t left = bytes.bytes - at;
        uint32_t piece_bytes = left < CODE_CRC_PIECE_BYTES ? left : CODE_CRC_PIECE_BYTES;
        size_t row = 4 + 4 * ((size_t)index * pieces + piece);
        if (row + 4 > checks.bytes || get_u32(checks.data + row) != crc32c(0, bytes.data + at, piece_bytes)) {
            return false;
        }
    }
    return true;
}

bool serve_is_rotten(struct store *store, const struct shard_key *key)
{
    uint8_t packed[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_ROT, key, packed);
    struct slice value = {0};
    enum err err = kv_get(store->kv, packed, sizeof packed, &value);
    slice_drop(&value);
    return err == ERR_OK;
}

static void serve_mark_rotten(struct store *store, const struct read *read, struct effects *fx)
{
    if (serve_is_rotten(store, &read->key)) {
        return;
    }
    store->counters.corrupt++;
    uint8_t packed[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_ROT, &read->key, packed);
    struct kv_batch *batch = kv_batch_create();
    kv_batch_put(batch, packed, sizeof packed, "1", 1);
    fx_kv_commit(fx, batch);
    store->dirty = true;
    repair_note_rot(store, &read->key);
}

static void read_destroy(struct store *store, struct read *read)
{
    struct read **at = &store->reads;
    while (*at != read) {
        CHECK(*at != NULL);
        at = &(*at)->next;
    }
    *at = read->next;
    store->read_count--;
    store->read_bytes -= read->aligned_bytes;
    index_entry_deinit(&read->entry);
    slice_drop(&read->data);
    free(read);
}

void serve_deinit(struct store *store)
{
    while (store->reads != NULL) {
        read_destroy(store, store->reads);
    }
}

/* ---- get ---- */

static enum err read_admit(const struct store *store, uint32_t bytes)
{
    bool full = store->read_count >= STORE_READS_MAX || store->read_bytes + bytes > STORE_READ_BYTES_MAX;
    return store->read_count > 0 && full ? ERR_BUSY : ERR_OK;
}

static enum err get_check(struct store *store, const struct event *event, const Cairn__ShardGetRequest *request,
                          struct shard_key *ret_key, struct index_entry *ret_entry, const char **ret_text)
{
    struct admission_token *token = NULL;
    if (request->shard.len != SHARD_KEY_BYTES) {
        *ret_text = "the shard key is malformed";
        return ERR_INVALID;
    }
    shard_key_decode(request->shard.data, ret_key);
    enum err err = admission_check(&store->admission, request->capability, &event->message.peer, CAPABILITY_GET,
                                   event->now_ns, &token, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    if (token->capability.realm != ret_key->realm) {
        *ret_text = "the capability is for another realm";
        return ERR_BAD_CAPABILITY;
    }
    err = index_get(store->kv, ret_key, ret_entry);
    if (err == ERR_NOT_FOUND || (err == ERR_OK && !index_holds(ret_entry, token->capability.ns))) {
        return ERR_NOT_HERE;
    }
    if (err != ERR_OK) {
        return err == ERR_WOULD_BLOCK ? ERR_BUSY : ERR_KV_FAILED;
    }
    if (serve_is_rotten(store, ret_key)) {
        return ERR_CORRUPT;
    }
    if (request->offset > ret_entry->shard_bytes || request->bytes > ret_entry->shard_bytes - request->offset ||
        request->offset == ret_entry->shard_bytes) {
        *ret_text = "the range is not inside the shard";
        return ERR_INVALID;
    }
    return read_admit(store, ret_entry->shard_bytes);
}

static uint32_t read_piece_bytes(const struct read *read, uint32_t at)
{
    uint32_t left = read->aligned_bytes - at;
    return left <= STORE_READ_BYTES + STORE_READ_TAIL_BYTES ? left : STORE_READ_BYTES;
}

static void read_start(struct store *store, struct read *read, struct effects *fx)
{
    uint32_t end = read->offset + read->bytes;
    uint64_t aligned_end = ((uint64_t)end + CODE_CRC_PIECE_BYTES - 1) / CODE_CRC_PIECE_BYTES * CODE_CRC_PIECE_BYTES;
    if (aligned_end > read->entry.shard_bytes) {
        aligned_end = read->entry.shard_bytes;
    }
    read->aligned_offset = read->offset / CODE_CRC_PIECE_BYTES * CODE_CRC_PIECE_BYTES;
    read->aligned_bytes = (uint32_t)aligned_end - read->aligned_offset;
    read->id = ++store->read_ids;
    read->next = store->reads;
    store->reads = read;
    store->read_count++;
    store->read_bytes += read->aligned_bytes;
    uint64_t base = read->entry.offset + RECORD_HEADER_BYTES + read->aligned_offset;
    for (uint32_t at = 0, part = 0; at < read->aligned_bytes; at += read_piece_bytes(read, at), part++) {
        CHECK(part < 256);
        uint64_t rounded = ((uint64_t)read_piece_bytes(read, at) + 4095) / 4096 * 4096;
        fx_disk_read(fx, store_token_make(TOKEN_READ, read->id << 8 | part), segment_file(read->entry.segment),
                     base + at, rounded);
        read->pending++;
    }
}

void serve_get(struct store *store, const struct event *event, struct effects *fx)
{
    struct requester requester = requester_of(&event->message);
    struct proto_arena arena = {0};
    Cairn__ShardGetRequest *request = NULL;
    struct shard_key key = {0};
    struct index_entry entry = {0};
    const char *text = NULL;
    enum err err =
        proto_unpack(&cairn__shard_get_request__descriptor, event->message.header, &arena, (void **)&request);
    if (err == ERR_OK) {
        err = get_check(store, event, request, &key, &entry, &text);
    }
    if (err != ERR_OK) {
        index_entry_deinit(&entry);
        store_answer_error(store, &requester, err, text, fx);
    } else {
        struct read *read = mem_alloc(sizeof *read);
        read->requester = requester;
        read->key = key;
        read->entry = entry;
        read->offset = request->offset;
        read->bytes = request->bytes ? request->bytes : entry.shard_bytes - request->offset;
        read_start(store, read, fx);
    }
    proto_arena_deinit(&arena);
}

/* ---- pull ---- */

static enum err pull_check(struct store *store, const struct event *event, const Cairn__ShardPullRequest *request,
                           struct shard_key *ret_key, struct index_entry *ret_entry, const char **ret_text)
{
    if ((event->message.peer.role & (ROLE_BLOCKD | ROLE_LOCAL)) == 0) {
        *ret_text = "only block servers pull shards";
        return ERR_WRONG_ROLE;
    }
    if (request->shard.len != SHARD_KEY_BYTES) {
        *ret_text = "the shard key is malformed";
        return ERR_INVALID;
    }
    shard_key_decode(request->shard.data, ret_key);
    enum err err = index_get(store->kv, ret_key, ret_entry);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_NOT_HERE : err == ERR_WOULD_BLOCK ? ERR_BUSY : ERR_KV_FAILED;
    }
    if (serve_is_rotten(store, ret_key)) {
        return ERR_CORRUPT;
    }
    return read_admit(store, ret_entry->shard_bytes);
}

void serve_pull(struct store *store, const struct event *event, struct effects *fx)
{
    struct requester requester = requester_of(&event->message);
    struct proto_arena arena = {0};
    Cairn__ShardPullRequest *request = NULL;
    struct shard_key key = {0};
    struct index_entry entry = {0};
    const char *text = NULL;
    enum err err =
        proto_unpack(&cairn__shard_pull_request__descriptor, event->message.header, &arena, (void **)&request);
    if (err == ERR_OK) {
        err = pull_check(store, event, request, &key, &entry, &text);
    }
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        index_entry_deinit(&entry);
        store_answer_error(store, &requester, err, text, fx);
        return;
    }
    struct read *read = mem_alloc(sizeof *read);
    read->requester = requester;
    read->key = key;
    read->entry = entry;
    read->bytes = entry.shard_bytes;
    read->pull = true;
    read_start(store, read, fx);
}

/* The shard as it lies, with the vector of all indexes and who holds it now. */
static void pull_finish(struct read *read, struct effects *fx)
{
    const struct index_entry *entry = &read->entry;
    struct writer holders = {0};
    for (uint32_t i = 0; i < entry->holder_count; i++) {
        const struct holder *holder = &entry->holders[i];
        if (index_holds(entry, holder->ns)) {
            writer_u64(&holders, holder->ns);
            writer_u64(&holders, holder->hold_incarnation);
            writer_u64(&holders, holder->hold_generation);
        }
    }
    Cairn__ShardPullReply reply = CAIRN__SHARD_PULL_REPLY__INIT;
    reply.sealed_bytes = entry->sealed_bytes;
    reply.plain_bytes = entry->plain_bytes;
    reply.checks = (ProtobufCBinaryData){entry->checks.bytes, entry->checks.data};
    reply.holders = (ProtobufCBinaryData){holders.bytes, holders.data};
    fx_answer(fx, read->requester.from, read->requester.type, read->requester.stream, MESSAGE_REPLY, proto_pack(&reply),
              slice_ref(read->data));
    writer_deinit(&holders);
}

/* ---- ends of a read ---- */

/* Answers a read whose pieces are all here. */
static void read_finish(struct store *store, struct read *read, struct effects *fx)
{
    const struct index_entry *entry = &read->entry;
    if (read->failed ||
        !serve_pieces_match(entry->checks, read->key.index, entry->shard_bytes, read->aligned_offset, read->data)) {
        serve_mark_rotten(store, read, fx);
        store_answer_error(store, &read->requester, ERR_CORRUPT, NULL, fx);
        read_destroy(store, read);
        return;
    }
    if (read->pull) {
        pull_finish(read, fx);
        read_destroy(store, read);
        return;
    }
    uint32_t pieces = shard_check_pieces(entry->shard_bytes);
    uint32_t first = read->aligned_offset / CODE_CRC_PIECE_BYTES;
    uint32_t count = (read->aligned_bytes + CODE_CRC_PIECE_BYTES - 1) / CODE_CRC_PIECE_BYTES;
    Cairn__ShardGetReply reply = CAIRN__SHARD_GET_REPLY__INIT;
    reply.sealed_bytes = entry->sealed_bytes;
    reply.plain_bytes = entry->plain_bytes;
    reply.shard_bytes = entry->shard_bytes;
    reply.crcs.data = entry->checks.data + 4 + 4 * ((size_t)read->key.index * pieces + first);
    reply.crcs.len = 4 * (size_t)count;
    fx_answer(fx, read->requester.from, read->requester.type, read->requester.stream, MESSAGE_REPLY, proto_pack(&reply),
              slice_sub(read->data, read->offset - read->aligned_offset, read->bytes));
    read_destroy(store, read);
}

void serve_read_done(struct store *store, const struct event *event, struct effects *fx)
{
    uint64_t number = store_token_number(event->disk.token);
    struct read *read = store->reads;
    while (read != NULL && read->id != number >> 8) {
        read = read->next;
    }
    CHECK(read != NULL && read->pending > 0);
    uint32_t at = (uint32_t)(number & 255) * STORE_READ_BYTES;
    uint32_t bytes = read_piece_bytes(read, at);
    read->pending--;
    if (event->disk.err != ERR_OK || event->disk.data.bytes < bytes) {
        read->failed = true;
    } else if (bytes == read->aligned_bytes) {
        read->data = slice_sub(event->disk.data, 0, bytes);
    } else {
        if (read->data.bytes == 0) {
            read->data = slice_alloc(read->aligned_bytes);
        }
        memcpy(read->data.data + at, event->disk.data.data, bytes);
    }
    if (read->pending == 0) {
        read_finish(store, read, fx);
    }
}

/* ---- inventory ---- */

/* The namespace whose holds are listed in ret_ns; 0 for a block server: its certificate's role suffices. */
static enum err inventory_check(struct store *store, const struct event *event, const Cairn__InventoryRequest *request,
                                uint64_t *ret_ns, const char **ret_text)
{
    if (request->chunk.len != sizeof(struct chunk_id) || request->encoding.len != sizeof(struct encoding)) {
        *ret_text = "chunk or encoding is malformed";
        return ERR_INVALID;
    }
    if (event->message.peer.role == ROLE_BLOCKD) {
        *ret_ns = 0;
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
        *ret_ns = token->capability.ns;
    }
    return err;
}

#define INVENTORY_SHARDS_MAX 256u

/* Collects the shards of the chunk in this encoding, in any code, that `ns` may know of. */
static enum err inventory_list(struct store *store, const struct shard_key *from, uint64_t ns,
                               Cairn__InventoryShard *ret_shards, uint32_t *ret_count)
{
    uint8_t prefix[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_SHARD, from, prefix);
    struct slice key = slice_copy(prefix, 1 + INDEX_CHUNK_BYTES), next = {0}, value = {0};
    uint32_t count = 0;
    enum err err = ERR_OK;
    for (bool after = false; count < INVENTORY_SHARDS_MAX; after = true) {
        err = kv_next(store->kv, key.data, key.bytes, after, &next, &value);
        if (err != ERR_OK) {
            break;
        }
        slice_drop(&key);
        key = next;
        bool inside = key.bytes == INDEX_KEY_BYTES && memcmp(key.data, prefix, 1 + INDEX_CHUNK_BYTES) == 0;
        struct index_entry entry = {0};
        struct shard_key shard;
        if (inside && index_entry_decode(value, &entry) == ERR_OK) {
            shard_key_decode(key.data + 1, &shard);
            if ((ns == 0 || index_holds(&entry, ns)) && !serve_is_rotten(store, &shard)) {
                cairn__inventory_shard__init(&ret_shards[count]);
                ret_shards[count].k = shard.k;
                ret_shards[count].m = shard.m;
                ret_shards[count].index = shard.index;
                ret_shards[count++].sealed_bytes = entry.sealed_bytes;
            }
            index_entry_deinit(&entry);
        }
        slice_drop(&value);
        if (!inside) {
            break;
        }
    }
    slice_drop(&key);
    *ret_count = count;
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err inventory_answer(struct store *store, const struct event *event, const Cairn__InventoryRequest *request,
                                 uint64_t ns, struct effects *fx)
{
    struct shard_key from = {.realm = request->realm, .writer = request->writer};
    memcpy(from.chunk.bytes, request->chunk.data, sizeof from.chunk.bytes);
    memcpy(from.encoding.bytes, request->encoding.data, sizeof from.encoding.bytes);
    Cairn__InventoryShard *shards = mem_alloc(INVENTORY_SHARDS_MAX * sizeof *shards);
    Cairn__InventoryShard *pointers[INVENTORY_SHARDS_MAX];
    uint32_t count = 0;
    enum err err = inventory_list(store, &from, ns, shards, &count);
    if (err == ERR_OK) {
        for (uint32_t i = 0; i < count; i++) {
            pointers[i] = &shards[i];
        }
        Cairn__InventoryReply reply = CAIRN__INVENTORY_REPLY__INIT;
        reply.shards = pointers;
        reply.n_shards = count;
        reply.store = store->admission.store;
        fx_reply(fx, &event->message, proto_pack(&reply), (struct slice){0});
    }
    free(shards);
    return err == ERR_WOULD_BLOCK ? ERR_BUSY : err;
}

void serve_inventory(struct store *store, const struct event *event, struct effects *fx)
{
    struct requester requester = requester_of(&event->message);
    struct proto_arena arena = {0};
    Cairn__InventoryRequest *request = NULL;
    const char *text = NULL;
    uint64_t ns = 0;
    enum err err =
        proto_unpack(&cairn__inventory_request__descriptor, event->message.header, &arena, (void **)&request);
    if (err == ERR_OK) {
        err = inventory_check(store, event, request, &ns, &text);
    }
    if (err == ERR_OK) {
        err = inventory_answer(store, event, request, ns, fx);
    }
    if (err != ERR_OK) {
        store_answer_error(store, &requester, err, text, fx);
    }
    proto_arena_deinit(&arena);
}
