/* The bytes of a log segment as recovery reads them: sectors through log_cursor, records through log_record_decode.
 * Input: u8 mode, then sectors of 512 bytes. Mode 0: as they are; 1: with place, magic and checksum of each sector made
 * right, to reach what stands behind them. Nothing is read outside the sectors, and reading comes to an end. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"
#include "fuzz.h"
#include "metad/host/log_format.h"

#define SECTORS_MOST 64u
#define SEGMENT      2u
#define FIRST        8u

static void repair(uint8_t *sector, const struct uuid *directory, uint32_t number)
{
    uint8_t place[24];
    memcpy(place, directory->bytes, 16);
    put_u32(place + 16, SEGMENT);
    put_u32(place + 20, number);
    put_u32(sector + 4, 0x33474c43u);
    put_u32(sector, crc32c(crc32c(0, place, sizeof place), sector + 4, LOG_SECTOR_BYTES - 4));
}

/* Reads record after record; one that does not decode ends it, as in recovery. */
static void read_all(const uint8_t *sectors, uint32_t count, const struct uuid *directory)
{
    const struct log_where where = {.directory = *directory, .segment = SEGMENT, .file = SEGMENT, .oldest = 1};
    struct log_cursor c;
    uint64_t at = 0;
    log_cursor_init(&c, sectors, count, &where, FIRST, 0, 0);
    while (!log_cursor_end(&c)) {
        uint8_t header[LOG_RECORD_HEADER_BYTES], again[LOG_RECORD_HEADER_BYTES];
        struct log_record record;
        CHECK(log_cursor_offset(&c) > at);
        at = log_cursor_offset(&c);
        CHECK(at < (uint64_t)(FIRST + count) * LOG_SECTOR_BYTES);
        if (!log_cursor_read(&c, header, sizeof header, NULL)) {
            break;
        }
        if (log_record_decode(header, &record)) {
            log_record_encode(&record, again);
            CHECK(memcmp(again + 8, header + 8, sizeof header - 8) == 0);
            uint32_t crc = 0;
            (void)log_cursor_read(&c, NULL, record.bytes, &crc);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    uint32_t count = bytes == 0 ? 0 : (uint32_t)((bytes - 1) / LOG_SECTOR_BYTES);
    if (count == 0 || count > SECTORS_MOST) {
        return 0;
    }
    struct uuid directory;
    memcpy(directory.bytes, fuzz_secret, sizeof directory.bytes);
    uint8_t *sectors = malloc((size_t)count * LOG_SECTOR_BYTES); /* exactly: what reads past it is found */
    CHECK(sectors != NULL);
    memcpy(sectors, data + 1, (size_t)count * LOG_SECTOR_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *sector = sectors + (size_t)i * LOG_SECTOR_BYTES;
        struct log_sector s;
        if (data[0] == 1) {
            repair(sector, &directory, FIRST + i);
        }
        if (log_sector_decode(sector, &directory, SEGMENT, FIRST + i, &s)) {
            CHECK(s.used <= LOG_PAYLOAD_BYTES && s.first <= FIRST + i && FIRST + i - s.first < s.sectors);
        }
    }
    read_all(sectors, count, &directory);
    free(sectors);
    return 0;
}
