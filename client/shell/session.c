/* A handle: the runtime on a thread of its own, the core, and the mailman between the core and waiting callers. It
 * stands around everything a client does.
 *
 * Happy path: cairn_open reads client.toml and starts the runtime; a call posts its operation, waits on its queue and
 * takes what the mailman (api_step, on the runtime's thread) puts there; cairn_close stops the thread. How it fails:
 * what is wrong with the configuration is said by cairn_open; if the runtime ends by itself, every waiting call hears
 * it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api.h"

int api_fail(struct cairn_error *error, enum err err, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        error->code = (int)err;
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
    }
    return (int)err;
}

const char *cairn_error_name(int code)
{
    return err_name((enum err)code);
}

const char *cairn_error_text(int code)
{
    return err_text((enum err)code);
}

int cairn_exit_code(int code)
{
    return err_exit_code((enum err)code);
}

const char *cairn_workspace(const struct cairn *cairn)
{
    return cairn->config.workspace;
}

uint64_t cairn_wire_bytes(struct cairn *cairn)
{
    pthread_mutex_lock(&cairn->lock);
    uint64_t bytes = cairn->totals.wire_bytes;
    pthread_mutex_unlock(&cairn->lock);
    return bytes;
}

/* ---- the mailman ---- */

/* Under the lock. */
static void waiter_push(struct api_waiter *waiter, struct api_item *item)
{
    item->next = NULL;
    *waiter->tail = item;
    waiter->tail = &item->next;
    pthread_cond_signal(&waiter->cond);
}

static void deliver(struct cairn *c, uint64_t id, struct api_item *item)
{
    pthread_mutex_lock(&c->lock);
    for (struct api_waiter *waiter = c->waiters; waiter != NULL; waiter = waiter->next) {
        if (waiter->id == id) {
            waiter_push(waiter, item);
            pthread_mutex_unlock(&c->lock);
            return;
        }
    }
    pthread_mutex_unlock(&c->lock);
    CHECK(item->type != MESSAGE_CLIENT_DONE);
    api_item_free(item);
}

void api_learn_addresses(struct cairn *c, const Cairn__ClusterMap *map)
{
    struct runtime_peer *metads = mem_alloc(API_METADS_REMEMBERED * sizeof *metads);
    uint32_t metad_count = 0;
    for (size_t i = 0; i < map->n_nodes; i++) {
        const Cairn__MapNode *node = map->nodes[i];
        struct runtime_peer peer;
        char text[CAIRN_TEXT_BYTES];
        snprintf(text, sizeof text, "%u@%s", node->id, node->address);
        if ((node->role != ROLE_BLOCKD && node->role != ROLE_METAD) || !runtime_peer_parse(text, &peer)) {
            continue;
        }
        runtime_learn_address(c->runtime, (enum role)node->role, peer.node, peer.host, peer.port);
        if (node->role == ROLE_METAD && node->state != API_NODE_GONE && metad_count < API_METADS_REMEMBERED) {
            metads[metad_count++] = peer;
        }
    }
    if (metad_count > 0) {
        char path[API_PATH_BYTES];
        api_metads_path(&c->config, path);
        runtime_peers_write(path, metads, metad_count);
    }
    free(metads);
}

static void learn_addresses(struct cairn *c, struct slice header)
{
    struct proto_arena arena = {0};
    Cairn__MapGetReply *reply = NULL;
    enum err err = proto_unpack(&cairn__map_get_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK && reply->map != NULL) {
        api_learn_addresses(c, reply->map);
    }
    proto_arena_deinit(&arena);
}

static void give_keys(struct cairn *c, uint32_t count, struct effects *fx)
{
    char text[API_TEXT_BYTES];
    uint64_t first;
    uint8_t header[16];
    enum err err = api_keys_take(c->config.keys, count, &first, text);
    if (err != ERR_OK) {
        fx_halt(fx, err, "%.150s", text);
        return;
    }
    put_u64(header, first);
    put_u64(header + 8, first + count);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_KEYS, 0, slice_copy(header, sizeof header),
            (struct slice){0});
}

