/* The cluster's certificate authority: a P-256 key and a self-signed certificate, and the certificates it issues. The
 * common name carries role and number ("metad:3"), which is what peers check. Pure but for OpenSSL's randomness: time
 * comes as an argument, nothing is read or written.
 *
 * All in DER; secrets are wiped by slice_wipe. Errors: INTERNAL when OpenSSL fails, CORRUPT for bytes that are no such
 * thing. */
#ifndef CAIRN_BASE_AUTHORITY_H
#define CAIRN_BASE_AUTHORITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/ids.h"
#include "base/slice.h"

#define CERTIFICATE_SECONDS (3650ull * 86400)

/* What the authority's key is wrapped for by the cluster key (base/seal.h, value_seal). */
#define AUTHORITY_USE "authority key"

struct authority;
MUST_CHECK enum err authority_create(uint64_t wall_ns, struct authority **ret_authority);
/* From what authority_key and authority_certificate gave; CORRUPT also when they do not belong together. */
MUST_CHECK enum err authority_open(struct slice key, struct slice certificate, struct authority **ret_authority);
void authority_destroy(struct authority *authority);
MUST_CHECK enum err authority_key(const struct authority *authority, struct slice *ret_key); /* PKCS#8, secret */
MUST_CHECK enum err authority_certificate(const struct authority *authority, struct slice *ret_certificate);
/* A certificate of `public_key` (SubjectPublicKeyInfo), good from an hour ago for `seconds`. `host`: an IP address or
 * host name for the subject's alternative name, NULL: none. */
MUST_CHECK enum err authority_issue(const struct authority *authority, struct slice public_key, const char *common_name,
                                    const char *host, uint64_t wall_ns, uint64_t seconds,
                                    struct slice *ret_certificate);

/* A fresh P-256 key: PKCS#8 and SubjectPublicKeyInfo. */
MUST_CHECK enum err identity_create(struct slice *ret_private, struct slice *ret_public);
/* The public half of a private one. */
MUST_CHECK enum err identity_public(struct slice private_key, struct slice *ret_public);
/* ECDSA over the SHA-256 of `data`: who signs holds the private half. */
MUST_CHECK enum err identity_sign(struct slice private_key, struct slice data, struct slice *ret_signature);
bool identity_verify(struct slice public_key, struct slice data, struct slice signature);
/* "-----BEGIN LABEL-----"; labels CERTIFICATE and PRIVATE KEY. */
struct slice pem_encode(const char *label, struct slice der);
/* The first block of that label in a text. */
MUST_CHECK enum err pem_decode(const char *label, struct slice text, struct slice *ret_der);

/* Overwrites the bytes and drops the slice. */
void slice_wipe(struct slice *slice);

#endif
