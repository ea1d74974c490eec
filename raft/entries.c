/* The log as an instance sees it: the term of every entry (run-length, all in memory), the bodies of the recent ones
 * (the cache) and one window of older bodies that the host read back. The durable log is the host's; what is not in
 * memory here is durable there, because only entries that are delivered and durable leave the cache.
 *
 * Invariants: base <= applied <= persisted <= durable <= written <= last; base < hole <= last, or 0; base <
 * first_cached <= last + 1; runs cover base + 1 .. last, ascending in index and term.
 */
#include <stdlib.h>

#include "internal.h"

#define ENTRY_OVERHEAD_BYTES 64u

void raft_log_init(struct raft_log *log, const struct raft_start *start)
{
    uint64_t last = start->last, base = start->base_index;
    *log = (struct raft_log){.base = base,
                             .base_term = start->base_term,
                             .last = last,
                             .written = last,
                             .durable = last,
                             .hole = start->hole,
                             .persisted = start->hole != 0 ? start->hole - 1 : last,
                             .first_cached = last + 1};
    CHECK(base <= last && (base == 0) == (start->base_term == 0));
    CHECK((last == base) == (start->run_count == 0));
    log->runs = mem_grow(NULL, &log->run_capacity, start->run_count + 1ul, sizeof *log->runs);
    uint64_t term = start->base_term;
    for (uint32_t i = 0; i < start->run_count; i++) {
        const struct raft_term_run *run = &start->runs[i];
        CHECK(run->first <= last && run->term > 0);
        CHECK(i == 0 ? run->first == base + 1 && run->term >= term
                     : run->first > start->runs[i - 1].first && run->term > term);
        term = run->term;
        log->runs[i] = *run;
    }
    log->run_count = start->run_count;
    log->ring_size = 16;
    log->ring = mem_alloc(log->ring_size * sizeof *log->ring);
}

void raft_log_deinit(struct raft_log *log)
{
    raft_log_window_drop(log);
    for (uint64_t i = log->first_cached; i <= log->last; i++) {
        slice_drop(&log->ring[i & (log->ring_size - 1)].data);
    }
    free(log->ring);
    free(log->runs);
    *log = (struct raft_log){0};
}

