/* Into the view and out of it, and following the log. */
#include "common/metrics.h"
#include "membership_fixture.h"
#include <stdlib.h>

START_TEST(the_first_of_all_appends_to_an_empty_log)
{
    begin(NODE_SHARD);
    assert_state(MEMBERSHIP_LISTENING);
    membership_start(f.membership, f.now_ms);
    ck_assert_uint_eq(f.reads, 1);
    ck_assert_uint_eq(f.heartbeats, 1);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    pass(membership_default_times.listen_ms - 20);
    assert_state(MEMBERSHIP_LISTENING); /* the log may have been lost: whoever knows it would be heard */
    pass(20);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.expected_seq, 0);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S);
    ck_assert_uint_eq(view_find_shard(f.proposed, "self")->incarnation, SELF);
    ck_assert_uint_eq(view_find_shard(f.proposed, "self")->weight, 70);
    ck_assert_str_eq(view_find_shard(f.proposed, "self")->region, "eu");
    membership_append_done(f.membership, VIEWLOG_OK, 1, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(f.announcements, 1);
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 1);
}
END_TEST

START_TEST(it_listens_before_it_joins_others)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms - 20);
    ck_assert_uint_eq(f.appends, 0);
    pass(20);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.expected_seq, 20);
    ck_assert_uint_eq(f.proposed->number.generation, 9);
    ck_assert_uint_eq(f.proposed->shard_count, 3);
    ck_assert_uint_eq(f.proposed->settled.seq, 20);
    ck_assert(f.heartbeats > 5);
}
END_TEST

START_TEST(after_a_conflict_it_builds_on_what_won)
{
    begin_alone();
    membership_append_done(f.membership, VIEWLOG_CONFLICT, 0, f.now_ms);
    ck_assert_uint_eq(f.reads, 2);
    ck_assert_uint_eq(f.appends, 1);
    read_done(make_view(WALL_S, 1, "a"));
    hear("a", WALL_S, 1);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.expected_seq, 1);
    ck_assert_uint_eq(f.proposed->shard_count, 2);
    membership_append_done(f.membership, VIEWLOG_OK, 2, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
}
END_TEST

START_TEST(an_unknown_outcome_is_read_and_never_assumed)
{
    struct view *view;

    begin_alone();
    membership_append_done(f.membership, VIEWLOG_UNKNOWN, 0, f.now_ms);
    assert_state(MEMBERSHIP_JOINING);
    ck_assert_uint_eq(f.reads, 2);
    ck_assert_uint_eq(f.appends, 1);
    view = make_view(WALL_S, 1, "");
    put_self(view, NODE_SHARD, SELF); /* it did happen */
    read_done(view);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(f.appends, 1);
}
END_TEST

START_TEST(a_failed_append_is_tried_again_later)
{
    begin_alone();
    membership_append_done(f.membership, VIEWLOG_FAILED, 0, f.now_ms);
    ck_assert_uint_eq(f.reads, 1);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(f.reads, 2);
    membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(f.reads, 3);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    ck_assert_uint_eq(f.appends, 2);
}
END_TEST

START_TEST(an_abandoned_log_is_left_behind)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("x", 9, 20); /* not of the view */
    for (unsigned answered = f.reads; f.appends == 0 && f.now_ms < 1000 + 2 * membership_default_times.abandoned_ms;) {
        pass(10);
        if (f.reads > answered)
            membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms); /* the poll's */
        answered = f.reads;
    }
    ck_assert_int_ge(f.now_ms, 1000 + membership_default_times.abandoned_ms);
    ck_assert_int_le(f.now_ms, 2000 + membership_default_times.abandoned_ms);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.expected_seq, 20);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S);
    ck_assert_uint_eq(f.proposed->shard_count, 1);
}
END_TEST

START_TEST(a_restart_takes_the_place_of_its_namesake)
{
    struct view *view = make_view(9, 20, "a");

    put_self(view, NODE_SHARD, SELF - 1);
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(view);
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.appends, 1); /* its removal, which must settle first */
    ck_assert_uint_eq(f.proposed->shard_count, 1);
    ck_assert_ptr_null(view_find_shard(f.proposed, "self"));
    membership_append_done(f.membership, VIEWLOG_OK, 21, f.now_ms);
    ck_assert_uint_eq(f.appends, 1);
    hear("a", 9, 21);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.proposed->shard_count, 2);
    ck_assert_uint_eq(view_find_shard(f.proposed, "self")->incarnation, SELF);
    ck_assert_uint_eq(f.proposed->settled.seq, 21);
}
END_TEST

