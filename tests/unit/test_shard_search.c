/* Rooms that a shard owns and has not got: asked for, or put together from what gateways report. */
#include "handoff_fixture.h"
#include "suite.h"
#include <stdio.h>

/* A room that shard 1 owns since it has joined, and that shard 0 might have: it is behind. */
static const char *unknown_room(void)
{
    next_view("01");
    learn(1);
    return room_of(1);
}

/* A room that only shard 1 can have. */
static const char *room_of_shard_1(void)
{
    next_view("01");
    learn(0);
    learn(1);
    carry(0);
    return room_of(1);
}

START_TEST(an_unknown_room_is_pulled_before_it_is_taken_for_new)
{
    const char *name = room_moving_to(1, "01");
    struct person ann = joins(0, "ann", name);
    next_view("01");
    learn(1); /* the old owner is behind */
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    ck_assert_ptr_null(last_ack(&bob));
    ck_assert_uint_eq(f.letter_count, 1);
    learn(0); /* before it takes in the request, as links have it */
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    ck_assert_uint_eq(room_at(1, name)->total, 2);
    ck_assert_ptr_nonnull(member_find(f.peers[1].shard, ann.sid));
    ck_assert_uint_eq(f.peers[1].marker.seq, f.view->number.seq);
}
END_TEST

START_TEST(a_room_that_nobody_has_is_new_once_that_is_known)
{
    const char *name = unknown_room();
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    lose(); /* the request, or its answer: it is asked again */
    pass(250);
    learn(0);
    carry(0);
    ck_assert_int_eq(state_at(1, name), ROOM_LIVE);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    /* Once the other's marker says that it holds nothing, nobody is asked. */
    struct person cat = joins(1, "cat", "room-that-is-new");
    if (last_ack(&cat) == NULL)
        ck_assert_ptr_nonnull(last_of(BODY(NOT_OWNER)));
    ck_assert_uint_eq(f.letter_count, 0);
}
END_TEST

START_TEST(nobody_overtakes_those_that_wait)
{
    const char *name = unknown_room();
    struct person bob = joins(1, "bob", name);
    ck_assert_int_eq(state_at(1, name), ROOM_HELD);
    f.peers[0].marker = f.view->number; /* it holds nothing: the next one to come would find the room new */
    struct person cat = joins(1, "cat", name);
    ck_assert_int_eq(last_ack(&bob)->code, CODE(OK));
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_uint_lt(last_ack(&bob)->join_seq, last_ack(&cat)->join_seq);
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).waiting_commands, 0);
}
END_TEST

START_TEST(who_waits_too_long_or_one_too_many_is_told_to_try_again)
{
    struct shard_options options = f.peers[1].shard->options;
    options.limits.waiting_commands = 2;
    shard_reconfigure(f.peers[1].shard, &options);
    const char *name = unknown_room();
    struct person people[3];
    for (int i = 0; i < 3; i++) {
        char identity[8];
        snprintf(identity, sizeof identity, "p%d", i);
        people[i] = joins(1, identity, name);
    }
    ck_assert_ptr_null(last_ack(&people[1]));
    ck_assert_int_eq(last_ack(&people[2])->code, CODE(RETRY));
    ck_assert_int_eq((int)last_ack(&people[2])->action, (int)SIGNALBOX__V1__LEAVE_ACTION__REJOIN);
    ck_assert_uint_gt(last_ack(&people[2])->retry_after_ms, 0);
    pass(6000);
    ck_assert_int_eq(last_ack(&people[0])->code, CODE(RETRY));
    ck_assert_int_eq(last_ack(&people[1])->code, CODE(RETRY));
    ck_assert_int_eq(state_at(1, name), ROOM_ABSENT);
    ck_assert_uint_eq(shard_stats(f.peers[1].shard).waiting_commands, 0);
}
END_TEST

