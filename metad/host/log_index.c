/* What the log keeps in memory per group: 12 bytes an entry behind the base for its place, the terms as runs, the hard
 * state, and the bodies of configuration entries, which Raft asks for before anything else. The same functions serve
 * the scan at start and the running log, so both come to the same picture: a later record wins. */
#include <stdlib.h>

#include "log_internal.h"

uint64_t log_group_term(const struct log_group *group, uint64_t index)
{
    CHECK(index >= group->base && index <= group->last);
    if (index == group->base) {
        return group->base_term;
    }
    unsigned long low = 0, high = group->run_count;
    CHECK(high > 0 && group->runs[0].first == group->base + 1);
    if (index >= group->runs[high - 1].first) {
        return group->runs[high - 1].term;
    }
    while (high - low > 1) {
        unsigned long middle = low + (high - low) / 2;
        if (group->runs[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return group->runs[low].term;
}

struct log_place log_group_place(const struct log_group *group, uint64_t index)
{
    CHECK(index > group->base && index <= group->last);
    return group->places[index - group->base - 1];
}

static void log_configs_drop(struct log_group *group, unsigned long from, unsigned long to)
{
    if (from == to) {
        return;
    }
    for (unsigned long i = from; i < to; i++) {
        slice_drop(&group->configs[i].data);
    }
    memmove(group->configs + from, group->configs + to, (group->config_count - to) * sizeof *group->configs);
    group->config_count -= to - from;
}

void log_group_put(struct log_group *group, uint64_t index, uint64_t term, struct log_place place)
{
    CHECK(index > group->base && index <= group->last + 1 && term > 0);
    while (group->run_count > 0 && group->runs[group->run_count - 1].first >= index) {
        group->run_count--;
    }
    if (group->run_count == 0 || group->runs[group->run_count - 1].term != term) {
        group->runs = mem_grow(group->runs, &group->run_capacity, group->run_count + 1, sizeof *group->runs);
        group->runs[group->run_count++] = (struct raft_term_run){.first = index, .term = term};
    }
    unsigned long keep = group->config_count;
    while (keep > 0 && group->configs[keep - 1].index >= index) {
        keep--;
    }
    log_configs_drop(group, keep, group->config_count);
    group->places = mem_grow(group->places, &group->place_capacity, index - group->base, sizeof *group->places);
    group->places[index - group->base - 1] = place;
    group->last = index;
    if (group->readable >= index) {
        group->readable = index - 1;
    }
    log_group_touch(group, index);
    group->known = true;
}

void log_group_touch(struct log_group *group, uint64_t from)
{
    group->now.from = group->now.touched && group->now.from < from ? group->now.from : from;
    group->now.touched = true;
}

void log_group_place_set(struct log_group *group, uint64_t index, struct log_place place)
{
    CHECK(index > group->base && index <= group->last);
    group->places[index - group->base - 1] = place;
}

void log_group_truncate(struct log_group *group, uint64_t index)
{
    CHECK(index >= group->base && index <= group->last);
    while (group->run_count > 0 && group->runs[group->run_count - 1].first > index) {
        group->run_count--;
    }
    unsigned long keep = group->config_count;
    while (keep > 0 && group->configs[keep - 1].index > index) {
        keep--;
    }
    log_configs_drop(group, keep, group->config_count);
    group->last = index;
    group->readable = group->readable > index ? index : group->readable;
    log_group_touch(group, index + 1);
}

void log_group_config(struct log_group *group, uint64_t index, struct slice data)
{
    CHECK(index == group->last);
    group->configs = mem_grow(group->configs, &group->config_capacity, group->config_count + 1, sizeof *group->configs);
    group->configs[group->config_count++] = (struct log_config){.index = index, .data = slice_ref(data)};
}

void log_group_config_insert(struct log_group *group, uint64_t index, struct slice data)
{
    CHECK(index > group->base && index <= group->last);
    unsigned long at = 0;
    while (at < group->config_count && group->configs[at].index < index) {
        at++;
    }
    if (at < group->config_count && group->configs[at].index == index) {
        return;
    }
    group->configs = mem_grow(group->configs, &group->config_capacity, group->config_count + 1, sizeof *group->configs);
    memmove(group->configs + at + 1, group->configs + at, (group->config_count - at) * sizeof *group->configs);
    group->config_count++;
    group->configs[at] = (struct log_config){.index = index, .data = slice_ref(data)};
}

void log_group_cut(struct log_group *group, uint64_t index)
{
    CHECK(index > group->base && index <= group->last);
    uint64_t term = log_group_term(group, index);
    memmove(group->places, group->places + (index - group->base), (group->last - index) * sizeof *group->places);
    unsigned long gone = 0;
    while (gone < group->run_count &&
           (gone + 1 < group->run_count ? group->runs[gone + 1].first - 1 : group->last) <= index) {
        gone++;
    }
    memmove(group->runs, group->runs + gone, (group->run_count - gone) * sizeof *group->runs);
    group->run_count -= gone;
    if (group->run_count > 0 && group->runs[0].first <= index) {
        group->runs[0].first = index + 1;
    }
    unsigned long configs = 0;
    while (configs < group->config_count && group->configs[configs].index <= index) {
        configs++;
    }
    log_configs_drop(group, 0, configs);
    group->base = index;
    group->base_term = term;
}

void log_group_reset(struct log_group *group, uint64_t index, uint64_t term)
{
    log_configs_drop(group, 0, group->config_count);
    group->run_count = 0;
    group->base = group->last = group->readable = index;
    group->base_term = term;
    log_group_touch(group, index + 1);
    group->known = true;
}

uint32_t log_group_needs(const struct log_group *group)
{
    uint32_t oldest = UINT32_MAX;
    for (uint64_t i = group->base + 1; i <= group->last; i++) {
        uint32_t segment = log_group_place(group, i).segment;
        oldest = segment < oldest ? segment : oldest;
    }
    return oldest;
}

uint64_t log_group_below(const struct log_group *group, uint32_t segment)
{
    uint64_t last = 0;
    for (uint64_t i = group->base + 1; i <= group->last; i++) {
        last = log_group_place(group, i).segment < segment ? i : last;
    }
    return last;
}

void log_group_deinit(struct log_group *group)
{
    log_configs_drop(group, 0, group->config_count);
    free(group->configs);
    free(group->places);
    free(group->runs);
    *group = (struct log_group){0};
}

void log_peers_put(const struct log_peer *peers, uint32_t count, struct writer *w)
{
    writer_u32(w, count);
    for (uint32_t i = 0; i < count; i++) {
        writer_u32(w, peers[i].node);
        writer_put(w, peers[i].directory.bytes, sizeof peers[i].directory.bytes);
        writer_u64(w, peers[i].boot);
        writer_u64(w, peers[i].position);
        writer_u64(w, peers[i].config);
    }
}

bool log_peers_read(struct reader *r, struct log_peer *ret_peers, uint32_t *ret_count)
{
    uint32_t count = reader_u32(r);
    bool old = r->left == (size_t)count * LOG_PEER_OLD_BYTES; /* they are the last of what they stand in */
    if (r->failed || count > RAFT_MEMBERS_MAX || (!old && r->left < (size_t)count * LOG_PEER_BYTES)) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        ret_peers[i].node = reader_u32(r);
        const uint8_t *directory = reader_take(r, sizeof ret_peers[i].directory.bytes);
        CHECK(directory != NULL);
        memcpy(ret_peers[i].directory.bytes, directory, sizeof ret_peers[i].directory.bytes);
        ret_peers[i].boot = reader_u64(r);
        ret_peers[i].position = reader_u64(r);
        ret_peers[i].config = old ? 0 : reader_u64(r);
    }
    *ret_count = count;
    return true;
}

void log_runs_put(const struct log_group *group, struct writer *w)
{
    writer_u32(w, (uint32_t)group->run_count);
    for (unsigned long i = 0; i < group->run_count; i++) {
        writer_u64(w, group->runs[i].first);
        writer_u64(w, group->runs[i].term);
    }
}

struct slice log_group_opened(const struct log_group *group, uint64_t position)
{
    struct writer w = {0};
    writer_u64(&w, group->term);
    writer_u32(&w, group->vote);
    writer_u64(&w, group->last);
    writer_u64(&w, group->base);
    writer_u64(&w, group->base_term);
    log_runs_put(group, &w);
    writer_u32(&w, (uint32_t)group->config_count);
    for (unsigned long i = 0; i < group->config_count; i++) {
        writer_u64(&w, group->configs[i].index);
        writer_u32(&w, group->configs[i].data.bytes);
        writer_put(&w, group->configs[i].data.data, group->configs[i].data.bytes);
    }
    writer_u8(&w, group->unsure);
    uint64_t holes_at = w.bytes;
    uint32_t holes = 0;
    writer_u32(&w, 0);
    for (uint64_t i = group->base + 1; i <= group->last; i++) {
        struct log_place place = log_group_place(group, i);
        if (log_place_is_hole(place)) {
            writer_u64(&w, i);
            writer_u64(&w, log_group_term(group, i));
            writer_u8(&w, (uint8_t)place.offset);
            holes++;
        }
    }
    put_u32(w.data + holes_at, holes);
    writer_u64(&w, position);
    log_peers_put(group->peers, group->peer_count, &w);
    struct slice opened = writer_take(&w);
    writer_deinit(&w);
    return opened;
}
