/* Binding: what a gateway wants of a session becomes what the owner knows of a member.
 *
 * A gateway repeats the whole wanted state of a session until the owner has acknowledged its version, so everything
 * here may happen twice, late, or never, and must come out the same. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__V1__Participant Participant;

enum {
    PARTICIPANT_BYTES_MAX = 48 * 1024,
    TRACKS_MAX = 256,
    ATTRIBUTES_MAX = 256,
    RESUME_WINDOW_MAX_MS = 60 * 60 * 1000,
    FULL_RETRY_MS = 2000,
    NO_CAPACITY_RETRY_MS = 10000,
    WAITING_RETRY_MS = 1000,
    DEPARTURES_REPORTED_MAX = 64,
};
/* How far a client may claim to have seen its room go on since its own join. */
static const uint64_t SEQ_AHEAD_MAX = UINT64_C(1) << 32;

enum outcome {
    SESSION_JOINED,
    SESSION_REBOUND,
    SESSION_UPDATED,
    SESSION_REPEATED,
    SESSION_RESTORED,
    SESSION_DEPARTED,
    SESSION_STALE,
    SESSION_REFUSED,
    SESSION_NOT_OWNER,
    SESSION_HELD,
};

/* One SessionState while it is being handled. */
struct binding {
    struct shard *shard;
    const struct node_address *from;
    const State *state;
    struct room_key key;
    struct sid sid;
    int64_t now_ms;
};

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

static void refuse(const struct binding *binding, Signalbox__V1__Code code, Signalbox__V1__LeaveReason reason,
                   Signalbox__V1__LeaveAction action, uint32_t retry_after_ms, const char *detail)
{
    send_refusal(binding, code, reason, action, retry_after_ms, detail);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REFUSED, 1);
}

/* A gateway that lost the session to a newer connection, whether it knows or not. */
static void refuse_stale(const struct binding *binding)
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

/* Asked to depart, and departed already or never known. */
static void ack_departed(const struct binding *binding)
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

/* The acknowledgement of an update: no more than that. While the room is put together there is no position to speak of.
 */
static void ack_update(const struct binding *binding, struct member *member)
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

/* The first acknowledgement of a connection: with it comes what the client must know of the room. */
static void ack_bound(const struct binding *binding, struct member *member, bool newly_seated)
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

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint32_t window_ms(const State *state)
{
    return state->resume_window_ms < RESUME_WINDOW_MAX_MS ? state->resume_window_ms : RESUME_WINDOW_MAX_MS;
}

void session_drop_room(struct shard *shard, struct room *room)
{
    list_for_each_safe(pos, &room->members) {
        struct member *member = container_of(pos, struct member, link);
        room_remove_member(room, member, SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED, shard->wheel->now_ms);
        member_free(member);
    }
    shard_drop_room(shard, room);
}

void session_detach_lost(struct shard *shard, int64_t now_ms)
{
    bool lost = false;
    struct gateway_ref *gateway, *next_gateway;
    HASH_ITER(hh, shard->gateways, gateway, next_gateway) {
        gateway->lost = !shard_lists_gateway(shard, &gateway->address);
        lost |= gateway->lost;
    }
    if (!lost)
        return;
    struct member *member, *next;
    HASH_ITER(hh_sid, shard->members_by_sid, member, next) {
        if (member->gateway->lost && !member->detached)
            member_detach(member, member->resume_window_ms, now_ms);
    }
}

/* --- seating ----------------------------------------------------------------------------------------------------- */

/* How far the room had come under earlier owners, as far as this session shows. Positions of different owners must stay
 * in order, because who joined later offers first. The position of the client's own making is believed within reason.
 */
static uint64_t seen_seq(const State *state)
{
    bool plausible = state->last_seq >= state->join_seq && state->last_seq - state->join_seq <= SEQ_AHEAD_MAX;
    return plausible ? state->last_seq : state->join_seq;
}

