/* WebSockets over real sockets: messages, queues, pings, closing. */
#include "common/clock.h"
#include "front_fixture.h"
#include <unistd.h>

static void script_echo(void)
{
    struct ws_client *client = join(JSON);
    ck_assert_str_eq(SSL_get_version(client->ssl), "TLSv1.3");
    ask(client, ASK_PONG);
    expect(client, TEXT, "{\"result\":{}}");
    leave(client);

    client = join(PROTOBUF);
    ws_client_send(client, BINARY, "\x08\x01\x62", 3); /* cut: undecodable */
    expect(client, BINARY, NULL);
    ws_client_send(client, BINARY, "\x08\x01", 2);
    expect(client, BINARY, NULL);
    leave(client);
}

START_TEST(echo_over_tls)
{
    run(script_echo);
    ck_assert_uint_eq(recorded.messages, 2);
    ck_assert_uint_eq(recorded.malformed, 1);
    ck_assert_uint_eq(recorded.gone_clean, 2);
}
END_TEST

static void script_plain(void)
{
    struct ws_client *client = join(JSON);
    ask(client, ASK_FIVE);
    for (int i = 0; i < 5; i++)
        expect(client, TEXT, NULL);
    leave(client);
}

START_TEST(echo_in_plain_mode)
{
    options.tls = false;
    uint64_t flushes = metric_value(M_WS_FLUSHES);
    run(script_plain);
    ck_assert_uint_eq(recorded.gone_clean, 1);
    /* The five in one write, and the close frame. */
    ck_assert_uint_eq(metric_value(M_WS_FLUSHES), flushes + 2);
}
END_TEST

static void script_early_frames(void)
{
    char request[4096];
    struct ws_client *client = ws_client_dial(front_port(front));
    /* A masked ping {"requestId":1} in the same packet as the request. */
    static const char frame[] = "\x81\x8f\0\0\0\0{\"requestId\":1}";
    size_t size = (size_t)snprintf(request, sizeof(request), "%s", ws_client_upgrade_request("/v1/connect", JSON, ""));
    memcpy(request + size, frame, sizeof(frame) - 1);
    ws_client_write(client, request, size + sizeof(frame) - 1);
    ck_assert_ptr_nonnull(strstr(ws_client_request(client, ""), " 101 "));
    expect(client, TEXT, "{\"result\":{}}");
    leave(client);
}

START_TEST(frames_right_behind_the_request)
{
    options.tls = false;
    run(script_early_frames);
}
END_TEST

static void script_closes(void)
{
    struct ws_client *client = join(JSON);
    ws_client_send(client, CLOSE, "\x03\xe9", 2); /* 1001 */
    ck_assert_int_eq(ws_client_close_code(client), 1001);
    ws_client_close(&client);
    client = join(JSON);
    ws_client_send(client, CLOSE, NULL, 0);
    ck_assert_int_eq(ws_client_close_code(client), 1005);
    ws_client_close(&client);
    client = join(JSON);
    ws_client_close(&client);
    /* The gateway closes: what was queued comes first. */
    client = join(JSON);
    ask(client, ASK_CLOSE);
    expect(client, TEXT, "{\"result\":{}}");
    ck_assert_int_eq(ws_client_close_code(client), CLOSE_SESSION_GONE);
    ws_client_send(client, CLOSE, "\x10\x68", 2);
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
}

START_TEST(only_1000_is_clean)
{
    run(script_closes);
    ck_assert_uint_eq(recorded.gone, 4);
    ck_assert_uint_eq(recorded.gone_clean, 0);
}
END_TEST

static void fails_with(const char *subprotocol, const void *bytes, size_t size, int code)
{
    struct ws_client *client = join(subprotocol);
    ws_client_write(client, bytes, size);
    ck_assert_int_eq(ws_client_close_code(client), code);
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
}

static void script_violations(void)
{
    fails_with(JSON, "\x82\x80\0\0\0\0", 6, 1003);
    fails_with(PROTOBUF, "\x81\x80\0\0\0\0", 6, 1003);
    fails_with(JSON, "\x81\x00", 2, 1002);
    fails_with(JSON, "\xc1\x80", 2, 1002);
    fails_with(JSON, "\x81\x81\0\0\0\0\xff", 7, 1007);
    fails_with(JSON, "\x81\xfe\x10\x01\0\0\0\0", 8, 1009);
}

