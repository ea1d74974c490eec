/* The cluster's keys and its map, as each group of a node has them: group 0 opens its root record under the cluster key
 * and hands what is in it to the others (ROOT_STATE), again whenever it changes.
 *
 * Failure: a record that does not open is a HALT: the key of another cluster was configured. */
#include <string.h>

#include "base/authority.h"
#include "base/check.h"
#include "metad/group.h"

void keyring_deinit(struct keyring *keyring)
{
    proto_arena_deinit(&keyring->map_arena);
    slice_drop(&keyring->map_bytes);
    slice_wipe(&keyring->authority_key);
    slice_drop(&keyring->authority);
    explicit_bzero(keyring, sizeof *keyring);
}

static void keyring_secret(uint8_t ret[32], ProtobufCBinaryData secret)
{
    CHECK(secret.len == 32);
    memcpy(ret, secret.data, 32);
}

void keyring_take(struct keyring *keyring, const Cairn__RootState *state)
{
    CHECK(state->map != NULL);
    keyring_deinit(keyring);
    keyring->realm = state->realm;
    keyring_secret(keyring->realm_key, state->realm_key);
    keyring_secret(keyring->realm_secret, state->realm_secret);
    keyring_secret(keyring->receipt_master, state->receipt_master);
    keyring_secret(keyring->signing_seed, state->signing_seed);
    keyring->signing_key_id = state->signing_key_id;
    keyring->authority_key = slice_copy(state->authority_key.data, state->authority_key.len);
    keyring->authority = slice_copy(state->authority.data, state->authority.len);
    keyring->map_bytes = proto_pack(state->map);
    void *map = NULL;
    enum err err = proto_unpack(&cairn__cluster_map__descriptor, keyring->map_bytes, &keyring->map_arena, &map);
    CHECK(err == ERR_OK);
    keyring->map = map;
    keyring->present = true;
}

void group_share_root(struct group *group)
{
    CHECK(group->params.group == 0);
    struct proto_arena arena = {0};
    Cairn__RootRecord *record = NULL;
    Cairn__RootState state = CAIRN__ROOT_STATE__INIT;
    enum err err = root_record_get(&group->state, &arena, &record);
    if (err == ERR_OK) {
        err = root_keys_open(record, group->params.cluster_key, &state, &arena);
    }
    if (err == ERR_OK) {
        keyring_take(&group->keyring, &state);
        struct slice packed = proto_pack(&state);
        for (uint32_t i = 1; i < group->params.group_count; i++) {
            fx_send(group->fx, address_local(ACTOR_GROUP, i), MESSAGE_ROOT_STATE, 0, slice_ref(packed),
                    (struct slice){0});
        }
        slice_drop(&packed);
    } else if (err != ERR_NOT_FOUND) {
        group_halt(group, err, "the root record does not open: is cluster_key the cluster's?");
    }
    proto_arena_deinit(&arena);
}

void group_root_state(struct group *group, struct slice header)
{
    struct proto_arena arena = {0};
    void *state = NULL;
    enum err err = proto_unpack(&cairn__root_state__descriptor, header, &arena, &state);
    CHECK(err == ERR_OK);
    keyring_take(&group->keyring, state);
    proto_arena_deinit(&arena);
}
