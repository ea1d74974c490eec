/* The workload's actor (workload.h): between a client core, which it stands to as the shell does, and the files that
 * draw, ask and answer (work.h). */
#include "workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "check/judge.h"
#include "io/runtime.h"
#include "proto/message.h"
#include "work.h"

enum { TIMER_NEXT = 1 };
#define REST_NS (30 * MILLISECOND)

enum work_kind work_kind_of(const char *name)
{
    static const char *const names[WORK_KINDS] = {"none",  "put",  "get",    "stat",   "list",
                                                  "mkdir", "move", "remove", "changes"};
    for (int kind = 1; kind < WORK_KINDS; kind++) {
        if (strcmp(names[kind], name) == 0) {
            return (enum work_kind)kind;
        }
    }
    return WORK_NONE;
}

struct workload *workload_create(struct world *world, const struct workload_params *params)
{
    CHECK(params->clients >= 1 && params->clients <= WORKLOAD_CLIENTS && params->at_once <= WORK_AT_ONCE);
    CHECK(params->own_names <= WORK_OWN_NAMES && params->shared_names >= 1 && params->shared_names <= WORK_SHARED);
    CHECK(params->folders < WORKLOAD_FOLDERS);
    struct workload *all = mem_alloc(sizeof *all);
    all->world = world;
    all->params = *params;
    all->contents = contents_create();
    all->history = history_create();
    all->folders[0].known = true;
    for (uint32_t i = 0; i < params->clients; i++) {
        all->clients[i].all = all;
        all->clients[i].number = i + 1;
        all->clients[i].keys = 1 + (i + 1) * 20000ull;
    }
    return all;
}

void workload_destroy(struct workload *all)
{
    for (uint32_t i = 0; i < all->params.clients; i++) {
        for (unsigned w = 0; w < WORK_AT_ONCE; w++) {
            free(all->clients[i].works[w].got);
        }
    }
    contents_destroy(all->contents);
    history_destroy(all->history);
    free(all);
}

struct workload_client *workload_client_of(struct workload *all, uint32_t client)
{
    CHECK(client >= 1 && client <= all->params.clients);
    return &all->clients[client - 1];
}

void workload_node(struct workload_client *client, struct node *node)
{
    client->node = node;
}

static struct work *work_free(struct workload_client *client)
{
    for (unsigned i = 0; i < client->all->params.at_once; i++) {
        if (client->works[i].kind == WORK_NONE) {
            return &client->works[i];
        }
    }
    return NULL;
}

static struct work *work_find(struct workload_client *client, uint64_t id)
{
    for (unsigned i = 0; i < WORK_AT_ONCE; i++) {
        if (client->works[i].kind != WORK_NONE && client->works[i].id == id) {
            return &client->works[i];
        }
    }
    return NULL;
}

/* All that is left of the verification, as many reads at once as the client makes. */
static void begin_verification(struct workload_client *client, struct effects *fx)
{
    struct work *work = work_free(client);
    while (work != NULL && work_draw_verification(client, work)) {
        work_begin(client, work, client->all->world->now_ns, fx);
        work = work_free(client);
    }
}

/* A client that works begins one operation a turn; one that rests or verifies looks up now and then only. */
static void client_next(struct workload_client *client, uint64_t now_ns, struct effects *fx)
{
    struct workload *all = client->all;
    struct work *work = work_free(client);
    bool works = !client->verifying && !all->stopped && !workload_over(all);
    if (client->verifying) {
        begin_verification(client, fx);
    } else if (works && work != NULL && work_draw(client, work)) {
        work_begin(client, work, all->world->now_ns, fx);
    }
    uint64_t pause_ns = works ? all->params.pause_ns : REST_NS;
    fx_timer(fx, TIMER_NEXT, now_ns + 1 + rng_below(&all->world->rng_scenario, 2 * pause_ns));
}

/* ---- what the core says ---- */

static void hear_want(struct workload_client *client, struct work *work, const struct message *m, struct effects *fx)
{
    CHECK(work->kind == WORK_PUT && m->header.bytes == 16);
    const struct contents *contents = client->all->contents;
    uint64_t offset = get_u64(m->header.data), bytes = get_u64(m->header.data + 8);
    uint64_t all = contents_bytes(contents, work->content);
    bytes = offset >= all ? 0 : all - offset < bytes ? all - offset : bytes;
    struct slice body = slice_alloc(bytes);
    if (bytes > 0) {
        contents_read(contents, work->content, offset, bytes, body.data);
    }
    uint8_t header[12];
    put_u64(header, offset);
    put_u32(header + 8, ERR_OK);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_FEED, m->stream, slice_copy(header, sizeof header),
            body);
}

