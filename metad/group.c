/* The group actor: a Raft instance, its machine, and what joins them to the log, the peers and the clients.
 *
 * Happy path of a mutation: requests.c authorizes and prepares a command and queues it; group_pump makes one Raft entry
 * of all that wait; Raft says what to append (LOG_APPEND to the node's log actor) and to send; once a majority has it
 * durably the entry comes back in `committed`, apply.c runs its commands against the overlay, the leader answers; the
 * step's writes leave as one KV_COMMIT with the applied index. Queries wait for a ReadIndex and then for the applied
 * index.
 *
 * Start: LOG_OPEN asks the log what it holds; start.c makes Raft of the answer and of what the key-value store has;
 * what that lacks is loaded and applied again.
 *
 * Failure: anything this node cannot go on with is a HALT that names it. */
#include "metad/group.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "metad/answers.h"
#include "metad/host/log.h"
#include "metad/members.h"
#include "metad/records.h"

#define TIMER_TICK    1u
#define FLUSH_ENTRIES 20000u         /* applied entries that may have to be applied again after a crash */
#define FLUSH_BYTES   (32ull << 20)  /* the same in bytes of commands: a restart applies them within a second or two */
#define KEEP_ENTRIES  20000u         /* flushed entries that stay in the log: who lags less needs no snapshot */
#define ASLEEP_NS     10000000000ull /* from tick to tick of a group that sleeps: for its maintenance */
#define CONTINUE_MAX  64

struct group *group_create(const struct group_params *params)
{
    CHECK(params->group < params->group_count && params->group_count <= LIMIT_GROUPS && params->tick_ns > 0);
    struct group *group = mem_alloc(sizeof *group);
    group->params = *params;
    group->phase = GROUP_STARTING;
    return group;
}

void group_destroy(struct group *group)
{
    group_drop_waiting(group, true);
    heal_deinit(group);
    snapshot_send_deinit(group);
    if (group->raft != NULL) {
        raft_destroy(group->raft);
    }
    answers_forget(&group->state);
    records_deinit(&group->state);
    proto_arena_deinit(&group->arena);
    writer_deinit(&group->feed.packed);
    keyring_deinit(&group->keyring);
    root_deinit(&group->root);
    free(group->queue);
    free(group->reads);
    free(group->reads_out);
    explicit_bzero(&group->params.cluster_key, sizeof group->params.cluster_key);
    free(group);
}

struct slice group_map(const struct group *group, uint64_t *ret_epoch)
{
    *ret_epoch = group->keyring.present ? group->keyring.map->epoch : 0;
    return group->keyring.map_bytes;
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
    return group->at.applied >= group->ready_index;
}

/* ---- the log ---- */

void group_log_send(struct group *group, uint16_t type, uint64_t stream, struct writer *header, struct slice body)
{
    fx_send(group->fx, address_local(ACTOR_LOG, 0), type, stream, writer_take(header), body);
    writer_deinit(header);
}

static void log_send(struct group *group, uint16_t type, struct writer *header, struct slice body)
{
    group_log_send(group, type, 0, header, body);
}

