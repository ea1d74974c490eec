/* Messages between two runtimes over TLS on loopback: requests and replies, bodies of 8 MiB, answers across loops,
 * lost connections, and refusals. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"
#include "proto/frame.h"
#include "proto/message.h"

#define BODY_BYTES (8u << 20)

struct pair {
    struct certs certs;
    struct station server, client;
    struct probe group, store, asker;
    uint16_t port;
};

static void pair_start(struct pair *pair, unsigned loops)
{
    char text[256];
    memset(pair, 0, sizeof *pair);
    certs_init(&pair->certs);
    certs_issue(&pair->certs, "ca", "metad:1", 0);
    certs_issue(&pair->certs, "ca", "device:5", 0);
    struct runtime_config config =
        station_config(&pair->certs, "metad:1", ROLE_METAD, 1, certs_file(&pair->certs, "server", "log"));
    config.loops = loops;
    assert_int_equal(runtime_create(&config, &pair->server.runtime, text), ERR_OK);
    assert_int_equal(runtime_listen(pair->server.runtime, "127.0.0.1", 0, &pair->port), ERR_OK);
    assert_int_not_equal(pair->port, 0);
    probe_add(&pair->group, pair->server.runtime, 0, ACTOR_GROUP, 0, NULL, NULL);
    probe_add(&pair->store, pair->server.runtime, loops - 1, ACTOR_STORE, 2, NULL, NULL);
    pair->group.echo = pair->store.echo = true;

    config = station_config(&pair->certs, "device:5", ROLE_DEVICE, 5, certs_file(&pair->certs, "client", "log"));
    config.loops = loops;
    assert_int_equal(runtime_create(&config, &pair->client.runtime, text), ERR_OK);
    probe_add(&pair->asker, pair->client.runtime, loops - 1, ACTOR_CLIENT, 0, NULL, NULL);
    runtime_set_address(pair->client.runtime, ROLE_METAD, 1, "127.0.0.1", pair->port);
    station_start(&pair->server);
    station_start(&pair->client);
}

static void pair_stop(struct pair *pair)
{
    if (pair->client.thread != 0) {
        assert_int_equal(station_stop(&pair->client), 0);
    }
    assert_int_equal(station_stop(&pair->server), 0);
    probe_forget(&pair->asker);
    probe_forget(&pair->group);
    probe_forget(&pair->store);
    runtime_destroy(pair->client.runtime);
    runtime_destroy(pair->server.runtime);
    certs_deinit(&pair->certs);
    assert_int_equal(slice_live_bytes(), 0);
}

static struct slice body_make(uint32_t bytes)
{
    struct slice body = slice_alloc(bytes);
    for (uint32_t i = 0; i < bytes; i++) {
        body.data[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    return body;
}

struct ask {
    struct address to;
    uint16_t type;
    uint64_t stream;
    uint32_t header_bytes, body_bytes;
};

static void ask_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    const struct ask *ask = argument;
    fx_send(fx, ask->to, ask->type, ask->stream, body_make(ask->header_bytes), body_make(ask->body_bytes));
}

static void expect_echo(const struct event *event, const struct ask *ask)
{
    assert_int_equal(event->kind, EVENT_MESSAGE);
    const struct message *message = &event->message;
    assert_int_equal(message->type, ask->type);
    assert_int_equal(message->flags, MESSAGE_REPLY);
    assert_true(message->stream == ask->stream);
    assert_int_equal(message->peer.role, ROLE_METAD);
    assert_int_equal(message->peer.id, 1);
    struct slice header = body_make(ask->header_bytes), body = body_make(ask->body_bytes);
    assert_true(slice_equal(message->header, header));
    assert_true(slice_equal(message->body, body));
    assert_true(ask->body_bytes < 4096 || (uintptr_t)message->body.data % 4096 == 0);
    slice_drop(&header);
    slice_drop(&body);
}

static void expect_error(const struct event *event, uint64_t stream, enum err err)
{
    uint32_t leader;
    assert_int_equal(event->kind, EVENT_MESSAGE);
    assert_int_equal(event->message.flags, MESSAGE_REPLY | MESSAGE_ERROR);
    assert_true(event->message.stream == stream);
    assert_int_equal(error_reply_decode(event->message.header, &leader), err);
}

static void echo_of_sizes(unsigned loops)
{
    struct pair pair;
    pair_start(&pair, loops);
    static const uint32_t sizes[][2] = {{0, 0},         {1, 0},     {0, 1},       {100, 4096},           {16352, 1},
                                        {16351, 16385}, {3, 70000}, {1 << 20, 0}, {1 << 20, BODY_BYTES}, {7, 16 << 20}};
    unsigned count = sizeof sizes / sizeof sizes[0];
    struct ask asks[sizeof sizes / sizeof sizes[0]];
    for (unsigned i = 0; i < count; i++) {
        asks[i] = (struct ask){
            .to = i % 2 ? address_node(ROLE_METAD, 1, ACTOR_STORE, 2) : address_node(ROLE_METAD, 1, ACTOR_GROUP, 0),
            .type = i % 2 ? MESSAGE_SHARD_PUT : MESSAGE_MAP_GET,
            .stream = (1ull << 48) - 1 - i,
            .header_bytes = sizes[i][0],
            .body_bytes = sizes[i][1],
        };
        probe_do(&pair.asker, ask_run, &asks[i]);
        assert_true(probe_wait(&pair.asker, i + 1));
        expect_echo(&pair.asker.events[i], &asks[i]);
    }
    struct runtime_net_counters counters = runtime_net_counters(pair.server.runtime);
    assert_int_equal(counters.accepted_connections, 1);
    assert_int_equal(counters.refused_connections + counters.refused_frames, 0);
    pair_stop(&pair);
}

static void test_echo(void **state)
{
    (void)state;
    echo_of_sizes(1);
}

static void test_echo_across_loops(void **state)
{
    (void)state;
    echo_of_sizes(3);
}

static void test_many_in_flight(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair, 1);
    struct ask asks[100];
    for (unsigned i = 0; i < 100; i++) {
        asks[i] = (struct ask){.to = address_node(ROLE_METAD, 1, ACTOR_GROUP, 0),
                               .type = MESSAGE_MAP_GET,
                               .stream = i,
                               .header_bytes = i * 7,
                               .body_bytes = i * 3001};
        probe_do(&pair.asker, ask_run, &asks[i]);
    }
    assert_true(probe_wait(&pair.asker, 100));
    for (unsigned i = 0; i < 100; i++) {
        expect_echo(&pair.asker.events[i], &asks[i]); /* one connection, one echoing actor: in order */
    }
    pair_stop(&pair);
}

