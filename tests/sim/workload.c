/* The workload (workload.h). Contents are functions of their number, so the model keeps numbers only. One operation at
 * a time on a name; several names at once. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "client/client.h"
#include "io/runtime.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { FILES = 20, OPS = 6, DOUBTS = 16, TIMER_NEXT = 1, KEYS_BLOCK = 1000 };

struct content {
    uint64_t bytes;
    bool shared; /* begins as other shared contents do: chunks that the cluster has already */
};

struct file {
    uint64_t acknowledged; /* content number; 0: absent */
    uint64_t doubts[DOUBTS];
    uint32_t doubt_count;
    bool busy;
    bool unread; /* of the verification */
};

enum work_kind { WORK_NONE, WORK_PUT, WORK_GET, WORK_REMOVE, WORK_LIST };

struct work {
    enum work_kind kind;
    uint64_t id;
    uint32_t file;
    uint64_t content;
    uint64_t candidates[DOUBTS + 1]; /* a get: what it may see */
    uint32_t candidate_count;
    bool matches[DOUBTS + 1];
    uint64_t got_bytes, total_bytes;
};

struct workload {
    struct world *world;
    struct workload_params params;
    struct node *node;
    struct content *contents; /* by number, from 1 */
    unsigned long content_count, content_capacity;
    struct file files[FILES];
    struct work works[OPS];
    uint64_t ids, keys;
    bool stopped, verifying;
    bool unlisted; /* of the verification: the listing is still to be looked at */
    uint64_t acknowledged, reads;
};

struct workload *workload_create(struct world *world, const struct workload_params *params)
{
    struct workload *w = mem_alloc(sizeof *w);
    w->world = world;
    w->params = *params;
    w->content_count = 1;
    w->contents = mem_grow(NULL, &w->content_capacity, 1, sizeof *w->contents);
    w->keys = 1 + params->client * 20000ull;
    return w;
}

void workload_destroy(struct workload *w)
{
    free(w->contents);
    free(w);
}

void workload_node(struct workload *w, struct node *node)
{
    w->node = node;
}

/* ---- contents ---- */

static uint64_t content_number(const struct workload *w, uint64_t content)
{
    return (uint64_t)w->params.client << 32 | content;
}

static uint64_t content_word(uint64_t number, uint64_t at)
{
    uint64_t z = (number << 24 ^ at) * 0x9fb21c651e98df25ull;
    z = (z ^ z >> 31) * 0x94d049bb133111ebull;
    return z ^ z >> 29;
}

/* Bytes [offset, offset + bytes) of a content. The last 8 bytes of a shared one are its own. */
static void content_read(const struct workload *w, uint64_t content, uint64_t offset, uint64_t bytes, uint8_t *ret)
{
    CHECK(content > 0 && content < w->content_count);
    const struct content *c = &w->contents[content];
    CHECK(offset + bytes <= c->bytes);
    for (uint64_t i = offset, word = 0; i < offset + bytes; i++) {
        bool own = !c->shared || i + 8 >= c->bytes;
        if (i == offset || i % 8 == 0 || (own && i + 8 == c->bytes)) {
            word = content_word(own ? content_number(w, content) : 7, i / 8);
        }
        ret[i - offset] = (uint8_t)(word >> (i % 8 * 8));
    }
}

static uint64_t content_make(struct workload *w)
{
    struct rng *rng = &w->world->rng_scenario;
    struct content content = {.shared = rng_chance(rng, 300000)};
    uint64_t chunk = w->params.chunk_bytes;
    if (rng_chance(rng, 300000)) {
        content.bytes = rng_below(rng, LIMIT_INLINE_BYTES + 1);
    } else if (rng_chance(rng, 200000)) { /* whole chunks, and one byte more or less */
        content.bytes = LIMIT_INLINE_BYTES + chunk * rng_between(rng, 1, w->params.most_chunks);
        content.bytes = content.bytes / chunk * chunk + rng_below(rng, 3) - 1;
    } else {
        content.bytes = rng_between(rng, LIMIT_INLINE_BYTES, LIMIT_INLINE_BYTES + chunk * w->params.most_chunks);
    }
    w->contents = mem_grow(w->contents, &w->content_capacity, w->content_count + 1, sizeof content);
    w->contents[w->content_count] = content;
    return w->content_count++;
}

