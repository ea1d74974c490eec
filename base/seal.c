/* Sealing, the step between a person's bytes and a block server's (R-C1). Up: plain chunk -> compress_if_pays ->
 * seal_payload -> code.c. Down: data shards -> unseal_parts -> plain chunk, or with shards lost code_join ->
 * unseal_chunk. One pass over 64 KiB frames that stay in cache: down, each frame is
 * hashed right after it is decrypted. What comes in is never believed: every field of the header is bound by the
 * caller's arguments or by the frames' associated data, and anything that differs is CORRUPT. */
#include "seal.h"

#include <openssl/crypto.h>
#include <string.h>

#include "bytes.h"
#include "check.h"
#include "compress.h"
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

void seal_payload(const struct chunk_id *chunk, const uint8_t kc[32], enum seal_codec codec,
                  const struct sha256 *payload_sha, struct slice payload, uint32_t plain_bytes, uint8_t *ret,
                  struct encoding *ret_encoding)
{
    CHECK(plain_bytes <= LIMIT_CHUNK_BYTES && payload.bytes <= LIMIT_CHUNK_BYTES);
    CHECK(codec == SEAL_ZSTD || payload.bytes == plain_bytes);
    struct crypto *crypto = crypto_of_thread();
    struct encoding encoding = encoding_of(kc, (uint8_t)codec, payload_sha);
    memset(ret, 0, SEAL_HEADER_BYTES);
    put_u32(ret, SEAL_MAGIC);
    ret[4] = (uint8_t)codec;
    put_u32(ret + 8, plain_bytes);
    put_u32(ret + 12, payload.bytes);
    memcpy(ret + 16, encoding.bytes, 16);
    aead_load_key(crypto, true, kc, "cairn seal", encoding.bytes);
    const uint8_t *in = payload.data;
    uint8_t *out = ret + SEAL_HEADER_BYTES;
    uint32_t frames = frame_count_of(payload.bytes);
    uint32_t left = payload.bytes;
    for (uint32_t i = 0; i < frames; i++) {
        uint32_t bytes = left < SEAL_FRAME_BYTES ? left : SEAL_FRAME_BYTES;
        uint8_t aad[SEAL_AAD_BYTES];
        struct frame_aad frame;
        frame_fill(chunk, (uint8_t)codec, frames, i, plain_bytes, aad, &frame);
        aead_encrypt(crypto, &frame, in, bytes, out, out + bytes);
        in += bytes;
        out += bytes + SEAL_TAG_BYTES;
        left -= bytes;
    }
    CHECK(left == 0 && out == ret + seal_bytes(payload.bytes));
    *ret_encoding = encoding;
}

void seal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha, const void *plain,
                uint32_t plain_bytes, uint8_t *ret, struct encoding *ret_encoding)
{
    struct slice payload = slice_borrow(plain, plain_bytes);
    seal_payload(chunk, kc, SEAL_PLAIN, sha, payload, plain_bytes, ret, ret_encoding);
}

/* Every header field against what the caller knows. The length of a compressed payload is only bounded: frames and
 * encoding tell. */
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

/* Where a sealed chunk lies: parts one behind the other, and how much of them is read. */
struct parts_reader {
    const struct slice *parts;
    unsigned count;
    unsigned part;
    uint32_t offset; /* in parts[part] */
};

/* The next `bytes`: in place if one part has them, else copied to `bounce`. */
static const uint8_t *parts_next(struct parts_reader *reader, uint32_t bytes, uint8_t *bounce)
{
    uint32_t done = 0;
    while (done < bytes) {
        CHECK(reader->part < reader->count);
        struct slice part = reader->parts[reader->part];
        uint32_t here = part.bytes - reader->offset;
        uint32_t more = here < bytes - done ? here : bytes - done;
        const uint8_t *from = part.data + reader->offset;
        reader->offset += more;
        if (more == bytes) {
            return from;
        }
        if (more > 0) {
            memcpy(bounce + done, from, more);
            done += more;
        }
        if (done < bytes) {
            reader->part++;
            reader->offset = 0;
        }
    }
    return bounce;
}

/* Decrypts all frames into `ret_payload` and hashes it on the way; false when a tag fails. `reader` stands behind the
 * header. */