/* A device may not send a message of metads, of blockds, of the process itself; nor one nobody knows, nor to nobody. */
static void test_refused_requests(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair, 1);
    const struct {
        uint16_t type;
        uint32_t index;
        enum err err;
    } rows[] = {{MESSAGE_RAFT, 0, ERR_WRONG_ROLE},       {MESSAGE_STORE_HEARTBEAT, 0, ERR_WRONG_ROLE},
                {MESSAGE_LOG_APPEND, 0, ERR_WRONG_ROLE}, {PROBE_DO_TYPE, 0, ERR_UNKNOWN_TYPE},
                {MESSAGE_MAP_GET, 77, ERR_WRONG_GROUP},  {MESSAGE_MAP_GET, UINT32_MAX, ERR_WRONG_GROUP}};
    unsigned count = sizeof rows / sizeof rows[0];
    for (unsigned i = 0; i < count; i++) {
        struct ask ask = {.to = address_node(ROLE_METAD, 1, ACTOR_GROUP, rows[i].index),
                          .type = rows[i].type,
                          .stream = 100 + i,
                          .header_bytes = 10,
                          .body_bytes = 10000};
        probe_do(&pair.asker, ask_run, &ask);
        assert_true(probe_wait(&pair.asker, i + 1));
        expect_error(&pair.asker.events[i], 100 + i, rows[i].err);
    }
    assert_int_equal(pair.group.echoed, 0);
    assert_int_equal(runtime_net_counters(pair.server.runtime).refused_frames, count);
    struct ask good = {
        .to = address_node(ROLE_METAD, 1, ACTOR_GROUP, 0), .type = MESSAGE_MAP_GET, .stream = 9, .body_bytes = 5};
    probe_do(&pair.asker, ask_run, &good);
    assert_true(probe_wait(&pair.asker, count + 1));
    expect_echo(&pair.asker.events[count], &good);
    pair_stop(&pair);
}

