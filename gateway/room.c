/* Rooms as a gateway knows them: the owner, the position, and who here is to hear what. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "gateway/internal.h"
#include <stdlib.h>
#include <string.h>

enum { SYNC_RETRY_MS = 500, CROWD_SESSIONS = 64 };

static void on_sync_timer(struct timer *timer, int64_t now_ms)
{
    struct gw_room *room = container_of(timer, struct gw_room, sync_timer);
    room->syncing = false;
    if (room->seq < room->expected_seq || room->moving)
        room_ask(room, now_ms);
}

/* The owner is at `seq`: if that does not come by itself, it is asked for. */
void room_expect(struct gw_room *room, uint64_t seq, int64_t now_ms)
{
    if (room->expected_seq < seq)
        room->expected_seq = seq;
    if (room->seq < room->expected_seq && !timer_pending(&room->sync_timer))
        timer_set(room->gateway->wheel, &room->sync_timer, now_ms + SYNC_RETRY_MS);
}

static void stop_syncing(struct gw_room *room)
{
    room->syncing = false;
    timer_cancel(room->gateway->wheel, &room->sync_timer);
}

void room_find_owner(struct gw_room *room)
{
    struct gateway *gateway = room->gateway;
    const struct view_node *owner = NULL;
    if (gateway->view != NULL)
        owner = view_owner(gateway->view, &gateway->options.seed, &room->key, room->region);
    room->owner = owner != NULL ? view_node_address(NODE_SHARD, owner) : (struct node_address){.kind = NODE_SHARD};
}

struct gw_room *room_open(struct gateway *gateway, const char *project, const char *name)
{
    struct room_key key = room_key_make(project, name);
    struct gw_room *room;
    HASH_FIND(hh, gateway->rooms, &key, sizeof key, room);
    if (room != NULL)
        return room;
    room = mem_new(struct gw_room);
    room->gateway = gateway;
    room->key = key;
    room->project = mem_strdup(project);
    room->name = mem_strdup(name);
    room_region(name, room->region);
    list_init(&room->sessions);
    list_init(&room->resync_link);
    timer_init(&room->sync_timer, on_sync_timer);
    HASH_ADD(hh, gateway->rooms, key, sizeof room->key, room);
    room_find_owner(room);
    return room;
}

void room_close_if_empty(struct gw_room *room)
{
    if (!list_empty(&room->sessions))
        return;
    timer_cancel(room->gateway->wheel, &room->sync_timer);
    resync_drop_room(room);
    HASH_DEL(room->gateway->rooms, room);
    free(room->project);
    free(room->name);
    free(room->departed);
    free(room);
}

struct gw_room *room_by_key(struct gateway *gateway, const ProtobufCBinaryData *key)
{
    struct gw_room *room = NULL;
    if (key->len == sizeof room->key.bytes)
        HASH_FIND(hh, gateway->rooms, key->data, sizeof room->key.bytes, room);
    return room;
}

void to_owner(struct gw_room *room, Signalbox__Cluster__V1__Item *item)
{
    if (room->owner.incarnation == 0)
        return;
    struct payload *packed = link_pack_item(item);
    room->gateway->actions.to_shard(room->gateway->ctx, &room->owner, packed);
    payload_unref(&packed);
}

void room_position(const struct gw_room *room, Signalbox__Cluster__V1__RoomPosition *position,
                   Signalbox__Cluster__V1__Epoch *epoch)
{
    signalbox__cluster__v1__room_position__init(position);
    *epoch = epoch_to_proto(&room->epoch);
    position->room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = (uint8_t *)room->key.bytes};
    position->epoch = epoch;
    position->seq = room->seq;
}

void room_ask(struct gw_room *room, int64_t now_ms)
{
    if (room->syncing)
        return;
    room->syncing = true;
    timer_set(room->gateway->wheel, &room->sync_timer, now_ms + SYNC_RETRY_MS);
    Signalbox__Cluster__V1__Epoch epoch;
    Signalbox__Cluster__V1__LinkPositions positions = SIGNALBOX__CLUSTER__V1__LINK_POSITIONS__INIT;
    Signalbox__Cluster__V1__RoomPosition position;
    Signalbox__Cluster__V1__RoomPosition *list[1] = {&position};
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    room_position(room, &position, &epoch);
    positions.rooms = list;
    positions.n_rooms = 1;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_LINK_POSITIONS;
    item.link_positions = &positions;
    to_owner(room, &item);
}

