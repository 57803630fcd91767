/* Epochs and owners that change, fill up or fall silent, and a bus that comes and goes. */
#include "common/metrics.h"
#include "suite.h"
#include "sync_fixture.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The owner is another one, or the room was put together anew. */
static void epoch_change(uint64_t seq, uint64_t digest, const struct epoch *from, uint64_t from_seq)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__EpochChange change = SIGNALBOX__CLUSTER__V1__EPOCH_CHANGE__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch), from_epoch;
    change.room_key = key_data("r");
    change.epoch = &epoch;
    change.seq = seq;
    change.digest = digest;
    if (from != NULL) {
        from_epoch = epoch_to_proto(from);
        change.from_epoch = &from_epoch;
        change.from_seq = from_seq;
    }
    item.body_case = ITEM(EPOCH_CHANGE);
    item.epoch_change = &change;
    fixture_deliver(&f, &item);
}

START_TEST(older_epochs_are_refused_newer_ones_taken)
{
    struct epoch now = f.epoch;
    uint64_t stale = metric_value(M_BATCHES_STALE);
    f.epoch.counter = 0;
    deliver_events(&f, "r", start + 1, start + 1, "of the past");
    ck_assert_uint_eq(metric_value(M_BATCHES_STALE), stale + 1);
    ck_assert_int_eq(events_of(bob), 0);
    f.epoch.counter = now.counter + 1;
    size_t since = f.sent_count;
    deliver_events(&f, "r", 1, 9, "of a new epoch");
    ck_assert_int_eq(events_of(bob), 0);
    /* Whether the position is one of the new epoch, the owner knows. */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    epoch_change(9, 77, NULL, 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    ck_assert_ptr_null(last_ask()->epoch);
    session_reply(bob, pack_snapshot(&f, 9, ""), 9, false, true);
    deliver_events(&f, "r", 10, 10, "goes on");
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

START_TEST(a_new_owner_is_told_of_every_session)
{
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    const State *state = last_state(&f, ann);
    ck_assert_int_eq((int)state->intent, HOLD);
    ck_assert_int_eq((int)state->state, ATTACHED);
    ck_assert_uint_eq(state->bind_generation, 1);
    ck_assert_uint_eq(state->participant->version, 1);
    ck_assert_uint_eq(state->last_seq, start);
    ck_assert_uint_eq(state->join_seq, start - 1);
    for (size_t i = since; i < f.sent_count; i++)
        ck_assert(node_address_equal(&f.sent[i].to, &f.shard));
    /* It is told of both, and says where the room stands once it knows all of it: elsewhere. */
    for (int i = 0; i < 2; i++) {
        Ack *ack = make_ack(&f, last_state(&f, i == 0 ? ann : bob));
        ack->epoch = NULL;
        deliver_ack(&f, ack);
    }
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    epoch_change(3, 77, NULL, 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    session_reply(ann, pack_snapshot(&f, 3, ""), 3, false, true);
    session_reply(bob, pack_snapshot(&f, 3, ""), 3, false, true);
    deliver_events(&f, "r", 4, 4, "goes on");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

static ProtobufCBinaryData pack_left(uint64_t seq, const char *sid)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__RoomEvents events = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT, *list[] = {&event};
    Signalbox__V1__ParticipantLeft left = SIGNALBOX__V1__PARTICIPANT_LEFT__INIT;
    left.sid = (char *)sid;
    left.reason = REASON(DUPLICATE_IDENTITY);
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT;
    event.left = &left;
    events.first_seq = events.last_seq = seq;
    events.events = list;
    events.n_events = 1;
    message.body_case = BODY(ROOM_EVENTS);
    message.room_events = &events;
    return pack_message(&message);
}

static void deliver_left(uint64_t seq, const char *sid)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = seq;
    batch.class_ = 3;
    batch.message = pack_left(seq, sid);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
}

START_TEST(a_new_owner_is_told_once_of_the_latest_who_left)
{
    char sids[40][SID_TEXT_SIZE + 1];
    for (int i = 0; i < 40; i++) {
        struct sid sid = {.bytes = {(uint8_t)(i + 1)}};
        sid_format(&sid, sids[i]);
        deliver_left(start + 1 + (uint64_t)i, sids[i]);
    }
    fixture_next_owner(&f);
    const State *state = last_state(&f, ann);
    ck_assert_uint_eq(state->n_departures, 32);
    ck_assert_str_eq(state->departures[0]->sid, sids[8]);
    ck_assert_str_eq(state->departures[31]->sid, sids[39]);
    ck_assert_int_eq((int)state->departures[31]->reason, REASON(DUPLICATE_IDENTITY));
    ck_assert_uint_gt(state->departures[31]->left_ms, 0);
    ck_assert_uint_eq(last_state(&f, bob)->n_departures, 0);
    /* Again until it is acknowledged, and no more then. */
    fixture_advance(&f, 400);
    ck_assert_uint_eq(last_state(&f, ann)->n_departures, 32);
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    disconnect_client(&f, ann, false);
    ck_assert_uint_eq(newest_state(&f)->n_departures, 0);
}
END_TEST

/* As where a client comes back to a gateway that had nobody in its room. */
START_TEST(a_new_owner_is_told_of_who_left_in_the_eyes_of_one_client)
{
    char epoch[EPOCH_TEXT_MAX + 1], sid_text[SID_TEXT_SIZE + 1];
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    struct sid sid = {.bytes = {7}};
    sid_format(&sid, sid_text);
    epoch_format(&f.epoch, epoch);
    position.epoch = epoch;
    position.seq = start - 1;
    say_sync(bob, &position, "");
    session_reply(bob, pack_left(start, sid_text), start, true, true);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->n_departures, 1);
    ck_assert_str_eq(last_state(&f, ann)->departures[0]->sid, sid_text);
}
END_TEST

/* What is said of a client that asks to join the room. */
static const State *join_of_cat(void)
{
    int cat = connect_client(&f);
    char *token = mint(&f, "cat", "r", NULL);
    Join join = SIGNALBOX__V1__JOIN__INIT;
    hello_token(&f, cat, token, &join);
    free(token);
    const State *state = newest_state(&f);
    ck_assert_int_eq((int)state->intent, JOIN);
    ck_assert_str_eq(state->participant->identity, "cat");
    return state;
}

START_TEST(a_join_says_where_others_here_stand)
{
    fixture_next_owner(&f);
    const State *state = join_of_cat();
    ck_assert_ptr_nonnull(state->last_epoch);
    ck_assert_uint_eq(state->last_seq, start);
}
END_TEST

/* The room may be gone with them, and would settle for nobody. */
START_TEST(a_join_says_nothing_of_who_has_left)
{
    disconnect_client(&f, ann, true);
    disconnect_client(&f, bob, true); /* neither has been acknowledged */
    const State *state = join_of_cat();
    ck_assert_ptr_null(state->last_epoch);
}
END_TEST

/* Or the new owner's roster would have the digest of the old one, and nobody would be shown the change. */
START_TEST(a_change_that_a_lost_owner_did_not_acknowledge_has_a_version_of_its_own)
{
    Request changes = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetMetadata metadata = SIGNALBOX__V1__SET_METADATA__INIT;
    changes.body_case = REQUEST(SET_METADATA);
    changes.set_metadata = &metadata;
    metadata.set_metadata = true;
    metadata.metadata = (char *)"first";
    request(&f, ann, &changes);
    metadata.metadata = (char *)"second";
    request(&f, ann, &changes);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->participant->version, 3);
    ck_assert_uint_eq(last_state(&f, bob)->participant->version, 1);
    /* The new owner has taken it. */
    Ack *ack = make_ack(&f, last_state(&f, ann));
    ack->participant_version = 3;
    deliver_ack(&f, ack);
    fixture_next_owner(&f);
    ck_assert_uint_eq(last_state(&f, ann)->participant->version, 3);
}
END_TEST

