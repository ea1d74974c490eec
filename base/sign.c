/* Ed25519 (RFC 8032), by libsodium: half of what OpenSSL 3.0 takes for either. A capability is signed once an ask by
 * the metadata plane and shown to each store of a placement group; a signature costs thirty microseconds, a
 * verification ninety. So each thread keeps the last key it signed with and its last signatures: whoever reads a
 * namespace before its next change gets the same capability. And the process remembers the signatures that were good:
 * the stores of a block server, and a store that starts again, verify each capability once between them. Only what was
 * good is remembered; a table that is full forgets by chance. */
#include "sign.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <sodium.h>
#include <string.h>

#include "check.h"
#include "crypto.h"
#include "hash.h"

#define VERIFIED_SIGNATURES 1024u

/* SHA-256 over key, signature and data, at the place its first bytes give. */
static struct {
    pthread_mutex_t lock;
    struct sha256 digests[VERIFIED_SIGNATURES];
} verified = {.lock = PTHREAD_MUTEX_INITIALIZER};

void sign_public_key(const uint8_t seed[32], uint8_t ret_public[32])
{
    uint8_t key[crypto_sign_SECRETKEYBYTES];
    CHECK(crypto_of_thread() != NULL && crypto_sign_seed_keypair(ret_public, key, seed) == 0);
    OPENSSL_cleanse(key, sizeof key);
}

/* The key of a seed, kept by the thread for the next time. */
static const uint8_t *signing_key(struct crypto *crypto, const uint8_t seed[32])
{
    if (crypto->signature_count == 0 || CRYPTO_memcmp(crypto->sign_key, seed, 32) != 0) {
        uint8_t public[32];
        CHECK(crypto_sign_seed_keypair(public, crypto->sign_key, seed) == 0);
        crypto->signature_count = 0;
    }
    return crypto->sign_key;
}

void sign_make(const uint8_t seed[32], const void *data, size_t bytes, uint8_t ret_signature[64])
{
    struct crypto *crypto = crypto_of_thread();
    const uint8_t *key = signing_key(crypto, seed);
    struct sha256 digest = sha256(data, bytes);
    unsigned kept = crypto->signature_count < SIGNATURES_KEPT ? crypto->signature_count : SIGNATURES_KEPT;
    for (unsigned i = 0; i < kept; i++) {
        if (memcmp(&crypto->signatures[i].data, &digest, sizeof digest) == 0) {
            memcpy(ret_signature, crypto->signatures[i].signature, 64);
            return;
        }
    }
    CHECK(crypto_sign_detached(ret_signature, NULL, data, bytes, key) == 0);
    unsigned place = crypto->signature_count % SIGNATURES_KEPT;
    crypto->signature_count = crypto->signature_count == UINT_MAX ? SIGNATURES_KEPT : crypto->signature_count + 1;
    crypto->signatures[place].data = digest;
    memcpy(crypto->signatures[place].signature, ret_signature, 64);
}

static struct sha256 verification_digest(const uint8_t public_key[32], const void *data, size_t bytes,
                                         const uint8_t signature[64])
{
    struct crypto *crypto = crypto_of_thread();
    struct sha256 digest;
    unsigned length = 0;
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, public_key, 32) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, signature, 64) == 1);
    CHECK(EVP_DigestUpdate(crypto->digest, data, bytes) == 1);
    CHECK(EVP_DigestFinal_ex(crypto->digest, digest.bytes, &length) == 1);
    CHECK(length == sizeof digest.bytes);
    return digest;
}

static struct sha256 *verified_place(const struct sha256 *digest)
{
    return &verified.digests[(digest->bytes[0] | digest->bytes[1] << 8) % VERIFIED_SIGNATURES];
}

static bool verified_has(const struct sha256 *digest)
{
    CHECK(pthread_mutex_lock(&verified.lock) == 0);
    bool has = memcmp(verified_place(digest), digest, sizeof *digest) == 0;
    CHECK(pthread_mutex_unlock(&verified.lock) == 0);
    return has;
}

static void verified_add(const struct sha256 *digest)
{
    CHECK(pthread_mutex_lock(&verified.lock) == 0);
    *verified_place(digest) = *digest;
    CHECK(pthread_mutex_unlock(&verified.lock) == 0);
}

bool sign_verify(const uint8_t public_key[32], const void *data, size_t bytes, const uint8_t signature[64])
{
    struct sha256 digest = verification_digest(public_key, data, bytes, signature);
    if (verified_has(&digest)) {
        return true;
    }
    bool good = crypto_sign_verify_detached(signature, data, bytes, public_key) == 0;
    if (good) {
        verified_add(&digest);
    }
    return good;
}
