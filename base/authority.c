/* Certificates of a cluster, made with OpenSSL (authority.h). Stands at the beginning of every connection's trust, and
 * in the way of no byte. */
#include "base/authority.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"

#define CLOCK_SLACK_S 3600
#define SECOND_NS     1000000000ull

struct authority {
    EVP_PKEY *key;
    X509 *certificate;
};

void slice_wipe(struct slice *slice)
{
    if (slice->bytes > 0) {
        explicit_bzero(slice->data, slice->bytes);
    }
    slice_drop(slice);
}

/* What OpenSSL allocated, as a slice; it is freed. */
static enum err der_take(unsigned char *der, int bytes, struct slice *ret)
{
    if (bytes <= 0) {
        ERR_clear_error();
        return ERR_INTERNAL;
    }
    *ret = slice_copy(der, (size_t)bytes);
    OPENSSL_cleanse(der, (size_t)bytes);
    OPENSSL_free(der);
    return ERR_OK;
}

/* ---- keys ---- */

static enum err private_encode(EVP_PKEY *key, struct slice *ret)
{
    PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
    unsigned char *der = NULL;
    int bytes = info != NULL ? i2d_PKCS8_PRIV_KEY_INFO(info, &der) : 0;
    PKCS8_PRIV_KEY_INFO_free(info);
    return der_take(der, bytes, ret);
}

static EVP_PKEY *private_decode(struct slice key)
{
    const unsigned char *at = key.data;
    EVP_PKEY *read = d2i_AutoPrivateKey(NULL, &at, (long)key.bytes);
    ERR_clear_error();
    return read;
}

static enum err public_encode(EVP_PKEY *key, struct slice *ret)
{
    unsigned char *der = NULL;
    int bytes = i2d_PUBKEY(key, &der);
    return der_take(der, bytes, ret);
}

enum err identity_create(struct slice *ret_private, struct slice *ret_public)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    struct slice private_key = {0}, public_key = {0};
    enum err err = key != NULL ? private_encode(key, &private_key) : ERR_INTERNAL;
    if (err == ERR_OK) {
        err = public_encode(key, &public_key);
    }
    EVP_PKEY_free(key);
    if (err != ERR_OK) {
        slice_wipe(&private_key);
        return err;
    }
    *ret_private = private_key;
    *ret_public = public_key;
    return ERR_OK;
}

enum err identity_public(struct slice private_key, struct slice *ret_public)
{
    EVP_PKEY *key = private_decode(private_key);
    enum err err = key != NULL ? public_encode(key, ret_public) : ERR_CORRUPT;
    EVP_PKEY_free(key);
    return err;
}

enum err identity_sign(struct slice private_key, struct slice data, struct slice *ret_signature)
{
    EVP_PKEY *key = private_decode(private_key);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CHECK(context != NULL);
    size_t bytes = 0;
    enum err err = key != NULL ? ERR_INTERNAL : ERR_CORRUPT;
    if (key != NULL && EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
        EVP_DigestSign(context, NULL, &bytes, data.data, data.bytes) == 1) {
        struct slice whole = slice_alloc(bytes); /* the most it may take */
        if (EVP_DigestSign(context, whole.data, &bytes, data.data, data.bytes) == 1) {
            *ret_signature = slice_copy(whole.data, bytes);
            err = ERR_OK;
        }
        slice_drop(&whole);
    }
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return err;
}

bool identity_verify(struct slice public_key, struct slice data, struct slice signature)
{
    const unsigned char *at = public_key.data;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)public_key.bytes);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    CHECK(context != NULL);
    bool verified = key != NULL && at == public_key.data + public_key.bytes &&
                    EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                    EVP_DigestVerify(context, signature.data, signature.bytes, data.data, data.bytes) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return verified;
}

/* ---- certificates ---- */

static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    bool added = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return added;
}

static bool set_serial(X509 *certificate)
{
    uint8_t serial[16];
    if (RAND_bytes(serial, sizeof serial) != 1) {
        return false;
    }
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40);
    BIGNUM *number = BN_bin2bn(serial, sizeof serial, NULL);
    bool set = number && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate));
    BN_free(number);
    return set;
}

static bool set_times(X509 *certificate, uint64_t wall_ns, uint64_t seconds)
{
    time_t now = (time_t)(wall_ns / SECOND_NS);
    return ASN1_TIME_set(X509_getm_notBefore(certificate), now - CLOCK_SLACK_S) != NULL &&
           ASN1_TIME_set(X509_getm_notAfter(certificate), now + (time_t)seconds) != NULL;
}

/* A certificate without extensions or signature; NULL on failure. `issuer` NULL: itself. */
static X509 *certificate_begin(EVP_PKEY *key, const char *common_name, const X509_NAME *issuer, uint64_t wall_ns,
                               uint64_t seconds)
{
    X509 *certificate = X509_new();
    X509_NAME *subject = certificate != NULL ? X509_get_subject_name(certificate) : NULL;
    bool made =
        certificate != NULL && X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
        set_times(certificate, wall_ns, seconds) &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)common_name, -1, -1, 0) == 1 &&
        X509_set_issuer_name(certificate, issuer != NULL ? issuer : subject) == 1 &&
        X509_set_pubkey(certificate, key) == 1;
    if (!made) {
        X509_free(certificate);
        return NULL;
    }
    return certificate;
}

