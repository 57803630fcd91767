/* Binding: what a gateway wants of a session becomes what the owner knows of a member.
 *
 * A gateway repeats the whole wanted state of a session until the owner has acknowledged its version, so everything
 * here may happen twice, late, or never, and must come out the same. */
#include "common/log.h"
#include "common/mem.h"
#include "common/metrics.h"
#include "shard/frames.h"
#include "shard/internal.h"
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__V1__Participant Participant;

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

static void refuse(const struct binding *binding, Signalbox__V1__Code code, Signalbox__V1__LeaveReason reason,
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
    metric_add_at(M_SESSION_COMMANDS, SESSION_REFUSED, 1);
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
    ack->topology = SIGNALBOX__V1__TOPOLOGY__MESH;
}

/* The acknowledgement of an update: no more than that. */
static void ack_update(const struct binding *binding, const struct member *member)
{
    Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
    Signalbox__Cluster__V1__Epoch epoch, join_epoch;
    fill_ack(member, binding->state, &ack, &epoch, &join_epoch);
    ack.seq = member->room->seq;
    send_ack(binding->shard, binding->from, &ack);
}

/* The first acknowledgement of a connection: with it comes what the client must know of the room. */
static void ack_bound(const struct binding *binding, struct member *member)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = member->room;
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
        page = snapshot_page(room, "", state->want_viewers, &ack.seq, &last_page, binding->now_ms);
        page_data = (ProtobufCBinaryData){.len = page->size, .data = page->data};
        ack.messages = &page_data;
        ack.n_messages = 1;
        ack.more_pages = !last_page;
    }
    send_ack(shard, binding->from, &ack);
    payload_unref(&page);
}

/* --- members ----------------------------------------------------------------------------------------------------- */

static struct gateway_ref *open_gateway(struct shard *shard, const struct node_address *address)
{
    struct gateway_ref *gateway;
    HASH_FIND(hh, shard->gateways, &address->incarnation, sizeof address->incarnation, gateway);
    if (gateway != NULL)
        return gateway;
    gateway = mem_new(struct gateway_ref);
    gateway->address = *address;
    HASH_ADD(hh, shard->gateways, address.incarnation, sizeof gateway->address.incarnation, gateway);
    return gateway;
}

static void identity_key_make(const struct room_key *key, const char *identity, uint8_t ret_key[16])
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, key->bytes, sizeof key->bytes);
    crypto_hash_sha256_update(&state, (const uint8_t *)identity, strlen(identity));
    crypto_hash_sha256_final(&state, digest);
    memcpy(ret_key, digest, 16);
}

struct member *session_find(struct shard *shard, const char *sid_text)
{
    struct sid sid;
    struct member *member = NULL;
    if (sid_parse(sid_text, &sid))
        HASH_FIND(hh_sid, shard->members_by_sid, &sid, sizeof sid, member);
    return member;
}

static struct member *find_identity(const struct binding *binding, const char *identity)
{
    uint8_t key[16];
    struct member *member;
    identity_key_make(&binding->key, identity, key);
    HASH_FIND(hh_identity, binding->shard->members_by_identity, key, sizeof key, member);
    return member;
}

/* Takes over the gateway's idea of the participant, with the fields that are the owner's own. */
static void set_participant(struct member *member, Participant *participant)
{
    Signalbox__V1__Position join = SIGNALBOX__V1__POSITION__INIT;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    epoch_format(&member->join_epoch, epoch_text);
    join.epoch = epoch_text;
    join.seq = member->join_seq;
    participant->sid = member->sid_text;
    participant->joined_at_ms = member->joined_at_ms;
    participant->join = &join;
    participant->version = member->participant_version;
    struct payload *packed = payload_pack(&participant->base);
    payload_unref(&member->participant);
    member->participant = packed;
    participant->join = NULL;
}

