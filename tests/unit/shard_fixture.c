#include "shard_fixture.h"

#include "common/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BYTES = 1 << 30, WALL_MS = 1700000000000 / 1000 };

static const char project[] = "test";

struct node_address fixture_gateway(int gateway)
{
    struct node_address address = {.kind = NODE_GATEWAY, .incarnation = 100 + (uint64_t)gateway};
    snprintf(address.id, sizeof address.id, "gw-%d", gateway);
    return address;
}

static void to_gateway(void *ctx, const struct node_address *gateway, struct payload *item)
{
    struct fixture *fixture = ctx;
    /* link_pack_item() packs in the form of a field of the envelope. */
    Signalbox__Cluster__V1__Envelope *envelope =
        signalbox__cluster__v1__envelope__unpack(&fixture->arena.allocator, item->size, item->data);
    ck_assert_ptr_nonnull(envelope);
    ck_assert_uint_eq(envelope->n_items, 1);
    if ((fixture->sent_count & (fixture->sent_count - 1)) == 0)
        fixture->sent = mem_realloc(fixture->sent, (fixture->sent_count * 2 + 1) * sizeof *fixture->sent);
    fixture->sent[fixture->sent_count++] =
        (struct sent){.gateway = (int)(gateway->incarnation - 100), .item = envelope->items[0]};
}

static void flush_soon(void *ctx)
{
    ((struct fixture *)ctx)->flush_wanted = true;
}

static struct view_number reported(void *ctx)
{
    return ((struct fixture *)ctx)->reported;
}

static struct view_number marker_of(void *ctx, uint64_t incarnation)
{
    struct fixture *fixture = ctx;
    return incarnation < FIXTURE_PEERS ? fixture->markers[incarnation] : (struct view_number){0, 0};
}

static void set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
    ((struct fixture *)ctx)->marker = marker;
}

static int64_t wall_ms(void *ctx)
{
    const struct fixture *fixture = ctx;
    return (int64_t)WALL_MS * 1000 + fixture->now_ms + fixture->wall_step_ms;
}

static void open_shard(struct fixture *fixture, uint64_t incarnation)
{
    static const struct shard_actions actions = {to_gateway, flush_soon, wall_ms, reported, marker_of, set_marker};
    struct view *view = view_copy(fixture->view);
    struct view_node node = {.id = "shard-1", .incarnation = incarnation, .weight = 100, .full_weight = 100};
    view->number = (struct view_number){.generation = 1, .seq = view->number.seq + 1};
    view_put_shard(view, &node);
    view_unref(&fixture->view);
    fixture->view = view;
    fixture->options.self = (struct node_address){.kind = NODE_SHARD, .id = "shard-1", .incarnation = incarnation};
    fixture->shard = shard_new(&fixture->options, &fixture->wheel, &actions, fixture);
    shard_view(fixture->shard, view, fixture->now_ms);
}

void fixture_set_gateways(struct fixture *fixture, int count)
{
    struct view *view = view_copy(fixture->view);
    for (int i = 0; i < GATEWAYS; i++) {
        struct node_address address = fixture_gateway(i);
        struct view_node node = {.incarnation = address.incarnation};
        memcpy(node.id, address.id, sizeof node.id);
        if (i < count)
            view_put_gateway(view, &node);
        else
            view_remove_gateway(view, node.id, node.incarnation);
    }
    view->number.seq++;
    view_unref(&fixture->view);
    fixture->view = view;
    if (fixture->shard != NULL)
        shard_view(fixture->shard, view, fixture->now_ms);
}

void fixture_open(struct fixture *fixture, const struct shard_options *options)
{
    /* Gateways have always reported everything. */
    *fixture = (struct fixture){.now_ms = 1000, .reported = {UINT64_MAX, UINT64_MAX}};
    if (options != NULL)
        fixture->options = *options;
    else
        fixture->options.limits = shard_default_limits;
    arena_init(&fixture->arena, ARENA_BYTES);
    timer_wheel_init(&fixture->wheel, fixture->now_ms);
    fixture_set_gateways(fixture, GATEWAYS);
    open_shard(fixture, 7);
}

