/* The tree: paths, entries, folders, moves, removals and the feed, each one or a few requests to the namespace's group.
 * A path is resolved by STAT; what is missing of it is made by MKDIR. Folders are then named by their ids, so that a
 * tree of a million files asks for each folder once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

int api_call(struct cairn *c, const struct api_call *call, const char *what, struct proto_arena *arena,
             void **ret_reply, struct cairn_error *error)
{
    struct client_op *op = client_op_create(CLIENT_CALL, api_id(c), call->workspace);
    op->budget_ns = call->budget_ns;
    op->call.type = call->type;
    op->call.route = call->route;
    op->call.group = call->group;
    op->call.node = call->node;
    op->call.store = call->store;
    op->call.mutation = call->mutation;
    op->call.request = proto_pack(call->request);
    struct api_waiter waiter;
    api_post(c, &waiter, op);
    struct api_item *item = api_wait(c, &waiter);
    bool done = item->type == MESSAGE_CLIENT_DONE;
    api_item_free(item);
    api_finish(c, &waiter, done ? op : NULL);
    if (!done) {
        return api_fail(error, ERR_INTERNAL, "the client's runtime has ended");
    }
    enum err err = op->err;
    if (err == ERR_OK) {
        err = proto_unpack(call->reply, op->call.reply, arena, ret_reply);
    }
    if (err == ERR_OK && call->ret_body != NULL) {
        *call->ret_body = slice_ref(op->call.reply_body);
    }
    int result = err == ERR_OK ? 0 : api_fail(error, err, "%s: %s", what, op->text[0] ? op->text : err_text(err));
    client_op_destroy(op);
    return result;
}

/* ---- paths ---- */

static int path_split(struct api_path *path, char *at, struct cairn_error *error)
{
    size_t bytes = strlen(at);
    path->slash = bytes == 0 || at[bytes - 1] == '/';
    char *save = NULL;
    for (char *name = strtok_r(at, "/", &save); name != NULL; name = strtok_r(NULL, "/", &save)) {
        if (strcmp(name, ".") == 0) {
            continue;
        }
        if (strcmp(name, "..") == 0 || strlen(name) > LIMIT_NAME_BYTES) {
            return api_fail(error, ERR_ILLEGAL_NAME, "%s: %s", path->text, err_text(ERR_ILLEGAL_NAME));
        }
        if (path->depth == LIMIT_PATH_DEPTH) {
            return api_fail(error, ERR_TOO_LARGE, "%s: deeper than %d folders", path->text, LIMIT_PATH_DEPTH);
        }
        path->components[path->depth++] = name;
    }
    return 0;
}

int api_path_parse(struct cairn *c, const char *text, struct api_path *path, struct cairn_error *error)
{
    *path = (struct api_path){0};
    const char *colon = strchr(text, ':');
    size_t workspace_bytes = colon == NULL ? 0 : (size_t)(colon - text);
    if (colon == NULL || memchr(text, '/', workspace_bytes) != NULL || workspace_bytes >= sizeof path->workspace) {
        return api_fail(error, ERR_INVALID, "%s: not a remote path; write WORKSPACE:/path, as in %s:/%s", text,
                        c->config.workspace, text[0] == '/' ? text + 1 : text);
    }
    if (strlen(text) > LIMIT_PATH_BYTES) {
        return api_fail(error, ERR_TOO_LARGE, "a path is longer than %u bytes", LIMIT_PATH_BYTES);
    }
    path->text = strdup(text);
    path->copy = strdup(colon + 1);
    CHECK(path->text != NULL && path->copy != NULL);
    if (workspace_bytes == 0) {
        strcpy(path->workspace, c->config.workspace);
    } else {
        memcpy(path->workspace, text, workspace_bytes);
    }
    int result = path_split(path, path->copy, error);
    if (result != 0) {
        api_path_deinit(path);
    }
    return result;
}

