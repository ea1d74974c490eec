/* What a fuzz target exports, and the secrets with which corpus and targets agree. */
#ifndef CAIRN_TESTS_FUZZ_H
#define CAIRN_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const uint8_t fuzz_secret[32] = {0xca, 0x1e, 0x11, 7};

#endif
