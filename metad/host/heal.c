/* A group whose log has holes: entries that are named and whose bytes are damaged (R-E1, R-E2). Stands between the
 * node's log, which found them at the start, Raft, which leads and acknowledges nothing past the first, and the other
 * members, which have the bytes.
 *
 * Happy path: all members are asked for the first hole by its name (ENTRY_FETCH) -> one has it -> LOG_HEAL writes it
 * anew -> Raft hears HEALED -> the next hole. What a member answers is its log's word (LOG_FETCH).
 *
 * A hole that everybody has behind a snapshot is passed by one, of any member: where nobody may lead there is no
 * leader. A hole that was never on a majority, by the word of all voters, is cut. Holes at or below the applied index
 * are given up at the start, with all before them: what they did is in the database, and who lags that far needs a
 * snapshot.
 *
 * The same way comes back a state that was lost (R-E5): the database was set aside, or is an older one, and the log
 * begins behind what it holds. All members are asked who has applied that far (and hear that so much is committed), one
 * sends a snapshot that mends. Meanwhile the node votes and acknowledges by its log, which is whole, and neither leads
 * nor serves.
 *
 * Failure: who does not answer, or cannot tell yet, is asked again. A hole that nobody fills stays, and is shown. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/members.h"

#define ASK_AGAIN_NS 500000000ull

/* ---- the start ---- */

/* The log begins behind `index`, an entry that it names. */
static void start_cut(struct raft_start *start, struct raft_term_run *runs, uint64_t index)
{
    uint32_t gone = 0;
    while (gone + 1 < start->run_count && runs[gone + 1].first <= index) {
        gone++;
    }
    start->base_term = runs[gone].term;
    start->base_index = index;
    uint64_t end = gone + 1 < start->run_count ? runs[gone + 1].first - 1 : start->last;
    if (end == index) {
        gone++;
    } else {
        runs[gone].first = index + 1;
    }
    memmove(runs, runs + gone, (start->run_count - gone) * sizeof *runs);
    start->run_count -= gone;
}

bool heal_open(struct group *group, struct reader *reader)
{
    struct heal *heal = &group->heal;
    return holes_read(&heal->holes, reader, group->at.applied, &heal->rot_behind, &heal->rot_last);
}

void heal_start(struct group *group, struct raft_start *start, struct raft_term_run *runs)
{
    struct heal *heal = &group->heal;
    CHECK(heal->rot_last == 0 || (heal->rot_last > start->base_index && heal->rot_last <= start->last));
    if (heal->rot_last != 0) {
        start_cut(start, runs, heal->rot_last);
        group_log_cut(group, start->base_index, start->base_term);
    }
    start->hole = holes_index(&heal->holes);
}

void heal_start_lost(struct group *group, struct raft_start *start)
{
    CHECK(start->base_index > 0 && group->at.applied < start->base_index);
    group->at = (struct standing){0}; /* members too: those of the log's entries are known, and no others */
    group->heal.lost = start->lost = true;
}

static void heal_entry_drop(struct heal *heal)
{
    slice_drop(&heal->entry.data);
    heal->entry = (struct raft_entry){0};
    heal->writing = 0;
}

void heal_deinit(struct group *group)
{
    heal_entry_drop(&group->heal);
    holes_deinit(&group->heal.holes);
}

struct group_health group_health(const struct group *group)
{
    const struct heal *heal = &group->heal;
    uint32_t stale = 0;
    for (uint32_t i = 0; i < group->identity_count && stale == 0; i++) {
        stale = group->identities[i].stale ? group->identities[i].peer.node : 0;
    }
    bool reapplied = group->raft != NULL && group->at.applied >= group->reapply.last;
    struct raft_status status = group->raft != NULL ? raft_status(group->raft) : (struct raft_status){0};
    return (struct group_health){.term = status.term,
                                 .leader = status.leader,
                                 .reapplied = reapplied ? group->reapply.mutations : 0,
                                 .reapply_ns = reapplied ? group->reapply.end_ns - group->reapply.begin_ns : 0,
                                 .unsure = group->phase == GROUP_UNSURE,
                                 .holes = holes_left(&heal->holes),
                                 .hole = holes_index(&heal->holes),
                                 .mended = heal->mended,
                                 .lost = heal->lost,
                                 .restored = heal->restored,
                                 .told_stale = group->told_stale,
                                 .stale = stale,
                                 .rot_behind = heal->rot_behind};
}

/* ---- what is asked ---- */

