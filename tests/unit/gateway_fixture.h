/* A gateway under test in virtual time: clients and a shard are scripts, what the gateway sends to either is recorded,
 * unpacked. */
#ifndef SBX_TESTS_GATEWAY_FIXTURE_H
#define SBX_TESTS_GATEWAY_FIXTURE_H

#include "common/arena.h"
#include "common/epoch.h"
#include "gateway/gateway.h"
#include <check.h>
#include <jansson.h>

typedef Signalbox__Cluster__V1__Item Item;
typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__Cluster__V1__SessionAck Ack;
typedef Signalbox__V1__ClientMessage Request;
typedef Signalbox__V1__ServerMessage Message;
typedef Signalbox__V1__Participant Participant;
typedef Signalbox__V1__Join Join;

enum { CLIENTS = 16, JOIN = 1, RESUME = 2, HOLD = 3, ATTACHED = 1, DETACHED = 2, DEPARTED = 3, TOKEN_TTL_S = 3600 };

#define FIXTURE_SECRET "a secret of the tests, long enough to be one"
#define BODY(name) SIGNALBOX__V1__SERVER_MESSAGE__BODY_##name
#define ITEM(name) SIGNALBOX__CLUSTER__V1__ITEM__BODY_##name
#define REQUEST(name) SIGNALBOX__V1__CLIENT_MESSAGE__BODY_##name
#define CODE(name) SIGNALBOX__V1__CODE__##name
#define REASON(name) SIGNALBOX__V1__LEAVE_REASON__##name
#define ACTION(name) SIGNALBOX__V1__LEAVE_ACTION__##name

struct received {
    int client;
    enum message_class class;
    struct outmsg *raw;
    Message *message;
};

struct fixture_client {
    struct client *client; /* NULL: no connection */
    bool closed;
    uint16_t close_code;
    char close_reason[128];
    /* Once joined. */
    char sid[SID_TEXT_SIZE + 1];
    uint64_t connection;
    char resume_token[1025];
};

struct sent {
    struct node_address to;
    Item *item;
};

struct fixture {
    struct timer_wheel wheel;
    int64_t now_ms;
    int64_t wall_step_ms; /* by which somebody has set the wall clock */
    struct gateway_options options;
    struct jwt_keyring *keyring;
    struct token_keys token_keys;
    struct gateway *gateway;
    struct view *view;
    struct node_address shard; /* the only one, and so every room's owner */
    struct epoch epoch;
    uint64_t seq; /* of the last join that was acknowledged */
    struct fixture_client clients[CLIENTS];
    struct received *received;
    size_t received_count;
    struct sent *sent;
    size_t sent_count;
    struct arena arena; /* what was sent and received, for the whole test */
};

/* The bus is up, and the view has one shard. Defaults for NULL. */
void fixture_open(struct fixture *fixture, const struct gateway_limits *limits);
void fixture_close(struct fixture *fixture);
void fixture_advance(struct fixture *fixture, int64_t ms);
/* A new view in which another shard owns every room. */
void fixture_next_owner(struct fixture *fixture);
void fixture_deliver(struct fixture *fixture, const Item *item);
int64_t fixture_wall_s(const struct fixture *fixture);

/* An access token of the key "key". `grants` (may be NULL) is stolen and laid over {roomJoin, room}. */
char *mint(const struct fixture *fixture, const char *identity, const char *room, json_t *grants);

int connect_client(struct fixture *fixture);
/* The connection goes, `clean` with code 1000. */
void disconnect_client(struct fixture *fixture, int client, bool clean);
void request(struct fixture *fixture, int client, Request *message);
void hello_token(struct fixture *fixture, int client, const char *token, Join *join);
void hello_resume(struct fixture *fixture, int client, const char *token, Signalbox__V1__Position *last);

/* What the owner answers to a state; to be changed before it is delivered. Static memory. */
Ack *make_ack(struct fixture *fixture, const State *state);
void deliver_ack(struct fixture *fixture, const Ack *ack);
/* ... that carries a one-page snapshot, as the first one of a connection does. */
void bind_session(struct fixture *fixture, const State *state, uint64_t bind_generation, uint64_t seq);
/* A client that has joined and been greeted. */
int join_client(struct fixture *fixture, const char *identity, const char *room, json_t *grants);
/* A batch of room events, whose one message event says `text`. */
void deliver_events(struct fixture *fixture, const char *room, uint64_t first_seq, uint64_t last_seq, const char *text);
ProtobufCBinaryData pack_message(const Message *message);
ProtobufCBinaryData pack_events(struct fixture *fixture, uint64_t first_seq, uint64_t last_seq, const char *text);
ProtobufCBinaryData pack_snapshot(struct fixture *fixture, uint64_t seq, const char *next_cursor);
ProtobufCBinaryData key_data(const char *room);

/* The n-th thing of a kind since `since`; NULL if there are not so many. */
const Message *received(const struct fixture *fixture, size_t since, int client, int body_case, int n);
const Item *sent(const struct fixture *fixture, size_t since, int body_case, int n);
int received_count(const struct fixture *fixture, size_t since, int client, int body_case);
int sent_count(const struct fixture *fixture, size_t since, int body_case);
/* The last state said of a client's session. */
const State *last_state(const struct fixture *fixture, int client);
const State *newest_state(const struct fixture *fixture);
/* The newest result with this request id; NULL if there is none. */
const Signalbox__V1__Result *result_of(const struct fixture *fixture, int client, uint32_t request_id);
void assert_closed(const struct fixture *fixture, int client, uint16_t code, int reason, int action);

#endif
