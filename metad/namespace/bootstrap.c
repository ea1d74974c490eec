/* The first records of a group, written when its boot entry is applied, alike on every replica: the root user with one
 * device in each group, and in group 1 the first workspace with its root namespace and root folder. */
#include <string.h>

#include "base/check.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

#define FIRST_FOLDER 1u
/* Content-defined cutting: 256 KiB / 1 MiB / 4 MiB; in simulation 64 / 256 / 1024 bytes. */
#define CUT_MIN_PART 16u
#define CUT_AVG_PART 4u

static void bootstrap_user(struct state *state, const struct bootstrap *bootstrap)
{
    Cairn__UserRecord user = CAIRN__USER_RECORD__INIT;
    user.user = USER_ROOT;
    user.name = "root";
    user.root = true;
    user.writer = WRITER_ROOT;
    struct key key = key_user(state->group, user.user);
    state_put(state, &key, &user);
    Cairn__DeviceRecord device = CAIRN__DEVICE_RECORD__INIT;
    device.device = bootstrap->device;
    device.user = USER_ROOT;
    device.bearer = (ProtobufCBinaryData){sizeof bootstrap->bearer, (uint8_t *)(uintptr_t)bootstrap->bearer.bytes};
    key = key_device(state->group, device.device);
    state_put(state, &key, &device);
}

static void bootstrap_workspace(struct state *state, const struct bootstrap *bootstrap)
{
    Cairn__NamespaceRecord ns = CAIRN__NAMESPACE_RECORD__INIT;
    ns.ns = NAMESPACE_FIRST;
    ns.incarnation = 1;
    ns.root = FIRST_FOLDER;
    ns.realm = REALM_FIRST;
    ns.workspace = (char *)(uintptr_t)bootstrap->workspace;
    ns.pool = POOL_FIRST;
    ns.next_id = FIRST_FOLDER + 1;
    ns.chunk_bytes = bootstrap->chunk_bytes;
    ns.cut_min_bytes = bootstrap->chunk_bytes / CUT_MIN_PART;
    ns.cut_avg_bytes = bootstrap->chunk_bytes / CUT_AVG_PART;
    ns.copy_bytes = bootstrap->copy_bytes;
    namespace_put(state, &ns);
    uint64_t lanes[4] = {0};
    Cairn__FolderRecord folder = CAIRN__FOLDER_RECORD__INIT;
    folder.n_digest = 4;
    folder.digest = lanes;
    records_folder_put(state, ns.ns, ns.root, &folder);
}

void namespace_bootstrap(struct state *state, const struct bootstrap *bootstrap)
{
    bootstrap_user(state, bootstrap);
    if (state->group.group == 1) {
        bootstrap_workspace(state, bootstrap);
    }
    records_settle(state);
}