static void heal_ask(struct group *group, const struct hole *hole, uint32_t node, bool snapshot)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    struct heal *heal = &group->heal;
    Cairn__EntryFetch fetch = CAIRN__ENTRY_FETCH__INIT;
    fetch.group = group->params.group;
    fetch.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)bootstrap->cluster.uuid.bytes};
    fetch.cluster_incarnation = bootstrap->cluster_incarnation;
    fetch.from = group->params.self;
    fetch.index = hole->index;
    fetch.index_term = hole->term;
    fetch.snapshot = snapshot;
    fetch.lost = heal->lost;
    uint64_t stream = ++group->snapshot_number;
    heal->asked[heal->asked_count].node = node;
    heal->asked[heal->asked_count++].stream = stream;
    fx_send(group->fx, address_node(ROLE_METAD, node, ACTOR_GROUP, group->params.group), MESSAGE_ENTRY_FETCH, stream,
            proto_pack(&fetch), (struct slice){0});
}

/* Who may have what is missing: the members; where they may not be known, those that the configuration names. At most
 * 2 * RAFT_MEMBERS_MAX. */
static uint32_t heal_members(const struct group *group, uint32_t *ret_nodes)
{
    struct raft_config config = raft_status(group->raft).config.config;
    const uint32_t *peers = group->heal.lost ? group->params.peers : NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < config.count; i++) {
        ret_nodes[count++] = config.members[i].node;
    }
    for (uint32_t i = 0; peers != NULL && peers[i] != 0 && count < 2 * RAFT_MEMBERS_MAX; i++) {
        if (raft_config_roles(&config, peers[i]) == 0) {
            ret_nodes[count++] = peers[i];
        }
    }
    return count;
}

/* What is to be had first: a state that was lost before any entry. False: nothing is missing. */
static bool heal_missing(const struct group *group, struct hole *ret_hole)
{
    const struct hole *hole = holes_first(&group->heal.holes);
    if (group->heal.lost) {
        struct raft_status status = raft_status(group->raft);
        *ret_hole = (struct hole){.index = status.base, .term = status.base_term};
    } else if (hole != NULL) {
        *ret_hole = *hole;
    }
    return group->heal.lost || hole != NULL;
}

/* Asks all members for what is missing; one of them for a snapshot, if it said that it has it there. */
static void heal_round(struct group *group)
{
    struct heal *heal = &group->heal;
    struct hole hole;
    heal->asked_count = 0;
    if (!heal_missing(group, &hole) || heal->writing != 0) {
        return;
    }
    uint64_t now = group->event->now_ns;
    heal->again_ns = now + ASK_AGAIN_NS;
    bool snapshot = heal->behind != 0 && group->in.from == 0 && now >= heal->snapshot_by_ns;
    if (snapshot) {
        heal->snapshot_from = heal->behind;
        heal->snapshot_by_ns = now + SNAPSHOT_MENDS_NS;
    }
    uint32_t nodes[2 * RAFT_MEMBERS_MAX];
    uint32_t count = heal_members(group, nodes);
    for (uint32_t i = 0; i < count; i++) {
        if (nodes[i] != group->params.self) {
            heal_ask(group, &hole, nodes[i], snapshot && nodes[i] == heal->snapshot_from);
        }
    }
    heal->behind = 0;
}

/* The first hole is another, or none is left. */
static void heal_next(struct group *group)
{
    struct heal *heal = &group->heal;
    heal->behind = 0;
    heal->snapshot_by_ns = 0;
    heal_round(group);
}

static void heal_tell(struct group *group, const struct raft_entry *entry)
{
    struct raft_event event = {.kind = RAFT_EVENT_HEALED,
                               .random = group->event->random,
                               .loaded = entry,
                               .loaded_count = entry != NULL,
                               .index = holes_index(&group->heal.holes)};
    group_raft(group, &event);
    if (group->phase == GROUP_RUNNING) {
        heal_next(group);
    }
}

void heal_rotten(struct group *group, struct slice header)
{
    struct reader reader = reader_of(header.data, header.bytes);
    uint32_t number = reader_u32(&reader);
    uint64_t index = reader_u64(&reader), term = reader_u64(&reader);
    CHECK(!reader.failed && reader.left == 0 && number == group->params.group);
    struct heal *heal = &group->heal;
    struct raft_status before = raft_status(group->raft);
    if (index > before.base && index <= before.applied && index > heal->rot_last) {
        heal->rot_behind++;
        heal->rot_last = index;
        group->flush_due = true; /* then the log goes up to there (group.c), as at the start */
    }
    struct raft_event event = {.kind = RAFT_EVENT_ROTTEN, .random = group->event->random, .index = index, .term = term};
    group_raft(group, &event);
    if (group->phase == GROUP_RUNNING && raft_status(group->raft).hole == index && before.hole != index) {
        holes_add(&heal->holes, index, term);
        heal_next(group);
    }
}

void heal_cut(struct group *group, uint64_t from)
{
    holes_cut(&group->heal.holes, from);
}

