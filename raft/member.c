/* Changes of members by joint consensus (4.3), learners (4.2.1), transfer of leadership (3.10).
 *
 * Happy path of a change: the leader appends the joint configuration (the voters that come beside the voters that go)
 * and obeys it at once; once it is committed by both majorities it appends the configuration asked for; once that is
 * committed a leader that is no voter of it resigns. Every change goes this way, also of one member. It is refused
 * until the leader has committed in its own term (or two leaders could each change the last leader's configuration,
 * unknown to each other) and while another change is not committed.
 *
 * A node becomes a voter only from a learner that is caught up: within RAFT_CAUGHT_UP entries of the commit index. That
 * is about being able to commit soon, not about safety. */
#include "internal.h"

/* ---- changes ---- */

static void raft_config_append(struct raft *raft, const struct raft_config *config)
{
    CHECK(raft_is_ready(raft) && raft_config(raft)->index <= raft->commit && raft->transfer == 0);
    struct slice data = raft_config_encode(config);
    raft_lead_append(raft, RAFT_ENTRY_CONFIG, data);
    slice_drop(&data);
    raft_config_push(raft, raft->log.last, config);
}

static bool raft_is_caught_up(const struct raft *raft, const struct raft_peer *peer)
{
    return !peer->snapshotting && peer->match > 0 && peer->match + RAFT_CAUGHT_UP >= raft->commit;
}

/* Sorted insertion; roles of one who is there already are added. False when it does not fit. */
static bool raft_config_add(struct raft_config *config, uint32_t node, uint8_t roles)
{
    uint32_t at = 0;
    while (at < config->count && config->members[at].node < node) {
        at++;
    }
    if (at < config->count && config->members[at].node == node) {
        config->members[at].roles |= roles;
        return true;
    }
    if (config->count == RAFT_MEMBERS_MAX) {
        return false;
    }
    for (uint32_t i = config->count; i > at; i--) {
        config->members[i] = config->members[i - 1];
    }
    config->members[at] = (struct raft_member){.node = node, .roles = roles};
    config->count++;
    return true;
}

/* The joint configuration between the one in force and `target`. */
static enum err raft_config_join(const struct raft *raft, const struct raft_config *target,
                                 struct raft_config *ret_joint)
{
    const struct raft_config *from = &raft_config(raft)->config;
    struct raft_config joint = {0};
    for (uint32_t i = 0; i < target->count; i++) {
        uint8_t roles = target->members[i].roles;
        bool plain = roles == RAFT_VOTER || roles == RAFT_LEARNER || roles == (RAFT_LEARNER | RAFT_PROMOTE);
        if (!plain || !raft_config_add(&joint, target->members[i].node, roles)) {
            return ERR_INVALID;
        }
    }
    for (uint32_t i = 0; i < from->count; i++) {
        if (!(from->members[i].roles & RAFT_VOTER)) {
            continue;
        }
        /* a voter that goes back to learning is not promoted again by itself */
        uint8_t roles = raft_config_roles(&joint, from->members[i].node);
        if ((roles & RAFT_PROMOTE) || !raft_config_add(&joint, from->members[i].node, RAFT_OUTGOING)) {
            return ERR_INVALID;
        }
    }
    if (!raft_config_is_sound(&joint)) {
        return ERR_INVALID;
    }
    *ret_joint = joint;
    return ERR_OK;
}

/* Every voter of the target votes now or is a learner that is caught up. */
static bool raft_voters_are_caught_up(struct raft *raft, const struct raft_config *target)
{
    for (uint32_t i = 0; i < target->count; i++) {
        uint8_t now = raft_config_roles(&raft_config(raft)->config, target->members[i].node);
        if (!(target->members[i].roles & RAFT_VOTER) || (now & RAFT_VOTER)) {
            continue;
        }
        const struct raft_peer *peer = raft_peer_find(raft, target->members[i].node);
        if (now == 0 || peer == NULL || !raft_is_caught_up(raft, peer)) {
            return false;
        }
    }
    return true;
}

static enum err raft_config_begin(struct raft *raft, const struct raft_config *target)
{
    struct raft_config joint;
    if (raft->role != RAFT_LEADER) {
        return ERR_NOT_LEADER;
    }
    if (!raft_is_ready(raft)) {
        return ERR_TERM_TOO_YOUNG;
    }
    const struct raft_config_at *now = raft_config(raft);
    if (now->index > raft->commit || raft_config_is_joint(&now->config) || raft->transfer != 0) {
        return ERR_CHANGE_PENDING;
    }
    if (!raft_config_is_sound(target)) {
        return ERR_INVALID;
    }
    enum err err = raft_config_join(raft, target, &joint);
    if (err != ERR_OK) {
        return err;
    }
    if (!raft_voters_are_caught_up(raft, target)) {
        return ERR_NOT_CAUGHT_UP;
    }
    raft_config_append(raft, &joint);
    return ERR_OK;
}

