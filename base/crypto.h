/* What hash.c, seal.c and sign.c share: algorithms fetched once for the process, contexts made once for each thread and
 * used again. Private to base/. A failing call here is a broken library, hence CHECK: none of these inputs can be
 * wrong. */
#ifndef CAIRN_BASE_CRYPTO_H
#define CAIRN_BASE_CRYPTO_H

#include <openssl/evp.h>
#include <stddef.h>

#include "ids.h"

#define SIGNATURES_KEPT 16u

struct crypto {
    const EVP_MD *sha256;
    const EVP_CIPHER *gcm; /* AES-256-GCM */
    EVP_MD_CTX *digest;
    EVP_CIPHER_CTX *encrypt;
    EVP_CIPHER_CTX *decrypt;
    uint8_t sign_key[64]; /* Ed25519: seed and public key, wiped with the thread; of `signature_count` > 0 */
    struct {
        struct sha256 data;
        uint8_t signature[64];
    } signatures[SIGNATURES_KEPT]; /* the last ones by sign_key, a ring */
    unsigned signature_count;
};

/* The calling thread's contexts. Freed when the thread ends. */
struct crypto *crypto_of_thread(void);

struct bytes_part {
    const void *data;
    size_t bytes;
};
/* HMAC-SHA-256 over the concatenation of parts. */
struct sha256 hmac_sha256_parts(const void *key, size_t key_bytes, const struct bytes_part *parts, unsigned count);

#endif
