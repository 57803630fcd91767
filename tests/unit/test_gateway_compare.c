/* What owners list as attached to this gateway, and what it holds. */
#include "common/ids.h"
#include "common/metrics.h"
#include "gateway_fixture.h"
#include "suite.h"
#include <string.h>

enum {
    ROUND_MS = 10 * 1000,
    HELD = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__HELD,
    LISTED = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LISTED,
    LACKED = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LACKED,
};

typedef Signalbox__Cluster__V1__SessionDigest Digest;
typedef Signalbox__Cluster__V1__SessionRef Ref;

static struct fixture f;
static int ann, bob;
static size_t since; /* what was sent before does not count */
static char stranger[SID_TEXT_SIZE + 1];

static void setup(void)
{
    struct sid sid = {.bytes = {7}};
    fixture_open(&f, NULL);
    ann = join_client(&f, "ann", "r", NULL);
    bob = join_client(&f, "bob", "r", NULL);
    sid_format(&sid, stranger);
    since = 0;
}

static void teardown(void)
{
    fixture_close(&f);
}

static const Digest *said(int n)
{
    const Item *item = sent(&f, since, ITEM(SESSION_DIGEST), n);
    return item != NULL ? item->session_digest : NULL;
}

static Ref ref_to(const char *sid, uint64_t bind_generation)
{
    Ref ref = SIGNALBOX__CLUSTER__V1__SESSION_REF__INIT;
    ref.sid = (char *)sid;
    ref.bind_generation = bind_generation;
    return ref;
}

static Ref ref_of(int client)
{
    const State *state = last_state(&f, client);
    return ref_to(state->sid, state->bind_generation != 0 ? state->bind_generation : 1);
}

static void list(size_t count, Ref *const *refs)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Digest digest = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
    digest.purpose = (Signalbox__Cluster__V1__SessionDigest__Purpose)LISTED;
    digest.slices = 1;
    digest.sessions = (Ref **)refs;
    digest.n_sessions = count;
    digest.count = (uint32_t)count;
    item.body_case = ITEM(SESSION_DIGEST);
    item.session_digest = &digest;
    since = f.sent_count;
    fixture_deliver(&f, &item);
    fixture_advance(&f, 50); /* what is said again is said in its turn */
}

START_TEST(owners_are_told_a_digest_of_what_is_held)
{
    struct sid sids[2];
    Ref refs[2] = {ref_of(ann), ref_of(bob)};
    fixture_advance(&f, ROUND_MS);
    const Digest *digest = said(0);
    ck_assert_ptr_nonnull(digest);
    ck_assert_int_eq((int)digest->purpose, HELD);
    ck_assert_uint_eq(digest->count, 2);
    ck_assert_uint_eq(digest->slices, 1);
    ck_assert_uint_eq(digest->n_sessions, 0);
    ck_assert(sid_parse(refs[0].sid, &sids[0]) && sid_parse(refs[1].sid, &sids[1]));
    ck_assert_uint_eq(digest->digest, session_digest(&sids[0], 1) + session_digest(&sids[1], 1));
}
END_TEST

START_TEST(what_the_owner_lacks_is_said_again)
{
    Ref a = ref_of(ann), b = ref_of(bob);
    fixture_advance(&f, ROUND_MS);
    list(2, (Ref *[]){&a, &b});
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
    list(1, (Ref *[]){&a});
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 1);
    ck_assert_str_eq(newest_state(&f)->sid, b.sid);
    ck_assert_int_eq((int)newest_state(&f)->intent, SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD);
}
END_TEST

START_TEST(what_it_lists_under_another_generation_is_said_again)
{
    Ref a = ref_of(ann), b = ref_of(bob);
    fixture_advance(&f, ROUND_MS);
    b.bind_generation = 5;
    list(2, (Ref *[]){&a, &b});
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 1);
    ck_assert_str_eq(newest_state(&f)->sid, b.sid);
}
END_TEST

