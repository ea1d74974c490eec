/* Configurations (4): their packed form, the list of those the log holds, the peers that follow from the one in force,
 * and majorities over it. A configuration is in force from where it is appended, committed or not; when the log is cut
 * it is rolled back (4.1). The list begins with one that is committed, so that there is always one to fall back on. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "internal.h"

#define MEMBER_BYTES 5u

/* ---- the packed form ---- */

struct slice raft_config_encode(const struct raft_config *config)
{
    CHECK(raft_config_is_sound(config));
    struct slice data = slice_alloc(1 + (uint64_t)config->count * MEMBER_BYTES);
    data.data[0] = (uint8_t)config->count;
    for (uint32_t i = 0; i < config->count; i++) {
        put_u32(data.data + 1 + i * MEMBER_BYTES, config->members[i].node);
        data.data[1 + i * MEMBER_BYTES + 4] = config->members[i].roles;
    }
    return data;
}

enum err raft_config_decode(struct slice data, struct raft_config *ret_config)
{
    struct raft_config config = {.count = data.bytes > 0 ? data.data[0] : 0};
    if (config.count == 0 || config.count > RAFT_MEMBERS_MAX || data.bytes != 1 + config.count * MEMBER_BYTES) {
        return ERR_BAD_PROTO;
    }
    for (uint32_t i = 0; i < config.count; i++) {
        const uint8_t *at = data.data + 1 + i * MEMBER_BYTES;
        config.members[i] = (struct raft_member){.node = get_u32(at), .roles = at[4]};
    }
    if (!raft_config_is_sound(&config)) {
        return ERR_BAD_PROTO;
    }
    *ret_config = config;
    return ERR_OK;
}

static bool raft_roles_are_sound(uint8_t roles)
{
    switch (roles) {
    case RAFT_VOTER:
    case RAFT_OUTGOING:
    case RAFT_VOTER | RAFT_OUTGOING:
    case RAFT_LEARNER:
    case RAFT_LEARNER | RAFT_PROMOTE:
    case RAFT_LEARNER | RAFT_OUTGOING:
        return true;
    default:
        return false;
    }
}

static uint32_t raft_config_count(const struct raft_config *config, uint8_t role)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        count += (config->members[i].roles & role) != 0;
    }
    return count;
}

bool raft_config_is_sound(const struct raft_config *config)
{
    if (config->count > RAFT_MEMBERS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < config->count; i++) {
        uint32_t before = i > 0 ? config->members[i - 1].node : 0;
        if (config->members[i].node <= before || !raft_roles_are_sound(config->members[i].roles)) {
            return false;
        }
    }
    uint32_t voters = raft_config_count(config, RAFT_VOTER);
    return voters >= 1 && voters <= LIMIT_RAFT_MEMBERS &&
           raft_config_count(config, RAFT_OUTGOING) <= LIMIT_RAFT_MEMBERS;
}

uint8_t raft_config_roles(const struct raft_config *config, uint32_t node)
{
    for (uint32_t i = 0; i < config->count; i++) {
        if (config->members[i].node == node) {
            return config->members[i].roles;
        }
    }
    return 0;
}

bool raft_config_is_joint(const struct raft_config *config)
{
    return raft_config_count(config, RAFT_OUTGOING) > 0;
}

/* ---- the peers ---- */

const struct raft_config_at *raft_config(const struct raft *raft)
{
    CHECK(raft->config_count > 0);
    return &raft->configs[raft->config_count - 1];
}

/* Makes the peers those of the configuration in force; who stays keeps what is known of it. */
static void raft_peers_follow(struct raft *raft)
{
    const struct raft_config *config = &raft_config(raft)->config;
    struct raft_peer *old = mem_alloc(sizeof raft->peers);
    uint32_t old_count = raft->peer_count;
    memcpy(old, raft->peers, sizeof raft->peers);
    raft->self = RAFT_NOBODY;
    raft->peer_count = config->count;
    for (uint32_t i = 0; i < config->count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        *peer = (struct raft_peer){.next = raft->log.last + 1, .probing = true};
        for (uint32_t j = 0; j < old_count; j++) {
            if (old[j].node == config->members[i].node) {
                *peer = old[j];
            }
        }
        peer->node = config->members[i].node;
        peer->roles = config->members[i].roles;
        if (peer->node == raft->params.self) {
            raft->self = i;
        }
    }
    free(old);
}

struct raft_peer *raft_peer_find(struct raft *raft, uint32_t node)
{
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        if (raft->peers[i].node == node && i != raft->self) {
            return &raft->peers[i];
        }
    }
    return NULL;
}

bool raft_self_votes(const struct raft *raft)
{
    return raft->self != RAFT_NOBODY && raft_peer_votes(&raft->peers[raft->self]);
}

