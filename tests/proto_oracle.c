/* The scan that must stand before protobuf-c 1.4.1, which recurses once a nesting level, takes 80 MB for 1 MiB of empty
 * sub-messages, merges a singular sub-message given twice, and takes what is over 64 bits in a packed array; and
 * protobuf-c behind it. The descriptor tells which
 * length-delimited fields are messages; the walk keeps its own short stack. Source: protobuf.dev, Encoding. */
#include "proto_oracle.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "proto/message.h"

struct scan_level {
    const ProtobufCMessageDescriptor *descriptor;
    const uint8_t *end;
    uint64_t seen; /* singular fields met, by position in the descriptor */
};

struct scan {
    struct scan_level levels[LIMIT_PROTO_DEPTH];
    unsigned depth;
    const uint8_t *at;
    uint32_t fields;
};

static bool scan_varint(struct scan *scan, const uint8_t *end, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (scan->at == end) {
            return false;
        }
        uint8_t byte = *scan->at++;
        if (shift == 63 && byte > 1) {
            return false;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static ProtobufCWireType wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

/* May `field` come with this wire type, and (singular) at this place? */
static bool field_good(struct scan_level *level, const ProtobufCFieldDescriptor *field, unsigned wire_type)
{
    ProtobufCWireType natural = wire_type_of(field->type);
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        bool packable = natural != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        return wire_type == natural || (packable && wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED);
    }
    unsigned position = (unsigned)(field - level->descriptor->fields);
    CHECK(position < 64); /* no message of ours has more fields */
    uint64_t bit = 1ull << position;
    bool twice = (level->seen & bit) != 0;
    level->seen |= bit;
    return wire_type == natural && !twice;
}

static bool scan_skip(struct scan *scan, const uint8_t *end, size_t bytes)
{
    if (bytes > (size_t)(end - scan->at)) {
        return false;
    }
    scan->at += bytes;
    return true;
}

/* A length-delimited field: enters a message, looks over a string, skips the rest. */
static bool scan_delimited(struct scan *scan, const uint8_t *end, const ProtobufCFieldDescriptor *field)
{
    uint64_t bytes = 0;
    if (!scan_varint(scan, end, &bytes) || bytes > (uint64_t)(end - scan->at)) {
        return false;
    }
    if (field != NULL && field->type == PROTOBUF_C_TYPE_MESSAGE) {
        if (scan->depth == LIMIT_PROTO_DEPTH) {
            return false;
        }
        scan->levels[scan->depth++] =
            (struct scan_level){.descriptor = field->descriptor, .end = scan->at + (size_t)bytes};
        return true;
    }
    if (field != NULL && wire_type_of(field->type) == PROTOBUF_C_WIRE_TYPE_VARINT) { /* a packed array */
        const uint8_t *last = scan->at + (size_t)bytes;
        uint64_t number;
        while (scan->at < last) {
            if (!scan_varint(scan, last, &number)) {
                return false;
            }
        }
        return true;
    }
    if (field != NULL && field->type == PROTOBUF_C_TYPE_STRING && memchr(scan->at, 0, (size_t)bytes) != NULL) {
        return false;
    }
    return scan_skip(scan, end, (size_t)bytes);
}

static bool scan_field(struct scan *scan)
{
    struct scan_level *level = &scan->levels[scan->depth - 1];
    uint64_t tag = 0;
    uint64_t value = 0;
    if (!scan_varint(scan, level->end, &tag)) {
        return false;
    }
    unsigned wire_type = (unsigned)(tag & 7);
    uint64_t number = tag >> 3;
    if (number == 0 || number >= 1u << 29) {
        return false;
    }
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(level->descriptor, (unsigned)number);
    if (field != NULL && !field_good(level, field, wire_type)) {
        return false;
    }
    /* A singular number lives in its message's struct, which was counted. */
    bool takes_memory =
        field == NULL || field->label == PROTOBUF_C_LABEL_REPEATED || wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    if (takes_memory && ++scan->fields > LIMIT_PROTO_FIELDS) {
        return false;
    }
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return scan_varint(scan, level->end, &value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return scan_skip(scan, level->end, 8);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return scan_delimited(scan, level->end, field);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return scan_skip(scan, level->end, 4);
    default: /* groups */
        return false;
    }
}

static bool scan_passes(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return true;
    }
    struct scan scan = {.depth = 1, .at = data};
    scan.levels[0] = (struct scan_level){.descriptor = descriptor, .end = data + bytes};
    while (scan.depth > 0) {
        CHECK(scan.at <= scan.levels[scan.depth - 1].end);
        if (scan.at == scan.levels[scan.depth - 1].end) {
            scan.depth--;
        } else if (!scan_field(&scan)) {
            return false;
        }
    }
    CHECK(scan.at == data + bytes);
    return true;
}

bool proto_agrees(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes)
{
    static const uint8_t nothing[1];
    struct proto_arena arena = {0};
    void *ours = NULL;
    bool taken = proto_unpack(descriptor, slice_borrow(data, bytes), &arena, &ours) == ERR_OK;
    ProtobufCMessage *theirs = scan_passes(descriptor, data, bytes)
                                   ? protobuf_c_message_unpack(descriptor, NULL, bytes, bytes > 0 ? data : nothing)
                                   : NULL;
    CHECK(taken == (theirs != NULL) || (!taken && bytes > 65536));
    if (taken) {
        struct slice a = proto_pack(ours), b = slice_alloc(protobuf_c_message_get_packed_size(theirs));
        CHECK(protobuf_c_message_pack(theirs, b.data) == b.bytes);
        CHECK(slice_equal(a, b));
        slice_drop(&a);
        slice_drop(&b);
    }
    if (theirs != NULL) {
        protobuf_c_message_free_unpacked(theirs, NULL);
    }
    proto_arena_deinit(&arena);
    return taken;
}
