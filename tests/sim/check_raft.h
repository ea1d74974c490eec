/* The checker of Raft's promises, fed by what nodes send to each other and by what machines apply (dissertation, figure
 * 3.2). For each group:
 *   election safety    one node leads a term, and a node gives one vote a term, across its crashes
 *   log matching       an (index, term) names one entry, wherever it is seen
 *   state machines     every node applies the same entries, in order, from where it had durably applied
 *   acknowledgement    an acknowledged proposal is committed as it was proposed, and stays
 *   reads              a ReadIndex sees all that was acknowledged before it was asked
 *   promises           a node never speaks in a term below one it promised something in before a crash
 *   commit             a leader moves its commit index only to entries of its own term (3.6.2), and never back
 *
 * What it does not verify
 *   that what a node promises is durable, or on a majority (check_log.h); that a vote goes only to whose log is as new,
 *   but by what comes of it; a leader that sends nothing; changes of members (check_log.h); what a snapshot brings
 *   (check/replicas.h); that anything is ever elected or committed; nodes from 10 and groups from 2 on. */
#ifndef CAIRN_SIM_CHECK_RAFT_H
#define CAIRN_SIM_CHECK_RAFT_H

#include "proto/cairn.pb-c.h"
#include "raft/raft.h"
#include "world.h"

#define RAFT_CHECK_GROUPS 2

struct raft_check;
struct raft_check *raft_check_create(struct world *world);
void raft_check_destroy(struct raft_check *check);

/* A message between nodes is about to be sent; `m` is its header when that is of RAFT and decodes, or NULL. */
void raft_check_send(struct raft_check *check, struct node *node, const struct effect *effect,
                     const Cairn__RaftMessage *m);
/* A node's machine starts with `applied`, and applies. */
void raft_check_opened(struct raft_check *check, uint32_t node, uint32_t group, uint64_t applied);
void raft_check_applied(struct raft_check *check, uint32_t node, uint32_t group, const struct raft_entry *entry);
/* A proposal with these bytes is made, and acknowledged at an index. */
uint64_t raft_check_propose(struct raft_check *check, uint32_t group, struct slice data);
void raft_check_acknowledged(struct raft_check *check, uint32_t group, uint64_t proposal, uint64_t index);
/* A read is asked (its number is returned) and answered from a state. */
uint64_t raft_check_read_asked(struct raft_check *check, uint32_t group);
void raft_check_read_answered(struct raft_check *check, uint32_t group, uint64_t read, uint64_t index);

/* The node's directory is an older one, or empty: it has forgotten what it promised. */
void raft_check_forget(struct raft_check *check, uint32_t node);

/* After each step of a node's group: where it stands. */
void raft_check_status(struct raft_check *check, const struct node *node, uint32_t group,
                       const struct raft_status *status);

uint64_t raft_check_committed(const struct raft_check *check, uint32_t group);
uint64_t raft_check_acknowledgements(const struct raft_check *check, uint32_t group);
uint64_t raft_check_reads(const struct raft_check *check);
uint64_t raft_check_node_applied(const struct raft_check *check, uint32_t node, uint32_t group);

/* A 64-bit name of an entry's type and data, for comparing. */
uint64_t raft_entry_name(const struct raft_entry *entry);

#endif
