/* One Raft instance: made from what is durable, stepped by events. A step dispatches the event, lets a leader send what
 * it may, and settles into the update (update.c). Nothing here waits, reads a clock or fails: a message that makes no
 * sense is ignored, a broken invariant is a CHECK. Sections in comments are those of Ongaro's dissertation. */
#include "raft.h"

#include <stdlib.h>

#include "internal.h"

uint32_t raft_majority(const struct raft *raft)
{
    return raft->params.member_count / 2 + 1;
}

uint64_t raft_quorum(const struct raft *raft, const uint64_t *values)
{
    uint32_t count = raft->params.member_count;
    uint64_t best = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t reached = 0;
        for (uint32_t j = 0; j < count; j++) {
            reached += values[j] >= values[i];
        }
        if (reached >= raft_majority(raft) && values[i] > best) {
            best = values[i];
        }
    }
    return best;
}

uint32_t raft_random(struct raft *raft, uint32_t bound)
{
    CHECK(bound > 0);
    uint64_t x = raft->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) % bound);
}

struct raft *raft_create(const struct raft_params *params, struct raft_hard_state hard,
                         const struct raft_term_run *runs, uint32_t run_count, uint64_t last_index, uint64_t applied,
                         uint64_t random)
{
    CHECK(params->member_count >= 1 && params->member_count <= LIMIT_RAFT_MEMBERS);
    CHECK(params->election_ticks > params->heartbeat_ticks && params->heartbeat_ticks > 0);
    CHECK(params->window_entries > 0 && params->window_bytes > 0);
    CHECK(applied <= last_index);
    struct raft *raft = mem_alloc(sizeof *raft);
    raft->params = *params;
    raft->self = LIMIT_RAFT_MEMBERS;
    for (uint32_t i = 0; i < params->member_count; i++) {
        CHECK(params->members[i] != 0);
        raft->peers[i].node = params->members[i];
        raft->peers[i].next = last_index + 1;
        if (params->members[i] == params->self) {
            raft->self = i;
        }
    }
    CHECK(raft->self < params->member_count);
    raft_log_init(&raft->log, runs, run_count, last_index);
    CHECK(raft_log_term(&raft->log, last_index) <= hard.term);
    raft->term = hard.term;
    raft->vote = hard.vote;
    raft->commit = raft->applied = applied;
    raft->random = random;
    raft->election_timeout = params->election_ticks + raft_random(raft, params->election_ticks);
    return raft;
}

void raft_destroy(struct raft *raft)
{
    if (raft == NULL) {
        return;
    }
    raft_update_deinit(raft);
    raft_log_deinit(&raft->log);
    free(raft->reads);
    free(raft);
}

static struct raft_peer *raft_peer_find(struct raft *raft, uint32_t node)
{
    for (uint32_t i = 0; i < raft->params.member_count; i++) {
        if (raft->peers[i].node == node && i != raft->self) {
            return &raft->peers[i];
        }
    }
    return NULL;
}

/* A sender of an older term learns of ours where it can act on it. */
static void raft_on_stale(struct raft *raft, const struct raft_message *m)
{
    uint8_t reply = 0;
    if (m->kind == RAFT_APPEND) {
        reply = RAFT_APPEND_REPLY;
    } else if (m->kind == RAFT_HEARTBEAT) {
        reply = RAFT_HEARTBEAT_REPLY;
    } else if (m->kind == RAFT_VOTE) {
        reply = RAFT_VOTE_REPLY;
    }
    if (reply != 0) {
        raft_send(raft, (struct raft_message){.kind = reply, .to = m->from, .reject = true, .log_index = m->log_index});
    }
}

