/* Sessions: their wanted state, said to the owner until it is acknowledged, and what the owner says back. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT_FIRST_MS = 300, REPEAT_DOUBLINGS_MAX = 4, WINDOW_GRACE_MS = 5000, CONFIRM_DELAY_MS = 1000 };

typedef Signalbox__Cluster__V1__SessionState State;

static void on_repeat(struct timer *timer, int64_t now_ms);
static void on_end(struct timer *timer, int64_t now_ms);

struct session *session_new(struct gateway *gateway, const struct sid *sid, struct gw_room *room, int64_t now_ms)
{
    struct session *session = mem_new(struct session);
    session->gateway = gateway;
    session->sid = *sid;
    sid_format(sid, session->sid_text);
    session->room = room;
    session->state = SESSION_JOINING;
    session->sync = SYNC_WAITING;
    session->connection = ++gateway->connection_counter;
    session->version = 1;
    session->started_ms = now_ms;
    list_append(&room->sessions, &session->room_link);
    room->session_count++;
    timer_init(&session->repeat_timer, on_repeat);
    timer_init(&session->end_timer, on_end);
    HASH_ADD(hh_connection, gateway->sessions, connection, sizeof session->connection, session);
    return session;
}

void session_free(struct session **session_ptr)
{
    struct session *session = *session_ptr;
    if (session == NULL)
        return;
    struct gateway *gateway = session->gateway;
    if (session->client != NULL)
        session->client->session = NULL;
    timer_cancel(gateway->wheel, &session->repeat_timer);
    timer_cancel(gateway->wheel, &session->end_timer);
    HASH_DELETE(hh_connection, gateway->sessions, session);
    if (session->by_sid)
        HASH_DELETE(hh_sid, gateway->sessions_by_sid, session);
    list_remove(&session->room_link);
    session->room->session_count--;
    room_close_if_empty(session->room);
    interest_free(&session->interest);
    free(session->results);
    payload_unref(&session->participant);
    free(session);
    *session_ptr = NULL;
}

struct session *session_by_connection(struct gateway *gateway, uint64_t connection)
{
    struct session *session;
    HASH_FIND(hh_connection, gateway->sessions, &connection, sizeof connection, session);
    return session;
}

struct session *session_by_sid(struct gateway *gateway, const char *sid_text)
{
    struct sid sid;
    struct session *session = NULL;
    if (sid_parse(sid_text, &sid))
        HASH_FIND(hh_sid, gateway->sessions_by_sid, &sid, sizeof sid, session);
    return session;
}

Signalbox__V1__Participant *session_participant(struct session *session)
{
    struct arena *arena = &session->gateway->arena;
    arena_reset(arena);
    Signalbox__V1__Participant *participant = (Signalbox__V1__Participant *)protobuf_c_message_unpack(
        &signalbox__v1__participant__descriptor, &arena->allocator, session->participant->size,
        session->participant->data);
    assert(participant != NULL); /* packed by ourselves, bounded when it was */
    return participant;
}

void session_set_participant(struct session *session, const Signalbox__V1__Participant *participant)
{
    struct payload *packed = payload_pack(&participant->base);
    payload_unref(&session->participant);
    session->participant = packed;
}

/* --- saying the wanted state ------------------------------------------------------------------------------------- */

