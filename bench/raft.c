/* `cairn-bench raft`: consensus alone. Three nodes with the real log, network, TLS and disk and a machine that does
 * next to nothing (raft_host.h); one client over TLS that keeps so many proposals in flight. Certificates and addresses
 * are those of a `cairn dev` cluster made for this, whose own nodes are stopped. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "bench.h"
#include "io/runtime.h"
#include "metad/host/log.h"
#include "proto/message.h"
#include "raft_host.h"

#define TICK_NS      50000000ull
#define RETRY_NS     20000000ull
#define WARM_UP      600000u
#define WARM_FLIGHT  256u
#define TIMER_RETRY  1u
#define BOUND_S      600 /* a run that takes longer hangs */
#define LATENCY_MOST 4000000u

static const char raft_usage[] =
    "usage: cairn-bench raft [OPTION...]\n\n"
    "Prints one JSON object: proposals a second, latency, CPU seconds of all nodes and the client.\n"
    "  --machine null|key   what a node does with a proposal: nothing, or one key put (null)\n"
    "  --proposals N        (200000)\n"
    "  --warm-up N          before what is measured, with 256 in flight (600000: by then the log's files are used "
    "again)\n"
    "  --in-flight N        (256)\n"
    "  --bytes N            of a proposal (256)\n"
    "  --dir DIR            where the nodes' files lie (the environment's TMPDIR, or /tmp)\n";

struct raft_options {
    bool keys;
    uint32_t proposals, warm_up, in_flight, bytes;
    const char *dir;
};

/* ---- a node ---- */

static int node_main(const char *cluster_dir, uint32_t node, bool keys)
{
    char path[BENCH_PATH + 64], data[BENCH_PATH + 64], text[METAD_TEXT_BYTES] = "";
    struct metad_config config;
    struct runtime *runtime = NULL;
    struct runtime_kv *kv = NULL;
    int lock = -1;
    uint16_t port;
    snprintf(path, sizeof path, "%s/metad%u/node.toml", cluster_dir, node);
    snprintf(data, sizeof data, "%s/metad%u/bench", cluster_dir, node);
    enum err err = metad_config_read(path, &config, text);
    if (err == ERR_OK) {
        struct runtime_config runtime_config = {.role = ROLE_METAD,
                                                .id = node,
                                                .ca_file = config.ca,
                                                .cert_file = config.cert,
                                                .key_file = config.key,
                                                .cluster = config.cluster,
                                                .cluster_incarnation = config.cluster_incarnation,
                                                .loops = 1,
                                                .workers = 1,
                                                .log_file = config.log};
        err = runtime_create(&runtime_config, &runtime, text);
    }
    if (err == ERR_OK) {
        err = runtime_directory_open(data, &lock, text);
    }
    if (err == ERR_OK && keys) {
        err = runtime_kv_open(runtime, data, &kv, text);
    }
    if (err == ERR_OK) {
        err = runtime_listen(runtime, config.host, config.port, &port);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "cairn-bench: node %u: %s (%s)\n", node, text, err_name(err));
        return 1;
    }
    for (uint32_t i = 0; i < config.metad_count; i++) {
        if (config.metads[i].node != node) {
            runtime_set_address(runtime, ROLE_METAD, config.metads[i].node, config.metads[i].host,
                                config.metads[i].port);
        }
    }
    struct log_params log_params = {.segment_bytes = LIMIT_LOG_SEGMENT_BYTES};
    memset(log_params.directory.bytes, (int)node, sizeof log_params.directory.bytes);
    struct raft_host_params host_params = {
        .config = &config, .kv = keys ? runtime_kv_view(kv) : NULL, .tick_ns = TICK_NS};
    struct log *log = log_create(&log_params);
    struct raft_host *host = raft_host_create(&host_params);
    runtime_add_actor(runtime, 0, ACTOR_LOG, 0, log_step, log, data, NULL);
    runtime_add_actor(runtime, 0, ACTOR_GROUP, 0, raft_host_step, host, NULL, kv);
    int code = runtime_run(runtime, 1);
    runtime_destroy(runtime);
    raft_host_destroy(host);
    log_destroy(log);
    if (kv != NULL) {
        runtime_kv_close(kv);
    }
    close(lock);
    metad_config_deinit(&config);
    return code;
}

/* ---- the client ---- */

struct measured {
    uint32_t done;
    double seconds;
    uint32_t p50_us, p99_us;
};

struct client {
    struct runtime *runtime;
    uint32_t leader, members;
    uint32_t proposals, in_flight, sent, done, waiting; /* waiting: refused, to be sent again */
    struct slice body;
    uint64_t begin_ns, end_ns;
    uint64_t *sent_ns; /* by stream */
    uint64_t stream_most;
    uint32_t *latency_us;
};