void heal_passed(struct group *group, uint64_t index)
{
    if (group->heal.lost) {
        group->heal.lost = false;
        group->heal.restored = index;
    }
    if (holes_passed(&group->heal.holes, index) && group->phase == GROUP_RUNNING) {
        heal_tell(group, NULL);
    }
}

/* A hole that was never committed: it goes, and all behind it. */
static void heal_trim(struct group *group)
{
    struct heal *heal = &group->heal;
    if (heal->writing != 0 || !holes_may_trim(&heal->holes, group->raft)) {
        return;
    }
    uint64_t index = holes_index(&heal->holes);
    holes_cut(&heal->holes, index);
    struct writer header = {0};
    writer_u32(&header, group->params.group);
    writer_u64(&header, index);
    group_log_send(group, MESSAGE_LOG_TRIM, 0, &header, (struct slice){0});
    struct raft_event event = {.kind = RAFT_EVENT_TRIMMED, .random = group->event->random, .index = index};
    group_raft(group, &event);
}

void heal_tick(struct group *group)
{
    struct hole missing;
    if (!heal_missing(group, &missing)) {
        return;
    }
    heal_trim(group); /* a group of one voter has nobody to hear */
    if (group->event->now_ns >= group->heal.again_ns) {
        heal_round(group);
    }
}

/* ---- what is answered ---- */

