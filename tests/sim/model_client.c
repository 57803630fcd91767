#include "model_client.h"

#include "common/epoch.h"
#include "common/mem.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 50,
    RETRANSMIT_MS = 1000,
    RETRANSMIT_DOUBLINGS = 3,
    SYNC_AGAIN_MS = 5000,
    BEHIND_MS = 2000,
    PING_MS = 10000,
    DEAD_MS = 20000,
    BACKOFF_BASE_MS = 500,
    BACKOFF_MAX_MS = 15000,
    NAME_AGAIN_MS = 5000,
    OVERTAKING_MS = 15000,
    KEPT_MS = 29000, /* the resume window, less what it takes until a gateway knows of a loss */
};

typedef Signalbox__V1__ClientMessage Request;
typedef Signalbox__V1__ServerMessage Message;

static void violated(struct model_client *client, const char *invariant, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void violated(struct model_client *client, const char *invariant, const char *format, ...)
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

static void copy_text(char *to, size_t size, const char *from)
{
    snprintf(to, size, "%s", from);
}

/* --- the roster ------------------------------------------------------------------------------------------------ */

static size_t find(const struct model_participant *list, size_t count, const char *sid)
{
    size_t i = 0;
    while (i < count && strcmp(list[i].sid, sid) != 0)
        i++;
    return i;
}

const struct model_participant *model_client_find(const struct model_client *client, const char *sid)
{
    size_t i = find(client->roster, client->roster_count, sid);
    return i < client->roster_count ? &client->roster[i] : NULL;
}

static void end_pair(struct model_client *client, const char *peer);

static void remember_left(struct model_client *client, const char *sid)
{
    client->left = mem_realloc(client->left, (client->left_count + 1) * sizeof *client->left);
    copy_text(client->left[client->left_count++], SID_TEXT_SIZE + 1, sid);
    end_pair(client, sid);
}

static void put(struct model_client *client, struct model_participant *list, size_t *count,
                const Signalbox__V1__Participant *participant)
{
    size_t i = find(list, *count, participant->sid);
    for (size_t n = 0; n < client->left_count; n++)
        if (strcmp(client->left[n], participant->sid) == 0)
            violated(client, "join and leave once", "%s has left and is back", participant->sid);
    if (i < *count && list[i].version > participant->version)
        return;
    if (i == MODEL_ROSTER_MAX) {
        violated(client, "queues", "the roster is too large");
        return;
    }
    if (i == *count) {
        (*count)++;
        world_note(client->world, client->room, "%s is told of %s (%s)", client->identity, participant->identity,
                   participant->sid);
    }
    copy_text(list[i].sid, sizeof list[i].sid, participant->sid);
    copy_text(list[i].identity, sizeof list[i].identity, participant->identity);
    copy_text(list[i].name, sizeof list[i].name, participant->name);
    list[i].version = participant->version;
}

static void remove_participant(struct model_client *client, const char *sid)
{
    size_t i = find(client->roster, client->roster_count, sid);
    if (i == client->roster_count)
        return;
    world_note(client->world, client->room, "%s sees %s (%s) leave", client->identity, client->roster[i].identity, sid);
    remember_left(client, sid); /* which may point into the roster */
    client->roster[i] = client->roster[--client->roster_count];
}

static void ask_sync(struct model_client *client, bool position_known, const char *cursor)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__SyncState sync = SIGNALBOX__V1__SYNC_STATE__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    int64_t now_ms = world_now_ms(client->world);
    if (cursor[0] == '\0' && client->asked_ms != 0 && now_ms - client->asked_ms < SYNC_AGAIN_MS)
        return;
    client->asked_ms = now_ms;
    if (position_known && client->has_position) {
        position.epoch = client->epoch;
        position.seq = client->seq;
        sync.position = &position;
    }
    sync.cursor = (char *)cursor;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SYNC_STATE;
    message.sync_state = &sync;
    world_send(client->conn, &message);
}

static void resend_all(struct model_client *client);

