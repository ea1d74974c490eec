/* The network half of a loop: accepting, and routing of frames. Stands between conn.c and the inboxes.
 *
 * In:  a request is admitted by its row (message_admit) before any actor sees it and goes to (row's actor, target); a
 *      reply goes to the actor whose slot stands in its stream. Refused requests are answered on the same stream.
 * Out: a SEND with a connection goes out on it, from whichever loop; else to the node's connection of this loop.
 * Accepting: loop 0 polls the listening sockets and deals new connections out to the network loops in turn. Out of
 * descriptors, it pauses for a moment instead of spinning. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "io/net.h"
#include "proto/message.h"

#define STREAM_BITS     48
#define STREAM_MASK     ((1ull << STREAM_BITS) - 1)
#define ACCEPT_BATCH    64
#define ACCEPT_PAUSE_MS 100
#define SWEEP_MS        1000
#define LISTEN_BACKLOG  1024

/* A connection's id: loop (8 bits), generation of its place (32), place (24). Generations start at 1. */
#define CONN_PLACE_BITS 24
#define CONN_LOOP_SHIFT 56

/* ---- places ---- */

static void net_sweep(uv_timer_t *timer)
{
    struct net *net = timer->data;
    uint64_t now = clock_now_ns();
    for (unsigned long i = 0; i < net->place_count; i++) {
        if (net->places[i].conn != NULL) {
            conn_sweep(net->places[i].conn, now);
        }
    }
    if (net->conn_count == 0) {
        uv_timer_stop(timer);
    }
}

bool net_conn_add(struct net *net, struct conn *conn)
{
    if (net->conn_count >= CONN_COUNT) {
        return false;
    }
    if (net->free_place == 0) {
        net->places = mem_grow(net->places, &net->place_capacity, net->place_count + 1, sizeof *net->places);
        net->free_place = (uint32_t)++net->place_count;
    }
    uint32_t place = net->free_place - 1;
    net->free_place = net->places[place].next_free;
    net->places[place].conn = conn;
    net->places[place].generation++;
    conn->place = place;
    conn->id = (uint64_t)net->loop->index << CONN_LOOP_SHIFT |
               (uint64_t)net->places[place].generation << CONN_PLACE_BITS | place;
    if (net->conn_count++ == 0) {
        uv_timer_start(&net->sweep, net_sweep, SWEEP_MS, SWEEP_MS);
    }
    return true;
}

void net_conn_remove(struct net *net, struct conn *conn)
{
    CHECK(net->places[conn->place].conn == conn && net->conn_count > 0);
    net->places[conn->place].conn = NULL;
    net->places[conn->place].next_free = net->free_place;
    net->free_place = conn->place + 1;
    net->conn_count--;
}

static struct conn *net_conn_find(struct net *net, uint64_t id)
{
    uint64_t place = id & ((1ull << CONN_PLACE_BITS) - 1);
    struct conn *conn = place < net->place_count ? net->places[place].conn : NULL;
    return conn != NULL && conn->id == id ? conn : NULL;
}

/* ---- frames out ---- */

struct answer_task {
    struct task task;
    uint64_t conn;
    struct out_frame *frame;
};

static void net_answer(struct net *net, uint64_t id, struct out_frame *frame)
{
    struct conn *conn = net_conn_find(net, id);
    if (conn == NULL || conn->state != CONN_OPEN) {
        out_frame_destroy(frame); /* the asker is gone */
        return;
    }
    conn->unanswered -= conn->unanswered > 0;
    conn_queue(conn, frame);
}

static void answer_task_run(struct loop *loop, struct task *task, bool drop)
{
    struct answer_task *answer = (struct answer_task *)task;
    if (drop) {
        out_frame_destroy(answer->frame);
    } else {
        net_answer(loop->net, answer->conn, answer->frame);
    }
    free(answer);
}

