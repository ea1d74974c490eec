/* `cairn dev up|ps|kill|start|down`: the command, its options and what it prints. See dev.h for the directory and the
 * parts. Failures print one line "cairn dev: WHAT; NEXT STEP" and exit by base/err.def. */
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "cli.h"
#include "dev.h"

#define DEV_SERVE_MS 60000
#define DEV_KILL_MS  10000
#define DEV_TERM_MS  15000

static const char help_text[] =
    "usage: cairn dev COMMAND --dir DIR\n"
    "\n"
    "A whole cluster on this machine, in one directory.\n"
    "\n"
    "  up             make the cluster in a new or empty directory, or start what is not running; returns when it "
    "serves\n"
    "    --metad N    metadata nodes, 1 to 9 (3)\n"
    "    --blockd N   block servers, 1 to 64 (6)\n"
    "    --stores N   stores of each block server, 1 to 16 (1)\n"
    "    --pool P     rs-K-M (K data and M parity shards) or rep-N (N copies) (rs-4-2)\n"
    "    --racks N    racks the block servers stand in (1)\n"
    "    --port P     first of a row of ports; otherwise free ones are taken once and kept\n"
    "  ps             one line a node: name, role, pid, address, data directory, alive\n"
    "  kill NAME      end a node at once (SIGKILL), as a crash would\n"
    "  start NAME     start a node again\n"
    "  down           end all nodes in order\n"
    "\n"
    "  --dir DIR      the cluster's directory\n"
    "  --json         one JSON object a line\n"
    "\n"
    "DIR/client.toml is what other commands take as --config or CAIRN_CONFIG.\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 5 denied, 7 unavailable.\n";

struct dev_options {
    const char *dir;
    const char *pool;
    bool json;
    bool shape; /* one of the options that only a new cluster takes was given */
    uint32_t metads, blockds, stores, racks, port;
    const char *name; /* of kill and start */
};

static int fail(enum err err, const char *text)
{
    CHECK(err != ERR_OK);
    fprintf(stderr, "cairn dev: %s (%s)\n", text, err_name(err));
    return err_exit_code(err);
}

void dev_print_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            fprintf(out, "\\%c", *c);
        } else if (*c < 0x20) {
            fprintf(out, "\\u%04x", *c);
        } else {
            fputc(*c, out);
        }
    }
    fputc('"', out);
}

/* A number within bounds; false otherwise. */
static bool parse_count(const char *text, uint32_t min, uint32_t max, uint32_t *ret_count)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < min || value > max) {
        return false;
    }
    *ret_count = (uint32_t)value;
    return true;
}

/* Shards of a pool, each on a host of its own; 0 when the name is malformed. */
static uint32_t pool_hosts(const char *pool)
{
    unsigned k, m;
    int end = 0;
    if (sscanf(pool, "rs-%2u-%2u%n", &k, &m, &end) == 2 && !pool[end] && k >= 1 && m >= 1 && k + m <= LIMIT_SHARDS) {
        return k + m;
    }
    if (sscanf(pool, "rep-%2u%n", &k, &end) == 1 && !pool[end] && k >= 1 && k <= LIMIT_SHARDS) {
        return k;
    }
    return 0;
}

static enum err check_shape(const struct dev_options *options, char *ret_text)
{
    uint32_t hosts = pool_hosts(options->pool);
    if (hosts == 0) {
        snprintf(ret_text, DEV_TEXT_BYTES, "--pool %s is not rs-K-M or rep-N with at most %d shards", options->pool,
                 LIMIT_SHARDS);
        return ERR_INVALID;
    }
    if (hosts > options->blockds) {
        snprintf(ret_text, DEV_TEXT_BYTES, "pool %s needs %u block servers, --blockd gives %u; choose a smaller --pool",
                 options->pool, hosts, options->blockds);
        return ERR_INVALID;
    }
    if (options->port && options->port + options->metads + options->blockds > 65536) {
        snprintf(ret_text, DEV_TEXT_BYTES, "--port %u leaves no room for %u ports", options->port,
                 options->metads + options->blockds);
        return ERR_INVALID;
    }
    return ERR_OK;
}

