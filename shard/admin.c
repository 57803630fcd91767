/* Requests of signalboxctl and of the server API about rooms: look, list, remove, mute, update, send, delete. */
#include "common/log.h"
#include "shard/internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Signalbox__Cluster__V1__AdminRequest Request;
typedef Signalbox__Cluster__V1__AdminReply Reply;
typedef Signalbox__Cluster__V1__RoomDetail RoomDetail;
typedef Signalbox__Cluster__V1__MemberDetail MemberDetail;
typedef Signalbox__V1__Participant Participant;

enum {
    ROOMS_PER_PAGE_MAX = 256,
    REPLY_BYTES_MAX = 768 * 1024, /* of the participants in a reply: a bus message takes 1 MiB */
    DATA_BYTES_MAX = 32 * 1024,
    TOPIC_BYTES_MAX = 128,
    RECEIVERS_MAX = 256,
    PROFILE_METADATA_MAX = 4096,
    PROFILE_ATTRIBUTES_MAX = 64,
};

struct admin_call {
    struct shard *shard;
    const Request *request;
    struct arena *arena;
    Reply *reply;
    int64_t now_ms;
};

static void answer(const struct admin_call *call, Signalbox__V1__Code code, const char *message)
{
    call->reply->code = code;
    call->reply->message = (char *)message;
}

static void *zalloc(const struct admin_call *call, size_t count, size_t size)
{
    return arena_zalloc(call->arena, count * size + 1); /* never 0 bytes */
}

/* --- finding ------------------------------------------------------------------------------------------------------ */

/* The room of the request's project; without a project, the only room of that name. NULL with the reason answered. */
static struct room *find_room(const struct admin_call *call, const char *name)
{
    const char *project = call->request->project;
    struct room *found = NULL, *room, *next;

    if (project[0] != '\0') {
        struct room_key key = room_key_make(project, name);
        found = shard_find_room(call->shard, &key);
        if (found != NULL && (strcmp(found->name, name) != 0 || strcmp(found->project, project) != 0))
            found = NULL;
    } else {
        HASH_ITER(hh, call->shard->rooms, room, next) {
            if (strcmp(room->name, name) != 0 || !room_is_served(room))
                continue;
            if (found != NULL) {
                answer(call, SIGNALBOX__V1__CODE__INVALID, "several projects have a room of this name; name one");
                return NULL;
            }
            found = room;
        }
    }
    if (found == NULL)
        answer(call, SIGNALBOX__V1__CODE__NOT_FOUND, "this shard has no such room");
    return found;
}

static struct member *find_member_in(const struct room *room, const char *identity)
{
    list_for_each(pos, &room->members) {
        struct member *member = container_of(pos, struct member, link);
        if (strcmp(member->identity, identity) == 0)
            return member;
    }
    return NULL;
}

static struct member *find_member(const struct admin_call *call, const char *room_name, const char *identity)
{
    struct room *room = find_room(call, room_name);
    struct member *member = room != NULL ? find_member_in(room, identity) : NULL;
    if (room != NULL && member == NULL)
        answer(call, SIGNALBOX__V1__CODE__NOT_FOUND, "no participant of this identity is in the room");
    return member;
}

static Participant *unpack_participant(const struct admin_call *call, const struct member *member)
{
    return (Participant *)protobuf_c_message_unpack(&signalbox__v1__participant__descriptor, &call->arena->allocator,
                                                    member->participant->size, member->participant->data);
}

/* --- looking -------------------------------------------------------------------------------------------------------
 */

