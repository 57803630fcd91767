/* A room: who is in it, the order of what happened, and what of that is still to be published.
 *
 * Every change takes the next seq and marks what it changed; room_flush() turns the marks into one batch of events, so
 * that what cancels out or is overtaken within a tick is never sent. Batches are kept in a ring for replay.
 *
 * room.c has who is in it, room_publish.c what is said of it.
 *
 * Internal to shard/. Free of I/O; threading: loop thread.
 */
#ifndef SBX_SHARD_ROOM_H
#define SBX_SHARD_ROOM_H

#include "common/epoch.h"
#include "common/ids.h"
#include "common/list.h"
#include "common/payload.h"
#include "common/timer.h"
#include "shard/budget.h"
#include "shard/negotiation.h"
#include "shard/shard.h"
#include "shard/states.h"
#include <uthash.h>

/* A gateway that has members here. */
struct gateway_ref {
    struct node_address address;
    uint32_t members;  /* over all rooms; freed at 0 */
    bool lost;         /* not in the newest view */
    UT_hash_handle hh; /* by incarnation */
};

struct room_gateway {
    struct gateway_ref *gateway;
    uint32_t members; /* of this room */
};

enum member_change { CHANGED_PROFILE = 1, CHANGED_TRACKS = 2, CHANGED_PERMISSIONS = 4 };

struct member {
    struct sid sid;
    char sid_text[SID_TEXT_SIZE + 1];
    uint8_t identity_key[16]; /* of (room, identity) */
    struct room *room;
    struct list link; /* room->members, in order of joining */
    struct gateway_ref *gateway;
    struct pending_event *pending; /* JOINED or UPDATED that is not yet published */
    struct payload *participant;   /* packed signalbox.v1.Participant */
    char *identity;

    uint64_t connection; /* at the gateway */
    /* The connection that lost the session last: what it still repeats must not win it back. */
    uint64_t replaced_incarnation, replaced_connection;
    uint64_t bind_generation;
    uint64_t confirmed_generation; /* resume tokens below it are superseded */
    uint64_t version;              /* of the gateway's wanted state, as applied */
    uint64_t participant_version;
    uint64_t room_send_seq; /* of its reliable messages to the room; room_set_send_seq() while it is in a room */
    uint32_t attempt;       /* of the client to resume, that is bound; an older one is late */
    uint32_t grants_version;
    struct epoch join_epoch;
    uint64_t join_seq;
    int64_t joined_at_ms;
    uint32_t resume_window_ms;
    uint8_t changes; /* enum member_change, since the last publication */
    bool detached;
    bool listed; /* neither hidden nor a viewer */
    bool viewer;
    bool sends_reported;       /* room_send_seq is a gateway's word: a lost owner may have acknowledged more */
    struct timer window;       /* runs while detached */
    int64_t detached_ms;       /* since when it is */
    int64_t throttled_ms;      /* when it was told last that the room is over its budget */
    uint32_t throttled_untold; /* of its requests since */
    struct negotiations negotiations;
    struct held *held; /* directed messages that wait for it; NULL: none */
    struct shard *shard;

    UT_hash_handle hh_sid, hh_identity;
};

struct room {
    struct room_key key;
    char *project, *name;
    struct shard *shard;
    struct epoch epoch;
    char epoch_text[EPOCH_TEXT_MAX + 1];
    struct view_number owned_since; /* the view from which on it has been this shard's */
    uint64_t seq;                   /* of the last change */
    uint64_t published_seq;         /* of the last batch */
    uint64_t shown_seq;             /* snapshots have shown changes up to here that may not be published yet */
    uint64_t digest;                /* over the listed, docs/PROTOCOL.md */
    uint64_t sends_digest;          /* over how far the members' messages are part of the order */
    struct list members;
    uint32_t listed, viewers, total;
    struct room_gateway *gateways;
    uint32_t gateway_count;
    enum room_state state;
    int64_t created_at_ms; /* wall clock */
    /* The epoch under which an earlier owner held the room: its positions up to came_seq are this epoch's too. */
    struct epoch came_epoch;
    int64_t unheard_until_ms; /* those who are here are being given the room's state anew */
    uint64_t came_seq;

    struct list waiting; /* struct waiting_command: until it is served, or another shard's */
    uint32_t waiting_count;
    struct timer waiting_timer;
    struct pull *pulls; /* while held */
    size_t pull_count;
    struct handoff *handoff; /* while frozen */
    int64_t frozen_ms;
    int64_t settle_left_ms; /* while frozen; 0: it had settled */