static void client_send(struct client *client, struct effects *fx, uint64_t now_ns)
{
    uint64_t stream = ++client->sent;
    CHECK(stream < client->stream_most);
    client->sent_ns[stream] = now_ns;
    fx_send(fx, address_node(ROLE_METAD, client->leader, ACTOR_GROUP, 0), MESSAGE_PUT_SMALL, stream, (struct slice){0},
            slice_ref(client->body));
}

static void client_answered(struct client *client, const struct event *event, struct effects *fx)
{
    const struct message *m = &event->message;
    if (m->flags & MESSAGE_ERROR) {
        uint32_t leader = 0;
        enum err err = error_reply_decode(m->header, &leader);
        CHECK(err != ERR_OK);
        client->leader = leader != 0 ? leader : client->leader % client->members + 1;
        client->waiting++;
        fx_timer(fx, TIMER_RETRY, event->now_ns + RETRY_NS);
        return;
    }
    client->latency_us[client->done++] = (uint32_t)((event->now_ns - client->sent_ns[m->stream]) / 1000);
    if (client->done == client->proposals) {
        client->end_ns = event->now_ns;
        runtime_stop(client->runtime);
    } else if (client->done + client->in_flight <= client->proposals) {
        client_send(client, fx, event->now_ns);
    }
}

static void client_step(void *actor, const struct event *event, struct effects *fx)
{
    struct client *client = actor;
    if (event->kind == EVENT_MESSAGE && event->message.flags & MESSAGE_REPLY) {
        client_answered(client, event, fx);
    } else if (event->kind == EVENT_TIMER) {
        uint32_t count = client->waiting;
        if (event->timer.id == RUNTIME_TIMER_BOOT) {
            client->begin_ns = event->now_ns;
            count = client->in_flight;
        }
        client->waiting = 0;
        for (uint32_t i = 0; i < count; i++) {
            client_send(client, fx, event->now_ns);
        }
    } else if (event->kind == EVENT_CLOSED) {
        if (client->done > 0) {
            fx_halt(fx, ERR_UNAVAILABLE, "node %u is gone", event->peer.peer.node);
            return;
        }
        client->waiting = client->in_flight; /* it does not listen yet */
        fx_timer(fx, TIMER_RETRY, event->now_ns + RETRY_NS);
    }
}

