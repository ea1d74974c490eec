/* TLS 1.3, mutual, for every connection. Stands between the socket's bytes and the frames.
 *
 * Happy path: our BIO hands OpenSSL the bytes libuv received (one copy, into its record buffer) and takes the records
 * it made into the connection's output chunk. Both sides verify the chain up to the one CA file; the caller then
 * compares the common name. No sessions, tickets or renegotiation: a connection lives long.
 *
 * How it fails: a code of its own for expired, untrusted, and not TLS at all; the rest is TLS_FAILED with OpenSSL's
 * text. */
#include "io/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/hash.h"

struct tls {
    pthread_mutex_t lock;
    SSL_CTX *context; /* under lock: a reload replaces it */
    BIO_METHOD *method;
};

/* ---- names ---- */

static const struct {
    uint8_t role;
    const char *name;
} tls_roles[] = {{ROLE_METAD, "metad"},
                 {ROLE_BLOCKD, "blockd"},
                 {ROLE_DEVICE, "device"},
                 {ROLE_GATEWAY, "gateway"},
                 {ROLE_JOIN, "join"}};

const char *tls_role_name(uint32_t role)
{
    for (size_t i = 0; i < sizeof tls_roles / sizeof tls_roles[0]; i++) {
        if (tls_roles[i].role == role) {
            return tls_roles[i].name;
        }
    }
    return role == ROLE_LOCAL ? "local" : "none";
}

bool tls_name_parse(const char *name, size_t bytes, struct principal *ret_principal)
{
    for (size_t i = 0; i < sizeof tls_roles / sizeof tls_roles[0]; i++) {
        size_t prefix = strlen(tls_roles[i].name);
        if (bytes < prefix + 2 || memcmp(name, tls_roles[i].name, prefix) != 0 || name[prefix] != ':') {
            continue;
        }
        uint64_t id = 0;
        for (size_t at = prefix + 1; at < bytes; at++) {
            if (name[at] < '0' || name[at] > '9' || (id == 0 && name[at] == '0')) {
                return false;
            }
            id = id * 10 + (uint64_t)(name[at] - '0');
            if (id > UINT32_MAX) {
                return false;
            }
        }
        *ret_principal = (struct principal){.role = tls_roles[i].role, .id = (uint32_t)id};
        return true;
    }
    return false;
}

/* SHA-256 of the certificate's public key as DER SubjectPublicKeyInfo. */
static enum err tls_key_digest(X509 *certificate, struct sha256 *ret_key)
{
    uint8_t *der = NULL;
    int bytes = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
    if (bytes <= 0) {
        return ERR_WRONG_ROLE;
    }
    *ret_key = sha256(der, (size_t)bytes);
    OPENSSL_free(der);
    return ERR_OK;
}

static enum err tls_certificate_principal(X509 *certificate, struct principal *ret_principal)
{
    X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) {
        return ERR_WRONG_ROLE;
    }
    ASN1_STRING *text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
    int bytes = ASN1_STRING_length(text);
    if (bytes <= 0 || !tls_name_parse((const char *)ASN1_STRING_get0_data(text), (size_t)bytes, ret_principal)) {
        return ERR_WRONG_ROLE;
    }
    return tls_key_digest(certificate, &ret_principal->key);
}

enum err tls_peer(SSL *ssl, struct principal *ret_principal)
{
    X509 *certificate = SSL_get0_peer_certificate(ssl);
    return certificate ? tls_certificate_principal(certificate, ret_principal) : ERR_WRONG_ROLE;
}

/* ---- the BIO ---- */

static int tls_bio_read(BIO *bio, char *data, int bytes)
{
    struct tls_port *port = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (bytes <= 0) {
        return 0;
    }
    if (port->in_left == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t take = (size_t)bytes < port->in_left ? (size_t)bytes : port->in_left;
    memcpy(data, port->in, take);
    port->in += take;
    port->in_left -= take;
    return (int)take;
}

static int tls_bio_write(BIO *bio, const char *data, int bytes)
{
    struct tls_port *port = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (bytes > 0) {
        port->out(port, (const uint8_t *)data, (size_t)bytes);
    }
    return bytes;
}

static long tls_bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static BIO_METHOD *tls_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "cairn connection");
    CHECK(method != NULL);
    CHECK(BIO_meth_set_read(method, tls_bio_read) == 1 && BIO_meth_set_write(method, tls_bio_write) == 1);
    CHECK(BIO_meth_set_ctrl(method, tls_bio_ctrl) == 1);
    return method;
}

SSL *tls_session(struct tls *tls, struct tls_port *port, bool accepts)
{
    pthread_mutex_lock(&tls->lock);
    SSL *ssl = SSL_new(tls->context); /* holds its context for as long as it lives */
    pthread_mutex_unlock(&tls->lock);
    BIO *bio = BIO_new(tls->method);
    CHECK(ssl != NULL && bio != NULL);
    BIO_set_data(bio, port);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    if (accepts) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_connect_state(ssl);
    }
    return ssl;
}

/* ---- the context ---- */

