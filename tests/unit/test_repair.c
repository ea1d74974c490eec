/* Repair and the messages it rests on (repair_net.h). A store that was away comes back without what it missed and must
 * have it afterwards, by its own index and disk. */
#include "repair_net.h"

/* ---- tests ---- */

static void test_returns_empty(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct net *net = net_create(seed);
        struct chunk chunks[CHUNKS];
        net->away[2] = true;
        net_tell(net);
        chunks_put(net, chunks, seed * 100);
        net_run(net, 5 * WORLD_SECOND);
        assert_int_equal(rebuilt_at(net, 3), 0); /* who was there lacks nothing */
        net->away[2] = false;
        net_tell(net);
        net_run(net, 20 * WORLD_SECOND);
        unsigned found = chunks_found(net, chunks, 2);
        assert_true(found >= CHUNKS / 2);
        assert_int_equal(rebuilt_at(net, 2), found);
        assert_int_equal(net->stores[2]->report.counters.rebuilt, found);
        assert_int_equal(store_repair_state(net->stores[2]->store).missing, 0);
        assert_int_equal(store_repair_state(net->stores[2]->store).refused, 0);

        /* What was rebuilt is durable with all its holders: also for an index made anew from the segments. */
        struct sha256 digest = store_index_digest(&net->stores[2]->view);
        struct sha256 again = world_rebuilt_digest(net->stores[2]);
        assert_memory_equal(&digest, &again, sizeof digest);
        unsigned pulls = net->pulls;
        net_tell(net);
        net_run(net, 10 * WORLD_SECOND);
        assert_int_equal(chunks_found(net, chunks, 2), found);
        assert_int_equal(net->pulls, pulls); /* nothing is done twice */
        for (unsigned i = 0; i < CHUNKS; i++) {
            chunk_free(&chunks[i]);
        }
        net_destroy(net);
    }
}

static void test_two_return_killed_on_the_way(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct net *net = net_create(seed);
        struct chunk chunks[CHUNKS];
        net->away[1] = net->away[4] = true;
        net_tell(net);
        chunks_put(net, chunks, seed * 100);
        net->away[1] = net->away[4] = false;
        net_tell(net);
        for (unsigned i = 0; i < 150 + 40 * seed && net_turn(net); i++) {}
        net_run(net, WORLD_SECOND + WORLD_SECOND / 1000);
        for (unsigned i = 0; i < 30 * seed; i++) {
            net_turn(net);
        }
        world_crash(net->stores[1], seed % 2 == 0);
        for (unsigned i = 0; i < net->queued; i++) {
            if (net->queue[i].to == 1) {
                parcel_drop(&net->queue[i]);
                net->queue[i--] = net->queue[--net->queued];
            }
        }
        world_boot(net->stores[1]);
        net_run(net, WORLD_SECOND);
        net_tell(net);
        net_run(net, 60 * WORLD_SECOND);
        assert_true(chunks_found(net, chunks, 1) >= CHUNKS / 2);
        assert_true(chunks_found(net, chunks, 4) >= CHUNKS / 2);
        for (unsigned i = 0; i < CHUNKS; i++) {
            chunk_free(&chunks[i]);
        }
        net_destroy(net);
    }
}

static void test_stand_in_has_it(void **state)
{
    (void)state;
    struct net *net = net_create(31);
    struct chunk chunk = chunk_make(net, 7, K, M, 200000);
    unsigned owner = owner_of(chunk.pg, 1), standin = (owner + 2) % STORES;
    net->away[owner] = true;
    net_tell(net);
    put_at(net, &chunk, 1, standin, 1, 3); /* and no other shard anywhere: it cannot be rebuilt */
    net->away[owner] = false;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 1, owner, 1), ERR_OK);
    assert_int_equal(net->pulls, 1);
    assert_int_equal(rebuilt_at(net, owner), 1);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_never_two_of_one_chunk(void **state)
{
    (void)state;
    struct net *net = net_create(32);
    struct chunk chunk = chunk_make(net, 8, K, M, 90000), copies = chunk_make(net, 8, 1, M, 90000);
    /* The owner of slot 2 stands in for slot 1, whose shard it has; the owner of slot 2 lacks its own. */
    unsigned owner = owner_of(chunk.pg, 2);
    net->away[owner] = true;
    put_all(net, &chunk, 1);
    put_all(net, &copies, 1);
    net->away[owner] = false;
    put_at(net, &chunk, 1, owner, 1, 1);
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 1, owner, 1), ERR_OK);
    assert_int_equal(get_at(net, &chunk, 2, owner, 1), ERR_NOT_HERE);
    assert_int_equal(get_at(net, &copies, 2, owner, 1), ERR_OK); /* another code is another matter */
    assert_int_equal(store_repair_state(net->stores[owner]->store).missing, 0);
    chunk_free(&chunk);
    chunk_free(&copies);
    net_destroy(net);
}

