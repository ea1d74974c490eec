/* The Raft checker (check_raft.h). */
#include "check_raft.h"

#include <stdlib.h>

#include "base/check.h"
#include "metad/host/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { NODES = LIMIT_RAFT_MEMBERS + 1 };

struct named { /* an entry seen somewhere */
    uint64_t term, name;
};
struct place {
    struct named *seen; /* by term, any order */
    unsigned long count, capacity;
    struct named committed; /* term 0: not yet */
};
struct vote {
    uint32_t node, candidate;
    uint64_t term;
};
struct asked {
    uint64_t name, index; /* index: acknowledged at, 0 not */
    uint32_t group;
};

struct standing { /* of a node's group after its last step */
    uint64_t boot, term, commit;
    bool leads;
};

struct group_check {
    struct place *places; /* by index */
    unsigned long place_count, place_capacity;
    uint32_t *leaders; /* by term */
    unsigned long term_count, term_capacity;
    struct vote *votes;
    unsigned long vote_count, vote_capacity;
    uint64_t committed, acknowledged_index, acknowledgements;
    uint64_t applied[NODES];
    uint64_t promised[NODES], promised_before[NODES], boot[NODES];
    uint64_t *firsts; /* by term: the lowest entry of it that was seen; 0: none */
    unsigned long first_capacity;
    struct standing standings[NODES];
};

struct raft_check {
    struct world *world;
    struct group_check groups[RAFT_CHECK_GROUPS];
    struct asked *proposals;
    unsigned long proposal_count, proposal_capacity;
    uint64_t *reads; /* acknowledged index when asked */
    unsigned long read_count, read_capacity;
    uint64_t reads_answered;
};

struct raft_check *raft_check_create(struct world *world)
{
    struct raft_check *check = mem_alloc(sizeof *check);
    check->world = world;
    return check;
}

void raft_check_destroy(struct raft_check *check)
{
    for (unsigned g = 0; g < RAFT_CHECK_GROUPS; g++) {
        struct group_check *group = &check->groups[g];
        for (unsigned long i = 0; i < group->place_count; i++) {
            free(group->places[i].seen);
        }
        free(group->places);
        free(group->leaders);
        free(group->votes);
        free(group->firsts);
    }
    free(check->proposals);
    free(check->reads);
    free(check);
}

uint64_t raft_entry_name(const struct raft_entry *entry)
{
    struct trace trace;
    trace_init(&trace, false);
    trace_word(&trace, entry->type);
    trace_bytes(&trace, entry->data.data, entry->data.bytes);
    return trace.hash;
}

static struct place *place_of(struct group_check *group, uint64_t index)
{
    CHECK(index < 1u << 24);
    group->places = mem_grow(group->places, &group->place_capacity, index + 1, sizeof *group->places);
    group->place_count = index + 1 > group->place_count ? index + 1 : group->place_count;
    return &group->places[index];
}

/* Log matching: (index, term) names one entry. */
static void check_entry(struct raft_check *check, uint32_t node, uint32_t g, const struct raft_entry *entry)
{
    struct place *place = place_of(&check->groups[g], entry->index);
    uint64_t name = raft_entry_name(entry);
    for (unsigned long i = 0; i < place->count; i++) {
        if (place->seen[i].term == entry->term) {
            WORLD_REQUIRE(check->world, place->seen[i].name == name,
                          "log matching: group %u entry %lu of term %lu differs on node %u", g,
                          (unsigned long)entry->index, (unsigned long)entry->term, node);
            return;
        }
    }
    place->seen = mem_grow(place->seen, &place->capacity, place->count + 1, sizeof *place->seen);
    place->seen[place->count++] = (struct named){entry->term, name};
}

static void check_leader(struct raft_check *check, uint32_t node, uint32_t g, uint64_t term)
{
    struct group_check *group = &check->groups[g];
    CHECK(term < 1u << 24);
    group->leaders = mem_grow(group->leaders, &group->term_capacity, term + 1, sizeof *group->leaders);
    WORLD_REQUIRE(check->world, group->leaders[term] == 0 || group->leaders[term] == node,
                  "election safety: group %u term %lu is led by nodes %u and %u", g, (unsigned long)term,
                  group->leaders[term], node);
    group->leaders[term] = node;
}

