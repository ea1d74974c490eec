/* Recording a history (history.h). */
#include "history.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct history *history_create(void)
{
    return mem_alloc(sizeof(struct history));
}

static void op_destroy(struct history_op *op)
{
    for (unsigned long i = 0; i < op->entry_count; i++) {
        free(op->entries[i].name);
    }
    for (unsigned long i = 0; i < op->change_count; i++) {
        free(op->changes[i].entry.name);
        free(op->changes[i].from_name);
    }
    free(op->entries);
    free(op->changes);
    free(op->name);
    free(op->to_name);
    free(op->after);
    free(op->next);
    free(op);
}

void history_destroy(struct history *history)
{
    for (unsigned long i = 0; i < history->count; i++) {
        op_destroy(history->ops[i]);
    }
    for (unsigned long i = 0; i < history->space_count; i++) {
        free(history->spaces[i]);
    }
    free(history->spaces);
    free(history->ops);
    free(history);
}

char *history_string(const void *text, size_t bytes)
{
    char *copy = mem_alloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        char c = ((const char *)text)[i];
        copy[i] = c != '\0' ? c : '?';
    }
    return copy;
}

struct history_op *history_invoke(struct history *history, uint32_t client, enum history_kind kind, uint64_t ns,
                                  uint64_t parent, const void *name, size_t name_bytes)
{
    struct history_op *op = mem_alloc(sizeof *op);
    *op = (struct history_op){.client = client, .kind = kind, .invoke_ns = ns, .parent = parent};
    op->complete_ns = HISTORY_NEVER;
    op->number = history->count;
    op->name = name != NULL ? history_string(name, name_bytes) : NULL;
    history->ops = mem_grow(history->ops, &history->capacity, history->count + 1, sizeof *history->ops);
    history->ops[history->count++] = op;
    history->clients = client >= history->clients ? client + 1 : history->clients;
    history->finished = false;
    return op;
}

void history_target(struct history_op *op, uint64_t to_parent, const void *name, size_t name_bytes)
{
    CHECK(op->kind == HISTORY_MOVE && op->to_name == NULL);
    op->to_parent = to_parent;
    op->to_name = history_string(name, name_bytes);
}

bool history_is_mutation(enum history_kind kind)
{
    return kind == HISTORY_PUT || kind == HISTORY_MKDIR || kind == HISTORY_REMOVE || kind == HISTORY_MOVE;
}

void history_complete(struct history_op *op, uint64_t ns, enum err err)
{
    CHECK(op->complete_ns == HISTORY_NEVER && ns >= op->invoke_ns);
    enum err_class class = err_class(err);
    bool open = class == ERR_CLASS_RETRY || class == ERR_CLASS_REDIRECT || err == ERR_INTERNAL;
    op->complete_ns = ns;
    op->err = err;
    op->outcome = err == ERR_OK ? HISTORY_OK : open && history_is_mutation(op->kind) ? HISTORY_UNKNOWN : HISTORY_FAIL;
}

struct history_entry *history_entry_add(struct history_op *op, uint64_t parent, const void *name, size_t name_bytes)
{
    CHECK(op->kind == HISTORY_LIST);
    op->entries = mem_grow(op->entries, &op->entry_capacity, op->entry_count + 1, sizeof *op->entries);
    struct history_entry *entry = &op->entries[op->entry_count++];
    *entry = (struct history_entry){.parent = parent, .name = history_string(name, name_bytes)};
    return entry;
}

struct history_change *history_change_add(struct history_op *op, uint64_t sequence, enum history_change_kind kind,
                                          uint64_t parent, const void *name, size_t name_bytes)
{
    CHECK(op->kind == HISTORY_CHANGES);
    op->changes = mem_grow(op->changes, &op->change_capacity, op->change_count + 1, sizeof *op->changes);
    struct history_change *change = &op->changes[op->change_count++];
    *change = (struct history_change){.sequence = sequence, .kind = kind};
    change->entry = (struct history_entry){.parent = parent, .name = history_string(name, name_bytes)};
    return change;
}

