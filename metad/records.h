/* What nearly every command reads, kept unpacked while a step lasts: the namespace, its folders, the user. In the way
 * of a mutation it stands between the operations and the state: a load of entries unpacks each of them once and packs
 * it once, at the end of the step. What is stored is what it would be without.
 *
 * A record is given out as a copy that the command may change, and is not changed before it is put; its name and its
 * unknown fields are shared and are not written to. Nothing is kept behind the step, nor under another view.
 * records_settle writes what was put into the step's batch and forgets all: who reads these keys in another way (a
 * scan, a query of the database) does so behind it. At most RECORDS_FOLDERS folders are kept; what is beyond is read
 * and written directly. */
#ifndef CAIRN_METAD_RECORDS_H
#define CAIRN_METAD_RECORDS_H

#include "metad/machine.h"

#define RECORDS_FOLDERS 1024u

/* NOT_FOUND, CORRUPT. The record lies in `arena`. */
MUST_CHECK enum err records_namespace(struct state *state, uint64_t ns, struct proto_arena *arena,
                                      Cairn__NamespaceRecord **ret);
void records_namespace_put(struct state *state, const Cairn__NamespaceRecord *record);
/* Likewise; one without four lanes is CORRUPT. */
MUST_CHECK enum err records_folder(struct state *state, uint64_t ns, uint64_t folder, struct proto_arena *arena,
                                   Cairn__FolderRecord **ret);
void records_folder_put(struct state *state, uint64_t ns, uint64_t folder, const Cairn__FolderRecord *record);
void records_folder_delete(struct state *state, uint64_t ns, uint64_t folder);
/* Likewise; good until records_settle, not to be changed. */
MUST_CHECK enum err records_user(struct state *state, uint64_t user, struct proto_arena *arena,
                                 const Cairn__UserRecord **ret);

/* Writes what was put, and forgets all. Not while a command holds a record. */
void records_settle(struct state *state);
/* No more folders are kept before records_settle. */
bool records_are_full(const struct state *state);
/* Frees the memory; nothing that was put may be left. */
void records_deinit(struct state *state);

#endif
