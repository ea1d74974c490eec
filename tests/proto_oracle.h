/* What proto_unpack must do, done by a scan and then by protobuf-c itself: the tests' second opinion of proto/unpack.c.
 */
#ifndef CAIRN_TESTS_PROTO_ORACLE_H
#define CAIRN_TESTS_PROTO_ORACLE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both take the bytes, or both refuse them; and what both took packs to the same bytes. Dies otherwise. True when they
 * were taken. Longer ones than 64 KiB may also be refused for the memory they would take. */
bool proto_agrees(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes);

#endif
