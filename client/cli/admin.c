/* cairn admin: what operators ask. */
#include <string.h>

#include "common.h"

static const char usage[] =
    "usage: cairn admin status|groups|stores|nodes|node|token|cluster\n\n"
    "  status   one object: stores by state, chunks by missing shards, the map, what is not at its default\n"
    "  groups   a line a Raft group: leader, term, indexes; per member role, lag, appends in flight, entries per "
    "fsync,\n"
    "           what the group refused there and why\n"
    "  stores   a line a store, with its counters\n"
    "  nodes    a line a node, with what it refused since its start and why\n"
    "  node     changes of nodes: 'cairn admin node --help'\n"
    "  token    one-time tokens for nodes that join: 'cairn admin token --help'\n"
    "  cluster  make a cluster, join one: 'cairn admin cluster --help'\n";

/* {"WRONG_CLUSTER":3,...} */
static void refusals_text(const struct cairn_refusals *rows, uint32_t count, char *ret, size_t bytes)
{
    size_t n = (size_t)snprintf(ret, bytes, "{");
    for (uint32_t i = 0; i < count && n + 64 < bytes; i++) {
        n += (size_t)snprintf(ret + n, bytes - n, "%s\"%s\":%llu", i > 0 ? "," : "", rows[i].reason,
                              (unsigned long long)rows[i].count);
    }
    snprintf(ret + n, bytes - n, "}");
}

static double entries_per_sync(const struct cairn_group_member *member)
{
    return member->log_syncs > 0 ? (double)member->log_entries / (double)member->log_syncs : 0;
}

/* "voter", "learner", ... */
static const char *roles_name(const struct cairn_group_member *member)
{
    static const char *const names[] = {"none", "voter", "voter that leaves", "voter that stays"};
    if ((member->roles & CAIRN_LEARNER) != 0) {
        return (member->roles & CAIRN_PROMOTE) != 0 ? "learner on its way to voter" : "learner";
    }
    return names[member->roles & (CAIRN_VOTER | CAIRN_OUTGOING)];
}

static void members_text(const struct cairn_group *group, char *ret, size_t bytes)
{
    char refused[4096];
    size_t n = (size_t)snprintf(ret, bytes, "[");
    for (uint32_t i = 0; i < group->member_count && n + sizeof refused + 512 < bytes; i++) {
        const struct cairn_group_member *member = &group->members[i];
        refusals_text(member->refusals, member->refusal_count, refused, sizeof refused);
        n += (size_t)snprintf(
            ret + n, bytes - n,
            "%s{\"name\":\"metad%u\",\"role\":\"%s\",\"answered\":%s,\"term\":%llu,\"match\":%llu,\"lag\":%llu,"
            "\"commit\":%llu,"
            "\"applied\":%llu,\"in_flight\":%u,\"log_entries\":%llu,\"log_syncs\":%llu,\"entries_per_sync\":%.2f,"
            "\"holes\":%llu,\"mended\":%llu,\"rot_behind\":%llu,\"digests\":%llu,"
            "\"digest_at\":%llu,\"stale\":%s,\"lost\":%s,\"refused\":%s}",
            i > 0 ? "," : "", (unsigned)member->node, roles_name(member), member->answered ? "true" : "false",
            (unsigned long long)member->term, (unsigned long long)member->match, (unsigned long long)member->lag,
            (unsigned long long)member->commit, (unsigned long long)member->applied, (unsigned)member->in_flight,
            (unsigned long long)member->log_entries, (unsigned long long)member->log_syncs, entries_per_sync(member),
            (unsigned long long)member->holes, (unsigned long long)member->mended,
            (unsigned long long)member->rot_behind, (unsigned long long)member->digests,
            (unsigned long long)member->digest_at, member->stale ? "true" : "false", member->lost ? "true" : "false",
            refused);
    }
    snprintf(ret + n, bytes - n, "]");
}

