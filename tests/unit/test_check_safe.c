/* The simulator's checker of what an acknowledgement says of stores, over hand-made histories of clients, block servers
 * (one store each, of the same number) and a metad: a good one, and bad ones that differ from a good one in their last
 * call. A chunk is a letter. */
#include "sim_check.h"

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"
#include "proto/manifest.h"
#include "proto/token.h"

enum { AWAY_S = 19, LONG_AWAY_S = 21 }; /* less than it takes to call a store down, and more */

/* A node that runs, added when it is first named. */
static struct node *node_of(struct lab *lab, enum role role, uint32_t id)
{
    struct node *node = world_node_find(lab->world, role, id);
    if (node == NULL) {
        node = world_node_add(lab->world, role, id, 0, lab_boot, lab);
        node_start(node);
    }
    return node;
}

/* The connection that a client's process has made to a server. */
static uint64_t conn_of(struct node *client, struct node *server)
{
    struct world *world = client->world;
    for (unsigned long i = 0; i < world->conn_count; i++) {
        const struct conn_side *side = world->conns[i]->side;
        if (side[0].node == client && side[0].open && side[1].node == server) {
            return world->conns[i]->id;
        }
    }
    struct conn *conn = mem_alloc(sizeof *conn);
    conn->id = ++world->conn_sequence;
    conn->side[0] = (struct conn_side){.node = client, .boot = client->boot, .open = true};
    conn->side[1] = (struct conn_side){.node = server, .boot = server->boot, .open = true};
    world->conns = mem_grow(world->conns, &world->conn_capacity, world->conn_count + 1, sizeof conn);
    world->conns[world->conn_count++] = conn;
    return conn->id;
}

/* What a client asks a server. */
struct request {
    struct node *server;
    uint64_t conn, stream;
    uint16_t type;
};

static struct request asks(struct lab *lab, uint32_t client, struct node *server, uint16_t type, uint64_t stream,
                           const void *header, struct slice body)
{
    struct effect effect = {.kind = EFFECT_SEND};
    struct node *from = node_of(lab, ROLE_DEVICE, client);
    effect.send.to = address_node(server->role, server->id, ACTOR_NONE, 0);
    effect.send.type = type;
    effect.send.stream = stream;
    effect.send.header = proto_pack(header);
    effect.send.body = body;
    safe_check_send(lab->safe, from, &effect);
    lab_forget(&effect);
    return (struct request){server, conn_of(from, server), stream, type};
}

/* The header is given. */
static void answers(struct lab *lab, struct request request, uint8_t flags, struct slice header)
{
    struct effect effect = {.kind = EFFECT_SEND};
    effect.send.to.conn = request.conn;
    effect.send.type = request.type;
    effect.send.flags = MESSAGE_REPLY | flags;
    effect.send.stream = request.stream;
    effect.send.header = header;
    safe_check_send(lab->safe, request.server, &effect);
    lab_forget(&effect);
}

/* ---- stores ---- */

static struct shard_key shard_of(char chunk, uint8_t k, uint8_t m, uint8_t index)
{
    struct shard_key shard = {.realm = 1, .writer = 1, .k = k, .m = m, .index = index};
    memset(shard.chunk.bytes, chunk, sizeof shard.chunk.bytes);
    memset(shard.encoding.bytes, chunk, sizeof shard.encoding.bytes);
    return shard;
}

struct packed {
    uint8_t bytes[RECEIPT_BYTES];
};

static struct packed receipt_of(uint32_t store, struct shard_key shard)
{
    struct packed packed;
    uint8_t master[32] = {7}, key[32];
    struct receipt receipt = {.store = store, .store_incarnation = 1, .shard = shard, .sealed_bytes = 4096, .ns = 1};
    receipt_key_derive(master, store, 1, key);
    receipt_sign(&receipt, key, packed.bytes);
    return packed;
}

