#include "gateway_fixture.h"

#include "common/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 1 << 30, STARTED_MS = 1000 };
static const int64_t wall_base_ms = 1900000000000;
static const char secret[] = FIXTURE_SECRET;

static void *copy(struct fixture *fixture, const ProtobufCMessageDescriptor *type, const void *data, size_t size)
{
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &fixture->arena.allocator, size, data);
    ck_assert_ptr_nonnull(message);
    return message;
}

static void *grow(void *array, size_t count, size_t item_size)
{
    return (count & (count - 1)) == 0 ? mem_realloc(array, (count * 2 + 1) * item_size) : array;
}

static void on_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
    struct fixture *fixture = ctx;
    struct fixture_client *client = transport;
    const struct payload *bytes = outmsg_bytes(message);
    ck_assert_ptr_nonnull(client->client);
    ck_assert(!client->closed);
    fixture->received = grow(fixture->received, fixture->received_count, sizeof *fixture->received);
    fixture->received[fixture->received_count++] = (struct received){
        .client = (int)(client - fixture->clients),
        .class = class,
        .raw = outmsg_ref(message),
        .message = copy(fixture, &signalbox__v1__server_message__descriptor, bytes->data, bytes->size)};
}

static void on_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
    struct fixture_client *client = transport;
    ck_assert(!client->closed);
    client->closed = true;
    client->close_code = code;
    ck_assert_uint_lt(strlen(reason), sizeof client->close_reason);
    strcpy(client->close_reason, reason);
}

static void on_item(void *ctx, const struct node_address *shard, struct payload *item)
{
    struct fixture *fixture = ctx;
    /* link_pack_item() packs in the form of a field of the envelope. */
    Signalbox__Cluster__V1__Envelope *envelope =
        copy(fixture, &signalbox__cluster__v1__envelope__descriptor, item->data, item->size);
    ck_assert_uint_eq(envelope->n_items, 1);
    fixture->sent = grow(fixture->sent, fixture->sent_count, sizeof *fixture->sent);
    fixture->sent[fixture->sent_count++] = (struct sent){.to = *shard, .item = envelope->items[0]};
}

static int64_t on_wall_ms(void *ctx)
{
    const struct fixture *fixture = ctx;
    return wall_base_ms + fixture->now_ms + fixture->wall_step_ms;
}

int64_t fixture_wall_s(const struct fixture *fixture)
{
    return on_wall_ms((struct fixture *)fixture) / 1000;
}

void fixture_open(struct fixture *fixture, const struct gateway_limits *limits)
{
    static const struct gateway_actions actions = {on_send, on_close, on_item, on_wall_ms};
    char error[128];
    *fixture = (struct fixture){.now_ms = STARTED_MS};
    fixture->options.self =
        (struct node_address){.kind = NODE_GATEWAY, .id = "gw-1", .incarnation = incarnation_random()};
    fixture->options.limits = limits != NULL ? *limits : gateway_default_limits;
    arena_init(&fixture->arena, ARENA_BYTES);
    timer_wheel_init(&fixture->wheel, fixture->now_ms);
    fixture->keyring = jwt_keyring_new(0);
    ck_assert_int_eq(jwt_keyring_add_secret(fixture->keyring, "test", "key", secret, error, sizeof error), 0);
    token_key_init(&fixture->token_keys, "the cluster's secret of the tests", NULL);
    fixture->gateway =
        gateway_new(&fixture->options, fixture->keyring, &fixture->token_keys, &fixture->wheel, &actions, fixture);
    gateway_bus(fixture->gateway, true, fixture->now_ms);
    fixture_next_owner(fixture);
    fixture->sent_count = 0; /* but for what it has asked on its arrival */
}

void fixture_close(struct fixture *fixture)
{
    for (int i = 0; i < CLIENTS; i++)
        if (fixture->clients[i].client != NULL)
            disconnect_client(fixture, i, false);
    gateway_free(&fixture->gateway);
    ck_assert_uint_eq(fixture->wheel.count, 0);
    for (size_t i = 0; i < fixture->received_count; i++)
        outmsg_unref(&fixture->received[i].raw);
    free(fixture->received);
    free(fixture->sent);
    jwt_keyring_unref(&fixture->keyring);
    view_unref(&fixture->view);
    arena_done(&fixture->arena);
}

