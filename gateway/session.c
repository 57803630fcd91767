/* Sessions: their wanted state, said to the owner until it is acknowledged, and their ends. */
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "gateway/internal.h"
#include <assert.h>
#include <stdlib.h>

enum {
    REPEAT_FIRST_MS = 300,
    REPEAT_DOUBLINGS_MAX = 4,
    WINDOW_GRACE_MS = 5000,
    CONFIRM_DELAY_MS = 1000,
    CONFIRM_GRAIN_MS = 250
};

typedef Signalbox__Cluster__V1__SessionState State;

static void send_sync_request(struct session *session);
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
    list_init(&session->orphan_link);
    list_init(&session->resync_link);
    HASH_ADD(hh_connection, gateway->sessions, connection, sizeof session->connection, session);
    return session;
}

/* Without a client a session is kept for its owner's sake alone: until it knows, or until there are too many. */
static void orphan(struct session *session)
{
    struct gateway *gateway = session->gateway;
    session->client = NULL;
    if (list_linked(&session->orphan_link))
        return;
    list_append(&gateway->orphans, &session->orphan_link);
    if (++gateway->orphan_count <= gateway->options.limits.orphaned_sessions || gateway->orphan_count == 1)
        return;
    struct session *oldest = list_first(&gateway->orphans, struct session, orphan_link);
    metric_add(M_SESSIONS_FORGOTTEN, 1);
    session_free(&oldest);
}