static void api_step(void *actor, const struct event *event, struct effects *fx)
{
    struct cairn *c = actor;
    if (event->kind != EVENT_MESSAGE || event->message.peer.role != ROLE_LOCAL) {
        return;
    }
    const struct message *message = &event->message;
    if (message->type == MESSAGE_CLIENT_MAP) {
        learn_addresses(c, message->header);
        fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_MAP_READY, 0, (struct slice){0}, (struct slice){0});
        return;
    }
    if (message->type == MESSAGE_CLIENT_KEYS_WANTED) {
        give_keys(c, get_u32(message->header.data), fx);
        return;
    }
    struct api_item *item = mem_alloc(sizeof *item);
    item->type = message->type;
    if (message->type == MESSAGE_CLIENT_DONE) {
        item->op = client_op_decode(message->header);
    } else {
        struct reader r = reader_of(message->header.data, message->header.bytes);
        item->a = r.left >= 8 ? reader_u64(&r) : 0;
        item->b = r.left >= 8 ? reader_u64(&r) : 0;
        item->body = slice_ref(message->body);
    }
    deliver(c, message->stream, item);
}

/* The core with what only the shell can do: where a leader is reached that a refusal names. */
static void core_step(void *actor, const struct event *event, struct effects *fx)
{
    struct cairn *c = actor;
    char host[ERROR_HOST_BYTES];
    uint32_t leader = 0;
    uint16_t port = 0;
    if (event->kind == EVENT_MESSAGE && event->message.peer.role == ROLE_METAD &&
        (event->message.flags & MESSAGE_ERROR) != 0 &&
        error_reply_leader(event->message.header, &leader, host, &port)) {
        runtime_learn_address(c->runtime, ROLE_METAD, leader, host, port);
    }
    client_step(c->core, event, fx);
}

/* ---- waiting ---- */

uint64_t api_id(struct cairn *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t id = ++c->next_id;
    pthread_mutex_unlock(&c->lock);
    return id;
}

void api_tell(struct cairn *c, uint16_t type, uint64_t id, const void *header, size_t header_bytes, struct slice body)
{
    runtime_post(c->runtime, address_local(ACTOR_CLIENT, 0), type, id, slice_copy(header, header_bytes), body);
}

void api_post(struct cairn *c, struct api_waiter *waiter, struct client_op *op)
{
    *waiter = (struct api_waiter){.id = op->id};
    pthread_cond_init(&waiter->cond, NULL);
    waiter->tail = &waiter->head;
    pthread_mutex_lock(&c->lock);
    waiter->next = c->waiters;
    c->waiters = waiter;
    pthread_mutex_unlock(&c->lock);
    runtime_post(c->runtime, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_OP, op->id, client_op_encode(op),
                 (struct slice){0});
}

struct api_item *api_wait(struct cairn *c, struct api_waiter *waiter)
{
    pthread_mutex_lock(&c->lock);
    while (waiter->head == NULL && !c->stopped) {
        pthread_cond_wait(&waiter->cond, &c->lock);
    }
    struct api_item *item = waiter->head;
    if (item == NULL) {
        item = mem_alloc(sizeof *item); /* type 0: the runtime has ended */
    } else {
        waiter->head = item->next;
        waiter->tail = waiter->head == NULL ? &waiter->head : waiter->tail;
    }
    pthread_mutex_unlock(&c->lock);
    return item;
}

void api_item_free(struct api_item *item)
{
    slice_drop(&item->body);
    free(item);
}

void api_finish(struct cairn *c, struct api_waiter *waiter, const struct client_op *op)
{
    pthread_mutex_lock(&c->lock);
    struct api_waiter **at = &c->waiters;
    while (*at != waiter) {
        at = &(*at)->next;
    }
    *at = waiter->next;
    struct api_item *item = waiter->head;
    if (op != NULL) {
        c->totals.bytes_sent += op->counts.bytes_sent;
        c->totals.wire_bytes += op->counts.wire_bytes;
        c->totals.shards_sent += op->counts.shards_sent;
    }
    pthread_mutex_unlock(&c->lock);
    pthread_cond_destroy(&waiter->cond);
    while (item != NULL) {
        struct api_item *next = item->next;
        api_item_free(item);
        item = next;
    }
}

/* ---- opening and closing ---- */