void api_path_deinit(struct api_path *path)
{
    free(path->text);
    free(path->copy);
    *path = (struct api_path){0};
}

static void bytes_copy(ProtobufCBinaryData from, char *to, size_t capacity)
{
    size_t bytes = from.len < capacity ? from.len : capacity - 1;
    if (bytes > 0) {
        memcpy(to, from.data, bytes);
    }
    to[bytes] = '\0';
}

void api_entry_read(const Cairn__Entry *from, struct cairn_entry *entry)
{
    memset(entry, 0, offsetof(struct cairn_entry, target));
    entry->id = from->file;
    entry->parent = from->parent;
    entry->version = from->version;
    entry->bytes = from->bytes;
    entry->sequence = from->sequence;
    entry->kind = (enum cairn_kind)from->kind;
    entry->mode = from->mode;
    entry->mtime_ns = from->mtime_ns;
    entry->safe_losses = from->safe_losses;
    bytes_copy(from->name, entry->name, sizeof entry->name);
    bytes_copy(from->target, entry->target, sizeof entry->target);
}

static ProtobufCBinaryData text_bytes(const char *text)
{
    return (ProtobufCBinaryData){.len = strlen(text), .data = (uint8_t *)(uintptr_t)text};
}

/* What a history says of an entry: of a name, of what is listed, of an event. */
static void entry_tell(struct writer *json, const struct cairn_entry *entry)
{
    static const char *const types[] = {"absent", "file", "folder", "symlink"};
    api_json_add(json, "{\"parent\":%llu", (unsigned long long)entry->parent);
    api_json_add_string(json, "name", entry->name);
    api_json_add(json, ",\"type\":\"%s\",\"file\":%llu,\"version\":%llu,\"bytes\":%llu,\"sequence\":%llu}",
                 types[entry->kind <= CAIRN_SYMLINK ? entry->kind : 0], (unsigned long long)entry->id,
                 (unsigned long long)entry->version, (unsigned long long)entry->bytes,
                 (unsigned long long)entry->sequence);
}

/* The names a path led through are not part of it: a stat tells of the last one it looked at. */
static void locate_tell(struct cairn *c, uint64_t history, const struct api_path *path, uint32_t components, int result,
                        const struct api_place *place)
{
    struct writer results = {0};
    if (!api_history_kept(c)) {
        return;
    }
    if (result == 0 && components == 0) {
        api_json_add(&results, "{\"root\":%llu}", (unsigned long long)place->entry.id);
    } else if (result == 0 && place->found) {
        entry_tell(&results, &place->entry);
    } else if (result == 0) {
        api_json_add(&results, "{\"parent\":%llu", (unsigned long long)place->deepest);
        api_json_add_string(&results, "name", path->components[place->depth]);
        api_json_add(&results, "}");
        result = ERR_NOT_FOUND;
    }
    api_history_complete(c, history, "stat", false, (enum err)result, &results);
}

/* {"workspace":W,"path":P} */
static void path_args(struct writer *args, const char *workspace, const char *text)
{
    api_json_add(args, "{");
    api_json_add_string(args, "workspace", workspace);
    api_json_add_string(args, "path", text);
}

int api_locate(struct cairn *c, const struct api_path *path, uint32_t components, struct api_place *place,
               struct cairn_error *error)
{
    ProtobufCBinaryData names[LIMIT_PATH_DEPTH];
    CHECK(components <= path->depth);
    for (uint32_t i = 0; i < components; i++) {
        names[i] = text_bytes(path->components[i]);
    }
    Cairn__StatRequest request = CAIRN__STAT_REQUEST__INIT;
    request.n_path = components;
    request.path = names;
    struct api_call call = {
        .type = MESSAGE_STAT,
        .route = CLIENT_ROUTE_NAMESPACE,
        .workspace = path->workspace,
        .request = &request,
        .reply = &cairn__stat_reply__descriptor,
    };
    struct proto_arena arena = {0};
    Cairn__StatReply *reply = NULL;
    struct writer args = {0};
    *place = (struct api_place){0};
    path_args(&args, path->workspace, path->text);
    api_json_add(&args, "}");
    uint64_t history = api_history_invoke(c, "stat", &args);
    int result = api_call(c, &call, path->text, &arena, (void **)&reply, error);
    if (result == 0) {
        place->found = reply->entry != NULL && reply->depth == components;
        place->depth = reply->depth;
        place->deepest = reply->deepest;
        if (place->found) {
            api_entry_read(reply->entry, &place->entry);
        }
    }
    locate_tell(c, history, path, components, result, place);
    proto_arena_deinit(&arena);
    return result;
}

