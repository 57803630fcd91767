#include "tests/load/series.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static struct series series;
static struct worker_stats total;

static struct series_input at(double seconds)
{
    struct series_input input = {.at_us = (int64_t)(seconds * 1e6), .phase = PHASE_HOLD, .total = &total};
    input.tiers[TIER_SHARDS].cpu_us = (int64_t)(seconds * 250000);
    return input;
}

static void setup(void)
{
    memset(&total, 0, sizeof total);
    struct series_input begin = at(0);
    series_begin(&series, &begin);
}

static void add(double seconds)
{
    struct series_input input = at(seconds);
    series_add(&series, &input);
}

START_TEST(a_point_is_what_happened_since_the_one_before)
{
    histogram_record(&total.message_us, 900000);
    total.directed_delivered = 100;
    add(1);
    for (int i = 0; i < 10; i++)
        histogram_record(&total.message_us, 1000);
    total.directed_delivered = 104;
    add(3);
    ck_assert_uint_eq(series.count, 2);
    ck_assert_double_eq_tol(series.points[0].messages_per_s, 100, 1e-6);
    ck_assert_double_eq_tol(series.points[1].messages_per_s, 2, 1e-6);
    ck_assert_double_eq_tol(series.points[1].tiers[TIER_SHARDS].cpu_percent, 25, 1e-6);
    /* The slow one was in the interval before. */
    ck_assert_double_gt(series.points[0].p50_ms[SERIES_message], 890);
    ck_assert_double_lt(series.points[1].p99_ms[SERIES_message], 1.1);
    ck_assert_double_eq(series.points[1].p99_ms[SERIES_join], 0);
}
END_TEST

START_TEST(a_long_run_keeps_its_worst_moments)
{
    for (int i = 1; i <= 3 * SERIES_POINTS_MAX; i++) {
        if (i == 100)
            histogram_record(&total.join_us, 5000000);
        total.directed_delivered += 7;
        add(i);
    }
    ck_assert_uint_le(series.count, SERIES_POINTS_MAX);
    ck_assert_int_gt(series.interval_us, 1000000);
    double worst_ms = 0;
    for (size_t i = 0; i < series.count; i++) {
        ck_assert_double_eq_tol(series.points[i].messages_per_s, 7, 1e-6);
        if (series.points[i].p99_ms[SERIES_join] > worst_ms)
            worst_ms = series.points[i].p99_ms[SERIES_join];
        ck_assert(i == 0 || series.points[i].at_s > series.points[i - 1].at_s);
    }
    ck_assert_double_ge(worst_ms, 4900);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("series");
    TCase *tests = tcase_create("series");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, a_point_is_what_happened_since_the_one_before);
    tcase_add_test(tests, a_long_run_keeps_its_worst_moments);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
