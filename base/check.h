/* Invariants. CHECK stays on in release: a broken invariant stops the process with a message that names it, before the
 * damage can spread. Bytes from a disk or a socket are never CHECKed; they are validated and answered. */
#ifndef CAIRN_BASE_CHECK_H
#define CAIRN_BASE_CHECK_H

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (__builtin_expect(!(condition), 0)) {                                                                       \
            check_failed(__FILE__, __LINE__, __func__, #condition);                                                    \
        }                                                                                                              \
    } while (0)

_Noreturn void check_failed(const char *file, int line, const char *function, const char *condition);
/* How a broken invariant is told; until it is set, as one JSON line on stderr. Called once, before the process aborts.
 */
void check_report_set(void (*report)(const char *file, int line, const char *function, const char *condition));

/* calloc that CHECKs: the process cannot go on without small memory. Bulk buffers come from slice_alloc. */
void *mem_alloc(unsigned long bytes);
/* Grows *items to hold at least `count` elements of `item_bytes`, zeroing what is new; *capacity counts elements. */
void *mem_grow(void *items, unsigned long *capacity, unsigned long count, unsigned long item_bytes);

#endif
