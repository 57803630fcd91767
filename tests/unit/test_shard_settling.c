/* A new owner learns from reports who is in its rooms; gateways and shards that were away come back. */
#include "plain_fixture.h"
#include "suite.h"
#include <string.h>

static void assert_settled(const Events *events, uint32_t participants)
{
    ck_assert_uint_eq(events->first_seq, events->last_seq);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_int_eq(events->events[0]->event_case, SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED);
    ck_assert_uint_eq(events->events[0]->settled->participants, participants);
    ck_assert_uint_eq(strlen(events->events[0]->settled->digest), 16);
}

START_TEST(a_new_owner_puts_a_room_together_and_settles_it)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), cat = person_make("cat", "r", 2);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    person_join(&fixture, &cat);
    struct epoch old_epoch = ann.join_epoch;
    fixture_restart(&fixture);
    const Ack *ack = person_hold(&fixture, &bob, ATTACHED);
    ck_assert_uint_eq(ack->bind_generation, 1);
    ck_assert_uint_eq(ack->n_messages, 0); /* its client has the roster; what is different is asked for */
    struct epoch epoch = epoch_from_proto(ack->epoch), join_epoch = epoch_from_proto(ack->join_epoch);
    ck_assert_int_gt(epoch_compare(&epoch, &old_epoch), 0);
    ck_assert(epoch_equal(&join_epoch, &old_epoch));
    ck_assert_uint_gt(ack->seq, bob.join_seq); /* positions go on */
    ck_assert_uint_eq(person_resume(&fixture, &ann, 2, 1)->bind_generation, 2);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 1);
    fixture_advance(&fixture, 29000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 1);
    size_t since = fixture.sent_count;
    fixture_advance(&fixture, 2000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 0);
    const Events *events = sent_events(&fixture, since, 1, 0);
    assert_settled(events, 2);
    ck_assert_uint_gt(events->last_seq, ack->seq);
    /* Lost, it is replayed like any other batch. */
    ack = person_resume_at(&fixture, &ann, 2, &epoch, events->last_seq - 1);
    ck_assert(ack->recovered);
    ck_assert_uint_eq(ack->n_messages, 1);
    assert_settled(unpack_message(&fixture, ack->messages[0])->room_events, 2);
    /* Too late: the room no longer waits for anybody. */
    assert_refused(person_resume(&fixture, &cat, 2, 1), CODE(NOT_FOUND), REASON(SESSION_GONE), ACTION(REJOIN));
}
END_TEST

/* Every process that knew the room was lost, and Bob was quicker than those who come back. */
START_TEST(a_young_room_takes_back_whom_nobody_knows_and_settles)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), cat = person_make("cat", "r", 2);
    person_join(&fixture, &bob);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 0);
    fixture_advance(&fixture, 20000);
    const Ack *ack = person_resume(&fixture, &ann, 0, 1);
    ck_assert_int_eq(ack->code, CODE(OK));
    /* Cat may follow: Ann must not take it for gone. */
    ck_assert(ack_snapshot(&fixture, ack)->settling);
    fixture_advance(&fixture, 29000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 1);
    fixture_advance(&fixture, 2000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 0);
    assert_refused(person_resume(&fixture, &cat, 2, 1), CODE(NOT_FOUND), REASON(SESSION_GONE), ACTION(REJOIN));
}
END_TEST

START_TEST(a_clock_that_is_set_back_makes_no_room_young)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1), dan = person_make("dan", "r", 1);
    person_join(&fixture, &bob);
    fixture_advance(&fixture, 31000);
    fixture.wall_step_ms = -3600000;
    assert_refused(person_resume(&fixture, &ann, 0, 1), CODE(NOT_FOUND), REASON(SESSION_GONE), ACTION(REJOIN));
    /* Nor do windows depend on it. */
    person_join(&fixture, &dan);
    person_hold(&fixture, &dan, DETACHED);
    fixture.wall_step_ms = 3600000;
    fixture_advance(&fixture, 29000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 2);
    ck_assert_int_eq(person_resume(&fixture, &dan, 0, 1)->code, CODE(OK));
}
END_TEST

/* Bob's gateway has told its clients that Ann left; Ann's gateway never heard of it. */
static void report_departure(const struct person *bob, const struct person *ann)
{
    Signalbox__Cluster__V1__Departure departure = SIGNALBOX__CLUSTER__V1__DEPARTURE__INIT, *list[] = {&departure};
    departure.sid = (char *)ann->sid;
    departure.reason = REASON(DUPLICATE_IDENTITY);
    departure.left_ms = 60000;
    State *state = person_state(bob, HOLD, ATTACHED);
    state->departures = list;
    state->n_departures = 1;
    send_state(&fixture, bob, state);
}

