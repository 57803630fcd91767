/* What a joined client asks for itself: carried out, or refused with a code; what it may ask for, and how it ends. */
#include "common/metrics.h"
#include "request_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <stdlib.h>

/* --- the participant's own state ------------------------------------------------------------------------------- */

/* A change is answered when the owner has acknowledged it, not before. */
static void changes(Request *message)
{
    ck_assert_int_eq(ask(ann, message), 0);
    uint32_t request_id = message->request_id;
    const State *state = last_state(&f, ann);
    Ack *early = make_ack(&f, state);
    early->version--;
    deliver_ack(&f, early);
    ck_assert_int_eq(code_of(ann, request_id), 0);
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_int_eq(code_of(ann, request_id), CODE(OK));
    size_t before = f.sent_count;
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, before, ITEM(SESSION_STATE)), 0);
}

START_TEST(tracks_are_published_muted_and_unpublished)
{
    Signalbox__V1__Track track = SIGNALBOX__V1__TRACK__INIT;
    Signalbox__V1__PublishTrack publish = SIGNALBOX__V1__PUBLISH_TRACK__INIT;
    track.id = (char *)"mic";
    publish.track = &track;
    REQUEST_WITH(publishes, PUBLISH_TRACK, publish_track, &publish, NULL);
    changes(&publishes);
    ck_assert_uint_eq(last_state(&f, ann)->participant->n_tracks, 1);
    track.name = (char *)"renamed";
    changes(&publishes);
    ck_assert_uint_eq(last_state(&f, ann)->participant->n_tracks, 1);
    ck_assert_str_eq(last_state(&f, ann)->participant->tracks[0]->name, "renamed");

    Signalbox__V1__Mute mute = SIGNALBOX__V1__MUTE__INIT;
    mute.track_id = (char *)"mic";
    mute.muted = true;
    REQUEST_WITH(mutes, MUTE, mute, &mute, NULL);
    changes(&mutes);
    ck_assert(last_state(&f, ann)->participant->tracks[0]->muted);
    mute.track_id = (char *)"cam";
    ck_assert_int_eq(ask(ann, &mutes), CODE(NOT_FOUND));

    Signalbox__V1__UnpublishTrack unpublish = SIGNALBOX__V1__UNPUBLISH_TRACK__INIT;
    unpublish.track_id = (char *)"cam";
    REQUEST_WITH(unpublishes, UNPUBLISH_TRACK, unpublish_track, &unpublish, NULL);
    ck_assert_int_eq(ask(ann, &unpublishes), CODE(NOT_FOUND));
    unpublish.track_id = (char *)"mic";
    changes(&unpublishes);
    ck_assert_uint_eq(last_state(&f, ann)->participant->n_tracks, 0);
}
END_TEST

