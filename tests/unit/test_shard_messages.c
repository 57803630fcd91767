/* What passes through a room: reliable messages, signals, directed messages. */
#include "common/metrics.h"
#include "shard_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

static struct fixture fixture;
static struct person ann, bob;

static void open_fixture(void)
{
    fixture_open(&fixture, NULL);
    ann = person_make("ann", "r", 0);
    bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_advance(&fixture, 10);
}

static void close_fixture(void)
{
    fixture_close(&fixture);
}

/* What the shard has taken, as it acknowledges; 0 if it does not answer. */
static uint64_t send_to_room(const struct person *from, uint64_t sender_seq)
{
    size_t since = fixture.sent_count;
    Signalbox__V1__Message message = SIGNALBOX__V1__MESSAGE__INIT;
    Signalbox__Cluster__V1__RoomSend send = SIGNALBOX__CLUSTER__V1__ROOM_SEND__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    char text[32];
    snprintf(text, sizeof text, "message %u", (unsigned)sender_seq);
    message.data_case = SIGNALBOX__V1__MESSAGE__DATA_TEXT;
    message.text = text;
    message.from = (char *)"forged";
    send.room_key = key_data(from->room);
    send.sid = (char *)from->sid;
    send.bind_generation = from->bind_generation;
    send.sender_seq = sender_seq;
    send.message = &message;
    item.body_case = BODY(ROOM_SEND);
    item.room_send = &send;
    fixture_deliver(&fixture, from->gateway, &item);
    const Item *ack = sent_item(&fixture, since, from->gateway, BODY(ROOM_SEND_ACK), 0);
    if (ack == NULL)
        return 0;
    ck_assert_str_eq(ack->room_send_ack->sid, from->sid);
    return ack->room_send_ack->acked;
}

START_TEST(a_message_to_the_room_is_published_once_and_in_order)
{
    size_t since = fixture.sent_count;
    ck_assert_uint_eq(send_to_room(&ann, 1), 1);
    ck_assert_uint_eq(send_to_room(&ann, 1), 1);
    ck_assert_uint_eq(send_to_room(&ann, 3), 1); /* a gap is not taken */
    ck_assert_uint_eq(send_to_room(&ann, 2), 2);
    ck_assert_uint_eq(send_to_room(&ann, 3), 3);
    fixture_advance(&fixture, 10);
    const Events *events = sent_events(&fixture, since, 1, 0);
    ck_assert_uint_eq(events->n_events, 3);
    ck_assert_uint_eq(events->first_seq, 3);
    ck_assert_uint_eq(events->last_seq, 5);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_str_eq(events->events[i]->message->from, ann.sid);
        ck_assert_uint_eq(events->events[i]->message->sender_seq, i + 1);
    }
    ck_assert_str_eq(events->events[2]->message->text, "message 3");
}
END_TEST

START_TEST(messages_of_a_replaced_connection_are_not_taken)
{
    struct person old = ann;
    ck_assert_uint_eq(send_to_room(&ann, 1), 1);
    person_resume(&fixture, &ann, 2, 1);
    ck_assert_uint_eq(send_to_room(&old, 2), 0);
    old.gateway = 2;
    ck_assert_uint_eq(send_to_room(&old, 2), 0);
    ck_assert_uint_eq(send_to_room(&ann, 2), 2);
}
END_TEST

START_TEST(who_takes_a_snapshot_misses_no_message_that_waits)
{
    size_t since = fixture.sent_count;
    send_to_room(&ann, 1);
    Signalbox__Cluster__V1__SyncRequest request = sync_make(&bob);
    ck_assert_uint_eq(send_sync(&fixture, &bob, &request)->seq, 3);
    /* It went out before the snapshot. */
    ck_assert_int_eq(fixture.sent[fixture.sent_count - 1].item->body_case, BODY(SYNC_REPLY));
    ck_assert_str_eq(sent_events(&fixture, since, 1, 0)->events[0]->message->text, "message 1");
}
END_TEST

