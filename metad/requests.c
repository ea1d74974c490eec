/* What peers ask of a group: find the operation, authorize, prepare, propose; or wait for a ReadIndex and query. The
 * dispatcher knows no operation by name; everything stands in the table (operations.c).
 *
 * How it fails: a refusal is an ErrorReply with its code; on a node that does not lead it names the leader. What waited
 * when leadership went is told NOT_LEADER: the client asks again elsewhere under the same idempotency key, so nothing
 * is done twice. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/group.h"
#include "metad/members.h"

#define QUERY_HEADER_BYTES (64u << 10) /* header of a query */
#define WAITING_BYTES      (64u << 20) /* commands that wait for an entry: past it, BUSY */

/* Every client request has its RequestHead as the first field, right behind the message's base. */
struct headed_request {
    ProtobufCMessage base;
    Cairn__RequestHead *head;
};

void group_refuse(struct group *group, const struct message *request, enum err err, const char *text)
{
    uint32_t leader = group->raft != NULL ? raft_status(group->raft).leader : 0;
    const Cairn__MapNode *row = leader != 0 && err == ERR_NOT_LEADER && group->keyring.present
                                    ? map_find_metad(group->keyring.map, leader)
                                    : NULL;
    fx_answer(
        group->fx, request->from, request->type, request->stream, MESSAGE_REPLY | MESSAGE_ERROR,
        error_reply_encode_leader(err, text != NULL ? text : err_text(err), leader, row != NULL ? row->address : NULL),
        (struct slice){0});
}

void group_deliver(struct group *group, const struct message *request, const struct answer *answer)
{
    if (answer->err != ERR_OK) {
        group_refuse(group, request, answer->err, answer->text);
    } else if (answer->header.bytes > LIMIT_FRAME_HEADER_BYTES || answer->body.bytes > LIMIT_FRAME_BODY_BYTES) {
        group_refuse(group, request, ERR_TOO_LARGE, NULL);
    } else {
        fx_reply(group->fx, request, slice_ref(answer->header), slice_ref(answer->body));
    }
}

void waiter_deinit(struct waiter *waiter)
{
    slice_drop(&waiter->header);
}

static void waiter_refuse(struct group *group, struct waiter *waiter, enum err err)
{
    if (waiter->type != 0 && group->fx != NULL) {
        struct message request = {.from = waiter->from, .type = waiter->type, .stream = waiter->stream};
        group_refuse(group, &request, err, NULL);
    }
    waiter_deinit(waiter);
}

static void reading_deinit(struct reading *reading)
{
    slice_drop(&reading->message.header);
    slice_drop(&reading->message.body);
}

static void reads_refuse(struct group *group, struct reading *reads, unsigned long *count)
{
    for (unsigned long i = 0; i < *count; i++) {
        if (group->fx != NULL) {
            group_refuse(group, &reads[i].message, ERR_NOT_LEADER, NULL);
        }
        reading_deinit(&reads[i]);
    }
    *count = 0;
}

void group_drop_waiting(struct group *group, bool drop_flights)
{
    reads_refuse(group, group->reads, &group->read_count);
    reads_refuse(group, group->reads_out, &group->read_out_count);
    group->read_index = 0;
    for (; group->queue_head < group->queue_tail; group->queue_head++) {
        struct proposal *proposal = &group->queue[group->queue_head];
        waiter_refuse(group, &proposal->waiter, ERR_NOT_LEADER);
        group->waiting_bytes -= proposal->command.bytes;
        slice_drop(&proposal->command);
    }
    group->queue_head = group->queue_tail = 0;
    for (; drop_flights && group->flight_count > 0; group->flight_count--) {
        struct flight *flight = &group->flights[group->flight_first];
        for (uint32_t i = 0; i < flight->count; i++) {
            waiter_refuse(group, &flight->waiters[i], ERR_NOT_LEADER);
        }
        free(flight->waiters);
        *flight = (struct flight){0};
        group->flight_first = (group->flight_first + 1) % FLIGHTS_MAX;
    }
}

/* ---- mutations ---- */

static void queue_push(struct group *group, struct proposal proposal)
{
    if (group->queue_head == group->queue_tail) {
        group->queue_head = group->queue_tail = 0;
    }
    group->queue = mem_grow(group->queue, &group->queue_capacity, group->queue_tail + 1, sizeof *group->queue);
    group->queue[group->queue_tail++] = proposal;
    group->waiting_bytes += proposal.command.bytes;
}

