/* The gateway's decisions: clients, their sessions, and the rooms that they are in. Knows connections and no room
 * logic.
 *
 * Free of I/O: client messages, bus items, views and time come in as calls; frames for clients and items for shards go
 * out through gateway_actions. The same code runs behind real sockets and in the simulator.
 *
 * A gateway holds the *wanted state* of each of its sessions and repeats it to the room's owner until the owner has
 * acknowledged that version; whatever the bus loses costs a repeat. Of each room that it has members of it knows the
 * owner and the position up to which it has seen every event; a gap is asked for.
 *
 * Threading: loop thread. No call is made into gateway_actions for a client after client_gone() for it.
 */
#ifndef SBX_GATEWAY_GATEWAY_H
#define SBX_GATEWAY_GATEWAY_H

#include "common/jwt.h"
#include "common/link.h"
#include "common/timer.h"
#include "common/token.h"
#include "common/view.h"
#include "gateway/outmsg.h"
#include "gateway/shed.h"
#include "proto/client.pb-c.h"
#include "proto/cluster.pb-c.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gateway;
struct client;

/* docs/PROTOCOL.md, "Close codes". */
enum close_code {
    CLOSE_SLOW = 4000,
    CLOSE_DRAINING = 4001,
    CLOSE_SERVER_ERROR = 4002,
    CLOSE_PING_TIMEOUT = 4003,
    CLOSE_OVERLOADED = 4100,
    CLOSE_NO_CAPACITY = 4101,
    CLOSE_SESSION_GONE = 4200,
    CLOSE_WINDOW_EXPIRED = 4201,
    CLOSE_REMOVED = 4300,
    CLOSE_REPLACED = 4301,
    CLOSE_DUPLICATE_IDENTITY = 4302,
    CLOSE_ROOM_CLOSED = 4303,
    CLOSE_TOKEN_EXPIRED = 4304,
    CLOSE_TOKEN_REVOKED = 4305,
    CLOSE_PROTOCOL_ERROR = 4306,
    CLOSE_ABUSE = 4307,
    CLOSE_UNAUTHENTICATED = 4308,
    CLOSE_FORBIDDEN = 4309,
    CLOSE_HELLO_EXPECTED = 4310,
};

/* What one client may do; gateway/limits_table.h says what each means. */
struct gateway_limits {
#define LIMIT(name, def, min, max, unit, help) uint32_t name;
#include "gateway/limits_table.h"
#undef LIMIT
};

extern const struct gateway_limits gateway_default_limits;

struct gateway_turn {
    char **urls; /* borrowed from the configuration */
    size_t url_count;
    const char *secret; /* NULL: no credentials, URLs alone (STUN) */
    uint32_t ttl_s;
};

struct gateway_options {
    struct node_address self;
    struct score_seed seed;
    struct gateway_limits limits;
    struct gateway_turn turn;
    char **alternates; /* base URLs of other gateways, for `reconnect`; borrowed from the configuration */
    size_t alternate_count;
};

struct gateway_actions {
    /* Queues a message for the client, in its class; takes a reference of its own. */
    void (*send)(void *ctx, void *transport, struct outmsg *message, enum message_class class);
    /* Closes once what is queued has been written. client_gone() follows, later. */
    void (*close)(void *ctx, void *transport, uint16_t code, const char *reason);
    /* Takes a reference of its own. */
    void (*to_shard)(void *ctx, const struct node_address *shard, struct payload *item);
    /* Wall clock, for token expiry. */
    int64_t (*wall_ms)(void *ctx);
};

struct gateway *gateway_new(const struct gateway_options *options, struct jwt_keyring *keyring,
                            const struct token_keys *token_keys, struct timer_wheel *wheel,
                            const struct gateway_actions *actions, void *ctx);
void gateway_free(struct gateway **gateway);
/* After SIGHUP: new keys and limits apply from now on; sessions of a key that is there no more end. */
void gateway_reconfigure(struct gateway *gateway, const struct gateway_options *options, struct jwt_keyring *keyring,
                         const struct token_keys *token_keys);

/* What is wrong with a token, for the HTTP answer before the upgrade and for the close after it. */
struct refusal {
    int http_status;
    uint16_t close_code;
    Signalbox__V1__Code code;
    uint32_t retry_after_ms;
    char detail[256];
};

