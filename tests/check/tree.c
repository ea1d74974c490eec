/* Sums and history (tree.h). */
#include "tree.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/hash.h"
#include "base/limits.h"

enum { DEPTH = LIMIT_PATH_DEPTH + 2 };

struct sums {
    uint64_t entries, bytes, digest[4];
};

static void entry_add(struct sums *sums, const struct state_record *entry)
{
    uint8_t packed[8 + LIMIT_NAME_BYTES + 8];
    size_t name_bytes = strnlen(entry->name, LIMIT_NAME_BYTES);
    put_u64(packed, entry->parent);
    memcpy(packed + 8, entry->name, name_bytes);
    put_u64(packed + 8 + name_bytes, entry->version);
    struct sha256 digest = sha256(packed, 16 + name_bytes);
    sums->entries++;
    sums->bytes += entry->bytes;
    for (int i = 0; i < 4; i++) {
        sums->digest[i] += get_u64(digest.bytes + 8 * i);
    }
}

/* All that lies below a folder. */
static void sum_folder(const struct state_dump *dump, uint64_t folder, int depth, struct sums *sums)
{
    for (unsigned long i = 0; i < dump->count && depth < DEPTH; i++) {
        const struct state_record *entry = &dump->items[i];
        if (entry->kind == STATE_ENTRY && entry->parent == folder) {
            entry_add(sums, entry);
            if (entry->type == 2) {
                sum_folder(dump, entry->id, depth + 1, sums);
            }
        }
    }
}

static void compare(const struct state_dump *dump, const struct state_record *record, struct report *report)
{
    struct sums sums = {0};
    const char *what = record->kind == STATE_FOLDER ? "folder" : "the namespace's root";
    sum_folder(dump, record->id, 0, &sums);
    if (record->count != sums.entries || record->bytes != sums.bytes) {
        report_find(report,
                    "tree: %s %" PRIu64 " says %" PRIu64 " entries of %" PRIu64 " B, below it are %" PRIu64
                    " of %" PRIu64,
                    what, record->id, record->count, record->bytes, sums.entries, sums.bytes);
    } else if (record->kind == STATE_FOLDER && !record->digest_is_right &&
               memcmp(record->digest, sums.digest, sizeof sums.digest) != 0) {
        report_find(report, "tree: folder %" PRIu64 " has another digest than what lies below it", record->id);
    }
}

static bool is_at(const struct state_record *record, uint64_t parent, const char *name, uint64_t sequence)
{
    return record->parent == parent && record->sequence == sequence && strcmp(record->name, name) == 0;
}

static bool is_kept(const struct state_dump *dump, uint64_t parent, const char *name, uint64_t sequence, bool live)
{
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        bool counts = record->kind == STATE_PAST || (live && record->kind == STATE_ENTRY);
        if (counts && is_at(record, parent, name, sequence)) {
            return true;
        }
    }
    return false;
}

static void check_event(const struct state_dump *dump, const struct state_record *event, struct report *report)
{
    bool removal = event->type == 3;
    if (!is_kept(dump, event->parent, event->name, event->sequence, !removal)) {
        report_find(report, "tree: what event %" PRIu64 " made of %" PRIu64 "/%s is neither there nor in the history",
                    event->sequence, event->parent, event->name);
    }
    if (event->type == 4 && !is_kept(dump, event->id, event->other, event->sequence, false)) {
        report_find(report, "tree: the history of %" PRIu64 "/%s does not say that event %" PRIu64 " moved it away",
                    event->id, event->other, event->sequence);
    }
}

void tree_check(const struct state_dump *dump, struct report *report)
{
    report->checker = "tree";
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        report->looked++;
        if (record->kind == STATE_FOLDER || record->kind == STATE_NAMESPACE) {
            compare(dump, record, report);
        } else if (record->kind == STATE_EVENT) {
            check_event(dump, record, report);
        }
    }
}
