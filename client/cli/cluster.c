/* `cairn admin cluster init|join`: a node's directory on a host of its own. Like cairn dev a tool that writes files:
 * keys, certificates, configurations; nothing is started.
 *
 *   init   DIR/ca.crt, cluster.key, bootstrap.toml, node.toml with node.key and node.crt (metad:1), client.toml with
 * its key and certificate (device:1, the root user). The authority's key is kept nowhere but in bootstrap.toml, wrapped
 * by the cluster key; from there the root group has it. join   DIR/node.key made here and never sent; the token's
 * bearer gets a certificate for it and what else such a node needs: ca.crt, node.crt, node.toml, and for a metadata
 * node cluster.key and bootstrap.toml. What was begun is gone on with when it is run again; node.toml is written last.
 *
 * Failures print one line "cairn admin cluster: WHAT; NEXT STEP". */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/authority.h"
#include "base/bytes.h"
#include "base/check.h"
#include "cairn.h"
#include "cli.h"
#include "dev.h"
#include "document.h"
#include "token.h"

#define CLUSTER_GROUPS 2
#define CLUSTER_STORES 64u
#define CAPACITY_BYTES (1ull << 30) /* least capacity told of a store */
#define KEY_FILE_BYTES 4096

static const char help_text[] =
    "usage: cairn admin cluster init --dir DIR --listen HOST:PORT [--advertise HOST:PORT] [--workspace W] [--pool P]\n"
    "                                [--stores N]\n"
    "       cairn admin cluster join --token TOKEN|-|@FILE --dir DIR --listen HOST:PORT [--advertise HOST:PORT]\n"
    "                                [--host H] [--rack R] [--store DIR]... [--capacity BYTES]\n"
    "\n"
    "  init   a new cluster: its authority and key, its first metadata node, and client.toml for the root user\n"
    "  join   this host becomes a node: gets its number and certificate with a token of 'cairn admin token create'\n"
    "\n"
    "  --dir DIR         the node's directory, new or empty\n"
    "  --listen H:P      where it listens\n"
    "  --advertise H:P   where others reach it (default: as it listens)\n"
    "  --workspace W     the first workspace (home)\n"
    "  --pool P          rs-K-M or rep-N (rs-4-2)\n"
    "  --stores N        chunks are placed once so many stores have registered (the pool's shards)\n"
    "  --token T         the token, '-' reads it from standard input, @FILE from a file\n"
    "  --host H          failure domain of a block server (this machine's name); --rack R (rack1)\n"
    "  --store DIR       a disk of a block server (DIR/store1); several times for several\n"
    "  --capacity BYTES  of each store (nine tenths of what is free there)\n"
    "\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 5 denied, 7 unavailable, 9 exists.\n";

struct cluster_options {
    const char *dir, *listen, *advertise, *workspace, *pool, *token, *host, *rack;
    const char *store[CLUSTER_STORES];
    uint32_t store_count, stores;
    uint64_t capacity_bytes;
};

static int fail(enum err err, const char *text)
{
    CHECK(err != ERR_OK);
    fprintf(stderr, "cairn admin cluster: %s (%s)\n", text, err_name(err));
    return err_exit_code(err);
}

static int usage(const char *text)
{
    fprintf(stderr, "cairn admin cluster: %s; see 'cairn admin cluster --help'\n", text);
    return err_exit_code(ERR_INVALID);
}

/* HOST of "HOST:PORT"; false when it is anything else. */
static bool address_host(const char *address, char *ret_host, size_t bytes)
{
    const char *colon = strrchr(address, ':');
    char *end = NULL;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    if (colon == NULL || colon == address || colon[1] < '0' || colon[1] > '9' || *end != '\0' || port < 1 ||
        port > 65535 || (size_t)(colon - address) >= bytes) {
        return false;
    }
    memcpy(ret_host, address, (size_t)(colon - address));
    ret_host[colon - address] = '\0';
    return true;
}

/* Makes DIR (0700); its absolute path. EXISTS when it holds a node. */
static enum err take_directory(const char *dir, char ret_dir[PATH_MAX], char *ret_text)
{
    char path[DEV_PATH_BYTES];
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        return dev_refuse(ERR_IO, ret_text, "%s: cannot be made: %s; make its parent first", dir, strerror(errno));
    }
    if (realpath(dir, ret_dir) == NULL) {
        return dev_refuse(ERR_IO, ret_text, "%s: %s", dir, strerror(errno));
    }
    snprintf(path, sizeof path, "%s/node.toml", ret_dir);
    if (access(path, F_OK) == 0) {
        return dev_refuse(ERR_EXISTS, ret_text, "%s holds a node already; start it, or name another directory", dir);
    }
    return ERR_OK;
}

