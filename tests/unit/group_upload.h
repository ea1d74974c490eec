/* Uploads to a metadata node under test: registration of stores, and the way of a session, whose stores the test plays.
 */
#ifndef CAIRN_TESTS_UNIT_GROUP_UPLOAD_H
#define CAIRN_TESTS_UNIT_GROUP_UPLOAD_H

#include "group_node.h"

static inline enum err put_small_at(struct node *node, uint64_t parent, const char *name, uint64_t base,
                                    const char *text)
{
    Cairn__RequestHead head;
    Cairn__PutSmallRequest request = CAIRN__PUT_SMALL_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.parent = parent;
    request.name = text_bytes(name);
    request.base_version = base;
    request.mode = 0644;
    return node_ask(node, 1, DEVICE_ROOT, MESSAGE_PUT_SMALL, &request, slice_borrow(text, strlen(text)));
}

static inline Cairn__StoreRegisterReply *register_store_at(struct node *node, uint32_t number, uint64_t last_record)
{
    uint8_t uuid[16] = {(uint8_t)number, 1};
    Cairn__StoreRegisterRequest request = CAIRN__STORE_REGISTER_REQUEST__INIT;
    char host[16];
    snprintf(host, sizeof host, "host%u", number);
    request.node = number;
    request.uuid = (ProtobufCBinaryData){16, uuid};
    request.incarnation = 100 + number;
    request.last_record = last_record;
    request.address = "127.0.0.1:1";
    request.host = host;
    request.rack = "";
    struct principal peer = {.role = ROLE_BLOCKD, .id = number};
    assert_int_equal(node_ask(node, 0, peer, MESSAGE_STORE_REGISTER, &request, (struct slice){0}), ERR_OK);
    return node_reply(node, &cairn__store_register_reply__descriptor);
}

static inline Cairn__StoreRegisterReply *register_store(struct node *node, uint32_t number)
{
    return register_store_at(node, number, 0);
}

struct upload {
    uint64_t session;
    uint64_t generation;
    struct ask_answer answer;
    uint8_t body[4096];
    size_t body_bytes;
};

static inline enum err upload_begin(struct node *node, const char *name, const struct ask_entry *ask,
                                    struct upload *ret)
{
    Cairn__RequestHead head;
    Cairn__UploadStartRequest request = CAIRN__UPLOAD_START_REQUEST__INIT;
    uint8_t asked[ASK_ENTRY_BYTES];
    request.head = node_head(node, &head);
    request.name = text_bytes(name);
    request.any_base = true;
    ask_entry_encode(ask, asked);
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_START, &request, slice_borrow(asked, sizeof asked));
    if (err == ERR_OK) {
        Cairn__UploadStartReply *reply = node_reply(node, &cairn__upload_start_reply__descriptor);
        *ret = (struct upload){.session = reply->session, .generation = reply->generation};
        assert_int_equal(reply->capability.len, CAPABILITY_BYTES);
        assert_int_equal(ask_answer_decode(node->body.data, node->body.bytes, &ret->answer), ERR_OK);
    }
    return err;
}

static inline void upload_add_receipt(struct upload *upload, const Cairn__StoreRegisterReply *store, uint8_t k,
                                      uint8_t m, uint8_t index, struct encoding encoding)
{
    struct receipt receipt = {
        .cluster_incarnation = 1,
        .store = store->store,
        .store_incarnation = store->incarnation,
        .shard = {.realm = 1,
                  .chunk = upload->answer.chunk,
                  .writer = 1,
                  .encoding = encoding,
                  .k = k,
                  .m = m,
                  .index = index},
        .sealed_bytes = 100000,
        .ns = 1,
        .ns_incarnation = 1,
        .session = upload->session,
        .generation = upload->generation,
    };
    receipt_sign(&receipt, store->receipt_key.data, upload->body + upload->body_bytes);
    upload->body_bytes += RECEIPT_BYTES;
}

static inline enum err upload_stage(struct node *node, struct upload *upload, const struct manifest_entry *entry,
                                    size_t *ret_unresolved)
{
    Cairn__RequestHead head;
    Cairn__UploadStageRequest request = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.session = upload->session;
    request.receipts = (uint32_t)(upload->body_bytes / RECEIPT_BYTES);
    request.entries = 1;
    manifest_entry_encode(entry, upload->body + upload->body_bytes);
    struct slice body = slice_borrow(upload->body, upload->body_bytes + MANIFEST_ENTRY_BYTES);
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_STAGE, &request, body);
    if (err == ERR_OK) {
        *ret_unresolved =
            ((Cairn__UploadStageReply *)node_reply(node, &cairn__upload_stage_reply__descriptor))->n_unresolved;
    }
    return err;
}

static inline enum err upload_end(struct node *node, const struct upload *upload, uint64_t bytes, uint32_t *ret_safe)
{
    Cairn__RequestHead head;
    Cairn__UploadCompleteRequest request = CAIRN__UPLOAD_COMPLETE_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.session = upload->session;
    request.bytes = bytes;
    enum err err = node_ask(node, 1, DEVICE_ROOT, MESSAGE_UPLOAD_COMPLETE, &request, (struct slice){0});
    if (err == ERR_OK) {
        *ret_safe =
            ((Cairn__UploadCompleteReply *)node_reply(node, &cairn__upload_complete_reply__descriptor))->safe_losses;
    }
    return err;
}

static inline void heartbeat(struct node *node, const Cairn__StoreRegisterReply *store, uint32_t number)
{
    Cairn__StoreHeartbeatRequest request = CAIRN__STORE_HEARTBEAT_REQUEST__INIT;
    request.store = store->store;
    request.incarnation = store->incarnation;
    struct principal peer = {.role = ROLE_BLOCKD, .id = number};
    assert_int_equal(node_ask(node, 0, peer, MESSAGE_STORE_HEARTBEAT, &request, (struct slice){0}), ERR_OK);
}

#endif
