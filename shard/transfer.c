/* A room as bytes: everything that an owner knows of it, but for negotiation records, which may be forgotten, and what
 * is not published yet, of which a frozen room has nothing. */
#include "common/codec.h"
#include "common/mem.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FIELD_ROOM_STATE_MEMBERS = 6, FIELD_ROOM_STATE_DEPARTURES = 7, FIELD_ROOM_STATE_RING = 8 };
enum { WINDOW_MAX_MS = 60 * 60 * 1000 };

typedef Signalbox__Cluster__V1__MemberState MemberState;
typedef Signalbox__Cluster__V1__SessionState SessionState;
typedef Signalbox__V1__Participant Participant;

static uint32_t left_ms(const struct timer *timer, int64_t now_ms)
{
    return timer->due_ms > now_ms ? (uint32_t)(timer->due_ms - now_ms) : 0;
}

/* --- packing ----------------------------------------------------------------------------------------------------- */

static void pack_member(struct buf *out, const struct member *member, int64_t now_ms)
{
    MemberState state = SIGNALBOX__CLUSTER__V1__MEMBER_STATE__INIT;
    SessionState session = SIGNALBOX__CLUSTER__V1__SESSION_STATE__INIT;
    Signalbox__Cluster__V1__Epoch join = epoch_to_proto(&member->join_epoch);
    struct arena *arena = &member->shard->arena;
    arena_reset(arena);
    session.sid = (char *)member->sid_text;
    session.bind_generation = member->bind_generation;
    session.connection = member->connection;
    session.version = member->version;
    session.state = member->detached ? SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED
                                     : SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__ATTACHED;
    session.window_left_ms = member->detached ? left_ms(&member->window, now_ms) : 0;
    session.participant =
        (Participant *)protobuf_c_message_unpack(&signalbox__v1__participant__descriptor, &arena->allocator,
                                                 member->participant->size, member->participant->data);
    assert(session.participant != NULL);
    session.resume_window_ms = member->resume_window_ms;
    session.attempt = member->attempt;
    session.grants_version = member->grants_version;
    session.join_epoch = &join;
    session.join_seq = member->join_seq;
    session.joined_at_ms = member->joined_at_ms;
    state.session = &session;
    state.gateway = member->gateway->address.id;
    state.gateway_incarnation = member->gateway->address.incarnation;
    state.confirmed_generation = member->confirmed_generation;
    state.room_send_seq = member->room_send_seq;
    state.replaced_incarnation = member->replaced_incarnation;
    state.replaced_connection = member->replaced_connection;
    state.sends_reported = member->sends_reported;
    frames_append_message(out, FIELD_ROOM_STATE_MEMBERS, &state.base);
}

static void pack_departures(struct buf *out, struct room *room, int64_t now_ms)
{
    struct list *bucket = departure_bucket(room->shard, &room->key);
    list_for_each(pos, bucket) {
        const struct departure *departure = container_of(pos, struct departure, room_link);
        Signalbox__Cluster__V1__Departure state = SIGNALBOX__CLUSTER__V1__DEPARTURE__INIT;
        char sid_text[SID_TEXT_SIZE + 1];
        if (!room_key_equal(&departure->room_key, &room->key))
            continue;
        sid_format(&departure->sid, sid_text);
        state.sid = sid_text;
        state.reason = departure->reason;
        state.left_ms = left_ms(&departure->expiry, now_ms);
        frames_append_message(out, FIELD_ROOM_STATE_DEPARTURES, &state.base);
    }
}

struct payload *transfer_pack(struct room *room, int64_t now_ms)
{
    Signalbox__Cluster__V1__RoomState header = SIGNALBOX__CLUSTER__V1__ROOM_STATE__INIT;
    Signalbox__Cluster__V1__Epoch epoch = epoch_to_proto(&room->epoch);
    struct buf out = {0};
    assert(room->seq == room->published_seq && list_empty(&room->pending));
    header.room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = room->key.bytes};
    header.project = room->project;
    header.room = room->name;
    header.epoch = &epoch;
    header.seq = room->seq;
    header.settling = room->settle_left_ms > 0;
    header.settling_left_ms = (uint32_t)room->settle_left_ms;
    header.created_at_ms = room->created_at_ms;
    header.room_budget_percent = room->budget.percent;
    size_t size = signalbox__cluster__v1__room_state__get_packed_size(&header);
    out.size += signalbox__cluster__v1__room_state__pack(&header, buf_reserve(&out, size));
    list_for_each(pos, &room->members)
        pack_member(&out, container_of(pos, struct member, link), now_ms);
    pack_departures(&out, room, now_ms);
    list_for_each(pos, &room->ring) {
        const struct ring_entry *entry = container_of(pos, struct ring_entry, link);
        Signalbox__Cluster__V1__RingEntry state = SIGNALBOX__CLUSTER__V1__RING_ENTRY__INIT;
        state.first_seq = entry->first_seq;
        state.last_seq = entry->last_seq;
        state.message = (ProtobufCBinaryData){.len = entry->message->size, .data = entry->message->data};
        frames_append_message(&out, FIELD_ROOM_STATE_RING, &state.base);
    }
    struct payload *packed = payload_from(out.data, out.size);
    buf_done(&out);
    return packed;
}

