/* The small Raft host (group_host.h). Its steps: boot -> LOG_OPEN -> (first start: the bootstrap entry) -> raft, ticks,
 * messages; every raft_step's update is carried out in the order raft.h names. */
#include "group_host.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "io/runtime.h"
#include "metad/host/holes.h"
#include "metad/host/log.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

enum { TIMER_TICK = 1, TOKEN_FLUSH = 1, HOST_FLUSH_EVERY = 64 };

struct waiting { /* a proposal that was appended */
    uint64_t id, index, term;
};
struct reading {
    uint64_t id, index;
    bool ready;
};

struct host {
    struct host_params params;
    struct raft *raft;
    uint64_t stream; /* last used */
    uint64_t open_stream, load_stream;
    uint64_t boot_number; /* the bootstrap entry's append is out */
    struct raft_hard_state hard;
    uint64_t applied;
    uint64_t unflushed;
    struct waiting *waiting;
    unsigned long waiting_count, waiting_capacity;
    struct reading *reading;
    unsigned long reading_count, reading_capacity;
    uint64_t load_first;
    struct holes holes;
    uint64_t ask_again_ns;
    uint64_t heal_number;    /* of the LOG_HEAL that is out, 0 none */
    struct raft_entry heals; /* in it */
    struct {
        uint32_t node;
        uint64_t stream;
    } asked[LIMIT_RAFT_MEMBERS];
    struct { /* members that wait for the log's word on an entry */
        struct message asker;
        uint64_t stream;
    } fetches[LIMIT_RAFT_MEMBERS];
};

struct host *host_create(const struct host_params *params)
{
    struct host *host = mem_alloc(sizeof *host);
    host->params = *params;
    return host;
}

void host_destroy(void *self)
{
    struct host *host = self;
    raft_destroy(host->raft);
    holes_deinit(&host->holes);
    slice_drop(&host->heals.data);
    free(host->waiting);
    free(host->reading);
    free(host);
}

bool host_status(const struct host *host, struct raft_status *ret_status)
{
    if (host->raft == NULL) {
        return false;
    }
    *ret_status = raft_status(host->raft);
    return true;
}

static void applied_key(const struct host *host, uint8_t key[5])
{
    key[0] = 'a';
    put_be32(key + 1, host->params.group);
}

static uint64_t applied_load(const struct host *host)
{
    uint8_t key[5];
    struct slice value = {0};
    applied_key(host, key);
    enum err err = kv_get(host->params.kv, key, sizeof key, &value);
    if (err == ERR_NOT_FOUND) {
        return 0;
    }
    CHECK(err == ERR_OK && value.bytes == 8);
    uint64_t applied = get_u64(value.data);
    slice_drop(&value);
    return applied;
}

static void applied_commit(struct host *host, struct effects *fx)
{
    uint8_t key[5], value[8];
    applied_key(host, key);
    put_u64(value, host->applied);
    struct kv_batch *batch = kv_batch_create();
    kv_batch_put(batch, key, sizeof key, value, sizeof value);
    fx_kv_commit(fx, batch);
    if (++host->unflushed == HOST_FLUSH_EVERY) {
        host->unflushed = 0;
        fx_kv_flush(fx, TOKEN_FLUSH);
    }
}

static uint64_t log_send(struct host *host, struct effects *fx, uint16_t type, struct writer *header, struct slice body)
{
    uint64_t stream = ++host->stream;
    fx_send(fx, address_local(ACTOR_LOG, 0), type, stream, writer_take(header), body);
    writer_deinit(header);
    return stream;
}

static void log_append(struct host *host, struct effects *fx, uint64_t number, bool hard_changed,
                       struct raft_hard_state hard, const struct raft_entry *entries, uint32_t count)
{
    struct writer header = {0};
    struct slice body = {0};
    writer_u32(&header, host->params.group);
    writer_u64(&header, number);
    writer_u8(&header, hard_changed);
    writer_u64(&header, hard.term);
    writer_u32(&header, hard.vote);
    if (count > 0) {
        raft_entries_encode(entries, count, &body);
    }
    log_send(host, fx, MESSAGE_LOG_APPEND, &header, body);
}

