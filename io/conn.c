/* One connection: socket, TLS, frames. Stands between libuv and the routing of net.c.
 *
 * In:  libuv fills the loop's input buffer; SSL takes records from it and decrypts into the frame's destination: 32
 * fixed bytes, then a slice for the header, then a page-aligned slice for the body, each allocated only after its
 * length was checked (and for the body, after the header's CRC). All of a read is consumed before it returns. Out:
 * frames wait as slices; conn_flush turns them into TLS records of 16 KiB (small frames share one) in chunks of 256 KiB
 * given to uv_write, at most CONN_IN_FLIGHT_BYTES ahead of the socket. How it fails: conn_refuse for what the peer is
 * or sends (said to it, logged, counted), conn_close for the rest. */
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

/* ---- frames waiting ---- */

void out_queue_init(struct out_queue *queue)
{
    *queue = (struct out_queue){0};
    queue->tail = &queue->head;
}

void out_queue_push(struct out_queue *queue, struct out_frame *frame)
{
    frame->next = NULL;
    *queue->tail = frame;
    queue->tail = &frame->next;
    queue->bytes += FRAME_FIXED_BYTES + (uint64_t)frame->header.bytes + frame->body.bytes;
    queue->frames++;
}

struct out_frame *out_queue_pop(struct out_queue *queue)
{
    struct out_frame *frame = queue->head;
    if (frame != NULL) {
        queue->head = frame->next;
        if (queue->head == NULL) {
            queue->tail = &queue->head;
        }
        queue->bytes -= FRAME_FIXED_BYTES + (uint64_t)frame->header.bytes + frame->body.bytes;
        queue->frames--;
    }
    return frame;
}

void out_queue_clear(struct out_queue *queue)
{
    for (struct out_frame *frame = out_queue_pop(queue); frame != NULL; frame = out_queue_pop(queue)) {
        out_frame_destroy(frame);
    }
}

struct out_frame *out_frame_create(uint16_t type, uint8_t flags, uint64_t stream, uint32_t target, struct slice header,
                                   struct slice body)
{
    CHECK(header.bytes <= LIMIT_FRAME_HEADER_BYTES && body.bytes <= LIMIT_FRAME_BODY_BYTES);
    struct out_frame *out = mem_alloc(sizeof *out);
    struct frame frame = {
        .flags = flags,
        .type = type,
        .stream = stream,
        .target = target,
        .header_bytes = header.bytes,
        .body_bytes = body.bytes,
    };
    frame_encode(&frame, header.data, out->fixed);
    out->header = header;
    out->body = body;
    return out;
}

void out_frame_destroy(struct out_frame *frame)
{
    slice_drop(&frame->header);
    slice_drop(&frame->body);
    free(frame);
}

/* ---- output ---- */

static struct chunk *chunk_take(struct net *net)
{
    struct chunk *chunk = net->chunks;
    if (chunk == NULL) {
        chunk = malloc(sizeof *chunk);
        CHECK(chunk != NULL);
    } else {
        net->chunks = chunk->next;
        net->chunk_count--;
    }
    chunk->next = NULL;
    chunk->bytes = 0;
    return chunk;
}

static void chunk_give(struct net *net, struct chunk *chunk)
{
    if (net->chunk_count >= CHUNKS_KEPT || net->closing) {
        free(chunk);
        return;
    }
    chunk->next = net->chunks;
    net->chunks = chunk;
    net->chunk_count++;
}

static void conn_written(uv_write_t *request, int status)
{
    struct chunk *chunk = request->data;
    struct conn *conn = chunk->conn;
    conn->cipher_bytes -= chunk->bytes;
    chunk_give(conn->net, chunk);
    if (conn->state == CONN_CLOSED) {
        return;
    }
    conn->drained_ns = clock_now_ns();
    if (status < 0) {
        conn_close(conn, ERR_CLOSED);
    } else if (conn->out.head != NULL || conn->state == CONN_CLOSING) {
        conn_flush(conn);
    }
}

