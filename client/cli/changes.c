/* cairn changes: the change feed of a workspace behind a cursor. */
#include <string.h>
#include <time.h>

#include "common.h"

static const char usage[] =
    "usage: cairn changes WORKSPACE [--cursor [INCARNATION:]N] [--follow]\n\n"
    "Every change behind sequence N (0: all that are kept), in order, without gaps.\n"
    "  --cursor C       'cursor' of the last change that was seen, as --json shows it; one from\n"
    "                   before a recovery or a restore is refused. N alone: the last sequence\n"
    "  --follow         go on until interrupted\n";

static int change_print(void *context, const struct cairn_change *change)
{
    const struct cli *cli = context;
    const struct cairn_entry *entry = &change->entry;
    if (!cli->json) {
        printf("%llu %s %s %s\n", (unsigned long long)change->sequence, change->kind, cli_kind_name(entry->kind),
               entry->name);
        return 0;
    }
    struct json json;
    json_begin(&json);
    json_number(&json, "sequence", change->sequence);
    json_text(&json, "kind", change->kind);
    json_text(&json, "entry_kind", cli_kind_name(entry->kind));
    json_number(&json, "id", entry->id);
    json_number(&json, "parent", entry->parent);
    json_text(&json, "name", entry->name);
    json_number(&json, "version", entry->version);
    json_number(&json, "bytes", entry->bytes);
    if (strcmp(change->kind, "move") == 0) {
        json_number(&json, "from_parent", change->from_parent);
        json_text(&json, "from_name", change->from_name);
    }
    json_signed(&json, "wall_ns", change->wall_ns);
    char cursor[48];
    snprintf(cursor, sizeof cursor, "%llu:%llu", (unsigned long long)change->incarnation,
             (unsigned long long)change->sequence);
    json_text(&json, "cursor", cursor);
    json_end(&json);
    return 0;
}

int cli_changes(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "changes", usage, "nw", 1, 1, &code)) {
        return code;
    }
    char workspace[256];
    size_t bytes = strcspn(cli.argv[0], ":");
    if (bytes == 0 || bytes >= sizeof workspace) {
        fprintf(stderr, "cairn changes: %s: name a workspace\n", cli.argv[0]);
        return CLI_EXIT_USAGE;
    }
    memcpy(workspace, cli.argv[0], bytes);
    workspace[bytes] = '\0';
    if (!cli_open(&cli, &code)) {
        return code;
    }
    struct cairn_cursor cursor = {.incarnation = cli.cursor_incarnation, .sequence = cli.cursor};
    do {
        code = cairn_changes(cli.cairn, workspace, &cursor, change_print, &cli, &cli.error);
        fflush(stdout);
        if (cli.follow && code == 0) {
            struct timespec pause = {.tv_nsec = 250000000};
            nanosleep(&pause, NULL);
        }
    } while (cli.follow && code == 0 && !ferror(stdout));
    return cli_end(&cli, code);
}
