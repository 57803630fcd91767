/* Binding sessions: join, resume, leave, windows, departures. */
#include "common/metrics.h"
#include "plain_fixture.h"
#include "suite.h"
#include <stdio.h>
#include <string.h>

static const Event *only_event(size_t since, int gateway)
{
    const Events *events = sent_events(&fixture, since, gateway, 0);
    ck_assert_ptr_nonnull(events);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_ptr_null(sent_events(&fixture, since, gateway, 1));
    return events->events[0];
}

START_TEST(a_join_is_acknowledged_with_a_snapshot_that_contains_it)
{
    struct person ann = person_make("ann", "r", 0);
    ann.tracks = 2;
    const Ack *ack = person_join(&fixture, &ann);
    const Snapshot *snapshot = ack_snapshot(&fixture, ack);
    ck_assert_uint_eq(ack->bind_generation, 1);
    ck_assert_uint_eq(ack->seq, 1);
    ck_assert_uint_eq(ack->join_seq, 1);
    ck_assert_str_eq(ack->participant->sid, ann.sid);
    ck_assert_uint_eq(snapshot->n_participants, 1);
    const Signalbox__V1__Participant *self = snapshot_find(snapshot, ann.sid);
    ck_assert_str_eq(self->identity, "ann");
    ck_assert_uint_eq(self->n_tracks, 2);
    ck_assert_uint_eq(self->version, 1);
    ck_assert_uint_eq(self->join->seq, 1);
    ck_assert_str_eq(self->join->epoch, snapshot->position->epoch);
    ck_assert(!snapshot->settling);
    ck_assert_str_eq(snapshot->next_cursor, "");
    ck_assert_str_eq(snapshot->room->name, "r");
    ck_assert_uint_eq(snapshot->room->participants, 1);
}
END_TEST

START_TEST(a_repeated_join_changes_nothing)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_flush(&fixture);
    size_t since = fixture.sent_count;
    const Ack *again = person_join(&fixture, &ann);
    ck_assert_uint_eq(again->bind_generation, 1);
    ck_assert_ptr_nonnull(snapshot_find(ack_snapshot(&fixture, again), ann.sid));
    fixture_advance(&fixture, 100);
    ck_assert_ptr_null(sent_events(&fixture, since, 0, 0));
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

START_TEST(a_join_repeated_with_a_newer_wanted_state_applies_it)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    ann.version = 2;
    strcpy(ann.name, "Ann B.");
    const Ack *ack = person_join(&fixture, &ann);
    ck_assert_str_eq(ack->participant->name, "Ann B.");
    ck_assert_uint_eq(ack->participant->version, 2);
}
END_TEST

START_TEST(leaving_before_the_join_is_acknowledged_leaves)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &bob);
    person_join(&fixture, &ann);
    ann.version = 2;
    State *state = person_state(&ann, JOIN, DEPARTED);
    state->reason = REASON(CLIENT_LEFT);
    send_state(&fixture, &ann, state);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
    /* A late repeat of the join does not bring it back. */
    ann.version = 1;
    assert_refused(person_join(&fixture, &ann), CODE(NOT_FOUND), REASON(SESSION_GONE), ACTION(REJOIN));
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 1);
}
END_TEST

START_TEST(a_lost_connection_ends_after_its_window_once)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_flush(&fixture);
    size_t since = fixture.sent_count;
    uint64_t returned = metric_value_at(M_ABSENCES, 0), over = metric_value_at(M_ABSENCES, 1);
    person_hold(&fixture, &ann, DETACHED);
    fixture_advance(&fixture, 29000);
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 1);
    ck_assert_uint_eq(metric_value_at(M_ABSENCES, 1), over); /* not decided yet */
    ck_assert_ptr_null(sent_events(&fixture, since, 1, 0));
    fixture_advance(&fixture, 2000);
    const Event *event = only_event(since, 1);
    ck_assert_int_eq(event->event_case, SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT);
    ck_assert_str_eq(event->left->sid, ann.sid);
    ck_assert_str_eq(event->left->identity, "ann");
    ck_assert_int_eq(event->left->reason, REASON(DISCONNECTED));
    ck_assert_int_eq(close_command(&fixture, since, 0)->close->action, ACTION(REJOIN));
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 0);
    ck_assert_uint_eq(metric_value_at(M_ABSENCES, 0), returned);
    ck_assert_uint_eq(metric_value_at(M_ABSENCES, 1), over + 1);
    assert_refused(person_resume(&fixture, &ann, 2, 1), CODE(NOT_FOUND), REASON(WINDOW_EXPIRED), ACTION(REJOIN));
}
END_TEST