/* Hands the present chunk to the socket. A last, partly filled one is tried at once: small messages then cost neither a
 * callback nor a change of what is polled. */
static void conn_write_chunk(struct conn *conn)
{
    struct chunk *chunk = conn->chunk;
    if (chunk == NULL) {
        return;
    }
    conn->chunk = NULL;
    chunk->request.data = chunk;
    uv_stream_t *stream = (uv_stream_t *)&conn->tcp;
    uv_buf_t buffer = uv_buf_init((char *)chunk->data, chunk->bytes);
    int rc = chunk->bytes < CONN_CHUNK_BYTES ? uv_try_write(stream, &buffer, 1) : UV_EAGAIN;
    if (rc == (int)chunk->bytes) {
        conn->cipher_bytes -= chunk->bytes;
        chunk_give(conn->net, chunk);
        return;
    }
    if (rc > 0) {
        buffer = uv_buf_init((char *)chunk->data + rc, chunk->bytes - (unsigned)rc);
    }
    rc = rc >= 0 || rc == UV_EAGAIN ? uv_write(&chunk->request, stream, &buffer, 1, conn_written) : rc;
    if (rc < 0) {
        conn->cipher_bytes -= chunk->bytes;
        chunk_give(conn->net, chunk);
        conn_close(conn, ERR_CLOSED);
    }
}

static void conn_port_out(struct tls_port *port, const uint8_t *data, size_t bytes)
{
    struct conn *conn = (struct conn *)((char *)port - offsetof(struct conn, port));
    if (conn->cipher_bytes == 0) {
        conn->drained_ns = clock_now_ns();
    }
    while (bytes > 0 && conn->state != CONN_CLOSED) {
        if (conn->chunk == NULL) {
            conn->chunk = chunk_take(conn->net);
            conn->chunk->conn = conn;
        }
        uint32_t room = CONN_CHUNK_BYTES - conn->chunk->bytes;
        uint32_t take = bytes < room ? (uint32_t)bytes : room;
        memcpy(conn->chunk->data + conn->chunk->bytes, data, take);
        conn->chunk->bytes += take;
        conn->cipher_bytes += take;
        data += take;
        bytes -= take;
        if (conn->chunk->bytes == CONN_CHUNK_BYTES) {
            conn_write_chunk(conn);
        }
    }
}

/* The next contiguous unsent piece of a frame; at its end, 0 bytes. */
static uint32_t out_frame_piece(const struct out_frame *frame, const uint8_t **ret_data)
{
    uint64_t offset = frame->offset;
    if (offset < FRAME_FIXED_BYTES) {
        *ret_data = frame->fixed + offset;
        return (uint32_t)(FRAME_FIXED_BYTES - offset);
    }
    offset -= FRAME_FIXED_BYTES;
    if (offset < frame->header.bytes) {
        *ret_data = frame->header.data + offset;
        return (uint32_t)(frame->header.bytes - offset);
    }
    offset -= frame->header.bytes;
    *ret_data = frame->body.data + offset;
    return (uint32_t)(frame->body.bytes - offset);
}

static bool conn_encrypt(struct conn *conn, const uint8_t *data, uint32_t bytes)
{
    tls_forget_errors();
    int written = SSL_write(conn->ssl, data, (int)bytes);
    if (written == (int)bytes) {
        return true;
    }
    char text[128];
    enum err err = tls_error(conn->ssl, text);
    io_log(LOG_WARN, err, "%s: write: %s", conn->name, text);
    conn_close(conn, err);
    return false;
}

