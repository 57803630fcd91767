/* What a client sends, in either encoding, all the way into the gateway's decisions: a connection that has not said
 * hello yet, and one that is joined. */
#include "common/codec.h"
#include "common/protojson.h"
#include "gateway/gateway.h"
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WALL_S = 1800000000, MESSAGE_MAX = 64 * 1024 };

static const char secret[] = "0123456789abcdef0123456789abcdef";

struct world {
    struct gateway *gateway;
    struct timer_wheel wheel;
    bool closed[2];
    char sid[SID_TEXT_SIZE + 1];
    uint64_t connection;
};

static void on_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
    assert(outmsg_frame(message, ENCODING_PROTOBUF) != NULL);
    assert(outmsg_frame(message, ENCODING_JSON) != NULL);
}

static void on_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
    struct world *world = ctx;
    world->closed[(intptr_t)transport - 1] = true;
}

/* Every item must be one that a shard can read. */
static void on_to_shard(void *ctx, const struct node_address *shard, struct payload *item)
{
    struct world *world = ctx;
    struct arena arena;
    char error[128];
    arena_init(&arena, 8 << 20);
    Signalbox__Cluster__V1__Envelope *envelope = (Signalbox__Cluster__V1__Envelope *)codec_unpack(
        &signalbox__cluster__v1__envelope__descriptor, item->data, item->size, &arena, error, sizeof error);
    assert(envelope != NULL && envelope->n_items == 1);
    if (envelope->items[0]->body_case == SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_STATE) {
        memcpy(world->sid, envelope->items[0]->session_state->sid, sizeof world->sid);
        world->connection = envelope->items[0]->session_state->connection;
    }
    arena_done(&arena);
}

static int64_t on_wall_ms(void *ctx)
{
    return (int64_t)WALL_S * 1000;
}

static const struct node_address shard = {.kind = NODE_SHARD, .id = "shard-1", .incarnation = 7};

static void open_gateway(struct world *world)
{
    static const struct gateway_actions actions = {
        .send = on_send, .close = on_close, .to_shard = on_to_shard, .wall_ms = on_wall_ms};
    struct gateway_options options = {.self = {.kind = NODE_GATEWAY, .id = "gateway-1", .incarnation = 5},
                                      .limits = gateway_default_limits};
    struct token_keys keys;
    char error[256];
    struct jwt_keyring *ring = jwt_keyring_new(10);
    int result = jwt_keyring_add_secret(ring, "default", "key", secret, error, sizeof error);
    assert(result == 0);
    token_key_init(&keys, secret, NULL);
    timer_wheel_init(&world->wheel, 0);
    world->gateway = gateway_new(&options, ring, &keys, &world->wheel, &actions, world);
    jwt_keyring_unref(&ring);

    struct view *view = view_copy(NULL);
    struct view_node node = {.id = "shard-1", .incarnation = 7, .weight = 100, .full_weight = 100};
    view->number = (struct view_number){1, 1};
    view_put_shard(view, &node);
    view_put_gateway(view, &(struct view_node){.id = "gateway-1", .incarnation = 5});
    gateway_view(world->gateway, view, 0);
    gateway_bus(world->gateway, true, 0);
    view_unref(&view);
}

static char *mint(void)
{
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:s, s:b}}", "iss", "key", "sub", "ann", "exp",
                               (json_int_t)WALL_S + 3600, "video", "room", "demo", "roomJoin", 1);
    char *token = jwt_mint(secret, claims);
    json_decref(claims);
    return token;
}

static struct client *join(struct world *world)
{
    Signalbox__V1__ClientMessage message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    struct client *client = gateway_client_open(world->gateway, (void *)2, NULL, 0);
    hello.token = mint();
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    gateway_client_message(world->gateway, client, &message, 100, 0);
    free(hello.token);

    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    Signalbox__Cluster__V1__Epoch epoch = SIGNALBOX__CLUSTER__V1__EPOCH__INIT;
    struct room_key key = room_key_make("default", "demo");
    epoch.view_generation = epoch.view_seq = epoch.counter = 1;
    epoch.incarnation = 7;
    ack.room_key = (ProtobufCBinaryData){.len = sizeof key.bytes, .data = key.bytes};
    ack.sid = world->sid;
    ack.connection = world->connection;
    ack.version = 1;
    ack.code = SIGNALBOX__V1__CODE__OK;
    ack.bind_generation = 1;
    ack.epoch = ack.join_epoch = &epoch;
    ack.seq = ack.join_seq = 1;
    ack.joined_at_ms = 1;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_ACK;
    item.session_ack = &ack;
    gateway_item(world->gateway, &shard, &item, 0);
    assert(!world->closed[1]);
    return client;
}

static Signalbox__V1__ClientMessage *decode(const uint8_t *data, size_t size, bool json, struct arena *arena,
                                            char *error, size_t error_size)
{
    const ProtobufCMessageDescriptor *type = &signalbox__v1__client_message__descriptor;
    arena_reset(arena);
    return (
        Signalbox__V1__ClientMessage *)(json ? protojson_read(type, (const char *)data, size, arena, error, error_size)
                                             : codec_unpack(type, data, size, arena, error, error_size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MESSAGE_MAX)
        return 0;
    for (int json = 0; json < 2; json++) {
        struct world world = {0};
        struct arena arena;
        char error[256];
        arena_init(&arena, 1 << 20);
        open_gateway(&world);
        struct client *clients[2] = {gateway_client_open(world.gateway, (void *)1, NULL, 0), join(&world)};
        for (int i = 0; i < 2; i++) {
            Signalbox__V1__ClientMessage *message = decode(data, size, json, &arena, error, sizeof error);
            if (message != NULL)
                gateway_client_message(world.gateway, clients[i], message, size, 1);
            else
                gateway_client_malformed(world.gateway, clients[i], error, 1);
        }
        timer_wheel_advance(&world.wheel, 60 * 1000);
        for (int i = 0; i < 2; i++)
            gateway_client_gone(world.gateway, &clients[i], false, 60 * 1000);
        gateway_free(&world.gateway);
        arena_done(&arena);
    }
    return 0;
}
