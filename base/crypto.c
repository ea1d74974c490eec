/* Library contexts. EVP_*_fetch walks provider tables under locks, so it runs once for the process; a context costs an
 * allocation or two, so each thread keeps its own. */
#include "crypto.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdlib.h>

#include "check.h"

static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static EVP_MD *fetched_sha256;
static EVP_CIPHER *fetched_gcm;
static EVP_MAC *fetched_hmac;
static _Thread_local struct crypto *thread_crypto;

static void crypto_free(void *memory)
{
    struct crypto *crypto = memory;
    EVP_MD_CTX_free(crypto->digest);
    EVP_CIPHER_CTX_free(crypto->encrypt);
    EVP_CIPHER_CTX_free(crypto->decrypt);
    EVP_MAC_CTX_free(crypto->hmac);
    EVP_PKEY_free(crypto->sign_key);
    OPENSSL_cleanse(crypto->sign_seed, sizeof crypto->sign_seed);
    free(crypto);
    thread_crypto = NULL;
}

static void crypto_fetch(void)
{
    fetched_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    fetched_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    fetched_hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    CHECK(fetched_sha256 != NULL && fetched_gcm != NULL && fetched_hmac != NULL);
    CHECK(pthread_key_create(&thread_key, crypto_free) == 0);
}

static struct crypto *crypto_make(void)
{
    CHECK(pthread_once(&fetch_once, crypto_fetch) == 0);
    struct crypto *crypto = mem_alloc(sizeof *crypto);
    crypto->sha256 = fetched_sha256;
    crypto->gcm = fetched_gcm;
    crypto->digest = EVP_MD_CTX_new();
    crypto->encrypt = EVP_CIPHER_CTX_new();
    crypto->decrypt = EVP_CIPHER_CTX_new();
    crypto->hmac = EVP_MAC_CTX_new(fetched_hmac);
    CHECK(crypto->digest != NULL && crypto->encrypt != NULL && crypto->decrypt != NULL && crypto->hmac != NULL);
    char name[] = "SHA256";
    OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, name, 0),
                           OSSL_PARAM_construct_end()};
    CHECK(EVP_MAC_CTX_set_params(crypto->hmac, params) == 1);
    CHECK(pthread_setspecific(thread_key, crypto) == 0);
    return crypto;
}

struct crypto *crypto_of_thread(void)
{
    if (thread_crypto == NULL) {
        thread_crypto = crypto_make();
    }
    return thread_crypto;
}
