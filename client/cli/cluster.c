/* `cairn admin cluster`: a node's directory on a host of its own. The commands' options and what they share. Like cairn
 * dev a tool that writes files: keys, certificates, configurations; nothing is started. Parts: cluster_init.c,
 * cluster_join.c, cluster_recover.c.
 *
 * Failures print one line "cairn admin cluster: WHAT; NEXT STEP". */
#include "cluster.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "cli.h"

static const char help_text[] =
    "usage: cairn admin cluster init --dir DIR --listen HOST:PORT [--advertise HOST:PORT] [--workspace W] [--pool P]\n"
    "                                [--stores N]\n"
    "       cairn admin cluster join --token TOKEN|-|@FILE --dir DIR --listen HOST:PORT [--advertise HOST:PORT]\n"
    "                                [--host H] [--rack R] [--store DIR]... [--capacity BYTES]\n"
    "       cairn admin cluster recover --dir DIR [--unsafe-lose-majority]\n"
    "\n"
    "  init   a new cluster: its authority and key, its first metadata node, and client.toml for the root user\n"
    "  join   this host becomes a node: gets its number and certificate with a token of 'cairn admin token create'\n"
    "  recover  the majority of the metadata nodes is lost for good: the one in DIR, which is not running, goes on "
    "alone\n"
    "           in a new incarnation. Says what would be lost; does it with --unsafe-lose-majority only\n"
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

int cluster_fail(enum err err, const char *text)
{
    CHECK(err != ERR_OK);
    fprintf(stderr, "cairn admin cluster: %s (%s)\n", text, err_name(err));
    return err_exit_code(err);
}

int cluster_usage(const char *text)
{
    fprintf(stderr, "cairn admin cluster: %s; see 'cairn admin cluster --help'\n", text);
    return err_exit_code(ERR_INVALID);
}

/* HOST of "HOST:PORT"; false when it is anything else. */
bool cluster_address_host(const char *address, char *ret_host, size_t bytes)
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
enum err cluster_directory_take(const char *dir, char ret_dir[PATH_MAX], char *ret_text)
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
void document_add_identity(struct document *d, const char *dir, const char *role, uint32_t node,
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

void document_add_metads(struct document *d, char *const *metads, size_t count)
{
    document_add(d, "metads = [");
    for (size_t i = 0; i < count; i++) {
        document_add(d, i > 0 ? ", " : "");
        document_quoted(d, metads[i]);
    }
    document_add(d, "]\n");
}

void document_add_metad(struct document *d, const char *dir, uint32_t groups)
{
    document_string(d, "data", "%s/data", dir);
    document_string(d, "cluster_key", "%s/cluster.key", dir);
    document_string(d, "bootstrap", "%s/bootstrap.toml", dir);
    document_add(d, "groups = %u\n", groups);
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
    {"unsafe-lose-majority", no_argument, NULL, 'U'},
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
    case 'U':
        options->unsafe_lose_majority = true;
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
            return cluster_usage("an unknown option, or a value that is missing or out of bounds");
        }
    }
    const char *command = optind + 1 == argc ? argv[optind] : "";
    bool init = strcmp(command, "init") == 0, recover = strcmp(command, "recover") == 0;
    if (!init && !recover && strcmp(command, "join") != 0) {
        return cluster_usage("write 'init', 'join' or 'recover'");
    }
    if (recover) {
        return cluster_recover(&options);
    }
    if (options.unsafe_lose_majority) {
        return cluster_usage("--unsafe-lose-majority belongs to 'recover'");
    }
    if (options.dir == NULL || options.listen == NULL) {
        return cluster_usage("--dir and --listen are missing");
    }
    options.advertise = options.advertise != NULL ? options.advertise : options.listen;
    return init ? cluster_init(&options) : cluster_join(&options);
}
