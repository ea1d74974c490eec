/* cairn admin node: changes of the cluster's nodes. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char usage[] =
    "usage: cairn admin node transfer [--group G] [--to metadN]\n"
    "       cairn admin node add metadN [--address HOST:PORT]\n"
    "       cairn admin node remove metadN\n"
    "       cairn admin node replace metadN --with metadM [--address HOST:PORT]\n\n"
    "  transfer   the leader of group G (default: of every group) hands over to metadN (default: the voter that is\n"
    "             furthest and answers); nothing fails by it\n"
    "  add        metadN becomes a voter of all groups, once it has caught up; it must be running, with a number that\n"
    "             was never used. --address: where it is reached, unless it joined with a token\n"
    "  remove     metadN leaves all groups, and ends; its number is never used again\n"
    "  replace    adds metadM, then removes metadN\n\n"
    "A change that was interrupted is run again and goes on. It is refused while another one is under way and where "
    "the\n"
    "nodes left would have no majority that answers. --timeout: how long it is waited for (120).\n";

/* "metad3" -> 3; 0 when it is anything else. */
static uint32_t metad_number(const char *name)
{
    if (strncmp(name, "metad", 5) != 0 || name[5] < '1' || name[5] > '9') {
        return 0;
    }
    char *end = NULL;
    unsigned long number = strtoul(name + 5, &end, 10);
    return *end == '\0' && number <= UINT32_MAX ? (uint32_t)number : 0;
}

static int usage_wrong(const char *what, const char *value)
{
    fprintf(stderr, "cairn admin node: %s: %s; see 'cairn admin node --help'\n", value, what);
    return CLI_EXIT_USAGE;
}

static void transfer_print(const struct cli *cli, uint32_t group, uint32_t node)
{
    if (!cli->json) {
        printf("group %u is led by metad%u\n", (unsigned)group, (unsigned)node);
        return;
    }
    struct json json;
    char name[32];
    snprintf(name, sizeof name, "metad%u", (unsigned)node);
    json_begin(&json);
    json_number(&json, "group", group);
    json_text(&json, "leader", name);
    json_end(&json);
}

struct transfer {
    struct cli *cli;
    uint32_t node;
};

static int transfer_group(struct cli *cli, uint32_t group, uint32_t node)
{
    uint32_t leader = 0;
    int code = cairn_admin_transfer(cli->cairn, group, node, &leader, &cli->error);
    if (code == 0) {
        transfer_print(cli, group, leader);
    }
    return code;
}

static int transfer_each(void *context, const struct cairn_group *group)
{
    const struct transfer *transfer = context;
    return transfer_group(transfer->cli, group->group, transfer->node);
}

static int transfer(struct cli *cli)
{
    struct transfer each = {.cli = cli};
    if (cli->to != NULL && (each.node = metad_number(cli->to)) == 0) {
        return usage_wrong("not the name of a metadata node, like metad2", cli->to);
    }
    int code = 0;
    if (!cli_open(cli, &code)) {
        return code;
    }
    code = cli->group_given ? transfer_group(cli, (uint32_t)cli->group, each.node)
                            : cairn_admin_groups(cli->cairn, transfer_each, &each, &cli->error);
    return cli_end(cli, code);
}

static void change_told(void *context, const char *what)
{
    const struct cli *cli = context;
    if (!cli->json) {
        printf("%s\n", what);
        fflush(stdout);
    }
}

static void change_print(const struct cli *cli, uint32_t node, bool member)
{
    if (!cli->json) {
        printf("metad%u is %s\n", (unsigned)node, member ? "in use" : "gone");
        return;
    }
    struct json json;
    char name[32];
    snprintf(name, sizeof name, "metad%u", (unsigned)node);
    json_begin(&json);
    json_text(&json, "name", name);
    json_text(&json, "state", member ? "in use" : "gone");
    json_end(&json);
}

static int add_node(struct cli *cli, uint32_t node)
{
    int code = cairn_admin_node_add(cli->cairn, node, cli->address, change_told, cli, &cli->error);
    if (code == 0) {
        change_print(cli, node, true);
    }
    return code;
}

static int remove_node(struct cli *cli, uint32_t node)
{
    int code = cairn_admin_node_remove(cli->cairn, node, change_told, cli, &cli->error);
    if (code == 0) {
        change_print(cli, node, false);
    }
    return code;
}

/* What is added and what is removed; 0: nobody. */
static int change(struct cli *cli, uint32_t add, uint32_t remove)
{
    int code = 0;
    if (!cli_open(cli, &code)) {
        return code;
    }
    if (add != 0) {
        code = add_node(cli, add);
    }
    if (code == 0 && remove != 0) {
        code = remove_node(cli, remove);
    }
    return cli_end(cli, code);
}

static int members(struct cli *cli)
{
    const char *command = cli->argv[0];
    if (cli->argc != 2) {
        return usage_wrong("give the name of one metadata node, like metad4", command);
    }
    uint32_t node = metad_number(cli->argv[1]);
    if (node == 0) {
        return usage_wrong("not the name of a metadata node, like metad4", cli->argv[1]);
    }
    if (strcmp(command, "add") == 0) {
        return change(cli, node, 0);
    }
    if (strcmp(command, "remove") == 0) {
        return change(cli, 0, node);
    }
    if (cli->with == NULL) {
        return usage_wrong("name the new node with --with metadM", command);
    }
    uint32_t with = metad_number(cli->with);
    if (with == 0 || with == node) {
        return usage_wrong("not the name of another metadata node, like metad4", cli->with);
    }
    return change(cli, with, node);
}

int cli_admin_node(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "admin node", usage, "goWA", 1, 2, &code)) {
        return code;
    }
    static const char *const names[] = {"transfer", "add", "remove", "replace"};
    unsigned which = 0;
    while (which < 4 && strcmp(cli.argv[0], names[which]) != 0) {
        which++;
    }
    if (which == 4) {
        return usage_wrong("not one of transfer, add, remove, replace", cli.argv[0]);
    }
    if (which > 0) {
        return members(&cli);
    }
    return cli.argc == 1 ? transfer(&cli) : usage_wrong("too much", cli.argv[1]);
}
