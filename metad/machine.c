/* Keys, records, events and answers: what every operation of a group is written with (machine.h).
 *
 * A group's whole state lies under (group u32, view u32); which view, standing.c says (R-E4).
 */
#include "metad/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/name.h"

#define FEED_BATCH_EVENTS 256u  /* events in one packed value */
#define FEED_CHANGE_TAG   0x0au /* FeedBatch.changes: field 1, by length */

struct key key_begin(struct prefix group, char letter)
{
    struct key key; /* a kilobyte: not cleared */
    key.count = 9;
    put_be32(key.bytes, group.group);
    put_be32(key.bytes + 4, group.view);
    key.bytes[8] = (uint8_t)letter;
    return key;
}

void key_bytes(struct key *key, const void *data, size_t bytes)
{
    CHECK(key->count >= 9 && bytes <= sizeof key->bytes - key->count);
    if (bytes > 0) {
        memcpy(key->bytes + key->count, data, bytes);
    }
    key->count += bytes;
}

void key_u64(struct key *key, uint64_t v)
{
    uint8_t packed[8];
    put_be64(packed, v);
    key_bytes(key, packed, sizeof packed);
}

void key_u32(struct key *key, uint32_t v)
{
    uint8_t packed[4];
    put_be32(packed, v);
    key_bytes(key, packed, sizeof packed);
}

void key_u8(struct key *key, uint8_t v)
{
    key_bytes(key, &v, 1);
}

enum err state_get(struct state *state, const struct key *key, const ProtobufCMessageDescriptor *descriptor,
                   struct proto_arena *arena, void *ret_record)
{
    struct slice value = {0};
    enum err err = kv_get(&state->kv->view, key->bytes, key->count, &value);
    if (err == ERR_NOT_FOUND) {
        return err;
    }
    if (err != ERR_OK) {
        return ERR_CORRUPT;
    }
    void *record = NULL;
    err = proto_unpack(descriptor, value, arena, &record);
    slice_drop(&value);
    if (err != ERR_OK) {
        return ERR_CORRUPT;
    }
    memcpy(ret_record, &record, sizeof record);
    return ERR_OK;
}

bool state_has(struct state *state, const struct key *key)
{
    struct slice value = {0};
    enum err err = kv_get(&state->kv->view, key->bytes, key->count, &value);
    slice_drop(&value);
    CHECK(err == ERR_OK || err == ERR_NOT_FOUND);
    return err == ERR_OK;
}

void state_put(struct state *state, const struct key *key, const void *record)
{
    struct proto_packed packed;
    proto_pack_into(record, &packed);
    kv_batch_put(state->kv->batch, key->bytes, key->count, packed.data, packed.bytes);
    slice_drop(&packed.large);
}

void state_put_bytes(struct state *state, const struct key *key, const void *data, size_t bytes)
{
    kv_batch_put(state->kv->batch, key->bytes, key->count, data, bytes);
}

void state_delete(struct state *state, const struct key *key)
{
    kv_batch_delete(state->kv->batch, key->bytes, key->count);
}

struct key key_user(struct prefix group, uint64_t user)
{
    struct key key = key_begin(group, 'U');
    key_u64(&key, user);
    return key;
}

struct key key_device(struct prefix group, uint32_t device)
{
    struct key key = key_begin(group, 'D');
    key_u32(&key, device);
    return key;
}

void answer_set(struct answer *answer, const void *message)
{
    CHECK(answer->header.bytes == 0);
    answer->header = proto_pack(message);
}

/* ---- events ---- */

/* The event as an element of a FeedBatch's list: tag, length, bytes, as protobuf packs it. */
static void change_pack(struct writer *packed, const Cairn__Change *change)
{
    struct proto_packed bytes;
    proto_pack_into(change, &bytes);
    writer_u8(packed, FEED_CHANGE_TAG);
    size_t left = bytes.bytes;
    for (; left >= 0x80; left >>= 7) {
        writer_u8(packed, (uint8_t)(left | 0x80));
    }
    writer_u8(packed, (uint8_t)left);
    writer_put(packed, bytes.data, bytes.bytes);
    slice_drop(&bytes.large);
}

uint64_t feed_add(struct apply *apply, Cairn__NamespaceRecord *ns, uint32_t kind, const Cairn__Entry *entry,
                  uint64_t from_parent, const ProtobufCBinaryData *from_name)
{
    struct feed *feed = apply->feed;
    CHECK(ns->sequence < UINT64_MAX && (feed->count == 0 || feed->ns == ns->ns));
    if (feed->count == FEED_BATCH_EVENTS) {
        feed_flush(apply->state, feed);
    }
    ns->sequence++;
    Cairn__Change change = CAIRN__CHANGE__INIT;
    Cairn__Entry stamped = *entry;
    stamped.sequence = ns->sequence;
    change.sequence = ns->sequence;
    change.kind = kind;
    change.entry = &stamped;
    change.from_parent = from_parent;
    if (from_name != NULL) {
        change.from_name = *from_name;
    }
    change.wall_ns = apply->command->wall_ns;
    feed->ns = ns->ns;
    feed->sequence = ns->sequence;
    change_pack(&feed->packed, &change);
    feed->count++;
    return ns->sequence;
}

void feed_flush(struct state *state, struct feed *feed)
{
    if (feed->count > 0) {
        struct key key = key_begin(state->group, 'V');
        key_u64(&key, feed->ns);
        key_u64(&key, feed->sequence);
        state_put_bytes(state, &key, feed->packed.data, feed->packed.bytes);
        feed->count = 0;
        feed->packed.bytes = 0;
    }
}