void net_send(struct net *net, struct runtime_actor *sender, struct effect *effect)
{
    struct address to = effect->send.to;
    bool reply = (effect->send.flags & MESSAGE_REPLY) != 0;
    CHECK(effect->send.stream <= STREAM_MASK);
    uint64_t slot = reply ? to.sender : sender->slot;
    CHECK(slot <= UINT16_MAX);
    struct out_frame *frame =
        out_frame_create(effect->send.type, effect->send.flags, slot << STREAM_BITS | effect->send.stream,
                         effect->send.target, effect->send.header, effect->send.body);
    if (to.conn == 0) {
        CHECK(to.role != ROLE_NONE);
        node_send(node_get(net, to.role, to.node), sender, to, frame);
        return;
    }
    uint64_t loop = to.conn >> CONN_LOOP_SHIFT;
    CHECK(loop < net->runtime->loop_count);
    if (loop == net->loop->index) {
        net_answer(net, to.conn, frame);
        return;
    }
    struct answer_task *answer = mem_alloc(sizeof *answer);
    answer->task.run = answer_task_run;
    answer->conn = to.conn;
    answer->frame = frame;
    loop_post(&net->runtime->loops[loop], &answer->task);
}

/* ---- frames in ---- */

static void net_frame_error(struct conn *conn, const struct frame *frame, enum err err)
{
    atomic_fetch_add(&conn->net->runtime->refused_frames, 1);
    runtime_note_refused(conn->net->runtime, err);
    conn->refusals++;
    if ((conn->refusals & (conn->refusals - 1)) == 0) {
        const struct message_row *row = message_row_find(frame->type);
        char request[96];
        snprintf(request, sizeof request, "%s/%llu", conn->name, (unsigned long long)(frame->stream & STREAM_MASK));
        io_log_request(LOG_WARN, err, request, "%s: request %s (type %u) for %u refused, its %lluth refusal",
                       conn->name, row ? row->name : "?", frame->type, frame->target,
                       (unsigned long long)conn->refusals);
    }
    conn_queue(conn, out_frame_create(frame->type, MESSAGE_REPLY | MESSAGE_ERROR, frame->stream, 0,
                                      error_reply_encode(err, err_text(err), 0), (struct slice){0}));
}

static void net_watch(struct conn *conn, struct runtime_actor *actor)
{
    for (unsigned long i = 0; i < conn->watcher_count; i++) {
        if (conn->watchers[i] == actor) {
            return;
        }
    }
    conn->watchers =
        mem_grow(conn->watchers, &conn->watcher_capacity, conn->watcher_count + 1, sizeof(struct runtime_actor *));
    conn->watchers[conn->watcher_count++] = actor;
}

/* The actor a frame is for, or NULL and why not. */
static struct runtime_actor *net_frame_actor(struct conn *conn, const struct frame *frame, enum err *ret_err)
{
    struct runtime *runtime = conn->net->runtime;
    if (frame->flags & MESSAGE_REPLY) {
        return runtime_actor_of_slot(runtime, (uint16_t)(frame->stream >> STREAM_BITS));
    }
    *ret_err = message_admit(frame->type, conn->peer.role);
    if (*ret_err != ERR_OK) {
        return NULL;
    }
    struct runtime_actor *actor = runtime_actor_find(runtime, message_row_find(frame->type)->actor, frame->target);
    if (atomic_load_explicit(&runtime->refusing, memory_order_relaxed)) {
        *ret_err = ERR_CLOSED;
        actor = NULL;
    } else if (actor == NULL) {
        *ret_err = ERR_WRONG_GROUP;
    } else if (inbox_full(actor)) {
        *ret_err = ERR_BUSY;
        actor = NULL;
    }
    return actor;
}

