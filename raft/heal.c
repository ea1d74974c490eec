/* A log with holes: entries whose names (index, term) are known and whose bytes are damaged (PROTOCOLS R-E1, R-E2). The
 * node has promised them, so it votes by its last entry, holes or not. It does not ask for votes, for it could not send
 * what it lacks, and acknowledges and delivers nothing from the first hole on. The host fetches the bytes from any
 * member, or learns that a hole in doubt was never part of a majority's log.
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
        bool held = entry->index > log->base && entry->index <= log->last &&
                    raft_log_term(log, entry->index) == entry->term;
        struct raft_config config;
        if (held && entry->type == RAFT_ENTRY_CONFIG && raft_config_decode(entry->data, &config) == ERR_OK) {
            raft_config_insert(raft, entry->index, &config);
        }
    }
}

/* All voters of one configuration but this node are among those that have none; there is one at least. */
static bool raft_config_has_none(const struct raft *raft, const struct raft_config *config, const uint32_t *nodes,
                                 uint32_t count)
{
    uint32_t voters = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        uint32_t node = config->members[i].node;
        if (node == raft->params.self || (config->members[i].roles & (RAFT_VOTER | RAFT_OUTGOING)) == 0) {
            continue;
        }
        bool none = false;
        for (uint32_t n = 0; n < count; n++) {
            none = none || nodes[n] == node;
        }
        if (!none) {
            return false;
        }
        voters++;
    }
    return voters > 0;
}

bool raft_may_trim(const struct raft *raft, const uint32_t *nodes, uint32_t count)
{
    bool may = raft->log.hole > raft->commit;
    for (unsigned long i = 0; i < raft->config_count; i++) {
        may = may && raft_config_has_none(raft, &raft->configs[i].config, nodes, count);
    }
    return may;
}

void raft_trimmed(struct raft *raft, uint64_t index)
{
    CHECK(index > raft->commit && index == raft->log.hole && raft->role != RAFT_LEADER);
    raft_log_cut(&raft->log, index);
    raft_persist_cut(raft, index);
    raft_config_cut(raft, index);
}
