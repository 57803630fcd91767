#include "common/loop.h"

#include "common/clock.h"
#include "common/mem.h"
#include "common/metrics.h"
#include <check.h>
#include <h2o.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct loop *loop;
static char trace[256];

static void setup(void)
{
    loop = loop_new();
    trace[0] = '\0';
}

static void teardown(void)
{
    loop_free(&loop);
    ck_assert_ptr_null(loop);
    loop_free(&loop);
}

static void note(char c)
{
    size_t length = strlen(trace);
    ck_assert_uint_lt(length, sizeof(trace) - 1);
    trace[length] = c;
    trace[length + 1] = '\0';
}

static void stop_on_timer(struct timer *timer, int64_t now_ms)
{
    note('t');
    loop_stop(loop);
}

START_TEST(timers_run_when_due)
{
    struct timer timer;
    timer_init(&timer, stop_on_timer);
    int64_t due_ms = loop_now_ms(loop) + 20;
    timer_set(loop_timers(loop), &timer, due_ms);
    uint64_t lags = metric_value(M_LOOP_LAG), turns = metric_value(M_LOOP_TURN);
    loop_run(loop);
    ck_assert_str_eq(trace, "t");
    ck_assert_int_ge(clock_mono_ms(), due_ms);
    ck_assert_uint_eq(metric_value(M_LOOP_LAG), lags + 1);
    ck_assert_uint_gt(metric_value(M_LOOP_TURN), turns);
    /* It slept: a spinning loop would have turned thousands of times. */
    ck_assert_uint_lt(metric_value(M_LOOP_TURN), turns + 20);
}
END_TEST

static struct loop_task task_a, task_b, task_c;

static void run_a(struct loop_task *task)
{
    note('a');
    loop_task_cancel(&task_b);
    loop_defer(loop, &task_c);
    loop_stop(loop);
}

static void run_b(struct loop_task *task)
{
    note('b');
}

static void run_c(struct loop_task *task)
{
    note('c');
}

START_TEST(tasks_run_once_and_in_the_same_turn)
{
    loop_task_init(&task_a, run_a);
    loop_task_init(&task_b, run_b);
    loop_task_init(&task_c, run_c);
    loop_defer(loop, &task_a);
    loop_defer(loop, &task_b);
    loop_defer(loop, &task_a);
    loop_run(loop);
    ck_assert_str_eq(trace, "ac");
    loop_task_cancel(&task_c);
}
END_TEST

static int repeats;

static void run_again(struct loop_task *task)
{
    if (++repeats == 1000)
        loop_stop(loop);
    else
        loop_defer(loop, task);
}

START_TEST(a_task_that_defers_itself_does_not_hold_the_turn)
{
    loop_task_init(&task_a, run_again);
    repeats = 0;
    uint64_t turns = metric_value(M_LOOP_TURN);
    loop_defer(loop, &task_a);
    loop_run(loop);
    ck_assert_int_eq(repeats, 1000);
    ck_assert_uint_ge(metric_value(M_LOOP_TURN), turns + 100);
}
END_TEST

struct numbered {
    struct loop_message message;
    int sender, number;
};

enum { SENDERS = 4, EACH = 2000 };
static int received[SENDERS], received_all;
static pthread_t loop_thread;

static void receive(struct loop_message *message)
{
    struct numbered *numbered = container_of(message, struct numbered, message);
    ck_assert(pthread_equal(pthread_self(), loop_thread));
    if (numbered->number != received[numbered->sender]++)
        ck_abort_msg("out of order");
    if (++received_all == SENDERS * EACH)
        loop_stop(loop);
    free(numbered);
}

static void *send_all(void *arg)
{
    for (int i = 0; i < EACH; i++) {
        struct numbered *numbered = mem_new(struct numbered);
        *numbered = (struct numbered){.message.cb = receive, .sender = *(const int *)arg, .number = i};
        loop_post(loop, &numbered->message);
    }
    return NULL;
}

START_TEST(messages_arrive_in_order_of_each_thread)
{
    pthread_t threads[SENDERS];
    int senders[SENDERS];
    loop_thread = pthread_self();
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
    }
    loop_run(loop);
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        ck_assert_int_eq(received[i], EACH);
    }
}
END_TEST

static void note_message(struct loop_message *message)
{
    note('m');
    free(container_of(message, struct numbered, message));
}

START_TEST(free_delivers_what_was_posted)
{
    struct numbered *numbered = mem_new(struct numbered);
    numbered->message.cb = note_message;
    loop_post(loop, &numbered->message);
    loop_free(&loop);
    ck_assert_str_eq(trace, "m");
}
END_TEST

static void note_message_and_stop(struct loop_message *message)
{
    note_message(message);
    loop_defer(loop, &task_b);
    loop_stop(loop);
}