START_TEST(a_room_that_came_whole_goes_on_in_silence)
{
    struct epoch from = f.epoch;
    int snapshots = received_count(&f, 0, ann, BODY(SNAPSHOT));
    fixture_next_owner(&f);
    size_t since = f.sent_count;
    f.epoch.counter++;
    epoch_change(start + 1, 0, &from, start + 1);
    const Message *moved = received(&f, 0, ann, BODY(MOVED), 0);
    ck_assert_ptr_nonnull(moved);
    ck_assert_str_eq(moved->moved->shard, f.shard.id);
    /* One event was missed before the room moved: it is replayed, under the new epoch. */
    const Item *ask = sent(&f, since, ITEM(LINK_POSITIONS), 0);
    ck_assert_uint_eq(ask->link_positions->rooms[0]->seq, start);
    sync_reply("", 0, pack_events(&f, start + 1, start + 1, "missed"), start + 1, true, true, CODE(OK));
    deliver_events(&f, "r", start + 2, start + 2, "goes on");
    ck_assert_int_eq(events_of(bob), 2);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SNAPSHOT)), snapshots);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    /* Said again, or by the owner before: nothing. */
    epoch_change(start + 2, 0, &from, start + 1);
    f.epoch = from;
    epoch_change(start + 5, 0, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
}
END_TEST

