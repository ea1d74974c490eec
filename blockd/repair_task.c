/* One shard that lacks: pulled as it is from a store that stands in for this one, or rebuilt from k others, checked
 * against the vector that all of them carry (R-A11), and stored with the holds of all of them, merged by maximum
 * (R-A6), in one record. How it fails: another source is taken where there is one; else the shard counts as missing, or
 * as refused when the vectors contradict each other or the bytes. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/compute.h"
#include "base/seal.h"
#include "repair.h"

#define HOLDER_BYTES 24u /* of a SHARD_PULL answer */

void repair_task_free(struct repair_task *task)
{
    for (unsigned i = 0; i < LIMIT_SHARDS; i++) {
        slice_drop(&task->pulls[i].shard);
    }
    slice_drop(&task->checks);
    slice_drop(&task->shard);
    free(task->holds);
    *task = (struct repair_task){0};
}

static void task_end(struct store *store, struct repair_task *task, enum err err)
{
    struct repair *repair = store->repair;
    switch (err) {
    case ERR_OK:
    case ERR_NOT_HERE:         /* nobody holds it any more */
    case ERR_OTHER_SHARD_HERE: /* a put came first */
        break;
    case ERR_CORRUPT:
    case ERR_CONFLICT:
        repair->done.refused++;
        store->counters.corrupt++;
        break;
    case ERR_DISK_FULL:
    case ERR_IO:
        repair->stopped = true; /* or each lacking shard would be pulled for nothing */
        repair->missing++;
        break;
    default:
        repair->missing++;
    }
    repair_task_free(task);
    repair->woken = true;
}

void repair_task_start(struct store *store, const struct shard_key *key, const uint32_t *from)
{
    struct repair *repair = store->repair;
    struct repair_task *task = repair->tasks;
    while (task->state != TASK_FREE) {
        task++;
        CHECK(task < repair->tasks + REPAIR_TASKS_MAX);
    }
    task->state = TASK_PULLING;
    task->id = ++repair->task_ids;
    task->key = *key;
    memcpy(task->from, from, sizeof task->from);
    task->woken = true;
}

uint32_t repair_task_count(const struct repair *repair)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        count += repair->tasks[i].state != TASK_FREE;
    }
    return count;
}

static struct repair_task *task_find(struct repair *repair, uint64_t id)
{
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        if (repair->tasks[i].state != TASK_FREE && repair->tasks[i].id == id) {
            return &repair->tasks[i];
        }
    }
    return NULL;
}

void repair_task_source_failed(struct repair *repair, uint32_t source)
{
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        struct repair_task *task = &repair->tasks[i];
        for (unsigned j = 0; task->state == TASK_PULLING && j < LIMIT_SHARDS; j++) {
            task->from[j] &= ~(1u << source);
            if (task->pulls[j].stream != 0 && task->pulls[j].source == source) {
                task->pulls[j].stream = 0;
            }
            task->woken = true;
        }
    }
}

/* ---- pulling ---- */

static void task_pull(struct store *store, struct repair_task *task, unsigned index, uint64_t now_ns,
                      struct effects *fx)
{
    struct repair *repair = store->repair;
    struct repair_pull *pull = &task->pulls[index];
    CHECK(task->from[index] != 0 && pull->stream == 0 && pull->shard.bytes == 0);
    pull->source = (uint32_t)__builtin_ctz(task->from[index]);
    pull->stream = ++repair->streams;
    pull->deadline_ns = now_ns + REPAIR_REQUEST_NS;
    uint8_t packed[SHARD_KEY_BYTES];
    struct shard_key key = task->key;
    key.index = (uint8_t)index;
    shard_key_encode(&key, packed);
    Cairn__ShardPullRequest request = CAIRN__SHARD_PULL_REQUEST__INIT;
    request.shard = (ProtobufCBinaryData){sizeof packed, packed};
    CHECK(pull->source < repair->scope.source_count);
    fx_send(fx, repair->scope.sources[pull->source].address, MESSAGE_SHARD_PULL, pull->stream, proto_pack(&request),
            (struct slice){0});
}

static void holds_merge(struct repair_task *task, const struct hold *hold)
{
    unsigned long at = 0;
    while (at < task->hold_count && task->holds[at].ns < hold->ns) {
        at++;
    }
    if (at < task->hold_count && task->holds[at].ns == hold->ns) {
        struct hold *mine = &task->holds[at];
        if (hold->ns_incarnation > mine->ns_incarnation ||
            (hold->ns_incarnation == mine->ns_incarnation && hold->generation > mine->generation)) {
            *mine = *hold;
        }
        return;
    }
    if (task->hold_count == REPAIR_HOLDERS_MAX) {
        return;
    }
    task->holds = mem_grow(task->holds, &task->hold_capacity, task->hold_count + 1, sizeof *task->holds);
    memmove(task->holds + at + 1, task->holds + at, (task->hold_count - at) * sizeof *task->holds);
    task->holds[at] = *hold;
    task->hold_count++;
}

