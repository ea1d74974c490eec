/* The agent as a transcript: what it asks of whom, when a leader moves, when nobody answers, when a map is newer, and
 * what it tells its stores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "blockd/blockd.h"
#include "blockd/report.h"
#include "proto/cairn.pb-c.h"
#include "proto/message.h"

#define SECOND 1000000000ull

/* The agent of blockd:7 with two stores and three metadata nodes, and the last of each kind it sent. */
struct scene {
    struct agent *agent;
    struct effects fx;
    uint64_t now_ns;
    struct address to; /* of the last request */
    uint16_t type;
    uint64_t stream;
    struct slice header;
    unsigned requests;
    struct slice told[2]; /* STORE_STATE per store */
    unsigned tells;
    uint64_t deadlines[3];
};

static const struct cluster_id test_cluster = {{{4, 5, 6}}};

static void scene_take(struct scene *s)
{
    for (unsigned long i = 0; i < s->fx.count; i++) {
        struct effect *effect = &s->fx.items[i];
        if (effect->kind == EFFECT_TIMER) {
            assert_in_range(effect->timer.id, 1, 2);
            s->deadlines[effect->timer.id] = effect->timer.deadline_ns;
        } else if (effect->send.to.role == ROLE_LOCAL) {
            assert_int_equal(effect->send.type, MESSAGE_STORE_STATE);
            assert_int_equal(effect->send.to.actor, ACTOR_STORE);
            slice_drop(&s->told[effect->send.to.index]);
            s->told[effect->send.to.index] = effect->send.header;
            s->tells++;
        } else {
            assert_int_equal(effect->kind, EFFECT_SEND);
            assert_int_equal(effect->send.to.role, ROLE_METAD);
            assert_int_equal(effect->send.to.actor, ACTOR_GROUP);
            assert_int_equal(effect->send.to.index, 0);
            slice_drop(&s->header);
            s->to = effect->send.to;
            s->type = effect->send.type;
            s->stream = effect->send.stream;
            s->header = effect->send.header;
            s->requests++;
        }
    }
    s->fx.count = 0;
}

static void scene_step(struct scene *s, struct event *event)
{
    event->now_ns = s->now_ns;
    event->random = 0x123456789abcdefull * (s->now_ns + 1);
    agent_step(s->agent, event, &s->fx);
    scene_take(s);
}

static void scene_init(struct scene *s)
{
    *s = (struct scene){.now_ns = SECOND};
    const struct agent_params params = {
        .node = 7,
        .cluster = test_cluster,
        .cluster_incarnation = 3,
        .address = "127.0.0.1:7107",
        .host = "h7",
        .rack = "r1",
        .store_count = 2,
        .metads = {1, 2, 3},
        .metad_count = 3,
        .heartbeat_ns = SECOND,
    };
    s->agent = agent_create(&params);
    scene_step(s, &(struct event){.kind = EVENT_TIMER, .timer.id = 0});
}

static void scene_deinit_keeping(struct scene *s, size_t bytes)
{
    agent_destroy(s->agent);
    slice_drop(&s->header);
    slice_drop(&s->told[0]);
    slice_drop(&s->told[1]);
    effects_deinit(&s->fx);
    assert_int_equal(slice_live_bytes(), bytes);
}

static void scene_deinit(struct scene *s)
{
    scene_deinit_keeping(s, 0);
}

static void scene_report(struct scene *s, uint32_t position, bool ready, uint64_t last_record)
{
    struct store_report report = {
        .position = position,
        .ready = ready,
        .uuid = {{9, (uint8_t)position}},
        .incarnation = 70 + position,
        .last_record = last_record,
        .used_bytes = 4096,
        .capacity_bytes = 1 << 20,
        .counters = {.syncs = 5, .shards = 6, .refused = 7},
    };
    struct event event = {.kind = EVENT_MESSAGE};
    event.message.type = MESSAGE_STORE_REPORT;
    event.message.peer.role = ROLE_LOCAL;
    event.message.header = store_report_encode(&report);
    scene_step(s, &event);
    slice_drop(&event.message.header);
}

