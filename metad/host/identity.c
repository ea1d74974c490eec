/* Which log speaks: peers recognise a node whose directory was emptied or put back from an older copy (R-E3). Such a
 * node has forgotten votes and entries that others counted, and must not be counted again.
 *
 * Each Raft frame and each answer about an entry names the sender's directory, a random number of its process, and two
 * positions of its node-wide log: what the process found at its start and what is durable now; most also the numbers of
 * the processes that its directory had before. The highest that was heard of a member goes into this node's log with
 * the group's next append. A member that comes back, a new process, with another directory, with less than that, or out
 * of a directory that never had the process which was heard is *stale*: what it says is refused (STALE_PEER), votes and
 * requests for them too, for its vote for itself would count. Only as a leader it is followed: others elected it, for
 * whom it may have its vote again. A leader's heartbeats tell its followers of the others, who seldom speak to them;
 * that is judged alike, and clears nobody. Their answers tell the leader whom they found stale, who may have been heard
 * by them alone: it takes their word.
 *
 * The way back is a committed change of members: the leader makes a stale voter a learner, then one to be promoted. Who
 * is no voter in the committed configuration is believed anew, and catches up like any learner. Where what is left has
 * no majority nothing is done: an operator decides.
 *
 * A process, directory or configuration heard for the first time is written down at the next tick, positions with what
 * the group writes anyway. What is left over: what was heard and not yet written when this node itself crashed; a copy
 * put back that holds all that this node ever heard of the member (it was cut off since before the member's last
 * start). */
#include <string.h>

#include "base/check.h"
#include "metad/group.h"

#define DEMOTE_AGAIN_NS 1000000000ull

static struct identity *identity_find(struct group *group, uint32_t node)
{
    for (uint32_t i = 0; i < group->identity_count; i++) {
        if (group->identities[i].peer.node == node) {
            return &group->identities[i];
        }
    }
    return NULL;
}

bool identity_open(struct group *group, struct reader *reader)
{
    struct log_peer peers[RAFT_MEMBERS_MAX];
    uint32_t count = 0;
    group->boot =
        group->params.boot_count > 0 ? group->params.boots[group->params.boot_count - 1] : group->event->random;
    group->boot_position = group->position = reader_u64(reader);
    if (!log_peers_read(reader, peers, &count) || reader->left != 0) {
        return false;
    }
    group->identity_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        /* heard before members changed, and not written again since: it may have rejoined */
        if (peers[i].config >= group->at.config.index) {
            group->identities[group->identity_count++] =
                (struct identity){.peer = peers[i], .found = peers[i].position};
        }
    }
    return true;
}

void identity_put(const struct group *group, Cairn__LogIdentity *ret, bool whole)
{
    ret->lists = group->params.boot_count > 1;
    if (ret->lists && whole) {
        ret->boots = (uint64_t *)(uintptr_t)group->params.boots;
        ret->n_boots = group->params.boot_count;
    }
    const struct uuid *directory = &group->params.directory;
    ret->directory = (ProtobufCBinaryData){sizeof directory->bytes, (uint8_t *)(uintptr_t)directory->bytes};
    ret->boot = group->boot;
    ret->boot_position = group->boot_position;
    ret->position = group->position;
}

/* A row for a member not known yet, at the expense of one that is none any more. Nothing is left in it of who had it
 * before: that may have been the same member, of a directory that is no more. */
static struct identity *identity_row(struct group *group)
{
    if (group->identity_count < RAFT_MEMBERS_MAX) {
        struct identity *row = &group->identities[group->identity_count++];
        *row = (struct identity){0};
        return row;
    }
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (!raft_names(group->raft, group->identities[i].peer.node)) {
            return &group->identities[i];
        }
    }
    return NULL;
}

/* What is known of it now was heard, or held to, under the present configuration. */
static void identity_heard_now(struct group *group, struct identity *known)
{
    if (group->at.config.index > known->peer.config) {
        known->peer.config = group->at.config.index;
        group->identities_new = true;
    }
    group->identities_due = true;
}

static void identity_changed(struct group *group)
{
    group->identities_due = group->identities_new = true;
}

