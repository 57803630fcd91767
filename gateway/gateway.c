#include "gateway/gateway.h"

#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    NOT_READY_RETRY_MS = 2000,
    RATE_RETRY_MS = 1000,
    NO_MEMORY_RETRY_MS = 5000,
    FULL_RETRY_MS = 10000,
    STRIKES_PER_MALFORMED = 20,
    CONNECTION_SHIFT = 24, /* leaves 40 random bits, which are short on the bus */
};

const struct gateway_limits gateway_default_limits = {
#define LIMIT(name, def, min, max, unit, help) .name = def,
#include "gateway/limits_table.h"
#undef LIMIT
};

struct gateway *gateway_new(const struct gateway_options *options, struct jwt_keyring *keyring,
                            const struct token_keys *token_keys, struct timer_wheel *wheel,
                            const struct gateway_actions *actions, void *ctx)
{
    struct gateway *gateway = mem_new(struct gateway);
    gateway->options = *options;
    gateway->keyring = jwt_keyring_ref(keyring);
    gateway->token_keys = *token_keys;
    gateway->wheel = wheel;
    gateway->actions = *actions;
    gateway->ctx = ctx;
    /* So that no connection is taken for one of the process that had this id before. */
    gateway->connection_counter = options->self.incarnation >> CONNECTION_SHIFT;
    list_init(&gateway->clients);
    list_init(&gateway->orphans);
    drain_init(gateway);
    resync_init(gateway);
    compare_init(gateway, wheel->now_ms);
    departed_init(gateway);
    arena_init(&gateway->arena, GATEWAY_ARENA_MAX);
    return gateway;
}

static void client_free(struct client *client)
{
    struct gateway *gateway = client->gateway;
    timer_cancel(gateway->wheel, &client->hello_timer);
    list_remove(&client->link);
    gateway->client_count--;
    gateway->sent_away_count -= client->sent_away;
    if (client->claims != NULL) {
        jwt_claims_done(client->claims);
        free(client->claims);
    }
    free(client);
}

void gateway_free(struct gateway **gateway_ptr)
{
    struct gateway *gateway = *gateway_ptr;
    if (gateway == NULL)
        return;
    struct session *session, *next;
    HASH_ITER(hh_connection, gateway->sessions, session, next)
        session_free(&session);
    list_for_each_safe(pos, &gateway->clients)
        client_free(container_of(pos, struct client, link));
    timer_cancel(gateway->wheel, &gateway->drain_timer);
    compare_done(gateway);
    timer_cancel(gateway->wheel, &gateway->resync_timer);
    revocations_done(&gateway->revocations);
    jwt_keyring_unref(&gateway->keyring);
    view_unref(&gateway->view);
    history_done(&gateway->history);
    arena_done(&gateway->arena);
    free(gateway);
    *gateway_ptr = NULL;
}

