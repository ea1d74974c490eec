/* What a file may hold (model.h). */
#include "model.h"

#include <string.h>

void model_doubt(struct model_file *file, uint64_t content)
{
    if (file->doubt_count == MODEL_DOUBTS) { /* the oldest has had its time */
        memmove(file->doubts, file->doubts + 1, (MODEL_DOUBTS - 1) * sizeof file->doubts[0]);
        file->doubt_count--;
    }
    file->doubts[file->doubt_count++] = content;
}

void model_acknowledge(struct model_file *file, uint64_t content)
{
    file->acknowledged = content;
    file->doubt_count = 0;
}

bool model_may_be(const struct model_file *file, uint64_t content)
{
    bool may = file->acknowledged == content;
    for (uint32_t i = 0; i < file->doubt_count; i++) {
        may = may || file->doubts[i] == content;
    }
    return may;
}
