/* Rooms whose owner was lost, and what gateways are told when a room has another owner.
 *
 * While gateways report, nothing of the room is published: no client hears of its peers anew. When all have reported
 * (or have had their time) each gateway is told the room's position and the digest of its roster. Where both are as
 * they were, the epoch is adopted in silence; the others ask for what is different. */
#include "common/log.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/internal.h"

enum { SETTLE_DEFAULT_MS = 30 * 1000, SNAPSHOTS_MS = 500 };

static void on_settled(struct timer *timer, int64_t now_ms)
{
    struct room *room = container_of(timer, struct room, settle_timer);
    if (room->state != ROOM_SETTLING || room->shard->suspended) {
        timer_set(room->shard->wheel, timer, now_ms + SHARD_SUSPENDED_MS);
        return;
    }
    room_set_state(room, ROOM_LIVE);
    room_settle(room, now_ms);
    log_info("room_settled", log_str("room", room->name), log_uint("participants", room->total));
    shard_drop_room_if_idle(room->shard, room);
}

void rebuild_init(struct room *room)
{
    timer_init(&room->settle_timer, on_settled);
}

void rebuild_settle(struct room *room, int64_t left_ms, int64_t now_ms)
{
    if (SIM_FAULT(SETTLED_AT_ONCE))
        left_ms = 1;
    room_set_state(room, ROOM_SETTLING);
    timer_set(room->shard->wheel, &room->settle_timer, now_ms + left_ms);
}

void rebuild_open(struct room *room, int64_t now_ms)
{
    struct epoch epoch = owner_next_epoch(room->shard);
    room_set_state(room, ROOM_REBUILDING);
    room_set_epoch(room, &epoch);
    if (owner_reports_complete(room->shard, now_ms))
        rebuild_finish(room, now_ms);
}

void rebuild_finish(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    uint32_t window_ms = 0;
    list_for_each(pos, &room->members) {
        const struct member *member = container_of(pos, struct member, link);
        if (member->resume_window_ms > window_ms)
            window_ms = member->resume_window_ms;
    }
    if (list_empty(&room->members) && list_empty(&room->waiting)) {
        shard_drop_room(shard, room);
        return;
    }
    log_info("room_rebuilt", log_str("room", room->name), log_uint("participants", room->total));
    room_discard_pending(room);
    rebuild_settle(room, window_ms > 0 ? window_ms : SETTLE_DEFAULT_MS, now_ms);
    rebuild_tell_all(room);
    search_release(room, now_ms);
}

static void tell(const struct room *room, const struct node_address *gateway, bool resumed)
{
    Signalbox__Cluster__V1__EpochChange change = SIGNALBOX__CLUSTER__V1__EPOCH_CHANGE__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&room->epoch);
    Signalbox__Cluster__V1__Epoch from = epoch_to_proto(&room->came_epoch);
    change.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = (uint8_t *)room->key.bytes};
    change.epoch = &epoch;
    change.seq = room->published_seq;
    change.participants = room->listed;
    change.digest = room->seq == room->published_seq ? room_position_digest(room) : 0;
    change.settling = room_is_settling(room);
    change.resumed = resumed;
    if (room->came_epoch.incarnation != 0) {
        change.from_epoch = &from;
        change.from_seq = room->came_seq;
    }
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_EPOCH_CHANGE;
    item.epoch_change = &change;
    shard_send(room->shard, gateway, &item);
}

void rebuild_tell(const struct room *room, const struct node_address *gateway)
{
    tell(room, gateway, false);
}

static void tell_all(const struct room *room, bool resumed)
{
    for (uint32_t i = 0; i < room->gateway_count; i++)
        tell(room, &room->gateways[i].gateway->address, resumed);
}

void rebuild_tell_all(const struct room *room)
{
    tell_all(room, false);
}

void rebuild_learn_sent(struct member *member, uint64_t acked, int64_t now_ms)
{
    struct room *room = member->room;
    if (acked <= member->room_send_seq)
        return;
    room_flush(room, now_ms);
    room_set_send_seq(member, acked);
    /* Only where a report was believed, so that a client which says anything of itself gets no more than one round. */
    if (!room_is_served(room) || !member->sends_reported)
        return;
    struct epoch epoch = owner_next_epoch(room->shard);
    room_set_epoch(room, &epoch);
    room->came_epoch = (struct epoch){0};
    room->unheard_until_ms = now_ms + SNAPSHOTS_MS;
    rebuild_tell_all(room);
}

void rebuild_tell_resumed(const struct room *room)
{
    tell_all(room, true);
}
