/* The store actor on a disk in memory: puts, gets, ranges, inventory, receipts, every refusal with its code, group
 * commit, failing and full disks, rot. Crashes are in test_store_crash.c. */
#include "store_world.h"

static struct world *world_ready(uint64_t seed)
{
    struct world *w = world_create(seed);
    world_boot(w);
    world_run(w, WORLD_SECOND);
    assert_true(w->report.ready);
    world_tell(w, 4, 100, 5);
    return w;
}

static void assert_receipt(struct world *w, uint64_t stream, const struct shard *shard)
{
    struct reply *reply = world_reply(w, stream);
    assert_int_equal(reply_err(reply), ERR_OK);
    struct proto_arena arena = {0};
    Cairn__ShardPutReply *message = NULL;
    assert_int_equal(proto_unpack(&cairn__shard_put_reply__descriptor, reply->header, &arena, (void **)&message),
                     ERR_OK);
    struct receipt receipt;
    assert_int_equal(receipt_verify(message->receipt.data, message->receipt.len, w->receipt_key, &receipt), ERR_OK);
    assert_int_equal(receipt.store, WORLD_STORE);
    assert_int_equal(receipt.store_incarnation, 7);
    assert_int_equal(receipt.sealed_bytes, shard->sealed_bytes);
    assert_int_equal(receipt.ns, shard->capability.ns);
    assert_int_equal(receipt.generation, shard->capability.generation);
    assert_int_equal(receipt.session, shard->capability.session);
    uint8_t mine[SHARD_KEY_BYTES], theirs[SHARD_KEY_BYTES];
    shard_key_encode(&shard->key, mine);
    shard_key_encode(&receipt.shard, theirs);
    assert_memory_equal(mine, theirs, sizeof mine);
    proto_arena_deinit(&arena);
}

static uint32_t inventory_count(struct world *w, struct shard *shard, enum role role)
{
    uint8_t token[CAPABILITY_BYTES];
    world_token(w, shard, token);
    Cairn__InventoryRequest request = CAIRN__INVENTORY_REQUEST__INIT;
    request.capability.data = token;
    request.capability.len = role == ROLE_BLOCKD ? 0 : sizeof token;
    request.realm = shard->key.realm;
    request.writer = shard->key.writer;
    request.chunk.data = (uint8_t *)shard->key.chunk.bytes;
    request.chunk.len = 32;
    request.encoding.data = (uint8_t *)shard->key.encoding.bytes;
    request.encoding.len = 16;
    uint64_t stream = world_send(w, MESSAGE_INVENTORY, &request, (struct slice){0}, role);
    struct reply *reply = world_reply(w, stream);
    assert_int_equal(reply_err(reply), ERR_OK);
    struct proto_arena arena = {0};
    Cairn__InventoryReply *message = NULL;
    assert_int_equal(proto_unpack(&cairn__inventory_reply__descriptor, reply->header, &arena, (void **)&message),
                     ERR_OK);
    uint32_t count = message->n_shards;
    if (count == 1) {
        assert_int_equal(message->shards[0]->index, shard->key.index);
        assert_int_equal(message->shards[0]->k, shard->key.k);
        assert_int_equal(message->shards[0]->sealed_bytes, shard->sealed_bytes);
    }
    proto_arena_deinit(&arena);
    return count;
}

/* ---- put and get ---- */