static int ascending(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

struct client_job {
    const struct raft_options *options;
    const char *cluster_dir;
};

static bool client_main(const void *context, void *result)
{
    const struct client_job *job = context;
    const char *cluster_dir = job->cluster_dir;
    uint32_t proposals = job->options->proposals;
    struct measured *ret = result;
    alarm(BOUND_S);
    char path[BENCH_PATH + 64], ca[BENCH_PATH + 64], cert[BENCH_PATH + 64], key[BENCH_PATH + 64];
    char text[METAD_TEXT_BYTES] = "";
    struct metad_config config;
    struct client client = {.leader = 1, .proposals = proposals, .in_flight = job->options->in_flight};
    snprintf(path, sizeof path, "%s/metad1/node.toml", cluster_dir);
    snprintf(ca, sizeof ca, "%s/ca.crt", cluster_dir);
    snprintf(cert, sizeof cert, "%s/client.crt", cluster_dir);
    snprintf(key, sizeof key, "%s/client.key", cluster_dir);
    enum err err = metad_config_read(path, &config, text);
    if (err == ERR_OK) {
        struct runtime_config runtime_config = {.role = ROLE_DEVICE,
                                                .id = 1,
                                                .ca_file = ca,
                                                .cert_file = cert,
                                                .key_file = key,
                                                .cluster = config.cluster,
                                                .cluster_incarnation = config.cluster_incarnation,
                                                .loops = 1,
                                                .workers = 1};
        err = runtime_create(&runtime_config, &client.runtime, text);
    }
    if (err != ERR_OK) {
        fprintf(stderr, "cairn-bench: %s (%s)\n", text, err_name(err));
        return false;
    }
    client.members = config.metad_count;
    for (uint32_t i = 0; i < config.metad_count; i++) {
        runtime_set_address(client.runtime, ROLE_METAD, config.metads[i].node, config.metads[i].host,
                            config.metads[i].port);
    }
    client.body = slice_alloc(job->options->bytes);
    memset(client.body.data, 0x5a, job->options->bytes);
    client.stream_most = LATENCY_MOST * 2;
    client.sent_ns = mem_alloc(client.stream_most * sizeof *client.sent_ns);
    client.latency_us = mem_alloc(proposals * sizeof *client.latency_us);
    runtime_add_actor(client.runtime, 0, ACTOR_API, 0, client_step, &client, NULL, NULL);
    int code = runtime_run(client.runtime, 0);
    if (code == 0) {
        qsort(client.latency_us, client.done, sizeof *client.latency_us, ascending);
        *ret = (struct measured){.done = client.done,
                                 .seconds = (double)(client.end_ns - client.begin_ns) / 1e9,
                                 .p50_us = client.latency_us[client.done / 2],
                                 .p99_us = client.latency_us[client.done - 1 - client.done / 100]};
    }
    return code == 0;
}

/* ---- the run ---- */

static bool measure(const struct raft_options *options, const struct bench_cluster *nodes)
{
    struct measured m = {0};
    double client_cpu_s = 0;
    uint64_t rss_bytes;
    struct raft_options warm = *options;
    warm.in_flight = WARM_FLIGHT;
    warm.proposals = options->warm_up;
    struct client_job job = {&warm, nodes->dir};
    bool ok = child_apart(client_main, &job, &m, sizeof m, &client_cpu_s, &rss_bytes);
    double before_s = cluster_cpu_s(nodes);
    job.options = options;
    if (!ok || !child_apart(client_main, &job, &m, sizeof m, &client_cpu_s, &rss_bytes)) {
        fprintf(stderr, "cairn-bench: the client of the run failed\n");
        return false;
    }
    double cpu_s = cluster_cpu_s(nodes) - before_s + client_cpu_s;
    printf("{\"workload\":\"raft\",\"machine\":\"%s\",\"proposals\":%u,\"bytes\":%u,\"in_flight\":%u,\"seconds\":%.3f,"
           "\"per_second\":%.0f,\"p50_us\":%u,\"p99_us\":%u,\"cpu_s\":%.2f,\"client_cpu_s\":%.2f,"
           "\"cpu_s_per_100000\":%.2f}\n",
           options->keys ? "key" : "null", m.done, options->bytes, options->in_flight, m.seconds, m.done / m.seconds,
           m.p50_us, m.p99_us, cpu_s, client_cpu_s, cpu_s * 1e5 / m.done);
    return true;
}

static bool run(const void *context, struct bench_cluster *nodes)
{
    enum { NODES = 3 };
    const struct raft_options *options = context;
    bool ok = true;
    fflush(NULL);
    for (uint32_t i = 1; ok && i <= NODES; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(node_main(nodes->dir, i, options->keys));
        }
        ok = pid > 0;
        if (ok) {
            nodes->processes[nodes->count++] = (struct bench_process){true, pid};
        }
    }
    ok = ok && measure(options, nodes);
    for (unsigned i = 0; i < nodes->count; i++) {
        int status = 0;
        kill(nodes->processes[i].pid, SIGTERM);
        ok = waitpid(nodes->processes[i].pid, &status, 0) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0 && ok;
    }
    return ok;
}

static bool options_take(int argc, char **argv, struct raft_options *options)
{
    enum { MACHINE = 1, PROPOSALS, WARM, IN_FLIGHT, BYTES, DIR };
    static const struct option longs[] = {{"machine", required_argument, NULL, MACHINE},
                                          {"proposals", required_argument, NULL, PROPOSALS},
                                          {"warm-up", required_argument, NULL, WARM},
                                          {"in-flight", required_argument, NULL, IN_FLIGHT},
                                          {"bytes", required_argument, NULL, BYTES},
                                          {"dir", required_argument, NULL, DIR},
                                          {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        bool right = false;
        switch (option) {
        case MACHINE:
            options->keys = strcmp(optarg, "key") == 0;
            right = options->keys || strcmp(optarg, "null") == 0;
            break;
        case PROPOSALS:
            right = bench_number(optarg, &options->proposals) && options->proposals <= LATENCY_MOST;
            break;
        case WARM:
            right = bench_number(optarg, &options->warm_up) && options->warm_up >= WARM_FLIGHT;
            break;
        case IN_FLIGHT:
            right = bench_number(optarg, &options->in_flight) && options->in_flight <= 65536;
            break;
        case BYTES:
            right = bench_number(optarg, &options->bytes) && options->bytes <= 65536;
            break;
        case DIR:
            options->dir = optarg;
            right = true;
            break;
        default:
            break;
        }
        if (!right) {
            return false;
        }
    }
    return optind == argc && options->in_flight <= options->proposals;
}

int raft_main(int argc, char **argv)
{
    struct raft_options options = {
        .proposals = 200000, .warm_up = WARM_UP, .in_flight = 256, .bytes = 256, .dir = bench_tmp()};
    if (!options_take(argc, argv, &options)) {
        fputs(raft_usage, stderr);
        return 2;
    }
    return cluster_borrow(options.dir, run, &options);
}
