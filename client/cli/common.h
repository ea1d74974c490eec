/* What the commands share: options, opening the cluster, texts of errors, JSON lines. */
#ifndef CAIRN_CLIENT_CLI_COMMON_H
#define CAIRN_CLIENT_CLI_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cairn.h"
#include "cli.h"

#define CLI_EXIT_USAGE 2

/* Options every command takes, and the letters of its own in `flags`. */
struct cli {
    const char *command;
    const char *usage; /* help text, the first line is the synopsis */
    bool json;
    const char *config, *history;
    double timeout_seconds;
    unsigned threads;
    bool long_form, recursive, parents, replace, no_progress, follow;
    uint64_t cursor, cursor_incarnation; /* 0: whatever it is */
    bool cursor_given;
    uint64_t group;
    bool group_given;
    const char *to, *with, *address, *role;
    uint64_t expires;
    struct cairn *cairn;
    struct cairn_error error;
    int argc; /* what is left */
    char **argv;
};

#define CLI_COMMON_HELP                                                                                                \
    "  --config FILE    client.toml (default: the environment's CAIRN_CONFIG)\n"                                       \
    "  --json           one JSON object a line\n"                                                                      \
    "  --history FILE   append a JSON line per operation at invoke and at completion\n"                                \
    "  --timeout SEC    how long a step is retried while the cluster does not answer (30)\n"                           \
    "  --help           this text\n"                                                                                   \
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 denied, 6 quota, 7 unavailable, 8 corrupt, 9 "    \
    "exists\n"

/* Parses; with too few or too many arguments or on --help it prints and returns false with the exit code. `letters`:
 * the command's own options (see cli_parse). */
bool cli_parse(struct cli *cli, int argc, char **argv, const char *command, const char *usage, const char *letters,
               int least, int most, int *ret_exit);
/* Opens the cluster; false after it has said why not. */
bool cli_open(struct cli *cli, int *ret_exit);
/* Says an error; returns the exit code. */
int cli_fail(struct cli *cli, const struct cairn_error *error);
/* Closes and returns `code` as exit code, having said `error` when it is not 0. */
int cli_end(struct cli *cli, int code);

/* One JSON object on a line of stdout. */
struct json {
    bool more;
};
void json_begin(struct json *json);
void json_text(struct json *json, const char *key, const char *value);
void json_number(struct json *json, const char *key, uint64_t value);
void json_signed(struct json *json, const char *key, int64_t value);
void json_real(struct json *json, const char *key, double value);
void json_bool(struct json *json, const char *key, bool value);
void json_raw(struct json *json, const char *key, const char *value);
void json_end(struct json *json);

void cli_print_entry_json(const struct cairn_entry *entry, const char *path);
/* "d rwxr-xr-x    1234 2026-11-22 02:22 NAME" */
void cli_print_entry_long(const struct cairn_entry *entry, const char *path);
const char *cli_kind_name(enum cairn_kind kind);
/* 1536 -> "1.5 KiB"; static per thread. */
const char *cli_size_text(double bytes);

/* Progress on a terminal. */
struct bar {
    bool on;
    uint64_t begin_ns, shown_ns;
    unsigned width;
};
void bar_begin(struct bar *bar, const struct cli *cli);
cairn_progress_fn bar_progress; /* context: struct bar * */
void bar_end(struct bar *bar);
uint64_t cli_now_ns(void);

/* ---- mover.c: a put or a get, with its bar, its failures and its last line ---- */
struct mover {
    struct cli *cli; /* borrowed */
    struct bar bar;
    struct cairn_transfer transfer; /* for the calls: its context is the mover, which stays where it is */
    struct cairn_moved moved;
    char dst[CAIRN_PATH_BYTES + 2]; /* the last argument; with several sources it is a folder */
    int first;                      /* code of the first failure */
};
typedef void mover_summary(const struct cli *cli, const struct cairn_moved *moved, double seconds);
/* False after it has said that the destination is too long. */
bool mover_begin(struct mover *mover, struct cli *cli);
/* One source is through: the first failure decides the end, further ones are said at once. */
void mover_take(struct mover *mover, int code, const struct cairn_error *error);
/* Says what moved (`summary`, NULL: nothing), closes, returns the exit code. */
int mover_end(struct mover *mover, mover_summary *summary);

#endif
