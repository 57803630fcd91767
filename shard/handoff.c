/* Rooms on their way to their new owners.
 *
 * A room that another shard owns now is frozen and its state sent, chunk by chunk, so many rooms and bytes to one
 * target at a time, and again until the target says what has become of it. Nothing but that word, or the target's end,
 * lets go of a copy: no timeout ever thaws a room, because the target may have installed it and just not been heard.
 *
 * While a view follows upon a view: a target that is not the owner any more is asked on. Either it has installed the
 * room, and hands it on itself; or it never will under this id (NOT_MINE), and the copy goes to the newest owner, or is
 * thawed if that is this shard. A target that has left the view may have served the room before it went: the copy is
 * dropped, and the room rebuilt from the gateways' reports. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/internal.h"
#include <sodium.h>
#include <stdlib.h>

enum { CHUNK_BYTES = 192 * 1024, CHUNKS_IN_FLIGHT = 4, REPEAT_MS = 300 };
enum handoff_outcome { STARTED, INSTALLED, REFUSED, NOT_MINE, DROPPED };

struct handoff {
    uint64_t id;
    struct room *room;
    struct handoff_target *target;
    struct view_number view; /* in which it began */
    struct list link;        /* target->waiting or target->active */
    bool active;             /* something of it was sent: the target may have it */
    struct payload *state;   /* packed RoomState, once active */
    uint8_t digest[crypto_hash_sha256_BYTES];
    uint32_t count, sent, received; /* chunks */
    struct timer repeat_timer;
    UT_hash_handle hh; /* by id */
};

struct handoff_target {
    struct node_address address;
    struct list waiting, active; /* struct handoff */
    uint32_t active_count;
    size_t active_bytes;
    UT_hash_handle hh; /* by incarnation */
};

static void leave_target(struct handoff *handoff);
static void thaw(struct room *room, int64_t now_ms);

static void send_chunk(struct handoff *handoff, uint32_t index)
{
    Signalbox__Cluster__V1__HandoffChunk chunk = SIGNALBOX__CLUSTER__V1__HANDOFF_CHUNK__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    struct room *room = handoff->room;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&room->epoch);
    size_t from = (size_t)index * CHUNK_BYTES;
    size_t left = handoff->state->size - from;
    chunk.handoff_id = handoff->id;
    chunk.view = &view;
    view.generation = handoff->view.generation;
    view.seq = handoff->view.seq;
    chunk.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    chunk.room = room->name;
    chunk.index = index;
    chunk.count = handoff->count;
    chunk.digest = (ProtobufCBinaryData){.len = sizeof handoff->digest, .data = handoff->digest};
    chunk.data =
        (ProtobufCBinaryData){.len = left < CHUNK_BYTES ? left : CHUNK_BYTES, .data = handoff->state->data + from};
    chunk.old_epoch = &epoch;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_HANDOFF_CHUNK;
    item.handoff_chunk = &chunk;
    shard_send(room->shard, &handoff->target->address, &item);
    metric_add_at(M_HANDOFF_CHUNKS, 0, 1);
    metric_add_at(M_HANDOFF_BYTES, 0, chunk.data.len);
}

static void send_chunks(struct handoff *handoff, int64_t now_ms)
{
    while (handoff->sent < handoff->count && handoff->sent < handoff->received + CHUNKS_IN_FLIGHT)
        send_chunk(handoff, handoff->sent++);
    timer_set(handoff->room->shard->wheel, &handoff->repeat_timer, now_ms + REPEAT_MS);
}

/* All chunks may be there and only the answer lost: the last one is said again then. */
static void on_repeat(struct timer *timer, int64_t now_ms)
{
    struct handoff *handoff = container_of(timer, struct handoff, repeat_timer);
    if (SIM_FAULT(THAW_BY_TIMEOUT)) {
        leave_target(handoff);
        thaw(handoff->room, now_ms);
        return;
    }
    handoff->sent = handoff->received < handoff->count ? handoff->received : handoff->count - 1;
    send_chunks(handoff, now_ms);
}

/* --- pace -------------------------------------------------------------------------------------------------------- */