/* Changes the row of `index` in the vector that the shards from `first` to `last` are put with. */
static void checks_spoil(struct chunk *chunk, unsigned index, unsigned first, unsigned last)
{
    struct slice checks = slice_copy(chunk->shards[0].checks.data, chunk->shards[0].checks.bytes);
    uint32_t pieces = shard_check_pieces(chunk->shards[0].bytes.bytes);
    checks.data[4 + (size_t)4 * index * pieces] ^= 1;
    for (unsigned i = first; i <= last; i++) {
        if (i != index) {
            slice_drop(&chunk->shards[i].checks);
            chunk->shards[i].checks = slice_ref(checks);
        }
    }
    slice_drop(&checks);
}

static void test_wrong_vectors(void **state)
{
    (void)state;
    for (unsigned all = 0; all < 2; all++) {
        struct net *net = net_create(40 + all);
        struct chunk chunk = chunk_make(net, 9, K, M, 90000), good = chunk_make(net, 10, K, M, 90000);
        unsigned owner = owner_of(chunk.pg, 0);
        /* One source contradicts the others; or all agree on a row that the rebuilt shard does not match. */
        checks_spoil(&chunk, all ? 0 : 5, all ? 1 : 2, all ? 5 : 2);
        net->away[owner] = true;
        net_tell(net);
        put_all(net, &chunk, 1);
        put_all(net, &good, 1);
        net->away[owner] = false;
        net_tell(net);
        net_run(net, 10 * WORLD_SECOND);
        assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_NOT_HERE);
        unsigned slot = slot_of(&good, owner);
        assert_int_equal(get_at(net, &good, slot, owner, 1), ERR_OK);
        assert_int_equal(store_repair_state(net->stores[owner]->store).refused, 1);
        assert_int_equal(store_repair_state(net->stores[owner]->store).rebuilt, 1);
        assert_int_equal(net->stores[owner]->report.counters.corrupt, 1);
        chunk_free(&chunk);
        chunk_free(&good);
        net_destroy(net);
    }
}

static void test_changed_on_the_way(void **state)
{
    (void)state;
    struct net *net = net_create(50);
    struct chunk chunk = chunk_make(net, 11, K, M, 300000);
    unsigned owner = owner_of(chunk.pg, 3);
    net->away[owner] = true;
    net_tell(net);
    put_all(net, &chunk, 1);
    net->away[owner] = false;
    net->tamper = true;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 3, owner, 1), ERR_NOT_HERE);
    assert_int_equal(store_repair_state(net->stores[owner]->store).missing, 1);
    net->tamper = false;
    net_run(net, 40 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 3, owner, 1), ERR_OK);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_silent_sources(void **state)
{
    (void)state;
    struct net *net = net_create(60);
    struct chunk chunk = chunk_make(net, 12, K, M, 300000);
    unsigned owner = owner_of(chunk.pg, 0);
    net->away[owner] = true;
    net_tell(net);
    put_all(net, &chunk, 1);
    net->away[owner] = false;
    net->silent[owner_of(chunk.pg, 1)] = net->silent[owner_of(chunk.pg, 2)] = true; /* three others: one too few */
    net_tell(net);
    net_run(net, 25 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_NOT_HERE);
    assert_true(store_repair_state(net->stores[owner]->store).missing > 0);
    net->silent[owner_of(chunk.pg, 1)] = false;
    net_run(net, 80 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 0, owner, 1), ERR_OK);
    chunk_free(&chunk);
    net_destroy(net);
}

static void test_disk_takes_nothing(void **state)
{
    (void)state;
    struct net *net = net_create(65);
    struct chunk chunks[CHUNKS];
    net->away[3] = true;
    net_tell(net);
    chunks_put(net, chunks, 700);
    net->away[3] = false;
    net->stores[3]->fail_writes = true;
    net_tell(net);
    net_run(net, 10 * WORLD_SECOND);
    assert_int_equal(rebuilt_at(net, 3), 0);
    assert_true(store_repair_state(net->stores[3]->store).missing > 0);
    assert_true(net->pulls <= 4 * K); /* what was under way, and no more */
    net_run(net, 30 * WORLD_SECOND);  /* the next pass */
    assert_true(net->pulls <= 2 * 4 * K);
    net->stores[3]->fail_writes = false; /* a disk that failed so often is read only until the next start */
    store_destroy(net->stores[3]->store);
    world_ops_clear(net->stores[3], false);
    world_boot(net->stores[3]);
    net_run(net, WORLD_SECOND);
    net_tell(net);
    net_run(net, 40 * WORLD_SECOND);
    assert_true(chunks_found(net, chunks, 3) >= CHUNKS / 2);
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunk_free(&chunks[i]);
    }
    net_destroy(net);
}