static struct room *open_room(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = shard_find_any_room(shard, &binding->key);
    if (room != NULL && room->state != ROOM_HELD)
        return room;
    if (room == NULL)
        room = shard_open_room(shard, &binding->key, state->project, state->room);
    struct epoch epoch = owner_next_epoch(shard);
    room_set_epoch(room, &epoch);
    room->seq = room->published_seq = seen_seq(state);
    /* Somebody may have known this room before this owner did: others may yet come back. */
    if (state->intent != SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN || state->last_epoch != NULL ||
        owner_origin(shard, room, &binding->key, state->room, NULL, NULL) == ORIGIN_LOST)
        rebuild_settle(room, window_ms(state), binding->now_ms);
    else
        room_set_state(room, ROOM_LIVE);
    return room;
}

/* Not now: the weight of a shard that is full falls, and the room may be another one's soon; unless all those that
 * could own it are full. */
static void refuse_full(const struct binding *binding, const char *detail)
{
    char region[REGION_MAX + 1];
    room_region(binding->state->room, region);
    bool nowhere = view_is_full(binding->shard->view, region);
    refuse(binding, nowhere ? SIGNALBOX__V1__CODE__NO_CAPACITY : SIGNALBOX__V1__CODE__RETRY,
           SIGNALBOX__V1__LEAVE_REASON__CAPACITY, SIGNALBOX__V1__LEAVE_ACTION__REJOIN,
           nowhere ? NO_CAPACITY_RETRY_MS : FULL_RETRY_MS, detail);
}

/* Limits that a newcomer meets; those who were here already are never turned away by them. */
static bool admit(const struct binding *binding, bool replaces)
{
    struct shard *shard = binding->shard;
    const struct shard_limits *limits = &shard->options.limits;
    struct room *room = shard_find_room(shard, &binding->key);
    size_t rooms = HASH_COUNT(shard->rooms) - shard->rooms_in_state[ROOM_HELD];
    if (room == NULL && (shard->full || rooms >= limits->rooms)) {
        refuse_full(binding, "this shard takes no new rooms for now: it is at one of its limits");
        return false;
    }
    if (HASH_CNT(hh_sid, shard->members_by_sid) >= limits->participants && !replaces) {
        refuse_full(binding, "this shard has as many participants as it may hold");
        return false;
    }
    /* Who takes another's place makes the room no fuller. */
    if (room != NULL && room->total >= limits->room_participants && !replaces) {
        refuse(binding, SIGNALBOX__V1__CODE__LIMIT_REACHED, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this room has as many participants as a room may have");
        return false;
    }
    return true;
}

/* Versions of one sid never go back, or its peers would take what is newer for older. A gateway that resumes a session
 * which neither it nor this owner held does not know the last one; but there was less than one change a millisecond. */
static uint64_t version_to_go_on_with(const struct shard *shard, const State *state)
{
    int64_t age_ms = shard->actions.wall_ms(shard->ctx) - state->joined_at_ms;
    if (state->participant->version != 0)
        return state->participant->version;
    return age_ms > 1 ? (uint64_t)age_ms : 1;
}

/* A member that this owner did not have. The caller has checked that it may come. */
static struct member *seat(const struct binding *binding, uint64_t bind_generation)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = open_room(binding);
    bool quiet = room->state == ROOM_REBUILDING;
    struct member *member = member_new(shard, &binding->sid, &room->key, state->participant);
    member->gateway = member_open_gateway(shard, binding->from);
    member->connection = state->connection;
    member->bind_generation = bind_generation;
    member->confirmed_generation = state->confirmed ? bind_generation : state->token_bind_generation;
    member->version = state->version;
    member->room_send_seq = state->room_send_acked;
    member->sends_reported = state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD;
    member->attempt = state->attempt;
    member->grants_version = state->grants_version;
    member->resume_window_ms = window_ms(state);

    budget_set_percent(&room->budget, state->room_budget_percent);
    room->seq = max_u64(room->seq, seen_seq(state));
    if ((member->listed || member->viewer) && !quiet)
        room->seq++;
    member->participant_version = 1;
    if (state->join_epoch != NULL && state->joined_at_ms != 0) {
        member->join_epoch = epoch_from_proto(state->join_epoch);
        member->join_seq = state->join_seq;
        member->joined_at_ms = state->joined_at_ms;
        member->participant_version = version_to_go_on_with(shard, state);
    } else {
        member->join_epoch = room->epoch;
        member->join_seq = room->seq;
        member->joined_at_ms = shard->actions.wall_ms(shard->ctx);
    }
    member_set_participant(member, state->participant);
    if (quiet)
        room_seat_member(room, member);
    else
        room_add_member(room, member, binding->now_ms);
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED)
        member_detach(member, state->window_left_ms, binding->now_ms);
    return member;
}

