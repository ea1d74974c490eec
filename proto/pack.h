/* A message of protobuf-c's structs to bytes, in one walk from its end to its beginning: a length stands in front of
 * what it is of, so nothing is measured before. The bytes are protobuf-c's. proto/message.h is what others use. */
#ifndef CAIRN_PROTO_PACK_H
#define CAIRN_PROTO_PACK_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* Packs into the end of `room`. Where the bytes begin, `*ret_bytes` of them; NULL when they do not fit, or the message
 * has a kind of field that none of ours has: protobuf-c packs it then. */
uint8_t *proto_pack_back(const ProtobufCMessage *message, uint8_t *room, size_t room_bytes, size_t *ret_bytes);

#endif