/* A store without room refuses its shards, which the others take all the same; nothing in the map tells of it. With
 * room again it gets them by itself. */
static void test_room_again(void **state)
{
    (void)state;
    struct net *net = net_create(66);
    struct chunk chunks[CHUNKS];
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunks[i] = chunk_make(net, 800 + i, K, M, 70001);
    }
    net->stores[3]->short_of_room = true;
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned slot = slot_of(&chunks[i], 3);
        for (unsigned j = 0; j < K + M; j++) {
            if (j != slot) {
                put_at(net, &chunks[i], j, owner_of(chunks[i].pg, j), 1, 1);
            } else {
                chunks[i].shards[j].store = 4;
                chunks[i].shards[j].capability = world_capability(net->stores[3], 1, 1);
                assert_int_equal(world_put_now(net->stores[3], &chunks[i].shards[j]), ERR_DISK_FULL);
            }
        }
    }
    net_run(net, 40 * WORLD_SECOND);
    assert_int_equal(rebuilt_at(net, 3), 0);
    net->stores[3]->short_of_room = false;
    net_run(net, 40 * WORLD_SECOND);
    unsigned found = 0;
    for (unsigned i = 0; i < CHUNKS; i++) {
        unsigned slot = slot_of(&chunks[i], 3);
        if (slot < K + M) {
            assert_int_equal(get_at(net, &chunks[i], slot, 3, 1), ERR_OK);
            found++;
        }
        chunk_free(&chunks[i]);
    }
    assert_true(found > 0);
    assert_int_equal(rebuilt_at(net, 3), found);
    net_destroy(net);
}

static void test_rot_is_healed(void **state)
{
    (void)state;
    struct net *net = net_create(70);
    struct chunk chunk = chunk_make(net, 13, K, M, 400000), other = chunk_make(net, 14, K, M, 400000);
    put_all(net, &chunk, 1);
    put_all(net, &chunk, 2);
    put_all(net, &other, 1);
    unsigned owner = owner_of(chunk.pg, 4);
    struct world_file *file = &net->stores[owner]->files[1];
    const struct slice shard = chunk.shards[4].bytes;
    uint64_t at = 0;
    while (at < file->bytes && memcmp(file->written + at, shard.data, 4096) != 0) {
        at += 4096;
    }
    assert_true(at < file->bytes);
    file->written[at + 70000] ^= 4;
    file->durable[at + 70000] ^= 4;
    unsigned lists = net->lists;
    assert_int_equal(get_at(net, &chunk, 4, owner, 1), ERR_CORRUPT);
    net_run(net, 5 * WORLD_SECOND);
    assert_int_equal(get_at(net, &chunk, 4, owner, 1), ERR_OK);
    assert_int_equal(get_at(net, &chunk, 4, owner, 2), ERR_OK);
    assert_int_equal(net->stores[owner]->report.counters.corrupt, 1);
    assert_int_equal(rebuilt_at(net, owner), 1);
    assert_true(net->lists - lists <= STORES - 1); /* one chunk's lists, not a pass over all */
    chunk_free(&chunk);
    chunk_free(&other);
    net_destroy(net);
}

/* ---- STORE_LIST ---- */

static uint32_t list_rows(struct world *w, uint64_t ns, uint32_t pg, uint32_t bits, uint32_t limit, enum role role,
                          enum err *ret_err)
{
    uint8_t token[CAPABILITY_BYTES], after[SHARD_KEY_BYTES], last[SHARD_KEY_BYTES] = {0};
    struct capability capability = world_capability(w, ns, 1);
    capability_sign(&capability, w->signing_seed, token);
    uint32_t rows = 0;
    for (bool more = false;;) {
        Cairn__StoreListRequest request = CAIRN__STORE_LIST_REQUEST__INIT;
        request.capability = (ProtobufCBinaryData){role == ROLE_BLOCKD ? 0 : sizeof token, token};
        request.realm = role == ROLE_BLOCKD ? 0 : WORLD_REALM;
        request.pg = pg;
        request.pg_bits = bits;
        request.limit = limit;
        request.after = (ProtobufCBinaryData){more ? sizeof after : 0, after};
        uint64_t stream = world_send(w, MESSAGE_STORE_LIST, &request, (struct slice){0}, role);
        struct reply *answer = world_reply(w, stream);
        *ret_err = reply_err(answer);
        if (*ret_err != ERR_OK) {
            return 0;
        }
        struct proto_arena arena = {0};
        Cairn__StoreListReply *reply = NULL;
        assert_int_equal(proto_unpack(&cairn__store_list_reply__descriptor, answer->header, &arena, (void **)&reply),
                         ERR_OK);
        assert_int_equal(answer->body.bytes, reply->count * STORE_LIST_BYTES);
        assert_true(limit == 0 || reply->count <= limit);
        for (uint32_t i = 0; i < reply->count; i++) {
            const uint8_t *row = answer->body.data + (size_t)i * STORE_LIST_BYTES;
            assert_true(memcmp(row, last, SHARD_KEY_BYTES) > 0);
            memcpy(last, row, SHARD_KEY_BYTES);
            assert_true(bits == 0 || (uint32_t)row[8] >> (8 - bits) == pg);
            rows++;
        }
        more = reply->next.len != 0;
        if (more) {
            memcpy(after, reply->next.data, sizeof after);
        }
        proto_arena_deinit(&arena);
        if (!more) {
            return rows;
        }
    }
}

