/* What one room may ask of its shard, and that nobody else waits for it. */
#include "common/message_class.h"
#include "common/metrics.h"
#include "shard/budget.h"
#include "shard_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fixture fixture;
static struct shard_options options;
static struct person ann, bob;

static void begin(void)
{
    fixture_open(&fixture, &options);
    ann = person_make("ann", "r", 0);
    bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_advance(&fixture, 100);
}

static void open_fixture(void)
{
    options = (struct shard_options){.limits = shard_default_limits};
    options.limits.room_burst_s = 1;
}

static void close_fixture(void)
{
    fixture_close(&fixture);
}

static void send_signal(const struct person *from, const char *key, const char *text)
{
    Signalbox__Cluster__V1__SignalUpdate update = SIGNALBOX__CLUSTER__V1__SIGNAL_UPDATE__INIT;
    Signalbox__V1__Signal signal = SIGNALBOX__V1__SIGNAL__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    signal.key = (char *)key;
    signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_TEXT;
    signal.text = (char *)text;
    update.room_key = key_data(from->room);
    update.from = (char *)from->sid;
    update.signal = &signal;
    item.body_case = BODY(SIGNAL);
    item.signal = &update;
    fixture_deliver(&fixture, from->gateway, &item);
}

static void send_message(const struct person *from, uint64_t seq, const char *text)
{
    Signalbox__Cluster__V1__RoomSend send = SIGNALBOX__CLUSTER__V1__ROOM_SEND__INIT;
    Signalbox__V1__Message message = SIGNALBOX__V1__MESSAGE__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    message.data_case = SIGNALBOX__V1__MESSAGE__DATA_TEXT;
    message.text = (char *)text;
    send.room_key = key_data(from->room);
    send.sid = (char *)from->sid;
    send.bind_generation = from->bind_generation;
    send.sender_seq = seq;
    send.message = &message;
    item.body_case = BODY(ROOM_SEND);
    item.room_send = &send;
    fixture_deliver(&fixture, from->gateway, &item);
}

static void send_relay(const struct person *from, const struct person *to, int kind, unsigned class)
{
    Signalbox__Cluster__V1__Relay relay = SIGNALBOX__CLUSTER__V1__RELAY__INIT;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    relay.room_key = key_data(from->room);
    relay.from = (char *)from->sid;
    relay.from_bind_generation = from->bind_generation;
    relay.to = (char *)to->sid;
    relay.kind = kind;
    relay.class_ = class;
    item.body_case = BODY(RELAY);
    item.relay = &relay;
    fixture_deliver(&fixture, from->gateway, &item);
}

static const Signalbox__Cluster__V1__RoomThrottled *throttled(size_t since, int n)
{
    const Item *item = sent_item(&fixture, since, 0, BODY(ROOM_THROTTLED), n);
    return item != NULL ? item->room_throttled : NULL;
}

static uint64_t last_acked(size_t since)
{
    uint64_t acked = 0;
    const Item *item;
    for (int n = 0; (item = sent_item(&fixture, since, 0, BODY(ROOM_SEND_ACK), n)) != NULL; n++)
        acked = item->room_send_ack->acked;
    return acked;
}

START_TEST(signals_beyond_the_budget_are_dropped_counted_and_told)
{
    options.limits.room_signals_per_s = 10;
    begin();
    size_t since = fixture.sent_count;
    uint64_t by_class = metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL);
    uint64_t by_reason = metric_value_at(M_UPDATES_DROPPED_REASON, DROP_ROOM_BUDGET);
    for (int i = 0; i < 30; i++)
        send_signal(&ann, "k", "v");
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL) - by_class, 20);
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED_REASON, DROP_ROOM_BUDGET) - by_reason, 20);
    /* Told at once, and then with all that came since. */
    ck_assert_uint_eq(throttled(since, 0)->count, 1);
    ck_assert_str_eq(throttled(since, 0)->sid, ann.sid);
    ck_assert_str_eq(throttled(since, 0)->budget, "p4_ephemeral");
    ck_assert_uint_eq(throttled(since, 0)->retry_after_ms, 100);
    ck_assert_ptr_null(throttled(since, 1));
    fixture_advance(&fixture, 99);
    send_signal(&ann, "k", "v");
    ck_assert_ptr_null(throttled(since, 1));
    fixture_advance(&fixture, 1);
    send_signal(&ann, "k", "v"); /* there is one again */
    send_signal(&ann, "k", "v");
    ck_assert_uint_eq(throttled(since, 1)->count, 21);
    ck_assert_uint_eq(throttled(since, 0)->retry_after_ms, 100);
}
END_TEST

