/* The table of message types, and the way from a header's bytes to a message: one walk (unpack.c) into a capped arena.
 * What does not pass is BAD_PROTO and never reaches an actor. */
#include "message.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/limits.h"
#include "proto/cairn.pb-c.h"
#include "proto/pack.h"
#include "proto/unpack.h"

#define MESSAGE(name, number, roles, actor, right)                                                                     \
    _Static_assert((right) >= RIGHT_NONE && (right) <= RIGHT_CAPABILITY, #name " names the right it needs");           \
    _Static_assert((roles) != 0, #name " names who may send it");
#include "messages.def"
#undef MESSAGE

static const struct message_row rows[] = {
#define MESSAGE(name, number, roles, actor, right) [number] = {number, roles, actor, right, #name},
#include "messages.def"
#undef MESSAGE
};

const struct message_row *message_row_find(uint16_t type)
{
    const unsigned count = sizeof rows / sizeof rows[0];
    return type < count && rows[type].name != NULL ? &rows[type] : NULL;
}

enum err message_admit(uint16_t type, uint8_t role)
{
    const struct message_row *row = message_row_find(type);
    if (row == NULL) {
        return ERR_UNKNOWN_TYPE;
    }
    bool one_role = role != 0 && (role & (role - 1)) == 0;
    return one_role && (row->roles & role) != 0 ? ERR_OK : ERR_WRONG_ROLE;
}

/* Blocks of the arena, newest first; memory is given out from the front of the newest and never taken back alone. */
struct proto_block {
    struct proto_block *next;
    size_t bytes;
    size_t used;
    _Alignas(16) uint8_t data[];
};
#define ARENA_FIRST_BYTES 992u /* most messages; with its head of the sizes that malloc keeps ready */
#define ARENA_BLOCK_BYTES 4096u

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BLOCKS_GO 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(BLOCKS_GO)
static const bool blocks_stay = false; /* a sanitizer is to see each message end */
#else
static const bool blocks_stay = true;
#endif

static void *arena_alloc(void *memory_of, size_t bytes)
{
    struct proto_arena *arena = memory_of;
    if (arena->failed || bytes > LIMIT_PROTO_ARENA_BYTES) {
        arena->failed = true;
        return NULL;
    }
    bytes = (bytes + 15) / 16 * 16;
    struct proto_block *block = arena->blocks;
    if (block == NULL || bytes > block->bytes - block->used) {
        size_t least = block == NULL ? ARENA_FIRST_BYTES : ARENA_BLOCK_BYTES;
        size_t block_bytes = bytes < least ? least : bytes;
        if (arena->bytes + block_bytes > arena->limit) {
            arena->failed = true;
            return NULL;
        }
        block = malloc(sizeof *block + block_bytes);
        CHECK(block != NULL);
        *block = (struct proto_block){.next = arena->blocks, .bytes = block_bytes};
        arena->blocks = block;
        arena->bytes += block_bytes;
    }
    void *memory = block->data + block->used;
    block->used += bytes;
    return memory;
}

/* Frees blocks down to `keep`, which may be NULL. */
static void arena_cut(struct proto_arena *arena, struct proto_block *keep, size_t keep_used)
{
    while (arena->blocks != keep) {
        struct proto_block *next = arena->blocks->next;
        arena->bytes -= arena->blocks->bytes;
        free(arena->blocks);
        arena->blocks = next;
    }
    if (keep != NULL) {
        keep->used = keep_used;
    }
}

void proto_arena_deinit(struct proto_arena *arena)
{
    arena_cut(arena, NULL, 0);
    CHECK(arena->bytes == 0);
    arena->failed = false;
}

void proto_arena_reuse(struct proto_arena *arena)
{
    struct proto_block *keep = arena->blocks;
    if (keep == NULL || keep->bytes != ARENA_BLOCK_BYTES || !blocks_stay) {
        proto_arena_deinit(arena);
        return;
    }
    struct proto_block *others = keep->next;
    keep->next = NULL;
    arena->blocks = others;
    arena->bytes -= keep->bytes;
    proto_arena_deinit(arena);
    keep->used = 0;
    arena->blocks = keep;
    arena->bytes = keep->bytes;
}

void *proto_arena_take(struct proto_arena *arena, size_t bytes)
{
    CHECK(bytes < SIZE_MAX / 2);
    arena->limit = SIZE_MAX;
    size_t room = bytes > 0 ? bytes : 1;
    struct proto_block *block = arena->blocks;
    if (room > LIMIT_PROTO_ARENA_BYTES || block == NULL || room + 15 > block->bytes - block->used) {
        size_t block_bytes = room + 15 < ARENA_BLOCK_BYTES ? ARENA_BLOCK_BYTES : room + 15;
        block = malloc(sizeof *block + block_bytes);
        CHECK(block != NULL);
        *block = (struct proto_block){.next = arena->blocks, .bytes = block_bytes};
        arena->blocks = block;
        arena->bytes += block_bytes;
    }
    void *memory = block->data + block->used;
    block->used += (room + 15) / 16 * 16;
    memset(memory, 0, room);
    return memory;
}

enum err proto_unpack(const ProtobufCMessageDescriptor *descriptor, struct slice header, struct proto_arena *arena,
                      void **ret_message)
{
    arena->limit = arena->bytes + LIMIT_PROTO_ARENA_BYTES;
    struct proto_block *keep = arena->blocks;
    size_t keep_used = keep != NULL ? keep->used : 0;
    static const uint8_t nothing[1];
    void *message = proto_walk(descriptor, header.bytes > 0 ? header.data : nothing, header.bytes, arena_alloc, arena);
    if (message == NULL) {
        /* Messages unpacked into this arena before stay good. */
        arena_cut(arena, keep, keep_used);
        arena->failed = false;
        return ERR_BAD_PROTO;
    }
    *ret_message = message;
    return ERR_OK;
}

void proto_pack_into(const void *message, struct proto_packed *ret_packed)
{
    ret_packed->large = (struct slice){0};
    ret_packed->data = proto_pack_back(message, ret_packed->room, sizeof ret_packed->room, &ret_packed->bytes);
    if (ret_packed->data == NULL) {
        ret_packed->bytes = protobuf_c_message_get_packed_size(message);
        ret_packed->large = slice_alloc(ret_packed->bytes);
        ret_packed->data = ret_packed->large.data;
        CHECK(protobuf_c_message_pack(message, ret_packed->large.data) == ret_packed->bytes);
    }
}

struct slice proto_pack(const void *message)
{
    struct proto_packed packed;
    proto_pack_into(message, &packed);
    return packed.data == packed.large.data ? packed.large : slice_copy(packed.data, packed.bytes);
}

struct slice error_reply_encode_leader(enum err err, const char *text, uint32_t leader, const char *address)
{
    CHECK(err != ERR_OK);
    Cairn__ErrorReply reply = CAIRN__ERROR_REPLY__INIT;
    reply.code = (uint32_t)err;
    reply.text = (char *)(uintptr_t)(text != NULL ? text : err_text(err));
    reply.leader = leader;
    reply.leader_address = (char *)(uintptr_t)(address != NULL ? address : "");
    return proto_pack(&reply);
}

struct slice error_reply_encode(enum err err, const char *text, uint32_t leader)
{
    return error_reply_encode_leader(err, text, leader, NULL);
}

bool error_reply_leader(struct slice header, uint32_t *ret_leader, char ret_host[ERROR_HOST_BYTES], uint16_t *ret_port)
{
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    bool found = false;
    if (proto_unpack(&cairn__error_reply__descriptor, header, &arena, &unpacked) == ERR_OK) {
        const Cairn__ErrorReply *reply = unpacked;
        const char *colon = strrchr(reply->leader_address, ':');
        unsigned long port = colon != NULL ? strtoul(colon + 1, NULL, 10) : 0;
        size_t host_bytes = colon != NULL ? (size_t)(colon - reply->leader_address) : 0;
        found = reply->leader != 0 && port >= 1 && port <= 65535 && host_bytes >= 1 && host_bytes < ERROR_HOST_BYTES;
        if (found) {
            *ret_leader = reply->leader;
            *ret_port = (uint16_t)port;
            memcpy(ret_host, reply->leader_address, host_bytes);
            ret_host[host_bytes] = '\0';
        }
    }
    proto_arena_deinit(&arena);
    return found;
}

enum err error_reply_decode(struct slice header, uint32_t *ret_leader)
{
    struct proto_arena arena = {0};
    Cairn__ErrorReply *reply = NULL;
    enum err err = proto_unpack(&cairn__error_reply__descriptor, header, &arena, (void **)&reply);
    if (err == ERR_OK) {
        bool good = reply->code != ERR_OK && reply->code <= UINT16_MAX;
        err = good ? (enum err)reply->code : ERR_BAD_PROTO;
        if (good && ret_leader != NULL) {
            *ret_leader = reply->leader;
        }
    }
    proto_arena_deinit(&arena);
    return err;
}
