#include "tests/sim/cluster.h"

#include "common/bus.h"
#include "common/mem.h"
#include "tests/sim/cluster_wiring.h"
#include "tests/sim/story.h"
#include <assert.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STARTED_MS = 1000, TOKEN_TTL_S = 86400, ECHO_LOST_MS = 1000, RECONNECT_MAX_MS = 500, DIAL_MS = 5 };
static const int64_t wall_base_ms = 1900000000000;
static const char secret[] = "a secret of the simulation, long enough to be one";
const char *const cluster_room_names[CLUSTER_ROOMS] = {"one", "two", "eu/three", "four", "us/five", "six"};

/* --- chance, time, story --------------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t world_random(struct world *world, uint64_t below)
{
    return draw(&world->random) % below;
}

/* Sids, incarnations and nonces come from libsodium, which takes another source: the world's own. */
static uint64_t id_state;

static const char *ids_name(void)
{
    return "simulation";
}

static void ids_fill(void *const data, const size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)data)[i] = (uint8_t)draw(&id_state);
}

static uint32_t ids_word(void)
{
    return (uint32_t)draw(&id_state);
}

static void seed_ids(uint64_t seed)
{
    static struct randombytes_implementation implementation = {
        .implementation_name = ids_name, .random = ids_word, .buf = ids_fill};
    /* Its first use draws, too. */
    if (sodium_init() < 0 || randombytes_set_implementation(&implementation) != 0)
        abort();
    id_state = seed;
}

int64_t world_now_ms(const struct world *world)
{
    return world->now_ms;
}

struct timer_wheel *world_wheel(struct world *world)
{
    return &world->wheel;
}

void cluster_tell(struct world *world, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    story_add(world->story, world->now_ms, STORY_CLUSTER, format, args);
    va_end(args);
}

void world_note(struct world *world, const char *room, const char *format, ...)
{
    va_list args;
    int index = 0;
    while (index < CLUSTER_ROOMS - 1 && strcmp(cluster_room_names[index], room) != 0)
        index++;
    if (!story_follows(world->story, index))
        return;
    va_start(args, format);
    story_add(world->story, world->now_ms, index, format, args);
    va_end(args);
}

void cluster_violated(struct world *world, const char *invariant, int room, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    story_break(world->story, world->now_ms, invariant, room, format, args);
    va_end(args);
}

