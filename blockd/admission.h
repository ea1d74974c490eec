/* Who may put and get what here: the map this store knows, the cluster time it counts, and the capabilities it has
 * verified. No I/O; one owner, the store's thread. */
#ifndef CAIRN_BLOCKD_ADMISSION_H
#define CAIRN_BLOCKD_ADMISSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/effect.h"
#include "base/ids.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"
#include "proto/token.h"

#define ADMISSION_SETS 256u /* the table of verified capabilities: sets of ways, least recently used goes */
#define ADMISSION_WAYS 4u
#define TICK_NS        (10ull * 1000000000) /* cluster time counts in ticks of 10 s (R-C7) */

/* A verified capability. The byte budget is counted here, in memory (R-C3): eviction and restart reset it. */
struct admission_token {
    bool used;
    struct sha256 digest; /* of the token's bytes */
    uint8_t public_key[32];
    struct capability capability;
    uint64_t spent_bytes;
    uint64_t last_use;
};

struct admission {
    struct cluster_id cluster;
    uint64_t cluster_incarnation;
    /* what the agent told; nothing is admitted before */
    uint32_t store; /* number in the map; 0: not registered yet */
    uint64_t incarnation;
    uint8_t receipt_key[32];
    uint64_t tick, tick_heard_ns;
    Cairn__ClusterMap *map; /* NULL until heard */
    struct proto_arena arena;
    struct admission_token *tokens;
    uint64_t uses;
};

void admission_init(struct admission *admission, struct cluster_id cluster, uint64_t cluster_incarnation);
void admission_deinit(struct admission *admission);
/* Takes a STORE_STATE header (report.h). INVALID or BAD_PROTO leaves everything as it was; an older map is ignored. */
MUST_CHECK enum err admission_hear(struct admission *admission, struct slice state, uint64_t now_ns);
/* Cluster time as counted here: the last tick heard, moved on by the own monotonic clock since (R-C7). */
uint64_t admission_tick(const struct admission *admission, uint64_t now_ns);
uint64_t admission_epoch(const struct admission *admission);

/* The verified capability of these bytes if it is good now for `operation` of `peer`: else BAD_CAPABILITY,
 * WRONG_CLUSTER, EXPIRED or UNSUPPORTED, with the reason in ret_text (static). ret_token is borrowed until the next
 * call. */
MUST_CHECK enum err admission_check(struct admission *admission, ProtobufCBinaryData capability,
                                    const struct principal *peer, enum capability_operations operation, uint64_t now_ns,
                                    struct admission_token **ret_token, const char **ret_text);
/* Takes `bytes` from the budget of the capability with this digest: BAD_CAPABILITY when it does not cover them. */
MUST_CHECK enum err admission_charge(struct admission *admission, const struct sha256 *digest, uint64_t bytes);
/* True when the newest map seats this store at the slot `index` of the chunk's placement group, as owner or stand-in,
 * in the pool of namespace `ns` (R-B4). */
bool admission_seated(const struct admission *admission, uint64_t ns, const struct chunk_id *chunk, unsigned index);

/* The placement group of a chunk: its first pg_bits bits. */
uint32_t map_pg_of(const struct chunk_id *chunk, uint32_t pg_bits);

#endif