void session_change(struct member *member, Participant *participant, unsigned changes, int64_t now_ms)
{
    struct room *room = member->room;
    if (member->listed) {
        room->digest -= member_digest(member);
        room->seq++;
    }
    member->participant_version++;
    if (member->listed)
        room->digest += member_digest(member);
    set_participant(member, participant);
    room_update_member(room, member, changes, now_ms);
}

static void member_free(struct member *member)
{
    struct shard *shard = member->shard;
    HASH_DELETE(hh_sid, shard->members_by_sid, member);
    HASH_DELETE(hh_identity, shard->members_by_identity, member);
    timer_cancel(shard->wheel, &member->window);
    if (member->detached)
        shard->detached--;
    payload_unref(&member->participant);
    free(member->identity);
    free(member);
}

static void on_window_over(struct timer *timer, int64_t now_ms)
{
    struct member *member = container_of(timer, struct member, window);
    session_end(member->shard, member, SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED, true, now_ms);
}

static void attach(struct member *member)
{
    if (!member->detached)
        return;
    member->detached = false;
    member->shard->detached--;
    timer_cancel(member->shard->wheel, &member->window);
}

static void detach(struct member *member, uint32_t left_ms, int64_t now_ms)
{
    if (left_ms > member->resume_window_ms)
        left_ms = member->resume_window_ms;
    if (!member->detached) {
        member->detached = true;
        member->shard->detached++;
    }
    timer_set(member->shard->wheel, &member->window, now_ms + left_ms);
}

static void on_departure_forgotten(struct timer *timer, int64_t now_ms)
{
    struct departure *departure = container_of(timer, struct departure, expiry);
    HASH_DEL(departure->shard->departures, departure);
    free(departure);
}

static void remember_departure(struct shard *shard, const struct sid *sid, const struct room_key *key,
                               Signalbox__V1__LeaveReason reason, uint32_t window_ms, int64_t now_ms)
{
    struct departure *departure;
    HASH_FIND(hh, shard->departures, sid, sizeof *sid, departure);
    if (departure == NULL) {
        departure = mem_new(struct departure);
        departure->sid = *sid;
        departure->shard = shard;
        timer_init(&departure->expiry, on_departure_forgotten);
        HASH_ADD(hh, shard->departures, sid, sizeof departure->sid, departure);
    }
    departure->room_key = *key;
    departure->reason = reason;
    timer_set(shard->wheel, &departure->expiry, now_ms + window_ms + shard->options.limits.departure_ms);
}

static void tell_closed(struct member *member, Signalbox__V1__LeaveReason reason)
{
    Signalbox__Cluster__V1__SessionCommand command = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    bool rejoin =
        reason == SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED || reason == SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED;
    leave.reason = reason;
    leave.action = rejoin ? SIGNALBOX__V1__LEAVE_ACTION__REJOIN : SIGNALBOX__V1__LEAVE_ACTION__STOP;
    command.room_key = (ProtobufCBinaryData){.len = sizeof member->room->key.bytes, .data = member->room->key.bytes};
    command.sid = member->sid_text;
    command.bind_generation = member->bind_generation;
    command.command_case = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE;
    command.close = &leave;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_COMMAND;
    item.session_command = &command;
    shard_send(member->shard, &member->gateway->address, &item);
}