int api_mkdir_in(struct cairn *c, const char *workspace, uint64_t parent, const char *name, uint32_t mode,
                 int64_t mtime_ns, const char *target, uint64_t *ret_file, struct cairn_error *error)
{
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    request.parent = parent;
    request.name = text_bytes(name);
    request.mode = mode;
    request.mtime_ns = mtime_ns;
    request.exist_ok = true;
    if (target != NULL) {
        request.target = text_bytes(target);
    }
    struct api_call call = {
        .type = MESSAGE_MKDIR,
        .route = CLIENT_ROUTE_NAMESPACE,
        .mutation = true,
        .workspace = workspace,
        .request = &request,
        .reply = &cairn__mkdir_reply__descriptor,
    };
    struct writer args = {0}, results = {0};
    api_json_add(&args, "{\"parent\":%llu,\"exist_ok\":true,\"symlink\":%s", (unsigned long long)parent,
                 target != NULL ? "true" : "false");
    api_json_add_string(&args, "workspace", workspace);
    api_json_add_string(&args, "name", name);
    api_json_add(&args, "}");
    uint64_t history = api_history_invoke(c, "mkdir", &args);
    struct proto_arena arena = {0};
    Cairn__MkdirReply *reply = NULL;
    struct cairn_error local = {0};
    int result = api_call(c, &call, name, &arena, (void **)&reply, &local);
    if (result == 0) {
        *ret_file = reply->file;
        api_json_add(&results, "{\"file\":%llu,\"sequence\":%llu,\"existed\":%s}", (unsigned long long)reply->file,
                     (unsigned long long)reply->sequence, reply->existed ? "true" : "false");
    } else if (error != NULL) {
        *error = local;
    }
    api_history_complete(c, history, "mkdir", true, (enum err)result, &results);
    proto_arena_deinit(&arena);
    return result;
}

int api_folder(struct cairn *c, const struct api_path *path, uint32_t components, uint64_t *ret_folder,
               struct cairn_error *error)
{
    struct api_place place;
    int result = api_locate(c, path, components, &place, error);
    if (result != 0) {
        return result;
    }
    if (place.found && place.entry.kind != CAIRN_FOLDER) {
        return api_fail(error, ERR_NOT_A_FOLDER, "%s: not a folder", path->text);
    }
    uint64_t folder = place.found ? place.entry.id : place.deepest;
    for (uint32_t i = place.depth; !place.found && result == 0 && i < components; i++) {
        result = api_mkdir_in(c, path->workspace, folder, path->components[i], 0755, 0, NULL, &folder, error);
    }
    *ret_folder = folder;
    return result;
}

/* The folder above a path's last component, which must exist. */
static int locate_parent(struct cairn *c, const struct api_path *path, uint64_t *ret_parent, struct cairn_error *error)
{
    if (path->depth == 0) {
        return api_fail(error, ERR_INVALID, "%s: the root itself cannot be meant here", path->text);
    }
    struct api_place place;
    int result = api_locate(c, path, path->depth - 1, &place, error);
    if (result == 0 && !place.found) {
        return api_fail(error, ERR_NOT_FOUND, "%s: the folder above it does not exist; make it first", path->text);
    }
    if (result == 0 && place.entry.kind != CAIRN_FOLDER) {
        return api_fail(error, ERR_NOT_A_FOLDER, "%s: what stands above it is no folder", path->text);
    }
    *ret_parent = place.entry.id;
    return result;
}

