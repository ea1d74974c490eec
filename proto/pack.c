/* Packing from the end (pack.h). In the way of a record it stands behind every operation that puts one; protobuf-c
 * measures each sub-message once for itself and once for each message around it, and then packs it.
 * How it fails: it does not; what it has no room or no rule for is left to protobuf-c. tests/proto_oracle.h compares.
 * Source: protobuf.dev, Encoding. */
#include "proto/pack.h"

#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "proto/unpack.h"

struct back {
    uint8_t *begin, *at;
};

static bool back_put(struct back *back, const void *data, size_t bytes)
{
    if (bytes > (size_t)(back->at - back->begin)) {
        return false;
    }
    back->at -= bytes;
    if (bytes > 0) {
        memcpy(back->at, data, bytes);
    }
    return true;
}

static bool back_varint(struct back *back, uint64_t value)
{
    size_t count = (size_t)(70 - __builtin_clzll(value | 1)) / 7; /* seven bits each */
    if (count > (size_t)(back->at - back->begin)) {
        return false;
    }
    back->at -= count;
    uint8_t *at = back->at;
    for (; value >= 0x80; value >>= 7) {
        *at++ = (uint8_t)(value | 0x80);
    }
    *at = (uint8_t)value;
    return true;
}

static bool back_tag(struct back *back, uint32_t id, ProtobufCWireType wire)
{
    return back_varint(back, (uint64_t)id << 3 | (uint64_t)wire);
}

/* The length of all from `end` back to here, in front of it. */
static bool back_length(struct back *back, const uint8_t *end)
{
    return back_varint(back, (uint64_t)(end - back->at));
}

static bool back_message(struct back *back, const ProtobufCMessage *message);

/* A value without its tag; *ret_wire: how it is told. False also for a type that no message of ours has. */
static bool back_value(struct back *back, ProtobufCType type, const void *member, ProtobufCWireType *ret_wire)
{
    const uint8_t *end = back->at;
    uint8_t fixed[8];
    *ret_wire = PROTOBUF_C_WIRE_TYPE_VARINT;
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
        return back_varint(back, *(const uint32_t *)member);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
        return back_varint(back, *(const uint64_t *)member);
    case PROTOBUF_C_TYPE_BOOL:
        return back_varint(back, *(const protobuf_c_boolean *)member != 0);
    case PROTOBUF_C_TYPE_FIXED64:
        *ret_wire = PROTOBUF_C_WIRE_TYPE_64BIT;
        put_u64(fixed, *(const uint64_t *)member);
        return back_put(back, fixed, sizeof fixed);
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)member;
        *ret_wire = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        return back_put(back, text, text != NULL ? strlen(text) : 0) && back_length(back, end);
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = member;
        *ret_wire = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        return back_put(back, bytes->data, bytes->len) && back_length(back, end);
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        const ProtobufCMessage *inner = *(ProtobufCMessage *const *)member;
        *ret_wire = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
        return (inner == NULL || back_message(back, inner)) && back_length(back, end);
    }
    default:
        return false;
    }
}

static bool back_array(struct back *back, const ProtobufCFieldDescriptor *field, size_t count, const uint8_t *items)
{
    bool packed = (field->flags & PROTOBUF_C_FIELD_FLAG_PACKED) != 0;
    const uint8_t *end = back->at;
    ProtobufCWireType wire;
    for (size_t i = count; i-- > 0;) {
        if (!back_value(back, field->type, items + i * proto_width_of(field->type), &wire) ||
            (!packed && !back_tag(back, field->id, wire))) {
            return false;
        }
    }
    return count == 0 || !packed ||
           (back_length(back, end) && back_tag(back, field->id, PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED));
}

/* A value that is not packed: the one a reader takes where there is none. */
static bool is_default(ProtobufCType type, const void *member)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
        return *(const uint32_t *)member == 0;
    case PROTOBUF_C_TYPE_BOOL:
        return *(const protobuf_c_boolean *)member == 0;
    case PROTOBUF_C_TYPE_BYTES:
        return ((const ProtobufCBinaryData *)member)->len == 0;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(char *const *)member;
        return text == NULL || text[0] == 0;
    }
    case PROTOBUF_C_TYPE_MESSAGE:
        return *(void *const *)member == NULL;
    default:
        return *(const uint64_t *)member == 0;
    }
}

static bool back_field(struct back *back, const ProtobufCFieldDescriptor *field, const ProtobufCMessage *message)
{
    const uint8_t *member = (const uint8_t *)message + field->offset;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        size_t count = *(const size_t *)(const void *)((const uint8_t *)message + field->quantifier_offset);
        return back_array(back, field, count, *(uint8_t *const *)(const void *)member);
    }
    if (field->label != PROTOBUF_C_LABEL_NONE || (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0) {
        return false;
    }
    ProtobufCWireType wire;
    return is_default(field->type, member) ||
           (back_value(back, field->type, member, &wire) && back_tag(back, field->id, wire));
}

static bool back_message(struct back *back, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    for (unsigned i = message->n_unknown_fields; i-- > 0;) {
        const ProtobufCMessageUnknownField *field = &message->unknown_fields[i];
        if (!back_put(back, field->data, field->len) || !back_tag(back, field->tag, field->wire_type)) {
            return false;
        }
    }
    for (unsigned i = descriptor->n_fields; i-- > 0;) {
        if (!back_field(back, &descriptor->fields[i], message)) {
            return false;
        }
    }
    return true;
}

uint8_t *proto_pack_back(const ProtobufCMessage *message, uint8_t *room, size_t room_bytes, size_t *ret_bytes)
{
    struct back back = {.begin = room, .at = room + room_bytes};
    if (!back_message(&back, message)) {
        return NULL;
    }
    *ret_bytes = (size_t)(room + room_bytes - back.at);
    return back.at;
}