static bool authority_fill(struct authority *authority, uint64_t wall_ns)
{
    authority->key = EVP_EC_gen("P-256");
    if (authority->key == NULL) {
        return false;
    }
    authority->certificate = certificate_begin(authority->key, "cairn authority", NULL, wall_ns, CERTIFICATE_SECONDS);
    X509 *certificate = authority->certificate;
    return certificate != NULL &&
           add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
           add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           add_extension(certificate, certificate, NID_subject_key_identifier, "hash") &&
           X509_sign(certificate, authority->key, EVP_sha256()) > 0;
}

enum err authority_create(uint64_t wall_ns, struct authority **ret_authority)
{
    struct authority *authority = mem_alloc(sizeof *authority);
    if (!authority_fill(authority, wall_ns)) {
        ERR_clear_error();
        authority_destroy(authority);
        return ERR_INTERNAL;
    }
    *ret_authority = authority;
    return ERR_OK;
}

enum err authority_open(struct slice key, struct slice certificate, struct authority **ret_authority)
{
    struct authority *authority = mem_alloc(sizeof *authority);
    const unsigned char *at = certificate.data;
    authority->key = private_decode(key);
    authority->certificate = d2i_X509(NULL, &at, (long)certificate.bytes);
    bool good = authority->key != NULL && authority->certificate != NULL &&
                X509_check_private_key(authority->certificate, authority->key) == 1;
    ERR_clear_error();
    if (!good) {
        authority_destroy(authority);
        return ERR_CORRUPT;
    }
    *ret_authority = authority;
    return ERR_OK;
}

void authority_destroy(struct authority *authority)
{
    EVP_PKEY_free(authority->key);
    X509_free(authority->certificate);
    free(authority);
}

enum err authority_key(const struct authority *authority, struct slice *ret_key)
{
    return private_encode(authority->key, ret_key);
}

static enum err certificate_encode(X509 *certificate, struct slice *ret)
{
    unsigned char *der = NULL;
    int bytes = i2d_X509(certificate, &der);
    return der_take(der, bytes, ret);
}

enum err authority_certificate(const struct authority *authority, struct slice *ret_certificate)
{
    return certificate_encode(authority->certificate, ret_certificate);
}

/* "IP:10.0.0.1", "DNS:host". */
static bool add_host(X509 *leaf, X509 *issuer, const char *host)
{
    char name[280];
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
    ERR_clear_error();
    int bytes = snprintf(name, sizeof name, "%s:%s", address != NULL ? "IP" : "DNS", host);
    ASN1_OCTET_STRING_free(address);
    bool plain = strpbrk(host, ",;:=\n") == NULL || strchr(host, ':') != NULL; /* a colon: IPv6 */
    return bytes > 0 && (size_t)bytes < sizeof name && plain && strpbrk(host, ",;=\n") == NULL &&
           add_extension(leaf, issuer, NID_subject_alt_name, name);
}

enum err authority_issue(const struct authority *authority, struct slice public_key, const char *common_name,
                         const char *host, uint64_t wall_ns, uint64_t seconds, struct slice *ret_certificate)
{
    const unsigned char *at = public_key.data;
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)public_key.bytes);
    if (key == NULL || at != public_key.data + public_key.bytes) {
        EVP_PKEY_free(key);
        ERR_clear_error();
        return ERR_CORRUPT;
    }
    X509 *issuer = authority->certificate;
    X509 *leaf = certificate_begin(key, common_name, X509_get_subject_name(issuer), wall_ns, seconds);
    bool made = leaf != NULL && add_extension(leaf, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
                add_extension(leaf, issuer, NID_key_usage, "critical,digitalSignature") &&
                add_extension(leaf, issuer, NID_ext_key_usage, "serverAuth,clientAuth") &&
                (host == NULL || add_host(leaf, issuer, host)) &&
                add_extension(leaf, issuer, NID_authority_key_identifier, "keyid") &&
                X509_sign(leaf, authority->key, EVP_sha256()) > 0;
    enum err err = made ? certificate_encode(leaf, ret_certificate) : ERR_INTERNAL;
    X509_free(leaf);
    EVP_PKEY_free(key);
    ERR_clear_error();
    return err;
}

/* ---- PEM ---- */

struct slice pem_encode(const char *label, struct slice der)
{
    BIO *bio = BIO_new(BIO_s_secmem());
    CHECK(bio != NULL && PEM_write_bio(bio, label, "", der.data, (long)der.bytes) > 0);
    char *data = NULL;
    long bytes = BIO_get_mem_data(bio, &data);
    struct slice text = slice_copy(data, (size_t)bytes);
    BIO_free(bio);
    return text;
}

enum err pem_decode(const char *label, struct slice text, struct slice *ret_der)
{
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.bytes);
    CHECK(bio != NULL);
    enum err err = ERR_CORRUPT;
    char *name = NULL, *header = NULL;
    unsigned char *data = NULL;
    long bytes = 0;
    while (err != ERR_OK && PEM_read_bio(bio, &name, &header, &data, &bytes) == 1) {
        if (strcmp(name, label) == 0 && bytes > 0) {
            *ret_der = slice_copy(data, (size_t)bytes);
            err = ERR_OK;
        }
        OPENSSL_cleanse(data, (size_t)bytes);
        OPENSSL_free(name);
        OPENSSL_free(header);
        OPENSSL_free(data);
    }
    BIO_free(bio);
    ERR_clear_error();
    return err;
}
