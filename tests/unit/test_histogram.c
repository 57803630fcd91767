#include "tests/load/histogram.h"

#include <check.h>
#include <stdlib.h>

static struct histogram histogram, other;

static void empty(void)
{
    histogram = (struct histogram){0};
    other = (struct histogram){0};
}

START_TEST(of_nothing_is_zero)
{
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 50), 0);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 100), 0);
    ck_assert(histogram_mean_us(&histogram) == 0);
}
END_TEST

START_TEST(small_values_are_exact)
{
    for (int i = 1; i <= 100; i++)
        histogram_record(&histogram, i);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 0), 1);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 1), 1);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 50), 50);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 99), 99);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 99.5), 100);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 100), 100);
    ck_assert(histogram_mean_us(&histogram) == 50.5);
}
END_TEST

/* Around every power of two of the range, where the buckets change their width. */
START_TEST(large_values_are_within_two_percent)
{
    for (unsigned bit = 1; bit < HISTOGRAM_VALUE_BITS; bit++) {
        for (int64_t offset = -1; offset <= 1; offset++) {
            int64_t value = (1ll << bit) + offset;
            empty();
            histogram_record(&histogram, value);
            histogram_record(&histogram, (1ll << HISTOGRAM_VALUE_BITS) - 1);
            uint64_t found = histogram_percentile_us(&histogram, 50);
            ck_assert_uint_ge(found, (uint64_t)value);
            ck_assert_uint_le(found, (uint64_t)value + (uint64_t)value / 64);
        }
    }
}
END_TEST

START_TEST(values_out_of_range_count_at_its_ends)
{
    histogram_record(&histogram, -5);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 100), 0);
    histogram_record(&histogram, INT64_MAX);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 100), (1ull << HISTOGRAM_VALUE_BITS) - 1);
    ck_assert_uint_eq(histogram.count, 2);
}
END_TEST

START_TEST(the_largest_value_is_exact)
{
    histogram_record(&histogram, 1000003);
    ck_assert_uint_eq(histogram_percentile_us(&histogram, 50), 1000003);
    ck_assert_uint_eq(histogram.max_us, 1000003);
}
END_TEST

START_TEST(a_merge_equals_recording_in_one)
{
    struct histogram all = {0};
    srand(7);
    for (int i = 0; i < 10000; i++) {
        int64_t value = rand() % 5000000;
        histogram_record(i % 3 == 0 ? &histogram : &other, value);
        histogram_record(&all, value);
    }
    histogram_merge(&histogram, &other);
    ck_assert_mem_eq(&histogram, &all, sizeof all);
    for (int percent = 0; percent <= 100; percent++)
        ck_assert_uint_eq(histogram_percentile_us(&histogram, percent), histogram_percentile_us(&all, percent));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("histogram");
    TCase *tests = tcase_create("histogram");
    tcase_add_checked_fixture(tests, empty, NULL);
    tcase_add_test(tests, of_nothing_is_zero);
    tcase_add_test(tests, small_values_are_exact);
    tcase_add_test(tests, large_values_are_within_two_percent);
    tcase_add_test(tests, values_out_of_range_count_at_its_ends);
    tcase_add_test(tests, the_largest_value_is_exact);
    tcase_add_test(tests, a_merge_equals_recording_in_one);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
