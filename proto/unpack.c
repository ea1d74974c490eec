/* From a header's bytes to a message, in one walk over them: the fields are checked as they are taken. protobuf-c 1.4.1
 * would do (its descriptors and structs are used), but recurses once a nesting level without an end (10,000 levels in
 * 34 KB end the process), takes 80 MB for 1 MiB of empty sub-messages, merges a singular sub-message given twice, and
 * walks a message three times. What is taken here is what a scan for those and then protobuf-c take;
 * tests/proto_oracle.c is that pair, and test_message and fuzz_proto compare. Source: protobuf.dev, Encoding. */
#include "proto/unpack.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"

#define SHORT_BYTES 5 /* of a tag, or a length: neither is longer written by anybody */

struct walk {
    proto_alloc *alloc;
    void *arena;
    const uint8_t *at;
    uint32_t fields; /* so far, that take memory */
};

static bool take_varint(struct walk *walk, const uint8_t *end, uint64_t *ret_value)
{
    const uint8_t *at = walk->at;
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (at == end) {
            return false;
        }
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1) {
            return false;
        }
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            walk->at = at;
            *ret_value = value;
            return true;
        }
    }
    return false;
}

static bool take_short(struct walk *walk, const uint8_t *end, uint64_t *ret_value)
{
    return take_varint(walk, end - walk->at > SHORT_BYTES ? walk->at + SHORT_BYTES : end, ret_value);
}

/* A length, of what lies there. */
static bool take_length(struct walk *walk, const uint8_t *end, uint64_t *ret_bytes)
{
    return take_short(walk, end, ret_bytes) && *ret_bytes <= (uint64_t)(end - walk->at);
}

static bool take_skip(struct walk *walk, const uint8_t *end, uint64_t bytes)
{
    if (bytes > (uint64_t)(end - walk->at)) {
        return false;
    }
    walk->at += bytes;
    return true;
}

static ProtobufCWireType wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_BOOL:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    case PROTOBUF_C_TYPE_FIXED64:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default: /* no message of ours has another one */
        check_failed(__FILE__, __LINE__, __func__, "a type of field that is unpacked");
    }
}

size_t proto_width_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_UINT32:
        return sizeof(uint32_t);
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    default:
        return sizeof(uint64_t);
    }
}

/* A number, wherever it stands: alone, in a packed array, in one that is not. */
static bool take_number(struct walk *walk, const uint8_t *end, ProtobufCType type, void *ret_member)
{
    uint64_t value = 0;
    if (type == PROTOBUF_C_TYPE_FIXED64) {
        if (end - walk->at < 8) {
            return false;
        }
        value = get_u64(walk->at);
        walk->at += 8;
    } else if (!take_varint(walk, end, &value)) {
        return false;
    }
    if (type == PROTOBUF_C_TYPE_UINT32) {
        *(uint32_t *)ret_member = (uint32_t)value;
    } else if (type == PROTOBUF_C_TYPE_BOOL) {
        *(protobuf_c_boolean *)ret_member = value != 0;
    } else {
        *(uint64_t *)ret_member = value;
    }
    return true;
}

static bool walk_message(struct walk *walk, const ProtobufCMessageDescriptor *descriptor, const uint8_t *end,
                         unsigned depth, ProtobufCMessage **ret_message);

/* A message, string or byte array, whose length comes first. */
static bool take_delimited(struct walk *walk, const uint8_t *end, const ProtobufCFieldDescriptor *field, unsigned depth,
                           void *ret_member)
{
    uint64_t bytes = 0;
    if (!take_length(walk, end, &bytes)) {
        return false;
    }
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        return depth < LIMIT_PROTO_DEPTH &&
               walk_message(walk, field->descriptor, walk->at + bytes, depth + 1, ret_member);
    }
    bool string = field->type == PROTOBUF_C_TYPE_STRING;
    uint8_t *copy = NULL;
    if (bytes > 0 || string) {
        copy = walk->alloc(walk->arena, (size_t)bytes + (string ? 1 : 0));
        if (copy == NULL || (string && memchr(walk->at, 0, (size_t)bytes) != NULL)) {
            return false;
        }
        memcpy(copy, walk->at, (size_t)bytes);
    }
    if (string) {
        copy[bytes] = 0;
        *(char **)ret_member = (char *)copy;
    } else {
        *(ProtobufCBinaryData *)ret_member = (ProtobufCBinaryData){.len = (size_t)bytes, .data = copy};
    }
    walk->at += bytes;
    return true;
}

/* What an array of `count` has room for: 4, 8, 16, ... */
static size_t capacity_of(size_t count)
{
    size_t capacity = count > 0 ? 4 : 0;
    while (capacity < count) {
        capacity *= 2;
    }
    return capacity;
}

/* The place of the next member, with room for `more` of them. */
static void *array_room(struct walk *walk, size_t count, size_t more, void **array, size_t width)
{
    size_t capacity = capacity_of(count + more);
    if (capacity > capacity_of(count)) {
        void *grown = walk->alloc(walk->arena, capacity * width);
        if (grown == NULL) {
            return NULL;
        }
        if (count > 0) {
            memcpy(grown, *array, count * width);
        }
        *array = grown;
    }
    return (uint8_t *)*array + count * width;
}

/* How many numbers lie in [at, end), if they are whole. */
static size_t numbers_in(const uint8_t *at, const uint8_t *end, ProtobufCType type)
{
    size_t count = 0;
    if (type == PROTOBUF_C_TYPE_FIXED64) {
        return (size_t)(end - at) / 8;
    }
    for (; at < end; at++) {
        count += *at < 0x80;
    }
    return count;
}

