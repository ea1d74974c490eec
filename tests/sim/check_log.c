/* The log checker (check_log.h). */
#include "check_log.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "check_raft.h"
#include "metad/host/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { NODES = 10, GROUPS = 2 };
enum { CAUGHT_UP = 256 }; /* entries that a learner may lack when it becomes a voter */

struct held { /* one entry */
    uint64_t term, name;
    bool hole; /* its bytes are damaged, said the log */
};
struct held_log { /* entries 1 .. count */
    struct held *entries;
    unsigned long count, capacity;
};
struct append { /* asked, not acknowledged */
    uint64_t number;
    bool hard_changed;
    struct raft_hard_state hard;
    uint64_t first;
    struct held *entries;
    uint32_t count;
    uint64_t reset_index, reset_term; /* of a LOG_RESET; 0: an append */
    uint64_t trim_from;               /* of a LOG_TRIM, durable with what comes after; 0: none */
};
struct shadow {
    struct held_log log; /* acknowledged */
    struct raft_hard_state hard;
    struct append *appends;
    unsigned long append_count, append_capacity;
    uint64_t cuts;      /* acknowledged appends that replaced entries */
    uint64_t read_cuts; /* the same when the read under way was asked */
    uint64_t rots;      /* entries that a read found damaged */
    uint64_t read_rots; /* the same when the read under way was asked */
    uint64_t holes;     /* entries of `log` that are */
    struct held heals;  /* the LOG_HEAL that is out */
    uint64_t heals_index;
};

struct log_check {
    struct world *world;
    struct shadow shadows[NODES][GROUPS];
    struct held_log agreed[GROUPS];   /* what a node has applied */
    uint64_t compared[NODES][GROUPS]; /* up to here */
    uint64_t reopened;
};

struct log_check *log_check_create(struct world *world)
{
    struct log_check *check = mem_alloc(sizeof *check);
    check->world = world;
    return check;
}

static void appends_drop(struct shadow *shadow, unsigned long count)
{
    for (unsigned long i = 0; i < count; i++) {
        free(shadow->appends[i].entries);
    }
    memmove(shadow->appends, shadow->appends + count, (shadow->append_count - count) * sizeof *shadow->appends);
    shadow->append_count -= count;
}

static void shadow_deinit(struct shadow *shadow)
{
    if (shadow->append_count > 0) {
        appends_drop(shadow, shadow->append_count);
    }
    free(shadow->appends);
    free(shadow->log.entries);
    *shadow = (struct shadow){0};
}

void log_check_destroy(struct log_check *check)
{
    for (unsigned n = 0; n < NODES; n++) {
        for (unsigned g = 0; g < GROUPS; g++) {
            shadow_deinit(&check->shadows[n][g]);
        }
    }
    for (unsigned g = 0; g < GROUPS; g++) {
        free(check->agreed[g].entries);
    }
    free(check);
}

/* ---- directories that are put back ---- */

struct log_copy {
    struct shadow shadows[GROUPS];
};

static void *copy_of(const void *from, size_t bytes)
{
    void *copy = mem_alloc(bytes);
    if (bytes > 0) {
        memcpy(copy, from, bytes);
    }
    return copy;
}

static struct shadow shadow_copy(const struct shadow *from)
{
    struct shadow copy = *from;
    copy.log.entries = copy_of(from->log.entries, from->log.count * sizeof *from->log.entries);
    copy.log.capacity = from->log.count;
    copy.appends = copy_of(from->appends, from->append_count * sizeof *from->appends);
    copy.append_capacity = from->append_count;
    for (unsigned long i = 0; i < from->append_count; i++) {
        const struct append *append = &from->appends[i];
        copy.appends[i].entries = copy_of(append->entries, append->count * sizeof *append->entries);
    }
    return copy;
}

struct log_copy *log_check_copy(const struct log_check *check, uint32_t node)
{
    CHECK(node < NODES);
    struct log_copy *copy = mem_alloc(sizeof *copy);
    for (unsigned g = 0; g < GROUPS; g++) {
        copy->shadows[g] = shadow_copy(&check->shadows[node][g]);
    }
    return copy;
}

