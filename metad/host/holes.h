/* The holes of a group's log as its host keeps them: entries that are named and whose bytes are damaged (R-E1, R-E2),
 * ascending, and what other members said of the first one. Only the first is mended at a time: from it on nothing is
 * acknowledged, so the others can wait. Bookkeeping alone; who asks and writes is the host (heal.c). */
#ifndef CAIRN_METAD_HOST_HOLES_H
#define CAIRN_METAD_HOST_HOLES_H

#include "base/bytes.h"
#include "metad/host/log.h"

struct hole {
    uint64_t index, term;
    uint8_t kind; /* enum log_hole */
};
struct holes {
    struct hole *items;
    unsigned long first, count; /* [first, count) are left */
    struct raft_heard heard[RAFT_MEMBERS_MAX];
    uint32_t heard_count; /* what members said of the first one */
};

/* Reads the end of a LOG_OPEN's answer (log.h): u32 count, then the holes. Those at or below `applied` are only
 * counted, in ret_behind, the last of them in ret_last (0 none). False: malformed. */
bool holes_read(struct holes *holes, struct reader *reader, uint64_t applied, uint64_t *ret_behind, uint64_t *ret_last);
void holes_deinit(struct holes *holes);
static inline unsigned long holes_left(const struct holes *holes)
{
    return holes->count - holes->first;
}
/* NULL: none is left. */
const struct hole *holes_first(const struct holes *holes);
/* Index of the first, 0 none: what Raft is told. */
uint64_t holes_index(const struct holes *holes);
/* A read found one more, behind the applied index. */
void holes_add(struct holes *holes, uint64_t index, uint64_t term);
/* The log was cut from `from` on. */
void holes_cut(struct holes *holes, uint64_t from);
/* Entries up to `index` are mended, or held by a snapshot. True: the first hole is another now. */
bool holes_passed(struct holes *holes, uint64_t index);
/* `node` does not have the entry of the first one's name: an enum log_verdict; others than those are ignored. */
void holes_hear(struct holes *holes, uint32_t node, uint32_t verdict);
/* The first hole was never part of the group's log, as far as was heard (R-E2). */
bool holes_may_trim(const struct holes *holes, const struct raft *raft);

#endif
