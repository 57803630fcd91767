#include "front_fixture.h"

#include "common/mem.h"
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- The gateway: what a client asks for by its request_id */

struct client {
    void *transport;
};

struct recorded recorded;
bool gateway_is_ready, gateway_refuses_joins, gateway_is_full;
struct loop *loop;
struct front *front;

static bool refuse(struct refusal *ret_refusal, int status, Signalbox__V1__Code code, const char *detail)
{
    *ret_refusal = (struct refusal){.http_status = status, .code = code, .retry_after_ms = 2500};
    snprintf(ret_refusal->detail, sizeof(ret_refusal->detail), "%s", detail);
    return false;
}

bool gateway_check_token(struct gateway *gateway, const char *token, size_t size, const char *room,
                         struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    snprintf(recorded.token, sizeof(recorded.token), "%.*s", (int)size, token);
    if (strncmp(recorded.token, "good", 4) != 0)
        return refuse(ret_refusal, 401, SIGNALBOX__V1__CODE__UNAUTHENTICATED, "cut \xc3");
    *ret_claims = (struct jwt_claims){.name = mem_strdup("somebody"), .expires_s = INT64_MAX};
    strcpy(ret_claims->key_id, "demo-key");
    strcpy(ret_claims->video.room, "party");
    return true;
}

bool gateway_check_invite(struct gateway *gateway, const char *token, size_t size, const char *room,
                          struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    return gateway_check_token(gateway, token, size, room, ret_claims, ret_refusal);
}

bool gateway_ready(const struct gateway *gateway, struct refusal *ret_refusal)
{
    return gateway_is_ready || refuse(ret_refusal, 503, SIGNALBOX__V1__CODE__UNAVAILABLE, "no view yet");
}

bool gateway_admits(const struct gateway *gateway, struct refusal *ret_refusal)
{
    return !gateway_refuses_joins || refuse(ret_refusal, 503, SIGNALBOX__V1__CODE__NO_CAPACITY, "short of memory");
}

bool gateway_has_capacity(const struct gateway *gateway, const struct jwt_claims *claims, const char *room,
                          struct refusal *ret_refusal)
{
    return !gateway_is_full || refuse(ret_refusal, 503, SIGNALBOX__V1__CODE__NO_CAPACITY, "full");
}

struct client *gateway_client_open(struct gateway *gateway, void *transport, struct jwt_claims *take_claims,
                                   int64_t now_ms)
{
    struct client *client = mem_new(struct client);
    client->transport = transport;
    if (take_claims != NULL)
        jwt_claims_done(take_claims);
    free(take_claims);
    recorded.opened++;
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

bool gateway_client_message(struct gateway *gateway, struct client *client, const Signalbox__V1__ClientMessage *message,
                            size_t size, int64_t now_ms)
{
    recorded.messages++;
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
    case ASK_SHED:
        for (int i = 0; i < 4; i++) {
            send_pong(client, 1000, CLASS_EPHEMERAL);
            send_pong(client, 1000, CLASS_NEGOTIATION);
        }
        front_shed(front, SHED_JOINS, 1000, 1000);
        recorded.queued_at[SHED_JOINS] = front_queued_messages(front);
        front_shed(front, SHED_EPHEMERAL, 1000, 1000);
        recorded.queued_at[SHED_EPHEMERAL] = front_queued_messages(front);
        front_shed(front, SHED_SLOWEST, 1000, 1000);
        recorded.queued_at[SHED_SLOWEST] = front_queued_messages(front);
        break;
    case ASK_TOO_MUCH:
        send_pong(client, 0, CLASS_CONTROL);
        return false;
    }
    return true;
}

void gateway_client_malformed(struct gateway *gateway, struct client *client, const char *error, int64_t now_ms)
{
    recorded.malformed++;
    send_pong(client, 0, CLASS_CONTROL);
}

void gateway_client_overflow(struct gateway *gateway, struct client *client, uint32_t dropped_membership,
                             uint32_t dropped_ephemeral, int64_t now_ms)
{
    recorded.overflow_membership += dropped_membership;
    recorded.overflow_ephemeral += dropped_ephemeral;
    send_pong(client, 3, CLASS_MEMBERSHIP);
}

void gateway_client_gone(struct gateway *gateway, struct client **client, bool clean, int64_t now_ms)
{
    ck_assert_ptr_nonnull(*client);
    free(*client);
    *client = NULL;
    recorded.gone++;
    recorded.gone_clean += clean;
    loop_stop(loop);
}

bool gateway_leave_by_token(struct gateway *gateway, const char *token, size_t size, int64_t now_ms)
{
    recorded.left++;
    return size == 4 && memcmp(token, "good", 4) == 0;
}

/* --- Running */

static char directory[] = "/tmp/sbx_front_XXXXXX", certificate_file[64], key_file[64];
struct front_options options;
static char app_origin[] = "https://app.example.com", loopback[] = "127.0.0.0/8";
static char *origin_values[] = {app_origin}, *proxy_values[] = {loopback};
static const struct config_strings origins = {origin_values, 1};
const struct config_strings loopback_proxies = {proxy_values, 1};
static const struct front_demo_key demo_key = {"demo-key", "a secret of at least thirty-two bytes"};
SSL_CTX *client_tls;
char front_error[512];

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
    recorded = (struct recorded){0};
    gateway_is_ready = true;
    gateway_is_full = false;
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

void open_front(void)
{
    front = front_open(loop, &options, NULL, front_error, sizeof(front_error));
    ck_assert_msg(front != NULL, "%s", front_error);
}

static void teardown(void)
{
    front_close(&front);
    ck_assert_uint_eq(recorded.opened, recorded.gone);
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

void run(void (*script)(void))
{
    pthread_t thread;
    if (front == NULL)
        open_front();
    script_done = false;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_script, &script), 0);
    while (!__atomic_load_n(&script_done, __ATOMIC_ACQUIRE) || recorded.opened != recorded.gone)
        loop_run(loop);
    pthread_join(thread, NULL);
}

struct ws_client *join(const char *subprotocol)
{
    struct ws_client *client = ws_client_connect(front_port(front), options.tls ? client_tls : NULL, NULL);
    ck_assert_ptr_nonnull(client);
    ws_client_upgrade(client, subprotocol);
    return client;
}

void ask(struct ws_client *client, int what)
{
    char text[64];
    int size = snprintf(text, sizeof(text), "{\"requestId\":%d,\"ping\":{}}", what);
    ws_client_send(client, TEXT, text, (size_t)size);
}

void expect(struct ws_client *client, int opcode, const char *text)
{
    uint8_t data[65536];
    size_t size;
    ck_assert_int_eq(ws_client_receive(client, data, sizeof(data), &size), opcode);
    if (text != NULL)
        ck_assert_str_eq((const char *)data, text);
}

void leave(struct ws_client *client)
{
    ws_client_send(client, CLOSE, "\x03\xe8", 2);
    ck_assert_int_eq(ws_client_close_code(client), 1000);
    ck_assert(ws_client_at_end(client));
    ws_client_close(&client);
}

void expect_status(const char *request, const char *status, const char *contains)
{
    struct ws_client *client = ws_client_connect(front_port(front), options.tls ? client_tls : NULL, NULL);
    const char *response = ws_client_request(client, request);
    ck_assert_msg(strncmp(response + 9, status, 3) == 0, "expected %s, got: %s", status, response);
    ck_assert_msg(strcasestr(response, contains) != NULL, "expected %s, got: %s", contains, response);
    ws_client_close(&client);
}

int run_suite(const char *name, void (*add_tests)(TCase *tcase))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
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