void fixture_restart(struct fixture *fixture)
{
    uint64_t incarnation = fixture->options.self.incarnation + 1;
    shard_free(&fixture->shard);
    fixture->sent_count = 0;
    open_shard(fixture, incarnation);
}

void fixture_close(struct fixture *fixture)
{
    shard_free(&fixture->shard);
    ck_assert_uint_eq(fixture->wheel.count, 0);
    view_unref(&fixture->view);
    arena_done(&fixture->arena);
    free(fixture->sent);
}

void fixture_reopen(struct fixture *fixture, const struct shard_options *options)
{
    fixture_close(fixture);
    fixture_open(fixture, options);
}

void fixture_flush(struct fixture *fixture)
{
    while (fixture->flush_wanted) {
        fixture->flush_wanted = false;
        shard_flush(fixture->shard, fixture->now_ms);
    }
}

void fixture_advance(struct fixture *fixture, int64_t ms)
{
    int64_t end_ms = fixture->now_ms + ms;
    fixture_flush(fixture);
    while (fixture->now_ms < end_ms) {
        int64_t wait_ms = timer_wheel_wait_ms(&fixture->wheel, fixture->now_ms);
        int64_t next_ms = fixture->now_ms + (wait_ms > 0 ? wait_ms : 1);
        fixture->now_ms = wait_ms < 0 || next_ms > end_ms ? end_ms : next_ms;
        timer_wheel_advance(&fixture->wheel, fixture->now_ms);
        fixture_flush(fixture);
    }
}

void fixture_deliver(struct fixture *fixture, int gateway, const Item *item)
{
    struct node_address from = fixture_gateway(gateway);
    struct payload *packed = payload_pack(&item->base);
    struct arena arena;
    arena_init(&arena, ARENA_BYTES);
    Item *unpacked = signalbox__cluster__v1__item__unpack(&arena.allocator, packed->size, packed->data);
    ck_assert_ptr_nonnull(unpacked);
    shard_item(fixture->shard, &from, unpacked, fixture->now_ms);
    arena_done(&arena);
    payload_unref(&packed);
}

ProtobufCBinaryData key_data(const char *room)
{
    static struct room_key key;
    key = room_key_make(project, room);
    return (ProtobufCBinaryData){.len = sizeof key.bytes, .data = key.bytes};
}

struct person person_make(const char *identity, const char *room, int gateway)
{
    static uint64_t connections;
    struct person person = {.room = room,
                            .gateway = gateway,
                            .connection = ++connections,
                            .kind = SIGNALBOX__V1__PARTICIPANT__KIND__STANDARD,
                            .window_ms = 30000};
    struct sid sid;
    sid_random(&sid);
    sid_format(&sid, person.sid);
    snprintf(person.identity, sizeof person.identity, "%s", identity);
    snprintf(person.name, sizeof person.name, "%s", identity);
    return person;
}

State *person_state(const struct person *person, int intent, int wanted)
{
    enum { TRACKS = 4 };
    static State state;
    static Signalbox__V1__Participant participant;
    static Signalbox__V1__Permissions permissions;
    static Signalbox__V1__Track track[TRACKS], *tracks[TRACKS];
    static char *track_ids[TRACKS] = {(char *)"t0", (char *)"t1", (char *)"t2", (char *)"t3"};
    static Signalbox__Cluster__V1__Epoch join_epoch;

    signalbox__cluster__v1__session_state__init(&state);
    signalbox__v1__participant__init(&participant);
    signalbox__v1__permissions__init(&permissions);
    state.room_key = key_data(person->room);
    state.project = (char *)project;
    state.room = (char *)person->room;
    state.sid = (char *)person->sid;
    state.bind_generation = person->bind_generation;
    state.connection = person->connection;
    state.version = person->version;
    state.intent = intent;
    state.state = wanted;
    state.resume_window_ms = person->window_ms;
    state.window_left_ms = person->window_ms;
    state.participant = &participant;
    participant.identity = (char *)person->identity;
    participant.name = (char *)person->name;
    participant.kind = person->kind;
    participant.permissions = &permissions;
    permissions.can_publish = true;
    permissions.hidden = person->hidden;
    for (unsigned i = 0; i < person->tracks && i < TRACKS; i++) {
        signalbox__v1__track__init(&track[i]);
        track[i].id = track_ids[i];
        tracks[participant.n_tracks++] = &track[i];
    }
    participant.tracks = tracks;
    if (intent != JOIN && person->joined_at_ms != 0) {
        join_epoch = epoch_to_proto(&person->join_epoch);
        state.join_epoch = &join_epoch;
        state.join_seq = person->join_seq;
        state.joined_at_ms = person->joined_at_ms;
    }
    return &state;
}

