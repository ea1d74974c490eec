/* What does not belong on the wire: wrong authority, expired, plain TCP, garbage, lying lengths, wrong hello. Each is
 * refused with its code in the log and, where TLS stands, on the wire; the server serves on. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "probe.h"
#include "proto/cairn.pb-c.h"
#include "proto/frame.h"
#include "proto/message.h"

struct field {
    struct certs certs, foreign;
    struct station server, client;
    struct probe group, asker;
    uint16_t port;
};

static int setup(void **state)
{
    struct field *field = calloc(1, sizeof *field);
    char text[256];
    certs_init(&field->certs);
    certs_init(&field->foreign);
    certs_issue(&field->certs, "ca", "metad:1", 0);
    certs_issue(&field->certs, "ca", "device:5", 0);
    certs_issue(&field->certs, "ca", "device:6", -60);
    certs_issue(&field->certs, "ca", "janitor:1", 0);
    certs_issue(&field->foreign, "ca", "device:5", 0);
    struct runtime_config config =
        station_config(&field->certs, "metad:1", ROLE_METAD, 1, certs_file(&field->certs, "server", "log"));
    assert_int_equal(runtime_create(&config, &field->server.runtime, text), ERR_OK);
    assert_int_equal(runtime_listen(field->server.runtime, "127.0.0.1", 0, &field->port), ERR_OK);
    probe_add(&field->group, field->server.runtime, 0, ACTOR_GROUP, 0, NULL, NULL);
    field->group.echo = true;
    station_start(&field->server);
    *state = field;
    return 0;
}

static int teardown(void **state)
{
    struct field *field = *state;
    assert_int_equal(station_stop(&field->server), 0);
    probe_forget(&field->group);
    runtime_destroy(field->server.runtime);
    certs_deinit(&field->certs);
    certs_deinit(&field->foreign);
    free(field);
    assert_int_equal(slice_live_bytes(), 0);
    return 0;
}

/* True when the server's log has a line with this code. Read after the server closed, so it stands there. */
static bool logged(const struct field *field, enum err err)
{
    static char log[1 << 16];
    char code[64];
    FILE *file = fopen(certs_file(&field->certs, "server", "log"), "r");
    size_t bytes = file ? fread(log, 1, sizeof log - 1, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    log[bytes] = 0;
    snprintf(code, sizeof code, "\"code\":\"%s\"", err_name(err));
    return strstr(log, code) != NULL;
}

/* ---- a raw client ---- */

struct raw {
    int fd;
    SSL_CTX *context;
    SSL *ssl;
};

static void raw_connect(struct raw *raw, const struct field *field)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(field->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *raw = (struct raw){.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct timeval hang = {.tv_sec = PROBE_HANG_S};
    setsockopt(raw->fd, SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof hang);
    assert_int_equal(connect(raw->fd, (struct sockaddr *)&address, sizeof address), 0);
}

/* Handshakes with a certificate (NULL: none). The client's side always succeeds in TLS 1.3. */
static void raw_tls(struct raw *raw, const struct certs *certs, const char *name)
{
    raw->context = SSL_CTX_new(TLS_client_method());
    if (name != NULL) {
        assert_int_equal(SSL_CTX_use_certificate_file(raw->context, certs_file(certs, name, "crt"), SSL_FILETYPE_PEM),
                         1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(raw->context, certs_file(certs, name, "key"), SSL_FILETYPE_PEM),
                         1);
    }
    raw->ssl = SSL_new(raw->context);
    SSL_set_fd(raw->ssl, raw->fd);
    assert_int_equal(SSL_connect(raw->ssl), 1);
}

static void raw_close(struct raw *raw)
{
    SSL_free(raw->ssl);
    SSL_CTX_free(raw->context);
    close(raw->fd);
}

static void raw_send(struct raw *raw, uint16_t type, uint8_t flags, struct slice header)
{
    uint8_t bytes[4096];
    struct frame frame = {.type = type, .flags = flags, .header_bytes = header.bytes};
    frame_encode(&frame, header.data, bytes);
    if (header.bytes > 0) {
        memcpy(bytes + FRAME_FIXED_BYTES, header.data, header.bytes);
    }
    assert_true(SSL_write(raw->ssl, bytes, (int)(FRAME_FIXED_BYTES + header.bytes)) > 0);
    slice_drop(&header);
}

static struct slice hello_make(uint32_t version, uint8_t cluster, uint32_t role, uint32_t id)
{
    uint8_t uuid[16] = {cluster, 2, 3};
    Cairn__Hello hello = CAIRN__HELLO__INIT;
    hello.version = version;
    hello.role = role;
    hello.id = id;
    hello.cluster.data = uuid;
    hello.cluster.len = cluster ? sizeof uuid : 0;
    hello.cluster_incarnation = 1;
    return proto_pack(&hello);
}

/* Reads until the end: the code of the error frame among what came, or OK when there was none. */
static enum err raw_read_refusal(struct raw *raw)
{
    enum err refused = ERR_OK;
    for (;;) {
        uint8_t fixed[FRAME_FIXED_BYTES], header[4096];
        struct frame frame;
        size_t got = 0;
        while (got < sizeof fixed) {
            int read = SSL_read(raw->ssl, fixed + got, (int)(sizeof fixed - got));
            if (read <= 0) {
                return refused;
            }
            got += (size_t)read;
        }
        assert_int_equal(frame_decode(fixed, sizeof header, 0, &frame), ERR_OK);
        for (got = 0; got < frame.header_bytes;) {
            int read = SSL_read(raw->ssl, header + got, (int)(frame.header_bytes - got));
            assert_true(read > 0);
            got += (size_t)read;
        }
        assert_int_equal(frame_check(fixed, header, frame.header_bytes), ERR_OK);
        if (frame.flags & MESSAGE_ERROR) {
            uint32_t leader;
            assert_int_equal(frame.type, MESSAGE_HELLO);
            refused = error_reply_decode(slice_borrow(header, frame.header_bytes), &leader);
        }
    }
}

static void ask_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    (void)argument;
    fx_send(fx, address_node(ROLE_METAD, 1, ACTOR_GROUP, 0), MESSAGE_MAP_GET, 1, slice_copy("hi", 2),
            (struct slice){0});
}

/* A proper device is still served. */
static void expect_served(struct field *field)
{
    char text[256];
    struct runtime_config config =
        station_config(&field->certs, "device:5", ROLE_DEVICE, 5, certs_file(&field->certs, "client", "log"));
    memset(&config.cluster, 0, sizeof config.cluster); /* it does not know its cluster yet */
    config.cluster_incarnation = 0;
    assert_int_equal(runtime_create(&config, &field->client.runtime, text), ERR_OK);
    probe_add(&field->asker, field->client.runtime, 0, ACTOR_CLIENT, 0, NULL, NULL);
    runtime_set_address(field->client.runtime, ROLE_METAD, 1, "localhost", field->port);
    station_start(&field->client);
    probe_do(&field->asker, ask_run, NULL);
    assert_true(probe_wait(&field->asker, 1));
    assert_int_equal(field->asker.events[0].kind, EVENT_MESSAGE);
    assert_int_equal(field->asker.events[0].message.flags, MESSAGE_REPLY);
    assert_memory_equal(field->asker.events[0].message.header.data, "hi", 2);
    station_stop(&field->client);
    probe_forget(&field->asker);
    runtime_destroy(field->client.runtime);
}

/* ---- TLS ---- */

static void test_plain_tcp(void **state)
{
    struct field *field = *state;
    struct raw raw;
    char byte;
    raw_connect(&raw, field);
    assert_true(write(raw.fd, "GET / HTTP/1.1\r\n\r\n", 18) == 18);
    assert_true(read(raw.fd, &byte, 1) <= 0);
    raw_close(&raw);
    assert_true(logged(field, ERR_PLAIN_TCP));
    expect_served(field);
}

static void refused_by_tls(struct field *field, const struct certs *certs, const char *name, enum err err)
{
    struct raw raw;
    raw_connect(&raw, field);
    raw_tls(&raw, certs, name);
    assert_int_equal(raw_read_refusal(&raw), ERR_OK); /* an alert, no frame */
    raw_close(&raw);
    assert_true(logged(field, err));
    assert_int_equal(runtime_net_counters(field->server.runtime).accepted_connections, 0);
    expect_served(field);
}

static void test_other_authority(void **state)
{
    struct field *field = *state;
    refused_by_tls(field, &field->foreign, "device:5", ERR_TLS_UNTRUSTED);
}

static void test_expired(void **state)
{
    struct field *field = *state;
    refused_by_tls(field, &field->certs, "device:6", ERR_TLS_EXPIRED);
}

static void test_no_certificate(void **state)
{
    struct field *field = *state;
    refused_by_tls(field, NULL, NULL, ERR_TLS_UNTRUSTED);
}

static void test_tls_garbage(void **state)
{
    struct field *field = *state;
    struct raw raw;
    uint8_t junk[512];
    memset(junk, 0xff, sizeof junk);
    junk[0] = 0x16;
    raw_connect(&raw, field);
    assert_true(write(raw.fd, junk, sizeof junk) == sizeof junk);
    while (read(raw.fd, junk, sizeof junk) > 0) {}
    raw_close(&raw);
    assert_true(logged(field, ERR_TLS_FAILED));
    expect_served(field);
}

/* ---- frames ---- */

static enum err refused_after(struct field *field, const char *name, void (*send)(struct raw *raw))
{
    struct raw raw;
    raw_connect(&raw, field);
    raw_tls(&raw, &field->certs, name);
    send(&raw);
    enum err err = raw_read_refusal(&raw);
    raw_close(&raw);
    assert_true(logged(field, err));
    assert_int_equal(runtime_net_counters(field->server.runtime).refused_connections, 1);
    assert_int_equal(field->group.echoed, 0);
    expect_served(field);
    return err;
}

static void good_hello(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, hello_make(FRAME_VERSION, 1, ROLE_DEVICE, 5));
}

