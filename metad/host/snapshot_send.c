/* Bringing a follower a snapshot: the group's whole key prefix as it stood at one applied index, read on a helper from
 * a pinned state of the database, piece after piece, while the group goes on.
 *
 * Happy path: Raft names a peer whose next entry the log has no more -> the database is pinned behind the step's commit
 * -> KV_SCAN gives a piece -> SNAPSHOT to the peer -> it answers which piece it wants next -> ... -> the last piece has
 * no pairs; its answer says that the state is durable there, and Raft hears SNAPSHOT_DONE.
 *
 * Failure: a piece without an answer, or that comes to a peer that is just starting, is sent again, also on a new
 * connection. A peer that crashed says behind which key it goes on. After TRIES, or when a piece is refused (the peer
 * began anew, or follows another leader), Raft hears that it failed and asks again when the peer answers. */
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/group.h"

#define PIECE_BYTES (1u << 20)
#define AGAIN_NS    3000000000ull
#define TRIES       10u

static void out_release(struct group *group, struct snapshot_out *out)
{
    CHECK(!out->scanning);
    slice_drop(&out->from);
    slice_drop(&out->body);
    if (group->fx != NULL) {
        fx_kv_unpin(group->fx, out->pin);
    }
    *out = (struct snapshot_out){0};
}

/* The pin cannot go while a scan of it is out. */
static void out_end(struct group *group, struct snapshot_out *out)
{
    out->ending = true;
    if (!out->scanning) {
        out_release(group, out);
    }
}

static void raft_tell(struct group *group, uint32_t peer, bool ok, uint64_t index)
{
    struct raft_event done = {
        .kind = RAFT_EVENT_SNAPSHOT_DONE, .random = group->event->random, .peer = peer, .ok = ok, .index = index};
    group_raft(group, &done);
}

static void out_finish(struct group *group, struct snapshot_out *out, bool ok)
{
    uint32_t peer = out->peer;
    uint64_t index = out->index;
    bool mends = out->mends;
    out_end(group, out);
    if (!mends) {
        raft_tell(group, peer, ok, index);
    }
}

static void out_scan(struct group *group, struct snapshot_out *out)
{
    CHECK(!out->scanning && out->body.bytes == 0);
    uint8_t end[8];
    put_be32(end, group->params.group);
    put_be32(end + 4, out->view + 1);
    out->scanning = true;
    uint32_t bytes = group->params.piece_bytes != 0 ? group->params.piece_bytes : PIECE_BYTES;
    fx_kv_scan(group->fx, TOKEN_SCAN | out->pin, out->pin, slice_ref(out->from), slice_copy(end, sizeof end), bytes);
}

static void out_send(struct group *group, struct snapshot_out *out)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    Cairn__SnapshotPiece piece = CAIRN__SNAPSHOT_PIECE__INIT;
    piece.group = group->params.group;
    piece.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)bootstrap->cluster.uuid.bytes};
    piece.cluster_incarnation = bootstrap->cluster_incarnation;
    piece.from = group->params.self;
    piece.term = raft_status(group->raft).term;
    piece.id = out->id;
    piece.index = out->index;
    piece.index_term = out->index_term;
    piece.view = out->view;
    piece.piece = out->piece;
    piece.checksum = out->checksum;
    piece.last = out->last;
    piece.mends = out->mends;
    out->stream = ++group->snapshot_number;
    out->sent_ns = group->event->now_ns;
    out->tries++;
    fx_send(group->fx, address_node(ROLE_METAD, out->peer, ACTOR_GROUP, group->params.group), MESSAGE_SNAPSHOT,
            out->stream, proto_pack(&piece), slice_ref(out->body));
}

void snapshot_wanted(struct group *group, uint32_t peer, bool mends)
{
    bool known = false;
    for (uint32_t i = 0; i < SNAPSHOTS_OUT && mends; i++) {
        known = known || (group->out[i].peer == peer && !group->out[i].ending);
    }
    for (uint32_t i = 0; i < group->wanted_count && mends; i++) {
        known = known || group->wanted[i].peer == peer;
    }
    if (!known) {
        CHECK(group->wanted_count < sizeof group->wanted / sizeof *group->wanted);
        group->wanted[group->wanted_count++] = (struct snapshot_want){.peer = peer, .mends = mends};
    }
}

static struct snapshot_out *out_free(struct group *group)
{
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        if (group->out[i].peer == 0) {
            return &group->out[i];
        }
    }
    return NULL;
}

void snapshot_send_start(struct group *group)
{
    bool leads = raft_role(group->raft) == RAFT_LEADER;
    uint32_t count = group->wanted_count;
    struct snapshot_want wanted[sizeof group->wanted / sizeof *group->wanted];
    memcpy(wanted, group->wanted, sizeof wanted);
    group->wanted_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct snapshot_out *out = out_free(group);
        if (!leads && !wanted[i].mends) {
            continue;
        }
        if (out == NULL) {
            group->wanted[group->wanted_count++] = wanted[i]; /* waits for its turn */
            continue;
        }
        uint8_t from[8];
        put_be32(from, group->params.group);
        put_be32(from + 4, group->view);
        *out = (struct snapshot_out){.peer = wanted[i].peer,
                                     .mends = wanted[i].mends,
                                     .id = group->event->random ^ (group->snapshot_number << 1),
                                     .pin = ++group->snapshot_number,
                                     .index = group->at.applied,
                                     .index_term = group->at.term,
                                     .view = group->view,
                                     .from = slice_copy(from, sizeof from)};
        out_scan(group, out);
    }
}

