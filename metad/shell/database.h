/* The node's database, and what happens when its bytes are damaged (R-E5): it is set aside, DIR/kv becomes
 * DIR/kv.damaged-N, and an empty one takes its place; the groups fill it from the log and from other members. */
#ifndef CAIRN_METAD_SHELL_DATABASE_H
#define CAIRN_METAD_SHELL_DATABASE_H

#include "base/err.h"
#include "io/runtime.h"

/* Opens DIR/kv. `aside`: a damaged one is set aside and an empty one opened; else it is CORRUPT. */
MUST_CHECK enum err metad_database_open(struct runtime *runtime, const char *dir, bool aside,
                                        struct runtime_kv **ret_kv, char *ret_text);
/* Found while the node runs, in the midst of anything: sets DIR/kv aside and begins the program anew, in this very
 * process (`arguments` as main had them). What was under way is lost as in a crash. Returns when that cannot be done.
 * Any thread; the first one does it. */
void metad_database_damaged(const char *dir, char **arguments, const char *text);

#endif
