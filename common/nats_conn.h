/* One connection to one NATS server, driven in the library's event-loop mode by the bus thread: made, used until it is
 * lost, destroyed. There is no reconnect in it.
 *
 * The echo: a message to the connection's own inbox, which the server sends back. The first one heard proves that the
 * subscriptions made before it were accepted; silence afterwards means that the connection is dead.
 *
 * No responders: a message may name the inbox as its reply subject; if nobody subscribes to its subject, the server
 * answers 503 there. cnats 3.4 swallows that message (NextMsg frees it and returns NATS_NO_RESPONDERS), so nothing in
 * it can say whom it is about. Order can: the server answers on the inbox in the order in which it is asked, so an echo
 * is sent whenever the subject asked about changes, and a 503 heard before that echo belongs to the subject asked
 * before it.
 *
 * Threading: nats_conn_open() on a thread that may block; nats_conn_sever() and nats_conn_echoes() from any; all else
 * on the bus thread.
 */
#ifndef SBX_COMMON_NATS_CONN_H
#define SBX_COMMON_NATS_CONN_H

#include "common/nats_options.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nats_conn;

enum { NATS_CONN_SERVER_ID_MAX = 128 };

enum nats_conn_error {
    NATS_CONN_LOST = -1,    /* closed by the server or the network */
    NATS_CONN_REFUSED = -2, /* authentication or permissions */
};

struct nats_conn_handlers {
    /* The callee destroys `msg`, on any thread, at any time. */
    void (*message)(void *ctx, natsMsg *msg);
    void (*unreachable)(void *ctx, const char *subject);
};

/* Blocks for up to NATS_CONNECT_TIMEOUT_MS. Uses `options` only during the call. */
int nats_conn_open(struct nats_options *options, struct nats_conn **ret_conn, char ret_detail[NATS_DETAIL_MAX]);
/* What is unsent is lost. */
void nats_conn_free(struct nats_conn **conn);
/* Ends the connection as if the network had: the bus thread sees it as readable and then as lost. */
void nats_conn_sever(struct nats_conn *conn);
/* How many echoes came back so far. */
unsigned nats_conn_echoes(const struct nats_conn *conn);

/* `inbox` needs no subscription of its own where one of `subjects` covers it. All strings outlive the connection. */
int nats_conn_subscribe(struct nats_conn *conn, const char *const *subjects, size_t count, const char *inbox,
                        const struct nats_conn_handlers *handlers, void *ctx);
int nats_conn_publish(struct nats_conn *conn, const char *subject, const void *data, size_t size,
                      bool want_unreachable);
int nats_conn_send_echo(struct nats_conn *conn);
/* Reads once and hands over every message that is complete. */
int nats_conn_read(struct nats_conn *conn, char ret_detail[NATS_DETAIL_MAX]);
/* Writes what the socket takes. */
void nats_conn_flush(struct nats_conn *conn);
/* Bytes that the library still holds; 0 on a connection that is lost. */
size_t nats_conn_unsent_bytes(struct nats_conn *conn);
/* True once every echo sent has come back: the server has then handled all that was published before the last. */
bool nats_conn_is_quiet(const struct nats_conn *conn);
/* -1 once the library has closed it. */
int nats_conn_fd(struct nats_conn *conn);
size_t nats_conn_max_payload(const struct nats_conn *conn);
const char *nats_conn_server_id(const struct nats_conn *conn);

#endif
