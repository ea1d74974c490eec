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

/* ---- the checks ---- */

static inline void net_check_matching(struct net *net, uint64_t index, struct net_entry entry, uint64_t previous)
{
    uint8_t count = net->seen_count[index - 1];
    for (uint8_t i = 0; i < count; i++) {
        if (net->seen[index - 1][i].term == entry.term) {
            CHECK(net_entry_equal(net->seen[index - 1][i], entry)); /* N2 */
            CHECK(net->previous[index - 1][i] == previous);         /* N2 */
            return;
        }
    }
    if (count < 8) {
        net->seen[index - 1][count] = entry;
        net->previous[index - 1][count] = previous;
        net->seen_count[index - 1]++;
    }
}

static inline void net_check_leader(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    struct raft_status status = raft_status(self->raft);
    CHECK(status.term < NET_TERMS);
    if (net->leaders[status.term] == node) {
        return;
    }
    CHECK(net->leaders[status.term] == 0); /* N1 */
    net->leaders[status.term] = node;
    net->elections++;
    for (uint64_t i = self->view.base + 1; i <= net->committed_last; i++) {
        CHECK(self->view.last >= i && self->view.entries[i - 1].term == net->committed[i - 1].term); /* N3 */
    }
}

static inline void net_check_committed(struct net *net, uint64_t index, struct net_entry entry)
{
    if (index <= net->committed_last) {
        CHECK(net_entry_equal(net->committed[index - 1], entry)); /* N4 */
        return;
    }
    CHECK(index == net->committed_last + 1);
    net->committed[index - 1] = entry;
    net->committed_last = index;
}

static inline bool net_holds(const struct net_node *node, uint64_t index, struct net_entry entry)
{
    const struct net_log *disk = &node->disk;
    bool in_log = index > disk->base && index <= disk->last && net_entry_equal(disk->entries[index - 1], entry);
    /* or in the state of its machine, which N4 compares; where that was lost, its log had begun behind it */
    return in_log || index <= node->flushed || index <= disk->base;
}

static inline void net_check_half(struct net *net, const struct raft_config *config, uint8_t role, uint64_t index,
                                  struct net_entry entry)
{
    uint32_t members = 0, holders = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        if (config->members[i].roles & role) {
            members++;
            holders += net_holds(&net->nodes[config->members[i].node - 1], index, entry);
        }
    }
    CHECK(members == 0 || holders >= members / 2 + 1); /* N5 */
}

/* A leader under `config` moved its commit index. */
static inline void net_check_majority(struct net *net, uint32_t node, const struct raft_config *config, uint64_t from,
                                      uint64_t to)
{
    const struct net_log *view = &net->nodes[node - 1].view;
    for (uint64_t i = from > view->base ? from + 1 : view->base + 1; i <= to; i++) {
        net_check_half(net, config, RAFT_VOTER, i, view->entries[i - 1]);
        net_check_half(net, config, RAFT_OUTGOING, i, view->entries[i - 1]);
    }
}

/* The configuration in force at `index` of the committed entries. */
static inline struct raft_config_at net_config_at(const struct net *net, uint64_t index)
{
    CHECK(index <= net->committed_last);
    for (uint64_t i = index; i >= 1; i--) {
        if (net->committed[i - 1].type == RAFT_ENTRY_CONFIG) {
            return (struct raft_config_at){.index = i, .config = net->configs[net->committed[i - 1].value]};
        }
    }
    return (struct raft_config_at){.config = net->first};
}

/* A voter of the configuration committed last, as far as it knows, or of one behind it in its log. */
static inline bool net_may_ask(const struct net *net, uint32_t node, uint64_t commit)
{
    const struct net_log *view = &net->nodes[node - 1].view;
    uint8_t roles = 0;
    bool known = false;
    for (uint64_t i = view->last; i > view->base && !known; i--) {
        if (view->entries[i - 1].type == RAFT_ENTRY_CONFIG) {
            roles |= raft_config_roles(&net->configs[view->entries[i - 1].value], node);
            known = i <= commit;
        }
    }
    if (!known) {
        struct raft_config_at first = net_config_at(net, view->base);
        roles |= raft_config_roles(&first.config, node);
    }
    return (roles & (RAFT_VOTER | RAFT_OUTGOING)) != 0;
}

