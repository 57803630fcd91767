#include "common/epoch.h"

#include <check.h>
#include <stdlib.h>

START_TEST(text_round_trip)
{
    struct epoch epoch = {.view = {1763000000, 42}, .counter = 7, .incarnation = 0xfedcba9876543210};
    char text[EPOCH_TEXT_MAX + 1];
    struct epoch parsed;
    epoch_format(&epoch, text);
    ck_assert_str_eq(text, "1763000000.42.7.fedcba9876543210");
    ck_assert(epoch_parse(text, &parsed));
    ck_assert(epoch_equal(&epoch, &parsed));
}
END_TEST

START_TEST(only_canonical_text_parses)
{
    static const char *const bad[] = {"",         "1.2.3",     "1.2.3.g", "01.2.3.4", "1.2.3.4 ",
                                      " 1.2.3.4", "1.2.3.4.5", "1.2.3.A", "-1.2.3.4", "99999999999999999999999.2.3.4"};
    struct epoch parsed;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        ck_assert_msg(!epoch_parse(bad[i], &parsed), "\"%s\" parsed", bad[i]);
}
END_TEST

START_TEST(order_is_view_then_counter_then_incarnation)
{
    struct epoch a = {.view = {2, 1}, .counter = 9, .incarnation = 9};
    struct epoch b = {.view = {2, 2}, .counter = 1, .incarnation = 1};
    struct epoch c = {.view = {2, 2}, .counter = 2, .incarnation = 0};
    struct epoch d = {.view = {2, 2}, .counter = 2, .incarnation = 1};
    ck_assert_int_lt(epoch_compare(&a, &b), 0);
    ck_assert_int_lt(epoch_compare(&b, &c), 0);
    ck_assert_int_lt(epoch_compare(&c, &d), 0);
    ck_assert_int_eq(epoch_compare(&d, &d), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("epoch");
    TCase *tests = tcase_create("epoch");
    tcase_add_test(tests, text_round_trip);
    tcase_add_test(tests, only_canonical_text_parses);
    tcase_add_test(tests, order_is_view_then_counter_then_incarnation);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
