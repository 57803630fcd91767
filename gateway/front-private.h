/* The inside of the front: one struct conn for the whole life of an accepted socket.
 *
 *   accept.c      accept, limits, PROXY header, TLS handshake, handing over to H2O's HTTP/1
 *   http_api.c    the routes, up to the upgrade
 *   conn.c        the WebSocket: frames in and out, closing
 *   conn_upkeep.c pings, and what is given up when memory is short
 *   front.c       the listener, H2O's configuration, reload, the end
 *
 * A struct conn is freed by conn_on_socket_close(), which H2O calls when the socket is gone, and nowhere else. Since a
 * TLS socket may still be sending its close_notify after h2o_socket_close(), that can be at once or later: nothing of
 * a conn is touched after it has been shut.
 */
#ifndef SBX_GATEWAY_FRONT_PRIVATE_H
#define SBX_GATEWAY_FRONT_PRIVATE_H

#include "common/arena.h"
#include "common/bucket.h"
#include "common/give_back.h"
#include "gateway/front.h"
#include "gateway/net_address.h"
#include "gateway/outqueue.h"
#include "gateway/peers.h"
#include "gateway/ws.h"
#include <h2o.h>
#include <h2o/http1.h>

struct front {
    struct loop *loop;
    struct gateway *gateway;
    struct front_options options;
    struct outqueue_limits queue_limits;
    struct net_blocks trusted;
    struct peers *peers;

    h2o_socket_t *listener; /* NULL once it is closed */
    unsigned port;
    struct timer resume_accept;
    size_t sockets_max;
    struct bucket accept_rate;

    SSL_CTX *tls; /* NULL in plain mode */
    h2o_globalconf_t config;
    h2o_context_t context;
    h2o_accept_ctx_t accept; /* its ssl_ctx is not used: handshakes are ours */

    struct list conns;
    size_t socket_count, websocket_count;
    struct give_back give_back; /* of sockets */
    struct list dirty;          /* conns that have something to write, or to tell */
    struct list crowded;        /* likewise, but nothing else than what a whole crowd is sent */
    struct list resting;        /* conns that were over a budget, and are not read from until the timer runs out */
    struct timer rest_timer;
    struct loop_task flush;
    struct buf scratch; /* what one write is gathered in */
    struct arena arena; /* the message being decoded */
    size_t queued_bytes, queued_messages;
};

enum conn_phase {
    CONN_PROXY_HEADER,
    CONN_TLS,
    CONN_HTTP,      /* H2O's; so is sock->data */
    CONN_UPGRADING, /* the 101 is on its way */
    CONN_OPEN,
    CONN_CLOSING,   /* our close frame is queued or sent; the client's is awaited, or was what began it */
    CONN_LINGERING, /* failed, our close frame is out: what still arrives is thrown away */
    CONN_SHUT,      /* h2o_socket_close() was called */
};

struct upgrade;

/* What a message to a whole crowd touches of each of its connections comes first, and together. */
struct conn {
    struct front *front;
    uint8_t phase; /* enum conn_phase */
    uint8_t encoding;
    bool in_crowd;      /* `dirty` is on front->crowded */
    bool paused;        /* not reading, because too much waits to be written */
    bool exempt;        /* the peer is a trusted proxy, whose clients are counted one by one */
    bool requested : 1; /* a request has been routed */
    bool probed : 1;    /* the kernel can look whether it can be reached */
    bool probing : 1;   /* ... and does at the moment */
    bool ping_sent : 1, ping_due : 1, clean : 1, failed : 1, peer_closed : 1, close_sent : 1;
    struct list dirty; /* front->dirty or front->crowded */
    struct outqueue queue;
    struct outqueue_drops drops; /* not yet told to the gateway */
    h2o_socket_t *sock;
    union {
        SSL_CTX *tls;            /* CONN_TLS: a reference, because H2O holds none until the first bytes arrive */
        struct upgrade *upgrade; /* CONN_UPGRADING */
        struct client *client;   /* from CONN_OPEN on; NULL once the gateway has been told that it is gone */
    };
    struct list rest;      /* front->resting */
    struct payload *pong;  /* the answer to the latest ping */
    struct payload *close; /* the close frame, sent after the queue */
    void *writing;         /* plain mode: what H2O is writing */

