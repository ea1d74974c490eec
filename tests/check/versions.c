/* Acknowledged versions (versions.h). */
#include "versions.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "cells.h"

/* What the acknowledged mutations leave in a cell. */
struct left {
    const struct history_op *last; /* acknowledged, on this cell; NULL: none */
    bool filled;
    uint64_t version, content; /* 0: not told */
    uint64_t settled_ns;       /* no mutation of the cell is under way from here on */
    bool doubt;                /* a mutation of unknown outcome, or a folder above was removed */
    bool read;
};

struct versions {
    struct history *history;
    struct report *report;
    struct cells cells;
    struct left *left;
};

/* ---- numbers ---- */

struct stored { /* a version and who told of it */
    uint64_t version, content;
    const struct history_op *op;
    uint32_t space;
};

static int by_version(const void *a, const void *b)
{
    const struct stored *x = a, *y = b;
    if (x->space != y->space) {
        return x->space < y->space ? -1 : 1;
    }
    if (x->version != y->version) {
        return x->version < y->version ? -1 : 1;
    }
    return x->op->number < y->op->number ? -1 : x->op->number > y->op->number;
}

static void check_same(struct versions *v, const struct stored *a, const struct stored *b)
{
    char first[160], second[160];
    bool put_twice = a->op->kind == HISTORY_PUT && b->op->kind == HISTORY_PUT;
    bool other = a->content != 0 && b->content != 0 && a->content != b->content;
    if (a->space != b->space || a->version != b->version || !(put_twice || other)) {
        return;
    }
    history_describe(a->op, first, sizeof first);
    history_describe(b->op, second, sizeof second);
    report_find(v->report, "versions: version %" PRIu64 " is %s for %s and %s", a->version,
                put_twice ? "acknowledged twice," : "of other bytes", first, second);
}

static void check_numbers(struct versions *v)
{
    struct stored *stored = mem_alloc((v->history->count + 1) * sizeof *stored);
    unsigned long count = 0;
    for (unsigned long i = 0; i < v->history->count; i++) {
        const struct history_op *op = v->history->ops[i];
        bool tells = (op->kind == HISTORY_PUT || op->kind == HISTORY_GET) && op->outcome == HISTORY_OK;
        if (tells && op->entry.version != 0) {
            stored[count++] = (struct stored){op->entry.version, op->entry.content, op, op->space};
        }
        if (op->kind == HISTORY_PUT && op->outcome == HISTORY_OK) {
            v->report->looked++;
            if (op->safe_losses < 1) {
                char text[160];
                history_describe(op, text, sizeof text);
                report_find(v->report, "versions: %s was acknowledged with safe_losses 0", text);
            }
        }
    }
    if (count > 0) {
        qsort(stored, count, sizeof *stored, by_version);
    }
    for (unsigned long i = 1; i < count; i++) {
        const struct stored *known = &stored[i - 1];
        check_same(v, known, &stored[i]);
        bool same = known->version == stored[i].version && known->space == stored[i].space;
        if (same && stored[i].content == 0) {
            stored[i].content = known->content;
        }
    }
    free(stored);
}

/* ---- the end ---- */

