/* index-digest DIR/kv: the shards in the index of a block server that has ended, and a SHA-256 over their keys and
 * values in order, so that an index that was kept and one that was rebuilt can be compared from outside. Opened for
 * reading only: nothing in the directory changes. Exit code 1 and a line when it does not open. */
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "blockd/shard_index.h"

static int fail(const char *path, char *error)
{
    fprintf(stderr, "index-digest: %s: %s\n", path, error);
    rocksdb_free(error);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: index-digest DIR/kv\n");
        return 2;
    }
    char *error = NULL;
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_t *db = rocksdb_open_for_read_only(options, argv[1], 0, &error);
    if (error != NULL) {
        return fail(argv[1], error);
    }
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_iterator_t *at = rocksdb_create_iterator(db, read);
    const char prefix = INDEX_PREFIX_SHARD;
    struct sha256 digest = {{0}};
    unsigned shards = 0;
    for (rocksdb_iter_seek(at, &prefix, 1); rocksdb_iter_valid(at); rocksdb_iter_next(at)) {
        size_t key_bytes, value_bytes;
        const char *key = rocksdb_iter_key(at, &key_bytes), *value = rocksdb_iter_value(at, &value_bytes);
        if (key[0] != prefix) {
            break;
        }
        struct sha256 parts[3] = {digest, sha256(key, key_bytes), sha256(value, value_bytes)};
        digest = sha256(parts, sizeof parts);
        shards++;
    }
    rocksdb_iter_get_error(at, &error);
    rocksdb_iter_destroy(at);
    rocksdb_readoptions_destroy(read);
    rocksdb_close(db);
    rocksdb_options_destroy(options);
    if (error != NULL) {
        return fail(argv[1], error);
    }
    printf("%u ", shards);
    for (size_t i = 0; i < sizeof digest.bytes; i++) {
        printf("%02x", digest.bytes[i]);
    }
    printf("\n");
    return 0;
}
