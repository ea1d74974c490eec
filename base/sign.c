/* Ed25519 (RFC 8032). A capability is signed once an ask by the metadata plane and verified by each store it is shown
 * to; both cost tens of microseconds, so keys are loaded for each call. */
#include "sign.h"

#include <openssl/evp.h>

#include "check.h"

void sign_public_key(const uint8_t seed[32], uint8_t ret_public[32])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed, 32);
    CHECK(key != NULL);
    size_t bytes = 32;
    CHECK(EVP_PKEY_get_raw_public_key(key, ret_public, &bytes) == 1 && bytes == 32);
    EVP_PKEY_free(key);
}

void sign_make(const uint8_t seed[32], const void *data, size_t bytes, uint8_t ret_signature[64])
{
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key_ex(NULL, "ED25519", NULL, seed, 32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CHECK(key != NULL && context != NULL);
    size_t signature_bytes = 64;
    CHECK(EVP_DigestSignInit_ex(context, NULL, NULL, NULL, NULL, key, NULL) == 1);
    CHECK(EVP_DigestSign(context, ret_signature, &signature_bytes, data, bytes) == 1);
    CHECK(signature_bytes == 64);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
}

bool sign_verify(const uint8_t public_key[32], const void *data, size_t bytes, const uint8_t signature[64])
{
    /* Any 32 bytes load; a key that is no point of the curve fails to verify. */
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key_ex(NULL, "ED25519", NULL, public_key, 32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CHECK(key != NULL && context != NULL);
    CHECK(EVP_DigestVerifyInit_ex(context, NULL, NULL, NULL, NULL, key, NULL) == 1);
    bool good = EVP_DigestVerify(context, signature, 64, data, bytes) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return good;
}
