/* Taking a snapshot in (R-E4). Pieces are written under a view of their own beside the state in force; when the last
 * has come, one batch makes that view the one in force. Once a flush has made it durable Raft hears of it, the log is
 * reset if it does not hold the snapshot's last entry, and the sender is answered. The old view is deleted bit by bit.
 *
 * Failure: a piece that does not fit what came before is refused, and the sender begins anew. After a crash it goes on
 * behind what was durable by then: each piece's batch says how far it is (standing.c), a piece further on is answered
 * with that, and the sender goes back to it. A crash between the switch and the reset of the log is made good at the
 * start (group.c). What was given up is deleted bit by bit. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/group.h"

static void receive_answer(struct group *group, const struct message *message, uint64_t next, bool installed)
{
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    reply.next = next;
    reply.installed = installed;
    fx_reply(group->fx, message, proto_pack(&reply), (struct slice){0});
}

/* A piece behind what is here, for a crash took what came before: where to go on. */
static enum err receive_answer_behind(struct group *group, const struct message *message)
{
    struct snapshot_in in;
    struct slice last = {0};
    if (!standing_received_read(group, group->in.view, &in, &last)) {
        return ERR_CONFLICT;
    }
    Cairn__SnapshotReply reply = CAIRN__SNAPSHOT_REPLY__INIT;
    reply.next = in.next;
    reply.after = (ProtobufCBinaryData){last.bytes, last.data};
    reply.checksum = in.checksum;
    fx_reply(group->fx, message, proto_pack(&reply), (struct slice){0});
    slice_drop(&last);
    return ERR_OK;
}

/* What was received so far is left over. */
static void receive_give_up(struct group *group)
{
    CHECK(group->in.flush == 0);
    group->in = (struct snapshot_in){0};
    group->leftover = true;
}

static enum err piece_check(const struct group *group, const struct message *message, const Cairn__SnapshotPiece *piece)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    struct raft_status status = raft_status(group->raft);
    if (piece->cluster.len != 16 || memcmp(piece->cluster.data, bootstrap->cluster.uuid.bytes, 16) != 0 ||
        piece->cluster_incarnation != bootstrap->cluster_incarnation) {
        return ERR_WRONG_CLUSTER;
    }
    if (piece->group != group->params.group || piece->from != message->peer.id) {
        return ERR_WRONG_GROUP;
    }
    if (piece->index == 0 || piece->index_term == 0 || piece->index_term > piece->term) {
        return ERR_INVALID;
    }
    if (piece->mends) {
        bool leads = group->in.from != 0 && !group->in.mends; /* the leader's own goes first */
        uint64_t least = status.lost ? status.base : status.hole;
        bool asked = group->heal.snapshot_from == piece->from && least != 0 && piece->index >= least;
        return leads || !asked || piece->index_term > status.term ? ERR_CONFLICT : ERR_OK;
    }
    /* only a follower of the sender, in its term, may be told what is committed */
    bool follows = status.role == RAFT_FOLLOWER && status.leader == piece->from && status.term == piece->term;
    if (status.role != RAFT_LEADER && status.leader == 0 && status.term <= piece->term) {
        return ERR_NOT_READY; /* it has heard of no leader yet */
    }
    bool helps = !status.lost || piece->index >= status.base;
    return follows && helps ? ERR_OK : ERR_CONFLICT;
}

static void receive_begin(struct group *group, const Cairn__SnapshotPiece *piece)
{
    if (group->in.from != 0) {
        receive_give_up(group);
    }
    CHECK(group->view_next < UINT32_MAX - 1);
    group->in = (struct snapshot_in){.from = piece->from,
                                     .id = piece->id,
                                     .index = piece->index,
                                     .index_term = piece->index_term,
                                     .view = ++group->view_next,
                                     .mends = piece->mends,
                                     .their_view = piece->view};
}

/* Writes the pairs under the view that is received. The last key is borrowed from them. */
static enum err receive_pairs(struct group *group, struct slice pairs, struct slice *ret_last)
{
    struct reader reader = reader_of(pairs.data, pairs.bytes);
    uint8_t prefix[8];
    put_be32(prefix, group->params.group);
    put_be32(prefix + 4, group->in.their_view);
    while (reader.left > 0) {
        struct slice key = {0}, value = {0};
        enum err err = kv_pair_get(&reader, &key, &value);
        bool own_record = key.bytes == 9 && key.data[8] == 0; /* standing.c */
        if (err != ERR_OK || key.bytes < 9 || own_record || memcmp(key.data, prefix, sizeof prefix) != 0) {
            return ERR_BAD_PROTO;
        }
        uint8_t own[KV_KEY_BYTES];
        memcpy(own, key.data, key.bytes);
        put_be32(own + 4, group->in.view);
        kv_batch_put(group->state.kv->batch, own, key.bytes, value.data, value.bytes);
        *ret_last = key;
    }
    return ERR_OK;
}

