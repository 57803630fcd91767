/* A shard under test in virtual time: what gateways would send goes in, what it sends to them is recorded, unpacked. */
#ifndef SBX_TESTS_SHARD_FIXTURE_H
#define SBX_TESTS_SHARD_FIXTURE_H

#include "common/epoch.h"
#include "shard/shard.h"
#include <check.h>

typedef Signalbox__Cluster__V1__Item Item;
typedef Signalbox__Cluster__V1__SessionState State;
typedef Signalbox__Cluster__V1__SessionAck Ack;
typedef Signalbox__Cluster__V1__RoomBatch Batch;
typedef Signalbox__V1__RoomEvents Events;
typedef Signalbox__V1__RoomEvent Event;
typedef Signalbox__V1__Snapshot Snapshot;

enum { FIXTURE_PEERS = 16, GATEWAYS = 3, JOIN = 1, RESUME = 2, HOLD = 3, ATTACHED = 1, DETACHED = 2, DEPARTED = 3 };

struct sent {
    int gateway;
    Item *item;
};

struct fixture {
    struct timer_wheel wheel;
    struct shard_options options;
    struct shard *shard;
    struct view *view;
    struct view_number reported;               /* by the gateways */
    struct view_number markers[FIXTURE_PEERS]; /* of other shards, by incarnation */
    struct view_number marker;                 /* this shard's */
    int64_t now_ms;
    int64_t wall_step_ms; /* by which somebody has set the wall clock */
    bool flush_wanted;
    struct sent *sent;
    size_t sent_count;
    struct arena arena; /* what was sent, for the whole test */
};

/* One session as its gateway holds it. */
struct person {
    char sid[SID_TEXT_SIZE + 1];
    char identity[32];
    const char *room;
    int gateway;
    uint64_t connection, version, bind_generation;
    Signalbox__V1__Participant__Kind kind;
    bool hidden;
    char name[32];
    unsigned tracks;
    uint32_t window_ms;
    uint64_t join_seq;
    struct epoch join_epoch;
    int64_t joined_at_ms;
};

/* Defaults for NULL. The view has this shard alone. */
void fixture_open(struct fixture *fixture, const struct shard_options *options);
/* A new owner that knows nothing, in a newer view. */
void fixture_restart(struct fixture *fixture);
void fixture_close(struct fixture *fixture);
/* Another fixture in its place. */
void fixture_reopen(struct fixture *fixture, const struct shard_options *options);
/* Lets time pass in steps of a millisecond at most, flushing whenever the shard wants it. */
void fixture_advance(struct fixture *fixture, int64_t ms);
void fixture_flush(struct fixture *fixture);
/* Packs and unpacks, as the bus does. */
void fixture_deliver(struct fixture *fixture, int gateway, const Item *item);
struct node_address fixture_gateway(int gateway);
void fixture_set_gateways(struct fixture *fixture, int count);

struct person person_make(const char *identity, const char *room, int gateway);
/* The wanted state as the gateway says it. It borrows from the person and from static memory, until the next call. */
State *person_state(const struct person *person, int intent, int state);
void send_state(struct fixture *fixture, const struct person *person, State *state);
/* Each of these sends one state and returns its acknowledgement, which must have come to the person's gateway. */
const Ack *person_join(struct fixture *fixture, struct person *person);
const Ack *person_hold(struct fixture *fixture, struct person *person, int state);
/* From another connection, with the token of `token_generation`. */
const Ack *person_resume(struct fixture *fixture, struct person *person, int gateway, uint64_t token_generation);
/* ... with the newest token, having seen everything up to `seq` of an epoch. */
const Ack *person_resume_at(struct fixture *fixture, struct person *person, int gateway, const struct epoch *epoch,
                            uint64_t seq);
/* Departs for a cause. */
void person_end(struct fixture *fixture, struct person *person, Signalbox__V1__LeaveReason reason);
void assert_refused(const Ack *ack, int code, int reason, int action);

/* The n-th item of a kind that was sent since `since`, to a gateway (-1: to any); NULL if there are not so many. */
const Item *sent_item(const struct fixture *fixture, size_t since, int gateway, int body_case, int n);
int sent_count(const struct fixture *fixture, size_t since, int gateway, int body_case);
/* The first command to a gateway, which must close a session. */
const Signalbox__Cluster__V1__SessionCommand *close_command(const struct fixture *fixture, size_t since, int gateway);
const Signalbox__V1__ServerMessage *unpack_message(struct fixture *fixture, ProtobufCBinaryData bytes);
/* The n-th batch of room events to a gateway since `since`; NULL if there are not so many. */
const Events *sent_events(struct fixture *fixture, size_t since, int gateway, int n);
const Snapshot *ack_snapshot(struct fixture *fixture, const Ack *ack);
const Signalbox__V1__Participant *snapshot_find(const Snapshot *snapshot, const char *sid);
const Signalbox__Cluster__V1__SyncReply *send_sync(struct fixture *fixture, const struct person *person,
                                                   const Signalbox__Cluster__V1__SyncRequest *request);
Signalbox__Cluster__V1__SyncRequest sync_make(const struct person *person);
ProtobufCBinaryData key_data(const char *room);

#define BODY(kind) SIGNALBOX__CLUSTER__V1__ITEM__BODY_##kind
#define REASON(kind) SIGNALBOX__V1__LEAVE_REASON__##kind
#define ACTION(kind) SIGNALBOX__V1__LEAVE_ACTION__##kind
#define CODE(kind) SIGNALBOX__V1__CODE__##kind

#endif
