/* One-time tokens, and the nodes that come with them (DESIGN.md section 10).
 *
 * Happy path: an operator makes a key, the root group gives it a number and a certificate join:N (ADMIN_TOKEN); both go
 * into the token. Whoever bears it connects as join:N, over the same mutual TLS as everybody, and sends the public half
 * of a key of its own (NODE_JOIN); the group commits which number that key gets, and its leader, who has the
 * authority's key open, signs. No private key but the token's ever travels.
 *
 * The bearer shows, by a signature, that it holds the private half of the key it names: a token that leaks after it was
 * used gives a thief nothing, although a node's public key is no secret.
 *
 * How it fails: a token of another role, an expired one (cluster time, R-C7; and the certificate's own end) and one
 * that another key has used are refused. The same key asks again and gets the same number: a join that was interrupted
 * is repeated. Signing happens behind the commit and leaves nothing in the log. */
#include <stdio.h>
#include <string.h>

#include "base/authority.h"
#include "base/check.h"
#include "base/hash.h"
#include "metad/root/root.h"
#include "proto/token.h"

#define TOKEN_SECONDS_MAX (30ull * 86400)
#define TICK_SECONDS      (TICK_NS / 1000000000)
#define PUBLIC_KEY_BYTES  256u
#define USED_KEPT_TICKS   8640u /* a day: so long a join that was interrupted may be repeated */
#define PROOF_BYTES       128u
#define CLUSTER_KEY_BYTES 32u

static enum err join_record(struct apply *apply, Cairn__RootRecord **ret_record)
{
    enum err err = root_record_get(apply->state, apply->arena, ret_record);
    if (err == ERR_OK && (*ret_record)->authority_sealed.len == 0) {
        return ERR_UNSUPPORTED;
    }
    return err == ERR_NOT_FOUND ? ERR_NOT_READY : err;
}

/* Takes away what has expired, but for what was used lately. */
static void joins_trim(Cairn__RootRecord *record)
{
    size_t kept = 0;
    for (size_t i = 0; i < record->n_joins; i++) {
        uint64_t until = record->joins[i]->expires_tick + (record->joins[i]->node != 0 ? USED_KEPT_TICKS : 0);
        if (record->map->tick <= until) {
            record->joins[kept++] = record->joins[i];
        }
    }
    record->n_joins = kept;
}

enum err admin_token_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__AdminTokenRequest *request = apply->request;
    Cairn__RootRecord *record = NULL;
    enum err err = join_record(apply, &record);
    if (err != ERR_OK) {
        return err;
    }
    bool known = request->role == ROLE_METAD || request->role == ROLE_BLOCKD;
    if (!known || request->seconds == 0 || request->seconds > TOKEN_SECONDS_MAX || request->public_key.len == 0 ||
        request->public_key.len > PUBLIC_KEY_BYTES) {
        return ERR_INVALID;
    }
    joins_trim(record);
    if (record->n_joins >= LIMIT_JOINS) {
        return ERR_BUSY;
    }
    Cairn__JoinRecord *join = PROTO_TAKE(Cairn__JoinRecord, apply->arena);
    *join = (Cairn__JoinRecord)CAIRN__JOIN_RECORD__INIT;
    join->token = ++record->last_join;
    join->role = request->role;
    join->expires_tick = record->map->tick + (request->seconds + TICK_SECONDS - 1) / TICK_SECONDS;
    Cairn__JoinRecord **grown = proto_arena_take(apply->arena, (record->n_joins + 1) * sizeof *grown);
    if (record->n_joins > 0) {
        memcpy(grown, record->joins, record->n_joins * sizeof *grown);
    }
    grown[record->n_joins++] = join;
    record->joins = grown;
    struct key key = key_root(apply->state->group);
    state_put(apply->state, &key, record);
    Cairn__AdminTokenReply reply = CAIRN__ADMIN_TOKEN_REPLY__INIT;
    reply.token = join->token;
    answer_set(answer, &reply);
    return ERR_OK;
}

/* "NODE@HOST:PORT" of each metadata node in use; NOT_READY while none has said where it is. */
static enum err metads_list(const Cairn__ClusterMap *map, struct proto_arena *arena, char ***ret_metads,
                            size_t *ret_count)
{
    char **metads = proto_arena_take(arena, (map->n_nodes + 1) * sizeof *metads);
    size_t count = 0;
    for (size_t i = 0; i < map->n_nodes && count < LIMIT_RAFT_MEMBERS; i++) {
        const Cairn__MapNode *node = map->nodes[i];
        if (node->role == ROLE_METAD && node->state == NODE_IN_USE && node->address[0] != '\0') {
            size_t bytes = strlen(node->address) + 16;
            metads[count] = proto_arena_take(arena, bytes);
            snprintf(metads[count++], bytes, "%u@%s", node->id, node->address);
        }
    }
    *ret_metads = metads;
    *ret_count = count;
    return count > 0 ? ERR_OK : ERR_NOT_READY;
}