void net_frame(struct conn *conn, const struct frame *frame, struct slice header, struct slice body)
{
    bool reply = (frame->flags & MESSAGE_REPLY) != 0;
    struct runtime_actor *actor = NULL;
    enum err err = ERR_OK;
    if ((frame->flags & ~(MESSAGE_REPLY | MESSAGE_ERROR)) || (!reply && (frame->flags & MESSAGE_ERROR)) ||
        (reply && conn->accepted)) {
        conn_refuse(conn, ERR_BAD_FRAME, reply ? "a reply to nothing that was asked there" : "unknown flags");
    } else {
        actor = net_frame_actor(conn, frame, &err);
    }
    if (actor == NULL) {
        slice_drop(&header);
        slice_drop(&body);
        if (err != ERR_OK) {
            net_frame_error(conn, frame, err);
        }
        return;
    }
    struct inbox_event *event = inbox_event_create(actor, EVENT_MESSAGE);
    event->event.message = (struct message){
        .from = {.role = conn->peer.role,
                 .node = conn->peer.id,
                 .sender = reply ? 0 : (uint32_t)(frame->stream >> STREAM_BITS),
                 .conn = conn->id},
        .peer = conn->peer,
        .type = frame->type,
        .flags = frame->flags,
        .target = reply ? actor->index : frame->target,
        .stream = frame->stream & STREAM_MASK,
        .header = header,
        .body = body,
    };
    if (!reply) {
        net_watch(conn, actor);
        conn->unanswered += (frame->stream & STREAM_MASK) != 0; /* stream 0 expects no answer */
    }
    inbox_post(event);
}

/* ---- accepting ---- */

struct adopt_task {
    struct task task;
    int fd;
};

static void adopt_task_run(struct loop *loop, struct task *task, bool drop)
{
    struct adopt_task *adopt = (struct adopt_task *)task;
    if (drop) {
        close(adopt->fd);
    } else {
        conn_accept(loop->net, adopt->fd);
    }
    free(adopt);
}

static void net_accept_ready(uv_poll_t *poll, int status, int events);

static void net_accept_resume(uv_timer_t *timer)
{
    struct net *net = timer->data;
    for (unsigned long i = 0; i < net->listener_count; i++) {
        uv_poll_start(&net->listeners[i], UV_READABLE, net_accept_ready);
    }
}

static void net_accept_pause(struct net *net, int number)
{
    io_log(LOG_ERROR, ERR_BUSY, "accept: %s; raise the limit of open files; accepting pauses", strerror(number));
    for (unsigned long i = 0; i < net->listener_count; i++) {
        uv_poll_stop(&net->listeners[i]);
    }
    uv_timer_start(&net->accept_pause, net_accept_resume, ACCEPT_PAUSE_MS, 0);
}

static void net_accept_ready(uv_poll_t *poll, int status, int events)
{
    struct net *net = poll->data;
    struct runtime *runtime = net->runtime;
    (void)status;
    (void)events;
    int listener = runtime->listeners[poll - net->listeners];
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                net_accept_pause(net, errno);
            }
            return;
        }
        unsigned network = runtime->config.network_loops;
        unsigned loops = network > 0 && network < runtime->loop_count ? network : runtime->loop_count;
        struct loop *loop = &runtime->loops[net->next_loop++ % loops];
        if (loop == net->loop) {
            conn_accept(net, fd);
            continue;
        }
        struct adopt_task *adopt = mem_alloc(sizeof *adopt);
        adopt->task.run = adopt_task_run;
        adopt->fd = fd;
        loop_post(loop, &adopt->task);
    }
}

static int net_listen_socket(const struct addrinfo *address)
{
    int one = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
        bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        int number = errno;
        close(fd);
        errno = number;
        return -1;
    }
    return fd;
}

