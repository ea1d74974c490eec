/* Upload sessions: the record under (S, ns, session), and what every operation on one checks first. */
#include "metad/namespace/session.h"

#include "base/check.h"

struct key key_session(uint32_t group, uint64_t ns, uint64_t session)
{
    struct key key = key_begin(group, 'S');
    key_u64(&key, ns);
    key_u64(&key, session);
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

void session_put(struct state *state, uint64_t ns, const Cairn__SessionRecord *session)
{
    struct key key = key_session(state->group, ns, session->session);
    state_put(state, &key, session);
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