START_TEST(a_turn_is_messages_timers_tasks)
{
    struct timer timer;
    timer_init(&timer, stop_on_timer);
    timer_set(loop_timers(loop), &timer, 0);
    loop_task_init(&task_b, run_b);
    struct numbered *numbered = mem_new(struct numbered);
    numbered->message.cb = note_message_and_stop;
    loop_post(loop, &numbered->message);
    loop_run(loop);
    ck_assert_str_eq(trace, "mtb");
}
END_TEST

static void *stop_later(void *arg)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    loop_stop(loop);
    return NULL;
}

START_TEST(stops_from_another_thread)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, stop_later, NULL), 0);
    loop_run(loop); /* nothing to do: sleeps without end but for the stop */
    pthread_join(thread, NULL);
}
END_TEST

START_TEST(a_stop_before_run_is_kept)
{
    loop_stop(loop);
    loop_run(loop);
}
END_TEST

static void note_signal(void *ctx, int signo)
{
    ck_assert_ptr_eq(ctx, trace);
    note(signo == SIGTERM ? 'T' : signo == SIGHUP ? 'H' : '?');
    if (strlen(trace) == 2)
        loop_stop(loop);
}

START_TEST(signals_become_callbacks)
{
    ck_assert_int_eq(loop_on_signal(loop, SIGTERM, note_signal, trace), 0);
    ck_assert_int_eq(loop_on_signal(loop, SIGHUP, note_signal, trace), 0);
    ck_assert_int_eq(loop_on_signal(loop, 12345, note_signal, trace), -1);
    kill(getpid(), SIGTERM);
    kill(getpid(), SIGHUP);
    loop_run(loop);
    ck_assert(strcmp(trace, "TH") == 0 || strcmp(trace, "HT") == 0);
}
END_TEST

static void ignore_signal(int signo)
{
}

static void *interrupt_then_stop(void *arg)
{
    for (int i = 0; i < 10; i++) {
        pthread_kill(*(const pthread_t *)arg, SIGUSR1);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    loop_stop(loop);
    return NULL;
}

START_TEST(survives_interrupted_waits)
{
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = ignore_signal}, NULL);
    pthread_t self = pthread_self(), thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, interrupt_then_stop, &self), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
}
END_TEST

static int64_t first_ms, second_ms;

static void read_time_twice(struct loop_task *task)
{
    first_ms = loop_now_ms(loop);
    int64_t until_ms = clock_mono_ms() + 3;
    while (clock_mono_ms() < until_ms)
        ;
    second_ms = loop_now_ms(loop);
    loop_stop(loop);
}

START_TEST(time_stands_still_within_a_turn_and_only_there)
{
    loop_task_init(&task_a, read_time_twice);
    loop_defer(loop, &task_a);
    loop_run(loop);
    ck_assert_int_eq(first_ms, second_ms);
    ck_assert_int_ge(loop_now_ms(loop), first_ms + 3);
}
END_TEST

static h2o_socket_t *sock;

static void on_written(h2o_socket_t *written, const char *err)
{
    ck_assert_ptr_null(err);
    loop_stop(loop);
}

static void write_something(struct loop_task *task)
{
    h2o_iovec_t bytes = h2o_iovec_init(H2O_STRLIT("x"));
    h2o_socket_write(sock, &bytes, 1, on_written);
}

/* H2O alone would wait for other I/O before it looked at the completion, here for ever. */
START_TEST(a_write_from_a_task_completes_without_other_io)
{
    int fds[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    sock = h2o_evloop_socket_create(loop_h2o(loop), fds[0], 0);
    loop_task_init(&task_a, write_something);
    loop_defer(loop, &task_a);
    loop_run(loop);
    h2o_socket_close(sock);
    close(fds[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loop");
    TCase *tcase = tcase_create("loop");
    tcase_set_timeout(tcase, 10);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, timers_run_when_due);
    tcase_add_test(tcase, tasks_run_once_and_in_the_same_turn);
    tcase_add_test(tcase, a_task_that_defers_itself_does_not_hold_the_turn);
    tcase_add_test(tcase, messages_arrive_in_order_of_each_thread);
    tcase_add_test(tcase, free_delivers_what_was_posted);
    tcase_add_test(tcase, a_turn_is_messages_timers_tasks);
    tcase_add_test(tcase, stops_from_another_thread);
    tcase_add_test(tcase, a_stop_before_run_is_kept);
    tcase_add_test(tcase, signals_become_callbacks);
    tcase_add_test(tcase, survives_interrupted_waits);
    tcase_add_test(tcase, a_write_from_a_task_completes_without_other_io);
    tcase_add_test(tcase, time_stands_still_within_a_turn_and_only_there);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
