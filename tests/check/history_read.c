/* A `--history` file into a history: a line an invocation, a line a completion, in any order of processes.
 *
 *   {"id":N,"process":P,"op":OP,"phase":"invoke","ns":T,"args":{...}}
 *   {"id":N,"process":P,"op":OP,"phase":"complete","ns":T,"outcome":"ok|fail|unknown","error":"NAME","results":{...}}
 *
 *   OP       args                                                   results
 *   put      workspace parent name any_base base bytes content      version sequence file safe_losses bytes content
 *   get      workspace parent name                                  parent type file version bytes sequence content
 *   stat     workspace [parent name]                                parent name type file version bytes sequence
 *   ls       workspace parent after                                 sequence next entries:[{parent name type ...}]
 *   mkdir    workspace parent name exist_ok symlink                 file sequence existed
 *   rm       workspace parent name recursive version                sequence
 *   mv       workspace parent name to_parent to_name replace        file sequence
 *   changes  workspace after incarnation                            incarnation last changes:[{sequence kind parent
 *                                                                   name type file version bytes from_parent
 * from_name}]
 *
 * "content" is a hash in hexadecimal; its first 16 digits count. What is left out is "not told". A stat that finds
 * nothing ends with NOT_FOUND and says in its results where; one of a workspace's root says "root", its folder id.
 * Operations of other names are passed over. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "history.h"
#include "json.h"

struct history_pending { /* of one file */
    uint64_t process, id;
    struct history_op *op; /* NULL: completed */
};

struct reading {
    struct history *history;
    const char *what;
    unsigned long line;
    struct history_pending *pending;
    unsigned long pending_count, pending_capacity;
    struct {
        uint64_t process;
        uint32_t client;
    } * clients;
    unsigned long client_count, client_capacity;
};

static enum err refuse(struct reading *r, const char *what)
{
    snprintf(r->history->error, sizeof r->history->error, "%s:%lu: %s", r->what, r->line, what);
    return ERR_INVALID;
}

static uint32_t client_of(struct reading *r, uint64_t process)
{
    for (unsigned long i = 0; i < r->client_count; i++) {
        if (r->clients[i].process == process) {
            return r->clients[i].client;
        }
    }
    r->clients = mem_grow(r->clients, &r->client_capacity, r->client_count + 1, sizeof *r->clients);
    r->clients[r->client_count].process = process;
    r->clients[r->client_count].client = r->history->clients++;
    return r->clients[r->client_count++].client;
}

static uint32_t space_of(struct history *history, const char *workspace)
{
    const char *name = workspace != NULL ? workspace : "";
    for (unsigned long i = 0; i < history->space_count; i++) {
        if (strcmp(history->spaces[i], name) == 0) {
            return (uint32_t)i;
        }
    }
    history->spaces =
        mem_grow(history->spaces, &history->space_capacity, history->space_count + 1, sizeof *history->spaces);
    history->spaces[history->space_count] = history_string(name, strlen(name));
    return (uint32_t)history->space_count++;
}

static bool kind_of(const char *name, enum history_kind *ret_kind)
{
    for (int kind = HISTORY_PUT; name != NULL && kind <= HISTORY_CHANGES; kind++) {
        if (strcmp(name, history_kind_name((enum history_kind)kind)) == 0) {
            *ret_kind = (enum history_kind)kind;
            return true;
        }
    }
    return false;
}

static uint64_t content_of(const struct json *object)
{
    const char *text = json_text(object, "content");
    char digits[17] = "";
    if (text == NULL) {
        return 0;
    }
    strncpy(digits, text, 16);
    return strtoull(digits, NULL, 16);
}

static char *copy_of(const struct json *object, const char *member)
{
    const char *text = json_text(object, member);
    return text != NULL ? history_string(text, strlen(text)) : NULL;
}