START_TEST(tracks_beyond_rights_and_limits)
{
    Signalbox__V1__Track track = SIGNALBOX__V1__TRACK__INIT;
    Signalbox__V1__PublishTrack publish = SIGNALBOX__V1__PUBLISH_TRACK__INIT;
    char id[16];
    REQUEST_WITH(message, PUBLISH_TRACK, publish_track, &publish, NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    publish.track = &track;
    ck_assert_int_eq(ask(ann, &message), CODE(INVALID));
    track.id = id;
    for (unsigned i = 0; i < f.options.limits.tracks; i++) {
        snprintf(id, sizeof id, "%u", i);
        ck_assert_int_eq(ask(ann, &message), 0);
        deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    }
    snprintf(id, sizeof id, "more");
    ck_assert_int_eq(ask(ann, &message), CODE(LIMIT_REACHED));
    int viewer = join_client(&f, "viewer", "r", json_pack("{s:b}", "canPublish", 0));
    ck_assert_int_eq(ask(viewer, &message), CODE(FORBIDDEN));
    int camera = join_client(&f, "camera", "r", json_pack("{s:[s]}", "canPublishSources", "camera"));
    ck_assert_int_eq(ask(camera, &message), CODE(FORBIDDEN));
    track.source = SIGNALBOX__V1__SOURCE__CAMERA;
    ck_assert_int_eq(ask(camera, &message), 0);
}
END_TEST

START_TEST(metadata_is_laid_over)
{
    typedef Signalbox__V1__SetMetadata__AttributesEntry Entry;
    Signalbox__V1__SetMetadata set = SIGNALBOX__V1__SET_METADATA__INIT;
    Entry entries[2] = {SIGNALBOX__V1__SET_METADATA__ATTRIBUTES_ENTRY__INIT,
                        SIGNALBOX__V1__SET_METADATA__ATTRIBUTES_ENTRY__INIT};
    Entry *list[2] = {&entries[0], &entries[1]};
    entries[0].key = (char *)"a";
    entries[0].value = (char *)"1";
    entries[1].key = (char *)"b";
    entries[1].value = (char *)"2";
    set.name = (char *)"Ann";
    set.metadata = (char *)"ignored without set_metadata";
    set.attributes = list;
    set.n_attributes = 2;
    REQUEST_WITH(message, SET_METADATA, set_metadata, &set, NULL);
    changes(&message);
    const Participant *participant = last_state(&f, ann)->participant;
    ck_assert_str_eq(participant->name, "Ann");
    ck_assert_str_eq(participant->metadata, "");
    ck_assert_uint_eq(participant->n_attributes, 2);
    entries[0].value = (char *)"";
    entries[1].value = (char *)"3";
    set.name = (char *)"";
    set.set_metadata = true;
    set.metadata = (char *)"data";
    changes(&message);
    participant = last_state(&f, ann)->participant;
    ck_assert_str_eq(participant->name, "Ann");
    ck_assert_str_eq(participant->metadata, "data");
    ck_assert_uint_eq(participant->n_attributes, 1);
    ck_assert_str_eq(participant->attributes[0]->value, "3");
    entries[1].value = (char *)long_text(513);
    ck_assert_int_eq(ask(ann, &message), CODE(TOO_LARGE));
    set.n_attributes = 0;
    set.metadata = (char *)long_text(f.options.limits.metadata_bytes + 1);
    ck_assert_int_eq(ask(ann, &message), CODE(TOO_LARGE));
    int fixed = join_client(&f, "fixed", "r", json_pack("{s:b}", "canUpdateOwnMetadata", 0));
    set.metadata = (char *)"";
    ck_assert_int_eq(ask(fixed, &message), CODE(FORBIDDEN));
}
END_TEST

START_TEST(changes_without_an_owner_are_bounded)
{
    Signalbox__V1__SetMetadata set = SIGNALBOX__V1__SET_METADATA__INIT;
    REQUEST_WITH(message, SET_METADATA, set_metadata, &set, NULL);
    for (int i = 0; i < 32; i++)
        ck_assert_int_eq(ask(ann, &message), 0);
    uint64_t version = last_state(&f, ann)->version;
    ck_assert_int_eq(ask(ann, &message), CODE(RETRY));
    ck_assert_uint_gt(result_of(&f, ann, message.request_id)->retry_after_ms, 0);
    ck_assert_uint_eq(last_state(&f, ann)->version, version);
    int before = received_count(&f, 0, ann, BODY(RESULT));
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(RESULT)), before + 32);
}
END_TEST

/* --- upkeep, budgets, endings ---------------------------------------------------------------------------------- */

START_TEST(pong_tells_the_position)
{
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    ping.nonce = 77;
    REQUEST_WITH(message, PING, ping, &ping, NULL);
    deliver_events(&f, "r", f.seq + 1, f.seq + 2, "x");
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    const Signalbox__V1__Pong *pong = received(&f, 0, ann, BODY(PONG), 0)->pong;
    ck_assert_uint_eq(pong->nonce, 77);
    ck_assert_uint_eq(pong->position->seq, f.seq + 2);
}
END_TEST