/* The server goes away: who sent to it hears so, with the address it used. Later attempts fail the same way. */
static void test_peer_lost(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair, 1);
    struct ask ask = {
        .to = address_node(ROLE_METAD, 1, ACTOR_STORE, 2), .type = MESSAGE_SHARD_PUT, .stream = 1, .body_bytes = 9};
    probe_do(&pair.asker, ask_run, &ask);
    assert_true(probe_wait(&pair.asker, 1));
    expect_echo(&pair.asker.events[0], &ask);
    station_stop(&pair.server);
    probe_forget(&pair.group);
    probe_forget(&pair.store);
    runtime_destroy(pair.server.runtime); /* closes the listening socket too */
    assert_true(probe_wait(&pair.asker, 2));
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(pair.asker.events[i].kind, EVENT_CLOSED);
        assert_int_equal(pair.asker.events[i].peer.peer.role, ROLE_METAD);
        assert_int_equal(pair.asker.events[i].peer.peer.node, 1);
        assert_int_equal(pair.asker.events[i].peer.peer.actor, ACTOR_STORE);
        assert_int_equal(pair.asker.events[i].peer.peer.index, 2);
        assert_int_equal(pair.asker.events[i].peer.err, i == 1 ? ERR_CLOSED : ERR_UNREACHABLE);
        if (i == 1) {
            probe_do(&pair.asker, ask_run, &ask);
            assert_true(probe_wait(&pair.asker, 3));
        }
    }
    assert_int_equal(station_stop(&pair.client), 0);
    probe_forget(&pair.asker);
    runtime_destroy(pair.client.runtime);
    certs_deinit(&pair.certs);
    assert_int_equal(slice_live_bytes(), 0);
}

/* The client's end of its connection to the server, among the descriptors of this process. */
static int client_socket(const struct pair *pair)
{
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in peer = {0};
        socklen_t bytes = sizeof peer;
        if (getpeername(fd, (struct sockaddr *)&peer, &bytes) == 0 && peer.sin_family == AF_INET &&
            ntohs(peer.sin_port) == pair->port) {
            return fd;
        }
    }
    return -1;
}

static void wake_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    fx_timer(fx, 7, *(const uint64_t *)argument);
}

/* The network breaks every connection, each of them open for a while: the pause before the next stays the shortest. */
static void test_resets(void **state)
{
    (void)state;
    struct pair pair;
    static char log[1 << 16];
    enum { RESETS = 5 };
    pair_start(&pair, 1);
    for (unsigned i = 0; i < RESETS; i++) {
        struct ask ask = {
            .to = address_node(ROLE_METAD, 1, ACTOR_STORE, 2), .type = MESSAGE_SHARD_PUT, .stream = i, .body_bytes = 9};
        probe_do(&pair.asker, ask_run, &ask);
        const struct event *events = &pair.asker.events[3ul * i];
        assert_true(probe_wait(&pair.asker, 3 * i + 1));
        expect_echo(&events[0], &ask);
        uint64_t aged_ns = events[0].now_ns + 150000000ull; /* by the loop's clock, which counts how long it is open */
        probe_do(&pair.asker, wake_run, &aged_ns);
        assert_true(probe_wait(&pair.asker, 3 * i + 2));
        assert_int_equal(events[1].kind, EVENT_TIMER);
        assert_int_equal(shutdown(client_socket(&pair), SHUT_RDWR), 0);
        assert_true(probe_wait(&pair.asker, 3 * i + 3));
        assert_int_equal(events[2].kind, EVENT_CLOSED);
    }
    FILE *file = fopen(certs_file(&pair.certs, "client", "log"), "r");
    assert_non_null(file);
    log[fread(log, 1, sizeof log - 1, file)] = 0;
    fclose(file);
    assert_non_null(strstr(log, "no connection to metad:1 (1 in a row)"));
    assert_null(strstr(log, "(2 in a row)"));
    pair_stop(&pair);
}

