/* Tokens and joining at the root group: what a token gives, to whom, how often, until when. */
#include <openssl/x509.h>

#include "base/authority.h"
#include "base/seal.h"
#include "group_node.h"
#include "metad/group.h"
#include "proto/token.h"

static const struct principal root_device = {.role = ROLE_DEVICE, .id = 1};

/* A cluster of one node whose authority is with it, and that has said where it is. */
static void start(struct node *node)
{
    struct authority *authority = NULL;
    struct slice key = {0}, certificate = {0};
    node_make(node, 1);
    assert_int_equal(authority_create(1790000000000000000ull, &authority), ERR_OK);
    assert_int_equal(authority_key(authority, &key), ERR_OK);
    assert_int_equal(authority_certificate(authority, &certificate), ERR_OK);
    struct slice sealed = value_seal(node->cluster_key, AUTHORITY_USE, strlen(AUTHORITY_USE), key.data, key.bytes);
    memcpy(node->bootstrap.authority_sealed, sealed.data, sealed.bytes);
    memcpy(node->bootstrap.authority, certificate.data, certificate.bytes);
    node->bootstrap.authority_sealed_bytes = (uint32_t)sealed.bytes;
    node->bootstrap.authority_bytes = (uint32_t)certificate.bytes;
    slice_drop(&sealed);
    slice_wipe(&key);
    slice_drop(&certificate);
    authority_destroy(authority);
    node_start(node);
    node->groups[0]->params.address = "10.0.0.1:7100";
    node_ticks(node, 60);
}

/* A host's or token's key. */
struct pair {
    struct slice private_key, public_key;
};

static struct pair pair_make(void)
{
    struct pair pair = {0};
    assert_int_equal(identity_create(&pair.private_key, &pair.public_key), ERR_OK);
    return pair;
}

static void pair_drop(struct pair *pair)
{
    slice_wipe(&pair->private_key);
    slice_drop(&pair->public_key);
}

static enum err ask_token(struct node *node, uint32_t role, uint64_t seconds, struct slice key)
{
    Cairn__RequestHead head;
    Cairn__AdminTokenRequest request = CAIRN__ADMIN_TOKEN_REQUEST__INIT;
    request.head = node_head(node, &head);
    request.head->ns = 0;
    request.role = role;
    request.seconds = seconds;
    request.public_key = (ProtobufCBinaryData){key.bytes, key.data};
    return node_ask(node, 0, root_device, MESSAGE_ADMIN_TOKEN, &request, (struct slice){0});
}

/* `signer` shows that it holds the key of `named`. */
static enum err ask_join_as(struct node *node, struct principal who, uint32_t token, uint32_t role,
                            const struct pair *named, const struct pair *signer, const char *address)
{
    Cairn__NodeJoinRequest request = CAIRN__NODE_JOIN_REQUEST__INIT;
    request.node = token;
    request.role = role;
    struct slice key = named->public_key, proof = {0};
    request.public_key = (ProtobufCBinaryData){key.bytes, key.data};
    request.address = (char *)(uintptr_t)address;
    struct slice statement = join_statement(&node->bootstrap.cluster, token, role, key.data, key.bytes, address);
    assert_int_equal(identity_sign(signer->private_key, statement, &proof), ERR_OK);
    request.proof = (ProtobufCBinaryData){proof.bytes, proof.data};
    enum err err = node_ask(node, 0, who, MESSAGE_NODE_JOIN, &request, (struct slice){0});
    slice_drop(&statement);
    slice_drop(&proof);
    return err;
}

static enum err ask_join(struct node *node, struct principal who, uint32_t token, uint32_t role, const struct pair *key,
                         const char *address)
{
    return ask_join_as(node, who, token, role, key, key, address);
}

static void certificate_is(const struct node *node, ProtobufCBinaryData der, const char *name)
{
    char found[64];
    const unsigned char *at = der.data, *issuer_at = node->bootstrap.authority;
    X509 *certificate = d2i_X509(NULL, &at, (long)der.len);
    X509 *issuer = d2i_X509(NULL, &issuer_at, node->bootstrap.authority_bytes);
    assert_non_null(certificate);
    assert_int_equal(X509_verify(certificate, X509_get0_pubkey(issuer)), 1);
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, found, sizeof found) > 0);
    assert_string_equal(found, name);
    X509_free(certificate);
    X509_free(issuer);
}

