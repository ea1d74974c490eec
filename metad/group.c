/* The group actor: a Raft instance, its machine, and what joins them to the log, the peers and the clients.
 *
 * Happy path of a mutation: requests.c authorizes and prepares a command and queues it; group_pump makes one Raft entry
 * of all that wait; Raft says what to append (LOG_APPEND to the node's log actor) and to send; once a majority has it
 * durably the entry comes back in `committed`, apply.c runs its commands against the overlay, the leader answers; the
 * step's writes leave as one KV_COMMIT with the applied index. Queries wait for a ReadIndex and then for the applied
 * index.
 *
 * Start: LOG_OPEN asks the log what it holds; an empty group writes its boot entry first (R-F9); Raft is made from
 * both, and what the key-value store has not is loaded and applied again.
 *
 * Failure: anything this node cannot go on with is a HALT that names it. */
#include "metad/group.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "metad/host/log.h"

#define TIMER_TICK      1u
#define ELECTION_TICKS  10u
#define HEARTBEAT_TICKS 2u
#define WINDOW_ENTRIES  256u
#define WINDOW_BYTES    (4u << 20)
#define CACHE_BYTES     (8ull << 20)
#define FLUSH_ENTRIES   20000u /* applied entries that may have to be applied again after a crash */
#define MAINTAIN_NS     1000000000ull
#define CONTINUE_MAX    64

struct group *group_create(const struct group_params *params)
{
    CHECK(params->group < params->group_count && params->group_count <= LIMIT_GROUPS && params->tick_ns > 0);
    struct group *group = mem_alloc(sizeof *group);
    group->params = *params;
    group->phase = GROUP_STARTING;
    return group;
}

void keyring_deinit(struct keyring *keyring)
{
    proto_arena_deinit(&keyring->map_arena);
    slice_drop(&keyring->map_bytes);
    explicit_bzero(keyring, sizeof *keyring);
}

void group_destroy(struct group *group)
{
    group_drop_waiting(group, true);
    if (group->raft != NULL) {
        raft_destroy(group->raft);
    }
    keyring_deinit(&group->keyring);
    root_deinit(&group->root);
    free(group->queue);
    free(group->reads);
    free(group->reads_out);
    explicit_bzero(&group->params.cluster_key, sizeof group->params.cluster_key);
    free(group);
}

struct raft_status group_status(const struct group *group)
{
    return group->raft != NULL ? raft_status(group->raft) : (struct raft_status){0};
}

void group_halt(struct group *group, enum err err, const char *what)
{
    group->phase = GROUP_HALTED;
    fx_halt(group->fx, err, "group %u: %s", group->params.group, what);
}

bool group_is_ready(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    if (status.role != RAFT_LEADER || !status.ready) {
        return false;
    }
    if (group->ready_term != status.term) {
        group->ready_term = status.term;
        group->ready_index = status.commit;
    }
    return group->applied >= group->ready_index;
}

/* ---- the log ---- */

static void log_send(struct group *group, uint16_t type, struct writer *header, struct slice body)
{
    fx_send(group->fx, address_local(ACTOR_LOG, 0), type, 0, writer_take(header), body);
    writer_deinit(header);
}

static void log_append(struct group *group, uint64_t number, bool hard_changed, struct raft_hard_state hard,
                       const struct raft_entry *entries, uint32_t count)
{
    CHECK(number > group->persist_number);
    group->persist_number = number;
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u64(&header, number);
    writer_u8(&header, hard_changed);
    writer_u64(&header, hard.term);
    writer_u32(&header, hard.vote);
    struct slice body = {0};
    if (count > 0) {
        raft_entries_encode(entries, count, &body);
    }
    log_send(group, MESSAGE_LOG_APPEND, &header, body);
}

static void log_read(struct group *group, uint64_t first, uint32_t count)
{
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u64(&header, first);
    writer_u32(&header, count);
    log_send(group, MESSAGE_LOG_READ, &header, (struct slice){0});
}

/* ---- Raft ---- */

