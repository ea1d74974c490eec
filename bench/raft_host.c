/* The measured group (raft_host.h). Its way of a proposal is that of metad/group.c: what waits becomes one entry while
 * fewer than FLIGHTS_MAX are out, the entry comes back in `committed`, whoever proposed it is answered. */
#include "raft_host.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "metad/host/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum {
    TIMER_TICK = 1,
    TOKEN_FLUSH = 1,
    FLIGHTS_MAX = 8,
    ENTRY_BYTES = 256 << 10,
    FLUSH_ENTRIES = 20000,
    FLUSH_BYTES = 32 << 20,
    KEEP_ENTRIES = 20000
};

struct proposal {
    struct address from;
    uint16_t type;
    uint64_t stream;
    struct slice data;
};
struct flight {
    uint64_t index, term;
    struct proposal *proposals; /* their data is gone */
    uint32_t count;
};

struct raft_host {
    struct raft_host_params params;
    struct raft *raft;
    struct raft_hard_state hard;
    bool booting; /* the boot entry's append is out */
    uint64_t applied, keys;
    uint64_t unflushed, unflushed_bytes;        /* entries since the last flush was asked for */
    uint64_t flushing_applied, flushed, pinned; /* 0: no flush is out; durable in the machine; metad/group.c */
    struct proposal *queue;
    unsigned long count, capacity;
    struct flight flights[FLIGHTS_MAX];
    uint32_t flight_count;
    const struct event *event;
    struct effects *fx;
};

struct raft_host *raft_host_create(const struct raft_host_params *params)
{
    struct raft_host *host = mem_alloc(sizeof *host);
    host->params = *params;
    return host;
}

static void flight_end(struct raft_host *host, uint32_t at)
{
    free(host->flights[at].proposals);
    host->flight_count--;
    memmove(&host->flights[at], &host->flights[at + 1], (host->flight_count - at) * sizeof host->flights[0]);
}

void raft_host_destroy(struct raft_host *host)
{
    for (unsigned long i = 0; i < host->count; i++) {
        slice_drop(&host->queue[i].data);
    }
    while (host->flight_count > 0) {
        flight_end(host, 0);
    }
    raft_destroy(host->raft);
    free(host->queue);
    free(host);
}

static void answer(struct raft_host *host, const struct proposal *p, enum err err)
{
    uint8_t flags = MESSAGE_REPLY;
    struct slice header = {0};
    if (err != ERR_OK) {
        flags |= MESSAGE_ERROR;
        header = error_reply_encode(err, NULL, host->raft != NULL ? raft_status(host->raft).leader : 0);
    }
    fx_answer(host->fx, p->from, p->type, p->stream, flags, header, (struct slice){0});
}

/* ---- log ---- */

static void log_send(struct raft_host *host, uint16_t type, struct writer *header, struct slice body)
{
    fx_send(host->fx, address_local(ACTOR_LOG, 0), type, 0, writer_take(header), body);
    writer_deinit(header);
}

static void log_append(struct raft_host *host, uint64_t number, bool hard_changed, struct raft_hard_state hard,
                       const struct raft_entry *entries, uint32_t count)
{
    struct writer header = {0};
    struct slice body = {0};
    writer_u32(&header, 0);
    writer_u64(&header, number);
    writer_u8(&header, hard_changed);
    writer_u64(&header, hard.term);
    writer_u32(&header, hard.vote);
    if (count > 0) {
        raft_entries_encode(entries, count, &body);
    }
    log_send(host, MESSAGE_LOG_APPEND, &header, body);
}

static void log_read(struct raft_host *host, uint64_t first, uint32_t count)
{
    struct writer header = {0};
    writer_u32(&header, 0);
    writer_u64(&header, first);
    writer_u32(&header, count);
    log_send(host, MESSAGE_LOG_READ, &header, (struct slice){0});
}

/* ---- machine ---- */

/* One key a proposal: the number of the proposal, the bytes of it. */
static void apply_keys(struct raft_host *host, struct kv_batch *batch, struct slice data)
{
    struct reader reader = reader_of(data.data, data.bytes);
    while (reader.left > 0) {
        uint8_t key[9] = {'k'};
        uint32_t bytes = reader_u32(&reader);
        const uint8_t *value = reader_take(&reader, bytes);
        CHECK(!reader.failed);
        put_be64(key + 1, host->keys++ * 0x9e3779b97f4a7c15u); /* anywhere in the key space */
        kv_batch_put(batch, key, sizeof key, value, bytes);
    }
}

