#include "common/log.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdio.h>

enum {
    CLOSE_REASON_MAX = 123, /* RFC 6455 section 5.5 */
    THROTTLED_TELL_MS = 100,
};

void client_send(struct client *client, const Signalbox__V1__ServerMessage *message, enum message_class class)
{
    if (client->closing)
        return;
    struct outmsg *out = outmsg_pack(message);
    client->gateway->actions.send(client->gateway->ctx, client->transport, out, class);
    outmsg_unref(&out);
}

void client_result(struct client *client, uint32_t request_id, Signalbox__V1__Code code, uint32_t retry_after_ms,
                   const char *text)
{
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Result result = SIGNALBOX__V1__RESULT__INIT;
    if (code != SIGNALBOX__V1__CODE__OK)
        metric_add_at(M_CLIENT_RESULTS, (unsigned)code <= SIGNALBOX__V1__CODE__UNAUTHENTICATED ? code : 0, 1);
    if (request_id == 0 && code == SIGNALBOX__V1__CODE__OK)
        return;
    result.request_id = request_id;
    result.code = code;
    result.retry_after_ms = retry_after_ms;
    result.message = (char *)text;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_RESULT;
    message.result = &result;
    client_send(client, &message, CLASS_NEGOTIATION);
}

uint16_t close_code_for(Signalbox__V1__LeaveReason reason, Signalbox__V1__LeaveAction action)
{
    switch (reason) {
    case SIGNALBOX__V1__LEAVE_REASON__REPLACED:
        return CLOSE_REPLACED;
    case SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY:
        return CLOSE_DUPLICATE_IDENTITY;
    case SIGNALBOX__V1__LEAVE_REASON__REMOVED:
        return CLOSE_REMOVED;
    case SIGNALBOX__V1__LEAVE_REASON__ROOM_CLOSED:
        return CLOSE_ROOM_CLOSED;
    case SIGNALBOX__V1__LEAVE_REASON__TOKEN_EXPIRED:
        return CLOSE_TOKEN_EXPIRED;
    case SIGNALBOX__V1__LEAVE_REASON__TOKEN_REVOKED:
        return CLOSE_TOKEN_REVOKED;
    case SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED:
    case SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED:
        return CLOSE_WINDOW_EXPIRED;
    case SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE:
        return CLOSE_SESSION_GONE;
    case SIGNALBOX__V1__LEAVE_REASON__CAPACITY:
        return CLOSE_NO_CAPACITY;
    case SIGNALBOX__V1__LEAVE_REASON__GATEWAY_DRAINING:
        return CLOSE_DRAINING;
    case SIGNALBOX__V1__LEAVE_REASON__SLOW_CONSUMER:
        return CLOSE_SLOW;
    case SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR:
        return CLOSE_PROTOCOL_ERROR;
    case SIGNALBOX__V1__LEAVE_REASON__ABUSE:
        return CLOSE_ABUSE;
    case SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT:
        return 1000;
    default:
        return action == SIGNALBOX__V1__LEAVE_ACTION__REJOIN ? CLOSE_SESSION_GONE : CLOSE_SERVER_ERROR;
    }
}

void client_end(struct client *client, uint16_t close_code, Signalbox__V1__LeaveReason reason,
                Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *text)
{
    if (client->closing)
        return;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    leave.reason = reason;
    leave.action = action;
    leave.retry_after_ms = retry_after_ms;
    leave.message = (char *)text;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_LEAVE;
    message.leave = &leave;
    client_send(client, &message, CLASS_CONTROL);
    client->closing = true;
    metric_add_at(M_CLIENTS_ENDED, (unsigned)reason <= SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE ? reason : 0, 1);
    char close_reason[CLOSE_REASON_MAX + 1];
    if (close_code >= CLOSE_OVERLOADED && close_code < CLOSE_SESSION_GONE)
        snprintf(close_reason, sizeof close_reason, "retry_after_ms=%u; %s", retry_after_ms, text);
    else
        snprintf(close_reason, sizeof close_reason, "%s", text);
    client->gateway->actions.close(client->gateway->ctx, client->transport, close_code, close_reason);
}

