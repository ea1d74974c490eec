/* The outgoing connection of a loop to each node it sends to. Stands between a core's SEND and conn.c.
 *
 * Happy path: the first message to a node looks its address up and connects; what is sent meanwhile waits; once the
 * hello is accepted it goes out in order. How it fails: connection refused, wrong certificate, lost: every actor that
 * had sent there hears EVENT_CLOSED with the addresses it used, what waits is dropped, and the next attempt comes after
 * a pause that doubles (with jitter) while attempts keep failing. Messages sent during the pause wait for that attempt.
 * A network that resets what is open, again and again, makes no pause longer: leaders would lose their followers to it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "io/net.h"

#define NODE_PAUSE_LEAST_MS 10u
#define NODE_PAUSE_MOST_MS  2000u
#define NODE_STEADY_NS      (100ull * 1000000) /* a connection that was open so long resets the pause */

struct node_sender {
    struct runtime_actor *actor;
    struct address to;
};

struct node {
    struct net *net;
    struct principal who;
    struct conn *conn;
    bool open, resolving, pausing;
    struct out_queue waiting;
    struct node_sender *senders;
    unsigned long sender_count, sender_capacity, sender_last;
    struct address_try attempt;
    uint64_t failures;
    uint64_t pause_ms;
    uv_timer_t pause;
    uv_getaddrinfo_t resolve;
};

static void node_connect(struct node *node);

struct node *node_get(struct net *net, uint8_t role, uint32_t id)
{
    for (unsigned long i = 0; i < net->node_count; i++) {
        if (net->nodes[i]->who.role == role && net->nodes[i]->who.id == id) {
            return net->nodes[i];
        }
    }
    struct node *node = mem_alloc(sizeof *node);
    node->net = net;
    node->who = (struct principal){.role = role, .id = id};
    out_queue_init(&node->waiting);
    uv_timer_init(&net->loop->uv, &node->pause);
    node->pause.data = node;
    net->nodes = mem_grow(net->nodes, &net->node_capacity, net->node_count + 1, sizeof(struct node *));
    net->nodes[net->node_count++] = node;
    return node;
}

void node_expected(const struct node *node, struct principal *ret_principal)
{
    *ret_principal = node->who;
}

/* ---- who hears of a loss ---- */

static void node_note_sender(struct node *node, struct runtime_actor *actor, struct address to)
{
    for (unsigned long i = 0; i < node->sender_count; i++) {
        unsigned long at = (node->sender_last + i) % node->sender_count;
        struct node_sender *sender = &node->senders[at];
        if (sender->actor == actor && sender->to.actor == to.actor && sender->to.index == to.index) {
            node->sender_last = at;
            return;
        }
    }
    node->senders = mem_grow(node->senders, &node->sender_capacity, node->sender_count + 1, sizeof *node->senders);
    node->sender_last = node->sender_count;
    node->senders[node->sender_count++] = (struct node_sender){
        .actor = actor,
        .to = address_node(node->who.role, node->who.id, to.actor, to.index),
    };
}

static void node_paused(uv_timer_t *timer)
{
    struct node *node = timer->data;
    node->pausing = false;
    if (node->waiting.head != NULL && node->conn == NULL && !node->resolving) {
        node_connect(node);
    }
}

void node_lost(struct node *node, enum err err, uint64_t open_ns)
{
    node->conn = NULL;
    if (!node->open) { /* the node's other address, if it has one, is next */
        node->attempt.kind = ADDRESS_KINDS - 1 - node->attempt.kind;
    }
    node->open = false;
    out_queue_clear(&node->waiting);
    for (unsigned long i = 0; i < node->sender_count; i++) {
        inbox_post_closed(node->senders[i].actor, node->senders[i].to, err);
    }
    node->sender_count = node->sender_last = 0;
    if (node->net->closing) {
        return;
    }
    if (open_ns >= NODE_STEADY_NS) {
        node->failures = node->pause_ms = 0;
    }
    node->failures++;
    if ((node->failures & (node->failures - 1)) == 0) {
        io_log(LOG_WARN, err, "no connection to %s:%u (%llu in a row)", tls_role_name(node->who.role), node->who.id,
               (unsigned long long)node->failures);
    }
    node->pause_ms = node->pause_ms ? node->pause_ms * 2 : NODE_PAUSE_LEAST_MS;
    if (node->pause_ms > NODE_PAUSE_MOST_MS) {
        node->pause_ms = NODE_PAUSE_MOST_MS;
    }
    node->pausing = true;
    uint64_t jittered_ms = node->pause_ms / 2 + loop_random(node->net->loop) % (node->pause_ms / 2 + 1);
    uv_timer_start(&node->pause, node_paused, jittered_ms, 0);
}