/* It may have been bound a moment ago. */
START_TEST(what_is_not_held_is_said_the_second_time)
{
    Ref a = ref_of(ann), b = ref_of(bob), c = ref_to(stranger, 4);
    Ref *const refs[] = {&a, &b, &c};
    fixture_advance(&f, ROUND_MS);
    list(3, refs);
    ck_assert_ptr_null(said(0));
    c.bind_generation = 5; /* which is not what it was */
    list(3, refs);
    ck_assert_ptr_null(said(0));
    list(3, refs);
    ck_assert_int_eq((int)said(0)->purpose, LACKED);
    ck_assert_uint_eq(said(0)->n_sessions, 1);
    ck_assert_str_eq(said(0)->sessions[0]->sid, stranger);
    ck_assert_uint_eq(said(0)->sessions[0]->bind_generation, 5);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
}
END_TEST

START_TEST(of_many_that_are_not_held_some_are_said_at_a_time)
{
    enum { STRANGERS = 70, AT_ONCE = 64 };
    char sids[STRANGERS][SID_TEXT_SIZE + 1];
    Ref refs[STRANGERS], *list_of[STRANGERS];
    for (int i = 0; i < STRANGERS; i++) {
        struct sid sid = {.bytes = {9, (uint8_t)i}};
        sid_format(&sid, sids[i]);
        refs[i] = ref_to(sids[i], 1);
        list_of[i] = &refs[i];
    }
    disconnect_client(&f, ann, false);
    fixture_advance(&f, ROUND_MS);
    uint64_t cut = metric_value_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_GATEWAY);
    list(STRANGERS, list_of);
    list(STRANGERS, list_of);
    ck_assert_uint_eq(said(0)->n_sessions, AT_ONCE);
    ck_assert_uint_eq(metric_value_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_GATEWAY), cut + 2);
    /* Those are not listed any more. */
    list(STRANGERS - AT_ONCE, list_of + AT_ONCE);
    list(STRANGERS - AT_ONCE, list_of + AT_ONCE);
    ck_assert_uint_eq(said(0)->n_sessions, STRANGERS - AT_ONCE);
    ck_assert_uint_eq(metric_value_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_GATEWAY), cut + 2);
}
END_TEST

START_TEST(lists_that_are_too_long_or_late_are_counted_and_not_used)
{
    enum { TOO_MANY = 8193 };
    static Ref *refs[TOO_MANY];
    Ref a = ref_of(ann);
    uint64_t invalid = metric_value(M_ITEMS_INVALID), stale = metric_value(M_ACKS_STALE);
    list(1, (Ref *[]){&a}); /* nothing was compared yet */
    ck_assert_uint_eq(metric_value(M_ACKS_STALE), stale + 1);
    fixture_advance(&f, ROUND_MS);
    for (int i = 0; i < TOO_MANY; i++)
        refs[i] = &a;
    list(TOO_MANY, refs);
    ck_assert_uint_eq(metric_value(M_ITEMS_INVALID), invalid + 1);
    ck_assert_int_eq(sent_count(&f, since, ITEM(SESSION_STATE)), 0);
    ck_assert_uint_eq(metric_value(M_ACKS_STALE), stale + 1);
}
END_TEST

START_TEST(an_owner_of_nothing_is_not_asked_for_ever)
{
    disconnect_client(&f, ann, true);
    disconnect_client(&f, bob, true);
    fixture_advance(&f, ROUND_MS);
    ck_assert_ptr_null(said(0));
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("gateway_compare");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, owners_are_told_a_digest_of_what_is_held);
    tcase_add_test(tcase, what_the_owner_lacks_is_said_again);
    tcase_add_test(tcase, what_it_lists_under_another_generation_is_said_again);
    tcase_add_test(tcase, what_is_not_held_is_said_the_second_time);
    tcase_add_test(tcase, of_many_that_are_not_held_some_are_said_at_a_time);
    tcase_add_test(tcase, lists_that_are_too_long_or_late_are_counted_and_not_used);
    tcase_add_test(tcase, an_owner_of_nothing_is_not_asked_for_ever);
    return suite_run("gateway_compare", tcase, NULL);
}