static inline void net_check_config(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    struct raft_status status = raft_status(self->raft);
    const struct net_log *view = &self->view;
    uint64_t newest = 0, changes = 0;
    CHECK(status.last == view->last && status.base == view->base);
    for (uint64_t i = view->last; i > view->base; i--) {
        if (view->entries[i - 1].type == RAFT_ENTRY_CONFIG && (i != self->hole || self->hole_met)) {
            newest = newest != 0 ? newest : i;
            changes += i > status.commit && view->entries[i - 1].term == status.term;
        }
    }
    if (newest != 0) {
        CHECK(status.config.index == newest); /* N8 */
        CHECK(net_config_place(net, &status.config.config) == view->entries[newest - 1].value);
    } else if (view->base > 0 && !self->lost) {                             /* nobody told it */
        CHECK(status.config.index == net_config_at(net, view->base).index); /* N8 */
    }
    CHECK(status.role != RAFT_LEADER || changes <= 1); /* N9 */
    if (status.role == RAFT_CANDIDATE || status.role == RAFT_PRE_CANDIDATE) {
        CHECK(net_may_ask(net, node, status.commit)); /* N8 */
    }
}

static inline void net_check_promise(struct net *net, const struct raft_message *m)
{
    struct net_node *self = &net->nodes[m->from - 1];
    if (m->kind == RAFT_VOTE_REPLY && !m->reject) {
        uint32_t *vote = &net->votes[m->term][m->from - 1];
        CHECK(*vote == 0 || *vote == m->to); /* N6 */
        *vote = m->to;
        CHECK(self->hard.term == m->term && self->hard.vote == m->to); /* N6 */
    }
    if (m->kind == RAFT_VOTE) {
        CHECK(self->hard.term == m->term && self->hard.vote == m->from); /* N6 */
    }
    if (m->kind == RAFT_APPEND_REPLY && !m->reject) {
        CHECK(self->hole == 0 || m->log_index < self->hole); /* N6: what cannot be read is not acknowledged */
        CHECK((m->log_index <= self->disk.last || m->log_index <= self->flushed) &&
              self->hard.term >= m->term); /* N6 */
    }
}

/* ---- carrying out an update ---- */

static inline void net_message_drop(struct raft_message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        slice_drop(&m->entries[i].data);
    }
    free(m->entries);
    m->entries = NULL;
    m->count = 0;
}

static inline struct raft_message net_message_copy(const struct raft_message *m)
{
    struct raft_message copy = *m;
    copy.entries = m->count > 0 ? mem_alloc(m->count * sizeof *copy.entries) : NULL;
    for (uint32_t i = 0; i < m->count; i++) {
        copy.entries[i] = m->entries[i];
        copy.entries[i].data = slice_ref(m->entries[i].data);
    }
    return copy;
}

static inline const char *net_kind_name(uint8_t kind)
{
    static const char *const names[] = {
        "?",         "PRE_VOTE",        "PRE_VOTE_REPLY", "VOTE", "VOTE_REPLY", "APPEND", "APPEND_REPLY",
        "HEARTBEAT", "HEARTBEAT_REPLY", "TIMEOUT_NOW"};
    return kind < sizeof names / sizeof names[0] ? names[kind] : "?";
}

static inline void net_bag_put(struct net *net, const struct raft_message *m)
{
    net_trace(net, "%u>%u %s t%llu%s at %llu/%llu n%u commit %llu", m->from, m->to, net_kind_name(m->kind),
              (unsigned long long)m->term, m->reject ? " reject" : "", (unsigned long long)m->log_index,
              (unsigned long long)m->log_term, m->count, (unsigned long long)m->commit);
    net_check_promise(net, m);
    if (net->bag_count == NET_BAG) {
        return; /* lost: the network may */
    }
    net->bag[net->bag_count++] = net_message_copy(m);
}

