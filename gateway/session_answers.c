/* What the owner says of sessions: acknowledgements, commands, and what was asked for to catch up. */
#include "common/metrics.h"
#include "gateway/internal.h"
#include <string.h>

/* Hands packed messages of an acknowledgement or a sync reply to the client. */
static void deliver(struct session *session, const ProtobufCBinaryData *messages, size_t count)
{
    if (session->client == NULL || session->client->closing)
        return;
    for (size_t i = 0; i < count; i++) {
        struct outmsg *message = outmsg_from_bytes(messages[i].data, messages[i].len);
        session->gateway->actions.send(session->gateway->ctx, session->client->transport, message, CLASS_MEMBERSHIP);
        outmsg_unref(&message);
    }
}

/* Events that this gateway may not have had: it had nobody in the room when they were new. */
static void deliver_replay(struct session *session, const ProtobufCBinaryData *messages, size_t count, int64_t now_ms)
{
    for (size_t i = 0; i < count; i++)
        departed_note(session->room, &messages[i], now_ms);
    deliver(session, messages, count);
}

/* The room's traffic flows again; what has passed since the session's position is asked for. */
static void resume_flow(struct session *session, int64_t now_ms)
{
    struct gw_room *room = session->room;
    session->sync = SYNC_LIVE;
    /* In a later epoch than the room here: that is catching up, and looks after its sessions then. */
    if (!session->has_position || epoch_compare(&session->epoch, &room->epoch) < 0)
        session_ask_snapshot(session, NULL, now_ms);
    else if (epoch_equal(&session->epoch, &room->epoch) && room->seq > session->seq)
        session_ask_events(session, now_ms);
}

/* What was delivered has brought the client to (epoch, seq), or will when it has pulled the other pages. */
static void take_position(struct session *session, const struct epoch *epoch, uint64_t seq, bool more_pages,
                          int64_t now_ms)
{
    session->epoch = *epoch;
    session->seq = seq;
    session->has_position = !more_pages;
    if (more_pages)
        session->sync = SYNC_PAGING;
    else
        resume_flow(session, now_ms);
}

/* The same session has a newer connection here, which has its place now. */
static void end_replaced(struct session *session)
{
    struct client *client = session->client;
    session_free(&session);
    if (client != NULL)
        client_end(client, CLOSE_REPLACED, SIGNALBOX__V1__LEAVE_REASON__REPLACED, SIGNALBOX__V1__LEAVE_ACTION__STOP, 0,
                   "the session was resumed on a newer connection");
}

/* False if the newer connection's acknowledgement has come first: the session is over. */
static bool register_sid(struct session *session)
{
    struct gateway *gateway = session->gateway;
    struct session *other;
    HASH_FIND(hh_sid, gateway->sessions_by_sid, &session->sid, sizeof session->sid, other);
    if (other == session)
        return true;
    if (other != NULL && other->connection > session->connection) {
        end_replaced(session);
        return false;
    }
    if (other != NULL) {
        session->room_send_acked = other->room_send_acked;
        end_replaced(other);
    }
    HASH_ADD(hh_sid, gateway->sessions_by_sid, sid, sizeof session->sid, session);
    session->by_sid = true;
    return true;
}

static void refused(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack)
{
    struct client *client = session->client;
    bool joining = session->state == SESSION_JOINING, counts = joining && !session->hello_counted;
    if (counts)
        metric_add_at(M_JOINS, JOIN_REFUSED, 1);
    if (client != NULL && joining && client->hello_request_id != 0)
        client_result(client, client->hello_request_id, ack->code, ack->retry_after_ms, ack->detail);
    uint16_t code =
        ack->code == SIGNALBOX__V1__CODE__LIMIT_REACHED ? CLOSE_FORBIDDEN : close_code_for(ack->reason, ack->action);
    if (counts && session->token_bind_generation != 0)
        metric_add_at(M_RECONNECTS, client != NULL ? reconnect_outcome_of(code) : RECONNECT_ABANDONED, 1);
    session_free(&session);
    if (client == NULL)
        return;
    client_end(client, code, ack->reason, ack->action, ack->retry_after_ms, ack->detail);
}

static void count_bound(const struct session *session, bool recovered, int64_t now_ms)
{
    bool resuming = session->token_bind_generation != 0;
    if (session->hello_counted)
        return;
    metric_add_at(M_JOINS, !resuming ? JOIN_OK : recovered ? JOIN_RECOVERED : JOIN_RESUMED, 1);
    metric_observe_us(resuming ? M_RESUME_LATENCY : M_JOIN_LATENCY, (now_ms - session->started_ms) * 1000);
    if (resuming)
        metric_add_at(M_RECONNECTS,
                      session->client == NULL ? RECONNECT_ABANDONED
                      : recovered             ? RECONNECT_RECOVERED
                                              : RECONNECT_RESUMED,
                      1);
}

