/* What a step hands to the host, and what waits until the host says that something is durable.
 *
 * A step collects messages, committed entries and answers; raft_update_end gives the entries not yet written and a
 * changed hard state one number. A promise to a peer (a granted vote, a request for votes, an append acknowledged) is
 * held until that number is durable. A cut lowers what older numbers will make durable, so that a late PERSISTED never
 * counts entries that are gone. */
#include <stdlib.h>

#include "internal.h"

static void entries_drop(struct raft_entry *entries, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
}

static void entry_push(struct raft_entry **list, unsigned long *count, unsigned long *capacity,
                       const struct raft_entry *entry)
{
    *list = mem_grow(*list, capacity, *count + 1, sizeof **list);
    (*list)[*count] = *entry;
    (*list)[*count].data = slice_ref(entry->data);
    (*count)++;
}

void raft_update_begin(struct raft *raft)
{
    for (unsigned long i = 0; i < raft->out_message_count; i++) {
        entries_drop(raft->out_messages[i].entries, raft->out_messages[i].count);
        free(raft->out_messages[i].entries);
    }
    entries_drop(raft->out_append, raft->out_append_count);
    entries_drop(raft->out_committed, raft->out_committed_count);
    raft->out_message_count = raft->out_append_count = raft->out_committed_count = raft->out_read_count = 0;
    raft->out_snapshot_count = 0;
    raft->update = (struct raft_update){0};
}

void raft_update_deinit(struct raft *raft)
{
    raft_update_begin(raft);
    free(raft->out_messages);
    free(raft->out_append);
    free(raft->out_committed);
    free(raft->out_reads);
    free(raft->pending);
    free(raft->held);
}

void raft_send(struct raft *raft, struct raft_message message)
{
    message.from = raft->params.self;
    if (message.term == 0) {
        message.term = raft->term;
    }
    CHECK(message.to != message.from && message.kind >= RAFT_PRE_VOTE);
    struct raft_entry *copy = NULL;
    if (message.count > 0) {
        copy = mem_alloc(message.count * sizeof *copy);
        for (uint32_t i = 0; i < message.count; i++) {
            copy[i] = message.entries[i];
            copy[i].data = slice_ref(message.entries[i].data);
        }
    }
    message.entries = copy;
    raft->out_messages = mem_grow(raft->out_messages, &raft->out_message_capacity, raft->out_message_count + 1,
                                  sizeof *raft->out_messages);
    raft->out_messages[raft->out_message_count++] = message;
}

void raft_send_durable(struct raft *raft, struct raft_message message)
{
    CHECK(message.count == 0);
    if (message.term == 0) {
        message.term = raft->term;
    }
    raft->held = mem_grow(raft->held, &raft->held_capacity, raft->held_count + 1, sizeof *raft->held);
    raft->held[raft->held_count++] = (struct raft_held){.number = 0, .message = message};
}

void raft_held_drop(struct raft *raft)
{
    raft->held_count = 0;
}

void raft_persisted(struct raft *raft, uint64_t number)
{
    CHECK(number <= raft->number);
    if (number <= raft->persisted_number) {
        return;
    }
    raft->persisted_number = number;
    unsigned long done = 0;
    while (done < raft->pending_count && raft->pending[done].number <= number) {
        raft_log_durable(&raft->log, raft->pending[done].last);
        done++;
    }
    for (unsigned long i = done; i < raft->pending_count; i++) {
        raft->pending[i - done] = raft->pending[i];
    }
    raft->pending_count -= done;
    CHECK(raft->log.persisted <= raft->log.written);
}

void raft_persist_cut(struct raft *raft, uint64_t from)
{
    for (unsigned long i = 0; i < raft->pending_count; i++) {
        if (raft->pending[i].last >= from) {
            raft->pending[i].last = from - 1;
        }
    }
}

void raft_answer_read(struct raft *raft, uint64_t read_id, uint64_t index, enum err err)
{
    raft->out_reads =
        mem_grow(raft->out_reads, &raft->out_read_capacity, raft->out_read_count + 1, sizeof *raft->out_reads);
    raft->out_reads[raft->out_read_count++] = (struct raft_read){.read_id = read_id, .index = index, .err = err};
}

/* Numbers what must be persisted: entries behind `written` and a changed hard state. */
static void raft_update_persist(struct raft *raft)
{
    struct raft_log *log = &raft->log;
    CHECK(log->written <= log->last);
    if (!raft->hard_changed && log->written == log->last && !raft->reset) {
        return;
    }
    raft->number++;
    raft->update.number = raft->number;
    if (raft->reset) {
        CHECK(!raft->hard_changed && log->written == log->last && log->last == log->base);
        raft->reset = false;
        raft->update.reset = true;
        raft->update.reset_index = log->base;
        raft->update.reset_term = log->base_term;
    }
    if (raft->hard_changed) {
        raft->hard_changed = false;
        raft->hard_number = raft->number;
        raft->update.hard_changed = true;
    }
    for (uint64_t i = log->written + 1; i <= log->last; i++) {
        const struct raft_entry *entry = raft_log_find(log, i);
        CHECK(entry != NULL);
        entry_push(&raft->out_append, &raft->out_append_count, &raft->out_append_capacity, entry);
    }
    log->written = log->last;
    raft->pending = mem_grow(raft->pending, &raft->pending_capacity, raft->pending_count + 1, sizeof *raft->pending);
    raft->pending[raft->pending_count++] = (struct raft_pending){.number = raft->number, .last = log->last};
}

