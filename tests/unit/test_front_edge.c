/* What happens around the WebSocket: HTTP, addresses, TLS, reload, the end. */
#include "front_fixture.h"

#include "common/clock.h"

/* --- HTTP */

#define GET(path, headers) "GET " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" headers "\r\n"
#define POST(path, size, body)                                                                                         \
    "POST " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " size "\r\n\r\n" body

static void script_refusals(void)
{
    const char *path = "/v1/connect";
    expect_status(POST("/v1/connect", "0", ""), "405", "\"code\":\"method_not_get\"");
    expect_status(GET("/v1/connect", ""), "426", "\"code\":\"not_an_upgrade\"");
    expect_status(ws_client_upgrade_request(path, JSON, "Origin: https://evil.example.com\r\n"), "403",
                  "\"code\":\"origin_not_allowed\"");
    expect_status(ws_client_upgrade_request(path, "chat", ""), "400", "application/problem+json");
    expect_status(ws_client_upgrade_request(path, JSON, "Authorization: Bearer bad\r\n"), "401",
                  "\"code\":\"UNAUTHENTICATED\"");
    expect_status("nonsense\r\n\r\n", "400", "");
    expect_status(GET("/nowhere", ""), "404", "\"code\":\"NOT_FOUND\"");
    expect_status(GET("/", ""), "302", "location: /demo/");
    gateway_refuses_joins = true;
    expect_status(ws_client_upgrade_request(path, JSON, "Authorization: Bearer good1\r\n"), "503",
                  "\"code\":\"NO_CAPACITY\"");
    gateway_refuses_joins = false;
    gateway_is_full = true;
    expect_status(ws_client_upgrade_request(path, JSON, "Authorization: Bearer good1\r\n"), "503",
                  "\"code\":\"NO_CAPACITY\"");
    gateway_is_ready = false;
    expect_status(ws_client_upgrade_request(path, JSON, ""), "503", "\r\nretry-after: 3\r\n");
}

START_TEST(refusals_before_the_upgrade)
{
    uint64_t before = metric_value_at(M_UPGRADES, WS_HANDSHAKE_ORIGIN);
    run(script_refusals);
    ck_assert_uint_eq(recorded.opened, 0);
    ck_assert_uint_eq(metric_value_at(M_UPGRADES, WS_HANDSHAKE_ORIGIN), before + 1);
}
END_TEST

