/* Members that this owner lacks: newcomers, and those of owners before it. */
#include "common/metrics.h"
#include "shard/binding.h"
#include <string.h>

typedef Signalbox__Cluster__V1__SessionState State;

enum { FULL_RETRY_MS = 2000, NO_CAPACITY_RETRY_MS = 10000 };
/* How far a client may claim to have seen its room go on since its own join. */
static const uint64_t SEQ_AHEAD_MAX = UINT64_C(1) << 32;

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
        rebuild_settle(room, binding_window_ms(state->resume_window_ms), binding->now_ms);
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
    binding_refuse(binding, nowhere ? SIGNALBOX__V1__CODE__NO_CAPACITY : SIGNALBOX__V1__CODE__RETRY,
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
        binding_refuse(binding, SIGNALBOX__V1__CODE__LIMIT_REACHED, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
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
    member->resume_window_ms = binding_window_ms(state->resume_window_ms);

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
        binding_refuse(binding, SIGNALBOX__V1__CODE__ALREADY_EXISTS, SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY,
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

static void tell_taken(const struct binding *binding, const struct member *other)
{
    Signalbox__Cluster__V1__IdentityTaken taken = SIGNALBOX__CLUSTER__V1__IDENTITY_TAKEN__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    taken.room_key = binding->state->room_key;
    taken.sid = binding->state->sid;
    taken.connection = binding->state->connection;
    taken.by = (char *)other->sid_text;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_IDENTITY_TAKEN;
    item.identity_taken = &taken;
    shard_send(binding->shard, binding->from, &item);
    metric_add_at(M_SESSION_COMMANDS, SESSION_HELD, 1);
}

void seat_joined(const struct binding *binding)
{
    const struct member *other =
        member_find_identity(binding->shard, &binding->key, binding->state->participant->identity);
    bool replaces = other != NULL;
    /* The bus may have held this join up while a later one was seated: its gateway knows whether anybody still waits
     * for it. */
    if (replaces && binding->shard->options.duplicate == DUPLICATE_REPLACE &&
        strcmp(binding->state->replaces, other->sid_text) != 0) {
        tell_taken(binding, other);
        return;
    }
    if (!admit(binding, replaces) || !within_join_budget(binding) || !resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_JOINED, 1);
    binding_ack_bound(binding, member, true);
}

/* Made since the session was bound last: after everything that knew of it was lost, somebody was quicker to come. The
 * wall clock may have been set back since: then nobody is younger, and who cannot resume joins anew. */
static bool is_younger(const struct binding *binding, const struct room *room)
{
    const struct shard *shard = binding->shard;
    int64_t window_ms = binding_window_ms(binding->state->resume_window_ms);
    int64_t age_ms = shard->actions.wall_ms(shard->ctx) - room->created_at_ms;
    return age_ms > -window_ms && age_ms < window_ms;
}

void seat_resumed(const struct binding *binding)
{
    struct room *room = shard_find_room(binding->shard, &binding->key);
    if (room != NULL && !room_is_settling(room) && !is_younger(binding, room)) {
        binding_refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE,
                       SIGNALBOX__V1__LEAVE_ACTION__REJOIN, 0, "this session is not known here any more");
        return;
    }
    if (!resolve_duplicate(binding))
        return;
    room = shard_find_room(binding->shard, &binding->key); /* it goes with the last one in it */
    if (room != NULL && room->state == ROOM_LIVE)
        rebuild_settle(room, binding_window_ms(binding->state->resume_window_ms), binding->now_ms);
    struct member *member = seat(binding, binding->state->token_bind_generation + 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    binding_ack_bound(binding, member, true);
}

void seat_reported(const struct binding *binding)
{
    const State *state = binding->state;
    if (!resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, max_u64(1, state->bind_generation));
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    binding_ack_update(binding, member);
}
