#include "common/admin_http.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct loop *loop;
static struct admin_http *admin;
static bool is_ready;
static int collected;
static char error[256];

static bool ready(void *ctx, char *reason, size_t size)
{
    ck_assert_ptr_eq(ctx, &is_ready);
    if (!is_ready)
        snprintf(reason, size, "no view yet");
    return is_ready;
}

static void collect(void *ctx)
{
    collected++;
    metric_set(M_BUS_UP, 1);
}

static const struct admin_http_handlers handlers = {.ready = ready, .collect = collect};

static void setup(void)
{
    loop = loop_new();
    admin = admin_http_open(loop, "127.0.0.1:0", TIER_GATEWAY, &handlers, &is_ready, error, sizeof(error));
    ck_assert_msg(admin != NULL, "%s", error);
    ck_assert_uint_ne(admin_http_port(admin), 0);
}

static void teardown(void)
{
    admin_http_close(&admin);
    ck_assert_ptr_null(admin);
    admin_http_close(&admin);
    loop_free(&loop);
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)admin_http_port(admin))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        abort();
    return fd;
}

struct exchange {
    const char *request;
    char response[65536];
};

/* The client's thread: sends, reads until the server closes, ends the loop. */
static void *talk(void *arg)
{
    struct exchange *exchange = arg;
    int fd = dial();
    size_t size = 0;
    if (send(fd, exchange->request, strlen(exchange->request), MSG_NOSIGNAL) < 0 && errno != EPIPE &&
        errno != ECONNRESET)
        abort();
    for (ssize_t n; size < sizeof(exchange->response) - 1 &&
                    (n = recv(fd, exchange->response + size, sizeof(exchange->response) - 1 - size, 0)) > 0;)
        size += (size_t)n;
    exchange->response[size] = '\0';
    close(fd);
    loop_stop(loop);
    return NULL;
}

static const char *ask(const char *request)
{
    static struct exchange exchange;
    exchange.request = request;
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, talk, &exchange), 0);
    loop_run(loop);
    pthread_join(thread, NULL);
    return exchange.response;
}

#define REQUEST(method, path) method " " path " HTTP/1.1\r\nHost: any.where\r\nConnection: close\r\n\r\n"

static void assert_starts(const char *response, const char *start)
{
    ck_assert_msg(strncmp(response, start, strlen(start)) == 0, "expected %s, got %s", start, response);
}

static const char *body(const char *response)
{
    const char *at = strstr(response, "\r\n\r\n");
    ck_assert_ptr_nonnull(at);
    return at + 4;
}

START_TEST(healthz)
{
    const char *response = ask(REQUEST("GET", "/healthz"));
    assert_starts(response, "HTTP/1.1 200 OK\r\n");
    ck_assert_str_eq(body(response), "ok\n");
    ck_assert_ptr_null(strcasestr(response, "\r\nserver:"));
    assert_starts(ask(REQUEST("GET", "/healthz?verbose=1")), "HTTP/1.1 200 OK\r\n");
}
END_TEST

START_TEST(readyz_says_why_not)
{
    is_ready = false;
    const char *response = ask(REQUEST("GET", "/readyz"));
    assert_starts(response, "HTTP/1.1 503 Service Unavailable\r\n");
    ck_assert_str_eq(body(response), "no view yet\n");
    is_ready = true;
    response = ask(REQUEST("GET", "/readyz"));
    assert_starts(response, "HTTP/1.1 200 OK\r\n");
    ck_assert_str_eq(body(response), "ready\n");
}
END_TEST

START_TEST(metrics_are_collected_first)
{
    collected = 0;
    metric_set(M_BUS_UP, 0);
    const char *response = ask(REQUEST("GET", "/metrics"));
    assert_starts(response, "HTTP/1.1 200 OK\r\n");
    ck_assert_ptr_nonnull(strcasestr(response, "\r\ncontent-type: text/plain; version=0.0.4"));
    ck_assert_ptr_nonnull(strstr(response, "\nsignalbox_bus_up 1\n"));
    ck_assert_int_eq(collected, 1);
}
END_TEST

START_TEST(head_has_no_body)
{
    const char *response = ask(REQUEST("HEAD", "/healthz"));
    assert_starts(response, "HTTP/1.1 200 OK\r\n");
    ck_assert_ptr_nonnull(strcasestr(response, "\r\ncontent-length: 3\r\n"));
    ck_assert_str_eq(body(response), "");
}
END_TEST

START_TEST(refuses_the_rest)
{
    assert_starts(ask(REQUEST("GET", "/")), "HTTP/1.1 404 Not Found\r\n");
    assert_starts(ask(REQUEST("GET", "/healthz/more")), "HTTP/1.1 404 Not Found\r\n");
    const char *response = ask(REQUEST("DELETE", "/healthz"));
    assert_starts(response, "HTTP/1.1 405 Method Not Allowed\r\n");
    ck_assert_ptr_nonnull(strcasestr(response, "\r\nallow: GET, HEAD\r\n"));
    assert_starts(ask("POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"),
                  "HTTP/1.1 405 ");
    assert_starts(ask("POST /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 99999\r\n\r\n"),
                  "HTTP/1.1 413 ");
    /* HTTP/2 is off: the preface is a bad request. */
    assert_starts(ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "HTTP/1.1 400 ");
}
END_TEST