static void check_vote(struct raft_check *check, uint32_t g, struct vote vote)
{
    struct group_check *group = &check->groups[g];
    for (unsigned long i = 0; i < group->vote_count; i++) {
        const struct vote *old = &group->votes[i];
        if (old->node == vote.node && old->term == vote.term) {
            WORLD_REQUIRE(check->world, old->candidate == vote.candidate,
                          "votes: group %u node %u votes for %u and %u in term %lu", g, vote.node, old->candidate,
                          vote.candidate, (unsigned long)vote.term);
            return;
        }
    }
    group->votes = mem_grow(group->votes, &group->vote_capacity, group->vote_count + 1, sizeof vote);
    group->votes[group->vote_count++] = vote;
}

static void check_term(struct raft_check *check, struct node *node, uint32_t g, const Cairn__RaftMessage *m)
{
    struct group_check *group = &check->groups[g];
    if (group->boot[node->id] != node->boot) {
        group->boot[node->id] = node->boot;
        group->promised_before[node->id] = group->promised[node->id];
    }
    WORLD_REQUIRE(check->world, m->term >= group->promised_before[node->id],
                  "promises: group %u node %u speaks in term %lu after a crash, having promised in %lu", g, node->id,
                  (unsigned long)m->term, (unsigned long)group->promised_before[node->id]);
    bool promise = m->kind == RAFT_VOTE || (m->kind == RAFT_VOTE_REPLY && !m->reject) ||
                   (m->kind == RAFT_APPEND_REPLY && !m->reject);
    if (promise && m->term > group->promised[node->id]) {
        group->promised[node->id] = m->term;
    }
}

static void note_first(struct group_check *group, const struct raft_entry *entry)
{
    CHECK(entry->term < 1u << 24);
    group->firsts = mem_grow(group->firsts, &group->first_capacity, entry->term + 1, sizeof *group->firsts);
    uint64_t *first = &group->firsts[entry->term];
    *first = *first == 0 || entry->index < *first ? entry->index : *first;
}

void raft_check_status(struct raft_check *check, const struct node *node, uint32_t g, const struct raft_status *status)
{
    if (g >= RAFT_CHECK_GROUPS || node->id >= NODES) {
        return;
    }
    struct group_check *group = &check->groups[g];
    struct standing *was = &group->standings[node->id];
    bool same_boot = was->boot == node->boot, leads = status->role == RAFT_LEADER;
    WORLD_REQUIRE(check->world, !same_boot || status->commit >= was->commit,
                  "commit: group %u node %u goes back from %lu to %lu", g, node->id, (unsigned long)was->commit,
                  (unsigned long)status->commit);
    if (same_boot && leads && was->leads && was->term == status->term && status->commit > was->commit) {
        uint64_t first = status->term < group->first_capacity ? group->firsts[status->term] : 0;
        WORLD_REQUIRE(check->world, first != 0 && status->commit >= first,
                      "commit: group %u node %u leads term %lu and commits entry %lu of an older one by counting", g,
                      node->id, (unsigned long)status->term, (unsigned long)status->commit);
    }
    *was = (struct standing){node->boot, status->term, status->commit, leads};
}

static void check_entries(struct raft_check *check, uint32_t node, uint32_t g, const Cairn__RaftMessage *m,
                          struct slice body)
{
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (body.bytes == 0) {
        return;
    }
    if (raft_entries_decode(body, &entries, &count) != ERR_OK) {
        world_finding(check->world, "group %u node %u sends entries that do not decode", g, node);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        WORLD_REQUIRE(check->world, entries[i].index == m->log_index + 1 + i && entries[i].term <= m->term,
                      "group %u node %u sends entries out of order", g, node);
        check_entry(check, node, g, &entries[i]);
        note_first(&check->groups[g], &entries[i]);
        slice_drop(&entries[i].data);
    }
    free(entries);
}

void raft_check_send(struct raft_check *check, struct node *node, const struct effect *effect,
                     const Cairn__RaftMessage *m)
{
    uint32_t g = effect->send.target, to = effect->send.to.node;
    bool refusal = (effect->send.flags & MESSAGE_REPLY) != 0; /* of a frame of who is no member */
    if (effect->send.type != MESSAGE_RAFT || refusal || g >= RAFT_CHECK_GROUPS || node->id >= NODES) {
        return;
    }
    if (m == NULL) {
        world_finding(check->world, "node %u sends a RAFT header that does not decode", node->id);
        return;
    }
    check_term(check, node, g, m);
    if (m->kind == RAFT_APPEND || m->kind == RAFT_HEARTBEAT) {
        check_leader(check, node->id, g, m->term);
        check_entries(check, node->id, g, m, effect->send.body);
    } else if (m->kind == RAFT_VOTE) {
        check_vote(check, g, (struct vote){node->id, node->id, m->term});
    } else if (m->kind == RAFT_VOTE_REPLY && !m->reject) {
        check_vote(check, g, (struct vote){node->id, to, m->term});
    }
}

