/* What a joined client asks for. One table says which message is handled by what and in which class it counts; every
 * handler returns a result code, and a text when it refuses. */
#include "common/metrics.h"
#include "gateway/requests-private.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CURSOR_MAX = 40 };

typedef Signalbox__V1__ClientMessage ClientMessage;
typedef Signalbox__V1__ServerMessage ServerMessage;
typedef Signalbox__V1__Participant Participant;

/* --- directed messages ---------------------------------------------------------------------------------------------
 */

static void relay(struct request *request, ServerMessage *out, Signalbox__Cluster__V1__Relay__Kind kind,
                  enum message_class class, uint64_t negotiation, uint32_t ice_generation)
{
    struct session *session = request->session;
    const Signalbox__V1__Route *asked = request->message->route;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Position join = SIGNALBOX__V1__POSITION__INIT;
    Signalbox__Cluster__V1__Relay item_relay = SIGNALBOX__CLUSTER__V1__RELAY__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    struct sid to;
    if (asked == NULL || !sid_parse(asked->peer, &to)) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "route.peer: expected the receiver's sid (22 characters)");
        return;
    }
    if (asked->seq == 0 && kind != SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "route.seq: expected 1, 2, 3, ... per receiver");
        return;
    }
    if (sid_equal(&to, &session->sid)) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "route.peer: is the sender itself");
        return;
    }
    epoch_format(&session->join_epoch, epoch_text);
    join.epoch = epoch_text;
    join.seq = session->join_seq;
    route.peer = session->sid_text;
    route.seq = asked->seq;
    route.ack = asked->ack;
    route.sender_join = &join;
    out->route = &route;

    struct payload *packed = payload_pack(&out->base);
    out->route = NULL; /* this function's */
    struct gw_room *room = session->room;
    item_relay.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    item_relay.from = session->sid_text;
    item_relay.from_bind_generation = session->bind_generation;
    item_relay.to = asked->peer;
    item_relay.class_ = class;
    item_relay.kind = kind;
    item_relay.negotiation = negotiation;
    item_relay.ice_generation = ice_generation;
    item_relay.message = (ProtobufCBinaryData){.len = packed->size, .data = packed->data};
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_RELAY;
    item.relay = &item_relay;
    to_owner(room, &item);
    payload_unref(&packed);
}

static bool check_description(struct request *request, const char *sdp, Signalbox__V1__TrackMapping **mappings,
                              size_t mapping_count)
{
    const char *problem = NULL;
    if (strlen(sdp) > SDP_MAX)
        problem = "sdp: at most 48 KiB";
    else if (mapping_count > request->client->gateway->options.limits.tracks)
        problem = "tracks: more than limits.tracks";
    for (size_t i = 0; problem == NULL && i < mapping_count; i++)
        if (strlen(mappings[i]->mid) > MID_MAX || strlen(mappings[i]->track_id) > TRACK_ID_MAX)
            problem = "tracks: mid has at most 32 bytes, track_id at most 64";
    if (problem != NULL)
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE, problem);
    return problem == NULL;
}

static void on_offer(struct request *request)
{
    Signalbox__V1__Offer *offer = request->message->offer;
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    if (!check_description(request, offer->sdp, offer->tracks, offer->n_tracks))
        return;
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_OFFER;
    out.offer = offer;
    relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER, CLASS_NEGOTIATION, offer->negotiation,
          offer->ice_generation);
}

static void on_answer(struct request *request)
{
    Signalbox__V1__Answer *answer = request->message->answer;
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    if (!check_description(request, answer->sdp, answer->tracks, answer->n_tracks))
        return;
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_ANSWER;
    out.answer = answer;
    relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__ANSWER, CLASS_NEGOTIATION, answer->negotiation,
          answer->ice_generation);
}

static void on_candidate(struct request *request)
{
    Signalbox__V1__Candidate *candidate = request->message->candidate;
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    if (strlen(candidate->candidate) > CANDIDATE_MAX) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE, "candidate.candidate: at most 1024 bytes");
        return;
    }
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_CANDIDATE;
    out.candidate = candidate;
    relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE, CLASS_CANDIDATES, candidate->negotiation,
          candidate->ice_generation);
}

static void on_candidates_done(struct request *request)
{
    Signalbox__V1__CandidatesDone *done = request->message->candidates_done;
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_CANDIDATES_DONE;
    out.candidates_done = done;
    relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATES_DONE, CLASS_CANDIDATES, done->negotiation,
          done->ice_generation);
}

