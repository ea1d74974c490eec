/* The functions of the operation table (operations.c), one file each in this folder and in root/. */
#ifndef CAIRN_METAD_NAMESPACE_OPERATIONS_H
#define CAIRN_METAD_NAMESPACE_OPERATIONS_H

#include "metad/machine.h"

enum err mkdir_apply(struct apply *apply, struct answer *answer);
enum err move_apply(struct apply *apply, struct answer *answer);
enum err remove_apply(struct apply *apply, struct answer *answer);
enum err put_small_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err put_small_apply(struct apply *apply, struct answer *answer);
enum err upload_start_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err upload_start_apply(struct apply *apply, struct answer *answer);
enum err upload_start_finish(struct finish *finish, struct answer *answer);
enum err upload_stage_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err upload_stage_apply(struct apply *apply, struct answer *answer);
enum err upload_stage_finish(struct finish *finish, struct answer *answer);
enum err upload_complete_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena);
enum err upload_complete_apply(struct apply *apply, struct answer *answer);
enum err list_query(struct query *query, const void *message, struct answer *answer);
enum err stat_query(struct query *query, const void *message, struct answer *answer);
enum err manifest_query(struct query *query, const void *message, struct answer *answer);
enum err changes_query(struct query *query, const void *message, struct answer *answer);
enum err references_query(struct query *query, const void *message, struct answer *answer);
enum err resolve_query(struct query *query, const void *message, struct answer *answer);

/* Group 0. */
enum err map_get_query(struct query *query, const void *message, struct answer *answer);
enum err admin_status_query(struct query *query, const void *message, struct answer *answer);
enum err admin_stores_query(struct query *query, const void *message, struct answer *answer);
enum err admin_nodes_query(struct query *query, const void *message, struct answer *answer);
enum err admin_group_query(struct query *query, const void *message, struct answer *answer);

/* Writes the first records of a namespace group when its boot entry is applied. */
void namespace_bootstrap(struct state *state, const struct bootstrap *bootstrap);

#endif
