/* hello, and what answers it: a new session from an access token, or an old one from a resume token. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RESUME_TOKEN_SLACK_S = 5 };

typedef Signalbox__V1__Participant Participant;

/* --- checks on what the client says of itself ----------------------------------------------------------------------
 */

static const char *check_join(const struct gateway *gateway, const Signalbox__V1__Join *join)
{
    const struct gateway_limits *limits = &gateway->options.limits;
    if (strlen(join->name) > IDENTITY_MAX)
        return "join.name: at most 128 bytes";
    if (strlen(join->metadata) > limits->metadata_bytes)
        return "join.metadata: larger than limits.metadata_bytes";
    if (join->n_attributes > limits->attributes)
        return "join.attributes: more than limits.attributes";
    if (join->n_tracks > limits->tracks)
        return "join.tracks: more than limits.tracks";
    for (size_t i = 0; i < join->n_attributes; i++)
        if (strlen(join->attributes[i]->key) > ATTRIBUTE_KEY_MAX ||
            strlen(join->attributes[i]->value) > ATTRIBUTE_VALUE_MAX)
            return "join.attributes: keys have at most 64 bytes, values at most 512";
    for (size_t i = 0; i < join->n_tracks; i++) {
        const char *problem = request_check_track(join->tracks[i]);
        if (problem != NULL)
            return problem;
        for (size_t j = 0; j < i; j++)
            if (strcmp(join->tracks[i]->id, join->tracks[j]->id) == 0)
                return "join.tracks: two tracks have one id";
    }
    return interest_check(join->interest);
}

static Signalbox__V1__LeaveReason leave_reason_for(uint16_t close_code)
{
    switch (close_code) {
    case CLOSE_OVERLOADED:
    case CLOSE_NO_CAPACITY:
        return SIGNALBOX__V1__LEAVE_REASON__CAPACITY;
    case CLOSE_SESSION_GONE:
        return SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE;
    case CLOSE_WINDOW_EXPIRED:
        return SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED;
    case CLOSE_TOKEN_EXPIRED:
        return SIGNALBOX__V1__LEAVE_REASON__TOKEN_EXPIRED;
    case CLOSE_TOKEN_REVOKED:
        return SIGNALBOX__V1__LEAVE_REASON__TOKEN_REVOKED;
    case CLOSE_PROTOCOL_ERROR:
        return SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR;
    case CLOSE_REMOVED:
        return SIGNALBOX__V1__LEAVE_REASON__REMOVED;
    case CLOSE_ROOM_CLOSED:
        return SIGNALBOX__V1__LEAVE_REASON__ROOM_CLOSED;
    case CLOSE_ABUSE:
        return SIGNALBOX__V1__LEAVE_REASON__ABUSE;
    default:
        return SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED;
    }
}

enum reconnect_outcome reconnect_outcome_of(uint16_t close_code)
{
    switch (close_code) {
    case CLOSE_OVERLOADED:
    case CLOSE_NO_CAPACITY:
        return RECONNECT_UNAVAILABLE;
    case CLOSE_WINDOW_EXPIRED:
        return RECONNECT_WINDOW_OVER;
    case CLOSE_TOKEN_EXPIRED:
    case CLOSE_TOKEN_REVOKED:
        return RECONNECT_REVOKED;
    case CLOSE_UNAUTHENTICATED:
        return RECONNECT_INVALID;
    case CLOSE_PROTOCOL_ERROR:
    case CLOSE_FORBIDDEN:
        return RECONNECT_REFUSED;
    default:
        return RECONNECT_ENDED;
    }
}

