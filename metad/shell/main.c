/* The metadata node's program: from a configuration file to running actors. It stands around the cores: the node's log
 * (one actor, on loop 0) and its groups (one actor each, dealt out to the loops) share one data directory and one
 * database.
 *
 * Happy path: read and check the configuration, make the runtime (certificates), take the data directory, open the
 * database, make the actors, listen, say so, run until SIGTERM. SIGHUP: config.h, metad_config_reload.
 * A database whose bytes are damaged is set aside, at the start or by beginning anew (database.h, R-E5).
 * How it fails: one fatal line in the log and on stderr that says what is wrong and what to do, and the code's exit
 * code.
 */
#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "config.h"
#include "database.h"
#include "health.h"

#include "io/log.h"
#include "io/runtime.h"
#include "metad/host/log.h"
#include "metad/metad.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/version.h"
#include "recover.h"

#define METAD_TICK_NS 50000000ull

static const char help_text[] =
    "usage: metad --config FILE [--check-config | --recover [--unsafe-lose-majority]]\n"
    "\n"
    "A metadata node of a Cairn cluster. Runs until SIGTERM.\n"
    "\n"
    "  --config FILE   the node's configuration ('cairn dev up' writes one)\n"
    "  --check-config  read everything the configuration names, say whether it is right, and end\n"
    "  --recover       of a node that is not running, when a majority of the metadata nodes is gone for good: say "
    "what\n"
    "                  is here and what would be lost, ask whether the others answer, and end\n"
    "  --unsafe-lose-majority  with it: make this node the only one, in a new incarnation of the cluster\n"
    "  --version       what this build reads and writes\n"
    "  --help          this\n"
    "\n"
    "SIGTERM: hand over what it leads, answer what it took, end (a second one: at once). SIGHUP: read certificates, "
    "addresses and limits anew.\n"
    "Everything it says is a JSON line in the log (stderr unless 'log' names a file).\n"
    "Exit codes: 0 ok, 1 failed, 2 usage or configuration.\n";

struct options {
    const char *path; /* of the configuration */
    bool check, recover, unsafe;
};

struct metad;

/* A group on its loop, and what other loops may know of it. */
struct seat {
    struct metad *metad;
    struct group *group;
    uint32_t index;
    _Atomic bool drained, removed;
    bool removal_said;
    struct group_health health; /* as told */
};

/* All that lives while the node runs, in the order it is made. */
struct metad {
    const char *path; /* of the configuration */
    char **arguments; /* of the program */
    bool recovering;
    struct metad_config config;
    struct runtime *runtime;
    int lock_fd;
    struct runtime_kv *kv;
    struct file_info *files;
    struct log *log;
    struct seat seats[LIMIT_GROUPS]; /* a group each; group g lives on loop g modulo the loops */
    uint32_t group_count;
    uint64_t map_epoch; /* of the map that was looked at */
    struct stores_told stores_told;
    uint32_t peers[LIMIT_RAFT_MEMBERS + 1]; /* that the configuration names; ends with 0 */
    uint64_t boots[LIMIT_LOG_BOOTS];        /* processes of the directory, this one last */
    uint32_t boot_count;
    struct node_counters counters[RUNTIME_THREADS_MAX]; /* one a loop, kept by the first group there */
    _Atomic uint64_t log_syncs, log_records;            /* as the log's loop says */
};

static int fail(enum err err, const char *text)
{
    CHECK(err != ERR_OK);
    io_log(LOG_FATAL, err, "%s", text);
    return err_exit_code(err);
}

static struct runtime_config runtime_config_of(const struct metad_config *config)
{
    return (struct runtime_config){
        .role = ROLE_METAD,
        .id = config->node,
        .ca_file = config->ca,
        .cert_file = config->cert,
        .key_file = config->key,
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .loops = config->loops,
        .workers = config->workers,
        .log_file = config->log,
        .max_connections = config->max_connections,
    };
}

static void set_addresses(struct runtime *runtime, const struct metad_config *config)
{
    for (uint32_t i = 0; i < config->metad_count; i++) {
        const struct metad_peer *peer = &config->metads[i];
        if (peer->node != config->node) {
            runtime_set_address(runtime, ROLE_METAD, peer->node, peer->host, peer->port);
        }
    }
}

static enum err make_runtime(struct metad *metad, char *ret_text)
{
    const struct runtime_config config = runtime_config_of(&metad->config);
    enum err err = runtime_create(&config, &metad->runtime, ret_text);
    if (err == ERR_OK) {
        set_addresses(metad->runtime, &metad->config);
    }
    return err;
}