static struct request sends_as(struct lab *lab, uint32_t client, uint64_t stream, uint32_t store,
                               struct shard_key shard)
{
    uint8_t packed[SHARD_KEY_BYTES];
    Cairn__ShardPutRequest header = CAIRN__SHARD_PUT_REQUEST__INIT;
    shard_key_encode(&shard, packed);
    header.shard = (ProtobufCBinaryData){.data = packed, .len = sizeof packed};
    header.store = store;
    header.store_incarnation = 1;
    return asks(lab, client, node_of(lab, ROLE_BLOCKD, store), MESSAGE_SHARD_PUT, stream, &header, (struct slice){0});
}

/* Client 1 puts a shard, with a stream of its own. */
static struct request sends(struct lab *lab, uint32_t store, struct shard_key shard)
{
    return sends_as(lab, 1, ++lab->world->operations, store, shard);
}

static void gives_bytes(struct lab *lab, struct request put, void *data, size_t bytes)
{
    Cairn__ShardPutReply header = CAIRN__SHARD_PUT_REPLY__INIT;
    header.receipt = (ProtobufCBinaryData){.data = data, .len = bytes};
    answers(lab, put, 0, proto_pack(&header));
}

static void gives(struct lab *lab, struct request put, uint32_t store, struct shard_key shard)
{
    struct packed receipt = receipt_of(store, shard);
    gives_bytes(lab, put, receipt.bytes, sizeof receipt.bytes);
}

static void stores_go(struct lab *lab, uint32_t store, bool up)
{
    safe_check_node(lab->safe, node_of(lab, ROLE_BLOCKD, store), up);
}

static void time_passes(struct lab *lab, uint64_t seconds)
{
    lab->world->now_ns += seconds * SECOND;
}

/* ---- uploads ---- */

/* A stage of receipts and of a run of entries, which are letters. */
static void stages(struct lab *lab, uint64_t session, const struct packed *receipts, uint32_t count, uint64_t first,
                   const char *entries)
{
    struct writer body = {0};
    Cairn__UploadStageRequest header = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    header.session = session;
    header.receipts = count;
    header.first_entry = first;
    header.entries = (uint32_t)strlen(entries);
    for (uint32_t i = 0; i < count; i++) {
        writer_put(&body, receipts[i].bytes, RECEIPT_BYTES);
    }
    for (uint32_t i = 0; i < header.entries; i++) {
        uint8_t packed[MANIFEST_ENTRY_BYTES];
        struct shard_key shard = shard_of(entries[i], 1, 1, 0);
        struct manifest_entry entry = {.plain_bytes = 4000, .writer = 1, .encoding = shard.encoding};
        manifest_entry_encode(&entry, packed);
        writer_put(&body, packed, sizeof packed);
    }
    asks(lab, 1, node_of(lab, ROLE_METAD, 1), MESSAGE_UPLOAD_STAGE, ++lab->world->operations, &header,
         writer_take(&body));
    writer_deinit(&body);
}

static void shows(struct lab *lab, const struct packed *receipts, uint32_t count)
{
    stages(lab, 1, receipts, count, 0, "");
}

static void lists(struct lab *lab, uint64_t session, uint64_t first, const char *entries)
{
    stages(lab, session, NULL, 0, first, entries);
}

/* Shard 0 of a chunk on the first store named, and so on (' ': this one is not put); their receipts are given, and
 * shown in one stage. */
static void uploads(struct lab *lab, char chunk, uint8_t k, uint8_t m, const char *stores)
{
    struct packed receipts[LIMIT_SHARDS];
    uint32_t count = 0;
    for (uint8_t i = 0; stores[i] != 0; i++) {
        uint32_t store = (uint32_t)(stores[i] - '0');
        if (stores[i] != ' ') {
            gives(lab, sends(lab, store, shard_of(chunk, k, m, i)), store, shard_of(chunk, k, m, i));
            receipts[count++] = receipt_of(store, shard_of(chunk, k, m, i));
        }
    }
    shows(lab, receipts, count);
}

static struct request completes_as(struct lab *lab, uint32_t client, uint64_t stream, uint64_t session)
{
    Cairn__UploadCompleteRequest header = CAIRN__UPLOAD_COMPLETE_REQUEST__INIT;
    header.session = session;
    return asks(lab, client, node_of(lab, ROLE_METAD, 1), MESSAGE_UPLOAD_COMPLETE, stream, &header, (struct slice){0});
}