void group_propose_own(struct group *group, uint16_t op, struct slice extra)
{
    CHECK(!group->own_command_out);
    Cairn__Command command = CAIRN__COMMAND__INIT;
    command.op = op;
    command.wall_ns = (int64_t)group->event->wall_ns;
    command.tick = group->keyring.present ? group->keyring.map->tick : 0;
    command.extra = (ProtobufCBinaryData){extra.bytes, extra.data};
    queue_push(group, (struct proposal){.command = proto_pack(&command)});
    slice_drop(&extra);
    group->own_command_out = true;
}

static struct sha256 request_digest(const struct message *message)
{
    struct sha256 parts[2] = {sha256(message->header.data, message->header.bytes),
                              sha256(message->body.data, message->body.bytes)};
    return sha256(parts, sizeof parts);
}

static enum err mutation_queue(struct group *group, const struct message *message, const struct operation *operation,
                               struct prepare *prepare, struct proto_arena *arena)
{
    const struct headed_request *request = prepare->request;
    Cairn__UploadExtra extra = CAIRN__UPLOAD_EXTRA__INIT;
    if (operation->prepare != NULL) {
        enum err err = operation->prepare(prepare, &extra, arena);
        if (err != ERR_OK) {
            return err;
        }
    }
    struct slice extra_packed = operation->prepare != NULL ? proto_pack(&extra) : (struct slice){0};
    struct sha256 digest = request_digest(message);
    Cairn__Command command = CAIRN__COMMAND__INIT;
    command.op = operation->type;
    if (operation_is_keyed(operation)) {
        command.device = prepare->device->device;
        command.user = prepare->user->user;
        command.key = request->head->key;
    }
    command.wall_ns = (int64_t)group->event->wall_ns;
    command.tick = group->keyring.present ? group->keyring.map->tick : 0;
    command.random = group->event->random;
    command.request = (ProtobufCBinaryData){message->header.bytes, message->header.data};
    command.extra = (ProtobufCBinaryData){extra_packed.bytes, extra_packed.data};
    command.digest = (ProtobufCBinaryData){sizeof digest, digest.bytes};
    struct proposal proposal = {.command = proto_pack(&command)};
    slice_drop(&extra_packed);
    if (proposal.command.bytes + 4 > LIMIT_ENTRY_BYTES) {
        slice_drop(&proposal.command);
        return ERR_TOO_LARGE;
    }
    proposal.waiter = (struct waiter){
        .from = message->from, .type = message->type, .stream = message->stream, .header = slice_ref(message->header)};
    proposal.waiter.device = command.device;
    proposal.waiter.bearer = message->peer.key;
    proposal.waiter.writer = prepare->user != NULL ? prepare->user->writer : 0;
    queue_push(group, proposal);
    return ERR_OK;
}

/* ---- admission ---- */

/* What a node asks to be kept names it, in a field `node`: its own number, or it is not its to ask. */
static bool request_names(const struct operation *operation, const void *request, uint32_t node)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field_by_name(operation->request, "node");
    CHECK(field != NULL && field->type == PROTOBUF_C_TYPE_UINT32);
    uint32_t named = 0;
    memcpy(&named, (const uint8_t *)request + field->offset, sizeof named);
    return named == node;
}

/* Who asks, and may he? Block servers are known by their certificates; devices by the group's records. */
static enum err request_authorize(struct group *group, const struct message *message, const struct operation *operation,
                                  const void *request, struct proto_arena *arena, struct prepare *ret)
{
    const struct message_row *row = message_row_find(message->type);
    CHECK(row != NULL);
    if (row->right == RIGHT_NODE) {
        bool own = operation->kind != OPERATION_MUTATION || request_names(operation, request, message->peer.id);
        return (message->peer.role & row->roles) != 0 && own ? ERR_OK : ERR_WRONG_ROLE;
    }
    const struct headed_request *headed = request;
    if (headed->head == NULL) {
        return ERR_INVALID;
    }
    bool mutation = operation->kind == OPERATION_MUTATION;
    if (mutation && headed->head->key == 0) {
        return ERR_INVALID;
    }
    return authorize(&group->state, message->peer, row->right, headed->head->ns, arena, &ret->device, &ret->user);
}