static void send_state(struct session *session, int64_t now_ms)
{
    State state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INIT;
    Signalbox__Cluster__V1__Epoch last = epoch_to_proto(&session->last_epoch);
    Signalbox__Cluster__V1__Epoch join = epoch_to_proto(&session->join_epoch);
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct gw_room *room = session->room;
    session->confirm_pending = false;
    state.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    state.project = room->project;
    state.room = room->name;
    state.sid = session->sid_text;
    state.bind_generation = session->bind_generation;
    state.connection = session->connection;
    state.version = session->version;
    state.intent = (Signalbox__Cluster__V1__SessionState__Intent)session->intent;
    state.participant = session_participant(session);
    state.resume_window_ms = session->resume_window_ms;
    state.token_bind_generation = session->token_bind_generation;
    state.confirmed = session->confirmed;
    state.room_send_acked = session->room_send_acked;
    state.want_viewers = session->interest != NULL && session->interest->viewers;
    if (session->state == SESSION_DEPARTED) {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED;
        state.reason = session->depart_reason;
    } else if (session->client == NULL && session->state == SESSION_BOUND) {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED;
        int64_t left_ms = session->window_ends_ms - now_ms;
        state.window_left_ms = left_ms > 0 ? (uint32_t)left_ms : 0;
    } else {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__ATTACHED;
    }
    if (session->has_last) {
        state.last_epoch = &last;
        state.last_seq = session->last_seq;
    }
    if (session->joined_at_ms != 0) {
        state.join_epoch = &join;
        state.join_seq = session->join_seq;
        state.joined_at_ms = session->joined_at_ms;
    }
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_STATE;
    item.session_state = &state;
    to_owner(room, &item);
}

static void arm_repeat(struct session *session, int64_t now_ms)
{
    uint8_t doublings = session->repeats < REPEAT_DOUBLINGS_MAX ? session->repeats : REPEAT_DOUBLINGS_MAX;
    timer_set(session->gateway->wheel, &session->repeat_timer, now_ms + ((int64_t)REPEAT_FIRST_MS << doublings));
    if (session->repeats < UINT8_MAX)
        session->repeats++;
}

void session_announce(struct session *session, int64_t now_ms)
{
    session->acked_version = 0;
    session->repeats = 0;
    send_state(session, now_ms);
    arm_repeat(session, now_ms);
}

void session_changed(struct session *session, int64_t now_ms)
{
    session->version++;
    if (session->state != SESSION_JOINING)
        session_announce(session, now_ms);
}

void session_confirm(struct session *session, int64_t now_ms)
{
    if (session->confirmed)
        return;
    session->confirmed = true;
    /* A first binding has no earlier token to supersede. */
    if (session->bind_generation < 2)
        return;
    session->confirm_pending = true;
    if (!timer_pending(&session->repeat_timer))
        timer_set(session->gateway->wheel, &session->repeat_timer, now_ms + CONFIRM_DELAY_MS);
}

static void on_repeat(struct timer *timer, int64_t now_ms)
{
    struct session *session = container_of(timer, struct session, repeat_timer);
    if (session->acked_version == session->version && session->confirm_pending) {
        session_changed(session, now_ms);
        return;
    }
    if (session->acked_version != session->version) {
        metric_add(M_SESSION_REPEATS, 1);
        send_state(session, now_ms);
    } else if (session->sync == SYNC_ASKED) {
        session_ask_sync(session, session->has_last ? &session->last_epoch : NULL, session->last_seq, "", now_ms);
        return;
    } else {
        return;
    }
    arm_repeat(session, now_ms);
}

static void on_end(struct timer *timer, int64_t now_ms)
{
    struct session *session = container_of(timer, struct session, end_timer);
    if (session->state == SESSION_JOINING && session->client != NULL) {
        metric_add_at(M_JOINS, JOIN_TIMEOUT, 1);
        struct client *client = session->client;
        client->session = NULL;
        session->client = NULL;
        session->leave_when_bound = true;
        timer_set(session->gateway->wheel, timer, now_ms + session->resume_window_ms);
        client_end(client, CLOSE_OVERLOADED, SIGNALBOX__V1__LEAVE_REASON__CAPACITY, SIGNALBOX__V1__LEAVE_ACTION__REJOIN,
                   session->gateway->options.limits.retry_max_ms, "no shard has answered in time; try again");
        return;
    }
    /* The window is over (the owner knows), or nobody answers for a session that nobody waits for. */
    session_free(&session);
}

