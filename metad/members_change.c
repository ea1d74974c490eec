/* ADMIN_MEMBERS: one metadata node more or less among the voters of a group. The leader does what is left to be done
 * and says whether it is so; who asks, asks again until it is. So a change resumes after anything: another leader,
 * another asker.
 *
 *   add      learner to be promoted -> caught up -> joint -> voter        (raft/member.c does what follows the learner)
 *   remove   joint -> gone; a leader that removes itself resigns when that is committed
 *
 * Refused: before the leader has committed in its term (TERM_TOO_YOUNG), while another change is under way, a learner
 * on its way to be a voter included (CHANGE_PENDING), where the voters left have no majority that answers
 * (LAST_QUORUM) or, in group 0, none that clients surely know (NOT_READY), and a node that this group's replica of the
 * map does not know (NOT_READY: the map may be on its way).
 * A question that only checks is refused likewise and begins nothing: who removes asks all groups before the first. */
#include <stdarg.h>
#include <stdio.h>

#include "base/check.h"
#include "metad/members.h"
#include "metad/root/root.h"

#define TEXT_BYTES 160u

__attribute__((format(printf, 4, 5))) static enum err refuse(struct answer *answer, struct proto_arena *arena,
                                                             enum err err, const char *format, ...)
{
    char *text = proto_arena_take(arena, TEXT_BYTES);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, TEXT_BYTES, format, arguments);
    va_end(arguments);
    answer->text = text;
    return err;
}

static uint32_t member_place(const struct raft_config *config, uint32_t node)
{
    uint32_t at = 0;
    while (at < config->count && config->members[at].node != node) {
        at++;
    }
    return at;
}

/* How it stands: roles, and what the node lacks. */
static void change_tell(const struct raft_status *status, uint32_t node, bool done, struct answer *answer)
{
    const struct raft_config *config = &status->config.config;
    Cairn__AdminMembersReply reply = CAIRN__ADMIN_MEMBERS_REPLY__INIT;
    uint32_t at = member_place(config, node);
    reply.done = done;
    if (at < config->count) {
        reply.roles = config->members[at].roles;
        reply.lag = status->last > status->match[at] ? status->last - status->match[at] : 0;
        reply.answers = status->answers[at];
    }
    answer_set(answer, &reply);
}

/* The configuration in force is a whole one, and decided. */
static bool config_is_settled(const struct raft_status *status)
{
    return status->config.index <= status->commit && !raft_config_is_joint(&status->config.config);
}

/* A node other than this one that is on its way to be a voter; 0: none. */
static uint32_t config_promotes(const struct raft_config *config, uint32_t but)
{
    for (uint32_t i = 0; i < config->count; i++) {
        if ((config->members[i].roles & RAFT_PROMOTE) != 0 && config->members[i].node != but) {
            return config->members[i].node;
        }
    }
    return 0;
}

/* Would the voters left have a majority that answers? */
static enum err check_quorum(const struct raft_status *status, uint32_t node, struct answer *answer,
                             struct proto_arena *arena)
{
    const struct raft_config *config = &status->config.config;
    uint32_t left = 0, answer_left = 0;
    if ((raft_config_roles(config, node) & RAFT_VOTER) == 0) {
        return ERR_OK;
    }
    for (uint32_t i = 0; i < config->count; i++) {
        bool counts = (config->members[i].roles & RAFT_VOTER) != 0 && config->members[i].node != node;
        left += counts;
        answer_left += counts && status->answers[i];
    }
    if (2 * answer_left > left) {
        return ERR_OK;
    }
    return refuse(
        answer, arena, ERR_LAST_QUORUM,
        "without metad%u %u of %u metadata nodes left answer, which is no majority; bring others back or add one "
        "first",
        (unsigned)node, (unsigned)answer_left, (unsigned)left);
}

/* Would one be left whom all know that fetch the map? Who knows only nodes that are gone finds nobody. Group 0 answers
 * for all groups: it has the newest map, and it is the last that a node leaves. */
static enum err check_heard(const struct group *group, const struct raft_config *config, uint32_t node,
                            struct answer *answer, struct proto_arena *arena)
{
    bool heard = group->params.group != 0 || (raft_config_roles(config, node) & RAFT_VOTER) == 0;
    for (uint32_t i = 0; i < config->count; i++) {
        uint32_t other = config->members[i].node;
        bool stays = other != node && (config->members[i].roles & RAFT_VOTER) != 0;
        heard = heard || (stays && map_metad_is_heard(group->keyring.map, other));
    }
    return heard ? ERR_OK
                 : refuse(answer, arena, ERR_NOT_READY,
                          "without metad%u all metadata nodes left are in use for less than a minute, and clients may "
                          "know none of them; run this again then",
                          (unsigned)node);
}

