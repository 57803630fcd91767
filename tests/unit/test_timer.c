#include "common/timer.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* Every timer of a test writes its number here when it runs. */
enum { RUNS_MAX = 4096 };
static int runs[RUNS_MAX];
static size_t run_count;

struct numbered {
    struct timer timer;
    int number;
};

static void record(struct timer *timer, int64_t now_ms)
{
    ck_assert_uint_lt(run_count, RUNS_MAX);
    ck_assert_int_le(timer->due_ms, now_ms);
    runs[run_count++] = container_of(timer, struct numbered, timer)->number;
}

static struct timer_wheel wheel;

static void start(int64_t now_ms)
{
    timer_wheel_init(&wheel, now_ms);
    run_count = 0;
}

START_TEST(runs_in_order_of_due_time)
{
    start(1000);
    struct numbered timers[5];
    const int64_t due_ms[5] = {5000, 1001, 70000, 1001, 1256};
    for (int i = 0; i < 5; i++) {
        timers[i].number = i;
        timer_init(&timers[i].timer, record);
        timer_set(&wheel, &timers[i].timer, due_ms[i]);
    }
    timer_wheel_advance(&wheel, 1000);
    ck_assert_uint_eq(run_count, 0);
    timer_wheel_advance(&wheel, 69999);
    ck_assert_uint_eq(run_count, 4);
    ck_assert_mem_eq(runs, ((int[]){1, 3, 4, 0}), 4 * sizeof(int));
    ck_assert(timer_pending(&timers[2].timer));
    timer_wheel_advance(&wheel, 70000);
    ck_assert_int_eq(runs[4], 2);
    ck_assert_uint_eq(wheel.count, 0);
    ck_assert_int_eq(timer_wheel_wait_ms(&wheel, 70000), -1);
}
END_TEST

/* One is set from afar and cascades down, the other is set at close range before it does. */
START_TEST(ties_run_in_the_order_set_across_levels)
{
    start(0);
    struct numbered far = {.number = 1}, near = {.number = 2};
    timer_init(&far.timer, record);
    timer_init(&near.timer, record);
    timer_set(&wheel, &far.timer, 1000);
    timer_wheel_advance(&wheel, 750);
    timer_set(&wheel, &near.timer, 1000);
    timer_wheel_advance(&wheel, 1000);
    ck_assert_mem_eq(runs, ((int[]){1, 2}), 2 * sizeof(int));
}
END_TEST

START_TEST(past_due_times_run_at_the_next_advance_in_order)
{
    start(500);
    struct numbered timers[3];
    const int64_t due_ms[3] = {500, 10, -7};
    for (int i = 0; i < 3; i++) {
        timers[i].number = i;
        timer_init(&timers[i].timer, record);
        timer_set(&wheel, &timers[i].timer, due_ms[i]);
    }
    ck_assert_int_eq(timer_wheel_wait_ms(&wheel, 500), 0);
    ck_assert_int_eq(timer_wheel_advance(&wheel, 500), 0);
    ck_assert_mem_eq(runs, ((int[]){2, 1, 0}), 3 * sizeof(int));
}
END_TEST

START_TEST(reports_how_late_it_was)
{
    start(100);
    struct numbered timer = {.number = 1};
    timer_init(&timer.timer, record);
    ck_assert_int_eq(timer_wheel_advance(&wheel, 110), -1);
    timer_set(&wheel, &timer.timer, 150);
    ck_assert_int_eq(timer_wheel_advance(&wheel, 149), -1);
    ck_assert_int_eq(timer_wheel_advance(&wheel, 180), 30);
    timer_set(&wheel, &timer.timer, 0);
    ck_assert_int_eq(timer_wheel_advance(&wheel, 185), 5);
}
END_TEST

static void rearm_at_once(struct timer *timer, int64_t now_ms)
{
    record(timer, now_ms);
    timer_set(&wheel, timer, now_ms);
}

