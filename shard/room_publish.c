/* What is said of a room: the events and signals that wait, the batches that they become, and the ring of published
 * ones with the epoch under which they count. */
#include "common/codec.h"
#include "common/mem.h"
#include "common/message_class.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A batch of events must fit a bus message and a client's frame: beyond this it goes on in the next one. */
enum { SIGNALS_PER_BATCH_MAX = 512, SIGNAL_BYTES_MAX = 256 * 1024, EVENTS_BYTES_MAX = 40 * 1024 };

struct pending_signal {
    struct list link;
    char from[SID_TEXT_SIZE + 1];
    char key[65];
    struct payload *bytes; /* packed Signal */
};

static void drop_ring_entry(struct room *room, struct ring_entry *entry)
{
    list_remove(&entry->link);
    room->ring_entries--;
    room->ring_bytes -= entry->message->size;
    room->shard->ring_bytes -= entry->message->size;
    payload_unref(&entry->message);
    free(entry);
}

void room_drop_event(struct room *room, struct pending_event *event)
{
    if (event->member != NULL)
        event->member->pending = NULL;
    if (room->pending_info == event)
        room->pending_info = NULL;
    list_remove(&event->link);
    payload_unref(&event->bytes);
    free(event);
    room->shard->pending_events--;
}

static void drop_signal(struct room *room, struct pending_signal *signal)
{
    list_remove(&signal->link);
    room->shard->pending_signals--;
    room->signal_count--;
    room->signal_bytes -= signal->bytes->size;
    payload_unref(&signal->bytes);
    free(signal);
}

void room_publish_done(struct room *room)
{
    list_for_each_safe(pos, &room->pending)
        room_drop_event(room, container_of(pos, struct pending_event, link));
    list_for_each_safe(pos, &room->signals)
        drop_signal(room, container_of(pos, struct pending_signal, link));
    list_for_each_safe(pos, &room->ring)
        drop_ring_entry(room, container_of(pos, struct ring_entry, link));
}

static struct pending_event *add_event(struct room *room, enum event_type type)
{
    struct pending_event *event = mem_new(struct pending_event);
    event->type = type;
    event->seq = room->seq;
    list_append(&room->pending, &event->link);
    room->shard->pending_events++;
    shard_mark_dirty(room);
    return event;
}

void room_add_member_event(struct room *room, enum event_type type, struct member *member)
{
    struct pending_event *event = add_event(room, type);
    event->member = member;
    member->pending = event;
}

void room_add_packed_event(struct room *room, enum event_type type, const Signalbox__V1__RoomEvent *packed)
{
    add_event(room, type)->bytes = payload_pack(&packed->base);
}

void room_add_info_event(struct room *room)
{
    if (room->pending_info == NULL)
        room->pending_info = add_event(room, EVENT_INFO);
}

void room_mark_shown(struct room *room, const struct member *self)
{
    bool own_join_is_last = self != NULL && self->pending != NULL && self->pending->seq == room->seq;
    uint64_t shown_seq = own_join_is_last ? room->seq - 1 : room->seq;
    if (shown_seq > room->shown_seq)
        room->shown_seq = shown_seq;
}

void room_add_message(struct room *room, const Signalbox__V1__Message *message, int64_t now_ms)
{
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_MESSAGE;
    event.message = (Signalbox__V1__Message *)message;
    room->seq++;
    room_add_packed_event(room, EVENT_MESSAGE, &event);
}

static struct pending_signal *find_signal(const struct room *room, const Signalbox__V1__Signal *signal)
{
    list_for_each(pos, &room->signals) {
        struct pending_signal *pending = container_of(pos, struct pending_signal, link);
        if (strcmp(pending->from, signal->from) == 0 && strcmp(pending->key, signal->key) == 0)
            return pending;
    }
    return NULL;
}

