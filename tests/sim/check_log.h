/* The checker of a metad's log, fed by what groups and the log say to each other. For each node and group it keeps what
 * the log has acknowledged as durable and what it has been asked since:
 *   durability   after any crash the log opens with all it acknowledged, plus the entries of some first part of what it
 *                had been asked since; term and vote likewise
 *   integrity    what it reads back is what it was given
 *   order        acknowledgements of one group come in order
 *   promises     a vote, a request for votes and an acknowledged append leave a node only when the log has acknowledged
 *                what they promise: term, vote, entries (or its beginning behind them; a snapshot alone does not do, a
 *                database may be lost); who cannot read an entry, or says that its state is lost, does not lead (R-E1,
 *                R-E5)
 *   majority     what a leader has committed is durable on a majority
 *   agreement    what two nodes apply at an index is the same
 *
 * What it does not verify
 *   a log that opens unsure of itself: it takes no part; that an entry the log calls damaged is; the bytes of entries
 *   that nobody reads back; that a group might give up what it cuts (check_cut.h); what the log knows of others
 *   (LOG_PEERS); what is applied behind a snapshot (check/replicas.h); that anything is ever acknowledged; nodes from
 *   10 and groups from 2 on. */
#ifndef CAIRN_SIM_CHECK_LOG_H
#define CAIRN_SIM_CHECK_LOG_H

#include "proto/cairn.pb-c.h"
#include "raft/raft.h"
#include "world.h"

struct log_check;
struct log_check *log_check_create(struct world *world);
void log_check_destroy(struct log_check *check);
/* A node's directory is copied while it is down, and put back: then its log is to hold what the copy held. NULL:
 * nothing, it was emptied. */
struct log_copy;
struct log_copy *log_check_copy(const struct log_check *check, uint32_t node);
void log_check_put_back(struct log_check *check, uint32_t node, const struct log_copy *copy);
void log_copy_free(struct log_copy *copy);
/* A message of a metad is about to be sent; `m` as in raft_check_send (check_raft.h). */
void log_check_send(struct log_check *check, struct node *node, const struct actor *actor, const struct effect *effect,
                    const Cairn__RaftMessage *m);
struct raft_check;
/* Both checkers, Raft's first; the header is unpacked once. */
void metad_check_send(struct raft_check *raft, struct log_check *log, struct node *node, const struct actor *actor,
                      const struct effect *effect);
/* The node's log has the entry at this index, or begins behind it, durably. */
bool log_check_holds(const struct log_check *check, uint32_t node, uint32_t g, uint64_t index);
/* After a step of a node that leads the group: its commit index is durable on a majority of the members before the step
 * or of those after it; on majorities of both halves of a joint configuration. */
void log_check_commit(struct log_check *check, uint32_t group, const struct raft_config *before,
                      const struct raft_config *after, uint64_t commit);
/* After a step: the node's log begins behind `base`, and it has applied up to `applied`. */
void log_check_agree(struct log_check *check, uint32_t node, uint32_t group, uint64_t base, uint64_t applied);
/* After a step in which a leader appended a configuration: it has committed in its term, and who becomes a voter is
 * caught up (4.1, 4.2.1). */
void log_check_config(struct log_check *check, uint32_t group, const struct raft_config *before,
                      const struct raft_status *leader);
uint64_t log_check_reopened(const struct log_check *check);

#endif
