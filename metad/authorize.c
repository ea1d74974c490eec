/* The one function that decides who may do what (DESIGN.md section 10). The dispatcher calls it before any handler;
 * each row of messages.def names the right it needs.
 *
 * Facts: a device is its number and its key, and belongs to a user; a root user may do all; another user has what a
 * membership record of the namespace says. Unknown device, unknown namespace and missing right answer alike. */
#include <string.h>

#include "base/check.h"
#include "metad/machine.h"

static bool member_has(struct state *state, uint64_t ns, const Cairn__UserRecord *user, enum right right)
{
    struct key key = key_begin(state->group, 'W');
    key_u64(&key, ns);
    key_u64(&key, user->user);
    struct slice role = {0};
    if (kv_get(&state->kv->view, key.bytes, key.count, &role) != ERR_OK) {
        return false;
    }
    uint8_t held = role.bytes == 1 ? role.data[0] : 0;
    slice_drop(&role);
    return right != RIGHT_ADMIN && right != RIGHT_NODE && held >= (right == RIGHT_WRITE ? 2 : 1);
}

enum err authorize(struct state *state, struct principal peer, enum right right, uint64_t ns, struct proto_arena *arena,
                   Cairn__DeviceRecord **ret_device, Cairn__UserRecord **ret_user)
{
    CHECK(right >= RIGHT_NONE && right <= RIGHT_CAPABILITY);
    if (peer.role != ROLE_DEVICE) {
        return ERR_DENIED;
    }
    Cairn__DeviceRecord *device = NULL;
    Cairn__UserRecord *user = NULL;
    struct key key = key_device(state->group, peer.id);
    enum err err = state_get(state, &key, &cairn__device_record__descriptor, arena, &device);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_DENIED : err;
    }
    if (device->bearer.len != sizeof peer.key || memcmp(device->bearer.data, peer.key.bytes, sizeof peer.key) != 0) {
        return ERR_DENIED; /* a certificate of that number with a key that was never registered */
    }
    key = key_user(state->group, device->user);
    err = state_get(state, &key, &cairn__user_record__descriptor, arena, &user);
    if (err != ERR_OK) {
        return err == ERR_NOT_FOUND ? ERR_DENIED : err;
    }
    struct key ns_key = key_namespace(state->group, ns);
    bool exists = ns == 0 || state_has(state, &ns_key);
    bool named = ns != 0 || (right != RIGHT_READ && right != RIGHT_WRITE);
    bool allowed = exists && named && (user->root || (ns != 0 && member_has(state, ns, user, right)));
    if (!allowed) {
        return ERR_DENIED;
    }
    *ret_device = device;
    *ret_user = user;
    return ERR_OK;
}
