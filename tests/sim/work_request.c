/* An operation begins: its invocation in the history, its request to the client core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "work.h"

static uint64_t folder_id(const struct workload *all, const struct cell *cell)
{
    return all->folders[cell->folder].id;
}

static ProtobufCBinaryData name_of(const struct cell *cell)
{
    return (ProtobufCBinaryData){strlen(cell->name), (uint8_t *)(uintptr_t)cell->name};
}

static void call(struct client_op *op, uint16_t type, bool mutation, const void *request)
{
    op->call.type = type;
    op->call.route = CLIENT_ROUTE_NAMESPACE;
    op->call.mutation = mutation;
    op->call.request = proto_pack(request);
}

static uint32_t name_write(const struct cell *cell, uint8_t *ret)
{
    size_t bytes = strlen(cell->name);
    memcpy(ret, cell->name, bytes);
    return (uint32_t)bytes;
}

static void ask_put(struct workload_client *client, struct work *work, struct client_op *op)
{
    struct workload *all = client->all;
    uint64_t bytes = contents_bytes(all->contents, work->content);
    op->put.parent = folder_id(all, &work->cell);
    op->put.name_bytes = name_write(&work->cell, op->put.name);
    op->put.any_base = work->any_base;
    op->put.base_version = work->base;
    op->put.mode = 0644;
    uint8_t *data = mem_alloc(bytes);
    contents_read(all->contents, work->content, 0, bytes, data);
    work->record->any_base = work->any_base;
    work->record->base = work->base;
    work->record->entry.bytes = bytes;
    work->record->entry.content = contents_name(data, bytes);
    if (rng_chance(&all->world->rng_scenario, 500000)) {
        op->put.source = CLIENT_SOURCE_FEED;
    } else {
        op->put.source = CLIENT_SOURCE_FILE;
        op->put.file = ++all->sources;
        op->put.bytes = bytes;
        disk_put_file(client->node->disks[0], (struct file_ref){FILE_USER, op->put.file}, data, bytes);
    }
    free(data);
}

static void ask_get(struct workload_client *client, struct work *work, struct client_op *op)
{
    op->get.parent = folder_id(client->all, &work->cell);
    op->get.name_bytes = name_write(&work->cell, op->get.name);
}

static void ask_stat(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__StatRequest request = CAIRN__STAT_REQUEST__INIT;
    ProtobufCBinaryData name = name_of(&work->cell);
    request.parent = folder_id(client->all, &work->cell);
    request.n_path = 1;
    request.path = &name;
    call(op, MESSAGE_STAT, false, &request);
}

static void ask_list(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__ListRequest request = CAIRN__LIST_REQUEST__INIT;
    request.folder = folder_id(client->all, &work->cell);
    char after[WORK_NAME_BYTES];
    if (!work->verifies && work->id % 4 != 0) { /* a page from somewhere: pages have borders */
        snprintf(after, sizeof after, "shared-%02u", (unsigned)(work->id % client->all->params.shared_names));
        request.after = (ProtobufCBinaryData){strlen(after), (uint8_t *)after};
        request.limit = 1 + (uint32_t)(work->id % 5);
        work->record->after = history_string(after, strlen(after));
    }
    call(op, MESSAGE_LIST, false, &request);
}

static void ask_mkdir(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    request.parent = folder_id(client->all, &work->cell);
    request.name = name_of(&work->cell);
    request.mode = 0755;
    request.exist_ok = rng_chance(&client->all->world->rng_scenario, 700000);
    work->record->exist_ok = request.exist_ok;
    call(op, MESSAGE_MKDIR, true, &request);
}

static void ask_move(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__MoveRequest request = CAIRN__MOVE_REQUEST__INIT;
    request.parent = folder_id(client->all, &work->cell);
    request.name = name_of(&work->cell);
    request.to_parent = folder_id(client->all, &work->to);
    request.to_name = name_of(&work->to);
    request.replace = work->replace;
    history_target(work->record, request.to_parent, request.to_name.data, request.to_name.len);
    work->record->replace = work->replace;
    call(op, MESSAGE_MOVE, true, &request);
}

static void ask_remove(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__RemoveRequest request = CAIRN__REMOVE_REQUEST__INIT;
    request.parent = folder_id(client->all, &work->cell);
    request.name = name_of(&work->cell);
    request.recursive = work->recursive;
    work->record->recursive = work->recursive;
    call(op, MESSAGE_REMOVE, true, &request);
}

static void ask_changes(struct workload_client *client, struct work *work, struct client_op *op)
{
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.after = work->after;
    request.limit = work->verifies ? 0 : (uint32_t)rng_between(&client->all->world->rng_scenario, 1, 40);
    work->record->after_sequence = work->after;
    call(op, MESSAGE_CHANGES, false, &request);
}

static void record_invocation(struct workload_client *client, struct work *work, uint64_t now_ns)
{
    static const enum history_kind kinds[WORK_KINDS] = {
        [WORK_PUT] = HISTORY_PUT,       [WORK_GET] = HISTORY_GET,         [WORK_STAT] = HISTORY_STAT,
        [WORK_LIST] = HISTORY_LIST,     [WORK_MKDIR] = HISTORY_MKDIR,     [WORK_MOVE] = HISTORY_MOVE,
        [WORK_REMOVE] = HISTORY_REMOVE, [WORK_CHANGES] = HISTORY_CHANGES,
    };
    bool named = work->kind != WORK_LIST && work->kind != WORK_CHANGES;
    work->record = history_invoke(client->all->history, client->number, kinds[work->kind], now_ns,
                                  folder_id(client->all, &work->cell), named ? work->cell.name : NULL,
                                  named ? strlen(work->cell.name) : 0);
}

void work_begin(struct workload_client *client, struct work *work, uint64_t now_ns, struct effects *fx)
{
    static void (*const ask[WORK_KINDS])(struct workload_client *, struct work *, struct client_op *) = {
        [WORK_PUT] = ask_put,     [WORK_GET] = ask_get,   [WORK_STAT] = ask_stat,     [WORK_LIST] = ask_list,
        [WORK_MKDIR] = ask_mkdir, [WORK_MOVE] = ask_move, [WORK_REMOVE] = ask_remove, [WORK_CHANGES] = ask_changes,
    };
    enum client_op_kind kind = work->kind == WORK_PUT ? CLIENT_PUT : work->kind == WORK_GET ? CLIENT_GET : CLIENT_CALL;
    CHECK(ask[work->kind] != NULL);
    work->id = ++client->ids;
    struct client_op *op = client_op_create(kind, work->id, "main");
    record_invocation(client, work, now_ns);
    ask[work->kind](client, work, op);
    if (work->own != WORK_NOT_OWN) {
        client->own[work->own].busy = true;
    }
    if (!work->verifies) {
        client->all->counts.begun++;
    }
    fx_send(fx, address_local(ACTOR_CLIENT, 0), MESSAGE_CLIENT_OP, op->id, client_op_encode(op), (struct slice){0});
}