static struct request completes(struct lab *lab, uint64_t session)
{
    return completes_as(lab, 1, ++lab->world->operations, session);
}

static void acknowledges(struct lab *lab, struct request complete, uint32_t safe_losses)
{
    Cairn__UploadCompleteReply header = CAIRN__UPLOAD_COMPLETE_REPLY__INIT;
    header.safe_losses = safe_losses;
    answers(lab, complete, 0, proto_pack(&header));
}

/* ---- the good one ---- */

/* A chunk in four shards, and a small one with its code; refused requests say nothing. */
static void good_files(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    uploads(lab, 'b', 1, 2, "567");
    struct request refused = sends(lab, 7, shard_of('b', 1, 2, 1));
    answers(lab, refused, MESSAGE_ERROR, error_reply_encode(ERR_BUSY, err_text(ERR_BUSY), 0));
    lists(lab, 1, 0, "ab");
    struct request complete = completes(lab, 1);
    answers(lab, complete, MESSAGE_ERROR, error_reply_encode(ERR_UNRESOLVED, err_text(ERR_UNRESOLVED), 0));
    acknowledges(lab, completes(lab, 1), 2);
    acknowledges(lab, completes(lab, 2), 3); /* a file without chunks */
}

/* Later files: chunks that are there, an entry that is staged anew, an index with a store to choose. */
static void good_later_files(struct lab *lab)
{
    lists(lab, 3, 0, "a");
    acknowledges(lab, completes(lab, 3), 2);
    uploads(lab, 'b', 2, 1, "567"); /* in a code that bears out less: the other one counts */
    uploads(lab, 'c', 2, 1, "12");
    lists(lab, 4, 0, "ca");
    lists(lab, 4, 0, "b");
    acknowledges(lab, completes(lab, 4), 2);
    uploads(lab, 'c', 1, 1, "34"); /* in one that bears out more */
    lists(lab, 5, 0, "c");
    acknowledges(lab, completes(lab, 5), 1);
    uploads(lab, 'd', 1, 1, "11");
    uploads(lab, 'd', 1, 1, "2 ");
    lists(lab, 6, 0, "d");
    acknowledges(lab, completes(lab, 6), 1);
}

static void good_while_a_store_is_away(struct lab *lab)
{
    struct request complete = completes(lab, 1);
    stores_go(lab, 1, false);
    time_passes(lab, AWAY_S);
    acknowledges(lab, complete, 2);
    time_passes(lab, LONG_AWAY_S);
    acknowledges(lab, complete, 1); /* it is not counted */
    stores_go(lab, 1, true);
    acknowledges(lab, complete, 2);
}

/* A client begins anew with its streams, and a server answers what the process before had asked. */
static void good_with_two_processes(struct lab *lab)
{
    struct request put = sends_as(lab, 1, 1000, 1, shard_of('e', 1, 1, 0));
    struct request complete = completes_as(lab, 1, 1001, 1);
    node_crash(node_of(lab, ROLE_DEVICE, 1), CRASH_KILL);
    node_start(node_of(lab, ROLE_DEVICE, 1));
    lists(lab, 7, 0, "e");
    struct request later = sends_as(lab, 1, 1000, 1, shard_of('e', 1, 1, 1));
    completes_as(lab, 1, 1001, 7);
    gives(lab, put, 1, shard_of('e', 1, 1, 0));
    gives(lab, later, 1, shard_of('e', 1, 1, 1));
    acknowledges(lab, complete, 2);
    complete.conn = 1ul << 32; /* both ends have forgotten it: nobody knows what it answers */
    acknowledges(lab, complete, 9);
}

static void good(struct lab *lab)
{
    good_files(lab);
    good_later_files(lab);
    good_while_a_store_is_away(lab);
    good_with_two_processes(lab);
    assert_int_equal(safe_check_acknowledgements(lab->safe), 9); /* those of files with chunks */
}

/* ---- what an acknowledgement counts ---- */

