/* Errors: one table, err.def. A function that can fail returns enum err and is marked MUST_CHECK; ERR_OK is 0.
 * A bug is a CHECK (check.h), an expected answer a field of the reply, an operating error a code from here. */
#ifndef CAIRN_BASE_ERR_H
#define CAIRN_BASE_ERR_H

#define MUST_CHECK __attribute__((warn_unused_result))

enum err {
#define ERR(name, number, class, exit_code, text) ERR_##name = number,
#include "err.def"
#undef ERR
};

#define ERR_LIMIT 128 /* all numbers are below: counters by reason are arrays of so many */

enum err_class { ERR_CLASS_OK, ERR_CLASS_RETRY, ERR_CLASS_REDIRECT, ERR_CLASS_CALLER, ERR_CLASS_FATAL };

/* Upper-case name ("NOT_LEADER") and text of a code; "UNKNOWN" for a number that is not in the table. Static. */
const char *err_name(enum err err);
const char *err_text(enum err err);
/* Class and process exit code of a code; an unknown number is FATAL and 1. */
enum err_class err_class(enum err err);
int err_exit_code(enum err err);

#endif
