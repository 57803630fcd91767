/* The reference for fanout: a gateway's listener, TLS, framing and queues, as they ship, and in place of Signalbox the
 * least that can be behind them: whatever a client sends to its room goes to everybody in it, from memory.
 *
 *     signalbox-control ADDRESS:PORT CERTIFICATE KEY
 *
 * It stands in for gateway.c, whose functions the listener calls; only those are here. */
#include "common/crypto_memory.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/mem.h"
#include "gateway/front.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <uthash.h>

enum { EXIT_WRONG_USAGE = 2, CONNECTIONS_MAX = 20000, QUEUE_BYTES = 1024 * 1024, MESSAGE_BYTES = 65536, CROWD = 64 };

struct room {
    char name[128];
    struct list clients;
    size_t count;
    UT_hash_handle hh;
};

struct client {
    void *transport;
    struct room *room;
    struct list link; /* room->clients */
};

static struct room *rooms;

bool gateway_ready(const struct gateway *gateway, struct refusal *ret_refusal)
{
    return true;
}

bool gateway_admits(const struct gateway *gateway, struct refusal *ret_refusal)
{
    return true;
}

bool gateway_has_capacity(const struct gateway *gateway, const struct jwt_claims *claims, const char *room,
                          struct refusal *ret_refusal)
{
    return true;
}

bool gateway_check_token(struct gateway *gateway, const char *token, size_t size, const char *room,
                         struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    *ret_refusal = (struct refusal){.http_status = 401, .code = SIGNALBOX__V1__CODE__UNAUTHENTICATED};
    return false;
}

bool gateway_check_invite(struct gateway *gateway, const char *token, size_t size, const char *room,
                          struct jwt_claims *ret_claims, struct refusal *ret_refusal)
{
    return gateway_check_token(gateway, token, size, room, ret_claims, ret_refusal);
}

bool gateway_leave_by_token(struct gateway *gateway, const char *token, size_t size, int64_t now_ms)
{
    return false;
}

struct client *gateway_client_open(struct gateway *gateway, void *transport, struct jwt_claims *take_claims,
                                   int64_t now_ms)
{
    struct client *client = mem_new(struct client);
    client->transport = transport;
    list_init(&client->link);
    return client;
}

static struct room *open_room(const char *name)
{
    struct room *room;
    HASH_FIND_STR(rooms, name, room);
    if (room != NULL)
        return room;
    room = mem_new(struct room);
    snprintf(room->name, sizeof room->name, "%s", name);
    list_init(&room->clients);
    HASH_ADD_STR(rooms, name, room);
    return room;
}

static void enter(struct client *client, const Signalbox__V1__Hello *hello)
{
    Signalbox__V1__ServerMessage answer = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__HelloOk hello_ok = SIGNALBOX__V1__HELLO_OK__INIT;
    if (hello->join == NULL || client->room != NULL)
        return;
    client->room = open_room(hello->join->room);
    client->room->count++;
    list_append(&client->room->clients, &client->link);
    answer.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_HELLO_OK;
    answer.hello_ok = &hello_ok;
    struct outmsg *message = outmsg_pack(&answer);
    front_send(client->transport, message, CLASS_CONTROL);
    outmsg_unref(&message);
}

static void broadcast(const struct room *room, const Signalbox__V1__Send *send)
{
    Signalbox__V1__ServerMessage wrapped = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Message body = SIGNALBOX__V1__MESSAGE__INIT;
    body.data_case = SIGNALBOX__V1__MESSAGE__DATA_PAYLOAD;
    body.payload = send->payload;
    wrapped.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_MESSAGE;
    wrapped.message = &body;
    struct outmsg *message = outmsg_pack(&wrapped);
    if (room->count >= CROWD)
        outmsg_set_crowd(message);
    list_for_each(pos, &room->clients)
        front_send(container_of(pos, struct client, link)->transport, message, CLASS_NEGOTIATION);
    outmsg_unref(&message);
}

bool gateway_client_message(struct gateway *gateway, struct client *client, const Signalbox__V1__ClientMessage *message,
                            size_t size, int64_t now_ms)
{
    if (message->body_case == SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO)
        enter(client, message->hello);
    else if (message->body_case == SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND && client->room != NULL)
        broadcast(client->room, message->send);
    return true;
}

void gateway_client_malformed(struct gateway *gateway, struct client *client, const char *error, int64_t now_ms)
{
}

void gateway_client_overflow(struct gateway *gateway, struct client *client, uint32_t dropped_membership,
                             uint32_t dropped_ephemeral, int64_t now_ms)
{
}

void gateway_client_gone(struct gateway *gateway, struct client **client, bool clean, int64_t now_ms)
{
    list_remove(&(*client)->link);
    if ((*client)->room != NULL)
        (*client)->room->count--;
    free(*client);
    *client = NULL;
}

int main(int argc, char **argv)
{
    static const struct config_strings nobody;
    char error[256];
    struct rlimit files;
    crypto_memory_begin();
    if (argc != 4) {
        fprintf(stderr, "usage: signalbox-control ADDRESS:PORT CERTIFICATE KEY\n");
        return EXIT_WRONG_USAGE;
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    struct front_options options = {.listen = argv[1],
                                    .tls = true,
                                    .certificate_file = argv[2],
                                    .key_file = argv[3],
                                    .allowed_origins = &nobody,
                                    .max_connections = CONNECTIONS_MAX,
                                    .message_bytes = MESSAGE_BYTES,
                                    .queue_bytes = QUEUE_BYTES,
                                    .ping_interval_ms = 8000,
                                    .ping_timeout_ms = 2000};
    struct loop *loop = loop_new();
    struct front *front = front_open(loop, &options, NULL, error, sizeof error);
    if (front == NULL) {
        fprintf(stderr, "signalbox-control: %s\n", error);
        return 1;
    }
    loop_run(loop);
    return 0;
}