/* Later owners have greater epochs, whichever gateway tells of them. */
static void take_epoch(struct model_client *client, const char *text)
{
    struct epoch before, now;
    if (!epoch_parse(text, &now))
        violated(client, "epochs only grow", "%s is no epoch", text);
    else if (epoch_parse(client->epoch, &before) && epoch_compare(&now, &before) < 0)
        violated(client, "epochs only grow", "goes back from epoch %s to %s", client->epoch, text);
    copy_text(client->epoch, sizeof client->epoch, text);
}

static void on_snapshot(struct model_client *client, const Signalbox__V1__Snapshot *snapshot)
{
    bool new_epoch = strcmp(client->epoch, snapshot->position->epoch) != 0;
    if (!client->pulling || client->page_seq != snapshot->position->seq) {
        client->pulling = true;
        client->page_seq = snapshot->position->seq;
        client->page_count = 0;
    }
    for (size_t i = 0; i < snapshot->n_participants; i++)
        put(client, client->pages, &client->page_count, snapshot->participants[i]);
    client->asked_ms = 0;
    if (snapshot->next_cursor[0] != '\0') {
        ask_sync(client, false, snapshot->next_cursor);
        return;
    }
    client->pulling = false;
    client->settling = snapshot->settling;
    for (size_t i = client->roster_count; i-- > 0 && !snapshot->settling;)
        if (find(client->pages, client->page_count, client->roster[i].sid) == client->page_count)
            remove_participant(client, client->roster[i].sid);
    for (size_t i = 0; i < client->page_count; i++) {
        size_t at = find(client->roster, client->roster_count, client->pages[i].sid);
        if (at == client->roster_count)
            client->roster_count++;
        client->roster[at] = client->pages[i];
    }
    /* Whatever was said in the meantime is not in it. */
    for (size_t i = 0; i < client->heard_count; i++)
        client->heard[i].continuous = false;
    client->has_position = true;
    take_epoch(client, snapshot->position->epoch);
    client->seq = snapshot->position->seq;
    client->snapshots++;
    world_note(client->world, client->room, "%s has a snapshot: %zu at %" PRIu64 " of %s%s", client->identity,
               client->page_count, client->seq, client->epoch, client->settling ? ", settling" : "");
    if (new_epoch)
        resend_all(client);
}

static void on_room_message(struct model_client *client, const Signalbox__V1__Message *message)
{
    size_t i = 0;
    while (i < client->heard_count && strcmp(client->heard[i].from, message->from) != 0)
        i++;
    if (i == client->heard_count) {
        client->heard = mem_realloc(client->heard, (i + 1) * sizeof *client->heard);
        client->heard[client->heard_count++] = (struct model_heard){0};
        copy_text(client->heard[i].from, sizeof client->heard[i].from, message->from);
    }
    struct model_heard *heard = &client->heard[i];
    if (message->sender_seq <= heard->last) {
        /* A later owner may not know that an earlier one has put it into the order. */
        if (strcmp(heard->epoch, client->epoch) == 0)
            violated(client, "room messages", "message %" PRIu64 " of %s comes twice", message->sender_seq,
                     message->from);
        return;
    }
    copy_text(heard->epoch, sizeof heard->epoch, client->epoch);
    if (heard->continuous && message->sender_seq != heard->last + 1)
        violated(client, "room messages", "room message %" PRIu64 " of %s after %" PRIu64, message->sender_seq,
                 message->from, heard->last);
    if (strtoull(message->text, NULL, 10) != message->sender_seq)
        violated(client, "room messages", "room message %" PRIu64 " of %s says %s", message->sender_seq, message->from,
                 message->text);
    heard->last = message->sender_seq;
    heard->continuous = true;
}

static void on_updated(struct model_client *client, const Signalbox__V1__ParticipantUpdate *update)
{
    size_t i = find(client->roster, client->roster_count, update->sid);
    if (i == client->roster_count || update->version < client->roster[i].version)
        return;
    client->roster[i].version = update->version;
    if (update->profile != NULL)
        copy_text(client->roster[i].name, sizeof client->roster[i].name, update->profile->name);
}