/* What a configuration of a node or client begins with. */
static void add_identity(struct document *d, const char *dir, const char *role, uint32_t node,
                         const struct uuid *cluster, uint64_t incarnation, const char *base)
{
    document_string(d, "role", "%s", role);
    document_add(d, "node = %u\n", node);
    document_hex(d, "cluster", cluster, sizeof *cluster);
    document_add(d, "cluster_incarnation = %llu\n", (unsigned long long)incarnation);
    document_string(d, "ca", "%s/ca.crt", dir);
    document_string(d, "cert", "%s/%s.crt", dir, base);
    document_string(d, "key", "%s/%s.key", dir, base);
}

static void add_metads(struct document *d, char *const *metads, size_t count)
{
    document_add(d, "metads = [");
    for (size_t i = 0; i < count; i++) {
        document_add(d, i > 0 ? ", " : "");
        document_quoted(d, metads[i]);
    }
    document_add(d, "]\n");
}

static void add_metad(struct document *d, const char *dir, uint32_t groups)
{
    document_string(d, "data", "%s/data", dir);
    document_string(d, "cluster_key", "%s/cluster.key", dir);
    document_string(d, "bootstrap", "%s/bootstrap.toml", dir);
    document_add(d, "groups = %u\n", groups);
}

/* ---- init ---- */

/* Shards of a pool; 0 when the name is malformed. */
static uint32_t pool_shards(const char *pool)
{
    unsigned k = 0, m = 0;
    int end = 0;
    if (sscanf(pool, "rs-%2u-%2u%n", &k, &m, &end) == 2 && pool[end] == '\0' && k >= 1 && m >= 1 &&
        k + m <= LIMIT_SHARDS) {
        return k + m;
    }
    return sscanf(pool, "rep-%2u%n", &k, &end) == 1 && pool[end] == '\0' && k >= 1 && k <= LIMIT_SHARDS ? k : 0;
}

static enum err init_configurations(const struct cluster_options *options, const char *dir, const struct uuid *cluster,
                                    char *ret_text)
{
    char first[300], *metads[] = {first};
    snprintf(first, sizeof first, "1@%s", options->advertise);
    struct document *d = mem_alloc(sizeof *d);
    add_identity(d, dir, "device", 1, cluster, 0, "client");
    document_string(d, "user", "root");
    document_string(d, "workspace", "%s", options->workspace);
    add_metads(d, metads, 1);
    document_string(d, "keys", "%s/client.keys", dir);
    enum err err = document_write(d, dir, "client.toml", 0600, ret_text);
    if (err == ERR_OK) {
        *d = (struct document){0};
        add_identity(d, dir, "metad", 1, cluster, 1, "node");
        document_string(d, "listen", "%s", options->listen);
        document_string(d, "advertise", "%s", options->advertise);
        add_metads(d, metads, 1);
        add_metad(d, dir, CLUSTER_GROUPS);
        err = document_write(d, dir, "node.toml", 0600, ret_text);
    }
    free(d);
    return err;
}

