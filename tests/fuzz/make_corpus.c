/* Writes the first corpus of each target below the folder given: valid inputs and the edges around them. Run again
 * after a format changes: make_corpus tests/fuzz/corpus */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/code.h"
#include "base/compress.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/seal.h"
#include "blockd/segment.h"
#include "fuzz.h"
#include "metad/host/log.h"
#include "metad/host/log_format.h"
#include "proto/cairn.pb-c.h"
#include "proto/frame.h"
#include "proto/manifest.h"
#include "proto/message.h"
#include "proto/token.h"

static const char *root;

static void corpus_put(const char *target, const char *name, const void *data, size_t bytes)
{
    char path[PATH_MAX];
    CHECK(snprintf(path, sizeof path, "%s/%s", root, target) < (int)sizeof path);
    CHECK(mkdir(path, 0755) == 0 || errno == EEXIST);
    CHECK(snprintf(path, sizeof path, "%s/%s/%s", root, target, name) < (int)sizeof path);
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL);
    CHECK(fwrite(data, 1, bytes, file) == bytes);
    CHECK(fclose(file) == 0);
}

static void put_frame(const char *name, uint32_t header_bytes, uint32_t body_bytes, bool whole)
{
    uint8_t data[FRAME_FIXED_BYTES + 64];
    memset(data, 'h', sizeof data);
    struct frame frame = {.type = MESSAGE_STAT, .stream = 1ull << 48 | 9, .target = 3, .body_bytes = body_bytes};
    frame.header_bytes = whole ? header_bytes : 64;
    frame_encode(&frame, data + FRAME_FIXED_BYTES, data);
    put_u32(data + 20, header_bytes);
    corpus_put("frame", name, data, FRAME_FIXED_BYTES + (whole ? header_bytes : 64));
}

static void make_frames(void)
{
    put_frame("empty", 0, 0, true);
    put_frame("header", 20, 0, true);
    put_frame("body", 64, LIMIT_FRAME_BODY_BYTES, true);
    put_frame("header-largest", LIMIT_FRAME_HEADER_BYTES, 0, false);
    put_frame("header-too-large", LIMIT_FRAME_HEADER_BYTES + 1, 0, false);
    put_frame("header-huge", UINT32_MAX, 0, false);
    put_frame("body-too-large", 10, LIMIT_FRAME_BODY_BYTES + 1, true);
    put_frame("body-huge", 10, UINT32_MAX, true);
    corpus_put("frame", "short", "CRN1", 4);
    corpus_put("frame", "tls", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a client hello sent in the clear", 44);
}

/* The first byte chooses the message: its place in fuzz_proto.c. */
static void put_message(uint8_t choice, const char *name, struct slice packed)
{
    struct writer w = {0};
    writer_u8(&w, choice);
    writer_put(&w, packed.data, packed.bytes);
    corpus_put("proto", name, w.data, w.bytes);
    writer_deinit(&w);
    slice_drop(&packed);
}

static void make_map(void)
{
    Cairn__MapStore stores[3];
    Cairn__MapStore *store_list[3];
    for (unsigned i = 0; i < 3; i++) {
        cairn__map_store__init(&stores[i]);
        stores[i].store = i + 1;
        stores[i].uuid = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)fuzz_secret};
        store_list[i] = &stores[i];
    }
    uint32_t slots[] = {1, 2, 3, 0, 300, UINT32_MAX};
    Cairn__MapPool pool = CAIRN__MAP_POOL__INIT;
    Cairn__MapPool *pools[] = {&pool};
    pool.name = (char *)(uintptr_t) "rs-4-2";
    pool.n_slots = 6;
    pool.slots = slots;
    Cairn__ClusterMap map = CAIRN__CLUSTER_MAP__INIT;
    map.n_stores = 3;
    map.stores = store_list;
    map.n_pools = 1;
    map.pools = pools;
    map.epoch = UINT64_MAX;
    put_message(3, "map", proto_pack(&map));
    Cairn__MapGetReply reply = CAIRN__MAP_GET_REPLY__INIT;
    reply.map = &map;
    put_message(4, "map-nested", proto_pack(&reply));
}

