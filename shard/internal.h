/* What the files of shard/ share and nobody else sees. */
#ifndef SBX_SHARD_INTERNAL_H
#define SBX_SHARD_INTERNAL_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/pool.h"
#include "shard/room.h"
#include "shard/shard.h"

/* Somebody who has left for good, remembered until no resume token of its can be valid any more. */
struct departure {
    struct sid sid;
    struct room_key room_key;
    Signalbox__V1__LeaveReason reason;
    struct timer expiry;
    struct shard *shard;
    UT_hash_handle hh; /* by sid */
};

enum { SHARD_HISTORY_MAX = 32, SHARD_REPORT_MS = 3000, SHARD_SUSPENDED_MS = 500 };

struct shard {
    struct shard_options options;
    struct timer_wheel *wheel;
    struct shard_actions actions;
    void *ctx;
    struct view *view;                       /* newest; NULL before the first */
    struct view *history[SHARD_HISTORY_MAX]; /* views before it that have not all settled, oldest first */
    size_t history_count;
    bool history_whole; /* nothing before the oldest can hold a room of this shard's */
    int64_t view_since_ms;
    bool suspended;
    bool full; /* takes no new rooms */
    uint64_t epoch_counter;

    struct room *rooms;                 /* by key */
    struct member *members_by_sid;      /* hh_sid */
    struct member *members_by_identity; /* hh_identity */
    struct gateway_ref *gateways;       /* by incarnation */
    struct departure *departures;       /* oldest first */
    struct pool departure_pool;
    struct list dirty_rooms;  /* room->dirty_link; in the order of their turns */
    struct list parked_rooms; /* likewise; not due before parked_due_ms */
    struct timer parked_timer;
    int64_t parked_due_ms;
    uint64_t snapshot_counter;
    uint32_t settling_rooms, detached;
    struct {
        int64_t since_ms;
        uint32_t count, before; /* since then, and in the span before it */
    } late_returns;
    size_t pending_events, pending_signals;
    size_t held_bytes; /* of directed messages for members that are away */

    /* Scratch, valid within one call and never stored. */
    struct arena arena;
    struct buf buf;
};

enum { SHARD_ARENA_MAX = 4 * 1024 * 1024 };

void shard_send(struct shard *shard, const struct node_address *to, Signalbox__Cluster__V1__Item *item);

/* schedule.c: which room publishes when. */
void schedule_init(struct shard *shard);
void schedule_done(struct shard *shard);
/* The room has something to publish. */
void shard_mark_dirty(struct room *room);

/* session.c: binding sessions to their members. */
void session_state(struct shard *shard, const struct node_address *from,
                   const Signalbox__Cluster__V1__SessionState *state, int64_t now_ms);
/* Forgets a room and its members without a word to anybody: its new owner learns of them from the gateways. */
void session_drop_room(struct shard *shard, struct room *room);
/* Starts the windows of those whose gateway is no longer in the view. */
void session_detach_lost(struct shard *shard, int64_t now_ms);

/* owner.c: what a new view means for rooms */
bool owner_is_self(const struct shard *shard, const struct view *view, const struct room_key *key, const char *name);
/* Whether a room that is not here may yet be reported by a gateway, because another shard owned it not long ago. */
bool owner_may_be_reported(struct shard *shard, const struct room_key *key, const char *name, int64_t now_ms);
void owner_forget_history(struct shard *shard);

/* member.c */
struct member *member_find(struct shard *shard, const char *sid_text);
/* The one with this identity in the room of this key. */
struct member *member_find_identity(struct shard *shard, const struct room_key *key, const char *identity);
void member_identity_key(const struct room_key *key, const char *identity, uint8_t ret_key[16]);
struct gateway_ref *member_open_gateway(struct shard *shard, const struct node_address *address);
void member_init_window(struct member *member);
/* Takes over the gateway's idea of the participant, with the fields that are the owner's own. */
void member_set_participant(struct member *member, Signalbox__V1__Participant *participant);
/* Gives a member a new participant (the owner's own fields are filled in) and publishes what has changed. */
void member_change(struct member *member, Signalbox__V1__Participant *participant, unsigned changes, int64_t now_ms);
/* What of the participant a gateway would have changed: enum member_change. */
unsigned member_changes(const struct member *member, const Signalbox__V1__Participant *participant);
/* As member_change(), for what a gateway says, once it is known what has changed. */
void member_apply_participant(struct member *member, Signalbox__V1__Participant *participant, int64_t now_ms);
void member_attach(struct member *member, int64_t now_ms);
/* What a fresh access token allows it. */
void member_apply_permissions(struct member *member, Signalbox__V1__Permissions *permissions, int64_t now_ms);
void member_detach(struct member *member, uint32_t left_ms, int64_t now_ms);
/* What was said to it while it was away; after the acknowledgement that binds it, without which its gateway would not
 * know what to do with it. */
void member_pass_on_held(struct member *member);
void member_tell_closed(struct member *member, Signalbox__V1__LeaveReason reason);
/* Ends a member for everybody: tells its gateway if asked to, publishes the departure, remembers it. Frees the room if
 * it was the last. */
void member_end(struct member *member, Signalbox__V1__LeaveReason reason, bool tell_gateway, int64_t now_ms);
/* The room knows it no more. */
void member_free(struct member *member);

/* departure.c */
struct departure *departure_find(struct shard *shard, const struct sid *sid);
void departure_remember(struct shard *shard, const struct sid *sid, const struct room_key *key,
                        Signalbox__V1__LeaveReason reason, uint32_t window_ms, int64_t now_ms);
void departure_forget(struct departure *departure);
/* How a departed session ended; SESSION_GONE if nobody remembers. */
Signalbox__V1__LeaveReason departure_reason(struct shard *shard, const char *sid_text);
/* Whether somebody whose session ended so may come back by itself as a new one. */
Signalbox__V1__LeaveAction departure_action(Signalbox__V1__LeaveReason reason);

struct room *shard_find_room(struct shard *shard, const struct room_key *key);
void shard_drop_room_if_idle(struct shard *shard, struct room *room);
void shard_drop_room(struct shard *shard, struct room *room);
/* Whether the member's room may take this; if not, the member has been told. */
bool shard_charge(struct member *member, const struct room_charge *charge, int64_t now_ms);
bool shard_parse_key(const ProtobufCBinaryData *data, struct room_key *ret_key);

/* snapshot.c: rosters in pages, pinned to one position. */
struct snapshot;
struct snapshot_request {
    const char *cursor; /* "" for a first page */
    bool want_viewers;
    uint32_t page_size; /* most participants of a page; 0 = as many as fit its bytes */
};
void snapshot_init(struct room *room);
/* The page as a packed ServerMessage; NULL if the cursor is not known (any more). */
struct payload *snapshot_page(struct room *room, const struct snapshot_request *request, uint64_t *ret_seq,
                              bool *ret_last, int64_t now_ms);
void snapshot_drop_all(struct room *room);

/* sync.c: what a session or a gateway has missed. */
void sync_request(struct shard *shard, const struct node_address *from,
                  const Signalbox__Cluster__V1__SyncRequest *request, int64_t now_ms);
void sync_positions(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__LinkPositions *positions, int64_t now_ms);
/* Fills `messages` (ProtobufCBinaryData, from the shard's arena, borrowing from the ring) with all batches after `seq`;
 * the caller has checked room_can_replay(). */
size_t sync_replay(struct room *room, uint64_t seq, ProtobufCBinaryData **ret_messages);

#endif