START_TEST(messages_beyond_the_budget_are_neither_taken_nor_lost)
{
    options.limits.room_messages_per_s = 5;
    begin();
    size_t since = fixture.sent_count;
    for (uint64_t seq = 1; seq <= 8; seq++)
        send_message(&ann, seq, "m");
    ck_assert_uint_eq(last_acked(since), 5);
    ck_assert_str_eq(throttled(since, 0)->budget, "p3_membership");
    fixture_advance(&fixture, 1000);
    for (uint64_t seq = 4; seq <= 8; seq++) /* what was taken already costs nothing */
        send_message(&ann, seq, "m");
    ck_assert_uint_eq(last_acked(since), 8);
    fixture_advance(&fixture, 100);
    unsigned messages = 0;
    const Events *events;
    for (int n = 0; (events = sent_events(&fixture, since, 1, n)) != NULL; n++)
        for (size_t i = 0; i < events->n_events; i++)
            messages += events->events[i]->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE;
    ck_assert_uint_eq(messages, 8);
}
END_TEST

START_TEST(relays_are_budgeted_by_class_and_acknowledgements_are_free)
{
    options.limits.room_negotiations_per_s = 2;
    options.limits.room_candidates_per_s = 3;
    begin();
    size_t since = fixture.sent_count;
    for (int i = 0; i < 5; i++) {
        send_relay(&ann, &bob, SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER, CLASS_NEGOTIATION);
        send_relay(&ann, &bob, SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE, CLASS_CANDIDATES);
        send_relay(&ann, &bob, SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK, CLASS_NEGOTIATION);
    }
    unsigned kinds[8] = {0};
    const Item *item;
    for (int n = 0; (item = sent_item(&fixture, since, 1, BODY(RELAY), n)) != NULL; n++)
        kinds[item->relay->kind]++;
    ck_assert_uint_eq(kinds[SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER], 2);
    ck_assert_uint_eq(kinds[SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE], 3);
    ck_assert_uint_eq(kinds[SIGNALBOX__CLUSTER__V1__RELAY__KIND__ACK], 5);
    ck_assert_str_eq(throttled(since, 0)->budget, "p1_negotiation");
}
END_TEST

START_TEST(a_change_beyond_the_budget_waits_and_the_latest_counts)
{
    options.limits.room_messages_per_s = 1;
    begin();
    strcpy(ann.name, "A1");
    person_hold(&fixture, &ann, ATTACHED);
    fixture_advance(&fixture, 100);
    size_t since = fixture.sent_count;
    strcpy(ann.name, "A2");
    ann.version++;
    send_state(&fixture, &ann, person_state(&ann, HOLD, ATTACHED));
    ck_assert_int_eq(sent_count(&fixture, since, 0, BODY(SESSION_ACK)), 0);
    ck_assert_ptr_nonnull(throttled(since, 0));
    strcpy(ann.name, "A3");
    fixture_advance(&fixture, 1000);
    const Ack *ack = person_hold(&fixture, &ann, ATTACHED);
    ck_assert_uint_eq(ack->participant_version, 3);
    fixture_advance(&fixture, 100);
    ck_assert_str_eq(sent_events(&fixture, since, 1, 0)->events[0]->updated->profile->name, "A3");
    /* Who loses the connection is detached at once, whatever else has changed. */
    strcpy(ann.name, "A4");
    ck_assert_uint_eq(person_hold(&fixture, &ann, DETACHED)->participant_version, 4);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
}
END_TEST

