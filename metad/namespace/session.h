/* Upload sessions and the commit of a version, shared by start, stage, complete and put_small. */
#ifndef CAIRN_METAD_NAMESPACE_SESSION_H
#define CAIRN_METAD_NAMESPACE_SESSION_H

#include "metad/machine.h"

/* A session expires when it was not staged to for so many ticks of cluster time (10 s each). */
#define SESSION_IDLE_TICKS 360u

/* Content without chunks lies in every replica of the group and in no store. */
#define INLINE_SAFE_LOSSES 2u

/* The user's open session, or SESSION_CLOSED (not there, not open any more, or another's: all alike). */
MUST_CHECK enum err session_get(struct state *state, uint64_t ns, uint64_t session, uint64_t user,
                                struct proto_arena *arena, Cairn__SessionRecord **ret);
/* Open sessions of the device in the namespace: at most LIMIT_OPEN_SESSIONS are opened. */
uint32_t session_count(struct state *state, uint64_t ns, uint32_t device);
/* A new session; one that was staged to (the record is written, with `tick`); one that is open no longer. */
void session_open(struct state *state, uint64_t ns, const Cairn__SessionRecord *session);
void session_touch(struct state *state, uint64_t ns, Cairn__SessionRecord *session, uint64_t tick);
void session_close(struct state *state, uint64_t ns, const Cairn__SessionRecord *session);
/* The open session that was not staged to for longest, if that is longer than SESSION_IDLE_TICKS; else NULL. */
Cairn__SessionRecord *session_most_idle(struct state *state, uint64_t ns, uint64_t tick, struct proto_arena *arena);
/* Compare-and-swap on the current version: EXISTS, CONFLICT, IS_A_FOLDER or OK. `present` NULL: the name is free. */
MUST_CHECK enum err base_check(const Cairn__EntryRecord *present, uint64_t base_version, bool any_base);
/* Commits `record` with `entry` (name, bytes, mode, mtime, safe_losses set) as the next version at `place`: entry,
 * history, sums, event. Fills the entry's ids, version and sequence. */
void version_commit(struct apply *apply, struct place *place, Cairn__EntryRecord *record, Cairn__Entry *entry);

#endif