/* ---- the model ---- */

static void file_doubt(struct file *file, uint64_t content)
{
    if (file->doubt_count == DOUBTS) { /* the oldest has had its time */
        memmove(file->doubts, file->doubts + 1, (DOUBTS - 1) * sizeof file->doubts[0]);
        file->doubt_count--;
    }
    file->doubts[file->doubt_count++] = content;
}

static bool file_may_be(const struct file *file, uint64_t content)
{
    bool may = file->acknowledged == content;
    for (uint32_t i = 0; i < file->doubt_count; i++) {
        may = may || file->doubts[i] == content;
    }
    return may;
}

/* The mutation was acknowledged: it is later than all that were in doubt. */
static void file_acknowledge(struct workload *w, struct file *file, uint64_t content)
{
    file->acknowledged = content;
    file->doubt_count = 0;
    w->acknowledged++;
}

/* The client is gone: what it was doing may be done or not. */
static void works_forget(struct workload *w)
{
    for (unsigned i = 0; i < OPS; i++) {
        struct work *work = &w->works[i];
        if (work->kind == WORK_PUT || work->kind == WORK_REMOVE) {
            file_doubt(&w->files[work->file], work->content);
        }
        if (work->kind != WORK_NONE) {
            w->files[work->file].busy = false;
        }
        *work = (struct work){0};
    }
}

/* ---- starting operations ---- */

static uint32_t name_write(const struct workload *w, uint32_t file, uint8_t *ret)
{
    return (uint32_t)snprintf((char *)ret, LIMIT_NAME_BYTES, "client-%u-file-%02u", w->params.client, file);
}

static void start_put(struct workload *w, struct work *work, struct client_op *op)
{
    struct rng *rng = &w->world->rng_scenario;
    work->content = content_make(w);
    uint64_t bytes = w->contents[work->content].bytes;
    op->put.any_base = true;
    op->put.mode = 0644;
    op->put.name_bytes = name_write(w, work->file, op->put.name);
    if (rng_chance(rng, 500000)) {
        op->put.source = CLIENT_SOURCE_FEED;
        return;
    }
    uint8_t *data = mem_alloc(bytes);
    content_read(w, work->content, 0, bytes, data);
    op->put.source = CLIENT_SOURCE_FILE;
    op->put.file = (uint32_t)work->content;
    op->put.bytes = bytes;
    disk_put_file(w->node->disks[0], (struct file_ref){FILE_USER, op->put.file}, data, bytes);
    free(data);
}

static void start_get(struct workload *w, struct work *work, struct client_op *op)
{
    const struct file *file = &w->files[work->file];
    work->candidates[work->candidate_count++] = file->acknowledged;
    for (uint32_t i = 0; i < file->doubt_count; i++) {
        work->candidates[work->candidate_count++] = file->doubts[i];
    }
    for (uint32_t i = 0; i < work->candidate_count; i++) {
        work->matches[i] = work->candidates[i] != 0;
    }
    op->get.name_bytes = name_write(w, work->file, op->get.name);
}

static void start_remove(struct workload *w, struct work *work, struct client_op *op)
{
    uint8_t name[LIMIT_NAME_BYTES];
    Cairn__RemoveRequest request = CAIRN__REMOVE_REQUEST__INIT;
    request.name.data = name;
    request.name.len = name_write(w, work->file, name);
    op->call.type = MESSAGE_REMOVE;
    op->call.route = CLIENT_ROUTE_NAMESPACE;
    op->call.mutation = true;
    op->call.request = proto_pack(&request);
}

static void start_list(struct client_op *op)
{
    Cairn__ListRequest request = CAIRN__LIST_REQUEST__INIT;
    op->call.type = MESSAGE_LIST;
    op->call.route = CLIENT_ROUTE_NAMESPACE;
    op->call.request = proto_pack(&request);
}