static void raft_message_send(struct host *host, struct effects *fx, const struct raft_message *m)
{
    Cairn__RaftMessage header = CAIRN__RAFT_MESSAGE__INIT;
    header.kind = m->kind;
    header.group = host->params.group;
    header.from = m->from;
    header.term = m->term;
    header.log_index = m->log_index;
    header.log_term = m->log_term;
    header.commit = m->commit;
    header.context = m->context;
    header.reject = m->reject;
    header.hint = m->hint;
    header.hint_term = m->hint_term;
    header.sleep = m->sleep;
    struct slice body = {0};
    if (m->count > 0) {
        raft_entries_encode(m->entries, m->count, &body);
    }
    fx_send(fx, address_node(ROLE_METAD, m->to, ACTOR_GROUP, host->params.group), MESSAGE_RAFT, ++host->stream,
            proto_pack(&header), body);
}

static void apply_entry(struct host *host, const struct raft_entry *entry)
{
    const struct host_watch *watch = host->params.watch;
    CHECK(entry->index == host->applied + 1);
    host->applied = entry->index;
    watch->applied(watch->context, host->params.self, host->params.group, entry);
    unsigned long kept = 0;
    for (unsigned long i = 0; i < host->waiting_count; i++) {
        struct waiting *w = &host->waiting[i];
        if (w->index != entry->index) {
            host->waiting[kept++] = *w;
        } else if (w->term == entry->term) {
            watch->acknowledged(watch->context, host->params.group, w->id, w->index);
        }
    }
    host->waiting_count = kept;
}

static void answer_reads(struct host *host)
{
    const struct host_watch *watch = host->params.watch;
    unsigned long kept = 0;
    for (unsigned long i = 0; i < host->reading_count; i++) {
        struct reading *r = &host->reading[i];
        if (r->ready && host->applied >= r->index) {
            watch->read(watch->context, host->params.group, r->id, host->applied);
        } else {
            host->reading[kept++] = *r;
        }
    }
    host->reading_count = kept;
}

static void note_reads(struct host *host, const struct raft_update *update)
{
    for (uint32_t i = 0; i < update->read_count; i++) {
        for (unsigned long r = 0; r < host->reading_count; r++) {
            if (host->reading[r].id != update->reads[i].read_id) {
                continue;
            }
            if (update->reads[i].err == ERR_OK) {
                host->reading[r].ready = true;
                host->reading[r].index = update->reads[i].index;
            } else {
                host->reading[r] = host->reading[--host->reading_count];
            }
            break;
        }
    }
}

static void update_carry_out(struct host *host, struct effects *fx, const struct raft_update *update)
{
    if (update->append_count > 0) {
        holes_cut(&host->holes, update->append[0].index);
    }
    if (update->number != 0) {
        log_append(host, fx, update->number, update->hard_changed, update->hard, update->append, update->append_count);
    }
    for (uint32_t i = 0; i < update->message_count; i++) {
        raft_message_send(host, fx, &update->messages[i]);
    }
    for (uint32_t i = 0; i < update->committed_count; i++) {
        apply_entry(host, &update->committed[i]);
    }
    if (update->committed_count > 0) {
        applied_commit(host, fx);
    }
    note_reads(host, update);
    answer_reads(host);
    if (update->load_count > 0) {
        struct writer header = {0};
        writer_u32(&header, host->params.group);
        writer_u64(&header, update->load_first);
        writer_u32(&header, update->load_count);
        host->load_first = update->load_first;
        host->load_stream = log_send(host, fx, MESSAGE_LOG_READ, &header, (struct slice){0});
    }
}