static void update_carry_out(struct group *group, const struct raft_update *update)
{
    if (update->number != 0) {
        log_append(group, update->number, update->hard_changed, update->hard, update->append, update->append_count);
    }
    for (uint32_t i = 0; i < update->message_count; i++) {
        raft_wire_send(group, &update->messages[i]);
    }
    for (uint32_t i = 0; i < update->committed_count; i++) {
        group_apply(group, &update->committed[i]);
    }
    for (uint32_t i = 0; i < update->read_count; i++) {
        const struct raft_read *read = &update->reads[i];
        if (read->read_id != group->read_id) {
            continue;
        }
        if (read->err == ERR_OK) {
            group->read_index = read->index;
        } else {
            group_drop_waiting(group, false);
        }
    }
    if (update->load_count > 0) {
        log_read(group, update->load_first, update->load_count);
    }
}

static void group_role_changed(struct group *group)
{
    struct raft_status status = raft_status(group->raft);
    if (status.role != RAFT_LEADER) {
        group_drop_waiting(group, true);
        group->root.led_since_ns = 0;
        group->own_command_out = false;
    }
}

void group_raft(struct group *group, const struct raft_event *event)
{
    struct raft_update update = {0};
    raft_step(group->raft, event, &update);
    update_carry_out(group, &update);
    bool role_changed = update.role_changed;
    for (int i = 0; update.more && i < CONTINUE_MAX && group->phase == GROUP_RUNNING; i++) {
        struct raft_event more = {.kind = RAFT_EVENT_CONTINUE, .random = group->event->random};
        raft_step(group->raft, &more, &update);
        update_carry_out(group, &update);
        role_changed |= update.role_changed;
    }
    if (role_changed) {
        group_role_changed(group);
    }
}

/* ---- start ---- */

static void boot_entry_make(const struct group *group, struct writer *data)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    writer_put(data, bootstrap->cluster.uuid.bytes, 16);
    writer_u64(data, bootstrap->cluster_incarnation);
    writer_u32(data, group->params.group);
    writer_u32(data, bootstrap->member_count);
    for (uint32_t i = 0; i < bootstrap->member_count; i++) {
        writer_u32(data, bootstrap->members[i]);
    }
    writer_put(data, bootstrap->random, sizeof bootstrap->random);
}

static void group_write_boot(struct group *group)
{
    struct writer data = {0};
    boot_entry_make(group, &data);
    struct raft_entry entry = {.index = 1, .term = 1, .type = RAFT_ENTRY_BOOT, .data = writer_take(&data)};
    writer_deinit(&data);
    log_append(group, 1, true, (struct raft_hard_state){.term = 1}, &entry, 1);
    slice_drop(&entry.data);
    group->phase = GROUP_BOOTING;
}

/* The applied index lies under 'a' in the same batch as what it counts. */
static enum err applied_read(struct group *group, uint64_t *ret_applied)
{
    struct key key = key_begin(group->params.group, 'a');
    struct slice value = {0};
    enum err err = kv_get(&group->state.kv->view, key.bytes, key.count, &value);
    if (err == ERR_NOT_FOUND) {
        *ret_applied = 0;
        return ERR_OK;
    }
    if (err == ERR_OK && value.bytes == 8) {
        *ret_applied = get_u64(value.data);
    } else {
        err = ERR_CORRUPT;
    }
    slice_drop(&value);
    return err;
}

static void group_start_raft(struct group *group, struct raft_hard_state hard, const struct raft_term_run *runs,
                             uint32_t run_count, uint64_t last)
{
    if (applied_read(group, &group->applied) != ERR_OK || group->applied > last) {
        group_halt(group, ERR_CORRUPT,
                   "the key-value store is ahead of the log: set the node's directory aside and rejoin");
        return;
    }
    struct raft_params params = {
        .group = group->params.group,
        .self = group->params.self,
        .election_ticks = ELECTION_TICKS,
        .heartbeat_ticks = HEARTBEAT_TICKS,
        .window_entries = WINDOW_ENTRIES,
        .window_bytes = WINDOW_BYTES,
        .cache_bytes = CACHE_BYTES,
        .member_count = group->params.bootstrap->member_count,
    };
    memcpy(params.members, group->params.bootstrap->members, sizeof params.members);
    group->raft = raft_create(&params, hard, runs, run_count, last, group->applied, group->event->random);
    group->flushed_applied = group->applied;
    group->phase = GROUP_RUNNING;
    if (group->params.group == 0) {
        group_share_root(group);
    }
    struct raft_event event = {.kind = RAFT_EVENT_CONTINUE, .random = group->event->random};
    group_raft(group, &event);
}

