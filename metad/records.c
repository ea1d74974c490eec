/* Records kept unpacked for the length of a step (records.h): one namespace, one user, folders by hash. Memory is one
 * arena, given back when the step ends.
 *
 * How it fails: what the state does not have, or has damaged, is answered as state_get does and is not kept. */
#include "metad/records.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define BUCKETS 256u

struct folder_kept {
    struct folder_kept *in_bucket, *next; /* next: in the order they came */
    uint64_t ns, folder;
    bool gone; /* deleted; the batch says so */
    bool due;  /* put since it was read */
    Cairn__FolderRecord record;
    uint64_t lanes[4];
};
struct records {
    struct prefix of;
    bool used;
    bool ns_known, ns_due, user_known;
    Cairn__NamespaceRecord ns;
    Cairn__UserRecord user;
    struct folder_kept *buckets[BUCKETS];
    struct folder_kept *first, **last;
    uint32_t folder_count;
    struct proto_arena arena;
};

static void records_forget(struct records *records)
{
    proto_arena_deinit(&records->arena);
    *records = (struct records){.last = &records->first};
}

/* Those of the view in force. */
static struct records *records_of(struct state *state)
{
    struct records *records = state->records;
    if (records == NULL) {
        records = state->records = mem_alloc(sizeof *records);
        records->last = &records->first;
    }
    if (records->used && (records->of.group != state->group.group || records->of.view != state->group.view)) {
        CHECK(!records->ns_due); /* settled before the view changed */
        for (const struct folder_kept *kept = records->first; kept != NULL; kept = kept->next) {
            CHECK(!kept->due);
        }
        records_forget(records);
    }
    records->used = true;
    records->of = state->group;
    return records;
}

/* Only what was given out comes back with unknown fields: they are where they were. */
static void unknown_check(const ProtobufCMessage *kept, const ProtobufCMessage *put)
{
    CHECK(put->n_unknown_fields == 0 || put->unknown_fields == kept->unknown_fields);
}

/* ---- the namespace ---- */

enum err records_namespace(struct state *state, uint64_t ns, struct proto_arena *arena, Cairn__NamespaceRecord **ret)
{
    struct records *records = records_of(state);
    struct key key = key_namespace(state->group, ns);
    if (records->ns_known && records->ns.ns != ns) {
        return state_get(state, &key, &cairn__namespace_record__descriptor, arena, ret);
    }
    if (!records->ns_known) {
        Cairn__NamespaceRecord *read = NULL;
        enum err err = state_get(state, &key, &cairn__namespace_record__descriptor, &records->arena, &read);
        if (err == ERR_OK && read->ns != ns) {
            err = ERR_CORRUPT;
        }
        if (err != ERR_OK) {
            return err;
        }
        records->ns = *read;
        records->ns_known = true;
    }
    Cairn__NamespaceRecord *copy = proto_arena_take(arena, sizeof *copy);
    *copy = records->ns;
    *ret = copy;
    return ERR_OK;
}

void records_namespace_put(struct state *state, const Cairn__NamespaceRecord *record)
{
    struct records *records = records_of(state);
    if (records->ns_known && records->ns.ns != record->ns) {
        struct key key = key_namespace(state->group, record->ns);
        state_put(state, &key, record);
        return;
    }
    unknown_check(&records->ns.base, &record->base);
    const char *kept = records->ns.workspace;
    bool same = records->ns_known && kept == record->workspace;
    records->ns = *record;
    records->ns_known = records->ns_due = true;
    if (!same) {
        size_t bytes = strlen(record->workspace) + 1;
        records->ns.workspace = proto_arena_take(&records->arena, bytes);
        memcpy(records->ns.workspace, record->workspace, bytes);
    }
}

/* ---- folders ---- */

static struct folder_kept **bucket_of(struct records *records, uint64_t ns, uint64_t folder)
{
    return &records->buckets[(ns * 31 + folder) % BUCKETS];
}

static struct folder_kept *kept_find(struct records *records, uint64_t ns, uint64_t folder)
{
    struct folder_kept *kept = *bucket_of(records, ns, folder);
    while (kept != NULL && (kept->ns != ns || kept->folder != folder)) {
        kept = kept->in_bucket;
    }
    return kept;
}

static struct folder_kept *kept_add(struct records *records, uint64_t ns, uint64_t folder)
{
    CHECK(records->folder_count < RECORDS_FOLDERS);
    struct folder_kept *kept = proto_arena_take(&records->arena, sizeof *kept);
    struct folder_kept **bucket = bucket_of(records, ns, folder);
    kept->ns = ns;
    kept->folder = folder;
    kept->in_bucket = *bucket;
    *bucket = kept;
    *records->last = kept;
    records->last = &kept->next;
    records->folder_count++;
    return kept;
}