/* Encrypts queued frames, a record at a time: a large piece straight from its slice, small ones gathered first. */
static void conn_encrypt_queue(struct conn *conn)
{
    uint8_t *stage = conn->net->stage;
    uint32_t staged = 0;
    while (conn->out.head != NULL && conn->cipher_bytes + staged < CONN_IN_FLIGHT_BYTES) {
        struct out_frame *frame = conn->out.head;
        const uint8_t *data;
        uint32_t bytes = out_frame_piece(frame, &data);
        if (bytes == 0) {
            out_frame_destroy(out_queue_pop(&conn->out));
            continue;
        }
        uint32_t take = CONN_RECORD_BYTES - staged;
        take = bytes < take ? bytes : take;
        frame->offset += take;
        if (take == CONN_RECORD_BYTES) {
            if (!conn_encrypt(conn, data, take)) {
                return;
            }
            continue;
        }
        memcpy(stage + staged, data, take);
        staged += take;
        if (staged == CONN_RECORD_BYTES) {
            staged = 0;
            if (!conn_encrypt(conn, stage, CONN_RECORD_BYTES)) {
                return;
            }
        }
    }
    if (staged > 0) {
        conn_encrypt(conn, stage, staged);
    }
}

static void conn_was_shut(uv_shutdown_t *request, int status)
{
    (void)status;
    struct conn *conn = request->data;
    if (conn->state != CONN_CLOSED && status < 0) {
        conn_close(conn, ERR_CLOSED);
    }
}

void conn_flush(struct conn *conn)
{
    if (conn->state == CONN_CLOSED || conn->state == CONN_CONNECTING) {
        return;
    }
    if (SSL_is_init_finished(conn->ssl)) {
        conn_encrypt_queue(conn);
    }
    bool end = conn->state == CONN_CLOSING && conn->out.head == NULL && !conn->shut;
    if (end) {
        conn->shut = true;
        tls_forget_errors();
        if (SSL_is_init_finished(conn->ssl)) {
            SSL_shutdown(conn->ssl);
        }
    }
    if (conn->state != CONN_CLOSED) {
        conn_write_chunk(conn);
    }
    if (end && conn->state != CONN_CLOSED) {
        conn->shutdown.data = conn;
        if (uv_shutdown(&conn->shutdown, (uv_stream_t *)&conn->tcp, conn_was_shut) < 0) {
            conn_close(conn, ERR_CLOSED);
        }
    }
}

void conn_mark(struct conn *conn)
{
    if (!conn->dirty && conn->state != CONN_CLOSED) {
        conn->dirty = true;
        conn->dirty_next = conn->net->dirty;
        conn->net->dirty = conn;
    }
}

void conn_queue(struct conn *conn, struct out_frame *frame)
{
    if (conn->state == CONN_CLOSED || conn->state == CONN_CLOSING) {
        out_frame_destroy(frame);
        return;
    }
    out_queue_push(&conn->out, frame);
    if (conn->out.bytes > CONN_QUEUE_BYTES || conn->out.frames > CONN_QUEUE_FRAMES) {
        io_log(LOG_WARN, ERR_BUSY, "%s does not take what is sent to it: %llu bytes wait; closed", conn->name,
               (unsigned long long)conn->out.bytes);
        conn_close(conn, ERR_BUSY);
        return;
    }
    conn_mark(conn);
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
    if (conn->chunk != NULL) {
        conn->cipher_bytes -= conn->chunk->bytes;
        chunk_give(conn->net, conn->chunk);
        conn->chunk = NULL;
    }
    if (conn->dirty) {
        struct conn **link = &conn->net->dirty;
        while (*link != conn) {
            link = &(*link)->dirty_next;
        }
        *link = conn->dirty_next;
        conn->dirty = false;
    }
    net_conn_remove(conn->net, conn);
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
    io_log(LOG_WARN, err, "%s %s refused: %s", conn->accepted ? "connection from" : "connection to", conn->name, text);
    conn->port.in_left = 0;
    if (conn->state == CONN_CONNECTING || !conn->heard_any) {
        conn_close(conn, err);
        return;
    }
    struct out_frame *begun = conn->out.head != NULL && conn->out.head->offset > 0 ? out_queue_pop(&conn->out) : NULL;
    out_queue_clear(&conn->out);
    if (begun != NULL) {
        out_queue_push(&conn->out, begun);
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
    if (!net_conn_add(net, conn)) {
        io_log(LOG_WARN, ERR_BUSY, "too many connections: one is refused");
        uv_close((uv_handle_t *)&conn->tcp, conn_discarded);
        return;
    }
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