static void send_garbage(struct raw *raw)
{
    uint8_t junk[FRAME_FIXED_BYTES];
    memset(junk, 0x5a, sizeof junk);
    assert_true(SSL_write(raw->ssl, junk, sizeof junk) == sizeof junk);
}

static void send_lengths(struct raw *raw, uint32_t header_bytes, uint32_t body_bytes)
{
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame frame = {.type = MESSAGE_MAP_GET};
    frame_encode(&frame, NULL, fixed);
    put_u32(fixed + 20, header_bytes);
    put_u32(fixed + 24, body_bytes);
    assert_true(SSL_write(raw->ssl, fixed, sizeof fixed) == sizeof fixed);
}

static void send_huge_unauth(struct raw *raw)
{
    send_lengths(raw, LIMIT_FRAME_UNAUTH_BYTES, 1);
}
static void send_huge_header(struct raw *raw)
{
    good_hello(raw);
    send_lengths(raw, LIMIT_FRAME_HEADER_BYTES + 1, 0);
}
static void send_huge_body(struct raw *raw)
{
    good_hello(raw);
    send_lengths(raw, 0, UINT32_MAX);
}
static void send_garbage_later(struct raw *raw)
{
    good_hello(raw);
    send_garbage(raw);
}
static void send_bad_crc(struct raw *raw)
{
    good_hello(raw);
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame frame = {.type = MESSAGE_MAP_GET};
    frame_encode(&frame, NULL, fixed);
    fixed[16] ^= 1;
    assert_true(SSL_write(raw->ssl, fixed, sizeof fixed) == sizeof fixed);
}
static void send_bad_version(struct raw *raw)
{
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame frame = {.type = MESSAGE_HELLO};
    frame_encode(&frame, NULL, fixed);
    fixed[4] = FRAME_VERSION + 7;
    assert_true(SSL_write(raw->ssl, fixed, sizeof fixed) == sizeof fixed);
}
static void send_request_first(struct raw *raw)
{
    raw_send(raw, MESSAGE_MAP_GET, 0, slice_copy("x", 1));
}
static void send_hello_version(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, hello_make(FRAME_VERSION + 1, 1, ROLE_DEVICE, 5));
}
static void send_other_cluster(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, hello_make(FRAME_VERSION, 9, ROLE_DEVICE, 5));
}
static void send_other_role(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, hello_make(FRAME_VERSION, 1, ROLE_METAD, 5));
}
static void send_other_id(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, hello_make(FRAME_VERSION, 1, ROLE_DEVICE, 6));
}
static void send_bad_hello(struct raw *raw)
{
    raw_send(raw, MESSAGE_HELLO, 0, slice_copy("\xff\xff\xff\xff", 4));
}
static void send_forged_reply(struct raw *raw)
{
    good_hello(raw);
    raw_send(raw, MESSAGE_MAP_GET, MESSAGE_REPLY, slice_copy("x", 1));
}
static void send_nothing(struct raw *raw)
{
    (void)raw;
}