static struct view *settled_view(uint64_t seq, uint64_t settled_seq)
{
    struct view *view = make_view(9, seq, "ab");
    view->settled = (struct view_number){9, settled_seq};
    return view;
}

static void entry_done(struct view *take_view)
{
    membership_entry_done(f.membership, VIEWLOG_OK, take_view, f.now_ms);
    view_unref(&take_view);
}

START_TEST(it_begins_with_the_last_settled_view)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(settled_view(23, 20));
    for (uint64_t seq = 20; seq < 23; seq++) {
        ck_assert_uint_eq(f.entry_seq, seq);
        ck_assert_uint_eq(f.seen_count, seq - 20);
        entry_done(settled_view(seq, 19));
    }
    const uint64_t expected[] = {20, 21, 22, 23};
    ck_assert_uint_eq(f.seen_count, 4);
    ck_assert_mem_eq(f.seen, expected, sizeof expected);
    ck_assert_uint_eq(f.entry_reads, 3);
}
END_TEST

START_TEST(an_entry_that_was_not_announced_is_read_before_the_next)
{
    join(NODE_GATEWAY); /* in view 21 */
    struct view *late = settled_view(24, 21);
    put_self(late, NODE_GATEWAY, SELF);
    learn(late);
    ck_assert_uint_eq(f.entry_seq, 22);
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 21);
    struct view *third = settled_view(23, 21), *second = settled_view(22, 21);
    put_self(second, NODE_GATEWAY, SELF);
    put_self(third, NODE_GATEWAY, SELF);
    learn(second); /* announced after all */
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 22);
    membership_entry_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(f.entry_seq, 23);
    entry_done(third);
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 24);
    assert_state(MEMBERSHIP_ACTIVE);
}
END_TEST

START_TEST(what_has_settled_is_passed_over)
{
    join(NODE_GATEWAY);
    learn(settled_view(40, 38));
    ck_assert_uint_eq(f.entry_seq, 38);
    entry_done(settled_view(38, 37));
    entry_done(settled_view(39, 38));
    ck_assert_uint_eq(f.seen_count, 5); /* 20, 21, 38, 39, 40 */
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 40);
}
END_TEST

START_TEST(a_truncated_log_does_not_stop_it)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(settled_view(23, 20));
    uint64_t lost = metric_value(M_VIEW_HISTORY_LOST);
    membership_entry_done(f.membership, VIEWLOG_GONE, NULL, f.now_ms);
    ck_assert_uint_eq(metric_value(M_VIEW_HISTORY_LOST), lost + 1);
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 23);
    ck_assert_uint_eq(f.seen_count, 1);
}
END_TEST

/* A shard that was removed had not reached the view before: nobody may say that this one has settled. */
START_TEST(a_removed_shard_leaves_nothing_settled_behind)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "abc"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    hear("c", 9, 19);
    struct view *without = make_view(9, 21, "ab");
    without->settled = (struct view_number){9, 19};
    learn(without);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.appends, 0); /* a and b are at 20, c never was */
    hear("a", 9, 21);
    hear("b", 9, 21);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.proposed->settled.seq, 21);
}
END_TEST

/* It joined after 15 s in any case. */
START_TEST(it_waits_for_the_view_to_settle_for_as_long_as_it_takes)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    for (unsigned i = 0; i < 60; i++) {
        hear("a", 9, 20);
        hear("b", 9, 19);
        pass(500);
        membership_read_done(f.membership, VIEWLOG_FAILED, NULL, f.now_ms); /* the poll's */
    }
    ck_assert_uint_eq(f.appends, 0);
    hear("b", 9, 20);
    pass(1000);
    ck_assert_uint_eq(f.appends, 1);
}
END_TEST

START_TEST(a_joiner_that_removed_an_earlier_start_replaced_it)
{
    join(NODE_SHARD);
    struct view *view = make_view(9, 22, "ab");
    view->appender = SELF + 1; /* not in the view */
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    ck_assert(membership_was_replaced(f.membership));
}
END_TEST

