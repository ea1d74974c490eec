/* A step of a node carried out, and what a test does to one: for raft_net.h. */
#ifndef CAIRN_TESTS_RAFT_NET_RUN_H
#define CAIRN_TESTS_RAFT_NET_RUN_H

#include "raft_net_check.h"

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

#endif