static void test_put_get(void **state)
{
    (void)state;
    static const uint32_t sealed[] = {48, 4096, 100000, 400000, 1200000, 2600000};
    struct world *w = world_ready(1);
    w->segment_bytes = 4u << 20;
    for (unsigned i = 0; i < 6; i++) {
        struct shard shard = shard_make(w, i, 4, 2, 2 * (i % 3), sealed[i]);
        uint64_t stream = world_put(w, &shard);
        assert_null(world_reply(w, stream)); /* no receipt before the sync */
        assert_int_equal(world_finish(w, stream), ERR_OK);
        assert_receipt(w, stream, &shard);
        assert_int_equal(world_get_now(w, &shard), ERR_OK);
        assert_int_equal(inventory_count(w, &shard, ROLE_DEVICE), 1);
        assert_int_equal(inventory_count(w, &shard, ROLE_BLOCKD), 1);
        shard_free(&shard);
    }
    struct sha256 before = store_index_digest(&w->view), rebuilt = world_rebuilt_digest(w);
    assert_memory_equal(&before, &rebuilt, sizeof before);
    assert_int_equal(w->report.counters.shards, 6);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

static void test_get_range(void **state)
{
    (void)state;
    struct world *w = world_create(2);
    w->segment_bytes = 4u << 20;
    world_boot(w);
    world_run(w, WORLD_SECOND);
    world_tell(w, 4, 100, 5);
    struct shard shard = shard_make(w, 1, 1, 2, 0, 2500000);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    uint32_t all = shard.bytes.bytes;
    const uint32_t ranges[][2] = {{0, 1},           {65535, 2},         {65536, 65536}, {1, 1048576},
                                  {70000, 1200000}, {1000000, 1500000}, {all - 1, 1},   {all - 70000, 70000},
                                  {0, all},         {12345, 0}};
    for (unsigned i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        uint32_t offset = ranges[i][0], bytes = ranges[i][1];
        uint64_t stream = world_get_range(w, &shard, offset, bytes);
        assert_int_equal(world_finish(w, stream), ERR_OK);
        struct slice body = world_reply(w, stream)->body;
        bytes = bytes ? bytes : all - offset;
        assert_int_equal(body.bytes, bytes);
        assert_memory_equal(body.data, shard.bytes.data + offset, bytes);
        struct proto_arena arena = {0};
        Cairn__ShardGetReply *reply = NULL;
        assert_int_equal(
            proto_unpack(&cairn__shard_get_reply__descriptor, world_reply(w, stream)->header, &arena, (void **)&reply),
            ERR_OK);
        uint32_t first = offset / 65536, last = (offset + bytes - 1) / 65536;
        assert_int_equal(reply->crcs.len, 4 * (last - first + 1));
        uint32_t piece = all - first * 65536 < 65536 ? all - first * 65536 : 65536;
        assert_int_equal(get_u32(reply->crcs.data), crc32c(0, shard.bytes.data + first * 65536, piece));
        assert_int_equal(reply->shard_bytes, all);
        proto_arena_deinit(&arena);
    }
    assert_int_equal(world_finish(w, world_get_range(w, &shard, all, 0)), ERR_INVALID);
    assert_int_equal(world_finish(w, world_get_range(w, &shard, 0, all + 1)), ERR_INVALID);
    assert_int_equal(world_finish(w, world_get_range(w, &shard, UINT32_MAX, UINT32_MAX)), ERR_INVALID);
    shard_free(&shard);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

/* ---- refusals ---- */

static void refuse_signature(struct world *w, struct shard *s)
{
    (void)w, s->signing = 1;
}
static void refuse_bearer(struct world *w, struct shard *s)
{
    (void)w, s->capability.bearer.bytes[31] ^= 1;
}
static void refuse_key_id(struct world *w, struct shard *s)
{
    (void)w, s->capability.key_id = 8;
}
static void refuse_cluster(struct world *w, struct shard *s)
{
    (void)w, s->capability.cluster.uuid.bytes[0] ^= 1;
}
static void refuse_cluster_incarnation(struct world *w, struct shard *s)
{
    (void)w, s->capability.cluster_incarnation = 2;
}
static void refuse_operation(struct world *w, struct shard *s)
{
    (void)w, s->capability.operations = CAPABILITY_GET;
}
static void refuse_realm(struct world *w, struct shard *s)
{
    (void)w, s->capability.realm++;
}
static void refuse_writer(struct world *w, struct shard *s)
{
    (void)w, s->capability.writer++;
}
static void refuse_expired(struct world *w, struct shard *s)
{
    (void)w, s->capability.expiry_tick = 99;
}
static void refuse_revoked(struct world *w, struct shard *s)
{
    (void)w, s->capability.capability_epoch = 4;
}
static void refuse_budget(struct world *w, struct shard *s)
{
    (void)w, s->capability.budget_bytes = s->bytes.bytes - 1;
}
static void refuse_id_list(struct world *w, struct shard *s)
{
    (void)w, s->capability.id_list.bytes[3] = 1;
}
static void refuse_store(struct world *w, struct shard *s)
{
    (void)w, s->store++;
}
static void refuse_store_incarnation(struct world *w, struct shard *s)
{
    (void)w, s->store_incarnation--;
}
static void refuse_seat(struct world *w, struct shard *s)
{
    (void)w, s->key.index = 3, s->slot = 3;
}
static void refuse_slot(struct world *w, struct shard *s)
{
    (void)w, s->slot = 4;
}
static void refuse_body(struct world *w, struct shard *s)
{
    (void)w;
    struct slice changed = slice_copy(s->bytes.data, s->bytes.bytes);
    changed.data[100] ^= 1;
    slice_drop(&s->bytes);
    s->bytes = changed;
}
static void refuse_length(struct world *w, struct shard *s)
{
    (void)w, s->sealed_bytes += 1000;
}
static void refuse_huge(struct world *w, struct shard *s)
{
    (void)w, s->sealed_bytes = LIMIT_SEALED_BYTES + 1;
}
static void refuse_tiny(struct world *w, struct shard *s)
{
    (void)w, s->sealed_bytes = 0;
}
static void refuse_plain(struct world *w, struct shard *s)
{
    (void)w, s->plain_bytes = LIMIT_CHUNK_BYTES + 1;
}
static void refuse_code(struct world *w, struct shard *s)
{
    (void)w, s->key.k = 0;
}
static void refuse_code_sum(struct world *w, struct shard *s)
{
    (void)w, s->key.m = 255;
}
static void refuse_index(struct world *w, struct shard *s)
{
    (void)w, s->key.index = 6;
}
static void refuse_checks(struct world *w, struct shard *s)
{
    (void)w, s->checks.bytes--;
}
static void refuse_checks_head(struct world *w, struct shard *s)
{
    (void)w, s->checks.data[0] = 5;
}

static void test_put_refusals(void **state)
{
    (void)state;
    static const struct {
        void (*spoil)(struct world *, struct shard *);
        enum err err;
    } rows[] = {
        {refuse_signature, ERR_BAD_CAPABILITY},
        {refuse_key_id, ERR_BAD_CAPABILITY},
        {refuse_bearer, ERR_BAD_CAPABILITY},
        {refuse_cluster, ERR_WRONG_CLUSTER},
        {refuse_cluster_incarnation, ERR_WRONG_CLUSTER},
        {refuse_operation, ERR_BAD_CAPABILITY},
        {refuse_realm, ERR_BAD_CAPABILITY},
        {refuse_writer, ERR_BAD_CAPABILITY},
        {refuse_expired, ERR_EXPIRED},
        {refuse_revoked, ERR_EXPIRED},
        {refuse_budget, ERR_BAD_CAPABILITY},
        {refuse_id_list, ERR_UNSUPPORTED},
        {refuse_store, ERR_STALE_MAP},
        {refuse_store_incarnation, ERR_STALE_MAP},
        {refuse_slot, ERR_INVALID},
        {refuse_body, ERR_INVALID},
        {refuse_length, ERR_INVALID},
        {refuse_huge, ERR_TOO_LARGE},
        {refuse_tiny, ERR_TOO_LARGE},
        {refuse_plain, ERR_TOO_LARGE},
        {refuse_code, ERR_INVALID},
        {refuse_code_sum, ERR_INVALID},
        {refuse_index, ERR_INVALID},
        {refuse_checks, ERR_INVALID},
        {refuse_checks_head, ERR_INVALID},
    };
    struct world *w = world_ready(3);
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct shard shard = shard_make(w, i, 4, 2, 2, 300000);
        rows[i].spoil(w, &shard);
        uint64_t stream = world_put(w, &shard);
        if (reply_err(world_reply(w, stream)) != rows[i].err) {
            fail_msg("row %u: %s", i, err_name(reply_err(world_reply(w, stream))));
        }
        shard_free(&shard);
        /* the same put, unspoiled, is taken */
        shard = shard_make(w, i, 4, 2, 2, 300000);
        assert_int_equal(world_put_now(w, &shard), ERR_OK);
        shard_free(&shard);
    }
    struct shard unseated = shard_make(w, 90, 4, 2, 3, 300000);
    refuse_seat(w, &unseated);
    assert_int_equal(reply_err(world_reply(w, world_put(w, &unseated))), ERR_NOT_OWNER);
    struct shard standin = shard_make(w, 91, 4, 2, 1, 300000);
    assert_int_equal(world_put_now(w, &standin), ERR_OK);
    shard_free(&unseated);
    shard_free(&standin);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

static void test_malformed(void **state)
{
    (void)state;
    struct world *w = world_ready(4);
    static const uint16_t types[] = {MESSAGE_SHARD_PUT, MESSAGE_SHARD_GET, MESSAGE_INVENTORY};
    for (unsigned i = 0; i < 600; i++) {
        uint8_t junk[64];
        for (unsigned at = 0; at < sizeof junk; at++) {
            junk[at] = (uint8_t)world_random(w);
        }
        struct event event = {.kind = EVENT_MESSAGE};
        event.message.type = types[i % 3];
        event.message.stream = ++w->streams;
        event.message.peer.role = ROLE_DEVICE;
        event.message.header = slice_borrow(junk, world_random(w) % sizeof junk);
        event.message.body = slice_borrow(junk, world_random(w) % sizeof junk);
        world_step(w, &event);
        assert_int_not_equal(reply_err(world_reply(w, w->streams)), ERR_OK);
    }
    struct event state_event = {.kind = EVENT_MESSAGE};
    state_event.message.type = MESSAGE_STORE_STATE;
    state_event.message.peer.role = ROLE_LOCAL;
    state_event.message.header = slice_borrow("short", 5);
    world_step(w, &state_event);
    assert_int_equal(w->op_count, 0);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

static void test_get_refusals(void **state)
{
    (void)state;
    struct world *w = world_ready(5);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 300000);
    assert_int_equal(world_get_now(w, &shard), ERR_NOT_HERE);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    shard.capability.ns = 2; /* no holder */
    assert_int_equal(world_get_now(w, &shard), ERR_NOT_HERE);
    assert_int_equal(inventory_count(w, &shard, ROLE_DEVICE), 0);
    shard.capability = world_capability(w, 1, 1);
    shard.capability.operations = CAPABILITY_PUT;
    assert_int_equal(world_get_now(w, &shard), ERR_BAD_CAPABILITY);
    shard.capability = world_capability(w, 1, 1);
    shard.capability.bearer.bytes[0] ^= 1; /* somebody else's (R-F8) */
    assert_int_equal(world_get_now(w, &shard), ERR_BAD_CAPABILITY);
    shard.capability = world_capability(w, 1, 1);
    shard.capability.realm++;
    assert_int_equal(world_get_now(w, &shard), ERR_BAD_CAPABILITY);
    shard.capability = world_capability(w, 1, 1);
    shard.capability.writer = 99; /* a reader is another member than the writer */
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    shard_free(&shard);
    world_destroy(w);
}

/* R-C7: with a tick heard each second time stands where the tick stands; without, the own clock goes on. */
static void test_expiry(void **state)
{
    (void)state;
    struct world *w = world_ready(6);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 300000);
    shard.capability.expiry_tick = 101;
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    for (unsigned i = 0; i < 30; i++) {
        world_run(w, WORLD_SECOND);
        world_tell(w, 4, 100, 5);
    }
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    world_run(w, 19 * WORLD_SECOND);
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    world_run(w, 2 * WORLD_SECOND);
    assert_int_equal(world_get_now(w, &shard), ERR_EXPIRED);
    world_tell(w, 5, 102, 6); /* and a revocation reaches tokens that were verified before */
    shard.capability.expiry_tick = 1000;
    assert_int_equal(world_get_now(w, &shard), ERR_EXPIRED);
    shard.capability.capability_epoch = 6;
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    shard_free(&shard);
    world_destroy(w);
}

static void test_before_registration(void **state)
{
    (void)state;
    struct world *w = world_create(7);
    world_start(w);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 300000);
    assert_int_equal(reply_err(world_reply(w, world_put(w, &shard))), ERR_NOT_READY); /* not recovered */
    world_step(w, &(struct event){.kind = EVENT_TIMER, .timer.id = 0});
    world_run(w, WORLD_SECOND);
    assert_true(w->report.ready);
    assert_int_equal(reply_err(world_reply(w, world_put(w, &shard))), ERR_NOT_READY); /* not registered */
    world_tell(w, 4, 100, 5);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    shard_free(&shard);
    world_destroy(w);
}