/* Their next turn by the clock may be seconds away. */
START_TEST(clients_of_an_owner_that_acts_again_send_again)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__EpochChange change = SIGNALBOX__CLUSTER__V1__EPOCH_CHANGE__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    change.room_key = key_data("r");
    change.epoch = &epoch;
    change.seq = start;
    item.body_case = ITEM(EPOCH_CHANGE);
    item.epoch_change = &change;
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 0);
    change.resumed = true;
    size_t since = f.sent_count;
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
    deliver_events(&f, "r", start + 1, start + 1, "goes on");
    ck_assert_int_eq(events_of(bob), 1);
}
END_TEST

START_TEST(the_same_roster_at_the_same_position_is_adopted_in_silence)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = start + 1;
    batch.class_ = 3;
    batch.message = pack_events(&f, start + 1, start + 1, "hears of the digest");
    batch.digest = 77;
    batch.exclude_sid = (char *)"";
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
    fixture_next_owner(&f);
    size_t since = f.sent_count;
    f.epoch.counter++;
    epoch_change(start + 1, 77, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    deliver_events(&f, "r", start + 2, start + 2, "goes on");
    ck_assert_int_eq(events_of(bob), 2);
    /* Another roster, or another position, is not. */
    f.epoch.counter++;
    epoch_change(start + 2, 78, NULL, 0);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(MOVED)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
}
END_TEST

START_TEST(a_new_owner_that_says_nothing_is_asked)
{
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    fixture_advance(&f, 499);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 0);
    fixture_advance(&f, 1001);
    ck_assert_int_ge(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
}
END_TEST

START_TEST(an_owner_that_lost_the_room_is_told_again)
{
    size_t since = f.sent_count;
    sync_reply("", 0, (ProtobufCBinaryData){0}, 0, false, false, CODE(NOT_FOUND));
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    f.epoch.counter++;
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1); /* it has the room again, in another epoch */
}
END_TEST

START_TEST(not_owner_is_told_again_or_waits)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__NotOwner not_owner = SIGNALBOX__CLUSTER__V1__NOT_OWNER__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    int carl = connect_client(&f);
    char *token = mint(&f, "carl", "r", NULL);
    hello_token(&f, carl, token, NULL);
    free(token);
    not_owner.room_key = key_data("r");
    not_owner.sid = newest_state(&f)->sid;
    not_owner.connection = newest_state(&f)->connection;
    not_owner.view = &view;
    view.generation = 1;
    view.seq = f.view->number.seq;
    item.body_case = ITEM(NOT_OWNER);
    item.not_owner = &not_owner;
    fixture_deliver(&f, &item); /* the shard was behind */
    size_t since = f.sent_count;
    fixture_advance(&f, 600);
    ck_assert_uint_gt(f.sent_count, since);
    view.seq++; /* this gateway is behind */
    fixture_deliver(&f, &item);
    since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 3);
}
END_TEST

START_TEST(where_all_shards_are_full_only_known_rooms_are_joined)
{
    struct jwt_claims claims = {0};
    struct refusal refusal;
    strcpy(claims.project, "p");
    ck_assert(gateway_has_capacity(f.gateway, &claims, "elsewhere", &refusal));
    struct view *view = view_copy(f.view);
    view->number.seq++;
    view->shards[0].full = true;
    gateway_view(f.gateway, view, f.now_ms);
    view_unref(&view);
    ck_assert(!gateway_has_capacity(f.gateway, &claims, "elsewhere", &refusal));
    ck_assert_int_eq(refusal.http_status, 503);
    ck_assert_int_eq(refusal.code, CODE(NO_CAPACITY));
    ck_assert_uint_gt(refusal.retry_after_ms, 0);
    ck_assert(gateway_ready(f.gateway, &refusal)); /* for resumes */
}
END_TEST

START_TEST(a_bus_that_comes_and_goes)
{
    gateway_bus(f.gateway, false, f.now_ms);
    ck_assert(received(&f, 0, ann, BODY(DEGRADED), 0)->degraded->degraded);
    struct refusal refusal;
    ck_assert(!gateway_ready(f.gateway, &refusal));
    ck_assert_int_eq(refusal.http_status, 503);
    size_t since = f.sent_count;
    gateway_bus(f.gateway, true, f.now_ms);
    ck_assert(!received(&f, 0, bob, BODY(DEGRADED), 1)->degraded->degraded);
    ck_assert(gateway_ready(f.gateway, &refusal));
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    deliver_ack(&f, make_ack(&f, last_state(&f, ann)));
    deliver_ack(&f, make_ack(&f, last_state(&f, bob)));
    since = f.sent_count;
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 0);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
}
END_TEST

