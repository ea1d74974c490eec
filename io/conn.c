/* One connection: its life, and what comes in. Stands between libuv and the routing of net.c; conn_out.c is the way
 * out.
 *
 * Happy path: libuv fills the loop's input buffer; SSL takes records from it and decrypts into the frame's destination:
 * 32 fixed bytes, then a slice for the header, then a page-aligned slice for the body, each allocated only after its
 * length was checked (and for the body, after the header's CRC). All of a read is consumed before it returns.
 *
 * How it fails: conn_refuse for what the peer is or sends (said to it, logged, counted), conn_close for the rest. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "io/net.h"
#include "proto/message.h"

#define TLS_BYTE_HANDSHAKE 0x16
#define TLS_BYTE_ALERT     0x15

static const uint8_t conn_moves[] = {
    [CONN_CONNECTING] = 1 << CONN_HANDSHAKE | 1 << CONN_CLOSED,
    [CONN_HANDSHAKE] = 1 << CONN_HELLO | 1 << CONN_CLOSING | 1 << CONN_CLOSED,
    [CONN_HELLO] = 1 << CONN_OPEN | 1 << CONN_CLOSING | 1 << CONN_CLOSED,
    [CONN_OPEN] = 1 << CONN_CLOSING | 1 << CONN_CLOSED,
    [CONN_CLOSING] = 1 << CONN_CLOSED,
    [CONN_CLOSED] = 0,
};

static void conn_move(struct conn *conn, enum conn_state state)
{
    CHECK(conn_moves[conn->state] & 1 << state);
    conn->state = state;
    conn->since_ns = clock_now_ns();
}

void conn_open(struct conn *conn)
{
    conn_move(conn, CONN_OPEN);
    if (conn->accepted) {
        atomic_fetch_add(&conn->net->runtime->accepted_connections, 1);
    } else if (conn->node != NULL) {
        node_opened(conn->node);
    }
}

/* ---- the end ---- */

/* Tells those who depend on it, once. */
static void conn_tell_lost(struct conn *conn, enum err err)
{
    struct node *node = conn->node;
    conn->node = NULL;
    if (node != NULL) {
        node_lost(node, err, conn->state == CONN_OPEN ? clock_now_ns() - conn->since_ns : 0);
    }
    struct address peer = {.role = conn->peer.role, .node = conn->peer.id, .conn = conn->id};
    for (unsigned long i = 0; i < conn->watcher_count; i++) {
        inbox_post_closed(conn->watchers[i], peer, err);
    }
    conn->watcher_count = 0;
}

static void conn_released(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    CHECK(conn->cipher_bytes == 0 && !conn->dirty);
    SSL_free(conn->ssl);
    free(conn->watchers);
    free(conn);
}

void conn_close(struct conn *conn, enum err err)
{
    if (conn->state == CONN_CLOSED) {
        return;
    }
    conn_tell_lost(conn, err);
    conn_move(conn, CONN_CLOSED);
    conn->port.in_left = 0;
    out_queue_clear(&conn->out);
    slice_drop(&conn->header);
    slice_drop(&conn->body);
    conn_drop_chunk(conn);
    if (conn->dirty) {
        struct conn **link = &conn->net->dirty;
        while (*link != conn) {
            link = &(*link)->dirty_next;
        }
        *link = conn->dirty_next;
        conn->dirty = false;
    }
    net_conn_remove(conn->net, conn);
    if (conn->accepted) {
        atomic_fetch_sub(&conn->net->runtime->connections, 1);
    }
    uv_close((uv_handle_t *)&conn->tcp, conn_released);
}