START_TEST(joins_beyond_the_budget_wait)
{
    options.limits.room_joins_per_s = 2;
    begin();
    struct person crowd[3];
    size_t since = fixture.sent_count;
    fixture_advance(&fixture, 1000);
    for (int i = 0; i < 3; i++) {
        char name[8];
        snprintf(name, sizeof name, "c%d", i);
        crowd[i] = person_make(name, "r", 0);
        crowd[i].version = 1;
        send_state(&fixture, &crowd[i], person_state(&crowd[i], JOIN, ATTACHED));
    }
    ck_assert_int_eq(sent_count(&fixture, since, 0, BODY(SESSION_ACK)), 2);
    fixture_advance(&fixture, 500);
    ck_assert_int_eq(person_join(&fixture, &crowd[2])->code, CODE(OK));
    struct person other = person_make("other", "another room", 0);
    ck_assert_int_eq(person_join(&fixture, &other)->code, CODE(OK));
}
END_TEST

START_TEST(a_token_scales_the_rooms_budget)
{
    options.limits.room_signals_per_s = 10;
    begin();
    struct person host = person_make("host", "r", 0);
    host.version = 1;
    State *state = person_state(&host, JOIN, ATTACHED);
    state->room_budget_percent = 300;
    send_state(&fixture, &host, state);
    fixture_advance(&fixture, 2000);
    uint64_t before = metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL);
    for (int i = 0; i < 30; i++)
        send_signal(&ann, "k", "v");
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL), before);
    send_signal(&ann, "k", "v");
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL), before + 1);
}
END_TEST

/* What bob has heard of each of ann's keys last. */
static unsigned latest_of(size_t since, char latest[][16], unsigned keys)
{
    unsigned batches = 0;
    const Item *item;
    for (int n = 0; (item = sent_item(&fixture, since, 1, BODY(ROOM_BATCH), n)) != NULL; n++) {
        const Signalbox__V1__ServerMessage *message = unpack_message(&fixture, item->room_batch->message);
        if (message->body_case != SIGNALBOX__V1__SERVER_MESSAGE__BODY_SIGNALS)
            continue;
        batches++;
        for (size_t i = 0; i < message->signals->n_signals; i++) {
            unsigned key = 0;
            ck_assert_int_eq(sscanf(message->signals->signals[i]->key, "%u", &key), 1);
            ck_assert_uint_lt(key, keys);
            snprintf(latest[key], sizeof latest[key], "%s", message->signals->signals[i]->text);
        }
    }
    return batches;
}

START_TEST(signals_over_the_delivery_budget_wait_for_each_other_and_lose_nothing_that_counts)
{
    enum { KEYS = 20, ROUNDS = 50 };
    char latest[KEYS][16] = {{0}};
    options.limits.room_delivery_bytes_per_s = 20000; /* a fifth of what is said here, to two people */
    begin();
    size_t since = fixture.sent_count;
    uint64_t before = metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < KEYS; i++) {
            char key[16], text[16];
            snprintf(key, sizeof key, "%d", i);
            snprintf(text, sizeof text, "%d", round);
            send_signal(&ann, key, text);
        }
        fixture_advance(&fixture, 20);
    }
    unsigned batches = latest_of(since, latest, KEYS);
    ck_assert_uint_ge(batches, 5); /* never longer apart than room_delay_ms */
    ck_assert_uint_le(batches, 25);
    fixture_advance(&fixture, 400);
    latest_of(since, latest, KEYS);
    for (int i = 0; i < KEYS; i++)
        ck_assert_str_eq(latest[i], "49");
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, CLASS_EPHEMERAL), before);
}
END_TEST

START_TEST(events_do_not_wait_for_signals_that_do)
{
    options.limits.room_delivery_bytes_per_s = 2000;
    begin();
    for (int i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", i);
        send_signal(&ann, key, "some text that takes its place");
    }
    fixture_advance(&fixture, 30);
    ck_assert_uint_gt(shard_stats(fixture.shard).pending_updates, 0);
    size_t since = fixture.sent_count;
    ann.tracks = 1;
    person_hold(&fixture, &ann, ATTACHED);
    fixture_advance(&fixture, 20);
    ck_assert_ptr_nonnull(sent_events(&fixture, since, 1, 0));
}
END_TEST