#define REFUSAL(name, certificate, send, code)                                                                         \
    static void test_##name(void **state)                                                                              \
    {                                                                                                                  \
        assert_int_equal(refused_after(*state, certificate, send), code);                                              \
    }

REFUSAL(garbage, "device:5", send_garbage, ERR_BAD_FRAME)
REFUSAL(garbage_later, "device:5", send_garbage_later, ERR_BAD_FRAME)
REFUSAL(huge_unauth, "device:5", send_huge_unauth, ERR_TOO_LARGE)
REFUSAL(huge_header, "device:5", send_huge_header, ERR_TOO_LARGE)
REFUSAL(huge_body, "device:5", send_huge_body, ERR_TOO_LARGE)
REFUSAL(bad_crc, "device:5", send_bad_crc, ERR_BAD_FRAME)
REFUSAL(bad_version, "device:5", send_bad_version, ERR_BAD_VERSION)
REFUSAL(request_first, "device:5", send_request_first, ERR_BAD_FRAME)
REFUSAL(hello_version, "device:5", send_hello_version, ERR_BAD_VERSION)
REFUSAL(other_cluster, "device:5", send_other_cluster, ERR_WRONG_CLUSTER)
REFUSAL(other_role, "device:5", send_other_role, ERR_WRONG_ROLE)
REFUSAL(other_id, "device:5", send_other_id, ERR_WRONG_ROLE)
REFUSAL(bad_hello, "device:5", send_bad_hello, ERR_BAD_PROTO)
REFUSAL(forged_reply, "device:5", send_forged_reply, ERR_BAD_FRAME)
REFUSAL(unknown_role, "janitor:1", send_nothing, ERR_WRONG_ROLE)