/* Takes the record's values; its name stays where it is. */
static void kept_set(struct folder_kept *kept, const Cairn__FolderRecord *record)
{
    CHECK(record->n_digest == 4);
    kept->record = *record;
    memcpy(kept->lanes, record->digest, sizeof kept->lanes);
    kept->record.digest = kept->lanes;
}

enum err records_folder(struct state *state, uint64_t ns, uint64_t folder, struct proto_arena *arena,
                        Cairn__FolderRecord **ret)
{
    struct records *records = records_of(state);
    struct folder_kept *kept = kept_find(records, ns, folder);
    if (kept == NULL) {
        bool room = records->folder_count < RECORDS_FOLDERS;
        struct key key = key_folder(state->group, ns, folder);
        Cairn__FolderRecord *read = NULL;
        enum err err = state_get(state, &key, &cairn__folder_record__descriptor, room ? &records->arena : arena, &read);
        if (err != ERR_OK || read->n_digest != 4) {
            return err != ERR_OK ? err : ERR_CORRUPT;
        }
        if (!room) {
            *ret = read;
            return ERR_OK;
        }
        kept = kept_add(records, ns, folder);
        kept_set(kept, read);
    }
    if (kept->gone) {
        return ERR_NOT_FOUND;
    }
    struct folder_copy {
        Cairn__FolderRecord record;
        uint64_t lanes[4];
    } *copy = proto_arena_take(arena, sizeof *copy);
    copy->record = kept->record;
    memcpy(copy->lanes, kept->lanes, sizeof copy->lanes);
    copy->record.digest = copy->lanes;
    *ret = &copy->record;
    return ERR_OK;
}

void records_folder_put(struct state *state, uint64_t ns, uint64_t folder, const Cairn__FolderRecord *record)
{
    struct records *records = records_of(state);
    struct folder_kept *kept = kept_find(records, ns, folder);
    if (kept == NULL && records->folder_count == RECORDS_FOLDERS) {
        struct key key = key_folder(state->group, ns, folder);
        state_put(state, &key, record);
        return;
    }
    kept = kept != NULL ? kept : kept_add(records, ns, folder);
    unknown_check(&kept->record.base, &record->base);
    bool same = kept->record.key.data == record->key.data && kept->record.key.len == record->key.len;
    kept_set(kept, record);
    kept->gone = false;
    kept->due = true;
    if (!same && record->key.len > 0) {
        kept->record.key.data = proto_arena_take(&records->arena, record->key.len);
        memcpy(kept->record.key.data, record->key.data, record->key.len);
    }
}

void records_folder_delete(struct state *state, uint64_t ns, uint64_t folder)
{
    struct folder_kept *kept = kept_find(records_of(state), ns, folder);
    if (kept != NULL) {
        kept->gone = true;
        kept->due = false;
    }
    struct key key = key_folder(state->group, ns, folder);
    state_delete(state, &key);
}

/* ---- the user ---- */

enum err records_user(struct state *state, uint64_t user, struct proto_arena *arena, const Cairn__UserRecord **ret)
{
    struct records *records = records_of(state);
    if (records->user_known && records->user.user == user) {
        *ret = &records->user;
        return ERR_OK;
    }
    struct key key = key_user(state->group, user);
    Cairn__UserRecord *read = NULL;
    enum err err =
        state_get(state, &key, &cairn__user_record__descriptor, records->user_known ? arena : &records->arena, &read);
    if (err == ERR_OK && !records->user_known && read->user == user) {
        records->user = *read;
        records->user_known = true;
    }
    if (err == ERR_OK) {
        *ret = read;
    }
    return err;
}

/* ---- the end of a step ---- */

void records_settle(struct state *state)
{
    struct records *records = state->records;
    if (records == NULL || !records->used) {
        return;
    }
    CHECK(records->of.group == state->group.group && records->of.view == state->group.view);
    if (records->ns_due) {
        struct key key = key_namespace(records->of, records->ns.ns);
        state_put(state, &key, &records->ns);
    }
    for (const struct folder_kept *kept = records->first; kept != NULL; kept = kept->next) {
        if (kept->due) {
            struct key key = key_folder(records->of, kept->ns, kept->folder);
            state_put(state, &key, &kept->record);
        }
    }
    records_forget(records);
}

bool records_are_full(const struct state *state)
{
    return state->records != NULL && state->records->folder_count == RECORDS_FOLDERS;
}

void records_deinit(struct state *state)
{
    if (state->records != NULL) {
        records_forget(state->records);
        free(state->records);
        state->records = NULL;
    }
}