static void identity_take(struct group *group, struct identity *known, uint32_t node, const Cairn__LogIdentity *told)
{
    *known = (struct identity){.peer = {.node = node, .boot = told->boot, .position = told->position},
                               .found = told->boot_position};
    memcpy(known->peer.directory.bytes, told->directory.data, sizeof known->peer.directory.bytes);
    identity_heard_now(group, known);
    identity_changed(group);
}

void identity_relay(const struct group *group, Cairn__LogIdentity *ret, Cairn__LogIdentity **ret_list,
                    size_t *ret_count)
{
    size_t count = 0;
    for (uint32_t i = 0; i < group->identity_count; i++) {
        const struct log_peer *peer = &group->identities[i].peer;
        if (group->identities[i].stale) {
            continue;
        }
        ret[count] = (Cairn__LogIdentity)CAIRN__LOG_IDENTITY__INIT;
        ret[count].node = peer->node;
        ret[count].directory =
            (ProtobufCBinaryData){sizeof peer->directory.bytes, (uint8_t *)(uintptr_t)peer->directory.bytes};
        ret[count].boot = peer->boot;
        ret[count].boot_position = group->identities[i].found;
        ret[count].position = peer->position;
        ret_list[count] = &ret[count];
        count++;
    }
    *ret_count = count;
}

/* In the committed configuration. One that was heard under a later one is held to that: behind a restart older ones are
 * applied again one by one. Where all was lost with the state (R-E5) all that was heard is held to. */
static bool identity_votes(const struct group *group, uint32_t node, const struct identity *known)
{
    const struct raft_config_at *at = &group->at.config;
    return at->config.count == 0 || (known != NULL && known->peer.config > at->index) ||
           (raft_config_roles(&at->config, node) & (RAFT_VOTER | RAFT_OUTGOING)) != 0;
}

/* Its directory never had the process `boot`. One that remembers all it can may have forgotten it. */
static bool identity_never_had(const Cairn__LogIdentity *told, uint64_t boot)
{
    for (size_t i = 0; i < told->n_boots; i++) {
        if (told->boots[i] == boot) {
            return false;
        }
    }
    return told->n_boots > 0 && told->n_boots < LIMIT_LOG_BOOTS;
}

/* Another process than the one heard last has less than that had. */
static bool identity_lacks(const struct identity *known, const Cairn__LogIdentity *told)
{
    bool same = memcmp(known->peer.directory.bytes, told->directory.data, sizeof known->peer.directory.bytes) == 0;
    bool less = told->boot_position < known->peer.position || identity_never_had(told, known->peer.boot);
    return told->boot != known->peer.boot && (!same || less);
}

/* What Raft counts of a member is of a log that is no more. */
static void identity_raft_forget(struct group *group, uint32_t node)
{
    struct raft_event event = {.kind = RAFT_EVENT_PEER_FORGOT, .random = group->event->random, .peer = node};
    snapshot_send_forget(group, node); /* Raft asks for another one; two at once would undo each other for ever */
    group_raft(group, &event);
}

/* Who was found to lack something stays stale until it has rejoined: it writes while it is not counted, and its next
 * process has more than what it lacked was counted by. */
static void identity_judge(struct group *group, struct identity *known, const Cairn__LogIdentity *told)
{
    bool was_stale = known->stale;
    known->stale = was_stale || identity_lacks(known, told);
    if (known->stale) {
        identity_raft_forget(group, known->peer.node);
    }
    known->boot_before = was_stale ? known->boot_before : known->peer.boot;
    known->told_of = false;
    known->peer.boot = told->boot;
    known->found = told->boot_position;
}

/* It has no vote in the committed configuration, or was never heard: it is believed. */
static void identity_believe(struct group *group, struct identity *known, uint32_t node, const Cairn__LogIdentity *told)
{
    if (known != NULL && (known->stale || identity_lacks(known, told))) {
        identity_raft_forget(group, node);
    }
    known = known != NULL ? known : identity_row(group);
    bool news = known != NULL && (known->peer.node != node || told->boot != known->peer.boot || known->stale ||
                                  told->position > known->peer.position);
    if (news) {
        identity_take(group, known, node, told);
    }
}