static void group_log_opened(struct group *group, struct slice header)
{
    struct reader reader = reader_of(header.data, header.bytes);
    struct raft_hard_state hard = {.term = reader_u64(&reader), .vote = reader_u32(&reader)};
    uint64_t last = reader_u64(&reader);
    uint32_t run_count = reader_u32(&reader);
    CHECK(!reader.failed && reader.left == (size_t)run_count * 16);
    if (last == 0) {
        group_write_boot(group);
        return;
    }
    struct raft_term_run *runs = mem_alloc((run_count + 1) * sizeof *runs);
    for (uint32_t i = 0; i < run_count; i++) {
        runs[i].first = reader_u64(&reader);
        runs[i].term = reader_u64(&reader);
    }
    group_start_raft(group, hard, runs, run_count, last);
    free(runs);
}

static void group_log_appended(struct group *group, struct slice header)
{
    CHECK(header.bytes == 8);
    uint64_t number = get_u64(header.data);
    if (group->phase == GROUP_BOOTING) {
        CHECK(number == 1);
        /* Raft counts its own appends from 1 on; nothing of the boot append is left over */
        group->persist_number = 0;
        struct raft_term_run run = {.first = 1, .term = 1};
        group_start_raft(group, (struct raft_hard_state){.term = 1}, &run, 1, 1);
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_PERSISTED, .persisted = number, .random = group->event->random};
    group_raft(group, &event);
}