/* `resuming`: what is not possible now may be later, and the session must not be given up for it. */
static void refuse_hello(struct client *client, const struct refusal *refusal, bool resuming)
{
    if (client->hello_request_id != 0)
        client_result(client, client->hello_request_id, refusal->code, refusal->retry_after_ms, refusal->detail);
    metric_add_at(M_JOINS, JOIN_REFUSED, 1);
    if (resuming)
        metric_add_at(M_RECONNECTS, reconnect_outcome_of(refusal->close_code), 1);
    bool later = refusal->close_code >= CLOSE_OVERLOADED && refusal->close_code < CLOSE_SESSION_GONE;
    bool rejoin = refusal->close_code >= CLOSE_SESSION_GONE && refusal->close_code < CLOSE_REMOVED;
    client_end(client, refusal->close_code, leave_reason_for(refusal->close_code),
               later && resuming ? SIGNALBOX__V1__LEAVE_ACTION__RESUME
               : later || rejoin ? SIGNALBOX__V1__LEAVE_ACTION__REJOIN
                                 : SIGNALBOX__V1__LEAVE_ACTION__STOP,
               refusal->retry_after_ms, refusal->detail);
}

static void refuse(struct client *client, uint16_t close_code, Signalbox__V1__Code code, const char *detail)
{
    struct refusal refusal = {.close_code = close_code, .code = code};
    snprintf(refusal.detail, sizeof refusal.detail, "%s", detail);
    refuse_hello(client, &refusal, false);
}

static void refuse_resume(struct client *client, uint16_t close_code, Signalbox__V1__Code code, const char *detail)
{
    struct refusal refusal = {.close_code = close_code, .code = code};
    snprintf(refusal.detail, sizeof refusal.detail, "%s", detail);
    refuse_hello(client, &refusal, true);
}

/* --- a new session -------------------------------------------------------------------------------------------------
 */

/* The tracks that the permissions allow; others are left out. The list is in the arena. */
static void allow_tracks(struct arena *arena, const Signalbox__V1__Join *join, Participant *participant)
{
    participant->tracks = arena_alloc(arena, (join->n_tracks + 1) * sizeof *participant->tracks);
    if (participant->tracks == NULL || join->n_tracks == 0)
        return;
    memcpy(participant->tracks, join->tracks, join->n_tracks * sizeof *participant->tracks);
    participant->n_tracks = join->n_tracks;
    grants_drop_tracks(participant);
}

/* The token's attributes with the client's laid over them; in the gateway's arena. False when there are too many. */
static bool merge_attributes(struct arena *arena, const struct jwt_claims *claims, const Signalbox__V1__Join *join,
                             size_t limit, Participant *participant)
{
    typedef Signalbox__V1__Participant__AttributesEntry Entry;
    size_t room = claims->attribute_count + (join != NULL ? join->n_attributes : 0);
    Entry *entries = arena_zalloc(arena, (room + 1) * sizeof *entries);
    Entry **list = arena_zalloc(arena, (room + 1) * sizeof *list);
    if (entries == NULL || list == NULL)
        return false;
    size_t count = 0;
    for (size_t i = 0; i < claims->attribute_count; i++, count++) {
        signalbox__v1__participant__attributes_entry__init(&entries[count]);
        entries[count].key = claims->attributes[i].key;
        entries[count].value = claims->attributes[i].value;
    }
    for (size_t i = 0; join != NULL && i < join->n_attributes; i++) {
        size_t at = 0;
        while (at < count && strcmp(entries[at].key, join->attributes[i]->key) != 0)
            at++;
        if (at == count)
            signalbox__v1__participant__attributes_entry__init(&entries[count++]);
        entries[at].key = join->attributes[i]->key;
        entries[at].value = join->attributes[i]->value;
    }
    for (size_t i = 0; i < count; i++)
        list[i] = &entries[i];
    participant->attributes = list;
    participant->n_attributes = count;
    return count <= limit;
}

static const char *own_text(const char *said, const char *token)
{
    return said != NULL && said[0] != '\0' ? said : token != NULL ? token : "";
}

static void begin(struct client *client, struct session *session, int64_t now_ms)
{
    struct gateway *gateway = client->gateway;
    session->client = client;
    client->session = session;
    client_set_budget(client, session->budget_percent, now_ms);
    timer_set(gateway->wheel, &session->end_timer, now_ms + gateway->options.limits.join_timeout_ms);
    session_announce(session, now_ms);
}

