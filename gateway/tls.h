/* TLS towards clients: 1.2 and 1.3, modern suites, X25519 first, no compression, no renegotiation, no server-side
 * session cache, buffers released while a connection is idle.
 *
 * Session tickets are sealed under keys that every gateway derives from the cluster's ticket secret and the time
 * (HMAC-SHA256), so that a client resumes on any of them, and a key is good for between one and two periods. Without a
 * secret each process makes its own keys.
 *
 * Threading: loop thread.
 */
#ifndef SBX_GATEWAY_TLS_H
#define SBX_GATEWAY_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>

enum { TLS_TICKET_PERIOD_S = 12 * 3600 };

struct tls_options {
    const char *certificate_file; /* PEM, the whole chain */
    const char *key_file;
    const char *ticket_secret;          /* may be NULL; copied */
    const char *previous_ticket_secret; /* tickets made with it are taken and replaced; may be NULL; copied */
};

/* NULL with a text in `error` that names the file and what to do. Free with SSL_CTX_free(). */
SSL_CTX *tls_context_new(const struct tls_options *options, char *error, size_t error_size);

#endif