/* Steps Raft and carries out its updates; what the proposal of the event came to is in the first. */
static struct raft_update host_raft_step(struct host *host, struct effects *fx, const struct raft_event *event)
{
    struct raft_update first = {0};
    raft_step(host->raft, event, &first);
    update_carry_out(host, fx, &first);
    struct raft_update update = first;
    while (update.more) {
        struct raft_event more = {.kind = RAFT_EVENT_CONTINUE, .random = event->random};
        raft_step(host->raft, &more, &update);
        update_carry_out(host, fx, &update);
    }
    return first;
}

static void host_open(struct host *host, struct effects *fx)
{
    struct writer header = {0};
    writer_u32(&header, host->params.group);
    host->open_stream = log_send(host, fx, MESSAGE_LOG_OPEN, &header, (struct slice){0});
}

static void host_run(struct host *host, const struct event *event, struct effects *fx, const struct raft_term_run *runs,
                     uint32_t run_count, uint64_t last)
{
    struct raft_params params = {
        .group = host->params.group,
        .self = host->params.self,
        .election_ticks = 10,
        .heartbeat_ticks = 1,
        .window_entries = 64,
        .window_bytes = 1 << 20,
        .cache_bytes = host->params.cache_bytes,
    };
    /* a machine that only counts can go back: an entry it counted and cannot be read is fetched like any other */
    uint64_t hole = holes_index(&host->holes), applied = applied_load(host);
    CHECK(applied <= last);
    host->applied = hole != 0 && hole <= applied ? hole - 1 : applied;
    struct raft_start start = {.hard = host->hard,
                               .runs = runs,
                               .run_count = run_count,
                               .last = last,
                               .hole = hole,
                               .applied = host->applied,
                               .random = event->random};
    for (uint32_t i = 0; i < host->params.member_count; i++) {
        start.config.config.members[i] = (struct raft_member){host->params.members[i], RAFT_VOTER};
    }
    start.config.config.count = host->params.member_count;
    host->raft = raft_create(&params, &start);
    host->params.watch->opened(host->params.watch->context, host->params.self, host->params.group, host->applied);
    fx_timer(fx, TIMER_TICK, event->now_ns + host->params.tick_ns);
}

static void host_opened(struct host *host, const struct event *event, struct effects *fx)
{
    CHECK(!(event->message.flags & MESSAGE_ERROR));
    struct reader r = reader_of(event->message.header.data, event->message.header.bytes);
    host->hard.term = reader_u64(&r);
    host->hard.vote = reader_u32(&r);
    uint64_t last = reader_u64(&r), base = reader_u64(&r);
    (void)reader_u64(&r); /* base term */
    uint32_t run_count = reader_u32(&r);
    CHECK(!r.failed && run_count <= r.left / 16 && base == 0);
    struct raft_term_run *runs = mem_alloc(run_count * sizeof *runs);
    for (uint32_t i = 0; i < run_count; i++) {
        runs[i].first = reader_u64(&r);
        runs[i].term = reader_u64(&r);
    }
    uint32_t configs = reader_u32(&r);
    bool unsure = reader_u8(&r) != 0;
    uint64_t behind = 0, rot_last = 0;
    bool told = holes_read(&host->holes, &r, 0, &behind, &rot_last);
    CHECK(!r.failed && configs == 0 && told && behind == 0 && r.left == 12);
    if (unsure) {
        host->params.watch->unsure(host->params.watch->context, host->params.self, host->params.group);
    } else if (last > 0) {
        host_run(host, event, fx, runs, run_count, last);
    } else { /* the first start: entry 1 is the same on each member */
        host->hard.term = host->hard.term > 1 ? host->hard.term : 1;
        struct raft_entry boot = {1, 1, RAFT_ENTRY_BOOT, slice_borrow("bootstrap", 9)};
        host->boot_number = 1;
        log_append(host, fx, host->boot_number, true, host->hard, &boot, 1);
    }
    free(runs);
}