void log_check_put_back(struct log_check *check, uint32_t node, const struct log_copy *copy)
{
    CHECK(node < NODES);
    for (unsigned g = 0; g < GROUPS; g++) {
        shadow_deinit(&check->shadows[node][g]);
        check->compared[node][g] = 0;
        if (copy != NULL) {
            check->shadows[node][g] = shadow_copy(&copy->shadows[g]);
        }
    }
}

void log_copy_free(struct log_copy *copy)
{
    for (unsigned g = 0; copy != NULL && g < GROUPS; g++) {
        shadow_deinit(&copy->shadows[g]);
    }
    free(copy);
}

/* The log goes on behind a snapshot: nothing is known of what lies before its last entry. */
static void held_reset(struct held_log *log, uint64_t index, uint64_t term)
{
    log->entries = mem_grow(log->entries, &log->capacity, index, sizeof *log->entries);
    memset(log->entries, 0, index * sizeof *log->entries);
    log->entries[index - 1].term = term;
    log->count = index;
}

/* The first `count` entries of an append, onto a log: they cut what is there from the first on. */
static void held_apply(struct held_log *log, const struct append *append, uint32_t count)
{
    if (append->reset_index != 0) {
        held_reset(log, append->reset_index, append->reset_term);
        return;
    }
    if (append->trim_from != 0) {
        log->count = append->trim_from - 1 < log->count ? append->trim_from - 1 : log->count;
        return;
    }
    if (count == 0) {
        return;
    }
    CHECK(append->first >= 1 && append->first <= log->count + 1);
    log->count = append->first - 1;
    log->entries = mem_grow(log->entries, &log->capacity, log->count + count, sizeof *log->entries);
    memcpy(log->entries + log->count, append->entries, count * sizeof *append->entries);
    log->count += count;
}

static void append_push(struct shadow *shadow, struct append append)
{
    shadow->appends =
        mem_grow(shadow->appends, &shadow->append_capacity, shadow->append_count + 1, sizeof *shadow->appends);
    shadow->appends[shadow->append_count++] = append;
}

static void note_append(struct log_check *check, struct node *node, const struct effect *effect)
{
    struct reader r = reader_of(effect->send.header.data, effect->send.header.bytes);
    uint32_t g = reader_u32(&r);
    struct append append = {.number = reader_u64(&r), .hard_changed = reader_u8(&r) != 0};
    append.hard.term = reader_u64(&r);
    append.hard.vote = reader_u32(&r);
    struct raft_entry *entries = NULL;
    CHECK(!r.failed && g < GROUPS);
    if (effect->send.body.bytes > 0 && raft_entries_decode(effect->send.body, &entries, &append.count) != ERR_OK) {
        world_finding(check->world, "node %u group %u appends entries that do not decode", node->id, g);
        return;
    }
    if (append.count > 0) {
        append.first = entries[0].index;
        append.entries = mem_alloc(append.count * sizeof *append.entries);
    }
    for (uint32_t i = 0; i < append.count; i++) {
        append.entries[i] = (struct held){entries[i].term, raft_entry_name(&entries[i]), false};
        slice_drop(&entries[i].data);
    }
    free(entries);
    append_push(&check->shadows[node->id][g], append);
}

static void note_reset(struct log_check *check, struct node *node, const struct effect *effect)
{
    struct reader r = reader_of(effect->send.header.data, effect->send.header.bytes);
    uint32_t g = reader_u32(&r);
    struct append append = {.number = reader_u64(&r)};
    append.reset_index = reader_u64(&r);
    append.reset_term = reader_u64(&r);
    CHECK(!r.failed && g < GROUPS && append.reset_index > 0);
    append_push(&check->shadows[node->id][g], append);
}

/* ---- holes ---- */

static void note_trim(struct log_check *check, struct node *node, const struct effect *effect)
{
    struct reader r = reader_of(effect->send.header.data, effect->send.header.bytes);
    uint32_t g = reader_u32(&r);
    struct append append = {.trim_from = reader_u64(&r)};
    CHECK(!r.failed && g < GROUPS && append.trim_from > 0);
    append_push(&check->shadows[node->id][g], append);
}

static void holes_count(struct shadow *shadow)
{
    shadow->holes = 0;
    for (uint64_t i = 0; i < shadow->log.count; i++) {
        shadow->holes += shadow->log.entries[i].hole;
    }
}

