/* Replication: the leader's appends and their answers, the follower's log, commit. Per follower the leader either
 * probes (one append at a time, until one is accepted: then the place where the logs agree is known) or replicates
 * (pipelined appends within a window of entries and bytes, 10.2.1). A rejection says where the logs may agree, whole
 * terms at a time. What the leader itself holds counts only once it is durable here; a follower acknowledges only what
 * is durable there. Lost appends show when a heartbeat is answered and nothing moved: an empty append asks. */
#include "internal.h"

static void raft_inflight_clear(struct raft_peer *peer)
{
    peer->inflight_head = peer->inflight_count = 0;
    peer->inflight_bytes = 0;
}

void raft_peer_probe(struct raft_peer *peer, uint64_t next)
{
    CHECK(next > peer->match);
    peer->probing = true;
    peer->paused = false;
    peer->next = next;
    raft_inflight_clear(peer);
}

void raft_lead(struct raft *raft)
{
    CHECK(raft->role == RAFT_CANDIDATE && raft->read_count == 0);
    raft->role = RAFT_LEADER;
    raft->leader = raft->params.self;
    raft->election_elapsed = raft->heartbeat_elapsed = 0;
    raft->uncommitted_bytes = 0;
    for (uint64_t i = raft->commit + 1; i <= raft->log.last; i++) {
        const struct raft_entry *entry = i >= raft->log.first_cached ? raft_log_find(&raft->log, i) : NULL;
        raft->uncommitted_bytes += entry ? entry->data.bytes : 0;
    }
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        struct raft_peer *peer = &raft->peers[i];
        peer->match = 0;
        peer->ticked = 0;
        peer->round = raft->round;
        peer->active = peer->vote == RAFT_VOTE_GRANTED;
        peer->silent_ticks = peer->active ? 0 : raft->params.election_ticks + 1;
        peer->poke = peer->wants_load = peer->snapshotting = false;
        raft_peer_probe(peer, raft->log.last + 1);
    }
    raft_lead_append(raft, RAFT_ENTRY_NOOP, (struct slice){0});
}

void raft_lead_append(struct raft *raft, uint8_t type, struct slice data)
{
    CHECK(raft->role == RAFT_LEADER);
    struct raft_entry entry = {.index = raft->log.last + 1, .term = raft->term, .type = type, .data = data};
    raft_log_append(&raft->log, &entry);
    raft->uncommitted_bytes += data.bytes;
}

void raft_propose(struct raft *raft, struct slice data)
{
    enum err err = ERR_OK;
    if (raft->role != RAFT_LEADER) {
        err = ERR_NOT_LEADER;
    } else if (data.bytes > LIMIT_ENTRY_BYTES) {
        err = ERR_TOO_LARGE;
    } else if (raft->transfer != 0 || raft->uncommitted_bytes + data.bytes > RAFT_UNCOMMITTED_BYTES) {
        err = ERR_BUSY;
    }
    raft->update.propose_err = err;
    if (err != ERR_OK) {
        return;
    }
    raft_lead_append(raft, RAFT_ENTRY_COMMANDS, data);
    raft->update.propose_index = raft->log.last;
    raft->update.propose_term = raft->term;
}

void raft_commit_to(struct raft *raft, uint64_t commit)
{
    CHECK(commit > raft->commit && commit <= raft->log.last);
    for (uint64_t i = raft->commit + 1; i <= commit && raft->role == RAFT_LEADER; i++) {
        const struct raft_entry *entry = i >= raft->log.first_cached ? raft_log_find(&raft->log, i) : NULL;
        uint64_t bytes = entry ? entry->data.bytes : 0;
        CHECK(raft->uncommitted_bytes >= bytes);
        raft->uncommitted_bytes -= bytes;
    }
    raft->commit = commit;
}

void raft_commit_by_counting(struct raft *raft)
{
    if (raft->role != RAFT_LEADER) {
        return;
    }
    uint64_t matches[RAFT_MEMBERS_MAX];
    for (uint32_t i = 0; i < raft->peer_count; i++) {
        matches[i] = i == raft->self ? raft->log.persisted : raft->peers[i].match;
    }
    uint64_t index = raft_quorum(raft, matches);
    if (index > raft->commit && raft_log_term(&raft->log, index) == raft->term) {
        raft_commit_to(raft, index);
    }
}

void raft_commit_learn(struct raft *raft, uint64_t commit)
{
    CHECK(raft->role != RAFT_LEADER);
    if (commit > raft->commit && commit <= raft->log.last) {
        raft_commit_to(raft, commit);
    }
}

void raft_commit_told(struct raft *raft, uint64_t index, uint64_t term)
{
    bool held = index > raft->log.base && index <= raft->log.last && raft_log_term(&raft->log, index) == term;
    if (held && raft->role != RAFT_LEADER) {
        raft_commit_learn(raft, index);
    }
}

/* ---- leader ---- */