/* The key behind the last of the pairs. */
static struct slice pairs_behind(struct slice pairs)
{
    struct reader reader = reader_of(pairs.data, pairs.bytes);
    struct slice key = {0}, value = {0};
    while (reader.left > 0) {
        enum err err = kv_pair_get(&reader, &key, &value);
        CHECK(err == ERR_OK);
    }
    struct slice behind = slice_alloc(key.bytes + 1);
    memcpy(behind.data, key.data, key.bytes);
    behind.data[key.bytes] = 0;
    return behind;
}

void snapshot_send_scanned(struct group *group, uint64_t pin, struct slice pairs)
{
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        struct snapshot_out *out = &group->out[i];
        if (out->peer == 0 || out->pin != pin) {
            continue;
        }
        CHECK(out->scanning);
        out->scanning = false;
        if (out->ending) {
            out_release(group, out);
            return;
        }
        out->last = pairs.bytes == 0;
        if (!out->last) {
            out->body = slice_ref(pairs);
            out->checksum = crc32c(out->checksum, pairs.data, pairs.bytes);
            slice_drop(&out->from);
            out->from = pairs_behind(pairs);
        }
        out->tries = 0;
        out_send(group, out);
        return;
    }
}

/* The peer has less than it had: on from there. False when what it says cannot be. */
static bool out_go_back(struct group *group, struct snapshot_out *out, const Cairn__SnapshotReply *reply)
{
    uint8_t prefix[8];
    put_be32(prefix, group->params.group);
    put_be32(prefix + 4, out->view);
    if (reply->next == 0 || reply->next >= out->piece || reply->after.len < 9 || reply->after.len > KV_KEY_BYTES ||
        memcmp(reply->after.data, prefix, sizeof prefix) != 0) {
        return false;
    }
    slice_drop(&out->from);
    slice_drop(&out->body);
    out->from = slice_alloc(reply->after.len + 1);
    memcpy(out->from.data, reply->after.data, reply->after.len);
    out->from.data[reply->after.len] = 0;
    out->piece = reply->next;
    out->checksum = reply->checksum;
    out->last = false;
    out_scan(group, out);
    return true;
}

void snapshot_send_answered(struct group *group, const struct message *message)
{
    struct snapshot_out *out = NULL;
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        struct snapshot_out *one = &group->out[i];
        if (one->peer != 0 && !one->scanning && !one->ending && one->stream == message->stream) {
            out = one;
        }
    }
    if (out == NULL) {
        return; /* of a piece that was sent again, or of a snapshot given up */
    }
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    uint32_t leader = 0;
    enum err err = message->flags & MESSAGE_ERROR
                       ? error_reply_decode(message->header, &leader)
                       : proto_unpack(&cairn__snapshot_reply__descriptor, message->header, &arena, &unpacked);
    const Cairn__SnapshotReply *reply = unpacked;
    if (err == ERR_OK && reply->installed) {
        out_finish(group, out, true);
    } else if (err == ERR_OK && reply->after.len > 0) {
        if (!out_go_back(group, out, reply)) {
            out_finish(group, out, false);
        }
    } else if (err == ERR_OK && !out->last && reply->next == out->piece + 1) {
        slice_drop(&out->body);
        out->piece++;
        out_scan(group, out);
    } else if (err != ERR_NOT_READY) { /* then it is sent again */
        out_finish(group, out, false);
    }
    proto_arena_deinit(&arena);
}

void snapshot_send_tick(struct group *group)
{
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        struct snapshot_out *out = &group->out[i];
        if (out->peer == 0 || out->scanning || group->event->now_ns < out->sent_ns + AGAIN_NS) {
            continue;
        }
        if (out->tries >= TRIES) {
            out_finish(group, out, false);
        } else {
            out_send(group, out);
        }
    }
}

void snapshot_send_forget(struct group *group, uint32_t peer)
{
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        if (group->out[i].peer == peer && !group->out[i].mends && !group->out[i].ending) {
            out_end(group, &group->out[i]);
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < group->wanted_count; i++) {
        if (group->wanted[i].mends || group->wanted[i].peer != peer) {
            group->wanted[kept++] = group->wanted[i];
        }
    }
    group->wanted_count = kept;
}

void snapshot_send_end(struct group *group)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < group->wanted_count; i++) {
        if (group->wanted[i].mends) {
            group->wanted[kept++] = group->wanted[i];
        }
    }
    group->wanted_count = kept;
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        if (group->out[i].peer != 0 && !group->out[i].mends) {
            out_end(group, &group->out[i]);
        }
    }
}

void snapshot_send_deinit(struct group *group)
{
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        slice_drop(&group->out[i].from);
        slice_drop(&group->out[i].body);
    }
}

uint64_t snapshot_send_floor(const struct group *group)
{
    uint64_t floor = UINT64_MAX;
    for (uint32_t i = 0; i < SNAPSHOTS_OUT; i++) {
        if (group->out[i].peer != 0 && group->out[i].index < floor) {
            floor = group->out[i].index;
        }
    }
    return floor;
}