START_TEST(serves_several_requests_on_one_connection)
{
    const char *response = ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" REQUEST("GET", "/nothing"));
    assert_starts(response, "HTTP/1.1 200 OK\r\n");
    ck_assert_ptr_nonnull(strstr(response, "ok\nHTTP/1.1 404 Not Found\r\n"));
}
END_TEST

START_TEST(closes_with_connections_open)
{
    int idle = dial(), halfway = dial(), kept = dial();
    ck_assert_int_gt(send(halfway, "GET /heal", 9, 0), 0);
    ck_assert_int_gt(send(kept, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 34, 0), 0);
    assert_starts(ask(REQUEST("GET", "/healthz")), "HTTP/1.1 200 OK\r\n");
    admin_http_close(&admin);
    char rest[1024];
    ck_assert_int_eq(recv(idle, rest, sizeof(rest), 0), 0);
    ck_assert_int_eq(recv(halfway, rest, sizeof(rest), 0), 0);
    ck_assert_int_gt(recv(kept, rest, sizeof(rest), 0), 0);
    ck_assert_int_eq(recv(kept, rest, sizeof(rest), 0), 0);
    close(idle);
    close(halfway);
    close(kept);
}
END_TEST

START_TEST(limits_connections)
{
    int fds[70];
    for (size_t i = 0; i < 60; i++)
        fds[i] = dial();
    assert_starts(ask(REQUEST("GET", "/healthz")), "HTTP/1.1 200 OK\r\n");
    for (size_t i = 60; i < 70; i++)
        fds[i] = dial();
    uint64_t refused = metric_value(M_ADMIN_REFUSED);
    ck_assert_str_eq(ask(REQUEST("GET", "/healthz")), "");
    ck_assert_uint_gt(metric_value(M_ADMIN_REFUSED), refused);
    for (size_t i = 0; i < 70; i++)
        close(fds[i]);
}
END_TEST

static void assert_refused(const char *listen, const char *text)
{
    ck_assert_ptr_null(admin_http_open(loop, listen, TIER_GATEWAY, &handlers, NULL, error, sizeof(error)));
    ck_assert_str_eq(error, text);
}

START_TEST(says_what_is_wrong_with_an_address)
{
    char listen[64], text[256];
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", admin_http_port(admin));
    snprintf(text, sizeof(text),
             "admin.listen %s: address already in use; choose another port or stop the process that has it", listen);
    assert_refused(listen, text);
    assert_refused("192.0.2.1:9090", "admin.listen 192.0.2.1:9090: this host has no such address; choose one of its "
                                     "own, or 0.0.0.0 for all");
    static const char *const malformed[] = {
        "",        "9090",  ":9090",      "127.0.0.1",     "127.0.0.1:",   "[::1]",     "::1:9090",
        "[::1:90", "[]:90", "host:99999", "127.0.0.1:80a", "127.0.0.1:-1", "1.2.3:4:5", "a.host:9090"};
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        snprintf(text, sizeof(text),
                 "admin.listen %s: not an address; write address:port, such as 127.0.0.1:9090 or [::1]:9090",
                 malformed[i]);
        assert_refused(malformed[i], text);
    }
}
END_TEST

START_TEST(listens_on_ipv6_and_reopens)
{
    unsigned port = admin_http_port(admin);
    assert_starts(ask(REQUEST("GET", "/healthz")), "HTTP/1.1 200 OK\r\n");
    admin_http_close(&admin);
    char listen[64];
    snprintf(listen, sizeof(listen), "127.0.0.1:%u", port);
    admin = admin_http_open(loop, listen, TIER_SHARD, &handlers, &is_ready, error, sizeof(error));
    ck_assert_msg(admin != NULL, "%s", error);
    assert_starts(ask(REQUEST("GET", "/healthz")), "HTTP/1.1 200 OK\r\n");
    struct admin_http *six = admin_http_open(loop, "[::1]:0", TIER_SHARD, &handlers, NULL, error, sizeof(error));
    /* A host without IPv6 says so; everything else is a failure. */
    if (six == NULL)
        ck_assert_ptr_null(strstr(error, "not an address;"));
    admin_http_close(&six);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("admin_http");
    TCase *tcase = tcase_create("admin_http");
    tcase_set_timeout(tcase, 30);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, healthz);
    tcase_add_test(tcase, readyz_says_why_not);
    tcase_add_test(tcase, metrics_are_collected_first);
    tcase_add_test(tcase, head_has_no_body);
    tcase_add_test(tcase, refuses_the_rest);
    tcase_add_test(tcase, serves_several_requests_on_one_connection);
    tcase_add_test(tcase, closes_with_connections_open);
    tcase_add_test(tcase, limits_connections);
    tcase_add_test(tcase, says_what_is_wrong_with_an_address);
    tcase_add_test(tcase, listens_on_ipv6_and_reopens);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