/* Sessions that stand in another epoch than the room need its state anew. */
static void resync_sessions(struct gw_room *room, int64_t now_ms)
{
    list_for_each(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        if (session->state == SESSION_BOUND && session->client != NULL && session->sync == SYNC_LIVE)
            session_ask_snapshot(session, NULL, now_ms);
    }
}

void room_begin_epoch(struct gw_room *room, const struct epoch *epoch, uint64_t seq, uint64_t digest, int64_t now_ms)
{
    room->epoch = *epoch;
    epoch_format(epoch, room->epoch_text);
    room->has_epoch = true;
    room->seq = room->expected_seq = seq;
    room->digest = digest;
    room_owner_heard(room);
    resync_sessions(room, now_ms);
}

void room_adopt(struct gw_room *room, const struct epoch *epoch, uint64_t seq, uint64_t digest, int64_t now_ms)
{
    int order = room->has_epoch ? epoch_compare(epoch, &room->epoch) : 1;
    if (!room->has_epoch) {
        room_begin_epoch(room, epoch, seq, digest, now_ms);
    } else if (order > 0) {
        room->moving = true; /* whether its position is the same one there, the owner knows */
        room_ask(room, now_ms);
    } else if (order == 0) {
        /* What the owner says may run ahead of the batches; only they move the room's own position. */
        room_expect(room, seq, now_ms);
    }
}

static enum message_class batch_class(uint32_t class)
{
    return class < CLASS_COUNT ? (enum message_class) class : CLASS_EPHEMERAL;
}

static bool wants(const struct session *session, const Signalbox__Cluster__V1__RoomBatch *batch)
{
    if (session->client == NULL || session->state != SESSION_BOUND || !session->greeted)
        return false;
    if (batch->last_seq != 0)
        return session->sync == SYNC_LIVE && session->seq < batch->last_seq;
    return strcmp(session->sid_text, batch->exclude_sid) != 0;
}

/* What a whole crowd is sent may take more than a turn to write; others' messages need not wait for that. */
static struct outmsg *room_message(const struct gw_room *room, const ProtobufCBinaryData *packed)
{
    struct outmsg *message = outmsg_from_bytes(packed->data, packed->len);
    if (room->session_count >= CROWD_SESSIONS)
        outmsg_set_crowd(message);
    return message;
}

/* The gateway is short of memory: signals are the first of what it has promised to give way. */
static void drop_signals(const struct gw_room *room, const Signalbox__Cluster__V1__RoomBatch *batch)
{
    uint64_t count = 0;
    list_for_each(pos, &room->sessions)
        count += wants(container_of(pos, struct session, room_link), batch);
    count_dropped(CLASS_EPHEMERAL, DROP_GATEWAY_MEMORY, count);
    metric_add_at(M_SHED, SHED_METRIC_SIGNAL, count);
}

static void deliver(struct gw_room *room, const Signalbox__Cluster__V1__RoomBatch *batch)
{
    struct gateway *gateway = room->gateway;
    struct outmsg *message = NULL;
    list_for_each_safe(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        if (!wants(session, batch))
            continue;
        if (message == NULL)
            message = room_message(room, &batch->message);
        if (batch->last_seq != 0)
            session->seq = batch->last_seq;
        if (session->client->closing)
            continue;
        bool filtered = batch->class_ == CLASS_EPHEMERAL && interest_filters_signals(session);
        struct outmsg *own = filtered ? interest_filter(session, message) : outmsg_ref(message);
        if (own != NULL)
            gateway->actions.send(gateway->ctx, session->client->transport, own, batch_class(batch->class_));
        outmsg_unref(&own);
    }
    outmsg_unref(&message);
}

