/* The sequential model behind linear.c: what one cell holds, and what an operation does to one or two cells. */
#ifndef CAIRN_CHECK_LINEAR_STATE_H
#define CAIRN_CHECK_LINEAR_STATE_H

#include "cells.h"

enum linear_holds { HOLDS_NOTHING, HOLDS_FILE, HOLDS_FOLDER, HOLDS_SYMLINK, HOLDS_SOMETHING, HOLDS_ANYTHING };

/* A cell. 0 in a number: not known yet; the first observation fixes it. SOMETHING: an entry of a kind not known yet;
 * ANYTHING: an entry or none. */
struct linear_state {
    enum linear_holds holds;
    uint64_t file, version, content, sequence;
};

/* An operation, or what a list page shows of one cell. */
struct linear_step {
    const struct history_op *op;
    uint32_t cell, to; /* `to`: CELL_NONE but for a move */
    bool page;         /* op is a list page; `shown` is its entry here, NULL for none */
    const struct history_entry *shown;
    bool loose; /* the folder above may have been removed: NOT_FOUND says nothing */
};

/* May the operation take effect as it was answered (or, of unknown outcome, take effect at all) where `cell` (and `to`)
 * hold this? Changes them as it does; what it leaves on false is undefined. */
bool linear_step(const struct linear_step *step, struct linear_state *cell, struct linear_state *to);

#endif