START_TEST(a_new_owner_goes_on_where_messages_were_acknowledged)
{
    send_to_room(&ann, 1);
    fixture_restart(&fixture);
    State *state = person_state(&ann, HOLD, ATTACHED);
    state->room_send_acked = 1;
    send_state(&fixture, &ann, state);
    ck_assert_uint_eq(send_to_room(&ann, 1), 1);
    ck_assert_uint_eq(send_to_room(&ann, 2), 2);
}
END_TEST

/* Or, once it is put together from reports, a room would go on in silence where a gateway had lost the batch. */
START_TEST(what_an_owner_has_acknowledged_shows_in_the_digest_of_its_position)
{
    uint64_t digests[2];
    for (int i = 0; i < 2; i++) {
        size_t since = fixture.sent_count;
        send_to_room(&ann, (uint64_t)i + 1);
        fixture_advance(&fixture, 10);
        digests[i] = sent_item(&fixture, since, 1, BODY(ROOM_BATCH), 0)->room_batch->digest;
    }
    ck_assert_uint_ne(digests[0], 0);
    ck_assert_uint_ne(digests[0], digests[1]);
    ck_assert_uint_eq(person_hold(&fixture, &ann, ATTACHED)->room_send_acked, 2);
    /* The acknowledgement came, the second batch did not: the same roster at the first one's position, and yet. */
    for (uint64_t acked = 1; acked <= 2; acked++) {
        fixture_restart(&fixture);
        State *state = person_state(&ann, HOLD, ATTACHED);
        state->room_send_acked = acked;
        send_state(&fixture, &ann, state);
        const Ack *ack = person_resume(&fixture, &bob, 2, 1);
        digests[acked - 1] = ack->digest;
    }
    ck_assert_uint_ne(digests[0], digests[1]);
}
END_TEST

/* The session was resumed elsewhere before its owner was lost, and the gateway that had it before reports it first. */
START_TEST(a_later_report_tells_what_a_lost_owner_had_acknowledged_since)
{
    send_to_room(&ann, 1);
    person_hold(&fixture, &ann, ATTACHED);
    fixture_restart(&fixture);
    State *state = person_state(&ann, HOLD, ATTACHED);
    state->room_send_acked = 1;
    send_state(&fixture, &ann, state);
    send_state(&fixture, &bob, person_state(&bob, HOLD, ATTACHED));
    ann.gateway = 2;
    ann.bind_generation++;
    ann.connection++;
    state = person_state(&ann, HOLD, ATTACHED);
    state->room_send_acked = 2;
    size_t since = fixture.sent_count;
    send_state(&fixture, &ann, state);
    /* Nobody is to go on where the second one is missing. */
    const Item *change = sent_item(&fixture, since, bob.gateway, BODY(EPOCH_CHANGE), 0);
    ck_assert_ptr_nonnull(change);
    ck_assert_ptr_null(change->epoch_change->from_epoch);
    /* While they take snapshots, they would pass over it. */
    ck_assert_uint_eq(send_to_room(&ann, 3), 2);
    fixture_advance(&fixture, 500);
    ck_assert_uint_eq(send_to_room(&ann, 3), 3);
    since = fixture.sent_count;
    send_state(&fixture, &ann, state);
    ck_assert_int_eq(sent_count(&fixture, since, -1, BODY(EPOCH_CHANGE)), 0);
}
END_TEST

static void send_signal(const struct person *from, const char *key, const char *text, const char *to)
{
    Signalbox__V1__Signal signal = SIGNALBOX__V1__SIGNAL__INIT;
    Signalbox__Cluster__V1__SignalUpdate update = SIGNALBOX__CLUSTER__V1__SIGNAL_UPDATE__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    signal.key = (char *)key;
    signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_TEXT;
    signal.text = (char *)text;
    update.room_key = key_data(from->room);
    update.from = (char *)from->sid;
    update.to = (char *)to;
    update.signal = &signal;
    item.body_case = BODY(SIGNAL);
    item.signal = &update;
    fixture_deliver(&fixture, from->gateway, &item);
}