void room_add_signal(struct room *room, const Signalbox__V1__Signal *signal, int64_t now_ms)
{
    struct pending_signal *pending = find_signal(room, signal);
    struct payload *bytes = payload_pack(&signal->base);
    if (pending != NULL) {
        /* It keeps its place, so that nobody's signals wait for ever behind those who signal more often. */
        room->signal_bytes += bytes->size - pending->bytes->size;
        payload_unref(&pending->bytes);
        pending->bytes = bytes;
        metric_add(M_SIGNALS_COALESCED, 1);
        return;
    }
    while (room->signal_count > 0 &&
           (room->signal_count == SIGNALS_PER_BATCH_MAX || room->signal_bytes + bytes->size > SIGNAL_BYTES_MAX)) {
        drop_signal(room, list_first(&room->signals, struct pending_signal, link));
        count_dropped(CLASS_EPHEMERAL, DROP_ROOM_QUEUE, 1);
    }
    pending = mem_new(struct pending_signal);
    snprintf(pending->from, sizeof pending->from, "%s", signal->from);
    snprintf(pending->key, sizeof pending->key, "%s", signal->key);
    pending->bytes = bytes;
    list_append(&room->signals, &pending->link);
    room->signal_count++;
    room->signal_bytes += bytes->size;
    room->shard->pending_signals++;
    shard_mark_dirty(room);
}

/* RoomEvent{joined}: the participant's packed bytes behind one more tag. */
static void append_joined(struct buf *out, const struct member *member, struct buf *scratch)
{
    buf_reset(scratch);
    frames_append(scratch, FIELD_ROOM_EVENT_JOINED, member->participant->data, member->participant->size);
    frames_append(out, FIELD_ROOM_EVENTS_EVENTS, scratch->data, scratch->size);
}

static void append_updated(struct room *room, struct buf *out, const struct member *member)
{
    struct arena *arena = &room->shard->arena;
    arena_reset(arena);
    Signalbox__V1__Participant *participant = (Signalbox__V1__Participant *)protobuf_c_message_unpack(
        &signalbox__v1__participant__descriptor, &arena->allocator, member->participant->size,
        member->participant->data);
    assert(participant != NULL);
    Signalbox__V1__Profile profile = SIGNALBOX__V1__PROFILE__INIT;
    profile.name = participant->name;
    profile.metadata = participant->metadata;
    profile.n_attributes = participant->n_attributes;
    Signalbox__V1__TrackList tracks = SIGNALBOX__V1__TRACK_LIST__INIT;
    tracks.n_tracks = participant->n_tracks;
    tracks.tracks = participant->tracks;

    Signalbox__V1__Profile__AttributesEntry *attributes =
        arena_alloc(arena, (participant->n_attributes + 1) * sizeof *attributes);
    Signalbox__V1__Profile__AttributesEntry **pointers =
        arena_alloc(arena, (participant->n_attributes + 1) * sizeof *pointers);
    assert(attributes != NULL && pointers != NULL);
    for (size_t i = 0; i < participant->n_attributes; i++) {
        signalbox__v1__profile__attributes_entry__init(&attributes[i]);
        attributes[i].key = participant->attributes[i]->key;
        attributes[i].value = participant->attributes[i]->value;
        pointers[i] = &attributes[i];
    }
    profile.attributes = pointers;

    Signalbox__V1__ParticipantUpdate update = SIGNALBOX__V1__PARTICIPANT_UPDATE__INIT;
    update.sid = participant->sid;
    update.version = participant->version;
    update.profile = member->changes & CHANGED_PROFILE ? &profile : NULL;
    update.tracks = member->changes & CHANGED_TRACKS ? &tracks : NULL;
    update.permissions = member->changes & CHANGED_PERMISSIONS ? participant->permissions : NULL;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_UPDATED;
    event.updated = &update;
    frames_append_message(out, FIELD_ROOM_EVENTS_EVENTS, &event.base);
}

static void append_event(struct room *room, struct buf *out, const struct pending_event *event, struct buf *scratch)
{
    switch (event->type) {
    case EVENT_JOINED:
        append_joined(out, event->member, scratch);
        break;
    case EVENT_UPDATED:
        append_updated(room, out, event->member);
        break;
    case EVENT_LEFT:
    case EVENT_MESSAGE:
    case EVENT_SETTLED:
        frames_append(out, FIELD_ROOM_EVENTS_EVENTS, event->bytes->data, event->bytes->size);
        break;
    case EVENT_INFO: {
        Signalbox__V1__RoomInfo info;
        Signalbox__V1__RoomEvent packed = SIGNALBOX__V1__ROOM_EVENT__INIT;
        room_info(room, &info);
        packed.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_ROOM;
        packed.room = &info;
        frames_append_message(out, FIELD_ROOM_EVENTS_EVENTS, &packed.base);
        break;
    }
    }
}

