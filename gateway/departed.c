/* Who has left rooms, as far as clients here were told. An owner that puts a room together from reports knows nothing
 * of departures; a gateway that missed one still reports the session, and its peers would see a sid that has left come
 * back. So of each room the latest are kept for as long as somebody may still hold such a session. */
#include "common/codec.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "gateway/internal.h"
#include <stdlib.h>
#include <string.h>

enum { DEPARTED_MAX = 32, DEPARTED_FIRST = 4, DEPARTED_KEEP_MS = 10 * 60 * 1000 };

struct departed {
    struct sid sid;
    int64_t until_ms;
    Signalbox__V1__LeaveReason reason;
};

static void drop_oldest(struct gw_room *room, uint32_t count)
{
    room->departed_count -= count;
    memmove(room->departed, room->departed + count, room->departed_count * sizeof *room->departed);
}

static void drop_old(struct gw_room *room, int64_t now_ms)
{
    uint32_t old = 0;
    while (old < room->departed_count && room->departed[old].until_ms <= now_ms)
        old++;
    if (old > 0)
        drop_oldest(room, old);
}

static void add(struct gw_room *room, const Signalbox__V1__ParticipantLeft *left, int64_t now_ms)
{
    struct departed departed = {.until_ms = now_ms + DEPARTED_KEEP_MS, .reason = left->reason};
    if (!sid_parse(left->sid, &departed.sid))
        return;
    drop_old(room, now_ms);
    if (room->departed_count == DEPARTED_MAX) {
        drop_oldest(room, 1);
        metric_add(M_DEPARTURES_FORGOTTEN, 1);
    }
    uint32_t count = room->departed_count;
    /* Doubled whenever it is full: its sizes are powers of two. */
    if (count == 0 || (count >= DEPARTED_FIRST && (count & (count - 1)) == 0))
        room->departed = mem_realloc(room->departed, (count == 0 ? DEPARTED_FIRST : 2 * count) * sizeof departed);
    room->departed[room->departed_count++] = departed;
}

void departed_note(struct gw_room *room, const ProtobufCBinaryData *message, int64_t now_ms)
{
    struct arena *arena = &room->gateway->arena;
    arena_reset(arena);
    const Signalbox__V1__ServerMessage *server = (const Signalbox__V1__ServerMessage *)protobuf_c_message_unpack(
        &signalbox__v1__server_message__descriptor, &arena->allocator, message->len, message->data);
    if (server == NULL || server->body_case != SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS)
        return;
    for (size_t i = 0; i < server->room_events->n_events; i++) {
        const Signalbox__V1__RoomEvent *event = server->room_events->events[i];
        if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT)
            add(room, event->left, now_ms);
        else if (event->event_case == SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM)
            interest_viewers_changed(room, now_ms);
    }
}

size_t departed_say(const struct session *session, Signalbox__Cluster__V1__Departure ***ret_departures, int64_t now_ms)
{
    struct gw_room *room = session->room;
    struct arena *arena = &session->gateway->arena;
    if (!session->says_departures)
        return 0;
    drop_old(room, now_ms);
    size_t count = room->departed_count;
    Signalbox__Cluster__V1__Departure **list = arena_alloc(arena, (count + 1) * sizeof *list);
    for (size_t i = 0; i < count && list != NULL; i++) {
        Signalbox__Cluster__V1__Departure *said = arena_alloc(arena, sizeof *said);
        char *sid_text = arena_alloc(arena, SID_TEXT_SIZE + 1);
        if (said == NULL || sid_text == NULL)
            return 0;
        signalbox__cluster__v1__departure__init(said);
        sid_format(&room->departed[i].sid, sid_text);
        said->sid = sid_text;
        said->reason = room->departed[i].reason;
        said->left_ms = (uint32_t)(room->departed[i].until_ms - now_ms);
        list[i] = said;
    }
    *ret_departures = list;
    return list != NULL ? count : 0;
}

/* --- for good ---------------------------------------------------------------------------------------------------- */

/* Shards tell gateways. */
static void send(void *ctx, const struct node_address *to, Signalbox__Cluster__V1__Item *item)
{
    struct gateway *gateway = ctx;
    if (to->kind != NODE_SHARD)
        return;
    struct payload *packed = link_pack_item(item);
    gateway->actions.to_shard(gateway->ctx, to, packed);
    payload_unref(&packed);
}

/* Its owner's own word may have been lost with the owner. */
static void on_revoked(void *ctx, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    struct gateway *gateway = ctx;
    struct session *session;
    HASH_FIND(hh_sid, gateway->sessions_by_sid, sid, sizeof *sid, session);
    if (session == NULL || session->state == SESSION_DEPARTED)
        return;
    struct client *client = session->client;
    session_depart(session, reason, now_ms);
    if (client != NULL)
        client_end(client, close_code_for(reason, SIGNALBOX__V1__LEAVE_ACTION__STOP), reason,
                   SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this session was ended");
}

void departed_init(struct gateway *gateway)
{
    revocations_init(&gateway->revocations);
    gateway->revocations.send = send;
    gateway->revocations.revoked = on_revoked;
    gateway->revocations.ctx = gateway;
}