static const Signalbox__V1__Signals *only_signals(size_t since, const char *exclude_sid)
{
    fixture_advance(&fixture, 10);
    ck_assert_int_eq(sent_count(&fixture, since, 1, BODY(ROOM_BATCH)), 1);
    const Batch *batch = sent_item(&fixture, since, 1, BODY(ROOM_BATCH), 0)->room_batch;
    ck_assert_uint_eq(batch->first_seq | batch->last_seq, 0);
    ck_assert_uint_eq(batch->class_, 4);
    ck_assert_str_eq(batch->exclude_sid, exclude_sid);
    return unpack_message(&fixture, batch->message)->signals;
}

START_TEST(signals_are_coalesced_by_sender_and_key)
{
    size_t since = fixture.sent_count;
    send_signal(&ann, "cursor", "1", "");
    send_signal(&ann, "speaking", "2", "");
    send_signal(&ann, "cursor", "3", "");
    const Signalbox__V1__Signals *signals = only_signals(since, ann.sid);
    ck_assert_uint_eq(signals->n_signals, 2);
    ck_assert_str_eq(signals->signals[0]->text, "3"); /* in the place of the one that it replaced */
    ck_assert_str_eq(signals->signals[1]->text, "2");
    ck_assert_str_eq(signals->signals[1]->from, ann.sid);

    since = fixture.sent_count;
    send_signal(&ann, "cursor", "4", "");
    send_signal(&bob, "cursor", "5", "");
    ck_assert_uint_eq(only_signals(since, "")->n_signals, 2);
}
END_TEST

START_TEST(too_many_signals_drop_the_oldest_and_are_counted)
{
    uint64_t before = metric_value_at(M_UPDATES_DROPPED, 4);
    size_t since = fixture.sent_count;
    for (int i = 0; i < 600; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        send_signal(&ann, key, key, "");
    }
    const Signalbox__V1__Signals *signals = only_signals(since, ann.sid);
    ck_assert_uint_eq(signals->n_signals, 512);
    ck_assert_str_eq(signals->signals[0]->key, "88");
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, 4) - before, 88);

    static char text[30 * 1024];
    memset(text, 'x', sizeof text - 1);
    since = fixture.sent_count;
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        send_signal(&ann, key, text, "");
    }
    ck_assert_uint_eq(only_signals(since, ann.sid)->n_signals, 8);
}
END_TEST

START_TEST(a_directed_signal_goes_to_its_receiver_alone_or_nowhere)
{
    size_t since = fixture.sent_count;
    send_signal(&ann, "k", "1", bob.sid);
    const Item *item = sent_item(&fixture, since, 1, BODY(SIGNAL), 0);
    ck_assert_str_eq(item->signal->signal->from, ann.sid);
    ck_assert_str_eq(item->signal->to, bob.sid);
    person_hold(&fixture, &bob, DETACHED);
    since = fixture.sent_count;
    send_signal(&ann, "k", "2", bob.sid);
    fixture_advance(&fixture, 10);
    ck_assert_uint_eq(fixture.sent_count, since);
}
END_TEST

static void send_negotiation(const struct person *from, const char *to, int kind, uint64_t negotiation)
{
    Signalbox__Cluster__V1__Relay relay = SIGNALBOX__CLUSTER__V1__RELAY__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    relay.room_key = key_data(from->room);
    relay.from = (char *)from->sid;
    relay.from_bind_generation = from->bind_generation;
    relay.to = (char *)to;
    relay.kind = kind;
    relay.negotiation = negotiation;
    relay.ice_generation = 1;
    relay.message = (ProtobufCBinaryData){.len = 5, .data = (uint8_t *)"hello"};
    item.body_case = BODY(RELAY);
    item.relay = &relay;
    fixture_deliver(&fixture, from->gateway, &item);
}

static void send_relay(const struct person *from, const char *to, int kind)
{
    send_negotiation(from, to, kind, 1);
}

enum { OFFER = SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER, ACK_KIND = SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK };

START_TEST(a_directed_message_is_passed_on_unopened)
{
    size_t since = fixture.sent_count;
    send_relay(&ann, bob.sid, OFFER);
    const Signalbox__Cluster__V1__Relay *relay = sent_item(&fixture, since, 1, BODY(RELAY), 0)->relay;
    ck_assert_str_eq(relay->from, ann.sid);
    ck_assert_str_eq(relay->to, bob.sid);
    ck_assert_mem_eq(relay->message.data, "hello", 5);
    ck_assert_uint_eq(fixture.sent_count, since + 1);
}
END_TEST

START_TEST(a_directed_message_of_a_replaced_connection_is_dropped)
{
    struct person old = ann;
    person_resume(&fixture, &ann, 0, 1);
    size_t since = fixture.sent_count;
    send_relay(&old, bob.sid, OFFER);
    ck_assert_uint_eq(fixture.sent_count, since);
    send_relay(&ann, bob.sid, OFFER);
    ck_assert_uint_eq(fixture.sent_count, since + 1);
}
END_TEST

START_TEST(a_receiver_that_has_gone_is_told_of)
{
    struct person eve = person_make("eve", "s", 2), stranger = person_make("x", "r", 0);
    person_join(&fixture, &eve);
    bob.version++;
    State *state = person_state(&bob, HOLD, DEPARTED);
    state->reason = REASON(CLIENT_LEFT);
    send_state(&fixture, &bob, state);
    size_t since = fixture.sent_count;
    send_relay(&ann, bob.sid, OFFER);
    const Signalbox__Cluster__V1__RelayFailed *failed =
        sent_item(&fixture, since, 0, BODY(RELAY_FAILED), 0)->relay_failed;
    ck_assert_str_eq(failed->from, ann.sid);
    ck_assert_str_eq(failed->to, bob.sid);
    ck_assert_int_eq(failed->reason, REASON(CLIENT_LEFT));
    ck_assert_int_eq(failed->code, CODE(UNDELIVERABLE));
    send_relay(&ann, stranger.sid, OFFER);
    ck_assert_int_eq(sent_item(&fixture, since, 0, BODY(RELAY_FAILED), 1)->relay_failed->reason, REASON(SESSION_GONE));
    send_relay(&ann, eve.sid, OFFER); /* of another room */
    ck_assert_int_eq(sent_count(&fixture, since, 0, BODY(RELAY_FAILED)), 3);
    send_relay(&ann, bob.sid, ACK_KIND);
    send_relay(&ann, "nonsense", ACK_KIND);
    ck_assert_uint_eq(fixture.sent_count, since + 3);
}
END_TEST

START_TEST(a_receiver_that_may_come_back_is_waited_for)
{
    size_t since;
    person_hold(&fixture, &bob, DETACHED);
    since = fixture.sent_count;
    send_relay(&ann, bob.sid, OFFER);
    ck_assert_uint_eq(fixture.sent_count, since);
    /* In a room that is put together again, who is missing may yet be reported. */
    fixture_restart(&fixture);
    person_hold(&fixture, &ann, ATTACHED);
    since = fixture.sent_count;
    send_relay(&ann, bob.sid, OFFER);
    ck_assert_uint_eq(fixture.sent_count, since);
}
END_TEST

