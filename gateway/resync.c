/* What must be said again to a shard: the states of sessions and the positions of rooms that a loss or a new owner has
 * put in doubt. A gateway holds thousands of both, and after the loss of the bus all gateways begin at the same moment.
 * So each link has a window of states that the shard has not acknowledged yet, which makes the shard set the pace, and
 * a tick has a budget over all links, so that the loop goes on turning. */
#include "common/mem.h"
#include "gateway/internal.h"
#include <stdlib.h>

enum { TICK_MS = 10, STATES_PER_TICK = 512, STATES_UNACKNOWLEDGED = 256, POSITIONS_PER_ITEM = 256 };

struct resync {
    struct node_address shard;
    struct list sessions; /* resync_link: to be announced */
    struct list rooms;    /* resync_link: whose positions are to be said */
    unsigned unacknowledged;
    UT_hash_handle hh; /* by incarnation */
};

static struct resync *resync_open(struct gateway *gateway, const struct node_address *shard)
{
    struct resync *resync;
    HASH_FIND(hh, gateway->resyncs, &shard->incarnation, sizeof shard->incarnation, resync);
    if (resync != NULL)
        return resync;
    resync = mem_new(struct resync);
    resync->shard = *shard;
    list_init(&resync->sessions);
    list_init(&resync->rooms);
    HASH_ADD(hh, gateway->resyncs, shard.incarnation, sizeof resync->shard.incarnation, resync);
    return resync;
}

static void close_if_idle(struct gateway *gateway, struct resync *resync)
{
    if (!list_empty(&resync->sessions) || !list_empty(&resync->rooms) || resync->unacknowledged > 0)
        return;
    HASH_DEL(gateway->resyncs, resync);
    free(resync);
}

void resync_add_session(struct session *session)
{
    const struct node_address *owner = &session->room->owner;
    if (session->resync != NULL && node_address_equal(&session->resync->shard, owner))
        return; /* its turn comes, or it is repeated until it is acknowledged */
    resync_drop_session(session);
    session->resync = resync_open(session->gateway, owner);
    if (session->state == SESSION_JOINING)
        list_prepend(&session->resync->sessions, &session->resync_link); /* somebody waits for it */
    else
        list_append(&session->resync->sessions, &session->resync_link);
}

void resync_drop_session(struct session *session)
{
    struct resync *resync = session->resync;
    if (resync == NULL)
        return;
    if (list_linked(&session->resync_link))
        list_remove(&session->resync_link);
    else
        resync->unacknowledged--;
    session->resync = NULL;
    close_if_idle(session->gateway, resync);
}

void resync_add_room(struct gw_room *room)
{
    if (room->resync != NULL)
        return;
    room->resync = resync_open(room->gateway, &room->owner);
    list_append(&room->resync->rooms, &room->resync_link);
}

void resync_drop_room(struct gw_room *room)
{
    struct resync *resync = room->resync;
    if (resync == NULL)
        return;
    list_remove(&room->resync_link);
    room->resync = NULL;
    close_if_idle(room->gateway, resync);
}

/* --- saying it --------------------------------------------------------------------------------------------------- */

static void send_positions(struct gateway *gateway, struct resync *resync)
{
    Signalbox__Cluster__V1__RoomPosition entries[POSITIONS_PER_ITEM];
    Signalbox__Cluster__V1__RoomPosition *list[POSITIONS_PER_ITEM];
    Signalbox__Cluster__V1__Epoch epochs[POSITIONS_PER_ITEM];
    Signalbox__Cluster__V1__LinkPositions positions = SIGNALBOX__CLUSTER__V1__LINK_POSITIONS__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    size_t count = 0;
    for (; count < POSITIONS_PER_ITEM && !list_empty(&resync->rooms); count++) {
        struct gw_room *room = list_first(&resync->rooms, struct gw_room, resync_link);
        list_remove(&room->resync_link);
        room->resync = NULL;
        room_position(room, &entries[count], &epochs[count]);
        list[count] = &entries[count];
    }
    positions.rooms = list;
    positions.n_rooms = count;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_LINK_POSITIONS;
    item.link_positions = &positions;
    struct payload *packed = link_pack_item(&item);
    gateway->actions.to_shard(gateway->ctx, &resync->shard, packed);
    payload_unref(&packed);
}

static bool say(struct gateway *gateway, struct resync *resync, int64_t now_ms)
{
    while (gateway->resync_budget > 0 && resync->unacknowledged < STATES_UNACKNOWLEDGED &&
           !list_empty(&resync->sessions)) {
        struct session *session = list_first(&resync->sessions, struct session, resync_link);
        list_remove(&session->resync_link);
        gateway->resync_budget--;
        /* A join may have to wait until everything else has been said: it takes no place from that. */
        if (session->state == SESSION_JOINING)
            session->resync = NULL;
        else
            resync->unacknowledged++;
        session_announce(session, now_ms);
    }
    if (!list_empty(&resync->rooms))
        send_positions(gateway, resync);
    bool waits = !list_empty(&resync->sessions) || !list_empty(&resync->rooms);
    close_if_idle(gateway, resync);
    return waits;
}

static void say_all(struct gateway *gateway, int64_t now_ms)
{
    bool waits = false;
    struct resync *resync, *next;
    HASH_ITER(hh, gateway->resyncs, resync, next)
        waits |= say(gateway, resync, now_ms);
    /* One tick more than there is work for: what is added right after this one has to wait for it. */
    if (waits || gateway->resync_budget < STATES_PER_TICK)
        timer_set(gateway->wheel, &gateway->resync_timer, now_ms + TICK_MS);
}

static void on_tick(struct timer *timer, int64_t now_ms)
{
    struct gateway *gateway = container_of(timer, struct gateway, resync_timer);
    gateway->resync_budget = STATES_PER_TICK;
    say_all(gateway, now_ms);
}

void resync_begin(struct gateway *gateway, int64_t now_ms)
{
    if (!timer_pending(&gateway->resync_timer))
        say_all(gateway, now_ms);
}

void resync_init(struct gateway *gateway)
{
    timer_init(&gateway->resync_timer, on_tick);
    gateway->resync_budget = STATES_PER_TICK;
}