static enum history_type type_of(const struct json *object)
{
    static const char *const names[] = {"absent", "file", "folder", "symlink"};
    const char *text = json_text(object, "type");
    for (int type = 0; text != NULL && type < 4; type++) {
        if (strcmp(text, names[type]) == 0) {
            return (enum history_type)type;
        }
    }
    return HISTORY_ABSENT;
}

static void entry_read(const struct json *object, struct history_entry *entry)
{
    entry->parent = json_number(object, "parent");
    entry->type = type_of(object);
    entry->file = json_number(object, "file");
    entry->version = json_number(object, "version");
    entry->bytes = json_number(object, "bytes");
    entry->sequence = json_number(object, "sequence");
    entry->content = content_of(object);
}

static void args_read(struct history *history, struct history_op *op, const struct json *args)
{
    op->space = space_of(history, json_text(args, "workspace"));
    op->any_base = json_bool(args, "any_base");
    op->exist_ok = json_bool(args, "exist_ok");
    op->replace = json_bool(args, "replace");
    op->recursive = json_bool(args, "recursive");
    op->symlink = json_bool(args, "symlink");
    op->base = json_number(args, op->kind == HISTORY_REMOVE ? "version" : "base");
    op->incarnation = json_number(args, "incarnation");
    op->entry.bytes = json_number(args, "bytes");
    op->entry.content = content_of(args);
    if (op->kind == HISTORY_CHANGES) {
        op->after_sequence = json_number(args, "after");
    } else {
        op->after = copy_of(args, "after");
    }
    if (op->kind == HISTORY_MOVE) {
        const char *name = json_text(args, "to_name");
        name = name != NULL ? name : "";
        history_target(op, json_number(args, "to_parent"), name, strlen(name));
    }
}

static void entries_read(struct history_op *op, const struct json *entries)
{
    for (const struct json *at = entries != NULL ? entries->first : NULL; at != NULL; at = at->next) {
        const char *name = json_text(at, "name");
        struct history_entry *entry =
            history_entry_add(op, 0, name != NULL ? name : "", name != NULL ? strlen(name) : 0);
        entry_read(at, entry);
        entry->parent = entry->parent != 0 ? entry->parent : op->parent;
    }
}

static enum history_change_kind change_kind_of(const struct json *change)
{
    static const char *const names[] = {"", "create", "update", "remove", "move"};
    const char *text = json_text(change, "kind");
    for (int kind = 1; text != NULL && kind < 5; kind++) {
        if (strcmp(text, names[kind]) == 0) {
            return (enum history_change_kind)kind;
        }
    }
    return (enum history_change_kind)0;
}

static void changes_read(struct history_op *op, const struct json *changes)
{
    for (const struct json *at = changes != NULL ? changes->first : NULL; at != NULL; at = at->next) {
        const struct json *nested = json_member(at, "entry"), *entry = nested != NULL ? nested : at;
        const char *name = json_text(entry, "name"), *from = json_text(at, "from_name");
        struct history_change *change = history_change_add(op, json_number(at, "sequence"), change_kind_of(at), 0,
                                                           name != NULL ? name : "", name != NULL ? strlen(name) : 0);
        entry_read(entry, &change->entry);
        if (from != NULL) {
            history_change_from(change, json_number(at, "from_parent"), from, strlen(from));
        }
    }
}

static void results_read(struct history *history, struct history_op *op, const struct json *results)
{
    uint64_t root = json_number(results, "root");
    history->root = root != 0 ? root : history->root;
    uint64_t bytes = op->entry.bytes, content = op->entry.content;
    entry_read(results, &op->entry);
    op->entry.bytes = op->entry.bytes != 0 ? op->entry.bytes : bytes;
    op->entry.content = op->entry.content != 0 ? op->entry.content : content;
    bool read = op->kind == HISTORY_GET || op->kind == HISTORY_STAT; /* the sequence is the entry's */
    op->sequence = read ? 0 : json_number(results, op->kind == HISTORY_CHANGES ? "last" : "sequence");
    op->existed = json_bool(results, "existed");
    op->safe_losses = (uint32_t)json_number(results, "safe_losses");
    op->next = copy_of(results, "next");
    if (op->kind == HISTORY_STAT && op->name == NULL) {
        op->name = copy_of(results, "name");
        op->parent = op->entry.parent;
    }
    if (op->kind == HISTORY_LIST) {
        entries_read(op, json_member(results, "entries"));
    } else if (op->kind == HISTORY_CHANGES) {
        op->incarnation = json_number(results, "incarnation");
        changes_read(op, json_member(results, "changes"));
    }
}

