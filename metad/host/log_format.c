/* Encodes and checks the bytes of log_format.h. Bytes from the disk are never trusted: whatever does not check is
 * `false`. */
#include "log_format.h"

#include <stdlib.h>

#include "base/check.h"
#include "base/hash.h"

#define LOG_MAGIC     0x33474c43u /* "CLG3" */
#define LOG_MAGIC_OLD 0x32474c43u /* "CLG2" */

_Static_assert(LOG_BLOCK_BYTES % LOG_SECTOR_BYTES == 0, "blocks are whole sectors");
_Static_assert(LOG_PAYLOAD_BYTES == 460, "the byte map says so");

static uint32_t log_sector_crc(const struct uuid *directory, uint32_t file, uint32_t number, const uint8_t *sector)
{
    uint8_t place[24];
    memcpy(place, directory->bytes, 16);
    put_u32(place + 16, file);
    put_u32(place + 20, number);
    return crc32c(crc32c(0, place, sizeof place), sector + 4, LOG_SECTOR_BYTES - 4);
}

void log_sector_encode(const struct log_sector *s, const struct uuid *directory, uint32_t file, uint32_t number,
                       uint8_t *sector)
{
    CHECK(s->used <= LOG_PAYLOAD_BYTES && s->sequence > s->previous && s->synced <= s->previous);
    CHECK(number >= s->first && number - s->first < s->sectors);
    put_u32(sector + 4, LOG_MAGIC);
    put_u64(sector + 8, s->sequence);
    put_u64(sector + 16, s->previous);
    put_u64(sector + 24, s->synced);
    put_u32(sector + 32, s->first);
    put_u32(sector + 36, s->sectors);
    put_u16(sector + 40, s->used);
    put_u16(sector + 42, s->record);
    put_u32(sector + 44, s->segment);
    put_u32(sector + 48, s->oldest);
    put_u32(sector, log_sector_crc(directory, file, number, sector));
}

uint64_t log_sector_sequence(const uint8_t *sector)
{
    return get_u64(sector + 8);
}

/* All but the checksum. */
static bool log_sector_parse(const uint8_t *sector, uint32_t number, struct log_sector *ret_sector)
{
    uint32_t magic = get_u32(sector + 4);
    if (magic != LOG_MAGIC && magic != LOG_MAGIC_OLD) {
        return false;
    }
    struct log_sector s = {.old = magic == LOG_MAGIC_OLD,
                           .sequence = get_u64(sector + 8),
                           .previous = get_u64(sector + 16),
                           .synced = get_u64(sector + 24),
                           .first = get_u32(sector + 32),
                           .sectors = get_u32(sector + 36),
                           .used = get_u16(sector + 40),
                           .record = get_u16(sector + 42),
                           .segment = get_u32(sector + 44),
                           .oldest = get_u32(sector + 48)};
    if (s.used > LOG_PAYLOAD_BYTES || s.sequence <= s.previous || s.synced > s.previous || s.first > number ||
        number - s.first >= s.sectors || s.first % LOG_BLOCK_SECTORS != 0 || s.sectors % LOG_BLOCK_SECTORS != 0 ||
        s.segment == 0 || s.oldest == 0 || s.oldest > s.segment) {
        return false;
    }
    *ret_sector = s;
    return true;
}

bool log_sector_decode(const uint8_t *sector, const struct uuid *directory, uint32_t file, uint32_t number,
                       struct log_sector *ret_sector)
{
    return log_sector_parse(sector, number, ret_sector) &&
           get_u32(sector) == log_sector_crc(directory, file, number, sector);
}

void log_record_encode(const struct log_record *record, uint8_t *data)
{
    data[4] = record->type;
    data[5] = record->entry;
    put_u16(data + 6, 0);
    put_u32(data + 8, record->group);
    put_u32(data + 12, record->bytes);
    put_u64(data + 16, record->index);
    put_u64(data + 24, record->term);
    put_u64(data + 32, record->previous_index);
    put_u64(data + 40, record->previous_term);
    put_u32(data + 48, record->body_crc);
    put_u32(data + 52, record->vote);
    put_u32(data, crc32c(0, data + 4, LOG_RECORD_HEADER_BYTES - 4));
}