void conn_refuse(struct conn *conn, enum err err, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (conn->state == CONN_CLOSED || conn->state == CONN_CLOSING) {
        return;
    }
    atomic_fetch_add(&conn->net->runtime->refused_connections, 1);
    runtime_note_refused(conn->net->runtime, err);
    io_log(LOG_WARN, err, "%s %s refused: %s", conn->accepted ? "connection from" : "connection to", conn->name, text);
    conn->port.in_left = 0;
    if (conn->state == CONN_CONNECTING || !conn->heard_any) {
        conn_close(conn, err);
        return;
    }
    /* Our hello stays in front of the refusal of another incarnation: it says which one this is. */
    bool keep = err == ERR_OLD_INCARNATION && conn->state == CONN_HELLO;
    bool begun = conn->out.head != NULL && (conn->out.head->offset > 0 || keep);
    struct out_frame *first = begun ? out_queue_pop(&conn->out) : NULL;
    out_queue_clear(&conn->out);
    if (first != NULL) {
        out_queue_push(&conn->out, first);
    }
    if (conn->state == CONN_HELLO || conn->state == CONN_OPEN) {
        out_queue_push(&conn->out, out_frame_create(MESSAGE_HELLO, MESSAGE_REPLY | MESSAGE_ERROR, 0, 0,
                                                    error_reply_encode(err, text, 0), (struct slice){0}));
    }
    conn_tell_lost(conn, err);
    conn_move(conn, CONN_CLOSING);
    conn_mark(conn);
}

/* ---- input ---- */

/* A TLS call did not succeed: nothing to read yet, the end, or a failure. */
static void conn_tls_failed(struct conn *conn, int result)
{
    int reason = SSL_get_error(conn->ssl, result);
    if (reason == SSL_ERROR_WANT_READ) {
        return;
    }
    if (reason == SSL_ERROR_ZERO_RETURN) {
        conn_close(conn, ERR_CLOSED);
        return;
    }
    char text[128];
    enum err err = tls_error(conn->ssl, text);
    conn_refuse(conn, err, "%s", text);
}

/* The fixed part is here: believe nothing, check, then allocate. */
static bool conn_take_fixed(struct conn *conn)
{
    bool open = conn->state == CONN_OPEN;
    enum err err = frame_decode(conn->fixed, open ? LIMIT_FRAME_HEADER_BYTES : LIMIT_FRAME_UNAUTH_BYTES,
                                open ? LIMIT_FRAME_BODY_BYTES : LIMIT_FRAME_UNAUTH_BYTES, &conn->frame);
    if (err == ERR_OK && !open &&
        (uint64_t)conn->frame.header_bytes + conn->frame.body_bytes > LIMIT_FRAME_UNAUTH_BYTES) {
        err = ERR_TOO_LARGE;
    }
    if (err != ERR_OK) {
        conn_refuse(conn, err, "%s", err_text(err));
        return false;
    }
    CHECK(conn->header.bytes == 0 && conn->body.bytes == 0);
    conn->header = slice_alloc(conn->frame.header_bytes);
    return true;
}

static bool conn_take_header(struct conn *conn)
{
    enum err err = frame_check(conn->fixed, conn->header.data, conn->header.bytes);
    if (err != ERR_OK) {
        conn_refuse(conn, err, "the frame's checksum does not match");
        return false;
    }
    conn->body = slice_alloc(conn->frame.body_bytes);
    return true;
}

static void conn_take_frame(struct conn *conn)
{
    struct slice header = conn->header, body = conn->body;
    conn->header = conn->body = (struct slice){0};
    if (conn->frame.type == MESSAGE_HELLO) {
        hello_take(conn, &conn->frame, header);
        slice_drop(&header);
        slice_drop(&body);
    } else if (conn->state != CONN_OPEN) {
        slice_drop(&header);
        slice_drop(&body);
        conn_refuse(conn, ERR_BAD_FRAME, "the first frame is not a hello");
    } else {
        net_frame(conn, &conn->frame, header, body);
    }
}

/* A part is complete: go on to the next one that has bytes. */
static void conn_next_part(struct conn *conn)
{
    conn->got = 0;
    if (conn->part == PART_FIXED) {
        if (!conn_take_fixed(conn)) {
            return;
        }
        conn->part = PART_HEADER;
        if (conn->header.bytes > 0) {
            return;
        }
    }
    if (conn->part == PART_HEADER) {
        if (!conn_take_header(conn)) {
            return;
        }
        conn->part = PART_BODY;
        if (conn->body.bytes > 0) {
            return;
        }
    }
    conn->part = PART_FIXED;
    conn_take_frame(conn);
}

