#include "bus_fixture.h"

#include "common/clock.h"
#include "suite.h"
#include <check.h>
#include <stdio.h>
#include <string.h>

enum { GUARD_MS = 30000 };

struct nats_server servers[2];
struct loop *loop;

/* What the loop runs for. */
static bool (*awaited)(const struct peer *peer);
static const struct peer *awaited_peer;

static void check_awaited(void)
{
    if (awaited && awaited(awaited_peer))
        loop_stop(loop);
}

static void on_guard(struct timer *timer, int64_t now_ms)
{
    loop_stop(loop);
}

void run_until(bool (*condition)(const struct peer *peer), const struct peer *peer)
{
    struct timer guard;

    if (condition(peer))
        return;
    timer_init(&guard, on_guard);
    timer_set(loop_timers(loop), &guard, clock_mono_ms() + GUARD_MS);
    awaited = condition;
    awaited_peer = peer;
    loop_run(loop);
    awaited = NULL;
    timer_cancel(loop_timers(loop), &guard);
    ck_assert_msg(condition(peer), "state %d (%s), %u received, %u unreachable", peer->state, peer->detail,
                  peer->received, peer->unreachable);
}

static void on_message(void *ctx, const char *subject, const uint8_t *data, size_t size)
{
    struct peer *peer = ctx;
    uint32_t number;

    ck_assert_uint_ge(size, sizeof(number));
    memcpy(&number, data, sizeof(number));
    peer->in_order = peer->in_order && number == peer->last_number + 1;
    peer->last_number = number;
    peer->received++;
    peer->received_bytes += size;
    check_awaited();
}

static void on_unreachable(void *ctx, const char *subject)
{
    struct peer *peer = ctx;

    peer->unreachable++;
    snprintf(peer->last_unreachable, sizeof(peer->last_unreachable), "%s", subject);
    check_awaited();
}

static void on_state(void *ctx, enum bus_state state, const char *server_id, const char *detail)
{
    struct peer *peer = ctx;

    peer->state = state;
    peer->state_changes++;
    snprintf(peer->server_id, sizeof(peer->server_id), "%s", server_id);
    snprintf(peer->detail, sizeof(peer->detail), "%s", detail);
    check_awaited();
}

static bool on_gate(void *ctx)
{
    struct peer *peer = ctx;

    peer->gate_asked++;
    check_awaited();
    return peer->gate_open;
}

static const struct bus_handlers handlers = {
    .message = on_message, .unreachable = on_unreachable, .state = on_state, .gate = on_gate};

struct bus_options options_for(const char *const *urls, size_t count)
{
    return (struct bus_options){.servers = urls, .server_count = count, .name = "test", .echo_subject = "test.echo"};
}

void open_peer(struct peer *peer, const struct bus_options *options)
{
    *peer = (struct peer){.gate_open = true, .in_order = true};
    peer->bus = bus_open(loop, options, &handlers, peer);
    ck_assert(!bus_is_up(peer->bus));
}

void open_simple(struct peer *peer, const char *subject, const char *inbox)
{
    const char *url = servers[0].url;
    struct bus_options options = options_for(&url, 1);

    options.subscriptions = &subject;
    options.subscription_count = subject != NULL;
    options.echo_subject = inbox;
    open_peer(peer, &options);
}

int publish_number(struct peer *peer, const char *subject, uint32_t number, size_t size, int flags)
{
    struct payload *payload = payload_new(size);

    memset(payload->data, 0, size);
    memcpy(payload->data, &number, sizeof(number));
    int rc = bus_publish(peer->bus, subject, payload, flags);
    payload_unref(&payload);
    return rc;
}

bool is_up(const struct peer *peer)
{
    return peer->state == BUS_UP;
}

bool is_lost(const struct peer *peer)
{
    return peer->state == BUS_LOST;
}

bool got_one(const struct peer *peer)
{
    return peer->received >= 1;
}

static void set_up(void)
{
    memset(servers, 0, sizeof(servers));
    loop = loop_new();
}

static void tear_down(void)
{
    loop_free(&loop);
    nats_server_stop(&servers[0]);
    nats_server_stop(&servers[1]);
}

int run_bus_tests(const char *name, TCase *tests)
{
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    nats_fixture_init();
    int status = suite_run(name, tests, NULL);
    nats_fixture_done();
    return status;
}