/* Those up to `index` are held by a snapshot, or by what the machine has durably. */
static void holes_forget(struct shadow *shadow, uint64_t index)
{
    for (uint64_t i = 0; i < shadow->log.count && i < index && shadow->holes > 0; i++) {
        shadow->holes -= shadow->log.entries[i].hole;
        shadow->log.entries[i].hole = false;
    }
}

static void note_heal(struct log_check *check, struct node *node, uint32_t g, const struct effect *effect)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (raft_entries_decode(effect->send.body, &entries, &count) != ERR_OK || count != 1) {
        world_finding(check->world, "node %u group %u heals with entries that do not decode", node->id, g);
        return;
    }
    shadow->heals_index = entries[0].index;
    shadow->heals = (struct held){entries[0].term, raft_entry_name(&entries[0]), false};
    slice_drop(&entries[0].data);
    free(entries);
}

static void note_healed(struct log_check *check, struct node *node, uint32_t g)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    uint64_t index = shadow->heals_index;
    struct held *held = index >= 1 && index <= shadow->log.count ? &shadow->log.entries[index - 1] : NULL;
    if (held == NULL || !held->hole || held->term != shadow->heals.term) {
        return; /* cut meanwhile */
    }
    WORLD_REQUIRE(check->world, held->name == shadow->heals.name || held->name == 0,
                  "node %u: entry %lu of group %u is healed with something else", node->id, (unsigned long)index, g);
    held->hole = false;
    shadow->holes--;
}

static void note_holes(struct log_check *check, struct node *node, struct shadow *shadow, struct reader *r)
{
    for (uint32_t configs = reader_u32(r); configs > 0 && !r->failed; configs--) {
        (void)reader_u64(r);
        (void)reader_take(r, reader_u32(r));
    }
    (void)reader_u8(r);
    for (uint64_t i = 0; i < shadow->log.count; i++) {
        shadow->log.entries[i].hole = false;
    }
    for (uint32_t holes = reader_u32(r); holes > 0 && !r->failed; holes--) {
        uint64_t index = reader_u64(r), term = reader_u64(r);
        (void)reader_u8(r);
        bool named = index >= 1 && index <= shadow->log.count;
        WORLD_REQUIRE(check->world, named && shadow->log.entries[index - 1].term == term,
                      "node %u: the log names a hole at entry %lu that it does not have", node->id,
                      (unsigned long)index);
        if (named) {
            shadow->log.entries[index - 1].hole = true;
        }
    }
    WORLD_REQUIRE(check->world, !r->failed, "node %u: the log's holes are malformed", node->id);
    holes_count(shadow);
}

/* ---- answers ---- */

static void note_appended(struct log_check *check, struct node *node, uint32_t g, const struct effect *effect)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    if (effect->send.flags & MESSAGE_ERROR) {
        return;
    }
    uint64_t number = effect->send.header.bytes >= 8 ? get_u64(effect->send.header.data) : 0;
    while (shadow->append_count > 0 && shadow->appends[0].trim_from != 0) {
        held_apply(&shadow->log, &shadow->appends[0], 0);
        appends_drop(shadow, 1);
    }
    if (shadow->append_count == 0 || shadow->appends[0].number != number) {
        world_finding(check->world, "node %u: the log acknowledges append %lu of group %u out of order", node->id,
                      (unsigned long)number, g);
        return;
    }
    struct append *append = &shadow->appends[0];
    if (append->hard_changed) {
        shadow->hard = append->hard;
    }
    shadow->cuts += append->reset_index > 0 || (append->count > 0 && append->first <= shadow->log.count);
    held_apply(&shadow->log, append, append->count);
    appends_drop(shadow, 1);
    if (shadow->holes > 0) {
        holes_count(shadow);
    }
}

/* Does the log equal what was opened: `last` entries with these terms, 0 being one that is not known any more? */
static bool held_is(const struct held_log *log, const uint64_t *terms, uint64_t last)
{
    if (log->count != last) {
        return false;
    }
    for (uint64_t i = 0; i < last; i++) {
        if (log->entries[i].term != terms[i] && terms[i] != 0 && log->entries[i].term != 0) {
            return false;
        }
    }
    return true;
}

