/* A small host of Raft for the `log` scenario: a group actor (ACTOR_GROUP) over the node's real log actor, with a
 * machine that only counts: it commits the applied index to the database and flushes now and then. What it is told and
 * what it sends is what metad's group does; what it applies it shows to a watcher. */
#ifndef CAIRN_SIM_GROUP_HOST_H
#define CAIRN_SIM_GROUP_HOST_H

#include "base/effect.h"
#include "base/kv.h"
#include "raft/raft.h"

/* A proposal: a local message of this type whose body is the entry's data and whose stream names it. */
#define HOST_PROPOSE 66
/* A read: answered to the watcher with the index applied, after a ReadIndex. */
#define HOST_READ 71

struct host_watch {
    void *context;
    /* An entry is applied; in order for one run of the actor. */
    void (*applied)(void *context, uint32_t node, uint32_t group, const struct raft_entry *entry);
    /* The run starts at this applied index. */
    void (*opened)(void *context, uint32_t node, uint32_t group, uint64_t applied);
    /* The log cannot tell what the node promised: it takes no part until it is started again. */
    void (*unsure)(void *context, uint32_t node, uint32_t group);
    /* The proposal is committed at an index: its caller is told so. */
    void (*acknowledged)(void *context, uint32_t group, uint64_t proposal, uint64_t index);
    /* A read that was asked when `asked` was acknowledged is answered with state `index`. */
    void (*read)(void *context, uint32_t group, uint64_t read, uint64_t index);
};

struct host_params {
    uint32_t group, self;
    uint32_t members[LIMIT_RAFT_MEMBERS];
    uint32_t member_count;
    uint64_t tick_ns;
    uint64_t cache_bytes;
    struct kv_view *kv;
    const struct host_watch *watch; /* borrowed */
};

struct host;
struct host *host_create(const struct host_params *params);
void host_destroy(void *host);
actor_step host_step;
/* False until the log was opened. */
bool host_status(const struct host *host, struct raft_status *ret_status);

#endif
