/* What a group keeps of itself in the key-value store, beside its machine.
 *
 *   (group, view) 'a'   u64 applied index, u64 its term, u64 rolling digest, u64 checkpoint, u64 digest there
 *   (group, view) 'c'   u64 index, then the packed configuration in force at the applied index; none: the first one
 *   (group, 0)    'v'   u32 view in force; none: 1
 *   (group, 0)    'r'   u64 index, u64 term: a snapshot was switched to, the log is not known to be reset to it
 *   (group, view) 0     of a view that a snapshot is received under: how far it is
 *                       (u32 sender, u64 id, u64 index, u64 its term, u64 next piece, u32 the sender's view,
 *                       u32 checksum of the pieces, the last key as the sender has it)
 *
 * The last is the first key of its view: whoever deletes what is left of that view deletes it before anything it speaks
 * of. It is written in the batch of each piece and deleted by the switch.
 *
 * What lies under the view in force is the group's state and travels with a snapshot; what lies under view 0 is this
 * node's own and does not. Keys of other views are what is left of an older state or of a snapshot that did not arrive:
 * they are deleted a few at a time. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "metad/group.h"

#define CLEAN_KEYS 256u

static struct key key_own(const struct group *group, char letter)
{
    return key_begin((struct prefix){.group = group->params.group}, letter);
}

/* NOT_FOUND leaves the value empty. */
static enum err standing_get(struct group *group, const struct key *key, struct slice *ret_value)
{
    enum err err = kv_get(&group->state.kv->view, key->bytes, key->count, ret_value);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static void config_first(const struct group *group, struct raft_config *ret_config)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    for (uint32_t i = 0; i < bootstrap->member_count; i++) {
        ret_config->members[i] = (struct raft_member){.node = bootstrap->members[i], .roles = RAFT_VOTER};
    }
    ret_config->count = bootstrap->member_count;
}

static enum err config_read(struct group *group, struct raft_config_at *ret_config)
{
    struct key key = key_begin(group->state.group, 'c');
    struct slice value = {0};
    struct raft_config_at config = {0};
    enum err err = standing_get(group, &key, &value);
    if (err == ERR_OK && value.bytes == 0) {
        config_first(group, &config.config);
    } else if (err == ERR_OK && value.bytes > 8) {
        config.index = get_u64(value.data);
        err = raft_config_decode(slice_borrow(value.data + 8, value.bytes - 8), &config.config);
    } else {
        err = ERR_CORRUPT;
    }
    slice_drop(&value);
    if (err == ERR_OK) {
        *ret_config = config;
    }
    return err;
}

enum err standing_read(struct group *group, struct standing *ret_standing)
{
    struct key key = key_begin(group->state.group, 'a');
    struct slice value = {0};
    struct standing at = {0};
    enum err err = standing_get(group, &key, &value);
    struct reader reader = reader_of(value.data, value.bytes);
    if (err == ERR_OK && value.bytes > 0) {
        at.applied = reader_u64(&reader);
        at.term = reader_u64(&reader);
        at.digest = reader_u64(&reader);
        at.checkpoint = reader_u64(&reader);
        at.checkpoint_digest = reader_u64(&reader);
        err = reader.failed || reader.left != 0 ? ERR_CORRUPT : ERR_OK;
    }
    slice_drop(&value);
    if (err == ERR_OK) {
        err = config_read(group, &at.config);
    }
    if (err == ERR_OK && at.config.index > at.applied) {
        err = ERR_CORRUPT;
    }
    if (err == ERR_OK) {
        *ret_standing = at;
    }
    return err;
}

/* The highest view that has keys. */
static uint32_t view_highest(struct group *group)
{
    struct key end = key_begin((struct prefix){.group = group->params.group + 1}, 0);
    struct slice key = {0}, value = {0};
    uint32_t view = 0;
    if (kv_prev(&group->state.kv->view, end.bytes, 4, &key, &value) == ERR_OK && key.bytes >= 8 &&
        get_be32(key.data) == group->params.group) {
        view = get_be32(key.data + 4);
    }
    slice_drop(&key);
    slice_drop(&value);
    return view;
}

static struct key key_received(const struct group *group, uint32_t view)
{
    return key_begin((struct prefix){.group = group->params.group, .view = view}, 0);
}

void standing_received(struct group *group, struct slice last)
{
    const struct snapshot_in *in = &group->in;
    struct writer writer = {0};
    writer_u32(&writer, in->from);
    writer_u64(&writer, in->id);
    writer_u64(&writer, in->index);
    writer_u64(&writer, in->index_term);
    writer_u64(&writer, in->next);
    writer_u32(&writer, in->their_view);
    writer_u32(&writer, in->checksum);
    writer_put(&writer, last.data, last.bytes);
    struct key key = key_received(group, in->view);
    state_put_bytes(&group->state, &key, writer.data, writer.bytes);
    writer_deinit(&writer);
}

/* What does not decode is as if nothing had come: it is begun anew. */
bool standing_received_read(struct group *group, uint32_t view, struct snapshot_in *ret_in, struct slice *ret_last)
{
    struct key key = key_received(group, view);
    struct slice value = {0};
    enum err err = standing_get(group, &key, &value);
    struct reader reader = reader_of(value.data, value.bytes);
    struct snapshot_in in = {.view = view};
    in.from = reader_u32(&reader);
    in.id = reader_u64(&reader);
    in.index = reader_u64(&reader);
    in.index_term = reader_u64(&reader);
    in.next = reader_u64(&reader);
    in.their_view = reader_u32(&reader);
    in.checksum = reader_u32(&reader);
    bool found = err == ERR_OK && !reader.failed && reader.left > 0;
    if (found) {
        *ret_in = in;
        *ret_last = slice_copy(value.data + (value.bytes - reader.left), reader.left);
    }
    slice_drop(&value);
    return found;
}