static int by_sequence(const void *a, const void *b)
{
    const struct history_op *x = *(struct history_op *const *)a, *y = *(struct history_op *const *)b;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static void leave(struct versions *v, const struct history_op *op)
{
    uint32_t to = CELL_NONE, cell = cells_of_op(&v->cells, op, &to);
    struct left *left = &v->left[cell];
    left->last = op;
    if (op->kind == HISTORY_PUT || op->kind == HISTORY_MKDIR) {
        left->filled = true;
        left->version = op->entry.version;
        left->content = op->kind == HISTORY_PUT ? op->entry.content : 0;
    } else if (op->kind == HISTORY_REMOVE) {
        left->filled = false;
    } else if (to != cell) {
        struct left *target = &v->left[to];
        target->last = op;
        target->filled = true;
        target->version = left->filled ? left->version : 0;
        target->content = left->filled ? left->content : 0;
        left->filled = false;
    }
}

static void settle(struct versions *v, uint32_t cell, const struct history_op *op)
{
    if (cell == CELL_NONE) {
        return;
    }
    struct left *left = &v->left[cell];
    bool open = op->outcome == HISTORY_UNKNOWN;
    left->doubt = left->doubt || open;
    uint64_t end = open ? op->invoke_ns : op->complete_ns;
    left->settled_ns = end > left->settled_ns ? end : left->settled_ns;
}

/* Doubt travels with moved entries, and down from folders that may be gone: then nothing is expected there. */
static void spread_doubt(struct versions *v)
{
    bool more = true;
    while (more) {
        more = false;
        for (unsigned long i = 0; i < v->history->count; i++) {
            const struct history_op *op = v->history->ops[i];
            uint32_t to = CELL_NONE, cell = cells_of_op(&v->cells, op, &to);
            if (op->kind == HISTORY_MOVE && op->outcome != HISTORY_FAIL && v->left[cell].doubt != v->left[to].doubt) {
                v->left[cell].doubt = v->left[to].doubt = more = true;
            }
        }
    }
}

static bool folder_removed(const struct versions *v)
{
    for (unsigned long i = 0; i < v->history->count; i++) {
        const struct history_op *op = v->history->ops[i];
        if (op->kind == HISTORY_REMOVE && op->recursive && op->outcome != HISTORY_FAIL) {
            return true;
        }
    }
    return false;
}

static void collect_left(struct versions *v)
{
    struct history_op **done = mem_alloc((v->history->count + 1) * sizeof *done);
    unsigned long count = 0;
    for (unsigned long i = 0; i < v->history->count; i++) {
        struct history_op *op = v->history->ops[i];
        uint32_t to = CELL_NONE, cell = cells_of_op(&v->cells, op, &to);
        if (!history_is_mutation(op->kind) || op->outcome == HISTORY_FAIL) {
            continue;
        }
        settle(v, cell, op);
        settle(v, to, op);
        if (op->outcome == HISTORY_OK && !op->existed) {
            done[count++] = op;
        }
    }
    if (count > 0) {
        qsort(done, count, sizeof *done, by_sequence);
    }
    for (unsigned long i = 0; i < count; i++) {
        leave(v, done[i]);
    }
    free(done);
    bool removed = folder_removed(v);
    for (uint32_t cell = 0; removed && cell < v->cells.count; cell++) {
        v->left[cell].doubt = v->left[cell].doubt || v->cells.items[cell].parent != 0;
    }
    spread_doubt(v);
}

static void final_read(struct versions *v, struct left *left, const struct history_op *op)
{
    char text[200], last[200];
    if (err_class(op->err) == ERR_CLASS_RETRY || err_class(op->err) == ERR_CLASS_REDIRECT) {
        return; /* during a fault: says nothing */
    }
    bool ok = op->outcome == HISTORY_OK, absent = op->err == ERR_NOT_FOUND;
    bool folder = op->err == ERR_IS_A_FOLDER;
    bool right = left->filled
                     ? ok && (left->version == 0 || op->entry.version == 0 || left->version == op->entry.version) &&
                           (left->content == 0 || op->entry.content == 0 || left->content == op->entry.content)
                     : absent;
    left->read = true;
    v->report->looked++;
    history_describe(op, text, sizeof text);
    if (!ok && !absent && !folder) {
        report_find(v->report, "versions: %s, after the last mutation of that name", text);
    } else if (!right && !folder && !left->doubt && left->last != NULL) {
        history_describe(left->last, last, sizeof last);
        report_find(v->report, "versions: lost: %s shows %s; the last acknowledged was %s", text,
                    ok ? "another version" : "nothing", last);
    }
}

static void check_end(struct versions *v, const struct versions_options *options)
{
    for (unsigned long i = 0; i < v->history->count; i++) {
        const struct history_op *op = v->history->ops[i];
        uint32_t to = CELL_NONE, cell = cells_of_op(&v->cells, op, &to);
        bool gone = op->kind == HISTORY_STAT && op->outcome == HISTORY_FAIL && op->err == ERR_NOT_FOUND;
        if (cell != CELL_NONE && (op->kind == HISTORY_GET || gone) && op->complete_ns != HISTORY_NEVER &&
            op->invoke_ns > v->left[cell].settled_ns) {
            final_read(v, &v->left[cell], op);
        }
    }
    for (uint32_t cell = 0; options->complete && cell < v->cells.count; cell++) {
        const struct left *left = &v->left[cell];
        bool file = left->last != NULL && (left->last->kind == HISTORY_PUT || left->last->kind == HISTORY_REMOVE);
        if (file && !left->read && !left->doubt) {
            report_find(v->report, "versions: %" PRIu64 "/%s was acknowledged and never read after its last mutation",
                        v->cells.items[cell].parent, v->cells.items[cell].name);
        }
    }
}

void versions_check(struct history *history, const struct versions_options *options, struct report *report)
{
    struct versions v = {.history = history, .report = report};
    report->checker = "versions";
    history_finish(history);
    cells_init(&v.cells);
    cells_of_history(&v.cells, history);
    v.left = mem_alloc((v.cells.count + 1) * sizeof *v.left);
    check_numbers(&v);
    collect_left(&v);
    check_end(&v, options);
    free(v.left);
    cells_deinit(&v.cells);
}