START_TEST(whoever_is_held_for_gone_was_not_replaced)
{
    join(NODE_SHARD);
    struct view *view = make_view(9, 22, "ab");
    view->appender = 'a';
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    ck_assert(!membership_was_replaced(f.membership));
}
END_TEST

/* There was a wait of abandoned_ms for nobody. */
START_TEST(an_only_shard_does_not_wait_for_its_own_ghost)
{
    struct view *view = make_view(9, 20, "");

    put_self(view, NODE_SHARD, SELF - 1);
    put_self(view, NODE_GATEWAY, 7);
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(view);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.proposed->gateway_count, 1);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S); /* nobody was there to say what the log may have lost */
}
END_TEST

START_TEST(leaving_is_an_append_without_itself)
{
    join(NODE_SHARD);
    membership_leave(f.membership, f.now_ms);
    assert_state(MEMBERSHIP_LEAVING);
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.expected_seq, 21);
    ck_assert_uint_eq(f.proposed->shard_count, 2);
    ck_assert(!membership_may_act(f.membership, f.now_ms)); /* others may know of the entry first */
    membership_append_done(f.membership, VIEWLOG_CONFLICT, 0, f.now_ms);
    struct view *view = make_view(9, 22, "abc");
    put_self(view, NODE_SHARD, SELF);
    read_done(view);
    ck_assert_uint_eq(f.appends, 3);
    ck_assert_uint_eq(f.expected_seq, 22);
    ck_assert_uint_eq(f.proposed->shard_count, 3);
    membership_append_done(f.membership, VIEWLOG_OK, 23, f.now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

START_TEST(who_never_joined_leaves_at_once)
{
    begin(NODE_SHARD);
    membership_leave(f.membership, f.now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

/* It left a ghost in the view: the append whose outcome was unknown had happened. */
START_TEST(leaving_in_doubt_reads_the_log_first)
{
    begin_alone();
    membership_append_done(f.membership, VIEWLOG_UNKNOWN, 0, f.now_ms);
    membership_leave(f.membership, f.now_ms);
    assert_state(MEMBERSHIP_LEAVING);
    struct view *view = make_view(WALL_S, 1, "");
    put_self(view, NODE_SHARD, SELF);
    read_done(view);
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.proposed->shard_count, 0);
    membership_append_done(f.membership, VIEWLOG_OK, 2, f.now_ms);
    assert_state(MEMBERSHIP_LEFT);
}
END_TEST

START_TEST(a_shard_that_is_no_longer_listed_is_removed)
{
    join(NODE_SHARD);
    learn(make_view(9, 22, "ab"));
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(f.appends, 1);
}
END_TEST

START_TEST(a_gateway_that_is_no_longer_listed_is_removed)
{
    join(NODE_GATEWAY);
    learn(make_view(9, 22, "ab"));
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(f.appends, 1); /* this incarnation is never listed again */
}
END_TEST

/* Two gateways of one id replaced each other for ever. */
START_TEST(a_gateway_whose_id_was_taken_is_removed)
{
    struct view *view = make_view(9, 22, "ab");

    join(NODE_GATEWAY);
    put_self(view, NODE_GATEWAY, SELF + 1);
    learn(view);
    assert_state(MEMBERSHIP_REMOVED);
    pass(1000);
    ck_assert_uint_eq(f.appends, 1);
}
END_TEST

START_TEST(older_views_change_nothing)
{
    join(NODE_SHARD);
    learn(make_view(9, 20, "ab"));
    learn(make_view(8, 99, "ab"));
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(membership_view(f.membership)->number.seq, 21);
}
END_TEST

/* A view that is spoken of and not in the log was asked for as fast as the log could answer. */
START_TEST(what_was_heard_of_is_asked_for_at_a_bounded_rate)
{
    struct view *current;
    unsigned before;

    join(NODE_SHARD);
    current = view_ref(membership_view(f.membership));
    before = f.reads;
    hear("a", 9, 50);
    ck_assert_uint_eq(f.questions, 1); /* somebody who knows it comes before the log */
    ck_assert_uint_eq(f.reads, before);
    pass(membership_default_times.heartbeat_ms);
    ck_assert_uint_eq(f.reads, before + 1);
    for (unsigned i = 0; i < 200; i++) {
        unsigned asked = f.reads;
        pass(10);
        hear("a", 9, 50);
        if (f.reads > asked)
            membership_read_done(f.membership, VIEWLOG_OK, current, f.now_ms);
        else if (i == 0)
            membership_read_done(f.membership, VIEWLOG_OK, current, f.now_ms);
    }
    ck_assert_uint_ge(f.reads, before + 3);
    ck_assert_uint_le(f.reads, before + 6);
    ck_assert_uint_ge(f.questions, 3);
    ck_assert_uint_le(f.questions, 6);
    view_unref(&current);
}
END_TEST

/* The append was repeated for ever, because it expected a sequence that the log no longer had. */
START_TEST(a_log_that_lost_its_tail_goes_on_in_a_new_generation)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    learn(make_view(6000, 30, "ab")); /* announced, and then lost from the log */
    read_done(make_view(6000, 28, "a"));
    hear("a", 6000, 30);
    hear("b", 6000, 30);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.expected_seq, 28);
    ck_assert_uint_eq(f.proposed->number.generation, 6001);
    ck_assert_uint_eq(f.proposed->shard_count, 3);
    membership_append_done(f.membership, VIEWLOG_OK, 29, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
    ck_assert_uint_eq(membership_view(f.membership)->number.generation, 6001);
}
END_TEST

/* It would have appended a view of itself alone, or of those whom the rest of the log still had. */
START_TEST(who_joins_waits_for_the_view_that_others_speak_of)
{
    begin(NODE_GATEWAY);
    membership_start(f.membership, f.now_ms);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    hear("a", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.reads, 2);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    pass(membership_default_times.retry_ms);
    ck_assert_uint_eq(f.reads, 3);
    ck_assert_uint_eq(f.appends, 0);
    read_done(make_view(WALL_S, 1, "ab")); /* it is there again */
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.expected_seq, 1);
    ck_assert_uint_eq(f.proposed->shard_count, 2);
}
END_TEST