static void work_start(struct workload *w, struct work *work, struct effects *fx)
{
    static const enum client_op_kind kinds[] = {0, CLIENT_PUT, CLIENT_GET, CLIENT_CALL, CLIENT_CALL};
    work->id = ++w->ids;
    struct client_op *op = client_op_create(kinds[work->kind], work->id, "main");
    if (work->kind == WORK_PUT) {
        start_put(w, work, op);
    } else if (work->kind == WORK_GET) {
        start_get(w, work, op);
    } else if (work->kind == WORK_REMOVE) {
        start_remove(w, work, op);
    } else {
        start_list(op);
    }
    w->files[work->file].busy = work->kind != WORK_LIST;
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_OP, op->id, client_op_encode(op), (struct slice){0});
}

static struct work *work_free(struct workload *w)
{
    for (unsigned i = 0; i < OPS; i++) {
        if (w->works[i].kind == WORK_NONE) {
            return &w->works[i];
        }
    }
    return NULL;
}

static void draw_work(struct workload *w, struct effects *fx)
{
    struct rng *rng = &w->world->rng_scenario;
    struct work *work = work_free(w);
    uint32_t file = (uint32_t)rng_below(rng, FILES);
    unsigned kind = (unsigned)rng_below(rng, 100);
    if (work == NULL || w->files[file].busy) {
        return;
    }
    *work = (struct work){.file = file};
    if (kind < 50) {
        work->kind = WORK_PUT;
    } else if (kind < 85) {
        work->kind = WORK_GET;
    } else if (kind < 95) {
        work->kind = WORK_REMOVE;
    } else {
        work->kind = WORK_LIST;
    }
    work_start(w, work, fx);
}

static void verify_more(struct workload *w, struct effects *fx)
{
    for (uint32_t i = 0; i < FILES; i++) {
        struct work *work = work_free(w);
        if (work != NULL && w->files[i].unread && !w->files[i].busy) {
            *work = (struct work){.kind = WORK_GET, .file = i};
            work_start(w, work, fx);
        }
    }
    if (w->unlisted && workload_idle(w)) {
        w->works[0] = (struct work){.kind = WORK_LIST};
        work_start(w, &w->works[0], fx);
    }
}

static void workload_next(struct workload *w, uint64_t now_ns, struct effects *fx)
{
    if (w->verifying) {
        verify_more(w, fx);
    } else if (!w->stopped) {
        draw_work(w, fx);
    }
    fx_timer(fx, TIMER_NEXT, now_ns + 1 + rng_below(&w->world->rng_scenario, 2 * w->params.every_ns));
}

/* ---- what the core says ---- */

static struct work *work_find(struct workload *w, uint64_t id)
{
    for (unsigned i = 0; i < OPS; i++) {
        if (w->works[i].kind != WORK_NONE && w->works[i].id == id) {
            return &w->works[i];
        }
    }
    return NULL;
}

static void hear_want(struct workload *w, struct work *work, const struct message *m, struct effects *fx)
{
    CHECK(work->kind == WORK_PUT && m->header.bytes == 16);
    uint64_t offset = get_u64(m->header.data), bytes = get_u64(m->header.data + 8);
    uint64_t all = w->contents[work->content].bytes;
    bytes = offset >= all ? 0 : all - offset < bytes ? all - offset : bytes;
    struct slice body = slice_alloc(bytes);
    if (bytes > 0) {
        content_read(w, work->content, offset, bytes, body.data);
    }
    uint8_t header[12];
    put_u64(header, offset);
    put_u32(header + 8, ERR_OK);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_FEED, m->stream, slice_copy(header, sizeof header),
            body);
}

static void hear_data(struct workload *w, struct work *work, const struct message *m, struct effects *fx)
{
    CHECK(work->kind == WORK_GET && m->header.bytes == 16);
    uint64_t offset = get_u64(m->header.data);
    work->total_bytes = get_u64(m->header.data + 8);
    WORLD_REQUIRE(w->world, offset == work->got_bytes, "a download continues at %lu after %lu bytes",
                  (unsigned long)offset, (unsigned long)work->got_bytes);
    uint8_t *expected = mem_alloc(m->body.bytes);
    for (uint32_t i = 0; i < work->candidate_count; i++) {
        if (!work->matches[i]) {
            continue;
        }
        uint64_t all = w->contents[work->candidates[i]].bytes;
        work->matches[i] = all == work->total_bytes && offset + m->body.bytes <= all;
        if (work->matches[i]) {
            content_read(w, work->candidates[i], offset, m->body.bytes, expected);
            work->matches[i] = memcmp(expected, m->body.data, m->body.bytes) == 0;
        }
    }
    free(expected);
    work->got_bytes += m->body.bytes;
    uint8_t header[8];
    put_u64(header, m->body.bytes);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_ACK, m->stream, slice_copy(header, sizeof header),
            (struct slice){0});
}

