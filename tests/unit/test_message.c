/* Headers from strangers: depth, field counts, wire types, garbage; and the table of types. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/limits.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "tests/proto_oracle.h"

static enum err unpack(const ProtobufCMessageDescriptor *descriptor, const void *data, size_t bytes)
{
    struct proto_arena arena = {0};
    void *message = NULL;
    enum err err = proto_unpack(descriptor, slice_borrow(data, bytes), &arena, &message);
    assert_true(proto_agrees(descriptor, data, bytes) == (err == ERR_OK));
    assert_true((err == ERR_OK) == (message != NULL));
    assert_true(err != ERR_OK || arena.bytes <= LIMIT_PROTO_ARENA_BYTES);
    if (err != ERR_OK) {
        assert_int_equal(err, ERR_BAD_PROTO);
        assert_int_equal(arena.bytes, 0); /* nothing stays behind */
    }
    proto_arena_deinit(&arena);
    return err;
}

static void round_trip(void **state)
{
    (void)state;
    Cairn__RequestHead head = CAIRN__REQUEST_HEAD__INIT;
    Cairn__MkdirRequest request = CAIRN__MKDIR_REQUEST__INIT;
    head.key = 77;
    head.ns = UINT64_MAX;
    request.head = &head;
    request.name = (ProtobufCBinaryData){3, (uint8_t *)"a\0b"};
    request.mtime_ns = -5;
    struct slice packed = proto_pack(&request);
    struct proto_arena arena = {0};
    Cairn__MkdirRequest *back = NULL;
    Cairn__MkdirRequest *second = NULL;
    assert_int_equal(proto_unpack(&cairn__mkdir_request__descriptor, packed, &arena, (void **)&back), ERR_OK);
    assert_int_equal(back->head->key, 77);
    assert_true(back->head->ns == UINT64_MAX);
    assert_int_equal(back->name.len, 3);
    assert_memory_equal(back->name.data, "a\0b", 3);
    assert_int_equal(back->mtime_ns, -5);
    /* a failure in the same arena leaves the first message whole */
    assert_int_equal(
        proto_unpack(&cairn__mkdir_request__descriptor, slice_borrow("\x0a\x05", 2), &arena, (void **)&second),
        ERR_BAD_PROTO);
    assert_null(second);
    assert_int_equal(back->head->key, 77);
    proto_arena_deinit(&arena);
    slice_drop(&packed);
}

static void empty_header_is_a_message(void **state)
{
    (void)state;
    Cairn__ResolveReply reply = CAIRN__RESOLVE_REPLY__INIT;
    struct slice packed = proto_pack(&reply);
    assert_int_equal(packed.bytes, 0);
    struct proto_arena arena = {0};
    Cairn__ResolveReply *back = NULL;
    assert_int_equal(proto_unpack(&cairn__resolve_reply__descriptor, packed, &arena, (void **)&back), ERR_OK);
    assert_int_equal(back->ns, 0);
    proto_arena_deinit(&arena);
}

/* Wraps writer's content in field `tag`, one level more. Built backwards: the buffer's tail is the message. */
static size_t nest(uint8_t *buffer, size_t capacity, uint8_t tag, unsigned levels)
{
    size_t at = capacity;
    for (unsigned i = 0; i < levels; i++) {
        size_t bytes = capacity - at;
        uint8_t varint[5];
        unsigned count = 0;
        do {
            varint[count++] = (uint8_t)((bytes & 0x7f) | (bytes > 0x7f ? 0x80 : 0));
            bytes >>= 7;
        } while (bytes > 0);
        at -= count;
        memcpy(buffer + at, varint, count);
        buffer[--at] = tag;
    }
    return at;
}

/* No message of cairn.proto is recursive, so one is described here: message Nest { Nest inner = 1; }. */
struct nest_message {
    ProtobufCMessage base;
    struct nest_message *inner;
};
extern const ProtobufCMessageDescriptor nest_descriptor;
static const ProtobufCFieldDescriptor nest_fields[] = {{.name = "inner",
                                                        .id = 1,
                                                        .label = PROTOBUF_C_LABEL_NONE,
                                                        .type = PROTOBUF_C_TYPE_MESSAGE,
                                                        .offset = offsetof(struct nest_message, inner),
                                                        .descriptor = &nest_descriptor}};
