/* The trace of a run: a hash over every delivered event and every executed effect, and on request a line for each. Two
 * runs of a seed must agree on it to the last bit. */
#ifndef CAIRN_SIM_TRACE_H
#define CAIRN_SIM_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct trace {
    uint64_t hash;
    uint64_t lines;
    bool print;
};

void trace_init(struct trace *trace, bool print);
void trace_word(struct trace *trace, uint64_t word);
void trace_bytes(struct trace *trace, const void *data, size_t bytes);

#endif