void session_end(struct shard *shard, struct member *member, Signalbox__V1__LeaveReason reason, bool tell_gateway,
                 int64_t now_ms)
{
    struct room *room = member->room;
    if (tell_gateway)
        tell_closed(member, reason);
    remember_departure(shard, &member->sid, &room->key, reason, member->resume_window_ms, now_ms);
    metric_add_at(M_DEPARTURES, (unsigned)reason <= SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE ? reason : 0, 1);
    room_remove_member(room, member, reason, now_ms);
    member_free(member);
    shard_drop_room_if_idle(shard, room);
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

/* --- seating ----------------------------------------------------------------------------------------------------- */

static void on_settled(struct timer *timer, int64_t now_ms)
{
    struct room *room = container_of(timer, struct room, settle_timer);
    room->settling = false;
    room->shard->settling_rooms--;
    Signalbox__V1__ServerMessage message = SIGNALBOX__V1__SERVER_MESSAGE__INIT;
    Signalbox__V1__Settled settled = SIGNALBOX__V1__SETTLED__INIT;
    Signalbox__V1__Position position = SIGNALBOX__V1__POSITION__INIT;
    char digest[17];
    room_flush(room, true, now_ms);
    snprintf(digest, sizeof digest, "%016llx", (unsigned long long)room->digest);
    position.epoch = room->epoch_text;
    position.seq = room->seq;
    settled.position = &position;
    settled.participants = room->listed;
    settled.digest = digest;
    message.body_case = SIGNALBOX__V1__SERVER_MESSAGE__BODY_SETTLED;
    message.settled = &settled;
    struct payload *packed = payload_pack(&message.base);
    room_broadcast(room, 3, 0, 0, packed, "");
    payload_unref(&packed);
    log_info("room_settled", log_str("room", room->name), log_uint("participants", room->total));
    shard_drop_room_if_idle(room->shard, room);
}

static struct room *open_room(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = shard_find_room(shard, &binding->key);
    if (room != NULL)
        return room;
    struct epoch epoch = {
        .view = shard->view->number, .counter = ++shard->epoch_counter, .incarnation = shard->options.self.incarnation};
    room = room_new(shard, &binding->key, state->project, state->room, &epoch, shard->actions.wall_ms(shard->ctx));
    HASH_ADD(hh, shard->rooms, key, sizeof room->key, room);
    timer_init(&room->settle_timer, on_settled);
    /* Somebody knew this room before this owner did: others may yet come back. */
    if (state->intent != SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN) {
        room->settling = true;
        shard->settling_rooms++;
        timer_set(shard->wheel, &room->settle_timer, binding->now_ms + state->resume_window_ms);
    }
    return room;
}

/* Limits that a newcomer meets; those who were here already are never turned away by them. */
static bool admit(const struct binding *binding)
{
    struct shard *shard = binding->shard;
    const struct shard_limits *limits = &shard->options.limits;
    struct room *room = shard_find_room(shard, &binding->key);
    if (room == NULL && HASH_COUNT(shard->rooms) >= limits->rooms) {
        refuse(binding, SIGNALBOX__V1__CODE__NO_CAPACITY, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
               SIGNALBOX__V1__LEAVE_ACTION__REJOIN, 5000, "this shard has as many rooms as it may hold");
        return false;
    }
    if (HASH_CNT(hh_sid, shard->members_by_sid) >= limits->participants) {
        refuse(binding, SIGNALBOX__V1__CODE__NO_CAPACITY, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
               SIGNALBOX__V1__LEAVE_ACTION__REJOIN, 5000, "this shard has as many participants as it may hold");
        return false;
    }
    if (room != NULL && room->total >= limits->room_participants) {
        refuse(binding, SIGNALBOX__V1__CODE__LIMIT_REACHED, SIGNALBOX__V1__LEAVE_REASON__CAPACITY,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this room has as many participants as a room may have");
        return false;
    }
    return true;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* A member that this owner did not have. The caller has checked that it may come. */
static struct member *seat(const struct binding *binding, uint64_t bind_generation)
{
    struct shard *shard = binding->shard;
    const State *state = binding->state;
    struct room *room = open_room(binding);
    struct member *member = mem_new(struct member);
    member->shard = shard;
    member->sid = binding->sid;
    sid_format(&member->sid, member->sid_text);
    member->identity = mem_strdup(state->participant->identity);
    identity_key_make(&room->key, member->identity, member->identity_key);
    member->gateway = open_gateway(shard, binding->from);
    member->connection = state->connection;
    member->bind_generation = bind_generation;
    member->confirmed_generation = state->token_bind_generation;
    member->version = state->version;
    member->room_send_seq = state->room_send_acked;
    member->resume_window_ms = state->resume_window_ms;
    timer_init(&member->window, on_window_over);

    const Signalbox__V1__Permissions *permissions = state->participant->permissions;
    bool hidden = permissions != NULL && permissions->hidden;
    member->viewer = !hidden && state->participant->kind == SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER;
    member->listed = !hidden && !member->viewer;
    if (member->listed || member->viewer)
        room->seq++;
    member->participant_version = 1;
    if (state->join_epoch != NULL && state->joined_at_ms != 0) {
        member->join_epoch = epoch_from_proto(state->join_epoch);
        member->join_seq = state->join_seq;
        member->joined_at_ms = state->joined_at_ms;
        member->participant_version = max_u64(1, state->participant->version);
    } else {
        member->join_epoch = room->epoch;
        member->join_seq = room->seq;
        member->joined_at_ms = shard->actions.wall_ms(shard->ctx);
    }
    set_participant(member, state->participant);
    HASH_ADD(hh_sid, shard->members_by_sid, sid, sizeof member->sid, member);
    HASH_ADD(hh_identity, shard->members_by_identity, identity_key, sizeof member->identity_key, member);
    room_add_member(room, member, binding->now_ms);
    return member;
}

/* One identity, one participant: the newcomer takes the place of another session of the same identity, or is refused.
 * True if the way is free. */
static bool resolve_duplicate(const struct binding *binding)
{
    struct member *other = find_identity(binding, binding->state->participant->identity);
    if (other == NULL)
        return true;
    bool joins = binding->state->intent == SIGNALBOX__CLUSTER__V1__SESSION_STATE__INTENT__JOIN;
    if (!joins || binding->shard->options.duplicate == DUPLICATE_REFUSE) {
        /* A resume never replaces a later join. */
        refuse(binding, SIGNALBOX__V1__CODE__ALREADY_EXISTS, SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "another session of this identity is in the room");
        return false;
    }
    session_end(binding->shard, other, SIGNALBOX__V1__LEAVE_REASON__DUPLICATE_IDENTITY, true, binding->now_ms);
    return true;
}

static void join_new(const struct binding *binding)
{
    if (!admit(binding) || !resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_JOINED, 1);
    ack_bound(binding, member);
}

/* A session that this owner does not know asks for its place. It gets it only while the room is being put together. */
static void resume_unknown(const struct binding *binding)
{
    struct room *room = shard_find_room(binding->shard, &binding->key);
    if (room != NULL && !room->settling) {
        refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE,
               SIGNALBOX__V1__LEAVE_ACTION__REJOIN, 0, "this session is not known here any more");
        return;
    }
    if (!resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, binding->state->token_bind_generation + 1);
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    ack_bound(binding, member);
}

/* A gateway reports a session that it holds to an owner that lacks it. */
static void restore(const struct binding *binding)
{
    const State *state = binding->state;
    if (!resolve_duplicate(binding))
        return;
    struct member *member = seat(binding, state->bind_generation);
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED)
        detach(member, state->window_left_ms, binding->now_ms);
    metric_add_at(M_SESSION_COMMANDS, SESSION_RESTORED, 1);
    ack_bound(binding, member);
}

/* --- known members ----------------------------------------------------------------------------------------------- */

static void rebind(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    bool same_connection =
        member->gateway->address.incarnation == binding->from->incarnation && member->connection == state->connection;
    if (same_connection) {
        metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
        ack_bound(binding, member); /* the first answer was lost */
        return;
    }
    if (state->token_bind_generation < member->confirmed_generation) {
        refuse(binding, SIGNALBOX__V1__CODE__UNAUTHENTICATED, SIGNALBOX__V1__LEAVE_REASON__REPLACED,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "this resume token has been superseded by a newer one");
        return;
    }
    if (!member->detached || member->gateway->address.incarnation != binding->from->incarnation)
        tell_closed(member, SIGNALBOX__V1__LEAVE_REASON__REPLACED);
    member->bind_generation = max_u64(member->bind_generation, state->token_bind_generation) + 1;
    member->confirmed_generation = max_u64(member->confirmed_generation, state->token_bind_generation);
    member->connection = state->connection;
    member->version = state->version;
    member->resume_window_ms = state->resume_window_ms;
    room_move_member(member->room, member, open_gateway(binding->shard, binding->from));
    attach(member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_REBOUND, 1);
    ack_bound(binding, member);
}

static bool tracks_differ(const Participant *a, const Participant *b)
{
    if (a->n_tracks != b->n_tracks)
        return true;
    for (size_t i = 0; i < a->n_tracks; i++) {
        uint8_t packed_a[1024], packed_b[1024];
        size_t size = signalbox__v1__track__get_packed_size(a->tracks[i]);
        if (size != signalbox__v1__track__get_packed_size(b->tracks[i]) || size > sizeof packed_a)
            return true;
        signalbox__v1__track__pack(a->tracks[i], packed_a);
        signalbox__v1__track__pack(b->tracks[i], packed_b);
        if (memcmp(packed_a, packed_b, size) != 0)
            return true;
    }
    return false;
}

static bool profile_differs(const Participant *a, const Participant *b)
{
    if (strcmp(a->name, b->name) != 0 || strcmp(a->metadata, b->metadata) != 0 || a->n_attributes != b->n_attributes)
        return true;
    for (size_t i = 0; i < a->n_attributes; i++)
        if (strcmp(a->attributes[i]->key, b->attributes[i]->key) != 0 ||
            strcmp(a->attributes[i]->value, b->attributes[i]->value) != 0)
            return true;
    return false;
}

static void apply_participant(const struct binding *binding, struct member *member)
{
    struct arena *arena = &binding->shard->arena;
    arena_reset(arena);
    Participant *old =
        (Participant *)protobuf_c_message_unpack(&signalbox__v1__participant__descriptor, &arena->allocator,
                                                 member->participant->size, member->participant->data);
    assert(old != NULL);
    Participant *new = binding->state->participant;
    unsigned changes =
        (profile_differs(old, new) ? CHANGED_PROFILE : 0) | (tracks_differ(old, new) ? CHANGED_TRACKS : 0);
    if (changes == 0)
        return;
    /* Who somebody is and may do is not the gateway's to change. */
    new->permissions = old->permissions;
    new->kind = old->kind;
    new->identity = member->identity;
    session_change(member, new, changes, binding->now_ms);
}

static void update(const struct binding *binding, struct member *member)
{
    const State *state = binding->state;
    if (state->bind_generation < member->bind_generation) {
        metric_add_at(M_SESSION_COMMANDS, SESSION_STALE, 1);
        refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND, SIGNALBOX__V1__LEAVE_REASON__REPLACED,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "the session was resumed on a newer connection");
        return;
    }
    if (state->bind_generation > member->bind_generation) {
        /* An owner that rebuilt the room from older reports catches up. */
        member->bind_generation = state->bind_generation;
        member->connection = state->connection;
        member->version = 0;
        room_move_member(member->room, member, open_gateway(binding->shard, binding->from));
    }
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED) {
        ack_update(binding, member);
        session_end(binding->shard, member, state->reason, false, binding->now_ms);
        metric_add_at(M_SESSION_COMMANDS, SESSION_DEPARTED, 1);
        return;
    }
    if (state->version <= member->version) {
        metric_add_at(M_SESSION_COMMANDS, SESSION_REPEATED, 1);
        ack_update(binding, member);
        return;
    }
    member->version = state->version;
    if (state->confirmed)
        member->confirmed_generation = member->bind_generation;
    if (state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DETACHED)
        detach(member, state->window_left_ms, binding->now_ms);
    else
        attach(member);
    apply_participant(binding, member);
    metric_add_at(M_SESSION_COMMANDS, SESSION_UPDATED, 1);
    ack_update(binding, member);
}