START_TEST(who_speaks_of_a_newer_view_is_not_waited_for_for_ever)
{
    begin(NODE_GATEWAY);
    membership_start(f.membership, f.now_ms);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    f.reads_answered = f.reads;
    hear("a", 6000, 20);
    int64_t start_ms = f.now_ms, end_ms = f.now_ms + 2 * membership_default_times.abandoned_ms;
    while (f.appends == 0 && f.now_ms < end_ms) {
        pass(10);
        if (f.reads > f.reads_answered) {
            f.reads_answered = f.reads;
            membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
        }
    }
    ck_assert_int_ge(f.now_ms - start_ms, membership_default_times.abandoned_ms);
    ck_assert_uint_eq(f.appends, 1);
    ck_assert_uint_eq(f.proposed->number.generation, 6001);
}
END_TEST

START_TEST(a_lost_log_gets_back_what_is_known)
{
    join(NODE_SHARD); /* a and b have not heard of it */
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.expected_seq, 0);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S);
    ck_assert_uint_eq(f.proposed->shard_count, 3);
    membership_append_done(f.membership, VIEWLOG_OK, 1, f.now_ms);
    assert_state(MEMBERSHIP_ACTIVE);
}
END_TEST

START_TEST(the_lowest_id_of_those_who_know_most_restores_the_log)
{
    join(NODE_SHARD);
    hear("a", 9, 21);
    membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    ck_assert_uint_eq(f.appends, 1);
}
END_TEST

START_TEST(a_gateway_restores_what_no_shard_knows)
{
    join(NODE_GATEWAY);
    read_done(make_view(9, 20, "ab"));
    ck_assert_uint_eq(f.appends, 2);
    ck_assert_uint_eq(f.expected_seq, 20);
    ck_assert_uint_eq(f.proposed->number.generation, WALL_S);
    ck_assert_uint_eq(f.proposed->gateway_count, 1);
}
END_TEST