/* ---- connecting ---- */

static void node_connect_to(struct node *node, const struct sockaddr *address)
{
    node->conn = conn_connect(node->net, node, address);
    if (node->conn == NULL) {
        node_lost(node, ERR_UNREACHABLE, 0);
    }
}

static void node_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct node *node = request->data;
    node->resolving = false;
    if (!node->net->closing) {
        if (status < 0 || found == NULL) {
            io_log(LOG_WARN, ERR_UNREACHABLE, "the host name of %s:%u does not resolve: %s",
                   tls_role_name(node->who.role), node->who.id, status < 0 ? uv_strerror(status) : "no address");
            node_lost(node, ERR_UNREACHABLE, 0);
        } else {
            node_connect_to(node, found->ai_addr);
        }
    }
    uv_freeaddrinfo(found);
}

static void node_connect(struct node *node)
{
    struct node_address address;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    CHECK(node->conn == NULL && !node->resolving && !node->pausing);
    if (!address_find(node->net->runtime, node->who, &node->attempt, &address)) {
        node_lost(node, ERR_UNREACHABLE, 0);
    } else if (uv_ip4_addr(address.host, address.port, &in) == 0) {
        node_connect_to(node, (struct sockaddr *)&in);
    } else if (uv_ip6_addr(address.host, address.port, &in6) == 0) {
        node_connect_to(node, (struct sockaddr *)&in6);
    } else {
        char port[8];
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
        snprintf(port, sizeof port, "%u", address.port);
        node->resolve.data = node;
        node->resolving = true;
        if (uv_getaddrinfo(&node->net->loop->uv, &node->resolve, node_resolved, address.host, port, &hints) < 0) {
            node->resolving = false;
            node_lost(node, ERR_UNREACHABLE, 0);
        }
    }
}

/* ---- sending ---- */

void node_send(struct node *node, struct runtime_actor *sender, struct address to, struct out_frame *frame)
{
    node_note_sender(node, sender, to);
    if (node->open) {
        conn_queue(node->conn, frame);
        return;
    }
    out_queue_push(&node->waiting, frame);
    if (node->waiting.bytes > CONN_QUEUE_BYTES || node->waiting.frames > CONN_QUEUE_FRAMES) {
        io_log(LOG_WARN, ERR_BUSY, "too much waits for a connection to %s:%u; dropped", tls_role_name(node->who.role),
               node->who.id);
        if (node->conn != NULL) {
            conn_close(node->conn, ERR_BUSY);
        } else if (!node->pausing && !node->resolving) {
            node_lost(node, ERR_BUSY, 0);
        } else {
            out_queue_clear(&node->waiting);
        }
        return;
    }
    if (node->conn == NULL && !node->resolving && !node->pausing) {
        node_connect(node);
    }
}

void node_opened(struct node *node)
{
    CHECK(node->conn != NULL && !node->open);
    node->open = true;
    for (struct out_frame *frame = out_queue_pop(&node->waiting); frame != NULL;
         frame = out_queue_pop(&node->waiting)) {
        if (node->conn == NULL) {
            out_frame_destroy(frame);
        } else {
            conn_queue(node->conn, frame);
        }
    }
}

/* ---- the end ---- */

void node_close(struct node *node)
{
    uv_close((uv_handle_t *)&node->pause, NULL);
    if (node->resolving) {
        uv_cancel((uv_req_t *)&node->resolve);
    }
}

void node_destroy(struct node *node)
{
    out_queue_clear(&node->waiting);
    free(node->senders);
    free(node);
}