/* NULL if the arena is full. */
static RoomDetail *describe_room(const struct admin_call *call, const struct room *room)
{
    RoomDetail *detail = zalloc(call, 1, sizeof *detail);
    Signalbox__V1__RoomInfo *info = zalloc(call, 1, sizeof *info);
    Signalbox__Cluster__V1__Epoch *epoch = zalloc(call, 1, sizeof *epoch);

    if (detail == NULL || info == NULL || epoch == NULL)
        return NULL;
    signalbox__cluster__v1__room_detail__init(detail);
    room_info(room, info);
    *epoch = epoch_to_proto(&room->epoch);
    detail->room_key = (ProtobufCBinaryData){.len = sizeof room->key.bytes, .data = (uint8_t *)room->key.bytes};
    detail->project = room->project;
    detail->shard = call->shard->options.self.id;
    detail->epoch = epoch;
    detail->seq = room->seq;
    detail->state = (char *)room_state_name(room->state);
    detail->info = info;
    return detail;
}

static MemberDetail *describe_member(const struct admin_call *call, const struct member *member)
{
    MemberDetail *detail = zalloc(call, 1, sizeof *detail);

    if (detail == NULL)
        return NULL;
    signalbox__cluster__v1__member_detail__init(detail);
    detail->participant = unpack_participant(call, member);
    detail->gateway = member->gateway->address.id;
    detail->bind_generation = member->bind_generation;
    detail->state = (char *)(member->detached ? "detached" : "attached");
    if (member->detached && member->window.due_ms > call->now_ms)
        detail->window_left_ms = (uint32_t)(member->window.due_ms - call->now_ms);
    return detail->participant != NULL ? detail : NULL;
}

/* As many members as fit a reply; says so if that is not all. */
static void describe_members(const struct admin_call *call, const struct room *room, RoomDetail *detail)
{
    size_t bytes = 0;

    detail->members = zalloc(call, room->total, sizeof *detail->members);
    if (detail->members == NULL)
        return;
    list_for_each(pos, &room->members) {
        MemberDetail *member = describe_member(call, container_of(pos, struct member, link));
        bytes += member != NULL ? signalbox__cluster__v1__member_detail__get_packed_size(member) : 0;
        if (member == NULL || bytes > REPLY_BYTES_MAX) {
            call->reply->message = (char *)"not all participants fit this reply; info has their number";
            return;
        }
        detail->members[detail->n_members++] = member;
    }
}

static void reply_rooms(const struct admin_call *call, struct room *const *rooms, size_t count)
{
    call->reply->rooms = zalloc(call, count, sizeof *call->reply->rooms);
    for (size_t i = 0; call->reply->rooms != NULL && i < count; i++) {
        RoomDetail *detail = describe_room(call, rooms[i]);
        if (detail == NULL)
            break;
        call->reply->rooms[call->reply->n_rooms++] = detail;
    }
}

static void get_room(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__GetRoom *get = call->request->get_room;
    struct admin_call scoped = *call;
    Request request = *call->request;

    if (request.project[0] != '\0' && get->project[0] != '\0' && strcmp(request.project, get->project) != 0) {
        answer(call, SIGNALBOX__V1__CODE__FORBIDDEN, "the room is of another project");
        return;
    }
    if (request.project[0] == '\0')
        request.project = get->project;
    scoped.request = &request;
    struct room *room = find_room(&scoped, get->room);
    if (room == NULL)
        return;
    reply_rooms(call, &room, 1);
    if (call->reply->n_rooms == 1)
        describe_members(call, room, call->reply->rooms[0]);
}

