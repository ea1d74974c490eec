/* Everything but file contents: one request, one answer, unpacked by the shell. The core adds what the shell does not
 * know (the head: number, namespace, user) and finds the leader. */
#include "internal.h"

void tree_start(struct client *c, struct op_slot *slot, struct effects *fx)
{
    struct client_call *call = &slot->op->call;
    struct owner owner = {.kind = OWNER_CALL, .op = (uint32_t)(slot - c->slots), .gen = slot->gen};
    struct slice request = call->request;
    call->request = (struct slice){0};
    if (!call_room(c, 1)) {
        slice_drop(&request);
        client_op_finish(c, slot, ERR_BUSY, "too many requests at once", fx);
        return;
    }
    switch (call->route) {
    case CLIENT_ROUTE_ROOT:
        call_group(c, owner, call->type, 0, 0, call->mutation, request, (struct slice){0}, fx);
        break;
    case CLIENT_ROUTE_NAMESPACE: {
        uint64_t ns = c->workspaces[slot->workspace].ns;
        call_group(c, owner, call->type, route_group_of(c, ns), ns, call->mutation, request, (struct slice){0}, fx);
        break;
    }
    case CLIENT_ROUTE_GROUP:
        call_group(c, owner, call->type, call->group, 0, call->mutation, request, (struct slice){0}, fx);
        break;
    case CLIENT_ROUTE_NODE:
        call_node(c, owner, call->type, call->group, call->node, request, fx);
        break;
    case CLIENT_ROUTE_STORE:
        if (!call_store(c, owner, call->type, call->store, request, (struct slice){0}, fx)) {
            client_op_finish(c, slot, ERR_NOT_FOUND, "the map has no such store", fx);
        }
        break;
    }
}

void tree_on_done(struct client *c, struct op_slot *slot, const struct outcome *outcome, struct effects *fx)
{
    struct client_call *call = &slot->op->call;
    enum err err = outcome->err;
    if (err == ERR_OK && call->type == MESSAGE_MAP_GET) { /* the shell asked for it; the core learns by it too */
        err = route_take_map(c, outcome->header, fx);
    }
    if (err == ERR_OK) {
        call->reply = slice_ref(outcome->header);
        call->reply_body = slice_ref(outcome->body);
    }
    client_op_finish(c, slot, err, outcome->text, fx);
}
