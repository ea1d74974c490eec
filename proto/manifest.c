/* Packed chunk descriptions of upload and manifest bodies: manifest.h has the byte maps. Encoders CHECK what this
 * process made itself; decoders validate what a peer sent. */
#include "manifest.h"

#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/limits.h"

static bool plain_bytes_valid(uint32_t plain_bytes)
{
    return plain_bytes > 0 && plain_bytes <= LIMIT_CHUNK_BYTES;
}

void ask_entry_encode(const struct ask_entry *entry, uint8_t ret[ASK_ENTRY_BYTES])
{
    CHECK(plain_bytes_valid(entry->plain_bytes));
    memcpy(ret, entry->sha.bytes, 32);
    put_u32(ret + 32, entry->plain_bytes);
}

enum err ask_entry_decode(const uint8_t *data, size_t bytes, struct ask_entry *ret_entry)
{
    if (bytes != ASK_ENTRY_BYTES || !plain_bytes_valid(get_u32(data + 32))) {
        return ERR_INVALID;
    }
    memcpy(ret_entry->sha.bytes, data, 32);
    ret_entry->plain_bytes = get_u32(data + 32);
    return ERR_OK;
}

void ask_answer_encode(const struct ask_answer *answer, uint8_t ret[ASK_ANSWER_BYTES])
{
    memset(ret, 0, ASK_ANSWER_BYTES);
    ret[0] = answer->missing ? 1 : 0;
    memcpy(ret + 1, answer->chunk.bytes, 32);
    if (answer->missing) {
        memcpy(ret + 33, answer->kc, 32);
        return;
    }
    put_u32(ret + 65, answer->writer);
    memcpy(ret + 69, answer->encoding.bytes, 16);
    put_u32(ret + 85, answer->sealed_bytes);
}

enum err ask_answer_decode(const uint8_t *data, size_t bytes, struct ask_answer *ret_answer)
{
    if (bytes != ASK_ANSWER_BYTES || data[0] > 1 || get_u32(data + 85) > LIMIT_SEALED_BYTES) {
        return ERR_INVALID;
    }
    ret_answer->missing = data[0] == 1;
    memcpy(ret_answer->chunk.bytes, data + 1, 32);
    memcpy(ret_answer->kc, data + 33, 32);
    ret_answer->writer = get_u32(data + 65);
    memcpy(ret_answer->encoding.bytes, data + 69, 16);
    ret_answer->sealed_bytes = get_u32(data + 85);
    return ERR_OK;
}

void manifest_entry_encode(const struct manifest_entry *entry, uint8_t ret[MANIFEST_ENTRY_BYTES])
{
    CHECK(plain_bytes_valid(entry->plain_bytes));
    memcpy(ret, entry->sha.bytes, 32);
    put_u32(ret + 32, entry->plain_bytes);
    put_u32(ret + 36, entry->writer);
    memcpy(ret + 40, entry->encoding.bytes, 16);
}

enum err manifest_entry_decode(const uint8_t *data, size_t bytes, struct manifest_entry *ret_entry)
{
    if (bytes != MANIFEST_ENTRY_BYTES || !plain_bytes_valid(get_u32(data + 32))) {
        return ERR_INVALID;
    }
    memcpy(ret_entry->sha.bytes, data, 32);
    ret_entry->plain_bytes = get_u32(data + 32);
    ret_entry->writer = get_u32(data + 36);
    memcpy(ret_entry->encoding.bytes, data + 40, 16);
    return ERR_OK;
}

void manifest_read_encode(const struct manifest_read *entry, uint8_t ret[MANIFEST_READ_BYTES])
{
    manifest_entry_encode(&entry->entry, ret);
    memcpy(ret + 56, entry->chunk.bytes, 32);
    memcpy(ret + 88, entry->kc, 32);
    put_u32(ret + 120, 0);
}

enum err manifest_read_decode(const uint8_t *data, size_t bytes, struct manifest_read *ret_entry)
{
    if (bytes != MANIFEST_READ_BYTES || get_u32(data + 120) != 0) {
        return ERR_INVALID;
    }
    enum err err = manifest_entry_decode(data, MANIFEST_ENTRY_BYTES, &ret_entry->entry);
    if (err != ERR_OK) {
        return err;
    }
    memcpy(ret_entry->chunk.bytes, data + 56, 32);
    memcpy(ret_entry->kc, data + 88, 32);
    return ERR_OK;
}
