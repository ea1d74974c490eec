/* The two local messages between agent and store, packed and read. They never leave the process; a malformed one is
 * still answered with INVALID. */
#include "report.h"

#include "base/bytes.h"

#define STATE_FIXED_BYTES (4 + 8 + 32 + 8)

struct slice store_state_encode(const struct store_state *state)
{
    struct writer w = {0};
    writer_u32(&w, state->store);
    writer_u64(&w, state->incarnation);
    writer_put(&w, state->receipt_key, sizeof state->receipt_key);
    writer_u64(&w, state->tick);
    writer_put(&w, state->map.data, state->map.bytes);
    struct slice slice = writer_take(&w);
    writer_deinit(&w);
    return slice;
}

enum err store_state_decode(struct slice header, struct store_state *ret_state)
{
    if (header.bytes < STATE_FIXED_BYTES) {
        return ERR_INVALID;
    }
    struct reader r = reader_of(header.data, header.bytes);
    struct store_state state = {.store = reader_u32(&r)};
    state.incarnation = reader_u64(&r);
    reader_get(&r, state.receipt_key, sizeof state.receipt_key);
    state.tick = reader_u64(&r);
    state.map = slice_borrow(r.data, r.left);
    *ret_state = state;
    return ERR_OK;
}

struct slice store_report_encode(const struct store_report *report)
{
    struct writer w = {0};
    writer_u32(&w, report->position);
    writer_u8(&w, report->ready);
    writer_put(&w, report->uuid.bytes, sizeof report->uuid.bytes);
    writer_u64(&w, report->incarnation);
    writer_u64(&w, report->last_record);
    writer_u64(&w, report->used_bytes);
    writer_u64(&w, report->capacity_bytes);
    writer_u64(&w, report->map_epoch);
    const struct store_counters *c = &report->counters;
    const uint64_t counters[] = {c->submissions, c->submitted, c->syncs,   c->synced_shards, c->synced_bytes,
                                 c->shards,      c->refused,   c->corrupt, c->rebuilt};
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        writer_u64(&w, counters[i]);
    }
    struct slice slice = writer_take(&w);
    writer_deinit(&w);
    return slice;
}

enum err store_report_decode(struct slice header, struct store_report *ret_report)
{
    struct reader r = reader_of(header.data, header.bytes);
    struct store_report report = {.position = reader_u32(&r)};
    report.ready = reader_u8(&r) != 0;
    reader_get(&r, report.uuid.bytes, sizeof report.uuid.bytes);
    report.incarnation = reader_u64(&r);
    report.last_record = reader_u64(&r);
    report.used_bytes = reader_u64(&r);
    report.capacity_bytes = reader_u64(&r);
    report.map_epoch = reader_u64(&r);
    struct store_counters *c = &report.counters;
    uint64_t *const counters[] = {&c->submissions, &c->submitted, &c->syncs,   &c->synced_shards, &c->synced_bytes,
                                  &c->shards,      &c->refused,   &c->corrupt, &c->rebuilt};
    for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
        *counters[i] = reader_u64(&r);
    }
    if (r.failed || r.left != 0) {
        return ERR_INVALID;
    }
    *ret_report = report;
    return ERR_OK;
}
