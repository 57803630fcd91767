#include "common/notify.h"
#include <check.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* A service manager, and a service that becomes ready when it has been asked `asked_until_ready` times. */
struct manager {
    struct loop *loop;
    struct notify notify;
    struct timer poll;
    int fd;
    char path[64];
    unsigned asked, asked_until_ready;
    const char *awaited; /* ends the loop */
    unsigned awaited_times;
    char heard[2048]; /* datagrams, each ended by "|" */
};

static struct manager manager;

static void on_poll(struct timer *timer, int64_t now_ms)
{
    char text[512];
    ssize_t size;

    while ((size = recv(manager.fd, text, sizeof text - 1, MSG_DONTWAIT)) > 0) {
        text[size] = '\0';
        strcat(strcat(manager.heard, text), "|");
    }
    unsigned times = 0;
    for (const char *at = manager.heard; (at = strstr(at, manager.awaited)) != NULL; at++)
        times++;
    if (times >= manager.awaited_times)
        loop_stop(manager.loop);
    else
        timer_set(loop_timers(manager.loop), timer, now_ms + 2);
}

/* Runs the service until the manager has heard `awaited` so many times. */
static void run_until(const char *awaited, unsigned times)
{
    manager.awaited = awaited;
    manager.awaited_times = times;
    timer_set(loop_timers(manager.loop), &manager.poll, 0);
    loop_run(manager.loop);
}

static bool ready(void *ctx, char *reason, size_t size)
{
    ck_assert_ptr_eq(ctx, &manager);
    if (++manager.asked > manager.asked_until_ready)
        return true;
    snprintf(reason, size, "waiting, %u", manager.asked < 3 ? 1 : 2);
    return false;
}

static void listen_at(bool abstract)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(manager.path, sizeof manager.path, "%s/tmp/signalbox-test-notify-%d", abstract ? "@" : "", getpid());
    strcpy(address.sun_path, manager.path);
    if (abstract)
        address.sun_path[0] = '\0';
    manager.fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    unlink(manager.path);
    ck_assert_int_eq(bind(manager.fd, (struct sockaddr *)&address,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(manager.path))),
                     0);
    setenv("NOTIFY_SOCKET", manager.path, 1);
}

static void setup(void)
{
    manager = (struct manager){.loop = loop_new(), .fd = -1};
    timer_init(&manager.poll, on_poll);
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

static void teardown(void)
{
    notify_close(&manager.notify);
    timer_cancel(loop_timers(manager.loop), &manager.poll);
    loop_free(&manager.loop);
    close(manager.fd);
    unlink(manager.path);
}

static void start(unsigned asked_until_ready)
{
    manager.asked_until_ready = asked_until_ready;
    notify_open(&manager.notify, manager.loop, ready, &manager);
}

START_TEST(says_what_it_waits_for_and_then_that_it_is_ready)
{
    listen_at(_i == 1);
    start(4);
    run_until("READY=1", 1);
    /* Each reason once, however often it was asked. */
    ck_assert_str_eq(manager.heard, "STATUS=waiting, 1|STATUS=waiting, 2|READY=1\nSTATUS=ready|");
    ck_assert_uint_eq(manager.asked, 5);
}
END_TEST

START_TEST(feeds_the_watchdog_before_and_after_it_is_ready)
{
    listen_at(false);
    setenv("WATCHDOG_USEC", "10000", 1);
    start(2);
    ck_assert_int_eq(manager.notify.watchdog_ms, 5);
    run_until("WATCHDOG=1", 6);
    ck_assert_ptr_nonnull(strstr(manager.heard, "READY=1"));
    ck_assert_uint_eq(manager.asked, 3);
}
END_TEST

START_TEST(another_process_s_watchdog_is_not_its_own)
{
    listen_at(false);
    setenv("WATCHDOG_USEC", "10000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    start(0);
    run_until("READY=1", 1);
    ck_assert_int_eq(manager.notify.watchdog_ms, 0);
    ck_assert(!timer_pending(&manager.notify.timer));
}
END_TEST

START_TEST(a_reload_ends_ready_if_it_was_ready)
{
    listen_at(false);
    start(0);
    notify_reloading(&manager.notify);
    notify_reloaded(&manager.notify);
    run_until("READY=1", 1);
    ck_assert_int_eq(strncmp(manager.heard, "RELOADING=1\nMONOTONIC_USEC=", 27), 0);
    ck_assert_ptr_nonnull(strstr(manager.heard, "|READY=1\nSTATUS=ready|"));

    manager.heard[0] = '\0';
    notify_reloading(&manager.notify);
    notify_reloaded(&manager.notify);
    run_until("|READY=1|", 1);
}
END_TEST

START_TEST(who_stops_does_not_become_ready)
{
    listen_at(false);
    start(0);
    notify_stopping(&manager.notify);
    run_until("STOPPING=1", 1);
    ck_assert_str_eq(manager.heard, "STOPPING=1\nSTATUS=draining|");
    ck_assert_uint_eq(manager.asked, 0);
}
END_TEST

START_TEST(without_a_manager_nothing_happens)
{
    static const char *const sockets[] = {"", "relative", "/nonexistent/notify"};

    for (size_t i = 0; i < sizeof sockets / sizeof sockets[0]; i++) {
        setenv("NOTIFY_SOCKET", sockets[i], 1);
        start(0);
        notify_stopping(&manager.notify);
        ck_assert_int_eq(manager.notify.fd, -1);
        ck_assert(!timer_pending(&manager.notify.timer));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("notify");
    TCase *tcase = tcase_create("notify");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, says_what_it_waits_for_and_then_that_it_is_ready, 0, 2);
    tcase_add_test(tcase, feeds_the_watchdog_before_and_after_it_is_ready);
    tcase_add_test(tcase, another_process_s_watchdog_is_not_its_own);
    tcase_add_test(tcase, a_reload_ends_ready_if_it_was_ready);
    tcase_add_test(tcase, who_stops_does_not_become_ready);
    tcase_add_test(tcase, without_a_manager_nothing_happens);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