static void scene_reply(struct scene *s, uint32_t node, uint64_t stream, uint8_t flags, struct slice header)
{
    struct event event = {.kind = EVENT_MESSAGE};
    event.message.type = s->type;
    event.message.flags = MESSAGE_REPLY | flags;
    event.message.stream = stream;
    event.message.from = address_node(ROLE_METAD, node, ACTOR_GROUP, 0);
    event.message.peer = (struct principal){.role = ROLE_METAD, .id = node};
    event.message.header = header;
    scene_step(s, &event);
    slice_drop(&event.message.header);
}

static void scene_refuse(struct scene *s, enum err err, uint32_t leader)
{
    scene_reply(s, s->to.node, s->stream, MESSAGE_ERROR, error_reply_encode(err, NULL, leader));
}

static void map_init(Cairn__ClusterMap *map, uint64_t epoch, uint64_t tick)
{
    cairn__cluster_map__init(map);
    map->cluster.data = (uint8_t *)&test_cluster;
    map->cluster.len = sizeof test_cluster;
    map->cluster_incarnation = 3;
    map->epoch = epoch;
    map->tick = tick;
}

static void scene_accept(struct scene *s, uint32_t store, uint64_t epoch, uint64_t tick)
{
    uint8_t key[32];
    memset(key, (int)store, sizeof key);
    Cairn__ClusterMap map;
    map_init(&map, epoch, tick);
    Cairn__StoreRegisterReply reply = CAIRN__STORE_REGISTER_REPLY__INIT;
    reply.store = store;
    reply.incarnation = 100 + store;
    reply.receipt_key.data = key;
    reply.receipt_key.len = sizeof key;
    reply.map = &map;
    scene_reply(s, s->to.node, s->stream, 0, proto_pack(&reply));
}

static void scene_hear(struct scene *s, uint64_t tick, const Cairn__ClusterMap *map)
{
    Cairn__StoreHeartbeatReply reply = CAIRN__STORE_HEARTBEAT_REPLY__INIT;
    reply.tick = tick;
    reply.map = (Cairn__ClusterMap *)map;
    reply.map_epoch = map ? map->epoch : 0;
    scene_reply(s, s->to.node, s->stream, 0, proto_pack(&reply));
}

/* Lets the timer of a store run out. */
static void scene_wait(struct scene *s, uint32_t position)
{
    assert_int_not_equal(s->deadlines[1 + position], 0);
    if (s->deadlines[1 + position] > s->now_ns) {
        s->now_ns = s->deadlines[1 + position];
    }
    scene_step(s, &(struct event){.kind = EVENT_TIMER, .timer.id = 1 + position});
}

static struct store_state scene_told(struct scene *s, uint32_t position)
{
    struct store_state state;
    assert_int_equal(store_state_decode(s->told[position], &state), ERR_OK);
    return state;
}

