/* cairn ls, stat, mkdir, mv, rm: the tree. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char ls_usage[] = "usage: cairn ls [-lR] WORKSPACE:/PATH...\n\nEntries of a folder, or the file itself.\n"
                               "  -l, --long       kind, rights, size, time\n"
                               "  -R, --recursive  folders below, too\n";
static const char stat_usage[] = "usage: cairn stat WORKSPACE:/PATH...\n\nOne entry in full.\n";
static const char mkdir_usage[] = "usage: cairn mkdir [-p] WORKSPACE:/PATH...\n\n"
                                  "  -p, --parents    make missing ones above it; one that exists is no error\n";
static const char mv_usage[] = "usage: cairn mv [-f] WORKSPACE:/FROM WORKSPACE:/TO\n\n"
                               "To TO, or into it where it is a folder.\n"
                               "  -f, --force      take the place of a file that is there\n";
static const char rm_usage[] = "usage: cairn rm [-r] WORKSPACE:/PATH...\n\n"
                               "  -r, --recursive  a folder with all in it\n";

struct ls {
    struct cli *cli;
    const char *folder; /* path of what is listed */
    const char *shown;  /* what stands before names */
    char **folders;     /* found on the way */
    char **shown_folders;
    size_t count, capacity;
};

static char *join(const char *folder, const char *name)
{
    size_t n = strlen(folder), bytes = n + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path == NULL) {
        abort();
    }
    bool slash = n == 0 || folder[n - 1] == '/' || (n > 0 && folder[n - 1] == ':');
    snprintf(path, bytes, slash ? "%s%s" : "%s/%s", folder, name);
    return path;
}

static void ls_remember(struct ls *ls, const char *path, const char *shown)
{
    if (ls->count == ls->capacity) {
        ls->capacity = ls->capacity == 0 ? 16 : 2 * ls->capacity;
        ls->folders = realloc(ls->folders, ls->capacity * sizeof(char *));
        ls->shown_folders = realloc(ls->shown_folders, ls->capacity * sizeof(char *));
        if (ls->folders == NULL || ls->shown_folders == NULL) {
            abort();
        }
    }
    ls->folders[ls->count] = strdup(path);
    ls->shown_folders[ls->count++] = strdup(shown);
}

static int ls_entry(void *context, const struct cairn_entry *entry)
{
    struct ls *ls = context;
    char *path = join(ls->folder, entry->name);
    char *shown = join(ls->shown, entry->name);
    if (ls->cli->json) {
        cli_print_entry_json(entry, path);
    } else if (ls->cli->long_form) {
        cli_print_entry_long(entry, shown);
    } else {
        printf("%s%s\n", shown, entry->kind == CAIRN_FOLDER ? "/" : "");
    }
    if (ls->cli->recursive && entry->kind == CAIRN_FOLDER) {
        ls_remember(ls, path, shown);
    }
    free(path);
    free(shown);
    return 0;
}

/* A folder's entries, then those of the folders in it, in turn. */
static int ls_path(struct cli *cli, const char *path, const char *shown)
{
    struct ls ls = {.cli = cli, .folder = path, .shown = shown};
    int code = cairn_list(cli->cairn, path, ls_entry, &ls, &cli->error);
    for (size_t i = 0; i < ls.count; i++) {
        if (code == 0) {
            code = ls_path(cli, ls.folders[i], ls.shown_folders[i]);
        }
        free(ls.folders[i]);
        free(ls.shown_folders[i]);
    }
    free(ls.folders);
    free(ls.shown_folders);
    return code;
}

int cli_ls(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "ls", ls_usage, "lr", 1, 1 << 20, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    struct cairn_entry *entry = calloc(1, sizeof *entry);
    for (int i = 0; i < cli.argc && entry != NULL && code == 0; i++) {
        code = cairn_stat(cli.cairn, cli.argv[i], entry, &cli.error);
        if (code == 0 && entry->kind != CAIRN_FOLDER) {
            if (cli.json) {
                cli_print_entry_json(entry, cli.argv[i]);
            } else if (cli.long_form) {
                cli_print_entry_long(entry, cli.argv[i]);
            } else {
                puts(cli.argv[i]);
            }
        } else if (code == 0) {
            if (cli.argc > 1 && !cli.json) {
                printf("%s:\n", cli.argv[i]);
            }
            code = ls_path(&cli, cli.argv[i], "");
        }
    }
    free(entry);
    return cli_end(&cli, code);
}

int cli_stat(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "stat", stat_usage, "", 1, 1 << 20, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    struct cairn_entry *entry = calloc(1, sizeof *entry);
    for (int i = 0; i < cli.argc && entry != NULL && code == 0; i++) {
        code = cairn_stat(cli.cairn, cli.argv[i], entry, &cli.error);
        if (code == 0 && cli.json) {
            cli_print_entry_json(entry, cli.argv[i]);
        } else if (code == 0) {
            printf("path: %s\nkind: %s\nbytes: %llu\nmode: %04o\nid: %llu\nversion: %llu\nsequence: %llu\n",
                   cli.argv[i], cli_kind_name(entry->kind), (unsigned long long)entry->bytes, (unsigned)entry->mode,
                   (unsigned long long)entry->id, (unsigned long long)entry->version,
                   (unsigned long long)entry->sequence);
            if (entry->kind == CAIRN_FILE) {
                printf("safe losses: %u\n", (unsigned)entry->safe_losses);
            } else if (entry->kind == CAIRN_SYMLINK) {
                printf("target: %s\n", entry->target);
            }
        }
    }
    free(entry);
    return cli_end(&cli, code);
}

/* A mutation's line: what was done. */
static void done(const struct cli *cli, const char *path)
{
    if (cli->json) {
        struct json json;
        json_begin(&json);
        json_text(&json, "op", cli->command);
        json_text(&json, "path", path);
        json_end(&json);
    }
}

int cli_mkdir(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "mkdir", mkdir_usage, "p", 1, 1 << 20, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    for (int i = 0; i < cli.argc && code == 0; i++) {
        code = cairn_mkdir(cli.cairn, cli.argv[i], cli.parents, &cli.error);
        if (code == 0) {
            done(&cli, cli.argv[i]);
        }
    }
    return cli_end(&cli, code);
}

int cli_mv(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "mv", mv_usage, "f", 2, 2, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    code = cairn_move(cli.cairn, cli.argv[0], cli.argv[1], cli.replace, &cli.error);
    if (code == 0) {
        done(&cli, cli.argv[1]);
    }
    return cli_end(&cli, code);
}

int cli_rm(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "rm", rm_usage, "r", 1, 1 << 20, &code) || !cli_open(&cli, &code)) {
        return code;
    }
    for (int i = 0; i < cli.argc && code == 0; i++) {
        code = cairn_remove(cli.cairn, cli.argv[i], cli.recursive, &cli.error);
        if (code == 0) {
            done(&cli, cli.argv[i]);
        }
    }
    return cli_end(&cli, code);
}
