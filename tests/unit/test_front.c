/* The clients' listener over real sockets, TLS included, against a gateway that only records and echoes. Each test's
 * client runs in a thread of its own while the loop runs in the main one. */
#include "gateway/front.h"

#include "common/mem.h"
#include "common/metrics.h"
#include "ws_client.h"
#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { QUEUE_BYTES = 65536, MESSAGE_BYTES = 4096 };
#define JSON "signalbox.v1.json"
#define PROTOBUF "signalbox.v1.protobuf"

/* --- The gateway: what a client asks for by its request_id */

enum { ASK_PONG = 1, ASK_CLOSE, ASK_MEMBERSHIP, ASK_NEGOTIATION, ASK_FIVE };

struct client {
    void *transport;
};

static struct loop *loop;
static struct front *front;
static bool ready;
static unsigned opened, gone, gone_clean, malformed, overflow_membership, overflow_ephemeral, messages, left;
static char last_token[256];

static bool refuse(struct refusal *ret_refusal, int status, Signalbox__V1__Code code, const char *detail)
{
    *ret_refusal = (struct refusal){.http_status = status, .code = code, .retry_after_ms = 2500};
    snprintf(ret_refusal->detail, sizeof(ret_refusal->detail), "%s", detail);
    return false;
}

bool gateway_check_token(struct gateway *gateway, const char *token, size_t size, const char *room,
                         struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    snprintf(last_token, sizeof(last_token), "%.*s", (int)size, token);
    if (strncmp(last_token, "good", 4) != 0)
        return refuse(ret_refusal, 401, SIGNALBOX__V1__CODE__UNAUTHENTICATED, "cut \xc3");
    *ret_claims = (struct jwt_claims){.name = mem_strdup("somebody"), .expires_s = INT64_MAX};
    strcpy(ret_claims->key_id, "demo-key");
    strcpy(ret_claims->video.room, "party");
    return true;
}

bool gateway_ready(const struct gateway *gateway, struct refusal *ret_refusal)
{
    return ready || refuse(ret_refusal, 503, SIGNALBOX__V1__CODE__UNAVAILABLE, "no view yet");
}

struct client *gateway_client_open(struct gateway *gateway, void *transport, struct jwt_claims *take_claims,
                                   int64_t now_ms)
{
    struct client *client = mem_new(struct client);
    client->transport = transport;
    if (take_claims != NULL)
        jwt_claims_done(take_claims);
    free(take_claims);
    opened++;
    return client;
}

static void send_pong(struct client *client, size_t padding, enum message_class class)
{
    Signalbox__V1__Result result = SIGNALBOX__V1__RESULT__INIT;
    Signalbox__V1__ServerMessage server = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    char *text = mem_zalloc(padding + 1);
    memset(text, 'x', padding);
    result.message = text;
    server.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_RESULT;
    server.result = &result;
    struct outmsg *message = outmsg_pack(&server);
    front_send(client->transport, message, class);
    outmsg_unref(&message);
    free(text);
}

void gateway_client_message(struct gateway *gateway, struct client *client, const Signalbox__V1__ClientMessage *message,
                            size_t size, int64_t now_ms)
{
    messages++;
    switch (message->request_id) {
    case ASK_PONG:
        send_pong(client, 0, CLASS_CONTROL);
        break;
    case ASK_CLOSE:
        send_pong(client, 0, CLASS_CONTROL);
        front_close_client(client->transport, CLOSE_SESSION_GONE, "bye");
        break;
    case ASK_MEMBERSHIP:
        send_pong(client, 1000, CLASS_EPHEMERAL);
        for (int i = 0; i < 40; i++)
            send_pong(client, 1000, CLASS_MEMBERSHIP);
        break;
    case ASK_NEGOTIATION:
        for (int i = 0; i < 100; i++)
            send_pong(client, 1000, CLASS_NEGOTIATION);
        break;
    case ASK_FIVE:
        for (int i = 0; i < 5; i++)
            send_pong(client, 10, CLASS_CONTROL);
        break;
    }
}

void gateway_client_malformed(struct gateway *gateway, struct client *client, const char *error, int64_t now_ms)
{
    malformed++;
    send_pong(client, 0, CLASS_CONTROL);
}

void gateway_client_overflow(struct gateway *gateway, struct client *client, uint32_t dropped_membership,
                             uint32_t dropped_ephemeral, int64_t now_ms)
{
    overflow_membership += dropped_membership;
    overflow_ephemeral += dropped_ephemeral;
    send_pong(client, 3, CLASS_MEMBERSHIP);
}

void gateway_client_gone(struct gateway *gateway, struct client **client, bool clean, int64_t now_ms)
{
    ck_assert_ptr_nonnull(*client);
    free(*client);
    *client = NULL;
    gone++;
    gone_clean += clean;
    loop_stop(loop);
}

bool gateway_leave_by_token(struct gateway *gateway, const char *token, size_t size, int64_t now_ms)
{
    left++;
    return size == 4 && memcmp(token, "good", 4) == 0;
}