/* Finds the first part of the unacknowledged appends that explains the opened log, and takes it for the truth. */
static bool explain(struct shadow *shadow, const uint64_t *terms, uint64_t last)
{
    if (held_is(&shadow->log, terms, last)) {
        return true;
    }
    for (unsigned long i = 0; i < shadow->append_count; i++) {
        const struct append *append = &shadow->appends[i];
        bool whole = append->reset_index != 0 || append->trim_from != 0;
        for (uint32_t count = 1; count <= append->count || (count == 1 && whole); count++) {
            struct held_log *log = &shadow->log;
            held_apply(log, append, count);
            if (held_is(log, terms, last)) {
                return true;
            }
        }
    }
    return false;
}

static bool hard_explained(const struct shadow *shadow, struct raft_hard_state hard)
{
    bool known = shadow->hard.term == hard.term && shadow->hard.vote == hard.vote;
    for (unsigned long i = 0; i < shadow->append_count; i++) {
        const struct append *append = &shadow->appends[i];
        known = known || (append->hard_changed && append->hard.term == hard.term && append->hard.vote == hard.vote);
    }
    return known;
}

static uint64_t *terms_read(struct reader *r, uint64_t last, uint32_t run_count)
{
    uint64_t *terms = mem_alloc((last + 1) * sizeof *terms), next = 1, term = 0;
    for (uint32_t i = 0; i <= run_count; i++) {
        uint64_t first = i < run_count ? reader_u64(r) : last + 1;
        uint64_t run_term = i < run_count ? reader_u64(r) : 0;
        for (; next < first && next <= last; next++) {
            terms[next - 1] = term;
        }
        term = run_term;
    }
    return terms;
}

/* Reads ahead to the byte that says so. */
static bool log_is_unsure(struct reader r)
{
    for (uint32_t configs = reader_u32(&r); configs > 0 && !r.failed; configs--) {
        (void)reader_u64(&r);
        (void)reader_take(&r, reader_u32(&r));
    }
    return reader_u8(&r) != 0;
}

static void note_opened(struct log_check *check, struct node *node, uint32_t g, const struct effect *effect)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    struct reader r = reader_of(effect->send.header.data, effect->send.header.bytes);
    struct raft_hard_state hard = {.term = reader_u64(&r)};
    hard.vote = reader_u32(&r);
    uint64_t last = reader_u64(&r);
    uint64_t base = reader_u64(&r), base_term = reader_u64(&r);
    uint32_t run_count = reader_u32(&r);
    if (r.failed || run_count > r.left / 16 || last > 1u << 24) {
        world_finding(check->world, "node %u: the log's answer to LOG_OPEN is malformed", node->id);
        return;
    }
    uint64_t *terms = terms_read(&r, last, run_count);
    if (base > 0 && base <= last) {
        terms[base - 1] = base_term;
    }
    uint64_t durable = shadow->log.count;
    if (log_is_unsure(r)) { /* it takes no part, whatever it says */
        free(terms);
        return;
    }
    WORLD_REQUIRE(check->world, hard_explained(shadow, hard),
                  "node %u: the log opens group %u with term %lu vote %u; durable was term %lu vote %u", node->id, g,
                  (unsigned long)hard.term, hard.vote, (unsigned long)shadow->hard.term, shadow->hard.vote);
    WORLD_REQUIRE(
        check->world, explain(shadow, terms, last),
        "node %u: the log opens group %u with %lu entries (last term %lu), which no part of what it was given "
        "explains; %lu were durable",
        node->id, g, (unsigned long)last, (unsigned long)(last ? terms[last - 1] : 0), (unsigned long)durable);
    free(terms);
    shadow->hard = hard;
    if (shadow->append_count > 0) {
        appends_drop(shadow, shadow->append_count);
    }
    note_holes(check, node, shadow, &r);
    check->reopened++;
}

