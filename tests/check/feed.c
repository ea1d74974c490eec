/* The feed (feed.h): gathers all pages into one array of events by sequence, then folds it beside the history. */
#include "feed.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "cells.h"

enum { SEQUENCE_MAX = 1 << 24 };

struct event {
    const struct history_change *change; /* NULL: nobody read it */
    const struct history_op *claimed;    /* the acknowledged mutation of this sequence */
};

/* What the fold has in a cell. */
struct place {
    bool known;                        /* an event said so, or the namespace began empty */
    const struct history_entry *entry; /* NULL: nothing */
    uint64_t sequence;                 /* of its last event */
};

struct feed_check {
    struct history *history;
    const struct feed_options *options;
    struct report *report;
    struct cells cells;
    uint32_t space;
    struct event *events; /* by sequence, from 1 */
    unsigned long event_count, event_capacity;
    struct place *places;      /* by cell */
    struct history_op **pages; /* list pages in order of sequence */
    unsigned long page_count;
};

static struct event *event_of(struct feed_check *f, uint64_t sequence)
{
    if (sequence == 0 || sequence >= SEQUENCE_MAX) {
        return NULL;
    }
    f->events = mem_grow(f->events, &f->event_capacity, sequence + 1, sizeof *f->events);
    f->event_count = sequence + 1 > f->event_count ? sequence + 1 : f->event_count;
    return &f->events[sequence];
}

/* ---- pages ---- */

static bool text_same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool change_same(const struct history_change *a, const struct history_change *b)
{
    return a->kind == b->kind && a->entry.parent == b->entry.parent && a->entry.type == b->entry.type &&
           a->entry.file == b->entry.file && a->entry.version == b->entry.version && a->entry.bytes == b->entry.bytes &&
           a->from_parent == b->from_parent && text_same(a->entry.name, b->entry.name) &&
           text_same(a->from_name, b->from_name);
}

static void take_page(struct feed_check *f, const struct history_op *page)
{
    uint64_t at = page->after_sequence;
    for (unsigned long i = 0; i < page->change_count; i++) {
        const struct history_change *change = &page->changes[i];
        f->report->looked++;
        if (change->sequence != at + 1) {
            report_find(f->report, "feed: a page at cursor %" PRIu64 " has event %" PRIu64 " behind %" PRIu64,
                        page->after_sequence, change->sequence, at);
        }
        at = change->sequence;
        struct event *event = event_of(f, change->sequence);
        if (event == NULL || change->sequence > page->sequence) {
            report_find(f->report, "feed: a page has event %" PRIu64 ", the newest it names is %" PRIu64,
                        change->sequence, page->sequence);
            continue;
        }
        if (event->change != NULL && !change_same(event->change, change)) {
            report_find(f->report, "feed: event %" PRIu64 " was read as one thing and as another", change->sequence);
        }
        event->change = change;
    }
    if (page->change_count == 0 && at < page->sequence) {
        report_find(f->report, "feed: a page at cursor %" PRIu64 " is empty, the newest it names is %" PRIu64, at,
                    page->sequence);
    }
}

/* ---- acknowledged mutations are events ---- */

static enum history_change_kind kind_wanted(const struct history_op *op, enum history_change_kind seen)
{
    switch (op->kind) {
    case HISTORY_PUT:
        return seen == HISTORY_UPDATED ? HISTORY_UPDATED : HISTORY_CREATED;
    case HISTORY_MKDIR:
        return HISTORY_CREATED;
    case HISTORY_REMOVE:
        return HISTORY_REMOVED;
    default:
        return HISTORY_MOVED;
    }
}

/* Both numbers, where both are told. */
static bool number_same(uint64_t a, uint64_t b)
{
    return a == 0 || b == 0 || a == b;
}

static uint32_t change_cell(const struct feed_check *f, const struct history_change *change)
{
    return cells_find(&f->cells, f->space, change->entry.parent, change->entry.name);
}

