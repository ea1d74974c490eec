/* Terms, roles and votes: pre-vote (9.6), elections (3.4, 3.6.1), check-quorum (6.2), taking over when asked (3.10). A
 * follower that hears no leader for an election timeout asks for pre-votes without touching its term; a majority of
 * them lets it take the next term and ask for votes. Its own vote counts once it is durable, and requests leave only
 * then: a candidate that crashes must not have promised itself twice. A leader that a majority has not answered for an
 * election timeout steps down.
 *
 * A process that dies closes its connections. A follower whose connection with the leader closes waits as if it had
 * heard nothing for an election timeout but one heartbeat, which a leader that lives uses to make itself heard again;
 * so the length of an election timeout is paid for leaders that fall silent, not for those that die. It is a guess like
 * any timeout: pre-votes and terms decide.
 *
 * Only a voter asks, or one whose leaving is not known to be committed; whoever is asked answers, for it may be a voter
 * and not know it yet (4.2.2). A node that was removed hears so with the refusal of a pre-vote: it stays quiet until
 * its log holds a configuration behind the one that left it out. That costs nothing: it lacks a committed entry, so
 * nobody could elect it. */
#include "internal.h"

static void raft_election_reset(struct raft *raft)
{
    raft->election_elapsed = 0;
    raft->heartbeat_elapsed = 0;
    raft->election_timeout = raft->params.election_ticks + raft_random(raft, raft->params.election_ticks);
}

static void raft_term_set(struct raft *raft, uint64_t term, uint32_t vote)
{
    CHECK(term > raft->term || (term == raft->term && raft->vote == 0));
    if (term > raft->term) {
        raft_held_drop(raft);
    }
    raft->term = term;
    raft->vote = vote;
    raft->hard_changed = true;
}

void raft_become_follower(struct raft *raft, uint64_t term, uint32_t leader)
{
    CHECK(term >= raft->term);
    if (term > raft->term) {
        raft_term_set(raft, term, 0);
    }
    if (raft->role == RAFT_LEADER) {
        raft_read_fail_all(raft);
    }
    raft->role = RAFT_FOLLOWER;
    raft->leader = leader;
    raft->asleep = false;
    raft->transfer = 0;
    raft_election_reset(raft);
}

bool raft_leader_is_live(const struct raft *raft)
{
    return raft->leader != 0 && raft->election_elapsed < raft->params.election_ticks;
}

/* 1 for each member that gave this answer. */
static const uint64_t *raft_votes_are(const struct raft *raft, enum raft_vote vote, uint64_t *values)
{
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        values[i] = raft->peers[i].vote == vote;
    }
    return values;
}

static void raft_votes_clear(struct raft *raft)
{
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        raft->peers[i].vote = RAFT_VOTE_UNKNOWN;
    }
}

/* Asks all other voters, with the place of the last entry. `told`: the leader asked for it. */
static void raft_votes_ask(struct raft *raft, uint8_t kind, uint64_t term, bool told)
{
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        if (i == raft->self || !raft_peer_votes(&raft->peers[i])) {
            continue;
        }
        struct raft_message m = {.kind = kind,
                                 .to = raft->peers[i].node,
                                 .term = term,
                                 .context = told,
                                 .log_index = raft->log.last,
                                 .log_term = raft_log_term(&raft->log, raft->log.last)};
        if (kind == RAFT_VOTE) {
            raft_send_durable(raft, m);
        } else {
            raft_send(raft, m);
        }
    }
}

static void raft_campaign(struct raft *raft, bool told)
{
    CHECK(raft->role != RAFT_LEADER && raft_self_may_lead(raft));
    raft->role = RAFT_CANDIDATE;
    raft->leader = 0;
    raft_term_set(raft, raft->term + 1, raft->params.self);
    raft_election_reset(raft);
    raft_votes_clear(raft);
    raft_votes_ask(raft, RAFT_VOTE, raft->term, told);
}

static void raft_votes_decide(struct raft *raft)
{
    CHECK(raft->role == RAFT_PRE_CANDIDATE || raft->role == RAFT_CANDIDATE);
    uint64_t values[RAFT_MEMBERS_MAX];
    if (raft_quorum(raft, raft_votes_are(raft, RAFT_VOTE_GRANTED, values)) == 1) {
        if (raft->role == RAFT_PRE_CANDIDATE) {
            raft_campaign(raft, false);
        } else {
            CHECK(raft->vote == raft->params.self);
            raft_lead(raft);
        }
    } else if (raft_quorum_is_blocked(raft, raft_votes_are(raft, RAFT_VOTE_REJECTED, values))) {
        raft_become_follower(raft, raft->term, 0);
    }
}

/* A voter, as far as it knows, that was not told of its removal since, and that has all of its log and state (R-E1,
 * R-E5). */
static bool raft_may_campaign(const struct raft *raft)
{
    return raft_self_may_lead(raft) && raft_config(raft)->index >= raft->removed_at && raft_is_whole(raft);
}

static void raft_pre_campaign(struct raft *raft)
{
    CHECK(raft->role != RAFT_LEADER);
    if (!raft_may_campaign(raft)) {
        raft_become_follower(raft, raft->term, 0);
        return;
    }
    raft->role = RAFT_PRE_CANDIDATE;
    raft->leader = 0;
    raft_election_reset(raft);
    raft_votes_clear(raft);
    if (raft->self != RAFT_NOBODY) {
        raft->peers[raft->self].vote = RAFT_VOTE_GRANTED;
    }
    raft_votes_ask(raft, RAFT_PRE_VOTE, raft->term + 1, false);
    raft_votes_decide(raft);
}

