/* Members of a group at run time. Raft's core keeps the configuration (raft/member.c); here stands what the host
 * decides by it: whose frames are taken, whether a majority has room, and the requests of operators.
 *
 * Whose frames (R-E3, 4.2.2): the configuration in force says, or a committed one it may fall back on. Beyond it a node
 * must hear two kinds of servers it does not have: leaders and candidates of a newer configuration than its own (they
 * come with a term that is not behind), and servers that were removed and do not know, who are told so in answer to a
 * pre-vote (R12). A member that was away while the others were exchanged knows none of those by name, so it hears every
 * server that the map does not call gone; one that knows no members yet hears those named by map or configuration.
 *
 * Draining: the group finishes the entries it has in flight, asks Raft to hand over to the voter that is furthest and
 * answers, keeps what arrives meanwhile, and refuses it with NOT_LEADER once another leads. It tries a few times, then
 * gives up: a node that is the last one has nobody. While it drains it takes no leadership (a follower's clock stands
 * still), but votes and follows.
 *
 * A leader that its own replica of group 0 tells no keys and no map serves nobody (R-F6): that replica lost what it had
 * not flushed and hears no leader. It hands over as well, for another voter may have them. */
#include "metad/members.h"

#include <stdio.h>
#include <string.h>

#include "base/check.h"

#define DRAIN_TRIES 3u
#define KEYLESS_NS  3000000000ull

/* ---- whose frames ---- */

enum seat { SEAT_STRANGER, SEAT_KNOWN, SEAT_GONE };

static enum seat members_seat(const struct group *group, uint32_t node)
{
    const Cairn__ClusterMap *map = group->keyring.map;
    for (size_t i = 0; map != NULL && i < map->n_nodes; i++) {
        if (map->nodes[i]->role == ROLE_METAD && map->nodes[i]->id == node) {
            return map->nodes[i]->state == NODE_GONE ? SEAT_GONE : SEAT_KNOWN;
        }
    }
    const uint32_t *peers = group->params.peers;
    for (size_t i = 0; peers != NULL && peers[i] != 0; i++) {
        if (peers[i] == node) {
            return SEAT_KNOWN;
        }
    }
    return SEAT_STRANGER;
}

bool members_are_known(const struct group *group, uint32_t node)
{
    return members_seat(group, node) == SEAT_KNOWN;
}

static bool members_is_answer(uint8_t kind)
{
    return kind == RAFT_PRE_VOTE_REPLY || kind == RAFT_VOTE_REPLY || kind == RAFT_APPEND_REPLY ||
           kind == RAFT_HEARTBEAT_REPLY;
}

enum err members_admit(struct group *group, const struct raft_message *m)
{
    if (raft_names(group->raft, m->from)) {
        return ERR_OK;
    }
    enum seat seat = members_seat(group, m->from);
    struct raft_status status = raft_status(group->raft);
    bool joins = status.config.config.count == 0;
    if ((seat == SEAT_STRANGER && joins) || members_is_answer(m->kind)) {
        return ERR_NOT_MEMBER;
    }
    if (m->kind == RAFT_PRE_VOTE) {
        group->refused[ERR_NOT_MEMBER] += !joins;
        return ERR_OK; /* binds nobody, and the refusal says why (R12) */
    }
    if (seat == SEAT_GONE) {
        return ERR_NOT_MEMBER;
    }
    bool newer = m->term > status.term || (m->term == status.term && (status.leader == 0 || status.leader == m->from));
    return newer ? ERR_OK : ERR_NOT_MEMBER;
}

void members_note_address(struct group *group, uint32_t node, const char *address)
{
    const Cairn__MapNode *row = group->keyring.present ? map_find_metad(group->keyring.map, node) : NULL;
    bool news = row == NULL && node_address_is_sound(address) && strlen(address) < sizeof group->speaker_address;
    if (news) {
        group->speaker = node;
        strcpy(group->speaker_address, address);
    }
}

bool group_speaker(struct group *group, uint32_t *ret_node, const char **ret_address)
{
    *ret_node = group->speaker;
    *ret_address = group->speaker_address;
    group->speaker = 0;
    return *ret_node != 0;
}

/* ---- room ---- */

static uint32_t *room_row(struct group *group, uint32_t node)
{
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (group->short_of_room[i] == node) {
            return &group->short_of_room[i];
        }
    }
    return NULL;
}

