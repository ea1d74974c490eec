/* proto_unpack over every message of cairn.proto. Input: a byte that chooses the message, then the header. What unpacks
 * packs into something that unpacks and packs to the same bytes; and protobuf-c, behind a scan, takes the same. */
#include "base/check.h"
#include "base/limits.h"
#include "fuzz.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "tests/proto_oracle.h"

static const ProtobufCMessageDescriptor *const descriptors[] = {
    &cairn__hello__descriptor,
    &cairn__error_reply__descriptor,
    &cairn__raft_message__descriptor,
    &cairn__cluster_map__descriptor,
    &cairn__map_get_reply__descriptor,
    &cairn__store_register_request__descriptor,
    &cairn__store_register_reply__descriptor,
    &cairn__store_heartbeat_request__descriptor,
    &cairn__store_heartbeat_reply__descriptor,
    &cairn__admin_group_reply__descriptor,
    &cairn__admin_status_reply__descriptor,
    &cairn__admin_stores_reply__descriptor,
    &cairn__resolve_request__descriptor,
    &cairn__stat_request__descriptor,
    &cairn__stat_reply__descriptor,
    &cairn__list_reply__descriptor,
    &cairn__mkdir_request__descriptor,
    &cairn__changes_reply__descriptor,
    &cairn__upload_start_request__descriptor,
    &cairn__upload_stage_request__descriptor,
    &cairn__upload_stage_reply__descriptor,
    &cairn__upload_complete_request__descriptor,
    &cairn__put_small_request__descriptor,
    &cairn__manifest_reply__descriptor,
    &cairn__shard_put_request__descriptor,
    &cairn__shard_get_reply__descriptor,
    &cairn__inventory_reply__descriptor,
    &cairn__session_record__descriptor,
    &cairn__command__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    const ProtobufCMessageDescriptor *descriptor = descriptors[data[0] % (sizeof descriptors / sizeof descriptors[0])];
    struct proto_arena arena = {0};
    void *message = NULL;
    (void)proto_agrees(descriptor, data + 1, bytes - 1);
    if (proto_unpack(descriptor, slice_borrow(data + 1, bytes - 1), &arena, &message) == ERR_OK) {
        CHECK(arena.bytes <= LIMIT_PROTO_ARENA_BYTES);
        struct slice packed = proto_pack(message);
        struct proto_arena second_arena = {0};
        void *second = NULL;
        /* packing may not make it grow past what unpacking takes */
        enum err err = proto_unpack(descriptor, packed, &second_arena, &second);
        CHECK(err == ERR_OK);
        struct slice again = proto_pack(second);
        CHECK(slice_equal(packed, again));
        slice_drop(&packed);
        slice_drop(&again);
        proto_arena_deinit(&second_arena);
    }
    proto_arena_deinit(&arena);
    (void)error_reply_decode(slice_borrow(data, bytes), NULL);
    return 0;
}