/* --- entry ------------------------------------------------------------------------------------------------------- */

static bool answer_departed(const struct binding *binding)
{
    struct departure *departure;
    HASH_FIND(hh, binding->shard->departures, &binding->sid, sizeof binding->sid, departure);
    bool asks_to_depart = binding->state->state == SIGNALBOX__CLUSTER__V1__SESSION_STATE__STATE__DEPARTED;
    if (departure == NULL && !asks_to_depart)
        return false;
    if (departure == NULL)
        remember_departure(binding->shard, &binding->sid, &binding->key, binding->state->reason,
                           binding->state->resume_window_ms, binding->now_ms);
    if (asks_to_depart) {
        Signalbox__Cluster__V1__SessionAck ack = SIGNALBOX__CLUSTER__V1__SESSION_ACK__INIT;
        ack.room_key = binding->state->room_key;
        ack.sid = binding->state->sid;
        ack.connection = binding->state->connection;
        ack.version = binding->state->version;
        ack.code = SIGNALBOX__V1__CODE__OK;
        send_ack(binding->shard, binding->from, &ack);
        return true;
    }
    bool rejoin = departure->reason == SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED ||
                  departure->reason == SIGNALBOX__V1__LEAVE_REASON__CLIENT_LEFT;
    refuse(binding, SIGNALBOX__V1__CODE__NOT_FOUND,
           rejoin ? SIGNALBOX__V1__LEAVE_REASON__WINDOW_EXPIRED : departure->reason,
           rejoin ? SIGNALBOX__V1__LEAVE_ACTION__REJOIN : SIGNALBOX__V1__LEAVE_ACTION__STOP, 0,
           "this session has ended");
    return true;
}