static void on_ack(struct request *request)
{
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_ACK;
    out.ack = request->message->ack;
    relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK, CLASS_NEGOTIATION, 0, 0);
}

static void on_ice_state(struct request *request)
{
    struct session *session = request->session;
    Signalbox__Cluster__V1__IceReport report = SIGNALBOX__CLUSTER__V1__ICE_REPORT__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct gw_room *room = session->room;
    report.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    report.from = session->sid_text;
    report.state = request->message->ice_state;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ICE_REPORT;
    item.ice_report = &report;
    to_owner(room, &item);
}

/* --- application messages ------------------------------------------------------------------------------------------
 */

static size_t send_size(const Signalbox__V1__Send *send)
{
    if (send->data_case == SIGNALBOX__V1__SEND__DATA_PAYLOAD)
        return send->payload.len;
    return send->data_case == SIGNALBOX__V1__SEND__DATA_TEXT ? strlen(send->text) : 0;
}

static void fill_message(const struct session *session, const Signalbox__V1__Send *send, Signalbox__V1__Message *out)
{
    out->from = (char *)session->sid_text;
    out->topic = send->topic;
    if (send->data_case == SIGNALBOX__V1__SEND__DATA_PAYLOAD) {
        out->data_case = SIGNALBOX__V1__MESSAGE__DATA_PAYLOAD;
        out->payload = send->payload;
    } else if (send->data_case == SIGNALBOX__V1__SEND__DATA_TEXT) {
        out->data_case = SIGNALBOX__V1__MESSAGE__DATA_TEXT;
        out->text = send->text;
    }
}

/* The owner has just refused signals of this session: sparing it more of them is what keeps a noisy room from being
 * heard in others. */
static void drop_signal(struct request *request)
{
    metric_add_at(M_THROTTLED, THROTTLED_ROOM, 1);
    count_dropped(CLASS_EPHEMERAL, DROP_ROOM_BUDGET, 1);
    request->unwanted = true;
    request->closed =
        client_strike(request->client, 1, CLOSE_ABUSE, SIGNALBOX__V1__LEAVE_REASON__ABUSE, request->now_ms);
}

static void send_signal(struct request *request, const Signalbox__V1__Send *send, const char *to)
{
    struct session *session = request->session;
    Signalbox__V1__Signal signal = SIGNALBOX__V1__SIGNAL__INIT;
    Signalbox__Cluster__V1__SignalUpdate update = SIGNALBOX__CLUSTER__V1__SIGNAL_UPDATE__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct gw_room *room = session->room;
    signal.from = session->sid_text;
    signal.key = send->key;
    signal.topic = send->topic;
    switch (send->data_case) {
    case SIGNALBOX__V1__SEND__DATA_PAYLOAD:
        signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_PAYLOAD;
        signal.payload = send->payload;
        break;
    case SIGNALBOX__V1__SEND__DATA_TEXT:
        signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_TEXT;
        signal.text = send->text;
        break;
    case SIGNALBOX__V1__SEND__DATA_SPEAKING:
        signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_SPEAKING;
        signal.speaking = send->speaking;
        break;
    case SIGNALBOX__V1__SEND__DATA_QUALITY:
        signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_QUALITY;
        signal.quality = send->quality;
        break;
    default:
        break;
    }
    update.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    update.from = session->sid_text;
    update.to = (char *)to;
    update.signal = &signal;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SIGNAL;
    item.signal = &update;
    to_owner(room, &item);
}

static void send_to_room(struct request *request, const Signalbox__V1__Send *send)
{
    struct session *session = request->session;
    Signalbox__V1__Message message = SIGNALBOX__V1__MESSAGE__INIT;
    Signalbox__Cluster__V1__RoomSend room_send = SIGNALBOX__CLUSTER__V1__ROOM_SEND__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct gw_room *room = session->room;
    if (request->message->route == NULL || request->message->route->seq == 0) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "route.seq: reliable messages to the room are numbered 1, 2, 3");
        return;
    }
    /* A client begins each connection with what was not acknowledged: everything before that was. */
    if (!session->room_sent && request->message->route->seq - 1 > session->room_send_acked)
        session->room_send_acked = request->message->route->seq - 1;
    session->room_sent = true;
    fill_message(session, send, &message);
    room_send.acked = session->room_send_acked;
    room_send.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    room_send.sid = session->sid_text;
    room_send.bind_generation = session->bind_generation;
    room_send.sender_seq = request->message->route->seq;
    room_send.message = &message;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_SEND;
    item.room_send = &room_send;
    to_owner(room, &item);
}