enum err runtime_listen(struct runtime *runtime, const char *host, uint16_t port, uint16_t *ret_port)
{
    CHECK(!runtime->running);
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    snprintf(service, sizeof service, "%u", port);
    int rc = getaddrinfo(host, service, &hints, &found);
    if (rc != 0) {
        io_log(LOG_ERROR, ERR_CONFIG, "listen on %s: %s", host, gai_strerror(rc));
        return ERR_CONFIG;
    }
    int fd = net_listen_socket(found);
    int number = errno;
    freeaddrinfo(found);
    if (fd < 0) {
        enum err err = number == EADDRINUSE ? ERR_IN_USE : ERR_CONFIG;
        io_log(LOG_ERROR, err, "listen on %s:%u: %s", host, port, strerror(number));
        return err;
    }
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof bound;
    CHECK(getsockname(fd, (struct sockaddr *)&bound, &bytes) == 0);
    *ret_port = ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                                  : ((struct sockaddr_in *)&bound)->sin_port);
    runtime->listeners =
        mem_grow(runtime->listeners, &runtime->listener_capacity, runtime->listener_count + 1, sizeof(int));
    runtime->listeners[runtime->listener_count++] = fd;
    return ERR_OK;
}

/* ---- life ---- */

struct net *net_create(struct loop *loop)
{
    struct net *net = mem_alloc(sizeof *net);
    net->loop = loop;
    net->runtime = loop->runtime;
    net->input = mem_alloc(CONN_INPUT_BYTES);
    net->stage = mem_alloc(CONN_RECORD_BYTES);
    uv_timer_init(&loop->uv, &net->sweep);
    net->sweep.data = net;
    uv_timer_init(&loop->uv, &net->accept_pause);
    net->accept_pause.data = net;
    return net;
}

void net_start(struct net *net)
{
    if (net->loop->index != 0 || net->runtime->listener_count == 0) {
        return;
    }
    net->listener_count = net->runtime->listener_count;
    net->listeners = mem_alloc(net->listener_count * sizeof *net->listeners);
    for (unsigned long i = 0; i < net->listener_count; i++) {
        int rc = uv_poll_init(&net->loop->uv, &net->listeners[i], net->runtime->listeners[i]);
        CHECK(rc == 0);
        net->listeners[i].data = net;
        uv_poll_start(&net->listeners[i], UV_READABLE, net_accept_ready);
    }
}

void net_stop_listening(struct net *net)
{
    for (unsigned long i = 0; i < net->listener_count; i++) {
        uv_poll_stop(&net->listeners[i]);
        shutdown(net->runtime->listeners[i], SHUT_RDWR); /* who knocks now is refused at once, not left waiting */
    }
    uv_timer_stop(&net->accept_pause);
}

uint64_t net_unfinished(const struct net *net)
{
    uint64_t count = 0;
    for (unsigned long i = 0; i < net->place_count; i++) {
        const struct conn *conn = net->places[i].conn;
        if (conn != NULL && conn->accepted && conn->state == CONN_OPEN) {
            count += conn->unanswered + conn->out.frames + (conn->cipher_bytes > 0);
        }
    }
    return count;
}

void net_flush(struct net *net)
{
    while (net->dirty != NULL) {
        struct conn *conn = net->dirty;
        net->dirty = conn->dirty_next;
        conn->dirty = false;
        conn_flush(conn);
    }
}

void net_close(struct net *net)
{
    net->closing = true;
    for (unsigned long i = 0; i < net->place_count; i++) {
        if (net->places[i].conn != NULL) {
            conn_close(net->places[i].conn, ERR_CLOSED);
        }
    }
    for (unsigned long i = 0; i < net->node_count; i++) {
        node_close(net->nodes[i]);
    }
    for (unsigned long i = 0; i < net->listener_count; i++) {
        uv_close((uv_handle_t *)&net->listeners[i], NULL);
    }
    uv_close((uv_handle_t *)&net->sweep, NULL);
    uv_close((uv_handle_t *)&net->accept_pause, NULL);
}

void net_destroy(struct net *net)
{
    for (unsigned long i = 0; i < net->node_count; i++) {
        node_destroy(net->nodes[i]);
    }
    while (net->chunks != NULL) {
        struct chunk *chunk = net->chunks;
        net->chunks = chunk->next;
        free(chunk);
    }
    free(net->nodes);
    free(net->places);
    free(net->listeners);
    free(net->input);
    free(net->stage);
    free(net);
}