static struct handoff_target *open_target(struct shard *shard, const struct node_address *address)
{
    struct handoff_target *target;
    HASH_FIND(hh, shard->targets, &address->incarnation, sizeof address->incarnation, target);
    if (target != NULL)
        return target;
    target = mem_new(struct handoff_target);
    target->address = *address;
    list_init(&target->waiting);
    list_init(&target->active);
    HASH_ADD(hh, shard->targets, address.incarnation, sizeof target->address.incarnation, target);
    return target;
}

static void activate(struct handoff *handoff, int64_t now_ms)
{
    struct handoff_target *target = handoff->target;
    handoff->state = transfer_pack(handoff->room, now_ms);
    crypto_hash_sha256(handoff->digest, handoff->state->data, handoff->state->size);
    handoff->count = (uint32_t)((handoff->state->size + CHUNK_BYTES - 1) / CHUNK_BYTES);
    handoff->view = handoff->room->shard->view->number;
    handoff->active = true;
    list_remove(&handoff->link);
    list_append(&target->active, &handoff->link);
    target->active_count++;
    target->active_bytes += handoff->state->size;
    metric_add_at(M_HANDOFFS, STARTED, 1);
    send_chunks(handoff, now_ms);
}

static void activate_next(struct handoff_target *target, int64_t now_ms)
{
    while (!list_empty(&target->waiting)) {
        struct handoff *next = list_first(&target->waiting, struct handoff, link);
        const struct shard *shard = next->room->shard;
        const struct shard_limits *limits = &shard->options.limits;
        if (!history_lists_shard(&shard->history, target->address.incarnation))
            return; /* lost: nothing of those that wait is there, and each finds another target */
        if (target->active_count >= limits->handoff_rooms ||
            (target->active_count > 0 && target->active_bytes >= limits->handoff_bytes))
            return;
        activate(next, now_ms);
    }
}

/* Takes the handoff from its target, which is let go with its last one. */
static void leave_target(struct handoff *handoff)
{
    struct handoff_target *target = handoff->target;
    struct shard *shard = handoff->room->shard;
    list_remove(&handoff->link);
    if (handoff->active) {
        target->active_count--;
        target->active_bytes -= handoff->state->size;
    }
    handoff->active = false;
    handoff->target = NULL;
    payload_unref(&handoff->state);
    timer_cancel(shard->wheel, &handoff->repeat_timer);
    if (list_empty(&target->waiting) && list_empty(&target->active)) {
        HASH_DEL(shard->targets, target);
        free(target);
    }
}

static void go_on(struct shard *shard, uint64_t incarnation, int64_t now_ms)
{
    struct handoff_target *target;
    HASH_FIND(hh, shard->targets, &incarnation, sizeof incarnation, target);
    if (target != NULL)
        activate_next(target, now_ms);
}

/* A new id: what was sent under an earlier one is another matter. */
static void send_to_owner(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    struct handoff *handoff = room->handoff;
    struct node_address owner = owner_address(shard, &room->key, room->name);
    if (handoff->id != 0)
        HASH_DEL(shard->handoffs, handoff);
    randombytes_buf(&handoff->id, sizeof handoff->id);
    handoff->sent = handoff->received = 0;
    HASH_ADD(hh, shard->handoffs, id, sizeof handoff->id, handoff);
    handoff->target = open_target(shard, &owner);
    list_append(&handoff->target->waiting, &handoff->link);
    activate_next(handoff->target, now_ms);
}

void handoff_freeze(struct room *room, int64_t now_ms)
{
    /* What has happened is part of the room's events: whoever did not get them asks its new owner. */
    room_flush(room, now_ms);
    room_discard_pending(room); /* signals */
    room->settle_left_ms = 0;
    if (room->state == ROOM_SETTLING) {
        room->settle_left_ms = room->settle_timer.due_ms > now_ms ? room->settle_timer.due_ms - now_ms : 1;
        timer_cancel(room->shard->wheel, &room->settle_timer);
    }
    room_set_state(room, ROOM_FROZEN);
    room->frozen_ms = now_ms;
    room->handoff = mem_new(struct handoff);
    room->handoff->room = room;
    list_init(&room->handoff->link);
    timer_init(&room->handoff->repeat_timer, on_repeat);
    send_to_owner(room, now_ms);
}

