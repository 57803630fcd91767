/* How near a shard is to its limits, and what is made of it. */
#include "shard/capacity.h"
#include "suite.h"

static const struct capacity limits = {.rooms = 100, .participants = 1000, .queue_depth = 10000, .loop_lag_ms = 50};
static const struct capacity_marks marks = {.high = 85, .low = 70};

static struct membership_load judge(struct capacity used, bool was_full)
{
    return capacity_judge(&used, &limits, &marks, was_full);
}

START_TEST(pressure_follows_whatever_is_used_most)
{
    ck_assert_int_eq(judge((struct capacity){.rooms = 69}, false).pressure, PRESSURE_LOW);
    ck_assert_int_eq(judge((struct capacity){.rooms = 70}, false).pressure, PRESSURE_STEADY);
    ck_assert_int_eq(judge((struct capacity){.rooms = 84}, false).pressure, PRESSURE_STEADY);
    ck_assert_int_eq(judge((struct capacity){.rooms = 85}, false).pressure, PRESSURE_HIGH);
    ck_assert_int_eq(judge((struct capacity){.rooms = 1, .participants = 900}, false).pressure, PRESSURE_HIGH);
    ck_assert_int_eq(judge((struct capacity){.rooms = 1, .queue_depth = 9000}, false).pressure, PRESSURE_HIGH);
    ck_assert_int_eq(judge((struct capacity){.rooms = 1, .loop_lag_ms = 45}, false).pressure, PRESSURE_HIGH);
}
END_TEST

START_TEST(full_at_a_limit_and_until_below_the_high_mark)
{
    ck_assert(!judge((struct capacity){.participants = 999}, false).full);
    ck_assert(judge((struct capacity){.participants = 1000}, false).full);
    ck_assert(judge((struct capacity){.participants = 900}, true).full);
    ck_assert(!judge((struct capacity){.participants = 849}, true).full);
    ck_assert(judge((struct capacity){.loop_lag_ms = 50}, false).full);
}
END_TEST

START_TEST(empty_is_about_rooms)
{
    ck_assert(judge((struct capacity){.queue_depth = 5}, false).empty);
    ck_assert(!judge((struct capacity){.rooms = 1}, false).empty);
}
END_TEST

int main(void)
{
    TCase *tcase = tcase_create("capacity");
    tcase_add_test(tcase, pressure_follows_whatever_is_used_most);
    tcase_add_test(tcase, full_at_a_limit_and_until_below_the_high_mark);
    tcase_add_test(tcase, empty_is_about_rooms);
    return suite_run("capacity", tcase, NULL);
}