START_TEST(unknown_messages_are_answered)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    ck_assert_int_eq(ask(ann, &message), CODE(UNKNOWN_MESSAGE));
    Signalbox__V1__AgentJoin join = SIGNALBOX__V1__AGENT_JOIN__INIT;
    message.body_case = REQUEST(AGENT_JOIN);
    message.agent_join = &join;
    ck_assert_int_eq(ask(ann, &message), CODE(UNKNOWN_MESSAGE));
}
END_TEST

START_TEST(fresh_ice_credentials)
{
    Signalbox__V1__RefreshIce refresh = SIGNALBOX__V1__REFRESH_ICE__INIT;
    REQUEST_WITH(message, REFRESH_ICE, refresh_ice, &refresh, NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(ICE_REFRESH)), 1);
}
END_TEST

START_TEST(access_tokens_are_refreshed)
{
    Signalbox__V1__RefreshToken refresh = SIGNALBOX__V1__REFRESH_TOKEN__INIT;
    REQUEST_WITH(message, REFRESH_TOKEN, refresh_token, &refresh, NULL);
    refresh.token = mint(&f, "bob", "r", NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(FORBIDDEN));
    free(refresh.token);
    refresh.token = mint(&f, "ann", "other", NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(FORBIDDEN));
    free(refresh.token);
    refresh.token = (char *)"nonsense";
    ck_assert_int_eq(ask(ann, &message), CODE(UNAUTHENTICATED));
    fixture_advance(&f, (TOKEN_TTL_S - 1) * 1000);
    refresh.token = mint(&f, "ann", "r", NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    free(refresh.token);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(TOKEN_REFRESH)), 1);
    fixture_advance(&f, (TOKEN_TTL_S - 1) * 1000);
    ck_assert(!f.clients[ann].closed);
    fixture_advance(&f, 1000);
    assert_closed(&f, ann, CLOSE_TOKEN_EXPIRED, REASON(TOKEN_EXPIRED), ACTION(STOP));
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED);
    ck_assert_int_eq((int)last_state(&f, ann)->reason, REASON(TOKEN_EXPIRED));
}
END_TEST