/* Sessions of one identity are ordered by their joins: a resume never replaces a later one. */
static bool joined_later(const State *state, const struct member *other)
{
    struct epoch epoch = epoch_from_proto(state->join_epoch);
    int order = epoch_compare(&epoch, &other->join_epoch);
    return order != 0 ? order > 0 : state->join_seq > other->join_seq;
}

/* One identity, one participant: the newcomer takes the place of another session of the same identity, or is refused.
 * True if the way is free. */
static bool resolve_duplicate(const struct binding *binding)
{
    struct member *other = member_find_identity(binding->shard, &binding->key, binding->state->participant->identity);
    if (other == NULL)
        return true;
    bool replaces = binding->state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN
                        ? binding->shard->options.duplicate == DUPLICATE_REPLACE
                        : joined_later(binding->state, other);
    if (!replaces) {
        refuse(binding, SIGNALBOX__V1__CODE__ALREADY_EXISTS, SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "another session of this identity is in the room");
        return false;
    }
    member_end(other, SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY, true, binding->now_ms);
    return true;
}

/* A join beyond the room's budget is not answered: its gateway repeats it, less often each time. */
static bool within_join_budget(const struct binding *binding)
{
    struct room *room = shard_find_room(binding->shard, &binding->key);
    struct room_charge charge = {.kind = BUDGET_JOINS};
    enum room_budget_kind lacking;
    if (room == NULL ||
        budget_take(&room->budget, &binding->shard->options.limits, &charge, binding->now_ms, &lacking) == 0)
        return true;
    metric_add_at(M_ROOM_THROTTLED, BUDGET_JOINS, 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_HELD, 1);
    return false;
}

static void join_new(const struct binding *binding)
{
    bool replaces = member_find_identity(binding->shard, &binding->key, binding->state->participant->identity) != NULL;
    if (!admit(binding, replaces) || !within_join_budget(binding) || !resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_JOINED, 1);
    ack_bound(binding, member, true);
}

/* Made since the session was bound last: after everything that knew of it was lost, somebody was quicker to come. */
static bool is_younger(const struct binding *binding, const struct room *room)
{
    const struct shard *shard = binding->shard;
    return shard->actions.wall_ms(shard->ctx) - room->created_at_ms < window_ms(binding->state);
}

/* A session that this owner does not know asks for its place. It gets it only while others may come back, too. */
static void resume_unknown(const struct binding *binding)
{
    struct room *room = shard_find_room(binding->shard, &binding->key);
    if (room != NULL && !room_is_settling(room) && !is_younger(binding, room)) {
        refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE,
               SIGNALBOX__V1__LEAVE_ACTION__REJOIN, 0, "this session is not known here any more");
        return;
    }
    if (!resolve_duplicate(binding))
        return;
    room = shard_find_room(binding->shard, &binding->key); /* it goes with the last one in it */
    if (room != NULL && room->state == ROOM_LIVE)
        rebuild_settle(room, window_ms(binding->state), binding->now_ms);
    struct member *member = seat(binding, binding->state->token_bind_generation + 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    ack_bound(binding, member, true);
}

/* A gateway reports a session that it holds to an owner that lacks it. Its client knows the room already: what is
 * different is said when the room is whole, or asked for. */
static void restore(const struct binding *binding)
{
    const State *state = binding->state;
    if (!resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, max_u64(1, state->bind_generation));
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    ack_update(binding, member);
}

/* --- known members ----------------------------------------------------------------------------------------------- */

