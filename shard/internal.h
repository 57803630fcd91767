/* What the files of shard/ share and nobody else sees. */
#ifndef SBX_SHARD_INTERNAL_H
#define SBX_SHARD_INTERNAL_H

#include "common/arena.h"
#include "common/buf.h"
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

struct shard {
    struct shard_options options;
    struct timer_wheel *wheel;
    struct shard_actions actions;
    void *ctx;
    struct view *view; /* newest; NULL before the first */
    uint64_t epoch_counter;

    struct room *rooms;                 /* by key */
    struct member *members_by_sid;      /* hh_sid */
    struct member *members_by_identity; /* hh_identity */
    struct gateway_ref *gateways;       /* by incarnation */
    struct departure *departures;
    struct list dirty_rooms; /* room->dirty_link */
    struct timer flush_timer;
    uint64_t snapshot_counter;
    uint32_t settling_rooms, detached;
    size_t pending_events;

    /* Scratch, valid within one call and never stored. */
    struct arena arena;
    struct buf buf;
};

enum { SHARD_ARENA_MAX = 4 * 1024 * 1024 };

void shard_send(struct shard *shard, const struct node_address *to, Signalbox__Cluster__V1__Item *item);
void shard_mark_dirty(struct room *room);

/* session.c: binding sessions to their members. */
void session_state(struct shard *shard, const struct node_address *from,
                   const Signalbox__Cluster__V1__SessionState *state, int64_t now_ms);
/* Ends a member for everybody: tells its gateway (unless `told`), publishes the departure, remembers it. */
void session_end(struct shard *shard, struct member *member, Signalbox__V1__LeaveReason reason, bool tell_gateway,
                 int64_t now_ms);
/* Gives a member a new participant (the owner's own fields are filled in) and publishes what has changed. */
void session_change(struct member *member, Signalbox__V1__Participant *participant, unsigned changes, int64_t now_ms);
/* Forgets a room and its members without a word to anybody: its new owner learns of them from the gateways. */
void session_drop_room(struct shard *shard, struct room *room);
struct member *session_find(struct shard *shard, const char *sid_text);
struct room *shard_find_room(struct shard *shard, const struct room_key *key);
void shard_drop_room_if_idle(struct shard *shard, struct room *room);
void shard_drop_room(struct shard *shard, struct room *room);
bool shard_parse_key(const ProtobufCBinaryData *data, struct room_key *ret_key);

/* snapshot.c: rosters in pages, pinned to one position. */
struct snapshot;
/* A first page, or the page at `cursor`; packed ServerMessage. NULL if the cursor is not known (any more). */
struct payload *snapshot_page(struct room *room, const char *cursor, bool want_viewers, uint64_t *ret_seq,
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
