#include "common/metrics.h"
#include "shard/negotiation.h"
#include "suite.h"

enum {
    OFFER = SIGNALBOX__CLUSTER__V1__RELAY__KIND__OFFER,
    ANSWER = SIGNALBOX__CLUSTER__V1__RELAY__KIND__ANSWER,
    CANDIDATE = SIGNALBOX__CLUSTER__V1__RELAY__KIND__CANDIDATE,
    CONNECTED = SIGNALBOX__V1__ICE_STATE__STATE__CONNECTED,
    FAILED = SIGNALBOX__V1__ICE_STATE__STATE__FAILED,
    CLOSED = SIGNALBOX__V1__ICE_STATE__STATE__CLOSED,
};

static struct negotiations records_a, records_b;
static struct negotiation_end a = {.sid = {{1}}, .records = &records_a}, b = {.sid = {{2}}, .records = &records_b};

static void open_ends(void)
{
    negotiations_init(&records_a);
    negotiations_init(&records_b);
}

static void close_ends(void)
{
    negotiations_done(&records_a, NEGOTIATION_FORGOTTEN);
    negotiations_done(&records_b, NEGOTIATION_FORGOTTEN);
    ck_assert_uint_eq(records_a.count + records_b.count, 0);
}

static void relay(const struct negotiation_end *from, const struct negotiation_end *to, int kind, uint64_t negotiation,
                  uint32_t ice_generation, int64_t now_ms)
{
    Signalbox__Cluster__V1__Relay message = SIGNALBOX__CLUSTER__V1__RELAY__INIT;
    message.kind = kind;
    message.negotiation = negotiation;
    message.ice_generation = ice_generation;
    negotiation_relay(from, to, &message, now_ms);
}

static void report(const struct negotiation_end *from, const struct negotiation_end *to, int state,
                   uint64_t negotiation, uint32_t time_ms, int64_t now_ms)
{
    Signalbox__V1__IceState message = SIGNALBOX__V1__ICE_STATE__INIT;
    message.state = state;
    message.negotiation = negotiation;
    message.time_to_connected_ms = time_ms;
    negotiation_report(from, to, &message, now_ms);
}

/* Each test runs in a process of its own, so that metrics begin at 0. */
static void assert_outcomes(unsigned connected, unsigned failed, unsigned closed, unsigned superseded)
{
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, NEGOTIATION_CONNECTED), connected);
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, NEGOTIATION_FAILED), failed);
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, NEGOTIATION_CLOSED), closed);
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, NEGOTIATION_SUPERSEDED), superseded);
}

START_TEST(a_negotiation_is_counted_once_by_its_outcome)
{
    relay(&a, &b, OFFER, 1, 1, 1000);
    relay(&a, &b, OFFER, 1, 1, 1200); /* sent again */
    relay(&b, &a, ANSWER, 1, 1, 1300);
    relay(&b, &a, ANSWER, 1, 1, 1400);
    assert_outcomes(0, 0, 0, 0);
    report(&b, &a, CONNECTED, 1, 999, 1500);
    report(&a, &b, CONNECTED, 1, 999, 1600);
    assert_outcomes(1, 0, 0, 0);
    ck_assert_uint_eq(metric_value(M_TIME_TO_CONNECTED), 1);
    report(&a, &b, FAILED, 1, 0, 9000); /* much later: the negotiation had done its work */
    assert_outcomes(1, 0, 0, 0);
    ck_assert_uint_eq(records_a.count, 0);
}
END_TEST

START_TEST(failing_and_closing_are_outcomes_before_connected)
{
    relay(&a, &b, OFFER, 1, 1, 0);
    report(&b, &a, FAILED, 1, 0, 10);
    report(&a, &b, FAILED, 1, 0, 10);
    assert_outcomes(0, 1, 0, 0);
    relay(&b, &a, OFFER, 2, 2, 20);
    report(&a, &b, FAILED, 1, 0, 30); /* of the one before */
    report(&a, &b, CLOSED, 2, 0, 30);
    assert_outcomes(0, 1, 1, 0);
    relay(&a, &b, OFFER, 3, 3, 40);
    negotiations_done(&records_a, NEGOTIATION_CLOSED);
    assert_outcomes(0, 1, 2, 0);
}
END_TEST

START_TEST(a_renegotiation_is_over_with_its_answer_a_restart_is_not)
{
    relay(&a, &b, OFFER, 1, 1, 0);
    relay(&b, &a, ANSWER, 1, 1, 10);
    report(&a, &b, CONNECTED, 1, 0, 20);
    relay(&b, &a, OFFER, 2, 1, 30);
    relay(&a, &b, ANSWER, 2, 1, 40);
    assert_outcomes(2, 0, 0, 0);
    ck_assert_uint_eq(metric_value(M_TIME_TO_CONNECTED), 1);
    relay(&a, &b, OFFER, 3, 2, 50);
    relay(&b, &a, ANSWER, 3, 2, 60);
    assert_outcomes(2, 0, 0, 0);
    report(&a, &b, CONNECTED, 3, 0, 70);
    assert_outcomes(3, 0, 0, 0);
    ck_assert_uint_eq(records_a.count + records_b.count, 1);
}
END_TEST

