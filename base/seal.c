/* Sealing, the step between a person's bytes and a block server's (R-C1). Up: plain chunk -> seal_chunk -> code.c.
 * Down: code_join -> unseal_chunk -> plain chunk. One pass over 64 KiB frames that stay in cache: down, each frame is
 * hashed right after it is decrypted. What comes in is never believed: every field of the header is bound by the
 * caller's arguments or by the frames' associated data, and anything that differs is CORRUPT. */
#include "seal.h"

#include <openssl/crypto.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "crypto.h"
#include "hash.h"
#include "limits.h"

#define SEAL_MAGIC       0x314c5343u /* "CSL1" little-endian */
#define SEAL_AAD_BYTES   42u
#define SEAL_NONCE_BYTES 12u

/* One AEAD frame's surroundings; `plain` and `cipher` may not overlap. */
struct frame_aad {
    uint8_t nonce[SEAL_NONCE_BYTES];
    const void *aad;
    size_t aad_bytes;
};

static void aead_encrypt(struct crypto *crypto, const struct frame_aad *frame, const uint8_t *plain, uint32_t bytes,
                         uint8_t *ret_cipher, uint8_t *ret_tag)
{
    int written = 0;
    CHECK(EVP_EncryptInit_ex2(crypto->encrypt, NULL, NULL, frame->nonce, NULL) == 1);
    if (frame->aad_bytes > 0) {
        CHECK(EVP_EncryptUpdate(crypto->encrypt, NULL, &written, frame->aad, (int)frame->aad_bytes) == 1);
    }
    if (bytes > 0) {
        CHECK(EVP_EncryptUpdate(crypto->encrypt, ret_cipher, &written, plain, (int)bytes) == 1);
        CHECK((uint32_t)written == bytes);
    }
    uint8_t rest[16];
    CHECK(EVP_EncryptFinal_ex(crypto->encrypt, rest, &written) == 1 && written == 0);
    CHECK(EVP_CIPHER_CTX_ctrl(crypto->encrypt, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, ret_tag) == 1);
}

static bool aead_decrypt(struct crypto *crypto, const struct frame_aad *frame, const uint8_t *cipher, uint32_t bytes,
                         const uint8_t *tag, uint8_t *ret_plain)
{
    int written = 0;
    CHECK(EVP_DecryptInit_ex2(crypto->decrypt, NULL, NULL, frame->nonce, NULL) == 1);
    if (frame->aad_bytes > 0) {
        CHECK(EVP_DecryptUpdate(crypto->decrypt, NULL, &written, frame->aad, (int)frame->aad_bytes) == 1);
    }
    if (bytes > 0) {
        CHECK(EVP_DecryptUpdate(crypto->decrypt, ret_plain, &written, cipher, (int)bytes) == 1);
        CHECK((uint32_t)written == bytes);
    }
    uint8_t wanted[SEAL_TAG_BYTES];
    memcpy(wanted, tag, sizeof wanted);
    CHECK(EVP_CIPHER_CTX_ctrl(crypto->decrypt, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG_BYTES, wanted) == 1);
    uint8_t rest[16];
    return EVP_DecryptFinal_ex(crypto->decrypt, rest, &written) == 1;
}

/* Loads HKDF(key, use || s) into a cipher context. */
static void aead_load_key(struct crypto *crypto, bool encrypting, const uint8_t key[32], const char *use,
                          const uint8_t s[16])
{
    uint8_t info[32];
    size_t use_bytes = strlen(use);
    CHECK(use_bytes + 16 <= sizeof info);
    memcpy(info, use, use_bytes);
    memcpy(info + use_bytes, s, 16);
    uint8_t derived[32];
    hkdf_sha256(key, 32, info, use_bytes + 16, derived, sizeof derived);
    if (encrypting) {
        CHECK(EVP_EncryptInit_ex2(crypto->encrypt, crypto->gcm, derived, NULL, NULL) == 1);
    } else {
        CHECK(EVP_DecryptInit_ex2(crypto->decrypt, crypto->gcm, derived, NULL, NULL) == 1);
    }
    OPENSSL_cleanse(derived, sizeof derived);
}

static uint32_t frame_count_of(uint32_t payload_bytes)
{
    return payload_bytes == 0 ? 1 : (uint32_t)(((uint64_t)payload_bytes + SEAL_FRAME_BYTES - 1) / SEAL_FRAME_BYTES);
}

uint32_t seal_bytes(uint32_t payload_bytes)
{
    uint64_t bytes =
        SEAL_HEADER_BYTES + (uint64_t)payload_bytes + (uint64_t)frame_count_of(payload_bytes) * SEAL_TAG_BYTES;
    return bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
}