/* A snapshot that was being received goes on, if its sender does. */
static void received_load(struct group *group)
{
    struct snapshot_in in;
    struct slice last = {0};
    if (group->view_next == group->view || !standing_received_read(group, group->view_next, &in, &last)) {
        return;
    }
    slice_drop(&last);
    if (in.index > group->at.applied) {
        group->in = in;
        group->in.by_ns = group->event->now_ns + SNAPSHOT_SILENT_NS;
    }
}

enum err standing_load(struct group *group)
{
    struct key key = key_own(group, 'v');
    struct slice value = {0};
    enum err err = standing_get(group, &key, &value);
    if (err != ERR_OK || (value.bytes != 0 && value.bytes != 4)) {
        slice_drop(&value);
        return ERR_CORRUPT;
    }
    group->view = value.bytes == 4 ? get_u32(value.data) : 1;
    slice_drop(&value);
    uint32_t highest = view_highest(group);
    group->view_next = highest > group->view ? highest : group->view;
    group->leftover = true;
    group->state.group.view = group->view;
    err = standing_read(group, &group->at);
    if (err == ERR_OK) {
        received_load(group);
    }
    return err;
}

void standing_put(struct group *group)
{
    const struct standing *at = &group->at;
    struct writer writer = {0};
    writer_u64(&writer, at->applied);
    writer_u64(&writer, at->term);
    writer_u64(&writer, at->digest);
    writer_u64(&writer, at->checkpoint);
    writer_u64(&writer, at->checkpoint_digest);
    struct key key = key_begin(group->state.group, 'a');
    state_put_bytes(&group->state, &key, writer.data, writer.bytes);
    writer_deinit(&writer);
}

void standing_config(struct group *group, uint64_t index, const struct raft_config *config)
{
    struct slice packed = raft_config_encode(config);
    struct writer writer = {0};
    writer_u64(&writer, index);
    writer_put(&writer, packed.data, packed.bytes);
    struct key key = key_begin(group->state.group, 'c');
    state_put_bytes(&group->state, &key, writer.data, writer.bytes);
    writer_deinit(&writer);
    slice_drop(&packed);
    group->at.config = (struct raft_config_at){.index = index, .config = *config};
    identity_config(group, index, config);
}

void standing_digest(struct group *group, uint64_t value)
{
    uint64_t x = group->at.digest ^ (value + 0x9e3779b97f4a7c15ull);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    group->at.digest = x ^ (x >> 31);
}

void standing_switch(struct group *group, uint32_t view, uint64_t index, uint64_t term)
{
    uint8_t packed[16];
    struct key key = key_received(group, view);
    state_delete(&group->state, &key);
    key = key_own(group, 'v');
    put_u32(packed, view);
    state_put_bytes(&group->state, &key, packed, 4);
    key = key_own(group, 'r');
    put_u64(packed, index);
    put_u64(packed + 8, term);
    state_put_bytes(&group->state, &key, packed, 16);
    group->view = group->state.group.view = view;
    group->leftover = group->reset_due = true;
}

bool standing_reset_wanted(struct group *group, uint64_t *ret_index, uint64_t *ret_term)
{
    struct key key = key_own(group, 'r');
    struct slice value = {0};
    enum err err = standing_get(group, &key, &value);
    CHECK(err == ERR_OK && (value.bytes == 0 || value.bytes == 16));
    group->reset_due = value.bytes == 16;
    if (group->reset_due) {
        *ret_index = get_u64(value.data);
        *ret_term = get_u64(value.data + 8);
    }
    slice_drop(&value);
    return group->reset_due;
}

void standing_reset_done(struct group *group)
{
    struct key key = key_own(group, 'r');
    state_delete(&group->state, &key);
    group->reset_due = false;
    group->reset_number = 0;
}

void standing_clean(struct group *group)
{
    struct prefix prefix = {.group = group->params.group, .view = 1};
    struct key from = key_begin(prefix, 0);
    bool after = false; /* the key `from` itself was deleted */
    from.count = 8;
    for (uint32_t deleted = 0; deleted < CLEAN_KEYS && group->leftover;) {
        struct slice key = {0}, value = {0};
        enum err err = kv_next(&group->state.kv->view, from.bytes, from.count, after, &key, &value);
        bool found = err == ERR_OK && key.bytes >= 9 && get_be32(key.data) == group->params.group;
        uint32_t view = found ? get_be32(key.data + 4) : 0;
        if (!found) {
            group->leftover = err != ERR_NOT_FOUND && err != ERR_OK;
        } else if (view == group->view || (group->in.from != 0 && view == group->in.view)) {
            prefix.view = view + 1;
            from = key_begin(prefix, 0);
            from.count = 8;
            after = false;
        } else {
            kv_batch_delete(group->state.kv->batch, key.data, key.bytes);
            CHECK(key.bytes <= sizeof from.bytes);
            memcpy(from.bytes, key.data, key.bytes);
            from.count = (uint32_t)key.bytes;
            after = true;
            deleted++;
        }
        slice_drop(&key);
        slice_drop(&value);
        if (err != ERR_OK) {
            return;
        }
    }
}
