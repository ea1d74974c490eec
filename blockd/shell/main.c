/* The block server's program: from a configuration file to running actors. Connections live on the network loops, the
 * agent on the first of them; each store has a loop of its own, so that a dying disk stalls itself only.
 *
 * Happy path: read and check the configuration, make the runtime (certificates), take each store's directory, open its
 * index, make the actors, listen, say so, run until SIGTERM. SIGHUP: certificates, addresses and limits anew.
 * How it fails: one fatal line in the log and on stderr, and the code's exit code. An index that cannot be opened is no
 * failure: it is dropped and rebuilt from the segments. */
#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "blockd/blockd.h"
#include "config.h"
#include "io/log.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/version.h"

#define BLOCKD_HEARTBEAT_NS      1000000000ull
#define BLOCKD_PATH_BYTES        (CONFIG_STRING_BYTES + 32)
#define MAP_NODE_GONE            2u         /* MapNode.state */
#define BLOCKD_SEGMENTS_MIN      8u         /* a small store has segments of an eighth of it */
#define BLOCKD_SEGMENT_BYTES_MIN (8u << 20) /* room for the longest record */

static const char help_text[] =
    "usage: blockd --config FILE [--check-config] [--rebuild-index]\n"
    "\n"
    "A block server of a Cairn cluster. Runs until SIGTERM.\n"
    "\n"
    "  --config FILE    the server's configuration ('cairn dev up' writes one)\n"
    "  --check-config   read everything the configuration names, say whether it is right, and end\n"
    "  --rebuild-index  drop the index of each store and rebuild it from the segments\n"
    "  --version        what this build reads and writes\n"
    "  --help           this\n"
    "\n"
    "SIGTERM: answer what it took, end (a second one: at once). SIGHUP: read certificates, addresses and limits anew.\n"
    "Everything it says is a JSON line in the log (stderr unless 'log' names a file).\n"
    "Exit codes: 0 ok, 1 failed, 2 usage or configuration.\n";

struct blockd_store {
    int lock_fd;
    struct file_info *files;
    struct runtime_kv *kv;
    struct store *store;
    struct store_repair repair;          /* as it was logged */
    uint64_t standing_written;           /* agent_standing_changes when it was */
    _Atomic uint64_t refused[ERR_LIMIT]; /* by reason: the store's thread writes, the agent's reads */
};

/* All that lives while the server runs, in the order it is made. */
struct blockd {
    const char *path; /* of the configuration */
    struct blockd_config config;
    struct runtime *runtime;
    struct blockd_store stores[BLOCKD_STORES_MAX];
    struct agent *agent;
    uint64_t addresses_epoch; /* of the map whose addresses are known */
    atomic_bool follows;      /* a newer incarnation of the cluster: it starts anew in it */
};

static int fail(enum err err, const char *text)
{
    CHECK(err != ERR_OK);
    io_log(LOG_FATAL, err, "%s", text);
    return err_exit_code(err);
}

static struct runtime_config runtime_config_of(const struct blockd_config *config)
{
    return (struct runtime_config){
        .role = ROLE_BLOCKD,
        .id = config->node,
        .ca_file = config->ca,
        .cert_file = config->cert,
        .key_file = config->key,
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .loops = config->loops + config->stores.count,
        .network_loops = config->loops,
        .workers = config->workers,
        .log_file = config->log,
        .max_connections = config->max_connections,
    };
}

static void set_addresses(struct runtime *runtime, const struct blockd_config *config)
{
    for (uint32_t i = 0; i < config->metad_count; i++) {
        const struct blockd_peer *peer = &config->metads[i];
        runtime_set_address(runtime, ROLE_METAD, peer->node, peer->host, peer->port);
    }
}

static enum err make_runtime(struct blockd *blockd, char *ret_text)
{
    const struct runtime_config config = runtime_config_of(&blockd->config);
    enum err err = runtime_create(&config, &blockd->runtime, ret_text);
    if (err == ERR_OK) {
        set_addresses(blockd->runtime, &blockd->config);
    }
    return err;
}