static void end_report(struct session *session)
{
    if (!session->reporting)
        return;
    session->reporting = session->says_departures = false;
    session->gateway->reporting_count--;
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
    if (list_linked(&session->orphan_link)) {
        list_remove(&session->orphan_link);
        gateway->orphan_count--;
    }
    end_report(session);
    resync_drop_session(session);
    interest_free(session);
    list_remove(&session->room_link);
    session->room->session_count--;
    room_close_if_empty(session->room);
    free(session->results);
    free(session->cursor);
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

/* An owner that has lost the session goes on with this version. Others may have been shown any of the changes that are
 * not acknowledged, or none: one version for each makes sure that no two contents have the same. */
static uint64_t version_said(const struct session *session)
{
    return session->participant_version != 0 ? session->participant_version + session->participant_changes : 0;
}

/* Somebody of this gateway is in the room, so that an owner who knows nothing of it has not got a new one before it. */
static bool room_is_inhabited(const struct gw_room *room)
{
    list_for_each(pos, &room->sessions)
        if (container_of(pos, struct session, room_link)->state == SESSION_BOUND)
            return room->has_epoch;
    return false;
}

static void send_state(struct session *session, int64_t now_ms)
{
    State state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INIT;
    Signalbox__Cluster__V1__Epoch last = epoch_to_proto(&session->epoch);
    Signalbox__Cluster__V1__Epoch join = epoch_to_proto(&session->join_epoch);
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    struct gw_room *room = session->room;
    if (session->gateway->view != NULL) {
        view.generation = session->gateway->view->number.generation;
        view.seq = session->gateway->view->number.seq;
        state.view = &view;
    }
    state.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    state.project = room->project;
    state.room = room->name;
    state.sid = session->sid_text;
    state.bind_generation = session->bind_generation;
    state.connection = session->connection;
    state.version = session->version;
    state.intent = (Signalbox__Cluster__V1__SessionState__Intent)session->intent;
    state.participant = session_participant(session);
    state.participant->version = version_said(session);
    state.resume_window_ms = session->resume_window_ms;
    state.room_budget_percent = session->room_budget_percent;
    state.attempt = session->attempt;
    state.grants_version = session->grants_version;
    state.token_bind_generation = session->token_bind_generation;
    state.confirmed = session->confirmed;
    state.room_send_acked = session->room_send_acked;
    state.want_viewers = session->interest != NULL && session->interest->viewers;
    if (session->state == SESSION_DEPARTED) {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED;
        state.reason = session->depart_reason;
    } else if (session->client == NULL) {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED;
        int64_t left_ms = session->window_ends_ms - now_ms;
        state.window_left_ms = left_ms > 0 ? (uint32_t)left_ms : 0;
    } else {
        state.state = SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__ATTACHED;
    }
    if (session->has_position) {
        state.last_epoch = &last;
        state.last_seq = session->seq;
    } else if (session->state == SESSION_JOINING &&
               session->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN && room_is_inhabited(room)) {
        last = epoch_to_proto(&room->epoch);
        state.last_epoch = &last;
        state.last_seq = room->seq;
    }
    char replaces[SID_TEXT_SIZE + 1];
    if (session->state == SESSION_JOINING && !sid_equal(&session->replaces, &(struct sid){0})) {
        sid_format(&session->replaces, replaces);
        state.replaces = replaces;
    }
    state.n_departures = departed_say(session, &state.departures, now_ms);
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
    if (list_linked(&session->resync_link))
        resync_drop_session(session); /* it need not wait any more */
    session->acked_version = 0;
    session->repeats = 0;
    send_state(session, now_ms);
    arm_repeat(session, now_ms);
}

void session_report(struct session *session)
{
    if (session->state == SESSION_BOUND && !session->reporting) {
        session->reporting = true;
        session->gateway->reporting_count++;
    }
    session->acked_version = 0;
    timer_cancel(session->gateway->wheel, &session->repeat_timer);
    resync_drop_session(session); /* what was said before does not count for this report */
    resync_add_session(session);
}

void session_changed(struct session *session, int64_t now_ms)
{
    session->version++;
    session->confirm_pending = false; /* goes with it */
    session_announce(session, now_ms);
}

void session_change_participant(struct session *session, const Signalbox__V1__Participant *participant, int64_t now_ms)
{
    session_set_participant(session, participant);
    session->participant_changes++;
    session_changed(session, now_ms);
}

/* Of a crowd that comes back, those of a quarter of a second confirm together: in one envelope for each owner. */
static void arm_confirm(struct session *session, int64_t now_ms)
{
    int64_t due_ms = (now_ms + CONFIRM_DELAY_MS) / CONFIRM_GRAIN_MS * CONFIRM_GRAIN_MS;
    timer_set(session->gateway->wheel, &session->repeat_timer, due_ms);
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
        arm_confirm(session, now_ms);
}

static void on_repeat(struct timer *timer, int64_t now_ms)
{
    struct session *session = container_of(timer, struct session, repeat_timer);
    if (session->acked_version != session->version && SIM_FAULT(UNREPEATED)) {
        return;
    } else if (session->acked_version != session->version) {
        metric_add(M_SESSION_REPEATS, 1);
        send_state(session, now_ms);
    } else if (session->confirm_pending) {
        session_changed(session, now_ms);
        return;
    } else if (session->sync == SYNC_ASKED) {
        send_sync_request(session);
    } else {
        return;
    }
    arm_repeat(session, now_ms);
}

void session_version_acked(struct session *session, uint64_t version, bool first, int64_t now_ms)
{
    struct timer_wheel *wheel = session->gateway->wheel;
    if (session->acked_version < version)
        session->acked_version = version;
    request_acked(session);
    if (session->acked_version != session->version) {
        if (first)
            session_announce(session, now_ms);
        return;
    }
    session->participant_changes = 0;
    end_report(session);
    resync_drop_session(session);
    session->repeats = 0;
    if (session->confirm_pending)
        arm_confirm(session, now_ms);
    else if (session->sync == SYNC_ASKED)
        arm_repeat(session, now_ms);
    else
        timer_cancel(wheel, &session->repeat_timer);
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

/* Whoever has waited for so long may try again soon: it waits here, where the answer comes first, rather than at home.
 */
static void join_timed_out(struct session *session, int64_t now_ms)
{
    struct client *client = session->client;
    bool resuming = session->token_bind_generation != 0;
    metric_add_at(M_JOINS, JOIN_TIMEOUT, 1);
    if (resuming)
        metric_add_at(M_RECONNECTS, RECONNECT_TIMEOUT, 1);
    session->hello_counted = true;
    client->session = NULL;
    session_detach(session, now_ms);
    client_end(client, CLOSE_OVERLOADED, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
               resuming ? SIGNALBOX__V1__LEAVE_ACTION__RESUME : SIGNALBOX__V1__LEAVE_ACTION__REJOIN,
               client->gateway->options.limits.retry_base_ms, "no shard has answered in time; try again");
}

static void token_expired(struct session *session, int64_t now_ms)
{
    struct client *client = session->client;
    session_depart(session, SIGNALBOX__V1__LEAVE_REASON__TOKEN_EXPIRED, now_ms);
    client_end(client, CLOSE_TOKEN_EXPIRED, SIGNALBOX__V1__LEAVE_REASON__TOKEN_EXPIRED,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the access token has expired and was not refreshed");
}

static void on_end(struct timer *timer, int64_t now_ms)
{
    struct session *session = container_of(timer, struct session, end_timer);
    if (session->client != NULL && session->state == SESSION_JOINING)
        join_timed_out(session, now_ms);
    else if (session->client != NULL)
        token_expired(session, now_ms);
    else if (session->acked_version == session->version)
        session_free(&session); /* the owner has let the window run out, too */
    else
        session_depart(session, SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED, now_ms);
}

void session_arm_expiry(struct session *session, int64_t now_ms)
{
    struct gateway *gateway = session->gateway;
    int64_t left_ms = session->access_expires_s * 1000 - gateway->actions.wall_ms(gateway->ctx);
    timer_set(gateway->wheel, &session->end_timer, now_ms + (left_ms > 0 ? left_ms : 0));
}

void session_detach(struct session *session, int64_t now_ms)
{
    if (session->state == SESSION_JOINING && session->token_bind_generation == 0) {
        /* The client has no resume token yet: it cannot come back. */
        session_depart(session, SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED, now_ms);
        return;
    }
    orphan(session);
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
    orphan(session);
    if (session->state == SESSION_DEPARTED)
        return;
    session->depart_reason = reason;
    session->state = SESSION_DEPARTED;
    timer_cancel(session->gateway->wheel, &session->end_timer);
    session_changed(session, now_ms);
}

/* --- catching up ------------------------------------------------------------------------------------------------- */

static void send_sync_request(struct session *session)
{
    Signalbox__Cluster__V1__SyncRequest request = SIGNALBOX__CLUSTER__V1__SYNC_REQUEST__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__Epoch epoch;
    struct gw_room *room = session->room;
    request.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    request.sid = session->sid_text;
    request.connection = session->connection;
    if (!session->ask_snapshot) {
        epoch = epoch_to_proto(&session->epoch);
        request.epoch = &epoch;
        request.seq = session->seq;
    }
    if (session->cursor != NULL)
        request.cursor = session->cursor;
    request.want_viewers = session->interest != NULL && session->interest->viewers;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SYNC_REQUEST;
    item.sync_request = &request;
    to_owner(room, &item);
}

static void ask(struct session *session, bool snapshot, const char *cursor, int64_t now_ms)
{
    session->sync = SYNC_ASKED;
    session->ask_snapshot = snapshot;
    free(session->cursor);
    session->cursor = cursor != NULL ? mem_strdup(cursor) : NULL;
    send_sync_request(session);
    if (session->acked_version != session->version)
        return; /* the state is being repeated; the request is next */
    session->repeats = 0;
    arm_repeat(session, now_ms);
}

void session_ask_again(struct session *session, int64_t now_ms)
{
    if (session->sync != SYNC_ASKED)
        return;
    send_sync_request(session);
    session->repeats = 0;
    arm_repeat(session, now_ms);
}

void session_ask_events(struct session *session, int64_t now_ms)
{
    ask(session, false, NULL, now_ms);
}

void session_ask_snapshot(struct session *session, const char *cursor, int64_t now_ms)
{
    ask(session, true, cursor, now_ms);
}