static void host_appended(struct host *host, const struct event *event, struct effects *fx)
{
    CHECK(!(event->message.flags & MESSAGE_ERROR));
    CHECK(event->message.header.bytes == 16);
    uint64_t number = get_u64(event->message.header.data);
    if (host->boot_number != 0) {
        CHECK(number == host->boot_number);
        host->boot_number = 0;
        struct raft_term_run run = {1, 1};
        host_run(host, event, fx, &run, 1, 1);
        return;
    }
    struct raft_event e = {.kind = RAFT_EVENT_PERSISTED, .random = event->random, .persisted = number};
    host_raft_step(host, fx, &e);
}

static void host_loaded(struct host *host, const struct event *event, struct effects *fx)
{
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    if (event->message.flags & MESSAGE_ERROR) {
        fx_halt(fx, error_reply_decode(event->message.header, NULL), "the log cannot be read back");
        return;
    }
    enum err err = raft_entries_decode(event->message.body, &entries, &count);
    CHECK(err == ERR_OK);
    struct raft_event e = {.kind = RAFT_EVENT_LOADED,
                           .random = event->random,
                           .loaded = entries,
                           .loaded_count = count,
                           .load_first = host->load_first};
    host_raft_step(host, fx, &e);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
}

static void host_raft_message(struct host *host, const struct event *event, struct effects *fx)
{
    struct proto_arena arena = {0};
    Cairn__RaftMessage *header = NULL;
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    enum err err = proto_unpack(&cairn__raft_message__descriptor, event->message.header, &arena, (void **)&header);
    CHECK(err == ERR_OK && header->from == event->message.peer.id && header->group == host->params.group);
    if (event->message.body.bytes > 0) {
        err = raft_entries_decode(event->message.body, &entries, &count);
        CHECK(err == ERR_OK);
    }
    struct raft_message m = {.kind = (uint8_t)header->kind,
                             .from = header->from,
                             .to = host->params.self,
                             .term = header->term,
                             .log_index = header->log_index,
                             .log_term = header->log_term,
                             .commit = header->commit,
                             .context = header->context,
                             .reject = header->reject != 0,
                             .hint = header->hint,
                             .hint_term = header->hint_term,
                             .sleep = header->sleep,
                             .entries = entries,
                             .count = count};
    struct raft_event e = {.kind = RAFT_EVENT_MESSAGE, .random = event->random, .message = &m};
    host_raft_step(host, fx, &e);
    for (uint32_t i = 0; i < count; i++) {
        slice_drop(&entries[i].data);
    }
    free(entries);
    proto_arena_deinit(&arena);
}

/* ---- a log with holes: as metad/host/heal.c, but for snapshots ---- */

static void heal_ask(struct host *host, const struct event *event, struct effects *fx)
{
    const struct hole *hole = holes_first(&host->holes);
    if (hole == NULL || host->heal_number != 0) {
        return;
    }
    host->ask_again_ns = event->now_ns + 5 * host->params.tick_ns;
    for (uint32_t i = 0; i < host->params.member_count; i++) {
        uint32_t node = host->params.members[i];
        Cairn__EntryFetch fetch = CAIRN__ENTRY_FETCH__INIT;
        fetch.group = host->params.group;
        fetch.from = host->params.self;
        fetch.index = hole->index;
        fetch.index_term = hole->term;
        host->asked[i].node = node;
        host->asked[i].stream = ++host->stream;
        if (node != host->params.self) {
            fx_send(fx, address_node(ROLE_METAD, node, ACTOR_GROUP, host->params.group), MESSAGE_ENTRY_FETCH,
                    host->stream, proto_pack(&fetch), (struct slice){0});
        }
    }
}

static void heal_trim(struct host *host, const struct event *event, struct effects *fx)
{
    if (host->heal_number != 0 || !holes_may_trim(&host->holes, host->raft)) {
        return;
    }
    struct raft_event e = {.kind = RAFT_EVENT_TRIMMED, .random = event->random, .index = holes_index(&host->holes)};
    struct writer header = {0};
    writer_u32(&header, host->params.group);
    writer_u64(&header, e.index);
    log_send(host, fx, MESSAGE_LOG_TRIM, &header, (struct slice){0});
    holes_cut(&host->holes, e.index);
    host_raft_step(host, fx, &e);
}