static void nest_init(ProtobufCMessage *message)
{
    *(struct nest_message *)(void *)message = (struct nest_message){.base = {.descriptor = &nest_descriptor}};
}
static const ProtobufCIntRange nest_ranges[] = {{1, 0}, {0, 1}};
static const unsigned nest_names[] = {0};
const ProtobufCMessageDescriptor nest_descriptor = {.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
                                                    .name = "nest",
                                                    .short_name = "nest",
                                                    .c_name = "nest",
                                                    .package_name = "",
                                                    .sizeof_message = sizeof(struct nest_message),
                                                    .n_fields = 1,
                                                    .fields = nest_fields,
                                                    .fields_sorted_by_name = nest_names,
                                                    .n_field_ranges = 1,
                                                    .field_ranges = nest_ranges,
                                                    .message_init = nest_init};

static void nesting_is_bounded(void **state)
{
    (void)state;
    const size_t capacity = 64 << 10;
    uint8_t *buffer = malloc(capacity);
    assert_non_null(buffer);
    for (unsigned levels = 0; levels < 40; levels++) {
        size_t at = nest(buffer, capacity, 0x0a, levels);
        enum err wanted = levels < LIMIT_PROTO_DEPTH ? ERR_OK : ERR_BAD_PROTO;
        assert_int_equal(unpack(&nest_descriptor, buffer + at, capacity - at), wanted);
    }
    size_t at = nest(buffer, capacity, 0x0a, 10000);
    assert_int_equal(unpack(&nest_descriptor, buffer + at, capacity - at), ERR_BAD_PROTO);
    /* the same bytes where field 1 is a string of bytes are only that */
    at = nest(buffer, capacity, 0x0a, 10000);
    assert_int_equal(unpack(&cairn__shard_put_reply__descriptor, buffer + at, capacity - at), ERR_OK);
    free(buffer);
}

static void empty_messages_are_counted(void **state)
{
    (void)state;
    const size_t bytes = 1 << 20;
    uint8_t *buffer = malloc(bytes);
    assert_non_null(buffer);
    for (size_t i = 0; i < bytes; i += 2) {
        buffer[i] = 0x0a; /* ListReply.entries, ChangesReply.changes */
        buffer[i + 1] = 0;
    }
    assert_int_equal(unpack(&cairn__list_reply__descriptor, buffer, bytes), ERR_BAD_PROTO);
    assert_int_equal(unpack(&cairn__list_reply__descriptor, buffer, 2 * LIMIT_PROTO_FIELDS), ERR_OK);
    assert_int_equal(unpack(&cairn__list_reply__descriptor, buffer, 2 * LIMIT_PROTO_FIELDS + 2), ERR_BAD_PROTO);
    /* nested ones count too: Change { Entry entry = 3; } is two */
    for (size_t i = 0; i < bytes; i += 4) {
        memcpy(buffer + i, "\x0a\x02\x1a\x00", 4);
    }
    assert_int_equal(unpack(&cairn__changes_reply__descriptor, buffer, 2 * LIMIT_PROTO_FIELDS), ERR_OK);
    assert_int_equal(unpack(&cairn__changes_reply__descriptor, buffer, 2 * LIMIT_PROTO_FIELDS + 4), ERR_BAD_PROTO);
    free(buffer);
}

/* Unknown fields are kept by protobuf-c in memory: counted, and capped by the arena. */
static void unknown_fields_are_counted(void **state)
{
    (void)state;
    const size_t bytes = 1 << 20;
    uint8_t *buffer = malloc(bytes);
    assert_non_null(buffer);
    for (size_t i = 0; i < bytes; i += 2) {
        buffer[i] = 15 << 3;
        buffer[i + 1] = 1;
    }
    assert_int_equal(unpack(&cairn__list_reply__descriptor, buffer, bytes), ERR_BAD_PROTO);
    assert_int_equal(unpack(&cairn__list_reply__descriptor, buffer, 200), ERR_OK);
    free(buffer);
}

static void packed_arrays_are_capped(void **state)
{
    (void)state;
    /* MapPool.slots: packed u32, one byte each on the wire and four in memory */
    for (unsigned shift = 0; shift < 2; shift++) {
        const size_t count = (LIMIT_PROTO_ARENA_BYTES / 4) << shift >> 1;
        uint8_t *buffer = malloc(count + 8);
        assert_non_null(buffer);
        memset(buffer, 1, count + 8);
        buffer[0] = 6 << 3 | 2;
        buffer[1] = (uint8_t)(count | 0x80);
        buffer[2] = (uint8_t)(count >> 7 | 0x80);
        buffer[3] = (uint8_t)(count >> 14 | 0x80);
        buffer[4] = (uint8_t)(count >> 21);
        enum err wanted = shift == 0 ? ERR_OK : ERR_BAD_PROTO;
        assert_int_equal(unpack(&cairn__map_pool__descriptor, buffer, count + 5), wanted);
        free(buffer);
    }
}

