/* Linearizability (linear.h): a history cut into searches (linear_search.h), one for each cell or for cells between
 * which entries moved; and what the sequence numbers promise across all of them. */
#include "linear.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "cells.h"
#include "linear_search.h"

struct linear {
    struct history *history;
    const struct linear_options *options;
    struct report *report;
    struct cells cells;
    uint32_t *home;  /* by cell: union-find over moves */
    bool *loose;     /* by cell: the folder above may have been removed */
    uint32_t *local; /* by cell: index in the search under way */
    struct linear_search *search;
};

static uint32_t home_of(struct linear *l, uint32_t cell)
{
    while (l->home[cell] != cell) {
        l->home[cell] = l->home[l->home[cell]];
        cell = l->home[cell];
    }
    return cell;
}

static void join_moves(struct linear *l)
{
    for (uint32_t i = 0; i < l->cells.count; i++) {
        l->home[i] = i;
    }
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        uint32_t to = CELL_NONE, from = cells_of_op(&l->cells, op, &to);
        if (op->kind == HISTORY_MOVE && op->outcome != HISTORY_FAIL) {
            l->home[home_of(l, from)] = home_of(l, to);
        }
    }
}

/* ---- folders that may be gone ---- */

/* A folder that was seen somewhere. */
struct folder {
    uint64_t id;
    uint32_t home;
    bool gone; /* may have been removed, or one above it */
};

struct folders {
    struct folder *items;
    unsigned long count, capacity;
};

static void folder_seen(struct folders *folders, uint64_t id, uint32_t home)
{
    for (unsigned long i = 0; i < folders->count; i++) {
        if (folders->items[i].id == id) {
            return;
        }
    }
    folders->items = mem_grow(folders->items, &folders->capacity, folders->count + 1, sizeof *folders->items);
    folders->items[folders->count++] = (struct folder){id, home, false};
}

static void folders_collect(struct linear *l, struct folders *folders)
{
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        uint32_t to = CELL_NONE, cell = cells_of_op(&l->cells, op, &to);
        bool made = op->kind == HISTORY_MKDIR && !op->symlink;
        if (op->outcome == HISTORY_OK && cell != CELL_NONE && (made || op->entry.type == HISTORY_FOLDER)) {
            folder_seen(folders, op->entry.file, home_of(l, cell));
        }
        for (unsigned long e = 0; e < op->entry_count; e++) {
            if (op->entries[e].type == HISTORY_FOLDER) {
                cell = cells_find(&l->cells, op->space, op->parent, op->entries[e].name);
                folder_seen(folders, op->entries[e].file, home_of(l, cell));
            }
        }
    }
}

/* A folder nobody saw made is the root where the history has everything; else nothing is known of it. */
static bool folder_is_gone(const struct linear *l, const struct folders *folders, uint64_t id)
{
    for (unsigned long i = 0; i < folders->count; i++) {
        if (folders->items[i].id == id) {
            return folders->items[i].gone;
        }
    }
    return id != 0 && !l->options->starts_empty;
}

/* Spreads "may be gone" from removed cells to the folders that stood there, and from folders to the cells below. */
static void find_loose(struct linear *l)
{
    struct folders folders = {0};
    bool *removed = mem_alloc((l->cells.count + 1) * sizeof *removed);
    folders_collect(l, &folders);
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        uint32_t to = CELL_NONE, cell = cells_of_op(&l->cells, op, &to);
        if (op->kind == HISTORY_REMOVE && op->outcome != HISTORY_FAIL) {
            removed[home_of(l, cell)] = true;
        }
    }
    for (bool more = true; more;) {
        more = false;
        for (uint32_t i = 0; i < l->cells.count; i++) {
            l->loose[i] = folder_is_gone(l, &folders, l->cells.items[i].parent);
            removed[home_of(l, i)] = removed[home_of(l, i)] || l->loose[i];
        }
        for (unsigned long i = 0; i < folders.count; i++) {
            more = more || (removed[folders.items[i].home] && !folders.items[i].gone);
            folders.items[i].gone = removed[folders.items[i].home];
        }
    }
    free(removed);
    free(folders.items);
}

/* ---- searches ---- */

static bool op_counts(const struct history_op *op)
{
    bool mutation = history_is_mutation(op->kind);
    return op->name != NULL && (mutation || op->outcome != HISTORY_UNKNOWN);
}

