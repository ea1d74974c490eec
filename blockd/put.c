/* SHARD_PUT: the checks between a frame and the disk. A put that passes becomes a record in a batch (commit.c); one
 * that finds its chunk busy or no segment ready is held and looked at again; every other end is an answer with its
 * code.
 *
 * Order of checks: form, store and incarnation (R-B2), capability (R-F8), realm and writer (R-F1), checksums of the
 * body, seat in the map (R-B4), then what is here already: equal bytes are never replaced (R-A5), other bytes under the
 * same name are a conflict, another index of the same code is refused (R-B4). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/code.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/seal.h"
#include "repair.h"
#include "store.h"

void put_end(struct store *store, struct put *put)
{
    CHECK(store->put_count > 0 && store->put_bytes >= put->shard_bytes);
    store->put_count--;
    store->put_bytes -= put->shard_bytes;
    slice_drop(&put->body);
    slice_drop(&put->checks);
    slice_drop(&put->tail);
    index_entry_deinit(&put->entry);
    free(put);
}

void put_answer_error(struct store *store, struct put *put, enum err err, const char *text, struct effects *fx)
{
    if (put->task != 0) {
        repair_stored(store, put->task, err);
    } else {
        store_answer_error(store, &put->requester, err, text, fx);
    }
}

static void put_refuse(struct store *store, struct put *put, enum err err, const char *text, struct effects *fx)
{
    put_answer_error(store, put, err, text, fx);
    put_end(store, put);
}

void put_answer_receipt(struct store *store, struct put *put, struct effects *fx)
{
    const struct admission *admission = &store->admission;
    if (put->task != 0) {
        repair_stored(store, put->task, ERR_OK);
        put_end(store, put);
        return;
    }
    if (put->incarnation != admission->incarnation) {
        put_refuse(store, put, ERR_STALE_MAP, "the store was registered anew", fx);
        return;
    }
    struct receipt receipt = {
        .cluster = admission->cluster,
        .cluster_incarnation = admission->cluster_incarnation,
        .store = admission->store,
        .store_incarnation = admission->incarnation,
        .shard = put->key,
        .sealed_bytes = put->sealed_bytes,
        .ns = put->hold.ns,
        .ns_incarnation = put->hold.ns_incarnation,
        .session = put->hold.session,
        .generation = put->hold.generation,
    };
    uint8_t packed[RECEIPT_BYTES];
    receipt_sign(&receipt, admission->receipt_key, packed);
    Cairn__ShardPutReply reply = CAIRN__SHARD_PUT_REPLY__INIT;
    reply.receipt.data = packed;
    reply.receipt.len = sizeof packed;
    fx_answer(fx, put->requester.from, put->requester.type, put->requester.stream, MESSAGE_REPLY, proto_pack(&reply),
              (struct slice){0});
    put_end(store, put);
}

/* Form of the request: what needs neither map nor index. */
static enum err put_check_form(const Cairn__ShardPutRequest *request, struct slice body, struct shard_key *ret_key,
                               const char **ret_text)
{
    *ret_text = "the shard key is malformed";
    if (request->shard.len != SHARD_KEY_BYTES) {
        return ERR_INVALID;
    }
    shard_key_decode(request->shard.data, ret_key);
    if (!code_valid(ret_key->k, ret_key->m) || ret_key->index >= ret_key->k + ret_key->m) {
        return ERR_INVALID;
    }
    if (request->sealed_bytes < SEAL_HEADER_BYTES + SEAL_TAG_BYTES || request->sealed_bytes > LIMIT_SEALED_BYTES ||
        request->plain_bytes > LIMIT_CHUNK_BYTES) {
        *ret_text = "no chunk has this sealed or plain length";
        return ERR_TOO_LARGE;
    }
    if (body.bytes != code_shard_bytes(request->sealed_bytes, ret_key->k)) {
        *ret_text = "the body is not as long as a shard of this code and sealed length";
        return ERR_INVALID;
    }
    if (request->slot != ret_key->index) {
        *ret_text = "a shard goes to the slot of its index";
        return ERR_INVALID;
    }
    if (request->checks.len > RECORD_TAIL_MAX) {
        *ret_text = "the checksum vector of this code does not fit a record";
        return ERR_UNSUPPORTED;
    }
    struct slice checks = slice_borrow(request->checks.data, request->checks.len);
    if (!shard_checks_valid(checks, ret_key->k + ret_key->m, body.bytes)) {
        *ret_text = "the checksum vector is malformed";
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* Store, capability, writer and the body's checksums. */
static enum err put_check_claims(struct store *store, const struct event *event, const Cairn__ShardPutRequest *request,
                                 const struct shard_key *key, struct admission_token **ret_token, const char **ret_text)
{
    if (store->admission.store == 0) {
        *ret_text = "the store is not registered yet";
        return ERR_NOT_READY;
    }
    if (request->store != store->admission.store || request->store_incarnation != store->admission.incarnation) {
        *ret_text = "another store, or an older incarnation of it, is meant";
        return ERR_STALE_MAP;
    }
    struct admission_token *token = NULL;
    enum err err = admission_check(&store->admission, request->capability, &event->message.peer, CAPABILITY_PUT,
                                   event->now_ns, &token, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    if (token->capability.realm != key->realm || token->capability.writer != key->writer) {
        *ret_text = "the capability is for another realm or writer";
        return ERR_BAD_CAPABILITY;
    }
    struct slice checks = slice_borrow(request->checks.data, request->checks.len);
    if (!shard_checks_match(checks, key->k + key->m, key->index, event->message.body)) {
        *ret_text = "the body does not match its checksums";
        return ERR_INVALID;
    }
    *ret_token = token;
    return ERR_OK;
}

/* The refusal of a code that is taken already: OK when no other index of the chunk in this code is here. */
static enum err put_check_neighbours(struct store *store, const struct put *put)
{
    uint8_t packed[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_SHARD, &put->key, packed);
    struct slice key = {0}, value = {0};
    enum err err = kv_next(store->kv, packed, 1 + INDEX_CODE_BYTES, false, &key, &value);
    if (err == ERR_NOT_FOUND) {
        return ERR_OK;
    }
    if (err == ERR_OK && key.bytes == sizeof packed && memcmp(key.data, packed, 1 + INDEX_CODE_BYTES) == 0) {
        err = ERR_OTHER_SHARD_HERE;
    }
    slice_drop(&key);
    slice_drop(&value);
    return err;
}

/* The shard is here. Decides on put->type, or answers; true when a record is to be written. */
static bool put_decide_present(struct store *store, struct put *put, struct effects *fx)
{
    if (put->sealed_bytes != put->entry.sealed_bytes || !slice_equal(put->checks, put->entry.checks)) {
        put_refuse(store, put, ERR_CONFLICT, "other bytes are stored under this shard's name", fx);
        return false;
    }
    if (serve_is_rotten(store, &put->key)) {
        put->type = RECORD_SHARD;
        return true;
    }
    if (index_hold_known(&put->entry, &put->hold)) {
        put_answer_receipt(store, put, fx);
        return false;
    }
    if (put->entry.holder_count >= INDEX_HOLDERS_MAX) {
        put_refuse(store, put, ERR_TOO_LARGE, "too many namespaces hold this shard", fx);
        return false;
    }
    put->type = RECORD_HOLDER;
    return true;
}

/* Looks the put up in the index and sets type, entry and present; false when it was answered. */
static bool put_look_up(struct store *store, struct put *put, struct effects *fx)
{
    index_entry_deinit(&put->entry);
    enum err err = index_get(store->kv, &put->key, &put->entry);
    put->present = err == ERR_OK;
    if (err == ERR_OK) {
        return put_decide_present(store, put, fx);
    }
    put->type = RECORD_SHARD;
    if (err == ERR_NOT_FOUND) {
        err = put_check_neighbours(store, put);
    }
    switch (err) {
    case ERR_OK:
        return true;
    case ERR_OTHER_SHARD_HERE:
        put_refuse(store, put, err, "another shard of this chunk and code is here", fx);
        return false;
    case ERR_WOULD_BLOCK:
        put_refuse(store, put, ERR_BUSY, "the index is not in cache", fx);
        return false;
    default:
        put_refuse(store, put, ERR_KV_FAILED, "the index cannot be read", fx);
        return false;
    }
}

static void put_hold(struct store *store, struct put *put)
{
    put->next = NULL;
    if (store->held_last != NULL) {
        store->held_last->next = put;
    } else {
        store->held_first = put;
    }
    store->held_last = put;
}

static void put_decide(struct store *store, struct put *put, struct effects *fx)
{
    CHECK(store->open && !put->internal);
    if (store->failures >= STORE_FAILURES_MAX) {
        put_refuse(store, put, ERR_IO, "the disk fails: the store is read only", fx);
        return;
    }
    if (commit_in_flight(store, &put->key)) {
        put_hold(store, put);
        return;
    }
    if (!put_look_up(store, put, fx)) {
        return;
    }
    uint32_t payload_bytes = put->type == RECORD_SHARD ? put->shard_bytes : 0;
    enum err err = commit_room(store, record_bytes(payload_bytes), fx);
    if (err == ERR_WOULD_BLOCK) {
        put_hold(store, put);
        return;
    }
    if (err != ERR_OK) {
        store->repair->owed |= put->task == 0 && put->type == RECORD_SHARD;
        put_refuse(store, put, err, NULL, fx);
        return;
    }
    if (put->task == 0 && put->type == RECORD_SHARD &&
        admission_charge(&store->admission, &put->token, put->shard_bytes) != ERR_OK) {
        put_refuse(store, put, ERR_BAD_CAPABILITY, "the capability's byte budget is spent", fx);
        return;
    }
    commit_add(store, put, fx);
}

void put_wake(struct store *store, struct effects *fx)
{
    struct put *put = store->held_first;
    store->held_first = store->held_last = NULL;
    while (put != NULL) {
        struct put *next = put->next;
        put_decide(store, put, fx);
        put = next;
    }
}

static struct put *put_create(struct store *store, const struct message *message, const Cairn__ShardPutRequest *request,
                              const struct shard_key *key, const struct admission_token *token)
{
    struct put *put = mem_alloc(sizeof *put);
    put->requester = requester_of(message);
    put->key = *key;
    put->sealed_bytes = request->sealed_bytes;
    put->plain_bytes = request->plain_bytes;
    put->shard_bytes = message->body.bytes;
    put->body = slice_ref(message->body);
    put->checks = slice_copy(request->checks.data, request->checks.len);
    put->hold = (struct hold){token->capability.ns, token->capability.ns_incarnation, token->capability.generation,
                              token->capability.session};
    put->token = token->digest;
    put->incarnation = request->store_incarnation;
    store->put_count++;
    store->put_bytes += put->shard_bytes;
    return put;
}

/* The vector and as many of the holds behind the first as a record takes. */
static struct slice rebuilt_tail(const struct put_rebuilt *rebuilt)
{
    uint32_t room = (RECORD_TAIL_MAX - rebuilt->checks.bytes) / RECORD_HOLD_BYTES;
    uint32_t further = rebuilt->hold_count - 1 < room ? rebuilt->hold_count - 1 : room;
    struct slice tail = slice_alloc(rebuilt->checks.bytes + further * RECORD_HOLD_BYTES);
    memcpy(tail.data, rebuilt->checks.data, rebuilt->checks.bytes);
    for (uint32_t i = 0; i < further; i++) {
        record_hold_encode(&rebuilt->holds[1 + i], tail.data + rebuilt->checks.bytes + i * RECORD_HOLD_BYTES);
    }
    return tail;
}

void put_rebuilt(struct store *store, const struct put_rebuilt *rebuilt, struct effects *fx)
{
    CHECK(rebuilt->task != 0 && rebuilt->hold_count > 0 && rebuilt->checks.bytes <= RECORD_TAIL_MAX);
    CHECK(rebuilt->body.bytes == code_shard_bytes(rebuilt->sealed_bytes, rebuilt->key.k));
    struct put *put = mem_alloc(sizeof *put);
    put->task = rebuilt->task;
    put->key = rebuilt->key;
    put->sealed_bytes = rebuilt->sealed_bytes;
    put->plain_bytes = rebuilt->plain_bytes;
    put->shard_bytes = rebuilt->body.bytes;
    put->body = slice_ref(rebuilt->body);
    put->checks = slice_ref(rebuilt->checks);
    put->tail = rebuilt_tail(rebuilt);
    put->hold = rebuilt->holds[0];
    store->put_count++;
    store->put_bytes += put->shard_bytes;
    put_decide(store, put, fx);
}

static enum err put_check(struct store *store, const struct event *event, const Cairn__ShardPutRequest *request,
                          struct shard_key *ret_key, struct admission_token **ret_token, const char **ret_text)
{
    struct slice body = event->message.body;
    enum err err = put_check_form(request, body, ret_key, ret_text);
    if (err == ERR_OK) {
        err = put_check_claims(store, event, request, ret_key, ret_token, ret_text);
    }
    if (err == ERR_OK && store->put_count > 0 &&
        (store->put_count >= STORE_PUTS_MAX || store->put_bytes + body.bytes > STORE_PUT_BYTES_MAX)) {
        *ret_text = NULL;
        err = ERR_BUSY;
    }
    return err;
}

void put_receive(struct store *store, const struct event *event, struct effects *fx)
{
    struct requester requester = requester_of(&event->message);
    struct proto_arena arena = {0};
    Cairn__ShardPutRequest *request = NULL;
    struct shard_key key = {0};
    struct admission_token *token = NULL;
    const char *text = NULL;
    char epoch_text[64];
    enum err err =
        proto_unpack(&cairn__shard_put_request__descriptor, event->message.header, &arena, (void **)&request);
    if (err == ERR_OK) {
        err = put_check(store, event, request, &key, &token, &text);
    }
    if (err == ERR_OK && !admission_seated(&store->admission, token->capability.ns, &key.chunk, key.index)) {
        uint64_t epoch = admission_epoch(&store->admission);
        snprintf(epoch_text, sizeof epoch_text, "no seat for this slot in map epoch %llu", (unsigned long long)epoch);
        text = epoch_text;
        /* The sender knows a newer map: it comes with the next heartbeat, and may seat this store there. */
        err = request->map_epoch > epoch ? ERR_NOT_READY : ERR_NOT_OWNER;
    }
    if (err != ERR_OK) {
        store_answer_error(store, &requester, err, text, fx);
    } else {
        put_decide(store, put_create(store, &event->message, request, &key, token), fx);
    }
    proto_arena_deinit(&arena);
}