void group_log_append(struct group *group, uint64_t number, bool hard_changed, struct raft_hard_state hard,
                      const struct raft_entry *entries, uint32_t count)
{
    CHECK(number > group->persist_number);
    group->persist_number = number;
    identity_tell_log(group);
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

void group_log_reset(struct group *group, uint64_t number, uint64_t index, uint64_t term)
{
    CHECK(number > group->persist_number);
    group->persist_number = group->reset_number = number;
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u64(&header, number);
    writer_u64(&header, index);
    writer_u64(&header, term);
    log_send(group, MESSAGE_LOG_RESET, &header, (struct slice){0});
}

static void log_read(struct group *group, uint64_t first, uint32_t count)
{
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    group->load_first = first;
    writer_u64(&header, first);
    writer_u32(&header, count);
    log_send(group, MESSAGE_LOG_READ, &header, (struct slice){0});
}

/* ---- Raft ---- */

static void update_carry_out(struct group *group, const struct raft_update *update)
{
    if (update->reset) {
        heal_cut(group, 0);
        group_log_reset(group, update->number, update->reset_index, update->reset_term);
    } else if (update->number != 0) {
        if (update->append_count > 0) {
            heal_cut(group, update->append[0].index);
        }
        group_log_append(group, update->number, update->hard_changed, update->hard, update->append,
                         update->append_count);
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
    for (uint32_t i = 0; i < update->snapshot_count; i++) {
        snapshot_wanted(group, update->snapshots[i], false);
    }
    if (update->load_count > 0) {
        log_read(group, update->load_first, update->load_count);
    }
}

static void group_role_changed(struct group *group)
{
    if (raft_role(group->raft) != RAFT_LEADER) {
        group_drop_waiting(group, true);
        snapshot_send_end(group);
        group->root.led_since_ns = 0;
        group->own_command_out = false;
    }
}

enum err group_raft(struct group *group, const struct raft_event *event)
{
    struct raft_update update = {0};
    raft_step(group->raft, event, &update);
    enum err err = update.propose_err;
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
    return err;
}

static void group_log_appended(struct group *group, struct slice header)
{
    CHECK(header.bytes >= 8);
    uint64_t number = get_u64(header.data);
    if (header.bytes == 16) {
        group->position = get_u64(header.data + 8);
    }
    if (group->phase == GROUP_RECOVERING) {
        recover_appended(group);
        return;
    }
    if (group->phase == GROUP_BOOTING) {
        CHECK(number == 1);
        struct raft_term_run run = {.first = 1, .term = 1};
        struct raft_start start = {.hard = {.term = 1}, .runs = &run, .run_count = 1, .last = 1};
        group_start_raft(group, &start);
        return;
    }
    group->persisted_number = number;
    if (group->reset_number != 0 && number >= group->reset_number) {
        standing_reset_done(group);
    }
    if (group->phase == GROUP_RESETTING) {
        struct raft_start start = {.hard = group->start_hard,
                                   .base_index = group->at.applied,
                                   .base_term = group->at.term,
                                   .last = group->at.applied};
        group_start_raft(group, &start);
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_PERSISTED, .persisted = number, .random = group->event->random};
    group_raft(group, &event);
}

/* Fewer than asked, even none: they were cut or dropped meanwhile. */
static void group_log_loaded(struct group *group, const struct message *message)
{
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (raft_entries_decode(message->body, &entries, &count) != ERR_OK) {
        group_halt(group, ERR_CORRUPT, "the log gave back entries that do not decode");
    } else {
        struct raft_event event = {.kind = RAFT_EVENT_LOADED,
                                   .random = group->event->random,
                                   .loaded = entries,
                                   .loaded_count = count,
                                   .load_first = group->load_first};
        group_raft(group, &event);
    }
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

/* ---- what the key-value store has durably, the log may give up ---- */

void group_log_cut(struct group *group, uint64_t index, uint64_t term)
{
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u64(&header, index);
    writer_u64(&header, term);
    log_send(group, MESSAGE_LOG_CUT, &header, (struct slice){0});
}

static void group_cut(struct group *group)
{
    uint64_t keep = group->params.keep_entries != 0 ? group->params.keep_entries : KEEP_ENTRIES;
    uint64_t index = group->flushed_applied > keep ? group->flushed_applied - keep : 0;
    if (group->pinned > index) { /* too many bytes, however few entries */
        index = group->pinned < group->flushed_applied ? group->pinned : group->flushed_applied;
    }
    if (group->heal.rot_last > index && group->heal.rot_last <= group->flushed_applied) {
        index = group->heal.rot_last; /* what cannot be read back any more; who needs it gets a snapshot */
    }
    uint64_t floor = snapshot_send_floor(group);
    index = index < floor ? index : floor; /* who gets a snapshot goes on behind it */
    struct raft_status status = raft_status(group->raft);
    if (index <= status.base || group->reset_due || index > status.applied) {
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_COMPACTED, .random = group->event->random, .index = index};
    group_raft(group, &event);
    group_log_cut(group, index, raft_status(group->raft).base_term);
}

static void group_flushed(struct group *group, uint64_t flush)
{
    if (flush == group->flushing) {
        group->flushing = 0;
        group->flushed_applied =
            group->flushing_applied > group->flushed_applied ? group->flushing_applied : group->flushed_applied;
    }
    if (group->phase == GROUP_RUNNING) {
        snapshot_receive_flushed(group, flush);
    }
    if (group->phase == GROUP_RUNNING) {
        group_cut(group);
    }
}

static void group_kv_done(struct group *group, const struct event *event)
{
    uint64_t number = event->kv.token & (TOKEN_FLUSH - 1);
    if (event->kv.err != ERR_OK) {
        group_halt(group, event->kv.err, "the key-value store does not flush or read");
    } else if (event->kv.token & TOKEN_FLUSH) {
        group_flushed(group, number);
    } else {
        CHECK(event->kv.token & TOKEN_SCAN);
        snapshot_send_scanned(group, number, event->kv.data);
    }
}

/* A group that sleeps ticks seldom; one that was woken, at once as ever. */
static void group_tick_arm(struct group *group, bool ticked)
{
    bool slow = group->raft != NULL && raft_is_asleep(group->raft);
    if (ticked || (group->ticks_slowly && !slow)) {
        fx_timer(group->fx, TIMER_TICK, group->event->now_ns + (slow ? ASLEEP_NS : group->params.tick_ns));
        group->ticks_slowly = slow;
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
    if (!group->draining || message.kind != RAFT_TIMEOUT_NOW) {
        group_raft(group, &event);
    }
    for (uint32_t i = 0; i < message.count; i++) {
        slice_drop(&message.entries[i].data);
    }
    free(message.entries);
}

/* An inbox of this process was full. A lost ROOT_STATE is sent again, a LOG_CUT with the next one; without its
 * log a group cannot go on. */
static void group_bounced(struct group *group, const struct message *message)
{
    if (message->type == MESSAGE_ROOT_STATE) {
        group->root_share_due = true;
    } else if (message->type == MESSAGE_LOG_FETCH || message->type == MESSAGE_LOG_HEAL) {
        heal_bounced(group, message);
    } else if (message->type == MESSAGE_LOG_PEERS) {
        group->identities_due = group->identities_new = true;
    } else if (message->type != MESSAGE_LOG_CUT) {
        group_halt(group, ERR_BUSY, "the node's log took no more");
    }
}

/* What the node's log answers. */
static void group_log_reply(struct group *group, const struct message *message)
{
    switch (message->type) {
    case MESSAGE_LOG_OPEN:
        group_log_opened(group, message->header);
        break;
    case MESSAGE_LOG_APPEND:
    case MESSAGE_LOG_RESET:
        group_log_appended(group, message->header);
        break;
    case MESSAGE_LOG_READ:
        group_log_loaded(group, message);
        break;
    case MESSAGE_LOG_FETCH:
        heal_fetched(group, message);
        break;
    case MESSAGE_LOG_HEAL:
        CHECK(message->header.bytes == 8);
        heal_written(group, get_u64(message->header.data));
        break;
    default:
        break;
    }
}

static void group_local(struct group *group, const struct message *message)
{
    if ((message->flags & MESSAGE_ERROR) != 0) {
        group_bounced(group, message);
    } else if (message->flags & MESSAGE_REPLY) {
        group_log_reply(group, message);
    } else if (message->type == MESSAGE_ROOT_STATE) {
        group_root_state(group, message->header);
    } else if (message->type == MESSAGE_GROUP_DRAIN) {
        members_drain(group);
    } else if (message->type == MESSAGE_GROUP_RECOVER) {
        recover_begin(group, message->header);
    } else if (message->type == MESSAGE_LOG_ROTTEN) {
        if (group->phase == GROUP_RUNNING) {
            heal_rotten(group, message->header);
        }
    } else if (message->type == MESSAGE_LOG_PINNED) {
        CHECK(message->header.bytes == 12);
        group->flush_due = true;
        group->pinned = get_u64(message->header.data + 4);
    }
}

static const char *group_absence(const struct group *group)
{
    return group->phase == GROUP_UNSURE
               ? "this node's log lost what it promised in this group: set its directory aside "
                 "and join it anew"
               : NULL;
}

static void group_message(struct group *group, const struct message *message)
{
    if (message->peer.role == ROLE_LOCAL) {
        group_local(group, message);
    } else if (message->flags & MESSAGE_REPLY) {
        if (message->type == MESSAGE_SNAPSHOT && group->phase == GROUP_RUNNING) {
            snapshot_send_answered(group, message);
        } else if (message->type == MESSAGE_ENTRY_FETCH && group->phase == GROUP_RUNNING) {
            heal_answered(group, message);
        } else if (message->type == MESSAGE_RAFT && (message->flags & MESSAGE_ERROR) != 0) {
            uint32_t leader = 0;
            group->told_stale = group->told_stale || error_reply_decode(message->header, &leader) == ERR_STALE_PEER;
        }
    } else if (group->phase != GROUP_RUNNING) {
        if (message->type != MESSAGE_RAFT) {
            group_refuse(group, message, ERR_NOT_READY, group_absence(group));
        }
    } else if (message->type == MESSAGE_RAFT) {
        group_raft_frame(group, message);
    } else if (message->type == MESSAGE_SNAPSHOT) {
        snapshot_receive(group, message);
    } else if (message->type == MESSAGE_ENTRY_FETCH) {
        heal_asked(group, message);
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
        group_kv_done(group, event);
        break;
    default:
        break;
    }
}

/* The step's writes leave as one batch with the applied index; now and then the database is flushed. */
static void group_commit_batch(struct group *group)
{
    group_settle(group);
    if (kv_batch_count(group->batch) == 0) {
        kv_batch_destroy(group->batch);
    } else {
        fx_kv_commit(group->fx, group->batch);
    }
    group->batch = NULL;
    uint32_t entries = group->params.flush_entries != 0 ? group->params.flush_entries : FLUSH_ENTRIES;
    bool due =
        group->flush_due || group->applied_since_flush >= entries || group->applied_bytes_since_flush >= FLUSH_BYTES;
    if (due && group->flushing == 0) {
        group->applied_since_flush = group->applied_bytes_since_flush = 0;
        group->flush_due = false;
        group->flushing = ++group->flush_number;
        group->flushing_applied = group->at.applied;
        fx_kv_flush(group->fx, TOKEN_FLUSH | group->flushing);
    }
    if (group->in.flush != 0 && !group->in.flush_asked) {
        group->in.flush_asked = true;
        fx_kv_flush(group->fx, TOKEN_FLUSH | group->in.flush);
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
    group->state.group = (struct prefix){.group = group->params.group, .view = group->view};
    group->state.kv = &group->overlay;
    group_event(group, event);
    if (group->phase == GROUP_RUNNING && !event->more) {
        group_pump(group);
    }
    if (group->phase == GROUP_RUNNING) {
        group_answer_reads(group);
    }
    if (group->draining) {
        members_drain_go_on(group);
    }
    group_tick_arm(group, event->kind == EVENT_TIMER);
    group_commit_batch(group);
    if (group->phase == GROUP_RUNNING) {
        snapshot_send_start(group);
    }
    group->event = NULL;
    group->fx = NULL;
}