void fixture_advance(struct fixture *fixture, int64_t ms)
{
    int64_t end_ms = fixture->now_ms + ms;
    while (fixture->now_ms < end_ms) {
        int64_t wait_ms = timer_wheel_wait_ms(&fixture->wheel, fixture->now_ms);
        int64_t next_ms = fixture->now_ms + (wait_ms > 0 ? wait_ms : 1);
        fixture->now_ms = wait_ms < 0 || next_ms > end_ms ? end_ms : next_ms;
        timer_wheel_advance(&fixture->wheel, fixture->now_ms);
    }
}

void fixture_next_owner(struct fixture *fixture)
{
    struct view *view = view_copy(fixture->view);
    struct view_node node = {.weight = 100, .full_weight = 100};
    if (fixture->view != NULL)
        view_remove_shard(view, fixture->shard.id, fixture->shard.incarnation);
    view->number = (struct view_number){1, view->number.seq + 1};
    fixture->shard = (struct node_address){.kind = NODE_SHARD, .incarnation = 1000 + view->number.seq};
    snprintf(fixture->shard.id, sizeof fixture->shard.id, "shard-%d", (int)view->number.seq);
    memcpy(node.id, fixture->shard.id, sizeof node.id);
    node.incarnation = fixture->shard.incarnation;
    view_put_shard(view, &node);
    struct view_node self = {.incarnation = fixture->options.self.incarnation};
    memcpy(self.id, fixture->options.self.id, sizeof self.id);
    view_put_gateway(view, &self);
    view_unref(&fixture->view);
    fixture->view = view;
    fixture->epoch = (struct epoch){.view = view->number, .counter = 1, .incarnation = node.incarnation};
    gateway_view(fixture->gateway, view, fixture->now_ms);
}

void fixture_deliver(struct fixture *fixture, const Item *item)
{
    struct payload *packed = payload_pack(&item->base);
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    Item *unpacked = signalbox__cluster__v1__item__unpack(&arena.allocator, packed->size, packed->data);
    ck_assert_ptr_nonnull(unpacked);
    gateway_item(fixture->gateway, &fixture->shard, unpacked, fixture->now_ms);
    arena_done(&arena);
    payload_unref(&packed);
}

char *mint(const struct fixture *fixture, const char *identity, const char *room, json_t *grants)
{
    int64_t now_s = fixture_wall_s(fixture);
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:b, s:s}}", "iss", "key", "sub", identity, "exp",
                               (json_int_t)(now_s + TOKEN_TTL_S), "video", "roomJoin", 1, "room", room);
    ck_assert_ptr_nonnull(claims);
    if (grants != NULL) {
        json_object_update(json_object_get(claims, "video"), grants);
        json_decref(grants);
    }
    char *token = jwt_mint(secret, claims);
    json_decref(claims);
    return token;
}

int connect_client(struct fixture *fixture)
{
    int i = 0;
    while (i < CLIENTS && fixture->clients[i].client != NULL)
        i++;
    ck_assert_int_lt(i, CLIENTS);
    struct fixture_client *client = &fixture->clients[i];
    *client = (struct fixture_client){0};
    client->client = gateway_client_open(fixture->gateway, client, NULL, fixture->now_ms);
    return i;
}

void disconnect_client(struct fixture *fixture, int client, bool clean)
{
    gateway_client_gone(fixture->gateway, &fixture->clients[client].client, clean, fixture->now_ms);
    ck_assert_ptr_null(fixture->clients[client].client);
}

void request(struct fixture *fixture, int client, Request *message)
{
    /* Packed and unpacked, so that the gateway sees what a decoder makes of it. */
    struct payload *packed = payload_pack(&message->base);
    Request *unpacked = copy(fixture, &signalbox__v1__client_message__descriptor, packed->data, packed->size);
    gateway_client_message(fixture->gateway, fixture->clients[client].client, unpacked, packed->size, fixture->now_ms);
    payload_unref(&packed);
}