/* The file of chunk 'a' alone is staged and, as the last call, acknowledged. */
static void acknowledges_a(struct lab *lab, uint32_t safe_losses)
{
    lists(lab, 1, 0, "a");
    struct request complete = completes(lab, 1);
    lab_turn(lab);
    acknowledges(lab, complete, safe_losses);
}

static void counts_one_too_many(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    acknowledges_a(lab, 3);
}

static void counts_too_few_shards(struct lab *lab)
{
    uploads(lab, 'a', 3, 1, "12");
    acknowledges_a(lab, 1);
}

static void counts_what_nobody_showed(struct lab *lab)
{
    acknowledges_a(lab, 1);
}

/* The client spoils one receipt of each stage. */
static void counts_what_a_client_spoiled(struct lab *lab)
{
    safe_check_destroy(lab->safe);
    lab->safe = safe_check_create(lab->world, 100);
    uploads(lab, 'a', 2, 2, "1234");
    acknowledges_a(lab, 2);
}

static void counts_what_no_store_gave(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    struct packed receipt = receipt_of(4, shard_of('a', 2, 2, 3));
    shows(lab, &receipt, 1);
    acknowledges_a(lab, 2);
}

/* A store gave one, and the bytes are others. */
static void counts_a_forged_one(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    gives(lab, sends(lab, 4, shard_of('a', 2, 2, 3)), 4, shard_of('a', 2, 2, 3));
    struct packed receipt = receipt_of(4, shard_of('a', 2, 2, 3));
    receipt.bytes[RECEIPT_BYTES - 1] ^= 1;
    shows(lab, &receipt, 1);
    acknowledges_a(lab, 2);
}

static void counts_what_was_refused(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    struct request put = sends(lab, 4, shard_of('a', 2, 2, 3));
    answers(lab, put, MESSAGE_ERROR, error_reply_encode(ERR_BUSY, err_text(ERR_BUSY), 0));
    struct packed receipt = receipt_of(4, shard_of('a', 2, 2, 3));
    shows(lab, &receipt, 1);
    acknowledges_a(lab, 2);
}

static void counts_what_was_not_shown(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    gives(lab, sends(lab, 4, shard_of('a', 2, 2, 3)), 4, shard_of('a', 2, 2, 3));
    acknowledges_a(lab, 2);
}

static void counts_one_twice(struct lab *lab)
{
    struct packed again = receipt_of(3, shard_of('a', 2, 2, 2));
    uploads(lab, 'a', 2, 2, "123");
    shows(lab, &again, 1);
    acknowledges_a(lab, 2);
}

static void counts_two_indexes_of_one_store(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1233");
    acknowledges_a(lab, 2);
}

static void counts_two_stores_of_one_index(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'a', 2, 2, "4");
    acknowledges_a(lab, 2);
}

static void counts_an_index_that_the_code_has_not(struct lab *lab)
{
    uploads(lab, 'a', 2, 1, "123");
    uploads(lab, 'a', 2, 1, "   4");
    acknowledges_a(lab, 2);
}

static void counts_two_codes_as_one(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'a', 3, 2, "   45");
    acknowledges_a(lab, 2);
}

/* Data shards of both codes hold the same bytes; they are added up no more than others. */
static void counts_a_code_with_more_parity(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'a', 2, 3, "   45");
    acknowledges_a(lab, 2);
}

static void counts_a_store_that_is_away(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    stores_go(lab, 4, false);
    time_passes(lab, LONG_AWAY_S);
    acknowledges_a(lab, 2);
}

/* It comes back and goes again: what counts is how long it has been away now. */
static void counts_a_store_that_went_again(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    lists(lab, 1, 0, "a");
    struct request complete = completes(lab, 1);
    stores_go(lab, 4, false);
    time_passes(lab, AWAY_S);
    stores_go(lab, 4, true);
    stores_go(lab, 4, false);
    time_passes(lab, AWAY_S);
    acknowledges(lab, complete, 2);
    time_passes(lab, LONG_AWAY_S - AWAY_S);
    lab_turn(lab);
    acknowledges(lab, complete, 2);
}