/* --- Running */

static char directory[] = "/tmp/sbx_front_XXXXXX", certificate_file[64], key_file[64];
static struct front_options options;
static char app_origin[] = "https://app.example.com", loopback[] = "127.0.0.0/8";
static char *origin_values[] = {app_origin}, *proxy_values[] = {loopback};
static const struct config_strings origins = {origin_values, 1}, proxies = {proxy_values, 1};
static const struct front_demo_key demo_key = {"demo-key", "a secret of at least thirty-two bytes"};
static SSL_CTX *client_tls;
static char error[512];

static void write_file(const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    ck_assert(file != NULL && fputs(text, file) >= 0);
    fclose(file);
}

/* Once for the program: its files. */
static void make_files(void)
{
    char path[128];
    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(certificate_file, sizeof(certificate_file), "%s/cert.pem", directory);
    snprintf(key_file, sizeof(key_file), "%s/key.pem", directory);
    ws_client_make_certificate(certificate_file, key_file);
    snprintf(path, sizeof(path), "%s/sdk", directory);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    snprintf(path, sizeof(path), "%s/demo", directory);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    write_file("sdk/signalbox.js", "export {};\n");
    write_file("sdk/signalbox.d.ts", "export {};\n");
    write_file("demo/index.html", "<!doctype html>\n");
}

static void remove_files(void)
{
    static const char *const names[] = {
        "sdk/signalbox.js", "sdk/signalbox.d.ts", "demo/index.html", "sdk", "demo", "cert.pem", "key.pem", ""};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        remove(path);
    }
}

static void setup(void)
{
    opened = gone = gone_clean = malformed = overflow_membership = overflow_ephemeral = messages = left = 0;
    ready = true;
    options = (struct front_options){
        .listen = "127.0.0.1:0",
        .web_root = directory,
        .tls = true,
        .certificate_file = certificate_file,
        .key_file = key_file,
        .ticket_secret = "a ticket secret",
        .allowed_origins = &origins,
        .max_connections = 100,
        .message_bytes = MESSAGE_BYTES,
        .queue_bytes = QUEUE_BYTES,
        .ping_interval_ms = 60000,
        .ping_timeout_ms = 60000,
        .demo = true,
        .demo_keys = &demo_key,
        .demo_key_count = 1,
    };
    loop = loop_new();
    client_tls = SSL_CTX_new(TLS_client_method());
}

static void open_front(void)
{
    front = front_open(loop, &options, NULL, error, sizeof(error));
    ck_assert_msg(front != NULL, "%s", error);
}

static void teardown(void)
{
    front_close(&front);
    ck_assert_uint_eq(opened, gone);
    loop_free(&loop);
    SSL_CTX_free(client_tls);
}

static bool script_done;

static void *run_script(void *script)
{
    (*(void (*const *)(void))script)();
    __atomic_store_n(&script_done, true, __ATOMIC_RELEASE);
    loop_stop(loop);
    return NULL;
}

/* Runs a client's script, then the loop until every client is known to be gone. */
static void run(void (*script)(void))
{
    pthread_t thread;
    if (front == NULL)
        open_front();
    script_done = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_script, &script), 0);
    while (!__atomic_load_n(&script_done, __ATOMIC_ACQUIRE) || opened != gone)
        loop_run(loop);
    pthread_join(thread, NULL);
}

static struct ws_client *join(const char *subprotocol)
{
    struct ws_client *client = ws_client_connect(front_port(front), options.tls ? client_tls : NULL, NULL);
    ck_assert_ptr_nonnull(client);
    ws_client_upgrade(client, subprotocol);
    return client;
}

static void ask(struct ws_client *client, int what)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "{\"requestId\":%d,\"ping\":{}}", what);
    ws_client_send(client, TEXT, text, (size_t)size);
}

static void expect(struct ws_client *client, int opcode, const char *text)
{
    uint8_t data[65536];
    size_t size;
    ck_assert_int_eq(ws_client_receive(client, data, sizeof(data), &size), opcode);
    if (text != NULL)
        ck_assert_str_eq((const char *)data, text);
}

static void leave(struct ws_client *client)
{
    ws_client_send(client, CLOSE, "\x03\xe8", 2);
    ck_assert_int_eq(ws_client_close_code(client), 1000);
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
}

static void expect_status(const char *request, const char *status, const char *contains)
{
    struct ws_client *client = ws_client_connect(front_port(front), options.tls ? client_tls : NULL, NULL);
    const char *response = ws_client_request(client, request);
    ck_assert_msg(strncmp(response + 9, status, 3) == 0, "expected %s, got: %s", status, response);
    ck_assert_msg(strcasestr(response, contains) != NULL, "expected %s, got: %s", contains, response);
    ws_client_close(&client);
}

