/* The log's beginning moves (5). Snapshots themselves are the host's: it makes them from its machine, carries them and
 * installs them. Here stands what they mean to the log: entries that a durable snapshot (or flush) holds may go; a
 * follower that lacks such entries is brought a snapshot while appends to it rest; a snapshot installed here puts the
 * log, the commit index and what is applied where it stands. */
#include "internal.h"

void raft_compacted(struct raft *raft, uint64_t index)
{
    CHECK(index <= raft->applied && raft->applied <= raft->log.persisted);
    if (index > raft->log.base) {
        raft_log_compact(&raft->log, index);
    }
}

bool raft_snapshot_wanted(struct raft *raft, struct raft_peer *peer)
{
    if (peer->next > raft->log.base) {
        return false;
    }
    if (!peer->snapshotting && !peer->paused) {
        peer->snapshotting = true;
        CHECK(raft->out_snapshot_count < RAFT_MEMBERS_MAX);
        raft->out_snapshots[raft->out_snapshot_count++] = peer->node;
    }
    return true;
}

void raft_snapshot_done(struct raft *raft, struct raft_peer *peer, bool ok, uint64_t index)
{
    if (raft->role != RAFT_LEADER || !peer->snapshotting) {
        return;
    }
    peer->snapshotting = false;
    if (!ok) {
        peer->probing = peer->paused = true; /* until it answers a heartbeat */
        return;
    }
    index = index < raft->log.last ? index : raft->log.last;
    raft_peer_probe(peer, (index > peer->match ? index : peer->match) + 1);
}

/* A log that holds the snapshot's last entry holds all before it, and keeps what is behind. Nothing is acknowledged
 * before the log itself has that entry, or begins behind it, durably: who loses its machine answers and votes by its
 * log (R-E5), which must then hold all that was ever promised. */
void raft_installed(struct raft *raft, const struct raft_event *event)
{
    struct raft_log *log = &raft->log;
    uint64_t index = event->index;
    if (index < raft->applied || (index == raft->applied && !raft->lost)) {
        return;
    }
    CHECK(event->term > 0 && event->term <= raft->term && event->config_index <= index);
    bool holds = index <= log->last && raft_log_term(log, index) == event->term;
    CHECK(holds || index > raft->commit); /* what is committed is never dropped */
    if (raft->role != RAFT_LEADER) {
        raft_become_follower(raft, raft->term, raft->leader);
    }
    if (holds) {
        if (log->hole != 0 && log->hole <= index) {
            log->hole = index < log->last ? index + 1 : 0; /* until the host says where the next one is */
        }
        raft_log_durable(log, index); /* the machine holds it */
        raft->install_number = raft->number;
    } else {
        CHECK(raft->role != RAFT_LEADER && !raft->hard_changed && log->written == log->last);
        raft_log_reset(log, index, event->term);
        raft_persist_cut(raft, index + 1);
        raft->reset = true;
        raft->install_number = raft->number + 1;
    }
    if (index > raft->commit) {
        raft_commit_to(raft, index);
    }
    raft->applied = index;
    raft->lost = false;
    struct raft_config_at config = {.index = event->config_index, .config = *event->config};
    raft_config_install(raft, index, &config, !holds);
}