static void apply(struct raft_host *host, const struct raft_entry *entry, struct kv_batch *batch)
{
    CHECK(entry->index == host->applied + 1);
    host->applied = entry->index;
    if (batch != NULL && entry->type == RAFT_ENTRY_COMMANDS) {
        apply_keys(host, batch, entry->data);
    }
    if (host->flight_count > 0 && host->flights[0].index == entry->index) {
        enum err err = host->flights[0].term == entry->term ? ERR_OK : ERR_NOT_LEADER;
        for (uint32_t i = 0; i < host->flights[0].count; i++) {
            answer(host, &host->flights[0].proposals[i], err);
        }
        flight_end(host, 0);
    }
}

static void apply_all(struct raft_host *host, const struct raft_update *update)
{
    uint8_t applied[8], key[] = {'a'};
    struct kv_batch *batch = host->params.kv != NULL && update->committed_count > 0 ? kv_batch_create() : NULL;
    for (uint32_t i = 0; i < update->committed_count; i++) {
        apply(host, &update->committed[i], batch);
        host->unflushed_bytes += update->committed[i].data.bytes;
    }
    host->unflushed += update->committed_count;
    if (batch != NULL) {
        put_u64(applied, host->applied);
        kv_batch_put(batch, key, sizeof key, applied, sizeof applied);
        fx_kv_commit(host->fx, batch);
    }
}

/* Behind what the machine holds durably the log is given up, as in metad: but for some entries, or some segments. */
static void cut(struct raft_host *host)
{
    struct raft_status status = raft_status(host->raft);
    uint64_t index = host->flushed > KEEP_ENTRIES ? host->flushed - KEEP_ENTRIES : 0;
    if (host->pinned > index) {
        index = host->pinned < host->flushed ? host->pinned : host->flushed;
    }
    if (index <= status.base) {
        return;
    }
    struct raft_event event = {.kind = RAFT_EVENT_COMPACTED, .random = host->event->random, .index = index};
    struct raft_update update;
    raft_step(host->raft, &event, &update);
    CHECK(update.number == 0 && update.message_count == 0 && update.committed_count == 0);
    struct writer header = {0};
    writer_u32(&header, 0);
    writer_u64(&header, index);
    writer_u64(&header, raft_status(host->raft).base_term);
    log_send(host, MESSAGE_LOG_CUT, &header, (struct slice){0});
}

static void flushed(struct raft_host *host)
{
    host->flushed = host->flushing_applied;
    host->flushing_applied = 0;
    cut(host);
}

/* A machine without keys has nothing to lose: it holds durably what it applied. */
static void flush(struct raft_host *host)
{
    if (host->flushing_applied != 0 || host->applied == host->flushed) {
        return;
    }
    host->unflushed = host->unflushed_bytes = 0;
    host->flushing_applied = host->applied;
    if (host->params.kv != NULL) {
        fx_kv_flush(host->fx, TOKEN_FLUSH);
    } else {
        flushed(host);
    }
}

/* ---- raft ---- */

static void wire_send(struct raft_host *host, const struct raft_message *m)
{
    const struct metad_config *config = host->params.config;
    Cairn__RaftMessage wire = CAIRN__RAFT_MESSAGE__INIT;
    wire.kind = m->kind;
    wire.cluster = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)config->cluster.uuid.bytes};
    wire.cluster_incarnation = config->cluster_incarnation;
    wire.from = m->from;
    wire.term = m->term;
    wire.log_index = m->log_index;
    wire.log_term = m->log_term;
    wire.commit = m->commit;
    wire.context = m->context;
    wire.reject = m->reject;
    wire.hint = m->hint;
    wire.hint_term = m->hint_term;
    struct slice body = {0};
    if (m->count > 0) {
        raft_entries_encode(m->entries, m->count, &body);
    }
    fx_send(host->fx, address_node(ROLE_METAD, m->to, ACTOR_GROUP, 0), MESSAGE_RAFT, 0, proto_pack(&wire), body);
}