static inline void net_write_put(struct net *net, uint32_t node, const struct raft_update *u)
{
    struct net_node *self = &net->nodes[node - 1];
    struct net_write write = {.number = u->number,
                              .hard_changed = u->hard_changed,
                              .hard = u->hard,
                              .reset = u->reset,
                              .reset_index = u->reset_index,
                              .reset_term = u->reset_term};
    if (u->reset) {
        CHECK(u->append_count == 0 && !u->hard_changed && u->reset_index <= self->flushed);
        net_log_reset(&self->view, u->reset_index, u->reset_term);
        net->resets++;
        net_trace(net, "%u: resets to %llu/%llu", node, (unsigned long long)u->reset_index,
                  (unsigned long long)u->reset_term);
    }
    write.count = u->append_count;
    write.entries = mem_alloc(u->append_count * sizeof *write.entries);
    write.first = u->append_count > 0 ? u->append[0].index : 0;
    for (uint32_t i = 0; i < u->append_count; i++) {
        CHECK(u->append[i].index == write.first + i);
        write.entries[i] = net_entry_of(net, &u->append[i]);
        if (i == 0 && write.first <= self->view.last) {
            net->truncations++;
            CHECK(write.first > self->applied);
            for (uint64_t j = write.first; j <= self->view.last; j++) {
                net->rollbacks += self->view.entries[j - 1].type == RAFT_ENTRY_CONFIG;
            }
            net_trace(net, "%u: cuts from %llu", node, (unsigned long long)write.first);
        }
        net_log_put(&self->view, write.first + i, write.entries[i]);
        net_check_matching(net, write.first + i, write.entries[i], net_log_term(&self->view, write.first + i - 1));
    }
    self->writes = mem_grow(self->writes, &self->write_capacity, self->write_count + 1, sizeof *self->writes);
    self->writes[self->write_count++] = write;
}

static inline void net_read_done(struct net *net, uint32_t node, const struct raft_read *answer)
{
    for (uint32_t i = 0; i < net->read_count; i++) {
        struct net_read *read = &net->reads[i];
        if (read->id == answer->read_id) {
            CHECK(read->node == node && !read->done);
            read->done = true;
            read->err = answer->err;
            read->index = answer->index;
            CHECK(answer->err != ERR_OK || answer->index >= read->floor); /* N7 */
            net->reads_ok += answer->err == ERR_OK;
            net_trace(net, "%u: read %llu %s at %llu", node, (unsigned long long)read->id, err_name(read->err),
                      (unsigned long long)read->index);
            return;
        }
    }
    CHECK(!"an answer to a read nobody asked");
}

static inline void net_step(struct net *net, uint32_t node, struct raft_event event)
{
    static const char *const roles[] = {"follower", "pre-candidate", "candidate", "leader"};
    struct net_node *self = &net->nodes[node - 1];
    CHECK(self->raft != NULL);
    event.random = net_random(net);
    struct raft_update u;
    struct raft_status before = raft_status(self->raft);
    raft_step(self->raft, &event, &u);
    struct raft_status status = raft_status(self->raft);
    self->hole = status.hole == 0 ? 0 : self->hole;
    CHECK((status.hole == 0 && !status.lost) || status.role == RAFT_FOLLOWER);
    CHECK(!status.lost || u.committed_count == 0);
    self->lost = status.lost;
    if (u.role_changed) {
        net_trace(net, "%u: %s t%llu leader %u", node, roles[status.role], (unsigned long long)status.term,
                  status.leader);
    }
    if (u.number != 0) {
        net_write_put(net, node, &u);
    }
    if (u.number != 0 || event.kind == RAFT_EVENT_INSTALLED || u.role_changed) {
        net_check_config(net, node);
    }
    self->hole = status.hole; /* overwritten or installed over: gone */
    if (before.role == RAFT_LEADER && status.commit > before.commit) {
        net_check_majority(net, node, &before.config.config, before.commit, status.commit);
    }
    if (status.role == RAFT_LEADER) {
        net_check_leader(net, node);
    }
    for (uint32_t i = 0; i < u.message_count; i++) {
        net_bag_put(net, &u.messages[i]);
    }
    for (uint32_t i = 0; i < u.committed_count; i++) {
        CHECK(u.committed[i].index == self->applied + 1); /* N4 */
        net_check_committed(net, u.committed[i].index, net_entry_of(net, &u.committed[i]));
        self->applied++;
        net->deliveries++;
        net_trace(net, "%u: applies %llu/%llu", node, (unsigned long long)u.committed[i].index,
                  (unsigned long long)u.committed[i].term);
    }
    for (uint32_t i = 0; i < u.read_count; i++) {
        net_read_done(net, node, &u.reads[i]);
    }
    for (uint32_t i = 0; i < u.snapshot_count; i++) {
        CHECK(net->snapshot_count < NET_NODES * NET_NODES && self->applied > 0);
        net_trace(net, "%u: snapshot at %llu for %u", node, (unsigned long long)self->applied, u.snapshots[i]);
        net->snapshots[net->snapshot_count++] =
            (struct net_snapshot){node, u.snapshots[i], self->applied, net->committed[self->applied - 1].term};
    }
    if (u.load_count > 0) {
        CHECK(self->load_count == 0);
        CHECK(u.load_first > self->view.base);
        CHECK(u.load_first + u.load_count - 1 <= self->disk.last);
        CHECK(self->hole == 0 || u.load_first + u.load_count <= self->hole);
        CHECK(self->rotten == 0 || u.load_first > self->rotten || u.load_first + u.load_count <= self->rotten);
        self->load_first = u.load_first;
        self->load_count = u.load_count;
        net->loads++;
    }
    CHECK(status.applied == self->applied);
    self->update = u;
}