/* ---- what is here already ---- */

static void test_put_again(void **state)
{
    (void)state;
    struct world *w = world_ready(8);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 300000);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    uint32_t writes = w->disk_writes;
    uint64_t stream = world_put(w, &shard);
    assert_receipt(w, stream, &shard); /* at once, without a write */
    assert_int_equal(w->disk_writes, writes);
    shard.capability = world_capability(w, 2, 9); /* another namespace: a holder record, synced first */
    stream = world_put(w, &shard);
    assert_null(world_reply(w, stream));
    assert_int_equal(world_finish(w, stream), ERR_OK);
    assert_receipt(w, stream, &shard);
    assert_int_equal(w->disk_writes, writes + 1);
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    shard.capability = world_capability(w, 2, 8); /* an older hold is known */
    assert_receipt(w, world_put(w, &shard), &shard);
    struct shard other = shard_make(w, 1, 4, 2, 2, 300000);
    assert_int_equal(world_put_now(w, &other), ERR_OTHER_SHARD_HERE);
    struct shard garbage = shard_make(w, 7, 4, 2, 0, 300000);
    garbage.key = shard.key;
    assert_int_equal(world_put_now(w, &garbage), ERR_CONFLICT);
    struct shard copies = shard_make(w, 1, 1, 2, 2, 300000); /* another code of the chunk is another record */
    assert_int_equal(world_put_now(w, &copies), ERR_OK);
    assert_int_equal(inventory_count(w, &copies, ROLE_BLOCKD), 2);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->report.counters.shards, 2);
    struct sha256 before = store_index_digest(&w->view), rebuilt = world_rebuilt_digest(w);
    assert_memory_equal(&before, &rebuilt, sizeof before);
    world_tell(w, 4, 100, 5);
    shard.capability = world_capability(w, 2, 9);
    assert_int_equal(world_get_now(w, &shard), ERR_OK); /* R-A4: the hold survived */
    shard_free(&shard);
    shard_free(&other);
    shard_free(&garbage);
    shard_free(&copies);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