static void test_metad(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct pair token_key = pair_make(), key = pair_make(), other = pair_make();
    assert_int_equal(ask_token(&node, ROLE_DEVICE, 60, token_key.public_key), ERR_INVALID);
    assert_int_equal(ask_token(&node, ROLE_METAD, 0, token_key.public_key), ERR_INVALID);
    assert_int_equal(ask_token(&node, ROLE_METAD, 60, (struct slice){0}), ERR_INVALID);
    assert_int_equal(ask_token(&node, ROLE_METAD, 60, token_key.public_key), ERR_OK);
    const Cairn__AdminTokenReply *token = node_reply(&node, &cairn__admin_token_reply__descriptor);
    assert_int_equal(token->token, 1);
    assert_int_equal(token->n_metads, 1);
    assert_string_equal(token->metads[0], "1@10.0.0.1:7100");
    certificate_is(&node, token->certificate, "join:1");

    struct principal bearer = {.role = ROLE_JOIN, .id = 1}, stranger = {.role = ROLE_JOIN, .id = 2};
    assert_int_equal(ask_join(&node, stranger, 1, ROLE_METAD, &key, "10.0.0.2:7100"), ERR_WRONG_ROLE);
    assert_int_equal(ask_join(&node, stranger, 2, ROLE_METAD, &key, "10.0.0.2:7100"), ERR_EXPIRED); /* no such token */
    assert_int_equal(ask_join(&node, bearer, 1, ROLE_BLOCKD, &key, "10.0.0.2:7100"), ERR_WRONG_ROLE);
    assert_int_equal(ask_join(&node, bearer, 1, ROLE_METAD, &key, "no address"), ERR_INVALID);
    for (int i = 0; i < 2; i++) { /* a repeat is answered the same */
        assert_int_equal(ask_join(&node, bearer, 1, ROLE_METAD, &key, "10.0.0.2:7100"), ERR_OK);
        const Cairn__NodeJoinReply *reply = node_reply(&node, &cairn__node_join_reply__descriptor);
        assert_int_equal(reply->node, 2);
        assert_int_equal(reply->groups, NODE_GROUPS);
        assert_int_equal(reply->cluster_key.len, 32);
        assert_memory_equal(reply->cluster_key.data, node.cluster_key, 32);
        assert_int_equal(reply->bootstrap->n_members, 1);
        assert_int_equal(reply->bootstrap->authority.len, node.bootstrap.authority_bytes);
        certificate_is(&node, reply->certificate, "metad:2");
    }
    assert_int_equal(ask_join(&node, bearer, 1, ROLE_METAD, &other, "10.0.0.3:7100"), ERR_TOKEN_USED);
    /* Who found the token later and knows only the node's public key gets nothing, the cluster key least of all. */
    assert_int_equal(ask_join_as(&node, bearer, 1, ROLE_METAD, &key, &other, "10.0.0.2:7100"), ERR_DENIED);
    const Cairn__MapNode *row = map_find_metad(node.groups[0]->keyring.map, 2);
    assert_non_null(row);
    assert_int_equal(row->state, NODE_JOINING);
    assert_string_equal(row->address, "10.0.0.2:7100");
    pair_drop(&token_key);
    pair_drop(&key);
    pair_drop(&other);
    node_deinit(&node);
}

/* A block server's token gives no key of the cluster; what is not used in time is over. */
static void test_blockd(void **state)
{
    (void)state;
    struct node node;
    start(&node);
    struct pair token_key = pair_make(), key = pair_make();
    assert_int_equal(ask_token(&node, ROLE_BLOCKD, 60, token_key.public_key), ERR_OK);
    assert_int_equal(ask_token(&node, ROLE_BLOCKD, 15, token_key.public_key), ERR_OK);
    struct principal first = {.role = ROLE_JOIN, .id = 1}, second = {.role = ROLE_JOIN, .id = 2};
    assert_int_equal(ask_join(&node, first, 1, ROLE_BLOCKD, &key, "10.0.0.2:7100"), ERR_OK);
    const Cairn__NodeJoinReply *reply = node_reply(&node, &cairn__node_join_reply__descriptor);
    assert_int_equal(reply->node, 1);
    assert_int_equal(reply->cluster_key.len, 0);
    assert_null(reply->bootstrap);
    certificate_is(&node, reply->certificate, "blockd:1");
    node_ticks(&node, 800); /* 40 s: cluster time goes on by ticks of 10 s */
    assert_int_equal(ask_join(&node, second, 2, ROLE_BLOCKD, &key, "10.0.0.2:7100"), ERR_EXPIRED);
    assert_int_equal(ask_join(&node, first, 1, ROLE_BLOCKD, &key, "10.0.0.2:7100"), ERR_OK); /* begun in time */
    pair_drop(&token_key);
    pair_drop(&key);
    node_deinit(&node);
}

/* Without the authority's key the cluster gives no tokens. */
static void test_no_authority(void **state)
{
    (void)state;
    struct node node;
    node_init(&node);
    struct pair key = pair_make();
    assert_int_equal(ask_token(&node, ROLE_METAD, 60, key.public_key), ERR_UNSUPPORTED);
    pair_drop(&key);
    node_deinit(&node);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metad),
        cmocka_unit_test(test_blockd),
        cmocka_unit_test(test_no_authority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
