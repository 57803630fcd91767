#include "common/cpu_use.h"

#include "common/clock.h"
#include <check.h>
#include <poll.h>
#include <stdlib.h>

START_TEST(is_the_busy_share_of_the_time_passed)
{
    struct cpu_use use = {.fd = -1, .looked_ms = 1000, .busy_ns = 5000000};
    cpu_use_note(&use, 5000000 + 100000000, 1400);
    ck_assert_uint_eq(use.permille, 250);
    cpu_use_note(&use, 5000000 + 100000000, 1650);
    ck_assert_uint_eq(use.permille, 0);
}
END_TEST

START_TEST(is_never_more_than_all)
{
    struct cpu_use use = {.fd = -1, .looked_ms = 1000};
    cpu_use_note(&use, 300000000, 1250); /* the kernel's clock and ours do not agree to the millisecond */
    ck_assert_uint_eq(use.permille, CPU_USE_ALL);
    cpu_use_note(&use, 300000001, 1250);
    ck_assert_uint_eq(use.permille, CPU_USE_ALL);
}
END_TEST

START_TEST(without_a_source_it_is_nothing)
{
    struct cpu_use use = {.fd = -1};
    ck_assert_uint_eq(cpu_use_permille(&use, 10 * CPU_USE_PERIOD_MS), 0);
}
END_TEST

/* This thread is runnable throughout, so that it is busy on the most loaded machine as well. */
START_TEST(a_thread_that_works_is_busy_and_one_that_waits_is_not)
{
    struct cpu_use use;
    int64_t begun_ms = clock_mono_ms(), now_ms;
    cpu_use_init(&use, begun_ms);
    if (use.fd < 0)
        return; /* a kernel without the figures */
    do
        now_ms = clock_mono_ms();
    while (now_ms < begun_ms + CPU_USE_PERIOD_MS);
    ck_assert_uint_ge(cpu_use_permille(&use, now_ms), 900);
    uint32_t busy = cpu_use_permille(&use, now_ms + CPU_USE_PERIOD_MS - 1); /* not looked again yet */
    ck_assert_uint_ge(busy, 900);
    /* Again while it has to wait long for a processor. */
    while (cpu_use_permille(&use, clock_mono_ms()) >= 900)
        poll(NULL, 0, CPU_USE_PERIOD_MS);
    cpu_use_done(&use);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu_use");
    TCase *tcase = tcase_create("cpu_use");

    tcase_add_test(tcase, is_the_busy_share_of_the_time_passed);
    tcase_add_test(tcase, is_never_more_than_all);
    tcase_add_test(tcase, without_a_source_it_is_nothing);
    tcase_add_test(tcase, a_thread_that_works_is_busy_and_one_that_waits_is_not);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
