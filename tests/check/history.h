/* A history: what concurrent clients asked of one cluster and were told, as the checkers read it. Simulations record it
 * in memory; `cairn --history FILE` writes the same as JSON lines (client/shell/history.c), which history_read takes.
 *
 * An operation is invoked once and completes at most once. Its outcome is
 *   OK       it was acknowledged, with results
 *   FAIL     it was refused, with a code: it has had no effect and never will
 *   UNKNOWN  no answer, or one that leaves it open: it may take effect at any time from its invocation on
 * All operations name an entry by (space, parent folder id, name); parent 0 and the root's own id are the same. A value
 * of 0 in a result is "not told", and so is a content of 0. Times are nanoseconds of one clock for all clients. */
#ifndef CAIRN_CHECK_HISTORY_H
#define CAIRN_CHECK_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

#define HISTORY_NEVER UINT64_MAX

enum history_kind {
    HISTORY_PUT,     /* parent, name, any_base or base, bytes, content */
    HISTORY_GET,     /* parent, name -> entry with content */
    HISTORY_STAT,    /* parent, name -> entry */
    HISTORY_LIST,    /* one page: parent, after -> entries, next, sequence */
    HISTORY_MKDIR,   /* parent, name, exist_ok -> file, existed; `target` makes a symlink */
    HISTORY_REMOVE,  /* parent, name, recursive, base (0: any version) */
    HISTORY_MOVE,    /* parent, name, to_parent, to_name, replace */
    HISTORY_CHANGES, /* one page: cursor (after_sequence, incarnation) -> changes, last */
};
enum history_outcome { HISTORY_UNKNOWN, HISTORY_OK, HISTORY_FAIL };
enum history_type { HISTORY_ABSENT, HISTORY_FILE, HISTORY_FOLDER, HISTORY_SYMLINK }; /* as proto Entry.kind */

struct history_entry {
    uint64_t parent;
    char *name; /* owned */
    enum history_type type;
    uint64_t file, version, bytes, sequence;
    uint64_t content; /* 64 bits of a hash of the bytes */
};

enum history_change_kind { HISTORY_CREATED = 1, HISTORY_UPDATED, HISTORY_REMOVED, HISTORY_MOVED }; /* as proto Change */
struct history_change {
    uint64_t sequence;
    enum history_change_kind kind;
    struct history_entry entry;
    uint64_t from_parent; /* of a move */
    char *from_name;      /* owned; NULL but for a move */
};

struct history_op {
    uint64_t number; /* position in the history: order of invocation */
    uint32_t client;
    uint32_t space; /* workspace */
    enum history_kind kind;
    uint64_t invoke_ns, complete_ns; /* HISTORY_NEVER: no completion */
    enum history_outcome outcome;
    enum err err;
    /* arguments */
    uint64_t parent, to_parent;
    char *name, *to_name; /* owned; name is NULL where the cell was not known at invocation (STAT of a path) */
    bool any_base, exist_ok, replace, recursive, symlink;
    uint64_t base;
    char *after;                          /* of a list page: names behind this one; NULL: from the first */
    uint64_t after_sequence, incarnation; /* of a page of changes */
    /* results */
    struct history_entry entry; /* of a get and a stat; of a put, mkdir and move what was made; name NULL */
    bool existed;
    uint32_t safe_losses;
    uint64_t sequence; /* of the mutation; of the state a list page shows; newest there is of a page of changes */
    char *next;        /* of a list page: it shows all names up to this one; NULL: to the end */
    struct history_entry *entries;
    unsigned long entry_count, entry_capacity;
    struct history_change *changes;
    unsigned long change_count, change_capacity;
};

struct history {
    struct history_op **ops; /* in order of invocation once finished */
    unsigned long count, capacity;
    char **spaces;
    unsigned long space_count, space_capacity;
    uint64_t root; /* folder id of the root, as inferred; 0 unknown */
    bool finished;
    char error[256]; /* of history_read */
    uint32_t clients;
};

struct history *history_create(void);
void history_destroy(struct history *history);

/* Records an invocation; the operation is owned by the history and stays where it is. Fill in its arguments at once.
 * Strings are copied; `name` may be NULL. */
struct history_op *history_invoke(struct history *history, uint32_t client, enum history_kind kind, uint64_t ns,
                                  uint64_t parent, const void *name, size_t name_bytes);
void history_target(struct history_op *op, uint64_t to_parent, const void *name, size_t name_bytes);
/* Records the completion; results are filled in by the caller. `err` decides the outcome: a mutation that ended in a
 * code to retry is UNKNOWN. An operation that is never completed stays UNKNOWN. */
void history_complete(struct history_op *op, uint64_t ns, enum err err);
/* One more entry of a list page, or event of a page of changes; returned for filling in, valid until the next one. */
struct history_entry *history_entry_add(struct history_op *op, uint64_t parent, const void *name, size_t name_bytes);
struct history_change *history_change_add(struct history_op *op, uint64_t sequence, enum history_change_kind kind,
                                          uint64_t parent, const void *name, size_t name_bytes);
void history_change_from(struct history_change *change, uint64_t from_parent, const void *name, size_t name_bytes);
/* Copies a name (NUL inside becomes '?'). */
char *history_string(const void *text, size_t bytes);

/* Orders the operations, and makes the root's id and 0 one: before any checker. May be called again after more. */
void history_finish(struct history *history);

/* Adds the operations of a `--history` file. Lines that begin with '#' are comments. INVALID with history->error. A
 * file is one set of processes; the same process number in another file is another client. */
MUST_CHECK enum err history_read(struct history *history, FILE *file, const char *what);
void history_write(const struct history *history, FILE *file);

bool history_is_mutation(enum history_kind kind);
const char *history_kind_name(enum history_kind kind);
/* "put 12 of client 3: 1/name" for findings; `ret` takes REPORT-sized text. */
void history_describe(const struct history_op *op, char *ret, size_t bytes);

#endif
