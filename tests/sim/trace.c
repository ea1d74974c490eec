/* A 64-bit multiply-and-rotate hash over words; not for anything but comparing runs. */
#include "trace.h"

#include <string.h>

void trace_init(struct trace *trace, bool print)
{
    *trace = (struct trace){.hash = 0xcbf29ce484222325ull, .print = print};
}

void trace_word(struct trace *trace, uint64_t word)
{
    uint64_t h = (trace->hash ^ word) * 0x9fb21c651e98df25ull;
    trace->hash = h ^ h >> 29;
}

void trace_bytes(struct trace *trace, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    trace_word(trace, bytes);
    if (bytes >= 64) { /* four words at a time, so that their multiplications overlap */
        uint64_t lanes[4] = {trace->hash, ~trace->hash, bytes, 0x5bd1e995};
        for (; bytes >= 32; p += 32, bytes -= 32) {
            uint64_t words[4];
            memcpy(words, p, 32);
            for (int i = 0; i < 4; i++) {
                lanes[i] = (lanes[i] ^ words[i]) * 0x9fb21c651e98df25ull;
                lanes[i] ^= lanes[i] >> 29;
            }
        }
        for (int i = 0; i < 4; i++) {
            trace_word(trace, lanes[i]);
        }
    }
    for (; bytes >= 8; p += 8, bytes -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        trace_word(trace, word);
    }
    if (bytes > 0) {
        uint64_t word = 0;
        memcpy(&word, p, bytes);
        trace_word(trace, word);
    }
}