bool log_record_decode(const uint8_t *data, struct log_record *ret_record)
{
    if (get_u32(data) != crc32c(0, data + 4, LOG_RECORD_HEADER_BYTES - 4)) {
        return false;
    }
    *ret_record = (struct log_record){.type = data[4],
                                      .entry = data[5],
                                      .group = get_u32(data + 8),
                                      .bytes = get_u32(data + 12),
                                      .index = get_u64(data + 16),
                                      .term = get_u64(data + 24),
                                      .previous_index = get_u64(data + 32),
                                      .previous_term = get_u64(data + 40),
                                      .body_crc = get_u32(data + 48),
                                      .vote = get_u32(data + 52)};
    return true;
}

uint64_t log_blocks_bound(uint64_t bytes, uint32_t records)
{
    /* a break before a record wastes less than one sector */
    uint64_t sectors = bytes / LOG_PAYLOAD_BYTES + 1 + records;
    return (sectors * LOG_SECTOR_BYTES + LOG_BLOCK_BYTES - 1) / LOG_BLOCK_BYTES * LOG_BLOCK_BYTES;
}

uint64_t log_record_end_sector(uint64_t offset, uint64_t bytes)
{
    uint64_t sector = offset / LOG_SECTOR_BYTES;
    uint64_t in_payload = offset % LOG_SECTOR_BYTES - LOG_SECTOR_HEADER_BYTES;
    return sector + (in_payload + bytes + LOG_PAYLOAD_BYTES - 1) / LOG_PAYLOAD_BYTES;
}

/* ---- building ---- */

void log_builder_init(struct log_builder *b, uint64_t bound, uint32_t base)
{
    CHECK(bound > 0 && bound % LOG_BLOCK_BYTES == 0 && base % LOG_BLOCK_BYTES == 0);
    *b = (struct log_builder){.data = slice_alloc(bound), .base = base};
    memset(b->data.data, 0, bound);
    uint64_t sectors = bound / LOG_SECTOR_BYTES;
    b->useds = mem_alloc(sectors * sizeof *b->useds);
    b->records = mem_alloc(sectors * sizeof *b->records);
    memset(b->records, 0xff, sectors * sizeof *b->records);
}

static void log_builder_next(struct log_builder *b)
{
    b->useds[b->sector] = b->used;
    b->sector++;
    b->used = 0;
    CHECK((uint64_t)b->sector * LOG_SECTOR_BYTES < b->data.bytes);
}

static void log_builder_bytes(struct log_builder *b, const void *data, uint32_t bytes)
{
    const uint8_t *from = data;
    while (bytes > 0) {
        if (b->used == LOG_PAYLOAD_BYTES) {
            log_builder_next(b);
        }
        uint32_t room = LOG_PAYLOAD_BYTES - b->used;
        uint32_t part = bytes < room ? bytes : room;
        memcpy(b->data.data + (uint64_t)b->sector * LOG_SECTOR_BYTES + LOG_SECTOR_HEADER_BYTES + b->used, from, part);
        b->used = (uint16_t)(b->used + part);
        from += part;
        bytes -= part;
    }
}

uint32_t log_builder_put(struct log_builder *b, struct log_record *record, const void *body, uint32_t bytes)
{
    if (b->used == LOG_PAYLOAD_BYTES) {
        log_builder_next(b);
    }
    if (b->records[b->sector] == LOG_NO_RECORD) {
        b->records[b->sector] = b->used;
    }
    uint32_t offset = b->base + b->sector * LOG_SECTOR_BYTES + LOG_SECTOR_HEADER_BYTES + b->used;
    uint8_t header[LOG_RECORD_HEADER_BYTES];
    record->bytes = bytes;
    record->body_crc = crc32c(0, body, bytes);
    log_record_encode(record, header);
    log_builder_bytes(b, header, sizeof header);
    log_builder_bytes(b, body, bytes);
    return offset;
}