START_TEST(a_refreshed_token_brings_its_grants)
{
    Signalbox__V1__PublishTrack publish = SIGNALBOX__V1__PUBLISH_TRACK__INIT;
    Signalbox__V1__Track track = SIGNALBOX__V1__TRACK__INIT;
    track.id = (char *)"cam";
    track.kind = SIGNALBOX__V1__TRACK__KIND__VIDEO;
    track.source = SIGNALBOX__V1__SOURCE__CAMERA;
    publish.track = &track;
    REQUEST_WITH(publishing, PUBLISH_TRACK, publish_track, &publish, NULL);
    request(&f, ann, &publishing);
    ck_assert_uint_eq(last_state(&f, ann)->participant->n_tracks, 1);

    Signalbox__V1__RefreshToken refresh = SIGNALBOX__V1__REFRESH_TOKEN__INIT;
    REQUEST_WITH(message, REFRESH_TOKEN, refresh_token, &refresh, NULL);
    uint64_t version = last_state(&f, ann)->version;
    refresh.token = mint(&f, "ann", "r", NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    free(refresh.token);
    ck_assert_uint_eq(last_state(&f, ann)->version, version); /* the same grants: nothing to say */
    refresh.token = mint(&f, "ann", "r", json_pack("{s:[s], s:b}", "canPublishSources", "microphone", "hidden", 1));
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    free(refresh.token);
    const State *state = last_state(&f, ann);
    ck_assert_uint_eq(state->grants_version, 1);
    ck_assert_uint_eq(state->participant->n_tracks, 0);
    ck_assert(!state->participant->permissions->hidden);
    ck_assert_int_eq(ask(ann, &publishing), CODE(FORBIDDEN));
    /* The resume token says so to an owner that knows nothing of it. */
    const Message *refreshed = received(&f, 0, ann, BODY(TOKEN_REFRESH), 1);
    int again = connect_client(&f);
    hello_resume(&f, again, refreshed->token_refresh->resume_token, NULL);
    ck_assert_uint_eq(newest_state(&f)->grants_version, 1);
    ck_assert_uint_eq(newest_state(&f)->participant->permissions->n_can_publish_sources, 1);
}
END_TEST

START_TEST(a_withdrawn_key_ends_its_sessions)
{
    int bob = join_client(&f, "bob", "r", NULL);
    disconnect_client(&f, bob, false); /* may not come back either */
    struct jwt_keyring *without = jwt_keyring_new(0);
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    ck_assert(!f.clients[ann].closed);
    gateway_reconfigure(f.gateway, &f.options, without, &f.token_keys);
    assert_closed(&f, ann, CLOSE_TOKEN_REVOKED, REASON(TOKEN_REVOKED), ACTION(STOP));
    for (int i = 0; i < 2; i++) {
        const State *state = last_state(&f, i == 0 ? ann : bob);
        ck_assert_int_eq((int)state->state, DEPARTED);
        ck_assert_int_eq((int)state->reason, REASON(TOKEN_REVOKED));
    }
    gateway_reconfigure(f.gateway, &f.options, f.keyring, &f.token_keys);
    jwt_keyring_unref(&without);
}
END_TEST

START_TEST(over_budget_is_throttled_then_closed)
{
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    REQUEST_WITH(message, PING, ping, &ping, NULL);
    while (ask(ann, &message) == CODE(OK))
        ;
    const Signalbox__V1__Result *result = result_of(&f, ann, message.request_id);
    ck_assert_int_eq((int)result->code, CODE(THROTTLED));
    ck_assert_uint_gt(result->retry_after_ms, 0);
    const Message *throttled = received(&f, 0, ann, BODY(THROTTLED), 0);
    ck_assert_int_eq((int)throttled->throttled->scope, SIGNALBOX__V1__THROTTLED__SCOPE__CONNECTION);
    fixture_advance(&f, result->retry_after_ms);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    for (uint32_t i = 0; i < f.options.limits.abuse_strikes && !f.clients[ann].closed; i++)
        request(&f, ann, &message);
    assert_closed(&f, ann, CLOSE_ABUSE, REASON(ABUSE), ACTION(STOP));
    ck_assert_int_eq((int)last_state(&f, ann)->state, DEPARTED);
    ck_assert_int_eq((int)last_state(&f, ann)->reason, REASON(ABUSE));
}
END_TEST

START_TEST(signals_over_budget_are_dropped_and_keep_nothing_else_waiting)
{
    uint64_t dropped = metric_value_at(M_UPDATES_DROPPED_REASON, DROP_CLIENT_BUDGET);
    size_t sent_before = f.sent_count, since = f.received_count;
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    Signalbox__V1__Ping ping = SIGNALBOX__V1__PING__INIT;
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL;
    REQUEST_WITH(signal, SEND, send, &send, NULL);
    REQUEST_WITH(other, PING, ping, &ping, NULL);
    for (uint32_t i = 0; i < f.options.limits.signals_burst + 3; i++)
        request(&f, ann, &signal);
    ck_assert_int_eq(sent_count(&f, sent_before, ITEM(SIGNAL)), (int)f.options.limits.signals_burst);
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED_REASON, DROP_CLIENT_BUDGET), dropped + 3);
    /* It is told once for all that it sends at one moment. */
    ck_assert_int_eq(received_count(&f, since, ann, BODY(THROTTLED)), 1);
    const Message *throttled = received(&f, since, ann, BODY(THROTTLED), 0);
    ck_assert_str_eq(throttled->throttled->budget, "signals");
    ck_assert_int_eq((int)throttled->throttled->scope, SIGNALBOX__V1__THROTTLED__SCOPE__CONNECTION);
    fixture_advance(&f, throttled->throttled->retry_after_ms);
    request(&f, ann, &signal);
    request(&f, ann, &signal);
    ck_assert_int_eq(sent_count(&f, sent_before, ITEM(SIGNAL)), (int)f.options.limits.signals_burst + 1);
    for (uint32_t i = 0; i < f.options.limits.messages_burst; i++)
        ck_assert_int_eq(ask(ann, &other), CODE(OK));
}
END_TEST