static struct encoding encoding_of(const uint8_t kc[32], uint8_t codec, const struct sha256 *payload_sha)
{
    struct bytes_part parts[] = {{&codec, 1}, {payload_sha->bytes, sizeof payload_sha->bytes}};
    struct sha256 mac = hmac_sha256_parts(kc, 32, parts, 2);
    struct encoding encoding;
    memcpy(encoding.bytes, mac.bytes, sizeof encoding.bytes);
    return encoding;
}

/* Nonce and associated data of one frame of a chunk; `last` and the number change from frame to frame. */
static void frame_fill(const struct chunk_id *chunk, uint8_t codec, uint32_t frames, uint32_t number,
                       uint32_t plain_bytes, uint8_t aad[SEAL_AAD_BYTES], struct frame_aad *ret_frame)
{
    memcpy(aad, chunk->bytes, 32);
    aad[32] = codec;
    put_u32(aad + 33, frames);
    aad[37] = number + 1 == frames;
    put_u32(aad + 38, plain_bytes);
    memset(ret_frame->nonce, 0, sizeof ret_frame->nonce);
    put_u32(ret_frame->nonce, number);
    ret_frame->aad = aad;
    ret_frame->aad_bytes = SEAL_AAD_BYTES;
}

void seal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha, const void *plain,
                uint32_t plain_bytes, uint8_t *ret, struct encoding *ret_encoding)
{
    CHECK(plain_bytes <= LIMIT_CHUNK_BYTES);
    struct crypto *crypto = crypto_of_thread();
    struct encoding encoding = encoding_of(kc, SEAL_PLAIN, sha);
    memset(ret, 0, SEAL_HEADER_BYTES);
    put_u32(ret, SEAL_MAGIC);
    ret[4] = SEAL_PLAIN;
    put_u32(ret + 8, plain_bytes);
    put_u32(ret + 12, plain_bytes);
    memcpy(ret + 16, encoding.bytes, 16);
    aead_load_key(crypto, true, kc, "cairn seal", encoding.bytes);
    const uint8_t *in = plain;
    uint8_t *out = ret + SEAL_HEADER_BYTES;
    uint32_t frames = frame_count_of(plain_bytes);
    uint32_t left = plain_bytes;
    for (uint32_t i = 0; i < frames; i++) {
        uint32_t bytes = left < SEAL_FRAME_BYTES ? left : SEAL_FRAME_BYTES;
        uint8_t aad[SEAL_AAD_BYTES];
        struct frame_aad frame;
        frame_fill(chunk, SEAL_PLAIN, frames, i, plain_bytes, aad, &frame);
        aead_encrypt(crypto, &frame, in, bytes, out, out + bytes);
        in += bytes;
        out += bytes + SEAL_TAG_BYTES;
        left -= bytes;
    }
    CHECK(left == 0 && out == ret + seal_bytes(plain_bytes));
    *ret_encoding = encoding;
}

/* Every header field against what the caller knows. Payload compressed by zstd passes here: its frames authenticate. */
static bool header_good(const uint8_t *sealed, uint32_t sealed_bytes, uint32_t plain_bytes,
                        const struct encoding *encoding)
{
    if (sealed_bytes < SEAL_HEADER_BYTES + SEAL_TAG_BYTES || get_u32(sealed) != SEAL_MAGIC) {
        return false;
    }
    uint8_t codec = sealed[4];
    uint32_t payload_bytes = get_u32(sealed + 12);
    bool lengths = codec == SEAL_PLAIN ? payload_bytes == plain_bytes : payload_bytes <= LIMIT_CHUNK_BYTES;
    return (codec == SEAL_PLAIN || codec == SEAL_ZSTD) && sealed[5] == 0 && get_u16(sealed + 6) == 0 &&
           plain_bytes <= LIMIT_CHUNK_BYTES && get_u32(sealed + 8) == plain_bytes && lengths &&
           seal_bytes(payload_bytes) == sealed_bytes && memcmp(sealed + 16, encoding->bytes, 16) == 0;
}

/* Decrypts all frames into `ret_payload` and hashes it on the way; false when a tag fails. */
static bool frames_open(const struct chunk_id *chunk, const uint8_t *sealed, uint32_t plain_bytes, uint8_t *ret_payload,
                        struct sha256 *ret_sha)
{
    struct crypto *crypto = crypto_of_thread();
    uint32_t left = get_u32(sealed + 12);
    uint32_t frames = frame_count_of(left);
    const uint8_t *in = sealed + SEAL_HEADER_BYTES;
    uint8_t *out = ret_payload;
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    for (uint32_t i = 0; i < frames; i++) {
        uint32_t bytes = left < SEAL_FRAME_BYTES ? left : SEAL_FRAME_BYTES;
        uint8_t aad[SEAL_AAD_BYTES];
        struct frame_aad frame;
        frame_fill(chunk, sealed[4], frames, i, plain_bytes, aad, &frame);
        if (!aead_decrypt(crypto, &frame, in, bytes, in + bytes, out)) {
            return false;
        }
        if (bytes > 0) {
            CHECK(EVP_DigestUpdate(crypto->digest, out, bytes) == 1);
            out += bytes;
        }
        in += bytes + SEAL_TAG_BYTES;
        left -= bytes;
    }
    CHECK(left == 0);
    CHECK(EVP_DigestFinal_ex(crypto->digest, ret_sha->bytes, NULL) == 1);
    return true;
}