/* Signs `public_key` for a name; the certificate is in the arena. */
static enum err issue(const struct finish *finish, ProtobufCBinaryData public_key, const char *name, const char *host,
                      uint64_t seconds, struct proto_arena *arena, ProtobufCBinaryData *ret)
{
    struct authority *authority = NULL;
    struct slice certificate = {0};
    if (finish->keyring->authority_key.bytes == 0) {
        return ERR_UNSUPPORTED;
    }
    enum err err = authority_open(finish->keyring->authority_key, finish->keyring->authority, &authority);
    if (err != ERR_OK) {
        return err;
    }
    err = authority_issue(authority, slice_borrow(public_key.data, public_key.len), name, host, finish->wall_ns,
                          seconds, &certificate);
    if (err == ERR_OK) {
        *ret = (ProtobufCBinaryData){certificate.bytes, proto_arena_take(arena, certificate.bytes)};
        memcpy(ret->data, certificate.data, certificate.bytes);
    }
    slice_drop(&certificate);
    authority_destroy(authority);
    return err == ERR_OK ? ERR_OK : ERR_INVALID; /* no public key */
}

enum err admin_token_finish(struct finish *finish, struct answer *answer)
{
    const Cairn__AdminTokenRequest *request = finish->request;
    struct proto_arena arena = {0};
    void *message = NULL;
    Cairn__RootRecord *record = NULL;
    enum err err = proto_unpack(&cairn__admin_token_reply__descriptor, answer->header, &arena, &message);
    Cairn__AdminTokenReply *reply = message;
    if (err == ERR_OK) {
        err = root_record_get(finish->state, &arena, &record);
    }
    if (err == ERR_OK) {
        err = metads_list(record->map, &arena, &reply->metads, &reply->n_metads);
    }
    if (err == ERR_OK) {
        char name[32];
        snprintf(name, sizeof name, "join:%u", reply->token);
        err = issue(finish, request->public_key, name, NULL, request->seconds, &arena, &reply->certificate);
    }
    if (err == ERR_OK) {
        const struct bootstrap *bootstrap = finish->bootstrap;
        reply->authority = record->authority;
        reply->cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)bootstrap->cluster.uuid.bytes};
        reply->cluster_incarnation = bootstrap->cluster_incarnation;
        slice_drop(&answer->header);
        answer->header = proto_pack(reply);
    }
    proto_arena_deinit(&arena);
    return err;
}

/* ---- joining ---- */

static Cairn__JoinRecord *join_find(const Cairn__RootRecord *record, uint32_t token)
{
    for (size_t i = 0; i < record->n_joins; i++) {
        if (record->joins[i]->token == token) {
            return record->joins[i];
        }
    }
    return NULL;
}

/* The next number of a role that nobody ever had. */
static uint32_t number_take(struct apply *apply, Cairn__RootRecord *record, uint32_t role)
{
    uint32_t *last = role == ROLE_METAD ? &record->last_metad : &record->last_blockd;
    for (size_t i = 0; i < record->map->n_nodes; i++) {
        const Cairn__MapNode *node = record->map->nodes[i];
        *last = node->role == role && node->id > *last ? node->id : *last;
    }
    for (uint32_t i = 0; i < apply->bootstrap->member_count && role == ROLE_METAD; i++) {
        *last = apply->bootstrap->members[i] > *last ? apply->bootstrap->members[i] : *last;
    }
    return ++*last;
}

/* On the leader, before anything is proposed: what OpenSSL says of a strange signature never decides an apply. */
enum err node_join_prepare(struct prepare *prepare, Cairn__UploadExtra *extra, struct proto_arena *arena)
{
    (void)extra;
    (void)arena;
    const Cairn__NodeJoinRequest *request = prepare->request;
    ProtobufCBinaryData key = request->public_key, proof = request->proof;
    if (key.len == 0 || key.len > PUBLIC_KEY_BYTES || proof.len == 0 || proof.len > PROOF_BYTES) {
        return ERR_INVALID;
    }
    struct slice statement =
        join_statement(&prepare->bootstrap->cluster, request->node, request->role, key.data, key.len, request->address);
    bool held = identity_verify(slice_borrow(key.data, key.len), statement, slice_borrow(proof.data, proof.len));
    slice_drop(&statement);
    if (!held) {
        prepare->text = "the joining host did not show that it holds the key it names";
    }
    return held ? ERR_OK : ERR_DENIED;
}

void joins_forget(struct apply *apply, Cairn__RootRecord *record)
{
    record->n_joins = 0; /* tokens name the incarnation they were made in */
    /* Block servers go on under their numbers, those too that joined behind this node's back. */
    record->last_blockd = number_take(apply, record, ROLE_BLOCKD) + LIMIT_JOINS;
}

static enum err join_check(const Cairn__RootRecord *record, const Cairn__NodeJoinRequest *request,
                           const struct sha256 *digest, Cairn__JoinRecord **ret_join)
{
    Cairn__JoinRecord *join = join_find(record, request->node);
    if (request->public_key.len == 0 || request->public_key.len > PUBLIC_KEY_BYTES ||
        !node_address_is_sound(request->address)) {
        return ERR_INVALID;
    }
    if (join == NULL) {
        return ERR_EXPIRED; /* trimmed */
    }
    if (join->role != request->role) {
        return ERR_WRONG_ROLE;
    }
    bool same = join->key_digest.len == sizeof *digest && memcmp(join->key_digest.data, digest, sizeof *digest) == 0;
    if (join->node != 0 && !same) {
        return ERR_TOKEN_USED;
    }
    if (join->node == 0 && record->map->tick > join->expires_tick) {
        return ERR_EXPIRED;
    }
    *ret_join = join;
    return ERR_OK;
}