START_TEST(a_newer_offer_supersedes_one_that_is_open)
{
    relay(&a, &b, OFFER, 1, 1, 0);
    relay(&a, &b, OFFER, 2, 1, 10);
    relay(&b, &a, ANSWER, 1, 1, 20); /* too late */
    report(&b, &a, CONNECTED, 1, 0, 30);
    assert_outcomes(0, 0, 0, 1);
    relay(&b, &a, ANSWER, 2, 1, 40);
    report(&b, &a, CONNECTED, 2, 0, 50);
    assert_outcomes(1, 0, 0, 1);
}
END_TEST

START_TEST(glare_is_counted_and_either_offer_may_stand)
{
    relay(&a, &b, OFFER, 1, 1, 0);
    relay(&b, &a, OFFER, 1, 1, 5);
    relay(&b, &a, OFFER, 1, 1, 6);
    ck_assert_uint_eq(metric_value(M_NEGOTIATION_GLARE), 1);
    relay(&a, &b, ANSWER, 1, 1, 10);
    report(&a, &b, CONNECTED, 1, 0, 20);
    assert_outcomes(1, 0, 0, 0);
    relay(&b, &a, OFFER, 2, 2, 30);
    relay(&a, &b, OFFER, 3, 2, 31);
    relay(&a, &b, ANSWER, 2, 2, 40);
    report(&a, &b, CONNECTED, 2, 0, 50);
    assert_outcomes(2, 0, 0, 0);
    ck_assert_uint_eq(metric_value(M_NEGOTIATION_GLARE), 2);
}
END_TEST

START_TEST(stale_candidates_are_counted)
{
    relay(&a, &b, CANDIDATE, 1, 1, 0); /* nothing known: nothing to compare with */
    relay(&a, &b, OFFER, 5, 2, 0);
    relay(&b, &a, CANDIDATE, 5, 2, 0);
    ck_assert_uint_eq(metric_value(M_CANDIDATES_STALE), 0);
    relay(&b, &a, CANDIDATE, 4, 2, 0);
    relay(&a, &b, CANDIDATE, 5, 1, 0);
    ck_assert_uint_eq(metric_value(M_CANDIDATES_STALE), 2);
}
END_TEST

START_TEST(records_are_bounded_and_the_least_recently_used_go_first)
{
    struct negotiations others[NEGOTIATIONS_MAX + 1];
    struct negotiation_end ends[NEGOTIATIONS_MAX + 1];
    for (unsigned i = 0; i <= NEGOTIATIONS_MAX; i++) {
        negotiations_init(&others[i]);
        ends[i] = (struct negotiation_end){.sid = {{3, (uint8_t)i}}, .records = &others[i]};
    }
    for (unsigned i = 0; i < NEGOTIATIONS_MAX; i++)
        relay(&a, &ends[i], OFFER, 1, 1, 0);
    relay(&ends[0], &a, ANSWER, 1, 1, 0);
    relay(&a, &ends[NEGOTIATIONS_MAX], OFFER, 1, 1, 0);
    ck_assert_uint_eq(records_a.count, NEGOTIATIONS_MAX);
    ck_assert_uint_eq(metric_value_at(M_NEGOTIATIONS, NEGOTIATION_FORGOTTEN), 1);
    report(&a, &ends[0], CONNECTED, 1, 0, 0);
    assert_outcomes(1, 0, 0, 0);
    report(&a, &ends[1], FAILED, 1, 0, 0); /* the forgotten one */
    assert_outcomes(1, 0, 0, 0);
}
END_TEST

START_TEST(what_was_offered_under_an_earlier_owner_counts_once_by_the_clients_figure)
{
    struct negotiation_end gone = {.sid = {{9}}};
    report(&a, &b, CONNECTED, 4, 250, 0);
    report(&b, &a, CONNECTED, 4, 250, 0);
    assert_outcomes(1, 0, 0, 0);
    ck_assert_uint_eq(metric_value(M_TIME_TO_CONNECTED), 1);
    report(&a, &gone, FAILED, 1, 0, 0);
    report(&a, &gone, CLOSED, 1, 0, 0);
    assert_outcomes(1, 0, 0, 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("negotiation");
    tcase_add_checked_fixture(tests, open_ends, close_ends);
    tcase_add_test(tests, a_negotiation_is_counted_once_by_its_outcome);
    tcase_add_test(tests, failing_and_closing_are_outcomes_before_connected);
    tcase_add_test(tests, a_renegotiation_is_over_with_its_answer_a_restart_is_not);
    tcase_add_test(tests, a_newer_offer_supersedes_one_that_is_open);
    tcase_add_test(tests, glare_is_counted_and_either_offer_may_stand);
    tcase_add_test(tests, stale_candidates_are_counted);
    tcase_add_test(tests, records_are_bounded_and_the_least_recently_used_go_first);
    tcase_add_test(tests, what_was_offered_under_an_earlier_owner_counts_once_by_the_clients_figure);
    return suite_run("negotiation", tests, NULL);
}