static void conn_read_frames(struct conn *conn)
{
    while (conn->state == CONN_HELLO || conn->state == CONN_OPEN) {
        uint8_t *data = conn->part == PART_FIXED    ? conn->fixed
                        : conn->part == PART_HEADER ? conn->header.data
                                                    : conn->body.data;
        uint32_t bytes = conn->part == PART_FIXED    ? FRAME_FIXED_BYTES
                         : conn->part == PART_HEADER ? conn->header.bytes
                                                     : conn->body.bytes;
        CHECK(conn->got < bytes);
        tls_forget_errors();
        int got = SSL_read(conn->ssl, data + conn->got, (int)(bytes - conn->got));
        if (got <= 0) {
            conn_tls_failed(conn, got);
            return;
        }
        conn->got += (uint32_t)got;
        if (conn->got == bytes) {
            conn_next_part(conn);
        }
    }
}

/* TLS stands: who is it, and is it whom we wanted? Then our hello goes first. */
static void conn_handshaken(struct conn *conn)
{
    conn_move(conn, CONN_HELLO);
    struct principal expected = {0};
    enum err err = tls_peer(conn->ssl, &conn->peer);
    if (err != ERR_OK) {
        conn_refuse(conn, err, "the common name of its certificate is not role:id");
        return;
    }
    if (conn->node != NULL) {
        node_expected(conn->node, &expected);
        if (expected.role != conn->peer.role || expected.id != conn->peer.id) {
            conn_refuse(conn, ERR_WRONG_ROLE, "%s:%u answers at the address of %s:%u; correct the address",
                        tls_role_name(conn->peer.role), conn->peer.id, tls_role_name(expected.role), expected.id);
            return;
        }
    }
    snprintf(conn->name, sizeof conn->name, "%s:%u", tls_role_name(conn->peer.role), conn->peer.id);
    hello_send(conn);
}

static void conn_pump(struct conn *conn)
{
    if (!conn->heard_any && conn->state != CONN_CLOSING) {
        if (conn->port.in[0] != TLS_BYTE_HANDSHAKE && conn->port.in[0] != TLS_BYTE_ALERT) {
            conn_refuse(conn, ERR_PLAIN_TCP, "its first byte is 0x%02x, not a TLS record; turn TLS on at the peer",
                        conn->port.in[0]);
            return;
        }
        conn->heard_any = true;
    }
    if (conn->state == CONN_HANDSHAKE) {
        tls_forget_errors();
        int result = SSL_do_handshake(conn->ssl);
        if (result == 1) {
            conn_handshaken(conn);
        } else {
            conn_tls_failed(conn, result);
        }
    }
    conn_read_frames(conn);
    conn->port.in_left = 0; /* what a refused connection still sent */
    conn_mark(conn);
}

static void conn_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    struct conn *conn = handle->data;
    *buffer = uv_buf_init((char *)conn->net->input, CONN_INPUT_BYTES);
}

static void conn_read(uv_stream_t *stream, ssize_t bytes, const uv_buf_t *buffer)
{
    struct conn *conn = stream->data;
    if (bytes == 0 || conn->state == CONN_CLOSED) {
        return;
    }
    if (bytes < 0) {
        if (conn->state == CONN_HANDSHAKE || conn->state == CONN_HELLO) {
            io_log(LOG_WARN, ERR_CLOSED, "%s closed the connection before it said hello", conn->name);
        }
        conn_close(conn, ERR_CLOSED);
        return;
    }
    if (conn->state == CONN_CLOSING) {
        return;
    }
    conn->heard_ns = clock_now_ns();
    conn->port.in = (const uint8_t *)buffer->base;
    conn->port.in_left = (size_t)bytes;
    conn_pump(conn);
}

/* ---- the beginning ---- */

static struct conn *conn_create(struct net *net, struct node *node, enum conn_state state)
{
    struct conn *conn = mem_alloc(sizeof *conn);
    conn->net = net;
    conn->node = node;
    conn->accepted = node == NULL;
    conn->state = state;
    conn->since_ns = conn->heard_ns = conn->drained_ns = clock_now_ns();
    conn->port.out = conn_port_out;
    conn->ssl = tls_session(net->runtime->tls, &conn->port, conn->accepted);
    out_queue_init(&conn->out);
    uv_tcp_init(&net->loop->uv, &conn->tcp);
    conn->tcp.data = conn;
    return conn;
}

static void conn_discarded(uv_handle_t *handle)
{
    struct conn *conn = handle->data;
    SSL_free(conn->ssl);
    free(conn);
}