void raft_check_forget(struct raft_check *check, uint32_t node)
{
    for (unsigned g = 0; g < RAFT_CHECK_GROUPS; g++) {
        struct group_check *group = &check->groups[g];
        unsigned long kept = 0;
        group->promised[node] = group->promised_before[node] = 0;
        for (unsigned long i = 0; i < group->vote_count; i++) {
            if (group->votes[i].node != node) {
                group->votes[kept++] = group->votes[i];
            }
        }
        group->vote_count = kept;
    }
}

void raft_check_opened(struct raft_check *check, uint32_t node, uint32_t g, uint64_t applied)
{
    struct group_check *group = &check->groups[g];
    WORLD_REQUIRE(check->world, applied <= group->committed,
                  "group %u node %u starts with %lu applied, %lu were ever committed", g, node, (unsigned long)applied,
                  (unsigned long)group->committed);
    group->applied[node] = applied;
}

void raft_check_applied(struct raft_check *check, uint32_t node, uint32_t g, const struct raft_entry *entry)
{
    struct group_check *group = &check->groups[g];
    struct place *place = place_of(group, entry->index);
    uint64_t name = raft_entry_name(entry);
    WORLD_REQUIRE(check->world, entry->index == group->applied[node] + 1,
                  "group %u node %u applies entry %lu after %lu", g, node, (unsigned long)entry->index,
                  (unsigned long)group->applied[node]);
    check_entry(check, node, g, entry);
    if (place->committed.term == 0) {
        place->committed = (struct named){entry->term, name};
    }
    WORLD_REQUIRE(check->world, place->committed.term == entry->term && place->committed.name == name,
                  "group %u node %u applies entry %lu of term %lu, committed was another of term %lu", g, node,
                  (unsigned long)entry->index, (unsigned long)entry->term, (unsigned long)place->committed.term);
    group->applied[node] = entry->index;
    group->committed = entry->index > group->committed ? entry->index : group->committed;
}

uint64_t raft_check_propose(struct raft_check *check, uint32_t group, struct slice data)
{
    struct raft_entry entry = {.type = RAFT_ENTRY_COMMANDS, .data = data};
    check->proposals =
        mem_grow(check->proposals, &check->proposal_capacity, check->proposal_count + 1, sizeof *check->proposals);
    check->proposals[check->proposal_count++] = (struct asked){.name = raft_entry_name(&entry), .group = group};
    return check->proposal_count;
}

void raft_check_acknowledged(struct raft_check *check, uint32_t g, uint64_t proposal, uint64_t index)
{
    struct group_check *group = &check->groups[g];
    CHECK(proposal >= 1 && proposal <= check->proposal_count && index < group->place_count);
    struct asked *asked = &check->proposals[proposal - 1];
    WORLD_REQUIRE(check->world, asked->group == g && group->places[index].committed.name == asked->name,
                  "group %u proposal %lu is acknowledged at entry %lu, which holds something else", g,
                  (unsigned long)proposal, (unsigned long)index);
    WORLD_REQUIRE(check->world, asked->index == 0, "group %u proposal %lu is acknowledged twice", g,
                  (unsigned long)proposal);
    asked->index = index;
    group->acknowledgements++;
    group->acknowledged_index = index > group->acknowledged_index ? index : group->acknowledged_index;
}

uint64_t raft_check_read_asked(struct raft_check *check, uint32_t group)
{
    check->reads = mem_grow(check->reads, &check->read_capacity, check->read_count + 1, sizeof *check->reads);
    check->reads[check->read_count++] = check->groups[group].acknowledged_index;
    return check->read_count;
}

void raft_check_read_answered(struct raft_check *check, uint32_t group, uint64_t read, uint64_t index)
{
    CHECK(read >= 1 && read <= check->read_count);
    check->reads_answered++;
    WORLD_REQUIRE(check->world, index >= check->reads[read - 1],
                  "stale read: group %u read %lu sees %lu, acknowledged before it was asked was %lu", group,
                  (unsigned long)read, (unsigned long)index, (unsigned long)check->reads[read - 1]);
}

uint64_t raft_check_committed(const struct raft_check *check, uint32_t group)
{
    return check->groups[group].committed;
}

uint64_t raft_check_acknowledgements(const struct raft_check *check, uint32_t group)
{
    return check->groups[group].acknowledgements;
}

uint64_t raft_check_reads(const struct raft_check *check)
{
    return check->reads_answered;
}

uint64_t raft_check_node_applied(const struct raft_check *check, uint32_t node, uint32_t group)
{
    return check->groups[group].applied[node];
}