static void join_with(struct client *client, const struct jwt_claims *claims, const Signalbox__V1__Join *join,
                      int64_t now_ms)
{
    struct gateway *gateway = client->gateway;
    struct refusal refusal;
    const char *problem = join != NULL ? check_join(gateway, join) : NULL;
    if (problem != NULL) {
        refuse(client, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__CODE__TOO_LARGE, problem);
        return;
    }
    const char *room_name = join != NULL && join->room[0] != '\0' ? join->room : claims->video.room;
    if (!admission_room(claims, room_name, &refusal) || !gateway_ready(gateway, &refusal) ||
        !gateway_admits(gateway, &refusal) || !gateway_has_capacity(gateway, claims, room_name, &refusal)) {
        refuse_hello(client, &refusal, false);
        return;
    }
    gateway_join_begun(gateway);
    Participant participant = SIGNALBOX__V1__PARTICIPANT__INIT;
    Signalbox__V1__Permissions permissions = SIGNALBOX__V1__PERMISSIONS__INIT;
    Signalbox__V1__Source sources[JWT_SOURCES_MAX];
    arena_reset(&gateway->arena);
    grants_permissions(&claims->video, &permissions, sources);
    if (!merge_attributes(&gateway->arena, claims, join, gateway->options.limits.attributes, &participant)) {
        refuse(client, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__CODE__TOO_LARGE,
               "attributes of the token and the client together are more than limits.attributes");
        return;
    }
    const char *metadata = own_text(join != NULL ? join->metadata : NULL, claims->metadata);
    if (strlen(metadata) > gateway->options.limits.metadata_bytes) {
        refuse(client, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__CODE__TOO_LARGE,
               "the token's metadata is larger than limits.metadata_bytes");
        return;
    }
    participant.identity = (char *)claims->identity;
    participant.name = (char *)own_text(join != NULL ? join->name : NULL, claims->name);
    participant.metadata = (char *)metadata;
    participant.permissions = &permissions;
    participant.kind = claims->video.sfu         ? SIGNALBOX__V1__PARTICIPANT__KIND__MEDIA_SERVER
                       : claims->video.agent     ? SIGNALBOX__V1__PARTICIPANT__KIND__AGENT
                       : permissions.can_publish ? SIGNALBOX__V1__PARTICIPANT__KIND__STANDARD
                                                 : SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER;
    if (join != NULL)
        allow_tracks(&gateway->arena, join, &participant);
    struct sid sid;
    sid_random(&sid);
    struct session *session = session_new(gateway, &sid, room_open(gateway, claims->project, room_name), now_ms);
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN;
    session->access_expires_s = claims->expires_s;
    session->resume_window_ms =
        claims->resume_window_s != 0 ? claims->resume_window_s * 1000 : gateway->options.limits.resume_window_ms;
    session->budget_percent = claims->budget_percent;
    session->room_budget_percent = claims->room_budget_percent;
    snprintf(session->key_id, sizeof session->key_id, "%s", claims->key_id);
    participant.sid = session->sid_text;
    session_set_participant(session, &participant);
    if (join != NULL)
        interest_set(session, join->interest);
    begin(client, session, now_ms);
}

/* --- an old session ------------------------------------------------------------------------------------------------
 */

/* Whether the session was ended so that no token brings it back; the client has been told then. */
static bool is_revoked(struct client *client, const struct sid *sid, int64_t now_ms)
{
    Signalbox__V1__LeaveReason reason = revocations_find(&client->gateway->revocations, sid, now_ms);
    if (reason == SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED)
        return false;
    refuse_resume(client, close_code_for(reason, SIGNALBOX__V1__LEAVE_ACTION__STOP), SIGNALBOX__V1__CODE__NOT_FOUND,
                  "this session was ended");
    return true;
}

