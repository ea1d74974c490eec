/* Message types and what each may be sent by: messages.def as enum and table, and the safe unpacking of headers. */
#ifndef CAIRN_PROTO_MESSAGE_H
#define CAIRN_PROTO_MESSAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/effect.h"
#include "base/err.h"

enum message_type {
#define MESSAGE(name, number, roles, actor, right) MESSAGE_##name = number,
#include "messages.def"
#undef MESSAGE
};

/* What a request needs of its principal; authorize() (metad) and the store (capability) decide. */
enum right { RIGHT_NONE = 1, RIGHT_NODE, RIGHT_MEMBER, RIGHT_READ, RIGHT_WRITE, RIGHT_ADMIN, RIGHT_CAPABILITY };

struct message_row {
    uint16_t type;
    uint8_t roles; /* bits of enum role */
    enum actor_kind actor;
    enum right right;
    const char *name;
};

/* The row of a type, or NULL. */
const struct message_row *message_row_find(uint16_t type);
/* OK, UNKNOWN_TYPE or WRONG_ROLE: may a peer of this role send a request of this type? Checked by every interpreter
 * before an actor sees the request. Replies are matched to requests by stream and need no role. */
MUST_CHECK enum err message_admit(uint16_t type, uint8_t role);

/* Unpacks a protobuf header into an arena that one free releases. Before unpacking it scans for depth and field count
 * (LIMIT_PROTO_*) and the arena is capped at LIMIT_PROTO_ARENA_BYTES: BAD_PROTO otherwise.
 *
 *     struct proto_arena arena = {0};
 *     Cairn__StartRequest *request = NULL;
 *     enum err err = proto_unpack(&cairn__start_request__descriptor, header, &arena, (void **)&request);
 *     ...
 *     proto_arena_deinit(&arena);      // frees the message too
 */
struct proto_arena {
    struct proto_block *blocks;
    size_t bytes;
    size_t limit; /* of the message being unpacked */
    bool failed;
};
void proto_arena_deinit(struct proto_arena *arena);
/* The same for who goes on with the next message: a block of it stays. proto_arena_deinit ends it all the same. */
void proto_arena_reuse(struct proto_arena *arena);
/* Zeroed memory that lives as long as the arena, for what is built beside a message; not counted against any message's
 * limit. */
void *proto_arena_take(struct proto_arena *arena, size_t bytes);
MUST_CHECK enum err proto_unpack(const ProtobufCMessageDescriptor *descriptor, struct slice header,
                                 struct proto_arena *arena, void **ret_message);
/* Packs a message into a new slice. */
struct slice proto_pack(const void *message);
/* The same for who copies the bytes on: they lie in `room`, or in `large` where they are many. The caller drops
 * `large`. */
#define PROTO_ROOM_BYTES 2048u
struct proto_packed {
    const uint8_t *data;
    size_t bytes;
    struct slice large;
    uint8_t room[PROTO_ROOM_BYTES];
};
void proto_pack_into(const void *message, struct proto_packed *ret_packed);

/* An error reply: ErrorReply{code, text, leader} for a request. `leader` is the node number of the group's leader, or
 * 0. */
struct slice error_reply_encode(enum err err, const char *text, uint32_t leader);
/* The same with the leader's address, HOST:PORT. */
struct slice error_reply_encode_leader(enum err err, const char *text, uint32_t leader, const char *address);
/* Host and port of the leader that an error reply names, for the shells; false when it names none. */
#define ERROR_HOST_BYTES 256u
bool error_reply_leader(struct slice header, uint32_t *ret_leader, char ret_host[ERROR_HOST_BYTES], uint16_t *ret_port);
/* Reads it; a malformed one yields BAD_PROTO. */
enum err error_reply_decode(struct slice header, uint32_t *ret_leader);

#endif