/* Starts each node that is not alive. Offsets as dev_wait_serving takes them. */
static enum err start_nodes(const struct dev_cluster *cluster, uint64_t *log_offset, char *ret_text)
{
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        log_offset[i] = UINT64_MAX;
    }
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (dev_process_of(&node).alive) {
            continue;
        }
        log_offset[i] = dev_log_bytes(&node);
        enum err err = dev_process_start(&node, ret_text);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

/* SIGTERM to all, then waiting for each; who does not go is killed. `only`: those with an offset, or NULL for all. */
static enum err stop_nodes(const struct dev_cluster *cluster, const uint64_t *only, char *ret_text)
{
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (!only || only[i] != UINT64_MAX) {
            dev_process_signal(&node, SIGTERM);
        }
    }
    enum err first = ERR_OK;
    char text[DEV_TEXT_BYTES];
    for (uint32_t i = 0; i < dev_node_count(cluster); i++) {
        struct dev_node node = dev_node_at(cluster, i);
        if (only && only[i] == UINT64_MAX) {
            continue;
        }
        enum err err = dev_process_stop(&node, 0, DEV_TERM_MS, text);
        if (err == ERR_TIMEOUT) {
            fprintf(stderr, "cairn dev: %s does not end on SIGTERM, killing it\n", node.name);
            err = dev_process_stop(&node, SIGKILL, DEV_KILL_MS, text);
        }
        if (err != ERR_OK && first == ERR_OK) {
            first = err;
            memcpy(ret_text, text, sizeof text);
        }
    }
    return first;
}