/* A pulled shard against its own vector and against what the others said. INVALID: this one is of no use; CORRUPT: it
 * contradicts another. */
static enum err pull_check(struct repair_task *task, unsigned index, const Cairn__ShardPullReply *reply,
                           struct slice body)
{
    const struct shard_key *key = &task->key;
    struct slice checks = slice_borrow(reply->checks.data, reply->checks.len);
    if (reply->sealed_bytes < SEAL_HEADER_BYTES + SEAL_TAG_BYTES || reply->sealed_bytes > LIMIT_SEALED_BYTES ||
        reply->plain_bytes > LIMIT_CHUNK_BYTES || checks.bytes > RECORD_TAIL_MAX ||
        reply->holders.len % HOLDER_BYTES != 0 || body.bytes != code_shard_bytes(reply->sealed_bytes, key->k) ||
        !shard_checks_valid(checks, key->k + key->m, body.bytes) ||
        !shard_checks_match(checks, key->k + key->m, index, body)) {
        return ERR_INVALID;
    }
    if (task->checks.bytes == 0) {
        task->checks = slice_copy(checks.data, checks.bytes);
        task->sealed_bytes = reply->sealed_bytes;
        task->plain_bytes = reply->plain_bytes;
    } else if (!slice_equal(task->checks, checks) || task->sealed_bytes != reply->sealed_bytes ||
               task->plain_bytes != reply->plain_bytes) {
        return ERR_CORRUPT;
    }
    return ERR_OK;
}

static enum err pull_take(struct repair_task *task, unsigned index, const struct message *message)
{
    struct proto_arena arena = {0};
    Cairn__ShardPullReply *reply = NULL;
    if ((message->flags & MESSAGE_ERROR) != 0) {
        return ERR_INVALID;
    }
    enum err err = proto_unpack(&cairn__shard_pull_reply__descriptor, message->header, &arena, (void **)&reply);
    err = err == ERR_OK ? pull_check(task, index, reply, message->body) : ERR_INVALID;
    if (err == ERR_OK) {
        task->pulls[index].shard = slice_ref(message->body);
        for (size_t at = 0; at < reply->holders.len; at += HOLDER_BYTES) {
            const uint8_t *p = reply->holders.data + at;
            struct hold hold = {.ns = get_u64(p), .ns_incarnation = get_u64(p + 8), .generation = get_u64(p + 16)};
            holds_merge(task, &hold);
        }
    }
    proto_arena_deinit(&arena);
    return err;
}

bool repair_task_answered(struct store *store, const struct message *message)
{
    for (unsigned i = 0; i < REPAIR_TASKS_MAX; i++) {
        struct repair_task *task = &store->repair->tasks[i];
        for (unsigned j = 0; task->state == TASK_PULLING && j < LIMIT_SHARDS; j++) {
            struct repair_pull *pull = &task->pulls[j];
            if (pull->stream == 0 || pull->stream != message->stream) {
                continue;
            }
            pull->stream = 0;
            enum err err = pull_take(task, j, message);
            if (err == ERR_INVALID) {
                task->from[j] &= ~(1u << pull->source);
            } else {
                task->err = err;
            }
            task->woken = true;
            return true;
        }
    }
    return false;
}

/* ---- storing ---- */

/* True when the map seats this store for the shard, for one of those who hold it (R-B4). */
static bool task_seated(const struct store *store, const struct repair_task *task)
{
    for (unsigned long i = 0; i < task->hold_count; i++) {
        if (admission_seated(&store->admission, task->holds[i].ns, &task->key.chunk, task->key.index)) {
            return true;
        }
    }
    return false;
}

static void task_store(struct store *store, struct repair_task *task, unsigned long first, struct effects *fx)
{
    struct put_rebuilt rebuilt = {
        .key = task->key,
        .sealed_bytes = task->sealed_bytes,
        .plain_bytes = task->plain_bytes,
        .body = task->shard,
        .checks = task->checks,
        .holds = task->holds + first,
        .hold_count = (uint32_t)(task->hold_count - first),
        .task = task->id,
    };
    task->state = TASK_STORING;
    task->woken = false;
    put_rebuilt(store, &rebuilt, fx);
}