static bool open_token(struct client *client, const char *text, struct resume_token *ret_token)
{
    struct gateway *gateway = client->gateway;
    int64_t wall_s = gateway->actions.wall_ms(gateway->ctx) / 1000;
    enum resume_token_result result = resume_token_open(&gateway->token_keys, text, strlen(text), wall_s, ret_token);
    metric_add_at(M_RESUME_TOKENS, (unsigned)-result, 1);
    if (result == RESUME_TOKEN_EXPIRED || result == RESUME_TOKEN_VERSION) {
        refuse_resume(client, CLOSE_WINDOW_EXPIRED, SIGNALBOX__V1__CODE__NOT_FOUND,
                      "the resume token has run out: join anew");
        return false;
    }
    if (result != RESUME_TOKEN_OK) {
        refuse_resume(client, CLOSE_UNAUTHENTICATED, SIGNALBOX__V1__CODE__UNAUTHENTICATED,
                      "the resume token is not one that this cluster has issued");
        return false;
    }
    if (!jwt_keyring_has(gateway->keyring, ret_token->key_id)) {
        refuse_resume(client, CLOSE_TOKEN_REVOKED, SIGNALBOX__V1__CODE__UNAUTHENTICATED,
                      "the key that signed this session's access token was withdrawn");
        return false;
    }
    if (ret_token->access_expires_s != 0 && ret_token->access_expires_s < wall_s) {
        refuse_resume(client, CLOSE_TOKEN_EXPIRED, SIGNALBOX__V1__CODE__UNAUTHENTICATED,
                      "the session's access token has expired and was not refreshed");
        return false;
    }
    return true;
}

/* The participant as the token and the client know it; used only if the cluster has lost the session. */
static void restore_participant(struct session *session, const struct resume_token *token,
                                const Signalbox__V1__Join *join)
{
    struct arena *arena = &session->gateway->arena;
    Participant participant = SIGNALBOX__V1__PARTICIPANT__INIT;
    Signalbox__V1__Participant__AttributesEntry *entries;
    arena_reset(arena);
    participant.permissions = (Signalbox__V1__Permissions *)protobuf_c_message_unpack(
        &signalbox__v1__permissions__descriptor, &arena->allocator, token->grants_size, token->grants);
    participant.sid = session->sid_text;
    participant.identity = (char *)token->identity;
    participant.kind = (Signalbox__V1__Participant__Kind)token->kind;
    if (join != NULL) {
        participant.name = join->name;
        participant.metadata = join->metadata;
        allow_tracks(arena, join, &participant);
        entries = arena_zalloc(arena, (join->n_attributes + 1) * sizeof *entries);
        participant.attributes = arena_zalloc(arena, (join->n_attributes + 1) * sizeof *participant.attributes);
        for (size_t i = 0; entries != NULL && participant.attributes != NULL && i < join->n_attributes; i++) {
            signalbox__v1__participant__attributes_entry__init(&entries[i]);
            entries[i].key = join->attributes[i]->key;
            entries[i].value = join->attributes[i]->value;
            participant.attributes[participant.n_attributes++] = &entries[i];
        }
    }
    session_set_participant(session, &participant);
}

static void resume(struct client *client, const Signalbox__V1__Hello *hello, int64_t now_ms)
{
    struct gateway *gateway = client->gateway;
    struct resume_token token;
    struct refusal refusal;
    const char *problem = hello->join != NULL ? check_join(gateway, hello->join) : NULL;
    if (problem != NULL) {
        refuse_resume(client, CLOSE_PROTOCOL_ERROR, SIGNALBOX__V1__CODE__TOO_LARGE, problem);
        return;
    }
    if (!open_token(client, hello->resume_token, &token) || is_revoked(client, &token.sid, now_ms))
        return;
    if (!gateway_ready(gateway, &refusal)) {
        refuse_hello(client, &refusal, true);
        return;
    }
    struct session *session = session_new(gateway, &token.sid, room_open(gateway, token.project, token.room), now_ms);
    session->intent = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME;
    session->token_bind_generation = token.bind_generation;
    session->access_expires_s = token.access_expires_s;
    session->resume_window_ms = token.resume_window_ms;
    session->budget_percent = token.budget_percent;
    session->room_budget_percent = token.room_budget_percent;
    session->grants_version = token.grants_version;
    session->attempt = hello->attempt;
    session->joined_at_ms = token.joined_at_ms;
    session->join_seq = token.join_seq;
    session->join_epoch = (struct epoch){.view = {token.epoch_view_generation, token.epoch_view_seq},
                                         .counter = token.epoch_counter,
                                         .incarnation = token.epoch_incarnation};
    snprintf(session->key_id, sizeof session->key_id, "%s", token.key_id);
    if (hello->last != NULL && epoch_parse(hello->last->epoch, &session->epoch)) {
        session->has_position = true;
        session->seq = hello->last->seq;
    }
    restore_participant(session, &token, hello->join);
    if (hello->join != NULL)
        interest_set(session, hello->join->interest);
    begin(client, session, now_ms);
}