START_TEST(a_client_that_is_back_in_time_stays)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_flush(&fixture);
    size_t since = fixture.sent_count;
    uint64_t returned = metric_value_at(M_ABSENCES, 0), measured = metric_value(M_ABSENCE);
    person_hold(&fixture, &ann, DETACHED);
    fixture_advance(&fixture, 29000);
    person_hold(&fixture, &ann, ATTACHED);
    ck_assert_uint_eq(metric_value_at(M_ABSENCES, 0), returned + 1);
    ck_assert_uint_eq(metric_value(M_ABSENCE), measured + 1);
    fixture_advance(&fixture, 60000);
    ck_assert_ptr_null(sent_events(&fixture, since, 1, 0));
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 2);
}
END_TEST

/* What the gateways' queue of handshakes costs in time costs nobody the session; a few who come late are no queue. */
START_TEST(windows_stretch_while_a_queue_of_returns_moves)
{
    enum { QUEUE = 40 };
    struct person people[QUEUE];
    char names[QUEUE][8];
    for (int i = 0; i < QUEUE; i++) {
        snprintf(names[i], sizeof names[i], "p%d", i);
        people[i] = person_make(names[i], "r", 0);
        person_join(&fixture, &people[i]);
    }
    for (int i = 0; i < QUEUE; i++)
        person_hold(&fixture, &people[i], DETACHED);
    fixture_advance(&fixture, 26000);
    for (int i = 0; i < 9; i++)
        person_hold(&fixture, &people[i], ATTACHED);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, QUEUE);
    for (int i = 9; i < 30; i++) {
        fixture_advance(&fixture, 400);
        person_hold(&fixture, &people[i], ATTACHED);
    }
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, QUEUE);
    /* The queue has ended. */
    fixture_advance(&fixture, 16000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 30);
    /* A few who come late keep no window open. */
    for (int i = 0; i < 30; i++)
        person_hold(&fixture, &people[i], DETACHED);
    fixture_advance(&fixture, 29000);
    for (int i = 0; i < 9; i++)
        person_hold(&fixture, &people[i], ATTACHED);
    fixture_advance(&fixture, 2000);
    ck_assert_uint_eq(shard_stats(fixture.shard).participants, 9);
}
END_TEST

START_TEST(a_resume_from_another_gateway_takes_the_session_over)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 1);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    fixture_flush(&fixture);
    size_t since = fixture.sent_count;
    struct person old = ann;
    const Ack *ack = person_resume(&fixture, &ann, 2, 1);
    ck_assert_uint_eq(ack->bind_generation, 2);
    ck_assert_uint_eq(ack->join_seq, old.join_seq);
    ck_assert_int_eq(ack->joined_at_ms, old.joined_at_ms);
    const Signalbox__Cluster__V1__SessionCommand *command = close_command(&fixture, since, 0);
    ck_assert_str_eq(command->sid, ann.sid);
    ck_assert_uint_eq(command->bind_generation, 1);
    ck_assert_int_eq(command->close->reason, REASON(REPLACED));
    ck_assert_int_eq(command->close->action, ACTION(STOP));
    fixture_advance(&fixture, 100);
    ck_assert_ptr_null(sent_events(&fixture, since, 1, 0)); /* its peers are told nothing */
    /* The old gateway's word no longer counts. */
    assert_refused(person_hold(&fixture, &old, DETACHED), CODE(NOT_FOUND), REASON(REPLACED), ACTION(STOP));
    ck_assert_uint_eq(shard_stats(fixture.shard).detached, 0);
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK));
}
END_TEST

