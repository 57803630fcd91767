/* Which room publishes when: deficit round robin over the rooms that have something to say.
 *
 * A room that is due gets a share of the turn in bytes; one that needs more goes to the end of the line and keeps what
 * it has not used. A turn as a whole is bounded, so that the loop comes back to what has arrived meanwhile. So a room
 * with a thousand times the traffic of another delays it by one share, and not by all that it has. */
#include "common/metrics.h"
#include "shard/internal.h"

enum { SHARE_BYTES = 64 * 1024, TURN_BYTES = 1024 * 1024 };

static void on_parked_due(struct timer *timer, int64_t now_ms)
{
    struct shard *shard = container_of(timer, struct shard, parked_timer);
    list_for_each(pos, &shard->parked_rooms)
        container_of(pos, struct room, dirty_link)->parked_until_ms = 0;
    list_splice(&shard->dirty_rooms, &shard->parked_rooms);
    shard->actions.flush_soon(shard->ctx);
}

void schedule_init(struct shard *shard)
{
    list_init(&shard->dirty_rooms);
    list_init(&shard->parked_rooms);
    timer_init(&shard->parked_timer, on_parked_due);
}

void schedule_done(struct shard *shard)
{
    timer_cancel(shard->wheel, &shard->parked_timer);
}

void shard_mark_dirty(struct room *room)
{
    bool waits_for_less = list_linked(&room->dirty_link) && room->parked_until_ms <= room->next_flush_ms;
    if (waits_for_less)
        return;
    if (!list_linked(&room->dirty_link))
        room->waits_since_ms = room->shard->wheel->now_ms;
    list_remove(&room->dirty_link);
    room->parked_until_ms = 0;
    list_append(&room->shard->dirty_rooms, &room->dirty_link);
    room->shard->actions.flush_soon(room->shard->ctx);
}

static void park(struct shard *shard, struct room *room, int64_t until_ms)
{
    room->share_bytes = 0;
    room->parked_until_ms = until_ms;
    list_append(&shard->parked_rooms, &room->dirty_link);
    if (!timer_pending(&shard->parked_timer) || until_ms < shard->parked_due_ms) {
        shard->parked_due_ms = until_ms;
        timer_set(shard->wheel, &shard->parked_timer, until_ms);
    }
}

void shard_flush(struct shard *shard, int64_t now_ms)
{
    size_t left = TURN_BYTES;
    while (!list_empty(&shard->dirty_rooms) && left > 0) {
        struct room *room = list_first(&shard->dirty_rooms, struct room, dirty_link);
        int64_t due_ms;
        list_remove(&room->dirty_link);
        room->share_bytes += SHARE_BYTES;
        size_t cost = room_publish(room, room->share_bytes, now_ms, &due_ms);
        if (cost > 0) {
            metric_observe_us(M_ROOM_WAIT, (now_ms - room->waits_since_ms) * 1000);
            room->waits_since_ms = now_ms;
        }
        left -= cost < left ? cost : left;
        room->share_bytes -= cost < room->share_bytes ? (uint32_t)cost : room->share_bytes;
        if (due_ms < 0) {
            room->share_bytes = 0;
        } else if (due_ms > now_ms) {
            park(shard, room, due_ms);
        } else {
            list_append(&shard->dirty_rooms, &room->dirty_link);
            metric_add(M_ROOM_TURNS_CUT, 1);
        }
    }
    if (!list_empty(&shard->dirty_rooms))
        shard->actions.flush_soon(shard->ctx);
}
