/* The checks N1 to N9 of raft_net.h. */
#ifndef CAIRN_TESTS_RAFT_NET_CHECK_H
#define CAIRN_TESTS_RAFT_NET_CHECK_H

#include "raft_net_state.h"

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
        CHECK(m->log_index <= self->disk.last &&
              self->hard.term >= m->term); /* N6: the log, whatever the machine has */
    }
}

#endif