static uint32_t change_source(const struct feed_check *f, const struct history_change *change)
{
    return change->from_name == NULL ? CELL_NONE
                                     : cells_find(&f->cells, f->space, change->from_parent, change->from_name);
}

/* Is the event what the operation, if it took effect, would have made? */
static bool event_is_of(const struct feed_check *f, const struct history_change *change, const struct history_op *op)
{
    uint32_t to = CELL_NONE, cell = cells_of_op(&f->cells, op, &to);
    if (change->kind != kind_wanted(op, change->kind)) {
        return false;
    }
    bool moved = op->kind == HISTORY_MOVE;
    bool named = change_cell(f, change) == (moved ? to : cell) && (!moved || change_source(f, change) == cell);
    bool put = op->kind == HISTORY_PUT;
    bool type = !put || change->entry.type == HISTORY_ABSENT || change->entry.type == HISTORY_FILE;
    return named && type && (op->kind == HISTORY_REMOVE || number_same(change->entry.file, op->entry.file)) &&
           (!put || (number_same(change->entry.version, op->entry.version) && change->entry.bytes == op->entry.bytes));
}

static void claim(struct feed_check *f, const struct history_op *op)
{
    struct event *event = event_of(f, op->sequence);
    char text[200];
    history_describe(op, text, sizeof text);
    if (event == NULL) {
        report_find(f->report, "feed: %s has a sequence out of all bounds", text);
        return;
    }
    if (event->claimed != NULL) {
        report_find(f->report, "feed: event %" PRIu64 " is of two acknowledged mutations, one is %s", op->sequence,
                    text);
    }
    event->claimed = op;
    f->report->looked++;
    if (event->change != NULL && !event_is_of(f, event->change, op)) {
        report_find(f->report, "feed: event %" PRIu64 " (%s) is not what was acknowledged: %s", op->sequence,
                    event->change->entry.name, text);
    } else if (event->change == NULL && f->options->complete) {
        report_find(f->report, "feed: event %" PRIu64 " is missing, acknowledged was %s", op->sequence, text);
    }
}

/* ---- what nobody was told ---- */

struct open_op {
    const struct history_op *op;
    uint64_t least; /* its event has a higher sequence */
    bool used;
};

static uint64_t acknowledged_before(const struct feed_check *f, uint64_t ns)
{
    uint64_t newest = 0;
    for (unsigned long s = 1; s < f->event_count; s++) {
        const struct history_op *op = f->events[s].claimed;
        newest = op != NULL && op->complete_ns < ns ? s : newest;
    }
    return newest;
}

/* Gives every unclaimed event an operation of unknown outcome that can have made it: of those that fit the one that
 * must come earliest, so that later events find the others. */
static void match_open(struct feed_check *f)
{
    struct open_op *opens = mem_alloc((f->history->count + 1) * sizeof *opens);
    unsigned long count = 0;
    for (unsigned long i = 0; i < f->history->count; i++) {
        const struct history_op *op = f->history->ops[i];
        if (history_is_mutation(op->kind) && op->outcome == HISTORY_UNKNOWN && op->space == f->space) {
            opens[count++] = (struct open_op){op, acknowledged_before(f, op->invoke_ns), false};
        }
    }
    for (unsigned long s = 1; s < f->event_count; s++) {
        const struct history_change *change = f->events[s].change;
        struct open_op *best = NULL;
        for (unsigned long i = 0; change != NULL && f->events[s].claimed == NULL && i < count; i++) {
            bool fits = !opens[i].used && opens[i].least < s && event_is_of(f, change, opens[i].op);
            best = fits && (best == NULL || opens[i].least < best->least) ? &opens[i] : best;
        }
        if (best != NULL) {
            best->used = true;
        } else if (change != NULL && f->events[s].claimed == NULL) {
            report_find(f->report, "feed: event %lu (%s) is of no operation: done twice, or by nobody", s,
                        change->entry.name);
        }
    }
    free(opens);
}

/* ---- the fold ---- */

