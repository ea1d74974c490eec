/* An operation ends: its answer goes into the history, and of an own file into the model, which says at once what
 * cannot be. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "work.h"

static bool err_passes(enum err err)
{
    return err_class(err) == ERR_CLASS_RETRY || err_class(err) == ERR_CLASS_REDIRECT;
}

/* What a concurrent client may have caused. */
static bool err_met(enum err err)
{
    return err == ERR_NOT_FOUND || err == ERR_EXISTS || err == ERR_CONFLICT || err == ERR_NOT_EMPTY ||
           err == ERR_NOT_A_FOLDER || err == ERR_IS_A_FOLDER || err == ERR_CYCLE;
}

/* ---- own files ---- */

static void own_read(struct workload_client *client, struct work *work, const struct client_op *op, uint64_t content)
{
    struct world *world = client->all->world;
    struct model_file *file = &client->own[work->own];
    if (err_passes(op->err)) {
        return;
    }
    uint64_t found = op->err == ERR_OK ? content : 0;
    bool known = op->err == ERR_OK ? found != 0 : op->err == ERR_NOT_FOUND;
    WORLD_REQUIRE(world, known && model_may_be(file, found),
                  "client %u file %u: a read ends with %s (%s) after %lu bytes; acknowledged is content %lu, %u are in "
                  "doubt",
                  client->number, work->own, err_name(op->err), op->text, (unsigned long)work->got_bytes,
                  (unsigned long)file->acknowledged, file->doubt_count);
    if (known) {
        model_acknowledge(file, found); /* seen is seen */
        file->unread = file->unread && !work->verifies;
    }
}

static void own_mutated(struct workload_client *client, struct work *work, const struct client_op *op)
{
    struct model_file *file = &client->own[work->own];
    uint64_t content = work->kind == WORK_PUT ? work->content : 0;
    bool gone = work->kind == WORK_REMOVE && op->err == ERR_NOT_FOUND;
    if (op->err == ERR_OK) {
        model_acknowledge(file, content);
    } else if (gone) {
        WORLD_REQUIRE(client->all->world, model_may_be(file, 0),
                      "client %u file %u: acknowledged, and a remove finds nothing", client->number, work->own);
    } else {
        WORLD_REQUIRE(client->all->world, err_passes(op->err), "client %u file %u: %s ends with %s (%s)",
                      client->number, work->own, work->kind == WORK_PUT ? "an upload" : "a remove", err_name(op->err),
                      op->text);
        model_doubt(file, content);
    }
}

/* The number of an own content these bytes are, 0 when of none. */
static uint64_t content_got(const struct workload_client *client, const struct work *work)
{
    const struct model_file *file = &client->own[work->own];
    const struct contents *contents = client->all->contents;
    for (uint32_t i = 0; i <= file->doubt_count; i++) {
        uint64_t content = i == 0 ? file->acknowledged : file->doubts[i - 1];
        if (content == 0 || contents_bytes(contents, content) != work->got_bytes) {
            continue;
        }
        uint8_t *expected = mem_alloc(work->got_bytes);
        contents_read(contents, content, 0, work->got_bytes, expected);
        bool same = work->got_bytes == 0 || memcmp(expected, work->got, work->got_bytes) == 0;
        free(expected);
        if (same) {
            return content;
        }
    }
    return 0;
}

/* ---- replies into the history ---- */

static void entry_take(struct history_entry *to, const Cairn__Entry *from)
{
    to->type = (enum history_type)from->kind;
    to->file = from->file;
    to->version = from->version;
    to->bytes = from->bytes;
    to->sequence = from->sequence;
}

static void *reply_of(const ProtobufCMessageDescriptor *descriptor, struct slice packed, struct proto_arena *arena)
{
    void *reply = NULL;
    enum err err = proto_unpack(descriptor, packed, arena, &reply);
    CHECK(err == ERR_OK);
    return reply;
}

static void take_put(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    (void)arena;
    struct history_entry *entry = &work->record->entry;
    entry->type = HISTORY_FILE;
    entry->file = op->put.file_id;
    entry->version = op->put.version;
    entry->sequence = work->record->sequence = op->put.sequence;
    work->record->safe_losses = op->put.safe_losses;
}

