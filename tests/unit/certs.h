/* Certificates for tests: a CA and node certificates made with OpenSSL, written as PEM files into a fresh directory.
 *
 *     struct certs certs;
 *     certs_init(&certs);                                   // makes a directory and "ca"
 *     certs_issue(&certs, "ca", "metad:1", 0);              // <dir>/metad:1.crt and .key; 0: valid, < 0: expired
 *     config.ca_file = certs_file(&certs, "ca", "crt");     // static ring of a few buffers
 *     certs_deinit(&certs);                                 // removes the directory */
#ifndef CAIRN_TESTS_CERTS_H
#define CAIRN_TESTS_CERTS_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"

struct certs {
    char dir[64];
};

static inline const char *certs_file(const struct certs *certs, const char *name, const char *kind)
{
    static char ring[8][128];
    static unsigned at;
    char *path = ring[at++ % 8];
    snprintf(path, 128, "%s/%s.%s", certs->dir, name, kind);
    return path;
}

static inline EVP_PKEY *certs_read_key(const struct certs *certs, const char *name)
{
    FILE *file = fopen(certs_file(certs, name, "key"), "r");
    CHECK(file != NULL);
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    fclose(file);
    CHECK(key != NULL);
    return key;
}

static inline X509 *certs_read(const struct certs *certs, const char *name)
{
    FILE *file = fopen(certs_file(certs, name, "crt"), "r");
    CHECK(file != NULL);
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    fclose(file);
    CHECK(certificate != NULL);
    return certificate;
}

static inline void certs_write(const struct certs *certs, const char *name, X509 *certificate, EVP_PKEY *key)
{
    FILE *file = fopen(certs_file(certs, name, "crt"), "w");
    CHECK(file != NULL && PEM_write_X509(file, certificate) == 1);
    fclose(file);
    file = fopen(certs_file(certs, name, "key"), "w");
    CHECK(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
}

static inline void certs_extend(X509 *certificate, int nid, const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* Makes `name` signed by `issuer` (NULL: by itself, a CA). It ends `seconds` from now; 0: in a day. */
static inline void certs_issue(const struct certs *certs, const char *issuer, const char *name, long seconds)
{
    static long serial = 1;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *certificate = X509_new();
    CHECK(key != NULL && certificate != NULL);
    X509_set_version(certificate, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
    X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
    X509_gmtime_adj(X509_getm_notAfter(certificate), seconds ? seconds : 86400);
    X509_set_pubkey(certificate, key);
    X509_NAME *subject = X509_get_subject_name(certificate);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    if (issuer == NULL) {
        X509_set_issuer_name(certificate, subject);
        certs_extend(certificate, NID_basic_constraints, "critical,CA:TRUE");
        CHECK(X509_sign(certificate, key, NULL) > 0);
    } else {
        X509 *ca = certs_read(certs, issuer);
        EVP_PKEY *ca_key = certs_read_key(certs, issuer);
        X509_set_issuer_name(certificate, X509_get_subject_name(ca));
        CHECK(X509_sign(certificate, ca_key, NULL) > 0);
        X509_free(ca);
        EVP_PKEY_free(ca_key);
    }
    certs_write(certs, name, certificate, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

static inline void certs_init(struct certs *certs)
{
    snprintf(certs->dir, sizeof certs->dir, "/tmp/cairn-certs-XXXXXX");
    CHECK(mkdtemp(certs->dir) != NULL);
    certs_issue(certs, NULL, "ca", 0);
}

static inline void certs_deinit(struct certs *certs)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", certs->dir);
    CHECK(system(command) == 0);
}

#endif