/* Position of the run that holds `index` (base + 1..last). */
static unsigned long raft_log_run(const struct raft_log *log, uint64_t index)
{
    CHECK(log->run_count > 0 && index > log->base);
    unsigned long low = 0, high = log->run_count;
    if (index >= log->runs[high - 1].first) {
        return high - 1;
    }
    while (high - low > 1) {
        unsigned long middle = low + (high - low) / 2;
        if (log->runs[middle].first <= index) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t raft_log_term(const struct raft_log *log, uint64_t index)
{
    CHECK(index >= log->base && index <= log->last);
    return index == log->base ? log->base_term : log->runs[raft_log_run(log, index)].term;
}

uint64_t raft_log_skip(const struct raft_log *log, uint64_t index, uint64_t term)
{
    if (index > log->last) {
        index = log->last;
    }
    if (index <= log->base) {
        return index;
    }
    unsigned long run = raft_log_run(log, index);
    while (log->runs[run].term > term) {
        index = log->runs[run].first - 1;
        if (run == 0) {
            return log->base == 0 || log->base_term <= term ? log->base : log->base - 1;
        }
        run--;
    }
    return index;
}

static void raft_log_ring_grow(struct raft_log *log)
{
    uint64_t size = log->ring_size * 2;
    struct raft_entry *ring = mem_alloc(size * sizeof *ring);
    for (uint64_t i = log->first_cached; i <= log->last; i++) {
        ring[i & (size - 1)] = log->ring[i & (log->ring_size - 1)];
    }
    free(log->ring);
    log->ring = ring;
    log->ring_size = size;
}

void raft_log_append(struct raft_log *log, const struct raft_entry *entry)
{
    CHECK(entry->index == log->last + 1);
    CHECK(entry->term > 0 && entry->term >= raft_log_term(log, log->last));
    if (log->last + 1 - log->first_cached == log->ring_size) {
        raft_log_ring_grow(log);
    }
    if (log->run_count == 0 || log->runs[log->run_count - 1].term != entry->term) {
        log->runs = mem_grow(log->runs, &log->run_capacity, log->run_count + 1, sizeof *log->runs);
        log->runs[log->run_count++] = (struct raft_term_run){.first = entry->index, .term = entry->term};
    }
    log->last = entry->index;
    struct raft_entry *slot = &log->ring[entry->index & (log->ring_size - 1)];
    *slot = *entry;
    slot->data = slice_ref(entry->data);
    log->cached_bytes += entry->data.bytes + ENTRY_OVERHEAD_BYTES;
}

static void raft_log_uncache(struct raft_log *log, uint64_t index)
{
    struct raft_entry *slot = &log->ring[index & (log->ring_size - 1)];
    CHECK(slot->index == index);
    log->cached_bytes -= slot->data.bytes + ENTRY_OVERHEAD_BYTES;
    slice_drop(&slot->data);
}

void raft_log_cut(struct raft_log *log, uint64_t from)
{
    CHECK(from > log->base && from <= log->last);
    uint64_t first = from > log->first_cached ? from : log->first_cached;
    for (uint64_t i = first; i <= log->last; i++) {
        raft_log_uncache(log, i);
    }
    while (log->run_count > 0 && log->runs[log->run_count - 1].first >= from) {
        log->run_count--;
    }
    log->last = from - 1;
    if (log->first_cached > from) {
        log->first_cached = from;
    }
    if (log->written > log->last) {
        log->written = log->last;
    }
    if (log->hole >= from) {
        log->hole = 0;
    }
    log->durable = log->durable > log->last ? log->last : log->durable;
    raft_log_durable(log, 0);
    if (log->window_count > 0 && log->window_first + log->window_count > from) {
        raft_log_window_drop(log);
    }
}

void raft_log_durable(struct raft_log *log, uint64_t index)
{
    log->durable = index > log->durable ? index : log->durable;
    log->persisted = log->hole != 0 && log->hole <= log->durable ? log->hole - 1 : log->durable;
}

void raft_log_compact(struct raft_log *log, uint64_t index)
{
    CHECK(index > log->base && index <= log->persisted);
    log->base_term = raft_log_term(log, index);
    raft_log_evict(log, index, 0);
    log->first_cached = log->first_cached > index ? log->first_cached : index + 1;
    unsigned long drop = 0;
    while (drop < log->run_count && (drop + 1 < log->run_count ? log->runs[drop + 1].first - 1 : log->last) <= index) {
        drop++;
    }
    for (unsigned long i = drop; i < log->run_count; i++) {
        log->runs[i - drop] = log->runs[i];
    }
    log->run_count -= drop;
    if (log->run_count > 0) {
        log->runs[0].first = index + 1;
    }
    log->base = index;
    if (log->rotten_last <= index) {
        log->rotten_first = log->rotten_last = 0;
    }
    if (log->window_count > 0 && log->window_first <= index) {
        raft_log_window_drop(log);
    }
}

void raft_log_reset(struct raft_log *log, uint64_t index, uint64_t term)
{
    CHECK(index > 0 && term > 0);
    for (uint64_t i = log->first_cached; i <= log->last; i++) {
        raft_log_uncache(log, i);
    }
    raft_log_window_drop(log);
    log->run_count = 0;
    log->base = log->last = log->written = log->durable = log->persisted = index;
    log->hole = log->rotten_first = log->rotten_last = 0;
    log->base_term = term;
    log->first_cached = index + 1;
}

const struct raft_entry *raft_log_find(const struct raft_log *log, uint64_t index)
{
    CHECK(index > log->base && index <= log->last);
    if (index >= log->first_cached) {
        return &log->ring[index & (log->ring_size - 1)];
    }
    if (index >= log->window_first && index - log->window_first < log->window_count) {
        return &log->window[index - log->window_first];
    }
    return NULL;
}

void raft_log_evict(struct raft_log *log, uint64_t upto, uint64_t bytes)
{
    CHECK(upto <= log->persisted);
    while (log->first_cached <= upto && log->cached_bytes > bytes) {
        raft_log_uncache(log, log->first_cached);
        log->first_cached++;
    }
}

void raft_log_window_set(struct raft_log *log, uint64_t first, const struct raft_entry *entries, uint32_t count)
{
    raft_log_window_drop(log);
    uint32_t good = 0;
    while (first > log->base && good < count && first + good <= log->last && entries[good].index == first + good &&
           entries[good].term == raft_log_term(log, first + good)) {
        good++;
    }
    if (good == 0) {
        return;
    }
    log->window = mem_alloc(good * sizeof *log->window);
    for (uint32_t i = 0; i < good; i++) {
        log->window[i] = entries[i];
        log->window[i].data = slice_ref(entries[i].data);
    }
    log->window_first = first;
    log->window_count = good;
}

void raft_log_window_drop(struct raft_log *log)
{
    for (uint32_t i = 0; i < log->window_count; i++) {
        slice_drop(&log->window[i].data);
    }
    free(log->window);
    log->window = NULL;
    log->window_count = 0;
    log->window_first = 0;
}