static void test_same_key_in_flight(void **state)
{
    (void)state;
    struct world *w = world_ready(9);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 300000), garbage = shard_make(w, 7, 4, 2, 0, 300000);
    struct shard other = shard_make(w, 1, 4, 2, 2, 300000);
    garbage.key = shard.key;
    uint64_t first = world_put(w, &shard), again = world_put(w, &shard), wrong = world_put(w, &garbage);
    uint64_t index = world_put(w, &other);
    world_run(w, 0);
    assert_receipt(w, first, &shard);
    assert_receipt(w, again, &shard);
    assert_int_equal(reply_err(world_reply(w, wrong)), ERR_CONFLICT);
    assert_int_equal(reply_err(world_reply(w, index)), ERR_OTHER_SHARD_HERE);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->report.counters.synced_shards, 1);
    shard_free(&shard);
    shard_free(&garbage);
    shard_free(&other);
    world_destroy(w);
}

/* ---- the disk ---- */

static void test_group_commit(void **state)
{
    (void)state;
    struct world *w = world_ready(10);
    w->fifo = true;
    uint32_t syncs = w->syncs;
    uint64_t streams[40];
    for (unsigned i = 0; i < 40; i++) {
        struct shard shard = shard_make(w, i, 4, 2, 0, 20000);
        streams[i] = world_put(w, &shard);
        shard_free(&shard);
    }
    world_run(w, 0);
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(reply_err(world_reply(w, streams[i])), ERR_OK);
    }
    assert_int_equal(w->syncs - syncs, 2); /* the first alone, 39 in the next */
    assert_in_range(w->disk_writes, 2, 5); /* small ones share the commit buffer's writes */
    world_destroy(w);
}