/* ---- what the test does ---- */

static inline void net_start(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    CHECK(self->raft == NULL);
    if (self->flushed > 0 && net_log_term(&self->disk, self->flushed) != net->committed[self->flushed - 1].term) {
        /* a snapshot was installed and the log not yet reset: the host does that before all else */
        net_log_reset(&self->disk, self->flushed, net->committed[self->flushed - 1].term);
        net_log_reset(&self->view, self->flushed, net->committed[self->flushed - 1].term);
    }
    struct net_log *disk = &self->disk;
    self->lost = self->flushed < disk->base;
    uint64_t applied = self->lost ? disk->base : self->flushed;
    if (self->hole <= applied || self->hole > disk->last) {
        self->hole = 0; /* the machine has it; or it was never durable */
    }
    struct raft_term_run *runs = mem_alloc((disk->last + 1) * sizeof *runs);
    struct raft_config_at *configs = mem_alloc((disk->last + 1) * sizeof *configs);
    struct raft_start start = {.hard = self->hard,
                               .base_index = disk->base,
                               .base_term = disk->base_term,
                               .runs = runs,
                               .last = disk->last,
                               .hole = self->hole,
                               .applied = applied,
                               .lost = self->lost,
                               .configs = configs,
                               .random = net_random(net)};
    for (uint64_t i = disk->base + 1; i <= disk->last; i++) {
        if (start.run_count == 0 || runs[start.run_count - 1].term != disk->entries[i - 1].term) {
            runs[start.run_count++] = (struct raft_term_run){.first = i, .term = disk->entries[i - 1].term};
        }
        if (i > applied && disk->entries[i - 1].type == RAFT_ENTRY_CONFIG && i != self->hole) {
            configs[start.config_count++] =
                (struct raft_config_at){.index = i, .config = net->configs[disk->entries[i - 1].value]};
        }
    }
    /* a node that joins knows no members */
    start.config =
        self->flushed > 0 ? net_config_at(net, self->flushed) : (struct raft_config_at){.config = net->first};
    if (self->lost || (self->flushed == 0 && raft_config_roles(&net->first, node) == 0)) {
        start.config = (struct raft_config_at){0};
    }
    struct raft_params params = net->params;
    params.self = node;
    self->raft = raft_create(&params, &start);
    self->applied = applied;
    free(runs);
    free(configs);
    net_check_config(net, node);
    net_trace(net, "%u: starts t%llu last %llu", node, (unsigned long long)self->hard.term,
              (unsigned long long)self->disk.last);
}

/* Nodes 1..count; the first `voters` of them are the group, each with the boot entry durable as the host leaves it at
 * first start; the others are empty and know no members. */
static inline struct net *net_open_some(uint32_t count, uint32_t voters, uint64_t seed)
{
    CHECK(voters >= 1 && voters <= count && count <= NET_NODES);
    struct net *net = mem_alloc(sizeof *net);
    net->count = count;
    net->random = seed;
    net->params = (struct raft_params){.group = 1,
                                       .election_ticks = 10,
                                       .heartbeat_ticks = 1,
                                       .window_entries = 64,
                                       .window_bytes = 1 << 20,
                                       .cache_bytes = 1 << 20};
    net->committed = mem_alloc(NET_ENTRIES * sizeof *net->committed);
    net->leaders = mem_alloc(NET_TERMS * sizeof *net->leaders);
    net->votes = mem_alloc(NET_TERMS * sizeof *net->votes);
    net->seen = mem_alloc(NET_ENTRIES * sizeof *net->seen);
    net->previous = mem_alloc(NET_ENTRIES * sizeof *net->previous);
    net->seen_count = mem_alloc(NET_ENTRIES);
    for (uint32_t i = 0; i < count; i++) {
        struct net_node *node = &net->nodes[i];
        node->disk.entries = mem_alloc(NET_ENTRIES * sizeof *node->disk.entries);
        node->view.entries = mem_alloc(NET_ENTRIES * sizeof *node->view.entries);
        if (i >= voters) {
            continue;
        }
        net->first.members[net->first.count++] = (struct raft_member){.node = i + 1, .roles = RAFT_VOTER};
        struct net_entry boot = {.term = 1, .type = RAFT_ENTRY_BOOT};
        net_log_put(&node->disk, 1, boot);
        net_log_put(&node->view, 1, boot);
        node->hard = (struct raft_hard_state){.term = 1};
    }
    return net;
}

