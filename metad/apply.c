/* Applying committed entries: on every replica, in log order, deterministic. Each command runs against the overlay of
 * the step's batch, so that the commands of one batch see each other; its answer is kept under its idempotency key
 * (R-D6, answers.c) in the same batch; the leader that proposed it answers the one who waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "metad/answers.h"
#include "metad/group.h"
#include "metad/namespace/operations.h"
#include "metad/records.h"

/* A device's mutation: once, whatever happens. Operations check everything before their first write, so a refusal
 * leaves no trace but its answer. */
static void apply_mutation(struct apply *apply, const struct operation *operation, struct answer *answer)
{
    bool keyed = operation_is_keyed(operation);
    if (keyed && answer_remembered(apply, answer)) {
        return;
    }
    enum err err = keyed ? records_user(apply->state, apply->command->user, apply->arena, &apply->user) : ERR_OK;
    void *request = NULL;
    if (err == ERR_OK) {
        struct slice packed = slice_borrow(apply->command->request.data, apply->command->request.len);
        err = proto_unpack(operation->request, packed, apply->arena, &request);
    }
    apply->request = request;
    answer->err = err == ERR_OK ? operation->apply(apply, answer) : err;
    if (answer->err != ERR_OK) {
        slice_drop(&answer->header);
        slice_drop(&answer->body);
    }
    if (keyed) {
        answer_remember(apply, answer);
    }
}

/* All replicas have the same last checkpoint when they apply this entry; one that is there in another state is of no
 * more use to anybody. */
static void apply_digest(struct group *group, ProtobufCBinaryData extra)
{
    struct reader reader = reader_of(extra.data, extra.len);
    uint64_t checkpoint = reader_u64(&reader), digest = reader_u64(&reader);
    if (reader.failed || checkpoint != group->at.checkpoint) {
        return;
    }
    if (digest == group->at.checkpoint_digest) {
        group->digests++;
        group->digest_at = checkpoint;
        return;
    }
    char what[96];
    snprintf(what, sizeof what, "what it applied up to entry %llu differs from the leader's",
             (unsigned long long)checkpoint);
    group_halt(group, ERR_CORRUPT, what);
}

static void apply_own(struct group *group, struct apply *apply, struct answer *answer)
{
    if (apply->command->op == COMMAND_DIGEST) {
        apply_digest(group, apply->command->extra);
        return;
    }
    if (apply->command->op == COMMAND_MAINTAIN) {
        answer->err = maintain_apply(apply);
        return;
    }
    if (apply->command->op == COMMAND_RECOVER) {
        answer->err = recover_apply(apply);
        return;
    }
    CHECK(apply->command->op == COMMAND_ROOT && group->params.group == 0);
    void *command = NULL;
    struct slice packed = slice_borrow(apply->command->extra.data, apply->command->extra.len);
    answer->err = proto_unpack(&cairn__root_command__descriptor, packed, apply->arena, &command);
    if (answer->err == ERR_OK) {
        answer->err = root_command_apply(apply, command);
    }
}

void group_answer(struct group *group, const struct waiter *waiter, struct answer *answer)
{
    const struct operation *operation = operation_find(waiter->type);
    CHECK(operation != NULL);
    if (answer->err == ERR_OK && operation->finish != NULL) {
        struct proto_arena arena = {0};
        void *request = NULL;
        answer->err = proto_unpack(operation->request, waiter->header, &arena, &request);
        if (answer->err == ERR_OK) {
            struct finish finish = {
                .state = &group->state,
                .keyring = &group->keyring,
                .bootstrap = group->params.bootstrap,
                .cluster_key = group->params.cluster_key,
                .group_count = group->params.group_count,
                .wall_ns = group->event->wall_ns,
                .bearer = waiter->bearer,
                .device = waiter->device,
                .writer = waiter->writer,
                .request = request,
            };
            answer->err = operation->finish(&finish, answer);
        }
        proto_arena_deinit(&arena);
    }
    struct message request = {.from = waiter->from, .type = waiter->type, .stream = waiter->stream};
    group_deliver(group, &request, answer);
}