/* The largest pages the limits allow pass: a bound that refuses our own replies would be a bug of its own. */
static void full_pages_pass(void **state)
{
    (void)state;
    static Cairn__Change changes[LIMIT_FEED_EVENTS];
    static Cairn__Entry entries[LIMIT_FEED_EVENTS];
    static Cairn__Change *list[LIMIT_FEED_EVENTS];
    for (unsigned i = 0; i < LIMIT_FEED_EVENTS; i++) {
        cairn__change__init(&changes[i]);
        cairn__entry__init(&entries[i]);
        ProtobufCBinaryData name = {64, (uint8_t *)"0123456789012345678901234567890123456789012345678901234567890123"};
        entries[i] = (Cairn__Entry){.base = entries[i].base, .file = 1 + i, .kind = 1, .name = name, .parent = 9};
        entries[i].version = entries[i].bytes = entries[i].sequence = UINT64_MAX;
        entries[i].mode = entries[i].safe_losses = 7;
        entries[i].mtime_ns = -1;
        entries[i].target = name;
        changes[i].sequence = 1 + i;
        changes[i].kind = 1;
        changes[i].entry = &entries[i];
        changes[i].from_parent = 1;
        changes[i].from_name = name;
        changes[i].wall_ns = -1;
        list[i] = &changes[i];
    }
    Cairn__ChangesReply reply = CAIRN__CHANGES_REPLY__INIT;
    reply.n_changes = LIMIT_FEED_EVENTS;
    reply.changes = list;
    struct slice packed = proto_pack(&reply);
    assert_int_equal(unpack(&cairn__changes_reply__descriptor, packed.data, packed.bytes), ERR_OK);
    slice_drop(&packed);
}

static void malformed_bytes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *data;
        size_t bytes;
    } bad[] = {
        {"\x08", 1},                                              /* tag without value */
        {"\x08\x80", 2},                                          /* varint cut */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* varint too long */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11},     /* over 64 bits */
        {"\x00\x01", 2},                                          /* field 0 */
        {"\x0b\x0c", 2},                                          /* group */
        {"\x0a\x01x", 3},                                         /* number with a length */
        {"\x12\x05xyz", 5},                                       /* string cut */
        {"\x12\x03x\0y", 5},                                      /* string with a NUL */
        {"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},     /* length of 2^64-1 */
        {"\x08\x01\x08\x02", 4},                                  /* singular twice */
        {"\x09\x01\x02\x03\x04\x05\x06\x07", 8},                  /* 64-bit cut */
        {"\x7d\x01\x02\x03", 4},                                  /* 32-bit cut */
        {"\x80\xff\xff\xff\x80\x00\x44", 7},                      /* a tag of six bytes */
        {"\x12\x80\x80\x80\x80\x80\x00", 7},                      /* a length of six bytes */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(unpack(&cairn__error_reply__descriptor, bad[i].data, bad[i].bytes), ERR_BAD_PROTO);
    }
    assert_int_equal(unpack(&cairn__error_reply__descriptor, "\x08\x01\x12\x01x", 5), ERR_OK);
    /* UploadStageReply.unresolved, a packed array: none of its numbers ends; none at all */
    assert_int_equal(unpack(&cairn__upload_stage_reply__descriptor, "\x1a\x02\x80\x80", 4), ERR_BAD_PROTO);
    assert_int_equal(unpack(&cairn__upload_stage_reply__descriptor, "\x1a\x00", 2), ERR_OK);
    /* one that is over 64 bits */
    assert_int_equal(
        unpack(&cairn__upload_stage_reply__descriptor, "\x1a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x28", 12),
        ERR_BAD_PROTO);
}

