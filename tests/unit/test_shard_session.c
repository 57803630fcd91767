/* Binding sessions: join, resume, leave, windows, duplicates, restoring, limits. */
#include "common/metrics.h"
#include "shard_fixture.h"
#include <stdio.h>
#include <string.h>

static struct fixture fixture;

static void open_fixture(void)
{
    fixture_open(&fixture, NULL);
}

static void close_fixture(void)
{
    fixture_close(&fixture);
}

static void reopen(const struct shard_options *options)
{
    fixture_close(&fixture);
    fixture_open(&fixture, options);
}

static const Signalbox__Cluster__V1__SessionCommand *close_command(size_t since, int gateway)
{
    const Item *item = sent_item(&fixture, since, gateway, BODY(SESSION_COMMAND), 0);
    ck_assert_ptr_nonnull(item);
    ck_assert_int_eq(item->session_command->command_case, SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE);
    return item->session_command;
}

static const Event *only_event(size_t since, int gateway)
{
    const Events *events = sent_events(&fixture, since, gateway, 0);
    ck_assert_ptr_nonnull(events);
    ck_assert_uint_eq(events->n_events, 1);
    ck_assert_ptr_null(sent_events(&fixture, since, gateway, 1));
    return events->events[0];
}

static void assert_refused(const Ack *ack, int code, int reason, int action)
{
    ck_assert_int_eq(ack->code, code);
    ck_assert_int_eq(ack->reason, reason);
    ck_assert_int_eq(ack->action, action);
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
    ck_assert_int_eq(close_command(since, 0)->close->action, ACTION(REJOIN));
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
    const Signalbox__Cluster__V1__SessionCommand *command = close_command(since, 0);
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
    fixture_close(&fixture);
    fixture_open(&fixture, NULL);
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

static const Ack *resume_at(struct person *person, int gateway, const struct epoch *epoch, uint64_t seq)
{
    size_t since = fixture.sent_count;
    Signalbox__Cluster__V1__Epoch last = epoch_to_proto(epoch);
    person->gateway = gateway;
    person->connection += 1000000;
    State *state = person_state(person, RESUME, ATTACHED);
    state->token_bind_generation = person->bind_generation;
    state->last_epoch = &last;
    state->last_seq = seq;
    send_state(&fixture, person, state);
    const Item *item = sent_item(&fixture, since, gateway, BODY(SESSION_ACK), 0);
    person->bind_generation = item->session_ack->bind_generation;
    return item->session_ack;
}

START_TEST(a_resume_is_replayed_within_the_ring_and_else_gets_a_snapshot)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.ring_entries = 3;
    reopen(&options);
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
    const Ack *ack = resume_at(&ann, 0, &epoch, 3);
    ck_assert(ack->recovered);
    ck_assert_uint_eq(ack->seq, 6);
    ck_assert_uint_eq(ack->n_messages, 3);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_uint_eq(unpack_message(&fixture, ack->messages[i])->room_events->first_seq, 4 + i);
    ck_assert_uint_eq(resume_at(&ann, 1, &epoch, 6)->n_messages, 0);
    ck_assert_uint_eq(ack_snapshot(&fixture, resume_at(&ann, 2, &epoch, 2))->n_participants, 6);
    ck_assert_uint_eq(ack_snapshot(&fixture, resume_at(&ann, 0, &epoch, 7))->n_participants, 6);
    epoch.counter++;
    ck_assert_uint_eq(ack_snapshot(&fixture, resume_at(&ann, 0, &epoch, 6))->n_participants, 6);
}
END_TEST

START_TEST(who_was_removed_for_cause_is_told_to_stop)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    ann.version++;
    State *state = person_state(&ann, HOLD, DEPARTED);
    state->reason = REASON(TOKEN_REVOKED);
    send_state(&fixture, &ann, state);
    assert_refused(person_resume(&fixture, &ann, 1, 1), CODE(NOT_FOUND), REASON(TOKEN_REVOKED), ACTION(STOP));
    /* Departing is repeated until it is acknowledged. */
    ann.version = 2;
    ck_assert_int_eq(person_hold(&fixture, &ann, DEPARTED)->code, CODE(OK));
}
END_TEST

static void end_for(struct person *person, Signalbox__V1__LeaveReason reason)
{
    person->version++;
    State *state = person_state(person, HOLD, DEPARTED);
    state->reason = reason;
    send_state(&fixture, person, state);
}

/* Nobody is left in the room, and its departures have had their time: a room that a resume does not find is put
 * together from whoever comes. */
START_TEST(who_was_removed_does_not_come_back_to_an_empty_room)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "s", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    size_t since = fixture.sent_count;
    end_for(&ann, REASON(REMOVED));
    end_for(&bob, REASON(CLIENT_LEFT));
    /* Gateways are told, of what beats resume alone. */
    for (int gateway = 0; gateway < GATEWAYS; gateway++)
        ck_assert_int_eq(sent_count(&fixture, since, gateway, BODY(REVOCATIONS)), 1);
    fixture_advance(&fixture, 3600 * 1000);
    ck_assert_uint_eq(shard_stats(fixture.shard).rooms, 0);
    assert_refused(person_resume(&fixture, &ann, 1, 1), CODE(NOT_FOUND), REASON(REMOVED), ACTION(STOP));
    ck_assert_int_eq(person_resume(&fixture, &bob, 1, 1)->code, CODE(OK));
}
END_TEST