void room_batch(struct gateway *gateway, const struct node_address *from,
                const Signalbox__Cluster__V1__RoomBatch *batch, int64_t now_ms)
{
    struct gw_room *room = room_by_key(gateway, &batch->room_key);
    if (room == NULL || !node_address_equal(&room->owner, from)) {
        metric_add(M_BATCHES_STALE, 1);
        return;
    }
    struct epoch epoch = epoch_from_proto(batch->epoch);
    if (batch->last_seq == 0) { /* signals: no place in the order */
        if (!room->has_epoch || !epoch_equal(&epoch, &room->epoch))
            return;
        if (gateway->shed >= SHED_EPHEMERAL)
            drop_signals(room, batch);
        else
            deliver(room, batch);
        return;
    }
    if (!room->has_epoch)
        return; /* the first acknowledgement brings everything */
    int order = SIM_FAULT(EPOCH_UNCHECKED) ? 0 : epoch_compare(&epoch, &room->epoch);
    if (order < 0) {
        metric_add(M_BATCHES_STALE, 1);
        return;
    }
    if (order > 0) {
        room->moving = true;
        room_ask(room, now_ms);
        return;
    }
    if (batch->last_seq <= room->seq)
        return;
    if (batch->first_seq > room->seq + 1) {
        room_expect(room, batch->last_seq, now_ms);
        room_ask(room, now_ms);
        return;
    }
    room->seq = batch->last_seq;
    room->digest = batch->digest;
    departed_note(room, &batch->message, now_ms);
    deliver(room, batch);
}

static void deliver_replay(struct gw_room *room, const Signalbox__Cluster__V1__SyncReply *reply, int64_t now_ms)
{
    struct gateway *gateway = room->gateway;
    uint64_t asked = room->seq;
    room->seq = reply->seq;
    room->digest = 0;
    for (size_t i = 0; i < reply->n_messages; i++) {
        struct outmsg *message = outmsg_from_bytes(reply->messages[i].data, reply->messages[i].len);
        departed_note(room, &reply->messages[i], now_ms);
        list_for_each_safe(pos, &room->sessions) {
            struct session *session = container_of(pos, struct session, room_link);
            if (session->client != NULL && !session->client->closing && session->sync == SYNC_LIVE &&
                session->seq == asked)
                gateway->actions.send(gateway->ctx, session->client->transport, message, CLASS_MEMBERSHIP);
        }
        outmsg_unref(&message);
    }
    list_for_each(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        if (session->client == NULL || session->sync != SYNC_LIVE || session->seq >= reply->seq)
            continue;
        if (session->seq == asked)
            session->seq = reply->seq;
        else /* it stood elsewhere than the room: a replay from there would be another one */
            session_ask_events(session, now_ms);
    }
}

void room_report(struct gw_room *room)
{
    bool said = room->departed_count == 0;
    list_for_each(pos, &room->sessions) {
        struct session *session = container_of(pos, struct session, room_link);
        session_report(session);
        session->says_departures = session->reporting && !said;
        said |= session->says_departures;
    }
}

void room_sync_reply(struct gateway *gateway, const struct node_address *from,
                     const Signalbox__Cluster__V1__SyncReply *reply, int64_t now_ms)
{
    struct gw_room *room = room_by_key(gateway, &reply->room_key);
    if (room == NULL || !node_address_equal(&room->owner, from))
        return;
    stop_syncing(room);
    if (reply->code == SIGNALBOX__V1__CODE__NOT_FOUND) {
        room_report(room); /* the owner does not have the room: say again who is in it */
        resync_begin(gateway, now_ms);
        return;
    }
    struct epoch epoch = epoch_from_proto(reply->epoch);
    if (reply->code == SIGNALBOX__V1__CODE__OK && epoch_equal(&epoch, &room->epoch)) {
        if (reply->seq > room->seq)
            deliver_replay(room, reply, now_ms);
        room_expect(room, reply->seq, now_ms);
    } else if (epoch_compare(&epoch, &room->epoch) >= 0) {
        room_begin_epoch(room, &epoch, reply->seq, 0, now_ms);
    }
}

void room_owner_heard(struct gw_room *room)
{
    room->moving = false;
    stop_syncing(room);
}

void room_owner_changed(struct gw_room *room, int64_t now_ms)
{
    stop_syncing(room);
    resync_drop_room(room);
    room->moving = room->has_epoch;
    if (room->moving)
        timer_set(room->gateway->wheel, &room->sync_timer, now_ms + SYNC_RETRY_MS);
}