static enum err init_make(const struct cluster_options *options, const char *host, char *dir, char *ret_text)
{
    struct authority *authority = NULL;
    struct dev_bootstrap bootstrap = {.incarnation = 1,
                                      .metads = 1,
                                      .stores = options->stores,
                                      .pool = options->pool,
                                      .workspace = options->workspace};
    enum err err = take_directory(options->dir, dir, ret_text);
    if (err == ERR_OK && getrandom(&bootstrap.cluster, sizeof bootstrap.cluster, 0) != sizeof bootstrap.cluster) {
        err = dev_refuse(ERR_IO, ret_text, "no random bytes: %s", strerror(errno));
    }
    if (err == ERR_OK) {
        err = dev_authority_create(dir, false, &authority, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = dev_certificate_make(authority, dir, "client", "device:1", NULL, &bootstrap.bearer, ret_text);
    if (err == ERR_OK) {
        err = dev_certificate_make(authority, dir, "node", "metad:1", host, NULL, ret_text);
    }
    if (err == ERR_OK) {
        err = dev_bootstrap_make(dir, &bootstrap, authority, ret_text);
    }
    authority_destroy(authority);
    return err == ERR_OK ? init_configurations(options, dir, &bootstrap.cluster, ret_text) : err;
}

static int cluster_init(struct cluster_options *options)
{
    char host[256], dir[PATH_MAX], text[DEV_TEXT_BYTES];
    uint32_t shards = pool_shards(options->pool);
    if (options->token != NULL || options->store_count > 0 || options->capacity_bytes > 0) {
        return usage("--token, --store and --capacity belong to 'join'");
    }
    if (shards == 0) {
        return usage("--pool is not rs-K-M or rep-N");
    }
    if (options->workspace[0] == '\0' || strlen(options->workspace) > 63 || strpbrk(options->workspace, ":/") != NULL) {
        return usage("--workspace must have 1 to 63 bytes without ':' and '/'");
    }
    options->stores = options->stores > 0 ? options->stores : shards;
    if (!address_host(options->advertise, host, sizeof host)) {
        return usage("--listen and --advertise must be HOST:PORT");
    }
    enum err err = init_make(options, host, dir, text);
    if (err != ERR_OK) {
        return fail(err, text);
    }
    printf("a cluster in %s; keep a copy of %s/cluster.key: losing it loses every file. Next:\n", dir, dir);
    printf("  metad --config %s/node.toml &\n  export CAIRN_CONFIG=%s/client.toml\n", dir, dir);
    printf("  cairn admin token create --role blockd     # one for each of %u stores' servers; then join there\n",
           options->stores);
    return 0;
}

/* ---- join ---- */

/* DIR/node.key, made unless it is there: who joins again must come with the same key. */
static enum err take_key(const char *dir, struct slice *ret_public, char *ret_text)
{
    char path[DEV_PATH_BYTES], *text = mem_alloc(KEY_FILE_BYTES);
    struct slice private_key = {0};
    snprintf(path, sizeof path, "%s/node.key", dir);
    FILE *file = fopen(path, "re");
    enum err err = ERR_OK;
    if (file != NULL) {
        size_t bytes = fread(text, 1, KEY_FILE_BYTES, file);
        fclose(file);
        err = pem_decode("PRIVATE KEY", slice_borrow((uint8_t *)text, bytes), &private_key);
        if (err == ERR_OK) {
            err = identity_public(private_key, ret_public);
        }
        if (err != ERR_OK) {
            err = dev_refuse(ERR_CORRUPT, ret_text, "%s holds no key; remove it and run this again", path);
        }
    } else if (identity_create(&private_key, ret_public) != ERR_OK) {
        err = dev_refuse(ERR_INTERNAL, ret_text, "no key can be made");
    } else {
        err = dev_pem_write(dir, "node.key", "PRIVATE KEY", private_key, 0600, ret_text);
    }
    slice_wipe(&private_key);
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
    add_identity(d, dir, "join", token->token, &cluster, token->cluster_incarnation, "join");
    add_metads(d, token->metads, token->n_metads);
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
                    struct slice public_key, struct cairn_packed *ret_reply, char *ret_text)
{
    char path[DEV_PATH_BYTES];
    struct cairn *cairn = NULL;
    struct cairn_error error = {0};
    snprintf(path, sizeof path, "%s/join.toml", dir);
    const struct cairn_options open = {.config_file = path};
    int code = cairn_open(&open, &cairn, &error);
    if (code == 0) {
        code = cairn_node_join(cairn, token->role == ROLE_METAD ? "metad" : "blockd", public_key.data, public_key.bytes,
                               options->advertise, ret_reply, &error);
    }
    cairn_close(cairn);
    return code == 0 ? ERR_OK : dev_refuse((enum err)code, ret_text, "%s", error.text);
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
        err = reply->bootstrap != NULL ? write_bootstrap(dir, token, reply->bootstrap, ret_text) : ERR_BAD_PROTO;
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
    add_identity(d, dir, metad ? "metad" : "blockd", reply->node, &cluster, token->cluster_incarnation, "node");
    document_string(d, "listen", "%s", options->listen);
    document_string(d, "advertise", "%s", options->advertise);
    add_metads(d, metads, count);
    if (metad) {
        add_metad(d, dir, reply->groups);
    } else {
        add_blockd(d, options, dir);
    }
    err = document_write(d, dir, "node.toml", 0600, ret_text);
    free(d);
    return err;
}

static enum err join_make(const Cairn__JoinToken *token, const struct cluster_options *options, char *dir,
                          uint32_t *ret_node, char *ret_text)
{
    struct slice public_key = {0};
    struct cairn_packed packed = {0};
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err = take_directory(options->dir, dir, ret_text);
    if (err == ERR_OK) {
        err = take_key(dir, &public_key, ret_text);
    }
    if (err == ERR_OK) {
        err = write_bearer(token, dir, ret_text);
    }
    if (err == ERR_OK) {
        err = ask(token, options, dir, public_key, &packed, ret_text);
    }
    if (err == ERR_OK) {
        err = proto_unpack(&cairn__node_join_reply__descriptor, slice_borrow(packed.data, packed.bytes), &arena,
                           &message);
        CHECK(err == ERR_OK);
        const Cairn__NodeJoinReply *reply = message;
        *ret_node = reply->node;
        err = write_node(token, reply, options, dir, ret_text);
    }
    if (packed.data != NULL) {
        explicit_bzero(packed.data, packed.bytes);
    }
    free(packed.data);
    proto_arena_deinit(&arena);
    slice_drop(&public_key);
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

static int cluster_join(struct cluster_options *options)
{
    char host[256], dir[PATH_MAX], text[DEV_TEXT_BYTES], token_text[TOKEN_TEXT_BYTES];
    struct proto_arena arena = {0};
    Cairn__JoinToken *token = NULL;
    if (options->token == NULL) {
        return usage("--token is missing; 'cairn admin token create' on a host of the cluster makes one");
    }
    if (!address_host(options->advertise, host, sizeof host)) {
        return usage("--listen and --advertise must be HOST:PORT");
    }
    if (!take_token(options->token, token_text) || token_decode(token_text, &arena, &token) != ERR_OK) {
        proto_arena_deinit(&arena);
        return usage("--token is no token, or not a whole one; 'cairn admin token create' makes one");
    }
    uint32_t node = 0;
    enum err err = join_make(token, options, dir, &node, text);
    bool metad = token->role == ROLE_METAD;
    explicit_bzero(token_text, sizeof token_text);
    proto_arena_deinit(&arena);
    if (err != ERR_OK) {
        return fail(err, text);
    }
    printf("this is %s%u of the cluster; next:\n  %s --config %s/node.toml\n", metad ? "metad" : "blockd", node,
           metad ? "metad" : "blockd", dir);
    if (metad) {
        printf("  cairn admin node add metad%u     # where client.toml is\n", node);
    }
    return 0;
}

/* ---- options ---- */

static const struct option long_options[] = {
    {"dir", required_argument, NULL, 'd'},
    {"listen", required_argument, NULL, 'l'},
    {"advertise", required_argument, NULL, 'a'},
    {"workspace", required_argument, NULL, 'w'},
    {"pool", required_argument, NULL, 'p'},
    {"stores", required_argument, NULL, 'n'},
    {"token", required_argument, NULL, 't'},
    {"host", required_argument, NULL, 'H'},
    {"rack", required_argument, NULL, 'r'},
    {"store", required_argument, NULL, 's'},
    {"capacity", required_argument, NULL, 'c'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static bool take_number(const char *text, uint64_t most, uint64_t *ret)
{
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    *ret = value;
    return text[0] >= '1' && text[0] <= '9' && *end == '\0' && value <= most;
}

static bool take_option(struct cluster_options *options, int letter)
{
    uint64_t number = 0;
    const char **texts[256] = {
        ['d'] = &options->dir,  ['l'] = &options->listen, ['a'] = &options->advertise, ['w'] = &options->workspace,
        ['p'] = &options->pool, ['t'] = &options->token,  ['H'] = &options->host,      ['r'] = &options->rack};
    switch (letter) {
    case 'n':
        if (!take_number(optarg, LIMIT_STORES, &number)) {
            return false;
        }
        options->stores = (uint32_t)number;
        return true;
    case 'c':
        return take_number(optarg, INT64_MAX, &options->capacity_bytes);
    case 's':
        if (options->store_count == CLUSTER_STORES || optarg[0] != '/') {
            return false;
        }
        options->store[options->store_count++] = optarg;
        return true;
    default:
        if (letter < 0 || letter > 255 || texts[letter] == NULL) {
            return false;
        }
        *texts[letter] = optarg;
        return true;
    }
}

int cli_admin_cluster(int argc, char **argv)
{
    struct cluster_options options = {.workspace = "home", .pool = "rs-4-2", .rack = "rack1"};
    optind = 1;
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "h", long_options, NULL)) != -1;) {
        if (letter == 'h') {
            fputs(help_text, stdout);
            return 0;
        }
        if (!take_option(&options, letter)) {
            return usage("an unknown option, or a value that is missing or out of bounds");
        }
    }
    if (optind + 1 != argc) {
        return usage("write 'init' or 'join'");
    }
    bool init = strcmp(argv[optind], "init") == 0;
    if (!init && strcmp(argv[optind], "join") != 0) {
        return usage("write 'init' or 'join'");
    }
    if (options.dir == NULL || options.listen == NULL) {
        return usage("--dir and --listen are missing");
    }
    options.advertise = options.advertise != NULL ? options.advertise : options.listen;
    return init ? cluster_init(&options) : cluster_join(&options);
}