/* The shard that removed her is lost: its successor hears of it from a gateway, before she is reported or after. */
START_TEST(a_removal_outlives_its_shard)
{
    struct person ann = person_make("ann", "r", 0), bob = person_make("bob", "r", 0);
    person_join(&fixture, &ann);
    person_join(&fixture, &bob);
    end_for(&ann, REASON(REMOVED));
    Item told = *sent_item(&fixture, 0, 1, BODY(REVOCATIONS), 0);
    fixture_restart(&fixture);
    ck_assert_int_eq(person_hold(&fixture, &bob, ATTACHED)->code, CODE(OK));
    ck_assert_int_eq(person_hold(&fixture, &ann, ATTACHED)->code, CODE(OK)); /* by a gateway that heard nothing */
    size_t since = fixture.sent_count;
    fixture_deliver(&fixture, 1, &told);
    ck_assert_int_eq(close_command(since, 0)->close->reason, REASON(REMOVED));
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

START_TEST(departures_are_bounded_and_forgotten_in_time)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.departures = 2;
    reopen(&options);
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
    ck_assert_int_eq(close_command(since, 0)->close->reason, REASON(DUPLICATE_IDENTITY));
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
    reopen(&options);
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
    ack = resume_at(&ann, 2, &epoch, events->last_seq - 1);
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
    ck_assert_uint_eq(close_command(since, 0)->bind_generation, 1);
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

START_TEST(limits_turn_newcomers_away)
{
    struct shard_options options = {.limits = shard_default_limits};
    options.limits.rooms = 2;
    options.limits.participants = 3;
    options.limits.room_participants = 2;
    reopen(&options);
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
    TCase *tests = tcase_create("session");
    tcase_add_checked_fixture(tests, open_fixture, close_fixture);
    tcase_add_test(tests, a_join_is_acknowledged_with_a_snapshot_that_contains_it);
    tcase_add_test(tests, a_repeated_join_changes_nothing);
    tcase_add_test(tests, a_join_repeated_with_a_newer_wanted_state_applies_it);
    tcase_add_test(tests, leaving_before_the_join_is_acknowledged_leaves);
    tcase_add_test(tests, a_lost_connection_ends_after_its_window_once);
    tcase_add_test(tests, windows_stretch_while_a_queue_of_returns_moves);
    tcase_add_test(tests, a_client_that_is_back_in_time_stays);
    tcase_add_test(tests, a_resume_from_another_gateway_takes_the_session_over);
    tcase_add_test(tests, a_session_that_nobody_held_goes_on_above_its_old_versions);
    tcase_add_test(tests, a_repeat_from_a_replaced_connection_does_not_win_it_back);
    tcase_add_test(tests, a_token_is_superseded_once_a_newer_one_is_confirmed);
    tcase_add_test(tests, an_older_attempt_does_not_take_the_session_from_a_newer_one);
    tcase_add_test(tests, fresh_grants_replace_the_permissions_once);
    tcase_add_test(tests, a_resume_is_replayed_within_the_ring_and_else_gets_a_snapshot);
    tcase_add_test(tests, who_was_removed_for_cause_is_told_to_stop);
    tcase_add_test(tests, who_was_removed_does_not_come_back_to_an_empty_room);
    tcase_add_test(tests, a_removal_outlives_its_shard);
    tcase_add_test(tests, departures_are_bounded_and_forgotten_in_time);
    tcase_add_test(tests, a_second_join_of_an_identity_replaces_the_first);
    tcase_add_test(tests, a_join_that_was_overtaken_does_not_end_the_later_one);
    tcase_add_test(tests, the_last_one_of_a_room_can_be_replaced_by_itself);
    tcase_add_test(tests, a_second_join_of_an_identity_can_be_refused);
    tcase_add_test(tests, of_two_sessions_that_come_back_the_later_join_stays);
    tcase_add_test(tests, a_new_owner_puts_a_room_together_and_settles_it);
    tcase_add_test(tests, a_young_room_takes_back_whom_nobody_knows_and_settles);
    tcase_add_test(tests, who_has_left_in_the_eyes_of_others_does_not_come_back);
    tcase_add_test(tests, a_room_that_a_gateway_knew_is_not_new_to_an_owner_that_does_not);
    tcase_add_test(tests, a_room_that_settles_empty_goes);
    tcase_add_test(tests, a_newer_report_overtakes_an_older_one);
    tcase_add_test(tests, a_detached_report_keeps_what_is_left_of_its_window);
    tcase_add_test(tests, a_gateway_that_left_the_view_detaches_its_sessions);
    tcase_add_test(tests, a_gateway_that_comes_back_unanswered_attaches_what_it_repeats);
    tcase_add_test(tests, a_gateway_that_was_away_attaches_what_it_repeats);
    tcase_add_test(tests, an_owner_that_acts_again_has_everybody_say_again_what_it_may_not_have_heard);
    tcase_add_test(tests, limits_turn_newcomers_away);
    tcase_add_test(tests, a_full_shard_takes_no_new_rooms);
    tcase_add_test(tests, a_participant_that_is_too_large_is_refused);
    tcase_add_test(tests, a_room_of_another_shard_is_not_taken);
    tcase_add_test(tests, a_sid_of_another_room_is_not_moved);
    Suite *suite = suite_create("shard_session");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