/* Takes over a newer wanted state on the connection that the member is bound to. */
static void apply_state(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    member->version = state->version;
    if (state->confirmed)
        member->confirmed_generation = member->bind_generation;
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED)
        member_detach(member, state->window_left_ms, binding->now_ms);
    else
        member_attach(member, binding->now_ms);
    if (state->grants_version > member->grants_version && state->participant->permissions != NULL) {
        member->grants_version = state->grants_version;
        member_apply_permissions(member, state->participant->permissions, binding->now_ms);
    }
    /* With a resume comes what the client says of itself, for an owner that has lost it; this one has not. */
    if (state->intent != SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME)
        member_apply_participant(member, state->participant, binding->now_ms);
}

/* A change beyond the room's budget is not acknowledged: its gateway says it again, or what has become of it by then.
 */
static bool within_change_budget(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    if (state->state != SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__ATTACHED ||
        member_changes(member, state->participant) == 0)
        return true;
    uint32_t bytes = (uint32_t)signalbox__v1__participant__get_packed_size(state->participant);
    struct room_charge charge = {
        .kind = BUDGET_MEMBERSHIP, .bytes = bytes, .delivery_bytes = (uint64_t)bytes * member->room->total};
    if (shard_charge(member, &charge, binding->now_ms))
        return true;
    metric_add_at(M_SESSION_COMMANDS, SESSION_HELD, 1);
    return false;
}

static void depart(const struct binding *binding, struct member *member, bool tell_gateway)
{
    ack_departed(binding);
    member_end(member, binding->state->reason, tell_gateway, binding->now_ms);
}

static void move(const struct binding *binding, struct member *member, uint64_t bind_generation)
{
    member->replaced_incarnation = member->gateway->address.incarnation;
    member->replaced_connection = member->connection;
    member->bind_generation = bind_generation;
    member->connection = binding->state->connection;
    member->version = binding->state->version;
    if (binding->state->attempt > member->attempt)
        member->attempt = binding->state->attempt;
    room_move_member(member->room, member, member_open_gateway(binding->shard, binding->from));
}

static bool departs(const State *state)
{
    return state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED;
}

/* A new connection takes the session over. */
static void rebind(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    if (state->intent != SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME ||
        (member->replaced_incarnation == binding->from->incarnation &&
         member->replaced_connection == state->connection)) {
        refuse_stale(binding);
        return;
    }
    if (state->attempt != 0 && state->attempt < member->attempt) {
        refuse_stale(binding); /* held up on its way: the client has given it up for a newer one */
        return;
    }
    if (state->token_bind_generation < member->confirmed_generation) {
        refuse(binding, SIGNALBOX__V1__CODE__UNAUTHENTICATED, SIGNALBOX__V1__LEAVE_REASON__REPLACED,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this resume token has been superseded by a newer one");
        return;
    }
    if (departs(state)) {
        depart(binding, member, true);
        return;
    }
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED) {
        /* Gone again before it was bound: that is no reason to take the session from whoever has it. */
        refuse_stale(binding);
        return;
    }
    if (!member->detached || member->gateway->address.incarnation != binding->from->incarnation)
        member_tell_closed(member, SIGNALBOX__V1__LEAVE_REASON__REPLACED);
    move(binding, member, max_u64(member->bind_generation, state->token_bind_generation) + 1);
    member->confirmed_generation = max_u64(member->confirmed_generation, state->token_bind_generation);
    member->resume_window_ms = window_ms(state);
    apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REBOUND, 1);
    ack_bound(binding, member, false);
}

/* JOIN or RESUME for a member that is here. */
static void bind_known(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    bool same_gateway = member->gateway->address.incarnation == binding->from->incarnation;
    /* It was taken for lost, came back as a new incarnation, and never had the answer for this connection. */
    bool comes_back = !same_gateway && member->gateway->lost && member->connection == state->connection &&
                      strcmp(member->gateway->address.id, binding->from->id) == 0;
    if (comes_back)
        room_move_member(member->room, member, member_open_gateway(binding->shard, binding->from));
    else if (!same_gateway || member->connection != state->connection) {
        rebind(binding, member);
        return;
    }
    if (departs(state)) {
        depart(binding, member, false);
        return;
    }
    if (state->version > member->version || comes_back)
        apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
    ack_bound(binding, member, false); /* the first answer was lost */
}