START_TEST(violations_fail_the_connection)
{
    uint64_t before = metric_value_at(M_WS_ERRORS, 0);
    run(script_violations);
    ck_assert_uint_eq(recorded.gone, 6);
    ck_assert_uint_eq(recorded.messages + recorded.malformed + recorded.gone_clean, 0);
    ck_assert_uint_eq(metric_value_at(M_WS_ERRORS, 0), before + 2);
}
END_TEST

static void script_pings(void)
{
    struct ws_client *client = join(JSON);
    ws_client_send(client, PING, "one", 3);
    expect(client, PONG, "one");
    /* In one packet: only the latest is answered. */
    ws_client_write(client, "\x89\x81\0\0\0\0a\x89\x81\0\0\0\0b", 14);
    expect(client, PONG, "b");
    for (int i = 0; i < 300; i++)
        ws_client_send(client, PING, "", 0);
    ck_assert_int_eq(ws_client_close_code(client), CLOSE_ABUSE);
    ws_client_close(&client);
}

START_TEST(pings_are_answered_within_a_budget)
{
    run(script_pings);
}
END_TEST

static void script_keepalive(void)
{
    struct ws_client *client = join(JSON);
    for (int i = 0; i < 3; i++) {
        expect(client, PING, "");
        ws_client_send(client, PONG, "", 0);
    }
    expect(client, PING, "");
    ck_assert_int_eq(ws_client_close_code(client), CLOSE_PING_TIMEOUT);
    ws_client_close(&client);
}

START_TEST(silence_ends_a_connection)
{
    options.ping_interval_ms = 50;
    options.ping_timeout_ms = 300;
    run(script_keepalive);
    ck_assert_uint_eq(recorded.gone_clean, 0);
}
END_TEST

/* The kernel can reach it: its program is left alone for three intervals. */
static void script_probed(void)
{
    struct ws_client *client = join(JSON);
    int64_t begun_ms = clock_mono_ms();
    ws_client_send(client, PONG, "", 0);
    expect(client, PING, "");
    ck_assert_int_ge(clock_mono_ms() - begun_ms, 3500);
    leave(client);
}

START_TEST(an_idle_client_that_the_kernel_reaches_is_seldom_pinged)
{
    options.ping_interval_ms = 1200;
    options.ping_timeout_ms = 300;
    run(script_probed);
    ck_assert_uint_eq(recorded.gone_clean, 1);
}
END_TEST

/* Its system has confirmed the ping: it can be reached, it is only slow. */
static void script_slow_answer(void)
{
    struct ws_client *client = join(JSON);
    for (int i = 0; i < 2; i++) {
        expect(client, PING, "");
        usleep(400000);
        ws_client_send(client, PONG, "", 0);
    }
    leave(client);
}

START_TEST(an_answer_may_be_late_where_the_ping_has_arrived)
{
    options.ping_interval_ms = 1000;
    options.ping_timeout_ms = 100;
    run(script_slow_answer);
    ck_assert_uint_eq(recorded.gone_clean, 1);
}
END_TEST

static void script_overflow(void)
{
    struct ws_client *client = join(JSON);
    ask(client, ASK_MEMBERSHIP);
    ask(client, ASK_PONG);
    uint8_t data[65536];
    size_t size;
    do
        ck_assert_int_eq(ws_client_receive(client, data, sizeof(data), &size), TEXT);
    while (strcmp((char *)data, "{\"result\":{\"message\":\"xxx\"}}") != 0);
    leave(client);
}

START_TEST(membership_overflow_is_told)
{
    uint64_t before = metric_value_at(M_UPDATES_DROPPED, CLASS_MEMBERSHIP);
    run(script_overflow);
    /* 32 KB hold 31 of 1 KB; the 32nd takes them with it, the rest fits again. */
    ck_assert_uint_eq(recorded.overflow_membership, 32);
    ck_assert_uint_eq(recorded.overflow_ephemeral, 0);
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED, CLASS_MEMBERSHIP), before + 32);
}
END_TEST

static void script_slow(void)
{
    struct ws_client *client = join(JSON);
    ask(client, ASK_NEGOTIATION);
    ck_assert_int_eq(ws_client_close_code(client), CLOSE_SLOW);
    ws_client_close(&client);
}