static void search_add_pages(struct linear *l, uint32_t home)
{
    const struct history_entry **shown = mem_alloc((l->cells.count + 1) * sizeof(void *));
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *page = l->history->ops[i];
        if (page->kind != HISTORY_LIST || page->outcome != HISTORY_OK) {
            continue;
        }
        for (unsigned long e = 0; e < page->entry_count; e++) {
            shown[cells_find(&l->cells, page->space, page->parent, page->entries[e].name)] = &page->entries[e];
        }
        for (uint32_t cell = 0; cell < l->cells.count; cell++) {
            if (home_of(l, cell) == home && cells_page_covers(&l->cells, cell, page)) {
                struct linear_step step = {.op = page, .cell = l->local[cell], .to = CELL_NONE, .page = true};
                step.shown = shown[cell];
                linear_search_add(l->search, &step);
            }
            shown[cell] = NULL;
        }
    }
    free(shown);
}

static uint32_t search_cells(struct linear *l, uint32_t home)
{
    uint32_t count = 0;
    for (uint32_t cell = 0; cell < l->cells.count; cell++) {
        l->local[cell] = home_of(l, cell) == home ? count++ : CELL_NONE;
    }
    return count;
}

static void search_home(struct linear *l, uint32_t home)
{
    uint64_t bound = l->options->bound != 0 ? l->options->bound : LINEAR_BOUND;
    l->search = linear_search_create(search_cells(l, home), l->options->starts_empty, bound);
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        uint32_t to = CELL_NONE, cell = cells_of_op(&l->cells, op, &to);
        if (!op_counts(op) || cell == CELL_NONE || home_of(l, cell) != home) {
            continue;
        }
        bool moves = op->kind == HISTORY_MOVE && op->outcome != HISTORY_FAIL;
        struct linear_step step = {.op = op, .cell = l->local[cell], .to = moves ? l->local[to] : CELL_NONE};
        step.loose = l->loose[cell] || (to != CELL_NONE && l->loose[to]);
        linear_search_add(l->search, &step);
    }
    search_add_pages(l, home);
    const struct history_op *stuck = NULL;
    enum linear_verdict verdict = linear_search_run(l->search, &stuck);
    l->report->looked += linear_search_count(l->search);
    if (verdict == LINEAR_NO) {
        char text[300];
        history_describe(stuck, text, sizeof text);
        report_find(l->report, "linear: no order explains the answers about %" PRIu64 "/%s: %s fits nowhere",
                    l->cells.items[home].parent, l->cells.items[home].name, text);
    }
    l->report->undecided += verdict == LINEAR_UNDECIDED;
    linear_search_destroy(l->search);
}

/* ---- sequences ---- */

static bool has_sequence(const struct history_op *op)
{
    return history_is_mutation(op->kind) && op->outcome == HISTORY_OK && op->sequence != 0 && !op->existed;
}

static int by_completion(const void *a, const void *b)
{
    const struct history_op *x = *(struct history_op *const *)a, *y = *(struct history_op *const *)b;
    return x->complete_ns < y->complete_ns ? -1 : x->complete_ns > y->complete_ns;
}

static int by_sequence(const void *a, const void *b)
{
    const struct history_op *x = *(struct history_op *const *)a, *y = *(struct history_op *const *)b;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static void sequence_wrong(struct linear *l, const struct history_op *before, const struct history_op *op)
{
    char a[160], b[160];
    history_describe(before, a, sizeof a);
    history_describe(op, b, sizeof b);
    report_find(l->report, "linear: %s completed before %s was invoked, and its sequence is not the lower one", a, b);
}

/* What completed before an invocation has a lower sequence; a page or cursor that was asked later shows it. */
static void check_order(struct linear *l, struct history_op **done, unsigned long count, uint32_t space)
{
    unsigned long next = 0;
    const struct history_op *newest = NULL;
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        for (; next < count && done[next]->complete_ns < op->invoke_ns; next++) {
            newest = newest == NULL || done[next]->sequence > newest->sequence ? done[next] : newest;
        }
        bool page = (op->kind == HISTORY_LIST || op->kind == HISTORY_CHANGES) && op->outcome == HISTORY_OK;
        if (newest == NULL || op->space != space || !(page || has_sequence(op))) {
            continue;
        }
        if (page ? op->sequence < newest->sequence : op->sequence <= newest->sequence) {
            sequence_wrong(l, newest, op);
        }
    }
}

/* A page that completed before a mutation was invoked shows a state before it. */
static void check_pages_old(struct linear *l, struct history_op **done, unsigned long count, uint32_t space)
{
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *page = l->history->ops[i];
        if (page->space != space || page->outcome != HISTORY_OK ||
            (page->kind != HISTORY_LIST && page->kind != HISTORY_CHANGES)) {
            continue;
        }
        for (unsigned long m = 0; m < count; m++) {
            if (done[m]->invoke_ns > page->complete_ns && done[m]->sequence <= page->sequence) {
                sequence_wrong(l, page, done[m]);
                break;
            }
        }
    }
}

static void check_distinct(struct linear *l, struct history_op **done, unsigned long count)
{
    for (unsigned long i = 1; i < count; i++) {
        if (done[i]->sequence == done[i - 1]->sequence) {
            char a[160], b[160];
            history_describe(done[i - 1], a, sizeof a);
            history_describe(done[i], b, sizeof b);
            report_find(l->report, "linear: one sequence for two mutations: %s, %s", a, b);
        }
    }
}

