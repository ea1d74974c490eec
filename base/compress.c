/* Compression by zstd, between the plain chunk and its seal. Up: samples first, for most big files are compressed
 * already; then the whole chunk into a buffer that is too small if it does not pay, so that zstd itself gives up. Down:
 * into a buffer of the length the manifest named. What a payload says of itself is only compared, never obeyed. */
#include "compress.h"

#include <pthread.h>
#include <stdlib.h>
#include <zstd.h>

#include "bytes.h"
#include "check.h"
#include "limits.h"

#define COMPRESS_LEVEL        1
#define COMPRESS_SAMPLES      4u
#define COMPRESS_SAMPLE_BYTES (16u << 10)

struct contexts {
    ZSTD_CCtx *compress;
    ZSTD_DCtx *expand;
};

static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t thread_key;
static _Thread_local struct contexts *thread_contexts;

static void contexts_free(void *memory)
{
    struct contexts *contexts = memory;
    ZSTD_freeCCtx(contexts->compress);
    ZSTD_freeDCtx(contexts->expand);
    free(contexts);
    thread_contexts = NULL;
}

static void key_make(void)
{
    CHECK(pthread_key_create(&thread_key, contexts_free) == 0);
}

/* The calling thread's contexts: they are big, and their tables are warm. Freed when the thread ends. */
static struct contexts *contexts_of_thread(void)
{
    if (thread_contexts == NULL) {
        CHECK(pthread_once(&key_once, key_make) == 0);
        struct contexts *contexts = mem_alloc(sizeof *contexts);
        contexts->compress = ZSTD_createCCtx();
        contexts->expand = ZSTD_createDCtx();
        CHECK(contexts->compress != NULL && contexts->expand != NULL);
        CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(contexts->compress, ZSTD_c_compressionLevel, COMPRESS_LEVEL)));
        CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(contexts->compress, ZSTD_c_contentSizeFlag, 1)));
        CHECK(!ZSTD_isError(ZSTD_CCtx_setParameter(contexts->compress, ZSTD_c_checksumFlag, 0)));
        CHECK(pthread_setspecific(thread_key, contexts) == 0);
        thread_contexts = contexts;
    }
    return thread_contexts;
}

/* The most a compressed form of `bytes` may have. */
static uint32_t paying_bytes(uint32_t bytes)
{
    return bytes - (bytes + 15) / 16;
}

/* Whether samples from all over the chunk pay, taken together. */
static bool samples_pay(ZSTD_CCtx *context, const uint8_t *plain, uint32_t plain_bytes)
{
    uint8_t out[COMPRESS_SAMPLE_BYTES];
    uint32_t step = plain_bytes / COMPRESS_SAMPLES;
    uint32_t total_bytes = 0;
    for (uint32_t i = 0; i < COMPRESS_SAMPLES; i++) {
        size_t bytes = ZSTD_compress2(context, out, sizeof out, plain + (size_t)i * step, COMPRESS_SAMPLE_BYTES);
        total_bytes += ZSTD_isError(bytes) ? COMPRESS_SAMPLE_BYTES : (uint32_t)bytes;
    }
    return total_bytes <= paying_bytes(COMPRESS_SAMPLES * COMPRESS_SAMPLE_BYTES);
}

struct slice compress_if_pays(const void *plain, uint32_t plain_bytes)
{
    CHECK(plain_bytes <= LIMIT_CHUNK_BYTES);
    struct slice none = {0};
    uint32_t most_bytes = paying_bytes(plain_bytes);
    if (most_bytes == 0) {
        return none;
    }
    ZSTD_CCtx *context = contexts_of_thread()->compress;
    if (plain_bytes > 2 * COMPRESS_SAMPLES * COMPRESS_SAMPLE_BYTES && !samples_pay(context, plain, plain_bytes)) {
        return none;
    }
    struct slice payload = slice_alloc(most_bytes);
    size_t bytes = ZSTD_compress2(context, payload.data, most_bytes, plain, plain_bytes);
    if (ZSTD_isError(bytes)) {
        slice_drop(&payload);
        return none;
    }
    CHECK(bytes > 0 && bytes <= most_bytes);
    payload.bytes = (uint32_t)bytes;
    return payload;
}

enum err compress_expand(const void *payload, uint32_t payload_bytes, uint32_t plain_bytes, struct slice *ret_plain)
{
    /* The magic: the library may also know formats of before 1.0, and frames to be skipped. */
    if (plain_bytes == 0 || plain_bytes > LIMIT_CHUNK_BYTES || payload_bytes < 4 ||
        get_u32(payload) != ZSTD_MAGICNUMBER || ZSTD_getFrameContentSize(payload, payload_bytes) != plain_bytes ||
        ZSTD_findFrameCompressedSize(payload, payload_bytes) != payload_bytes) {
        return ERR_CORRUPT;
    }
    struct slice plain = slice_alloc(plain_bytes);
    size_t bytes = ZSTD_decompressDCtx(contexts_of_thread()->expand, plain.data, plain_bytes, payload, payload_bytes);
    if (ZSTD_isError(bytes) || bytes != plain_bytes) {
        slice_drop(&plain);
        return ERR_CORRUPT;
    }
    *ret_plain = plain;
    return ERR_OK;
}
