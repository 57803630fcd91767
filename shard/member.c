/* A member: what of it comes from its gateway, what is the owner's own, and how it comes to an end. */
#include "common/mem.h"
#include "common/metrics.h"
#include "common/sim_fault.h"
#include "shard/held.h"
#include "shard/internal.h"
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* When windows are stretched: in a storm the last in the queue wait longer for a handshake than their window. */
enum { LATE_SPAN_MS = 5000, LATE_RETURNS_MIN = 10, QUEUE_STEP_MS = 5000, QUEUE_MAX_MS = 270000 };

typedef Signalbox__V1__Participant Participant;

static void on_window_over(struct timer *timer, int64_t now_ms);

struct gateway_ref *member_open_gateway(struct shard *shard, const struct node_address *address)
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

void member_identity_key(const struct room_key *key, const char *identity, uint8_t ret_key[16])
{
    uint8_t digest[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    crypto_hash_sha256_update(&state, key->bytes, sizeof key->bytes);
    crypto_hash_sha256_update(&state, (const uint8_t *)identity, strlen(identity));
    crypto_hash_sha256_final(&state, digest);
    memcpy(ret_key, digest, 16);
}

struct member *member_find(struct shard *shard, const char *sid_text)
{
    struct sid sid;
    struct member *member = NULL;
    if (sid_parse(sid_text, &sid))
        HASH_FIND(hh_sid, shard->members_by_sid, &sid, sizeof sid, member);
    return member;
}

struct member *member_find_identity(struct shard *shard, const struct room_key *room_key, const char *identity)
{
    uint8_t key[16];
    struct member *member;
    member_identity_key(room_key, identity, key);
    HASH_FIND(hh_identity, shard->members_by_identity, key, sizeof key, member);
    return member;
}

void member_set_participant(struct member *member, Participant *participant)
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

struct member *member_new(struct shard *shard, const struct sid *sid, const struct room_key *key,
                          const Participant *participant)
{
    struct member *member = mem_new(struct member);
    const Signalbox__V1__Permissions *permissions = participant->permissions;
    bool hidden = permissions != NULL && permissions->hidden;
    member->shard = shard;
    member->sid = *sid;
    sid_format(&member->sid, member->sid_text);
    member->identity = mem_strdup(participant->identity);
    member_identity_key(key, member->identity, member->identity_key);
    member->viewer = !hidden && participant->kind == SIGNALBOX__V1__PARTICIPANT__KIND__VIEWER;
    member->listed = !hidden && !member->viewer;
    timer_init(&member->window, on_window_over);
    negotiations_init(&member->negotiations);
    list_init(&member->link);
    HASH_ADD(hh_sid, shard->members_by_sid, sid, sizeof member->sid, member);
    HASH_ADD(hh_identity, shard->members_by_identity, identity_key, sizeof member->identity_key, member);
    return member;
}

void member_free(struct member *member)
{
    struct shard *shard = member->shard;
    HASH_DELETE(hh_sid, shard->members_by_sid, member);
    HASH_DELETE(hh_identity, shard->members_by_identity, member);
    timer_cancel(shard->wheel, &member->window);
    negotiations_done(&member->negotiations, NEGOTIATION_FORGOTTEN);
    held_take(&member->held, &shard->held_bytes, NULL, NULL);
    if (member->detached)
        shard->detached--;
    payload_unref(&member->participant);
    free(member->identity);
    free(member);
}

/* --- detached ---------------------------------------------------------------------------------------------------- */

/* Who comes back after half of the window has waited in a queue: that of the gateways, which take no more handshakes
 * than they can. */
static void count_return(struct member *member, int64_t now_ms)
{
    struct shard *shard = member->shard;
    if (now_ms - shard->late_returns.since_ms >= LATE_SPAN_MS) {
        bool next = now_ms - shard->late_returns.since_ms < 2 * LATE_SPAN_MS;
        shard->late_returns.before = next ? shard->late_returns.count : 0;
        shard->late_returns.count = 0;
        shard->late_returns.since_ms = now_ms;
    }
    if (now_ms - member->detached_ms >= member->resume_window_ms / 2)
        shard->late_returns.count++;
}

/* While that queue moves, whoever is still in it is waited for. */
static bool queue_moves(const struct shard *shard, int64_t now_ms)
{
    return now_ms - shard->late_returns.since_ms < 2 * LATE_SPAN_MS &&
           shard->late_returns.count + shard->late_returns.before >= LATE_RETURNS_MIN;
}

static void on_window_over(struct timer *timer, int64_t now_ms)
{
    struct member *member = container_of(timer, struct member, window);
    int64_t longest_ms = member->detached_ms + member->resume_window_ms + QUEUE_MAX_MS;
    if (member->shard->suspended || !room_is_served(member->room)) /* whoever wants to come back could not */
        timer_set(member->shard->wheel, timer, now_ms + SHARD_SUSPENDED_MS);
    else if (queue_moves(member->shard, now_ms) && now_ms < longest_ms)
        timer_set(member->shard->wheel, timer, now_ms + QUEUE_STEP_MS);
    else
        member_end(member, SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED, true, now_ms);
}

/* Label values of M_ABSENCES. */
enum absence_outcome { ABSENCE_RETURNED, ABSENCE_WINDOW_OVER, ABSENCE_ENDED };

void member_attach(struct member *member, int64_t now_ms)
{
    if (!member->detached)
        return;
    count_return(member, now_ms);
    metric_add_at(M_ABSENCES, ABSENCE_RETURNED, 1);
    metric_observe_us(M_ABSENCE, (now_ms - member->detached_ms) * 1000);
    member->detached = false;
    member->shard->detached--;
    timer_cancel(member->shard->wheel, &member->window);
}

static void pass_on(void *ctx, struct payload *item)
{
    struct member *member = ctx;
    member->shard->actions.send(member->shard->ctx, &member->gateway->address, item);
}

void member_pass_on_held(struct member *member)
{
    if (!member->detached)
        held_take(&member->held, &member->shard->held_bytes, pass_on, member);
}

void member_detach(struct member *member, uint32_t left_ms, int64_t now_ms)
{
    if (SIM_FAULT(DEPART_AT_ONCE))
        left_ms = 0;
    if (left_ms > member->resume_window_ms)
        left_ms = member->resume_window_ms;
    if (!member->detached) {
        member->detached = true;
        member->detached_ms = now_ms - (member->resume_window_ms - left_ms);
        member->shard->detached++;
    }
    timer_set(member->shard->wheel, &member->window, now_ms + left_ms);
}

void member_tell_closed(struct member *member, Signalbox__V1__LeaveReason reason)
{
    Signalbox__Cluster__V1__SessionCommand command = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__V1__Leave leave = SIGNALBOX__V1__LEAVE__INIT;
    leave.reason = reason;
    leave.action = departure_action(reason);
    command.room_key = (ProtobufCBinaryData){.len = sizeof member->room->key.bytes, .data = member->room->key.bytes};
    command.sid = member->sid_text;
    command.bind_generation = member->bind_generation;
    command.command_case = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_CLOSE;
    command.close = &leave;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_COMMAND;
    item.session_command = &command;
    shard_send(member->shard, &member->gateway->address, &item);
}

void member_end(struct member *member, Signalbox__V1__LeaveReason reason, bool tell_gateway, int64_t now_ms)
{
    struct shard *shard = member->shard;
    struct room *room = member->room;
    if (tell_gateway)
        member_tell_closed(member, reason);
    departure_remember(shard, &member->sid, &room->key, reason, member->resume_window_ms, now_ms);
    departure_revoke(shard, &member->sid, reason, now_ms);
    if (member->detached)
        metric_add_at(M_ABSENCES,
                      reason == SIGNALBOX__V1__LEAVE_REASON__DISCONNECTED ? ABSENCE_WINDOW_OVER : ABSENCE_ENDED, 1);
    metric_add_at(M_DEPARTURES, (unsigned)reason <= SIGNALBOX__V1__LEAVE_REASON__SESSION_GONE ? reason : 0, 1);
    negotiations_done(&member->negotiations, NEGOTIATION_CLOSED);
    room_remove_member(room, member, reason, now_ms);
    member_free(member);
    shard_drop_room_if_idle(shard, room);
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

void member_change(struct member *member, Participant *participant, unsigned changes, int64_t now_ms)
{
    struct room *room = member->room;
    if (member->listed || member->viewer)
        room->seq++;
    if (member->listed)
        room->digest -= member_digest(member);
    member->participant_version++;
    if (member->listed)
        room->digest += member_digest(member);
    member_set_participant(member, participant);
    room_update_member(room, member, changes, now_ms);
}

/* In the shard's arena, until the next call. */
static Participant *unpack_participant(const struct member *member)
{
    struct arena *arena = &member->shard->arena;
    arena_reset(arena);
    Participant *participant =
        (Participant *)protobuf_c_message_unpack(&signalbox__v1__participant__descriptor, &arena->allocator,
                                                 member->participant->size, member->participant->data);
    assert(participant != NULL);
    return participant;
}

static unsigned changes_between(const Participant *old, const Participant *participant)
{
    return (profile_differs(old, participant) ? CHANGED_PROFILE : 0) |
           (tracks_differ(old, participant) ? CHANGED_TRACKS : 0);
}

unsigned member_changes(const struct member *member, const Participant *participant)
{
    return changes_between(unpack_participant(member), participant);
}

void member_apply_participant(struct member *member, Participant *participant, int64_t now_ms)
{
    Participant *old = unpack_participant(member);
    unsigned changes = changes_between(old, participant);
    if (changes == 0)
        return;
    /* Who somebody is and may do is not the gateway's to change. */
    participant->permissions = old->permissions;
    participant->kind = old->kind;
    participant->identity = member->identity;
    member_change(member, participant, changes, now_ms);
}

void member_apply_permissions(struct member *member, Signalbox__V1__Permissions *permissions, int64_t now_ms)
{
    Participant *participant = unpack_participant(member);
    permissions->hidden = participant->permissions != NULL && participant->permissions->hidden;
    participant->permissions = permissions;
    member_change(member, participant, CHANGED_PERMISSIONS, now_ms);
}