enum err node_join_apply(struct apply *apply, struct answer *answer)
{
    const Cairn__NodeJoinRequest *request = apply->request;
    Cairn__RootRecord *record = NULL;
    Cairn__JoinRecord *join = NULL;
    struct sha256 digest = sha256(request->public_key.data, request->public_key.len);
    enum err err = join_record(apply, &record);
    if (err == ERR_OK) {
        err = join_check(record, request, &digest, &join);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (join->node == 0) {
        join->node = number_take(apply, record, join->role);
        join->key_digest = (ProtobufCBinaryData){sizeof digest, proto_arena_take(apply->arena, sizeof digest)};
        memcpy(join->key_digest.data, &digest, sizeof digest);
    }
    if (join->role == ROLE_METAD) {
        Cairn__MapNode *row = map_take_metad(record->map, join->node, apply->arena);
        if (row == NULL || row->state == NODE_GONE) { /* removed since: what is asked again is too late */
            return row == NULL ? ERR_TOO_LARGE : ERR_TOKEN_USED;
        }
        row->address = request->address;
    }
    Cairn__NodeJoinReply reply = CAIRN__NODE_JOIN_REPLY__INIT;
    reply.node = join->node;
    answer_set(answer, &reply);
    return root_map_put(apply, record);
}

static void bootstrap_tell(const struct bootstrap *bootstrap, Cairn__Bootstrap *ret)
{
    *ret = (Cairn__Bootstrap)CAIRN__BOOTSTRAP__INIT;
    ret->n_members = bootstrap->member_count;
    ret->members = (uint32_t *)(uintptr_t)bootstrap->members;
    ret->random = (ProtobufCBinaryData){sizeof bootstrap->random, (uint8_t *)(uintptr_t)bootstrap->random};
    ret->workspace = (char *)(uintptr_t)bootstrap->workspace;
    ret->pool = (char *)(uintptr_t)bootstrap->pool;
    ret->stores = bootstrap->stores;
    ret->chunk_bytes = bootstrap->chunk_bytes;
    ret->copy_bytes = bootstrap->copy_bytes;
    ret->pg_bits = bootstrap->pg_bits;
    ret->device = bootstrap->device;
    ret->bearer = (ProtobufCBinaryData){sizeof bootstrap->bearer, (uint8_t *)(uintptr_t)bootstrap->bearer.bytes};
    ret->authority_sealed =
        (ProtobufCBinaryData){bootstrap->authority_sealed_bytes, (uint8_t *)(uintptr_t)bootstrap->authority_sealed};
    ret->authority = (ProtobufCBinaryData){bootstrap->authority_bytes, (uint8_t *)(uintptr_t)bootstrap->authority};
}

static enum err join_sign(struct finish *finish, Cairn__NodeJoinReply *reply, struct proto_arena *arena)
{
    const Cairn__NodeJoinRequest *request = finish->request;
    char name[32], host[256];
    size_t host_bytes = (size_t)(strrchr(request->address, ':') - request->address);
    CHECK(host_bytes < sizeof host);
    memcpy(host, request->address, host_bytes);
    host[host_bytes] = '\0';
    snprintf(name, sizeof name, "%s:%u", request->role == ROLE_METAD ? "metad" : "blockd", reply->node);
    return issue(finish, request->public_key, name, host, CERTIFICATE_SECONDS, arena, &reply->certificate);
}

enum err node_join_finish(struct finish *finish, struct answer *answer)
{
    const Cairn__NodeJoinRequest *request = finish->request;
    struct proto_arena arena = {0};
    void *message = NULL;
    Cairn__RootRecord *record = NULL;
    Cairn__Bootstrap bootstrap;
    enum err err = proto_unpack(&cairn__node_join_reply__descriptor, answer->header, &arena, &message);
    Cairn__NodeJoinReply *reply = message;
    if (err == ERR_OK) {
        err = root_record_get(finish->state, &arena, &record);
    }
    if (err == ERR_OK) {
        err = metads_list(record->map, &arena, &reply->metads, &reply->n_metads);
    }
    if (err == ERR_OK) {
        err = join_sign(finish, reply, &arena);
    }
    if (err == ERR_OK) {
        reply->groups = finish->group_count;
        if (request->role == ROLE_METAD) {
            bootstrap_tell(finish->bootstrap, &bootstrap);
            reply->bootstrap = &bootstrap;
            reply->cluster_key = (ProtobufCBinaryData){CLUSTER_KEY_BYTES, (uint8_t *)(uintptr_t)finish->cluster_key};
        }
        slice_drop(&answer->header);
        answer->header = proto_pack(reply);
    }
    proto_arena_deinit(&arena);
    return err;
}