/* HOLD for a member that is here. */
static void update(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    rebuild_learn_sent(member, state->room_send_acked, binding->now_ms);
    bool elsewhere = member->gateway->address.incarnation != binding->from->incarnation;
    /* A gateway that was taken for lost comes back as a new incarnation with the connections that it kept. */
    bool same_generation = state->bind_generation == member->bind_generation;
    bool comes_back = same_generation && elsewhere && member->gateway->lost;
    /* A rebuilt owner has seated an attempt that the client had given up for this one. */
    bool newer_attempt = same_generation && state->attempt > member->attempt;
    if ((state->bind_generation < member->bind_generation && !SIM_FAULT(LOWER_GENERATION)) ||
        (same_generation && elsewhere && !comes_back && !newer_attempt)) {
        refuse_stale(binding);
        return;
    }
    bool catches_up = state->bind_generation > member->bind_generation ||
                      (SIM_FAULT(LOWER_GENERATION) && state->bind_generation < member->bind_generation) || comes_back ||
                      newer_attempt;
    if (catches_up) {
        /* The owner rebuilt the room from an older report. */
        if (elsewhere && !comes_back)
            member_tell_closed(member, SIGNALBOX__V1__LEAVE_REASON__REPLACED);
        move(binding, member, state->bind_generation);
    }
    if (departs(state)) {
        depart(binding, member, false);
        return;
    }
    if (!catches_up && state->version <= member->version) {
        metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
        ack_update(binding, member);
        return;
    }
    if (!catches_up && !within_change_budget(binding, member))
        return;
    apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_UPDATED, 1);
    ack_update(binding, member);
}

/* --- entry ------------------------------------------------------------------------------------------------------- */

static bool answer_departed(const struct binding *binding)
{
    struct departure *departure = departure_find(binding->shard, &binding->sid);
    bool asks_to_depart = binding->state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED;
    if (departure == NULL && !asks_to_depart)
        return false;
    if (departure == NULL)
        departure_remember(binding->shard, &binding->sid, &binding->key, binding->state->reason,
                           window_ms(binding->state), binding->now_ms);
    if (asks_to_depart) {
        ack_departed(binding);
        return true;
    }
    /* Seen by others it was disconnected; to itself, it came too late. */
    Signalbox__V1__LeaveReason reason = departure->reason;
    if (reason == SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED)
        reason = SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED;
    else if (reason == SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT)
        reason = SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE;
    refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, reason, departure_action(reason), 0, "this session has ended");
    return true;
}

void session_refuse_waiting(struct shard *shard, const struct node_address *from, const State *state)
{
    struct binding binding = {.shard = shard, .from = from, .state = state};
    if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD)
        return; /* its gateway repeats it */
    bool resumes = state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME;
    refuse(&binding, SIGNALBOX__V1__CODE__RETRY, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
           resumes ? SIGNALBOX__V1__LEAVE_ACTION__RESUME : SIGNALBOX__V1__LEAVE_ACTION__REJOIN, WAITING_RETRY_MS,
           "the room is on its way to another shard; try again");
}

void session_answer_not_owner(struct shard *shard, const struct node_address *to, const State *state)
{
    Signalbox__Cluster__V1__NotOwner not_owner = SIGNALBOX__CLUSTER__V1__NOT_OWNER__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    if (shard->view != NULL) {
        view.generation = shard->view->number.generation;
        view.seq = shard->view->number.seq;
    }
    not_owner.room_key = state->room_key;
    not_owner.sid = state->sid;
    not_owner.connection = state->connection;
    not_owner.view = &view;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_NOT_OWNER;
    item.not_owner = &not_owner;
    shard_send(shard, to, &item);
    metric_add_at(M_SESSION_COMMANDS, SESSION_NOT_OWNER, 1);
}