static bool err_passes(enum err err)
{
    return err_class(err) == ERR_CLASS_RETRY || err_class(err) == ERR_CLASS_REDIRECT;
}

/* The content a finished read found: its number, or 0 with NOT_FOUND; false when it is none that may be. */
static bool get_found(struct workload *w, const struct work *work, const struct client_op *op, uint64_t *ret_content)
{
    for (uint32_t i = 0; i < work->candidate_count; i++) {
        uint64_t content = work->candidates[i];
        bool empty = op->err == ERR_OK && work->got_bytes == 0 && content != 0 && w->contents[content].bytes == 0;
        bool whole = op->err == ERR_OK && work->matches[i] && work->got_bytes > 0 &&
                     work->got_bytes == w->contents[content].bytes;
        bool absent = op->err == ERR_NOT_FOUND && content == 0;
        if (empty || whole || absent) {
            *ret_content = content;
            return true;
        }
    }
    return false;
}

static void done_get(struct workload *w, struct work *work, const struct client_op *op)
{
    struct file *file = &w->files[work->file];
    uint64_t content = 0;
    if (err_passes(op->err)) {
        return;
    }
    if (!get_found(w, work, op, &content)) {
        world_finding(w->world,
                      "client %u file %u: a read ends with %s (%s) after %lu bytes; acknowledged is content %lu of %lu "
                      "bytes, %u are in doubt",
                      w->params.client, work->file, err_name(op->err), op->text, (unsigned long)work->got_bytes,
                      (unsigned long)file->acknowledged, (unsigned long)w->contents[file->acknowledged].bytes,
                      file->doubt_count);
        return;
    }
    file->acknowledged = content; /* seen is seen */
    w->reads++;
    if (w->verifying) {
        file->unread = false;
    }
}

static void done_put(struct workload *w, struct work *work, const struct client_op *op)
{
    struct file *file = &w->files[work->file];
    if (op->err != ERR_OK) {

        bool passes = err_passes(op->err);
        WORLD_REQUIRE(w->world, passes, "client %u file %u: an upload ends with %s (%s)", w->params.client, work->file,
                      err_name(op->err), op->text);
        file_doubt(file, work->content);
        return;
    }
    bool inlined = w->contents[work->content].bytes <= LIMIT_INLINE_BYTES;
    WORLD_REQUIRE(w->world, inlined || op->put.safe_losses >= 1, "client %u file %u: acknowledged with safe_losses %u",
                  w->params.client, work->file, op->put.safe_losses);
    file_acknowledge(w, file, work->content);
}

static void done_remove(struct workload *w, struct work *work, const struct client_op *op)
{
    struct file *file = &w->files[work->file];
    if (op->err == ERR_OK) {
        file_acknowledge(w, file, 0);
    } else if (op->err == ERR_NOT_FOUND) {
        WORLD_REQUIRE(w->world, file_may_be(file, 0), "client %u file %u: acknowledged, and a remove finds nothing",
                      w->params.client, work->file);
    } else {
        WORLD_REQUIRE(w->world, err_passes(op->err), "client %u file %u: a remove ends with %s (%s)", w->params.client,
                      work->file, err_name(op->err), op->text);
        file_doubt(file, 0);
    }
}