static void say_hello(struct fixture *fixture, int client, Signalbox__V1__Hello *hello)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    message.request_id = 1;
    message.body_case = REQUEST(HELLO);
    message.hello = hello;
    request(fixture, client, &message);
}

void hello_token(struct fixture *fixture, int client, const char *token, Join *join)
{
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    hello.token = (char *)token;
    hello.join = join;
    say_hello(fixture, client, &hello);
}

void hello_resume(struct fixture *fixture, int client, const char *token, Signalbox__V1__Position *last)
{
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    hello.resume_token = (char *)token;
    hello.last = last;
    say_hello(fixture, client, &hello);
}

Ack *make_ack(struct fixture *fixture, const State *state)
{
    static Ack ack;
    static Signalbox__Cluster__V1__Epoch epoch;
    signalbox__cluster__v1__session_ack__init(&ack);
    epoch = epoch_to_proto(&fixture->epoch);
    ack.room_key = state->room_key;
    ack.sid = state->sid;
    ack.connection = state->connection;
    ack.version = state->version;
    ack.code = CODE(OK);
    ack.bind_generation = state->bind_generation;
    ack.epoch = &epoch;
    ack.seq = fixture->seq;
    ack.join_epoch = &epoch;
    ack.join_seq = fixture->seq;
    ack.joined_at_ms = on_wall_ms(fixture);
    ack.participant = state->participant;
    ack.participant_version = 1;
    return &ack;
}

void deliver_ack(struct fixture *fixture, const Ack *ack)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = ITEM(SESSION_ACK);
    item.session_ack = (Ack *)ack;
    fixture_deliver(fixture, &item);
}

ProtobufCBinaryData pack_message(const Message *message)
{
    static uint8_t buffers[4][4096];
    static unsigned next;
    uint8_t *buffer = buffers[next++ % 4];
    ck_assert_uint_le(signalbox__v1__server_message__get_packed_size(message), sizeof buffers[0]);
    return (ProtobufCBinaryData){.len = signalbox__v1__server_message__pack(message, buffer), .data = buffer};
}

ProtobufCBinaryData pack_snapshot(struct fixture *fixture, uint64_t seq, const char *next_cursor)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Snapshot snapshot = SIGNALBOX__V1__SNAPSHOT__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    char epoch[EPOCH_TEXT_MAX + 1];
    epoch_format(&fixture->epoch, epoch);
    position.epoch = epoch;
    position.seq = seq;
    snapshot.position = &position;
    snapshot.next_cursor = (char *)next_cursor;
    message.body_case = BODY(SNAPSHOT);
    message.snapshot = &snapshot;
    return pack_message(&message);
}

void bind_session(struct fixture *fixture, const State *state, uint64_t bind_generation, uint64_t seq)
{
    Ack *ack = make_ack(fixture, state);
    ProtobufCBinaryData page = pack_snapshot(fixture, seq, "");
    ack->bind_generation = bind_generation;
    ack->seq = seq;
    ack->messages = &page;
    ack->n_messages = 1;
    deliver_ack(fixture, ack);
}

int join_client(struct fixture *fixture, const char *identity, const char *room, json_t *grants)
{
    int client = connect_client(fixture);
    struct fixture_client *self = &fixture->clients[client];
    char *token = mint(fixture, identity, room, grants);
    hello_token(fixture, client, token, NULL);
    free(token);
    const State *state = newest_state(fixture);
    ck_assert_ptr_nonnull(state);
    ck_assert_str_eq(state->participant->identity, identity);
    strcpy(self->sid, state->sid);
    self->connection = state->connection;
    bind_session(fixture, state, 1, ++fixture->seq);
    const Message *ok =
        received(fixture, 0, client, BODY(HELLO_OK), received_count(fixture, 0, client, BODY(HELLO_OK)) - 1);
    ck_assert_ptr_nonnull(ok);
    strcpy(self->resume_token, ok->hello_ok->resume_token);
    return client;
}