/* Leader: true when a majority answered since the last look; itself counts where it votes. */
static bool raft_quorum_is_active(struct raft *raft)
{
    uint64_t active[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        active[i] = i == raft->self || raft->peers[i].active;
        raft->peers[i].active = false;
    }
    return raft_quorum(raft, active) == 1;
}

void raft_election_tick(struct raft *raft)
{
    if (raft->asleep) {
        return;
    }
    raft_sleep_tick(raft);
    raft->election_elapsed++;
    if (raft->role != RAFT_LEADER) {
        if (raft->election_elapsed >= raft->election_timeout) {
            raft_pre_campaign(raft);
        }
        return;
    }
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        raft->peers[i].silent_ticks += raft->peers[i].silent_ticks <= raft->params.election_ticks;
    }
    if (raft->election_elapsed >= raft->params.election_ticks) {
        raft->election_elapsed = 0;
        if (!raft_quorum_is_active(raft)) {
            raft_become_follower(raft, raft->term, 0);
            return;
        }
    }
    raft_transfer_tick(raft);
    raft->heartbeat_elapsed++;
    if (raft->heartbeat_elapsed >= raft->params.heartbeat_ticks) {
        raft->heartbeat_elapsed = 0;
        for (uint32_t i = 0; i < raft->peer_count; i++) {
            raft->peers[i].poke = true;
            raft->peers[i].ticked = raft->peers[i].match;
        }
        raft_heartbeat_round(raft);
    }
}

void raft_leader_closed(struct raft *raft)
{
    CHECK(raft->role != RAFT_LEADER);
    uint32_t most = raft->params.election_ticks, back = raft->params.heartbeat_ticks;
    uint32_t silent = most > back ? most - back : 0;
    if (raft->election_elapsed < silent) {
        raft->election_elapsed = silent;
    }
}

/* The asker's log is at least as complete as ours (3.6.1). */
static bool raft_log_is_up_to_date(const struct raft *raft, const struct raft_message *m)
{
    uint64_t term = raft_log_term(&raft->log, raft->log.last);
    return m->log_term > term || (m->log_term == term && m->log_index >= raft->log.last);
}

void raft_on_pre_vote(struct raft *raft, const struct raft_message *m)
{
    bool can = m->term > raft->term ||
               (m->term == raft->term && (raft->vote == m->from || (raft->vote == 0 && raft->leader == 0)));
    bool grant = can && raft->role != RAFT_LEADER && !raft_leader_is_live(raft) && raft_log_is_up_to_date(raft, m);
    raft_send(raft, (struct raft_message){.kind = RAFT_PRE_VOTE_REPLY,
                                          .to = m->from,
                                          .term = grant ? m->term : raft->term,
                                          .reject = !grant,
                                          .hint = grant ? 0 : raft_config_leaves_out(raft, m->from)});
}

void raft_on_pre_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer)
{
    if (m->reject && m->hint > raft->removed_at) {
        raft->removed_at = m->hint;
    }
    if (m->reject && m->term > raft->term) {
        raft_become_follower(raft, m->term, 0);
        return;
    }
    if (raft->role != RAFT_PRE_CANDIDATE || (!m->reject && m->term != raft->term + 1)) {
        return;
    }
    if (!raft_may_campaign(raft)) {
        raft_become_follower(raft, raft->term, 0);
        return;
    }
    peer->vote = m->reject ? RAFT_VOTE_REJECTED : RAFT_VOTE_GRANTED;
    raft_votes_decide(raft);
}

void raft_on_vote(struct raft *raft, const struct raft_message *m)
{
    CHECK(m->term == raft->term);
    bool can = raft->vote == m->from || (raft->vote == 0 && raft->leader == 0);
    if (!can || !raft_log_is_up_to_date(raft, m)) {
        raft_send(raft, (struct raft_message){.kind = RAFT_VOTE_REPLY, .to = m->from, .reject = true});
        return;
    }
    CHECK(raft->role == RAFT_FOLLOWER || raft->role == RAFT_PRE_CANDIDATE);
    raft_become_follower(raft, raft->term, 0); /* gives up its own pre-vote and its impatience */
    if (raft->vote == 0) {
        raft_term_set(raft, raft->term, m->from);
    }
    raft_send_durable(raft, (struct raft_message){.kind = RAFT_VOTE_REPLY, .to = m->from});
}

void raft_on_vote_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer)
{
    CHECK(m->term == raft->term);
    if (raft->role != RAFT_CANDIDATE) {
        return;
    }
    peer->vote = m->reject ? RAFT_VOTE_REJECTED : RAFT_VOTE_GRANTED;
    raft_votes_decide(raft);
}

/* The leader hands over: no pre-vote, and voters do not hold its being alive against this node. */
void raft_on_timeout_now(struct raft *raft, const struct raft_message *m)
{
    CHECK(m->term == raft->term);
    bool leads = raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != m->from);
    if (leads || raft->role == RAFT_CANDIDATE || !raft_self_may_lead(raft) || !raft_is_whole(raft)) {
        return;
    }
    raft_campaign(raft, true);
}

void raft_election_persisted(struct raft *raft)
{
    bool durable = !raft->hard_changed && raft->persisted_number >= raft->hard_number;
    if (raft->role == RAFT_CANDIDATE && durable && raft_self_votes(raft) &&
        raft->peers[raft->self].vote == RAFT_VOTE_UNKNOWN) {
        CHECK(raft->vote == raft->params.self);
        raft->peers[raft->self].vote = RAFT_VOTE_GRANTED;
        raft_votes_decide(raft);
    }
}