/* Sends the held messages whose number is durable; those of this step take its number. */
static void raft_update_release(struct raft *raft)
{
    unsigned long kept = 0;
    for (unsigned long i = 0; i < raft->held_count; i++) {
        struct raft_held held = raft->held[i];
        if (held.number == 0) {
            held.number = raft->number;
        }
        if (held.number <= raft->persisted_number) {
            raft_send(raft, held.message);
        } else {
            raft->held[kept++] = held;
        }
    }
    raft->held_count = kept;
}

/* The last entry that is committed, and durable on this node. */
static uint64_t raft_settled(const struct raft *raft)
{
    return raft->commit < raft->log.persisted ? raft->commit : raft->log.persisted;
}

/* The last entry that may be delivered. */
static uint64_t raft_deliver_limit(const struct raft *raft)
{
    return raft->lost ? raft->applied : raft_settled(raft);
}

static void raft_update_deliver(struct raft *raft)
{
    uint64_t limit = raft_deliver_limit(raft), bytes = 0;
    while (raft->applied < limit) {
        const struct raft_entry *entry = raft_log_find(&raft->log, raft->applied + 1);
        if (entry == NULL) {
            break;
        }
        bool full = raft->out_committed_count == RAFT_DELIVER_ENTRIES ||
                    (raft->out_committed_count > 0 && bytes + entry->data.bytes > RAFT_DELIVER_BYTES);
        if (full) {
            raft->update.more = true;
            break;
        }
        CHECK(entry->index == raft->applied + 1);
        bytes += entry->data.bytes;
        entry_push(&raft->out_committed, &raft->out_committed_count, &raft->out_committed_capacity, entry);
        raft->applied++;
    }
}

/* First entry that user `turn` needs read back: 0 is the machine, 1.. the members. 0: none. */
static uint64_t raft_load_need(const struct raft *raft, uint32_t turn)
{
    if (turn == 0) {
        uint64_t next = raft->applied + 1;
        return next <= raft_deliver_limit(raft) && raft_log_find(&raft->log, next) == NULL ? next : 0;
    }
    const struct raft_peer *peer = &raft->peers[turn - 1];
    return raft->role == RAFT_LEADER && peer->wants_load ? peer->next : 0;
}

/* Entries from `first` on are read back up to there: what is in memory, or cannot be read. */
static uint64_t raft_load_end(const struct raft *raft, uint64_t first)
{
    const struct raft_log *log = &raft->log;
    uint64_t end = log->hole != 0 && log->hole < log->first_cached ? log->hole : log->first_cached;
    bool rotten = log->rotten_first != 0 && first <= log->rotten_last && log->rotten_first < end;
    return rotten ? log->rotten_first : end;
}

static void raft_update_load(struct raft *raft)
{
    uint32_t turns = raft->peer_count + 1;
    for (uint32_t i = 0; i < turns && raft->load_count == 0; i++) {
        uint32_t turn = (raft->load_turn + i) % turns;
        uint64_t first = raft_load_need(raft, turn);
        uint64_t end = first == 0 ? 0 : raft_load_end(raft, first);
        if (first == 0 || (raft->log.rotten_first != 0 && first >= end)) {
            continue;
        }
        uint64_t count = end - first;
        CHECK(first < end && raft->log.first_cached - 1 <= raft->log.durable);
        raft->load_first = first;
        raft->load_count = count > RAFT_LOAD_ENTRIES ? RAFT_LOAD_ENTRIES : (uint32_t)count;
        raft->load_turn = (turn + 1) % turns;
        raft->update.load_first = raft->load_first;
        raft->update.load_count = raft->load_count;
    }
}

static bool raft_window_is_needed(const struct raft *raft)
{
    const struct raft_log *log = &raft->log;
    uint64_t first = log->window_first, end = log->window_first + log->window_count;
    bool needed = raft->applied + 1 >= first && raft->applied + 1 < end;
    for (uint32_t i = 0; i < raft->peer_count && raft->role == RAFT_LEADER; i++) {
        needed = needed || (i != raft->self && raft->peers[i].next >= first && raft->peers[i].next < end);
    }
    return needed;
}

void raft_update_end(struct raft *raft, struct raft_update *ret_update)
{
    raft_update_persist(raft);
    raft_update_release(raft);
    raft_update_deliver(raft);
    raft_update_load(raft);
    if (raft->log.window_count > 0 && !raft_window_is_needed(raft)) {
        raft_log_window_drop(&raft->log);
    }
    raft_log_evict(&raft->log, raft->lost ? raft_settled(raft) : raft->applied, raft->params.cache_bytes);
    CHECK(raft->log.base <= raft->applied && raft->applied <= raft->commit && raft->commit <= raft->log.last);
    CHECK(raft->configs[0].index <= raft->commit && raft_config(raft)->index <= raft->log.last);
    struct raft_update *update = &raft->update;
    update->hard = (struct raft_hard_state){.term = raft->term, .vote = raft->vote};
    update->append = raft->out_append;
    update->append_count = (uint32_t)raft->out_append_count;
    update->messages = raft->out_messages;
    update->message_count = (uint32_t)raft->out_message_count;
    update->committed = raft->out_committed;
    update->committed_count = (uint32_t)raft->out_committed_count;
    update->reads = raft->out_reads;
    update->read_count = (uint32_t)raft->out_read_count;
    update->snapshots = raft->out_snapshots;
    update->snapshot_count = raft->out_snapshot_count;
    *ret_update = *update;
}