static void note_read(struct log_check *check, struct node *node, uint32_t g, const struct effect *effect)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (effect->send.flags & MESSAGE_ERROR) {
        return;
    }
    /* nothing was given up, or found damaged, since it was asked */
    bool none = shadow->cuts == shadow->read_cuts && shadow->rots == shadow->read_rots;
    if (raft_entries_decode(effect->send.body, &entries, &count) != ERR_OK || (count == 0 && none)) {
        world_finding(check->world, "node %u: the log's answer to LOG_READ does not decode", node->id);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t index = entries[i].index;
        bool same = index >= 1 && index <= shadow->log.count &&
                    shadow->log.entries[index - 1].term == entries[i].term &&
                    shadow->log.entries[index - 1].name == raft_entry_name(&entries[i]);
        same = same || shadow->cuts != shadow->read_cuts; /* read, then replaced: the reader sees the term */
        /* Unacknowledged appends may have replaced it meanwhile: then it is one of theirs. */
        for (unsigned long a = 0; !same && a < shadow->append_count; a++) {
            const struct append *append = &shadow->appends[a];
            same = append->count > 0 && index >= append->first && index < append->first + append->count &&
                   append->entries[index - append->first].name == raft_entry_name(&entries[i]);
        }
        WORLD_REQUIRE(check->world, same, "node %u: the log reads back entry %lu of group %u as something else",
                      node->id, (unsigned long)index, g);
        slice_drop(&entries[i].data);
    }
    free(entries);
}

/* What a message to another node promises is durable. */
static void note_promise(struct log_check *check, const struct node *node, const struct effect *effect,
                         const Cairn__RaftMessage *m)
{
    uint32_t g = effect->send.target, to = effect->send.to.node;
    if (g >= GROUPS || m == NULL) {
        return;
    }
    const struct shadow *shadow = &check->shadows[node->id][g];
    uint32_t candidate = m->kind == RAFT_VOTE ? node->id : to;
    bool vote = m->kind == RAFT_VOTE || (m->kind == RAFT_VOTE_REPLY && !m->reject);
    bool append = m->kind == RAFT_APPEND_REPLY && !m->reject;
    WORLD_REQUIRE(check->world, !vote || (shadow->hard.term == m->term && shadow->hard.vote == candidate),
                  "promises: node %u group %u votes for %u in term %lu; durable is term %lu vote %u", node->id, g,
                  candidate, (unsigned long)m->term, (unsigned long)shadow->hard.term, shadow->hard.vote);
    WORLD_REQUIRE(check->world, !append || (shadow->hard.term >= m->term && shadow->log.count >= m->log_index),
                  "promises: node %u group %u acknowledges entry %lu in term %lu; durable are %lu in term %lu",
                  node->id, g, (unsigned long)m->log_index, (unsigned long)m->term, shadow->log.count,
                  (unsigned long)shadow->hard.term);
    for (uint64_t i = 0; append && shadow->holes > 0 && i < m->log_index && i < shadow->log.count; i++) {
        WORLD_REQUIRE(check->world, !shadow->log.entries[i].hole,
                      "promises: node %u group %u acknowledges entry %lu, and cannot read entry %lu", node->id, g,
                      (unsigned long)m->log_index, (unsigned long)i + 1);
    }
    bool leads = m->kind == RAFT_VOTE || m->kind == RAFT_APPEND || m->kind == RAFT_HEARTBEAT;
    WORLD_REQUIRE(check->world, !leads || shadow->holes == 0,
                  "promises: node %u group %u asks for votes or leads, and %lu entries of its log cannot be read",
                  node->id, g, (unsigned long)shadow->holes);
    WORLD_REQUIRE(check->world, (!leads && m->kind != RAFT_PRE_VOTE) || !m->lost,
                  "promises: node %u group %u asks for votes or leads, and says that its state is lost", node->id, g);
}

/* A snapshot is installed: what it holds needs no entry. */
static void note_installed(struct log_check *check, struct node *node, const struct actor *actor,
                           const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__SnapshotReply *reply = NULL;
    bool told =
        proto_unpack(&cairn__snapshot_reply__descriptor, effect->send.header, &arena, (void **)&reply) == ERR_OK;
    if (told && reply->installed && actor->index < GROUPS) {
        holes_forget(&check->shadows[node->id][actor->index], UINT64_MAX);
    }
    proto_arena_deinit(&arena);
}

