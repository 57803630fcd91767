/* Who is let in: one session of an identity, limits, rooms of other shards. */
#include "plain_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

START_TEST(a_second_join_of_an_identity_replaces_the_first)
{
    struct person first = person_make("ann", "r", 0), second = person_make("ann", "r", 1);
    struct person elsewhere = person_make("ann", "other", 0), bob = person_make("bob", "r", 2);
    person_join(&fixture, &bob);
    person_join(&fixture, &first);
    person_join(&fixture, &elsewhere);
    fixture_advance(&fixture, 10);
    size_t since = fixture.sent_count;
    const Snapshot *snapshot = ack_snapshot(&fixture, person_join(&fixture, &second));
    ck_assert_uint_eq(snapshot->n_participants, 2);
    ck_assert_int_eq(close_command(&fixture, since, 0)->close->reason, REASON(DUPLICATE_IDENTITY));
    fixture_advance(&fixture, 10);
    const Events *events = sent_events(&fixture, since, 2, 0);
    ck_assert_uint_eq(events->n_events, 2);
    ck_assert_str_eq(events->events[0]->left->sid, first.sid);
    ck_assert_str_eq(events->events[1]->joined->sid, second.sid);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 3);
    assert_refused(person_resume(&fixture, &first, 0, 1), CODE(NOT_FOUND), REASON(DUPLICATE_IDENTITY), ACTION(STOP));
}
END_TEST

/* The first join is held up on its way, and its client has come back by a second one meanwhile. */
START_TEST(a_join_that_was_overtaken_does_not_end_the_later_one)
{
    struct person late = person_make("ann", "r", 0), ann = person_make("ann", "r", 1);
    person_join(&fixture, &ann);
    late.version = 1;
    size_t since = fixture.sent_count;
    State *state = person_state(&late, JOIN, ATTACHED);
    send_state(&fixture, &late, state);
    const Item *taken = sent_item(&fixture, since, 0, BODY(IDENTITY_TAKEN), 0);
    ck_assert_str_eq(taken->identity_taken->by, ann.sid);
    ck_assert_str_eq(taken->identity_taken->sid, late.sid);
    ck_assert_uint_eq(taken->identity_taken->connection, late.connection);
    ck_assert_int_eq(sent_count(&fixture, since, -1, BODY(SESSION_ACK)), 0);
    /* Nobody waits for it any more, as its gateway says. */
    ck_assert_int_eq(person_hold(&fixture, &late, DEPARTED)->code, CODE(OK));
    ck_assert_int_eq(sent_count(&fixture, since, 1, BODY(SESSION_COMMAND)), 0);
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK));
    /* To have known of somebody who was there before does not do. */
    struct person next = person_make("ann", "r", 2);
    next.version = 1;
    state = person_state(&next, JOIN, ATTACHED);
    state->replaces = late.sid;
    since = fixture.sent_count;
    send_state(&fixture, &next, state);
    ck_assert_int_eq(sent_count(&fixture, since, 2, BODY(IDENTITY_TAKEN)), 1);
    ck_assert_int_eq(sent_count(&fixture, since, 1, BODY(SESSION_COMMAND)), 0);
}
END_TEST

START_TEST(the_last_one_of_a_room_can_be_replaced_by_itself)
{
    struct person first = person_make("ann", "r", 0), second = person_make("ann", "r", 0);
    person_join(&fixture, &first);
    ck_assert_uint_eq(ack_snapshot(&fixture, person_join(&fixture, &second))->n_participants, 1);
    fixture_advance(&fixture, 10);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 1);
}
END_TEST

START_TEST(a_second_join_of_an_identity_can_be_refused)
{
    struct shard_options options = {.limits = shard_default_limits, .duplicate = DUPLICATE_REFUSE};
    fixture_reopen(&fixture, &options);
    struct person first = person_make("ann", "r", 0), second = person_make("ann", "r", 1);
    person_join(&fixture, &first);
    assert_refused(person_join(&fixture, &second), CODE(ALREADY_EXISTS), REASON(DUPLICATE_IDENTITY), ACTION(STOP));
    ck_assert_int_eq(person_hold(&fixture, &first, ATTACHED)->code, CODE(OK));
}
END_TEST

