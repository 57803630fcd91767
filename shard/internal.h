/* What the files of shard/ share and nobody else sees. */
#ifndef SBX_SHARD_INTERNAL_H
#define SBX_SHARD_INTERNAL_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/history.h"
#include "common/pool.h"
#include "common/revocations.h"
#include "shard/room.h"
#include "shard/shard.h"

/* Somebody who has left for good, remembered until no resume token of its can be valid any more. */
struct departure {
    struct sid sid;
    struct room_key room_key;
    struct list room_link; /* departures_by_room */
    Signalbox__V1__LeaveReason reason;
    struct timer expiry;
    struct shard *shard;
    UT_hash_handle hh; /* by sid */
};

enum { SHARD_REPORT_MS = 3000, SHARD_SUSPENDED_MS = 500, DEPARTURE_BUCKETS = 1024 };

struct shard {
    struct shard_options options;
    struct timer_wheel *wheel;
    struct shard_actions actions;
    void *ctx;
    struct view *view; /* newest; NULL before the first */
    struct history history;
    int64_t view_since_ms;
    struct timer progress_timer;
    bool suspended;
    bool full; /* takes no new rooms */
    uint64_t epoch_counter;

    struct room *rooms;                 /* by key */
    struct member *members_by_sid;      /* hh_sid */
    struct member *members_by_identity; /* hh_identity */
    struct gateway_ref *gateways;       /* by incarnation */
    struct departure *departures;       /* oldest first */
    struct pool departure_pool;
    struct list departures_by_room[DEPARTURE_BUCKETS];
    struct revocations revocations;
    struct handoff *handoffs; /* by id: rooms on their way out */
    struct handoff_target *targets;
    struct arrival *arrivals;   /* by handoff id: rooms on their way in */
    struct decision *decisions; /* by handoff id, oldest first: what became of those that came */
    size_t arrival_bytes;
    struct list dirty_rooms;  /* room->dirty_link; in the order of their turns */
    struct list parked_rooms; /* likewise; not due before parked_due_ms */
    struct timer parked_timer;
    int64_t parked_due_ms;
    uint64_t snapshot_counter;
    struct {
        int64_t since_ms;
        uint32_t count, before; /* since then, and in the span before it */
    } late_returns;
    size_t rooms_in_state[ROOM_STATE_COUNT];
    size_t waiting_commands;
    uint32_t detached;
    bool closing;
    size_t pending_events, pending_signals;
    size_t ring_bytes; /* of all rooms' */
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

/* room_publish.c: for room.c, the events that wait to be published */
enum event_type { EVENT_JOINED, EVENT_UPDATED, EVENT_LEFT, EVENT_MESSAGE, EVENT_INFO, EVENT_SETTLED };

struct pending_event {
    struct list link;
    enum event_type type;
    uint64_t seq;          /* of the first change that it stands for */
    struct member *member; /* JOINED, UPDATED */
    struct payload *bytes; /* LEFT, MESSAGE, SETTLED: packed RoomEvent */
};

/* JOINED or UPDATED, of a member that has none pending: tells of it as it is when it is published. */
void room_add_member_event(struct room *room, enum event_type type, struct member *member);
/* LEFT, MESSAGE or SETTLED: packs the event as it is now. */
void room_add_packed_event(struct room *room, enum event_type type, const Signalbox__V1__RoomEvent *packed);
/* The room's counts have changed; one event stands for all changes until it is published. */
void room_add_info_event(struct room *room);
/* Takes back an event that is not published yet, and frees it. */
void room_drop_event(struct room *room, struct pending_event *event);
/* Frees what waits and the ring, of a room that is being freed. */
void room_publish_done(struct room *room);

/* session.c: binding sessions to their members. */
void session_state(struct shard *shard, const struct node_address *from,
                   const Signalbox__Cluster__V1__SessionState *state, int64_t now_ms);
/* Forgets a room and its members without a word to anybody: its new owner learns of them from the gateways. */
void session_drop_room(struct shard *shard, struct room *room);
/* Starts the windows of those whose gateway is no longer in the view. */
void session_detach_lost(struct shard *shard, int64_t now_ms);

/* One command that waits is carried out as if it had come now. */
void session_refuse_waiting(struct shard *shard, const struct node_address *from,
                            const Signalbox__Cluster__V1__SessionState *state);
void session_answer_not_owner(struct shard *shard, const struct node_address *to,
                              const Signalbox__Cluster__V1__SessionState *state);

/* owner.c: what a new view means for rooms */
bool owner_is_self(const struct shard *shard, const struct view *view, const struct room_key *key, const char *name);
/* From which view on this shard, which is the owner now, has been that; zero if it has been in all that still count. */
struct view_number owner_since(const struct shard *shard, const struct room_key *key, const char *name);
/* The owner's address in the newest view; incarnation 0 if it has no shards. */
struct node_address owner_address(const struct shard *shard, const struct room_key *key, const char *name);
/* Where a room may be that is not here: unknown is never taken for new. */
enum origin {
    ORIGIN_NEW,       /* nowhere */
    ORIGIN_LOST,      /* its owner was lost: in the gateways' reports */
    ORIGIN_ELSEWHERE, /* another shard may hold it */
};
/* `room` is what is here of it (held), or NULL. `ret_shards` (may be NULL; HISTORY_MAX or the view's shards long) gets
 * those that may hold it. */
enum origin owner_origin(struct shard *shard, const struct room *room, const struct room_key *key, const char *name,
                         uint64_t *ret_shards, size_t *ret_count);
/* All gateways have reported what they hold of lost owners' rooms, or have had their time. */
bool owner_reports_complete(const struct shard *shard, int64_t now_ms);
/* No other shard holds a room that is not its own in the newest view. */
bool owner_others_settled(const struct shard *shard);
struct epoch owner_next_epoch(struct shard *shard);
/* Something that the marker waits for may be over. */
void owner_progress(struct shard *shard, int64_t now_ms);

/* search.c: rooms that are asked for before they are here */
/* Keeps the command until the room is served or another shard's; refuses it if too many wait. */
void search_wait(struct room *room, const struct node_address *from, const Signalbox__Cluster__V1__SessionState *state,
                 int64_t now_ms);
/* Looks again where a held room may be: asks on, or lets it be rebuilt, or begun. */
void search_step(struct room *room, int64_t now_ms);
/* Carries out what waits; the room may be gone afterwards. */
void search_release(struct room *room, int64_t now_ms);
/* The same in two steps, for a room that is replaced in between. */
void search_take(struct room *room, struct list *ret_waiting);
void search_replay(struct shard *shard, struct list *waiting, int64_t now_ms);
void search_init(struct room *room);
/* Tells those that wait that another shard owns the room. */
void search_send_away(struct room *room);
bool search_denied(const struct room *room, uint64_t incarnation, struct view_number number);
void search_on_pull(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__PullRequest *request, int64_t now_ms);
void search_on_reply(struct shard *shard, const struct node_address *from,
                     const Signalbox__Cluster__V1__PullReply *reply, int64_t now_ms);
void search_done(struct room *room);

/* rebuild.c: rooms whose owner was lost, and what gateways are told once a room has another owner */
void rebuild_init(struct room *room);
void rebuild_open(struct room *room, int64_t now_ms);
void rebuild_finish(struct room *room, int64_t now_ms);
/* Whoever served the room is another one now: EpochChange to one gateway, or to all with members here. */
void rebuild_tell(const struct room *room, const struct node_address *gateway);
void rebuild_tell_all(const struct room *room);
/* A lost owner had this much of the member's messages in its order. What is new in that nobody can be given any more:
 * whoever has taken this room's position for the lost owner's gets the room's state anew. Until they have it, they
 * would pass over what is said to the room: room->unheard_until_ms. */
void rebuild_learn_sent(struct member *member, uint64_t acked, int64_t now_ms);
/* The owner acts again: what was said to it meanwhile was not heard. */
void rebuild_tell_resumed(const struct room *room);
/* A room begins to be served and settles for a resume window, or goes on to. */
void rebuild_settle(struct room *room, int64_t left_ms, int64_t now_ms);

/* handoff.c: rooms on their way to their new owners */
void handoff_freeze(struct room *room, int64_t now_ms);
/* A newer view: where the room's copy goes from here. May free the room. */
void handoff_retarget(struct room *room, int64_t now_ms);
void handoff_on_reply(struct shard *shard, const struct node_address *from,
                      const Signalbox__Cluster__V1__HandoffReply *reply, int64_t now_ms);
/* Next in line: somebody waits for it. */
void handoff_hurry(struct room *room, int64_t now_ms);
const struct node_address *handoff_target_of(const struct room *room);
void handoff_free(struct handoff *handoff);

/* arrival.c: rooms on their way in */
void arrival_chunk(struct shard *shard, const struct node_address *from,
                   const Signalbox__Cluster__V1__HandoffChunk *chunk, int64_t now_ms);
/* Forgets what was decided in views that have settled, and what comes from processes that have gone. */
void arrival_view(struct shard *shard);
void arrival_done(struct shard *shard);

/* transfer.c: a room as bytes */
struct payload *transfer_pack(struct room *room, int64_t now_ms);
/* Puts a room together from what transfer_pack() wrote, under `epoch`; `room` has no members yet. False if something in
 * it is malformed: the room is as before then. */
bool transfer_unpack(struct room *room, const Signalbox__Cluster__V1__RoomState *state, const struct epoch *epoch,
                     int64_t now_ms);

/* member.c */
struct member *member_find(struct shard *shard, const char *sid_text);
/* The one with this identity in the room of this key. */
struct member *member_find_identity(struct shard *shard, const struct room_key *key, const char *identity);
void member_identity_key(const struct room_key *key, const char *identity, uint8_t ret_key[16]);
struct gateway_ref *member_open_gateway(struct shard *shard, const struct node_address *address);
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

/* Of a sid and an identity that nobody in the room has; in the tables, and in no room yet. What the participant says of
 * its kind and permissions decides how it is listed. */
struct member *member_new(struct shard *shard, const struct sid *sid, const struct room_key *key,
                          const Signalbox__V1__Participant *participant);
bool shard_lists_gateway(const struct shard *shard, const struct node_address *gateway);

/* departure.c */
struct departure *departure_find(struct shard *shard, const struct sid *sid);
void departure_remember(struct shard *shard, const struct sid *sid, const struct room_key *key,
                        Signalbox__V1__LeaveReason reason, uint32_t window_ms, int64_t now_ms);
void departure_remember_until(struct shard *shard, const struct sid *sid, const struct room_key *key,
                              Signalbox__V1__LeaveReason reason, int64_t until_ms);
void departure_forget(struct departure *departure);
struct list *departure_bucket(struct shard *shard, const struct room_key *key);
/* The revocations' callbacks, and room for them. */
void departure_init(struct shard *shard);
/* The session was ended for good: if it was for a reason that beats resume, everybody is told. */
void departure_revoke(struct shard *shard, const struct sid *sid, Signalbox__V1__LeaveReason reason, int64_t now_ms);
/* How a departed session ended; SESSION_GONE if nobody remembers. */
Signalbox__V1__LeaveReason departure_reason(struct shard *shard, const char *sid_text);
/* Whether somebody whose session ended so may come back by itself as a new one. */
Signalbox__V1__LeaveAction departure_action(Signalbox__V1__LeaveReason reason);

/* Only if it is served. */
struct room *shard_find_room(struct shard *shard, const struct room_key *key);
/* Whatever it is to this shard. */
struct room *shard_find_any_room(struct shard *shard, const struct room_key *key);
/* A room that is absent still: the caller sets its state. */
struct room *shard_open_room(struct shard *shard, const struct room_key *key, const char *project, const char *name);
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

/* compare.c: what a gateway holds against what is listed here as attached to it. */
void compare_digest(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__SessionDigest *digest, int64_t now_ms);

/* sync.c: what a session or a gateway has missed. */
void sync_request(struct shard *shard, const struct node_address *from,
                  const Signalbox__Cluster__V1__SyncRequest *request, int64_t now_ms);
void sync_positions(struct shard *shard, const struct node_address *from,
                    const Signalbox__Cluster__V1__LinkPositions *positions, int64_t now_ms);
/* Fills `messages` (ProtobufCBinaryData, from the shard's arena, borrowing from the ring) with all batches after `seq`;
 * the caller has checked room_can_replay(). */
size_t sync_replay(struct room *room, uint64_t seq, ProtobufCBinaryData **ret_messages);

#endif
