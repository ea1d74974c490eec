/* The cells of a history: a cell is (space, parent folder, name), the name compared under NFC as the namespace does.
 * What a mutation does to cells and what a read saw of them is the common ground of the checkers. */
#ifndef CAIRN_CHECK_CELLS_H
#define CAIRN_CHECK_CELLS_H

#include "history.h"

#define CELL_NONE UINT32_MAX

struct cell {
    uint32_t space;
    uint64_t parent;
    char *name; /* NFC, owned */
};
struct cells {
    struct cell *items;
    unsigned long count, capacity;
    uint32_t *slots; /* open hash table of indexes + 1 */
    unsigned long slot_count;
};

void cells_init(struct cells *cells);
void cells_deinit(struct cells *cells);
/* The cell's index, made when it is new. A name that is none is taken as it stands. */
uint32_t cells_take(struct cells *cells, uint32_t space, uint64_t parent, const char *name);
/* The same, CELL_NONE when it is new. */
uint32_t cells_find(const struct cells *cells, uint32_t space, uint64_t parent, const char *name);
/* Takes every cell a history names, so that list pages can be projected on them. */
void cells_of_history(struct cells *cells, const struct history *history);
/* The cell an operation is about, and where it moves to; CELL_NONE. */
uint32_t cells_of_op(const struct cells *cells, const struct history_op *op, uint32_t *ret_to);
/* Does a list page (OK) cover the cell, whether it shows an entry there or not? */
bool cells_page_covers(const struct cells *cells, uint32_t cell, const struct history_op *page);

#endif
