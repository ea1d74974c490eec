/* The members of a group, as its state knows them: who may speak to it, who has room, and what operators ask of them.
 */
#ifndef CAIRN_METAD_MEMBERS_H
#define CAIRN_METAD_MEMBERS_H

#include "metad/group.h"

/* May this message go to Raft? NOT_MEMBER: a stranger, a server that was removed, an answer from who is no member.
 * Counted by the caller. */
MUST_CHECK enum err members_admit(struct group *group, const struct raft_message *message);

/* The map or the configuration file names this metadata node, and it is not gone. */
bool members_are_known(const struct group *group, uint32_t node);
/* Where a server is reached that the map here does not have: kept for the shell (group_speaker). */
void members_note_address(struct group *group, uint32_t node, const char *address);
/* Each second: hands over what this node leads and cannot serve. */
void members_tick(struct group *group);
/* What a member says of its disk. */
void members_note_room(struct group *group, uint32_t node, bool room);
/* A majority of the voters has room for more: only then are mutations of people taken, for an entry that a majority
 * cannot apply stops them all. */
bool members_have_room(struct group *group);

/* ADMIN_MEMBERS: one node more or less among the voters. */
enum err members_change(struct group *group, const struct message *message, const void *request,
                        struct proto_arena *arena, struct answer *answer);
/* ADMIN_TRANSFER: the leader hands over. */
enum err members_transfer(struct group *group, const struct message *message, const void *request,
                          struct proto_arena *arena, struct answer *answer);
/* Leadership is on its way to another: what waits is not proposed, it would be refused (R15). */
bool members_hold_back(const struct group *group);

/* GROUP_DRAIN: from now on leads no longer than it must. */
void members_drain(struct group *group);
/* At the end of each step while it drains. */
void members_drain_go_on(struct group *group);

#endif