/* All pieces are there: the view received becomes the one in force, in memory at once, on disk with the flush. */
static enum err receive_switch(struct group *group, const struct message *message)
{
    struct snapshot_in *in = &group->in;
    group_settle(group);
    struct state before = group->state;
    struct standing at = {0};
    group->state.group.view = in->view;
    enum err err = standing_read(group, &at);
    if (err != ERR_OK || at.applied != in->index || at.term != in->index_term) {
        group->state = before;
        return ERR_BAD_PROTO;
    }
    if (at.config.index != group->at.config.index) { /* who was stale may have rejoined since; else it is held to */
        identity_forget(group);
    }
    standing_switch(group, in->view, in->index, in->index_term);
    group->at = at;
    in->config = at.config;
    in->answer = *message;
    in->answer.header = in->answer.body = (struct slice){0};
    in->flush = ++group->flush_number;
    return ERR_OK;
}

static enum err receive_piece(struct group *group, const struct message *message, const Cairn__SnapshotPiece *piece)
{
    struct snapshot_in *in = &group->in;
    if (in->flush != 0) {
        bool same = in->from == piece->from && in->id == piece->id && piece->last;
        in->answer.from = same ? message->from : in->answer.from; /* sent again: answered here, once durable */
        in->answer.stream = same ? message->stream : in->answer.stream;
        return same ? ERR_OK : ERR_BUSY;
    }
    if (piece->index <= group->at.applied) {
        receive_answer(group, message, piece->piece + 1, true);
        return ERR_OK;
    }
    if (piece->piece == 0 && (in->from != piece->from || in->id != piece->id)) {
        if (group->reset_due) {
            return ERR_BUSY; /* the one before is not done with the log */
        }
        receive_begin(group, piece);
    }
    if (in->from != piece->from || in->id != piece->id) {
        return ERR_CONFLICT;
    }
    in->by_ns = group->event->now_ns + (in->mends ? SNAPSHOT_MENDS_NS : SNAPSHOT_SILENT_NS);
    if (piece->piece > in->next) {
        return receive_answer_behind(group, message);
    }
    if (piece->piece < in->next) { /* taken before; its answer was lost */
        receive_answer(group, message, piece->piece + 1, false);
        return ERR_OK;
    }
    if (crc32c(in->checksum, message->body.data, message->body.bytes) != piece->checksum) {
        return ERR_BAD_PROTO;
    }
    if (piece->last) {
        return receive_switch(group, message);
    }
    struct slice last = {0};
    enum err err = receive_pairs(group, message->body, &last);
    if (err == ERR_OK) {
        group->heal.snapshot_by_ns = in->mends ? in->by_ns : 0;
        in->checksum = piece->checksum;
        in->next++;
        if (!in->mends) {
            standing_received(group, last);
        }
        group->applied_since_flush++; /* it comes to the disk as what is applied does */
        group->applied_bytes_since_flush += message->body.bytes;
        receive_answer(group, message, in->next, false);
    }
    return err;
}

void snapshot_receive(struct group *group, const struct message *message)
{
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    enum err err = proto_unpack(&cairn__snapshot_piece__descriptor, message->header, &arena, &unpacked);
    if (err == ERR_OK) {
        err = piece_check(group, message, unpacked);
    }
    if (err == ERR_OK) {
        err = receive_piece(group, message, unpacked);
    }
    if (err == ERR_BAD_PROTO && group->in.from != 0 && group->in.flush == 0) {
        receive_give_up(group);
    }
    if (err != ERR_OK) {
        group->refused[err]++;
        group_refuse(group, message, err, NULL);
    }
    proto_arena_deinit(&arena);
}

void snapshot_receive_tick(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    bool stranger = status.leader != 0 && status.leader != group->in.from && !group->in.mends;
    bool silent = group->event->now_ns >= group->in.by_ns; /* its sender is gone */
    if (group->in.from != 0 && group->in.flush == 0 && (stranger || silent)) {
        receive_give_up(group);
    }
}

void snapshot_receive_flushed(struct group *group, uint64_t flush)
{
    struct snapshot_in in = group->in;
    if (in.flush == 0 || in.flush != flush) {
        return;
    }
    group->in = (struct snapshot_in){0};
    group->flushed_applied = in.index;
    struct raft_event installed = {.kind = RAFT_EVENT_INSTALLED,
                                   .random = group->event->random,
                                   .index = in.index,
                                   .term = in.index_term,
                                   .config = &in.config.config,
                                   .config_index = in.config.index};
    group_raft(group, &installed);
    heal_passed(group, in.index);
    if (group->phase == GROUP_RUNNING && group->reset_number == 0) { /* Raft's log holds the snapshot's last entry */
        group->reset_number = group->persist_number;
        if (group->persisted_number == group->persist_number) {
            standing_reset_done(group); /* and the one on disk */
        }
    }
    receive_answer(group, &in.answer, in.next + 1, true);
    if (group->params.group == 0) {
        group_share_root(group);
    }
}
