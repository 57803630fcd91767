#include "common/bus.h"
#include "common/clock.h"
#include "common/metrics.h"
#include "common/nats_conn.h"
#include "nats_fixture.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GUARD_MS = 30000, SUBJECT_SIZE = 64 };

static struct nats_server servers[2];
static struct loop *loop;

/* One bus and what its handlers heard. */
struct peer {
    struct bus *bus;
    enum bus_state state;
    unsigned state_changes;
    char server_id[128];
    char detail[256];
    unsigned received;
    size_t received_bytes;
    uint32_t last_number;
    bool in_order;
    unsigned unreachable;
    char last_unreachable[SUBJECT_SIZE];
    bool gate_open;
    unsigned gate_asked;
};

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

static void run_until(bool (*condition)(const struct peer *peer), const struct peer *peer)
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

static struct bus_options options_for(const char *const *urls, size_t count)
{
    return (struct bus_options){.servers = urls, .server_count = count, .name = "test", .echo_subject = "test.echo"};
}

static void open_peer(struct peer *peer, const struct bus_options *options)
{
    *peer = (struct peer){.gate_open = true, .in_order = true};
    peer->bus = bus_open(loop, options, &handlers, peer);
    ck_assert(!bus_is_up(peer->bus));
}

/* A peer on the first server with one subscription, or none, and an inbox named after it. */
static void open_simple(struct peer *peer, const char *subject, const char *inbox)
{
    const char *url = servers[0].url;
    struct bus_options options = options_for(&url, 1);

    options.subscriptions = &subject;
    options.subscription_count = subject != NULL;
    options.echo_subject = inbox;
    open_peer(peer, &options);
}

static int publish_number(struct peer *peer, const char *subject, uint32_t number, size_t size, int flags)
{
    struct payload *payload = payload_new(size);

    memset(payload->data, 0, size);
    memcpy(payload->data, &number, sizeof(number));
    int rc = bus_publish(peer->bus, subject, payload, flags);
    payload_unref(&payload);
    return rc;
}

static bool is_up(const struct peer *peer)
{
    return peer->state == BUS_UP;
}

static bool is_lost(const struct peer *peer)
{
    return peer->state == BUS_LOST;
}

static bool is_refused(const struct peer *peer)
{
    return peer->state == BUS_REFUSED;
}

static bool got_one(const struct peer *peer)
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

static const char users_conf[] = "authorization { users = [\n"
                                 "  {user: good, password: secret}\n"
                                 "  {user: deaf, password: secret, permissions: {subscribe: [\"test.>\"]}}\n"
                                 "  {user: mute, password: secret, permissions: {publish: [\"test.>\"]}}\n"
                                 "  {nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}\n"
                                 "] }\n";
/* From the documentation of NATS, with its public key above. */
static const char nkey_seed[] = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";

static void open_as(struct peer *peer, const char *user, const char *password)
{
    const char *url = servers[0].url, *subject = "secret.subject";
    struct bus_options options = options_for(&url, 1);

    options.user = user;
    options.password = password;
    options.subscriptions = &subject;
    options.subscription_count = 1;
    open_peer(peer, &options);
}