/* Random bytes, and valid messages with random damage: an answer, and no message that the scan refused. */
static void garbage_is_answered(void **state)
{
    (void)state;
    uint64_t random = 88172645463325252u;
    Cairn__RequestHead head = CAIRN__REQUEST_HEAD__INIT;
    Cairn__StatRequest request = CAIRN__STAT_REQUEST__INIT;
    ProtobufCBinaryData path[3] = {{1, (uint8_t *)"a"}, {0, NULL}, {2, (uint8_t *)"bc"}};
    head.key = 1ull << 40;
    request.head = &head;
    request.path = path;
    request.n_path = 3;
    struct slice packed = proto_pack(&request);
    unsigned good = 0;
    for (unsigned round = 0; round < 100000; round++) {
        uint8_t buffer[64];
        size_t bytes = packed.bytes;
        memcpy(buffer, packed.data, bytes);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if (round % 2 == 0) {
            buffer[(random >> 8) % bytes] ^= (uint8_t)(1u << (random & 7));
            bytes -= (random >> 40) % 4 == 0 ? 1 : 0;
        } else {
            bytes = random % sizeof buffer;
            for (size_t i = 0; i < bytes; i++) {
                buffer[i] = (uint8_t)((random >> (i % 57)) * (i + 1));
            }
        }
        good += unpack(&cairn__stat_request__descriptor, buffer, bytes) == ERR_OK;
        (void)unpack(&cairn__cluster_map__descriptor, buffer, bytes);
    }
    assert_true(good > 0 && good < 100000);
    slice_drop(&packed);
}

static void table_names_every_type(void **state)
{
    (void)state;
    unsigned count = 0;
    for (unsigned type = 0; type <= UINT16_MAX; type++) {
        const struct message_row *row = message_row_find((uint16_t)type);
        if (row == NULL) {
            assert_int_equal(message_admit((uint16_t)type, ROLE_DEVICE), ERR_UNKNOWN_TYPE);
            continue;
        }
        count++;
        assert_int_equal(row->type, type);
        /* the bearer of a token asks for a certificate and nothing else */
        assert_true((row->roles & ROLE_JOIN) == 0 || type == MESSAGE_HELLO || type == MESSAGE_NODE_JOIN);
        for (unsigned role = 0; role < 256; role++) {
            bool single = role == ROLE_METAD || role == ROLE_BLOCKD || role == ROLE_DEVICE || role == ROLE_GATEWAY ||
                          role == ROLE_LOCAL || role == ROLE_JOIN;
            enum err wanted = single && (row->roles & role) != 0 ? ERR_OK : ERR_WRONG_ROLE;
            assert_int_equal(message_admit((uint16_t)type, (uint8_t)role), wanted);
        }
    }
    unsigned listed = 0;
#define MESSAGE(label, number, roles, actor, right)                                                                    \
    listed++;                                                                                                          \
    assert_string_equal(message_row_find(number)->name, #label);
#include "proto/messages.def"
#undef MESSAGE
    assert_int_equal(count, listed); /* no number twice */
    assert_int_equal(message_admit(MESSAGE_RAFT, ROLE_DEVICE), ERR_WRONG_ROLE);
    assert_int_equal(message_admit(MESSAGE_LOG_APPEND, ROLE_METAD), ERR_WRONG_ROLE);
}

static void errors_cross_the_wire(void **state)
{
    (void)state;
    uint32_t leader = 99;
    struct slice packed = error_reply_encode(ERR_NOT_LEADER, NULL, 3);
    assert_int_equal(error_reply_decode(packed, &leader), ERR_NOT_LEADER);
    assert_int_equal(leader, 3);
    slice_drop(&packed);
    packed = error_reply_encode(ERR_QUOTA, "too much", 0);
    assert_int_equal(error_reply_decode(packed, NULL), ERR_QUOTA);
    slice_drop(&packed);
    leader = 99;
    assert_int_equal(error_reply_decode(slice_borrow("\xff", 1), &leader), ERR_BAD_PROTO);
    /* an error reply that says "ok" is none */
    assert_int_equal(error_reply_decode((struct slice){0}, &leader), ERR_BAD_PROTO);
    assert_int_equal(leader, 99);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(empty_header_is_a_message),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(empty_messages_are_counted),
        cmocka_unit_test(unknown_fields_are_counted),
        cmocka_unit_test(packed_arrays_are_capped),
        cmocka_unit_test(full_pages_pass),
        cmocka_unit_test(malformed_bytes_are_refused),
        cmocka_unit_test(garbage_is_answered),
        cmocka_unit_test(table_names_every_type),
        cmocka_unit_test(errors_cross_the_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