/* --- Messages */

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
    ck_assert_uint_eq(messages, 2);
    ck_assert_uint_eq(malformed, 1);
    ck_assert_uint_eq(gone_clean, 2);
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
    ck_assert_uint_eq(gone_clean, 1);
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
    ck_assert_uint_eq(gone, 4);
    ck_assert_uint_eq(gone_clean, 0);
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
    ck_assert_uint_eq(gone, 6);
    ck_assert_uint_eq(messages + malformed + gone_clean, 0);
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
    ck_assert_uint_eq(gone_clean, 0);
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
    ck_assert_uint_eq(overflow_membership, 32);
    ck_assert_uint_eq(overflow_ephemeral, 0);
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
    ck_assert_uint_eq(gone_clean, 1);
}
END_TEST

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
    ready = false;
    expect_status(ws_client_upgrade_request(path, JSON, ""), "503", "\r\nretry-after: 3\r\n");
}

START_TEST(refusals_before_the_upgrade)
{
    uint64_t before = metric_value_at(M_UPGRADES, WS_HANDSHAKE_ORIGIN);
    run(script_refusals);
    ck_assert_uint_eq(opened, 0);
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
        ck_assert_str_eq(last_token, expected);
        leave(client);
    }
}

START_TEST(token_with_the_upgrade)
{
    run(script_tokens);
    ck_assert_uint_eq(opened, 3);
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
    ck_assert_uint_eq(left, 2);
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
    options.trusted_proxies = &proxies;
    options.connections_per_address = 1;
    run(script_forwarded);
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
    options.trusted_proxies = &proxies;
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
    ck_assert_int_eq(front_reload(front, &changed, error, sizeof(error)), -1);
    ck_assert_ptr_nonnull(strstr(error, "tls.key_file /nonexistent/key.pem: No such file"));
    run(script_get_ticket);
    SSL_SESSION_free(saved_session);
    ck_assert_int_eq(front_reload(front, &options, error, sizeof(error)), 0);
    run(script_echo);
}
END_TEST

START_TEST(open_says_what_is_wrong)
{
    static char block[] = "10.0.0.0/99";
    static char *bad_values[] = {block};
    static const struct config_strings bad = {bad_values, 1};
    options.trusted_proxies = &bad;
    ck_assert_ptr_null(front_open(loop, &options, NULL, error, sizeof(error)));
    ck_assert_ptr_nonnull(strstr(error, "client.trusted_proxies \"10.0.0.0/99\""));
    options.trusted_proxies = NULL;
    options.proxy_protocol = true;
    ck_assert_ptr_null(front_open(loop, &options, NULL, error, sizeof(error)));
    ck_assert_ptr_nonnull(strstr(error, "client.trusted_proxies is empty"));
    options.proxy_protocol = false;
    options.listen = "localhost";
    ck_assert_ptr_null(front_open(loop, &options, NULL, error, sizeof(error)));
    ck_assert_ptr_nonnull(strstr(error, "client.listen localhost: not an address"));
}
END_TEST

static struct ws_client *kept[3];

static void script_stay(void)
{
    kept[0] = join(JSON);
    kept[1] = ws_client_connect(front_port(front), client_tls, NULL);
    kept[2] = ws_client_dial(front_port(front));
    gone = opened; /* run() does not wait for them */
}

START_TEST(close_says_going_away)
{
    run(script_stay);
    gone = 0;
    ck_assert_uint_eq(front_connections(front), 1);
    front_close(&front);
    ck_assert_uint_eq(gone, 1);
    ck_assert_int_eq(ws_client_close_code(kept[0]), 1001);
    for (int i = 0; i < 3; i++)
        ws_client_close(&kept[i]);
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
    tcase_add_test(tcase, membership_overflow_is_told);
    tcase_add_test(tcase, what_must_not_drop_closes_as_slow);
    tcase_add_test(tcase, reading_stops_while_too_much_waits);
    tcase_add_test(tcase, refusals_before_the_upgrade);
    tcase_add_test(tcase, token_with_the_upgrade);
    tcase_add_test(tcase, leave_and_demo_token);
    tcase_add_test(tcase, files_from_the_web_root_alone);
    tcase_add_test(tcase, connections_per_address);
    tcase_add_test(tcase, handshakes_per_address);
    tcase_add_test(tcase, clients_behind_a_trusted_proxy);
    tcase_add_test(tcase, proxy_protocol_before_tls);
    tcase_add_test(tcase, proxy_protocol_from_a_stranger);
    tcase_add_loop_test(tcase, ticket_is_good_at_another_gateway, 0, 2);
    tcase_add_test(tcase, handshakes_that_fail_are_counted);
    tcase_add_test(tcase, reload_keeps_what_works);
    tcase_add_test(tcase, open_says_what_is_wrong);
    tcase_add_test(tcase, close_says_going_away);
}

int main(void)
{
    Suite *suite = suite_create("front");
    TCase *tcase = tcase_create("front");
    tcase_add_unchecked_fixture(tcase, make_files, remove_files);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_set_timeout(tcase, 60);
    add_tests(tcase);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
