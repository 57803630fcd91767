#include "shard/room.h"

#include "common/mem.h"
#include "shard/internal.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct room *room_new(struct shard *shard, const struct room_key *key, const char *project, const char *name,
                      int64_t wall_ms)
{
    struct room *room = mem_new(struct room);
    room->shard = shard;
    room->key = *key;
    room->project = mem_strdup(project);
    room->name = mem_strdup(name);
    room->created_at_ms = wall_ms;
    room->batch_ms = shard->options.limits.batch_ms;
    budget_init(&room->budget, &shard->options.limits, shard->wheel->now_ms);
    snapshot_init(room);
    list_init(&room->members);
    list_init(&room->pending);
    list_init(&room->signals);
    list_init(&room->dirty_link);
    list_init(&room->ring);
    search_init(room);
    rebuild_init(room);
    shard->rooms_in_state[ROOM_ABSENT]++;
    return room;
}

void room_free(struct room **room_ptr)
{
    struct room *room = *room_ptr;
    if (room == NULL)
        return;
    assert(list_empty(&room->members));
    snapshot_drop_all(room);
    room_publish_done(room);
    list_remove(&room->dirty_link);
    search_done(room);
    handoff_free(room->handoff);
    room->shard->rooms_in_state[room->state]--;
    free(room->gateways);
    free(room->project);
    free(room->name);
    free(room);
    *room_ptr = NULL;
}

/* FNV-1a, 64 bits, then MurmurHash3's last steps: without those, versions of two members that grow at once cancel each
 * other out in one sum of four. */
static uint64_t text_digest(const char *text)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (const char *c = text; *c != '\0'; c++)
        hash = (hash ^ (uint8_t)*c) * 0x100000001b3;
    hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
    hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
    return hash ^ (hash >> 33);
}

/* Over "<sid>:<version>": simple enough for every client to compute. */
uint64_t member_digest(const struct member *member)
{
    char text[SID_TEXT_SIZE + 24];
    snprintf(text, sizeof text, "%s:%" PRIu64, member->sid_text, member->participant_version);
    return text_digest(text);
}

/* How far a member's messages to the room are part of its order; likewise. */
static uint64_t sends_digest(const struct member *member)
{
    char text[SID_TEXT_SIZE + 24];
    if (member->room_send_seq == 0)
        return 0;
    snprintf(text, sizeof text, "%s+%" PRIu64, member->sid_text, member->room_send_seq);
    return text_digest(text);
}

uint64_t room_position_digest(const struct room *room)
{
    return room->digest + room->sends_digest;
}

void room_set_send_seq(struct member *member, uint64_t seq)
{
    member->room->sends_digest -= sends_digest(member);
    member->room_send_seq = seq;
    member->room->sends_digest += sends_digest(member);
}

static struct room_gateway *find_gateway(struct room *room, const struct gateway_ref *gateway)
{
    for (uint32_t i = 0; i < room->gateway_count; i++)
        if (room->gateways[i].gateway == gateway)
            return &room->gateways[i];
    return NULL;
}

static void count_gateway(struct room *room, struct gateway_ref *gateway)
{
    struct room_gateway *entry = find_gateway(room, gateway);
    if (entry == NULL) {
        room->gateways = mem_realloc(room->gateways, (room->gateway_count + 1) * sizeof *room->gateways);
        entry = &room->gateways[room->gateway_count++];
        *entry = (struct room_gateway){.gateway = gateway};
    }
    entry->members++;
    gateway->members++;
}

static void uncount_gateway(struct room *room, struct gateway_ref *gateway)
{
    struct room_gateway *entry = find_gateway(room, gateway);
    assert(entry != NULL && gateway->members > 0);
    if (--entry->members == 0)
        *entry = room->gateways[--room->gateway_count];
    if (--gateway->members == 0) {
        HASH_DEL(room->shard->gateways, gateway);
        free(gateway);
    }
}

void room_seat_member(struct room *room, struct member *member)
{
    member->room = room;
    list_append(&room->members, &member->link);
    room->total++;
    room->sends_digest += sends_digest(member);
    count_gateway(room, member->gateway);
    if (member->listed) {
        room->listed++;
        room->digest += member_digest(member);
    } else if (member->viewer) {
        room->viewers++;
    }
}

void room_add_member(struct room *room, struct member *member, int64_t now_ms)
{
    room_seat_member(room, member);
    if (member->listed)
        room_add_member_event(room, EVENT_JOINED, member);
    else if (member->viewer)
        room_add_info_event(room);
}

void room_remove_member(struct room *room, struct member *member, Signalbox__V1__LeaveReason reason, int64_t now_ms)
{
    list_remove(&member->link);
    room->total--;
    room->sends_digest -= sends_digest(member);
    uncount_gateway(room, member->gateway);
    member->gateway = NULL;
    bool announced = true;
    if (member->pending != NULL) {
        announced = member->pending->type != EVENT_JOINED || member->pending->seq <= room->shown_seq;
        room_drop_event(room, member->pending);
    }
    if (member->listed) {
        room->seq++;
        room->listed--;
        room->digest -= member_digest(member);
        if (announced) {
            Signalbox__V1__ParticipantLeft left = SIGNALBOX__V1__PARTICIPANT_LEFT__INIT;
            Signalbox__V1__RoomEvent event = SIGNALBOX__V1__ROOM_EVENT__INIT;
            left.sid = member->sid_text;
            left.identity = member->identity;
            left.reason = reason;
            event.event_case = SIGNALBOX__V1__ROOM_EVENT__EVENT_LEFT;
            event.left = &left;
            room_add_packed_event(room, EVENT_LEFT, &event);
        } else {
            shard_mark_dirty(room); /* the range must still be covered */
        }
    } else if (member->viewer) {
        room->seq++;
        room->viewers--;
        room_add_info_event(room);
    }
    member->room = NULL;
}

void room_update_member(struct room *room, struct member *member, unsigned changes, int64_t now_ms)
{
    member->changes |= changes;
    if (member->listed && member->pending == NULL)
        room_add_member_event(room, EVENT_UPDATED, member);
    else if (member->viewer)
        room_add_info_event(room);
}

void room_move_member(struct room *room, struct member *member, struct gateway_ref *to)
{
    if (member->gateway == to)
        return;
    struct gateway_ref *from = member->gateway;
    count_gateway(room, to);
    uncount_gateway(room, from);
    member->gateway = to;
}

void room_info(const struct room *room, Signalbox__V1__RoomInfo *info)
{
    signalbox__v1__room_info__init(info);
    info->name = room->name;
    info->participants = room->listed;
    info->viewers = room->viewers;
    info->topology = SIGNALBOX__V1__TOPOLOGY__MESH;
    info->created_at_ms = room->created_at_ms;
}
