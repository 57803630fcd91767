#include "tests/load/plan.h"

#include <check.h>
#include <stdlib.h>

enum { COUNT = 20000 };

static uint8_t sizes[COUNT];

static double draw(void *ctx)
{
    return rand() / (RAND_MAX + 1.0);
}

static unsigned sum(unsigned rooms)
{
    unsigned all = 0;
    for (unsigned i = 0; i < rooms; i++)
        all += sizes[i];
    return all;
}

START_TEST(drawn_rooms_hold_everybody_and_nobody_alone)
{
    struct swarm_options options = {.room_size_mean = 5};
    srand(3);
    for (unsigned count = 2; count < 300; count++) {
        unsigned rooms = plan_rooms(&options, count, draw, NULL, sizes);
        ck_assert_uint_eq(sum(rooms), count);
        for (unsigned i = 0; i < rooms; i++)
            ck_assert(sizes[i] >= ROOM_SMALLEST && sizes[i] <= ROOM_LARGEST);
    }
}
END_TEST

START_TEST(drawn_rooms_have_the_wanted_mean)
{
    struct swarm_options options = {.room_size_mean = 5};
    srand(4);
    double mean = (double)COUNT / plan_rooms(&options, COUNT, draw, NULL, sizes);
    ck_assert(mean > 4.7 && mean < 5.3);
}
END_TEST

START_TEST(fixed_rooms_leave_the_rest_to_the_last)
{
    struct swarm_options options = {.room_size_fixed = 4};
    ck_assert_uint_eq(plan_rooms(&options, 9, draw, NULL, sizes), 3);
    ck_assert_uint_eq(sizes[0], 4);
    ck_assert_uint_eq(sizes[2], 1);
}
END_TEST

START_TEST(shares_differ_by_one_at_most)
{
    struct swarm_options options = {.participants = 11, .processes = 4};
    unsigned all = 0;
    for (unsigned i = 0; i < options.processes; i++) {
        ck_assert(plan_share(&options, i) == 2 || plan_share(&options, i) == 3);
        all += plan_share(&options, i);
    }
    ck_assert_uint_eq(all, options.participants);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan");
    TCase *tests = tcase_create("plan");
    tcase_add_test(tests, drawn_rooms_hold_everybody_and_nobody_alone);
    tcase_add_test(tests, drawn_rooms_have_the_wanted_mean);
    tcase_add_test(tests, fixed_rooms_leave_the_rest_to_the_last);
    tcase_add_test(tests, shares_differ_by_one_at_most);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