    struct list pending; /* struct pending_event */
    struct pending_event *pending_info;
    struct list signals; /* struct pending_signal */
    uint32_t signal_count;
    size_t signal_bytes;
    struct list dirty_link;  /* shard->dirty_rooms, or parked_rooms */
    int64_t waits_since_ms;  /* while in one of them */
    int64_t parked_until_ms; /* 0: not parked */
    int64_t next_flush_ms;   /* of events, and the earliest of signals */
    int64_t next_signals_ms;
    uint32_t batch_ms;    /* between two publications; grows while it is busy */
    uint32_t share_bytes; /* of the shard's turn, as far as it is not used up */
    struct room_budget budget;

    struct list ring; /* struct ring_entry, oldest first */
    uint32_t ring_entries, ring_bytes;

    struct list snapshots; /* struct snapshot, least recently used first */
    struct timer snapshot_timer;
    struct timer settle_timer;

    UT_hash_handle hh; /* by key */
};

struct ring_entry {
    struct list link;
    uint64_t first_seq, last_seq;
    int64_t at_ms;
    struct payload *message; /* packed ServerMessage */
};

/* Absent, and without an epoch. */
struct room *room_new(struct shard *shard, const struct room_key *key, const char *project, const char *name,
                      int64_t wall_ms);
/* Expects no members. */
void room_free(struct room **room);
/* Takes the room under a new epoch of this shard; what is pending belongs to it. */
void room_set_epoch(struct room *room, const struct epoch *epoch);
/* Forgets what is not published yet: nobody has seen this epoch. */
void room_discard_pending(struct room *room);
/* Takes up an event that an earlier owner had published, under the room's own epoch. Returns false if it is malformed.
 */
bool room_take_event(struct room *room, const Signalbox__Cluster__V1__RingEntry *entry, int64_t now_ms);

/* The member is in the tables already and has its participant; publishes its join. */
void room_add_member(struct room *room, struct member *member, int64_t now_ms);
/* The same without a word: others know of it already, or will be told otherwise. */
void room_seat_member(struct room *room, struct member *member);
/* Unlinks, publishes the departure. The caller frees the member. */
void room_remove_member(struct room *room, struct member *member, Signalbox__V1__LeaveReason reason, int64_t now_ms);
void room_update_member(struct room *room, struct member *member, unsigned changes, int64_t now_ms);
void room_move_member(struct room *room, struct member *member, struct gateway_ref *to);
/* Of all that its position stands for: rooms that were rebuilt go on in silence only where it is the same. */
uint64_t room_position_digest(const struct room *room);
/* The member's messages up to here are part of the room's order. */
void room_set_send_seq(struct member *member, uint64_t seq);
void room_add_message(struct room *room, const Signalbox__V1__Message *message, int64_t now_ms);
/* Takes the place of a waiting signal of the same sender and key; the oldest is dropped when too many wait. */
void room_add_signal(struct room *room, const Signalbox__V1__Signal *signal, int64_t now_ms);
/* Everybody who comes back has come back: tells it, with the digest of the roster, in a batch of its own. */
void room_settle(struct room *room, int64_t now_ms);
/* Somebody else than `self` (or NULL) has been shown the room as it is now: no join that it saw may be cancelled in
 * silence by the leave after it. */
void room_mark_shown(struct room *room, const struct member *self);
/* Publishes all pending events at once: somebody is about to be told the room's state beside them. */
void room_flush(struct room *room, int64_t now_ms);
/* Publishes what is due, until about `allowance` bytes have been sent to gateways, and returns how many were.
 * `ret_due_ms`: when there is more to publish (now, if the allowance was used up); -1: nothing is left. */
size_t room_publish(struct room *room, size_t allowance, int64_t now_ms, int64_t *ret_due_ms);
/* A position of this epoch, or one of the epoch from which the room came that is the same as one of this. */
bool room_knows_position(const struct room *room, const struct epoch *epoch, uint64_t seq);
/* Everything after `seq` is in the ring (or nothing is missing). */
bool room_can_replay(const struct room *room, const struct epoch *epoch, uint64_t seq);
/* The room's counts and options. Strings are borrowed from the room. */
void room_info(const struct room *room, Signalbox__V1__RoomInfo *info);
/* Sends a packed ServerMessage to all gateways with members here. */
void room_broadcast(struct room *room, unsigned class, uint64_t first_seq, uint64_t last_seq,
                    const struct payload *message, const char *exclude_sid);
/* This participant's part of the roster digest. */
uint64_t member_digest(const struct member *member);

#endif
