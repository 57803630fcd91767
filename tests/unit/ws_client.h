/* A blocking WebSocket client for tests, over TLS or plain TCP, that does exactly what it is told: it can also break
 * the rules. Any thread; every failure that a test does not ask for ends the test. */
#ifndef SBX_TESTS_WS_CLIENT_H
#define SBX_TESTS_WS_CLIENT_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ws_client {
    int fd;
    SSL *ssl; /* NULL: plain */
    uint8_t input[1 << 20];
    size_t input_size;
};

/* An ephemeral certificate for localhost and its key, as PEM files. */
void ws_client_make_certificate(const char *certificate_file, const char *key_file);
/* Connects; with a context, shakes hands (`session` may be NULL). NULL if the server closes instead. */
struct ws_client *ws_client_connect(unsigned port, SSL_CTX *tls, SSL_SESSION *session);
/* TCP alone; the handshake comes later. */
struct ws_client *ws_client_dial(unsigned port);
bool ws_client_handshake(struct ws_client *client, SSL_CTX *tls, SSL_SESSION *session);
void ws_client_close(struct ws_client **client);
void ws_client_write(struct ws_client *client, const void *data, size_t size);
/* Sends a request, reads one response: NUL-terminated head; the body follows it for as long as the connection lives or
 * Content-Length says. The string is valid until the next call. */
const char *ws_client_request(struct ws_client *client, const char *request);
/* The request of a proper upgrade with these further header lines. */
const char *ws_client_upgrade_request(const char *path, const char *subprotocols, const char *headers);
/* Upgrades or ends the test. */
void ws_client_upgrade(struct ws_client *client, const char *subprotocols);
void ws_client_send(struct ws_client *client, int opcode, const void *data, size_t size);
/* The next frame's opcode; -1 at the end of the connection. `data` gets a NUL behind it. */
int ws_client_receive(struct ws_client *client, uint8_t *data, size_t capacity, size_t *ret_size);
/* Skips messages and returns the code of the close frame, 1005 if it has none, 1006 if there is no close frame. */
int ws_client_close_code(struct ws_client *client);
/* True if nothing but the end of the connection comes. */
bool ws_client_at_end(struct ws_client *client);

#endif
