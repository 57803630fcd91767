/* The room's order on its way to clients: batches, gaps, snapshots in pages. */
#include "suite.h"
#include "sync_fixture.h"

static const Signalbox__V1__RoomEvents *last_events(int client)
{
    return received(&f, 0, client, BODY(ROOM_EVENTS), events_of(client) - 1)->room_events;
}

/* --- batches --------------------------------------------------------------------------------------------------- */

START_TEST(a_batch_is_one_frame_for_all)
{
    ck_assert_int_eq(events_of(ann), 1);
    ck_assert_int_eq(events_of(bob), 0); /* it was in his snapshot */
    deliver_events(&f, "r", start + 1, start + 3, "x");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 1);
    ck_assert_ptr_eq(f.received[f.received_count - 1].raw, f.received[f.received_count - 2].raw);
    deliver_events(&f, "r", start + 1, start + 3, "x"); /* again */
    ck_assert_int_eq(events_of(ann), 2);
    deliver_events(&f, "r", start + 2, start + 4, "partly seen");
    ck_assert_int_eq(events_of(ann), 3);
    deliver_events(&f, "elsewhere", 1, 1, "x");
    ck_assert_int_eq(events_of(ann), 3);
}
END_TEST

START_TEST(signals_are_filtered)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Signals signals = SIGNALBOX__V1__SIGNALS__INIT;
    Signalbox__V1__Signal each[2] = {SIGNALBOX__V1__SIGNAL__INIT, SIGNALBOX__V1__SIGNAL__INIT};
    Signalbox__V1__Signal *list[2] = {&each[0], &each[1]};
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    each[0].from = each[1].from = f.clients[bob].sid;
    each[0].key = (char *)"speaking";
    each[1].key = (char *)"cursor";
    signals.signals = list;
    signals.n_signals = 2;
    message.body_case = BODY(SIGNALS);
    message.signals = &signals;
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.class_ = CLASS_EPHEMERAL;
    batch.message = pack_message(&message);
    batch.exclude_sid = f.clients[bob].sid;
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
    ck_assert_uint_eq(received(&f, 0, ann, BODY(SIGNALS), 0)->signals->n_signals, 2);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(SIGNALS)), 0);

    Request request_message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetInterest set = SIGNALBOX__V1__SET_INTEREST__INIT;
    Signalbox__V1__Interest interest = SIGNALBOX__V1__INTEREST__INIT;
    char *keys[1] = {(char *)"cursor"}, *sids[1] = {f.clients[ann].sid};
    interest.mute_keys = keys;
    interest.n_mute_keys = 1;
    set.interest = &interest;
    request_message.body_case = REQUEST(SET_INTEREST);
    request_message.set_interest = &set;
    request(&f, ann, &request_message);
    fixture_deliver(&f, &item);
    const Message *filtered = received(&f, 0, ann, BODY(SIGNALS), 1);
    ck_assert_uint_eq(filtered->signals->n_signals, 1);
    ck_assert_str_eq(filtered->signals->signals[0]->key, "speaking");
    interest.signal_sids = sids; /* only of herself: nothing is left */
    interest.n_signal_sids = 1;
    request(&f, ann, &request_message);
    fixture_deliver(&f, &item);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SIGNALS)), 2);
    sids[0] = (char *)"nobody";
    request_message.request_id = 60;
    request(&f, ann, &request_message);
    ck_assert_int_eq((int)result_of(&f, ann, 60)->code, CODE(INVALID));
    interest = (Signalbox__V1__Interest)SIGNALBOX__V1__INTEREST__INIT;
    interest.viewers = true; /* those are not in the roster that she has */
    request(&f, ann, &request_message);
    ck_assert(last_ask()->want_viewers && last_ask()->epoch == NULL);
}
END_TEST

/* The owner says how many viewers there are, as it does whenever they come, go or change. */
static void deliver_viewers(uint64_t seq, uint32_t viewers)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__RoomEvents events = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT, *list[1] = {&event};
    Signalbox__V1__RoomInfo info = SIGNALBOX__V1__ROOM_INFO__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&f.epoch);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    epoch_format(&f.epoch, epoch_text);
    info.viewers = viewers;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM;
    event.room = &info;
    events.epoch = epoch_text;
    events.first_seq = events.last_seq = seq;
    events.events = list;
    events.n_events = 1;
    message.body_case = BODY(ROOM_EVENTS);
    message.room_events = &events;
    batch.room_key = key_data("r");
    batch.epoch = &epoch;
    batch.first_seq = batch.last_seq = seq;
    batch.class_ = CLASS_MEMBERSHIP;
    batch.message = pack_message(&message);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(&f, &item);
}

static void set_interest_in_viewers(int client, bool viewers)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetInterest set = SIGNALBOX__V1__SET_INTEREST__INIT;
    Signalbox__V1__Interest interest = SIGNALBOX__V1__INTEREST__INIT;
    interest.viewers = viewers;
    set.interest = &interest;
    message.body_case = REQUEST(SET_INTEREST);
    message.set_interest = &set;
    request(&f, client, &message);
}