START_TEST(a_room_with_much_to_say_lets_others_go_first)
{
    enum { MESSAGES = 200 };
    static char text[16000];
    options.limits.room_messages_per_s = options.limits.room_bytes_per_s = options.limits.room_delivery_bytes_per_s = 0;
    begin();
    struct person eve = person_make("eve", "quiet", 2);
    person_join(&fixture, &eve);
    fixture_advance(&fixture, 100);
    memset(text, 'x', sizeof text - 1);
    size_t since = fixture.sent_count;
    uint64_t cut = metric_value(M_ROOM_TURNS_CUT);
    for (uint64_t seq = 1; seq <= MESSAGES; seq++) /* 3 MB, to two gateways */
        send_message(&ann, seq, text);
    eve.tracks = 1;
    person_hold(&fixture, &eve, ATTACHED);
    fixture_advance(&fixture, 0);
    size_t before_eve = 0, after_eve = 0;
    bool seen = false;
    for (size_t i = since; i < fixture.sent_count; i++) {
        if (fixture.sent[i].item->body_case != BODY(ROOM_BATCH))
            continue;
        seen |= fixture.sent[i].gateway == 2;
        *(seen ? &after_eve : &before_eve) += fixture.sent[i].item->room_batch->message.len;
    }
    ck_assert(seen);
    ck_assert_uint_le(before_eve, 256 * 1024);
    ck_assert_uint_gt(after_eve, 2 * 1024 * 1024);
    ck_assert_uint_gt(metric_value(M_ROOM_TURNS_CUT), cut);
    /* And nothing is lost or out of order by being cut. */
    uint64_t next = 3;
    const Events *events;
    for (int n = 0; (events = sent_events(&fixture, since, 1, n)) != NULL; n++) {
        ck_assert_uint_eq(events->first_seq, next);
        next = events->last_seq + 1;
    }
    ck_assert_uint_eq(next, 3 + MESSAGES);
}
END_TEST

START_TEST(a_quiet_room_publishes_at_once_and_a_busy_one_in_batches)
{
    begin();
    size_t since = fixture.sent_count;
    send_message(&ann, 1, "at once");
    fixture_flush(&fixture);
    ck_assert_ptr_nonnull(sent_events(&fixture, since, 1, 0));
    since = fixture.sent_count;
    uint64_t seq = 1;
    for (int ms = 0; ms < 200; ms++) {
        send_message(&ann, ++seq, "busy");
        send_message(&ann, ++seq, "busy");
        fixture_advance(&fixture, 1);
    }
    int batches = 0;
    while (sent_events(&fixture, since, 1, batches) != NULL)
        batches++;
    ck_assert_int_ge(batches, 10); /* at least every 20 ms */
    ck_assert_int_le(batches, 14);
}
END_TEST

/* All that rooms have waited for their turns, in seconds. */
static double waited_s(void)
{
    const char *name = "\nsignalbox_room_wait_seconds_sum ";
    struct buf page = {0};
    metrics_render(&page, TIER_SHARD);
    buf_append(&page, "", 1);
    const char *line = strstr((const char *)page.data, name);
    ck_assert_ptr_nonnull(line);
    double sum_s = strtod(line + strlen(name), NULL);
    buf_done(&page);
    return sum_s;
}

START_TEST(a_rooms_wait_for_its_turn_is_counted)
{
    begin();
    uint64_t count = metric_value(M_ROOM_WAIT);
    double sum_s = waited_s();
    send_message(&ann, 1, "at once");
    fixture_flush(&fixture);
    ck_assert_uint_eq(metric_value(M_ROOM_WAIT) - count, 1);
    ck_assert_double_eq_tol(waited_s(), sum_s, 1e-6);
    fixture_advance(&fixture, 1);
    send_message(&ann, 2, "a batch later");
    fixture_advance(&fixture, 100);
    ck_assert_uint_eq(metric_value(M_ROOM_WAIT) - count, 2);
    ck_assert_double_eq_tol(waited_s() - sum_s, (options.limits.batch_ms - 1) / 1e3, 1e-6);
}
END_TEST

