/* The shard key's 63 bytes (R-F1): one packing for record, index, put, receipt and digest. Big-endian, so that byte
 * order is key order: realm, chunk, writer, encoding, code, index. */
#include "ids.h"

#include <string.h>

#include "bytes.h"

_Static_assert(SHARD_KEY_BYTES == 63, "a shard key is 63 bytes on disk and on the wire");

void shard_key_encode(const struct shard_key *key, uint8_t *data)
{
    put_be64(data, key->realm);
    memcpy(data + 8, key->chunk.bytes, 32);
    put_be32(data + 40, key->writer);
    memcpy(data + 44, key->encoding.bytes, 16);
    data[60] = key->k;
    data[61] = key->m;
    data[62] = key->index;
}

void shard_key_decode(const uint8_t *data, struct shard_key *ret_key)
{
    ret_key->realm = get_be64(data);
    memcpy(ret_key->chunk.bytes, data + 8, 32);
    ret_key->writer = get_be32(data + 40);
    memcpy(ret_key->encoding.bytes, data + 44, 16);
    ret_key->k = data[60];
    ret_key->m = data[61];
    ret_key->index = data[62];
}
