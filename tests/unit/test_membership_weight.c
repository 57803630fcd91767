/* Weights that rise and fall in steps: for a newcomer, by a drain, by load. */
#include "membership_fixture.h"
#include <stdlib.h>

static uint32_t own_weight(void)
{
    return view_find_shard(membership_view(f.membership), "self")->weight;
}

/* Lets the append that is under way be done. */
static void appended(void)
{
    membership_append_done(f.membership, VIEWLOG_OK, membership_view(f.membership)->number.seq + 1, f.now_ms);
}

/* In the view (9, 21) beside a and b, who hold rooms; its weight will be 70. */
static void join_in_steps(void)
{
    f.rooms_of_others = 5;
    join(NODE_SHARD);
    f.reads_answered = f.reads;
    mark_self();
}

/* Passes time until the next append, which is done; returns the weight that it has brought. */
static uint32_t next_step(void)
{
    unsigned before = f.appends;
    for (unsigned i = 0; f.appends == before && i < 100; i++)
        pass_heard(50, true);
    ck_assert_uint_eq(f.appends, before + 1);
    ck_assert_uint_eq(view_find_shard(f.proposed, "a")->weight, 100);
    appended();
    mark_self();
    return own_weight();
}

START_TEST(a_new_shard_gets_its_weight_in_steps)
{
    const uint32_t weights[] = {8, 17, 26, 35, 43, 52, 61, 70};
    join_in_steps();
    ck_assert_uint_eq(own_weight(), weights[0]);
    for (unsigned i = 1; i < 8; i++) {
        int64_t since_ms = f.now_ms;
        ck_assert_uint_eq(next_step(), weights[i]);
        ck_assert_int_ge(f.now_ms - since_ms, membership_default_times.pace.step_ms);
    }
    unsigned before = f.appends;
    pass_heard(5000, true);
    ck_assert_uint_eq(f.appends, before);
}
END_TEST

START_TEST(no_step_is_made_before_the_last_has_settled)
{
    join_in_steps();
    unsigned before = f.appends;
    pass_heard(5000, false);
    ck_assert_uint_eq(f.appends, before);
    ck_assert_uint_eq(next_step(), 17);
}
END_TEST

START_TEST(where_nobody_holds_a_room_the_weight_comes_at_once)
{
    join(NODE_SHARD);
    ck_assert_uint_eq(own_weight(), 70);
}
END_TEST

START_TEST(a_drain_takes_the_weight_in_steps)
{
    join(NODE_SHARD);
    f.reads_answered = f.reads;
    mark_self();
    f.rooms_of_others = 5;
    membership_drain(f.membership, 8000, f.now_ms);
    ck_assert_int_eq(membership_drain_progress(f.membership), DRAIN_MOVING);
    const uint32_t weights[] = {70, 61, 52, 43, 35, 26, 17, 8, 0}; /* the mark comes first */
    for (unsigned i = 0; i < 9; i++) {
        ck_assert_uint_eq(next_step(), weights[i]);
        ck_assert(view_find_shard(membership_view(f.membership), "self")->draining);
    }
    ck_assert_int_eq(membership_drain_progress(f.membership), DRAIN_MOVING); /* a and b are not there yet */
    pass_heard(100, true);
    ck_assert_int_eq(membership_drain_progress(f.membership), DRAIN_DONE);
}
END_TEST

START_TEST(a_shard_without_rooms_drains_in_one_step)
{
    join(NODE_SHARD);
    f.reads_answered = f.reads;
    mark_self();
    membership_set_load(f.membership, &(struct membership_load){.empty = true}, f.now_ms);
    membership_drain(f.membership, 8000, f.now_ms);
    ck_assert_uint_eq(next_step(), 0);
}
END_TEST

START_TEST(where_all_drain_nobody_waits_for_an_heir)
{
    join(NODE_SHARD);
    struct view *view = view_copy(membership_view(f.membership));
    view->number.seq++;
    for (size_t i = 0; i < view->shard_count; i++)
        view->shards[i].draining = true;
    learn(view);
    membership_drain(f.membership, 8000, f.now_ms);
    ck_assert_int_eq(membership_drain_progress(f.membership), DRAIN_NO_HEIR);
}
END_TEST

START_TEST(load_moves_the_weight_a_step_at_a_time)
{
    const struct membership_load high = {.pressure = PRESSURE_HIGH}, steady = {.pressure = PRESSURE_STEADY},
                                 low = {.pressure = PRESSURE_LOW}, full = {.pressure = PRESSURE_HIGH, .full = true};
    join(NODE_SHARD);
    f.reads_answered = f.reads;
    mark_self();
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(f.membership, &high, f.now_ms);
    ck_assert_uint_eq(next_step(), 61);
    unsigned before = f.appends;
    membership_set_load(f.membership, &high, f.now_ms); /* too soon */
    pass_heard(2000, true);
    ck_assert_uint_eq(f.appends, before);
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(f.membership, &steady, f.now_ms);
    pass_heard(2000, true);
    ck_assert_uint_eq(f.appends, before);
    membership_set_load(f.membership, &full, f.now_ms);
    ck_assert_uint_eq(next_step(), 52);
    ck_assert(view_find_shard(membership_view(f.membership), "self")->full);
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(f.membership, &low, f.now_ms);
    ck_assert_uint_eq(next_step(), 61);
    ck_assert(!view_find_shard(membership_view(f.membership), "self")->full);
}
END_TEST

/* Weight 0 is for drains: an overloaded shard that owned nothing would leave the others to follow it. */
START_TEST(load_never_takes_the_last_step)
{
    const struct membership_load high = {.pressure = PRESSURE_HIGH};
    join(NODE_SHARD);
    f.reads_answered = f.reads;
    mark_self();
    for (unsigned i = 0; i < 7; i++) {
        pass_heard(membership_default_times.pace.relief_ms, true);
        membership_set_load(f.membership, &high, f.now_ms);
        next_step();
    }
    ck_assert_uint_eq(own_weight(), 8);
    unsigned before = f.appends;
    pass_heard(membership_default_times.pace.relief_ms, true);
    membership_set_load(f.membership, &high, f.now_ms);
    pass_heard(2000, true);
    ck_assert_uint_eq(f.appends, before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("membership_weight");
    TCase *tcase = tcase_create("membership_weight");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_new_shard_gets_its_weight_in_steps);
    tcase_add_test(tcase, no_step_is_made_before_the_last_has_settled);
    tcase_add_test(tcase, where_nobody_holds_a_room_the_weight_comes_at_once);
    tcase_add_test(tcase, a_drain_takes_the_weight_in_steps);
    tcase_add_test(tcase, a_shard_without_rooms_drains_in_one_step);
    tcase_add_test(tcase, where_all_drain_nobody_waits_for_an_heir);
    tcase_add_test(tcase, load_moves_the_weight_a_step_at_a_time);
    tcase_add_test(tcase, load_never_takes_the_last_step);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
