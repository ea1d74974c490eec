/* What a checker says: the first thing it found wrong, how many there were, and what it has looked at. A checker that
 * looked at nothing has verified nothing: callers ask `looked`. */
#ifndef CAIRN_CHECK_REPORT_H
#define CAIRN_CHECK_REPORT_H

#include <stdint.h>

#define REPORT_TEXT 512

struct report {
    const char *checker;
    char text[REPORT_TEXT]; /* the first finding; "" when there is none */
    uint64_t findings;
    uint64_t looked;    /* operations, events, records: what the checker counts */
    uint64_t undecided; /* parts it could not judge within its bound: no findings, but not verified either */
};

void report_find(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