START_TEST(of_two_sessions_that_come_back_the_later_join_stays)
{
    struct person first = person_make("ann", "r", 0), second = person_make("ann", "r", 1);
    person_join(&fixture, &first);
    struct person bob = person_make("bob", "r", 0);
    person_join(&fixture, &bob);
    person_join(&fixture, &second);
    ck_assert_uint_lt(first.join_seq, second.join_seq);
    fixture_restart(&fixture);
    ck_assert_int_eq(person_hold(&fixture, &second, ATTACHED)->code, CODE(OK));
    assert_refused(person_resume(&fixture, &first, 0, 1), CODE(ALREADY_EXISTS), REASON(DUPLICATE_IDENTITY),
                   ACTION(STOP));
    fixture_restart(&fixture);
    ck_assert_int_eq(person_resume(&fixture, &first, 0, 1)->code, CODE(OK));
    ck_assert_int_eq(person_hold(&fixture, &second, ATTACHED)->code, CODE(OK));
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

START_TEST(limits_turn_newcomers_away)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.rooms = 2;
    options.limits.participants = 3;
    options.limits.room_participants = 2;
    fixture_reopen(&fixture, &options);
    struct person a = person_make("a", "r", 0), b = person_make("b", "r", 0), c = person_make("c", "r", 0),
                  d = person_make("d", "s", 0), e = person_make("e", "t", 0), f = person_make("f", "s", 0),
                  again = person_make("a", "r", 1);
    ck_assert_int_eq(person_join(&fixture, &a)->code, CODE(OK));
    ck_assert_int_eq(person_join(&fixture, &b)->code, CODE(OK));
    assert_refused(person_join(&fixture, &c), CODE(LIMIT_REACHED), REASON(CAPACITY), ACTION(STOP));
    ck_assert_int_eq(person_join(&fixture, &d)->code, CODE(OK));
    assert_refused(person_join(&fixture, &e), CODE(RETRY), REASON(CAPACITY), ACTION(REJOIN));
    assert_refused(person_join(&fixture, &f), CODE(RETRY), REASON(CAPACITY), ACTION(REJOIN));
    /* Who takes its own place is no newcomer. */
    ck_assert_int_eq(person_join(&fixture, &again)->code, CODE(OK));
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 2);
}
END_TEST

START_TEST(a_full_shard_takes_no_new_rooms)
{
    struct person a = person_make("a", "r", 0), b = person_make("b", "r", 0), c = person_make("c", "s", 0),
                  d = person_make("d", "t", 0);
    ck_assert_int_eq(person_join(&fixture, &a)->code, CODE(OK));
    shard_set_full(fixture.shard, true);
    ck_assert_int_eq(person_join(&fixture, &b)->code, CODE(OK)); /* its room is here already */
    const Ack *ack = person_join(&fixture, &c);
    ck_assert_int_eq(ack->code, CODE(RETRY));
    ck_assert_uint_gt(ack->retry_after_ms, 0);
    /* Every shard that could own it says that it is full. */
    struct view *view = view_copy(fixture.view);
    view->number.seq++;
    view->shards[0].full = true;
    shard_view(fixture.shard, view, fixture.now_ms);
    view_unref(&view);
    ack = person_join(&fixture, &d);
    ck_assert_int_eq(ack->code, CODE(NO_CAPACITY));
    ck_assert_uint_gt(ack->retry_after_ms, 0);
}
END_TEST

