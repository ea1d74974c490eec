/* Which file holds which segment: the newest one that the first readable block of the file names. The log is
 * the run of segments without a gap that ends at the newest and begins no earlier than that one says: files of earlier
 * ones are free, and may be half written over or removed. Of two files
 * that name one segment the one written later counts: the other was begun before a crash and left. What counts as free
 * here is looked through when evidence is searched. */
#include <stdlib.h>

#include "log_internal.h"

bool log_probe_block(struct log *log, const uint8_t *data)
{
    struct log_scan *scan = &log->scan;
    struct log_found *found = &scan->files[scan->file];
    uint32_t first = (uint32_t)(scan->at / LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < LOG_BLOCK_SECTORS; i++) {
        struct log_sector s;
        if (log_sector_decode(data + i * LOG_SECTOR_BYTES, &log->directory, found->segment.file, first + i, &s) &&
            s.sequence > found->sequence) {
            found->sequence = s.sequence;
            found->segment.number = s.segment;
            found->oldest = s.oldest;
        }
    }
    return found->segment.number != 0;
}

/* By segment, then by the time it was written. */
static int log_found_compare(const void *left, const void *right)
{
    const struct log_found *a = left, *b = right;
    if (a->segment.number != b->segment.number) {
        return a->segment.number < b->segment.number ? -1 : 1;
    }
    return a->sequence < b->sequence ? -1 : a->sequence > b->sequence;
}

void log_probe_order(struct log_scan *scan)
{
    if (scan->file_count == 0) {
        return;
    }
    qsort(scan->files, scan->file_count, sizeof *scan->files, log_found_compare);
    struct log_found newest = scan->files[scan->file_count - 1];
    struct log_found *ordered = mem_alloc(scan->file_count * sizeof *ordered);
    uint32_t live = 0, other = scan->file_count, wanted = newest.segment.number;
    for (uint32_t i = scan->file_count; i-- > 0;) { /* newest first */
        const struct log_found *found = &scan->files[i];
        if (wanted > 0 && found->segment.number == wanted && wanted >= newest.oldest) {
            ordered[live++] = *found;
            wanted--;
        } else {
            ordered[--other] = *found;
        }
    }
    for (uint32_t i = 0; i < live / 2; i++) {
        struct log_found found = ordered[i];
        ordered[i] = ordered[live - 1 - i];
        ordered[live - 1 - i] = found;
    }
    free(scan->files);
    scan->files = ordered;
    scan->live_count = live;
}
