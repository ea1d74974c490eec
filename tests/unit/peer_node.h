/* A metadata node of three whose peers the test plays: what they say, what it tells them. This node is 1.
 * Above group_node.h, no disk or network below it. A refusal is returned as its code; what else goes wrong fails the
 * test. */
#ifndef CAIRN_TESTS_PEER_NODE_H
#define CAIRN_TESTS_PEER_NODE_H

#include "group_node.h"

static inline void start(struct node *node)
{
    node_make(node, 3);
    node_start(node);
}

/* One frame of a peer; what it was refused with, if so. */
static inline enum err peer_says(struct node *node, uint32_t group, uint32_t from, Cairn__RaftMessage message)
{
    node_answer_drop(node);
    message.group = group;
    message.cluster = (ProtobufCBinaryData){16, node->bootstrap.cluster.uuid.bytes};
    message.cluster_incarnation = 1;
    message.from = from;
    struct event event = {.kind = EVENT_MESSAGE};
    event.message = (struct message){.from = {.role = ROLE_METAD, .node = from, .conn = 9},
                                     .peer = {ROLE_METAD, from},
                                     .type = MESSAGE_RAFT,
                                     .stream = ++node->stream,
                                     .header = proto_pack(&message)};
    node_step(node, group, event);
    slice_drop(&event.message.header);
    node_drain(node);
    uint32_t leader = 0;
    return node->answered ? error_reply_decode(node->header, &leader) : ERR_OK;
}

static inline Cairn__RaftMessage message_of(uint32_t kind, uint64_t term)
{
    Cairn__RaftMessage message = CAIRN__RAFT_MESSAGE__INIT;
    message.kind = kind;
    message.term = term;
    return message;
}

/* Node 2 votes for this node and holds all of its log: it leads, and is ready. */
static inline void lead(struct node *node, uint32_t group)
{
    for (int i = 0; i < 200 && group_status(node->groups[group]).role != RAFT_LEADER; i++) {
        struct raft_status now = group_status(node->groups[group]);
        bool asks = now.role == RAFT_PRE_CANDIDATE;
        if (now.role == RAFT_PRE_CANDIDATE || now.role == RAFT_CANDIDATE) {
            Cairn__RaftMessage vote =
                message_of(asks ? RAFT_PRE_VOTE_REPLY : RAFT_VOTE_REPLY, asks ? now.term + 1 : now.term);
            assert_int_equal(peer_says(node, group, 2, vote), ERR_OK);
        }
        node_ticks(node, 1);
    }
    assert_int_equal(group_status(node->groups[group]).role, RAFT_LEADER);
}

#endif
