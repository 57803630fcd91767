/* A client's connection: TCP, TLS, the WebSocket upgrade and RFC 6455 framing, not blocking.
 *
 * Ownership: embedded in its participant; conn_close() frees what it holds and may be called in any state, from a
 * handler too. An idle connection holds a descriptor, an SSL without buffers, and no memory of its own.
 * Bounds: a message of the server has at most CONN_MESSAGE_MAX bytes, what waits to be sent CONN_OUT_MAX.
 * Fragmented messages are not read: Signalbox does not send them, and a proxy that makes them shows as an error.
 * Threading: the worker's loop. */
#ifndef SBX_LOAD_CONN_H
#define SBX_LOAD_CONN_H

#include "common/buf.h"
#include "tests/load/options.h"
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CONN_MESSAGE_MAX = 1 << 20, CONN_OUT_MAX = 1 << 20, CONN_READ_SIZE = 16384 };

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_HANDSHAKING, CONN_UPGRADING, CONN_OPEN };

/* How far it came is in the state before; close codes of the server follow as they are. */
enum conn_end { CONN_END_LOST = 0, CONN_END_REFUSED = 1, CONN_END_PROTOCOL = 2 };

struct conn;

/* Each is the last thing done with the connection in its turn, but for message, after which reading goes on while the
 * connection is open. */
struct conn_handlers {
    void (*opened)(struct conn *conn, bool tls_resumed);
    /* A whole binary message (or text, where that is taken), borrowed for the call. */
    void (*message)(struct conn *conn, const uint8_t *data, size_t size);
    /* It has been closed. `code`: the server's close code, or enum conn_end. Not called after conn_close(). */
    void (*ended)(struct conn *conn, enum conn_state before, int code);
};

/* Shared by all connections of a worker. */
struct conn_context {
    int epoll_fd;
    SSL_CTX *tls;
    SSL_SESSION *session; /* the newest ticket; NULL while there is none */
    const struct conn_handlers *handlers;
    bool takes_text; /* text messages too: not Signalbox's, but its peers' */
    uint32_t mask_state;
    uint8_t scratch[CONN_READ_SIZE];
};

struct conn {
    struct conn_context *context;
    const struct target *target;
    SSL *ssl;
    struct buf in, out; /* a frame that came in part; what the socket did not take */
    int fd;
    uint8_t state; /* enum conn_state */
    bool wants_write;
};

/* NULL if the CA file cannot be read (said on standard error). */
struct conn_context *conn_context_new(int epoll_fd, const struct swarm_options *options,
                                      const struct conn_handlers *handlers);
void conn_context_free(struct conn_context **context);

/* Before anything else in the process is done with OpenSSL: lets its memory be counted. */
void conn_count_tls_memory(void);
/* What OpenSSL holds in this process, as the allocator has rounded it. */
int64_t conn_tls_bytes(void);

/* `source`: address to connect from, host order, 0 for any. False with errno if it cannot even begin. */
bool conn_open(struct conn *conn, struct conn_context *context, const struct target *target, uint32_t source,
               bool resume_tls);
/* The descriptor is ready; takes it as far as it goes. */
void conn_ready(struct conn *conn);
/* A failure shows as `ended` at the next conn_ready(). Ignored unless open. */
void conn_send(struct conn *conn, const void *data, size_t size);
void conn_send_text(struct conn *conn, const void *data, size_t size);
/* Whether something has arrived that was not read yet. */
bool conn_has_input(const struct conn *conn);
/* Cuts the connection off, in whatever state it is, by a reset: thousands at once leave the kernel nothing to wait for.
 */
void conn_close(struct conn *conn);

#endif