enum err identity_hear(struct group *group, uint32_t node, const Cairn__LogIdentity *told)
{
    if (told == NULL || told->directory.len != sizeof group->params.directory.bytes || !raft_names(group->raft, node)) {
        return ERR_OK;
    }
    struct identity *known = identity_find(group, node);
    bool votes = identity_votes(group, node, known);
    if (known == NULL || !votes) {
        identity_believe(group, known, node, told);
        return ERR_OK;
    }
    if ((told->boot != known->peer.boot || known->told_of) && told->lists && told->n_boots == 0) {
        return ERR_NOT_READY; /* its next word tells what processes came before it */
    }
    if (told->boot != known->peer.boot) {
        if (told->boot == known->boot_before && told->boot != 0) {
            return ERR_STALE_PEER; /* a late frame of a process that is gone */
        }
        identity_judge(group, known, told);
        identity_changed(group);
    } else if (known->told_of && told->n_boots > 0) {
        known->told_of = false;
        if (!known->stale && identity_never_had(told, known->boot_before)) {
            known->stale = true;
            identity_changed(group);
            identity_raft_forget(group, node);
        }
    }
    if (known->stale) {
        return ERR_STALE_PEER;
    }
    if (told->position > known->peer.position || group->at.config.index > known->peer.config) {
        known->peer.position = told->position > known->peer.position ? told->position : known->peer.position;
        identity_heard_now(group, known);
    }
    return ERR_OK;
}

/* Processes of one log follow each other: the later one found all that the earlier told. Told of one that ended behind
 * what is known, this node knows the later one; told of one that began before it, one of the two was put back. Which it
 * was need not be known: neither is counted. */
static void identity_learn_one(struct group *group, const Cairn__LogIdentity *told)
{
    struct identity *known = identity_find(group, told->node);
    bool votes = identity_votes(group, told->node, known);
    if (known == NULL || !votes) {
        known = known != NULL ? known : identity_row(group);
        bool news = known != NULL && (known->peer.node != told->node || told->position > known->peer.position ||
                                      memcmp(known->peer.directory.bytes, told->directory.data, 16) != 0);
        if (news) {
            identity_take(group, known, told->node, told);
        }
        return;
    }
    if (known->stale || told->position <= known->peer.position) {
        return;
    }
    if (told->boot != known->peer.boot) {
        identity_judge(group, known, told);
        known->told_of = true;
        identity_changed(group);
    }
    known->peer.position = told->position;
    identity_heard_now(group, known);
}

void identity_learn(struct group *group, const Cairn__RaftMessage *wire)
{
    if (wire->known_at != group->at.config.index + 1) {
        return; /* whose vote it is may differ: by the next heartbeats it does not */
    }
    for (size_t i = 0; i < wire->n_known; i++) {
        const Cairn__LogIdentity *told = wire->known[i];
        if (told->node != group->params.self && told->directory.len == sizeof group->params.directory.bytes &&
            raft_names(group->raft, told->node)) {
            identity_learn_one(group, told);
        }
    }
}

size_t identity_report(const struct group *group, uint32_t *ret_nodes)
{
    size_t count = 0;
    for (uint32_t i = 0; i < group->identity_count; i++) {
        const struct identity *known = &group->identities[i];
        if (known->stale && identity_votes(group, known->peer.node, known)) {
            ret_nodes[count++] = known->peer.node;
        }
    }
    return count;
}

/* A follower that this leader believes holds a voter for stale. Of one never heard here nothing but that is known, and
 * so it stays in the log: no directory is that one. */
static void identity_reported_one(struct group *group, uint32_t node)
{
    struct identity *known = identity_find(group, node);
    if (!raft_names(group->raft, node) || !identity_votes(group, node, known) || (known != NULL && known->stale)) {
        return;
    }
    if (known == NULL) {
        known = identity_row(group);
        if (known == NULL) {
            return;
        }
        *known = (struct identity){.peer = {.node = node}};
        identity_heard_now(group, known);
    }
    known->stale = true;
    known->told_of = false;
    identity_changed(group);
    identity_raft_forget(group, node);
}

void identity_reported(struct group *group, const Cairn__RaftMessage *wire)
{
    struct raft_status status = raft_status(group->raft);
    bool votes = (raft_config_roles(&group->at.config.config, wire->from) & (RAFT_VOTER | RAFT_OUTGOING)) != 0;
    if (status.role != RAFT_LEADER || status.term != wire->term || !votes ||
        wire->known_at != group->at.config.index + 1) {
        return; /* it may have rejoined for one of the two */
    }
    for (size_t i = 0; i < wire->n_stale; i++) {
        if (wire->stale[i] != group->params.self) {
            identity_reported_one(group, wire->stale[i]);
        }
    }
}