/* The asker goes away: an actor that heard from it is told, by connection. */
static void test_asker_lost(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair, 1);
    pair.group.echo = false;
    struct ask ask = {
        .to = address_node(ROLE_METAD, 1, ACTOR_GROUP, 0), .type = MESSAGE_MAP_GET, .stream = 1, .body_bytes = 9};
    probe_do(&pair.asker, ask_run, &ask);
    assert_true(probe_wait(&pair.group, 1));
    const struct message *request = &pair.group.events[0].message;
    assert_int_equal(request->peer.role, ROLE_DEVICE);
    assert_int_equal(request->peer.id, 5);
    assert_int_equal(request->from.role, ROLE_DEVICE);
    assert_int_equal(request->from.node, 5);
    assert_true(request->from.conn != 0);
    assert_int_equal(request->stream, 1);
    assert_int_equal(station_stop(&pair.client), 0);
    assert_true(probe_wait(&pair.group, 2));
    assert_int_equal(pair.group.events[1].kind, EVENT_CLOSED);
    assert_true(pair.group.events[1].peer.peer.conn == request->from.conn);
    pair.client.thread = 0;
    pair_stop(&pair);
}

static void test_no_address(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair, 1);
    struct ask ask = {.to = address_node(ROLE_BLOCKD, 3, ACTOR_STORE, 0), .type = MESSAGE_SHARD_PUT, .stream = 4};
    probe_do(&pair.asker, ask_run, &ask);
    assert_true(probe_wait(&pair.asker, 1));
    assert_int_equal(pair.asker.events[0].kind, EVENT_CLOSED);
    assert_int_equal(pair.asker.events[0].peer.err, ERR_UNREACHABLE);
    assert_int_equal(pair.asker.events[0].peer.peer.role, ROLE_BLOCKD);
    /* metad:1 answers at the address of metad:2: any certificate of our CA is not good enough. */
    runtime_set_address(pair.client.runtime, ROLE_METAD, 2, "127.0.0.1", pair.port);
    struct ask other = {.to = address_node(ROLE_METAD, 2, ACTOR_GROUP, 0), .type = MESSAGE_MAP_GET, .stream = 5};
    probe_do(&pair.asker, ask_run, &other);
    assert_true(probe_wait(&pair.asker, 2));
    assert_int_equal(pair.asker.events[1].kind, EVENT_CLOSED);
    assert_int_equal(pair.asker.events[1].peer.err, ERR_WRONG_ROLE);
    assert_int_equal(pair.asker.events[1].peer.peer.node, 2);
    pair_stop(&pair);
}

/* The events so far end with the echo of `stream`; what failed before it was asked again. */
static void expect_reached(struct pair *pair, uint64_t stream)
{
    struct ask ask = {.to = address_node(ROLE_METAD, 1, ACTOR_GROUP, 0),
                      .type = MESSAGE_MAP_GET,
                      .stream = stream,
                      .header_bytes = 9};
    for (unsigned seen = pair->asker.count, attempts = 0; attempts < 4; attempts++, seen++) {
        probe_do(&pair->asker, ask_run, &ask);
        assert_true(probe_wait(&pair->asker, seen + 1));
        const struct event *event = &pair->asker.events[seen];
        if (event->kind == EVENT_MESSAGE) {
            assert_true(event->message.stream == stream);
            return;
        }
        assert_int_equal(event->kind, EVENT_CLOSED);
    }
    fail_msg("the right address was never tried");
}

/* A port that refuses: bound by us, and nobody listens there. */
static uint16_t port_without_listener(int *ret_fd)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof in;
    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*ret_fd >= 0);
    assert_int_equal(bind(*ret_fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(*ret_fd, (struct sockaddr *)&in, &bytes), 0);
    return ntohs(in.sin_port);
}

/* A wrong address, given or learned, keeps nobody from the right one; the later news is tried first. */
static void test_two_addresses(void **state)
{
    (void)state;
    for (int given_is_right = 0; given_is_right < 2; given_is_right++) {
        struct pair pair;
        pair_start(&pair, 1);
        int fd = -1;
        uint16_t dead = port_without_listener(&fd);
        if (given_is_right) {
            runtime_learn_address(pair.client.runtime, ROLE_METAD, 1, "127.0.0.1", dead);
        } else {
            runtime_set_address(pair.client.runtime, ROLE_METAD, 1, "127.0.0.1", dead);
            runtime_learn_address(pair.client.runtime, ROLE_METAD, 1, "127.0.0.1", pair.port);
        }
        expect_reached(&pair, 7);
        /* What is learned first is no news: the address given was tried before. */
        assert_int_equal(pair.asker.count, given_is_right ? 1 : 2);
        pair_stop(&pair);
        close(fd);
    }
}

