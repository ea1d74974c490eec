/* `metad --recover`: from a lost majority. Beside the groups, which were made with `recovering`, one actor that looks,
 * asks and at last writes. */
#ifndef CAIRN_METAD_SHELL_RECOVER_H
#define CAIRN_METAD_SHELL_RECOVER_H

#include "config.h"
#include "io/runtime.h"

struct recovery_params {
    struct runtime *runtime;
    const struct metad_config *config;
    struct group *const *groups;
    uint32_t group_count;
    struct uuid directory;
    bool unsafe; /* do it; else say what is here and end */
};
/* Runs until it is done; the exit code. */
int recovery_run(const struct recovery_params *params);

#endif
