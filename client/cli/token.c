/* Join tokens: the text (token.h), and `cairn admin token create`. The token's private key is made here; only its
 * public half goes to the cluster. */
#include "token.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/authority.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "common.h"

#define TOKEN_PREFIX  "cairn1."
#define TOKEN_SECONDS 3600u /* unless said */

/* ---- the text ---- */

void token_encode(const Cairn__JoinToken *token, char ret_text[TOKEN_TEXT_BYTES])
{
    struct slice packed = proto_pack(token);
    struct slice whole = slice_alloc(packed.bytes + 4);
    memcpy(whole.data + 4, packed.data, packed.bytes);
    put_u32(whole.data, crc32c(0, packed.data, packed.bytes));
    CHECK(whole.bytes / 3 * 4 + 16 < TOKEN_TEXT_BYTES);
    strcpy(ret_text, TOKEN_PREFIX);
    char *at = ret_text + strlen(TOKEN_PREFIX);
    EVP_EncodeBlock((unsigned char *)at, whole.data, (int)whole.bytes);
    for (; *at != '\0'; at++) { /* base64url, without padding */
        *at = *at == '+' ? '-' : *at == '/' ? '_' : *at;
        if (*at == '=') {
            *at = '\0';
            break;
        }
    }
    slice_wipe(&packed);
    slice_wipe(&whole);
}

/* The bytes behind the prefix; false when they are no base64url. */
static bool text_decode(const char *text, struct slice *ret)
{
    size_t digits = strlen(text), padded = (digits + 3) / 4 * 4;
    if (digits < 8 || padded >= TOKEN_TEXT_BYTES ||
        strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                     "0123456789-_") != digits) {
        return false;
    }
    char *standard = mem_alloc(padded + 1);
    for (size_t i = 0; i < padded; i++) {
        char c = i < digits ? text[i] : '=';
        standard[i] = (char)(c == '-' ? '+' : c == '_' ? '/' : c);
    }
    struct slice bytes = slice_alloc(padded / 4 * 3);
    int got = EVP_DecodeBlock(bytes.data, (const unsigned char *)standard, (int)padded);
    explicit_bzero(standard, padded);
    free(standard);
    if (got < 0) {
        slice_wipe(&bytes);
        return false;
    }
    *ret = slice_copy(bytes.data, (size_t)got - (padded - digits));
    slice_wipe(&bytes);
    return true;
}

enum err token_decode(const char *text, struct proto_arena *arena, Cairn__JoinToken **ret_token)
{
    struct slice whole = {0};
    void *message = NULL;
    if (strncmp(text, TOKEN_PREFIX, strlen(TOKEN_PREFIX)) != 0 || !text_decode(text + strlen(TOKEN_PREFIX), &whole)) {
        return ERR_INVALID;
    }
    bool good = whole.bytes > 4 && get_u32(whole.data) == crc32c(0, whole.data + 4, whole.bytes - 4) &&
                proto_unpack(&cairn__join_token__descriptor, slice_borrow(whole.data + 4, whole.bytes - 4), arena,
                             &message) == ERR_OK;
    slice_wipe(&whole);
    Cairn__JoinToken *token = message;
    bool known = good && token->cluster.len == 16 && (token->role == ROLE_METAD || token->role == ROLE_BLOCKD) &&
                 token->n_metads > 0;
    if (!known) {
        return ERR_INVALID;
    }
    *ret_token = token;
    return ERR_OK;
}

struct sha256 token_fingerprint(const Cairn__JoinToken *token)
{
    return sha256(token->authority.data, token->authority.len);
}

/* ---- the command ---- */

static const char usage[] =
    "usage: cairn admin token create --role metad|blockd [--expires SECONDS]\n\n"
    "Prints a token that is good for one node, once, for so long (3600). It carries the fingerprint and certificate "
    "of\n"
    "the cluster's authority, and is a secret: who bears it becomes a node. On the other host:\n"
    "  cairn admin cluster join --token TOKEN --dir DIR --listen HOST:PORT\n";

static void token_print(const struct cli *cli, const Cairn__JoinToken *token)
{
    char text[TOKEN_TEXT_BYTES], hex[65];
    struct sha256 fingerprint = token_fingerprint(token);
    token_encode(token, text);
    hex_encode(&fingerprint, sizeof fingerprint, hex);
    if (!cli->json) {
        fprintf(stderr, "authority: SHA-256 %s\n", hex);
        printf("%s\n", text);
    } else {
        struct json json;
        json_begin(&json);
        json_text(&json, "role", token->role == ROLE_METAD ? "metad" : "blockd");
        json_text(&json, "authority_sha256", hex);
        json_text(&json, "token", text);
        json_end(&json);
    }
    explicit_bzero(text, sizeof text);
}

static int token_make(struct cli *cli, uint64_t seconds)
{
    struct slice private_key = {0}, public_key = {0};
    struct cairn_packed packed = {0};
    struct proto_arena arena = {0};
    void *message = NULL;
    if (identity_create(&private_key, &public_key) != ERR_OK) {
        cli->error = (struct cairn_error){.code = ERR_INTERNAL, .text = "no key can be made"};
        return ERR_INTERNAL;
    }
    int code =
        cairn_admin_token(cli->cairn, cli->role, seconds, public_key.data, public_key.bytes, &packed, &cli->error);
    if (code == 0) {
        enum err err = proto_unpack(&cairn__admin_token_reply__descriptor, slice_borrow(packed.data, packed.bytes),
                                    &arena, &message);
        CHECK(err == ERR_OK);
        const Cairn__AdminTokenReply *reply = message;
        Cairn__JoinToken token = CAIRN__JOIN_TOKEN__INIT;
        token.cluster = reply->cluster;
        token.cluster_incarnation = reply->cluster_incarnation;
        token.token = reply->token;
        token.role = strcmp(cli->role, "metad") == 0 ? ROLE_METAD : ROLE_BLOCKD;
        token.authority = reply->authority;
        token.certificate = reply->certificate;
        token.key = (ProtobufCBinaryData){private_key.bytes, private_key.data};
        token.n_metads = reply->n_metads;
        token.metads = reply->metads;
        token_print(cli, &token);
    }
    free(packed.data);
    proto_arena_deinit(&arena);
    slice_wipe(&private_key);
    slice_drop(&public_key);
    return code;
}

int cli_admin_token(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "admin token", usage, "OX", 1, 1, &code)) {
        return code;
    }
    bool known = cli.role != NULL && (strcmp(cli.role, "metad") == 0 || strcmp(cli.role, "blockd") == 0);
    if (strcmp(cli.argv[0], "create") != 0 || !known) {
        fprintf(stderr,
                "cairn admin token: write 'create --role metad' or 'create --role blockd'; see 'cairn admin token "
                "--help'\n");
        return CLI_EXIT_USAGE;
    }
    if (!cli_open(&cli, &code)) {
        return code;
    }
    return cli_end(&cli, token_make(&cli, cli.expires != 0 ? cli.expires : TOKEN_SECONDS));
}
