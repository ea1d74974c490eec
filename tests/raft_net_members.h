/* Snapshots, rot and members, for raft_net.h. */
#ifndef CAIRN_TESTS_RAFT_NET_MEMBERS_H
#define CAIRN_TESTS_RAFT_NET_MEMBERS_H

#include "raft_net_run.h"

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
