/* All checkers of histories over one history, and each checker over its hand-made files. */
#ifndef CAIRN_CHECK_JUDGE_H
#define CAIRN_CHECK_JUDGE_H

#include "history.h"
#include "report.h"

struct judge_options {
    bool from_empty; /* the history has every mutation since the namespace was made */
    bool complete;   /* after the last mutation the feed was read to its end and every file was read */
};

/* Runs linear, feed and versions; prints a line for each to `out` (NULL: nowhere). True when nothing was found, nothing
 * undecided, and something looked at. ret_report (may be NULL) is the first that found something. */
bool judge_history_report(struct history *history, const struct judge_options *options, FILE *out,
                          struct report *ret_report);
bool judge_history(struct history *history, const struct judge_options *options, FILE *out);

/* Exit code of `cairn-check --self-test`: every file of bad_dir begins with lines
 *   # wrong: what is wrong, for people
 *   # finds: a part of what the checker must say first
 *   # options: empty complete
 * and good files with the last one only. At least ten bad files and one good. */
int judge_self_test(const char *checker, const char *bad_dir, const char *good_dir);

#endif
