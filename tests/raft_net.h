/* A few Raft instances, a bag of messages, and disks in memory: the harness of the Raft transcripts and of the random
 * test.
 *
 * Nothing happens by itself: the test delivers or drops messages, completes writes, loads and snapshots, ticks,
 * crashes. Each node's disk holds only what it was told durable; a crash loses the rest. After every step the harness
 * checks:
 *   N1 election safety: one leader a term (3.2)
 *   N2 log matching: (index, term) names one entry and one prefix
 *   N3 leader completeness: a new leader has all committed entries
 *   N4 state machine safety: all nodes apply the same entries, in order, without a gap
 *   N5 what a leader commits stands durably on a majority, of both halves while joint
 *   N6 one vote a term and node, durable before it is told; an acknowledged append is durable
 *   N7 a read is never answered below what was committed when it was asked
 *   N8 the configuration in force is the newest of the node's own log; who asks for votes has one in it or in one that
 *      it does not know to be replaced
 *   N9 a leader has one change of members under way at most
 * Every event leaves a line of text in `trace`, which transcripts assert. */
#ifndef CAIRN_TESTS_RAFT_NET_H
#define CAIRN_TESTS_RAFT_NET_H

#include "raft_net_check.h"
#include "raft_net_members.h"
#include "raft_net_run.h"
#include "raft_net_state.h"

#endif