/* Ends the sessions whose access tokens were signed by a key that is there no more. */
static void end_revoked(struct gateway *gateway, int64_t now_ms)
{
    struct session *session, *next;
    HASH_ITER(hh_connection, gateway->sessions, session, next) {
        if (session->state == SESSION_DEPARTED || jwt_keyring_has(gateway->keyring, session->key_id))
            continue;
        struct client *client = session->client;
        session_depart(session, SIGNALBOX__V1__LEAVE_REASON__TOKEN_REVOKED, now_ms);
        if (client != NULL)
            client_end(client, CLOSE_TOKEN_REVOKED, SIGNALBOX__V1__LEAVE_REASON__TOKEN_REVOKED,
                       SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the key that signed the access token was withdrawn");
    }
}

void gateway_reconfigure(struct gateway *gateway, const struct gateway_options *options, struct jwt_keyring *keyring,
                         const struct token_keys *token_keys)
{
    struct jwt_keyring *old = gateway->keyring;
    gateway->options = *options;
    gateway->keyring = jwt_keyring_ref(keyring);
    jwt_keyring_unref(&old);
    gateway->token_keys = *token_keys;
    end_revoked(gateway, gateway->wheel->now_ms);
}

/* --- readiness and admission ------------------------------------------------------------------------------------- */

bool gateway_ready(const struct gateway *gateway, struct refusal *ret_refusal)
{
    const char *detail = NULL;
    if (gateway->draining)
        detail = "this gateway is draining; connect to another one";
    else if (!gateway->bus_up)
        detail = "this gateway has lost the cluster's message bus";
    else if (gateway->view == NULL || gateway->view->shard_count == 0)
        detail = "the cluster has no shards yet";
    else if (!gateway->reached)
        detail = "this gateway is not in the cluster's view yet"; /* shards would not listen to it */
    if (detail == NULL)
        return true;
    ret_refusal->http_status = 503;
    ret_refusal->close_code = CLOSE_OVERLOADED;
    ret_refusal->code = SIGNALBOX__V1__CODE__UNAVAILABLE;
    ret_refusal->retry_after_ms = NOT_READY_RETRY_MS;
    snprintf(ret_refusal->detail, sizeof ret_refusal->detail, "%s", detail);
    return false;
}

void gateway_shed(struct gateway *gateway, enum shed_level level)
{
    gateway->shed = level;
}

static struct bucket_limit join_limit(const struct gateway *gateway)
{
    uint32_t rate = gateway->capacity.joins_per_s;
    return (struct bucket_limit){.rate_per_s = rate, .burst = rate};
}

void gateway_set_capacity(struct gateway *gateway, const struct gateway_capacity *capacity, int64_t now_ms)
{
    gateway->capacity = *capacity;
    struct bucket_limit limit = join_limit(gateway);
    bucket_init(&gateway->join_rate, &limit, now_ms);
}

static bool defer_join(enum join_deferral reason, uint32_t retry_after_ms, const char *detail,
                       struct refusal *ret_refusal)
{
    if (reason == DEFERRED_MEMORY)
        metric_add_at(M_SHED, SHED_METRIC_JOIN, 1);
    else
        metric_add_at(M_JOINS_DEFERRED, (unsigned)reason, 1);
    *ret_refusal = (struct refusal){.http_status = 503,
                                    .close_code = CLOSE_OVERLOADED,
                                    .code = SIGNALBOX__V1__CODE__NO_CAPACITY,
                                    .retry_after_ms = retry_after_ms};
    snprintf(ret_refusal->detail, sizeof ret_refusal->detail, "%s", detail);
    return false;
}

bool gateway_admits(const struct gateway *gateway, struct refusal *ret_refusal)
{
    struct bucket_limit limit = join_limit(gateway);
    struct bucket rate = gateway->join_rate;
    if (gateway->shed >= SHED_JOINS)
        return defer_join(DEFERRED_MEMORY, NO_MEMORY_RETRY_MS,
                          "this gateway is short of memory; try another one, or later", ret_refusal);
    if (gateway->capacity.join_connections != 0 && gateway->client_count > gateway->capacity.join_connections)
        return defer_join(DEFERRED_CONNECTIONS, NO_MEMORY_RETRY_MS,
                          "this gateway has as many connections as it takes in; try another one, or later",
                          ret_refusal);
    if (limit.rate_per_s != 0 && !bucket_take(&rate, &limit, 1, gateway->wheel->now_ms))
        return defer_join(DEFERRED_RATE, RATE_RETRY_MS, "too many join at this moment; try again", ret_refusal);
    return true;
}

void gateway_join_begun(struct gateway *gateway)
{
    struct bucket_limit limit = join_limit(gateway);
    if (limit.rate_per_s != 0)
        bucket_force(&gateway->join_rate, &limit, 1, gateway->wheel->now_ms);
}

bool gateway_has_capacity(const struct gateway *gateway, const struct jwt_claims *claims, const char *room,
                          struct refusal *ret_refusal)
{
    char region[REGION_MAX + 1];
    room_region(room, region);
    if (!view_is_full(gateway->view, region))
        return true;
    struct room_key key = room_key_make(claims->project, room);
    struct gw_room *known;
    HASH_FIND(hh, gateway->rooms, &key, sizeof key, known);
    if (known != NULL)
        return true;
    *ret_refusal = (struct refusal){.http_status = 503,
                                    .close_code = CLOSE_NO_CAPACITY,
                                    .code = SIGNALBOX__V1__CODE__NO_CAPACITY,
                                    .retry_after_ms = FULL_RETRY_MS};
    snprintf(ret_refusal->detail, sizeof ret_refusal->detail, "%s",
             "every shard that could take this room is full for now");
    return false;
}

bool gateway_check_token(struct gateway *gateway, const char *token, size_t size, const char *room,
                         struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    return admission_check(gateway, token, size, room, ret_claims, ret_refusal);
}

/* --- clients ----------------------------------------------------------------------------------------------------- */

static void on_hello_timeout(struct timer *timer, int64_t now_ms)
{
    struct client *client = container_of(timer, struct client, hello_timer);
    client_end(client, CLOSE_HELLO_EXPECTED, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "no hello has come in time");
}

struct client *gateway_client_open(struct gateway *gateway, void *transport, struct jwt_claims *take_claims,
                                   int64_t now_ms)
{
    const struct gateway_limits *limits = &gateway->options.limits;
    struct client *client = mem_new(struct client);
    client->gateway = gateway;
    client->transport = transport;
    client->claims = take_claims;
    list_prepend(&gateway->clients, &client->link);
    gateway->client_count++;
    client_set_budget(client, 0, now_ms);
    timer_init(&client->hello_timer, on_hello_timeout);
    timer_set(gateway->wheel, &client->hello_timer, now_ms + limits->hello_timeout_ms);
    return client;
}

bool gateway_client_message(struct gateway *gateway, struct client *client, const Signalbox__V1__ClientMessage *message,
                            size_t size, int64_t now_ms)
{
    if (client->closing)
        return true;
    if (!client_within_budget(client, message, size, now_ms))
        return false;
    metric_add(M_CLIENT_MESSAGES, 1);
    struct session *session = client->session;
    if (message->body_case == SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO) {
        if (session != NULL)
            client_result(client, message->request_id, SIGNALBOX__V1__CODE__INVALID, 0,
                          "hello: this connection has said it already");
        else
            join_hello(client, message, now_ms);
    } else if (session == NULL) {
        client_end(client, CLOSE_HELLO_EXPECTED, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
                   SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the first message must be hello");
    } else if (session->state != SESSION_BOUND) {
        client_result(client, message->request_id, SIGNALBOX__V1__CODE__NOT_JOINED, 0,
                      "wait for hello_ok before sending more");
    } else {
        session_confirm(session, now_ms);
        return request_handle(client, message, now_ms);
    }
    return true;
}

void gateway_client_malformed(struct gateway *gateway, struct client *client, const char *error, int64_t now_ms)
{
    if (client->closing)
        return;
    metric_add(M_CLIENT_MALFORMED, 1);
    if (client->session == NULL) {
        client_end(client, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
                   SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, error);
        return;
    }
    if (!client_strike(client, STRIKES_PER_MALFORMED, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
                       now_ms))
        client_result(client, 0, SIGNALBOX__V1__CODE__INVALID, 0, error);
}

void gateway_client_overflow(struct gateway *gateway, struct client *client, uint32_t dropped_membership,
                             uint32_t dropped_ephemeral, int64_t now_ms)
{
    struct session *session = client->session;
    if (client->closing || session == NULL || !session->greeted)
        return;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Dropped dropped = SIGNALBOX__V1__DROPPED__INIT;
    Signalbox__V1__ClassCount counts[2] = {SIGNALBOX__V1__CLASS_COUNT__INIT, SIGNALBOX__V1__CLASS_COUNT__INIT};
    Signalbox__V1__ClassCount *list[2];
    counts[0].class_name = (char *)"p3_membership";
    counts[0].count = dropped_membership;
    counts[1].class_name = (char *)"p4_ephemeral";
    counts[1].count = dropped_ephemeral;
    for (size_t i = 0; i < 2; i++)
        if (counts[i].count > 0)
            list[dropped.n_counts++] = &counts[i];
    dropped.counts = list;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_DROPPED;
    message.dropped = &dropped;
    client_send(client, &message, CLASS_CONTROL);
    if (dropped_membership > 0 && session->sync != SYNC_WAITING)
        session_ask_snapshot(session, NULL, now_ms);
}

void gateway_client_gone(struct gateway *gateway, struct client **client_ptr, bool clean, int64_t now_ms)
{
    struct client *client = *client_ptr;
    if (client == NULL)
        return;
    struct session *session = client->session;
    client->session = NULL;
    if (session != NULL && clean && !client->closing)
        session_depart(session, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, now_ms);
    else if (session != NULL)
        session_detach(session, now_ms);
    client_free(client);
    *client_ptr = NULL;
}

bool gateway_leave_by_token(struct gateway *gateway, const char *text, size_t size, int64_t now_ms)
{
    struct resume_token token;
    int64_t wall_s = gateway->actions.wall_ms(gateway->ctx) / 1000;
    if (resume_token_open(&gateway->token_keys, text, size, wall_s, &token) != RESUME_TOKEN_OK)
        return false;
    struct session *session;
    HASH_FIND(hh_sid, gateway->sessions_by_sid, &token.sid, sizeof token.sid, session);
    if (session != NULL) {
        if (token.bind_generation != session->bind_generation)
            return true; /* of an earlier binding: says nothing about this one */
        struct client *client = session->client;
        session_depart(session, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, now_ms);
        if (client != NULL)
            client_end(client, 1000, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, SIGNALBOX__V1__LEAVE_ACTION__STOP, 0,
                       "left");
        return true;
    }
    /* Held by another gateway, or by none: the owner decides. */
    Signalbox__V1__Participant participant = SIGNALBOX__V1__PARTICIPANT__INIT;
    session = session_new(gateway, &token.sid, room_open(gateway, token.project, token.room), now_ms);
    participant.sid = session->sid_text;
    participant.identity = token.identity;
    session_set_participant(session, &participant);
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME;
    session->token_bind_generation = token.bind_generation;
    session->resume_window_ms = token.resume_window_ms;
    session_depart(session, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, now_ms);
    return true;
}

/* --- the cluster ------------------------------------------------------------------------------------------------- */

static void tell_degraded(struct gateway *gateway, bool degraded)
{
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Degraded body = SIGNALBOX__V1__DEGRADED__INIT;
    body.degraded = degraded;
    body.reason = (char *)"bus_lost";
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_DEGRADED;
    message.degraded = &body;
    struct outmsg *out = outmsg_pack(&message);
    list_for_each(pos, &gateway->clients) {
        struct client *client = container_of(pos, struct client, link);
        if (client->session != NULL && client->session->greeted && !client->closing)
            gateway->actions.send(gateway->ctx, client->transport, out, CLASS_CONTROL);
    }
    outmsg_unref(&out);
}

/* Something that went between this gateway and `shard` was lost: batches show by the positions of the rooms, a command
 * or an acknowledgement when the states are said again. */
static void add_to_resync(struct gateway *gateway, const struct node_address *shard)
{
    struct gw_room *room, *next_room;
    HASH_ITER(hh, gateway->rooms, room, next_room) {
        if (room->has_epoch && node_address_equal(&room->owner, shard))
            resync_add_room(room);
    }
    struct session *session, *next;
    HASH_ITER(hh_connection, gateway->sessions, session, next) {
        if (node_address_equal(&session->room->owner, shard))
            resync_add_session(session);
    }
}

static bool is_listed(const struct gateway *gateway)
{
    return gateway->view != NULL &&
           view_find_incarnation(gateway->view, NODE_GATEWAY, gateway->options.self.incarnation) != NULL;
}

/* Shards hear this gateway while it has the bus and is in their view. What was said before reached nobody. */
static void follow_reach(struct gateway *gateway, int64_t now_ms)
{
    bool reached = gateway->bus_up && is_listed(gateway);
    if (gateway->reached == reached)
        return;
    gateway->reached = reached;
    if (reached) {
        struct session *session, *next;
        HASH_ITER(hh_connection, gateway->sessions, session, next) {
            resync_drop_session(session);
        }
        /* Links show what was lost meanwhile; asking at once is faster than waiting for them. */
        for (size_t i = 0; i < gateway->view->shard_count; i++) {
            struct node_address shard = view_node_address(NODE_SHARD, &gateway->view->shards[i]);
            add_to_resync(gateway, &shard);
            revocations_ask(&gateway->revocations, &shard);
        }
        resync_begin(gateway, now_ms);
    }
    tell_degraded(gateway, !reached);
}

void gateway_view(struct gateway *gateway, struct view *view, int64_t now_ms)
{
    struct view *old = gateway->view;
    struct view_number since = old != NULL ? old->number : (struct view_number){0, 0};
    history_add(&gateway->history, view);
    if (old != NULL && view_number_compare(view->number, since) < 0)
        return; /* one that was missed: it tells who owned what */
    gateway->view = view_ref(view);
    revocations_view(&gateway->revocations, old, view, gateway->options.self.incarnation, now_ms);
    view_unref(&old);
    struct gw_room *room, *next;
    HASH_ITER(hh, gateway->rooms, room, next)
        handover_view(room, since, now_ms);
    resync_begin(gateway, now_ms);
    follow_reach(gateway, now_ms);
}

struct view_number gateway_reported(struct gateway *gateway)
{
    if (gateway->reporting_count == 0 && gateway->view != NULL)
        gateway->reported = gateway->view->number;
    return gateway->reported;
}

void gateway_rename(struct gateway *gateway, const struct node_address *self)
{
    gateway->options.self = *self;
    struct session *session, *next;
    HASH_ITER(hh_connection, gateway->sessions, session, next) {
        session_report(session);
    }
    resync_begin(gateway, gateway->wheel->now_ms);
    follow_reach(gateway, gateway->wheel->now_ms);
}

void gateway_bus(struct gateway *gateway, bool up, int64_t now_ms)
{
    gateway->bus_up = up;
    follow_reach(gateway, now_ms);
}

void gateway_gap(struct gateway *gateway, const struct node_address *from, int64_t now_ms)
{
    add_to_resync(gateway, from);
    revocations_ask(&gateway->revocations, from);
    resync_begin(gateway, now_ms);
}

static void on_relay(struct gateway *gateway, const Signalbox__Cluster__V1__Relay *relay)
{
    struct session *session = session_by_sid(gateway, relay->to);
    if (session == NULL || session->client == NULL || session->client->closing || !session->greeted) {
        metric_add(M_RELAYS_UNHEARD, 1);
        return; /* its sender repeats it until it is acknowledged */
    }
    struct outmsg *message = outmsg_from_bytes(relay->message.data, relay->message.len);
    enum message_class class = relay->class_ == CLASS_CANDIDATES ? CLASS_CANDIDATES : CLASS_NEGOTIATION;
    gateway->actions.send(gateway->ctx, session->client->transport, message, class);
    outmsg_unref(&message);
}

static void on_relay_failed(struct gateway *gateway, const struct node_address *from,
                            const Signalbox__Cluster__V1__RelayFailed *failed)
{
    struct session *session = session_by_sid(gateway, failed->from);
    if (session == NULL || session->client == NULL || !node_address_equal(&session->room->owner, from))
        return;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Undeliverable body = SIGNALBOX__V1__UNDELIVERABLE__INIT;
    route.peer = failed->to;
    body.reason = failed->reason;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_UNDELIVERABLE;
    message.undeliverable = &body;
    client_send(session->client, &message, CLASS_NEGOTIATION);
}

static void on_signal(struct gateway *gateway, const Signalbox__Cluster__V1__SignalUpdate *update)
{
    struct session *session = session_by_sid(gateway, update->to);
    if (session == NULL || session->client == NULL || session->client->closing || update->signal == NULL)
        return;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Signals signals = SIGNALBOX__V1__SIGNALS__INIT;
    Signalbox__V1__Signal *list[1] = {update->signal};
    signals.signals = list;
    signals.n_signals = 1;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS;
    message.signals = &signals;
    struct outmsg *out = outmsg_pack(&message);
    struct outmsg *own = interest_filters_signals(session) ? interest_filter(session, out) : outmsg_ref(out);
    if (own != NULL)
        gateway->actions.send(gateway->ctx, session->client->transport, own, CLASS_EPHEMERAL);
    outmsg_unref(&own);
    outmsg_unref(&out);
}

/* The owner has refused what this client asks of its room. Whoever keeps on asking is closed, as for its own budget. */
static void on_room_throttled(struct gateway *gateway, const struct node_address *from,
                              const Signalbox__Cluster__V1__RoomThrottled *throttled, int64_t now_ms)
{
    struct session *session = session_by_sid(gateway, throttled->sid);
    if (session == NULL || session->client == NULL || session->client->closing ||
        !node_address_equal(&session->room->owner, from))
        return;
    metric_add_at(M_THROTTLED, THROTTLED_ROOM, throttled->count);
    if (strcmp(throttled->budget, "p4_ephemeral") == 0)
        session->quiet_until_ms = now_ms + throttled->retry_after_ms;
    if (!client_strike(session->client, throttled->count, CLOSE_ABUSE, SIGNALBOX__V1__LEAVE_REASON__ABUSE, now_ms))
        client_tell_throttled(session->client, SIGNALBOX__V1__THROTTLED__SCOPE__ROOM, throttled->budget,
                              throttled->retry_after_ms);
}

static void on_room_send_ack(struct gateway *gateway, const Signalbox__Cluster__V1__RoomSendAck *ack)
{
    struct session *session = session_by_sid(gateway, ack->sid);
    if (session == NULL)
        return;
    if (ack->acked > session->room_send_acked)
        session->room_send_acked = ack->acked;
    if (session->client == NULL)
        return;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Ack body = SIGNALBOX__V1__ACK__INIT;
    route.ack = ack->acked;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_ACK;
    message.ack = &body;
    client_send(session->client, &message, CLASS_NEGOTIATION);
}

void gateway_item(struct gateway *gateway, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                  int64_t now_ms)
{
    switch (item->body_case) {
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_BATCH:
        room_batch(gateway, from, item->room_batch, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_RELAY:
        on_relay(gateway, item->relay);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_ACK:
        session_acked(gateway, from, item->session_ack, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_IDENTITY_TAKEN:
        session_identity_taken(gateway, from, item->identity_taken, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_COMMAND:
        session_command(gateway, from, item->session_command, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SYNC_REPLY:
        if (item->sync_reply->sid[0] == '\0')
            room_sync_reply(gateway, from, item->sync_reply, now_ms);
        else
            session_sync_reply(gateway, from, item->sync_reply, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_RELAY_FAILED:
        on_relay_failed(gateway, from, item->relay_failed);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SIGNAL:
        on_signal(gateway, item->signal);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_SEND_ACK:
        on_room_send_ack(gateway, item->room_send_ack);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_THROTTLED:
        on_room_throttled(gateway, from, item->room_throttled, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_EPOCH_CHANGE:
        handover_epoch(gateway, from, item->epoch_change, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_DIGEST:
        compare_listed(gateway, from, item->session_digest, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_REVOCATIONS:
        revocations_receive(&gateway->revocations, from, item->revocations, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__ITEM__BODY_NOT_OWNER:
        session_not_owner(gateway, item->not_owner, now_ms);
        break;
    default:
        metric_add(M_ITEMS_INVALID, 1);
        break;
    }
}

struct gateway_stats gateway_stats(const struct gateway *gateway)
{
    return (struct gateway_stats){.clients = gateway->client_count,
                                  .sessions = HASH_CNT(hh_connection, gateway->sessions),
                                  .orphans = gateway->orphan_count,
                                  .rooms = HASH_COUNT(gateway->rooms)};
}
