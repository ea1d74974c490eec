/* Ed25519 signatures (RFC 8032) over OpenSSL: capabilities, and proofs that cross planes. Pure. */
#ifndef CAIRN_BASE_SIGN_H
#define CAIRN_BASE_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The public key of a 32-byte secret seed. */
void sign_public_key(const uint8_t seed[32], uint8_t ret_public[32]);
void sign_make(const uint8_t seed[32], const void *data, size_t bytes, uint8_t ret_signature[64]);
bool sign_verify(const uint8_t public_key[32], const void *data, size_t bytes, const uint8_t signature[64]);

#endif