static void on_send(struct request *request)
{
    const Signalbox__V1__Send *send = request->message->send;
    const char *to = request->message->route != NULL ? request->message->route->peer : "";
    const Participant *participant = session_participant(request->session);
    bool directed_speaking =
        send->data_case == SIGNALBOX__V1__SEND__DATA_SPEAKING || send->data_case == SIGNALBOX__V1__SEND__DATA_QUALITY;
    if (participant->permissions == NULL || !participant->permissions->can_publish_data) {
        refuse(request, SIGNALBOX__V1__CODE__FORBIDDEN, "the token does not grant canPublishData");
    } else if (send_size(send) > request->client->gateway->options.limits.send_bytes) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE, "send: data larger than limits.send_bytes");
    } else if (strlen(send->topic) > TOPIC_MAX || strlen(send->key) > SIGNAL_KEY_MAX) {
        refuse(request, SIGNALBOX__V1__CODE__TOO_LARGE, "send: topic has at most 128 bytes, key at most 64");
    } else if (send->delivery == SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL) {
        if (request->now_ms < request->session->quiet_until_ms)
            drop_signal(request);
        else
            send_signal(request, send, to);
    } else if (send->delivery != SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "send.delivery: expected RELIABLE or EPHEMERAL");
    } else if (directed_speaking) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "send: speaking and quality are EPHEMERAL");
    } else if (to[0] == '\0') {
        send_to_room(request, send);
    } else {
        Signalbox__V1__Message message = SIGNALBOX__V1__MESSAGE__INIT;
        ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
        fill_message(request->session, send, &message);
        out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_MESSAGE;
        out.message = &message;
        relay(request, &out, SIGNALBOX__CLUSTER__V1__RELAY__KIND__APPLICATION, CLASS_NEGOTIATION, 0, 0);
    }
}

/* --- the room's state ----------------------------------------------------------------------------------------------
 */

static void on_set_interest(struct request *request)
{
    const char *problem = interest_check(request->message->set_interest->interest);
    if (problem != NULL) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, problem);
        return;
    }
    bool viewers = request->session->interest != NULL && request->session->interest->viewers;
    interest_set(request->session, request->message->set_interest->interest);
    bool now_viewers = request->session->interest != NULL && request->session->interest->viewers;
    if (now_viewers && !viewers && request->session->sync != SYNC_WAITING)
        session_ask_snapshot(request->session, NULL, request->now_ms);
}

static void on_sync_state(struct request *request)
{
    struct session *session = request->session;
    const Signalbox__V1__SyncState *sync = request->message->sync_state;
    bool paging = sync->cursor[0] != '\0';
    if (strlen(sync->cursor) > CURSOR_MAX) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "sync_state.cursor: not one that this server gave out");
        return;
    }
    bool wants_snapshot = !paging && sync->position == NULL;
    if (session->sync == SYNC_WAITING) {
        session->has_position &= !wants_snapshot; /* what the acknowledgement brings may be events alone */
        return;
    }
    if (session->sync == SYNC_ASKED && !(wants_snapshot && !session->ask_snapshot))
        return; /* what is missing is on its way */
    if (paging && session->sync != SYNC_PAGING) {
        refuse(request, SIGNALBOX__V1__CODE__INVALID, "sync_state.cursor: no snapshot is being read");
        return;
    }
    if (paging) {
        session_ask_snapshot(session, sync->cursor, request->now_ms);
    } else if (sync->position != NULL && epoch_parse(sync->position->epoch, &session->epoch)) {
        session->seq = sync->position->seq;
        session->has_position = true;
        session_ask_events(session, request->now_ms);
    } else {
        session_ask_snapshot(session, NULL, request->now_ms);
    }
}

static void on_ping(struct request *request)
{
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Pong pong = SIGNALBOX__V1__PONG__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    struct gw_room *room = request->session->room;
    pong.nonce = request->message->ping->nonce;
    if (room->has_epoch && request->session->sync == SYNC_LIVE) {
        position.epoch = room->epoch_text;
        position.seq = room->seq;
        pong.position = &position;
    }
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_PONG;
    out.pong = &pong;
    client_send(request->client, &out, CLASS_CONTROL);
}