START_TEST(a_callback_that_rearms_itself_does_not_run_for_ever)
{
    start(0);
    struct numbered timer = {.number = 1};
    timer_init(&timer.timer, rearm_at_once);
    timer_set(&wheel, &timer.timer, 5);
    timer_wheel_advance(&wheel, 10);
    ck_assert_uint_eq(run_count, 1);
    ck_assert_int_eq(timer_wheel_wait_ms(&wheel, 10), 0);
    timer_wheel_advance(&wheel, 10);
    ck_assert_uint_eq(run_count, 2);
}
END_TEST

static struct numbered *victim;

static void free_itself_and_cancel_victim(struct timer *timer, int64_t now_ms)
{
    record(timer, now_ms);
    timer_cancel(&wheel, &victim->timer);
    free(victim);
    free(container_of(timer, struct numbered, timer));
}

START_TEST(a_callback_may_free_itself_and_one_that_is_due)
{
    start(0);
    struct numbered *first = malloc(sizeof(*first));
    victim = malloc(sizeof(*victim));
    first->number = 1;
    victim->number = 2;
    timer_init(&first->timer, free_itself_and_cancel_victim);
    timer_init(&victim->timer, record);
    timer_set(&wheel, &first->timer, 300);
    timer_set(&wheel, &victim->timer, 300);
    timer_wheel_advance(&wheel, 400);
    ck_assert_uint_eq(run_count, 1);
    ck_assert_uint_eq(wheel.count, 0);
    ck_assert_int_eq(timer_wheel_wait_ms(&wheel, 400), -1);
}
END_TEST

START_TEST(cancel_is_idempotent_and_leaves_no_wake_up)
{
    start(0);
    struct numbered timer = {.number = 1};
    timer_init(&timer.timer, record);
    timer_cancel(&wheel, &timer.timer);
    const int64_t due_ms[] = {0, 1, 300, 70000, INT64_C(1) << 25, INT64_C(1) << 40};
    for (size_t i = 0; i < sizeof(due_ms) / sizeof(due_ms[0]); i++) {
        timer_set(&wheel, &timer.timer, due_ms[i]);
        ck_assert_int_ge(timer_wheel_wait_ms(&wheel, 0), 0);
        timer_cancel(&wheel, &timer.timer);
        timer_cancel(&wheel, &timer.timer);
        ck_assert_int_eq(timer_wheel_wait_ms(&wheel, 0), -1);
        ck_assert_uint_eq(wheel.count, 0);
    }
}
END_TEST

/* 2^32 ms after the start of the clock the highest level wraps: machines do stay up for 49 days. */
START_TEST(crosses_the_end_of_the_wheel)
{
    int64_t wrap_ms = INT64_C(1) << 32;
    start(wrap_ms - 10);
    struct numbered timers[3];
    const int64_t due_ms[3] = {wrap_ms + 5, wrap_ms, wrap_ms * 3 + 17};
    for (int i = 0; i < 3; i++) {
        timers[i].number = i;
        timer_init(&timers[i].timer, record);
        timer_set(&wheel, &timers[i].timer, due_ms[i]);
    }
    ck_assert_int_eq(timer_wheel_wait_ms(&wheel, wrap_ms - 10), 10);
    timer_wheel_advance(&wheel, wrap_ms - 1);
    ck_assert_uint_eq(run_count, 0);
    timer_wheel_advance(&wheel, wrap_ms);
    ck_assert_uint_eq(run_count, 1);
    timer_wheel_advance(&wheel, wrap_ms * 3 + 16);
    ck_assert_uint_eq(run_count, 2);
    timer_wheel_advance(&wheel, wrap_ms * 3 + 17);
    ck_assert_mem_eq(runs, ((int[]){1, 0, 2}), 3 * sizeof(int));
}
END_TEST

/* The model: an array that is searched. */
enum { MODEL_TIMERS = 64 };

struct modelled {
    struct timer timer;
    bool set;
    int64_t due_ms;
    uint64_t order;
};

static struct modelled modelled[MODEL_TIMERS];
static uint64_t next_order, expected_batch_end;
static int64_t model_now_ms;
static uint64_t random_state;

static uint64_t random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Up to 2^bits, with every magnitude equally likely. */
static int64_t random_span(unsigned bits)
{
    return (int64_t)(random_next() & ((UINT64_C(1) << random_next() % bits) - 1));
}

