/* One Raft instance: made from what is durable, stepped by events. A step dispatches the event, lets a leader send what
 * it may, and settles into the update (update.c). Nothing here waits, reads a clock or fails: a message that makes no
 * sense is ignored, a broken invariant is a CHECK. Sections in comments are those of Ongaro's dissertation. */
#include "raft.h"

#include <stdlib.h>

#include "internal.h"

uint32_t raft_random(struct raft *raft, uint32_t bound)
{
    CHECK(bound > 0);
    uint64_t x = raft->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)((x ^ (x >> 31)) % bound);
}

struct raft *raft_create(const struct raft_params *params, const struct raft_start *start)
{
    CHECK(params->self != 0);
    CHECK(params->election_ticks > params->heartbeat_ticks && params->heartbeat_ticks > 0);
    CHECK(params->window_entries > 0 && params->window_bytes > 0);
    CHECK(start->base_index <= start->applied && start->applied <= start->last);
    CHECK(start->config.index <= start->applied);
    CHECK(start->hole == 0 || (start->hole > start->applied && start->hole <= start->last));
    struct raft *raft = mem_alloc(sizeof *raft);
    raft->params = *params;
    raft_log_init(&raft->log, start);
    raft_config_push(raft, start->config.index, &start->config.config);
    for (uint32_t i = 0; i < start->config_count; i++) {
        CHECK(start->configs[i].index > start->applied && start->configs[i].index <= start->last);
        raft_config_push(raft, start->configs[i].index, &start->configs[i].config);
    }
    raft->term = start->hard.term;
    raft->vote = start->hard.vote;
    if (start->base_term > raft->term) { /* a snapshot was installed, and the crash took the term it came with */
        raft->term = start->base_term;
        raft->vote = 0;
        raft->hard_changed = true;
    }
    CHECK(raft_log_term(&raft->log, start->last) <= raft->term);
    CHECK(!start->lost || (start->applied == start->base_index && start->base_index > 0));
    raft->commit = raft->applied = start->applied;
    raft->lost = start->lost;
    raft->random = start->random;
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
    free(raft->configs);
    free(raft);
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

/* An answer counts only from a member. What is asked may come from one that this node does not know yet, or no more:
 * whoever is behind in configurations must follow and vote all the same (4.2.2). */
static bool raft_message_is_answer(const struct raft_message *m)
{
    return m->kind == RAFT_PRE_VOTE_REPLY || m->kind == RAFT_VOTE_REPLY || m->kind == RAFT_APPEND_REPLY ||
           m->kind == RAFT_HEARTBEAT_REPLY;
}

static void raft_on_message(struct raft *raft, const struct raft_message *m)
{
    struct raft_peer *peer = raft_peer_find(raft, m->from);
    if (m->term == 0 || m->from == raft->params.self || (peer == NULL && raft_message_is_answer(m))) {
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
        if (m->kind == RAFT_VOTE && m->context == 0 && raft_leader_is_live(raft)) {
            return; /* 4.2.3: does not disturb a leader that is alive, unless that leader asked for it (3.10) */
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
    case RAFT_TIMEOUT_NOW:
        raft_on_timeout_now(raft, m);
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
    struct raft_peer *peer = raft_peer_find(raft, event->peer);
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
    case RAFT_EVENT_PEER_FORGOT:
        if (peer != NULL) {
            raft_peer_forgot(raft, peer);
        }
        break;
    case RAFT_EVENT_PEER_CLOSED:
        if (raft->leader == event->peer && raft->role != RAFT_LEADER) {
            raft_leader_closed(raft);
        } else if (peer != NULL) {
            raft_peer_closed(raft, peer);
        }
        break;
    case RAFT_EVENT_CONFIG:
        raft_config_request(raft, event->config);
        break;
    case RAFT_EVENT_TRANSFER:
        raft_transfer_request(raft, event->peer);
        break;
    case RAFT_EVENT_COMPACTED:
        raft_compacted(raft, event->index);
        break;
    case RAFT_EVENT_SNAPSHOT_DONE:
        if (peer != NULL) {
            raft_snapshot_done(raft, peer, event->ok, event->index);
        }
        break;
    case RAFT_EVENT_INSTALLED:
        raft_installed(raft, event);
        break;
    case RAFT_EVENT_HEALED:
        raft_healed(raft, event);
        break;
    case RAFT_EVENT_ROTTEN:
        raft_rotten(raft, event->index, event->term);
        break;
    case RAFT_EVENT_COMMITTED:
        raft_commit_told(raft, event->index, event->term);
        break;
    case RAFT_EVENT_TRIMMED:
        raft_trimmed(raft, event->index);
        break;
    case RAFT_EVENT_WAKE:
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
    if (raft_event_wakes(event)) {
        raft_wake(raft);
    }
    raft_dispatch(raft, event);
    raft_config_committed(raft);
    raft_member_settle(raft);
    raft_replicate(raft);
    raft_read_settle(raft);
    CHECK(raft->term >= term && raft->commit >= commit);
    CHECK(raft->role != RAFT_LEADER || (raft->leader == raft->params.self && raft_is_whole(raft)));
    raft->update.role_changed = role != raft->role || term != raft->term || leader != raft->leader;
    raft_update_end(raft, ret_update);
}

/* It was told so with a refused pre-vote (R12), or its own log says so. */
static bool raft_is_removed(const struct raft *raft)
{
    const struct raft_config_at *newest = raft_config(raft);
    bool left_out = newest->config.count > 0 && newest->index <= raft->commit && newest->index > 0 &&
                    raft_config_roles(&newest->config, raft->params.self) == 0;
    return left_out || raft->removed_at > newest->index;
}

bool raft_is_asleep(const struct raft *raft)
{
    return raft->asleep;
}

enum raft_role raft_role(const struct raft *raft)
{
    return raft->role;
}

struct raft_status raft_status(const struct raft *raft)
{
    struct raft_status status = {.role = raft->role,
                                 .term = raft->term,
                                 .base = raft->log.base,
                                 .base_term = raft->log.base_term,
                                 .last = raft->log.last,
                                 .commit = raft->commit,
                                 .applied = raft->applied,
                                 .leader = raft->leader,
                                 .vote = raft->vote,
                                 .hole = raft->log.hole,
                                 .lost = raft->lost,
                                 .ready = raft_is_ready(raft),
                                 .transfer = raft->transfer,
                                 .config = *raft_config(raft),
                                 .config_committed = raft->configs[0].index,
                                 .removed = raft_is_removed(raft)};
    for (uint32_t i = 0; i < raft->peer_count && raft->role == RAFT_LEADER; i++) {
        status.match[i] = i == raft->self ? raft->log.persisted : raft->peers[i].match;
        status.in_flight[i] = raft->peers[i].inflight_count;
        status.answers[i] = i == raft->self || raft_peer_answers(raft, &raft->peers[i]);
    }
    return status;
}