static void test_disk_fails(void **state)
{
    (void)state;
    struct world *w = world_ready(11);
    w->segment_bytes = 1u << 20;
    struct shard before = shard_make(w, 1, 4, 2, 0, 300000), after = shard_make(w, 50, 4, 2, 0, 300000);
    assert_int_equal(world_put_now(w, &before), ERR_OK);
    for (unsigned round = 0; round < 2; round++) {
        w->fail_writes = round == 0;
        w->fail_syncs = round == 1;
        uint64_t streams[3];
        for (unsigned i = 0; i < 3; i++) {
            struct shard shard = shard_make(w, 10 + 10 * round + i, 4, 2, 0, 300000);
            streams[i] = world_put(w, &shard);
            shard_free(&shard);
        }
        while (world_reply(w, streams[2]) == NULL && world_turn(w)) {}
        w->fail_writes = w->fail_syncs = false;
        world_run(w, WORLD_SECOND);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(reply_err(world_reply(w, streams[i])), ERR_IO);
        }
    }
    assert_int_equal(world_put_now(w, &after), ERR_OK);
    struct shard retried = shard_make(w, 11, 4, 2, 0, 300000); /* an unacknowledged one is put again */
    assert_int_equal(world_put_now(w, &retried), ERR_OK);
    assert_int_equal(world_get_now(w, &before), ERR_OK);
    struct sha256 digest = store_index_digest(&w->view), rebuilt = world_rebuilt_digest(w);
    assert_memory_equal(&digest, &rebuilt, sizeof digest);
    assert_int_equal(w->report.counters.corrupt, 0); /* lost is not rot */
    assert_int_equal(w->report.counters.shards, 3);
    world_tell(w, 4, 100, 5);
    assert_int_equal(world_get_now(w, &after), ERR_OK);
    shard_free(&before);
    shard_free(&after);
    shard_free(&retried);
    world_destroy(w);
    assert_int_equal(slice_live_bytes(), 0);
}