START_TEST(a_lost_owners_room_is_put_together_without_a_word)
{
    const char *name = room_of_shard_1();
    struct person ann = joins(1, "ann", name), bob = joins(1, "bob", name);
    pass(20);
    uint64_t digest = room_at(1, name)->digest, seq = room_at(1, name)->seq;
    f.reported = f.view->number;
    next_view("0");
    learn(0);
    struct person cat = joins(0, "cat", name); /* has to wait: others may be in there */
    ck_assert_int_eq(state_at(0, name), ROOM_REBUILDING);
    size_t before = f.to_gateway_count;
    const struct person *held[] = {&ann, &bob};
    for (int i = 0; i < 2; i++) {
        struct person person = *held[i];
        Signalbox__Cluster__V1__Epoch epoch = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
        const Ack *joined = last_ack(&person);
        person.bind_generation = 1;
        person.join_seq = joined->join_seq;
        person.join_epoch = epoch_from_proto(joined->join_epoch);
        person.joined_at_ms = joined->joined_at_ms;
        State *state = person_state(&person, HOLD, ATTACHED);
        epoch = *joined->epoch;
        state->last_epoch = &epoch;
        state->last_seq = seq;
        state->participant->version = 1;
        struct node_address gateway = {.kind = NODE_GATEWAY, .id = "gw-0", .incarnation = 100};
        session_state(f.peers[0].shard, &gateway, state, f.now_ms);
        ck_assert_ptr_null(last_ack(&person)->epoch);
        ck_assert_uint_eq(last_ack(&person)->n_messages, 0);
    }
    ck_assert_ptr_null(last_ack(&cat));
    pass(50);
    for (size_t i = before; i < f.to_gateway_count; i++)
        ck_assert_int_eq(f.to_gateways[i]->body_case, BODY(SESSION_ACK));
    ck_assert_uint_lt(f.peers[0].marker.seq, f.view->number.seq);
    /* Everybody has reported: a digest says it all. */
    f.reported = f.view->number;
    shard_progress(f.peers[0].shard, f.now_ms);
    ck_assert_int_eq(state_at(0, name), ROOM_SETTLING);
    const Signalbox__Cluster__V1__EpochChange *change = last_of(BODY(EPOCH_CHANGE))->epoch_change;
    ck_assert_uint_eq(change->seq, seq);
    ck_assert_uint_eq(change->digest, digest);
    ck_assert_ptr_null(change->from_epoch);
    ck_assert(change->settling);
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_uint_eq(f.peers[0].marker.seq, f.view->number.seq);
}
END_TEST

/* Gateways take a roster for what they know by its digest alone. */
START_TEST(changes_of_two_members_do_not_cancel_each_other_out)
{
    for (int i = 0; i < 1000; i++) {
        struct member ann = {.participant_version = 1}, bob = {.participant_version = 1};
        snprintf(ann.sid_text, sizeof ann.sid_text, "annAnnAnnAnnAnnAnn%04d", i);
        snprintf(bob.sid_text, sizeof bob.sid_text, "bobBobBobBobBobBob%04d", i);
        uint64_t before = member_digest(&ann) + member_digest(&bob);
        ann.participant_version = bob.participant_version = 2;
        ck_assert_uint_ne(member_digest(&ann) + member_digest(&bob), before);
    }
}
END_TEST

START_TEST(gateways_have_their_time_to_report_and_no_more)
{
    const char *name = room_of_shard_1();
    f.reported = f.view->number;
    next_view("0");
    learn(0);
    struct person cat = joins(0, "cat", name);
    pass(2900);
    ck_assert_ptr_null(last_ack(&cat));
    pass(200);
    ck_assert_int_eq(last_ack(&cat)->code, CODE(OK));
    ck_assert_int_eq(state_at(0, name), ROOM_SETTLING); /* who resumes is let in */
    /* But the view has not settled. */
    ck_assert_uint_lt(f.peers[0].marker.seq, f.view->number.seq);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("search");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, an_unknown_room_is_pulled_before_it_is_taken_for_new);
    tcase_add_test(tests, a_room_that_nobody_has_is_new_once_that_is_known);
    tcase_add_test(tests, nobody_overtakes_those_that_wait);
    tcase_add_test(tests, who_waits_too_long_or_one_too_many_is_told_to_try_again);
    tcase_add_test(tests, a_lost_owners_room_is_put_together_without_a_word);
    tcase_add_test(tests, changes_of_two_members_do_not_cancel_each_other_out);
    tcase_add_test(tests, gateways_have_their_time_to_report_and_no_more);
    tcase_set_timeout(tests, 60);
    return suite_run("shard_search", tests, NULL);
}
