#include "tests/load/fan.h"

#include "common/codec.h"
#include "common/jwt.h"
#include "common/list.h"
#include "common/mem.h"
#include "proto/client.pb-c.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MARK "SBXFAN:"
#define DIGITS "0123456789abcdef"
enum { MARK_SIZE = sizeof MARK - 1, TIME_DIGITS = 16, SENDER_DIGITS = 4, TOKEN_S = 3600 };

typedef Signalbox__V1__ClientMessage ClientMessage;
typedef Signalbox__V1__ServerMessage ServerMessage;

int64_t fan_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void send_message(struct fan_client *client, const ClientMessage *message)
{
    uint8_t bytes[FAN_PAYLOAD_MAX + 4096];
    size_t size = signalbox__v1__client_message__get_packed_size(message);
    assert(size <= sizeof bytes);
    signalbox__v1__client_message__pack(message, bytes);
    conn_send(&client->conn, bytes, size);
}

static void send_text(struct fan_client *client, const char *text)
{
    conn_send_text(&client->conn, text, strlen(text));
}

static void say_hello(struct fan_client *client)
{
    struct fan *fan = client->fan;
    char identity[32];
    ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    Signalbox__V1__Join join = SIGNALBOX__V1__JOIN__INIT;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    if (client->resume_token != NULL) {
        hello.resume_token = client->resume_token;
        send_message(client, &message);
        return;
    }
    snprintf(identity, sizeof identity, "fan-%u", client->number);
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:b, s:s}}", "iss", fan->key, "sub", identity, "exp",
                               (json_int_t)time(NULL) + TOKEN_S, "video", "roomJoin", 1, "room", client->room->name);
    char *token = jwt_mint(fan->secret, claims);
    json_decref(claims);
    join.room = client->room->name;
    hello.token = token;
    hello.join = &join;
    send_message(client, &message);
    free(token);
}

static void joined(struct fan_client *client)
{
    if (client->joined)
        return;
    client->joined = true;
    client->group->joined++;
    client->fan->joining--;
}

static void on_opened(struct conn *conn, bool tls_resumed)
{
    struct fan_client *client = container_of(conn, struct fan_client, conn);
    char text[128];
    switch (client->fan->dialect) {
    case FAN_SIGNALBOX:
    case FAN_CONTROL:
        say_hello(client);
        break;
    case FAN_WS:
        snprintf(text, sizeof text, "join %s", client->room->name);
        send_text(client, text);
        break;
    case FAN_SOCKETIO:
        break; /* the server begins */
    }
}

static void on_ended(struct conn *conn, enum conn_state before, int code)
{
    struct fan_client *client = container_of(conn, struct fan_client, conn);
    if (client->stalls) {
        if (client->joined)
            client->group->joined--;
        else
            client->fan->joining--;
        client->joined = false; /* it comes back when it reads again */
        return;
    }
    client->group->disconnects++;
    if (client->joined)
        client->group->joined--;
    else
        client->fan->joining--;
    client->joined = true; /* and gone: it does not come back */
}

/* --- what arrives --------------------------------------------------------------------------------------------------
 */

static uint64_t hex(const uint8_t *text, unsigned digits)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < digits; i++)
        value = value << 4 | (text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
    return value;
}

static void delivered(struct fan_client *client, int64_t sent_us, unsigned sender, int64_t now_us)
{
    struct fan_group *group = client->group;
    client->room->delivered++;
    if (!client->fan->measuring || client->stalls)
        return;
    group->deliveries++;
    histogram_record(&group->latency_us, now_us - sent_us);
    if (client->heard_us == NULL || sender >= group->senders)
        return;
    /* What came after the last one that was heard has waited since it was sent. */
    int64_t before_us = client->heard_us[sender];
    if (before_us != 0 && sent_us > before_us)
        histogram_record(&group->staleness_us, now_us - before_us - (int64_t)(1e6 / group->rate));
    client->heard_us[sender] = sent_us;
}

static void find_deliveries(struct fan_client *client, const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size, *at = data;
    int64_t now_us = 0;
    while ((at = memmem(at, (size_t)(end - at), MARK, MARK_SIZE)) != NULL) {
        if (end - at < FAN_PAYLOAD_MIN)
            return;
        if (now_us == 0)
            now_us = fan_now_us();
        at += MARK_SIZE;
        delivered(client, (int64_t)hex(at, TIME_DIGITS), (unsigned)hex(at + TIME_DIGITS, SENDER_DIGITS), now_us);
    }
}

static void pull_page(struct fan_client *client, char *cursor)
{
    ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    sync.cursor = cursor;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SYNC_STATE;
    message.sync_state = &sync;
    send_message(client, &message);
}