static void test_list(void **state)
{
    (void)state;
    struct net *net = net_create(80);
    struct chunk chunks[CHUNKS];
    chunks_put(net, chunks, 500);
    struct chunk foreign = chunk_make(net, 900, K, M, 5000);
    struct world *w = net->stores[0];
    unsigned slot = slot_of(&foreign, 0);
    struct shard *shard = &foreign.shards[slot];
    shard->key.realm = WORLD_REALM + 5;
    shard->store = 1;
    shard->capability = world_capability(w, 1, 1);
    shard->capability.realm = WORLD_REALM + 5;
    assert_int_equal(world_put_now(w, shard), ERR_OK);
    unsigned mine[3] = {0}, second = 0;
    for (unsigned i = 0; i < CHUNKS; i++) {
        bool here = slot_of(&chunks[i], 0) < LIMIT_SHARDS;
        mine[chunks[i].pg] += here;
        mine[2] += here;
        second += here && i % 3 == 0;
    }
    enum err err;
    for (uint32_t limit = 0; limit < 4; limit++) {
        assert_int_equal(list_rows(w, 1, 0, 0, limit, ROLE_BLOCKD, &err), mine[2] + 1);
        for (uint32_t pg = 0; pg < 2; pg++) {
            assert_int_equal(list_rows(w, 1, pg, 1, limit, ROLE_BLOCKD, &err), mine[pg] + (pg == foreign.pg));
            assert_int_equal(list_rows(w, 1, pg, 1, limit, ROLE_DEVICE, &err), mine[pg]);
        }
        assert_int_equal(list_rows(w, 2, 0, 0, limit, ROLE_DEVICE, &err), second);
        assert_int_equal(list_rows(w, 3, 0, 0, limit, ROLE_DEVICE, &err), 0);
        assert_int_equal(err, ERR_OK);
    }
    list_rows(w, 1, 2, 1, 0, ROLE_BLOCKD, &err); /* there are two groups of one bit */
    assert_int_equal(err, ERR_INVALID);
    list_rows(w, 1, 0, 33, 0, ROLE_BLOCKD, &err);
    assert_int_equal(err, ERR_INVALID);
    for (unsigned i = 0; i < CHUNKS; i++) {
        chunk_free(&chunks[i]);
    }
    chunk_free(&foreign);
    net_destroy(net);
}

static void test_pull_is_for_block_servers(void **state)
{
    (void)state;
    struct net *net = net_create(81);
    struct chunk chunk = chunk_make(net, 15, K, M, 5000);
    put_all(net, &chunk, 1);
    struct world *w = net->stores[owner_of(chunk.pg, 0)];
    uint8_t key[SHARD_KEY_BYTES];
    shard_key_encode(&chunk.shards[0].key, key);
    Cairn__ShardPullRequest request = CAIRN__SHARD_PULL_REQUEST__INIT;
    request.shard = (ProtobufCBinaryData){sizeof key, key};
    uint64_t stream = world_send(w, MESSAGE_SHARD_PULL, &request, (struct slice){0}, ROLE_DEVICE);
    assert_int_equal(world_finish(w, stream), ERR_WRONG_ROLE);
    chunk_free(&chunk);
    net_destroy(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_returns_empty),
        cmocka_unit_test(test_two_return_killed_on_the_way),
        cmocka_unit_test(test_stand_in_has_it),
        cmocka_unit_test(test_never_two_of_one_chunk),
        cmocka_unit_test(test_wrong_vectors),
        cmocka_unit_test(test_changed_on_the_way),
        cmocka_unit_test(test_silent_sources),
        cmocka_unit_test(test_disk_takes_nothing),
        cmocka_unit_test(test_room_again),
        cmocka_unit_test(test_rot_is_healed),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_pull_is_for_block_servers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
