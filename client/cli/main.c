/* `cairn`: the command line for people and scripts. A table of commands and nothing else. */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "proto/version.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
};

static const struct command commands[] = {
    {"put", cli_put, "files and folders into the cluster"},
    {"get", cli_get, "files and folders out of it"},
    {"cat", cli_cat, "a file to standard output"},
    {"ls", cli_ls, "what a folder holds"},
    {"stat", cli_stat, "one entry in full"},
    {"mkdir", cli_mkdir, "make a folder"},
    {"mv", cli_mv, "move or rename"},
    {"rm", cli_rm, "remove"},
    {"changes", cli_changes, "the change feed of a workspace"},
    {"admin", cli_admin, "what operators ask: status, groups, stores, nodes"},
    {"dev", cli_dev, "a whole cluster on this machine"},
};

static void help(FILE *out)
{
    fputs("usage: cairn COMMAND [OPTION...] [ARGUMENT...]\n\nRemote paths are WORKSPACE:/path. Commands:\n", out);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].text);
    }
    fputs("\ncairn COMMAND --help tells more. --config FILE or CAIRN_CONFIG names the client.toml;\n"
          "cairn --version says what this build reads and writes.\n",
          out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        help(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        version_print(stdout, "cairn");
        return 0;
    }
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "cairn: %s: no such command; see cairn --help\n", argv[1]);
    return 2;
}