static void script_tokens(void)
{
    static const char *const ways[][3] = {
        {"/v1/connect", JSON, "Authorization: Bearer good1\r\n"},
        {"/v1/connect?x=1&access_token=good%32", JSON, ""},
        {"/v1/connect", JSON ", signalbox.token.good3", "Origin: https://app.example.com\r\n"},
    };
    for (int i = 0; i < 3; i++) {
        struct ws_client *client = ws_client_connect(front_port(front), client_tls, NULL);
        const char *response = ws_client_request(client, ws_client_upgrade_request(ways[i][0], ways[i][1], ways[i][2]));
        ck_assert_msg(strstr(response, " 101 ") != NULL, "%s", response);
        ck_assert_ptr_nonnull(strcasestr(response, "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        ck_assert_ptr_nonnull(strcasestr(response, "sec-websocket-protocol: " JSON "\r\n"));
        char expected[] = {'g', 'o', 'o', 'd', (char)('1' + i), '\0'};
        ck_assert_str_eq(recorded.token, expected);
        leave(client);
    }
}

START_TEST(token_with_the_upgrade)
{
    run(script_tokens);
    ck_assert_uint_eq(recorded.opened, 3);
}
END_TEST

static void script_api(void)
{
    expect_status(POST("/v1/leave", "4", "good"), "204", "");
    expect_status(POST("/v1/leave", "3", "bad"), "401", "\"code\":\"UNAUTHENTICATED\"");
    expect_status(GET("/v1/leave", ""), "405", "allow: POST");
    expect_status(POST("/demo/token", "17", "{\"invite\":\"good\"}"), "200", "\"room\":\"party\"");
    expect_status(POST("/demo/token", "16", "{\"invite\":\"bad\"}"), "401", "problem+json");
    expect_status(POST("/demo/token", "2", "[]"), "400", "\"code\":\"INVALID\"");
    expect_status(POST("/v1/leave", "99999999", ""), "413", "");
}

START_TEST(leave_and_demo_token)
{
    run(script_api);
    ck_assert_uint_eq(recorded.left, 2);
}
END_TEST

static void script_files(void)
{
    expect_status(GET("/sdk/signalbox.js", ""), "200", "content-type: text/javascript; charset=utf-8");
    expect_status(GET("/sdk/signalbox.d.ts", ""), "200", "content-type: text/plain; charset=utf-8");
    expect_status(GET("/demo/", ""), "200", "content-security-policy: default-src 'self'");
    expect_status(GET("/demo/", ""), "200", "\r\netag: ");
    expect_status(GET("/demo", ""), "404", "");
    expect_status(GET("/sdk/../cert.pem", ""), "404", "problem+json");
    expect_status(GET("/sdk/%2e%2e/cert.pem", ""), "404", "problem+json");
    expect_status(GET("/sdk/..%2fcert.pem", ""), "404", "problem+json");
    expect_status(GET("/sdk/nothing", ""), "404", "problem+json");
}

START_TEST(files_from_the_web_root_alone)
{
    run(script_files);
}
END_TEST

/* --- Addresses */

static void script_one_connection(void)
{
    struct ws_client *first = join(JSON);
    ck_assert_ptr_null(ws_client_connect(front_port(front), client_tls, NULL));
    leave(first);
}

START_TEST(connections_per_address)
{
    options.connections_per_address = 1;
    uint64_t before = metric_value_at(M_ACCEPTS, 1);
    run(script_one_connection);
    ck_assert_uint_eq(metric_value_at(M_ACCEPTS, 1), before + 1);
}
END_TEST

static void script_rate(void)
{
    for (int i = 0; i < 2; i++)
        leave(join(JSON));
    ck_assert_ptr_null(ws_client_connect(front_port(front), client_tls, NULL));
}

START_TEST(handshakes_per_address)
{
    options.handshakes_per_address_per_s = 1;
    run(script_rate);
}
END_TEST

static const char *upgrade_through_proxy(struct ws_client *client, const char *forwarded)
{
    char header[128];
    snprintf(header, sizeof(header), "X-Forwarded-For: %s\r\n", forwarded);
    return ws_client_request(client, ws_client_upgrade_request("/v1/connect", JSON, header)) + 9;
}

static void script_forwarded(void)
{
    struct ws_client *first = ws_client_dial(front_port(front)), *second = ws_client_dial(front_port(front)),
                     *third = ws_client_dial(front_port(front));
    ck_assert_int_eq(strncmp(upgrade_through_proxy(first, "198.51.100.1"), "101", 3), 0);
    ck_assert_int_eq(strncmp(upgrade_through_proxy(second, "198.51.100.2"), "101", 3), 0);
    const char *response = upgrade_through_proxy(third, "9.9.9.9, 198.51.100.1");
    ck_assert_int_eq(strncmp(response, "429", 3), 0);
    ck_assert_ptr_nonnull(strcasestr(response, "\r\nretry-after: 1\r\n"));
    ws_client_close(&third);
    leave(first);
    leave(second);
}

START_TEST(clients_behind_a_trusted_proxy)
{
    options.tls = false;
    options.trusted_proxies = &loopback_proxies;
    options.connections_per_address = 1;
    run(script_forwarded);
}
END_TEST

/* The proxy adds a line of its own, as HAProxy does; the client had sent as many as it liked. */
static void script_forwarded_lines(void)
{
    struct ws_client *first = ws_client_dial(front_port(front)), *second = ws_client_dial(front_port(front));
    char lines[2][20 * 36 + 64];
    for (int i = 0; i < 2; i++) {
        size_t size = 0;
        for (int n = 0; n < 20; n++)
            size += (size_t)snprintf(lines[i] + size, sizeof(lines[i]) - size, "X-Forwarded-For: 203.0.113.%d\r\n", i);
        snprintf(lines[i] + size, sizeof(lines[i]) - size, "X-Forwarded-For: 198.51.100.1\r\n");
    }
    const char *response = ws_client_request(first, ws_client_upgrade_request("/v1/connect", JSON, lines[0]));
    ck_assert_int_eq(strncmp(response + 9, "101", 3), 0);
    response = ws_client_request(second, ws_client_upgrade_request("/v1/connect", JSON, lines[1]));
    ck_assert_int_eq(strncmp(response + 9, "429", 3), 0);
    ws_client_close(&second);
    leave(first);
}

START_TEST(a_client_cannot_bury_the_address_that_its_proxy_adds)
{
    options.tls = false;
    options.trusted_proxies = &loopback_proxies;
    options.connections_per_address = 1;
    run(script_forwarded_lines);
}
END_TEST

#define PROXY_FROM(last) "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64" last "\x7f\x00\x00\x01\x30\x39\x01\xbb"

static void script_proxy(void)
{
    struct ws_client *first = ws_client_dial(front_port(front)), *second = ws_client_dial(front_port(front)),
                     *third = ws_client_dial(front_port(front)), *bad = ws_client_dial(front_port(front));
    ws_client_write(first, PROXY_FROM("\x01"), 28);
    ck_assert(ws_client_handshake(first, client_tls, NULL));
    ws_client_upgrade(first, JSON);
    ws_client_write(second, PROXY_FROM("\x02"), 28);
    ck_assert(ws_client_handshake(second, client_tls, NULL));
    ws_client_upgrade(second, JSON);
    ws_client_write(third, PROXY_FROM("\x01"), 28);
    ck_assert(ws_client_at_end(third));
    ck_assert(!ws_client_handshake(bad, client_tls, NULL));
    ws_client_close(&third);
    ws_client_close(&bad);
    leave(first);
    leave(second);
}

START_TEST(proxy_protocol_before_tls)
{
    options.proxy_protocol = true;
    options.trusted_proxies = &loopback_proxies;
    options.connections_per_address = 1;
    run(script_proxy);
}
END_TEST

static void script_untrusted(void)
{
    struct ws_client *client = ws_client_dial(front_port(front));
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
}

START_TEST(proxy_protocol_from_a_stranger)
{
    static char block[] = "192.0.2.0/24";
    static char *values[] = {block};
    static const struct config_strings elsewhere = {values, 1};
    options.proxy_protocol = true;
    options.trusted_proxies = &elsewhere;
    run(script_untrusted);
}
END_TEST

/* --- TLS, reload, the end */

static SSL_SESSION *saved_session;

static void script_get_ticket(void)
{
    struct ws_client *client = join(JSON);
    ask(client, ASK_PONG);
    expect(client, TEXT, NULL);
    saved_session = SSL_get1_session(client->ssl);
    leave(client);
}

static void script_resume(void)
{
    struct ws_client *client = ws_client_connect(front_port(front), client_tls, saved_session);
    ck_assert_ptr_nonnull(client);
    ck_assert(SSL_session_reused(client->ssl));
    ws_client_upgrade(client, JSON);
    leave(client);
    SSL_SESSION_free(saved_session);
}

START_TEST(ticket_is_good_at_another_gateway)
{
    SSL_CTX_set_max_proto_version(client_tls, _i == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
    run(script_get_ticket);
    front_close(&front);
    uint64_t before = metric_value_at(M_TLS_HANDSHAKES, 1);
    run(script_resume);
    ck_assert_uint_eq(metric_value_at(M_TLS_HANDSHAKES, 1), before + 1);
}
END_TEST

static bool ticket_is_taken;

static void script_resume_after_rotation(void)
{
    struct ws_client *client = ws_client_connect(front_port(front), client_tls, saved_session);
    ck_assert_ptr_nonnull(client);
    ck_assert_int_eq(SSL_session_reused(client->ssl), ticket_is_taken);
    ws_client_upgrade(client, JSON);
    leave(client);
    SSL_SESSION_free(saved_session);
}

START_TEST(tickets_outlive_the_rotation_of_the_secret_by_one)
{
    options.ticket_secret = "the secret of yesterday, of some length";
    run(script_get_ticket);
    front_close(&front);
    options.ticket_secret = "the secret of today, of some length";
    options.previous_ticket_secret = "the secret of yesterday, of some length";
    ticket_is_taken = true;
    run(script_resume_after_rotation);
    run(script_get_ticket); /* the new secret's */
    options.previous_ticket_secret = NULL;
    ck_assert_int_eq(front_reload(front, &options, front_error, sizeof(front_error)), 0); /* SIGHUP */
    run(script_resume_after_rotation);
    run(script_get_ticket);
    options.ticket_secret = "the secret of tomorrow, of some length";
    ck_assert_int_eq(front_reload(front, &options, front_error, sizeof(front_error)), 0);
    ticket_is_taken = false; /* a whole handshake, and nothing worse */
    run(script_resume_after_rotation);
}
END_TEST

enum { STORM = 40 };

/* The last one is served when all have been accepted. */
static void script_storm(void)
{
    struct ws_client *clients[STORM - 1];
    for (int i = 0; i < STORM - 1; i++)
        clients[i] = ws_client_dial(front_port(front));
    leave(join(JSON));
    for (int i = 0; i < STORM - 1; i++)
        ws_client_close(&clients[i]);
}

START_TEST(a_storm_waits_to_be_accepted)
{
    options.handshakes_per_s = 50; /* 21 at once */
    uint64_t paused = metric_value_at(M_ACCEPT_PAUSES, 2), accepted = metric_value_at(M_ACCEPTS, 0);
    int64_t began_ms = clock_mono_ms();
    run(script_storm);
    ck_assert_int_ge(clock_mono_ms() - began_ms, 1000 * (STORM - 21) / 50 - 20);
    ck_assert_uint_gt(metric_value_at(M_ACCEPT_PAUSES, 2), paused);
    ck_assert_uint_eq(metric_value_at(M_ACCEPTS, 0), accepted + STORM);
}
END_TEST

static void script_not_tls(void)
{
    struct ws_client *client = ws_client_dial(front_port(front));
    ws_client_write(client, "GET / HTTP/1.1\r\n\r\n", 18);
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
    SSL_CTX_set_max_proto_version(client_tls, TLS1_1_VERSION);
    ck_assert_ptr_null(ws_client_connect(front_port(front), client_tls, NULL));
}

START_TEST(handshakes_that_fail_are_counted)
{
    uint64_t before = metric_value_at(M_TLS_HANDSHAKES, 2);
    run(script_not_tls);
    ck_assert_uint_ge(metric_value_at(M_TLS_HANDSHAKES, 2), before + 1);
}
END_TEST

START_TEST(reload_keeps_what_works)
{
    struct front_options changed = options;
    open_front();
    changed.key_file = "/nonexistent/key.pem";
    ck_assert_int_eq(front_reload(front, &changed, front_error, sizeof(front_error)), -1);
    ck_assert_ptr_nonnull(strstr(front_error, "tls.key_file /nonexistent/key.pem: No such file"));
    run(script_get_ticket);
    SSL_SESSION_free(saved_session);
    ck_assert_int_eq(front_reload(front, &options, front_error, sizeof(front_error)), 0);
    run(script_get_ticket);
    SSL_SESSION_free(saved_session);
}
END_TEST

START_TEST(open_says_what_is_wrong)
{
    static char block[] = "10.0.0.0/99";
    static char *bad_values[] = {block};
    static const struct config_strings bad = {bad_values, 1};
    options.trusted_proxies = &bad;
    ck_assert_ptr_null(front_open(loop, &options, NULL, front_error, sizeof(front_error)));
    ck_assert_ptr_nonnull(strstr(front_error, "proxy.trusted: \"10.0.0.0/99\""));
    options.trusted_proxies = NULL;
    options.proxy_protocol = true;
    ck_assert_ptr_null(front_open(loop, &options, NULL, front_error, sizeof(front_error)));
    ck_assert_ptr_nonnull(strstr(front_error, "proxy.trusted is empty"));
    options.proxy_protocol = false;
    options.listen = "localhost";
    ck_assert_ptr_null(front_open(loop, &options, NULL, front_error, sizeof(front_error)));
    ck_assert_ptr_nonnull(strstr(front_error, "client.listen localhost: not an address"));
}
END_TEST

static struct ws_client *kept[3];

static void script_stay(void)
{
    kept[0] = join(JSON);
    kept[1] = ws_client_connect(front_port(front), client_tls, NULL);
    kept[2] = ws_client_dial(front_port(front));
    recorded.gone = recorded.opened; /* run() does not wait for them */
}

START_TEST(close_says_going_away)
{
    run(script_stay);
    recorded.gone = 0;
    ck_assert_uint_eq(front_connections(front), 1);
    front_close(&front);
    ck_assert_uint_eq(recorded.gone, 1);
    ck_assert_int_eq(ws_client_close_code(kept[0]), 1001);
    for (int i = 0; i < 3; i++)
        ws_client_close(&kept[i]);
}
END_TEST

static void add_tests(TCase *tcase)
{
    tcase_add_test(tcase, refusals_before_the_upgrade);
    tcase_add_test(tcase, token_with_the_upgrade);
    tcase_add_test(tcase, leave_and_demo_token);
    tcase_add_test(tcase, files_from_the_web_root_alone);
    tcase_add_test(tcase, connections_per_address);
    tcase_add_test(tcase, handshakes_per_address);
    tcase_add_test(tcase, clients_behind_a_trusted_proxy);
    tcase_add_test(tcase, a_client_cannot_bury_the_address_that_its_proxy_adds);
    tcase_add_test(tcase, proxy_protocol_before_tls);
    tcase_add_test(tcase, proxy_protocol_from_a_stranger);
    tcase_add_loop_test(tcase, ticket_is_good_at_another_gateway, 0, 2);
    tcase_add_test(tcase, tickets_outlive_the_rotation_of_the_secret_by_one);
    tcase_add_test(tcase, a_storm_waits_to_be_accepted);
    tcase_add_test(tcase, handshakes_that_fail_are_counted);
    tcase_add_test(tcase, reload_keeps_what_works);
    tcase_add_test(tcase, open_says_what_is_wrong);
    tcase_add_test(tcase, close_says_going_away);
}

int main(void)
{
    return run_suite("front_edge", add_tests);
}