static inline struct net *net_open(uint32_t count, uint64_t seed)
{
    return net_open_some(count, count, seed);
}

static inline void net_start_all(struct net *net)
{
    for (uint32_t node = 1; node <= net->count; node++) {
        net_start(net, node);
    }
}

static inline void net_tick(struct net *net, uint32_t node)
{
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_TICK});
}

/* The oldest write becomes durable, without a word to the instance. */
static inline uint64_t net_disk_take(struct net_node *self)
{
    CHECK(self->write_count > 0);
    struct net_write write = self->writes[0];
    if (write.hard_changed) {
        self->hard = write.hard;
    }
    if (write.reset) {
        net_log_reset(&self->disk, write.reset_index, write.reset_term);
    }
    for (uint32_t i = 0; i < write.count; i++) {
        net_log_put(&self->disk, write.first + i, write.entries[i]);
    }
    free(write.entries);
    self->write_count--;
    memmove(self->writes, self->writes + 1, self->write_count * sizeof *self->writes);
    return write.number;
}

static inline bool net_persist(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    if (self->write_count == 0) {
        return false;
    }
    uint64_t number = net_disk_take(self);
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_PERSISTED, .persisted = number});
    return true;
}

static inline bool net_load(struct net *net, uint32_t node, uint32_t most)
{
    struct net_node *self = &net->nodes[node - 1];
    uint32_t count = self->load_count < most ? self->load_count : most;
    if (count == 0) {
        return false;
    }
    if (self->load_first + count - 1 > self->disk.last) {
        count = self->disk.last >= self->load_first ? (uint32_t)(self->disk.last - self->load_first + 1) : 0;
    }
    count = self->load_first > self->disk.base ? count : 0; /* cut meanwhile */
    struct raft_entry *entries = mem_alloc(count * sizeof *entries);
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = net_entry_make(net, self->disk.entries[self->load_first + i - 1], self->load_first + i);
    }
    self->load_count = 0;
    net_trace(net, "%u: loads %llu n%u", node, (unsigned long long)self->load_first, count);
    net_step(net, node,
             (struct raft_event){
                 .kind = RAFT_EVENT_LOADED, .loaded = entries, .loaded_count = count, .load_first = self->load_first});
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
    return true;
}

/* Takes message `at` out of the bag. The caller drops it. */
static inline struct raft_message net_take(struct net *net, uint32_t at)
{
    CHECK(at < net->bag_count);
    struct raft_message m = net->bag[at];
    net->bag_count--;
    memmove(&net->bag[at], &net->bag[at + 1], (net->bag_count - at) * sizeof m);
    return m;
}

static inline void net_message_step(struct net *net, const struct raft_message *m)
{
    if (net->nodes[m->to - 1].raft != NULL) {
        net_step(net, m->to, (struct raft_event){.kind = RAFT_EVENT_MESSAGE, .message = m});
    }
}

static inline void net_deliver(struct net *net, uint32_t at)
{
    struct raft_message m = net_take(net, at);
    net_message_step(net, &m);
    net_message_drop(&m);
}

static inline void net_drop(struct net *net, uint32_t at)
{
    struct raft_message m = net_take(net, at);
    net_message_drop(&m);
}

/* Loses all messages from and to a node (0: any) of a kind (0: any). */
static inline uint32_t net_lose(struct net *net, uint32_t from, uint32_t to, uint8_t kind)
{
    uint32_t lost = 0;
    for (uint32_t i = 0; i < net->bag_count;) {
        const struct raft_message *m = &net->bag[i];
        if ((from == 0 || m->from == from) && (to == 0 || m->to == to) && (kind == 0 || m->kind == kind)) {
            net_drop(net, i);
            lost++;
        } else {
            i++;
        }
    }
    return lost;
}