static enum err command_apply(struct group *group, struct slice packed, struct answer *ret_answer)
{
    struct proto_arena *arena = &group->arena;
    void *command = NULL;
    enum err err = proto_unpack(&cairn__command__descriptor, packed, arena, &command);
    if (err == ERR_OK) {
        struct apply apply = {
            .state = &group->state,
            .bootstrap = group->params.bootstrap,
            .command = command,
            .arena = arena,
            .feed = &group->feed,
        };
        uint16_t op = (uint16_t)apply.command->op;
        const struct operation *operation = operation_find(op);
        if (operation != NULL && operation->apply != NULL) {
            apply_mutation(&apply, operation, ret_answer);
        } else {
            apply_own(group, &apply, ret_answer);
            group->own_command_out = false;
        }
    }
    proto_arena_reuse(arena);
    return err;
}

/* The flight of this entry, when this node proposed it in this term; else nobody waits for it. */
static struct flight *flight_of(struct group *group, const struct raft_entry *entry)
{
    struct flight *flight = &group->flights[group->flight_first];
    bool ours = group->flight_count > 0 && flight->index == entry->index && flight->term == entry->term;
    return ours ? flight : NULL;
}

/* A mutation of an entry that was in the log at the start. */
static void reapply_count(struct group *group)
{
    uint64_t now_ns = group->event->now_ns;
    group->reapply.begin_ns = group->reapply.mutations == 0 ? now_ns : group->reapply.begin_ns;
    group->reapply.mutations++;
}

static void entry_apply_commands(struct group *group, const struct raft_entry *entry)
{
    struct flight *flight = flight_of(group, entry);
    struct reader reader = reader_of(entry->data.data, entry->data.bytes);
    for (uint32_t i = 0; reader.left > 0; i++) {
        uint32_t bytes = reader_u32(&reader);
        const uint8_t *at = reader_take(&reader, bytes);
        struct answer answer = {0};
        if (at == NULL || command_apply(group, slice_borrow(at, bytes), &answer) != ERR_OK) {
            group_halt(group, ERR_CORRUPT, "a committed entry does not decode");
            return;
        }
        standing_digest(group, (uint64_t)answer.err << 32 ^ crc32c(0, answer.header.data, answer.header.bytes));
        if (answer.err == ERR_CORRUPT) {
            group_halt(group, ERR_CORRUPT, "a stored record does not decode");
        }
        if (entry->index <= group->reapply.last) {
            reapply_count(group);
        }
        if (flight != NULL && i < flight->count && flight->waiters[i].type != 0) {
            group_answer(group, &flight->waiters[i], &answer);
        }
        slice_drop(&answer.header);
        slice_drop(&answer.body);
    }
    feed_flush(&group->state, &group->feed);
    if (flight != NULL) {
        for (uint32_t i = 0; i < flight->count; i++) {
            waiter_deinit(&flight->waiters[i]);
        }
        free(flight->waiters);
        *flight = (struct flight){0};
        group->flight_first = (group->flight_first + 1) % FLIGHTS_MAX;
        group->flight_count--;
    }
}

void group_apply(struct group *group, const struct raft_entry *entry)
{
    if (entry->index <= group->at.applied) {
        return; /* a snapshot that Raft is not told of yet holds it */
    }
    CHECK(entry->index == group->at.applied + 1);
    standing_digest(group, entry->index ^ entry->term << 40 ^ (uint64_t)entry->type << 32);
    standing_digest(group, crc32c(0, entry->data.data, entry->data.bytes));
    if (entry->type == RAFT_ENTRY_BOOT) {
        namespace_bootstrap(&group->state, group->params.bootstrap);
    } else if (entry->type == RAFT_ENTRY_COMMANDS) {
        entry_apply_commands(group, entry);
    } else if (entry->type == RAFT_ENTRY_CONFIG) {
        struct raft_config config;
        enum err err = raft_config_decode(entry->data, &config);
        CHECK(err == ERR_OK); /* Raft took it */
        standing_config(group, entry->index, &config);
    }
    group->at.applied = entry->index;
    group->at.term = entry->term;
    if (entry->index == group->reapply.last) {
        group->reapply.end_ns = group->event->now_ns;
    }
    group->applied_since_flush++;
    group->applied_bytes_since_flush += entry->data.bytes;
    if (entry->index % DIGEST_ENTRIES == 0) {
        group->at.checkpoint = entry->index;
        group->at.checkpoint_digest = group->at.digest;
    }
    group->standing_due = true;
    if (records_are_full(&group->state)) {
        records_settle(&group->state);
    }
    if (group->params.group == 0 && entry->type == RAFT_ENTRY_COMMANDS) {
        group_share_root(group);
    }
}

void group_settle(struct group *group)
{
    records_settle(&group->state);
    if (group->standing_due) {
        group->standing_due = false;
        standing_put(group);
    }
}
