/* Recovery from a lost majority (R-A10): a group goes on with this node as its only member, in a new incarnation of the
 * cluster. Nothing here decides that the others are gone: an operator said so (shell/recover.c), and what they
 * acknowledged and this node never heard is lost.
 *
 *   opened -> looked at (recover_look) -> GROUP_RECOVER: two entries appended -> durable: done; the node is started
 * anew
 *
 * The entries, of the term after the node's own: a CONFIG that names this node alone, and a command that raises the
 * incarnation of every namespace, in group 0 that of the map. Everything the log held before stays in front of them,
 * committed or not: it may have been acknowledged. They commit when the node runs again: the newest configuration of
 * its log is this one. A crash in between is no matter, the same two are appended again.
 *
 * Safe against the old cluster only by the incarnation: hello, Raft frames, capabilities, receipts and maps carry it.
 */
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

const struct group_recovery *group_recovery(const struct group *group)
{
    return &group->recovery;
}

/* The configuration of the log's end. */
static const struct raft_config *config_newest(const struct group *group, const struct raft_start *start)
{
    return start->config_count > 0 ? &start->configs[start->config_count - 1].config : &group->at.config.config;
}

static const char *what_is_wrong(struct group *group, const struct raft_start *start, const struct raft_config *config)
{
    uint64_t index = 0, term = 0;
    if (start->last == 0) {
        return "it never held anything of this group";
    }
    if (standing_reset_wanted(group, &index, &term) && index > start->base_index) {
        return "it was taking in a snapshot; start it once as ever, end it, and try again";
    }
    if (group->at.applied < start->base_index || group->at.applied > start->last) {
        return "its database and its log do not fit";
    }
    if (holes_left(&group->heal.holes) > 0) {
        return "an entry of its log that is not applied yet is damaged; only another member can have it";
    }
    if (raft_config_roles(config, group->params.self) == 0) {
        return "it was removed from the group";
    }
    return NULL;
}

void recover_look(struct group *group, const struct raft_start *start, bool unsure)
{
    struct group_recovery *recovery = &group->recovery;
    CHECK(!recovery->looked && group->params.recovering);
    const struct raft_config *config = config_newest(group, start);
    recovery->wrong = unsure ? "its log lost what it promised in this group" : what_is_wrong(group, start, config);
    recovery->config = *config;
    recovery->last = start->last;
    recovery->term = start->run_count > 0 ? start->runs[start->run_count - 1].term : start->base_term;
    recovery->applied = group->at.applied;
    recovery->looked = true;
    group->start_hard = start->hard;
    if (group->params.group == 0 && recovery->wrong == NULL) {
        group_share_root(group); /* opens the keys: halts when the cluster key is another */
    }
}

void recover_begin(struct group *group, struct slice header)
{
    struct group_recovery *recovery = &group->recovery;
    CHECK(recovery->looked && recovery->wrong == NULL && group->phase != GROUP_RECOVERING && header.bytes == 8);
    struct raft_config alone = {.members = {{.node = group->params.self, .roles = RAFT_VOTER}}, .count = 1};
    struct writer extra = {0}, commands = {0};
    writer_u64(&extra, get_u64(header.data));
    writer_u32(&extra, group->params.self);
    Cairn__Command command = CAIRN__COMMAND__INIT;
    command.op = COMMAND_RECOVER;
    command.wall_ns = (int64_t)group->event->wall_ns;
    command.extra = (ProtobufCBinaryData){extra.bytes, extra.data};
    struct slice packed = proto_pack(&command);
    writer_u32(&commands, (uint32_t)packed.bytes);
    writer_put(&commands, packed.data, packed.bytes);
    uint64_t term = (group->start_hard.term > recovery->term ? group->start_hard.term : recovery->term) + 1;
    struct raft_entry entries[] = {
        {.index = recovery->last + 1, .term = term, .type = RAFT_ENTRY_CONFIG, .data = raft_config_encode(&alone)},
        {.index = recovery->last + 2, .term = term, .type = RAFT_ENTRY_COMMANDS, .data = writer_take(&commands)},
    };
    group->phase = GROUP_RECOVERING;
    group_log_append(group, 1, true, (struct raft_hard_state){.term = term, .vote = group->params.self}, entries, 2);
    slice_drop(&entries[0].data);
    slice_drop(&entries[1].data);
    slice_drop(&packed);
    writer_deinit(&commands);
    writer_deinit(&extra);
}

void recover_appended(struct group *group)
{
    CHECK(group->phase == GROUP_RECOVERING && !group->recovery.done);
    group->recovery.done = true;
}

/* ---- when it is committed ---- */

/* Cursors, holds and receipts of the namespace's past are told from those that come: its events may come again under
 * the same numbers with another content (P3, R-A1). */
static enum err namespaces_raise(struct apply *apply, uint64_t incarnation)
{
    records_settle(apply->state);
    struct key from = key_begin(apply->state->group, 'N');
    size_t prefix_bytes = from.count;
    enum err err = ERR_OK;
    while (err == ERR_OK) {
        struct slice key = {0}, value = {0};
        Cairn__NamespaceRecord *ns = NULL;
        err = kv_next(&apply->state->kv->view, from.bytes, from.count, from.count > prefix_bytes, &key, &value);
        bool inside = err == ERR_OK && key.bytes == prefix_bytes + 8 && memcmp(key.data, from.bytes, prefix_bytes) == 0;
        if (inside) {
            err = records_namespace(apply->state, get_be64(key.data + prefix_bytes), apply->arena, &ns);
        }
        if (inside && err == ERR_OK) {
            ns->incarnation = incarnation;
            namespace_put(apply->state, ns);
            from = key_namespace(apply->state->group, ns->ns);
        }
        slice_drop(&key);
        slice_drop(&value);
        if (!inside) {
            return err == ERR_NOT_FOUND ? ERR_OK : err;
        }
    }
    return ERR_CORRUPT;
}

enum err recover_apply(struct apply *apply)
{
    struct reader reader = reader_of(apply->command->extra.data, apply->command->extra.len);
    uint64_t incarnation = reader_u64(&reader);
    uint32_t node = reader_u32(&reader);
    if (reader.failed || reader.left != 0) {
        return ERR_CORRUPT;
    }
    enum err err = namespaces_raise(apply, incarnation);
    if (err == ERR_OK && apply->state->group.group == 0) {
        err = root_recover(apply, incarnation, node);
    }
    return err;
}
