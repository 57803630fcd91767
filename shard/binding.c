/* Answers to a gateway about one session. */
#include "shard/binding.h"
#include "common/metrics.h"
#include "shard/frames.h"

typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__V1__Participant Participant;

enum { RESUME_WINDOW_MAX_MS = 60 * 60 * 1000 };

uint32_t binding_window_ms(uint32_t asked_ms)
{
    return asked_ms < RESUME_WINDOW_MAX_MS ? asked_ms : RESUME_WINDOW_MAX_MS;
}

static void send_ack(struct shard *shard, const struct node_address *to, Signalbox__Cluster__V1__SessionAck *ack)
{
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_ACK;
    item.session_ack = ack;
    shard_send(shard, to, &item);
}

static void send_refusal(const struct binding *binding, Signalbox__V1__Code code, Signalbox__V1__LeaveReason reason,
                         Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *detail)
{
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    ack.room_key = binding->state->room_key;
    ack.sid = binding->state->sid;
    ack.connection = binding->state->connection;
    ack.version = binding->state->version;
    ack.code = code;
    ack.reason = reason;
    ack.action = action;
    ack.retry_after_ms = retry_after_ms;
    ack.detail = (char *)detail;
    send_ack(binding->shard, binding->from, &ack);
}

void binding_refuse(const struct binding *binding, Signalbox__V1__Code code, Signalbox__V1__LeaveReason reason,
                    Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *detail)
{
    send_refusal(binding, code, reason, action, retry_after_ms, detail);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REFUSED, 1);
}

void binding_refuse_stale(const struct binding *binding)
{
    send_refusal(binding, SIGNALBOX__V1__CODE__NOT_FOUND, SIGNALBOX__V1__LEAVE_REASON__REPLACED,
                 SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the session was resumed on a newer connection");
    metric_add_at(M_SESSION_COMMANDS, SESSION_STALE, 1);
}

static void fill_ack(const struct member *member, const State *state, Signalbox__Cluster__V1__SessionAck *ack,
                     Signalbox__Cluster__V1__Epoch *epoch, Signalbox__Cluster__V1__Epoch *join_epoch)
{
    *epoch = epoch_to_proto(&member->room->epoch);
    *join_epoch = epoch_to_proto(&member->join_epoch);
    ack->room_key = state->room_key;
    ack->sid = state->sid;
    ack->connection = state->connection;
    ack->version = state->version;
    ack->code = SIGNALBOX__V1__CODE__OK;
    ack->bind_generation = member->bind_generation;
    ack->epoch = epoch;
    ack->join_epoch = join_epoch;
    ack->join_seq = member->join_seq;
    ack->joined_at_ms = member->joined_at_ms;
    ack->participant_version = member->participant_version;
    ack->grants_version = member->grants_version;
    ack->room_send_acked = member->room_send_seq;
    ack->topology = SIGNALBOX__V1__TOPOLOGY__MESH;
}

void binding_ack_departed(const struct binding *binding)
{
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    ack.room_key = binding->state->room_key;
    ack.sid = binding->state->sid;
    ack.connection = binding->state->connection;
    ack.version = binding->state->version;
    ack.code = SIGNALBOX__V1__CODE__OK;
    send_ack(binding->shard, binding->from, &ack);
    metric_add_at(M_SESSION_COMMANDS, SESSION_DEPARTED, 1);
}

/* While the room is put together there is no position to speak of.
 */
void binding_ack_update(const struct binding *binding, struct member *member)
{
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    Signalbox__Cluster__V1__Epoch epoch, join_epoch;
    fill_ack(member, binding->state, &ack, &epoch, &join_epoch);
    ack.seq = member->room->seq;
    if (member->room->state == ROOM_REBUILDING)
        ack.epoch = NULL;
    send_ack(binding->shard, binding->from, &ack);
    member_pass_on_held(member);
}

void binding_ack_bound(const struct binding *binding, struct member *member, bool newly_seated)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = member->room;
    /* Who was here before must not find the messages among the unpublished events skipped by a snapshot. For a newcomer
     * nothing is published early, so that a storm of joins stays one batch. */
    if (!newly_seated)
        room_flush(room, binding->now_ms);
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    Signalbox__Cluster__V1__Epoch epoch, join_epoch;
    fill_ack(member, state, &ack, &epoch, &join_epoch);

    arena_reset(&shard->arena);
    ack.participant =
        (Participant *)protobuf_c_message_unpack(&signalbox__v1__participant__descriptor, &shard->arena.allocator,
                                                 member->participant->size, member->participant->data);
    struct epoch last = epoch_from_proto(state->last_epoch);
    struct payload *page = NULL;
    ProtobufCBinaryData page_data;
    if (state->intent != SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN && state->last_epoch != NULL &&
        room_can_replay(room, &last, state->last_seq)) {
        ack.recovered = true;
        ack.seq = state->last_seq > room->published_seq ? state->last_seq : room->published_seq;
        ack.n_messages = sync_replay(room, state->last_seq, &ack.messages);
    } else {
        bool last_page;
        struct snapshot_request first = {
            .cursor = "", .want_viewers = state->want_viewers, .page_size = state->page_size};
        page = snapshot_page(room, &first, &ack.seq, &last_page, binding->now_ms);
        room_mark_shown(room, member);
        page_data = (ProtobufCBinaryData){.len = page->size, .data = page->data};
        ack.messages = &page_data;
        ack.n_messages = 1;
        ack.more_pages = !last_page;
    }
    ack.digest = ack.seq == room->seq ? room_position_digest(room) : 0;
    send_ack(shard, binding->from, &ack);
    payload_unref(&page);
    member_pass_on_held(member);
}
