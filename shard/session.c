/* Binding: what a gateway wants of a session becomes what the owner knows of a member.
 *
 * A gateway repeats the whole wanted state of a session until the owner has acknowledged its version, so everything
 * here may happen twice, late, or never, and must come out the same. */
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/binding.h"
#include <string.h>

typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__V1__Participant Participant;

enum {
    PARTICIPANT_BYTES_MAX = 48 * 1024,
    TRACKS_MAX = 256,
    ATTRIBUTES_MAX = 256,
    WAITING_RETRY_MS = 1000,
    DEPARTURES_REPORTED_MAX = 64,
};

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
    binding_ack_departed(binding);
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
        binding_refuse_stale(binding);
        return;
    }
    if (state->attempt != 0 && state->attempt < member->attempt) {
        binding_refuse_stale(binding); /* held up on its way: the client has given it up for a newer one */
        return;
    }
    if (state->token_bind_generation < member->confirmed_generation) {
        binding_refuse(binding, SIGNALBOX__V1__CODE__UNAUTHENTICATED, SIGNALBOX__V1__LEAVE_REASON__REPLACED,
                       SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this resume token has been superseded by a newer one");
        return;
    }
    if (departs(state)) {
        depart(binding, member, true);
        return;
    }
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED) {
        /* Gone again before it was bound: that is no reason to take the session from whoever has it. */
        binding_refuse_stale(binding);
        return;
    }
    if (!member->detached || member->gateway->address.incarnation != binding->from->incarnation)
        member_tell_closed(member, SIGNALBOX__V1__LEAVE_REASON__REPLACED);
    move(binding, member, max_u64(member->bind_generation, state->token_bind_generation) + 1);
    member->confirmed_generation = max_u64(member->confirmed_generation, state->token_bind_generation);
    member->resume_window_ms = binding_window_ms(state->resume_window_ms);
    apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REBOUND, 1);
    binding_ack_bound(binding, member, false);
}

/* A gateway that left the view and came back into it, as the start that it was, holds the session as ever, while it was
 * taken for detached here. A gateway's own word of a loss has a newer version. */
static bool was_taken_for_lost(const State *state, const struct member *member)
{
    return member->detached && state->version == member->version &&
           state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__ATTACHED;
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
    if (state->version > member->version || comes_back || was_taken_for_lost(state, member))
        apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
    binding_ack_bound(binding, member, false); /* the first answer was lost */
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
        binding_refuse_stale(binding);
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
        if (was_taken_for_lost(state, member))
            member_attach(member, binding->now_ms);
        metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
        binding_ack_update(binding, member);
        return;
    }
    if (!catches_up && !within_change_budget(binding, member))
        return;
    apply_state(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_UPDATED, 1);
    binding_ack_update(binding, member);
}

/* --- entry ------------------------------------------------------------------------------------------------------- */

static bool answer_departed(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    struct departure *departure = departure_find(shard, &binding->sid);
    Signalbox__V1__LeaveReason reason = revocations_find(&shard->revocations, &binding->sid, binding->now_ms);
    bool revoked = reason != SIGNALBOX__V1__LEAVE_REASON__LEAVE_REASON_UNSPECIFIED;
    if (departs(binding->state)) {
        if (departure == NULL) {
            departure_remember(shard, &binding->sid, &binding->key, binding->state->reason,
                               binding_window_ms(binding->state->resume_window_ms), binding->now_ms);
            departure_revoke(shard, &binding->sid, binding->state->reason, binding->now_ms);
        }
        binding_ack_departed(binding);
        return true;
    }
    if (departure == NULL && !revoked)
        return false;
    if (!revoked)
        reason = departure->reason;
    /* Seen by others it was disconnected; to itself, it came too late. */
    if (reason == SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED)
        reason = SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED;
    else if (reason == SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT)
        reason = SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE;
    binding_refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, reason, departure_action(reason), 0,
                   "this session has ended");
    return true;
}

void session_refuse_waiting(struct shard *shard, const struct node_address *from, const State *state)
{
    struct binding binding = {.shard = shard, .from = from, .state = state};
    if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__HOLD)
        return; /* its gateway repeats it */
    bool resumes = state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME;
    binding_refuse(&binding, SIGNALBOX__V1__CODE__RETRY, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
                   resumes ? SIGNALBOX__V1__LEAVE_ACTION__RESUME : SIGNALBOX__V1__LEAVE_ACTION__REJOIN,
                   WAITING_RETRY_MS, "the room is on its way to another shard; try again");
}

static void send_not_owner(struct shard *shard, const struct node_address *to, const State *state)
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
}

void session_answer_not_owner(struct shard *shard, const struct node_address *to, const State *state)
{
    send_not_owner(shard, to, state);
    metric_add_at(M_SESSION_COMMANDS, SESSION_NOT_OWNER, 1);
}

/* Said to this shard as the owner that it was before another one: that one may know better by now. */
static bool is_of_older_view(const State *state, const struct room *room)
{
    if (state->view == NULL || room == NULL)
        return false;
    struct view_number number = {state->view->generation, state->view->seq};
    return view_number_compare(number, room->owned_since) < 0;
}

/* Whom the gateway's clients have seen leave: they must not see them come back, whoever still reports them. */
static void take_departures(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    if (state->n_departures > DEPARTURES_REPORTED_MAX)
        metric_add(M_ITEMS_INVALID, 1);
    for (size_t i = 0; i < state->n_departures && i < DEPARTURES_REPORTED_MAX; i++) {
        const Signalbox__Cluster__V1__Departure *departure = state->departures[i];
        uint32_t left_ms = binding_window_ms(departure->left_ms);
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
        binding_refuse(&binding, SIGNALBOX__V1__CODE__INTERNAL, SIGNALBOX__V1__LEAVE_REASON__SERVER_ERROR,
                       SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "two room names have one key");
        return;
    }
    if (!bounded(state->participant)) {
        binding_refuse(&binding, SIGNALBOX__V1__CODE__TOO_LARGE, SIGNALBOX__V1__LEAVE_REASON__PROTOCOL_ERROR,
                       SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the participant is larger than the protocol allows");
        return;
    }
    if (is_of_older_view(state, room)) {
        send_not_owner(shard, from, state);
        metric_add_at(M_SESSION_COMMANDS, SESSION_OLDER_VIEW, 1);
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
            seat_joined(&binding);
        else if (state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__RESUME)
            seat_resumed(&binding);
        else
            seat_reported(&binding);
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
