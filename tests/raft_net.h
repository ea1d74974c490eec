/* A few Raft instances, a bag of messages, and disks in memory: the harness of the Raft transcripts and of the random
 * test.
 *
 * Nothing happens by itself: the test delivers or drops messages, completes writes and loads, ticks, crashes. Each
 * node's disk holds only what it was told durable; a crash loses the rest. After every step the harness checks: N1
 * election safety: one leader a term                          (3.2) N2 log matching: (index, term) names one entry and
 * one prefix N3 leader completeness: a new leader has all committed entries N4 state machine safety: all nodes apply
 * the same entries, in order, without a gap N5 what is committed stands durably on a majority N6 one vote a term and
 * node, durable before it is told; an acknowledged append is durable N7 a read is never answered below what was
 * committed when it was asked Every event leaves a line of text in `trace`, which transcripts assert. */
#ifndef CAIRN_TESTS_RAFT_NET_H
#define CAIRN_TESTS_RAFT_NET_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "raft/raft.h"

#define NET_NODES   5
#define NET_ENTRIES 6000
#define NET_TERMS   6000
#define NET_BAG     4096
#define NET_READS   4096

struct net_entry {
    uint64_t term, value;
    uint8_t type;
    uint32_t bytes;
};
struct net_log {
    struct net_entry *entries; /* [0] is index 1 */
    uint64_t last;
};
struct net_write {
    uint64_t number;
    bool hard_changed;
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
    uint64_t truncations, loads, deliveries, elections, reads_ok;
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
    CHECK(index >= 1 && index <= log->last + 1 && index <= NET_ENTRIES);
    log->entries[index - 1] = entry;
    log->last = index;
}

static inline struct net_entry net_entry_of(const struct raft_entry *entry)
{
    struct net_entry e = {.term = entry->term, .type = entry->type, .bytes = entry->data.bytes};
    e.value = entry->data.bytes >= 8 ? get_u64(entry->data.data) : 0;
    return e;
}