static void answer_not_owner(const struct binding *binding)
{
    Signalbox__Cluster__V1__NotOwner not_owner = SIGNALBOX__CLUSTER__V1__NOT_OWNER__INIT;
    Signalbox__Cluster__V1__ViewNumber view = SIGNALBOX__CLUSTER__V1__VIEW_NUMBER__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    if (binding->shard->view != NULL) {
        view.generation = binding->shard->view->number.generation;
        view.seq = binding->shard->view->number.seq;
    }
    not_owner.room_key = binding->state->room_key;
    not_owner.sid = binding->state->sid;
    not_owner.connection = binding->state->connection;
    not_owner.view = &view;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_NOT_OWNER;
    item.not_owner = &not_owner;
    shard_send(binding->shard, binding->from, &item);
    metric_add_at(M_SESSION_COMMANDS, SESSION_NOT_OWNER, 1);
}

static bool owns(const struct shard *shard, const struct room_key *key, const char *room)
{
    char region[REGION_MAX + 1];
    room_region(room, region);
    if (shard->view == NULL)
        return false;
    const struct view_node *owner = view_owner(shard->view, &shard->options.seed, key, region);
    return owner != NULL && owner->incarnation == shard->options.self.incarnation;
}

static bool valid(const State *state)
{
    struct room_key key;
    return state->participant != NULL && name_valid(state->participant->identity, IDENTITY_MAX) &&
           name_valid(state->room, ROOM_NAME_MAX) && state->room_key.len == sizeof key.bytes;
}

void session_state(struct shard *shard, const struct node_address *from, const State *state, int64_t now_ms)
{
    struct binding binding = {.shard = shard, .from = from, .state = state, .now_ms = now_ms};
    if (!valid(state) || !sid_parse(state->sid, &binding.sid) || !shard_parse_key(&state->room_key, &binding.key)) {
        metric_add(M_ITEMS_INVALID, 1);
        return;
    }
    if (!owns(shard, &binding.key, state->room)) {
        answer_not_owner(&binding);
        return;
    }
    struct room *room = shard_find_room(shard, &binding.key);
    if (room != NULL && (strcmp(room->name, state->room) != 0 || strcmp(room->project, state->project) != 0)) {
        refuse(&binding, SIGNALBOX__V1__CODE__INTERNAL, SIGNALBOX__V1__LEAVE_REASON__SERVER_ERROR,
               SIGNALBOX__V1__LEAVE_ACTION__STOP, 0, "two room names have one key");
        return;
    }
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
        rebind(&binding, member);
}
