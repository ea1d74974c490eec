/* A connection's way out. Stands between net.c and libuv.
 *
 * Happy path: frames wait as slices; conn_flush turns them into TLS records of 16 KiB (small frames share one) in
 * chunks of 256 KiB given to uv_write, at most CONN_IN_FLIGHT_BYTES ahead of the socket.
 *
 * How it fails: a connection that cannot drain, or whose write fails, is closed; whoever sent there hears so. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/net.h"

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

void conn_drop_chunk(struct conn *conn)
{
    if (conn->chunk != NULL) {
        conn->cipher_bytes -= conn->chunk->bytes;
        chunk_give(conn->net, conn->chunk);
        conn->chunk = NULL;
    }
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

void conn_port_out(struct tls_port *port, const uint8_t *data, size_t bytes)
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