START_TEST(what_must_not_drop_closes_as_slow)
{
    run(script_slow);
    ck_assert_uint_eq(front_queued_bytes(front), 0);
    ck_assert_uint_eq(front_queued_messages(front), 0);
}
END_TEST

/* Fills what the kernel takes, without reading; every request is answered once it is read again. */
static void script_backpressure(void)
{
    struct ws_client *client = join(JSON);
    unsigned asked = 0;
    for (; metric_value(M_WS_READ_PAUSES) == 0; asked++)
        ask(client, ASK_FIVE);
    for (unsigned i = 0; i < 5 * asked; i++)
        expect(client, TEXT, NULL);
    leave(client);
}

START_TEST(reading_stops_while_too_much_waits)
{
    run(script_backpressure);
    ck_assert_uint_eq(recorded.gone_clean, 1);
}
END_TEST

static int64_t rested_ms;

/* What comes behind too much is read after a rest, whether that ends in an answer or a close. */
static void script_rest(void)
{
    struct ws_client *client = join(JSON), *gone = join(JSON);
    int64_t began_ms = clock_mono_ms();
    ask(client, ASK_TOO_MUCH);
    expect(client, TEXT, NULL);
    ask(client, ASK_TOO_MUCH);
    expect(client, TEXT, NULL);
    ask(client, ASK_PONG);
    expect(client, TEXT, NULL);
    rested_ms = clock_mono_ms() - began_ms;
    /* All rests end by one timer, which goes on for those who begin theirs later. */
    ask(gone, ASK_TOO_MUCH);
    expect(gone, TEXT, NULL);
    ws_client_close(&gone);
    ask(client, ASK_TOO_MUCH);
    leave(client);
}

START_TEST(who_asks_too_much_is_left_unread_for_a_moment)
{
    uint64_t before = metric_value(M_WS_READ_RESTS);
    run(script_rest);
    ck_assert_uint_eq(metric_value(M_WS_READ_RESTS), before + 4);
    ck_assert_int_ge(rested_ms, 2 * 19);
    ck_assert_uint_eq(recorded.gone_clean, 1);
}
END_TEST

static void script_shed(void)
{
    struct ws_client *idle = join(JSON), *client = join(JSON);
    ask(client, ASK_SHED);
    ck_assert_int_eq(ws_client_close_code(client), CLOSE_SLOW);
    ws_client_close(&client);
    ask(idle, ASK_PONG);
    expect(idle, TEXT, NULL);
    leave(idle);
}

START_TEST(short_of_memory_signals_go_first_and_then_the_slowest)
{
    uint64_t signals = metric_value_at(M_UPDATES_DROPPED_REASON, DROP_GATEWAY_MEMORY);
    uint64_t connections = metric_value_at(M_SHED, SHED_METRIC_CONNECTION);
    run(script_shed);
    ck_assert_uint_eq(recorded.queued_at[SHED_JOINS], 8);
    ck_assert_uint_eq(recorded.queued_at[SHED_EPHEMERAL], 4);
    ck_assert_uint_eq(recorded.queued_at[SHED_SLOWEST], 0);
    ck_assert_uint_eq(metric_value_at(M_UPDATES_DROPPED_REASON, DROP_GATEWAY_MEMORY), signals + 4);
    ck_assert_uint_eq(metric_value_at(M_SHED, SHED_METRIC_CONNECTION), connections + 1);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, echo_over_tls);
    tcase_add_test(tcase, echo_in_plain_mode);
    tcase_add_test(tcase, frames_right_behind_the_request);
    tcase_add_test(tcase, only_1000_is_clean);
    tcase_add_test(tcase, violations_fail_the_connection);
    tcase_add_test(tcase, pings_are_answered_within_a_budget);
    tcase_add_test(tcase, silence_ends_a_connection);
    tcase_add_test(tcase, an_idle_client_that_the_kernel_reaches_is_seldom_pinged);
    tcase_add_test(tcase, an_answer_may_be_late_where_the_ping_has_arrived);
    tcase_add_test(tcase, membership_overflow_is_told);
    tcase_add_test(tcase, what_must_not_drop_closes_as_slow);
    tcase_add_test(tcase, reading_stops_while_too_much_waits);
    tcase_add_test(tcase, who_asks_too_much_is_left_unread_for_a_moment);
    tcase_add_test(tcase, short_of_memory_signals_go_first_and_then_the_slowest);
}

int main(void)
{
    return run_suite("front", add_tests);
}