void room_broadcast(struct room *room, unsigned class, uint64_t first_seq, uint64_t last_seq,
                    const struct payload *message, const char *exclude_sid)
{
    Signalbox__Cluster__V1__RoomBatch batch = SIGNALBOX__CLUSTER__V1__ROOM_BATCH__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&room->epoch);
    batch.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    batch.epoch = &epoch;
    batch.first_seq = first_seq;
    batch.last_seq = last_seq;
    batch.class_ = class;
    batch.message = (ProtobufCBinaryData){.len = message->size, .data = (uint8_t *)message->data};
    batch.exclude_sid = (char *)exclude_sid;
    batch.digest = last_seq != 0 && last_seq == room->seq ? room_position_digest(room) : 0;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_ROOM_BATCH;
    item.room_batch = &batch;
    struct payload *packed = link_pack_item(&item);
    for (uint32_t i = 0; i < room->gateway_count; i++)
        room->shard->actions.send(room->shard->ctx, &room->gateways[i].gateway->address, packed);
    metric_add(M_FANOUT_BATCHES, room->gateway_count);
    payload_unref(&packed);
}

static void trim_ring(struct room *room, int64_t now_ms)
{
    const struct shard_limits *limits = &room->shard->options.limits;
    while (!list_empty(&room->ring)) {
        struct ring_entry *oldest = list_first(&room->ring, struct ring_entry, link);
        if (room->ring_entries <= limits->ring_entries && room->ring_bytes <= limits->ring_bytes &&
            now_ms - oldest->at_ms <= limits->ring_age_ms)
            break;
        drop_ring_entry(room, oldest);
    }
}

static void remember(struct room *room, uint64_t first_seq, uint64_t last_seq, struct payload *message, int64_t now_ms)
{
    struct ring_entry *entry = mem_alloc(sizeof *entry);
    *entry = (struct ring_entry){
        .first_seq = first_seq, .last_seq = last_seq, .at_ms = now_ms, .message = payload_ref(message)};
    list_append(&room->ring, &entry->link);
    room->ring_entries++;
    room->ring_bytes += message->size;
    room->shard->ring_bytes += message->size;
    trim_ring(room, now_ms);
}

/* Events of the ring name the room's epoch, because whoever gets them has been told of it: the same events under this
 * one. NULL if they are malformed. */
static struct payload *rename_epoch(struct room *room, const void *data, size_t size)
{
    struct arena *arena = &room->shard->arena;
    char error[128];
    arena_reset(arena);
    Signalbox__V1__ServerMessage *message = (Signalbox__V1__ServerMessage *)codec_unpack(
        &signalbox__v1__server_message__descriptor, data, size, arena, error, sizeof error);
    if (message == NULL || message->body_case != SIGNALBOX__V1__SERVER_MESSAGE__BODY_ROOM_EVENTS)
        return NULL;
    message->room_events->epoch = room->epoch_text;
    return payload_pack(&message->base);
}

bool room_take_event(struct room *room, const Signalbox__Cluster__V1__RingEntry *entry, int64_t now_ms)
{
    const struct ring_entry *last = list_empty(&room->ring) ? NULL : list_last(&room->ring, struct ring_entry, link);
    bool follows = last == NULL || entry->first_seq == last->last_seq + 1;
    if (!follows || entry->first_seq > entry->last_seq || entry->last_seq > room->published_seq)
        return false;
    struct payload *message = rename_epoch(room, entry->message.data, entry->message.len);
    if (message == NULL)
        return false;
    remember(room, entry->first_seq, entry->last_seq, message, now_ms);
    payload_unref(&message);
    return true;
}

void room_set_epoch(struct room *room, const struct epoch *epoch)
{
    room->came_epoch = room->epoch;
    room->came_seq = room->published_seq;
    room->epoch = *epoch;
    epoch_format(epoch, room->epoch_text);
    list_for_each(pos, &room->ring) {
        struct ring_entry *entry = container_of(pos, struct ring_entry, link);
        struct payload *renamed = rename_epoch(room, entry->message->data, entry->message->size);
        assert(renamed != NULL); /* written here */
        room->ring_bytes += (uint32_t)(renamed->size - entry->message->size);
        room->shard->ring_bytes += renamed->size - entry->message->size;
        payload_unref(&entry->message);
        entry->message = renamed;
    }
    snapshot_drop_all(room); /* they name the epoch before */
}

