/* What a session or a gateway has missed: a replay from the room's ring where it is whole, else a snapshot. */
#include "common/log.h"
#include "common/metrics.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <assert.h>
#include <string.h>

enum sync_answer { SYNC_REPLAY, SYNC_SNAPSHOT, SYNC_PAGE, SYNC_CURSOR_GONE, SYNC_NO_ROOM };

size_t sync_replay(struct room *room, uint64_t seq, ProtobufCBinaryData **ret_messages)
{
    ProtobufCBinaryData *messages = arena_alloc(&room->shard->arena, (room->ring_entries + 1) * sizeof *messages);
    assert(messages != NULL);
    size_t count = 0;
    list_for_each(pos, &room->ring) {
        struct ring_entry *entry = container_of(pos, struct ring_entry, link);
        if (entry->last_seq > seq)
            messages[count++] = (ProtobufCBinaryData){.len = entry->message->size, .data = entry->message->data};
    }
    *ret_messages = messages;
    return count;
}

static void reply(struct shard *shard, const struct node_address *to, Signalbox__Cluster__V1__SyncReply *sync)
{
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SYNC_REPLY;
    item.sync_reply = sync;
    shard_send(shard, to, &item);
}

/* The replay goes up to what has been published; what is still pending follows as the next batch. */
static bool reply_replay(struct room *room, const struct node_address *to, Signalbox__Cluster__V1__SyncReply *sync,
                         const struct epoch *epoch, uint64_t seq)
{
    if (!room_can_replay(room, epoch, seq))
        return false;
    arena_reset(&room->shard->arena);
    sync->n_messages = sync_replay(room, seq, &sync->messages);
    sync->seq = seq > room->published_seq ? seq : room->published_seq;
    sync->replay = true;
    sync->last_page = true;
    sync->code = SIGNALBOX__V1__CODE__OK;
    reply(room->shard, to, sync);
    metric_add_at(M_SYNCS, SYNC_REPLAY, 1);
    return true;
}

static void reply_page(struct room *room, const struct node_address *to, Signalbox__Cluster__V1__SyncReply *sync,
                       const Signalbox__Cluster__V1__SyncRequest *request, int64_t now_ms)
{
    bool last = false;
    bool first_page = request->cursor[0] == '\0';
    struct snapshot_request wanted = {
        .cursor = request->cursor, .want_viewers = request->want_viewers, .page_size = request->page_size};
    /* Who takes a snapshot instead of events must not miss the messages among those that are not published yet. */
    if (first_page)
        room_flush(room, now_ms);
    struct payload *page = snapshot_page(room, &wanted, &sync->seq, &last, now_ms);
    if (page == NULL) {
        /* The snapshot was given up; the client begins anew with a fresh one. */
        metric_add_at(M_SYNCS, SYNC_CURSOR_GONE, 1);
        wanted.cursor = "";
        room_flush(room, now_ms);
        page = snapshot_page(room, &wanted, &sync->seq, &last, now_ms);
    } else {
        metric_add_at(M_SYNCS, first_page ? SYNC_SNAPSHOT : SYNC_PAGE, 1);
    }
    ProtobufCBinaryData message = {.len = page->size, .data = page->data};
    sync->messages = &message;
    sync->n_messages = 1;
    sync->last_page = last;
    sync->code = SIGNALBOX__V1__CODE__OK;
    reply(room->shard, to, sync);
    payload_unref(&page);
}

/* Not here, and not on its way either: whoever has members of it must say so. */
static bool sync_is_absent(struct shard *shard, const struct room_key *key)
{
    bool settled = shard->rooms_in_state[ROOM_HELD] == 0 && shard->rooms_in_state[ROOM_FROZEN] == 0 &&
                   shard->view != NULL &&
                   view_number_compare(shard->actions.reported(shard->ctx), shard->view->number) >= 0;
    return shard_find_any_room(shard, key) == NULL && settled && owner_others_settled(shard);
}

void sync_request(struct shard *shard, const struct node_address *from,
                  const Signalbox__Cluster__V1__SyncRequest *request, int64_t now_ms)
{
    struct room_key key;
    if (!shard_parse_key(&request->room_key, &key))
        return;
    Signalbox__Cluster__V1__SyncReply sync = SIGNALBOX__CLUSTER__V1__SYNC_REPLY__INIT;
    sync.room_key = request->room_key;
    sync.sid = request->sid;
    sync.connection = request->connection;
    struct room *room = shard_find_room(shard, &key);
    if (room == NULL && !sync_is_absent(shard, &key))
        return; /* it is on its way, to here or elsewhere: asked again there */
    /* Nor is a roster of use to somebody who is not in it yet: the gateway has to say the session first. */
    if (room == NULL || member_find(shard, request->sid) == NULL) {
        sync.code = SIGNALBOX__V1__CODE__NOT_FOUND;
        metric_add_at(M_SYNCS, SYNC_NO_ROOM, 1);
        reply(shard, from, &sync);
        return;
    }
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&room->epoch);
    struct epoch asked = epoch_from_proto(request->epoch);
    sync.epoch = &epoch;
    if (request->cursor[0] != '\0' || request->epoch == NULL || !reply_replay(room, from, &sync, &asked, request->seq))
        reply_page(room, from, &sync, request, now_ms);
}

void sync_positions(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__LinkPositions *positions, int64_t now_ms)
{
    for (size_t i = 0; i < positions->n_rooms; i++) {
        const Signalbox__Cluster__V1__RoomPosition *position = positions->rooms[i];
        struct room_key key;
        if (!shard_parse_key(&position->room_key, &key))
            continue;
        struct room *room = shard_find_room(shard, &key);
        struct epoch epoch = epoch_from_proto(position->epoch);
        if (room == NULL && !sync_is_absent(shard, &key))
            continue;
        if (room != NULL && !epoch_equal(&epoch, &room->epoch)) {
            /* It has been told of the epoch already, and did not hear. */
            room_flush(room, now_ms);
            rebuild_tell(room, from);
            continue;
        }
        if (room != NULL && epoch_equal(&epoch, &room->epoch) && position->seq >= room->published_seq)
            continue; /* nothing missed */
        Signalbox__Cluster__V1__SyncReply sync = SIGNALBOX__CLUSTER__V1__SYNC_REPLY__INIT;
        sync.room_key = position->room_key;
        sync.sid = (char *)"";
        if (room == NULL) {
            sync.code = SIGNALBOX__V1__CODE__NOT_FOUND;
            metric_add_at(M_SYNCS, SYNC_NO_ROOM, 1);
            reply(shard, from, &sync);
            continue;
        }
        Signalbox__Cluster__V1__Epoch current = epoch_to_proto(&room->epoch);
        sync.epoch = &current;
        if (!reply_replay(room, from, &sync, &epoch, position->seq)) {
            /* Too far behind for the ring: the gateway asks for a snapshot for each of its sessions. */
            sync.code = SIGNALBOX__V1__CODE__RETRY;
            sync.seq = room->published_seq;
            reply(shard, from, &sync);
        }
    }
}