static void raft_on_message(struct raft *raft, const struct raft_message *m)
{
    struct raft_peer *peer = raft_peer_find(raft, m->from);
    if (peer == NULL || m->term == 0) {
        return;
    }
    if (m->kind == RAFT_PRE_VOTE) {
        raft_on_pre_vote(raft, m);
        return;
    }
    if (m->kind == RAFT_PRE_VOTE_REPLY) {
        raft_on_pre_vote_reply(raft, m, peer);
        return;
    }
    if (m->term < raft->term) {
        raft_on_stale(raft, m);
        return;
    }
    if (m->term > raft->term) {
        if (m->kind == RAFT_VOTE && raft_leader_is_live(raft)) {
            return; /* 4.2.3: does not disturb a leader that is alive */
        }
        raft_become_follower(raft, m->term, 0);
    }
    switch (m->kind) {
    case RAFT_VOTE:
        raft_on_vote(raft, m);
        break;
    case RAFT_VOTE_REPLY:
        raft_on_vote_reply(raft, m, peer);
        break;
    case RAFT_APPEND:
        raft_on_append(raft, m);
        break;
    case RAFT_APPEND_REPLY:
        raft_on_append_reply(raft, m, peer);
        break;
    case RAFT_HEARTBEAT:
        raft_on_heartbeat(raft, m);
        break;
    case RAFT_HEARTBEAT_REPLY:
        raft_on_heartbeat_reply(raft, m, peer);
        break;
    default:
        break;
    }
}

static void raft_on_loaded(struct raft *raft, const struct raft_event *event)
{
    CHECK(raft->load_count > 0 && event->load_first == raft->load_first);
    CHECK(event->loaded_count <= raft->load_count);
    raft->load_count = 0;
    raft_log_window_set(&raft->log, event->load_first, event->loaded, event->loaded_count);
}

static void raft_dispatch(struct raft *raft, const struct raft_event *event)
{
    struct raft_peer *peer = NULL;
    switch (event->kind) {
    case RAFT_EVENT_TICK:
        raft_election_tick(raft);
        break;
    case RAFT_EVENT_MESSAGE:
        raft_on_message(raft, event->message);
        break;
    case RAFT_EVENT_PROPOSE:
        raft_propose(raft, event->data);
        break;
    case RAFT_EVENT_READ:
        raft_read_request(raft, event->read_id);
        break;
    case RAFT_EVENT_PERSISTED:
        raft_persisted(raft, event->persisted);
        raft_election_persisted(raft);
        raft_commit_by_counting(raft);
        break;
    case RAFT_EVENT_LOADED:
        raft_on_loaded(raft, event);
        break;
    case RAFT_EVENT_PEER_CLOSED:
        peer = raft_peer_find(raft, event->peer);
        if (peer != NULL) {
            raft_peer_closed(raft, peer);
        }
        break;
    case RAFT_EVENT_CONTINUE:
        break;
    }
}

void raft_step(struct raft *raft, const struct raft_event *event, struct raft_update *ret_update)
{
    raft_update_begin(raft);
    enum raft_role role = raft->role;
    uint64_t term = raft->term, commit = raft->commit;
    uint32_t leader = raft->leader;
    raft->random ^= event->random;
    raft_dispatch(raft, event);
    raft_replicate(raft);
    raft_read_settle(raft);
    CHECK(raft->term >= term && raft->commit >= commit);
    CHECK(raft->role != RAFT_LEADER || raft->leader == raft->params.self);
    raft->update.role_changed = role != raft->role || term != raft->term || leader != raft->leader;
    raft_update_end(raft, ret_update);
}

struct raft_status raft_status(const struct raft *raft)
{
    struct raft_status status = {.role = raft->role,
                                 .term = raft->term,
                                 .last = raft->log.last,
                                 .commit = raft->commit,
                                 .applied = raft->applied,
                                 .leader = raft->leader,
                                 .vote = raft->vote,
                                 .ready = raft_is_ready(raft)};
    for (uint32_t i = 0; i < raft->params.member_count && raft->role == RAFT_LEADER; i++) {
        status.match[i] = i == raft->self ? raft->log.persisted : raft->peers[i].match;
        status.in_flight[i] = raft->peers[i].inflight_count;
    }
    return status;
}
