/* Rooms that change their owner without their clients noticing.
 *
 * The new owner says where the room stands: under its own epoch, and how that goes on from what was before. A room that
 * came whole goes on at every position of the epoch it came from. One that was put together from reports goes on only
 * where the position and its digest are the same; elsewhere the clients get its state anew. Clients are told
 * `moved`, which lets them keep their position and send again what was not acknowledged. */
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "gateway/internal.h"
#include <stdio.h>

typedef Signalbox__Cluster__V1__EpochChange EpochChange;

static struct outmsg *moved_message(const struct gw_room *room, const struct epoch *epoch)
{
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Moved moved = SIGNALBOX__V1__MOVED__INIT;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    epoch_format(epoch, epoch_text);
    moved.shard = (char *)room->owner.id;
    moved.epoch = epoch_text;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_MOVED;
    message.moved = &moved;
    return outmsg_pack(&message);
}

void handover_tell(struct session *session, const struct epoch *epoch)
{
    if (session->client == NULL || session->client->closing || !session->greeted)
        return;
    struct outmsg *moved = moved_message(session->room, epoch);
    session->gateway->actions.send(session->gateway->ctx, session->client->transport, moved, CLASS_CONTROL);
    outmsg_unref(&moved);
}

/* Whose position goes on under the new epoch keeps it; `only_at` (0: any) is the one position for which that is so. */
static bool take_epoch(struct session *session, const struct epoch *from, uint64_t only_at)
{
    struct gw_room *room = session->room;
    bool same =
        session->has_position && epoch_equal(&session->epoch, from) && (only_at == 0 || session->seq == only_at);
    if (same)
        session->epoch = room->epoch;
    return same;
}

/* What was said to the owner before and not acknowledged is said to this one. */
static void say_unacknowledged(struct session *session, int64_t now_ms)
{
    if (session->acked_version == session->version)
        return;
    if (session->state == SESSION_BOUND) {
        resync_drop_session(session); /* nor may what is on its way to it count */
        resync_add_session(session);
    } else {
        session_announce(session, now_ms);
    }
}

static void go_on(struct session *session, bool same, struct outmsg *moved, int64_t now_ms)
{
    struct gw_room *room = session->room;
    struct gateway *gateway = session->gateway;
    say_unacknowledged(session, now_ms);
    if (session->state != SESSION_BOUND || session->client == NULL || session->client->closing)
        return;
    if (same && session->greeted)
        gateway->actions.send(gateway->ctx, session->client->transport, moved, CLASS_CONTROL);
    if (session->sync == SYNC_ASKED)
        session_ask_again(session, now_ms);
    else if (session->sync == SYNC_LIVE && epoch_compare(&session->epoch, &room->epoch) < 0)
        session_ask_snapshot(session, NULL, now_ms);
    else if (session->sync == SYNC_LIVE && !same && session->seq < room->seq)
        session_ask_events(session, now_ms);
    else if (session->sync == SYNC_PAGING)
        session_ask_snapshot(session, NULL, now_ms); /* its other pages are of another epoch */
}

static void all_go_on(struct gw_room *room, const struct epoch *from, uint64_t only_at, int64_t now_ms)
{
    struct outmsg *moved = moved_message(room, &room->epoch);
    list_for_each_safe(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        go_on(session, take_epoch(session, from, only_at), moved, now_ms);
    }
    outmsg_unref(&moved);
}

static void adopt(struct gw_room *room, const EpochChange *change, uint64_t only_at, int64_t now_ms)
{
    struct epoch from = room->epoch;
    room->epoch = epoch_from_proto(change->epoch);
    epoch_format(&room->epoch, room->epoch_text);
    room_owner_heard(room);
    all_go_on(room, &from, only_at, now_ms);
    interest_viewers_changed(room, now_ms); /* they count for no digest */
    metric_add_at(M_EPOCHS, only_at != 0 ? EPOCH_SAME_ROSTER : EPOCH_HANDED_OVER, 1);
    if (change->seq > room->seq) {
        room_expect(room, change->seq, now_ms);
        room_ask(room, now_ms);
    }
    resync_begin(room->gateway, now_ms);
}

/* Everybody gets the room's state anew, whatever they were about to get. */
static void begin_anew(struct gw_room *room, const struct epoch *epoch, const EpochChange *change, int64_t now_ms)
{
    list_for_each(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        if (session->sync == SYNC_ASKED || session->sync == SYNC_PAGING)
            session->sync = SYNC_LIVE;
    }
    /* Whom the owner may not know yet goes first, so that the state that the others get has them. */
    list_for_each_safe(pos, &room->sessions)
        say_unacknowledged(container_of(pos, struct session, room_link), now_ms);
    resync_begin(room->gateway, now_ms);
    room_begin_epoch(room, epoch, change->seq, change->digest, now_ms);
}

void handover_epoch(struct gateway *gateway, const struct node_address *from, const EpochChange *change, int64_t now_ms)
{
    struct gw_room *room = room_by_key(gateway, &change->room_key);
    struct epoch epoch = epoch_from_proto(change->epoch), from_epoch = epoch_from_proto(change->from_epoch);
    if (room == NULL || !node_address_equal(&room->owner, from) || !room->has_epoch)
        return; /* the first acknowledgement brings everything */
    int order = epoch_compare(&epoch, &room->epoch);
    if (order < 0) {
        metric_add_at(M_EPOCHS, EPOCH_STALE, 1);
        return;
    }
    if (order == 0) {
        room_owner_heard(room);
        room_expect(room, change->seq, now_ms);
        if (room->seq == change->seq)
            room->digest = change->digest;
        if (change->resumed) {
            all_go_on(room, &epoch, 0, now_ms);
            resync_begin(gateway, now_ms);
        }
        return;
    }
    bool continues = SIM_FAULT(EPOCH_UNCHECKED) || epoch_equal(&from_epoch, &room->epoch);
    if (change->from_epoch != NULL && continues && room->seq <= change->from_seq) {
        adopt(room, change, 0, now_ms);
    } else if (room->digest != 0 && room->digest == change->digest && room->seq == change->seq) {
        adopt(room, change, room->seq, now_ms);
    } else {
        metric_add_at(M_EPOCHS, EPOCH_DIFFERS, 1);
        begin_anew(room, &epoch, change, now_ms);
    }
}

void handover_view(struct gw_room *room, struct view_number since, int64_t now_ms)
{
    struct gateway *gateway = room->gateway;
    struct node_address before = room->owner;
    room_find_owner(room);
    bool changed = !node_address_equal(&before, &room->owner);
    /* A new owner must hear of whoever was lost; the same one has heard already of those who went earlier. */
    if (changed)
        since = gateway->view->settled;
    bool lost = history_lost_owner(&gateway->history, since, &gateway->options.seed, &room->key, room->region);
    if (changed)
        room_owner_changed(room, now_ms);
    if (lost)
        room_report(room);
    list_for_each_safe(pos, &room->sessions) {
        if (changed && !lost)
            say_unacknowledged(container_of(pos, struct session, room_link), now_ms);
    }
}
