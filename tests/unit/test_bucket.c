#include "common/bucket.h"
#include <check.h>
#include <stdlib.h>

_Static_assert(sizeof(struct bucket) == 16, "every room and connection holds several");

static const struct bucket_limit ten_a_second = {.rate_per_s = 10, .burst = 20};

START_TEST(starts_full_and_refills_by_elapsed_time)
{
    struct bucket bucket;

    bucket_init(&bucket, &ten_a_second, 1000);
    ck_assert(bucket_take(&bucket, &ten_a_second, 20, 1000));
    ck_assert(!bucket_take(&bucket, &ten_a_second, 1, 1000));
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 1, 1000), 100);
    ck_assert(!bucket_take(&bucket, &ten_a_second, 1, 1099));
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 1, 1099), 1);
    ck_assert(bucket_take(&bucket, &ten_a_second, 1, 1100));
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 20, 1100), 2000);
    ck_assert(!bucket_take(&bucket, &ten_a_second, 21, 1000000));
    ck_assert(bucket_take(&bucket, &ten_a_second, 20, 1000000));
}
END_TEST

START_TEST(a_clock_that_stands_or_goes_back_gives_nothing)
{
    struct bucket bucket;

    bucket_init(&bucket, &ten_a_second, 5000);
    ck_assert(bucket_take(&bucket, &ten_a_second, 20, 5000));
    for (int i = 0; i < 1000; i++)
        ck_assert(!bucket_take(&bucket, &ten_a_second, 1, 5000 - i));
    ck_assert(!bucket_take(&bucket, &ten_a_second, 1, 5099));
    ck_assert(bucket_take(&bucket, &ten_a_second, 1, 5100));
}
END_TEST

START_TEST(force_goes_into_debt_that_is_paid_first)
{
    struct bucket bucket;

    bucket_init(&bucket, &ten_a_second, 0);
    bucket_force(&bucket, &ten_a_second, 50, 0);
    ck_assert_int_eq(bucket.milli, -30000);
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 1, 0), 3100);
    ck_assert(!bucket_take(&bucket, &ten_a_second, 1, 3099));
    ck_assert(bucket_take(&bucket, &ten_a_second, 1, 3100));
}
END_TEST

START_TEST(rate_zero_is_unlimited)
{
    const struct bucket_limit unlimited = {.rate_per_s = 0, .burst = 0};
    struct bucket bucket;

    bucket_init(&bucket, &unlimited, 0);
    ck_assert(bucket_take(&bucket, &unlimited, UINT32_MAX, 0));
    bucket_force(&bucket, &unlimited, UINT32_MAX, 0);
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &unlimited, UINT32_MAX, 0), 0);
}
END_TEST

START_TEST(a_cost_beyond_the_burst_still_waits)
{
    struct bucket bucket;

    bucket_init(&bucket, &ten_a_second, 0);
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 21, 0), 2000);
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &ten_a_second, 20, 0), 0);
}
END_TEST

START_TEST(a_lowered_burst_takes_effect_at_once)
{
    const struct bucket_limit lower = {.rate_per_s = 10, .burst = 5};
    struct bucket bucket;

    bucket_init(&bucket, &ten_a_second, 0);
    ck_assert(!bucket_take(&bucket, &lower, 6, 0));
    ck_assert(bucket_take(&bucket, &lower, 5, 0));
}
END_TEST

START_TEST(extremes_do_not_overflow)
{
    const struct bucket_limit huge = {.rate_per_s = UINT32_MAX, .burst = UINT32_MAX};
    const struct bucket_limit slow = {.rate_per_s = 1, .burst = UINT32_MAX};
    struct bucket bucket;

    bucket_init(&bucket, &huge, 0);
    bucket_force(&bucket, &huge, UINT32_MAX, 0);
    ck_assert(bucket_take(&bucket, &huge, UINT32_MAX, INT64_MAX));
    bucket_init(&bucket, &slow, 0);
    for (int i = 0; i < 1200000; i++)
        bucket_force(&bucket, &slow, UINT32_MAX, 0);
    ck_assert_uint_eq(bucket_wait_ms(&bucket, &slow, UINT32_MAX, 0), UINT32_MAX);
}
END_TEST

/* The model is exact rational arithmetic in its plainest form: the content as a fraction with denominator 1000 in 128
 * bits, refilled millisecond by millisecond's worth, capped at the burst. */
struct model {
    __int128 milli;
    int64_t at_ms;
};

static void model_advance(struct model *model, const struct bucket_limit *limit, int64_t now_ms)
{
    if (now_ms <= model->at_ms)
        return;
    model->milli += (__int128)(now_ms - model->at_ms) * limit->rate_per_s;
    if (model->milli > (__int128)limit->burst * 1000)
        model->milli = (__int128)limit->burst * 1000;
    model->at_ms = now_ms;
}

static uint32_t model_wait_ms(struct model model, const struct bucket_limit *limit, uint32_t cost)
{
    __int128 missing = (__int128)cost * 1000 - model.milli;

    return missing <= 0 ? 0 : (uint32_t)((missing + limit->rate_per_s - 1) / limit->rate_per_s);
}

START_TEST(agrees_with_an_exact_model)
{
    unsigned state = (unsigned)_i + 1;

    for (int round = 0; round < 20; round++) {
        struct bucket_limit limit = {.rate_per_s = 1 + (uint32_t)rand_r(&state) % 5000,
                                     .burst = 1 + (uint32_t)rand_r(&state) % 10000};
        int64_t now_ms = rand_r(&state);
        struct bucket bucket;
        struct model model = {.milli = (__int128)limit.burst * 1000, .at_ms = now_ms};

        bucket_init(&bucket, &limit, now_ms);
        for (int step = 0; step < 500; step++) {
            /* Mostly small steps, sometimes a long pause, sometimes a little backwards. */
            int kind = rand_r(&state) % 20;
            now_ms += kind == 0 ? rand_r(&state) % 100000 : kind == 1 ? -(rand_r(&state) % 50) : rand_r(&state) % 5;
            uint32_t cost = (uint32_t)rand_r(&state) % (limit.burst + 1);

            model_advance(&model, &limit, now_ms);
            ck_assert_uint_eq(bucket_wait_ms(&bucket, &limit, cost, now_ms), model_wait_ms(model, &limit, cost));
            if (rand_r(&state) % 16 == 0) {
                bucket_force(&bucket, &limit, cost, now_ms);
                model.milli -= (__int128)cost * 1000;
            } else {
                bool there = model.milli >= (__int128)cost * 1000;
                ck_assert(bucket_take(&bucket, &limit, cost, now_ms) == there);
                if (there)
                    model.milli -= (__int128)cost * 1000;
            }
            ck_assert_int_eq(bucket.milli, (int64_t)model.milli);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bucket");
    TCase *tcase = tcase_create("bucket");

    tcase_add_test(tcase, starts_full_and_refills_by_elapsed_time);
    tcase_add_test(tcase, a_clock_that_stands_or_goes_back_gives_nothing);
    tcase_add_test(tcase, force_goes_into_debt_that_is_paid_first);
    tcase_add_test(tcase, rate_zero_is_unlimited);
    tcase_add_test(tcase, a_cost_beyond_the_burst_still_waits);
    tcase_add_test(tcase, a_lowered_burst_takes_effect_at_once);
    tcase_add_test(tcase, extremes_do_not_overflow);
    tcase_add_loop_test(tcase, agrees_with_an_exact_model, 0, 4);
    suite_add_tcase(suite, tcase);

    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