static void test_disk_stays_broken(void **state)
{
    (void)state;
    struct world *w = world_ready(12);
    struct shard good = shard_make(w, 1, 4, 2, 0, 300000);
    assert_int_equal(world_put_now(w, &good), ERR_OK);
    w->fail_syncs = true;
    for (unsigned i = 0; i < 20; i++) {
        struct shard shard = shard_make(w, 10 + i, 4, 2, 0, 300000);
        assert_int_equal(world_put_now(w, &shard), ERR_IO);
        shard_free(&shard);
    }
    world_run(w, 10 * WORLD_SECOND);
    assert_int_equal(world_get_now(w, &good), ERR_OK); /* reads go on */
    shard_free(&good);
    world_destroy(w);
}

static void test_disk_full(void **state)
{
    (void)state;
    struct world *w = world_ready(13);
    w->fail_allocs = ERR_DISK_FULL;
    struct shard shards[12];
    unsigned taken = 0;
    enum err err = ERR_OK;
    for (unsigned i = 0; i < 12; i++) {
        shards[i] = shard_make(w, i, 1, 2, 0, 400000);
        err = err == ERR_OK ? world_put_now(w, &shards[i]) : err;
        taken += err == ERR_OK;
    }
    assert_int_equal(err, ERR_DISK_FULL);
    assert_in_range(taken, 2, 4); /* the open segment and the one ahead */
    assert_int_equal(world_get_now(w, &shards[0]), ERR_OK);
    w->fail_allocs = ERR_OK;
    world_run(w, 3 * WORLD_SECOND); /* resumes by itself */
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(world_put_now(w, &shards[i]), ERR_OK);
        shard_free(&shards[i]);
    }
    world_destroy(w);
}

static void test_reserve(void **state)
{
    (void)state;
    struct world *w = world_create(14);
    w->capacity_bytes = 4u << 20;
    world_boot(w);
    world_run(w, WORLD_SECOND);
    world_tell(w, 4, 100, 5);
    enum err err = ERR_OK;
    for (unsigned i = 0; i < 200 && err == ERR_OK; i++) {
        struct shard shard = shard_make(w, i, 1, 2, 0, 60000);
        err = world_put_now(w, &shard);
        shard_free(&shard);
    }
    assert_int_equal(err, ERR_DISK_FULL);
    world_run(w, WORLD_SECOND);
    assert_true(w->report.used_bytes <= w->capacity_bytes / 100 * 95);
    assert_true(w->report.used_bytes >= w->capacity_bytes / 100 * 75);
    struct shard held = shard_make(w, 0, 1, 2, 0, 60000); /* a hold needs no room of the reserve */
    held.capability = world_capability(w, 2, 3);
    assert_int_equal(world_put_now(w, &held), ERR_OK);
    shard_free(&held);
    world_destroy(w);
}

static void test_rot(void **state)
{
    (void)state;
    struct world *w = world_ready(15);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 600000);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    w->files[1].written[RECORD_HEADER_BYTES + 70000] ^= 4;
    uint64_t stream = world_get_range(w, &shard, 0, 65536); /* the first piece is well */
    assert_int_equal(world_finish(w, stream), ERR_OK);
    assert_int_equal(world_get_now(w, &shard), ERR_CORRUPT);
    assert_int_equal(world_finish(w, world_get_range(w, &shard, 0, 65536)), ERR_CORRUPT); /* no longer trusted */
    assert_int_equal(inventory_count(w, &shard, ROLE_BLOCKD), 0);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->report.counters.corrupt, 1);
    assert_int_equal(world_put_now(w, &shard), ERR_OK); /* whoever has it heals it */
    assert_int_equal(world_get_now(w, &shard), ERR_OK);
    assert_int_equal(inventory_count(w, &shard, ROLE_BLOCKD), 1);
    struct sha256 digest = store_index_digest(&w->view), rebuilt = world_rebuilt_digest(w);
    assert_memory_equal(&digest, &rebuilt, sizeof digest);
    world_tell(w, 4, 100, 5);
    w->fail_reads = true;
    assert_int_equal(world_get_now(w, &shard), ERR_CORRUPT);
    shard_free(&shard);
    world_destroy(w);
}