/* A configured limit as the client's token scales it; never scaled down to 0, which would mean unlimited. */
static uint32_t scaled(uint32_t limit, const struct client *client)
{
    uint64_t value = (uint64_t)limit * client->budget_percent / 100;
    return value == 0 ? 1 : value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static struct bucket_limit message_budget(const struct client *client)
{
    const struct gateway_limits *limits = &client->gateway->options.limits;
    return (struct bucket_limit){.rate_per_s = scaled(limits->messages_per_s, client),
                                 .burst = scaled(limits->messages_burst, client)};
}

static struct bucket_limit signal_budget(const struct client *client)
{
    const struct gateway_limits *limits = &client->gateway->options.limits;
    return (struct bucket_limit){.rate_per_s = scaled(limits->signals_per_s, client),
                                 .burst = scaled(limits->signals_burst, client)};
}

static struct bucket_limit byte_budget(const struct client *client)
{
    const struct gateway_limits *limits = &client->gateway->options.limits;
    return (struct bucket_limit){.rate_per_s = scaled(limits->bytes_per_s, client),
                                 .burst = scaled(limits->bytes_burst, client)};
}

void client_set_budget(struct client *client, uint32_t percent, int64_t now_ms)
{
    client->budget_percent = percent > 0 ? percent : CLIENT_BUDGET_PERCENT;
    struct bucket_limit messages = message_budget(client), signals = signal_budget(client), bytes = byte_budget(client);
    bucket_init(&client->messages, &messages, now_ms);
    bucket_init(&client->signals, &signals, now_ms);
    bucket_init(&client->bytes, &bytes, now_ms);
}

bool client_strike(struct client *client, uint32_t strikes, uint16_t close_code, Signalbox__V1__LeaveReason reason,
                   int64_t now_ms)
{
    int64_t decayed = (now_ms - client->strikes_updated_ms) / 1000;
    if (decayed > 0) {
        client->strikes -= decayed < client->strikes ? (uint32_t)decayed : client->strikes;
        client->strikes_updated_ms = now_ms;
    }
    client->strikes += strikes;
    if (client->strikes < client->gateway->options.limits.abuse_strikes)
        return false;
    struct session *session = client->session;
    client_end(client, close_code, reason, SIGNALBOX__V1__LEAVE_ACTION__STOP, 0,
               "kept on breaking the protocol or exceeding its budget");
    if (session != NULL)
        session_depart(session, reason, now_ms);
    return true;
}

void client_tell_throttled(struct client *client, Signalbox__V1__Throttled__Scope scope, const char *budget,
                           uint32_t retry_after_ms)
{
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Throttled throttled = SIGNALBOX__V1__THROTTLED__INIT;
    throttled.scope = scope;
    throttled.budget = (char *)budget;
    throttled.retry_after_ms = retry_after_ms;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_THROTTLED;
    message.throttled = &throttled;
    client_send(client, &message, CLASS_CONTROL);
}

static bool is_signal(const Signalbox__V1__ClientMessage *message)
{
    return message->body_case == SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND &&
           message->send->delivery == SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL;
}

/* Says so now and then to a client that keeps on, and to each request that wants an answer. */
static void refuse_over_budget(struct client *client, const Signalbox__V1__ClientMessage *message, unsigned budget,
                               uint32_t wait_ms, int64_t now_ms)
{
    static const char *const names[] = {
        [THROTTLED_MESSAGES] = "messages", [THROTTLED_BYTES] = "bytes", [THROTTLED_SIGNALS] = "signals"};
    metric_add_at(M_THROTTLED, budget, 1);
    if (is_signal(message))
        count_dropped(CLASS_EPHEMERAL, DROP_CLIENT_BUDGET, 1);
    if (client_strike(client, 1, CLOSE_ABUSE, SIGNALBOX__V1__LEAVE_REASON__ABUSE, now_ms))
        return;
    if (message->request_id != 0)
        client_result(client, message->request_id, SIGNALBOX__V1__CODE__THROTTLED, wait_ms,
                      "over this connection's budget; not carried out");
    if (client->throttled_ms != 0 && now_ms < client->throttled_ms + THROTTLED_TELL_MS)
        return;
    client->throttled_ms = now_ms;
    client_tell_throttled(client, SIGNALBOX__V1__THROTTLED__SCOPE__CONNECTION, names[budget], wait_ms);
}

bool client_within_budget(struct client *client, const Signalbox__V1__ClientMessage *message, size_t size,
                          int64_t now_ms)
{
    bool signal = is_signal(message);
    struct bucket_limit limit = signal ? signal_budget(client) : message_budget(client), bytes = byte_budget(client);
    struct bucket *bucket = signal ? &client->signals : &client->messages;
    uint32_t cost = (uint32_t)size;
    if (!bucket_take(bucket, &limit, 1, now_ms))
        refuse_over_budget(client, message, signal ? THROTTLED_SIGNALS : THROTTLED_MESSAGES,
                           bucket_wait_ms(bucket, &limit, 1, now_ms), now_ms);
    else if (!bucket_take(&client->bytes, &bytes, cost, now_ms))
        refuse_over_budget(client, message, THROTTLED_BYTES, bucket_wait_ms(&client->bytes, &bytes, cost, now_ms),
                           now_ms);
    else
        return true;
    return false;
}
