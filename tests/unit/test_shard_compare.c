/* What gateways hold, and what is listed here as attached to them. */
#include "common/ids.h"
#include "common/metrics.h"
#include "shard_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

enum {
    HELD = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__HELD,
    LISTED = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LISTED,
    LACKED = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__PURPOSE__LACKED,
};

typedef Signalbox__Cluster__V1__SessionDigest Digest;
typedef Signalbox__Cluster__V1__SessionRef Ref;

static struct fixture f;
static struct person ann, bob, cat; /* ann and bob at gateway 0, cat at 1 */

static void setup(void)
{
    fixture_open(&f, NULL);
    fixture_set_gateways(&f, 2);
    ann = person_make("ann", "r", 0);
    bob = person_make("bob", "s", 0);
    cat = person_make("cat", "r", 1);
    person_join(&f, &ann);
    person_join(&f, &bob);
    person_join(&f, &cat);
}

static void teardown(void)
{
    fixture_close(&f);
}

static uint64_t digest_of(const struct person *person, uint64_t bind_generation)
{
    struct sid sid;
    ck_assert(sid_parse(person->sid, &sid));
    return session_digest(&sid, bind_generation);
}

/* Says a digest and returns the answer, if there is one. */
static const Digest *say(int gateway, int purpose, uint64_t sum, uint32_t count, Ref *ref)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Digest digest = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
    size_t since = f.sent_count;
    digest.purpose = (Signalbox__Cluster__V1__SessionDigest__Purpose)purpose;
    digest.digest = sum;
    digest.count = count;
    digest.slices = 1;
    digest.sessions = &ref;
    digest.n_sessions = ref != NULL ? 1 : 0;
    item.body_case = BODY(SESSION_DIGEST);
    item.session_digest = &digest;
    fixture_deliver(&f, gateway, &item);
    const Item *answer = sent_item(&f, since, gateway, BODY(SESSION_DIGEST), 0);
    return answer != NULL ? answer->session_digest : NULL;
}

START_TEST(who_agrees_gets_no_answer)
{
    ck_assert_ptr_null(say(0, HELD, digest_of(&ann, 1) + digest_of(&bob, 1), 2, NULL));
    ck_assert_ptr_null(say(1, HELD, digest_of(&cat, 1), 1, NULL));
}
END_TEST

START_TEST(who_differs_is_told_what_is_listed)
{
    const Digest *answer = say(0, HELD, digest_of(&ann, 1), 1, NULL);
    ck_assert_ptr_nonnull(answer);
    ck_assert_int_eq((int)answer->purpose, LISTED);
    ck_assert_uint_eq(answer->count, 2);
    ck_assert_uint_eq(answer->n_sessions, 2);
    for (size_t i = 0; i < 2; i++)
        ck_assert_uint_eq(answer->sessions[i]->bind_generation, 1);
    ck_assert_str_ne(answer->sessions[0]->sid, answer->sessions[1]->sid);
    ck_assert_ptr_nonnull(say(0, HELD, digest_of(&ann, 1) + digest_of(&bob, 2), 2, NULL));
}
END_TEST

START_TEST(of_too_many_for_a_list_some_are_listed)
{
    enum { LISTED_MOST = 4096 };
    char room[16];
    uint64_t cut = metric_value_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_OWNER);
    struct person person = person_make("p", "", 0);
    for (int i = 0; i < LISTED_MOST; i++) {
        struct sid sid = {.bytes = {1, (uint8_t)(i >> 8), (uint8_t)i}};
        sid_format(&sid, person.sid);
        snprintf(person.identity, sizeof person.identity, "p%d", i);
        snprintf(room, sizeof room, "room-%d", i / 256); /* joins of one room are budgeted */
        person.room = room;
        person.version = 1;
        send_state(&f, &person, person_state(&person, JOIN, ATTACHED));
        fixture_flush(&f);
    }
    const Digest *answer = say(0, HELD, 0, 0, NULL);
    ck_assert_uint_eq(answer->count, LISTED_MOST + 2);
    ck_assert_uint_eq(answer->n_sessions, LISTED_MOST);
    ck_assert_uint_eq(metric_value_at(M_SESSION_LISTS_CUT, SESSION_LIST_CUT_BY_OWNER), cut + 1);
}
END_TEST

START_TEST(who_is_detached_is_not_listed)
{
    person_hold(&f, &bob, DETACHED);
    ck_assert_ptr_null(say(0, HELD, digest_of(&ann, 1), 1, NULL));
}
END_TEST

START_TEST(whom_the_gateway_lacks_is_detached_at_that_generation)
{
    Ref ref = SIGNALBOX__CLUSTER__V1__SESSION_REF__INIT;
    ref.sid = bob.sid;
    ref.bind_generation = 2;
    say(0, LACKED, 0, 1, &ref);
    ck_assert_uint_eq(shard_stats(f.shard).detached, 0); /* it was bound anew meanwhile, say */
    ref.bind_generation = 1;
    say(1, LACKED, 0, 1, &ref);
    ck_assert_uint_eq(shard_stats(f.shard).detached, 0); /* it is not that gateway's */
    say(0, LACKED, 0, 1, &ref);
    ck_assert_uint_eq(shard_stats(f.shard).detached, 1);
    ck_assert_uint_eq(shard_stats(f.shard).participants, 3); /* its window runs */
    ck_assert_ptr_null(say(0, HELD, digest_of(&ann, 1), 1, NULL));
}
END_TEST

START_TEST(slices_that_cannot_be_are_refused)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Digest digest = SIGNALBOX__CLUSTER__V1__SESSION_DIGEST__INIT;
    size_t since = f.sent_count;
    item.body_case = BODY(SESSION_DIGEST);
    item.session_digest = &digest;
    fixture_deliver(&f, 0, &item); /* of no slices */
    digest.slices = digest.slice = 3;
    fixture_deliver(&f, 0, &item);
    ck_assert_int_eq(sent_count(&f, since, 0, BODY(SESSION_DIGEST)), 0);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("shard_compare");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, who_agrees_gets_no_answer);
    tcase_add_test(tcase, who_differs_is_told_what_is_listed);
    tcase_add_test(tcase, of_too_many_for_a_list_some_are_listed);
    tcase_add_test(tcase, who_is_detached_is_not_listed);
    tcase_add_test(tcase, whom_the_gateway_lacks_is_detached_at_that_generation);
    tcase_add_test(tcase, slices_that_cannot_be_are_refused);
    return suite_run("shard_compare", tcase, NULL);
}