/* ---- public ---- */

int cairn_stat(struct cairn *c, const char *text, struct cairn_entry *ret_entry, struct cairn_error *error)
{
    struct api_path path;
    struct api_place place;
    int result = api_path_parse(c, text, &path, error);
    if (result != 0) {
        return result;
    }
    result = api_locate(c, &path, path.depth, &place, error);
    if (result == 0 && !place.found) {
        result = api_fail(error, ERR_NOT_FOUND, "%s: not found", text);
    } else if (result == 0) {
        *ret_entry = place.entry;
    }
    api_path_deinit(&path);
    return result;
}

static void list_args(struct writer *args, const char *workspace, uint64_t folder, struct slice after)
{
    api_json_add(args, "{\"parent\":%llu", (unsigned long long)folder);
    api_json_add_string(args, "workspace", workspace);
    if (after.bytes > 0) {
        char *text = strndup((const char *)after.data, after.bytes);
        CHECK(text != NULL);
        api_json_add_string(args, "after", text);
        free(text);
    }
    api_json_add(args, "}");
}

static void list_tell(struct writer *results, const Cairn__ListReply *reply, struct cairn_entry *entry)
{
    api_json_add(results, "{\"sequence\":%llu", (unsigned long long)reply->sequence);
    if (reply->next.len > 0) {
        char *text = strndup((const char *)reply->next.data, reply->next.len);
        CHECK(text != NULL);
        api_json_add_string(results, "next", text);
        free(text);
    }
    api_json_add(results, ",\"entries\":[");
    for (size_t i = 0; i < reply->n_entries; i++) {
        api_entry_read(reply->entries[i], entry);
        api_json_add(results, "%s", i > 0 ? "," : "");
        entry_tell(results, entry);
    }
    api_json_add(results, "]}");
}

/* One page, behind `after`. */
static int list_page(struct cairn *c, const struct api_call *call, struct slice after, const char *what,
                     struct cairn_entry *entry, struct proto_arena *arena, Cairn__ListReply **ret_reply,
                     struct cairn_error *error)
{
    const Cairn__ListRequest *request = call->request;
    struct writer args = {0}, results = {0};
    list_args(&args, call->workspace, request->folder, after);
    uint64_t history = api_history_invoke(c, "ls", &args);
    int result = api_call(c, call, what, arena, (void **)ret_reply, error);
    if (result == 0 && api_history_kept(c)) {
        list_tell(&results, *ret_reply, entry);
    }
    api_history_complete(c, history, "ls", false, (enum err)result, &results);
    return result;
}

int api_list(struct cairn *c, const char *workspace, uint64_t folder, const char *what, cairn_entry_fn *each,
             void *context, struct cairn_error *error)
{
    struct slice after = {0};
    int result = 0;
    for (bool more = true; more && result == 0;) {
        Cairn__ListRequest request = CAIRN__LIST_REQUEST__INIT;
        request.folder = folder;
        request.after = (ProtobufCBinaryData){.len = after.bytes, .data = after.data};
        request.limit = LIMIT_LIST_ENTRIES;
        struct api_call call = {
            .type = MESSAGE_LIST,
            .route = CLIENT_ROUTE_NAMESPACE,
            .workspace = workspace,
            .request = &request,
            .reply = &cairn__list_reply__descriptor,
        };
        struct proto_arena arena = {0};
        Cairn__ListReply *reply = NULL;
        struct cairn_entry *entry = mem_alloc(sizeof *entry);
        result = list_page(c, &call, after, what, entry, &arena, &reply, error);
        for (size_t i = 0; result == 0 && i < reply->n_entries; i++) {
            api_entry_read(reply->entries[i], entry);
            result = each(context, entry);
        }
        free(entry);
        slice_drop(&after);
        more = result == 0 && reply->next.len > 0;
        if (more) {
            after = slice_copy(reply->next.data, reply->next.len);
        }
        proto_arena_deinit(&arena);
    }
    slice_drop(&after);
    return result;
}

