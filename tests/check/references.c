/* References against manifests (references.h). */
#include "references.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

/* The record of a kind with a name or, when that is NULL, an id. */
static const struct state_record *find(const struct state_dump *dump, enum state_kind kind, const char *name,
                                       uint64_t id)
{
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        if (record->kind == kind && (name != NULL ? strcmp(record->name, name) == 0 : record->id == id)) {
            return record;
        }
    }
    return NULL;
}

/* Names in order, for counting. */
struct names {
    const char **items;
    unsigned long count, capacity;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void names_add(struct names *names, const char *name)
{
    names->items = mem_grow(names->items, &names->capacity, names->count + 1, sizeof *names->items);
    names->items[names->count++] = name;
}

static void names_sort(struct names *names)
{
    if (names->count > 0) {
        qsort(names->items, names->count, sizeof *names->items, by_name);
    }
}

/* How many of them are below `name`, or with `or_equal` not above it. */
static unsigned long names_rank(const struct names *names, const char *name, bool or_equal)
{
    unsigned long low = 0, high = names->count;
    while (low < high) {
        unsigned long middle = low + (high - low) / 2;
        int order = strcmp(names->items[middle], name);
        if (order < 0 || (or_equal && order == 0)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint64_t names_count(const struct names *names, const char *name)
{
    return names_rank(names, name, true) - names_rank(names, name, false);
}

/* What is said of chunks: by pages, by pins, by records of their own. */
struct chunks {
    struct names referenced, pinned, recorded;
};

static void chunks_collect(const struct state_dump *dump, struct chunks *chunks)
{
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        for (unsigned long r = 0; r < record->count_refs; r++) {
            names_add(&chunks->referenced, record->refs[r]);
        }
        if (record->kind == STATE_PIN) {
            names_add(&chunks->pinned, record->other);
        } else if (record->kind == STATE_CHUNK) {
            names_add(&chunks->recorded, record->name);
        }
    }
    names_sort(&chunks->referenced);
    names_sort(&chunks->pinned);
    names_sort(&chunks->recorded);
}

static void check_chunk(const struct chunks *chunks, const struct state_record *chunk, struct report *report)
{
    uint64_t pages = names_count(&chunks->referenced, chunk->name), pins = names_count(&chunks->pinned, chunk->name);
    if (pages != chunk->count) {
        report_find(report, "references: chunk %s counts %" PRIu64 " pages, %" PRIu64 " name it", chunk->name,
                    chunk->count, pages);
    }
    if (pins != chunk->pins) {
        report_find(report, "references: chunk %s counts %" PRIu64 " pins, there are %" PRIu64, chunk->name,
                    chunk->pins, pins);
    }
}

static void check_recorded(const struct chunks *chunks, const struct names *names, const char *who,
                           struct report *report)
{
    for (unsigned long i = 0; i < names->count; i++) {
        if (names_count(&chunks->recorded, names->items[i]) == 0) {
            report_find(report, "references: a %s names chunk %s, which has no record", who, names->items[i]);
        }
    }
}

static void check_page(const struct state_dump *dump, const struct state_record *page, struct report *report)
{
    uint64_t links = 0;
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *link = &dump->items[i];
        if (link->kind == STATE_LINK && strcmp(link->other, page->name) == 0) {
            links++;
            if (link->count != page->count_refs) {
                report_find(report, "references: page %s has %lu entries, a link says %" PRIu64, page->name,
                            page->count_refs, link->count);
            }
        }
    }
    if (links != page->count || links == 0) {
        report_find(report, "references: page %s counts %" PRIu64 " versions, %" PRIu64 " links name it", page->name,
                    page->count, links);
    }
}

static void check_version(const struct state_dump *dump, const struct state_record *version, struct report *report)
{
    uint64_t entries = 0;
    for (bool more = true; more && entries < version->count;) {
        more = false;
        for (unsigned long i = 0; i < dump->count && !more; i++) {
            const struct state_record *link = &dump->items[i];
            more = link->kind == STATE_LINK && link->manifest == version->manifest && link->sequence == entries &&
                   link->count > 0;
            entries += more ? link->count : 0;
        }
    }
    if (entries != version->count) {
        report_find(report, "references: %" PRIu64 "/%s has %" PRIu64 " chunks, its manifest %" PRIu64, version->parent,
                    version->name, version->count, entries);
    }
}

/* A version, current or past, or a session that a manifest belongs to. */
static bool has_owner(const struct state_dump *dump, uint64_t manifest)
{
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        if (((record->kind == STATE_ENTRY || record->kind == STATE_PAST) && record->manifest == manifest) ||
            (record->kind == STATE_SESSION && record->id == manifest)) {
            return true;
        }
    }
    return false;
}

static void check_link(const struct state_dump *dump, const struct state_record *link, struct report *report)
{
    if (find(dump, STATE_PAGE, link->other, 0) == NULL) {
        report_find(report, "references: manifest %" PRIu64 " names page %s, which is not there", link->manifest,
                    link->other);
    }
    if (!has_owner(dump, link->manifest)) {
        report_find(report, "references: manifest %" PRIu64 " is of no version and no session", link->manifest);
    }
}

static void check_pin(const struct state_dump *dump, const struct state_record *pin, struct report *report)
{
    if (find(dump, STATE_SESSION, NULL, pin->id) == NULL) {
        report_find(report, "references: chunk %s is pinned by session %" PRIu64 ", which has ended", pin->other,
                    pin->id);
    }
}

void references_check(const struct state_dump *dump, struct report *report)
{
    struct chunks chunks = {0};
    report->checker = "references";
    chunks_collect(dump, &chunks);
    check_recorded(&chunks, &chunks.referenced, "page", report);
    check_recorded(&chunks, &chunks.pinned, "pin", report);
    for (unsigned long i = 0; i < dump->count; i++) {
        const struct state_record *record = &dump->items[i];
        report->looked++;
        switch (record->kind) {
        case STATE_CHUNK:
            check_chunk(&chunks, record, report);
            break;
        case STATE_PAGE:
            check_page(dump, record, report);
            break;
        case STATE_LINK:
            check_link(dump, record, report);
            break;
        case STATE_PIN:
            check_pin(dump, record, report);
            break;
        case STATE_ENTRY:
        case STATE_PAST:
            check_version(dump, record, report);
            break;
        default:
            break;
        }
    }
    free(chunks.referenced.items);
    free(chunks.pinned.items);
    free(chunks.recorded.items);
}