START_TEST(what_was_said_to_somebody_who_was_away_is_passed_on_after_the_return)
{
    person_hold(&fixture, &bob, DETACHED);
    size_t since = fixture.sent_count;
    uint64_t repeated = metric_value_at(M_RELAYS_HELD, 1), full = metric_value_at(M_RELAYS_HELD, 2);
    for (uint64_t negotiation = 1; negotiation <= 70; negotiation++)
        send_negotiation(&ann, bob.sid, OFFER, negotiation);
    send_negotiation(&ann, bob.sid, OFFER, 3); /* its sender repeats everything */
    send_relay(&ann, bob.sid, ACK_KIND);
    ck_assert_uint_eq(fixture.sent_count, since);
    ck_assert_uint_eq(metric_value_at(M_RELAYS_HELD, 1), repeated + 1);
    ck_assert_uint_eq(metric_value_at(M_RELAYS_HELD, 2), full + 6);
    person_resume(&fixture, &bob, 2, bob.bind_generation);
    ck_assert_int_eq(sent_count(&fixture, since, 2, BODY(RELAY)), 64);
    bool bound = false;
    for (size_t i = since; i < fixture.sent_count; i++) {
        bound |= fixture.sent[i].item->body_case == BODY(SESSION_ACK);
        ck_assert(bound || fixture.sent[i].item->body_case != BODY(RELAY));
    }
    for (int i = 0; i < 64; i++)
        ck_assert_uint_eq(sent_item(&fixture, since, 2, BODY(RELAY), i)->relay->negotiation, (uint64_t)i + 1);
    since = fixture.sent_count;
    person_resume(&fixture, &bob, 1, bob.bind_generation);
    ck_assert_int_eq(sent_count(&fixture, since, -1, BODY(RELAY)), 0); /* once */
    person_hold(&fixture, &bob, DETACHED);
    send_relay(&ann, bob.sid, OFFER);
    bob.version++; /* goes for good, with what waits */
    send_state(&fixture, &bob, person_state(&bob, HOLD, DEPARTED));
}
END_TEST

START_TEST(an_offer_that_connects_is_counted_with_its_time)
{
    Signalbox__Cluster__V1__IceReport report = SIGNALBOX__CLUSTER__V1__ICE_REPORT__INIT;
    Signalbox__V1__IceState state = SIGNALBOX__V1__ICE_STATE__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    send_relay(&ann, bob.sid, OFFER);
    fixture_advance(&fixture, 300);
    report.room_key = key_data("r");
    report.from = bob.sid;
    report.state = &state;
    state.peer = ann.sid;
    state.negotiation = 1;
    state.state = SIGNALBOX__V1__ICE_STATE__STATE__CONNECTED;
    item.body_case = BODY(ICE_REPORT);
    item.ice_report = &report;
    fixture_deliver(&fixture, bob.gateway, &item);
    fixture_deliver(&fixture, bob.gateway, &item);
    fixture_deliver(&fixture, ann.gateway, &item); /* not the gateway that holds bob */
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, 0), 1);
    ck_assert_uint_eq(metric_value(M_TIME_TO_CONNECTED), 1);
    ck_assert_uint_eq(metric_value_at(M_ICE_STATES, 2), 2);
    send_relay(&ann, bob.sid, OFFER); /* sent again: nothing new */
    person_hold(&fixture, &ann, DEPARTED);
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, 2), 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("messages");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_message_to_the_room_is_published_once_and_in_order);
    tcase_add_test(tests, messages_of_a_replaced_connection_are_not_taken);
    tcase_add_test(tests, who_takes_a_snapshot_misses_no_message_that_waits);
    tcase_add_test(tests, a_new_owner_goes_on_where_messages_were_acknowledged);
    tcase_add_test(tests, what_an_owner_has_acknowledged_shows_in_the_digest_of_its_position);
    tcase_add_test(tests, a_later_report_tells_what_a_lost_owner_had_acknowledged_since);
    tcase_add_test(tests, signals_are_coalesced_by_sender_and_key);
    tcase_add_test(tests, too_many_signals_drop_the_oldest_and_are_counted);
    tcase_add_test(tests, a_directed_signal_goes_to_its_receiver_alone_or_nowhere);
    tcase_add_test(tests, a_directed_message_is_passed_on_unopened);
    tcase_add_test(tests, a_directed_message_of_a_replaced_connection_is_dropped);
    tcase_add_test(tests, a_receiver_that_has_gone_is_told_of);
    tcase_add_test(tests, a_receiver_that_may_come_back_is_waited_for);
    tcase_add_test(tests, what_was_said_to_somebody_who_was_away_is_passed_on_after_the_return);
    tcase_add_test(tests, an_offer_that_connects_is_counted_with_its_time);
    return suite_run("shard_messages", tests, NULL);
}