START_TEST(who_has_left_in_the_eyes_of_others_does_not_come_back)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_restart(&fixture);
    report_departure(&bob, &ann);
    assert_refused(person_hold(&fixture, &ann, ATTACHED), CODE(NOT_FOUND), REASON(DUPLICATE_IDENTITY), ACTION(STOP));
    /* The reports in their other order. */
    fixture_restart(&fixture);
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK));
    size_t since = fixture.sent_count;
    report_departure(&bob, &ann);
    const Item *command = sent_item(&fixture, since, 0, BODY(SESSION_COMMAND), 0);
    ck_assert_str_eq(command->session_command->sid, ann.sid);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
    assert_refused(person_hold(&fixture, &ann, ATTACHED), CODE(NOT_FOUND), REASON(DUPLICATE_IDENTITY), ACTION(STOP));
    /* A word about somebody in another room is none. */
    struct person cat = person_make("cat", "other", 0);
    person_join(&fixture, &cat);
    report_departure(&bob, &cat);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 2);
}
END_TEST

START_TEST(a_room_that_a_gateway_knew_is_not_new_to_an_owner_that_does_not)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&ann.join_epoch);
    uint64_t seq = ann.join_seq;
    fixture_restart(&fixture);
    State *state = person_state(&bob, JOIN, ATTACHED);
    state->last_epoch = &epoch;
    state->last_seq = seq;
    send_state(&fixture, &bob, state);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms_in_state[ROOM_SETTLING], 1);
    /* Whom its gateway has not reported yet has no use for a roster. */
    Signalbox__Cluster__V1__SyncRequest request = sync_make(&ann);
    ck_assert_int_eq(send_sync(&fixture, &ann, &request)->code, CODE(NOT_FOUND));
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK));
    ck_assert_int_eq(send_sync(&fixture, &ann, &request)->code, CODE(OK));
}
END_TEST

START_TEST(a_room_that_settles_empty_goes)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_restart(&fixture);
    person_hold(&fixture, &ann, ATTACHED);
    person_hold(&fixture, &ann, DEPARTED);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 1);
    fixture_advance(&fixture, 31000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 0);
}
END_TEST

START_TEST(a_newer_report_overtakes_an_older_one)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    struct person stale = ann;
    person_resume(&fixture, &ann, 1, 1);
    fixture_restart(&fixture);
    person_hold(&fixture, &stale, ATTACHED);
    size_t since = fixture.sent_count;
    ck_assert_uint_eq(person_hold(&fixture, &ann, ATTACHED)->bind_generation, 2);
    ck_assert_uint_eq(close_command(&fixture, since, 0)->bind_generation, 1);
    assert_refused(person_hold(&fixture, &stale, ATTACHED), CODE(NOT_FOUND), REASON(REPLACED), ACTION(STOP));
}
END_TEST

START_TEST(a_detached_report_keeps_what_is_left_of_its_window)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_restart(&fixture);
    person_hold(&fixture, &bob, ATTACHED);
    ann.version++;
    State *state = person_state(&ann, HOLD, DETACHED);
    state->window_left_ms = 5000;
    send_state(&fixture, &ann, state);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
    fixture_advance(&fixture, 6000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

START_TEST(a_gateway_that_left_the_view_detaches_its_sessions)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 2);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_set_gateways(&fixture, 2);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
    fixture_advance(&fixture, 31000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
    ck_assert_uint_eq(shard_stats(fixture.shard).gateways, 1);
}
END_TEST