START_TEST(a_participant_that_is_too_large_is_refused)
{
    static char metadata[64 * 1024];
    struct person ann = person_make("ann", "r", 0);
    ann.version = 1;
    memset(metadata, 'x', sizeof metadata - 1);
    State *state = person_state(&ann, JOIN, ATTACHED);
    state->participant->metadata = metadata;
    send_state(&fixture, &ann, state);
    const Item *answer = sent_item(&fixture, 0, 0, BODY(SESSION_ACK), 0);
    assert_refused(answer->session_ack, CODE(TOO_LARGE), REASON(PROTOCOL_ERROR), ACTION(STOP));
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 0);
}
END_TEST

START_TEST(a_room_of_another_shard_is_not_taken)
{
    struct view *view = view_copy(fixture.view);
    struct view_node other = {.id = "shard-2", .incarnation = 77, .weight = 100, .full_weight = 100};
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    view->number.seq++;
    view_put_shard(view, &other);
    view->settled = view->number; /* nobody owned anything before */
    shard_view(fixture.shard, view, fixture.now_ms);
    unsigned mine = 0, others = 0;
    for (int i = 0; i < 64; i++) {
        char room[16];
        snprintf(room, sizeof room, "room-%d", i);
        struct room_key key = room_key_make("test", room);
        bool owned = view_owner(view, &fixture.options.seed, &key, "")->incarnation == 7;
        struct person person = person_make("p", room, 0);
        person.version = 1;
        size_t since = fixture.sent_count;
        send_state(&fixture, &person, person_state(&person, JOIN, ATTACHED));
        const Item *refusal = sent_item(&fixture, since, 0, BODY(NOT_OWNER), 0);
        ck_assert_int_eq(sent_count(&fixture, since, 0, BODY(SESSION_ACK)), owned);
        ck_assert_int_eq(refusal == NULL, owned);
        owned ? mine++ : others++;
        if (refusal == NULL)
            continue;
        ck_assert_str_eq(refusal->not_owner->sid, person.sid);
        ck_assert_uint_eq(refusal->not_owner->connection, person.connection);
        ck_assert_uint_eq(refusal->not_owner->view->seq, view->number.seq);
    }
    ck_assert_uint_gt(mine, 0);
    ck_assert_uint_gt(others, 0);
    /* With no room left to own, everything that is held goes in silence. */
    struct view *without = view_copy(view);
    view_remove_shard(without, "shard-1", 7);
    without->number.seq++;
    size_t since = fixture.sent_count;
    shard_view(fixture.shard, without, fixture.now_ms);
    fixture_advance(&fixture, 100);
    ck_assert_uint_eq(fixture.sent_count, since);
    struct shard_stats stats = shard_stats(fixture.shard);
    ck_assert_uint_eq(stats.rooms + stats.participants + stats.gateways + stats.pending_updates, 0);
    view_unref(&without);
    view_unref(&view);
}
END_TEST

START_TEST(a_sid_of_another_room_is_not_moved)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    struct person forged = ann;
    forged.room = "s";
    size_t since = fixture.sent_count;
    send_state(&fixture, &forged, person_state(&forged, HOLD, DEPARTED));
    ck_assert_uint_eq(fixture.sent_count, since);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("admission");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_second_join_of_an_identity_replaces_the_first);
    tcase_add_test(tests, a_join_that_was_overtaken_does_not_end_the_later_one);
    tcase_add_test(tests, the_last_one_of_a_room_can_be_replaced_by_itself);
    tcase_add_test(tests, a_second_join_of_an_identity_can_be_refused);
    tcase_add_test(tests, of_two_sessions_that_come_back_the_later_join_stays);
    tcase_add_test(tests, limits_turn_newcomers_away);
    tcase_add_test(tests, a_full_shard_takes_no_new_rooms);
    tcase_add_test(tests, a_participant_that_is_too_large_is_refused);
    tcase_add_test(tests, a_room_of_another_shard_is_not_taken);
    tcase_add_test(tests, a_sid_of_another_room_is_not_moved);
    return suite_run("shard_admission", tests, NULL);
}