/* Whom the gateway's clients have seen leave: they must not see them come back, whoever still reports them. */
static void take_departures(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    for (size_t i = 0; i < state->n_departures && i < DEPARTURES_REPORTED_MAX; i++) {
        const Signalbox__Cluster__V1__Departure *departure = state->departures[i];
        uint32_t left_ms = departure->left_ms < RESUME_WINDOW_MAX_MS ? departure->left_ms : RESUME_WINDOW_MAX_MS;
        struct member *member = member_find(shard, departure->sid);
        struct sid sid;
        if (!sid_parse(departure->sid, &sid))
            metric_add(M_ITEMS_INVALID, 1);
        else if (member != NULL && room_key_equal(&member->room->key, &binding->key))
            member_end(member, departure->reason, true, binding->now_ms);
        else if (member == NULL && departure_find(shard, &sid) == NULL)
            departure_remember_until(shard, &sid, &binding->key, departure->reason, binding->now_ms + left_ms);
    }
}

static bool valid(const State *state)
{
    struct room_key key;
    return state->participant != NULL && name_valid(state->participant->identity, IDENTITY_MAX) &&
           name_valid(state->room, ROOM_NAME_MAX) && state->room_key.len == sizeof key.bytes;
}

/* What is stored per participant and must fit a page; gateways enforce the finer limits. */
static bool bounded(const Participant *participant)
{
    return participant->n_tracks <= TRACKS_MAX && participant->n_attributes <= ATTRIBUTES_MAX &&
           signalbox__v1__participant__get_packed_size(participant) <= PARTICIPANT_BYTES_MAX;
}

/* Whether the room must come, or be put together, before this can be answered; then it waits, and so it does behind
 * others that wait. Reports are what a room is put together from. */
static bool must_wait(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = shard_find_any_room(shard, &binding->key);
    if (room == NULL || room->state == ROOM_HELD) {
        enum origin origin = owner_origin(shard, room, &binding->key, state->room, NULL, NULL);
        bool here = origin == ORIGIN_NEW || (origin == ORIGIN_LOST && owner_reports_complete(shard, binding->now_ms));
        if (here && (room == NULL || list_empty(&room->waiting)))
            return false;
        if (room == NULL)
            room = shard_open_room(shard, &binding->key, state->project, state->room);
        if (!here && origin == ORIGIN_LOST)
            rebuild_open(room, binding->now_ms);
        else if (room->state == ROOM_ABSENT)
            room_set_state(room, ROOM_HELD);
    }
    bool reports = state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD;
    if (room_is_served(room) || (room->state == ROOM_REBUILDING && reports))
        return false;
    metric_add_at(M_SESSION_COMMANDS, SESSION_HELD, 1);
    search_wait(room, binding->from, state, binding->now_ms);
    if (room->state == ROOM_HELD)
        search_step(room, binding->now_ms); /* may let go of it at once */
    return true;
}

void session_state(struct shard *shard, const struct node_address *from, const State *state, int64_t now_ms)
{
    struct binding binding = {.shard = shard, .from = from, .state = state, .now_ms = now_ms};
    if (!valid(state) || !sid_parse(state->sid, &binding.sid) || !shard_parse_key(&state->room_key, &binding.key)) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (!owner_is_self(shard, shard->view, &binding.key, state->room)) {
        session_answer_not_owner(shard, from, state);
        return;
    }
    struct room *room = shard_find_any_room(shard, &binding.key);
    if (room != NULL && (strcmp(room->name, state->room) != 0 || strcmp(room->project, state->project) != 0)) {
        refuse(&binding, SIGNALBOX__V1__CODE__INTERNAL, SIGNALBOX__V1__LEAVE_REASON__SERVER_ERROR,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "two room names have one key");
        return;
    }
    if (!bounded(state->participant)) {
        refuse(&binding, SIGNALBOX__V1__CODE__TOO_LARGE, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the participant is larger than the protocol allows");
        return;
    }
    if (must_wait(&binding))
        return;
    take_departures(&binding);
    struct member *member;
    HASH_FIND(hh_sid, shard->members_by_sid, &binding.sid, sizeof binding.sid, member);
    if (member == NULL) {
        if (answer_departed(&binding))
            return;
        if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN)
            join_new(&binding);
        else if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME)
            resume_unknown(&binding);
        else
            restore(&binding);
        return;
    }
    if (!room_key_equal(&member->room->key, &binding.key)) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD)
        update(&binding, member);
    else
        bind_known(&binding, member);
}