static struct raft_update host_raft(struct raft_host *host, const struct raft_event *event)
{
    struct raft_update first = {0}, update;
    raft_step(host->raft, event, &first);
    update = first;
    for (;;) {
        if (update.number != 0) {
            log_append(host, update.number, update.hard_changed, update.hard, update.append, update.append_count);
        }
        for (uint32_t i = 0; i < update.message_count; i++) {
            wire_send(host, &update.messages[i]);
        }
        apply_all(host, &update);
        if (update.load_count > 0) {
            log_read(host, update.load_first, update.load_count);
        }
        if (!update.more) {
            return first;
        }
        struct raft_event more = {.kind = RAFT_EVENT_CONTINUE, .random = event->random};
        raft_step(host->raft, &more, &update);
    }
}

static void host_run(struct raft_host *host, const struct raft_term_run *runs, uint32_t run_count, uint64_t last)
{
    struct raft_params params = {
        .self = host->params.config->node,
        .election_ticks = 10,
        .heartbeat_ticks = 2,
        .window_entries = 256,
        .window_bytes = 4 << 20,
        .cache_bytes = 8 << 20,
    };
    struct raft_start start = {
        .hard = host->hard, .runs = runs, .run_count = run_count, .last = last, .random = host->event->random};
    struct raft_config *members = &start.config.config;
    for (; members->count < host->params.config->metad_count; members->count++) {
        members->members[members->count] =
            (struct raft_member){host->params.config->metads[members->count].node, RAFT_VOTER};
    }
    host->raft = raft_create(&params, &start);
}

static void on_opened(struct raft_host *host, struct slice header)
{
    struct reader reader = reader_of(header.data, header.bytes);
    host->hard.term = reader_u64(&reader);
    host->hard.vote = reader_u32(&reader);
    CHECK(reader_u64(&reader) == 0 && !reader.failed); /* measured from nothing */
    host->hard.term = 1;
    struct raft_entry boot = {1, 1, RAFT_ENTRY_BOOT, slice_borrow("bench", 5)};
    host->booting = true;
    log_append(host, 1, true, host->hard, &boot, 1);
}

static void on_appended(struct raft_host *host, struct slice header)
{
    if (host->booting) {
        struct raft_term_run run = {1, 1};
        host->booting = false;
        host_run(host, &run, 1, 1);
        return;
    }
    struct raft_event event = {
        .kind = RAFT_EVENT_PERSISTED, .random = host->event->random, .persisted = get_u64(header.data)};
    host_raft(host, &event);
}

