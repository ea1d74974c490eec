/* Changes of metadata nodes that operators ask for. Each is a question to a group's leader that begins something, and
 * then questions to members until it shows; asked again after a failure it goes on where it stood. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api.h"

#define POLL_NS         50000000ull
#define MEMBER_NS       2000000000ull
#define TRANSFER_SECOND 10ull
#define CHANGE_SECONDS  120ull
#define CHECK_NS        5000000000ull

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void poll_pause(void)
{
    struct timespec pause = {.tv_nsec = POLL_NS};
    nanosleep(&pause, NULL);
}

/* How long a change is waited for. */
static uint64_t change_deadline(const struct cairn *c, uint64_t usual_ns)
{
    return now_ns() + (c->budget_ns > 0 ? c->budget_ns : usual_ns);
}

static int group_ask(struct cairn *c, uint16_t type, uint32_t group, const void *request,
                     const ProtobufCMessageDescriptor *descriptor, const char *what, struct proto_arena *arena,
                     void **ret_reply, struct cairn_error *error)
{
    struct api_call call = {
        .type = type, .route = CLIENT_ROUTE_GROUP, .group = group, .request = request, .reply = descriptor};
    return api_call(c, &call, what, arena, ret_reply, error);
}

/* Does this node say that it leads the group? */
static bool node_leads(struct cairn *c, uint32_t group, uint32_t node)
{
    Cairn__AdminGroupRequest request = CAIRN__ADMIN_GROUP_REQUEST__INIT;
    Cairn__AdminGroupReply *reply = NULL;
    struct proto_arena arena = {0};
    struct api_call call = {.type = MESSAGE_ADMIN_GROUP,
                            .route = CLIENT_ROUTE_NODE,
                            .group = group,
                            .node = node,
                            .budget_ns = MEMBER_NS,
                            .request = &request,
                            .reply = &cairn__admin_group_reply__descriptor};
    bool leads = api_call(c, &call, "group", &arena, (void **)&reply, NULL) == 0 && reply->leader == node;
    proto_arena_deinit(&arena);
    return leads;
}

int cairn_admin_transfer(struct cairn *c, uint32_t group, uint32_t node, uint32_t *ret_node, struct cairn_error *error)
{
    Cairn__AdminTransferRequest request = CAIRN__ADMIN_TRANSFER_REQUEST__INIT;
    uint64_t deadline_ns = change_deadline(c, TRANSFER_SECOND * 1000000000ull);
    char what[64];
    if (group >= LIMIT_GROUPS) {
        return api_fail(error, ERR_INVALID, "group %u: 'cairn admin groups' lists them", (unsigned)group);
    }
    snprintf(what, sizeof what, "transfer of group %u", (unsigned)group);
    for (request.node = node;;) {
        struct proto_arena arena = {0};
        Cairn__AdminTransferReply *reply = NULL;
        int result = group_ask(c, MESSAGE_ADMIN_TRANSFER, group, &request, &cairn__admin_transfer_reply__descriptor,
                               what, &arena, (void **)&reply, error);
        uint32_t to = result == 0 ? reply->node : 0;
        proto_arena_deinit(&arena);
        if (result != 0) {
            return result;
        }
        /* A hand-over takes an election timeout at most; one that failed is asked for again. */
        uint64_t until_ns = now_ns() + 1000000000ull;
        do {
            if (node_leads(c, group, to)) {
                *ret_node = to;
                return 0;
            }
            poll_pause();
        } while (now_ns() < until_ns);
        if (now_ns() >= deadline_ns) {
            return api_fail(error, ERR_TIMEOUT,
                            "metad%u does not take over group %u in time; is it up? "
                            "'cairn admin groups' shows who leads",
                            (unsigned)to, (unsigned)group);
        }
    }
}

/* ---- members ---- */

