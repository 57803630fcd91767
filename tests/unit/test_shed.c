/* What a gateway gives up when memory runs short: in order, as much as needed, and not back and forth. */
#include "gateway/shed.h"
#include <check.h>

enum { CEILING = 1000000 };

START_TEST(levels_come_in_order_and_include_those_before)
{
    enum shed_level level = SHED_NOTHING;
    const struct {
        uint64_t used;
        enum shed_level level;
    } steps[] = {{0, SHED_NOTHING},        {799999, SHED_NOTHING},   {800000, SHED_JOINS},     {879999, SHED_JOINS},
                 {880000, SHED_EPHEMERAL}, {949999, SHED_EPHEMERAL}, {950000, SHED_SLOWEST},   {2000000, SHED_SLOWEST},
                 {900000, SHED_SLOWEST},   {899999, SHED_EPHEMERAL}, {830000, SHED_EPHEMERAL}, {829999, SHED_JOINS},
                 {750000, SHED_JOINS},     {749999, SHED_NOTHING},   {960000, SHED_SLOWEST},   {100, SHED_NOTHING}};
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        level = shed_next_level(level, steps[i].used, CEILING);
        ck_assert_msg(level == steps[i].level, "step %u: %d", i, (int)level);
    }
}
END_TEST

START_TEST(without_a_ceiling_nothing_is_given_up)
{
    ck_assert_int_eq(shed_next_level(SHED_NOTHING, UINT64_MAX, 0), SHED_NOTHING);
}
END_TEST

START_TEST(the_slowest_go_first_and_no_more_than_needed)
{
    struct shed_queues queues = {0};
    for (int i = 0; i < 100; i++)
        shed_count_queue(&queues, 1000);
    shed_count_queue(&queues, 0);
    shed_count_queue(&queues, 70000);
    shed_count_queue(&queues, 66000);
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 900000, CEILING), UINT32_MAX);
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 1000000, CEILING), 65536);
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 1040000, CEILING), 512);
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 9000000, CEILING), 512); /* as far as the queues reach */
    queues = (struct shed_queues){0};
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 9000000, CEILING), UINT32_MAX);
    shed_count_queue(&queues, UINT32_MAX);
    ck_assert_uint_eq(shed_slowest_bytes(&queues, 9000000, CEILING), UINT32_C(1) << 31);
}
END_TEST

static Suite *suite(void)
{
    Suite *suite = suite_create("shed");
    TCase *tcase = tcase_create("shed");
    tcase_add_test(tcase, levels_come_in_order_and_include_those_before);
    tcase_add_test(tcase, without_a_ceiling_nothing_is_given_up);
    tcase_add_test(tcase, the_slowest_go_first_and_no_more_than_needed);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