static void heal_write(struct host *host, struct effects *fx, struct slice body)
{
    const struct hole *hole = holes_first(&host->holes);
    struct raft_entry *entries = NULL;
    uint32_t count = 0;
    enum err err = raft_entries_decode(body, &entries, &count);
    CHECK(err == ERR_OK && count == 1 && entries[0].index == hole->index && entries[0].term == hole->term);
    host->heals = entries[0];
    host->heals.data = slice_copy(entries[0].data.data, entries[0].data.bytes);
    slice_drop(&entries[0].data);
    free(entries);
    host->heal_number = ++host->stream;
    struct writer header = {0};
    writer_u32(&header, host->params.group);
    writer_u64(&header, host->heal_number);
    log_send(host, fx, MESSAGE_LOG_HEAL, &header, slice_ref(body));
}

static void heal_answered(struct host *host, const struct event *event, struct effects *fx)
{
    const struct message *m = &event->message;
    struct proto_arena arena = {0};
    Cairn__EntryFetchReply *reply = NULL;
    uint32_t node = 0;
    for (uint32_t i = 0; i < host->params.member_count; i++) {
        node = host->asked[i].stream == m->stream ? host->asked[i].node : node;
    }
    bool wanted = node != 0 && !(m->flags & MESSAGE_ERROR) && holes_first(&host->holes) != NULL;
    if (wanted && host->heal_number == 0) {
        enum err err = proto_unpack(&cairn__entry_fetch_reply__descriptor, m->header, &arena, (void **)&reply);
        CHECK(err == ERR_OK);
        if (reply->verdict == LOG_HAS) {
            heal_write(host, fx, m->body);
        } else {
            holes_hear(&host->holes, node, reply->verdict);
            heal_trim(host, event, fx);
        }
    }
    proto_arena_deinit(&arena);
}

static void heal_written(struct host *host, const struct event *event, struct effects *fx)
{
    CHECK(event->message.header.bytes == 8 && get_u64(event->message.header.data) == host->heal_number);
    struct raft_entry entry = host->heals;
    const struct hole *hole = holes_first(&host->holes);
    bool still = hole != NULL && hole->index == entry.index && hole->term == entry.term;
    host->heals = (struct raft_entry){0};
    host->heal_number = 0;
    memset(host->asked, 0, sizeof host->asked);
    if (still && holes_passed(&host->holes, entry.index)) {
        struct raft_event e = {.kind = RAFT_EVENT_HEALED,
                               .random = event->random,
                               .loaded = &entry,
                               .loaded_count = 1,
                               .index = holes_index(&host->holes)};
        host_raft_step(host, fx, &e);
    }
    slice_drop(&entry.data);
    heal_ask(host, event, fx);
}

/* A member asks: what this node's log has of the entry. */
static void heal_asked(struct host *host, const struct event *event, struct effects *fx)
{
    struct proto_arena arena = {0};
    Cairn__EntryFetch *fetch = NULL;
    enum err err = proto_unpack(&cairn__entry_fetch__descriptor, event->message.header, &arena, (void **)&fetch);
    CHECK(err == ERR_OK && fetch->group == host->params.group);
    struct writer header = {0};
    writer_u32(&header, host->params.group);
    writer_u64(&header, fetch->index);
    writer_u64(&header, fetch->index_term);
    uint32_t slot = fetch->from % LIMIT_RAFT_MEMBERS;
    host->fetches[slot].asker = event->message;
    host->fetches[slot].asker.header = host->fetches[slot].asker.body = (struct slice){0};
    host->fetches[slot].stream = log_send(host, fx, MESSAGE_LOG_FETCH, &header, (struct slice){0});
    proto_arena_deinit(&arena);
}

