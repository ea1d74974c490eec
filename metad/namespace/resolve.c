/* RESOLVE: the name of a workspace to its root namespace, for one who may see it. */
#include <string.h>

#include "base/check.h"
#include "metad/namespace/operations.h"

enum err resolve_query(struct query *query, const void *message, struct answer *answer)
{
    const Cairn__ResolveRequest *request = message;
    Cairn__NamespaceRecord *ns = NULL;
    enum err err = namespace_get(query->state, NAMESPACE_FIRST, query->arena, &ns);
    if (err != ERR_OK) {
        return err;
    }
    if (strcmp(ns->workspace, request->workspace) != 0) {
        return ERR_DENIED;
    }
    Cairn__ResolveReply reply = CAIRN__RESOLVE_REPLY__INIT;
    reply.ns = ns->ns;
    reply.root = ns->root;
    reply.ns_incarnation = ns->incarnation;
    reply.pool = ns->pool;
    reply.realm = ns->realm;
    reply.chunk_bytes = ns->chunk_bytes;
    reply.cut_min_bytes = ns->cut_min_bytes;
    reply.cut_avg_bytes = ns->cut_avg_bytes;
    reply.copy_bytes = ns->copy_bytes;
    answer_set(answer, &reply);
    return ERR_OK;
}