static int compare_keys(const struct room_key *a, const struct room_key *b)
{
    return memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

static bool is_listed(const struct admin_call *call, const struct room *room, const struct room_key *after)
{
    const Signalbox__Cluster__V1__ListRooms *list = call->request->list_rooms;
    const char *project = call->request->project;

    if ((after != NULL && compare_keys(&room->key, after) <= 0) ||
        (project[0] != '\0' && strcmp(room->project, project) != 0))
        return false;
    for (size_t i = 0; i < list->n_names; i++)
        if (strcmp(room->name, list->names[i]) == 0)
            return true;
    return list->n_names == 0;
}

/* Keeps the rooms with the smallest keys, in order. Returns their new number. */
static size_t keep_smallest(struct room **rooms, size_t count, size_t limit, struct room *room)
{
    if (count == limit && compare_keys(&room->key, &rooms[count - 1]->key) > 0)
        return count;
    if (count < limit)
        count++;
    size_t i = count - 1;
    for (; i > 0 && compare_keys(&rooms[i - 1]->key, &room->key) > 0; i--)
        rooms[i] = rooms[i - 1];
    rooms[i] = room;
    return count;
}

static void list_rooms(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__ListRooms *list = call->request->list_rooms;
    size_t limit = list->limit == 0 || list->limit > ROOMS_PER_PAGE_MAX ? ROOMS_PER_PAGE_MAX : list->limit;
    struct room *rooms[ROOMS_PER_PAGE_MAX] = {NULL}, *room, *next;
    struct room_key after;
    size_t count = 0, matching = 0;

    if (list->after.len > 0 && !shard_parse_key(&list->after, &after)) {
        answer(call, SIGNALBOX__V1__CODE__INVALID, "after is not a room key of 16 bytes");
        return;
    }
    HASH_ITER(hh, call->shard->rooms, room, next) {
        if (!is_listed(call, room, list->after.len > 0 ? &after : NULL))
            continue;
        matching++;
        count = keep_smallest(rooms, count, limit, room);
    }
    reply_rooms(call, rooms, count);
    size_t shown = call->reply->n_rooms;
    if (matching > shown && shown > 0)
        call->reply->next = call->reply->rooms[shown - 1]->room_key;
}

/* --- changing ------------------------------------------------------------------------------------------------------
 */

static void remove_participant(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__RemoveParticipant *remove = call->request->remove_participant;
    struct member *member = find_member(call, remove->room, remove->identity);
    if (member != NULL)
        member_end(member, SIGNALBOX__V1__LEAVE_REASON__REMOVED, true, call->now_ms);
}

/* Publishes the change, and makes it what the member's gateway wants too. */
static void change(const struct admin_call *call, struct member *member, Participant *participant, unsigned changes)
{
    Signalbox__Cluster__V1__SessionCommand command = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;

    member_change(member, participant, changes, call->now_ms);
    command.room_key = (ProtobufCBinaryData){.len = sizeof member->room->key.bytes, .data = member->room->key.bytes};
    command.sid = member->sid_text;
    command.bind_generation = member->bind_generation;
    command.command_case = SIGNALBOX__CLUSTER__V1__SESSION_COMMAND__COMMAND_UPDATE;
    command.update = participant;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SESSION_COMMAND;
    item.session_command = &command;
    shard_send(call->shard, &member->gateway->address, &item);
}

static void mute_track(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__MuteTrack *mute = call->request->mute_track;
    struct member *member = find_member(call, mute->room, mute->identity);
    Participant *participant = member != NULL ? unpack_participant(call, member) : NULL;

    if (participant == NULL)
        return;
    for (size_t i = 0; i < participant->n_tracks; i++) {
        if (strcmp(participant->tracks[i]->id, mute->track_id) != 0)
            continue;
        if (participant->tracks[i]->muted != mute->muted) {
            participant->tracks[i]->muted = mute->muted;
            change(call, member, participant, CHANGED_TRACKS);
        }
        return;
    }
    answer(call, SIGNALBOX__V1__CODE__NOT_FOUND, "the participant has no such track");
}

static const char *profile_fault(const Signalbox__V1__Profile *profile)
{
    size_t bytes = strlen(profile->metadata);

    if (profile->name[0] != '\0' && !name_valid(profile->name, IDENTITY_MAX))
        return "the name is longer than 128 bytes or has control characters";
    if (profile->n_attributes > PROFILE_ATTRIBUTES_MAX)
        return "more than 64 attributes";
    for (size_t i = 0; i < profile->n_attributes; i++)
        bytes += strlen(profile->attributes[i]->key) + strlen(profile->attributes[i]->value);
    return bytes > PROFILE_METADATA_MAX ? "metadata and attributes are longer than 4096 bytes" : NULL;
}

/* Puts `profile` in place of the participant's. False if the arena is full. */
static bool replace_profile(const struct admin_call *call, Participant *participant,
                            const Signalbox__V1__Profile *profile)
{
    /* The same map type, generated once for each message that has it. */
    Signalbox__V1__Participant__AttributesEntry **attributes = zalloc(call, profile->n_attributes, sizeof *attributes);
    Signalbox__V1__Participant__AttributesEntry *entries = zalloc(call, profile->n_attributes, sizeof *entries);

    if (attributes == NULL || entries == NULL)
        return false;
    for (size_t i = 0; i < profile->n_attributes; i++) {
        signalbox__v1__participant__attributes_entry__init(&entries[i]);
        entries[i].key = profile->attributes[i]->key;
        entries[i].value = profile->attributes[i]->value;
        attributes[i] = &entries[i];
    }
    participant->name = profile->name;
    participant->metadata = profile->metadata;
    participant->attributes = attributes;
    participant->n_attributes = profile->n_attributes;
    return true;
}

static bool is_hidden(const Signalbox__V1__Permissions *permissions)
{
    return permissions != NULL && permissions->hidden;
}

static void update_participant(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__UpdateParticipant *request = call->request->update_participant;
    const Signalbox__V1__ParticipantUpdate *update = request->update;
    struct member *member = find_member(call, request->room, request->identity);
    Participant *participant = member != NULL ? unpack_participant(call, member) : NULL;
    unsigned changes = 0;

    if (participant == NULL)
        return;
    if (update == NULL || update->tracks != NULL || (update->profile == NULL && update->permissions == NULL)) {
        answer(call, SIGNALBOX__V1__CODE__INVALID, "an update is a profile, permissions, or both");
        return;
    }
    const char *fault = update->profile != NULL ? profile_fault(update->profile) : NULL;
    if (fault != NULL) {
        answer(call, SIGNALBOX__V1__CODE__TOO_LARGE, fault);
        return;
    }
    if (update->permissions != NULL && is_hidden(update->permissions) != is_hidden(participant->permissions)) {
        answer(call, SIGNALBOX__V1__CODE__INVALID, "whether a participant is hidden is settled when it joins");
        return;
    }
    if (update->permissions != NULL) {
        participant->permissions = update->permissions;
        changes |= CHANGED_PERMISSIONS;
    }
    if (update->profile != NULL && replace_profile(call, participant, update->profile))
        changes |= CHANGED_PROFILE;
    change(call, member, participant, changes);
}

static void delete_room(const struct admin_call *call)
{
    struct room *room = find_room(call, call->request->delete_room->room);
    if (room == NULL)
        return;
    log_info("room_deleted", log_str("project", room->project), log_str("room", room->name),
             log_uint("participants", room->total));
    /* The last one takes the room with it. */
    for (uint32_t left = room->total; left > 0; left--)
        member_end(list_first(&room->members, struct member, link), SIGNALBOX__V1__LEAVE_REASON__ROOM_CLOSED, true,
                   call->now_ms);
}

/* --- sending -------------------------------------------------------------------------------------------------------
 */

static void send_to_room(const struct admin_call *call, struct room *room)
{
    const Signalbox__Cluster__V1__SendData *send = call->request->send_data;

    if (send->reliable) {
        Signalbox__V1__Message message;
        signalbox__v1__message__init(&message);
        message.topic = send->topic;
        message.data_case = SIGNALBOX__V1__MESSAGE__DATA_PAYLOAD;
        message.payload = send->payload;
        room_add_message(room, &message, call->now_ms);
    } else {
        Signalbox__V1__Signal signal;
        signalbox__v1__signal__init(&signal);
        signal.topic = send->topic;
        signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_PAYLOAD;
        signal.payload = send->payload;
        room_add_signal(room, &signal, call->now_ms);
    }
}

static void send_to_member(const struct admin_call *call, const struct member *member)
{
    const Signalbox__Cluster__V1__SendData *send = call->request->send_data;
    Signalbox__Cluster__V1__SignalUpdate update = SIGNALBOX__CLUSTER__V1__SIGNAL_UPDATE__INIT;
    Signalbox__Cluster__V1__Item item = SIGNALBOX__CLUSTER__V1__ITEM__INIT;
    Signalbox__V1__Signal signal;

    signalbox__v1__signal__init(&signal);
    signal.topic = send->topic;
    signal.data_case = SIGNALBOX__V1__SIGNAL__DATA_PAYLOAD;
    signal.payload = send->payload;
    update.room_key =
        (ProtobufCBinaryData){.len = sizeof member->room->key.bytes, .data = (uint8_t *)member->room->key.bytes};
    update.signal = &signal;
    update.to = (char *)member->sid_text;
    item.body_case = SIGNALBOX__CLUSTER__V1__ITEM__BODY_SIGNAL;
    item.signal = &update;
    shard_send(call->shard, &member->gateway->address, &item);
}

static void send_data(const struct admin_call *call)
{
    const Signalbox__Cluster__V1__SendData *send = call->request->send_data;
    size_t receivers = send->n_to_sids + send->n_to_identities;
    struct room *room = find_room(call, send->room);

    if (room == NULL)
        return;
    if (send->payload.len > DATA_BYTES_MAX || strlen(send->topic) > TOPIC_BYTES_MAX || receivers > RECEIVERS_MAX) {
        answer(call, SIGNALBOX__V1__CODE__TOO_LARGE, "at most 32 KiB, a topic of 128 bytes and 256 receivers");
        return;
    }
    if (receivers == 0) {
        send_to_room(call, room);
        return;
    }
    if (send->reliable) {
        /* Reliable to one is a promise between two participants, and the server is not one. */
        answer(call, SIGNALBOX__V1__CODE__INVALID, "reliable data goes to the whole room; to some, only unreliable");
        return;
    }
    size_t reached = 0;
    for (size_t i = 0; i < receivers; i++) {
        struct member *member = i < send->n_to_sids ? member_find(call->shard, send->to_sids[i])
                                                    : find_member_in(room, send->to_identities[i - send->n_to_sids]);
        if (member == NULL || member->room != room || member->detached)
            continue;
        send_to_member(call, member);
        reached++;
    }
    if (reached == 0)
        answer(call, SIGNALBOX__V1__CODE__NOT_FOUND, "none of the receivers is connected");
}

/* --- entry ---------------------------------------------------------------------------------------------------------
 */

bool shard_admin(struct shard *shard, const Request *request, struct arena *arena, Reply *reply, int64_t now_ms)
{
    static const struct {
        Signalbox__Cluster__V1__AdminRequest__RequestCase request;
        void (*handle)(const struct admin_call *call);
    } handlers[] = {
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_GET_ROOM, get_room},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_LIST_ROOMS, list_rooms},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_REMOVE_PARTICIPANT, remove_participant},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_MUTE_TRACK, mute_track},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_UPDATE_PARTICIPANT, update_participant},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_SEND_DATA, send_data},
        {SIGNALBOX__CLUSTER__V1__ADMIN_REQUEST__REQUEST_DELETE_ROOM, delete_room},
    };
    struct admin_call call = {.shard = shard, .request = request, .arena = arena, .reply = reply, .now_ms = now_ms};

    reply->request_id = request->request_id;
    reply->code = SIGNALBOX__V1__CODE__OK;
    for (size_t i = 0; i < sizeof handlers / sizeof handlers[0]; i++) {
        if (handlers[i].request != request->request_case)
            continue;
        handlers[i].handle(&call);
        return true;
    }
    return false;
}