static void on_settled(struct model_client *client, const Signalbox__V1__Settled *settled)
{
    uint64_t sum = 0;
    char text[64], digest[17];
    for (size_t i = 0; i < client->roster_count; i++) {
        uint64_t hash = 0xcbf29ce484222325;
        snprintf(text, sizeof text, "%s:%" PRIu64, client->roster[i].sid, client->roster[i].version);
        for (const char *c = text; *c != '\0'; c++)
            hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
        hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
        hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
        sum += hash ^ (hash >> 33);
    }
    snprintf(digest, sizeof digest, "%016" PRIx64, sum);
    client->settling = false;
    if (strcmp(digest, settled->digest) == 0)
        return;
    client->has_position = false; /* until the snapshot comes, on whatever connection */
    ask_sync(client, false, "");
}

static void on_events(struct model_client *client, const Signalbox__V1__RoomEvents *events)
{
    if (client->has_position && strcmp(client->epoch, events->epoch) != 0)
        violated(client, "epochs are announced", "hears events of epoch %s without having been told of it, at %s",
                 events->epoch, client->epoch);
    if (client->pulling)
        return;
    if (!client->has_position || strcmp(client->epoch, events->epoch) != 0 || events->first_seq > client->seq + 1) {
        ask_sync(client, true, "");
        return;
    }
    client->asked_ms = 0;
    if (events->last_seq <= client->seq)
        return;
    for (size_t i = 0; i < events->n_events; i++) {
        const Signalbox__V1__RoomEvent *event = events->events[i];
        if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_JOINED)
            put(client, client->roster, &client->roster_count, event->joined);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT)
            remove_participant(client, event->left->sid);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_UPDATED)
            on_updated(client, event->updated);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE)
            on_room_message(client, event->message);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED)
            on_settled(client, event->settled);
    }
    client->seq = events->last_seq;
}

/* --- directed messages ----------------------------------------------------------------------------------------- */

static struct model_pair *pair_with(struct model_client *client, const char *peer)
{
    for (size_t i = 0; i < client->pair_count; i++)
        if (strcmp(client->pairs[i].peer, peer) == 0)
            return &client->pairs[i];
    client->pairs = mem_realloc(client->pairs, (client->pair_count + 1) * sizeof *client->pairs);
    struct model_pair *pair = &client->pairs[client->pair_count++];
    *pair = (struct model_pair){.expected = 1};
    copy_text(pair->peer, sizeof pair->peer, peer);
    return pair;
}

static void end_pair(struct model_client *client, const char *peer)
{
    pair_with(client, peer)->ended = true;
}

const struct model_pair *model_client_pair(const struct model_client *client, const char *peer)
{
    for (size_t i = 0; i < client->pair_count; i++)
        if (strcmp(client->pairs[i].peer, peer) == 0)
            return &client->pairs[i];
    return NULL;
}

const struct model_heard *model_client_heard(const struct model_client *client, const char *from)
{
    for (size_t i = 0; i < client->heard_count; i++)
        if (strcmp(client->heard[i].from, from) == 0)
            return &client->heard[i];
    return NULL;
}

/* A message that says its own number; to the room if `peer` is "". */
static void transmit(struct model_client *client, const char *peer, uint64_t seq, uint64_t ack)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Send send = SIGNALBOX__V1__SEND__INIT;
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, seq);
    route.peer = (char *)peer;
    route.seq = seq;
    route.ack = ack;
    send.delivery = SIGNALBOX__V1__DELIVERY_CLASS__RELIABLE;
    send.data_case = SIGNALBOX__V1__SEND__DATA_TEXT;
    send.text = text;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_SEND;
    message.send = &send;
    world_send(client->conn, &message);
}