    struct list link;   /* front->conns */
    struct peer *peer;  /* what it counts against; NULL while that is not known */
    struct timer timer; /* what it is for depends on the phase */
    struct ws_parser parser;
    struct bucket control_budget;
    int64_t alive_ms; /* when the client was last heard, or, while it is not read from, last took something */
};

/* Positions in M_WS_CLOSED's label. */
enum close_cause {
    CAUSE_CLIENT_LEFT,
    CAUSE_CLIENT_CLOSED,
    CAUSE_LOST,
    CAUSE_GATEWAY,
    CAUSE_SLOW,
    CAUSE_PING_TIMEOUT,
    CAUSE_PROTOCOL_ERROR,
    CAUSE_ABUSE,
    CAUSE_SHUTDOWN,
};

/* H2O limits how long a request may take, but not how long an answer waits to be read. */
enum { CONN_HTTP_SILENCE_MAX_MS = 60000 };

/* front.c */
void front_socket_opened(struct front *front);
void front_socket_gone(struct front *front);

/* accept.c */
void conn_accept(struct front *front, h2o_socket_t *sock);
void conn_on_socket_close(void *conn);
/* Counts the connection against `address`; false if that may have no more, which has been counted. */
bool conn_enter(struct conn *conn, const struct net_address *address);
void conn_set_timer(struct conn *conn, int64_t after_ms);
/* Ends the connection in both directions, so that whoever waits for the socket (H2O's HTTP, a close_notify) sees it. */
void conn_break(const struct conn *conn);

/* http_api.c */
void http_api_register(struct front *front, h2o_hostconf_t *host);
/* The connection went away while the 101 was on its way. */
void http_api_abandon(struct upgrade *upgrade);

/* conn.c */
/* `sock` has been handed over by H2O, with its unread input. */
void conn_open(struct conn *conn, enum encoding encoding, struct jwt_claims *take_claims);
void conn_on_timer(struct conn *conn);
void conn_flush_all(struct front *front);
void conn_end_rests(struct timer *timer, int64_t now_ms);
int64_t conn_now_ms(const struct conn *conn);
/* It has something to write, or to tell. */
void conn_mark_dirty(struct conn *conn);
/* Brings the front's totals up to date with what the queue held before. */
void conn_account(struct conn *conn, size_t bytes_before, size_t count_before);
void conn_close_with(struct conn *conn, uint16_t code, const char *reason, enum close_cause cause);
/* What waits for it is dropped. */
void conn_close_slow(struct conn *conn);

/* conn_upkeep.c */
/* Lets the kernel look whether an idle client can be reached, while the programs of both ends sleep on. Only when it is
 * told to, and it never judges: its own timers would ask thousands at one moment, more than a queue of packets holds,
 * and end the connections whose packets were dropped. False where it cannot: behind a proxy it would find the proxy. */
bool conn_prepare_probes(const struct conn *conn);
/* The timer of an open connection. Waits longest for the last of the messages that it could have been about, so that a
 * busy client costs no pings. */
void conn_keep_alive(struct conn *conn);
/* Gives up what the level says, the slowest connections as far as needed. */
void conn_shed_all(struct front *front, enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes);
/* The whole front is going away: says so to a WebSocket client, ends everything else. */
void conn_shutdown(struct conn *conn);
/* At once, whatever is unsent. */
void conn_cut(struct conn *conn);

/* Positions in the metrics' labels. */
enum { ACCEPT_ACCEPTED, ACCEPT_ADDRESS_CONNECTIONS, ACCEPT_ADDRESS_RATE };
enum {
    UPGRADE_ADDRESS_BUSY = WS_HANDSHAKE_BAD_SUBPROTOCOL + 1,
    UPGRADE_NOT_READY,
    UPGRADE_TOKEN_REFUSED,
    UPGRADE_LOST
};
enum { ROUTE_CONNECT, ROUTE_LEAVE, ROUTE_DEMO_TOKEN, ROUTE_FILE, ROUTE_ROOT, ROUTE_OTHER, ROUTE_MALFORMED };

#endif