static void bound(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms)
{
    session->state = SESSION_BOUND;
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD;
    session->join_epoch = epoch_from_proto(ack->join_epoch);
    session->join_seq = ack->join_seq;
    session->joined_at_ms = ack->joined_at_ms;
    if (ack->grants_version > session->grants_version)
        session->grants_version = ack->grants_version;
    if (ack->participant != NULL) {
        bool forbidden = grants_drop_tracks(ack->participant);
        if (forbidden)
            session_change_participant(session, ack->participant, now_ms);
        else
            session_set_participant(session, ack->participant);
    }
    count_bound(session, ack->recovered, now_ms);
    if (session->client == NULL)
        return;
    session_arm_expiry(session, now_ms);
    join_greet(session, ack, now_ms);
}

/* The client may have been served by an earlier owner, or by none yet: from here on it is served by this one. */
static void start_flow(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack, bool first,
                       int64_t now_ms)
{
    struct epoch epoch = epoch_from_proto(ack->epoch);
    if (ack->recovered)
        deliver_replay(session, ack->messages, ack->n_messages, now_ms);
    else
        deliver(session, ack->messages, ack->n_messages);
    if (first || ack->n_messages > 0)
        take_position(session, &epoch, ack->seq, ack->more_pages, now_ms);
    else
        resume_flow(session, now_ms);
}

void session_acked(struct gateway *gateway, const struct node_address *from,
                   const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms)
{
    struct session *session = session_by_connection(gateway, ack->connection);
    if (session == NULL || strcmp(session->sid_text, ack->sid) != 0 ||
        !node_address_equal(&session->room->owner, from)) {
        metric_add(M_ACKS_STALE, 1);
        return;
    }
    if (ack->code != SIGNALBOX__V1__CODE__OK) {
        refused(session, ack);
        return;
    }
    if (session->state == SESSION_DEPARTED) {
        if (ack->version == session->version)
            session_free(&session);
        return;
    }
    bool first = session->state == SESSION_JOINING;
    if (first && !register_sid(session))
        return;
    struct epoch epoch = epoch_from_proto(ack->epoch);
    if (ack->bind_generation > session->bind_generation)
        session->bind_generation = ack->bind_generation;
    if (ack->participant_version > session->participant_version)
        session->participant_version = ack->participant_version;
    if (ack->room_send_acked > session->room_send_acked)
        session->room_send_acked = ack->room_send_acked;
    if (ack->epoch != NULL)
        room_adopt(session->room, &epoch, ack->seq, ack->digest, now_ms);
    if (first)
        bound(session, ack, now_ms);
    if (session->client != NULL && (first || session->sync == SYNC_WAITING))
        start_flow(session, ack, first, now_ms);
    session_version_acked(session, ack->version, first, now_ms);
}

void session_command(struct gateway *gateway, const struct node_address *from,
                     const Signalbox__Cluster__V1__SessionCommand *command, int64_t now_ms)
{
    struct session *session = session_by_sid(gateway, command->sid);
    if (session == NULL || !node_address_equal(&session->room->owner, from) ||
        command->bind_generation != session->bind_generation) {
        metric_add(M_ACKS_STALE, 1);
        return;
    }
    if (command->command_case == SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_UPDATE) {
        session_set_participant(session, command->update);
        return;
    }
    if (command->command_case != SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE)
        return;
    struct client *client = session->client;
    session_free(&session);
    if (client != NULL)
        client_end(client, close_code_for(command->close->reason, command->close->action), command->close->reason,
                   command->close->action, command->close->retry_after_ms, "");
}

void session_identity_taken(struct gateway *gateway, const struct node_address *from,
                            const Signalbox__Cluster__V1__IdentityTaken *taken, int64_t now_ms)
{
    struct session *session = session_by_connection(gateway, taken->connection);
    if (session == NULL || strcmp(session->sid_text, taken->sid) != 0 || session->state != SESSION_JOINING ||
        session->client == NULL || !node_address_equal(&session->room->owner, from) ||
        !sid_parse(taken->by, &session->replaces)) {
        metric_add(M_ACKS_STALE, 1);
        return;
    }
    session_announce(session, now_ms);
}

void session_sync_reply(struct gateway *gateway, const struct node_address *from,
                        const Signalbox__Cluster__V1__SyncReply *reply, int64_t now_ms)
{
    struct session *session = session_by_connection(gateway, reply->connection);
    if (session == NULL || session->sync != SYNC_ASKED || !node_address_equal(&session->room->owner, from))
        return;
    if (reply->code == SIGNALBOX__V1__CODE__NOT_FOUND) {
        session->sync = SYNC_WAITING;
        session_announce(session, now_ms);
        return;
    }
    struct epoch epoch = epoch_from_proto(reply->epoch);
    room_adopt(session->room, &epoch, reply->seq, 0, now_ms);
    if (reply->replay && !epoch_equal(&session->epoch, &epoch))
        handover_tell(session, &epoch);
    if (reply->replay)
        deliver_replay(session, reply->messages, reply->n_messages, now_ms);
    else
        deliver(session, reply->messages, reply->n_messages);
    take_position(session, &epoch, reply->seq, !reply->last_page, now_ms);
}