/* Checks an access token and its right to join `room` ("" or NULL: the token's). */
bool gateway_check_token(struct gateway *gateway, const char *token, size_t size, const char *room,
                         struct jwt_claims *ret_claims, struct refusal *ret_refusal);
/* The same for an invite of the demo, which lacks an identity. */
bool gateway_check_invite(struct gateway *gateway, const char *token, size_t size, const char *room,
                          struct jwt_claims *ret_claims, struct refusal *ret_refusal);
/* What is to be given up for want of memory (gateway/shed.h); stays in force until the next call. */
void gateway_shed(struct gateway *gateway, enum shed_level level);
/* What new sessions may take of this process; the rest is kept for those who come back. 0 = unlimited. */
struct gateway_capacity {
    size_t join_connections;
    uint32_t joins_per_s;
};
void gateway_set_capacity(struct gateway *gateway, const struct gateway_capacity *capacity, int64_t now_ms);
/* Whether a new session can be taken now, as far as memory and capacity go; a resume always can. */
bool gateway_admits(const struct gateway *gateway, struct refusal *ret_refusal);
/* Whether new connections can be served now: has a view with shards, bus up, not draining. */
bool gateway_ready(const struct gateway *gateway, struct refusal *ret_refusal);
/* Whether a new session could be taken into this room: not while every shard that could own it is full, unless it has
 * members here already. The gateway is ready. */
bool gateway_has_capacity(const struct gateway *gateway, const struct jwt_claims *claims, const char *room,
                          struct refusal *ret_refusal);

/* A WebSocket connection is open. `claims` (may be NULL) came with the upgrade request and is taken over. */
struct client *gateway_client_open(struct gateway *gateway, void *transport, struct jwt_claims *take_claims,
                                   int64_t now_ms);
/* `size` is what the message took on the wire, for the byte budget. False if the client was over a budget: what else it
 * has sent does well to wait unread for a moment. */
bool gateway_client_message(struct gateway *gateway, struct client *client, const Signalbox__V1__ClientMessage *message,
                            size_t size, int64_t now_ms);
/* A message that could not be decoded: answered with a result, closed when it happens again and again. */
void gateway_client_malformed(struct gateway *gateway, struct client *client, const char *error, int64_t now_ms);
/* Messages to the client gave way because it does not read fast enough: with membership among them its roster is
 * incomplete until it has pulled a snapshot. Never called from within send(). */
void gateway_client_overflow(struct gateway *gateway, struct client *client, uint32_t dropped_membership,
                             uint32_t dropped_ephemeral, int64_t now_ms);
/* The connection is gone; `clean` = the client closed it with code 1000, which means that it leaves. */
void gateway_client_gone(struct gateway *gateway, struct client **client, bool clean, int64_t now_ms);
/* POST /v1/leave: a page's last word. False if the token is not a valid resume token. */
bool gateway_leave_by_token(struct gateway *gateway, const char *token, size_t size, int64_t now_ms);

void gateway_view(struct gateway *gateway, struct view *view, int64_t now_ms);
/* The newest view up to which every session that a new owner must know of has been reported and acknowledged. */
struct view_number gateway_reported(struct gateway *gateway);
/* This gateway goes on as another incarnation: it reports all of its sessions. */
void gateway_rename(struct gateway *gateway, const struct node_address *self);
/* Clients are told `degraded` while the bus is lost or this gateway is not in the view. */
void gateway_bus(struct gateway *gateway, bool up, int64_t now_ms);
void gateway_item(struct gateway *gateway, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                  int64_t now_ms);
void gateway_gap(struct gateway *gateway, const struct node_address *from, int64_t now_ms);
/* Takes no new clients and tells those that it has, paced over `spread_ms`, to resume elsewhere. Each keeps its
 * connection until it has gone; who is still there after `deadline_ms` is closed, to be resumed. Where the view has no
 * other gateway, each is closed in its turn. */
void gateway_drain(struct gateway *gateway, uint32_t spread_ms, uint32_t deadline_ms, int64_t now_ms);
/* No clients any more, and nothing that an owner has yet to acknowledge. */
bool gateway_drained(const struct gateway *gateway);

struct gateway_stats {
    size_t clients, sessions, orphans, rooms; /* orphans: sessions without a client */
};
struct gateway_stats gateway_stats(const struct gateway *gateway);

#endif