static void raft_append_send(struct raft *raft, struct raft_peer *peer, struct raft_entry *entries, uint32_t count)
{
    uint64_t previous = peer->next - 1;
    raft_send(raft, (struct raft_message){.kind = RAFT_APPEND,
                                          .to = peer->node,
                                          .log_index = previous,
                                          .log_term = raft_log_term(&raft->log, previous),
                                          .commit = raft->commit,
                                          .entries = entries,
                                          .count = count});
}

/* Entries from peer->next that are in memory and fit one append; returns how many, their bytes in ret_bytes. */
static uint32_t raft_append_gather(const struct raft *raft, const struct raft_peer *peer, struct raft_entry *entries,
                                   uint32_t *ret_bytes)
{
    uint32_t count = 0;
    uint64_t bytes = 0;
    while (count < RAFT_MESSAGE_ENTRIES && peer->next + count <= raft->log.last) {
        const struct raft_entry *entry = raft_log_find(&raft->log, peer->next + count);
        if (entry == NULL || (count > 0 && bytes + entry->data.bytes > RAFT_MESSAGE_BYTES)) {
            break;
        }
        bytes += entry->data.bytes;
        entries[count++] = *entry;
    }
    *ret_bytes = (uint32_t)bytes;
    return count;
}

static bool raft_window_is_open(const struct raft *raft, const struct raft_peer *peer)
{
    if (peer->inflight_count == 0) {
        return true;
    }
    uint64_t entries = peer->next - 1 - peer->match;
    return peer->inflight_count < RAFT_INFLIGHT && entries < raft->params.window_entries &&
           peer->inflight_bytes < raft->params.window_bytes;
}

static void raft_inflight_push(struct raft_peer *peer, uint64_t last, uint32_t bytes)
{
    CHECK(peer->inflight_count < RAFT_INFLIGHT);
    uint32_t slot = (peer->inflight_head + peer->inflight_count) % RAFT_INFLIGHT;
    peer->inflight[slot] = (struct raft_inflight){.last = last, .bytes = bytes};
    peer->inflight_count++;
    peer->inflight_bytes += bytes;
}

static void raft_inflight_ack(struct raft_peer *peer, uint64_t match)
{
    while (peer->inflight_count > 0 && peer->inflight[peer->inflight_head].last <= match) {
        peer->inflight_bytes -= peer->inflight[peer->inflight_head].bytes;
        peer->inflight_head = (peer->inflight_head + 1) % RAFT_INFLIGHT;
        peer->inflight_count--;
    }
}

/* One append while probing: with entries when they are in memory, else empty, which finds the place as well. */
static void raft_replicate_probe(struct raft *raft, struct raft_peer *peer)
{
    struct raft_entry entries[RAFT_MESSAGE_ENTRIES];
    uint32_t bytes = 0;
    uint32_t count = raft_append_gather(raft, peer, entries, &bytes);
    raft_append_send(raft, peer, entries, count);
    peer->paused = true;
}

static void raft_replicate_peer(struct raft *raft, struct raft_peer *peer)
{
    peer->wants_load = false;
    if (raft_snapshot_wanted(raft, peer) || peer->snapshotting) {
        return;
    }
    if (peer->probing) {
        if (!peer->paused) {
            raft_replicate_probe(raft, peer);
        }
        return;
    }
    struct raft_entry entries[RAFT_MESSAGE_ENTRIES];
    while (peer->next <= raft->log.last && raft_window_is_open(raft, peer)) {
        uint32_t bytes = 0;
        uint32_t count = raft_append_gather(raft, peer, entries, &bytes);
        if (count == 0) {
            peer->wants_load = true;
            return;
        }
        raft_append_send(raft, peer, entries, count);
        peer->next += count;
        raft_inflight_push(peer, peer->next - 1, bytes);
    }
}

void raft_replicate(struct raft *raft)
{
    for (uint32_t i = 0; i < raft->peer_count && raft->role == RAFT_LEADER; i++) {
        if (i != raft->self) {
            raft_replicate_peer(raft, &raft->peers[i]);
        }
    }
}

void raft_replicate_poke(struct raft *raft, struct raft_peer *peer)
{
    if (!peer->poke || peer->snapshotting) {
        return;
    }
    peer->poke = false;
    if (peer->probing) {
        peer->paused = false;
    } else if (peer->next - 1 > peer->match && peer->match == peer->ticked) {
        raft_append_send(raft, peer, NULL, 0);
    }
}

void raft_peer_closed(struct raft *raft, struct raft_peer *peer)
{
    if (raft->role != RAFT_LEADER) {
        return;
    }
    peer->silent_ticks = raft->params.election_ticks + 1;
    raft_peer_probe(peer, peer->probing ? peer->next : peer->match + 1);
    peer->paused = true; /* an answered heartbeat says that there is somebody again */
}

void raft_peer_forgot(struct raft *raft, struct raft_peer *peer)
{
    if (raft->role != RAFT_LEADER) {
        return;
    }
    peer->match = 0; /* else it would be promoted for what another log held */
    peer->snapshotting = peer->active = false;
    raft_peer_probe(peer, raft->log.last + 1);
    peer->paused = true;
}

