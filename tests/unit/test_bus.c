/* Connecting, losing and finding servers; order, limits, and subjects that nobody hears. */
#include "bus_fixture.h"
#include "common/clock.h"
#include "common/metrics.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

START_TEST(comes_up_when_a_server_does)
{
    /* The port is known before the server is there. */
    nats_server_start(&servers[0], NULL);
    nats_server_stop(&servers[0]);
    struct peer peer;
    open_simple(&peer, NULL, "test.echo");
    ck_assert_int_eq(publish_number(&peer, "a", 1, 8, 0), -1);
    nats_server_start(&servers[0], NULL);
    run_until(is_up, &peer);
    ck_assert(bus_is_up(peer.bus));
    ck_assert_uint_eq(peer.state_changes, 1);
    ck_assert_uint_gt(strlen(peer.server_id), 10);
    ck_assert_uint_eq(metric_value(M_BUS_UP), 1);
    bus_close(&peer.bus);
    ck_assert_ptr_null(peer.bus);
    ck_assert_uint_eq(metric_value(M_BUS_UP), 0);
}
END_TEST

START_TEST(closes_while_there_is_no_server)
{
    char url[64];
    const char *urls = url;
    struct peer peer;

    snprintf(url, sizeof(url), "nats://127.0.0.1:%d", nats_free_port());
    struct bus_options options = options_for(&urls, 1);
    open_peer(&peer, &options);
    bus_close(&peer.bus);
    ck_assert_uint_eq(peer.state_changes, 0);
}
END_TEST

static bool got_10000(const struct peer *peer)
{
    return peer->received == 10000;
}

START_TEST(keeps_the_order_of_ten_thousand_messages)
{
    struct peer from, to;
    size_t bytes = 0;

    nats_server_start(&servers[0], NULL);
    open_simple(&from, NULL, "from.echo");
    open_simple(&to, "to.>", "to.echo");
    run_until(is_up, &from);
    run_until(is_up, &to);
    for (uint32_t i = 1; i <= 10000; i++) {
        size_t size = 4 + i % 1000;
        ck_assert_int_eq(publish_number(&from, i % 2 ? "to.me" : "to.you", i, size, 0), 0);
        bytes += size;
    }
    run_until(got_10000, &to);
    ck_assert(to.in_order);
    ck_assert_uint_eq(to.received_bytes, bytes);
    ck_assert_uint_eq(metric_value(M_BUS_SENT), 10000);
    ck_assert_uint_eq(metric_value(M_BUS_RECEIVED_BYTES), bytes);
    bus_close(&from.bus);
    bus_close(&to.bus);
}
END_TEST

/* Of the 300 messages to each, every one to "to.nobody" with an odd number and every one to "to.none" asked for it. */
static bool got_300_unreachable(const struct peer *peer)
{
    return peer->unreachable == 300;
}

/* The last of what was published to "to.me" came, so all answers about it would have come, too. */
static bool got_300(const struct peer *peer)
{
    return peer->received == 300;
}

/* Whether the echo has a subscription of its own or is covered by the wildcard. */
static const char *const echo_subjects[] = {"other.echo", "from.echo"};

START_TEST(names_the_subject_that_nobody_hears)
{
    struct peer from, to;

    nats_server_start(&servers[0], NULL);
    open_simple(&from, "from.>", echo_subjects[_i]);
    open_simple(&to, "to.me", "to.echo");
    run_until(is_up, &from);
    run_until(is_up, &to);
    for (uint32_t i = 1; i <= 300; i++) {
        publish_number(&from, "to.me", i, 8, BUS_WANT_UNREACHABLE);
        publish_number(&from, "to.nobody", i, 8, i % 2 ? BUS_WANT_UNREACHABLE : 0);
        publish_number(&from, i % 2 ? "to.me.neither" : "to.none", i, 8, i % 2 ? 0 : BUS_WANT_UNREACHABLE);
    }
    run_until(got_300_unreachable, &from);
    ck_assert_str_eq(from.last_unreachable, "to.none");
    run_until(got_300, &to);
    ck_assert(to.in_order);
    ck_assert_uint_eq(metric_value(M_BUS_UNREACHABLE), 300);
    ck_assert_uint_eq(from.received, 0); /* echoes and answers are no messages */

    /* The subscriber goes away; the server takes a moment to notice. */
    bus_close(&to.bus);
    while (from.unreachable == 300) {
        from.received = 0;
        publish_number(&from, "to.me", 1, 8, BUS_WANT_UNREACHABLE);
        publish_number(&from, "from.me", 1, 8, 0);
        run_until(got_one, &from);
    }
    ck_assert_str_eq(from.last_unreachable, "to.me");
    bus_close(&from.bus);
}
END_TEST