/* Its gateway hung, the shard died, and it came back through another gateway, which does not know the last version. */
START_TEST(a_session_that_nobody_held_goes_on_above_its_old_versions)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    for (unsigned i = 0; i < 3; i++) {
        ann.tracks = (i + 1) % 2;
        ann.version++;
        person_hold(&fixture, &ann, ATTACHED);
    }
    uint64_t old = person_hold(&fixture, &ann, ATTACHED)->participant_version;
    ck_assert_uint_gt(old, 1);
    fixture_reopen(&fixture, NULL);
    ann.joined_at_ms -= 20;
    ck_assert_uint_gt(person_resume(&fixture, &ann, 1, 1)->participant_version, old);
}
END_TEST

START_TEST(a_repeat_from_a_replaced_connection_does_not_win_it_back)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    person_resume(&fixture, &ann, 1, 1);
    struct person older = ann;
    person_resume(&fixture, &ann, 2, 1);
    size_t since = fixture.sent_count;
    State *state = person_state(&older, RESUME, ATTACHED);
    state->token_bind_generation = 1;
    send_state(&fixture, &older, state);
    const Item *answer = sent_item(&fixture, since, 1, BODY(SESSION_ACK), 0);
    assert_refused(answer->session_ack, CODE(NOT_FOUND), REASON(REPLACED), ACTION(STOP));
    ck_assert_int_eq(sent_count(&fixture, since, 2, BODY(SESSION_COMMAND)), 0);
    ck_assert_uint_eq(person_hold(&fixture, &ann, ATTACHED)->bind_generation, 3);
}
END_TEST

START_TEST(a_token_is_superseded_once_a_newer_one_is_confirmed)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    person_resume(&fixture, &ann, 1, 1);
    /* hello_ok was lost: the client has only the first token. */
    ck_assert_uint_eq(person_resume(&fixture, &ann, 2, 1)->bind_generation, 3);
    ann.version++;
    State *state = person_state(&ann, HOLD, ATTACHED);
    state->confirmed = true;
    send_state(&fixture, &ann, state);
    struct person thief = ann;
    assert_refused(person_resume(&fixture, &thief, 0, 2), CODE(UNAUTHENTICATED), REASON(REPLACED), ACTION(STOP));
    ck_assert_uint_eq(person_resume(&fixture, &ann, 1, 3)->bind_generation, 4);
}
END_TEST

/* The hello of a connection that the client has given up, which the bus has held up, and that of its newer one. */
START_TEST(an_older_attempt_does_not_take_the_session_from_a_newer_one)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    struct person older = ann, newer = ann;
    older.gateway = 1;
    older.connection += 1000000;
    newer.gateway = 2;
    newer.connection += 2000000;
    State *state = person_state(&newer, RESUME, ATTACHED);
    state->token_bind_generation = 1;
    state->attempt = 2;
    size_t since = fixture.sent_count;
    send_state(&fixture, &newer, state);
    ck_assert_uint_eq(sent_item(&fixture, since, 2, BODY(SESSION_ACK), 0)->session_ack->bind_generation, 2);
    state = person_state(&older, RESUME, ATTACHED);
    state->token_bind_generation = 1; /* of the first hello_ok, not yet superseded */
    state->attempt = 1;
    since = fixture.sent_count;
    send_state(&fixture, &older, state);
    assert_refused(sent_item(&fixture, since, 1, BODY(SESSION_ACK), 0)->session_ack, CODE(NOT_FOUND), REASON(REPLACED),
                   ACTION(STOP));
    ck_assert_int_eq(sent_count(&fixture, since, 2, BODY(SESSION_COMMAND)), 0);
    state->attempt = 0; /* a client that does not count: the newest socket wins */
    since = fixture.sent_count;
    send_state(&fixture, &older, state);
    ck_assert_uint_eq(sent_item(&fixture, since, 1, BODY(SESSION_ACK), 0)->session_ack->bind_generation, 3);
    /* A rebuilt owner learns of the attempt by the report of who is bound. */
    fixture_restart(&fixture);
    newer.bind_generation = 3;
    state = person_state(&newer, HOLD, ATTACHED);
    state->attempt = 2;
    send_state(&fixture, &newer, state);
    state = person_state(&older, RESUME, ATTACHED);
    state->token_bind_generation = 3;
    state->attempt = 1;
    since = fixture.sent_count;
    send_state(&fixture, &older, state);
    ck_assert_int_ne((int)sent_item(&fixture, since, 1, BODY(SESSION_ACK), 0)->session_ack->code, CODE(OK));
}
END_TEST