static int group_print(void *context, const struct cairn_group *group)
{
    const struct cli *cli = context;
    char leader[32] = "";
    if (group->leader != 0) {
        snprintf(leader, sizeof leader, "metad%u", (unsigned)group->leader);
    }
    if (!cli->json) {
        printf("group %u  leader %s  term %llu  commit %llu  applied %llu ", (unsigned)group->group,
               leader[0] ? leader : "none", (unsigned long long)group->term, (unsigned long long)group->commit,
               (unsigned long long)group->applied);
        for (uint32_t i = 0; i < group->member_count; i++) {
            const struct cairn_group_member *member = &group->members[i];
            if (member->answered) {
                printf(" metad%u %s lag %llu in flight %u entries/fsync %.1f ", (unsigned)member->node,
                       roles_name(member), (unsigned long long)member->lag, (unsigned)member->in_flight,
                       entries_per_sync(member));
            } else {
                printf(" metad%u %s silent ", (unsigned)member->node, roles_name(member));
            }
        }
        putchar('\n');
        return 0;
    }
    struct json json;
    json_begin(&json);
    json_number(&json, "group", group->group);
    if (leader[0] != '\0') {
        json_text(&json, "leader", leader);
    } else {
        json_raw(&json, "leader", "null");
    }
    json_number(&json, "term", group->term);
    json_number(&json, "commit", group->commit);
    json_number(&json, "applied", group->applied);
    json_number(&json, "config_index", group->config_index);
    static char members[192 << 10];
    members_text(group, members, sizeof members);
    json_raw(&json, "members", members);
    json_end(&json);
    return 0;
}

static int store_print(void *context, const struct cairn_store *store)
{
    const struct cli *cli = context;
    if (!cli->json) {
        printf("store %u  blockd%u/%u  %s  %s of %s  %llu shards", (unsigned)store->store, (unsigned)store->node,
               (unsigned)store->position, store->up ? "up" : "down", cli_size_text((double)store->used_bytes),
               cli_size_text((double)store->capacity_bytes), (unsigned long long)store->shards);
        if (store->rollbacks > 0) {
            printf("  came back with less than it had: %u times", (unsigned)store->rollbacks);
        }
        putchar('\n');
        return 0;
    }
    struct json json;
    char node[32];
    snprintf(node, sizeof node, "blockd%u", (unsigned)store->node);
    json_begin(&json);
    json_number(&json, "store", store->store);
    json_text(&json, "node", node);
    json_number(&json, "position", store->position);
    json_text(&json, "state", store->up ? "up" : "down");
    json_number(&json, "capacity_bytes", store->capacity_bytes);
    json_number(&json, "used_bytes", store->used_bytes);
    json_number(&json, "incarnation", store->incarnation);
    json_number(&json, "rollbacks", store->rollbacks);
    json_number(&json, "shards", store->shards);
    json_number(&json, "submissions", store->submissions);
    json_number(&json, "submitted", store->submitted);
    json_number(&json, "syncs", store->syncs);
    json_number(&json, "synced_shards", store->synced_shards);
    json_number(&json, "synced_bytes", store->synced_bytes);
    json_number(&json, "refused", store->refused);
    json_number(&json, "corrupt", store->corrupt);
    json_number(&json, "rebuilt", store->rebuilt);
    json_end(&json);
    return 0;
}

static int node_print(void *context, const struct cairn_node *node)
{
    const struct cli *cli = context;
    if (!cli->json) {
        printf("%s%u  %s  %s  %s ", node->role, (unsigned)node->id, node->state, node->address, node->host);
        for (uint32_t i = 0; i < node->refusal_count; i++) {
            printf("%s%s %llu", i > 0 ? ", " : " refused ", node->refusals[i].reason,
                   (unsigned long long)node->refusals[i].count);
        }
        putchar('\n');
        return 0;
    }
    char refused[4096];
    refusals_text(node->refusals, node->refusal_count, refused, sizeof refused);
    struct json json;
    char name[32];
    snprintf(name, sizeof name, "%s%u", node->role, (unsigned)node->id);
    json_begin(&json);
    json_text(&json, "name", name);
    json_text(&json, "role", node->role);
    json_text(&json, "state", node->state);
    json_text(&json, "addr", node->address);
    json_text(&json, "host", node->host);
    json_text(&json, "rack", node->rack);
    json_raw(&json, "refused", node->answered ? refused : "null");
    json_end(&json);
    return 0;
}

