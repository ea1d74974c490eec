/* What the log keeps in memory per group: 12 bytes an entry for its place, the terms as runs, the hard state. The same
 * functions serve the scan at start and the running log, so both come to the same picture: a later record wins. */
#include <stdlib.h>

#include "log_internal.h"

uint64_t log_group_term(const struct log_group *group, uint64_t index)
{
    CHECK(index <= group->last);
    if (index == 0) {
        return 0;
    }
    unsigned long low = 0, high = group->run_count;
    CHECK(high > 0 && group->runs[0].first == 1);
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

void log_group_put(struct log_group *group, uint64_t index, uint64_t term, struct log_place place)
{
    CHECK(index >= 1 && index <= group->last + 1 && term > 0);
    while (group->run_count > 0 && group->runs[group->run_count - 1].first >= index) {
        group->run_count--;
    }
    if (group->run_count == 0 || group->runs[group->run_count - 1].term != term) {
        group->runs = mem_grow(group->runs, &group->run_capacity, group->run_count + 1, sizeof *group->runs);
        group->runs[group->run_count++] = (struct raft_term_run){.first = index, .term = term};
    }
    group->places = mem_grow(group->places, &group->place_capacity, index, sizeof *group->places);
    group->places[index - 1] = place;
    group->last = index;
    if (group->readable >= index) {
        group->readable = index - 1;
    }
    group->known = true;
}

void log_group_deinit(struct log_group *group)
{
    free(group->places);
    free(group->runs);
    *group = (struct log_group){0};
}

struct slice log_group_opened(const struct log_group *group)
{
    struct writer w = {0};
    writer_u64(&w, group->term);
    writer_u32(&w, group->vote);
    writer_u64(&w, group->last);
    writer_u32(&w, (uint32_t)group->run_count);
    for (unsigned long i = 0; i < group->run_count; i++) {
        writer_u64(&w, group->runs[i].first);
        writer_u64(&w, group->runs[i].term);
    }
    struct slice opened = writer_take(&w);
    writer_deinit(&w);
    return opened;
}