void join_hello(struct client *client, const Signalbox__V1__ClientMessage *message, int64_t now_ms)
{
    struct gateway *gateway = client->gateway;
    const Signalbox__V1__Hello *hello = message->hello;
    timer_cancel(gateway->wheel, &client->hello_timer);
    client->hello_request_id = message->request_id;
    if (hello->agent) {
        refuse(client, CLOSE_FORBIDDEN, SIGNALBOX__V1__CODE__UNKNOWN_MESSAGE,
               "this server does not offer agent connections");
        return;
    }
    if (hello->resume_token[0] != '\0') {
        resume(client, hello, now_ms);
        return;
    }
    struct jwt_claims claims;
    struct refusal refusal;
    if (client->claims != NULL) {
        join_with(client, client->claims, hello->join, now_ms);
        jwt_claims_done(client->claims);
        free(client->claims);
        client->claims = NULL;
    } else if (hello->token[0] != '\0') {
        const char *room = hello->join != NULL ? hello->join->room : "";
        if (!admission_check(gateway, hello->token, strlen(hello->token), room, &claims, &refusal)) {
            refuse_hello(client, &refusal, false);
            return;
        }
        join_with(client, &claims, hello->join, now_ms);
        jwt_claims_done(&claims);
    } else {
        refuse(client, CLOSE_UNAUTHENTICATED, SIGNALBOX__V1__CODE__UNAUTHENTICATED,
               "no access token: give it in hello.token, the Authorization header, access_token in the query or the "
               "subprotocol signalbox.token.<JWT>");
    }
}

/* --- hello_ok ------------------------------------------------------------------------------------------------------
 */

char *join_seal_token(struct session *session)
{
    struct gateway *gateway = session->gateway;
    const Participant *participant = session_participant(session);
    struct resume_token token = {.sid = session->sid,
                                 .epoch_view_generation = session->join_epoch.view.generation,
                                 .epoch_view_seq = session->join_epoch.view.seq,
                                 .epoch_counter = session->join_epoch.counter,
                                 .epoch_incarnation = session->join_epoch.incarnation,
                                 .join_seq = session->join_seq,
                                 .bind_generation = session->bind_generation,
                                 .kind = (uint32_t)participant->kind,
                                 .joined_at_ms = session->joined_at_ms,
                                 .access_expires_s = session->access_expires_s,
                                 .resume_window_ms = session->resume_window_ms,
                                 .budget_percent = session->budget_percent,
                                 .room_budget_percent = session->room_budget_percent,
                                 .grants_version = session->grants_version};
    snprintf(token.project, sizeof token.project, "%s", session->room->project);
    snprintf(token.room, sizeof token.room, "%s", session->room->name);
    snprintf(token.identity, sizeof token.identity, "%s", participant->identity);
    snprintf(token.key_id, sizeof token.key_id, "%s", session->key_id);
    /* A session can live for as long as its access token allows coming back; the owner judges the window. */
    token.expires_s = session->access_expires_s + session->resume_window_ms / 1000 + RESUME_TOKEN_SLACK_S;
    if (participant->permissions != NULL) {
        size_t size = signalbox__v1__permissions__get_packed_size(participant->permissions);
        assert(size <= sizeof token.grants);
        token.grants_size = signalbox__v1__permissions__pack(participant->permissions, token.grants);
    }
    return resume_token_seal(&gateway->token_keys, &token);
}

