/* The table of operations: one row each. What a request needs of its principal stands in proto/messages.def. */
#include "metad/namespace/operations.h"
#include "metad/root/root.h"

static const struct operation operations[] = {
    {.type = MESSAGE_UPLOAD_START, .kind = OPERATION_MUTATION, .request = &cairn__upload_start_request__descriptor,
     .prepare = upload_start_prepare, .apply = upload_start_apply, .finish = upload_start_finish,
     .body_limit = LIMIT_ASK_CHUNKS * 36},
    {.type = MESSAGE_UPLOAD_STAGE, .kind = OPERATION_MUTATION, .request = &cairn__upload_stage_request__descriptor,
     .prepare = upload_stage_prepare, .apply = upload_stage_apply, .finish = upload_stage_finish,
     .body_limit = LIMIT_ENTRY_BYTES / 2},
    {.type = MESSAGE_UPLOAD_COMPLETE, .kind = OPERATION_MUTATION, .request = &cairn__upload_complete_request__descriptor,
     .prepare = upload_complete_prepare, .apply = upload_complete_apply},
    {.type = MESSAGE_PUT_SMALL, .kind = OPERATION_MUTATION, .request = &cairn__put_small_request__descriptor,
     .prepare = put_small_prepare, .apply = put_small_apply, .body_limit = LIMIT_INLINE_BYTES},
    {.type = MESSAGE_MKDIR, .kind = OPERATION_MUTATION, .request = &cairn__mkdir_request__descriptor, .apply = mkdir_apply},
    {.type = MESSAGE_MOVE, .kind = OPERATION_MUTATION, .request = &cairn__move_request__descriptor, .apply = move_apply},
    {.type = MESSAGE_REMOVE, .kind = OPERATION_MUTATION, .request = &cairn__remove_request__descriptor, .apply = remove_apply},
    {.type = MESSAGE_LIST, .kind = OPERATION_QUERY, .request = &cairn__list_request__descriptor, .query = list_query},
    {.type = MESSAGE_STAT, .kind = OPERATION_QUERY, .request = &cairn__stat_request__descriptor, .query = stat_query},
    {.type = MESSAGE_MANIFEST, .kind = OPERATION_QUERY, .request = &cairn__manifest_request__descriptor, .query = manifest_query},
    {.type = MESSAGE_CHANGES, .kind = OPERATION_QUERY, .request = &cairn__changes_request__descriptor, .query = changes_query},
    {.type = MESSAGE_RESOLVE, .kind = OPERATION_QUERY, .request = &cairn__resolve_request__descriptor, .query = resolve_query},
    {.type = MESSAGE_STORE_REGISTER, .kind = OPERATION_MUTATION, .root = true,
     .request = &cairn__store_register_request__descriptor, .apply = store_register_apply, .finish = store_register_finish},
    {.type = MESSAGE_STORE_HEARTBEAT, .kind = OPERATION_LEADER, .root = true,
     .request = &cairn__store_heartbeat_request__descriptor},
    {.type = MESSAGE_MAP_GET, .kind = OPERATION_QUERY, .root = true, .request = &cairn__map_get_request__descriptor,
     .query = map_get_query},
    {.type = MESSAGE_ADMIN_STATUS, .kind = OPERATION_QUERY, .root = true, .request = &cairn__admin_status_request__descriptor,
     .query = admin_status_query},
    {.type = MESSAGE_ADMIN_STORES, .kind = OPERATION_QUERY, .root = true, .request = &cairn__admin_stores_request__descriptor,
     .query = admin_stores_query},
    {.type = MESSAGE_ADMIN_GROUP, .kind = OPERATION_REPLICA, .any_group = true,
     .request = &cairn__admin_group_request__descriptor, .query = admin_group_query},
};

const struct operation *operation_find(uint16_t type)
{
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++) {
        if (operations[i].type == type) {
            return &operations[i];
        }
    }
    return NULL;
}
