/* `cairn admin cluster join`: this host becomes a node, with a one-time token.
 *
 * Happy path: DIR/node.key is made here and never sent; the token names the cluster's authority, so what answers at the
 * metadata nodes' addresses is believed only with a certificate of it, before anything is sent. The bearer asks for a
 * certificate of the key (NODE_JOIN) and gets what else such a node needs: ca.crt, node.crt, node.toml, and for a
 * metadata node cluster.key and bootstrap.toml. How it fails: what was begun is gone on with when it is run again,
 * under the same key; node.toml is written last. */
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/authority.h"
#include "base/bytes.h"
#include "base/check.h"
#include "cairn.h"
#include "cluster.h"
#include "token.h"

#define CAPACITY_BYTES  (1ull << 30) /* least capacity told of a store */
#define KEY_FILE_BYTES  4096
#define METAD_TEXT_MOST 300u /* NODE@HOST:PORT */

/* DIR/node.key, made unless it is there: who joins again must come with the same key. */
static enum err take_key(const char *dir, struct slice *ret_private, char *ret_text)
{
    char path[DEV_PATH_BYTES], *text = mem_alloc(KEY_FILE_BYTES);
    struct slice public_key = {0};
    snprintf(path, sizeof path, "%s/node.key", dir);
    FILE *file = fopen(path, "re");
    enum err err = ERR_OK;
    if (file != NULL) {
        size_t bytes = fread(text, 1, KEY_FILE_BYTES, file);
        fclose(file);
        err = pem_decode("PRIVATE KEY", slice_borrow((uint8_t *)text, bytes), ret_private);
        if (err != ERR_OK) {
            err = dev_refuse(ERR_CORRUPT, ret_text, "%s holds no key; remove it and run this again", path);
        }
    } else if (identity_create(ret_private, &public_key) != ERR_OK) {
        err = dev_refuse(ERR_INTERNAL, ret_text, "no key can be made");
    } else {
        err = dev_pem_write(dir, "node.key", "PRIVATE KEY", *ret_private, 0600, ret_text);
    }
    slice_drop(&public_key);
    explicit_bzero(text, KEY_FILE_BYTES);
    free(text);
    return err;
}

static struct slice bytes_of(ProtobufCBinaryData data)
{
    return slice_borrow(data.data, data.len);
}