START_TEST(fresh_grants_replace_the_permissions_once)
{
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 1000);
    Signalbox__V1__Permissions permissions = SIGNALBOX__V1__PERMISSIONS__INIT;
    permissions.can_subscribe = true;
    ann.version++;
    State *state = person_state(&ann, HOLD, ATTACHED);
    state->participant->permissions = &permissions;
    size_t since = fixture.sent_count;
    send_state(&fixture, &ann, state); /* no word of a new token: not the gateway's to change */
    fixture_advance(&fixture, 1000);
    ck_assert_ptr_null(sent_events(&fixture, since, 0, 0));
    ann.version++;
    state = person_state(&ann, HOLD, ATTACHED);
    state->participant->permissions = &permissions;
    state->grants_version = 1;
    permissions.hidden = true; /* settled by the join */
    send_state(&fixture, &ann, state);
    fixture_advance(&fixture, 1000);
    const Events *events = sent_events(&fixture, since, 0, 0);
    ck_assert_ptr_nonnull(events);
    const Signalbox__V1__Permissions *now = events->events[0]->updated->permissions;
    ck_assert(now->can_subscribe && !now->can_publish && !now->hidden);
    /* Bound elsewhere with an older resume token, which knows nothing of it. */
    const Ack *ack = person_resume(&fixture, &ann, 1, 1);
    ck_assert_uint_eq(ack->grants_version, 1);
    ck_assert(!ack->participant->permissions->can_publish);
    /* And by a resume token that knows more than this owner. */
    struct person again = ann;
    again.connection += 5000000;
    state = person_state(&again, RESUME, ATTACHED);
    permissions.can_publish = true;
    state->participant->permissions = &permissions;
    state->token_bind_generation = ann.bind_generation;
    state->grants_version = 2;
    since = fixture.sent_count;
    send_state(&fixture, &again, state);
    ack = sent_item(&fixture, since, 1, BODY(SESSION_ACK), 0)->session_ack;
    ck_assert(ack->participant->permissions->can_publish);
    ck_assert_uint_eq(ack->grants_version, 2);
}
END_TEST

START_TEST(a_resume_is_replayed_within_the_ring_and_else_gets_a_snapshot)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.ring_entries = 3;
    fixture_reopen(&fixture, &options);
    struct person ann = person_make("ann", "r", 0);
    person_join(&fixture, &ann);
    fixture_advance(&fixture, 10);
    struct person others[5];
    for (int i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "p%d", i);
        others[i] = person_make(name, "r", 1);
        person_join(&fixture, &others[i]);
        fixture_advance(&fixture, 10);
    }
    struct epoch epoch = ann.join_epoch;
    const Ack *ack = person_resume_at(&fixture, &ann, 0, &epoch, 3);
    ck_assert(ack->recovered);
    ck_assert_uint_eq(ack->seq, 6);
    ck_assert_uint_eq(ack->n_messages, 3);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(unpack_message(&fixture, ack->messages[i])->room_events->first_seq, 4 + i);
    ck_assert_uint_eq(person_resume_at(&fixture, &ann, 1, &epoch, 6)->n_messages, 0);
    ck_assert_uint_eq(ack_snapshot(&fixture, person_resume_at(&fixture, &ann, 2, &epoch, 2))->n_participants, 6);
    ck_assert_uint_eq(ack_snapshot(&fixture, person_resume_at(&fixture, &ann, 0, &epoch, 7))->n_participants, 6);
    epoch.counter++;
    ck_assert_uint_eq(ack_snapshot(&fixture, person_resume_at(&fixture, &ann, 0, &epoch, 6))->n_participants, 6);
}
END_TEST

