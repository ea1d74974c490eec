/* The error table of err.def, looked up by number. */
#include "err.h"

#include <stddef.h>

struct err_row {
    int number;
    enum err_class class;
    int exit_code;
    const char *name;
    const char *text;
};

static const struct err_row err_rows[] = {
#define ERR(name, number, class, exit_code, text) {number, ERR_CLASS_##class, exit_code, #name, text},
#include "err.def"
#undef ERR
};

#define ERR(name, number, class, exit_code, text) _Static_assert(number < ERR_LIMIT, #name);
#include "err.def"
#undef ERR

static const struct err_row *err_row_find(enum err err)
{
    for (size_t i = 0; i < sizeof err_rows / sizeof err_rows[0]; i++) {
        if (err_rows[i].number == (int)err) {
            return &err_rows[i];
        }
    }
    return NULL;
}

const char *err_name(enum err err)
{
    const struct err_row *row = err_row_find(err);
    return row ? row->name : "UNKNOWN";
}

const char *err_text(enum err err)
{
    const struct err_row *row = err_row_find(err);
    return row ? row->text : "unknown error";
}

enum err_class err_class(enum err err)
{
    const struct err_row *row = err_row_find(err);
    return row ? row->class : ERR_CLASS_FATAL;
}

int err_exit_code(enum err err)
{
    const struct err_row *row = err_row_find(err);
    return row ? row->exit_code : 1;
}