static void model_set(struct modelled *m, int64_t due_ms)
{
    timer_set(&wheel, &m->timer, due_ms);
    m->set = true;
    m->due_ms = due_ms;
    m->order = next_order++;
}

static void model_cancel(struct modelled *m)
{
    timer_cancel(&wheel, &m->timer);
    m->set = false;
}

static struct modelled *model_next_due(void)
{
    struct modelled *best = NULL;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        struct modelled *m = &modelled[i];
        if (!m->set || m->due_ms > model_now_ms || m->order >= expected_batch_end)
            continue;
        if (best == NULL || m->due_ms < best->due_ms || (m->due_ms == best->due_ms && m->order < best->order))
            best = m;
    }
    return best;
}

static void random_operation(void)
{
    struct modelled *m = &modelled[random_next() % MODEL_TIMERS];
    switch (random_next() % 4) {
    case 0:
        model_cancel(m);
        break;
    case 1:
        model_set(m, model_now_ms - random_span(10));
        break;
    default:
        model_set(m, model_now_ms + random_span(35));
    }
}

static void model_run(struct timer *timer, int64_t now_ms)
{
    struct modelled *m = container_of(timer, struct modelled, timer);
    ck_assert_int_eq(now_ms, model_now_ms);
    ck_assert_ptr_eq(m, model_next_due());
    m->set = false;
    for (uint64_t i = random_next() % 4; i > 0; i--)
        random_operation();
}

static void model_check_wait(void)
{
    bool any = false;
    int wrong = 0;
    int64_t first_ms = INT64_MAX;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        wrong += timer_pending(&modelled[i].timer) != modelled[i].set;
        if (modelled[i].set) {
            any = true;
            first_ms = modelled[i].due_ms < first_ms ? modelled[i].due_ms : first_ms;
        }
    }
    ck_assert_int_eq(wrong, 0);
    int64_t wait_ms = timer_wheel_wait_ms(&wheel, model_now_ms);
    if (!any)
        ck_assert_int_eq(wait_ms, -1);
    else if (first_ms <= model_now_ms)
        ck_assert_int_eq(wait_ms, 0);
    else
        ck_assert(wait_ms > 0 && wait_ms <= first_ms - model_now_ms);
}

START_TEST(agrees_with_a_naive_model)
{
    random_state = (uint64_t)_i * UINT64_C(0x9e3779b97f4a7c15) + 1;
    model_now_ms = random_span(34);
    timer_wheel_init(&wheel, model_now_ms);
    next_order = 0;
    for (size_t i = 0; i < MODEL_TIMERS; i++) {
        modelled[i] = (struct modelled){0};
        timer_init(&modelled[i].timer, model_run);
    }
    for (int round = 0; round < 2000; round++) {
        for (uint64_t i = random_next() % 8; i > 0; i--)
            random_operation();
        model_check_wait();
        /* Sometimes exactly as far as the wheel asks for, which must not overshoot a cascade. */
        int64_t wait_ms = timer_wheel_wait_ms(&wheel, model_now_ms);
        model_now_ms += wait_ms > 0 && random_next() % 2 == 0 ? wait_ms : random_span(36);
        expected_batch_end = next_order;
        timer_wheel_advance(&wheel, model_now_ms);
        ck_assert_ptr_null(model_next_due());
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("timer");
    TCase *tcase = tcase_create("timer");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, runs_in_order_of_due_time);
    tcase_add_test(tcase, ties_run_in_the_order_set_across_levels);
    tcase_add_test(tcase, past_due_times_run_at_the_next_advance_in_order);
    tcase_add_test(tcase, reports_how_late_it_was);
    tcase_add_test(tcase, a_callback_that_rearms_itself_does_not_run_for_ever);
    tcase_add_test(tcase, a_callback_may_free_itself_and_one_that_is_due);
    tcase_add_test(tcase, cancel_is_idempotent_and_leaves_no_wake_up);
    tcase_add_test(tcase, crosses_the_end_of_the_wheel);
    tcase_add_loop_test(tcase, agrees_with_a_naive_model, 0, 12);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