static enum err error_of(const char *name)
{
#define ERR(code, number, class, exit_code, text)                                                                      \
    if (name != NULL && strcmp(name, #code) == 0) {                                                                    \
        return (enum err)number;                                                                                       \
    }
#include "base/err.def"
#undef ERR
    return ERR_INTERNAL;
}

static enum err invoked(struct reading *r, enum history_kind kind, const struct json *line)
{
    const struct json *args = json_member(line, "args");
    const char *name = json_text(args, "name");
    uint64_t process = json_number(line, "process"), id = json_number(line, "id");
    struct history_op *op = history_invoke(r->history, client_of(r, process), kind, json_number(line, "ns"),
                                           json_number(args, "parent"), name, name != NULL ? strlen(name) : 0);
    args_read(r->history, op, args);
    if (op->name == NULL && kind != HISTORY_STAT && kind != HISTORY_LIST && kind != HISTORY_CHANGES) {
        return refuse(r, "an operation on an entry without its name");
    }
    r->pending = mem_grow(r->pending, &r->pending_capacity, r->pending_count + 1, sizeof *r->pending);
    r->pending[r->pending_count++] = (struct history_pending){process, id, op};
    return ERR_OK;
}

static enum err completed(struct reading *r, enum history_kind kind, const struct json *line)
{
    uint64_t process = json_number(line, "process"), id = json_number(line, "id"), ns = json_number(line, "ns");
    const char *outcome = json_text(line, "outcome");
    for (unsigned long i = r->pending_count; i > 0; i--) {
        struct history_pending *pending = &r->pending[i - 1];
        if (pending->op == NULL || pending->process != process || pending->id != id || pending->op->kind != kind) {
            continue;
        }
        if (ns < pending->op->invoke_ns || outcome == NULL) {
            return refuse(r, "a completion before its invocation, or without an outcome");
        }
        history_complete(pending->op, ns, error_of(json_text(line, "error")));
        pending->op->outcome = strcmp(outcome, "ok") == 0     ? HISTORY_OK
                               : strcmp(outcome, "fail") == 0 ? HISTORY_FAIL
                                                              : HISTORY_UNKNOWN;
        results_read(r->history, pending->op, json_member(line, "results"));
        pending->op = NULL;
        return ERR_OK;
    }
    return refuse(r, "a completion without an invocation");
}

static enum err line_read(struct reading *r, const char *text)
{
    if (text[0] == '#' || text[strspn(text, " \t\r\n")] == '\0') {
        return ERR_OK;
    }
    struct json *line = json_parse(text);
    enum history_kind kind = HISTORY_PUT;
    const char *phase = json_text(line, "phase");
    enum err err = ERR_OK;
    if (line == NULL || phase == NULL) {
        err = refuse(r, "not a line of a history");
    } else if (!kind_of(json_text(line, "op"), &kind)) {
        err = ERR_OK; /* of another tool */
    } else {
        err = strcmp(phase, "invoke") == 0 ? invoked(r, kind, line) : completed(r, kind, line);
    }
    json_destroy(line);
    return err;
}

enum err history_read(struct history *history, FILE *file, const char *what)
{
    struct reading r = {.history = history, .what = what};
    char *text = NULL;
    size_t capacity = 0;
    enum err err = ERR_OK;
    while (err == ERR_OK && getline(&text, &capacity, file) > 0) {
        r.line++;
        err = line_read(&r, text);
    }
    free(text);
    free(r.pending);
    free(r.clients);
    return err;
}
