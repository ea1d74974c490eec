/* TLS of this process: one context for both directions, the BIO over a connection's own buffers, and what a peer's
 * certificate says. Private to io/. */
#ifndef CAIRN_IO_TLS_H
#define CAIRN_IO_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>

#include "base/effect.h"
#include "io/runtime.h"

/* Where a connection's ciphertext comes from and goes to. */
struct tls_port {
    const uint8_t *in; /* received, not yet taken by SSL; borrowed from the read callback */
    size_t in_left;
    /* Takes all of it; cannot fail. */
    void (*out)(struct tls_port *port, const uint8_t *data, size_t bytes);
};

struct tls;
/* Reads and checks the files; CONFIG with a text that names file and next step. */
MUST_CHECK enum err tls_create(const struct runtime_config *config, struct tls **ret_tls, char *ret_text);
void tls_destroy(struct tls *tls);
/* Reads the files anew for the sessions made from now on; sessions that stand are left alone. ret_text (size 256) says
 * whether the certificate is another one and until when it is good; on failure everything is as before. Any thread. */
MUST_CHECK enum err tls_reload(struct tls *tls, const struct runtime_config *config, char *ret_text);
/* A session over `port`, which must outlive it. */
SSL *tls_session(struct tls *tls, struct tls_port *port, bool accepts);

/* Before each call on a session: what other code of this thread left in OpenSSL's error queue is not ours. */
void tls_forget_errors(void);
/* What a failed handshake or read means; drains OpenSSL's error queue. ret_text (128 bytes) says it in words. */
enum err tls_error(SSL *ssl, char *ret_text);
/* Role and id in the peer's certificate; WRONG_ROLE unless its one common name is `role:id`. */
MUST_CHECK enum err tls_peer(SSL *ssl, struct principal *ret_principal);
/* Reads `metad:3`; false if it is anything else. */
bool tls_name_parse(const char *name, size_t bytes, struct principal *ret_principal);
const char *tls_role_name(uint32_t role);

#endif
