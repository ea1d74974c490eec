/* Raft messages on the wire: RaftMessage in the frame's header, entries packed in its body. Group, cluster, incarnation
 * and membership stand in each and are checked before the core hears of it. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/host/log.h"
#include "metad/members.h"

void raft_wire_send(struct group *group, const struct raft_message *message)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    Cairn__RaftMessage wire = CAIRN__RAFT_MESSAGE__INIT;
    wire.kind = message->kind;
    wire.group = group->params.group;
    wire.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)bootstrap->cluster.uuid.bytes};
    wire.cluster_incarnation = bootstrap->cluster_incarnation;
    wire.from = message->from;
    wire.term = message->term;
    wire.log_index = message->log_index;
    wire.log_term = message->log_term;
    wire.commit = message->commit;
    wire.context = message->context;
    wire.reject = message->reject;
    wire.hint = message->hint;
    wire.hint_term = message->hint_term;
    wire.sleep = message->sleep;
    wire.short_of_room = !kv_room(group->params.kv);
    wire.lost = group->heal.lost;
    Cairn__LogIdentity log = CAIRN__LOG_IDENTITY__INIT;
    identity_put(group, &log, message->kind != RAFT_APPEND && message->kind != RAFT_APPEND_REPLY);
    wire.log = &log;
    Cairn__LogIdentity known[RAFT_MEMBERS_MAX], *list[RAFT_MEMBERS_MAX];
    if (message->kind == RAFT_HEARTBEAT) {
        identity_relay(group, known, list, &wire.n_known);
        wire.known = list;
        wire.known_at = group->at.config.index + 1;
    }
    uint32_t stale[RAFT_MEMBERS_MAX];
    if (message->kind == RAFT_HEARTBEAT_REPLY) {
        wire.n_stale = identity_report(group, stale);
        wire.stale = stale;
        wire.known_at = wire.n_stale > 0 ? group->at.config.index + 1 : 0;
    }
    bool first_word = message->kind == RAFT_HEARTBEAT || message->kind == RAFT_VOTE || message->kind == RAFT_PRE_VOTE;
    if (first_word && group->params.address != NULL) {
        wire.address = (char *)(uintptr_t)group->params.address;
    }
    struct slice body = {0};
    if (message->count > 0) {
        raft_entries_encode(message->entries, message->count, &body);
    }
    fx_send(group->fx, address_node(ROLE_METAD, message->to, ACTOR_GROUP, group->params.group), MESSAGE_RAFT, 0,
            proto_pack(&wire), body);
}

/* Indexes and terms that no sound peer could send: the log is never touched by them. What is merely old or late is the
 * core's business. */
static enum err message_check(const struct group *group, const struct raft_message *message)
{
    const uint64_t most = UINT64_MAX / 2;
    struct raft_status own = raft_status(group->raft);
    bool possible = message->term > 0 && message->term <= most && message->log_index <= most &&
                    message->commit <= most && message->log_term <= message->term &&
                    (message->log_index > 0 || message->log_term == 0);
    if (message->kind == RAFT_APPEND_REPLY && own.role == RAFT_LEADER && own.term == message->term) {
        possible = possible && message->log_index <= own.last;
    }
    uint64_t term = message->log_term;
    for (uint32_t i = 0; i < message->count && possible; i++) {
        const struct raft_entry *entry = &message->entries[i];
        possible = entry->index == message->log_index + 1 + i && entry->term > 0 && entry->term >= term &&
                   entry->term <= message->term;
        term = entry->term;
    }
    return possible ? ERR_OK : ERR_IMPOSSIBLE;
}

static void message_entries_free(struct raft_message *message)
{
    for (uint32_t i = 0; i < message->count; i++) {
        slice_drop(&message->entries[i].data);
    }
    free(message->entries);
    message->entries = NULL;
    message->count = 0;
}

enum err raft_wire_decode(struct group *group, const struct message *frame, struct raft_message *ret_message)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    enum err err = proto_unpack(&cairn__raft_message__descriptor, frame->header, &arena, &unpacked);
    if (err != ERR_OK) {
        return err;
    }
    const Cairn__RaftMessage *wire = unpacked;
    if (wire->cluster.len != 16 || memcmp(wire->cluster.data, bootstrap->cluster.uuid.bytes, 16) != 0 ||
        wire->cluster_incarnation != bootstrap->cluster_incarnation) {
        err = ERR_WRONG_CLUSTER;
    } else if (wire->group != group->params.group) {
        err = ERR_WRONG_GROUP;
    } else if (wire->from != frame->peer.id || wire->from == group->params.self) {
        err = ERR_NOT_MEMBER;
    } else if (wire->kind < RAFT_PRE_VOTE || wire->kind > RAFT_TIMEOUT_NOW) {
        err = ERR_UNKNOWN_TYPE;
    } else if (frame->body.bytes > 0 && wire->kind != RAFT_APPEND) {
        err = ERR_BAD_PROTO;
    }
    struct raft_message message = {
        .kind = (uint8_t)wire->kind,
        .from = wire->from,
        .to = group->params.self,
        .term = wire->term,
        .log_index = wire->log_index,
        .log_term = wire->log_term,
        .commit = wire->commit,
        .context = wire->context,
        .reject = wire->reject != 0,
        .hint = wire->hint,
        .hint_term = wire->hint_term,
        .sleep = wire->sleep,
    };
    bool leads = false; /* stale by what is known here, and elected by others: it may have its vote again (R-E3) */
    if (err == ERR_OK) {
        err = members_admit(group, &message);
    }
    if (err == ERR_OK) {
        err = identity_hear(group, wire->from, wire->log);
        leads = err == ERR_STALE_PEER && (wire->kind == RAFT_APPEND || wire->kind == RAFT_HEARTBEAT);
        err = leads ? ERR_OK : err;
    }
    if (err == ERR_OK && !leads) {
        members_note_room(group, wire->from, !wire->short_of_room);
        identity_note_lost(group, wire->from, wire->lost);
        if (wire->kind == RAFT_HEARTBEAT && wire->term >= raft_status(group->raft).term) {
            identity_learn(group, wire);
        } else if (wire->kind == RAFT_HEARTBEAT_REPLY && wire->n_stale > 0) {
            identity_reported(group, wire);
        }
        members_note_address(group, wire->from, wire->address);
    }
    proto_arena_deinit(&arena);
    if (err == ERR_OK && frame->body.bytes > 0) {
        err = raft_entries_decode(frame->body, &message.entries, &message.count);
    }
    if (err == ERR_OK) {
        err = message_check(group, &message);
    }
    if (err == ERR_OK) {
        *ret_message = message;
    } else {
        message_entries_free(&message);
    }
    return err;
}