void send_state(struct fixture *fixture, const struct person *person, State *state)
{
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = BODY(SESSION_STATE);
    item.session_state = state;
    fixture_deliver(fixture, person->gateway, &item);
}

static const Ack *ack_of(struct fixture *fixture, size_t since, struct person *person)
{
    const Ack *ack = NULL;
    for (int n = 0; ack == NULL || strcmp(ack->sid, person->sid) != 0; n++) {
        const Item *item = sent_item(fixture, since, person->gateway, BODY(SESSION_ACK), n);
        ck_assert_ptr_nonnull(item);
        ack = item->session_ack;
    }
    ck_assert_uint_eq(ack->connection, person->connection);
    ck_assert_uint_eq(ack->version, person->version);
    if (ack->code == CODE(OK) && ack->bind_generation != 0) {
        person->bind_generation = ack->bind_generation;
        person->join_epoch = epoch_from_proto(ack->join_epoch);
        person->join_seq = ack->join_seq;
        person->joined_at_ms = ack->joined_at_ms;
    }
    return ack;
}

const Ack *person_join(struct fixture *fixture, struct person *person)
{
    size_t since = fixture->sent_count;
    if (person->version == 0)
        person->version = 1;
    State *state = person_state(person, JOIN, ATTACHED);
    send_state(fixture, person, state);
    const Item *taken = sent_item(fixture, since, person->gateway, BODY(IDENTITY_TAKEN), 0);
    if (taken != NULL) {
        state->replaces = taken->identity_taken->by;
        send_state(fixture, person, state);
    }
    return ack_of(fixture, since, person);
}

const Ack *person_hold(struct fixture *fixture, struct person *person, int state)
{
    size_t since = fixture->sent_count;
    person->version++;
    send_state(fixture, person, person_state(person, HOLD, state));
    return ack_of(fixture, since, person);
}

const Ack *person_resume(struct fixture *fixture, struct person *person, int gateway, uint64_t token_generation)
{
    size_t since = fixture->sent_count;
    person->gateway = gateway;
    person->connection += 1000000;
    person->version = 1;
    State *state = person_state(person, RESUME, ATTACHED);
    state->bind_generation = 0;
    state->token_bind_generation = token_generation;
    send_state(fixture, person, state);
    return ack_of(fixture, since, person);
}

const Ack *person_resume_at(struct fixture *fixture, struct person *person, int gateway, const struct epoch *epoch,
                            uint64_t seq)
{
    size_t since = fixture->sent_count;
    Signalbox__Cluster__V1__Epoch last = epoch_to_proto(epoch);
    person->gateway = gateway;
    person->connection += 1000000;
    State *state = person_state(person, RESUME, ATTACHED);
    state->token_bind_generation = person->bind_generation;
    state->last_epoch = &last;
    state->last_seq = seq;
    send_state(fixture, person, state);
    const Item *item = sent_item(fixture, since, gateway, BODY(SESSION_ACK), 0);
    person->bind_generation = item->session_ack->bind_generation;
    return item->session_ack;
}

void person_end(struct fixture *fixture, struct person *person, Signalbox__V1__LeaveReason reason)
{
    person->version++;
    State *state = person_state(person, HOLD, DEPARTED);
    state->reason = reason;
    send_state(fixture, person, state);
}

