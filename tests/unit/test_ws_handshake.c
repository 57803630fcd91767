#include "gateway/ws_handshake.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 16 };

/* A request to be varied: names and values in turn, ended by NULL. */
struct fixture {
    const char *method;
    int http_version;
    const char *headers[2 * HEADERS_MAX + 1];
};

/* The example of RFC 6455 section 1.3, as a browser of ours would send it. */
static const struct fixture good = {
    .method = "GET",
    .http_version = 0x101,
    .headers = {"Host", "server.example.com", "Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Key",
                "dGhlIHNhbXBsZSBub25jZQ==", "Origin", "https://app.example.com", "Sec-WebSocket-Protocol",
                "signalbox.v1.protobuf", "Sec-WebSocket-Version", "13"},
};

static char app_origin[] = "https://app.example.com";
static char *origin_values[] = {app_origin};
static const struct config_strings origins = {.values = origin_values, .count = 1};

static struct ws_slice slice(const char *text)
{
    return (struct ws_slice){text, strlen(text)};
}

static enum ws_handshake_result check_against(const struct fixture *fixture, const struct config_strings *allowed,
                                              struct ws_handshake *ret_handshake)
{
    struct ws_request_header headers[HEADERS_MAX];
    struct ws_request request = {
        .method = slice(fixture->method), .http_version = fixture->http_version, .headers = headers};

    for (size_t i = 0; fixture->headers[i]; i += 2)
        headers[request.header_count++] =
            (struct ws_request_header){slice(fixture->headers[i]), slice(fixture->headers[i + 1])};
    return ws_handshake_check(&request, allowed, ret_handshake);
}

static enum ws_handshake_result check(const struct fixture *fixture)
{
    struct ws_handshake handshake;
    return check_against(fixture, &origins, &handshake);
}

/* Replaces the header's value; NULL takes the header out. */
static struct fixture with(const char *name, const char *value)
{
    struct fixture fixture = {.method = good.method, .http_version = good.http_version};
    size_t count = 0;
    for (size_t i = 0; good.headers[i]; i += 2) {
        bool same = strcmp(good.headers[i], name) == 0;
        if (same && !value)
            continue;
        fixture.headers[count++] = good.headers[i];
        fixture.headers[count++] = same ? value : good.headers[i + 1];
    }
    return fixture;
}

static struct fixture with_another(const char *name, const char *value)
{
    struct fixture fixture = good;
    size_t count = 0;
    while (fixture.headers[count])
        count++;
    fixture.headers[count++] = name;
    fixture.headers[count] = value;
    return fixture;
}

static enum ws_handshake_result check_with(const char *name, const char *value)
{
    struct fixture fixture = with(name, value);
    return check(&fixture);
}

static enum ws_handshake_result check_with_another(const char *name, const char *value)
{
    struct fixture fixture = with_another(name, value);
    return check(&fixture);
}

