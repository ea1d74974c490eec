/* What a group does because time passed: Raft's ticks, what the parts of host/ resend, and once a second the commands
 * that nobody asked for: the root's (nodes, stores, the first keys), the namespaces' upkeep, digests to compare (R-E6).
 */
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/members.h"

#define MAINTAIN_NS 1000000000ull

/* Puts the digest at the last checkpoint into the log, once: replicas that reach it compare (R-E6). */
static bool group_tell_digest(struct group *group)
{
    if (group->at.checkpoint <= group->digest_told) {
        return false;
    }
    group->digest_told = group->at.checkpoint;
    struct writer extra = {0};
    writer_u64(&extra, group->at.checkpoint);
    writer_u64(&extra, group->at.checkpoint_digest);
    group_propose_own(group, COMMAND_DIGEST, writer_take(&extra));
    writer_deinit(&extra);
    return true;
}

/* The map has another address of this node than it has, or none. */
static bool group_address_is_news(const struct group *group)
{
    if (group->params.group != 0 || group->params.address == NULL || !group->keyring.present) {
        return false;
    }
    const Cairn__MapNode *row = map_find_metad(group->keyring.map, group->params.self);
    return row == NULL || (row->state != NODE_GONE && strcmp(row->address, group->params.address) != 0);
}

/* A follower tells the leader, a leader proposes it with its next root command. */
static void group_tell_address(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    if (!group_address_is_news(group) || status.leader == 0 || status.leader == group->params.self) {
        return;
    }
    Cairn__NodeRegisterRequest request = CAIRN__NODE_REGISTER_REQUEST__INIT;
    request.node = group->params.self;
    request.address = (char *)(uintptr_t)group->params.address;
    fx_send(group->fx, address_node(ROLE_METAD, status.leader, ACTOR_GROUP, 0), MESSAGE_NODE_REGISTER,
            ++group->register_stream, proto_pack(&request), (struct slice){0});
}

static void group_maintain(struct group *group)
{
    group_tell_address(group);
    if (!group_is_ready(group) || group->own_command_out || group_tell_digest(group)) {
        return;
    }
    struct proto_arena arena = {0};
    if (group->params.group == 0) {
        Cairn__RootCommand command = CAIRN__ROOT_COMMAND__INIT;
        Cairn__RootRecord record = CAIRN__ROOT_RECORD__INIT;
        Cairn__NodeRegisterRequest own = CAIRN__NODE_REGISTER_REQUEST__INIT;
        if (group->root.led_since_ns == 0) {
            group->root.led_since_ns = group->event->now_ns;
            group->root.count = 0;
            group->root.next_tick_ns = 0;
        }
        bool due = false;
        if (!group->keyring.present) {
            root_init_make(group->params.bootstrap, group->params.cluster_key, group->event->random, &arena, &record);
            command.init = &record;
            due = true;
        } else {
            due = root_due(&group->root, &group->state, group->event->now_ns, &arena, &command);
        }
        if (!due && group_address_is_news(group)) {
            own.node = group->params.self;
            own.address = (char *)(uintptr_t)group->params.address;
            command.node = &own;
            due = true;
        }
        if (due) {
            group_propose_own(group, COMMAND_ROOT, proto_pack(&command));
        }
    } else if (group->keyring.present &&
               maintain_due(&group->state, NAMESPACE_FIRST, group->keyring.map->tick, &arena)) {
        group_propose_own(group, COMMAND_MAINTAIN, (struct slice){0});
    }
    proto_arena_deinit(&arena);
}

void group_tick(struct group *group)
{
    if (group->phase != GROUP_RUNNING) {
        return;
    }
    if (!group->draining || raft_role(group->raft) == RAFT_LEADER) {
        struct raft_event event = {.kind = RAFT_EVENT_TICK, .random = group->event->random};
        group_raft(group, &event);
    }
    if (group->phase == GROUP_RUNNING) {
        snapshot_send_tick(group);
        snapshot_receive_tick(group);
        heal_tick(group);
        identity_tick(group);
        standing_clean(group);
    }
    if (group->phase == GROUP_RUNNING && group->event->now_ns >= group->maintain_at_ns) {
        group->maintain_at_ns = group->event->now_ns + MAINTAIN_NS;
        if (group->root_share_due && group->params.group == 0) {
            group->root_share_due = false;
            group_share_root(group);
        }
        members_tick(group);
        group_maintain(group);
    }
}