#define OLD 1u
#define NEW (1ull << 32 | 9)

struct heard {
    _Atomic uint32_t count, node;
    _Atomic uint64_t incarnation;
};

static void note_newer(void *context, uint32_t node, uint64_t incarnation)
{
    struct heard *heard = context;
    heard->node = node;
    heard->incarnation = incarnation;
    heard->count++;
}

static void station_make(struct station *station, struct certs *certs, const char *name, enum role role,
                         uint64_t incarnation, struct heard *heard)
{
    char text[256];
    struct runtime_config config = station_config(certs, name, role, 1, certs_file(certs, name, "log"));
    config.cluster_incarnation = incarnation;
    assert_int_equal(runtime_create(&config, &station->runtime, text), ERR_OK);
    const struct runtime_hooks hooks = {.context = heard, .newer = note_newer};
    runtime_set_hooks(station->runtime, &hooks);
}

/* Two incarnations of a cluster never speak to each other. The older one learns of the newer when it opens the
 * connection, but from a metadata node only: a stolen block server cannot talk nodes out of their cluster (R-A10, P7).
 */
static void incarnations_meet(uint64_t of_metad, uint64_t of_blockd, bool metad_opens)
{
    struct certs certs;
    struct station metad = {0}, blockd = {0};
    struct heard by_metad = {0}, by_blockd = {0};
    struct probe group = {0}, agent = {0};
    uint16_t port = 0;
    certs_init(&certs);
    certs_issue(&certs, "ca", "metad:1", 0);
    certs_issue(&certs, "ca", "blockd:1", 0);
    station_make(&metad, &certs, "metad:1", ROLE_METAD, of_metad, &by_metad);
    station_make(&blockd, &certs, "blockd:1", ROLE_BLOCKD, of_blockd, &by_blockd);
    struct station *opener = metad_opens ? &metad : &blockd, *other = metad_opens ? &blockd : &metad;
    assert_int_equal(runtime_listen(other->runtime, "127.0.0.1", 0, &port), ERR_OK);
    runtime_set_address(opener->runtime, metad_opens ? ROLE_BLOCKD : ROLE_METAD, 1, "127.0.0.1", port);
    probe_add(&group, metad.runtime, 0, ACTOR_GROUP, 0, NULL, NULL);
    probe_add(&agent, blockd.runtime, 0, ACTOR_AGENT, 0, NULL, NULL);
    station_start(&metad);
    station_start(&blockd);
    struct probe *asker = metad_opens ? &group : &agent;
    struct ask ask = {.to = metad_opens ? address_node(ROLE_BLOCKD, 1, ACTOR_STORE, 0)
                                        : address_node(ROLE_METAD, 1, ACTOR_GROUP, 0),
                      .type = metad_opens ? MESSAGE_SHARD_GET : MESSAGE_STORE_HEARTBEAT,
                      .stream = 1};
    probe_do(asker, ask_run, &ask);
    assert_true(probe_wait(asker, 1));
    assert_int_equal(asker->events[0].kind, EVENT_CLOSED);
    assert_int_equal(asker->events[0].peer.err, ERR_OLD_INCARNATION);
    station_stop(&metad);
    station_stop(&blockd);
    assert_int_equal(by_metad.count, 0);
    if (of_metad > of_blockd && !metad_opens) {
        assert_int_equal(by_blockd.node, 1);
        assert_true(by_blockd.incarnation == of_metad);
    }
    assert_true(by_blockd.count == 0 || of_metad > of_blockd);
    probe_forget(&group);
    probe_forget(&agent);
    runtime_destroy(metad.runtime);
    runtime_destroy(blockd.runtime);
    certs_deinit(&certs);
}

static void test_two_incarnations(void **state)
{
    (void)state;
    for (int metad_opens = 0; metad_opens < 2; metad_opens++) {
        incarnations_meet(NEW, OLD, metad_opens);
        incarnations_meet(OLD, NEW, metad_opens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),           cmocka_unit_test(test_echo_across_loops),
        cmocka_unit_test(test_many_in_flight), cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_peer_lost),      cmocka_unit_test(test_resets),
        cmocka_unit_test(test_asker_lost),     cmocka_unit_test(test_no_address),
        cmocka_unit_test(test_two_addresses),  cmocka_unit_test(test_two_incarnations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