bool raft_self_may_lead(const struct raft *raft)
{
    for (unsigned long i = 0; i < raft->config_count; i++) {
        if (raft_config_roles(&raft->configs[i].config, raft->params.self) & (RAFT_VOTER | RAFT_OUTGOING)) {
            return true;
        }
    }
    return false;
}

bool raft_names(const struct raft *raft, uint32_t node)
{
    for (unsigned long i = 0; i < raft->config_count; i++) {
        if (raft_config_roles(&raft->configs[i].config, node) != 0) {
            return true;
        }
    }
    return false;
}

/* ---- the list ---- */

void raft_config_push(struct raft *raft, uint64_t index, const struct raft_config *config)
{
    CHECK(raft->config_count == 0 || index > raft_config(raft)->index);
    CHECK(config->count == 0 || raft_config_is_sound(config));
    raft->configs = mem_grow(raft->configs, &raft->config_capacity, raft->config_count + 1, sizeof *raft->configs);
    raft->configs[raft->config_count++] = (struct raft_config_at){.index = index, .config = *config};
    raft_peers_follow(raft);
}

void raft_config_cut(struct raft *raft, uint64_t from)
{
    CHECK(raft->configs[0].index < from || from == 1);
    unsigned long count = raft->config_count;
    while (raft->config_count > 1 && raft_config(raft)->index >= from) {
        raft->config_count--;
    }
    if (raft->config_count != count) {
        raft_peers_follow(raft);
    }
}

void raft_config_insert(struct raft *raft, uint64_t index, const struct raft_config *config)
{
    unsigned long at = 0;
    while (at < raft->config_count && raft->configs[at].index < index) {
        at++;
    }
    bool known = at < raft->config_count && raft->configs[at].index == index;
    if (known || at == 0) {
        return; /* older than one that is committed */
    }
    raft->configs = mem_grow(raft->configs, &raft->config_capacity, raft->config_count + 1, sizeof *raft->configs);
    memmove(raft->configs + at + 1, raft->configs + at, (raft->config_count - at) * sizeof *raft->configs);
    raft->config_count++;
    raft->configs[at] = (struct raft_config_at){.index = index, .config = *config};
    raft_peers_follow(raft);
}

void raft_config_install(struct raft *raft, uint64_t index, const struct raft_config_at *config, bool reset)
{
    bool known = raft->configs[0].config.count > 0;
    if (known && raft->configs[0].index >= config->index && !reset) {
        return; /* committed here already */
    }
    unsigned long from = 0;
    while (from < raft->config_count && (reset || raft->configs[from].index <= index)) {
        from++;
    }
    CHECK(from >= 1);
    for (unsigned long i = from; i < raft->config_count; i++) {
        raft->configs[i - from + 1] = raft->configs[i];
    }
    raft->configs[0] = *config;
    raft->config_count -= from - 1;
    raft_peers_follow(raft);
}

void raft_config_committed(struct raft *raft)
{
    unsigned long drop = 0;
    while (drop + 1 < raft->config_count && raft->configs[drop + 1].index <= raft->commit) {
        drop++;
    }
    for (unsigned long i = drop; i < raft->config_count; i++) {
        raft->configs[i - drop] = raft->configs[i];
    }
    raft->config_count -= drop;
}

uint64_t raft_config_leaves_out(const struct raft *raft, uint32_t node)
{
    const struct raft_config_at *committed = &raft->configs[0];
    bool known = committed->config.count > 0 && committed->index <= raft->commit;
    return known && raft_config_roles(&committed->config, node) == 0 ? committed->index : 0;
}

/* ---- majorities ---- */

/* The largest value that a majority of those with `role` has reached; 0 when there are none. */
static uint64_t raft_half_quorum(const struct raft *raft, uint8_t role, const uint64_t *values)
{
    uint32_t members = 0;
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        members += (raft->peers[i].roles & role) != 0;
    }
    uint64_t best = 0;
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        uint32_t reached = 0;
        for (uint32_t j = 0; j < raft->peer_count; j++) {
            reached += (raft->peers[j].roles & role) != 0 && values[j] >= values[i];
        }
        if (reached >= members / 2 + 1 && values[i] > best) {
            best = values[i];
        }
    }
    return best;
}

uint64_t raft_quorum(const struct raft *raft, const uint64_t *values)
{
    uint64_t incoming = raft_half_quorum(raft, RAFT_VOTER, values);
    if (!raft_config_is_joint(&raft_config(raft)->config)) {
        return incoming;
    }
    uint64_t outgoing = raft_half_quorum(raft, RAFT_OUTGOING, values);
    return incoming < outgoing ? incoming : outgoing;
}

bool raft_quorum_is_blocked(const struct raft *raft, const uint64_t *values)
{
    return raft_half_quorum(raft, RAFT_VOTER, values) == 1 || raft_half_quorum(raft, RAFT_OUTGOING, values) == 1;
}