void assert_refused(const Ack *ack, int code, int reason, int action)
{
    ck_assert_int_eq(ack->code, code);
    ck_assert_int_eq(ack->reason, reason);
    ck_assert_int_eq(ack->action, action);
}

const Item *sent_item(const struct fixture *fixture, size_t since, int gateway, int body_case, int n)
{
    for (size_t i = since; i < fixture->sent_count; i++) {
        const struct sent *sent = &fixture->sent[i];
        if ((gateway < 0 || sent->gateway == gateway) && (int)sent->item->body_case == body_case && n-- == 0)
            return sent->item;
    }
    return NULL;
}

int sent_count(const struct fixture *fixture, size_t since, int gateway, int body_case)
{
    int n = 0;
    while (sent_item(fixture, since, gateway, body_case, n) != NULL)
        n++;
    return n;
}

const Signalbox__Cluster__V1__SessionCommand *close_command(const struct fixture *fixture, size_t since, int gateway)
{
    const Item *item = sent_item(fixture, since, gateway, BODY(SESSION_COMMAND), 0);
    ck_assert_ptr_nonnull(item);
    ck_assert_int_eq(item->session_command->command_case, SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE);
    return item->session_command;
}

const Signalbox__V1__ServerMessage *unpack_message(struct fixture *fixture, ProtobufCBinaryData bytes)
{
    const Signalbox__V1__ServerMessage *message =
        signalbox__v1__server_message__unpack(&fixture->arena.allocator, bytes.len, bytes.data);
    ck_assert_ptr_nonnull(message);
    return message;
}

const Events *sent_events(struct fixture *fixture, size_t since, int gateway, int n)
{
    for (int i = 0;; i++) {
        const Item *item = sent_item(fixture, since, gateway, BODY(ROOM_BATCH), i);
        if (item == NULL)
            return NULL;
        const Signalbox__V1__ServerMessage *message = unpack_message(fixture, item->room_batch->message);
        if (message->body_case != SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS || n-- > 0)
            continue;
        ck_assert_uint_eq(message->room_events->first_seq, item->room_batch->first_seq);
        ck_assert_uint_eq(message->room_events->last_seq, item->room_batch->last_seq);
        return message->room_events;
    }
}

const Snapshot *ack_snapshot(struct fixture *fixture, const Ack *ack)
{
    ck_assert_int_eq(ack->code, CODE(OK));
    ck_assert(!ack->recovered);
    ck_assert_uint_eq(ack->n_messages, 1);
    const Signalbox__V1__ServerMessage *message = unpack_message(fixture, ack->messages[0]);
    ck_assert_int_eq(message->body_case, SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT);
    ck_assert_uint_eq(message->snapshot->position->seq, ack->seq);
    return message->snapshot;
}

const Signalbox__V1__Participant *snapshot_find(const Snapshot *snapshot, const char *sid)
{
    for (size_t i = 0; i < snapshot->n_participants; i++)
        if (strcmp(snapshot->participants[i]->sid, sid) == 0)
            return snapshot->participants[i];
    return NULL;
}

Signalbox__Cluster__V1__SyncRequest sync_make(const struct person *person)
{
    Signalbox__Cluster__V1__SyncRequest request = SIGNALBOX__CLUSTER__V1__SYNC_REQUEST__INIT;
    request.room_key = key_data(person->room);
    request.sid = (char *)person->sid;
    request.connection = person->connection;
    return request;
}

const Signalbox__Cluster__V1__SyncReply *send_sync(struct fixture *fixture, const struct person *person,
                                                   const Signalbox__Cluster__V1__SyncRequest *request)
{
    size_t since = fixture->sent_count;
    Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = BODY(SYNC_REQUEST);
    item.sync_request = (Signalbox__Cluster__V1__SyncRequest *)request;
    fixture_deliver(fixture, person->gateway, &item);
    const Item *reply = sent_item(fixture, since, person->gateway, BODY(SYNC_REPLY), 0);
    ck_assert_ptr_nonnull(reply);
    ck_assert_str_eq(reply->sync_reply->sid, request->sid);
    ck_assert_uint_eq(reply->sync_reply->connection, request->connection);
    return reply->sync_reply;
}