/* The answer to the join was lost, then the gateway was taken for lost itself: it came back as another incarnation. */
START_TEST(a_gateway_that_comes_back_unanswered_attaches_what_it_repeats)
{
    struct person ann = person_make("ann", "r", 2);
    struct node_address again = fixture_gateway(2);
    struct view_node node = {.incarnation = again.incarnation += 1000};
    memcpy(node.id, again.id, sizeof node.id);
    person_join(&fixture, &ann);
    fixture_set_gateways(&fixture, 2);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
    struct view *view = view_copy(fixture.view);
    view->number.seq++;
    view_put_gateway(view, &node);
    shard_view(fixture.shard, view, fixture.now_ms);
    view_unref(&view);
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = BODY(SESSION_STATE);
    item.session_state = person_state(&ann, JOIN, ATTACHED);
    shard_item(fixture.shard, &again, &item, fixture.now_ms);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 0);
    fixture_advance(&fixture, 31000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

/* It came back into the view as the start that it was, and holds its sessions as ever. */
START_TEST(a_gateway_that_was_away_attaches_what_it_repeats)
{
    for (int intent = JOIN; intent <= HOLD; intent += HOLD - JOIN) {
        struct person ann = person_make("ann", "r", 2);
        person_join(&fixture, &ann);
        fixture_set_gateways(&fixture, 2);
        ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
        fixture_set_gateways(&fixture, 3);
        ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
        send_state(&fixture, &ann, person_state(&ann, intent, ATTACHED));
        ck_assert_uint_eq(shard_stats(fixture.shard).detached, 0);
        fixture_advance(&fixture, 31000);
        ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
        /* Its own word of a loss is newer, and stands. */
        ann.version++;
        send_state(&fixture, &ann, person_state(&ann, HOLD, DETACHED));
        ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
        ann.version--;
        send_state(&fixture, &ann, person_state(&ann, HOLD, ATTACHED));
        ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
        fixture_advance(&fixture, 31000);
        ck_assert_uint_eq(shard_stats(fixture.shard).participants, 0);
    }
}
END_TEST

START_TEST(an_owner_that_acts_again_has_everybody_say_again_what_it_may_not_have_heard)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_advance(&fixture, 100);
    size_t since = fixture.sent_count;
    shard_suspend(fixture.shard, false, fixture.now_ms); /* it had not suspended itself */
    shard_suspend(fixture.shard, true, fixture.now_ms);
    ck_assert_uint_eq(fixture.sent_count, since);
    shard_suspend(fixture.shard, false, fixture.now_ms);
    for (int gateway = 0; gateway < 2; gateway++) {
        ck_assert_int_eq(sent_count(&fixture, since, gateway, BODY(EPOCH_CHANGE)), 1);
        ck_assert(sent_item(&fixture, since, gateway, BODY(EPOCH_CHANGE), 0)->epoch_change->resumed);
    }
}
END_TEST

/* The shard that removed her is lost: its successor hears of it from a gateway, before she is reported or after. */
START_TEST(a_removal_outlives_its_shard)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    person_end(&fixture, &ann, REASON(REMOVED));
    Item told = *sent_item(&fixture, 0, 1, BODY(REVOCATIONS), 0);
    fixture_restart(&fixture);
    ck_assert_int_eq(person_hold(&fixture, &bob, ATTACHED)->code, CODE(OK));
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK)); /* by a gateway that heard nothing */
    size_t since = fixture.sent_count;
    fixture_deliver(&fixture, 1, &told);
    ck_assert_int_eq(close_command(&fixture, since, 0)->close->reason, REASON(REMOVED));
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);

    fixture_restart(&fixture);
    fixture_deliver(&fixture, 1, &told);
    assert_refused(person_hold(&fixture, &ann, ATTACHED), CODE(NOT_FOUND), REASON(REMOVED), ACTION(STOP));
    /* A gap on the link from a gateway: what it may have said is asked for. */
    since = fixture.sent_count;
    struct node_address gateway = fixture_gateway(2);
    shard_gap(fixture.shard, &gateway);
    ck_assert(sent_item(&fixture, since, 2, BODY(REVOCATIONS), 0)->revocations->asks);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("settling");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_new_owner_puts_a_room_together_and_settles_it);
    tcase_add_test(tests, a_young_room_takes_back_whom_nobody_knows_and_settles);
    tcase_add_test(tests, a_clock_that_is_set_back_makes_no_room_young);
    tcase_add_test(tests, who_has_left_in_the_eyes_of_others_does_not_come_back);
    tcase_add_test(tests, a_room_that_a_gateway_knew_is_not_new_to_an_owner_that_does_not);
    tcase_add_test(tests, a_room_that_settles_empty_goes);
    tcase_add_test(tests, a_newer_report_overtakes_an_older_one);
    tcase_add_test(tests, a_detached_report_keeps_what_is_left_of_its_window);
    tcase_add_test(tests, a_gateway_that_left_the_view_detaches_its_sessions);
    tcase_add_test(tests, a_gateway_that_comes_back_unanswered_attaches_what_it_repeats);
    tcase_add_test(tests, a_gateway_that_was_away_attaches_what_it_repeats);
    tcase_add_test(tests, an_owner_that_acts_again_has_everybody_say_again_what_it_may_not_have_heard);
    tcase_add_test(tests, a_removal_outlives_its_shard);
    return suite_run("shard_settling", tests, NULL);
}