START_TEST(a_room_over_budget_tells_who_asked_and_closes_who_keeps_on)
{
    int bob = join_client(&f, "bob", "r", NULL);
    Signalbox__Cluster__V1__RoomThrottled body = SIGNALBOX__CLUSTER__V1__ROOM_THROTTLED__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    size_t since = f.received_count;
    body.room_key = key_data("r");
    body.sid = f.clients[ann].sid;
    body.budget = (char *)"p4_ephemeral";
    body.retry_after_ms = 40;
    body.count = f.options.limits.abuse_strikes - 2;
    item.body_case = ITEM(ROOM_THROTTLED);
    item.room_throttled = &body;
    fixture_deliver(&f, &item);
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL;
    REQUEST_WITH(signal, SEND, send, &send, NULL);
    fixture_advance(&f, 39);
    size_t sent_before = f.sent_count;
    request(&f, ann, &signal); /* not even passed on */
    ck_assert_int_eq(sent_count(&f, sent_before, ITEM(SIGNAL)), 0);
    fixture_advance(&f, 1);
    request(&f, ann, &signal);
    ck_assert_int_eq(sent_count(&f, sent_before, ITEM(SIGNAL)), 1);
    const Message *throttled = received(&f, since, ann, BODY(THROTTLED), 0);
    ck_assert_int_eq((int)throttled->throttled->scope, SIGNALBOX__V1__THROTTLED__SCOPE__ROOM);
    ck_assert_str_eq(throttled->throttled->budget, "p4_ephemeral");
    ck_assert_uint_eq(throttled->throttled->retry_after_ms, 40);
    ck_assert(!f.clients[ann].closed);
    body.count = 1;
    fixture_deliver(&f, &item);
    assert_closed(&f, ann, CLOSE_ABUSE, REASON(ABUSE), ACTION(STOP));
    ck_assert_int_eq(received_count(&f, since, bob, BODY(THROTTLED)), 0);
    ck_assert(!f.clients[bob].closed);
    fixture_deliver(&f, &item); /* for a session that has no connection any more */
}
END_TEST

static void deliver_signals(const char *room)
{
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Signals signals = SIGNALBOX__V1__SIGNALS__INIT;
    message.body_case = BODY(SIGNALS);
    message.signals = &signals;
    batch.room_key = key_data(room);
    batch.epoch = &epoch;
    batch.class_ = CLASS_EPHEMERAL;
    batch.message = pack_message(&message);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
}

START_TEST(short_of_memory_it_takes_no_new_sessions_and_queues_no_signals)
{
    char *token = mint(&f, "late", "r", NULL);
    size_t since = f.received_count;
    gateway_shed(f.gateway, SHED_JOINS);
    int late = connect_client(&f);
    hello_token(&f, late, token, NULL);
    assert_closed(&f, late, CLOSE_OVERLOADED, REASON(CAPACITY), ACTION(REJOIN));
    int again = connect_client(&f);
    size_t sent_before = f.sent_count;
    hello_resume(&f, again, f.clients[ann].resume_token, NULL);
    ck_assert_ptr_nonnull(sent(&f, sent_before, ITEM(SESSION_STATE), 0));
    deliver_signals("r");
    ck_assert_int_eq(received_count(&f, since, ann, BODY(SIGNALS)), 1);
    uint64_t dropped = metric_value_at(M_UPDATES_DROPPED_REASON, DROP_GATEWAY_MEMORY);
    gateway_shed(f.gateway, SHED_EPHEMERAL);
    deliver_signals("r");
    ck_assert_int_eq(received_count(&f, since, ann, BODY(SIGNALS)), 1);
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED_REASON, DROP_GATEWAY_MEMORY), dropped + 1);
    gateway_shed(f.gateway, SHED_NOTHING);
    deliver_signals("r");
    ck_assert_int_eq(received_count(&f, since, ann, BODY(SIGNALS)), 2);
    int welcome = connect_client(&f);
    hello_token(&f, welcome, token, NULL);
    ck_assert(!f.clients[welcome].closed);
    free(token);
}
END_TEST