void session_detach(struct session *session, int64_t now_ms)
{
    session->client = NULL;
    if (session->state == SESSION_JOINING) {
        session->leave_when_bound = true;
        return;
    }
    if (session->state == SESSION_DEPARTED)
        return;
    session->sync = SYNC_WAITING;
    session->result_count = 0;
    session->window_ends_ms = now_ms + session->resume_window_ms;
    timer_set(session->gateway->wheel, &session->end_timer, session->window_ends_ms + WINDOW_GRACE_MS);
    session_changed(session, now_ms);
}

void session_depart(struct session *session, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    if (session->client != NULL)
        session->client->session = NULL;
    session->client = NULL;
    if (session->state == SESSION_DEPARTED)
        return;
    session->depart_reason = reason;
    if (session->state == SESSION_JOINING) {
        session->leave_when_bound = true;
        return;
    }
    session->state = SESSION_DEPARTED;
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD;
    timer_set(session->gateway->wheel, &session->end_timer, now_ms + session->resume_window_ms + WINDOW_GRACE_MS);
    session_changed(session, now_ms);
}

/* --- what the owner says ----------------------------------------------------------------------------------------- */

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

/* The session stands at `seq` of the room's epoch now; what has passed meanwhile is asked for. */
static void resume_flow(struct session *session, const struct epoch *epoch, uint64_t seq, bool more_pages,
                        int64_t now_ms)
{
    struct gw_room *room = session->room;
    session->seq = seq;
    session->last_epoch = *epoch;
    session->last_seq = seq;
    session->has_last = true;
    if (more_pages) {
        session->sync = SYNC_PAGING;
        return;
    }
    session->sync = SYNC_LIVE;
    if (!epoch_equal(epoch, &room->epoch))
        session_ask_sync(session, NULL, 0, "", now_ms);
    else if (room->seq > seq)
        session_ask_sync(session, epoch, seq, "", now_ms);
}

static void register_sid(struct session *session)
{
    struct gateway *gateway = session->gateway;
    struct session *other;
    HASH_FIND(hh_sid, gateway->sessions_by_sid, &session->sid, sizeof session->sid, other);
    if (other == session)
        return;
    if (other != NULL) {
        /* The same session on an older connection here: this one has its place now. */
        struct client *client = other->client;
        session->room_send_acked = other->room_send_acked;
        session_free(&other);
        if (client != NULL)
            client_end(client, CLOSE_REPLACED, SIGNALBOX__V1__LEAVE_REASON__REPLACED, SIGNALBOX__V1__LEAVE_ACTION__STOP,
                       0, "the session was resumed on a newer connection");
    }
    HASH_ADD(hh_sid, gateway->sessions_by_sid, sid, sizeof session->sid, session);
    session->by_sid = true;
}

static void refused(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack)
{
    struct client *client = session->client;
    bool joining = session->state == SESSION_JOINING;
    if (joining)
        metric_add_at(M_JOINS, JOIN_REFUSED, 1);
    if (client != NULL && joining && client->hello_request_id != 0)
        client_result(client, client->hello_request_id, ack->code, ack->retry_after_ms, ack->detail);
    session_free(&session);
    if (client == NULL)
        return;
    uint16_t code =
        ack->code == SIGNALBOX__V1__CODE__LIMIT_REACHED ? CLOSE_FORBIDDEN : close_code_for(ack->reason, ack->action);
    client_end(client, code, ack->reason, ack->action, ack->retry_after_ms, ack->detail);
}