static int node_set(struct cairn *c, uint32_t node, uint32_t state, const char *address, struct cairn_error *error)
{
    Cairn__AdminNodeRequest request = CAIRN__ADMIN_NODE_REQUEST__INIT;
    Cairn__AdminNodeReply *reply = NULL;
    struct proto_arena arena = {0};
    char what[32];
    request.node = node;
    request.state = state;
    request.address = (char *)(uintptr_t)(address != NULL ? address : "");
    struct api_call call = {.type = MESSAGE_ADMIN_NODE,
                            .route = CLIENT_ROUTE_ROOT,
                            .mutation = true,
                            .request = &request,
                            .reply = &cairn__admin_node_reply__descriptor};
    snprintf(what, sizeof what, "metad%u", (unsigned)node);
    int result = api_call(c, &call, what, &arena, (void **)&reply, error);
    proto_arena_deinit(&arena);
    if (result == ERR_EXISTS) {
        return api_fail(error, ERR_EXISTS, "metad%u was removed; a number is never used again, take the next one",
                        (unsigned)node);
    }
    if (result == ERR_NOT_FOUND && state == API_NODE_JOINING) {
        return api_fail(error, ERR_NOT_FOUND, "metad%u is not known; name where it is reached with --address HOST:PORT",
                        (unsigned)node);
    }
    if (result == ERR_NOT_FOUND) {
        return api_fail(error, ERR_NOT_FOUND, "metad%u is not known; 'cairn admin nodes' lists them", (unsigned)node);
    }
    return result;
}

struct change {
    struct cairn *c;
    uint32_t node;
    bool add;
    cairn_change_told_fn *tell;
    void *context;
};

static void change_tell(const struct change *change, uint32_t group, const Cairn__AdminMembersReply *reply)
{
    char text[128];
    if (change->tell == NULL) {
        return;
    }
    if (reply->done) {
        snprintf(text, sizeof text, "group %u: metad%u is %s", (unsigned)group, (unsigned)change->node,
                 change->add ? "a voter" : "no member");
    } else if ((reply->roles & CAIRN_LEARNER) != 0) {
        snprintf(text, sizeof text, "group %u: metad%u learns, %llu entries behind%s", (unsigned)group,
                 (unsigned)change->node, (unsigned long long)reply->lag, reply->answers ? "" : ", and does not answer");
    } else {
        snprintf(text, sizeof text, "group %u: metad%u %s", (unsigned)group, (unsigned)change->node,
                 change->add ? "becomes a voter" : "leaves");
    }
    change->tell(change->context, text);
}

static int change_late(const struct change *change, uint32_t group, uint64_t lag, struct cairn_error *error)
{
    if (change->add) {
        return api_fail(
            error, ERR_NOT_CAUGHT_UP,
            "metad%u is no voter of group %u yet, it lacks %llu entries; is it running? Run this again to go "
            "on, or 'cairn admin node remove metad%u' to give it up",
            (unsigned)change->node, (unsigned)group, (unsigned long long)lag, (unsigned)change->node);
    }
    return api_fail(error, ERR_TIMEOUT, "metad%u has not left group %u yet; run this again to go on",
                    (unsigned)change->node, (unsigned)group);
}

/* One question about a group; its answer, or the refusal. */
static int change_ask(const struct change *change, uint32_t group, bool check, Cairn__AdminMembersReply *ret_reply,
                      struct cairn_error *error)
{
    Cairn__AdminMembersRequest request = CAIRN__ADMIN_MEMBERS_REQUEST__INIT;
    Cairn__AdminMembersReply *reply = NULL;
    struct proto_arena arena = {0};
    char what[64];
    *(change->add ? &request.add : &request.remove) = change->node;
    request.check = check;
    snprintf(what, sizeof what, "members of group %u", (unsigned)group);
    struct api_call call = {.type = MESSAGE_ADMIN_MEMBERS,
                            .route = CLIENT_ROUTE_GROUP,
                            .group = group,
                            .budget_ns =
                                check && (change->c->budget_ns == 0 || change->c->budget_ns > CHECK_NS) ? CHECK_NS : 0,
                            .request = &request,
                            .reply = &cairn__admin_members_reply__descriptor};
    int result = api_call(change->c, &call, what, &arena, (void **)&reply, error);
    if (result == 0) {
        *ret_reply = *reply; /* numbers only */
    }
    proto_arena_deinit(&arena);
    return result;
}