static void send_ack(struct model_client *client, struct model_pair *pair)
{
    Request message = SIGNALBOX__V1__CLIENT_MESSAGE__INIT;
    Signalbox__V1__Route route = SIGNALBOX__V1__ROUTE__INIT;
    Signalbox__V1__Ack ack = SIGNALBOX__V1__ACK__INIT;
    route.peer = pair->peer;
    route.ack = pair->expected - 1;
    message.route = &route;
    message.body_case = SIGNALBOX__V1__CLIENT_MESSAGE__BODY_ACK;
    message.ack = &ack;
    pair->ack_due = false;
    world_send(client->conn, &message);
}

static void resend(struct model_client *client, struct model_pair *pair)
{
    pair->sent_ms = world_now_ms(client->world);
    for (uint64_t seq = pair->acked + 1; seq <= pair->sent && !pair->ended; seq++)
        transmit(client, pair->peer, seq, pair->expected - 1);
}

static void resend_room(struct model_client *client)
{
    client->room_sent_ms = world_now_ms(client->world);
    for (uint64_t seq = client->room_acked + 1; seq <= client->room_sent; seq++)
        transmit(client, "", seq, 0);
}

static void resend_all(struct model_client *client)
{
    for (size_t i = 0; i < client->pair_count; i++)
        resend(client, &client->pairs[i]);
    resend_room(client);
}

static void on_acked(struct model_client *client, const Signalbox__V1__Route *route)
{
    if (route->peer[0] == '\0') {
        if (route->ack > client->room_sent)
            violated(client, "room messages", "the room acknowledges %" PRIu64 " of %" PRIu64, route->ack,
                     client->room_sent);
        else if (route->ack > client->room_acked)
            client->room_acked = route->ack;
        return;
    }
    struct model_pair *pair = pair_with(client, route->peer);
    if (route->ack > pair->sent) {
        violated(client, "directed messages", "%s acknowledges %" PRIu64 " of %" PRIu64, route->peer, route->ack,
                 pair->sent);
    } else if (route->ack > pair->acked) {
        pair->acked = route->ack;
        pair->doublings = 0;
        pair->sent_ms = world_now_ms(client->world);
    }
}

static void on_directed(struct model_client *client, const Message *message)
{
    const Signalbox__V1__Route *route = message->route;
    struct model_pair *pair = pair_with(client, route->peer);
    on_acked(client, route);
    bool known = model_client_find(client, route->peer) != NULL ||
                 (client->has_position && !client->pulling && client->seq >= route->sender_join->seq);
    if (pair->ended || !known || route->seq > pair->expected)
        return; /* it comes again */
    pair->ack_due = true;
    if (route->seq < pair->expected)
        return;
    if (strtoull(message->message->text, NULL, 10) != pair->delivered + 1)
        violated(client, "directed messages", "directed message %" PRIu64 " of %s says %s", route->seq, route->peer,
                 message->message->text);
    pair->expected++;
    pair->delivered++;
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
        violated(client, "sessions are kept", "resumed %s and became %s", client->sid, ok->sid);
    if (client->sid[0] == '\0')
        client->joins++;
    else
        client->resumes++;
    copy_text(client->sid, sizeof client->sid, ok->sid);
    free(client->resume_token);
    client->resume_token = mem_strdup(ok->resume_token);
    if (ok->recovered)
        take_epoch(client, ok->position->epoch);
    world_note(client->world, client->room, "%s is greeted as %s by %s for %s: %s, generation %" PRIu64,
               client->identity, client->sid, ok->gateway, ok->shard, ok->recovered ? "recovered" : "not recovered",
               ok->bind_generation);
    client->greeted = true;
    client->held_ms = client->heard_ms;
    client->attempt = 0;
    client->asked_ms = client->name_said_ms = 0;
    client->pulling = false;
    ping(client);
    resend_all(client);
}