/* SIGHUP: what may change while the server runs is taken, the rest must be as it was at the start. */
static void blockd_reload(void *context)
{
    struct blockd *blockd = context;
    struct blockd_config fresh = {0};
    char text[BLOCKD_TEXT_BYTES] = "";
    enum err err = blockd_config_read(blockd->path, &fresh, text);
    if (err == ERR_OK) {
        err = blockd_config_fixed(&blockd->config, &fresh, blockd->path, text);
    }
    if (err == ERR_OK) {
        const struct runtime_config config = runtime_config_of(&fresh);
        err = runtime_reload(blockd->runtime, &config, text);
    }
    if (err == ERR_OK) {
        set_addresses(blockd->runtime, &fresh);
        io_log(LOG_INFO, ERR_OK, "%s read anew: %s; max_connections %u, was %u", blockd->path, text,
               fresh.max_connections, blockd->config.max_connections);
        blockd->config.max_connections = fresh.max_connections;
    } else {
        io_log(LOG_ERROR, err, "nothing was changed: %s", text);
    }
    blockd_config_deinit(&fresh);
}

/* The index is a cache of the segments (R-A4): one that cannot be opened is dropped. */
static enum err open_index(struct blockd *blockd, uint32_t position, bool *rebuild, char *ret_text)
{
    const char *dir = blockd->config.stores.items[position];
    struct runtime_kv **kv = &blockd->stores[position].kv;
    if (!*rebuild) {
        enum err err = runtime_kv_open(blockd->runtime, dir, kv, ret_text);
        if (err == ERR_OK) {
            return ERR_OK;
        }
        io_log(LOG_WARN, err, "%s; the index is rebuilt now", ret_text);
        *rebuild = true;
    }
    enum err err = runtime_kv_drop(dir);
    if (err != ERR_OK) {
        snprintf(ret_text, BLOCKD_TEXT_BYTES, "%s/kv: the index cannot be dropped; remove it by hand", dir);
        return err;
    }
    return runtime_kv_open(blockd->runtime, dir, kv, ret_text);
}

static uint32_t segment_bytes(uint64_t capacity_bytes)
{
    uint64_t bytes = capacity_bytes / BLOCKD_SEGMENTS_MIN / 4096 * 4096;
    if (bytes > LIMIT_STORE_SEGMENT_BYTES) {
        return LIMIT_STORE_SEGMENT_BYTES;
    }
    return bytes < BLOCKD_SEGMENT_BYTES_MIN ? BLOCKD_SEGMENT_BYTES_MIN : (uint32_t)bytes;
}

/* The store, with a line in the log when a pass of repair has ended that did or lacked something. */
static void store_with_log(void *actor, const struct event *event, struct effects *fx)
{
    struct blockd_store *self = actor;
    store_step(self->store, event, fx);
    const uint64_t *refused = store_refused(self->store);
    for (uint32_t code = 0; code < ERR_LIMIT && event->kind == EVENT_TIMER; code++) {
        atomic_store_explicit(&self->refused[code], refused[code], memory_order_relaxed);
    }
    struct store_repair now = store_repair_state(self->store), before = self->repair;
    if (now.passes == before.passes) {
        return;
    }
    self->repair = now;
    if (now.rebuilt != before.rebuilt || now.missing != before.missing || now.refused != before.refused) {
        io_log(now.refused != before.refused ? LOG_WARN : LOG_INFO, ERR_OK,
               "repair: %llu shards rebuilt, %llu could not be yet, %llu refused",
               (unsigned long long)(now.rebuilt - before.rebuilt), (unsigned long long)now.missing,
               (unsigned long long)(now.refused - before.refused));
    }
}