static void test_register(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, false, 0);
    assert_int_equal(s.requests, 0); /* not before the store has recovered */
    scene_report(&s, 1, true, 42);
    assert_int_equal(s.requests, 1);
    assert_int_equal(s.type, MESSAGE_STORE_REGISTER);
    struct proto_arena arena = {0};
    Cairn__StoreRegisterRequest *request = NULL;
    assert_int_equal(proto_unpack(&cairn__store_register_request__descriptor, s.header, &arena, (void **)&request),
                     ERR_OK);
    assert_int_equal(request->node, 7);
    assert_int_equal(request->position, 1);
    assert_int_equal(request->incarnation, 71);
    assert_int_equal(request->last_record, 42);
    assert_string_equal(request->address, "127.0.0.1:7107");
    assert_string_equal(request->rack, "r1");
    assert_int_equal(request->uuid.data[1], 1);
    proto_arena_deinit(&arena);
    assert_int_equal(s.tells, 0);
    scene_accept(&s, 4, 9, 100);
    struct store_state told = scene_told(&s, 1);
    assert_int_equal(told.store, 4);
    assert_int_equal(told.incarnation, 104);
    assert_int_equal(told.receipt_key[31], 4);
    assert_int_equal(told.tick, 100);
    assert_true(told.map.bytes > 0);
    scene_wait(&s, 1);
    assert_int_equal(s.type, MESSAGE_STORE_HEARTBEAT);
    Cairn__StoreHeartbeatRequest *beat = NULL;
    assert_int_equal(proto_unpack(&cairn__store_heartbeat_request__descriptor, s.header, &arena, (void **)&beat),
                     ERR_OK);
    assert_int_equal(beat->store, 4);
    assert_int_equal(beat->incarnation, 104);
    assert_int_equal(beat->last_record, 42);
    assert_int_equal(beat->map_epoch, 9);
    assert_int_equal(beat->counters->refused, 7);
    proto_arena_deinit(&arena);
    scene_deinit(&s);
}

static void test_redirect(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, true, 1);
    uint32_t first = s.to.node, leader = first == 3 ? 1 : 3;
    scene_refuse(&s, ERR_NOT_LEADER, leader);
    assert_int_equal(s.requests, 2); /* at once */
    assert_int_equal(s.to.node, leader);
    scene_refuse(&s, ERR_NOT_LEADER, first); /* they name each other: no storm */
    assert_int_equal(s.requests, 2);
    scene_wait(&s, 0);
    assert_int_equal(s.to.node, first);
    scene_refuse(&s, ERR_NOT_LEADER, 0); /* knows none: the next in turn */
    scene_wait(&s, 0);
    assert_int_equal(s.to.node, first % 3 + 1);
    scene_accept(&s, 4, 9, 100);
    scene_wait(&s, 0);
    assert_int_equal(s.type, MESSAGE_STORE_HEARTBEAT);
    assert_int_equal(s.to.node, first % 3 + 1);
    scene_deinit(&s);
}

/* However long nobody led: who leads then hears of the store well before it would call it down (STORE_SILENT_NS). */
static void test_new_leader_is_found_soon(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct scene s;
        scene_init(&s);
        s.now_ns += i * 777777;
        scene_report(&s, 0, true, 1);
        uint64_t led_ns = s.now_ns + (1 + i % 12) * SECOND;
        while (s.now_ns < led_ns) {
            scene_refuse(&s, ERR_NOT_LEADER, 0);
            scene_wait(&s, 0);
        }
        uint32_t leader = 1 + i % 3;
        while (s.to.node != leader) {
            unsigned requests = s.requests;
            scene_refuse(&s, ERR_NOT_LEADER, leader);
            if (s.requests == requests) {
                scene_wait(&s, 0);
            }
        }
        assert_in_range(s.now_ns - led_ns, 0, 1200000000);
        scene_deinit(&s);
    }
}

static void test_silence(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, true, 1);
    uint32_t first = s.to.node;
    uint64_t old = s.stream;
    scene_wait(&s, 0); /* no answer in time */
    assert_int_equal(s.requests, 1);
    scene_wait(&s, 0); /* backed off */
    assert_int_equal(s.to.node, first % 3 + 1);
    assert_int_not_equal(s.stream, old);
    unsigned tells = s.tells;
    scene_reply(&s, first, old, MESSAGE_ERROR, error_reply_encode(ERR_INVALID, NULL, 0)); /* late: nothing */
    assert_int_equal(s.tells, tells);
    struct event closed = {.kind = EVENT_CLOSED, .peer = {address_node(ROLE_METAD, s.to.node, 0, 0), ERR_CLOSED}};
    uint32_t second = s.to.node;
    scene_step(&s, &closed);
    scene_wait(&s, 0);
    assert_int_equal(s.to.node, second % 3 + 1);
    uint64_t longest = 0;
    for (unsigned i = 0; i < 40; i++) { /* the back-off grows and is bounded */
        scene_refuse(&s, ERR_NO_QUORUM, 0);
        uint64_t wait = s.deadlines[1] - s.now_ns;
        longest = wait > longest ? wait : longest;
        scene_wait(&s, 0);
    }
    assert_in_range(longest, SECOND / 2, SECOND + SECOND / 10);
    scene_deinit(&s);
}

