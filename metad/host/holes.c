/* Holes of a log (holes.h). */
#include "metad/host/holes.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

bool holes_read(struct holes *holes, struct reader *reader, uint64_t applied, uint64_t *ret_behind, uint64_t *ret_last)
{
    CHECK(holes->items == NULL);
    uint32_t count = reader_u32(reader);
    if (reader->failed || reader->left < (size_t)count * 17) {
        return false;
    }
    holes->items = mem_alloc((count + 1ul) * sizeof *holes->items);
    uint64_t behind = 0, last = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct hole hole = {.index = reader_u64(reader)};
        hole.term = reader_u64(reader);
        hole.kind = reader_u8(reader);
        if (hole.index <= applied) {
            behind++;
            last = hole.index;
        } else {
            holes->items[holes->count++] = hole;
        }
    }
    *ret_behind = behind;
    *ret_last = last;
    return true;
}

void holes_deinit(struct holes *holes)
{
    free(holes->items);
    *holes = (struct holes){0};
}

const struct hole *holes_first(const struct holes *holes)
{
    return holes->first < holes->count ? &holes->items[holes->first] : NULL;
}

uint64_t holes_index(const struct holes *holes)
{
    const struct hole *first = holes_first(holes);
    return first != NULL ? first->index : 0;
}

void holes_add(struct holes *holes, uint64_t index, uint64_t term)
{
    unsigned long at = holes->first;
    while (at < holes->count && holes->items[at].index < index) {
        at++;
    }
    if (at < holes->count && holes->items[at].index == index) {
        return;
    }
    struct hole *items = mem_alloc((holes->count - holes->first + 2) * sizeof *items);
    memcpy(items, holes->items + holes->first, (at - holes->first) * sizeof *items);
    items[at - holes->first] = (struct hole){.index = index, .term = term, .kind = LOG_HOLE_ROT};
    memcpy(items + at - holes->first + 1, holes->items + at, (holes->count - at) * sizeof *items);
    holes->heard_count = at == holes->first ? 0 : holes->heard_count;
    holes->count = holes->count - holes->first + 1;
    holes->first = 0;
    free(holes->items);
    holes->items = items;
}

void holes_cut(struct holes *holes, uint64_t from)
{
    while (holes->count > holes->first && holes->items[holes->count - 1].index >= from) {
        holes->count--;
    }
}

bool holes_passed(struct holes *holes, uint64_t index)
{
    unsigned long first = holes->first;
    while (holes->first < holes->count && holes->items[holes->first].index <= index) {
        holes->first++;
    }
    if (holes->first != first) {
        holes->heard_count = 0;
    }
    return holes->first != first;
}

void holes_hear(struct holes *holes, uint32_t node, uint32_t verdict)
{
    bool may_have = verdict == LOG_LACKS || verdict == LOG_DOUBTS;
    if (!may_have && verdict != LOG_NONE && verdict != LOG_TORN) {
        return;
    }
    uint32_t at = 0;
    while (at < holes->heard_count && holes->heard[at].node != node) {
        at++;
    }
    if (at < RAFT_MEMBERS_MAX) {
        holes->heard[at] = (struct raft_heard){.node = node, .may_have = may_have};
        holes->heard_count += at == holes->heard_count;
    }
}

bool holes_may_trim(const struct holes *holes, const struct raft *raft)
{
    const struct hole *hole = holes_first(holes);
    return hole != NULL && raft_may_trim(raft, hole->kind != LOG_HOLE_TORN, holes->heard, holes->heard_count);
}
