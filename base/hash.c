/* SHA-256, HMAC and HKDF over OpenSSL, CRC32C over ISA-L. Stands at both ends of a byte's way: the client names a chunk
 * by its hash, stores and logs guard each record with its CRC. Nothing here can fail.
 * Sources: FIPS 180-4, RFC 2104, RFC 5869, RFC 3720 B.4. */
#include "hash.h"

#include <isa-l/crc.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <string.h>

#include "check.h"
#include "crypto.h"

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
    /* crc32_iscsi neither starts from nor ends in the inversion the standard wants; undoing ours at the start lets
     * calls be chained. It takes its bytes without const and their number as an int. */
    unsigned char *at = (unsigned char *)(uintptr_t)data;
    crc = ~crc;
    while (bytes > 0) {
        size_t part = bytes < (1u << 30) ? bytes : (1u << 30);
        crc = crc32_iscsi(at, (int)part, crc);
        at += part;
        bytes -= part;
    }
    return ~crc;
}

static void digest_end(struct crypto *crypto, uint8_t ret_digest[32])
{
    unsigned length = 0;
    CHECK(EVP_DigestFinal_ex(crypto->digest, ret_digest, &length) == 1);
    CHECK(length == 32);
}

struct sha256 sha256(const void *data, size_t bytes)
{
    struct crypto *crypto = crypto_of_thread();
    struct sha256 sha;
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, data, bytes) == 1);
    digest_end(crypto, sha.bytes);
    return sha;
}

/* The library's own HMAC sets its parameters anew with each key: that takes half of the time for a short text. */
struct sha256 hmac_sha256_parts(const void *key, size_t key_bytes, const struct bytes_part *parts, unsigned count)
{
    struct crypto *crypto = crypto_of_thread();
    struct sha256 mac;
    uint8_t pad[64] = {0};
    if (key_bytes > sizeof pad) {
        struct sha256 shorter = sha256(key, key_bytes);
        memcpy(pad, shorter.bytes, sizeof shorter.bytes);
        OPENSSL_cleanse(&shorter, sizeof shorter);
    } else if (key_bytes > 0) {
        memcpy(pad, key, key_bytes);
    }
    for (unsigned i = 0; i < sizeof pad; i++) {
        pad[i] ^= 0x36;
    }
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, pad, sizeof pad) == 1);
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].bytes > 0) {
            CHECK(EVP_DigestUpdate(crypto->digest, parts[i].data, parts[i].bytes) == 1);
        }
    }
    digest_end(crypto, mac.bytes);
    for (unsigned i = 0; i < sizeof pad; i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, pad, sizeof pad) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, mac.bytes, sizeof mac.bytes) == 1);
    digest_end(crypto, mac.bytes);
    OPENSSL_cleanse(pad, sizeof pad);
    return mac;
}

struct sha256 hmac_sha256(const void *key, size_t key_bytes, const void *data, size_t bytes)
{
    struct bytes_part part = {data, bytes};
    return hmac_sha256_parts(key, key_bytes, &part, 1);
}

void hkdf_sha256(const void *key, size_t key_bytes, const void *info, size_t info_bytes, void *ret, size_t ret_bytes)
{
    CHECK(ret_bytes <= 255 * sizeof(struct sha256));
    static const uint8_t salt[32];
    struct sha256 extracted = hmac_sha256(salt, sizeof salt, key, key_bytes);
    struct sha256 block = {0};
    uint8_t *out = ret;
    for (unsigned n = 1; ret_bytes > 0; n++) {
        uint8_t number = (uint8_t)n;
        struct bytes_part parts[] = {{block.bytes, n == 1 ? 0 : sizeof block.bytes}, {info, info_bytes}, {&number, 1}};
        block = hmac_sha256_parts(extracted.bytes, sizeof extracted.bytes, parts, 3);
        size_t part = ret_bytes < sizeof block.bytes ? ret_bytes : sizeof block.bytes;
        memcpy(out, block.bytes, part);
        out += part;
        ret_bytes -= part;
    }
    OPENSSL_cleanse(&extracted, sizeof extracted);
    OPENSSL_cleanse(&block, sizeof block);
}

bool secret_equal(const void *a, const void *b, size_t bytes)
{
    return CRYPTO_memcmp(a, b, bytes) == 0;
}

struct chunk_id chunk_id_of(const uint8_t realm_secret[32], struct sha256 sha)
{
    struct sha256 mac = hmac_sha256(realm_secret, 32, sha.bytes, sizeof sha.bytes);
    struct chunk_id chunk;
    memcpy(chunk.bytes, mac.bytes, sizeof chunk.bytes);
    return chunk;
}

void chunk_key_of(const uint8_t realm_key[32], struct chunk_id chunk, uint8_t ret_kc[32])
{
    static const char use[] = "cairn chunk";
    uint8_t info[sizeof use - 1 + sizeof chunk.bytes];
    memcpy(info, use, sizeof use - 1);
    memcpy(info + sizeof use - 1, chunk.bytes, sizeof chunk.bytes);
    hkdf_sha256(realm_key, 32, info, sizeof info, ret_kc, 32);
}