/* ---- bad neighbours ---- */

/* A peer that asks and never reads: what waits for it is bounded, then it is closed. */
static void test_never_reads(void **state)
{
    struct field *field = *state;
    struct raw raw;
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame frame = {.type = MESSAGE_MAP_GET, .body_bytes = LIMIT_FRAME_BODY_BYTES};
    frame_encode(&frame, NULL, fixed);
    uint8_t *body = calloc(1, LIMIT_FRAME_BODY_BYTES);
    raw_connect(&raw, field);
    raw_tls(&raw, &field->certs, "device:5");
    good_hello(&raw);
    unsigned sent = 0; /* each is echoed: 20 of 16 MiB are more than any queue and socket buffers hold */
    while (sent < 20 && SSL_write(raw.ssl, fixed, sizeof fixed) > 0 &&
           SSL_write(raw.ssl, body, (int)LIMIT_FRAME_BODY_BYTES) > 0) {
        sent++;
    }
    assert_true(sent < 20);
    raw_close(&raw);
    free(body);
    assert_true(logged(field, ERR_BUSY));
    expect_served(field);
}

static void turn_run(struct probe *probe, void *argument, struct effects *fx)
{
    (void)probe;
    (void)argument;
    fx_timer(fx, 9, 1);
}

/* Out of descriptors: accepting pauses and comes back. */
static void test_out_of_descriptors(void **state)
{
    struct field *field = *state;
    struct rlimit old, limit;
    struct raw raws[8];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(field->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int highest = 0;
    probe_do(&field->group, turn_run, NULL);
    assert_true(probe_wait(&field->group, 1)); /* the server runs and has all it needs */
    for (int i = 0; i < 8; i++) {
        raws[i] = (struct raw){.fd = socket(AF_INET, SOCK_STREAM, 0)};
        highest = raws[i].fd > highest ? raws[i].fd : highest;
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    limit = old;
    limit.rlim_cur = (rlim_t)highest + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(connect(raws[i].fd, (struct sockaddr *)&address, sizeof address), 0);
    }
    /* Two turns of the server's loop later it has looked at its listening socket. */
    for (unsigned turn = 2; turn <= 3; turn++) {
        probe_do(&field->group, turn_run, NULL);
        assert_true(probe_wait(&field->group, turn));
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_true(logged(field, ERR_BUSY));
    for (int i = 0; i < 8; i++) {
        close(raws[i].fd);
    }
    expect_served(field);
}

/* ---- configuration ---- */

static void test_own_certificate(void **state)
{
    struct field *field = *state;
    struct runtime *runtime = NULL;
    char text[256] = "";
    struct runtime_config config = station_config(&field->certs, "device:5", ROLE_METAD, 5, NULL);
    assert_int_equal(runtime_create(&config, &runtime, text), ERR_CONFIG);
    assert_non_null(strstr(text, "metad:5"));
    config = station_config(&field->certs, "metad:1", ROLE_METAD, 1, NULL);
    config.key_file = certs_file(&field->certs, "device:5", "key");
    assert_int_equal(runtime_create(&config, &runtime, text), ERR_CONFIG);
    config.cert_file = "/nonexistent/cert.pem";
    assert_int_equal(runtime_create(&config, &runtime, text), ERR_CONFIG);
    assert_non_null(strstr(text, "/nonexistent/cert.pem"));
    assert_null(runtime);
}

static void test_port_taken(void **state)
{
    struct field *field = *state;
    struct runtime *runtime = NULL;
    char text[256];
    uint16_t port;
    struct runtime_config config =
        station_config(&field->certs, "device:5", ROLE_DEVICE, 5, certs_file(&field->certs, "other", "log"));
    assert_int_equal(runtime_create(&config, &runtime, text), ERR_OK);
    assert_int_equal(runtime_listen(runtime, "127.0.0.1", field->port, &port), ERR_IN_USE);
    runtime_destroy(runtime);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_plain_tcp),       CASE(test_other_authority), CASE(test_expired),       CASE(test_no_certificate),
        CASE(test_tls_garbage),     CASE(test_garbage),         CASE(test_garbage_later), CASE(test_huge_unauth),
        CASE(test_huge_header),     CASE(test_huge_body),       CASE(test_bad_crc),       CASE(test_bad_version),
        CASE(test_request_first),   CASE(test_hello_version),   CASE(test_other_cluster), CASE(test_other_role),
        CASE(test_other_id),        CASE(test_bad_hello),       CASE(test_forged_reply),  CASE(test_unknown_role),
        CASE(test_own_certificate), CASE(test_port_taken),      CASE(test_never_reads),   CASE(test_out_of_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