int cairn_list(struct cairn *c, const char *text, cairn_entry_fn *each, void *context, struct cairn_error *error)
{
    struct api_path path;
    struct api_place place;
    int result = api_path_parse(c, text, &path, error);
    if (result != 0) {
        return result;
    }
    result = api_locate(c, &path, path.depth, &place, error);
    if (result == 0 && !place.found) {
        result = api_fail(error, ERR_NOT_FOUND, "%s: not found", text);
    } else if (result == 0 && place.entry.kind != CAIRN_FOLDER) {
        result = each(context, &place.entry);
    } else if (result == 0) {
        result = api_list(c, path.workspace, place.entry.id, text, each, context, error);
    }
    api_path_deinit(&path);
    return result;
}

int cairn_mkdir(struct cairn *c, const char *text, bool parents, struct cairn_error *error)
{
    struct api_path path;
    uint64_t folder = 0;
    int result = api_path_parse(c, text, &path, error);
    if (result != 0) {
        return result;
    }
    struct api_place place = {0};
    if (parents) {
        result = api_folder(c, &path, path.depth, &folder, error);
    } else {
        result = locate_parent(c, &path, &folder, error);
        if (result == 0) {
            result = api_locate(c, &path, path.depth, &place, error);
        }
        if (result == 0 && place.found) {
            result = api_fail(error, ERR_EXISTS, "%s: exists already", text);
        } else if (result == 0) {
            result =
                api_mkdir_in(c, path.workspace, folder, path.components[path.depth - 1], 0755, 0, NULL, &folder, error);
        }
    }
    api_path_deinit(&path);
    return result;
}

int cairn_symlink(struct cairn *c, const char *target, const char *text, struct cairn_error *error)
{
    struct api_path path;
    uint64_t parent = 0;
    int result = api_path_parse(c, text, &path, error);
    if (result != 0) {
        return result;
    }
    result = locate_parent(c, &path, &parent, error);
    if (result == 0) {
        result =
            api_mkdir_in(c, path.workspace, parent, path.components[path.depth - 1], 0777, 0, target, &parent, error);
    }
    api_path_deinit(&path);
    return result;
}

/* A mutation, told under the arguments given. */
static int mutate(struct cairn *c, struct api_call *call, const char *op, const char *what, struct writer *args,
                  struct cairn_error *error)
{
    uint64_t history = api_history_invoke(c, op, args);
    struct proto_arena arena = {0};
    struct writer results = {0};
    void *reply = NULL;
    call->mutation = true;
    int result = api_call(c, call, what, &arena, &reply, error);
    if (result == 0 && call->type == MESSAGE_MOVE) {
        const Cairn__MoveReply *moved = reply;
        api_json_add(&results, "{\"sequence\":%llu,\"file\":%llu}", (unsigned long long)moved->sequence,
                     (unsigned long long)moved->file);
    } else if (result == 0) {
        const Cairn__RemoveReply *removed = reply;
        api_json_add(&results, "{\"sequence\":%llu}", (unsigned long long)removed->sequence);
    }
    api_history_complete(c, history, op, true, (enum err)result, &results);
    proto_arena_deinit(&arena);
    return result;
}

