#include "common/log.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdio.h>

enum { CLOSE_REASON_MAX = 123 }; /* RFC 6455 section 5.5 */

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