void raft_config_request(struct raft *raft, const struct raft_config *target)
{
    raft->update.propose_err = raft_config_begin(raft, target);
    if (raft->update.propose_err == ERR_OK) {
        raft->update.propose_index = raft->log.last;
        raft->update.propose_term = raft->term;
    }
}

/* The joint configuration is committed: what comes behind it is the half that comes. */
static void raft_joint_leave(struct raft *raft)
{
    const struct raft_config *joint = &raft_config(raft)->config;
    struct raft_config target = {0};
    for (uint32_t i = 0; i < joint->count; i++) {
        uint8_t roles = joint->members[i].roles & (uint8_t)~RAFT_OUTGOING;
        if (roles != 0) {
            target.members[target.count++] = (struct raft_member){.node = joint->members[i].node, .roles = roles};
        }
    }
    raft_config_append(raft, &target);
}

static void raft_learners_promote(struct raft *raft)
{
    struct raft_config target = raft_config(raft)->config;
    uint32_t voters = 0, promoted = 0;
    for (uint32_t i = 0; i < target.count; i++) {
        voters += target.members[i].roles == RAFT_VOTER;
    }
    for (uint32_t i = 0; i < target.count; i++) {
        bool wants = (target.members[i].roles & RAFT_PROMOTE) != 0;
        if (wants && raft_is_caught_up(raft, &raft->peers[i]) && voters + promoted < LIMIT_RAFT_MEMBERS) {
            target.members[i].roles = RAFT_VOTER;
            promoted++;
        }
    }
    struct raft_config joint;
    if (promoted > 0 && raft_config_join(raft, &target, &joint) == ERR_OK) {
        raft_config_append(raft, &joint);
    }
}

/* ---- transfer ---- */

/* The voter whose log is longest here, of those that answer; of all when none does. 0: there is none. */
static uint32_t raft_transfer_best(const struct raft *raft)
{
    const struct raft_peer *best = NULL;
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        const struct raft_peer *peer = &raft->peers[i];
        if (i == raft->self || !(peer->roles & RAFT_VOTER) || peer->match == 0) {
            continue;
        }
        bool answers = raft_peer_answers(raft, peer), best_answers = best != NULL && raft_peer_answers(raft, best);
        if (best == NULL || (answers && !best_answers) || (answers == best_answers && peer->match > best->match)) {
            best = peer;
        }
    }
    return best != NULL ? best->node : 0;
}

void raft_transfer_request(struct raft *raft, uint32_t node)
{
    enum err err = ERR_OK;
    node = node == 0 && raft->role == RAFT_LEADER ? raft_transfer_best(raft) : node;
    const struct raft_peer *peer = raft_peer_find(raft, node);
    if (raft->role != RAFT_LEADER) {
        err = ERR_NOT_LEADER;
    } else if (peer == NULL || !(peer->roles & RAFT_VOTER)) {
        err = ERR_INVALID;
    } else if (raft->transfer != 0) {
        err = ERR_CHANGE_PENDING;
    } else {
        raft->transfer = node;
        raft->transfer_elapsed = 0;
        raft->transfer_told = false;
    }
    raft->update.propose_err = err;
}

void raft_transfer_tick(struct raft *raft)
{
    if (raft->transfer == 0) {
        return;
    }
    raft->transfer_told = false; /* the word may be lost: once a tick */
    if (++raft->transfer_elapsed >= raft->params.election_ticks) {
        raft->transfer = 0;
    }
}

static void raft_transfer_settle(struct raft *raft)
{
    const struct raft_peer *peer = raft_peer_find(raft, raft->transfer);
    if (peer == NULL || !(peer->roles & RAFT_VOTER)) {
        raft->transfer = 0;
    } else if (!raft->transfer_told && peer->match == raft->log.last) {
        raft->transfer_told = true;
        raft_send(raft, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .to = peer->node});
    }
}

/* The leader is no voter of the committed configuration. A last round tells the others the commit index, and the best
 * of them does not wait for its election timeout. */
static void raft_resign(struct raft *raft)
{
    uint32_t best = raft_transfer_best(raft);
    raft_heartbeat_round(raft);
    if (best != 0) {
        raft_send(raft, (struct raft_message){.kind = RAFT_TIMEOUT_NOW, .to = best});
    }
    raft_become_follower(raft, raft->term, 0);
}

void raft_member_settle(struct raft *raft)
{
    if (raft->role != RAFT_LEADER) {
        return;
    }
    if (raft->transfer != 0) {
        raft_transfer_settle(raft);
        return;
    }
    if (!raft_is_ready(raft) || raft_config(raft)->index > raft->commit) {
        return;
    }
    if (raft_config_is_joint(&raft_config(raft)->config)) {
        raft_joint_leave(raft);
    } else if (!raft_self_votes(raft)) {
        raft_resign(raft);
    } else {
        raft_learners_promote(raft);
    }
}