static void hear_data(struct workload_client *client, struct work *work, const struct message *m, struct effects *fx)
{
    CHECK(work->kind == WORK_GET && m->header.bytes == 16);
    uint64_t offset = get_u64(m->header.data);
    work->total_bytes = get_u64(m->header.data + 8);
    WORLD_REQUIRE(client->all->world, offset == work->got_bytes, "a download continues at %lu after %lu bytes",
                  (unsigned long)offset, (unsigned long)work->got_bytes);
    uint8_t *got = realloc(work->got, work->got_bytes + m->body.bytes + 1);
    CHECK(got != NULL);
    work->got = got;
    if (m->body.bytes > 0) {
        memcpy(got + work->got_bytes, m->body.data, m->body.bytes);
    }
    work->got_bytes += m->body.bytes;
    uint8_t header[8];
    put_u64(header, m->body.bytes);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_ACK, m->stream, slice_copy(header, sizeof header),
            (struct slice){0});
}

static void give_keys(struct workload_client *client, uint32_t count, struct effects *fx)
{
    uint8_t header[16];
    put_u64(header, client->keys);
    client->keys += count;
    put_u64(header + 8, client->keys);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_KEYS, 0, slice_copy(header, sizeof header),
            (struct slice){0});
}

static void client_hear(struct workload_client *client, const struct message *m, struct effects *fx)
{
    struct work *work = work_find(client, m->stream);
    if (m->type == MESSAGE_CLIENT_DONE) {
        struct client_op *op = client_op_decode(m->header);
        CHECK(work != NULL && op->id == m->stream);
        work_end(client, work, op, client->all->world->now_ns);
        client_op_destroy(op);
        if (client->verifying) {
            begin_verification(client, fx);
        }
    } else if (m->type == MESSAGE_CLIENT_KEYS_WANTED) {
        give_keys(client, get_u32(m->header.data), fx);
    } else if (m->type == MESSAGE_CLIENT_WANT && work != NULL) {
        hear_want(client, work, m, fx);
    } else if (m->type == MESSAGE_CLIENT_DATA && work != NULL) {
        hear_data(client, work, m, fx);
    }
}

void workload_step(void *self, const struct event *event, struct effects *fx)
{
    struct workload_client *client = self;
    if (event->kind == EVENT_TIMER && event->timer.id == RUNTIME_TIMER_BOOT) {
        for (unsigned i = 0; i < WORK_AT_ONCE; i++) {
            if (client->works[i].kind != WORK_NONE) {
                work_forget(client, &client->works[i]);
            }
        }
        client_next(client, event->now_ns, fx);
    } else if (event->kind == EVENT_TIMER) {
        client_next(client, event->now_ns, fx);
    } else if (event->kind == EVENT_MESSAGE) {
        client_hear(client, &event->message, fx);
    }
}

/* ---- the end ---- */

bool workload_over(const struct workload *all)
{
    return all->counts.begun >= all->params.operations;
}

void workload_stop(struct workload *all)
{
    all->stopped = true;
}

bool workload_idle(const struct workload *all)
{
    for (uint32_t i = 0; i < all->params.clients; i++) {
        for (unsigned w = 0; w < WORK_AT_ONCE; w++) {
            if (all->clients[i].works[w].kind != WORK_NONE) {
                return false;
            }
        }
    }
    return true;
}

void workload_verify(struct workload *all)
{
    CHECK(all->stopped);
    for (uint32_t i = 0; i < all->params.clients; i++) {
        struct workload_client *client = &all->clients[i];
        client->verifying = client->feed_left = true;
        for (uint32_t own = 0; own < all->params.own_names; own++) {
            client->own[own].unread = true;
        }
    }
    for (uint32_t folder = 0; folder < WORKLOAD_FOLDERS; folder++) {
        if (all->folders[folder].known) {
            struct workload_client *client = &all->clients[folder % all->params.clients];
            client->folders_left[folder] = true;
            for (uint32_t name = 0; name < all->params.shared_names; name++) {
                client->shared_left[folder][name] = true;
            }
        }
    }
}

static bool client_verified(const struct workload_client *client)
{
    bool left = client->feed_left;
    for (uint32_t own = 0; own < client->all->params.own_names; own++) {
        left = left || client->own[own].unread;
    }
    for (uint32_t folder = 0; folder < WORKLOAD_FOLDERS; folder++) {
        left = left || client->folders_left[folder];
        for (uint32_t name = 0; name < WORK_SHARED; name++) {
            left = left || client->shared_left[folder][name];
        }
    }
    return !left;
}

bool workload_verified(const struct workload *all)
{
    bool verified = workload_idle(all);
    for (uint32_t i = 0; i < all->params.clients; i++) {
        verified = verified && client_verified(&all->clients[i]);
    }
    return verified;
}

void workload_judge(struct workload *all)
{
    struct report report = {0};
    struct judge_options options = {.from_empty = true};
    bool good = judge_history_report(all->history, &options, NULL, &report);
    WORLD_REQUIRE(all->world, good, "%s: %s", report.checker != NULL ? report.checker : "the checkers",
                  report.text[0] != '\0' ? report.text : "undecided, or nothing looked at");
}

struct workload_counts workload_counts(const struct workload *all)
{
    return all->counts;
}