static enum err query_run(struct group *group, const struct message *message, const struct operation *operation,
                          const void *request, const struct prepare *who, struct proto_arena *arena,
                          struct answer *answer)
{
    struct query query = {
        .state = &group->state,
        .keyring = &group->keyring,
        .bootstrap = group->params.bootstrap,
        .user = who->user,
        .device = message->peer.id,
        .bearer = message->peer.key,
        .arena = arena,
        .raft = raft_status(group->raft),
        .root = &group->root,
        .refused = group->refused,
        .holes = holes_left(&group->heal.holes),
        .mended = group->heal.mended,
        .rot_behind = group->heal.rot_behind,
        .digests = group->digests,
        .digest_at = group->digest_at,
        .counters = group->params.counters,
    };
    for (uint32_t i = 0; i < query.raft.config.config.count; i++) {
        query.stale[i] = identity_is_stale(group, query.raft.config.config.members[i].node);
        query.lost[i] = identity_is_lost(group, query.raft.config.config.members[i].node);
    }
    return operation->query(&query, request, answer);
}

static enum err request_take(struct group *group, const struct message *message, const struct operation *operation,
                             struct proto_arena *arena, struct answer *answer)
{
    void *request = NULL;
    enum err err = proto_unpack(operation->request, message->header, arena, &request);
    if (err != ERR_OK) {
        return err;
    }
    if (message->body.bytes > operation->body_limit) {
        return ERR_TOO_LARGE;
    }
    if (operation->kind == OPERATION_QUERY && message->header.bytes > QUERY_HEADER_BYTES) {
        return ERR_TOO_LARGE;
    }
    struct raft_status status = raft_status(group->raft);
    if (operation->kind != OPERATION_REPLICA && status.role != RAFT_LEADER) {
        if (raft_is_asleep(group->raft)) { /* is the leader it believes in still there? */
            struct raft_event wake = {.kind = RAFT_EVENT_WAKE, .random = group->event->random};
            group_raft(group, &wake);
        }
        return ERR_NOT_LEADER;
    }
    struct prepare prepare = {
        .state = &group->state,
        .root = &group->root,
        .keyring = &group->keyring,
        .bootstrap = group->params.bootstrap,
        .request = request,
        .body = message->body,
        .random = group->event->random,
    };
    if (operation->kind != OPERATION_REPLICA && (!group_is_ready(group) || !group->keyring.present)) {
        return operation->kind == OPERATION_LEADER && !status.ready ? ERR_TERM_TOO_YOUNG : ERR_NOT_READY;
    }
    err = request_authorize(group, message, operation, request, arena, &prepare);
    if (err != ERR_OK) {
        return err;
    }
    if (operation->kind == OPERATION_MUTATION && !operation->root && !members_have_room(group)) {
        answer->text = "the disks of most metadata nodes are short of space; make room on one of them";
        return ERR_DISK_FULL;
    }
    switch (operation->kind) {
    case OPERATION_MUTATION:
        err = group->queue_tail - group->queue_head >= LIMIT_PROPOSALS || group->waiting_bytes > WAITING_BYTES
                  ? ERR_BUSY
                  : mutation_queue(group, message, operation, &prepare, arena);
        answer->text = prepare.text;
        return err == ERR_OK ? ERR_WOULD_BLOCK : err;
    case OPERATION_QUERY:
        group->reads = mem_grow(group->reads, &group->read_capacity, group->read_count + 1, sizeof *group->reads);
        if (group->read_count >= LIMIT_PROPOSALS) {
            return ERR_BUSY;
        }
        group->reads[group->read_count] = (struct reading){.message = *message};
        group->reads[group->read_count].message.header = slice_ref(message->header);
        group->reads[group->read_count++].message.body = slice_ref(message->body);
        return ERR_WOULD_BLOCK;
    case OPERATION_LEADER:
        return operation->lead(group, message, request, arena, answer);
    default:
        return query_run(group, message, operation, request, &prepare, arena, answer);
    }
}