static bool same_entry(const struct history_entry *a, const struct history_entry *b)
{
    return number_same(a->file, b->file) && number_same(a->version, b->version) &&
           (a->type == b->type || a->type == HISTORY_ABSENT || b->type == HISTORY_ABSENT);
}

static void fold_wrong(struct feed_check *f, uint64_t sequence, const struct history_change *change, const char *what)
{
    report_find(f->report, "feed: event %" PRIu64 " does not fit those before it: %" PRIu64 "/%s %s", sequence,
                change->entry.parent, change->entry.name, what);
}

static void fold_source(struct feed_check *f, uint64_t sequence, const struct history_change *change)
{
    uint32_t cell = change_source(f, change);
    if (cell == CELL_NONE) {
        fold_wrong(f, sequence, change, "was moved from a name nobody knows");
        return;
    }
    struct place *from = &f->places[cell];
    if (from->known && (from->entry == NULL || !same_entry(from->entry, &change->entry))) {
        fold_wrong(f, sequence, change, "was moved from where it was not");
    }
    *from = (struct place){.known = true, .sequence = sequence};
}

static void fold(struct feed_check *f, uint64_t sequence, const struct history_change *change)
{
    uint32_t cell = change_cell(f, change);
    if (change->kind == HISTORY_MOVED) {
        fold_source(f, sequence, change);
    }
    struct place *place = &f->places[cell];
    const struct history_entry *old = place->entry;
    switch (change->kind) {
    case HISTORY_CREATED:
        if (place->known && old != NULL) {
            fold_wrong(f, sequence, change, "was created and there already");
        }
        break;
    case HISTORY_UPDATED:
        if (place->known &&
            (old == NULL || (old->type == HISTORY_FILE && !number_same(old->file, change->entry.file)))) {
            fold_wrong(f, sequence, change, "was updated and not there");
        }
        break;
    case HISTORY_REMOVED:
        if (place->known && (old == NULL || !same_entry(old, &change->entry))) {
            fold_wrong(f, sequence, change, "was removed and not there");
        }
        break;
    case HISTORY_MOVED:
        if (place->known && old != NULL && old->type == HISTORY_FOLDER) {
            fold_wrong(f, sequence, change, "took the place of a folder");
        }
        break;
    default:
        fold_wrong(f, sequence, change, "has no kind");
    }
    bool gone = change->kind == HISTORY_REMOVED;
    *place = (struct place){.known = true, .entry = gone ? NULL : &change->entry, .sequence = sequence};
}

/* ---- states that were read ---- */

/* A list page at the sequence the fold has reached. */
static void compare_page(struct feed_check *f, const struct history_op *page)
{
    bool *shown = mem_alloc((f->cells.count + 1) * sizeof *shown);
    f->report->looked++;
    for (unsigned long e = 0; e < page->entry_count; e++) {
        const struct history_entry *entry = &page->entries[e];
        uint32_t cell = cells_find(&f->cells, page->space, page->parent, entry->name);
        const struct place *place = &f->places[cell];
        if (shown[cell]) {
            report_find(f->report, "feed: a page shows %" PRIu64 "/%s twice", page->parent, entry->name);
        }
        shown[cell] = true;
        bool good = place->entry != NULL
                        ? same_entry(place->entry, entry) && number_same(place->sequence, entry->sequence)
                        : !place->known;
        if (!good) {
            report_find(f->report,
                        "feed: a page at sequence %" PRIu64 " shows %" PRIu64 "/%s of sequence %" PRIu64
                        "; the fold has %s of %" PRIu64,
                        page->sequence, page->parent, entry->name, entry->sequence,
                        place->entry != NULL ? "another" : "none", place->sequence);
        }
    }
    for (uint32_t cell = 0; cell < f->cells.count; cell++) {
        if (f->places[cell].entry != NULL && !shown[cell] && cells_page_covers(&f->cells, cell, page)) {
            report_find(f->report, "feed: a page at sequence %" PRIu64 " lacks %" PRIu64 "/%s of sequence %" PRIu64,
                        page->sequence, page->parent, f->cells.items[cell].name, f->places[cell].sequence);
        }
    }
    free(shown);
}