START_TEST(accepts_the_example_of_the_rfc)
{
    struct ws_handshake handshake;
    ck_assert_int_eq(check_against(&good, &origins, &handshake), WS_HANDSHAKE_OK);
    ck_assert_str_eq(handshake.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    ck_assert_int_eq(handshake.subprotocol, WS_SUBPROTOCOL_PROTOBUF);
    ck_assert_uint_eq(handshake.token.size, 0);
}
END_TEST

START_TEST(method_and_version)
{
    struct fixture fixture = good;
    fixture.method = "POST";
    ck_assert_int_eq(check(&fixture), WS_HANDSHAKE_METHOD);
    fixture.method = "get";
    ck_assert_int_eq(check(&fixture), WS_HANDSHAKE_METHOD);
    fixture = good;
    fixture.http_version = 0x100;
    ck_assert_int_eq(check(&fixture), WS_HANDSHAKE_HTTP_VERSION);
}
END_TEST

START_TEST(upgrade_and_connection_are_lists)
{
    ck_assert_int_eq(check_with("Upgrade", "h2c , WebSocket"), WS_HANDSHAKE_OK);
    ck_assert_int_eq(check_with("Connection", "keep-alive,\tUPGRADE ,"), WS_HANDSHAKE_OK);
    ck_assert_int_eq(check_with("Upgrade", NULL), WS_HANDSHAKE_NOT_AN_UPGRADE);
    ck_assert_int_eq(check_with("Upgrade", "websockets"), WS_HANDSHAKE_NOT_AN_UPGRADE);
    ck_assert_int_eq(check_with("Upgrade", ""), WS_HANDSHAKE_NOT_AN_UPGRADE);
    ck_assert_int_eq(check_with("Connection", NULL), WS_HANDSHAKE_NOT_AN_UPGRADE);
    ck_assert_int_eq(check_with("Connection", "keep-alive"), WS_HANDSHAKE_NOT_AN_UPGRADE);

    struct fixture fixture = with("Connection", "keep-alive");
    size_t count = 0;
    while (fixture.headers[count])
        count++;
    fixture.headers[count] = "connection";
    fixture.headers[count + 1] = "upgrade";
    ck_assert_int_eq(check(&fixture), WS_HANDSHAKE_OK);
}
END_TEST

START_TEST(websocket_version)
{
    ck_assert_int_eq(check_with("Sec-WebSocket-Version", NULL), WS_HANDSHAKE_WS_VERSION);
    ck_assert_int_eq(check_with("Sec-WebSocket-Version", "8"), WS_HANDSHAKE_WS_VERSION);
    ck_assert_int_eq(check_with("Sec-WebSocket-Version", "13, 8"), WS_HANDSHAKE_WS_VERSION);
    ck_assert_int_eq(check_with("Sec-WebSocket-Version", " 13 "), WS_HANDSHAKE_OK);
    ck_assert_int_eq(check_with_another("Sec-WebSocket-Version", "13"), WS_HANDSHAKE_WS_VERSION);
}
END_TEST

START_TEST(key_is_sixteen_bytes)
{
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", NULL), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", ""), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25j"), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWE="), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZWFh"), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub2-jZQ=="), WS_HANDSHAKE_KEY);
    ck_assert_int_eq(check_with("Sec-WebSocket-Key", "+/hlIHNhbXBsZSBub25jZQ=="), WS_HANDSHAKE_OK);
    ck_assert_int_eq(check_with_another("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), WS_HANDSHAKE_KEY);
}
END_TEST

static bool allowed(const char *pattern, const char *origin)
{
    char first[] = "https://first.example.org";
    char *values[] = {first, (char *)(uintptr_t)pattern};
    const struct config_strings list = {.values = values, .count = 2};
    struct fixture fixture = with("Origin", origin);
    struct ws_handshake handshake;
    enum ws_handshake_result result = check_against(&fixture, &list, &handshake);
    ck_assert(result == WS_HANDSHAKE_OK || result == WS_HANDSHAKE_ORIGIN);
    return result == WS_HANDSHAKE_OK;
}

START_TEST(origins_are_held_against_the_list)
{
    static const struct {
        const char *pattern, *origin;
        bool allowed;
    } cases[] = {
        {"*", "https://anything.test:1234", true},
        {"*", "null", true},
        {"https://a.test", "https://a.test", true},
        {"https://a.test", "HTTPS://A.Test", true},
        {"https://a.test", "https://first.example.org", true},
        {"https://a.test", "http://a.test", false},
        {"https://a.test", "https://b.a.test", false},
        {"https://a.test", "https://a.test.evil.test", false},
        {"https://a.test", "https://a.test:443", true},
        {"https://a.test:443", "https://a.test", true},
        {"http://a.test:80", "http://a.test", true},
        {"https://a.test", "https://a.test:80", false},
        {"https://a.test", "https://a.test:8443", false},
        {"https://a.test:8443", "https://a.test:8443", true},
        {"https://a.test:8443", "https://a.test", false},
        {"http://[::1]:8080", "http://[::1]:8080", true},
        {"http://[::1]", "http://[::1]", true},
        {"https://a.test", "null", false},
        {"https://a.test", "", false},
        {"https://a.test", "a.test", false},
        {"https://a.test", "https://a.test/", false},
        {"https://a.test", "https://a.test, https://a.test", false},
        {"https://*.a.test", "https://b.a.test", true},
        {"https://*.a.test", "https://c.B.a.test", true},
        {"https://*.a.test", "https://a.test", false},
        {"https://*.a.test", "https://.a.test", false},
        {"https://*.a.test", "https://evila.test", false},
        {"https://*.a.test", "http://b.a.test", false},
        {"https://*.a.test", "https://b.a.test:8443", false},
        {"https://*.a.test:8443", "https://b.a.test:8443", true},
        {"https://*.a.test", "https://evil.test/.a.test", false},
        {"https://*.a.test", "https://evil.test#.a.test", false},
        {"https://*.a.test", "https://user@b.a.test", false},
        {"https://*.a.test", "https://*.a.test", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        ck_assert_msg(allowed(cases[i].pattern, cases[i].origin) == cases[i].allowed, "%s %s", cases[i].pattern,
                      cases[i].origin);
}
END_TEST

START_TEST(native_clients_send_no_origin)
{
    const struct config_strings none = {0};
    struct fixture fixture = with("Origin", NULL);
    struct ws_handshake handshake;
    ck_assert_int_eq(check_against(&fixture, &none, &handshake), WS_HANDSHAKE_OK);
    ck_assert_int_eq(check_against(&good, &none, &handshake), WS_HANDSHAKE_ORIGIN);
    ck_assert_int_eq(check_with_another("Origin", "https://app.example.com"), WS_HANDSHAKE_ORIGIN);
}
END_TEST

START_TEST(origin_patterns_are_checked)
{
    static const char *const right[] = {
        "*", "https://a", "https://*.a.test", "http://10.0.0.1:8080", "http://[::1]:1", "capacitor://localhost"};
    static const char *const wrong[] = {"",
                                        "a.test",
                                        "https://",
                                        "https://a.test/",
                                        "https://a.*.test",
                                        "https://*",
                                        "https://*.",
                                        "https://a:0",
                                        "https://a:65536",
                                        "https://a:",
                                        "://a.test",
                                        "https://a.test https://b.test",
                                        "https://[::1",
                                        "null"};
    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        ck_assert_msg(ws_origin_pattern_valid(right[i]), "%s", right[i]);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(!ws_origin_pattern_valid(wrong[i]), "%s", wrong[i]);
}
END_TEST

static void expect_subprotocols(const char *offer, enum ws_subprotocol subprotocol, const char *token)
{
    struct fixture fixture = with("Sec-WebSocket-Protocol", offer);
    struct ws_handshake handshake;
    ck_assert_int_eq(check_against(&fixture, &origins, &handshake), WS_HANDSHAKE_OK);
    ck_assert_int_eq(handshake.subprotocol, subprotocol);
    ck_assert_uint_eq(handshake.token.size, strlen(token));
    if (handshake.token.size > 0)
        ck_assert_mem_eq(handshake.token.data, token, handshake.token.size);
}

START_TEST(first_subprotocol_of_ours_is_chosen)
{
    expect_subprotocols("signalbox.v1.json", WS_SUBPROTOCOL_JSON, "");
    expect_subprotocols("signalbox.v2.protobuf, signalbox.v1.json,signalbox.v1.protobuf", WS_SUBPROTOCOL_JSON, "");
    expect_subprotocols("signalbox.v1.protobuf, signalbox.v1.json", WS_SUBPROTOCOL_PROTOBUF, "");
    expect_subprotocols("signalbox.v1.json, signalbox.token.eyJh.eyJz.c2_-", WS_SUBPROTOCOL_JSON, "eyJh.eyJz.c2_-");
    expect_subprotocols("signalbox.token.t,signalbox.v1.protobuf", WS_SUBPROTOCOL_PROTOBUF, "t");
    ck_assert_str_eq(ws_subprotocol_name(WS_SUBPROTOCOL_JSON), "signalbox.v1.json");
    ck_assert_str_eq(ws_subprotocol_name(WS_SUBPROTOCOL_PROTOBUF), "signalbox.v1.protobuf");
}
END_TEST

START_TEST(subprotocols_may_be_spread_over_lines)
{
    struct fixture fixture = with_another("Sec-WebSocket-Protocol", "signalbox.token.abc");
    struct ws_handshake handshake;
    ck_assert_int_eq(check_against(&fixture, &origins, &handshake), WS_HANDSHAKE_OK);
    ck_assert_uint_eq(handshake.token.size, 3);
    ck_assert_mem_eq(handshake.token.data, "abc", 3);
}
END_TEST

START_TEST(subprotocols_that_cannot_be_served)
{
    static const char name[] = "Sec-WebSocket-Protocol";
    ck_assert_int_eq(check_with(name, NULL), WS_HANDSHAKE_NO_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, ""), WS_HANDSHAKE_NO_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, "chat, SIGNALBOX.V1.JSON"), WS_HANDSHAKE_NO_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, "signalbox.token.abc"), WS_HANDSHAKE_NO_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, "signalbox.v1.json, signalbox.token."), WS_HANDSHAKE_BAD_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, "signalbox.v1.json, signalbox.token.a, signalbox.token.b"),
                     WS_HANDSHAKE_BAD_SUBPROTOCOL);
    ck_assert_int_eq(check_with(name, "signalbox.v1.json, signalbox.token.a b"), WS_HANDSHAKE_BAD_SUBPROTOCOL);
}
END_TEST