static void take_get(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__ManifestReply *reply = reply_of(&cairn__manifest_reply__descriptor, op->get.manifest, arena);
    entry_take(&work->record->entry, reply->entry);
    work->record->entry.parent = reply->entry->parent;
    work->record->entry.bytes = work->got_bytes;
    work->record->entry.content = contents_name(work->got, work->got_bytes);
}

static void take_list(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__ListReply *reply = reply_of(&cairn__list_reply__descriptor, op->call.reply, arena);
    work->record->sequence = reply->sequence;
    for (size_t i = 0; i < reply->n_entries; i++) {
        const Cairn__Entry *from = reply->entries[i];
        entry_take(history_entry_add(work->record, from->parent, from->name.data, from->name.len), from);
    }
    if (reply->next.len > 0) {
        work->record->next = history_string(reply->next.data, reply->next.len);
    }
}

static void take_mkdir(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__MkdirReply *reply = reply_of(&cairn__mkdir_reply__descriptor, op->call.reply, arena);
    work->record->entry.type = HISTORY_FOLDER;
    work->record->entry.file = reply->file;
    work->record->sequence = reply->sequence;
    work->record->existed = reply->existed;
}

static void take_move(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__MoveReply *reply = reply_of(&cairn__move_reply__descriptor, op->call.reply, arena);
    work->record->entry.file = reply->file;
    work->record->sequence = reply->sequence;
}

static void take_remove(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__RemoveReply *reply = reply_of(&cairn__remove_reply__descriptor, op->call.reply, arena);
    work->record->sequence = reply->sequence;
}

static void take_changes(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__ChangesReply *reply = reply_of(&cairn__changes_reply__descriptor, op->call.reply, arena);
    work->record->sequence = reply->last;
    work->record->incarnation = reply->incarnation;
    for (size_t i = 0; i < reply->n_changes; i++) {
        const Cairn__Change *from = reply->changes[i];
        struct history_change *change =
            history_change_add(work->record, from->sequence, (enum history_change_kind)from->kind, from->entry->parent,
                               from->entry->name.data, from->entry->name.len);
        entry_take(&change->entry, from->entry);
        if (from->kind == HISTORY_MOVED) {
            history_change_from(change, from->from_parent, from->from_name.data, from->from_name.len);
        }
    }
}

/* A stat that finds nothing answers so in its reply. */
static enum err take_stat(struct work *work, const struct client_op *op, struct proto_arena *arena)
{
    const Cairn__StatReply *reply = reply_of(&cairn__stat_reply__descriptor, op->call.reply, arena);
    if (reply->entry == NULL || reply->depth < 1) {
        return ERR_NOT_FOUND;
    }
    entry_take(&work->record->entry, reply->entry);
    return ERR_OK;
}

static enum err record_answer(struct work *work, const struct client_op *op)
{
    static void (*const take[WORK_KINDS])(struct work *, const struct client_op *, struct proto_arena *) = {
        [WORK_PUT] = take_put,   [WORK_GET] = take_get,       [WORK_LIST] = take_list,       [WORK_MKDIR] = take_mkdir,
        [WORK_MOVE] = take_move, [WORK_REMOVE] = take_remove, [WORK_CHANGES] = take_changes,
    };
    struct proto_arena arena = {0};
    enum err err = op->err;
    if (err == ERR_OK && work->kind == WORK_STAT) {
        err = take_stat(work, op, &arena);
    } else if (err == ERR_OK) {
        take[work->kind](work, op, &arena);
    }
    proto_arena_deinit(&arena);
    return err;
}

/* ---- what everybody learns ---- */

static void learn_version(struct workload *all, const struct work *work)
{
    uint32_t name = work_shared_number(all, work->cell.name);
    if (name < WORK_SHARED && work->record->entry.version > 0) {
        all->versions[work->cell.folder][name] = work->record->entry.version;
    }
}