/* "N whole, M missing 1, ..." for people, an object of counts by missing shards for programs. */
static void missing_text(const struct cairn_missing *missing, bool json, char *ret, size_t bytes)
{
    size_t n =
        (size_t)snprintf(ret, bytes, json ? "{\"0\":%llu" : "%llu whole", (unsigned long long)missing->chunks[0]);
    for (unsigned i = 1; i <= CAIRN_MISSING_MAX && n < bytes; i++) {
        if (missing->chunks[i] > 0) {
            unsigned long long count = missing->chunks[i];
            n += json ? (size_t)snprintf(ret + n, bytes - n, ",\"%u\":%llu", i, count)
                      : (size_t)snprintf(ret + n, bytes - n, ", %llu missing %u", count, i);
        }
    }
    if (json && n < bytes) {
        snprintf(ret + n, bytes - n, "}");
    }
}

static int status(struct cli *cli)
{
    struct cairn_status status;
    int code = cairn_admin_status(cli->cairn, &status, &cli->error);
    if (code != 0) {
        return code;
    }
    /* The chunks take their namespace's group and the stores: without them the rest is still said. */
    struct cairn_missing missing;
    struct cairn_error reason = {0};
    char chunks[1024] = "null";
    bool counted = cairn_admin_missing(cli->cairn, &missing, &reason) == 0;
    if (counted) {
        missing_text(&missing, cli->json, chunks, sizeof chunks);
    } else {
        snprintf(chunks, sizeof chunks, cli->json ? "null" : "not known: %.800s", reason.text);
    }
    if (!cli->json) {
        printf("chunks: %s\n", chunks);
        printf("block servers: %u\nstores: %u up, %u down\nmap epoch: %llu\ntick: %llu\n", (unsigned)status.nodes,
               (unsigned)status.stores_up, (unsigned)status.stores_down, (unsigned long long)status.map_epoch,
               (unsigned long long)status.tick);
        for (uint32_t i = 0; i < status.not_default_count; i++) {
            printf("not default: %s\n", status.not_default[i]);
        }
        return 0;
    }
    struct json json;
    json_begin(&json);
    json_number(&json, "nodes", status.nodes);
    json_number(&json, "stores_up", status.stores_up);
    json_number(&json, "stores_down", status.stores_down);
    json_number(&json, "map_epoch", status.map_epoch);
    json_number(&json, "tick", status.tick);
    json_raw(&json, "chunks_by_missing", chunks);
    if (counted) {
        json_number(&json, "stores_silent", missing.stores_silent);
    }
    char text[4096] = "[";
    for (uint32_t i = 0; i < status.not_default_count; i++) {
        strcat(text, i > 0 ? ",\"" : "\"");
        strncat(text, status.not_default[i], 128);
        strcat(text, "\"");
    }
    strcat(text, "]");
    json_raw(&json, "not_default", text);
    json_end(&json);
    return 0;
}

int cli_admin(int argc, char **argv)
{
    struct cli cli;
    int code = 0;
    if (argc > 1 && strcmp(argv[1], "node") == 0) {
        return cli_admin_node(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "token") == 0) {
        return cli_admin_token(argc - 1, argv + 1);
    }
    if (argc > 1 && strcmp(argv[1], "cluster") == 0) {
        return cli_admin_cluster(argc - 1, argv + 1);
    }
    if (!cli_parse(&cli, argc, argv, "admin", usage, "", 1, 1, &code)) {
        return code;
    }
    static const char *const names[] = {"status", "groups", "stores", "nodes"};
    unsigned which = 0;
    while (which < 4 && strcmp(cli.argv[0], names[which]) != 0) {
        which++;
    }
    if (which == 4) {
        fprintf(stderr, "cairn admin: %s: not one of status, groups, stores, nodes, node, token, cluster\n",
                cli.argv[0]);
        return CLI_EXIT_USAGE;
    }
    if (!cli_open(&cli, &code)) {
        return code;
    }
    switch (which) {
    case 0:
        code = status(&cli);
        break;
    case 1:
        code = cairn_admin_groups(cli.cairn, group_print, &cli, &cli.error);
        break;
    case 2:
        code = cairn_admin_stores(cli.cairn, store_print, &cli, &cli.error);
        break;
    default:
        code = cairn_admin_nodes(cli.cairn, node_print, &cli, &cli.error);
        break;
    }
    return cli_end(&cli, code);
}
