/* Records of a namespace's state (state.h). */
#include "state.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

void state_dump_deinit(struct state_dump *dump)
{
    for (unsigned long i = 0; i < dump->count; i++) {
        struct state_record *record = &dump->items[i];
        for (unsigned long r = 0; r < record->count_refs; r++) {
            free(record->refs[r]);
        }
        free(record->refs);
        free(record->name);
        free(record->other);
    }
    free(dump->items);
    *dump = (struct state_dump){0};
}

static char *copy(const char *text)
{
    char *made = text != NULL ? strdup(text) : NULL;
    CHECK(text == NULL || made != NULL);
    return made;
}

struct state_record *state_add(struct state_dump *dump, enum state_kind kind, const char *name, const char *other)
{
    dump->items = mem_grow(dump->items, &dump->capacity, dump->count + 1, sizeof *dump->items);
    struct state_record *record = &dump->items[dump->count++];
    *record = (struct state_record){.kind = kind, .name = copy(name), .other = copy(other)};
    return record;
}

void state_add_ref(struct state_record *page, const char *chunk)
{
    CHECK(page->kind == STATE_PAGE);
    page->refs = realloc(page->refs, (page->count_refs + 1) * sizeof *page->refs);
    CHECK(page->refs != NULL);
    page->refs[page->count_refs++] = copy(chunk);
}

enum { WORDS = 10 };

static uint64_t number(char *const words[WORDS], unsigned i)
{
    return words[i] != NULL ? strtoull(words[i], NULL, 10) : 0;
}

static const char *word(char *const words[WORDS], unsigned i)
{
    return words[i] != NULL && strcmp(words[i], "-") != 0 ? words[i] : NULL;
}

static void read_folder(struct state_dump *dump, char *const words[WORDS])
{
    struct state_record *record = state_add(dump, STATE_FOLDER, NULL, NULL);
    record->id = number(words, 1);
    record->parent = number(words, 2);
    record->count = number(words, 3);
    record->bytes = number(words, 4);
    record->digest_is_right = words[5] != NULL && strcmp(words[5], "sum") == 0;
    uint8_t packed[32];
    if (words[5] != NULL && hex_decode(words[5], sizeof packed, packed)) {
        for (int i = 0; i < 4; i++) {
            record->digest[i] = get_u64(packed + 8 * i);
        }
    }
}

static void read_page(struct state_dump *dump, char *const words[WORDS])
{
    struct state_record *record = state_add(dump, STATE_PAGE, word(words, 1), NULL);
    record->count = number(words, 2);
    char *save = NULL;
    for (char *ref = words[3] != NULL ? strtok_r(words[3], ",", &save) : NULL; ref != NULL;
         ref = strtok_r(NULL, ",", &save)) {
        state_add_ref(record, ref);
    }
}

/* Which word of a line goes where: name, other, id, parent, type, version, bytes, sequence, manifest, count, pins. */
static const struct shape {
    const char *word;
    enum state_kind kind;
    uint8_t name, other, id, parent, type, version, bytes, sequence, manifest, count, pins;
} shapes[] = {
    {.word = "namespace", .kind = STATE_NAMESPACE, .id = 1, .count = 2, .bytes = 3},
    {.word = "entry",
     .kind = STATE_ENTRY,
     .parent = 1,
     .name = 2,
     .type = 3,
     .id = 4,
     .version = 5,
     .bytes = 6,
     .sequence = 7,
     .manifest = 8,
     .count = 9},
    {.word = "past", .kind = STATE_PAST, .parent = 1, .name = 2, .sequence = 3, .manifest = 4, .count = 5},
    {.word = "event", .kind = STATE_EVENT, .sequence = 1, .type = 2, .parent = 3, .name = 4, .id = 5, .other = 6},
    {.word = "link", .kind = STATE_LINK, .manifest = 1, .sequence = 2, .other = 3, .count = 4},
    {.word = "chunk", .kind = STATE_CHUNK, .name = 1, .count = 2, .pins = 3},
    {.word = "pin", .kind = STATE_PIN, .id = 1, .other = 2},
    {.word = "session", .kind = STATE_SESSION, .id = 1},
};

static bool read_words(struct state_dump *dump, char *const words[WORDS])
{
    if (strcmp(words[0], "folder") == 0) {
        read_folder(dump, words);
        return true;
    }
    if (strcmp(words[0], "page") == 0) {
        read_page(dump, words);
        return true;
    }
    for (unsigned i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct shape *shape = &shapes[i];
        if (strcmp(words[0], shape->word) != 0) {
            continue;
        }
#define NUMBER(field) (shape->field != 0 ? number(words, shape->field) : 0)
        struct state_record *record = state_add(dump, shape->kind, shape->name != 0 ? word(words, shape->name) : NULL,
                                                shape->other != 0 ? word(words, shape->other) : NULL);
        record->id = NUMBER(id);
        record->parent = NUMBER(parent);
        record->type = NUMBER(type);
        record->version = NUMBER(version);
        record->bytes = NUMBER(bytes);
        record->sequence = NUMBER(sequence);
        record->manifest = NUMBER(manifest);
        record->count = NUMBER(count);
        record->pins = NUMBER(pins);
#undef NUMBER
        return true;
    }
    return false;
}

enum err state_read(struct state_dump *dump, FILE *file)
{
    char *line = NULL;
    size_t capacity = 0;
    bool good = true;
    while (good && getline(&line, &capacity, file) > 0) {
        char *words[WORDS] = {0}, *save = NULL;
        unsigned count = 0;
        for (char *at = strtok_r(line, " \n", &save); at != NULL && count < WORDS; at = strtok_r(NULL, " \n", &save)) {
            words[count++] = at;
        }
        good = count == 0 || words[0][0] == '#' || read_words(dump, words);
    }
    free(line);
    return good ? ERR_OK : ERR_INVALID;
}
