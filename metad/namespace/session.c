/* Upload sessions: the record under (S, ns, session), its place in the order of idleness under (i, ns, tick, session),
 * the count of a device's open ones under (o, ns, device), and what every operation on one checks first. */
#include "metad/namespace/session.h"

#include <string.h>

#include "base/check.h"

struct key key_session(struct prefix group, uint64_t ns, uint64_t session)
{
    struct key key = key_begin(group, 'S');
    key_u64(&key, ns);
    key_u64(&key, session);
    return key;
}

static struct key key_idle(struct prefix group, uint64_t ns, uint64_t tick, uint64_t session)
{
    struct key key = key_begin(group, 'i');
    key_u64(&key, ns);
    key_u64(&key, tick);
    key_u64(&key, session);
    return key;
}

static struct key key_open_count(struct prefix group, uint64_t ns, uint32_t device)
{
    struct key key = key_begin(group, 'o');
    key_u64(&key, ns);
    key_u32(&key, device);
    return key;
}

enum err session_get(struct state *state, uint64_t ns, uint64_t session, uint64_t user, struct proto_arena *arena,
                     Cairn__SessionRecord **ret)
{
    struct key key = key_session(state->group, ns, session);
    Cairn__SessionRecord *record = NULL;
    enum err err = state_get(state, &key, &cairn__session_record__descriptor, arena, &record);
    if (err == ERR_NOT_FOUND || (err == ERR_OK && record->user != user)) {
        return ERR_SESSION_CLOSED;
    }
    if (err == ERR_OK) {
        *ret = record;
    }
    return err;
}

static void session_put(struct state *state, uint64_t ns, const Cairn__SessionRecord *session)
{
    struct key key = key_session(state->group, ns, session->session);
    state_put(state, &key, session);
}

uint32_t session_count(struct state *state, uint64_t ns, uint32_t device)
{
    struct key key = key_open_count(state->group, ns, device);
    struct slice value = {0};
    enum err err = kv_get(&state->kv->view, key.bytes, key.count, &value);
    uint32_t count = err == ERR_OK && value.bytes == 4 ? get_u32(value.data) : 0;
    slice_drop(&value);
    return count;
}

static void session_count_set(struct state *state, uint64_t ns, uint32_t device, uint32_t count)
{
    struct key key = key_open_count(state->group, ns, device);
    uint8_t value[4];
    put_u32(value, count);
    if (count > 0) {
        state_put_bytes(state, &key, value, sizeof value);
    } else {
        state_delete(state, &key);
    }
}

void session_open(struct state *state, uint64_t ns, const Cairn__SessionRecord *session)
{
    struct key key = key_idle(state->group, ns, session->touched_tick, session->session);
    session_put(state, ns, session);
    state_put_bytes(state, &key, "", 0);
    session_count_set(state, ns, session->device, session_count(state, ns, session->device) + 1);
}

void session_touch(struct state *state, uint64_t ns, Cairn__SessionRecord *session, uint64_t tick)
{
    struct key key = key_idle(state->group, ns, session->touched_tick, session->session);
    state_delete(state, &key);
    session->touched_tick = tick;
    key = key_idle(state->group, ns, tick, session->session);
    state_put_bytes(state, &key, "", 0);
    session_put(state, ns, session);
}

void session_close(struct state *state, uint64_t ns, const Cairn__SessionRecord *session)
{
    struct key key = key_session(state->group, ns, session->session);
    uint32_t count = session_count(state, ns, session->device);
    state_delete(state, &key);
    key = key_idle(state->group, ns, session->touched_tick, session->session);
    state_delete(state, &key);
    session_count_set(state, ns, session->device, count > 0 ? count - 1 : 0);
}

Cairn__SessionRecord *session_most_idle(struct state *state, uint64_t ns, uint64_t tick, struct proto_arena *arena)
{
    struct key prefix = key_begin(state->group, 'i');
    key_u64(&prefix, ns);
    struct slice found = {0};
    struct slice value = {0};
    Cairn__SessionRecord *session = NULL;
    enum err err = kv_next(&state->kv->view, prefix.bytes, prefix.count, false, &found, &value);
    bool here = err == ERR_OK && found.bytes == prefix.count + 16 &&
                memcmp(found.data, prefix.bytes, prefix.count) == 0 &&
                get_be64(found.data + prefix.count) + SESSION_IDLE_TICKS < tick;
    if (here) {
        struct key key = key_session(state->group, ns, get_be64(found.data + prefix.count + 8));
        err = state_get(state, &key, &cairn__session_record__descriptor, arena, &session);
        CHECK(err == ERR_OK);
    }
    slice_drop(&found);
    slice_drop(&value);
    return session;
}

enum err base_check(const Cairn__EntryRecord *present, uint64_t base_version, bool any_base)
{
    if (present != NULL && present->entry->kind == ENTRY_FOLDER) {
        return ERR_IS_A_FOLDER;
    }
    if (any_base) {
        return ERR_OK;
    }
    if (present == NULL) {
        return base_version == 0 ? ERR_OK : ERR_CONFLICT;
    }
    if (base_version == 0) {
        return ERR_EXISTS;
    }
    return present->entry->version == base_version ? ERR_OK : ERR_CONFLICT;
}

void version_commit(struct apply *apply, struct place *place, Cairn__EntryRecord *record, Cairn__Entry *entry)
{
    const Cairn__Entry *old = place->entry != NULL ? place->entry->entry : NULL;
    entry->kind = ENTRY_FILE;
    entry->file = old != NULL && old->kind == ENTRY_FILE ? old->file : place->ns->next_id++;
    entry->version = place->ns->next_id++; /* unique in the namespace: a name that comes back is another version */
    entry->parent = place->parent;
    entry->mode &= 07777;
    entry->sequence = feed_add(apply, place->ns, old != NULL ? CHANGE_UPDATE : CHANGE_CREATE, entry, 0, NULL);
    record->entry = entry;
    entry_put(apply->state, place->ns, place->name_key, record, place->entry, apply->arena);
    namespace_put(apply->state, place->ns);
}
