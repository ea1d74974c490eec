/* Changes of metadata nodes that operators ask for. Each is a question to a group's leader that begins something, and
 * then questions to members until it shows; asked again after a failure it goes on where it stood. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "api.h"

#define POLL_NS         50000000ull
#define MEMBER_NS       2000000000ull
#define TRANSFER_SECOND 10ull

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