void log_builder_break(struct log_builder *b)
{
    if (b->used > 0) {
        log_builder_next(b);
    }
}

struct slice log_builder_finish(struct log_builder *b, const struct log_where *where, uint64_t sequence,
                                uint64_t previous, uint64_t synced)
{
    b->useds[b->sector] = b->used;
    uint32_t sectors = (b->sector + LOG_BLOCK_SECTORS) / LOG_BLOCK_SECTORS * LOG_BLOCK_SECTORS;
    CHECK((uint64_t)sectors * LOG_SECTOR_BYTES <= b->data.bytes);
    struct log_sector s = {.sequence = sequence,
                           .previous = previous,
                           .synced = synced,
                           .first = b->base / LOG_SECTOR_BYTES,
                           .sectors = sectors,
                           .segment = where->segment,
                           .oldest = where->oldest};
    for (uint32_t i = 0; i < sectors; i++) {
        s.used = b->useds[i];
        s.record = b->records[i];
        log_sector_encode(&s, &where->directory, where->file, s.first + i,
                          b->data.data + (uint64_t)i * LOG_SECTOR_BYTES);
    }
    struct slice data = b->data;
    data.bytes = sectors * LOG_SECTOR_BYTES;
    free(b->useds);
    free(b->records);
    *b = (struct log_builder){0};
    return data;
}

/* ---- reading ---- */

static void log_cursor_enter(struct log_cursor *c)
{
    c->used = 0;
    if (c->at >= c->count) {
        return;
    }
    const uint8_t *sector = c->sectors + (uint64_t)c->at * LOG_SECTOR_BYTES;
    uint32_t number = c->first + c->at;
    struct log_sector s;
    bool good = c->checked ? log_sector_parse(sector, number, &s)
                           : log_sector_decode(sector, &c->where.directory, c->where.file, number, &s);
    if (good && s.segment == c->where.segment) {
        c->used = s.used;
    } else {
        c->failed = true;
    }
}

void log_cursor_init(struct log_cursor *c, const uint8_t *sectors, uint32_t count, const struct log_where *where,
                     uint32_t first, uint32_t at, uint32_t offset)
{
    *c = (struct log_cursor){
        .sectors = sectors, .count = count, .where = *where, .first = first, .at = at, .offset = offset};
    log_cursor_enter(c);
}

void log_cursor_init_checked(struct log_cursor *c, const uint8_t *sectors, uint32_t count,
                             const struct log_where *where, uint32_t first)
{
    *c = (struct log_cursor){.sectors = sectors, .count = count, .where = *where, .first = first, .checked = true};
    log_cursor_enter(c);
}

bool log_cursor_end(struct log_cursor *c)
{
    while (!c->failed && c->at < c->count && c->offset >= c->used) {
        c->at++;
        c->offset = 0;
        log_cursor_enter(c);
    }
    return c->failed || c->at >= c->count;
}

uint64_t log_cursor_offset(const struct log_cursor *c)
{
    return (uint64_t)(c->first + c->at) * LOG_SECTOR_BYTES + LOG_SECTOR_HEADER_BYTES + c->offset;
}

bool log_cursor_read(struct log_cursor *c, void *ret, uint32_t bytes, uint32_t *crc)
{
    uint8_t *to = ret;
    while (bytes > 0) {
        if (log_cursor_end(c)) {
            return false;
        }
        uint32_t left = c->used - c->offset;
        uint32_t part = bytes < left ? bytes : left;
        const uint8_t *from = c->sectors + (uint64_t)c->at * LOG_SECTOR_BYTES + LOG_SECTOR_HEADER_BYTES + c->offset;
        if (crc != NULL) {
            *crc = crc32c(*crc, from, part);
        }
        if (to != NULL) {
            memcpy(to, from, part);
            to += part;
        }
        c->offset += part;
        bytes -= part;
    }
    return true;
}
