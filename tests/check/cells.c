/* Cells (cells.h). */
#include "cells.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/name.h"

void cells_init(struct cells *cells)
{
    *cells = (struct cells){.slot_count = 64};
    cells->slots = mem_alloc(cells->slot_count * sizeof *cells->slots);
}

void cells_deinit(struct cells *cells)
{
    for (unsigned long i = 0; i < cells->count; i++) {
        free(cells->items[i].name);
    }
    free(cells->items);
    free(cells->slots);
    *cells = (struct cells){0};
}

static char *form_make(const char *name)
{
    struct slice key = {0};
    if (name_key(name, strlen(name), &key) != ERR_OK) {
        return history_string(name, strlen(name));
    }
    char *form = history_string(key.data, key.bytes);
    slice_drop(&key);
    return form;
}

/* The name itself where it is ASCII; else its form, in new memory that is also *ret_made. */
static const char *form_of(const char *name, char **ret_made)
{
    const char *p = name;
    while (*p != '\0' && ((unsigned char)*p & 0x80) == 0) {
        p++;
    }
    *ret_made = *p != '\0' ? form_make(name) : NULL;
    return *ret_made != NULL ? *ret_made : name;
}

static uint64_t cell_hash(uint32_t space, uint64_t parent, const char *form)
{
    uint64_t hash = (parent * 31 + space) * 0x9e3779b97f4a7c15ull;
    for (const char *p = form; *p != '\0'; p++) {
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3ull;
    }
    return hash ^ hash >> 29;
}

/* The slot that holds the cell, or the free one where it would stand. */
static unsigned long slot_of(const struct cells *cells, uint32_t space, uint64_t parent, const char *form)
{
    unsigned long slot = cell_hash(space, parent, form) % cells->slot_count;
    for (; cells->slots[slot] != 0; slot = (slot + 1) % cells->slot_count) {
        const struct cell *cell = &cells->items[cells->slots[slot] - 1];
        if (cell->space == space && cell->parent == parent && strcmp(cell->name, form) == 0) {
            break;
        }
    }
    return slot;
}

static void cells_grow(struct cells *cells)
{
    cells->slot_count *= 2;
    free(cells->slots);
    cells->slots = mem_alloc(cells->slot_count * sizeof *cells->slots);
    for (unsigned long i = 0; i < cells->count; i++) {
        const struct cell *cell = &cells->items[i];
        cells->slots[slot_of(cells, cell->space, cell->parent, cell->name)] = (uint32_t)i + 1;
    }
}

uint32_t cells_take(struct cells *cells, uint32_t space, uint64_t parent, const char *name)
{
    char *made = NULL;
    const char *form = form_of(name, &made);
    unsigned long slot = slot_of(cells, space, parent, form);
    if (cells->slots[slot] != 0) {
        free(made);
        return cells->slots[slot] - 1;
    }
    cells->items = mem_grow(cells->items, &cells->capacity, cells->count + 1, sizeof *cells->items);
    cells->items[cells->count++] =
        (struct cell){space, parent, made != NULL ? made : history_string(name, strlen(name))};
    cells->slots[slot] = (uint32_t)cells->count;
    if (cells->count * 2 > cells->slot_count) {
        cells_grow(cells);
    }
    return (uint32_t)cells->count - 1;
}

uint32_t cells_find(const struct cells *cells, uint32_t space, uint64_t parent, const char *name)
{
    char *made = NULL;
    unsigned long slot = slot_of(cells, space, parent, form_of(name, &made));
    free(made);
    return cells->slots[slot] != 0 ? cells->slots[slot] - 1 : CELL_NONE;
}

void cells_of_history(struct cells *cells, const struct history *history)
{
    for (unsigned long i = 0; i < history->count; i++) {
        const struct history_op *op = history->ops[i];
        if (op->name != NULL) {
            cells_take(cells, op->space, op->parent, op->name);
        }
        if (op->to_name != NULL) {
            cells_take(cells, op->space, op->to_parent, op->to_name);
        }
        for (unsigned long e = 0; e < op->entry_count; e++) {
            cells_take(cells, op->space, op->parent, op->entries[e].name);
        }
        for (unsigned long c = 0; c < op->change_count; c++) {
            cells_take(cells, op->space, op->changes[c].entry.parent, op->changes[c].entry.name);
        }
    }
}

uint32_t cells_of_op(const struct cells *cells, const struct history_op *op, uint32_t *ret_to)
{
    *ret_to = op->to_name != NULL ? cells_find(cells, op->space, op->to_parent, op->to_name) : CELL_NONE;
    return op->name != NULL ? cells_find(cells, op->space, op->parent, op->name) : CELL_NONE;
}

bool cells_page_covers(const struct cells *cells, uint32_t index, const struct history_op *page)
{
    const struct cell *cell = &cells->items[index];
    return page->kind == HISTORY_LIST && page->outcome == HISTORY_OK && page->space == cell->space &&
           page->parent == cell->parent && (page->after == NULL || strcmp(cell->name, page->after) > 0) &&
           (page->next == NULL || strcmp(cell->name, page->next) <= 0);
}