/* The files of the token's bearer: join.toml names them. */
static enum err write_bearer(const Cairn__JoinToken *token, const char *dir, char *ret_text)
{
    struct uuid cluster;
    memcpy(&cluster, token->cluster.data, sizeof cluster);
    enum err err = dev_pem_write(dir, "ca.crt", "CERTIFICATE", bytes_of(token->authority), 0644, ret_text);
    if (err == ERR_OK) {
        err = dev_pem_write(dir, "join.crt", "CERTIFICATE", bytes_of(token->certificate), 0600, ret_text);
    }
    if (err == ERR_OK) {
        err = dev_pem_write(dir, "join.key", "PRIVATE KEY", bytes_of(token->key), 0600, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    struct document *d = mem_alloc(sizeof *d);
    document_add_identity(d, dir, "join", token->token, &cluster, token->cluster_incarnation, "join");
    document_add_metads(d, token->metads, token->n_metads);
    document_string(d, "keys", "%s/join.keys", dir);
    err = document_write(d, dir, "join.toml", 0600, ret_text);
    free(d);
    return err;
}

static void remove_bearer(const char *dir)
{
    static const char *const names[] = {"join.toml", "join.crt", "join.key", "join.keys", "join.keys.metads"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[DEV_PATH_BYTES];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)unlink(path);
    }
}

static enum err ask(const Cairn__JoinToken *token, const struct cluster_options *options, const char *dir,
                    struct slice private_key, struct cairn_packed *ret_reply, char *ret_text)
{
    char path[DEV_PATH_BYTES];
    struct cairn *cairn = NULL;
    struct cairn_error error = {0};
    snprintf(path, sizeof path, "%s/join.toml", dir);
    const struct cairn_options open = {.config_file = path};
    int code = cairn_open(&open, &cairn, &error);
    if (code == 0) {
        code = cairn_node_join(cairn, token->role == ROLE_METAD ? "metad" : "blockd", private_key.data,
                               private_key.bytes, options->advertise, ret_reply, &error);
    }
    cairn_close(cairn);
    return code == 0 ? ERR_OK : dev_refuse((enum err)code, ret_text, "%s", error.text);
}

/* The bytes of a socket: what goes into files, and through buffers of known length, is looked at first. */
static enum err reply_check(const Cairn__JoinToken *token, const Cairn__NodeJoinReply *reply, char *ret_text)
{
    const Cairn__Bootstrap *b = reply->bootstrap;
    bool metad = token->role == ROLE_METAD;
    bool sound = reply->node != 0 && reply->certificate.len > 0 && reply->n_metads > 0;
    for (size_t i = 0; sound && i < reply->n_metads; i++) {
        sound = strlen(reply->metads[i]) < METAD_TEXT_MOST;
    }
    if (metad) {
        sound = sound && reply->cluster_key.len == 32 && reply->groups >= 1 && reply->groups <= LIMIT_GROUPS &&
                b != NULL && b->n_members <= LIMIT_RAFT_MEMBERS && b->random.len == 32 && b->bearer.len == 32 &&
                strlen(b->workspace) < 64 && strlen(b->pool) < 32 && b->authority.len <= LIMIT_AUTHORITY_BYTES &&
                b->authority_sealed.len <= LIMIT_AUTHORITY_BYTES;
    }
    return sound ? ERR_OK : dev_refuse(ERR_BAD_PROTO, ret_text, "the cluster's answer is malformed; is it newer?");
}

static enum err write_bootstrap(const char *dir, const Cairn__JoinToken *token, const Cairn__Bootstrap *b,
                                char *ret_text)
{
    struct document *d = mem_alloc(sizeof *d);
    document_hex(d, "cluster", token->cluster.data, token->cluster.len);
    document_add(d, "cluster_incarnation = %llu\nmembers = [", (unsigned long long)token->cluster_incarnation);
    for (size_t i = 0; i < b->n_members; i++) {
        document_add(d, "%s%u", i > 0 ? ", " : "", b->members[i]);
    }
    document_add(d, "]\n");
    document_hex(d, "random", b->random.data, b->random.len);
    document_string(d, "workspace", "%s", b->workspace);
    document_string(d, "pool", "%s", b->pool);
    document_add(d, "stores = %u\nchunk_bytes = %u\npg_bits = %u\ndevice = %u\n", b->stores, b->chunk_bytes, b->pg_bits,
                 b->device);
    if (b->copy_bytes > 0) {
        document_add(d, "copy_bytes = %u\n", b->copy_bytes);
    }
    document_hex(d, "bearer", b->bearer.data, b->bearer.len);
    document_hex(d, "authority_sealed", b->authority_sealed.data, b->authority_sealed.len);
    document_hex(d, "authority", b->authority.data, b->authority.len);
    enum err err = document_write(d, dir, "bootstrap.toml", 0600, ret_text);
    free(d);
    return err;
}

/* Nine tenths of what is free where the store will be. */
static uint64_t capacity_of(const char *dir)
{
    struct statvfs fs;
    uint64_t bytes = statvfs(dir, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize / 10 * 9 : 0;
    bytes -= bytes % LIMIT_STORE_SEGMENT_BYTES;
    return bytes < CAPACITY_BYTES ? CAPACITY_BYTES : bytes;
}

static void add_blockd(struct document *d, const struct cluster_options *options, const char *dir)
{
    char name[256] = "host";
    (void)gethostname(name, sizeof name - 1);
    document_string(d, "host", "%s", options->host != NULL ? options->host : name);
    document_string(d, "rack", "%s", options->rack);
    document_add(d, "stores = [");
    for (uint32_t i = 0; i < options->store_count; i++) {
        document_add(d, i > 0 ? ", " : "");
        document_quoted(d, options->store[i]);
    }
    if (options->store_count == 0) {
        char store[DEV_PATH_BYTES];
        snprintf(store, sizeof store, "%s/store1", dir);
        document_quoted(d, store);
    }
    document_add(d, "]\ncapacity_bytes = %llu\n",
                 (unsigned long long)(options->capacity_bytes > 0 ? options->capacity_bytes : capacity_of(dir)));
}

static enum err write_node(const Cairn__JoinToken *token, const Cairn__NodeJoinReply *reply,
                           const struct cluster_options *options, const char *dir, char *ret_text)
{
    bool metad = token->role == ROLE_METAD;
    enum err err = dev_pem_write(dir, "node.crt", "CERTIFICATE", bytes_of(reply->certificate), 0644, ret_text);
    if (err == ERR_OK && metad) {
        char path[DEV_PATH_BYTES];
        snprintf(path, sizeof path, "%s/cluster.key", dir);
        err = dev_file_write(path, reply->cluster_key.data, reply->cluster_key.len, 0600, ret_text);
    }
    if (err == ERR_OK && metad) {
        err = write_bootstrap(dir, token, reply->bootstrap, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    struct uuid cluster;
    memcpy(&cluster, token->cluster.data, sizeof cluster);
    char own[300], *metads[LIMIT_RAFT_MEMBERS + 1] = {own};
    size_t count = metad ? 1 : 0;
    snprintf(own, sizeof own, "%u@%s", reply->node, options->advertise);
    for (size_t i = 0; i < reply->n_metads && count < LIMIT_RAFT_MEMBERS; i++) {
        metads[count++] = reply->metads[i];
    }
    struct document *d = mem_alloc(sizeof *d);
    document_add_identity(d, dir, metad ? "metad" : "blockd", reply->node, &cluster, token->cluster_incarnation,
                          "node");
    document_string(d, "listen", "%s", options->listen);
    document_string(d, "advertise", "%s", options->advertise);
    document_add_metads(d, metads, count);
    if (metad) {
        document_add_metad(d, dir, reply->groups);
    } else {
        add_blockd(d, options, dir);
    }
    err = document_write(d, dir, "node.toml", 0600, ret_text);
    free(d);
    return err;
}

/* The files of the node from the cluster's packed answer. */
static enum err take_reply(const Cairn__JoinToken *token, const struct cairn_packed *packed,
                           const struct cluster_options *options, const char *dir, uint32_t *ret_node, char *ret_text)
{
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err =
        proto_unpack(&cairn__node_join_reply__descriptor, slice_borrow(packed->data, packed->bytes), &arena, &message);
    CHECK(err == ERR_OK); /* it was packed in this process */
    const Cairn__NodeJoinReply *reply = message;
    err = reply_check(token, reply, ret_text);
    if (err == ERR_OK) {
        *ret_node = reply->node;
        err = write_node(token, reply, options, dir, ret_text);
    }
    proto_arena_deinit(&arena);
    return err;
}

static enum err join_make(const Cairn__JoinToken *token, const struct cluster_options *options, char *dir,
                          uint32_t *ret_node, char *ret_text)
{
    struct slice private_key = {0};
    struct cairn_packed packed = {0};
    enum err err = cluster_directory_take(options->dir, dir, ret_text);
    if (err == ERR_OK) {
        err = take_key(dir, &private_key, ret_text);
    }
    if (err == ERR_OK) {
        err = write_bearer(token, dir, ret_text);
    }
    if (err == ERR_OK) {
        err = ask(token, options, dir, private_key, &packed, ret_text);
    }
    if (err == ERR_OK) {
        err = take_reply(token, &packed, options, dir, ret_node, ret_text);
    }
    if (packed.data != NULL) {
        explicit_bzero(packed.data, packed.bytes);
    }
    free(packed.data);
    slice_wipe(&private_key);
    if (err == ERR_OK) {
        remove_bearer(dir);
    }
    return err;
}

/* The token itself, standard input for '-', a file for @FILE. */
static bool take_token(const char *given, char ret_text[TOKEN_TEXT_BYTES])
{
    FILE *file = strcmp(given, "-") == 0 ? stdin : given[0] == '@' ? fopen(given + 1, "re") : NULL;
    if (file == NULL) {
        bool text = given[0] != '@' && strlen(given) < TOKEN_TEXT_BYTES;
        snprintf(ret_text, TOKEN_TEXT_BYTES, "%s", text ? given : "");
        return text;
    }
    bool read = fgets(ret_text, TOKEN_TEXT_BYTES, file) != NULL;
    if (file != stdin) {
        fclose(file);
    }
    if (read) {
        ret_text[strcspn(ret_text, "\r\n ")] = '\0';
    }
    return read;
}

int cluster_join(struct cluster_options *options)
{
    char host[256], dir[PATH_MAX], text[DEV_TEXT_BYTES], token_text[TOKEN_TEXT_BYTES];
    struct proto_arena arena = {0};
    Cairn__JoinToken *token = NULL;
    if (options->token == NULL) {
        return cluster_usage("--token is missing; 'cairn admin token create' on a host of the cluster makes one");
    }
    if (!cluster_address_host(options->advertise, host, sizeof host)) {
        return cluster_usage("--listen and --advertise must be HOST:PORT");
    }
    if (!take_token(options->token, token_text) || token_decode(token_text, &arena, &token) != ERR_OK) {
        proto_arena_deinit(&arena);
        return cluster_usage("--token is no token, or not a whole one; 'cairn admin token create' makes one");
    }
    uint32_t node = 0;
    enum err err = join_make(token, options, dir, &node, text);
    bool metad = token->role == ROLE_METAD;
    explicit_bzero(token_text, sizeof token_text);
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        return cluster_fail(err, text);
    }
    printf("this is %s%u of the cluster; next:\n  %s --config %s/node.toml\n", metad ? "metad" : "blockd", node,
           metad ? "metad" : "blockd", dir);
    if (metad) {
        printf("  cairn admin node add metad%u     # where client.toml is\n", node);
    }
    return 0;
}