static void on_pong(struct model_client *client, const Signalbox__V1__Pong *pong)
{
    if (pong->position == NULL || client->pulling)
        return;
    bool behind = strcmp(client->epoch, pong->position->epoch) != 0 || pong->position->seq > client->seq;
    if (!behind)
        client->behind_ms = 0;
    else if (client->behind_ms == 0)
        client->behind_ms = world_now_ms(client->world);
    client->behind_seq = pong->position->seq;
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
        violated(client, "sessions are kept", "told to join afresh %" PRId64 " ms after it was served: reason %d, %s",
                 away_ms, (int)leave->reason, leave->message);
    if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__REJOIN)
        forget_session(client);
    if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__STOP && overtaken(client, leave->reason))
        forget_session(client);
    else if (leave->action == SIGNALBOX__V1__LEAVE_ACTION__STOP)
        violated(client, "sessions are kept", "told to stop: reason %d, %s", (int)leave->reason, leave->message);
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
        violated(client, "order of a connection", "message %d before hello_ok", (int)message->body_case);
        return;
    }
    switch (message->body_case) {
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_SNAPSHOT:
        on_snapshot(client, message->snapshot);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS:
        on_events(client, message->room_events);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MESSAGE:
        on_directed(client, message);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_ACK:
        on_acked(client, message->route);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_UNDELIVERABLE:
        world_note(client->world, client->room, "%s is told that %s has gone", client->identity, message->route->peer);
        if (model_client_find(client, message->route->peer) == NULL)
            end_pair(client, message->route->peer);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_MOVED:
        world_note(client->world, client->room, "%s goes on at %" PRIu64 " of %s", client->identity, client->seq,
                   message->moved->epoch);
        take_epoch(client, message->moved->epoch);
        resend_all(client);
        break;
    case SIGNALBOX__V1__SERVER_MESSAGE__BODY_PONG:
        on_pong(client, message->pong);
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
    for (size_t i = 0; i < client->pair_count; i++) {
        struct model_pair *pair = &client->pairs[i];
        if (pair->ack_due)
            send_ack(client, pair);
        if (pair->ended || pair->acked == pair->sent ||
            now_ms < pair->sent_ms + ((int64_t)RETRANSMIT_MS << pair->doublings))
            continue;
        if (pair->doublings < RETRANSMIT_DOUBLINGS)
            pair->doublings++;
        resend(client, pair);
    }
    if (client->room_acked < client->room_sent && now_ms >= client->room_sent_ms + RETRANSMIT_MS)
        resend_room(client);
    if (client->behind_ms != 0 && now_ms - client->behind_ms >= BEHIND_MS) {
        client->behind_ms = 0;
        if (client->seq < client->behind_seq)
            ask_sync(client, true, "");
    }
    if (client->asked_ms != 0 && now_ms - client->asked_ms >= SYNC_AGAIN_MS) {
        client->pulling = false;
        ask_sync(client, true, "");
    }
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
    copy_text(client->identity, sizeof client->identity, identity);
    copy_text(client->room, sizeof client->room, room);
    copy_text(client->name, sizeof client->name, identity);
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
    copy_text(client->name, sizeof client->name, name);
    client->name_said_ms = 0;
}

bool model_client_send(struct model_client *client)
{
    if (!client->greeted || client->roster_count == 0)
        return false;
    const struct model_participant *to = &client->roster[world_random(client->world, client->roster_count)];
    struct model_pair *pair = pair_with(client, to->sid);
    if (strcmp(to->sid, client->sid) == 0 || pair->ended || pair->sent - pair->acked >= MODEL_WINDOW)
        return false;
    if (pair->sent == pair->acked)
        pair->sent_ms = world_now_ms(client->world);
    transmit(client, pair->peer, ++pair->sent, pair->expected - 1);
    return true;
}

bool model_client_say(struct model_client *client)
{
    if (!client->greeted || client->room_sent - client->room_acked >= MODEL_WINDOW)
        return false;
    if (client->room_sent == client->room_acked)
        client->room_sent_ms = world_now_ms(client->world);
    transmit(client, "", ++client->room_sent, 0);
    return true;
}
