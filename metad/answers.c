/* Answers under their idempotency keys (answers.h). */
#include "metad/answers.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"

/* Remembered of so many devices, by their number: another one with the same place takes it. */
enum { ANSWERS_DEVICES = 256 };

struct answers_device {
    bool known;
    uint32_t device;
    uint64_t highest;
};
struct answers {
    uint64_t view; /* of the state it is of */
    struct answers_device devices[ANSWERS_DEVICES];
};

static struct key key_answer(struct prefix group, uint32_t device, uint64_t number)
{
    struct key key = key_begin(group, 'I');
    key_u32(&key, device);
    key_u64(&key, number);
    return key;
}

/* The highest number of the device, 0 when it has none. */
static uint64_t highest_read(struct state *state, uint32_t device)
{
    struct key before = key_answer(state->group, device, UINT64_MAX);
    key_u8(&before, 0);
    struct slice key = {0};
    struct slice value = {0};
    uint64_t highest = 0;
    enum err err = kv_prev(&state->kv->view, before.bytes, before.count, &key, &value);
    struct key own = key_answer(state->group, device, 0);
    if (err == ERR_OK && key.bytes == own.count && memcmp(key.data, own.bytes, own.count - 8) == 0) {
        highest = get_be64(key.data + key.bytes - 8);
    }
    slice_drop(&key);
    slice_drop(&value);
    return highest;
}

/* The same, remembered: a search of the database for each mutation was two fifths of what applying one cost. */
static struct answers_device *device_find(struct state *state, uint32_t device)
{
    if (state->answers == NULL || state->answers->view != state->group.view) {
        answers_forget(state);
        state->answers = mem_alloc(sizeof *state->answers);
        state->answers->view = state->group.view;
    }
    struct answers_device *found = &state->answers->devices[device % ANSWERS_DEVICES];
    if (!found->known || found->device != device) {
        *found = (struct answers_device){.known = true, .device = device, .highest = highest_read(state, device)};
    }
    return found;
}

void answers_forget(struct state *state)
{
    free(state->answers);
    state->answers = NULL;
}

/* Below the kept window nothing is remembered: drop what slides out of it, a few a command. */
static void answers_trim(struct state *state, uint32_t device, uint64_t highest)
{
    if (highest <= ANSWER_WINDOW) {
        return;
    }
    struct key from = key_answer(state->group, device, 0);
    for (int i = 0; i < 4; i++) {
        struct slice key = {0};
        struct slice value = {0};
        enum err err = kv_next(&state->kv->view, from.bytes, from.count, false, &key, &value);
        bool below = err == ERR_OK && key.bytes == from.count && memcmp(key.data, from.bytes, from.count - 8) == 0 &&
                     get_be64(key.data + key.bytes - 8) < highest - ANSWER_WINDOW;
        if (below) {
            kv_batch_delete(state->kv->batch, key.data, key.bytes);
        }
        slice_drop(&key);
        slice_drop(&value);
        if (!below) {
            return;
        }
    }
}

/* A number above all that the device had has no answer yet: nothing is searched for it. */
static bool answer_find(struct apply *apply, uint64_t highest, Cairn__AnswerRecord **ret_record)
{
    const Cairn__Command *command = apply->command;
    if (command->key > highest) {
        return false;
    }
    struct key key = key_answer(apply->state->group, command->device, command->key);
    return state_get(apply->state, &key, &cairn__answer_record__descriptor, apply->arena, ret_record) == ERR_OK;
}

bool answer_remembered(struct apply *apply, struct answer *answer)
{
    const Cairn__Command *command = apply->command;
    uint64_t highest = device_find(apply->state, command->device)->highest;
    Cairn__AnswerRecord *record = NULL;
    if (answer_find(apply, highest, &record)) {
        bool same = record->op == command->op && record->digest.len == command->digest.len &&
                    memcmp(record->digest.data, command->digest.data, record->digest.len) == 0;
        answer->err = same ? (enum err)record->code : ERR_KEY_REUSED;
        if (same) {
            answer->header = slice_copy(record->header.data, record->header.len);
            answer->body = slice_copy(record->body.data, record->body.len);
        }
        return true;
    }
    if (highest > ANSWER_WINDOW && command->key < highest - ANSWER_WINDOW) {
        answer->err = ERR_TOO_OLD;
        return true;
    }
    answers_trim(apply->state, command->device, highest);
    return false;
}

void answer_remember(struct apply *apply, const struct answer *answer)
{
    const Cairn__Command *command = apply->command;
    Cairn__AnswerRecord record = CAIRN__ANSWER_RECORD__INIT;
    record.op = command->op;
    record.code = (uint32_t)answer->err;
    record.digest = command->digest;
    record.header = (ProtobufCBinaryData){answer->header.bytes, answer->header.data};
    record.body = (ProtobufCBinaryData){answer->body.bytes, answer->body.data};
    struct key key = key_answer(apply->state->group, command->device, command->key);
    state_put(apply->state, &key, &record);
    struct answers_device *device = device_find(apply->state, command->device);
    device->highest = command->key > device->highest ? command->key : device->highest;
}
