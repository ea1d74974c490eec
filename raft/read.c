/* Heartbeat rounds and ReadIndex (6.4). A round has a number that this instance never uses again; a follower's answer
 * repeats it. A read waits for a majority to answer a round that was sent after the read arrived, so that a late answer
 * to an older round says nothing, and for the no-op of the term, so that the commit index is not older than what an
 * earlier leader committed. Reads that come while a round is out share the next one. */
#include "internal.h"

bool raft_is_ready(const struct raft *raft)
{
    return raft->role == RAFT_LEADER && raft_log_term(&raft->log, raft->commit) == raft->term;
}

void raft_read_request(struct raft *raft, uint64_t read_id)
{
    if (raft->role != RAFT_LEADER) {
        raft_answer_read(raft, read_id, 0, ERR_NOT_LEADER);
        return;
    }
    if (raft->read_count == RAFT_READS) {
        raft_answer_read(raft, read_id, 0, ERR_BUSY);
        return;
    }
    raft->reads = mem_grow(raft->reads, &raft->read_capacity, raft->read_count + 1, sizeof *raft->reads);
    raft->reads[raft->read_count++] = (struct raft_pending_read){
        .read_id = read_id, .index = raft_is_ready(raft) ? raft->commit : 0, .round = raft->round + 1};
}

void raft_read_fail_all(struct raft *raft)
{
    for (unsigned long i = 0; i < raft->read_count; i++) {
        raft_answer_read(raft, raft->reads[i].read_id, 0, ERR_NOT_LEADER);
    }
    raft->read_count = 0;
}

static uint64_t raft_round_confirmed(const struct raft *raft)
{
    uint64_t rounds[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        rounds[i] = i == raft->self ? raft->round : raft->peers[i].round;
        CHECK(rounds[i] <= raft->round);
    }
    return raft_quorum(raft, rounds);
}

/* Answers the reads at the head that are confirmed; they wait in order of their rounds. */
static void raft_read_answer(struct raft *raft)
{
    uint64_t confirmed = raft_round_confirmed(raft);
    unsigned long done = 0;
    while (done < raft->read_count && raft->reads[done].round <= confirmed) {
        CHECK(raft->reads[done].index > 0);
        raft_answer_read(raft, raft->reads[done].read_id, raft->reads[done].index, ERR_OK);
        done++;
    }
    for (unsigned long i = done; i < raft->read_count; i++) {
        raft->reads[i - done] = raft->reads[i];
    }
    raft->read_count -= done;
}

void raft_read_settle(struct raft *raft)
{
    if (raft->role != RAFT_LEADER || raft->read_count == 0) {
        return;
    }
    uint64_t wanted = raft->reads[raft->read_count - 1].round;
    if (wanted > raft->round && raft_round_confirmed(raft) >= raft->round) {
        raft_heartbeat_round(raft);
    }
    if (!raft_is_ready(raft)) {
        return;
    }
    for (unsigned long i = 0; i < raft->read_count; i++) {
        if (raft->reads[i].index == 0) {
            raft->reads[i].index = raft->commit;
        }
    }
    raft_read_answer(raft);
    if (raft->read_count > 0 && raft_round_confirmed(raft) >= raft->round) {
        raft_heartbeat_round(raft);
    }
}

void raft_heartbeat_round(struct raft *raft)
{
    CHECK(raft->role == RAFT_LEADER);
    raft->round++;
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        if (i == raft->self) {
            continue;
        }
        uint64_t match = raft->peers[i].match;
        raft_send(raft, (struct raft_message){.kind = RAFT_HEARTBEAT,
                                              .to = raft->peers[i].node,
                                              .context = raft->round,
                                              .sleep = raft_wants_sleep(raft),
                                              .commit = match < raft->commit ? match : raft->commit});
    }
}

void raft_on_heartbeat(struct raft *raft, const struct raft_message *m)
{
    CHECK(m->term == raft->term);
    if (raft->role == RAFT_LEADER) {
        return;
    }
    raft_become_follower(raft, m->term, m->from);
    raft_commit_learn(raft, m->commit);
    bool asleep = raft_sleep_follow(raft, m);
    raft_send(raft, (struct raft_message){
                        .kind = RAFT_HEARTBEAT_REPLY, .to = m->from, .context = m->context, .sleep = asleep});
}

void raft_on_heartbeat_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer)
{
    CHECK(m->term == raft->term);
    if (raft->role != RAFT_LEADER || m->reject || m->context > raft->round) {
        return;
    }
    peer->active = true;
    if (m->context > peer->round) {
        peer->round = m->context;
    }
    raft_replicate_poke(raft, peer);
    raft_sleep_answered(raft, peer, m->sleep);
    peer->silent_ticks = 0;
}