void join_ice_servers(struct gateway *gateway, const char *user, struct ice_servers *ice)
{
    const struct gateway_turn *turn = &gateway->options.turn;
    ice->count = 0;
    if (turn->url_count == 0)
        return;
    signalbox__v1__ice_server__init(&ice->server);
    ice->server.urls = turn->urls;
    ice->server.n_urls = turn->url_count;
    if (turn->secret != NULL && turn->secret[0] != '\0') {
        int64_t expires_s = gateway->actions.wall_ms(gateway->ctx) / 1000 + turn->ttl_s;
        turn_credentials(turn->secret, user, expires_s, ice->username, sizeof ice->username, ice->password,
                         sizeof ice->password);
        ice->server.username = ice->username;
        ice->server.credential = ice->password;
        ice->server.expires_at_s = expires_s;
    }
    ice->list[0] = &ice->server;
    ice->count = 1;
}

static void fill_limits(const struct gateway_limits *limits, const struct session *session, Signalbox__V1__Limits *out)
{
    out->message_bytes = limits->message_bytes;
    out->metadata_bytes = limits->metadata_bytes;
    out->attributes = limits->attributes;
    out->tracks = limits->tracks;
    out->send_bytes = limits->send_bytes;
    out->directed_window_messages = 64;
    out->directed_window_bytes = 256 * 1024;
    out->session_window_bytes = 4 * 1024 * 1024;
    out->ack_delay_ms = limits->ack_delay_ms;
    out->retransmit_ms = limits->retransmit_ms;
    out->ping_interval_ms = limits->ping_interval_ms;
    out->resume_window_ms = session->resume_window_ms;
}

void join_greet(struct session *session, const Signalbox__Cluster__V1__SessionAck *ack, int64_t now_ms)
{
    struct gateway *gateway = session->gateway;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__HelloOk ok = SIGNALBOX__V1__HELLO_OK__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT, join = SIGNALBOX__V1__POSITION__INIT;
    Signalbox__V1__Limits limits = SIGNALBOX__V1__LIMITS__INIT;
    Signalbox__V1__RetryPolicy retry = SIGNALBOX__V1__RETRY_POLICY__INIT;
    struct ice_servers ice;
    char epoch_text[EPOCH_TEXT_MAX + 1], join_text[EPOCH_TEXT_MAX + 1];
    struct epoch epoch = epoch_from_proto(ack->epoch);
    char *token = join_seal_token(session);

    epoch_format(&epoch, epoch_text);
    epoch_format(&session->join_epoch, join_text);
    position.epoch = epoch_text;
    position.seq = ack->seq;
    join.epoch = join_text;
    join.seq = session->join_seq;
    fill_limits(&gateway->options.limits, session, &limits);
    retry.base_ms = gateway->options.limits.retry_base_ms;
    retry.max_ms = gateway->options.limits.retry_max_ms;
    join_ice_servers(gateway, session->sid_text, &ice);

    ok.sid = session->sid_text;
    ok.resume_token = token;
    ok.recovered = ack->recovered;
    ok.room = session->room->name;
    ok.project = session->room->project;
    ok.position = &position;
    ok.join = &join;
    ok.self = ack->participant;
    ok.ice_servers = ice.list;
    ok.n_ice_servers = ice.count;
    ok.limits = &limits;
    ok.retry_policy = &retry;
    ok.topology = ack->topology;
    ok.sfu_sid = ack->sfu_sid;
    ok.gateway = gateway->options.self.id;
    ok.shard = session->room->owner.id;
    ok.bind_generation = session->bind_generation;
    ok.server_time_ms = gateway->actions.wall_ms(gateway->ctx);
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_HELLO_OK;
    message.hello_ok = &ok;
    client_send(session->client, &message, CLASS_NEGOTIATION);
    if (session->client->hello_request_id != 0)
        client_result(session->client, session->client->hello_request_id, SIGNALBOX__V1__CODE__OK, 0, "");
    session->greeted = true;
    free(token);
}