static enum err make_store(struct blockd *blockd, uint32_t position, bool rebuild, char *ret_text)
{
    const struct blockd_config *config = &blockd->config;
    struct blockd_store *store = &blockd->stores[position];
    const char *dir = config->stores.items[position];
    struct store_identity identity;
    uint32_t file_count = 0;
    enum err err = runtime_directory_open(dir, &store->lock_fd, ret_text);
    if (err == ERR_OK) {
        err = store_identity_open(config, dir, &identity, ret_text);
    }
    if (err == ERR_OK) {
        err = runtime_directory_list(dir, FILE_SEGMENT, &store->files, &file_count);
        if (err != ERR_OK) {
            snprintf(ret_text, BLOCKD_TEXT_BYTES, "%s: its segments cannot be listed; check the disk and the rights",
                     dir);
        }
    }
    if (err == ERR_OK) {
        err = open_index(blockd, position, &rebuild, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    const struct store_params params = {
        .position = position,
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .uuid = identity.uuid,
        .incarnation = identity.incarnation,
        .capacity_bytes = config->capacity_bytes,
        .segment_bytes = segment_bytes(config->capacity_bytes),
        .files = store->files,
        .file_count = file_count,
        .kv = runtime_kv_view(store->kv),
        .rebuild_index = rebuild,
    };
    store->store = store_create(&params);
    runtime_add_actor(blockd->runtime, config->loops + position, ACTOR_STORE, position, store_with_log, store, dir,
                      store->kv);
    return ERR_OK;
}

/* Where the metadata nodes are that the last map named: beside the first store. */
static void metads_path(const struct blockd_config *config, char ret_path[BLOCKD_PATH_BYTES])
{
    snprintf(ret_path, BLOCKD_PATH_BYTES, "%s/metads", config->stores.items[0]);
}

/* Where the other nodes are, by the newest map; the metadata nodes are remembered for the next start. */
static void learn_addresses(struct blockd *blockd)
{
    uint64_t epoch = 0;
    struct slice map = agent_map(blockd->agent, &epoch);
    struct proto_arena arena = {0};
    Cairn__ClusterMap *message = NULL;
    if (map.bytes == 0 || epoch == blockd->addresses_epoch) {
        return;
    }
    blockd->addresses_epoch = epoch;
    struct runtime_peer *metads = mem_alloc(LIMIT_METADS_KNOWN * sizeof *metads);
    uint32_t metad_count = 0;
    enum err err = proto_unpack(&cairn__cluster_map__descriptor, map, &arena, (void **)&message);
    for (size_t i = 0; err == ERR_OK && i < message->n_nodes; i++) {
        const Cairn__MapNode *node = message->nodes[i];
        struct runtime_peer peer;
        char text[BLOCKD_TEXT_BYTES];
        bool self = node->role == ROLE_BLOCKD && node->id == blockd->config.node;
        snprintf(text, sizeof text, "%u@%s", node->id, node->address);
        if ((node->role != ROLE_BLOCKD && node->role != ROLE_METAD) || self || !runtime_peer_parse(text, &peer)) {
            continue;
        }
        runtime_learn_address(blockd->runtime, (enum role)node->role, peer.node, peer.host, peer.port);
        if (node->role == ROLE_METAD && node->state != MAP_NODE_GONE && metad_count < LIMIT_METADS_KNOWN) {
            metads[metad_count++] = peer;
        }
    }
    if (metad_count > 0) {
        char path[BLOCKD_PATH_BYTES];
        metads_path(&blockd->config, path);
        runtime_peers_write(path, metads, metad_count);
    }
    free(metads);
    proto_arena_deinit(&arena);
}

/* What connections and stores refused, by reason. */
static void note_refused(struct blockd *blockd)
{
    uint64_t refused[ERR_LIMIT];
    for (uint32_t code = 0; code < ERR_LIMIT; code++) {
        refused[code] = runtime_refused(blockd->runtime, (enum err)code);
        for (uint32_t i = 0; i < blockd->config.stores.count; i++) {
            refused[code] += atomic_load_explicit(&blockd->stores[i].refused[code], memory_order_relaxed);
        }
    }
    agent_note_refused(blockd->agent, refused);
}

/* What the stores were told, on their disks (standing.c). Once an epoch of the map, on the agent's thread. */
static void keep_standing(struct blockd *blockd)
{
    for (uint32_t i = 0; i < blockd->config.stores.count; i++) {
        uint64_t changes = agent_standing_changes(blockd->agent, i);
        if (changes == blockd->stores[i].standing_written) {
            continue;
        }
        blockd->stores[i].standing_written = changes;
        struct slice standing = agent_standing(blockd->agent, i);
        enum err err = standing.bytes > 0 ? standing_write(blockd->config.stores.items[i], standing) : ERR_OK;
        if (err != ERR_OK) {
            io_log(LOG_WARN, err, "%s/standing: cannot be written; the next start waits for the root group",
                   blockd->config.stores.items[i]);
        }
        slice_drop(&standing);
    }
}

static void recall_standing(struct blockd *blockd)
{
    for (uint32_t i = 0; i < blockd->config.stores.count; i++) {
        struct slice standing = {0};
        enum err err = standing_read(blockd->config.stores.items[i], &standing);
        if (err == ERR_OK) {
            err = agent_recall(blockd->agent, i, standing);
        }
        if (err != ERR_OK && err != ERR_NOT_FOUND) {
            io_log(LOG_WARN, err, "%s/standing: not believed; the store waits for the root group",
                   blockd->config.stores.items[i]);
        }
        slice_drop(&standing);
    }
}

/* The agent with what only the shell can do: the counters of the stores' rings in, the map's addresses out. */
static void agent_with_shell(void *actor, const struct event *event, struct effects *fx)
{
    struct blockd *blockd = actor;
    if (event->kind == EVENT_TIMER) {
        for (uint32_t i = 0; i < blockd->config.stores.count; i++) {
            struct runtime_disk_counters disk = runtime_disk_counters(blockd->runtime, ACTOR_STORE, i);
            agent_note_disk(blockd->agent, i, disk.submissions, disk.submitted);
        }
        note_refused(blockd);
    }
    char host[ERROR_HOST_BYTES];
    uint32_t leader = 0;
    uint16_t port = 0;
    if (event->kind == EVENT_MESSAGE && event->message.peer.role == ROLE_METAD &&
        (event->message.flags & MESSAGE_ERROR) != 0 &&
        error_reply_leader(event->message.header, &leader, host, &port)) {
        runtime_learn_address(blockd->runtime, ROLE_METAD, leader, host, port);
    }
    agent_step(blockd->agent, event, fx);
    learn_addresses(blockd);
    keep_standing(blockd);
}

/* The metadata nodes of the last map, whom the agent asks beside those that the configuration names. */
static void add_remembered(struct blockd *blockd, struct agent_params *params)
{
    char path[BLOCKD_PATH_BYTES];
    metads_path(&blockd->config, path);
    struct runtime_peer *peers = mem_alloc(LIMIT_METADS_KNOWN * sizeof *peers);
    uint32_t count = runtime_peers_read(path, peers, LIMIT_METADS_KNOWN);
    for (uint32_t i = 0; i < count; i++) {
        bool known = params->metad_count == LIMIT_METADS_KNOWN;
        for (uint32_t j = 0; j < blockd->config.metad_count; j++) {
            known = known || blockd->config.metads[j].node == peers[i].node;
        }
        if (!known) {
            params->metads[params->metad_count++] = peers[i].node;
        }
        runtime_learn_address(blockd->runtime, ROLE_METAD, peers[i].node, peers[i].host, peers[i].port);
    }
    free(peers);
}

/* `address` is where others reach this server: the port that was bound. */
static void make_agent(struct blockd *blockd, const char *address)
{
    const struct blockd_config *config = &blockd->config;
    struct agent_params params = {
        .node = config->node,
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .address = address,
        .host = config->host,
        .rack = config->rack,
        .store_count = config->stores.count,
        .heartbeat_ns = BLOCKD_HEARTBEAT_NS,
    };
    for (uint32_t i = 0; i < config->metad_count; i++) {
        params.metads[params.metad_count++] = config->metads[i].node;
    }
    add_remembered(blockd, &params);
    blockd->agent = agent_create(&params);
    recall_standing(blockd);
    runtime_add_actor(blockd->runtime, 0, ACTOR_AGENT, 0, agent_with_shell, blockd, NULL, NULL);
}

/* In the reverse order of making; whatever was not made is NULL. */
static void blockd_deinit(struct blockd *blockd)
{
    if (blockd->runtime != NULL) {
        runtime_destroy(blockd->runtime);
    }
    if (blockd->agent != NULL) {
        agent_destroy(blockd->agent);
    }
    for (uint32_t i = 0; i < blockd->config.stores.count; i++) {
        struct blockd_store *store = &blockd->stores[i];
        if (store->store != NULL) {
            store_destroy(store->store);
        }
        runtime_kv_close(store->kv);
        free(store->files);
        if (store->lock_fd >= 0) {
            close(store->lock_fd);
        }
    }
    blockd_config_deinit(&blockd->config);
}

/* A metadata node is of a newer incarnation (R-A10): from now on capabilities and receipts of the old one are refused,
 * after a restart too. All that knows the old one is made anew: the program ends and starts itself. */
static void blockd_follow(void *context, uint32_t node, uint64_t incarnation)
{
    struct blockd *blockd = context;
    if (atomic_exchange(&blockd->follows, true)) {
        return;
    }
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < blockd->config.stores.count && err == ERR_OK; i++) {
        err = store_incarnation_write(blockd->config.stores.items[i], incarnation);
    }
    if (err != ERR_OK) { /* asked again at the next hello */
        io_log(LOG_ERROR, err, "incarnation %llu of the cluster cannot be kept on the disk",
               (unsigned long long)incarnation);
        atomic_store(&blockd->follows, false);
        return;
    }
    io_log(LOG_WARN, ERR_OLD_INCARNATION,
           "metad:%u is of incarnation %llu: the cluster was recovered; this block server follows and starts anew",
           node, (unsigned long long)incarnation);
    runtime_stop(blockd->runtime);
}

static int blockd_run(struct blockd *blockd, bool rebuild)
{
    const struct blockd_config *config = &blockd->config;
    char text[BLOCKD_TEXT_BYTES] = "";
    for (uint32_t i = 0; i < config->stores.count; i++) {
        enum err err = make_store(blockd, i, rebuild, text);
        if (err != ERR_OK) {
            return fail(err, text);
        }
    }
    uint16_t port = 0;
    enum err err = runtime_listen(blockd->runtime, config->listen_host, config->listen_port, &port);
    if (err != ERR_OK) {
        snprintf(text, sizeof text, "cannot listen on %s:%u: %s; change 'listen' or end what uses the port",
                 config->listen_host, config->listen_port, err_text(err));
        return fail(err, text);
    }
    char address[BLOCKD_HOST_BYTES + 8];
    snprintf(address, sizeof address, "%s:%u", config->listen_host, port);
    make_agent(blockd, config->advertise[0] != '\0' ? config->advertise : address);
    io_log(LOG_INFO, ERR_OK, "listening on %s:%u", config->listen_host, port);
    const struct runtime_hooks hooks = {
        .context = blockd,
        .reload = blockd_reload,
        .drain_ns = config->drain_seconds * 1000000000ull,
        .newer = blockd_follow,
    };
    runtime_set_hooks(blockd->runtime, &hooks);
    return runtime_run(blockd->runtime, 1);
}

struct options {
    const char *path;
    bool check, rebuild;
};

/* -1 to go on, else the exit code. */
static int take_options(int argc, char **argv, struct options *ret_options)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},  {"check-config", no_argument, NULL, 'k'},
        {"rebuild-index", no_argument, NULL, 'r'}, {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
    for (int letter; (letter = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (letter) {
        case 'h':
            fputs(help_text, stdout);
            return 0;
        case 'v':
            version_print(stdout, "blockd");
            return 0;
        case 'c':
            ret_options->path = optarg;
            break;
        case 'k':
            ret_options->check = true;
            break;
        case 'r':
            ret_options->rebuild = true;
            break;
        default:
            return fail(ERR_INVALID, "wrong usage; see 'blockd --help'");
        }
    }
    if (ret_options->path == NULL || optind < argc) {
        return fail(ERR_INVALID, "give --config FILE; see 'blockd --help'");
    }
    return -1;
}

int main(int argc, char **argv)
{
    struct options options = {0};
    int code = take_options(argc, argv, &options);
    if (code >= 0) {
        return code;
    }
    struct blockd *blockd = mem_alloc(sizeof *blockd);
    for (uint32_t i = 0; i < BLOCKD_STORES_MAX; i++) {
        blockd->stores[i].lock_fd = -1;
    }
    blockd->path = options.path;
    char text[BLOCKD_TEXT_BYTES] = "";
    enum err err = blockd_config_read(options.path, &blockd->config, text);
    if (err == ERR_OK) {
        err = make_runtime(blockd, text);
    }
    if (err != ERR_OK) {
        code = fail(err, text);
    } else if (options.check) {
        printf("%s: the configuration is right\n", options.path);
        code = 0;
    } else {
        code = blockd_run(blockd, options.rebuild);
    }
    bool again = atomic_load(&blockd->follows) && code == 0;
    blockd_deinit(blockd);
    free(blockd);
    if (again) { /* the same process: its number, its log and who waits for it stay */
        execv("/proc/self/exe", argv);
        return fail(ERR_IO, "cannot start itself anew; start it again");
    }
    return code;
}