/* Could an operation of unknown outcome have changed what the cell holds? */
static bool cell_in_doubt(struct linear *l, uint32_t cell)
{
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *op = l->history->ops[i];
        uint32_t to = CELL_NONE, from = cells_of_op(&l->cells, op, &to);
        if (history_is_mutation(op->kind) && op->outcome == HISTORY_UNKNOWN && (from == cell || to == cell)) {
            return true;
        }
    }
    return l->loose[cell];
}

/* The page against the last acknowledged mutation of each name up to its sequence. `done` is in order of sequence. */
static void check_page(struct linear *l, const struct history_op *page, struct history_op **done, unsigned long count)
{
    const struct history_op **last = mem_alloc((l->cells.count + 1) * sizeof(void *));
    for (unsigned long i = 0; i < count && done[i]->sequence <= page->sequence; i++) {
        uint32_t to = CELL_NONE, cell = cells_of_op(&l->cells, done[i], &to);
        last[cell] = done[i];
        if (to != CELL_NONE) {
            last[to] = done[i];
        }
    }
    for (unsigned long e = 0; e < page->entry_count; e++) {
        const struct history_entry *entry = &page->entries[e];
        uint32_t cell = cells_find(&l->cells, page->space, page->parent, entry->name);
        uint64_t least = last[cell] != NULL ? last[cell]->sequence : 0;
        bool good = entry->sequence == 0 || (entry->sequence >= least && entry->sequence <= page->sequence);
        if (!good) {
            report_find(l->report,
                        "linear: a page of folder %" PRIu64 " at sequence %" PRIu64 " shows %s of sequence %" PRIu64
                        "; acknowledged up to there was %" PRIu64,
                        page->parent, page->sequence, entry->name, entry->sequence, least);
        }
        last[cell] = NULL;
    }
    for (uint32_t cell = 0; cell < l->cells.count; cell++) {
        const struct history_op *op = last[cell];
        uint32_t to = CELL_NONE, from = op != NULL ? cells_of_op(&l->cells, op, &to) : CELL_NONE;
        bool filled = op != NULL && (op->kind == HISTORY_MOVE ? to == cell : op->kind != HISTORY_REMOVE);
        (void)from;
        if (filled && cells_page_covers(&l->cells, cell, page) && !cell_in_doubt(l, cell)) {
            char text[200];
            history_describe(op, text, sizeof text);
            report_find(l->report,
                        "linear: a page of folder %" PRIu64 " at sequence %" PRIu64 " lacks what was made by %s",
                        page->parent, page->sequence, text);
        }
    }
    free(last);
}

static void check_sequences(struct linear *l, uint32_t space)
{
    struct history_op **done = mem_alloc((l->history->count + 1) * sizeof(void *));
    unsigned long count = 0;
    for (unsigned long i = 0; i < l->history->count; i++) {
        if (has_sequence(l->history->ops[i]) && l->history->ops[i]->space == space) {
            done[count++] = l->history->ops[i];
        }
    }
    if (count > 0) {
        qsort(done, count, sizeof *done, by_completion);
    }
    check_order(l, done, count, space);
    if (count > 0) {
        qsort(done, count, sizeof *done, by_sequence);
    }
    check_distinct(l, done, count);
    check_pages_old(l, done, count, space);
    for (unsigned long i = 0; i < l->history->count; i++) {
        const struct history_op *page = l->history->ops[i];
        if (page->kind == HISTORY_LIST && page->outcome == HISTORY_OK && page->sequence != 0 && page->space == space) {
            check_page(l, page, done, count);
        }
    }
    free(done);
}

void linear_check(struct history *history, const struct linear_options *options, struct report *report)
{
    struct linear l = {.history = history, .options = options, .report = report};
    report->checker = "linear";
    history_finish(history);
    cells_init(&l.cells);
    cells_of_history(&l.cells, history);
    l.home = mem_alloc((l.cells.count + 1) * sizeof *l.home);
    l.local = mem_alloc((l.cells.count + 1) * sizeof *l.local);
    l.loose = mem_alloc((l.cells.count + 1) * sizeof *l.loose);
    join_moves(&l);
    find_loose(&l);
    for (uint32_t cell = 0; cell < l.cells.count; cell++) {
        if (home_of(&l, cell) == cell) {
            search_home(&l, cell);
        }
    }
    unsigned long spaces = history->space_count > 0 ? history->space_count : 1;
    for (uint32_t space = 0; space < spaces; space++) {
        check_sequences(&l, space);
    }
    free(l.home);
    free(l.local);
    free(l.loose);
    cells_deinit(&l.cells);
}
