/* Library contexts. EVP_*_fetch walks provider tables under locks, so it runs once for the process; a context costs an
 * allocation or two, so each thread keeps its own. */
#include "crypto.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>

#include "check.h"

static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static EVP_MD *fetched_sha256;
static EVP_CIPHER *fetched_gcm;
static _Thread_local struct crypto *thread_crypto;

static void crypto_free(void *memory)
{
    struct crypto *crypto = memory;
    EVP_MD_CTX_free(crypto->digest);
    EVP_CIPHER_CTX_free(crypto->encrypt);
    EVP_CIPHER_CTX_free(crypto->decrypt);
    OPENSSL_cleanse(crypto->sign_key, sizeof crypto->sign_key);
    free(crypto);
    thread_crypto = NULL;
}

static void crypto_fetch(void)
{
    fetched_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    fetched_gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    CHECK(fetched_sha256 != NULL && fetched_gcm != NULL && sodium_init() >= 0);
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
    CHECK(crypto->digest != NULL && crypto->encrypt != NULL && crypto->decrypt != NULL);
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