static void done_list(struct workload *w, const struct client_op *op)
{
    if (op->err != ERR_OK) {
        WORLD_REQUIRE(w->world, err_passes(op->err), "client %u: a listing ends with %s (%s)", w->params.client,
                      err_name(op->err), op->text);
        return;
    }
    bool shown[FILES] = {0};
    struct proto_arena arena = {0};
    Cairn__ListReply *reply = NULL;
    enum err err = proto_unpack(&cairn__list_reply__descriptor, op->call.reply, &arena, (void **)&reply);
    CHECK(err == ERR_OK);
    for (size_t i = 0; i < reply->n_entries; i++) {
        uint32_t file = 0;
        if (workload_name_of(w, reply->entries[i]->name.data, reply->entries[i]->name.len, &file)) {
            shown[file] = true;
        }
    }
    for (uint32_t i = 0; w->verifying && i < FILES; i++) {
        const struct file *file = &w->files[i];
        bool may = shown[i] ? file->acknowledged != 0 || file->doubt_count > 0 : file_may_be(file, 0);
        WORLD_REQUIRE(w->world, may, "client %u file %u: the listing %s it", w->params.client, i,
                      shown[i] ? "shows" : "lacks");
    }
    w->unlisted = false;
    proto_arena_deinit(&arena);
}

static void hear_done(struct workload *w, const struct message *m)
{
    struct client_op *op = client_op_decode(m->header);
    struct work *work = work_find(w, m->stream);
    CHECK(work != NULL && op->id == m->stream);
    switch (work->kind) {
    case WORK_PUT:
        done_put(w, work, op);
        break;
    case WORK_GET:
        done_get(w, work, op);
        break;
    case WORK_REMOVE:
        done_remove(w, work, op);
        break;
    default:
        done_list(w, op);
        break;
    }
    if (work->kind != WORK_LIST) {
        w->files[work->file].busy = false;
    }
    *work = (struct work){0};
    client_op_destroy(op);
}

static void give_keys(struct workload *w, struct effects *fx)
{
    uint8_t header[16];
    put_u64(header, w->keys);
    w->keys += KEYS_BLOCK;
    put_u64(header + 8, w->keys);
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_KEYS, 0, slice_copy(header, sizeof header),
            (struct slice){0});
}

static void workload_hear(struct workload *w, const struct message *m, struct effects *fx)
{
    struct work *work = work_find(w, m->stream);
    if (m->type == MESSAGE_CLIENT_DONE) {
        hear_done(w, m);
    } else if (m->type == MESSAGE_CLIENT_KEYS_WANTED) {
        give_keys(w, fx);
    } else if (m->type == MESSAGE_CLIENT_WANT && work != NULL) {
        hear_want(w, work, m, fx);
    } else if (m->type == MESSAGE_CLIENT_DATA && work != NULL) {
        hear_data(w, work, m, fx);
    }
}

void workload_step(void *self, const struct event *event, struct effects *fx)
{
    struct workload *w = self;
    if (event->kind == EVENT_TIMER && event->timer.id == RUNTIME_TIMER_BOOT) {
        works_forget(w);
        workload_next(w, event->now_ns, fx);
    } else if (event->kind == EVENT_TIMER) {
        workload_next(w, event->now_ns, fx);
    } else if (event->kind == EVENT_MESSAGE) {
        workload_hear(w, &event->message, fx);
    }
}

void workload_stop(struct workload *w)
{
    w->stopped = true;
}

bool workload_idle(const struct workload *w)
{
    bool idle = true;
    for (unsigned i = 0; i < OPS; i++) {
        idle = idle && w->works[i].kind == WORK_NONE;
    }
    return idle;
}

void workload_verify(struct workload *w)
{
    CHECK(w->stopped);
    w->verifying = w->unlisted = true;
    for (uint32_t i = 0; i < FILES; i++) {
        w->files[i].unread = true;
    }
}

bool workload_verified(const struct workload *w)
{
    bool all = w->verifying && !w->unlisted && workload_idle(w);
    for (uint32_t i = 0; i < FILES; i++) {
        all = all && !w->files[i].unread;
    }
    return all;
}

bool workload_name_of(const struct workload *w, const void *name, size_t bytes, uint32_t *ret_file)
{
    char text[64] = "";
    unsigned client = 0, file = 0;
    if (bytes >= sizeof text) {
        return false;
    }
    memcpy(text, name, bytes);
    if (sscanf(text, "client-%u-file-%u", &client, &file) != 2 || client != w->params.client || file >= FILES) {
        return false;
    }
    *ret_file = file;
    return true;
}

uint64_t workload_acknowledged(const struct workload *w)
{
    return w->acknowledged;
}

uint64_t workload_reads(const struct workload *w)
{
    return w->reads;
}