/* Removed while it could not be heard. With the bus alone it is not back: shards listen to those in their view. */
START_TEST(a_gateway_that_was_removed_is_back_with_the_view_that_lists_it)
{
    struct node_address self = f.options.self;
    self.incarnation++;
    gateway_bus(f.gateway, false, f.now_ms);
    gateway_rename(f.gateway, &self);
    gateway_bus(f.gateway, true, f.now_ms);
    fixture_advance(&f, 5000); /* what it says goes nowhere, so that it says it less and less often */
    ck_assert(received(&f, 0, ann, BODY(DEGRADED), 0)->degraded->degraded);
    ck_assert_ptr_null(received(&f, 0, ann, BODY(DEGRADED), 1));
    size_t since = f.sent_count;
    struct view *view = view_copy(f.view);
    struct view_node node = {.incarnation = self.incarnation};
    memcpy(node.id, self.id, sizeof node.id);
    view->number.seq++;
    view_put_gateway(view, &node);
    gateway_view(f.gateway, view, f.now_ms);
    view_unref(&view);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    ck_assert(!received(&f, 0, ann, BODY(DEGRADED), 1)->degraded->degraded);
    struct refusal refusal;
    ck_assert(gateway_ready(f.gateway, &refusal));
}
END_TEST

/* A gateway of thousands, all of whom a new owner must be told of. */
START_TEST(a_resync_is_paced_by_its_acknowledgements)
{
    enum { ROOMS = 40, WINDOW = 256 };
    char name[32], identity[32];
    int sessions = 2;
    for (int i = 0; i < 2 * WINDOW; i++, sessions++) {
        snprintf(name, sizeof name, "room-%d", i % ROOMS);
        snprintf(identity, sizeof identity, "p%d", i);
        int client = join_client(&f, identity, name, NULL);
        disconnect_client(&f, client, false);
        deliver_ack(&f, make_ack(&f, newest_state(&f)));
    }
    ck_assert_uint_eq(gateway_stats(f.gateway).sessions, (size_t)sessions);
    size_t since = f.sent_count;
    fixture_next_owner(&f);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    ck_assert_int_ne(view_number_compare(gateway_reported(f.gateway), f.view->number), 0);
    fixture_advance(&f, 100); /* nothing is acknowledged: nothing further is said */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    for (int acked = 0; acked < sessions; acked++) {
        deliver_ack(&f, make_ack(&f, sent(&f, since, ITEM(SESSION_STATE), acked)->session_state));
        if (acked % 100 == 0)
            fixture_advance(&f, 10);
        ck_assert_int_le(sent_count(&f, since, ITEM(SESSION_STATE)), acked + 1 + WINDOW);
        if (acked + 1 == sent_count(&f, since, ITEM(SESSION_STATE)))
            fixture_advance(&f, 10);
    }
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), sessions);
    ck_assert_int_eq(view_number_compare(gateway_reported(f.gateway), f.view->number), 0);

    since = f.sent_count;
    gateway_gap(f.gateway, &f.shard, f.now_ms);
    gateway_gap(f.gateway, &f.shard, f.now_ms); /* while the first is worked off */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), WINDOW);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("owners");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, older_epochs_are_refused_newer_ones_taken);
    tcase_add_test(tests, a_new_owner_is_told_of_every_session);
    tcase_add_test(tests, a_new_owner_is_told_once_of_the_latest_who_left);
    tcase_add_test(tests, a_new_owner_is_told_of_who_left_in_the_eyes_of_one_client);
    tcase_add_test(tests, a_join_says_where_others_here_stand);
    tcase_add_test(tests, a_join_says_nothing_of_who_has_left);
    tcase_add_test(tests, a_change_that_a_lost_owner_did_not_acknowledge_has_a_version_of_its_own);
    tcase_add_test(tests, a_room_that_came_whole_goes_on_in_silence);
    tcase_add_test(tests, clients_of_an_owner_that_acts_again_send_again);
    tcase_add_test(tests, the_same_roster_at_the_same_position_is_adopted_in_silence);
    tcase_add_test(tests, a_new_owner_that_says_nothing_is_asked);
    tcase_add_test(tests, an_owner_that_lost_the_room_is_told_again);
    tcase_add_test(tests, not_owner_is_told_again_or_waits);
    tcase_add_test(tests, where_all_shards_are_full_only_known_rooms_are_joined);
    tcase_add_test(tests, a_bus_that_comes_and_goes);
    tcase_add_test(tests, a_gateway_that_was_removed_is_back_with_the_view_that_lists_it);
    tcase_add_test(tests, a_resync_is_paced_by_its_acknowledgements);
    return suite_run("gateway_owners", tests, NULL);
}