void group_request(struct group *group, const struct message *message)
{
    const struct operation *operation = operation_find(message->type);
    bool here = operation != NULL && (operation->any_group || operation->root == (group->params.group == 0));
    if (!here) {
        group->refused[ERR_WRONG_GROUP]++;
        group_refuse(group, message, ERR_WRONG_GROUP, NULL);
        return;
    }
    struct proto_arena arena = {0};
    struct answer answer = {0};
    enum err err = request_take(group, message, operation, &arena, &answer);
    answer.err = err;
    if (err != ERR_OK && err != ERR_WOULD_BLOCK) {
        group->refused[err]++;
    }
    if (err != ERR_WOULD_BLOCK) { /* WOULD_BLOCK: it waits, its answer comes later */
        group_deliver(group, message, &answer);
    }
    slice_drop(&answer.header);
    slice_drop(&answer.body);
    proto_arena_deinit(&arena);
}

/* ---- entries out ---- */

static bool entry_propose(struct group *group)
{
    struct writer entry = {0};
    unsigned long count = 0;
    while (group->queue_head + count < group->queue_tail && entry.bytes < ENTRY_COMMANDS_BYTES) {
        const struct slice *command = &group->queue[group->queue_head + count].command;
        if (count > 0 && entry.bytes + command->bytes + 4 > LIMIT_ENTRY_BYTES) {
            break;
        }
        writer_u32(&entry, command->bytes);
        writer_put(&entry, command->data, command->bytes);
        count++;
    }
    struct raft_event event = {.kind = RAFT_EVENT_PROPOSE, .random = group->event->random, .data = writer_take(&entry)};
    writer_deinit(&entry);
    /* The flight stands before the step: a single member's entry may come back committed within it. */
    struct flight *flight = &group->flights[(group->flight_first + group->flight_count) % FLIGHTS_MAX];
    struct raft_status status = raft_status(group->raft);
    *flight = (struct flight){.index = status.last + 1, .term = status.term, .count = (uint32_t)count};
    flight->waiters = mem_alloc(count * sizeof *flight->waiters);
    for (unsigned long i = 0; i < count; i++) {
        struct proposal *proposal = &group->queue[group->queue_head + i];
        flight->waiters[i] = proposal->waiter;
        group->waiting_bytes -= proposal->command.bytes;
        slice_drop(&proposal->command);
    }
    group->queue_head += count;
    group->flight_count++;
    group_raft(group, &event);
    slice_drop(&event.data);
    return true;
}

void group_pump(struct group *group)
{
    bool lead = raft_role(group->raft) == RAFT_LEADER;
    bool proposes = lead && group->queue_head < group->queue_tail && !members_hold_back(group);
    while (lead && proposes && group->queue_head < group->queue_tail && group->flight_count < FLIGHTS_MAX &&
           group->phase == GROUP_RUNNING) {
        lead = entry_propose(group) && raft_role(group->raft) == RAFT_LEADER;
    }
    if (!lead && group->queue_head < group->queue_tail) {
        group_drop_waiting(group, false);
    }
    if (group->read_out_count == 0 && group->read_count > 0 && group->phase == GROUP_RUNNING) {
        struct reading *empty = group->reads_out;
        unsigned long empty_capacity = group->read_out_capacity;
        group->reads_out = group->reads;
        group->read_out_capacity = group->read_capacity;
        group->read_out_count = group->read_count;
        group->reads = empty;
        group->read_capacity = empty_capacity;
        group->read_count = 0;
        group->read_index = 0;
        struct raft_event event = {
            .kind = RAFT_EVENT_READ, .random = group->event->random, .read_id = ++group->read_id};
        group_raft(group, &event);
    }
}

void group_answer_reads(struct group *group)
{
    if (group->read_out_count == 0 || group->read_index == 0 || group->at.applied < group->read_index) {
        return;
    }
    for (unsigned long i = 0; i < group->read_out_count; i++) {
        const struct message *message = &group->reads_out[i].message;
        const struct operation *operation = operation_find(message->type);
        struct proto_arena arena = {0};
        struct answer answer = {0};
        struct prepare who = {0};
        void *request = NULL;
        enum err err = proto_unpack(operation->request, message->header, &arena, &request);
        if (err == ERR_OK) { /* again: rights may have changed while it waited */
            err = request_authorize(group, message, operation, request, &arena, &who);
        }
        if (err == ERR_OK) {
            err = query_run(group, message, operation, request, &who, &arena, &answer);
        }
        answer.err = err;
        group_deliver(group, message, &answer);
        slice_drop(&answer.header);
        slice_drop(&answer.body);
        proto_arena_deinit(&arena);
        reading_deinit(&group->reads_out[i]);
    }
    group->read_out_count = 0;
    group->read_index = 0;
}
