#include "world.h"

#include "common/bus.h"
#include "common/mem.h"
#include "tests/sim/heap.h"
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STARTED_MS = 1000, TOKEN_TTL_S = 86400 };
static const int64_t wall_base_ms = 1900000000000;
static const char secret[] = "a secret of the simulation, long enough to be one";

struct process {
    struct world *world;
    struct node_address address;
    char subject[LINK_SUBJECT_MAX];
    struct links *links;
    struct gateway *gateway; /* one of the two */
    struct shard *shard;
    struct view *view;
    bool alive, flush_wanted;
    struct view_number marker;                    /* shards */
    int64_t links_due_ms;                         /* -1: nothing waits */
    int64_t last_arrival_ms[WORLD_PROCESSES_MAX]; /* of what each process sent here: order is kept */
};

struct world_conn {
    struct world *world;
    struct world_conn *next;
    struct process *process;
    struct client *client;
    struct conn_handlers handlers;
    void *ctx;
    bool listening; /* the client wants to hear */
    int64_t to_client_ms, to_gateway_ms;
};

enum event_kind { EVENT_BUS, EVENT_VIEW, EVENT_TO_CLIENT, EVENT_CLOSED, EVENT_TO_GATEWAY, EVENT_GONE };

struct event {
    int64_t at_ms;
    enum event_kind kind;
    struct process *process;
    struct world_conn *conn;
    struct payload *bytes;
    struct view *view;
    uint64_t incarnation; /* BUS: of the receiver */
    uint16_t code;
    bool clean;
};

struct world {
    struct world_options options;
    struct timer_wheel wheel;
    int64_t now_ms;
    uint64_t random;
    struct process processes[WORLD_PROCESSES_MAX]; /* gateways, then shards */
    int process_count;
    uint64_t incarnations;
    struct view *view;
    struct jwt_keyring *keyring;
    struct token_keys token_keys;
    struct world_conn *conns;
    struct heap events;
};

/* --- chance and time ------------------------------------------------------------------------------------------- */

uint64_t world_random(struct world *world, uint64_t below)
{
    /* splitmix64 */
    uint64_t z = world->random += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (z ^ (z >> 31)) % below;
}

static bool chance(struct world *world, uint32_t permille)
{
    return world_random(world, 1000) < permille;
}

int64_t world_now_ms(const struct world *world)
{
    return world->now_ms;
}

struct timer_wheel *world_wheel(struct world *world)
{
    return &world->wheel;
}

void world_set_faults(struct world *world, const struct world_faults *faults)
{
    world->options.faults = *faults;
}

static void push(struct world *world, struct event event)
{
    struct event *copy = mem_new(struct event);
    *copy = event;
    heap_push(&world->events, event.at_ms, 0, copy);
}

/* --- the bus --------------------------------------------------------------------------------------------------- */

static struct process *find_process(struct world *world, const char *subject)
{
    for (int i = 0; i < world->process_count; i++)
        if (world->processes[i].alive && strcmp(world->processes[i].subject, subject) == 0)
            return &world->processes[i];
    return NULL;
}

static int on_publish(void *ctx, const char *subject, struct payload *envelope)
{
    struct process *from = ctx;
    struct world *world = from->world;
    struct process *to = find_process(world, subject);
    if (to == NULL || chance(world, world->options.faults.bus_loss))
        return 0;
    int64_t *last_ms = &to->last_arrival_ms[from - world->processes];
    int copies = chance(world, world->options.faults.bus_duplication) ? 2 : 1;
    for (int i = 0; i < copies; i++) {
        int64_t at_ms = world->now_ms + (int64_t)world_random(world, world->options.faults.bus_delay_max_ms + 1);
        *last_ms = at_ms > *last_ms ? at_ms : *last_ms;
        push(world, (struct event){.at_ms = *last_ms,
                                   .kind = EVENT_BUS,
                                   .process = to,
                                   .incarnation = to->address.incarnation,
                                   .bytes = payload_ref(envelope)});
    }
    return 0;
}

