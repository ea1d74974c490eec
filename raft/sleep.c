/* Sleep of idle groups: a node with hundreds of groups does not pay for those nobody uses.
 *
 * A leader that has had nothing to do for `sleep_ticks` ticks says so in its heartbeats. A follower that holds
 * everything and knows all of it committed answers that it sleeps; once every member has, the leader sleeps too. Who
 * sleeps counts no ticks: it sends no heartbeat, misses none and starts no election. Anything that happens wakes it: a
 * message, a proposal, a read, a connection that closes, a word of the host (WAKE). Awake it behaves as ever, and a
 * full election timeout begins anew.
 *
 * No safety rests on it: sleep is a clock that stands still, and Raft allows a clock any speed. What it costs is
 * liveness, where a leader is lost and nobody is told: so the host wakes a group when its leader's connection closes
 * and when a client asks for what only a leader has. */
#include "internal.h"

/* Nothing of this node's group is under way, so far as it knows. */
static bool raft_is_idle(const struct raft *raft)
{
    const struct raft_log *log = &raft->log;
    return raft->commit == log->last && raft->applied == log->last && log->persisted == log->last &&
           raft->read_count == 0 && raft->held_count == 0 && raft->load_count == 0 && !raft->hard_changed;
}

static bool raft_leader_is_idle(const struct raft *raft)
{
    if (!raft_is_idle(raft) || !raft_is_ready(raft) || raft->transfer != 0 ||
        raft_config_is_joint(&raft_config(raft)->config)) {
        return false;
    }
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        bool behind = peer->match != raft->log.last || peer->snapshotting || (peer->roles & RAFT_PROMOTE) != 0;
        if (i != raft->self && behind) {
            return false;
        }
    }
    return true;
}

void raft_wake(struct raft *raft)
{
    raft->idle_ticks = 0;
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        raft->peers[i].asleep = false;
    }
    if (raft->asleep) {
        raft->asleep = false;
        raft->election_elapsed = 0;
        raft->heartbeat_elapsed = 0;
    }
}

bool raft_wants_sleep(const struct raft *raft)
{
    return raft->params.sleep_ticks > 0 && raft->idle_ticks >= raft->params.sleep_ticks;
}

void raft_sleep_tick(struct raft *raft)
{
    if (raft->role == RAFT_LEADER && raft_leader_is_idle(raft)) {
        raft->idle_ticks++;
    } else {
        raft_wake(raft);
    }
}

bool raft_sleep_follow(struct raft *raft, const struct raft_message *m)
{
    raft->asleep = m->sleep && raft->params.sleep_ticks > 0 && raft_is_idle(raft) && m->commit == raft->log.last;
    return raft->asleep;
}

void raft_sleep_answered(struct raft *raft, struct raft_peer *peer, bool asleep)
{
    peer->asleep = asleep;
    bool all = raft_wants_sleep(raft);
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        all = all && (i == raft->self || raft->peers[i].asleep);
    }
    raft->asleep = raft->asleep || all;
}

/* What keeps a sleeper asleep: the passing of time, heartbeats that say so and the answers to them. */
bool raft_event_wakes(const struct raft_event *event)
{
    switch (event->kind) {
    case RAFT_EVENT_TICK:
    case RAFT_EVENT_CONTINUE:
    case RAFT_EVENT_PERSISTED:
    case RAFT_EVENT_COMPACTED:
        return false;
    case RAFT_EVENT_MESSAGE:
        return event->message->kind != RAFT_HEARTBEAT_REPLY &&
               !(event->message->kind == RAFT_HEARTBEAT && event->message->sleep);
    default:
        return true;
    }
}