/* ---- snapshots and members ---- */

/* The node gives up its log up to `index`: first the log, as the host may, and what a flush does not cover stays. */
static inline void net_compact(struct net *net, uint32_t node, uint64_t index)
{
    struct net_node *self = &net->nodes[node - 1];
    CHECK(index <= self->flushed && index <= self->disk.last);
    for (unsigned long i = 0; i < self->write_count; i++) {
        if (self->writes[i].count > 0 && self->writes[i].first <= index) {
            return; /* a real log takes its writes in order; here the cut would overtake one */
        }
    }
    if (index > self->disk.base && self->view.base == self->disk.base) { /* else a reset is under way */
        self->view.base_term = self->disk.base_term = net->committed[index - 1].term;
        self->view.base = self->disk.base = index;
        net_trace(net, "%u: compacts to %llu", node, (unsigned long long)index);
        net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_COMPACTED, .index = index});
    }
}

/* All that is applied becomes durable, and the log goes. */
static inline void net_compact_all(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    self->flushed = self->lost ? self->flushed : self->applied;
    net_compact(net, node, self->applied < self->disk.last ? self->applied : self->disk.last);
}

/* The receiver's host: older than what is applied, or of a later term than the node knows, is refused. */
static inline bool net_install(struct net *net, uint32_t node, uint64_t index, uint64_t term)
{
    struct net_node *self = &net->nodes[node - 1];
    if (self->raft == NULL || index < self->applied || (index == self->applied && !self->lost) ||
        term > raft_status(self->raft).term) {
        return false;
    }
    struct raft_config_at config = net_config_at(net, index);
    bool over = self->hole != 0 && self->hole <= index;
    self->hole = over ? 0 : self->hole;
    self->flushed = self->applied = index;
    net->installs++;
    net_trace(net, "%u: installs %llu/%llu", node, (unsigned long long)index, (unsigned long long)term);
    net_step(net, node,
             (struct raft_event){.kind = RAFT_EVENT_INSTALLED,
                                 .index = index,
                                 .term = term,
                                 .config = &config.config,
                                 .config_index = config.index});
    if (over) {
        self->hole = 0;
        net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_HEALED});
    }
    return true;
}

/* A read finds an entry of the log damaged while the node runs. */
static inline void net_rot(struct net *net, uint32_t node, uint64_t index)
{
    struct net_node *self = &net->nodes[node - 1];
    CHECK(index > self->disk.base && index <= self->disk.last && self->hole == 0 && self->rotten == 0);
    self->rotten = index <= self->applied ? index : 0;
    self->hole_met = true;
    net_trace(net, "%u: finds %llu rotten", node, (unsigned long long)index);
    net_step(
        net, node,
        (struct raft_event){.kind = RAFT_EVENT_ROTTEN, .index = index, .term = self->disk.entries[index - 1].term});
}

/* What was applied and cannot be read back goes, once the machine is flushed. True: it is gone. */
static inline bool net_give_up(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    if (self->rotten > self->disk.base) {
        self->flushed = self->applied > self->flushed ? self->applied : self->flushed;
        net_compact(net, node, self->rotten);
    }
    self->rotten = self->rotten > self->disk.base ? self->rotten : 0;
    return self->rotten == 0;
}

/* A lost machine is filled by any member's state at or behind the log's beginning; who is behind hears how far the
 * group is. True: done. */
static inline bool net_restore(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    CHECK(self->raft != NULL && self->lost);
    for (uint32_t i = 1; i <= net->count; i++) {
        struct net_node *other = &net->nodes[i - 1];
        if (i == node || other->raft == NULL || other->lost) {
            continue;
        }
        if (other->applied < self->disk.base) {
            net_step(net, i,
                     (struct raft_event){
                         .kind = RAFT_EVENT_COMMITTED, .index = self->disk.base, .term = self->disk.base_term});
        }
        if (other->applied >= self->disk.base &&
            net_install(net, node, other->applied, net->committed[other->applied - 1].term)) {
            return true;
        }
    }
    return false;
}

/* The host mends the hole of a node: by the entry of any member that has it, by a snapshot of one that has it no more,
 * or, where too few can have acknowledged it, by cutting it. True: done. */