static void heal_write(struct group *group, struct slice body)
{
    struct heal *heal = &group->heal;
    const struct hole *hole = holes_first(&heal->holes);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (raft_entries_decode(body, &entries, &count) != ERR_OK) {
        group->refused[ERR_BAD_PROTO]++;
        return;
    }
    if (count == 1 && entries[0].index == hole->index && entries[0].term == hole->term) {
        heal->entry = entries[0];
        heal->entry.data = slice_ref(entries[0].data);
        heal->writing = ++heal->number;
        struct writer header = {0};
        writer_u32(&header, group->params.group);
        writer_u64(&header, heal->writing);
        struct slice packed = {0};
        raft_entries_encode(entries, 1, &packed);
        group_log_send(group, MESSAGE_LOG_HEAL, 0, &header, packed);
    } else {
        group->refused[ERR_IMPOSSIBLE]++;
    }
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

static void heal_hear(struct group *group, uint32_t node, uint32_t verdict, struct slice body)
{
    struct heal *heal = &group->heal;
    if (verdict == LOG_BEHIND) {
        heal->behind = node; /* the next round asks for it, if nobody has the entry */
    } else if (verdict == LOG_HAS && heal->writing == 0 && !heal->lost) {
        heal_write(group, body);
    } else if (!heal->lost) {
        holes_hear(&heal->holes, node, verdict);
        heal_trim(group);
    }
}

void heal_answered(struct group *group, const struct message *message)
{
    struct heal *heal = &group->heal;
    uint32_t node = 0;
    for (uint32_t i = 0; i < heal->asked_count && node == 0; i++) {
        if (heal->asked[i].stream == message->stream) {
            node = heal->asked[i].node;
            heal->asked[i] = heal->asked[--heal->asked_count];
        }
    }
    struct hole missing;
    if (node == 0 || !heal_missing(group, &missing) || (message->flags & MESSAGE_ERROR) != 0) {
        return; /* of a hole that is mended */
    }
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    enum err err = proto_unpack(&cairn__entry_fetch_reply__descriptor, message->header, &arena, &unpacked);
    if (err == ERR_OK) {
        const Cairn__EntryFetchReply *reply = unpacked;
        err = identity_hear(group, node, reply->log);
        if (err == ERR_OK) {
            heal_hear(group, node, reply->verdict, message->body);
        }
    }
    group->refused[err] += err != ERR_OK;
    proto_arena_deinit(&arena);
}

void heal_written(struct group *group, uint64_t number)
{
    struct heal *heal = &group->heal;
    if (number != heal->writing) {
        return;
    }
    struct raft_entry entry = heal->entry;
    heal->entry = (struct raft_entry){0};
    heal->writing = 0;
    const struct hole *hole = holes_first(&heal->holes);
    if (hole != NULL && hole->index == entry.index && hole->term == entry.term) { /* else it was cut meanwhile */
        bool passed = holes_passed(&heal->holes, entry.index);
        CHECK(passed);
        heal->mended++;
        heal_tell(group, &entry);
    } else {
        heal_next(group);
    }
    slice_drop(&entry.data);
}

/* ---- what others ask ---- */

static enum err fetch_check(struct group *group, const struct message *message, const Cairn__EntryFetch *fetch)
{
    const struct bootstrap *bootstrap = group->params.bootstrap;
    if (fetch->cluster.len != 16 || memcmp(fetch->cluster.data, bootstrap->cluster.uuid.bytes, 16) != 0 ||
        fetch->cluster_incarnation != bootstrap->cluster_incarnation) {
        return ERR_WRONG_CLUSTER;
    }
    if (fetch->group != group->params.group) {
        return ERR_WRONG_GROUP;
    }
    bool member = raft_names(group->raft, fetch->from) || (group->heal.lost && members_are_known(group, fetch->from));
    if (fetch->from != message->peer.id || fetch->from == group->params.self || !member) {
        return ERR_NOT_MEMBER;
    }
    return fetch->index > 0 && fetch->index_term > 0 ? ERR_OK : ERR_INVALID;
}

/* Takes the body. */
static void fetch_reply(struct group *group, const struct message *asker, uint32_t verdict, struct slice body)
{
    Cairn__EntryFetchReply reply = CAIRN__ENTRY_FETCH_REPLY__INIT;
    Cairn__LogIdentity log = CAIRN__LOG_IDENTITY__INIT;
    identity_put(group, &log, true);
    reply.log = &log;
    reply.verdict = verdict;
    fx_reply(group->fx, asker, proto_pack(&reply), body);
}

static enum err fetch_start(struct group *group, const struct message *message, const Cairn__EntryFetch *fetch)
{
    for (uint32_t i = 0; i < FETCHES_MAX; i++) {
        struct fetching *slot = &group->heal.fetches[i];
        if (slot->stream != 0) {
            continue;
        }
        *slot = (struct fetching){.asker = *message, .stream = ++group->snapshot_number, .snapshot = fetch->snapshot};
        slot->asker.header = slot->asker.body = (struct slice){0};
        struct writer header = {0};
        writer_u32(&header, group->params.group);
        writer_u64(&header, fetch->index);
        writer_u64(&header, fetch->index_term);
        group_log_send(group, MESSAGE_LOG_FETCH, slot->stream, &header, (struct slice){0});
        return ERR_OK;
    }
    return ERR_BUSY;
}

/* The asker's log begins behind an entry that it names: that is committed, and only a state at or behind it will do. */
static enum err fetch_lost(struct group *group, const struct message *message, const Cairn__EntryFetch *fetch)
{
    struct raft_event event = {
        .kind = RAFT_EVENT_COMMITTED, .random = group->event->random, .index = fetch->index, .term = fetch->index_term};
    group_raft(group, &event);
    if (group->phase != GROUP_RUNNING) {
        return ERR_NOT_READY;
    }
    bool has = !group->heal.lost && group->at.applied >= fetch->index;
    if (has && fetch->snapshot) {
        snapshot_wanted(group, message->peer.id, true);
    }
    fetch_reply(group, message, has ? LOG_BEHIND : LOG_UNTOLD, (struct slice){0});
    return ERR_OK;
}

void heal_asked(struct group *group, const struct message *message)
{
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    enum err err = proto_unpack(&cairn__entry_fetch__descriptor, message->header, &arena, &unpacked);
    if (err == ERR_OK) {
        err = fetch_check(group, message, unpacked);
    }
    if (err == ERR_OK) {
        const Cairn__EntryFetch *fetch = unpacked;
        err = fetch->lost ? fetch_lost(group, message, fetch) : fetch_start(group, message, fetch);
    }
    if (err != ERR_OK) {
        group->refused[err]++;
        group_refuse(group, message, err, NULL);
    }
    proto_arena_deinit(&arena);
}

static struct fetching *fetch_find(struct group *group, uint64_t stream)
{
    for (uint32_t i = 0; i < FETCHES_MAX && stream != 0; i++) {
        if (group->heal.fetches[i].stream == stream) {
            return &group->heal.fetches[i];
        }
    }
    return NULL;
}

void heal_fetched(struct group *group, const struct message *message)
{
    struct fetching *slot = fetch_find(group, message->stream);
    CHECK(slot != NULL && message->header.bytes >= 1 && group->phase == GROUP_RUNNING);
    uint32_t verdict = message->header.data[0];
    if (verdict == LOG_BEHIND && group->heal.lost) {
        verdict = LOG_UNTOLD; /* not here either */
    }
    if (verdict == LOG_BEHIND && slot->snapshot && group->at.applied > 0) {
        snapshot_wanted(group, slot->asker.peer.id, true);
    }
    fetch_reply(group, &slot->asker, verdict, slice_ref(message->body));
    slot->stream = 0;
}

void heal_bounced(struct group *group, const struct message *message)
{
    struct fetching *slot = fetch_find(group, message->stream);
    if (message->type == MESSAGE_LOG_FETCH && slot != NULL) {
        slot->stream = 0; /* the asker asks again */
    } else if (message->type == MESSAGE_LOG_HEAL) {
        heal_entry_drop(&group->heal);
    }
}
