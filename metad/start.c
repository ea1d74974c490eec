/* How a group starts: the log says what it holds (LOG_OPEN), the database where the state stands; an empty group of the
 * first members writes its boot entry (R-F9), a switch to a snapshot that a crash cut short is finished (R-E4), damaged
 * entries and a lost database go to host/heal.c, and Raft is made from the rest.
 *
 * Failure: a database ahead of its log, and anything that does not decode, is a HALT; a log that cannot tell what was
 * promised takes no part (R-E1). */
#include <stdlib.h>

#include "base/check.h"
#include "metad/group.h"
#include "metad/host/log.h"

#define ELECTION_TICKS  10u
#define HEARTBEAT_TICKS 2u
#define SLEEP_TICKS     20u
#define WINDOW_ENTRIES  256u
#define WINDOW_BYTES    (4u << 20)
#define CACHE_BYTES     (8ull << 20)

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
    group_log_append(group, 1, true, (struct raft_hard_state){.term = 1}, &entry, 1);
    slice_drop(&entry.data);
    group->phase = GROUP_BOOTING;
}

void group_start_raft(struct group *group, struct raft_start *start)
{
    if (group->at.applied > start->last) {
        group_halt(group, ERR_CORRUPT,
                   "the key-value store is ahead of the log: set the node's directory aside and rejoin");
        return;
    }
    if (group->at.applied < start->base_index) {
        heal_start_lost(group, start);
    }
    struct raft_params params = {
        .group = group->params.group,
        .self = group->params.self,
        .election_ticks = ELECTION_TICKS,
        .heartbeat_ticks = HEARTBEAT_TICKS,
        .window_entries = WINDOW_ENTRIES,
        .window_bytes = WINDOW_BYTES,
        .cache_bytes = group->params.cache_bytes != 0 ? group->params.cache_bytes : CACHE_BYTES,
        .sleep_ticks = group->params.group == 0 ? 0 : SLEEP_TICKS, /* the root group hears of stores every second */
    };
    start->applied = group->heal.lost ? start->base_index : group->at.applied;
    start->config = group->at.config;
    start->random = group->event->random;
    if (start->last == 0) {
        start->config = (struct raft_config_at){0}; /* joins: a leader will say who the members are */
    }
    /* Raft counts what it writes from 1 on; nothing of what was written before it is left over */
    group->persist_number = group->persisted_number = 0;
    group->raft = raft_create(&params, start);
    group->flushed_applied = group->at.applied;
    group->reapply.last = start->last;
    group->phase = GROUP_RUNNING;
    if (group->params.group == 0 && !group->heal.lost) {
        group_share_root(group);
    }
    struct raft_event event = {.kind = RAFT_EVENT_CONTINUE, .random = group->event->random};
    group_raft(group, &event);
}

/* CONFIG entries behind the applied index, decoded. */
static struct raft_config_at *opened_configs(struct group *group, struct reader *reader, struct raft_start *start)
{
    uint32_t count = reader_u32(reader);
    struct raft_config_at *configs = mem_alloc((count + 1ul) * sizeof *configs);
    for (uint32_t i = 0; i < count && !reader->failed; i++) {
        struct raft_config_at *config = &configs[start->config_count];
        config->index = reader_u64(reader);
        uint32_t bytes = reader_u32(reader);
        const uint8_t *data = reader_take(reader, bytes);
        if (config->index <= group->at.applied || data == NULL) {
            continue;
        }
        if (raft_config_decode(slice_borrow(data, bytes), &config->config) != ERR_OK) {
            group_halt(group, ERR_CORRUPT, "a configuration in the log does not decode");
        }
        start->config_count++;
    }
    CHECK(!reader->failed);
    start->configs = configs;
    return configs;
}

/* The log's term of an index that it has, or begins behind; 0 otherwise. */
static uint64_t opened_term(const struct raft_start *start, uint64_t index)
{
    uint64_t term = index == start->base_index ? start->base_term : 0;
    for (uint32_t i = 0; i < start->run_count && index > start->base_index && index <= start->last; i++) {
        term = start->runs[i].first <= index ? start->runs[i].term : term;
    }
    return term;
}

static bool group_is_first_member(const struct group *group)
{
    bool found = false;
    for (uint32_t i = 0; i < group->params.bootstrap->member_count; i++) {
        found = found || group->params.bootstrap->members[i] == group->params.self;
    }
    return found;
}

/* A crash may have come between the switch to a snapshot and the log's reset: that comes first. */
static void group_start(struct group *group, struct raft_start *start, struct raft_term_run *runs)
{
    uint64_t index = 0, term = 0;
    bool reset = standing_reset_wanted(group, &index, &term) && index > start->base_index;
    if (reset && opened_term(start, index) != term) {
        group->start_hard = start->hard;
        group->phase = GROUP_RESETTING;
        heal_cut(group, 0);
        group_log_reset(group, 1, index, term);
        return;
    }
    if (group->reset_due) {
        standing_reset_done(group);
    }
    if (start->last == 0 && group_is_first_member(group)) {
        group_write_boot(group);
    } else {
        heal_start(group, start, runs);
        group_start_raft(group, start);
    }
}

void group_log_opened(struct group *group, struct slice header)
{
    struct reader reader = reader_of(header.data, header.bytes);
    struct raft_start start = {.hard = {.term = reader_u64(&reader), .vote = reader_u32(&reader)}};
    start.last = reader_u64(&reader);
    start.base_index = reader_u64(&reader);
    start.base_term = reader_u64(&reader);
    start.run_count = reader_u32(&reader);
    CHECK(!reader.failed && reader.left >= (size_t)start.run_count * 16);
    if (standing_load(group) != ERR_OK) {
        group_halt(group, ERR_CORRUPT, "where its state stands does not decode");
        return;
    }
    struct raft_term_run *runs = mem_alloc((start.run_count + 1ul) * sizeof *runs);
    for (uint32_t i = 0; i < start.run_count; i++) {
        runs[i].first = reader_u64(&reader);
        runs[i].term = reader_u64(&reader);
    }
    start.runs = runs;
    struct raft_config_at *configs = opened_configs(group, &reader, &start);
    bool unsure = reader_u8(&reader) != 0;
    bool told = heal_open(group, &reader) && identity_open(group, &reader);
    CHECK(told);
    if (group->phase != GROUP_HALTED && group->params.recovering) {
        recover_look(group, &start, unsure);
    } else if (unsure && group->phase != GROUP_HALTED) {
        group->phase = GROUP_UNSURE;
    } else if (group->phase != GROUP_HALTED) {
        group_start(group, &start, runs);
    }
    free(runs);
    free(configs);
}