static int move_paths(struct cairn *c, const struct api_path *from, const struct api_path *to, bool replace,
                      struct cairn_error *error)
{
    struct api_place place;
    uint64_t parent = 0, to_parent = 0;
    if (strcmp(from->workspace, to->workspace) != 0) {
        return api_fail(error, ERR_UNSUPPORTED, "a move between workspaces is not supported; get, put and remove");
    }
    int result = locate_parent(c, from, &parent, error);
    if (result == 0) {
        result = api_locate(c, to, to->depth, &place, error);
    }
    if (result != 0) {
        return result;
    }
    const char *name = from->components[from->depth - 1];
    if (place.found && place.entry.kind == CAIRN_FOLDER) {
        to_parent = place.entry.id;
    } else {
        name = to->depth > 0 ? to->components[to->depth - 1] : name;
        result = locate_parent(c, to, &to_parent, error);
    }
    if (result != 0) {
        return result;
    }
    Cairn__MoveRequest request = CAIRN__MOVE_REQUEST__INIT;
    request.parent = parent;
    request.name = text_bytes(from->components[from->depth - 1]);
    request.to_parent = to_parent;
    request.to_name = text_bytes(name);
    request.replace = replace;
    struct api_call call = {
        .type = MESSAGE_MOVE,
        .route = CLIENT_ROUTE_NAMESPACE,
        .workspace = from->workspace,
        .request = &request,
        .reply = &cairn__move_reply__descriptor,
    };
    struct writer args = {0};
    path_args(&args, from->workspace, from->text);
    api_json_add_string(&args, "to", to->text);
    api_json_add_string(&args, "name", from->components[from->depth - 1]);
    api_json_add_string(&args, "to_name", name);
    api_json_add(&args, ",\"parent\":%llu,\"to_parent\":%llu,\"replace\":%s}", (unsigned long long)parent,
                 (unsigned long long)to_parent, replace ? "true" : "false");
    return mutate(c, &call, "mv", from->text, &args, error);
}

int cairn_move(struct cairn *c, const char *from_text, const char *to_text, bool replace, struct cairn_error *error)
{
    struct api_path from, to;
    int result = api_path_parse(c, from_text, &from, error);
    if (result != 0) {
        return result;
    }
    result = api_path_parse(c, to_text, &to, error);
    if (result == 0) {
        result = move_paths(c, &from, &to, replace, error);
        api_path_deinit(&to);
    }
    api_path_deinit(&from);
    return result;
}

int cairn_remove(struct cairn *c, const char *text, bool recursive, struct cairn_error *error)
{
    struct api_path path;
    uint64_t parent = 0;
    int result = api_path_parse(c, text, &path, error);
    if (result != 0) {
        return result;
    }
    result = locate_parent(c, &path, &parent, error);
    if (result == 0) {
        Cairn__RemoveRequest request = CAIRN__REMOVE_REQUEST__INIT;
        request.parent = parent;
        request.name = text_bytes(path.components[path.depth - 1]);
        request.recursive = recursive;
        struct api_call call = {
            .type = MESSAGE_REMOVE,
            .route = CLIENT_ROUTE_NAMESPACE,
            .workspace = path.workspace,
            .request = &request,
            .reply = &cairn__remove_reply__descriptor,
        };
        struct writer args = {0};
        path_args(&args, path.workspace, text);
        api_json_add_string(&args, "name", path.components[path.depth - 1]);
        api_json_add(&args, ",\"parent\":%llu,\"recursive\":%s}", (unsigned long long)parent,
                     recursive ? "true" : "false");
        result = mutate(c, &call, "rm", text, &args, error);
    }
    api_path_deinit(&path);
    return result;
}

/* ---- the feed ---- */

static const char *const change_kinds[] = {"none", "create", "update", "remove", "move"};

static void change_read(const Cairn__Change *from, struct cairn_change *change)
{
    change->sequence = from->sequence;
    change->kind = from->kind < 5 ? change_kinds[from->kind] : "unknown";
    change->from_parent = from->from_parent;
    change->wall_ns = from->wall_ns;
    bytes_copy(from->from_name, change->from_name, sizeof change->from_name);
    api_entry_read(from->entry, &change->entry);
}