static inline bool net_heal(struct net *net, uint32_t node)
{
    struct net_node *self = &net->nodes[node - 1];
    uint64_t hole = self->hole;
    struct raft_event event = {.kind = RAFT_EVENT_HEALED};
    struct raft_heard heard[NET_NODES];
    uint32_t heard_count = 0;
    for (uint32_t i = 0; i < net->count; i++) {
        const struct net_node *other = &net->nodes[i];
        if (other == self || other->raft == NULL) {
            continue;
        }
        /* not even on its way to the disk: a leader counts its own entry later, beside what this node once answered */
        if (hole > other->disk.base && hole > other->flushed &&
            net_log_term(&other->view, hole) != self->disk.entries[hole - 1].term) {
            heard[heard_count++] = (struct raft_heard){.node = i + 1};
        } else if (hole == other->hole) {
            heard[heard_count++] = (struct raft_heard){.node = i + 1, .may_have = true};
        }
        if (hole > other->disk.base && hole <= other->disk.last && hole != other->hole &&
            other->disk.entries[hole - 1].term == self->disk.entries[hole - 1].term) {
            struct raft_entry entry = net_entry_make(net, other->disk.entries[hole - 1], hole);
            event.loaded = &entry;
            event.loaded_count = 1;
            net_trace(net, "%u: heals %llu", node, (unsigned long long)hole);
            self->hole = 0;
            net_step(net, node, event);
            slice_drop(&entry.data);
            return true;
        }
        /* any member's, for where nobody may lead but who has the hole there is no leader */
        if (hole <= other->disk.base && other->flushed >= hole &&
            net_install(net, node, other->flushed, net->committed[other->flushed - 1].term)) {
            return true;
        }
    }
    if (raft_may_trim(self->raft, true, heard, heard_count) && self->write_count == 0) {
        self->disk.last = self->view.last = hole - 1;
        self->hole = 0;
        net_trace(net, "%u: trims to %llu", node, (unsigned long long)hole - 1);
        net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_TRIMMED, .index = hole});
        return true;
    }
    return false;
}

/* Snapshot `at` of those asked for arrives (and is installed) or is lost; the sender hears of it. */
static inline void net_snapshot_end(struct net *net, uint32_t at, bool arrives)
{
    struct net_snapshot snapshot = net->snapshots[at];
    net->snapshots[at] = net->snapshots[--net->snapshot_count];
    struct net_node *to = &net->nodes[snapshot.to - 1];
    bool ok = arrives && (net_install(net, snapshot.to, snapshot.index, snapshot.term) ||
                          (to->raft != NULL && to->flushed >= snapshot.index));
    if (net->nodes[snapshot.from - 1].raft != NULL) {
        net_step(net, snapshot.from,
                 (struct raft_event){
                     .kind = RAFT_EVENT_SNAPSHOT_DONE, .peer = snapshot.to, .index = snapshot.index, .ok = ok});
    }
}

static inline struct raft_config net_config(const char *text)
{
    /* "1 2 3o 4l 5p 6vo": voter, outgoing, learner, learner to promote */
    struct raft_config config = {0};
    while (*text != 0) {
        char *end = NULL;
        struct raft_member *member = &config.members[config.count++];
        member->node = (uint32_t)strtoul(text, &end, 10);
        CHECK(end > text);
        for (; *end != 0 && *end != ' '; end++) {
            member->roles |= *end == 'v' ? RAFT_VOTER : *end == 'o' ? RAFT_OUTGOING : RAFT_LEARNER;
            member->roles |= *end == 'p' ? RAFT_PROMOTE : 0;
        }
        member->roles = member->roles == 0 ? RAFT_VOTER : member->roles;
        text = *end == ' ' ? end + 1 : end;
    }
    return config;
}

static inline enum err net_change(struct net *net, uint32_t node, const struct raft_config *config)
{
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_CONFIG, .config = config});
    net->changes += net->nodes[node - 1].update.propose_err == ERR_OK;
    return net->nodes[node - 1].update.propose_err;
}

static inline enum err net_transfer(struct net *net, uint32_t node, uint32_t to)
{
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_TRANSFER, .peer = to});
    net->transfers += net->nodes[node - 1].update.propose_err == ERR_OK;
    return net->nodes[node - 1].update.propose_err;
}

/* The node's configuration in force is this one. */
static inline bool net_config_is(struct net *net, uint32_t node, const char *text)
{
    struct raft_config wanted = net_config(text);
    struct raft_status status = raft_status(net->nodes[node - 1].raft);
    return net_config_place(net, &status.config.config) == net_config_place(net, &wanted);
}