static bool frames_open(const struct chunk_id *chunk, const uint8_t *header, struct parts_reader *reader,
                        uint8_t *ret_payload, struct sha256 *ret_sha)
{
    struct crypto *crypto = crypto_of_thread();
    struct slice bounce = reader->count > 1 ? slice_alloc(SEAL_FRAME_BYTES + SEAL_TAG_BYTES) : (struct slice){0};
    uint32_t left = get_u32(header + 12);
    uint32_t frames = frame_count_of(left);
    uint8_t *out = ret_payload;
    bool good = true;
    CHECK(EVP_DigestInit_ex2(crypto->digest, crypto->sha256, NULL) == 1);
    for (uint32_t i = 0; i < frames && good; i++) {
        uint32_t bytes = left < SEAL_FRAME_BYTES ? left : SEAL_FRAME_BYTES;
        uint8_t aad[SEAL_AAD_BYTES];
        struct frame_aad frame;
        frame_fill(chunk, header[4], frames, i, get_u32(header + 8), aad, &frame);
        const uint8_t *in = parts_next(reader, bytes + SEAL_TAG_BYTES, bounce.data);
        good = aead_decrypt(crypto, &frame, in, bytes, in + bytes, out);
        if (good && bytes > 0) {
            CHECK(EVP_DigestUpdate(crypto->digest, out, bytes) == 1);
            out += bytes;
        }
        left -= bytes;
    }
    slice_drop(&bounce);
    CHECK(!good || left == 0);
    CHECK(EVP_DigestFinal_ex(crypto->digest, ret_sha->bytes, NULL) == 1);
    return good;
}

/* From an authentic payload to the plain chunk, whose hash is compared. Takes the payload in any case. */
static enum err payload_open(uint8_t codec, struct slice payload, const struct sha256 *payload_sha,
                             uint32_t plain_bytes, const struct sha256 *sha, struct slice *ret_plain)
{
    struct slice plain = payload;
    struct sha256 plain_sha = *payload_sha;
    if (codec == SEAL_ZSTD) {
        enum err err = compress_expand(payload.data, payload.bytes, plain_bytes, &plain);
        slice_drop(&payload);
        if (err != ERR_OK) {
            return err;
        }
        plain_sha = sha256(plain.data, plain.bytes);
    }
    CHECK(plain.bytes == plain_bytes);
    if (!secret_equal(plain_sha.bytes, sha->bytes, sizeof plain_sha.bytes)) {
        slice_drop(&plain);
        return ERR_CORRUPT;
    }
    *ret_plain = plain;
    return ERR_OK;
}

enum err unseal_parts(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha,
                      const struct encoding *encoding, uint32_t plain_bytes, const struct slice *parts, unsigned count,
                      uint32_t sealed_bytes, struct slice *ret_plain)
{
    uint64_t total_bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        total_bytes += parts[i].bytes;
    }
    CHECK(count > 0 && total_bytes >= sealed_bytes);
    struct parts_reader reader = {.parts = parts, .count = count};
    uint8_t bounce[SEAL_HEADER_BYTES];
    if (sealed_bytes < SEAL_HEADER_BYTES) {
        return ERR_CORRUPT;
    }
    const uint8_t *header = parts_next(&reader, SEAL_HEADER_BYTES, bounce);
    if (!header_good(header, sealed_bytes, plain_bytes, encoding)) {
        return ERR_CORRUPT;
    }
    aead_load_key(crypto_of_thread(), false, kc, "cairn seal", encoding->bytes);
    struct slice payload = slice_alloc(get_u32(header + 12));
    struct sha256 payload_sha;
    if (frames_open(chunk, header, &reader, payload.data, &payload_sha)) {
        struct encoding named = encoding_of(kc, header[4], &payload_sha);
        if (secret_equal(named.bytes, encoding->bytes, sizeof named.bytes)) {
            return payload_open(header[4], payload, &payload_sha, plain_bytes, sha, ret_plain);
        }
    }
    slice_drop(&payload);
    return ERR_CORRUPT;
}

enum err unseal_chunk(const struct chunk_id *chunk, const uint8_t kc[32], const struct sha256 *sha,
                      const struct encoding *encoding, uint32_t plain_bytes, const void *sealed, uint32_t sealed_bytes,
                      struct slice *ret_plain)
{
    if (sealed_bytes > LIMIT_SEALED_BYTES) {
        return ERR_CORRUPT;
    }
    struct slice part = slice_borrow(sealed, sealed_bytes);
    return unseal_parts(chunk, kc, sha, encoding, plain_bytes, &part, 1, sealed_bytes, ret_plain);
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