static enum link_verdict on_judge(void *ctx, const struct node_address *from, struct view_number number)
{
    const struct process *self = ctx;
    if (view_number_compare(number, self->view->number) > 0)
        return LINK_HOLD;
    return view_lists(self->view, from) ? LINK_ACCEPT : LINK_REFUSE;
}

static void on_item(void *ctx, const struct node_address *from, const Signalbox__Cluster__V1__Item *item,
                    int64_t now_ms)
{
    struct process *self = ctx;
    if (self->gateway != NULL)
        gateway_item(self->gateway, from, item, now_ms);
    else
        shard_item(self->shard, from, item, now_ms);
}

static void on_gap(void *ctx, const struct node_address *from, int64_t now_ms)
{
    struct process *self = ctx;
    if (self->gateway != NULL)
        gateway_gap(self->gateway, from, now_ms);
}

static struct view_number on_view(void *ctx)
{
    return ((struct process *)ctx)->view->number;
}

/* --- processes ------------------------------------------------------------------------------------------------- */

static void on_to_peer(void *ctx, const struct node_address *to, struct payload *item)
{
    struct process *self = ctx;
    links_send(self->links, to, item, self->world->now_ms);
    self->links_due_ms = self->world->now_ms;
}

static void on_flush_soon(void *ctx)
{
    ((struct process *)ctx)->flush_wanted = true;
}

static int64_t on_wall_ms(void *ctx)
{
    return wall_base_ms + ((struct process *)ctx)->world->now_ms;
}

/* What the heartbeats would have told: exact, and at once. */
static struct view_number reported(struct world *world)
{
    struct view_number lowest = world->view->number;
    for (int i = 0; i < world->options.gateways; i++) {
        struct view_number number = gateway_reported(world->processes[i].gateway);
        if (view_number_compare(number, lowest) < 0)
            lowest = number;
    }
    return lowest;
}

static struct view_number settled(const struct world *world)
{
    struct view_number lowest = world->view->number;
    for (int i = world->options.gateways; i < world->process_count; i++)
        if (world->processes[i].alive && view_lists(world->view, &world->processes[i].address) &&
            view_number_compare(world->processes[i].marker, lowest) < 0)
            lowest = world->processes[i].marker;
    return lowest;
}

static struct view_number on_reported(void *ctx)
{
    return reported(((struct process *)ctx)->world);
}

static struct view_number on_marker_of(void *ctx, uint64_t incarnation)
{
    const struct world *world = ((struct process *)ctx)->world;
    for (int i = 0; i < world->process_count; i++)
        if (world->processes[i].alive && world->processes[i].address.incarnation == incarnation)
            return world->processes[i].marker;
    return (struct view_number){0, 0};
}

static void on_set_marker(void *ctx, struct view_number marker, int64_t now_ms)
{
    ((struct process *)ctx)->marker = marker;
}

static int64_t network_delay(struct world *world, int64_t *last_ms)
{
    int64_t at_ms = world->now_ms + (int64_t)world_random(world, world->options.faults.client_delay_max_ms + 1);
    return *last_ms = at_ms > *last_ms ? at_ms : *last_ms;
}

static void on_client_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
    struct world_conn *conn = transport;
    push(conn->world, (struct event){.at_ms = network_delay(conn->world, &conn->to_client_ms),
                                     .kind = EVENT_TO_CLIENT,
                                     .conn = conn,
                                     .bytes = payload_ref((struct payload *)outmsg_bytes(message))});
}

static void on_client_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
    struct world_conn *conn = transport;
    push(conn->world, (struct event){.at_ms = network_delay(conn->world, &conn->to_client_ms),
                                     .kind = EVENT_CLOSED,
                                     .conn = conn,
                                     .code = code});
}