START_TEST(what_rooms_remember_is_counted_and_goes_with_them)
{
    begin();
    size_t bytes = shard_stats(fixture.shard).ring_bytes;
    ck_assert_uint_gt(bytes, 0);
    send_message(&ann, 1, "some text");
    fixture_advance(&fixture, 100);
    ck_assert_uint_gt(shard_stats(fixture.shard).ring_bytes, bytes + strlen("some text"));
    ck_assert_int_eq(person_hold(&fixture, &ann, DEPARTED)->code, CODE(OK));
    ck_assert_int_eq(person_hold(&fixture, &bob, DEPARTED)->code, CODE(OK));
    fixture_advance(&fixture, 100);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 0);
    ck_assert_uint_eq(shard_stats(fixture.shard).ring_bytes, 0);
}
END_TEST

START_TEST(charges_are_whole_and_large_ones_pass_when_all_is_saved)
{
    struct shard_limits limits = shard_default_limits;
    struct room_budget budget;
    enum room_budget_kind lacking;
    limits.room_burst_s = 1;
    limits.room_messages_per_s = 2;
    limits.room_bytes_per_s = 1000;
    budget_init(&budget, &limits, 0);
    struct room_charge charge = {.kind = BUDGET_MEMBERSHIP, .bytes = 5000};
    ck_assert_uint_eq(budget_take(&budget, &limits, &charge, 0, &lacking), 0);
    charge.bytes = 1;
    ck_assert_uint_eq(budget_take(&budget, &limits, &charge, 0, &lacking), 1);
    ck_assert_int_eq(lacking, BUDGET_BYTES);
    /* What was refused has taken nothing of the other budget. */
    ck_assert_uint_eq(budget_take(&budget, &limits, &charge, 1, &lacking), 0);
    ck_assert_uint_gt(budget_take(&budget, &limits, &charge, 2, &lacking), 0);
    ck_assert_int_eq(lacking, BUDGET_MEMBERSHIP);
    budget_set_percent(&budget, 1); /* scaled down, never to nothing */
    ck_assert_uint_eq(budget_take(&budget, &limits, &charge, 5000, &lacking), 0);
    limits.room_messages_per_s = limits.room_bytes_per_s = limits.room_delivery_bytes_per_s = 0;
    charge = (struct room_charge){.kind = BUDGET_MEMBERSHIP, .bytes = UINT32_MAX, .delivery_bytes = UINT64_MAX};
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(budget_take(&budget, &limits, &charge, 5000, &lacking), 0);
}
END_TEST

int main(void)
{
    TCase *budget = tcase_create("budget");
    tcase_add_checked_fixture(budget, open_fixture, close_fixture);
    tcase_add_test(budget, signals_beyond_the_budget_are_dropped_counted_and_told);
    tcase_add_test(budget, messages_beyond_the_budget_are_neither_taken_nor_lost);
    tcase_add_test(budget, relays_are_budgeted_by_class_and_acknowledgements_are_free);
    tcase_add_test(budget, a_change_beyond_the_budget_waits_and_the_latest_counts);
    tcase_add_test(budget, joins_beyond_the_budget_wait);
    tcase_add_test(budget, a_token_scales_the_rooms_budget);
    tcase_add_test(budget, signals_over_the_delivery_budget_wait_for_each_other_and_lose_nothing_that_counts);
    tcase_add_test(budget, events_do_not_wait_for_signals_that_do);
    tcase_add_test(budget, a_room_with_much_to_say_lets_others_go_first);
    tcase_add_test(budget, a_quiet_room_publishes_at_once_and_a_busy_one_in_batches);
    tcase_add_test(budget, a_rooms_wait_for_its_turn_is_counted);
    tcase_add_test(budget, what_rooms_remember_is_counted_and_goes_with_them);

    TCase *charges = tcase_create("charges");
    tcase_add_test(charges, charges_are_whole_and_large_ones_pass_when_all_is_saved);
    return suite_run("shard_budget", budget, charges, NULL);
}
