/* Connections and nodes, shared by the files of the network half of io/: conn.c (one connection: bytes, TLS, frames),
 * net.c (accepting, routing of frames and answers), node.c (the outgoing connection to each node). Private to io/.
 * Everything here belongs to one loop and its thread. */
#ifndef CAIRN_IO_NET_H
#define CAIRN_IO_NET_H

#include "io/internal.h"
#include "io/tls.h"
#include "proto/frame.h"

#define CONN_INPUT_BYTES     (256u << 10) /* one read from a socket */
#define CONN_CHUNK_BYTES     (256u << 10) /* ciphertext of one write to a socket */
#define CONN_RECORD_BYTES    (16u << 10)  /* plain bytes of one TLS record */
#define CONN_IN_FLIGHT_BYTES (1u << 20)   /* ciphertext made ahead of the socket */
#define CONN_QUEUE_BYTES     (64u << 20)  /* frames waiting; a connection that holds more is closed */
#define CONN_QUEUE_FRAMES    65536u
#define CONN_COUNT           RUNTIME_CONNECTIONS_MAX /* connections of one loop */
#define CONN_LINGER_NS       (2ull * 1000000000)     /* for the peer to read why it was refused */
#define CHUNKS_KEPT          16u

struct net;
struct node;

struct out_frame {
    struct out_frame *next;
    uint64_t offset; /* bytes of fixed part, header and body that have gone into TLS */
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct slice header, body;
};
struct out_queue {
    struct out_frame *head, **tail;
    uint64_t bytes, frames;
};
void out_queue_init(struct out_queue *queue);
void out_queue_push(struct out_queue *queue, struct out_frame *frame);
struct out_frame *out_queue_pop(struct out_queue *queue);
void out_queue_clear(struct out_queue *queue);
/* Takes header and body. Their sizes are within LIMIT_FRAME_*. */
struct out_frame *out_frame_create(uint16_t type, uint8_t flags, uint64_t stream, uint32_t target, struct slice header,
                                   struct slice body);
void out_frame_destroy(struct out_frame *frame);

/* Ciphertext on its way into the socket. */
struct chunk {
    uv_write_t request;
    struct chunk *next;
    struct conn *conn;
    uint32_t bytes;
    uint8_t data[CONN_CHUNK_BYTES];
};

enum conn_state {
    CONN_CONNECTING, /* TCP; outgoing only */
    CONN_HANDSHAKE,  /* TLS */
    CONN_HELLO,      /* ours is sent, theirs not yet accepted */
    CONN_OPEN,
    CONN_CLOSING, /* refused: flushing the reason, ignoring input */
    CONN_CLOSED,  /* waits for libuv to let go of it */
};

enum conn_part { PART_FIXED, PART_HEADER, PART_BODY };

struct conn {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_shutdown_t shutdown;
    struct net *net;
    struct node *node; /* outgoing: whom it was made for; NULL: accepted, or given up by its node */
    bool accepted;
    uint64_t id; /* never 0, never reused */
    uint32_t place;
    enum conn_state state;
    struct principal peer;
    char name[64];
    SSL *ssl;
    struct tls_port port;
    bool heard_any, shut;
    /* input */
    enum conn_part part;
    uint32_t got;
    uint8_t fixed[FRAME_FIXED_BYTES];
    struct frame frame;
    struct slice header, body;
    /* output */
    struct out_queue out;
    struct chunk *chunk;
    uint64_t cipher_bytes; /* in `chunk` and in writes under way */
    bool dirty;
    struct conn *dirty_next;
    uint64_t since_ns, heard_ns, pinged_ns, drained_ns; /* since: of the present state */
    uint64_t refusals;
    uint64_t unanswered; /* accepted: requests an actor has got and not answered yet */
    /* accepted: the actors that received from it */
    struct runtime_actor **watchers;
    unsigned long watcher_count, watcher_capacity;
};

struct conn_place {
    struct conn *conn;
    uint32_t generation;
    uint32_t next_free;
};

struct net {
    struct loop *loop;
    struct runtime *runtime;
    struct conn_place *places;
    unsigned long place_count, place_capacity;
    uint32_t free_place; /* index + 1; 0: none */
    uint32_t conn_count;
    struct node **nodes;
    unsigned long node_count, node_capacity;
    struct conn *dirty;
    struct chunk *chunks;
    unsigned chunk_count;
    uv_timer_t sweep;
    uv_timer_t accept_pause;
    uv_poll_t *listeners;
    unsigned long listener_count;
    unsigned next_loop;
    bool closing;
    uint8_t *input; /* CONN_INPUT_BYTES */
    uint8_t *stage; /* CONN_RECORD_BYTES */
};

/* conn.c */
void conn_accept(struct net *net, int fd);
/* Starts to connect for `node`; NULL when not even a socket could be had. */
struct conn *conn_connect(struct net *net, struct node *node, const struct sockaddr *address);
/* Queues a frame (given); closes the connection when it cannot drain. */
void conn_queue(struct conn *conn, struct out_frame *frame);
void conn_mark(struct conn *conn);
void conn_flush(struct conn *conn);
/* Ends it at once; whoever depends on it hears `err`. Safe to call twice. */
void conn_close(struct conn *conn, enum err err);
/* Logs and counts why, tells the peer if TLS stands, then closes. */
void conn_refuse(struct conn *conn, enum err err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The hello was accepted. */
void conn_open(struct conn *conn);
/* Looks at its clocks; once a second. */
void conn_sweep(struct conn *conn, uint64_t now_ns);

/* conn_out.c, for conn.c: the port's way out, and giving up what was not yet written. */
void conn_port_out(struct tls_port *port, const uint8_t *data, size_t bytes);
void conn_drop_chunk(struct conn *conn);

/* hello.c */
void hello_send(struct conn *conn);
/* A HELLO frame came, in whatever state. */
void hello_take(struct conn *conn, const struct frame *frame, struct slice header);

/* net.c: a whole frame of an open connection; takes header and body. */
void net_frame(struct conn *conn, const struct frame *frame, struct slice header, struct slice body);
/* Gives the connection a place and an id; false when there are too many. */
bool net_conn_add(struct net *net, struct conn *conn);
void net_conn_remove(struct net *net, struct conn *conn);

/* node.c */
struct node *node_get(struct net *net, uint8_t role, uint32_t id);
/* Sends (given) for `sender` over the node's connection, which is made if there is none. */
void node_send(struct node *node, struct runtime_actor *sender, struct address to, struct out_frame *frame);
void node_opened(struct node *node);
/* Its connection is gone, or was never made: everyone who sent there hears `err`. */
void node_lost(struct node *node, enum err err, uint64_t open_ns);
void node_expected(const struct node *node, struct principal *ret_principal);
void node_close(struct node *node);
void node_destroy(struct node *node);

#endif