static void group_log_loaded(struct group *group, const struct message *message)
{
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    enum err err = raft_entries_decode(message->body, &entries, &count);
    if (err != ERR_OK || count == 0) {
        group_halt(group, ERR_CORRUPT, "the log gave back no entries");
    } else {
        struct raft_event event = {.kind = RAFT_EVENT_LOADED,
                                   .random = group->event->random,
                                   .loaded = entries,
                                   .loaded_count = count,
                                   .load_first = entries[0].index};
        group_raft(group, &event);
    }
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

/* ---- keys and map ---- */

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

static void group_root_state(struct group *group, struct slice header)
{
    struct proto_arena arena = {0};
    void *state = NULL;
    enum err err = proto_unpack(&cairn__root_state__descriptor, header, &arena, &state);
    CHECK(err == ERR_OK);
    keyring_take(&group->keyring, state);
    proto_arena_deinit(&arena);
}

/* ---- time ---- */

static void group_maintain(struct group *group)
{
    if (!group_is_ready(group) || group->own_command_out) {
        return;
    }
    struct proto_arena arena = {0};
    if (group->params.group == 0) {
        Cairn__RootCommand command = CAIRN__ROOT_COMMAND__INIT;
        Cairn__RootRecord record = CAIRN__ROOT_RECORD__INIT;
        if (group->root.led_since_ns == 0) {
            group->root.led_since_ns = group->event->now_ns;
            group->root.count = 0;
            group->root.next_tick_ns = 0;
        }
        bool due = false;
        if (!group->keyring.present) {
            root_init_make(group->params.bootstrap, group->params.cluster_key, group->event->random, &arena, &record);
            command.init = &record;
            due = true;
        } else {
            due = root_due(&group->root, &group->state, group->event->now_ns, &arena, &command);
        }
        if (due) {
            group_propose_own(group, COMMAND_ROOT, proto_pack(&command));
        }
    } else if (group->keyring.present &&
               maintain_due(&group->state, NAMESPACE_FIRST, group->keyring.map->tick, &arena)) {
        group_propose_own(group, COMMAND_MAINTAIN, (struct slice){0});
    }
    proto_arena_deinit(&arena);
}

static void group_tick(struct group *group)
{
    fx_timer(group->fx, TIMER_TICK, group->event->now_ns + group->params.tick_ns);
    if (group->phase != GROUP_RUNNING) {
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_TICK, .random = group->event->random};
    group_raft(group, &event);
    if (group->phase == GROUP_RUNNING && group->event->now_ns >= group->maintain_at_ns) {
        group->maintain_at_ns = group->event->now_ns + MAINTAIN_NS;
        if (group->root_share_due && group->params.group == 0) {
            group->root_share_due = false;
            group_share_root(group);
        }
        group_maintain(group);
    }
}

/* ---- messages ---- */

static void group_raft_frame(struct group *group, const struct message *frame)
{
    struct raft_message message = {0};
    enum err err = raft_wire_decode(group, frame, &message);
    if (err != ERR_OK) {
        group->refused[err]++;
        group_refuse(group, frame, err, NULL);
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_MESSAGE, .random = group->event->random, .message = &message};
    group_raft(group, &event);
    for (uint32_t i = 0; i < message.count; i++) {
        slice_drop(&message.entries[i].data);
    }
    free(message.entries);
}

/* An inbox of this process was full. A lost ROOT_STATE is sent again; without its log a group cannot go on. */
static void group_bounced(struct group *group, uint16_t type)
{
    if (type == MESSAGE_ROOT_STATE) {
        group->root_share_due = true;
    } else {
        group_halt(group, ERR_BUSY, "the node's log took no more");
    }
}

static void group_message(struct group *group, const struct message *message)
{
    bool local = message->peer.role == ROLE_LOCAL;
    if (local && (message->flags & MESSAGE_ERROR) != 0) {
        group_bounced(group, message->type);
    } else if (local && message->type == MESSAGE_ROOT_STATE) {
        group_root_state(group, message->header);
    } else if (local && (message->flags & MESSAGE_REPLY) && message->type == MESSAGE_LOG_OPEN) {
        group_log_opened(group, message->header);
    } else if (local && (message->flags & MESSAGE_REPLY) && message->type == MESSAGE_LOG_APPEND) {
        group_log_appended(group, message->header);
    } else if (local && (message->flags & MESSAGE_REPLY) && message->type == MESSAGE_LOG_READ) {
        group_log_loaded(group, message);
    } else if (message->flags & MESSAGE_REPLY) {
        return;
    } else if (group->phase != GROUP_RUNNING) {
        if (message->type != MESSAGE_RAFT) {
            group_refuse(group, message, ERR_NOT_READY, NULL);
        }
    } else if (message->type == MESSAGE_RAFT) {
        group_raft_frame(group, message);
    } else {
        group_request(group, message);
    }
}

static void group_event(struct group *group, const struct event *event)
{
    switch (event->kind) {
    case EVENT_MESSAGE:
        group_message(group, &event->message);
        break;
    case EVENT_TIMER:
        if (group->phase == GROUP_STARTING) {
            group->phase = GROUP_OPENING;
            struct writer header = {0};
            writer_u32(&header, group->params.group);
            log_send(group, MESSAGE_LOG_OPEN, &header, (struct slice){0});
        }
        group_tick(group);
        break;
    case EVENT_CLOSED:
        if (group->phase == GROUP_RUNNING && event->peer.peer.role == ROLE_METAD && event->peer.peer.node != 0) {
            struct raft_event closed = {
                .kind = RAFT_EVENT_PEER_CLOSED, .random = event->random, .peer = event->peer.peer.node};
            group_raft(group, &closed);
        }
        break;
    case EVENT_KV_DONE:
        group->flushing = false;
        if (event->kv.err != ERR_OK) {
            group_halt(group, event->kv.err, "the key-value store did not flush");
        }
        break;
    default:
        break;
    }
}

/* The step's writes leave as one batch with the applied index; now and then the database is flushed. */
static void group_commit_batch(struct group *group)
{
    if (kv_batch_count(group->batch) == 0) {
        kv_batch_destroy(group->batch);
    } else {
        fx_kv_commit(group->fx, group->batch);
    }
    group->batch = NULL;
    if (group->applied_since_flush >= FLUSH_ENTRIES && !group->flushing) {
        group->applied_since_flush = 0;
        group->flushing = true;
        fx_kv_flush(group->fx, ++group->flush_number);
    }
}

void group_step(void *actor, const struct event *event, struct effects *fx)
{
    struct group *group = actor;
    CHECK(group->batch == NULL);
    if (group->phase == GROUP_HALTED) {
        return;
    }
    group->event = event;
    group->fx = fx;
    group->batch = kv_batch_create();
    kv_overlay_init(&group->overlay, group->batch, group->params.kv);
    group->state = (struct state){.group = group->params.group, .kv = &group->overlay};
    group_event(group, event);
    if (group->phase == GROUP_RUNNING) {
        group_pump(group);
        group_answer_reads(group);
    }
    if (group->applied > 0 && kv_batch_count(group->batch) > 0) {
        uint8_t applied[8];
        struct key key = key_begin(group->params.group, 'a');
        put_u64(applied, group->applied);
        state_put_bytes(&group->state, &key, applied, sizeof applied);
    }
    group_commit_batch(group);
    group->event = NULL;
    group->fx = NULL;
}