void handoff_free(struct handoff *handoff)
{
    if (handoff == NULL)
        return;
    struct shard *shard = handoff->room->shard;
    uint64_t incarnation = handoff->target != NULL ? handoff->target->address.incarnation : 0;
    if (handoff->target != NULL)
        leave_target(handoff);
    HASH_DEL(shard->handoffs, handoff);
    free(handoff);
    if (!shard->closing)
        go_on(shard, incarnation, shard->wheel->now_ms);
}

void handoff_hurry(struct room *room, int64_t now_ms)
{
    struct handoff *handoff = room->handoff;
    if (handoff->active)
        return;
    list_remove(&handoff->link);
    list_prepend(&handoff->target->waiting, &handoff->link);
    activate_next(handoff->target, now_ms);
}

const struct node_address *handoff_target_of(const struct room *room)
{
    return &room->handoff->target->address;
}

/* --- what becomes of a copy -------------------------------------------------------------------------------------- */

static void drop_copy(struct room *room, enum handoff_outcome outcome, int64_t now_ms)
{
    struct shard *shard = room->shard;
    struct list waiting;
    metric_add_at(M_HANDOFFS, outcome, 1);
    if (outcome == INSTALLED)
        metric_observe_us(M_HANDOFF_PAUSE, (now_ms - room->frozen_ms) * 1000);
    else
        log_warn("handoff_dropped", log_str("room", room->name),
                 log_str("reason", outcome == DROPPED ? "its new owner has left the view" : "its new owner refused it"),
                 log_str("action", "the room is rebuilt from what gateways report"));
    search_take(room, &waiting);
    session_drop_room(shard, room);
    search_replay(shard, &waiting, now_ms);
}

static void thaw(struct room *room, int64_t now_ms)
{
    struct shard *shard = room->shard;
    struct epoch epoch = owner_next_epoch(shard);
    handoff_free(room->handoff);
    room->handoff = NULL;
    room_set_epoch(room, &epoch);
    room->owned_since = owner_since(shard, &room->key, room->name);
    if (room->settle_left_ms > 0)
        rebuild_settle(room, room->settle_left_ms, now_ms);
    else
        room_set_state(room, ROOM_LIVE);
    rebuild_tell_all(room);
    search_release(room, now_ms);
}

void handoff_retarget(struct room *room, int64_t now_ms)
{
    struct handoff *handoff = room->handoff;
    struct shard *shard = room->shard;
    if (!history_lists_shard(&shard->history, handoff->target->address.incarnation)) {
        if (handoff->active && !SIM_FAULT(KEEP_COPY)) {
            drop_copy(room, DROPPED, now_ms);
            return;
        }
    } else if (handoff->active) {
        timer_set(shard->wheel, &handoff->repeat_timer, now_ms); /* asks on */
        return;
    }
    /* Nothing of it was ever sent: nobody else can have it. */
    leave_target(handoff);
    if (owner_is_self(shard, shard->view, &room->key, room->name))
        thaw(room, now_ms);
    else
        send_to_owner(room, now_ms);
}

void handoff_on_reply(struct shard *shard, const struct node_address *from,
                      const Signalbox__Cluster__V1__HandoffReply *reply, int64_t now_ms)
{
    struct handoff *handoff;
    HASH_FIND(hh, shard->handoffs, &reply->handoff_id, sizeof reply->handoff_id, handoff);
    if (handoff == NULL || !handoff->active || handoff->target->address.incarnation != from->incarnation)
        return;
    struct room *room = handoff->room;
    uint64_t incarnation = from->incarnation;
    switch (reply->result) {
    case SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__RECEIVED:
        if (reply->received > handoff->count)
            return;
        if (reply->received < handoff->received)
            handoff->sent = reply->received; /* it has lost what it had */
        handoff->received = reply->received;
        send_chunks(handoff, now_ms);
        return;
    case SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__INSTALLED:
        drop_copy(room, INSTALLED, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__REFUSED:
        drop_copy(room, REFUSED, now_ms);
        break;
    case SIGNALBOX__CLUSTER__V1__HANDOFF_REPLY__RESULT__NOT_MINE:
        metric_add_at(M_HANDOFFS, NOT_MINE, 1);
        leave_target(handoff);
        if (owner_is_self(shard, shard->view, &room->key, room->name))
            thaw(room, now_ms);
        else
            send_to_owner(room, now_ms);
        go_on(shard, incarnation, now_ms);
        break;
    default:
        return;
    }
    owner_progress(shard, now_ms);
}