static void process_start(struct world *world, int index)
{
    static const struct link_handlers handlers = {on_publish, on_judge, on_item, on_gap, on_view};
    static const struct gateway_actions gateway_actions = {on_client_send, on_client_close, on_to_peer, on_wall_ms};
    static const struct shard_actions shard_actions = {on_to_peer,  on_flush_soon, on_wall_ms,
                                                       on_reported, on_marker_of,  on_set_marker};
    struct process *self = &world->processes[index];
    bool gateway = index < world->options.gateways;
    *self = (struct process){.world = world, .alive = true, .links_due_ms = -1};
    self->address =
        (struct node_address){.kind = gateway ? NODE_GATEWAY : NODE_SHARD, .incarnation = ++world->incarnations};
    snprintf(self->address.id, sizeof self->address.id, gateway ? "gw-%d" : "shard-%d", index);
    node_inbox(&self->address, self->subject);
    self->links = links_new(&self->address, &handlers, self);
    if (gateway) {
        struct gateway_options options = {.self = self->address, .limits = world->options.gateway_limits};
        self->gateway =
            gateway_new(&options, world->keyring, &world->token_keys, &world->wheel, &gateway_actions, self);
        gateway_bus(self->gateway, true, world->now_ms);
    } else {
        struct shard_options options = {.self = self->address, .limits = world->options.shard_limits};
        self->shard = shard_new(&options, &world->wheel, &shard_actions, self);
    }
}

static void process_stop(struct process *self)
{
    self->alive = false;
    gateway_free(&self->gateway);
    shard_free(&self->shard);
    links_free(&self->links);
    view_unref(&self->view);
}

static void learn_view(struct process *self, struct view *view)
{
    if (self->view != NULL && view_number_compare(view->number, self->view->number) <= 0)
        return;
    for (size_t i = 0; self->view != NULL && i < self->view->shard_count; i++) {
        const struct view_node *old = &self->view->shards[i];
        const struct view_node *now = view_find_shard(view, old->id);
        if (now == NULL || now->incarnation != old->incarnation)
            links_forget(self->links, old->incarnation, self->world->now_ms);
    }
    view_unref(&self->view);
    self->view = view_ref(view);
    if (self->gateway != NULL)
        gateway_view(self->gateway, view, self->world->now_ms);
    else
        shard_view(self->shard, view, self->world->now_ms);
    links_release(self->links, self->world->now_ms);
    self->links_due_ms = self->world->now_ms;
}

static void announce_view(struct world *world, struct view *take_view, int64_t spread_ms)
{
    if (world->view != NULL)
        take_view->settled = settled(world);
    view_unref(&world->view);
    world->view = take_view;
    take_view->number = (struct view_number){1, take_view->number.seq + 1};
    for (int i = 0; i < world->process_count; i++)
        if (world->processes[i].alive)
            push(world, (struct event){.at_ms = world->now_ms + (int64_t)world_random(world, (uint64_t)spread_ms + 1),
                                       .kind = EVENT_VIEW,
                                       .process = &world->processes[i],
                                       .incarnation = world->processes[i].address.incarnation,
                                       .view = view_ref(take_view)});
}

static void put_node(struct view *view, const struct process *process)
{
    struct view_node node = {.incarnation = process->address.incarnation, .weight = 100, .full_weight = 100};
    memcpy(node.id, process->address.id, sizeof node.id);
    if (process->gateway != NULL)
        view_put_gateway(view, &node);
    else
        view_put_shard(view, &node);
}

void world_remove_shard(struct world *world, int shard, int64_t spread_ms)
{
    struct process *process = &world->processes[world->options.gateways + shard];
    struct view *view = view_copy(world->view);
    view_remove_shard(view, process->address.id, process->address.incarnation);
    process_stop(process);
    announce_view(world, view, spread_ms);
}

void world_add_shard(struct world *world, int shard, int64_t spread_ms)
{
    int index = world->options.gateways + shard;
    process_start(world, index);
    struct view *view = view_copy(world->view);
    put_node(view, &world->processes[index]);
    announce_view(world, view, spread_ms);
    learn_view(&world->processes[index], world->view);
}

/* This world's runs are short: nobody reads their story. */
void world_note(struct world *world, const char *room, const char *format, ...)
{
}

struct gateway *world_gateway(struct world *world, int gateway)
{
    return world->processes[gateway].gateway;
}

bool world_gateway_counts(const struct world *world, int gateway)
{
    return true; /* views are given */
}

