/* The walk over a protobuf message's bytes. Private to proto/: message.h's proto_unpack is the way in. */
#ifndef CAIRN_PROTO_UNPACK_H
#define CAIRN_PROTO_UNPACK_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* Memory aligned to 16 for as long as the arena lives, or NULL: over its limit. */
typedef void *proto_alloc(void *arena, size_t bytes);

/* The message, all of it from `alloc`, or NULL when `data` is no well-formed message of `descriptor`: nested no deeper
 * than LIMIT_PROTO_DEPTH (the outermost counts as one), with at most LIMIT_PROTO_FIELDS fields that take memory of
 * their own (sub-messages, strings, bytes, repeated and unknown ones; nested ones counted, a packed array as one), wire
 * types that fit the fields, no group, no singular field given twice, no NUL inside a string. Fields that the
 * descriptor does not know are kept as unknown fields. `data` is not NULL. */
ProtobufCMessage *proto_walk(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes,
                             proto_alloc *alloc, void *arena);

/* Bytes of a member of that type in protobuf-c's structs and arrays. */
size_t proto_width_of(ProtobufCType type);

#endif