static void counts_the_best_of_two_chunks(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    uploads(lab, 'b', 2, 2, "123");
    lists(lab, 1, 0, "ba");
    struct request complete = completes(lab, 1);
    acknowledges(lab, complete, 1);
    lab_turn(lab);
    acknowledges(lab, complete, 2);
}

static void counts_the_entry_that_was_there_before(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    uploads(lab, 'b', 2, 2, "123");
    lists(lab, 1, 0, "aa");
    lists(lab, 1, 1, "b");
    struct request complete = completes(lab, 1);
    lab_turn(lab);
    acknowledges(lab, complete, 2);
}

/* Entry 5 of a file that has one is refused. */
static void counts_an_entry_behind_a_gap(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    uploads(lab, 'b', 2, 2, "123");
    lists(lab, 1, 0, "b");
    lists(lab, 1, 5, "a");
    struct request complete = completes(lab, 1);
    lab_turn(lab);
    acknowledges(lab, complete, 2);
}

static void counts_the_receipts_of_another_chunk(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'b', 2, 2, "   4");
    acknowledges_a(lab, 2);
}

static void says_of_one_upload_what_another_has(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'b', 2, 2, "1234");
    lists(lab, 1, 0, "a");
    lists(lab, 2, 0, "b");
    struct request first = completes(lab, 1), second = completes(lab, 2);
    acknowledges(lab, second, 2);
    lab_turn(lab);
    acknowledges(lab, first, 2);
}

/* Streams are a client's own. */
static void says_to_one_client_what_another_asked(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "123");
    uploads(lab, 'b', 2, 2, "1234");
    lists(lab, 1, 0, "a");
    lists(lab, 2, 0, "b");
    struct request first = completes_as(lab, 1, 1000, 1), second = completes_as(lab, 2, 1000, 2);
    acknowledges(lab, second, 2);
    lab_turn(lab);
    acknowledges(lab, first, 2);
}

static void says_what_nobody_asked(struct lab *lab)
{
    uploads(lab, 'a', 2, 2, "1234");
    lists(lab, 1, 0, "a");
    struct request complete = completes(lab, 1);
    acknowledges(lab, complete, 2);
    complete.stream += 1000;
    lab_turn(lab);
    acknowledges(lab, complete, 2);
}

/* ---- what a receipt names ---- */

/* What is put is index 1 of chunk 'a' in two shards of three, on store 1. */
static void receives(struct lab *lab, uint32_t store, struct shard_key shard)
{
    struct request put = sends(lab, 1, shard_of('a', 2, 1, 1));
    lab_turn(lab);
    gives(lab, put, store, shard);
}

static void names_another_index(struct lab *lab)
{
    receives(lab, 1, shard_of('a', 2, 1, 2));
}

static void names_another_chunk(struct lab *lab)
{
    receives(lab, 1, shard_of('b', 2, 1, 1));
}

static void names_another_code(struct lab *lab)
{
    receives(lab, 1, shard_of('a', 2, 2, 1));
}

static void names_other_sealed_bytes(struct lab *lab)
{
    struct shard_key shard = shard_of('a', 2, 1, 1);
    shard.encoding.bytes[15] ^= 1;
    receives(lab, 1, shard);
}

static void names_another_store(struct lab *lab)
{
    receives(lab, 2, shard_of('a', 2, 1, 1));
}

static void names_no_store(struct lab *lab)
{
    receives(lab, 0, shard_of('a', 2, 1, 1));
}

/* A number that no map of the simulator has. */
static void names_a_store_beyond_all(struct lab *lab)
{
    struct request put = sends(lab, 65, shard_of('a', 2, 1, 1));
    lab_turn(lab);
    gives(lab, put, 65, shard_of('a', 2, 1, 1));
}

static void names_what_another_client_put(struct lab *lab)
{
    struct request first = sends_as(lab, 1, 1000, 1, shard_of('a', 2, 1, 1));
    struct request second = sends_as(lab, 2, 1000, 1, shard_of('b', 2, 1, 1));
    gives(lab, second, 1, shard_of('b', 2, 1, 1));
    lab_turn(lab);
    gives(lab, first, 1, shard_of('b', 2, 1, 1));
}