static void heal_fetched(struct host *host, const struct event *event, struct effects *fx)
{
    const struct message *m = &event->message;
    for (uint32_t i = 0; i < LIMIT_RAFT_MEMBERS; i++) {
        if (host->fetches[i].stream == m->stream) {
            Cairn__EntryFetchReply reply = CAIRN__ENTRY_FETCH_REPLY__INIT;
            reply.verdict = m->header.data[0];
            fx_reply(fx, &host->fetches[i].asker, proto_pack(&reply), slice_ref(m->body));
            host->fetches[i].stream = 0;
        }
    }
}

static void host_propose(struct host *host, const struct event *event, struct effects *fx)
{
    host->waiting = mem_grow(host->waiting, &host->waiting_capacity, host->waiting_count + 1, sizeof *host->waiting);
    struct raft_event e = {.kind = RAFT_EVENT_PROPOSE, .random = event->random, .data = event->message.body};
    struct raft_update update = host_raft_step(host, fx, &e);
    if (update.propose_err == ERR_OK) {
        host->waiting[host->waiting_count++] =
            (struct waiting){event->message.stream, update.propose_index, update.propose_term};
    }
}

static void host_read(struct host *host, const struct event *event, struct effects *fx)
{
    host->reading = mem_grow(host->reading, &host->reading_capacity, host->reading_count + 1, sizeof *host->reading);
    host->reading[host->reading_count++] = (struct reading){.id = event->message.stream};
    struct raft_event e = {.kind = RAFT_EVENT_READ, .random = event->random, .read_id = event->message.stream};
    host_raft_step(host, fx, &e);
}

static void host_message(struct host *host, const struct event *event, struct effects *fx)
{
    const struct message *m = &event->message;
    if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_LOG_OPEN && m->stream == host->open_stream) {
        host_opened(host, event, fx);
    } else if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_LOG_APPEND) {
        host_appended(host, event, fx);
    } else if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_LOG_READ && m->stream == host->load_stream) {
        host_loaded(host, event, fx);
    } else if (host->raft == NULL) {
        return; /* still starting: peers try again */
    } else if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_LOG_HEAL) {
        heal_written(host, event, fx);
    } else if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_LOG_FETCH) {
        heal_fetched(host, event, fx);
    } else if (m->flags & MESSAGE_REPLY && m->type == MESSAGE_ENTRY_FETCH) {
        heal_answered(host, event, fx);
    } else if (m->type == MESSAGE_ENTRY_FETCH) {
        heal_asked(host, event, fx);
    } else if (m->type == MESSAGE_RAFT) {
        host_raft_message(host, event, fx);
    } else if (m->type == HOST_PROPOSE) {
        host_propose(host, event, fx);
    } else if (m->type == HOST_READ) {
        host_read(host, event, fx);
    }
}

void host_step(void *self, const struct event *event, struct effects *fx)
{
    struct host *host = self;
    switch (event->kind) {
    case EVENT_MESSAGE:
        host_message(host, event, fx);
        break;
    case EVENT_TIMER:
        if (event->timer.id == RUNTIME_TIMER_BOOT) {
            host_open(host, fx);
        } else {
            struct raft_event e = {.kind = RAFT_EVENT_TICK, .random = event->random};
            host_raft_step(host, fx, &e);
            if (holes_first(&host->holes) != NULL) {
                heal_trim(host, event, fx);
            }
            if (event->now_ns >= host->ask_again_ns) {
                heal_ask(host, event, fx);
            }
            fx_timer(fx, TIMER_TICK, event->now_ns + host->params.tick_ns);
        }
        break;
    case EVENT_CLOSED:
        if (host->raft != NULL && event->peer.peer.role == ROLE_METAD) {
            struct raft_event e = {
                .kind = RAFT_EVENT_PEER_CLOSED, .random = event->random, .peer = event->peer.peer.node};
            host_raft_step(host, fx, &e);
        }
        break;
    case EVENT_KV_DONE:
    case EVENT_ROOM:
    case EVENT_DISK_DONE:
    case EVENT_COMPUTE_DONE:
        break;
    }
}