START_TEST(who_wants_viewers_listed_gets_them_anew_when_they_change)
{
    deliver_viewers(start + 1, 1);
    fixture_advance(&f, 3000);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), 0); /* nobody wants to know */
    set_interest_in_viewers(ann, true);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), 1);
    session_reply(ann, pack_snapshot(&f, start + 1, ""), start + 1, false, true);

    size_t since = f.sent_count;
    for (uint32_t i = 2; i < 12; i++)
        deliver_viewers(start + i, i);
    deliver_events(&f, "r", start + 12, start + 12, "x"); /* is nothing about them */
    ck_assert_int_eq(events_of(ann), events_of(bob) + 1); /* hers, and Bob's join */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    fixture_advance(&f, 2100);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 1);
    ck_assert(last_ask()->want_viewers && last_ask()->epoch == NULL);
    ck_assert_str_eq(last_ask()->sid, f.clients[ann].sid);

    since = f.sent_count;
    deliver_viewers(start + 13, 3); /* the snapshot under way may be older than that */
    session_reply(ann, pack_snapshot(&f, start + 13, ""), start + 13, false, true);
    set_interest_in_viewers(ann, true);
    fixture_advance(&f, 2100);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 1);
    session_reply(ann, pack_snapshot(&f, start + 13, ""), start + 13, false, true);

    since = f.sent_count;
    deliver_viewers(start + 14, 2);
    set_interest_in_viewers(ann, false);
    fixture_advance(&f, 3000);
    deliver_viewers(start + 15, 1);
    fixture_advance(&f, 3000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
}
END_TEST

START_TEST(a_session_that_waits_for_viewers_may_end)
{
    set_interest_in_viewers(ann, true);
    session_reply(ann, pack_snapshot(&f, start, ""), start, false, true);
    deliver_viewers(start + 1, 1);
    disconnect_client(&f, ann, true);
    size_t since = f.sent_count;
    fixture_advance(&f, 5000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 0);
    deliver_viewers(start + 2, 2);
    disconnect_client(&f, bob, true);
}
END_TEST

/* --- gaps ------------------------------------------------------------------------------------------------------ */

START_TEST(a_gap_is_asked_for_until_it_is_filled)
{
    size_t since = f.sent_count;
    deliver_events(&f, "r", start + 3, start + 3, "after a gap");
    ck_assert_int_eq(events_of(bob), 0);
    const Signalbox__Cluster__V1__LinkPositions *positions = sent(&f, since, ITEM(LINK_POSITIONS), 0)->link_positions;
    ck_assert_uint_eq(positions->n_rooms, 1);
    ck_assert_uint_eq(positions->rooms[0]->seq, start);
    deliver_events(&f, "r", start + 4, start + 4, "more");
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1);
    fixture_advance(&f, 500);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    sync_reply("", 0, pack_events(&f, start + 1, start + 4, "all of it"), start + 4, true, true, CODE(OK));
    ck_assert_int_eq(events_of(bob), 1);
    ck_assert_uint_eq(last_events(ann)->last_seq, start + 4);
    fixture_advance(&f, 10000);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    deliver_events(&f, "r", start + 5, start + 5, "and on");
    ck_assert_int_eq(events_of(bob), 2);
}
END_TEST

START_TEST(an_acknowledgement_shows_a_lost_last_batch)
{
    size_t since = f.sent_count;
    gateway_gap(f.gateway, &f.shard, f.now_ms);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 2);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 1); /* and is lost */
    Ack *ack = make_ack(&f, last_state(&f, ann));
    ack->seq = start + 2;
    deliver_ack(&f, ack);
    fixture_advance(&f, 500);
    ck_assert_int_eq(sent_count(&f, since, ITEM(LINK_POSITIONS)), 2);
    sync_reply("", 0, pack_events(&f, start + 1, start + 2, "lost"), start + 2, true, true, CODE(OK));
    ck_assert_int_eq(events_of(ann), 2);
}
END_TEST

START_TEST(too_far_behind_takes_snapshots)
{
    size_t since = f.sent_count;
    deliver_events(&f, "r", start + 300, start + 300, "after a large gap");
    sync_reply("", 0, (ProtobufCBinaryData){0}, start + 300, false, false, CODE(RETRY));
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 2);
    ck_assert_ptr_null(last_ask()->epoch);
    fixture_advance(&f, 300); /* both are repeated */
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 4);
    session_reply(ann, pack_snapshot(&f, start + 301, ""), start + 301, false, true);
    ck_assert_int_eq(received_count(&f, 0, ann, BODY(SNAPSHOT)), 2);
    fixture_advance(&f, 600);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SYNC_REQUEST)), 5);
    deliver_events(&f, "r", start + 301, start + 301, "is in Ann's snapshot");
    deliver_events(&f, "r", start + 302, start + 302, "is not");
    ck_assert_int_eq(events_of(ann), 2);
    ck_assert_int_eq(events_of(bob), 0); /* waits for his */
}
END_TEST