static enum err change_begin(struct group *group, const struct raft_config *target, struct answer *answer,
                             struct proto_arena *arena)
{
    struct raft_event event = {.kind = RAFT_EVENT_CONFIG, .random = group->event->random, .config = target};
    enum err err = group_raft(group, &event);
    if (err == ERR_INVALID) {
        return refuse(answer, arena, ERR_TOO_LARGE, "a group has 1 to %u voters", LIMIT_RAFT_MEMBERS);
    }
    return err;
}

static enum err target_add(struct group *group, struct raft_config *target, uint32_t node, struct answer *answer,
                           struct proto_arena *arena)
{
    uint32_t at = member_place(target, node);
    if (!members_are_known(group, node)) {
        return refuse(answer, arena, ERR_NOT_READY, "metad%u is not in the map here yet", (unsigned)node);
    }
    if (at == target->count) {
        if (target->count == RAFT_MEMBERS_MAX) {
            return refuse(answer, arena, ERR_TOO_LARGE, "a group has 1 to %u voters", LIMIT_RAFT_MEMBERS);
        }
        for (at = target->count++; at > 0 && target->members[at - 1].node > node; at--) {
            target->members[at] = target->members[at - 1];
        }
    }
    target->members[at] = (struct raft_member){.node = node, .roles = RAFT_LEARNER | RAFT_PROMOTE};
    return ERR_OK;
}

static enum err target_remove(const struct group *group, const struct raft_status *status, struct raft_config *target,
                              uint32_t node, struct answer *answer, struct proto_arena *arena)
{
    uint32_t at = member_place(target, node);
    CHECK(at < target->count);
    enum err err = check_quorum(status, node, answer, arena);
    if (err == ERR_OK) {
        err = check_heard(group, target, node, answer, arena);
    }
    if (err != ERR_OK) {
        return err;
    }
    for (target->count--; at < target->count; at++) {
        target->members[at] = target->members[at + 1];
    }
    return ERR_OK;
}

/* Nothing is under way: begins what is asked for. */
static enum err change_settled(struct group *group, const struct raft_status *status,
                               const Cairn__AdminMembersRequest *request, struct answer *answer,
                               struct proto_arena *arena)
{
    uint32_t node = request->add != 0 ? request->add : request->remove;
    uint32_t other = config_promotes(&status->config.config, node);
    struct raft_config target = status->config.config;
    if (other != 0) {
        return refuse(answer, arena, ERR_CHANGE_PENDING,
                      "metad%u is being added; let 'cairn admin node add metad%u' finish, or remove it",
                      (unsigned)other, (unsigned)other);
    }
    enum err err = request->add != 0 ? target_add(group, &target, node, answer, arena)
                                     : target_remove(group, status, &target, node, answer, arena);
    return err == ERR_OK && !request->check ? change_begin(group, &target, answer, arena) : err;
}

enum err members_change(struct group *group, const struct message *message, const void *unpacked,
                        struct proto_arena *arena, struct answer *answer)
{
    (void)message;
    const Cairn__AdminMembersRequest *request = unpacked;
    if ((request->add == 0) == (request->remove == 0)) {
        return ERR_INVALID;
    }
    struct raft_status status = raft_status(group->raft);
    uint32_t node = request->add != 0 ? request->add : request->remove;
    uint8_t roles = raft_config_roles(&status.config.config, node);
    bool wanted = request->add != 0 ? roles == RAFT_VOTER : roles == 0;
    if (!config_is_settled(&status)) {
        /* the half that comes: is it what is asked for? */
        bool coming = request->add != 0 ? (roles & RAFT_VOTER) != 0 || roles == (RAFT_LEARNER | RAFT_PROMOTE)
                                        : (roles & ~RAFT_OUTGOING) == 0;
        if (!coming) {
            return ERR_CHANGE_PENDING;
        }
        change_tell(&status, node, false, answer);
        return ERR_OK;
    }
    bool on_its_way = request->add != 0 && roles == (RAFT_LEARNER | RAFT_PROMOTE);
    enum err err = wanted || on_its_way ? ERR_OK : change_settled(group, &status, request, answer, arena);
    if (err == ERR_OK) {
        struct raft_status now = raft_status(group->raft);
        change_tell(&now, node, wanted, answer);
    }
    return err;
}
