/* Packing against protobuf-c's own, for messages whose fields are drawn: the bytes are the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/pack.h"

static uint64_t random_state;
static uint64_t draw(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state ^ random_state >> 29) * 0xbf58476d1ce4e5b9u >> 11;
}

/* Small, at the edges of a varint's lengths, or anything. */
static uint64_t draw_number(void)
{
    switch (draw() % 4) {
    case 0:
        return draw() % 3;
    case 1:
        return ((uint64_t)1 << (draw() % 64)) - draw() % 2;
    case 2:
        return UINT64_MAX - draw() % 2;
    default:
        return draw() << draw() % 12;
    }
}

static ProtobufCMessage *draw_message(const ProtobufCMessageDescriptor *descriptor, struct proto_arena *arena,
                                      unsigned most_bytes);

static size_t draw_value(const ProtobufCFieldDescriptor *field, struct proto_arena *arena, unsigned most_bytes,
                         void *member)
{
    size_t bytes = draw() % 4 == 0 ? 0 : draw() % most_bytes;
    uint8_t *data = NULL;
    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT32:
        *(uint32_t *)member = (uint32_t)draw_number();
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)member = draw() % 2;
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
        data = proto_arena_take(arena, bytes + 1);
        memset(data, 'a', bytes);
        *(char **)member = (char *)data;
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        data = proto_arena_take(arena, bytes + 1);
        memset(data, 0, bytes);
        *(ProtobufCBinaryData *)member = (ProtobufCBinaryData){bytes, data};
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        *(ProtobufCMessage **)member = draw_message(field->descriptor, arena, most_bytes);
        return sizeof(ProtobufCMessage *);
    default:
        *(uint64_t *)member = draw_number();
        return sizeof(uint64_t);
    }
}

static ProtobufCMessage *draw_message(const ProtobufCMessageDescriptor *descriptor, struct proto_arena *arena,
                                      unsigned most_bytes)
{
    ProtobufCMessage *message = proto_arena_take(arena, descriptor->sizeof_message);
    descriptor->message_init(message);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        uint8_t *member = (uint8_t *)message + field->offset;
        if (draw() % 4 == 0) {
            continue;
        }
        if (field->label != PROTOBUF_C_LABEL_REPEATED) {
            draw_value(field, arena, most_bytes, member);
            continue;
        }
        size_t count = draw() % 4, at = 0;
        uint8_t *items = proto_arena_take(arena, count * sizeof(ProtobufCBinaryData) + 1);
        for (size_t n = 0; n < count; n++) {
            at += draw_value(field, arena, most_bytes, items + at);
        }
        *(size_t *)(void *)((uint8_t *)message + field->quantifier_offset) = count;
        *(uint8_t **)(void *)member = items;
    }
    if (draw() % 4 == 0) {
        static uint8_t later[] = {2, 'x', 'y'};
        message->unknown_fields = proto_arena_take(arena, 2 * sizeof *message->unknown_fields);
        message->n_unknown_fields = 2;
        message->unknown_fields[0] = (ProtobufCMessageUnknownField){5000, PROTOBUF_C_WIRE_TYPE_VARINT, 1, later};
        message->unknown_fields[1] =
            (ProtobufCMessageUnknownField){127, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, 3, later};
    }
    return message;
}

/* What protobuf-c makes of it; and in a room that is a byte too small there is none. */
static void assert_packs(const ProtobufCMessage *message)
{
    size_t bytes = protobuf_c_message_get_packed_size(message), got = 0;
    uint8_t *wanted = malloc(bytes + 1), *room = malloc(bytes + 1);
    assert_true(wanted != NULL && room != NULL);
    assert_int_equal(protobuf_c_message_pack(message, wanted), bytes);
    uint8_t *packed = proto_pack_back(message, room, bytes, &got);
    assert_ptr_equal(packed, room);
    assert_int_equal(got, bytes);
    assert_memory_equal(packed, wanted, bytes);
    assert_true(bytes == 0 || proto_pack_back(message, room, bytes - 1, &got) == NULL);
    struct slice slice = proto_pack(message);
    assert_int_equal(slice.bytes, bytes);
    assert_true(bytes == 0 || memcmp(slice.data, wanted, bytes) == 0);
    slice_drop(&slice);
    free(wanted);
    free(room);
}

static void test_packs_as_protobuf_c(void **state)
{
    (void)state;
    static const ProtobufCMessageDescriptor *const descriptors[] = {
        &cairn__raft_message__descriptor,  &cairn__cluster_map__descriptor,    &cairn__stat_request__descriptor,
        &cairn__list_reply__descriptor,    &cairn__entry_record__descriptor,   &cairn__folder_record__descriptor,
        &cairn__answer_record__descriptor, &cairn__feed_batch__descriptor,     &cairn__namespace_record__descriptor,
        &cairn__command__descriptor,       &cairn__session_record__descriptor, &cairn__chunk_record__descriptor,
        &cairn__root_record__descriptor,   &cairn__upload_extra__descriptor,   &cairn__admin_status_reply__descriptor,
    };
    for (uint64_t seed = 1; seed <= 300; seed++) {
        for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++) {
            struct proto_arena arena = {0};
            random_state = seed * 1000 + i;
            assert_packs(draw_message(descriptors[i], &arena, seed % 5 == 0 ? 3000 : 140));
            proto_arena_deinit(&arena);
        }
    }
}

/* A kind of field that no message of ours has is protobuf-c's. */
static void test_leaves_the_rest_to_protobuf_c(void **state)
{
    (void)state;
    struct odd {
        ProtobufCMessage base;
        double value;
    };
    static const ProtobufCFieldDescriptor fields[] = {{.name = "value",
                                                       .id = 1,
                                                       .label = PROTOBUF_C_LABEL_NONE,
                                                       .type = PROTOBUF_C_TYPE_DOUBLE,
                                                       .offset = offsetof(struct odd, value)}};
    static const ProtobufCMessageDescriptor descriptor = {.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                          .name = "odd",
                                                          .sizeof_message = sizeof(struct odd),
                                                          .n_fields = 1,
                                                          .fields = fields};
    struct odd odd = {.base = {.descriptor = &descriptor}, .value = 1.5};
    uint8_t room[64];
    size_t bytes = 0;
    assert_null(proto_pack_back(&odd.base, room, sizeof room, &bytes));
    struct slice packed = proto_pack(&odd);
    assert_int_equal(packed.bytes, 9);
    assert_int_equal(packed.data[0], 1 << 3 | PROTOBUF_C_WIRE_TYPE_64BIT);
    slice_drop(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packs_as_protobuf_c),
        cmocka_unit_test(test_leaves_the_rest_to_protobuf_c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