/* A peer that may use both servers. Returns the one that it chose. */
static struct nats_server *open_on_either(struct peer *peer, const char *subject)
{
    struct peer probe;

    nats_server_start(&servers[0], NULL);
    nats_server_start(&servers[1], NULL);
    open_simple(&probe, NULL, "probe.echo");
    run_until(is_up, &probe);
    bus_close(&probe.bus);

    const char *urls[2] = {servers[0].url, servers[1].url};
    struct bus_options options = options_for(urls, 2);
    options.subscriptions = &subject;
    options.subscription_count = 1;
    open_peer(peer, &options);
    run_until(is_up, peer);
    return &servers[strcmp(peer->server_id, probe.server_id) == 0 ? 0 : 1];
}

START_TEST(goes_to_the_next_server_when_one_is_killed)
{
    char first_id[128];
    struct peer peer;
    struct nats_server *chosen = open_on_either(&peer, "here");

    memcpy(first_id, peer.server_id, sizeof(first_id));
    nats_server_stop(chosen);
    run_until(is_lost, &peer);
    ck_assert(!bus_is_up(peer.bus));
    ck_assert_str_eq(peer.server_id, "");
    ck_assert_int_eq(publish_number(&peer, "here", 1, 8, 0), -1);
    ck_assert_uint_eq(metric_value_at(M_BUS_LOSSES, 0), 1);
    run_until(is_up, &peer);
    ck_assert_str_ne(peer.server_id, first_id);
    ck_assert_int_eq(publish_number(&peer, "here", 1, 8, 0), 0);
    run_until(got_one, &peer);
    ck_assert_uint_eq(peer.state_changes, 3);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(notices_a_frozen_server)
{
    char first_id[128];
    struct peer peer;
    struct nats_server *chosen = open_on_either(&peer, "here");

    memcpy(first_id, peer.server_id, sizeof(first_id));
    int64_t frozen_ms = clock_mono_ms();
    nats_server_freeze(chosen);
    run_until(is_lost, &peer);
    int64_t lost_ms = clock_mono_ms();
    run_until(is_up, &peer);
    printf("frozen server: lost after %d ms, up at the next after %d ms\n", (int)(lost_ms - frozen_ms),
           (int)(clock_mono_ms() - frozen_ms));
    ck_assert_int_gt(lost_ms - frozen_ms, 700);
    ck_assert_int_lt(lost_ms - frozen_ms, 5000);
    ck_assert_str_ne(peer.server_id, first_id);
    ck_assert_uint_eq(metric_value_at(M_BUS_LOSSES, 1), 1);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(counts_as_lost_when_too_much_waits_to_be_sent)
{
    enum { LIMIT_BYTES = 16 << 20, SIZE = 64 * 1024 };
    struct peer peer;
    unsigned accepted = 0;

    nats_server_start(&servers[0], NULL);
    const char *url = servers[0].url;
    struct bus_options options = options_for(&url, 1);
    options.outgoing_limit_bytes = LIMIT_BYTES;
    open_peer(&peer, &options);
    run_until(is_up, &peer);
    nats_server_freeze(&servers[0]);
    while (publish_number(&peer, "a", 1, SIZE, 0) == 0)
        ck_assert_uint_lt(++accepted, 1000);
    ck_assert_uint_gt(accepted, LIMIT_BYTES / SIZE - 10);
    run_until(is_lost, &peer);
    ck_assert_uint_eq(metric_value_at(M_BUS_LOSSES, 2), 1);
    nats_server_thaw(&servers[0]);
    run_until(is_up, &peer);
    ck_assert_int_eq(publish_number(&peer, "a", 1, SIZE, 0), 0);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(refuses_what_the_server_would)
{
    struct peer peer;

    nats_server_start(&servers[0], NULL);
    open_simple(&peer, "here", "test.echo");
    run_until(is_up, &peer);
    ck_assert_int_eq(publish_number(&peer, "here", 1, (1 << 20) + 1, 0), -1);
    ck_assert_uint_eq(metric_value_at(M_BUS_DROPPED, BUS_DROP_TOO_LARGE), 1);
    ck_assert_int_eq(publish_number(&peer, "here", 1, 1 << 20, 0), 0);
    run_until(got_one, &peer);
    ck_assert_uint_eq(peer.received_bytes, 1 << 20);
    bus_close(&peer.bus);
}
END_TEST

static bool some_were_dropped(const struct peer *peer)
{
    return metric_value_at(M_BUS_DROPPED, BUS_DROP_INCOMING_FULL) > 0 && metric_value(M_BUS_RECEIVED) == 4000;
}

static bool all_but_the_dropped_came(const struct peer *peer)
{
    return peer->received + metric_value_at(M_BUS_DROPPED, BUS_DROP_INCOMING_FULL) == 4000;
}

static bool got_the_last(const struct peer *peer)
{
    return peer->last_number == 5000;
}

START_TEST(holds_messages_at_the_gate_and_drops_the_newest)
{
    enum { LIMIT_BYTES = 1 << 20, SIZE = 1000 };
    struct peer from, to;

    nats_server_start(&servers[0], NULL);
    open_simple(&from, NULL, "from.echo");
    const char *url = servers[0].url, *subject = "to.me";
    struct bus_options options = options_for(&url, 1);
    options.subscriptions = &subject;
    options.subscription_count = 1;
    options.incoming_limit_bytes = LIMIT_BYTES;
    open_peer(&to, &options);
    to.gate_open = false;
    run_until(is_up, &from);
    run_until(is_up, &to);
    for (uint32_t i = 1; i <= 4000; i++)
        ck_assert_int_eq(publish_number(&from, "to.me", i, SIZE, 0), 0);
    run_until(some_were_dropped, &to);
    ck_assert_uint_eq(to.received, 0);
    ck_assert_uint_gt(to.gate_asked, 0);

    to.gate_open = true;
    bus_resume(to.bus);
    run_until(all_but_the_dropped_came, &to);
    ck_assert(to.in_order); /* the oldest were kept */
    ck_assert_uint_le(to.received_bytes, LIMIT_BYTES);
    ck_assert_uint_gt(to.received_bytes, LIMIT_BYTES / 2);
    publish_number(&from, "to.me", 5000, SIZE, 0);
    run_until(got_the_last, &to);
    bus_close(&from.bus);
    bus_close(&to.bus);
}
END_TEST

static bool got_5000(const struct peer *peer)
{
    return peer->received == 5000;
}

START_TEST(delivers_what_was_published_before_it_closed)
{
    struct peer from, to;

    nats_server_start(&servers[0], NULL);
    open_simple(&from, NULL, "from.echo");
    open_simple(&to, "to.me", "to.echo");
    run_until(is_up, &from);
    run_until(is_up, &to);
    for (uint32_t i = 1; i <= 5000; i++)
        ck_assert_int_eq(publish_number(&from, "to.me", i, 1000, 0), 0);
    bus_close(&from.bus);
    run_until(got_5000, &to);
    ck_assert(to.in_order);
    bus_close(&to.bus);
}
END_TEST

/* It once waited for good when it was closed during a connect. */
START_TEST(closes_at_any_moment)
{
    struct peer peer;

    nats_server_start(&servers[0], NULL);
    for (int i = 0; i < 60; i++) {
        open_simple(&peer, "here", "test.echo");
        usleep((useconds_t)(i * 50)); /* a connect takes about 1 ms */
        bus_close(&peer.bus);
    }
}
END_TEST

START_TEST(closes_in_bounded_time_when_the_server_is_frozen)
{
    struct peer peer;

    nats_server_start(&servers[0], NULL);
    open_simple(&peer, "here", "test.echo");
    run_until(is_up, &peer);
    nats_server_freeze(&servers[0]);
    for (uint32_t i = 1; i <= 50; i++)
        publish_number(&peer, "here", i, 1 << 20, 0);
    int64_t start_ms = clock_mono_ms();
    bus_close(&peer.bus);
    ck_assert_int_lt(clock_mono_ms() - start_ms, 3000);
    ck_assert_uint_eq(peer.received, 0);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("bus");
    tcase_add_test(tests, comes_up_when_a_server_does);
    tcase_add_test(tests, closes_while_there_is_no_server);
    tcase_add_test(tests, keeps_the_order_of_ten_thousand_messages);
    tcase_add_loop_test(tests, names_the_subject_that_nobody_hears, 0, 2);
    tcase_add_test(tests, goes_to_the_next_server_when_one_is_killed);
    tcase_add_test(tests, notices_a_frozen_server);
    tcase_add_test(tests, counts_as_lost_when_too_much_waits_to_be_sent);
    tcase_add_test(tests, refuses_what_the_server_would);
    tcase_add_test(tests, holds_messages_at_the_gate_and_drops_the_newest);
    tcase_add_test(tests, delivers_what_was_published_before_it_closed);
    tcase_add_test(tests, closes_at_any_moment);
    tcase_add_test(tests, closes_in_bounded_time_when_the_server_is_frozen);
    return run_bus_tests("bus", tests);
}
