/* cairn admin node: changes of the cluster's nodes. */
#include <stdlib.h>
#include <string.h>

#include "common.h"

static const char usage[] =
    "usage: cairn admin node transfer [--group G] [--to metadN]\n\n"
    "  transfer   the leader of group G (default: of every group) hands over to metadN (default: the voter that is\n"
    "             furthest and answers); nothing fails by it\n";

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

int cli_admin_node(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (!cli_parse(&cli, argc, argv, "admin node", usage, "go", 1, 1, &code)) {
        return code;
    }
    if (strcmp(cli.argv[0], "transfer") == 0) {
        return transfer(&cli);
    }
    return usage_wrong("not one of transfer", cli.argv[0]);
}