bool identity_is_stale(const struct group *group, uint32_t node)
{
    for (uint32_t i = 0; i < group->identity_count; i++) {
        if (group->identities[i].peer.node == node) {
            return group->identities[i].stale;
        }
    }
    return false;
}

void identity_note_lost(struct group *group, uint32_t node, bool lost)
{
    struct identity *known = identity_find(group, node);
    if (known != NULL) {
        known->lost = lost;
    }
}

bool identity_is_lost(const struct group *group, uint32_t node)
{
    for (uint32_t i = 0; i < group->identity_count; i++) {
        if (group->identities[i].peer.node == node) {
            return group->identities[i].lost;
        }
    }
    return false;
}

/* Of one that is stale the log keeps the process before it: after a restart here it is judged again. `now`: no append
 * follows that would take it along. What a snapshot made this node forget stays in the log until that is durable. */
static void identity_send(struct group *group, bool now)
{
    if (!group->identities_due || group->in.flush != 0) {
        return;
    }
    group->identities_due = group->identities_new = false;
    struct log_peer peers[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < group->identity_count; i++) {
        peers[i] = group->identities[i].peer;
        peers[i].boot = group->identities[i].stale ? group->identities[i].boot_before : peers[i].boot;
    }
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u8(&header, now);
    log_peers_put(peers, group->identity_count, &header);
    group_log_send(group, MESSAGE_LOG_PEERS, 0, &header, (struct slice){0});
}

void identity_tell_log(struct group *group)
{
    identity_send(group, false);
}

void identity_config(struct group *group, uint64_t index, const struct raft_config *config)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < group->identity_count; i++) {
        const struct log_peer *peer = &group->identities[i].peer;
        bool votes = (raft_config_roles(config, peer->node) & (RAFT_VOTER | RAFT_OUTGOING)) != 0;
        if (votes || peer->config >= index) {
            group->identities[kept++] = group->identities[i];
        }
    }
    if (kept != group->identity_count) {
        identity_changed(group);
    }
    group->identity_count = kept;
}

void identity_forget(struct group *group)
{
    group->identities_due = group->identity_count > 0;
    group->identity_count = 0;
}

/* The next step for one member: a stale voter becomes a learner, where the voters left have a majority that answers; a
 * learner, which nobody else makes, is to be promoted (Raft takes no voter to promotion at once). False: nothing is to
 * be done. */
static bool config_rejoin(const struct group *group, const struct raft_status *status, struct raft_config *ret_config)
{
    struct raft_config config = status->config.config;
    uint32_t left = 0, answers = 0, changed = 0;
    for (uint32_t i = 0; i < config.count; i++) {
        struct raft_member *member = &config.members[i];
        bool stale = member->roles == RAFT_VOTER && identity_is_stale(group, member->node);
        if (changed == 0 && (stale || member->roles == RAFT_LEARNER)) {
            member->roles = stale ? RAFT_LEARNER : RAFT_LEARNER | RAFT_PROMOTE;
            changed = member->node;
        } else if ((member->roles & RAFT_VOTER) != 0) {
            left++;
            answers += status->answers[i];
        }
    }
    *ret_config = config;
    return changed != 0 && answers > left / 2;
}

void identity_tick(struct group *group)
{
    if (group->identities_new) {
        identity_send(group, true);
    }
    struct raft_status status = raft_status(group->raft);
    bool settled = status.config.index <= status.commit && !raft_config_is_joint(&status.config.config);
    struct raft_config config;
    if (status.role != RAFT_LEADER || !status.ready || !settled || group->draining ||
        group->event->now_ns < group->demote_at_ns || !config_rejoin(group, &status, &config)) {
        return;
    }
    group->demote_at_ns = group->event->now_ns + DEMOTE_AGAIN_NS;
    struct raft_event event = {.kind = RAFT_EVENT_CONFIG, .random = group->event->random, .config = &config};
    enum err err = group_raft(group, &event);
    if (err != ERR_OK) {
        group->refused[err]++; /* another change is under way: later */
    }
}