static void names_what_was_put_before(struct lab *lab)
{
    struct request first = sends(lab, 1, shard_of('a', 2, 1, 0)), second = sends(lab, 1, shard_of('b', 2, 1, 1));
    gives(lab, first, 1, shard_of('a', 2, 1, 0));
    lab_turn(lab);
    gives(lab, second, 1, shard_of('a', 2, 1, 0));
}

static void names_what_nobody_put(struct lab *lab)
{
    struct request put = sends(lab, 1, shard_of('a', 2, 1, 1));
    gives(lab, put, 1, shard_of('a', 2, 1, 1));
    put.stream += 1000;
    lab_turn(lab);
    gives(lab, put, 1, shard_of('a', 2, 1, 1));
}

static void gives_a_short_receipt(struct lab *lab)
{
    struct request put = sends(lab, 1, shard_of('a', 2, 1, 1));
    struct packed receipt = receipt_of(1, shard_of('a', 2, 1, 1));
    lab_turn(lab);
    gives_bytes(lab, put, receipt.bytes, sizeof receipt.bytes - 1);
}

static void gives_no_receipt(struct lab *lab)
{
    struct request put = sends(lab, 1, shard_of('a', 2, 1, 1));
    lab_turn(lab);
    gives_bytes(lab, put, NULL, 0);
}

static void gives_no_message(struct lab *lab)
{
    static const uint8_t bytes[] = {0xff, 0xff, 0xff, 0xff};
    struct request put = sends(lab, 1, shard_of('a', 2, 1, 1));
    lab_turn(lab);
    answers(lab, put, 0, slice_copy(bytes, sizeof bytes));
}

static void test_histories(void **state)
{
    (void)state;
    static const struct bad_history bad[] = {
        {"safe_losses one too high", counts_one_too_many,
         "acknowledged with 3, and the receipts shown for it bear out 2"},
        {"too few shards to read it", counts_too_few_shards, "with 1, and the receipts shown for it bear out 0"},
        {"a chunk that nobody showed", counts_what_nobody_showed, "with 1, and the receipts shown for it bear out 0"},
        {"a receipt that the client spoiled", counts_what_a_client_spoiled, "shown for it bear out 1"},
        {"a receipt that no store gave", counts_what_no_store_gave, "shown for it bear out 1"},
        {"a forged receipt", counts_a_forged_one, "shown for it bear out 1"},
        {"a shard that was refused", counts_what_was_refused, "shown for it bear out 1"},
        {"a receipt that was not shown", counts_what_was_not_shown, "shown for it bear out 1"},
        {"one receipt shown twice", counts_one_twice, "shown for it bear out 1"},
        {"two indexes on one store", counts_two_indexes_of_one_store, "shown for it bear out 1"},
        {"one index on two stores", counts_two_stores_of_one_index, "shown for it bear out 1"},
        {"an index beyond the code", counts_an_index_that_the_code_has_not, "shown for it bear out 1"},
        {"receipts of two codes added up", counts_two_codes_as_one, "shown for it bear out 1"},
        {"receipts of a code with more parity", counts_a_code_with_more_parity, "shown for it bear out 1"},
        {"a store that is away", counts_a_store_that_is_away, "shown for it bear out 1"},
        {"a store that went away again", counts_a_store_that_went_again, "shown for it bear out 1"},
        {"one of two chunks has fewer", counts_the_best_of_two_chunks, "shown for it bear out 1"},
        {"an entry that was replaced by one with fewer", counts_the_entry_that_was_there_before,
         "shown for it bear out 1"},
        {"an entry behind a gap", counts_an_entry_behind_a_gap, "shown for it bear out 1"},
        {"a receipt of another chunk", counts_the_receipts_of_another_chunk, "shown for it bear out 1"},
        {"the number of another upload", says_of_one_upload_what_another_has, "shown for it bear out 1"},
        {"the number of another client's upload", says_to_one_client_what_another_asked, "shown for it bear out 1"},
        {"an acknowledgement that nobody asked for", says_what_nobody_asked, "that nobody asked to complete"},
        {"a receipt for another index", names_another_index, "names another shard than it was sent, index 2"},
        {"a receipt for another chunk", names_another_chunk, "names another shard than it was sent"},
        {"a receipt for another code", names_another_code, "names another shard than it was sent"},
        {"a receipt for other sealed bytes", names_other_sealed_bytes, "names another shard than it was sent"},
        {"a receipt in another store's name", names_another_store, "than it was sent, index 1 of store 2"},
        {"a receipt in no store's name", names_no_store, "store on blockd 1: its receipt does not decode"},
        {"a receipt of a store beyond all", names_a_store_beyond_all,
         "store on blockd 65: its receipt does not decode"},
        {"a receipt for what another client put", names_what_another_client_put, "names another shard"},
        {"a receipt for what was put before", names_what_was_put_before, "names another shard"},
        {"a receipt that nobody asked for", names_what_nobody_put, "names another shard"},
        {"a receipt one byte too short", gives_a_short_receipt, "its receipt does not decode"},
        {"a reply without a receipt", gives_no_receipt, "its receipt does not decode"},
        {"a reply that is no message", gives_no_message, "its receipt does not decode"},
    };
    lab_judge(good, bad, sizeof bad / sizeof *bad);
}

