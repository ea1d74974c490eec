/* A log with holes: entries whose names (index, term) are known and whose bytes are damaged (PROTOCOLS R-E1, R-E2). The
 * node has promised them, so it votes by its last entry, holes or not. It does not ask for votes, for it could not send
 * what it lacks, and acknowledges and delivers nothing from the first hole on. The host fetches the bytes from any
 * member, or learns that a hole was never part of a majority's log.
 *
 * A leader's append over a hole mends it as well: an entry of another term cuts the log there. */
#include "internal.h"

uint64_t raft_match_sound(const struct raft *raft, uint64_t match)
{
    return raft->log.hole != 0 && match >= raft->log.hole ? raft->log.hole - 1 : match;
}

void raft_healed(struct raft *raft, const struct raft_event *event)
{
    struct raft_log *log = &raft->log;
    CHECK(event->index == 0 || (event->index <= log->last && (log->hole == 0 || event->index >= log->hole)));
    if (log->hole == 0) {
        return; /* cut since */
    }
    log->hole = event->index;
    raft_log_durable(log, 0);
    for (uint32_t i = 0; i < event->loaded_count; i++) {
        const struct raft_entry *entry = &event->loaded[i];
        bool held =
            entry->index > log->base && entry->index <= log->last && raft_log_term(log, entry->index) == entry->term;
        struct raft_config config;
        if (held && entry->type == RAFT_ENTRY_CONFIG && raft_config_decode(entry->data, &config) == ERR_OK) {
            raft_config_insert(raft, entry->index, &config);
        }
    }
}

/* Who of one half of a configuration may have acknowledged the first hole: fewer than a majority? False as well when
 * one was not heard. */
static bool raft_half_lacks(const struct raft *raft, const struct raft_config *config, uint8_t role, bool self_may,
                            const struct raft_heard *heard, uint32_t count)
{
    uint32_t voters = 0, may = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        if ((config->members[i].roles & role) == 0) {
            continue;
        }
        voters++;
        bool told = config->members[i].node == raft->params.self, might = told && self_may;
        for (uint32_t n = 0; n < count; n++) {
            told = told || heard[n].node == config->members[i].node;
            might = might || (heard[n].node == config->members[i].node && heard[n].may_have);
        }
        if (!told) {
            return false;
        }
        may += might;
    }
    return voters == 0 || may < voters / 2 + 1;
}

bool raft_may_trim(const struct raft *raft, bool self_may, const struct raft_heard *heard, uint32_t count)
{
    bool may = raft->log.hole > raft->commit;
    for (unsigned long i = 0; i < raft->config_count; i++) {
        const struct raft_config *config = &raft->configs[i].config;
        may = may && config->count > 0 && raft_half_lacks(raft, config, RAFT_VOTER, self_may, heard, count) &&
              raft_half_lacks(raft, config, RAFT_OUTGOING, self_may, heard, count);
    }
    return may;
}

/* Rot met by a running node. A leader that lacks what it has not applied cannot lead on. What was acknowledged and has
 * not left yet stops below the hole. */
void raft_rotten(struct raft *raft, uint64_t index, uint64_t term)
{
    struct raft_log *log = &raft->log;
    if (index <= log->base || index > log->durable || raft_log_term(log, index) != term) {
        return; /* cut or dropped since */
    }
    if (index <= raft->applied) {
        log->rotten_first = log->rotten_first == 0 || index < log->rotten_first ? index : log->rotten_first;
        log->rotten_last = index > log->rotten_last ? index : log->rotten_last;
        return;
    }
    if (log->hole != 0 && log->hole <= index) {
        return; /* one at a time: it is met again */
    }
    log->hole = index;
    raft_log_durable(log, 0);
    for (unsigned long i = 0; i < raft->held_count; i++) {
        struct raft_message *held = &raft->held[i].message;
        if (held->kind == RAFT_APPEND_REPLY && !held->reject) {
            held->log_index = raft_match_sound(raft, held->log_index);
        }
    }
    if (raft->role != RAFT_FOLLOWER) {
        raft_become_follower(raft, raft->term, 0);
    }
}

void raft_trimmed(struct raft *raft, uint64_t index)
{
    CHECK(index > raft->commit && index == raft->log.hole && raft->role != RAFT_LEADER);
    raft_log_cut(&raft->log, index);
    raft_persist_cut(raft, index);
    raft_config_cut(raft, index);
}