/* Everything that can happen without a tick does, in order; nodes in `cut` (bits of node - 1) neither send nor receive.
 */
static inline void net_settle(struct net *net, uint32_t cut)
{
    bool busy = true;
    while (busy) {
        busy = false;
        for (uint32_t node = 1; node <= net->count; node++) {
            while (net->nodes[node - 1].raft != NULL && (net_persist(net, node) || net_load(net, node, 256))) {
                busy = true;
            }
            while (net->nodes[node - 1].raft != NULL && net->nodes[node - 1].update.more) {
                net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_CONTINUE});
            }
        }
        while (net->snapshot_count > 0) {
            const struct net_snapshot *s = &net->snapshots[0];
            net_snapshot_end(net, 0, !(cut >> (s->from - 1) & 1) && !(cut >> (s->to - 1) & 1));
            busy = true;
        }
        for (uint32_t i = 0; i < net->bag_count;) {
            const struct raft_message *m = &net->bag[i];
            if ((cut >> (m->from - 1) & 1) || (cut >> (m->to - 1) & 1)) {
                net_drop(net, i);
            } else {
                net_deliver(net, i);
                busy = true;
            }
        }
    }
}

/* Ticks one node until it asks for votes, and lets the others answer: it leads unless they refuse. */
static inline void net_elect(struct net *net, uint32_t node, uint32_t cut)
{
    for (int i = 0; i < 25 && raft_status(net->nodes[node - 1].raft).role == RAFT_FOLLOWER; i++) {
        net_tick(net, node);
    }
    net_settle(net, cut);
}

static inline enum err net_propose(struct net *net, uint32_t node, uint32_t bytes)
{
    struct raft_entry entry =
        net_entry_make(net, (struct net_entry){.value = ++net->next_value, .bytes = bytes, .term = 1}, 1);
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_PROPOSE, .data = entry.data});
    slice_drop(&entry.data);
    return net->nodes[node - 1].update.propose_err;
}

static inline uint32_t net_read_ask(struct net *net, uint32_t node)
{
    if (net->read_count == NET_READS) {
        net->read_count = 0;
    }
    uint32_t at = net->read_count++;
    net->reads[at] = (struct net_read){.id = net_random(net), .node = node, .floor = net->committed_last};
    net_step(net, node, (struct raft_event){.kind = RAFT_EVENT_READ, .read_id = net->reads[at].id});
    return at;
}

/* Power off: the first `written` of the writes under way reached the disk, the rest is lost. */
static inline void net_crash(struct net *net, uint32_t node, unsigned long written)
{
    struct net_node *self = &net->nodes[node - 1];
    raft_destroy(self->raft);
    self->raft = NULL;
    self->rotten = 0;
    self->hole_met = false;
    while (self->write_count > 0 && written-- > 0) {
        (void)net_disk_take(self);
    }
    for (unsigned long i = 0; i < self->write_count; i++) {
        free(self->writes[i].entries);
    }
    self->write_count = 0;
    self->load_count = 0;
    net_log_reset(&self->view, self->disk.base, self->disk.base_term);
    for (uint64_t i = self->disk.base + 1; i <= self->disk.last; i++) {
        net_log_put(&self->view, i, self->disk.entries[i - 1]);
    }
    for (uint32_t i = 0; i < net->read_count; i++) {
        net->reads[i].done = net->reads[i].done || net->reads[i].node == node;
    }
    self->update = (struct raft_update){0};
    for (uint32_t i = 0; i < net->snapshot_count;) { /* a sender that is gone brings nothing */
        if (net->snapshots[i].from == node) {
            net->snapshots[i] = net->snapshots[--net->snapshot_count];
        } else {
            i++;
        }
    }
    net_trace(net, "%u: crashes", node);
}

static inline void net_close(struct net *net)
{
    for (uint32_t i = 0; i < net->count; i++) {
        struct net_node *node = &net->nodes[i];
        if (node->raft != NULL) {
            net_crash(net, i + 1, 0);
        }
        free(node->disk.entries);
        free(node->view.entries);
        free(node->writes);
    }
    (void)net_lose(net, 0, 0, 0);
    free(net->committed);
    free(net->leaders);
    free(net->votes);
    free(net->seen);
    free(net->previous);
    free(net->seen_count);
    free(net->trace);
    free(net);
}

#endif