static enum err tls_fail(char *ret_text, const char *what, const char *file, const char *next)
{
    char reason[160] = "unreadable";
    unsigned long code = ERR_peek_last_error();
    if (code != 0) {
        const char *text = ERR_reason_error_string(code);
        snprintf(reason, sizeof reason, "%s", text ? text : "unknown OpenSSL error");
    }
    ERR_clear_error();
    snprintf(ret_text, 256, "%s %.100s: %.60s; %s", what, file, reason, next);
    return ERR_CONFIG;
}

static enum err tls_load(SSL_CTX *context, const struct runtime_config *config, char *ret_text)
{
    if (SSL_CTX_load_verify_locations(context, config->ca_file, NULL) != 1) {
        return tls_fail(ret_text, "CA file", config->ca_file, "give the cluster's CA certificate as PEM");
    }
    if (SSL_CTX_use_certificate_chain_file(context, config->cert_file) != 1) {
        return tls_fail(ret_text, "certificate", config->cert_file, "give this node's certificate as PEM");
    }
    if (SSL_CTX_use_PrivateKey_file(context, config->key_file, SSL_FILETYPE_PEM) != 1) {
        return tls_fail(ret_text, "private key", config->key_file, "give the key of the certificate as PEM");
    }
    if (SSL_CTX_check_private_key(context) != 1) {
        return tls_fail(ret_text, "private key", config->key_file, "it is not the key of the certificate");
    }
    struct principal own = {0};
    enum err err = tls_certificate_principal(SSL_CTX_get0_certificate(context), &own);
    if (err != ERR_OK || own.role != config->role || own.id != config->id) {
        snprintf(ret_text, 256, "certificate %.100s: its common name is not %s:%u; use the one issued to this node",
                 config->cert_file, tls_role_name(config->role), config->id);
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static enum err tls_context_create(const struct runtime_config *config, SSL_CTX **ret_context, char *ret_text)
{
    ERR_clear_error();
    SSL_CTX *context = SSL_CTX_new(TLS_method());
    CHECK(context != NULL);
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    /* One certificate serves both directions; what a peer may do is decided by its common name. */
    X509_VERIFY_PARAM_set_purpose(SSL_CTX_get0_param(context), X509_PURPOSE_ANY);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(context, 0);
    CHECK(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
                                            "TLS_CHACHA20_POLY1305_SHA256") == 1);
    enum err err = tls_load(context, config, ret_text);
    if (err != ERR_OK) {
        SSL_CTX_free(context);
        return err;
    }
    *ret_context = context;
    return ERR_OK;
}

enum err tls_create(const struct runtime_config *config, struct tls **ret_tls, char *ret_text)
{
    SSL_CTX *context = NULL;
    enum err err = tls_context_create(config, &context, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    struct tls *tls = mem_alloc(sizeof *tls);
    pthread_mutex_init(&tls->lock, NULL);
    tls->context = context;
    tls->method = tls_bio_method();
    *ret_tls = tls;
    return ERR_OK;
}

static void tls_time_text(const ASN1_TIME *time, char ret_text[64])
{
    struct tm utc = {0};
    if (ASN1_TIME_to_tm(time, &utc) != 1 || strftime(ret_text, 64, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
        snprintf(ret_text, 64, "an unknown time");
    }
}

enum err tls_reload(struct tls *tls, const struct runtime_config *config, char *ret_text)
{
    SSL_CTX *context = NULL;
    enum err err = tls_context_create(config, &context, ret_text);
    if (err != ERR_OK) {
        return err;
    }
    char until[64];
    X509 *certificate = SSL_CTX_get0_certificate(context);
    tls_time_text(X509_get0_notAfter(certificate), until);
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *old = tls->context;
    bool same = X509_cmp(SSL_CTX_get0_certificate(old), certificate) == 0;
    tls->context = context;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(old);
    snprintf(ret_text, 256, "%s, good until %s", same ? "the certificate is the same" : "a new certificate", until);
    return ERR_OK;
}

void tls_destroy(struct tls *tls)
{
    SSL_CTX_free(tls->context);
    pthread_mutex_destroy(&tls->lock);
    BIO_meth_free(tls->method);
    free(tls);
}

/* ---- errors ---- */

static enum err tls_error_of_verify(long result)
{
    switch (result) {
    case X509_V_OK:
        return ERR_OK;
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return ERR_TLS_EXPIRED;
    default:
        return ERR_TLS_UNTRUSTED;
    }
}

static enum err tls_error_of_reason(int reason)
{
    switch (reason) {
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        return ERR_TLS_EXPIRED;
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return ERR_TLS_UNTRUSTED;
    default:
        return ERR_TLS_FAILED;
    }
}

void tls_forget_errors(void)
{
    if (ERR_peek_error() != 0) {
        ERR_clear_error();
    }
}

enum err tls_error(SSL *ssl, char *ret_text)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    long verify = SSL_get_verify_result(ssl);
    enum err err = tls_error_of_verify(verify);
    if (err != ERR_OK) {
        snprintf(ret_text, 128, "%.120s", X509_verify_cert_error_string(verify));
    } else {
        err = tls_error_of_reason(ERR_GET_REASON(code));
        snprintf(ret_text, 128, "%.120s", text ? text : "the TLS stream broke");
    }
    ERR_clear_error();
    return err;
}