static void *session_thread(void *context)
{
    struct cairn *c = context;
    (void)runtime_run(c->runtime, 0);
    pthread_mutex_lock(&c->lock);
    c->stopped = true;
    for (struct api_waiter *waiter = c->waiters; waiter != NULL; waiter = waiter->next) {
        pthread_cond_signal(&waiter->cond);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Whom the core asks: first the metadata nodes of the last map, then those of the file. Where they are: what the file
 * says and what the map said, both. */
static void session_set_metads(struct cairn *c, struct client_params *params)
{
    const struct api_config *config = &c->config;
    for (uint32_t i = 0; i < config->remembered_count; i++) {
        const struct runtime_peer *metad = &config->remembered[i];
        params->metads[params->metad_count++] = metad->node;
        runtime_learn_address(c->runtime, ROLE_METAD, metad->node, metad->host, metad->port);
    }
    for (uint32_t i = 0; i < config->metad_count; i++) {
        const struct runtime_peer *metad = &config->metads[i];
        uint32_t at = 0;
        while (at < config->remembered_count && params->metads[at] != metad->node) {
            at++;
        }
        if (at == config->remembered_count) {
            params->metads[params->metad_count++] = metad->node;
        }
        runtime_set_address(c->runtime, ROLE_METAD, metad->node, metad->host, metad->port);
    }
}

static enum err session_make(struct cairn *c, char *text)
{
    const struct api_config *config = &c->config;
    const char *log = getenv("CAIRN_LOG"); /* what connections do; a caller's errors come back to him */
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct runtime_config runtime_config = {
        .role = config->role,
        .id = config->device,
        .ca_file = config->ca,
        .cert_file = config->cert,
        .key_file = config->key,
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .loops = 1,
        .log_file = log != NULL && log[0] != '\0' ? log : "/dev/null",
        .workers = cores > 2 ? (unsigned)cores - 1 : 2,
    };
    enum err err = runtime_create(&runtime_config, &c->runtime, text);
    if (err != ERR_OK) {
        return err;
    }
    struct client_params params = {
        .cluster = config->cluster,
        .cluster_incarnation = config->cluster_incarnation,
        .map_handshake = true,
        .budget_ns = c->budget_ns,
    };
    session_set_metads(c, &params);
    c->core = client_create(&params);
    runtime_add_actor(c->runtime, 0, ACTOR_CLIENT, 0, core_step, c, NULL, NULL);
    runtime_add_actor(c->runtime, 0, ACTOR_API, 0, api_step, c, NULL, NULL);
    return ERR_OK;
}

int cairn_open(const struct cairn_options *options, struct cairn **ret_cairn, struct cairn_error *error)
{
    const char *path = options->config_file != NULL ? options->config_file : getenv("CAIRN_CONFIG");
    if (path == NULL || path[0] == '\0') {
        return api_fail(error, ERR_CONFIG, "no configuration: name a client.toml with --config or CAIRN_CONFIG");
    }
    char text[API_TEXT_BYTES] = "";
    struct cairn *c = mem_alloc(sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->history_fd = -1;
    c->budget_ns = (uint64_t)(options->timeout_seconds * 1e9);
    enum err err = api_config_read(path, &c->config, text);
    if (err == ERR_OK && options->history_file != NULL) {
        c->history_fd = api_history_open(options->history_file);
        if (c->history_fd < 0) {
            snprintf(text, sizeof text, "%s: the history cannot be opened: %m", options->history_file);
            err = ERR_IO;
        }
    }
    if (err == ERR_OK) {
        err = session_make(c, text);
    }
    if (err == ERR_OK && pthread_create(&c->thread, NULL, session_thread, c) != 0) {
        snprintf(text, sizeof text, "no thread can be started");
        err = ERR_NO_MEMORY;
    }
    if (err != ERR_OK) {
        cairn_close(c);
        return api_fail(error, err, "%s", text[0] != '\0' ? text : err_text(err));
    }
    c->started = true;
    *ret_cairn = c;
    return 0;
}

void cairn_close(struct cairn *c)
{
    if (c == NULL) {
        return;
    }
    CHECK(c->waiters == NULL);
    if (c->started) {
        runtime_stop(c->runtime);
        pthread_join(c->thread, NULL);
    }
    if (c->runtime != NULL) {
        runtime_destroy(c->runtime);
    }
    if (c->core != NULL) {
        client_destroy(c->core);
    }
    if (c->history_fd >= 0) {
        close(c->history_fd);
    }
    api_config_deinit(&c->config);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
