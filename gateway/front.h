/* The clients' listener: TCP, PROXY protocol, TLS, HTTP, the WebSocket upgrade, static files. Everything that touches
 * H2O and sockets on the client side is behind this header; decisions are the gateway's (gateway/gateway.h).
 *
 *   GET  /v1/connect   WebSocket upgrade (subprotocols signalbox.v1.protobuf, signalbox.v1.json); an access token may
 *                      come with it: Authorization: Bearer, the subprotocol signalbox.token.<JWT>, or ?access_token=
 *   POST /v1/leave     a resume token as text/plain: leaves at once (navigator.sendBeacon)
 *   GET  /sdk/... /demo/...   static files from client.web_root
 *   POST /demo/token   only with demo.enabled: exchanges an invite, which is an access token, for one with a fresh
 *                      identity: {"invite", "room", "name"} (the last two optional) -> {"token", "identity", "room"}
 *   GET  /             a short text, or a redirect to /demo/ when the demo is enabled
 *
 * Refusals before the upgrade are HTTP statuses with an application/problem+json body (RFC 9457); 429 and 503 carry
 * Retry-After.
 *
 * Threading: loop thread.
 */
#ifndef SBX_GATEWAY_FRONT_H
#define SBX_GATEWAY_FRONT_H

#include "common/config.h"
#include "common/loop.h"
#include "gateway/forwarded.h"
#include "gateway/gateway.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct front;

struct front_demo_key {
    const char *key_id, *secret; /* of the project whose tokens are invites */
};

/* What is pointed to is borrowed until front_close() or the next front_reload(). */
struct front_options {
    const char *listen;   /* "address:port" or "[v6]:port" */
    const char *web_root; /* NULL: no files */
    bool tls;
    const char *certificate_file, *key_file;
    const char *ticket_secret;          /* shared by all gateways; NULL: each has its own TLS session tickets */
    const char *previous_ticket_secret; /* whose tickets are still good; NULL: none */
    const struct config_strings *allowed_origins;
    bool proxy_protocol; /* every connection begins with a PROXY header (v2), from trusted_proxies alone */
    const struct config_strings *trusted_proxies; /* CIDRs whose PROXY header or forwarding header counts */
    enum forwarded_form forwarded_form;           /* which header those proxies write */
    int64_t max_connections;                      /* cut to what the descriptor limit allows */
    int64_t handshakes_per_s;                     /* accepted at most; 0 = unlimited */
    int64_t handshakes_per_address_per_s;         /* IPv6 by /64; 0 = unlimited */
    int64_t connections_per_address;              /* likewise */
    uint32_t message_bytes;
    uint32_t queue_bytes;      /* what may wait for one connection */
    uint32_t ping_interval_ms; /* of silence, before the server sends a WebSocket ping */
    uint32_t ping_timeout_ms;  /* for anything at all to come back */
    bool demo;
    const struct front_demo_key *demo_keys;
    size_t demo_key_count;
};

/* NULL with a text in `error` that says what, where and what to do. The gateway must outlive the front. */
struct front *front_open(struct loop *loop, const struct front_options *options, struct gateway *gateway, char *error,
                         size_t error_size);
/* Closes the listener; connections stay. */
void front_stop_accepting(struct front *front);
/* Closes every connection with 1001, then frees. After loop_run() has returned, because it turns H2O's loop itself to
 * let connections end; takes two seconds at most. */
void front_close(struct front **front);
/* SIGHUP: new certificate and limits for new connections; the old ones stay in force on an error (-1). The address, the
 * files, the demo's being there and max_connections stay as they were opened. */
int front_reload(struct front *front, const struct front_options *options, char *error, size_t error_size);
unsigned front_port(const struct front *front);
/* Connections of whatever kind that it holds at most. */
size_t front_connections_max(const struct front *front);
/* WebSocket connections. */
size_t front_connections(const struct front *front);
/* Bytes that wait in all connections' queues, and messages. */
size_t front_queued_bytes(const struct front *front);
size_t front_queued_messages(const struct front *front);

/* Gives up what waits in the queues: from SHED_EPHEMERAL on signals, at SHED_SLOWEST the slowest connections. */
void front_shed(struct front *front, enum shed_level level, uint64_t used_bytes, uint64_t ceiling_bytes);

/* The send and close of struct gateway_actions; `transport` is what front passed to gateway_client_open(). Neither
 * calls back into the gateway before it has returned to the loop. */
void front_send(void *transport, struct outmsg *message, enum message_class class);
void front_close_client(void *transport, uint16_t code, const char *reason);

#endif