void room_discard_pending(struct room *room)
{
    list_for_each_safe(pos, &room->pending)
        room_drop_event(room, container_of(pos, struct pending_event, link));
    list_for_each_safe(pos, &room->signals)
        drop_signal(room, container_of(pos, struct pending_signal, link));
    list_for_each(pos, &room->members)
        container_of(pos, struct member, link)->changes = 0;
    list_remove(&room->dirty_link);
    room->published_seq = room->seq;
}

/* What one batch costs this shard. */
static size_t turn_cost(const struct room *room, const struct payload *message)
{
    return (size_t)message->size * (room->gateway_count + 1);
}

/* Publishes `events` as what happened up to last_seq. */
static size_t publish_events(struct room *room, const struct buf *events, uint64_t last_seq, int64_t now_ms)
{
    struct buf *body = &room->shard->buf;
    Signalbox__V1__RoomEvents header = SIGNALBOX__V1__ROOM_EVENTS__INIT;
    header.epoch = room->epoch_text;
    header.first_seq = room->published_seq + 1;
    header.last_seq = last_seq;
    buf_reset(body);
    body->size += signalbox__v1__room_events__pack(
        &header, buf_reserve(body, signalbox__v1__room_events__get_packed_size(&header)));
    if (events->size > 0)
        buf_append(body, events->data, events->size);
    struct payload *message = frames_wrap(FIELD_SERVER_ROOM_EVENTS, body);
    size_t cost = turn_cost(room, message);
    room->published_seq = last_seq;
    room_broadcast(room, CLASS_MEMBERSHIP, header.first_seq, last_seq, message, "");
    remember(room, header.first_seq, last_seq, message, now_ms);
    payload_unref(&message);
    return cost;
}

/* Pending events are in the order of the first change that each stands for, so that everything before an event's seq is
 * told by the events before it: there a batch may end. */
static size_t flush_events(struct room *room, size_t allowance, int64_t now_ms)
{
    struct buf events = {0}, scratch = {0};
    size_t cost = 0;
    list_for_each_safe(pos, &room->pending) {
        struct pending_event *event = container_of(pos, struct pending_event, link);
        if (events.size >= EVENTS_BYTES_MAX || cost + events.size * (room->gateway_count + 1) >= allowance) {
            cost += publish_events(room, &events, event->seq - 1, now_ms);
            buf_reset(&events);
            if (cost >= allowance)
                break;
        }
        append_event(room, &events, event, &scratch);
        metric_add(M_ROOM_EVENTS, 1);
        if (event->member != NULL)
            event->member->changes = 0;
        room_drop_event(room, event);
    }
    if (list_empty(&room->pending))
        cost += publish_events(room, &events, room->seq, now_ms);
    buf_done(&events);
    buf_done(&scratch);
    return cost;
}

/* Those that have waited longest, one at least, up to `bytes` of them. */
static size_t flush_signals(struct room *room, uint64_t bytes, int64_t now_ms)
{
    struct buf *body = &room->shard->buf;
    char only_sender[SID_TEXT_SIZE + 1];
    bool several = false;
    snprintf(only_sender, sizeof only_sender, "%s", list_first(&room->signals, struct pending_signal, link)->from);
    buf_reset(body);
    list_for_each_safe(pos, &room->signals) {
        struct pending_signal *signal = container_of(pos, struct pending_signal, link);
        if (body->size > 0 && body->size + signal->bytes->size > bytes)
            break;
        several |= strcmp(signal->from, only_sender) != 0;
        frames_append(body, FIELD_SIGNALS_SIGNALS, signal->bytes->data, signal->bytes->size);
        drop_signal(room, signal);
    }
    struct payload *message = frames_wrap(FIELD_SERVER_SIGNALS, body);
    size_t cost = turn_cost(room, message);
    budget_pay_delivery(&room->budget, &room->shard->options.limits, (uint64_t)message->size * room->total, now_ms);
    room_broadcast(room, CLASS_EPHEMERAL, 0, 0, message, several ? "" : only_sender);
    payload_unref(&message);
    return cost;
}