static void on_leave(struct request *request)
{
    struct client *client = request->client;
    request->closed = true;
    if (request->message->request_id != 0)
        client_result(client, request->message->request_id, SIGNALBOX__V1__CODE__OK, 0, "");
    session_depart(request->session, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, request->now_ms);
    client_end(client, 1000, SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT, SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "bye");
}

/* --- tokens --------------------------------------------------------------------------------------------------------
 */

static void on_refresh_token(struct request *request)
{
    struct session *session = request->session;
    struct gateway *gateway = session->gateway;
    const char *text = request->message->refresh_token->token;
    struct jwt_claims claims;
    struct refusal refusal;
    if (!admission_check(gateway, text, strlen(text), session->room->name, &claims, &refusal)) {
        refuse(request, refusal.code, "refresh_token: the token is not valid for this room");
        return;
    }
    const Participant *participant = session_participant(session);
    bool same =
        strcmp(claims.identity, participant->identity) == 0 && strcmp(claims.project, session->room->project) == 0;
    if (same) {
        session->access_expires_s = claims.expires_s;
        session->budget_percent = claims.budget_percent;
        session->room_budget_percent = claims.room_budget_percent;
        snprintf(session->key_id, sizeof session->key_id, "%s", claims.key_id);
        client_set_budget(request->client, session->budget_percent, request->now_ms);
        grants_renew(session, &claims.video, request->now_ms);
    }
    jwt_claims_done(&claims);
    if (!same) {
        refuse(request, SIGNALBOX__V1__CODE__FORBIDDEN, "refresh_token: the token is for another identity");
        return;
    }
    session_arm_expiry(session, request->now_ms);
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__TokenRefresh refresh = SIGNALBOX__V1__TOKEN_REFRESH__INIT;
    refresh.resume_token = join_seal_token(session);
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_TOKEN_REFRESH;
    out.token_refresh = &refresh;
    client_send(request->client, &out, CLASS_NEGOTIATION);
    free(refresh.resume_token);
}

static void on_refresh_ice(struct request *request)
{
    ServerMessage out = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__IceRefresh refresh = SIGNALBOX__V1__ICE_REFRESH__INIT;
    struct ice_servers ice;
    join_ice_servers(request->client->gateway, request->session->sid_text, &ice);
    refresh.ice_servers = ice.list;
    refresh.n_ice_servers = ice.count;
    out.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_ICE_REFRESH;
    out.ice_refresh = &refresh;
    client_send(request->client, &out, CLASS_NEGOTIATION);
}

/* --- the table -----------------------------------------------------------------------------------------------------
 */

static const struct {
    Signalbox__V1__ClientMessage__BodyCase body;
    void (*handle)(struct request *request);
} handlers[] = {
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_PING, on_ping},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ACK, on_ack},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_CANDIDATE, on_candidate},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND, on_send},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_OFFER, on_offer},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ANSWER, on_answer},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_CANDIDATES_DONE, on_candidates_done},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ICE_STATE, on_ice_state},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_PUBLISH_TRACK, request_publish_track},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_UNPUBLISH_TRACK, request_unpublish_track},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_MUTE, request_mute},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SET_METADATA, request_set_metadata},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SET_INTEREST, on_set_interest},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SYNC_STATE, on_sync_state},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_REFRESH_TOKEN, on_refresh_token},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_REFRESH_ICE, on_refresh_ice},
    {SIGNALBOX__V1__CLIENT_MESSAGE__BODY_LEAVE, on_leave},
};

bool request_handle(struct client *client, const ClientMessage *message, int64_t now_ms)
{
    struct request request = {.client = client,
                              .session = client->session,
                              .message = message,
                              .now_ms = now_ms,
                              .code = SIGNALBOX__V1__CODE__OK,
                              .text = ""};
    size_t i = 0;
    while (i < sizeof handlers / sizeof handlers[0] && handlers[i].body != message->body_case)
        i++;
    if (i == sizeof handlers / sizeof handlers[0])
        refuse(&request, SIGNALBOX__V1__CODE__UNKNOWN_MESSAGE,
               "this server does not know this message, or the message has no body");
    else
        handlers[i].handle(&request);
    if (!request.deferred && !request.closed)
        client_result(client, message->request_id, request.code, request.retry_after_ms, request.text);
    return !request.unwanted;
}
