/* Entries of the index: packed, read, and changed by records. Fails with CORRUPT on a value that is not an entry. */
#include "shard_index.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"
#include "blockd.h"

#define ENTRY_VERSION  1
#define ENTRY_FIXED    40u
#define HOLDER_BYTES   48u
#define POSITION_BYTES 72u

void index_key(uint8_t prefix, const struct shard_key *key, uint8_t ret[INDEX_KEY_BYTES])
{
    ret[0] = prefix;
    shard_key_encode(key, ret + 1);
}

void index_entry_deinit(struct index_entry *entry)
{
    slice_drop(&entry->checks);
    free(entry->holders);
    *entry = (struct index_entry){0};
}

void index_entry_encode(const struct index_entry *entry, struct writer *ret)
{
    CHECK(entry->checks.bytes <= RECORD_TAIL_MAX && entry->holder_count <= INDEX_HOLDERS_MAX);
    writer_u8(ret, ENTRY_VERSION);
    writer_u8(ret, 0);
    writer_u16(ret, (uint16_t)entry->checks.bytes);
    writer_u32(ret, entry->segment);
    writer_u64(ret, entry->offset);
    writer_u64(ret, entry->sequence);
    writer_u32(ret, entry->shard_bytes);
    writer_u32(ret, entry->sealed_bytes);
    writer_u32(ret, entry->plain_bytes);
    writer_u32(ret, entry->holder_count);
    writer_put(ret, entry->checks.data, entry->checks.bytes);
    for (uint32_t i = 0; i < entry->holder_count; i++) {
        const struct holder *holder = &entry->holders[i];
        writer_u64(ret, holder->ns);
        writer_u64(ret, holder->hold_incarnation);
        writer_u64(ret, holder->hold_generation);
        writer_u64(ret, holder->hold_session);
        writer_u64(ret, holder->release_incarnation);
        writer_u64(ret, holder->release_generation);
    }
}

enum err index_entry_decode(struct slice value, struct index_entry *ret_entry)
{
    struct reader r = reader_of(value.data, value.bytes);
    uint8_t version = reader_u8(&r);
    reader_u8(&r);
    uint16_t checks_bytes = reader_u16(&r);
    struct index_entry entry = {.segment = reader_u32(&r)};
    entry.offset = reader_u64(&r);
    entry.sequence = reader_u64(&r);
    entry.shard_bytes = reader_u32(&r);
    entry.sealed_bytes = reader_u32(&r);
    entry.plain_bytes = reader_u32(&r);
    entry.holder_count = reader_u32(&r);
    if (r.failed || version != ENTRY_VERSION || entry.holder_count > INDEX_HOLDERS_MAX ||
        value.bytes != ENTRY_FIXED + checks_bytes + (size_t)entry.holder_count * HOLDER_BYTES) {
        return ERR_CORRUPT;
    }
    reader_take(&r, checks_bytes);
    entry.checks = slice_copy(value.data + ENTRY_FIXED, checks_bytes);
    entry.holders = mem_alloc(entry.holder_count * sizeof *entry.holders);
    for (uint32_t i = 0; i < entry.holder_count; i++) {
        struct holder *holder = &entry.holders[i];
        holder->ns = reader_u64(&r);
        holder->hold_incarnation = reader_u64(&r);
        holder->hold_generation = reader_u64(&r);
        holder->hold_session = reader_u64(&r);
        holder->release_incarnation = reader_u64(&r);
        holder->release_generation = reader_u64(&r);
    }
    CHECK(!r.failed && r.left == 0);
    *ret_entry = entry;
    return ERR_OK;
}

enum err index_get(struct kv_view *kv, const struct shard_key *key, struct index_entry *ret_entry)
{
    uint8_t packed[INDEX_KEY_BYTES];
    index_key(INDEX_PREFIX_SHARD, key, packed);
    struct slice value = {0};
    enum err err = kv_get(kv, packed, sizeof packed, &value);
    if (err == ERR_OK) {
        err = index_entry_decode(value, ret_entry);
        slice_drop(&value);
    }
    return err;
}

static bool pair_above(uint64_t incarnation, uint64_t generation, uint64_t other_incarnation, uint64_t other_generation)
{
    return incarnation != other_incarnation ? incarnation > other_incarnation : generation > other_generation;
}