static void change_tell(struct writer *json, const struct cairn_change *change)
{
    api_json_add(json, "{\"sequence\":%llu", (unsigned long long)change->sequence);
    api_json_add_string(json, "kind", change->kind);
    api_json_add(json, ",\"entry\":");
    entry_tell(json, &change->entry);
    if (change->from_parent != 0) {
        api_json_add(json, ",\"from_parent\":%llu", (unsigned long long)change->from_parent);
        api_json_add_string(json, "from_name", change->from_name);
    }
    api_json_add(json, "}");
}

static uint64_t changes_invoke(struct cairn *c, const char *workspace, const struct cairn_cursor *cursor)
{
    struct writer args = {0};
    api_json_add(&args, "{\"after\":%llu,\"incarnation\":%llu", (unsigned long long)cursor->sequence,
                 (unsigned long long)cursor->incarnation);
    api_json_add_string(&args, "workspace", workspace);
    api_json_add(&args, "}");
    return api_history_invoke(c, "changes", &args);
}

static void changes_tell(struct cairn *c, uint64_t history, int result, const Cairn__ChangesReply *reply,
                         struct cairn_change *change)
{
    struct writer results = {0};
    if (result == 0 && api_history_kept(c)) {
        api_json_add(&results, "{\"incarnation\":%llu,\"last\":%llu,\"changes\":[",
                     (unsigned long long)reply->incarnation, (unsigned long long)reply->last);
        for (size_t i = 0; i < reply->n_changes && reply->changes[i]->entry != NULL; i++) {
            change_read(reply->changes[i], change);
            api_json_add(&results, "%s", i > 0 ? "," : "");
            change_tell(&results, change);
        }
        api_json_add(&results, "]}");
    }
    api_history_complete(c, history, "changes", false, (enum err)result, &results);
}

static int changes_page(struct cairn *c, const char *workspace, struct cairn_cursor *cursor, cairn_change_fn *each,
                        void *context, bool *ret_more, struct cairn_error *error)
{
    Cairn__ChangesRequest request = CAIRN__CHANGES_REQUEST__INIT;
    request.incarnation = cursor->incarnation;
    request.after = cursor->sequence;
    request.limit = LIMIT_FEED_EVENTS;
    struct api_call call = {
        .type = MESSAGE_CHANGES,
        .route = CLIENT_ROUTE_NAMESPACE,
        .workspace = workspace,
        .request = &request,
        .reply = &cairn__changes_reply__descriptor,
    };
    struct proto_arena arena = {0};
    Cairn__ChangesReply *reply = NULL;
    struct cairn_change *change = mem_alloc(sizeof *change);
    uint64_t history = changes_invoke(c, workspace, cursor);
    int result = api_call(c, &call, workspace, &arena, (void **)&reply, error);
    changes_tell(c, history, result, reply, change);
    for (size_t i = 0; result == 0 && i < reply->n_changes; i++) {
        const Cairn__Change *from = reply->changes[i];
        if (from->sequence != cursor->sequence + 1 || from->entry == NULL) {
            result =
                api_fail(error, ERR_CORRUPT, "the feed has a gap behind %llu", (unsigned long long)cursor->sequence);
            break;
        }
        change_read(from, change);
        cursor->sequence = from->sequence;
        change->incarnation = reply->incarnation;
        result = each(context, change);
    }
    if (result == 0) {
        cursor->incarnation = reply->incarnation;
        *ret_more = reply->n_changes > 0 && cursor->sequence < reply->last;
    }
    free(change);
    proto_arena_deinit(&arena);
    return result;
}

int cairn_changes(struct cairn *c, const char *workspace, struct cairn_cursor *cursor, cairn_change_fn *each,
                  void *context, struct cairn_error *error)
{
    bool more = true;
    int result = 0;
    while (result == 0 && more) {
        result = changes_page(c, workspace, cursor, each, context, &more, error);
    }
    return result;
}