/* A get or stat: the event of the sequence it names made what it shows. */
static void compare_read(struct feed_check *f, const struct history_op *op)
{
    bool read = (op->kind == HISTORY_GET || op->kind == HISTORY_STAT) && op->outcome == HISTORY_OK;
    uint64_t sequence = op->entry.sequence;
    if (!read || op->space != f->space || sequence == 0 || sequence >= f->event_count ||
        f->events[sequence].change == NULL) {
        return;
    }
    const struct history_change *change = f->events[sequence].change;
    uint32_t to = CELL_NONE, cell = cells_of_op(&f->cells, op, &to);
    f->report->looked++;
    if (change->kind == HISTORY_REMOVED || change_cell(f, change) != cell || !same_entry(&change->entry, &op->entry)) {
        char text[200];
        history_describe(op, text, sizeof text);
        report_find(f->report, "feed: %s shows an entry of sequence %" PRIu64 ", which made something else", text,
                    sequence);
    }
}

static int by_sequence(const void *a, const void *b)
{
    const struct history_op *x = *(struct history_op *const *)a, *y = *(struct history_op *const *)b;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static void pages_collect(struct feed_check *f)
{
    f->pages = mem_alloc((f->history->count + 1) * sizeof *f->pages);
    for (unsigned long i = 0; i < f->history->count; i++) {
        struct history_op *op = f->history->ops[i];
        if (op->kind == HISTORY_LIST && op->outcome == HISTORY_OK && op->space == f->space) {
            f->pages[f->page_count++] = op;
        }
    }
    if (f->page_count > 0) {
        qsort(f->pages, f->page_count, sizeof *f->pages, by_sequence);
    }
}

/* Folds as far as events were read without a hole, and compares list pages on the way. */
static void fold_all(struct feed_check *f)
{
    unsigned long page = 0;
    for (uint64_t sequence = 0; sequence < f->event_count || sequence == 0; sequence++) {
        if (sequence > 0) {
            if (f->events[sequence].change == NULL) {
                return; /* nobody read it: what lies behind cannot be folded */
            }
            fold(f, sequence, f->events[sequence].change);
        }
        for (; page < f->page_count && f->pages[page]->sequence <= sequence; page++) {
            compare_page(f, f->pages[page]);
        }
    }
}

static void check_space(struct feed_check *f)
{
    for (unsigned long i = 0; i < f->history->count; i++) {
        const struct history_op *op = f->history->ops[i];
        if (op->kind == HISTORY_CHANGES && op->outcome == HISTORY_OK && op->space == f->space) {
            take_page(f, op);
        }
    }
    for (unsigned long i = 0; i < f->history->count; i++) {
        const struct history_op *op = f->history->ops[i];
        if (history_is_mutation(op->kind) && op->outcome == HISTORY_OK && op->sequence != 0 && !op->existed &&
            op->space == f->space) {
            claim(f, op);
        }
    }
    if (f->options->starts_empty) {
        match_open(f);
    }
    pages_collect(f);
    f->places = mem_alloc((f->cells.count + 1) * sizeof *f->places);
    for (uint32_t cell = 0; cell < f->cells.count; cell++) {
        f->places[cell].known = f->options->starts_empty;
    }
    fold_all(f);
    for (unsigned long i = 0; i < f->history->count; i++) {
        compare_read(f, f->history->ops[i]);
    }
    free(f->places);
    free(f->pages);
    free(f->events);
}

void feed_check(struct history *history, const struct feed_options *options, struct report *report)
{
    struct cells cells;
    report->checker = "feed";
    history_finish(history);
    cells_init(&cells);
    cells_of_history(&cells, history);
    unsigned long spaces = history->space_count > 0 ? history->space_count : 1;
    for (uint32_t space = 0; space < spaces; space++) {
        struct feed_check f = {
            .history = history, .options = options, .report = report, .cells = cells, .space = space};
        check_space(&f);
    }
    cells_deinit(&cells);
}