static void make_messages(void)
{
    Cairn__Hello hello = CAIRN__HELLO__INIT;
    hello.version = FRAME_VERSION;
    hello.role = ROLE_DEVICE;
    hello.build = (char *)(uintptr_t) "1.0";
    put_message(0, "hello", proto_pack(&hello));
    put_message(1, "error", error_reply_encode(ERR_NOT_LEADER, NULL, 2));
    make_map();
    Cairn__RequestHead head = CAIRN__REQUEST_HEAD__INIT;
    Cairn__StatRequest stat = CAIRN__STAT_REQUEST__INIT;
    ProtobufCBinaryData path[] = {{3, (uint8_t *)(uintptr_t) "dir"}, {0, NULL}, {4, (uint8_t *)(uintptr_t) "file"}};
    head.ns = 1;
    stat.head = &head;
    stat.n_path = 3;
    stat.path = path;
    put_message(13, "stat", proto_pack(&stat));
    uint64_t unresolved[] = {0, 127, 128, UINT64_MAX};
    Cairn__UploadStageReply stage = CAIRN__UPLOAD_STAGE_REPLY__INIT;
    stage.n_unresolved = 4;
    stage.unresolved = unresolved;
    put_message(20, "stage-reply", proto_pack(&stage));
    put_message(15, "empty", (struct slice){0});
    put_message(15, "empty-entries", slice_borrow("\x0a\x00\x0a\x00\x0a\x00\x0a\x00", 8));
    put_message(13, "head-twice", slice_borrow("\x0a\x00\x0a\x00", 4));
    put_message(13, "unknown-field", slice_borrow("\x78\x01\x7a\x02xy\x7d\x01\x02\x03\x04", 11));
    put_message(13, "group", slice_borrow("\x0b\x0c", 2));
    put_message(1, "string-with-nul", slice_borrow("\x12\x03x\0y", 5));
    put_message(1, "varint-too-long", slice_borrow("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12));
    put_message(1, "length-huge", slice_borrow("\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11));
    put_message(20, "packed-cut", slice_borrow("\x1a\x02\x80\x80", 4));
    put_message(4, "message-cut", slice_borrow("\x0a\x7f\x08\x01", 4));
}

static void make_capabilities(void)
{
    struct capability capability = {.realm = 1, .writer = 2, .ns = 3, .session = 4, .budget_bytes = UINT64_MAX};
    uint8_t data[CAPABILITY_BYTES + 1] = {0};
    capability.operations = CAPABILITY_PUT;
    capability_sign(&capability, fuzz_secret, data);
    corpus_put("capability", "valid", data, CAPABILITY_BYTES);
    corpus_put("capability", "long", data, CAPABILITY_BYTES + 1);
    corpus_put("capability", "short", data, CAPABILITY_BYTES - 1);
    data[20] ^= 1;
    corpus_put("capability", "altered", data, CAPABILITY_BYTES);
    memset(data, 0xff, sizeof data);
    corpus_put("capability", "ones", data, CAPABILITY_BYTES);
    corpus_put("capability", "empty", data, 0);
}

static void make_receipts(void)
{
    struct receipt receipt = {.store = 1, .sealed_bytes = 4096, .ns = 2, .session = 3, .generation = 4};
    uint8_t data[RECEIPT_BYTES + 1] = {0};
    receipt.shard = (struct shard_key){.realm = 1, .writer = 2, .k = 4, .m = 2, .index = 5};
    receipt_sign(&receipt, fuzz_secret, data);
    corpus_put("receipt", "valid", data, RECEIPT_BYTES);
    corpus_put("receipt", "long", data, RECEIPT_BYTES + 1);
    corpus_put("receipt", "short", data, RECEIPT_BYTES - 1);
    data[40] ^= 1;
    corpus_put("receipt", "altered", data, RECEIPT_BYTES);
    memset(data, 0xff, sizeof data);
    corpus_put("receipt", "ones", data, RECEIPT_BYTES);
    corpus_put("receipt", "empty", data, 0);
}

static void put_seal(const char *name, uint8_t mode, uint32_t place, const void *rest, size_t bytes)
{
    struct writer w = {0};
    writer_u8(&w, mode);
    writer_u32(&w, place);
    writer_put(&w, rest, bytes);
    corpus_put("unseal", name, w.data, w.bytes);
    writer_deinit(&w);
}

static void make_seals(void)
{
    struct chunk_id chunk = {{1}};
    struct sha256 sha = sha256("", 0);
    struct encoding encoding;
    uint8_t sealed[SEAL_HEADER_BYTES + SEAL_TAG_BYTES + 100] = {0};
    seal_chunk(&chunk, fuzz_secret, &sha, "", 0, sealed, &encoding);
    put_seal("sealed-nothing", 0, 0, sealed, seal_bytes(0));
    sealed[4] = SEAL_ZSTD;
    put_seal("codec-other", 0, 0, sealed, seal_bytes(0));
    sealed[4] = SEAL_PLAIN;
    put_u32(sealed + 8, 100);
    put_u32(sealed + 12, 100);
    put_seal("sealed-forged", 0, 0, sealed, seal_bytes(100));
    put_u32(sealed + 8, UINT32_MAX);
    put_u32(sealed + 12, UINT32_MAX);
    put_seal("lengths-huge", 0, 0, sealed, seal_bytes(100));
    put_seal("header-cut", 0, 0, sealed, 20);
    put_seal("plain-nothing", 1, 0, "", 0);
    put_seal("plain-some", 1, 300, "some plain bytes", 16);
    struct slice value = value_seal(fuzz_secret, "", 0, "value", 5);
    put_seal("value-sealed", 2, 0, value.data, value.bytes);
    put_seal("value-cut", 2, 0, value.data, VALUE_SEAL_BYTES - 1);
    slice_drop(&value);
    put_seal("value-plain", 3, 200, "value", 5);
    put_seal("value-nothing", 3, 0, "", 0);
}

static void make_compressed_seals(void)
{
    static uint8_t text[200000];
    for (unsigned i = 0; i < sizeof text; i++) {
        text[i] = (uint8_t)("some words that come again and again "[i % 37] + i / 9000);
    }
    struct slice payload = compress_if_pays(text, sizeof text);
    CHECK(payload.bytes > 0);
    struct chunk_id chunk = {{1}};
    struct sha256 sha = sha256(payload.data, payload.bytes);
    struct encoding encoding;
    struct slice sealed = slice_alloc(seal_bytes(payload.bytes));
    seal_payload(&chunk, fuzz_secret, SEAL_ZSTD, &sha, payload, sizeof text, sealed.data, &encoding);
    put_seal("sealed-zstd", 0, 0, sealed.data, sealed.bytes);
    put_seal("zstd-payload", 4, sizeof text, payload.data, payload.bytes);
    put_seal("zstd-length-short", 4, sizeof text - 1, payload.data, payload.bytes);
    put_seal("zstd-length-long", 4, sizeof text + 1, payload.data, payload.bytes);
    put_seal("zstd-cut", 4, sizeof text, payload.data, payload.bytes - 1);
    put_seal("zstd-nothing", 4, 0, "\x28\xb5\x2f\xfd\x20\x00\x01\x00\x00", 9);
    put_seal("zstd-skippable", 4, 0, "\x50\x2a\x4d\x18\x00\x00\x00\x00", 8);
    put_seal("zstd-pays", 5, 99, text, 3000);
    put_seal("zstd-pays-not", 5, 99, "short", 5);
    slice_drop(&sealed);
    slice_drop(&payload);
}

static void put_checks(const char *name, const uint8_t head[7], uint32_t sealed_bytes, const void *rest, size_t bytes)
{
    struct writer w = {0};
    writer_put(&w, head, 7);
    writer_u32(&w, sealed_bytes);
    writer_put(&w, rest, bytes);
    corpus_put("shard_checks", name, w.data, w.bytes);
    writer_deinit(&w);
}

static void make_shard_checks(void)
{
    uint8_t text[256] = {0};
    struct slice shards[6];
    for (unsigned i = 0; i < 6; i++) {
        shards[i] = slice_borrow(text + i, 64);
    }
    struct slice checks = shard_checks_of(shards, 6);
    put_checks("valid", (const uint8_t[7]){6, 2, 64, 0, 0, 0, 4}, 200, checks.data, checks.bytes);
    put_checks("cut", (const uint8_t[7]){6, 2, 64, 0, 0, 0, 4}, 200, checks.data, checks.bytes - 1);
    put_checks("index-beyond", (const uint8_t[7]){6, 6, 64, 0, 0, 0, 4}, 200, checks.data, checks.bytes);
    put_checks("shard-huge", (const uint8_t[7]){6, 2, 255, 255, 255, 255, 4}, UINT32_MAX, checks.data, checks.bytes);
    put_checks("shard-empty", (const uint8_t[7]){6, 2, 0, 0, 0, 0, 1}, 0, checks.data, 4);
    put_checks("count-none", (const uint8_t[7]){0}, 0, checks.data, checks.bytes);
    put_checks("count-beyond", (const uint8_t[7]){255, 1, 64, 0, 0, 0, 200}, 1, checks.data, checks.bytes);
    slice_drop(&checks);
    memset(text, 7, sizeof text);
    put_checks("joins", (const uint8_t[7]){6, 2, 64, 0, 0, 0, 4}, 250, text, 64);
    text[1] = 5;
    text[3] = 10;
    put_checks("joins-after-loss", (const uint8_t[7]){6, 2, 64, 0, 0, 0, 4}, 250, text, 64);
    text[0] = 0;
    put_checks("too-few", (const uint8_t[7]){6, 2, 64, 0, 0, 0, 4}, 250, text, 64);
    put_checks("copies", (const uint8_t[7]){3, 2, 64, 0, 0, 0, 1}, 64, text + 10, 64);
}

static void make_manifests(void)
{
    struct ask_entry ask = {.sha = sha256("", 0), .plain_bytes = LIMIT_CHUNK_BYTES};
    struct ask_answer answer = {.missing = true, .chunk = {{7}}};
    struct manifest_read read = {.entry = {.sha = sha256("", 0), .plain_bytes = 1, .writer = 3}, .chunk = {{9}}};
    uint8_t data[MANIFEST_READ_BYTES + 1] = {0};
    ask_entry_encode(&ask, data);
    corpus_put("manifest", "ask", data, ASK_ENTRY_BYTES);
    put_u32(data + 32, LIMIT_CHUNK_BYTES + 1);
    corpus_put("manifest", "ask-too-long", data, ASK_ENTRY_BYTES);
    put_u32(data + 32, 0);
    corpus_put("manifest", "ask-of-nothing", data, ASK_ENTRY_BYTES);
    ask_answer_encode(&answer, data);
    corpus_put("manifest", "answer-missing", data, ASK_ANSWER_BYTES);
    answer.missing = false;
    answer.sealed_bytes = LIMIT_SEALED_BYTES;
    ask_answer_encode(&answer, data);
    corpus_put("manifest", "answer-present", data, ASK_ANSWER_BYTES);
    data[0] = 2;
    corpus_put("manifest", "answer-neither", data, ASK_ANSWER_BYTES);
    manifest_entry_encode(&read.entry, data);
    corpus_put("manifest", "entry", data, MANIFEST_ENTRY_BYTES);
    corpus_put("manifest", "entry-cut", data, MANIFEST_ENTRY_BYTES - 1);
    manifest_read_encode(&read, data);
    corpus_put("manifest", "read", data, MANIFEST_READ_BYTES);
    corpus_put("manifest", "read-long", data, MANIFEST_READ_BYTES + 1);
    memset(data, 0xff, sizeof data);
    corpus_put("manifest", "ones", data, MANIFEST_READ_BYTES);
    corpus_put("manifest", "empty", data, 0);
}

static void make_entries(void)
{
    struct raft_entry entries[3] = {{.index = 1, .term = 1, .type = RAFT_ENTRY_BOOT},
                                    {.index = 2, .term = UINT64_MAX, .type = RAFT_ENTRY_COMMANDS},
                                    {.index = UINT64_MAX, .term = 3, .type = RAFT_ENTRY_COMMANDS}};
    entries[1].data = slice_borrow("a command", 9);
    struct slice body;
    raft_entries_encode(entries, 3, &body);
    corpus_put("entries", "three", body.data, body.bytes);
    corpus_put("entries", "cut", body.data, body.bytes - 1);
    corpus_put("entries", "cut-in-data", body.data, 21 + 21 + 3);
    put_u32(body.data + 17, LIMIT_ENTRY_BYTES + 1);
    corpus_put("entries", "too-large", body.data, body.bytes);
    put_u32(body.data + 17, LIMIT_ENTRY_BYTES);
    corpus_put("entries", "larger-than-body", body.data, body.bytes);
    put_u32(body.data + 17, 0);
    body.data[16] = RAFT_ENTRY_CONFIG + 1;
    corpus_put("entries", "type-beyond", body.data, body.bytes);
    corpus_put("entries", "none", body.data, 0);
    slice_drop(&body);
}

static void put_record(const char *name, const struct record *record, uint32_t tail_bytes)
{
    struct directory_identity identity = {.incarnation = 5};
    uint8_t data[1 + RECORD_HEADER_BYTES] = {0};
    memcpy(identity.uuid.bytes, fuzz_secret, sizeof identity.uuid.bytes);
    record_encode(record, &identity, data + 1);
    data[0] = tail_bytes != record->tail_bytes; /* an altered one needs its checksum made right */
    put_u32(data + 1 + 84, tail_bytes);
    corpus_put("segment", name, data, sizeof data);
}

static void make_segments(void)
{
    uint8_t bytes[64] = {0}, tail[1024] = {0};
    struct slice shards[6];
    for (unsigned i = 0; i < 6; i++) {
        shards[i] = slice_borrow(bytes, sizeof bytes);
    }
    struct slice checks = shard_checks_of(shards, 6);
    CHECK(checks.bytes + 2 * RECORD_HOLD_BYTES <= sizeof tail);
    memcpy(tail, checks.data, checks.bytes);
    struct record record = {.type = RECORD_SHARD, .segment = 3, .offset = 8192, .sequence = 9, .mark = 8};
    record.key = (struct shard_key){.realm = 1, .writer = 2, .k = 4, .m = 2, .index = 5};
    record.payload_bytes = 64;
    record.sealed_bytes = 200;
    record.plain_bytes = 150;
    record.tail = tail;
    record.tail_bytes = checks.bytes;
    put_record("shard", &record, record.tail_bytes);
    put_record("shard-tail-short", &record, record.tail_bytes - 1);
    put_record("shard-tail-huge", &record, UINT32_MAX);
    record.tail_bytes = checks.bytes + 2 * RECORD_HOLD_BYTES;
    put_record("shard-holds", &record, record.tail_bytes);
    put_record("shard-hold-cut", &record, record.tail_bytes - 5);
    record = (struct record){.type = RECORD_LOST, .segment = 3, .offset = 8192, .sequence = 9, .mark = 8, .tail = tail};
    record.tail_bytes = 32;
    put_record("lost", &record, 32);
    put_record("lost-cut", &record, 31);
    record.type = RECORD_HOLDER;
    record.tail_bytes = 0;
    put_record("holder", &record, 0);
    slice_drop(&checks);
    corpus_put("segment", "zeros", tail, 1 + 100);
    memset(tail, 0xff, sizeof tail);
    tail[0] = 1;
    corpus_put("segment", "ones", tail, sizeof tail);
}

static void put_sectors(const char *name, uint8_t mode, const uint8_t *sectors, size_t bytes)
{
    struct writer w = {0};
    writer_u8(&w, mode);
    writer_put(&w, sectors, bytes);
    corpus_put("log", name, w.data, w.bytes);
    writer_deinit(&w);
}

static void make_logs(void)
{
    struct log_where where = {.segment = 2, .file = 2, .oldest = 1};
    memcpy(where.directory.bytes, fuzz_secret, sizeof where.directory.bytes);
    uint8_t body[700] = "a command";
    struct log_builder b;
    log_builder_init(&b, log_blocks_bound(3 * LOG_RECORD_HEADER_BYTES + sizeof body, 3), 8 * LOG_SECTOR_BYTES);
    struct log_record record = {
        .type = LOG_RECORD_ENTRY, .entry = RAFT_ENTRY_COMMANDS, .group = 1, .index = 5, .term = 2};
    record.previous_index = 4;
    (void)log_builder_put(&b, &record, body, sizeof body);
    record = (struct log_record){.type = LOG_RECORD_HARD_STATE, .group = 1, .term = 3, .vote = 2};
    (void)log_builder_put(&b, &record, NULL, 0);
    struct slice data = log_builder_finish(&b, &where, 7, 6, 5);
    put_sectors("write", 0, data.data, data.bytes);
    put_sectors("write-cut", 0, data.data, LOG_SECTOR_BYTES);
    put_u16(data.data + 40, LOG_PAYLOAD_BYTES + 1);
    put_sectors("used-beyond", 1, data.data, data.bytes);
    put_u16(data.data + 40, 3);
    put_sectors("used-little", 1, data.data, data.bytes);
    put_u16(data.data + 40, 0);
    put_sectors("used-nothing", 1, data.data, data.bytes);
    put_u32(data.data + 36, UINT32_MAX / 8 * 8);
    put_sectors("sectors-huge", 1, data.data, data.bytes);
    memset(data.data, 0xff, data.bytes);
    put_sectors("ones", 1, data.data, data.bytes);
    slice_drop(&data);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    root = argv[1];
    CHECK(mkdir(root, 0755) == 0 || errno == EEXIST);
    make_frames();
    make_messages();
    make_capabilities();
    make_receipts();
    make_seals();
    make_compressed_seals();
    make_shard_checks();
    make_manifests();
    make_entries();
    make_segments();
    make_logs();
    return 0;
}