void room_flush(struct room *room, int64_t now_ms)
{
    if (!room_is_served(room))
        return; /* what waits stays, or is discarded */
    if (room->seq != room->published_seq)
        flush_events(room, SIZE_MAX, now_ms);
}

/* Signals of a room that is over its budget wait for each other, until what waits can be paid for: the longer, the more
 * of them are overtaken by their successors and need not be sent at all. What will wait next is taken to be as much as
 * this time. */
static size_t publish_signals(struct room *room, int64_t now_ms)
{
    const struct shard_limits *limits = &room->shard->options.limits;
    uint64_t spare_bytes = budget_spare_delivery(&room->budget, limits, now_ms);
    uint64_t wanted_bytes = (uint64_t)room->signal_bytes * room->total;
    size_t cost = flush_signals(room, spare_bytes / (room->total > 0 ? room->total : 1), now_ms);
    uint32_t wait_ms = budget_wait_delivery(&room->budget, limits, wanted_bytes, now_ms);
    room->next_signals_ms = now_ms + (wait_ms < limits->room_delay_ms ? wait_ms : limits->room_delay_ms);
    return cost;
}

/* Batches that hold much are made less often, those that hold little as soon as they may be. */
static void pace(struct room *room, size_t updates, int64_t now_ms)
{
    enum { MUCH = 4 };
    const struct shard_limits *limits = &room->shard->options.limits;
    if (updates >= MUCH)
        room->batch_ms = 2 * room->batch_ms < limits->batch_max_ms ? 2 * room->batch_ms : limits->batch_max_ms;
    else if (updates <= 1)
        room->batch_ms = room->batch_ms / 2 > limits->batch_ms ? room->batch_ms / 2 : limits->batch_ms;
    room->next_flush_ms = now_ms + room->batch_ms;
}

size_t room_publish(struct room *room, size_t allowance, int64_t now_ms, int64_t *ret_due_ms)
{
    size_t cost = 0, updates = room->signal_count;
    *ret_due_ms = room_is_served(room) ? room->next_flush_ms : -1;
    if (!room_is_served(room) || now_ms < room->next_flush_ms)
        return 0;
    for (const struct list *pos = room->pending.next; pos != &room->pending && updates < UINT8_MAX; pos = pos->next)
        updates++;
    if (room->seq != room->published_seq)
        cost = flush_events(room, allowance, now_ms);
    *ret_due_ms = now_ms;
    if (room->seq != room->published_seq)
        return cost;
    pace(room, updates, now_ms);
    if (!list_empty(&room->signals) && now_ms >= room->next_signals_ms)
        cost += publish_signals(room, now_ms);
    *ret_due_ms = list_empty(&room->signals) ? -1 : room->next_signals_ms;
    return cost;
}

void room_settle(struct room *room, int64_t now_ms)
{
    Signalbox__V1__Settled settled = SIGNALBOX__V1__SETTLED__INIT;
    Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
    char digest[17];
    snprintf(digest, sizeof digest, "%016" PRIx64, room->digest);
    settled.participants = room->listed;
    settled.digest = digest;
    event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_SETTLED;
    event.settled = &settled;
    /* The digest is that of the position of its batch, so nothing else may be in it. */
    room_flush(room, now_ms);
    room->seq++;
    room_add_packed_event(room, EVENT_SETTLED, &event);
    room_flush(room, now_ms);
}

bool room_knows_position(const struct room *room, const struct epoch *epoch, uint64_t seq)
{
    return SIM_FAULT(EPOCH_UNCHECKED) || epoch_equal(epoch, &room->epoch) ||
           (room->came_epoch.incarnation != 0 && epoch_equal(epoch, &room->came_epoch) && seq <= room->came_seq);
}

bool room_can_replay(const struct room *room, const struct epoch *epoch, uint64_t seq)
{
    if (!room_knows_position(room, epoch, seq) || seq > room->seq)
        return false;
    if (seq >= room->published_seq)
        return true;
    return !list_empty(&room->ring) && list_first(&room->ring, struct ring_entry, link)->first_seq <= seq + 1;
}
