/* Tokens and joining: what an operator's program asks of the root group for a node that is to be. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "base/authority.h"
#include "proto/token.h"

static uint32_t role_number(const char *role)
{
    if (strcmp(role, "metad") == 0) {
        return ROLE_METAD;
    }
    return strcmp(role, "blockd") == 0 ? ROLE_BLOCKD : ROLE_NONE;
}

/* The reply packed again, for the caller. */
static void packed_give(const void *reply, struct cairn_packed *ret)
{
    struct slice packed = proto_pack(reply);
    ret->bytes = packed.bytes;
    ret->data = mem_alloc(packed.bytes);
    memcpy(ret->data, packed.data, packed.bytes);
    slice_drop(&packed);
}

static int root_ask(struct cairn *c, uint16_t type, bool mutation, const void *request,
                    const ProtobufCMessageDescriptor *descriptor, const char *what, struct cairn_packed *ret_reply,
                    struct cairn_error *error)
{
    struct proto_arena arena = {0};
    void *reply = NULL;
    struct api_call call = {
        .type = type, .route = CLIENT_ROUTE_ROOT, .mutation = mutation, .request = request, .reply = descriptor};
    int result = api_call(c, &call, what, &arena, &reply, error);
    if (result == 0) {
        packed_give(reply, ret_reply);
    }
    proto_arena_deinit(&arena);
    return result;
}

int cairn_admin_token(struct cairn *c, const char *role, uint64_t seconds, const void *public_key, size_t bytes,
                      struct cairn_packed *ret_reply, struct cairn_error *error)
{
    Cairn__AdminTokenRequest request = CAIRN__ADMIN_TOKEN_REQUEST__INIT;
    request.role = role_number(role);
    request.seconds = seconds;
    request.public_key = (ProtobufCBinaryData){bytes, (uint8_t *)(uintptr_t)public_key};
    int result = root_ask(c, MESSAGE_ADMIN_TOKEN, true, &request, &cairn__admin_token_reply__descriptor, "a token",
                          ret_reply, error);
    if (result == ERR_UNSUPPORTED) {
        return api_fail(error, ERR_UNSUPPORTED,
                        "the authority's key is not with this cluster; make the node's certificate where it is");
    }
    return result;
}

int cairn_node_join(struct cairn *c, const char *role, const void *private_key, size_t bytes, const char *address,
                    struct cairn_packed *ret_reply, struct cairn_error *error)
{
    Cairn__NodeJoinRequest request = CAIRN__NODE_JOIN_REQUEST__INIT;
    struct slice key = slice_borrow((uint8_t *)(uintptr_t)private_key, bytes), public_key = {0}, proof = {0};
    if (c->config.role != ROLE_JOIN) {
        return api_fail(error, ERR_INVALID, "joining takes the configuration of a token's bearer");
    }
    enum err err = identity_public(key, &public_key);
    if (err != ERR_OK) {
        return api_fail(error, err, "the node's key is no key");
    }
    request.node = c->config.device;
    request.role = role_number(role);
    request.public_key = (ProtobufCBinaryData){public_key.bytes, public_key.data};
    request.address = (char *)(uintptr_t)address;
    struct slice statement =
        join_statement(&c->config.cluster, request.node, request.role, public_key.data, public_key.bytes, address);
    err = identity_sign(key, statement, &proof);
    slice_drop(&statement);
    request.proof = (ProtobufCBinaryData){proof.bytes, proof.data};
    int result = err == ERR_OK ? root_ask(c, MESSAGE_NODE_JOIN, false, &request, &cairn__node_join_reply__descriptor,
                                          "joining", ret_reply, error)
                               : api_fail(error, err, "the node's key does not sign");
    slice_drop(&public_key);
    slice_drop(&proof);
    return result;
}