START_TEST(failure_leaves_the_result_alone)
{
    struct fixture fixture = with("Sec-WebSocket-Protocol", "signalbox.token.abc");
    struct ws_handshake handshake = {.accept = "untouched"};
    ck_assert_int_eq(check_against(&fixture, &origins, &handshake), WS_HANDSHAKE_NO_SUBPROTOCOL);
    ck_assert_str_eq(handshake.accept, "untouched");
    ck_assert_uint_eq(handshake.token.size, 0);
}
END_TEST

START_TEST(every_result_has_an_answer)
{
    static const unsigned statuses[] = {101, 405, 400, 426, 426, 400, 403, 400, 400};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        const struct ws_handshake_answer *answer = ws_handshake_answer((enum ws_handshake_result)i);
        ck_assert_uint_eq(answer->status, statuses[i]);
        ck_assert(answer->name[0] && answer->detail[0]);
    }
    const struct ws_handshake_answer *answer = ws_handshake_answer(WS_HANDSHAKE_WS_VERSION);
    ck_assert_str_eq(answer->header_name, "Sec-WebSocket-Version");
    ck_assert_str_eq(answer->header_value, "13");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ws_handshake");
    TCase *tcase = tcase_create("ws_handshake");
    tcase_add_test(tcase, accepts_the_example_of_the_rfc);
    tcase_add_test(tcase, method_and_version);
    tcase_add_test(tcase, upgrade_and_connection_are_lists);
    tcase_add_test(tcase, websocket_version);
    tcase_add_test(tcase, key_is_sixteen_bytes);
    tcase_add_test(tcase, origins_are_held_against_the_list);
    tcase_add_test(tcase, native_clients_send_no_origin);
    tcase_add_test(tcase, origin_patterns_are_checked);
    tcase_add_test(tcase, first_subprotocol_of_ours_is_chosen);
    tcase_add_test(tcase, subprotocols_may_be_spread_over_lines);
    tcase_add_test(tcase, subprotocols_that_cannot_be_served);
    tcase_add_test(tcase, failure_leaves_the_result_alone);
    tcase_add_test(tcase, every_result_has_an_answer);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