/* A group asks others for an entry: from then on it knows that its bytes are damaged. */
static void note_fetch(struct log_check *check, const struct node *node, uint32_t g, const struct effect *effect)
{
    struct shadow *shadow = &check->shadows[node->id][g];
    struct proto_arena arena = {0};
    Cairn__EntryFetch *fetch = NULL;
    bool told = proto_unpack(&cairn__entry_fetch__descriptor, effect->send.header, &arena, (void **)&fetch) == ERR_OK;
    if (told && !fetch->lost && fetch->index >= 1 && fetch->index <= shadow->log.count) {
        struct held *held = &shadow->log.entries[fetch->index - 1];
        shadow->holes += held->term == fetch->index_term && !held->hole;
        held->hole = held->hole || held->term == fetch->index_term;
    }
    proto_arena_deinit(&arena);
}

void log_check_send(struct log_check *check, struct node *node, const struct actor *actor, const struct effect *effect,
                    const Cairn__RaftMessage *m)
{
    if (effect->send.type == MESSAGE_RAFT && node->id < NODES) {
        note_promise(check, node, effect, m);
        return;
    }
    if (effect->send.type == MESSAGE_ENTRY_FETCH && effect->send.flags == 0 && actor->kind == ACTOR_GROUP &&
        actor->index < GROUPS && node->id < NODES) {
        note_fetch(check, node, actor->index, effect);
        return;
    }
    bool answer = actor->kind == ACTOR_GROUP && effect->send.flags == MESSAGE_REPLY;
    if (answer && effect->send.type == MESSAGE_SNAPSHOT && node->id < NODES) {
        note_installed(check, node, actor, effect);
    }
    if (effect->send.to.conn != 0 || effect->send.to.role != ROLE_LOCAL || node->id >= NODES) {
        return;
    }
    uint32_t g = effect->send.to.index;
    if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_APPEND) {
        note_append(check, node, effect);
    } else if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_READ && actor->index < GROUPS) {
        struct shadow *shadow = &check->shadows[node->id][actor->index];
        shadow->read_cuts = shadow->cuts;
        shadow->read_rots = shadow->rots;
    } else if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_RESET) {
        note_reset(check, node, effect);
    } else if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_CUT && actor->index < GROUPS) {
        check->shadows[node->id][actor->index].cuts++;
        CHECK(effect->send.header.bytes == 20);
        holes_forget(&check->shadows[node->id][actor->index], get_u64(effect->send.header.data + 4));
    } else if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_TRIM) {
        note_trim(check, node, effect);
    } else if (actor->kind == ACTOR_GROUP && effect->send.type == MESSAGE_LOG_HEAL && actor->index < GROUPS) {
        note_heal(check, node, actor->index, effect);
    } else if (actor->kind != ACTOR_LOG || g >= GROUPS) {
        return;
    } else if (effect->send.type == MESSAGE_LOG_APPEND || effect->send.type == MESSAGE_LOG_RESET) {
        note_appended(check, node, g, effect);
    } else if (effect->send.type == MESSAGE_LOG_OPEN) {
        note_opened(check, node, g, effect);
    } else if (effect->send.type == MESSAGE_LOG_ROTTEN) {
        check->shadows[node->id][g].rots++;
    } else if (effect->send.type == MESSAGE_LOG_READ) {
        note_read(check, node, g, effect);
    } else if (effect->send.type == MESSAGE_LOG_HEAL && !(effect->send.flags & MESSAGE_ERROR)) {
        note_healed(check, node, g);
    }
}

bool log_check_holds(const struct log_check *check, uint32_t node, uint32_t g, uint64_t index)
{
    CHECK(node < NODES && g < GROUPS);
    return check->shadows[node][g].log.count >= index;
}

void metad_check_send(struct raft_check *raft, struct log_check *log, struct node *node, const struct actor *actor,
                      const struct effect *effect)
{
    struct proto_arena arena = {0};
    Cairn__RaftMessage *m = NULL;
    if (effect->send.type == MESSAGE_RAFT &&
        proto_unpack(&cairn__raft_message__descriptor, effect->send.header, &arena, (void **)&m) != ERR_OK) {
        m = NULL;
    }
    raft_check_send(raft, node, effect, m);
    log_check_send(log, node, actor, effect, m);
    proto_arena_deinit(&arena);
}