struct shard *world_shard(struct world *world, int shard)
{
    return world->processes[world->options.gateways + shard].shard;
}

/* --- connections ----------------------------------------------------------------------------------------------- */

char *world_mint(struct world *world, const char *identity, const char *room)
{
    json_t *claims = json_pack("{s:s, s:s, s:I, s:{s:b, s:s}}", "iss", "key", "sub", identity, "exp",
                               (json_int_t)((wall_base_ms + world->now_ms) / 1000 + TOKEN_TTL_S), "video", "roomJoin",
                               1, "room", room);
    char *token = jwt_mint(secret, claims);
    json_decref(claims);
    return token;
}

struct world_conn *world_connect(struct world *world, int gateway, const struct conn_handlers *handlers, void *ctx)
{
    struct world_conn *conn = mem_new(struct world_conn);
    conn->world = world;
    conn->process = &world->processes[gateway];
    conn->handlers = *handlers;
    conn->ctx = ctx;
    conn->listening = true;
    conn->next = world->conns;
    world->conns = conn;
    conn->client = gateway_client_open(conn->process->gateway, conn, NULL, world->now_ms);
    return conn;
}

void world_send(struct world_conn *conn, const Signalbox__V1__ClientMessage *message)
{
    push(conn->world, (struct event){.at_ms = network_delay(conn->world, &conn->to_gateway_ms),
                                     .kind = EVENT_TO_GATEWAY,
                                     .conn = conn,
                                     .bytes = payload_pack(&message->base)});
}

void world_disconnect(struct world_conn **conn_ptr, bool clean)
{
    struct world_conn *conn = *conn_ptr;
    *conn_ptr = NULL;
    if (conn == NULL)
        return;
    conn->listening = false;
    push(conn->world, (struct event){.at_ms = network_delay(conn->world, &conn->to_gateway_ms),
                                     .kind = EVENT_GONE,
                                     .conn = conn,
                                     .clean = clean});
}

static void gone(struct world_conn *conn, bool clean)
{
    if (conn->client != NULL)
        gateway_client_gone(conn->process->gateway, &conn->client, clean, conn->world->now_ms);
}

static void to_client(struct world_conn *conn, const struct payload *bytes)
{
    Signalbox__V1__ServerMessage *message = signalbox__v1__server_message__unpack(NULL, bytes->size, bytes->data);
    assert(message != NULL);
    conn->handlers.message(conn->ctx, message);
    signalbox__v1__server_message__free_unpacked(message, NULL);
}

static void to_gateway(struct world_conn *conn, const struct payload *bytes)
{
    Signalbox__V1__ClientMessage *message = signalbox__v1__client_message__unpack(NULL, bytes->size, bytes->data);
    assert(message != NULL);
    gateway_client_message(conn->process->gateway, conn->client, message, bytes->size, conn->world->now_ms);
    signalbox__v1__client_message__free_unpacked(message, NULL);
}

/* --- turns ----------------------------------------------------------------------------------------------------- */

static void drop_event(struct event *event)
{
    payload_unref(&event->bytes);
    view_unref(&event->view);
    free(event);
}

static void handle(struct world *world, struct event *event)
{
    struct process *process = event->process;
    bool there = process != NULL && process->alive && process->address.incarnation == event->incarnation;
    switch (event->kind) {
    case EVENT_BUS:
        if (there && process->view != NULL) {
            links_receive(process->links, event->bytes->data, event->bytes->size, world->now_ms);
            process->links_due_ms = world->now_ms;
        }
        break;
    case EVENT_VIEW:
        if (there)
            learn_view(process, event->view);
        break;
    case EVENT_TO_CLIENT:
        if (event->conn->listening)
            to_client(event->conn, event->bytes);
        break;
    case EVENT_CLOSED:
        gone(event->conn, false);
        if (event->conn->listening) {
            event->conn->listening = false;
            event->conn->handlers.closed(event->conn->ctx, event->code);
        }
        break;
    case EVENT_TO_GATEWAY:
        if (event->conn->client != NULL)
            to_gateway(event->conn, event->bytes);
        break;
    case EVENT_GONE:
        gone(event->conn, event->clean);
        break;
    }
    drop_event(event);
}