/* SIGHUP: what may change while the node runs is taken, the rest must be as it was at the start. */
static void metad_reload(void *context)
{
    struct metad *metad = context;
    struct metad_config fresh = {0};
    char text[METAD_TEXT_BYTES] = "";
    enum err err = metad_config_read(metad->path, &fresh, text);
    if (err == ERR_OK) {
        err = metad_config_fixed(&metad->config, &fresh, metad->path, text);
    }
    if (err == ERR_OK) {
        const struct runtime_config config = runtime_config_of(&fresh);
        err = runtime_reload(metad->runtime, &config, text);
    }
    if (err == ERR_OK) {
        set_addresses(metad->runtime, &fresh);
        io_log(LOG_INFO, ERR_OK, "%s read anew: %s; max_connections %u, was %u", metad->path, text,
               fresh.max_connections, metad->config.max_connections);
        metad->config.max_connections = fresh.max_connections;
    } else {
        io_log(LOG_ERROR, err, "nothing was changed: %s", text);
    }
    metad_config_deinit(&fresh);
}

static enum err open_directory(struct metad *metad, struct uuid *ret_uuid, uint32_t *ret_file_count, char *ret_text)
{
    const char *dir = metad->config.data;
    uint64_t incarnation = 0;
    enum err err = runtime_directory_open(dir, &metad->lock_fd, ret_text);
    if (err == ERR_OK && !metad->recovering && metad_recovery_begun(dir, &incarnation)) {
        snprintf(ret_text, METAD_TEXT_BYTES,
                 "%s: a recovery from a lost majority was begun and did not end; run it again: 'metad --config %s "
                 "--recover --unsafe-lose-majority'",
                 dir, metad->path);
        err = ERR_CONFLICT;
    }
    if (err == ERR_OK) {
        err = metad_directory_identity(&metad->config, ret_uuid, ret_text);
    }
    if (err == ERR_OK && !metad->recovering) {
        err = metad_directory_boot(dir, metad->boots, &metad->boot_count, ret_text);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = runtime_directory_list(dir, FILE_LOG, &metad->files, ret_file_count);
    if (err != ERR_OK) {
        snprintf(ret_text, METAD_TEXT_BYTES, "%s: its log files cannot be listed; check the disk and the rights", dir);
        return err;
    }
    return metad_database_open(metad->runtime, dir, !metad->recovering, &metad->kv, ret_text);
}

/* Where the other metadata nodes are, by the newest map (one that is gone is answered when it asks, too), and which
 * stores are down. */
static void learn_map(struct metad *metad)
{
    uint64_t epoch = 0;
    struct slice map = group_map(metad->seats[0].group, &epoch);
    struct proto_arena arena = {0};
    Cairn__ClusterMap *message = NULL;
    if (map.bytes == 0 || epoch == metad->map_epoch) {
        return;
    }
    metad->map_epoch = epoch;
    enum err err = proto_unpack(&cairn__cluster_map__descriptor, map, &arena, (void **)&message);
    for (size_t i = 0; err == ERR_OK && i < message->n_nodes; i++) {
        const Cairn__MapNode *node = message->nodes[i];
        char host[METAD_HOST_BYTES];
        uint16_t port = 0;
        if (node->role == ROLE_METAD && node->id != metad->config.node &&
            metad_address_parse(node->address, host, &port) && port != 0) {
            runtime_learn_address(metad->runtime, ROLE_METAD, node->id, host, port);
        }
    }
    if (err == ERR_OK) {
        health_tell_stores(&metad->stores_told, message);
    }
    proto_arena_deinit(&arena);
}

/* Says of each group once that this node was removed from it; removed from all, the node ends: it is of no more use,
 * and nobody hears it. */
static void look_for_removal(struct metad *metad)
{
    uint32_t removed = 0;
    for (uint32_t i = 0; i < metad->group_count; i++) {
        struct seat *seat = &metad->seats[i];
        if (!seat->removal_said && atomic_load(&seat->removed)) {
            seat->removal_said = true;
            io_log(LOG_WARN, ERR_NOT_MEMBER, "this node was removed from group %u", i);
        }
        removed += seat->removal_said;
    }
    if (removed == metad->group_count) {
        io_log(LOG_WARN, ERR_NOT_MEMBER,
               "this node was removed from the cluster and ends; set %s aside and do not start it again",
               metad->config.data);
        runtime_stop(metad->runtime);
    }
}

static void log_with_shell(void *actor, const struct event *event, struct effects *fx)
{
    struct metad *metad = actor;
    log_step(metad->log, event, fx);
    struct log_status log = log_status(metad->log);
    atomic_store_explicit(&metad->log_syncs, log.syncs, memory_order_relaxed);
    atomic_store_explicit(&metad->log_records, log.records, memory_order_relaxed);
}

/* The node's counters, which all groups of this loop show. */
static void note_counters(struct metad *metad, struct node_counters *counters)
{
    counters->log_syncs = atomic_load_explicit(&metad->log_syncs, memory_order_relaxed);
    counters->log_entries = atomic_load_explicit(&metad->log_records, memory_order_relaxed);
    for (uint32_t code = 0; code < ERR_LIMIT; code++) {
        counters->refused[code] = runtime_refused(metad->runtime, (enum err)code);
    }
}

/* This node was away while others came: they say where they are, for its own map does not know them yet. */
static void learn_speaker(struct metad *metad, struct group *group)
{
    uint32_t node = 0;
    const char *address = NULL;
    char host[METAD_HOST_BYTES];
    uint16_t port = 0;
    if (group_speaker(group, &node, &address) && metad_address_parse(address, host, &port) && port != 0) {
        runtime_learn_address(metad->runtime, ROLE_METAD, node, host, port);
    }
}

/* A group with what only the shell can do: its loop's counters kept fresh, what other loops may know of it told; and on
 * group 0 the addresses of the map, and the end of a node that was removed. */
static void group_with_shell(void *actor, const struct event *event, struct effects *fx)
{
    struct seat *seat = actor;
    struct metad *metad = seat->metad;
    if (event->kind == EVENT_TIMER && seat->index < metad->config.loops) {
        note_counters(metad, &metad->counters[seat->index]);
    }
    group_step(seat->group, event, fx);
    learn_speaker(metad, seat->group);
    atomic_store_explicit(&seat->drained, group_is_drained(seat->group), memory_order_relaxed);
    if (event->kind == EVENT_TIMER) {
        atomic_store_explicit(&seat->removed, group_status(seat->group).removed, memory_order_relaxed);
        health_tell(&seat->health, seat->index, seat->group);
    }
    if (seat->index == 0) {
        learn_map(metad);
    }
    if (seat->index == 0 && event->kind == EVENT_TIMER) {
        look_for_removal(metad);
    }
}

static void make_actors(struct metad *metad, struct uuid directory, uint32_t file_count)
{
    const struct metad_config *config = &metad->config;
    const struct log_params log_params = {
        .directory = directory,
        .segment_bytes = LIMIT_LOG_SEGMENT_BYTES,
        .files = metad->files,
        .file_count = file_count,
    };
    for (uint32_t i = 0; i < config->metad_count; i++) {
        metad->peers[i] = config->metads[i].node;
    }
    metad->log = log_create(&log_params);
    runtime_add_actor(metad->runtime, 0, ACTOR_LOG, 0, log_with_shell, metad, config->data, NULL);
    for (uint32_t i = 0; i < config->groups; i++) {
        struct group_params params = {
            .group = i,
            .self = config->node,
            .directory = directory,
            .boots = metad->boots,
            .boot_count = metad->boot_count,
            .bootstrap = &config->bootstrap,
            .kv = runtime_kv_view(metad->kv),
            .group_count = config->groups,
            .tick_ns = METAD_TICK_NS,
            .flush_entries = config->flush_entries,
            .keep_entries = config->keep_entries,
            .counters = &metad->counters[i % config->loops],
            .address = config->advertise,
            .peers = metad->peers,
            .recovering = metad->recovering,
        };
        memcpy(params.cluster_key, config->cluster_key, sizeof params.cluster_key);
        struct seat *seat = &metad->seats[i];
        seat->metad = metad;
        seat->index = i;
        seat->group = group_create(&params);
        metad->group_count = i + 1;
        explicit_bzero(params.cluster_key, sizeof params.cluster_key);
        runtime_add_actor(metad->runtime, i % config->loops, ACTOR_GROUP, i, group_with_shell, seat, NULL, metad->kv);
    }
}

static enum err listen_and_tell(struct metad *metad, char *ret_text)
{
    const struct metad_config *config = &metad->config;
    uint16_t port;
    enum err err = runtime_listen(metad->runtime, config->host, config->port, &port);
    if (err != ERR_OK) {
        snprintf(ret_text, METAD_TEXT_BYTES, "cannot listen on %s:%u: %s; change 'listen' or end what uses the port",
                 config->host, config->port, err_text(err));
        return err;
    }
    io_log(LOG_INFO, ERR_OK, "listening on %s:%u", config->host, port);
    return ERR_OK;
}

/* SIGTERM: the groups hand over what they lead. */
static void metad_drain(void *context)
{
    struct metad *metad = context;
    for (uint32_t i = 0; i < metad->group_count; i++) {
        runtime_post(metad->runtime, address_local(ACTOR_GROUP, i), MESSAGE_GROUP_DRAIN, 0, (struct slice){0},
                     (struct slice){0});
    }
}

static bool metad_drained(void *context)
{
    const struct metad *metad = context;
    bool drained = true;
    for (uint32_t i = 0; i < metad->group_count; i++) {
        drained = drained && atomic_load(&metad->seats[i].drained);
    }
    return drained;
}

/* In the reverse order of making; whatever was not made is NULL. */
static void metad_deinit(struct metad *metad)
{
    if (metad->runtime) {
        runtime_destroy(metad->runtime);
    }
    for (uint32_t i = 0; i < metad->group_count; i++) {
        group_destroy(metad->seats[i].group);
    }
    if (metad->log) {
        log_destroy(metad->log);
    }
    if (metad->kv) {
        runtime_kv_close(metad->kv);
    }
    free(metad->files);
    stores_told_deinit(&metad->stores_told);
    if (metad->lock_fd >= 0) {
        close(metad->lock_fd);
    }
    metad_config_deinit(&metad->config);
}

/* The cluster was recovered without this node: what it holds is of a past that others have left (R-A10). */
static void metad_is_old(void *context, uint32_t node, uint64_t incarnation)
{
    const struct metad *metad = context;
    runtime_halt(metad->runtime, ERR_OLD_INCARNATION,
                 "metad:%u is of incarnation %llu: the cluster was recovered without this node; set %s aside, do not "
                 "start it again, and let this host join anew",
                 node, (unsigned long long)incarnation, metad->config.data);
}

static void metad_database_is_damaged(void *context, const char *text)
{
    const struct metad *metad = context;
    metad_database_damaged(metad->config.data, metad->arguments, text);
}

static int metad_recover(struct metad *metad, struct uuid directory, bool unsafe)
{
    struct group *groups[LIMIT_GROUPS];
    for (uint32_t i = 0; i < metad->group_count; i++) {
        groups[i] = metad->seats[i].group;
    }
    const struct recovery_params params = {.runtime = metad->runtime,
                                           .config = &metad->config,
                                           .groups = groups,
                                           .group_count = metad->group_count,
                                           .directory = directory,
                                           .unsafe = unsafe};
    return recovery_run(&params);
}

static int metad_run(struct metad *metad, const struct options *options)
{
    char text[METAD_TEXT_BYTES] = "";
    struct uuid directory = {{0}};
    uint32_t file_count = 0;
    enum err err = open_directory(metad, &directory, &file_count, text);
    if (err != ERR_OK) {
        return fail(err, text);
    }
    make_actors(metad, directory, file_count);
    struct runtime_hooks hooks = {.context = metad, .newer = metad_is_old};
    if (options->recover) {
        runtime_set_hooks(metad->runtime, &hooks);
        return metad_recover(metad, directory, options->unsafe);
    }
    err = listen_and_tell(metad, text);
    if (err != ERR_OK) {
        return fail(err, text);
    }
    hooks.reload = metad_reload;
    hooks.drain = metad_drain;
    hooks.drained = metad_drained;
    hooks.corrupt = metad_database_is_damaged;
    hooks.drain_ns = metad->config.drain_seconds * 1000000000ull;
    runtime_set_hooks(metad->runtime, &hooks);
    return runtime_run(metad->runtime, 1);
}

/* -1 to go on, else the exit code. */
static int take_options(int argc, char **argv, struct options *ret)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"check-config", no_argument, NULL, 'k'},
                                            {"recover", no_argument, NULL, 'r'},
                                            {"unsafe-lose-majority", no_argument, NULL, 'u'},
                                            {"version", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    for (int letter; (letter = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (letter == 'h') {
            fputs(help_text, stdout);
            return 0;
        }
        if (letter == 'v') {
            version_print(stdout, "metad");
            return 0;
        }
        if (letter == '?') {
            return fail(ERR_INVALID, "wrong usage; see 'metad --help'");
        }
        ret->path = letter == 'c' ? optarg : ret->path;
        ret->check |= letter == 'k';
        ret->recover |= letter == 'r';
        ret->unsafe |= letter == 'u';
    }
    if (!ret->path || optind < argc) {
        return fail(ERR_INVALID, "give --config FILE and nothing else; see 'metad --help'");
    }
    if (ret->unsafe && !ret->recover) {
        return fail(ERR_INVALID, "--unsafe-lose-majority belongs to --recover; see 'metad --help'");
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
    struct metad *metad = mem_alloc(sizeof *metad);
    metad->lock_fd = -1;
    metad->path = options.path;
    metad->arguments = argv;
    metad->recovering = options.recover;
    char text[METAD_TEXT_BYTES] = "";
    enum err err = metad_config_read(options.path, &metad->config, text);
    if (err == ERR_OK) {
        metad->config.loops = options.recover ? 1 : metad->config.loops; /* a recovery looks into the groups */
        err = make_runtime(metad, text);
    }
    if (err != ERR_OK) {
        code = fail(err, text);
    } else if (options.check) {
        printf("%s: the configuration is right\n", options.path);
        code = 0;
    } else {
        code = metad_run(metad, &options);
    }
    metad_deinit(metad);
    free(metad);
    return code;
}