/* Durable on a majority of those who have this role? True where nobody has it. */
static bool majority_has(const struct log_check *check, uint32_t g, const struct raft_config *config, uint8_t role,
                         uint64_t commit)
{
    uint32_t voters = 0, durable = 0;
    for (uint32_t i = 0; i < config->count; i++) {
        if ((config->members[i].roles & role) != 0) {
            CHECK(config->members[i].node < NODES);
            voters++;
            durable += check->shadows[config->members[i].node][g].log.count >= commit;
        }
    }
    return voters == 0 || 2 * durable > voters;
}

static bool quorum_has(const struct log_check *check, uint32_t g, const struct raft_config *config, uint64_t commit)
{
    return majority_has(check, g, config, RAFT_VOTER, commit) && majority_has(check, g, config, RAFT_OUTGOING, commit);
}

void log_check_commit(struct log_check *check, uint32_t g, const struct raft_config *before,
                      const struct raft_config *after, uint64_t commit)
{
    WORLD_REQUIRE(
        check->world, g >= GROUPS || quorum_has(check, g, before, commit) || quorum_has(check, g, after, commit),
        "commit: group %u has committed entry %lu, which is not durable on a majority", g, (unsigned long)commit);
}

void log_check_agree(struct log_check *check, uint32_t node, uint32_t g, uint64_t base, uint64_t applied)
{
    CHECK(node < NODES && g < GROUPS);
    const struct shadow *shadow = &check->shadows[node][g];
    const struct held_log *log = &shadow->log;
    for (unsigned long i = 0; i < shadow->append_count; i++) { /* what these replace a snapshot may stand for */
        const struct append *append = &shadow->appends[i];
        applied = append->count > 0 && append->first <= applied ? append->first - 1 : applied;
    }
    struct held_log *agreed = &check->agreed[g];
    uint64_t *at = &check->compared[node][g];
    *at = *at < base ? base : *at; /* a snapshot: what its log held there may be anything */
    for (; *at < applied && *at < log->count; ++*at) {
        const struct held *own = &log->entries[*at];
        agreed->entries = mem_grow(agreed->entries, &agreed->capacity, *at + 1, sizeof *agreed->entries);
        agreed->count = *at + 1 > agreed->count ? *at + 1 : agreed->count;
        struct held *first = &agreed->entries[*at];
        if (own->name == 0 || own->hole) { /* behind a snapshot, or damaged */
            continue;
        }
        WORLD_REQUIRE(check->world, first->term == 0 || (first->term == own->term && first->name == own->name),
                      "agreement: node %u applies entry %lu of group %u with term %lu, and another did with term %lu",
                      node, (unsigned long)*at + 1, g, (unsigned long)own->term, (unsigned long)first->term);
        *first = *own;
    }
}

/* The term of an entry, as any log has it; 0: none knows. */
static uint64_t term_of(const struct log_check *check, uint32_t g, uint64_t index)
{
    uint64_t term = 0;
    for (uint32_t node = 0; node < NODES && index > 0; node++) {
        const struct held_log *log = &check->shadows[node][g].log;
        term = log->count >= index && log->entries[index - 1].term > term ? log->entries[index - 1].term : term;
    }
    return term;
}

void log_check_config(struct log_check *check, uint32_t g, const struct raft_config *before,
                      const struct raft_status *leader)
{
    const struct raft_config *after = &leader->config.config;
    uint64_t term = term_of(check, g, leader->commit);
    WORLD_REQUIRE(check->world, term == 0 || term == leader->term,
                  "members: group %u has a change in term %lu, and what is committed is of term %lu", g,
                  (unsigned long)leader->term, (unsigned long)term);
    for (uint32_t i = 0; i < after->count; i++) {
        uint32_t node = after->members[i].node;
        bool comes = (after->members[i].roles & RAFT_VOTER) != 0 && (raft_config_roles(before, node) & RAFT_VOTER) == 0;
        CHECK(node < NODES);
        uint64_t last = check->shadows[node][g].log.count;
        WORLD_REQUIRE(check->world, !comes || last + CAUGHT_UP >= leader->commit,
                      "members: group %u makes node %u a voter, whose log ends with entry %lu, and %lu is committed", g,
                      node, (unsigned long)last, (unsigned long)leader->commit);
    }
}

uint64_t log_check_reopened(const struct log_check *check)
{
    return check->reopened;
}