void raft_on_append_reply(struct raft *raft, const struct raft_message *m, struct raft_peer *peer)
{
    CHECK(m->term == raft->term);
    if (raft->role != RAFT_LEADER || m->log_index > raft->log.last) {
        return;
    }
    peer->active = true;
    peer->silent_ticks = 0;
    if (m->reject) {
        bool late =
            peer->snapshotting || m->log_index <= peer->match || (peer->probing && m->log_index != peer->next - 1);
        if (late) {
            return;
        }
        uint64_t next = raft_log_skip(&raft->log, m->hint, m->hint_term) + 1;
        next = next < m->log_index ? next : m->log_index;
        raft_peer_probe(peer, next > peer->match ? next : peer->match + 1);
        return;
    }
    if (m->log_index > peer->match) {
        peer->match = m->log_index;
    }
    if (peer->snapshotting && peer->match >= raft->log.base) { /* it came there another way */
        peer->snapshotting = false;
        raft_peer_probe(peer, peer->match + 1);
    }
    if (peer->probing && m->log_index + 1 >= peer->next) {
        peer->probing = peer->paused = false;
        raft_inflight_clear(peer);
    }
    if (peer->next <= peer->match) {
        peer->next = peer->match + 1;
    }
    raft_inflight_ack(peer, peer->match);
    raft_commit_by_counting(raft);
}

/* ---- follower ---- */

/* Entries follow the previous one without a gap, their terms never fall and none is of a later term than its leader. */
static bool raft_append_is_sound(const struct raft_message *m)
{
    uint64_t term = m->log_term;
    bool sound = m->log_index < UINT64_MAX / 2 && (m->log_index > 0 || m->log_term == 0);
    for (uint32_t i = 0; i < m->count && sound; i++) {
        const struct raft_entry *entry = &m->entries[i];
        struct raft_config config;
        sound =
            entry->index == m->log_index + 1 + i && entry->term > 0 && entry->term >= term && entry->term <= m->term;
        sound = sound && (entry->type != RAFT_ENTRY_CONFIG || raft_config_decode(entry->data, &config) == ERR_OK);
        term = entry->term;
    }
    return sound;
}

static void raft_append_reject(struct raft *raft, const struct raft_message *m)
{
    uint64_t hint = raft_log_skip(&raft->log, m->log_index, m->log_term);
    raft_send(raft, (struct raft_message){.kind = RAFT_APPEND_REPLY,
                                          .to = m->from,
                                          .reject = true,
                                          .log_index = m->log_index,
                                          .hint = hint,
                                          .hint_term = hint >= raft->log.base ? raft_log_term(&raft->log, hint) : 0});
}

/* At once when it is durable already, else when it will be. */
static void raft_append_accept(struct raft *raft, uint32_t to, uint64_t match)
{
    match = raft_match_sound(raft, match);
    struct raft_message reply = {.kind = RAFT_APPEND_REPLY, .to = to, .log_index = match};
    uint64_t number = raft->hard_number > raft->install_number ? raft->hard_number : raft->install_number;
    bool told = !raft->hard_changed && number <= raft->persisted_number;
    if (told && match <= raft->log.persisted) {
        raft_send(raft, reply);
    } else {
        raft_send_durable(raft, reply);
    }
}

/* Adds what is new, behind a cut where an entry differs in term (3.5). Configurations go with their entries. */
static void raft_append_entries(struct raft *raft, const struct raft_message *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const struct raft_entry *entry = &m->entries[i];
        if (entry->index <= raft->log.last) {
            if (raft_log_term(&raft->log, entry->index) == entry->term) {
                continue;
            }
            CHECK(entry->index > raft->commit); /* a committed entry is never cut */
            raft_log_cut(&raft->log, entry->index);
            raft_persist_cut(raft, entry->index);
            raft_config_cut(raft, entry->index);
        }
        raft_log_append(&raft->log, entry);
        struct raft_config config;
        if (entry->type == RAFT_ENTRY_CONFIG && raft_config_decode(entry->data, &config) == ERR_OK) {
            raft_config_push(raft, entry->index, &config);
        }
    }
}

void raft_on_append(struct raft *raft, const struct raft_message *m)
{
    CHECK(m->term == raft->term);
    if (raft->role == RAFT_LEADER || !raft_append_is_sound(m)) {
        return;
    }
    raft_become_follower(raft, m->term, m->from);
    if (m->log_index < raft->commit) {
        raft_append_accept(raft, m->from, raft->commit);
        return;
    }
    if (m->log_index > raft->log.last || raft_log_term(&raft->log, m->log_index) != m->log_term) {
        raft_append_reject(raft, m);
        return;
    }
    raft_append_entries(raft, m);
    uint64_t match = m->log_index + m->count;
    raft_commit_learn(raft, m->commit < match ? m->commit : match);
    raft_append_accept(raft, m->from, match);
}