/* A header block that rots below the mark is counted at the next scan, its neighbours are found. */
static void test_rot_of_header(void **state)
{
    (void)state;
    struct world *w = world_ready(16);
    struct shard shards[4];
    for (unsigned i = 0; i < 4; i++) {
        shards[i] = shard_make(w, i, 4, 2, 0, 100000);
        assert_int_equal(world_put_now(w, &shards[i]), ERR_OK);
    }
    uint64_t at = RECORD_HEADER_BYTES + (shards[0].bytes.bytes + 4095) / 4096 * 4096;
    w->files[1].written[at + 300] ^= 1;
    (void)world_rebuilt_digest(w);
    world_tell(w, 4, 100, 5);
    assert_int_equal(w->report.counters.corrupt, 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(world_get_now(w, &shards[i]), i == 1 ? ERR_NOT_HERE : ERR_OK);
        shard_free(&shards[i]);
    }
    world_destroy(w);
}

/* Records of another directory, or of another place in this one, are not taken for ours. */
static void test_record_identity(void **state)
{
    (void)state;
    struct directory_identity mine = {{{1}}, 5}, other = {{{2}}, 5}, older = {{{1}}, 4};
    struct record record = {.type = RECORD_HOLDER, .segment = 2, .offset = 8192, .sequence = 3, .mark = 2}, read;
    uint8_t block[RECORD_HEADER_BYTES];
    record_encode(&record, &mine, block);
    assert_int_equal(record_decode(block, &mine, 2, 8192, &read), ERR_OK);
    assert_int_equal(read.sequence, 3);
    assert_int_equal(record_decode(block, &other, 2, 8192, &read), ERR_CORRUPT);
    assert_int_equal(record_decode(block, &older, 2, 8192, &read), ERR_CORRUPT);
    assert_int_equal(record_decode(block, &mine, 3, 8192, &read), ERR_CORRUPT);
    assert_int_equal(record_decode(block, &mine, 2, 4096, &read), ERR_CORRUPT);
    for (unsigned bit = 0; bit < RECORD_HEADER_BYTES * 8; bit += 13) {
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(record_decode(block, &mine, 2, 8192, &read), ERR_CORRUPT);
        block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* An index that is ahead of its segments is not believed. */
static void test_index_ahead(void **state)
{
    (void)state;
    struct world *w = world_ready(17);
    struct shard shard = shard_make(w, 1, 4, 2, 0, 100000);
    assert_int_equal(world_put_now(w, &shard), ERR_OK);
    store_destroy(w->store);
    world_ops_clear(w, false);
    for (unsigned i = 1; i < WORLD_FILES; i++) {
        w->files[i].bytes = 0;
        free(w->files[i].written), free(w->files[i].durable), free(w->files[i].write_number);
        w->files[i] = (struct world_file){0};
    }
    world_boot(w);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->halted, ERR_CORRUPT);
    store_destroy(w->store);
    w->halted = ERR_OK;
    w->incarnation++;
    world_boot(w);
    world_run(w, WORLD_SECOND);
    assert_int_equal(w->halted, ERR_NOT_OURS);
    shard_free(&shard);
    world_destroy(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_get),
        cmocka_unit_test(test_get_range),
        cmocka_unit_test(test_put_refusals),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_get_refusals),
        cmocka_unit_test(test_expiry),
        cmocka_unit_test(test_before_registration),
        cmocka_unit_test(test_put_again),
        cmocka_unit_test(test_same_key_in_flight),
        cmocka_unit_test(test_group_commit),
        cmocka_unit_test(test_disk_fails),
        cmocka_unit_test(test_disk_stays_broken),
        cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_rot),
        cmocka_unit_test(test_rot_of_header),
        cmocka_unit_test(test_record_identity),
        cmocka_unit_test(test_index_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