static void print_up(const struct dev_cluster *cluster, bool json, double seconds)
{
    if (json) {
        printf("{\"dir\":");
        dev_print_json_string(stdout, cluster->dir);
        printf(",\"config\":");
        char path[DEV_PATH_BYTES];
        snprintf(path, sizeof path, "%s/client.toml", cluster->dir);
        dev_print_json_string(stdout, path);
        printf(",\"nodes\":%u,\"seconds\":%.3f}\n", dev_node_count(cluster), seconds);
        return;
    }
    printf("%u metadata nodes and %u block servers serve after %.1f s; next:\n", cluster->metads, cluster->blockds,
           seconds);
    printf("  export CAIRN_CONFIG=%s/client.toml\n  cairn ls %s:/\n", cluster->dir, cluster->workspace);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool differs(const struct dev_cluster *cluster, const struct dev_options *options)
{
    return cluster->metads != options->metads || cluster->blockds != options->blockds ||
           cluster->stores != options->stores || cluster->racks != options->racks ||
           strcmp(cluster->pool, options->pool) != 0 || (options->port && options->port != cluster->ports[0]);
}

/* Loads the cluster, or makes it from the options. */
static enum err load_or_make(struct dev_cluster *cluster, const struct dev_options *options, char *ret_text)
{
    enum err err = dev_cluster_load(cluster, options->dir, ret_text);
    if (err == ERR_OK && options->shape && differs(cluster, options)) {
        fprintf(stderr, "cairn dev: %s holds a cluster already; it keeps its shape\n", cluster->dir);
    }
    if (err != ERR_NOT_FOUND) {
        return err;
    }
    err = check_shape(options, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    cluster->metads = options->metads;
    cluster->blockds = options->blockds;
    cluster->stores = options->stores;
    cluster->racks = options->racks;
    cluster->port = options->port;
    snprintf(cluster->pool, sizeof cluster->pool, "%s", options->pool);
    snprintf(cluster->workspace, sizeof cluster->workspace, "home");
    return dev_cluster_make(cluster, ret_text);
}

static int dev_up(const struct dev_options *options)
{
    struct dev_cluster cluster = {.lock_fd = -1};
    char text[DEV_TEXT_BYTES];
    double begin = seconds_now();
    enum err err = dev_directory_lock(&cluster, options->dir, true, text);
    if (err == ERR_OK) {
        err = load_or_make(&cluster, options, text);
    }
    if (err != ERR_OK) {
        return fail(err, text);
    }
    uint64_t log_offset[DEV_NODES];
    err = start_nodes(&cluster, log_offset, text);
    if (err == ERR_OK) {
        err = dev_wait_serving(&cluster, log_offset, DEV_SERVE_MS, text);
    }
    if (err != ERR_OK) {
        char ignored[DEV_TEXT_BYTES];
        (void)!stop_nodes(&cluster, log_offset, ignored);
        return fail(err, text);
    }
    print_up(&cluster, options->json, seconds_now() - begin);
    return 0;
}

static void print_node(const struct dev_node *node, bool json)
{
    struct dev_process process = dev_process_of(node);
    const char *role = node->role == DEV_METAD ? "metad" : "blockd";
    char data_dir[DEV_PATH_BYTES + 16];
    snprintf(data_dir, sizeof data_dir, "%s/%s", node->dir, node->role == DEV_METAD ? "data" : "store1");
    if (json) {
        printf("{\"name\":\"%s\",\"role\":\"%s\",\"pid\":", node->name, role);
        process.alive ? (void)printf("%d", (int)process.pid) : (void)printf("null");
        printf(",\"addr\":\"127.0.0.1:%u\",\"data_dir\":", node->port);
        dev_print_json_string(stdout, data_dir);
        printf(",\"alive\":%s}\n", process.alive ? "true" : "false");
        return;
    }
    printf("%-10s %-7s %8d  127.0.0.1:%-5u  %-5s  %s\n", node->name, role, process.alive ? (int)process.pid : 0,
           node->port, process.alive ? "alive" : "dead", data_dir);
}

static int dev_ps(const struct dev_options *options)
{
    struct dev_cluster cluster = {.lock_fd = -1};
    char text[DEV_TEXT_BYTES];
    enum err err = dev_cluster_load(&cluster, options->dir, text);
    if (err != ERR_OK) {
        return fail(err, text);
    }
    for (uint32_t i = 0; i < dev_node_count(&cluster); i++) {
        struct dev_node node = dev_node_at(&cluster, i);
        print_node(&node, options->json);
    }
    return 0;
}

/* Locks and loads the cluster and finds the node the command names. */
static enum err open_node(const struct dev_options *options, struct dev_cluster *cluster, struct dev_node *ret_node,
                          char *ret_text)
{
    enum err err = dev_directory_lock(cluster, options->dir, false, ret_text);
    if (err == ERR_OK) {
        err = dev_cluster_load(cluster, options->dir, ret_text);
    }
    if (err == ERR_OK) {
        err = dev_node_find(cluster, options->name, ret_node);
        if (err != ERR_OK) {
            snprintf(ret_text, DEV_TEXT_BYTES, "no node %s; 'cairn dev ps --dir %s' lists them", options->name,
                     options->dir);
        }
    }
    return err;
}

static int dev_kill(const struct dev_options *options)
{
    struct dev_cluster cluster = {.lock_fd = -1};
    struct dev_node node;
    char text[DEV_TEXT_BYTES];
    enum err err = open_node(options, &cluster, &node, text);
    if (err == ERR_OK) {
        err = dev_process_stop(&node, SIGKILL, DEV_KILL_MS, text);
    }
    return err == ERR_OK ? 0 : fail(err, text);
}

static int dev_start(const struct dev_options *options)
{
    struct dev_cluster cluster = {.lock_fd = -1};
    struct dev_node node;
    char text[DEV_TEXT_BYTES];
    enum err err = open_node(options, &cluster, &node, text);
    if (err == ERR_OK && dev_process_of(&node).alive) {
        return 0;
    }
    uint64_t log_offset[DEV_NODES];
    for (uint32_t i = 0; err == ERR_OK && i < dev_node_count(&cluster); i++) {
        struct dev_node each = dev_node_at(&cluster, i);
        log_offset[i] = strcmp(each.name, node.name) == 0 ? dev_log_bytes(&each) : UINT64_MAX;
    }
    if (err == ERR_OK) {
        err = dev_process_start(&node, text);
    }
    if (err == ERR_OK) {
        err = dev_wait_listening(&cluster, log_offset, DEV_SERVE_MS, text);
    }
    return err == ERR_OK ? 0 : fail(err, text);
}

static int dev_down(const struct dev_options *options)
{
    struct dev_cluster cluster = {.lock_fd = -1};
    char text[DEV_TEXT_BYTES];
    enum err err = dev_directory_lock(&cluster, options->dir, false, text);
    if (err == ERR_OK) {
        err = dev_cluster_load(&cluster, options->dir, text);
    }
    if (err == ERR_OK) {
        err = stop_nodes(&cluster, NULL, text);
    }
    return err == ERR_OK ? 0 : fail(err, text);
}

struct dev_command {
    const char *name;
    int (*run)(const struct dev_options *options);
    bool takes_name;
    bool takes_shape;
};

static const struct dev_command commands[] = {
    {"up", dev_up, false, true},       {"ps", dev_ps, false, false},     {"kill", dev_kill, true, false},
    {"start", dev_start, true, false}, {"down", dev_down, false, false},
};

static const struct option long_options[] = {
    {"dir", required_argument, NULL, 'd'},    {"metad", required_argument, NULL, 'm'},
    {"blockd", required_argument, NULL, 'b'}, {"stores", required_argument, NULL, 's'},
    {"pool", required_argument, NULL, 'p'},   {"racks", required_argument, NULL, 'r'},
    {"port", required_argument, NULL, 'P'},   {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
};

static int usage(const char *text)
{
    fprintf(stderr, "cairn dev: %s; see 'cairn dev --help'\n", text);
    return err_exit_code(ERR_INVALID);
}

/* One option that shapes a new cluster. */
static bool take_shape(struct dev_options *options, int letter, const char *value)
{
    options->shape = true;
    switch (letter) {
    case 'm':
        return parse_count(value, 1, DEV_METADS, &options->metads);
    case 'b':
        return parse_count(value, 1, DEV_BLOCKDS, &options->blockds);
    case 's':
        return parse_count(value, 1, DEV_STORES, &options->stores);
    case 'r':
        return parse_count(value, 1, DEV_BLOCKDS, &options->racks);
    case 'P':
        return parse_count(value, 1, 65535, &options->port);
    default:
        options->pool = value;
        return true;
    }
}

/* Options behind the command's name: -1 to go on, else the exit code. */
static int take_options(int argc, char **argv, struct dev_options *options)
{
    optind = 1;
    for (;;) {
        int letter = getopt_long(argc, argv, "h", long_options, NULL);
        if (letter == -1) {
            return -1;
        }
        if (letter == 'h') {
            fputs(help_text, stdout);
            return 0;
        }
        if (letter == '?') {
            return usage("unknown option or a value is missing");
        }
        if (letter == 'd') {
            options->dir = optarg;
        } else if (letter == 'j') {
            options->json = true;
        } else if (!take_shape(options, letter, optarg)) {
            char text[DEV_TEXT_BYTES];
            snprintf(text, sizeof text, "'%s' is out of bounds", optarg);
            return usage(text);
        }
    }
}

int cli_dev(int argc, char **argv)
{
    struct dev_options options = {.pool = "rs-4-2", .metads = 3, .blockds = 6, .stores = 1, .racks = 1};
    int code = take_options(argc, argv, &options);
    if (code >= 0) {
        return code;
    }
    if (optind >= argc) {
        return usage("a command is missing");
    }
    const char *name = argv[optind++];
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const struct dev_command *command = &commands[i];
        if (strcmp(command->name, name) != 0) {
            continue;
        }
        if (!options.dir) {
            return usage("--dir is missing");
        }
        if (options.shape && !command->takes_shape) {
            return usage("an option belongs to 'up' only");
        }
        if (command->takes_name && optind < argc) {
            options.name = argv[optind++];
        }
        if (command->takes_name != (options.name != NULL) || optind < argc) {
            return usage(command->takes_name ? "give one node's name, as 'cairn dev ps' prints it"
                                             : "too many arguments");
        }
        return command->run(&options);
    }
    char text[DEV_TEXT_BYTES];
    snprintf(text, sizeof text, "no command '%s'", name);
    return usage(text);
}