/* A row for a node that is short, at the expense of one that is no member any more. */
static uint32_t *room_row_free(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    for (uint32_t i = 0; i < RAFT_MEMBERS_MAX; i++) {
        if (raft_config_roles(&status.config.config, group->short_of_room[i]) == 0) {
            return &group->short_of_room[i];
        }
    }
    return NULL;
}

void members_note_room(struct group *group, uint32_t node, bool room)
{
    CHECK(node != 0);
    uint32_t *row = room_row(group, node);
    if (room && row != NULL) {
        *row = 0;
    } else if (!room && row == NULL && (row = room_row_free(group)) != NULL) {
        *row = node;
    }
}

bool members_have_room(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    const struct raft_config *config = &status.config.config;
    uint32_t voters = 0, with_room = 0;
    members_note_room(group, group->params.self, kv_room(group->params.kv));
    for (uint32_t i = 0; i < config->count; i++) {
        bool votes = (config->members[i].roles & RAFT_VOTER) != 0;
        voters += votes;
        with_room += votes && room_row(group, config->members[i].node) == NULL;
    }
    return 2 * with_room > voters;
}

/* ---- handing over ---- */

bool members_hold_back(const struct group *group)
{
    return raft_status(group->raft).transfer != 0 || (group->draining && !group->drained);
}

/* Asks Raft; what it said is in ret_update's propose_err. */
static enum err members_raft_transfer(struct group *group, uint32_t node)
{
    struct raft_event event = {.kind = RAFT_EVENT_TRANSFER, .random = group->event->random, .peer = node};
    return group_raft(group, &event);
}

enum err members_transfer(struct group *group, const struct message *message, const void *unpacked,
                          struct proto_arena *arena, struct answer *answer)
{
    (void)message;
    const Cairn__AdminTransferRequest *request = unpacked;
    struct raft_status status = raft_status(group->raft);
    Cairn__AdminTransferReply reply = CAIRN__ADMIN_TRANSFER_REPLY__INIT;
    reply.node = request->node;
    reply.term = status.term;
    if (request->node == group->params.self) {
        answer_set(answer, &reply);
        return ERR_OK;
    }
    uint8_t roles = raft_config_roles(&status.config.config, request->node);
    if (request->node != 0 && (roles & RAFT_VOTER) == 0) {
        char *text = proto_arena_take(arena, 128);
        snprintf(text, 128, "metad%u is no voter of group %u; 'cairn admin groups' lists them", (unsigned)request->node,
                 (unsigned)group->params.group);
        answer->text = text;
        return ERR_NOT_FOUND;
    }
    enum err err = members_raft_transfer(group, request->node);
    if (err == ERR_OK) {
        reply.node = raft_status(group->raft).transfer;
        answer_set(answer, &reply);
    } else if (err == ERR_INVALID) {
        answer->text = "no other voter answers that could lead";
        err = ERR_LAST_QUORUM;
    }
    return err;
}

void members_tick(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    bool keyless = group->params.group != 0 && status.role == RAFT_LEADER && !group->keyring.present;
    if (!keyless || group->keyless_since_ns == 0) {
        group->keyless_since_ns = keyless ? group->event->now_ns : 0;
    } else if (group->event->now_ns >= group->keyless_since_ns + KEYLESS_NS && status.transfer == 0) {
        group->keyless_since_ns = group->event->now_ns;
        enum err err = members_raft_transfer(group, 0);
        group->refused[err] += err != ERR_OK; /* nobody to hand over to, or a change is under way: later */
    }
}

void members_drain(struct group *group)
{
    group->draining = true;
}

void members_drain_go_on(struct group *group)
{
    CHECK(group->draining);
    struct raft_status status = group->raft != NULL ? raft_status(group->raft) : (struct raft_status){0};
    bool leads = group->phase == GROUP_RUNNING && status.role == RAFT_LEADER;
    group->drained = !leads || group->drain_tries > DRAIN_TRIES;
    if (group->drained || status.transfer != 0 || group->flight_count > 0) {
        return;
    }
    group->drain_tries++;
    if (members_raft_transfer(group, 0) == ERR_INVALID) {
        group->drain_tries = DRAIN_TRIES + 1; /* no other voter: what waits is served here as long as there is time */
        group->drained = true;
    }
}

bool group_is_drained(const struct group *group)
{
    return group->drained;
}