/* The first holder with a namespace not below `ns`. */
static uint32_t holder_position(const struct index_entry *entry, uint64_t ns)
{
    uint32_t low = 0, high = entry->holder_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (entry->holders[middle].ns < ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct holder *holder_find(const struct index_entry *entry, uint64_t ns)
{
    uint32_t at = holder_position(entry, ns);
    return at < entry->holder_count && entry->holders[at].ns == ns ? &entry->holders[at] : NULL;
}

bool index_holds(const struct index_entry *entry, uint64_t ns)
{
    const struct holder *h = holder_find(entry, ns);
    return h != NULL &&
           pair_above(h->hold_incarnation, h->hold_generation, h->release_incarnation, h->release_generation);
}

bool index_hold_known(const struct index_entry *entry, const struct hold *hold)
{
    const struct holder *h = holder_find(entry, hold->ns);
    return h != NULL && !pair_above(hold->ns_incarnation, hold->generation, h->hold_incarnation, h->hold_generation);
}

static void entry_add_hold(struct index_entry *entry, const struct hold *hold)
{
    struct holder *holder = holder_find(entry, hold->ns);
    if (holder == NULL && entry->holder_count >= INDEX_HOLDERS_MAX) {
        return;
    }
    if (holder == NULL) {
        uint32_t at = holder_position(entry, hold->ns);
        struct holder *grown = mem_alloc((entry->holder_count + 1ul) * sizeof *grown);
        for (uint32_t i = 0; i < entry->holder_count; i++) {
            grown[i + (i >= at)] = entry->holders[i];
        }
        free(entry->holders);
        entry->holders = grown;
        entry->holder_count++;
        holder = &grown[at];
        *holder = (struct holder){.ns = hold->ns};
    }
    if (pair_above(hold->ns_incarnation, hold->generation, holder->hold_incarnation, holder->hold_generation)) {
        holder->hold_incarnation = hold->ns_incarnation;
        holder->hold_generation = hold->generation;
        holder->hold_session = hold->session;
    }
}

bool index_apply(const struct record *record, struct index_entry *entry, bool present)
{
    CHECK(record->type == RECORD_SHARD || record->type == RECORD_HOLDER);
    if (record->type == RECORD_HOLDER && !present) {
        return false;
    }
    if (record->type == RECORD_SHARD) {
        slice_drop(&entry->checks);
        entry->checks = slice_copy(record->tail, record_checks_bytes(record));
        entry->segment = record->segment;
        entry->offset = record->offset;
        entry->sequence = record->sequence;
        entry->shard_bytes = record->payload_bytes;
        entry->sealed_bytes = record->sealed_bytes;
        entry->plain_bytes = record->plain_bytes;
    }
    entry_add_hold(entry, &record->hold);
    for (uint32_t i = 0; record->type == RECORD_SHARD && i < record_hold_count(record); i++) {
        struct hold hold = record_hold(record, i);
        entry_add_hold(entry, &hold);
    }
    return true;
}

void index_position_put(struct kv_batch *batch, const struct index_position *position)
{
    uint8_t value[POSITION_BYTES] = {0};
    memcpy(value, position->identity.uuid.bytes, 16);
    put_u64(value + 16, position->identity.incarnation);
    put_u32(value + 24, position->segment);
    put_u64(value + 32, position->offset);
    put_u64(value + 40, position->sequence);
    put_u64(value + 48, position->mark);
    put_u64(value + 56, position->salt);
    put_u64(value + 64, position->shards);
    kv_batch_put(batch, INDEX_KEY_POSITION, 1, value, sizeof value);
}

enum err index_position_get(struct kv_view *kv, struct index_position *ret_position)
{
    struct slice value = {0};
    enum err err = kv_get(kv, INDEX_KEY_POSITION, 1, &value);
    if (err != ERR_OK) {
        return err;
    }
    if (value.bytes != POSITION_BYTES) {
        slice_drop(&value);
        return ERR_CORRUPT;
    }
    struct index_position position = {.segment = get_u32(value.data + 24), .offset = get_u64(value.data + 32)};
    memcpy(position.identity.uuid.bytes, value.data, 16);
    position.identity.incarnation = get_u64(value.data + 16);
    position.sequence = get_u64(value.data + 40);
    position.mark = get_u64(value.data + 48);
    position.salt = get_u64(value.data + 56);
    position.shards = get_u64(value.data + 64);
    slice_drop(&value);
    *ret_position = position;
    return ERR_OK;
}

struct sha256 store_index_digest(struct kv_view *kv)
{
    /* A running digest: d = SHA-256(d || SHA-256(key) || SHA-256(value)), so that pairs cannot run into each other. */
    struct sha256 digest = {{0}};
    struct slice key = slice_copy("s", 1), value = {0};
    for (bool after = false;; after = true) {
        struct slice next = {0};
        enum err err = kv_next(kv, key.data, key.bytes, after, &next, &value);
        slice_drop(&key);
        if (err != ERR_OK) {
            digest = err == ERR_NOT_FOUND ? digest : (struct sha256){{0}};
            break;
        }
        key = next;
        if (key.data[0] != INDEX_PREFIX_SHARD) {
            slice_drop(&key);
            slice_drop(&value);
            break;
        }
        struct sha256 parts[3] = {digest, sha256(key.data, key.bytes), sha256(value.data, value.bytes)};
        digest = sha256(parts, sizeof parts);
        slice_drop(&value);
    }
    return digest;
}
