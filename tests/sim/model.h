/* The model of one client's own files, which nobody else touches: what each may hold, given what the client was told.
 *   acknowledged   a name holds what the last acknowledged mutation gave it, or what one whose outcome is unknown (the
 *                  client died, or gave up) may have given it since; nothing else, and never nothing
 * Contents are numbers; 0 is "absent". */
#ifndef CAIRN_SIM_MODEL_H
#define CAIRN_SIM_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MODEL_DOUBTS 16

struct model_file {
    uint64_t acknowledged;
    uint64_t doubts[MODEL_DOUBTS]; /* of unknown outcome since, oldest first */
    uint32_t doubt_count;
    bool busy;   /* an operation is under way: one at a time */
    bool unread; /* of the verification */
};

/* A mutation that gives `content` ended without an answer. */
void model_doubt(struct model_file *file, uint64_t content);
/* It was acknowledged, or read: it is later than all that were in doubt. */
void model_acknowledge(struct model_file *file, uint64_t content);
bool model_may_be(const struct model_file *file, uint64_t content);

#endif