static void test_map_update(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, true, 1);
    scene_accept(&s, 4, 9, 100);
    scene_report(&s, 1, true, 1);
    scene_accept(&s, 5, 9, 100);
    assert_true(scene_told(&s, 1).map.bytes > 0);
    scene_wait(&s, 0);
    scene_hear(&s, 101, NULL);
    struct store_state told = scene_told(&s, 0);
    assert_int_equal(told.tick, 101);
    assert_int_equal(told.map.bytes, 0); /* it has this one */
    Cairn__ClusterMap map;
    map_init(&map, 12, 0);
    scene_wait(&s, 0);
    scene_hear(&s, 102, &map);
    assert_true(scene_told(&s, 0).map.bytes > 0);
    scene_wait(&s, 1); /* the other store gets it with its own heartbeat */
    scene_hear(&s, 102, NULL);
    assert_true(scene_told(&s, 1).map.bytes > 0);
    map_init(&map, 11, 0); /* older, or of another cluster: not taken */
    scene_wait(&s, 0);
    scene_hear(&s, 102, &map);
    assert_int_equal(scene_told(&s, 0).map.bytes, 0);
    map_init(&map, 20, 0);
    map.cluster_incarnation = 4;
    scene_wait(&s, 0);
    scene_hear(&s, 90, &map);
    assert_int_equal(scene_told(&s, 0).map.bytes, 0);
    assert_int_equal(scene_told(&s, 0).tick, 102); /* ticks do not go back */
    scene_deinit(&s);
}

/* A leader that does not know the registration is asked for a new one. */
static void test_register_again(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, true, 1);
    scene_accept(&s, 4, 9, 100);
    scene_wait(&s, 0);
    assert_int_equal(s.type, MESSAGE_STORE_HEARTBEAT);
    scene_refuse(&s, ERR_NOT_FOUND, 0);
    scene_wait(&s, 0);
    assert_int_equal(s.type, MESSAGE_STORE_REGISTER);
    scene_accept(&s, 8, 10, 100);
    assert_int_equal(scene_told(&s, 0).store, 8);
    assert_int_equal(scene_told(&s, 0).incarnation, 108);
    struct event junk = {.kind = EVENT_MESSAGE};
    scene_wait(&s, 0);
    junk.message.flags = MESSAGE_REPLY;
    junk.message.stream = s.stream;
    junk.message.peer.role = ROLE_DEVICE; /* nobody we asked */
    junk.message.header = slice_borrow("\xff\xff\xff", 3);
    unsigned tells = s.tells;
    scene_step(&s, &junk);
    junk.message.peer.role = ROLE_METAD; /* malformed: asked again */
    scene_step(&s, &junk);
    assert_int_equal(s.tells, tells);
    unsigned requests = s.requests;
    scene_wait(&s, 0);
    assert_int_equal(s.requests, requests + 1);
    scene_deinit(&s);
}

static uint64_t told_last_record(struct scene *s)
{
    struct proto_arena arena = {0};
    Cairn__StoreRegisterRequest *request = NULL;
    assert_int_equal(s->type, MESSAGE_STORE_REGISTER);
    assert_int_equal(proto_unpack(&cairn__store_register_request__descriptor, s->header, &arena, (void **)&request),
                     ERR_OK);
    uint64_t last_record = request->last_record;
    proto_arena_deinit(&arena);
    return last_record;
}