START_TEST(a_token_scales_the_connections_budget_and_names_the_rooms)
{
    json_t *claims = json_pack("{s:s, s:s, s:I, s:i, s:i, s:{s:b, s:s}}", "iss", "key", "sub", "bot", "exp",
                               (json_int_t)(fixture_wall_s(&f) + TOKEN_TTL_S), "budgetPercent", 50, "roomBudgetPercent",
                               250, "video", "roomJoin", 1, "room", "r");
    char *token = jwt_mint(FIXTURE_SECRET, claims);
    json_decref(claims);
    int bot = connect_client(&f);
    hello_token(&f, bot, token, NULL);
    free(token);
    const State *state = newest_state(&f);
    ck_assert_uint_eq(state->room_budget_percent, 250);
    bind_session(&f, state, 1, 1);
    Request ping = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Ping body = SIGNALBOX__V1__PING__INIT;
    ping.body_case = REQUEST(PING);
    ping.ping = &body;
    size_t since = f.received_count;
    for (uint32_t i = 0; i < f.options.limits.messages_burst; i++)
        request(&f, bot, &ping);
    ck_assert_int_eq(received_count(&f, since, bot, BODY(PONG)), (int)f.options.limits.messages_burst / 2);
}
END_TEST

START_TEST(malformed_messages_add_up)
{
    int count = 0;
    for (; !f.clients[ann].closed; count++)
        gateway_client_malformed(f.gateway, f.clients[ann].client, "not protobuf", f.now_ms);
    ck_assert_int_eq(count, 25);
    ck_assert_int_eq((int)result_of(&f, ann, 0)->code, CODE(INVALID));
    assert_closed(&f, ann, CLOSE_PROTOCOL_ERROR, REASON(PROTOCOL_ERROR), ACTION(STOP));
}
END_TEST

START_TEST(leave_departs)
{
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    REQUEST_WITH(message, LEAVE, leave, &leave, NULL);
    ck_assert_int_eq(ask(ann, &message), CODE(OK));
    assert_closed(&f, ann, 1000, REASON(CLIENT_LEFT), ACTION(STOP));
    const State *state = last_state(&f, ann);
    ck_assert_int_eq((int)state->state, DEPARTED);
    ck_assert_int_eq((int)state->reason, REASON(CLIENT_LEFT));
    ck_assert_uint_eq(state->bind_generation, 1);
    disconnect_client(&f, ann, true);
    size_t before = f.sent_count;
    fixture_advance(&f, 300); /* until it is acknowledged */
    ck_assert_uint_eq(f.sent_count, before + 1);
    deliver_ack(&f, make_ack(&f, state));
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, 0);
    ck_assert_uint_eq(gateway_stats(f.gateway).rooms, 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("requests");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, tracks_are_published_muted_and_unpublished);
    tcase_add_test(tests, tracks_beyond_rights_and_limits);
    tcase_add_test(tests, metadata_is_laid_over);
    tcase_add_test(tests, changes_without_an_owner_are_bounded);
    tcase_add_test(tests, pong_tells_the_position);
    tcase_add_test(tests, unknown_messages_are_answered);
    tcase_add_test(tests, fresh_ice_credentials);
    tcase_add_test(tests, access_tokens_are_refreshed);
    tcase_add_test(tests, a_refreshed_token_brings_its_grants);
    tcase_add_test(tests, a_withdrawn_key_ends_its_sessions);
    tcase_add_test(tests, over_budget_is_throttled_then_closed);
    tcase_add_test(tests, signals_over_budget_are_dropped_and_keep_nothing_else_waiting);
    tcase_add_test(tests, a_room_over_budget_tells_who_asked_and_closes_who_keeps_on);
    tcase_add_test(tests, short_of_memory_it_takes_no_new_sessions_and_queues_no_signals);
    tcase_add_test(tests, a_token_scales_the_connections_budget_and_names_the_rooms);
    tcase_add_test(tests, malformed_messages_add_up);
    tcase_add_test(tests, leave_departs);
    return suite_run("gateway_requests", tests, NULL);
}