enum err unseal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha,
                      const struct encoding *encoding, uint32_t plain_bytes, const void *sealed, uint32_t sealed_bytes,
                      struct slice *ret_plain)
{
    const uint8_t *data = sealed;
    if (!header_good(data, sealed_bytes, plain_bytes, encoding)) {
        return ERR_CORRUPT;
    }
    aead_load_key(crypto_of_thread(), false, kc, "cairn seal", encoding->bytes);
    struct slice payload = slice_alloc(get_u32(data + 12));
    struct sha256 payload_sha;
    enum err err = ERR_CORRUPT;
    if (frames_open(chunk, data, plain_bytes, payload.data, &payload_sha)) {
        struct encoding named = encoding_of(kc, data[4], &payload_sha);
        if (secret_equal(named.bytes, encoding->bytes, sizeof named.bytes)) {
            /* An authentic chunk of a codec this version does not read is not damaged. */
            err = data[4] == SEAL_PLAIN ? ERR_OK : ERR_UNSUPPORTED;
        }
        if (err == ERR_OK && !secret_equal(payload_sha.bytes, sha->bytes, sizeof payload_sha.bytes)) {
            err = ERR_CORRUPT;
        }
    }
    if (err != ERR_OK) {
        slice_drop(&payload);
        return err;
    }
    *ret_plain = payload;
    return ERR_OK;
}

/* The length of `aad` goes in front: without it ("ab", "c") and ("a", "bc") would share s, and with it key and nonce.
 */
static void value_iv(const uint8_t key[32], const void *aad, size_t aad_bytes, const void *plain, size_t bytes,
                     uint8_t ret_s[16])
{
    uint8_t length[8];
    put_u64(length, aad_bytes);
    struct bytes_part parts[] = {{length, sizeof length}, {aad, aad_bytes}, {plain, bytes}};
    struct sha256 mac = hmac_sha256_parts(key, 32, parts, 3);
    memcpy(ret_s, mac.bytes, 16);
}

struct slice value_seal(const uint8_t key[32], const void *aad, size_t aad_bytes, const void *plain, size_t bytes)
{
    CHECK(bytes < INT32_MAX - VALUE_SEAL_BYTES && aad_bytes < INT32_MAX);
    struct crypto *crypto = crypto_of_thread();
    struct slice sealed = slice_alloc(bytes + VALUE_SEAL_BYTES);
    value_iv(key, aad, aad_bytes, plain, bytes, sealed.data);
    aead_load_key(crypto, true, key, "cairn value", sealed.data);
    struct frame_aad frame = {.aad = aad, .aad_bytes = aad_bytes};
    aead_encrypt(crypto, &frame, plain, (uint32_t)bytes, sealed.data + 16, sealed.data + 16 + bytes);
    return sealed;
}

enum err value_unseal(const uint8_t key[32], const void *aad, size_t aad_bytes, const void *sealed, size_t bytes,
                      struct slice *ret_plain)
{
    CHECK(aad_bytes < INT32_MAX);
    if (bytes < VALUE_SEAL_BYTES || bytes >= INT32_MAX) {
        return ERR_CORRUPT;
    }
    const uint8_t *data = sealed;
    uint32_t plain_bytes = (uint32_t)(bytes - VALUE_SEAL_BYTES);
    struct crypto *crypto = crypto_of_thread();
    aead_load_key(crypto, false, key, "cairn value", data);
    struct slice plain = slice_alloc(plain_bytes);
    struct frame_aad frame = {.aad = aad, .aad_bytes = aad_bytes};
    uint8_t s[16];
    bool good = aead_decrypt(crypto, &frame, data + 16, plain_bytes, data + 16 + plain_bytes, plain.data);
    if (good) {
        value_iv(key, aad, aad_bytes, plain.data, plain_bytes, s);
        good = secret_equal(s, data, sizeof s);
    }
    if (!good) {
        slice_drop(&plain);
        return ERR_CORRUPT;
    }
    *ret_plain = plain;
    return ERR_OK;
}
