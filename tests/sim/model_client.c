#include "model_private.h"

#include "common/mem.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 50,
    PING_MS = 10000,
    DEAD_MS = 20000,
    BACKOFF_BASE_MS = 500,
    BACKOFF_MAX_MS = 15000,
    NAME_AGAIN_MS = 5000,
    OVERTAKING_MS = 15000,
    KEPT_MS = 29000, /* the resume window, less what it takes until a gateway knows of a loss */
};

void model_violated(struct model_client *client, const char *invariant, const char *format, ...)
{
    if (client->violation[0] != '\0')
        return;
    client->invariant = invariant;
    int size = snprintf(client->violation, sizeof client->violation, "%s at %" PRId64 ": ", client->identity,
                        world_now_ms(client->world));
    va_list args;
    va_start(args, format);
    vsnprintf(client->violation + size, sizeof client->violation - (size_t)size, format, args);
    va_end(args);
}

void model_copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* --- the session ----------------------------------------------------------------------------------------------- */

static void forget_session(struct model_client *client)
{
    free(client->resume_token);
    free(client->pairs);
    free(client->heard);
    free(client->left);
    client->resume_token = NULL;
    client->resume_attempt = 0;
    client->pairs = NULL;
    client->heard = NULL;
    client->left = NULL;
    client->pair_count = client->heard_count = client->left_count = 0;
    client->roster_count = client->page_count = 0;
    client->has_position = client->pulling = client->settling = false;
    client->epoch[0] = client->sid[0] = '\0';
    client->seq = client->behind_seq = client->room_sent = client->room_acked = 0;
}

static void ping(struct model_client *client)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Ping body = SIGNALBOX__V1__PING__INIT;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_PING;
    message.ping = &body;
    client->pinged_ms = world_now_ms(client->world);
    world_send(client->conn, &message);
}

static void on_hello_ok(struct model_client *client, const Signalbox__V1__HelloOk *ok)
{
    if (client->sid[0] != '\0' && strcmp(client->sid, ok->sid) != 0)
        model_violated(client, "sessions are kept", "resumed %s and became %s", client->sid, ok->sid);
    if (client->sid[0] == '\0')
        client->joins++;
    else
        client->resumes++;
    model_copy_text(client->sid, sizeof client->sid, ok->sid);
    free(client->resume_token);
    client->resume_token = mem_strdup(ok->resume_token);
    if (ok->recovered)
        roster_take_epoch(client, ok->position->epoch);
    world_note(client->world, client->room, "%s is greeted as %s by %s for %s: %s, generation %" PRIu64,
               client->identity, client->sid, ok->gateway, ok->shard, ok->recovered ? "recovered" : "not recovered",
               ok->bind_generation);
    client->greeted = true;
    client->held_ms = client->heard_ms;
    client->attempt = 0;
    client->asked_ms = client->name_said_ms = 0;
    client->pulling = false;
    ping(client);
    messages_resend_all(client);
}

static void back_off(struct model_client *client)
{
    uint64_t most_ms = (uint64_t)BACKOFF_BASE_MS << (client->attempt < 10 ? client->attempt : 10);
    client->attempt++;
    client->greeted = false;
    client->next_dial_ms = world_now_ms(client->world) +
                           (int64_t)world_random(client->world, most_ms < BACKOFF_MAX_MS ? most_ms : BACKOFF_MAX_MS);
}

/* Of two joins in short order, the older one's hello may reach the owner last, if the bus has held it up: then the
 * newer session is replaced, and what remains is to join afresh. Resumes are numbered. */
static bool overtaken(const struct model_client *client, Signalbox__V1__LeaveReason reason)
{
    return client->dialled_ms - client->dialled_before_ms < OVERTAKING_MS &&
           reason == SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY;
}

static void on_leave(struct model_client *client, const Signalbox__V1__Leave *leave)
{
    world_note(client->world, client->room, "%s is told to leave: reason %d, action %d, %s", client->identity,
               (int)leave->reason, (int)leave->action, leave->message);
    int64_t away_ms = world_now_ms(client->world) - client->held_ms;
    if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__REJOIN && client->sid[0] != '\0' && away_ms < KEPT_MS)
        model_violated(client, "sessions are kept",
                       "told to join afresh %" PRId64 " ms after it was served: reason %d, %s", away_ms,
                       (int)leave->reason, leave->message);
    if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__REJOIN)
        forget_session(client);
    if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__STOP && overtaken(client, leave->reason))
        forget_session(client);
    else if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__STOP)
        model_violated(client, "sessions are kept", "told to stop: reason %d, %s", (int)leave->reason, leave->message);
}

static void on_message(void *ctx, const Message *message)
{
    struct model_client *client = ctx;
    client->heard_ms = world_now_ms(client->world);
    /* Once nobody has counted it for so long, it takes a resume to be held again. */
    if (client->greeted && client->heard_ms - client->held_ms < KEPT_MS &&
        world_gateway_counts(client->world, client->gateway))
        client->held_ms = client->heard_ms;
    switch (message->body_case) {
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_HELLO_OK:
        on_hello_ok(client, message->hello_ok);
        return;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_LEAVE:
        on_leave(client, message->leave);
        return;
    default:
        break;
    }
    if (!client->greeted) {
        model_violated(client, "order of a connection", "message %d before hello_ok", (int)message->body_case);
        return;
    }
    switch (message->body_case) {
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT:
        roster_take_snapshot(client, message->snapshot);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS:
        roster_take_events(client, message->room_events);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MESSAGE:
        messages_take_directed(client, message);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ACK:
        messages_take_ack(client, message->route);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_UNDELIVERABLE:
        world_note(client->world, client->room, "%s is told that %s has gone", client->identity, message->route->peer);
        if (model_client_find(client, message->route->peer) == NULL)
            messages_end_pair(client, message->route->peer);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MOVED:
        world_note(client->world, client->room, "%s goes on at %" PRIu64 " of %s", client->identity, client->seq,
                   message->moved->epoch);
        roster_take_epoch(client, message->moved->epoch);
        messages_resend_all(client);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_PONG:
        roster_take_pong(client, message->pong);
        break;
    default:
        break;
    }
}