bool cluster_broken(const struct world *world)
{
    return story_broken(world->story);
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

int64_t wiring_wall_ms(void *ctx)
{
    return wall_base_ms + ((struct process *)ctx)->world->now_ms;
}

static void push_to_gateway(struct world_conn *conn, struct event event)
{
    event.at_ms = cluster_later(conn->world, &conn->to_gateway_ms, DIAL_MS);
    event.process = conn->process;
    event.conn = conn;
    cluster_push(conn->world, event);
}

struct world_conn *world_connect(struct world *world, int gateway, const struct conn_handlers *handlers, void *ctx)
{
    struct world_conn *conn = mem_new(struct world_conn);
    conn->world = world;
    conn->process = &world->processes[gateway];
    conn->life = conn->process->life;
    conn->handlers = *handlers;
    conn->ctx = ctx;
    conn->listening = true;
    conn->next = world->conns;
    world->conns = conn;
    push_to_gateway(conn, (struct event){.kind = EVENT_OPEN});
    return conn;
}

void world_send(struct world_conn *conn, const Signalbox__V1__ClientMessage *message)
{
    push_to_gateway(conn, (struct event){.kind = EVENT_TO_GATEWAY, .bytes = payload_pack(&message->base)});
}

void world_disconnect(struct world_conn **conn_ptr, bool clean)
{
    struct world_conn *conn = *conn_ptr;
    *conn_ptr = NULL;
    if (conn == NULL)
        return;
    conn->listening = false;
    push_to_gateway(conn, (struct event){.kind = EVENT_GONE, .clean = clean});
}

struct gateway *world_gateway(struct world *world, int gateway)
{
    return world->processes[gateway].gateway;
}

bool world_gateway_counts(const struct world *world, int gateway)
{
    const struct process *process = &world->processes[gateway];
    return process->alive && cluster_lists(cluster_newest_view(world), &process->address);
}

void wiring_client_send(void *ctx, void *transport, struct outmsg *message, enum message_class class)
{
    struct world_conn *conn = transport;
    cluster_push(conn->world, (struct event){.at_ms = cluster_later(conn->world, &conn->to_client_ms, DIAL_MS),
                                             .kind = EVENT_TO_CLIENT,
                                             .conn = conn,
                                             .bytes = payload_ref((struct payload *)outmsg_bytes(message))});
}

void wiring_client_close(void *ctx, void *transport, uint16_t code, const char *reason)
{
    struct world_conn *conn = transport;
    cluster_push(conn->world, (struct event){.at_ms = cluster_later(conn->world, &conn->to_client_ms, DIAL_MS),
                                             .kind = EVENT_CLOSED,
                                             .conn = conn,
                                             .code = code});
}

static void gone(struct world_conn *conn, bool clean)
{
    if (conn->client != NULL)
        gateway_client_gone(conn->process->gateway, &conn->client, clean, conn->world->now_ms);
}

static void hang_up(struct process *process)
{
    for (struct world_conn *conn = process->world->conns; conn != NULL; conn = conn->next) {
        if (conn->process != process || conn->client == NULL)
            continue;
        gone(conn, false);
        wiring_client_close(NULL, conn, 0, "");
    }
}

static void handle_client_event(struct world *world, struct event *event)
{
    struct world_conn *conn = event->conn;
    bool there = conn->process->alive && conn->process->life == conn->life && !conn->process->leaving;
    if (event->kind == EVENT_OPEN && there) {
        conn->client = gateway_client_open(conn->process->gateway, conn, NULL, world->now_ms);
    } else if (event->kind == EVENT_OPEN) {
        wiring_client_close(NULL, conn, 0, "");
    } else if (event->kind == EVENT_TO_GATEWAY && conn->client != NULL) {
        Signalbox__V1__ClientMessage *message =
            signalbox__v1__client_message__unpack(NULL, event->bytes->size, event->bytes->data);
        gateway_client_message(conn->process->gateway, conn->client, message, event->bytes->size, world->now_ms);
        signalbox__v1__client_message__free_unpacked(message, NULL);
    } else if (event->kind == EVENT_GONE) {
        gone(conn, event->clean);
    } else if (event->kind == EVENT_TO_CLIENT && conn->listening) {
        Signalbox__V1__ServerMessage *message =
            signalbox__v1__server_message__unpack(NULL, event->bytes->size, event->bytes->data);
        conn->handlers.message(conn->ctx, message);
        signalbox__v1__server_message__free_unpacked(message, NULL);
    } else if (event->kind == EVENT_CLOSED) {
        gone(conn, false);
        if (conn->listening) {
            conn->listening = false;
            conn->handlers.closed(conn->ctx, event->code);
        }
    }
}

/* --- processes ------------------------------------------------------------------------------------------------- */

bool process_runs(const struct process *process)
{
    return process->alive && process->world->now_ms >= process->paused_until_ms;
}

void process_start(struct process *process)
{
    struct world *world = process->world;
    int index = process->index;
    bool gateway = index < world->gateways;
    struct process before = {.weight = process->weight};
    memcpy(before.region, process->region, sizeof before.region);
    *process = before;
    process->world = world;
    process->index = index;
    process->alive = true;
    process->life = ++world->lives;
    timer_wheel_init(&process->wheel, world->now_ms);
    wiring_name(process, gateway ? NODE_GATEWAY : NODE_SHARD);
    wiring_open_core(process, world->keyring, &world->token_keys);
    wiring_open_node(process);
    cluster_tell(world, "%s starts as %016llx", process->address.id, (unsigned long long)process->address.incarnation);
}

static void process_stop(struct process *process)
{
    process->alive = process->bus_up = false;
    hang_up(process);
    wiring_close_node(process);
    gateway_free(&process->gateway);
    shard_free(&process->shard);
}

void process_crash(struct process *process)
{
    cluster_tell(process->world, "%s is killed", process->address.id);
    process_stop(process);
}

void process_pause(struct process *process, int64_t ms)
{
    process->paused_until_ms = process->world->now_ms + ms;
    cluster_tell(process->world, "%s is paused for %d ms", process->address.id, (int)ms);
    cluster_push(process->world,
                 (struct event){.at_ms = process->paused_until_ms, .kind = EVENT_WAKE, .process = process});
}

/* The process misses its own echo after a while, and finds another connection once there is one to be had. */
static void lose_bus(struct process *process, int64_t ms)
{
    struct world *world = process->world;
    struct event event = {.process = process, .incarnation = process->address.incarnation};
    process->cut_until_ms = world->now_ms + ms;
    if (ms <= ECHO_LOST_MS)
        return;
    event.kind = EVENT_BUS_DOWN;
    event.at_ms = world->now_ms + ECHO_LOST_MS;
    cluster_push(world, event);
    event.kind = EVENT_BUS_UP;
    event.at_ms = process->cut_until_ms + (int64_t)world_random(world, RECONNECT_MAX_MS);
    cluster_push(world, event);
}

void process_cut(struct process *process, int64_t ms)
{
    process->mute_until_ms = process->world->now_ms + ms;
    cluster_tell(process->world, "%s is cut off from the bus for %d ms", process->address.id, (int)ms);
    lose_bus(process, ms);
}

void cluster_lose_server(struct world *world, int server, int64_t ms)
{
    cluster_tell(world, "NATS server %d is lost, its processes find another after %d ms", server, (int)ms);
    for (int i = server; i < world->gateways + world->shards; i += CLUSTER_SERVERS)
        if (world->processes[i].alive)
            lose_bus(&world->processes[i], ms);
}

void process_drain(struct process *process, uint32_t within_ms)
{
    cluster_tell(process->world, "%s drains within %u ms", process->address.id, within_ms);
    process->leave_by_ms = process->world->now_ms + within_ms;
    membership_drain(process->membership, within_ms, process->world->now_ms);
}

void process_leave(struct process *process)
{
    cluster_tell(process->world, "%s leaves", process->address.id);
    process->leaving = true;
    hang_up(process);
    membership_leave(process->membership, process->world->now_ms);
}

/* --- turns ----------------------------------------------------------------------------------------------------- */

/* Two runs of one seed must agree in every step. */
static void mix_digest(struct world *world, const struct event *event)
{
    uint64_t hash = world->digest ^ (uint64_t)world->now_ms;
    hash = (hash ^ (uint64_t)event->kind ^ (uint64_t)(event->process != NULL ? event->process->index : -1) << 8) *
           0x9e3779b97f4a7c15;
    for (size_t i = 0; event->bytes != NULL && i < event->bytes->size; i++)
        hash = (hash ^ event->bytes->data[i]) * 0x100000001b3;
    world->digest = hash ^ (hash >> 29);
}

static void handle(struct world *world, struct event *event)
{
    struct process *process = event->process;
    mix_digest(world, event);
    if (event->kind == EVENT_WAKE) {
        if (process->alive && process->paused_until_ms == event->at_ms)
            cluster_tell(world, "%s wakes", process->address.id);
    } else if (event->kind == EVENT_KILL) {
        if (process->alive && process->address.incarnation == event->incarnation)
            process_crash(process);
    } else if (process != NULL && process->alive && world->now_ms < process->paused_until_ms) {
        event->at_ms = process->paused_until_ms;
        heap_push(&world->events, event->at_ms, event->order, event);
        return;
    } else if (event->kind == EVENT_LOG_READ || event->kind == EVENT_LOG_ENTRY || event->kind == EVENT_LOG_APPEND) {
        cluster_log_handle(world, event);
    } else if (event->conn != NULL) {
        handle_client_event(world, event);
    } else if (process->alive && process->address.incarnation == event->incarnation) {
        wiring_event(process, event);
    }
    cluster_drop_event(event);
}

static void process_turn(struct process *process)
{
    int64_t now_ms = process->world->now_ms;
    timer_wheel_advance(&process->wheel, now_ms);
    if (process->ended) {
        cluster_tell(process->world, "%s ends", process->address.id);
        process_stop(process);
        return;
    }
    if (process->rejoin_wanted)
        wiring_rejoin(process);
    if (process->leave_wanted && !process->leaving)
        process_leave(process);
    if (process->release_wanted) {
        process->release_wanted = false;
        links_release(process->links, now_ms);
        process->links_due_ms = now_ms;
    }
    if (process->flush_wanted) {
        process->flush_wanted = false;
        shard_flush(process->shard, now_ms);
    }
    if (process->links_due_ms >= 0 && process->links_due_ms <= now_ms) {
        int64_t wait_ms = links_flush(process->links, now_ms);
        process->links_due_ms = wait_ms < 0 ? -1 : now_ms + (wait_ms > 0 ? wait_ms : 1);
    }
}

/* Everything that is due now, as a loop's turn does it: input, then timers, then what was put off to the end. */
static void turn(struct world *world)
{
    timer_wheel_advance(&world->wheel, world->now_ms);
    while (heap_due_ms(&world->events) <= world->now_ms)
        handle(world, heap_pop(&world->events));
    for (int i = 0; i < world->gateways + world->shards; i++)
        if (process_runs(&world->processes[i]))
            process_turn(&world->processes[i]);
    cluster_check(world);
}

static int64_t wheel_due_ms(struct timer_wheel *wheel, int64_t now_ms)
{
    int64_t wait_ms = timer_wheel_wait_ms(wheel, now_ms);
    return wait_ms < 0 ? INT64_MAX : now_ms + wait_ms;
}

static int64_t next_due_ms(struct world *world)
{
    int64_t due_ms = wheel_due_ms(&world->wheel, world->now_ms);
    if (heap_due_ms(&world->events) < due_ms)
        due_ms = heap_due_ms(&world->events);
    for (int i = 0; i < world->gateways + world->shards; i++) {
        struct process *process = &world->processes[i];
        if (!process_runs(process))
            continue;
        int64_t timers_ms = wheel_due_ms(&process->wheel, world->now_ms);
        due_ms = timers_ms < due_ms ? timers_ms : due_ms;
        if (process->links_due_ms >= 0 && process->links_due_ms < due_ms)
            due_ms = process->links_due_ms;
    }
    return due_ms;
}

void world_run(struct world *world, int64_t ms)
{
    int64_t end_ms = world->now_ms + ms;
    turn(world);
    while (world->now_ms < end_ms && !cluster_broken(world)) {
        int64_t due_ms = next_due_ms(world);
        if (due_ms <= world->now_ms)
            due_ms = world->now_ms + 1;
        world->now_ms = due_ms < end_ms ? due_ms : end_ms;
        turn(world);
    }
}

/* --- beginning and end ----------------------------------------------------------------------------------------- */

struct world *cluster_new(uint64_t seed, int shards, int gateways, struct story *story)
{
    struct world *world = mem_new(struct world);
    char error[128];
    assert(shards + gateways <= CLUSTER_PROCESSES_MAX);
    seed_ids(seed);
    world->seed = world->random = seed;
    world->now_ms = STARTED_MS;
    world->story = story;
    world->shards = shards;
    world->gateways = gateways;
    world->times = membership_default_times;
    timer_wheel_init(&world->wheel, world->now_ms);
    world->keyring = jwt_keyring_new(0);
    if (jwt_keyring_add_secret(world->keyring, "sim", "key", secret, error, sizeof error) != 0)
        abort();
    token_key_init(&world->token_keys, "the cluster's secret of the simulation", NULL);
    for (int i = 0; i < CLUSTER_ROOMS; i++)
        world->rooms[i] = room_key_make("sim", cluster_room_names[i]);
    world->processes = mem_zalloc((size_t)(shards + gateways) * sizeof *world->processes);
    for (int i = 0; i < shards + gateways; i++) {
        world->processes[i].world = world;
        world->processes[i].index = i;
    }
    return world;
}

void cluster_free(struct world **world_ptr)
{
    struct world *world = *world_ptr;
    if (world == NULL)
        return;
    for (int i = 0; i < world->gateways + world->shards; i++)
        if (world->processes[i].alive)
            process_stop(&world->processes[i]);
    while (world->conns != NULL) {
        struct world_conn *conn = world->conns;
        world->conns = conn->next;
        free(conn);
    }
    while (world->events.count > 0)
        cluster_drop_event(heap_pop(&world->events));
    heap_done(&world->events);
    for (size_t i = 0; i < world->entry_count; i++) {
        payload_unref(&world->entries[i].bytes);
        view_unref(&world->entries[i].view);
    }
    free(world->entries);
    free(world->used_epochs);
    free(world->processes);
    free(world->log);
    jwt_keyring_unref(&world->keyring);
    free(world);
    *world_ptr = NULL;
}