ProtobufCBinaryData pack_events(struct fixture *fixture, uint64_t first_seq, uint64_t last_seq, const char *text)
{
    Message message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__RoomEvents events = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT, *list[1] = {&event};
    Signalbox__V1__Message said = SIGNALBOX__V1__MESSAGE__INIT;
    char epoch[EPOCH_TEXT_MAX + 1];
    epoch_format(&fixture->epoch, epoch);
    said.data_case = SIGNALBOX__V1__MESSAGE__DATA_TEXT;
    said.text = (char *)text;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE;
    event.message = &said;
    events.epoch = epoch;
    events.first_seq = first_seq;
    events.last_seq = last_seq;
    events.events = list;
    events.n_events = 1;
    message.body_case = BODY(ROOM_EVENTS);
    message.room_events = &events;
    return pack_message(&message);
}

ProtobufCBinaryData key_data(const char *room)
{
    static struct room_key key;
    key = room_key_make("test", room);
    return (ProtobufCBinaryData){.len = sizeof key.bytes, .data = key.bytes};
}

void deliver_events(struct fixture *fixture, const char *room, uint64_t first_seq, uint64_t last_seq, const char *text)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&fixture->epoch);
    batch.room_key = key_data(room);
    batch.epoch = &epoch;
    batch.first_seq = first_seq;
    batch.last_seq = last_seq;
    batch.class_ = CLASS_MEMBERSHIP;
    batch.message = pack_events(fixture, first_seq, last_seq, text);
    item.body_case = ITEM(ROOM_BATCH);
    item.room_batch = &batch;
    fixture_deliver(fixture, &item);
}

const Message *received(const struct fixture *fixture, size_t since, int client, int body_case, int n)
{
    for (size_t i = since; i < fixture->received_count; i++)
        if (fixture->received[i].client == client && (int)fixture->received[i].message->body_case == body_case &&
            n-- == 0)
            return fixture->received[i].message;
    return NULL;
}

int received_count(const struct fixture *fixture, size_t since, int client, int body_case)
{
    int count = 0;
    while (received(fixture, since, client, body_case, count) != NULL)
        count++;
    return count;
}

const Item *sent(const struct fixture *fixture, size_t since, int body_case, int n)
{
    for (size_t i = since; i < fixture->sent_count; i++)
        if ((int)fixture->sent[i].item->body_case == body_case && n-- == 0)
            return fixture->sent[i].item;
    return NULL;
}

int sent_count(const struct fixture *fixture, size_t since, int body_case)
{
    int count = 0;
    while (sent(fixture, since, body_case, count) != NULL)
        count++;
    return count;
}

const State *newest_state(const struct fixture *fixture)
{
    const Item *item = sent(fixture, 0, ITEM(SESSION_STATE), sent_count(fixture, 0, ITEM(SESSION_STATE)) - 1);
    return item != NULL ? item->session_state : NULL;
}

const State *last_state(const struct fixture *fixture, int client)
{
    const State *last = NULL;
    for (size_t i = 0; i < fixture->sent_count; i++)
        if (fixture->sent[i].item->body_case == ITEM(SESSION_STATE) &&
            fixture->sent[i].item->session_state->connection == fixture->clients[client].connection)
            last = fixture->sent[i].item->session_state;
    return last;
}

const Signalbox__V1__Result *result_of(const struct fixture *fixture, int client, uint32_t request_id)
{
    for (size_t i = fixture->received_count; i-- > 0;) {
        const struct received *one = &fixture->received[i];
        if (one->client == client && one->message->body_case == BODY(RESULT) &&
            one->message->result->request_id == request_id)
            return one->message->result;
    }
    return NULL;
}

void assert_closed(const struct fixture *fixture, int client, uint16_t code, int reason, int action)
{
    const struct fixture_client *self = &fixture->clients[client];
    ck_assert_msg(self->closed, "client %d is open", client);
    ck_assert_uint_eq(self->close_code, code);
    const Message *leave =
        received(fixture, 0, client, BODY(LEAVE), received_count(fixture, 0, client, BODY(LEAVE)) - 1);
    ck_assert_ptr_nonnull(leave);
    ck_assert_int_eq((int)leave->leave->reason, reason);
    ck_assert_int_eq((int)leave->leave->action, action);
    ck_assert_uint_gt(strlen(leave->leave->message), 0);
}