static void on_loaded(struct raft_host *host, struct slice body)
{
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    enum err err = raft_entries_decode(body, &entries, &count);
    CHECK(err == ERR_OK && count > 0);
    struct raft_event event = {.kind = RAFT_EVENT_LOADED,
                               .random = host->event->random,
                               .loaded = entries,
                               .loaded_count = count,
                               .load_first = entries[0].index};
    host_raft(host, &event);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

static void on_raft(struct raft_host *host, const struct message *frame)
{
    struct proto_arena arena = {0};
    void *unpacked = NULL;
    enum err err = proto_unpack(&cairn__raft_message__descriptor, frame->header, &arena, &unpacked);
    CHECK(err == ERR_OK);
    const Cairn__RaftMessage *wire = unpacked;
    struct raft_message m = {.kind = (uint8_t)wire->kind,
                             .from = wire->from,
                             .to = host->params.config->node,
                             .term = wire->term,
                             .log_index = wire->log_index,
                             .log_term = wire->log_term,
                             .commit = wire->commit,
                             .context = wire->context,
                             .reject = wire->reject != 0,
                             .hint = wire->hint,
                             .hint_term = wire->hint_term};
    if (frame->body.bytes > 0) {
        err = raft_entries_decode(frame->body, &m.entries, &m.count);
        CHECK(err == ERR_OK);
    }
    struct raft_event event = {.kind = RAFT_EVENT_MESSAGE, .random = host->event->random, .message = &m};
    host_raft(host, &event);
    for (uint32_t i = 0; i < m.count; i++) {
        slice_drop(&m.entries[i].data);
    }
    free(m.entries);
    proto_arena_deinit(&arena);
}

/* ---- proposals ---- */

static void refuse_all(struct raft_host *host)
{
    for (unsigned long i = 0; i < host->count; i++) {
        answer(host, &host->queue[i], ERR_NOT_LEADER);
        slice_drop(&host->queue[i].data);
    }
    host->count = 0;
    while (host->flight_count > 0) {
        for (uint32_t i = 0; i < host->flights[0].count; i++) {
            answer(host, &host->flights[0].proposals[i], ERR_NOT_LEADER);
        }
        flight_end(host, 0);
    }
}

/* The first `count` of the queue as one entry. */
static void propose(struct raft_host *host, unsigned long count, struct writer *data)
{
    struct raft_event event = {.kind = RAFT_EVENT_PROPOSE, .random = host->event->random, .data = writer_take(data)};
    struct proposal *proposals = mem_alloc(count * sizeof *proposals);
    memcpy(proposals, host->queue, count * sizeof *proposals);
    memmove(host->queue, host->queue + count, (host->count - count) * sizeof *host->queue);
    host->count -= count;
    struct flight *flight = &host->flights[host->flight_count++];
    *flight = (struct flight){UINT64_MAX, 0, proposals, (uint32_t)count};
    struct raft_update update = host_raft(host, &event);
    CHECK(update.propose_err == ERR_OK); /* it leads, and eight entries are far from any bound */
    flight = &host->flights[host->flight_count - 1];
    flight->index = update.propose_index;
    flight->term = update.propose_term;
    slice_drop(&event.data);
}

static void pump(struct raft_host *host)
{
    if (host->raft == NULL || !raft_status(host->raft).ready) {
        refuse_all(host);
        return;
    }
    while (host->count > 0 && host->flight_count < FLIGHTS_MAX) {
        struct writer data = {0};
        unsigned long count = 0;
        size_t bytes = 0;
        for (; count < host->count && bytes < ENTRY_BYTES; count++) {
            struct slice *part = &host->queue[count].data;
            writer_u32(&data, (uint32_t)part->bytes);
            writer_put(&data, part->data, part->bytes);
            bytes += 4 + part->bytes;
            slice_drop(part);
        }
        propose(host, count, &data);
        writer_deinit(&data);
    }
}

static void on_proposal(struct raft_host *host, const struct message *m)
{
    host->queue = mem_grow(host->queue, &host->capacity, host->count + 1, sizeof *host->queue);
    host->queue[host->count++] = (struct proposal){m->from, m->type, m->stream, slice_ref(m->body)};
}

static void on_message(struct raft_host *host, const struct message *m)
{
    bool reply = (m->flags & MESSAGE_REPLY) != 0;
    CHECK(!(reply && m->flags & MESSAGE_ERROR));
    if (reply && m->type == MESSAGE_LOG_OPEN) {
        on_opened(host, m->header);
    } else if (reply && m->type == MESSAGE_LOG_APPEND) {
        on_appended(host, m->header);
    } else if (reply && m->type == MESSAGE_LOG_READ) {
        on_loaded(host, m->body);
    } else if (host->raft != NULL && m->type == MESSAGE_RAFT) {
        on_raft(host, m);
    } else if (host->raft != NULL && m->type == MESSAGE_LOG_PINNED) {
        host->pinned = get_u64(m->header.data + 4);
        flush(host);
    } else if (m->type == MESSAGE_PUT_SMALL) {
        on_proposal(host, m);
    }
}

static void on_timer(struct raft_host *host)
{
    fx_timer(host->fx, TIMER_TICK, host->event->now_ns + host->params.tick_ns);
    if (host->event->timer.id != TIMER_TICK) { /* the start */
        struct writer header = {0};
        writer_u32(&header, 0);
        log_send(host, MESSAGE_LOG_OPEN, &header, (struct slice){0});
    } else if (host->raft != NULL) {
        struct raft_event event = {.kind = RAFT_EVENT_TICK, .random = host->event->random};
        host_raft(host, &event);
    }
}

void raft_host_step(void *actor, const struct event *event, struct effects *fx)
{
    struct raft_host *host = actor;
    host->event = event;
    host->fx = fx;
    if (event->kind == EVENT_MESSAGE) {
        on_message(host, &event->message);
    } else if (event->kind == EVENT_TIMER) {
        on_timer(host);
    } else if (event->kind == EVENT_CLOSED && host->raft != NULL && event->peer.peer.role == ROLE_METAD) {
        struct raft_event closed = {
            .kind = RAFT_EVENT_PEER_CLOSED, .random = event->random, .peer = event->peer.peer.node};
        host_raft(host, &closed);
    } else if (event->kind == EVENT_KV_DONE) {
        CHECK(event->kv.err == ERR_OK);
        flushed(host);
    }
    if (host->unflushed >= FLUSH_ENTRIES || host->unflushed_bytes >= FLUSH_BYTES) {
        flush(host);
    }
    if (!event->more) {
        pump(host);
    }
}