/* R-B2: records that are written before the root group has answered, by repair, must not hide that the store came back
 * with less than it had: until it is registered it tells what it recovered. */
static void test_registers_as_recovered(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    scene_report(&s, 0, true, 42);
    assert_int_equal(told_last_record(&s), 42);
    scene_report(&s, 0, true, 60);
    scene_refuse(&s, ERR_NOT_READY, 0);
    scene_wait(&s, 0);
    assert_int_equal(told_last_record(&s), 42);
    scene_accept(&s, 5, 8, 30);
    scene_wait(&s, 0);
    assert_int_equal(s.type, MESSAGE_STORE_HEARTBEAT);
    scene_refuse(&s, ERR_NOT_FOUND, 0);
    scene_wait(&s, 0);
    assert_int_equal(told_last_record(&s), 60); /* it was registered in this life */
    scene_deinit(&s);
}

/* R-F7: what a store was told holds over a restart, before the root group has answered; for that very directory only.
 */
static void test_standing_is_kept(void **state)
{
    (void)state;
    struct scene s;
    scene_init(&s);
    assert_int_equal(agent_standing_changes(s.agent, 0), 0);
    assert_int_equal(agent_standing(s.agent, 0).bytes, 0);
    scene_report(&s, 0, true, 42);
    uint8_t key[32], uuid[16] = {9, 0};
    memset(key, 5, sizeof key);
    Cairn__ClusterMap map;
    map_init(&map, 8, 30);
    Cairn__MapStore store = CAIRN__MAP_STORE__INIT, *stores[] = {&store};
    store.store = 5;
    store.node = 7;
    store.uuid = (ProtobufCBinaryData){sizeof uuid, uuid};
    map.n_stores = 1;
    map.stores = stores;
    Cairn__StoreRegisterReply reply = CAIRN__STORE_REGISTER_REPLY__INIT;
    reply.store = 5;
    reply.incarnation = 105;
    reply.receipt_key = (ProtobufCBinaryData){sizeof key, key};
    reply.map = &map;
    scene_reply(&s, s.to.node, s.stream, 0, proto_pack(&reply));
    assert_int_not_equal(agent_standing_changes(s.agent, 0), 0);
    size_t kept = slice_live_bytes();
    struct slice standing = agent_standing(s.agent, 0);
    kept = slice_live_bytes() - kept;
    scene_deinit_keeping(&s, kept);

    scene_init(&s);
    assert_int_equal(agent_recall(s.agent, 0, standing), ERR_OK);
    assert_int_equal(agent_recall(s.agent, 1, slice_borrow(standing.data, standing.bytes - 1)), ERR_BAD_PROTO);
    assert_int_equal(agent_standing_changes(s.agent, 0), 0); /* nothing new to write */
    scene_report(&s, 0, true, 42);
    struct store_state told = scene_told(&s, 0);
    assert_int_equal(told.store, 5);
    assert_int_equal(told.incarnation, 105);
    assert_int_equal(told.tick, 30);
    assert_memory_equal(told.receipt_key, key, sizeof key);
    assert_true(told.map.bytes > 0);
    assert_int_equal(s.type, MESSAGE_STORE_REGISTER); /* and it registers as ever */
    scene_deinit_keeping(&s, kept);

    scene_init(&s); /* the file of another directory */
    assert_int_equal(agent_recall(s.agent, 1, standing), ERR_OK);
    scene_report(&s, 1, true, 42);
    assert_int_equal(s.told[1].bytes, 0);
    assert_int_equal(s.type, MESSAGE_STORE_REGISTER);
    slice_drop(&standing);
    scene_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_redirect),
        cmocka_unit_test(test_new_leader_is_found_soon),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_map_update),
        cmocka_unit_test(test_register_again),
        cmocka_unit_test(test_standing_is_kept),
        cmocka_unit_test(test_registers_as_recovered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