static void bound(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms)
{
    session->state = SESSION_BOUND;
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD;
    session->join_epoch = epoch_from_proto(ack->join_epoch);
    session->join_seq = ack->join_seq;
    session->joined_at_ms = ack->joined_at_ms;
    timer_cancel(session->gateway->wheel, &session->end_timer);
    if (ack->participant != NULL)
        session_set_participant(session, ack->participant);
    register_sid(session);
    metric_add_at(M_JOINS,
                  session->token_bind_generation == 0 ? JOIN_OK
                  : ack->recovered                    ? JOIN_RECOVERED
                                                      : JOIN_RESUMED,
                  1);
    metric_observe_us(M_JOIN_LATENCY, (now_ms - session->started_ms) * 1000);
    if (session->client != NULL)
        join_greet(session, ack, now_ms);
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
    struct epoch epoch = epoch_from_proto(ack->epoch);
    if (ack->bind_generation > session->bind_generation)
        session->bind_generation = ack->bind_generation;
    room_adopt(session->room, &epoch, ack->seq, now_ms);
    if (first)
        bound(session, ack, now_ms);
    if (ack->n_messages > 0 && (first || session->sync != SYNC_LIVE)) {
        deliver(session, ack->messages, ack->n_messages);
        resume_flow(session, &epoch, ack->seq, ack->more_pages, now_ms);
    } else if (first || session->sync == SYNC_WAITING) {
        resume_flow(session, &epoch, first ? ack->seq : session->seq, false, now_ms);
    }
    if (session->acked_version < ack->version)
        session->acked_version = ack->version;
    request_acked(session);
    if (session->acked_version == session->version) {
        if (session->confirm_pending)
            timer_set(gateway->wheel, &session->repeat_timer, now_ms + CONFIRM_DELAY_MS);
        else if (session->sync != SYNC_ASKED)
            timer_cancel(gateway->wheel, &session->repeat_timer);
    } else if (first) {
        session_announce(session, now_ms);
    }
    if (first && session->leave_when_bound && session->client == NULL) {
        if (session->token_bind_generation == 0 || session->depart_reason != 0)
            session_depart(session,
                           session->depart_reason != 0 ? session->depart_reason
                                                       : SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED,
                           now_ms);
        else
            session_detach(session, now_ms);
    }
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

void session_not_owner(struct gateway *gateway, const Signalbox__Cluster__V1__NotOwner *not_owner, int64_t now_ms)
{
    struct session *session = session_by_connection(gateway, not_owner->connection);
    if (session == NULL || not_owner->view == NULL || gateway->view == NULL)
        return;
    struct view_number theirs = {not_owner->view->generation, not_owner->view->seq};
    metric_add(M_NOT_OWNER, 1);
    /* If this gateway is behind, the new view repeats everything; if the shard was, it is told again. */
    if (view_number_compare(theirs, gateway->view->number) <= 0)
        arm_repeat(session, now_ms);
}

/* --- catching up ------------------------------------------------------------------------------------------------- */

void session_ask_sync(struct session *session, const struct epoch *epoch, uint64_t seq, const char *cursor,
                      int64_t now_ms)
{
    Signalbox__Cluster__V1__SyncRequest request = SIGNALBOX__CLUSTER__V1__SYNC_REQUEST__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__Epoch proto;
    struct gw_room *room = session->room;
    request.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    request.sid = session->sid_text;
    request.connection = session->connection;
    if (epoch != NULL) {
        proto = epoch_to_proto(epoch);
        request.epoch = &proto;
        request.seq = seq;
    }
    request.cursor = (char *)cursor;
    request.want_viewers = session->interest != NULL && session->interest->viewers;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SYNC_REQUEST;
    item.sync_request = &request;
    session->sync = SYNC_ASKED;
    session->has_last = epoch != NULL;
    if (epoch != NULL) {
        session->last_epoch = *epoch;
        session->last_seq = seq;
    }
    to_owner(room, &item);
    arm_repeat(session, now_ms);
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
    session->repeats = 0;
    struct epoch epoch = epoch_from_proto(reply->epoch);
    room_adopt(session->room, &epoch, reply->seq, now_ms);
    deliver(session, reply->messages, reply->n_messages);
    resume_flow(session, &epoch, reply->seq, !reply->last_page, now_ms);
    if (session->sync != SYNC_ASKED && session->acked_version == session->version)
        timer_cancel(gateway->wheel, &session->repeat_timer);
}