static void take_server_message(struct fan_client *client, const uint8_t *data, size_t size)
{
    char error[128];
    arena_reset(&client->fan->arena);
    const ServerMessage *message = (const ServerMessage *)codec_unpack(&signalbox__v1__server_message__descriptor, data,
                                                                       size, &client->fan->arena, error, sizeof error);
    if (message == NULL)
        return;
    switch (message->body_case) {
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_HELLO_OK:
        if (client->fan->dialect == FAN_CONTROL)
            joined(client);
        if (client->stalls) {
            free(client->resume_token);
            client->resume_token = mem_strdup(message->hello_ok->resume_token);
        }
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT:
        client->roster = (unsigned)message->snapshot->n_participants; /* rooms of those that stall fit a page */
        if (message->snapshot->next_cursor[0] != '\0')
            pull_page(client, message->snapshot->next_cursor);
        else
            joined(client);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_THROTTLED:
        client->group->throttled++;
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_DROPPED:
        client->group->dropped++;
        break;
    default:
        break;
    }
}

/* Room traffic is only searched, which costs a tenth of unpacking it: the tags of room_events, signals and message. */
static bool is_traffic(const uint8_t *data, size_t size)
{
    unsigned tag = size >= 2 ? (unsigned)data[0] << 8 | data[1] : 0;
    return tag == 0x9a03 || tag == 0xca02 || tag == 0xc202;
}

static void take_socketio(struct fan_client *client, const uint8_t *data, size_t size)
{
    char text[128];
    if (size >= 2 && data[0] == '4' && data[1] == '2') {
        find_deliveries(client, data, size);
        if (memmem(data, size, "\"joined\"", 8) != NULL)
            joined(client);
    } else if (size >= 2 && data[0] == '4' && data[1] == '0') {
        snprintf(text, sizeof text, "42[\"join\",\"%s\"]", client->room->name);
        send_text(client, text);
    } else if (size >= 1 && data[0] == '0') {
        send_text(client, "40");
    } else if (size >= 1 && data[0] == '2') {
        send_text(client, "3");
    }
}

static void on_message(struct conn *conn, const uint8_t *data, size_t size)
{
    struct fan_client *client = container_of(conn, struct fan_client, conn);
    if (client->fan->measuring)
        client->group->bytes_received += size;
    switch (client->fan->dialect) {
    case FAN_SIGNALBOX:
    case FAN_CONTROL:
        if (is_traffic(data, size))
            find_deliveries(client, data, size);
        else
            take_server_message(client, data, size);
        break;
    case FAN_WS:
        if (size == 6 && memcmp(data, "joined", 6) == 0)
            joined(client);
        else
            find_deliveries(client, data, size);
        break;
    case FAN_SOCKETIO:
        take_socketio(client, data, size);
        break;
    }
}

const struct conn_handlers fan_handlers = {.opened = on_opened, .message = on_message, .ended = on_ended};

/* --- what is sent --------------------------------------------------------------------------------------------------
 */

static size_t make_payload(const struct fan_client *client, char *payload)
{
    size_t size = client->group->bytes;
    memset(payload, 'x', size);
    char head[MARK_SIZE + TIME_DIGITS + SENDER_DIGITS + 1];
    snprintf(head, sizeof head, MARK "%016" PRIx64 "%04x", (uint64_t)fan_now_us(), client->number & 0xffff);
    memcpy(payload, head, sizeof head - 1);
    return size;
}

static void send_signalbox(struct fan_client *client, const char *payload, size_t size)
{
    ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    char key[24] = "state";
    send.data_case = SIGNALBOX__V1__SEND__DATA_PAYLOAD;
    send.payload = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)payload};
    client->seq++;
    if (client->group->kind == FAN_MESSAGE) {
        send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE;
        route.seq = client->seq;
        message.route = &route;
    } else {
        if (client->group->unique_keys)
            snprintf(key, sizeof key, "%" PRIu64, client->seq);
        send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__EPHEMERAL;
        send.key = key;
    }
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND;
    message.send = &send;
    send_message(client, &message);
}

void fan_client_send(struct fan_client *client)
{
    char payload[FAN_PAYLOAD_MAX], text[FAN_PAYLOAD_MAX + 32];
    size_t size = make_payload(client, payload);
    client->room->sent++;
    if (client->fan->measuring)
        client->group->sent++;
    switch (client->fan->dialect) {
    case FAN_SIGNALBOX:
    case FAN_CONTROL:
        send_signalbox(client, payload, size);
        break;
    case FAN_WS:
        conn_send(&client->conn, payload, size);
        break;
    case FAN_SOCKETIO:
        snprintf(text, sizeof text, "42[\"m\",\"%.*s\"]", (int)size, payload);
        send_text(client, text);
        break;
    }
}