START_TEST(an_entry_in_a_place_that_is_used_again_counts_for_nothing)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    hear("a", 9, 20);
    hear("b", 9, 20);
    pass(membership_default_times.listen_ms);
    ck_assert_uint_eq(f.expected_seq, 20);
    learn(make_view(WALL_S, 20, "ab")); /* the log had lost its end */
    membership_append_done(f.membership, VIEWLOG_OK, 21, f.now_ms);
    assert_state(MEMBERSHIP_JOINING);
    ck_assert_uint_eq(f.announcements, 0);
    ck_assert_uint_eq(membership_view(f.membership)->number.generation, WALL_S);
}
END_TEST

/* It took a view whose shards it could not hear for abandoned. */
START_TEST(who_is_off_the_bus_appends_nothing)
{
    begin(NODE_SHARD);
    membership_start(f.membership, f.now_ms);
    read_done(make_view(9, 20, "ab"));
    pass(membership_default_times.listen_ms);
    membership_bus_lost(f.membership);
    for (int64_t end_ms = f.now_ms + 2 * membership_default_times.abandoned_ms; f.now_ms < end_ms;) {
        pass(10);
        f.reads_answered = f.reads;
        membership_read_done(f.membership, VIEWLOG_EMPTY, NULL, f.now_ms);
    }
    ck_assert_uint_eq(f.appends, 0);
}
END_TEST

START_TEST(a_bus_that_is_back_means_that_views_may_have_passed)
{
    join(NODE_SHARD);
    unsigned before = f.reads;
    membership_start(f.membership, f.now_ms);
    ck_assert_uint_eq(f.reads, before + 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("membership");
    TCase *tcase = tcase_create("membership");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_first_of_all_appends_to_an_empty_log);
    tcase_add_test(tcase, it_listens_before_it_joins_others);
    tcase_add_test(tcase, after_a_conflict_it_builds_on_what_won);
    tcase_add_test(tcase, an_unknown_outcome_is_read_and_never_assumed);
    tcase_add_test(tcase, a_failed_append_is_tried_again_later);
    tcase_add_test(tcase, an_abandoned_log_is_left_behind);
    tcase_add_test(tcase, a_restart_takes_the_place_of_its_namesake);
    tcase_add_test(tcase, it_begins_with_the_last_settled_view);
    tcase_add_test(tcase, an_entry_that_was_not_announced_is_read_before_the_next);
    tcase_add_test(tcase, what_has_settled_is_passed_over);
    tcase_add_test(tcase, a_truncated_log_does_not_stop_it);
    tcase_add_test(tcase, a_removed_shard_leaves_nothing_settled_behind);
    tcase_add_test(tcase, it_waits_for_the_view_to_settle_for_as_long_as_it_takes);
    tcase_add_test(tcase, a_joiner_that_removed_an_earlier_start_replaced_it);
    tcase_add_test(tcase, whoever_is_held_for_gone_was_not_replaced);
    tcase_add_test(tcase, an_only_shard_does_not_wait_for_its_own_ghost);
    tcase_add_test(tcase, leaving_is_an_append_without_itself);
    tcase_add_test(tcase, who_never_joined_leaves_at_once);
    tcase_add_test(tcase, leaving_in_doubt_reads_the_log_first);
    tcase_add_test(tcase, a_shard_that_is_no_longer_listed_is_removed);
    tcase_add_test(tcase, a_gateway_that_is_no_longer_listed_is_removed);
    tcase_add_test(tcase, a_gateway_whose_id_was_taken_is_removed);
    tcase_add_test(tcase, older_views_change_nothing);
    tcase_add_test(tcase, what_was_heard_of_is_asked_for_at_a_bounded_rate);
    tcase_add_test(tcase, a_log_that_lost_its_tail_goes_on_in_a_new_generation);
    tcase_add_test(tcase, who_joins_waits_for_the_view_that_others_speak_of);
    tcase_add_test(tcase, who_speaks_of_a_newer_view_is_not_waited_for_for_ever);
    tcase_add_test(tcase, a_lost_log_gets_back_what_is_known);
    tcase_add_test(tcase, the_lowest_id_of_those_who_know_most_restores_the_log);
    tcase_add_test(tcase, a_gateway_restores_what_no_shard_knows);
    tcase_add_test(tcase, an_entry_in_a_place_that_is_used_again_counts_for_nothing);
    tcase_add_test(tcase, who_is_off_the_bus_appends_nothing);
    tcase_add_test(tcase, a_bus_that_is_back_means_that_views_may_have_passed);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
