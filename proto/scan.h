/* A look over a protobuf message's bytes before protobuf-c sees them. */
#ifndef CAIRN_PROTO_SCAN_H
#define CAIRN_PROTO_SCAN_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True when `data` is a well-formed message of `descriptor`: nested no deeper than LIMIT_PROTO_DEPTH (the outermost
 * counts as one), with at most LIMIT_PROTO_FIELDS fields that take memory of their own (sub-messages, strings, bytes,
 * repeated and unknown ones; nested ones counted, a packed array as one), wire types that
 * fit the fields, no group, no singular field given twice, no NUL inside a string. Fields the descriptor does not know
 * are skipped. Takes no memory. */
bool proto_scan(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data, size_t bytes);

#endif