static void conn_name_address(struct conn *conn, const struct sockaddr *address)
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        uv_ip6_name(in6, host, sizeof host);
        port = ntohs(in6->sin6_port);
    } else if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        uv_ip4_name(in, host, sizeof host);
        port = ntohs(in->sin_port);
    }
    snprintf(conn->name, sizeof conn->name, "%s:%u", host, port);
}

void conn_accept(struct net *net, int fd)
{
    struct conn *conn = conn_create(net, NULL, CONN_HANDSHAKE);
    if (net->closing || uv_tcp_open(&conn->tcp, fd) < 0) {
        close(fd);
        uv_close((uv_handle_t *)&conn->tcp, conn_discarded);
        return;
    }
    struct runtime *runtime = net->runtime;
    if (atomic_load(&runtime->connections) >= atomic_load(&runtime->connections_max) || !net_conn_add(net, conn)) {
        runtime_note_refused(runtime, ERR_BUSY);
        io_log(LOG_WARN, ERR_BUSY, "too many connections: one is refused");
        uv_close((uv_handle_t *)&conn->tcp, conn_discarded);
        return;
    }
    atomic_fetch_add(&runtime->connections, 1);
    struct sockaddr_storage peer = {0};
    int bytes = sizeof peer;
    uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&peer, &bytes);
    conn_name_address(conn, (struct sockaddr *)&peer);
    uv_tcp_nodelay(&conn->tcp, 1);
    if (uv_read_start((uv_stream_t *)&conn->tcp, conn_alloc, conn_read) < 0) {
        conn_close(conn, ERR_CLOSED);
    }
}

static void conn_connected(uv_connect_t *request, int status)
{
    struct conn *conn = request->data;
    if (conn->state == CONN_CLOSED) {
        return;
    }
    if (status < 0) {
        conn_close(conn, ERR_UNREACHABLE);
        return;
    }
    conn_move(conn, CONN_HANDSHAKE);
    uv_tcp_nodelay(&conn->tcp, 1);
    if (uv_read_start((uv_stream_t *)&conn->tcp, conn_alloc, conn_read) < 0) {
        conn_close(conn, ERR_CLOSED);
        return;
    }
    tls_forget_errors();
    int result = SSL_do_handshake(conn->ssl);
    CHECK(result != 1);
    conn_tls_failed(conn, result);
    conn_flush(conn);
}

struct conn *conn_connect(struct net *net, struct node *node, const struct sockaddr *address)
{
    struct conn *conn = conn_create(net, node, CONN_CONNECTING);
    conn_name_address(conn, address);
    conn->connect.data = conn;
    if (!net_conn_add(net, conn)) {
        uv_close((uv_handle_t *)&conn->tcp, conn_discarded);
        return NULL;
    }
    if (uv_tcp_connect(&conn->connect, &conn->tcp, address, conn_connected) < 0) {
        conn->node = NULL;
        conn_close(conn, ERR_UNREACHABLE);
        return NULL;
    }
    return conn;
}

/* ---- clocks ---- */

void conn_sweep(struct conn *conn, uint64_t now_ns)
{
    uint64_t age_ns = now_ns - conn->since_ns;
    switch (conn->state) {
    case CONN_CONNECTING:
    case CONN_HANDSHAKE:
    case CONN_HELLO:
        if (age_ns > LIMIT_HELLO_NS) {
            io_log(LOG_WARN, ERR_TIMEOUT, "%s: no hello in time; closed", conn->name);
            conn_close(conn, ERR_TIMEOUT);
        }
        break;
    case CONN_CLOSING:
        if (age_ns > CONN_LINGER_NS) {
            conn_close(conn, ERR_CLOSED);
        }
        break;
    case CONN_OPEN:
        if (now_ns - conn->heard_ns > LIMIT_IDLE_NS ||
            (conn->cipher_bytes > 0 && now_ns - conn->drained_ns > LIMIT_IDLE_NS)) {
            io_log(LOG_INFO, ERR_TIMEOUT, "%s: silent or stuck for too long; closed", conn->name);
            conn_close(conn, ERR_TIMEOUT);
        } else if (!conn->accepted && now_ns - conn->heard_ns > LIMIT_IDLE_NS / 3 &&
                   now_ns - conn->pinged_ns > LIMIT_IDLE_NS / 3) {
            conn->pinged_ns = now_ns;
            hello_send(conn);
        }
        break;
    case CONN_CLOSED:
        break;
    }
}