/* Everything that is due now, as a loop's turn does it: input, then what that leads to is sent. */
static void turn(struct world *world)
{
    timer_wheel_advance(&world->wheel, world->now_ms);
    while (heap_due_ms(&world->events) <= world->now_ms)
        handle(world, heap_pop(&world->events));
    for (int i = 0; i < world->process_count; i++) {
        struct process *process = &world->processes[i];
        if (!process->alive)
            continue;
        if (process->shard != NULL && process->view != NULL &&
            view_number_compare(process->marker, process->view->number) < 0)
            shard_progress(process->shard, world->now_ms);
        if (process->flush_wanted) {
            process->flush_wanted = false;
            shard_flush(process->shard, world->now_ms);
        }
        if (process->links_due_ms >= 0 && process->links_due_ms <= world->now_ms) {
            int64_t wait_ms = links_flush(process->links, world->now_ms);
            process->links_due_ms = wait_ms < 0 ? -1 : world->now_ms + wait_ms;
        }
    }
}

static int64_t next_due_ms(struct world *world)
{
    int64_t wait_ms = timer_wheel_wait_ms(&world->wheel, world->now_ms);
    int64_t due_ms = wait_ms < 0 ? INT64_MAX : world->now_ms + wait_ms;
    if (heap_due_ms(&world->events) < due_ms)
        due_ms = heap_due_ms(&world->events);
    for (int i = 0; i < world->process_count; i++) {
        const struct process *process = &world->processes[i];
        if (process->alive && process->links_due_ms >= 0 && process->links_due_ms < due_ms)
            due_ms = process->links_due_ms;
    }
    return due_ms;
}

void world_run(struct world *world, int64_t ms)
{
    int64_t end_ms = world->now_ms + ms;
    turn(world);
    while (world->now_ms < end_ms) {
        int64_t due_ms = next_due_ms(world);
        if (due_ms <= world->now_ms)
            due_ms = world->now_ms + 1;
        world->now_ms = due_ms < end_ms ? due_ms : end_ms;
        turn(world);
    }
}

/* --- beginning and end ----------------------------------------------------------------------------------------- */

struct world_options world_default_options(uint64_t seed)
{
    return (struct world_options){.seed = seed,
                                  .gateways = 2,
                                  .shards = 2,
                                  .shard_limits = shard_default_limits,
                                  .gateway_limits = gateway_default_limits};
}

struct world *world_new(const struct world_options *options)
{
    struct world *world = mem_new(struct world);
    char error[128];
    assert(options->gateways + options->shards <= WORLD_PROCESSES_MAX);
    world->options = *options;
    world->random = options->seed;
    world->now_ms = STARTED_MS;
    timer_wheel_init(&world->wheel, world->now_ms);
    world->keyring = jwt_keyring_new(0);
    if (jwt_keyring_add_secret(world->keyring, "sim", "key", secret, error, sizeof error) != 0)
        abort();
    token_key_init(&world->token_keys, "the cluster's secret of the simulation", NULL);
    world->process_count = options->gateways + options->shards;
    struct view *view = view_copy(NULL);
    for (int i = 0; i < world->process_count; i++) {
        process_start(world, i);
        put_node(view, &world->processes[i]);
    }
    announce_view(world, view, 0);
    world_run(world, 1);
    return world;
}

void world_free(struct world **world_ptr)
{
    struct world *world = *world_ptr;
    if (world == NULL)
        return;
    while (world->conns != NULL) {
        struct world_conn *conn = world->conns;
        world->conns = conn->next;
        gone(conn, false);
        free(conn);
    }
    for (int i = 0; i < world->process_count; i++)
        if (world->processes[i].alive)
            process_stop(&world->processes[i]);
    while (world->events.count > 0)
        drop_event(heap_pop(&world->events));
    heap_done(&world->events);
    view_unref(&world->view);
    jwt_keyring_unref(&world->keyring);
    free(world);
    *world_ptr = NULL;
}
