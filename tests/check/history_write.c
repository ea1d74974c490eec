/* A history as the JSON lines that history_read.c reads. Invocations and completions stand in order of time. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "history.h"

struct moment {
    uint64_t ns;
    bool complete;
    const struct history_op *op;
};

static int by_time(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;
    if (x->ns != y->ns) {
        return x->ns < y->ns ? -1 : 1;
    }
    if (x->op->number != y->op->number) {
        return x->op->number < y->op->number ? -1 : 1;
    }
    return x->complete - y->complete;
}

static void text_write(FILE *file, const char *name, const char *text)
{
    if (text == NULL) {
        return;
    }
    fprintf(file, ",\"%s\":\"", name);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\') {
            fprintf(file, "\\%c", *p);
        } else if ((unsigned char)*p < 0x20) {
            fprintf(file, "\\u%04x", (unsigned)*p);
        } else {
            fputc(*p, file);
        }
    }
    fputc('"', file);
}

static void number_write(FILE *file, const char *name, uint64_t number)
{
    if (number != 0) {
        fprintf(file, ",\"%s\":%" PRIu64, name, number);
    }
}

static void flag_write(FILE *file, const char *name, bool flag)
{
    if (flag) {
        fprintf(file, ",\"%s\":true", name);
    }
}

static void entry_write(FILE *file, const struct history_entry *entry, bool sequence)
{
    static const char *const types[] = {NULL, "file", "folder", "symlink"};
    number_write(file, "parent", entry->parent);
    text_write(file, "name", entry->name);
    text_write(file, "type", types[entry->type]);
    number_write(file, "file", entry->file);
    number_write(file, "version", entry->version);
    number_write(file, "bytes", entry->bytes);
    if (sequence) {
        number_write(file, "sequence", entry->sequence);
    }
    if (entry->content != 0) {
        fprintf(file, ",\"content\":\"%016" PRIx64 "\"", entry->content);
    }
}

static void invoke_write(const struct history *history, const struct history_op *op, FILE *file)
{
    fprintf(file, "\"args\":{\"workspace\":\"%s\"", op->space < history->space_count ? history->spaces[op->space] : "");
    if (op->kind == HISTORY_CHANGES) {
        number_write(file, "after", op->after_sequence);
    } else {
        number_write(file, "parent", op->parent);
        text_write(file, "name", op->name);
        text_write(file, "after", op->after);
    }
    if (op->kind == HISTORY_PUT) {
        number_write(file, "bytes", op->entry.bytes);
        if (op->entry.content != 0) {
            fprintf(file, ",\"content\":\"%016" PRIx64 "\"", op->entry.content);
        }
    }
    number_write(file, op->kind == HISTORY_REMOVE ? "version" : "base", op->base);
    flag_write(file, "any_base", op->any_base);
    flag_write(file, "exist_ok", op->exist_ok);
    flag_write(file, "replace", op->replace);
    flag_write(file, "recursive", op->recursive);
    flag_write(file, "symlink", op->symlink);
    if (op->kind == HISTORY_MOVE) {
        number_write(file, "to_parent", op->to_parent);
        text_write(file, "to_name", op->to_name);
    }
    fputs("}}\n", file);
}

static void changes_write(const struct history_op *op, FILE *file)
{
    static const char *const kinds[] = {"", "create", "update", "remove", "move"};
    fprintf(file, ",\"incarnation\":%" PRIu64 ",\"last\":%" PRIu64 ",\"changes\":[", op->incarnation, op->sequence);
    for (unsigned long i = 0; i < op->change_count; i++) {
        const struct history_change *change = &op->changes[i];
        fprintf(file, "%s{\"sequence\":%" PRIu64, i > 0 ? "," : "", change->sequence);
        text_write(file, "kind", kinds[change->kind < 5 ? change->kind : 0]);
        fputs(",\"entry\":{\"existed\":true", file);
        entry_write(file, &change->entry, false);
        fputc('}', file);
        number_write(file, "from_parent", change->from_parent);
        text_write(file, "from_name", change->from_name);
        fputc('}', file);
    }
    fputc(']', file);
}

static void complete_write(const struct history_op *op, FILE *file)
{
    static const char *const outcomes[] = {"unknown", "ok", "fail"};
    fprintf(file, "\"outcome\":\"%s\",\"error\":\"%s\",\"results\":{\"existed\":%s", outcomes[op->outcome],
            err_name(op->err), op->existed ? "true" : "false");
    if (op->kind == HISTORY_CHANGES) {
        changes_write(op, file);
    } else {
        bool found = op->kind == HISTORY_GET || op->kind == HISTORY_STAT;
        struct history_entry entry = op->entry;
        entry.parent = op->kind == HISTORY_STAT ? op->parent : 0;
        entry.name = op->kind == HISTORY_STAT ? op->name : NULL;
        entry_write(file, &entry, found);
        number_write(file, "sequence", op->sequence);
        number_write(file, "safe_losses", op->safe_losses);
        text_write(file, "next", op->next);
    }
    if (op->kind == HISTORY_LIST) {
        fputs(",\"entries\":[", file);
        for (unsigned long i = 0; i < op->entry_count; i++) {
            fprintf(file, "%s{\"existed\":true", i > 0 ? "," : "");
            entry_write(file, &op->entries[i], true);
            fputc('}', file);
        }
        fputc(']', file);
    }
    fputs("}}\n", file);
}

void history_write(const struct history *history, FILE *file)
{
    struct moment *moments = mem_alloc((2 * history->count + 1) * sizeof *moments);
    unsigned long count = 0;
    for (unsigned long i = 0; i < history->count; i++) {
        const struct history_op *op = history->ops[i];
        moments[count++] = (struct moment){op->invoke_ns, false, op};
        if (op->complete_ns != HISTORY_NEVER) {
            moments[count++] = (struct moment){op->complete_ns, true, op};
        }
    }
    qsort(moments, count, sizeof *moments, by_time);
    for (unsigned long i = 0; i < count; i++) {
        const struct history_op *op = moments[i].op;
        fprintf(file, "{\"id\":%" PRIu64 ",\"process\":%" PRIu32 ",\"op\":\"%s\",\"phase\":\"%s\",\"ns\":%" PRIu64 ",",
                op->number + 1, op->client, history_kind_name(op->kind), moments[i].complete ? "complete" : "invoke",
                moments[i].ns);
        if (moments[i].complete) {
            complete_write(op, file);
        } else {
            invoke_write(history, op, file);
        }
    }
    free(moments);
}