void history_change_from(struct history_change *change, uint64_t from_parent, const void *name, size_t name_bytes)
{
    CHECK(change->from_name == NULL);
    change->from_parent = from_parent;
    change->from_name = history_string(name, name_bytes);
}

/* ---- finishing ---- */

/* A listing of folder 0 shows the root's id as the parent of what it lists; so does a read below parent 0. */
static void infer_root(struct history *history, uint64_t asked, uint64_t told)
{
    if (asked == 0 && told != 0) {
        history->root = told;
    }
}

static void normalize(const struct history *history, uint64_t *folder)
{
    if (history->root != 0 && *folder == history->root) {
        *folder = 0;
    }
}

static void op_normalize(const struct history *history, struct history_op *op)
{
    normalize(history, &op->parent);
    normalize(history, &op->to_parent);
    normalize(history, &op->entry.parent);
    for (unsigned long i = 0; i < op->entry_count; i++) {
        normalize(history, &op->entries[i].parent);
    }
    for (unsigned long i = 0; i < op->change_count; i++) {
        normalize(history, &op->changes[i].entry.parent);
        normalize(history, &op->changes[i].from_parent);
    }
}

static int by_invocation(const void *a, const void *b)
{
    const struct history_op *x = *(struct history_op *const *)a, *y = *(struct history_op *const *)b;
    if (x->invoke_ns != y->invoke_ns) {
        return x->invoke_ns < y->invoke_ns ? -1 : 1;
    }
    return x->number < y->number ? -1 : x->number > y->number;
}

void history_finish(struct history *history)
{
    if (history->finished) {
        return;
    }
    for (unsigned long i = 0; i < history->count; i++) {
        const struct history_op *op = history->ops[i];
        if (op->outcome == HISTORY_OK && op->kind == HISTORY_LIST && op->entry_count > 0) {
            infer_root(history, op->parent, op->entries[0].parent);
        } else if (op->outcome == HISTORY_OK && op->kind == HISTORY_GET) {
            infer_root(history, op->parent, op->entry.parent);
        }
    }
    for (unsigned long i = 0; i < history->count; i++) {
        op_normalize(history, history->ops[i]);
    }
    if (history->count > 0) {
        qsort(history->ops, history->count, sizeof *history->ops, by_invocation);
    }
    for (unsigned long i = 0; i < history->count; i++) {
        history->ops[i]->number = i;
    }
    history->finished = true;
}

const char *history_kind_name(enum history_kind kind)
{
    static const char *const names[] = {"put", "get", "stat", "ls", "mkdir", "rm", "mv", "changes"};
    return names[kind];
}

void history_describe(const struct history_op *op, char *ret, size_t bytes)
{
    const char *outcome = op->outcome == HISTORY_OK ? "ok" : op->complete_ns == HISTORY_NEVER ? "?" : err_name(op->err);
    int n = snprintf(ret, bytes, "%s of client %" PRIu32 " on %" PRIu64 "/%s", history_kind_name(op->kind), op->client,
                     op->parent, op->name != NULL ? op->name : "");
    if (op->kind == HISTORY_MOVE && n > 0 && (size_t)n < bytes) {
        n += snprintf(ret + n, bytes - (size_t)n, " to %" PRIu64 "/%s", op->to_parent, op->to_name);
    }
    if (n > 0 && (size_t)n < bytes) {
        n += snprintf(ret + n, bytes - (size_t)n, " (%s", outcome);
    }
    if (n > 0 && (size_t)n < bytes && op->sequence != 0) {
        n += snprintf(ret + n, bytes - (size_t)n, ", sequence %" PRIu64, op->sequence);
    }
    if (n > 0 && (size_t)n < bytes) {
        snprintf(ret + n, bytes - (size_t)n, ", at %" PRIu64 " ns)", op->invoke_ns);
    }
}