/* ---- what a client that lies sends ---- */

enum { SHOWN = 4 };

/* A stage of four receipts as it leaves a node; returns which of them is spoiled, SHOWN: none. */
static uint32_t forged(struct lab *lab, enum role role, uint16_t type, const struct packed *receipts)
{
    Cairn__UploadStageRequest header = CAIRN__UPLOAD_STAGE_REQUEST__INIT;
    header.receipts = SHOWN;
    struct message message = {.type = type, .header = proto_pack(&header)};
    message.body = slice_copy(receipts, SHOWN * sizeof *receipts);
    safe_forge(lab->safe, node_of(lab, role, 1), &message);
    uint32_t which = SHOWN, count = 0;
    for (uint32_t i = 0; i < SHOWN; i++) {
        bool same = memcmp(message.body.data + i * sizeof *receipts, receipts[i].bytes, sizeof *receipts) == 0;
        which = same ? which : i;
        count += !same;
    }
    assert_true(count <= 1);
    slice_drop(&message.header);
    slice_drop(&message.body);
    return which;
}

/* The checker leaves out the very receipt that is spoiled. */
static void test_forge(void **state)
{
    (void)state;
    struct lab lab;
    struct packed receipts[SHOWN];
    for (uint8_t i = 0; i < SHOWN; i++) {
        receipts[i] = receipt_of(i + 1, shard_of('a', 1, 3, i));
    }
    lab_init(&lab);
    assert_int_equal(forged(&lab, ROLE_DEVICE, MESSAGE_UPLOAD_STAGE, receipts), SHOWN);
    safe_check_destroy(lab.safe);
    lab.safe = safe_check_create(lab.world, 100);
    assert_int_equal(forged(&lab, ROLE_METAD, MESSAGE_UPLOAD_STAGE, receipts), SHOWN);
    assert_int_equal(forged(&lab, ROLE_DEVICE, MESSAGE_SHARD_PUT, receipts), SHOWN);
    uint32_t which = forged(&lab, ROLE_DEVICE, MESSAGE_UPLOAD_STAGE, receipts);
    assert_true(which < SHOWN);
    assert_int_equal(forged(&lab, ROLE_DEVICE, MESSAGE_UPLOAD_STAGE, receipts), which);
    uploads(&lab, 'a', 1, 3, "1234");
    stores_go(&lab, which + 1, false); /* it costs nothing: its receipt does not count anyway */
    time_passes(&lab, LONG_AWAY_S);
    lists(&lab, 1, 0, "a");
    acknowledges(&lab, completes(&lab, 1), 2);
    assert_false(lab.world->failed);
    lab_deinit(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_histories), cmocka_unit_test(test_forge)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
