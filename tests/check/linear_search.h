/* The search behind linear.c: Wing and Gong's, which tries what may take effect next, with Lowe's memory of
 * configurations that were tried already (Testing for Linearizability, 2016). What fits and changes nothing takes
 * effect at once, since waiting can only hurt it; what has an unknown outcome right before what touches its cells,
 * since it can always wait for that. */
#ifndef CAIRN_CHECK_LINEAR_SEARCH_H
#define CAIRN_CHECK_LINEAR_SEARCH_H

#include "linear_state.h"

enum linear_verdict { LINEAR_YES, LINEAR_NO, LINEAR_UNDECIDED };

struct linear_search;
struct linear_search *linear_search_create(uint32_t cells, bool starts_empty, uint64_t bound);
void linear_search_destroy(struct linear_search *search);
/* Steps come in any order; `cell` and `to` are indexes below `cells`. */
void linear_search_add(struct linear_search *search, const struct linear_step *step);
/* On NO, *ret_stuck is the operation that the furthest attempt could not place. */
enum linear_verdict linear_search_run(struct linear_search *search, const struct history_op **ret_stuck);
uint64_t linear_search_count(const struct linear_search *search);

#endif