/* A packed array. */
static bool take_packed(struct walk *walk, const uint8_t *end, ProtobufCType type, size_t *count, void **array)
{
    uint64_t bytes = 0;
    if (!take_length(walk, end, &bytes)) {
        return false;
    }
    const uint8_t *last = walk->at + bytes;
    size_t width = proto_width_of(type), more = numbers_in(walk->at, last, type);
    uint8_t *member = more > 0 ? array_room(walk, *count, more, array, width) : NULL;
    for (; walk->at < last; member += width) {
        if (member == NULL || more-- == 0 || !take_number(walk, last, type, member)) {
            return false;
        }
        ++*count;
    }
    return true;
}

static bool take_repeated(struct walk *walk, const uint8_t *end, const ProtobufCFieldDescriptor *field,
                          ProtobufCWireType wire_type, unsigned depth, ProtobufCMessage *message)
{
    size_t *count = (size_t *)(void *)((uint8_t *)message + field->quantifier_offset);
    void **array = (void **)(void *)((uint8_t *)message + field->offset);
    ProtobufCWireType natural = wire_type_of(field->type);
    bool delimited = natural == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    if (wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED && !delimited) {
        return take_packed(walk, end, field->type, count, array);
    }
    void *member = wire_type == natural ? array_room(walk, *count, 1, array, proto_width_of(field->type)) : NULL;
    if (member == NULL) {
        return false;
    }
    bool good =
        delimited ? take_delimited(walk, end, field, depth, member) : take_number(walk, end, field->type, member);
    *count += good;
    return good;
}

/* A field that this program's descriptor does not have is kept, as protobuf-c keeps it: who packs the message again
 * hands it on. */
static bool take_unknown(struct walk *walk, const uint8_t *end, uint32_t number, ProtobufCWireType wire_type,
                         ProtobufCMessage *message)
{
    const uint8_t *start = walk->at;
    uint64_t value = 0;
    bool good = false;
    switch (wire_type) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        good = take_varint(walk, end, &value);
        break;
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        good = take_skip(walk, end, 8);
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        good = take_length(walk, end, &value) && take_skip(walk, end, value);
        break;
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        good = take_skip(walk, end, 4);
        break;
    default: /* groups */
        break;
    }
    size_t bytes = (size_t)(walk->at - start);
    void *array = message->unknown_fields;
    ProtobufCMessageUnknownField *unknown =
        good ? array_room(walk, message->n_unknown_fields, 1, &array, sizeof *unknown) : NULL;
    uint8_t *copy = unknown != NULL ? walk->alloc(walk->arena, bytes) : NULL;
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, start, bytes);
    *unknown = (ProtobufCMessageUnknownField){.tag = number, .wire_type = wire_type, .len = bytes, .data = copy};
    message->unknown_fields = array;
    message->n_unknown_fields++;
    return true;
}

/* The field with that number; most often the one after the last, or the last again. */
static const ProtobufCFieldDescriptor *field_find(const ProtobufCMessageDescriptor *descriptor, uint32_t number,
                                                  unsigned *next)
{
    for (unsigned i = *next > 0 ? *next - 1 : 0; i <= *next && i < descriptor->n_fields; i++) {
        if (descriptor->fields[i].id == number) {
            *next = i + 1;
            return &descriptor->fields[i];
        }
    }
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(descriptor, number);
    *next = field != NULL ? (unsigned)(field - descriptor->fields) + 1 : *next;
    return field;
}

static bool walk_field(struct walk *walk, const uint8_t *end, unsigned depth, unsigned *next, uint64_t *seen,
                       ProtobufCMessage *message)
{
    uint64_t tag = 0;
    if (!take_short(walk, end, &tag) || tag >> 3 == 0 || tag >> 3 >= 1u << 29) {
        return false;
    }
    uint32_t number = (uint32_t)(tag >> 3);
    ProtobufCWireType wire_type = (ProtobufCWireType)(tag & 7);
    const ProtobufCFieldDescriptor *field = field_find(message->descriptor, number, next);
    /* A singular number lives in its message's struct, which was counted. */
    bool takes_memory =
        field == NULL || field->label == PROTOBUF_C_LABEL_REPEATED || wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    if (takes_memory && ++walk->fields > LIMIT_PROTO_FIELDS) {
        return false;
    }
    if (field == NULL) {
        return take_unknown(walk, end, number, wire_type, message);
    }
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        return take_repeated(walk, end, field, wire_type, depth, message);
    }
    unsigned position = (unsigned)(field - message->descriptor->fields);
    CHECK(position < 64); /* no message of ours has more fields */
    bool twice = (*seen >> position & 1) != 0;
    *seen |= 1ull << position;
    if (twice || wire_type != wire_type_of(field->type)) {
        return false;
    }
    void *member = (uint8_t *)message + field->offset;
    return wire_type == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED ? take_delimited(walk, end, field, depth, member)
                                                             : take_number(walk, end, field->type, member);
}

static bool walk_message(struct walk *walk, const ProtobufCMessageDescriptor *descriptor, const uint8_t *end,
                         unsigned depth, ProtobufCMessage **ret_message)
{
    ProtobufCMessage *message = walk->alloc(walk->arena, descriptor->sizeof_message);
    if (message == NULL) {
        return false;
    }
    descriptor->message_init(message);
    unsigned next = 0;
    uint64_t seen = 0; /* singular fields, by position in the descriptor */
    while (walk->at < end) {
        if (!walk_field(walk, end, depth, &next, &seen, message)) {
            return false;
        }
    }
    CHECK(walk->at == end);
    *ret_message = message;
    return true;
}

ProtobufCMessage *proto_walk(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes,
                             proto_alloc *alloc, void *arena)
{
    struct walk walk = {.alloc = alloc, .arena = arena, .at = data};
    ProtobufCMessage *message = NULL;
    return walk_message(&walk, descriptor, data + bytes, 1, &message) ? message : NULL;
}