/* Would this group refuse? What passes with time is waited for. */
static int change_check(const struct change *change, uint32_t group, uint64_t deadline_ns, struct cairn_error *error)
{
    struct cairn_error refusal = {0};
    Cairn__AdminMembersReply reply;
    bool told = false;
    for (;;) {
        int result = change_ask(change, group, true, &reply, &refusal);
        bool passes = result == ERR_NOT_READY || result == ERR_CHANGE_PENDING || result == ERR_TERM_TOO_YOUNG ||
                      result == ERR_NO_QUORUM;
        if (!passes || now_ns() >= deadline_ns) {
            return result == 0 ? 0 : api_fail(error, (enum err)result, "%s", refusal.text);
        }
        if (!told && change->tell != NULL) {
            change->tell(change->context, refusal.text);
        }
        told = true;
        poll_pause();
    }
}

/* One group, until it is so. */
static int change_group(const struct change *change, uint32_t group, uint64_t deadline_ns, struct cairn_error *error)
{
    uint32_t roles_told = UINT32_MAX;
    Cairn__AdminMembersReply reply;
    for (;;) {
        int result = change_ask(change, group, false, &reply, error);
        bool done = result == 0 && reply.done;
        if (result == 0 && (done || reply.roles != roles_told)) {
            roles_told = reply.roles;
            change_tell(change, group, &reply);
        }
        if (result != 0 || done) {
            return result;
        }
        if (now_ns() >= deadline_ns) {
            return change_late(change, group, reply.lag, error);
        }
        poll_pause();
    }
}

/* Group 0 comes first and goes last: who leads another group needs the keys and the newest map, which its own replica
 * of group 0 tells it (R-F6), and a node that is no member of group 0 any more has neither after a restart. So that a
 * removal that group 0 refuses leaves nothing half done, all groups are asked before the first is changed. */
static int change_groups(const struct change *change, struct cairn_error *error)
{
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    uint64_t deadline_ns = change_deadline(change->c, CHANGE_SECONDS * 1000000000ull);
    int result = api_map_get(change->c, &arena, &map, error);
    for (size_t i = 0; result == 0 && !change->add && i < map->n_groups; i++) {
        result = change_check(change, map->groups[i]->group, deadline_ns, error);
    }
    for (size_t i = 0; result == 0 && i < map->n_groups; i++) {
        size_t at = change->add ? i : map->n_groups - 1 - i;
        result = change_group(change, map->groups[at]->group, deadline_ns, error);
    }
    proto_arena_deinit(&arena);
    return result;
}

int cairn_admin_node_add(struct cairn *c, uint32_t node, const char *address, cairn_change_told_fn *tell, void *context,
                         struct cairn_error *error)
{
    const struct change change = {.c = c, .node = node, .add = true, .tell = tell, .context = context};
    int result = node_set(c, node, API_NODE_JOINING, address, error);
    if (result == 0) {
        result = change_groups(&change, error);
    }
    return result == 0 ? node_set(c, node, API_NODE_IN_USE, NULL, error) : result;
}

/* The row of a metadata node in the map; NOT_FOUND. */
static int node_state(struct cairn *c, uint32_t node, uint32_t *ret_state, struct cairn_error *error)
{
    struct proto_arena arena = {0};
    Cairn__ClusterMap *map = NULL;
    bool found = false;
    int result = api_map_get(c, &arena, &map, error);
    for (size_t i = 0; result == 0 && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->id == node) {
            *ret_state = map->nodes[i]->state;
            found = true;
        }
    }
    proto_arena_deinit(&arena);
    for (uint32_t i = 0; i < c->config.metad_count; i++) { /* one of the first that never said where it is */
        found = found || c->config.metads[i].node == node;
    }
    if (result == 0 && !found) {
        return api_fail(error, ERR_NOT_FOUND, "metad%u is not known; 'cairn admin nodes' lists them", (unsigned)node);
    }
    return result;
}

int cairn_admin_node_remove(struct cairn *c, uint32_t node, cairn_change_told_fn *tell, void *context,
                            struct cairn_error *error)
{
    const struct change change = {.c = c, .node = node, .tell = tell, .context = context};
    uint32_t state = API_NODE_IN_USE;
    int result = node_state(c, node, &state, error);
    if (result != 0 || state == API_NODE_GONE) {
        return result;
    }
    result = change_groups(&change, error);
    return result == 0 ? node_set(c, node, API_NODE_GONE, NULL, error) : result;
}