static void on_closed(void *ctx, uint16_t code)
{
    struct model_client *client = ctx;
    world_note(client->world, client->room, "%s is closed with %d", client->identity, (int)code);
    client->conn = NULL;
    back_off(client);
}

static void dial(struct model_client *client)
{
    static const struct conn_handlers handlers = {on_message, on_closed};
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Hello hello = SIGNALBOX__V1__HELLO__INIT;
    Signalbox__V1__Join join = SIGNALBOX__V1__JOIN__INIT;
    Signalbox__V1__Position last = SIGNALBOX__V1__POSITION__INIT;
    char *token = NULL;
    client->conn = world_connect(client->world, client->gateway, &handlers, client);
    client->dialled_before_ms = client->dialled_ms;
    client->dialled_ms = client->heard_ms = world_now_ms(client->world);
    join.name = client->name;
    hello.join = &join;
    if (client->resume_token != NULL) {
        hello.resume_token = client->resume_token;
        hello.attempt = ++client->resume_attempt;
        last.epoch = client->epoch;
        last.seq = client->seq;
        if (client->has_position)
            hello.last = &last;
    } else {
        hello.token = token = world_mint(client->world, client->identity, client->room);
    }
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_HELLO;
    message.hello = &hello;
    world_note(client->world, client->room, "%s (%s) dials gateway %d", client->identity,
               client->sid[0] != '\0' ? client->sid : "new", client->gateway);
    world_send(client->conn, &message);
    free(token);
}

static void say_name(struct model_client *client, int64_t now_ms)
{
    const struct model_participant *self = model_client_find(client, client->sid);
    if (self == NULL || strcmp(self->name, client->name) == 0 || now_ms - client->name_said_ms < NAME_AGAIN_MS)
        return;
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SetMetadata set = SIGNALBOX__V1__SET_METADATA__INIT;
    set.name = client->name;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SET_METADATA;
    message.set_metadata = &set;
    client->name_said_ms = now_ms;
    world_send(client->conn, &message);
}

static void keep_up(struct model_client *client, int64_t now_ms)
{
    messages_keep_up(client, now_ms);
    roster_keep_up(client, now_ms);
    if (now_ms - client->pinged_ms >= PING_MS)
        ping(client);
    say_name(client, now_ms);
}

static void on_tick(struct timer *timer, int64_t now_ms)
{
    struct model_client *client = container_of(timer, struct model_client, tick);
    timer_set(world_wheel(client->world), timer, now_ms + TICK_MS);
    if (!client->wants_in)
        return;
    if (client->conn == NULL && now_ms >= client->next_dial_ms) {
        dial(client);
    } else if (client->conn != NULL && now_ms - client->heard_ms >= DEAD_MS) {
        world_disconnect(&client->conn, false);
        back_off(client);
    } else if (client->conn != NULL && client->greeted) {
        keep_up(client, now_ms);
    }
}

/* --- what the application does --------------------------------------------------------------------------------- */

void model_client_init(struct model_client *client, struct world *world, const char *identity, const char *room)
{
    *client = (struct model_client){.world = world};
    model_copy_text(client->identity, sizeof client->identity, identity);
    model_copy_text(client->room, sizeof client->room, room);
    model_copy_text(client->name, sizeof client->name, identity);
    timer_init(&client->tick, on_tick);
    timer_set(world_wheel(world), &client->tick, world_now_ms(world) + 1 + (int64_t)world_random(world, TICK_MS));
}

void model_client_done(struct model_client *client)
{
    timer_cancel(world_wheel(client->world), &client->tick);
    world_disconnect(&client->conn, false);
    forget_session(client);
}

void model_client_join(struct model_client *client, int gateway)
{
    client->wants_in = true;
    client->gateway = gateway;
    client->attempt = 0;
    client->next_dial_ms = world_now_ms(client->world);
}

void model_client_lose(struct model_client *client, int gateway)
{
    world_note(client->world, client->room, "%s (%s) loses its network", client->identity, client->sid);
    world_disconnect(&client->conn, false);
    client->gateway = gateway;
    back_off(client);
}

void model_client_leave(struct model_client *client, enum model_leave how)
{
    world_note(client->world, client->room, "%s (%s) leaves", client->identity, client->sid);
    if (how == MODEL_LEAVE_MESSAGE && client->conn != NULL && client->greeted) {
        Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
        Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
        message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_LEAVE;
        message.leave = &leave;
        world_send(client->conn, &message);
    } else if (how == MODEL_LEAVE_BEACON && client->resume_token != NULL) {
        gateway_leave_by_token(world_gateway(client->world, client->gateway), client->resume_token,
                               strlen(client->resume_token), world_now_ms(client->world));
    }
    world_disconnect(&client->conn, how == MODEL_LEAVE_CLOSE);
    client->wants_in = client->greeted = false;
    forget_session(client);
}

void model_client_reload(struct model_client *client, int gateway)
{
    world_note(client->world, client->room, "%s (%s) reloads its page", client->identity, client->sid);
    world_disconnect(&client->conn, false);
    client->greeted = false;
    forget_session(client);
    model_client_join(client, gateway);
}

void model_client_rename(struct model_client *client, const char *name)
{
    model_copy_text(client->name, sizeof client->name, name);
    client->name_said_ms = 0;
}
