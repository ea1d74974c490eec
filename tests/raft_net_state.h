/* What the harness of raft_net.h is made of: nodes, logs in memory, the bag, the trace. */
#ifndef CAIRN_TESTS_RAFT_NET_STATE_H
#define CAIRN_TESTS_RAFT_NET_STATE_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "raft/raft.h"

#define NET_NODES   7
#define NET_ENTRIES 6000
#define NET_TERMS   6000
#define NET_BAG     4096
#define NET_READS   4096
#define NET_CONFIGS 4096

struct net_entry {
    uint64_t term, value; /* of a CONFIG entry: its place in net->configs */
    uint8_t type;
    uint32_t bytes;
};
struct net_log {
    struct net_entry *entries; /* [0] is index 1; what is at or below base is gone */
    uint64_t base, base_term, last;
};
/* What the host is asked to bring from one node to another. */
struct net_snapshot {
    uint32_t from, to;
    uint64_t index, term; /* of the state it was made from */
};
struct net_write {
    uint64_t number;
    bool hard_changed, reset;
    uint64_t reset_index, reset_term;
    struct raft_hard_state hard;
    uint64_t first;
    struct net_entry *entries;
    uint32_t count;
};
struct net_node {
    struct raft *raft;
    struct raft_hard_state hard; /* durable */
    struct net_log disk, view;   /* durable; and with what is being written */
    struct net_write *writes;
    unsigned long write_count, write_capacity;
    uint64_t applied, flushed; /* delivered; and durable in the machine */
    bool lost;                 /* the machine holds less than the log's beginning (R-E5) */
    bool hole_met;             /* by a running node: it knows what stood there, were it a configuration */
    uint64_t rotten;           /* an applied entry that cannot be read back, 0 none */
    uint64_t hole;             /* rot: an entry of the disk that cannot be read, 0 none */
    uint64_t load_first;
    uint32_t load_count;
    struct raft_update update; /* scalars of the last step */
};
struct net_read {
    uint64_t id, floor, index;
    uint32_t node;
    bool done;
    enum err err;
};
struct net {
    uint32_t count;
    struct raft_params params;
    struct net_node nodes[NET_NODES];
    struct raft_message bag[NET_BAG];
    uint32_t bag_count;
    struct raft_config first; /* the one the group began with */
    struct raft_config configs[NET_CONFIGS];
    uint32_t config_count;
    struct net_snapshot snapshots[NET_NODES * NET_NODES];
    uint32_t snapshot_count;
    struct net_entry *committed; /* [0] is index 1 */
    uint64_t committed_last;
    uint32_t *leaders; /* by term */
    uint32_t (*votes)[NET_NODES];
    uint64_t (*previous)[8];     /* by index: term of the entry before, for each in seen */
    struct net_entry (*seen)[8]; /* by index: entries written there, one a term (the first 8) */
    uint8_t *seen_count;
    struct net_read reads[NET_READS];
    uint32_t read_count;
    uint64_t next_value, random;
    uint64_t truncations, loads, deliveries, elections, reads_ok, installs, resets, rollbacks, changes, transfers;
    bool quiet;
    char *trace;
    size_t trace_bytes, trace_capacity, mark;
};

static inline uint64_t net_random(struct net *net)
{
    uint64_t x = net->random += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static inline __attribute__((format(printf, 2, 3))) void net_trace(struct net *net, const char *format, ...)
{
    if (net->quiet) {
        return;
    }
    char line[256];
    va_list args;
    va_start(args, format);
    int bytes = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    line[bytes++] = '\n';
    if (net->trace_bytes + (size_t)bytes + 1 > net->trace_capacity) {
        net->trace_capacity = (net->trace_capacity + (size_t)bytes + 1) * 2;
        net->trace = realloc(net->trace, net->trace_capacity);
        CHECK(net->trace != NULL);
    }
    memcpy(net->trace + net->trace_bytes, line, (size_t)bytes);
    net->trace_bytes += (size_t)bytes;
    net->trace[net->trace_bytes] = 0;
}

/* The trace since net_mark holds this text. */
static inline bool net_traced(const struct net *net, const char *text)
{
    return net->trace != NULL && strstr(net->trace + net->mark, text) != NULL;
}
static inline void net_mark(struct net *net)
{
    net->mark = net->trace_bytes;
}

/* ---- logs in memory ---- */

static inline void net_log_put(struct net_log *log, uint64_t index, struct net_entry entry)
{
    CHECK(index > log->base && index <= log->last + 1 && index <= NET_ENTRIES);
    log->entries[index - 1] = entry;
    log->last = index;
}

static inline void net_log_reset(struct net_log *log, uint64_t index, uint64_t term)
{
    log->base = log->last = index;
    log->base_term = term;
}

/* Term of an entry from the base on; 0 of others. */
static inline uint64_t net_log_term(const struct net_log *log, uint64_t index)
{
    if (index == log->base) {
        return log->base_term;
    }
    return index > log->base && index <= log->last ? log->entries[index - 1].term : 0;
}

static inline uint64_t net_config_place(struct net *net, const struct raft_config *config)
{
    for (uint32_t i = 0; i < net->config_count; i++) {
        bool same = net->configs[i].count == config->count;
        for (uint32_t j = 0; j < config->count && same; j++) {
            same = net->configs[i].members[j].node == config->members[j].node &&
                   net->configs[i].members[j].roles == config->members[j].roles;
        }
        if (same) {
            return i;
        }
    }
    CHECK(net->config_count < NET_CONFIGS);
    net->configs[net->config_count] = *config;
    return net->config_count++;
}

static inline struct net_entry net_entry_of(struct net *net, const struct raft_entry *entry)
{
    struct net_entry e = {.term = entry->term, .type = entry->type, .bytes = entry->data.bytes};
    if (entry->type == RAFT_ENTRY_CONFIG) {
        struct raft_config config;
        enum err err = raft_config_decode(entry->data, &config);
        CHECK(err == ERR_OK);
        e.value = net_config_place(net, &config);
    } else {
        e.value = entry->data.bytes >= 8 ? get_u64(entry->data.data) : 0;
    }
    return e;
}

static inline struct raft_entry net_entry_make(const struct net *net, struct net_entry e, uint64_t index)
{
    if (e.type == RAFT_ENTRY_CONFIG) {
        return (struct raft_entry){
            .index = index, .term = e.term, .type = e.type, .data = raft_config_encode(&net->configs[e.value])};
    }
    struct raft_entry entry = {.index = index, .term = e.term, .type = e.type, .data = slice_alloc(e.bytes)};
    if (e.bytes > 0) {
        memset(entry.data.data, 0, e.bytes);
    }
    if (e.bytes >= 8) {
        put_u64(entry.data.data, e.value);
    }
    return entry;
}

static inline bool net_entry_equal(struct net_entry a, struct net_entry b)
{
    return a.term == b.term && a.value == b.value && a.type == b.type && a.bytes == b.bytes;
}

#endif