START_TEST(is_refused_with_a_wrong_password)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "good", "wrong");
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "Authorization Violation"), "%s", peer.detail);
    bus_close(&peer.bus);
    open_as(&peer, "good", "secret");
    run_until(is_up, &peer);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(recovers_when_the_server_is_what_gets_repaired)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "newcomer", "secret");
    run_until(is_refused, &peer);
    nats_server_stop(&servers[0]);
    nats_server_start(&servers[0], "authorization { user: newcomer, password: secret }\n");
    run_until(is_up, &peer);
    ck_assert_uint_eq(peer.state_changes, 2);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(is_refused_a_subscription)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "deaf", "secret");
    run_until(is_refused, &peer);
    ck_assert_uint_eq(peer.state_changes, 1);
    ck_assert_msg(strstr(peer.detail, "secret.subject"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(is_refused_a_publish)
{
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    open_as(&peer, "mute", "secret");
    run_until(is_up, &peer);
    publish_number(&peer, "elsewhere", 1, 8, 0);
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "elsewhere"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

static void write_file(char *path, size_t path_size, const char *name, const char *text)
{
    snprintf(path, path_size, "%s/%s", servers[0].dir, name);
    FILE *file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

START_TEST(knows_itself_by_an_nkey)
{
    char path[192];
    struct peer peer;

    nats_server_start(&servers[0], users_conf);
    write_file(path, sizeof(path), "seed", nkey_seed);
    const char *url = servers[0].url;
    struct bus_options options = options_for(&url, 1);
    options.nkey_seed_file = path;
    open_peer(&peer, &options);
    run_until(is_up, &peer);
    bus_close(&peer.bus);

    write_file(path, sizeof(path), "seed", "SUnot a seed\n");
    open_peer(&peer, &options);
    run_until(is_refused, &peer);
    ck_assert_msg(strstr(peer.detail, "no user nkey seed"), "%s", peer.detail);
    bus_close(&peer.bus);
}
END_TEST

START_TEST(derives_the_public_nkey)
{
    char public[NKEY_PUBLIC_SIZE + 1], seed[sizeof(nkey_seed)];

    ck_assert(nkey_public_from_seed(nkey_seed, public));
    ck_assert_str_eq(public, "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4");
    for (size_t i = 0; i < sizeof(nkey_seed) - 1; i++) {
        memcpy(seed, nkey_seed, sizeof(seed));
        seed[i] = seed[i] == 'A' ? 'B' : 'A';
        ck_assert_msg(!nkey_public_from_seed(seed, public), "a changed character at %zu", i);
    }
    ck_assert(!nkey_public_from_seed("", public));
}
END_TEST

/* A certificate authority, a certificate for 127.0.0.1 that serves both ends, and one for somebody else's name. */
static const char make_certificates[] =
    "cd %s && exec 2>openssl.log && ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' &&"
    "openssl req -x509 $ec -keyout ca.key -out ca.crt -subj /CN=ca &&"
    "for n in 127.0.0.1 192.0.2.1; do "
    "openssl req $ec -keyout $n.key -out $n.csr -subj /CN=$n && printf 'subjectAltName=IP:%%s' $n >ext &&"
    "openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out $n.crt || exit 1; done";

static void start_tls_server(const char *certificate)
{
    char conf[1024];
    const char *dir = servers[0].dir;

    snprintf(conf, sizeof(conf),
             "tls { cert_file: \"%s/%s.crt\", key_file: \"%s/%s.key\", ca_file: \"%s/ca.crt\", verify: true }\n", dir,
             certificate, dir, certificate, dir);
    nats_server_start(&servers[0], conf);
}

START_TEST(speaks_tls_and_checks_the_name)
{
    char command[1024], ca[192], cert[192], key[192], url[64];
    const char *urls = url, *subject = "here", *dir = servers[0].dir;
    struct peer peer;

    nats_server_start(&servers[0], NULL);
    nats_server_stop(&servers[0]);
    snprintf(command, sizeof(command), make_certificates, dir);
    ck_assert_int_eq(system(command), 0);
    snprintf(ca, sizeof(ca), "%s/ca.crt", dir);
    snprintf(cert, sizeof(cert), "%s/127.0.0.1.crt", dir);
    snprintf(key, sizeof(key), "%s/127.0.0.1.key", dir);
    snprintf(url, sizeof(url), "tls://127.0.0.1:%d", servers[0].port);
    struct bus_options options = options_for(&urls, 1);
    options.tls_ca_file = ca;
    options.tls_cert_file = cert;
    options.tls_key_file = key;
    options.subscriptions = &subject;
    options.subscription_count = 1;

    start_tls_server("127.0.0.1");
    open_peer(&peer, &options);
    run_until(is_up, &peer);
    publish_number(&peer, "here", 1, 1 << 20, 0);
    run_until(got_one, &peer);
    ck_assert_uint_eq(peer.received_bytes, 1 << 20);

    /* The view log looks for another server while it is connected. */
    struct nats_options library;
    natsConnection *connections[3] = {NULL};
    char detail[NATS_DETAIL_MAX];
    ck_assert_int_eq(nats_options_init(&library, &options, detail), 0);
    for (int i = 0; i < 3; i++) {
        nats_options_next_server(&library);
        natsStatus s = natsConnection_Connect(&connections[i], library.library);
        ck_assert_msg(s == NATS_OK, "connection %d: %s", i, nats_GetLastError(NULL));
    }
    for (int i = 0; i < 3; i++)
        natsConnection_Destroy(connections[i]);
    nats_options_done(&library);

    nats_server_freeze(&servers[0]);
    publish_number(&peer, "here", 1, 1 << 20, 0);
    run_until(is_lost, &peer);
    bus_close(&peer.bus);
    nats_server_stop(&servers[0]);

    struct nats_conn *conn = NULL;
    start_tls_server("192.0.2.1");
    ck_assert_int_eq(nats_options_init(&library, &options, detail), 0);
    nats_options_next_server(&library);
    ck_assert_int_eq(nats_conn_open(&library, &conn, detail), NATS_CONN_LOST);
    ck_assert_msg(strstr(detail, "IP address mismatch"), "%s", detail);
    nats_options_done(&library);
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

static Suite *bus_suite(void)
{
    Suite *suite = suite_create("bus");
    TCase *tcase = tcase_create("bus");

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, set_up, tear_down);
    tcase_add_test(tcase, comes_up_when_a_server_does);
    tcase_add_test(tcase, closes_while_there_is_no_server);
    tcase_add_test(tcase, keeps_the_order_of_ten_thousand_messages);
    tcase_add_loop_test(tcase, names_the_subject_that_nobody_hears, 0, 2);
    tcase_add_test(tcase, goes_to_the_next_server_when_one_is_killed);
    tcase_add_test(tcase, notices_a_frozen_server);
    tcase_add_test(tcase, counts_as_lost_when_too_much_waits_to_be_sent);
    tcase_add_test(tcase, refuses_what_the_server_would);
    tcase_add_test(tcase, holds_messages_at_the_gate_and_drops_the_newest);
    tcase_add_test(tcase, is_refused_with_a_wrong_password);
    tcase_add_test(tcase, recovers_when_the_server_is_what_gets_repaired);
    tcase_add_test(tcase, is_refused_a_subscription);
    tcase_add_test(tcase, is_refused_a_publish);
    tcase_add_test(tcase, derives_the_public_nkey);
    tcase_add_test(tcase, knows_itself_by_an_nkey);
    tcase_add_test(tcase, speaks_tls_and_checks_the_name);
    tcase_add_test(tcase, delivers_what_was_published_before_it_closed);
    tcase_add_test(tcase, closes_at_any_moment);
    tcase_add_test(tcase, closes_in_bounded_time_when_the_server_is_frozen);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    nats_fixture_init();
    SRunner *runner = srunner_create(bus_suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    nats_fixture_done();
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