/* The shard is here whole: in `task->shard`. */
static void task_made(struct store *store, struct repair_task *task, struct effects *fx)
{
    const struct shard_key *key = &task->key;
    if (!shard_checks_match(task->checks, key->k + key->m, key->index, task->shard)) {
        task_end(store, task, ERR_CORRUPT);
    } else if (task->hold_count == 0 || !task_seated(store, task)) {
        task_end(store, task, ERR_NOT_HERE);
    } else {
        task_store(store, task, 0, fx);
    }
}

/* The record is durable. Holds that found no room in it, or a shard that a put brought first, follow one by one. */
static void task_stored(struct store *store, struct repair_task *task, struct effects *fx)
{
    if (task->err != ERR_OK) {
        task_end(store, task, task->err);
        return;
    }
    struct index_entry entry = {0};
    enum err err = index_get(store->kv, &task->key, &entry);
    unsigned long next = 0;
    while (err == ERR_OK && next < task->hold_count && index_hold_known(&entry, &task->holds[next])) {
        next++;
    }
    bool full = err == ERR_OK && entry.holder_count >= INDEX_HOLDERS_MAX;
    index_entry_deinit(&entry);
    if (err == ERR_WOULD_BLOCK) {
        store->repair->woken = task->woken = true;
    } else if (err != ERR_OK) {
        task_end(store, task, err == ERR_NOT_FOUND ? ERR_IO : err);
    } else if (next == task->hold_count || full) {
        store->counters.rebuilt++;
        store->repair->done.rebuilt++;
        task_end(store, task, ERR_OK);
    } else {
        task_store(store, task, next, fx);
    }
}

void repair_stored(struct store *store, uint64_t id, enum err err)
{
    struct repair_task *task = task_find(store->repair, id);
    CHECK(task != NULL && task->state == TASK_STORING);
    task->err = err;
    task->woken = store->repair->woken = true;
}

/* ---- rebuilding ---- */

static void task_rebuild(struct repair_task *task, struct effects *fx)
{
    struct compute_job *job = compute_job_create(COMPUTE_SHARD_REBUILD);
    job->priority = 2;
    job->k = task->key.k;
    job->m = task->key.m;
    job->want = 1u << task->key.index;
    for (unsigned i = 0; i < (unsigned)job->k + job->m; i++) {
        job->in[i] = slice_ref(task->pulls[i].shard);
    }
    task->state = TASK_REBUILDING;
    task->woken = false;
    fx_compute(fx, task->id, job);
}

void repair_computed(struct store *store, const struct event *event)
{
    struct repair_task *task = task_find(store->repair, event->compute.token);
    if (task == NULL || task->state != TASK_REBUILDING) {
        return;
    }
    task->err = event->compute.job->err;
    if (task->err == ERR_OK) {
        task->shard = slice_ref(event->compute.job->out[task->key.index]);
    }
    task->woken = store->repair->woken = true;
}

/* Asks for what is still needed, or goes on with what is here. */
static void task_gather(struct store *store, struct repair_task *task, uint64_t now_ns, struct effects *fx)
{
    unsigned index = task->key.index, here = 0, asked = 0;
    if (task->err != ERR_OK) {
        task_end(store, task, task->err);
        return;
    }
    if (task->pulls[index].shard.bytes > 0) {
        task->shard = slice_ref(task->pulls[index].shard);
        task_made(store, task, fx);
        return;
    }
    for (unsigned i = 0; i < LIMIT_SHARDS; i++) {
        here += task->pulls[i].shard.bytes > 0;
        asked += task->pulls[i].stream != 0;
    }
    if (task->pulls[index].stream != 0) {
        return;
    }
    if (here == task->key.k) {
        task_rebuild(task, fx);
        return;
    }
    if (task->from[index] != 0 && here + asked == 0) {
        task_pull(store, task, index, now_ns, fx);
        return;
    }
    for (unsigned i = 0; i < (unsigned)task->key.k + task->key.m && here + asked < task->key.k; i++) {
        if (i != index && task->from[i] != 0 && task->pulls[i].stream == 0 && task->pulls[i].shard.bytes == 0) {
            task_pull(store, task, i, now_ns, fx);
            asked++;
        }
    }
    if (here + asked < task->key.k) {
        task_end(store, task, ERR_UNAVAILABLE);
    }
}

void repair_task_step(struct store *store, struct repair_task *task, uint64_t now_ns, struct effects *fx)
{
    if (task->state == TASK_FREE || !task->woken) {
        return;
    }
    task->woken = false;
    switch (task->state) {
    case TASK_PULLING:
        task_gather(store, task, now_ns, fx);
        break;
    case TASK_REBUILDING:
        if (task->err != ERR_OK) {
            task_end(store, task, task->err);
        } else {
            task_made(store, task, fx);
        }
        break;
    case TASK_STORING:
        task_stored(store, task, fx);
        break;
    case TASK_FREE:
        break;
    }
}
