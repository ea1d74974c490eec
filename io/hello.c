/* The hello: first frame each way, and later the ping of a silent connection (the accepting side echoes it).
 *
 * Happy path: version, cluster, role and id agree, the connection opens, and what waits for the node goes out. What
 * does not agree is answered with an error frame and closed. A client may not know its cluster yet: it sends none.
 * Servers of two incarnations of a cluster never speak to each other; the older one learns of the newer (R-A10). */
#include <inttypes.h>
#include <string.h>

#include "base/check.h"
#include "io/net.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/version.h"

static bool cluster_known(const struct cluster_id *cluster)
{
    static const struct cluster_id none;
    return memcmp(cluster, &none, sizeof none) != 0;
}

void hello_send(struct conn *conn)
{
    struct runtime_config *config = &conn->net->runtime->config;
    Cairn__Hello hello = CAIRN__HELLO__INIT;
    hello.version = FRAME_VERSION;
    hello.features = WIRE_FEATURES;
    hello.build = (char *)(uintptr_t)CAIRN_VERSION;
    hello.role = config->role;
    hello.id = config->id;
    if (cluster_known(&config->cluster)) {
        hello.cluster.data = config->cluster.uuid.bytes;
        hello.cluster.len = sizeof config->cluster.uuid.bytes;
        hello.cluster_incarnation = config->cluster_incarnation;
    }
    conn_queue(conn, out_frame_create(MESSAGE_HELLO, 0, 0, 0, proto_pack(&hello), (struct slice){0}));
}

/* One of the two is of the cluster before its recovery. If it is this process, and a metadata node says so, the shell
 * hears of it. */
static enum err hello_other_incarnation(const struct runtime *runtime, const struct principal *peer, uint64_t theirs)
{
    uint64_t ours = runtime->config.cluster_incarnation;
    bool newer = incarnation_is_newer(theirs, ours);
    if (newer && peer->role == ROLE_METAD && runtime->hooks.newer != NULL) {
        runtime->hooks.newer(runtime->hooks.context, peer->id, theirs);
    }
    return newer || incarnation_is_newer(ours, theirs) ? ERR_OLD_INCARNATION : ERR_WRONG_CLUSTER;
}

static enum err hello_check_cluster(const struct runtime *runtime, const struct principal *peer,
                                    const Cairn__Hello *hello)
{
    const struct runtime_config *config = &runtime->config;
    if (!cluster_known(&config->cluster)) {
        return ERR_OK; /* a client that does not know yet believes the certificate */
    }
    bool client = peer->role == ROLE_DEVICE || peer->role == ROLE_GATEWAY;
    if (hello->cluster.len == 0) {
        return client ? ERR_OK : ERR_WRONG_CLUSTER;
    }
    if (hello->cluster.len != sizeof config->cluster.uuid.bytes ||
        memcmp(hello->cluster.data, config->cluster.uuid.bytes, sizeof config->cluster.uuid.bytes) != 0) {
        return ERR_WRONG_CLUSTER;
    }
    bool skips_incarnation = client && hello->cluster_incarnation == 0;
    bool same = hello->cluster_incarnation == config->cluster_incarnation || config->cluster_incarnation == 0;
    return same || skips_incarnation ? ERR_OK : hello_other_incarnation(runtime, peer, hello->cluster_incarnation);
}

static enum err hello_check(const struct conn *conn, struct slice header)
{
    struct proto_arena arena = {0};
    Cairn__Hello *hello = NULL;
    enum err err = proto_unpack(&cairn__hello__descriptor, header, &arena, (void **)&hello);
    if (err == ERR_OK) {
        if (hello->version != FRAME_VERSION || hello->features != WIRE_FEATURES) {
            err = ERR_BAD_VERSION;
        } else if (hello->role != conn->peer.role || hello->id != conn->peer.id) {
            err = ERR_WRONG_ROLE;
        } else {
            err = hello_check_cluster(conn->net->runtime, &conn->peer, hello);
        }
    }
    proto_arena_deinit(&arena);
    return err;
}

void hello_take(struct conn *conn, const struct frame *frame, struct slice header)
{
    if (frame->flags & MESSAGE_ERROR) {
        uint32_t leader;
        enum err err = error_reply_decode(header, &leader);
        err = err == ERR_OK ? ERR_CLOSED : err;
        io_log(LOG_WARN, err, "%s refused this node: %s", conn->name, err_text(err));
        conn_close(conn, err);
        return;
    }
    if (conn->state == CONN_OPEN) {
        if (conn->accepted && !(frame->flags & MESSAGE_REPLY)) {
            conn_queue(conn,
                       out_frame_create(MESSAGE_HELLO, MESSAGE_REPLY, 0, 0, (struct slice){0}, (struct slice){0}));
        }
        return;
    }
    CHECK(conn->state == CONN_HELLO);
    if (frame->flags != 0) {
        conn_refuse(conn, ERR_BAD_FRAME, "the first frame is not a hello");
        return;
    }
    enum err err = hello_check(conn, header);
    if (err != ERR_OK) {
        conn_refuse(conn, err, "hello: %s", err_text(err));
        return;
    }
    conn_open(conn);
}