/* --- unpacking --------------------------------------------------------------------------------------------------- */

static bool member_is_valid(struct shard *shard, const MemberState *state, struct sid *ret_sid)
{
    const SessionState *session = state->session;
    return session != NULL && session->participant != NULL &&
           name_valid(session->participant->identity, IDENTITY_MAX) && sid_parse(session->sid, ret_sid) &&
           member_find(shard, session->sid) == NULL && node_id_valid(state->gateway) &&
           state->gateway_incarnation != 0 && session->bind_generation != 0;
}

static bool take_member(struct room *room, const MemberState *state, int64_t now_ms)
{
    struct shard *shard = room->shard;
    const SessionState *session = state->session;
    struct sid sid;
    if (!member_is_valid(shard, state, &sid) ||
        member_find_identity(shard, &room->key, session->participant->identity) != NULL)
        return false;
    struct node_address gateway = {.kind = NODE_GATEWAY, .incarnation = state->gateway_incarnation};
    memcpy(gateway.id, state->gateway, strlen(state->gateway));
    struct member *member = member_new(shard, &sid, &room->key, session->participant);
    member->gateway = member_open_gateway(shard, &gateway);
    member->connection = session->connection;
    member->replaced_incarnation = state->replaced_incarnation;
    member->replaced_connection = state->replaced_connection;
    member->bind_generation = session->bind_generation;
    member->confirmed_generation = state->confirmed_generation;
    member->version = session->version;
    member->attempt = session->attempt;
    member->grants_version = session->grants_version;
    member->room_send_seq = state->room_send_seq;
    member->sends_reported = state->sends_reported;
    member->resume_window_ms = session->resume_window_ms < WINDOW_MAX_MS ? session->resume_window_ms : WINDOW_MAX_MS;
    member->join_epoch = epoch_from_proto(session->join_epoch);
    member->join_seq = session->join_seq;
    member->joined_at_ms = session->joined_at_ms;
    member->participant_version = session->participant->version;
    member_set_participant(member, session->participant);
    room_seat_member(room, member);
    if (session->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED)
        member_detach(member, session->window_left_ms, now_ms);
    else if (!shard_lists_gateway(shard, &gateway))
        member_detach(member, member->resume_window_ms, now_ms);
    return true;
}

bool transfer_unpack(struct room *room, const Signalbox__Cluster__V1__RoomState *state, const struct epoch *epoch,
                     int64_t now_ms)
{
    struct shard *shard = room->shard;
    struct sid sid;
    room->seq = room->published_seq = room->shown_seq = state->seq;
    room->created_at_ms = state->created_at_ms;
    budget_set_percent(&room->budget, state->room_budget_percent);
    room->epoch = epoch_from_proto(state->epoch);
    room_set_epoch(room, epoch);
    for (size_t i = 0; i < state->n_ring; i++)
        if (!room_take_event(room, state->ring[i], now_ms))
            return false;
    if (!list_empty(&room->ring) && list_last(&room->ring, struct ring_entry, link)->last_seq != room->published_seq)
        return false;
    for (size_t i = 0; i < state->n_members; i++)
        if (!take_member(room, state->members[i], now_ms))
            return false;
    for (size_t i = 0; i < state->n_departures; i++) {
        const Signalbox__Cluster__V1__Departure *departure = state->departures[i];
        if (!sid_parse(departure->sid, &sid))
            return false;
        departure_remember_until(shard, &sid, &room->key, departure->reason, now_ms + departure->left_ms);
    }
    return true;
}