START_TEST(who_was_removed_for_cause_is_told_to_stop)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    person_end(&fixture, &ann, REASON(TOKEN_REVOKED));
    assert_refused(person_resume(&fixture, &ann, 1, 1), CODE(NOT_FOUND), REASON(TOKEN_REVOKED), ACTION(STOP));
    /* Departing is repeated until it is acknowledged. */
    ann.version = 2;
    ck_assert_int_eq(person_hold(&fixture, &ann, DEPARTED)->code, CODE(OK));
}
END_TEST

/* Nobody is left in the room, and its departures have had their time: a room that a resume does not find is put
 * together from whoever comes. */
START_TEST(who_was_removed_does_not_come_back_to_an_empty_room)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "s", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    size_t since = fixture.sent_count;
    person_end(&fixture, &ann, REASON(REMOVED));
    person_end(&fixture, &bob, REASON(CLIENT_LEFT));
    /* Gateways are told, of what beats resume alone. */
    for (int gateway = 0; gateway < GATEWAYS; gateway++)
        ck_assert_int_eq(sent_count(&fixture, since, gateway, BODY(REVOCATIONS)), 1);
    fixture_advance(&fixture, 3600 * 1000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 0);
    assert_refused(person_resume(&fixture, &ann, 1, 1), CODE(NOT_FOUND), REASON(REMOVED), ACTION(STOP));
    ck_assert_int_eq(person_resume(&fixture, &bob, 1, 1)->code, CODE(OK));
}
END_TEST

START_TEST(departures_are_bounded_and_forgotten_in_time)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.departures = 2;
    fixture_reopen(&fixture, &options);
    struct person bob = person_make("bob", "r", 0), gone[3];
    uint64_t before = metric_value(M_DEPARTURES_FORGOTTEN);
    person_join(&fixture, &bob);
    fixture_advance(&fixture, 31000); /* nobody from before the room may come back any more */
    for (int i = 0; i < 3; i++) {
        gone[i] = person_make("gone", "r", 0);
        person_join(&fixture, &gone[i]);
        person_hold(&fixture, &gone[i], DEPARTED);
    }
    ck_assert_uint_eq(metric_value(M_DEPARTURES_FORGOTTEN) - before, 1);
    ck_assert_int_eq(person_resume(&fixture, &gone[0], 1, 1)->reason, REASON(SESSION_GONE));
    ck_assert_int_eq(person_resume(&fixture, &gone[2], 1, 1)->reason, REASON(LEAVE_REASON_UNSPECIFIED));
    fixture_advance(&fixture, 91000);
    ck_assert_int_eq(person_resume(&fixture, &gone[2], 1, 1)->reason, REASON(SESSION_GONE));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("session");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_join_is_acknowledged_with_a_snapshot_that_contains_it);
    tcase_add_test(tests, a_repeated_join_changes_nothing);
    tcase_add_test(tests, a_join_repeated_with_a_newer_wanted_state_applies_it);
    tcase_add_test(tests, leaving_before_the_join_is_acknowledged_leaves);
    tcase_add_test(tests, a_lost_connection_ends_after_its_window_once);
    tcase_add_test(tests, a_client_that_is_back_in_time_stays);
    tcase_add_test(tests, windows_stretch_while_a_queue_of_returns_moves);
    tcase_add_test(tests, a_resume_from_another_gateway_takes_the_session_over);
    tcase_add_test(tests, a_session_that_nobody_held_goes_on_above_its_old_versions);
    tcase_add_test(tests, a_repeat_from_a_replaced_connection_does_not_win_it_back);
    tcase_add_test(tests, a_token_is_superseded_once_a_newer_one_is_confirmed);
    tcase_add_test(tests, an_older_attempt_does_not_take_the_session_from_a_newer_one);
    tcase_add_test(tests, fresh_grants_replace_the_permissions_once);
    tcase_add_test(tests, a_resume_is_replayed_within_the_ring_and_else_gets_a_snapshot);
    tcase_add_test(tests, who_was_removed_for_cause_is_told_to_stop);
    tcase_add_test(tests, who_was_removed_does_not_come_back_to_an_empty_room);
    tcase_add_test(tests, departures_are_bounded_and_forgotten_in_time);
    return suite_run("shard_session", tests, NULL);
}