static void learn_folder(struct workload *all, const struct work *work)
{
    for (uint32_t folder = 1; folder < WORKLOAD_FOLDERS; folder++) {
        char name[WORK_NAME_BYTES];
        snprintf(name, sizeof name, "folder-%u", folder);
        if (strcmp(name, work->cell.name) == 0 && work->record->entry.file != 0) {
            all->folders[folder] = (struct folder){work->record->entry.file, true};
        }
    }
}

static void learn_feed(struct workload_client *client, const struct work *work)
{
    const struct history_op *record = work->record;
    if (work->after == client->cursor && record->change_count > 0) {
        client->cursor = record->changes[record->change_count - 1].sequence;
    }
    client->feed_left = client->feed_left || (work->verifies && client->cursor < record->sequence);
}

static void learn(struct workload_client *client, const struct work *work)
{
    struct workload *all = client->all;
    bool mutation = history_is_mutation(work->record->kind);
    all->counts.acknowledged += mutation;
    all->counts.reads += !mutation;
    if (work->kind == WORK_MKDIR) {
        learn_folder(all, work);
    } else if (work->kind == WORK_CHANGES) {
        learn_feed(client, work);
    } else if (work->kind == WORK_PUT || work->kind == WORK_GET || work->kind == WORK_STAT) {
        learn_version(all, work);
    }
}

/* A read of the verification that met a fault, or a feed that goes on: asked again. */
static void verify_again(struct workload_client *client, const struct work *work)
{
    uint32_t name = work_shared_number(client->all, work->cell.name);
    if (work->kind == WORK_GET && work->own == WORK_NOT_OWN && name < WORK_SHARED) {
        client->shared_left[work->cell.folder][name] = true;
    } else if (work->kind == WORK_LIST) {
        client->folders_left[work->cell.folder] = true;
    } else if (work->kind == WORK_CHANGES) {
        client->feed_left = true;
    }
}

static void require_fits(struct workload_client *client, const struct work *work, const struct client_op *op)
{
    struct world *world = client->all->world;
    bool fits = op->err == ERR_OK || err_passes(op->err) || err_met(op->err);
    WORLD_REQUIRE(world, fits, "client %u: %s of %u/%s ends with %s (%s)", client->number,
                  history_kind_name(work->record->kind), work->cell.folder, work->cell.name, err_name(op->err),
                  op->text);
    bool inlined = work->kind == WORK_PUT && contents_bytes(client->all->contents, work->content) <= LIMIT_INLINE_BYTES;
    bool put = work->kind == WORK_PUT && op->err == ERR_OK;
    WORLD_REQUIRE(world, !put || inlined || op->put.safe_losses >= 1, "client %u %s: acknowledged with safe_losses %u",
                  client->number, work->cell.name, op->put.safe_losses);
}

static void work_clear(struct workload_client *client, struct work *work)
{
    if (work->own != WORK_NOT_OWN) {
        client->own[work->own].busy = false;
    }
    free(work->got);
    *work = (struct work){0};
}

void work_end(struct workload_client *client, struct work *work, const struct client_op *op, uint64_t now_ns)
{
    enum err err = record_answer(work, op);
    history_complete(work->record, now_ns, err);
    struct workload_counts *counts = &client->all->counts;
    counts->unknown += work->record->outcome == HISTORY_UNKNOWN;
    counts->refused += work->record->outcome == HISTORY_FAIL;
    require_fits(client, work, op);
    if (work->own != WORK_NOT_OWN && work->kind == WORK_GET) {
        own_read(client, work, op, op->err == ERR_OK ? content_got(client, work) : 0);
    } else if (work->own != WORK_NOT_OWN) {
        own_mutated(client, work, op);
    }
    if (err == ERR_OK) {
        learn(client, work);
    } else if (work->verifies && err_passes(err)) {
        verify_again(client, work);
    }
    work_clear(client, work);
}

void work_forget(struct workload_client *client, struct work *work)
{
    bool mutation = work->kind == WORK_PUT || work->kind == WORK_REMOVE;
    if (work->own != WORK_NOT_OWN && mutation) {
        model_doubt(&client->own[work->own], work->kind == WORK_PUT ? work->content : 0);
    }
    client->all->counts.unknown++;
    work_clear(client, work);
}
