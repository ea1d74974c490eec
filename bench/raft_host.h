/* A Raft group with hardly a machine behind it, for measuring consensus alone: the real raft, log, network and disk, a
 * machine that does nothing with a proposal or puts one key. Proposals are PUT_SMALL frames with an empty header and
 * the proposal as body; the answer is empty, or an ErrorReply with NOT_LEADER or BUSY. */
#ifndef CAIRN_BENCH_RAFT_HOST_H
#define CAIRN_BENCH_RAFT_HOST_H

#include "base/effect.h"
#include "base/kv.h"
#include "metad/shell/config.h"

struct raft_host_params {
    const struct metad_config *config; /* borrowed: node, cluster, members */
    struct kv_view *kv;                /* NULL: proposals change nothing; else each puts one key */
    uint64_t tick_ns;
};

struct raft_host;
struct raft_host *raft_host_create(const struct raft_host_params *params);
void raft_host_destroy(struct raft_host *host);
actor_step raft_host_step; /* actor: struct raft_host, ACTOR_GROUP 0 */

#endif