static inline struct raft_entry net_entry_make(struct net_entry e, uint64_t index)
{
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
    for (uint64_t i = 1; i <= net->committed_last; i++) {
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
    uint32_t holders = 0;
    for (uint32_t i = 0; i < net->count; i++) {
        struct net_log *disk = &net->nodes[i].disk;
        holders += disk->last >= index && net_entry_equal(disk->entries[index - 1], entry);
    }
    CHECK(holders >= net->count / 2 + 1); /* N5 */
    net->committed[index - 1] = entry;
    net->committed_last = index;
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
        CHECK(m->log_index <= self->disk.last && self->hard.term >= m->term); /* N6 */
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
    static const char *const names[] = {"?",      "PRE_VOTE",     "PRE_VOTE_REPLY", "VOTE",           "VOTE_REPLY",
                                        "APPEND", "APPEND_REPLY", "HEARTBEAT",      "HEARTBEAT_REPLY"};
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
    struct net_write write = {.number = u->number, .hard_changed = u->hard_changed, .hard = u->hard};
    write.count = u->append_count;
    write.entries = mem_alloc(u->append_count * sizeof *write.entries);
    write.first = u->append_count > 0 ? u->append[0].index : 0;
    for (uint32_t i = 0; i < u->append_count; i++) {
        CHECK(u->append[i].index == write.first + i);
        write.entries[i] = net_entry_of(&u->append[i]);
        if (i == 0 && write.first <= self->view.last) {
            net->truncations++;
            CHECK(write.first > self->applied);
            net_trace(net, "%u: cuts from %llu", node, (unsigned long long)write.first);
        }
        net_log_put(&self->view, write.first + i, write.entries[i]);
        uint64_t previous = write.first + i > 1 ? self->view.entries[write.first + i - 2].term : 0;
        net_check_matching(net, write.first + i, write.entries[i], previous);
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
    raft_step(self->raft, &event, &u);
    struct raft_status status = raft_status(self->raft);
    if (u.role_changed) {
        net_trace(net, "%u: %s t%llu leader %u", node, roles[status.role], (unsigned long long)status.term,
                  status.leader);
    }
    if (u.number != 0) {
        net_write_put(net, node, &u);
    }
    if (status.role == RAFT_LEADER) {
        net_check_leader(net, node);
    }
    for (uint32_t i = 0; i < u.message_count; i++) {
        net_bag_put(net, &u.messages[i]);
    }
    for (uint32_t i = 0; i < u.committed_count; i++) {
        CHECK(u.committed[i].index == self->applied + 1); /* N4 */
        net_check_committed(net, u.committed[i].index, net_entry_of(&u.committed[i]));
        self->applied++;
        net->deliveries++;
        net_trace(net, "%u: applies %llu/%llu", node, (unsigned long long)u.committed[i].index,
                  (unsigned long long)u.committed[i].term);
    }
    for (uint32_t i = 0; i < u.read_count; i++) {
        net_read_done(net, node, &u.reads[i]);
    }
    if (u.load_count > 0) {
        CHECK(self->load_count == 0);
        CHECK(u.load_first + u.load_count - 1 <= self->disk.last);
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
    struct raft_term_run *runs = mem_alloc((self->disk.last + 1) * sizeof *runs);
    uint32_t count = 0;
    for (uint64_t i = 1; i <= self->disk.last; i++) {
        if (count == 0 || runs[count - 1].term != self->disk.entries[i - 1].term) {
            runs[count++] = (struct raft_term_run){.first = i, .term = self->disk.entries[i - 1].term};
        }
    }
    struct raft_params params = net->params;
    params.self = node;
    self->raft = raft_create(&params, self->hard, runs, count, self->disk.last, self->flushed, net_random(net));
    self->applied = self->flushed;
    free(runs);
    net_trace(net, "%u: starts t%llu last %llu", node, (unsigned long long)self->hard.term,
              (unsigned long long)self->disk.last);
}

/* Nodes 1..count, each with the boot entry durable, as the host leaves it at first start. */
static inline struct net *net_open(uint32_t count, uint64_t seed)
{
    struct net *net = mem_alloc(sizeof *net);
    net->count = count;
    net->random = seed;
    net->params = (struct raft_params){.group = 1,
                                       .member_count = count,
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
        net->params.members[i] = i + 1;
        struct net_node *node = &net->nodes[i];
        node->disk.entries = mem_alloc(NET_ENTRIES * sizeof *node->disk.entries);
        node->view.entries = mem_alloc(NET_ENTRIES * sizeof *node->view.entries);
        struct net_entry boot = {.term = 1, .type = RAFT_ENTRY_BOOT};
        net_log_put(&node->disk, 1, boot);
        net_log_put(&node->view, 1, boot);
        node->hard = (struct raft_hard_state){.term = 1};
    }
    return net;
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
    struct raft_entry *entries = mem_alloc(count * sizeof *entries);
    for (uint32_t i = 0; i < count; i++) {
        entries[i] = net_entry_make(self->disk.entries[self->load_first + i - 1], self->load_first + i);
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
        net_entry_make((struct net_entry){.value = ++net->next_value, .bytes = bytes, .term = 1}, 1);
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
    while (self->write_count > 0 && written-- > 0) {
        (void)net_disk_take(self);
    }
    for (unsigned long i = 0; i < self->write_count; i++) {
        free(self->writes[i].entries);
    }
    self->write_count = 0;
    self->load_count = 0;
    self->view.last = 0;
    for (uint64_t i = 1; i <= self->disk.last; i++) {
        net_log_put(&self->view, i, self->disk.entries[i - 1]);
    }
    for (uint32_t i = 0; i < net->read_count; i++) {
        net->reads[i].done = net->reads[i].done || net->reads[i].node == node;
    }
    self->update = (struct raft_update){0};
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