START_TEST(a_client_that_misses_something_asks)
{
    char epoch[EPOCH_TEXT_MAX + 1];
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    epoch_format(&f.epoch, epoch);
    position.epoch = epoch;
    position.seq = start - 1;
    say_sync(bob, &position, "");
    ck_assert_uint_eq(last_ask()->seq, start - 1);
    ck_assert_str_eq(last_ask()->sid, f.clients[bob].sid);
    int asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    say_sync(bob, &position, ""); /* it is on its way */
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
    deliver_events(&f, "r", start + 1, start + 1, "meanwhile");
    ck_assert_int_eq(events_of(bob), 0);
    session_reply(bob, pack_events(&f, start, start, "missed"), start, true, true);
    ck_assert_uint_eq(last_events(bob)->last_seq, start);
    ck_assert_uint_eq(last_ask()->seq, start); /* for what came meanwhile */
    session_reply(bob, pack_events(&f, start + 1, start + 1, "meanwhile"), start + 1, true, true);
    deliver_events(&f, "r", start + 2, start + 2, "live again");
    ck_assert_uint_eq(last_events(bob)->last_seq, start + 2);
    position.epoch = (char *)"nonsense";
    say_sync(bob, &position, "");
    ck_assert_ptr_null(last_ask()->epoch);
    /* Its roster is wrong: events that are on their way are not what it needs. */
    position.epoch = epoch;
    say_sync(ann, &position, "");
    ck_assert_ptr_nonnull(last_ask()->epoch);
    say_sync(ann, NULL, "");
    ck_assert_str_eq(last_ask()->sid, f.clients[ann].sid);
    ck_assert_ptr_null(last_ask()->epoch);
    asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    say_sync(ann, NULL, "");
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
}
END_TEST

START_TEST(snapshots_come_in_pages)
{
    say_sync(bob, NULL, "");
    ck_assert_ptr_null(last_ask()->epoch);
    session_reply(bob, pack_snapshot(&f, start, "1-100"), start, false, false);
    deliver_events(&f, "r", start + 1, start + 1, "held");
    ck_assert_int_eq(events_of(bob), 0);
    ck_assert_int_eq(events_of(ann), 2);
    say_sync(bob, NULL, "1-100");
    ck_assert_str_eq(last_ask()->cursor, "1-100");
    fixture_advance(&f, 300); /* lost: the same page is asked for again */
    ck_assert_str_eq(last_ask()->cursor, "1-100");
    session_reply(bob, pack_snapshot(&f, start, ""), start, false, true);
    ck_assert_int_eq(received_count(&f, 0, bob, BODY(SNAPSHOT)), 3);
    ck_assert_uint_eq(last_ask()->seq, start); /* catches up from where it was pinned */
    ck_assert_str_eq(last_ask()->cursor, "");
    session_reply(bob, pack_events(&f, start + 1, start + 1, "held"), start + 1, true, true);
    ck_assert_int_eq(events_of(bob), 1);
    say_sync(bob, NULL, "1-100");
    ck_assert_int_eq((int)result_of(&f, bob, 50)->code, CODE(INVALID)); /* nothing is being read */
}
END_TEST

START_TEST(a_slow_reader_gets_a_snapshot)
{
    gateway_client_overflow(f.gateway, f.clients[ann].client, 3, 2, f.now_ms);
    const Message *dropped = received(&f, 0, ann, BODY(DROPPED), 0);
    ck_assert_uint_eq(dropped->dropped->n_counts, 2);
    ck_assert_str_eq(dropped->dropped->counts[0]->class_name, "p3_membership");
    ck_assert_uint_eq(dropped->dropped->counts[0]->count, 3);
    ck_assert_ptr_null(last_ask()->epoch);
    int asked = sent_count(&f, 0, ITEM(SYNC_REQUEST));
    gateway_client_overflow(f.gateway, f.clients[bob].client, 0, 2, f.now_ms);
    ck_assert_int_eq(sent_count(&f, 0, ITEM(SYNC_REQUEST)), asked);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("sync");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, a_batch_is_one_frame_for_all);
    tcase_add_test(tests, signals_are_filtered);
    tcase_add_test(tests, who_wants_viewers_listed_gets_them_anew_when_they_change);
    tcase_add_test(tests, a_session_that_waits_for_viewers_may_end);
    tcase_add_test(tests, a_gap_is_asked_for_until_it_is_filled);
    tcase_add_test(tests, an_acknowledgement_shows_a_lost_last_batch);
    tcase_add_test(tests, too_far_behind_takes_snapshots);
    tcase_add_test(tests, a_client_that_misses_something_asks);
    tcase_add_test(tests, snapshots_come_in_pages);
    tcase_add_test(tests, a_slow_reader_gets_a_snapshot);
    return suite_run("gateway_sync", tests, NULL);
}
